//! Rules of a network that change while a sandbox lives.
//!
//! What is wanted is on the row, with an epoch of its own, in the same transaction as the event. The node is told
//! by polls and heartbeats until it says that these rules are in force. If anybody dies in between, the row still
//! says so, and the node is told again; it takes the same rules over once.

use super::change::Note;
use super::gone;
use crate::approval::yes;
use crate::error::Fail;
use crate::job::until;
use crate::permit::{check_stamp, is_changed};
use crate::report::{Report, check_clauses};
use crate::wake::{NodeWake, sandbox_news};
use crate::{Ctx, Error, Service, locked};
use model::access::Action;
use model::enforcement::Enforced;
use model::id::{NodeId, SandboxId};
use model::limits;
use model::network::NetworkRules;
use model::secret::{Leaving, SecretHow, SecretUse};
use std::collections::HashSet;
use std::time::Duration;
use store::network::By;
use store::sandbox::SandboxRow;
use store::{StoreError, Tx, network, sandbox, secret};
use tokio::time::Instant;

/// Rules of one sandbox, by their epoch.
pub(crate) type NetworkRef = (SandboxId, u64);

/// The longest reason of a node.
const WHY_BYTES_MAX: usize = 1024;

/// What a node says of rules that it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSaid {
    /// Of which.
    pub epoch: u64,
    /// What is in force around the sandbox, where these rules are.
    pub enforcement: Vec<Enforced>,
    /// They cannot be put in force.
    pub refused: Option<NetworkRefused>,
}

/// Rules that cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRefused {
    /// The rules that are instead.
    pub in_force: NetworkRules,
    /// The secrets for what leaves by those; those that the sandbox was made with when absent.
    pub secrets: Option<Vec<SecretUse>>,
    /// Why.
    pub why: String,
}

/// What somebody puts in the place of the rules of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkChange {
    /// The rules.
    pub rules: NetworkRules,
    /// The secrets for what leaves, in the place of those that there are; those stay when absent.
    pub secrets: Option<Vec<SecretUse>>,
}

impl From<NetworkRules> for NetworkChange {
    fn from(rules: NetworkRules) -> NetworkChange {
        NetworkChange {
            rules,
            secrets: None,
        }
    }
}

impl Service {
    /// Puts other rules in the place of those that a sandbox has; its node is told. The same again is no change.
    /// Secrets that are said get their newest version. Waits until all is in force, at most so long.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `sandbox_gone`, or `network_refused` when the node says meanwhile that
    /// it cannot, and the rules before hold; [`Error::Invalid`] `beyond_profile`, `policy_refused` and its like, or for
    /// secrets that cannot be used so, or are not there.
    pub async fn sandbox_set_network(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        asked: impl Into<NetworkChange> + Send,
        up_to: Duration,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        let mut asked = asked.into();
        if let Some(uses) = &mut asked.secrets {
            // Nobody asks a provider for somebody else's sandbox, nor for what cannot be used there.
            let row = self.sandbox_get(ctx, id).await?;
            checked(&row, &asked.rules, uses)?;
            self.pin_secrets(ctx, uses).await?;
        }
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        // Before the change, so that no news of it is missed.
        let mut news = self.wake().sandboxes();
        let mut row = self.set_permitted(ctx, id, asked).await?;
        let (epoch, wanted) = (row.network_epoch, row.rules().clone());
        self.network_wanted(&row);
        let is_waiting = |row: &SandboxRow| row.network_done < epoch && !row.state.is_over();
        while is_waiting(&row) && Instant::now() < until {
            row = match sandbox_news(&mut news, id, until).await {
                Some(told) if told.version >= row.version => SandboxRow::clone(&told),
                Some(_) => row,
                None => self.sandbox_get(ctx, id).await?,
            };
        }
        if row.network_epoch == epoch
            && *row.rules() != wanted
            && let Some(why) = row.network_refused
        {
            return Err(Error::conflict_of("network_refused", why));
        }
        Ok(row)
    }

    /// A node has rules to put in force.
    fn network_wanted(&self, row: &SandboxRow) {
        if let Some(node) = row.node.as_ref().filter(|_| row.is_network_pending()) {
            self.wake().node(node);
        }
    }

    /// The same, for rules that were changed by another way than a request for them.
    pub(crate) fn network_told(&self, row: &SandboxRow) {
        self.announce_sandbox(row);
        self.network_wanted(row);
    }

    async fn set_permitted(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        asked: NetworkChange,
    ) -> Result<SandboxRow, Error> {
        let mut tries = 1;
        loop {
            let row = self.sandbox_get(ctx, id).await?;
            let permitted = self.permitted_network(ctx, &row, asked.clone()).await?;
            let set = move |tx: &mut Tx<'_>, row, note: Note| {
                let (asked, stamp, said) = &permitted;
                check_stamp(tx, *stamp)?;
                yes::check(tx, said.as_ref(), note.at_ms)?;
                let by = (note.principal.clone(), note.at_ms);
                let row = set(tx, row, asked, note)?;
                yes::use_up(tx, said.as_ref(), (&by.0, by.1))?;
                Ok(row)
            };
            match self.change(ctx, id, set).await {
                Err(error) if is_changed(&error, tries) => tries += 1,
                set => return set,
            }
            self.policies_forget();
        }
    }

    /// A node says that rules are in force, or that they cannot be.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a sandbox of another node; [`Error::Invalid`].
    pub async fn sandbox_network_report(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        said: NetworkSaid,
    ) -> Result<Report, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), None).await?;
        check_clauses(&said.enforcement)?;
        let why = said.refused.as_ref().map_or(0, |refused| refused.why.len());
        if why > WHY_BYTES_MAX {
            let message = format!("a reason of {why} bytes has more than {WHY_BYTES_MAX}");
            return Err(Error::invalid("refused.why", "invalid_argument", message));
        }
        let note = Note::new(ctx, self.now_ms());
        let (id, told) = (id.clone(), node.clone());
        let done = self
            .unit(move |tx| {
                let row = sandbox::get(tx, None, &id)?.ok_or(Fail::Ours(Error::NotFound))?;
                if row.node.as_ref() != Some(&node) {
                    return Err(Error::NotYourLease.into());
                }
                heard(tx, &row, &said, &note)
            })
            .await?;
        if let Some(row) = &done {
            self.announce_sandbox(row);
            if row.is_network_pending() {
                self.wake().node(&told);
            }
        }
        Ok(Report {
            duplicate: done.is_none(),
            cancel: false,
        })
    }
}

/// What becomes of a sandbox by what its node says of rules; `None` when that is nothing new.
fn heard(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    said: &NetworkSaid,
    note: &Note,
) -> Result<Option<SandboxRow>, Fail> {
    // Of older rules: the newer ones are still to come.
    if row.state.is_over() || said.epoch != row.network_epoch {
        return Ok(None);
    }
    if row.is_network_pending() {
        let by = by(note, said.epoch);
        return Ok(Some(match &said.refused {
            None => network::done(tx, row, &said.enforcement, &by)?,
            Some(refused) => {
                let NetworkRefused { in_force, why, .. } = refused;
                let leaving = leaving_in_force(row, refused);
                let data = serde_json::json!({"epoch": said.epoch, "code": "network_refused",
                    "message": why, "network": in_force});
                let data = data.to_string();
                network::refused(
                    tx,
                    row,
                    (in_force, leaving.as_ref(), why),
                    &By { data, ..by },
                )?
            }
        }));
    }
    // A process of the node that died after its refusal was known may have left a successor that was told before
    // that, and could. What is in force must be what is shown, so it is told the rules that are.
    if said.refused.is_none() && row.network_refused.is_some() {
        let same = (row.rules(), row.leaving.as_ref());
        let by = changed(note, row.network_epoch + 1, same.0, same.1);
        return Ok(Some(network::set(tx, row, same, &by)?));
    }
    Ok(None) // Said before.
}

fn changed(note: &Note, epoch: u64, rules: &NetworkRules, leaving: Option<&Leaving>) -> By {
    let mut data = serde_json::json!({"epoch": epoch, "network": rules});
    if let Some(leaving) = leaving {
        data["secrets"] = serde_json::json!(leaving.uses);
    }
    By {
        data: data.to_string(),
        ..by(note, epoch)
    }
}

fn by(note: &Note, epoch: u64) -> By {
    By {
        principal: note.principal.clone(),
        at_ms: note.at_ms,
        data: serde_json::json!({ "epoch": epoch }).to_string(),
    }
}

/// The rules that hold where these are asked for: what the profile allowed when the sandbox was made is the most that
/// it can ever have.
pub(crate) fn narrowed(row: &SandboxRow, rules: &NetworkRules) -> Result<NetworkRules, Error> {
    let made_by = row.spec.made_by.as_ref();
    match made_by.and_then(|made_by| made_by.network.as_ref()) {
        Some(ceiling) => ceiling.narrowed(rules).map_err(Error::Invalid),
        None => Ok(rules.clone()),
    }
}

fn checked(row: &SandboxRow, rules: &NetworkRules, uses: &[SecretUse]) -> Result<(), Error> {
    let rules = narrowed(row, rules)?;
    let checked = row.spec.check_leaving(uses, &rules);
    checked.map_err(Error::Invalid)
}

/// What is used for what leaves by rules that a node says are in force still.
fn leaving_in_force(row: &SandboxRow, refused: &NetworkRefused) -> Option<Leaving> {
    let said = refused.secrets.as_ref()?;
    let leaving = row.leaving.as_ref()?;
    Some(leaving.in_force(&row.spec.secrets, said))
}

/// The secrets for what leaves, where a password among them came in clear for a proxy that is not that of these rules:
/// without it, because no other must be told it. `None` where all stay as they are.
fn without_given(
    tx: &mut Tx<'_>,
    row: &SandboxRow,
    rules: &NetworkRules,
) -> Result<Option<Vec<SecretUse>>, StoreError> {
    let has = row.rules();
    if (&has.upstream, &has.upstream_ca) == (&rules.upstream, &rules.upstream_ca) {
        return Ok(None);
    }
    let mut all = row.secrets();
    all.retain(|one| one.how.leaves());
    let mut stay = Vec::new();
    for one in &all {
        let named = one.id.as_ref().filter(|_| one.how == SecretHow::Upstream);
        let there = match named {
            Some(id) => secret::get(tx, &row.tenant, id.as_str())?,
            None => None,
        };
        if !there.is_some_and(|there| there.given) {
            stay.push(one.clone());
        }
    }
    Ok((stay.len() < all.len()).then_some(stay))
}

pub(crate) fn set(
    tx: &mut Tx<'_>,
    row: SandboxRow,
    asked: &NetworkChange,
    note: Note,
) -> Result<SandboxRow, Fail> {
    if row.state.is_over() || row.state == model::sandbox::SandboxState::Destroying {
        return Err(gone(&row).into());
    }
    let rules = &narrowed(&row, &asked.rules)?;
    let before = row.leaving.as_ref();
    let uses = match &asked.secrets {
        Some(uses) => Some(uses.clone()),
        None => without_given(tx, &row, rules)?,
    };
    let leaving = match uses {
        Some(uses) if before.is_none_or(|before| before.uses != uses) => {
            let said = (uses, note.principal.clone());
            Some(Leaving::after(before, said, row.is_network_pending()))
        }
        Some(_) | None => row.leaving.clone(),
    };
    if row.rules() == rules && row.leaving == leaving {
        return Ok(row);
    }
    let now = (rules, leaving.as_ref());
    let by = changed(&note, row.network_epoch + 1, now.0, now.1);
    Ok(network::set(tx, &row, now, &by)?)
}

/// Sandboxes of a node that it has to put other rules in force for.
pub(crate) fn pending_of(tx: &mut Tx<'_>, node: &NodeId) -> Result<Vec<SandboxRow>, Fail> {
    let most = limits::NODE_SANDBOXES_MAX;
    Ok(sandbox::network_pending_of(tx, node, most)?)
}

/// Those that no poll has told yet. What is in force meanwhile is forgotten.
pub(crate) fn untold(wake: &NodeWake, pending: Vec<SandboxRow>) -> Vec<SandboxRow> {
    let name = |row: &SandboxRow| -> NetworkRef { (row.id.clone(), row.network_epoch) };
    let all: HashSet<NetworkRef> = pending.iter().map(name).collect();
    let mut told = locked(&wake.told_networks);
    let new = pending.into_iter().filter(|row| !told.contains(&name(row)));
    let new: Vec<SandboxRow> = new.collect();
    *told = all;
    new
}
