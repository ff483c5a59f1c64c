//! Who asks, and what that means inside.

use super::failure::{Code, Failure};
use super::passwd;
use crate::confine::Who;
use crate::process;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use guest::message::Serve;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use rustix::fs::{self, Gid, Uid};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// Whoever names nobody, where the sandbox has no other default.
const DEFAULT: &str = "user";

/// A user of the sandbox, as whom files are touched and processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: &'static str,
    pub(super) who: Who,
    /// Whether files are touched for this user with the rights of the sandbox's root.
    sudo: bool,
}

impl User {
    /// The user of this name; the sandbox's default one where it is empty.
    pub(super) fn named(name: &str, serve: &Serve) -> Result<User, Failure> {
        let name = if name.is_empty() { &serve.user } else { name };
        match name {
            "" | DEFAULT => Ok(User {
                name: DEFAULT,
                uid: serve.confine.uid,
                gid: serve.confine.gid,
                home: crate::files::HOME,
                who: Who::User,
                sudo: serve.allow_root && process::own_uid() == 0,
            }),
            "root" if !serve.allow_root => {
                let why = "this sandbox does not allow the user 'root'; use 'user'";
                Err(Failure::new(Code::PermissionDenied, why))
            }
            "root" if process::own_uid() != 0 => {
                let why =
                    "the user 'root' is not there: this machine gives a sandbox one user only";
                Err(Failure::new(Code::PermissionDenied, why))
            }
            "root" => Ok(User {
                name: "root",
                uid: 0,
                gid: 0,
                home: "/root",
                who: Who::Root,
                sudo: false,
            }),
            _ => User::other(name, serve),
        }
    }

    /// One that the sandbox's own table of users has.
    fn other(name: &str, serve: &Serve) -> Result<User, Failure> {
        let unknown = || {
            let why = format!("invalid username: '{name}'");
            Failure::new(Code::Unauthenticated, why)
        };
        if !passwd::is_name(name) {
            return Err(unknown());
        }
        let text = passwd::read(serve.confine.uid, serve.confine.gid);
        let entry = passwd::find(&text, name).ok_or_else(unknown)?;
        if entry.uid == 0 {
            return User::named("root", serve);
        }
        if process::own_uid() != 0 {
            let why = format!(
                "the user '{name}' is not there: this machine gives a sandbox one user only"
            );
            return Err(Failure::new(Code::PermissionDenied, why));
        }
        passwd::check_ids(name, entry)?;
        let (uid, gid) = (entry.uid, entry.gid);
        Ok(User {
            name: passwd::keep(name)?,
            uid,
            gid,
            home: passwd::keep(entry.home)?,
            who: Who::Other { uid, gid },
            sudo: false,
        })
    }

    /// The user whom the head of a request names.
    pub(super) fn of(headers: &HeaderMap, serve: &Serve) -> Result<User, Failure> {
        let bad = || Failure::new(Code::Unauthenticated, "invalid Authorization header");
        let Some(header) = headers.get(AUTHORIZATION) else {
            return User::named("", serve);
        };
        let header = header.to_str().map_err(|_| bad())?;
        let Some(credentials) = header.strip_prefix("Basic ") else {
            // A token of the edge, which has judged it; it names nobody inside.
            return User::named("", serve);
        };
        let bytes = BASE64_STANDARD.decode(credentials).map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        User::named(text.split(':').next().unwrap_or_default(), serve)
    }

    /// Runs `action` with the file-system identity of this user. With no other right to files, but for the
    /// one who has `sudo`: E2B's envd touches all files as root and gives what it makes to the user, and its
    /// clients write to `/app` and `/opt` as `user`.
    pub(super) fn act<T>(self, action: impl FnOnce() -> T) -> T {
        if self.sudo {
            crate::files::as_user_with_sudo(self.uid, self.gid, action)
        } else {
            crate::files::as_user(self.uid, self.gid, action)
        }
    }

    /// Makes a file that this user writes the user's own, as envd does. Who may not has written what others own.
    pub(super) fn take(self, file: &OwnedFd) -> Result<(), Errno> {
        let stat = fs::fstat(file)?;
        if (stat.st_uid, stat.st_gid) == (self.uid, self.gid) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        match fs::fchown(file, Some(uid), Some(gid)) {
            Err(Errno::PERM) => Ok(()),
            taken => taken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest::message::Confine;
    use hyper::header::HeaderValue;

    fn of(header: &str) -> Result<&'static str, Code> {
        with_default(header, "")
    }

    fn with_default(header: &str, user: &str) -> Result<&'static str, Code> {
        let confine = Confine {
            uid: 1000,
            gid: 1000,
            rlimits: Vec::new(),
            landlock: None,
            seccomp: Vec::new(),
        };
        let serve = Serve {
            confine,
            env: Vec::new(),
            allow_root: false,
            files: Vec::new(),
            secrets: Vec::new(),
            scrub_patterns: false,
            contexts: Vec::new(),
            user: user.to_owned(),
            workdir: String::new(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        let user = User::of(&headers, &serve);
        user.map(|user| user.name).map_err(|failure| failure.code)
    }

    #[test]
    fn the_head_names_the_user() {
        assert_eq!(of("Basic dXNlcjo="), Ok("user"));
        assert_eq!(of("Basic Og=="), Ok("user"));
        assert_eq!(of("Bearer something"), Ok("user"));
        // "nosuch:" and "../x:".
        assert_eq!(of("Basic bm9zdWNoOg=="), Err(Code::Unauthenticated));
        assert_eq!(of("Basic Li4veDo="), Err(Code::Unauthenticated));
        assert_eq!(of("Basic !"), Err(Code::Unauthenticated));
    }

    #[test]
    fn whoever_names_nobody_is_the_default_of_the_sandbox() {
        // Root is not allowed here, which shows who was meant.
        assert_eq!(
            with_default("Basic Og==", "root"),
            Err(Code::PermissionDenied)
        );
        assert_eq!(
            with_default("Bearer x", "root"),
            Err(Code::PermissionDenied)
        );
        assert_eq!(with_default("Basic dXNlcjo=", "root"), Ok("user"));
        assert_eq!(with_default("Basic Og==", "user"), Ok("user"));
    }

    #[test]
    fn root_is_refused_where_it_is_not_allowed() {
        assert_eq!(of("Basic cm9vdDo="), Err(Code::PermissionDenied));
    }
}
