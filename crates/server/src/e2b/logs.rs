//! The logs of a sandbox as E2B's clients ask for them: what happened to it. What its programs wrote is not
//! in them.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use model::id::SandboxId;
use model::limits;
use serde_json::json;
use service::{Ctx, Event};

use super::control::Named;
use super::query;
use super::refusal::Refusal;
use super::wire;
use crate::App;

/// Lines of one answer; E2B's own bound.
const LINES_MAX: usize = 1000;
/// The longest text that is searched for; E2B's own bound.
const SEARCH_BYTES_MAX: usize = 256;
/// Events of one sandbox that are looked through: a thousand pauses and resumes have 4,000.
const EVENTS_MAX: usize = 10_000;
/// The levels of a line, the least first.
const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

/// Which lines are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// From this moment on, or back from it; in milliseconds since 1970.
    from_ms: Option<u64>,
    /// The newest first.
    is_backward: bool,
    /// This level and those above it, by its place in [`LEVELS`].
    level: usize,
    /// With this text in them.
    search: String,
    /// At most so many.
    limit: usize,
}

impl Asked {
    /// # Errors
    /// A refusal that names the parameter.
    fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut asked = Self {
            from_ms: None,
            is_backward: false,
            level: 0,
            search: String::new(),
            limit: LINES_MAX,
        };
        for (key, value) in query::pairs(query)? {
            let wrong = |what: &str| Refusal::bad(format!("{key}: {what}"));
            match key.as_str() {
                // What the first version calls `start` the second calls `cursor`.
                "cursor" | "start" => {
                    let ms = value
                        .parse()
                        .map_err(|_| wrong("milliseconds since 1970"))?;
                    asked.from_ms = Some(ms);
                }
                "direction" => {
                    asked.is_backward = match value.as_str() {
                        "forward" => false,
                        "backward" => true,
                        _ => return Err(wrong("`forward` or `backward`")),
                    };
                }
                "level" => {
                    let known = LEVELS.iter().position(|level| *level == value);
                    asked.level = known.ok_or_else(|| wrong("debug, info, warn or error"))?;
                }
                "search" if value.len() > SEARCH_BYTES_MAX => {
                    return Err(wrong("at most 256 bytes"));
                }
                "search" => asked.search = value,
                "limit" => {
                    let limit = value.parse::<usize>().ok();
                    let limit = limit.filter(|limit| (1..=LINES_MAX).contains(limit));
                    asked.limit = limit.ok_or_else(|| wrong("a number from 1 to 1000"))?;
                }
                _ => {}
            }
        }
        Ok(asked)
    }

    /// The lines that are asked for, of all that there are, the oldest first.
    fn of(&self, mut events: Vec<Event>) -> Vec<Event> {
        if self.is_backward {
            events.reverse();
        }
        let in_time = |event: &Event| match self.from_ms {
            None => true,
            Some(from) if self.is_backward => event.at_ms <= from,
            Some(from) => event.at_ms >= from,
        };
        let is_asked = |event: &Event| {
            let level = LEVELS
                .iter()
                .position(|level| *level == level_of(&event.kind));
            in_time(event)
                && level.is_none_or(|level| level >= self.level)
                && event.kind.contains(&self.search)
        };
        let asked = events.into_iter().filter(is_asked);
        asked.take(self.limit).collect()
    }
}

/// How bad it is what happened.
pub(crate) fn level_of(kind: &str) -> &'static str {
    match kind {
        "sandbox.failed" => "error",
        _ => "info",
    }
}

/// As the first version answers.
pub(crate) async fn first(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let events = Asked::parse(query.as_deref())?.of(all(&app, &ctx, &id).await?);
    let lines: Vec<_> = events.iter().map(wire::log_line).collect();
    let entries: Vec<_> = events.iter().map(wire::log_entry).collect();
    Ok(Answer(json!({"logs": lines, "logEntries": entries})).into_response())
}

/// As the second does.
pub(crate) async fn second(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Named(id): Named,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let events = Asked::parse(query.as_deref())?.of(all(&app, &ctx, &id).await?);
    let entries: Vec<_> = events.iter().map(wire::log_entry).collect();
    Ok(Answer(json!({"logs": entries})).into_response())
}

/// Everything that happened to a sandbox, also to one that is over.
async fn all(app: &App, ctx: &Ctx, id: &SandboxId) -> Result<Vec<Event>, Refusal> {
    let mut all: Vec<Event> = Vec::new();
    loop {
        let after = all.last().map_or(0, |event| event.version);
        let page = app.service.sandbox_events(ctx, id, after, limits::PAGE_MAX);
        let page = match page.await {
            Err(service::Error::NotFound) => return Err(Refusal::no_sandbox(id.short())),
            page => page?,
        };
        let is_last = page.len() < limits::PAGE_MAX as usize;
        all.extend(page);
        if is_last || all.len() >= EVENTS_MAX {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64, kind: &str) -> Event {
        Event {
            position: at_ms,
            resource: "sandbox".to_owned(),
            resource_id: String::new(),
            version: at_ms,
            kind: kind.to_owned(),
            data: "{}".to_owned(),
            principal: "uid:1".to_owned(),
            at_ms,
        }
    }

    /// The times of the lines, or the refusal.
    fn check(query: &str, expect: Result<&[u64], &str>) {
        let kinds = ["requested", "ready", "extended", "failed"];
        let events = (1..).zip(kinds);
        let events = events.map(|(at, kind)| event(at, &format!("sandbox.{kind}")));
        let found = match Asked::parse(Some(query)) {
            Ok(asked) => {
                let found = asked.of(events.collect()).into_iter();
                Ok(found.map(|event| event.at_ms).collect::<Vec<_>>())
            }
            Err(refusal) => Err(refusal.to_string()),
        };
        let expect = expect.map(<[u64]>::to_vec).map_err(str::to_owned);
        assert_eq!(found, expect, "{query}");
    }

    #[test]
    fn lines_are_found_by_time_level_and_text_in_either_direction() {
        check("", Ok(&[1, 2, 3, 4]));
        check("of_next_week=1", Ok(&[1, 2, 3, 4]));
        check("cursor=2", Ok(&[2, 3, 4]));
        check("cursor=3&direction=backward&limit=2", Ok(&[3, 2]));
        check("start=4", Ok(&[4]));
        check("level=info&search=re", Ok(&[1, 2]));
        check("level=warn", Ok(&[4]));
        check("level=error&direction=backward", Ok(&[4]));
        check("search=READY", Ok(&[]));
        check("limit=1", Ok(&[1]));
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        check("limit=0", Err("400 limit: a number from 1 to 1000"));
        check("limit=1001", Err("400 limit: a number from 1 to 1000"));
        check("cursor=x", Err("400 cursor: milliseconds since 1970"));
        check("level=loud", Err("400 level: debug, info, warn or error"));
        check(
            "direction=up",
            Err("400 direction: `forward` or `backward`"),
        );
        let long = format!("search={}", "x".repeat(257));
        check(&long, Err("400 search: at most 256 bytes"));
    }
}
