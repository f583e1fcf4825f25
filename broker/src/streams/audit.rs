//! Clients as audits of the JetStream API show them.

use std::time::{SystemTime, UNIX_EPOCH};

use menes_jetstream::Timestamp;
use serde::Serialize;

use crate::connection::client::{Client, Transport};

/// Field names and order are those of nats-server.
#[derive(Serialize)]
struct ClientDocument<'a> {
    start: Timestamp,
    host: String,
    id: u64,
    acc: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    lang: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ver: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    rtt: u64,
    server: &'a str,
    kind: &'static str,
    client_type: &'static str,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The client as a JSON object. `server` is the name of this server.
pub(crate) fn document(client: &Client, server: &str) -> Vec<u8> {
    let info = client.info();
    let identity = &info.identity;
    let rtt = client.rtt().map_or(0, |rtt| rtt.as_nanos());
    let document = ClientDocument {
        start: timestamp(info.started),
        host: info.address.ip().to_canonical().to_string(),
        id: info.id.0,
        acc: info.account.as_str(),
        user: identity.shown_user.as_deref().unwrap_or_default(),
        name: &identity.name,
        lang: &identity.lang,
        ver: &identity.version,
        rtt: u64::try_from(rtt).unwrap_or(u64::MAX),
        server,
        kind: "Client",
        client_type: match info.transport {
            Transport::Nats => "nats",
            Transport::WebSocket => "websocket",
        },
    };
    serde_json::to_vec(&document).expect("a document is plain data")
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
