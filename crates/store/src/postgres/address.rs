//! Where a PostgreSQL is, and whether what goes there is encrypted.
//!
//! There are two ways and nothing between them: in the clear, which is for this machine, or TLS in which the name of
//! the host and who signed for it are checked (`verify-full` of libpq). What is asked for with less, such as
//! `sslmode=require`, gets that too.

use super::tls::{BadAuthority, Tls};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// How long to wait for a connection when the address does not say.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// A database that does not answer at all is given up as a link is (15 s, then 10 s), whatever TCP believes.
const SILENT: Duration = Duration::from_secs(15);
const GIVEN_UP: Duration = Duration::from_secs(25);

/// An address that is none, or that asks for what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    /// It cannot be read.
    #[error("read the address of the database")]
    Unreadable(#[source] postgres::Error),
    /// `sslmode` says what is not known.
    #[error(
        "use the address of the database: `sslmode` is disable, prefer, require or verify-full"
    )]
    Mode,
    /// Both an authority and no encryption are asked for.
    #[error("use the address of the database: `sslrootcert` is there, and `sslmode=disable` too")]
    Both,
    /// Over a Unix socket there is no TLS.
    #[error("use TLS over the Unix socket of the database; there is none, and none is needed")]
    Socket,
    /// Whom to believe cannot be read.
    #[error("use whom the address of the database wants to believe")]
    Authority(#[source] BadAuthority),
}

/// An address that was understood.
#[derive(Clone)]
pub(crate) struct Address {
    pub(super) config: Config,
    pub(super) tls: Option<Tls>,
    /// All hosts are this machine.
    pub(crate) is_local: bool,
}

impl Address {
    /// Whether what goes there is encrypted, and the other end checked.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads a URL or words as `host=... user=...`; and the file with the authorities, if one is named.
    pub(crate) fn of(text: &str) -> Result<Address, BadAddress> {
        let (rest, asked) = asked(text);
        let mut config: Config = rest.parse().map_err(BadAddress::Unreadable)?;
        let is_local = is_local(&config);
        let is_wanted = match asked.mode.as_deref() {
            Some("disable") if asked.roots.is_some() => return Err(BadAddress::Both),
            Some("disable") => false,
            // Whoever names an authority wants it asked.
            None | Some("allow" | "prefer") => !is_local || asked.roots.is_some(),
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) => return Err(BadAddress::Mode),
        };
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        if is_wanted && config.get_hosts().iter().any(is_socket) {
            return Err(BadAddress::Socket);
        }
        let roots = asked.roots.filter(|roots| roots != "system");
        let tls = is_wanted.then(|| Tls::believing(roots.map(PathBuf::from).as_deref()));
        let tls = tls.transpose().map_err(BadAddress::Authority)?;
        config.ssl_mode(if is_wanted {
            SslMode::Require
        } else {
            SslMode::Disable
        });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        config.keepalives_idle(SILENT).tcp_user_timeout(GIVEN_UP);
        // A standby that was not made the first yet is as good as a server that is not there.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(Address {
            config,
            tls,
            is_local,
        })
    }
}

fn is_local(config: &Config) -> bool {
    let by_name = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    });
    // These are dialled instead, where they are given.
    by_name && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// What the client of PostgreSQL does not know, or means more weakly than we do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    mode: Option<String>,
    roots: Option<String>,
}

impl Asked {
    /// Takes a pair that is ours.
    fn take(&mut self, key: &str, value: &str) -> bool {
        let place = match key {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.roots,
            _ => return false,
        };
        *place = Some(value.to_owned());
        true
    }
}

/// Takes the pairs that are ours out of an address.
fn asked(text: &str) -> (String, Asked) {
    let mut asked = Asked::default();
    if !text.contains("://") {
        return (in_words(text, &mut asked), asked);
    }
    let Some((before, query)) = text.split_once('?') else {
        return (text.to_owned(), asked);
    };
    let others = query.split('&').filter(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        !asked.take(key, &decoded(value))
    });
    let others: Vec<&str> = others.collect();
    let rest = match others.is_empty() {
        true => before.to_owned(),
        false => format!("{before}?{}", others.join("&")),
    };
    (rest, asked)
}

/// The same for words: a value may stand in quotes, in which and outside of which a backslash takes what follows as
/// it is. What cannot be read is left to the client of PostgreSQL, which says so.
fn in_words(text: &str, asked: &mut Asked) -> String {
    let mut rest = String::new();
    let mut left = text;
    loop {
        let trimmed = left.trim_start();
        let Some((key, after)) = trimmed.split_once('=') else {
            return rest + trimmed;
        };
        let Some((value, next)) = value_of(after.trim_start()) else {
            return rest + trimmed;
        };
        let whole = trimmed.len() - next.len();
        if !asked.take(key.trim(), &value) {
            rest.push_str(trimmed.get(..whole).unwrap_or_default());
            rest.push(' ');
        }
        left = next;
    }
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.push(letters.next()?.1),
            '\'' if quoted => return Some((value, body.get(at + 1..)?)),
            _ if !quoted && letter.is_whitespace() => return Some((value, body.get(at..)?)),
            _ => value.push(letter),
        }
    }
    (!quoted).then_some((value, ""))
}

/// `%2F` is `/`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_local_by_its_socket_or_by_loopback() {
        for (url, expect) in [
            ("host=/run/postgresql user=a", true),
            ("postgres://a@127.0.0.1/b", true),
            ("postgres://a@localhost:5433/b", true),
            ("host=::1", true),
            ("postgres://a@db.example/b?sslmode=disable", false),
            ("host=/run,db.example sslmode=disable", false),
            ("host=localhost hostaddr=10.0.0.1 sslmode=disable", false),
        ] {
            assert_eq!(Address::of(url).unwrap().is_local, expect, "{url}");
        }
        assert!(Address::of("what is this").is_err());
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_somebody_says_not() {
        let dir = tempfile::tempdir().unwrap();
        let pem = dir.path().join("a b.pem");
        std::fs::write(&pem, include_str!("../../tests/authority.pem")).unwrap();
        let pem = pem.display().to_string();
        let (quoted, coded) = (format!("'{pem}'"), pem.replace(' ', "%20"));
        for (text, expect) in [
            (format!("host=db.example sslrootcert={quoted}"), true),
            (
                format!("host=db.example sslmode=prefer sslrootcert = {quoted}"),
                true,
            ),
            (format!("postgres://db.example/a?sslrootcert={coded}"), true),
            (
                format!("postgres://localhost/a?sslmode=require&sslrootcert={coded}"),
                true,
            ),
            (format!("host=localhost sslrootcert={quoted} user=a"), true),
            ("host=db.example sslmode=disable".to_owned(), false),
            ("host=localhost".to_owned(), false),
            ("host=/run sslmode=prefer".to_owned(), false),
        ] {
            assert_eq!(Address::of(&text).unwrap().is_encrypted(), expect, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_as_it_is_asked_for_is_refused() {
        let refused = |text: &str| Address::of(text).err().unwrap();
        assert!(matches!(
            refused("host=localhost sslmode=full"),
            BadAddress::Mode
        ));
        assert!(matches!(
            refused("host=db.example sslmode=disable sslrootcert=/a"),
            BadAddress::Both
        ));
        assert!(matches!(
            refused("host=/run sslmode=require"),
            BadAddress::Socket
        ));
        assert!(matches!(
            refused("host=db.example sslrootcert=/not/there"),
            BadAddress::Authority(BadAuthority::Unreadable(..))
        ));
        assert!(matches!(
            refused("host=db.example sslrootcert=/dev/null"),
            BadAddress::Authority(BadAuthority::None(..))
        ));
        assert!(matches!(refused("host='open"), BadAddress::Unreadable(_)));
    }

    #[test]
    fn pairs_of_ours_are_taken_out_and_all_others_stay_as_they_were() {
        for (text, rest, mode) in [
            (
                "host=a  sslmode = verify-full user=b",
                "host=a user=b ",
                Some("verify-full"),
            ),
            (
                r"password='it\'s sslmode=disable' host=a",
                r"password='it\'s sslmode=disable' host=a ",
                None,
            ),
            (
                "postgres://u@h/d?a=b&sslmode=require&c=d",
                "postgres://u@h/d?a=b&c=d",
                Some("require"),
            ),
            (
                "postgres://u@h/d?sslmode=require",
                "postgres://u@h/d",
                Some("require"),
            ),
            (
                "postgres://u:sslmode=x@h/d",
                "postgres://u:sslmode=x@h/d",
                None,
            ),
        ] {
            let found = asked(text);
            assert_eq!(
                (found.0.as_str(), found.1.mode.as_deref()),
                (rest, mode),
                "{text}"
            );
        }
    }
}
