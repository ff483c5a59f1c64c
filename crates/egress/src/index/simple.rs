//! The simple index: pages of a source, in HTML (PEP 503) or JSON (PEP 691), and ours.

use super::check::{Digest, Kind};
use super::fetch::Answer;
use super::html;
use super::link::Link;
use super::listing::{FILES_MAX, File};
use super::{Served, plain};
use crate::reason::Reason;
use model::dependency::{Dependencies, Ecosystem, pip};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// How a page says that it is in JSON.
pub(super) const JSON: &str = "application/vnd.pypi.simple.v1+json";
const HTML: &str = "text/html; charset=utf-8";

/// Links of one page that are looked at.
const LINKS_MAX: usize = 200_000;

/// Which Pythons a file is for is a few words.
const REQUIRES_MAX: usize = 256;

#[derive(Deserialize)]
struct Page {
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    #[serde(default, rename = "requires-python")]
    requires_python: Option<String>,
    /// A reason, or only that it is so.
    #[serde(default)]
    yanked: serde_json::Value,
}

/// What a page says of a file, before it is known whether it is one that may be installed.
struct Told<'t> {
    name: &'t str,
    link: Option<Link>,
    digest: Option<Digest>,
    requires_python: Option<String>,
    is_yanked: bool,
}

/// The files on a page that are of one of these versions of the package, and can be checked.
pub(super) fn files(
    of: (&str, &BTreeSet<String>),
    page: &[u8],
    answer: &Answer,
) -> Result<Vec<File>, Reason> {
    match answer.is_json {
        true => of_json(of, page, &answer.from),
        false => of_html(of, page, &answer.from),
    }
}

fn of_json(of: (&str, &BTreeSet<String>), page: &[u8], from: &Link) -> Result<Vec<File>, Reason> {
    let page: Page = serde_json::from_slice(page).map_err(|_| Reason::IndexFailed)?;
    let files = page.files.iter().filter_map(|one| {
        let best = Kind::ALL.into_iter();
        let mut best = best.filter_map(|kind| {
            let digits = one.hashes.get(kind.as_str())?;
            Digest::of_hex(kind.as_str(), digits)
        });
        let told = Told {
            name: &one.filename,
            link: from.join(&one.url),
            digest: best.next(),
            requires_python: one.requires_python.clone(),
            is_yanked: !matches!(
                one.yanked,
                serde_json::Value::Null | serde_json::Value::Bool(false)
            ),
        };
        file(of, told)
    });
    few(files.collect())
}

fn of_html(of: (&str, &BTreeSet<String>), page: &[u8], from: &Link) -> Result<Vec<File>, Reason> {
    let page = std::str::from_utf8(page).map_err(|_| Reason::IndexFailed)?;
    let anchors = html::anchors(page, LINKS_MAX).ok_or(Reason::IndexFailed)?;
    let files = anchors.iter().filter_map(|anchor| {
        let (url, fragment) = anchor.href.split_once('#')?;
        let link = from.join(url)?;
        let name = link.path.split('?').next()?.rsplit('/').next()?;
        let name = name.replace("%2B", "+").replace("%2b", "+");
        let (kind, digits) = fragment.split_once('=')?;
        let told = Told {
            name: &name,
            digest: Digest::of_hex(kind, digits),
            link: Some(link),
            requires_python: anchor.requires_python.clone(),
            is_yanked: anchor.is_yanked,
        };
        file(of, told)
    });
    few(files.collect())
}

fn few(files: Vec<File>) -> Result<Vec<File>, Reason> {
    (files.len() <= FILES_MAX)
        .then_some(files)
        .ok_or(Reason::IndexFailed)
}

/// Nothing that cannot be read, is of another version or package, or could not be checked.
fn file((name, versions): (&str, &BTreeSet<String>), told: Told<'_>) -> Option<File> {
    let version = plain(&pip::version_of_file(name, told.name)?);
    let is_plain = |text: &String| {
        text.len() <= REQUIRES_MAX && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    };
    if !versions.contains(&version) || !told.requires_python.iter().all(is_plain) {
        return None;
    }
    Some(File {
        version,
        name: told.name.to_owned(),
        link: told.link?,
        digest: told.digest?,
        requires_python: told.requires_python,
        is_yanked: told.is_yanked,
        manifest: serde_json::Value::Null,
    })
}

/// Where a program finds a file.
fn url(name: &str, file: &File) -> String {
    format!("/files/{name}/{}", file.name.replace('+', "%2B"))
}

/// Our page of a package.
pub(super) fn page(name: &str, files: &[&File], wants_json: bool) -> Served {
    if wants_json {
        let one = |file: &&File| {
            let mut one = serde_json::json!({
                "filename": file.name, "url": url(name, file), "yanked": file.is_yanked,
                "hashes": {file.digest.kind.as_str(): file.digest.hex()},
            });
            if let (Some(requires), Some(map)) = (&file.requires_python, one.as_object_mut()) {
                map.insert("requires-python".to_owned(), requires.as_str().into());
            }
            one
        };
        let files: Vec<serde_json::Value> = files.iter().map(one).collect();
        return in_json(&serde_json::json!({"name": name, "files": files}));
    }
    let one = |file: &&File| {
        let (url, kind, digits) = (
            url(name, file),
            file.digest.kind.as_str(),
            file.digest.hex(),
        );
        let requires = file.requires_python.as_deref().map(html::escaped);
        let requires = requires.map(|text| format!(" data-requires-python=\"{text}\""));
        let yanked = if file.is_yanked {
            " data-yanked=\"\""
        } else {
            ""
        };
        let requires = requires.unwrap_or_default();
        format!(
            "<a href=\"{url}#{kind}={digits}\"{requires}{yanked}>{}</a><br>\n",
            file.name
        )
    };
    in_html(&files.iter().map(one).collect::<String>())
}

/// The names that there are.
pub(super) fn all(dependencies: &Dependencies, wants_json: bool) -> Served {
    let list = dependencies.of(Ecosystem::Pip).into_iter().flatten();
    let names: BTreeSet<&str> = list
        .filter_map(|one| Some(one.split_once("==")?.0))
        .collect();
    if wants_json {
        let all: Vec<serde_json::Value> = names
            .iter()
            .map(|name| serde_json::json!({ "name": name }))
            .collect();
        return in_json(&serde_json::json!({ "projects": all }));
    }
    let one = |name: &&str| format!("<a href=\"/simple/{name}/\">{name}</a><br>\n");
    in_html(&names.iter().map(one).collect::<String>())
}

fn in_json(page: &serde_json::Value) -> Served {
    let mut page = page.clone();
    if let Some(map) = page.as_object_mut() {
        map.insert("meta".to_owned(), serde_json::json!({"api-version": "1.0"}));
    }
    Served::Page(JSON, page.to_string().into_bytes())
}

fn in_html(links: &str) -> Served {
    let page = format!("<!DOCTYPE html>\n<html><body>\n{links}</body></html>\n");
    Served::Page(HTML, page.into_bytes())
}
