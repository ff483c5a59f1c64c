//! `cofferdam mcp install`: us in the configuration of clients.

mod clients;
mod merge;

use crate::cli::args::{McpClient, McpCommand, McpInstall, Place};
use crate::cli::failure::{Failure, reason};
use crate::cli::table;
use api::Code;
use clients::{ALL, Config, NAME, Start, config};
use merge::Unreadable;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The largest configuration that is read: Claude Code keeps what it remembers in the same file.
const CONFIG_MAX_BYTES: u64 = 64 << 20;

/// What is done about one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Install,
    Uninstall,
}

/// Changes the configuration of clients, or says how.
pub(crate) fn install(place: &Place, command: McpCommand) -> Result<ExitCode, Failure> {
    let (deed, asked) = match command {
        McpCommand::Install(asked) => (Deed::Install, asked),
        McpCommand::Uninstall(asked) => (Deed::Uninstall, asked),
    };
    let start = start(place)?;
    if asked.print {
        return print(&asked, &start);
    }
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        let failure = Failure::new(Code::StateUnusable, "there is no home directory");
        failure.hint("set HOME; or use --print, and put what it prints where the client looks")
    })?;
    let clients = chosen(&asked, &home)?;
    // Each by itself: one that cannot be changed does not keep the others from it.
    let mut failed = None;
    for client in clients {
        let config = config(client);
        match one(deed, &config, &home, &start, asked.dry_run) {
            Ok(said) => table::print(&format!("{}: {said}\n", config.name))?,
            Err(failure) => {
                if let Some(before) = failed.replace(failure) {
                    let _: ExitCode = before.report(false);
                }
            }
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Those that were named, or those that are here.
fn chosen(asked: &McpInstall, home: &Path) -> Result<Vec<McpClient>, Failure> {
    if !asked.client.is_empty() {
        return Ok(asked.client.clone());
    }
    let is_here = |client: &McpClient| config(*client).signs(home).iter().any(|sign| sign.exists());
    let here: Vec<McpClient> = ALL.into_iter().filter(is_here).collect();
    if here.is_empty() {
        let message = "none of the clients that are known is here";
        let hint = "name one with --client; or use --print, and put what it prints where your client looks";
        return Err(Failure::new(Code::FileMissing, message).hint(hint));
    }
    Ok(here)
}

/// What a client is to start: this program, with what was said here of server and state. A token is never
/// written into a file that is not ours.
fn start(place: &Place) -> Result<Start, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::ours("find this program", &error))?;
    let mut arguments = vec!["mcp".to_owned()];
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        let bad = || {
            Failure::new(
                Code::InvalidArgument,
                "a path that is not UTF-8 cannot be written there",
            )
        };
        text.ok_or_else(bad)
    };
    if let Some(state) = &place.state {
        let state = std::path::absolute(state);
        let state = state.map_err(|error| Failure::ours("find the state directory", &error))?;
        arguments.extend(["--state".to_owned(), text(&state)?]);
    }
    if let Some(url) = &place.url {
        arguments.extend(["--url".to_owned(), url.clone()]);
    }
    Ok(Start {
        program: text(&program)?,
        arguments,
    })
}

fn print(asked: &McpInstall, start: &Start) -> Result<ExitCode, Failure> {
    let clients = if asked.client.is_empty() {
        vec![McpClient::ClaudeCode]
    } else {
        asked.client.clone()
    };
    for client in clients {
        table::print(&config(client).whole(start))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn one(
    deed: Deed,
    config: &Config,
    home: &Path,
    start: &Start,
    dry_run: bool,
) -> Result<String, Failure> {
    let path = config.path(home, cfg!(target_os = "macos"));
    // What a link leads to is changed, and the link stays.
    let path = fs::canonicalize(&path).unwrap_or(path);
    let there = read(&path)?;
    let text = there.as_deref().unwrap_or_default();
    let merged = match deed {
        Deed::Install => merge::with(text, config, start),
        Deed::Uninstall => merge::without(text, config),
    };
    let merged = merged.map_err(|error| unreadable(&path, config, start, &error))?;
    let shown = path.display();
    let Some(merged) = merged else {
        return Ok(match deed {
            Deed::Install => format!("{shown} has it already"),
            Deed::Uninstall => format!("{shown} does not have it"),
        });
    };
    if dry_run {
        return Ok(format!(
            "{shown} would be written with `{NAME}` {}",
            deed.in_or_out()
        ));
    }
    // What is taken out was put in by us, and the backup of then is the one that somebody may want.
    let backup = there.is_some() && deed == Deed::Install;
    let backup = backup.then(|| named(&path, ".before-cofferdam"));
    if let Some(backup) = &backup {
        write(backup, text, &path)?;
    }
    write(&path, &merged, &path)?;
    let kept = backup.map(|backup| format!("; as it was: {}", backup.display()));
    let done = match deed {
        Deed::Install => "written; start the client again",
        Deed::Uninstall => "taken out",
    };
    Ok(format!("{shown} {done}{}", kept.unwrap_or_default()))
}

impl Deed {
    fn in_or_out(self) -> &'static str {
        match self {
            Deed::Install => "in it",
            Deed::Uninstall => "taken out",
        }
    }
}

fn unreadable(path: &Path, config: &Config, start: &Start, error: &Unreadable) -> Failure {
    let message = format!(
        "{} cannot be read, and is left as it is: {}",
        path.display(),
        error.0
    );
    let hint = format!(
        "correct it, or put this into it by hand, below `{}`; comments are why some cannot be read:\n{}",
        config.key,
        config.whole(start)
    );
    Failure::new(Code::InvalidArgument, message).hint(hint)
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    let failed = |error: io::Error| {
        let message = format!("failed to read {}: {}", path.display(), reason(&error));
        Failure::new(Code::FileMissing, message)
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(CONFIG_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > CONFIG_MAX_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(text))
}

/// Writes a file whole or not at all, for those who may read `like`, or for this user alone. If we die
/// before the rename, there is a file with another name beside it, and nothing else.
fn write(path: &Path, text: &str, like: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(like).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
    let temporary = named(path, ".cofferdam-new");
    let write = || -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        drop(fs::remove_file(&temporary));
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        drop(fs::remove_file(&temporary));
        let message = format!("failed to write {}: {}", path.display(), reason(&error));
        Failure::new(Code::FileUnwritable, message)
    })
}

/// A file beside another.
fn named(path: &Path, more: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(more);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            program: "/bin/cofferdam".to_owned(),
            arguments: vec!["mcp".to_owned()],
        }
    }

    #[test]
    fn a_configuration_is_written_with_its_mode_and_kept_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let (dir, config) = (home.path().join(".cursor"), config(McpClient::Cursor));
        fs::create_dir(&dir).unwrap();
        let (real, link) = (home.path().join("dotfiles.json"), dir.join("mcp.json"));
        fs::write(&real, "{\"mcpServers\": {}}").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let said = |deed, dry_run| one(deed, &config, home.path(), &start(), dry_run).unwrap();
        assert!(said(Deed::Install, true).contains("would be written"));
        assert_eq!(fs::read_to_string(&real).unwrap(), "{\"mcpServers\": {}}");
        assert!(said(Deed::Install, false).contains("written"));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(
            fs::read_to_string(&link)
                .unwrap()
                .contains("/bin/cofferdam")
        );
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o644
        );
        let before = named(&fs::canonicalize(&real).unwrap(), ".before-cofferdam");
        assert_eq!(fs::read_to_string(before).unwrap(), "{\"mcpServers\": {}}");
        assert!(said(Deed::Install, false).contains("has it already"));
        assert!(said(Deed::Uninstall, false).contains("taken out"));
        let before = named(&fs::canonicalize(&real).unwrap(), ".before-cofferdam");
        assert_eq!(fs::read_to_string(before).unwrap(), "{\"mcpServers\": {}}");
        assert!(said(Deed::Uninstall, false).contains("does not have it"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left_and_the_person_is_told_what_to_type() {
        let home = tempfile::tempdir().unwrap();
        let config = config(McpClient::Zed);
        let path = config.path(home.path(), false);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{ // mine\n}").unwrap();
        let failure = one(Deed::Install, &config, home.path(), &start(), false).unwrap_err();
        let text = failure.to_string();
        assert!(
            text.contains("left as it is") && text.contains("\"/bin/cofferdam\""),
            "{text}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "{ // mine\n}");
    }

    #[test]
    fn clients_that_are_here_are_chosen_and_where_none_is_a_person_is_told() {
        let home = tempfile::tempdir().unwrap();
        let asked = McpInstall {
            client: Vec::new(),
            dry_run: false,
            print: false,
        };
        assert!(
            chosen(&asked, home.path())
                .unwrap_err()
                .to_string()
                .contains("--client")
        );
        fs::create_dir(home.path().join(".codex")).unwrap();
        assert_eq!(chosen(&asked, home.path()).unwrap(), [McpClient::Codex]);
        let named = McpInstall {
            client: vec![McpClient::Gemini],
            ..asked
        };
        assert_eq!(chosen(&named, home.path()).unwrap(), [McpClient::Gemini]);
    }
}
