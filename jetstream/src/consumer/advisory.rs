//! Advisories: events about deliveries, published for whoever listens.

use serde::Serialize;

use super::{Consumer, Turn};
use crate::ids::StreamSeq;
use crate::ports::Outgoing;
use crate::time::Timestamp;

#[derive(Serialize)]
struct Advisory<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    timestamp: Timestamp,
    stream: &'a str,
    consumer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    stream_seq: u64,
    deliveries: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

impl Consumer {
    pub(super) fn advise_max_deliveries(
        &mut self,
        stream_seq: StreamSeq,
        deliveries: u32,
        turn: &mut Turn<'_>,
    ) {
        self.advise(
            "MAX_DELIVERIES",
            "max_deliver",
            None,
            stream_seq,
            deliveries,
            "",
            turn,
        );
    }

    pub(super) fn advise_nak(
        &mut self,
        stream_seq: StreamSeq,
        consumer_seq: u64,
        deliveries: u32,
        turn: &mut Turn<'_>,
    ) {
        self.advise(
            "MSG_NAKED",
            "nak",
            Some(consumer_seq),
            stream_seq,
            deliveries,
            "",
            turn,
        );
    }

    pub(super) fn advise_terminated(
        &mut self,
        stream_seq: StreamSeq,
        consumer_seq: u64,
        deliveries: u32,
        reason: &str,
        turn: &mut Turn<'_>,
    ) {
        let seq = Some(consumer_seq);
        self.advise(
            "MSG_TERMINATED",
            "terminated",
            seq,
            stream_seq,
            deliveries,
            reason,
            turn,
        );
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one JSON object")]
    fn advise(
        &mut self,
        event: &str,
        kind: &str,
        consumer_seq: Option<u64>,
        stream_seq: StreamSeq,
        deliveries: u32,
        reason: &str,
        turn: &mut Turn<'_>,
    ) {
        let subject = format!(
            "$JS.EVENT.ADVISORY.CONSUMER.{event}.{}.{}",
            turn.stream, self.name
        );
        if !turn
            .out
            .has_interest(turn.account, subject.as_bytes(), None)
        {
            return;
        }
        self.advisories += 1;
        let id = self.advisory_id(turn.stream);
        let advisory = Advisory {
            kind: &format!("io.nats.jetstream.advisory.v1.{kind}"),
            id: &id,
            timestamp: turn.now,
            stream: turn.stream,
            consumer: &self.name,
            consumer_seq,
            stream_seq: stream_seq.0,
            deliveries,
            reason,
        };
        let payload = serde_json::to_vec(&advisory).expect("plain data always serialises");
        turn.out.send(Outgoing {
            account: turn.account,
            target: subject.as_bytes(),
            subject: subject.as_bytes(),
            reply: b"",
            header: b"",
            payload: &payload,
        });
    }

    /// 22 letters and digits, other ones for every advisory of every consumer.
    fn advisory_id(&self, stream: &str) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let text = format!(
            "{stream} {} {} {} {}",
            self.name, self.created.0, self.sent.consumer, self.advisories
        );
        let mut rest = xxhash_rust::xxh3::xxh3_128(text.as_bytes());
        (0..22)
            .map(|_| {
                let digit = DIGITS[(rest % 62) as usize];
                rest /= 62;
                char::from(digit)
            })
            .collect()
    }
}
