//! A registry of JavaScript packages: the document of one, and ours. What a source says of the versions that are on the
//! list is kept, but for where their files are; of the others nothing is read.

use super::Served;
use super::check::Digest;
use super::fetch::Answer;
use super::listing::{File, Listing};
use crate::reason::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::dependency::{Ecosystem, npm};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor,
};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

const JSON: &str = "application/vnd.npm.install-v1+json";

/// What a source says of one version, in bytes: the largest have some 100 KiB.
const MANIFEST_MAX: usize = 1 << 20;

/// Names for versions: npm's own packages have some twenty.
const TAGS_MAX: usize = 1000;

/// A document, as far as it is read.
#[derive(Default)]
struct Document {
    name: Option<String>,
    tags: BTreeMap<String, String>,
    versions: BTreeMap<String, Box<RawValue>>,
}

/// Reads a document, and of its versions these alone. A key that is there twice has two meanings, so that the document
/// has none.
struct Reads<'r>(&'r BTreeSet<String>);

impl<'de> DeserializeSeed<'de> for Reads<'_> {
    type Value = Document;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Document, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reads<'_> {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the document of a package")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => document.name = Some(map.next_value()?),
                "dist-tags" => document.tags = map.next_value_seed(Once::all())?,
                "versions" => document.versions = map.next_value_seed(Once::only(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            }
            if !seen.insert(key) {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(document)
    }
}

const TWICE: &str = "a key is there twice";

/// Reads a map with each of its keys once; of those only these, if some are named.
struct Once<'r, T> {
    only: Option<&'r BTreeSet<String>>,
    of: PhantomData<T>,
}

impl<'r, T> Once<'r, T> {
    fn all() -> Once<'r, T> {
        let of = PhantomData;
        Once { only: None, of }
    }

    fn only(these: &'r BTreeSet<String>) -> Once<'r, T> {
        let (only, of) = (Some(these), PhantomData);
        Once { only, of }
    }
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Once<'_, T> {
    type Value = BTreeMap<String, T>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Once<'_, T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut read = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if self.only.is_some_and(|only| !only.contains(&key)) {
                map.next_value::<IgnoredAny>()?;
            } else if read.len() >= TAGS_MAX.max(self.only.map_or(0, BTreeSet::len)) {
                return Err(A::Error::custom("there are too many"));
            } else if read.insert(key, map.next_value()?).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(read)
    }
}

/// A name of a version, and the version.
type Tag = (String, String);

/// The files of these versions of the package, one each, and the names of versions.
pub(super) fn files(
    (name, versions): (&str, &BTreeSet<String>),
    page: &[u8],
    answer: &Answer,
) -> Result<(Vec<File>, Vec<Tag>), Reason> {
    let mut from = serde_json::Deserializer::from_slice(page);
    let read = Reads(versions).deserialize(&mut from);
    let document = read.and_then(|read| from.end().map(|()| read));
    let document = document.map_err(|_| Reason::IndexFailed)?;
    // What is about another package is no answer to what was asked.
    if document.name.as_deref() != Some(name) {
        return Err(Reason::IndexFailed);
    }
    let all = document.versions.iter();
    let files: Vec<File> = all
        .filter_map(|(version, manifest)| file((name, version), manifest, answer))
        .collect();
    let is_there = |version: &String| files.iter().any(|file| file.version == *version);
    let tags = document.tags.into_iter();
    let tags = tags.filter(|(_, version)| is_there(version)).collect();
    Ok((files, tags))
}

/// A version whose manifest says that it is that version of that package, and whose file can be checked.
fn file((name, version): (&str, &str), manifest: &RawValue, answer: &Answer) -> Option<File> {
    let text = Some(manifest.get()).filter(|text| text.len() <= MANIFEST_MAX)?;
    let manifest: Value = serde_json::from_str(text).ok()?;
    let says = |field: &str| manifest.get(field).and_then(Value::as_str);
    if says("name") != Some(name) || says("version") != Some(version) {
        return None;
    }
    let dist = manifest.get("dist")?;
    let link = answer.from.join(dist.get("tarball")?.as_str()?)?;
    let digest = strongest(dist.get("integrity")?.as_str()?)?;
    Some(File {
        version: version.to_owned(),
        name: npm::file(name, version),
        link,
        digest,
        requires_python: None,
        is_yanked: false,
        manifest,
    })
}

/// Of what stands in `integrity`, the strongest, as npm takes it (W3C, Subresource Integrity).
fn strongest(integrity: &str) -> Option<Digest> {
    let each = integrity.split_ascii_whitespace().filter_map(|one| {
        let (kind, text) = one.split_once('-')?;
        let text = text.split('?').next()?;
        Digest::new(kind, STANDARD.decode(text).ok()?)
    });
    each.max_by_key(|one| one.kind)
}

/// Our document of a package.
pub(super) fn page(listing: &Listing, files: &[&File]) -> Served {
    let name = &listing.name;
    let mut versions = serde_json::Map::new();
    for file in files {
        let mut manifest = file.manifest.clone();
        let url = format!("http://{}/{name}/-/{}", Ecosystem::Npm.index(), file.name);
        if let Some(dist) = manifest.get_mut("dist").and_then(Value::as_object_mut) {
            dist.insert("tarball".to_owned(), url.into());
            // What was compared is the only one that is named.
            let integrity = STANDARD.encode(&file.digest.bytes);
            let integrity = format!("{}-{integrity}", file.digest.kind.as_str());
            dist.insert("integrity".to_owned(), integrity.into());
            dist.remove("shasum");
        }
        versions.insert(file.version.clone(), manifest);
    }
    let is_there = |version: &String| versions.contains_key(version);
    let tags = listing.tags.iter().filter(|(_, version)| is_there(version));
    let mut tags: serde_json::Map<String, Value> = tags
        .map(|(tag, version)| (tag.clone(), version.as_str().into()))
        .collect();
    // Where the newest is not on the list, what npm installs without a version is one that is.
    if let (false, Some(file)) = (tags.contains_key("latest"), files.last()) {
        tags.insert("latest".to_owned(), file.version.as_str().into());
    }
    let document = serde_json::json!({"name": name, "dist-tags": tags, "versions": versions});
    Served::Page(JSON, document.to_string().into_bytes())
}
