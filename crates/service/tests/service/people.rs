//! Tenants, principals and keys.

use super::*;
use model::access::{Action, Scopes};
use model::job::Outcome;
use model::principal::{PrincipalKind, Role};
use service::{Caller, Error, NewKey, used_pass};

async fn key(service: &Service, ctx: &Ctx, name: &str, scopes: &[&str]) -> (String, String) {
    let row = service
        .principal_create(ctx, PrincipalKind::User, name, Role::Member)
        .await
        .unwrap();
    let new = NewKey {
        owner: row.id.to_string(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..NewKey::default()
    };
    let (row, text) = service.key_create(ctx, new).await.unwrap();
    (row.id.to_string(), text)
}

#[tokio::test]
async fn who_is_behind_a_key_is_its_principal_as_it_is_now() {
    let world = World::new();
    let (id, text) = key(&world.service, &user(), "alice", &["job:read"]).await;
    let who = world.service.key_who(&text).await.unwrap().unwrap();
    assert_eq!(who.principal.as_str(), "user:alice");
    assert_eq!(
        (&who.tenant, who.grant.role),
        (&TenantId::local(), Role::Member)
    );
    assert_eq!(who.grant.scopes, Scopes::of([Action::JobRead]));
    let ctx = Ctx::of(who, "req_3");
    assert!(matches!(ctx.caller, Caller::User(_)));
    assert!(world.service.job_list(&ctx, None, None, 10).await.is_ok());
    let created = world.service.job_create(&ctx, spec(), None).await;
    assert!(matches!(created, Err(Error::Forbidden(_))), "{created:?}");
    // Another server on the same state has taken it back: here it is believed for a second.
    let id = id.parse().unwrap();
    world.again().key_revoke(&user(), &id).await.unwrap();
    assert!(world.service.key_who(&text).await.unwrap().is_some());
    world.clock.advance(1000);
    assert_eq!(world.service.key_who(&text).await.unwrap(), None);
}

#[tokio::test]
async fn the_use_of_a_key_is_written_behind_the_request_and_once_a_minute() {
    let world = World::new();
    let (_, text) = key(&world.service, &user(), "alice", &[]).await;
    let used = async || {
        used_pass(&world.service).await.unwrap();
        let page = world.service.key_list(&user(), None, 10).await.unwrap();
        page.keys[0].used_at_ms
    };
    assert_eq!(used().await, None);
    let first = world.clock.now_ms();
    world.service.key_who(&text).await.unwrap();
    assert_eq!(used().await, Some(first));
    for _ in 0..59 {
        world.clock.advance(1000);
        world.service.key_who(&text).await.unwrap();
    }
    assert_eq!(used().await, Some(first));
    world.clock.advance(1000);
    world.service.key_who(&text).await.unwrap();
    assert_eq!(used().await, Some(first + 60_000));
}

#[tokio::test]
async fn what_is_about_people_is_in_the_record_of_their_tenant() {
    let world = World::new();
    let admin = world.acme().await;
    let (id, _) = key(&world.service, &admin, "bob", &[]).await;
    let revoked = world.service.key_revoke(&admin, &id.parse().unwrap()).await;
    revoked.unwrap();
    let removed = world.service.principal_remove(&admin, "user:bob").await;
    removed.unwrap();
    let kinds = async |ctx: &Ctx| {
        let query = service::AuditQuery::default();
        let page = world.service.audit_list(ctx, query, 100).await.unwrap();
        let kinds = page.events.into_iter().map(|one| one.event.kind);
        kinds.collect::<Vec<String>>()
    };
    assert_eq!(
        kinds(&admin).await,
        [
            "principal.created",
            "key.created",
            "principal.created",
            "key.created",
            "key.revoked",
            "principal.removed",
            "audit.read",
        ]
    );
    assert_eq!(kinds(&user()).await, ["tenant.created", "audit.read"]);
}

/// Attack: A job of another tenant on the same node, and its events, are read.
#[tokio::test]
async fn what_another_tenant_runs_is_run_by_the_same_nodes_and_seen_by_it_alone() {
    let world = World::new();
    let one = node(1);
    world.register(&one, "a").await;
    let row = world.service.job_create(&stranger(), spec(), None).await;
    let id = row.unwrap().id;
    let leased = world.poll(&one, NOW).await.leases.remove(0);
    assert_eq!(leased.id, id);
    let report = world.service.job_started(&one, &id, started(&leased));
    report.await.unwrap();
    let report = world
        .service
        .job_finished(&one, &id, finished(&leased, Outcome::Succeeded));
    report.await.unwrap();
    let row = world.service.job_get(&stranger(), &id).await.unwrap();
    assert_eq!(row.state, ended(Outcome::Succeeded));
    let other = world.service.job_get(&user(), &id).await;
    assert!(matches!(other, Err(Error::NotFound)));
    let events = world.service.job_events(&user(), &id, 0, 10).await;
    assert!(matches!(events, Err(Error::NotFound)));
}

/// Attack: Another tenant drains nodes, makes tenants and sets providers.
#[tokio::test]
async fn only_the_first_tenant_touches_nodes_servers_tenants_and_providers() {
    let world = World::new();
    let of_others = stranger();
    let service = &world.service;
    assert!(matches!(
        service.node_list(&of_others).await,
        Err(Error::Forbidden(_))
    ));
    assert!(matches!(
        service.server_list(&of_others).await,
        Err(Error::Forbidden(_))
    ));
    let tenants = service.tenant_list(&of_others, None, 10).await;
    assert!(matches!(tenants, Err(Error::Forbidden(_))));
    let made = service.tenant_create(&of_others, "x", "y").await;
    assert!(matches!(made, Err(Error::Forbidden(_))));
    let source = model::secret::SecretSource {
        provider: "vault".to_owned(),
        reference: "everything".to_owned(),
    };
    let new = service::NewSecret {
        name: "a".to_owned(),
        value: service::NewValue::From(source),
        metadata: BTreeMap::new(),
    };
    let set = service.secret_create(&of_others, new, None).await;
    assert!(matches!(set, Err(Error::Forbidden(_))), "{set:?}");
    // A directory of a node as a root shows what is on the machine.
    let host = JobSpec {
        root: Some("/".to_owned()),
        ..spec()
    };
    let job = service.job_create(&of_others, host, None).await;
    assert!(matches!(job, Err(Error::Forbidden(_))), "{job:?}");
}

#[tokio::test]
async fn a_key_that_ends_makes_none_that_ends_later() {
    let world = World::new();
    let service = &world.service;
    let admin = service
        .principal_create(&user(), PrincipalKind::User, "root", Role::Admin)
        .await;
    let owner = admin.unwrap().id.to_string();
    let ask = |life_ms| NewKey {
        owner: owner.clone(),
        life_ms,
        ..NewKey::default()
    };
    let (own, text) = service
        .key_create(&user(), ask(Some(3_600_000)))
        .await
        .unwrap();
    let ctx = world.by_key(&text).await;
    let (row, _) = service.key_create(&ctx, ask(None)).await.unwrap();
    assert_eq!(
        row.expires_at_ms, own.expires_at_ms,
        "nobody asked for an end"
    );
    let (row, _) = service.key_create(&ctx, ask(Some(1000))).await.unwrap();
    assert!(row.expires_at_ms < own.expires_at_ms);
    let longer = service.key_create(&ctx, ask(Some(3_600_001))).await;
    assert!(matches!(longer, Err(Error::Forbidden(_))), "{longer:?}");
    let made = service.tenant_create(&ctx, "acme", "root").await.unwrap();
    assert_eq!(made.key.0.expires_at_ms, own.expires_at_ms);
    // They are listed for a while after their end, and then go.
    world
        .clock
        .advance(3_600_000 + model::limits::KEY_ENDED_KEPT_MS + 1);
    service::loops::prune_pass(service).await.unwrap();
    let left = service.key_list(&user(), None, 10).await.unwrap().keys;
    assert_eq!(left, []);
}

#[tokio::test]
async fn the_last_admin_of_a_tenant_stays_and_a_name_is_taken_once() {
    let world = World::new();
    let service = &world.service;
    let admin = world.acme().await;
    let code = |error: Error| error.code();
    let last = service.principal_remove(&admin, "user:root").await;
    assert_eq!(last.map_err(code).err(), Some("conflict"));
    for (kind, name, code_of_last) in [
        (PrincipalKind::Agent, "bot", Some("conflict")),
        (PrincipalKind::User, "bob", None),
    ] {
        let other = service
            .principal_create(&admin, kind, name, Role::Admin)
            .await;
        other.unwrap();
        let again = service
            .principal_create(&admin, kind, name, Role::Member)
            .await;
        assert_eq!(again.map_err(code).err(), Some("conflict"));
        let last = service.principal_remove(&admin, "user:root").await;
        assert_eq!(last.map_err(code).err(), code_of_last, "{name}");
    }
    // Who runs the server is an admin of the first tenant without being one of its principals.
    key(service, &user(), "alice", &[]).await;
    assert!(
        service
            .principal_remove(&user(), "user:alice")
            .await
            .is_ok()
    );
    // Of a tenant that is gone, nobody makes anything, whatever they are still believed to be.
    service.tenant_remove(&user(), "acme").await.unwrap();
    let new = NewKey {
        owner: "user:bob".to_owned(),
        ..NewKey::default()
    };
    assert_eq!(
        service.key_create(&admin, new).await.map_err(code).err(),
        Some("not_found")
    );
    let back = service
        .principal_create(&admin, PrincipalKind::User, "eve", Role::Admin)
        .await;
    assert_eq!(back.map_err(code).err(), Some("not_found"));
}

#[tokio::test]
async fn another_role_counts_for_keys_in_use_here_at_once_and_elsewhere_within_a_second() {
    let world = World::new();
    let service = &world.service;
    let (_, text) = key(service, &user(), "alice", &["job:read", "node:read"]).await;
    let role = async |service: &Service| {
        let who = service.key_who(&text).await.unwrap().unwrap();
        assert_eq!(who.grant.scopes.texts(), ["job:read", "node:read"]);
        who.grant.role
    };
    let other = world.again();
    let ctx = world.by_key(&text).await;
    assert!(matches!(
        service.node_list(&ctx).await,
        Err(Error::Forbidden(_))
    ));
    assert_eq!(role(&other).await, Role::Member);
    let set = service
        .principal_set(&user(), "user:alice", Role::Admin)
        .await;
    assert_eq!(set.unwrap().role, Role::Admin);
    assert_eq!(role(service).await, Role::Admin, "the clock stands");
    assert_eq!(role(&other).await, Role::Member, "the clock stands");
    world.clock.advance(1000);
    assert_eq!(role(&other).await, Role::Admin);
    // What the key is narrowed to still narrows it.
    let ctx = world.by_key(&text).await;
    assert!(service.node_list(&ctx).await.is_ok());
    let keys = service.key_list(&ctx, None, 10).await;
    assert!(matches!(keys, Err(Error::Forbidden(_))), "{keys:?}");
    let set = service.principal_set(&ctx, "user:alice", Role::Admin).await;
    assert!(matches!(set, Err(Error::Forbidden(_))), "{set:?}");
}

#[tokio::test]
async fn a_change_of_a_role_is_one_event_and_the_same_role_again_is_none() {
    let world = World::new();
    let service = &world.service;
    key(service, &user(), "alice", &[]).await;
    for role in [Role::Operator, Role::Operator, Role::Member] {
        let set = service.principal_set(&user(), "user:alice", role).await;
        assert_eq!(set.unwrap().role, role);
    }
    let query = service::AuditQuery {
        kind: Some("principal.role_changed".to_owned()),
        ..service::AuditQuery::default()
    };
    let page = service.audit_list(&user(), query, 100).await.unwrap();
    let data = page.events.iter().map(|one| one.event.data.as_str());
    let data: Vec<serde_json::Value> = data.map(|one| serde_json::from_str(one).unwrap()).collect();
    assert_eq!(
        data,
        [
            serde_json::json!({"kind": "user", "from": "member", "to": "operator"}),
            serde_json::json!({"kind": "user", "from": "operator", "to": "member"}),
        ]
    );
    assert!(
        page.events
            .iter()
            .all(|one| one.event.resource_id == "ten_local/user:alice")
    );
    let gone = service
        .principal_set(&user(), "user:bob", Role::Admin)
        .await;
    assert_eq!(gone.map_err(|error| error.code()).err(), Some("not_found"));
}

#[tokio::test]
async fn the_last_admin_is_not_made_less_and_nobody_of_another_tenant_is_changed() {
    let world = World::new();
    let service = &world.service;
    let admin = world.acme().await;
    let set = async |ctx: &Ctx, id: &str, role: Role| {
        let set = service.principal_set(ctx, id, role).await;
        set.map_err(|error| error.code()).map(|row| row.role)
    };
    assert_eq!(
        set(&admin, "user:root", Role::Operator).await,
        Err("conflict")
    );
    // An agent lets nobody in, whatever its role.
    let bot = service.principal_create(&admin, PrincipalKind::Agent, "bot", Role::Admin);
    bot.await.unwrap();
    assert_eq!(
        set(&admin, "user:root", Role::Member).await,
        Err("conflict")
    );
    key(service, &admin, "bob", &[]).await;
    assert_eq!(set(&admin, "user:bob", Role::Admin).await, Ok(Role::Admin));
    assert_eq!(
        set(&admin, "user:root", Role::Member).await,
        Ok(Role::Member)
    );
    assert_eq!(
        set(&admin, "user:bob", Role::Operator).await,
        Err("conflict")
    );
    // Neither the first tenant nor another one sees who is not its own.
    key(service, &user(), "alice", &[]).await;
    for (ctx, id) in [
        (&admin, "user:alice"),
        (&user(), "user:bob"),
        (&stranger(), "user:bob"),
    ] {
        assert_eq!(set(ctx, id, Role::Member).await, Err("not_found"), "{id}");
    }
    // The first tenant has whoever runs the server.
    assert_eq!(
        set(&user(), "user:alice", Role::Admin).await,
        Ok(Role::Admin)
    );
    assert_eq!(
        set(&user(), "user:alice", Role::Member).await,
        Ok(Role::Member)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_admins_who_make_each_other_less_at_two_servers_at_once_one_stays() {
    let Some((postgres, _dir, [a, b])) = two_servers() else {
        return;
    };
    for round in 0..20 {
        let tenant = format!("t{round}");
        let made = a.tenant_create(&user(), &tenant, "ann").await.unwrap();
        let ann = Ctx::of(a.key_who(&made.key.1).await.unwrap().unwrap(), "req_3");
        let bob = a.principal_create(&ann, PrincipalKind::User, "bob", Role::Admin);
        let bob = Ctx {
            principal: bob.await.unwrap().id,
            ..ann.clone()
        };
        let (one, other) = match round % 2 {
            0 => tokio::join!(
                a.principal_set(&ann, "user:bob", Role::Member),
                b.principal_set(&bob, "user:ann", Role::Member),
            ),
            _ => tokio::join!(
                a.principal_remove(&ann, "user:bob"),
                b.principal_remove(&bob, "user:ann"),
            ),
        };
        let refused = match (one, other) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
            both => panic!("round {round}: {both:?}"),
        };
        assert_eq!(refused.code(), "conflict", "round {round}: {refused}");
    }
    no_deadlock(&postgres);
}

#[tokio::test]
async fn whoever_is_narrowed_makes_roles_smaller_and_never_larger() {
    let world = World::new();
    let service = &world.service;
    let admin = service
        .principal_create(&user(), PrincipalKind::User, "root", Role::Admin)
        .await;
    admin.unwrap();
    let new = NewKey {
        owner: "user:root".to_owned(),
        scopes: vec!["principal:write".to_owned()],
        ..NewKey::default()
    };
    let (_, text) = service.key_create(&user(), new).await.unwrap();
    let narrow = world.by_key(&text).await;
    // Of this one they may have a key that is narrowed to nothing.
    key(service, &user(), "alice", &[]).await;
    let raised = service
        .principal_set(&narrow, "user:alice", Role::Operator)
        .await;
    assert!(matches!(raised, Err(Error::Forbidden(_))), "{raised:?}");
    let set = service
        .principal_set(&user(), "user:alice", Role::Operator)
        .await;
    set.unwrap();
    let lessened = service.principal_set(&narrow, "user:alice", Role::Member);
    assert_eq!(lessened.await.unwrap().role, Role::Member);
}

/// The first statement of a function whose head ends here.
fn first_line(body: &str) -> &str {
    let mut lines = body.lines().map(str::trim);
    lines
        .find(|line| !line.is_empty() && !line.starts_with("//"))
        .unwrap_or_default()
}

fn sources(dir: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_first_line_of_every_method_says_who_may() {
    let mut texts = Vec::new();
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&src, &mut texts);
    let (mut seen, mut bare) = (0, Vec::new());
    for text in &texts {
        for one in text.split("pub async fn ").skip(1) {
            let Some((head, body)) = one.split_once("{\n") else {
                continue;
            };
            if !head.contains("ctx: &Ctx") {
                continue;
            }
            seen += 1;
            let line = first_line(body);
            // Or it is another method with other words, which says it.
            let says = [
                "ctx.may(",
                "ctx.only_node(",
                "_of(ctx",
                "_by(ctx",
                "root_list(ctx",
            ];
            if !says.iter().any(|what| line.contains(what)) {
                let name = head.split(['(', '<']).next().unwrap_or_default();
                bare.push(format!("{name}: {line}"));
            }
        }
    }
    assert!(seen > 80, "only {seen} methods were found");
    assert!(bare.is_empty(), "{bare:#?}");
}
