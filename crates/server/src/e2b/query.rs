//! Queries as E2B's clients write them. Pure.
//!
//! What is unknown is passed over: the clients of every week know more parameters than the last.

use model::id::SandboxId;
use model::limits;

use super::refusal::Refusal;

/// The longest `nextToken` that is looked at; ours have a time and an id.
const TOKEN_BYTES_MAX: usize = 128;

/// Decodes `%41` and `+`; `None` where that cannot be, or is no text.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The pairs of a query, in order. The head of a request bounds their number.
///
/// # Errors
/// A refusal when an escape is broken.
pub(crate) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = unescape(key).zip(unescape(value));
            decoded.ok_or_else(|| Refusal::bad("the query has a broken escape"))
        })
        .collect()
}

/// Sandboxes whose metrics are asked for at once; E2B's own bound.
const IDS_MAX: usize = 100;

/// From when to when metrics are asked for, in milliseconds since 1970.
///
/// # Errors
/// A refusal that names the parameter.
pub(crate) fn span(query: Option<&str>) -> Result<(u64, u64), Refusal> {
    let (mut from, mut to) = (0, u64::MAX);
    for (key, value) in pairs(query)? {
        let seconds = || {
            let seconds = value.parse::<u64>().ok();
            let ms = seconds.map(|seconds| seconds.saturating_mul(1000));
            ms.ok_or_else(|| Refusal::bad(format!("{key}: seconds since 1970")))
        };
        match key.as_str() {
            "start" => from = seconds()?,
            // To the end of that second.
            "end" => to = seconds()?.saturating_add(999),
            _ => {}
        }
    }
    if from > to {
        return Err(Refusal::bad("start: it is later than `end`"));
    }
    Ok((from, to))
}

/// The sandboxes whose metrics are asked for; those that nobody can have are passed over.
///
/// # Errors
/// A refusal where there are none, or too many.
pub(crate) fn sandbox_ids(query: Option<&str>) -> Result<Vec<SandboxId>, Refusal> {
    let pairs = pairs(query)?;
    let lists = pairs.iter().filter(|(key, _)| key == "sandbox_ids");
    let ids = lists.flat_map(|(_, list)| list.split(','));
    let ids: Vec<&str> = ids.filter(|id| !id.is_empty()).take(IDS_MAX + 1).collect();
    if ids.is_empty() || ids.len() > IDS_MAX {
        let message = format!("sandbox_ids: 1 to {IDS_MAX} ids with commas between them");
        return Err(Refusal::bad(message));
    }
    let known = ids.into_iter().map(SandboxId::from_short);
    Ok(known.filter_map(Result::ok).collect())
}

/// A list of sandboxes, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    /// Sandboxes that run are wanted.
    pub(crate) running: bool,
    /// Those that are paused are.
    pub(crate) paused: bool,
    /// Only those that have all of these.
    pub(crate) metadata: Vec<(String, String)>,
    /// Only those of this template.
    pub(crate) template: Option<String>,
    /// Only those that started then or later, in ms since 1970.
    pub(crate) started_after_ms: Option<u64>,
    /// Rows of a page.
    pub(crate) limit: u32,
    /// Where the page before ended.
    pub(crate) before: Option<String>,
}

impl List {
    /// Reads the query of a list. `paused` is what a client gets that names no state.
    ///
    /// # Errors
    /// A refusal that names the parameter.
    pub(crate) fn parse(query: Option<&str>, paused: bool) -> Result<Self, Refusal> {
        let mut list = Self {
            running: true,
            paused,
            metadata: Vec::new(),
            template: None,
            started_after_ms: None,
            limit: limits::PAGE_MAX,
            before: None,
        };
        let mut states = Vec::new();
        for (key, value) in pairs(query)? {
            match key.as_str() {
                "state" => states.extend(value.split(',').map(str::to_owned)),
                "metadata" => list.metadata = metadata(&value)?,
                "template" | "templateID" => list.template = Some(value),
                "limit" => list.limit = limit(&value)?,
                "nextToken" if !value.is_empty() => list.before = Some(before(value)?),
                "startedAfter" => list.started_after_ms = Some(moment(&value)?),
                // Newest first is what we have, and what is sent when nobody says.
                "order" if value != "desc" => {
                    return Err(Refusal::bad("order: only `desc` is known here"));
                }
                _ => {}
            }
        }
        if !states.is_empty() {
            (list.running, list.paused) = wanted(&states)?;
        }
        Ok(list)
    }
}

/// A list of snapshots, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotPage {
    /// Only those of this sandbox.
    pub(crate) sandbox: Option<String>,
    /// Only the one with this id, or those that are called so.
    pub(crate) name: Option<String>,
    /// Rows of a page.
    pub(crate) limit: u32,
    /// Where the page before ended.
    pub(crate) before: Option<String>,
}

impl SnapshotPage {
    /// Reads the query of a list.
    ///
    /// # Errors
    /// A refusal that names the parameter.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut page = Self {
            sandbox: None,
            name: None,
            limit: limits::PAGE_MAX,
            before: None,
        };
        for (key, value) in pairs(query)? {
            match key.as_str() {
                "sandboxID" if !value.is_empty() => page.sandbox = Some(value),
                "name" if !value.is_empty() => page.name = Some(value),
                "limit" => page.limit = limit(&value)?,
                "nextToken" if !value.is_empty() => page.before = Some(before(value)?),
                _ => {}
            }
        }
        Ok(page)
    }
}

fn wanted(states: &[String]) -> Result<(bool, bool), Refusal> {
    let known = |state: &String| state == "running" || state == "paused";
    if !states.iter().all(known) {
        return Err(Refusal::bad("state: `running` and `paused` are known"));
    }
    let has = |name: &str| states.iter().any(|state| state == name);
    Ok((has("running"), has("paused")))
}

/// The clients escape each key and value, join them, escape the whole, and the query escapes it again.
fn metadata(value: &str) -> Result<Vec<(String, String)>, Refusal> {
    let broken = || Refusal::bad("metadata: not `key=value&...`, escaped twice");
    let whole = unescape(value).ok_or_else(broken)?;
    let filters: Option<Vec<_>> = whole
        .split('&')
        .filter(|pair| !pair.is_empty())
        .take(limits::METADATA_FILTERS_MAX + 1)
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            unescape(key).zip(unescape(value))
        })
        .collect();
    let filters = filters.ok_or_else(broken)?;
    if filters.len() > limits::METADATA_FILTERS_MAX {
        let message = format!("metadata: more than {} pairs", limits::METADATA_FILTERS_MAX);
        return Err(Refusal::bad(message));
    }
    Ok(filters)
}

fn limit(value: &str) -> Result<u32, Refusal> {
    match value.parse::<u32>() {
        Ok(limit) if limit > 0 => Ok(limit.min(limits::PAGE_MAX)),
        _ => Err(Refusal::bad("limit: a number from 1 on")),
    }
}

fn moment(value: &str) -> Result<u64, Refusal> {
    let moment = value.parse::<jiff::Timestamp>().ok();
    let ms = moment.and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
    ms.ok_or_else(|| Refusal::bad("startedAfter: a time such as 2026-01-01T00:00:00Z"))
}

fn before(token: String) -> Result<String, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::bad("nextToken: not one of ours"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn escapes_are_decoded_once() {
        for (text, expect) in [
            ("a%20b+c", Some("a b c")),
            ("%2525", Some("%25")),
            ("%C3%a9", Some("é")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%ff", None),
        ] {
            assert_eq!(unescape(text).as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn a_metadata_filter_is_unpacked_as_the_clients_pack_it() {
        let check = |query: &str, expect: &[(&str, &str)]| {
            let list = List::parse(Some(query), true).unwrap();
            assert_eq!(list.metadata, owned(expect), "{query}");
        };
        // What SDK 2.63 sends for {"k 1": "v&1", "z": "y"}.
        check(
            "metadata=k%2525201%3Dv%2525261%26z%3Dy",
            &[("k 1", "v&1"), ("z", "y")],
        );
        check("metadata=user%3Dada", &[("user", "ada")]);
        check("metadata=", &[]);
        for broken in ["metadata=novalue", "metadata=a%3D%2525", "metadata=%"] {
            assert!(List::parse(Some(broken), true).is_err(), "{broken}");
        }
        let many = format!(
            "metadata={}",
            "a%3Db%26".repeat(limits::METADATA_FILTERS_MAX + 1)
        );
        assert!(List::parse(Some(&many), true).is_err());
    }

    #[test]
    fn a_list_is_asked_for_as_in_both_versions() {
        let states = |query: &str, paused| {
            let list = List::parse(Some(query), paused).unwrap();
            (list.running, list.paused)
        };
        assert_eq!(states("", true), (true, true));
        assert_eq!(states("", false), (true, false));
        assert_eq!(states("state=paused", false), (false, true));
        assert_eq!(states("state=running%2Cpaused", false), (true, true));
        assert_eq!(states("state=running&state=paused", false), (true, true));
        let list = List::parse(
            Some("limit=9999&startedAfter=1970-01-01T00:00:01Z&new=x&template=base"),
            true,
        );
        let list = list.unwrap();
        assert_eq!(list.limit, limits::PAGE_MAX);
        assert_eq!(list.started_after_ms, Some(1000));
        assert_eq!(list.template.as_deref(), Some("base"));
        for wrong in [
            "limit=0",
            "limit=-1",
            "state=dead",
            "startedAfter=noon",
            "order=asc",
        ] {
            assert!(List::parse(Some(wrong), true).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_of_metrics_is_in_seconds_and_the_last_one_is_whole() {
        let check = |query, expect: Result<(u64, u64), &str>| {
            let found = span(query).map_err(|refusal| refusal.to_string());
            assert_eq!(found, expect.map_err(str::to_owned), "{query:?}");
        };
        check(None, Ok((0, u64::MAX)));
        check(Some("start=5&end=7"), Ok((5000, 7999)));
        check(Some("start=5&end=5&of_next_week=x"), Ok((5000, 5999)));
        check(Some("end=18446744073709551615"), Ok((0, u64::MAX)));
        check(Some("start=x"), Err("400 start: seconds since 1970"));
        check(
            Some("start=9&end=7"),
            Err("400 start: it is later than `end`"),
        );
    }

    #[test]
    fn metrics_are_of_a_hundred_sandboxes_at_most() {
        let id = "01a1fd07a936799b8274dc62d786b1db";
        let count = |query: &str| sandbox_ids(Some(query)).map_or(0, |ids| ids.len());
        assert_eq!(count(&format!("sandbox_ids={id},{id}&sandbox_ids={id}")), 3);
        assert_eq!(count(&format!("sandbox_ids={id},../x")), 1);
        assert_eq!(count(&format!("sandbox_ids={}", [id; 100].join(","))), 100);
        assert!(sandbox_ids(Some(&format!("sandbox_ids={}", [id; 101].join(",")))).is_err());
        assert!(sandbox_ids(None).is_err());
    }
}
