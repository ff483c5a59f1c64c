//! Builds: how a profile comes to be what its recipe says.
//!
//! Whoever carries a build out takes it for a moment, by a number, and says again and again that it is still
//! there. Everything that it writes down counts only while it has the build: one that was thought dead, and
//! whose build another has taken, changes nothing any more.
//!
//! Reading order: this file (asked from outside), `origin` (what a build begins with), `carry` (what whoever
//! carries it out says), `file`.

mod carry;
mod file;
mod origin;

pub use carry::{BUILD_LABEL, BuildHold, Saved};
pub use origin::{Built, Settled};

use crate::error::Fail;
use crate::profile::ProfileRef;
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::build::{BuildEvent, BuildState, BuildStep};
use model::id::{BuildId, PrincipalId};
use model::profile::Recipe;
use serde_json::json;
use store::Tx;
use store::build::{self, BuildChange, BuildRow, LogQuery, LogRow};

impl Service {
    /// Gives a build its recipe. It is carried out as soon as somebody is free.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a build of another profile; [`Error::Invalid`]; [`Error::Conflict`] when
    /// it has one already.
    pub async fn build_begin(
        &self,
        ctx: &Ctx,
        (profile, id): (&ProfileRef, &BuildId),
        recipe: Recipe,
    ) -> Result<BuildRow, Error> {
        ctx.may(Action::ProfileWrite)?;
        recipe.validate().map_err(Error::Invalid)?;
        let row = self.build_get(ctx, profile, id).await?;
        let (ctx, id, at_ms) = (ctx.clone(), row.id, self.now_ms());
        let begun = self
            .unit(move |tx| {
                let row = owned(tx, &ctx, &id)?;
                if row.state != BuildState::Waiting {
                    return Err(Error::conflict("the build was begun already").into());
                }
                file::touch_all(tx, &ctx, &recipe, at_ms)?;
                let row = build::put_recipe(tx, &row, &recipe, at_ms)?;
                apply(tx, &row, &BuildEvent::Begin, (&ctx.principal, at_ms))
            })
            .await?;
        self.inner.builds.notify_one();
        Ok(begun)
    }

    /// A build of a profile as it is now.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a build of another profile.
    pub async fn build_get(
        &self,
        ctx: &Ctx,
        profile: &ProfileRef,
        id: &BuildId,
    ) -> Result<BuildRow, Error> {
        ctx.may(Action::ProfileRead)?;
        let (ctx, named, id) = (ctx.clone(), profile.clone(), id.clone());
        self.look(move |tx| {
            let profile = crate::profile::find(tx, &ctx, &named)?;
            let row = owned(tx, &ctx, &id)?;
            if row.profile == profile.id {
                Ok(row)
            } else {
                Err(Fail::Ours(Error::NotFound))
            }
        })
        .await
    }

    /// Entries of the log of a build that somebody may see.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn build_logs(&self, row: &BuildRow, query: LogQuery) -> Result<Vec<LogRow>, Error> {
        let id = row.id.clone();
        self.look(move |tx| Ok(build::logs(tx, &id, query)?)).await
    }

    /// Waits until a build may be there to be carried out; one that nobody told of is found by looking again
    /// after a while.
    pub async fn build_wanted(&self) {
        self.inner.builds.notified().await;
    }
}

/// The build, if it is this tenant's.
fn owned(tx: &mut Tx<'_>, ctx: &Ctx, id: &BuildId) -> Result<BuildRow, Fail> {
    build::get(tx, Some(&ctx.tenant), id)?.ok_or(Fail::Ours(Error::NotFound))
}

/// Decides and writes in one go.
fn apply(
    tx: &mut Tx<'_>,
    row: &BuildRow,
    event: &BuildEvent,
    (principal, at_ms): (&PrincipalId, u64),
) -> Result<BuildRow, Fail> {
    let step = row.state.step(event);
    let step = step.map_err(|denied| Error::conflict(denied.to_string()))?;
    let BuildStep::Moved(state) = step else {
        return Ok(row.clone());
    };
    let data = match &state {
        BuildState::Failed { why } => json!({"why": why.message, "phase": why.phase}),
        BuildState::Ready => json!({"snapshot": row.snapshot.as_ref().map(|id| id.as_str())}),
        BuildState::Waiting | BuildState::Building => json!({}),
    };
    let change = BuildChange {
        state,
        data: data.to_string(),
        principal: principal.clone(),
        at_ms,
    };
    Ok(build::move_to(tx, row, &change)?)
}
