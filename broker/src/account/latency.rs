//! How long services take: which requests are measured, and what is reported.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use menes_jetstream::Timestamp;
use menes_protocol::headers::HeaderBlock;
use rand::Rng;
use rand::distr::Alphanumeric;
use serde::Serialize;

use super::description::{LatencyOptions, Sampling};
use crate::connection::client::{Client, Transport};

/// Tracing headers of a request, the reason why it is measured.
pub(crate) type TracingHeaders = BTreeMap<String, Vec<String>>;

/// A request that is measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Empty unless the headers decided.
    pub(crate) headers: TracingHeaders,
}

impl Sample {
    /// Whether a request is measured. `random` is any number.
    pub(crate) fn take(options: &LatencyOptions, header: &[u8], random: u32) -> Option<Self> {
        if let Sampling::Percent(percent) = options.sampling
            && random % 100 < u32::from(percent)
        {
            return Some(Self::default());
        }
        let headers = tracing_headers(&canonical(header))?;
        Some(Self { headers })
    }
}

/// Fields by the spelling that tracing libraries agree on: capitals at the start and behind `-`.
fn canonical(header: &[u8]) -> TracingHeaders {
    let mut fields = TracingHeaders::new();
    let Ok(block) = HeaderBlock::parse(header) else {
        return fields;
    };
    for (name, value) in &block {
        let mut start = true;
        let name: String = String::from_utf8_lossy(name)
            .chars()
            .map(|letter| {
                let letter = if start {
                    letter.to_ascii_uppercase()
                } else {
                    letter.to_ascii_lowercase()
                };
                start = letter == '-';
                letter
            })
            .collect();
        let value = String::from_utf8_lossy(value).into_owned();
        fields.entry(name).or_default().push(value);
    }
    fields
}

const UBER: &str = "Uber-Trace-Id";
const B3: &str = "B3";
const B3_SAMPLED: &str = "X-B3-Sampled";
const B3_TRACE: &str = "X-B3-Traceid";
const B3_OTHERS: [&str; 4] = [B3_SAMPLED, B3_TRACE, "X-B3-Parentspanid", "X-B3-Spanid"];
const TRACE_PARENT: &str = "Traceparent";
const TRACE_STATE: &str = "Tracestate";

/// The headers that ask for a measurement; `None` when none does.
fn tracing_headers(fields: &TracingHeaders) -> Option<TracingHeaders> {
    let first = |name: &str| fields.get(name).and_then(|values| values.first());
    let kept = |keep: &dyn Fn(&str) -> bool| {
        let own = |(name, values): (&String, &Vec<String>)| (name.clone(), values.clone());
        let kept = fields.iter().filter(|(name, _)| keep(name)).map(own);
        Some(kept.collect())
    };
    if let Some(id) = first(UBER) {
        // As 479fefe9525eddb:5adb976bfc1f95c1:479fefe9525eddb:1.
        let parts: Vec<&str> = id.split(':').collect();
        let flags = match parts[..] {
            [_, _, _, flags] if flags.len() <= 2 => u8::from_str_radix(flags, 16).ok()?,
            _ => return None,
        };
        let uber = |name: &str| name == UBER || name.starts_with("Uberctx-");
        return if flags & 1 == 1 { kept(&uber) } else { None };
    }
    let b3 = |name: &str| B3_OTHERS.contains(&name);
    match first(B3_SAMPLED).map(String::as_str) {
        Some("1") => return kept(&b3),
        Some("0") => return None,
        _ if fields.contains_key(B3_TRACE) => return kept(&b3),
        _ => {}
    }
    if let Some(b3) = first(B3) {
        // As <trace>-<span>-<sampled>-<parent>, or a lone 0.
        let parts: Vec<&str> = b3.split('-').collect();
        let denied = parts == ["0"] || parts.get(2) == Some(&"0");
        return if denied {
            None
        } else {
            kept(&|name| name == B3)
        };
    }
    // As 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.
    let parts: Vec<&str> = first(TRACE_PARENT)?.split('-').collect();
    let flags = match parts[..] {
        [_, _, _, flags] if flags.len() == 2 => u8::from_str_radix(flags, 16).ok()?,
        _ => return None,
    };
    if flags & 1 == 1 {
        kept(&|name| name == TRACE_PARENT || name == TRACE_STATE)
    } else {
        None
    }
}

/// What is told of a client, in the header of a request and in the report of a measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ClientDetails {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(skip_serializing_if = "is_zero")]
    id: u64,
    acc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    svc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ver: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    rtt: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    server: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_type: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the serializer calls it so"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ClientDetails {
    /// The account alone.
    pub(crate) fn of_account(account: &str) -> Self {
        Self {
            acc: account.to_owned(),
            ..Self::default()
        }
    }

    /// Account and round trip; with the name of the `server`, everything.
    pub(crate) fn of(client: &Client, server: Option<&str>) -> Self {
        let identity = client.identity();
        let account = identity.account.as_ref();
        let mut details = Self::of_account(account.map_or("$G", |a| a.name().as_str()));
        details.rtt = client.rtt().map_or(0, nanos);
        let Some(server) = server else {
            return details;
        };
        details.start = Some(timestamp(client.started()));
        details.host = client.address().ip().to_canonical().to_string();
        details.id = client.id().0;
        details.user = identity
            .shown_user
            .as_deref()
            .unwrap_or_default()
            .to_owned();
        details.name.clone_from(&identity.name);
        details.lang.clone_from(&identity.lang);
        details.ver.clone_from(&identity.version);
        server.clone_into(&mut details.server);
        "Client".clone_into(&mut details.kind);
        let kind = match client.transport() {
            Transport::WebSocket => "websocket",
            _ => "nats",
        };
        kind.clone_into(&mut details.client_type);
        details
    }

    /// The server that it came through.
    pub(crate) fn set_server(&mut self, server: &str) {
        server.clone_into(&mut self.server);
    }

    /// The account through which it came, when it was passed on.
    pub(crate) fn through(mut self, account: &str) -> Self {
        account.clone_into(&mut self.svc);
        self
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::ZERO.plus(since.unwrap_or_default())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How a measured request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response came.
    Answered,
    /// The request had no reply subject.
    BadRequest,
    /// The requester stopped waiting.
    RequesterLeft,
    /// Nobody serves.
    NobodyServes,
    /// No response came in time.
    TimedOut,
}

impl Outcome {
    const fn status(self) -> (u16, &'static str) {
        match self {
            Self::Answered => (200, ""),
            Self::BadRequest => (400, "Bad Request"),
            Self::RequesterLeft => (408, "Request Timeout"),
            Self::NobodyServes => (503, "Service Unavailable"),
            Self::TimedOut => (504, "Service Timeout"),
        }
    }
}

/// The message that reports a measurement. Times are in nanoseconds.
#[derive(Debug, Serialize)]
pub(crate) struct LatencyReport {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    timestamp: Timestamp,
    status: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    requestor: Option<ClientDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder: Option<ClientDetails>,
    #[serde(skip_serializing_if = "TracingHeaders::is_empty")]
    header: TracingHeaders,
    start: Timestamp,
    service: u64,
    system: u64,
    total: u64,
}

impl LatencyReport {
    /// The report of a request that arrived at `started`, `elapsed` ago.
    pub(crate) fn new(
        outcome: Outcome,
        requestor: Option<ClientDetails>,
        responder: Option<ClientDetails>,
        headers: TracingHeaders,
        (started, elapsed): (SystemTime, Duration),
    ) -> Self {
        let (status, description) = outcome.status();
        let rtt = |details: &Option<ClientDetails>| details.as_ref().map_or(0, |d| d.rtt);
        let to_requestor = Duration::from_nanos(rtt(&requestor));
        let answered = outcome == Outcome::Answered;
        let elapsed = if answered { nanos(elapsed) } else { 0 };
        let start = started.checked_sub(to_requestor).unwrap_or(started);
        Self {
            kind: "io.nats.server.metric.v1.service_latency",
            id: event_id(),
            timestamp: timestamp(SystemTime::now()),
            status,
            description,
            start: timestamp(start),
            service: elapsed.saturating_sub(rtt(&responder)),
            system: 0,
            total: if answered {
                rtt(&requestor).saturating_add(elapsed)
            } else {
                0
            },
            requestor,
            responder,
            header: headers,
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialize")
    }
}

/// A name that no other event has.
fn event_id() -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).take(22);
    letters.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(percent: Sampling, header: &str) -> Option<Vec<String>> {
        let options = LatencyOptions {
            sampling: percent,
            subject: "latency".to_owned(),
        };
        let block = if header.is_empty() {
            String::new()
        } else {
            format!("NATS/1.0\r\n{header}\r\n\r\n")
        };
        let sample = Sample::take(&options, block.as_bytes(), 50)?;
        Some(sample.headers.into_keys().collect())
    }

    #[test]
    fn a_share_of_the_requests_is_measured() {
        assert!(sampled(Sampling::Percent(100), "").is_some());
        assert!(sampled(Sampling::Percent(51), "").is_some());
        assert!(sampled(Sampling::Percent(50), "").is_none());
        assert!(sampled(Sampling::Headers, "").is_none());
    }

    #[test]
    fn tracing_headers_ask_for_it() {
        for (header, expected) in [
            (
                "Uber-Trace-Id: a:b:c:1\r\nuberctx-x: y",
                Some(vec![UBER, "Uberctx-X"]),
            ),
            ("uber-trace-id: a:b:c:0", None),
            ("uber-trace-id: a:b:c", None),
            (
                "X-B3-Sampled: 1\r\nX-B3-TraceId: a",
                Some(vec![B3_SAMPLED, B3_TRACE]),
            ),
            ("X-B3-Sampled: 0\r\nX-B3-TraceId: a", None),
            (
                "X-B3-TraceId: a\r\nX-B3-SpanId: b",
                Some(vec!["X-B3-Spanid", B3_TRACE]),
            ),
            ("b3: 80f198ee-e457b5a2-1-05e3ac9a", Some(vec![B3])),
            ("b3: 80f198ee-e457b5a2-0-05e3ac9a", None),
            ("b3: 0", None),
            (
                "traceparent: 00-4bf9-00f0-01\r\ntracestate: x",
                Some(vec![TRACE_PARENT, TRACE_STATE]),
            ),
            ("traceparent: 00-4bf9-00f0-00", None),
            ("other: 1", None),
        ] {
            let found = sampled(Sampling::Headers, header);
            let expected = expected.map(|names| names.iter().map(ToString::to_string).collect());
            assert_eq!(found, expected, "{header}");
        }
    }

    #[test]
    fn a_report_has_the_fields_of_nats_server() {
        let requestor = Some(ClientDetails {
            rtt: 2_000,
            ..ClientDetails::of_account("A")
        });
        let responder = Some(ClientDetails {
            rtt: 1_000,
            ..ClientDetails::of_account("B")
        });
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let times = (started, Duration::from_micros(10));
        let report = LatencyReport::new(
            Outcome::Answered,
            requestor,
            responder,
            TracingHeaders::new(),
            times,
        );
        let json: serde_json::Value = serde_json::from_slice(&report.to_json()).expect("JSON");
        assert_eq!(json["type"], "io.nats.server.metric.v1.service_latency");
        assert_eq!(json["status"], 200);
        assert_eq!(
            json["requestor"],
            serde_json::json!({"acc": "A", "rtt": 2000})
        );
        assert_eq!(json["start"], "1970-01-01T00:00:00.999998Z");
        assert_eq!(json["service"], 9_000);
        assert_eq!(json["total"], 12_000);
        assert!(json.get("description").is_none() && json.get("header").is_none());
        assert_eq!(json["id"].as_str().map(str::len), Some(22));
    }
}
