//! Volumes, with these tests as their node.

mod policy;

use crate::sandboxes::{ask, said_ready};
use crate::*;
use model::access::Action;
use model::id::{SandboxId, VolumeId};
use model::network::{NetworkMode, NetworkRules};
use model::policy::{Layer, NetworkClause, Policy};
use model::principal::Role;
use model::sandbox::SandboxState;
use model::volume::{VOLUME_PROFILE, VolumeMount, VolumeState};
use service::{
    Error, Fork, Idempotency, MasterKey, MasterKeys, NewVolume, SandboxAsk, SandboxRow,
    SandboxSaid, VolumeRow, Who,
};

pub(crate) fn keys(digit: &str, before: &[&str]) -> MasterKeys {
    let key = |digit: &&str| MasterKey::parse(digit.repeat(64).as_bytes()).unwrap();
    MasterKeys {
        current: key(&digit),
        before: before.iter().map(key).collect(),
    }
}

pub(crate) fn new(name: &str) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        size_bytes: None,
        node: None,
    }
}

pub(crate) fn with(mounts: &[(&str, &str)]) -> SandboxAsk {
    let mut ask = ask();
    ask.spec.allow_root = true;
    let mount = |(name, path): &(&str, &str)| VolumeMount {
        name: (*name).to_owned(),
        id: None,
        path: (*path).to_owned(),
        read_only: false,
        size_bytes: 0,
        is_new: false,
    };
    ask.spec.volumes = mounts.iter().map(mount).collect();
    ask
}

impl World {
    /// A world whose node keeps volumes.
    pub(crate) async fn with_volumes() -> World {
        let world = World::new();
        world.service.secret_keys_from(|| Ok(keys("a", &[])));
        world.join(1, "a").await;
        world
    }

    async fn join(&self, number: u8, incarnation: &str) {
        let mut hello = hello(incarnation);
        hello.facts.insert("volumes".to_owned(), "yes".to_owned());
        let joined = self.service.node_register(&node(number), hello).await;
        joined.unwrap();
    }

    pub(crate) async fn volume(&self, name: &str) -> VolumeRow {
        let made = self.service.volume_create(&user(), new(name), None).await;
        made.unwrap()
    }

    async fn delete_volume(&self, name: &str) -> Result<VolumeRow, Error> {
        self.service.volume_delete(&user(), name).await
    }

    async fn volume_state(&self, id: &VolumeId) -> VolumeState {
        let row = self.service.volume_get(&user(), id.as_str()).await;
        row.unwrap().state
    }

    /// What the node is to remove, by its next heartbeat.
    async fn volumes_to_remove(&self, has: &[&VolumeId]) -> Vec<VolumeId> {
        let has = has.iter().copied().cloned().collect();
        self.service.volume_beat(&node(1), has).await.unwrap()
    }

    /// A sandbox that serves a volume, which users do not see.
    async fn server(&self, id: &SandboxId) -> SandboxRow {
        let seen = self.service.sandbox_get(&user(), id).await;
        assert_eq!(seen.unwrap_err().code(), "not_found");
        let ctx = Ctx {
            sees_servers: true,
            ..user()
        };
        self.service.sandbox_get(&ctx, id).await.unwrap()
    }

    async fn refused(&self, ask: SandboxAsk) -> String {
        let made = self.service.sandbox_create(&user(), ask, None).await;
        made.unwrap_err().code().to_owned()
    }
}

#[tokio::test]
async fn a_volume_is_on_a_node_that_can_keep_one_and_its_sandboxes_are_there() {
    let world = World::new();
    let none = world.service.volume_create(&user(), new("one"), None).await;
    assert_eq!(none.unwrap_err().code(), "no_capacity");
    world.register(&node(2), "a").await;
    let none = world.service.volume_create(&user(), new("one"), None).await;
    assert_eq!(none.unwrap_err().code(), "volume_unsupported");
    world.join(1, "a").await;
    let row = world.volume("one").await;
    assert_eq!((&row.node, row.state), (&node_id(1), VolumeState::Created));
    world.join(3, "a").await;
    assert_eq!(
        world.volume("two").await.node,
        node_id(3),
        "which has fewer"
    );
    let sandbox = world.make(with(&[("one", "/data")])).await;
    assert_eq!(sandbox.spec.node, Some(node_id(1)));
    let mount = &sandbox.spec.volumes[0];
    assert_eq!((&mount.id, mount.is_new), (&Some(row.id), true));
    assert_eq!(mount.size_bytes, limits::VOLUME_DEFAULT_BYTES);
    let both = world.refused(with(&[("one", "/a"), ("two", "/b")])).await;
    assert_eq!(both, "invalid_argument");
    assert_eq!(world.refused(with(&[("no", "/a")])).await, "volume_missing");
    assert_eq!(
        world.refused(with(&[("one", "/proc")])).await,
        "volume_path"
    );
    let mut no_root = with(&[("one", "/a")]);
    no_root.spec.allow_root = false;
    assert_eq!(world.refused(no_root).await, "invalid_argument");
    let mut hidden = ask();
    hidden.spec.profile = VOLUME_PROFILE.to_owned();
    assert_eq!(world.refused(hidden).await, "unknown_profile");
}

#[tokio::test]
async fn bad_names_and_sizes_are_refused_and_the_same_request_makes_one() {
    let world = World::with_volumes().await;
    let code = async |new: NewVolume| {
        let made = world.service.volume_create(&user(), new, None).await;
        made.err().map(|error| error.code().to_owned())
    };
    for name in ["", "a b", "../a", "a.b", &"x".repeat(129)] {
        assert_eq!(code(new(name)).await.as_deref(), Some("invalid_argument"));
    }
    for size in [
        0,
        limits::VOLUME_MIN_BYTES - 1,
        limits::VOLUME_MAX_BYTES + 1,
        u64::MAX,
    ] {
        let size_bytes = Some(size);
        let odd = NewVolume {
            size_bytes,
            ..new("a")
        };
        assert_eq!(
            code(odd).await.as_deref(),
            Some("invalid_argument"),
            "{size}"
        );
    }
    let node = Some(node_id(9));
    let elsewhere = NewVolume { node, ..new("a") };
    assert_eq!(code(elsewhere).await.as_deref(), Some("volume_unsupported"));
    let key = || {
        Some(Idempotency {
            key: "k1234567".to_owned(),
            request_hash: "h".to_owned(),
        })
    };
    let service = &world.service;
    let first = service
        .volume_create(&user(), new("a"), key())
        .await
        .unwrap();
    let again = service
        .volume_create(&user(), new("a"), key())
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(code(new("a")).await.as_deref(), Some("conflict"));
    let full = world.with_free(|| Some(0));
    let made = full.volume_create(&user(), new("b"), None).await;
    assert_eq!(made.unwrap_err().code(), "disk_full");
    let theirs = service.volume_get(&stranger(), "a").await;
    assert_eq!(theirs.unwrap_err().code(), "not_found");
    let theirs = service.volume_delete(&stranger(), first.id.as_str()).await;
    assert_eq!(theirs.unwrap_err().code(), "not_found");
    let of_node = service.volume_create(&crate::node(1), new("c"), None).await;
    assert_eq!(of_node.unwrap_err().code(), "forbidden");
}

#[tokio::test]
async fn a_volume_is_deleted_when_no_sandbox_has_it_and_gone_when_its_node_has_nothing_of_it() {
    let world = World::with_volumes().await;
    let row = world.volume("one").await;
    let sandbox = world.make(with(&[("one", "/data")])).await;
    let used = world.delete_volume("one").await.unwrap_err();
    assert_eq!(used.code(), "volume_in_use");
    assert!(used.to_string().contains(sandbox.id.as_str()), "{used}");
    world.works(&node(1), NOW).await;
    world.says(&sandbox, said_ready()).await;
    let made = world.service.volume_get(&user(), "one").await.unwrap();
    assert!(made.made_at_ms.is_some());
    assert!(!world.make(with(&[("one", "/x")])).await.spec.volumes[0].is_new);
    for each in world
        .service
        .sandbox_list(&user(), Default::default(), None, 9)
        .await
        .unwrap()
        .sandboxes
    {
        world
            .service
            .sandbox_destroy(&user(), &each.id)
            .await
            .unwrap();
    }
    assert_eq!(
        world.delete_volume("one").await.unwrap().state,
        VolumeState::Deleting
    );
    // The sandbox may still be there, and have it.
    assert!(world.volumes_to_remove(&[&row.id]).await.is_empty());
    world.says(&sandbox, SandboxSaid::Destroyed).await;
    assert_eq!(
        world.refused(with(&[("one", "/a")])).await,
        "volume_missing"
    );
    let only = std::slice::from_ref(&row.id);
    assert_eq!(world.volumes_to_remove(&[&row.id]).await, only);
    assert_eq!(world.volume_state(&row.id).await, VolumeState::Deleting);
    assert!(world.volumes_to_remove(&[]).await.is_empty());
    assert_eq!(world.volume_state(&row.id).await, VolumeState::Deleted);
    let again = world.delete_volume(row.id.as_str()).await.unwrap();
    assert_eq!(again.state, VolumeState::Deleted);
    // What nobody knows is removed, and what is not made yet is not lost.
    let other = world.volume("one").await;
    assert_eq!(world.volumes_to_remove(&[&row.id]).await, [row.id]);
    assert!(world.volumes_to_remove(&[&other.id]).await.is_empty());
    assert!(world.volumes_to_remove(&[]).await.is_empty());
    assert_eq!(world.volume_state(&other.id).await, VolumeState::Created);
}

#[tokio::test]
async fn forks_have_the_same_volumes_and_a_sandbox_made_anew_has_too() {
    let world = World::with_volumes().await;
    let row = world.volume("one").await;
    let sandbox = world.make(with(&[("one", "/data")])).await;
    world.works(&node(1), NOW).await;
    let sandbox = world.says(&sandbox, said_ready()).await;
    let service = world.service.clone();
    let id = sandbox.id.clone();
    let forking = tokio::spawn(async move {
        let fork = Fork {
            count: 1,
            ttl_ms: None,
        };
        service.sandbox_fork(&user(), &id, fork, None, LONG).await
    });
    let mut saved = false;
    while !saved {
        tokio::task::yield_now().await;
        let now = world.sandbox(&sandbox.id).await;
        saved = matches!(now.state, SandboxState::Snapshotting { .. });
    }
    world.says(&sandbox, SandboxSaid::Saved { bytes: 1 }).await;
    let forks = forking.await.unwrap().unwrap();
    let fork = forks[0].as_ref().unwrap();
    assert_eq!(fork.spec.volumes[0].id, Some(row.id.clone()));
    let anew = world
        .service
        .sandbox_recreate(&user(), &sandbox.id, None)
        .await;
    assert_eq!(anew.unwrap().spec.volumes[0].id, Some(row.id));
}

#[tokio::test]
async fn the_content_of_a_volume_is_opened_by_its_token_and_served_by_one_hidden_sandbox() {
    let world = World::with_volumes().await;
    let (row, other) = (world.volume("one").await, world.volume("two").await);
    let service = &world.service;
    let token = async |row: &VolumeRow| service.volume_token(&user(), row).await.unwrap();
    let (token, of_other) = (token(&row).await.unwrap(), token(&other).await.unwrap());
    assert_ne!(token, of_other);
    let (tenant, who) = (user().tenant, user().principal);
    let looker = Who::only(tenant, who, Role::Admin, Action::VolumeRead);
    let looker = Ctx::of(looker, "req_3");
    assert!(service.volume_get(&looker, "one").await.is_ok());
    assert_eq!(service.volume_token(&looker, &row).await.unwrap(), None);
    for wrong in ["", "x", &token[1..], &token.to_uppercase()] {
        let opened = service.volume_opened(&row.id, wrong, "req").await;
        assert_eq!(opened.unwrap_err().code(), "forbidden", "{wrong}");
    }
    let opened = service.volume_opened(&other.id, &token, "req").await;
    assert_eq!(opened.unwrap_err().code(), "forbidden");
    let (ctx, opened) = service.volume_opened(&row.id, &token, "req").await.unwrap();
    assert_eq!((opened.id, &ctx.tenant), (row.id.clone(), &row.tenant));
    // The first requests come together.
    let serve = || {
        let (service, ctx, id) = (service.clone(), ctx.clone(), row.id.clone());
        tokio::spawn(async move { service.volume_server(&ctx, &id, LONG).await.unwrap() })
    };
    let (first, second) = (serve(), serve());
    let works = world.works(&node(1), LONG).await;
    assert_eq!(works.len(), 1);
    let server = works[0].row.clone();
    assert_eq!(server.spec.profile, VOLUME_PROFILE);
    assert!(!server.spec.network.has_way_out());
    let epoch = world.server(&server.id).await.epoch;
    world.says_by(&server, epoch, said_ready()).await;
    assert_eq!(first.await.unwrap().id, server.id);
    assert_eq!(second.await.unwrap().id, server.id);
    let listed = service
        .sandbox_list(&user(), Default::default(), None, 9)
        .await;
    assert!(listed.unwrap().sandboxes.is_empty());
    // It lives on while it is used.
    let end = world.server(&server.id).await.expires_at_ms.unwrap();
    world.clock.advance(limits::VOLUME_SERVED_MS / 4);
    assert_eq!(serve().await.unwrap().expires_at_ms, Some(end));
    world.clock.advance(limits::VOLUME_SERVED_MS / 2);
    assert!(serve().await.unwrap().expires_at_ms > Some(end));
    // Its own sandbox does not keep a volume, and goes with it.
    world.delete_volume("one").await.unwrap();
    assert_eq!(
        world.server(&server.id).await.state,
        SandboxState::Destroying
    );
    let gone = service.volume_opened(&row.id, &token, "req").await;
    assert_eq!(gone.unwrap_err().code(), "not_found");
    let gone = service.volume_server(&ctx, &row.id, LONG).await;
    assert_eq!(gone.unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn a_token_outlives_a_new_master_key_as_long_as_the_old_one_is_named() {
    let world = World::with_volumes().await;
    let row = world.volume("one").await;
    let token = world.service.volume_token(&user(), &row).await;
    let token = token.unwrap().unwrap();
    let code = async |digit: &'static str, before: &'static [&'static str]| {
        let service = world.again();
        service.secret_keys_from(move || Ok(keys(digit, before)));
        let opened = service.volume_opened(&row.id, &token, "req").await;
        opened.err().map(|error| error.code().to_owned())
    };
    assert_eq!(code("a", &[]).await, None);
    assert_eq!(code("b", &["a"]).await, None);
    assert_eq!(code("b", &[]).await.as_deref(), Some("forbidden"));
}

#[tokio::test]
async fn a_volume_whose_node_is_forgotten_is_gone_when_somebody_deletes_it() {
    let world = World::with_volumes().await;
    let row = world.volume("one").await;
    world.delete_volume("one").await.unwrap();
    world.service.node_gone(&node(1)).await.unwrap();
    service::loops::prune_pass(&world.service).await.unwrap();
    assert_eq!(world.volume_state(&row.id).await, VolumeState::Deleted);
    world.clock.advance(limits::RETAIN_JOBS_MS + 1);
    service::loops::prune_pass(&world.service).await.unwrap();
    let gone = world.service.volume_get(&user(), row.id.as_str()).await;
    assert_eq!(gone.unwrap_err().code(), "not_found");
}

fn closed() -> Policy {
    Policy {
        network: Some(NetworkClause {
            mode: Some(NetworkMode::None),
            ..NetworkClause::default()
        }),
        ..Policy::new(Layer::Tenant)
    }
}

/// Attack: what serves a volume is for no policy, so whoever copies it, or runs something in it, is bound by none.
#[tokio::test]
async fn nobody_gets_at_the_sandbox_that_serves_a_volume() {
    let world = World::with_volumes().await;
    let volume = world.volume("one").await;
    let service = &world.service;
    service.policy_put(&user(), "net", closed()).await.unwrap();
    let token = service.volume_token(&user(), &volume).await.unwrap();
    let token = token.unwrap();
    let opened = service.volume_opened(&volume.id, &token, "req").await;
    let (ctx, _) = opened.unwrap();
    let served = service.volume_server(&ctx, &volume.id, NOW).await.unwrap();
    world.works(&node(1), NOW).await;
    let epoch = world.server(&served.id).await.epoch;
    world.says_by(&served, epoch, said_ready()).await;
    let id = &served.id;
    let fork = Fork {
        count: 1,
        ttl_ms: None,
    };
    let open = NetworkRules::all_or_nothing(true);
    let gets_at = [
        service.sandbox_get(&user(), id).await.map(drop),
        service.sandbox_get_recent(&user(), id).await.map(drop),
        service.sandbox_visitor(id, "req").await.map(drop),
        service
            .sandbox_connect(&user(), id, (None, true), NOW)
            .await
            .map(drop),
        service
            .snapshot_create(&user(), id, None, None)
            .await
            .map(drop),
        service
            .sandbox_fork(&user(), id, fork, None, NOW)
            .await
            .map(drop),
        service.sandbox_recreate(&user(), id, None).await.map(drop),
        service
            .sandbox_set_network(&user(), id, open, NOW)
            .await
            .map(drop),
        service.sandbox_destroy(&user(), id).await.map(drop),
        service
            .exec_list(&user(), id, (None, None), 1)
            .await
            .map(drop),
    ];
    for (number, got) in gets_at.into_iter().enumerate() {
        assert_eq!(
            got.map_err(|error| error.code()),
            Err("not_found"),
            "{number}"
        );
    }
    // Whoever serves it goes on.
    assert_eq!(
        service
            .volume_server(&ctx, &volume.id, NOW)
            .await
            .unwrap()
            .id,
        *id
    );
}

/// Attack: a snapshot of such a sandbox, taken before that was closed.
#[tokio::test]
async fn a_sandbox_that_begins_like_one_that_serves_a_volume_is_refused() {
    let world = World::new();
    let row = world.ready(ask()).await;
    let who = user();
    let copy = world.service.snapshot_create(&who, &row.id, None, None);
    let copy = copy.await.unwrap();
    world.says(&row, SandboxSaid::Saved { bytes: 1 }).await;
    world
        .service
        .policy_put(&user(), "net", closed())
        .await
        .unwrap();
    let sql = "UPDATE snapshot SET spec = REPLACE(spec, '\"profile\":\"default\"', \
               '\"profile\":\"volume\",\"serves_volume\":true')";
    let changed = world.store().write(move |tx| tx.execute(sql, &[])).await;
    assert_eq!(changed.unwrap(), 1);
    let mut asked = ask();
    asked.from = Some(service::SnapshotRef::Id(copy.id));
    asked.spec.network = NetworkRules::all_or_nothing(true);
    assert_eq!(world.refused(asked).await, "unknown_profile");
    let mut said = ask();
    said.spec.serves_volume = true;
    assert_eq!(world.refused(said).await, "unknown_profile");
}
