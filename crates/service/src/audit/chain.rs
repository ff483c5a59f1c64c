//! What a seal says, and whether it is so. Pure.

use crate::hex::hex;
use model::limits;
use sha2::{Digest as _, Sha256};
use store::audit::{FIRST_MARK, Marked, Seal};

/// Before the first seal.
pub(super) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// So that no digest of something else can be taken for one of these.
const DOMAIN: &[u8] = b"cofferdam.audit.seal.v2";

/// What is wrong at a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Seals before it are missing.
    Gap,
    /// It does not stand on the one before.
    Order,
    /// Events under it are missing, or there are some that were not.
    Count,
    /// It, or an event under it, was changed.
    Changed,
    /// It is not the one that was signed.
    Head,
    /// What was signed is not there any more: the end was cut off.
    Cut,
    /// What was signed was changed.
    Signature,
    /// Its events went before their time.
    Early,
    /// Events are there for long and have no seal.
    Behind,
}

impl Flaw {
    /// Its name for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Flaw::Gap => "gap",
            Flaw::Order => "order",
            Flaw::Count => "count",
            Flaw::Changed => "changed",
            Flaw::Head => "head",
            Flaw::Cut => "cut",
            Flaw::Signature => "signature",
            Flaw::Early => "early",
            Flaw::Behind => "behind",
        }
    }

    /// What it means.
    pub fn what(self) -> &'static str {
        match self {
            Flaw::Gap => "seals before this one are missing",
            Flaw::Order => "this seal does not stand on the one before it",
            Flaw::Count => "events under this seal are missing, or there are more than were sealed",
            Flaw::Changed => "this seal, or an event under it, was changed",
            Flaw::Head => "this seal is not the one that was signed",
            Flaw::Cut => "a later seal was signed and is not there any more",
            Flaw::Signature => "what was signed was changed, or signed with another key",
            Flaw::Early => "the events up to this seal were taken away before their time",
            Flaw::Behind => "events wait for this seal for more than a minute",
        }
    }
}

/// The seal over events that follows one, or the first.
pub(super) fn seal(
    before: Option<&Seal>,
    to_mark: u64,
    events: &[&Marked],
    at_ms: u64,
) -> Option<Seal> {
    let tenant = events.first()?.tenant.clone();
    let count = events.len() as u64;
    let mut seal = Seal {
        tenant,
        number: before.map_or(1, |before| before.number + 1),
        from_mark: before.map_or(FIRST_MARK, |before| before.to_mark),
        to_mark,
        events: count,
        total: before.map_or(0, |before| before.total) + count,
        sealed_at_ms: at_ms,
        before: before.map_or(NOTHING, |before| &before.digest).to_owned(),
        content: content(events.iter().copied()),
        digest: String::new(),
        retired: false,
    };
    seal.digest = digest(&seal);
    Some(seal)
}

/// What is wrong at a seal, given the one before it and the events that are there between their marks.
pub(super) fn flaws(before: Option<&Seal>, seal: &Seal, events: &[Marked]) -> Vec<Flaw> {
    if seal.retired {
        // It is the end of what is gone, and only that.
        return match (before, digest(seal) == seal.digest) {
            (None, true) => Vec::new(),
            (None, false) => vec![Flaw::Changed],
            (Some(_), _) => vec![Flaw::Order],
        };
    }
    let mut flaws = Vec::new();
    let number = before.map_or(1, |before| before.number + 1);
    if seal.number != number {
        flaws.push(Flaw::Gap);
    } else if seal.before != before.map_or(NOTHING, |before| &before.digest)
        || seal.from_mark != before.map_or(FIRST_MARK, |before| before.to_mark)
        || seal.total != before.map_or(0, |before| before.total) + seal.events
    {
        flaws.push(Flaw::Order);
    }
    if events.len() as u64 != seal.events {
        flaws.push(Flaw::Count);
    } else if content(events.iter()) != seal.content || digest(seal) != seal.digest {
        flaws.push(Flaw::Changed);
    }
    flaws
}

/// Whether the events under a seal, with all before it, are gone though they were to be kept: `total` is that of
/// the tenant's last seal.
pub(super) fn is_early(seal: &Seal, total: u64, now: u64) -> bool {
    let is_young = now.saturating_sub(seal.sealed_at_ms) < limits::RETAIN_AUDIT_MS;
    seal.retired && is_young && total.saturating_sub(seal.total) < limits::RETAIN_AUDIT_EVENTS
}

/// SHA-256 (FIPS 180-4) over parts, each behind its length, so that two lists of parts that are read as the same
/// text have different digests.
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }
}

/// The digest of all that a seal says, in hexadecimal digits.
fn digest(seal: &Seal) -> String {
    let mut parts = Parts(Sha256::new());
    let mut text = |part: &[u8]| parts.add(part);
    text(DOMAIN);
    text(seal.tenant.as_str().as_bytes());
    text(seal.before.as_bytes());
    for number in [
        seal.number,
        seal.from_mark,
        seal.to_mark,
        seal.events,
        seal.total,
        seal.sealed_at_ms,
    ] {
        text(&number.to_be_bytes());
    }
    text(seal.content.as_bytes());
    hex(&parts.0.finalize())
}

/// The digest of events, in hexadecimal digits.
fn content<'e>(events: impl Iterator<Item = &'e Marked>) -> String {
    let mut parts = Parts(Sha256::new());
    let mut text = |part: &[u8]| parts.add(part);
    for one in events {
        let event = &one.event;
        for number in [one.mark, event.position, event.version, event.at_ms] {
            text(&number.to_be_bytes());
        }
        for part in [
            &event.resource,
            &event.resource_id,
            &event.kind,
            &event.data,
            &event.principal,
        ] {
            text(part.as_bytes());
        }
    }
    hex(&parts.0.finalize())
}

#[cfg(test)]
mod tests;
