//! Letting machines in as nodes: one-time tokens, certificates, and who is believed to be which node.
//!
//! A token counts for an hour and for one machine. It is spent in the transaction that knows the node and its
//! certificate, so a token that is spent has made a node. If the answer gets lost, the same machine, which is
//! known by its key, asks again and is answered again; another one is not.
//! A certificate counts because it is in the table, not because of who signed it. So one that was signed by a
//! stolen key opens nothing, and taking one back is a row.

use crate::change::Note;
use crate::error::Fail;
use crate::hex::hex;
use crate::{Ctx, Error, Service, locked, random, refusal};
use model::access::Action;
use model::id::{EnrollTokenId, NodeId, TenantId};
use model::limits;
use model::place::OF_ITSELF;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use store::enroll::{self, CertificateRow, EnrollTokenRow, EnrollmentRow};
use store::event::{self, NewEvent};
use store::{StoreError, Tx};

/// How long a token can be used: as long as it takes to walk to a machine.
const TOKEN_LIFE_MS: u64 = 3_600_000;
/// How long it is shown what has become of one.
const TOKEN_KEPT_MS: u64 = 30 * 24 * 3_600_000;
/// How long a certificate that has ended is known as one that was given here.
const CERTIFICATE_KEPT_MS: u64 = 30 * 24 * 3_600_000;
/// Certificates of one node that count at a time: a node renews every twenty days, and a stolen one must not
/// fill the table.
const CERTIFICATES_MAX: u32 = 16;
/// Tokens that are listed, and that may be made within the time that they are kept.
const TOKENS_SHOWN: u32 = 100;
const TOKENS_MAX: u32 = 1000;
/// Labels of a node, and the bytes of a key or a value: as Kubernetes has them.
const LABELS_MAX: usize = limits::NODE_LABELS_MAX;
const LABEL_BYTES_MAX: usize = 63;
/// The name that people gave a machine.
const NAME_BYTES_MAX: usize = 255;
/// A request for a certificate with a key of 4096 bits has 2 KiB.
const CSR_BYTES_MAX: usize = 16 * 1024;
/// What every token begins with, so that it is recognised where it does not belong.
pub(crate) const TOKEN_PREFIX: &str = "cfn_";
/// Refusals of one kind that are written as events in an hour. Whoever can reach the port can cause as many as
/// they like, and a node that was sent away tries again and again; that must not hide the others.
const REFUSALS_PER_HOUR: u32 = 100;
const HOUR_MS: u64 = 3_600_000;

/// A certificate that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSigned {
    /// In PEM.
    pub certificate: String,
    /// SHA-256 of its DER, in hexadecimal digits.
    pub fingerprint: String,
    /// SHA-256 of its public key.
    pub key_digest: String,
    /// Until when it counts.
    pub expires_at_ms: u64,
}

/// A request for a certificate that cannot be read, or is not signed with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request for a certificate cannot be read, or is not signed with its key")]
pub struct BadCsr;

type Sign = dyn Fn(&str, &NodeId, u64) -> Result<NodeSigned, BadCsr> + Send + Sync;

/// Who signs certificates of nodes.
pub struct NodeAuthority {
    /// Its own certificate, in PEM.
    pub certificate: String,
    /// SHA-256 of the DER of that.
    pub fingerprint: String,
    /// Signs what a request asks for, for this node and from this time on. Names in the request do not count.
    pub sign: Box<Sign>,
}

impl std::fmt::Debug for NodeAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeAuthority({})", self.fingerprint)
    }
}

/// A machine is a node, or has a new certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Which node.
    pub node: NodeId,
    /// Its certificate.
    pub signed: NodeSigned,
    /// The certificate of the authority, in PEM.
    pub authority: String,
}

/// What has become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// It can be used.
    Open,
    /// It was.
    Used,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

/// What has become of a token by now.
#[must_use]
pub fn token_state(row: &EnrollTokenRow, now_ms: u64) -> TokenState {
    if row.revoked_at_ms.is_some() {
        TokenState::Revoked
    } else if row.used.is_some() {
        TokenState::Used
    } else if row.expires_at_ms <= now_ms {
        TokenState::Expired
    } else {
        TokenState::Open
    }
}

/// For whom a token is good: a new node, or the one that it has made before. Pure.
fn judge(row: &EnrollTokenRow, key_digest: &str, now_ms: u64) -> Result<Option<NodeId>, Error> {
    let refused = |code, message: &str| Err(Error::conflict_of(code, message));
    match (token_state(row, now_ms), &row.used) {
        (TokenState::Open, _) => Ok(None),
        // The answer may have been lost on its way. Not for ever: a machine that comes after the hour has
        // had one.
        (TokenState::Used, Some((_, node, used_by)))
            if used_by == key_digest && row.expires_at_ms > now_ms =>
        {
            Ok(Some(node.clone()))
        }
        (TokenState::Used, _) => refused(
            "enroll_token_used",
            "the enrollment token has enrolled another machine",
        ),
        (TokenState::Expired, _) => refused(
            "enroll_token_expired",
            "the time of the enrollment token is over",
        ),
        (TokenState::Revoked, _) => refused(
            "enroll_token_revoked",
            "the enrollment token was taken back",
        ),
    }
}

/// A machine that is let in.
#[derive(Debug, Clone)]
struct Admitted {
    node: NodeId,
    name: String,
    key_digest: String,
    /// It was let in before, and has lost the answer.
    again: bool,
}

/// How many refusals were written in this hour.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    hour: u64,
    /// By code, of which there are a few.
    written: BTreeMap<&'static str, u32>,
}

impl Refusals {
    /// Whether one more with this code may be.
    fn one_more(&mut self, code: &'static str, now_ms: u64) -> bool {
        let hour = now_ms / HOUR_MS;
        if self.hour != hour {
            self.hour = hour;
            self.written.clear();
        }
        let written = self.written.entry(code).or_default();
        *written = written.saturating_add(1);
        *written <= REFUSALS_PER_HOUR
    }
}

impl Service {
    /// Signs nodes with this from now on. Without one, no machine is let in.
    pub fn node_authority_is(&self, authority: NodeAuthority) {
        // A second one is a mistake of whoever puts the rooms together, and changes nothing.
        drop(self.inner.node_authority.set(authority));
    }

    fn node_authority(&self) -> Result<&NodeAuthority, Error> {
        let none = || Error::Forbidden("this server takes no nodes in".to_owned());
        self.inner.node_authority.get().ok_or_else(none)
    }

    /// Whether one more report that a node gave up may be an event in this hour.
    pub(crate) fn may_note_drop(&self, now_ms: u64) -> bool {
        locked(&self.inner.noted_of_nodes).one_more("report_dropped", now_ms)
    }

    /// Makes a token for one machine, and tells its text this once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for labels that cannot be; [`Error::Forbidden`] on a server without an authority;
    /// [`Error::TooMuch`].
    pub async fn enroll_token_create(
        &self,
        ctx: &Ctx,
        labels: BTreeMap<String, String>,
    ) -> Result<(EnrollTokenRow, String), Error> {
        ctx.may(Action::NodeWrite)?;
        check_labels(&labels)?;
        check_given(&labels)?;
        let authority = self.node_authority()?;
        let now = self.now_ms();
        let secret = hex(&random::<32>()?);
        // With it goes whom the machine may believe, or somebody between the two could be the server.
        let text = format!("{TOKEN_PREFIX}{secret}_{}", authority.fingerprint);
        let row = EnrollTokenRow {
            id: EnrollTokenId::from_parts(now, random()?),
            tenant: ctx.tenant.clone(),
            principal: ctx.principal.clone(),
            digest: digest(&text),
            labels,
            created_at_ms: now,
            expires_at_ms: now.saturating_add(TOKEN_LIFE_MS),
            used: None,
            revoked_at_ms: None,
        };
        let (new, note) = (row.clone(), Note::new(ctx, now));
        self.unit(move |tx| {
            enroll::forget_tokens(tx, now.saturating_sub(TOKEN_KEPT_MS))?;
            let there = enroll::tokens(tx, &new.tenant, TOKENS_MAX)?.len();
            if there >= TOKENS_MAX as usize {
                let code = "too_much";
                let message = format!("{TOKENS_MAX} tokens were made lately");
                return Err(Error::TooMuch { code, message }.into());
            }
            enroll::insert_token(tx, &new)?;
            let data = serde_json::json!({"labels": new.labels});
            Ok(tell(
                tx,
                ("enroll_token", new.id.as_str()),
                "enroll_token.created",
                &data,
                &note,
            )?)
        })
        .await?;
        tracing::info!(token.id = %row.id, "an enrollment token was made");
        Ok((row, text))
    }

    /// The newest tokens.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn enroll_token_list(&self, ctx: &Ctx) -> Result<Vec<EnrollTokenRow>, Error> {
        ctx.may(Action::NodeRead)?;
        let tenant = ctx.tenant.clone();
        self.look(move |tx| Ok(enroll::tokens(tx, &tenant, TOKENS_SHOWN)?))
            .await
    }

    /// Takes a token back. One that was taken back before stays so.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it has made a node.
    pub async fn enroll_token_revoke(
        &self,
        ctx: &Ctx,
        id: &EnrollTokenId,
    ) -> Result<EnrollTokenRow, Error> {
        ctx.may(Action::NodeWrite)?;
        let (tenant, id, now) = (ctx.tenant.clone(), id.clone(), self.now_ms());
        let note = Note::new(ctx, now);
        self.unit(move |tx| {
            let row = enroll::token(tx, &tenant, &id)?;
            let row = row.ok_or(Fail::Ours(Error::NotFound))?;
            if row.used.is_some() {
                let message = "it has made a node; decommission that instead";
                return Err(Error::conflict(message).into());
            }
            if row.revoked_at_ms.is_some() {
                return Ok(row);
            }
            enroll::revoke_token(tx, &id, now)?;
            let (of, none) = (("enroll_token", id.as_str()), serde_json::json!({}));
            tell(tx, of, "enroll_token.revoked", &none, &note)?;
            let revoked_at_ms = Some(now);
            Ok(EnrollTokenRow {
                revoked_at_ms,
                ..row
            })
        })
        .await
    }

    /// Makes a node of the machine that has this token.
    ///
    /// # Errors
    /// [`Error::Conflict`] with `enroll_token_unknown`, `_used`, `_expired`, `_revoked`, or `bad_csr`;
    /// [`Error::Invalid`] for a name that cannot be.
    pub async fn node_enroll(&self, token: &str, name: &str, csr: &str) -> Result<Enrolled, Error> {
        check_name(name)?;
        let now = self.now_ms();
        let digest = digest(token);
        // First, because signing is work, and whoever reaches the port can ask for it.
        let row = self.look(move |tx| Ok(enroll::token_of_digest(tx, &digest)?));
        let row = row.await?.ok_or_else(|| {
            let message = "there is no such enrollment token";
            Error::conflict_of("enroll_token_unknown", message)
        })?;
        let new = NodeId::from_parts(now, random()?);
        let asked = self.sign(csr, &new, now)?;
        let again = judge(&row, &asked.key_digest, now)?;
        let (node, signed) = match &again {
            None => (new, asked),
            Some(node) => (node.clone(), self.sign(csr, node, now)?),
        };
        let (new, given) = (
            Admitted {
                node: node.clone(),
                name: name.to_owned(),
                key_digest: signed.key_digest.clone(),
                again: again.is_some(),
            },
            signed.clone(),
        );
        self.unit(move |tx| {
            // Again, because somebody else may have been faster.
            let token = enroll::token(tx, &row.tenant, &row.id)?;
            let token = token.ok_or(Fail::Ours(Error::NotFound))?;
            if judge(&token, &new.key_digest, now)? != again {
                return Err(Error::conflict("the token was used meanwhile; ask again").into());
            }
            admit(tx, &token, &new, now)?;
            give(tx, &new.node, &given, now)
        })
        .await?;
        tracing::info!(%node, name, "a machine was enrolled");
        self.enrolled(node, signed)
    }

    /// Gives a node another certificate. The one that it has counts on to its end, because the node may die
    /// before it has written the new one down.
    ///
    /// # Errors
    /// [`Error::Conflict`] with `bad_csr`; [`Error::TooMuch`] for a node that has too many.
    pub async fn node_renew(&self, ctx: &Ctx, csr: &str) -> Result<Enrolled, Error> {
        let (node, now) = (ctx.only_node()?.clone(), self.now_ms());
        let signed = self.sign(csr, &node, now)?;
        let (of, given, note) = (node.clone(), signed.clone(), Note::new(ctx, now));
        self.unit(move |tx| {
            let row = enroll::get(tx, &of)?;
            if row.is_none_or(|row| row.decommissioned_at_ms.is_some()) {
                return Err(Error::Forbidden("the node was not enrolled here".to_owned()).into());
            }
            give(tx, &of, &given, now)?;
            let data = serde_json::json!({"fingerprint": given.fingerprint});
            Ok(tell(
                tx,
                ("node", of.as_str()),
                "node.certificate_renewed",
                &data,
                &note,
            )?)
        })
        .await?;
        self.enrolled(node, signed)
    }

    fn enrolled(&self, node: NodeId, signed: NodeSigned) -> Result<Enrolled, Error> {
        let authority = self.node_authority()?.certificate.clone();
        Ok(Enrolled {
            node,
            signed,
            authority,
        })
    }

    fn sign(&self, csr: &str, node: &NodeId, now_ms: u64) -> Result<NodeSigned, Error> {
        let authority = self.node_authority()?;
        let bad = |error: BadCsr| Error::conflict_of("bad_csr", error.to_string());
        if csr.len() > CSR_BYTES_MAX {
            return Err(bad(BadCsr));
        }
        (authority.sign)(csr, node, now_ms).map_err(bad)
    }

    /// Which node a certificate stands for.
    ///
    /// # Errors
    /// [`Error::Conflict`] with `certificate_unknown`, `_expired` or `_revoked`.
    pub async fn node_of_certificate(&self, fingerprint: &str) -> Result<NodeId, Error> {
        let (fingerprint, now) = (fingerprint.to_owned(), self.now_ms());
        let row = self.look(move |tx| Ok(enroll::certificate(tx, &fingerprint)?));
        let refused = |code, message: &str| Err(Error::conflict_of(code, message));
        match row.await? {
            None => refused("certificate_unknown", "the certificate was not given here"),
            Some(row) if row.revoked_at_ms.is_some() => refused(
                "certificate_revoked",
                "the certificate does not count any more",
            ),
            Some(row) if row.expires_at_ms <= now => {
                refused("certificate_expired", "the time of the certificate is over")
            }
            Some(row) => Ok(row.node),
        }
    }

    /// Writes that somebody at the door of nodes was refused: an event of its own, because what was refused
    /// has changed nothing that it could be beside. At most so many an hour.
    pub async fn node_refused(&self, who: Option<&NodeId>, code: &'static str, what: &str) {
        let now = self.now_ms();
        // The log is bounded as the events are: whoever reaches the port can cause as many as they like.
        if !locked(&self.inner.noted_of_nodes).one_more(code, now) {
            return;
        }
        tracing::warn!(
            node = who.map(NodeId::as_str),
            code,
            what,
            "a node was refused"
        );
        let Ok(id) = refusal::id() else { return };
        let note = Note::new(&Ctx::internal("door"), now);
        let node = who.map(NodeId::as_str);
        let data = serde_json::json!({"code": code, "node": node, "path": what});
        let written =
            self.unit(move |tx| Ok(tell(tx, ("refusal", &id), "node.refused", &data, &note)?));
        if let Err(error) = written.await {
            tracing::warn!(error = error.cause(), "a refusal is not among the events");
        }
    }
}

/// Makes the node of a token, unless it has made it before.
fn admit(tx: &mut Tx<'_>, token: &EnrollTokenRow, new: &Admitted, now: u64) -> Result<(), Fail> {
    if new.again {
        let row = enroll::get(tx, &new.node)?;
        if row.is_some_and(|row| row.decommissioned_at_ms.is_none()) {
            return Ok(());
        }
        return Err(
            Error::conflict_of("enroll_token_used", "the node of the token is gone").into(),
        );
    }
    enroll::spend_token(tx, &token.id, &new.node, &new.key_digest, now)?;
    let row = EnrollmentRow {
        node: new.node.clone(),
        tenant: token.tenant.clone(),
        name: new.name.clone(),
        labels: token.labels.clone(),
        enrolled_at_ms: now,
        decommissioned_at_ms: None,
    };
    enroll::insert(tx, &row)?;
    let note = Note::new(&Ctx::node(new.node.clone(), ""), now);
    let data = serde_json::json!({"node": new.node.as_str()});
    tell(
        tx,
        ("enroll_token", token.id.as_str()),
        "enroll_token.used",
        &data,
        &note,
    )?;
    let data =
        serde_json::json!({"name": row.name, "labels": row.labels, "token": token.id.as_str()});
    Ok(tell(
        tx,
        ("node", new.node.as_str()),
        "node.enrolled",
        &data,
        &note,
    )?)
}

/// Writes a certificate down that a node is given.
fn give(tx: &mut Tx<'_>, node: &NodeId, signed: &NodeSigned, now: u64) -> Result<(), Fail> {
    let count = enroll::certificates_of(tx, node, now, CERTIFICATES_MAX)?.len();
    if count >= CERTIFICATES_MAX as usize {
        let message = format!("the node has {CERTIFICATES_MAX} certificates that count");
        let code = "too_much";
        return Err(Error::TooMuch { code, message }.into());
    }
    let row = CertificateRow {
        fingerprint: signed.fingerprint.clone(),
        node: node.clone(),
        issued_at_ms: now,
        expires_at_ms: signed.expires_at_ms,
        revoked_at_ms: None,
    };
    Ok(enroll::insert_certificate(
        tx,
        &row,
        now.saturating_sub(CERTIFICATE_KEPT_MS),
    )?)
}

/// Writes an event of something whose row has no version of its own, after that row was written.
pub(crate) fn tell(
    tx: &mut Tx<'_>,
    (resource, resource_id): (&str, &str),
    kind: &str,
    data: &serde_json::Value,
    note: &Note,
) -> Result<(), StoreError> {
    let version = event::last_version(tx, resource, resource_id)? + 1;
    let new = NewEvent {
        tenant: &TenantId::local(),
        resource,
        resource_id,
        version,
        kind,
        data: &data.to_string(),
        principal: &note.principal,
        at_ms: note.at_ms,
    };
    event::append(tx, &new)
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let good = |text: &str| text.len() <= LABEL_BYTES_MAX && text.bytes().all(plain);
    let all_good = labels
        .iter()
        .all(|(key, value)| !key.is_empty() && good(key) && good(value));
    if labels.len() <= LABELS_MAX && all_good {
        return Ok(());
    }
    let message = format!(
        "at most {LABELS_MAX} labels, of at most {LABEL_BYTES_MAX} letters, digits and - _ . / each"
    );
    Err(Error::invalid("labels", "invalid_argument", message))
}

/// One that each node has of itself would be given in vain, and whoever gave it would count on it.
fn check_given(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    let given = OF_ITSELF.into_iter().find(|key| labels.contains_key(*key));
    given.map_or(Ok(()), |key| {
        let message = format!("`{key}` is a label that each node has of itself");
        Err(Error::invalid("labels", "invalid_argument", message))
    })
}

fn check_name(name: &str) -> Result<(), Error> {
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    if fits && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let message =
        format!("must have 1 to {NAME_BYTES_MAX} bytes, none of them a control character");
    Err(Error::invalid("name", "invalid_argument", message))
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests;
