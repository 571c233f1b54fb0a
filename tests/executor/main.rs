//! What the executor contract promises, on every executor that there is.
//!
//! `promises` and `life` know the contract and no executor. Each executor is a subject, for which the macro below makes a test of every
//! promise; what is promised of one executor only has a file of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail where it likes")]

#[path = "../common/mod.rs"]
mod common;

mod cpu;
mod life;
mod promises;
#[path = "../common/stand_in.rs"]
mod stand_in;
mod subject;
mod tensorrt_llm;

/// A test of every promise, on the subject that a function makes.
macro_rules! keeps_its_promises {
    ($subject:path: $($promise:ident)*) => {
        mod promised {
            $(#[test]
            fn $promise() {
                crate::promises::$promise(&$subject());
            })*
        }
    };
    ($subject:path) => {
        crate::keeps_its_promises! { $subject:
            every_request_and_every_sequence_ends_once
            tokens_come_in_order_streamed_or_whole
            any_end_id_ends_and_is_delivered
            a_stop_word_ends_and_is_delivered
            bad_words_and_banned_tokens_do_not_come
            only_allowed_tokens_come
            without_tokens_to_generate_a_request_ends_with_its_prompt
            the_seed_decides_the_draws
            sequences_are_what_their_seeds_draw_alone
            logits_come_with_their_tokens
            log_probabilities_come_with_their_tokens
            beams_come_whole_and_best_first
            a_post_processor_decides_or_is_refused_by_name
            a_panicking_post_processor_ends_its_request_only
            cancelled_requests_still_end_once
            one_sequence_is_cancelled_alone
            a_request_ends_with_the_last_of_its_sequences
            the_load_counts_requests_and_goes_back_to_zero
            an_allotted_time_ends_a_request
            a_full_queue_refuses_and_names_its_limit
            shutdown_drains_or_cancels_then_refuses
            figures_of_a_request_are_consistent
            whoever_shuts_down_waits_for_the_end
            a_shutdown_wakes_who_waits
            dropping_an_executor_ends_its_work
            waiting_uses_no_processor_time
            threads_share_an_executor
            statistics_are_taken_once
        }
    };
}
use keeps_its_promises;
