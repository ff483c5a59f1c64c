//! Profiles and their builds, with these tests as the hands and the node.

use crate::sandboxes::said_ready;
use crate::*;
use model::build::{BuildFailure, BuildState, Phase};
use model::id::SnapshotId;
use model::profile::{Base, Instruction, Recipe, What};
use model::sandbox::SandboxState;
use model::snapshot::SnapshotState;
use service::loops::{prune_pass, unbuilt_pass};
use service::{
    BuildAsk, BuildHold, BuildRow, Built, Error, Level, LogQuery, LogRow, ProfileRef, SandboxSaid,
    Saved, SnapshotRef,
};
use std::io::Write as _;

fn named(text: &str) -> ProfileRef {
    text.parse().unwrap()
}

fn recipe(commands: &[&str]) -> Recipe {
    let one = |command: &&str| Instruction {
        what: What::Run {
            command: (*command).to_owned(),
            user: None,
        },
        fresh: false,
    };
    Recipe {
        base: Base::Image("base".to_owned()),
        instructions: commands.iter().map(one).collect(),
        fresh: false,
        start: None,
        ready: None,
    }
}

fn why(message: &str) -> BuildFailure {
    BuildFailure {
        message: message.to_owned(),
        phase: Phase::Instruction(1),
    }
}

impl World {
    async fn ask_build(&self, name: &str) -> BuildRow {
        let ask = BuildAsk {
            profile: Some(named(name)),
            tags: Vec::new(),
            limits: AskedLimits::default(),
        };
        let made = self.service.build_create(&user(), ask, None).await;
        made.unwrap().1
    }

    async fn begin(&self, row: &BuildRow, recipe: Recipe) -> Result<BuildRow, Error> {
        let profile = ProfileRef::Id(row.profile.clone(), "default".to_owned());
        let which = (&profile, &row.id);
        self.service.build_begin(&user(), which, recipe).await
    }

    async fn begun(&self, name: &str, recipe: Recipe) -> BuildRow {
        let row = self.ask_build(name).await;
        self.begin(&row, recipe).await.unwrap()
    }

    async fn build(&self, row: &BuildRow) -> BuildRow {
        let profile = ProfileRef::Id(row.profile.clone(), "default".to_owned());
        let found = self.service.build_get(&user(), &profile, &row.id).await;
        found.unwrap()
    }

    async fn take(&self) -> BuildHold {
        self.service.build_take().await.unwrap().unwrap()
    }

    async fn origin(&self, hold: &BuildHold) -> Built {
        let recipe = hold.recipe().unwrap().clone();
        let origin = self.service.build_origin(hold, &recipe).await;
        origin.unwrap().unwrap()
    }

    /// A sandbox for the build that stands.
    async fn stand(&self, hold: &mut BuildHold) {
        self.register(&node(1), "a").await;
        let built = self.origin(hold).await;
        let row = self.service.build_sandbox(hold, &built).await.unwrap();
        self.works(&node(1), NOW).await;
        self.says(&row, said_ready()).await;
    }

    /// What is written in it is saved.
    async fn save(&self, hold: &mut BuildHold) -> SnapshotId {
        let saved = Saved {
            settled: service::Settled {
                env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
                user: Some("root".to_owned()),
                workdir: None,
            },
            start: None,
        };
        let copy = self.service.build_save(hold, saved).await.unwrap();
        let sandbox = self.sandbox(&copy.sandbox).await;
        self.says(&sandbox, SandboxSaid::Saved { bytes: 7 }).await;
        copy.id
    }

    /// A whole build.
    async fn built(&self, name: &str, commands: &[&str]) -> (BuildRow, SnapshotId) {
        let row = self.begun(name, recipe(commands)).await;
        let mut hold = self.take().await;
        let key = self.origin(&hold).await.key;
        self.stand(&mut hold).await;
        let copy = self.save(&mut hold).await;
        self.service
            .build_done(&mut hold, &key, None)
            .await
            .unwrap();
        self.service.build_sandbox_drop(&hold).await;
        (self.build(&row).await, copy)
    }
}

#[tokio::test]
async fn a_build_waits_for_its_recipe_and_gets_one_once() {
    let world = World::new();
    let row = world.ask_build("env:v1").await;
    assert_eq!(
        (&row.state, row.tags.as_slice()),
        (&BuildState::Waiting, &["v1".to_owned()][..])
    );
    assert!(world.service.build_take().await.unwrap().is_none());
    let wrong = world.begin(&row, recipe(&[""])).await;
    assert!(matches!(wrong, Err(Error::Invalid(_))));
    world.begin(&row, recipe(&["ls"])).await.unwrap();
    let twice = world.begin(&row, recipe(&["ls"])).await;
    assert_eq!(twice.unwrap_err().code(), "conflict");
    // Another profile does not have it, and another tenant does not see it.
    let other = world.ask_build("other").await;
    let of_other = ProfileRef::Id(other.profile, "default".to_owned());
    let found = world.service.build_get(&user(), &of_other, &row.id).await;
    assert!(matches!(found, Err(Error::NotFound)));
    let profile = named("env");
    let strange = world
        .service
        .build_get(&stranger(), &profile, &row.id)
        .await;
    assert!(matches!(strange, Err(Error::NotFound)));
    // The second build of a name is one of the same profile.
    assert_eq!(world.ask_build("env").await.profile, row.profile);
}

#[tokio::test]
async fn what_is_built_is_what_its_tags_mean_and_sandboxes_begin_with() {
    let world = World::new();
    let (row, copy) = world.built("env:v1", &["ls"]).await;
    assert_eq!(
        (&row.state, row.snapshot.as_ref()),
        (&BuildState::Ready, Some(&copy))
    );
    let of = async |text: &str| world.service.profile_snapshot(&user(), &named(text)).await;
    assert_eq!(of("env:v1").await.unwrap().unwrap().1, copy);
    assert!(matches!(of("env").await, Err(Error::NotFound)));
    assert!(of("nothing").await.unwrap().is_none());
    let ask = service::SandboxAsk {
        from: Some(SnapshotRef::Id(copy)),
        ..crate::sandboxes::ask()
    };
    let sandbox = world.make(ask).await;
    assert_eq!(sandbox.spec.env["A"], "b");
    assert_eq!(sandbox.spec.defaults.user.as_deref(), Some("root"));
    // Nobody sees the copy among snapshots.
    let (ctx, all) = (user(), service::SnapshotFilter::default());
    let page = world.service.snapshot_list(&ctx, all, None, 9);
    assert!(page.await.unwrap().snapshots.is_empty());
}

#[tokio::test]
async fn a_build_whose_hands_are_gone_is_begun_again_and_they_change_nothing_any_more() {
    let world = World::new();
    let row = world.begun("env", recipe(&["ls"])).await;
    let mut first = world.take().await;
    world.stand(&mut first).await;
    assert!(world.service.build_take().await.unwrap().is_none());
    let lost = first.row().sandbox.clone().unwrap();
    let copy = world.save(&mut first).await;
    world.clock.advance(limits::BUILD_LEASE_MS + 1);
    let mut second = world.take().await;
    assert_eq!((second.row().attempt, &second.row().sandbox), (2, &None));
    assert_eq!(world.sandbox(&lost).await.state, SandboxState::Destroying);
    let service = &world.service;
    assert_eq!(
        service.build_renew(&mut first).await.unwrap_err().code(),
        "conflict"
    );
    let entry = LogRow {
        at_ms: 1,
        level: Level::Info,
        phase: "1".to_owned(),
        message: "m".to_owned(),
    };
    let entries = vec![entry; 2];
    assert!(
        service
            .build_log(&mut first, entries.clone())
            .await
            .is_err()
    );
    assert!(service.build_done(&mut first, "key", None).await.is_err());
    assert!(service.build_fail(&mut first, why("late")).await.is_err());
    service.build_log(&mut second, entries).await.unwrap();
    // What the first one has saved no build names.
    assert_eq!(unbuilt_pass(service).await.unwrap(), 1);
    let gone = service.snapshot_get(&user(), &copy).await.unwrap();
    assert_eq!(gone.state, SnapshotState::Deleting);
    service.build_fail(&mut second, why("no")).await.unwrap();
    let over = world.build(&row).await;
    assert_eq!(over.state, BuildState::Failed { why: why("no") });
    let query = LogQuery {
        level: Level::Debug,
        offset: 0,
        limit: 9,
        backward: false,
        from_ms: None,
    };
    assert_eq!(service.build_logs(&over, query).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_build_is_not_begun_again_for_ever() {
    let world = World::new();
    let row = world.begun("env", recipe(&["ls"])).await;
    for attempt in 1..=limits::BUILD_ATTEMPTS_MAX {
        assert_eq!(world.take().await.row().attempt, attempt);
        // A server that starts need not wait for the one before.
        assert_eq!(world.again().builds_left().await.unwrap(), 1);
    }
    assert!(world.service.build_take().await.unwrap().is_none());
    let state = world.build(&row).await.state;
    assert!(format!("{state:?}").contains("interrupted"), "{state:?}");
    let slow = world.begun("slow", recipe(&["ls"])).await;
    let mut hold = world.take().await;
    world.clock.advance(limits::BUILD_MS);
    assert!(world.service.build_renew(&mut hold).await.is_err());
    assert!(world.service.build_take().await.unwrap().is_none());
    assert!(matches!(
        world.build(&slow).await.state,
        BuildState::Failed { .. }
    ));
}

#[tokio::test]
async fn what_was_done_before_is_begun_with_and_the_same_again_is_there() {
    let world = World::new();
    let (_, copy) = world.built("env", &["a", "b"]).await;
    let origin = async |commands: &[&str], fresh: bool| {
        let recipe = Recipe {
            fresh,
            ..recipe(commands)
        };
        world.begun("env", recipe).await;
        let mut hold = world.take().await;
        let built = world.origin(&hold).await;
        world
            .service
            .build_fail(&mut hold, why("done"))
            .await
            .unwrap();
        (built.done, built.from, built.same)
    };
    let same = Some(copy.clone());
    assert_eq!(
        origin(&["a", "b"], false).await,
        (2, same.clone(), same.clone())
    );
    assert_eq!(origin(&["a", "b", "c"], false).await, (2, same, None));
    assert_eq!(origin(&["b", "a"], false).await, (0, None, None));
    assert_eq!(origin(&["a", "b"], true).await, (0, None, None));
    // The same for another is done without a sandbox, and stays when the first one goes.
    let row = world.begun("twin", recipe(&["a", "b"])).await;
    let mut hold = world.take().await;
    let built = world.origin(&hold).await;
    let done = world
        .service
        .build_done(&mut hold, &built.key, built.same)
        .await;
    done.unwrap();
    let state = async || {
        let row = world.service.snapshot_get(&user(), &copy).await;
        row.unwrap().state
    };
    let delete = async |name: &str| {
        let profile = named(name);
        world.service.profile_delete(&user(), &profile).await
    };
    delete("env").await.unwrap();
    assert_eq!(world.build(&row).await.snapshot, Some(copy.clone()));
    assert_eq!(state().await, SnapshotState::Ready);
    delete("twin").await.unwrap();
    assert_eq!(state().await, SnapshotState::Deleting);
    assert!(matches!(delete("twin").await, Err(Error::NotFound)));
}

#[tokio::test]
async fn a_base_that_is_not_there_is_said_by_its_name() {
    let world = World::new();
    for (base, said) in [
        (Base::Image("ubuntu:22.04".to_owned()), "ubuntu:22.04"),
        (Base::Profile("nothing".to_owned()), "nothing"),
        (Base::Profile("a b".to_owned()), "a b"),
    ] {
        let recipe = Recipe {
            base,
            ..recipe(&["ls"])
        };
        world.begun("env", recipe.clone()).await;
        let mut hold = world.take().await;
        let origin = world.service.build_origin(&hold, &recipe).await.unwrap();
        let why = origin.unwrap_err();
        assert!(
            why.message.contains(said) && why.phase == Phase::Base,
            "{why:?}"
        );
        world.service.build_fail(&mut hold, why).await.unwrap();
    }
    // The template of another tenant is none, and its own can be one.
    let (_, copy) = world.built("mine", &["a"]).await;
    let from = Recipe {
        base: Base::Profile("Mine:default".to_owned()),
        ..recipe(&["b"])
    };
    world.begun("next", from).await;
    let hold = world.take().await;
    let built = world.origin(&hold).await;
    assert_eq!(
        (built.from, built.settled.user.as_deref()),
        (Some(copy), Some("root"))
    );
}

#[tokio::test]
async fn tags_move_and_go_and_are_bounded() {
    let world = World::new();
    let (first, copy) = world.built("env", &["a"]).await;
    let service = &world.service;
    let tag = async |target: &str, tags: &[&str]| {
        let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        service.profile_tag(&user(), &named(target), &tags).await
    };
    let given = tag("env", &["V1", "stable"]).await.unwrap();
    assert_eq!((given.tags.len(), given.build), (2, first.id));
    for wrong in [&["a:b"][..], &[""], &[":x"], &[]] {
        assert!(
            matches!(tag("env", wrong).await, Err(Error::Invalid(_))),
            "{wrong:?}"
        );
    }
    assert!(matches!(tag("env:v2", &["x"]).await, Err(Error::NotFound)));
    let (_, second) = world.built("env", &["b"]).await;
    let of = async |text: &str| {
        let found = service.profile_snapshot(&user(), &named(text)).await;
        found.unwrap().unwrap().1
    };
    assert_eq!((of("env").await, of("env:v1").await), (second, copy));
    let untag = async |tag: &str| {
        let tags = [tag.to_owned()];
        service.profile_untag(&user(), &named("env"), &tags).await
    };
    untag("v1").await.unwrap();
    assert!(matches!(untag("v1").await, Err(Error::NotFound)));
    assert!(matches!(untag("default").await, Err(Error::Invalid(_))));
    let many: Vec<String> = (0..limits::PROFILE_TAGS_MAX - 1)
        .map(|n| format!("t{n}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(tag("env", &many).await.unwrap_err().code(), "too_much");
}

#[tokio::test]
async fn builds_that_wait_are_bounded_and_those_that_nobody_begins_go() {
    let world = World::new();
    for _ in 0..limits::BUILDS_OPEN_MAX {
        world.ask_build("env").await;
    }
    let ask = BuildAsk {
        profile: Some(named("env")),
        tags: Vec::new(),
        limits: AskedLimits::default(),
    };
    let more = world.service.build_create(&user(), ask.clone(), None).await;
    assert_eq!(more.unwrap_err().code(), "too_much");
    world.clock.advance(limits::BUILD_UNUSED_MS + 1);
    assert_eq!(
        prune_pass(&world.service).await.unwrap().builds,
        limits::BUILDS_OPEN_MAX
    );
    world
        .service
        .build_create(&user(), ask, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn files_are_there_for_a_day_after_somebody_asked_for_them_and_only_for_their_owner() {
    let world = World::new();
    let (service, name) = (&world.service, "a".repeat(64));
    assert!(service.build_file(&user(), &name).await.unwrap().is_none());
    assert!(service.build_file(&user(), "../x").await.is_err());
    let mut writer = service.blob_writer(&user()).await.unwrap();
    writer.write_all(b"archive").unwrap();
    let written = writer.finish().unwrap();
    service
        .build_file_put(&user(), &name, &written)
        .await
        .unwrap();
    let day = limits::BUILD_UNUSED_MS - 1;
    for _ in 0..3 {
        world.clock.advance(day);
        prune_pass(service).await.unwrap();
        assert!(service.build_file(&user(), &name).await.unwrap().is_some());
    }
    let (_, bytes) = service.build_file_open(&user(), &name).await.unwrap();
    assert_eq!(bytes, 7);
    assert!(
        service
            .build_file(&stranger(), &name)
            .await
            .unwrap()
            .is_none()
    );
    world.clock.advance(day + 2);
    prune_pass(service).await.unwrap();
    assert!(service.build_file(&user(), &name).await.unwrap().is_none());
}
