//! What follows from policies, remembered until one of them changes.

use super::Effective;
use crate::Ctx;
use model::id::{PrincipalId, TenantId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Permits that are remembered: of principals, and of each with volumes. One more, and all are read anew.
const KNOWN_MAX: usize = 1024;

/// What policies are remembered by: who asks, and the volumes of theirs that have policies.
type Whose = (TenantId, PrincipalId, BTreeSet<String>);

/// What is remembered of policies. Any change of one makes it old, which is found out where something is written.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The stamp, once it was read; `Some(None)` where there is no policy.
    stamp: Option<Option<u64>>,
    by: HashMap<Whose, Arc<Effective>>,
    /// Volumes that have policies, of each tenant above. No other name is in what is remembered: else whoever makes
    /// names up would have what is known of all forgotten.
    volumes: HashMap<TenantId, BTreeSet<String>>,
    /// Texts of modules, each once: those of a tenant are of all its principals.
    texts: HashSet<Arc<str>>,
}

impl Known {
    pub(super) fn get(
        &self,
        ctx: &Ctx,
        wanted: &BTreeSet<String>,
    ) -> Option<Option<Arc<Effective>>> {
        self.stamp?.map_or(Some(None), |_| {
            let held = wanted & self.volumes.get(&ctx.tenant)?;
            let of = (ctx.tenant.clone(), ctx.principal.clone(), held);
            self.by.get(&of).map(|found| Some(Arc::clone(found)))
        })
    }

    /// Remembers what follows from policies, of which some are for these volumes.
    pub(super) fn put(
        &mut self,
        ctx: &Ctx,
        (wanted, volumes): (&BTreeSet<String>, BTreeSet<String>),
        stamp: Option<u64>,
        found: Option<Effective>,
    ) -> Option<Arc<Effective>> {
        if self.stamp != Some(stamp) || self.by.len() >= KNOWN_MAX {
            self.by.clear();
            self.volumes.clear();
            self.texts.clear();
        }
        self.stamp = Some(stamp);
        let mut found = found?;
        for (_, text) in &mut found.modules {
            if !self.texts.insert(Arc::clone(text))
                && let Some(there) = self.texts.get(&**text)
            {
                *text = Arc::clone(there);
            }
        }
        let found = Arc::new(found);
        let held = wanted & &volumes;
        let of = (ctx.tenant.clone(), ctx.principal.clone(), held);
        self.by.insert(of, Arc::clone(&found));
        self.volumes.insert(ctx.tenant.clone(), volumes);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::policy::Permit;

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(ToString::to_string).collect()
    }

    fn found(stamp: u64) -> Effective {
        Effective {
            stamp,
            permit: Permit::default(),
            modules: Vec::new(),
        }
    }

    /// Attack: somebody makes up names of volumes, one after the other, so that what is known of all is read anew.
    #[test]
    fn what_is_remembered_is_by_the_volumes_that_have_policies_and_by_no_other_name() {
        let ctx = Ctx::user("uid:1000".parse().unwrap(), "req_1");
        let mut known = Known::default();
        let learn = |known: &mut Known, wanted: &[&str]| {
            let of = (&names(wanted), names(&["a", "b"]));
            known.put(&ctx, of, Some(7), Some(found(7))).unwrap()
        };
        assert!(known.get(&ctx, &names(&[])).is_none());
        let alone = learn(&mut known, &[]);
        let of = |known: &Known, wanted: &[&str]| known.get(&ctx, &names(wanted)).flatten();
        assert!(Arc::ptr_eq(&of(&known, &["made-up", "A"]).unwrap(), &alone));
        assert!(of(&known, &["a"]).is_none(), "its policies are not in that");
        let with = learn(&mut known, &["a", "made-up"]);
        assert!(Arc::ptr_eq(&of(&known, &["a", "other"]).unwrap(), &with));
        assert!(of(&known, &["a", "b"]).is_none());
        assert!(of(&known, &["b"]).is_none());
        for number in 0..2 * KNOWN_MAX {
            learn(&mut known, &[&format!("made-up-{number}")]);
        }
        assert!(Arc::ptr_eq(&of(&known, &["a"]).unwrap(), &with));
        assert_eq!((known.by.len(), known.volumes.len()), (2, 1));
        // Another state of policies is another one of volumes that have some.
        known.put(&ctx, (&names(&[]), names(&[])), Some(8), Some(found(8)));
        assert_eq!(of(&known, &["a"]).map(|by| by.stamp), Some(8));
        known.put(&ctx, (&names(&[]), names(&[])), None, None);
        assert!(matches!(known.get(&ctx, &names(&["a"])), Some(None)));
        assert!(known.volumes.is_empty());
    }
}
