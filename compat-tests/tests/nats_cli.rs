//! The `nats` command.

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
    run("nats-cli/core.sh")
}

#[test]
fn streams_and_consumers() -> Result<()> {
    run("nats-cli/streams.sh")
}

#[test]
fn buckets() -> Result<()> {
    run("nats-cli/buckets.sh")
}

#[test]
fn backups() -> Result<()> {
    run("nats-cli/backups.sh")
}
