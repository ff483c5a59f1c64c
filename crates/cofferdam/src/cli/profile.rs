//! `cofferdam profile`: named recipes for sandboxes and jobs, written in a file.

use crate::cli::args::{ProfileArgs, ProfileCommand};
use crate::cli::failure::{Failure, missing};
use crate::cli::input;
use crate::cli::job::when;
use crate::cli::table;
use api::Code;
use api::client::{Client, ClientError};
use api::profile::{ProfileKind, ProfileListQuery, ProfileSpec, ProfileVersionQuery, ProfileView};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

/// The longest file: the server takes no longer body.
const FILE_MAX: usize = 1 << 20;

/// Does what was asked about profiles.
pub(crate) async fn profile(client: &Client, args: ProfileArgs) -> Result<ExitCode, Failure> {
    let text = match args.command {
        ProfileCommand::Ls { limit, json } => list(client, limit, json).await?,
        ProfileCommand::Get {
            name,
            versions: true,
            json,
        } => versions(client, &name, json).await?,
        ProfileCommand::Get { name, json, .. } => get(client, &name, json).await?,
        ProfileCommand::Put { name, file, json } => {
            let spec: ProfileSpec = document(&file)
                .map_err(|failure| failure.hint("docs/profiles.md has one with every field"))?;
            one(&client.profile_put(&name, &spec).await?, json)?
        }
        ProfileCommand::Rm { name, json } => {
            let gone = client.profile_delete(&name).await;
            one(&gone.map_err(about(&name))?, json)?
        }
    };
    table::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The name and the version, by which it can be asked for.
fn one(view: &ProfileView, json: bool) -> Result<String, Failure> {
    if json {
        return table::to_json(view);
    }
    Ok(format!("{}\t{}\n", called(view), view.version))
}

fn called(view: &ProfileView) -> &str {
    view.name.as_deref().unwrap_or(&view.id)
}

async fn get(client: &Client, name: &str, json: bool) -> Result<String, Failure> {
    let view = client.profile_get(name).await.map_err(about(name))?;
    match &view.spec {
        Some(spec) if !json => table::to_json(spec),
        _ => table::to_json(&view),
    }
}

async fn list(client: &Client, limit: u32, json: bool) -> Result<String, Failure> {
    let query = ProfileListQuery {
        limit: Some(limit),
        before: None,
    };
    let page = client.profile_list(&query).await?;
    if json {
        return table::to_json(&page);
    }
    let there = page.built_in.iter().map(|name| {
        let none = String::new;
        vec![name.clone(), "built-in".to_owned(), none(), none(), none()]
    });
    let others = page.profiles.iter().map(|view| {
        let (kind, version) = match view.kind {
            ProfileKind::Written => ("written", view.version.to_string()),
            ProfileKind::Built => ("built", view.tags.join(",")),
        };
        vec![
            called(view).to_owned(),
            kind.to_owned(),
            version,
            when(view.updated_at_ms),
            view.id.clone(),
        ]
    });
    if page.next.is_some() {
        table::note("there are more: see --limit");
    }
    Ok(table::layout(
        &["NAME", "KIND", "VERSION", "CHANGED", "ID"],
        there.chain(others).collect(),
    ))
}

async fn versions(client: &Client, name: &str, json: bool) -> Result<String, Failure> {
    let query = ProfileVersionQuery::default();
    let page = client.profile_versions(name, &query).await;
    let page = page.map_err(about(name))?;
    if json {
        return table::to_json(&page);
    }
    let rows = page.versions.iter().map(|one| {
        let version = one.version.to_string();
        vec![version, when(one.created_at_ms), one.principal.clone()]
    });
    Ok(table::layout(&["VERSION", "WHEN", "WHO"], rows.collect()))
}

fn about(name: &str) -> impl Fn(ClientError) -> Failure {
    let hint = "`cofferdam profile ls` lists the profiles that there are";
    missing("profile", name, hint)
}

/// What a file says. A clause that is misspelt is never passed over: it may be a ceiling.
pub(crate) fn document<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = file_text(path)?;
    let is_json = path.extension().is_some_and(|name| name == "json");
    parse(&text, is_json).map_err(|why| {
        let message = format!("failed to read {}: {why}", path.display());
        Failure::new(Code::InvalidArgument, message)
    })
}

/// The text of a file, or of standard input where its name is `-`.
pub(crate) fn file_text(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        text(Ok(std::io::stdin().lock()), path)
    } else {
        text(File::open(path), path)
    }
}

pub(crate) fn parse<T: DeserializeOwned>(text: &str, is_json: bool) -> Result<T, String> {
    if is_json {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    toml_edit::de::from_str(text).map_err(|error| error.to_string())
}

fn text(from: std::io::Result<impl Read>, path: &Path) -> Result<String, Failure> {
    let what = path.display().to_string();
    let bytes = input::read(from, &what, FILE_MAX)?;
    if bytes.len() > FILE_MAX {
        let message = format!("{what} has more than 1 MiB");
        return Err(Failure::new(Code::BodyTooLarge, message));
    }
    String::from_utf8(bytes).map_err(|_| {
        let message = format!("failed to read {what}: it is not UTF-8");
        Failure::new(Code::FileMissing, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_the_same_in_toml_and_in_json_and_no_more_than_there_is() {
        let toml = "timeout_max_ms = 60000\n[base]\nroot = \"ubuntu\"\n[network]\nallow = [\"a.test\"]\n\
                    [[secrets]]\nname = \"KEY\"\nas = [\"env\"]\n";
        let json = r#"{"timeout_max_ms":60000,"base":{"root":"ubuntu"},"network":{"allow":["a.test"]},
                       "secrets":[{"name":"KEY","as":["env"]}]}"#;
        let spec: ProfileSpec = parse(toml, false).unwrap();
        assert_eq!(spec, parse(json, true).unwrap());
        assert_eq!(spec.timeout_max_ms, Some(60_000));
        // Those that the document shows can be written as they stand.
        let document = include_str!("../../../../docs/profiles.md");
        let shown = document.split("```toml\n").skip(1);
        let shown: Vec<&str> = shown.filter_map(|part| part.split("```").next()).collect();
        assert!(!shown.is_empty());
        for text in shown {
            let spec: ProfileSpec = parse(text, false).unwrap();
            assert!(spec.base.is_some() && spec.network.is_some() && spec.secrets.is_some());
        }
        for wrong in [
            "timeout_max = 1",
            "[network]\nalow = []",
            "[base]\nrot = \"x\"",
            "env = 1",
        ] {
            assert!(parse::<ProfileSpec>(wrong, false).is_err(), "{wrong}");
        }
    }
}
