//! What the instructions of a recipe are as commands. Pure.
//!
//! What somebody wrote comes in as arguments, not as text of a script, so that a name with a quote in it is a
//! name. Values of variables are the exception: a shell is to read them, as in a Dockerfile.

use super::shell::Command;
use service::Settled;
use std::collections::BTreeMap;

/// The users that every sandbox has.
const USERS: [(&str, &str); 2] = [("user", "1000"), ("root", "0")];

/// A command of the recipe.
pub(super) fn run(command: &str, user: Option<&str>, settled: &Settled) -> Command {
    let user = user.or(settled.user.as_deref());
    Command {
        script: command.to_owned(),
        user: user.unwrap_or_default().to_owned(),
        workdir: settled.workdir.clone(),
        env: settled.env.clone(),
        ..Command::default()
    }
}

/// Whether a shell has to read a value to know what it is.
pub(super) fn has_to_be_read(value: &str) -> bool {
    value.contains(['$', '`', '\\'])
}

/// Prints what a shell makes of a value.
pub(super) fn read_value(value: &str, settled: &Settled) -> Command {
    let mut quoted = value.replace('"', "\\\"");
    // A backslash at the end would take the quote behind it for its own.
    if quoted.ends_with('\\') {
        quoted.push('\\');
    }
    Command {
        script: format!("printf '%s' \"{quoted}\""),
        ..run("", None, settled)
    }
}

/// Lets login shells keep a path that the recipe has set: many systems set theirs anew.
pub(super) fn keep_path(path: &str) -> Command {
    Command {
        script: PATH_SCRIPT.to_owned(),
        arguments: vec![path.to_owned()],
        ..as_root(&BTreeMap::new())
    }
}

const PATH_SCRIPT: &str = r#"set -e
mkdir -p /etc/profile.d
printf 'export PATH=%q\n' "$1" > /etc/profile.d/zz-recipe-path.sh"#;

fn as_root(env: &BTreeMap<String, String>) -> Command {
    Command {
        user: "root".to_owned(),
        workdir: Some("/".to_owned()),
        env: env.clone(),
        ..Command::default()
    }
}

/// Makes a working directory with those above it, for the user, and prints where it is.
pub(super) fn workdir(path: &str, settled: &Settled) -> Command {
    let base = settled.workdir.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", base.trim_end_matches('/'))
    };
    let user = settled.user.clone().unwrap_or_else(|| "user".to_owned());
    Command {
        script: WORKDIR_SCRIPT.to_owned(),
        arguments: vec![path, user],
        ..as_root(&settled.env)
    }
}

/// What is new becomes the user's, and what was there stays whose it is.
const WORKDIR_SCRIPT: &str = r#"set -e
new=
at=$1
while [ ! -d "$at" ]; do
    new=$at
    at=$(dirname -- "$at")
done
mkdir -p -- "$1"
[ -z "$new" ] || chown -R -- "$2:$2" "$new"
cd -- "$1"
pwd"#;

/// The user that an instruction names, as a sandbox calls it. Whether there is one, its guest knows.
///
/// # Errors
/// A text for a person, for what can be nobody's name.
pub(super) fn user(name: &str) -> Result<&str, String> {
    let found = USERS
        .iter()
        .find(|(user, uid)| name == *user || name == *uid);
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let is_name = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(plain);
    match found {
        Some((user, _)) => Ok(user),
        None if is_name => Ok(name),
        None => {
            let shown: String = name.chars().take(64).collect();
            Err(format!("'{shown}' is no name of a user"))
        }
    }
}

/// Does nothing, as a user who has to be there.
pub(super) fn be(user: &str) -> Command {
    Command {
        script: ":".to_owned(),
        user: user.to_owned(),
        ..as_root(&BTreeMap::new())
    }
}

/// Files of an archive come in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy<'a> {
    pub(super) source: &'a str,
    pub(super) target: &'a str,
    pub(super) owner: Option<&'a str>,
    pub(super) mode: Option<&'a str>,
}

/// Where an archive is while it is unpacked.
pub(super) fn desk(number: usize) -> String {
    format!("/var/tmp/.cofferdam-build-{number}")
}

/// Unpacks the archive that lies in a directory of its own, and moves what is meant to where it belongs.
pub(super) fn copy(copy: Copy<'_>, number: usize, settled: &Settled) -> Command {
    let user = settled.user.as_deref().unwrap_or("user");
    let owner = match copy.owner {
        Some(owner) if owner.contains(':') => owner.to_owned(),
        owner => {
            let owner = owner.unwrap_or(user);
            format!("{owner}:{owner}")
        }
    };
    let home = match user {
        "root" => "/root".to_owned(),
        user => format!("/home/{user}"),
    };
    let from = settled.workdir.as_deref().unwrap_or(&home);
    let target = if copy.target.starts_with('/') {
        copy.target.to_owned()
    } else {
        format!("{}/{}", from.trim_end_matches('/'), copy.target)
    };
    let source = without_pattern(copy.source);
    let mode = copy.mode.unwrap_or_default().to_owned();
    Command {
        script: COPY_SCRIPT.to_owned(),
        arguments: vec![desk(number), source, target, owner, mode],
        ..as_root(&settled.env)
    }
}

/// The archive has only what a pattern matched, so that what is meant is all below the directory that it begins
/// with.
fn without_pattern(source: &str) -> String {
    let is_pattern = |part: &str| part.contains(['*', '?', '[', '{', '\\']);
    let parts = source
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    let plain: Vec<&str> = parts.take_while(|part| !is_pattern(part)).collect();
    if plain.is_empty() {
        ".".to_owned()
    } else {
        plain.join("/")
    }
}

/// A file or a link gets the name of the target, or its own name in it if that is a directory. What is in a
/// directory is laid over what is in the target: directories that are there stay as they are, also where a link
/// leads to them, and files are replaced.
const COPY_SCRIPT: &str = r#"set -eo pipefail
desk=$1 source=$2 target=$3 owner=$4 mode=$5
trap 'chmod -R u+rwX -- "$desk" 2>/dev/null; rm -rf -- "$desk"' EXIT
mkdir -p -- "$desk/in"
tar -x -f "$desk/files" -C "$desk/in" --no-same-owner
rm -f -- "$desk/files"
from=$desk/in/$source
if [ ! -e "$from" ] && [ ! -L "$from" ]; then
    echo "'$source' is not among the files that were sent" >&2
    exit 1
fi
chown -R -h -- "$owner" "$from"
if [ -n "$mode" ] && [ ! -L "$from" ]; then
    chmod -R -- "$mode" "$from"
fi
if [ -d "$from" ] && [ ! -L "$from" ]; then
    if [ ! -d "$target" ]; then
        mkdir -p -- "$target"
        chown -- "$owner" "$target"
    fi
    tar -c -f - -C "$from" . | tar -x -f - -C "$target" --no-overwrite-dir --keep-directory-symlink
    exit
fi
case $target in
*/) mkdir -p -- "$target" ;;
*) mkdir -p -- "$(dirname -- "$target")" ;;
esac
mv -f -- "$from" "$target""#;

#[cfg(test)]
mod tests {
    use super::*;

    fn settled() -> Settled {
        Settled {
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            user: None,
            workdir: None,
        }
    }

    #[test]
    fn a_command_runs_as_whom_and_where_was_said_last() {
        let plain = run("ls", None, &settled());
        assert_eq!((plain.user.as_str(), plain.workdir), ("", None));
        let later = Settled {
            user: Some("root".to_owned()),
            workdir: Some("/app".to_owned()),
            ..settled()
        };
        let as_root = run("ls", None, &later);
        assert_eq!(
            (as_root.user.as_str(), as_root.env["A"].as_str()),
            ("root", "b")
        );
        assert_eq!(as_root.workdir.as_deref(), Some("/app"));
        assert_eq!(run("ls", Some("user"), &later).user, "user");
    }

    #[test]
    fn a_value_is_read_by_a_shell_only_where_it_has_something_to_read() {
        assert!(!has_to_be_read("it's \"plain\"; rm -rf /"));
        assert!(has_to_be_read("${PATH}:/x") && has_to_be_read("`id`") && has_to_be_read("a\\"));
        let script = read_value("a\"$B\"\\", &settled()).script;
        assert_eq!(script, r#"printf '%s' "a\"$B\"\\""#);
    }

    #[test]
    fn a_directory_is_relative_to_the_last_one() {
        let path = |path: &str, settled: &Settled| workdir(path, settled).arguments[0].clone();
        assert_eq!(path("app", &settled()), "/app");
        let later = Settled {
            workdir: Some("/a/".to_owned()),
            ..settled()
        };
        assert_eq!(
            (path("b", &later), path("/c", &later)),
            ("/a/b".to_owned(), "/c".to_owned())
        );
    }

    #[test]
    fn only_what_can_be_a_user_is_taken() {
        assert_eq!((user("user"), user("root")), (Ok("user"), Ok("root")));
        assert_eq!((user("1000"), user("0")), (Ok("user"), Ok("root")));
        assert_eq!(user("node"), Ok("node"));
        let long = "x".repeat(33);
        for wrong in ["; exit 1", "", "1001", "-x", "a b", "../x", "ö", &long] {
            assert!(user(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_copy_goes_where_it_was_said_from_where_the_pattern_begins() {
        let arguments = |source: &str, target: &str, owner: Option<&str>, settled: &Settled| {
            let what = Copy {
                source,
                target,
                owner,
                mode: None,
            };
            copy(what, 3, settled).arguments[1..4].join(" ")
        };
        let plain = settled();
        assert_eq!(
            arguments("folder/*", "f", None, &plain),
            "folder /home/user/f user:user"
        );
        assert_eq!(arguments("*.txt", "/f/", None, &plain), ". /f/ user:user");
        assert_eq!(
            arguments("./a/b.txt", "f", Some("root"), &plain),
            "a/b.txt /home/user/f root:root"
        );
        assert_eq!(
            arguments("a/**/x", "f", Some("a:b"), &plain),
            "a /home/user/f a:b"
        );
        let root = Settled {
            user: Some("root".to_owned()),
            ..settled()
        };
        assert_eq!(arguments("a", "f", None, &root), "a /root/f root:root");
        let there = Settled {
            workdir: Some("/app".to_owned()),
            ..settled()
        };
        assert_eq!(arguments("a", ".", None, &there), "a /app/. user:user");
    }
}
