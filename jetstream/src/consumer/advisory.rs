//! Advisories and metrics: events about deliveries, published for whoever listens.

use serde::Serialize;

use super::{Consumer, Turn};
use crate::ids::StreamSeq;
use crate::ports::Outgoing;
use crate::time::Timestamp;

#[derive(Serialize)]
struct Envelope<'a, B> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    timestamp: Timestamp,
    #[serde(flatten)]
    body: B,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

/// What happened to a delivery.
#[derive(Serialize)]
struct Delivery<'a> {
    stream: &'a str,
    consumer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    stream_seq: u64,
    /// Nanoseconds from the last delivery to the ack.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_time: Option<i64>,
    deliveries: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

/// What happened to a priority group.
#[derive(Serialize)]
struct Group<'a> {
    account: &'a str,
    stream: &'a str,
    consumer: &'a str,
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pinned_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

/// One delivery of a message, as a client or this consumer counts it.
#[derive(Clone, Copy)]
pub(super) struct Which {
    pub(super) stream_seq: StreamSeq,
    pub(super) consumer_seq: Option<u64>,
    pub(super) deliveries: u64,
}

impl Consumer {
    pub(super) fn advise_max_deliveries(&mut self, which: Which, turn: &mut Turn<'_>) {
        let what = (
            "ADVISORY.CONSUMER.MAX_DELIVERIES",
            "advisory.v1.max_deliver",
        );
        self.publish_delivery(what, which, None, "", turn);
    }

    pub(super) fn advise_nak(&mut self, which: Which, turn: &mut Turn<'_>) {
        let what = ("ADVISORY.CONSUMER.MSG_NAKED", "advisory.v1.nak");
        self.publish_delivery(what, which, None, "", turn);
    }

    pub(super) fn advise_terminated(&mut self, which: Which, reason: &str, turn: &mut Turn<'_>) {
        let what = ("ADVISORY.CONSUMER.MSG_TERMINATED", "advisory.v1.terminated");
        self.publish_delivery(what, which, None, reason, turn);
    }

    pub(super) fn measure_ack(&mut self, which: Which, ack_time: i64, turn: &mut Turn<'_>) {
        let what = ("METRIC.CONSUMER.ACK", "metric.v1.consumer_ack");
        self.publish_delivery(what, which, Some(ack_time), "", turn);
    }

    fn publish_delivery(
        &mut self,
        (event, kind): (&str, &str),
        which: Which,
        ack_time: Option<i64>,
        reason: &str,
        turn: &mut Turn<'_>,
    ) {
        let Some((subject, id)) = self.listened_to(event, turn) else {
            return;
        };
        let body = Delivery {
            stream: turn.stream,
            consumer: &self.name,
            consumer_seq: which.consumer_seq,
            stream_seq: which.stream_seq.0,
            ack_time,
            deliveries: which.deliveries,
            reason,
        };
        publish(&subject, kind, &id, body, turn);
    }

    pub(super) fn advise_pinned(&mut self, group: &str, pinned_id: &str, turn: &mut Turn<'_>) {
        let Some((subject, id)) = self.listened_to("ADVISORY.CONSUMER.PINNED", turn) else {
            return;
        };
        let body = Group {
            account: turn.account.as_str(),
            stream: turn.stream,
            consumer: &self.name,
            group,
            pinned_id,
            reason: "",
        };
        publish(
            &subject,
            "advisory.v1.consumer_group_pinned",
            &id,
            body,
            turn,
        );
    }

    pub(super) fn advise_unpinned(&mut self, group: &str, reason: &str, turn: &mut Turn<'_>) {
        let Some((subject, id)) = self.listened_to("ADVISORY.CONSUMER.UNPINNED", turn) else {
            return;
        };
        let body = Group {
            account: turn.account.as_str(),
            stream: turn.stream,
            consumer: &self.name,
            group,
            pinned_id: "",
            reason,
        };
        publish(
            &subject,
            "advisory.v1.consumer_group_unpinned",
            &id,
            body,
            turn,
        );
    }

    /// Subject and id of an event, if anyone listens.
    fn listened_to(&mut self, event: &str, turn: &mut Turn<'_>) -> Option<(String, String)> {
        let subject = format!("$JS.EVENT.{event}.{}.{}", turn.stream, self.name);
        if !turn
            .out
            .has_interest(turn.account, subject.as_bytes(), None)
        {
            return None;
        }
        Some((subject, self.unique_id(turn.stream)))
    }

    /// 22 letters and digits, other ones each time and for each consumer.
    pub(super) fn unique_id(&mut self, stream: &str) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        self.unique_ids += 1;
        let text = format!(
            "{stream} {} {} {} {} {}",
            self.name, self.created.0, self.clock.0, self.sent.consumer, self.unique_ids
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

fn publish(subject: &str, kind: &str, id: &str, body: impl Serialize, turn: &mut Turn<'_>) {
    let kind = format!("io.nats.jetstream.{kind}");
    let event = Envelope {
        kind: &kind,
        id,
        timestamp: turn.now,
        body,
        domain: turn.domain,
    };
    let payload = serde_json::to_vec(&event).expect("plain data always serialises");
    turn.out.send(Outgoing {
        account: turn.account,
        target: subject.as_bytes(),
        subject: subject.as_bytes(),
        reply: b"",
        header: b"",
        payload: &payload,
    });
}
