//! What one stream must be like: the rules of streams once more, in the plainest form.
//!
//! A model is what the log of the stream says so far. What was sent and is not answered yet waits in
//! the order in which the log will have it, so after a crash the stream is the model after some
//! first part of it, and nothing else.
//!
//! Three things happen without an answer that says when: messages expire, acks without a
//! confirmation settle, deliveries without acks are settled by being sent. Of what they concern the
//! model knows that it *may* be gone.

use std::collections::{BTreeMap, BTreeSet};

use menes_protocol::subject;

/// When messages leave a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    Limits,
    WorkQueue,
    Interest,
}

impl Retention {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::WorkQueue => "workqueue",
            Self::Interest => "interest",
        }
    }
}

/// How a stream is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamShape {
    pub(crate) in_memory: bool,
    pub(crate) retention: Retention,
    pub(crate) max_msgs: Option<u64>,
    pub(crate) per_subject: Option<u64>,
    /// Nanoseconds.
    pub(crate) max_age: Option<i64>,
    pub(crate) discard_new: bool,
    pub(crate) discard_new_per_subject: bool,
    /// Nanoseconds.
    pub(crate) window: i64,
}

impl StreamShape {
    /// Whether nothing leaves the stream unseen.
    pub(crate) fn is_exact(&self) -> bool {
        self.retention == Retention::Limits && self.max_age.is_none()
    }
}

/// Which deliveries need an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    Explicit,
    All,
    None,
}

impl Acks {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// How a consumer is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerShape {
    pub(crate) acks: Acks,
    pub(crate) filter: Option<String>,
    pub(crate) only_new: bool,
    pub(crate) push: bool,
    pub(crate) flow_control: bool,
    pub(crate) max_deliver: Option<u64>,
    pub(crate) max_ack_pending: i64,
    pub(crate) mem_storage: bool,
}

/// A consumer and what its clients know.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerModel {
    /// No other consumer of the run has it.
    pub(crate) incarnation: u64,
    pub(crate) shape: ConsumerShape,
    /// The last sequence when its filter changed; 0 for never. What it handed out until then stays
    /// its own, and what it passed by it does not come back to.
    pub(crate) changed_at: u64,
    /// First sequence it may deliver.
    pub(crate) start: u64,
    /// Acks that were confirmed.
    pub(crate) settled: BTreeSet<u64>,
    /// Acks that were sent.
    pub(crate) attempted: BTreeSet<u64>,
    pub(crate) delivered: BTreeSet<u64>,
    /// Of the last delivery since the server started.
    pub(crate) last_consumer_seq: Option<u64>,
    /// The last sequence delivered for the first time since the server started.
    pub(crate) cursor: u64,
    /// Deliveries of each message since the server started.
    pub(crate) counts: BTreeMap<u64, u64>,
}

impl ConsumerModel {
    fn new(incarnation: u64, shape: ConsumerShape, start: u64) -> Self {
        Self {
            incarnation,
            shape,
            changed_at: 0,
            start,
            settled: BTreeSet::new(),
            attempted: BTreeSet::new(),
            delivered: BTreeSet::new(),
            last_consumer_seq: None,
            cursor: 0,
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn matches(&self, subject: &str) -> bool {
        let matches = |filter: &String| subject::matches(filter.as_bytes(), subject.as_bytes());
        self.shape.filter.as_ref().is_none_or(matches)
    }

    /// Whether the message may be its to deliver.
    pub(crate) fn covers(&self, seq: u64, subject: &str) -> bool {
        seq >= self.start && self.matches(subject)
    }

    /// The server started again.
    pub(crate) fn forget_session(&mut self) {
        self.last_consumer_seq = None;
        self.cursor = 0;
        self.counts.clear();
    }
}

/// A message that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) subject: String,
    pub(crate) time: i64,
}

/// A condition on a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Nothing,
    Last(u64),
    LastOfSubject(u64),
}

/// What older messages a publish replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollup {
    No,
    Subject,
    All,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) id: u64,
    pub(crate) subject: String,
    pub(crate) time: i64,
    /// Sent with its id, so that it is stored once.
    pub(crate) with_id: bool,
    pub(crate) expect: Expect,
    pub(crate) rollup: Rollup,
}

/// Something that becomes an entry of the log.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Publish(Publish),
    Purge {
        filter: Option<String>,
        below: Option<u64>,
        keep: Option<u64>,
    },
    DeleteMessage(u64),
    CreateStream(StreamShape),
    UpdateStream(StreamShape),
    DeleteStream,
    CreateConsumer(String, u64, ConsumerShape),
    UpdateConsumer(String, ConsumerShape),
    DeleteConsumer(String),
}

/// The answer that an operation must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Stored(u64),
    Duplicate(u64),
    /// By number; 0 stands for success.
    Code(u64),
    /// Success, or the error with this number: it depends on what left unseen.
    DoneOr(u64),
    /// Success, and this many messages went.
    Purged {
        least: u64,
        most: u64,
    },
}

/// One stream, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct StreamModel {
    pub(crate) shape: Option<StreamShape>,
    /// Incarnations made so far.
    pub(crate) incarnation: u64,
    pub(crate) last: u64,
    pub(crate) messages: BTreeMap<u64, Message>,
    pub(crate) consumers: BTreeMap<String, ConsumerModel>,
    /// Messages that may have gone before a consumer came that wants them.
    doubtful: BTreeSet<u64>,
    /// Sequence and time of message ids.
    ids: BTreeMap<u64, (u64, i64)>,
}

impl StreamModel {
    pub(crate) fn new() -> Self {
        Self {
            shape: None,
            incarnation: 0,
            last: 0,
            messages: BTreeMap::new(),
            consumers: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            ids: BTreeMap::new(),
        }
    }

    /// Applies an operation at the time `now` and tells what its answer must be.
    pub(crate) fn apply(&mut self, op: &Op, now: i64) -> Answer {
        if self.shape.is_none() && !matches!(op, Op::CreateStream(_)) {
            return Answer::Code(10059);
        }
        match op {
            Op::CreateStream(shape) => {
                *self = Self {
                    shape: Some(shape.clone()),
                    incarnation: self.incarnation + 1,
                    ..Self::new()
                };
                Answer::Code(0)
            }
            Op::DeleteStream => {
                *self = Self {
                    incarnation: self.incarnation,
                    ..Self::new()
                };
                Answer::Code(0)
            }
            Op::Publish(publish) => match self.shape.clone() {
                Some(shape) => self.publish(publish, &shape),
                None => Answer::Code(10059),
            },
            Op::Purge {
                filter,
                below,
                keep,
            } => self.purge(filter.as_deref(), *below, *keep, now),
            Op::DeleteMessage(seq) => {
                let may_be_gone = self.may_be_gone(*seq, now);
                match self.messages.remove(seq) {
                    Some(_) if may_be_gone => Answer::DoneOr(10043),
                    Some(_) => Answer::Code(0),
                    None => Answer::Code(10043),
                }
            }
            Op::UpdateStream(shape) => {
                self.shape = Some(shape.clone());
                self.evict(shape);
                Answer::Code(0)
            }
            Op::CreateConsumer(name, incarnation, shape) => {
                let start = if shape.only_new { self.last + 1 } else { 0 };
                let seqs: Vec<u64> = self.messages.keys().copied().collect();
                let doubtful = seqs.into_iter().filter(|seq| self.may_be_gone(*seq, now));
                let doubtful: Vec<u64> = doubtful.collect();
                self.doubtful.extend(doubtful);
                let consumer = ConsumerModel::new(*incarnation, shape.clone(), start);
                self.consumers.insert(name.clone(), consumer);
                Answer::Code(0)
            }
            Op::UpdateConsumer(name, shape) => {
                if let Some(consumer) = self.consumers.get_mut(name) {
                    if consumer.shape.filter != shape.filter {
                        consumer.changed_at = self.last;
                    }
                    consumer.shape = shape.clone();
                }
                self.drop_unwanted();
                Answer::Code(0)
            }
            Op::DeleteConsumer(name) => {
                if let Some(consumer) = self.consumers.remove(name)
                    && self.shape.as_ref().map(|shape| shape.retention)
                        == Some(Retention::WorkQueue)
                {
                    self.doubtful.extend(consumer.attempted);
                }
                self.drop_unwanted();
                Answer::Code(0)
            }
        }
    }

    fn publish(&mut self, publish: &Publish, shape: &StreamShape) -> Answer {
        let of_subject = |messages: &BTreeMap<u64, Message>| -> Vec<u64> {
            messages
                .iter()
                .filter(|(_, message)| message.subject == publish.subject)
                .map(|(seq, _)| *seq)
                .collect()
        };
        let held = of_subject(&self.messages);
        let is_expected = match publish.expect {
            Expect::Nothing => true,
            Expect::Last(last) => last == self.last,
            Expect::LastOfSubject(last) => last == held.last().copied().unwrap_or(0),
        };
        if !is_expected {
            return Answer::Code(10071);
        }
        if publish.with_id
            && let Some((seq, time)) = self.ids.get(&publish.id)
            && publish.time - time < shape.window
        {
            return Answer::Duplicate(*seq);
        }
        let is_wanted = shape.retention != Retention::Interest
            || self.consumers.values().any(|c| c.matches(&publish.subject));
        let per_subject = shape.per_subject.unwrap_or(u64::MAX);
        let replaces = held.len() as u64 >= per_subject;
        if is_wanted && shape.discard_new {
            let is_full = self.messages.len() as u64 >= shape.max_msgs.unwrap_or(u64::MAX);
            if replaces && shape.discard_new_per_subject && publish.rollup == Rollup::No {
                return Answer::Code(10077);
            }
            if is_full && !replaces {
                return Answer::Code(10077);
            }
        }
        self.last += 1;
        let seq = self.last;
        if publish.with_id {
            self.ids.insert(publish.id, (seq, publish.time));
        }
        if is_wanted {
            let message = Message {
                id: publish.id,
                subject: publish.subject.clone(),
                time: publish.time,
            };
            self.messages.insert(seq, message);
            if held.len() as u64 + 1 > per_subject {
                self.messages.remove(&held[0]);
            }
            if !shape.discard_new {
                self.evict_oldest(shape);
            }
        }
        match publish.rollup {
            Rollup::No => {}
            Rollup::Subject => self
                .messages
                .retain(|at, message| *at >= seq || message.subject != publish.subject),
            Rollup::All => self.messages.retain(|at, _| *at >= seq),
        }
        Answer::Stored(seq)
    }

    fn evict_oldest(&mut self, shape: &StreamShape) {
        while self.messages.len() as u64 > shape.max_msgs.unwrap_or(u64::MAX) {
            self.messages.pop_first();
        }
    }

    /// Removes what exceeds new limits.
    fn evict(&mut self, shape: &StreamShape) {
        if !shape.discard_new {
            self.evict_oldest(shape);
        }
        if let Some(limit) = shape.per_subject {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            let newest_first: Vec<u64> = self.messages.keys().rev().copied().collect();
            for seq in newest_first {
                let count = counts
                    .entry(self.messages[&seq].subject.clone())
                    .or_default();
                *count += 1;
                if *count > limit {
                    self.messages.remove(&seq);
                }
            }
        }
    }

    fn purge(
        &mut self,
        filter: Option<&str>,
        below: Option<u64>,
        keep: Option<u64>,
        now: i64,
    ) -> Answer {
        let is_meant = |message: &Message| {
            let matches = |filter| subject::matches(filter, message.subject.as_bytes());
            filter.is_none_or(|filter| matches(filter.as_bytes()))
        };
        let meant: Vec<u64> = self
            .messages
            .iter()
            .filter(|(seq, message)| is_meant(message) && below.is_none_or(|below| **seq < below))
            .map(|(seq, _)| *seq)
            .collect();
        // The newest of those that are there stay; which these are depends on what left unseen.
        let keep = keep.unwrap_or(0);
        let (mut newer, mut surely_newer) = (0, 0);
        let (mut least, mut most) = (0, 0);
        for seq in meant.into_iter().rev() {
            let is_sure = !self.may_be_gone(seq, now);
            if newer >= keep {
                most += 1;
                if surely_newer >= keep {
                    least += u64::from(is_sure);
                    self.messages.remove(&seq);
                } else {
                    self.doubtful.insert(seq);
                }
            }
            newer += 1;
            surely_newer += u64::from(is_sure);
        }
        Answer::Purged { least, most }
    }

    /// Removes from an interest stream what no consumer may want any more.
    fn drop_unwanted(&mut self) {
        if self.shape.as_ref().map(|shape| shape.retention) != Some(Retention::Interest) {
            return;
        }
        let consumers = &self.consumers;
        self.messages.retain(|seq, message| {
            consumers.values().any(|consumer| {
                consumer.covers(*seq, &message.subject) && !consumer.settled.contains(seq)
            })
        });
    }

    /// An ack was confirmed.
    pub(crate) fn settle(&mut self, consumer: &str, incarnation: u64, seq: u64) {
        let Some(consumer) = self
            .consumers
            .get_mut(consumer)
            .filter(|consumer| consumer.incarnation == incarnation)
        else {
            return;
        };
        match consumer.shape.acks {
            Acks::Explicit | Acks::None => {
                consumer.settled.insert(seq);
            }
            Acks::All => {
                let covered: Vec<u64> = consumer.delivered.range(..=seq).copied().collect();
                consumer.settled.extend(covered);
            }
        }
        match self.shape.as_ref().map(|shape| shape.retention) {
            Some(Retention::WorkQueue) => {
                self.messages.remove(&seq);
            }
            Some(Retention::Interest) => self.drop_unwanted(),
            Some(Retention::Limits) | None => {}
        }
    }

    /// An ack was sent.
    pub(crate) fn attempt(&mut self, consumer: &str, seq: u64) {
        if let Some(consumer) = self.consumers.get_mut(consumer) {
            match consumer.shape.acks {
                Acks::Explicit | Acks::None => {
                    consumer.attempted.insert(seq);
                }
                Acks::All => {
                    let covered: Vec<u64> = consumer.delivered.range(..=seq).copied().collect();
                    consumer.attempted.extend(covered);
                }
            }
        }
    }

    /// Whether a message may have left the stream without anybody being told.
    pub(crate) fn may_be_gone(&self, seq: u64, now: i64) -> bool {
        let (Some(shape), Some(message)) = (&self.shape, self.messages.get(&seq)) else {
            return true;
        };
        if self.doubtful.contains(&seq) {
            return true;
        }
        if shape.max_age.is_some_and(|age| message.time + age <= now) {
            return true;
        }
        match shape.retention {
            Retention::Limits => false,
            Retention::WorkQueue => self
                .consumers
                .values()
                .any(|consumer| consumer.attempted.contains(&seq)),
            Retention::Interest => self.consumers.values().all(|consumer| {
                !consumer.covers(seq, &message.subject)
                    || seq <= consumer.changed_at
                    || consumer.attempted.contains(&seq)
            }),
        }
    }

    /// The server starts again.
    pub(crate) fn restart(&mut self) {
        for consumer in self.consumers.values_mut() {
            consumer.forget_session();
        }
        if self.shape.as_ref().is_some_and(|shape| shape.in_memory) {
            self.messages.clear();
            self.doubtful.clear();
            self.ids.clear();
            self.last = 0;
            for consumer in self.consumers.values_mut() {
                consumer.settled.clear();
                consumer.attempted.clear();
                consumer.delivered.clear();
                consumer.start = 0;
            }
            return;
        }
        // What a consumer kept in memory is told again.
        let is_limits = self
            .shape
            .as_ref()
            .is_some_and(|shape| shape.retention == Retention::Limits);
        for consumer in self.consumers.values_mut() {
            if consumer.shape.mem_storage && is_limits {
                consumer.settled.clear();
                consumer.delivered.clear();
            }
        }
    }

    /// Compares with what the stream holds; what is gone is then known to be gone.
    pub(crate) fn compare(&mut self, actual: &Contents, now: i64) -> Result<(), String> {
        if self.shape.is_none() {
            return Err("there should be no stream".to_owned());
        }
        if actual.last != self.last {
            return Err(format!("it ends at {}, not at {}", actual.last, self.last));
        }
        for (seq, (id, subject)) in &actual.messages {
            match self.messages.get(seq) {
                Some(message) if message.id == *id && message.subject == *subject => {}
                Some(message) => {
                    return Err(format!("{seq} is {id} on {subject}, not {message:?}"));
                }
                None => return Err(format!("{seq} is {id} on {subject} and should be gone")),
            }
        }
        for (seq, message) in &self.messages {
            if !actual.messages.contains_key(seq) && !self.may_be_gone(*seq, now) {
                return Err(format!("{seq} is gone, which was {message:?}"));
            }
        }
        let consumers = self.consumers.iter();
        let consumers: BTreeMap<String, Option<String>> = consumers
            .map(|(name, consumer)| (name.clone(), consumer.shape.filter.clone()))
            .collect();
        if consumers != actual.consumers {
            let found = &actual.consumers;
            return Err(format!("its consumers are {found:?}, not {consumers:?}"));
        }
        let limits = self
            .shape
            .as_ref()
            .map(|shape| (shape.max_msgs, shape.per_subject));
        if limits != Some(actual.limits) {
            return Err(format!(
                "its limits are {:?}, not {limits:?}",
                actual.limits
            ));
        }
        self.messages
            .retain(|seq, _| actual.messages.contains_key(seq));
        Ok(())
    }
}

/// What a stream holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) last: u64,
    /// Id and subject by sequence.
    pub(crate) messages: BTreeMap<u64, (u64, String)>,
    /// Filters by name.
    pub(crate) consumers: BTreeMap<String, Option<String>>,
    /// Most messages, and most of a subject.
    pub(crate) limits: (Option<u64>, Option<u64>),
}
