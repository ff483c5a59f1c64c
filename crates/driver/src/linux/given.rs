//! The tree of a root that an operator has given: all of it, below a layer with what must be ours. Pure.
//!
//! Nothing in it is hidden from the sandbox's root. It was given to sandboxes, so its `/etc/shadow` is theirs
//! like everything else of it; what only its owners may read, the sandbox's user cannot.

use crate::linux::tree::{self, HOSTS, NSSWITCH, RESOLVER, USER};
use crate::linux::writable::{DEVICES, LAYERS, LOW, MAPPED, NEW, ROOT, dir, skeleton};
use crate::root::Given;
use jail::plan::{EMPTY_DIR, Op, Overlay, Tree};
use std::path::Path;

/// In [`LOW`]: the directory that was given.
const THEIRS: &str = ".theirs";
/// In [`LOW`]: what is above it. A directory here hides whatever in the root has its name and is none.
const OURS: &str = ".ours";

/// Directories that every sandbox has. Where the root has them too, what is in both is in one.
const DIRECTORIES: [(&str, u32); 10] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/home/user", 0o755),
    ("/proc", 0o555),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/usr/bin", 0o755),
    ("/var/tmp", 0o1777),
];

/// The overlay of a sandbox with such a root.
pub(super) fn root() -> jail::plan::Root {
    let bind = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    jail::plan::Root {
        lower: LOW.to_owned(),
        mapped: MAPPED.to_owned(),
        layers: LAYERS.to_owned(),
        target: NEW.to_owned(),
        overlays: vec![Overlay {
            name: ROOT.to_owned(),
            lower: vec![format!("{MAPPED}/{OURS}"), format!("{MAPPED}/{THEIRS}")],
            target: String::new(),
        }],
        binds: vec![bind(DEVICES, "/dev"), bind(EMPTY_DIR, "/sys")],
    }
}

/// The launcher's tree for such sandboxes.
pub(super) fn tree(path: &Path, given: &Given, devices: &[String], staging: &Path) -> Tree {
    let mut ops = skeleton();
    ops.push(Op::Lower {
        source: path.to_owned(),
        target: format!("{LOW}/{THEIRS}"),
        mask: None,
    });
    let ours = |path: &str| format!("{LOW}/{OURS}{path}");
    ops.extend(
        DIRECTORIES
            .iter()
            .map(|(name, mode)| dir(&ours(name), *mode)),
    );
    if !given.has_root_home {
        ops.push(dir(&ours("/root"), 0o700));
    }
    ops.push(Op::Owner {
        path: ours(tree::HOME),
        id: USER,
    });
    ops.extend(etc(given).map(|(name, mode, content)| Op::File {
        path: ours(&format!("/etc/{name}")),
        mode,
        content: content.as_bytes().to_vec(),
    }));
    // A set-user-id program would gain nothing, and one in the other directory would come before ours.
    let programs = [
        Some("/usr/bin"),
        given.has_local_bin.then_some("/usr/local/bin"),
    ];
    ops.extend(programs.into_iter().flatten().map(|at| Op::Program {
        path: ours(&format!("{at}/sudo")),
    }));
    ops.extend(tree::devices(DEVICES, devices));
    ops.push(Op::HostProc {
        target: "/proc".to_owned(),
    });
    Tree {
        staging: staging.to_path_buf(),
        ops,
    }
}

/// What is ours below `/etc`: who there is, and what the outside is called, of which a root says what was so
/// where it was made.
fn etc(given: &Given) -> impl Iterator<Item = (&'static str, u32, &str)> {
    let files = [
        ("group", 0o644, &*given.group),
        ("hostname", 0o644, "sandbox\n"),
        ("hosts", 0o644, HOSTS),
        ("passwd", 0o644, &*given.passwd),
        ("resolv.conf", 0o644, RESOLVER),
        ("shadow", 0o600, &*given.shadow),
    ];
    let nsswitch = ("nsswitch.conf", 0o644, NSSWITCH);
    files
        .into_iter()
        .chain((!given.has_nsswitch).then_some(nsswitch))
}
