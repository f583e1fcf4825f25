//! The log over simulated disks: every crash point, every flipped byte, every failed operation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::faults::{Cut, Fault, Random, SimulatedFiles};
use super::sidecar::Sidecar;
use super::*;
use crate::disk_space::Space;
use crate::vault::CipherSuite;

mod prewritten;
mod sealed;

const SEGMENT: u32 = 4096;
const IDLE: TailEvidence = TailEvidence::WhenIdle(Duration::ZERO);
const NEVER_IDLE: TailEvidence = TailEvidence::WhenIdle(Duration::from_secs(3600));

std::thread_local! {
    /// Whether logs of this test are encrypted.
    static SEALED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    /// Whether entries of this test compress, and ask for it.
    static PACKED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    /// Whether segments of this test are written before their use. That happens in the background,
    /// so steps on the disk cannot be counted.
    static PREWRITE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn options(evidence: TailEvidence) -> LogOptions {
    let vault = if SEALED.get() {
        crate::vault::testing(CipherSuite::ChaCha)
    } else {
        Vault::default()
    };
    LogOptions {
        segment_bytes: SEGMENT,
        prewrite: PREWRITE.get(),
        tail_evidence: evidence,
        scrub: None,
        vault,
        ..LogOptions::default()
    }
}

fn roomy() -> DiskSpace {
    let space = || {
        Ok(Space {
            free: 1 << 40,
            total: 1 << 40,
        })
    };
    DiskSpace::with_probe(Watermarks::default(), Arc::new(space))
}

fn open(files: &SimulatedFiles, evidence: TailEvidence) -> Result<SegmentLog, OpenError> {
    open_with(files, options(evidence))
}

fn open_with(files: &SimulatedFiles, options: LogOptions) -> Result<SegmentLog, OpenError> {
    let id = StoreId(*b"a store in tests");
    SegmentLog::start(
        Arc::new(files.clone()),
        options,
        roomy(),
        None,
        id,
        Arc::new(|| {}),
    )
}

/// The `index`th entry of a test, of a size that varies with it.
fn entry(index: u64) -> Entry {
    sized(index, (index * 37 % 700) as usize)
}

fn sized(index: u64, len: usize) -> Entry {
    let mut random = Random(index);
    // Not more than so many kinds of bytes, and each twice, so that it compresses.
    let kinds = if PACKED.get() { 16 } else { 256 };
    let mut payload: Vec<u8> = (0..len).map(|_| random.below(kinds) as u8).collect();
    if PACKED.get() {
        let (first, second) = payload.split_at_mut(len / 2);
        second[..len / 2].copy_from_slice(first);
    }
    Entry {
        group: GroupId(16 + index % 3),
        index,
        term: 1,
        kind: EntryKind::Publish,
        compress: PACKED.get() && len > 100,
        payload: Bytes::from(payload),
    }
}

/// Waits until everything appended is durable or the log has failed.
fn settle(log: &mut SegmentLog) -> Result<(), StoreError> {
    while log.poll_synced()? < log.appended {
        std::thread::yield_now();
    }
    Ok(())
}

type Located = (EntryLocation, Entry);

fn append(log: &mut SegmentLog, entries: &[Entry]) -> Result<Vec<Located>, StoreError> {
    let locations = log.append(entries)?.locations;
    let kept = entries.iter().cloned().map(|mut entry| {
        // Those that compress too little stay as they are, and are read so.
        entry.compress &= packing::pack(&entry.payload).is_some();
        entry
    });
    Ok(locations.into_iter().zip(kept).collect())
}

fn replay(log: &mut SegmentLog, from: LogPosition) -> Result<Vec<Located>, StoreError> {
    let mut seen = Vec::new();
    log.replay(from, &mut |location, entry| {
        seen.push((location, entry));
        Ok(())
    })?;
    Ok(seen)
}

fn read_all(log: &SegmentLog, entries: &[Located]) -> Result<(), StoreError> {
    for (location, entry) in entries {
        assert_eq!(
            log.read(*location, entry.group, entry.index)?,
            entry.payload
        );
        read_parts(log, *location, entry)?;
    }
    Ok(())
}

/// Parts are what they are of the payload, wherever they can be had.
fn read_parts(log: &SegmentLog, at: EntryLocation, entry: &Entry) -> Result<(), StoreError> {
    let payload = &entry.payload;
    let len = u32::try_from(payload.len()).expect("small");
    let read = |range| log.read_part(at, entry.group, entry.index, range);
    assert_eq!(
        read(len / 2..len + 1)?.filter(|part| payload.ends_with(part)),
        None
    );
    for range in [0..len, len / 3..len / 2, len / 2..len, len..len] {
        let part = read(range.clone())?;
        if log.has_parts(at, payload.len()) {
            let range = range.start as usize..range.end as usize;
            assert_eq!(part, Some(payload.slice(range)));
        }
    }
    Ok(())
}

#[test]
fn parts_can_be_had_of_what_lies_there_as_it_is() {
    for (compress, key) in [(false, false), (true, false), (false, true)] {
        let files = SimulatedFiles::default();
        SEALED.set(key);
        let options = options(IDLE);
        let mut log = open_with(&files, options.clone()).expect("new");
        let entry = Entry {
            compress,
            payload: Bytes::from(vec![b'x'; 900]),
            ..entry(1)
        };
        let written = append(&mut log, &[entry]).expect("space");
        for _ in 0..2 {
            settle(&mut log).expect("healthy");
            read_all(&log, &written).expect("readable");
            let (at, entry) = &written[0];
            assert_eq!(log.has_parts(*at, entry.payload.len()), !compress && !key);
            log.close().expect("healthy");
            log = open_with(&files, options.clone()).expect("closed in good order");
        }
        let nowhere = EntryLocation {
            position: LogPosition {
                segment: 9,
                ..written[0].0.position
            },
            ..written[0].0
        };
        assert_eq!(
            log.read_part(nowhere, GroupId(16), 1, 0..5)
                .expect("no error"),
            None
        );
    }
}

#[test]
fn what_was_appended_is_read_before_and_after_its_sync_and_after_a_restart() {
    let files = SimulatedFiles::default();
    let mut log = open(&files, IDLE).expect("new");
    let mut written = Vec::new();
    for batch in 0..20 {
        let entries: Vec<_> = (batch * 3 + 1..batch * 3 + 4).map(entry).collect();
        written.extend(append(&mut log, &entries).expect("space"));
        read_all(&log, &written).expect("in flight or on disk");
    }
    settle(&mut log).expect("healthy");
    assert!(log.in_flight.is_empty());
    read_all(&log, &written).expect("on disk");
    assert!(log.segments().len() > 3);
    log.close().expect("healthy");

    let mut log = open(&files, IDLE).expect("closed in good order");
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
    read_all(&log, &written).expect("on disk");
    for cut in [0, 7, 30, 59] {
        let later = replay(&mut log, written[cut].0.position).expect("sound");
        assert_eq!(later, written[cut + 1..]);
    }
}

#[test]
fn what_does_not_fit_into_the_short_first_segment_goes_to_the_next() {
    let files = SimulatedFiles::default();
    let long = LogOptions {
        segment_bytes: 16 << 20,
        ..options(IDLE)
    };
    let mut log = open_with(&files, long.clone()).expect("new");
    let sizes = [100, 9 << 20, 100, 1 << 20];
    let entries: Vec<_> = (1..).zip(sizes).map(|(at, len)| sized(at, len)).collect();
    let mut written = Vec::new();
    for entry in &entries {
        written.extend(append(&mut log, std::slice::from_ref(entry)).expect("space"));
    }
    settle(&mut log).expect("healthy");
    let segments = written.iter().map(|(at, _)| at.position.segment);
    assert_eq!(segments.collect::<Vec<_>>(), [1, 2, 2, 2]);
    log.close().expect("healthy");
    let mut log = open_with(&files, long).expect("closed in good order");
    let replayed = replay(&mut log, LogPosition::default()).expect("sound");
    assert_eq!(replayed, written);
}

#[test]
fn one_turn_takes_one_sync() {
    let files = SimulatedFiles::default();
    let mut log = open(&files, NEVER_IDLE).expect("new");
    let before = files.syncs();
    append(&mut log, &[sized(1, 10), sized(2, 10), sized(3, 10)]).expect("space");
    settle(&mut log).expect("healthy");
    assert_eq!(files.syncs(), before + 1);
    let stats = log.monitor().stats();
    assert_eq!((stats.turns, stats.bytes), (1, 40 + 3 * 48));
}

#[test]
fn reading_with_another_identity_is_an_error() {
    let files = SimulatedFiles::default();
    let mut log = open(&files, IDLE).expect("new");
    let written = append(&mut log, &[sized(1, 10), sized(2, 20)]).expect("space");
    for _ in 0..2 {
        let (location, first) = &written[0];
        let corrupt = |result: Result<Bytes, StoreError>| {
            assert_eq!(result.map_err(|e| e.kind), Err(StoreErrorKind::Corrupt));
        };
        corrupt(log.read(*location, first.group, 2));
        corrupt(log.read(*location, GroupId(99), 1));
        corrupt(log.read(
            EntryLocation {
                len: location.len + 1,
                ..*location
            },
            first.group,
            1,
        ));
        let position = LogPosition {
            segment: 9,
            ..location.position
        };
        corrupt(log.read(
            EntryLocation {
                position,
                ..*location
            },
            first.group,
            1,
        ));
        settle(&mut log).expect("healthy");
    }
}

#[test]
fn an_entry_of_the_largest_size_fits_and_one_byte_more_is_refused() {
    let files = SimulatedFiles::default();
    let mut log = open(&files, IDLE).expect("new");
    let max = log.max_payload_bytes() as usize;
    assert!(max > SEGMENT as usize * 9 / 10);
    let refused = log.append(&[sized(1, max + 1)]).map_err(|error| error.kind);
    assert_eq!(refused, Err(StoreErrorKind::Full));
    let mut written = Vec::new();
    for index in 1..4 {
        written.extend(append(&mut log, &[sized(index, max)]).expect("space"));
    }
    settle(&mut log).expect("healthy");
    read_all(&log, &written).expect("on disk");
    log.close().expect("healthy");
    let mut log = open(&files, IDLE).expect("closed in good order");
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
}

#[test]
fn a_full_disk_refuses_messages_and_takes_commands() {
    let space = || {
        Ok(Space {
            free: 1 << 20,
            total: 1 << 40,
        })
    };
    let space = DiskSpace::with_probe(Watermarks::default(), Arc::new(space));
    let files = Arc::new(SimulatedFiles::default());
    let id = StoreId([1; 16]);
    let mut log = SegmentLog::start(files, options(IDLE), space, None, id, Arc::new(|| {}))
        .expect("a full disk does not keep a server from starting");
    let message = log.append(&[entry(1)]).map_err(|error| error.kind);
    assert_eq!(message, Err(StoreErrorKind::Full));
    let command = Entry {
        kind: EntryKind::Command,
        compress: false,
        ..entry(1)
    };
    append(&mut log, &[command]).expect("commands pass");
    settle(&mut log).expect("healthy");
}

#[test]
fn a_segment_that_would_take_the_last_space_is_not_made_for_messages() {
    let free = Arc::new(AtomicU64::new(u64::from(SEGMENT) + 10_001));
    let total = 80_000;
    let left = Arc::clone(&free);
    let probe = move || {
        let free = left.load(Ordering::Relaxed);
        Ok(Space { free, total })
    };
    let watermarks = Watermarks {
        critical_bytes: Some(10_000),
        ..Watermarks::default()
    };
    let space = DiskSpace::with_probe(watermarks, Arc::new(probe));
    let files = SimulatedFiles::default();
    let id = StoreId(*b"a store in tests");
    let stock = Arc::new(files.clone());
    let mut log = SegmentLog::start(stock, options(IDLE), space, None, id, Arc::new(|| {}))
        .expect("there is space");
    let segments = || {
        let names = files.contents().into_keys();
        let numbers = names.filter_map(|name| keeper::segment_number(&name));
        numbers.max().expect("there is one")
    };
    // Room for one more, which is then taken.
    let mut index = 0;
    let mut next = || {
        index += 1;
        sized(index, 500)
    };
    let mut fill = |log: &mut SegmentLog| {
        let begun = segments();
        let mut written = Vec::new();
        loop {
            match append(log, &[next()]) {
                Ok(more) => written.extend(more),
                Err(error) => {
                    assert_eq!(error.kind, StoreErrorKind::Full);
                    return written;
                }
            }
            settle(log).expect("healthy");
            if segments() > begun {
                free.store(10_001, Ordering::Relaxed);
            }
            assert!(written.len() < 40, "it never became tight");
        }
    };
    let mut written = fill(&mut log);
    assert_eq!(segments(), 2);
    // What is no message goes on, into a file of its own where need be.
    for index in 100..120 {
        let command = Entry {
            kind: EntryKind::Command,
            compress: false,
            ..sized(index, 500)
        };
        written.extend(append(&mut log, &[command]).expect("commands pass"));
        settle(&mut log).expect("healthy");
    }
    assert!(segments() > 3);
    // With space again, messages go on.
    let before = segments();
    free.store(u64::from(SEGMENT) + 10_001, Ordering::Relaxed);
    let more = fill(&mut log);
    assert_eq!(segments(), before + 1);
    written.extend(more);
    read_all(&log, &written).expect("on disk");
    log.close().expect("healthy");
}

#[test]
fn too_much_pending_is_refused_and_nothing_of_it_is_taken() {
    let files = SimulatedFiles::default();
    let options = LogOptions {
        max_pending_bytes: 0,
        ..options(IDLE)
    };
    let mut log = open_with(&files, options).expect("new");
    let mut written = 0;
    let mut refused = 0;
    let begun = Instant::now();
    while refused == 0 && begun.elapsed() < Duration::from_secs(10) {
        match log.append(&[sized(written + 1, 100)]) {
            Ok(_) => written += 1,
            Err(error) => {
                assert_eq!(error.kind, StoreErrorKind::Full);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 1);
    log.close().expect("healthy");
    let mut log = open(&files, IDLE).expect("closed in good order");
    let indexes: Vec<_> = replay(&mut log, LogPosition::default())
        .expect("sound")
        .into_iter()
        .map(|(_, entry)| entry.index)
        .collect();
    assert_eq!(indexes, (1..=written).collect::<Vec<_>>());
}

#[test]
fn recycled_files_are_used_again_and_their_old_entries_are_not_seen() {
    let files = SimulatedFiles::default();
    let mut log = open(&files, IDLE).expect("new");
    let mut written = Vec::new();
    for index in 1..200 {
        written.extend(append(&mut log, &[entry(index)]).expect("space"));
        settle(&mut log).expect("healthy");
        if log.segments().len() > 3 {
            let oldest = log.segments()[0];
            log.recycle(&[oldest]).expect("nothing refers to it");
            written.retain(|(location, _)| location.position.segment > oldest);
        }
    }
    assert!(log.recycle(&[log.next.segment]).is_err());
    assert!(log.recycle(&[1]).is_err());
    let kept = log.segments();
    read_all(&log, &written).expect("kept");
    log.close().expect("healthy");
    assert!(
        files.contents().len() < 10,
        "files are reused: {:?}",
        files.contents().keys()
    );

    let mut log = open(&files, IDLE).expect("closed in good order");
    assert!(!log.is_complete());
    assert_eq!(log.segments(), kept);
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
    drop(log);
    let mut log = open(&files.after(Cut::KeepAll), IDLE).expect("killed");
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
}

#[test]
fn replay_needs_every_segment_after_its_start() {
    let files = SimulatedFiles::default();
    let mut log = open(&files, IDLE).expect("new");
    let entries: Vec<_> = (1..60).map(entry).collect();
    let written = append(&mut log, &entries).expect("space");
    settle(&mut log).expect("healthy");
    log.recycle(&[2]).expect("nothing refers to it");
    log.close().expect("healthy");
    let mut log = open(&files, IDLE).expect("closed in good order");
    let missing = replay(&mut log, written[0].0.position).map_err(|error| error.kind);
    assert_eq!(missing, Err(StoreErrorKind::Corrupt));
    let nowhere = LogPosition {
        segment: log.next.segment,
        offset: log.next.offset,
    };
    let ahead = replay(&mut log, nowhere).map_err(|error| error.kind);
    assert_eq!(ahead, Err(StoreErrorKind::Corrupt));
    let in_between = LogPosition {
        offset: written[40].0.position.offset + 8,
        ..written[40].0.position
    };
    let inside = replay(&mut log, in_between).map_err(|error| error.kind);
    assert_eq!(inside, Err(StoreErrorKind::Corrupt));
    append(&mut log, &[entry(60)]).expect("space");
    assert!(
        replay(&mut log, written[58].0.position).is_err(),
        "too late"
    );
}

/// Appends, waits now and then, recycles. Returns what was appended; stops at the first error.
fn workload(log: &mut SegmentLog, first: u64, seed: u64) -> Vec<Located> {
    let mut random = Random(seed);
    let mut written = Vec::new();
    let mut index = first;
    while index < first + 40 {
        let count = 1 + random.below(4);
        let entries: Vec<_> = (index..index + count).map(entry).collect();
        index += count;
        match append(log, &entries) {
            Ok(located) => written.extend(located),
            Err(_) => return written,
        }
        if random.below(3) == 0 && settle(log).is_err() {
            return written;
        }
    }
    if settle(log).is_ok() {
        log.stop();
    }
    written
}

/// How many of `written` had been published as durable.
fn acknowledged(log: &SegmentLog, written: &[Located], tickets: &[(Ticket, usize)]) -> usize {
    let synced = log.shared.synced();
    let covered = tickets.iter().filter(|(ticket, _)| *ticket <= synced);
    covered
        .map(|(_, count)| *count)
        .sum::<usize>()
        .min(written.len())
}

/// The tickets of a workload and how many entries each took.
fn tickets_of(first: u64, seed: u64) -> Vec<(Ticket, usize)> {
    let mut random = Random(seed);
    let mut tickets = Vec::new();
    let mut index = first;
    while index < first + 40 {
        let count = 1 + random.below(4);
        index += count;
        tickets.push((Ticket(tickets.len() as u64 + 1), count as usize));
        random.below(3);
    }
    tickets
}

/// A store that has seen a crash must hold a prefix of what was written, with all that was
/// acknowledged, and must go on working.
fn check_crashed(files: &SimulatedFiles, before: &[Located], acked: usize, what: &str) {
    let mut log = open(files, IDLE).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = replay(&mut log, LogPosition::default()).expect("what opens can be replayed");
    assert!(
        found.len() >= acked,
        "{what}: {} of {acked} acknowledged entries",
        found.len()
    );
    assert!(
        before.starts_with(&found),
        "{what}: only what was appended, in order"
    );
    read_all(&log, &found).expect("on disk");

    let mut all = found;
    all.extend(append(&mut log, &[entry(1000), entry(1001)]).expect("space"));
    settle(&mut log).expect("healthy");
    drop(log);
    let mut log = open(files, IDLE).expect("closed in good order");
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        all,
        "{what}"
    );
}

#[test]
fn a_crash_after_any_step_loses_nothing_acknowledged() {
    for evidence in [IDLE, NEVER_IDLE, TailEvidence::BeforeAck] {
        for step in 0.. {
            let files = SimulatedFiles::default();
            files.die_after(step);
            let (written, acked) = match open(&files, evidence) {
                Err(_) => (Vec::new(), 0),
                Ok(mut log) => {
                    let written = workload(&mut log, 1, step);
                    let acked = acknowledged(&log, &written, &tickets_of(1, step));
                    (written, acked)
                }
            };
            let cuts = (0..4).map(Cut::Tear).chain([Cut::KeepAll, Cut::KeepNone]);
            for cut in cuts {
                let what = format!("{evidence:?}, dead at step {step}, {cut:?}");
                check_crashed(&files.after(cut), &written, acked, &what);
            }
            if files.steps() <= step {
                break;
            }
        }
    }
}

/// What `begin` makes, which appends to a disk that is about to die: begun again where the log was
/// still moving its horizon, and met the dead disk first.
fn until_taken<T>(mut begin: impl FnMut() -> Result<T, StoreError>) -> T {
    for _ in 0..1000 {
        match begin() {
            Ok(begun) => return begun,
            Err(error) => assert_eq!(error.kind, StoreErrorKind::Closed, "{error}"),
        }
    }
    panic!("the append never gets through");
}

#[test]
fn a_crash_during_recovery_loses_nothing_either() {
    let (files, mut log, written) = until_taken(|| {
        let files = SimulatedFiles::default();
        let mut log = open(&files, NEVER_IDLE).expect("new");
        let entries: Vec<_> = (1..40).map(entry).collect();
        let mut written = append(&mut log, &entries).expect("space");
        settle(&mut log).expect("healthy");
        files.die_after(1);
        written.extend(append(&mut log, &[sized(40, 900), sized(41, 900)])?);
        Ok((files, log, written))
    });
    settle(&mut log).expect_err("the disk is dead");
    drop(log);
    for seed in 0..20 {
        let torn = files.after(Cut::Tear(seed));
        for step in 0.. {
            let again = torn.after(Cut::KeepAll);
            again.die_after(step);
            let opened = open(&again, NEVER_IDLE);
            let done = opened.is_ok();
            drop(opened);
            let what = format!("tear {seed}, recovery dead at step {step}");
            check_crashed(&again.after(Cut::Tear(step)), &written, 39, &what);
            if done {
                break;
            }
        }
    }
}

#[test]
fn the_first_failed_operation_is_the_last() {
    for fault in [Fault::Error, Fault::NoSpace, Fault::Short] {
        for step in 0..60 {
            let files = SimulatedFiles::default();
            let mut log = open(&files, TailEvidence::BeforeAck).expect("new");
            files.fault_after(step, fault);
            let written = workload(&mut log, 1, step);
            let acked = acknowledged(&log, &written, &tickets_of(1, step));
            if let Some(failure) = log.shared.failure().cloned() {
                let monitored = log.monitor().failure().map(|e| e.what);
                assert_eq!(monitored.as_ref(), Some(&failure.what));
                assert_eq!(log.poll_synced().map_err(|e| e.what), Err(failure.what));
                let closed = log.append(&[entry(99)]).map_err(|error| error.kind);
                assert_eq!(closed, Err(StoreErrorKind::Closed));
                // An empty file that was being written beforehand in that moment claims nothing.
                let syncs = || match PREWRITE.get() {
                    true => files.syncs_of_data(),
                    false => files.syncs(),
                };
                let before = syncs();
                drop(log);
                assert_eq!(syncs(), before, "nothing is synced after a failure");
            } else {
                drop(log);
            }
            for cut in [Cut::KeepAll, Cut::KeepNone, Cut::Tear(step)] {
                let what = format!("{fault:?} at step {step}, {cut:?}");
                check_crashed(&files.after(cut), &written, acked, &what);
            }
        }
    }
}

/// A store of a few entries over three segments, closed in good order or killed.
fn small_store(evidence: TailEvidence, clean: bool) -> (BTreeMap<String, Vec<u8>>, Vec<Located>) {
    let files = SimulatedFiles::default();
    let mut log = open(&files, evidence).expect("new");
    let mut written = Vec::new();
    for index in 1..22 {
        written.extend(append(&mut log, &[sized(index, 400)]).expect("space"));
        settle(&mut log).expect("healthy");
    }
    let killed = files.after(Cut::KeepNone);
    log.close().expect("healthy");
    let files = if clean { files } else { killed };
    (files.contents(), written)
}

/// Either an error is reported, or all of `written` is there unchanged.
fn check_damaged(contents: &BTreeMap<String, Vec<u8>>, written: &[Located], what: &str) -> bool {
    let files = SimulatedFiles::with_contents(contents);
    let Ok(mut log) = open(&files, IDLE) else {
        assert!(
            files.contents() == *contents,
            "{what}: what is not opened is not changed"
        );
        return true;
    };
    match replay(&mut log, LogPosition::default()).and_then(|seen| {
        read_all(&log, written)?;
        Ok(seen)
    }) {
        Err(error) => {
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{what}");
            true
        }
        Ok(seen) => {
            assert_eq!(seen, written, "{what}: neither reported nor unchanged");
            false
        }
    }
}

#[test]
fn no_flipped_byte_goes_unnoticed() {
    for (evidence, clean) in [(IDLE, true), (TailEvidence::BeforeAck, false)] {
        let (contents, written) = small_store(evidence, clean);
        assert!(!check_damaged(&contents, &written, "nothing is wrong"));
        let step = if clean { 3 } else { 1 } * if SEALED.get() { 5 } else { 1 };
        let stored: usize = written.iter().map(|(at, _)| at.len as usize).sum();
        let mut reported = 0;
        for (name, bytes) in &contents {
            let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
            for at in (0..used).step_by(step).chain([bytes.len() - 1]) {
                let mut damaged = contents.clone();
                damaged.get_mut(name).expect("it is there")[at] ^= 1 << (at % 8);
                let what = format!("clean {clean}, {name} flipped at {at}");
                reported += usize::from(check_damaged(&damaged, &written, &what));
            }
        }
        assert!(
            reported * step > stored,
            "flips in entries are reported: {reported}"
        );
    }
}

#[test]
fn no_truncated_or_missing_or_zeroed_file_goes_unnoticed() {
    for (evidence, clean) in [(IDLE, true), (TailEvidence::BeforeAck, false)] {
        let (contents, written) = small_store(evidence, clean);
        for (name, bytes) in &contents {
            let mut damaged = contents.clone();
            damaged.remove(name);
            check_damaged(
                &damaged,
                &written,
                &format!("clean {clean}, {name} missing"),
            );
            for len in (0..bytes.len()).step_by(if SEALED.get() { 71 } else { 7 }) {
                damaged.insert(name.clone(), bytes[..len].to_vec());
                let what = format!("clean {clean}, {name} cut to {len}");
                check_damaged(&damaged, &written, &what);
            }
            for sector in (0..bytes.len()).step_by(512) {
                let mut zeroed = bytes.clone();
                zeroed[sector..sector + 512].fill(0);
                damaged.insert(name.clone(), zeroed);
                let what = format!("clean {clean}, {name} zeroed at {sector}");
                check_damaged(&damaged, &written, &what);
            }
            for (other, bytes) in &contents {
                damaged.insert(name.clone(), bytes.clone());
                let what = format!("clean {clean}, {name} replaced by {other}");
                check_damaged(&damaged, &written, &what);
            }
        }
    }
}

#[test]
fn damage_before_the_last_batch_is_told_from_a_torn_tail_without_the_sidecar() {
    let (contents, written) = small_store(NEVER_IDLE, false);
    assert!(!check_damaged(&contents, &written, "nothing is wrong"));
    let last = written.last().expect("some").0.position;
    for (location, _) in &written {
        let position = location.position;
        let name = keeper::segment_name(position.segment);
        let mut damaged = contents.clone();
        damaged.get_mut(&name).expect("it is there")[position.offset as usize + 40] ^= 4;
        let files = SimulatedFiles::with_contents(&damaged);
        let opened = open(&files, IDLE)
            .and_then(|mut log| Ok(replay(&mut log, LogPosition::default())?.len()));
        if position == last {
            assert_eq!(opened.expect("taken for a torn tail"), written.len() - 1);
        } else {
            assert!(opened.is_err(), "damage at {position:?} must be reported");
        }
    }
}

#[test]
fn a_last_batch_torn_at_any_byte_is_cut_and_the_rest_kept() {
    let (contents, written) = small_store(NEVER_IDLE, false);
    let (last, rest) = written.split_last().expect("some");
    let position = last.0.position;
    let name = keeper::segment_name(position.segment);
    let begin = position.offset - OWN_ENTRY_BYTES;
    for at in begin..position.offset + last.0.len {
        let mut torn = contents.clone();
        let bytes = torn.get_mut(&name).expect("it is there");
        // What lay there before: half of the cuts in a new file, half in a recycled one.
        bytes[at as usize..].fill(if at % 2 == 0 { 0 } else { 0xa5 });
        let files = SimulatedFiles::with_contents(&torn);
        check_crashed(&files, &written, rest.len(), &format!("torn at {at}"));
    }
}

/// A batch of two entries is torn: `lost` of it is gone, the second entry has reached the disk. The
/// first entry is written again after the crash, into the same place; the second must not follow.
fn torn_batch_does_not_come_back(before: u64, lost: impl Fn(&EntryLocation) -> (u64, usize)) {
    let files = SimulatedFiles::default();
    let mut log = open(&files, NEVER_IDLE).expect("new");
    let mut written = Vec::new();
    for index in 1..=before {
        written.extend(append(&mut log, &[sized(index, 400)]).expect("space"));
        settle(&mut log).expect("healthy");
    }
    // As a server left it that knew of no horizons.
    let mut sidecar = files.contents()[sidecar::NAME].clone();
    for record in sidecar.chunks_mut(4096) {
        record[64..].fill(0);
    }
    let torn = append(&mut log, &[sized(50, 600), sized(51, 600)]).expect("space");
    settle(&mut log).expect("healthy");
    let mut contents = files.contents();
    contents.insert(sidecar::NAME.to_owned(), sidecar);
    let (segment, at) = lost(&torn[0].0);
    contents
        .get_mut(&keeper::segment_name(segment))
        .expect("it is there")[at] ^= 1;

    let files = SimulatedFiles::with_contents(&contents);
    let mut log = open(&files, NEVER_IDLE).expect("a torn tail");
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
    let again = append(&mut log, &[sized(60, 600)]).expect("space");
    assert_eq!(again[0].0, torn[0].0, "the test needs the same place");
    settle(&mut log).expect("healthy");
    written.extend(again);
    let mut log = open(&files.after(Cut::KeepAll), NEVER_IDLE).expect("killed");
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
}

#[test]
fn nothing_of_a_torn_batch_comes_back() {
    torn_batch_does_not_come_back(3, |first| {
        (first.position.segment, first.position.offset as usize - 20)
    });
}

#[test]
fn nothing_of_a_torn_segment_start_comes_back() {
    // How many fill the first segment depends on what sealing adds to each.
    let before = (1..20)
        .find(|before| {
            let mut log = open(&SimulatedFiles::default(), NEVER_IDLE).expect("new");
            for index in 1..=*before {
                append(&mut log, &[sized(index, 400)]).expect("space");
                settle(&mut log).expect("healthy");
            }
            let torn = append(&mut log, &[sized(50, 600), sized(51, 600)]).expect("space");
            torn[0].0.position.segment == 2
        })
        .expect("a segment is full some time");
    torn_batch_does_not_come_back(before, |first| {
        assert_eq!((first.position.segment, first.position.offset), (2, 104));
        (2, 3)
    });
}

/// The power goes while a batch of two large entries is written, in every way it can. When none of
/// it is kept and something is written again into the same place, nothing of it may follow.
fn nothing_comes_back_from_beyond_the_horizon(before: u64) {
    let mut again_in_place = 0;
    for step in 0..6 {
        let (files, mut log, written, lost) = until_taken(|| {
            let files = SimulatedFiles::default();
            let mut log = open(&files, NEVER_IDLE).expect("new");
            let mut written = Vec::new();
            for index in 1..=before {
                written.extend(append(&mut log, &[sized(index, 400)]).expect("space"));
                settle(&mut log).expect("healthy");
            }
            files.die_after(step);
            let lost = append(&mut log, &[sized(50, 600), sized(51, 600)])?;
            Ok((files, log, written, lost))
        });
        let synced = settle(&mut log).is_ok();
        drop(log);
        for seed in 0..200 {
            let what = format!("step {step}, seed {seed}");
            let files = files.after(Cut::Tear(seed));
            let mut log = open(&files, NEVER_IDLE).expect("a crash is not damage");
            let found = replay(&mut log, LogPosition::default()).expect("sound");
            assert!(found.starts_with(&written), "{what}");
            if found.len() > written.len() {
                continue;
            }
            assert!(!synced, "{what}: what was durable is kept");
            let again = append(&mut log, &[sized(60, 600)]).expect("space");
            again_in_place += usize::from(again[0].0 == lost[0].0);
            settle(&mut log).expect("healthy");
            let mut log = open(&files.after(Cut::KeepAll), NEVER_IDLE).expect("killed");
            let all = [written.clone(), again].concat();
            let seen = replay(&mut log, LogPosition::default()).expect("sound");
            assert_eq!(seen, all, "{what}");
        }
    }
    assert!(again_in_place > 100, "the test needs the same place");
}

#[test]
fn nothing_of_a_batch_lost_in_any_way_comes_back() {
    for before in [3, 5, 8, 9] {
        nothing_comes_back_from_beyond_the_horizon(before);
    }
}

#[test]
fn a_start_reads_what_was_written_lately_and_not_the_segment() {
    const LARGE: u32 = 32 << 20;
    let large = || LogOptions {
        segment_bytes: LARGE,
        ..options(NEVER_IDLE)
    };
    let files = SimulatedFiles::default();
    let mut log = open_with(&files, large()).expect("new");
    let read = files.bytes_read();
    assert!(read < 2 << 20, "{read} bytes");
    let mut written = Vec::new();
    for index in 1..100 {
        written.extend(append(&mut log, &[entry(index)]).expect("space"));
        settle(&mut log).expect("healthy");
    }
    let killed = files.after(Cut::KeepAll);
    let mut log = open_with(&killed, large()).expect("killed");
    let read = killed.bytes_read();
    assert!(read < 3 << 20, "{read} bytes");
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );

    // Without a sound row of records all of it is read.
    let mut contents = files.contents();
    contents.get_mut(sidecar::NAME).expect("it is there")[4096 * 3 + 20] ^= 1;
    let damaged = SimulatedFiles::with_contents(&contents);
    let mut log = open_with(&damaged, large()).expect("killed");
    assert!(damaged.bytes_read() > u64::from(recovery::FIRST_SEGMENT_BYTES.min(LARGE)));
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
}

#[test]
fn damage_that_nobody_has_met_is_found_and_its_segment_set_aside() {
    let files = SimulatedFiles::default();
    let mut log = open(&files, IDLE).expect("new");
    let mut written = Vec::new();
    for index in 1..40 {
        written.extend(append(&mut log, &[sized(index, 400)]).expect("space"));
        settle(&mut log).expect("healthy");
    }
    log.close().expect("healthy");
    let mut contents = files.contents();
    let hit = written[12].0.position;
    let name = keeper::segment_name(hit.segment);
    contents.get_mut(&name).expect("it is there")[hit.offset as usize + 50] ^= 1;

    let files = SimulatedFiles::with_contents(&contents);
    let scrub = Scrub {
        bytes_per_second: u64::MAX,
        pause: Duration::from_secs(3600),
        delay: Duration::ZERO,
    };
    let options = LogOptions {
        scrub: Some(scrub),
        ..options(IDLE)
    };
    let mut log = open_with(&files, options).expect("closed in good order");
    let monitor = log.monitor();
    let begun = Instant::now();
    while monitor.damage().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is found");
        std::thread::yield_now();
    }
    assert_eq!(monitor.damage(), [hit]);
    for (location, entry) in &written {
        let read = log.read(*location, entry.group, entry.index);
        let expected = if location.position == hit {
            Err(StoreErrorKind::Corrupt)
        } else {
            Ok(entry.payload.clone())
        };
        assert_eq!(read.map_err(|error| error.kind), expected);
    }
    let old = |segment: &u64| *segment <= hit.segment;
    let segments: Vec<u64> = log.segments().into_iter().filter(old).collect();
    log.recycle(&segments).expect("nothing refers to them");
    assert!(monitor.damage().is_empty());
    log.close().expect("healthy");
    let left = files.contents();
    let aside = format!("damaged-{:020}", hit.segment);
    assert_eq!(left.get(&aside), contents.get(&name));
    let is_aside = |name: &&String| name.starts_with("damaged");
    assert_eq!(left.keys().filter(is_aside).count(), 1);
    let log = open(&files, IDLE).expect("closed in good order");
    assert!(!log.segments().contains(&hit.segment));
}

#[test]
fn a_newer_version_is_refused_untouched() {
    let (mut contents, _) = small_store(IDLE, true);
    for copy in [0, 4096] {
        contents.get_mut(superblock::NAME).expect("it is there")[copy + 8] = 7;
    }
    let files = SimulatedFiles::with_contents(&contents);
    let error = open(&files, IDLE).expect_err("version 7");
    assert!(
        matches!(
            error,
            OpenError::NewerVersion {
                found: 7,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(files.contents(), contents);
}

#[test]
fn another_segment_size_applies_to_new_segments() {
    let files = SimulatedFiles::default();
    let mut written = Vec::new();
    let mut next = 1;
    for segment_bytes in [4096, 16384, 8192, 4096] {
        let options = LogOptions {
            segment_bytes,
            ..options(IDLE)
        };
        let mut log = open_with(&files, options).expect("closed in good order");
        assert_eq!(
            replay(&mut log, LogPosition::default()).expect("sound"),
            written
        );
        for _ in 0..40 {
            written.extend(append(&mut log, &[entry(next)]).expect("space"));
            next += 1;
        }
        log.close().expect("healthy");
    }
}

#[test]
fn the_format_is_the_one_that_was_released() {
    let files = SimulatedFiles::default();
    let mut log = open(&files, NEVER_IDLE).expect("new");
    let payload = Bytes::from_static(b"hello");
    let entry = Entry {
        group: GroupId(16),
        index: 2,
        term: 3,
        kind: EntryKind::Consumer,
        compress: false,
        payload,
    };
    append(&mut log, &[entry]).expect("space");
    settle(&mut log).expect("healthy");
    let segment = &files.contents()[&keeper::segment_name(1)];
    let expected: &[&[u8]] = &[
        b"MENESSEG",
        &[1, 0, 0, 0],
        &HEADER_CRC,
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[0, 16, 0, 0],
        &[0; 4],
        b"a store in tests",
        &[0; 16],
        // The mark of batch 1.
        &[33, 0, 0, 0],
        &MARK_CRC,
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[0; 17],
        &[0; 7],
        // The entry.
        &[38, 0, 0, 0],
        &ENTRY_CRC,
        &[16, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0],
        &[3],
        b"hello",
        &[0; 2],
        // What was never written.
        &[0; 8],
    ];
    assert_eq!(segment[..152], expected.concat());
}

/// A log with one segment, in which another large entry has no room, and the index of the next.
fn log_before_its_second_segment(files: &SimulatedFiles) -> (SegmentLog, u64) {
    let mut log = open(files, NEVER_IDLE).expect("new");
    for index in 1..8 {
        append(&mut log, &[sized(index, 400)]).expect("space");
        settle(&mut log).expect("healthy");
    }
    (log, 8)
}

#[test]
fn no_start_looks_for_a_segment_once_the_next_holds_what_was_acknowledged() {
    let mut acknowledged = 0;
    for step in 0..20 {
        let files = SimulatedFiles::default();
        let (mut log, next) = log_before_its_second_segment(&files);
        files.die_after(step);
        let Ok(_) = append(&mut log, &[sized(next, 2000)]) else {
            continue;
        };
        // It may be acknowledged in the moment before the disk dies.
        drop(settle(&mut log));
        if log.shared.synced() == log.appended {
            acknowledged += 1;
            let file = files
                .after(Cut::KeepAll)
                .open(sidecar::NAME)
                .expect("it is there");
            let recorded = Sidecar::open(file, StoreId(*b"a store in tests"), 1);
            let recorded = recorded.expect("memory").expect("sound");
            assert_eq!(recorded.latest.segment, 2, "step {step}");
        }
    }
    assert!(acknowledged > 5, "some disks live on");
}

const HEADER_CRC: [u8; 4] = [123, 177, 122, 119];
const MARK_CRC: [u8; 4] = [85, 228, 210, 181];
const ENTRY_CRC: [u8; 4] = [253, 79, 17, 53];

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u16>),
    Settle,
    RecycleOldest,
    Close,
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(0..3000_u16, 1..5).prop_map(Step::Append),
        3 => Just(Step::Settle),
        1 => Just(Step::RecycleOldest),
        1 => Just(Step::Close),
        1 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

/// The log as it should be.
#[derive(Default)]
struct Model {
    entries: Vec<Located>,
    durable: usize,
    next_index: u64,
}

impl Model {
    fn check(&mut self, log: &mut SegmentLog) {
        let found = replay(log, LogPosition::default()).expect("sound");
        assert!(
            found.len() >= self.durable,
            "acknowledged entries are there"
        );
        assert!(
            self.entries.starts_with(&found),
            "only what was appended, in order"
        );
        self.entries.truncate(found.len());
        self.durable = found.len();
        if let Some((location, _)) = self.entries.get(found.len() / 2) {
            let later = replay(log, location.position).expect("sound");
            assert_eq!(later, self.entries[found.len() / 2 + 1..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_log_agrees_with_its_model(steps in steps(), strict in any::<bool>()) {
        let evidence = if strict { TailEvidence::BeforeAck } else { IDLE };
        let mut files = SimulatedFiles::default();
        let mut log = open(&files, evidence).expect("new");
        let mut model = Model { next_index: 1, ..Model::default() };
        for step in steps {
            match step {
                Step::Append(sizes) => {
                    let first = model.next_index;
                    model.next_index += sizes.len() as u64;
                    let entries: Vec<_> =
                        (first..).zip(sizes).map(|(index, len)| sized(index, len.into())).collect();
                    model.entries.extend(append(&mut log, &entries).expect("space"));
                }
                Step::Settle => {
                    settle(&mut log).expect("healthy");
                    model.durable = model.entries.len();
                }
                Step::RecycleOldest => {
                    settle(&mut log).expect("healthy");
                    if let [oldest, _, ..] = log.segments()[..] {
                        log.recycle(&[oldest]).expect("nothing refers to it");
                        model.entries.retain(|(at, _)| at.position.segment != oldest);
                    }
                    model.durable = model.entries.len();
                }
                Step::Close => {
                    log.close().expect("healthy");
                    model.durable = model.entries.len();
                    log = open(&files, evidence).expect("closed in good order");
                    model.check(&mut log);
                    prop_assert_eq!(model.durable, model.entries.len());
                }
                Step::Crash(seed) => {
                    // A recycled segment may come back: its names are synced in the background.
                    let segments = log.segments();
                    files = files.after(Cut::Tear(seed));
                    log = open(&files, evidence).expect("a crash is not damage");
                    let returned: Vec<_> =
                        log.segments().into_iter().filter(|s| Some(s) < segments.first()).collect();
                    log.recycle(&returned).expect("nothing refers to it");
                    model.check(&mut log);
                }
            }
            read_all(&log, &model.entries).expect("readable");
        }
    }
}
