//! Approvals: a person's yes or no that something waits for, decided by one function; who may say it; and what a yes
//! is good for.
//!
//! ```text
//! pending ──approve──▶ approved      ──reject──▶ rejected      ──expire──▶ expired      ──cancel──▶ canceled
//! ```

use crate::id::{ApprovalId, PrincipalId};
use crate::policy::Refusal;
use crate::principal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Where an approval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has decided.
    Pending,
    /// A person said yes.
    Approved,
    /// A person said no.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// What it is about is over, or is not what was asked any more.
    Canceled,
}

/// What happens to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalEvent {
    /// A person says yes.
    Approve,
    /// A person says no.
    Reject,
    /// Its time is over.
    Expire,
    /// What it is about is over.
    Cancel,
}

/// What follows from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalStep {
    /// This state.
    Moved(ApprovalState),
    /// Nothing: it was so already.
    Unchanged,
}

/// It was decided otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the approval is {state}")]
pub struct Over {
    /// Its state.
    pub state: &'static str,
}

impl ApprovalState {
    /// All of them.
    pub const ALL: [ApprovalState; 5] = [
        ApprovalState::Pending,
        ApprovalState::Approved,
        ApprovalState::Rejected,
        ApprovalState::Expired,
        ApprovalState::Canceled,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            ApprovalState::Pending => "pending",
            ApprovalState::Approved => "approved",
            ApprovalState::Rejected => "rejected",
            ApprovalState::Expired => "expired",
            ApprovalState::Canceled => "canceled",
        }
    }

    /// The state of this name.
    pub fn parse(text: &str) -> Option<ApprovalState> {
        let mut all = ApprovalState::ALL.into_iter();
        all.find(|state| state.as_str() == text)
    }

    /// The state that follows `event`. Pure.
    ///
    /// # Errors
    /// [`Over`] where another thing was decided before.
    pub fn step(self, event: ApprovalEvent) -> Result<ApprovalStep, Over> {
        let next = match event {
            ApprovalEvent::Approve => ApprovalState::Approved,
            ApprovalEvent::Reject => ApprovalState::Rejected,
            ApprovalEvent::Expire => ApprovalState::Expired,
            ApprovalEvent::Cancel => ApprovalState::Canceled,
        };
        if self == ApprovalState::Pending {
            return Ok(ApprovalStep::Moved(next));
        }
        if self == next {
            return Ok(ApprovalStep::Unchanged);
        }
        Err(Over {
            state: self.as_str(),
        })
    }
}

/// What an approval is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A job, which waits for it.
    Job,
    /// A sandbox that somebody wants to make: the same request passes once after a yes.
    Sandbox,
    /// Other rules for the network of a sandbox: as for a sandbox.
    Network,
    /// One more host that a sandbox may reach; a yes opens it.
    Egress,
    /// A policy that somebody wants to write or delete; a yes does it.
    Policy,
}

impl Subject {
    /// All of them.
    pub const ALL: [Subject; 5] = [
        Subject::Job,
        Subject::Sandbox,
        Subject::Network,
        Subject::Egress,
        Subject::Policy,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Job => "job",
            Subject::Sandbox => "sandbox",
            Subject::Network => "network",
            Subject::Egress => "egress",
            Subject::Policy => "policy",
        }
    }

    /// The subject of this name.
    pub fn parse(text: &str) -> Option<Subject> {
        let mut all = Subject::ALL.into_iter();
        all.find(|subject| subject.as_str() == text)
    }

    /// Whether a yes to it can be good for later requests too.
    pub fn has_session(self) -> bool {
        match self {
            Subject::Job | Subject::Sandbox | Subject::Network => true,
            Subject::Egress | Subject::Policy => false,
        }
    }
}

/// What a yes is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// This one thing.
    Once,
    /// Whatever the same principal asks for the same reasons, until some time.
    Session,
    /// This one thing; and a proposal to change the policies, for somebody to accept who may write them.
    Rule,
}

impl Scope {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Once => "once",
            Scope::Session => "session",
            Scope::Rule => "rule",
        }
    }

    /// The scope of this name.
    pub fn parse(text: &str) -> Option<Scope> {
        let all = [Scope::Once, Scope::Session, Scope::Rule];
        all.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// That something waits, as it keeps that itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What it waits for.
    pub approval: ApprovalId,
    /// Why, in the words that a person says yes to.
    pub reasons: BTreeSet<String>,
}

/// A yes, as what it was said to keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Yes {
    /// The approval.
    pub approval: ApprovalId,
    /// Who said so.
    pub by: PrincipalId,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// What it is good for.
    pub scope: Scope,
    /// To what, in the words that were shown.
    pub reasons: BTreeSet<String>,
}

impl Yes {
    /// Whether it was said to all of these. What nobody was shown nobody has said yes to.
    pub fn covers(&self, asked: &[Refusal]) -> bool {
        asked.iter().all(|one| self.reasons.contains(&one.reason()))
    }
}

/// Why somebody may not decide an approval, whatever their role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// They asked for it.
    Asker,
    /// Whoever asked acts for them.
    Maker,
}

/// Whether `who` may decide what `asker` asked for, as far as it is not about roles: nobody says yes to themselves, nor
/// to the agents, automations and keys that they made (`makers`). The machine's own user is let to judge what he let in:
/// on a machine of one person there is nobody else, and whatever he asks for himself is still not his to approve.
///
/// # Errors
/// [`Barred`] with the reason.
pub fn may_decide(
    who: &PrincipalId,
    asker: &PrincipalId,
    makers: &BTreeSet<PrincipalId>,
) -> Result<(), Barred> {
    if who == asker {
        return Err(Barred::Asker);
    }
    if makers.contains(who) && !principal::is_owner(who) {
        return Err(Barred::Maker);
    }
    Ok(())
}

/// Tries to tell a webhook of one change: some twenty minutes in all, in which a server is started anew.
pub const TELL_MAX: u64 = 8;
/// Before the second of them, in milliseconds; before each later one twice as long.
const TELL_FIRST_MS: u64 = 10_000;

/// How long after a try of this number, from 1, the next one is, in milliseconds; `None` after the last.
pub fn tell_again_ms(attempt: u64) -> Option<u64> {
    (attempt < TELL_MAX).then(|| TELL_FIRST_MS << attempt.saturating_sub(1).min(TELL_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkRules;
    use crate::policy::{
        Answer, CommandsClause, Decision, Kind, Layer, LayerRef, Matter, Permit, Policy,
    };
    use crate::profile::Says;
    use crate::sandbox_spec::StartCommand;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    const EVENTS: [ApprovalEvent; 4] = [
        ApprovalEvent::Approve,
        ApprovalEvent::Reject,
        ApprovalEvent::Expire,
        ApprovalEvent::Cancel,
    ];

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let mut table = String::new();
        for state in ApprovalState::ALL {
            for event in EVENTS {
                writeln!(
                    table,
                    "{state:?} + {event:?}\n    => {:?}",
                    state.step(event)
                )
                .unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    proptest! {
        #[test]
        fn what_was_decided_first_stays(events in prop::collection::vec(0..EVENTS.len(), 1..12)) {
            let mut state = ApprovalState::Pending;
            let mut seen = Vec::new();
            for event in events {
                if let Ok(ApprovalStep::Moved(next)) = state.step(EVENTS[event]) {
                    seen.push(next);
                    state = next;
                }
            }
            prop_assert_eq!(seen.len(), 1);
        }
    }

    #[test]
    fn a_webhook_is_tried_ever_more_seldom_and_then_no_more() {
        let times: Vec<Option<u64>> = (1..=TELL_MAX + 1).map(tell_again_ms).collect();
        let seconds = [10, 20, 40, 80, 160, 320, 640].map(|s| Some(s * 1000));
        assert_eq!(times[..7], seconds);
        assert_eq!(times[7..], [None, None]);
        assert_eq!(tell_again_ms(u64::MAX), None);
    }

    #[test]
    fn words_read_back() {
        for state in ApprovalState::ALL {
            assert_eq!(ApprovalState::parse(state.as_str()), Some(state));
        }
        for subject in Subject::ALL {
            assert_eq!(Subject::parse(subject.as_str()), Some(subject));
        }
        for scope in [Scope::Once, Scope::Session, Scope::Rule] {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
        assert_eq!(ApprovalState::parse("APPROVED"), None);
    }

    fn who(text: &str) -> PrincipalId {
        text.parse().unwrap()
    }

    #[test]
    fn nobody_decides_for_themselves_or_for_what_they_made_but_the_machine_s_user_for_what_he_let_in()
     {
        let makers = BTreeSet::from([who("user:maker"), who("uid:1000")]);
        let bot = who("agent:bot");
        let decide = |by: &str| may_decide(&who(by), &bot, &makers);
        assert_eq!(decide("agent:bot"), Err(Barred::Asker));
        assert_eq!(decide("user:maker"), Err(Barred::Maker));
        assert_eq!(decide("user:other"), Ok(()));
        assert_eq!(decide("uid:1000"), Ok(()));
        let own = may_decide(&who("uid:1000"), &who("uid:1000"), &BTreeSet::new());
        assert_eq!(own, Err(Barred::Asker));
    }

    fn yes_to(shown: &[Refusal]) -> Yes {
        Yes {
            approval: ApprovalId::from_parts(0, [0; 10]),
            by: who("uid:1"),
            at_ms: 1,
            comment: String::new(),
            scope: Scope::Session,
            reasons: shown.iter().map(Refusal::reason).collect(),
        }
    }

    #[test]
    fn a_yes_is_to_the_words_that_were_shown_and_to_no_more() {
        let one = |why: &str| Refusal {
            kind: Kind::NeedsApproval,
            clause: "commands".to_owned(),
            by: Vec::new(),
            why: why.to_owned(),
        };
        let yes = yes_to(&[one("a")]);
        assert!(yes.covers(&[]) && yes.covers(&[one("a")]));
        assert!(!yes.covers(&[one("a"), one("b")]) && !yes.covers(&[one("A")]));
    }

    /// Whose policies want a yes to everything public and to pushes: the tenant's, and those of these volumes.
    #[derive(Debug, Clone)]
    struct Wanted {
        by_tenant: bool,
        by_volumes: BTreeSet<&'static str>,
        /// Policies are called otherwise where this is another one.
        version: u64,
    }

    impl Wanted {
        fn is_any(&self) -> bool {
            self.by_tenant || !self.by_volumes.is_empty()
        }

        fn policies(&self) -> Vec<(LayerRef, Policy)> {
            let tenant = self.by_tenant.then_some((Layer::Tenant, None));
            let volumes = self.by_volumes.iter();
            let volumes = volumes.map(|name| (Layer::Volume, Some((*name).to_owned())));
            let all = tenant.into_iter().chain(volumes).enumerate();
            all.map(|(number, (layer, of))| {
                let policy = Policy {
                    of,
                    commands: Some(CommandsClause {
                        approve: vec!["git push".to_owned()],
                        unchecked_in_sandboxes: true,
                        ..CommandsClause::default()
                    }),
                    approvals: [(Matter::NetworkUnrestricted, Answer::NeedsApproval)].into(),
                    ..Policy::new(layer)
                };
                let layer = LayerRef {
                    layer,
                    priority: 0,
                    name: format!("{number}-{}", self.version),
                    version: self.version,
                };
                (layer, policy)
            })
            .collect()
        }

        /// What a person has to say yes to for a sandbox that has these volumes, and begins with a push.
        fn asked(&self) -> Vec<Refusal> {
            let mut spec = crate::sandbox_spec::tests::spec();
            spec.network = NetworkRules::all_or_nothing(true);
            spec.defaults.start = Some(StartCommand {
                command: Some("git push".to_owned()),
                ready: None,
            });
            let says = Says {
                network: true,
                timeout: true,
            };
            match Permit::merge(&self.policies()).sandbox((spec, 1000), says) {
                Decision::Allowed(_) => Vec::new(),
                Decision::NeedsApproval(_, all) => all,
                Decision::Refused(all) => panic!("{all:?}"),
            }
        }
    }

    fn wanted(by_tenant: bool, by_volumes: &[&'static str]) -> Wanted {
        Wanted {
            by_tenant,
            by_volumes: by_volumes.iter().copied().collect(),
            version: 1,
        }
    }

    #[test]
    fn what_the_policy_of_a_volume_wants_names_the_volume_and_is_found_in_that_policy() {
        let open = "approvals.network_unrestricted: a person has to say yes to this";
        let push = "commands: a person has to say yes to `git push`";
        let with_a = [open, push].map(|one| format!("{one}, with the volume a"));
        let [open_a, push_a] = with_a.each_ref().map(String::as_str);
        let open_both = format!("{open_a} and the volume b");
        let push_b = format!("{push}, with the volume b");
        for (wanted, expect) in [
            (wanted(true, &[]), vec![open, push]),
            (wanted(false, &["a"]), vec![open_a, push_a]),
            // The tenant's wants it too, and who was shown that alone was not shown the volume.
            (wanted(true, &["a"]), vec![open_a, push, push_a]),
            (
                wanted(false, &["a", "b"]),
                vec![&*open_both, push_a, &*push_b],
            ),
        ] {
            let reasons = yes_to(&wanted.asked()).reasons;
            let expect: BTreeSet<String> = expect.into_iter().map(str::to_owned).collect();
            assert_eq!(reasons, expect, "{wanted:?}");
            for (_, policy) in wanted.policies() {
                let less = policy.without(&reasons).unwrap();
                assert!(less.approvals.is_empty() && less.commands.unwrap().approve.is_empty());
            }
        }
    }

    fn any_wanted() -> impl Strategy<Value = Wanted> {
        let names = prop::sample::select(vec!["a", "b", "ab"]);
        let by_volumes = prop::collection::btree_set(names, 0..3);
        (any::<bool>(), by_volumes, 1_u64..3).prop_map(|(by_tenant, by_volumes, version)| Wanted {
            by_tenant,
            by_volumes,
            version,
        })
    }

    proptest! {
        #[test]
        fn a_yes_covers_what_the_same_volumes_want_whatever_their_policies_are_called(
            shown in any_wanted(), asked in any_wanted(),
        ) {
            // A rule about commands counts for each layer that has one, so that the tenant's stands beside those of
            // volumes; of a matter there is one, which names all volumes that want it.
            let is_shown = shown.by_volumes == asked.by_volumes && (shown.by_tenant || !asked.by_tenant);
            let yes = yes_to(&shown.asked());
            prop_assert_eq!(yes.covers(&asked.asked()), !asked.is_any() || is_shown);
        }
    }
}
