//! The same facts about logs whose segments are written before their use.

use super::*;

macro_rules! hold_for_prewritten_logs {
    ($($name:ident,)*) => {$(
        #[test]
        fn $name() {
            PREWRITE.set(true);
            super::$name();
        }
    )*};
}

hold_for_prewritten_logs! {
    what_was_appended_is_read_before_and_after_its_sync_and_after_a_restart,
    a_segment_that_would_take_the_last_space_is_not_made_for_messages,
    recycled_files_are_used_again_and_their_old_entries_are_not_seen,
    a_crash_after_any_step_loses_nothing_acknowledged,
    the_first_failed_operation_is_the_last,
    a_last_batch_torn_at_any_byte_is_cut_and_the_rest_kept,
    nothing_of_a_torn_batch_comes_back,
    nothing_of_a_torn_segment_start_comes_back,
    another_segment_size_applies_to_new_segments,
    the_log_agrees_with_its_model,
}
