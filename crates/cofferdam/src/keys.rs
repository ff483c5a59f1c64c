//! Where the master key of secrets comes from: a file, a variable of the environment, or a command.

use crate::cli::failure::Failure;
use crate::private::random_name;
use api::Code;
use service::{KeyError, MasterKey, MasterKeys, SecretValue, Service};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

/// Bytes of the longest text of a key of any kind. Whoever takes one may take less.
const TEXT_BYTES_MAX: usize = 4096;
/// How long a command may take: longer than a key service answers, shorter than a person waits.
const COMMAND: Duration = Duration::from_secs(10);

/// Where one key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyPlace {
    /// In a file that only this user can read.
    File(PathBuf),
    /// In a variable of this process.
    Env(String),
    /// What a command prints; its words are split at spaces, and no shell reads them.
    Exec(Vec<String>),
}

/// Where the key in force is, and those before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyPlaces {
    /// The one in the state directory, when nobody says.
    pub(crate) current: Option<KeyPlace>,
    pub(crate) before: Vec<KeyPlace>,
}

impl KeyPlace {
    /// Reads `file:PATH`, `env:NAME` or `exec:COMMAND`.
    pub(crate) fn parse(text: &str) -> Result<KeyPlace, String> {
        let place = match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Some(KeyPlace::File(path.into())),
            Some(("env", name)) if !name.is_empty() => Some(KeyPlace::Env(name.to_owned())),
            Some(("exec", command)) => {
                let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
                (!words.is_empty()).then_some(KeyPlace::Exec(words))
            }
            _ => None,
        };
        // The text is not repeated: somebody may have written the key itself.
        place.ok_or_else(|| "a key is at file:PATH, env:NAME or exec:COMMAND".to_owned())
    }

    /// As it is written on a command line.
    pub(crate) fn text(&self) -> OsString {
        match self {
            KeyPlace::File(path) => {
                let mut text = OsString::from("file:");
                text.push(path);
                text
            }
            KeyPlace::Env(name) => format!("env:{name}").into(),
            KeyPlace::Exec(words) => format!("exec:{}", words.join(" ")).into(),
        }
    }

    /// What is there. Waits for the disk, or for a command.
    pub(crate) fn read(&self) -> Result<SecretValue, KeyError> {
        match self {
            KeyPlace::File(path) => from_file(path),
            KeyPlace::Env(name) => from_env(name),
            KeyPlace::Exec(words) => from_command(words),
        }
    }

    fn load(&self) -> Result<MasterKey, KeyError> {
        MasterKey::parse(self.read()?.bytes())
    }
}

impl KeyPlaces {
    /// The same for another process of this program.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let current = self.current.iter().map(|place| ("--secret-key", place));
        let before = self
            .before
            .iter()
            .map(|place| ("--secret-key-before", place));
        let options = current.chain(before);
        options
            .flat_map(|(option, place)| [option.into(), place.text()])
            .collect()
    }

    /// Gets the keys. The one in the state directory is made when nobody has named another and it is not
    /// there.
    pub(crate) fn load(&self, state_dir: &Path) -> Result<MasterKeys, KeyError> {
        let current = match &self.current {
            Some(place) => place.load()?,
            None => own_key(state_dir)?,
        };
        let before = self.before.iter().map(KeyPlace::load);
        Ok(MasterKeys {
            current,
            before: before.collect::<Result<_, _>>()?,
        })
    }
}

fn unusable(what: impl Into<String>) -> KeyError {
    KeyError::Unusable(what.into())
}

/// The key in the state directory, made on first use.
fn own_key(state_dir: &Path) -> Result<MasterKey, KeyError> {
    let place = KeyPlace::File(state_dir.join("secret.key"));
    let KeyPlace::File(path) = &place else {
        return place.load();
    };
    if !path.exists() {
        make_key(path).map_err(|error| unusable(format!("{}: {error}", path.display())))?;
    }
    place.load()
}

/// Two processes may come here at once, and one key must win: a link is made only where nothing is, and
/// only to a file that is written and on the disk.
fn make_key(path: &Path) -> std::io::Result<()> {
    let random = || random_name::<32>().map_err(|_| std::io::Error::other("no random bytes"));
    let text = SecretValue::new(random()?.into_bytes());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", random()?.get(..8).unwrap_or_default()));
    let mut options = File::options();
    let options = options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&name)?;
    file.write_all(text.bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&name, path);
    std::fs::remove_file(&name)?;
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.and_then(|()| match path.parent() {
            // Else a power cut could take the key and leave what it sealed.
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }),
    }
}

/// What is in the file of a key, which only this user can read, or whoever runs the machine. Waits for the disk.
///
/// # Errors
/// [`KeyError::Unusable`] with its path, also where it is longer than a key can be.
pub(crate) fn from_file(path: &Path) -> Result<SecretValue, KeyError> {
    let file = own_file(path)?;
    read_all(file).map_err(|why| unusable(format!("{}: {why}", path.display())))
}

/// Whoever else can read a key can say what this server says, or open what it has sealed.
fn own_file(path: &Path) -> Result<File, KeyError> {
    let failed = |error: std::io::Error| unusable(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    if !meta.is_file() || meta.mode() & 0o077 != 0 || (meta.uid() != own && meta.uid() != 0) {
        let path = path.display();
        return Err(unusable(format!(
            "{path} is not for this user alone: chmod 600"
        )));
    }
    Ok(file)
}

/// All of it, or nothing: one that is cut off is a key too, which nobody else has.
fn read_all(from: impl std::io::Read) -> Result<SecretValue, String> {
    // So large that it never moves, which would leave a copy behind.
    let mut text = Vec::with_capacity(2 * TEXT_BYTES_MAX);
    // One byte more, to see that there is more.
    let mut from = from.take(TEXT_BYTES_MAX as u64 + 1);
    let read = from.read_to_end(&mut text);
    // Made before anything is refused, so that what was read is wiped then too.
    let value = SecretValue::new(text);
    match read {
        Err(error) => Err(error.to_string()),
        Ok(length) if length > TEXT_BYTES_MAX => {
            Err(format!("a key has at most {TEXT_BYTES_MAX} bytes"))
        }
        Ok(_) => Ok(value),
    }
}

fn from_env(name: &str) -> Result<SecretValue, KeyError> {
    use std::os::unix::ffi::OsStringExt as _;
    let text = std::env::var_os(name).ok_or_else(|| unusable(format!("{name} is not set")))?;
    Ok(SecretValue::new(text.into_vec()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "whoever starts the server names the command, and it needs his environment to know him"
)]
fn from_command(words: &[String]) -> Result<SecretValue, KeyError> {
    let (program, arguments) = words.split_first().ok_or_else(|| unusable("no command"))?;
    let failed = |error: std::io::Error| unusable(format!("`{program}`: {error}"));
    let mut command = std::process::Command::new(program);
    let command = command.args(arguments).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let out = child.stdout.take().ok_or_else(|| unusable("no output"))?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || drop(tell.send(read_all(out))));
    let text = told.recv_timeout(COMMAND);
    if text.is_err() {
        // It hangs. What it has started goes on without us.
        drop(child.kill());
    }
    let status = child.wait().map_err(failed)?;
    let text = text.map_err(|_| unusable(format!("`{program}` gave no key in 10 s")))?;
    // Before its status: one that says too much is stopped by our not listening, and that is not what was wrong.
    let text = text.map_err(|why| unusable(format!("`{program}`: {why}")))?;
    if !status.success() {
        return Err(unusable(format!("`{program}` failed: {status}")));
    }
    Ok(text)
}

/// Gets the keys before anybody is served, and says what is wrong with them to whoever starts the server.
pub(crate) async fn ready(service: &Service) -> Result<(), Failure> {
    let said = |error: service::Error| {
        let code = Code::parse(error.code()).unwrap_or(Code::Internal);
        Failure::new(code, error.to_string())
    };
    service.secrets_ready().await.map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn at(path: &Path) -> KeyPlaces {
        KeyPlaces {
            current: Some(KeyPlace::File(path.to_owned())),
            before: Vec::new(),
        }
    }

    #[test]
    fn a_place_is_read_and_a_key_written_in_its_stead_is_not_repeated() {
        for text in ["file:/a/b", "env:KEY", "exec:/bin/cat /x"] {
            assert_eq!(KeyPlace::parse(text).unwrap().text(), *text, "{text}");
        }
        let key = "0123456789abcdef".repeat(4);
        for bad in ["", "file:", "env:", "exec: ", "fifo:x", &key] {
            let error = KeyPlace::parse(bad).unwrap_err();
            assert!(!error.contains("0123456789"), "{error}");
        }
    }

    #[test]
    fn the_key_is_made_once_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = KeyPlaces::default();
        let first = places.load(dir.path()).unwrap();
        let again = places.load(dir.path()).unwrap();
        assert_eq!(first.current.id(), again.current.id());
        let path = dir.path().join("secret.key");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // Somebody who was slower does not replace it.
        make_key(&path).unwrap();
        assert_eq!(
            places.load(dir.path()).unwrap().current.id(),
            first.current.id()
        );
    }

    #[test]
    fn a_file_that_others_read_or_that_is_no_key_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(&path, "canary-not-a-key").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = at(&path).load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = at(&path).load(dir.path()).unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
        assert!(at(&dir.path().join("none")).load(dir.path()).is_err());
        assert!(at(dir.path()).load(dir.path()).is_err());
    }

    #[test]
    fn what_is_longer_than_a_key_can_be_is_refused_and_never_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let read = |length: usize| {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            from_file(&path).map(|value| value.bytes().len())
        };
        assert_eq!(read(TEXT_BYTES_MAX).unwrap(), TEXT_BYTES_MAX);
        for length in [TEXT_BYTES_MAX + 1, 100_000] {
            let error = read(length).unwrap_err().to_string();
            assert!(error.contains("at most 4096 bytes"), "{error}");
        }
        let place = KeyPlace::parse("exec:head -c 5000 /dev/zero").unwrap();
        let error = place.read().unwrap_err().to_string();
        assert!(error.contains("at most 4096 bytes"), "{error}");
    }

    #[test]
    fn a_command_gives_the_key_or_fails() {
        let exec = |command: &str| {
            let current = Some(KeyPlace::parse(&format!("exec:{command}")).unwrap());
            let before = Vec::new();
            KeyPlaces { current, before }.load(Path::new("/nowhere"))
        };
        let key = "ab".repeat(32);
        assert!(exec(&format!("echo {key}")).is_ok());
        for bad in ["false", "/no/such/program", "echo nothing", "yes"] {
            assert!(matches!(exec(bad), Err(KeyError::Unusable(_))), "{bad}");
        }
    }
}
