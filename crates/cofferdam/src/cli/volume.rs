//! `cofferdam volume`: named directories that outlive sandboxes.

use crate::cli::args::{VolumeArgs, VolumeCommand};
use crate::cli::failure::{Failure, missing};
use crate::cli::job::when;
use crate::cli::table;
use api::Code;
use api::client::{Client, ClientError};
use api::volume::{VolumeCreate, VolumeListQuery, VolumeUse, VolumeView};
use std::process::ExitCode;

/// Does what was asked about volumes.
pub(crate) async fn volume(client: &Client, args: VolumeArgs) -> Result<ExitCode, Failure> {
    let (view, json) = match args.command {
        VolumeCommand::Create { name, size, json } => {
            let new = VolumeCreate {
                name,
                size_bytes: size,
                node: None,
            };
            (create(client, &new).await?, json)
        }
        VolumeCommand::Ls { limit, json } => return list(client, limit, json).await,
        VolumeCommand::Get { name, json } => {
            let view = client.volume_get(&name).await.map_err(about(&name))?;
            if !json {
                table::print(&table::layout(&HEAD, vec![line(&view)]))?;
                return Ok(ExitCode::SUCCESS);
            }
            (view, json)
        }
        VolumeCommand::Rm { name, json } => {
            let view = client.volume_delete(&name).await;
            (view.map_err(about(&name))?, json)
        }
    };
    table::print(&if json {
        table::to_json(&view)?
    } else {
        format!("{}\n", view.name)
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn create(client: &Client, new: &VolumeCreate) -> Result<VolumeView, Failure> {
    let made = client.volume_create(new, None).await;
    made.map_err(|error| {
        let is_taken = error.is(Code::Conflict);
        let failure = Failure::from(error);
        if is_taken {
            failure.hint(
                "the name is taken: use another, or `cofferdam volume rm` the one that has it",
            )
        } else {
            failure
        }
    })
}

const HEAD: [&str; 5] = ["NAME", "STATE", "SIZE", "CREATED", "ID"];

fn line(view: &VolumeView) -> Vec<String> {
    vec![
        view.name.clone(),
        view.state.as_str().to_owned(),
        format!("{}M", view.size_bytes >> 20),
        when(view.created_at_ms),
        view.id.clone(),
    ]
}

async fn list(client: &Client, limit: u32, json: bool) -> Result<ExitCode, Failure> {
    let query = VolumeListQuery {
        limit: Some(limit),
        after: None,
    };
    let page = client.volume_list(&query).await?;
    if json {
        table::print(&table::to_json(&page)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if page.volumes.is_empty() {
        table::note("there are none; `cofferdam volume create NAME` makes one");
        return Ok(ExitCode::SUCCESS);
    }
    let rows = page.volumes.iter().map(line).collect();
    table::print(&table::layout(&HEAD, rows))?;
    if page.next.is_some() {
        table::note("there are more: see --limit");
    }
    Ok(ExitCode::SUCCESS)
}

fn about(name: &str) -> impl Fn(ClientError) -> Failure {
    let hint = "`cofferdam volume ls` lists the volumes that there are";
    missing("volume", name, hint)
}

/// What `--volume NAME:PATH[:ro]` asks for.
pub(crate) fn uses(asked: &[String]) -> Result<Vec<VolumeUse>, Failure> {
    asked.iter().map(|one| used(one)).collect()
}

fn used(asked: &str) -> Result<VolumeUse, Failure> {
    let wrong = || {
        let message = format!("--volume takes NAME:PATH or NAME:PATH:ro, and not `{asked}`");
        Failure::new(Code::InvalidArgument, message)
    };
    let (name, path) = asked.split_once(':').ok_or_else(wrong)?;
    let (path, read_only) = match path.strip_suffix(":ro") {
        Some(path) => (path, true),
        None => (path.strip_suffix(":rw").unwrap_or(path), false),
    };
    // A colon in what is left is a mode that is misspelt, and its volume would be written.
    if name.is_empty() || !path.starts_with('/') || path.contains(':') {
        return Err(wrong());
    }
    Ok(VolumeUse {
        name: name.to_owned(),
        path: path.to_owned(),
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_written_unless_it_is_asked_to_be_read_only() {
        let found = |text| {
            let one = used(text).ok()?;
            Some((one.name, one.path, one.read_only))
        };
        let some = |name: &str, path: &str, ro| Some((name.to_owned(), path.to_owned(), ro));
        assert_eq!(found("v:/data"), some("v", "/data", false));
        assert_eq!(found("v:/data:ro"), some("v", "/data", true));
        assert_eq!(found("v:/data:rw"), some("v", "/data", false));
        for text in [
            "", "v", "v:", "v:data", ":/data", "/data", "v:/a:r", "v:/a:RO",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
