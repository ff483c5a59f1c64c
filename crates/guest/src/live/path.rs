//! Paths as clients write them. Pure: what is there is for the kernel to say.

use super::failure::Failure;

/// The longest path in bytes, as the kernel has it.
const PATH_MAX: usize = 4095;

/// An absolute path without `.`, `..`, or empty parts. `~` and what is relative start at `home`.
///
/// # Errors
/// For what no path can be.
pub(super) fn resolve(path: &str, home: &str) -> Result<String, Failure> {
    if path.contains('\0') {
        return Err(Failure::invalid("a path has no zero bytes"));
    }
    let whole = match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        Some(_) => return Err(Failure::invalid(format!("'{path}' is another user's home"))),
        None if path.starts_with('/') => path.to_owned(),
        None => format!("{home}/{path}"),
    };
    let clean = clean(&whole);
    if clean.len() > PATH_MAX {
        return Err(Failure::invalid("the path is too long"));
    }
    Ok(clean)
}

fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directory that a clean path is in, and its name there. The root is in no directory.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    let parent = if parent.is_empty() { "/" } else { parent };
    (!name.is_empty()).then_some((parent, name))
}

/// The last part of a clean path.
pub(super) fn name(path: &str) -> &str {
    split(path).map_or("/", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(path: &str) -> Option<String> {
        resolve(path, "/home/user").ok()
    }

    #[test]
    fn a_path_starts_at_home_unless_it_starts_at_the_root() {
        for (path, expected) in [
            ("", "/home/user"),
            (".", "/home/user"),
            ("~", "/home/user"),
            ("~/a", "/home/user/a"),
            ("a/./b//c/", "/home/user/a/b/c"),
            ("../other", "/home/other"),
            ("../../../..", "/"),
            ("/tmp/../etc/x", "/etc/x"),
            ("/", "/"),
        ] {
            assert_eq!(resolved(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert_eq!(resolved("~root/x"), None);
        assert_eq!(resolved("a\0b"), None);
        assert_eq!(resolved(&"a/".repeat(3000)), None);
    }

    #[test]
    fn a_path_divides_into_directory_and_name() {
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/"), None);
        assert_eq!((name("/a/b"), name("/")), ("b", "/"));
    }
}
