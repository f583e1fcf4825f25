//! Data directories with keys: what can be read without them, and what happens when they change.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use menes_jetstream::ids::GroupId;
use menes_jetstream::ports::{
    Entry, EntryKind, EntryLocation, LogStore, StateStore, Table, Write, WriteSet,
};
use menes_storage::log::LogOptions;
use menes_storage::{CipherSuite, Encryption, OpenError, Store, StoreOptions};

/// Stands in every payload, and in the key and value of every row.
const SECRET: &[u8] = b"orders.and.nobody.elses.business";

fn keys(key: Option<&str>, previous: Option<&str>) -> Encryption {
    Encryption {
        key: key.map(str::to_owned),
        previous: previous.map(str::to_owned),
        cipher: CipherSuite::ChaCha,
    }
}

fn open(path: &Path, encryption: Encryption) -> Result<Store, OpenError> {
    let options = StoreOptions {
        log: LogOptions {
            segment_bytes: 64 << 10,
            ..LogOptions::default()
        },
        encryption,
        ballast_bytes: 0,
        ..StoreOptions::default()
    };
    Store::open(path, &options, Arc::new(|| {}))
}

fn refused(path: &Path, encryption: Encryption) -> String {
    let before = contents(path);
    let error = open(path, encryption).map(drop).expect_err("locked");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert_eq!(contents(path), before, "nothing is touched");
    error.to_string()
}

fn payload(index: u64) -> Bytes {
    [SECRET, &index.to_le_bytes()].concat().repeat(40).into()
}

fn row(index: u64) -> Vec<u8> {
    [SECRET, b".", index.to_string().as_bytes()].concat()
}

type Written = Vec<(u64, EntryLocation)>;

fn write(store: &mut Store, from: u64, written: &mut Written) {
    for index in from..from + 60 {
        let entry = Entry {
            group: GroupId(16),
            index,
            term: 1,
            kind: EntryKind::Publish,
            compress: false,
            payload: payload(index),
        };
        let appended = store.log.append(&[entry]).expect("space");
        while store.log.poll_synced().expect("healthy") < appended.ticket {
            std::thread::yield_now();
        }
        let writes = vec![Write::Put(Table::Subject, row(index), row(index))];
        let set = WriteSet {
            writes,
            applied: Some(appended.locations[0].position),
        };
        store.state.write(&set).expect("healthy");
        written.push((index, appended.locations[0]));
    }
    store.state.flush().expect("healthy");
}

fn check(store: &Store, written: &Written) {
    for (index, location) in written {
        let read = store.log.read(*location, GroupId(16), *index);
        assert_eq!(read.expect("readable"), payload(*index));
        let value = store.state.get(Table::Subject, &row(*index));
        assert_eq!(value.expect("readable"), Some(row(*index)));
    }
    let mut count = 0;
    let counted = store.state.scan(Table::Subject, b"", b"\xff", &mut |_, _| {
        count += 1;
        true
    });
    counted.expect("readable");
    assert_eq!(count, written.len());
}

/// All files below `path` but the claims on it.
fn contents(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for found in fs::read_dir(path).expect("readable") {
        let path = found.expect("readable").path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") {
            let name = path.display().to_string();
            files.push((name, fs::read(&path).expect("readable")));
        }
    }
    files.sort();
    files
}

/// The files in which the secret can be read.
fn telling(path: &Path) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET);
    let told = contents(path).into_iter().filter(|(_, bytes)| holds(bytes));
    told.map(|(name, _)| name).collect()
}

#[test]
fn with_a_key_nothing_stored_can_be_read_and_without_one_it_can() {
    for cipher in [CipherSuite::ChaCha, CipherSuite::Aes] {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path();
        let encryption = Encryption {
            cipher,
            ..keys(Some("a key"), None)
        };
        let mut written = Written::new();
        let mut store = open(path, encryption.clone()).expect("new");
        write(&mut store, 1, &mut written);
        check(&store, &written);
        assert_eq!(telling(path), Vec::<String>::new(), "while it runs");
        store.close().expect("healthy");
        assert_eq!(telling(path), Vec::<String>::new(), "afterwards");
        let mut store = open(path, encryption.clone()).expect("with its key");
        check(&store, &written);
        write(&mut store, 61, &mut written);
        drop(store);
        let store = open(path, encryption).expect("with its key");
        check(&store, &written);
        assert_eq!(telling(path), Vec::<String>::new());
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut store = open(directory.path(), Encryption::default()).expect("new");
    write(&mut store, 1, &mut Written::new());
    store.close().expect("healthy");
    let told = telling(directory.path());
    for folder in ["/log/", "/state/"] {
        assert!(told.iter().any(|name| name.contains(folder)), "{told:?}");
    }
}

#[test]
fn a_wrong_key_is_named_and_touches_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    let mut store = open(path, keys(Some("right"), None)).expect("new");
    write(&mut store, 1, &mut Written::new());
    store.close().expect("healthy");
    let none = refused(path, keys(None, None));
    assert!(none.contains("no key is configured"), "{none}");
    let wrong = refused(path, keys(Some("wrong"), None));
    assert!(wrong.contains("jetstream.prev_key"), "{wrong}");
    refused(path, keys(Some("wrong"), Some("also wrong")));
    refused(path, keys(None, Some("wrong")));
}

#[test]
fn the_key_is_changed_at_a_start_that_names_both() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    let mut written = Written::new();
    let mut store = open(path, keys(Some("old"), None)).expect("new");
    write(&mut store, 1, &mut written);
    store.close().expect("healthy");
    let mut store = open(path, keys(Some("new"), Some("old"))).expect("with both");
    check(&store, &written);
    write(&mut store, 61, &mut written);
    // As after a crash.
    drop(store);
    refused(path, keys(Some("old"), None));
    for encryption in [keys(Some("new"), Some("old")), keys(Some("new"), None)] {
        let store = open(path, encryption).expect("the new one opens it");
        check(&store, &written);
        store.close().expect("healthy");
    }
    assert_eq!(telling(path), Vec::<String>::new());
}

#[test]
fn encryption_begins_over_what_is_there_and_ends_again() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    let mut written = Written::new();
    let mut store = open(path, keys(None, None)).expect("new");
    write(&mut store, 1, &mut written);
    store.close().expect("healthy");

    let mut store = open(path, keys(Some("a key"), None)).expect("encryption begins");
    check(&store, &written);
    write(&mut store, 61, &mut written);
    check(&store, &written);
    let told = telling(path);
    assert!(
        told.iter().all(|name| name.contains("/log/")),
        "the state is converted: {told:?}"
    );
    let last = *store.log.segments().last().expect("there is one");
    let clear: Vec<u64> = (1..=2).filter(|segment| *segment < last).collect();
    drop(store);
    let mut store = open(path, keys(Some("a key"), None)).expect("with its key");
    check(&store, &written);
    store.log.recycle(&clear[..1]).expect("not in use");
    store.close().expect("healthy");
    // What lay in the first segment is gone by our own doing.
    let kept: Written = written
        .iter()
        .filter(|(_, location)| location.position.segment != clear[0])
        .copied()
        .collect();

    let error = refused(path, keys(None, None));
    assert!(error.contains("no key is configured"), "{error}");
    let store = open(path, keys(None, Some("a key"))).expect("encryption ends");
    for (index, location) in &kept {
        let read = store.log.read(*location, GroupId(16), *index);
        assert_eq!(read.expect("readable"), payload(*index));
    }
    assert!(telling(path).iter().any(|name| name.contains("/state/")));
    assert!(
        path.join("keys").exists(),
        "some of the log still needs them"
    );
    store.close().expect("healthy");
}

#[test]
fn an_interrupted_conversion_is_done_again_or_finished() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    let mut written = Written::new();
    let mut store = open(path, keys(None, None)).expect("new");
    write(&mut store, 1, &mut written);
    store.close().expect("healthy");
    // Ended while the new files were written.
    fs::create_dir(path.join("state.new")).expect("made");
    fs::write(path.join("state.new/CURRENT"), b"half of").expect("written");
    let store = open(path, keys(Some("a key"), None)).expect("done again");
    check(&store, &written);
    store.close().expect("healthy");
    assert!(!path.join("state.new").exists() && !path.join("state.old").exists());
    // Ended between the two renames.
    fs::rename(path.join("state"), path.join("state.new")).expect("renamed");
    fs::create_dir(path.join("state.old")).expect("made");
    let store = open(path, keys(Some("a key"), None)).expect("finished");
    check(&store, &written);
    store.close().expect("healthy");
    assert!(!path.join("state.new").exists() && !path.join("state.old").exists());
}

#[test]
fn damage_to_an_encrypted_state_is_reported_and_never_read_as_something_else() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path();
    let mut store = open(path, keys(Some("a key"), None)).expect("new");
    write(&mut store, 1, &mut Written::new());
    store.close().expect("healthy");
    let mut reported = 0;
    let whole = contents(path);
    // Every so many bytes of all files; by default a few that stand for the others.
    let step: Option<usize> = std::env::var("MENES_SWEEP_STEP")
        .ok()
        .and_then(|step| step.parse().ok());
    let is_read = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or_default();
        step.is_some()
            || name.ends_with(".sst")
            || name == "CURRENT"
            || name.starts_with("MANIFEST")
    };
    let files = whole
        .iter()
        .filter(|(name, _)| name.contains("/state/") && is_read(name));
    for (name, bytes) in files {
        // The magic, the salt, the contents.
        let offsets = match step {
            Some(step) => (0..bytes.len()).step_by(step).collect(),
            None => vec![3, 20, 4096 + 100],
        };
        for at in offsets.into_iter().map(|at| at.min(bytes.len() - 1)) {
            for (name, bytes) in &whole {
                fs::write(name, bytes).expect("written");
            }
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            fs::write(name, &bad).expect("written");
            let Ok(store) = open(path, keys(Some("a key"), None)) else {
                reported += 1;
                continue;
            };
            for index in 1..=60 {
                match store.state.get(Table::Subject, &row(index)) {
                    Ok(value) => assert_eq!(value, Some(row(index)), "{name} at {at}"),
                    Err(_) => reported += 1,
                }
            }
        }
    }
    assert!(reported > 3, "{reported}");
}
