//! Profiles that somebody writes, and what is made with them.

use crate::sandboxes::ask;
use crate::*;
use model::network::{NetworkAsked, NetworkMode, NetworkRules};
use model::profile::{ProfileBase, ProfileSpec, Says};
use model::secret::{SecretHow, SecretUse};
use service::{BuildAsk, Error, ProfileAsk, ProfileRef, SandboxAsk};
use std::time::Duration;

fn named(text: &str) -> ProfileRef {
    text.parse().unwrap()
}

fn list(entries: &[&str]) -> NetworkRules {
    let allow = entries.iter().map(ToString::to_string).collect();
    NetworkRules::read(&NetworkAsked {
        allow,
        ..NetworkAsked::default()
    })
    .unwrap()
}

fn says(timeout_ms: u64) -> ProfileSpec {
    ProfileSpec {
        timeout_ms: Some(timeout_ms),
        timeout_max_ms: Some(60_000),
        network: Some(list(&["*.a.test", "b.test"])),
        ..ProfileSpec::default()
    }
}

fn by(name: &str, says: Says) -> ProfileAsk {
    ProfileAsk {
        named: named(name),
        says,
    }
}

const NOTHING: Says = Says {
    network: false,
    timeout: false,
};
const ALL: Says = Says {
    network: true,
    timeout: true,
};

fn asked(name: &str) -> SandboxAsk {
    SandboxAsk {
        profile: Some(by(name, NOTHING)),
        ..ask()
    }
}

impl World {
    async fn put(&self, name: &str, spec: ProfileSpec) -> u64 {
        let made = self.service.profile_put(&user(), name, spec).await;
        made.unwrap().1.number
    }

    async fn says_no(&self, ask: SandboxAsk) -> (&'static str, String) {
        let made = self.service.sandbox_create(&user(), ask, None).await;
        let error = made.unwrap_err();
        (error.code(), error.to_string())
    }
}

#[tokio::test]
async fn a_later_version_changes_nothing_that_is_there_and_the_same_is_none() {
    let world = World::new();
    assert_eq!(world.put("team/py", says(5_000)).await, 1);
    assert_eq!(world.put("team/py", says(5_000)).await, 1);
    let who = user();
    let create = async |name: &str| {
        let made = world.service.sandbox_create(&who, asked(name), None);
        made.await.unwrap()
    };
    let first = create("team/py").await;
    assert_eq!(world.put("team/py", says(7_000)).await, 2);
    let second = create("team/py").await;
    let old = create("team/py:1").await;
    let ttls = [first.ttl_ms, second.ttl_ms, old.ttl_ms];
    assert_eq!(ttls, [5_000, 7_000, 5_000]);
    let kept = world.service.sandbox_get(&user(), &first.id).await.unwrap();
    let made_by = kept.spec.made_by.unwrap();
    assert_eq!((&*made_by.name, made_by.version), ("team/py", 1));
    assert_eq!(kept.spec.network, list(&["*.a.test", "b.test"]));
    for unknown in ["team/py:3", "team/py:x", "nope"] {
        assert_eq!(world.says_no(asked(unknown)).await.0, "unknown_profile");
    }
    let page = world
        .service
        .profile_versions(&user(), &named("team/py"), None, 1)
        .await
        .unwrap();
    assert_eq!((page.versions[0].number, page.next), (2, Some(2)));
    world
        .service
        .profile_delete(&user(), &named("team/py"))
        .await
        .unwrap();
    assert_eq!(world.says_no(asked("team/py")).await.0, "unknown_profile");
    assert!(world.service.sandbox_get(&user(), &first.id).await.is_ok());
    assert!(matches!(
        world
            .service
            .profile_get(&stranger(), &named("team/py"))
            .await,
        Err(Error::NotFound)
    ));
}

/// Attack: A later edit: a sandbox leaves the ceilings of its profile.
#[tokio::test]
async fn a_sandbox_stays_below_its_ceilings_for_as_long_as_it_lives() {
    let world = World::new();
    world.put("py", says(5_000)).await;
    let mut wide = asked("py");
    wide.spec.network = NetworkRules::all_or_nothing(true);
    wide.profile = Some(by("py", ALL));
    let (code, message) = world.says_no(wide).await;
    assert_eq!(code, "beyond_profile");
    assert!(message.contains("network.mode"), "{message}");
    let narrow = SandboxAsk {
        ttl_ms: 3_600_000,
        profile: Some(by("py", ALL)),
        ..ask()
    };
    let narrow = SandboxAsk {
        spec: model::sandbox_spec::SandboxSpec {
            network: list(&["x.a.test"]),
            ..narrow.spec
        },
        ..narrow
    };
    let row = world.ready(narrow).await;
    assert_eq!(
        (row.ttl_ms, &row.spec.network),
        (60_000, &list(&["x.a.test"]))
    );
    let made_by = row.spec.made_by.clone().unwrap();
    assert_eq!(made_by.timeout_asked_ms, Some(3_600_000));
    let service = &world.service;
    let who = user();
    let set = async |rules: NetworkRules| {
        let set = service.sandbox_set_network(&who, &row.id, rules, Duration::ZERO);
        set.await
    };
    let other = set(list(&["b.test"])).await.unwrap();
    assert_eq!(other.rules(), &list(&["b.test"]));
    assert_eq!(
        set(list(&["c.test"])).await.unwrap_err().code(),
        "beyond_profile"
    );
    let none = set(NetworkRules::default()).await.unwrap();
    assert_eq!(none.rules().mode, NetworkMode::None);
    let longer = service
        .sandbox_set_timeout(&user(), &row.id, 3_600_000)
        .await;
    assert_eq!(longer.unwrap().ttl_ms, 60_000);
    // What is made of it anew has the same ceilings.
    world.put("py", ProfileSpec::default()).await;
    let again = service
        .sandbox_recreate(&user(), &row.id, None)
        .await
        .unwrap();
    assert_eq!(
        (again.ttl_ms, again.spec.made_by.unwrap().version),
        (60_000, 1)
    );
}

#[tokio::test]
async fn a_job_is_as_its_profile_says_and_a_secret_is_a_variable_only_by_leave() {
    let world = World::new();
    world.put("py", says(5_000)).await;
    let create = async |spec: JobSpec| {
        let what = (spec, Some(by("py", NOTHING)));
        world.service.job_create_by(&user(), what, None).await
    };
    let row = create(spec()).await.unwrap();
    assert_eq!(
        (row.spec.timeout_ms, &*row.spec.profile),
        (5_000, "default")
    );
    assert_eq!(row.spec.made_by.unwrap().version, 1);
    let secret = JobSpec {
        secrets: vec![SecretUse {
            name: "KEY".to_owned(),
            id: None,
            version: 0,
            how: SecretHow::Env {
                var: "KEY".to_owned(),
            },
        }],
        ..spec()
    };
    assert_eq!(create(secret).await.unwrap_err().code(), "beyond_profile");
}

#[tokio::test]
async fn a_name_that_something_else_has_is_nobody_elses() {
    let world = World::new();
    let mut hello = hello("a");
    hello.facts.insert("root:debian".to_owned(), "1".to_owned());
    hello
        .facts
        .insert("root:ubuntu:22.04".to_owned(), "2".to_owned());
    world.service.node_register(&node(1), hello).await.unwrap();
    let who = user();
    let put = async |name: &str| {
        let made = world
            .service
            .profile_put(&who, name, ProfileSpec::default());
        made.await.map(drop).map_err(|error| error.code())
    };
    for name in ["debian", "default", "base", "code-interpreter"] {
        assert_eq!(put(name).await, Err("profile_name_taken"), "{name}");
    }
    assert_eq!(put("ubuntu").await, Ok(()));
    for name in ["", "A", "a:1", "../x"] {
        assert_eq!(put(name).await, Err("invalid_argument"), "{name}");
    }
    let build = async |name: &str| {
        let ask = BuildAsk {
            profile: Some(named(name)),
            tags: Vec::new(),
            limits: AskedLimits::default(),
        };
        let made = world.service.build_create(&user(), ask, None).await;
        made.map(drop).map_err(|error| error.code())
    };
    // What a template of this name would be was never meant: the root was.
    assert_eq!(build("debian").await, Err("profile_name_taken"));
    assert_eq!(build("ubuntu:22.04").await, Err("profile_name_taken"));
    // One that was written is not built, and the other way round.
    assert_eq!(build("ubuntu").await, Err("profile_name_taken"));
    assert_eq!(build("mine").await, Ok(()));
    assert_eq!(put("mine").await, Err("profile_name_taken"));
}

#[tokio::test]
async fn a_base_that_there_is_not_is_refused_when_it_is_written() {
    let world = World::new();
    let put = async |base: ProfileBase| {
        let spec = ProfileSpec {
            base: Some(base),
            ..ProfileSpec::default()
        };
        let made = world.service.profile_put(&user(), "x", spec).await;
        made.unwrap_err().code()
    };
    let absent = "absent".to_owned();
    let codes = [
        put(ProfileBase::Snapshot(absent.clone())).await,
        put(ProfileBase::Template(absent)).await,
    ];
    assert_eq!(codes, ["invalid_argument"; 2]);
    assert_eq!(world.says_no(asked("x")).await.0, "unknown_profile");
}
