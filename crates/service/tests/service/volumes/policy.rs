//! Policies of volumes: they hold whatever has a volume of their name, however it came to have it.

use super::*;
use crate::policies::{only, rules};
use model::policy::{Bound, Decision};
use model::sandbox::Want;
use model::secret::{SecretHow, SecretUse};
use service::{EgressAsk, PolicyAsk, SnapshotRef};

const ONE: &[(&str, &str)] = &[("one", "/data")];
const TWO: &[(&str, &str)] = &[("two", "/more")];
const BOTH: &[(&str, &str)] = &[("one", "/data"), ("two", "/more")];

fn of(volume: &str, policy: Policy) -> Policy {
    Policy {
        layer: Layer::Volume,
        of: Some(volume.to_owned()),
        ..policy
    }
}

/// Whoever has the volume has no network and no secret.
fn hands_off(volume: &str) -> Policy {
    let policy = Policy {
        secrets: Some(Vec::new()),
        ..closed()
    };
    of(volume, policy)
}

fn at_most(pids: u64) -> Policy {
    Policy {
        resources: [(Bound::Pids, pids)].into(),
        ..Policy::new(Layer::Volume)
    }
}

fn reaching(mounts: &[(&str, &str)], host: &str) -> SandboxAsk {
    let mut ask = with(mounts);
    ask.spec.network = rules(&[host]);
    ask
}

impl World {
    /// A sandbox with these volumes that stands.
    async fn stands(&self, ask: SandboxAsk) -> SandboxRow {
        let row = self.make(ask).await;
        self.works(&node(1), NOW).await;
        self.says(&row, said_ready()).await
    }

    /// What becomes of a fork, with these tests as the node that copies.
    async fn forks(&self, row: &SandboxRow) -> Result<SandboxRow, Error> {
        let (service, id) = (self.service.clone(), row.id.clone());
        let forking = tokio::spawn(async move {
            let fork = Fork {
                count: 1,
                ttl_ms: None,
            };
            service.sandbox_fork(&user(), &id, fork, None, LONG).await
        });
        let saves = async || {
            let now = self.sandbox(&row.id).await;
            matches!(now.state, SandboxState::Snapshotting { .. })
        };
        while !saves().await {
            tokio::task::yield_now().await;
        }
        self.says(row, SandboxSaid::Saved { bytes: 1 }).await;
        forking.await.unwrap().unwrap().remove(0)
    }

    async fn layers(&self, row: &SandboxRow) -> Vec<String> {
        let kept = self.service.sandbox_permit(&user(), &row.id).await;
        let layers = kept.unwrap().unwrap().permit.layers;
        layers.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn a_policy_of_a_volume_holds_every_sandbox_that_has_it_and_nothing_else() {
    let world = World::with_volumes().await;
    // Before there is one of that name.
    assert_eq!(world.policy("data", hands_off("one")).await, 1);
    world.volume("two").await;
    for _ in 0..2 {
        world.volume("one").await;
        let wanted = reaching(ONE, "a.test");
        let made = world.service.sandbox_create(&user(), wanted, None).await;
        let refused = made.unwrap_err();
        assert_eq!(refused.code(), "policy_refused");
        let text = refused.to_string();
        assert!(text.contains("(volume/0/data@1)"), "{text}");
        // One that is made anew is another volume of that name.
        world.delete_volume("one").await.unwrap();
    }
    world.volume("one").await;
    let mut secret = with(ONE);
    secret.spec.secrets = vec![SecretUse {
        name: "KEY".to_owned(),
        id: None,
        version: 0,
        how: SecretHow::Env {
            var: "KEY".to_owned(),
        },
    }];
    assert_eq!(world.refused(secret).await, "policy_refused");
    let made = world.make(with(ONE)).await;
    assert_eq!(world.layers(&made).await, ["volume/0/data@1"]);
    // Who has it not is held to nothing.
    let other = world.make(reaching(TWO, "a.test")).await;
    assert!(world.layers(&other).await.is_empty());
    world.make(reaching(&[], "a.test")).await;
    let network = rules(&["a.test"]);
    world.create(JobSpec { network, ..spec() }).await;
}

/// Attack: A sandbox has its volume from before that had a policy, and gets more by a fork, by its snapshot, made anew,
/// by other rules, or by a person's yes to a host.
#[tokio::test]
async fn what_has_a_volume_gets_no_more_than_the_policies_of_that_by_any_way() {
    let world = World::with_volumes().await;
    world.volume("one").await;
    let row = world.stands(reaching(ONE, "a.test")).await;
    let (service, who, id) = (&world.service, user(), &row.id);
    let copy = service.snapshot_create(&who, id, None, None).await.unwrap();
    world.says(&row, SandboxSaid::Saved { bytes: 1 }).await;
    world.policy("data", hands_off("one")).await;
    let host = EgressAsk {
        sandbox: id.clone(),
        to: "b.test".to_owned(),
        why: String::new(),
    };
    let open = rules(&["b.test"]);
    let mut restored = reaching(ONE, "a.test");
    restored.from = Some(SnapshotRef::Id(copy.id));
    let ways = [
        service
            .sandbox_set_network(&who, id, open, NOW)
            .await
            .map(drop),
        service.approval_ask(&who, host).await.map(drop),
        service.sandbox_recreate(&who, id, None).await.map(drop),
        service.sandbox_create(&who, restored, None).await.map(drop),
        world.forks(&row).await.map(drop),
    ];
    for (number, got) in ways.into_iter().enumerate() {
        let code = got.map_err(|error| error.code());
        assert_eq!(code, Err("policy_refused"), "{number}");
    }
    // Less it may have at any time, and then there may be more of it.
    let none = NetworkRules::default();
    let less = service.sandbox_set_network(&who, id, none, NOW).await;
    assert!(!less.unwrap().rules().has_way_out());
    let fork = world.forks(&row).await.unwrap();
    assert_eq!(fork.spec.volumes[0].id, row.spec.volumes[0].id);
    assert_eq!(world.layers(&fork).await, ["volume/0/data@1"]);
}

/// So whoever writes a policy of a volume looks at what has the volume.
#[tokio::test]
async fn what_is_paused_comes_back_as_it_was_and_gets_no_rules_that_the_policies_of_now_do_not_allow()
 {
    let world = World::with_volumes().await;
    world.volume("one").await;
    let (service, who) = (&world.service, user());
    let mut held = Vec::new();
    for memory in [true, false] {
        let row = world.stands(reaching(ONE, "a.test")).await;
        service.sandbox_pause(&who, &row.id, memory).await.unwrap();
        held.push((memory, world.says(&row, SandboxSaid::Paused).await));
    }
    world.policy("data", hands_off("one")).await;
    for (memory, row) in held {
        assert_eq!(row.state, SandboxState::Paused { memory });
        service.sandbox_resume(&who, &row.id, true).await.unwrap();
        let works = world.works(&node(1), NOW).await;
        let work = works.iter().find(|work| work.row.id == row.id).unwrap();
        assert_eq!(work.want, Want::Resume);
        let back = world.says(&row, said_ready()).await;
        assert_eq!(back.state, SandboxState::Ready);
        assert_eq!(*back.rules(), rules(&["a.test"]));
        assert_eq!(back.spec.volumes, row.spec.volumes);
        let same = service.sandbox_set_network(&who, &row.id, rules(&["a.test"]), NOW);
        assert_eq!(same.await.unwrap_err().code(), "policy_refused");
    }
}

/// Attack: A volume is asked for by another case of its name, by its id, or under the name of another one.
#[tokio::test]
async fn a_volume_is_below_the_policies_of_its_name_and_there_is_no_other_name_for_it() {
    let world = World::with_volumes().await;
    let (held, other) = (world.volume("data").await, world.volume("Data").await);
    world.policy("data", hands_off("data")).await;
    let wanted = |name: &str| reaching(&[(name, "/data")], "a.test");
    assert_eq!(world.refused(wanted("data")).await, "policy_refused");
    let free = world.make(wanted("Data")).await;
    assert_eq!(free.spec.volumes[0].id, Some(other.id));
    assert_eq!(world.refused(wanted(held.id.as_str())).await, "volume_name");
    let mut renamed = wanted("Data");
    renamed.spec.volumes[0].id = Some(held.id);
    assert_eq!(world.refused(renamed).await, "volume_missing");
}

/// Attack: Beside the volume with a policy stands another one, whose policy allows more.
#[tokio::test]
async fn a_sandbox_with_several_volumes_is_held_by_the_policies_of_all() {
    let world = World::with_volumes().await;
    world.volume("one").await;
    world.volume("two").await;
    let (a, b) = (only(&["a.test"]), only(&["a.test", "b.test"]));
    world.policy("a", of("one", a)).await;
    world.policy("b", of("two", b)).await;
    world.policy("pids", of("two", at_most(7))).await;
    let turned = [BOTH[1], BOTH[0]];
    for mounts in [ONE, BOTH, &turned] {
        let refused = world.refused(reaching(mounts, "b.test")).await;
        assert_eq!(refused, "policy_refused", "{mounts:?}");
    }
    let made = world.make(reaching(BOTH, "a.test")).await;
    assert_eq!(made.spec.limits.pids, Some(7));
    let layers = ["volume/0/a@1", "volume/0/b@1", "volume/0/pids@1"];
    assert_eq!(world.layers(&made).await, layers);
    let made = world.make(reaching(TWO, "b.test")).await;
    assert_eq!(world.layers(&made).await, layers[1..]);
    // What is known of one volume is not taken for both, nor for none.
    let made = world.make(reaching(ONE, "a.test")).await;
    assert_eq!(made.spec.limits.pids, None);
    world.make(reaching(&[], "c.test")).await;
}

/// Attack: A tenant writes a policy for a volume that has the name of another tenant's.
#[tokio::test]
async fn a_policy_of_a_volume_is_for_those_of_its_own_tenant_alone() {
    let world = World::with_volumes().await;
    let (service, theirs) = (&world.service, world.acme().await);
    world.volume("one").await;
    let created = service.volume_create(&theirs, new("one"), None).await;
    created.unwrap();
    let put = service.policy_put(&theirs, "data", hands_off("one")).await;
    put.unwrap();
    let make = async || {
        let made = service.sandbox_create(&theirs, reaching(ONE, "a.test"), None);
        made.await.map(drop).map_err(|error| error.code())
    };
    world.make(reaching(ONE, "a.test")).await;
    assert_eq!(make().await, Err("policy_refused"));
    service.policy_delete(&theirs, "data").await.unwrap();
    world.policy("data", hands_off("one")).await;
    let refused = world.refused(reaching(ONE, "a.test")).await;
    assert_eq!(refused, "policy_refused");
    assert_eq!(make().await, Ok(()));
}

#[tokio::test]
async fn a_sandbox_that_waits_with_a_volume_is_decided_again_when_that_gets_a_policy() {
    let world = World::with_volumes().await;
    world.volume("one").await;
    world.volume("two").await;
    let held = world.make(reaching(BOTH, "a.test")).await;
    let free = world.make(reaching(TWO, "a.test")).await;
    world.policy("data", hands_off("one")).await;
    let mut works = Vec::new();
    // The first poll finds that both are to be decided again.
    for _ in 0..5 {
        if works.is_empty() {
            works = world.works(&node(1), LONG).await;
        }
    }
    let ids: Vec<&SandboxId> = works.iter().map(|work| &work.row.id).collect();
    assert_eq!(ids, [&free.id]);
    let gone = world.service.sandbox_wait(&user(), &held.id, LONG).await;
    let gone = gone.unwrap();
    assert_eq!(gone.state.name(), "failed");
    let why = gone.reason.unwrap();
    assert!(why.starts_with("permit_stale: "), "{why}");
    assert!(why.contains("(volume/0/data@1)"), "{why}");
}

#[tokio::test]
async fn a_test_of_a_request_knows_the_volumes_of_that() {
    let world = World::with_volumes().await;
    world.policy("data", hands_off("one")).await;
    let test = async |ask: SandboxAsk| {
        let ask = PolicyAsk::Sandbox(Box::new(ask));
        world.service.policy_test(&user(), None, ask).await.unwrap()
    };
    let tested = test(reaching(BOTH, "a.test")).await;
    assert!(matches!(tested.decision, Decision::Refused(_)));
    let layers: Vec<String> = tested.layers.iter().map(ToString::to_string).collect();
    assert_eq!(layers, ["volume/0/data@1"]);
    assert!(tested.trace.iter().all(|one| one.by == tested.layers));
    let tested = test(reaching(TWO, "a.test")).await;
    assert!(matches!(tested.decision, Decision::Allowed(_)));
    assert!(tested.layers.is_empty());
}

#[tokio::test]
async fn the_module_of_a_volume_is_asked_about_what_has_it_and_is_told_of_it() {
    let world = World::with_volumes().await;
    world.volume("one").await;
    world.volume("two").await;
    let held = world.stands(with(ONE)).await;
    let free = world.stands(with(TWO)).await;
    world.modules_by(
        "while read -r line; do case $line in *'\"input\":null'*) echo '\"good\"';; \
         *'\"volumes\":[\"one\"]'*) echo '{\"says\":{\"deny\":\"hands off\"}}';; \
         *) echo '{\"says\":\"allow\"}';; esac; done\n",
    );
    let module = of("one", crate::policies::module());
    world.policy("module", module).await;
    let made = world.service.sandbox_create(&user(), with(ONE), None).await;
    let refused = made.unwrap_err().to_string();
    assert!(refused.contains("hands off"), "{refused}");
    assert!(refused.contains("(volume/0/module@1)"), "{refused}");
    // Of both it is asked too, and says yes to that.
    world.make(with(BOTH)).await;
    world.make(with(TWO)).await;
    let set = async |row: &SandboxRow| {
        let (who, open) = (user(), rules(&["a.test"]));
        let set = world.service.sandbox_set_network(&who, &row.id, open, NOW);
        set.await.map(drop).map_err(|error| error.code())
    };
    assert_eq!(set(&held).await, Err("policy_refused"));
    assert_eq!(set(&free).await, Ok(()));
}

#[tokio::test]
async fn what_serves_a_volume_is_for_no_policy_of_that() {
    let world = World::with_volumes().await;
    let volume = world.volume("one").await;
    let never = Policy {
        profiles: model::policy::ProfilesClause {
            allow_root: Some(false),
            ..model::policy::ProfilesClause::default()
        },
        ..hands_off("one")
    };
    world.policy("data", never).await;
    assert_eq!(world.refused(with(ONE)).await, "policy_refused");
    let service = &world.service;
    let token = service.volume_token(&user(), &volume).await.unwrap();
    let token = token.unwrap();
    let opened = service.volume_opened(&volume.id, &token, "req").await;
    let (ctx, _) = opened.unwrap();
    let served = service.volume_server(&ctx, &volume.id, NOW).await.unwrap();
    assert_eq!(served.spec.permit, None);
    assert_eq!(world.works(&node(1), NOW).await[0].row.id, served.id);
}

/// Attack: A volume is given as many policies as there may be, alone or with a principal, and the next one for all
/// shuts out whoever has it.
#[tokio::test]
async fn a_policy_that_would_be_one_too_many_with_a_volume_is_not_written() {
    let world = World::with_volumes().await;
    let put = async |name: &str, policy: Policy| {
        let put = world.service.policy_put(&user(), name, policy).await;
        put.map(drop).map_err(|error| error.to_string())
    };
    let of_alice = || Policy {
        of: Some("user:alice".to_owned()),
        ..Policy::new(Layer::Principal)
    };
    let of_one = || of("one", Policy::new(Layer::Volume));
    let half = limits::POLICY_LAYERS_MAX / 2;
    for number in 0..half {
        put(&format!("a{number}"), of_alice()).await.unwrap();
        put(&format!("v{number}"), of_one()).await.unwrap();
    }
    let both = "for `user:alice` with the volume `one`: ";
    for more in [of_alice(), of_one(), Policy::new(Layer::Tenant)] {
        let told = put("more", more).await.unwrap_err();
        assert!(told.contains(both), "{told}");
    }
    put("other", of("two", Policy::new(Layer::Volume)))
        .await
        .unwrap();
    for number in 0..half {
        let name = format!("a{number}");
        world.service.policy_delete(&user(), &name).await.unwrap();
        put(&name, of_one()).await.unwrap();
    }
    let told = put("more", Policy::new(Layer::Tenant)).await.unwrap_err();
    assert!(told.contains(": with the volume `one`: "), "{told}");
    // Two volumes that come to too much are told so when somebody asks for both.
    assert_eq!(world.refused(with(BOTH)).await, "policy_unenforceable");
    world.volume("one").await;
    world.make(with(ONE)).await;
}
