//! What there is of one package: the files of the versions that may be installed, read from a page of the source and
//! kept for a while, so that a file costs no page of its own.

use super::check::Digest;
use super::link::Link;
use super::{fetch, registry, simple};
use crate::decide::Refusal;
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::Recording;
use model::dependency::Ecosystem;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long it is kept: what is published meanwhile under a version that is listed is seen after that.
const FRESH: Duration = Duration::from_secs(300);

/// Packages that are kept of one sandbox. One more, and the oldest is forgotten.
const KNOWN_MAX: usize = 512;

/// Files of the listed versions of one package: the largest have a hundred for each version.
pub(super) const FILES_MAX: usize = 4096;

/// What was read from a page.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) name: String,
    /// Those that might be installed when it was read.
    versions: BTreeSet<String>,
    pub(super) files: Vec<File>,
    /// Of npm: names of versions, such as `latest`.
    pub(super) tags: Vec<(String, String)>,
}

/// A file that may be installed.
#[derive(Debug)]
pub(super) struct File {
    /// Which it is of, in its one form.
    pub(super) version: String,
    /// How it is called: of pip by the page, of npm by its version.
    pub(super) name: String,
    /// Where it is.
    pub(super) link: Link,
    pub(super) digest: Digest,
    /// Of pip: which Pythons it is for.
    pub(super) requires_python: Option<String>,
    /// Of pip: whoever made it has taken it back, except for who asks for it exactly.
    pub(super) is_yanked: bool,
    /// Of npm: what the registry says of the version, but for where its file is.
    pub(super) manifest: serde_json::Value,
}

/// What is known of a sandbox's packages.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Vec<(Ecosystem, Instant, Arc<Listing>)>>);

impl Known {
    fn get(
        &self,
        ecosystem: Ecosystem,
        name: &str,
        wanted: &BTreeSet<String>,
    ) -> Option<Arc<Listing>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, at, _)| at.elapsed() < FRESH);
        let mut found = all
            .iter()
            .filter(|(of, _, one)| *of == ecosystem && one.name == name);
        let (_, _, found) = found.next()?;
        wanted.is_subset(&found.versions).then(|| found.clone())
    }

    fn put(&self, ecosystem: Ecosystem, new: &Arc<Listing>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, _, one)| *of != ecosystem || one.name != new.name);
        if all.len() >= KNOWN_MAX {
            all.remove(0);
        }
        all.push((ecosystem, Instant::now(), new.clone()));
    }
}

/// What there is of a package that is on the list.
pub(super) async fn of(
    way: &Way,
    (ecosystem, name): (Ecosystem, &str),
    recording: &mut Recording,
) -> Result<Arc<Listing>, Refusal> {
    let rules = way.rules();
    let versions = rules.dependencies.versions(ecosystem, name);
    let versions: BTreeSet<String> = versions.map(str::to_owned).collect();
    if let Some(found) = way.packages().get(ecosystem, name, &versions) {
        return Ok(found);
    }
    let index = way.index().ok_or(Reason::Internal)?;
    let closed = |_| Reason::Internal;
    // In this order: who waits for the node's holds one of its own alone.
    let _own = way.pages().acquire().await.map_err(closed)?;
    let _all = index.pages.acquire().await.map_err(closed)?;
    // Others who waited for the same page may have read it meanwhile: of many at once two ask the source.
    if let Some(found) = way.packages().get(ecosystem, name, &versions) {
        return Ok(found);
    }
    let (link, what) = match ecosystem {
        Ecosystem::Pip => (
            index.source(ecosystem).below(&format!("{name}/")),
            fetch::SIMPLE,
        ),
        Ecosystem::Npm => {
            let name = name.replace('/', "%2f");
            (index.source(ecosystem).below(&name), fetch::DOCUMENT)
        }
    };
    let mut answer = fetch::get(way, ecosystem, (&link, what), None, recording).await?;
    let page = fetch::whole(&mut answer, what).await?;
    let (files, tags) = match ecosystem {
        Ecosystem::Pip => (
            simple::files((name, &versions), &page, &answer)?,
            Vec::new(),
        ),
        Ecosystem::Npm => registry::files((name, &versions), &page, &answer)?,
    };
    let listing = Arc::new(Listing {
        name: name.to_owned(),
        versions,
        files,
        tags,
    });
    way.packages().put(ecosystem, &listing);
    Ok(listing)
}
