//! `cofferdam secret`: named values that sandboxes may use. A value is read from standard input, a file or a
//! terminal, and never from the command line, which every user of the machine can read.

use crate::cli::args::{SecretArgs, SecretCommand};
use crate::cli::failure::{Failure, missing};
use crate::cli::input;
use crate::cli::job::when;
use crate::cli::run::variables;
use crate::cli::table;
use api::Code;
use api::client::{Client, ClientError};
use api::encoding::Encoding;
use api::secret::{
    SecretCreate, SecretHow, SecretListQuery, SecretRotate, SecretSource, SecretText, SecretUse,
    SecretView, value_text,
};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::Path;
use std::process::ExitCode;

/// The longest value.
const VALUE_MAX: usize = 64 * 1024;

/// The shortest value that is looked for in output.
const SOUGHT_MIN: usize = 4;

/// Does what was asked about secrets.
pub(crate) async fn secret(client: &Client, args: SecretArgs) -> Result<ExitCode, Failure> {
    let (view, json) = match args.command {
        SecretCommand::Set {
            name,
            file,
            from,
            label,
            json,
        } => {
            let (value, encoding) = value(&name, file.as_deref(), from.as_ref())?;
            let new = SecretCreate {
                name,
                value,
                encoding,
                from,
                metadata: variables("--label", &label)?,
            };
            (set(client, new).await?, json)
        }
        SecretCommand::Rotate {
            name,
            file,
            from,
            json,
        } => {
            let (value, encoding) = value(&name, file.as_deref(), from.as_ref())?;
            let new = SecretRotate {
                value,
                encoding,
                from,
                metadata: None,
            };
            let view = client.secret_rotate(&name, &new).await;
            (view.map_err(about(&name))?, json)
        }
        SecretCommand::Ls { limit, json } => return list(client, limit, json).await,
        SecretCommand::Rm { name, json } => {
            let view = client.secret_delete(&name).await;
            (view.map_err(about(&name))?, json)
        }
        SecretCommand::Events { name, json } => return events(client, &name, json).await,
    };
    table::print(&if json {
        table::to_json(&view)?
    } else {
        format!("{}\t{}\n", view.name, view.version)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A new secret, or a new version of the one that is there.
async fn set(client: &Client, new: SecretCreate) -> Result<SecretView, Failure> {
    match client.secret_create(&new, None).await {
        Err(error) if error.is(Code::Conflict) => {}
        made => return Ok(made?),
    }
    let name = new.name.clone();
    let next = SecretRotate {
        metadata: (!new.metadata.is_empty()).then_some(new.metadata),
        value: new.value,
        encoding: new.encoding,
        from: new.from,
    };
    client
        .secret_rotate(&name, &next)
        .await
        .map_err(about(&name))
}

async fn list(client: &Client, limit: u32, json: bool) -> Result<ExitCode, Failure> {
    let query = SecretListQuery {
        limit: Some(limit),
        after: None,
    };
    let page = client.secret_list(&query).await?;
    if json {
        table::print(&table::to_json(&page)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if page.secrets.is_empty() {
        table::note("there are none; `cofferdam secret set NAME` makes one");
        return Ok(ExitCode::SUCCESS);
    }
    let one = |view: &SecretView| {
        vec![
            view.name.clone(),
            view.version.to_string(),
            view.from
                .as_ref()
                .map_or_else(String::new, SecretSource::text),
            when(view.updated_at_ms),
            view.id.clone(),
        ]
    };
    let rows = page.secrets.iter().map(one).collect();
    table::print(&table::layout(
        &["NAME", "VERSION", "FROM", "CHANGED", "ID"],
        rows,
    ))?;
    if page.next.is_some() {
        table::note("there are more: see --limit");
    }
    Ok(ExitCode::SUCCESS)
}

async fn events(client: &Client, name: &str, json: bool) -> Result<ExitCode, Failure> {
    let query = api::event::EventListQuery::default();
    let page = client
        .secret_events(name, &query)
        .await
        .map_err(about(name))?;
    if json {
        table::print(&table::to_json(&page)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = page.events.iter().map(|event| {
        let data = event.data.to_string();
        vec![
            when(event.at_ms),
            event.kind.clone(),
            event.principal.clone(),
            data,
        ]
    });
    table::print(&table::layout(
        &["WHEN", "WHAT", "WHO", "MORE"],
        rows.collect(),
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn about(name: &str) -> impl Fn(ClientError) -> Failure {
    let hint = "`cofferdam secret ls` lists the secrets that there are";
    missing("secret", name, hint)
}

/// The value, from where it is said to be. A file is taken as it is; what is typed or piped loses the
/// newline at its end, which nobody means. One that is kept elsewhere is not asked for.
fn value(
    name: &str,
    file: Option<&Path>,
    from: Option<&SecretSource>,
) -> Result<(SecretText, Encoding), Failure> {
    if from.is_some() {
        return Ok((SecretText::default(), Encoding::Utf8));
    }
    let input = std::io::stdin();
    let mut bytes = match file {
        Some(path) => read(File::open(path), &path.display().to_string())?,
        None if input.is_terminal() => {
            table::note(&format!("type the value of `{name}`; it is not shown"));
            unseen(line)?
        }
        None => without_newline(read(Ok(input.lock()), "standard input")?),
    };
    if bytes.trim_ascii().len() < SOUGHT_MIN {
        table::note(
            "a value of less than 4 bytes is not taken out of output: it would be found everywhere",
        );
    }
    let text = value_text(&bytes);
    // Overwritten in place; the copy in `text` overwrites itself.
    bytes.fill(0);
    Ok(text)
}

fn read(from: std::io::Result<impl Read>, what: &str) -> Result<Vec<u8>, Failure> {
    input::read(from, &format!("the value from {what}"), VALUE_MAX)
}

fn line() -> Result<Vec<u8>, Failure> {
    let mut text = String::with_capacity(4096);
    let failed = |error| Failure::ours("read the terminal", &error);
    std::io::stdin().read_line(&mut text).map_err(failed)?;
    Ok(without_newline(text.into_bytes()))
}

fn without_newline(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

/// Does something while the terminal does not show what is typed.
fn unseen<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let input = std::io::stdin();
    let failed = |errno: rustix::io::Errno| Failure::ours("silence the terminal", &errno);
    let before = tcgetattr(&input).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &silent).map_err(failed)?;
    let done = work();
    tcsetattr(&input, OptionalActions::Flush, &before).map_err(failed)?;
    done
}

/// What `--secret NAME[=how]` asks for.
pub(crate) fn uses(asked: &[String]) -> Result<Vec<SecretUse>, Failure> {
    asked.iter().map(|one| used(one)).collect()
}

fn used(asked: &str) -> Result<SecretUse, Failure> {
    let (name, how) = asked.split_once('=').unwrap_or((asked, "file"));
    let how = match how.split_once(':') {
        None if how == "file" => Some(SecretHow::File),
        None if how == "upstream" => Some(SecretHow::Upstream),
        Some(("env", var)) => Some(SecretHow::Env {
            var: var.to_owned(),
        }),
        Some(("header", rest)) => header(rest),
        _ => None,
    };
    let wrong = || {
        // The text is not repeated: somebody may have written the value after the name.
        let message = "--secret takes NAME, NAME=file, NAME=env:VARIABLE, NAME=header:HOST:FIELD[:FORMAT] or NAME=upstream";
        let hint =
            "the value is set before, with `cofferdam secret set NAME`, and never written here";
        Failure::new(Code::InvalidArgument, message).hint(hint)
    };
    Ok(SecretUse {
        name: name.to_owned(),
        version: None,
        how: how.ok_or_else(wrong)?,
    })
}

/// `HOST[:PORT]:FIELD[:FORMAT]`. A field is no number.
fn header(asked: &str) -> Option<SecretHow> {
    let (name, mut rest) = asked.split_once(':')?;
    let mut host = name.to_owned();
    if let Some((port, after)) = rest.split_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        host = format!("{name}:{port}");
        rest = after;
    }
    let (header, format) = rest.split_once(':').unwrap_or((rest, "{}"));
    Some(SecretHow::Header {
        host,
        header: header.to_owned(),
        format: format.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_field_for_a_host_and_maybe_a_port() {
        for (asked, expect) in [
            (
                "a=header:api.test:authorization:Bearer {}",
                ("api.test", "authorization", "Bearer {}"),
            ),
            ("a=header:api.test:x-key", ("api.test", "x-key", "{}")),
            (
                "a=header:*.api.test:8443:x-key:a:{}",
                ("*.api.test:8443", "x-key", "a:{}"),
            ),
        ] {
            let how = used(asked).unwrap().how;
            let SecretHow::Header {
                host,
                header,
                format,
            } = how
            else {
                panic!("{asked}");
            };
            assert_eq!((host.as_str(), header.as_str(), format.as_str()), expect);
        }
        assert!(used("a=header:api.test").is_err());
    }

    #[test]
    fn a_secret_is_a_file_unless_a_variable_is_asked_for() {
        assert_eq!(used("a").unwrap().how, SecretHow::File);
        assert_eq!(used("a=file").unwrap().how, SecretHow::File);
        let var = "B".to_owned();
        assert_eq!(used("a=env:B").unwrap().how, SecretHow::Env { var });
        let error = used("a=canary").unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
    }

    #[test]
    fn one_newline_at_the_end_goes_and_no_more() {
        for (given, kept) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(without_newline(given.into()), kept.as_bytes());
        }
    }
}
