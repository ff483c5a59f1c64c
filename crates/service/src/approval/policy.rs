//! Policies that are written only after another person has said yes, and proposals to change one.

use super::ask::{self, Ask};
use super::decide::approved;
use super::{Verdict, over, owned, stepped, yes};
use crate::error::Fail;
use crate::policy::{check_layer, row_of, write};
use crate::{Ctx, Error, PolicyRow, Service};
use model::approval::{ApprovalEvent, Scope, Subject};
use model::policy::{Kind, Policy, Refusal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use store::approval::{self, ApprovalRow};
use store::policy;

/// Policies that one yes can propose to change.
const PROPOSALS_MAX: usize = 16;

/// A policy that is to be written or deleted, as it is kept for a person to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) name: String,
    /// The version that it is in the place of; 0 where there is none.
    pub(crate) base: u64,
    /// What it is to say; it is deleted when absent.
    pub(crate) policy: Option<Policy>,
}

impl Change {
    fn summary(&self) -> String {
        let what = match (&self.policy, self.base) {
            (None, _) => "delete",
            (Some(_), 0) => "write the new",
            (Some(_), _) => "change the",
        };
        format!("{what} policy {}", self.name)
    }
}

impl Service {
    /// Whether this caller's changes of policies wait for another person. If one does, they are asked, and the change
    /// is refused with what it waits for; otherwise the stamp that says so.
    ///
    /// # Errors
    /// [`Error::Invalid`] `approval_needed`; [`Error::TooMuch`].
    pub(crate) async fn policy_may_change(
        &self,
        ctx: &Ctx,
        (name, policy): (&str, Option<&Policy>),
        there: Option<&PolicyRow>,
    ) -> Result<Option<u64>, Error> {
        let Some(by) = self.effective(ctx, &[]).await? else {
            return Ok(None);
        };
        let Some(wanted) = by.permit.policy_change() else {
            return Ok(Some(by.stamp));
        };
        let refusal = Refusal {
            kind: Kind::NeedsApproval,
            clause: "approvals.policy_change".to_owned(),
            by: wanted.by.iter().cloned().collect(),
            why: "another person has to say yes to this".to_owned(),
        };
        let all = [refusal];
        let change = Change {
            name: name.to_owned(),
            base: there.map_or(0, |row| row.latest),
            policy: policy.cloned(),
        };
        let ask = asked(&change, ask::reasons(&all))?;
        let ask = Ask {
            permit: Some(&by.permit),
            ..ask
        };
        Err(self.asked_for(ctx, ask, &all).await?)
    }

    pub(super) async fn approve_policy(
        &self,
        ctx: &Ctx,
        row: &ApprovalRow,
        verdict: &Verdict,
    ) -> Result<ApprovalRow, Error> {
        let change: Change = serde_json::from_str(&row.request)
            .map_err(|error| Error::internal("read a change of a policy", error))?;
        let (new_id, now) = (self.policy_id()?, self.now_ms());
        if let Some(policy) = &change.policy {
            check_layer(ctx, policy.layer)?;
            // Others may have been written since it was asked for.
            let of = (&ctx.tenant, &new_id, &*change.name);
            let new = row_of(of, policy, (&row.principal, now));
            self.check_together(new).await?;
        }
        let (ctx, id) = (ctx.clone(), row.id.clone());
        let verdict = verdict.clone();
        let said = self.unit(move |tx| {
            let row = owned(tx, &ctx, &id)?;
            let Some(next) = approved(&ctx, &row, &verdict, now)? else {
                return Ok(Ok(row));
            };
            let there = policy::named(tx, &ctx.tenant, &change.name)?;
            if let Some(there) = &there {
                check_layer(&ctx, there.policy.layer)?;
            }
            let by = (&ctx.principal, now);
            if there.as_ref().map_or(0, |there| there.latest) != change.base {
                let why = "the policy was changed since this was asked for";
                if let Some(next) = stepped(&row, ApprovalEvent::Cancel, by, why)? {
                    approval::put(tx, &row, &next, "approval.canceled", by)?;
                }
                return Ok(Err(why));
            }
            // Whoever asked for it wrote it; who said yes is on the approval.
            let author = (&row.principal, now);
            match (&change.policy, &there) {
                (None, Some(there)) => policy::delete(tx, there, author)?,
                (None, None) => {}
                (Some(said), there) => {
                    let of = (&ctx.tenant, &new_id, &*change.name);
                    write(tx, of, there.as_ref(), said, author)?;
                }
            }
            let row = approval::put(tx, &row, &next, "approval.approved", by)?;
            Ok::<_, Fail>(Ok(row))
        });
        let said = said.await?;
        self.policies_forget();
        said.map_err(over)
    }

    /// What a yes as a rule proposes: the policies of this tenant that want it, without what they want it for.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no policy of the tenant wants it.
    pub(super) async fn proposals(
        &self,
        ctx: &Ctx,
        row: &ApprovalRow,
        verdict: &Verdict,
    ) -> Result<Vec<ApprovalRow>, Error> {
        if verdict.scope != Scope::Rule {
            return Ok(Vec::new());
        }
        let (tenant, volumes) = (row.tenant.clone(), volumes_shown(row)?);
        let all = self.look(move |tx| Ok(policy::list(tx, &tenant)?)).await?;
        let mine = all
            .into_iter()
            .filter(|one| one.policy.is_for(row.principal.as_str(), &volumes));
        let mut proposed = Vec::new();
        for one in mine {
            let Some(policy) = one.policy.without(&row.reasons) else {
                continue;
            };
            let change = Change {
                name: one.name,
                base: one.latest,
                policy: Some(policy),
            };
            let reasons = row.reasons.iter().map(|one| format!("no more of {one}"));
            let ask = asked(&change, reasons.collect())?;
            let why = format!("{} was let through as a rule", row.id);
            proposed.push(self.approval_new(ctx, Ask { why, ..ask })?);
        }
        if proposed.is_empty() || proposed.len() > PROPOSALS_MAX {
            let message = "no policy of this tenant that could be changed for it wants this";
            return Err(Error::invalid("scope", "invalid_argument", message));
        }
        Ok(proposed)
    }
}

/// The volumes that the request was about, as a person was shown them.
fn volumes_shown(row: &ApprovalRow) -> Result<BTreeSet<String>, Error> {
    let request: serde_json::Value = serde_json::from_str(&row.request)
        .map_err(|error| Error::internal("read what was asked for", error))?;
    let named = request["volumes"].as_array().into_iter().flatten();
    let named = named.filter_map(|name| name.as_str().map(str::to_owned));
    Ok(named.collect())
}

fn asked<'a>(change: &Change, reasons: BTreeSet<String>) -> Result<Ask<'a>, Error> {
    let request = serde_json::to_value(change);
    Ok(Ask {
        subject: Subject::Policy,
        subject_id: change.name.clone(),
        digest: yes::digest("policy.change", change)?,
        summary: change.summary(),
        request: request.map_err(|error| Error::internal("write a change of a policy", error))?,
        reasons,
        why: String::new(),
        permit: None,
    })
}
