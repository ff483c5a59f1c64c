//! What was refused to somebody who is known, as events: `request.refused`.
//!
//! It is a note of what did not happen, so it is written behind the answer, and what this process has in memory when it
//! dies is not in the record. Everything here is bounded: what is beyond it is counted.

use crate::hex::hex;
use crate::{Caller, Ctx, Error, Service, locked, random};
use model::id::{KeyId, PrincipalId, TenantId};
use model::limits;
use model::refusal::Minute;
use std::collections::HashMap;
use store::event::{self, NewEvent};
use store::{StoreError, Tx, tenant};

/// Notes that wait to be written, of some hundred bytes each: twice a second they are.
const WAITING_MAX: usize = 4096;
/// The longest text of one, in characters.
const TEXT_MAX: usize = 256;
/// Notes that are written at a time, so that others are answered in between.
const BATCH: usize = 200;

/// A request that was refused to somebody who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In whose record it is told: that of whoever asked.
    pub tenant: TenantId,
    /// Who asked.
    pub principal: PrincipalId,
    /// The key that was shown, where it was one of the table.
    pub key: Option<KeyId>,
    /// What was asked: a method and the template of a route, never a path with its values or its query.
    pub action: String,
    /// What it was about, where the path has named one thing.
    pub about: Option<String>,
    /// The code of the answer.
    pub code: &'static str,
    /// What the answer said was missing. It is cut where it is long.
    pub why: String,
}

/// What is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    tenant: TenantId,
    principal: PrincipalId,
    data: String,
    at_ms: u64,
    /// How many refused requests it tells of.
    stands_for: u64,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recorded {
    /// Events that were written.
    pub written: usize,
    /// Refused requests that are in no record: there was no room for them, or an earlier pass could not write them.
    pub lost: u64,
}

impl Noted {
    /// What was refused to whoever asks.
    pub(crate) fn of(ctx: &Ctx, data: &serde_json::Value, at_ms: u64) -> Noted {
        Noted {
            tenant: ctx.tenant.clone(),
            principal: ctx.principal.clone(),
            data: data.to_string(),
            at_ms,
            stands_for: 1,
        }
    }
}

/// What was refused lately.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    minutes: HashMap<TenantId, Minute>,
    waiting: Vec<Noted>,
    /// Those for which there was no room at all, or that could not be written.
    lost: u64,
}

impl Notes {
    /// Whether one more refusal is an event of its own; else it is counted, and told when the minute is over.
    fn one_more(&mut self, tenant: &TenantId, who: &PrincipalId, now_ms: u64) -> bool {
        let minute = self.minutes.get(tenant);
        if minute.is_some_and(|minute| minute.is_over(now_ms)) {
            self.end(tenant, now_ms);
        }
        let count = self.minutes.len() as u64;
        if count >= limits::TENANTS_MAX && !self.minutes.contains_key(tenant) {
            self.lose(1);
            return false;
        }
        let minute = self.minutes.entry(tenant.clone());
        let minute = minute.or_insert_with(|| Minute::begin(now_ms));
        minute.one_more(who)
    }

    /// Ends the minute of a tenant, and notes how many were left out in it.
    fn end(&mut self, tenant: &TenantId, now_ms: u64) {
        let Some(minute) = self.minutes.remove(tenant) else {
            return;
        };
        for (who, left_out) in minute.left_out() {
            let data = match who {
                Some(_) => serde_json::json!({"left_out": left_out}),
                None => serde_json::json!({"left_out": left_out, "of": "others"}),
            };
            let noted = Noted {
                tenant: tenant.clone(),
                principal: who.unwrap_or_else(|| Ctx::internal("door").principal),
                data: data.to_string(),
                at_ms: now_ms,
                stands_for: left_out,
            };
            self.put(noted);
        }
    }

    fn put(&mut self, noted: Noted) {
        if self.waiting.len() >= WAITING_MAX {
            self.lose(noted.stands_for);
            return;
        }
        self.waiting.push(noted);
    }

    fn lose(&mut self, refused: u64) {
        self.lost = self.lost.saturating_add(refused);
    }

    /// What is to be written now, and how many were lost.
    fn due(&mut self, now_ms: u64) -> (Vec<Noted>, u64) {
        let minutes = self.minutes.iter();
        let over = minutes.filter(|(_, minute)| minute.is_over(now_ms));
        let over: Vec<TenantId> = over.map(|(tenant, _)| tenant.clone()).collect();
        for tenant in over {
            self.end(&tenant, now_ms);
        }
        let lost = std::mem::take(&mut self.lost);
        (std::mem::take(&mut self.waiting), lost)
    }
}

impl Service {
    /// Whether what was refused to whoever asks is an event of its own; else it is counted.
    pub(crate) fn may_note_refusal(&self, ctx: &Ctx) -> bool {
        let now_ms = self.now_ms();
        match &ctx.caller {
            Caller::User(_) => {
                locked(&self.inner.refused).one_more(&ctx.tenant, &ctx.principal, now_ms)
            }
            // Loops ask for what is there already, and no more often.
            Caller::Node(_) | Caller::Internal => true,
        }
    }

    /// Notes that something was refused to somebody. It is written behind the request, by [`refusals_pass`]; at most
    /// [`model::refusal::SINGLES_MAX`] of one principal within a minute, and the others are one event that counts them.
    pub fn note_refusal(&self, refused: Refused) {
        let at_ms = self.now_ms();
        let mut notes = locked(&self.inner.refused);
        if !notes.one_more(&refused.tenant, &refused.principal, at_ms) {
            return;
        }
        let mut data = serde_json::json!({
            "action": short(&refused.action), "code": refused.code, "why": short(&refused.why),
        });
        if let Some(about) = refused.about {
            data["about"] = short(&about).into();
        }
        if let Some(key) = refused.key {
            data["key"] = key.as_str().into();
        }
        let noted = Noted {
            tenant: refused.tenant,
            principal: refused.principal,
            data: data.to_string(),
            at_ms,
            stands_for: 1,
        };
        notes.put(noted);
    }
}

/// Writes what was refused since the last time. What could not be written is not tried again: the next pass that gets
/// through says how many that was. Where the database has written it and could not say so, that is too many.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn refusals_pass(service: &Service) -> Result<Recorded, Error> {
    let (noted, lost) = locked(&service.inner.refused).due(service.now_ms());
    let mut batches = noted.chunks(BATCH);
    while let Some(batch) = batches.next() {
        if let Err(error) = record(service, batch).await {
            let mut notes = locked(&service.inner.refused);
            notes.lose(lost);
            let left = batch.iter().chain(batches.flatten());
            left.for_each(|one| notes.lose(one.stands_for));
            return Err(error);
        }
    }
    Ok(Recorded {
        written: noted.len(),
        lost,
    })
}

async fn record(service: &Service, batch: &[Noted]) -> Result<(), Error> {
    let mut named = Vec::with_capacity(batch.len());
    for one in batch {
        named.push((id()?, one.clone()));
    }
    let written = service.unit(move |tx| {
        for (id, one) in &named {
            write(tx, id, "request.refused", one)?;
        }
        Ok(())
    });
    written.await
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// An id for the event of one: there is no row that it could be about.
pub(crate) fn id() -> Result<String, Error> {
    Ok(format!("ref_{}", hex(&random::<16>()?)))
}

/// Writes one into the record of whoever asked, as an event of its own: what was refused has changed nothing that it
/// could be beside.
pub(crate) fn write(
    tx: &mut Tx<'_>,
    id: &str,
    kind: &str,
    noted: &Noted,
) -> Result<(), StoreError> {
    // A key of a tenant that was just deleted is still believed for a second, and nothing is to be left behind.
    if !tenant::stays(tx, &noted.tenant)? {
        return Ok(());
    }
    let new = NewEvent {
        tenant: &noted.tenant,
        resource: "refusal",
        resource_id: id,
        version: 1,
        kind,
        data: &noted.data,
        principal: &noted.principal,
        at_ms: noted.at_ms,
    };
    event::append(tx, &new)
}
