//! Tokens that others have signed (JWT, RFC 7519), and who is behind one that was shown.
//!
//! Nothing of a token is believed before its signature is checked, with a key of the issuer that it names and by the
//! algorithm of that key. Then [`rules`] says for whom it stands, and the table whether they are there. What was checked is
//! remembered by the digest of its text; the table is asked again each second, as it is for keys.
//!
//! The attackers are strangers who try texts, people who have a token of an issuer and want more than it says, and an
//! issuer that speaks for others than it may. A stranger learns from a refusal nothing but that it is one, and makes
//! nobody ask the issuer for its keys more than once a minute.

mod json;
mod keys;
mod rules;
#[cfg(test)]
mod tests;
mod text;

pub use keys::{BadKeys, JWKS_BYTES_MAX, JwtKeys};
pub use rules::{Issuer, Login, RoleFrom, TenantFrom};
pub use text::{Algorithm, JWT_BYTES_MAX, is_jwt_text};

use crate::ctx::{Shown, ShownBy};
use crate::error::Fail;
use crate::key::digest;
use crate::{Clock, Ctx, Error, Grant, Service, Who, locked};
use model::id::{PrincipalId, TenantId};
use rules::{Stands, Wrong, decide};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use store::principal::{self, PrincipalRow};
use store::{Tx, tenant};
use text::Parsed;
use tokio::sync::{Notify, watch};

/// Issuers of one server.
pub const ISSUERS_MAX: usize = 16;
/// Tokens of which it is remembered that they were checked: each takes some hundred bytes. Beyond them all are forgotten.
const VERIFIED_MAX: usize = 4096;
/// How long keys count after they were had last. An issuer that is away for longer may have taken one back because
/// somebody has stolen it.
const KEYS_KEPT_MS: u64 = 24 * 3600 * 1000;
/// How often keys are had anew.
const REFRESH: Duration = Duration::from_secs(600);
/// How long it is waited before they are asked for again, whoever wants them: a stranger can name any key.
const AGAIN: Duration = Duration::from_secs(60);
/// How long one try may take.
const FETCH: Duration = Duration::from_secs(10);
/// How long a request waits for keys that are under way.
const WAIT: Duration = Duration::from_secs(5);

/// The issuers, and what was checked.
#[derive(Debug, Default)]
pub(crate) struct Jwts {
    issuers: OnceLock<Vec<Held>>,
    verified: Mutex<HashMap<[u8; 32], Arc<Verified>>>,
}

/// An issuer with its keys of now.
#[derive(Debug)]
struct Held {
    rules: Issuer,
    /// They are a secret of this server, and not had from anywhere.
    is_fixed: bool,
    known: Mutex<Known>,
    /// Somebody has named a key that is not known.
    wanted: Notify,
    /// Counts tries.
    tried: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Option<Arc<JwtKeys>>,
    digest: [u8; 32],
    /// Counts how often they were others: what was checked with those before is checked again.
    number: u64,
    had_at_ms: u64,
    tried_at_ms: u64,
    is_under_way: bool,
}

/// A token that was checked.
#[derive(Debug)]
struct Verified {
    /// Which issuer's.
    issuer: usize,
    /// With which of its keys.
    number: u64,
    stands: Stands,
}

impl Held {
    fn new(rules: Issuer, keys: Option<JwtKeys>) -> Held {
        Held {
            rules,
            is_fixed: keys.is_some(),
            known: Mutex::new(Known {
                keys: keys.map(Arc::new),
                ..Known::default()
            }),
            wanted: Notify::new(),
            tried: watch::Sender::default(),
        }
    }

    /// The keys that count now, and their number. A clock that was set back makes them old, and not young; they may have
    /// come while the request that asks has waited for them.
    fn keys(&self, now_ms: u64) -> Option<(Arc<JwtKeys>, u64)> {
        const WAITED_MS: u64 = 60_000;
        let known = locked(&self.known);
        let since_ms = known.had_at_ms.saturating_sub(WAITED_MS);
        let age_ms = now_ms.checked_sub(since_ms);
        let is_fresh = age_ms.is_some_and(|age| age < KEYS_KEPT_MS + WAITED_MS);
        let is_fresh = self.is_fixed || is_fresh;
        let keys = known.keys.clone().filter(|_| is_fresh)?;
        Some((keys, known.number))
    }

    /// The keys for a token. Those of an issuer that are not there, or of which it names none, are asked for, unless
    /// that was done within the last minute.
    async fn keys_for(
        &self,
        token: &Parsed<'_>,
        now_ms: u64,
    ) -> Result<(Arc<JwtKeys>, u64), Error> {
        let has = |found: &(Arc<JwtKeys>, u64)| found.0.has(token);
        let found = self.keys(now_ms);
        if let Some(found) = found.filter(has) {
            return Ok(found);
        }
        let mut tried = self.tried.subscribe();
        let may_ask = {
            let known = locked(&self.known);
            let ago_ms = now_ms.saturating_sub(known.tried_at_ms);
            known.is_under_way || u128::from(ago_ms) >= AGAIN.as_millis()
        };
        if may_ask && !self.is_fixed {
            self.wanted.notify_one();
            drop(tokio::time::timeout(WAIT, tried.changed()).await);
        }
        self.keys(now_ms).ok_or(Error::IssuerAway)
    }

    /// One try. Whether it has brought keys.
    async fn once(
        &self,
        clock: &Clock,
        fetch: impl Future<Output = Result<Vec<u8>, String>>,
    ) -> bool {
        {
            let mut known = locked(&self.known);
            known.is_under_way = true;
            known.tried_at_ms = clock.now_ms();
        }
        let got = tokio::time::timeout(FETCH, fetch).await;
        let got = got.unwrap_or_else(|_| Err("no answer came in time".to_owned()));
        self.heard(got, clock.now_ms())
    }

    /// Until the next one.
    async fn pause(&self, is_there: bool) {
        tokio::time::sleep(AGAIN).await;
        if is_there {
            let wanted = self.wanted.notified();
            drop(tokio::time::timeout(REFRESH.saturating_sub(AGAIN), wanted).await);
        }
    }

    /// What a try has brought.
    fn heard(&self, got: Result<Vec<u8>, String>, now_ms: u64) -> bool {
        let name = self.rules.name.as_str();
        let read = got.and_then(|text| {
            let keys = JwtKeys::parse(&text, &self.rules.algorithms);
            let keys = keys.map_err(|error| error.to_string())?;
            Ok((keys, sha256(&text)))
        });
        let mut known = locked(&self.known);
        known.is_under_way = false;
        let is_there = read.is_ok();
        match read {
            Ok((keys, digest)) => {
                known.had_at_ms = now_ms;
                if known.keys.is_none() || known.digest != digest {
                    known.keys = Some(Arc::new(keys));
                    known.digest = digest;
                    known.number += 1;
                    tracing::info!(issuer = name, "the keys of an issuer are there");
                }
            }
            Err(why) => tracing::warn!(issuer = name, why, "failed to get the keys of an issuer"),
        }
        drop(known);
        self.tried.send_modify(|count| *count += 1);
        is_there
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

/// What a stranger is told, whatever is wrong.
fn not_believed() -> Error {
    Error::TokenInvalid("the token is not one that this server believes".to_owned())
}

/// Somebody who has never been here looks the same.
fn sent_away(id: &PrincipalId) -> Error {
    Error::TokenInvalid(format!("there is no `{id}`; an admin lets it in"))
}

fn said(wrong: Wrong) -> Error {
    Error::TokenInvalid(format!("the token does not count: {wrong}"))
}

impl Service {
    /// Says whose tokens count, each with its keys where they are a secret of this server. Before the first request; the
    /// first word counts.
    pub fn issuers_are(&self, issuers: Vec<(Issuer, Option<JwtKeys>)>) {
        let held = issuers
            .into_iter()
            .map(|(rules, keys)| Held::new(rules, keys));
        // A second one is a mistake of whoever puts the rooms together, and changes nothing.
        drop(self.inner.jwts.issuers.set(held.collect()));
    }

    /// The issuers of which people get tokens by logging in, with how.
    pub fn logins(&self) -> Vec<(String, Login)> {
        let held = self.inner.jwts.issuers.get();
        let all = held.into_iter().flatten();
        all.filter_map(|held| Some((held.rules.issuer.clone(), held.rules.login.clone()?)))
            .collect()
    }

    /// Keeps the keys of an issuer, until `stopped`: has them now, every ten minutes, and when a token names another,
    /// but never twice in a minute.
    pub async fn issuer_keys_keep<F>(
        &self,
        name: &str,
        fetch: impl Fn() -> F,
        mut stopped: watch::Receiver<bool>,
    ) where
        F: Future<Output = Result<Vec<u8>, String>>,
    {
        let held = self.inner.jwts.issuers.get();
        let held = held
            .into_iter()
            .flatten()
            .find(|one| one.rules.name == name);
        let Some(held) = held else { return };
        loop {
            let is_there = held.once(&self.inner.clock, fetch()).await;
            tokio::select! {
                () = held.pause(is_there) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// Who is behind what was shown: a key, in either form, or a token. Nobody for a key that does not count.
    ///
    /// # Errors
    /// [`Error::TokenInvalid`] for a token that does not count; [`Error::IssuerAway`]; [`Error::Unavailable`] and its like.
    pub async fn shown_who(&self, text: &str) -> Result<Option<Who>, Error> {
        match is_jwt_text(text) {
            true => self.jwt_who(text).await.map(Some),
            false => self.key_who(text).await,
        }
    }

    /// Whether a text says to be a token for this server, right or wrong: such a one is kept from the programs in sandboxes,
    /// which have tokens of their own.
    pub fn is_token_for_us(&self, text: &str) -> bool {
        if !is_jwt_text(text) {
            return false;
        }
        let Some(token) = text::parse(text) else {
            return false;
        };
        let mut issuers = self.inner.jwts.issuers.get().into_iter().flatten();
        issuers.any(|one| one.rules.is_meant(&token.claims))
    }

    async fn jwt_who(&self, text: &str) -> Result<Who, Error> {
        let (digest, now) = (digest(text), self.now_ms());
        let forgotten = match self.believed_who(&digest, now) {
            Ok(who) => return Ok(who),
            Err(forgotten) => forgotten,
        };
        let verified = match self.jwt_remembered(&digest, now) {
            Some(verified) => verified,
            None => self.jwt_verified(text, digest, now).await?,
        };
        let who = self.jwt_stands(&verified).await?;
        self.believe(forgotten, digest, &who, now);
        Ok(who)
    }

    /// What was checked of this text, if it would be found the same now.
    fn jwt_remembered(&self, digest: &[u8; 32], now_ms: u64) -> Option<Arc<Verified>> {
        let verified = locked(&self.inner.jwts.verified).get(digest).cloned()?;
        let (_, number) = self.issuer(verified.issuer)?.keys(now_ms)?;
        let time = verified.stands.from_s..verified.stands.until_s;
        (number == verified.number && time.contains(&(now_ms / 1000))).then_some(verified)
    }

    fn issuer(&self, number: usize) -> Option<&Held> {
        self.inner.jwts.issuers.get()?.get(number)
    }

    /// Checks a text whole, and remembers it.
    async fn jwt_verified(
        &self,
        text: &str,
        digest: [u8; 32],
        now_ms: u64,
    ) -> Result<Arc<Verified>, Error> {
        let token = text::parse(text).ok_or_else(not_believed)?;
        let named = token.claims.get("iss").and_then(Value::as_str);
        let mut issuers = self.inner.jwts.issuers.get().into_iter().flatten();
        // Keys are those of this issuer alone: another's may have the same name.
        let at = issuers.position(|one| named == Some(&one.rules.issuer));
        let at = at.ok_or_else(not_believed)?;
        let held = self.issuer(at).ok_or_else(not_believed)?;
        let (keys, number) = held.keys_for(&token, now_ms).await?;
        if !keys.signed(&token) {
            return Err(not_believed());
        }
        let stands = decide(&held.rules, &token.claims, now_ms / 1000).map_err(said)?;
        let verified = Arc::new(Verified {
            issuer: at,
            number,
            stands,
        });
        let mut all = locked(&self.inner.jwts.verified);
        if all.len() >= VERIFIED_MAX {
            all.clear();
        }
        all.insert(digest, Arc::clone(&verified));
        Ok(verified)
    }

    /// Who it is, by the table: a principal that is not there, or not this issuer's, is nobody.
    async fn jwt_stands(&self, verified: &Verified) -> Result<Who, Error> {
        let held = self.issuer(verified.issuer).ok_or_else(not_believed)?;
        let stands = &verified.stands;
        let (named, id) = (stands.tenant.clone(), stands.principal.clone());
        let found = {
            let _place = self.lookup_place().await;
            self.look(move |tx| person(tx, &named, &id)).await?
        };
        let row = match found {
            Person::There(row) => row,
            Person::Away(tenant) if held.rules.creates => {
                self.jwt_lets_in(&held.rules, tenant, stands).await?
            }
            Person::Away(_) | Person::SentAway => {
                return Err(sent_away(&stands.principal));
            }
        };
        if row.issuer.as_ref().is_some_and(|of| *of != held.rules.name) {
            let message = format!("`{}` came from another issuer", row.id);
            return Err(Error::TokenInvalid(message));
        }
        let until_ms = stands.until_s.saturating_mul(1000);
        Ok(Who {
            tenant: row.tenant,
            principal: row.id,
            grant: Grant {
                kind: row.kind,
                role: row.role.min(stands.role),
                scopes: stands.scopes.clone(),
                until_ms: Some(until_ms),
            },
            shown: Some(Shown {
                by: ShownBy::Token(held.rules.name.clone()),
                expires_at_ms: Some(until_ms),
            }),
        })
    }

    /// Lets in whom an issuer has named first.
    async fn jwt_lets_in(
        &self,
        issuer: &Issuer,
        tenant: TenantId,
        stands: &Stands,
    ) -> Result<PrincipalRow, Error> {
        let ctx = Ctx {
            tenant: tenant.clone(),
            ..Ctx::internal("issuer")
        };
        let row = PrincipalRow {
            tenant,
            id: stands.principal.clone(),
            kind: issuer.kind,
            role: stands.role,
            issuer: Some(issuer.name.clone()),
            principal: ctx.principal.clone(),
            created_at_ms: self.now_ms(),
        };
        self.unit(move |tx| {
            // It may be deleted since it was looked for.
            if !tenant::stays(tx, &row.tenant)? {
                return Err(said(Wrong::Tenant).into());
            }
            // Two first requests of one person come at once, also at two servers.
            if let Some(there) = principal::get(tx, &row.tenant, row.id.as_str())? {
                return Ok(there);
            }
            if principal::was_removed(tx, &row.tenant, &row.id)? {
                return Err(sent_away(&row.id).into());
            }
            crate::principal::check_room(tx, &row.tenant)?;
            match crate::principal::insert_if_absent(tx, &ctx, &row)? {
                true => Ok(row.clone()),
                false => {
                    let there = principal::get(tx, &row.tenant, row.id.as_str())?;
                    there.ok_or(Fail::Ours(Error::Unavailable(None)))
                }
            }
        })
        .await
    }

    /// Somebody whom the configuration of a development names, as they are in the table.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn development_who(
        &self,
        tenant: &TenantId,
        id: &PrincipalId,
    ) -> Result<Option<Who>, Error> {
        let (of, id) = (tenant.clone(), id.to_string());
        let row = self
            .look(move |tx| Ok(principal::get(tx, &of, &id)?))
            .await?;
        Ok(row.map(|row| Who {
            tenant: row.tenant,
            principal: row.id,
            grant: Grant {
                kind: row.kind,
                role: row.role,
                scopes: model::access::Scopes::default(),
                until_ms: None,
            },
            shown: Some(Shown {
                by: ShownBy::Development,
                expires_at_ms: None,
            }),
        }))
    }

    /// Writes down that requests without a credential are let in as somebody: each start of a development that does so
    /// is in the record.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn bypass_begins(
        &self,
        tenant: &TenantId,
        id: &PrincipalId,
        listen: &str,
    ) -> Result<(), Error> {
        let ctx = Ctx {
            tenant: tenant.clone(),
            ..Ctx::internal("start")
        };
        let (of, now) = (format!("{tenant}/{id}"), self.now_ms());
        let data = serde_json::json!({"principal": id, "listen": listen});
        self.unit(move |tx| {
            let of = ("principal", of.as_str());
            Ok(crate::key::tell(tx, &ctx, of, "auth.bypassed", &data, now)?)
        })
        .await
    }
}

/// What the table says of somebody.
enum Person {
    There(PrincipalRow),
    /// Not seen before, in this tenant.
    Away(TenantId),
    /// An admin has sent them away, and lets them in again, or not.
    SentAway,
}

fn person(tx: &mut Tx<'_>, named: &str, id: &PrincipalId) -> Result<Person, Fail> {
    let row = tenant::get(tx, named)?;
    let tenant = row.ok_or(Fail::Ours(said(Wrong::Tenant)))?.id;
    if let Some(row) = principal::get(tx, &tenant, id.as_str())? {
        return Ok(Person::There(row));
    }
    Ok(match principal::was_removed(tx, &tenant, id)? {
        true => Person::SentAway,
        false => Person::Away(tenant),
    })
}
