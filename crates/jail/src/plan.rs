//! The plan: what a tree and a sandbox are made of, as a flat list in the order of execution.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One operation on a tree. Targets are absolute paths inside the tree that is being built; sources
/// are absolute paths on the host.
///
/// Granting each to a caller that is not trusted would be safe for these reasons: the directories,
/// files and links are made on a tmpfs of our own; binds are always without set-user-id and device
/// files, and read-only unless they bind the sandbox's own data; a device is one file that the
/// operator's plan names; a fresh proc shows only the sandbox's own processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes a directory and its parents.
    Dir {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Makes a small file.
    File {
        /// Where; its directory exists.
        path: String,
        /// Permission bits.
        mode: u32,
        /// The bytes.
        content: Vec<u8>,
    },
    /// Makes a symbolic link.
    Link {
        /// Where.
        path: String,
        /// What it says.
        to: String,
    },
    /// Shows a directory or file of the host, with everything mounted below it: read-only, no
    /// set-user-id, no device files.
    Bind {
        /// On the host.
        source: PathBuf,
        /// In the tree; made if it is not there.
        target: String,
    },
    /// Shows one device file of the host.
    Device {
        /// On the host, such as `/dev/null`.
        source: String,
        /// In the tree; made if it is not there.
        target: String,
    },
    /// Shows the host's proc, which each sandbox covers with its own. A new proc may only be mounted
    /// where an unmasked one is visible (`mount_too_revealing` in the kernel's `fs/namespace.c`).
    HostProc {
        /// In the tree.
        target: String,
    },
    /// Gives something of the tree to an id, as it is inside a sandbox.
    Owner {
        /// What was made before.
        path: String,
        /// User and group.
        id: u32,
    },
    /// Copies a file or directory of the host, but only what everybody may read there.
    Copy {
        /// On the host.
        source: PathBuf,
        /// In the tree; not there yet.
        target: String,
    },
    /// Shows one file system of the host as [`Op::Bind`] does, to be the lower layer of an overlay. With
    /// ids of its own, a sandbox would read in it what only its owner may read on the host; so whatever
    /// not everybody may read is whited out in a layer above it.
    Lower {
        /// On the host.
        source: PathBuf,
        /// In the tree; made if it is not there.
        target: String,
        /// The layer above it, a directory of the tree; none where its ids are not mapped.
        mask: Option<String>,
    },
    /// Makes a program file of the third descriptor that came with the set-up.
    Program {
        /// Where.
        path: String,
    },
}

/// A root that can be written: overlays that the sandbox makes in its own namespaces, with the launcher's
/// tree below and its own storage above. It takes the place of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// A directory of the tree that is shown, with all that is mounted in it, with the sandbox's own ids.
    pub lower: String,
    /// Where in the tree it is shown so.
    pub mapped: String,
    /// Where in the tree layers are shown, by number: 0 is the newest.
    pub layers: String,
    /// Where in the tree the new root is put together.
    pub target: String,
    /// In order; the first is the root itself.
    pub overlays: Vec<Overlay>,
    /// What of the tree is in the new root too, with all that is mounted in it: from and to.
    pub binds: Vec<(String, String)>,
}

/// One overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Its directory in the storage, and in each layer that was saved.
    pub name: String,
    /// Directories of the tree that are below, the topmost first.
    pub lower: Vec<String>,
    /// Where it is in the new root; empty for the root itself.
    pub target: String,
}

/// In an overlay's directory of the storage: what was written.
pub const UPPER: &str = "upper";
/// In an overlay's directory of the storage: what the kernel works with.
pub const WORK: &str = "work";

/// The writable storage of a sandbox: one file system with a limit on bytes and on files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Where it is mounted in the tree.
    pub target: String,
    /// Most bytes.
    pub bytes: u64,
    /// Most files and directories.
    pub inodes: u64,
    /// It is not in memory: the file system comes along with the request, empty, as a mount that is mounted
    /// nowhere. Only with a root that can be written.
    pub is_handed: bool,
    /// Directories in it, and where each is shown.
    pub places: Vec<Place>,
}

/// A writable directory of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name below the data's root.
    pub name: String,
    /// Where it is shown in the tree; `None` where the name below the data's target is the place.
    pub target: Option<String>,
    /// Permission bits, such as `0o1777`.
    pub mode: u32,
    /// Belongs to the workload's user rather than to the sandbox's root.
    pub of_user: bool,
    /// Bytes of a file system in memory of its own, which it is even where the storage is not: what must not
    /// come to lie on a disk.
    pub memory_bytes: Option<u64>,
}

/// How ids inside a user namespace map to ids outside: `count` from `inside` on are `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside, as the launcher sees it.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The tree that all sandboxes of one launcher see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// An empty directory on the host over which the tree is mounted while it is built.
    pub staging: PathBuf,
    /// In order.
    pub ops: Vec<Op>,
}

/// A network device whose other end is a descriptor of the guest's: what programs send, the guest reads as
/// packets of IPv4 and IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tun {
    /// What it is called inside.
    pub name: String,
    /// The sandbox's own address on it.
    pub address: std::net::Ipv4Addr,
    /// The same of IPv6. A kernel without it has none, and then programs find none.
    pub address6: std::net::Ipv6Addr,
    /// The longest packet in bytes.
    pub mtu: u32,
}

/// One sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its name, at most [`crate::message::ID_MAX`] bytes.
    pub id: String,
    /// What `uname` says inside.
    pub hostname: String,
    /// User ids.
    pub uids: Vec<IdMap>,
    /// Group ids.
    pub gids: Vec<IdMap>,
    /// The guest's user and group id inside.
    pub guest_uid: u32,
    /// The workload's user and group id inside.
    pub user_uid: u32,
    /// Writable storage.
    pub data: Data,
    /// The root, where it can be written; otherwise the tree is the root.
    pub root: Option<Root>,
    /// Where a fresh proc is mounted. What it says of the machine's boot is covered by an id of this
    /// sandbox's own, which its guest may change.
    pub proc: String,
    /// Paths that are covered: a file by an empty file, a directory by an empty directory. A path that
    /// this kernel does not have is skipped, as there is nothing to hide.
    pub masked: Vec<String>,
    /// Directories that are shown read-only from now on, such as `/proc/sys`.
    pub read_only: Vec<String>,
    /// Where a fresh devpts is mounted, for a sandbox that has terminals of its own.
    pub terminals: Option<String>,
    /// Processes may be asked for as the sandbox's root: the guest keeps what it gives to those.
    pub root_inside: bool,
    /// Where in its root volumes are, which come along with the request. Only with a root that can be
    /// written.
    pub volumes: Vec<String>,
    /// The device that all traffic to the outside goes to, for a sandbox that has a way out from the start;
    /// see [`crate::message::ToJail::Network`] for one that gets it later.
    pub tun: Option<Tun>,
    /// When everything in it is killed, whatever the guest or the agent do: milliseconds of the
    /// boot-time clock.
    pub deadline_boot_ms: u64,
}

/// The empty file that covers masked files, in every tree.
pub const EMPTY_FILE: &str = "/.empty/file";
/// The empty directory that covers masked directories, in every tree.
pub const EMPTY_DIR: &str = "/.empty/dir";
