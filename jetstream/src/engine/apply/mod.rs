//! Committed entries become state, and their waiting clients get their answers.
//!
//! Everything here is decided from applied state and the entry alone. What a request was checked
//! against when it was proposed may have changed since, so what could be wrong by now is checked
//! again.

mod consumers;
mod streams;

pub(super) use self::consumers::is_logged;

use menes_protocol::headers::HeaderBlock;

use super::fast::is_fast;
use super::request::Applied;
use super::{Application, Completion, Context, Engine, StreamGroup, ended, meta};
use crate::api::{self, ApiError};
use crate::command::StreamCommand;
use crate::consumer::{self, Consumer, Proposed};
use crate::ids::{GroupId, StreamSeq};
use crate::ports::{
    Entry, EntryKind, EntryLocation, LogStore, Outbox, Outgoing, StateStore, StoreError,
    StoreErrorKind, WriteSet,
};
use crate::record;
use crate::stream::config::Retention;
use crate::stream::{self, PublishOutcome, Purged, Removed};
use crate::time::Timestamp;
use crate::txn::Txn;

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Applies one committed entry. `location` is `None` for entries that skip the log; `context`
    /// is `None` when the entry is replayed after a restart.
    pub(super) fn apply_entry(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        mut context: Option<Context>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let waiting = &mut context;
        let result = match (entry.kind, entry.group) {
            (EntryKind::Publish, _) => self.apply_publish(location, entry, waiting, now, out),
            (EntryKind::Consumer, _) => self.apply_events(location, entry, waiting, out),
            (EntryKind::Command, GroupId::META) => {
                self.apply_meta(location, entry, waiting, now, out)
            }
            (EntryKind::Command, _) => self.apply_command(location, entry, waiting, now, out),
            (EntryKind::Application, _) => self.apply_application(location, entry, waiting),
        };
        self.recount(entry.group);
        if let Err(error) = result {
            self.poison(error);
            if let Some(context) = context {
                let refusal = ApiError::temporarily_unavailable();
                self.refuse(entry, context, &refusal, now, out);
            }
        }
        if let Some(target) = self.groups.get_mut(&entry.group) {
            target.applied = entry.index;
        }
        if !self.reads.is_empty() {
            self.answer_reads(entry.group, now, out);
        }
    }

    fn apply_publish(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: &mut Option<Context>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            // The stream was deleted between proposal and commit.
            self.skip(entry, location)?;
            if let Some(Context::Publish(publishers)) = context.take() {
                self.accounts.release(publishers.claim);
                let error = ApiError::stream_not_found();
                self.complete(&publishers, |_| Err(error.clone()));
                self.refuse_publishers(entry.group, &publishers, &error, out);
            }
            return Ok(());
        };
        let StreamGroup {
            stream,
            consumers,
            names,
            audience,
            in_memory,
            restoring,
            ..
        } = target;
        let wants = |subject: &[u8], id| {
            let consumer = names.get(&id).and_then(|name| consumers.get(name));
            consumer.is_some_and(|consumer| consumer.filters().matches(subject))
        };
        let base: &dyn StateStore = if *in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let mut removed = std::mem::take(&mut self.removed);
        outcomes.clear();
        removed.clear();
        let mut cx = stream::Context {
            txn: &mut txn,
            log: &self.log,
            cache: &mut self.cache,
            segments: &mut self.segments,
        };
        let at = if *in_memory { None } else { location };
        stream.apply_publish(
            at,
            entry.index,
            &entry.payload,
            &mut |subject| *restoring || audience.of(subject).any(|id| wants(subject, id)),
            &mut cx,
            &mut outcomes,
            &mut removed,
        )?;
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        self.announce(entry, &outcomes, &removed);
        self.schedule_expiry(entry.group);
        if let Some(Context::Publish(publishers)) = context.take() {
            self.accounts.release(publishers.claim);
            self.complete(&publishers, |place| match outcomes.get(place) {
                Some(PublishOutcome::Refused(error)) => Err(error.clone()),
                Some(PublishOutcome::Outdated) => Err(ApiError::temporarily_unavailable()),
                _ => Ok(()),
            });
            self.republish(entry, &outcomes, out);
            let waiting = publishers.replies.iter().zip(&outcomes);
            if record::is_tagged(&entry.payload) {
                let counts = self
                    .groups
                    .get(&entry.group)
                    .is_some_and(|target| target.stream.counts());
                match batch_of(entry) {
                    // Only the last message of a batch has a reply, and its answer is for all.
                    Some(batch) => {
                        self.acknowledge(entry.group, waiting, |_| Extra::Batch(&batch), out);
                    }
                    None if counts => {
                        let sums = sums(entry);
                        let sum = |place| sums.get(place).cloned().map_or(Extra::None, Extra::Sum);
                        self.acknowledge(entry.group, waiting, sum, out);
                    }
                    None => self.acknowledge(entry.group, waiting, |_| Extra::None, out),
                }
                self.count_again(entry, &publishers.replies, &outcomes);
                self.produced(entry);
                let outcome = |place: usize| outcomes[place].clone();
                self.fast_applied(entry, publishers.replies.iter(), outcome, out);
                self.restored(entry, &outcomes);
                self.copies_applied(entry, &publishers.replies, &outcomes, now, out);
            } else {
                self.acknowledge(entry.group, waiting, |_| Extra::None, out);
            }
        }
        self.outcomes = outcomes;
        self.removed = removed;
        Ok(())
    }

    /// Tells the consumers of a stream what an entry stored and removed.
    fn announce(&mut self, entry: &Entry, outcomes: &[PublishOutcome], removed: &[Removed]) {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            return;
        };
        let StreamGroup {
            consumers,
            names,
            audience,
            ..
        } = target;
        if consumers.is_empty() {
            return;
        }
        let spans = record::records(&entry.payload).into_iter().flatten();
        for (span, outcome) in spans.zip(outcomes) {
            if let PublishOutcome::Stored { seq, .. } = outcome {
                let subject = span.subject(&entry.payload);
                for id in audience.of(subject) {
                    let name = names.get(&id);
                    let consumer = name.and_then(|name| consumers.get_mut(name));
                    let is_ready = |consumer: &mut Consumer| {
                        consumer.message_stored(*seq, subject) && !consumer.is_unheard()
                    };
                    if consumer.is_some_and(is_ready) {
                        self.ready.insert((entry.group, id));
                    }
                }
            }
        }
        self.announce_removed(entry.group, removed);
    }

    /// Tells the consumers of a stream what is gone; it may make room for them.
    fn announce_removed(&mut self, group: GroupId, removed: &[Removed]) {
        if removed.is_empty() {
            return;
        }
        if let Some(target) = self.groups.get_mut(&group) {
            for consumer in target.consumers.values_mut() {
                consumer.messages_removed(removed);
                if consumer.wants_turn() {
                    self.ready.insert((group, consumer.id()));
                }
            }
        }
    }

    fn acknowledge<'a>(
        &self,
        group: GroupId,
        outcomes: impl Iterator<Item = (&'a [u8], &'a PublishOutcome)>,
        extra: impl Fn(usize) -> Extra<'a>,
        out: &mut dyn Outbox,
    ) {
        let Some(target) = self.groups.get(&group) else {
            return;
        };
        if target.stream.config().no_ack {
            return;
        }
        let mut text = Vec::with_capacity(96);
        let domain = self.options.domain.as_deref();
        let write = api::pub_ack::write_pub_ack_in_domain;
        for (place, (reply, outcome)) in outcomes.enumerate() {
            let is_of_server = reply.starts_with(b"$JS.ACK.") || is_fast(reply);
            if reply.is_empty() || is_of_server {
                continue;
            }
            text.clear();
            match outcome {
                PublishOutcome::Stored { seq, .. } | PublishOutcome::NotKept { seq } => {
                    write(&mut text, &target.name, domain, *seq, false);
                    match extra(place) {
                        Extra::None => {}
                        Extra::Batch((id, count)) => {
                            api::pub_ack::add_batch(&mut text, id, *count);
                        }
                        Extra::Sum(sum) => api::pub_ack::add_sum(&mut text, &sum),
                    }
                }
                PublishOutcome::Duplicate { seq } => {
                    write(&mut text, &target.name, domain, *seq, true);
                }
                PublishOutcome::Refused(error) => {
                    api::pub_ack::write_pub_error(&mut text, &target.name, error);
                }
                // The answer comes when it is counted.
                PublishOutcome::Outdated => continue,
            }
            out.send(Outgoing {
                account: &target.account,
                target: reply,
                subject: reply,
                reply: b"",
                header: b"",
                payload: &text,
            });
        }
    }

    fn apply_events(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: &mut Option<Context>,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        let replayed;
        let proposed = match context {
            Some(Context::Consumer(proposed)) => &*proposed,
            _ => {
                let events = consumer::decode_batch(&entry.payload)
                    .map_err(|error| damaged(entry, &error.to_string()))?;
                let alone = |event| Proposed { event, reply: None };
                replayed = events.into_iter().map(alone).collect();
                &replayed
            }
        };
        if !self.groups.contains_key(&entry.group) {
            return self.skip(entry, location);
        }
        self.settle(entry, location, proposed)?;
        let Some(target) = self.groups.get(&entry.group) else {
            return Ok(());
        };
        for reply in proposed.iter().filter_map(|p| p.reply.as_deref()) {
            out.send(Outgoing {
                account: &target.account,
                target: reply,
                subject: reply,
                reply: b"",
                header: b"",
                payload: b"",
            });
        }
        Ok(())
    }

    /// Applies consumer events and removes the messages that nobody needs any more.
    fn settle(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        proposed: &[Proposed],
    ) -> Result<(), StoreError> {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            return Ok(());
        };
        let StreamGroup {
            account,
            stream,
            consumers,
            names,
            in_memory,
            ..
        } = target;
        let base: &dyn StateStore = if *in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        let mut removed = std::mem::take(&mut self.removed);
        removed.clear();
        let mut settled: Vec<StreamSeq> = Vec::new();
        let mut touched: Vec<u32> = Vec::new();
        let mut notices: Vec<consumer::Notice> = Vec::new();
        for Proposed { event, .. } in proposed {
            let id = event.consumer();
            let Some(consumer) = names.get(&id).and_then(|name| consumers.get_mut(name)) else {
                continue;
            };
            notices.extend(consumer.apply(event, &mut settled));
            // Events of one consumer come in a row.
            if touched.last() != Some(&id) {
                touched.push(id);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        let mut cx = stream::Context {
            txn: &mut txn,
            log: &self.log,
            cache: &mut self.cache,
            segments: &mut self.segments,
        };
        if !notices.is_empty() {
            let is_kept = self.application.takes_over(account, stream.name());
            let at = (entry.group, entry.index);
            let ends = ended::number(account, stream.name(), at, notices, is_kept);
            let may_go = stream.config().retention != Retention::Limits;
            for ended in ends.iter().filter(|ended| ended.key.is_some()) {
                let message = if may_go {
                    stream.message(ended.stream_seq(), &mut cx.view())?
                } else {
                    None
                };
                ended::write(ended, message.as_ref(), cx.txn);
            }
            self.ended.extend(ends);
        }
        match stream.config().retention {
            Retention::Limits => {}
            Retention::WorkQueue => {
                stream.remove_all(&settled, &mut cx, &mut removed)?;
            }
            Retention::Interest => {
                settled.sort_unstable();
                settled.dedup();
                let mut unwanted = Vec::new();
                for seq in settled {
                    let subject = stream.subject_of(seq, &mut cx.view())?;
                    let is_unwanted =
                        |subject: &[u8]| !consumers.values().any(|other| other.wants(seq, subject));
                    if subject.as_deref().is_some_and(is_unwanted) {
                        unwanted.push(seq);
                    }
                }
                stream.remove_all(&unwanted, &mut cx, &mut removed)?;
            }
        }
        if !removed.is_empty() {
            for consumer in consumers.values_mut() {
                consumer.messages_removed(&removed);
                if consumer.wants_turn() {
                    self.ready.insert((entry.group, consumer.id()));
                }
            }
        }
        for id in touched {
            if let Some(consumer) = names.get(&id).and_then(|name| consumers.get_mut(name)) {
                consumer.write_rows(entry.group, &mut txn);
                self.ready.insert((entry.group, id));
            }
        }
        let writes = txn.into_writes();
        self.removed = removed;
        self.commit(entry, location, writes)
    }

    fn apply_command(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: &mut Option<Context>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        let command = match context {
            Some(Context::Stream(command, _)) => (**command).clone(),
            _ => serde_json::from_slice(&entry.payload)
                .map_err(|error| damaged(entry, &error.to_string()))?,
        };
        let result = if self.groups.contains_key(&entry.group) {
            match command {
                StreamCommand::Purge(purge) => match self.purge(entry, location, &purge)? {
                    Ok(Purged { purged, rest: None }) => Ok(Applied::Purged(purged)),
                    Ok(Purged {
                        rest: Some(rest), ..
                    }) => {
                        // Who asked is answered when all of it is done, and others have their turn
                        // in between.
                        if let Some(Context::Stream(_, origin)) = context.take() {
                            self.propose_markers(entry.group, now);
                            let rest = StreamCommand::Purge(rest);
                            self.propose_stream(entry.group, rest, origin);
                        }
                        return Ok(());
                    }
                    Err(refusal) => Err(refusal),
                },
                StreamCommand::DeleteMessage { seq } => {
                    self.delete_message(entry, location, seq)?
                }
                StreamCommand::Advance { now, most } => {
                    self.advance(entry, location, now, most.unwrap_or(u32::MAX), out)?
                }
                StreamCommand::CreateConsumer {
                    name,
                    config,
                    now: created,
                    settled,
                } => self.create_consumer(entry, location, name, *config, created, settled, out)?,
                StreamCommand::UpdateConsumer { name, config } => {
                    self.update_consumer(entry, location, &name, *config)?
                }
                StreamCommand::PauseConsumer { name, until } => {
                    self.pause_consumer(entry, location, &name, until, now, out)?
                }
                StreamCommand::ResetConsumer { name, start } => {
                    self.reset_consumer(entry, location, &name, start)?
                }
                StreamCommand::DeleteConsumer { name, id } => {
                    self.delete_consumer(entry, location, &name, id, now, out)?
                }
                StreamCommand::HandedOver { ends } => self.hand_over(entry, location, &ends)?,
            }
        } else {
            self.skip(entry, location)?;
            Err(ApiError::stream_not_found())
        };
        if let Some(Context::Stream(_, origin)) = context.take() {
            self.propose_markers(entry.group, now);
            self.answer(origin, result, now, out);
        }
        Ok(())
    }

    fn apply_application(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: &mut Option<Context>,
    ) -> Result<(), StoreError> {
        let mut txn = Txn::new(&self.state);
        self.application.apply(&entry.payload, &mut txn)?;
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        if let Some(Context::Application(token)) = context.take() {
            self.completions.push(Completion {
                token,
                result: Ok(()),
            });
        }
        Ok(())
    }

    /// Writes the changes of one entry with its position: the atomic step.
    fn commit(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        writes: WriteSet,
    ) -> Result<(), StoreError> {
        let in_memory = self
            .groups
            .get(&entry.group)
            .is_some_and(|group| group.in_memory);
        if !in_memory {
            return self.commit_durable(entry, location, writes);
        }
        self.volatile.write(&writes)?;
        if location.is_some() {
            return self.commit_durable(entry, location, WriteSet::default());
        }
        Ok(())
    }

    fn commit_durable(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        mut writes: WriteSet,
    ) -> Result<(), StoreError> {
        let mut txn = Txn::new(&self.state);
        self.segments.write_changes(&mut txn);
        meta::write_index(entry.group, entry.index, &mut txn);
        writes.writes.append(&mut txn.into_writes().writes);
        let bytes = entry.payload.len();
        self.reclaim.applied(writes.writes.len(), bytes);
        writes.applied = location.map(|location| location.position);
        self.state.write(&writes)
    }

    /// Moves the applied position over an entry that changes nothing.
    fn skip(&mut self, entry: &Entry, location: Option<EntryLocation>) -> Result<(), StoreError> {
        let Some(location) = location else {
            return Ok(());
        };
        let mut txn = Txn::new(&self.state);
        let exists = matches!(entry.group, GroupId::META | GroupId::APPLICATION)
            || self.groups.contains_key(&entry.group);
        if exists {
            meta::write_index(entry.group, entry.index, &mut txn);
        }
        let mut writes = txn.into_writes();
        writes.applied = Some(location.position);
        self.state.write(&writes)
    }
}

/// What an acknowledgement says beside the sequence.
enum Extra<'a> {
    None,
    /// Id and size of the batch.
    Batch(&'a (String, u64)),
    /// The counter as it is now.
    Sum(String),
}

/// The sums in an entry of counters.
fn sums(entry: &Entry) -> Vec<String> {
    let spans = record::records(&entry.payload).into_iter().flatten();
    spans
        .map(|span| stream::text_of(span.payload(&entry.payload)).unwrap_or_default())
        .collect()
}

/// Id and size of the batch that an entry holds, if it holds one.
fn batch_of(entry: &Entry) -> Option<(String, u64)> {
    let mut records = record::records(&entry.payload)?;
    let span = records.next()?;
    let record::Tag::Batch { total, .. } = records.tag() else {
        return None;
    };
    let header = HeaderBlock::parse(span.header(&entry.payload)).ok()?;
    let id = header.get("Nats-Batch-Id").unwrap_or_default();
    Some((String::from_utf8_lossy(id).into_owned(), total))
}

fn damaged(entry: &Entry, what: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Corrupt,
        format!(
            "log entry {} of group {} ({:?}) cannot be applied: {what}",
            entry.index, entry.group, entry.kind
        ),
    )
}
