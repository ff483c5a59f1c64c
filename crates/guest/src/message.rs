//! Control messages between a node and a guest, and their bounds.
//!
//! One job is: `Hello`, `Confine`, any number of files put, `Start`, output with acknowledgements,
//! `Exited`, any number of files got. A node that lost its connection says `Hello` again on a new one
//! and goes on from the offsets that it has safe.
//!
//! A sandbox that lives on gets `Hello` and `Serve` instead, answers `Serving`, and closes that
//! connection. Every connection after it is HTTP/1.1, and there is no way back.

use crate::wire;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The version of this wire. A guest answers only its own.
pub const VERSION: u32 = 1;

/// Bytes of one stream that a guest keeps until the node has acknowledged them. A node that dies loses
/// none of them: the workload waits, and the next connection gets them again.
pub const WINDOW: usize = 256 * 1024;

/// The newest ABI of Landlock whose rights a guest asks for, see `landlock(7)`.
pub const LANDLOCK_ABI: u32 = 6;

/// The longest control message in bytes, once encoded.
pub const CONTROL_MAX: usize = 192 * 1024;

/// Where programs inside find the way out, on the loopback, if the sandbox has one. `egress::PORT` is the same.
pub const EGRESS_PORT: u16 = 3128;

/// Before `path`, `dir` and `file`: the routes of the content of a volume. For the door of volumes only, and
/// only in a sandbox that was made to serve one: no other door passes anything on to them.
pub const VOLUME_PATH: &str = "/volume/";

/// Where such a sandbox has the volume.
pub const VOLUME_DIR: &str = "/volume";

/// The route over which the node brings lines to the outside, each a connection that waits until a client inside
/// needs it. For the node only: the doors pass nothing on to it.
pub const EGRESS_PATH: &str = "/egress";

/// The route that adds variables to the environment of whatever is started from now on: a list of pairs. For the node
/// only, as the one before.
pub const ENV_PATH: &str = "/cofferdam/env";

/// What such a connection is upgraded to.
pub const EGRESS_PROTOCOL: &str = "cofferdam-egress";

/// The first byte of a line: a client has it, and all that follows is the client's.
pub const EGRESS_CLIENT: u8 = 1;

/// The first byte of a line that the guest itself has, for its TUN device: a question of
/// [`crate::direct`] follows.
pub const EGRESS_DIRECT: u8 = 2;

/// The sandbox's own address on its TUN device, where it has one. RFC 2544 gave this network to tests of network
/// devices, so no host of the world has an address of it.
pub const TUN_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// The same of IPv6, out of a network of our own (RFC 4193) that nobody else has: its forty bits are random.
pub const TUN_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfdb3, 0x5e1d, 0x9a47, 0, 0, 0, 0, 2);

/// Who answers questions of DNS there.
pub const TUN_DNS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The longest packet on it in bytes: the longest of IPv4, because nothing of it goes over a wire, and each
/// costs a system call.
pub const TUN_MTU: u32 = 65_535;

/// What programs find in their environment where there is a way out. Those that are made to look there use it;
/// what is inside stays inside. Lower and upper case, because each is the only one for somebody.
pub fn egress_env() -> impl Iterator<Item = (String, String)> {
    // The last one is how some name the loopback; the kernel takes it for that.
    const NONE: &str = "localhost,127.0.0.1,::1,0.0.0.0";
    let proxy = format!("http://127.0.0.1:{EGRESS_PORT}");
    let through = [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ];
    let own = [
        ("no_proxy", NONE),
        ("NO_PROXY", NONE),
        // Node.js looks at the variables above only if it is told to.
        ("NODE_USE_ENV_PROXY", "1"),
    ];
    let through = through.map(|name| (name.to_owned(), proxy.clone()));
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    through.into_iter().chain(own)
}

/// The two output streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a node says to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// First on each connection: the version, and how much of each stream the node has safe already.
    Hello {
        /// Must be [`VERSION`].
        version: u32,
        /// Bytes of standard output that need not be sent again.
        stdout: u64,
        /// Bytes of standard error that need not be sent again.
        stderr: u64,
    },
    /// How every process of the workload is confined. Once, before `Start`.
    Confine(Confine),
    /// Run the command. Once.
    Start(Start),
    /// No more standard input will follow.
    StdinEnd,
    /// Send this signal to the command's process group.
    Signal(i32),
    /// SIGTERM to every process of the workload, and SIGKILL after the grace.
    Stop {
        /// From SIGTERM to SIGKILL.
        grace_ms: u64,
    },
    /// Everything up to this offset of the stream is safe; the guest may forget it.
    Ack {
        /// Which stream.
        stream: Stream,
        /// Bytes from the beginning of the stream.
        offset: u64,
    },
    /// A file follows in `File` frames of `size_bytes` in all.
    Put(Put),
    /// Send a file back in `File` frames, then `GetEnd`.
    Get {
        /// Absolute, or relative to the command's directory.
        path: String,
        /// A larger file is refused and nothing of it is sent.
        max_bytes: u64,
    },
    /// Live on, and serve HTTP from the next connection on. Once, instead of `Confine`.
    Serve(Serve),
}

/// What a sandbox that lives on is told once, for all processes that will ever run in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// How each process is confined.
    pub confine: Confine,
    /// What each process finds in its environment, unless its own request says otherwise.
    pub env: Vec<(String, String)>,
    /// Whether processes and files may be asked for as the sandbox's root. Its launcher must have left
    /// the guest the capabilities for it.
    pub allow_root: bool,
    /// The languages whose contexts are started at once, so that the first step need not wait. One that
    /// is not there is passed over, and missed when it is used.
    pub contexts: Vec<String>,
    /// Small files that are there before anything runs, such as secrets; all of them in this one frame.
    pub files: Vec<SmallFile>,
    /// Which of these are secrets: their values are taken out of what is told of processes.
    pub secrets: Vec<Secret>,
    /// Whether what looks like a credential is taken out of what processes and contexts tell.
    pub scrub_patterns: bool,
    /// As whom whoever does not say it; `user` when empty.
    pub user: String,
    /// Where processes start that do not say it; in the home of their user when empty.
    pub workdir: String,
}

/// A secret that a sandbox has, and where in [`Serve`] its value is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// What stands in its stead.
    pub name: String,
    /// Its place.
    pub place: SecretPlace,
}

/// Where the value of a secret is, by its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretPlace {
    /// One of [`Serve::env`].
    Env(usize),
    /// One of [`Serve::files`].
    File(usize),
}

impl Serve {
    /// The secrets, each by its name with its value.
    pub fn secret_values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let value = |place: SecretPlace| match place {
            SecretPlace::Env(at) => self.env.get(at).map(|(_, value)| value.as_bytes()),
            SecretPlace::File(at) => self.files.get(at).map(|file| &*file.bytes),
        };
        let secrets = self.secrets.iter();
        secrets.filter_map(move |one| Some((&*one.name, value(one.place)?)))
    }
}

/// A file that fits into a frame with others.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallFile {
    /// Absolute path inside the sandbox; missing directories are made.
    pub path: String,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for SmallFile {
    /// Without the bytes, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SmallFile({})", self.path)
    }
}

/// A file to be made inside the sandbox, before the command starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Absolute path inside the sandbox; missing directories are made.
    pub path: String,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// How many bytes follow.
    pub size_bytes: u64,
}

/// How a process of the workload is confined: the last lines of defence, applied by the process
/// itself between `fork` and `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confine {
    /// User id inside the sandbox.
    pub uid: u32,
    /// Group id inside the sandbox.
    pub gid: u32,
    /// Resource limits: (resource number of `setrlimit(2)`, soft and hard value).
    pub rlimits: Vec<(u32, u64)>,
    /// Landlock rules, or none where the kernel has no Landlock and nobody asked for it.
    pub landlock: Option<Landlock>,
    /// A seccomp filter as `struct sock_filter[]` in the machine's byte order.
    pub seccomp: Vec<u8>,
}

/// The paths that Landlock leaves open. Everything else is closed, even to the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    /// Read and execute below these.
    pub read: Vec<String>,
    /// Read, write, make and remove below these.
    pub write: Vec<String>,
    /// Read and write these devices.
    pub devices: Vec<String>,
}

/// The command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Program and arguments; a program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The directory to start in, absolute.
    pub cwd: String,
    /// Whether standard input will be sent; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Wall-clock time until everything gets SIGTERM, in milliseconds of the boot-time clock.
    pub timeout_ms: u64,
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
}

/// What a guest says to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// Answers `Hello`: how far this guest is. Output frames that follow go on from the given offsets.
    Hello {
        /// The guest's [`VERSION`].
        version: u32,
        /// Offset of the next byte of standard output that will be sent.
        stdout: u64,
        /// Offset of the next byte of standard error that will be sent.
        stderr: u64,
        /// The command was started.
        started: bool,
    },
    /// `Confine` was applied to the process that waits for `Start`.
    Confined,
    /// The command runs, or could not be: see `failure`.
    Started {
        /// Why there is no process.
        failure: Option<StartFailure>,
    },
    /// This much of the standard input was taken; the node may send up to [`WINDOW`] beyond it.
    StdinAck {
        /// Bytes from the beginning.
        offset: u64,
    },
    /// The file is there.
    PutDone,
    /// The file could not be made or read: the error number and what was tried.
    FileFailed {
        /// `errno` of the call.
        errno: i32,
        /// Such as `open` or `write`.
        step: String,
    },
    /// The file that was asked for was sent whole.
    GetEnd {
        /// How many bytes were sent.
        size_bytes: u64,
        /// Its permission bits.
        mode: u32,
    },
    /// Everything of the workload is dead and all of its output was sent.
    Exited(Exited),
    /// Answers `Serve`; the connection is closed after it.
    Serving,
}

/// Why a command did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// Which line of the confinement or the start failed.
    pub step: String,
    /// `errno` of the call.
    pub errno: i32,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// The exit code, where the process ended by itself.
    pub code: Option<i32>,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// The timeout was over before it ended.
    pub timed_out: bool,
    /// Processor time of all its processes that were reaped, in milliseconds.
    pub cpu_ms: u64,
    /// The largest resident set of one process, in bytes.
    pub max_rss_bytes: u64,
    /// From start to end, in milliseconds of the boot-time clock.
    pub wall_ms: u64,
    /// Processes that were still alive when the command ended, and were killed.
    pub left_behind: u32,
}

/// A message that cannot be sent or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadMessage {
    /// Longer than [`CONTROL_MAX`] once encoded.
    TooLong(usize),
    /// Not the encoding of a message of this version.
    Malformed,
}

impl std::fmt::Display for BadMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadMessage::TooLong(len) => {
                write!(f, "control message of {len} bytes is over the limit")
            }
            BadMessage::Malformed => write!(f, "control message is malformed"),
        }
    }
}

impl std::error::Error for BadMessage {}

/// Encodes a message as a whole control frame, head included.
///
/// # Errors
/// [`BadMessage::TooLong`] when it is over [`CONTROL_MAX`].
pub fn frame<M: Serialize>(message: &M) -> Result<Vec<u8>, BadMessage> {
    let mut frame = vec![0; wire::HEAD];
    frame = postcard::to_extend(message, frame).map_err(|_| BadMessage::Malformed)?;
    let len = frame.len() - wire::HEAD;
    if len > CONTROL_MAX {
        return Err(BadMessage::TooLong(len));
    }
    for (to, from) in frame.iter_mut().zip(wire::head(wire::Kind::Control, len)) {
        *to = from;
    }
    Ok(frame)
}

/// Decodes the payload of a control frame.
///
/// # Errors
/// [`BadMessage`] when it is too long, not a message, or followed by anything.
pub fn parse<'a, M: Deserialize<'a>>(payload: &'a [u8]) -> Result<M, BadMessage> {
    if payload.len() > CONTROL_MAX {
        return Err(BadMessage::TooLong(payload.len()));
    }
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(BadMessage::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_of_the_proxy_and_to_leave_the_loopback_alone() {
        let all: Vec<_> = egress_env().collect();
        let value = |name: &str| {
            let found = all.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("https_proxy"), Some("http://127.0.0.1:3128"));
        assert_eq!(value("HTTP_PROXY"), value("https_proxy"));
        assert_eq!(value("no_proxy"), Some("localhost,127.0.0.1,::1,0.0.0.0"));
    }

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let said = ToGuest::Get {
            path: "out.svg".to_owned(),
            max_bytes: 7,
        };
        let frame = frame(&said).unwrap();
        assert_eq!(parse::<ToGuest>(&frame[wire::HEAD..]), Ok(said));
    }

    #[test]
    fn a_message_with_a_tail_or_cut_short_is_refused() {
        let mut frame = frame(&ToGuest::StdinEnd).unwrap();
        frame.push(0);
        assert_eq!(
            parse::<ToGuest>(&frame[wire::HEAD..]),
            Err(BadMessage::Malformed)
        );
        assert_eq!(parse::<ToGuest>(&[]), Err(BadMessage::Malformed));
    }
}
