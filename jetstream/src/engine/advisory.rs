//! What happened to streams and consumers, published for whoever listens.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Application, Asker, Audit, Engine};
use crate::api::json;
use crate::ids::AccountName;
use crate::ports::{LogStore, Outbox, Outgoing, StateStore};
use crate::time::Timestamp;

/// Where requests to the API are reported.
pub const API_AUDIT: &str = "$JS.EVENT.ADVISORY.API";

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// It was made.
    Create,
    /// Its configuration changed.
    Modify,
    /// It was deleted.
    Delete,
}

impl Action {
    const fn token(self) -> &'static str {
        match self {
            Self::Create => "CREATED",
            Self::Modify => "UPDATED",
            Self::Delete => "DELETED",
        }
    }
}

/// Something worth telling.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// Of a stream.
    Stream(&'a str, Action),
    /// Of a consumer of a stream.
    Consumer(&'a str, &'a str, Action),
    /// A consumer of a stream pauses until then, or goes on.
    Pause(&'a str, &'a str, Timestamp),
}

#[derive(Serialize)]
struct Advisory<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    timestamp: Timestamp,
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

/// One request to the API and its answer.
#[derive(Serialize)]
struct ApiAudit<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    timestamp: Timestamp,
    server: &'a str,
    client: Option<&'a RawValue>,
    subject: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request: &'a str,
    response: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Publishes an advisory if anyone listens.
    pub(super) fn advise(
        &mut self,
        account: &AccountName,
        event: Event<'_>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let subject = match event {
            Event::Stream(stream, action) => {
                format!("$JS.EVENT.ADVISORY.STREAM.{}.{stream}", action.token())
            }
            Event::Consumer(stream, consumer, action) => {
                let action = action.token();
                format!("$JS.EVENT.ADVISORY.CONSUMER.{action}.{stream}.{consumer}")
            }
            Event::Pause(stream, consumer, _) => {
                format!("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.{stream}.{consumer}")
            }
        };
        if !out.has_interest(account, subject.as_bytes(), None) {
            return;
        }
        let id = self.next_id();
        let (kind, stream, consumer, action, pause) = match event {
            Event::Stream(stream, action) => {
                let kind = "io.nats.jetstream.advisory.v1.stream_action";
                (kind, stream, None, Some(action), None)
            }
            Event::Consumer(stream, consumer, action) => {
                let kind = "io.nats.jetstream.advisory.v1.consumer_action";
                (kind, stream, Some(consumer), Some(action), None)
            }
            Event::Pause(stream, consumer, until) => {
                let kind = "io.nats.jetstream.advisory.v1.consumer_pause";
                (kind, stream, Some(consumer), None, Some(until))
            }
        };
        let advisory = Advisory {
            kind,
            id: &id,
            timestamp: now,
            stream,
            consumer,
            action,
            paused: pause.map(|until| until > now),
            pause_until: pause,
            domain: self.options.domain.as_deref(),
        };
        publish(account, &subject, &advisory, out);
    }

    /// Publishes a request to the API and its answer, if anyone listens.
    pub(super) fn audit(
        &mut self,
        asker: &Asker,
        audit: &Audit,
        response: &[u8],
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        if !out.has_interest(&asker.account, API_AUDIT.as_bytes(), None) {
            return;
        }
        let id = self.next_id();
        let subject = String::from_utf8_lossy(&asker.subject);
        let advisory = ApiAudit {
            kind: "io.nats.jetstream.advisory.v1.api_audit",
            id: &id,
            timestamp: now,
            server: &self.options.server_name,
            client: serde_json::from_slice(&audit.client).ok(),
            subject: &subject,
            request: &String::from_utf8_lossy(&audit.request),
            response: &String::from_utf8_lossy(response),
            domain: self.options.domain.as_deref(),
        };
        publish(&asker.account, API_AUDIT, &advisory, out);
    }

    /// 22 letters and digits that no other advisory of this engine has.
    pub(super) fn next_id(&mut self) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut rest = u128::from(self.next_random()) << 64 | u128::from(self.next_random());
        (0..22)
            .map(|_| {
                let digit = DIGITS[(rest % 62) as usize];
                rest /= 62;
                char::from(digit)
            })
            .collect()
    }
}

fn publish<T: Serialize>(account: &AccountName, subject: &str, advisory: &T, out: &mut dyn Outbox) {
    out.send(Outgoing {
        account,
        target: subject.as_bytes(),
        subject: subject.as_bytes(),
        reply: b"",
        header: b"",
        payload: &json::to_vec(advisory),
    });
}
