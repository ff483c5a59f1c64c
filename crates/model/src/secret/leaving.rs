//! Secrets for what leaves that came, or went, while a sandbox lived. Pure.

use super::{SecretUse, check_uses, check_ways_out};
use crate::id::PrincipalId;
use crate::limits;
use crate::network::NetworkRules;
use crate::sandbox_spec::SandboxSpec;
use crate::spec::{Findings, Invalid};
use serde::{Deserialize, Serialize};

/// Earlier uses that are remembered: those of several changes that came faster than their node took them over.
const EARLIER_MAX: usize = limits::SECRET_USES_MAX * 8;

/// What stands in the place of the secrets for what leaves that a sandbox was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// All of them.
    pub uses: Vec<SecretUse>,
    /// Who said so last.
    pub by: PrincipalId,
    /// Those of rules that may still be in force: a node that refuses the newest rules says which are instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<SecretUse>,
}

impl Leaving {
    /// These in the place of those before. `pending`: the node has not said that those before are in force.
    pub fn after(
        before: Option<&Leaving>,
        (uses, by): (Vec<SecretUse>, PrincipalId),
        pending: bool,
    ) -> Leaving {
        let mut earlier: Vec<SecretUse> = Vec::new();
        let older = before.into_iter().filter(|_| pending);
        let older = older.flat_map(|before| &before.earlier);
        for one in before
            .into_iter()
            .flat_map(|before| &before.uses)
            .chain(older)
        {
            if earlier.len() < EARLIER_MAX && !earlier.contains(one) {
                earlier.push(one.clone());
            }
        }
        Leaving { uses, by, earlier }
    }

    /// What is in force by the word of a node, of what this sandbox was ever given. A node that was taken over could
    /// name any secret here, and ask for its value then: what is not known is left out.
    pub fn in_force<'s>(
        &self,
        spec: &[SecretUse],
        said: impl IntoIterator<Item = &'s SecretUse>,
    ) -> Leaving {
        let mut known = Vec::new();
        for one in said {
            let all = self.uses.iter().chain(&self.earlier).chain(spec);
            let mut same = all.filter(|own| own.how.leaves() && own.is_said_as(one));
            known.extend(same.next().cloned());
        }
        Leaving {
            uses: known,
            by: self.by.clone(),
            earlier: Vec::new(),
        }
    }
}

impl SecretUse {
    /// Whether another means the same, as far as nodes and people know it.
    pub fn is_said_as(&self, other: &SecretUse) -> bool {
        self.name == other.name && self.version == other.version && self.how == other.how
    }
}

impl SandboxSpec {
    /// All secrets of a sandbox that was asked for like this: those that are inside, and for what leaves these, or
    /// its own.
    pub fn secrets_with(&self, leaving: Option<&Leaving>) -> Vec<SecretUse> {
        let Some(leaving) = leaving else {
            return self.secrets.clone();
        };
        let inside = self.secrets.iter().filter(|one| !one.how.leaves());
        leaving.uses.iter().chain(inside).cloned().collect()
    }

    /// Checks secrets that are to be used for what leaves, by these rules, in the place of those that there are.
    ///
    /// # Errors
    /// All that is wrong, each with its place: `secrets[0].how`; `beyond_profile` for what its profile does not let
    /// in.
    pub fn check_leaving(
        &self,
        uses: &[SecretUse],
        network: &NetworkRules,
    ) -> Result<(), Vec<Invalid>> {
        let mut found = Findings::default();
        for (index, one) in uses.iter().enumerate() {
            if !one.how.leaves() {
                let message = "what is a file or a variable is so from the beginning; a sandbox that lives is given \
                               secrets as `header` or `upstream`";
                found.add(format!("secrets[{index}].how"), "secret_header", message);
            }
        }
        let inside = self.secrets.iter().filter(|one| !one.how.leaves());
        let all: Vec<SecretUse> = uses.iter().chain(inside).cloned().collect();
        check_uses(&all, &self.env, &mut found);
        check_ways_out(uses, network, &mut found);
        if let Some(made_by) = &self.made_by {
            made_by.check_leaving(&self.secrets, uses, &mut found);
        }
        found.verdict()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretHow;

    fn header(name: &str, version: u64) -> SecretUse {
        SecretUse {
            name: name.to_owned(),
            id: None,
            version,
            how: SecretHow::Header {
                host: "a.test".to_owned(),
                header: "x".to_owned(),
                format: "{}".to_owned(),
            },
        }
    }

    fn by() -> PrincipalId {
        "uid:1000".parse().unwrap()
    }

    #[test]
    fn a_node_is_believed_only_what_the_sandbox_was_given() {
        let file = SecretUse {
            how: SecretHow::File,
            ..header("file", 1)
        };
        let spec = [header("made-with", 1), file.clone()];
        let first = Leaving::after(None, (vec![header("a", 1)], by()), false);
        let second = Leaving::after(Some(&first), (vec![header("b", 1)], by()), true);
        let third = Leaving::after(Some(&second), (vec![header("b", 2)], by()), true);
        let said = |uses: &[SecretUse]| {
            let known = third.in_force(&spec, uses).uses;
            known
                .iter()
                .map(|one| format!("{}{}", one.name, one.version))
                .collect::<String>()
        };
        assert_eq!(said(&[header("a", 1)]), "a1");
        assert_eq!(
            said(&[header("b", 1), header("made-with", 1)]),
            "b1made-with1"
        );
        assert_eq!(said(&[header("a", 2), header("other", 1), file]), "");
        let settled = Leaving::after(Some(&third), (Vec::new(), by()), false);
        assert_eq!(settled.earlier, [header("b", 2)]);
    }

    #[test]
    fn what_is_remembered_of_changes_that_nobody_takes_over_is_bounded() {
        let mut now = None;
        for version in 0..1000 {
            now = Some(Leaving::after(
                now.as_ref(),
                (vec![header("a", version)], by()),
                true,
            ));
        }
        assert_eq!(now.unwrap().earlier.len(), EARLIER_MAX);
    }
}
