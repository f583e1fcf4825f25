//! Messages over the management API: storing them, and taking them for a group.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use data_encoding::BASE64;
use menes_jetstream::Timestamp;
use menes_protocol::headers::HeaderBuilder;
use menes_stations::name::{GroupName, StationName};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::answer::{Answer, Content, Problem};
use super::routes::Settling;
use super::{BASE, Management, ask};
use crate::gateway::produce::{canonical, register, shown_headers};
use crate::http::pulling::Pulling;
use crate::http::session::{Route, Session};
use crate::inside::{Inside, Received, RequestError};

/// What this API is called among the producers and the members of a group.
const NAME: &str = "api";
/// How the names of headers begin that become headers of the message.
const HEADER_PREFIX: &str = "menes-header-";
/// How the names of headers begin that belong to Memphis.
const RESERVED: &str = "$memphis";
/// Most messages of one request.
const MAX_LINES: usize = 10_000;
/// Messages under way at a time.
const WINDOW: usize = 512;
/// Most messages of one fetch.
const MAX_FETCH: u64 = 1_000;
const DEFAULT_FETCH: u64 = 10;
/// Longest wait for a message.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Most messages settled by one request.
const MAX_SETTLED: usize = 1_000;
/// Longest acknowledgement, bytes.
const MAX_ACK: usize = 1_024;

/// A station that is written to or read.
pub(super) struct Place<'a> {
    pub(super) management: &'a Management,
    pub(super) session: &'a Session,
    pub(super) station: StationName,
}

impl<'a> Place<'a> {
    pub(super) fn new(
        management: &'a Management,
        session: &'a Session,
        station: &str,
    ) -> Result<Self, Problem> {
        let station = StationName::parse(station)
            .map_err(|error| Problem::refused(&format!("{station:?}: {error}")))?;
        Ok(Self {
            management,
            session,
            station,
        })
    }

    /// The station as the broker shows it.
    async fn info(&self) -> Result<Value, Problem> {
        let body = json!({"station": self.station.external()});
        ask::broker(self.management, self.session, "STATION.INFO", body).await
    }

    /// The same for a producer: an application may not look at stations, but it may produce.
    async fn info_for_producing(&self) -> Result<Value, Problem> {
        match self.info().await {
            Err(problem) if problem.status == StatusCode::FORBIDDEN => {}
            other => return other,
        }
        let request = json!({
            "name": NAME,
            "station_name": self.station.external(),
            "connection_id": self.session.connection_id,
            "producer_type": "application",
            "req_version": 4,
            "username": self.session.user,
            "app_id": self.session.connection_id,
            "sdk_lang": NAME,
        });
        let inside = self.session.inside(&self.management.sessions).await?;
        let partitions = register(&inside, "$memphis_producer_creations", &request)
            .await
            .map_err(|text| Problem::refused(&text))?;
        Ok(json!({"partitions": partitions.len()}))
    }

    /// The partitions that are meant: one, or all.
    fn partitions(&self, info: &Value, wanted: Option<u64>) -> Result<Vec<u32>, Problem> {
        let count = info["partitions"].as_u64().unwrap_or(1).max(1);
        let numbers = match wanted {
            Some(number) if (1..=count).contains(&number) => number..=number,
            Some(_) => {
                let text = format!("partition is out of range: 1 to {count}");
                return Err(Problem::refused(&text));
            }
            None => 1..=count,
        };
        Ok(numbers
            .filter_map(|number| u32::try_from(number).ok())
            .collect())
    }

    /// Stores one message, or one for each line.
    pub(super) async fn produce(
        &self,
        fields: &Map<String, Value>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Problem> {
        let info = self.info_for_producing().await?;
        let wanted = fields.get("partition").and_then(Value::as_u64);
        let partitions = self.partitions(&info, wanted)?;
        let id = fields
            .get("id")
            .and_then(Value::as_str)
            .or_else(|| headers.get("idempotency-key")?.to_str().ok())
            .map(str::to_owned);
        let inside = self.session.inside(&self.management.sessions).await?;
        let replicas = info["replicas"].as_i64().unwrap_or(1);
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/x-ndjson") {
            let partition = partitions[rand::random_range(0..partitions.len())];
            let block = self.headers(headers, id.as_deref())?;
            let subject = self.station.subject(partition);
            let answer = inside.request(&subject, &block, &body, ask::ANSWER_TIMEOUT);
            let receipt = self.receipt(partition, &answer.await?.payload, replicas)?;
            let place = format!(
                "{BASE}/stations/{}/messages/{partition}/{}",
                self.station, receipt["sequence"]
            );
            let status = if receipt["duplicate"] == true {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            return Ok(Answer::json(status, receipt).with(header::LOCATION, &place));
        }
        let lines: Vec<&[u8]> = body
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .filter(|line| !line.is_empty())
            .collect();
        if lines.len() > MAX_LINES {
            return Err(Problem::body(format!(
                "at most {MAX_LINES} lines at a time"
            )));
        }
        let mut results = String::new();
        let mut number = 0_usize;
        let start = rand::random_range(0..partitions.len());
        for window in lines.chunks(WINDOW) {
            let mut asked = Vec::new();
            for line in window {
                let partition = partitions[(start + number) % partitions.len()];
                let id = id.as_ref().map(|id| format!("{id}:{number}"));
                let block = self.headers(headers, id.as_deref())?;
                let subject = self.station.subject(partition);
                number += 1;
                asked.push((partition, inside.ask(&subject, &block, line).await));
            }
            let end = Instant::now() + ask::ANSWER_TIMEOUT;
            let first = number - window.len();
            for (index, (partition, answers)) in asked.into_iter().enumerate() {
                let stored = match answers {
                    Ok(mut answers) => answers.next(end).await,
                    Err(error) => Err(error),
                };
                let receipt = stored
                    .map_err(Problem::from)
                    .and_then(|answer| self.receipt(partition, &answer.payload, replicas));
                let mut result = receipt.unwrap_or_else(
                    |problem| json!({"error": {"code": problem.code, "detail": problem.detail}}),
                );
                result["line"] = (first + index + 1).into();
                results.push_str(&result.to_string());
                results.push('\n');
            }
        }
        Ok(Answer::of(StatusCode::OK, Content::Lines(results)))
    }

    fn headers(&self, headers: &HeaderMap, id: Option<&str>) -> Result<Bytes, Problem> {
        let mut block = self.own_headers();
        let wrong = |name: &str| Problem::body(format!("{name} cannot be a header of a message"));
        if let Some(id) = id {
            block
                .try_push(b"msg-id", id.as_bytes())
                .map_err(|_| wrong("the id"))?;
        }
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix(HEADER_PREFIX) else {
                continue;
            };
            if name.is_empty() || name.starts_with(RESERVED) {
                return Err(wrong(name));
            }
            block
                .try_push(canonical(name).as_bytes(), value.as_bytes())
                .map_err(|_| wrong(name))?;
        }
        Ok(block.finish())
    }

    /// Stores a message with these headers.
    pub(super) async fn store(
        &self,
        wanted: Option<u64>,
        headers: &[(String, String)],
        payload: &[u8],
    ) -> Result<Value, Problem> {
        let info = self.info().await?;
        let partitions = self.partitions(&info, wanted)?;
        let partition = partitions[rand::random_range(0..partitions.len())];
        let mut block = self.own_headers();
        for (name, value) in headers {
            if name.starts_with(RESERVED) {
                return Err(Problem::refused("headers of Memphis are not for messages"));
            }
            block
                .try_push(name.as_bytes(), value.as_bytes())
                .map_err(|_| Problem::refused("this cannot be a header of a message"))?;
        }
        let inside = self.session.inside(&self.management.sessions).await?;
        let subject = self.station.subject(partition);
        let block = block.finish();
        let answer = inside.request(&subject, &block, payload, ask::ANSWER_TIMEOUT);
        let replicas = info["replicas"].as_i64().unwrap_or(1);
        self.receipt(partition, &answer.await?.payload, replicas)
    }

    fn own_headers(&self) -> HeaderBuilder {
        let mut block = HeaderBuilder::new();
        block.push("$memphis_producedBy", NAME);
        block.push("$memphis_connectionId", &self.session.connection_id);
        block
    }

    /// What a stream answers to a publish.
    fn receipt(&self, partition: u32, payload: &[u8], replicas: i64) -> Result<Value, Problem> {
        let ack: Value = serde_json::from_slice(payload).map_err(|_| Problem::unreadable())?;
        if let Some(text) = ack["error"]["description"].as_str() {
            return Err(Problem::refused(text));
        }
        Ok(json!({
            "station": self.station.external(),
            "partition": partition,
            "sequence": ack["seq"],
            "duplicate": ack["duplicate"] == true,
            // One server is all there is.
            "stored_on": 1,
            "replicas": replicas,
        }))
    }

    /// Takes messages for a group, for the caller to settle.
    pub(super) async fn fetch(
        &self,
        group: &str,
        fields: &Map<String, Value>,
    ) -> Result<Answer, Problem> {
        let group = GroupName::parse(group)
            .map_err(|error| Problem::refused(&format!("{group:?}: {error}")))?;
        let number = |key: &str| match fields.get(key) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| Problem::body(format!("{key} has to be a number, not {value}"))),
        };
        let count = number("max")?.unwrap_or(DEFAULT_FETCH);
        if !(1..=MAX_FETCH).contains(&count) {
            return Err(Problem::body(format!("max has to be 1 to {MAX_FETCH}")));
        }
        let wait = Duration::from_millis(number("wait_ms")?.unwrap_or(0)).min(MAX_WAIT);
        let info = self.info().await?;
        let partitions = self.partitions(&info, number("partition")?)?;
        let inside = self.session.inside(&self.management.sessions).await?;
        let groups = info["groups"].as_array();
        let is_there = groups
            .into_iter()
            .flatten()
            .any(|known| known["group"]["name"] == group.external());
        if !is_there {
            self.join(&inside, &group).await?;
        }
        let route = Route::new(self.station.internal(), group.internal(), partitions);
        let pulling = Pulling {
            inside: &inside,
            route: &route,
            count: usize::try_from(count).unwrap_or(1),
            acknowledges: false,
            fills: false,
        };
        let gone = |error: RequestError| match error {
            RequestError::NoResponders => {
                let text = format!("group {group} at station {} does not exist", self.station);
                Problem::refused(&text)
            }
            other => other.into(),
        };
        let mut taken = pulling.take_there().await.map_err(gone)?;
        if taken.is_empty() && !wait.is_zero() {
            taken = pulling.wait(Instant::now() + wait).await.map_err(gone)?;
        }
        let items: Vec<Value> = taken.iter().map(shown).collect();
        Ok(Answer::ok(json!({ "items": items })))
    }

    /// Makes the group, which begins at the first message.
    async fn join(&self, inside: &Inside, group: &GroupName) -> Result<(), Problem> {
        let request = json!({
            "name": NAME,
            "station_name": self.station.external(),
            "connection_id": self.session.connection_id,
            "consumer_type": "application",
            "consumers_group": group.external(),
            "max_ack_time_ms": 30_000,
            "max_msg_deliveries": 10,
            "start_consume_from_sequence": 1,
            "last_messages": -1,
            "req_version": 4,
            "username": self.session.user,
            "app_id": self.session.connection_id,
            "sdk_lang": NAME,
        });
        register(inside, "$memphis_consumer_creations", &request)
            .await
            .map_err(|text| Problem::refused(&text))?;
        Ok(())
    }

    /// Says what became of messages that were fetched.
    pub(super) async fn settle(
        &self,
        group: &str,
        fields: &Map<String, Value>,
        settling: Settling,
    ) -> Result<Answer, Problem> {
        let group = GroupName::parse(group)
            .map_err(|error| Problem::refused(&format!("{group:?}: {error}")))?;
        let acks = fields.get("acks").and_then(Value::as_array);
        let acks = acks.map(Vec::as_slice).unwrap_or_default();
        if acks.is_empty() || acks.len() > MAX_SETTLED {
            let text = format!("acks has to hold the acks of 1 to {MAX_SETTLED} messages");
            return Err(Problem::body(text));
        }
        let mut parsed = Vec::new();
        for ack in acks {
            let ack = ack.as_str().unwrap_or_default();
            let known = Delivery::parse(ack).filter(|delivery| {
                delivery.group == group.internal() && delivery.station == self.station.internal()
            });
            let known = known.ok_or_else(|| {
                Problem::body("an ack is not one of a message of this group and station")
            })?;
            parsed.push((ack, known));
        }
        let inside = self.session.inside(&self.management.sessions).await?;
        let reason = fields.get("reason").and_then(Value::as_str);
        let word: Vec<u8> = match settling {
            Settling::Ack => b"+ACK".to_vec(),
            Settling::DeadLetter => b"+TERM".to_vec(),
            Settling::Nack => match fields.get("delay_ms").and_then(Value::as_u64) {
                None | Some(0) => b"-NAK".to_vec(),
                Some(ms) => {
                    let delay = ms.saturating_mul(1_000_000);
                    format!("-NAK {}", json!({ "delay": delay })).into_bytes()
                }
            },
        };
        if settling == Settling::DeadLetter {
            for (_, delivery) in &parsed {
                let body = json!({
                    "station_name": self.station.external(),
                    "error": reason.unwrap_or_default(),
                    "partition": delivery.partition,
                    "cg_name": group.external(),
                    "seq": delivery.sequence,
                });
                let body = body.to_string();
                inside
                    .request(
                        "$memphis_nacked_dls",
                        b"",
                        body.as_bytes(),
                        ask::ANSWER_TIMEOUT,
                    )
                    .await?;
            }
        }
        let mut asked = Vec::new();
        for (ack, _) in &parsed {
            asked.push(inside.ask(ack, b"", &word).await?);
        }
        let end = Instant::now() + ask::ANSWER_TIMEOUT;
        for mut answers in asked {
            let answer = answers.next(end).await?;
            if answer.status() == Some(503) {
                let text = format!("group {group} at station {} does not exist", self.station);
                return Err(Problem::refused(&text));
            }
        }
        Ok(Answer::done())
    }
}

/// What the reply subject of a delivered message says:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<time>.<pending>`,
/// or the same with a domain and an account in front of the stream.
struct Delivery<'a> {
    station: &'a str,
    partition: u32,
    group: &'a str,
    deliveries: u64,
    sequence: u64,
    time: Timestamp,
}

impl<'a> Delivery<'a> {
    fn parse(reply: &'a str) -> Option<Self> {
        if reply.len() > MAX_ACK || reply.contains(['*', '>', ' ', '\r', '\n', '\t']) {
            return None;
        }
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let tokens = match tokens.len() {
            7 => &tokens[..],
            // Domain, account; a random token may be last.
            9 | 10 => &tokens[2..9],
            _ => return None,
        };
        let (station, partition) = tokens[0].rsplit_once('$')?;
        Some(Self {
            station,
            partition: partition.parse().ok()?,
            group: tokens[1],
            deliveries: tokens[2].parse().ok()?,
            sequence: tokens[3].parse().ok()?,
            time: Timestamp(tokens[5].parse().ok()?),
        })
    }
}

/// A message that was fetched.
fn shown(message: &Received) -> Value {
    let ack = String::from_utf8_lossy(&message.reply);
    let delivery = Delivery::parse(&ack);
    json!({
        "partition": delivery.as_ref().map(|known| known.partition),
        "sequence": delivery.as_ref().map(|known| known.sequence),
        "deliveries": delivery.as_ref().map(|known| known.deliveries),
        "time": delivery.as_ref().map(|known| known.time),
        "size": message.payload.len() + message.header.len(),
        "headers": shown_headers(&message.header),
        "payload": BASE64.encode(&message.payload),
        "ack": ack,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_message_is_read_from_its_reply_subject() {
        let read = |reply| {
            Delivery::parse(reply)
                .map(|d| (d.station, d.partition, d.group, d.deliveries, d.sequence))
        };
        let known = Some(("a#b", 2, "g", 1, 17));
        assert_eq!(read("$JS.ACK.a#b$2.g.1.17.5.1700000000000000000.0"), known);
        assert_eq!(
            read("$JS.ACK._.hash.a#b$2.g.1.17.5.1700000000000000000.0.x"),
            known
        );
        for bad in [
            "",
            "$JS.ACK.a$1.g.1.1",
            "$JS.ACK.a.g.1.17.5.1.0",
            "$JS.ACK.a$1.*.1.17.5.1.0",
            "$JS.API.a$1.g.1.17.5.1.0",
            "$JS.ACK.a$1.g.x.17.5.1.0",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_much_for_an_ack(text in "\\PC{0,80}") {
            let with_prefix = format!("$JS.ACK.{text}");
            for ack in [&text, &with_prefix] {
                let is_read = Delivery::parse(ack).is_some();
                proptest::prop_assert!(!is_read || ack.starts_with("$JS.ACK."));
            }
        }
    }
}
