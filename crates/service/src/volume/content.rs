//! The content of a volume, for whoever has its token: a sandbox that has nothing else serves it, so that
//! nobody outside a sandbox follows a path that some workload has laid.

use super::owned;
use crate::error::Fail;
use crate::sandbox::SandboxAsk;
use crate::{Ctx, Error, Service, Who};
use model::access::Action;
use model::id::{TenantId, VolumeId};
use model::limits;
use model::principal::Role;
use model::profile::Says;
use model::sandbox::SandboxState;
use model::sandbox_spec::{Defaults, OnExpiry, SandboxSpec};
use model::spec::AskedLimits;
use model::volume::{VOLUME_DIR, VOLUME_PROFILE, VolumeMount, VolumeState};
use std::collections::BTreeMap;
use std::time::Duration;
use store::sandbox::{self, SandboxRow};
use store::volume::{self, VolumeRow};

impl Service {
    /// What opens the content of a volume, to read and to write it; nothing for who may only look. It is made from
    /// the master key, and kept nowhere.
    ///
    /// # Errors
    /// [`Error::SecretKey`].
    pub async fn volume_token(&self, ctx: &Ctx, row: &VolumeRow) -> Result<Option<String>, Error> {
        if ctx.may(Action::VolumeWrite).is_err() {
            return Ok(None);
        }
        let keys = self.secret_keys().await?;
        Ok(Some(keys.current.volume_token(&row.id)))
    }

    /// The volume that this token opens, with its owner.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a token that does not open it; [`Error::NotFound`] for a volume that is gone.
    pub async fn volume_opened(
        &self,
        id: &VolumeId,
        token: &str,
        request_id: &str,
    ) -> Result<(Ctx, VolumeRow), Error> {
        // Before anything is looked up: who has no token does not learn which volumes there are.
        if !self.secret_keys().await?.opens_volume(id, token) {
            let message = "the token of the volume is missing or wrong";
            return Err(Error::Forbidden(message.to_owned()));
        }
        let id = id.clone();
        let row = self.look(move |tx| {
            let row = volume::get(tx, None, &id)?;
            let there = row.filter(|row| row.state == VolumeState::Created);
            there.ok_or(Fail::Ours(Error::NotFound))
        });
        let row = row.await?;
        // The sandbox that serves it is made in its owner's name, and nothing else.
        let who = Who::only(
            row.tenant.clone(),
            row.principal.clone(),
            Role::Member,
            Action::SandboxWrite,
        );
        let ctx = Ctx {
            sees_servers: true,
            ..Ctx::of(who, request_id)
        };
        Ok((ctx, row))
    }

    /// The sandbox that serves the content of a volume; made when there is none, and living on for as long as
    /// it is used. Ready, or as it is when the time is up.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a volume that is gone; those of [`Service::sandbox_create`].
    pub async fn volume_server(
        &self,
        ctx: &Ctx,
        id: &VolumeId,
        up_to: Duration,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        if let Some(row) = self.server_of(&ctx.tenant, id).await? {
            return self.served(ctx, row, up_to).await;
        }
        // One at a time, so that the first requests, which often come together, make one. If another process
        // makes one at this moment there are two, of which the one that lost is over in a while.
        let _alone = self.inner.volume_gate.lock().await;
        if let Some(row) = self.server_of(&ctx.tenant, id).await? {
            return self.served(ctx, row, up_to).await;
        }
        let (tenant, named) = (ctx.tenant.clone(), id.to_string());
        let volume = self.look(move |tx| owned(tx, &tenant, &named)).await?;
        let row = self.sandbox_make(ctx, ask(&volume), None).await?;
        // If we die before the next line, nobody finds it, and it is over in a while.
        let (id, server) = (id.clone(), row.id.clone());
        self.unit(move |tx| Ok(volume::set_server(tx, &id, &server)?))
            .await?;
        self.sandbox_wait(ctx, &row.id, up_to).await
    }

    /// The sandbox that was made for it, if that has not ended and will not at once.
    async fn server_of(
        &self,
        tenant: &TenantId,
        id: &VolumeId,
    ) -> Result<Option<SandboxRow>, Error> {
        let (tenant, id) = (tenant.clone(), id.clone());
        self.look(move |tx| {
            let row = volume::get(tx, Some(&tenant), &id)?;
            let row = row.filter(|row| row.state == VolumeState::Created);
            let row = row.ok_or(Fail::Ours(Error::NotFound))?;
            let server = match &row.server {
                Some(id) => sandbox::get(tx, Some(&tenant), id)?,
                None => None,
            };
            Ok(server.filter(|row| {
                matches!(
                    row.state,
                    SandboxState::Requested | SandboxState::Provisioning | SandboxState::Ready
                )
            }))
        })
        .await
    }

    async fn served(
        &self,
        ctx: &Ctx,
        row: SandboxRow,
        up_to: Duration,
    ) -> Result<SandboxRow, Error> {
        if row.state != SandboxState::Ready {
            return self.sandbox_wait(ctx, &row.id, up_to).await;
        }
        // A commit for each request would cost more than most of them.
        let left = row.expires_at_ms.unwrap_or(0).saturating_sub(self.now_ms());
        if left > limits::VOLUME_SERVED_MS / 2 {
            return Ok(row);
        }
        let ttl_ms = Some(limits::VOLUME_SERVED_MS);
        self.sandbox_connect(ctx, &row.id, (ttl_ms, true), up_to)
            .await
    }
}

fn ask(volume: &VolumeRow) -> SandboxAsk {
    SandboxAsk {
        spec: SandboxSpec {
            profile: VOLUME_PROFILE.to_owned(),
            serves_volume: true,
            name: None,
            env: BTreeMap::new(),
            root: None,
            root_identity: None,
            limits: AskedLimits::default(),
            network: model::network::NetworkRules::default(),
            allow_root: true,
            on_expiry: OnExpiry::Kill,
            auto_resume: false,
            queue_timeout_ms: limits::SANDBOX_QUEUE_DEFAULT_MS,
            placement: model::place::Placement::default(),
            node: Some(volume.node.clone()),
            secrets: Vec::new(),
            scrub_patterns: false,
            layers: Vec::new(),
            defaults: Defaults::default(),
            made_by: None,
            permit: None,
            volumes: vec![VolumeMount {
                name: volume.name.clone(),
                id: Some(volume.id.clone()),
                path: VOLUME_DIR.to_owned(),
                read_only: false,
                size_bytes: volume.size_bytes,
                is_new: volume.made_at_ms.is_none(),
            }],
        },
        from: None,
        metadata: BTreeMap::new(),
        ttl_ms: limits::VOLUME_SERVED_MS,
        profile: None,
        says: Says::default(),
    }
}
