//! Message tracing: the way one message took, told to whoever it names.
//!
//! A publisher asks for it with the header `Nats-Trace-Dest`, or an account has a sample of the
//! messages traced that carry a W3C `traceparent`. With `Nats-Trace-Only` the message is not
//! delivered. What happened to it is published as one document once it was routed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use memchr::memmem;
use menes_jetstream::{AccountName, Timestamp};
use menes_protocol::subject;
use rand::Rng;
use serde::Serialize;

use super::documents::{ServerInfo, timestamp};
use crate::account::Account;
use crate::connection::client::Client;
use crate::routing::Subscription;

const DESTINATION: &str = "Nats-Trace-Dest";
const ONLY: &str = "Nats-Trace-Only";
const ORIGIN_ACCOUNT: &str = "Nats-Trace-Origin-Account";
const TRACE_PARENT: &str = "traceparent";
/// In place of a destination: no subject, so that nobody traces the message again.
const DISABLED: &str = "trace disabled";
/// Fields of a header that are looked at; more are left out.
const MAX_FIELDS: usize = 256;

/// What a connection is, in events.
const CLIENT: u8 = 0;

/// Where an account has messages traced that carry a `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceDestination {
    /// The subject, in the account.
    pub subject: String,
    /// Of a hundred such messages, how many are traced.
    pub sampling: u8,
}

/// What a header says about tracing.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Nothing that matters.
    Nothing,
    /// The message is neither delivered nor traced.
    Drop,
    /// The destination is not one that this client may publish to; nothing is delivered.
    Forbidden(String),
    /// The message is traced.
    Trace(Box<Trace>),
}

/// The way of one message.
#[derive(Debug)]
pub(crate) struct Trace {
    account: Arc<Account>,
    destination: String,
    only: bool,
    header: BTreeMap<String, Vec<String>>,
    size: usize,
    events: Vec<Event>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    server: ServerInfo<'a>,
    request: Request<'a>,
    events: &'a [Event],
}

#[derive(Debug, Serialize)]
struct Request<'a> {
    header: &'a BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "is_zero")]
    msgsize: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// One step of a message.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
enum Event {
    /// It came in.
    #[serde(rename = "in")]
    Ingress {
        ts: Timestamp,
        kind: u8,
        cid: u64,
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
        acc: String,
        subj: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Its subject was replaced.
    #[serde(rename = "sm")]
    Mapping { ts: Timestamp, to: String },
    /// It goes to an account that imports the stream.
    #[serde(rename = "se")]
    StreamExport {
        ts: Timestamp,
        acc: String,
        to: String,
    },
    /// It goes to an account whose service is imported.
    #[serde(rename = "si")]
    ServiceImport {
        ts: Timestamp,
        acc: String,
        from: String,
        to: String,
    },
    /// A stream took it.
    #[serde(rename = "js")]
    Stream {
        ts: Timestamp,
        stream: String,
        subject: String,
    },
    /// A subscriber got it, or why not.
    #[serde(rename = "eg")]
    Egress {
        ts: Timestamp,
        kind: u8,
        cid: u64,
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
        /// Where that is not the account it came into.
        #[serde(skip_serializing_if = "Option::is_none")]
        acc: Option<String>,
        sub: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'static str>,
    },
}

/// Why a subscriber does not get a message, in the words of nats-server.
pub(crate) mod refusal {
    pub(crate) const NO_ECHO: &str = "Not delivered because of no echo";
    pub(crate) const PUBLISH_DENIED: &str = "Not delivered because publish denied for this subject";
    pub(crate) const SUBSCRIPTION_CLOSED: &str = "Not delivered because subscription is closed";
    pub(crate) const CLIENT_CLOSED: &str = "Not delivered because client is closed";
    pub(crate) const LIMIT_REACHED: &str = "Not delivered because auto-unsubscribe exceeded";
    pub(crate) const SLOW: &str =
        "Not delivered because fast producer not stalled and consumer is slow";
}

/// Whether a header may ask for a trace: what most headers are not, told in one pass.
#[inline]
pub(crate) fn may_ask(header: &[u8], account: &Account) -> bool {
    memmem::find(header, b"Nats-Trace-").is_some() || account.tracing().is_some()
}

/// Reads a header for which [`may_ask`] holds. `may_publish` tells whether the publisher may send to
/// a destination.
pub(crate) fn read(
    header: &[u8],
    account: &Arc<Account>,
    may_publish: impl FnOnce(&str) -> bool,
) -> Asked {
    let fields = fields(header);
    let first = |name: &str| fields.get(name).and_then(|values| values.first());
    let asked = first(DESTINATION);
    if asked.is_some_and(|destination| destination == DISABLED) {
        return Asked::Nothing;
    }
    let only = first(ONLY)
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on"));
    let unless_only = if only { Asked::Drop } else { Asked::Nothing };
    let (destination, only) = match (asked, account.tracing()) {
        (Some(destination), _) => (destination.clone(), only),
        (None, Some(tracing)) if is_sampled(&fields) => {
            if rand::rng().random_range(0..100) >= tracing.sampling {
                return Asked::Nothing;
            }
            (tracing.subject.clone(), false)
        }
        (None, _) => return Asked::Nothing,
    };
    if first(ORIGIN_ACCOUNT).is_some() || !subject::is_literal(destination.as_bytes()) {
        return unless_only;
    }
    if !may_publish(&destination) {
        return Asked::Forbidden(destination);
    }
    Asked::Trace(Box::new(Trace {
        account: Arc::clone(account),
        destination,
        only,
        header: fields,
        size: 0,
        events: Vec::new(),
    }))
}

/// The fields of a header block by name; those without a value are left out.
fn fields(header: &[u8]) -> BTreeMap<String, Vec<String>> {
    let text = String::from_utf8_lossy(header);
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.split("\r\n").skip(1).take(MAX_FIELDS) {
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let value = value.trim_matches([' ', '\t']);
        if !name.is_empty() && !value.is_empty() {
            let values = fields.entry(name.to_owned()).or_default();
            values.push(value.to_owned());
        }
    }
    fields
}

/// Whether a W3C trace is sampled.
fn is_sampled(fields: &BTreeMap<String, Vec<String>>) -> bool {
    let parents = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(TRACE_PARENT))
        .flat_map(|(_, values)| values);
    parents.into_iter().any(|value| {
        let mut parts = value.split('-').skip(3);
        match (parts.next(), parts.next()) {
            (Some(flags), None) if flags.len() == 2 => {
                u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1)
            }
            _ => false,
        }
    })
}

/// The header block under which a traced message is stored: nobody traces it again.
pub(crate) fn disabled(header: &[u8]) -> Vec<u8> {
    with_destination(header, DISABLED.as_bytes())
}

/// The header block with another destination, if it names one.
pub(crate) fn with_destination(header: &[u8], destination: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(header.len() + DISABLED.len());
    let mut rest = header;
    while let Some(end) = memmem::find(rest, b"\r\n") {
        let (line, after) = rest.split_at(end + 2);
        rest = after;
        let is_destination = line
            .strip_prefix(DESTINATION.as_bytes())
            .is_some_and(|value| value.starts_with(b":"));
        if is_destination {
            for part in [DESTINATION.as_bytes(), b": ", destination, b"\r\n"] {
                stored.extend_from_slice(part);
            }
        } else {
            stored.extend_from_slice(line);
        }
    }
    stored.extend_from_slice(rest);
    stored
}

impl Trace {
    /// Whether the message is not to be delivered.
    pub(crate) fn is_only(&self) -> bool {
        self.only
    }

    /// Where the document goes.
    pub(crate) fn destination(&self) -> (&Arc<Account>, &[u8]) {
        (&self.account, self.destination.as_bytes())
    }

    /// The message came from this client.
    pub(crate) fn came_in(
        &mut self,
        client: &Client,
        subject: &[u8],
        size: usize,
        error: Option<String>,
    ) {
        self.size = size;
        self.events.push(Event::Ingress {
            ts: timestamp(SystemTime::now()),
            kind: CLIENT,
            cid: client.id().0,
            name: client.identity().name.clone(),
            acc: self.account.name().as_str().to_owned(),
            subj: text(subject),
            error,
        });
    }

    /// Its subject was replaced.
    pub(crate) fn mapped(&mut self, to: &[u8]) {
        self.events.push(Event::Mapping {
            ts: timestamp(SystemTime::now()),
            to: text(to),
        });
    }

    /// It goes to an account that imports the stream, under this subject. What becomes of it there
    /// is told if the import allows it.
    pub(crate) fn exported(&mut self, importer: &AccountName, to: &[u8]) {
        self.events.push(Event::StreamExport {
            ts: timestamp(SystemTime::now()),
            acc: importer.as_str().to_owned(),
            to: text(to),
        });
    }

    /// It goes to an account whose service is imported. What becomes of it there is told if the
    /// export allows it.
    pub(crate) fn imported(&mut self, exporter: &AccountName, from: &[u8], to: &[u8]) {
        self.events.push(Event::ServiceImport {
            ts: timestamp(SystemTime::now()),
            acc: exporter.as_str().to_owned(),
            from: text(from),
            to: text(to),
        });
    }

    /// A stream took it under `subject`.
    pub(crate) fn stored(&mut self, stream: &[u8], subject: &[u8]) {
        self.events.push(Event::Stream {
            ts: timestamp(SystemTime::now()),
            stream: text(stream),
            subject: text(subject),
        });
    }

    /// It went to a subscription, or did not.
    pub(crate) fn went_out(
        &mut self,
        subscription: &Subscription,
        client: &Client,
        account: &Account,
        error: Option<&'static str>,
    ) {
        let is_elsewhere = account.id() != self.account.id();
        self.events.push(Event::Egress {
            acc: is_elsewhere.then(|| account.name().as_str().to_owned()),
            ts: timestamp(SystemTime::now()),
            kind: CLIENT,
            cid: client.id().0,
            name: client.identity().name.clone(),
            sub: text(subscription.subject()),
            queue: subscription.queue().map(text),
            error,
        });
    }

    /// The document.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn document(&self, server: ServerInfo<'_>) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Document {
            server,
            request: Request {
                header: &self.header,
                msgsize: self.size,
            },
            events: &self.events,
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(header: &str) -> Asked {
        let account = Account::for_tests();
        assert!(may_ask(header.as_bytes(), &account));
        read(header.as_bytes(), &account, |to| to != "secret")
    }

    #[test]
    fn a_header_says_where_to_tell_of_a_message() {
        let trace = match asked("NATS/1.0\r\nNats-Trace-Dest: t.1\r\nA: x\r\nA: y\r\n\r\n") {
            Asked::Trace(trace) => trace,
            other => panic!("{other:?}"),
        };
        assert_eq!(trace.destination().1, b"t.1");
        assert!(!trace.is_only());
        assert_eq!(trace.header["A"], ["x", "y"]);
        for (header, is_dropped) in [
            ("NATS/1.0\r\nNats-Trace-Only: true\r\n\r\n", false),
            ("NATS/1.0\r\nNats-Trace-Dest: trace disabled\r\n\r\n", false),
            ("NATS/1.0\r\nNats-Trace-Dest: a.*\r\n\r\n", false),
            (
                "NATS/1.0\r\nNats-Trace-Dest: a.*\r\nNats-Trace-Only: ON\r\n\r\n",
                true,
            ),
        ] {
            match asked(header) {
                Asked::Nothing => assert!(!is_dropped, "{header}"),
                Asked::Drop => assert!(is_dropped, "{header}"),
                other => panic!("{header}: {other:?}"),
            }
        }
        let forbidden = asked("NATS/1.0\r\nNats-Trace-Dest: secret\r\n\r\n");
        assert!(matches!(forbidden, Asked::Forbidden(subject) if subject == "secret"));
    }

    #[test]
    fn only_sampled_traces_of_others_are_followed() {
        let sampled = |value: &str| {
            let header = format!("NATS/1.0\r\nTraceParent: {value}\r\n\r\n");
            is_sampled(&fields(header.as_bytes()))
        };
        assert!(sampled(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ));
        assert!(!sampled(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
        ));
        assert!(!sampled("00-0af7651916cd43dd8448eb211c80319c-01"));
        assert!(!sampled(""));
    }

    #[test]
    fn what_is_stored_is_not_traced_again() {
        let header = b"NATS/1.0\r\nNats-Trace-Dest: t\r\nA: b\r\n\r\n";
        assert_eq!(
            disabled(header),
            b"NATS/1.0\r\nNats-Trace-Dest: trace disabled\r\nA: b\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn any_header_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let account = Account::for_tests();
            let mut header = b"NATS/1.0\r\nNats-Trace-Dest: x\r\n".to_vec();
            header.extend_from_slice(&bytes);
            read(&header, &account, |_| true);
            read(&bytes, &account, |_| true);
            prop_assert!(disabled(&header).len() <= header.len() + DISABLED.len());
        }
    }
}
