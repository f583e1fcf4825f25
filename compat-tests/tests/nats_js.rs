//! nats.js: over TCP and over WebSocket, from Node.

use anyhow::Result;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{Login, ServerOptions, TestServer};

/// A listener that compresses.
const COMPRESSED: &str =
    "websocket { host: \"127.0.0.1\", port: -1, no_tls: true, compression: true }";

fn over_tcp(script: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default())?;
    Scenario::new(script).run(&server)?;
    Ok(())
}

fn over_websocket(script: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_websocket())?;
    Scenario::new(script)
        .variable("TRANSPORT", "ws")
        .run(&server)?;
    Ok(())
}

#[test]
fn core_nats() -> Result<()> {
    over_tcp("nats-js/core.mjs")
}

#[test]
fn jetstream() -> Result<()> {
    over_tcp("nats-js/jetstream.mjs")
}

#[test]
fn buckets() -> Result<()> {
    over_tcp("nats-js/buckets.mjs")
}

#[test]
fn core_nats_over_websocket() -> Result<()> {
    over_websocket("nats-js/core.mjs")
}

#[test]
fn jetstream_over_websocket() -> Result<()> {
    over_websocket("nats-js/jetstream.mjs")
}

#[test]
fn buckets_over_websocket() -> Result<()> {
    over_websocket("nats-js/buckets.mjs")
}

fn over_compressed_websocket(script: &str) -> Result<()> {
    let options = ServerOptions::default()
        .with_websocket()
        .with_config(&(Login::default().section() + COMPRESSED));
    let server = TestServer::start(options)?;
    Scenario::new(script)
        .variable("TRANSPORT", "ws")
        .run(&server)?;
    Ok(())
}

#[test]
fn core_nats_over_compressed_websocket() -> Result<()> {
    over_compressed_websocket("nats-js/core.mjs")
}

#[test]
fn buckets_over_compressed_websocket() -> Result<()> {
    over_compressed_websocket("nats-js/buckets.mjs")
}
