//! One suite for every implementation of `LogStore`.

use bytes::Bytes;
use menes_jetstream::ids::GroupId;
use menes_jetstream::memory::MemoryLog;
use menes_jetstream::ports::{
    Entry, EntryKind, EntryLocation, LogPosition, LogStore, StoreError, StoreErrorKind, Ticket,
};
use menes_storage::log::{LogOptions, SegmentLog};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

/// A log that can be synced, crashed and opened again.
trait Subject {
    type Log: LogStore;
    fn new() -> Self;
    fn open(&mut self) -> Self::Log;
    /// Waits until a ticket is durable.
    fn sync(&self, log: &mut Self::Log, ticket: Ticket);
    /// What the next start finds when the process dies now.
    fn crash(&mut self, log: Self::Log) -> Self::Log;
    fn close(&mut self, log: Self::Log) -> Self::Log;
}

const SEGMENT_BYTES: u32 = 64 << 10;

struct Memory(MemoryLog);

impl Subject for Memory {
    type Log = MemoryLog;

    fn new() -> Self {
        Self(MemoryLog::manual().with_segment_bytes(SEGMENT_BYTES))
    }

    fn open(&mut self) -> MemoryLog {
        self.0.clone()
    }

    fn sync(&self, _: &mut MemoryLog, ticket: Ticket) {
        self.0.sync_to(ticket);
    }

    fn crash(&mut self, log: MemoryLog) -> MemoryLog {
        self.0.crash();
        log
    }

    fn close(&mut self, log: MemoryLog) -> MemoryLog {
        self.0.sync();
        self.crash(log)
    }
}

struct Segments(TempDir);

impl Subject for Segments {
    type Log = SegmentLog;

    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    fn open(&mut self) -> SegmentLog {
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            ..LogOptions::default()
        };
        SegmentLog::open(self.0.path(), options, None, Arc::new(|| {})).expect("sound")
    }

    fn sync(&self, log: &mut SegmentLog, ticket: Ticket) {
        while log.poll_synced().expect("healthy") < ticket {
            std::thread::yield_now();
        }
    }

    fn crash(&mut self, log: SegmentLog) -> SegmentLog {
        // Files are renamed in the background: a copy that met one of them half-way is no crash.
        let after = loop {
            let after = tempfile::tempdir().expect("temporary directory");
            match copy_all(self.0.path(), after.path()) {
                Ok(()) => break after,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
            }
        };
        drop(log);
        self.0 = after;
        self.open()
    }

    fn close(&mut self, log: SegmentLog) -> SegmentLog {
        log.close().expect("healthy");
        self.open()
    }
}

/// Copies a directory as it was at one moment: nothing changed while it was read twice.
fn copy_all(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    let read = || -> std::io::Result<BTreeMap<_, _>> {
        std::fs::read_dir(from)?
            .map(|entry| entry.and_then(|e| Ok((e.file_name(), std::fs::read(e.path())?))))
            .collect()
    };
    let mut files = read()?;
    loop {
        let again = read()?;
        if again == files {
            break;
        }
        files = again;
    }
    files
        .iter()
        .try_for_each(|(name, bytes)| std::fs::write(to.join(name), bytes))
}

fn entry(index: u64, len: usize) -> Entry {
    Entry {
        group: GroupId(16 + index % 5),
        index,
        term: 1 + index % 2,
        kind: EntryKind::from_u8(1 + (index % 4) as u8).expect("a kind"),
        compress: false,
        payload: (0..len)
            .map(|at| (index as usize * 31 + at) as u8)
            .collect::<Vec<_>>()
            .into(),
    }
}

type Located = (EntryLocation, Entry);

fn append(log: &mut impl LogStore, entries: &[Entry]) -> (Ticket, Vec<Located>) {
    let appended = log.append(entries).expect("space");
    assert_eq!(appended.locations.len(), entries.len());
    (
        appended.ticket,
        appended
            .locations
            .into_iter()
            .zip(entries.iter().cloned())
            .collect(),
    )
}

fn replay(log: &mut impl LogStore, from: LogPosition) -> Result<Vec<Located>, StoreError> {
    let mut seen = Vec::new();
    log.replay(from, &mut |location, entry| {
        seen.push((location, entry));
        Ok(())
    })?;
    Ok(seen)
}

fn read(log: &impl LogStore, (location, entry): &Located) -> Result<Bytes, StoreError> {
    log.read(*location, entry.group, entry.index)
}

fn places_rise_and_entries_are_readable_at_once<S: Subject>() {
    let mut subject = S::new();
    let mut log = subject.open();
    let entries: Vec<_> = (1..100)
        .map(|index| entry(index, index as usize * 17))
        .collect();
    let (ticket, written) = append(&mut log, &entries);
    assert!(
        written
            .windows(2)
            .all(|pair| pair[0].0.position < pair[1].0.position)
    );
    assert!(written[0].0.position > LogPosition::default());
    for located in &written {
        assert_eq!(read(&log, located).expect("in flight"), located.1.payload);
    }
    subject.sync(&mut log, ticket);
    for located in &written {
        assert_eq!(read(&log, located).expect("on disk"), located.1.payload);
    }
    assert!(log.segments().windows(2).all(|pair| pair[0] < pair[1]));
    assert!(log.segments().len() > 1);
    assert_eq!(log.segments().last(), Some(&written[98].0.position.segment));
}

fn tickets_rise_and_cover_all_before<S: Subject>() {
    let mut subject = S::new();
    let mut log = subject.open();
    assert_eq!(log.poll_synced().expect("healthy"), Ticket(0));
    let (first, _) = append(&mut log, &[entry(1, 10)]);
    let (second, _) = append(&mut log, &[entry(2, 10), entry(3, 10)]);
    assert!(Ticket(0) < first && first < second);
    subject.sync(&mut log, second);
    assert_eq!(log.poll_synced().expect("healthy"), second);
    let (third, _) = append(&mut log, &[]);
    assert!(third >= second);
}

fn replay_begins_after_the_position<S: Subject>() {
    let mut subject = S::new();
    let mut log = subject.open();
    let entries: Vec<_> = (1..100).map(|index| entry(index, 1000)).collect();
    let (ticket, written) = append(&mut log, &entries);
    subject.sync(&mut log, ticket);
    let mut log = subject.close(log);
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
    for from in [0, 1, 50, 64, 97, 98] {
        let seen = replay(&mut log, written[from].0.position).expect("sound");
        assert_eq!(seen, written[from + 1..], "from {from}");
    }
    let stop = StoreError::new(StoreErrorKind::Io, "stop");
    let mut visited = 0;
    let stopped = log.replay(LogPosition::default(), &mut |_, _| {
        visited += 1;
        if visited == 3 {
            Err(stop.clone())
        } else {
            Ok(())
        }
    });
    assert_eq!(
        (stopped.map_err(|error| error.what), visited),
        (Err("stop".into()), 3)
    );
}

fn replay_from_where_nothing_is_fails<S: Subject>() {
    let mut subject = S::new();
    let mut log = subject.open();
    let (ticket, written) = append(&mut log, &[entry(1, 10)]);
    subject.sync(&mut log, ticket);
    let mut log = subject.close(log);
    let last = written[0].0.position;
    for from in [
        LogPosition {
            offset: last.offset + 8,
            ..last
        },
        LogPosition {
            offset: last.offset + 4096,
            ..last
        },
        LogPosition {
            segment: last.segment + 1,
            ..last
        },
    ] {
        let error = replay(&mut log, from).expect_err("nothing is there");
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
    }
}

fn a_crash_keeps_what_was_synced<S: Subject>() {
    let mut subject = S::new();
    let mut log = subject.open();
    let (ticket, written) = append(&mut log, &[entry(1, 3000), entry(2, 3)]);
    subject.sync(&mut log, ticket);
    append(&mut log, &[entry(3, 300)]);
    let mut log = subject.crash(log);
    let seen = replay(&mut log, LogPosition::default()).expect("sound");
    assert_eq!(seen[..2], written);
    assert!(seen.len() <= 3);
    let (ticket, more) = append(&mut log, &[entry(4, 30)]);
    subject.sync(&mut log, ticket);
    let mut log = subject.close(log);
    let again = replay(&mut log, LogPosition::default()).expect("sound");
    assert_eq!(again, [seen, more].concat());
}

fn reading_what_is_not_there_is_an_error<S: Subject>() {
    let mut subject = S::new();
    let mut log = subject.open();
    let (ticket, written) = append(&mut log, &[entry(1, 10), entry(2, 10)]);
    subject.sync(&mut log, ticket);
    let (location, first) = &written[0];
    let position = location.position;
    let elsewhere = LogPosition {
        offset: position.offset + 8,
        ..position
    };
    let later = LogPosition {
        segment: position.segment + 1,
        ..position
    };
    for (location, group, index) in [
        (*location, first.group, 2),
        (*location, GroupId(0), 1),
        (
            EntryLocation {
                len: location.len - 1,
                ..*location
            },
            first.group,
            1,
        ),
        (
            EntryLocation {
                len: u32::MAX,
                ..*location
            },
            first.group,
            1,
        ),
        (
            EntryLocation {
                position: elsewhere,
                ..*location
            },
            first.group,
            1,
        ),
        (
            EntryLocation {
                position: later,
                ..*location
            },
            first.group,
            1,
        ),
    ] {
        let error = log
            .read(location, group, index)
            .expect_err("not what was appended");
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
    }
}

fn recycling_gives_up_whole_segments<S: Subject>() {
    let mut subject = S::new();
    let mut log = subject.open();
    let entries: Vec<_> = (1..200).map(|index| entry(index, 1000)).collect();
    let (ticket, mut written) = append(&mut log, &entries);
    subject.sync(&mut log, ticket);
    let segments = log.segments();
    let active = *segments.last().expect("never empty");
    assert!(
        log.recycle(&[segments[0], active]).is_err(),
        "the last one is being written"
    );
    assert_eq!(log.segments(), segments, "then none is given up");
    log.recycle(&segments[..2]).expect("nothing refers to them");
    assert!(log.recycle(&segments[..1]).is_err(), "it is gone already");
    assert_eq!(log.segments(), segments[2..]);
    assert!(read(&log, &written[0]).is_err());
    written.retain(|(location, _)| location.position.segment > segments[1]);
    let (ticket, more) = append(&mut log, &[entry(200, 70)]);
    written.extend(more);
    subject.sync(&mut log, ticket);
    let mut log = subject.close(log);
    assert_eq!(log.segments(), segments[2..]);
    assert_eq!(
        replay(&mut log, LogPosition::default()).expect("sound"),
        written
    );
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u16>),
    Sync,
    Recycle,
    Crash,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(0..20_000_u16, 0..6).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => Just(Step::Recycle),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 1..50)
}

fn agrees_with_its_model<S: Subject>(steps: Vec<Step>) {
    let mut subject = S::new();
    let mut log = subject.open();
    let mut written: Vec<Located> = Vec::new();
    let mut durable = 0;
    let mut next = 1;
    let mut last_ticket = Ticket(0);
    for step in steps {
        match step {
            Step::Append(sizes) => {
                let entries: Vec<_> = (next..)
                    .zip(sizes)
                    .map(|(index, len)| entry(index, len.into()))
                    .collect();
                next += entries.len() as u64;
                let (ticket, located) = append(&mut log, &entries);
                assert!(ticket >= last_ticket);
                last_ticket = ticket;
                written.extend(located);
            }
            Step::Sync | Step::Recycle => {
                subject.sync(&mut log, last_ticket);
                if matches!(step, Step::Recycle)
                    && let [oldest, _, ..] = log.segments()[..]
                {
                    log.recycle(&[oldest]).expect("nothing refers to it");
                    written.retain(|(location, _)| location.position.segment != oldest);
                }
                durable = written.len();
            }
            Step::Crash | Step::Close => {
                let segments = log.segments();
                if matches!(step, Step::Close) {
                    durable = written.len();
                    log = subject.close(log);
                } else {
                    log = subject.crash(log);
                }
                // What was recycled just before a crash may come back, and is recycled again.
                let returned: Vec<_> = log
                    .segments()
                    .into_iter()
                    .filter(|s| !segments.contains(s))
                    .collect();
                log.recycle(&returned).expect("nothing refers to them");
                last_ticket = Ticket(0);
                let seen = replay(&mut log, LogPosition::default()).expect("sound");
                assert!(seen.len() >= durable && written.starts_with(&seen));
                written = seen;
                durable = written.len();
            }
        }
        for located in &written {
            assert_eq!(read(&log, located).expect("readable"), located.1.payload);
        }
    }
}

macro_rules! suite {
    ($name:ident, $subject:ty, $cases:expr, [$($fact:ident),* $(,)?]) => {
        mod $name {
            use super::*;

            $(#[test]
            fn $fact() {
                super::$fact::<$subject>();
            })*

            proptest! {
                #![proptest_config(ProptestConfig {
                    cases: $cases,
                    max_shrink_iters: 200,
                    ..ProptestConfig::default()
                })]

                #[test]
                fn agrees_with_its_model(steps in steps()) {
                    super::agrees_with_its_model::<$subject>(steps);
                }
            }
        }
    };
    ($name:ident, $subject:ty, $cases:expr) => {
        suite!($name, $subject, $cases, [
            places_rise_and_entries_are_readable_at_once,
            tickets_rise_and_cover_all_before,
            replay_begins_after_the_position,
            replay_from_where_nothing_is_fails,
            a_crash_keeps_what_was_synced,
            reading_what_is_not_there_is_an_error,
            recycling_gives_up_whole_segments,
        ]);
    };
}

suite!(memory, Memory, 200);
suite!(segments, Segments, 20);
