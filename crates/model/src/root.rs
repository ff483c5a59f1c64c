//! What a root file system is called that an operator has given to a node.

use crate::limits::ROOT_NAME_BYTES_MAX;
use std::fmt;
use std::str::FromStr;

/// The name of a root file system, such as `ubuntu:22.04`. It never begins as a path does, so that one field
/// can have either.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootName(String);

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name of a root file system is 1 to {ROOT_NAME_BYTES_MAX} of letters, digits and `._:/-`, and begins \
     and ends with a letter or a digit"
)]
pub struct NotARootName;

impl FromStr for RootName {
    type Err = NotARootName;

    fn from_str(text: &str) -> Result<RootName, NotARootName> {
        let ends = [text.bytes().next(), text.bytes().last()];
        let ends_fit = ends.iter().flatten().all(u8::is_ascii_alphanumeric);
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._:/-".contains(&b);
        if text.is_empty()
            || text.len() > ROOT_NAME_BYTES_MAX
            || !ends_fit
            || !text.bytes().all(fits)
        {
            return Err(NotARootName);
        }
        Ok(RootName(text.to_owned()))
    }
}

impl RootName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RootName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Before the name of a root in the facts that a node says about itself; the fact is the root's identity.
pub const FACT: &str = "root:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_images_and_never_paths_or_options() {
        let long = "x".repeat(ROOT_NAME_BYTES_MAX + 1);
        for good in [
            "a",
            "ubuntu:22.04",
            "library/python:3.11-slim",
            "Base_".trim_end_matches('_'),
        ] {
            assert_eq!(good.parse::<RootName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/srv/root",
            "./x",
            "../x",
            "-x",
            "x/",
            "a b",
            "a=b",
            "ä",
            "a\n",
            &long,
        ] {
            assert_eq!(bad.parse::<RootName>(), Err(NotARootName), "{bad}");
        }
    }
}
