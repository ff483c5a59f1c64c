//! Tags: which build of a profile is meant.

use super::{ProfileRef, find, happened};
use crate::error::Fail;
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::id::BuildId;
use model::limits;
use model::snapshot::{SnapshotName, TAG_DEFAULT};
use serde_json::json;
use std::collections::BTreeSet;
use store::profile::{self, TagRow};

/// What tags mean now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The tags, in small letters.
    pub tags: Vec<String>,
    /// The build.
    pub build: BuildId,
}

/// A tag as it is kept; others are made small.
pub(super) fn checked(text: &str) -> Result<String, Error> {
    let tag = text.to_lowercase();
    let named: Result<SnapshotName, _> = format!("x:{tag}").parse();
    match named {
        Ok(_) if !tag.contains(':') => Ok(tag),
        _ => {
            let message =
                "a tag is `a` to `z`, digits and `_-.`, and begins with a letter or a digit";
            Err(Error::invalid("tags", "invalid_argument", message))
        }
    }
}

fn checked_all(tags: &[String]) -> Result<Vec<String>, Error> {
    let tags: BTreeSet<String> = tags
        .iter()
        .map(|tag| checked(tag))
        .collect::<Result<_, _>>()?;
    if tags.is_empty() || tags.len() > limits::PROFILE_TAGS_MAX {
        let message = format!("there are 1 to {} tags at a time", limits::PROFILE_TAGS_MAX);
        return Err(Error::invalid("tags", "too_many", message));
    }
    Ok(tags.into_iter().collect())
}

impl Service {
    /// Lets tags mean the build that another tag means, whatever they meant before.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`]; [`Error::Conflict`] `profile_name_taken`; [`Error::TooMuch`].
    pub async fn profile_tag(
        &self,
        ctx: &Ctx,
        target: &ProfileRef,
        tags: &[String],
    ) -> Result<Tagged, Error> {
        ctx.may(Action::ProfileWrite)?;
        let tags = checked_all(tags)?;
        if let ProfileRef::Name(name) = target {
            self.check_name_free(ctx, &name.name, &tags).await?;
        }
        let (ctx, target, at_ms) = (ctx.clone(), target.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = find(tx, &ctx, &target)?;
            let build = profile::tagged(tx, &row.id, target.tag())?;
            let build = build.ok_or(Fail::Ours(Error::NotFound))?;
            put(tx, &row.id, (&tags, &build), at_ms)?;
            let data = json!({"tags": tags, "build": build.as_str()}).to_string();
            let happened = happened(&ctx, "profile.tagged", &data, at_ms);
            profile::touch(tx, &row, row.is_public, happened)?;
            Ok::<_, Fail>(Tagged {
                tags: tags.clone(),
                build,
            })
        })
        .await
    }

    /// Takes tags away. The build stays for a while, and goes when no other tag means it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when one of them is not there, and then none goes; [`Error::Invalid`] for the
    /// default one, without which the name of the profile would mean nothing.
    pub async fn profile_untag(
        &self,
        ctx: &Ctx,
        named: &ProfileRef,
        tags: &[String],
    ) -> Result<(), Error> {
        ctx.may(Action::ProfileWrite)?;
        let tags = checked_all(tags)?;
        if tags.iter().any(|tag| tag == TAG_DEFAULT) {
            let message = "the tag `default` cannot be taken away; give it to another build";
            return Err(Error::invalid("tags", "invalid_argument", message));
        }
        let (ctx, named, at_ms) = (ctx.clone(), named.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = find(tx, &ctx, &named)?;
            for tag in &tags {
                if !profile::tag_remove(tx, &row.id, tag)? {
                    return Err(Fail::Ours(Error::NotFound));
                }
            }
            let data = json!({"tags": tags}).to_string();
            let happened = happened(&ctx, "profile.untagged", &data, at_ms);
            profile::touch(tx, &row, row.is_public, happened)?;
            Ok(())
        })
        .await
    }
}

/// Lets tags of a profile mean a build.
pub(crate) fn put(
    tx: &mut store::Tx<'_>,
    id: &model::id::ProfileId,
    (tags, build): (&[String], &BuildId),
    at_ms: u64,
) -> Result<(), Fail> {
    let most = u32::try_from(limits::PROFILE_TAGS_MAX).unwrap_or(u32::MAX);
    let there = profile::tags(tx, id, most)?;
    let all: BTreeSet<&str> = there.iter().map(|row| row.tag.as_str()).collect();
    let new = tags
        .iter()
        .filter(|tag| !all.contains(tag.as_str()))
        .count();
    if all.len() + new > limits::PROFILE_TAGS_MAX {
        return Err(super::too_many(all.len() as u64, "tags are there"));
    }
    for tag in tags {
        let row = TagRow {
            tag: tag.clone(),
            build: build.clone(),
            assigned_at_ms: at_ms,
        };
        profile::tag_put(tx, id, &row)?;
    }
    Ok(())
}
