//! One suite for every implementation of `StateStore`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use menes_jetstream::memory::{FlushedState, MemoryState};
use menes_jetstream::ports::{
    LogPosition, Row, Seek, StateStore, StoreErrorKind, Table, Write, WriteSet,
};
use menes_storage::OpenError;
use menes_storage::Scrub;
use menes_storage::state::{RocksState, StateOptions};
use proptest::prelude::*;
use tempfile::TempDir;

/// A store that can be flushed, crashed and opened again.
trait Subject {
    type Store: StateStore;
    fn new() -> Self;
    fn open(&mut self) -> Self::Store;
    /// Makes everything written durable.
    fn flush(store: &mut Self::Store);
    /// What the next start finds when the process dies now.
    fn crash(&mut self, store: Self::Store) -> Self::Store;
    fn close(&mut self, store: Self::Store) -> Self::Store;
}

struct Memory(FlushedState);

impl Subject for Memory {
    type Store = MemoryState;

    fn new() -> Self {
        Self(FlushedState::default())
    }

    fn open(&mut self) -> MemoryState {
        MemoryState::reopen(&self.0)
    }

    fn flush(store: &mut MemoryState) {
        store.begin_flush().expect("memory");
    }

    fn crash(&mut self, _: MemoryState) -> MemoryState {
        self.open()
    }

    fn close(&mut self, mut store: MemoryState) -> MemoryState {
        Self::flush(&mut store);
        self.open()
    }
}

struct Rocks(TempDir);

const LOG: [u8; 16] = [7; 16];

fn open_rocks(path: &Path) -> RocksState {
    let options = StateOptions {
        write_buffer_bytes: 1 << 20,
        ..StateOptions::default()
    };
    RocksState::open(path, LOG, &options).expect("a sound directory")
}

/// Copies a directory as it was at one moment: nothing changed while it was read twice.
fn copy(from: &Path, to: &Path) {
    let read = || -> std::io::Result<BTreeMap<_, _>> {
        std::fs::read_dir(from)?
            .map(|entry| entry.and_then(|e| Ok((e.file_name(), std::fs::read(e.path())?))))
            .collect()
    };
    let files = loop {
        // Files go in the background.
        if let (Ok(files), Ok(again)) = (read(), read())
            && files == again
        {
            break files;
        }
    };
    std::fs::create_dir_all(to).expect("writable");
    for (name, bytes) in files {
        std::fs::write(to.join(name), bytes).expect("writable");
    }
}

impl Subject for Rocks {
    type Store = RocksState;

    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    fn open(&mut self) -> RocksState {
        open_rocks(self.0.path())
    }

    fn flush(store: &mut RocksState) {
        store.flush().expect("a healthy disk");
    }

    fn crash(&mut self, store: RocksState) -> RocksState {
        let after = tempfile::tempdir().expect("temporary directory");
        copy(self.0.path(), after.path());
        drop(store);
        self.0 = after;
        self.open()
    }

    fn close(&mut self, store: RocksState) -> RocksState {
        store.close().expect("a healthy disk");
        self.open()
    }
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Write {
    Write::Put(table, key.to_vec(), value.to_vec())
}

fn at(offset: u32) -> Option<LogPosition> {
    Some(LogPosition { segment: 3, offset })
}

fn rows(store: &impl StateStore, table: Table, from: &[u8], to: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    let scanned = store.scan(table, from, to, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    });
    scanned.expect("a healthy disk");
    rows
}

fn row(key: &[u8], value: &[u8]) -> Row {
    (key.to_vec(), value.to_vec())
}

fn new_store_is_empty<S: Subject>() {
    let store = S::new().open();
    assert_eq!(store.applied(), None);
    assert_eq!(store.durable_applied(), None);
    for table in Table::ALL {
        assert_eq!(
            store.seek(table, b"", Seek::AtOrAfter).expect("healthy"),
            None
        );
        assert_eq!(
            store
                .seek(table, &[255; 9], Seek::AtOrBefore)
                .expect("healthy"),
            None
        );
    }
}

fn tables_are_apart<S: Subject>() {
    let mut store = S::new().open();
    for table in Table::ALL {
        let writes = vec![put(table, b"key", table.name().as_bytes())];
        store
            .write(&WriteSet {
                writes,
                applied: at(64),
            })
            .expect("healthy");
    }
    for table in Table::ALL {
        let value = store.get(table, b"key").expect("healthy");
        assert_eq!(value.as_deref(), Some(table.name().as_bytes()));
        let all = rows(&store, table, b"", &[255; 9]);
        assert_eq!(
            all,
            [row(b"key", table.name().as_bytes())],
            "nothing else shows up"
        );
    }
}

fn writes_apply_in_order<S: Subject>() {
    let mut store = S::new().open();
    let writes = vec![
        put(Table::Block, b"a", b"1"),
        put(Table::Block, b"b", b"1"),
        put(Table::Block, b"d", b"1"),
        Write::DeleteRange(Table::Block, b"a".to_vec(), b"d".to_vec()),
        put(Table::Block, b"b", b"2"),
        put(Table::Block, b"c", b"2"),
        Write::Delete(Table::Block, b"c".to_vec()),
        Write::Delete(Table::Block, b"never there".to_vec()),
        Write::DeleteRange(Table::Block, b"z".to_vec(), b"a".to_vec()),
    ];
    store
        .write(&WriteSet {
            writes,
            applied: at(64),
        })
        .expect("healthy");
    let expected = [row(b"b", b"2"), row(b"d", b"1")];
    assert_eq!(rows(&store, Table::Block, b"", b"zz"), expected);
    assert_eq!(store.applied(), at(64));
    store.write(&WriteSet::default()).expect("healthy");
    assert_eq!(store.applied(), at(64), "no position leaves it as it was");
}

fn seeks_find_the_nearest<S: Subject>() {
    let mut store = S::new().open();
    let keys: [&[u8]; 4] = [&[0, 1], &[0, 1, 0], &[7], &[255, 255]];
    let writes = keys
        .iter()
        .map(|key| put(Table::Subject, key, b"v"))
        .collect();
    store
        .write(&WriteSet {
            writes,
            applied: None,
        })
        .expect("healthy");
    let find = |key: &[u8], seek| {
        store
            .seek(Table::Subject, key, seek)
            .expect("healthy")
            .map(|(key, _)| key)
    };
    assert_eq!(find(&[], Seek::AtOrAfter), Some(vec![0, 1]));
    assert_eq!(find(&[0, 1], Seek::AtOrAfter), Some(vec![0, 1]));
    assert_eq!(find(&[0, 1, 0, 0], Seek::AtOrAfter), Some(vec![7]));
    assert_eq!(find(&[255, 255, 0], Seek::AtOrAfter), None);
    assert_eq!(find(&[0, 0], Seek::AtOrBefore), None);
    assert_eq!(find(&[0, 1], Seek::AtOrBefore), Some(vec![0, 1]));
    assert_eq!(find(&[6], Seek::AtOrBefore), Some(vec![0, 1, 0]));
    assert_eq!(find(&[255; 9], Seek::AtOrBefore), Some(vec![255, 255]));
    assert_eq!(
        rows(&store, Table::Subject, &[0, 1, 0], &[255, 255]).len(),
        2
    );
    assert_eq!(rows(&store, Table::Subject, &[9], &[9]), []);
    let mut visited = 0;
    let scanned = store.scan(Table::Subject, &[], &[255; 9], &mut |_, _| {
        visited += 1;
        visited < 2
    });
    scanned.expect("healthy");
    assert_eq!(visited, 2, "a scan stops when told");
}

fn a_crash_takes_back_what_was_not_flushed<S: Subject>() {
    let mut subject = S::new();
    let mut store = subject.open();
    let set = |key: u8, applied| WriteSet {
        writes: Table::ALL
            .into_iter()
            .map(|table| put(table, &[key], b"v"))
            .collect(),
        applied,
    };
    store.write(&set(1, at(64))).expect("healthy");
    S::flush(&mut store);
    assert_eq!(store.durable_applied(), at(64));
    store.write(&set(2, at(128))).expect("healthy");
    assert_eq!(store.durable_applied(), at(64));
    let mut store = subject.crash(store);
    assert_eq!((store.applied(), store.durable_applied()), (at(64), at(64)));
    for table in Table::ALL {
        assert_eq!(rows(&store, table, b"", &[9]), [row(&[1], b"v")]);
    }
    store.write(&set(3, at(192))).expect("healthy");
    let store = subject.close(store);
    assert_eq!(
        (store.applied(), store.durable_applied()),
        (at(192), at(192))
    );
    assert_eq!(
        rows(&store, Table::Dedup, b"", &[9]),
        [row(&[1], b"v"), row(&[3], b"v")]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    Flush,
    BeginFlush,
    Crash,
    Close,
}

#[derive(Clone, Debug)]
enum Change {
    Put(u8, Vec<u8>, Vec<u8>),
    Delete(u8, Vec<u8>),
    DeleteRange(u8, Vec<u8>, Vec<u8>),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..4_u8, 0..4)
}

fn change() -> impl Strategy<Value = Change> {
    let table = 0..Table::ALL.len() as u8;
    prop_oneof![
        5 => (table.clone(), key(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(table, key, value)| Change::Put(table, key, value)),
        2 => (table.clone(), key()).prop_map(|(table, key)| Change::Delete(table, key)),
        1 => (table, key(), key()).prop_map(|(table, a, b)| Change::DeleteRange(table, a, b)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => prop::collection::vec(change(), 0..8).prop_map(Step::Write),
        2 => Just(Step::Flush),
        2 => Just(Step::BeginFlush),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 1..40)
}

impl Change {
    fn to_write(&self) -> Write {
        let table = |number: &u8| Table::ALL[usize::from(*number)];
        match self {
            Self::Put(t, key, value) => Write::Put(table(t), key.clone(), value.clone()),
            Self::Delete(t, key) => Write::Delete(table(t), key.clone()),
            Self::DeleteRange(t, from, to) => {
                Write::DeleteRange(table(t), from.clone(), to.clone())
            }
        }
    }
}

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn apply(rows: &mut Rows, write: Write) {
    match write {
        Write::Put(table, key, value) => {
            rows.insert((table, key), value);
        }
        Write::Delete(table, key) => {
            rows.remove(&(table, key));
        }
        Write::DeleteRange(table, from, to) => {
            rows.retain(|(t, key), _| *t != table || *key < from || *key >= to);
        }
    }
}

fn everything(store: &impl StateStore) -> Rows {
    let mut all = Rows::new();
    for table in Table::ALL {
        for (key, value) in rows(store, table, &[], &[255; 9]) {
            assert_eq!(
                store.get(table, &key).expect("healthy").as_ref(),
                Some(&value)
            );
            all.insert((table, key), value);
        }
    }
    all
}

/// After every crash the store is as it was after some earlier write set, no earlier than the
/// last flush that was waited for.
fn agrees_with_its_model<S: Subject>(steps: Vec<Step>) {
    let mut subject = S::new();
    let mut store = subject.open();
    // The state after every write set; the position is the place in this list.
    let mut history = vec![Rows::new()];
    let mut durable = 0;
    for step in steps {
        match step {
            Step::Write(changes) => {
                let mut rows = history.last().expect("never empty").clone();
                let writes: Vec<_> = changes.iter().map(Change::to_write).collect();
                for write in writes.clone() {
                    apply(&mut rows, write);
                }
                let applied = at(u32::try_from(history.len()).expect("few"));
                store.write(&WriteSet { writes, applied }).expect("healthy");
                history.push(rows);
            }
            Step::Flush => {
                S::flush(&mut store);
                durable = history.len() - 1;
            }
            Step::BeginFlush => store.begin_flush().expect("healthy"),
            Step::Crash => {
                store = subject.crash(store);
                let kept = store
                    .applied()
                    .map_or(0, |position| position.offset as usize);
                assert!(kept >= durable, "what was flushed is there");
                assert_eq!(store.durable_applied(), store.applied());
                history.truncate(kept + 1);
                durable = kept;
            }
            Step::Close => {
                store = subject.close(store);
                durable = history.len() - 1;
            }
        }
        assert_eq!(Some(&everything(&store)), history.last());
        let position = (history.len() > 1).then_some(history.len() - 1);
        assert_eq!(store.applied().map(|p| p.offset as usize), position);
        let promised = store.durable_applied().map_or(0, |p| p.offset as usize);
        assert!(durable <= promised && promised < history.len());
    }
}

macro_rules! suite {
    ($name:ident, $subject:ty, $cases:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn new_store_is_empty() {
                super::new_store_is_empty::<$subject>();
            }

            #[test]
            fn tables_are_apart() {
                super::tables_are_apart::<$subject>();
            }

            #[test]
            fn writes_apply_in_order() {
                super::writes_apply_in_order::<$subject>();
            }

            #[test]
            fn seeks_find_the_nearest() {
                super::seeks_find_the_nearest::<$subject>();
            }

            #[test]
            fn a_crash_takes_back_what_was_not_flushed() {
                super::a_crash_takes_back_what_was_not_flushed::<$subject>();
            }

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
}

suite!(memory, Memory, 200);
suite!(rocks, Rocks, 12);

#[test]
fn a_failed_flush_poisons_the_store() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut store = open_rocks(directory.path());
    let set = |applied| WriteSet {
        writes: vec![put(Table::Meta, b"k", b"v")],
        applied,
    };
    store.write(&set(at(64))).expect("healthy");
    store.flush().expect("healthy");
    std::fs::remove_dir_all(directory.path()).expect("ours");
    store.write(&set(at(128))).expect("it stays in memory");
    store.flush().expect_err("there is nowhere to write");
    assert_eq!(store.durable_applied(), at(64));
    let closed = Err(StoreErrorKind::Closed);
    assert_eq!(
        store.write(&set(at(192))).map_err(|error| error.kind),
        closed
    );
    assert_eq!(store.begin_flush().map_err(|error| error.kind), closed);
    store.close().expect_err("it was not closed in good order");
}

#[test]
fn state_of_another_log_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    open_rocks(directory.path()).close().expect("healthy");
    let error = RocksState::open(directory.path(), [8; 16], &StateOptions::default())
        .expect_err("another log");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_crash_in_the_middle_of_automatic_flushes_leaves_all_tables_at_one_point() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut store = open_rocks(directory.path());
    for round in 0..6_u32 {
        for offset in round * 200..(round + 1) * 200 {
            let value = vec![round as u8; 600];
            let writes = Table::ALL
                .into_iter()
                .map(|table| put(table, &offset.to_be_bytes(), &value))
                .collect();
            store
                .write(&WriteSet {
                    writes,
                    applied: at(offset),
                })
                .expect("healthy");
        }
        let crashed = tempfile::tempdir().expect("temporary directory");
        let copied = std::panic::catch_unwind(|| copy(directory.path(), crashed.path()));
        if copied.is_err() {
            // A file was removed while it was copied: not what a crash looks like.
            continue;
        }
        let options = StateOptions::default();
        let Ok(after) = RocksState::open(crashed.path(), LOG, &options) else {
            // The copy caught files at different times, and RocksDB noticed.
            continue;
        };
        let expected = after
            .applied()
            .map_or(0, |position| position.offset as usize + 1);
        for table in Table::ALL {
            assert_eq!(
                rows(&after, table, b"", &[255; 9]).len(),
                expected,
                "{table:?}"
            );
        }
    }
}

#[test]
fn damage_to_rows_is_found_before_anybody_meets_it() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    let key = |n: u32| n.to_be_bytes();
    let value = |n: u32| vec![n as u8; 500];
    let mut store = open_rocks(path);
    for n in 0..200 {
        let writes = vec![put(Table::Subject, &key(n), &value(n))];
        let set = WriteSet {
            writes,
            applied: at(n),
        };
        store.write(&set).expect("healthy");
    }
    store.close().expect("healthy");
    let largest = std::fs::read_dir(path)
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "sst"))
        .max_by_key(|path| path.metadata().expect("readable").len())
        .expect("rows lie in a table");
    let scrub = Scrub {
        bytes_per_second: u64::MAX,
        pause: Duration::from_millis(20),
        delay: Duration::ZERO,
    };
    let options = StateOptions {
        scrub: Some(scrub),
        ..StateOptions::default()
    };
    let store = RocksState::open(path, LOG, &options).expect("sound");
    let monitor = store.monitor();
    for n in 0..200 {
        let found = store.get(Table::Subject, &key(n)).expect("sound");
        assert_eq!(found, Some(value(n)));
    }
    assert_eq!(monitor.damage(), None);
    let mut bytes = std::fs::read(&largest).expect("readable");
    bytes[700] ^= 1;
    std::fs::write(&largest, bytes).expect("writable");
    let begun = Instant::now();
    let told = loop {
        if let Some(told) = monitor.damage() {
            break told;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it is found");
        std::thread::yield_now();
    };
    assert!(told.contains("are damaged"), "{told}");
}
