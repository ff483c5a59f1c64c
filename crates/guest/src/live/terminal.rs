//! Terminals: one for each process that asks for one.

use super::failure::Failure;
use super::processes::Terminal;
use super::protojson;
use super::user::User;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde::Deserialize;
use std::os::fd::AsFd;

/// The sandbox's own devpts, below which there is nobody else's terminal.
const PTMX: &str = "/dev/pts/ptmx";

/// What is asked of a terminal.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pty {
    size: Size,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
struct Size {
    #[serde(deserialize_with = "protojson::number")]
    cols: u16,
    #[serde(deserialize_with = "protojson::number")]
    rows: u16,
}

impl Default for Size {
    fn default() -> Size {
        Size { cols: 80, rows: 24 }
    }
}

/// Makes a terminal that belongs to the user, so that what runs on it can open it by name.
pub(super) fn open(user: User, pty: Pty) -> Result<Terminal, Failure> {
    make(user, pty).map_err(|errno| Failure::errno("make a terminal", errno))
}

fn make(user: User, pty: Pty) -> Result<Terminal, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let ours = user.act(|| rustix::fs::open(PTMX, flags, Mode::empty()))?;
    rustix::pty::unlockpt(&ours)?;
    resize(&ours, pty)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    Ok(Terminal { ours, theirs })
}

/// Tells a terminal, and who draws on it, how large it is.
pub(super) fn resize(terminal: impl AsFd, pty: Pty) -> Result<(), Errno> {
    let size = Winsize {
        ws_row: pty.size.rows,
        ws_col: pty.size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size)
}
