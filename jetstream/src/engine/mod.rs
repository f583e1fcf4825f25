//! The engine of one server: every stream, every consumer, one log.
//!
//! ```text
//!   publish, ack, request ──▶ gathered per stream ──▶ one log entry each ──▶ LogStore::append
//!                                                                                  │ synced
//!   Outbox ◀── acks, answers, deliveries ◀── apply, in log order, one write set each ◀┘
//! ```
//!
//! The driver calls [`Engine::publish`], [`Engine::request`] and their like with whatever came in,
//! then [`Engine::turn`], and sleeps until something new comes in, a sync ends or
//! [`Engine::next_deadline`] passes. Nothing is decided before `turn` applies it, except what can
//! never succeed.
//!
//! Streams kept in memory take the same path without the log: their entries are applied in the
//! turn that gathered them, over a state store in memory.
//!
//! # Invariants
//!
//! 1. An acknowledgement leaves only after [`LogStore::poll_synced`] covered its entry.
//! 2. Entries are applied in the order of the log, each in one atomic write with its position.
//! 3. After the first store error nothing is acknowledged any more: the engine is poisoned.

mod apply;
mod deliver;
mod direct;
mod figures;
mod meta;
mod recovery;
mod replies;
mod request;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use self::meta::Meta;
use self::replies::Replies;
use crate::api::{self, ApiError, consumer_config, metadata, stream_config};
use crate::command::{MetaCommand, StreamCommand};
use crate::consumer::{Consumer, Notice, Proposed};
use crate::ids::{AccountName, GroupId};
use crate::memory::MemoryState;
use crate::ports::{
    Appended, Entry, EntryKind, EntryLocation, LogPosition, LogStore, Outbox, Outgoing, StateStore,
    StoreError, StoreErrorKind, Ticket,
};
use crate::record::BlockBuilder;
use crate::stream::{BlockCache, PublishOutcome, Removed, SegmentUse, Stream};
use crate::time::Timestamp;
use crate::txn::Txn;

pub use self::figures::{AccountFigures, Figures, StreamFigures};
pub use self::request::{ApiRequest, InternalCall};

/// A state machine that rides in the same log beside the streams: the stations.
pub trait Application {
    /// Reads its rows of [`crate::ports::Table::Application`].
    ///
    /// # Errors
    /// Whatever the store reports.
    fn load(&mut self, state: &dyn StateStore) -> Result<(), StoreError>;

    /// Applies a committed command and writes its rows. What a command may be refused for is its
    /// own affair; an error here is damage.
    ///
    /// # Errors
    /// `Corrupt` for a command that cannot be read.
    fn apply(&mut self, command: &[u8], txn: &mut Txn<'_>) -> Result<(), StoreError>;
}

/// No application.
#[derive(Debug, Default)]
pub struct NoApplication;

impl Application for NoApplication {
    fn load(&mut self, _state: &dyn StateStore) -> Result<(), StoreError> {
        Ok(())
    }
    fn apply(&mut self, _command: &[u8], _txn: &mut Txn<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of message blocks kept in memory for readers. Default 64 MiB.
    pub cache_bytes: usize,
    /// Seed of generated names and ids.
    pub seed: u64,
    /// Largest log entry before a stream's batch is split, bytes. Default 1 MiB.
    pub max_entry_bytes: usize,
    /// Most messages handed out by one consumer before others get their turn. Default 1024.
    pub delivery_burst: usize,
    /// What streams may ask for.
    pub stream_bounds: stream_config::Bounds,
    /// What consumers may ask for.
    pub consumer_bounds: consumer_config::Bounds,
    /// What the server calls itself in configurations it shows.
    pub identity: metadata::Identity,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            seed: 1,
            max_entry_bytes: 1 << 20,
            delivery_burst: 1024,
            stream_bounds: stream_config::Bounds::default(),
            consumer_bounds: consumer_config::Bounds::default(),
            identity: metadata::Identity {
                version: String::new(),
                level: api::API_LEVEL,
            },
        }
    }
}

/// What the outside must know about: subjects to capture from now on, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Messages on these subjects belong to this stream.
    Capture {
        /// Owner.
        account: AccountName,
        /// The stream's group.
        group: GroupId,
        /// Subjects, wildcards included.
        subjects: Vec<String>,
    },
    /// The stream is gone, or its subjects are about to be given anew.
    Release {
        /// Owner.
        account: AccountName,
        /// The stream's group.
        group: GroupId,
    },
}

/// Outcome of a call made with a token.
#[derive(Debug)]
pub struct Completion {
    /// The token the call was made with.
    pub token: u64,
    /// The reply as the API would have sent it, or the refusal.
    pub result: Result<(), ApiError>,
}

/// Who waits for a command.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A client of the JetStream API.
    Client {
        account: AccountName,
        reply: Vec<u8>,
        subject: Vec<u8>,
    },
    /// The driver, by token.
    Internal(u64),
    /// Nobody.
    None,
}

/// What was proposed with an entry, and who waits for it. Lives on the proposing server only.
pub(crate) enum Context {
    /// One reply per record.
    Publish(Replies),
    /// A command of the metadata group.
    Meta(Box<MetaCommand>, Origin),
    /// A command of a stream.
    Stream(Box<StreamCommand>, Origin),
    /// Consumer events and their double acks.
    Consumer(Vec<Proposed>),
    /// A command of the application.
    Application(u64),
}

struct Pending {
    ticket: Ticket,
    location: Option<EntryLocation>,
    entry: Entry,
    context: Context,
}

/// A stream with its consumers and what is gathered for its next entries.
pub(crate) struct StreamGroup {
    pub(crate) account: AccountName,
    pub(crate) created: Timestamp,
    pub(crate) stream: Stream,
    pub(crate) consumers: BTreeMap<String, Consumer>,
    pub(crate) names: BTreeMap<u32, String>,
    pub(crate) next_consumer: u32,
    pub(crate) in_memory: bool,
    next_index: u64,
    last_time: Timestamp,
    builder: Option<BlockBuilder>,
    replies: Replies,
    proposed: Vec<Proposed>,
    advancing: bool,
}

impl StreamGroup {
    pub(crate) fn new(
        account: AccountName,
        created: Timestamp,
        stream: Stream,
        in_memory: bool,
        applied_index: u64,
    ) -> Self {
        Self {
            account,
            created,
            stream,
            consumers: BTreeMap::new(),
            names: BTreeMap::new(),
            next_consumer: 1,
            in_memory,
            next_index: applied_index + 1,
            last_time: Timestamp::ZERO,
            builder: None,
            replies: Replies::default(),
            proposed: Vec::new(),
            advancing: false,
        }
    }

    pub(crate) fn insert_consumer(&mut self, consumer: Consumer) {
        self.next_consumer = self.next_consumer.max(consumer.id() + 1);
        self.names.insert(consumer.id(), consumer.name().to_owned());
        self.consumers.insert(consumer.name().to_owned(), consumer);
    }

    pub(crate) fn remove_consumer(&mut self, name: &str) -> Option<Consumer> {
        let consumer = self.consumers.remove(name)?;
        self.names.remove(&consumer.id());
        Some(consumer)
    }
}

/// The engine. See the module documentation.
pub struct Engine<L, S, A> {
    pub(crate) log: L,
    pub(crate) state: S,
    pub(crate) volatile: MemoryState,
    pub(crate) application: A,
    pub(crate) meta: Meta,
    pub(crate) groups: BTreeMap<GroupId, StreamGroup>,
    pub(crate) cache: BlockCache,
    pub(crate) segments: SegmentUse,
    options: Options,
    term: u64,
    next_meta_index: u64,
    next_application_index: u64,
    /// Sealed entries of this turn, in order.
    sealed: Vec<(Entry, Context)>,
    /// Groups with something gathered, in the order it first came.
    gathering: Vec<GroupId>,
    pending: VecDeque<Pending>,
    /// Consumers that may have something to hand out.
    ready: BTreeSet<(GroupId, u32)>,
    /// Segments without live blocks, and how far the log was applied when that was first seen.
    freed: BTreeMap<u64, LogPosition>,
    /// Push consumers that nobody listens to.
    unheard: BTreeSet<(GroupId, u32)>,
    timers: BTreeMap<(GroupId, u32), Timestamp>,
    due: BTreeSet<(Timestamp, GroupId, u32)>,
    changes: Vec<Change>,
    completions: Vec<Completion>,
    notices: Vec<(AccountName, String, Notice)>,
    turn_notices: Vec<Notice>,
    outcomes: Vec<PublishOutcome>,
    removed: Vec<Removed>,
    random: u64,
    poisoned: Option<StoreError>,
    api_total: u64,
    api_errors: u64,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// A message for the stream `group`; its ack goes to `reply` once it is durable and applied.
    pub fn publish(
        &mut self,
        group: GroupId,
        now: Timestamp,
        message: Publish<'_>,
        out: &mut dyn Outbox,
    ) {
        if let Some(error) = self.refusal() {
            self.refuse_publish(group, &message, &error, out);
            return;
        }
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let size = message.subject.len() + message.header.len() + message.payload.len();
        let full = target
            .builder
            .as_ref()
            .is_some_and(|builder| builder.len() + size > self.options.max_entry_bytes);
        if full {
            self.seal_publishes(group);
        }
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let time = now.max(Timestamp(target.last_time.0 + 1));
        target.last_time = time;
        let builder = target.builder.get_or_insert_with(|| {
            if target.proposed.is_empty() {
                self.gathering.push(group);
            }
            BlockBuilder::new(time)
        });
        builder.push(time, message.subject, message.header, message.payload);
        target.replies.push(message.reply);
    }

    /// Proposes a command of the application; `token` comes back as a [`Completion`].
    pub fn propose_application(&mut self, command: impl Into<Bytes>, token: u64) {
        let entry = Entry {
            group: GroupId::APPLICATION,
            index: self.next_application_index,
            term: self.term,
            kind: EntryKind::Application,
            payload: command.into(),
        };
        self.next_application_index += 1;
        self.sealed.push((entry, Context::Application(token)));
    }

    /// Does everything that can be done now: appends what was gathered, applies what is durable,
    /// hands out what consumers want. True when there is more to do at once.
    pub fn turn(&mut self, now: Timestamp, out: &mut dyn Outbox) -> bool {
        self.seal(now, out);
        self.apply_synced(now, out);
        self.run_timers(now, out);
        let more = self.deliver(now, out);
        self.seal(now, out);
        self.reclaim();
        more || !self.sealed.is_empty()
    }

    /// When [`Engine::turn`] must be called again although nothing came in.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _, _)| *at)
    }

    /// Whether a push consumer waits for someone to subscribe to its deliver subject.
    #[must_use]
    pub fn awaits_interest(&self) -> bool {
        !self.unheard.is_empty()
    }

    /// Somebody subscribed to something: push consumers that nobody listened to look again.
    pub fn interest_changed(&mut self) {
        self.ready.append(&mut self.unheard);
    }

    /// Subjects to capture or release since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Finished internal calls since the last call.
    pub fn take_completions(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.completions)
    }

    /// What consumers gave up on since the last call: account, stream, and what.
    pub fn take_notices(&mut self) -> Vec<(AccountName, String, Notice)> {
        std::mem::take(&mut self.notices)
    }

    /// The state machine beside the streams.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// The same, for what it keeps beside its replicated state.
    pub fn application_mut(&mut self) -> &mut A {
        &mut self.application
    }

    /// Asks the state store to make what is applied durable, as happens by itself when the log
    /// has grown.
    ///
    /// # Errors
    /// What the store reports.
    pub fn flush_state(&mut self) -> Result<(), StoreError> {
        self.state.begin_flush()
    }

    /// Why nothing is acknowledged any more, once a store has failed.
    #[must_use]
    pub fn poisoned(&self) -> Option<&StoreError> {
        self.poisoned.as_ref()
    }

    /// Entries appended and not yet applied.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Tells waiting pull requests that the server goes away.
    pub fn shut_down(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        self.stop_consumers(now, out);
    }

    /// Gives the stores back, to be closed.
    #[must_use]
    pub fn into_stores(self) -> (L, S) {
        (self.log, self.state)
    }

    fn refusal(&self) -> Option<ApiError> {
        self.poisoned
            .as_ref()
            .map(|_| ApiError::temporarily_unavailable())
    }

    fn refuse_publish(
        &self,
        group: GroupId,
        message: &Publish<'_>,
        error: &ApiError,
        out: &mut dyn Outbox,
    ) {
        let Some(target) = self.groups.get(&group) else {
            return;
        };
        if message.reply.is_empty() {
            return;
        }
        let mut payload = Vec::new();
        api::pub_ack::write_pub_error(&mut payload, target.stream.name(), error);
        out.send(Outgoing {
            account: &target.account,
            target: message.reply,
            subject: message.reply,
            reply: b"",
            header: b"",
            payload: &payload,
        });
    }

    /// Turns what each stream gathered into entries and appends all sealed entries.
    fn seal(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        for group in std::mem::take(&mut self.gathering) {
            self.seal_publishes(group);
            self.seal_events(group);
        }
        if self.sealed.is_empty() {
            return;
        }
        let sealed = std::mem::take(&mut self.sealed);
        let (volatile, durable): (Vec<_>, Vec<_>) = sealed
            .into_iter()
            .partition(|(entry, _)| self.skips_the_log(entry));
        for (entry, context) in volatile {
            self.apply_entry(None, &entry, Some(context), now, out);
        }
        if durable.is_empty() {
            return;
        }
        match self.append(&durable) {
            Ok(appended) => self.wait_for(appended, durable),
            Err(error) if error.kind == StoreErrorKind::Full => {
                self.append_without_publishes(durable, now, out);
            }
            Err(error) => {
                self.poison(error);
                self.refuse_all(durable, &ApiError::temporarily_unavailable(), now, out);
            }
        }
    }

    fn append(&mut self, entries: &[(Entry, Context)]) -> Result<Appended, StoreError> {
        let entries: Vec<Entry> = entries.iter().map(|(entry, _)| entry.clone()).collect();
        self.log.append(&entries)
    }

    fn wait_for(&mut self, appended: Appended, entries: Vec<(Entry, Context)>) {
        for ((entry, context), location) in entries.into_iter().zip(appended.locations) {
            self.pending.push_back(Pending {
                ticket: appended.ticket,
                location: Some(location),
                entry,
                context,
            });
        }
    }

    /// The disk is full: messages are refused, what frees space still goes through. None of the
    /// entries was taken, so those that remain close ranks.
    fn append_without_publishes(
        &mut self,
        entries: Vec<(Entry, Context)>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let mut next: BTreeMap<GroupId, u64> = BTreeMap::new();
        for (entry, _) in &entries {
            next.entry(entry.group).or_insert(entry.index);
        }
        let (publishes, mut others): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|(entry, _)| entry.kind == EntryKind::Publish);
        for (entry, _) in &mut others {
            if let Some(index) = next.get_mut(&entry.group) {
                entry.index = *index;
                *index += 1;
            }
        }
        for (group, index) in &next {
            self.set_next_index(*group, *index);
        }
        // What was removed gives its segments back only once the rows say so for good.
        if self.state.applied() != self.state.durable_applied()
            && let Err(error) = self.state.begin_flush()
        {
            self.poison(error);
        }
        let refusal = ApiError::insufficient_storage();
        self.refuse_all(publishes, &refusal, now, out);
        if others.is_empty() {
            return;
        }
        match self.append(&others) {
            Ok(appended) => self.wait_for(appended, others),
            Err(error) => {
                for (entry, _) in others.iter().rev() {
                    self.set_next_index(entry.group, entry.index);
                }
                if error.kind != StoreErrorKind::Full {
                    self.poison(error);
                }
                self.refuse_all(others, &refusal, now, out);
            }
        }
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

    /// Messages and consumer events of memory streams; their administration is durable.
    fn skips_the_log(&self, entry: &Entry) -> bool {
        matches!(entry.kind, EntryKind::Publish | EntryKind::Consumer)
            && self
                .groups
                .get(&entry.group)
                .is_some_and(|group| group.in_memory)
    }

    fn seal_publishes(&mut self, group: GroupId) {
        let term = self.term;
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let Some(builder) = target.builder.take() else {
            return;
        };
        let entry = Entry {
            group,
            index: target.next_index,
            term,
            kind: EntryKind::Publish,
            payload: builder.finish(),
        };
        target.next_index += 1;
        let replies = std::mem::take(&mut target.replies);
        self.sealed.push((entry, Context::Publish(replies)));
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
            payload: Bytes::from(payload),
        };
        target.next_index += 1;
        self.sealed.push((entry, Context::Consumer(proposed)));
    }

    fn propose_meta(&mut self, command: MetaCommand, origin: Origin) {
        let payload = serde_json::to_vec(&command).expect("a command is plain data");
        let entry = Entry {
            group: GroupId::META,
            index: self.next_meta_index,
            term: self.term,
            kind: EntryKind::Command,
            payload: Bytes::from(payload),
        };
        self.next_meta_index += 1;
        self.sealed
            .push((entry, Context::Meta(Box::new(command), origin)));
    }

    fn propose_stream(&mut self, group: GroupId, command: StreamCommand, origin: Origin) {
        // What came before the command is ordered before it.
        self.seal_publishes(group);
        self.seal_events(group);
        let term = self.term;
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let payload = serde_json::to_vec(&command).expect("a command is plain data");
        let entry = Entry {
            group,
            index: target.next_index,
            term,
            kind: EntryKind::Command,
            payload: Bytes::from(payload),
        };
        target.next_index += 1;
        self.sealed
            .push((entry, Context::Stream(Box::new(command), origin)));
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

    /// Answers everyone who waits for an entry that will never be applied.
    fn refuse(
        &mut self,
        entry: &Entry,
        context: Context,
        error: &ApiError,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        match context {
            Context::Publish(replies) => {
                let Some(target) = self.groups.get(&entry.group) else {
                    return;
                };
                let mut payload = Vec::new();
                api::pub_ack::write_pub_error(&mut payload, target.stream.name(), error);
                for reply in replies.iter().filter(|reply| !reply.is_empty()) {
                    out.send(Outgoing {
                        account: &target.account,
                        target: reply,
                        subject: reply,
                        reply: b"",
                        header: b"",
                        payload: &payload,
                    });
                }
            }
            Context::Meta(_, origin) | Context::Stream(_, origin) => {
                if let Some(target) = self.groups.get_mut(&entry.group) {
                    target.advancing = false;
                }
                self.answer(origin, Err(error.clone()), now, out);
            }
            Context::Consumer(proposed) => {
                // The acks are lost with it: the messages are delivered again.
                let Some(target) = self.groups.get_mut(&entry.group) else {
                    return;
                };
                let lost: BTreeSet<u32> = proposed.iter().map(|p| p.event.consumer()).collect();
                for id in lost {
                    let name = target.names.get(&id);
                    if let Some(consumer) = name.and_then(|name| target.consumers.get_mut(name)) {
                        consumer.proposals_lost(now);
                        self.ready.insert((entry.group, id));
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

    fn apply_synced(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        if self.pending.is_empty() {
            return;
        }
        let synced = match self.log.poll_synced() {
            Ok(ticket) => ticket,
            Err(error) => {
                self.poison(error);
                let refusal = ApiError::temporarily_unavailable();
                for lost in std::mem::take(&mut self.pending) {
                    self.refuse(&lost.entry, lost.context, &refusal, now, out);
                }
                return;
            }
        };
        while self
            .pending
            .front()
            .is_some_and(|pending| pending.ticket <= synced)
        {
            let Some(done) = self.pending.pop_front() else {
                break;
            };
            if self.poisoned.is_some() {
                let refusal = ApiError::temporarily_unavailable();
                self.refuse(&done.entry, done.context, &refusal, now, out);
                continue;
            }
            self.apply_entry(done.location, &done.entry, Some(done.context), now, out);
        }
    }

    fn poison(&mut self, error: StoreError) {
        if self.poisoned.is_none() {
            tracing::error!("JetStream stopped acknowledging: {error}");
            self.poisoned = Some(error);
        }
    }

    /// Gives back log segments nothing refers to, and asks for a flush when the log has grown past
    /// what a restart should replay.
    fn reclaim(&mut self) {
        if self.poisoned.is_some() {
            return;
        }
        let segments = self.log.segments();
        let (Some(&oldest), Some(&active)) = (segments.first(), segments.last()) else {
            return;
        };
        if oldest == active {
            return;
        }
        let durable = self
            .state
            .durable_applied()
            .map_or(0, |position| position.segment);
        if active > durable + 1
            && let Err(error) = self.state.begin_flush()
        {
            self.poison(error);
            return;
        }
        // A segment may go once a crash would no longer bring back rows that point into it.
        let applied = self.state.applied().unwrap_or_default();
        let durable_applied = self.state.durable_applied().unwrap_or_default();
        let mut free = Vec::new();
        for segment in segments {
            if segment >= durable || segment == active || self.segments.live(segment) > 0 {
                self.freed.remove(&segment);
            } else if *self.freed.entry(segment).or_insert(applied) <= durable_applied {
                free.push(segment);
            }
        }
        if free.is_empty() {
            return;
        }
        for segment in &free {
            self.freed.remove(segment);
        }
        if let Err(error) = self.log.recycle(&free) {
            self.poison(error);
        }
    }

    /// The next number of a small deterministic generator, for names and ids.
    fn next_random(&mut self) -> u64 {
        // splitmix64 (Steele, Lea, Flood 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A message on its way into a stream.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Where the ack goes, empty for nowhere.
    pub reply: &'a [u8],
    /// Subject.
    pub subject: &'a [u8],
    /// Header block, empty for none.
    pub header: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}
