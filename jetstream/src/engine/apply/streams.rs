//! Streams come, change and go; their messages are purged, deleted and expire.

use super::damaged;
use crate::api::{ApiError, stream_config};
use crate::command::{MetaCommand, Purge};
use crate::consumer::StopReason;
use crate::engine::advisory::{Action, Event};
use crate::engine::request::Applied;
use crate::engine::{Application, Change, Context, Engine, Figures, StreamGroup, ended, meta};
use crate::ids::{AccountName, StreamSeq};
use crate::ports::{Entry, EntryLocation, LogStore, Outbox, StateStore, StoreError, WriteSet};
use crate::stream::config::{Retention, Storage};
use crate::stream::{self, Filters, Purged, Removed, Stream};
use crate::time::Timestamp;
use crate::txn::Txn;

/// What became of a command: what to tell whoever asked. An error beside it is damage.
pub(super) type Outcome = Result<Result<Applied, ApiError>, StoreError>;

/// Sequences collected before those messages are removed together.
const REMOVED_AT_ONCE: usize = 4096;

/// How a stream comes to be.
struct Creation {
    created: Timestamp,
    /// Somebody waits for it; it is not replayed.
    is_live: bool,
    /// It is filled from a backup.
    restoring: bool,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    pub(super) fn apply_meta(
        &mut self,
        location: Option<EntryLocation>,
        entry: &Entry,
        context: &mut Option<Context>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<(), StoreError> {
        let command = match context {
            Some(Context::Meta(command, ..)) => (**command).clone(),
            _ => serde_json::from_slice(&entry.payload)
                .map_err(|error| damaged(entry, &error.to_string()))?,
        };
        let result = match command {
            MetaCommand::CreateStream {
                account,
                config,
                now: created,
                restoring,
            } => {
                let how = Creation {
                    created,
                    is_live: context.is_some(),
                    restoring,
                };
                self.create_stream(entry, location, account, *config, how, out)?
            }
            MetaCommand::FinishRestore {
                account,
                name,
                last,
                last_time,
                now: at,
            } => {
                let how = Creation {
                    created: at,
                    is_live: context.is_some(),
                    restoring: false,
                };
                let last = (last, last_time);
                self.finish_restore(entry, location, &account, &name, last, how, out)?
            }
            MetaCommand::UpdateStream {
                account,
                config,
                now: at,
                most,
            } => {
                let is_live = context.is_some();
                let config = (*config, most.unwrap_or(u32::MAX));
                self.update_stream(entry, location, &account, config, at, is_live, out)?
            }
            MetaCommand::DeleteStream {
                account,
                name,
                only_if_unused,
            } => self.delete_stream(entry, location, &account, &name, only_if_unused, now, out)?,
        };
        if let Some(Context::Meta(_, origin, claim)) = context.take() {
            self.accounts.release(claim);
            match result {
                Ok(Applied::Stream(group))
                    if let Some(target) = self.groups.get_mut(&group)
                        && target.stream.is_beyond_limits() =>
                {
                    target.shrinking.push(origin);
                }
                result => self.answer(origin, result, now, out),
            }
        }
        Ok(())
    }

    fn create_stream(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        account: AccountName,
        config: stream::StreamConfig,
        how: Creation,
        out: &mut dyn Outbox,
    ) -> Outcome {
        let Creation {
            created,
            is_live,
            restoring,
        } = how;
        let holder = self.meta.holder(&account, &config.name);
        if restoring && holder.is_some() {
            self.skip(entry, location)?;
            return Ok(Err(ApiError::restore_name_in_use()));
        }
        if let Some(group) = holder {
            self.skip(entry, location)?;
            let same = self
                .groups
                .get(&group)
                .is_some_and(|g| !g.restoring && stream_config::same(g.stream.config(), &config));
            return Ok(if same {
                Ok(Applied::Stream(group))
            } else {
                Err(ApiError::stream_name_in_use())
            });
        }
        if self.overlaps_another(&account, &config.name, &config.subjects) {
            self.skip(entry, location)?;
            return Ok(Err(ApiError::subjects_overlap()));
        }
        let mut txn = Txn::new(&self.state);
        let group = self.meta.allocate(&mut txn);
        let row = meta::StreamRow {
            account: account.clone(),
            group,
            created,
            config: config.clone(),
            restoring,
        };
        meta::Meta::write(&row, &mut txn);
        let subjects = config.subjects.clone();
        self.meta.insert(&account, &config.name, group, restoring);
        self.starts.note(&account, group, &subjects);
        let stream = Stream::create(group, account.clone(), config, created);
        let slot = self.accounts.slot(&account);
        let mut target = StreamGroup::new(account.clone(), slot, created, stream, 0);
        target.restoring = restoring;
        let name = target.name.clone();
        self.groups.insert(group, target);
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        self.recount(group);
        if restoring {
            return Ok(Ok(Applied::Stream(group)));
        }
        self.advise(&account, Event::Stream(&name, Action::Create), created, out);
        if is_live {
            self.follow_origins(group, created, out);
            self.origin_appeared(&account, &name, created);
        }
        self.changes.push(Change::Capture {
            account,
            group,
            subjects,
        });
        Ok(Ok(Applied::Stream(group)))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "an entry, where it lies, and a command with its time"
    )]
    fn finish_restore(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        account: &AccountName,
        name: &str,
        (last, last_time): (StreamSeq, Timestamp),
        how: Creation,
        out: &mut dyn Outbox,
    ) -> Outcome {
        let group = self.meta.holder(account, name);
        let target = group.and_then(|group| self.groups.get_mut(&group));
        let (Some(group), Some(target)) = (group, target.filter(|target| target.restoring)) else {
            self.skip(entry, location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        let Creation {
            created: now,
            is_live,
            ..
        } = how;
        target.restoring = false;
        self.meta.insert(account, name, group, false);
        let consumers = target.consumers.values().map(|c| (group, c.id()));
        self.ready.extend(consumers);
        let row = meta::StreamRow {
            account: account.clone(),
            group,
            created: target.created,
            config: target.stream.config().clone(),
            restoring: false,
        };
        let subjects = row.config.subjects.clone();
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
        target.stream.skip_to(last, last_time, &mut cx);
        if row.config.retention == Retention::Interest {
            drop_unwanted(target, &Filters::all(), &mut cx, &mut removed)?;
        }
        let in_memory = target.in_memory;
        let changes = txn.into_writes();
        let writes = self.with_row(&row, in_memory, changes)?;
        self.commit(entry, location, writes)?;
        self.recount(group);
        self.announce_removed(group, &removed);
        self.schedule_expiry(group);
        self.advise(account, Event::Stream(name, Action::Create), now, out);
        if is_live {
            self.follow_origins(group, now, out);
            self.origin_appeared(account, name, now);
        }
        self.changes.push(Change::Capture {
            account: account.clone(),
            group,
            subjects,
        });
        Ok(Ok(Applied::Stream(group)))
    }

    /// The row of a stream together with what changes in it, which for a stream in memory is written
    /// there.
    fn with_row(
        &mut self,
        row: &meta::StreamRow,
        in_memory: bool,
        mut changes: WriteSet,
    ) -> Result<WriteSet, StoreError> {
        let mut txn = Txn::new(&self.state);
        meta::Meta::write(row, &mut txn);
        let mut writes = txn.into_writes();
        if in_memory {
            self.volatile.write(&changes)?;
            return Ok(writes);
        }
        changes.writes.append(&mut writes.writes);
        Ok(changes)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "an entry, where it lies, and a command with its time"
    )]
    fn update_stream(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        account: &AccountName,
        (config, most): (stream::StreamConfig, u32),
        now: Timestamp,
        is_live: bool,
        out: &mut dyn Outbox,
    ) -> Outcome {
        let group = self.meta.group(account, &config.name);
        let current = group.and_then(|group| self.groups.get(&group));
        let (Some(group), Some(current)) = (group, current) else {
            self.skip(entry, location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        let refusal = if self.overlaps_another(account, &config.name, &config.subjects) {
            Some(ApiError::subjects_overlap())
        } else {
            stream_config::check_change(current.stream.config(), &config).err()
        };
        if let Some(refusal) = refusal {
            self.skip(entry, location)?;
            return Ok(Err(refusal));
        }
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(damaged(entry, "its stream is gone"));
        };
        let row = meta::StreamRow {
            account: account.clone(),
            group,
            created: target.created,
            config: config.clone(),
            restoring: target.restoring,
        };
        let old = target.stream.config();
        let recapture = old.subjects != config.subjects;
        if recapture {
            self.starts.forget(account, group, &old.subjects);
            self.starts.note(account, group, &config.subjects);
        }
        let retention = (old.retention, config.retention);
        let subjects = config.subjects.clone();
        let mut removed = Vec::new();
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
            .update_config(config, now, most, &mut cx, &mut removed)?;
        if retention.0 != retention.1 {
            target.follow_retention(group, &mut cx);
        }
        if retention == (Retention::Limits, Retention::Interest) {
            drop_settled(target, &mut cx, &mut removed)?;
        }
        let in_memory = target.in_memory;
        let changes = txn.into_writes();
        let writes = self.with_row(&row, in_memory, changes)?;
        self.commit(entry, location, writes)?;
        self.recount(group);
        self.announce_removed(group, &removed);
        self.schedule_expiry(group);
        let name = &row.config.name;
        self.advise(account, Event::Stream(name, Action::Modify), now, out);
        if is_live {
            self.follow_origins(group, now, out);
        }
        if recapture {
            self.changes.push(Change::Capture {
                account: account.clone(),
                group,
                subjects,
            });
        }
        Ok(Ok(Applied::Stream(group)))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "an entry, where it lies, and a command with its time"
    )]
    fn delete_stream(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        account: &AccountName,
        name: &str,
        only_if_unused: bool,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Outcome {
        let group = self.meta.holder(account, name);
        let is_used = group
            .and_then(|group| self.groups.get(&group))
            .is_some_and(|target| target.stream.last_time() > Timestamp::ZERO);
        if only_if_unused && is_used {
            self.skip(entry, location)?;
            return Ok(Ok(Applied::Done));
        }
        let target = group.and_then(|group| self.groups.remove(&group));
        let (Some(group), Some(mut target)) = (group, target) else {
            self.skip(entry, location)?;
            return Ok(Err(ApiError::stream_not_found()));
        };
        self.accounts
            .replace(target.slot, &target.counted, &Figures::default());
        let mut txn = Txn::new(&self.state);
        self.meta.remove(account, name, &mut txn);
        let subjects = &target.stream.config().subjects;
        self.starts.forget(account, group, subjects);
        self.linked.remove(&group);
        meta::delete_index(group, &mut txn);
        meta::delete_next_consumer(group, &mut txn);
        if target.in_memory {
            for id in target.names.keys() {
                meta::delete_volatile_consumer(group, *id, &mut txn);
            }
            let mut volatile = Txn::new(&self.volatile);
            target.drop_rows(&mut stream::Context {
                txn: &mut volatile,
                log: &self.log,
                cache: &mut self.cache,
                segments: &mut self.segments,
            })?;
            let volatile = volatile.into_writes();
            self.volatile.write(&volatile)?;
        } else {
            target.drop_rows(&mut stream::Context {
                txn: &mut txn,
                log: &self.log,
                cache: &mut self.cache,
                segments: &mut self.segments,
            })?;
        }
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        for origin in std::mem::take(&mut target.shrinking) {
            self.answer(origin, Err(ApiError::stream_not_found()), now, out);
        }
        let was_seen = !target.restoring;
        for consumer in target.consumers.values_mut() {
            consumer.stop(StopReason::Deleted, account, name, out);
            self.ready.remove(&(group, consumer.id()));
            self.unheard.remove(&(group, consumer.id()));
            if was_seen {
                let event = Event::Consumer(name, consumer.name(), Action::Delete);
                self.advise(account, event, now, out);
            }
        }
        if was_seen {
            self.advise(account, Event::Stream(name, Action::Delete), now, out);
        }
        self.forget_timers(group);
        self.drop_links(target, out);
        self.changes.push(Change::Release {
            account: account.clone(),
            group,
            stream: name.to_owned(),
        });
        Ok(Ok(Applied::Done))
    }

    pub(super) fn purge(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        purge: &Purge,
    ) -> Result<Result<Purged, ApiError>, StoreError> {
        let config = self.groups.get(&entry.group).map(|t| t.stream.config());
        if let Some(refusal) = config.and_then(|config| stream_config::check_purge(config).err()) {
            self.skip(entry, location)?;
            return Ok(Err(refusal));
        }
        let purged = self.change_stream(entry, location, |stream, cx, removed| {
            stream.purge(purge, cx, removed)
        })?;
        Ok(Ok(purged))
    }

    pub(super) fn delete_message(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        seq: StreamSeq,
    ) -> Outcome {
        let Some(target) = self.groups.get(&entry.group) else {
            return Err(damaged(entry, "its stream is gone"));
        };
        let stream = &target.stream;
        let missing = missing_message(stream, seq);
        if let Err(refusal) = stream_config::check_message_delete(stream.config()) {
            self.skip(entry, location)?;
            return Ok(Err(refusal));
        }
        let found = self.change_stream(entry, location, |stream, cx, removed| {
            stream.remove(seq, cx, removed)
        })?;
        Ok(if found {
            Ok(Applied::Done)
        } else {
            Err(missing)
        })
    }

    pub(super) fn advance(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        now: Timestamp,
        most: u32,
        out: &mut dyn Outbox,
    ) -> Outcome {
        self.change_stream(entry, location, |stream, cx, removed| {
            stream.advance(now, most, cx, removed)
        })?;
        if let Some(target) = self.groups.get_mut(&entry.group) {
            target.advancing = false;
        }
        self.schedule_expiry(entry.group);
        if let Some(target) = self.groups.get_mut(&entry.group)
            && !target.stream.is_beyond_limits()
        {
            for origin in std::mem::take(&mut target.shrinking) {
                self.answer(origin, Ok(Applied::Stream(entry.group)), now, out);
            }
        }
        Ok(Ok(Applied::Done))
    }

    /// Removes the records of ended deliveries whose messages were taken over.
    pub(super) fn hand_over(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        ends: &[(u64, u32)],
    ) -> Outcome {
        let group = entry.group;
        self.change_stream(entry, location, |_, cx, _| {
            ended::remove(group, ends, cx.txn);
            Ok(())
        })?;
        Ok(Ok(Applied::Done))
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
        let writes = txn.into_writes();
        self.commit(entry, location, writes)?;
        self.announce_removed(entry.group, &removed);
        self.schedule_expiry(entry.group);
        Ok(value)
    }

    pub(in crate::engine) fn overlaps_another(
        &self,
        account: &AccountName,
        name: &str,
        subjects: &[String],
    ) -> bool {
        self.starts.any(account, subjects, |group| {
            let other = self.groups.get(&group).map(|target| target.stream.config());
            let other = other.filter(|config| config.name != name);
            stream_config::overlapping(subjects, other)
        })
    }
}

impl StreamGroup {
    /// Deletes every row of the stream and its consumers.
    fn drop_rows(&mut self, cx: &mut stream::Context<'_, '_>) -> Result<(), StoreError> {
        let group = self.stream.group();
        for consumer in self.consumers.values_mut() {
            consumer.drop_rows(group, cx.txn);
        }
        ended::remove_all(group, cx.txn);
        self.stream.drop_rows(cx)
    }
}

/// Removes from an interest stream the messages matching `filters` that no consumer wants.
pub(super) fn drop_unwanted(
    target: &mut StreamGroup,
    filters: &Filters,
    cx: &mut stream::Context<'_, '_>,
    removed: &mut Vec<Removed>,
) -> Result<(), StoreError> {
    let StreamGroup {
        stream, consumers, ..
    } = target;
    if consumers.is_empty() && filters.is_all() {
        stream.purge(&Purge::default(), cx, removed)?;
        return Ok(());
    }
    let mut from = stream.first_seq();
    let mut unwanted = Vec::new();
    loop {
        let next = stream.next_sequence(from, filters, &mut cx.view())?;
        if let Some(seq) = next {
            from = seq.next();
            let subject = stream.subject_of(seq, &mut cx.view())?;
            let is_unwanted =
                |subject: &[u8]| !consumers.values().any(|other| other.wants(seq, subject));
            if subject.as_deref().is_some_and(is_unwanted) {
                unwanted.push(seq);
            }
        }
        if unwanted.len() >= REMOVED_AT_ONCE || next.is_none() {
            stream.remove_all(&unwanted, cx, removed)?;
            unwanted.clear();
        }
        if next.is_none() {
            return Ok(());
        }
    }
}

/// Removes from a stream that now is one of interest what consumers are done with and no other
/// wants. What no consumer ever wanted stays as long as there is one, as in the reference server.
fn drop_settled(
    target: &mut StreamGroup,
    cx: &mut stream::Context<'_, '_>,
    removed: &mut Vec<Removed>,
) -> Result<(), StoreError> {
    if target.consumers.is_empty() {
        return drop_unwanted(target, &Filters::all(), cx, removed);
    }
    let StreamGroup {
        stream, consumers, ..
    } = target;
    let floors = consumers
        .values()
        .map(|consumer| consumer.ack_floor().stream);
    let floor = floors.max().unwrap_or_default();
    let mut from = stream.first_seq();
    let mut settled = Vec::new();
    while let Some(seq) = stream.next_sequence(from, &Filters::all(), &mut cx.view())?
        && seq <= floor
    {
        from = seq.next();
        let Some(subject) = stream.subject_of(seq, &mut cx.view())? else {
            continue;
        };
        let is_done = consumers.values().any(|consumer| {
            seq <= consumer.ack_floor().stream && consumer.filters().matches(&subject)
        });
        if is_done && !consumers.values().any(|other| other.wants(seq, &subject)) {
            settled.push(seq);
        }
        if settled.len() >= REMOVED_AT_ONCE {
            stream.remove_all(&settled, cx, removed)?;
            settled.clear();
        }
    }
    stream.remove_all(&settled, cx, removed)?;
    Ok(())
}

/// The refusal to delete a message that is not there, which in the reference server depends on
/// where it looked.
fn missing_message(stream: &Stream, seq: StreamSeq) -> ApiError {
    if stream.config().storage == Storage::Memory {
        ApiError::sequence_not_found(seq.0)
    } else if seq > stream.last_seq() {
        ApiError::message_delete("stream store EOF")
    } else if seq == StreamSeq(0) || stream.messages() == 0 {
        ApiError::message_delete("no message found")
    } else {
        ApiError::sequence_not_found(seq.0)
    }
}
