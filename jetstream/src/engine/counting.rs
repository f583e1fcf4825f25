//! Increments of counters: they wait here for their turn and get their sums.
//!
//! A sum follows from the last message of its subject, so a stream of counters has at most one run
//! of messages on its way through the log. What comes in meanwhile is counted together once that is
//! applied: one entry carries as many increments as came in during a sync. A sum that turns out to
//! be wrong when it is applied, because something was removed in between, is found again.

use std::collections::{BTreeMap, VecDeque};

use super::gather::Record;
use super::replies::{Publishers, Replies};
use super::{Application, Engine, Publish, StreamGroup, next_random};
use crate::api::ApiError;
use crate::ids::GroupId;
use crate::ports::{Entry, LogStore, Outbox, StateStore, StoreError};
use crate::record::{self, Tag};
use crate::stream::{Broken, Counted, Counter, PublishOutcome, View, is_increment};
use crate::time::Timestamp;

/// What waits for its turn in one stream.
#[derive(Debug, Default)]
pub(super) struct Counts {
    queue: VecDeque<Waiting>,
    /// Increments that have to be counted again, ahead of the others.
    again: Vec<Waiting>,
    /// It had its turn last, and lets fast batches go first if any wait.
    went_last: bool,
}

impl Counts {
    /// The next that waits, as long as there is room for any. A batch is a run of its own.
    fn take(&mut self, room: &mut usize) -> Option<Waiting> {
        let next = self.queue.front().filter(|_| *room > 0)?;
        *room = room.saturating_sub(next.bytes());
        let ends = |after: &Waiting| after.is_batch || after.bytes() > *room;
        if next.is_batch || self.queue.get(1).is_some_and(ends) {
            *room = 0;
        }
        self.queue.pop_front()
    }
}

impl Waiting {
    /// Bytes in an entry, at most, where sums and what sources came to are of usual length.
    fn bytes(&self) -> usize {
        let parts = self.messages.iter().map(|message| {
            message.subject.len() + 2 * message.header.len() + message.payload.len() + 128
        });
        parts.sum()
    }
}

/// A message of a stream of counters, or a batch of them.
#[derive(Debug)]
pub(super) struct Waiting {
    messages: Vec<Increment>,
    /// Where the answer goes, empty for nowhere.
    reply: Vec<u8>,
    is_batch: bool,
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Increment {
    pub(super) tag: Tag,
    pub(super) subject: Vec<u8>,
    pub(super) header: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// The counters of a stream, as they will be when what was counted is applied.
pub(super) type Totals = BTreeMap<Vec<u8>, Result<Counter, Broken>>;

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Takes a client's message for a stream of counters.
    pub(super) fn wait_to_count(&mut self, group: GroupId, message: Publish<'_>) {
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let random = &mut self.random;
        let incoming = target.stream.prepare(message.subject, message.header, || {
            next_random(random) as u32
        });
        let increment = Increment {
            tag: Tag::Client,
            subject: incoming.subject.into_owned(),
            header: incoming.header.into_owned(),
            payload: message.payload.to_vec(),
        };
        self.wait_in_turn(group, vec![increment], message.reply, false);
    }

    /// Takes messages for a stream of counters as they are; a batch is counted and stored as a
    /// whole.
    pub(super) fn wait_in_turn(
        &mut self,
        group: GroupId,
        messages: Vec<Increment>,
        reply: &[u8],
        is_batch: bool,
    ) {
        if let Some(target) = self.groups.get_mut(&group) {
            let reply = reply.to_vec();
            target.counts.queue.push_back(Waiting {
                messages,
                reply,
                is_batch,
            });
            self.counting.insert(group);
        }
    }

    /// Counts what waits in streams that have nothing on its way.
    pub(super) fn count(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        for group in std::mem::take(&mut self.counting) {
            let is_idle = self.is_idle(group);
            let Some(target) = self.groups.get_mut(&group) else {
                continue;
            };
            if !is_idle && self.poisoned.is_none() {
                self.counting.insert(group);
                continue;
            }
            let is_waited_for = target.fast.waits() && self.poisoned.is_none();
            if std::mem::take(&mut target.counts.went_last) && is_waited_for {
                self.counting.insert(group);
                continue;
            }
            target.counts.went_last = true;
            let again = std::mem::take(&mut target.counts.again);
            for waiting in again.into_iter().rev() {
                target.counts.queue.push_front(waiting);
            }
            // All of it is one entry: what follows an increment that has to be counted again must
            // not overtake it.
            let mut room = self.options.max_entry_bytes;
            let mut totals = Totals::new();
            while let Some(waiting) = self
                .groups
                .get_mut(&group)
                .and_then(|target| target.counts.take(&mut room))
            {
                if let Err(error) = self.count_one(group, now, waiting, &mut totals, out) {
                    self.poison(error);
                }
            }
            if let Some(target) = self.groups.get(&group)
                && !target.counts.queue.is_empty()
            {
                self.counting.insert(group);
            }
        }
    }

    /// Whether nothing of a stream is on its way.
    pub(super) fn is_idle(&self, group: GroupId) -> bool {
        let is_on_its_way = self.sealed.iter().any(|(entry, context)| {
            entry.group == group || self.concerned(entry, context) == Some(group)
        });
        let target = self.groups.get(&group);
        !is_on_its_way
            && target.is_none_or(|target| target.waiting == 0 && target.builder.is_none())
    }

    fn count_one(
        &mut self,
        group: GroupId,
        now: Timestamp,
        waiting: Waiting,
        totals: &mut Totals,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        if waiting.is_batch {
            self.seal_publishes(group);
        }
        let last = waiting.messages.len().saturating_sub(1);
        let mut refusal = None;
        for (at, message) in waiting.messages.iter().enumerate() {
            let counted = self.counted(group, message, totals)?;
            let (tag, header, payload) = match &counted {
                Some(counted) => {
                    let tag = match message.tag {
                        Tag::Client => Tag::Counter,
                        tag => tag,
                    };
                    (tag, &counted.header[..], &counted.payload[..])
                }
                // Applying it tells what is wrong with it.
                None => (message.tag, &message.header[..], &message.payload[..]),
            };
            let record = Record {
                tag,
                reply: if at == last { &waiting.reply } else { b"" },
                subject: &message.subject,
                header,
                payload,
            };
            if let Err(error) = self.gather(group, now, record) {
                refusal = Some((message.tag, error));
                break;
            }
        }
        if waiting.is_batch {
            self.seal_publishes(group);
        }
        match refusal {
            Some((Tag::Source { id, .. }, error)) => {
                self.copy_refused(group, id, error, now, out);
            }
            Some((_, error)) => {
                if let Some(target) = self.groups.get(&group) {
                    let mut publishers = Publishers::of(target);
                    publishers.replies.push(&waiting.reply);
                    self.refuse_publishers(group, &publishers, &error, out);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// A message with its sum; `None` when there is none.
    pub(super) fn counted(
        &mut self,
        group: GroupId,
        message: &Increment,
        totals: &mut Totals,
    ) -> Result<Option<Counted>, StoreError> {
        let is_copy = matches!(message.tag, Tag::Source { .. });
        if !is_copy && !is_increment(&message.header, &message.payload) {
            return Ok(None);
        }
        let Some(target) = self.groups.get(&group) else {
            return Ok(None);
        };
        if !totals.contains_key(&message.subject) {
            let base: &dyn StateStore = if target.in_memory {
                &self.volatile
            } else {
                &self.state
            };
            let mut view = View::new(base, &self.log, &mut self.cache);
            let counter = target.stream.counter(&message.subject, &mut view)?;
            totals.insert(message.subject.clone(), counter);
        }
        let Some(Ok(counter)) = totals.get_mut(&message.subject) else {
            return Ok(None);
        };
        Ok(counter.add(&message.subject, &message.header, &message.payload))
    }

    /// Increments of an applied entry that were not stored because their counter is another by now.
    pub(super) fn count_again(
        &mut self,
        entry: &Entry,
        replies: &Replies,
        outcomes: &[PublishOutcome],
    ) {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            return;
        };
        let Some(mut records) = record::records(&entry.payload) else {
            return;
        };
        for (reply, outcome) in replies.iter().zip(outcomes) {
            let Some(span) = records.next() else {
                return;
            };
            // Batches see to theirs.
            if *outcome != PublishOutcome::Outdated || records.tag() != Tag::Counter {
                continue;
            }
            let increment = Increment {
                tag: Tag::Client,
                subject: span.subject(&entry.payload).to_vec(),
                header: span.header(&entry.payload).to_vec(),
                // An increment has no body; what is here is the sum.
                payload: Vec::new(),
            };
            target.counts.again.push(Waiting {
                messages: vec![increment],
                reply: reply.to_vec(),
                is_batch: false,
            });
            self.counting.insert(entry.group);
        }
    }

    /// A stream is gone, and nobody counts any more what waits in it.
    pub(super) fn refuse_counts(&self, target: &mut StreamGroup, out: &mut dyn Outbox) {
        let counts = std::mem::take(&mut target.counts);
        let mut publishers = Publishers::of(target);
        for waiting in counts.again.iter().chain(&counts.queue) {
            publishers.replies.push(&waiting.reply);
        }
        let group = target.stream.group();
        self.refuse_publishers(group, &publishers, &ApiError::stream_not_found(), out);
    }
}
