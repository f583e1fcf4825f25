//! One stream: what is stored under which sequence, and what goes.
//!
//! A stream is an index over blocks of the log. Applying a block decides, record by record, what
//! becomes a message and what older messages make room; removing a message changes index rows and
//! never a block. All decisions are functions of the entries applied before, so every replica comes
//! to the same ones, and all rows that one operation changes go into one [`Txn`].
//!
//! ```text
//!   Block       group | first seq             where the block lies, what of it is still there
//!   Subject     group | subject               count, last sequence
//!   SubjectSeq  group | subject | first seq   the sequences of the subject in that block
//!   Dedup       group | seq                   message ids of one entry
//!   Meta        counters; times at which single messages expire
//! ```
//!
//! Work is proportional to blocks, not to messages, wherever messages need not be looked at: a block
//! of one subject adds one row of each kind, and is dropped without being read.
//!
//! # Invariants
//!
//! 1. Sequences rise by one per record that gets one and are never given twice. `first` and `last`
//!    never go down, nor do the times of messages.
//! 2. A `Block` row exists exactly while one of its messages does, and counts for its segment.
//! 3. A sequence is listed in `SubjectSeq` exactly while its message exists; the counts in
//!    `Subject`, `Block` and the counters are sums over those lists.
//!
//! # Reading while an entry is applied
//!
//! [`Stream`] and [`BlockCache`] change at once, the store when the engine writes the transaction.
//! Between the two, reads go through [`Context::view`]; a transaction that is not written leaves
//! the stream unusable.

mod apply;
mod batch;
mod bits;
mod block;
mod cache;
mod codec;
pub mod config;
mod counter;
mod counters;
mod dedup;
mod directives;
mod edit;
mod filters;
mod hashed;
mod incoming;
mod markers;
mod origins;
mod pieces;
mod read;
mod remove;
mod rows;
mod runs;
mod schedule;
mod schedules;
mod segments;
mod subject;
#[cfg(test)]
mod tests;
mod ttl;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use menes_protocol::transform::Transform;

use crate::api::ApiError;
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{LogStore, Seek, StateStore, StoreError, Table};
use crate::time::Timestamp;
use crate::txn::Txn;

use block::Block;
pub(crate) use block::MAX_GAPS;
use cache::{Cursor, SlotId};
use config::{Discard, Retention, Storage};
use counters::Counters;
use dedup::Dedup;
use origins::Origins;

pub use cache::{BlockCache, DEFAULT_CACHE_BYTES};
pub use config::{StreamConfig, StreamState};
pub(crate) use counter::{Broken, Counted, Counter, increment_refused, is_increment, text_of};
pub use filters::Filters;
pub use incoming::Incoming;
pub use origins::{source_id, source_identity};
pub use remove::Purged;
pub use rows::Rows;
pub use schedules::Produced;
pub use segments::SegmentUse;

/// What an operation changes.
pub struct Context<'a, 's> {
    /// Rows; written by the caller in one step.
    pub txn: &'a mut Txn<'s>,
    /// Blocks that are not in the cache.
    pub log: &'a dyn LogStore,
    /// Blocks in memory.
    pub cache: &'a mut BlockCache,
    /// Live blocks per segment.
    pub segments: &'a mut SegmentUse,
}

impl std::fmt::Debug for Context<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context<'_, '_> {
    /// For reads before the transaction is written.
    pub fn view(&mut self) -> View<'_> {
        View {
            rows: Rows::Txn(self.txn),
            log: self.log,
            cache: self.cache,
        }
    }
}

/// What a read needs.
pub struct View<'a> {
    /// Index rows.
    pub rows: Rows<'a>,
    /// Blocks that are not in the cache.
    pub log: &'a dyn LogStore,
    /// Blocks in memory.
    pub cache: &'a mut BlockCache,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<'a> View<'a> {
    /// For reads of what is written.
    pub fn new(
        state: &'a dyn StateStore,
        log: &'a dyn LogStore,
        cache: &'a mut BlockCache,
    ) -> Self {
        Self {
            rows: Rows::Store(state),
            log,
            cache,
        }
    }
}

/// What became of one record of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It is a message.
    Stored {
        /// Its sequence.
        seq: StreamSeq,
        /// Sequence of the message of the same subject before it, 0 for none.
        previous: StreamSeq,
    },
    /// Its id was used inside the duplicate window.
    Duplicate {
        /// What the first one got.
        seq: StreamSeq,
    },
    /// Nobody is interested: it took a sequence, is acknowledged and not kept.
    NotKept {
        /// The sequence.
        seq: StreamSeq,
    },
    /// It changed nothing.
    Refused(ApiError),
    /// It changed nothing: the counter that it adds to is another by now. It is counted again.
    Outdated,
}

impl PublishOutcome {
    /// Whether the message is not in the stream, and none like it either.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Outdated)
    }
}

/// Messages that are gone, for those who keep count of what is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// One message.
    Message {
        /// Its sequence.
        seq: StreamSeq,
        /// Its subject.
        subject: Bytes,
    },
    /// Every message below a sequence.
    Below(StreamSeq),
    /// Messages below a sequence whose subject matches a filter: every one of them, or what a
    /// portion of a purge came to.
    Matching {
        /// The filter, with or without wildcards.
        filter: Bytes,
        /// The sequence.
        below: StreamSeq,
    },
    /// A purge of what matches a filter was carried out, whether it found something or not.
    Purged {
        /// The filter.
        filter: Bytes,
        /// The first message left that matches it; behind the last one when there is none.
        next: StreamSeq,
        /// The first message left.
        first: StreamSeq,
    },
}

/// One incarnation of a stream.
#[derive(Debug)]
pub struct Stream {
    group: GroupId,
    account: AccountName,
    config: StreamConfig,
    created: Timestamp,
    limits: Limits,
    counters: Counters,
    /// Time of the first message, once somebody looked.
    first_time: Cell<Option<Timestamp>>,
    /// No message with an age limit is older.
    oldest: Timestamp,
    /// When the first message with a time to live of its own expires.
    next_ttl: Option<Timestamp>,
    /// When the first schedule is due.
    next_schedule: Option<Timestamp>,
    /// The first and last sequence that may be schedules from before they were switched on.
    unscheduled: Option<(u64, u64)>,
    /// Messages below it have no age limit although the stream has one.
    ageless_below: u64,
    dedup: Option<Box<Dedup>>,
    /// How far it has come in its sources.
    origins: Origins,
    /// Subjects for which a marker has to be proposed.
    due_markers: Vec<Bytes>,
    /// Blocks of a stream in memory, by first sequence.
    memory: BTreeMap<u64, Bytes>,
    /// Rows of subjects that changed lately: most streams have few subjects at a time.
    recent: subject::RecentSubjects,
    /// Blocks where reads and writes went on lately.
    cursors: [Cell<Cursor>; 4],
    next_cursor: Cell<u8>,
}

/// The configuration in a form that is cheap to check; `u64::MAX` for no limit.
#[derive(Clone, Debug)]
struct Limits {
    messages: u64,
    bytes: u64,
    per_subject: u64,
    message_bytes: u64,
    age: Option<Duration>,
    duplicate_window: Option<Duration>,
    discard_new: bool,
    discard_new_per_subject: bool,
    sealed: bool,
    rollup: bool,
    ttl: bool,
    counter: bool,
    schedules: bool,
    marker_ttl: Option<Duration>,
    interest: bool,
    memory: bool,
    transform: Option<Transform>,
    republish: Option<Transform>,
}

impl Limits {
    fn new(config: &StreamConfig) -> Self {
        let limit = |value: i64| {
            u64::try_from(value)
                .ok()
                .filter(|v| *v > 0)
                .unwrap_or(u64::MAX)
        };
        let span = |nanos: i64| {
            u64::try_from(nanos)
                .ok()
                .filter(|nanos| *nanos > 0)
                .map(Duration::from_nanos)
        };
        Self {
            messages: limit(config.max_msgs),
            bytes: limit(config.max_bytes),
            per_subject: limit(config.max_msgs_per_subject),
            message_bytes: limit(i64::from(config.max_msg_size)),
            age: span(config.max_age),
            duplicate_window: span(config.duplicate_window),
            discard_new: config.discard == Discard::New,
            discard_new_per_subject: config.discard_new_per_subject,
            sealed: config.sealed,
            rollup: config.allow_rollup_hdrs && !config.deny_purge,
            ttl: config.allow_msg_ttl,
            counter: config.allow_msg_counter,
            schedules: config.allow_msg_schedules,
            marker_ttl: span(config.subject_delete_marker_ttl),
            interest: config.retention == Retention::Interest,
            transform: config
                .subject_transform
                .as_ref()
                .and_then(|transform| compiled(&transform.src, &transform.dest)),
            republish: config
                .republish
                .as_ref()
                .and_then(|republish| compiled(&republish.src, &republish.dest)),
            memory: config.storage == Storage::Memory,
        }
    }

    /// Bytes that a message counts for, as nats-server counts them.
    fn stored_size(&self, subject: usize, header: usize, payload: usize) -> u64 {
        let overhead = match (self.memory, header) {
            (true, _) => 16,
            (false, 0) => 22 + 8,
            (false, _) => 22 + 4 + 8,
        };
        (subject + header + payload + overhead) as u64
    }
}

/// A transform of the configuration, which was checked when it came; none where it has no
/// destination.
fn compiled(source: &str, destination: &str) -> Option<Transform> {
    Transform::new(source, destination).ok()
}

impl Stream {
    /// Bytes that a message with parts of these lengths counts for.
    pub(crate) fn stored_size(&self, subject: usize, header: usize, payload: usize) -> u64 {
        self.limits.stored_size(subject, header, payload)
    }

    /// A new, empty stream.
    #[must_use]
    pub fn create(
        group: GroupId,
        account: AccountName,
        config: StreamConfig,
        created: Timestamp,
    ) -> Self {
        let counters = Counters::starting_at(config.first_seq.min(MAX_FIRST_SEQ));
        Self::new(group, account, config, created, counters)
    }

    /// A stream as the store has it. Reads a few rows, whatever the stream holds.
    ///
    /// # Errors
    /// As the store, and `Corrupt` for rows that make no sense.
    pub fn load(
        group: GroupId,
        account: AccountName,
        config: StreamConfig,
        created: Timestamp,
        state: &dyn StateStore,
    ) -> Result<Self, StoreError> {
        let rows = Rows::Store(state);
        let Some(counters) = Counters::read(rows, group)? else {
            return Ok(Self::create(group, account, config, created));
        };
        let mut stream = Self::new(group, account, config, created, counters);
        if let Some((key, value)) =
            rows.seek(Table::Block, &Block::key(group, 0), Seek::AtOrAfter)?
            && let Some(first_seq) = Block::first_seq_of(group, &key)
        {
            let block = Block::decode(first_seq, &value)
                .ok_or_else(|| codec::corrupt(group, format_args!("block {first_seq}")))?;
            stream.oldest = block.first_time;
        }
        stream.next_ttl = ttl::next(rows, group)?;
        if stream.limits.schedules {
            stream.load_unscheduled(rows)?;
        }
        stream.load_next_schedule(rows)?;
        stream.origins = Origins::load(rows, group)?;
        Ok(stream)
    }

    fn new(
        group: GroupId,
        account: AccountName,
        config: StreamConfig,
        created: Timestamp,
        counters: Counters,
    ) -> Self {
        Self {
            group,
            account,
            limits: Limits::new(&config),
            config,
            created,
            counters,
            first_time: Cell::new(None),
            oldest: NEVER,
            next_ttl: None,
            next_schedule: None,
            unscheduled: None,
            ageless_below: 0,
            dedup: None,
            origins: Origins::default(),
            due_markers: Vec::new(),
            memory: BTreeMap::new(),
            recent: subject::RecentSubjects::default(),
            cursors: Default::default(),
            next_cursor: Cell::new(0),
        }
    }

    /// The group that orders its entries.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Its owner.
    #[must_use]
    pub fn account(&self) -> &AccountName {
        &self.account
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Messages stored.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.counters.messages
    }

    /// Bytes they count for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.counters.bytes
    }

    /// Sequence of the first message; that after the last one when there is none.
    #[must_use]
    pub fn first_seq(&self) -> StreamSeq {
        StreamSeq(self.counters.first)
    }

    /// The last sequence given.
    #[must_use]
    pub fn last_seq(&self) -> StreamSeq {
        StreamSeq(self.counters.last)
    }

    /// Sequence of the last message taken from a source, [`source_id`]; 0 for none.
    #[must_use]
    pub fn position_in(&self, source: u64) -> StreamSeq {
        StreamSeq(self.origins.get(source))
    }

    /// When the last sequence was given.
    #[must_use]
    pub fn last_time(&self) -> Timestamp {
        self.counters.last_time
    }

    /// The latest time seen in an entry; a proposer gives no earlier one.
    #[must_use]
    pub fn log_time(&self) -> Timestamp {
        self.counters.log_time
    }

    /// Distinct subjects.
    #[must_use]
    pub fn num_subjects(&self) -> u64 {
        self.counters.subjects
    }

    /// When [`Stream::advance`] has something to do; may be early, never late.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let by_age = match self.limits.age {
            Some(age) if self.oldest < NEVER => Some(self.oldest.plus(age)),
            _ => None,
        };
        // What new limits leave no room for goes now.
        let at_once = self.is_beyond_limits().then_some(Timestamp::ZERO);
        [by_age, self.next_ttl, at_once].into_iter().flatten().min()
    }

    /// Whether it still holds more than it may, because it has been allowed less lately and what
    /// goes does so in portions.
    #[must_use]
    pub fn is_beyond_limits(&self) -> bool {
        let (limits, counters) = (&self.limits, &self.counters);
        !limits.discard_new
            && counters.messages > 0
            && (counters.messages > limits.messages || counters.bytes > limits.bytes)
    }

    /// The slot of the block that `from` lies in, or else of the next block.
    fn locate(
        &self,
        rows: Rows<'_>,
        cache: &mut BlockCache,
        from: u64,
    ) -> Result<Option<SlotId>, StoreError> {
        for cursor in &self.cursors {
            if let Some(slot) = cache.at_cursor(cursor.get())
                && cache.block(slot).contains(from)
            {
                cache.touch(slot);
                return Ok(Some(slot));
            }
        }
        let found = self.find(rows, cache, from)?;
        if let Some(slot) = found {
            cache.touch(slot);
            let at = self.next_cursor.get();
            self.next_cursor.set((at + 1) % 4);
            self.cursors[usize::from(at)].set(cache.cursor(slot));
        }
        Ok(found)
    }

    fn find(
        &self,
        rows: Rows<'_>,
        cache: &mut BlockCache,
        from: u64,
    ) -> Result<Option<SlotId>, StoreError> {
        let mut starts_here = false;
        if let Some(slot) = cache.at_or_before(self.group, from) {
            let block = cache.block(slot);
            if block.contains(from) {
                return Ok(Some(slot));
            }
            // Reading on: the next block mostly begins where this one ends.
            starts_here = block.end() == from;
        }
        if starts_here && let Some(value) = rows.get(Table::Block, &Block::key(self.group, from))? {
            return self.cache_row(cache, from, &value).map(Some);
        }
        let key = Block::key(self.group, from);
        if !starts_here
            && let Some((key, value)) = rows.seek(Table::Block, &key, Seek::AtOrBefore)?
            && let Some(first_seq) = Block::first_seq_of(self.group, &key)
            && cache.exact(self.group, first_seq).is_none()
        {
            let block = self.decode_row(first_seq, &value)?;
            if block.contains(from) {
                return Ok(Some(cache.insert(self.group, block)));
            }
        }
        if let Some((key, value)) = rows.seek(Table::Block, &key, Seek::AtOrAfter)?
            && let Some(first_seq) = Block::first_seq_of(self.group, &key)
        {
            return match cache.exact(self.group, first_seq) {
                Some(slot) => Ok(Some(slot)),
                None => self.cache_row(cache, first_seq, &value).map(Some),
            };
        }
        // A block that is being applied has no row yet.
        Ok(cache.at_or_after(self.group, from))
    }

    /// The slot of the block that begins at `first_seq`.
    fn slot_of(
        &self,
        rows: Rows<'_>,
        cache: &mut BlockCache,
        first_seq: u64,
    ) -> Result<SlotId, StoreError> {
        if let Some(slot) = cache.exact(self.group, first_seq) {
            return Ok(slot);
        }
        match rows.get(Table::Block, &Block::key(self.group, first_seq))? {
            Some(value) => self.cache_row(cache, first_seq, &value),
            None => Err(codec::corrupt(
                self.group,
                format_args!("block {first_seq} has no row"),
            )),
        }
    }

    fn cache_row(
        &self,
        cache: &mut BlockCache,
        first_seq: u64,
        value: &[u8],
    ) -> Result<SlotId, StoreError> {
        let block = self.decode_row(first_seq, value)?;
        Ok(cache.insert(self.group, block))
    }

    fn decode_row(&self, first_seq: u64, value: &[u8]) -> Result<Block, StoreError> {
        Block::decode(first_seq, value)
            .ok_or_else(|| codec::corrupt(self.group, format_args!("block {first_seq}")))
    }

    /// Gives a slot its bytes, from the log or from memory.
    fn load_data(
        &self,
        log: &dyn LogStore,
        cache: &mut BlockCache,
        slot: SlotId,
    ) -> Result<(), StoreError> {
        if cache.has_data(slot) {
            return Ok(());
        }
        let block = cache.block(slot);
        let first_seq = block.first_seq;
        let bytes = match block.at {
            Some(at) => log.read(at, self.group, block.index)?,
            None => self.memory.get(&first_seq).cloned().ok_or_else(|| {
                codec::corrupt(
                    self.group,
                    format_args!("block {first_seq} is not in memory"),
                )
            })?,
        };
        let spans = block.spans(&bytes).ok_or_else(|| {
            codec::corrupt(
                self.group,
                format_args!("block {first_seq} is another in the log"),
            )
        })?;
        cache.attach(slot, bytes, spans);
        Ok(())
    }

    /// The first message at or after `from`, and the slot of its block.
    fn next_live(
        &self,
        rows: Rows<'_>,
        cache: &mut BlockCache,
        from: u64,
    ) -> Result<Option<(SlotId, u64)>, StoreError> {
        let mut from = from;
        while from <= self.counters.last {
            let Some(slot) = self.locate(rows, cache, from)? else {
                break;
            };
            if let Some(seq) = cache.block(slot).next_live(from) {
                return Ok(Some((slot, seq)));
            }
            from = cache.block(slot).end().max(from + 1);
        }
        Ok(None)
    }
}

/// Highest first sequence: leaves room for as many messages as anybody can publish.
const MAX_FIRST_SEQ: u64 = 1 << 62;

/// Later than any message.
const NEVER: Timestamp = Timestamp(i64::MAX);

/// A bound of something, two in tests, so that they reach what lies beyond it.
const fn few_in_tests(bound: usize) -> usize {
    if cfg!(test) { 2 } else { bound }
}
