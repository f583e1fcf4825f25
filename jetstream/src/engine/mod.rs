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

mod accounts;
mod additions;
mod advisory;
mod apply;
mod atomic;
mod audience;
mod backup;
mod counting;
mod deliver;
mod direct;
pub mod ended;
mod fast;
mod figures;
mod gather;
mod internal;
mod meta;
mod reads;
mod reclaim;
mod recovery;
mod replicate;
mod replies;
mod republish;
mod request;
mod restore;
mod starts;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::accounts::{AccountSlot, Accounts, Claim};
use self::atomic::Batches;
use self::audience::Audience;
use self::backup::Backup;
use self::counting::Counts;
use self::ended::Ended;
use self::fast::FastBatches;
use self::meta::Meta;
use self::reclaim::Reclaim;
use self::replicate::{Link, Listeners};
use self::replies::Publishers;
use self::replies::Replies;
use self::restore::Restore;
use self::starts::Starts;
use crate::api::{self, ApiError, consumer_config, metadata, stream_config};
use crate::command::{MetaCommand, StreamCommand};
use crate::consumer::{Consumer, Notice, Proposed, StopReason};
use crate::ids::{AccountName, GroupId};
use crate::memory::MemoryState;
use crate::ports::{Entry, EntryLocation, LogStore, Outbox, StateStore, StoreError, Ticket};
use crate::record::BlockBuilder;
use crate::stream::config::Storage;
use crate::stream::{BlockCache, DEFAULT_CACHE_BYTES, PublishOutcome, Removed, SegmentUse, Stream};
use crate::time::Timestamp;
use crate::txn::Txn;

pub use self::accounts::ServerLimits;
pub use self::advisory::API_AUDIT;
pub use self::figures::{AccountFigures, Details, Figures, StreamFigures};
pub use self::internal::InternalCall;
pub use self::request::ApiRequest;

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

    /// Whether messages of this stream that a consumer gave up are to be taken over. Decided from
    /// what was applied, and from nothing else.
    fn takes_over(&self, _account: &AccountName, _stream: &str) -> bool {
        false
    }
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
    /// Bytes handed out by one consumer before others get their turn, give or take a message.
    /// Default 1 MiB.
    pub delivery_burst_bytes: u64,
    /// Bytes handed out in one turn, before what came in meanwhile is taken. Default 4 MiB.
    pub turn_bytes: u64,
    /// What streams may ask for.
    pub stream_bounds: stream_config::Bounds,
    /// What consumers may ask for.
    pub consumer_bounds: consumer_config::Bounds,
    /// What the server calls itself in configurations it shows.
    pub identity: metadata::Identity,
    /// Name of the server, shown as the leader of streams and in audits.
    pub server_name: String,
    /// JetStream domain, shown in answers and advisories. Default none.
    pub domain: Option<String>,
    /// What all accounts together may hold. Default no limit.
    pub limits: ServerLimits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: DEFAULT_CACHE_BYTES,
            seed: 1,
            max_entry_bytes: 1 << 20,
            delivery_burst: 1024,
            delivery_burst_bytes: 1 << 20,
            turn_bytes: 4 << 20,
            stream_bounds: stream_config::Bounds::default(),
            consumer_bounds: consumer_config::Bounds::default(),
            identity: metadata::Identity {
                version: String::new(),
                level: api::API_LEVEL,
            },
            server_name: String::new(),
            domain: None,
            limits: ServerLimits::default(),
        }
    }
}

/// What the outside must know about: subjects to capture from now on, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Messages on these subjects, and on no others, belong to this stream from now on.
    Capture {
        /// Owner.
        account: AccountName,
        /// The stream's group.
        group: GroupId,
        /// Subjects, wildcards included.
        subjects: Vec<String>,
    },
    /// Messages on these subjects go to [`Engine::link_message`] from now on.
    Listen {
        /// Account in which they are.
        account: AccountName,
        /// Number to pass on.
        listener: u64,
        /// Subjects, all literal.
        subjects: Vec<String>,
    },
    /// No longer.
    Unlisten {
        /// The number.
        listener: u64,
    },
    /// The stream is gone.
    Release {
        /// Owner.
        account: AccountName,
        /// The stream's group.
        group: GroupId,
        /// Name of the stream.
        stream: String,
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
    Client(Box<Asker>),
    /// The driver, by token.
    Internal(u64),
    /// A backup being read, by the number under which it listens.
    Restore(u64),
    /// Nobody.
    None,
}

/// A client of the JetStream API that waits for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) account: AccountName,
    pub(crate) reply: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    /// Kept where somebody audits.
    pub(crate) audit: Option<Audit>,
}

/// What an audit tells beside the answer.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    /// The client as a JSON object.
    pub(crate) client: Vec<u8>,
    /// The body of the request.
    pub(crate) request: Vec<u8>,
}

/// What was proposed with an entry, and who waits for it. Lives on the proposing server only.
pub(crate) enum Context {
    /// One reply per record.
    Publish(Publishers),
    /// A command of the metadata group.
    Meta(Box<MetaCommand>, Origin, Option<Claim>),
    /// A command of a stream.
    Stream(Box<StreamCommand>, Origin),
    /// Consumer events and their double acks.
    Consumer(Vec<Proposed>),
    /// A command of the application.
    Application(u64),
}

struct Pending {
    ticket: Ticket,
    /// The stream whose later entries have to wait for this one.
    concerns: Option<GroupId>,
    location: Option<EntryLocation>,
    entry: Entry,
    context: Context,
}

/// A stream with its consumers and what is gathered for its next entries.
pub(crate) struct StreamGroup {
    pub(crate) account: AccountName,
    pub(crate) name: Arc<str>,
    pub(crate) created: Timestamp,
    /// What it holds is not older: its creation, for a stream in memory the start of the server.
    pub(crate) since: Timestamp,
    pub(crate) stream: Stream,
    pub(crate) consumers: BTreeMap<String, Consumer>,
    pub(crate) names: BTreeMap<u32, String>,
    pub(crate) audience: Audience,
    pub(crate) next_consumer: u32,
    pub(crate) in_memory: bool,
    slot: AccountSlot,
    /// What it counts for in the figures.
    counted: Figures,
    next_index: u64,
    /// Index of the last entry applied.
    applied: u64,
    /// Entries about it that are not applied yet: on their way through the log, or behind one that
    /// is.
    waiting: usize,
    last_time: Timestamp,
    builder: Option<BlockBuilder>,
    /// Bytes of the last block, for the next one probably has as many.
    room: usize,
    /// What `builder` holds.
    claim: Option<Claim>,
    replies: Replies,
    proposed: Vec<Proposed>,
    advancing: bool,
    /// What schedules produced is on its way through the log.
    producing: bool,
    /// Messages of the server did not get into the log and have to be proposed again.
    additions_lost: bool,
    /// Who is answered when it is within its limits again.
    shrinking: Vec<Origin>,
    /// The ways to its origins.
    links: Vec<Link>,
    /// It is filled from a backup.
    restoring: bool,
    /// Sequences without a message in the block being gathered.
    gaps: u64,
    /// Batches that are not complete yet.
    batches: Batches,
    /// Increments that have no sum yet.
    counts: Counts,
    /// Batches that are published fast.
    fast: FastBatches,
}

impl StreamGroup {
    pub(crate) fn new(
        account: AccountName,
        slot: AccountSlot,
        created: Timestamp,
        stream: Stream,
        applied_index: u64,
    ) -> Self {
        Self {
            account,
            slot,
            counted: Figures::default(),
            name: Arc::from(stream.name()),
            created,
            since: created,
            last_time: created.max(stream.log_time()),
            in_memory: stream.config().storage == Storage::Memory,
            stream,
            consumers: BTreeMap::new(),
            names: BTreeMap::new(),
            audience: Audience::default(),
            next_consumer: 1,
            next_index: applied_index + 1,
            applied: applied_index,
            waiting: 0,
            builder: None,
            room: 0,
            claim: None,
            replies: Replies::default(),
            proposed: Vec::new(),
            advancing: false,
            producing: false,
            additions_lost: false,
            shrinking: Vec::new(),
            links: Vec::new(),
            restoring: false,
            gaps: 0,
            batches: Batches::new(),
            counts: Counts::default(),
            fast: FastBatches::default(),
        }
    }

    pub(crate) fn insert_consumer(&mut self, consumer: Consumer) {
        self.next_consumer = self.next_consumer.max(consumer.id() + 1);
        self.names.insert(consumer.id(), consumer.name().to_owned());
        self.audience.insert(consumer.id(), consumer.filters());
        self.consumers.insert(consumer.name().to_owned(), consumer);
    }

    pub(crate) fn remove_consumer(&mut self, name: &str) -> Option<Consumer> {
        let consumer = self.consumers.remove(name)?;
        self.names.remove(&consumer.id());
        self.audience.remove(consumer.id(), consumer.filters());
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
    /// Questions that wait for what came before them.
    reads: Vec<reads::Held>,
    /// Groups with something gathered, in the order it first came.
    gathering: Vec<GroupId>,
    /// Streams in which increments wait for their sums.
    counting: BTreeSet<GroupId>,
    /// Streams in which messages of fast batches wait for their turn.
    fast: BTreeSet<GroupId>,
    pending: VecDeque<Pending>,
    /// Payload bytes of `pending`.
    in_flight_bytes: usize,
    reclaim: Reclaim,
    /// Consumers that may have something to hand out.
    ready: BTreeSet<(GroupId, u32)>,
    /// The consumer that was given its turn last; the ready one after it is next.
    served: (GroupId, u32),
    /// Push consumers that nobody listens to.
    unheard: BTreeSet<(GroupId, u32)>,
    timers: BTreeMap<(GroupId, u32), Timestamp>,
    due: BTreeSet<(Timestamp, GroupId, u32)>,
    changes: Vec<Change>,
    listeners: Listeners,
    backups: BTreeMap<u64, Backup>,
    restores: BTreeMap<u64, Restore>,
    /// Subjects of streams, to find those that overlap.
    starts: Starts,
    /// Streams that follow others.
    linked: BTreeSet<GroupId>,
    /// What links ask for.
    requests: Vec<replicate::Request>,
    completions: Vec<Completion>,
    ended: Vec<Ended>,
    turn_notices: Vec<Notice>,
    outcomes: Vec<PublishOutcome>,
    removed: Vec<Removed>,
    random: u64,
    poisoned: Option<StoreError>,
    /// Everyone was told that the engine is poisoned.
    is_stopped: bool,
    accounts: Accounts,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Does everything that can be done now: appends what was gathered, applies what is durable,
    /// hands out what consumers want. True when there is more to do at once.
    pub fn turn(&mut self, now: Timestamp, out: &mut dyn Outbox) -> bool {
        self.seal(now, out);
        self.apply_synced(now, out);
        if self.poisoned.is_none() {
            self.run_timers(now, out);
            self.run_restores(now, out);
            self.run_backups(now, out);
            self.deliver(now, out);
            self.seal(now, out);
        }
        if self.poisoned.is_none() {
            self.reclaim(now);
        }
        if self.poisoned.is_some() {
            self.refuse_everything(now, out);
        }
        self.answer_forgotten_reads(now, out);
        let restores = self.poisoned.is_none() && self.restores_go_on();
        let waits = !self.counting.is_empty() || !self.fast.is_empty() || restores;
        let may_go_on = waits && self.pending.is_empty();
        !self.ready.is_empty() || !self.gathering.is_empty() || may_go_on
    }

    /// When [`Engine::turn`] must be called again although nothing came in.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let first = self.due.first().map(|(at, _, _)| *at);
        let backups = self.backups.values().map(|backup| backup.due);
        let restores = self.restores.values().map(|restore| restore.due);
        let flush = self.reclaim.due();
        let others = backups.chain(restores).chain(flush);
        first.into_iter().chain(others).min()
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

    /// What consumers gave up on since the last call. The first call also gives what was not
    /// [handed over](Engine::handed_over) before the last stop.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
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
        let result = self.state.begin_flush();
        if let Err(error) = &result {
            self.poison(error.clone());
        }
        result
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

    /// Payload bytes of entries appended and not yet applied. A driver takes no more from its
    /// clients while there are many.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// The latest time in anything applied. A driver whose clock stands before it must move on to
    /// it: time in the engine never goes back.
    #[must_use]
    pub fn log_time(&self) -> Timestamp {
        let times = self.groups.values().map(|target| target.last_time);
        times.max().unwrap_or(Timestamp::ZERO)
    }

    /// Tells waiting pull requests that the server goes away.
    pub fn shut_down(&mut self, out: &mut dyn Outbox) {
        self.stop_consumers(StopReason::Shutdown, out);
    }

    /// Panics when an invariant of a consumer does not hold. For tests and simulation.
    pub fn check(&self) {
        let groups = self.groups.values();
        groups
            .flat_map(|target| target.consumers.values())
            .for_each(Consumer::check);
    }

    /// Gives the stores back, to be closed.
    #[must_use]
    pub fn into_stores(self) -> (L, S) {
        (self.log, self.state)
    }

    /// The next number of a small deterministic generator, for names and ids.
    fn next_random(&mut self) -> u64 {
        next_random(&mut self.random)
    }
}

/// The next number of the generator with this state.
fn next_random(state: &mut u64) -> u64 {
    // splitmix64 (Steele, Lea, Flood 2014).
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
