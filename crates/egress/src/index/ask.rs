//! What a path of an index asks for. Strict: what has two meanings has none.

use super::plain;
use model::dependency::{Ecosystem, npm, pip};
use std::fmt;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The names that there are, of a simple index.
    All,
    /// What there is of a package, by its name in its one form.
    Page(String),
    /// A file of it.
    File {
        /// Of the package.
        name: String,
        /// In its one form.
        version: String,
        /// As the page has it.
        file: String,
    },
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::All => f.write_str("all names"),
            Asked::Page(name) => f.write_str(name),
            Asked::File { name, version, .. } => write!(f, "{name}=={version}"),
        }
    }
}

/// Reads a path, which is compared as it is decoded once.
pub(super) fn read(ecosystem: Ecosystem, path: &str) -> Option<Asked> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    match ecosystem {
        Ecosystem::Pip => simple(&parts),
        Ecosystem::Npm => registry(&parts),
    }
}

fn simple(parts: &[&str]) -> Option<Asked> {
    match parts {
        ["simple"] | ["simple", ""] => Some(Asked::All),
        ["simple", name] | ["simple", name, ""] => pip::name(&decoded(name)?).map(Asked::Page),
        ["files", name, file] => {
            let (name, file) = (pip::name(&decoded(name)?)?, decoded(file)?);
            let version = plain(&pip::version_of_file(&name, &file)?);
            Some(Asked::File {
                name,
                version,
                file,
            })
        }
        _ => None,
    }
}

/// A scope stands before its name as a part of its own, or with the slash encoded.
fn registry(parts: &[&str]) -> Option<Asked> {
    let (name, rest) = match parts {
        [scope, name, rest @ ..] if scope.starts_with('@') && !scope.contains('%') => {
            (format!("{scope}/{name}"), rest)
        }
        [name, rest @ ..] => (decoded(name)?, rest),
        [] => return None,
    };
    let name = npm::name(&name)?;
    match rest {
        [] => Some(Asked::Page(name)),
        ["-", file] => {
            let file = decoded(file)?;
            let version = npm::version_of_file(&name, &file)?;
            Some(Asked::File {
                name,
                version,
                file,
            })
        }
        _ => None,
    }
}

/// What is percent-encoded in it, decoded: only signs that names, versions and files have.
fn decoded(part: &str) -> Option<String> {
    let mut text = String::with_capacity(part.len());
    let mut rest = part;
    while let Some((plain, code)) = rest.split_once('%') {
        text.push_str(plain);
        text.push(match code.get(..2)? {
            "2B" | "2b" => '+',
            "21" => '!',
            "40" => '@',
            "2F" | "2f" => '/',
            "2D" | "2d" => '-',
            "5F" | "5f" => '_',
            "7E" | "7e" => '~',
            _ => return None,
        });
        rest = code.get(2..)?;
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Attack: a path that means another package or another version to whoever reads it next.
    #[test]
    fn a_path_asks_for_one_thing_or_for_none() {
        let said = |ecosystem, path: &str| match read(ecosystem, path) {
            None => "none".to_owned(),
            Some(Asked::File {
                name,
                version,
                file,
            }) => format!("{name} {version} {file}"),
            Some(other) => other.to_string(),
        };
        for (path, expect) in [
            ("/simple/", "all names"),
            ("/simple/Req_uests/", "req-uests"),
            ("/simple/req.uests", "req-uests"),
            ("/files/six/six-1.0.0.tar.gz", "six 1 six-1.0.0.tar.gz"),
            (
                "/files/six/six-1.0%2Blocal.tar.gz",
                "six 1+local six-1.0+local.tar.gz",
            ),
            ("/files/six/evil-1.0.0.tar.gz", "none"),
            ("/files/six/..%2Fevil-1.0.tar.gz", "none"),
            ("/files/six/../evil-1.0.tar.gz", "none"),
            ("/simple/../six/", "none"),
            ("/simple/%2e%2e/", "none"),
            ("/simple/six%2Fevil/", "none"),
            ("/simple/six/evil/", "none"),
            ("//simple/six/", "none"),
            ("/simple/six\\evil/", "none"),
            ("/pypi/six/json", "none"),
            ("/", "none"),
            ("", "none"),
        ] {
            assert_eq!(said(Ecosystem::Pip, path), expect, "{path}");
        }
        for (path, expect) in [
            ("/lodash", "lodash"),
            ("/@types%2fnode", "@types/node"),
            ("/%40types%2Fnode", "@types/node"),
            ("/@types/node", "@types/node"),
            (
                "/@types/node/-/node-1.0.0.tgz",
                "@types/node 1.0.0 node-1.0.0.tgz",
            ),
            (
                "/@types%2fnode/-/node-1.0.0.tgz",
                "@types/node 1.0.0 node-1.0.0.tgz",
            ),
            (
                "/lodash/-/lodash-4.17.21.tgz",
                "lodash 4.17.21 lodash-4.17.21.tgz",
            ),
            ("/lodash/-/evil-4.17.21.tgz", "none"),
            ("/lodash/4.17.21", "none"),
            ("/-/npm/v1/security/audits/quick", "none"),
            ("/-/all", "none"),
            ("/lodash/-/../evil", "none"),
            ("/lodash%2f..%2fevil", "none"),
            ("/lodash%252fevil", "none"),
            ("/", "none"),
        ] {
            assert_eq!(said(Ecosystem::Npm, path), expect, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_does_harm(path in "/?[a-z@%/.0-9+-]{0,40}") {
            for ecosystem in Ecosystem::ALL {
                if let Some(Asked::File { file, .. }) = read(ecosystem, &path) {
                    prop_assert!(!file.contains(['/', '%', '\\']));
                }
            }
        }
    }
}
