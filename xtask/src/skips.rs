//! Tests that could not run here: counted, listed, and held to a file that says how many may.
//!
//! A test that returns early without a word looks like a test that passed. Ours say `skipped: `
//! and the reason; this finds those lines in the report of the test run.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::install;

/// How a line of a test begins that could not do its work.
const MARK: &str = "skipped: ";

/// One test that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    test: String,
    why: String,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.test, self.why)
    }
}

/// What a run of the tests came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) tests: usize,
    pub(crate) failed: usize,
    pub(crate) skips: Vec<Skip>,
}

impl Report {
    /// Reads the JUnit file of a run.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let xml = fs::read_to_string(path)
            .with_context(|| format!("the tests left no report at {}", path.display()))?;
        Ok(Self::from_junit(&xml))
    }

    /// Not a reader of XML in general: of the file that nextest writes, in which an element
    /// begins on a line of its own and text is escaped.
    fn from_junit(xml: &str) -> Self {
        let mut report = Self::default();
        let mut test = String::new();
        for line in xml.lines() {
            let text = line.trim_start();
            if text.starts_with("<testsuites ") {
                let number = |name| attribute(text, name).and_then(|value| value.parse().ok());
                report.tests = number("tests").unwrap_or(0);
                report.failed = number("failures").unwrap_or(0) + number("errors").unwrap_or(0);
            } else if text.starts_with("<testcase ") {
                let part = |name| attribute(text, name).unwrap_or_default();
                test = format!("{} {}", part("classname"), part("name"));
            }
            // The first line of an output follows its tag.
            let text = text
                .strip_prefix("<system-out>")
                .or_else(|| text.strip_prefix("<system-err>"))
                .unwrap_or(text);
            if let Some(why) = text.strip_prefix(MARK) {
                let why = why.split("</system-").next().unwrap_or_default();
                report.skips.push(Skip {
                    test: test.clone(),
                    why: unescape(why.trim_end()),
                });
            }
        }
        report
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(unescape(value))
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        // Last, or `&amp;lt;` would become `<`.
        .replace("&amp;", "&")
}

/// One line of the file: a reason that is known, how often, and on which machines.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    at_most: usize,
    place: String,
    reason: String,
}

/// What is wrong with the skips of a run, in words; empty when all are known.
pub(crate) fn judge(report: &Report, file: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let known = parse(&text)?;
    for it in &known {
        if is_here(&it.place).is_none() {
            bail!("`{}` is not a kind of machine: {}", it.place, PLACES);
        }
    }
    Ok(problems(&report.skips, &known, &|place| {
        is_here(place) == Some(true)
    }))
}

fn parse(text: &str) -> Result<Vec<Known>> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let at_most = words.next().and_then(|word| word.parse().ok());
            let place = words.next();
            let reason: Vec<&str> = words.collect();
            match (at_most, place, reason.is_empty()) {
                (Some(at_most), Some(place), false) => Ok(Known {
                    at_most,
                    place: place.to_owned(),
                    reason: reason.join(" "),
                }),
                _ => bail!("not `number place reason`: {line}"),
            }
        })
        .collect()
}

fn problems(skips: &[Skip], known: &[Known], here: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    let mut counts = vec![0_usize; known.len()];
    for skip in skips {
        let entry = known.iter().position(|it| skip.why.starts_with(&it.reason));
        match entry {
            None => problems.push(format!("unknown reason: {skip}")),
            Some(index) if !here(&known[index].place) => {
                let place = &known[index].place;
                problems.push(format!(
                    "only where `{place}`, and this machine is not: {skip}"
                ));
            }
            Some(index) => counts[index] += 1,
        }
    }
    for (it, count) in known.iter().zip(counts) {
        if count > it.at_most {
            let (reason, most) = (&it.reason, it.at_most);
            problems.push(format!("{count} skips and not {most}: {reason}"));
        }
    }
    problems
}

const PLACES: &str = "use anywhere, root, not-root, no-cgroup-v1, no-cgroup-v2, \
                      no-user-namespaces, no-kvm";

/// Whether this machine is of that kind; nothing for a kind that does not exist.
fn is_here(place: &str) -> Option<bool> {
    let v2 = || {
        fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
    };
    let reads = |path: &str, value: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(path)).is_ok_and(|it| it.trim() == value)
    };
    let no_user_namespaces = || {
        reads("user/max_user_namespaces", "0")
            || !install::is_root()
                && (reads("kernel/unprivileged_userns_clone", "0")
                    || reads("kernel/apparmor_restrict_unprivileged_userns", "1"))
    };
    match place {
        "anywhere" => Some(true),
        "root" => Some(install::is_root()),
        "not-root" => Some(!install::is_root()),
        "no-cgroup-v1" => Some(!Path::new("/sys/fs/cgroup/memory").is_dir()),
        "no-cgroup-v2" => Some(!v2()),
        "no-user-namespaces" => Some(no_user_namespaces()),
        "no-kvm" => Some(!Path::new("/dev/kvm").exists()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNIT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" time="0.1">
    <testsuite name="store" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="works" classname="store" time="0.0">
            <system-out>running 1 test
skipped: no `a&lt;b&gt;` &amp;amp; such
test works ... ok
</system-out>
            <system-err>skipped: no PostgreSQL here</system-err>
        </testcase>
        <testcase name="loud" classname="store">
            <system-out>this is not skipped: really</system-out>
        </testcase>
    </testsuite>
</testsuites>"#;

    fn skip(why: &str) -> Skip {
        Skip {
            test: "store works".to_owned(),
            why: why.to_owned(),
        }
    }

    #[test]
    fn skips_are_found_in_the_report_with_their_tests() {
        let report = Report::from_junit(JUNIT);
        assert_eq!((report.tests, report.failed), (3, 1));
        assert_eq!(
            report.skips,
            [skip("no `a<b>` &amp; such"), skip("no PostgreSQL here")]
        );
    }

    #[test]
    fn the_file_of_known_skips_can_be_read() {
        let known = parse("# comment\n\n  2  not-root   needs root: mounts\n").unwrap();
        assert_eq!(
            known,
            [Known {
                at_most: 2,
                place: "not-root".to_owned(),
                reason: "needs root: mounts".to_owned(),
            }]
        );
        for bad in ["two not-root x", "2 not-root", "2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/skips.txt");
        assert_eq!(judge(&Report::default(), Path::new(ours)).unwrap(), [""; 0]);
    }

    #[test]
    fn a_known_skip_is_fine_up_to_its_number() {
        let known = parse("2 anywhere no KVM").unwrap();
        let skips = [
            skip("no KVM on this machine"),
            skip("no KVM"),
            skip("no KVM"),
        ];
        assert_eq!(problems(&skips[..2], &known, &|_| true), [""; 0]);
        let more = problems(&skips, &known, &|_| true);
        assert_eq!(more, ["3 skips and not 2: no KVM"]);
    }

    #[test]
    fn an_unknown_reason_is_a_problem_and_so_is_a_known_one_elsewhere() {
        let known = parse("2 not-root needs root").unwrap();
        assert_eq!(problems(&[skip("too tired")], &known, &|_| true).len(), 1);
        assert_eq!(problems(&[skip("needs root")], &known, &|_| false).len(), 1);
        assert_eq!(problems(&[skip("needs root")], &known, &|_| true).len(), 0);
    }

    #[test]
    fn a_kind_of_machine_that_does_not_exist_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skips.txt");
        fs::write(&file, "1 on-mars no air").unwrap();
        assert!(judge(&Report::default(), &file).is_err());
    }
}
