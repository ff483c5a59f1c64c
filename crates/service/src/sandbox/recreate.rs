//! A sandbox made anew: as it was asked to be, under its own id, in another place.
//!
//! Its place is taken away first, by an order to its node, and the node has told by then all that was run
//! there. Only then it waits for a node like one that is new, so that it is never in two places.

use super::change::{Note, apply};
use super::create::{access_token, check_room};
use super::gone;
use crate::create::{Idempotency, key_of, made_before};
use crate::error::Fail;
use crate::quota::Book;
use crate::quota::admit;
use crate::snapshot::begin::hold;
use crate::{Ctx, Error, Service, volume};
use model::access::Action;
use model::id::SandboxId;
use model::sandbox::{SandboxEvent, SandboxState};
use model::sandbox_spec::AccessToken;
use store::Tx;
use store::idempotency::{self, KeyOwner, Remembered};
use store::sandbox::{self, SandboxRow};

impl Service {
    /// Wants a sandbox in another place, as it was at first: on the same snapshot, if it began with one, and
    /// with nothing of what was written since. What runs in it ends. It keeps its id, its record and
    /// the rules of its network as they are now, and gets another token: whoever had the old one has nothing of the
    /// new place. Its time to live begins when it is ready again. Also of
    /// one that failed. Twice is once until it waits for its new place.
    ///
    /// # Errors
    /// [`Error::NotFound`], also where it failed and its snapshot is gone since; [`Error::Conflict`]
    /// `sandbox_gone` for one that is wanted gone, `root_changed`, `idempotency_mismatch`;
    /// [`Error::TooMuch`], [`Error::Invalid`] where it failed and there is no room, or no volume, any more;
    /// [`Error::DiskFull`].
    pub async fn sandbox_recreate(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        idempotency: Option<Idempotency>,
    ) -> Result<SandboxRow, Error> {
        ctx.may(Action::SandboxWrite)?;
        let row = self.sandbox_get(ctx, id).await?;
        let key = idempotency.map(|asked| key_of(ctx, "sandbox.recreate", asked, id.as_str()));
        if self.was_asked(key.clone()).await? {
            return Ok(row);
        }
        self.check_root(&row).await?;
        self.permitted_again(ctx, &row).await?;
        if self.is_full_with(0) {
            return Err(Error::DiskFull);
        }
        let token = access_token()?;
        let book = self.inner.quotas.clone();
        self.change(ctx, id, move |tx, row, note| {
            again(tx, row, note, (key.as_ref(), &token, &book))
        })
        .await
    }

    /// Whether an earlier request with this key was carried out: nothing that changed since refuses the same again.
    async fn was_asked(&self, key: Option<(KeyOwner, Remembered)>) -> Result<bool, Error> {
        let Some((owner, asked)) = key else {
            return Ok(false);
        };
        self.look(move |tx| {
            let there = idempotency::get(tx, &owner)?;
            let before = there.map(|there| made_before::<SandboxId>(&asked, &there));
            Ok(before.transpose()?.is_some())
        })
        .await
    }

    /// On another root it would be another sandbox, and its old place would be gone before that was seen.
    async fn check_root(&self, row: &SandboxRow) -> Result<(), Error> {
        let (was, root) = (row.spec.root_identity.as_deref(), row.spec.root.as_deref());
        if was.is_none() {
            return Ok(());
        }
        let is = self.place_on_root(root, &mut row.spec.node.clone()).await?;
        if was == is.as_deref() {
            return Ok(());
        }
        let message = "the root file system that the sandbox stands on is another one now";
        Err(Error::conflict_of("root_changed", message))
    }
}

fn again(
    tx: &mut Tx<'_>,
    row: SandboxRow,
    note: Note,
    (key, token, book): (Option<&(KeyOwner, Remembered)>, &AccessToken, &Book),
) -> Result<SandboxRow, Fail> {
    if let Some((owner, asked)) = key
        && let Some(there) = idempotency::get(tx, owner)?
    {
        made_before::<SandboxId>(asked, &there)?;
        return Ok(row);
    }
    if row.state == SandboxState::Destroying || row.state == SandboxState::Destroyed {
        return Err(gone(&row).into());
    }
    if matches!(row.state, SandboxState::Failed { .. }) {
        // What it stood on could have been given up since it was over. It is held before the quota, as where one is
        // made: in two orders they would wait in a circle.
        hold(tx, &row.tenant, &row.spec)?;
        volume::hold(tx, &row.tenant, &row.spec)?;
        check_room(tx, &row.tenant)?;
        let by = admit::By {
            book,
            stamp: store::policy::stamps(tx)?.quotas,
        };
        admit::sandbox(tx, &by, (&row.tenant, &row.principal), &row.spec.limits)?;
    }
    // What is refused is not remembered.
    if let Some((owner, asked)) = key {
        idempotency::put(tx, owner, asked, note.at_ms)?;
    }
    let why = note.clone().because("it is made anew");
    let Some(mut next) = apply(tx, &row, &SandboxEvent::Recreate, why)? else {
        return Ok(row);
    };
    sandbox::put_access_token(tx, &next.id, token)?;
    next.access_token = token.clone();
    if next.node.is_some() {
        return Ok(next);
    }
    // No node has ever had it.
    let fresh = apply(tx, &next, &SandboxEvent::Destroyed, note)?;
    Ok(fresh.unwrap_or(next))
}
