//! Whether a file is the one that the page named. Its last bytes are held back until that is known: a program that was
//! given less than was promised has no package.

use crate::reason::Reason;
use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// The longest file in bytes: the largest packages have some gigabytes, and are not what one installs in a sandbox.
pub(super) const FILE_MAX: u64 = 1 << 30;

/// What the bytes of a file come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
}

/// By which function. SHA-1 is none any more: two files with one can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Sha256,
    Sha384,
    Sha512,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Sha256, Kind::Sha384, Kind::Sha512];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Sha256 => "sha256",
            Kind::Sha384 => "sha384",
            Kind::Sha512 => "sha512",
        }
    }

    fn length(self) -> usize {
        match self {
            Kind::Sha256 => 32,
            Kind::Sha384 => 48,
            Kind::Sha512 => 64,
        }
    }
}

impl Digest {
    /// One of this kind, if it has the right length.
    pub(super) fn new(kind: &str, bytes: Vec<u8>) -> Option<Digest> {
        let mut all = Kind::ALL.into_iter();
        let kind = all.find(|one| one.as_str() == kind)?;
        (bytes.len() == kind.length()).then_some(Digest { kind, bytes })
    }

    /// The same in digits.
    pub(super) fn of_hex(kind: &str, digits: &str) -> Option<Digest> {
        let pair = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).ok()?;
            let is_hex = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
            u8::from_str_radix(text, 16).ok().filter(|_| is_hex)
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(pair).collect();
        Digest::new(kind, bytes?)
    }

    pub(super) fn hex(&self) -> String {
        let digits = self.bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.collect()
    }
}

#[derive(Debug)]
enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

/// What looks at a file while it passes.
#[derive(Debug)]
pub(crate) struct Check {
    expected: Vec<u8>,
    hasher: Hasher,
    left: u64,
    held: Option<Bytes>,
    /// Nothing comes any more.
    pub(crate) is_over: bool,
}

impl Check {
    pub(super) fn new(digest: &Digest) -> Check {
        Check {
            expected: digest.bytes.clone(),
            hasher: match digest.kind {
                Kind::Sha256 => Hasher::Sha256(Sha256::new()),
                Kind::Sha384 => Hasher::Sha384(Sha384::new()),
                Kind::Sha512 => Hasher::Sha512(Sha512::new()),
            },
            left: FILE_MAX,
            held: None,
            is_over: false,
        }
    }

    /// Takes bytes, and gives those before them.
    pub(crate) fn feed(&mut self, bytes: Bytes) -> Result<Option<Bytes>, Reason> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(Reason::IndexFailed)?;
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(&bytes),
            Hasher::Sha384(hasher) => hasher.update(&bytes),
            Hasher::Sha512(hasher) => hasher.update(&bytes),
        }
        Ok(self.held.replace(bytes))
    }

    /// The last of them, if it was the file.
    pub(crate) fn finish(&mut self) -> Result<Option<Bytes>, Reason> {
        self.is_over = true;
        let found = match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.finalize_reset().to_vec(),
            Hasher::Sha384(hasher) => hasher.finalize_reset().to_vec(),
            Hasher::Sha512(hasher) => hasher.finalize_reset().to_vec(),
        };
        if found == self.expected {
            Ok(self.held.take())
        } else {
            Err(Reason::WrongDigest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: a file that is another one than its page says, by its last byte.
    #[test]
    fn the_last_bytes_come_only_when_the_file_is_the_right_one() {
        let digest = |text: &[u8]| Digest::new("sha256", Sha256::digest(text).to_vec()).unwrap();
        let told = |expected: &Digest| {
            let mut check = Check::new(expected);
            let mut all = Vec::new();
            for part in ["ab", "", "cd", "e"] {
                all.extend(check.feed(part.into()).unwrap());
            }
            assert_eq!(all.concat(), b"abcd");
            check.finish()
        };
        assert_eq!(told(&digest(b"abcde")), Ok(Some("e".into())));
        assert_eq!(told(&digest(b"abcdf")), Err(Reason::WrongDigest));
        assert_eq!(
            Digest::of_hex("sha256", &digest(b"a").hex()),
            Some(digest(b"a"))
        );
        for (kind, digits) in [
            ("sha1", "00"),
            ("sha256", "00"),
            ("md5", ""),
            ("sha256", "+f"),
        ] {
            assert_eq!(Digest::of_hex(kind, digits), None);
        }
    }
}
