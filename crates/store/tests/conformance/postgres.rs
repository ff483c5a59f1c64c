//! Every case on a real PostgreSQL, and what only happens there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::audit;
use crate::breaks;
use crate::cluster::Cluster;
use crate::db::{Case, Db, race};
use crate::jobs;
use crate::locks;
use crate::nodes;
use crate::others;
use crate::queue;
use crate::shared;

/// Longer than any case takes on a slow machine; one that hangs is named instead of all of them.
const CASE_MAX: Duration = Duration::from_secs(120);
/// Cases that run at one time.
const AT_ONCE: usize = 2;

/// Lists cases with their names.
macro_rules! cases {
    ($($room:ident::$case:ident)+) => { &[$((stringify!($case), $room::$case),)+] };
}

const ONLY_HERE: &[(&str, Case)] = cases! {
    audit::what_may_still_come_among_them_is_waited_for
    audit::marks_go_on_in_a_database_that_was_brought_back
    jobs::a_page_of_one_state_reads_no_jobs_of_others
    nodes::beside_a_transaction_that_is_held_what_is_to_end_is_found_in_its_own_index
    queue::a_claim_that_begins_later_passes_over_what_was_queued_before_and_is_empty_by_all
    queue::a_claim_says_how_old_the_oldest_is_also_where_somebody_else_has_it
    locks::a_claim_locks_only_what_it_takes
    locks::a_policy_that_is_written_while_another_goes_is_there
    locks::a_sandbox_that_is_held_ends_after_what_was_added_about_it
    locks::a_claim_and_a_cancel_of_one_job_never_wait_for_each_other
    locks::a_unit_that_lost_a_race_is_run_again
    locks::a_deadlock_is_resolved
    locks::a_connection_changes_nothing_outside_of_a_transaction
    locks::what_waits_too_long_for_a_lock_is_told
    locks::what_the_server_cannot_do_now_is_told_from_what_is_wrong
    breaks::a_unit_whose_connection_broke_is_run_again
    breaks::a_unit_whose_commit_broke_is_not_run_again
    shared::units_that_wait_share_a_transaction_and_each_sees_its_own
    shared::a_unit_that_fails_or_panics_takes_nobody_along_that_shares_with_it
    shared::of_units_about_one_job_that_share_a_transaction_one_wins
    shared::units_whose_common_commit_broke_are_told_so_and_not_run_again
    shared::a_unit_that_shares_a_transaction_reads_the_job_that_it_has_changed
    shared::the_place_of_a_job_is_locked_before_the_job_whatever_came_before
    shared::what_waits_for_a_lock_lets_its_group_go_one_by_one
    shared::a_group_does_not_wait_for_what_came_behind_it
    shared::a_commit_that_the_database_refuses_takes_nobody_along
    shared::no_table_knows_of_another
    others::others_hear_that_something_was_written_and_oneself_does_not
    others::who_listens_hears_again_after_its_connection_broke
    others::two_that_start_together_make_one_schema
    others::the_time_is_that_of_the_database
    breaks::connections_that_break_under_load_leave_nothing_half_done
};

#[test]
fn every_case_passes_on_postgresql() {
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let cases: Vec<&(&str, Case)> = crate::CASES.iter().chain(ONLY_HERE).collect();
    let next = AtomicUsize::new(0);
    let failed = race(AT_ONCE, |_| {
        let mut failed = Vec::new();
        while let Some((name, case)) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
            failed.extend(run(&cluster, name, *case));
        }
        failed
    });
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Runs a case on a thread of its own; returns what is wrong with it.
fn run(cluster: &Cluster, name: &str, case: Case) -> Option<String> {
    let place = cluster.database();
    let (tell, told) = channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || {
        case(&Db::open(place));
        tell.send(()).unwrap();
    });
    drop(spawned.unwrap());
    match told.recv_timeout(CASE_MAX) {
        Ok(()) => None,
        Err(RecvTimeoutError::Disconnected) => Some(format!("{name} failed; see above")),
        Err(RecvTimeoutError::Timeout) => Some(format!("{name} hangs")),
    }
}
