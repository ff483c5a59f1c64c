//! What a webhook is told of approvals. The change itself is the intent: a row whose newest version was not told is
//! told by a loop, which may die anywhere; then it is told once more. So whoever is told has to take the same twice.

use crate::error::Fail;
use crate::hex::hex;
use crate::{Ctx, Error, Service};
use aws_lc_rs::hmac;
use model::approval::{TELL_MAX, tell_again_ms};
use model::limits;
use serde_json::json;
use store::approval::{self, ApprovalRow, Untold};

/// Changes that one pass tells.
const BATCH: u32 = 20;
/// How long a try may take before another server may try: longer than whoever sends waits.
const TRY_MS: u64 = 30_000;
/// The least bytes of a key: fewer can be tried through.
const KEY_BYTES_MIN: usize = 16;

/// With what notices are signed.
pub struct NoticeKey(hmac::Key);

impl std::fmt::Debug for NoticeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NoticeKey(..)")
    }
}

impl NoticeKey {
    /// The key of these bytes; `None` for fewer than 16.
    pub fn new(bytes: &[u8]) -> Option<NoticeKey> {
        let key = || NoticeKey(hmac::Key::new(hmac::HMAC_SHA256, bytes));
        (bytes.len() >= KEY_BYTES_MIN).then(key)
    }

    /// `t=MS,v1=HEX`: when it was signed, and the HMAC-SHA256 of `MS.BODY`, so that one that was kept cannot be sent
    /// again later as if it were new.
    pub fn sign(&self, at_ms: u64, body: &str) -> String {
        let tag = hmac::sign(&self.0, format!("{at_ms}.{body}").as_bytes());
        format!("t={at_ms},v1={}", hex(tag.as_ref()))
    }
}

/// A change that is to be told now.
#[derive(Debug, Clone)]
pub struct Notice {
    row: ApprovalRow,
    attempt: u64,
    /// What is told: a JSON object.
    pub body: String,
}

impl Notice {
    fn of(one: Untold) -> Notice {
        let row = one.row;
        // Not the request: whoever is told looks at it here, as whoever may.
        let body = json!({
            "kind": "approval", "id": row.id, "version": row.version, "tenant": row.tenant,
            "state": row.state, "subject": row.subject, "subject_id": row.subject_id,
            "principal": row.principal, "summary": row.summary, "reasons": row.reasons,
            "why": row.why, "created_at_ms": row.created_at_ms, "expires_at_ms": row.expires_at_ms,
            "decided_by": row.decided_by, "decided_at_ms": row.decided_at_ms,
            "comment": row.comment, "waived": row.waived, "scope": row.scope,
        });
        Notice {
            body: body.to_string(),
            attempt: one.attempts + 1,
            row,
        }
    }

    /// Which approval it is about.
    pub fn id(&self) -> &str {
        self.row.id.as_str()
    }
}

impl Service {
    /// Changes of approvals that are to be told now. Each is this caller's for half a minute; what is not said to be
    /// told by then is told once more. What has waited for more than a day to be told is not.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn notices(&self) -> Result<Vec<Notice>, Error> {
        let now = self.now_ms();
        let since = now.saturating_sub(limits::APPROVAL_MS);
        let due = self.look(move |tx| Ok(approval::untold(tx, now, since, BATCH)?));
        let mut taken = Vec::new();
        for one in due.await? {
            let trying = one.clone();
            if one.attempts >= TELL_MAX {
                // Whoever tried last has died of it, or with it.
                let by = Ctx::internal("webhook").principal;
                let give_up =
                    self.unit(move |tx| Ok(approval::never_told(tx, &trying.row, (&by, now))?));
                give_up.await?;
                continue;
            }
            let take = self.unit(move |tx| {
                let next = now.saturating_add(TRY_MS);
                Ok::<_, Fail>(approval::telling(tx, &trying, next)?)
            });
            if take.await? {
                taken.push(Notice::of(one));
            }
        }
        Ok(taken)
    }

    /// A change was told.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like; then it is told once more.
    pub async fn notice_told(&self, notice: &Notice) -> Result<(), Error> {
        let row = notice.row.clone();
        self.unit(move |tx| Ok(approval::told(tx, &row)?)).await
    }

    /// A change could not be told: it is tried again later, and after the last try given up with an event.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn notice_failed(&self, notice: &Notice) -> Result<(), Error> {
        let (row, now) = (notice.row.clone(), self.now_ms());
        let attempt = notice.attempt;
        self.unit(move |tx| {
            let Some(later) = tell_again_ms(attempt) else {
                let by = Ctx::internal("webhook").principal;
                return Ok(approval::never_told(tx, &row, (&by, now))?);
            };
            let again = Untold {
                row: row.clone(),
                attempts: attempt,
            };
            approval::retold(tx, &again, now.saturating_add(later))?;
            Ok::<_, Fail>(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_over_the_time_and_the_whole_body() {
        let key = NoticeKey::new(b"0123456789abcdef").unwrap();
        // Reckoned with openssl: printf '5.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expect = "6e2cb7401c2f8e178b2f9c3c1303832994a6ed65f18856dbf5e33aba41e3a683";
        assert_eq!(key.sign(5, "{}"), format!("t=5,v1={expect}"));
        assert_ne!(key.sign(5, "{}"), key.sign(6, "{}"));
        assert!(NoticeKey::new(b"short").is_none());
        assert_eq!(format!("{key:?}"), "NoticeKey(..)");
    }
}
