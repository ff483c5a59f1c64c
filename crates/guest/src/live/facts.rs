//! What is known of each process that was asked for, kept until the node has it on its disk.
//!
//! Facts are numbered from 1. The node asks for those after the last one that it has, which is how it says
//! that it has that one. What there is no room for is counted, and the count becomes a fact as soon as
//! there is room again: what is recorded stays, and what is missing is known to be.
//!
//! A step in a context is told as a process is: its code stands where the arguments do.
//!
//! Values of secrets that the sandbox has are taken out, before anything is cut.
//!
//! Values of the environment are never here, because people put secrets there, and nothing of what a
//! process reads or writes is but its length.

use super::Live;
use super::body::{self, Answer, Body};
use super::processes::Config;
use super::query;
use crate::process::Reaped;
use hyper::{HeaderMap, StatusCode};
use scrub::Known;
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Facts that wait for the node, which takes them within milliseconds while it lives. A node that starts
/// again takes seconds, and an agent starts tens of commands in one.
const FACTS_MAX: usize = 4096;
/// All of them together: what the guest has to spare.
const BYTES_MAX: usize = 1 << 20;
/// Those of one answer. The last one may go beyond by its own length.
const ANSWER_BYTES: usize = 128 * 1024;

/// Bytes that are kept of a command with its arguments, and of them one by one: a script fits.
const ARGV_MAX: usize = 8 * 1024;
/// Of any other text: a directory, a name, a reason.
const TEXT_MAX: usize = 1024;
/// Names of variables, and bytes of all of them together.
const NAMES_MAX: usize = 256;

/// How long a fact that a node waits for is held: answering it, and the node that writes it down, would take
/// the processor from the command that it tells of. A node that does not wait is answered at once.
const HELD: Duration = Duration::from_millis(5);

/// The longest that a node waits for a fact.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Where the doors say who asks. They take it out of what clients send.
const PRINCIPAL: &str = "cofferdam-principal";
const REQUEST: &str = "cofferdam-request";

/// Who asks, as the door knows them.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct By {
    principal: String,
    request_id: String,
}

impl By {
    pub(super) fn of(headers: &HeaderMap) -> By {
        let header = |name| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            short(value.unwrap_or_default(), TEXT_MAX).to_owned()
        };
        By {
            principal: header(PRINCIPAL),
            request_id: header(REQUEST),
        }
    }
}

/// The context that a step is of.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OfContext {
    pub(super) id: String,
    pub(super) language: &'static str,
}

/// Who asked for a process, and what it was to be.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Asked {
    argv: Vec<String>,
    /// Something of `argv` or `env_names` was left out.
    cut: bool,
    cwd: String,
    user: &'static str,
    env_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    pty: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<OfContext>,
    #[serde(flatten)]
    by: By,
}

impl Asked {
    pub(super) fn new(
        (headers, known): (&HeaderMap, Option<&Arc<Known>>),
        config: &Config,
        (user, cwd): (&'static str, &str),
        (tag, pty): (Option<&str>, bool),
    ) -> Asked {
        let words = std::iter::once(&config.cmd).chain(&config.args);
        let (argv, argv_cut) = fitting(words, known, usize::MAX);
        let (env_names, names_cut) = fitting(config.envs.keys(), known, NAMES_MAX);
        Asked {
            argv,
            cut: argv_cut || names_cut,
            cwd: short(&clean(known, cwd), TEXT_MAX).to_owned(),
            user,
            env_names,
            tag: tag.map(|tag| short(&clean(known, tag), TEXT_MAX).to_owned()),
            pty,
            context: None,
            by: By::of(headers),
        }
    }

    /// A step in a context.
    pub(super) fn step<'n>(
        (by, known): (By, Option<&Arc<Known>>),
        context: OfContext,
        (code, env_names): (&String, impl Iterator<Item = &'n String>),
        (user, cwd): (&'static str, &str),
    ) -> Asked {
        let (argv, code_cut) = fitting(std::iter::once(code), known, 1);
        let (env_names, names_cut) = fitting(env_names, known, NAMES_MAX);
        Asked {
            argv,
            cut: code_cut || names_cut,
            cwd: short(&clean(known, cwd), TEXT_MAX).to_owned(),
            user,
            env_names,
            tag: None,
            pty: false,
            context: Some(context),
            by,
        }
    }
}

/// A text without the values of secrets. Before it is cut: half a value is not found.
fn clean<'t>(known: Option<&Arc<Known>>, text: &'t str) -> Cow<'t, str> {
    match known {
        Some(known) => Cow::Owned(known.text(text)),
        None => Cow::Borrowed(text),
    }
}

/// As many of the texts as fit, the last one cut; and whether something is missing.
fn fitting<'t>(
    texts: impl Iterator<Item = &'t String>,
    known: Option<&Arc<Known>>,
    most: usize,
) -> (Vec<String>, bool) {
    let mut left = ARGV_MAX;
    let mut kept = Vec::new();
    for text in texts {
        // An empty one takes room too.
        if kept.len() >= most || left == 0 {
            return (kept, true);
        }
        let text = clean(known, text);
        let fits = short(&text, left);
        kept.push(fits.to_owned());
        if fits.len() < text.len() {
            return (kept, true);
        }
        left = left.saturating_sub(fits.len() + 1);
    }
    (kept, false)
}

/// The beginning of a text, of whole characters.
fn short(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub(super) enum End {
    Exited {
        code: i32,
    },
    Signaled {
        signal: i32,
    },
    TimedOut,
    /// Code of a step failed, and the interpreter lives on.
    Raised {
        name: String,
    },
    NotStarted {
        why: String,
    },
    Unknown,
}

impl End {
    pub(super) fn of(reaped: &Reaped, timed_out: bool) -> End {
        match (reaped.code, reaped.signal) {
            _ if timed_out => End::TimedOut,
            (Some(code), _) => End::Exited { code },
            (None, Some(signal)) => End::Signaled { signal },
            (None, None) => End::Unknown,
        }
    }

    pub(super) fn raised(name: &str) -> End {
        let name = name.to_owned();
        End::Raised { name }
    }

    pub(super) fn not_started(why: &str) -> End {
        let why = why.to_owned();
        End::NotStarted { why }
    }

    /// What of it is kept.
    fn kept(&self, known: Option<&Arc<Known>>) -> End {
        let kept = |text: &str| short(&clean(known, text), TEXT_MAX).to_owned();
        match self {
            End::Raised { name } => End::Raised { name: kept(name) },
            End::NotStarted { why } => End::NotStarted { why: kept(why) },
            End::Exited { .. } | End::Signaled { .. } | End::TimedOut | End::Unknown => {
                self.clone()
            }
        }
    }
}

/// What was written, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// To standard output, or a terminal, and to standard error.
    pub(super) bytes: [u64; 2],
    /// Credentials that were taken out of it by their shape.
    pub(super) patterns: u64,
}

/// One fact, as the node reads it.
#[derive(Debug, Serialize)]
struct Fact<'f> {
    seq: u64,
    at_ms: u64,
    #[serde(flatten)]
    what: What<'f>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What<'f> {
    Started {
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        asked: &'f Asked,
    },
    Ended {
        /// The number of the fact that it started.
        of: u64,
        end: &'f End,
        stdout_bytes: u64,
        stderr_bytes: u64,
        #[serde(skip_serializing_if = "is_none")]
        patterns_found: u64,
    },
    Missed {
        count: u64,
    },
}

/// Facts that the node does not have yet.
#[derive(Debug, Default)]
pub(super) struct Facts {
    last: u64,
    /// When that one was.
    last_at: Option<Instant>,
    kept: VecDeque<(u64, String)>,
    bytes: usize,
    missed: u64,
    more: Rc<Notify>,
    /// Taken out of how things ended.
    known: Option<Arc<Known>>,
}

impl Facts {
    pub(super) fn new(known: Option<Arc<Known>>) -> Facts {
        Facts {
            known,
            ..Facts::default()
        }
    }

    /// A process was asked for; `pid` if it runs. Its number, unless there was no room.
    pub(super) fn started(&mut self, asked: &Asked, pid: Option<i32>) -> Option<u64> {
        self.push(&What::Started { pid, asked })
    }

    /// The process that `of` started has ended.
    pub(super) fn ended(&mut self, of: Option<u64>, end: &End, written: Written) {
        let [stdout_bytes, stderr_bytes] = written.bytes;
        // Of one whose start was missed, the end is counted with it.
        if let Some(of) = of {
            let end = end.kept(self.known.as_ref());
            self.push(&What::Ended {
                of,
                end: &end,
                stdout_bytes,
                stderr_bytes,
                patterns_found: written.patterns,
            });
        }
    }

    fn push(&mut self, what: &What<'_>) -> Option<u64> {
        let fits = |facts: &Facts| facts.kept.len() < FACTS_MAX && facts.bytes < BYTES_MAX;
        if fits(self) && self.missed > 0 {
            let count = std::mem::take(&mut self.missed);
            self.keep(&What::Missed { count });
        }
        if fits(self) {
            Some(self.keep(what))
        } else {
            self.missed += 1;
            None
        }
    }

    fn keep(&mut self, what: &What<'_>) -> u64 {
        self.last += 1;
        self.last_at = Some(Instant::now());
        let fact = Fact {
            seq: self.last,
            at_ms: now_ms(),
            what: match what {
                What::Started { pid, asked } => What::Started { pid: *pid, asked },
                What::Ended {
                    of,
                    end,
                    stdout_bytes,
                    stderr_bytes,
                    patterns_found,
                } => What::Ended {
                    of: *of,
                    end,
                    stdout_bytes: *stdout_bytes,
                    stderr_bytes: *stderr_bytes,
                    patterns_found: *patterns_found,
                },
                What::Missed { count } => What::Missed { count: *count },
            },
        };
        let text = serde_json::to_string(&fact).unwrap_or_default();
        self.bytes += text.len();
        self.kept.push_back((self.last, text));
        self.more.notify_waiters();
        self.last
    }

    /// Forgets what the node has.
    fn forget(&mut self, up_to: u64) {
        while let Some((_, text)) = self.kept.pop_front_if(|(seq, _)| *seq <= up_to) {
            self.bytes -= text.len();
        }
        // Nothing may come after what was missed before that is said.
        if self.missed > 0 && self.kept.is_empty() {
            let count = std::mem::take(&mut self.missed);
            self.keep(&What::Missed { count });
        }
    }

    /// For whoever wants to know whether the record has all: the number of the last fact, those that are
    /// missing among them, and how old it is.
    pub(super) fn recorded(&self) -> Value {
        let age = self.last_at.map(|at| at.elapsed().as_millis());
        let age = age.and_then(|age| u64::try_from(age).ok());
        json!({ "last": self.last, "age_ms": age.unwrap_or(u64::MAX) })
    }

    /// The next ones, as JSON.
    fn next(&self) -> String {
        let mut room = ANSWER_BYTES;
        let fits = |(_, text): &&(u64, String)| {
            let fits = room > 0;
            room = room.saturating_sub(text.len());
            fits
        };
        let texts = self.kept.iter().take_while(fits);
        let texts: Vec<&str> = texts.map(|(_, text)| text.as_str()).collect();
        format!("{{\"facts\":[{}]}}", texts.join(","))
    }
}

/// For the node alone, since no door knows this route: the facts after the one that it has, as soon as
/// there are some, or none after the time that it waits.
pub(super) async fn answer(live: &Live, asked: Option<&str>) -> Answer {
    let number = |name| query::value(asked, name).and_then(|value| value.parse::<u64>().ok());
    let wait = Duration::from_millis(number("wait_ms").unwrap_or(0)).min(WAIT_MAX);
    live.facts.borrow_mut().forget(number("after").unwrap_or(0));
    let more = live.facts.borrow().more.clone();
    let more = more.notified();
    if live.facts.borrow().kept.is_empty() && tokio::time::timeout(wait, more).await.is_ok() {
        // A short command is told to be over before the node hears of it, and both facts go together.
        tokio::time::sleep(HELD).await;
    }
    // However it ended, what there is now is the answer.
    let facts = live.facts.borrow().next();
    let body = Body::Whole(Some(facts.into()));
    body::of_type(StatusCode::OK, "application/json", body)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a fact carries the moment at which it was, and decides nothing"
)]
fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Asked {
        let config = Config {
            cmd: words[0].to_owned(),
            args: words[1..].iter().map(|word| (*word).to_owned()).collect(),
            envs: [("SECRET".to_owned(), "value".to_owned())].into(),
            cwd: None,
        };
        let mut headers = HeaderMap::new();
        headers.insert(PRINCIPAL, "uid:1000".parse().unwrap());
        Asked::new((&headers, None), &config, ("user", "/tmp"), (None, false))
    }

    #[test]
    fn no_fact_has_the_value_of_a_secret_whole_or_cut() {
        let value = "canary\"4e1f+value";
        let known = scrub::Known::new([("token", value.as_bytes())]).unwrap();
        // Such that the end of what is kept falls into the value.
        let filler = "x".repeat(ARGV_MAX - 10);
        let config = Config {
            cmd: format!("/x{value}"),
            args: vec![value.to_owned(), format!("{filler}{value}")],
            envs: [(value.to_owned(), String::new())].into(),
            cwd: None,
        };
        let headers = HeaderMap::new();
        let place = ("user", value);
        let one = Asked::new(
            (&headers, known.as_ref()),
            &config,
            place,
            (Some(value), false),
        );
        let mut facts = Facts::new(known);
        let of = facts.started(&one, None);
        facts.ended(
            of,
            &End::not_started(&format!("exec /x{value}")),
            Written::default(),
        );
        let text = facts.next();
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(text.matches("[secret token]").count(), 6, "{text}");
    }

    fn next(facts: &mut Facts, after: u64) -> Vec<Value> {
        facts.forget(after);
        let answer: Value = serde_json::from_str(&facts.next()).unwrap();
        answer["facts"].as_array().unwrap().clone()
    }

    #[test]
    fn a_process_is_two_facts_that_stay_until_the_node_has_them() {
        let mut facts = Facts::default();
        let of = facts.started(&asked(&["sh", "-c", "true"]), Some(7));
        let written = Written {
            bytes: [1, 2],
            patterns: 0,
        };
        facts.ended(of, &End::Exited { code: 3 }, written);
        let told = next(&mut facts, 0);
        assert_eq!(told, next(&mut facts, 0));
        assert_eq!(
            (&told[0]["kind"], &told[0]["seq"]),
            (&"started".into(), &1.into())
        );
        assert_eq!(told[0]["asked"]["env_names"][0], "SECRET");
        assert!(!told[0].to_string().contains("value"), "values are secrets");
        assert_eq!(told[0]["asked"]["principal"], "uid:1000");
        assert_eq!(
            (&told[1]["of"], &told[1]["end"]["code"]),
            (&1.into(), &3.into())
        );
        assert_eq!(next(&mut facts, 1), told[1..]);
        assert!(next(&mut facts, 2).is_empty() && facts.bytes == 0);
    }

    #[test]
    fn what_has_no_room_is_counted_and_told_in_its_place() {
        let mut facts = Facts::default();
        let one = asked(&["true"]);
        let kept = (0..FACTS_MAX + 5).filter_map(|_| facts.started(&one, None));
        assert!(kept.count() <= FACTS_MAX);
        let missed = facts.missed;
        assert!(missed >= 5 && facts.bytes < BYTES_MAX + 1024);
        let last = facts.last;
        // The node takes some: the gap comes before what is new.
        facts.forget(1);
        assert_eq!(facts.started(&one, None), None);
        facts.forget(3);
        facts.started(&one, None);
        let (_, told) = facts.kept.iter().find(|(seq, _)| *seq == last + 1).unwrap();
        let told: Value = serde_json::from_str(told).unwrap();
        assert_eq!(
            (&told["kind"], &told["count"]),
            (&"missed".into(), &missed.into())
        );
    }

    #[test]
    fn a_gap_at_the_end_is_told_too() {
        let mut facts = Facts::default();
        while facts.started(&asked(&["true"]), None).is_some() {}
        let last = facts.last;
        let told = next(&mut facts, last);
        assert_eq!((told.len(), &told[0]["count"]), (1, &1.into()));
    }

    #[test]
    fn a_long_command_is_cut_and_says_so() {
        let long = "ä".repeat(50_000);
        let one = asked(&["sh", "-c", &long, "after"]);
        assert!(one.cut && one.argv.len() == 3);
        assert!(one.argv.iter().map(String::len).sum::<usize>() <= ARGV_MAX);
        assert!(!asked(&["sh", "-c", "short"]).cut);
        let many: Vec<&str> = std::iter::repeat_n("", 100_000).collect();
        let mut words = vec!["true"];
        words.extend(many);
        let one = asked(&words);
        assert!(one.cut && one.argv.len() <= ARGV_MAX);
    }
}
