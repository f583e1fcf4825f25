//! nats-py, the Python client.

use anyhow::Result;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{ServerOptions, TestServer};

fn run(script: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default())?;
    Scenario::new(script).run(&server)?;
    Ok(())
}

#[test]
fn core_nats() -> Result<()> {
    run("nats-py/core.py")
}

#[test]
fn streams() -> Result<()> {
    run("nats-py/streams.py")
}

#[test]
fn consumers() -> Result<()> {
    run("nats-py/consumers.py")
}

#[test]
fn advisories() -> Result<()> {
    run("nats-py/advisories.py")
}

#[test]
fn key_value() -> Result<()> {
    run("nats-py/key_value.py")
}

#[test]
fn object_store() -> Result<()> {
    run("nats-py/object_store.py")
}

#[test]
fn subjects() -> Result<()> {
    run("nats-py/subjects.py")
}

#[test]
fn origins() -> Result<()> {
    run("nats-py/origins.py")
}

#[test]
fn batches() -> Result<()> {
    run("nats-py/batches.py")
}

#[test]
fn fast_batches() -> Result<()> {
    run("nats-py/fast_batches.py")
}

#[test]
fn counters() -> Result<()> {
    run("nats-py/counters.py")
}

#[test]
fn schedules() -> Result<()> {
    run("nats-py/schedules.py")
}
