//! Turning a message into a dead letter.

use bytes::Bytes;
use menes_jetstream::engine::ended::EndedKey;
use menes_jetstream::{AccountName, Timestamp};

use crate::dead_letter::{
    DEAD_LETTER_PRODUCER, DEFAULT_RETENTION_HOURS, Draft, Origin, PRODUCED_BY, field, stream_config,
};
use crate::lock::{Hold, LockKey};
use crate::name::StationName;
use crate::station::Station;
use crate::task::{Context, Failure, Job, Message, Next, Plan, Step, StepResult};
use crate::upkeep::station_lock;

/// Who says that a message is dead.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Its stream, by a record that goes when the dead letter is stored.
    Ended(EndedKey),
    /// A client, who wants an answer.
    Client,
}

/// A message that its consumers could not use becomes a dead letter.
pub(crate) struct Recording {
    pub(crate) station: StationName,
    pub(crate) origin: Origin,
    pub(crate) reason: String,
    pub(crate) source: Source,
    /// How often it was delivered, if it was too often.
    pub(crate) deliveries: Option<u64>,
    read: bool,
    message: Option<Message>,
    ended: bool,
}

impl Recording {
    pub(crate) fn new(
        station: StationName,
        origin: Origin,
        reason: String,
        source: Source,
    ) -> Self {
        Self {
            station,
            origin,
            reason,
            source,
            deliveries: None,
            read: false,
            message: None,
            ended: false,
        }
    }

    fn end(&self) -> Next {
        match self.source {
            Source::Ended(_) => Next::Silent,
            Source::Client => Next::Reply(Vec::new()),
        }
    }

    /// Nothing is kept; the record has served.
    fn give_up(&mut self) -> Next {
        self.ended = true;
        match &self.source {
            Source::Ended(key) => {
                let mut plan = Plan::default();
                plan.step(Step::HandOver(*key));
                Next::Run(plan)
            }
            Source::Client => self.end(),
        }
    }

    fn reading(&self) -> Plan {
        let mut plan = Plan::default();
        plan.step(match &self.source {
            Source::Ended(key) => Step::ReadEnded {
                key: *key,
                seq: self.origin.sequence,
            },
            Source::Client => Step::Read {
                stream: self.station.stream(self.origin.partition),
                seq: self.origin.sequence,
            },
        });
        plan
    }

    fn storing(&self, message: &Message, target: Option<&Station>) -> Plan {
        let id = match &self.source {
            Source::Ended(key) => Some(format!("{}.{}.{}", key.group.0, key.index, key.place)),
            Source::Client => None,
        };
        let draft = Draft {
            station: &self.station,
            origin: Some(&self.origin),
            reason: &self.reason,
            deliveries: self.deliveries,
            sent: message.time,
            header: &message.header,
            payload: &message.payload,
            id: id.as_deref(),
        };
        let mut plan = storing(&draft, target);
        if let Source::Ended(key) = &self.source {
            plan.step(Step::HandOver(*key));
        }
        plan
    }
}

/// Stores a dead letter, and a copy of it in a dead-letter station. The copy comes first: should
/// only it be stored, the next attempt finds it by its message id.
fn storing(draft: &Draft<'_>, target: Option<&Station>) -> Plan {
    let mut plan = Plan::default();
    if let Some(target) = target {
        plan.step(draft.copy(target));
    }
    plan.step(Step::EnsureStream(Box::new(stream_config(
        DEFAULT_RETENTION_HOURS,
    ))));
    plan.step(draft.publication());
    plan
}

/// The station that gets copies of a station's dead letters.
fn copies_of<'a>(cx: &Context<'a>, station: &Station) -> Option<&'a Station> {
    let name = station.dead_letter_station.as_ref()?;
    let target = &cx.state.station(cx.account, name)?.station;
    target.is_ready().then_some(target)
}

impl Job for Recording {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        if self.ended {
            return self.end();
        }
        let station = cx
            .state
            .station(cx.account, &self.station)
            .map(|entry| &entry.station)
            .filter(|station| station.is_ready() && station.dead_letters.poison);
        let Some(station) = station else {
            return self.give_up();
        };
        if !self.read {
            return Next::Run(self.reading());
        }
        let Some(message) = self.message.take() else {
            return self.give_up();
        };
        if field(&message.header, PRODUCED_BY) == Some(DEAD_LETTER_PRODUCER.as_bytes()) {
            return self.give_up();
        }
        self.ended = true;
        Next::Run(self.storing(&message, copies_of(cx, station)))
    }

    fn absorb(&mut self, results: &[StepResult]) {
        if let [StepResult::Messages(messages)] = results {
            self.read = true;
            self.message = messages.first().cloned();
        }
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        tracing::warn!(
            station = %self.station, partition = self.origin.partition,
            sequence = self.origin.sequence, ?failure,
            "a dead letter is not stored yet"
        );
        match self.source {
            Source::Ended(_) => None,
            Source::Client => Some(b"the dead letter could not be stored".to_vec()),
        }
    }
}

/// A message that violates its station's schema becomes a dead letter.
pub(crate) struct Refusal {
    pub(crate) station: StationName,
    pub(crate) reason: String,
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) sent: Timestamp,
    /// Only if the station wants such dead letters; an SDK has asked before it sends one.
    pub(crate) asks_station: bool,
    pub(crate) issued: bool,
}

impl Job for Refusal {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        let station = cx
            .state
            .station(cx.account, &self.station)
            .map(|entry| &entry.station)
            .filter(|station| station.is_ready())
            .filter(|station| station.dead_letters.schemaverse || !self.asks_station);
        let Some(station) = station.filter(|_| !self.issued) else {
            return Next::Reply(Vec::new());
        };
        self.issued = true;
        let draft = Draft {
            station: &self.station,
            origin: None,
            reason: &self.reason,
            deliveries: None,
            sent: self.sent,
            header: &self.header,
            payload: &self.payload,
            id: None,
        };
        Next::Run(storing(&draft, copies_of(cx, station)))
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        tracing::warn!(station = %self.station, ?failure, "a refused message is not kept");
        Some(b"the dead letter could not be stored".to_vec())
    }
}
