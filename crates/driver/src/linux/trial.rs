//! Whether this machine can give a sandbox a root that can be written: a launcher tries it, once for each
//! process of ours.

use crate::host::Ids;
use crate::linux::{ids, launcher, tree};
use jail::message::{FromJail, MESSAGE_MAX, ToJail};
use jail::plan::{Data, Op, Overlay, Place, Root, Sandbox, Tree, UPPER, WORK};
use model::id::SandboxId;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A launcher that takes longer is no launcher for sandboxes; the trial takes milliseconds.
const PATIENCE_MS: i32 = 5000;

/// Why it cannot, if so.
pub(crate) fn no_writable_root() -> Option<String> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    FOUND
        .get_or_init(|| no_overlay_over(Path::new("/usr")))
        .clone()
}

/// Why it cannot with this directory below, if so. Its file system may be one that shows no other ids.
pub(crate) fn no_overlay_over(directory: &Path) -> Option<String> {
    match try_once(directory) {
        Ok(FromJail::Ready { .. }) => None,
        Ok(FromJail::Failed(failure)) => {
            let error = io::Error::from_raw_os_error(failure.errno);
            Some(format!("the trial failed at `{}`: {error}", failure.step))
        }
        Ok(_) => Some("the trial was not answered".to_owned()),
        Err(error) => Some(format!("the trial failed: {error}")),
    }
}

fn try_once(directory: &Path) -> io::Result<FromJail> {
    // A directory that is there on every Linux, and holds nothing that the trial is made of.
    let staging = PathBuf::from("/sys");
    let (socket, mut child) = launcher::run(&staging)?;
    let message = ToJail::Probe {
        tree: tree(directory, staging),
        sandbox: Box::new(sandbox()),
    };
    let bytes = jail::message::encode(&message).ok_or(io::ErrorKind::InvalidInput)?;
    let null = std::fs::File::open("/dev/null")?;
    jail::socket::send(&socket, &bytes, &[null.as_fd(); 3])?;
    let answer = answer(&socket);
    // It may be stuck where no signal reaches it, and then it is reaped when it is not any more.
    drop(child.kill());
    launcher::reap(child);
    answer
}

fn answer(socket: &std::os::fd::OwnedFd) -> io::Result<FromJail> {
    use rustix::event::{PollFd, PollFlags, poll};
    let time = rustix::time::Timespec {
        tv_sec: i64::from(PATIENCE_MS / 1000),
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    if poll(&mut fds, Some(&time))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut buffer = vec![0; MESSAGE_MAX];
    let (bytes, _) = jail::socket::receive(socket, &mut buffer)?;
    jail::message::decode(bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The least that has all that can fail: a directory of the host with other ids, as `/usr`, and a directory of a tmpfs.
fn tree(directory: &Path, staging: PathBuf) -> Tree {
    let dir = |path: &str| Op::Dir {
        path: path.to_owned(),
        mode: 0o755,
    };
    let dirs = [
        "/.low/base/usr",
        "/.low/base/etc",
        "/.in",
        "/.new",
        "/.data",
    ];
    let mut ops: Vec<Op> = dirs.into_iter().map(dir).collect();
    ops.push(Op::File {
        path: "/.low/base/etc/here".to_owned(),
        mode: 0o644,
        content: Vec::new(),
    });
    ops.push(Op::Lower {
        source: directory.to_owned(),
        target: "/.low/usr".to_owned(),
        mask: None,
    });
    ops.push(Op::HostProc {
        target: "/proc".to_owned(),
    });
    Tree { staging, ops }
}

fn sandbox() -> Sandbox {
    let overlay = |name: &str, target: &str| Overlay {
        name: name.to_owned(),
        lower: vec![format!("/.in/{name}")],
        target: target.to_owned(),
    };
    let overlays = vec![overlay("base", ""), overlay("usr", "/usr")];
    let place = |name: String| Place {
        name,
        target: None,
        mode: 0o755,
        of_user: false,
        memory_bytes: None,
    };
    let places = overlays.iter().flat_map(|each| {
        let name = &each.name;
        [
            name.clone(),
            format!("{name}/{UPPER}"),
            format!("{name}/{WORK}"),
        ]
    });
    let map = ids::sandbox_map(&Ids::Root, &SandboxId::from_parts(0, [0; 10]));
    Sandbox {
        id: "trial".to_owned(),
        hostname: "trial".to_owned(),
        uids: map.clone(),
        gids: map,
        guest_uid: 0,
        user_uid: tree::USER,
        data: Data {
            target: "/.data".to_owned(),
            bytes: 1 << 20,
            inodes: 64,
            is_handed: false,
            places: places.map(place).collect(),
        },
        root: Some(Root {
            lower: "/.low".to_owned(),
            mapped: "/.in".to_owned(),
            layers: "/.layers".to_owned(),
            target: "/.new".to_owned(),
            overlays,
            binds: Vec::new(),
        }),
        proc: "/proc".to_owned(),
        masked: Vec::new(),
        read_only: Vec::new(),
        terminals: None,
        root_inside: true,
        tun: None,
        volumes: Vec::new(),
        deadline_boot_ms: 0,
    }
}
