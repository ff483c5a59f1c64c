//! What `sudo` inside a sandbox and the guest say to each other: one message each per datagram of a
//! `SOCK_SEQPACKET` socket.

use serde::{Deserialize, Serialize};

/// Where the guest listens. It binds the name before there is a workload, in a directory of root's.
pub const SOCKET: &str = "/run/sudo.sock";

/// The longest message in bytes. A command line and its environment are a few KiB; the kernel takes more for
/// an `exec`, and with less than twice this in a socket's buffer it would not be sent (`socket(7)`).
pub const MESSAGE_MAX: usize = 96 * 1024;

/// What is asked for, with the three standard streams as descriptors. It is started as the sandbox's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Program, with a path, and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The directory to start in, absolute.
    pub cwd: String,
}

/// What follows from who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// Send this signal to its process group.
    Signal(i32),
}

/// How it ended; the only answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was not started: which line failed, and `errno` of the call.
    NotStarted {
        /// Such as `exec`.
        step: String,
        /// `errno`.
        errno: i32,
    },
    /// It is not for whoever asked, or what was said is nothing that can be asked.
    Refused,
}

/// Encodes a message; `None` when it would be over [`MESSAGE_MAX`].
pub fn encode<M: Serialize>(message: &M) -> Option<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).ok()?;
    (bytes.len() <= MESSAGE_MAX).then_some(bytes)
}

/// Decodes one datagram; `None` when it is no message.
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
    fn a_message_reads_back_and_one_cut_short_or_with_a_tail_is_none() {
        let asked = Ask {
            argv: vec!["id".to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            cwd: "/".to_owned(),
        };
        let mut bytes = encode(&asked).unwrap();
        assert_eq!(decode(&bytes), Some(asked));
        assert_eq!(decode::<Ask>(&bytes[..bytes.len() - 1]), None);
        bytes.push(0);
        assert_eq!(decode::<Ask>(&bytes), None);
    }
}
