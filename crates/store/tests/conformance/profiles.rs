//! Profiles, their tags, their builds, and what those have to say.

use model::build::{BuildFailure, BuildState, Phase};
use model::id::{BuildId, ProfileId, SnapshotId};
use model::profile::{Base, Instruction, ProfileSpec, Recipe, What};
use model::sandbox_spec::SandboxSpec;
use model::snapshot::SnapshotState;
use model::spec::AskedLimits;
use store::build::{self, BuildChange, BuildRow, FileRow, Level, LogQuery, LogRow};
use store::profile::version::{self, VersionRow};
use store::profile::{self, Happened, ProfileRow, TagRow};
use store::snapshot::{self, NewSnapshot, Purpose, SnapshotChange};
use store::{StoreError, event};

use crate::db::Db;
use crate::make::{node, principal, tenant};
use crate::sandboxes::spec;

fn profile_id(number: u8) -> ProfileId {
    ProfileId::from_parts(u64::from(number), [number; 10])
}

fn build_id(number: u8) -> BuildId {
    BuildId::from_parts(u64::from(number), [number; 10])
}

fn snapshot_id(number: u8) -> SnapshotId {
    SnapshotId::from_parts(u64::from(number), [number; 10])
}

fn new_profile(number: u8, name: Option<&str>) -> ProfileRow {
    ProfileRow {
        id: profile_id(number),
        tenant: tenant("a"),
        principal: principal(),
        version: 1,
        name: name.map(str::to_owned),
        is_public: false,
        latest: 0,
        created_at_ms: u64::from(number),
        updated_at_ms: u64::from(number),
    }
}

fn put_profile(db: &Db, row: &ProfileRow) -> Result<(), StoreError> {
    let row = row.clone();
    db.write(move |tx| profile::insert(tx, &row))
}

fn touched(db: &Db, row: &ProfileRow, is_public: bool) -> Result<ProfileRow, StoreError> {
    let row = row.clone();
    db.write(move |tx| {
        let happened = Happened {
            kind: "profile.changed",
            data: "{}",
            principal: &principal(),
            at_ms: 50,
        };
        profile::touch(tx, &row, is_public, happened)
    })
}

fn waiting(number: u8, profile: u8) -> BuildRow {
    BuildRow {
        id: build_id(number),
        profile: profile_id(profile),
        tenant: tenant("a"),
        principal: principal(),
        state: BuildState::Waiting,
        version: 1,
        tags: vec!["default".to_owned(), "v1.0".to_owned()],
        limits: AskedLimits {
            cpu_millis: Some(2000),
            ..AskedLimits::default()
        },
        recipe: None,
        attempt: 0,
        lease_until_ms: 0,
        sandbox: None,
        snapshot: None,
        done_key: None,
        logs: 0,
        created_at_ms: u64::from(number),
        begun_at_ms: None,
        ended_at_ms: None,
    }
}

fn recipe() -> Recipe {
    let run = What::Run {
        command: "echo \"ö\"".to_owned(),
        user: None,
    };
    Recipe {
        base: Base::Image("base".to_owned()),
        instructions: vec![Instruction {
            what: run,
            fresh: true,
        }],
        fresh: false,
        start: Some("serve".to_owned()),
        ready: None,
    }
}

fn moved(db: &Db, row: &BuildRow, state: BuildState, at_ms: u64) -> Result<BuildRow, StoreError> {
    let row = row.clone();
    db.write(move |tx| {
        let change = BuildChange {
            state: state.clone(),
            data: "{}".to_owned(),
            principal: principal(),
            at_ms,
        };
        build::move_to(tx, &row, &change)
    })
}

fn put_build(db: &Db, row: &BuildRow) {
    let row = row.clone();
    db.write(move |tx| build::insert(tx, &row)).unwrap();
}

/// One that is to be carried out.
fn building(db: &Db, number: u8) -> BuildRow {
    let row = waiting(number, 1);
    put_build(db, &row);
    let with = row.clone();
    let row = db
        .write(move |tx| build::put_recipe(tx, &with, &recipe(), 7))
        .unwrap();
    moved(db, &row, BuildState::Building, 7).unwrap()
}

fn get(db: &Db, number: u8) -> Option<BuildRow> {
    db.read(move |tx| build::get(tx, Some(&tenant("a")), &build_id(number)))
}

fn keep(db: &Db, row: &BuildRow) -> bool {
    let row = row.clone();
    db.write(move |tx| build::keep(tx, &row)).unwrap()
}

fn take(db: &Db, row: &BuildRow, until: u64) -> Result<BuildRow, StoreError> {
    let row = row.clone();
    db.write(move |tx| build::take(tx, &row, row.attempt + 1, until))
}

pub(crate) fn a_profile_is_found_by_its_id_and_its_name_by_its_owner_only(db: &Db) {
    let row = new_profile(1, Some("team/env"));
    put_profile(db, &row).unwrap();
    put_profile(db, &new_profile(2, None)).unwrap();
    put_profile(db, &new_profile(3, None)).unwrap();
    let of = |who: &'static str| {
        let id = db.read(move |tx| profile::get(tx, &tenant(who), &profile_id(1)));
        let name = db.read(move |tx| profile::named(tx, &tenant(who), "team/env"));
        (id, name)
    };
    assert_eq!(of("a"), (Some(row.clone()), Some(row)));
    assert_eq!(of("b"), (None, None));
    assert!(matches!(
        put_profile(db, &new_profile(4, Some("team/env"))),
        Err(StoreError::Stale { .. })
    ));
    let count = |most| db.read(move |tx| profile::count(tx, &tenant("a"), most));
    assert_eq!((count(9), count(2)), (3, 2));
    let page = |before: Option<(u64, ProfileId)>| -> Vec<ProfileId> {
        let rows = db.read(move |tx| {
            let before = before.as_ref().map(|(ms, id)| (*ms, id));
            profile::list(tx, &tenant("a"), before, (false, 2))
        });
        rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(page(None), [profile_id(3), profile_id(2)]);
    assert_eq!(page(Some((2, profile_id(2)))), [profile_id(1)]);
}

pub(crate) fn a_profile_is_changed_by_one_at_a_time_with_an_event(db: &Db) {
    let row = new_profile(1, Some("env"));
    put_profile(db, &row).unwrap();
    let next = touched(db, &row, true).unwrap();
    assert!(next.is_public && next.version == 2 && next.updated_at_ms == 50);
    assert_eq!(
        db.read(|tx| profile::get(tx, &tenant("a"), &profile_id(1))),
        Some(next)
    );
    assert!(matches!(
        touched(db, &row, false),
        Err(StoreError::Stale { .. })
    ));
    let events = db.read(|tx| event::list(tx, "profile", profile_id(1).as_str(), 0, 10));
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["profile.created", "profile.changed"]);
}

pub(crate) fn a_tag_means_what_it_was_given_last(db: &Db) {
    let put = |tag: &'static str, build: u8, at_ms| {
        let row = TagRow {
            tag: tag.to_owned(),
            build: build_id(build),
            assigned_at_ms: at_ms,
        };
        db.write(move |tx| profile::tag_put(tx, &profile_id(1), &row))
            .unwrap();
    };
    put("default", 1, 10);
    put("v1", 1, 20);
    put("default", 2, 30);
    let tags = || -> Vec<(String, BuildId)> {
        let rows = db.read(|tx| profile::tags(tx, &profile_id(1), 10));
        rows.into_iter().map(|row| (row.tag, row.build)).collect()
    };
    let one = |tag: &str, build| (tag.to_owned(), build_id(build));
    assert_eq!(tags(), [one("default", 2), one("v1", 1)]);
    let tagged = |tag: &'static str| db.read(move |tx| profile::tagged(tx, &profile_id(1), tag));
    assert_eq!((tagged("v1"), tagged("v2")), (Some(build_id(1)), None));
    let remove = || db.write(|tx| profile::tag_remove(tx, &profile_id(1), "v1"));
    assert_eq!((remove().unwrap(), remove().unwrap()), (true, false));
}

pub(crate) fn a_build_is_read_back_with_its_recipe_and_an_event_for_each_state(db: &Db) {
    let row = waiting(1, 1);
    put_build(db, &row);
    assert_eq!(get(db, 1), Some(row.clone()));
    let of_other = db.read(|tx| build::get(tx, Some(&tenant("b")), &build_id(1)));
    assert_eq!(of_other, None);
    let with = row.clone();
    let row = db
        .write(move |tx| build::put_recipe(tx, &with, &recipe(), 7))
        .unwrap();
    let row = moved(db, &row, BuildState::Building, 7).unwrap();
    assert_eq!(get(db, 1), Some(row.clone()));
    let open = |db: &Db| db.read(|tx| build::count_open(tx, &tenant("a"), 5));
    assert_eq!(open(db), 1);
    let failed = BuildState::Failed {
        why: BuildFailure {
            message: "fell".to_owned(),
            phase: Phase::Instruction(1),
        },
    };
    let over = moved(db, &row, failed, 9).unwrap();
    assert_eq!(
        (get(db, 1).as_ref(), over.ended_at_ms),
        (Some(&over), Some(9))
    );
    assert_eq!(open(db), 0);
    assert!(moved(db, &row, BuildState::Ready, 9).is_err());
    let events = db.read(|tx| event::list(tx, "build", build_id(1).as_str(), 0, 10));
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["build.waiting", "build.building", "build.failed"]);
    let listed = db.read(|tx| build::list(tx, &profile_id(1), 5));
    assert_eq!(listed, [over]);
    assert_eq!(db.read(|tx| build::count(tx, &profile_id(1))), 1);
}

pub(crate) fn a_build_is_carried_out_by_one_at_a_time(db: &Db) {
    let row = building(db, 1);
    let free = |now| db.read(move |tx| build::free(tx, now, 5));
    assert_eq!(free(0), std::slice::from_ref(&row));
    let first = take(db, &row, 100).unwrap();
    assert!(matches!(take(db, &row, 100), Err(StoreError::Stale { .. })));
    assert_eq!((free(99).len(), free(100).len()), (0, 1));
    let ended = db.write(build::end_leases).unwrap();
    assert_eq!((ended, free(0).len()), (1, 1));
    let first = BuildRow {
        lease_until_ms: 200,
        snapshot: Some(snapshot_id(1)),
        done_key: Some("key".to_owned()),
        ..first
    };
    assert!(keep(db, &first));
    assert_eq!(get(db, 1), Some(first.clone()));
    let second = take(db, &first, 300).unwrap();
    assert_eq!((second.attempt, &second.snapshot), (2, &None));
    // The first one does not know yet that it has lost it.
    assert!(!keep(db, &first));
    let entry = LogRow {
        at_ms: 1,
        level: Level::Info,
        phase: "base".to_owned(),
        message: "m".to_owned(),
    };
    let say = |row: &BuildRow| {
        let (row, entry) = (row.clone(), entry.clone());
        db.write(move |tx| build::log(tx, &row, &[entry.clone(), entry.clone()]))
            .unwrap()
    };
    assert!(!say(&first) && moved(db, &first, BuildState::Ready, 9).is_err());
    assert!(say(&second));
    // What it has said already is not said twice.
    assert!(!say(&second));
    assert_eq!(get(db, 1).unwrap().logs, 2);
    let done = moved(db, &second, BuildState::Ready, 9).unwrap();
    assert!(!keep(db, &done) && free(u64::MAX >> 1).is_empty());
}

pub(crate) fn a_log_is_read_by_level_from_an_offset_both_ways(db: &Db) {
    let row = building(db, 1);
    let levels = [Level::Debug, Level::Info, Level::Warn, Level::Error];
    let entries: Vec<LogRow> = (0..8)
        .map(|number| LogRow {
            at_ms: number,
            level: levels[usize::try_from(number).unwrap() % 4],
            phase: "1".to_owned(),
            message: format!("m{number}"),
        })
        .collect();
    let all = entries.clone();
    let with = row.clone();
    assert!(db.write(move |tx| build::log(tx, &with, &all)).unwrap());
    let read = |level, offset, limit, backward| -> Vec<u64> {
        let query = LogQuery {
            level,
            offset,
            limit,
            backward,
            from_ms: None,
        };
        let rows = db.read(move |tx| build::logs(tx, &build_id(1), query));
        rows.into_iter().map(|row| row.at_ms).collect()
    };
    assert_eq!(read(Level::Debug, 0, 3, false), [0, 1, 2]);
    assert_eq!(read(Level::Info, 2, 9, false), [3, 5, 6, 7]);
    assert_eq!(read(Level::Error, 0, 9, true), [7, 3]);
    assert!(read(Level::Debug, 8, 9, false).is_empty());
    let since = |backward| -> Vec<u64> {
        let query = LogQuery {
            level: Level::Debug,
            offset: 0,
            limit: 2,
            backward,
            from_ms: Some(5),
        };
        let rows = db.read(move |tx| build::logs(tx, &build_id(1), query));
        rows.into_iter().map(|row| row.at_ms).collect()
    };
    assert_eq!((since(false), since(true)), (vec![5, 6], vec![5, 4]));
}

/// A copy of a build that is ready.
fn copied(db: &Db, number: u8) {
    let new = NewSnapshot {
        id: snapshot_id(number),
        tenant: tenant("a"),
        principal: principal(),
        purpose: Purpose::Build,
        sandbox: model::id::SandboxId::from_parts(0, [number; 10]),
        node: node(1),
        name: None,
        spec: SandboxSpec { ..spec() },
        at_ms: 1,
    };
    db.write(move |tx| {
        let row = snapshot::insert(tx, &new)?;
        let change = SnapshotChange {
            state: SnapshotState::Ready,
            kind: "snapshot.ready",
            data: "{}".to_owned(),
            principal: principal(),
            at_ms: 2,
            bytes: Some(1),
        };
        snapshot::move_to(tx, &row, &change)
    })
    .unwrap();
}

/// A ready build with a copy of its own.
fn ready(db: &Db, number: u8, key: &str) -> BuildRow {
    let taken = take(db, &building(db, number), 100).unwrap();
    copied(db, number);
    let kept = BuildRow {
        snapshot: Some(snapshot_id(number)),
        done_key: Some(key.to_owned()),
        ..taken
    };
    assert!(keep(db, &kept));
    moved(db, &kept, BuildState::Ready, 50).unwrap()
}

pub(crate) fn what_was_done_before_is_found_while_its_copy_is_there(db: &Db) {
    ready(db, 1, "key");
    let newer = ready(db, 2, "key");
    let done = |key: &'static str| db.read(move |tx| build::done(tx, &tenant("a"), key));
    assert_eq!((done("key"), done("other")), (Some(newer), None));
    db.write(|tx| {
        let row = snapshot::get(tx, None, &snapshot_id(2))?.unwrap();
        let change = SnapshotChange {
            state: SnapshotState::Deleting,
            kind: "snapshot.deleting",
            data: "{}".to_owned(),
            principal: principal(),
            at_ms: 3,
            bytes: None,
        };
        snapshot::move_to(tx, &row, &change)
    })
    .unwrap();
    assert_eq!(done("key").map(|row| row.id), Some(build_id(1)));
    assert_eq!(db.read(|tx| build::done(tx, &tenant("b"), "key")), None);
}

pub(crate) fn builds_that_nobody_needs_go_and_their_copies_after_them(db: &Db) {
    let (tagged, bare) = (ready(db, 1, "a"), ready(db, 2, "b"));
    let failed = BuildState::Failed {
        why: BuildFailure {
            message: String::new(),
            phase: Phase::Base,
        },
    };
    let open = building(db, 3);
    moved(db, &open, failed, 60).unwrap();
    put_build(db, &waiting(4, 1));
    building(db, 5);
    let tag = TagRow {
        tag: "v1".to_owned(),
        build: tagged.id.clone(),
        assigned_at_ms: 1,
    };
    db.write(move |tx| profile::tag_put(tx, &profile_id(1), &tag))
        .unwrap();
    let prune = |unused, failed| {
        db.write(move |tx| build::prune(tx, unused, failed, 10))
            .unwrap()
    };
    let without = || db.read(|tx| snapshot::without_build(tx, 10));
    assert_eq!((prune(4, 60), without().len()), (0, 0));
    assert_eq!(prune(51, 61), 3);
    let left: Vec<bool> = (1..=5).map(|number| get(db, number).is_some()).collect();
    assert_eq!(left, [true, false, false, false, true]);
    assert_eq!(without(), [bare.snapshot.unwrap()]);
}

pub(crate) fn a_profile_takes_all_that_is_its_own_with_it(db: &Db) {
    let row = new_profile(1, Some("env"));
    put_profile(db, &row).unwrap();
    let made = ready(db, 1, "a");
    let tag = TagRow {
        tag: "v1".to_owned(),
        build: made.id,
        assigned_at_ms: 1,
    };
    db.write(move |tx| profile::tag_put(tx, &profile_id(1), &tag))
        .unwrap();
    let delete = |row: &ProfileRow| {
        let row = row.clone();
        db.write(move |tx| {
            let happened = Happened {
                kind: "profile.deleted",
                data: "{}",
                principal: &principal(),
                at_ms: 70,
            };
            profile::delete(tx, &row, happened)
        })
    };
    delete(&row).unwrap();
    assert!(matches!(delete(&row), Err(StoreError::Stale { .. })));
    assert_eq!(get(db, 1), None);
    assert!(
        db.read(|tx| profile::tags(tx, &profile_id(1), 5))
            .is_empty()
    );
    assert_eq!(
        db.read(|tx| snapshot::without_build(tx, 5)),
        [snapshot_id(1)]
    );
    // The name can be taken again.
    put_profile(db, &new_profile(2, Some("env"))).unwrap();
    let events = |db: &Db| db.read(|tx| event::list(tx, "profile", profile_id(1).as_str(), 0, 9));
    assert_eq!(events(db).len(), 2);
}

pub(crate) fn files_for_builds_are_found_by_name_until_nobody_asks_any_more(db: &Db) {
    let put = |name: &'static str, digest: char, used_at_ms| {
        let row = FileRow {
            tenant: tenant("a"),
            name: name.to_owned(),
            digest: digest.to_string().repeat(64),
            size_bytes: 3,
            used_at_ms,
        };
        db.write(move |tx| build::put_file(tx, &row)).unwrap();
    };
    put("one", 'a', 10);
    put("two", 'b', 10);
    put("one", 'c', 20);
    let file = |who: &'static str, name: &'static str| {
        let row = db.read(move |tx| build::file(tx, &tenant(who), name));
        row.map(|row| row.digest.chars().next().unwrap())
    };
    assert_eq!((file("a", "one"), file("b", "one")), (Some('c'), None));
    let prune = |before| {
        db.write(move |tx| build::prune_files(tx, before, 10))
            .unwrap()
    };
    assert_eq!((prune(11), prune(11)), (1, 0));
    assert_eq!((file("a", "one"), file("a", "two")), (Some('c'), None));
}

fn said(timeout_ms: u64) -> ProfileSpec {
    ProfileSpec {
        timeout_ms: Some(timeout_ms),
        env: [("Ö".to_owned(), "\"1\"".to_owned())].into(),
        network: Some(model::network::NetworkRules::all_or_nothing(true)),
        ..ProfileSpec::default()
    }
}

fn write_version(db: &Db, row: &ProfileRow, spec: &ProfileSpec) -> Result<ProfileRow, StoreError> {
    let (row, spec) = (row.clone(), spec.clone());
    db.write(move |tx| {
        let happened = Happened {
            kind: "profile.changed",
            data: "{}",
            principal: &principal(),
            at_ms: 50,
        };
        version::put(tx, &row, &spec, happened)
    })
}

pub(crate) fn versions_of_a_profile_are_kept_up_to_a_bound_and_written_by_one_at_a_time(db: &Db) {
    let row = new_profile(1, Some("env"));
    put_profile(db, &row).unwrap();
    put_profile(db, &new_profile(2, Some("built"))).unwrap();
    let first = write_version(db, &row, &said(1)).unwrap();
    assert_eq!((first.latest, first.version), (1, 2));
    let late = write_version(db, &row, &said(9));
    assert!(matches!(late, Err(StoreError::Stale { .. })));
    let get = |number| db.read(move |tx| version::get(tx, &profile_id(1), number));
    let expect = VersionRow {
        number: 1,
        spec: said(1),
        principal: principal(),
        created_at_ms: 50,
    };
    assert_eq!((get(1), get(2)), (Some(expect), None));
    let most = model::limits::PROFILE_VERSIONS_MAX;
    let mut last = first;
    for number in 2..=most + 2 {
        last = write_version(db, &last, &said(number)).unwrap();
    }
    assert_eq!((get(2), get(3).map(|one| one.number)), (None, Some(3)));
    let page = |before| -> Vec<u64> {
        let rows = db.read(move |tx| version::list(tx, &profile_id(1), before, 2));
        rows.into_iter().map(|one| one.number).collect()
    };
    assert_eq!(page(None), [most + 2, most + 1]);
    assert_eq!((page(Some(5)), page(Some(3))), (vec![4, 3], vec![]));
    let built = db.read(|tx| profile::list(tx, &tenant("a"), None, (true, 9)));
    let built: Vec<_> = built.into_iter().map(|row| row.id).collect();
    assert_eq!(built, [profile_id(2)]);
    let events = db.read(|tx| event::list(tx, "profile", profile_id(1).as_str(), 0, 500));
    assert_eq!(events.len() as u64, most + 3);
    db.write(move |tx| {
        let happened = Happened {
            kind: "profile.deleted",
            data: "{}",
            principal: &principal(),
            at_ms: 60,
        };
        profile::delete(tx, &last, happened)
    })
    .unwrap();
    assert!(page(None).is_empty());
}
