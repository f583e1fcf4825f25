//! nats.js in a page of a real Chromium, over WebSocket.

use anyhow::Result;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{Login, ServerOptions, TestServer};

/// A listener that compresses.
const COMPRESSED: &str =
    "websocket { host: \"127.0.0.1\", port: -1, no_tls: true, compression: true }";

#[test]
fn a_page_publishes_subscribes_and_consumes() -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_websocket())?;
    Scenario::new("browser/websocket.mjs").run(&server)?;
    Ok(())
}

#[test]
fn a_page_does_the_same_with_compressed_messages() -> Result<()> {
    let options = ServerOptions::default()
        .with_websocket()
        .with_config(&(Login::default().section() + COMPRESSED));
    let server = TestServer::start(options)?;
    Scenario::new("browser/websocket.mjs").run(&server)?;
    Ok(())
}
