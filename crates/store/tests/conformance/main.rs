//! What both databases must do alike. Every case runs on SQLite, as a test of its own, and on a real
//! PostgreSQL, all of them in one test, because a server of its own for each would cost a second.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what the tests build on is part of the tests"
)]

mod approvals;
mod audit;
mod breaks;
mod cluster;
mod db;
mod egress;
mod execs;
mod files;
mod full;
mod group;
mod jobs;
mod keys;
mod locks;
mod make;
mod moves;
mod nodes;
mod others;
mod output;
mod people;
mod policies;
mod postgres;
mod profiles;
mod prune;
mod queue;
mod quotas;
mod random;
mod sandboxes;
mod schema;
mod secrets;
mod servers;
mod shared;
mod snapshots;
mod tls;
mod units;
mod volumes;

/// Makes a test on SQLite of every case, and the list of all cases for PostgreSQL.
macro_rules! conformance {
    ($($room:ident { $($case:ident)+ })+) => {
        mod sqlite {
            $(mod $room {
                $(#[test]
                fn $case() {
                    crate::db::on_sqlite(crate::$room::$case);
                })+
            })+
        }

        const CASES: &[(&str, db::Case)] = &[$($((stringify!($case), $room::$case),)+)+];
    };
}

conformance! {
    audit {
        events_are_sealed_in_the_order_of_their_commits_and_each_once
        an_event_cannot_be_changed
        what_an_event_says_has_a_bound
        what_was_kept_long_enough_goes_with_its_seals_and_the_last_of_them_stays
        marks_go_on_after_all_events_are_gone
    }
    jobs {
        a_new_job_is_read_back_as_it_was_inserted
        a_job_that_awaits_approval_has_no_place_in_the_queue
        another_tenant_does_not_see_a_job
        a_list_read_page_by_page_has_every_job_once_and_the_newest_first
        a_list_of_one_state_has_no_others
        a_second_job_of_the_same_id_is_refused_and_changes_nothing
        waiting_jobs_are_counted_for_their_tenant_from_a_time_on_up_to_a_bound
    }
    moves {
        every_legal_move_writes_the_row_and_exactly_one_event
        a_move_from_a_row_that_was_changed_is_stale_and_changes_nothing
        of_many_writers_from_one_row_exactly_one_wins
        what_is_known_at_the_start_and_at_the_end_is_kept
        a_new_lease_forgets_what_was_in_force_in_the_attempt_before
        a_cancel_and_a_claim_of_one_job_leave_it_in_one_piece
        events_are_read_page_by_page
    }
    queue {
        a_claim_passes_over_what_may_not_start_yet_and_what_is_for_other_nodes
        a_claim_takes_the_oldest_of_each_tenant_in_turn
        a_job_with_a_wish_is_given_to_whom_it_was_granted_and_hides_no_other
        what_is_for_one_node_and_what_is_for_any_are_taken_by_age
        what_waits_for_one_node_alone_costs_another_nothing
        many_claimers_never_get_the_same_job
        a_place_is_late_after_its_time_and_not_at_it
        a_job_that_has_run_waits_anew_and_one_that_was_given_back_does_not
        a_job_that_is_postponed_is_passed_over_until_then_and_keeps_its_place
    }
    quotas {
        a_quota_is_read_as_it_was_said_and_counts_by_a_stamp
        of_many_that_want_the_last_of_a_quota_no_more_get_it_than_there_is
        what_is_held_is_found_by_no_claim_until_it_is_let_go
        what_is_larger_than_a_quota_is_held_alone_and_hides_nothing_smaller
        what_is_used_is_what_is_there_after_any_sequence
    }
    keys {
        a_key_remembers_the_first_request_and_refuses_a_second
        a_key_of_somebody_else_or_for_something_else_is_another_key
        of_many_requests_with_one_key_exactly_one_makes_a_job
        old_keys_are_forgotten_and_young_ones_are_not
        no_more_than_a_bounded_number_of_keys_is_forgotten_at_once
    }
    output {
        pieces_are_read_in_the_order_of_their_arrival_page_by_page
        the_same_piece_again_is_a_duplicate_and_other_bytes_are_a_conflict
        a_piece_that_leaves_a_hole_or_begins_before_the_end_is_refused
        a_later_attempt_begins_its_streams_anew
        of_a_node_that_cannot_declare_a_gap_a_piece_may_begin_anywhere
        of_many_who_send_different_pieces_at_once_no_hole_is_left
        both_streams_at_once_get_different_numbers_and_a_reader_misses_none
        one_piece_sent_by_many_at_once_is_kept_once
        a_piece_of_an_attempt_that_no_node_has_is_stale
        bytes_are_counted_for_each_attempt
    }
    files {
        an_artifact_is_kept_once_for_its_path
        artifacts_are_listed_by_path_and_attempt
        one_path_kept_by_many_at_once_is_kept_once
        an_upload_belongs_to_its_tenant
        an_upload_that_was_sent_again_is_not_forgotten
        old_uploads_are_found_oldest_first
    }
    nodes {
        a_node_is_written_anew_by_its_next_process
        only_the_process_that_registered_last_renews
        a_node_has_the_jobs_that_it_was_leased_until_they_end
        jobs_of_a_silent_or_forgotten_node_are_found
    }
    secrets {
        a_secret_is_read_back_by_name_and_by_id_and_by_its_tenant_alone
        a_change_from_a_row_that_was_changed_is_stale_and_writes_no_version
        what_another_key_wraps_is_found_until_it_is_wrapped_anew
        old_versions_go_and_a_deleted_secret_leaves_nothing
        what_came_with_a_request_is_in_no_list_and_is_found_when_nobody_uses_it
    }
    people {
        a_key_is_found_by_both_of_its_digests_and_by_its_tenant_alone
        a_principal_takes_its_keys_with_it_and_no_others
        who_was_sent_away_is_known_until_somebody_lets_them_in
        the_first_tenant_is_there_and_another_goes_with_its_people
        nothing_is_added_to_a_tenant_or_a_principal_that_is_gone
        a_key_that_is_made_while_its_tenant_goes_goes_with_it
        keys_go_some_time_after_their_end_and_the_last_admin_is_seen
        a_role_is_changed_of_whoever_still_has_the_one_that_was_seen
        of_two_admins_who_make_each_other_less_at_once_one_stays
    }
    servers {
        a_server_is_known_by_its_certificate_until_it_is_gone
        a_link_is_held_by_whoever_took_it_last
        what_all_share_is_what_the_first_wrote
    }
    prune {
        old_jobs_go_oldest_first_with_all_that_belongs_to_them
        jobs_beyond_a_number_go_for_each_tenant
        blobs_are_named_by_files_and_by_uploads
        a_late_report_is_an_event_and_changes_nothing_else
        silent_nodes_are_found_and_written_only_as_they_were_seen
        what_waits_for_a_node_alone_is_found_when_that_is_silent_or_gone
    }
    snapshots {
        every_change_of_a_snapshot_is_written_with_its_event
        a_name_means_the_newest_ready_snapshot_and_lists_show_what_is_asked_for
        a_snapshot_may_go_when_nothing_stands_on_it
    }
    volumes {
        a_volume_is_found_by_its_name_and_its_id_and_by_its_tenant_alone
        a_volume_may_go_when_no_sandbox_has_it
        the_sandbox_that_serves_a_volume_is_remembered_while_there_is_one
    }
    units {
        a_unit_that_fails_leaves_nothing_and_takes_nobody_with_it
        a_unit_that_panics_leaves_nothing_and_the_store_works_on
        a_unit_that_goes_on_after_a_failed_statement_has_not_happened
        a_unit_that_only_reads_cannot_write
        a_unit_that_reads_sees_one_moment
        text_with_nul_is_stored
        numbers_beyond_the_largest_stay_the_largest
        a_database_of_a_newer_schema_is_refused
        a_store_that_was_reopened_sees_everything_that_was_answered
        two_stores_on_one_database_wait_for_each_other
        a_unit_of_somebody_who_went_away_is_done_all_the_same
    }
    shared {
        what_is_about_one_row_is_written_in_its_order
        many_rows_at_once_are_as_they_were_said_one_by_one
    }
    sandboxes {
        a_new_sandbox_is_read_back_as_it_was_inserted
        every_change_of_a_sandbox_is_written_with_its_event
        of_many_changes_from_one_sandbox_row_exactly_one_is_written
        sandboxes_are_listed_by_all_of_their_labels_and_by_nothing_like_them
        a_list_of_sandboxes_is_read_page_by_page_and_by_state
        requested_sandboxes_are_found_by_nodes_that_may_have_them
        requested_sandboxes_of_each_tenant_are_taken_in_turn
        many_nodes_never_get_the_same_sandbox
        what_a_node_has_and_what_it_is_to_do_is_found
        sandboxes_are_due_at_their_time_and_not_before
        sandboxes_of_a_silent_or_forgotten_node_are_found
        sandboxes_that_are_over_go_and_their_events_stay
        what_a_sandbox_used_is_kept_for_a_time_and_only_as_its_node_says
    }
    egress {
        a_record_is_stored_once_and_numbered_as_it_comes
        records_are_found_by_host_reason_and_time
        denials_are_counted_beside_the_version
        rules_are_changed_by_whoever_saw_the_last_ones_and_put_in_force_once
    }
    execs {
        a_command_is_written_once_and_ended_once
        what_was_run_is_listed_newest_first_page_by_page
        old_commands_of_a_sandbox_go_and_those_of_others_stay
        what_was_run_in_all_sandboxes_of_a_tenant_is_listed_by_kind_page_by_page
        what_has_no_end_ends_with_its_place_and_the_last_number_is_known
    }
    random {
        any_sequence_of_moves_keeps_row_events_and_queue_in_step
    }
    approvals {
        an_approval_is_decided_by_one_at_a_time_with_its_event
        approvals_are_listed_counted_and_ended_by_their_state
        a_yes_is_found_while_it_counts_and_by_whom_it_is_for
        each_change_of_an_approval_is_told_or_given_up_with_an_event
    }
    policies {
        every_change_of_a_policy_changes_the_stamp_and_is_an_event
        versions_of_a_policy_are_kept_up_to_a_bound
        policies_for_everybody_are_found_by_all
    }
    profiles {
        a_profile_is_found_by_its_id_and_its_name_by_its_owner_only
        a_profile_is_changed_by_one_at_a_time_with_an_event
        a_tag_means_what_it_was_given_last
        a_build_is_read_back_with_its_recipe_and_an_event_for_each_state
        a_build_is_carried_out_by_one_at_a_time
        a_log_is_read_by_level_from_an_offset_both_ways
        what_was_done_before_is_found_while_its_copy_is_there
        builds_that_nobody_needs_go_and_their_copies_after_them
        a_profile_takes_all_that_is_its_own_with_it
        files_for_builds_are_found_by_name_until_nobody_asks_any_more
        versions_of_a_profile_are_kept_up_to_a_bound_and_written_by_one_at_a_time
    }
}
