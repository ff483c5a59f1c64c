//! The state directory: what is where, and who may use it at a time.

use crate::cli::args::Place;
use crate::cli::failure::Failure;
use api::Code;
use model::id::NodeId;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The state directory. It and everything in it is for this user alone.
#[derive(Debug, Clone)]
pub(crate) struct State {
    dir: PathBuf,
}

/// A directory that one process uses at a time; free again when this is dropped, or the process dies.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Code::Internal,
        format!("failed to {what} {}: {error}", path.display()),
    )
}

impl State {
    /// The directory that was named, or the user's.
    pub(crate) fn of(place: &Place) -> Result<State, Failure> {
        let named = place.state.clone();
        let dir = named.or_else(|| default_dir(std::env::var_os));
        let missing = || {
            let message = "there is no home directory to keep state in; name one with --state";
            Failure::new(Code::InvalidArgument, message)
        };
        let dir = dir.ok_or_else(missing)?;
        let absolute = std::path::absolute(&dir).map_err(|error| failed("find", &dir, &error))?;
        Ok(State { dir: absolute })
    }

    /// Makes the directory.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        private_dir(&self.dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("cofferdam.sock")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("cofferdam.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    pub(crate) fn nodes(&self) -> PathBuf {
        self.dir.join("nodes")
    }

    pub(crate) fn node(&self, id: &NodeId) -> PathBuf {
        self.nodes().join(id.as_str())
    }

    /// The token for TCP; made on first use.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        let path = self.dir.join("token");
        if let Ok(text) = std::fs::read_to_string(&path)
            && text.trim().len() >= 32
        {
            return Ok(text.trim().to_owned());
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&path, &format!("{token}\n"))?;
        Ok(token)
    }

    /// The id of this machine's own node; made on first use.
    pub(crate) fn own_node(&self) -> Result<NodeId, Failure> {
        let path = self.dir.join("node");
        let known = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(id) = known {
            return Ok(id);
        }
        let id = new_node_id()?;
        write_private(&path, &format!("{id}\n"))?;
        Ok(id)
    }

    /// Takes the right to serve this directory.
    pub(crate) fn lock_server(&self) -> Result<Locked, Failure> {
        let message = "another `cofferdam up` serves this state directory";
        lock(&self.dir.join("lock"))?.ok_or_else(|| Failure::new(Code::StateLocked, message))
    }

    /// Takes the right to a node's directory; `None` when its process lives.
    pub(crate) fn lock_node(&self, id: &NodeId) -> Result<Option<Locked>, Failure> {
        private_dir(&self.node(id))?;
        lock(&self.node(id).join("lock"))
    }
}

/// A new id for a node of this process.
pub(crate) fn new_node_id() -> Result<NodeId, Failure> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    Ok(NodeId::from_parts(
        service::Clock::system().now_ms(),
        random,
    ))
}

/// Where a user's programs keep state (the XDG base directory specification).
fn default_dir(var: impl Fn(&'static str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let state = var("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let home = || Some(PathBuf::from(var("HOME")?).join(".local/state"));
    state.or_else(home).map(|dir| dir.join("cofferdam"))
}

fn private_dir(dir: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|error| failed("make", dir, &error))
}

/// Writes a file that only this user can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| failed("write", path, &error))
}

fn lock(path: &Path) -> Result<Option<Locked>, Failure> {
    let mut options = File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = file.map_err(|error| failed("open", path, &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Locked { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed("lock", path, &errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_where_the_user_keeps_state() {
        let var = |name: &'static str| match name {
            "HOME" => Some("/home/ada".into()),
            _ => None,
        };
        assert_eq!(
            default_dir(var),
            Some("/home/ada/.local/state/cofferdam".into())
        );
        let var = |name: &'static str| (name == "XDG_STATE_HOME").then(|| "/s".into());
        assert_eq!(default_dir(var), Some("/s/cofferdam".into()));
        assert_eq!(default_dir(|_| None), None);
    }

    #[test]
    fn a_token_is_made_once_and_is_for_this_user_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let state = State {
            dir: dir.path().to_owned(),
        };
        let token = state.token().unwrap();
        assert_eq!((token.len(), state.token().unwrap()), (64, token.clone()));
        let mode = std::fs::metadata(dir.path().join("token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
