//! Which ids stand behind those of a sandbox on this machine, and that the driver says so.

use crate::world::DEFAULTS;
use driver::conformance::spec;
use driver::driver::Driver as _;
use driver::host::Ids;
use model::enforcement::Held;

/// Set where these tests run again as somebody else, see [`crate::ordinary`].
pub(crate) const EXPECTED: &str = "EXPECTED_IDS";

#[tokio::test]
async fn the_ids_are_the_best_that_this_user_may_map() {
    let world = world!();
    let kind = match world.host.ids {
        Ids::Root => "root",
        Ids::Subordinate { .. } => "subordinate",
        Ids::Single => "single",
    };
    match std::env::var(EXPECTED) {
        Ok(expected) => assert_eq!(kind, expected),
        Err(_) => assert_eq!(kind == "root", world.host.uid == 0),
    }
}

#[tokio::test]
async fn the_plan_says_which_ids_a_sandbox_has() {
    let world = world!();
    let plan = world.linux.plan(&spec(DEFAULTS), &world.host).unwrap();
    let users = plan
        .enforced
        .iter()
        .find(|each| each.clause == "users")
        .unwrap();
    let how = match world.host.ids {
        Ids::Root => "ids of the sandbox's own",
        Ids::Subordinate { .. } => "subordinate ids",
        Ids::Single => "one id",
    };
    assert_eq!((&*users.how, users.state), (how, Held::Held));
}

#[tokio::test]
async fn every_id_of_a_sandbox_is_there_where_more_than_one_can_be_had() {
    let world = world!();
    let map = world.sh("cat /proc/self/uid_map /proc/self/gid_map").await;
    let lines = map
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    for line in lines {
        let expected = if world.host.ids == Ids::Single {
            ("1000", "1")
        } else {
            ("0", "65536")
        };
        assert_eq!((line[0], line[2]), expected, "{map}");
    }
}
