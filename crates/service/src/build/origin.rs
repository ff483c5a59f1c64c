//! What a build begins with: a base that is there from the start, what another profile or snapshot has, or what
//! an earlier build has done already.

use super::carry::BuildHold;
use crate::profile::ProfileRef;
use crate::snapshot::SnapshotRef;
use crate::{Ctx, Error, Service};
use model::build::{BuildFailure, Phase};
use model::id::SnapshotId;
use model::limits;
use model::profile::{Base, Recipe, built_in};
use model::sandbox_spec::StartCommand;
use model::snapshot::SnapshotState;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use store::build as rows;
use store::snapshot::SnapshotRow;

/// Layers below a build that begins with what an earlier one has done. Deeper ones begin from the start, so that
/// others can still stand on them.
const REUSED_LAYERS_MAX: usize = limits::SNAPSHOT_LAYERS_MAX / 2;

/// What holds after some instructions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// As whom; `user` when absent.
    pub user: Option<String>,
    /// Where; the user's home when absent.
    pub workdir: Option<String>,
}

/// What a build begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The recipe of the sandbox, as in its spec.
    pub profile: String,
    /// The root file system that the operator has given; the programs of the node where there is none.
    pub root: Option<String>,
    /// The snapshot; nothing but the root where there is none.
    pub from: Option<SnapshotId>,
    /// So many of its instructions are done.
    pub done: usize,
    /// What holds after them.
    pub settled: Settled,
    /// What is to be started with each sandbox.
    pub start: Option<StartCommand>,
    /// Names all that the recipe does to files.
    pub key: String,
    /// An earlier build has done all of this and nothing else: its copy is the one.
    pub same: Option<SnapshotId>,
}

/// What the base is, before its instructions.
struct Found {
    profile: String,
    root: Option<String>,
    from: Option<SnapshotRow>,
    key: String,
}

/// The names that a root for this image or template may have: as it is written, without the registry that is
/// meant when none is, and without the tag that is meant when none is. Pure.
fn root_names(text: &str) -> Vec<&str> {
    let meant = [
        "docker.io/library/",
        "docker.io/",
        "index.docker.io/",
        "library/",
    ];
    let bare = meant.iter().find_map(|before| text.strip_prefix(before));
    let bare = bare.unwrap_or(text);
    let plain = bare.strip_suffix(":latest").unwrap_or(bare);
    let own = built_in(text).map(|base| base.template);
    let mut names = vec![text, bare, plain];
    names.extend(own);
    names
}

impl Service {
    /// What a build begins with.
    ///
    /// # Errors
    /// [`BuildFailure`] where there is no such base; it is not tried again. [`Error`] of the database.
    pub async fn build_origin(
        &self,
        hold: &BuildHold,
        recipe: &Recipe,
    ) -> Result<Result<Built, BuildFailure>, Error> {
        let ctx = hold.ctx();
        let found = match self.base(&ctx, &recipe.base).await {
            Ok(found) => found,
            Err(Error::NotFound) => return Ok(Err(no_base(&recipe.base))),
            Err(error) => return Err(error),
        };
        let keys = keys(&found.key, recipe);
        let start = start_of(recipe, found.from.as_ref());
        let (settled, from) = match &found.from {
            Some(row) => (settled_of(row), Some(row.id.clone())),
            None => (Settled::default(), None),
        };
        let mut built = Built {
            profile: found.profile,
            root: found.root,
            from,
            done: 0,
            settled,
            start,
            key: keys.last().cloned().unwrap_or(found.key),
            same: None,
        };
        for done in (1..=reusable(recipe)).rev() {
            let Some(key) = keys.get(done - 1) else {
                continue;
            };
            if let Some(row) = self.done_before(&ctx, key).await? {
                built.done = done;
                built.settled = settled_of(&row);
                built.from = Some(row.id.clone());
                let is_same = done == recipe.instructions.len()
                    && row.spec.defaults.start == built.start
                    && row.spec.limits == hold.sandbox_limits();
                built.same = is_same.then_some(row.id);
                break;
            }
        }
        Ok(Ok(built))
    }

    async fn base(&self, ctx: &Ctx, base: &Base) -> Result<Found, Error> {
        let text = match base {
            Base::Image(text) | Base::Profile(text) => text,
        };
        for name in root_names(text) {
            // A name that the operator has given is his, whatever a template is called.
            if let Some(root) = self.root_find(ctx, name).await? {
                let profile = built_in(text).map_or("default", |base| base.profile);
                return Ok(Found {
                    profile: profile.to_owned(),
                    key: format!("root {} {} {profile}", root.name, root.identity),
                    root: Some(root.name),
                    from: None,
                });
            }
        }
        if let Some(base) = built_in(text) {
            return Ok(Found {
                profile: base.profile.to_owned(),
                root: None,
                from: None,
                key: format!("built in {}", base.profile),
            });
        }
        if matches!(base, Base::Image(_)) {
            return Err(Error::NotFound);
        }
        let text = text.to_lowercase();
        let wrong = |_| Error::NotFound;
        let named: ProfileRef = text.parse().map_err(wrong)?;
        let row = match self.profile_snapshot(ctx, &named).await? {
            Some((_, id)) => self.snapshot_get(ctx, &id).await?,
            None => {
                let named = SnapshotId::from_short(&text).map(SnapshotRef::Id);
                let named = named.or_else(|_| text.parse()).map_err(wrong)?;
                self.snapshot_find(ctx, &named).await?
            }
        };
        if row.state != SnapshotState::Ready {
            return Err(Error::NotFound);
        }
        Ok(Found {
            profile: row.spec.profile.clone(),
            root: row.spec.root.clone(),
            key: format!("snapshot {}", row.id),
            from: Some(row),
        })
    }

    /// The copy of a build that has done what the key names, if others can still stand on it.
    async fn done_before(&self, ctx: &Ctx, key: &str) -> Result<Option<SnapshotRow>, Error> {
        let (tenant, key) = (ctx.tenant.clone(), key.to_owned());
        let row = self.look(move |tx| Ok(rows::done(tx, &tenant, &key)?));
        let Some(id) = row.await?.and_then(|row| row.snapshot) else {
            return Ok(None);
        };
        let row = self.snapshot_get(ctx, &id).await?;
        Ok(Some(row).filter(|row| row.layers.len() <= REUSED_LAYERS_MAX))
    }
}

fn settled_of(row: &SnapshotRow) -> Settled {
    Settled {
        env: row.spec.env.clone(),
        user: row.spec.defaults.user.clone(),
        workdir: row.spec.defaults.workdir.clone(),
    }
}

/// What is to be started: what the recipe says, or else what the base has. Pure.
fn start_of(recipe: &Recipe, base: Option<&SnapshotRow>) -> Option<StartCommand> {
    if recipe.start.is_none() && recipe.ready.is_none() {
        return base.and_then(|row| row.spec.defaults.start.clone());
    }
    Some(StartCommand {
        command: recipe.start.clone(),
        ready: recipe.ready.clone(),
    })
}

/// So many instructions may be taken from an earlier build. Pure.
fn reusable(recipe: &Recipe) -> usize {
    if recipe.fresh {
        return 0;
    }
    let fresh = recipe.instructions.iter().position(|one| one.fresh);
    fresh.unwrap_or(recipe.instructions.len())
}

/// The name of what is done after each instruction: of all that was done before it, and of it. Pure.
fn keys(base: &str, recipe: &Recipe) -> Vec<String> {
    let mut before = hash(&["base", base]);
    let one = |one: &model::profile::Instruction| {
        let what = serde_json::to_string(&one.what).unwrap_or_else(|_| one.what.line());
        before = hash(&[&before, &what]);
        before.clone()
    };
    recipe.instructions.iter().map(one).collect()
}

fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        // A String takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Why there is no such base, and what can be done.
fn no_base(base: &Base) -> BuildFailure {
    let message = match base {
        Base::Image(image) => format!(
            "the image '{image}' is not here: this server takes no images from registries. Whoever runs it can \
             give a root file system that name: `cofferdam up --root {image}=DIR`. There are 'base' (also \
             'e2bdev/base') and 'code-interpreter-v1', which are the programs of the machine"
        ),
        Base::Profile(name) => {
            format!("the template '{name}' was not found, or has no build of that tag")
        }
    };
    let phase = Phase::Base;
    BuildFailure { message, phase }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::profile::{Instruction, What};

    fn recipe(commands: &[(&str, bool)], fresh: bool) -> Recipe {
        let one = |(command, fresh): &(&str, bool)| Instruction {
            what: What::Run {
                command: (*command).to_owned(),
                user: None,
            },
            fresh: *fresh,
        };
        Recipe {
            base: Base::Image("base".to_owned()),
            instructions: commands.iter().map(one).collect(),
            fresh,
            start: None,
            ready: None,
        }
    }

    #[test]
    fn an_image_is_the_root_of_its_name_with_what_is_meant_when_it_is_not_said() {
        for (image, name) in [
            ("ubuntu:22.04", "ubuntu:22.04"),
            ("docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
            ("python:latest", "python"),
            ("e2bdev/base:latest", "base"),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        ] {
            assert!(root_names(image).contains(&name), "{image}");
        }
        assert!(!root_names("evil/ubuntu:22.04").contains(&"ubuntu:22.04"));
    }

    #[test]
    fn what_was_done_before_is_used_up_to_the_first_that_is_to_be_done_anew() {
        let plain = [("a", false), ("b", false), ("c", false)];
        assert_eq!(reusable(&recipe(&plain, false)), 3);
        assert_eq!(reusable(&recipe(&plain, true)), 0);
        let anew = [("a", false), ("b", true), ("c", false)];
        assert_eq!(reusable(&recipe(&anew, false)), 1);
    }

    #[test]
    fn a_key_names_the_base_and_all_that_was_done_in_its_order() {
        let all = keys("x", &recipe(&[("a", false), ("b", false)], false));
        let same = keys(
            "x",
            &recipe(&[("a", true), ("b", false), ("c", false)], true),
        );
        assert_eq!(all, same.get(..2).unwrap());
        for other in [
            keys("y", &recipe(&[("a", false), ("b", false)], false)),
            keys("x", &recipe(&[("b", false), ("a", false)], false)),
            keys("x", &recipe(&[("ab", false), ("", false)], false)),
        ] {
            assert!(other.iter().all(|key| !all.contains(key)));
        }
    }
}
