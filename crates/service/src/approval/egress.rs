//! One more host for a sandbox that is there: somebody asks, a person says yes, and the rules of its network are
//! changed in the same transaction, within what policies and its profile allow.

use super::ask::{self, Ask};
use super::decide::approved;
use super::{Verdict, over, owned, yes};
use crate::error::Fail;
use crate::permit::module::volumes;
use crate::permit::{changed, check_stamp, is_changed, owner};
use crate::sandbox::network::{narrowed, set};
use crate::{Ctx, Error, NetworkChange, Service, sandbox};
use model::access::Action;
use model::approval::Subject;
use model::id::SandboxId;
use model::limits;
use model::network::{Entry, NetworkMode, NetworkRules};
use model::policy::{Kind, Refusal};
use serde_json::json;
use store::approval::{self, ApprovalRow};
use store::sandbox::SandboxRow;

/// A host that somebody wants a sandbox to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressAsk {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// `HOST:PORT`; the port is 443 when absent.
    pub to: String,
    /// Why, for the person who decides.
    pub why: String,
}

impl Service {
    /// Asks that a sandbox may reach one more host. What policies or its profile do not allow no person is asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for no host, `beyond_profile`, `policy_refused`; [`Error::Conflict`]
    /// where it may be reached already, or `sandbox_gone`; [`Error::TooMuch`].
    pub async fn approval_ask(&self, ctx: &Ctx, asked: EgressAsk) -> Result<ApprovalRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        let entry = host_of(&asked.to)?;
        if asked.why.len() > limits::APPROVAL_TEXT_BYTES_MAX {
            let most = limits::APPROVAL_TEXT_BYTES_MAX;
            let message = format!("a reason has at most {most} bytes");
            return Err(Error::invalid("why", "too_long", message));
        }
        let row = self.sandbox_get(ctx, &asked.sandbox).await?;
        let (_, _, all) = self.opened(ctx, &row, &entry).await?;
        let by = self.effective(ctx, &row.spec.volumes).await?;
        let ask = Ask {
            subject: Subject::Egress,
            subject_id: row.id.to_string(),
            digest: yes::digest("egress", &(&row.id, &entry))?,
            summary: format!("{} may reach {entry}", row.id),
            request: json!({"kind": "egress", "sandbox": row.id, "to": entry.to_string(),
                "volumes": volumes(&row.spec.volumes)}),
            reasons: ask::reasons(&all),
            why: asked.why,
            permit: by.as_ref().map(|by| &by.permit),
        };
        self.asked_row(ctx, ask).await
    }

    /// The rules with this host, by the policies of now, and what a person has to say yes to for them.
    async fn opened(
        &self,
        ctx: &Ctx,
        row: &SandboxRow,
        entry: &Entry,
    ) -> Result<(NetworkChange, Option<u64>, Vec<Refusal>), Error> {
        if row.state.is_over() {
            return Err(sandbox::gone(row));
        }
        let rules = widened(row.rules(), entry)?;
        narrowed(row, &rules)?;
        let asked = NetworkChange::from(rules);
        let (change, stamp, mut all) = self.network_by_policies(ctx, row, asked).await?;
        all.push(Refusal {
            kind: Kind::NeedsApproval,
            clause: "egress".to_owned(),
            by: Vec::new(),
            why: format!("a person has to say yes to `{entry}`"),
        });
        Ok((change, stamp, all))
    }

    pub(super) async fn approve_egress(
        &self,
        ctx: &Ctx,
        row: &ApprovalRow,
        verdict: &Verdict,
    ) -> Result<ApprovalRow, Error> {
        let request: serde_json::Value = serde_json::from_str(&row.request)
            .map_err(|error| Error::internal("read a request for a host", error))?;
        let entry = host_of(request["to"].as_str().unwrap_or_default())?;
        let id: SandboxId = row.subject_id.parse().map_err(|_| Error::NotFound)?;
        let asker = owner(&row.tenant, &row.principal);
        let mut tries = 1;
        loop {
            self.policies_forget();
            let seen = self.sandbox_get(&asker, &id).await?;
            let (change, stamp, all) = self.opened(&asker, &seen, &entry).await?;
            if !ask::reasons(&all).is_subset(&row.reasons) {
                return Err(over("policies want more than was asked for by now"));
            }
            let (ctx, of, now) = (ctx.clone(), row.id.clone(), self.now_ms());
            let (verdict, id) = (verdict.clone(), id.clone());
            let said = self.unit(move |tx| {
                let row = owned(tx, &ctx, &of)?;
                let Some(next) = approved(&ctx, &row, &verdict, now)? else {
                    return Ok((row, None));
                };
                check_stamp(tx, stamp)?;
                let there = store::sandbox::get(tx, None, &id)?.ok_or(Error::NotFound)?;
                if there.network_epoch != seen.network_epoch {
                    return Err(changed("the rules were changed meanwhile").into());
                }
                let note = sandbox::change::Note::new(&ctx, now);
                let there = set(tx, there, &change, note)?;
                let by = (&ctx.principal, now);
                let row = approval::put(tx, &row, &next, "approval.approved", by)?;
                Ok::<_, Fail>((row, Some(there)))
            });
            match said.await {
                Err(error) if is_changed(&error, tries) => tries += 1,
                Err(error) => return Err(error),
                Ok((row, there)) => {
                    if let Some(there) = there {
                        self.network_told(&there);
                    }
                    return Ok(row);
                }
            }
        }
    }
}

/// A host with its port, and nothing wider: a person says yes to a name that they can judge.
fn host_of(to: &str) -> Result<Entry, Error> {
    let wrong = || {
        let message = "this is HOST:PORT, one name and no pattern";
        Error::invalid("egress.to", "invalid_argument", message)
    };
    let text = match to.contains(':') {
        true => to.to_owned(),
        false => format!("{to}:443"),
    };
    let entry: Entry = text.parse().map_err(|_| wrong())?;
    let is_one = entry.is_name() && !entry.is_any_host() && !text.contains('*');
    if is_one { Ok(entry) } else { Err(wrong()) }
}

/// The rules with one more host.
fn widened(rules: &NetworkRules, entry: &Entry) -> Result<NetworkRules, Error> {
    let is_there =
        rules.mode == NetworkMode::Unrestricted || rules.allow.iter().any(|one| one.covers(entry));
    if is_there {
        let message = "its rules name this host already, or all; `cofferdam egress test` says what becomes of it";
        return Err(Error::conflict(message));
    }
    if rules.allow.len() >= limits::NETWORK_ENTRIES_MAX {
        let message = "its rules have as many entries as there may be";
        return Err(Error::invalid("egress.to", "network_rules", message));
    }
    let mut rules = rules.clone();
    if rules.mode == NetworkMode::None {
        rules.mode = NetworkMode::Allowlist;
    }
    rules.allow.push(entry.clone());
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_asked_for_one_host_and_never_for_a_pattern_or_an_address() {
        assert_eq!(host_of("a.test").unwrap().to_string(), "a.test:443");
        assert_eq!(host_of("a.test:80").unwrap().to_string(), "a.test:80");
        for bad in [
            "",
            "*",
            "*.a.test",
            "*:443",
            "a.test:*",
            "10.0.0.1",
            "a.test:0",
            "[::1]:443",
            "a b",
        ] {
            assert!(host_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rules_get_one_host_more_and_no_more_than_that() {
        let none = NetworkRules::default();
        let entry = host_of("a.test").unwrap();
        let more = widened(&none, &entry).unwrap();
        assert_eq!(more.mode, NetworkMode::Allowlist);
        assert_eq!(more.allow, std::slice::from_ref(&entry));
        assert!(widened(&more, &entry).is_err());
        let all = NetworkRules::all_or_nothing(true);
        assert!(widened(&all, &entry).is_err());
    }
}
