//! The protocol of leases, in every order in which things can happen: servers and nodes that die, messages that
//! are lost, late, doubled and out of order, silences, and somebody who cancels.

mod ends;
mod story;
mod world;

use ends::Graph;
use stateright::{Checker as _, HasDiscoveries, Model as _};
use world::{Rule, Rules};

const RULES: Rules = Rules {
    servers: 2,
    nodes: 2,
    attempts: 1,
    attempts_max: 2,
    leases: 2,
    faults: 2,
    cancels: false,
    without: None,
};

/// Looks at every state that there is.
fn all(rules: Rules) {
    let checker = rules.checker().threads(2).spawn_bfs().join();
    // A story that ends early proves little.
    let looked = checker.unique_state_count();
    assert!(checker.is_done() && looked > 50_000, "{looked} states");
    checker.assert_properties();
}

/// Finds a story in which one of these promises is broken.
fn breaks(rules: Rules, promises: [&'static str; 2]) {
    let checker = rules.checker().threads(2);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let broken = promises.into_iter().find_map(|one| checker.discovery(one));
    assert!(broken.is_some(), "{promises:?} hold");
}

#[test]
fn a_job_that_may_run_once_has_one_outcome_and_runs_once_whatever_dies() {
    all(RULES);
}

#[test]
fn a_job_that_may_run_again_has_one_outcome_and_is_never_in_two_places() {
    all(Rules {
        attempts: 2,
        ..RULES
    });
}

#[test]
fn somebody_who_cancels_breaks_no_promise() {
    all(Rules {
        attempts: 2,
        faults: 1,
        cancels: true,
        ..RULES
    });
}

#[test]
fn three_nodes_and_three_leases_break_no_promise_as_far_as_was_looked() {
    let rules = Rules {
        nodes: 3,
        attempts: 3,
        attempts_max: 3,
        leases: 3,
        ..RULES
    };
    let checker = rules.checker().threads(2).target_max_depth(14);
    let checker = checker.spawn_bfs().join();
    let looked = checker.unique_state_count();
    assert!(looked > 50_000, "{looked} states");
    for promise in ["one outcome", "in one place", "as often as allowed"] {
        checker.assert_no_discovery(promise);
    }
}

#[test]
fn without_a_look_at_the_epoch_the_promises_break() {
    let rules = Rules {
        without: Some(Rule::Epochs),
        attempts: 2,
        ..RULES
    };
    breaks(rules, ["in one place", "as often as allowed"]);
}

#[test]
fn without_a_comparison_at_the_write_the_promises_break() {
    let rules = Rules {
        without: Some(Rule::Comparison),
        faults: 1,
        ..RULES
    };
    breaks(rules, ["one outcome", "as often as allowed"]);
}

#[test]
fn without_a_fence_a_silent_node_runs_on_beside_another() {
    let rules = Rules {
        without: Some(Rule::Fences),
        attempts: 2,
        ..RULES
    };
    breaks(rules, ["in one place", "in one place"]);
}

/// One fault in a story: all its states and the steps between them have to be kept at once.
const ENDING: Rules = Rules { faults: 1, ..RULES };

/// From every state that there is the job comes to an end, and is forgotten by its nodes.
fn all_end(rules: Rules, at_least: usize) {
    let graph = Graph::of(rules);
    let looked = graph.states();
    // A story that ends early proves little.
    assert!(looked > at_least, "{looked} states");
    let (lost, remembered) = (graph.lost(), graph.remembered());
    assert!(
        lost.is_empty() && remembered.is_empty(),
        "of {looked} states, from {} no outcome is come to, and from {} it is not forgotten: {:#?} {:#?}",
        lost.len(),
        remembered.len(),
        lost.first(),
        remembered.first()
    );
}

#[test]
fn from_every_state_a_job_that_may_run_once_ends_also_without_a_node_that_is_gone_for_good() {
    all_end(ENDING, 20_000);
}

#[test]
fn from_every_state_a_job_that_may_run_again_ends_also_without_a_node_that_is_gone_for_good() {
    let rules = Rules {
        attempts: 2,
        ..ENDING
    };
    all_end(rules, 50_000);
}

#[test]
fn from_every_state_a_job_ends_also_where_somebody_cancels_it() {
    let rules = Rules {
        faults: 0,
        cancels: true,
        ..ENDING
    };
    all_end(rules, 9_000);
}

#[test]
fn without_a_reaper_a_job_is_lost_with_its_node() {
    let rules = Rules {
        without: Some(Rule::Reaper),
        ..ENDING
    };
    let graph = Graph::of(rules);
    let lost = graph.lost();
    // Not only one that was leased: also one that runs.
    let mut running = lost
        .iter()
        .filter(|world| world.row.state.name() == "running");
    assert!(running.next().is_some(), "{}", lost.len());
    assert!(
        graph.remembered().is_empty(),
        "a node that comes back tells"
    );
}

#[test]
fn without_a_release_a_lease_whose_answer_was_lost_keeps_its_job_for_ever() {
    let rules = Rules {
        without: Some(Rule::Releases),
        ..ENDING
    };
    let graph = Graph::of(rules);
    assert!(!graph.lost().is_empty());
    assert!(!graph.remembered().is_empty());
}
