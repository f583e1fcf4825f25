//! nats.js in a page of a real Chromium, over WebSocket.

use anyhow::Result;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{ServerOptions, TestServer};

#[test]
fn a_page_publishes_subscribes_and_consumes() -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_websocket())?;
    Scenario::new("browser/websocket.mjs").run(&server)?;
    Ok(())
}
