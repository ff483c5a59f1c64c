//! Rules of a network that change while a sandbox lives.
//!
//! What is wanted is on the row, with an epoch of its own, in the same transaction as the event. The node is told
//! by polls and heartbeats until it says that these rules are in force. If anybody dies in between, the row still
//! says so, and the node is told again; it takes the same rules over once.

use super::change::Note;
use super::gone;
use crate::error::Fail;
use crate::job::until;
use crate::permit::{check_stamp, is_changed};
use crate::report::{Report, check_clauses};
use crate::wake::{NodeWake, sandbox_news};
use crate::{Ctx, Error, Service, locked};
use model::enforcement::Enforced;
use model::id::{NodeId, SandboxId};
use model::limits;
use model::network::NetworkRules;
use std::collections::HashSet;
use std::time::Duration;
use store::network::By;
use store::sandbox::SandboxRow;
use store::{Tx, network, sandbox};
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
    /// They cannot be put in force: the rules that are instead, and why.
    pub refused: Option<(NetworkRules, String)>,
}

impl Service {
    /// Puts other rules in the place of those that a sandbox has; its node is told. The same again is no change.
    /// Waits until they are in force, at most so long.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `sandbox_gone`, or `network_refused` when the node says meanwhile that
    /// it cannot, and the rules before hold; [`Error::Invalid`] `beyond_profile`, `policy_refused` and its like.
    pub async fn sandbox_set_network(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        rules: NetworkRules,
        up_to: Duration,
    ) -> Result<SandboxRow, Error> {
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        // Before the change, so that no news of it is missed.
        let mut news = self.wake().sandboxes();
        let mut row = self.set_permitted(ctx, id, rules).await?;
        let (epoch, wanted) = (row.network_epoch, row.rules().clone());
        if let Some(node) = row.node.as_ref().filter(|_| row.is_network_pending()) {
            self.wake().node(node);
        }
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

    async fn set_permitted(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        rules: NetworkRules,
    ) -> Result<SandboxRow, Error> {
        let row = self.sandbox_get(ctx, id).await?;
        let mut tries = 1;
        loop {
            let permitted = self.permitted_network(ctx, &row, rules.clone()).await?;
            let set = move |tx: &mut Tx<'_>, row, note| {
                let (rules, stamp) = &permitted;
                check_stamp(tx, *stamp)?;
                set(tx, row, rules, note)
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
        check_clauses(&said.enforcement)?;
        if let Some((_, why)) = said
            .refused
            .as_ref()
            .filter(|(_, why)| why.len() > WHY_BYTES_MAX)
        {
            let message = format!(
                "a reason of {} bytes has more than {WHY_BYTES_MAX}",
                why.len()
            );
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
            Some((in_force, why)) => {
                let data = serde_json::json!({"epoch": said.epoch, "code": "network_refused",
                    "message": why, "network": in_force});
                let data = data.to_string();
                network::refused(tx, row, (in_force, why), &By { data, ..by })?
            }
        }));
    }
    // A process of the node that died after its refusal was known may have left a successor that was told before
    // that, and could. What is in force must be what is shown, so it is told the rules that are.
    if said.refused.is_none() && row.network_refused.is_some() {
        let by = changed(note, row.network_epoch + 1, row.rules());
        return Ok(Some(network::set(tx, row, row.rules(), &by)?));
    }
    Ok(None) // Said before.
}

fn changed(note: &Note, epoch: u64, rules: &NetworkRules) -> By {
    By {
        data: serde_json::json!({"epoch": epoch, "network": rules}).to_string(),
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

fn set(
    tx: &mut Tx<'_>,
    row: SandboxRow,
    rules: &NetworkRules,
    note: Note,
) -> Result<SandboxRow, Fail> {
    if row.state.is_over() || row.state == model::sandbox::SandboxState::Destroying {
        return Err(gone(&row).into());
    }
    // What the profile allowed when the sandbox was made is the most that it can ever have.
    let ceiling = row
        .spec
        .made_by
        .as_ref()
        .and_then(|made_by| made_by.network.as_ref());
    let narrowed = match ceiling {
        Some(ceiling) => ceiling.narrowed(rules).map_err(Error::Invalid)?,
        None => rules.clone(),
    };
    let rules = &narrowed;
    if row.rules() == rules {
        return Ok(row);
    }
    let by = changed(&note, row.network_epoch + 1, rules);
    Ok(network::set(tx, &row, rules, &by)?)
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
