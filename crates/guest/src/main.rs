//! The agent inside a sandbox: its first process, and the parent of everything that runs there.
//!
//! It gets descriptors and no paths: 0 to 2 are `/dev/null`, 3 is a listening socket that was bound
//! outside, 4 and up are the membership files of the workload's control groups, after them comes the file
//! that the workload sees as its boot id, then a socket on which the launcher hands over a TUN device that is
//! made later, then the TUN device of a sandbox that has one from the start, and then a pipe that ends with the
//! launcher. It runs one
//! command, carries its streams over a connection made to the socket, reaps, and enforces the
//! timeout; or it is told to live on, and serves processes and files over HTTP until the sandbox is
//! killed, see [`live`]. A command is hostile to the guest: the guest is not dumpable, takes no signal from
//! inside, lives outside the workload's control group, and bounds every buffer.
//!
//! This room must never exec anything but the commands it was given, never start a thread, because a
//! fork copies only one, never resolve a path with more
//! rights than the workload has, and never block on the workload or on the node.

mod agent;
mod carrier;
mod confine;
mod conn;
#[cfg(test)]
#[path = "../../../fuzz/engine.rs"]
mod engine;
mod files;
mod handed;
mod launcher;
mod live;
mod output;
mod process;
mod starter;

use std::os::fd::{FromRawFd, OwnedFd};

/// The listening socket.
const LISTENER: i32 = 3;
/// The first of the control groups' membership files, and after them the boot id, the launcher's socket, the TUN
/// device and the launcher's pipe.
const CGROUPS: i32 = 4;
/// More control-group hierarchies than any machine has; a larger count is a broken launcher.
const CGROUPS_MAX: i32 = 16;

fn main() -> std::process::ExitCode {
    let count = std::env::args()
        .nth(1)
        .and_then(|n| n.parse::<i32>().ok())
        .unwrap_or(0);
    let count = count.clamp(0, CGROUPS_MAX);
    let has_tun = std::env::args().nth(2).is_some_and(|said| said == "tun");
    // The children put their pipes at 3 and 4, and need none of what comes after them.
    let inherited = inherited(count, has_tun);
    match agent::Agent::new(inherited).and_then(agent::Agent::run) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            std::process::ExitCode::from(u8::try_from(error.raw_os_error()).unwrap_or(255))
        }
    }
}

/// What the launcher has opened for us.
#[derive(Debug)]
struct Inherited {
    listener: OwnedFd,
    cgroups: Vec<OwnedFd>,
    boot_id: OwnedFd,
    device: handed::Device,
}

#[expect(
    unsafe_code,
    reason = "taking ownership of descriptors that the launcher passed by number"
)]
fn inherited(count: i32, has_tun: bool) -> Inherited {
    // SAFETY: `fd` was opened for us by the launcher and nothing else in this process owns it;
    // `main` calls this once, before anything opens a descriptor.
    // JUSTIFICATION: there is no safe way to adopt a descriptor by number.
    let own = |fd: i32| unsafe { OwnedFd::from_raw_fd(fd) };
    launcher::keep(own(CGROUPS + count + 2 + i32::from(has_tun)));
    Inherited {
        listener: own(LISTENER),
        cgroups: (CGROUPS..CGROUPS + count).map(own).collect(),
        boot_id: own(CGROUPS + count),
        device: handed::Device::new(
            own(CGROUPS + count + 1),
            has_tun.then(|| own(CGROUPS + count + 2)),
        ),
    }
}
