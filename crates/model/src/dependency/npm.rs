//! Names and versions of JavaScript packages, as npm's registry has them: compared as they are written.

use crate::limits;

/// A name, perhaps with a scope; `None` for what is none. Old ones have capitals, so they are no other spelling.
pub fn name(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(plain) && !part.starts_with(['.', '_', '-'])
    };
    let is_name = match text.strip_prefix('@') {
        Some(scoped) => {
            let parts = scoped.split_once('/');
            parts.is_some_and(|(scope, name)| is_part(scope) && is_part(name))
        }
        None => is_part(text),
    };
    (is_name && text.len() <= limits::PACKAGE_BYTES_MAX).then(|| text.to_owned())
}

/// A version by Semantic Versioning 2.0.0, which has one spelling for each.
pub fn version(text: &str) -> Option<String> {
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    let is_number = |part: &str| {
        let digits = part.bytes().all(|b| b.is_ascii_digit());
        !part.is_empty() && digits && (part == "0" || !part.starts_with('0'))
    };
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_pre = |part: &str| {
        let digits = part.bytes().all(|b| b.is_ascii_digit());
        is_word(part) && (!digits || is_number(part))
    };
    let numbers: Vec<&str> = core.split('.').collect();
    let is_version = text.len() <= limits::PACKAGE_BYTES_MAX
        && numbers.len() == 3
        && numbers.into_iter().all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
        && build.is_none_or(|build| build.split('.').all(is_word));
    is_version.then(|| text.to_owned())
}

/// The version that a file of this package is of, by the path that registries give it: `BASE-VERSION.tgz`.
pub fn version_of_file(package: &str, file: &str) -> Option<String> {
    let base = package.rsplit('/').next()?;
    let rest = file.strip_suffix(".tgz")?;
    version(rest.strip_prefix(base)?.strip_prefix('-')?)
}

/// How registries call the file of a version.
pub fn file(package: &str, version: &str) -> String {
    let base = package.rsplit('/').next().unwrap_or(package);
    format!("{base}-{version}.tgz")
}
