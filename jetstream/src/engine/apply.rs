//! Committed entries become state, and their waiting clients get their answers.

use super::request::Applied;
use super::view::StreamView;
use super::{Application, Change, Completion, Context, Engine, Origin, StreamGroup, meta};
use crate::api::{self, ApiError, consumer_config, stream_config};
use crate::command::{MetaCommand, StreamCommand};
use crate::consumer::{self, Consumer, Proposed};
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{
    Entry, EntryKind, EntryLocation, LogStore, Outbox, Outgoing, StateStore, StoreError,
    StoreErrorKind, WriteSet,
};
use crate::record;
use crate::stream::config::{Retention, Storage};
use crate::stream::{self, PublishOutcome, Removed, Rows, Stream, View};
use crate::time::Timestamp;
use crate::txn::Txn;

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Applies one committed entry. `location` is `None` for entries that skip the log; `context`
    /// is `None` when the entry is replayed after a restart.
    pub(super) fn apply_entry(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: Option<Context>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let result = match (entry.kind, entry.group) {
            (EntryKind::Publish, _) => self.apply_publish(location, entry, context, out),
            (EntryKind::Consumer, _) => self.apply_events(location, entry, context, out),
            (EntryKind::Command, GroupId::META) => {
                self.apply_meta(location, entry, context, now, out)
            }
            (EntryKind::Command, _) => self.apply_command(location, entry, context, now, out),
            (EntryKind::Application, _) => self.apply_application(location, entry, context),
        };
        if let Err(error) = result {
            self.poison(error);
        }
    }

    fn apply_publish(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: Option<Context>,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            // The stream was deleted between proposal and commit.
            return self.skip(location);
        };
        let StreamGroup {
            stream,
            consumers,
            in_memory,
            ..
        } = target;
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
            &mut |subject| consumers.values().any(|c| c.filters().matches(subject)),
            &mut cx,
            &mut outcomes,
            &mut removed,
        )?;
        if !consumers.is_empty() {
            let spans = record::records(&entry.payload).into_iter().flatten();
            for (span, outcome) in spans.zip(&outcomes) {
                if let PublishOutcome::Stored { seq, .. } = outcome {
                    let subject = span.subject(&entry.payload);
                    for consumer in consumers.values_mut() {
                        consumer.message_stored(*seq, subject);
                    }
                }
            }
            for consumer in consumers.values_mut() {
                consumer.messages_removed(&removed);
            }
        }
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        self.mark_ready(entry.group);
        self.schedule_expiry(entry.group);

        if let Some(Context::Publish(replies)) = context {
            let Some(target) = self.groups.get(&entry.group) else {
                return Ok(());
            };
            let config = target.stream.config();
            if !config.no_ack {
                let mut text = Vec::with_capacity(96);
                for (reply, outcome) in replies.iter().zip(&outcomes) {
                    if reply.is_empty() {
                        continue;
                    }
                    text.clear();
                    match outcome {
                        PublishOutcome::Stored { seq, .. } | PublishOutcome::NotKept { seq } => {
                            api::pub_ack::write_pub_ack(&mut text, &config.name, *seq, false);
                        }
                        PublishOutcome::Duplicate { seq } => {
                            api::pub_ack::write_pub_ack(&mut text, &config.name, *seq, true);
                        }
                        PublishOutcome::Refused(error) => {
                            api::pub_ack::write_pub_error(&mut text, &config.name, error);
                        }
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
        }
        self.outcomes = outcomes;
        self.removed = removed;
        Ok(())
    }

    fn apply_events(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: Option<Context>,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        let proposed = match context {
            Some(Context::Consumer(proposed)) => proposed,
            _ => consumer::decode_batch(&entry.payload)
                .map_err(|error| damaged(entry, &error.to_string()))?
                .into_iter()
                .map(|event| Proposed { event, reply: None })
                .collect(),
        };
        if !self.groups.contains_key(&entry.group) {
            return self.skip(location);
        }
        self.settle(entry, location, &proposed)?;
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
        for Proposed { event, .. } in proposed {
            let id = event.consumer();
            let Some(consumer) = names.get(&id).and_then(|name| consumers.get_mut(name)) else {
                continue;
            };
            if let Some(notice) = consumer.apply(event, &mut settled) {
                let stream = stream.name().to_owned();
                self.notices.push((account.clone(), stream, notice));
            }
            if !touched.contains(&id) {
                touched.push(id);
            }
        }
        let mut cx = stream::Context {
            txn: &mut txn,
            log: &self.log,
            cache: &mut self.cache,
            segments: &mut self.segments,
        };
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
                    let Some(message) = stream.message(seq, &mut cx.view())? else {
                        continue;
                    };
                    if !consumers.values().any(|c| c.wants(seq, message.subject())) {
                        unwanted.push(seq);
                    }
                }
                stream.remove_all(&unwanted, &mut cx, &mut removed)?;
            }
        }
        if !removed.is_empty() {
            for consumer in consumers.values_mut() {
                consumer.messages_removed(&removed);
            }
        }
        for id in &touched {
            if let Some(consumer) = names.get(id).and_then(|name| consumers.get_mut(name)) {
                consumer.write_rows(entry.group, &mut txn);
            }
        }
        let writes = txn.into_writes();
        self.removed = removed;
        self.commit(entry, location, writes)?;
        for id in touched {
            self.ready.insert((entry.group, id));
        }
        Ok(())
    }

    fn apply_meta(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: Option<Context>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        let (command, origin) = match context {
            Some(Context::Meta(command, origin)) => (*command, origin),
            _ => (
                serde_json::from_slice(&entry.payload)
                    .map_err(|error| damaged(entry, &error.to_string()))?,
                Origin::None,
            ),
        };
        let result = match command {
            MetaCommand::CreateStream {
                account,
                config,
                now: created,
            } => self.create_stream(entry, location, account, *config, created)?,
            MetaCommand::UpdateStream {
                account,
                config,
                now: at,
            } => self.update_stream(entry, location, &account, *config, at)?,
            MetaCommand::DeleteStream { account, name } => {
                self.delete_stream(entry, location, &account, &name, out)?
            }
        };
        self.answer(origin, result, now, out);
        Ok(())
    }

    fn create_stream(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        account: AccountName,
        config: stream::StreamConfig,
        created: Timestamp,
    ) -> Result<Result<Applied, ApiError>, StoreError> {
        if let Some(group) = self.meta.group(&account, &config.name) {
            self.skip(location)?;
            let same = self
                .groups
                .get(&group)
                .is_some_and(|g| stream_config::same(g.stream.config(), &config));
            return Ok(if same {
                Ok(Applied::Stream(group))
            } else {
                Err(ApiError::stream_name_in_use())
            });
        }
        if self.overlaps_another(&account, &config.name, &config.subjects) {
            self.skip(location)?;
            return Ok(Err(ApiError::subjects_overlap()));
        }
        let mut txn = Txn::new(&self.state);
        let group = self.meta.allocate(&mut txn);
        let row = meta::StreamRow {
            account: account.clone(),
            group,
            created,
            config: config.clone(),
        };
        meta::Meta::write(&row, &mut txn);
        let in_memory = config.storage == Storage::Memory;
        let subjects = config.subjects.clone();
        self.meta.insert(&account, &config.name, group);
        let stream = Stream::create(group, account.clone(), config, created);
        self.groups.insert(
            group,
            StreamGroup::new(account.clone(), created, stream, in_memory, 0),
        );
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        self.changes.push(Change::Capture {
            account,
            group,
            subjects,
        });
        Ok(Ok(Applied::Stream(group)))
    }

    fn update_stream(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        account: &AccountName,
        config: stream::StreamConfig,
        now: Timestamp,
    ) -> Result<Result<Applied, ApiError>, StoreError> {
        let Some(group) = self.meta.group(account, &config.name) else {
            self.skip(location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        if self.overlaps_another(account, &config.name, &config.subjects) {
            self.skip(location)?;
            return Ok(Err(ApiError::subjects_overlap()));
        }
        let Some(target) = self.groups.get_mut(&group) else {
            self.skip(location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        let row = meta::StreamRow {
            account: account.clone(),
            group,
            created: target.created,
            config: config.clone(),
        };
        let recapture = target.stream.config().subjects != config.subjects;
        let subjects = config.subjects.clone();
        let mut removed = Vec::new();
        let (durable, volatile) = {
            let base: &dyn StateStore = if target.in_memory {
                &self.volatile
            } else {
                &self.state
            };
            let mut txn = Txn::new(base);
            let mut cx = stream::Context {
                txn: &mut txn,
                log: &self.log,
                cache: &mut self.cache,
                segments: &mut self.segments,
            };
            target
                .stream
                .update_config(config, now, &mut cx, &mut removed)?;
            for consumer in target.consumers.values_mut() {
                consumer.messages_removed(&removed);
            }
            if target.in_memory {
                let volatile = txn.into_writes();
                let mut txn = Txn::new(&self.state);
                meta::Meta::write(&row, &mut txn);
                (txn.into_writes(), Some(volatile))
            } else {
                meta::Meta::write(&row, &mut txn);
                (txn.into_writes(), None)
            }
        };
        if let Some(volatile) = volatile {
            self.volatile.write(&volatile)?;
        }
        self.commit(entry, location, durable)?;
        self.schedule_expiry(group);
        if recapture {
            self.changes.push(Change::Release {
                account: account.clone(),
                group,
            });
            self.changes.push(Change::Capture {
                account: account.clone(),
                group,
                subjects,
            });
        }
        Ok(Ok(Applied::Stream(group)))
    }

    fn delete_stream(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        account: &AccountName,
        name: &str,
        out: &mut dyn Outbox,
    ) -> Result<Result<Applied, ApiError>, StoreError> {
        let Some(group) = self.meta.group(account, name) else {
            self.skip(location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        let Some(mut target) = self.groups.remove(&group) else {
            self.skip(location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        for consumer in target.consumers.values_mut() {
            consumer.stop(consumer::StopReason::Deleted, account, name, out);
        }
        let mut txn = Txn::new(&self.state);
        self.meta.remove(account, name, &mut txn);
        meta::delete_index(group, &mut txn);
        if target.in_memory {
            for id in target.names.keys() {
                meta::delete_volatile_consumer(group, *id, &mut txn);
            }
            let durable = txn.into_writes();
            let mut txn = Txn::new(&self.volatile);
            drop_rows(
                &mut target,
                group,
                &mut txn,
                &self.log,
                &mut self.cache,
                &mut self.segments,
            )?;
            let volatile = txn.into_writes();
            self.volatile.write(&volatile)?;
            self.commit(entry, location, durable)?;
        } else {
            drop_rows(
                &mut target,
                group,
                &mut txn,
                &self.log,
                &mut self.cache,
                &mut self.segments,
            )?;
            let writes = txn.into_writes();
            self.commit(entry, location, writes)?;
        }
        self.gathering.retain(|g| *g != group);
        self.forget_timers(group);
        self.changes.push(Change::Release {
            account: account.clone(),
            group,
        });
        Ok(Ok(Applied::Done))
    }

    fn apply_command(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: Option<Context>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        let (command, origin) = match context {
            Some(Context::Stream(command, origin)) => (*command, origin),
            _ => (
                serde_json::from_slice(&entry.payload)
                    .map_err(|error| damaged(entry, &error.to_string()))?,
                Origin::None,
            ),
        };
        if !self.groups.contains_key(&entry.group) {
            self.skip(location)?;
            self.answer(origin, Err(ApiError::stream_not_found()), now, out);
            return Ok(());
        }
        match command {
            StreamCommand::Purge(purge) => {
                let purged = self.change_stream(entry, location, |stream, cx, removed| {
                    stream.purge(&purge, cx, removed)
                })?;
                self.answer(origin, Ok(Applied::Purged(purged)), now, out);
            }
            StreamCommand::DeleteMessage { seq } => {
                let found = self.change_stream(entry, location, |stream, cx, removed| {
                    stream.remove(seq, cx, removed)
                })?;
                let result = if found {
                    Ok(Applied::Done)
                } else {
                    Err(ApiError::sequence_not_found(seq.0))
                };
                self.answer(origin, result, now, out);
            }
            StreamCommand::Advance { now } => {
                self.change_stream(entry, location, |stream, cx, removed| {
                    stream.advance(now, cx, removed)
                })?;
                if let Some(target) = self.groups.get_mut(&entry.group) {
                    target.advancing = false;
                }
                self.schedule_expiry(entry.group);
            }
            StreamCommand::CreateConsumer {
                name,
                config,
                now: created,
            } => {
                let result = self.create_consumer(entry, location, name, *config, created)?;
                self.answer(origin, result, now, out);
            }
            StreamCommand::UpdateConsumer { name, config } => {
                let result = self.update_consumer(entry, location, &name, *config)?;
                self.answer(origin, result, now, out);
            }
            StreamCommand::DeleteConsumer { name } => {
                let result = self.delete_consumer(entry, location, &name, now, out)?;
                self.answer(origin, result, now, out);
            }
        }
        self.mark_ready(entry.group);
        Ok(())
    }

    /// Runs a change of one stream as one entry and tells its consumers what went.
    fn change_stream<T>(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        change: impl FnOnce(
            &mut Stream,
            &mut stream::Context<'_, '_>,
            &mut Vec<Removed>,
        ) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            return Err(damaged(entry, "its stream is gone"));
        };
        let base: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        let mut removed = Vec::new();
        let mut cx = stream::Context {
            txn: &mut txn,
            log: &self.log,
            cache: &mut self.cache,
            segments: &mut self.segments,
        };
        let value = change(&mut target.stream, &mut cx, &mut removed)?;
        if !removed.is_empty() {
            for consumer in target.consumers.values_mut() {
                consumer.messages_removed(&removed);
            }
        }
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        Ok(value)
    }

    fn create_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: String,
        config: consumer::ConsumerConfig,
        created: Timestamp,
    ) -> Result<Result<Applied, ApiError>, StoreError> {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            self.skip(location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        if let Some(existing) = target.consumers.get(&name) {
            let same = consumer_config::same(existing.config(), &config);
            let id = existing.id();
            self.skip(location)?;
            return Ok(if same {
                Ok(Applied::Consumer(entry.group, id))
            } else {
                Err(ApiError::consumer_exists())
            });
        }
        let id = target.next_consumer;
        let StreamGroup {
            stream, in_memory, ..
        } = target;
        let in_memory = *in_memory;
        let base: &dyn StateStore = if in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        let consumer = {
            let view = View {
                rows: Rows::Txn(&txn),
                log: &self.log,
                cache: &mut self.cache,
            };
            let mut view = StreamView { stream, view };
            Consumer::create(id, name.clone(), config.clone(), created, &mut view)?
        };
        let mut consumer = consumer;
        consumer.write_rows(entry.group, &mut txn);
        target.insert_consumer(consumer);
        let writes = txn.into_writes();
        if in_memory {
            self.volatile.write(&writes)?;
            let mut txn = Txn::new(&self.state);
            let row = meta::VolatileConsumerRow {
                id,
                name,
                created,
                config,
            };
            meta::write_volatile_consumer(entry.group, &row, &mut txn);
            let writes = txn.into_writes();
            self.commit_durable(entry, location, writes)?;
        } else {
            self.commit(entry, location, writes)?;
        }
        self.ready.insert((entry.group, id));
        Ok(Ok(Applied::Consumer(entry.group, id)))
    }

    fn update_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: &str,
        config: consumer::ConsumerConfig,
    ) -> Result<Result<Applied, ApiError>, StoreError> {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            self.skip(location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        let StreamGroup {
            stream,
            consumers,
            in_memory,
            ..
        } = target;
        let in_memory = *in_memory;
        let Some(consumer) = consumers.get_mut(name) else {
            self.skip(location)?;
            return Ok(Err(ApiError::consumer_does_not_exist()));
        };
        let base: &dyn StateStore = if in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        {
            let view = View {
                rows: Rows::Txn(&txn),
                log: &self.log,
                cache: &mut self.cache,
            };
            let mut view = StreamView { stream, view };
            consumer.update_config(config.clone(), &mut view)?;
        }
        consumer.write_rows(entry.group, &mut txn);
        let (id, created) = (consumer.id(), consumer.created());
        let writes = txn.into_writes();
        if in_memory {
            self.volatile.write(&writes)?;
            let mut txn = Txn::new(&self.state);
            let row = meta::VolatileConsumerRow {
                id,
                name: name.to_owned(),
                created,
                config,
            };
            meta::write_volatile_consumer(entry.group, &row, &mut txn);
            let writes = txn.into_writes();
            self.commit_durable(entry, location, writes)?;
        } else {
            self.commit(entry, location, writes)?;
        }
        self.ready.insert((entry.group, id));
        Ok(Ok(Applied::Consumer(entry.group, id)))
    }

    fn delete_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: &str,
        _now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<Result<Applied, ApiError>, StoreError> {
        let Some(target) = self.groups.get_mut(&entry.group) else {
            self.skip(location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        let Some(mut consumer) = target.remove_consumer(name) else {
            self.skip(location)?;
            return Ok(Err(ApiError::consumer_not_found()));
        };
        let stream_name = target.stream.config().name.clone();
        let account = target.account.clone();
        consumer.stop(consumer::StopReason::Deleted, &account, &stream_name, out);
        let id = consumer.id();
        let in_memory = target.in_memory;
        let interest = target.stream.config().retention == Retention::Interest;
        let base: &dyn StateStore = if in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        consumer.drop_rows(entry.group, &mut txn);
        if interest {
            // What only this consumer still wanted goes with it.
            let mut cx = stream::Context {
                txn: &mut txn,
                log: &self.log,
                cache: &mut self.cache,
                segments: &mut self.segments,
            };
            let mut removed = Vec::new();
            remove_unwanted(target, &consumer, &mut cx, &mut removed)?;
            for other in target.consumers.values_mut() {
                other.messages_removed(&removed);
            }
        }
        let writes = txn.into_writes();
        if in_memory {
            self.volatile.write(&writes)?;
            let mut txn = Txn::new(&self.state);
            meta::delete_volatile_consumer(entry.group, id, &mut txn);
            let writes = txn.into_writes();
            self.commit_durable(entry, location, writes)?;
        } else {
            self.commit(entry, location, writes)?;
        }
        self.forget_consumer_timer(entry.group, id);
        Ok(Ok(Applied::Done))
    }

    fn apply_application(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: Option<Context>,
    ) -> Result<(), StoreError> {
        let mut txn = Txn::new(&self.state);
        self.application.apply(&entry.payload, &mut txn)?;
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        if let Some(Context::Application(token)) = context {
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
        writes.applied = location.map(|location| location.position);
        self.state.write(&writes)
    }

    /// Moves the applied position over an entry that changes nothing.
    fn skip(&mut self, location: Option<EntryLocation>) -> Result<(), StoreError> {
        let Some(location) = location else {
            return Ok(());
        };
        self.state.write(&WriteSet {
            writes: Vec::new(),
            applied: Some(location.position),
        })
    }

    pub(super) fn overlaps_another(
        &self,
        account: &AccountName,
        name: &str,
        subjects: &[String],
    ) -> bool {
        self.meta
            .streams(account)
            .filter(|(other, _)| *other != name)
            .any(|(_, group)| {
                self.groups.get(&group).is_some_and(|other| {
                    other.stream.config().subjects.iter().any(|theirs| {
                        subjects.iter().any(|ours| {
                            menes_protocol::subject::overlaps(theirs.as_bytes(), ours.as_bytes())
                        })
                    })
                })
            })
    }

    fn mark_ready(&mut self, group: GroupId) {
        if let Some(target) = self.groups.get(&group) {
            self.ready
                .extend(target.names.keys().map(|id| (group, *id)));
        }
    }
}

/// Removes from an interest stream what only `gone` still wanted.
fn remove_unwanted(
    target: &mut StreamGroup,
    gone: &Consumer,
    cx: &mut stream::Context<'_, '_>,
    removed: &mut Vec<Removed>,
) -> Result<(), StoreError> {
    let StreamGroup {
        stream, consumers, ..
    } = target;
    let mut from = stream.first_seq();
    while let Some(message) = stream.next_message(from, gone.filters(), &mut cx.view())? {
        from = message.seq.next();
        let subject = message.subject();
        if gone.wants(message.seq, subject)
            && !consumers
                .values()
                .any(|other| other.wants(message.seq, subject))
        {
            stream.remove(message.seq, cx, removed)?;
        }
    }
    Ok(())
}

fn drop_rows<L: LogStore>(
    target: &mut StreamGroup,
    group: GroupId,
    txn: &mut Txn<'_>,
    log: &L,
    cache: &mut stream::BlockCache,
    segments: &mut stream::SegmentUse,
) -> Result<(), StoreError> {
    for consumer in target.consumers.values_mut() {
        consumer.drop_rows(group, txn);
    }
    let mut cx = stream::Context {
        txn,
        log,
        cache,
        segments,
    };
    target.stream.drop_rows(&mut cx)
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
