//! Things on the host that a snoop would like to find: planted, so that finding one is a fact
//! and not a matter of what this machine happens to have.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::process;

/// A file, a process, a port and a socket, each outside the sandbox.
pub(super) struct Decoys {
    word: String,
    file: PathBuf,
    process: Child,
    port: u16,
    tcp: TcpListener,
    unix: UnixListener,
}

impl Decoys {
    /// Plants them; `word` is in the command line of the process and in the name of the socket.
    pub(super) fn plant(dir: &Path, word: &str) -> Result<Self> {
        let file = dir.join("secret.txt");
        fs::write(&file, "the secret of the person who typed the command\n")?;
        // Readable by everybody: what keeps it from the snoop is to be the sandbox, not the mode.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        let process = process::command("sh")
            // It waits for a line that never comes, and ends with us even if we are killed.
            .args(["-c", "read -r line", word])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start a decoy process")?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot open a port")?;
        tcp.set_nonblocking(true)?;
        let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(word)?)?;
        unix.set_nonblocking(true)?;
        Ok(Self {
            word: word.to_owned(),
            file,
            process,
            port: tcp.local_addr()?.port(),
            tcp,
            unix,
        })
    }

    /// Arguments that tell the job where to look: a wall is tested by showing the door.
    pub(super) fn hints(&self) -> Vec<String> {
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
        [
            ("SNOOP_HOME", home),
            ("SNOOP_FILE", self.file.display().to_string()),
            ("SNOOP_WORD", self.word.clone()),
            ("SNOOP_PORT", self.port.to_string()),
            ("SNOOP_SOCKET", self.word.clone()),
        ]
        .into_iter()
        .map(|(name, value)| format!("--env={name}={value}"))
        .collect()
    }

    /// Puts a secret in the environment of the command itself, which is not to reach the job.
    pub(super) fn tempt(&self, command: &mut Command) {
        command.env("SNOOP_SECRET", &self.word);
    }

    /// Which of the listeners somebody reached.
    pub(super) fn touched(&self) -> Option<&'static str> {
        let waits = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
        if !self.tcp.accept().is_err_and(|error| waits(&error)) {
            return Some("a TCP port of the host");
        }
        if !self.unix.accept().is_err_and(|error| waits(&error)) {
            return Some("a Unix socket of the host");
        }
        None
    }
}

impl Drop for Decoys {
    fn drop(&mut self) {
        // An error means that it has ended already, which is what is wanted.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What is left of a sandbox: a process with `mark` in its command line, or a mount below `dir`.
pub(super) fn left_over(mark: &str, dir: &Path) -> Result<Option<String>> {
    for entry in fs::read_dir("/proc")
        .context("cannot read /proc")?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        // A process may end while we look at it.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if name.parse::<u32>().is_ok() && String::from_utf8_lossy(&line).contains(mark) {
            return Ok(Some(format!("process {name}")));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let below = format!(" {}", dir.display());
    let mount = mounts.lines().find(|line| line.contains(&below));
    Ok(mount.map(|line| format!("a mount: {line}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoy_notices_who_comes_and_goes_away_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let word = format!("decoy-{}", std::process::id());
        let decoys = Decoys::plant(dir.path(), &word).unwrap();
        assert_eq!(decoys.touched(), None);
        let process = format!("process {}", decoys.process.id());
        // A process that has just been started may not show its command line yet.
        while left_over(&word, dir.path()).unwrap() != Some(process.clone()) {
            std::thread::yield_now();
        }
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, decoys.port)).unwrap();
        assert_eq!(decoys.touched(), Some("a TCP port of the host"));
        drop(decoys);
        assert_eq!(left_over(&word, dir.path()).unwrap(), None);
    }
}
