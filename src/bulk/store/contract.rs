//! The contract of [`JobStore`](super::JobStore), tested against every store.
//!
//! [`job_store_contract!`] makes a test of each rule. Its argument runs a rule with a function that opens handles on
//! one new store, as several processes would.

mod claim;
mod fixtures;
mod lease_holder;
mod operator;
mod submission;

pub(crate) use claim::*;
pub(crate) use fixtures::{LEASE, Open};
pub(crate) use lease_holder::*;
pub(crate) use operator::*;
pub(crate) use submission::*;

macro_rules! job_store_contract {
    ($with:path) => {
        $crate::bulk::store::contract::job_store_contract!($with:
            a_job_submitted_again_is_the_same_job,
            the_same_id_with_other_content_is_a_conflict,
            new_options_reach_a_job_that_waits_and_not_one_that_is_done,
            a_failed_job_is_queued_again_only_on_request,
            a_job_done_begins_anew_only_when_forced,
            a_running_job_is_not_forced_anew,
            a_job_too_large_is_refused_with_all_others,
            priority_comes_before_the_chosen_order_and_that_before_submission,
            a_job_is_claimed_once_by_two_processes_at_work,
            jobs_claimed_together_are_the_next_ones_in_order_and_each_has_a_lease,
            only_small_files_are_claimed_with_another_job,
            a_job_that_waits_does_not_fail_for_the_workers_that_vanish_with_others,
            a_claim_carries_the_job_and_its_checkpoint,
            nothing_to_claim_names_the_next_time_or_the_end,
            a_lease_that_is_renewed_does_not_run_out,
            a_job_with_a_lease_that_ran_out_goes_to_another_worker,
            late_writes_of_a_former_holder_are_refused_and_change_nothing,
            a_repeated_finish_succeeds_and_another_one_is_refused,
            an_older_checkpoint_does_not_replace_a_newer_one,
            a_temporary_failure_waits_longer_each_time_and_the_fifth_ends_the_job,
            progress_starts_the_count_of_failures_anew,
            a_permanent_failure_ends_the_job_at_once,
            a_released_job_counts_no_failure,
            a_job_set_aside_counts_no_failure_and_has_the_reason_until_it_is_queued_anew,
            videos_left_by_another_worker_are_recorded_without_a_lease_until_they_are_gone,
            a_file_declined_three_times_fails_its_job,
            a_cancelled_job_is_taken_from_its_worker,
            a_retry_after_a_cancellation_waits_for_the_former_lease,
            a_held_job_cannot_be_forgotten_and_others_leave_nothing,
            a_clock_that_went_back_delays_a_takeover_by_one_lease_at_most,
            a_list_passes_over_the_jobs_that_it_is_to_skip,
            pages_list_each_job_once_while_others_are_submitted,
            counts_follow_every_change,
            a_paused_pool_gives_no_job_and_pools_do_not_mix,
            a_change_by_another_process_wakes_the_watcher,
            a_dropped_request_leaves_the_store_usable,
        );
    };
    ($with:path: $($rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $rule() {
                $with(&$crate::bulk::store::contract::$rule);
            }
        )*
    };
}
pub(crate) use job_store_contract;
