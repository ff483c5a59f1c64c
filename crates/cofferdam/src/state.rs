//! The state directory: what is where, and who may use it at a time.

use crate::cli::args::Place;
use crate::cli::failure::Failure;
use crate::keys::KeyPlaces;
use crate::private::{
    Locked, check_private, failed, fresh_dir, lock, private_dir, random_name, write_private,
};
use crate::providers::Provider;
use crate::tcp::Address;
use api::Code;
use model::id::NodeId;
use std::path::{Path, PathBuf};

/// How often a new node's directory is tried: another process may take one that is not locked yet for
/// one that was left behind, once.
const TRIES: u32 = 8;

/// The state directory. It and everything in it is for this user alone.
#[derive(Debug, Clone)]
pub(crate) struct State {
    dir: PathBuf,
    keys: KeyPlaces,
    providers: Vec<Provider>,
}

impl State {
    /// The directory that was named, or the user's.
    pub(crate) fn of(place: &Place) -> Result<State, Failure> {
        let named = place.state.clone();
        let dir = named.or_else(|| default_dir(std::env::var_os));
        let missing = || {
            let message = "there is no home directory to keep state in";
            Failure::new(Code::StateUnusable, message).hint("name a directory with --state")
        };
        let dir = dir.ok_or_else(missing)?;
        let absolute = std::path::absolute(&dir).map_err(|error| failed("find", &dir, &error))?;
        let keys = KeyPlaces {
            current: place.secret_key.clone(),
            before: place.secret_key_before.clone(),
        };
        Ok(State {
            keys,
            providers: place.secret_provider.clone(),
            ..State::at(&absolute)
        })
    }

    /// This directory, whose name must be absolute.
    pub(crate) fn at(dir: &Path) -> State {
        // Without a slash at the end, which would look behind a link.
        let dir = dir.components().collect();
        let (keys, providers) = (KeyPlaces::default(), Vec::new());
        State {
            dir,
            keys,
            providers,
        }
    }

    /// Says for good that this is the state of `cofferdam server`, whose database may be elsewhere: a command
    /// that finds no server must not make another one here. Written before the server takes anything in.
    pub(crate) fn mark_of_server(&self) -> Result<(), Failure> {
        let path = self.server_mark();
        if path.exists() {
            return Ok(());
        }
        write_private(&path, "")
    }

    /// Whether it is. Those of a version before the mark are known by the authority of their nodes.
    pub(crate) fn has_server(&self) -> bool {
        self.server_mark().exists() || self.node_authority().exists()
    }

    fn server_mark(&self) -> PathBuf {
        self.dir.join("server")
    }

    /// What signs the certificates of nodes.
    pub(crate) fn node_authority(&self) -> PathBuf {
        self.dir.join("node-authority.json")
    }

    /// Makes the directory, or checks the one that is there.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        private_dir(&self.dir)
    }

    /// Whether it is there; if it is, it is this user's alone.
    pub(crate) fn is_there(&self) -> Result<bool, Failure> {
        if std::fs::symlink_metadata(&self.dir).is_err() {
            return Ok(false);
        }
        check_private(&self.dir)?;
        Ok(true)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the master keys of secrets are.
    pub(crate) fn keys(&self) -> &KeyPlaces {
        &self.keys
    }

    /// Where values of secrets are that are not kept here.
    pub(crate) fn providers(&self) -> &[Provider] {
        &self.providers
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("cofferdam.sock")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("cofferdam.db")
    }

    /// Its time is when finished jobs were last forgotten.
    pub(crate) fn forgotten(&self) -> PathBuf {
        self.dir.join("forgotten")
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

    /// Root file systems that the operator has put here, each under its name.
    pub(crate) fn roots(&self) -> PathBuf {
        self.dir.join("roots")
    }

    /// Where the server that runs listens on TCP. What a server leaves that was killed is replaced by
    /// the next one, so that it counts only while there is one.
    pub(crate) fn address(&self) -> PathBuf {
        self.dir.join("address")
    }

    /// What is said there.
    pub(crate) fn known_address(&self) -> Option<Address> {
        Address::parse(&std::fs::read_to_string(self.address()).ok()?)
    }

    /// What a self-made certificate for this domain needs.
    pub(crate) fn tls(&self, domain: &str) -> PathBuf {
        self.dir.join("tls").join(domain)
    }

    /// The token for TCP, if one was made.
    pub(crate) fn known_token(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join("token")).ok()?;
        let text = text.trim();
        (text.len() >= 32).then(|| text.to_owned())
    }

    /// The token for TCP; made on first use.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        if let Some(known) = self.known_token() {
            return Ok(known);
        }
        let token = random_name::<32>()?;
        write_private(&self.dir.join("token"), &format!("{token}\n"))?;
        Ok(token)
    }

    /// The node of this machine whose sandboxes live on when its server ends, if there is one.
    pub(crate) fn known_node(&self) -> Option<NodeId> {
        let text = std::fs::read_to_string(self.dir.join("node")).ok()?;
        text.trim().parse().ok()
    }

    /// The id of this machine's own node; made on first use.
    pub(crate) fn own_node(&self) -> Result<NodeId, Failure> {
        if let Some(id) = self.known_node() {
            return Ok(id);
        }
        let id = new_node_id()?;
        write_private(&self.dir.join("node"), &format!("{id}\n"))?;
        Ok(id)
    }

    /// Takes the right to serve this directory.
    pub(crate) fn lock_server(&self) -> Result<Locked, Failure> {
        lock(&self.dir.join("lock"))?.ok_or_else(locked)
    }

    /// Takes the right to a node's directory.
    pub(crate) fn lock_node(&self, id: &NodeId) -> Result<Locked, Failure> {
        private_dir(&self.node(id))?;
        lock(&self.node(id).join("lock"))?.ok_or_else(locked)
    }

    /// A node of this process, with a directory that nobody else has or takes for left behind.
    pub(crate) fn new_node(&self) -> Result<(NodeId, Locked), Failure> {
        private_dir(&self.nodes())?;
        for _ in 0..TRIES {
            let id = new_node_id()?;
            let dir = self.node(&id);
            if fresh_dir(&dir)?
                && let Some(locked) = lock(&dir.join("lock"))?
            {
                return Ok((id, locked));
            }
        }
        let message = "failed to make a directory for a new node: others take it away";
        Err(Failure::new(Code::StateUnusable, message))
    }
}

fn locked() -> Failure {
    let message = "another `cofferdam up`, `server` or `node` has this state directory";
    Failure::new(Code::StateLocked, message)
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
        let state = State::at(dir.path());
        assert_eq!(state.known_token(), None);
        let token = state.token().unwrap();
        assert_eq!((token.len(), state.token().unwrap()), (64, token.clone()));
        let mode = std::fs::metadata(dir.path().join("token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_slash_at_the_end_does_not_look_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let mut name = link.into_os_string();
        name.push("/");
        assert!(State::at(Path::new(&name)).make().is_err());
    }

    #[test]
    fn a_new_node_is_locked_and_has_a_directory_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path());
        let (one, held) = state.new_node().unwrap();
        let (two, _held) = state.new_node().unwrap();
        assert_ne!(one, two);
        assert!(state.lock_node(&one).is_err());
        drop(held);
        assert!(state.lock_node(&one).is_ok());
    }
}
