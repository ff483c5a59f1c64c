//! Users of the sandbox beside `user` and `root`: those of its `/etc/passwd` (passwd(5)).
//!
//! The file is the workload's wherever that can be root, so it gives nobody a right: whoever it names has an
//! id of the sandbox's map, no group but one, and no capability. An id of 0 in it is root, who has to be
//! allowed. It is read with the workload's identity, in bounds, and only if it is a file.

use super::failure::{Code, Failure};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;

const PATH: &str = "/etc/passwd";
/// Some thousand users.
const BYTES_MAX: u64 = 256 * 1024;
/// As `useradd` has it.
const NAME_MAX: usize = 32;
/// The longest home that can be a path.
const HOME_MAX: usize = 4095;
/// How many ids a sandbox has, counted from 0, where it has more than one.
const IDS: u32 = 65_536;
/// Names and homes that are kept for as long as the guest lives. The workload can make up as many as it
/// likes; people use some.
const KEPT_MAX: usize = 256;

/// A line of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'t> {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: &'t str,
}

/// Whether somebody can be called so: `useradd(8)`, and nothing that a path, a shell or a log would mind.
pub(super) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    name.len() <= NAME_MAX
        && first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(plain)
}

/// The file, as this identity reads it; empty where there is none that can be read.
pub(super) fn read(uid: u32, gid: u32) -> String {
    crate::files::as_user(uid, gid, || open().unwrap_or_default())
}

fn open() -> Result<String, Errno> {
    // A pipe in its place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let how = ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(CWD, PATH, flags, Mode::empty(), how)?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut bytes = Vec::new();
    let read = File::from(file).take(BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|_| Errno::IO)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first line of this name that is one.
pub(super) fn find<'t>(text: &'t str, name: &str) -> Option<Entry<'t>> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next()? == name;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1)?;
        let is_home = home.starts_with('/') && home.len() <= HOME_MAX && !home.contains('\0');
        let home = if is_home { home } else { "/" };
        is_it.then_some(Entry { uid, gid, home })
    })
}

/// Whether a sandbox with more than one id has those.
///
/// # Errors
/// The kernel would refuse them too, with less to go by.
pub(super) fn check_ids(name: &str, entry: Entry<'_>) -> Result<(), Failure> {
    if entry.uid < IDS && entry.gid < IDS {
        return Ok(());
    }
    let ids = (entry.uid, entry.gid);
    let why = format!("the user '{name}' has the ids {ids:?}; a sandbox has those below {IDS}");
    Err(Failure::new(Code::InvalidArgument, why))
}

thread_local! {
    static KEPT: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// The same text for as long as the guest lives, so that a user can be copied like a number.
///
/// # Errors
/// When there are too many.
pub(super) fn keep(text: &str) -> Result<&'static str, Failure> {
    KEPT.with_borrow_mut(|kept| {
        if let Some(known) = kept.iter().find(|known| **known == text) {
            return Ok(*known);
        }
        if kept.len() >= KEPT_MAX {
            let why = "too many different users were used in this sandbox";
            return Err(Failure::new(Code::ResourceExhausted, why));
        }
        let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
        kept.push(text);
        Ok(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "root:x:0:0:root:/root:/bin/bash\n# x\nhalf:x:5\nweb:x:33:44:,,:/var/www:/bin/sh\n\
        web:x:99:99::/:/bin/sh\nodd:x:7:8::nowhere:\nbig:x:65536:1::/h:\nno:x:-1:1::/h:\n";

    #[test]
    fn a_user_is_found_by_the_first_line_that_is_one() {
        let entry = |uid, gid, home| Some(Entry { uid, gid, home });
        assert_eq!(find(TEXT, "web"), entry(33, 44, "/var/www"));
        assert_eq!(find(TEXT, "root"), entry(0, 0, "/root"));
        assert_eq!(find(TEXT, "odd"), entry(7, 8, "/"));
        for none in ["half", "no", "x", "", "# x", "we"] {
            assert_eq!(find(TEXT, none), None, "{none}");
        }
    }

    #[test]
    fn an_id_that_no_sandbox_has_is_refused() {
        assert!(check_ids("web", find(TEXT, "web").unwrap()).is_ok());
        assert!(check_ids("big", find(TEXT, "big").unwrap()).is_err());
    }

    #[test]
    fn names_are_those_of_useradd() {
        for name in ["web", "_x", "a-b.c1", &"x".repeat(32)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "1a",
            "-a",
            "a b",
            "a/b",
            "a:b",
            "ö",
            "a\n",
            &"x".repeat(33),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn what_is_kept_is_kept_once_and_not_without_end() {
        let first = keep("a").unwrap();
        assert!(std::ptr::eq(first, keep("a").unwrap()));
        let kept = (0..KEPT_MAX * 2).filter(|n| keep(&n.to_string()).is_ok());
        assert_eq!(kept.count(), KEPT_MAX - 1);
        assert!(std::ptr::eq(first, keep("a").unwrap()));
    }

    proptest! {
        #[test]
        fn no_file_of_a_workload_is_too_odd(text in "[a-z:0-9/\n\0ö-]{0,200}", name in "[a-z]{0,3}") {
            drop(find(&text, &name));
        }
    }
}
