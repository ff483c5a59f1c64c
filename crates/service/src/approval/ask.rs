//! Asking a person: a row that says what is wanted, why it needs a yes, and who may not give it.

use crate::change::cut;
use crate::error::Fail;
use crate::{Ctx, Error, Service, random, sandbox};
use model::approval::{ApprovalState, Asked, Subject};
use model::id::{ApprovalId, PrincipalId, SandboxId, TenantId};
use model::limits;
use model::policy::{Permit, Refusal};
use model::principal::PrincipalKind;
use serde_json::Value;
use std::collections::BTreeSet;
use store::approval::{self, ApprovalRow};
use store::{StoreError, Tx, key, principal};

/// The longest line that says what is asked, in characters.
const SUMMARY_CHARS_MAX: usize = 200;

/// What somebody has to say yes to.
pub(crate) struct Ask<'a> {
    pub(crate) subject: Subject,
    pub(crate) subject_id: String,
    /// Of the request, where the same one is to be sent again after the yes; empty where something waits by itself.
    pub(crate) digest: String,
    /// What is asked, in one line.
    pub(crate) summary: String,
    /// What is asked, for a person.
    pub(crate) request: Value,
    pub(crate) reasons: BTreeSet<String>,
    /// In the words of whoever asks.
    pub(crate) why: String,
    pub(crate) permit: Option<&'a Permit>,
}

/// The words that a person says yes to.
pub(crate) fn reasons(all: &[Refusal]) -> BTreeSet<String> {
    all.iter().map(Refusal::reason).collect()
}

/// As what waits keeps it.
pub(crate) fn asked(row: &ApprovalRow) -> Asked {
    Asked {
        approval: row.id.clone(),
        reasons: row.reasons.clone(),
    }
}

impl Service {
    /// The row of what is asked; who made whom is added where it is written.
    ///
    /// # Errors
    /// [`Error::Invalid`] `too_long` for what no person could read whole.
    pub(crate) fn approval_new(&self, ctx: &Ctx, ask: Ask<'_>) -> Result<ApprovalRow, Error> {
        let request = ask.request.to_string();
        if request.len() > limits::APPROVAL_REQUEST_BYTES_MAX {
            let message = format!(
                "a person has to say yes to this, and it is {} bytes long; {} are the most that one is given to read",
                request.len(),
                limits::APPROVAL_REQUEST_BYTES_MAX
            );
            return Err(Error::invalid("approval", "too_long", message));
        }
        let at_ms = self.now_ms();
        let life = ask.permit.map_or(limits::APPROVAL_MS, Permit::approval_ms);
        Ok(ApprovalRow {
            id: ApprovalId::from_parts(at_ms, random()?),
            tenant: ctx.tenant.clone(),
            principal: ctx.principal.clone(),
            subject: ask.subject,
            subject_id: ask.subject_id,
            digest: ask.digest,
            state: ApprovalState::Pending,
            version: 1,
            summary: ask.summary.chars().take(SUMMARY_CHARS_MAX).collect(),
            request,
            reasons: ask.reasons,
            why: cut(&ask.why),
            key: ctx.key.clone(),
            makers: BTreeSet::new(),
            created_at_ms: at_ms,
            expires_at_ms: at_ms.saturating_add(life),
            decided_at_ms: None,
            decided_by: None,
            comment: String::new(),
            waived: false,
            scope: None,
            until_ms: None,
            used_at_ms: None,
            revoked_at_ms: None,
        })
    }
}

/// Nobody is asked about a sandbox that is over: whatever ended it has ended what waited by then, and nothing would end
/// this. It is held first, because its end may be written at this moment; before any approval is, as whatever ends it
/// holds them in this order.
pub(crate) fn check_there(tx: &mut Tx<'_>, row: &ApprovalRow) -> Result<(), Fail> {
    match row.subject {
        Subject::Network | Subject::Egress => {}
        Subject::Job | Subject::Sandbox | Subject::Policy => return Ok(()),
    }
    let id: SandboxId = row.subject_id.parse().map_err(|_| Error::NotFound)?;
    store::sandbox::hold(tx, &id)?;
    let there = store::sandbox::get(tx, Some(&row.tenant), &id)?.ok_or(Error::NotFound)?;
    match there.state.is_over() {
        true => Err(sandbox::gone(&there).into()),
        false => Ok(()),
    }
}

/// Whether one more may wait. Read before anything is written: an agent in a loop must not bury what others wait for.
pub(crate) fn check_room(tx: &mut Tx<'_>, row: &ApprovalRow) -> Result<(), Fail> {
    let (most, of_one) = (limits::APPROVALS_MAX, limits::APPROVALS_OF_ONE_MAX);
    let (all, own) = approval::count_pending(tx, &row.tenant, &row.principal, most)?;
    if all < most && own < of_one {
        return Ok(());
    }
    let message = format!(
        "{own} requests of {} wait for a person, and {all} of the tenant; {of_one} and {most} are the most",
        row.principal
    );
    Err(Fail::Ours(Error::TooMuch {
        code: "too_much",
        message,
    }))
}

/// Writes it, with its event.
pub(crate) fn write(tx: &mut Tx<'_>, row: &ApprovalRow) -> Result<ApprovalRow, StoreError> {
    let row = ApprovalRow {
        makers: makers(tx, &row.tenant, &row.principal, row)?,
        ..row.clone()
    };
    approval::insert(tx, &row)?;
    Ok(row)
}

/// For whom whoever asks acts, as far as that is known now: whoever made it, if it is no person, and whoever made the
/// key that was shown, because they may have kept it.
fn makers(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    asker: &PrincipalId,
    row: &ApprovalRow,
) -> Result<BTreeSet<PrincipalId>, StoreError> {
    let mut makers = BTreeSet::new();
    if let Some(known) = principal::get(tx, tenant, asker.as_str())?
        && known.kind != PrincipalKind::User
    {
        makers.insert(known.principal);
    }
    if let Some(shown) = &row.key
        && let Some(known) = key::get(tx, tenant, shown)?
    {
        makers.insert(known.made_by);
    }
    Ok(makers)
}
