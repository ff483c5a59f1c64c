//! Who there is in a root that was given: whom it has itself, and `user`, as whom sandboxes run.

use super::{NoText, USERS_BYTES_MAX, Unusable, read_file, shape, stat_inside};
use std::os::fd::OwnedFd;

/// The three files.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) passwd: String,
    pub(super) group: String,
    pub(super) shadow: String,
}

pub(super) fn read(top: &OwnedFd) -> Result<Users, Unusable> {
    let text = |what: &'static str| match read_file(top, what, USERS_BYTES_MAX) {
        Ok(text) => Ok(text.unwrap_or_default()),
        Err(NoText::Unread) => Err(shape(
            what,
            "not to be read as a file",
            "a file, or not there",
        )),
        Err(NoText::Other) => {
            let why = format!("`{what}` in it is longer than {USERS_BYTES_MAX} bytes, or no text");
            Err(Unusable::TooMuch(why))
        }
    };
    let has_bash = stat_inside(top, "bin/bash").is_some();
    let shell = if has_bash { "/bin/bash" } else { "/bin/sh" };
    // Not every node may read it, and then its sandboxes could not use it either.
    let shadow = text("etc/shadow").unwrap_or_default();
    Ok(Users {
        passwd: passwd(&text("etc/passwd")?, shell),
        group: group(&text("etc/group")?),
        shadow: merged(
            &shadow,
            9,
            &["root:*:20000:0:99999:7:::"],
            "user:*:20000:0:99999:7:::",
        ),
    })
}

fn passwd(theirs: &str, shell: &str) -> String {
    let root = format!("root:x:0:0:root:/root:{shell}");
    let user = format!("user:x:1000:1000:user:/home/user:{shell}");
    let nobody = "nobody:x:65534:65534:nobody:/nonexistent:/bin/false";
    merged(theirs, 7, &[&root, nobody], &user)
}

fn group(theirs: &str) -> String {
    merged(
        theirs,
        4,
        &["root:x:0:", "nogroup:x:65534:"],
        "user:x:1000:",
    )
}

/// Lines of theirs with so many fields, `ours` in place of those with its name, and each of `missing` whose
/// name there is not. Whoever looks for a number finds the first line that has it: root's, then ours, then
/// those of others who may have the same.
fn merged(theirs: &str, fields: usize, missing: &[&str], ours: &str) -> String {
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let usual = |line: &&str| line.split(':').count() == fields && !line.contains('\0');
    let theirs: Vec<&str> = theirs
        .lines()
        .filter(usual)
        .filter(|line| name(line) != name(ours))
        .collect();
    let has = |line: &&&str| !theirs.iter().any(|there| name(there) == name(line));
    let added = missing.iter().filter(has).copied();
    let (roots, others): (Vec<&str>, Vec<&str>) = added
        .chain(theirs.iter().copied())
        .partition(|line| name(line) == "root");
    let lines = roots.into_iter().chain([ours]).chain(others);
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_keeps_its_users_and_has_user_first_of_his_number() {
        let theirs = "root:x:0:0:root:/root:/bin/ash\nbroken\nnode:x:1000:1000::/home/node:/bin/sh\n\
                      user:x:7:7::/x:/y\nwww-data:x:33:33::/var/www:/bin/false\n";
        assert_eq!(
            passwd(theirs, "/bin/sh"),
            "root:x:0:0:root:/root:/bin/ash\nuser:x:1000:1000:user:/home/user:/bin/sh\n\
             nobody:x:65534:65534:nobody:/nonexistent:/bin/false\nnode:x:1000:1000::/home/node:/bin/sh\n\
             www-data:x:33:33::/var/www:/bin/false\n"
        );
        assert_eq!(group(""), "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n");
        assert_eq!(
            group("staff:x:50:a,b\n").lines().last(),
            Some("staff:x:50:a,b")
        );
    }
}
