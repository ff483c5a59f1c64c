//! A sandbox made anew: what was asked of it is asked again, under an id of its own, and the old one goes.

use super::create::SandboxAsk;
use crate::create::Idempotency;
use crate::{Ctx, Error, Service};
use model::id::SandboxId;
use model::sandbox_spec::SandboxSpec;
use store::sandbox::SandboxRow;

impl Service {
    /// Takes a sandbox away and makes one that is asked to be the same, in one step: with the same
    /// snapshot below it, if it began with one, and nothing of what was written since. It has another id,
    /// because a sandbox has one life and its record stays. Also of one that is over.
    ///
    /// # Errors
    /// [`Error::NotFound`], also where its snapshot is gone; those of [`Service::sandbox_create`].
    pub async fn sandbox_recreate(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        idempotency: Option<Idempotency>,
    ) -> Result<SandboxRow, Error> {
        let old = self.sandbox_get(ctx, id).await?;
        let network = old.rules().clone();
        let ask = SandboxAsk {
            // What it may reach now, and not what it might at first.
            spec: SandboxSpec {
                network,
                ..old.spec
            },
            from: None,
            metadata: old.metadata,
            ttl_ms: old.ttl_ms,
            profile: None,
        };
        let row = self
            .sandbox_make(ctx, ask, idempotency, Some(id.clone()))
            .await?;
        let old = self.sandbox_get(ctx, id).await?;
        self.announce_sandbox(&old);
        Ok(row)
    }
}
