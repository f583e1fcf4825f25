//! Mirrors and sources: streams that copy messages of other streams.
//!
//! A stream reads its origins like any client: it asks the API of the origin's account for a push
//! consumer, and what that delivers is proposed as records of its own. Nothing here knows whether
//! the origin lives in this server, in another account or beyond a leafnode.
//!
//! ```text
//!            due, nothing in flight              answer, message or heartbeat
//!   Waiting ───────────────────────▶ Asking ──────────────────────────────────▶ Running
//!      ▲                                │ refused, no answer                        │
//!      └────────────────────────────────┴───────────────────────────────────────────┘
//!                     silent for 10 s, a delivery is missing, a record was refused
//! ```
//!
//! # Invariants
//!
//! 1. How far a stream has come is written with the message that took it there; a link begins
//!    behind that and at no other place.
//! 2. Every copy names the one before it. One that does not follow what is applied is refused, so
//!    after a refusal nothing of the same consumer is stored and the link begins again.
//! 3. An origin that removes what was acknowledged gets its ack when the copy is durable.

mod link;

use std::collections::BTreeMap;

use menes_protocol::headers::HeaderBlock;
use serde::Deserialize;

use self::link::Phase;
use super::counting::Increment;
use super::gather::Record;
use super::request::{ApiRequest, send};
use super::{Application, Change, Engine, StreamGroup};
use crate::api::ApiError;
use crate::api::response::SourceInfo;
use crate::consumer::AckToken;
use crate::consumer::config::AckPolicy;
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{Entry, LogStore, Outbox, StateStore};
use crate::record::{self, Tag};
use crate::stream::config::Retention;
use crate::stream::{PublishOutcome, StreamConfig};
use crate::time::Timestamp;

pub(super) use self::link::Link;

/// Stands for the links of a stream among the timers of its group.
pub(super) const LINK_TIMER: u32 = u32::MAX;

/// Which link listens under which number.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    next: u64,
    by_number: BTreeMap<u64, (GroupId, u64)>,
}

impl Listeners {
    /// A number that was never given.
    pub(super) fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// An answer of the API to the request for a consumer, as far as it matters.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<ApiError>,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    config: Settings,
    #[serde(default)]
    delivered: Delivered,
}

#[derive(Default, Deserialize)]
struct Settings {
    #[serde(default)]
    ack_policy: AckPolicy,
}

#[derive(Default, Deserialize)]
struct Delivered {
    #[serde(default)]
    stream_seq: u64,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// A message for whoever listens under `listener`: for a link an answer of an origin's API, a
    /// message of an origin or a question of its flow control; for a backup that is written an ack;
    /// for one that is read a part of it.
    pub fn link_message(
        &mut self,
        listener: u64,
        message: ApiRequest<'_>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        if self.backups.contains_key(&listener) {
            return self.backup_acknowledged(listener, message.subject, now);
        }
        if self.restores.contains_key(&listener) {
            return self.restore_chunk(listener, &message, now, out);
        }
        let Some(&(group, id)) = self.listeners.by_number.get(&listener) else {
            return;
        };
        let Some(link) = self
            .link(group, id)
            .filter(|link| link.listener == listener)
        else {
            return;
        };
        if link.phase == Phase::Waiting {
            return;
        }
        let result = if message.subject == link.answer_subject().as_bytes() {
            self.link_answered(group, id, &message, now)
        } else if message.header.starts_with(b"NATS/1.0 ") {
            self.link_told(group, id, &message, now, out)
        } else {
            self.link_copies(group, id, &message, now)
        };
        match result {
            Ok(()) => self.schedule_links(group),
            Err(error) => self.link_fails(group, id, error, now, out),
        }
    }

    fn link(&mut self, group: GroupId, id: u64) -> Option<&mut Link> {
        let target = self.groups.get_mut(&group)?;
        target.links.iter_mut().find(|link| link.id == id)
    }

    /// The API of the origin has answered the request for a consumer.
    fn link_answered(
        &mut self,
        group: GroupId,
        id: u64,
        message: &ApiRequest<'_>,
        now: Timestamp,
    ) -> Result<(), Option<ApiError>> {
        if message.header.starts_with(b"NATS/1.0 503") {
            return Err(Some(ApiError::not_enabled()));
        }
        let answer: Answer = serde_json::from_slice(message.payload).map_err(|_| None)?;
        if let Some(error) = answer.error {
            return Err(Some(error));
        }
        if let Some(link) = self.link(group, id) {
            if let Some(error) = link.unfit(answer.config.ack_policy) {
                return Err(Some(error));
            }
            if link.is_fed() && link.phase == Phase::Asking {
                // What it settled is here, or was wanted by nobody.
                link.brought = answer.delivered.stream_seq;
            }
            link.error = None;
            // Messages may have come before the answer.
            if link.phase == Phase::Asking {
                link.lag = answer.num_pending;
            }
            link.is_alive(now);
        }
        Ok(())
    }

    /// A heartbeat, a question of flow control, or the end of the consumer.
    fn link_told(
        &mut self,
        group: GroupId,
        id: u64,
        message: &ApiRequest<'_>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<(), Option<ApiError>> {
        if !message.header.starts_with(b"NATS/1.0 100") {
            return Err(None);
        }
        let Some(link) = self.link(group, id) else {
            return Ok(());
        };
        if link.is_early() {
            return Ok(());
        }
        link.is_alive(now);
        if !message.reply.is_empty() {
            link.flow = message.reply.to_vec();
        } else if let Ok(header) = HeaderBlock::parse(message.header) {
            let number = |name| {
                let text = std::str::from_utf8(header.get(name)?).ok()?;
                text.parse::<u64>().ok()
            };
            // The heartbeat names the last delivery; one is missing if it is another.
            if number("Nats-Last-Consumer").is_some_and(|last| last > link.delivered) {
                return Err(None);
            }
            if let Some(question) = header.get("Nats-Consumer-Stalled") {
                link.flow = question.to_vec();
            }
        }
        self.answer_flow(group, id, out);
        Ok(())
    }

    /// Lets the origin send more once everything it sent is durable.
    fn answer_flow(&mut self, group: GroupId, id: u64, out: &mut dyn Outbox) {
        let Some(link) = self.link(group, id) else {
            return;
        };
        if link.in_flight > 0 || link.flow.is_empty() {
            return;
        }
        let question = std::mem::take(&mut link.flow);
        let header = format!(
            "NATS/1.0\r\nNats-Last-Consumer: {}\r\nNats-Last-Stream: {}\r\n\r\n",
            link.delivered, link.brought
        );
        if let Some(target) = self.groups.get(&group) {
            send(&target.account, &question, header.as_bytes(), b"", out);
        }
    }

    /// A message of the origin: it is proposed as a copy.
    fn link_copies(
        &mut self,
        group: GroupId,
        id: u64,
        message: &ApiRequest<'_>,
        now: Timestamp,
    ) -> Result<(), Option<ApiError>> {
        let random = self.next_random() as u32;
        let Some(token) = AckToken::parse(message.reply) else {
            return Ok(());
        };
        let Some(link) = self.link(group, id) else {
            return Ok(());
        };
        if link.is_early() || !link.is_delivered_by(&token) {
            return Ok(());
        }
        link.is_alive(now);
        let delivery = token.consumer_seq.0;
        if delivery <= link.delivered {
            return Ok(());
        }
        if delivery != link.delivered + 1 || token.deliveries > 1 {
            return Err(None);
        }
        link.delivered = delivery;
        link.lag = token.pending;
        let seq = token.stream_seq;
        link.brought = seq.0;
        let is_known = seq.0 <= link.proposed;
        if is_known && !link.acks {
            return Ok(());
        }
        let copied = link.copied(message.subject, message.header, seq, random);
        let previous = link.proposed;
        let tag = if link.is_mirror {
            Tag::Mirror {
                previous,
                seq: seq.0,
                time: token.timestamp,
            }
        } else {
            Tag::Source {
                id,
                previous,
                seq: seq.0,
            }
        };
        let acks = link.acks;
        link.proposed = seq.0.max(previous);
        link.in_flight += 1;
        let reply = if acks { message.reply } else { b"" };
        let counts = |target: &StreamGroup| target.stream.counts();
        if self.groups.get(&group).is_some_and(counts) {
            let increment = Increment {
                tag,
                subject: copied.subject.to_vec(),
                header: copied.header.to_vec(),
                payload: message.payload.to_vec(),
            };
            self.wait_in_turn(group, vec![increment], reply, false);
            return Ok(());
        }
        let record = Record {
            tag,
            reply,
            subject: &copied.subject,
            header: &copied.header,
            payload: message.payload,
        };
        let result = self.gather(group, now, record);
        if result.is_err()
            && let Some(link) = self.link(group, id)
        {
            link.in_flight -= 1;
        }
        result.map_err(Some)
    }

    /// The consumer is of no use any more.
    fn link_fails(
        &mut self,
        group: GroupId,
        id: u64,
        error: Option<ApiError>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let account = target.account.clone();
        if let Some(link) = target.links.iter_mut().find(|link| link.id == id) {
            link.fail(error, now);
            unlisten(link, &account, &mut self.listeners, &mut self.changes, out);
        }
        self.schedule_links(group);
    }

    /// What became of the copies in an applied entry.
    pub(super) fn copies_applied(
        &mut self,
        entry: &Entry,
        replies: &super::replies::Replies,
        outcomes: &[PublishOutcome],
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let group = entry.group;
        let mut failed: BTreeMap<u64, ApiError> = BTreeMap::new();
        let mut touched = Vec::new();
        for (tag, (reply, outcome)) in tags(entry).zip(replies.iter().zip(outcomes)) {
            let Some(target) = self.groups.get_mut(&group) else {
                return;
            };
            let Some(link) = target.links.iter_mut().find(|link| link.is_of(tag)) else {
                continue;
            };
            link.in_flight = link.in_flight.saturating_sub(1);
            touched.push(link.id);
            let seq = match tag {
                Tag::Mirror { seq, .. } | Tag::Source { seq, .. } => StreamSeq(seq),
                Tag::Client
                | Tag::Marker
                | Tag::Counter
                | Tag::Schedule { .. }
                | Tag::Fast { .. }
                | Tag::Batch { .. } => continue,
            };
            let position = position(link, &target.stream);
            match outcome {
                PublishOutcome::Refused(error) if seq > position => {
                    // The first one says what is wrong, the others only that they follow it.
                    failed.entry(link.id).or_insert_with(|| error.clone());
                }
                // It is here, now or from before.
                _ if !reply.is_empty() => send(&target.account, reply, b"", b"+ACK", out),
                _ => {}
            }
        }
        touched.dedup();
        for (id, error) in failed {
            if self
                .link(group, id)
                .is_some_and(|link| link.phase != Phase::Waiting)
            {
                tracing::warn!("a copy of another stream's message was refused: {error}");
                self.link_fails(group, id, Some(error), now, out);
            }
        }
        for id in touched {
            self.answer_flow(group, id, out);
        }
        self.schedule_links(group);
    }

    /// An entry with copies was not taken by the log.
    pub(super) fn copies_refused(
        &mut self,
        entry: &Entry,
        error: &ApiError,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let mut failed = Vec::new();
        for tag in tags(entry) {
            let Some(target) = self.groups.get_mut(&entry.group) else {
                return;
            };
            if let Some(link) = target.links.iter_mut().find(|link| link.is_of(tag)) {
                link.in_flight = link.in_flight.saturating_sub(1);
                failed.push(link.id);
            }
        }
        failed.dedup();
        for id in failed {
            self.link_fails(entry.group, id, Some(error.clone()), now, out);
        }
    }

    /// A copy could not be proposed.
    pub(super) fn copy_refused(
        &mut self,
        group: GroupId,
        id: u64,
        error: ApiError,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        if let Some(link) = self.link(group, id) {
            link.in_flight = link.in_flight.saturating_sub(1);
        }
        self.link_fails(group, id, Some(error), now, out);
    }

    /// Runs what is due.
    pub(super) fn run_links(&mut self, group: GroupId, now: Timestamp, out: &mut dyn Outbox) {
        let Some(target) = self.groups.get(&group) else {
            return;
        };
        let due: Vec<(u64, Phase)> = target
            .links
            .iter()
            .filter(|link| link.due <= now)
            .map(|link| (link.id, link.phase))
            .collect();
        for (id, phase) in due {
            if phase == Phase::Waiting {
                self.ask_origin(group, id, now, out);
            } else {
                self.link_fails(group, id, None, now, out);
            }
        }
        self.schedule_links(group);
    }

    /// Asks the origin for a consumer that begins behind what is here.
    fn ask_origin(&mut self, group: GroupId, id: u64, now: Timestamp, out: &mut dyn Outbox) {
        let name = self.next_id();
        let Some(account) = self.groups.get(&group).map(|target| target.account.clone()) else {
            return;
        };
        let Some(origin) = self.link(group, id).map(|link| link.source.clone()) else {
            return;
        };
        // An origin in this account is known to remove what is acknowledged, or not.
        let removes = origin.external.is_none()
            && self
                .meta
                .group(&account, &origin.name)
                .and_then(|group| self.groups.get(&group))
                .is_some_and(|origin| origin.stream.config().retention != Retention::Limits);
        let listener = self.listeners.next();
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let StreamGroup { links, stream, .. } = target;
        let Some(link) = links.iter_mut().find(|link| link.id == id) else {
            return;
        };
        // What is on its way decides where to begin.
        if link.in_flight > 0 {
            link.due = now.plus(link::ANSWER);
            return;
        }
        let position = position(link, stream);
        link.consumer = name;
        link.listener = listener;
        link.acks = removes && !link.is_fed();
        link.phase = Phase::Asking;
        link.proposed = position.0;
        link.delivered = 0;
        link.brought = 0;
        link.due = now.plus(link::ANSWER);
        self.listeners.by_number.insert(listener, (group, id));
        self.changes.push(Change::Listen {
            account: account.clone(),
            listener,
            subjects: vec![link.answer_subject(), link.deliver_subject()],
        });
        let (subject, body) = link.request(position);
        self.requests.push(Request {
            account,
            subject,
            reply: link.answer_subject(),
            body,
        });
        let _ = out;
    }

    /// Sends what links ask for, once their subscriptions are there.
    pub fn send_link_requests(&mut self, out: &mut dyn Outbox) {
        for request in std::mem::take(&mut self.requests) {
            out.send(crate::ports::Outgoing {
                account: &request.account,
                target: request.subject.as_bytes(),
                subject: request.subject.as_bytes(),
                reply: request.reply.as_bytes(),
                header: b"",
                payload: &request.body,
            });
        }
    }

    /// Makes the links of a stream those of its configuration.
    pub(super) fn follow_origins(&mut self, group: GroupId, now: Timestamp, out: &mut dyn Outbox) {
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        if target.restoring {
            return;
        }
        let account = target.account.clone();
        let mut before = std::mem::take(&mut target.links);
        target.links = wanted(target.stream.config(), now)
            .into_iter()
            .map(|link| {
                let known = before
                    .iter()
                    .position(|old| old.id == link.id && old.is_mirror == link.is_mirror);
                match known {
                    Some(at) => before.swap_remove(at),
                    None => link,
                }
            })
            .collect();
        for mut link in before {
            unlisten(
                &mut link,
                &account,
                &mut self.listeners,
                &mut self.changes,
                out,
            );
        }
        self.schedule_links(group);
        let is_linked = self
            .groups
            .get(&group)
            .is_some_and(|target| !target.links.is_empty());
        if is_linked {
            self.linked.insert(group);
        } else {
            self.linked.remove(&group);
        }
    }

    /// A stream is gone, and so is the need for its origins.
    pub(super) fn drop_links(&mut self, mut target: StreamGroup, out: &mut dyn Outbox) {
        self.refuse_counts(&mut target, out);
        self.refuse_waiting_fast(&mut target, out);
        for link in &mut target.links {
            unlisten(
                link,
                &target.account,
                &mut self.listeners,
                &mut self.changes,
                out,
            );
        }
    }

    /// Links that wait for a stream of this name need not wait any longer.
    pub(super) fn origin_appeared(&mut self, account: &AccountName, name: &str, now: Timestamp) {
        let mut waiting = Vec::new();
        for group in &self.linked {
            let target = self.groups.get_mut(group);
            let Some(target) = target.filter(|target| target.account == *account) else {
                continue;
            };
            for link in &mut target.links {
                if link.source.name == name
                    && link.source.external.is_none()
                    && link.phase == Phase::Waiting
                {
                    link.due = now;
                    waiting.push(*group);
                }
            }
        }
        for group in waiting {
            self.schedule_links(group);
        }
    }

    fn schedule_links(&mut self, group: GroupId) {
        let due = self
            .groups
            .get(&group)
            .and_then(|target| target.links.iter().map(|link| link.due).min());
        self.set_timer(group, LINK_TIMER, due);
    }
}

/// A request that goes out when whoever will get its answer listens.
#[derive(Debug)]
pub(super) struct Request {
    account: AccountName,
    subject: String,
    reply: String,
    body: Vec<u8>,
}

impl Link {
    /// Whether what comes was sent before its consumer began again.
    fn is_early(&self) -> bool {
        self.is_fed() && self.phase == Phase::Asking
    }

    /// Whether it is its own consumer that delivers.
    fn is_delivered_by(&self, token: &AckToken<'_>) -> bool {
        let consumer = self.source.consumer.as_ref();
        let consumer = consumer.map_or(&self.consumer, |durable| &durable.name);
        token.stream == self.source.name.as_bytes() && token.consumer == consumer.as_bytes()
    }

    fn is_of(&self, tag: Tag) -> bool {
        match tag {
            Tag::Mirror { .. } => self.is_mirror,
            Tag::Source { id, .. } => !self.is_mirror && self.id == id,
            Tag::Client
            | Tag::Marker
            | Tag::Counter
            | Tag::Schedule { .. }
            | Tag::Fast { .. }
            | Tag::Batch { .. } => false,
        }
    }
}

impl StreamGroup {
    /// How the mirror stands with its origin.
    pub(super) fn mirror_info(&self, now: Timestamp) -> Option<SourceInfo> {
        let mirror = self.links.iter().find(|link| link.is_mirror);
        mirror.map(|link| link.info(position(link, &self.stream), now))
    }

    /// How the stream stands with its sources.
    pub(super) fn source_infos(&self, now: Timestamp) -> Vec<SourceInfo> {
        let sources = self.links.iter().filter(|link| !link.is_mirror);
        sources
            .map(|link| link.info(position(link, &self.stream), now))
            .collect()
    }
}

fn position(link: &Link, stream: &crate::stream::Stream) -> StreamSeq {
    if link.is_mirror {
        stream.last_seq()
    } else {
        stream.position_in(link.id)
    }
}

fn wanted(config: &StreamConfig, now: Timestamp) -> Vec<Link> {
    let mirror = config.mirror.iter().map(|mirror| (mirror, true));
    let sources = config.sources.iter().map(|source| (source, false));
    mirror
        .chain(sources)
        .map(|(source, is_mirror)| Link::new(source.clone(), is_mirror, now))
        .collect()
}

fn tags(entry: &Entry) -> impl Iterator<Item = Tag> + '_ {
    let mut records = record::records(&entry.payload).filter(|_| record::is_tagged(&entry.payload));
    std::iter::from_fn(move || {
        let records = records.as_mut()?;
        records.next()?;
        Some(records.tag())
    })
}

/// Stops listening and lets the origin know.
fn unlisten(
    link: &mut Link,
    account: &AccountName,
    listeners: &mut Listeners,
    changes: &mut Vec<Change>,
    out: &mut dyn Outbox,
) {
    if listeners.by_number.remove(&link.listener).is_none() {
        return;
    }
    changes.push(Change::Unlisten {
        listener: link.listener,
    });
    if let Some(subject) = link.removal() {
        send(account, subject.as_bytes(), b"", b"", out);
    }
    link.consumer.clear();
}
