//! What people install from, by name.

use super::Entry;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A named list of hosts, as they are in 2026.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Python packages.
    Pypi,
    /// JavaScript packages.
    Npm,
    /// Debian packages.
    Debian,
    /// Ubuntu packages.
    Ubuntu,
    /// Alpine packages.
    Alpine,
    /// Rust crates and their index.
    Crates,
    /// Go modules and their checksums.
    Go,
    /// Repositories, releases and raw files of GitHub.
    Github,
}

impl Preset {
    /// All of them.
    pub const ALL: [Preset; 8] = [
        Preset::Pypi,
        Preset::Npm,
        Preset::Debian,
        Preset::Ubuntu,
        Preset::Alpine,
        Preset::Crates,
        Preset::Go,
        Preset::Github,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Preset::Pypi => "pypi",
            Preset::Npm => "npm",
            Preset::Debian => "debian",
            Preset::Ubuntu => "ubuntu",
            Preset::Alpine => "alpine",
            Preset::Crates => "crates",
            Preset::Go => "go",
            Preset::Github => "github",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Preset> {
        Preset::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// The entries that it stands for. Package managers of distributions check signatures and speak HTTP.
    pub fn hosts(self) -> &'static [&'static str] {
        match self {
            Preset::Pypi => &["pypi.org:443", "files.pythonhosted.org:443"],
            Preset::Npm => &["registry.npmjs.org:443", "registry.yarnpkg.com:443"],
            Preset::Debian => &[
                "deb.debian.org:80",
                "deb.debian.org:443",
                "security.debian.org:80",
                "security.debian.org:443",
            ],
            Preset::Ubuntu => &[
                "archive.ubuntu.com:80",
                "archive.ubuntu.com:443",
                "security.ubuntu.com:80",
                "security.ubuntu.com:443",
                "ports.ubuntu.com:80",
                "ports.ubuntu.com:443",
            ],
            Preset::Alpine => &["dl-cdn.alpinelinux.org:80", "dl-cdn.alpinelinux.org:443"],
            Preset::Crates => &[
                "index.crates.io:443",
                "static.crates.io:443",
                "crates.io:443",
            ],
            Preset::Go => &["proxy.golang.org:443", "sum.golang.org:443"],
            Preset::Github => &[
                "github.com:443",
                "github.com:22",
                "api.github.com:443",
                "codeload.github.com:443",
                "raw.githubusercontent.com:443",
                "objects.githubusercontent.com:443",
                "release-assets.githubusercontent.com:443",
            ],
        }
    }

    /// The entry of the list that is about this host and port.
    pub(super) fn entry(self, host: &crate::host::Host, port: u16) -> Option<Entry> {
        self.entries().find(|entry| entry.names(host, port))
    }

    /// All of the list.
    pub(super) fn entries(self) -> impl Iterator<Item = Entry> {
        self.hosts().iter().filter_map(|text| text.parse().ok())
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_a_name_and_entries_that_can_be_read() {
        for preset in Preset::ALL {
            assert_eq!(Preset::parse(preset.as_str()), Some(preset));
            for text in preset.hosts() {
                let entry: Entry = text.parse().unwrap();
                assert!(entry.is_name() && entry.to_string() == *text, "{text}");
            }
        }
    }
}
