//! What a request that names a profile asks for.

use super::{ProfileRef, find};
use crate::error::Fail;
use crate::snapshot::SnapshotRef;
use crate::{Ctx, Error, SandboxAsk, Service};
use model::access::Action;
use model::id::SnapshotId;
use model::profile::{ProfileBase, ProfileSpec, ProfileUse, Says};
use model::snapshot::TAG_DEFAULT;
use model::spec::{Invalid, JobSpec};
use store::profile::version;
use store::profile::{self, ProfileRow};
use store::{Tx, build};

/// A profile that somebody asks for, with what the request says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileAsk {
    /// Which: `NAME`, `NAME:VERSION`, or `NAME:TAG` of one that builds make.
    pub named: ProfileRef,
    /// What it says.
    pub says: Says,
}

/// What was found by a name.
struct Found {
    made_by: ProfileUse,
    spec: ProfileSpec,
    /// The copy of its build, of one that builds make.
    snapshot: Option<SnapshotId>,
}

impl Service {
    /// What a sandbox is to be by its profile. One more look at the database, and none without a profile.
    pub(crate) async fn by_profile(&self, ctx: &Ctx, ask: SandboxAsk) -> Result<SandboxAsk, Error> {
        let Some(asked) = ask.profile else {
            return Ok(ask);
        };
        let found = self.profile_found(ctx, &asked.named).await?;
        let base = self.base_of(ctx, &found).await?;
        let beyond = |field: &str| {
            let message = "the profile has another base";
            Error::invalid(field, model::network::BEYOND, message)
        };
        if base.is_some() && ask.spec.root.is_some() {
            return Err(beyond("root"));
        }
        if ask.from.is_some() && (base.is_some() || found.spec.base.is_some()) {
            return Err(beyond("snapshot"));
        }
        let what = (ask.spec, ask.ttl_ms);
        // What the profile says is no default of a door any more.
        let says = Says {
            network: ask.says.network || found.spec.network.is_some(),
            ..ask.says
        };
        let made = found.spec.sandbox(found.made_by, what, asked.says);
        let (spec, ttl_ms) = made.map_err(Error::Invalid)?;
        Ok(SandboxAsk {
            spec,
            ttl_ms,
            from: ask.from.or(base),
            profile: None,
            metadata: ask.metadata,
            says,
        })
    }

    /// What a job is to be by its profile.
    pub(crate) async fn job_by_profile(
        &self,
        ctx: &Ctx,
        asked: &ProfileAsk,
        spec: JobSpec,
    ) -> Result<JobSpec, Error> {
        let mut found = self.profile_found(ctx, &asked.named).await?;
        if found.snapshot.is_some() {
            found.spec.base = Some(ProfileBase::Template(found.made_by.name.clone()));
        }
        let made = found.spec.job(found.made_by, spec, asked.says);
        made.map_err(Error::Invalid)
    }

    /// Whether there is a profile of this name, with this version or tag: for doors whose names may mean other
    /// things, too.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that has no such version or tag.
    pub async fn profile_is_there(&self, ctx: &Ctx, named: &ProfileRef) -> Result<bool, Error> {
        ctx.may(Action::ProfileRead)?;
        let (ctx, named) = (ctx.clone(), named.clone());
        self.look(move |tx| {
            let row = match find(tx, &ctx, &named) {
                Err(Fail::Ours(Error::NotFound)) => return Ok(false),
                row => row?,
            };
            let found = found(tx, &ctx, &row, named.tag())?;
            found.map(|_| true).ok_or(Fail::Ours(Error::NotFound))
        })
        .await
    }

    async fn profile_found(&self, ctx: &Ctx, named: &ProfileRef) -> Result<Found, Error> {
        let (ctx, wanted) = (ctx.clone(), named.clone());
        let looked = self.look(move |tx| {
            let row = find(tx, &ctx, &wanted)?;
            let found = found(tx, &ctx, &row, wanted.tag())?;
            found.ok_or(Fail::Ours(Error::NotFound))
        });
        match looked.await {
            Err(Error::NotFound) => Err(Error::Invalid(vec![unknown(named)])),
            found => found,
        }
    }

    /// What its sandboxes begin with, if not with a root alone.
    async fn base_of(&self, ctx: &Ctx, found: &Found) -> Result<Option<SnapshotRef>, Error> {
        if let Some(id) = &found.snapshot {
            return Ok(Some(SnapshotRef::Id(id.clone())));
        }
        let gone = |what: &str| {
            let message =
                format!("the {what} that the profile has for its base is not there any more");
            Error::conflict_of("profile_base_gone", message)
        };
        match &found.spec.base {
            Some(ProfileBase::Snapshot(name)) => {
                let named: SnapshotRef = name.parse().map_err(|_| gone("snapshot"))?;
                match self.snapshot_find(ctx, &named).await {
                    Err(Error::NotFound) => Err(gone("snapshot")),
                    row => Ok(Some(SnapshotRef::Id(row?.id))),
                }
            }
            Some(ProfileBase::Template(name)) => {
                let named: ProfileRef = name.parse().map_err(|_| gone("template"))?;
                match self.profile_snapshot(ctx, &named).await {
                    Ok(Some((_, id))) => Ok(Some(SnapshotRef::Id(id))),
                    Ok(None) | Err(Error::NotFound) => Err(gone("template")),
                    Err(error) => Err(error),
                }
            }
            Some(ProfileBase::Root(_)) | None => Ok(None),
        }
    }
}

fn unknown(named: &ProfileRef) -> Invalid {
    let called = match named {
        ProfileRef::Id(id, _) => id.as_str(),
        ProfileRef::Name(name) => name.name.as_str(),
    };
    let message = match named.tag() {
        TAG_DEFAULT => format!("there is no profile `{called}`"),
        tag => format!("there is no profile `{called}`, or it has no version or tag `{tag}`"),
    };
    Invalid {
        field: "profile".to_owned(),
        code: "unknown_profile",
        message,
    }
}

/// What a profile is by a version, or by the tag of a build.
fn found(tx: &mut Tx<'_>, ctx: &Ctx, row: &ProfileRow, tag: &str) -> Result<Option<Found>, Fail> {
    let name = row.name.clone();
    let mut made_by = ProfileUse {
        id: row.id.clone(),
        name: name.unwrap_or_else(|| row.id.short().to_owned()),
        version: 0,
        build: None,
        timeout_max_ms: None,
        timeout_asked_ms: None,
        secrets: None,
        network: None,
    };
    if row.latest == 0 {
        let Some(id) = profile::tagged(tx, &row.id, tag)? else {
            return Ok(None);
        };
        let built = build::get(tx, Some(&ctx.tenant), &id)?;
        made_by.build = Some(id);
        let snapshot = built.and_then(|built| built.snapshot);
        return Ok(snapshot.map(|id| Found {
            made_by,
            spec: ProfileSpec::default(),
            snapshot: Some(id),
        }));
    }
    let number = match tag {
        TAG_DEFAULT => Some(row.latest),
        tag => tag.parse().ok(),
    };
    let Some(number) = number else {
        return Ok(None);
    };
    made_by.version = number;
    let version = version::get(tx, &row.id, number)?;
    Ok(version.map(|version| Found {
        made_by,
        spec: version.spec,
        snapshot: None,
    }))
}
