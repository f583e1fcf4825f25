//! Data directories: made, opened again, refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use menes_jetstream::ids::GroupId;
use menes_jetstream::ports::{
    Entry, EntryKind, LogPosition, LogStore, StateStore, StoreErrorKind, Table, Write, WriteSet,
};
use menes_storage::disk_space::Watermarks;
use menes_storage::log::LogOptions;
use menes_storage::{OpenError, Store, StoreOptions};

fn options() -> StoreOptions {
    let log = LogOptions {
        segment_bytes: 64 << 10,
        ..LogOptions::default()
    };
    StoreOptions {
        log,
        ballast_bytes: 0,
        ..StoreOptions::default()
    }
}

fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(path, &options(), Arc::new(|| {}))
}

fn refusal(path: &Path) -> OpenError {
    open(path).map(drop).expect_err("it must be refused")
}

fn entry(index: u64, kind: EntryKind) -> Entry {
    Entry {
        group: GroupId(16),
        index,
        term: 1,
        kind,
        compress: false,
        payload: Bytes::from(vec![7; 3000]),
    }
}

/// Names and sizes of all files, to see that nothing was touched.
fn listing(path: &Path) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    for found in fs::read_dir(path).expect("readable") {
        let found = found.expect("readable");
        let name = found.file_name().to_string_lossy().into_owned();
        if found.path().is_dir() {
            let inside = listing(&found.path());
            files.extend(
                inside
                    .into_iter()
                    .map(|(inner, len)| (format!("{name}/{inner}"), len)),
            );
        } else {
            files.insert(name, found.metadata().expect("readable").len());
        }
    }
    files
}

#[test]
fn the_state_takes_up_where_it_was_and_the_log_replays_the_rest() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("new/data");
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let wake = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let mut store = Store::open(&path, &options(), wake).expect("a new directory");
    let mut positions = Vec::new();
    for index in 1..=40 {
        let appended = store
            .log
            .append(&[entry(index, EntryKind::Publish)])
            .expect("space");
        while store.log.poll_synced().expect("healthy") < appended.ticket {
            std::thread::yield_now();
        }
        let position = appended.locations[0].position;
        positions.push(position);
        if index <= 30 {
            let writes = vec![Write::Put(Table::Meta, b"n".to_vec(), vec![index as u8])];
            store
                .state
                .write(&WriteSet {
                    writes,
                    applied: Some(position),
                })
                .expect("healthy");
        }
    }
    assert!(woken.load(Ordering::SeqCst) >= 40);
    store.close().expect("healthy");

    let mut store = open(&path).expect("closed in good order");
    let applied = store.state.applied().expect("something was applied");
    assert_eq!(applied, positions[29]);
    assert_eq!(
        store.state.get(Table::Meta, b"n").expect("healthy"),
        Some(vec![30])
    );
    let mut seen = Vec::new();
    store
        .log
        .replay(applied, &mut |location, entry| {
            seen.push((location.position, entry.index));
            Ok(())
        })
        .expect("sound");
    let expected: Vec<(LogPosition, u64)> = positions[30..].iter().copied().zip(31..).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_directory_in_use_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("a new directory");
    let error = refusal(directory.path());
    assert!(
        matches!(&error, OpenError::InUse { directory: d } if d == directory.path()),
        "{error}"
    );
    drop(store);
    open(directory.path()).expect("free again");
}

#[test]
fn a_foreign_directory_is_refused_untouched() {
    let directory = tempfile::tempdir().expect("temporary directory");
    fs::write(directory.path().join("thesis.tex"), "years of work").expect("writable");
    let before = listing(directory.path());
    let error = refusal(directory.path());
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    fs::create_dir_all(directory.path().join("jetstream/$G")).expect("writable");
    let error = refusal(directory.path());
    assert!(error.to_string().contains("nats-server"), "{error}");
    assert_eq!(listing(directory.path()), before);
}

#[test]
fn a_file_system_root_is_an_empty_directory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(directory.path().join("lost+found")).expect("writable");
    fs::write(directory.path().join(".keep"), "").expect("writable");
    open(directory.path()).expect("nothing of anybody's is there");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("data");
    fs::write(&path, "a file").expect("writable");
    let error = refusal(&path);
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );

    let path = directory.path().join("read-only");
    fs::create_dir(&path).expect("writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).expect("ours");
    if fs::write(path.join("probe"), "").is_ok() {
        // The superuser may write anywhere.
        return;
    }
    assert!(matches!(refusal(&path), OpenError::Io { .. }));
}

#[test]
fn a_newer_version_is_refused_untouched() {
    let directory = tempfile::tempdir().expect("temporary directory");
    open(directory.path())
        .expect("a new directory")
        .close()
        .expect("healthy");
    let superblock = directory.path().join("log/superblock");
    let mut bytes = fs::read(&superblock).expect("readable");
    bytes[8] = 2;
    bytes[4096 + 8] = 2;
    fs::write(&superblock, &bytes).expect("writable");
    let before = listing(directory.path());
    let error = refusal(directory.path());
    let expected = format!(
        "{} has format version 2, this release reads up to 1; \
         start the release that wrote it or a newer one",
        superblock.display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(listing(directory.path()), before);
}

#[test]
fn a_lost_state_is_rebuilt_unless_the_log_was_trimmed() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut store = open(directory.path()).expect("a new directory");
    for index in 1..=60 {
        store
            .log
            .append(&[entry(index, EntryKind::Publish)])
            .expect("space");
    }
    store.close().expect("healthy");
    fs::remove_dir_all(directory.path().join("state")).expect("ours");

    let mut store = open(directory.path()).expect("the log has everything");
    let mut count = 0;
    let replayed = store.log.replay(LogPosition::default(), &mut |_, _| {
        count += 1;
        Ok(())
    });
    replayed.expect("sound");
    assert_eq!(count, 60);
    let oldest = store.log.segments()[0];
    store.log.recycle(&[oldest]).expect("nothing refers to it");
    store.close().expect("healthy");
    fs::remove_dir_all(directory.path().join("state")).expect("ours");
    assert!(matches!(
        refusal(directory.path()),
        OpenError::Damaged { .. }
    ));
}

#[test]
fn a_full_disk_does_not_keep_a_server_from_starting() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut options = options();
    options.log.watermarks = Watermarks {
        low_bytes: None,
        critical_bytes: Some(u64::MAX),
    };
    let mut store = Store::open(directory.path(), &options, Arc::new(|| {})).expect("it starts");
    let refused = store
        .log
        .append(&[entry(1, EntryKind::Publish)])
        .map_err(|error| error.kind);
    assert_eq!(refused, Err(StoreErrorKind::Full));
    for kind in [
        EntryKind::Command,
        EntryKind::Consumer,
        EntryKind::Application,
    ] {
        store
            .log
            .append(&[entry(1, kind)])
            .expect("small entries without messages pass");
    }
}

#[test]
fn an_interrupted_first_start_is_taken_up() {
    let directory = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(directory.path().join("log")).expect("writable");
    fs::write(directory.path().join("lock"), "").expect("writable");
    fs::write(directory.path().join("log/lock"), "").expect("writable");
    fs::write(directory.path().join("log/superblock.new"), "half").expect("writable");
    open(directory.path())
        .expect("nothing was lost")
        .close()
        .expect("healthy");
    fs::remove_file(directory.path().join("log/superblock")).expect("ours");
    let error = refusal(directory.path());
    assert!(
        error.to_string().contains("superblock is missing"),
        "{error}"
    );
}

#[test]
fn options_without_meaning_are_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut options = options();
    options.log.segment_bytes = 5000;
    let error = Store::open(directory.path(), &options, Arc::new(|| {})).map(drop);
    assert!(matches!(error, Err(OpenError::Options(_))));
}
