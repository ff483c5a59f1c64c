//! Names, versions and files of Python packages, as PEP 503, PEP 440, PEP 427 and PEP 625 have them.

use std::fmt;
use std::str::FromStr;

/// A name in its one form (PEP 503): lower case, and one `-` for each run of `-`, `_` and `.`. `None` for what is none
/// (PEP 508).
pub fn name(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let is_name = bytes.len() <= crate::limits::PACKAGE_BYTES_MAX
        && bytes.iter().copied().all(plain)
        && ends(bytes.first())
        && ends(bytes.last());
    if !is_name {
        return None;
    }
    let parts = text.split(['-', '_', '.']).filter(|part| !part.is_empty());
    let name = parts.collect::<Vec<_>>().join("-");
    Some(name.to_ascii_lowercase())
}

/// A version by PEP 440. Two that are equal there are equal here: `1.0` and `v1.0.0`, and neither is `1.0+local` or
/// `1!1.0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    epoch: u64,
    /// Without zeros at its end.
    release: Vec<u64>,
    /// `a`, `b` or `rc`, with its number.
    pre: Option<(&'static str, u64)>,
    post: Option<u64>,
    dev: Option<u64>,
    /// Parts of the local version, numbers without zeros in front.
    local: Vec<String>,
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read a version as PEP 440 has it")]
pub struct NotAVersion;

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch > 0 {
            write!(f, "{}!", self.epoch)?;
        }
        let numbers: Vec<String> = self.release.iter().map(ToString::to_string).collect();
        // A release of zeros alone is written as one.
        f.write_str(if numbers.is_empty() { "0" } else { "" })?;
        f.write_str(&numbers.join("."))?;
        if let Some((letter, number)) = self.pre {
            write!(f, "{letter}{number}")?;
        }
        if let Some(number) = self.post {
            write!(f, ".post{number}")?;
        }
        if let Some(number) = self.dev {
            write!(f, ".dev{number}")?;
        }
        if !self.local.is_empty() {
            write!(f, "+{}", self.local.join("."))?;
        }
        Ok(())
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Version, NotAVersion> {
        let text = text.to_ascii_lowercase();
        let is_long = text.len() > crate::limits::PACKAGE_BYTES_MAX;
        let mut rest = Rest(text.strip_prefix('v').unwrap_or(&text));
        let version = rest.version().filter(|_| !is_long && rest.0.is_empty());
        version.ok_or(NotAVersion)
    }
}

/// What is still to be read of a version.
struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn version(&mut self) -> Option<Version> {
        let mut epoch = 0;
        if let Some((before, after)) = self.0.split_once('!') {
            epoch = digits(before)?;
            self.0 = after;
        }
        let mut release = vec![self.number()?];
        while let Some(number) = self.tried(|rest| {
            rest.takes(".")?;
            rest.number()
        }) {
            release.push(number);
        }
        while release.last() == Some(&0) {
            release.pop();
        }
        Some(Version {
            epoch,
            release,
            pre: self.tried(Rest::pre),
            post: self.tried(Rest::post),
            dev: self.tried(Rest::dev),
            local: self.local()?,
        })
    }

    /// Reads a part, or leaves all as it is.
    fn tried<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.0;
        let read = read(self);
        if read.is_none() {
            self.0 = before;
        }
        read
    }

    fn takes(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn separator(&mut self) {
        self.0 = self.0.strip_prefix(['-', '_', '.']).unwrap_or(self.0);
    }

    fn number(&mut self) -> Option<u64> {
        let end = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.0.split_at(end);
        self.0 = rest;
        digits(number)
    }

    /// One of these words, with its number; without one it is 0.
    fn word(&mut self, words: &[(&str, &'static str)]) -> Option<(&'static str, u64)> {
        self.separator();
        let (word, short) = words.iter().find(|(word, _)| self.0.starts_with(word))?;
        self.takes(word)?;
        let number = self.tried(|rest| {
            rest.separator();
            rest.number()
        });
        Some((*short, number.unwrap_or(0)))
    }

    fn pre(&mut self) -> Option<(&'static str, u64)> {
        self.word(&[
            ("alpha", "a"),
            ("a", "a"),
            ("beta", "b"),
            ("b", "b"),
            ("preview", "rc"),
            ("pre", "rc"),
            ("c", "rc"),
            ("rc", "rc"),
        ])
    }

    fn post(&mut self) -> Option<u64> {
        let bare = self.tried(|rest| {
            rest.takes("-")?;
            rest.number()
        });
        bare.or_else(|| {
            let words = [("post", ""), ("rev", ""), ("r", "")];
            self.word(&words).map(|(_, number)| number)
        })
    }

    fn dev(&mut self) -> Option<u64> {
        self.word(&[("dev", "")]).map(|(_, number)| number)
    }

    /// Everything after a `+`; `None` where that is no local version.
    fn local(&mut self) -> Option<Vec<String>> {
        let Some(local) = self.0.strip_prefix('+') else {
            return Some(Vec::new());
        };
        self.0 = "";
        let part = |part: &str| {
            let is_plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
            let is_number = part.bytes().all(|b| b.is_ascii_digit());
            is_plain.then(|| match is_number {
                true => digits(part).map(|number| number.to_string()),
                false => Some(part.to_owned()),
            })?
        };
        local.split(['-', '_', '.']).map(part).collect()
    }
}

/// A number without a sign, which some parsers would take.
fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The version that a file of the package with this name (in its one form) is of; `None` where it is none that is
/// installed, or of another package. Wheels and source archives alone: what else there is runs installers of its own.
pub fn version_of_file(package: &str, file: &str) -> Option<Version> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+!".contains(&b);
    if file.len() > crate::limits::PACKAGE_BYTES_MAX || !file.bytes().all(plain) {
        return None;
    }
    if let Some(wheel) = file.strip_suffix(".whl") {
        let parts: Vec<&str> = wheel.split('-').collect();
        let (own, version) = match parts.as_slice() {
            [own, version, _, _, _] => (own, version),
            // A build number begins with a digit.
            [own, version, build, _, _, _] if build.starts_with(|c: char| c.is_ascii_digit()) => {
                (own, version)
            }
            _ => return None,
        };
        let is_its = name(own).as_deref() == Some(package);
        return version.parse().ok().filter(|_| is_its);
    }
    let stem = file
        .strip_suffix(".tar.gz")
        .or_else(|| file.strip_suffix(".zip"))?;
    // Names and versions may have dashes, so the name is what says where it ends.
    let mut ends = stem.match_indices('-').map(|(at, _)| stem.split_at(at));
    let (_, version) = ends.find(|(own, _)| name(own).as_deref() == Some(package))?;
    version.strip_prefix('-')?.parse().ok()
}
