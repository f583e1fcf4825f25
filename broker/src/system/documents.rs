//! What the system writes: who it is, whom it speaks of, and the envelopes around both.

use std::collections::BTreeMap;
use std::time::SystemTime;

use menes_jetstream::Timestamp;
use rand::Rng;
use rand::distr::Alphanumeric;
use serde::Serialize;
use serde_json::value::RawValue;

use super::port::Event;
use crate::account::Account;
use crate::auth::Grant;
use crate::connection::client::Transport;
use crate::server::{NATS_VERSION, Shared};

/// Capabilities that other servers and tools look for.
const JETSTREAM: u64 = 1;
const BINARY_SNAPSHOTS: u64 = 2;

/// Who speaks.
#[derive(Debug, Serialize)]
pub(crate) struct ServerInfo<'a> {
    name: &'a str,
    host: String,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    ver: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    jetstream: bool,
    flags: u64,
    seq: u64,
    time: Timestamp,
}

impl<'a> ServerInfo<'a> {
    /// This server, with the next number.
    pub(crate) fn of(shared: &'a Shared) -> Self {
        let options = shared.options();
        Self {
            name: shared.name(),
            host: options.host.clone(),
            id: shared.id(),
            domain: options.domain.clone(),
            ver: NATS_VERSION,
            tags: options.tags.clone(),
            metadata: options.metadata.clone(),
            jetstream: options.jetstream,
            flags: if options.jetstream {
                JETSTREAM | BINARY_SNAPSHOTS
            } else {
                0
            },
            seq: shared.system().next_sequence(),
            time: timestamp(SystemTime::now()),
        }
    }
}

/// A server by its names alone.
#[derive(Serialize)]
pub(super) struct ServerId<'a> {
    pub(super) name: &'a str,
    pub(super) host: &'a str,
    pub(super) id: &'a str,
}

/// Whom an event is about.
#[derive(Serialize)]
pub(super) struct ClientDocument {
    start: Timestamp,
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    id: u64,
    acc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ver: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_tag: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    kind: &'static str,
    client_type: &'static str,
}

impl ClientDocument {
    /// The client of an event; with `is_over` also when it ended.
    pub(super) fn of(event: &Event, is_over: bool) -> Self {
        let client = &event.client;
        let identity = &client.identity;
        let grant = identity.grant.as_deref();
        let account = client.account.as_str();
        let rtt = u64::try_from(event.rtt.as_nanos()).unwrap_or(u64::MAX);
        Self {
            start: timestamp(client.started),
            host: client.address.ip().to_canonical().to_string(),
            id: client.id.0,
            acc: account.to_owned(),
            user: identity
                .shown_user
                .as_deref()
                .unwrap_or_default()
                .to_owned(),
            name: identity.name.clone(),
            lang: identity.lang.clone(),
            ver: identity.version.clone(),
            rtt: Some(rtt).filter(|rtt| is_over && *rtt > 0),
            stop: is_over.then(|| timestamp(event.at)),
            jwt: grant.and_then(Grant::shown_token).map(ToOwned::to_owned),
            issuer_key: grant.map(|grant| grant.issuer.clone()),
            tags: grant.map_or_else(Vec::new, |grant| grant.admission.tags.clone()),
            name_tag: Some(
                identity
                    .account
                    .as_ref()
                    .map_or_else(|| account.to_owned(), |account| account.title()),
            ),
            kind: "Client",
            client_type: match client.transport {
                Transport::Nats => "nats",
                Transport::WebSocket => "websocket",
            },
        }
    }

    /// As one who wanted to be in this account.
    pub(super) fn in_account(mut self, account: Option<&Account>) -> Self {
        if let Some(account) = account {
            account.name().as_str().clone_into(&mut self.acc);
            self.name_tag = Some(account.title());
        }
        self
    }
}

/// An event in its envelope.
#[derive(Serialize)]
pub(super) struct Advisory<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    timestamp: Timestamp,
    server: ServerInfo<'a>,
    #[serde(flatten)]
    body: T,
}

impl<'a, T: Serialize> Advisory<'a, T> {
    /// An event that happened at `at`.
    pub(super) fn new(kind: &'static str, server: ServerInfo<'a>, at: SystemTime, body: T) -> Self {
        Self {
            kind,
            id: event_id(),
            timestamp: timestamp(at),
            server,
            body,
        }
    }
}

/// The answer to a request, in its envelope.
#[derive(Serialize)]
pub(super) struct Response<'a> {
    pub(super) server: ServerInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorDocument>,
}

/// Why there is no answer.
#[derive(Debug, Serialize)]
pub(super) struct ErrorDocument {
    pub(super) code: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
}

/// A time on the wire.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::ZERO.plus(since)
}

/// A name for an event, as long as those of nats-server.
fn event_id() -> String {
    const LENGTH: usize = 22;
    let letters = rand::rng().sample_iter(Alphanumeric);
    letters.take(LENGTH).map(char::from).collect()
}
