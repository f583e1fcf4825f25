//! nats.go: core, the `jetstream` package, and the older JetStream interface.

use anyhow::Result;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{ServerOptions, TestServer};

fn run(scenario: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default())?;
    Scenario::new("nats-go").argument(scenario).run(&server)?;
    Ok(())
}

#[test]
fn core_nats() -> Result<()> {
    run("core")
}

#[test]
fn jetstream() -> Result<()> {
    run("jetstream")
}

#[test]
fn buckets() -> Result<()> {
    run("buckets")
}
