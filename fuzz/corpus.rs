//! What earlier runs have found: for each target a file of lines, each an input as it stands in a byte string of Rust.
//! So a change of it can be read, and a line that once broke something is moved into a test by hand.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Inputs and bytes that are kept of a target: replaying them is part of every run of its tests.
const INPUTS_MAX: usize = 400;
const BYTES_MAX: usize = 64 * 1024;

fn file(name: &str) -> PathBuf {
    let name = name.replace(' ', "-");
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
    PathBuf::from(here).join(format!("{name}.txt"))
}

/// The inputs of a target, where there are any.
pub(super) fn read(name: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(file(name)).unwrap_or_default();
    text.lines()
        .map(|line| bytes_of(line).unwrap_or_else(|| line.into()))
        .collect()
}

/// Puts these in their place, the shortest first and as many as there is room for.
pub(super) fn write(name: &str, inputs: &[Vec<u8>]) {
    let mut text = String::new();
    for input in inputs.iter().take(INPUTS_MAX) {
        if text.len() + input.len() > BYTES_MAX {
            break;
        }
        // Writing into a text cannot fail.
        let _ = writeln!(text, "{}", input.escape_ascii());
    }
    if let Err(error) = std::fs::write(file(name), text) {
        println!("{name}: the corpus cannot be written: {error}");
    }
}

/// The bytes of a line, or nothing where it was not written by [`write`].
fn bytes_of(line: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (sign, after) = rest.split_first()?;
        rest = after;
        out.push(match sign {
            b't' => b'\t',
            b'r' => b'\r',
            b'n' => b'\n',
            b'\\' | b'\'' | b'"' => *sign,
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(out)
}

#[test]
fn a_line_of_a_corpus_is_read_as_it_was_written() {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for input in [all.as_slice(), b"", b"\\x41\\n", b"a'b\"c"] {
        let line = input.escape_ascii().to_string();
        assert!(!line.contains('\n'));
        assert_eq!(bytes_of(&line).as_deref(), Some(input), "{line}");
    }
    assert_eq!(bytes_of("\\q"), None);
}
