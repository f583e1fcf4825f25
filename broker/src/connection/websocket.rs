//! Clients that come over WebSocket: an upgrade, then a connection like any other.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::Transport;
use super::worker::Worker;
use crate::config::options::WebSocketOptions;

/// A WebSocket message may hold several protocol messages of the largest size.
const MESSAGES_PER_FRAME: u64 = 8;

/// How a listener upgrades its connections.
#[derive(Debug)]
pub(crate) struct Upgrade {
    config: menes_ws::Config,
    timeout: Duration,
}

impl Upgrade {
    pub(crate) fn new(options: &WebSocketOptions, max_payload: usize) -> Self {
        let usual = menes_ws::Limits::default();
        let max_payload = u64::try_from(max_payload).unwrap_or(u64::MAX);
        let limits = menes_ws::Limits {
            max_message_bytes: usual
                .max_message_bytes
                .max(max_payload.saturating_mul(MESSAGES_PER_FRAME)),
            ..usual
        };
        let origins = options.origins.clone();
        let config = menes_ws::Config {
            origins,
            limits,
            ..menes_ws::Config::default()
        };
        Self {
            config,
            timeout: options.handshake_timeout,
        }
    }
}

/// Upgrades a connection and serves it until it ends.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    upgrade: Arc<Upgrade>,
    address: SocketAddr,
    listener: SocketAddr,
) {
    let deadline = Instant::now() + upgrade.timeout;
    let stream = match menes_ws::upgrade(stream, &upgrade.config, deadline).await {
        Ok(upgraded) => upgraded.stream,
        Err(error) => return tracing::debug!("{address} - websocket handshake error: {error}"),
    };
    let (read, write) = tokio::io::split(stream);
    let client = Arc::new(worker.new_client(Transport::WebSocket, address, listener));
    super::serve(worker, client, read, write).await;
}
