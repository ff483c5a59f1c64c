//! Volumes: named directories that outlive sandboxes, each on one node, which makes its bytes when a sandbox
//! has it first.
//!
//! What somebody wants is a state of the row. Nodes name in each heartbeat the volumes of which they have
//! bytes, and are told which of them are to go; one that is to go and that its node does not name any more is
//! gone. So nothing is remembered that a crash could lose.

mod content;

use crate::create::{Idempotency, key_of, made_before};
use crate::error::Fail;
use crate::sandbox::change;
use crate::{Ctx, Error, Service, page, random};
use model::access::Action;
use model::id::{NodeId, SandboxId, TenantId, VolumeId};
use model::limits;
use model::node::{Connectivity, Scheduling};
use model::sandbox_spec::SandboxSpec;
use model::spec::Invalid;
use model::volume::{VOLUME_NAME_RULE, VolumeEvent, VolumeMount, VolumeState, is_volume_name};
use std::collections::HashSet;
use store::node::NodeRow;
use store::volume::{self, VolumeRow};
use store::{Tx, idempotency, sandbox};

/// Volumes that a node is told to remove at a time: removing takes longer than asking again.
const REMOVE_MAX: u32 = 64;
/// Nodes that are looked at to find one for a volume.
const NODES_MAX: u32 = 1000;
/// What a node says about itself that keeps volumes, and a large storage of sandboxes, on its disk.
pub(crate) const CAN: (&str, &str) = ("volumes", "yes");

/// A volume that somebody wants to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// One of a kind in the tenant.
    pub name: String,
    /// What it holds at most; a bound of ours when nobody says.
    pub size_bytes: Option<u64>,
    /// The node that is to keep it; the one that keeps fewest when nobody says.
    pub node: Option<NodeId>,
}

/// A page of volumes, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePage {
    /// The volumes.
    pub volumes: Vec<VolumeRow>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

impl Service {
    /// Takes a volume in. Its node makes it when a sandbox has it first.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Conflict`] when the name is taken, and `volume_unsupported` where no node
    /// can keep one; [`Error::TooMuch`].
    pub async fn volume_create(
        &self,
        ctx: &Ctx,
        new: NewVolume,
        idempotency: Option<Idempotency>,
    ) -> Result<VolumeRow, Error> {
        ctx.may(Action::VolumeWrite)?;
        check_new(&new)?;
        let at_ms = self.now_ms();
        let id = VolumeId::from_parts(at_ms, random()?);
        let key = idempotency.map(|asked| key_of(ctx, "volume.create", asked, id.as_str()));
        let is_full = self.is_full_with(0);
        let ctx = ctx.clone();
        self.unit(move |tx| {
            if let Some((owner, asked)) = &key
                && let Some(there) = idempotency::get(tx, owner)?
            {
                let there = match made_before::<VolumeId>(asked, &there)? {
                    Some(id) => volume::get(tx, Some(&ctx.tenant), &id)?,
                    None => None,
                };
                let gone = || Error::mismatch("what the key was used for is gone");
                return Ok(there.ok_or_else(gone)?);
            }
            if is_full {
                return Err(Error::DiskFull.into());
            }
            if volume::named(tx, &ctx.tenant, &new.name)?.is_some() {
                return Err(Error::conflict("there is a volume of this name").into());
            }
            if volume::count(tx, &ctx.tenant, limits::VOLUMES_MAX)? >= limits::VOLUMES_MAX {
                let message = format!("there are {} volumes already", limits::VOLUMES_MAX);
                let code = "too_much";
                return Err(Error::TooMuch { code, message }.into());
            }
            let row = VolumeRow {
                node: node_for(tx, new.node.as_ref())?,
                id: id.clone(),
                tenant: ctx.tenant.clone(),
                principal: ctx.principal.clone(),
                name: new.name.clone(),
                state: VolumeState::Created,
                version: 1,
                size_bytes: new.size_bytes.unwrap_or(limits::VOLUME_DEFAULT_BYTES),
                server: None,
                created_at_ms: at_ms,
                made_at_ms: None,
                ended_at_ms: None,
            };
            volume::insert(tx, &row)?;
            if let Some((owner, asked)) = &key {
                idempotency::put(tx, owner, asked, at_ms)?;
            }
            Ok(row)
        })
        .await
    }

    /// A volume by its name, or by its id, under which one is found that is gone too.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn volume_get(&self, ctx: &Ctx, name_or_id: &str) -> Result<VolumeRow, Error> {
        ctx.may(Action::VolumeRead)?;
        let (tenant, named) = (ctx.tenant.clone(), name_or_id.to_owned());
        self.look(move |tx| owned(tx, &tenant, &named)).await
    }

    /// Volumes by name, those after the name `after`.
    ///
    /// # Errors
    /// [`Error`] of the database.
    pub async fn volume_list(
        &self,
        ctx: &Ctx,
        after: Option<&str>,
        limit: u32,
    ) -> Result<VolumePage, Error> {
        ctx.may(Action::VolumeRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (tenant, after) = (ctx.tenant.clone(), after.unwrap_or("").to_owned());
        let listed = self.look(move |tx| Ok(volume::list(tx, &tenant, &after, limit + 1)?));
        let mut volumes = listed.await?;
        let next = page::cut(&mut volumes, limit, |row| row.name.clone());
        Ok(VolumePage { volumes, next })
    }

    /// Wants a volume gone, with all that is in it. Its name is free at once, its bytes go when its node
    /// hears of it. Twice is once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `volume_in_use` while a sandbox has it.
    pub async fn volume_delete(&self, ctx: &Ctx, name_or_id: &str) -> Result<VolumeRow, Error> {
        ctx.may(Action::VolumeWrite)?;
        let at_ms = self.now_ms();
        let note = change::Note::new(ctx, at_ms);
        let (ctx, named) = (ctx.clone(), name_or_id.to_owned());
        let deleted = self.unit(move |tx| {
            let row = owned(tx, &ctx.tenant, &named)?;
            let row = volume::lock(tx, &ctx.tenant, &row.id)?.ok_or(Fail::Ours(Error::NotFound))?;
            let Some(state) = row.state.step(VolumeEvent::Delete) else {
                return Ok((row, None));
            };
            let users = volume::users(tx, &row, 2)?;
            if let Some(first) = users.first() {
                let more = if users.len() > 1 { " and others" } else { "" };
                let message = format!("the volume is in use by the sandbox {first}{more}");
                return Err(Error::conflict_of("volume_in_use", message).into());
            }
            let server = match &row.server {
                Some(id) => sandbox::get(tx, Some(&ctx.tenant), id)?,
                None => None,
            };
            let server = server.filter(|server| !server.state.is_over());
            let note = note.clone().because("its volume is deleted");
            let server = server.map(|server| crate::sandbox::take_away(tx, server, note));
            let server = server.transpose()?;
            let next = volume::move_to(tx, &row, state, &ctx.principal, at_ms)?;
            Ok((next, server))
        });
        let (row, server) = deleted.await?;
        if let Some(server) = server {
            self.announce_sandbox(&server);
        }
        Ok(row)
    }

    /// Fixes the volumes that a sandbox is to have, and with them its node.
    ///
    /// # Errors
    /// [`Error::Invalid`] `volume_missing` for each that this tenant has not, or where they are not all on
    /// the node of the sandbox.
    pub(crate) async fn pin_volumes(&self, ctx: &Ctx, spec: &mut SandboxSpec) -> Result<(), Error> {
        if spec.volumes.is_empty() {
            return Ok(());
        }
        let (tenant, asked) = (ctx.tenant.clone(), spec.volumes.clone());
        let found = self.look(move |tx| asked.iter().map(|one| find(tx, &tenant, one)).collect());
        let found: Vec<Option<VolumeRow>> = found.await?;
        let mut wrong = Vec::new();
        for (index, (mount, row)) in spec.volumes.iter_mut().zip(found).enumerate() {
            let Some(row) = row else {
                wrong.push(missing(index));
                continue;
            };
            if spec.node.as_ref().is_some_and(|node| *node != row.node) {
                wrong.push(Invalid {
                    field: format!("volumes[{index}]"),
                    code: "invalid_argument",
                    message: format!("the volume is on the node {}, and stays there", row.node),
                });
            }
            spec.node.get_or_insert(row.node);
            mount.id = Some(row.id);
            mount.size_bytes = row.size_bytes;
            mount.is_new = row.made_at_ms.is_none();
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::Invalid(wrong)),
        }
    }

    /// Compares the volumes that a node has bytes of with those that it should have. Gives what it is to
    /// remove; what is to go and is not there any more is gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it says more than it can have.
    pub async fn volume_beat(&self, ctx: &Ctx, has: Vec<VolumeId>) -> Result<Vec<VolumeId>, Error> {
        let node = ctx.only_node()?.clone();
        let most = limits::NODE_VOLUMES_MAX;
        if has.len() > most as usize {
            let message = format!("a node names at most {most} volumes");
            return Err(Error::invalid("volumes", "too_many", message));
        }
        let has: HashSet<VolumeId> = has.into_iter().collect();
        let (named, of) = (has.clone(), node.clone());
        let (to_go, strays) = self
            .look(move |tx| {
                let to_go = volume::removable(tx, &of, REMOVE_MAX)?;
                if named.is_empty() {
                    return Ok((to_go, Vec::new()));
                }
                // Twice as many as there can be, because two requests may both see the last place.
                let ours: HashSet<VolumeId> =
                    volume::on_node(tx, &of, 2 * most)?.into_iter().collect();
                let strays = named.iter().filter(|id| !ours.contains(id)).cloned();
                Ok((to_go, strays.take(REMOVE_MAX as usize).collect::<Vec<_>>()))
            })
            .await?;
        let (there, gone): (Vec<_>, Vec<_>) =
            to_go.into_iter().partition(|row| has.contains(&row.id));
        if !gone.is_empty() {
            let (principal, at_ms) = (ctx.principal.clone(), self.now_ms());
            self.unit(move |tx| forget(tx, &gone, &principal, at_ms))
                .await?;
        }
        Ok(there.into_iter().map(|row| row.id).chain(strays).collect())
    }
}

/// Of volumes that are to go nothing is left.
pub(crate) fn forget(
    tx: &mut Tx<'_>,
    rows: &[VolumeRow],
    principal: &model::id::PrincipalId,
    at_ms: u64,
) -> Result<(), Fail> {
    for row in rows {
        // As it is now: two heartbeats may both have found it gone.
        let Some(row) = volume::get(tx, None, &row.id)? else {
            continue;
        };
        if let Some(state) = row.state.step(VolumeEvent::Deleted) {
            volume::move_to(tx, &row, state, principal, at_ms)?;
        }
    }
    Ok(())
}

fn missing(index: usize) -> Invalid {
    Invalid {
        field: format!("volumes[{index}].name"),
        code: "volume_missing",
        message: "there is no such volume".to_owned(),
    }
}

/// The volume that a mount means: which one is fixed once the sandbox was made.
fn find(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    mount: &VolumeMount,
) -> Result<Option<VolumeRow>, Fail> {
    let row = match &mount.id {
        Some(id) => volume::get(tx, Some(tenant), id)?,
        None => volume::named(tx, tenant, &mount.name)?,
    };
    // Policies were asked about the name, and must have been asked about this volume.
    let is_it = |row: &VolumeRow| row.state == VolumeState::Created && row.name == mount.name;
    Ok(row.filter(is_it))
}

/// Looks again in the transaction that makes the sandbox, and keeps whoever deletes a volume waiting: either
/// the sandbox is seen then, or the deletion is seen here.
pub(crate) fn hold(tx: &mut Tx<'_>, tenant: &TenantId, spec: &SandboxSpec) -> Result<(), Fail> {
    let mut ids: Vec<(&VolumeId, usize)> = ids_of(spec).zip(0..).collect();
    // In one order for all, so that no two wait for each other.
    ids.sort_unstable();
    for (id, index) in ids {
        let row = volume::lock(tx, tenant, id)?;
        if row.is_none_or(|row| row.state != VolumeState::Created) {
            return Err(Error::Invalid(vec![missing(index)]).into());
        }
    }
    Ok(())
}

/// The sandbox has them from now on.
pub(crate) fn use_in(tx: &mut Tx<'_>, spec: &SandboxSpec, id: &SandboxId) -> Result<(), Fail> {
    for volume in ids_of(spec) {
        volume::use_in(tx, volume, id)?;
    }
    Ok(())
}

fn ids_of(spec: &SandboxSpec) -> impl Iterator<Item = &VolumeId> {
    spec.volumes.iter().filter_map(|mount| mount.id.as_ref())
}

/// The volume, if it is this tenant's.
fn owned(tx: &mut Tx<'_>, tenant: &TenantId, name_or_id: &str) -> Result<VolumeRow, Fail> {
    let row = match name_or_id.parse::<VolumeId>() {
        Ok(id) => volume::get(tx, Some(tenant), &id)?,
        // What can be neither is not looked for: PostgreSQL has no text with NUL.
        Err(_) if is_volume_name(name_or_id) => volume::named(tx, tenant, name_or_id)?,
        Err(_) => None,
    };
    row.ok_or(Fail::Ours(Error::NotFound))
}

/// The node that keeps a volume from now on: of those that can, the one that keeps fewest.
fn node_for(tx: &mut Tx<'_>, asked: Option<&NodeId>) -> Result<NodeId, Fail> {
    let nodes = store::node::list(tx, NODES_MAX)?;
    let can = |node: &&NodeRow| {
        asked.is_none_or(|asked| *asked == node.id)
            && node.state.connectivity == Connectivity::Online
            && node.state.scheduling == Scheduling::Active
            && node.facts.get(CAN.0).is_some_and(|said| said == CAN.1)
    };
    let mut best: Option<(u64, NodeId)> = None;
    for node in nodes.iter().filter(can) {
        let has = volume::count_on(tx, &node.id, u64::from(limits::NODE_VOLUMES_MAX))?;
        let is_better = best.as_ref().is_none_or(|(least, _)| has < *least);
        if has < u64::from(limits::NODE_VOLUMES_MAX) && is_better {
            best = Some((has, node.id.clone()));
        }
    }
    let is_online = |node: &NodeRow| node.state.connectivity == Connectivity::Online;
    let is_there = nodes.iter().any(is_online);
    let none = || {
        // A server that has just started hears of its node in a moment.
        let (code, message) = match is_there {
            true => (
                "volume_unsupported",
                "no node that is there can keep a volume",
            ),
            false => ("no_capacity", "no node is there"),
        };
        Fail::Ours(Error::conflict_of(code, message))
    };
    best.map(|(_, node)| node).ok_or_else(none)
}

fn check_new(new: &NewVolume) -> Result<(), Error> {
    if !is_volume_name(&new.name) {
        return Err(Error::invalid("name", "invalid_argument", VOLUME_NAME_RULE));
    }
    let (least, most) = (limits::VOLUME_MIN_BYTES, limits::VOLUME_MAX_BYTES);
    match new.size_bytes {
        Some(size) if !(least..=most).contains(&size) => {
            let message = format!("must be between {least} and {most}");
            Err(Error::invalid("size_bytes", "invalid_argument", message))
        }
        _ => Ok(()),
    }
}
