//! Secrets for what leaves that come, or go, while a sandbox lives.

use crate::sandboxes::ask;
use crate::secrets::{new, value, world};
use crate::*;
use model::network::NetworkRules;
use model::policy::{Layer, Policy};
use model::secret::{SecretHow, SecretUse};
use service::{Error, NetworkChange, NetworkRefused, NetworkSaid, SandboxRow, SandboxSaid};

fn header(name: &str, host: &str) -> SecretUse {
    SecretUse {
        name: name.to_owned(),
        id: None,
        version: 0,
        how: SecretHow::Header {
            host: host.to_owned(),
            header: "x-key".to_owned(),
            format: "{}".to_owned(),
        },
    }
}

fn change(secrets: &[SecretUse]) -> NetworkChange {
    NetworkChange {
        rules: NetworkRules::all_or_nothing(true),
        secrets: Some(secrets.to_vec()),
    }
}

impl World {
    async fn leaving(&self, row: &SandboxRow, change: NetworkChange) -> Result<SandboxRow, Error> {
        self.service
            .sandbox_set_network(&user(), &row.id, change, NOW)
            .await
    }

    /// What the node of a sandbox gets when it asks: names and versions.
    async fn given(&self, row: &SandboxRow) -> String {
        let row = self.sandbox(&row.id).await;
        let given = self
            .service
            .sandbox_secrets(&node(1), &row.id, row.epoch)
            .await
            .unwrap();
        let names = given
            .iter()
            .map(|one| format!("{}{}", one.name, one.version));
        names.collect::<Vec<_>>().join(" ")
    }

    async fn refuses(&self, row: &SandboxRow, epoch: u64, secrets: Option<Vec<SecretUse>>) {
        let said = NetworkSaid {
            epoch,
            enforcement: Vec::new(),
            refused: Some(NetworkRefused {
                in_force: NetworkRules::default(),
                secrets,
                why: "no".to_owned(),
            }),
        };
        self.service
            .sandbox_network_report(&node(1), &row.id, said)
            .await
            .unwrap();
    }
}

async fn with_secrets(names: &[&str]) -> World {
    let world = world();
    for name in names {
        world
            .service
            .secret_create(&user(), new(name), None)
            .await
            .unwrap();
    }
    world
}

#[tokio::test]
async fn a_secret_that_comes_new_is_given_to_the_node_in_its_newest_version_and_its_use_recorded() {
    let world = with_secrets(&["first", "second"]).await;
    let mut made = ask();
    made.spec.network = NetworkRules::all_or_nothing(true);
    made.spec.secrets = vec![header("first", "a.test")];
    let row = world.ready(made).await;
    assert_eq!(world.given(&row).await, "first1");
    let rotated = (value("canary-other-value"), None);
    world
        .service
        .secret_rotate(&user(), "second", rotated, None)
        .await
        .unwrap();
    let both = [header("first", "a.test"), header("second", "b.test")];
    let changed = world.leaving(&row, change(&both)).await.unwrap();
    assert_eq!(world.given(&row).await, "first1 second2");
    let used = world
        .service
        .secret_events(&user(), "second", 0, 100)
        .await
        .unwrap();
    let last = used.last().unwrap();
    assert_eq!(last.kind, "secret.used");
    assert!(last.data.contains("\"how\":\"header\"") && last.data.contains(row.id.as_str()));
    // The same again is no change; without a word of them they stay.
    let same = world.leaving(&row, change(&both)).await.unwrap();
    assert_eq!(same.network_epoch, changed.network_epoch);
    let rules = NetworkRules::all_or_nothing(false);
    let changed = world
        .leaving(
            &row,
            NetworkChange {
                rules,
                secrets: None,
            },
        )
        .await
        .unwrap();
    assert_eq!(changed.secrets().len(), 2);
    world.leaving(&row, change(&[])).await.unwrap();
    assert_eq!(world.given(&row).await, "");
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_so_is_refused_with_its_place_and_changes_nothing() {
    let world = with_secrets(&["token"]).await;
    let row = world.ready(ask()).await;
    let file = SecretUse {
        how: SecretHow::File,
        ..header("token", "a.test")
    };
    let closed = NetworkChange {
        rules: NetworkRules::default(),
        ..change(&[header("token", "a.test")])
    };
    for (asked, field, code) in [
        (
            change(&[header("none", "a.test")]),
            "secrets[0].name",
            "secret_missing",
        ),
        (
            change(&[header("token", "A B")]),
            "secrets[0].how",
            "secret_header",
        ),
        (change(&[file]), "secrets[0].how", "secret_header"),
        (closed, "secrets[0].how.host", "secret_header"),
    ] {
        match world.leaving(&row, asked).await {
            Err(Error::Invalid(found)) => {
                assert_eq!((&*found[0].field, found[0].code), (field, code))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.sandbox(&row.id).await.network_epoch, 0);
    let set = world
        .service
        .sandbox_set_network(&stranger(), &row.id, change(&[]), NOW)
        .await;
    assert!(matches!(set, Err(Error::NotFound)), "{set:?}");
}

#[tokio::test]
async fn a_node_that_gives_up_names_what_is_in_force_and_gains_no_other_secret_by_it() {
    let world = with_secrets(&["first", "second", "other"]).await;
    let row = world.ready(ask()).await;
    world
        .leaving(&row, change(&[header("first", "a.test")]))
        .await
        .unwrap();
    world
        .leaving(&row, change(&[header("second", "a.test")]))
        .await
        .unwrap();
    let said = |name: &str| SecretUse {
        version: 1,
        ..header(name, "a.test")
    };
    world
        .refuses(&row, 2, Some(vec![said("first"), said("other")]))
        .await;
    assert_eq!(world.given(&row).await, "first1");
    world
        .leaving(&row, change(&[header("second", "a.test")]))
        .await
        .unwrap();
    world.refuses(&row, 3, None).await;
    assert_eq!(world.given(&row).await, "");
}

fn without_secrets() -> Policy {
    Policy {
        secrets: Some(Vec::new()),
        ..Policy::new(Layer::Tenant)
    }
}

/// Attack: a secret that was given while the sandbox lived is not among those that it was made with.
#[tokio::test]
async fn secrets_that_came_while_it_lived_are_decided_when_a_sandbox_is_made_anew() {
    let world = with_secrets(&["first"]).await;
    let row = world.ready(ask()).await;
    let given = world.leaving(&row, change(&[header("first", "a.test")]));
    given.await.unwrap();
    let who = user();
    let again = async || {
        let again = world.service.sandbox_recreate(&who, &row.id, None);
        again.await.map(drop).map_err(|error| error.code())
    };
    assert_eq!(again().await, Ok(()));
    // Before its old place is gone.
    let put = world.service.policy_put(&who, "secrets", without_secrets());
    put.await.unwrap();
    world.says(&row, SandboxSaid::Destroyed).await;
    world.works(&node(1), NOW).await;
    let ended = world.service.sandbox_wait(&who, &row.id, LONG);
    let ended = ended.await.unwrap();
    assert_eq!(ended.state.name(), "failed");
    let why = ended.reason.unwrap();
    assert!(
        why.starts_with("permit_stale: ") && why.contains("secrets[0]"),
        "{why}"
    );
    assert_eq!(again().await, Err("policy_refused"));
}
