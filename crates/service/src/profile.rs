//! Profiles: named recipes for sandboxes. Somebody writes one, version by version (`version`), or builds make it:
//! E2B's clients call those templates. They have tags that say which of the builds is meant.
//!
//! A build is an intent in a row: whoever asks for it gets its name, sends the files for it, and begins it with
//! its recipe (`build`). Its tags mean it only once it is ready, so one that fails takes nothing away.
//!
//! Reading order: this file, `version`, `ask` (what a request that names one gets), `tag`; then `build`.

mod ask;
pub(crate) mod tag;
mod version;

pub use ask::ProfileAsk;
pub use tag::Tagged;
pub use version::VersionPage;

use crate::capacity::Root;
use crate::create::{Idempotency, key_of, made_before};
use crate::error::Fail;
use crate::{Ctx, Error, Service, page, random};
use model::access::Action;
use model::build::BuildState;
use model::id::{BuildId, ProfileId, SnapshotId};
use model::limits;
use model::place::Placement;
use model::profile::check_asked;
use model::snapshot::{SnapshotName, TAG_DEFAULT};
use model::spec::AskedLimits;
use std::collections::BTreeSet;
use store::Tx;
use store::build::{self, BuildRow};
use store::idempotency;
use store::profile::version::VersionRow;
use store::profile::{self, Happened, ProfileRow, TagRow};

/// A profile as somebody names it, with the tag of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileRef {
    /// This one.
    Id(ProfileId, String),
    /// The one that is called so.
    Name(SnapshotName),
}

impl ProfileRef {
    /// The tag.
    pub fn tag(&self) -> &str {
        match self {
            ProfileRef::Id(_, tag) => tag,
            ProfileRef::Name(name) => &name.tag,
        }
    }
}

impl std::str::FromStr for ProfileRef {
    type Err = model::snapshot::NotAName;

    /// Reads `ID`, with or without its prefix, or a name; with a tag or without.
    fn from_str(text: &str) -> Result<ProfileRef, Self::Err> {
        let (bare, tag) = text.split_once(':').unwrap_or((text, TAG_DEFAULT));
        let id = bare.parse().or_else(|_| ProfileId::from_short(bare));
        match id {
            // The tag is checked as one of a name.
            Ok(id) => {
                let name: SnapshotName = format!("x:{tag}").parse()?;
                Ok(ProfileRef::Id(id, name.tag))
            }
            Err(_) => text.parse().map(ProfileRef::Name),
        }
    }
}

/// A build that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildAsk {
    /// The profile; a new one without a name when absent.
    pub profile: Option<ProfileRef>,
    /// The tags that are to mean it; `default` when there are none.
    pub tags: Vec<String>,
    /// Limits of sandboxes that are made with it.
    pub limits: AskedLimits,
}

/// A profile with what is shown with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileView {
    /// The profile.
    pub row: ProfileRow,
    /// Its newest builds, the newest first.
    pub builds: Vec<BuildRow>,
    /// How many builds of it are kept.
    pub build_count: u64,
    /// Its tags, the one that was assigned last first.
    pub tags: Vec<TagRow>,
    /// The newest version that somebody has written.
    pub written: Option<VersionRow>,
}

/// A page of profiles, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfilePage {
    /// The profiles.
    pub profiles: Vec<ProfileView>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

impl Service {
    /// Takes a build in, of a profile that is there or of a new one. It waits for its recipe.
    ///
    /// With a key, the same request again answers the build that the first one made, as it is now.
    ///
    /// # Errors
    /// [`Error::Invalid`], among it `limit_beyond_machine`; [`Error::NotFound`] for an id of no profile;
    /// [`Error::Conflict`] `profile_name_taken`; [`Error::TooMuch`]; [`Error::DiskFull`].
    pub async fn build_create(
        &self,
        ctx: &Ctx,
        ask: BuildAsk,
        idempotency: Option<Idempotency>,
    ) -> Result<(ProfileRow, BuildRow), Error> {
        ctx.may(Action::ProfileWrite)?;
        check_asked(&ask.limits).map_err(Error::Invalid)?;
        self.check_capacity((&ask.limits, &Placement::default()), Root::Written, None)
            .await?;
        if self.is_full_with(0) {
            return Err(Error::DiskFull);
        }
        let at_ms = self.now_ms();
        let ids = (
            ProfileId::from_parts(at_ms, random()?),
            BuildId::from_parts(at_ms, random()?),
        );
        let tags = wanted_tags(&ask)?;
        if let Some(ProfileRef::Name(name)) = &ask.profile {
            self.check_name_free(ctx, &name.name, &tags).await?;
        }
        let key = idempotency.map(|asked| key_of(ctx, "build.create", asked, ids.1.as_str()));
        let ctx = ctx.clone();
        self.unit(move |tx| {
            if let Some((owner, asked)) = &key
                && let Some(there) = idempotency::get(tx, owner)?
            {
                let gone = || Fail::Ours(Error::mismatch("what the key was used for is gone"));
                let id = made_before::<BuildId>(asked, &there)?.ok_or_else(gone)?;
                let row = build::get(tx, Some(&ctx.tenant), &id)?.ok_or_else(gone)?;
                let profile = profile::get(tx, &ctx.tenant, &row.profile)?;
                return Ok((profile.ok_or_else(gone)?, row));
            }
            let made = create(tx, &ctx, &ask, (&ids, &tags), at_ms)?;
            if let Some((owner, asked)) = &key {
                idempotency::put(tx, owner, asked, at_ms)?;
            }
            Ok(made)
        })
        .await
    }

    /// A profile with its builds and tags, or with the version that is named.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn profile_get(&self, ctx: &Ctx, named: &ProfileRef) -> Result<ProfileView, Error> {
        ctx.may(Action::ProfileRead)?;
        let (ctx, named) = (ctx.clone(), named.clone());
        self.look(move |tx| {
            let row = find(tx, &ctx, &named)?;
            let is_version = row.latest > 0 && named.tag() != TAG_DEFAULT;
            let mut view = view(tx, row, limits::PAGE_DEFAULT)?;
            if is_version {
                let gone = || Fail::Ours(Error::NotFound);
                let number = named.tag().parse().map_err(|_| gone())?;
                let version = profile::version::get(tx, &view.row.id, number)?;
                view.written = Some(version.ok_or_else(gone)?);
            }
            Ok(view)
        })
        .await
    }

    /// Profiles, newest first, after the page that ended with `before`, each with its newest build; perhaps only
    /// those that builds make.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a `before` that no page ended with.
    pub async fn profile_list(
        &self,
        ctx: &Ctx,
        before: Option<&str>,
        (only_built, limit): (bool, u32),
    ) -> Result<ProfilePage, Error> {
        ctx.may(Action::ProfileRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let before = before.map(crate::sandbox::cursor).transpose()?;
        let tenant = ctx.tenant.clone();
        self.look(move |tx| {
            let before = before.as_ref().map(|(ms, id)| (*ms, id));
            // One more than is shown tells whether there is another page.
            let mut rows = profile::list(tx, &tenant, before, (only_built, limit + 1))?;
            let next = page::cut(&mut rows, limit, |row| {
                format!("{}.{}", row.created_at_ms, row.id)
            });
            let profiles = rows.into_iter().map(|row| view(tx, row, 1));
            let profiles = profiles.collect::<Result<_, Fail>>()?;
            Ok(ProfilePage { profiles, next })
        })
        .await
    }

    /// The snapshot that sandboxes of a profile begin with, by the tag of its build; `None` where there is no
    /// such profile.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a tag that the profile does not have.
    pub async fn profile_snapshot(
        &self,
        ctx: &Ctx,
        named: &ProfileRef,
    ) -> Result<Option<(ProfileRow, SnapshotId)>, Error> {
        ctx.may(Action::ProfileRead)?;
        let (ctx, named) = (ctx.clone(), named.clone());
        self.look(move |tx| {
            let row = match find(tx, &ctx, &named) {
                Err(Fail::Ours(Error::NotFound)) => return Ok(None),
                row => row?,
            };
            let gone = || Fail::Ours(Error::NotFound);
            let build = profile::tagged(tx, &row.id, named.tag())?.ok_or_else(gone)?;
            let build = build::get(tx, Some(&ctx.tenant), &build)?.ok_or_else(gone)?;
            let snapshot = build.snapshot.ok_or_else(gone)?;
            Ok(Some((row, snapshot)))
        })
        .await
    }

    /// Says whether everybody may use a profile. There is one owner, so this is only remembered.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn profile_publish(
        &self,
        ctx: &Ctx,
        named: &ProfileRef,
        is_public: bool,
    ) -> Result<ProfileRow, Error> {
        ctx.may(Action::ProfileWrite)?;
        let (ctx, named, at_ms) = (ctx.clone(), named.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = find(tx, &ctx, &named)?;
            if row.is_public == is_public {
                return Ok(row);
            }
            let data = serde_json::json!({"public": is_public}).to_string();
            let happened = happened(&ctx, "profile.published", &data, at_ms);
            Ok::<_, Fail>(profile::touch(tx, &row, is_public, happened)?)
        })
        .await
    }

    /// Deletes a profile with its builds, one that is under way among them. Sandboxes that began with it stay;
    /// the bytes go when nothing stands on them.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn profile_delete(&self, ctx: &Ctx, named: &ProfileRef) -> Result<(), Error> {
        ctx.may(Action::ProfileWrite)?;
        let (ctx, named, at_ms) = (ctx.clone(), named.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = find(tx, &ctx, &named)?;
            let happened = happened(&ctx, "profile.deleted", "{}", at_ms);
            Ok::<_, Fail>(profile::delete(tx, &row, happened)?)
        })
        .await?;
        // If we die before this line, or it fails, a pass of the loops does it.
        if let Err(error) = crate::loops::unbuilt_pass(self).await {
            tracing::debug!(
                error = error.cause(),
                "what the profile has saved is given up later"
            );
        }
        Ok(())
    }
}

fn happened<'a>(ctx: &'a Ctx, kind: &'static str, data: &'a str, at_ms: u64) -> Happened<'a> {
    Happened {
        kind,
        data,
        principal: &ctx.principal,
        at_ms,
    }
}

/// The tags that a build is to have: those of the list, and the one behind the name where it is said.
fn wanted_tags(ask: &BuildAsk) -> Result<Vec<String>, Error> {
    let named = ask.profile.as_ref().map(ProfileRef::tag);
    let named = named.filter(|tag| *tag != TAG_DEFAULT || ask.tags.is_empty());
    let mut tags = BTreeSet::new();
    for tag in named.into_iter().chain(ask.tags.iter().map(String::as_str)) {
        tags.insert(tag::checked(tag)?);
    }
    if tags.is_empty() {
        tags.insert(TAG_DEFAULT.to_owned());
    }
    if tags.len() > limits::PROFILE_TAGS_MAX {
        return Err(Error::invalid(
            "tags",
            "too_many",
            "these are too many tags",
        ));
    }
    Ok(tags.into_iter().collect())
}

/// The profile that somebody names, if it is this tenant's.
pub(crate) fn find(tx: &mut Tx<'_>, ctx: &Ctx, named: &ProfileRef) -> Result<ProfileRow, Fail> {
    let row = match named {
        ProfileRef::Id(id, _) => profile::get(tx, &ctx.tenant, id)?,
        ProfileRef::Name(name) => profile::named(tx, &ctx.tenant, &name.name)?,
    };
    row.ok_or(Fail::Ours(Error::NotFound))
}

fn view(tx: &mut Tx<'_>, row: ProfileRow, builds: u32) -> Result<ProfileView, Fail> {
    let most = u32::try_from(limits::PROFILE_TAGS_MAX).unwrap_or(u32::MAX);
    Ok(ProfileView {
        builds: build::list(tx, &row.id, builds)?,
        build_count: build::count(tx, &row.id)?,
        tags: profile::tags(tx, &row.id, most)?,
        written: profile::version::get(tx, &row.id, row.latest)?,
        row,
    })
}

/// Writes a build, and its profile where there is none.
fn create(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    ask: &BuildAsk,
    ((profile_id, build_id), tags): (&(ProfileId, BuildId), &[String]),
    at_ms: u64,
) -> Result<(ProfileRow, BuildRow), Fail> {
    let open = build::count_open(tx, &ctx.tenant, limits::BUILDS_OPEN_MAX)?;
    if open >= limits::BUILDS_OPEN_MAX {
        return Err(too_many(open, "builds are under way"));
    }
    let there = ask.profile.as_ref().map(|named| find(tx, ctx, named));
    let row = match (there, &ask.profile) {
        (Some(Ok(row)), _) if row.latest > 0 => {
            return Err(version::is_written(row.name.as_deref().unwrap_or_default()).into());
        }
        (Some(Ok(row)), _) => row,
        (Some(Err(Fail::Ours(Error::NotFound))), Some(ProfileRef::Name(name))) => {
            new_profile(tx, ctx, profile_id, Some(name.name.clone()), at_ms)?
        }
        (Some(Err(error)), _) => return Err(error),
        (None, _) => new_profile(tx, ctx, profile_id, None, at_ms)?,
    };
    let build = BuildRow {
        id: build_id.clone(),
        profile: row.id.clone(),
        tenant: ctx.tenant.clone(),
        principal: ctx.principal.clone(),
        state: BuildState::Waiting,
        version: 1,
        tags: tags.to_vec(),
        limits: ask.limits,
        recipe: None,
        attempt: 0,
        lease_until_ms: 0,
        sandbox: None,
        snapshot: None,
        done_key: None,
        logs: 0,
        created_at_ms: at_ms,
        begun_at_ms: None,
        ended_at_ms: None,
    };
    build::insert(tx, &build)?;
    Ok((row, build))
}

fn new_profile(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    id: &ProfileId,
    name: Option<String>,
    at_ms: u64,
) -> Result<ProfileRow, Fail> {
    let there = profile::count(tx, &ctx.tenant, limits::PROFILES_MAX)?;
    if there >= limits::PROFILES_MAX {
        return Err(too_many(there, "profiles are there"));
    }
    let row = ProfileRow {
        id: id.clone(),
        tenant: ctx.tenant.clone(),
        principal: ctx.principal.clone(),
        version: 1,
        name,
        is_public: false,
        latest: 0,
        created_at_ms: at_ms,
        updated_at_ms: at_ms,
    };
    profile::insert(tx, &row)?;
    Ok(row)
}

fn too_many(there: u64, what: &str) -> Fail {
    Fail::Ours(Error::TooMuch {
        code: "too_much",
        message: format!("{there} {what} already"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_named_by_id_or_name_with_a_tag_or_without() {
        let id = ProfileId::from_parts(1, [1; 10]);
        let by_id = |tag: &str| ProfileRef::Id(id.clone(), tag.to_owned());
        assert_eq!(id.as_str().parse(), Ok(by_id("default")));
        assert_eq!(id.short().parse(), Ok(by_id("default")));
        assert_eq!(format!("{}:v1.0", id.short()).parse(), Ok(by_id("v1.0")));
        let by_name: ProfileRef = "team/env:v1".parse().unwrap();
        assert!(matches!(&by_name, ProfileRef::Name(name) if name.name == "team/env"));
        assert_eq!(by_name.tag(), "v1");
        for wrong in ["", ":v1", "env:", "a b", &format!("{}:", id.short())] {
            assert!(wrong.parse::<ProfileRef>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_build_has_the_tags_that_are_named_or_the_default() {
        let tags = |name: Option<&str>, more: &[&str]| {
            let ask = BuildAsk {
                profile: name.map(|name| name.parse().unwrap()),
                tags: more.iter().map(ToString::to_string).collect(),
                limits: AskedLimits::default(),
            };
            wanted_tags(&ask).ok()
        };
        let are = |tags: &[&str]| Some(tags.iter().map(ToString::to_string).collect());
        assert_eq!(tags(None, &[]), are(&["default"]));
        assert_eq!(tags(Some("env"), &[]), are(&["default"]));
        assert_eq!(tags(Some("env:v1"), &[]), are(&["v1"]));
        assert_eq!(tags(Some("env:v1"), &["V2", "v1"]), are(&["v1", "v2"]));
        assert_eq!(tags(Some("env"), &["v2"]), are(&["v2"]));
        assert_eq!(tags(Some("env"), &["a:b"]), None);
        assert_eq!(tags(Some("env"), &[""]), None);
    }
}
