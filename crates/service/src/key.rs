//! Keys: texts that stand for a principal, and who is behind one that was shown.
//!
//! A key is 256 random bits, so a plain digest of it in the table is enough: nobody finds the text by trying. It is
//! told once. Who is behind one is remembered for a second: that is how long a key that was taken back may still be
//! believed by another server; this one forgets all of them at once.

use crate::ctx::{Shown, ShownBy};
use crate::enroll::TOKEN_PREFIX;
use crate::error::Fail;
use crate::hex::hex;
use crate::jwt::is_jwt_text;
use crate::{Ctx, Error, Grant, Service, Who, locked, page, random};
use model::access::{Action, Scopes};
use model::id::KeyId;
use model::limits;
use model::principal::is_name;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::Mutex;
use store::event::{self, NewEvent};
use store::key::{self, KeyDigests, KeyOwner, KeyRow};
use store::{StoreError, Tx};
use tokio::sync::{Semaphore, SemaphorePermit};

/// What every key begins with, so that it is recognised where it does not belong.
const KEY_PREFIX: &str = "cfd_";
/// What the form of a key for E2B's clients begins with, and its digits: their SDKs up to 2.45 refuse any other.
const E2B_PREFIX: &str = "e2b_";
const E2B_DIGITS: usize = 40;
/// What a token of an issuer begins with: the brace and the quote of an object, in base64.
const JWT_START: &str = "eyJ";
/// Digits of a key.
const DIGITS: usize = 64;
/// Digits of a key that are shown, so that a person can tell which one it is; 32 of its 256 bits.
const SHOWN: usize = 8;
/// How long it is remembered who is behind a key.
const BELIEVED_MS: u64 = 1000;
/// Keys of which it is remembered: each takes some hundred bytes. Beyond them all are forgotten.
const BELIEVED_MAX: usize = 4096;
/// Keys that are looked up at a time: whoever reaches the port can show any number of wrong ones, and each is a
/// question to the database that others wait behind.
const LOOKUPS_MAX: usize = 8;
/// How old the time of the last use may be before it is written anew.
const USED_EVERY_MS: u64 = 60_000;

/// A key that somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewKey {
    /// For which principal it is to stand.
    pub owner: String,
    /// Its name for people; may be empty.
    pub name: String,
    /// What it is to be narrowed to.
    pub scopes: Vec<String>,
    /// How long it is to count, in milliseconds; without an end when absent.
    pub life_ms: Option<u64>,
}

/// A page of keys, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyRow>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<String>,
}

/// Who is behind keys that were shown lately.
#[derive(Debug)]
pub(crate) struct Believed {
    known: Mutex<Known>,
    /// Keys whose use is to be written down, with its time.
    used: Mutex<HashMap<KeyId, u64>>,
    lookups: Semaphore,
}

#[derive(Debug, Default)]
struct Known {
    /// Counts how often all were forgotten: what was asked before that is not remembered after it.
    forgotten: u64,
    by_digest: HashMap<[u8; 32], Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    who: Who,
    read_at_ms: u64,
    expires_at_ms: Option<u64>,
}

impl Default for Believed {
    fn default() -> Believed {
        Believed {
            known: Mutex::default(),
            used: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS_MAX),
        }
    }
}

impl Seen {
    /// Whether it counts now. A clock that was set back makes it old, and not young.
    fn counts(&self, now_ms: u64) -> bool {
        let age = now_ms.checked_sub(self.read_at_ms);
        age.is_some_and(|age| age < BELIEVED_MS) && !is_over(self.expires_at_ms, now_ms)
    }
}

fn is_over(expires_at_ms: Option<u64>, now_ms: u64) -> bool {
    expires_at_ms.is_some_and(|at| at <= now_ms)
}

impl Known {
    fn get(&self, digest: &[u8; 32], now_ms: u64) -> Option<Who> {
        let seen = self.by_digest.get(digest);
        seen.filter(|seen| seen.counts(now_ms))
            .map(|seen| seen.who.clone())
    }

    fn put(&mut self, forgotten: u64, digest: [u8; 32], seen: Seen) {
        if forgotten != self.forgotten {
            return;
        }
        if self.by_digest.len() >= BELIEVED_MAX {
            self.by_digest.clear();
        }
        self.by_digest.insert(digest, seen);
    }
}

/// Whether a text looks like a key. One that does not is not asked for.
pub fn is_key_text(text: &str) -> bool {
    is_digits_after(text, KEY_PREFIX, DIGITS)
}

/// Whether a text looks like the form of a key that E2B's clients take, which counts at their door alone.
pub fn is_e2b_form(text: &str) -> bool {
    is_digits_after(text, E2B_PREFIX, E2B_DIGITS)
}

/// Whether a text begins as keys, tokens of machines or tokens of issuers do: also one that was cut off or written
/// wrong, which opens nothing and is most of one that does.
pub fn looks_like_credential(text: &str) -> bool {
    let starts = [KEY_PREFIX, E2B_PREFIX, TOKEN_PREFIX, JWT_START];
    starts.into_iter().any(|start| text.starts_with(start)) || is_jwt_text(text)
}

fn is_digits_after(text: &str, prefix: &str, count: usize) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let rest = text.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.len() == count && rest.bytes().all(hex))
}

/// The form of a key, or of the token of a server, for E2B's clients: `e2b_` and 40 digits. It cannot be turned
/// back.
#[must_use]
pub fn e2b_form(text: &str) -> String {
    let digest = Sha256::new()
        .chain_update("cofferdam e2b api key\0")
        .chain_update(text)
        .finalize();
    let digits = hex(&digest);
    let digits = digits.get(..E2B_DIGITS).unwrap_or_default();
    format!("{E2B_PREFIX}{digits}")
}

pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A new key with its text, and what is kept of that.
pub(crate) struct Made {
    pub(crate) row: KeyRow,
    pub(crate) digests: KeyDigests,
    pub(crate) text: String,
}

impl Service {
    /// Makes a key for a principal, and tells its text this once.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`] for no principal of the tenant; [`Error::Invalid`];
    /// [`Error::TooMuch`].
    pub async fn key_create(&self, ctx: &Ctx, new: NewKey) -> Result<(KeyRow, String), Error> {
        ctx.may(Action::KeyWrite)?;
        let Made { row, digests, text } = self.key_made(ctx, &new)?;
        let (ctx, inserted) = (ctx.clone(), row.clone());
        self.unit(move |tx| {
            if key::count(tx, &ctx.tenant)? >= limits::KEYS_MAX {
                let message = format!("a tenant has at most {} keys", limits::KEYS_MAX);
                let code = "too_much";
                return Err(Error::TooMuch { code, message }.into());
            }
            insert(tx, &ctx, &inserted, &digests)
        })
        .await?;
        Ok((row, text))
    }

    /// The key that is asked for, made and not written.
    pub(crate) fn key_made(&self, ctx: &Ctx, new: &NewKey) -> Result<Made, Error> {
        let scopes = checked(ctx, new)?;
        let now = self.now_ms();
        let text = format!("{KEY_PREFIX}{}", hex(&random::<DIGITS_BYTES>()?));
        let shown = text.get(..KEY_PREFIX.len() + SHOWN).unwrap_or_default();
        let owner = new.owner.parse().map_err(|_| Error::NotFound)?;
        let row = KeyRow {
            id: KeyId::from_parts(now, random()?),
            tenant: ctx.tenant.clone(),
            owner,
            name: new.name.clone(),
            prefix: shown.to_owned(),
            scopes,
            made_by: ctx.principal.clone(),
            created_at_ms: now,
            expires_at_ms: until(ctx, new, now)?,
            used_at_ms: None,
        };
        let digests = KeyDigests {
            own: hex(&digest(&text)),
            e2b: hex(&digest(&e2b_form(&text))),
        };
        Ok(Made { row, digests, text })
    }

    /// Keys of the tenant by id, those after the page that ended with `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn key_list(
        &self,
        ctx: &Ctx,
        after: Option<&str>,
        limit: u32,
    ) -> Result<KeyPage, Error> {
        ctx.may(Action::KeyRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (tenant, after) = (ctx.tenant.clone(), after.unwrap_or("").to_owned());
        let listed = self.look(move |tx| Ok(key::list(tx, &tenant, &after, limit + 1)?));
        let mut keys = listed.await?;
        let next = page::cut(&mut keys, limit, |row| row.id.to_string());
        Ok(KeyPage { keys, next })
    }

    /// Takes a key back. This server does not believe it from then on, others not after a second.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`].
    pub async fn key_revoke(&self, ctx: &Ctx, id: &KeyId) -> Result<KeyRow, Error> {
        ctx.may(Action::KeyWrite)?;
        let (ctx, id, now) = (ctx.clone(), id.clone(), self.now_ms());
        let revoked = self.unit(move |tx| {
            let row = key::get(tx, &ctx.tenant, &id)?;
            let row = row.ok_or(Fail::Ours(Error::NotFound))?;
            key::delete(tx, &id)?;
            let data = serde_json::json!({"owner": row.owner, "prefix": row.prefix});
            tell(tx, &ctx, ("key", id.as_str()), "key.revoked", &data, now)?;
            Ok(row)
        });
        let row = revoked.await;
        // Also when it is not known whether it happened.
        self.keys_forget();
        row
    }

    /// Who is behind a key that was shown, in either form; nobody, when it is not known, was taken back, or its time is over.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn key_who(&self, text: &str) -> Result<Option<Who>, Error> {
        if !is_key_text(text) && !is_e2b_form(text) {
            return Ok(None);
        }
        let (digest, now) = (digest(text), self.now_ms());
        let forgotten = match self.believed_who(&digest, now) {
            Ok(who) => return Ok(Some(who)),
            Err(forgotten) => forgotten,
        };
        let wanted = hex(&digest);
        let found = {
            let _place = self.lookup_place().await;
            self.look(move |tx| Ok(key::of_digest(tx, &wanted)?))
                .await?
        };
        let Some(KeyOwner { key, kind, role }) = found else {
            return Ok(None);
        };
        if is_over(key.expires_at_ms, now) {
            return Ok(None);
        }
        self.key_note_use(&key, now);
        let who = Who {
            tenant: key.tenant,
            principal: key.owner,
            grant: Grant {
                kind,
                role,
                scopes: key.scopes,
                until_ms: key.expires_at_ms,
            },
            shown: Some(Shown {
                by: ShownBy::Key(key.id),
                expires_at_ms: key.expires_at_ms,
            }),
        };
        self.believe(forgotten, digest, &who, now);
        Ok(Some(who))
    }

    /// Who was behind what has this digest within the last second; else how often all were forgotten, for
    /// [`Service::believe`].
    pub(crate) fn believed_who(&self, digest: &[u8; 32], now_ms: u64) -> Result<Who, u64> {
        let known = locked(&self.inner.believed.known);
        known.get(digest, now_ms).ok_or(known.forgotten)
    }

    /// Remembers for a second who is behind something.
    pub(crate) fn believe(&self, forgotten: u64, digest: [u8; 32], who: &Who, now_ms: u64) {
        let seen = Seen {
            who: who.clone(),
            read_at_ms: now_ms,
            expires_at_ms: who.shown.as_ref().and_then(|shown| shown.expires_at_ms),
        };
        locked(&self.inner.believed.known).put(forgotten, digest, seen);
    }

    /// A place among those who ask the table for somebody.
    pub(crate) async fn lookup_place(&self) -> Option<SemaphorePermit<'_>> {
        self.inner.believed.lookups.acquire().await.ok()
    }

    /// Believes no key any more without asking again.
    pub(crate) fn keys_forget(&self) {
        let mut known = locked(&self.inner.believed.known);
        known.forgotten += 1;
        known.by_digest.clear();
    }

    /// Remembers that a key was used, to be written down behind the request. One that is used all the time is
    /// written once a minute.
    fn key_note_use(&self, key: &KeyRow, now_ms: u64) {
        let last = key.used_at_ms.unwrap_or(0);
        let mut used = locked(&self.inner.believed.used);
        if now_ms.saturating_sub(last) >= USED_EVERY_MS && used.len() < BELIEVED_MAX {
            used.insert(key.id.clone(), now_ms);
        }
    }
}

/// Bytes behind the digits of a key.
const DIGITS_BYTES: usize = DIGITS / 2;

/// Writes down when keys were used. If we die before it, those uses are not seen, and nothing else is lost.
///
/// # Errors
/// [`Error::Unavailable`] and its like.
pub async fn used_pass(service: &Service) -> Result<(), Error> {
    let used = std::mem::take(&mut *locked(&service.inner.believed.used));
    if used.is_empty() {
        return Ok(());
    }
    // In the order of their ids, so that two servers lock rows in the same one.
    let used: std::collections::BTreeMap<KeyId, u64> = used.into_iter().collect();
    let write = move |tx: &mut Tx<'_>| {
        for (id, at_ms) in &used {
            key::used(tx, id, *at_ms)?;
        }
        Ok(())
    };
    service.unit(write).await
}

/// Until when a key is to count: no longer than the credential of who makes it, or that would never end.
fn until(ctx: &Ctx, new: &NewKey, now_ms: u64) -> Result<Option<u64>, Error> {
    let own = ctx.until_ms();
    let asked = new.life_ms.map(|life| now_ms.saturating_add(life));
    match (asked, own) {
        (Some(asked), Some(own)) if asked > own => {
            let left = own.saturating_sub(now_ms) / 1000;
            let message =
                format!("your own credential ends in {left} s: ask for no more than that");
            Err(Error::Forbidden(message))
        }
        (asked, own) => Ok(asked.or(own)),
    }
}

fn checked(ctx: &Ctx, new: &NewKey) -> Result<Scopes, Error> {
    if !new.name.is_empty() && !is_name(&new.name) {
        let message =
            "a name has 1 to 64 letters, digits and `_.@-`, and begins with a letter or digit";
        return Err(Error::invalid("name", "invalid_argument", message));
    }
    let scopes = Scopes::parse(new.scopes.iter().map(String::as_str)).map_err(|bad| {
        let known: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        let bad: String = bad.chars().take(64).collect();
        let message = format!("`{bad}` is none; there are {}", known.join(", "));
        Error::invalid("scopes", "invalid_argument", message)
    })?;
    if !ctx.scopes().cover(&scopes) {
        let message = "your own key is narrowed: name scopes that it has too";
        return Err(Error::Forbidden(message.to_owned()));
    }
    let most = limits::KEY_LIFE_MAX_MS;
    if new.life_ms.is_some_and(|life| life == 0 || life > most) {
        let message = "must be more than nothing and at most ten years";
        return Err(Error::invalid("expires_in_s", "invalid_argument", message));
    }
    Ok(scopes)
}

/// Adds a key with its event.
pub(crate) fn insert(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    row: &KeyRow,
    digests: &KeyDigests,
) -> Result<(), Fail> {
    if !key::insert(tx, row, digests)? {
        return Err(Error::NotFound.into());
    }
    let data = serde_json::json!({
        "owner": row.owner, "name": row.name, "prefix": row.prefix, "scopes": row.scopes.texts(),
        "expires_at_ms": row.expires_at_ms,
    });
    let of = ("key", row.id.as_str());
    let ctx = Ctx {
        tenant: row.tenant.clone(),
        ..ctx.clone()
    };
    let at_ms = row.created_at_ms;
    Ok(tell(tx, &ctx, of, "key.created", &data, at_ms)?)
}

/// Writes an event about people into the record of the caller's tenant.
pub(crate) fn tell(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    (resource, resource_id): (&str, &str),
    kind: &str,
    data: &serde_json::Value,
    at_ms: u64,
) -> Result<(), StoreError> {
    let version = event::last_version(tx, resource, resource_id)? + 1;
    let new = NewEvent {
        tenant: &ctx.tenant,
        resource,
        resource_id,
        version,
        kind,
        data: &data.to_string(),
        principal: &ctx.principal,
        at_ms,
    };
    event::append(tx, &new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_key_is_asked_for() {
        let key = format!("cfd_{}", "0a".repeat(32));
        assert!(is_key_text(&key) && is_e2b_form(&e2b_form(&key)));
        assert!(!is_e2b_form(&key) && !is_key_text(&e2b_form(&key)));
        for bad in ["", "cfd_", &key[..67], &format!("{key}0"), "e2b_1", "x"] {
            assert!(!is_key_text(bad) && !is_e2b_form(bad), "{bad}");
        }
        assert!(!is_key_text(&key.to_uppercase()));
    }

    #[test]
    fn what_is_or_was_a_credential_looks_like_one_and_no_plain_name_does() {
        let key = format!("cfd_{}", "0a".repeat(32));
        let one = e2b_form(&key);
        for text in [
            &*key,
            &key[..12],
            &one,
            "cfn_0a",
            "eyJhbGciOi.e30.x",
            "eyJhb",
            "eyB9.e30.x",
        ] {
            assert!(looks_like_credential(text), "{text}");
        }
        for name in ["", "eyes", "user:a@b.c", "job_1", "sbx_cfd_1", "cfdb"] {
            assert!(!looks_like_credential(name), "{name}");
        }
    }

    #[test]
    fn what_was_forgotten_while_it_was_asked_for_is_not_believed() {
        let who = Who::owner("uid:1".parse().unwrap());
        let seen = |expires_at_ms| Seen {
            who: who.clone(),
            read_at_ms: 10_000,
            expires_at_ms,
        };
        let mut known = Known::default();
        known.put(0, [1; 32], seen(None));
        known.put(0, [2; 32], seen(Some(10_500)));
        assert!(known.get(&[1; 32], 10_999).is_some());
        assert!(known.get(&[1; 32], 11_000).is_none(), "a second is over");
        assert!(known.get(&[1; 32], 9_999).is_none(), "the clock went back");
        assert!(known.get(&[2; 32], 10_499).is_some());
        assert!(known.get(&[2; 32], 10_500).is_none(), "its time is over");
        known.forgotten += 1;
        known.put(0, [3; 32], seen(None));
        assert!(known.get(&[3; 32], 10_001).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        for number in 0..u32::try_from(BELIEVED_MAX).unwrap() + 10 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            let seen = Seen {
                who: Who::owner("uid:1".parse().unwrap()),
                read_at_ms: 0,
                expires_at_ms: None,
            };
            known.put(0, digest, seen);
        }
        assert!(known.by_digest.len() <= BELIEVED_MAX);
    }
}
