//! What came in becomes log entries: gathered per stream, sealed, appended, refused.
//!
//! A turn makes one entry of the messages a stream gathered, one of its consumer events and one per
//! command. Entries of a stream keep the order in which their contents came.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::accounts::Claim;
use super::atomic::is_batched;
use super::deliver::STREAM_TIMER;
use super::fast::is_fast;
use super::{
    Application, Completion, Context, Engine, Origin, Pending, Publish, Publishers, next_random,
};
use crate::api::{self, ApiError};
use crate::command::{MetaCommand, StreamCommand};
use crate::ids::{AccountName, GroupId};
use crate::ports::{
    Appended, Entry, EntryKind, LogStore, Outbox, Outgoing, StateStore, StoreError, StoreErrorKind,
};
use crate::record::{BlockBuilder, Tag};
use crate::stream::config::Compression;
use crate::stream::{MAX_GAPS, PublishOutcome};
use crate::time::Timestamp;

/// How long a stream waits before it tries again to expire messages, after the log refused.
const EXPIRY_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
/// A block that holds more than one message grows no larger: whoever reads one message out of it
/// reads all of it. Blocks beyond this are worth nothing, as a turn syncs all of them together.
const BLOCK_BYTES: usize = 64 << 10;
/// Most room made for a block before it has anything.
const MAX_ROOM: usize = BLOCK_BYTES;
/// Longest subject that a block can hold.
const MAX_SUBJECT_BYTES: usize = u16::MAX as usize;

/// What becomes a record of a stream's next entry.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    /// Who proposes it.
    pub(super) tag: Tag,
    /// Where the ack goes, empty for nowhere.
    pub(super) reply: &'a [u8],
    /// Subject.
    pub(super) subject: &'a [u8],
    /// Header block, empty for none.
    pub(super) header: &'a [u8],
    /// Payload.
    pub(super) payload: &'a [u8],
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// A message for the stream `group`; its ack goes to `reply` once it is durable and applied.
    /// One for a stream that is gone hears nothing, as nobody captures its subject any more.
    pub fn publish(
        &mut self,
        group: GroupId,
        now: Timestamp,
        message: Publish<'_>,
        out: &mut dyn Outbox,
    ) {
        let Some(target) = self.groups.get(&group) else {
            return;
        };
        if is_fast(message.reply) {
            self.publish_fast(group, now, message, out);
            return;
        }
        if target.stream.config().allow_atomic && is_batched(message.header) {
            self.stage(group, now, message, out);
            return;
        }
        if target.stream.counts() {
            self.wait_to_count(group, message);
            return;
        }
        let random = &mut self.random;
        let incoming = target.stream.prepare(message.subject, message.header, || {
            next_random(random) as u32
        });
        let record = Record {
            tag: Tag::Client,
            reply: message.reply,
            subject: &incoming.subject,
            header: &incoming.header,
            payload: message.payload,
        };
        if let Err(error) = self.gather(group, now, record) {
            let Some(target) = self.groups.get(&group) else {
                return;
            };
            let mut publishers = Publishers::of(target);
            publishers.replies.push(message.reply);
            self.refuse_publishers(group, &publishers, &error, out);
        }
    }

    /// A message of the driver's own for a stream; its outcome comes as a [`Completion`] with
    /// `token`, where a duplicate is success.
    pub fn publish_for(
        &mut self,
        account: &AccountName,
        stream: &str,
        now: Timestamp,
        message: Publish<'_>,
        token: u64,
    ) {
        let group = self.meta.group(account, stream);
        let record = Record {
            tag: Tag::Client,
            reply: b"",
            subject: message.subject,
            header: message.header,
            payload: message.payload,
        };
        let gathered = match group {
            Some(group) => self.gather(group, now, record).map(|()| group),
            None => Err(ApiError::stream_not_found()),
        };
        match gathered {
            Ok(group) => {
                if let Some(target) = self.groups.get_mut(&group) {
                    target.replies.expect_last(token);
                }
            }
            Err(error) => self.completions.push(Completion {
                token,
                result: Err(error),
            }),
        }
    }

    /// Adds a record to the next entry of a stream that exists.
    ///
    /// # Errors
    /// Why it cannot go into any entry.
    pub(super) fn gather(
        &mut self,
        group: GroupId,
        now: Timestamp,
        record: Record<'_>,
    ) -> Result<(), ApiError> {
        let size = record.subject.len() + record.header.len() + record.payload.len();
        if self.poisoned.is_some() {
            return Err(ApiError::temporarily_unavailable());
        }
        if record.subject.len() > MAX_SUBJECT_BYTES || u32::try_from(size).is_err() {
            return Err(ApiError::message_too_large());
        }
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(ApiError::stream_not_found());
        };
        let needs_tags = record.tag != Tag::Client;
        let gap = match record.tag {
            Tag::Mirror { previous, seq, .. } => seq.saturating_sub(previous + 1),
            Tag::Client
            | Tag::Marker
            | Tag::Source { .. }
            | Tag::Counter
            | Tag::Schedule { .. }
            | Tag::Fast { .. }
            | Tag::Batch { .. } => 0,
        };
        // A batch is one entry, however large.
        let goes_on = matches!(record.tag, Tag::Batch { index: 1.., .. });
        let is_full = !goes_on
            && target.builder.as_ref().is_some_and(|builder| {
                builder.len() + size > self.options.max_entry_bytes.min(BLOCK_BYTES)
                    || (needs_tags && !builder.is_tagged())
                    || target.gaps.saturating_add(gap) > u64::from(MAX_GAPS)
            });
        if is_full {
            self.seal_publishes(group);
        }
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(ApiError::stream_not_found());
        };
        let storage = target.stream.config().storage;
        let stored = target.stream.stored_size(
            record.subject.len(),
            record.header.len(),
            record.payload.len(),
        );
        self.accounts
            .claim_message(target.slot, storage, stored, &mut target.claim)?;
        let time = now.max(Timestamp(target.last_time.0.saturating_add(1)));
        target.last_time = time;
        // What lies before the first record of a block is no part of it.
        if target.builder.is_some() {
            target.gaps = target.gaps.saturating_add(gap);
        }
        let is_gathering = target.builder.is_some() || !target.proposed.is_empty();
        let room = target.room;
        let builder = target.builder.get_or_insert_with(|| {
            let builder = if needs_tags {
                BlockBuilder::tagged(time)
            } else {
                BlockBuilder::new(time)
            };
            builder.with_room(room)
        });
        builder.push_tagged(
            record.tag,
            time,
            record.subject,
            record.header,
            record.payload,
        );
        target.replies.push(record.reply);
        if !is_gathering {
            self.gathering.push(group);
        }
        Ok(())
    }

    /// Proposes a command of the application; `token` comes back as a [`Completion`].
    pub fn propose_application(&mut self, command: impl Into<Bytes>, token: u64) {
        let entry = Entry {
            group: GroupId::APPLICATION,
            index: self.next_application_index,
            term: self.term,
            kind: EntryKind::Application,
            compress: false,
            payload: command.into(),
        };
        self.next_application_index += 1;
        self.sealed.push((entry, Context::Application(token)));
    }

    pub(super) fn propose_meta(
        &mut self,
        command: MetaCommand,
        origin: Origin,
        claim: Option<Claim>,
    ) {
        // What a stream gathered before a command about it is ordered before it.
        if let Some(group) = self.subject_of(&command) {
            self.seal_group(group);
        }
        let payload = serde_json::to_vec(&command).expect("a command is plain data");
        let entry = Entry {
            group: GroupId::META,
            index: self.next_meta_index,
            term: self.term,
            kind: EntryKind::Command,
            compress: false,
            payload: Bytes::from(payload),
        };
        self.next_meta_index += 1;
        self.sealed
            .push((entry, Context::Meta(Box::new(command), origin, claim)));
    }

    pub(super) fn propose_stream(
        &mut self,
        group: GroupId,
        command: StreamCommand,
        origin: Origin,
    ) {
        self.seal_group(group);
        let term = self.term;
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let payload = serde_json::to_vec(&command).expect("a command is plain data");
        if let StreamCommand::ResetConsumer { name, .. } = &command
            && let Some(consumer) = target.consumers.get_mut(name)
        {
            consumer.expect_reset();
        }
        let entry = Entry {
            group,
            index: target.next_index,
            term,
            kind: EntryKind::Command,
            compress: false,
            payload: Bytes::from(payload),
        };
        target.next_index += 1;
        self.sealed
            .push((entry, Context::Stream(Box::new(command), origin)));
    }

    /// Turns what each stream gathered into entries and appends all sealed entries.
    pub(super) fn seal(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        self.count(now, out);
        self.propose_fast(now, out);
        for group in std::mem::take(&mut self.gathering) {
            self.seal_group(group);
        }
        if self.sealed.is_empty() || self.poisoned.is_some() {
            return;
        }
        let sealed = std::mem::take(&mut self.sealed);
        let entries = self.apply_volatile(sealed, now, out);
        if entries.is_empty() {
            return;
        }
        match self.append(&entries) {
            Ok(appended) => self.wait_for(appended, entries),
            Err(error) if error.kind == StoreErrorKind::Full => {
                self.append_without_messages(entries, now, out);
            }
            Err(error) => {
                self.poison(error);
                self.sealed = entries;
            }
        }
    }

    /// Applies what skips the log, and gives back the other entries. Behind a command of its stream
    /// that is still on its way to the log, an entry that skips the log has to wait as well, and so have
    /// those behind it.
    fn apply_volatile(
        &mut self,
        sealed: Vec<(Entry, Context)>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Vec<(Entry, Context)> {
        if !sealed
            .iter()
            .any(|(entry, context)| self.is_volatile(entry, context))
        {
            return sealed;
        }
        let mut waiting = Vec::new();
        let mut held: BTreeSet<GroupId> = BTreeSet::new();
        for (entry, context) in sealed {
            if !self.is_volatile(&entry, &context) {
                held.extend(self.concerned(&entry, &context));
                waiting.push((entry, context));
                continue;
            }
            let is_held = held.contains(&entry.group)
                || self
                    .groups
                    .get(&entry.group)
                    .is_some_and(|target| target.waiting > 0);
            if is_held {
                waiting.push((entry, context));
            } else {
                self.apply_entry(None, &entry, Some(context), now, out);
            }
        }
        waiting
    }

    /// Appends those of the entries that go to the log.
    fn append(&mut self, entries: &[(Entry, Context)]) -> Result<Appended, StoreError> {
        let durable: Vec<Entry> = entries
            .iter()
            .filter(|(entry, context)| !self.is_volatile(entry, context))
            .map(|(entry, _)| entry.clone())
            .collect();
        if durable.is_empty() {
            let ticket = self
                .pending
                .back()
                .map_or_else(Default::default, |p| p.ticket);
            return Ok(Appended {
                ticket,
                locations: Vec::new(),
            });
        }
        self.log.append(&durable)
    }

    fn wait_for(&mut self, appended: Appended, entries: Vec<(Entry, Context)>) {
        let mut locations = appended.locations.into_iter();
        for (entry, context) in entries {
            let location = if self.is_volatile(&entry, &context) {
                None
            } else {
                locations.next()
            };
            let concerns = self.concerned(&entry, &context);
            if let Some(target) = concerns.and_then(|group| self.groups.get_mut(&group)) {
                target.waiting += 1;
            }
            self.in_flight_bytes += entry.payload.len();
            self.pending.push_back(Pending {
                ticket: appended.ticket,
                concerns,
                location,
                entry,
                context,
            });
        }
    }

    /// The disk is full: messages are refused, what frees space still goes through. None of the
    /// entries was taken, so those that remain close ranks.
    fn append_without_messages(
        &mut self,
        entries: Vec<(Entry, Context)>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let mut next: BTreeMap<GroupId, u64> = BTreeMap::new();
        for (entry, _) in &entries {
            next.entry(entry.group).or_insert(entry.index);
        }
        let (messages, mut others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(entry, context)| {
                entry.kind == EntryKind::Publish && !self.is_volatile(entry, context)
            });
        for (entry, _) in &mut others {
            if let Some(index) = next.get_mut(&entry.group) {
                entry.index = *index;
                *index += 1;
            }
        }
        for (group, index) in next {
            self.set_next_index(group, index);
        }
        // What was removed gives its segments back only once the rows say so for good.
        if self.state.applied() != self.state.durable_applied()
            && let Err(error) = self.state.begin_flush()
        {
            self.poison(error);
        }
        let refusal = ApiError::insufficient_storage();
        self.refuse_all(messages, &refusal, now, out);
        if others.is_empty() {
            return;
        }
        match self.append(&others) {
            Ok(appended) => self.wait_for(appended, others),
            Err(error) if error.kind == StoreErrorKind::Full => {
                let (volatile, others): (Vec<_>, Vec<_>) = others
                    .into_iter()
                    .partition(|(entry, context)| self.is_volatile(entry, context));
                for (entry, _) in others.iter().rev() {
                    self.set_next_index(entry.group, entry.index);
                }
                self.refuse_all(others, &refusal, now, out);
                let waiting = self.apply_volatile(volatile, now, out);
                match self.append(&waiting) {
                    Ok(appended) => self.wait_for(appended, waiting),
                    Err(error) => self.poison(error),
                }
            }
            Err(error) => {
                self.poison(error);
                self.sealed = others;
            }
        }
    }

    /// The stream that a command of the metadata group is about.
    fn subject_of(&self, command: &MetaCommand) -> Option<GroupId> {
        match command {
            MetaCommand::CreateStream { .. } => None,
            MetaCommand::UpdateStream {
                account, config, ..
            } => self.meta.group(account, &config.name),
            MetaCommand::FinishRestore { account, name, .. }
            | MetaCommand::DeleteStream { account, name, .. } => self.meta.holder(account, name),
        }
    }

    /// The stream for which an entry must be applied before any later one.
    pub(super) fn concerned(&self, entry: &Entry, context: &Context) -> Option<GroupId> {
        match context {
            Context::Meta(command, ..) => self.subject_of(command),
            Context::Publish(_)
            | Context::Stream(..)
            | Context::Consumer(_)
            | Context::Application(_) => Some(entry.group),
        }
    }

    /// What happens to the messages of memory streams; that the streams and their consumers exist
    /// is durable.
    fn is_volatile(&self, entry: &Entry, context: &Context) -> bool {
        let is_of_messages = match context {
            Context::Publish(_) | Context::Consumer(_) => true,
            Context::Stream(command, _) => match **command {
                StreamCommand::Purge(_)
                | StreamCommand::DeleteMessage { .. }
                | StreamCommand::HandedOver { .. }
                | StreamCommand::ResetConsumer { .. }
                | StreamCommand::Advance { .. } => true,
                StreamCommand::CreateConsumer { .. }
                | StreamCommand::UpdateConsumer { .. }
                | StreamCommand::PauseConsumer { .. }
                | StreamCommand::DeleteConsumer { .. } => false,
            },
            Context::Meta(..) | Context::Application(_) => false,
        };
        is_of_messages
            && self
                .groups
                .get(&entry.group)
                .is_some_and(|group| group.in_memory)
    }

    pub(super) fn seal_group(&mut self, group: GroupId) {
        self.seal_publishes(group);
        self.seal_events(group);
    }

    pub(super) fn seal_publishes(&mut self, group: GroupId) {
        let term = self.term;
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let Some(builder) = target.builder.take() else {
            return;
        };
        target.gaps = 0;
        target.room = builder.len().min(MAX_ROOM);
        let entry = Entry {
            group,
            index: target.next_index,
            term,
            kind: EntryKind::Publish,
            compress: target.stream.config().compression == Compression::S2,
            payload: builder.finish(),
        };
        target.next_index += 1;
        let mut publishers = Publishers::of(target);
        publishers.replies = std::mem::take(&mut target.replies);
        publishers.claim = target.claim.take();
        self.sealed.push((entry, Context::Publish(publishers)));
    }

    fn seal_events(&mut self, group: GroupId) {
        let term = self.term;
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        if target.proposed.is_empty() {
            return;
        }
        let proposed = std::mem::take(&mut target.proposed);
        let payload = crate::consumer::encode_batch(proposed.iter().map(|p| &p.event));
        let entry = Entry {
            group,
            index: target.next_index,
            term,
            kind: EntryKind::Consumer,
            compress: false,
            payload: Bytes::from(payload),
        };
        target.next_index += 1;
        self.sealed.push((entry, Context::Consumer(proposed)));
    }

    fn set_next_index(&mut self, group: GroupId, index: u64) {
        match group {
            GroupId::META => self.next_meta_index = index,
            GroupId::APPLICATION => self.next_application_index = index,
            group => {
                if let Some(target) = self.groups.get_mut(&group) {
                    target.next_index = index;
                }
            }
        }
    }

    /// Applies what the log has made durable, in its order.
    pub(super) fn apply_synced(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        if self.pending.is_empty() || self.poisoned.is_some() {
            return;
        }
        let synced = match self.log.poll_synced() {
            Ok(ticket) => ticket,
            Err(error) => {
                self.poison(error);
                return;
            }
        };
        while self.poisoned.is_none()
            && let Some(done) = self
                .pending
                .pop_front_if(|pending| pending.ticket <= synced)
        {
            self.in_flight_bytes -= done.entry.payload.len();
            if let Some(target) = done.concerns.and_then(|group| self.groups.get_mut(&group)) {
                target.waiting -= 1;
            }
            self.apply_entry(done.location, &done.entry, Some(done.context), now, out);
        }
    }

    /// Notes the first failure of a store; nothing is acknowledged from here on.
    pub(super) fn poison(&mut self, error: StoreError) {
        if self.poisoned.is_none() {
            tracing::error!("JetStream stopped acknowledging: {error}");
            self.poisoned = Some(error);
        }
    }

    /// After a store failed: everyone who waits is told, nothing that was gathered is kept, and no
    /// timer runs any more.
    pub(super) fn refuse_everything(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        self.count(now, out);
        for group in std::mem::take(&mut self.gathering) {
            self.seal_group(group);
        }
        let pending = std::mem::take(&mut self.pending).into_iter();
        let waiting: Vec<_> = pending
            .map(|pending| (pending.entry, pending.context))
            .chain(std::mem::take(&mut self.sealed))
            .collect();
        self.in_flight_bytes = 0;
        self.refuse_all(waiting, &ApiError::temporarily_unavailable(), now, out);
        let groups = self.groups.values_mut();
        let shrinking: Vec<_> = groups
            .flat_map(|target| std::mem::take(&mut target.shrinking))
            .collect();
        for origin in shrinking {
            self.answer(origin, Err(ApiError::temporarily_unavailable()), now, out);
        }
        // Behind those of the same batch that were on their way.
        self.propose_fast(now, out);
        if std::mem::replace(&mut self.is_stopped, true) {
            return;
        }
        self.stop_consumers(crate::consumer::StopReason::LeadershipChange, out);
        self.ready.clear();
        self.unheard.clear();
        self.timers.clear();
        self.due.clear();
    }

    fn refuse_all(
        &mut self,
        entries: Vec<(Entry, Context)>,
        error: &ApiError,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        for (entry, context) in entries {
            self.refuse(&entry, context, error, now, out);
        }
    }

    /// Answers everyone who waits for an entry that will not be applied.
    pub(super) fn refuse(
        &mut self,
        entry: &Entry,
        context: Context,
        error: &ApiError,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        match context {
            Context::Publish(publishers) => {
                self.accounts.release(publishers.claim);
                self.complete(&publishers, |_| Err(error.clone()));
                self.additions_refused(entry, now);
                self.restored_refused(entry.group, error);
                self.copies_refused(entry, error, now, out);
                let refused = |_| PublishOutcome::Refused(error.clone());
                self.fast_applied(entry, publishers.replies.iter(), refused, out);
                self.refuse_publishers(entry.group, &publishers, error, out);
            }
            Context::Meta(_, origin, claim) => {
                self.accounts.release(claim);
                self.answer(origin, Err(error.clone()), now, out);
            }
            Context::Stream(command, origin) => {
                if let StreamCommand::Advance { .. } = *command
                    && let Some(target) = self.groups.get_mut(&entry.group)
                {
                    target.advancing = false;
                    self.set_timer(entry.group, STREAM_TIMER, Some(now.plus(EXPIRY_RETRY)));
                }
                if let StreamCommand::ResetConsumer { name, .. } = &*command
                    && let Some(target) = self.groups.get_mut(&entry.group)
                    && let Some(consumer) = target.consumers.get_mut(name)
                {
                    consumer.reset_lost(now);
                    self.ready.insert((entry.group, consumer.id()));
                }
                self.answer(origin, Err(error.clone()), now, out);
            }
            Context::Consumer(proposed) => {
                // The acks are lost with it: the messages are delivered again, later.
                let lost: BTreeSet<u32> = proposed.iter().map(|p| p.event.consumer()).collect();
                for id in lost {
                    let deadline = self.groups.get_mut(&entry.group).and_then(|target| {
                        let consumer = target.consumers.get_mut(target.names.get(&id)?)?;
                        consumer.proposals_lost(now);
                        consumer.next_deadline()
                    });
                    if deadline.is_some() {
                        self.set_timer(entry.group, id, deadline);
                    }
                }
            }
            Context::Application(token) => {
                self.completions.push(Completion {
                    token,
                    result: Err(error.clone()),
                });
            }
        }
    }

    /// Tells the driver what became of its own messages.
    pub(super) fn complete(
        &mut self,
        publishers: &Publishers,
        outcome: impl Fn(usize) -> Result<(), ApiError>,
    ) {
        for &(place, token) in publishers.replies.tokens() {
            self.completions.push(Completion {
                token,
                result: outcome(place),
            });
        }
    }

    /// Tells publishers that their messages are not stored, unless the stream never answers.
    pub(super) fn refuse_publishers(
        &self,
        group: GroupId,
        publishers: &Publishers,
        error: &ApiError,
        out: &mut dyn Outbox,
    ) {
        let stream = self.groups.get(&group).map(|target| &target.stream);
        if stream.is_some_and(|stream| stream.config().no_ack) {
            return;
        }
        let mut payload = Vec::new();
        api::pub_ack::write_pub_error(&mut payload, &publishers.stream, error);
        let replies = publishers.replies.iter();
        for reply in replies.filter(|reply| !reply.is_empty() && !is_fast(reply)) {
            out.send(Outgoing {
                account: &publishers.account,
                target: reply,
                subject: reply,
                reply: b"",
                header: b"",
                payload: &payload,
            });
        }
    }
}
