//! Many sandboxes from one that runs: copied once, then made like any other.

use super::begin;
use crate::create::{Idempotency, key_of};
use crate::job::until;
use crate::{Ctx, Error, SandboxAsk, Service};
use model::access::Action;
use model::id::SandboxId;
use model::limits;
use model::profile::Says;
use model::sandbox_spec::SandboxSpec;
use model::snapshot::SnapshotState;
use std::time::Duration;
use store::sandbox::{self, SandboxRow};
use store::snapshot::{Purpose, SnapshotRow};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What is asked of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// So many, 1 to [`limits::FORK_MAX`].
    pub count: u32,
    /// How long each is to live; as long as the first one when nobody says.
    pub ttl_ms: Option<u64>,
}

impl Service {
    /// Copies what was written in a sandbox and makes others that begin with that and are like it else,
    /// labels included. Each of them comes to be or does not, by itself. The copy goes with the last of them.
    ///
    /// With a key, the same request again answers the sandboxes that the first one made, as they are now.
    ///
    /// # Errors
    /// Those of [`Service::snapshot_create`]; [`Error::Conflict`] where there is no copy by `up_to`;
    /// [`Error::Invalid`].
    pub async fn sandbox_fork(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        fork: Fork,
        idempotency: Option<Idempotency>,
        up_to: Duration,
    ) -> Result<Vec<Result<SandboxRow, Error>>, Error> {
        ctx.may(Action::SandboxWrite)?;
        ctx.may(Action::SnapshotWrite)?;
        if !(1..=limits::FORK_MAX).contains(&fork.count) {
            let message = format!("must be 1 to {}", limits::FORK_MAX);
            return Err(Error::invalid("count", "invalid_argument", message));
        }
        let source = self.sandbox_get(ctx, id).await?;
        let copy_id = self.snapshot_id()?;
        let key = idempotency.map(|asked| key_of(ctx, "sandbox.fork", asked, copy_id.as_str()));
        let again = key.clone();
        let copy = (copy_id.clone(), Purpose::Fork);
        let copy = self
            .snapshot_begin(ctx, id, copy, (None, None), key)
            .await?;
        if again.is_some() && copy.id != copy_id {
            return self.forks_of(ctx, &copy, up_to).await;
        }
        let copy = self.snapshot_wait(ctx, &copy.id, up_to).await?;
        let made = match &copy.state {
            SnapshotState::Ready => Ok(self.fork_from(ctx, &source, &copy, fork).await),
            SnapshotState::Failed { why } => {
                Err(Error::conflict_of("snapshot_failed", why.clone()))
            }
            SnapshotState::Saving | SnapshotState::Deleting | SnapshotState::Deleted => {
                let message = "the sandbox was not copied in time";
                Err(Error::conflict_of("snapshot_failed", message))
            }
        };
        // It stays for as long as one of them stands on it. If we die before this line, a pass of the
        // loops does it.
        self.snapshot_delete(ctx, &copy.id).await?;
        made
    }

    async fn fork_from(
        &self,
        ctx: &Ctx,
        source: &SandboxRow,
        copy: &SnapshotRow,
        fork: Fork,
    ) -> Vec<Result<SandboxRow, Error>> {
        // What it may reach now, and not what it might at first.
        let mut made_by = source.spec.made_by.clone();
        if let Some(made_by) = &mut made_by {
            made_by.timeout_asked_ms = None;
        }
        let spec = SandboxSpec {
            made_by,
            network: source.rules().clone(),
            secrets: source.secrets(),
            ..source.spec.clone()
        };
        let spec = match begin::spec_from(spec, copy) {
            Ok(spec) => spec,
            Err(error) => return vec![Err(error)],
        };
        let ask = SandboxAsk {
            spec,
            from: None,
            metadata: source.metadata.clone(),
            ttl_ms: fork.ttl_ms.unwrap_or(source.ttl_ms),
            profile: None,
            says: Says {
                network: true,
                timeout: true,
            },
        };
        // At the same time, so that they share commits.
        let mut making = JoinSet::new();
        for _ in 0..fork.count {
            let (service, ctx, ask) = (self.clone(), ctx.clone(), ask.clone());
            making.spawn(async move { service.sandbox_create(&ctx, ask, None).await });
        }
        let mut made = Vec::new();
        while let Some(one) = making.join_next().await {
            made.push(one.unwrap_or_else(|error| Err(Error::internal("make a fork", error))));
        }
        made
    }

    /// What an earlier request has made, once it has made all: then it gives its copy up.
    async fn forks_of(
        &self,
        ctx: &Ctx,
        copy: &SnapshotRow,
        up_to: Duration,
    ) -> Result<Vec<Result<SandboxRow, Error>>, Error> {
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        let mut news = self.wake().sandboxes();
        let is_under_way =
            |state: &SnapshotState| matches!(state, SnapshotState::Saving | SnapshotState::Ready);
        let mut row = self.snapshot_get(ctx, &copy.id).await?;
        while is_under_way(&row.state) && Instant::now() < until {
            crate::wake::sandbox_news(&mut news, &row.sandbox, until).await;
            row = self.snapshot_get(ctx, &copy.id).await?;
        }
        let copy = copy.id.clone();
        let rows = self.look(move |tx| Ok(sandbox::from_snapshot(tx, &copy, limits::FORK_MAX)?));
        Ok(rows.await?.into_iter().map(Ok).collect())
    }
}
