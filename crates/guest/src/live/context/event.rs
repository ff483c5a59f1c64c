//! What a kernel says, and the lines that clients are told. Pure.
//!
//! The values of a result are passed on as they were written, once they are known to be JSON: what is
//! small on the wire can be large in memory, and nobody here needs to know it.

use scrub::{Known, Shapes};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use std::sync::Arc;

/// What a kernel says, a line each.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", bound(deserialize = "'de: 'l"))]
pub(super) enum Said<'l> {
    /// It can run code. Once, first of all.
    Ready,
    /// A value to be shown.
    Result(Box<Shown<'l>>),
    /// The code failed.
    Error(Raised<'l>),
    /// The code has ended.
    End(End),
}

/// A value in every form that it has. The names are those of E2B's clients.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(bound(deserialize = "'de: 'l"))]
pub(super) struct Shown<'l> {
    #[serde(skip_deserializing, rename = "type")]
    kind: Kind,
    #[serde(default)]
    is_main_result: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    html: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    markdown: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    svg: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    png: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jpeg: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pdf: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latex: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    json: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    javascript: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chart: Option<&'l RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extra: Option<&'l RawValue>,
}

/// What a line is.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Result,
    Error,
}

/// Why the code failed.
#[derive(Debug, Deserialize, Serialize)]
#[serde(bound(deserialize = "'de: 'l"))]
pub(super) struct Raised<'l> {
    #[serde(skip_deserializing, default = "error", rename = "type")]
    kind: Kind,
    #[serde(borrow)]
    name: &'l RawValue,
    #[serde(borrow)]
    value: &'l RawValue,
    #[serde(borrow)]
    traceback: &'l RawValue,
}

fn error() -> Kind {
    Kind::Error
}

/// How the code ended.
#[derive(Debug, Deserialize)]
pub(super) struct End {
    /// The code with which a shell's last command ended.
    #[serde(default)]
    pub(super) exit: Option<i32>,
}

fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// Reads a line; none where it is nothing that a kernel says.
pub(super) fn read(line: &[u8]) -> Option<Said<'_>> {
    let said: Said<'_> = serde_json::from_slice(line).ok()?;
    let is_well = match &said {
        Said::Ready | Said::End(_) => true,
        Said::Result(shown) => shown.is_well(),
        Said::Error(raised) => [raised.name, raised.value, raised.traceback]
            .into_iter()
            .all(is_text),
    };
    is_well.then_some(said)
}

impl Shown<'_> {
    /// Whether what should be text is text. A client would fail at anything else.
    fn is_well(&self) -> bool {
        let texts = [
            self.text,
            self.html,
            self.markdown,
            self.svg,
            self.png,
            self.jpeg,
            self.pdf,
            self.latex,
            self.javascript,
        ];
        texts.into_iter().flatten().all(is_text)
    }

    pub(super) fn line(&self) -> Vec<u8> {
        line(self)
    }
}

impl Raised<'_> {
    /// What it is called; nothing where that is no text after all, such as half a pair of surrogates.
    pub(super) fn name(&self) -> String {
        serde_json::from_str(self.name.get()).unwrap_or_default()
    }

    pub(super) fn line(&self) -> Vec<u8> {
        line(self)
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Fields whose texts are the bytes of pictures and documents. They are random, and something in them may look like a
/// credential; values that are known are looked for all the same.
const BINARY: [&[u8]; 3] = [b"\"png\"", b"\"jpeg\"", b"\"pdf\""];

/// A line without the values of secrets and, where that is asked for, without what looks like a credential; and how
/// many of those there were. Only what stands in texts is looked at: a value may be a word of the protocol, and the
/// line must stay one. Nothing is made of the line but another: what is small on the wire can be large in memory.
pub(super) fn clean(known: Option<&Arc<Known>>, patterns: bool, line: Vec<u8>) -> (Vec<u8>, u64) {
    if known.is_none() && !patterns {
        return (line, 0);
    }
    let mut found = 0;
    let mut out = Vec::with_capacity(line.len());
    let (mut rest, mut depth, mut of) = (line.as_slice(), 0_usize, Vec::new());
    while let Some((byte, after)) = rest.split_first() {
        if *byte != b'"' {
            depth = match byte {
                b'{' | b'[' => depth + 1,
                b'}' | b']' => depth.saturating_sub(1),
                _ => depth,
            };
            out.push(*byte);
            rest = after;
            continue;
        }
        let (text, after) = rest.split_at(text_len(rest));
        let is_field = depth == 1 && after.starts_with(b":");
        if is_field {
            of = text.to_vec();
        }
        if is_field || (depth == 1 && of == b"\"type\"") {
            out.extend_from_slice(text);
        } else {
            let is_binary = depth == 1 && BINARY.contains(&of.as_slice());
            let (text, count) = clean_text(known, patterns && !is_binary, text);
            out.extend(text);
            found += count;
        }
        rest = after;
    }
    (out, found)
}

/// The length of the text that JSON begins with, with its quotes.
fn text_len(json: &[u8]) -> usize {
    let mut is_escaped = true; // The first quote ends nothing.
    for (at, byte) in json.iter().enumerate() {
        match byte {
            b'"' if !is_escaped => return at + 1,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    json.len()
}

fn clean_text(known: Option<&Arc<Known>>, patterns: bool, json: &[u8]) -> (Vec<u8>, u64) {
    let Ok(text) = serde_json::from_slice::<String>(json) else {
        // Half a pair of surrogates is JSON and no text; values are looked for as they are escaped.
        let clean = known.map_or_else(|| json.to_vec(), |known| known.bytes(json));
        return match patterns {
            true => Shapes::bytes(&clean),
            false => (clean, 0),
        };
    };
    let clean = known.map_or_else(|| text.clone(), |known| known.text(&text));
    let (clean, found) = match patterns {
        true => Shapes::count(&clean),
        false => (clean, 0),
    };
    if clean == text {
        return (json.to_vec(), 0);
    }
    (serde_json::to_vec(&clean).unwrap_or_default(), found)
}

/// The number of this execution in its kernel, from 1.
pub(super) fn number(count: u64) -> Vec<u8> {
    line(&json!({"type": "number_of_executions", "execution_count": count}))
}

/// A stream that code writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Stdout,
    Stderr,
}

/// What the code wrote, and when it was read, in nanoseconds since 1970.
pub(super) fn output(which: Which, text: &str, now_ns: u64) -> Vec<u8> {
    let name = match which {
        Which::Stdout => "stdout",
        Which::Stderr => "stderr",
    };
    line(&json!({"type": name, "text": text, "timestamp": now_ns}))
}

/// A failure that is told by us.
pub(super) fn failed(name: &str, value: &str) -> Vec<u8> {
    line(&json!({"type": "error", "name": name, "value": value, "traceback": ""}))
}

/// Says that somebody is there.
pub(super) const KEEPALIVE: &[u8] = b"{\"type\":\"keepalive\"}\n";

/// The last line of every execution.
pub(super) const END: &[u8] = b"{\"type\":\"end_of_execution\"}\n";

/// The name under which clients know an execution whose interpreter is gone.
pub(super) const GONE: &str = "UnexpectedEndOfExecution";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<String> {
        let bytes = match read(line.as_bytes())? {
            Said::Result(shown) => shown.line(),
            Said::Error(raised) => raised.line(),
            Said::Ready | Said::End(_) => b"-\n".to_vec(),
        };
        Some(String::from_utf8(bytes).unwrap().trim_end().to_owned())
    }

    #[test]
    fn what_a_kernel_says_is_told_in_the_words_of_the_clients() {
        for (said, expected) in [
            (r#""ready""#, "-"),
            (r#"{"end":{}}"#, "-"),
            (r#"{"end":{"exit":3}}"#, "-"),
            (
                r#"{"result":{"is_main_result":true,"text":"1","json":{"a":[1]},"new":2}}"#,
                r#"{"type":"result","is_main_result":true,"text":"1","json":{"a":[1]}}"#,
            ),
            (
                r#"{"error":{"name":"E","value":"\ud800","traceback":""}}"#,
                r#"{"type":"error","name":"E","value":"\ud800","traceback":""}"#,
            ),
        ] {
            assert_eq!(told(said).as_deref(), Some(expected), "{said}");
        }
    }

    #[test]
    fn the_value_of_a_secret_is_taken_out_of_texts_and_the_line_stays_one() {
        let values = [("a", "text".as_bytes()), ("b", b"p\"w\n!"), ("c", b"true")];
        let known = scrub::Known::new(values).unwrap();
        let cleaned = |line: &str| {
            let (line, _) = clean(known.as_ref(), false, format!("{line}\n").into_bytes());
            String::from_utf8(line).unwrap().trim_end().to_owned()
        };
        for (line, expected) in [
            (
                r#"{"text":"a text: p\"w\n!","type":"result"}"#,
                r#"{"text":"a [secret a]: [secret b]","type":"result"}"#,
            ),
            (
                r#"{"is_main_result":true,"json":{"text":["text",true,1]}}"#,
                r#"{"is_main_result":true,"json":{"[secret a]":["[secret a]",true,1]}}"#,
            ),
            (
                r#"{"type":"text","html":"\\","svg":"\"text\"","png":"'p\"w\\n!'"}"#,
                r#"{"type":"text","html":"\\","svg":"\"[secret a]\"","png":"'[secret b]'"}"#,
            ),
            (
                r#"{"html":"\ud800 text"}"#,
                r#"{"html":"\ud800 [secret a]"}"#,
            ),
            (
                r#"{"json":{"type":"text"}}"#,
                r#"{"json":{"type":"[secret a]"}}"#,
            ),
            (r#"{"html":"nothing"}"#, r#"{"html":"nothing"}"#),
        ] {
            assert_eq!(cleaned(line), expected, "{line}");
        }
        let line = b"{\"html\":\"text\"}\n".to_vec();
        assert_eq!(clean(None, false, line.clone()), (line, 0));
    }

    #[test]
    fn what_looks_like_a_credential_is_taken_out_of_texts_where_that_is_asked_for_and_pictures_stay()
     {
        let key = format!("AKIA{}", "Q".repeat(16));
        let line = format!(
            r#"{{"type":"result","text":"'{key}'","png":"+{key}/","json":{{"k":["{key}"]}},"html":"\ud800 {key}"}}"#
        );
        let expected = line.replacen(&format!("'{key}'"), "'[secret pattern:aws-key]'", 1);
        let expected = expected.replace(&format!("[\"{key}\"]"), "[\"[secret pattern:aws-key]\"]");
        let expected = expected.replace(
            &format!("\\ud800 {key}"),
            "\\ud800 [secret pattern:aws-key]",
        );
        let (clean_line, found) = clean(None, true, line.clone().into_bytes());
        assert_eq!(
            (String::from_utf8(clean_line).unwrap(), found),
            (expected, 3)
        );
        let known = scrub::Known::new([("k", key.as_bytes())]).unwrap();
        let (both, found) = clean(known.as_ref(), true, line.into_bytes());
        assert!(!String::from_utf8(both).unwrap().contains(&key));
        assert_eq!(found, 0, "a value that has a name is told by it");
    }

    #[test]
    fn what_no_kernel_of_ours_says_is_refused() {
        for said in [
            "",
            "garbage",
            "null",
            r#"{"end":{}} {"end":{}}"#,
            r#"{"type":"end_of_execution"}"#,
            r#"{"result":{"text":1}}"#,
            r#"{"result":{"text":NaN}}"#,
            r#"{"error":{"name":"E"}}"#,
            r#"{"end":{"exit":"x"}}"#,
            "\u{0}",
        ] {
            assert_eq!(told(said), None, "{said}");
        }
    }
}
