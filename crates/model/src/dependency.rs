//! Packages that may be installed, each by its exact name and version.
//!
//! A name and a version have many spellings, and a list that compares spellings is passed by with another one. So each
//! is read into its one form where a list is made and where something is asked for, and compared in no other.

pub mod npm;
pub mod pip;

use crate::host::Host;
use crate::limits;
use crate::network::Entry;
use crate::spec::Findings;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ecosystem {
    /// Python packages: pip, uv, and whatever else reads a simple index (PEP 503, PEP 691).
    Pip,
    /// JavaScript packages: npm, pnpm, yarn.
    Npm,
}

/// Who serves Python packages, as of 2026.
const PIP_HOSTS: [&str; 7] = [
    "pypi.org",
    "*.pypi.org",
    "pypi.python.org",
    "*.pythonhosted.org",
    "pypi.io",
    "pypi.tuna.tsinghua.edu.cn",
    "conda.anaconda.org",
];

/// Who serves JavaScript packages, as of 2026: registries, and those that hand out files of packages one by one.
const NPM_HOSTS: [&str; 14] = [
    "registry.npmjs.org",
    "*.npmjs.org",
    "registry.npmjs.com",
    "*.npmjs.com",
    "registry.yarnpkg.com",
    "npm.pkg.github.com",
    "npm.jsr.io",
    "*.npmmirror.com",
    "unpkg.com",
    "*.unpkg.com",
    "cdn.jsdelivr.net",
    "esm.sh",
    "*.esm.sh",
    "cdn.skypack.dev",
];

impl Ecosystem {
    /// All of them.
    pub const ALL: [Ecosystem; 2] = [Ecosystem::Pip, Ecosystem::Npm];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Ecosystem::Pip => "pip",
            Ecosystem::Npm => "npm",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Ecosystem> {
        Ecosystem::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// The host inside a sandbox at which its index answers, on port 80. `internal` is the domain that ICANN gave to
    /// nobody, so no host of the world has this name.
    pub fn index(self) -> &'static str {
        match self {
            Ecosystem::Pip => "pypi.cofferdam.internal",
            Ecosystem::Npm => "npm.cofferdam.internal",
        }
    }

    /// The ecosystem whose index a sandbox would find there.
    pub fn of_index(host: &Host, port: u16) -> Option<Ecosystem> {
        let Host::Name(name) = host else { return None };
        let mut all = Ecosystem::ALL.into_iter();
        all.find(|one| one.index() == name && port == INDEX_PORT)
    }

    /// Who else serves its packages.
    fn hosts(self) -> &'static [&'static str] {
        match self {
            Ecosystem::Pip => &PIP_HOSTS,
            Ecosystem::Npm => &NPM_HOSTS,
        }
    }

    /// `NAME==VERSION` in its one form; `None` where that is not exact.
    pub fn read(self, text: &str) -> Option<String> {
        let (name, version) = text.split_once("==")?;
        let (name, version) = match self {
            Ecosystem::Pip => (
                pip::name(name)?,
                version.parse::<pip::Version>().ok()?.to_string(),
            ),
            Ecosystem::Npm => (npm::name(name)?, npm::version(version)?),
        };
        Some(format!("{name}=={version}"))
    }
}

impl fmt::Display for Ecosystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The port of the indexes inside. There is no TLS between a program and the proxy of its own sandbox.
pub const INDEX_PORT: u16 = 80;

/// What may be installed, by ecosystem. An ecosystem that is not here is held to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Lists", into = "Lists")]
pub struct Dependencies {
    lists: Lists,
    /// Where the indexes of the node get what they serve. To a sandbox these hosts are closed as all others are that
    /// serve packages. Known on the node alone.
    sources: Vec<(Ecosystem, Host)>,
}

type Lists = BTreeMap<Ecosystem, BTreeSet<String>>;

impl From<Lists> for Dependencies {
    fn from(lists: Lists) -> Dependencies {
        let sources = Vec::new();
        Dependencies { lists, sources }
    }
}

impl From<Dependencies> for Lists {
    fn from(all: Dependencies) -> Lists {
        all.lists
    }
}

impl Dependencies {
    /// Reads lists by the names of ecosystems, as somebody writes them.
    pub(crate) fn read(
        field: &str,
        code: &'static str,
        asked: &BTreeMap<String, BTreeSet<String>>,
        found: &mut Findings,
    ) -> Dependencies {
        let mut lists = Lists::new();
        for (ecosystem, packages) in asked {
            let field = format!("{field}.{ecosystem}");
            let Some(ecosystem) = Ecosystem::parse(ecosystem) else {
                found.add(&field, code, "there are `pip` and `npm`");
                continue;
            };
            found.count(&field, packages.len(), limits::DEPENDENCIES_MAX);
            let mut list = BTreeSet::new();
            for package in packages.iter().take(limits::DEPENDENCIES_MAX) {
                match ecosystem.read(package) {
                    Some(package) => {
                        list.insert(package);
                    }
                    None => {
                        let shown = package.chars().filter(|one| !one.is_control());
                        let shown: String = shown.take(limits::PACKAGE_BYTES_MAX).collect();
                        let message = format!(
                            "`{shown}` is not NAME==VERSION, with one exact version as {ecosystem} writes it"
                        );
                        found.add(&field, code, message);
                    }
                }
            }
            lists.insert(ecosystem, list);
        }
        lists.into()
    }

    /// Whether nothing is held to anything.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// How many packages are named.
    pub fn count(&self) -> usize {
        self.lists.values().map(BTreeSet::len).sum()
    }

    /// What may be installed with this ecosystem; `None` where it is held to nothing.
    pub fn of(&self, ecosystem: Ecosystem) -> Option<&BTreeSet<String>> {
        self.lists.get(&ecosystem)
    }

    /// Ecosystems that are held to a list, with theirs.
    pub fn lists(&self) -> impl Iterator<Item = (Ecosystem, &BTreeSet<String>)> {
        self.lists
            .iter()
            .map(|(ecosystem, list)| (*ecosystem, list))
    }

    /// Whether this package may be installed, by a name and a version in their one form.
    pub fn lets(&self, ecosystem: Ecosystem, name: &str, version: &str) -> bool {
        let list = self.lists.get(&ecosystem);
        list.is_some_and(|list| list.contains(&format!("{name}=={version}")))
    }

    /// The versions of a package that may be installed.
    pub fn versions<'d>(
        &'d self,
        ecosystem: Ecosystem,
        name: &'d str,
    ) -> impl Iterator<Item = &'d str> {
        let all = self.lists.get(&ecosystem).into_iter().flatten();
        all.filter_map(move |one| one.strip_prefix(name)?.strip_prefix("=="))
    }

    /// What both let be installed. An ecosystem that one of them is silent about is held to the list of the other.
    #[must_use]
    pub fn and(&self, other: &Dependencies) -> Dependencies {
        let mut both = self.clone();
        for (ecosystem, list) in &other.lists {
            let met = match both.lists.get(ecosystem) {
                Some(mine) => mine & list,
                None => list.clone(),
            };
            both.lists.insert(*ecosystem, met);
        }
        both
    }

    /// From where the node's indexes get what they serve.
    pub fn set_sources(&mut self, sources: impl IntoIterator<Item = (Ecosystem, Host)>) {
        self.sources = sources.into_iter().collect();
    }

    /// The ecosystem whose list closes this host: it serves packages to whoever asks, past the index that serves those
    /// of the list.
    pub fn closing(&self, host: &Host) -> Option<Ecosystem> {
        let serves = |ecosystem: Ecosystem| {
            let mut known = ecosystem.hosts().iter();
            let own = (ecosystem, host.clone());
            self.sources.contains(&own)
                || known.any(|text| {
                    let entry = text.parse::<Entry>();
                    entry.is_ok_and(|entry| entry.is_about(host))
                })
        };
        self.lists.keys().copied().find(|one| serves(*one))
    }

    /// The ecosystem whose index, with nothing but its list, a sandbox finds there.
    pub fn index(&self, host: &Host, port: u16) -> Option<Ecosystem> {
        Ecosystem::of_index(host, port).filter(|one| self.lists.contains_key(one))
    }
}

#[cfg(test)]
mod tests;
