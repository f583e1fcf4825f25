//! Encryption at rest, as who holds the disk sees it: what nats-py stored is looked for in every
//! file of the server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use memchr::memmem;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{ServerKind, ServerOptions, TestServer};

/// Payload, subject, header, message id, names of stream, consumer, bucket, key, object, and so on:
/// all of them end like this, or begin the stream's name.
const TOLD: [&str; 2] = ["totell", "TOTELL"];

fn config(keys: &str) -> String {
    let users = ServerOptions::default().login.section();
    format!("{users}jetstream {{ {keys} }}\n")
}

fn started(keys: &str) -> Result<TestServer> {
    let options = ServerOptions::default()
        .with_kind(ServerKind::Menes)
        .with_config(&config(keys));
    TestServer::start(options)
}

fn store(server: &TestServer, what: &str) -> Result<()> {
    Scenario::new("nats-py/at_rest.py")
        .argument(what)
        .run(server)?;
    Ok(())
}

fn restart(server: &mut TestServer, keys: &str) -> Result<()> {
    server.stop()?;
    server.restart_with(&config(keys))
}

/// The files below the data folder in which anything stored can be read.
fn telling(server: &TestServer) -> Result<Vec<PathBuf>> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == "ballast") {
                // Space to give up, and large.
                continue;
            }
            if path.is_dir() {
                visit(&path, found)?;
            } else {
                let bytes = fs::read(&path)?;
                let holds = |word: &str| memmem::find(&bytes, word.as_bytes()).is_some();
                if TOLD.iter().any(|word| holds(word)) {
                    found.push(path);
                }
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    visit(&server.folder().join("data"), &mut found)?;
    Ok(found)
}

fn tells_nothing(server: &TestServer, when: &str) -> Result<()> {
    let found = telling(server)?;
    ensure!(
        found.is_empty(),
        "{when}: something can be read in {found:?}"
    );
    Ok(())
}

#[test]
fn without_a_key_what_is_stored_can_be_read_on_the_disk() -> Result<()> {
    let mut server = started("")?;
    store(&server, "write")?;
    server.stop()?;
    let found = telling(&server)?;
    for folder in ["log", "state"] {
        let is_there = |path: &PathBuf| path.components().any(|part| part.as_os_str() == folder);
        ensure!(
            found.iter().any(is_there),
            "the search finds what is there: {found:?}"
        );
    }
    Ok(())
}

#[test]
fn with_a_key_nothing_stored_can_be_read_on_the_disk() -> Result<()> {
    for cipher in ["chacha", "aes"] {
        let keys = format!("key: \"open sesame\", cipher: {cipher}");
        let mut server = started(&keys)?;
        store(&server, "write")?;
        tells_nothing(&server, "while it runs")?;
        server.kill_9()?;
        tells_nothing(&server, "after a kill")?;
        server.restart()?;
        store(&server, "read")?;
        restart(&mut server, &keys)?;
        store(&server, "read")?;
        server.stop()?;
        tells_nothing(&server, "after a stop")?;
        ensure!(!server.log().contains("sesame"), "the key is not logged");
    }
    Ok(())
}

#[test]
fn the_key_is_changed_and_the_old_one_is_refused_with_a_reason() -> Result<()> {
    let mut server = started("key: first")?;
    store(&server, "write")?;
    restart(&mut server, "key: second, prev_key: first")?;
    store(&server, "read")?;
    restart(&mut server, "key: second")?;
    store(&server, "read")?;
    server.stop()?;
    for (keys, says) in [
        ("key: first", "the configured key does not open it"),
        ("", "no key is configured"),
    ] {
        if server.restart_with(&config(keys)).is_ok() {
            bail!("it starts with {keys:?}");
        }
        let log = server.log();
        ensure!(log.contains(says), "{log}");
        server.kill_9()?;
    }
    server.restart_with(&config("key: second"))?;
    store(&server, "read")
}

#[test]
fn encryption_begins_and_ends_over_what_is_stored() -> Result<()> {
    let mut server = started("")?;
    store(&server, "write")?;
    restart(&mut server, "key: sesame")?;
    store(&server, "read")?;
    let found = telling(&server)?;
    let is_state = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "state");
    ensure!(
        !found.iter().any(is_state),
        "names are hidden at once: {found:?}"
    );
    restart(&mut server, "prev_key: sesame")?;
    store(&server, "read")
}
