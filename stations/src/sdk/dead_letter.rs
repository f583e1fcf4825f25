//! Dead letters as SDKs report and settle them. None of these subjects needs an answer; one that
//! is asked for is empty.

use bytes::Bytes;
use menes_jetstream::{AccountName, Timestamp};
use menes_protocol::headers::HeaderBuilder;
use serde_json::Value;

use crate::dead_letter::{self, DeadLetter, Origin, Recording, Refusal, Source};
use crate::lock::{Hold, LockKey};
use crate::name::{GroupName, StationName};
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};
use crate::task::{Context, Failure, Job, Message, Next, Plan, Step, StepResult};
use crate::user::Access;

/// Reads a consumer's word that it gives up a message.
pub(super) fn open_nacked(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let partition = u32::try_from(body.number("partition")?).unwrap_or(0);
    let sequence = u64::try_from(body.number("seq")?).unwrap_or(0);
    let (station, group) = (body.text("station_name")?, body.text("cg_name")?);
    let (Ok(station), Ok(group)) = (StationName::parse(&station), GroupName::parse(&group)) else {
        return Ok(Opened::Reply(Vec::new()));
    };
    if sequence == 0 || !request.client.access.may_read(&station) {
        return Ok(Opened::Reply(Vec::new()));
    }
    let origin = Origin {
        // Stations without partitions are not made any more.
        partition: partition.max(1),
        sequence,
        group,
    };
    let reason = body.text("error")?;
    Ok(Opened::job(Recording::new(
        station,
        origin,
        reason,
        Source::Client,
    )))
}

/// Reads a message that a producer found to violate the schema.
pub(super) fn open_violation(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let Ok(station) = StationName::parse(&body.text("station_name")?) else {
        return Ok(Opened::Reply(Vec::new()));
    };
    if !request.client.access.may_write(&station) {
        return Ok(Opened::Reply(Vec::new()));
    }
    let message = body.object("message")?;
    // One SDK has a name of its own for the payload.
    let data = match message.text("data")? {
        data if data.is_empty() => message.text("payload")?,
        data => data,
    };
    Ok(Opened::job(Refusal {
        station,
        reason: body.text("validation_error")?,
        header: header(&message),
        payload: payload(&data),
        sent: request.now,
        asks_station: false,
        issued: false,
    }))
}

/// Reads the word that a resent message was settled.
pub(super) fn open_settled(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let id = body.number_or_text("id")?;
    let group = GroupName::parse(&body.text("cg_name")?).ok();
    let (Ok(id), Some(group)) = (u64::try_from(id), group) else {
        return Ok(Opened::Reply(Vec::new()));
    };
    Ok(Opened::job(Settling {
        id,
        group,
        access: request.client.access.clone(),
        message: None,
        read: false,
        issued: false,
    }))
}

/// Hex as SDKs write it; what is no hex is kept as it is.
fn payload(data: &str) -> Bytes {
    let digits: Option<Vec<u8>> = data
        .bytes()
        .map(|byte| char::from(byte).to_digit(16))
        .map(|digit| digit.and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
        _ => Bytes::copy_from_slice(data.as_bytes()),
    }
}

/// A map of texts, or of lists of texts.
fn header(message: &Body) -> Bytes {
    let mut header = HeaderBuilder::new();
    for (name, value) in message.entries("headers") {
        let values = match value {
            Value::String(text) => vec![text.as_str()],
            Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        for value in values {
            if header.try_push(name.as_bytes(), value.as_bytes()).is_err() {
                tracing::debug!("a header field of a refused message has an impossible name");
            }
        }
    }
    if header.is_empty() {
        Bytes::new()
    } else {
        header.finish()
    }
}

/// A resent message is settled: it is no dead letter of the group any more.
struct Settling {
    id: u64,
    group: GroupName,
    /// What the user who says so may read.
    access: Access,
    message: Option<Message>,
    read: bool,
    issued: bool,
}

impl Job for Settling {
    fn locks(&self, _account: &AccountName, _stations: Hold) -> Vec<(LockKey, Hold)> {
        Vec::new()
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, _cx: &Context<'_>) -> Next {
        let mut plan = Plan::default();
        if !self.read {
            plan.step(Step::Read {
                stream: dead_letter::STREAM.to_owned(),
                seq: self.id,
            });
            return Next::Run(plan);
        }
        let letter = self.message.take().as_ref().and_then(DeadLetter::parse);
        let is_meant = letter
            .filter(|letter| self.access.may_read(&letter.station))
            .and_then(|letter| letter.origin)
            .is_some_and(|origin| origin.group == self.group);
        if !is_meant || self.issued {
            return Next::Reply(Vec::new());
        }
        self.issued = true;
        plan.step(Step::DeleteMessage {
            stream: dead_letter::STREAM.to_owned(),
            seq: self.id,
        });
        Next::Run(plan)
    }

    fn absorb(&mut self, results: &[StepResult]) {
        if let [StepResult::Messages(messages)] = results {
            self.read = true;
            self.message = messages.first().cloned();
        }
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        tracing::warn!(id = self.id, ?failure, "a dead letter is not settled");
        Some(Vec::new())
    }
}

/// A message that the server itself found to violate the schema.
pub(crate) fn violation(
    station: StationName,
    reason: String,
    header: Bytes,
    payload: Bytes,
    now: Timestamp,
) -> Box<dyn Job> {
    Box::new(Refusal {
        station,
        reason,
        header,
        payload,
        sent: now,
        asks_station: true,
        issued: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_in_any_case_is_decoded_and_anything_else_kept() {
        assert_eq!(payload("7b2267223a317d"), &b"{\"g\":1}"[..]);
        assert_eq!(payload("7B22"), &b"{\""[..]);
        assert_eq!(payload("7b2"), &b"7b2"[..]);
        assert_eq!(payload("zz"), &b"zz"[..]);
        assert_eq!(payload(""), &b""[..]);
    }

    #[test]
    fn headers_are_texts_or_lists_of_texts() {
        let body = Body::parse(br#"{"headers":{"K":"v","L":["a","b"],"bad name":"x","n":1}}"#)
            .expect("an object");
        assert_eq!(
            header(&body),
            &b"NATS/1.0\r\nK: v\r\nL: a\r\nL: b\r\n\r\n"[..]
        );
        let none = Body::parse(b"{}").expect("an object");
        assert!(header(&none).is_empty());
    }
}
