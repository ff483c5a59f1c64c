//! Secrets: made, used, rotated, deleted, and the master key.

use super::*;
use model::secret::{SecretHow, SecretSource, SecretUse};
use service::{
    Error, Idempotency, KeyError, MasterKey, MasterKeys, NewSecret, NewValue, SandboxFilter,
    SecretValue, SourceError,
};

const CANARY: &str = "canary-5f2b-value";

fn keys(current: &str, before: &[&str]) -> Result<MasterKeys, KeyError> {
    let key = |digit: &str| MasterKey::parse(digit.repeat(64).as_bytes());
    Ok(MasterKeys {
        current: key(current)?,
        before: before
            .iter()
            .map(|digit| key(digit))
            .collect::<Result<_, _>>()?,
    })
}

pub(crate) fn world() -> World {
    let world = World::new();
    world.service.secret_keys_from(|| keys("a", &[]));
    world
}

pub(crate) fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec())
}

pub(crate) fn new(name: &str) -> NewSecret {
    NewSecret {
        name: name.to_owned(),
        value: value(CANARY).into(),
        metadata: BTreeMap::new(),
    }
}

fn using(name: &str, how: SecretHow) -> JobSpec {
    let one = SecretUse {
        name: name.to_owned(),
        id: None,
        version: 0,
        how,
    };
    JobSpec {
        secrets: vec![one],
        ..spec()
    }
}

async fn events(world: &World, name: &str) -> Vec<(String, String)> {
    let events = world
        .service
        .secret_events(&user(), name, 0, 100)
        .await
        .unwrap();
    events
        .into_iter()
        .map(|event| (event.kind, event.data))
        .collect()
}

/// All bytes of the state directory: the database, its log, everything.
fn contains(dir: &std::path::Path, needle: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return contains(&path, needle);
        }
        let bytes = std::fs::read(&path).unwrap();
        bytes
            .windows(needle.len())
            .any(|part| part == needle.as_bytes())
    })
}

#[tokio::test]
async fn a_job_gets_the_version_that_it_was_made_with_and_its_use_is_recorded() {
    let world = world();
    let made = world
        .service
        .secret_create(&user(), new("token"), None)
        .await
        .unwrap();
    assert_eq!((made.version, made.revision), (1, 1));
    let (node, row) = world.leased(using("token", SecretHow::File)).await;
    assert_eq!(row.spec.secrets[0].version, 1);
    let second = (value("another-value"), None);
    let rotated = world
        .service
        .secret_rotate(&user(), "token", second, None)
        .await
        .unwrap();
    assert_eq!(rotated.version, 2);
    let given = world
        .service
        .job_secrets(&node, &row.id, row.epoch)
        .await
        .unwrap();
    assert_eq!(given[0].value, value(CANARY));
    let told = events(&world, "token").await;
    let kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["secret.created", "secret.rotated", "secret.used"]);
    for part in [
        row.id.as_str(),
        "\"version\":1",
        "\"how\":\"file\"",
        node_id(1).as_str(),
    ] {
        assert!(told[2].1.contains(part), "{part}: {}", told[2].1);
    }
    assert!(!contains(world.dir.path(), CANARY));
}

/// Attack: A node asks for secrets of a job that is not its own, or was.
#[tokio::test]
async fn a_secret_is_given_to_the_node_of_the_lease_alone_and_only_while_it_has_it() {
    let world = world();
    world
        .service
        .secret_create(&user(), new("token"), None)
        .await
        .unwrap();
    let (first, row) = world.leased(using("token", SecretHow::File)).await;
    let other = world
        .service
        .job_secrets(&node(2), &row.id, row.epoch)
        .await;
    assert!(matches!(other, Err(Error::NotYourLease)), "{other:?}");
    let person = world.service.job_secrets(&user(), &row.id, row.epoch).await;
    assert!(matches!(person, Err(Error::Forbidden(_))), "{person:?}");
    let later = world
        .service
        .job_secrets(&first, &row.id, row.epoch + 1)
        .await;
    assert!(later.is_err(), "{later:?}");
    let report = finished(&row, Outcome::Canceled);
    world
        .service
        .job_finished(&first, &row.id, report)
        .await
        .unwrap();
    let over = world.service.job_secrets(&first, &row.id, row.epoch).await;
    assert!(matches!(over, Err(Error::Stale)), "{over:?}");
    assert_eq!(events(&world, "token").await.len(), 1, "nothing was given");
}

/// Attack: A secret of another tenant is used by its name.
#[tokio::test]
async fn what_another_tenant_has_is_not_there() {
    let world = world();
    let made = world
        .service
        .secret_create(&user(), new("token"), None)
        .await
        .unwrap();
    for named in ["token", made.id.as_str(), "../token", "a\0b", ""] {
        let seen = world.service.secret_get(&stranger(), named).await;
        assert!(matches!(seen, Err(Error::NotFound)), "{seen:?}");
        let gone = world.service.secret_delete(&stranger(), named).await;
        assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
        let what = (value("x"), None);
        let turned = world
            .service
            .secret_rotate(&stranger(), named, what, None)
            .await;
        assert!(matches!(turned, Err(Error::NotFound)), "{turned:?}");
    }
    let list = world
        .service
        .secret_list(&stranger(), None, 10)
        .await
        .unwrap();
    assert!(list.secrets.is_empty());
    let job = world
        .service
        .job_create(&stranger(), using("token", SecretHow::File), None)
        .await;
    assert_eq!(job.unwrap_err().code(), "secret_missing");
    // The name is free there.
    world
        .service
        .secret_create(&stranger(), new("token"), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deleted_secret_is_gone_for_a_job_that_waits() {
    let world = world();
    world
        .service
        .secret_create(&user(), new("token"), None)
        .await
        .unwrap();
    let (node, row) = world.leased(using("token", SecretHow::File)).await;
    world.service.secret_delete(&user(), "token").await.unwrap();
    let given = world.service.job_secrets(&node, &row.id, row.epoch).await;
    assert_eq!(given.unwrap_err().code(), "secret_missing");
    // Nor does another of the same name stand in for it.
    world
        .service
        .secret_create(&user(), new("token"), None)
        .await
        .unwrap();
    let given = world.service.job_secrets(&node, &row.id, row.epoch).await;
    assert_eq!(given.unwrap_err().code(), "secret_missing");
}

#[tokio::test]
async fn bad_names_values_and_labels_are_refused_and_a_name_is_taken_once() {
    let world = world();
    let long = "x".repeat(129);
    for name in ["", "a/b", "..", "a b", "a\0", "${x}", &long] {
        let refused = world.service.secret_create(&user(), new(name), None).await;
        assert_eq!(refused.unwrap_err().code(), "invalid_argument", "{name}");
    }
    for size in [0, limits::SECRET_VALUE_BYTES_MAX + 1] {
        let value = SecretValue::new(vec![7; size]).into();
        let asker = user();
        let refused = world
            .service
            .secret_create(&asker, NewSecret { value, ..new("a") }, None);
        assert_eq!(refused.await.unwrap_err().code(), "invalid_argument");
    }
    let metadata = (0..33).map(|n| (n.to_string(), String::new())).collect();
    let asker = user();
    let refused = world.service.secret_create(
        &asker,
        NewSecret {
            metadata,
            ..new("a")
        },
        None,
    );
    assert_eq!(refused.await.unwrap_err().code(), "invalid_argument");
    world
        .service
        .secret_create(&user(), new("a"), None)
        .await
        .unwrap();
    let twice = world.service.secret_create(&user(), new("a"), None).await;
    assert_eq!(twice.unwrap_err().code(), "conflict");
}

#[tokio::test]
async fn a_create_with_a_key_is_one_create_and_its_value_is_part_of_the_request() {
    let world = world();
    let key = || {
        let (key, request_hash) = ("k-123456".to_owned(), "hash".to_owned());
        Some(Idempotency { key, request_hash })
    };
    let first = world
        .service
        .secret_create(&user(), new("a"), key())
        .await
        .unwrap();
    let again = world
        .service
        .secret_create(&user(), new("a"), key())
        .await
        .unwrap();
    assert_eq!(first, again);
    let other = NewSecret {
        value: value("x").into(),
        ..new("a")
    };
    let other = world.service.secret_create(&user(), other, key()).await;
    assert_eq!(other.unwrap_err().code(), "idempotency_mismatch");
    let turn = || (value("second"), None);
    let one = world
        .service
        .secret_rotate(&user(), "a", turn(), key())
        .await
        .unwrap();
    let two = world
        .service
        .secret_rotate(&user(), "a", turn(), key())
        .await
        .unwrap();
    assert_eq!((one.version, two.version), (2, 2));
}

#[tokio::test]
async fn the_last_ten_versions_are_kept() {
    let world = world();
    world
        .service
        .secret_create(&user(), new("a"), None)
        .await
        .unwrap();
    let (node, row) = world.leased(using("a", SecretHow::File)).await;
    for n in 2..=10 {
        let what = (value(&format!("value {n}")), None);
        world
            .service
            .secret_rotate(&user(), "a", what, None)
            .await
            .unwrap();
    }
    assert!(
        world
            .service
            .job_secrets(&node, &row.id, row.epoch)
            .await
            .is_ok()
    );
    world
        .service
        .secret_rotate(&user(), "a", (value("11"), None), None)
        .await
        .unwrap();
    let gone = world.service.job_secrets(&node, &row.id, row.epoch).await;
    assert_eq!(gone.unwrap_err().code(), "secret_missing");
}

#[tokio::test]
async fn another_master_key_is_refused_at_the_start_and_a_change_of_it_needs_both() {
    let world = world();
    world
        .service
        .secret_create(&user(), new("a"), None)
        .await
        .unwrap();
    let (node, row) = world.leased(using("a", SecretHow::File)).await;

    let wrong = world.again();
    wrong.secret_keys_from(|| keys("b", &[]));
    let error = wrong.secrets_ready().await.unwrap_err();
    assert_eq!(error.code(), "secret_key_wrong");
    assert!(wrong.job_secrets(&node, &row.id, row.epoch).await.is_err());

    let both = world.again();
    both.secret_keys_from(|| keys("b", &["a"]));
    both.secrets_ready().await.unwrap();

    let new = world.again();
    new.secret_keys_from(|| keys("b", &[]));
    new.secrets_ready().await.unwrap();
    let given = new.job_secrets(&node, &row.id, row.epoch).await.unwrap();
    assert_eq!(given[0].value, value(CANARY));

    let old = world.again();
    old.secret_keys_from(|| keys("a", &[]));
    assert_eq!(
        old.secrets_ready().await.unwrap_err().code(),
        "secret_key_wrong"
    );
}

#[tokio::test]
async fn without_a_master_key_jobs_run_and_secrets_are_refused() {
    let world = World::new();
    world.create(spec()).await;
    let refused = world.service.secret_create(&user(), new("a"), None).await;
    assert_eq!(refused.unwrap_err().code(), "secret_key_unusable");
    // What hung once may answer the next time.
    world.service.secret_keys_from(|| keys("a", &[]));
    world
        .service
        .secret_create(&user(), new("a"), None)
        .await
        .unwrap();
}

/// Attack: Rows of sealed values are swapped in the database.
#[tokio::test]
async fn rows_that_somebody_swapped_do_not_open() {
    let world = world();
    world
        .service
        .secret_create(&user(), new("mine"), None)
        .await
        .unwrap();
    let other = NewSecret {
        value: value("theirs").into(),
        ..new("theirs")
    };
    world
        .service
        .secret_create(&user(), other, None)
        .await
        .unwrap();
    let swap = |tx: &mut store::Tx<'_>| {
        tx.execute(
            "UPDATE secret SET name = CASE name WHEN 'mine' THEN 'theirs' ELSE 'mine' END || '_'",
            &[],
        )?;
        tx.execute(
            "UPDATE secret SET name = substr(name, 1, length(name) - 1)",
            &[],
        )
    };
    world.store().write(swap).await.unwrap();
    let (node, row) = world.leased(using("mine", SecretHow::File)).await;
    let given = world.service.job_secrets(&node, &row.id, row.epoch).await;
    assert_eq!(given.unwrap_err().code(), "internal");
}

fn elsewhere(name: &str, provider: &str, reference: &str) -> NewSecret {
    let source = SecretSource {
        provider: provider.to_owned(),
        reference: reference.to_owned(),
    };
    NewSecret {
        value: NewValue::From(source),
        ..new(name)
    }
}

/// A provider `p` that gives what it is asked for and the number of the time, and fails for `bad`.
fn provider(world: &World) -> std::sync::Arc<std::sync::atomic::AtomicU32> {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = asked.clone();
    world.service.secret_sources_from(move |source| {
        let time = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        Box::pin(async move {
            match (source.provider.as_str(), source.reference.as_str()) {
                ("p", "bad") => Err(SourceError::Failed {
                    provider: source.provider,
                    why: "it is closed".to_owned(),
                }),
                ("p", "empty") => Ok(value("")),
                ("p", text) => Ok(value(&format!("{CANARY} {text} {time}"))),
                _ => Err(SourceError::Unknown(source.provider)),
            }
        })
    });
    asked
}

#[tokio::test]
async fn a_value_that_is_elsewhere_is_fetched_when_it_is_used_and_is_in_no_row() {
    let world = world();
    let asked = provider(&world);
    let made = world
        .service
        .secret_create(&user(), elsewhere("token", "p", "app#key"), None)
        .await
        .unwrap();
    assert_eq!(made.source.unwrap().to_string(), "p:app#key");
    let (node, row) = world.leased(using("token", SecretHow::File)).await;
    let given = world
        .service
        .job_secrets(&node, &row.id, row.epoch)
        .await
        .unwrap();
    assert_eq!(given[0].value, value(&format!("{CANARY} app#key 3")));
    assert_eq!(given[0].version, 1);
    // When it was made, when the job was, and when it was used.
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 3);
    let told = events(&world, "token").await;
    assert_eq!(told.len(), 2, "{told:?}");
    for (_, data) in &told {
        assert!(data.contains("\"from\":\"p:app#key\""), "{data}");
    }
    assert!(!contains(world.dir.path(), CANARY));
    // Another version may be kept here again, and what was made before still has the first.
    world
        .service
        .secret_rotate(&user(), "token", (value("kept"), None), None)
        .await
        .unwrap();
    let seen = world.service.secret_get(&user(), "token").await.unwrap();
    assert_eq!((seen.version, seen.source), (2, None));
    let again = world.service.job_secrets(&node, &row.id, row.epoch).await;
    assert_eq!(
        again.unwrap()[0].value,
        value(&format!("{CANARY} app#key 4"))
    );
}

#[tokio::test]
async fn a_provider_that_fails_or_is_not_there_is_named_and_nothing_is_made_or_recorded() {
    let world = world();
    for (provider, reference, code) in [
        ("p", "a", "secret_provider_unknown"),
        ("P", "a", "invalid_argument"),
        ("p", "-a", "invalid_argument"),
    ] {
        let new = elsewhere("token", provider, reference);
        let refused = world.service.secret_create(&user(), new, None).await;
        assert_eq!(refused.unwrap_err().code(), code, "{provider}:{reference}");
    }
    provider(&world);
    for (provider, reference, code) in [
        ("q", "a", "secret_provider_unknown"),
        ("p", "bad", "secret_provider_failed"),
        ("p", "empty", "secret_provider_failed"),
    ] {
        let new = elsewhere("token", provider, reference);
        let refused = world.service.secret_create(&user(), new, None).await;
        let error = refused.unwrap_err();
        assert_eq!(error.code(), code, "{provider}:{reference}");
        assert!(
            error.to_string().contains(&format!("`{provider}`")),
            "{error}"
        );
    }
    world
        .service
        .secret_create(&user(), elsewhere("token", "p", "good"), None)
        .await
        .unwrap();
    // The operator takes the provider away.
    let later = world.again();
    later.secret_keys_from(|| keys("a", &[]));
    let (node, row) = world.leased(using("token", SecretHow::File)).await;
    let given = later.job_secrets(&node, &row.id, row.epoch).await;
    assert_eq!(given.unwrap_err().code(), "secret_provider_unknown");
    let spec = using("token", SecretHow::File);
    let refused = later.job_create(&user(), spec, None).await.unwrap_err();
    assert_eq!(refused.code(), "secret_provider_unknown");
    assert!(refused.to_string().contains("secrets[0].name"), "{refused}");
    assert_eq!(events(&world, "token").await.len(), 1, "nothing was given");
}

#[tokio::test]
async fn a_provider_that_hangs_is_told_at_creation_with_the_place_and_nothing_is_made() {
    let world = world();
    provider(&world);
    for one in [new("kept"), elsewhere("token", "p", "good")] {
        let made = world.service.secret_create(&user(), one, None).await;
        made.unwrap();
    }
    let later = world.again();
    later.secret_keys_from(|| keys("a", &[]));
    later.secret_sources_from(|source| {
        Box::pin(async move {
            Err::<SecretValue, _>(SourceError::Failed {
                provider: source.provider,
                why: "it did not answer in 15 s".to_owned(),
            })
        })
    });
    let secrets = ["kept", "token"].map(|name| using(name, SecretHow::File).secrets);
    let secrets = secrets.concat();
    let job = JobSpec {
        secrets: secrets.clone(),
        ..spec()
    };
    let job = later.job_create(&user(), job, None).await.unwrap_err();
    let mut asked = sandboxes::ask();
    asked.spec.secrets = secrets;
    let sandbox = later.sandbox_create(&user(), asked, None).await;
    for error in [job, sandbox.unwrap_err()] {
        assert_eq!(error.code(), "secret_provider_failed", "{error}");
        let Error::Invalid(found) = &error else {
            panic!("{error}")
        };
        let [one] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((&*one.field, one.code), ("secrets[1].name", error.code()));
        let expect = "the provider `p` gave no value: it did not answer in 15 s";
        assert_eq!(one.message, expect);
    }
    let jobs = later.job_list(&user(), None, None, 10).await.unwrap().jobs;
    assert!(jobs.is_empty(), "{jobs:?}");
    let caller = user();
    let sandboxes = later.sandbox_list(&caller, SandboxFilter::default(), None, 10);
    let sandboxes = sandboxes.await.unwrap().sandboxes;
    assert!(sandboxes.is_empty(), "{sandboxes:?}");
}

/// A use of a password that was kept.
fn as_password(name: &str) -> SecretUse {
    SecretUse {
        name: name.to_owned(),
        id: None,
        version: 0,
        how: SecretHow::Upstream,
    }
}

#[tokio::test]
async fn a_password_that_came_with_a_request_goes_when_no_sandbox_uses_it_any_more() {
    let world = world();
    let service = &world.service;
    let name = service.secret_keep(&user(), value(CANARY)).await.unwrap();
    let other = service.secret_keep(&user(), value("other")).await.unwrap();
    assert_ne!(name, other);
    let page = service.secret_list(&user(), None, 10).await.unwrap();
    assert!(page.secrets.is_empty());
    let mut asked = sandboxes::ask();
    asked.spec.network = model::network::NetworkRules::all_or_nothing(true);
    asked.spec.network.upstream = "socks5://me@proxy.example:1080".parse().ok();
    asked.spec.secrets = vec![as_password(&name)];
    let row = world.ready(asked).await;
    let given = service.sandbox_secrets(&node(1), &row.id, row.epoch).await;
    assert_eq!(given.unwrap()[0].value, value(CANARY));
    // Whoever sent one has ten minutes until something uses it.
    service::loops::prune_pass(service).await.unwrap();
    let is_there = async |name: &str| service.secret_get(&user(), name).await.is_ok();
    assert!(is_there(&name).await && is_there(&other).await);
    world.clock.advance(600_001);
    service::loops::prune_pass(service).await.unwrap();
    assert!(is_there(&name).await && !is_there(&other).await);
    service.sandbox_destroy(&user(), &row.id).await.unwrap();
    world.says(&row, service::SandboxSaid::Destroyed).await;
    service::loops::prune_pass(service).await.unwrap();
    assert!(!is_there(&name).await);
    // Nothing that can be read has it, and no two values can be told apart by what is kept of a request.
    let tag = service.secret_tag(&value(CANARY)).await.unwrap();
    assert!(tag.len() >= 32 && !tag.contains(CANARY));
    assert_ne!(tag, service.secret_tag(&value("other")).await.unwrap());
    let empty = service.secret_keep(&user(), value("")).await;
    assert_eq!(empty.unwrap_err().code(), "invalid_argument");
}

/// A sandbox behind a proxy, whose password is this.
fn behind_proxy(proxy: &str, uses: Vec<SecretUse>) -> service::SandboxAsk {
    let mut asked = sandboxes::ask();
    asked.spec.network = model::network::NetworkRules::all_or_nothing(true);
    asked.spec.network.upstream = proxy.parse().ok();
    assert!(asked.spec.network.upstream.is_some());
    asked.spec.secrets = uses;
    asked
}

const PROXY: &str = "socks5://me@proxy.example:1080";

/// Attack: The password that somebody sent for a proxy is used by another of the tenant, who has its name from a list of
/// sandboxes, or is read inside a sandbox.
#[tokio::test]
async fn a_password_in_clear_is_for_whom_it_is_from_and_for_its_proxy_alone() {
    let world = world();
    let service = &world.service;
    let name = service.secret_keep(&user(), value(CANARY)).await.unwrap();
    let other = Ctx::user("uid:2000".parse().unwrap(), "req_9");
    let asked = behind_proxy(PROXY, vec![as_password(&name)]);
    let refused = service.sandbox_create(&other, asked.clone(), None).await;
    assert_eq!(refused.unwrap_err().code(), "secret_missing");
    let hows = [
        SecretHow::File,
        SecretHow::Env {
            var: "PW".to_owned(),
        },
        SecretHow::Header {
            host: "a.test".to_owned(),
            header: "x-key".to_owned(),
            format: "{}".to_owned(),
        },
    ];
    for how in hows {
        for who in [&user(), &other] {
            let one = SecretUse {
                how: how.clone(),
                ..as_password(&name)
            };
            let asked = behind_proxy(PROXY, vec![one]);
            let refused = service.sandbox_create(who, asked, None).await;
            assert_eq!(refused.unwrap_err().code(), "secret_missing", "{how:?}");
        }
    }
    let job = using(&name, SecretHow::File);
    let refused = service.job_create(&user(), job, None).await;
    assert_eq!(refused.unwrap_err().code(), "secret_missing");
    service.sandbox_create(&user(), asked, None).await.unwrap();
}

/// Attack: Whoever may change the rules of a sandbox names a proxy of their own, which is told the password of the one
/// before.
#[tokio::test]
async fn a_password_in_clear_does_not_go_to_another_proxy_that_comes_later() {
    let world = world();
    let service = &world.service;
    let name = service.secret_keep(&user(), value(CANARY)).await.unwrap();
    let own = service.secret_create(&user(), new("own"), None).await;
    own.unwrap();
    let asked = behind_proxy(PROXY, vec![as_password(&name)]);
    let row = world.ready(asked).await;
    let set = async |proxy: &str, uses: Option<Vec<SecretUse>>| {
        let change = service::NetworkChange {
            rules: behind_proxy(proxy, Vec::new()).spec.network,
            secrets: uses,
        };
        let (ctx, node) = (user(), node(1));
        let told = service.sandbox_set_network(&ctx, &row.id, change, NOW);
        told.await.unwrap();
        let row = world.sandbox(&row.id).await;
        let given = service.sandbox_secrets(&node, &row.id, row.epoch).await;
        given.unwrap().len()
    };
    assert_eq!(set(PROXY, None).await, 1);
    let elsewhere = "socks5://me@elsewhere.example:1080";
    assert_eq!(set(elsewhere, None).await, 0);
    // Nor does it come back by itself.
    assert_eq!(set(PROXY, None).await, 0);
    assert_eq!(set(PROXY, Some(vec![as_password(&name)])).await, 1);
    // A secret that has a name is the tenant's, and stays.
    assert_eq!(set(PROXY, Some(vec![as_password("own")])).await, 1);
    assert_eq!(set(elsewhere, None).await, 1);
}

/// Attack: One principal sends ever other passwords, until nobody's is kept any more.
#[tokio::test]
async fn the_same_password_is_one_secret_and_of_others_there_is_a_bound() {
    let world = world();
    let service = &world.service;
    let keep = async |who: &Ctx, text: &str| service.secret_keep(who, value(text)).await;
    let name = keep(&user(), CANARY).await.unwrap();
    assert!(name.starts_with("given.") && !name.contains(CANARY));
    assert_eq!(keep(&user(), CANARY).await.unwrap(), name);
    // It is named by what it is, so nobody makes it another.
    let rotated = service
        .secret_rotate(&user(), &name, (value("11"), None), None)
        .await;
    assert_eq!(rotated.unwrap_err().code(), "not_found");
    let other = Ctx::user("uid:2000".parse().unwrap(), "req_9");
    assert_ne!(keep(&other, CANARY).await.unwrap(), name);
    // Whoever comes with it again has ten minutes once more.
    world.clock.advance(400_000);
    keep(&user(), CANARY).await.unwrap();
    world.clock.advance(400_000);
    service::loops::prune_pass(service).await.unwrap();
    assert!(service.secret_get(&user(), &name).await.is_ok());
    for number in 1..limits::SECRETS_GIVEN_OF_ONE_MAX {
        keep(&user(), &number.to_string()).await.unwrap();
    }
    let more = keep(&user(), "one more").await;
    assert_eq!(more.unwrap_err().code(), "too_much");
    assert_eq!(keep(&user(), CANARY).await.unwrap(), name);
    keep(&other, "another").await.unwrap();
}
