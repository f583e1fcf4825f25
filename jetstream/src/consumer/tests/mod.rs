//! A consumer with a stream, a network, a log and a store that a test holds in its hands.

mod acks;
mod facts;
mod model;

mod pulls;
mod pushes;
mod speed;
mod starts;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::config::AckPolicy;
use super::*;
use crate::ids::GroupId;
use crate::memory::{FlushedState, MemoryState};
use crate::ports::{Outgoing, StateStore};
use crate::record::{BlockBuilder, StoredMessage, records};
use crate::txn::Txn;

pub(super) const SECOND: Duration = Duration::from_secs(1);
const GROUP: GroupId = GroupId(16);

/// A stream that is a map.
#[derive(Default)]
pub(super) struct FakeStream {
    pub(super) messages: BTreeMap<u64, StoredMessage>,
    pub(super) last: u64,
    first: u64,
}

impl FakeStream {
    fn store(&mut self, time: Timestamp, subject: &str, header: &[u8], payload: &[u8]) -> u64 {
        let mut builder = BlockBuilder::new(time);
        builder.push(time, subject.as_bytes(), header, payload);
        let block = builder.finish();
        let span = records(&block)
            .and_then(|mut spans| spans.next())
            .expect("one record");
        self.last += 1;
        let seq = StreamSeq(self.last);
        self.messages
            .insert(self.last, StoredMessage { seq, block, span });
        self.last
    }
}

impl MessageSource for FakeStream {
    fn first_seq(&self) -> StreamSeq {
        let first = self
            .messages
            .keys()
            .next()
            .copied()
            .unwrap_or(self.last + 1);
        StreamSeq(first.max(self.first))
    }

    fn last_seq(&self) -> StreamSeq {
        StreamSeq(self.last)
    }

    fn message(&mut self, seq: StreamSeq) -> Result<Option<StoredMessage>, StoreError> {
        Ok(self.messages.get(&seq.0).cloned())
    }

    fn next_message(
        &mut self,
        from: StreamSeq,
        filters: &Filters,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let mut rest = self.messages.range(from.0..).map(|(_, message)| message);
        Ok(rest
            .find(|message| filters.matches(message.subject()))
            .cloned())
    }

    fn count_matching(&mut self, from: StreamSeq, filters: &Filters) -> Result<u64, StoreError> {
        let rest = self.messages.range(from.0..).map(|(_, message)| message);
        Ok(rest
            .filter(|message| filters.matches(message.subject()))
            .count() as u64)
    }

    fn seq_at_time(&mut self, time: Timestamp) -> Result<StreamSeq, StoreError> {
        let found = self
            .messages
            .values()
            .find(|message| message.time() >= time);
        Ok(found.map_or(StreamSeq(self.last + 1), |message| message.seq))
    }

    fn last_per_subject(&mut self, filters: &Filters) -> Result<Vec<StreamSeq>, StoreError> {
        let mut last: BTreeMap<&[u8], StreamSeq> = BTreeMap::new();
        for message in self
            .messages
            .values()
            .filter(|m| filters.matches(m.subject()))
        {
            last.insert(message.subject(), message.seq);
        }
        let seqs: BTreeSet<_> = last.into_values().collect();
        Ok(seqs.into_iter().collect())
    }
}

/// A message that reached someone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) target: String,
    pub(super) subject: String,
    pub(super) reply: String,
    pub(super) header: String,
    pub(super) payload: String,
}

impl Sent {
    pub(super) fn token(&self) -> AckToken<'_> {
        AckToken::parse(self.reply.as_bytes()).expect("an ack subject")
    }

    /// Stream sequence.
    pub(super) fn seq(&self) -> u64 {
        self.token().stream_seq.0
    }

    /// First line of the header block.
    pub(super) fn status(&self) -> &str {
        self.header
            .split("\r\n")
            .next()
            .unwrap_or_default()
            .trim_start_matches("NATS/1.0 ")
    }

    pub(super) fn is_message(&self) -> bool {
        self.reply.starts_with("$JS.ACK.")
    }
}

/// A network in which everybody listens, except where a test says otherwise.
#[derive(Default)]
pub(super) struct Net {
    pub(super) now: Timestamp,
    pub(super) sent: Vec<Sent>,
    /// When each of them was sent.
    pub(super) times: Vec<Timestamp>,
    pub(super) deaf: BTreeSet<String>,
}

impl Outbox for Net {
    fn send(&mut self, message: Outgoing<'_>) -> bool {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let target = text(message.target);
        if self.deaf.contains(&target) {
            return false;
        }
        self.times.push(self.now);
        self.sent.push(Sent {
            target,
            subject: text(message.subject),
            reply: text(message.reply),
            header: text(message.header),
            payload: text(message.payload),
        });
        true
    }

    fn has_interest(
        &mut self,
        _account: &AccountName,
        subject: &[u8],
        _queue: Option<&[u8]>,
    ) -> bool {
        !self.deaf.contains(&*String::from_utf8_lossy(subject))
    }
}

/// Something that the log tells a consumer.
enum Item {
    Event(ConsumerEvent),
    Stored(StreamSeq, String),
    Removed(Removed),
}

/// Everything around one consumer.
pub(super) struct World {
    pub(super) stream: FakeStream,
    pub(super) net: Net,
    pub(super) consumer: Consumer,
    pub(super) now: Timestamp,
    pub(super) proposed: Vec<Proposed>,
    pub(super) notices: Vec<Notice>,
    pub(super) settled: Vec<u64>,
    /// Every event applied.
    pub(super) applied: Vec<ConsumerEvent>,
    pub(super) store: MemoryState,
    disk: FlushedState,
    /// What a crash applies again: everything since the store was last flushed.
    journal: Vec<Item>,
    /// The consumer said that it should go.
    pub(super) is_abandoned: bool,
}

pub(super) fn pull_config() -> ConsumerConfig {
    ConsumerConfig {
        durable_name: Some("C".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: 30_000_000_000,
        max_deliver: -1,
        max_ack_pending: 1000,
        ..ConsumerConfig::default()
    }
}

pub(super) fn push_config() -> ConsumerConfig {
    ConsumerConfig {
        deliver_subject: "to.me".to_owned(),
        ..pull_config()
    }
}

impl World {
    pub(super) fn new(config: ConsumerConfig) -> Self {
        Self::over(FakeStream::default(), config)
    }

    pub(super) fn over(mut stream: FakeStream, config: ConsumerConfig) -> Self {
        let now = Timestamp(1_700_000_000_000_000_000);
        let consumer = Consumer::create(1, "C".to_owned(), config, now, &mut stream)
            .expect("a fake stream never fails");
        let store = MemoryState::new();
        let disk = store.flushed();
        let mut world = Self {
            stream,
            net: Net::default(),
            consumer,
            now,
            proposed: Vec::new(),
            notices: Vec::new(),
            settled: Vec::new(),
            applied: Vec::new(),
            store,
            disk,
            journal: Vec::new(),
            is_abandoned: false,
        };
        world.write_rows();
        world.flush_store();
        world
    }

    /// A stream with `count` messages `a` to `a`.
    pub(super) fn with_messages(count: u64, config: ConsumerConfig) -> Self {
        let mut world = Self::new(config);
        for number in 1..=count {
            world.publish("a", &number.to_string());
        }
        world
    }

    pub(super) fn turn<R>(&mut self, work: impl FnOnce(&mut Consumer, &mut Turn<'_>) -> R) -> R {
        self.net.now = self.now;
        let account = AccountName::global();
        let mut turn = Turn {
            now: self.now,
            account: &account,
            stream: "S",
            domain: None,
            source: &mut self.stream,
            out: &mut self.net,
            events: &mut self.proposed,
            notices: &mut self.notices,
        };
        let result = work(&mut self.consumer, &mut turn);
        self.consumer.check();
        result
    }

    pub(super) fn publish(&mut self, subject: &str, payload: &str) -> u64 {
        self.publish_with(subject, b"", payload)
    }

    pub(super) fn publish_with(&mut self, subject: &str, header: &[u8], payload: &str) -> u64 {
        let seq = self
            .stream
            .store(self.now, subject, header, payload.as_bytes());
        self.consumer
            .message_stored(StreamSeq(seq), subject.as_bytes());
        self.journal
            .push(Item::Stored(StreamSeq(seq), subject.to_owned()));
        seq
    }

    pub(super) fn remove(&mut self, seq: u64) {
        if let Some(message) = self.stream.messages.remove(&seq) {
            let subject = Bytes::copy_from_slice(message.subject());
            self.removed(Removed::Message {
                seq: StreamSeq(seq),
                subject,
            });
        }
    }

    pub(super) fn purge_below(&mut self, seq: u64) {
        self.stream.messages = self.stream.messages.split_off(&seq);
        self.stream.first = self.stream.first.max(seq);
        self.removed(Removed::Below(StreamSeq(seq)));
    }

    /// Removes every message below `seq` with this subject.
    pub(super) fn purge_subject(&mut self, subject: &str, below: u64) {
        self.stream
            .messages
            .retain(|seq, message| *seq >= below || message.subject() != subject.as_bytes());
        let filter = Bytes::copy_from_slice(subject.as_bytes());
        self.removed(Removed::Matching {
            filter,
            below: StreamSeq(below),
        });
    }

    fn removed(&mut self, removed: Removed) {
        self.consumer
            .messages_removed(std::slice::from_ref(&removed));
        self.journal.push(Item::Removed(removed));
        self.write_rows();
        self.consumer.check();
    }

    /// A pull request followed by a delivery.
    pub(super) fn pull(&mut self, inbox: &str, payload: &str) {
        self.turn(|consumer, turn| consumer.pull(inbox.as_bytes(), payload.as_bytes(), turn))
            .expect("a fake stream never fails");
        self.deliver();
    }

    pub(super) fn deliver(&mut self) {
        while self
            .turn(|consumer, turn| consumer.deliver(turn, 7))
            .expect("a fake stream never fails")
        {}
    }

    /// Lets time pass; timers and deliveries follow.
    pub(super) fn advance(&mut self, span: Duration) {
        let end = self.now.plus(span);
        for _ in 0..10_000 {
            match self.consumer.next_deadline().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.turn(Consumer::tick)
                        .expect("a fake stream never fails");
                    self.is_abandoned |= self.turn(Consumer::is_abandoned);
                    self.deliver();
                    let next = self.consumer.next_deadline();
                    assert!(
                        next.is_none_or(|next| next > self.now),
                        "a deadline stays behind"
                    );
                }
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("time stands still");
    }

    /// Appends everything proposed and applies it.
    pub(super) fn apply(&mut self) {
        self.turn(|consumer, turn| consumer.flush(turn));
        self.apply_first(usize::MAX);
    }

    /// Applies the first events of those proposed.
    pub(super) fn apply_first(&mut self, count: usize) {
        let rest = self.proposed.split_off(count.min(self.proposed.len()));
        let proposed = std::mem::replace(&mut self.proposed, rest);
        let bytes = encode_batch(proposed.iter().map(|p| &p.event));
        for event in decode_batch(&bytes).expect("just encoded") {
            let mut settled = Vec::new();
            if let Some(notice) = self.consumer.apply(&event, &mut settled) {
                self.notices.push(notice);
            }
            self.settled.extend(settled.iter().map(|seq| seq.0));
            self.journal.push(Item::Event(event.clone()));
            self.applied.push(event);
            self.consumer.check();
        }
        self.write_rows();
        for reply in proposed.into_iter().filter_map(|p| p.reply) {
            let account = AccountName::global();
            send_status(&mut self.net, &account, &reply, b"", b"");
        }
    }

    /// An ack of the message with this sequence.
    pub(super) fn ack_with(&mut self, seq: u64, payload: &str, reply: &str) {
        let subject = format!("$JS.ACK.S.C.1.{seq}.{seq}.0.0");
        let token = AckToken::parse(subject.as_bytes()).expect("an ack subject");
        self.turn(|consumer, turn| {
            consumer.ack(&token, payload.as_bytes(), reply.as_bytes(), turn)
        })
        .expect("a fake stream never fails");
    }

    /// Answers a question of flow control.
    pub(super) fn confirm(&mut self, subject: &str, last: Option<u64>) -> bool {
        self.turn(|consumer, turn| {
            consumer.flow_confirmed(subject.as_bytes(), last.map(StreamSeq), turn)
        })
    }

    pub(super) fn ack(&mut self, seq: u64) {
        self.ack_with(seq, "+ACK", "");
    }

    pub(super) fn info(&mut self) -> ConsumerInfo {
        self.turn(Consumer::info)
            .expect("a fake stream never fails")
    }

    /// What was sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<Sent> {
        self.net.times.clear();
        std::mem::take(&mut self.net.sent)
    }

    /// Sequences of the messages sent since the last call.
    pub(super) fn seqs(&mut self) -> Vec<u64> {
        self.sent()
            .iter()
            .filter(|sent| sent.is_message())
            .map(Sent::seq)
            .collect()
    }

    /// Statuses sent since the last call, with their receivers.
    pub(super) fn statuses(&mut self) -> Vec<(String, String)> {
        let sent = self.sent();
        let statuses = sent
            .iter()
            .filter(|s| !s.is_message() && s.header.starts_with("NATS/1.0 "));
        statuses
            .map(|s| (s.target.clone(), s.status().to_owned()))
            .collect()
    }

    pub(super) fn write_rows(&mut self) {
        let mut txn = Txn::new(&self.store);
        self.consumer.write_rows(GROUP, &mut txn);
        let writes = txn.into_writes();
        self.store.write(&writes).expect("memory takes every write");
    }

    /// Makes the rows of now what a crash leaves.
    pub(super) fn flush_store(&mut self) {
        self.store.begin_flush().expect("memory takes every write");
        self.journal.clear();
    }

    /// The server crashes: what was proposed and not applied is lost, the rows are as they were at
    /// the last flush, and the log since then is applied again.
    pub(super) fn crash(&mut self) {
        self.proposed.clear();
        self.store = MemoryState::reopen(&self.disk);
        self.consumer = Consumer::load(GROUP, 1, &self.store)
            .expect("rows this test wrote")
            .expect("the consumer exists");
        self.consumer.check();
        for item in &self.journal {
            match item {
                Item::Event(event) => {
                    self.consumer.apply(event, &mut Vec::new());
                }
                Item::Stored(seq, subject) => {
                    self.consumer.message_stored(*seq, subject.as_bytes());
                }
                Item::Removed(removed) => {
                    self.consumer
                        .messages_removed(std::slice::from_ref(removed));
                }
            }
            self.consumer.check();
        }
        self.write_rows();
    }
}
