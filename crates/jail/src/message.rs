//! Messages between an agent and a launcher: one each per datagram of a `SOCK_SEQPACKET` socket.

use crate::plan::{Sandbox, Tree, Tun};
use serde::{Deserialize, Serialize};

/// The version of this protocol. An agent that meets another one lets that launcher finish its
/// sandboxes and starts its own beside it.
pub const VERSION: u32 = 6;

/// The longest datagram in bytes. A plan is a few KiB; the socket's default buffer takes 200.
pub const MESSAGE_MAX: usize = 64 * 1024;

/// The longest name of a sandbox in bytes.
pub const ID_MAX: usize = 64;

/// Sandboxes that one launcher holds at once, the ended ones included that nobody has forgotten yet.
pub const SANDBOXES_MAX: usize = 4096;

/// The most control-group hierarchies that a sandbox is in.
pub const CGROUPS_MAX: usize = 8;

/// The most layers below one sandbox.
pub const LAYERS_MAX: usize = 16;

/// The most volumes of one sandbox.
pub const VOLUMES_MAX: usize = 8;

/// Sandboxes that are saved at once by one launcher; each is a process that reads and writes as fast as the
/// disk.
pub const SAVES_MAX: usize = 4;

/// Devices that are made at once for sandboxes that stand; each is a process for about a millisecond.
pub const NETWORKS_MAX: usize = 64;

/// What an agent says. Descriptors ride along where it says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToJail {
    /// First on the connection of a new launcher. With it: the listening socket for later agents,
    /// then the guest's program, then the program of [`crate::plan::Op::Program`].
    Setup(Setup),
    /// First and last on the connection of a launcher that is only to find out whether it can do this: build
    /// the tree, make the sandbox, write in its root. Answered with `Ready` or `Failed`.
    Probe {
        /// A tree.
        tree: Tree,
        /// A sandbox with a root that can be written.
        sandbox: Box<Sandbox>,
    },
    /// First on every later connection. The answer lists what there is.
    Hello {
        /// Must be [`VERSION`].
        version: u32,
    },
    /// Start a sandbox. With it: the guest's listening socket, then for each control group its
    /// membership file, then for each the directory that it is in, then the device of [`crate::plan::Tun`]
    /// where the plan has one, opened with `O_PATH`, then the layers, the newest first, then the
    /// volumes in the order of [`Sandbox::volumes`], then the storage where [`crate::plan::Data::is_handed`]
    /// says so, each a mount that is mounted nowhere.
    Spawn {
        /// What it is made of.
        sandbox: Box<Sandbox>,
        /// The name of its control group below each of the directories.
        cgroup: Option<String>,
        /// How many layers came along.
        layers: u32,
    },
    /// Make the device of a sandbox that stands and was made without, and hand it to its guest. One that is
    /// there already is left as it is. With it: the device file, opened with `O_PATH`.
    Network {
        /// Which.
        id: String,
        /// The device.
        tun: Tun,
    },
    /// Copy what was written in it, while it is frozen. With it: an empty directory.
    Save {
        /// Which.
        id: String,
    },
    /// Kill everything in it.
    Kill {
        /// Which.
        id: String,
    },
    /// Move its deadline.
    Extend {
        /// Which.
        id: String,
        /// Milliseconds of the boot-time clock.
        deadline_boot_ms: u64,
    },
    /// The end of this sandbox is known; drop the record.
    Forget {
        /// Which.
        id: String,
    },
    /// Kill all, clean up and exit.
    Quit,
}

/// How a launcher behaves, and the tree it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Must be [`VERSION`].
    pub version: u32,
    /// Sandboxes live on when the agent is gone, until their deadlines, for the next agent to find.
    /// Otherwise they die with the agent's connection.
    pub linger: bool,
    /// Whether the launcher first enters a user namespace of its own, because its user is not root.
    /// It then says [`FromJail::NeedsIds`] and waits for [`ToJail::Hello`].
    pub own_user_namespace: bool,
    /// What all its sandboxes see.
    pub tree: Tree,
}

/// What a launcher says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromJail {
    /// The launcher is in a new user namespace; the agent writes the id maps of this process.
    NeedsIds {
        /// Its process id.
        pid: i32,
    },
    /// The tree stands. Or: an answer to `Hello`.
    Ready {
        /// The launcher's [`VERSION`].
        version: u32,
        /// Its process id.
        pid: i32,
        /// Names of the sandboxes that live. The ended ones follow as `Ended`.
        alive: Vec<String>,
    },
    /// The tree could not be built. The launcher exits.
    Failed(Failure),
    /// The sandbox is being set up; its guest will answer on its socket, or `Ended` will follow.
    Spawned {
        /// Which.
        id: String,
        /// The process id of its first process, as the launcher sees it.
        pid: i32,
    },
    /// It was not started.
    Refused {
        /// Which.
        id: String,
        /// Why.
        failure: Failure,
    },
    /// Answers `Network`, which other messages may come before.
    Networked {
        /// Which.
        id: String,
        /// The device is there and its guest has it, or why not.
        result: Result<(), Failure>,
    },
    /// Answers `Save`, which other messages may come before.
    Saved {
        /// Which.
        id: String,
        /// Bytes of files that were copied, or why the copy is not whole.
        result: Result<u64, Failure>,
    },
    /// Nothing of it is left: processes, mounts, namespaces, control groups.
    Ended {
        /// Which.
        id: String,
        /// The set-up failed here; otherwise the guest was running.
        failure: Option<Failure>,
        /// Its deadline was over.
        deadline: bool,
    },
}

/// The operation that failed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was tried, such as `bind /usr`.
    pub step: String,
    /// `errno` of the call.
    pub errno: i32,
}

/// Encodes a message as one datagram; `None` when it would be over [`MESSAGE_MAX`].
pub fn encode<M: Serialize>(message: &M) -> Option<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).ok()?;
    (bytes.len() <= MESSAGE_MAX).then_some(bytes)
}

/// Decodes one datagram; `None` when it is no message of this version.
pub fn decode<'a, M: Deserialize<'a>>(bytes: &'a [u8]) -> Option<M> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) if bytes.len() <= MESSAGE_MAX => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let said = ToJail::Extend {
            id: "sbx_1".to_owned(),
            deadline_boot_ms: 7,
        };
        assert_eq!(decode(&encode(&said).unwrap()), Some(said));
    }

    #[test]
    fn a_datagram_with_a_tail_is_no_message() {
        let mut bytes = encode(&ToJail::Quit).unwrap();
        bytes.push(0);
        assert_eq!(decode::<ToJail>(&bytes), None);
    }
}
