//! Profiles that somebody writes, version by version.

use super::{ProfileRef, find, happened, new_profile};
use crate::capacity::Root;
use crate::error::Fail;
use crate::root::RootSeen;
use crate::{Ctx, Error, Service, page, random};
use model::access::Action;
use model::id::ProfileId;
use model::limits;
use model::profile::{ProfileBase, ProfileSpec, built_in};
use model::snapshot::{SnapshotName, TAG_DEFAULT};
use model::spec::{CODE_INTERPRETER, PROFILES};
use model::volume::VOLUME_PROFILE;
use store::profile::version::{self, VersionRow};
use store::profile::{self, ProfileRow};

/// The code of a name that something else has.
const TAKEN: &str = "profile_name_taken";

/// Versions of a profile, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionPage {
    /// The versions.
    pub versions: Vec<VersionRow>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<u64>,
}

impl Service {
    /// Writes what a profile says: a new one, or the next version of one that is there. The same as the newest
    /// version says is no change. What was made with an earlier version stays as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all that is wrong, among it a base that there is not; [`Error::Conflict`]
    /// `profile_name_taken`; [`Error::TooMuch`].
    pub async fn profile_put(
        &self,
        ctx: &Ctx,
        name: &str,
        spec: ProfileSpec,
    ) -> Result<(ProfileRow, VersionRow), Error> {
        ctx.may(Action::ProfileWrite)?;
        if let Some(ProfileBase::Root(root)) = &spec.base {
            Service::root_may(ctx, Some(root))?;
        }
        let name = plain_name(name)?;
        spec.validate().map_err(Error::Invalid)?;
        self.check_name_free(ctx, &name, &[]).await?;
        self.check_base(ctx, spec.base.as_ref()).await?;
        self.check_capacity((&spec.limits, &spec.placement), Root::Written, None)
            .await?;
        let at_ms = self.now_ms();
        let id = ProfileId::from_parts(at_ms, random()?);
        let ctx = ctx.clone();
        self.unit(move |tx| {
            let row = match profile::named(tx, &ctx.tenant, &name)? {
                Some(row) if row.latest == 0 => return Err(is_built(&name).into()),
                Some(row) => row,
                None => new_profile(tx, &ctx, &id, Some(name.clone()), at_ms)?,
            };
            if let Some(newest) = version::get(tx, &row.id, row.latest)?
                && newest.spec == spec
            {
                return Ok((row, newest));
            }
            let data = serde_json::json!({"version": row.latest + 1}).to_string();
            let happened = happened(&ctx, "profile.changed", &data, at_ms);
            let row = version::put(tx, &row, &spec, happened)?;
            let newest = VersionRow {
                number: row.latest,
                spec: spec.clone(),
                principal: ctx.principal.clone(),
                created_at_ms: at_ms,
            };
            Ok::<_, Fail>((row, newest))
        })
        .await
    }

    /// The versions of a profile that are kept, newest first, after the page that ended with `before`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn profile_versions(
        &self,
        ctx: &Ctx,
        named: &ProfileRef,
        before: Option<u64>,
        limit: u32,
    ) -> Result<VersionPage, Error> {
        ctx.may(Action::ProfileRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (ctx, named) = (ctx.clone(), named.clone());
        self.look(move |tx| {
            let row = find(tx, &ctx, &named)?;
            // One more than is shown tells whether there is another page.
            let mut versions = version::list(tx, &row.id, before, limit + 1)?;
            let next = page::cut(&mut versions, limit, |row| row.number);
            Ok(VersionPage { versions, next })
        })
        .await
    }

    /// A name that means a root file system, or what is there from the start, would never mean a profile.
    ///
    /// # Errors
    /// [`Error::Conflict`] `profile_name_taken`.
    pub(crate) async fn check_name_free(
        &self,
        ctx: &Ctx,
        name: &str,
        tags: &[String],
    ) -> Result<(), Error> {
        if is_ours(name) {
            let message = format!("`{name}` is part of Cofferdam");
            return Err(Error::conflict_of(TAKEN, message));
        }
        let roots = self.root_list(ctx).await?;
        match roots.iter().find(|root| is_meant(root, name, tags)) {
            None => Ok(()),
            Some(root) => {
                let message = format!(
                    "`{}` is a root file system that the operator has given, and would be meant instead",
                    root.name
                );
                Err(Error::conflict_of(TAKEN, message))
            }
        }
    }

    /// What there is not, nobody can begin with. What is meant by a name is looked for again for each sandbox.
    async fn check_base(&self, ctx: &Ctx, base: Option<&ProfileBase>) -> Result<(), Error> {
        let absent = |field: &str, what: &str, name: &str| {
            let message = format!("there is no {what} `{name}`");
            Error::invalid(field, "invalid_argument", message)
        };
        match base {
            Some(ProfileBase::Root(root)) => {
                self.place_on_root(Some(root), &mut None).await?;
            }
            Some(ProfileBase::Snapshot(name)) => {
                let absent = || absent("base.snapshot", "snapshot", name);
                let named = name.parse().map_err(|_| absent())?;
                match self.snapshot_find(ctx, &named).await {
                    Err(Error::NotFound) => return Err(absent()),
                    found => found?,
                };
            }
            Some(ProfileBase::Template(name)) => {
                let absent = || absent("base.template", "build of a template", name);
                let named: ProfileRef = name.parse().map_err(|_| absent())?;
                match self.profile_snapshot(ctx, &named).await {
                    Ok(None) | Err(Error::NotFound) => return Err(absent()),
                    found => found?,
                };
            }
            None => {}
        }
        Ok(())
    }
}

/// The profile is one that builds make, and those are changed by builds.
fn is_built(name: &str) -> Error {
    let message = format!(
        "builds make the profile `{name}`; give yours another name, and this one as its `base.template`"
    );
    Error::conflict_of(TAKEN, message)
}

/// Somebody writes the profile, and then builds do not change it.
pub(super) fn is_written(name: &str) -> Error {
    let message =
        format!("the profile `{name}` was written with `profile put`; build another name");
    Error::conflict_of(TAKEN, message)
}

/// Whether a root is meant where a profile of this name is named, with one of its tags or without. Pure.
fn is_meant(root: &RootSeen, name: &str, tags: &[String]) -> bool {
    match root.name.split_once(':') {
        None => root.name == name,
        Some((bare, tag)) => {
            bare == name && (tag == TAG_DEFAULT || tags.iter().any(|mine| mine == tag))
        }
    }
}

/// Whether a name is there from the start. Pure.
fn is_ours(name: &str) -> bool {
    PROFILES.contains(&name)
        || name == CODE_INTERPRETER
        || name == VOLUME_PROFILE
        || built_in(name).is_some()
}

/// A name without a tag, that is no id. Pure.
fn plain_name(text: &str) -> Result<String, Error> {
    let named: Result<ProfileRef, _> = text.parse();
    match named {
        Ok(ProfileRef::Name(SnapshotName { name, .. })) if name == text => Ok(name),
        Ok(_) => {
            let message = "the name of a profile has no `:` and is no id";
            Err(Error::invalid("name", "invalid_argument", message))
        }
        Err(error) => Err(Error::invalid(
            "name",
            "invalid_argument",
            error.to_string(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_one_that_nothing_else_has() {
        for good in ["py", "team/data-1", "a.b"] {
            assert_eq!(plain_name(good).ok().as_deref(), Some(good));
        }
        let id = ProfileId::from_parts(1, [1; 10]);
        for bad in [
            "",
            "Py",
            "a b",
            "py:1",
            "../x",
            "x\n",
            id.as_str(),
            id.short(),
        ] {
            assert!(plain_name(bad).is_err(), "{bad}");
        }
        for ours in [
            "default",
            "code-interpreter",
            "base",
            "code-interpreter-v1",
            VOLUME_PROFILE,
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        let root = |name: &str| RootSeen {
            name: name.to_owned(),
            identity: String::new(),
        };
        let tags = ["22.04".to_owned()];
        for (name, expect) in [
            ("ubuntu", true),
            ("ubuntu:22.04", true),
            ("ubuntu:default", true),
            ("ubuntu:24.04", false),
            ("debian", false),
        ] {
            assert_eq!(is_meant(&root(name), "ubuntu", &tags), expect, "{name}");
        }
    }
}
