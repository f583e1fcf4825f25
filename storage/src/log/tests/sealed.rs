//! The same facts about logs that are encrypted, and the entries compressed.

use super::*;

macro_rules! hold_for_encrypted_logs {
    ($is_packed:literal: $($name:ident,)*) => {$(
        #[test]
        fn $name() {
            SEALED.set(true);
            PACKED.set($is_packed);
            super::$name();
        }
    )*};
}

hold_for_encrypted_logs! { true:
    what_was_appended_is_read_before_and_after_its_sync_and_after_a_restart,
    reading_with_another_identity_is_an_error,
    an_entry_of_the_largest_size_fits_and_one_byte_more_is_refused,
    a_segment_that_would_take_the_last_space_is_not_made_for_messages,
    recycled_files_are_used_again_and_their_old_entries_are_not_seen,
    replay_needs_every_segment_after_its_start,
    a_crash_after_any_step_loses_nothing_acknowledged,
    a_crash_during_recovery_loses_nothing_either,
    the_first_failed_operation_is_the_last,
    no_flipped_byte_goes_unnoticed,
    no_truncated_or_missing_or_zeroed_file_goes_unnoticed,
    a_last_batch_torn_at_any_byte_is_cut_and_the_rest_kept,
    damage_that_nobody_has_met_is_found_and_its_segment_set_aside,
    another_segment_size_applies_to_new_segments,
    the_log_agrees_with_its_model,
}

// Where something is expected at the same place as something else.
hold_for_encrypted_logs! { false:
    nothing_of_a_torn_batch_comes_back,
    nothing_of_a_torn_segment_start_comes_back,
    nothing_of_a_batch_lost_in_any_way_comes_back,
}

/// Whether any file holds these bytes.
fn holds(files: &SimulatedFiles, bytes: &[u8]) -> bool {
    files
        .contents()
        .values()
        .any(|file| file.windows(bytes.len()).any(|window| window == bytes))
}

fn telling(index: u64) -> Entry {
    Entry {
        payload: Bytes::from(b"a payload that can be told from any other ".repeat(20)),
        ..entry(index)
    }
}

const TOLD: &[u8] = b"a payload that can be told from any other";

fn write(files: &SimulatedFiles, from: u64) -> Vec<Located> {
    let mut log = open(files, IDLE).expect("sound");
    let entries: Vec<_> = (from..from + 12).map(telling).collect();
    let written = append(&mut log, &entries).expect("space");
    log.close().expect("healthy");
    written
}

#[test]
fn nothing_of_a_payload_can_be_read_in_any_file() {
    let files = SimulatedFiles::default();
    write(&files, 1);
    assert!(holds(&files, TOLD), "the search finds what is there");
    let files = SimulatedFiles::default();
    SEALED.set(true);
    write(&files, 1);
    assert!(!holds(&files, TOLD));
}

#[test]
fn encryption_begins_and_ends_with_a_new_segment_and_everything_stays_readable() {
    let files = SimulatedFiles::default();
    let mut written = write(&files, 1);
    SEALED.set(true);
    written.extend(write(&files, 13));
    let mut log = open(&files, IDLE).expect("sound");
    read_all(&log, &written).expect("of both kinds");
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
    let clear: Vec<u64> = log.coverage.clear.iter().copied().collect();
    assert!(log.coverage.sealed.len() > 1 && clear.len() > 1);
    assert!(holds(&files, TOLD));
    log.recycle(&clear).expect("not in use");
    log.close().expect("healthy");
    assert!(
        !holds(&files, TOLD),
        "what was clear is removed, not kept for reuse"
    );
    // Off again: the keys are still there, and nothing is encrypted with them.
    SEALED.set(false);
    let off = || LogOptions {
        vault: crate::vault::ended(),
        ..options(IDLE)
    };
    let mut log = open_with(&files, off()).expect("sound");
    read_all(&log, &written[12..]).expect("with its key");
    assert!(log.has_sealed_segments());
    let entries: Vec<_> = (25..37).map(telling).collect();
    written.extend(append(&mut log, &entries).expect("space"));
    log.close().expect("healthy");
    assert!(holds(&files, TOLD));
    let mut log = open_with(&files, off()).expect("sound");
    read_all(&log, &written[12..]).expect("of both kinds");
    let sealed: Vec<u64> = log.coverage.sealed.iter().copied().collect();
    log.recycle(&sealed).expect("not in use");
    assert!(!log.has_sealed_segments());
}

#[test]
fn another_key_reads_nothing() {
    let files = SimulatedFiles::default();
    SEALED.set(true);
    let written = write(&files, 1);
    let other = LogOptions {
        vault: crate::vault::testing_other(),
        ..options(IDLE)
    };
    let log = open_with(&files, other).expect("its framing is in the clear");
    let error = read_all(&log, &written).expect_err("no");
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
}

#[test]
fn an_entry_that_was_changed_with_its_checksum_is_noticed() {
    let files = SimulatedFiles::default();
    SEALED.set(true);
    let written = write(&files, 1);
    let (location, _) = &written[0];
    let name = keeper::segment_name(location.position.segment);
    let mut contents = files.contents();
    let file = contents.get_mut(&name).expect("its segment");
    let at = location.position.offset as usize;
    let store = StoreId(*b"a store in tests");
    let entry = file.get_mut(at..at + location.len as usize).expect("whole");
    entry[ENTRY_HEADER_BYTES + 30] ^= 1;
    let header = EntryHeader::decode(entry).expect("a header");
    let (head, payload) = entry.split_at_mut(ENTRY_HEADER_BYTES);
    head.copy_from_slice(&header.finish(store, location.position, payload));
    let changed = SimulatedFiles::with_contents(&contents);
    let log = open(&changed, IDLE).expect("checksums hold");
    let error = read_all(&log, &written[..1]).expect_err("noticed");
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
}
