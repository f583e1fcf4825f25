//! One consumer: what was handed out, what is settled, what is due again.
//!
//! A consumer is a cursor over a stream plus the set of messages handed out and not yet settled.
//! It decides what to send and when to send it again. It opens no file and asks no clock; it reads
//! messages through a [`MessageSource`] and sends them through an [`Outbox`].
//!
//! ```text
//!            deliver                 ack or term
//!   waiting ────────▶ pending ─────────────────────▶ settled
//!                      ▲   │
//!                      └───┘  nak, or ack_wait passed: one more delivery
//! ```
//!
//! At `max_deliver` a message leaves `pending` unsettled: the stream keeps it, an advisory says so.
//!
//! # Two halves
//!
//! The *replicated* half (`state`) changes only when an event of the log is applied, and is what
//! the rows in the store hold. The *local* half belongs to the server that hands messages out: its
//! cursor, the waiting pull requests, the timers. Messages are sent at once and recorded later, many
//! with one event; acks are proposed and take effect when they are applied. In between a delivery
//! is *settling*: it is not sent again and makes room for another one, but the floor waits for the
//! log. After a crash the local half begins where the replicated one stands: what was acked stays
//! acked, what was not is delivered again.
//!
//! # Invariants
//!
//! 1. `ack_floor <= delivered`, for stream and consumer sequences alike.
//! 2. Every pending stream sequence lies in `(ack_floor, delivered]`, or was sent and is not
//!    recorded yet.
//! 3. No more than `max_ack_pending` deliveries are unsettled, except while a lowered limit drains
//!    or what a crash forgot is recorded again.
//! 4. Neither `ack_floor` nor `delivered` moves back, except by an explicit reset.
//!
//! `State::check` asserts the first two; tests call it after every command.

mod ack;
mod advisory;
mod apply;
pub mod config;
mod deadlines;
mod deliver;
pub mod duration;
mod event;
pub mod info;
mod latest;
mod pending;
mod priority;
mod pull;
mod push;
mod rows;
mod source;
mod start;
mod state;
mod status;
mod timers;
mod varint;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

pub use self::ack::{AckKind, AckToken};
pub use self::config::ConsumerConfig;
pub use self::event::{Change, ConsumerEvent, EventError, decode_batch, encode_batch};
pub use self::info::ConsumerInfo;
pub use self::push::parse_flow_subject;
pub use self::source::MessageSource;
pub use self::state::Position;
pub use self::waiting::PullRequest;

use self::config::AckPolicy;
use self::deadlines::Deadlines;
use self::latest::Latest;
use self::priority::{Pin, Policy};
use self::push::Push;
use self::state::State;
use self::waiting::Waiting;
use crate::ids::{AccountName, StreamSeq};
use crate::ports::{Outbox, Outgoing, StoreError};
use crate::stream::{Filters, Removed};
use crate::time::Timestamp;

/// Pull requests that may wait where the configuration does not say.
const DEFAULT_MAX_WAITING: usize = 512;
/// Ack wait where the configuration does not say.
const DEFAULT_ACK_WAIT_NS: i64 = 30_000_000_000;
/// A time that does not come, nanoseconds.
const NEVER_NS: i64 = i64::MAX;

/// What a consumer needs of the world while it acts.
pub struct Turn<'a> {
    /// The time.
    pub now: Timestamp,
    /// Account of the stream.
    pub account: &'a AccountName,
    /// Name of the stream.
    pub stream: &'a str,
    /// JetStream domain of the server, if it has one.
    pub domain: Option<&'a str>,
    /// The stream's messages.
    pub source: &'a mut dyn MessageSource,
    /// The way to clients.
    pub out: &'a mut dyn Outbox,
    /// Events to append to the stream's log, in this order.
    pub events: &'a mut Vec<Proposed>,
    /// What a person or another part of the server may want to know.
    pub notices: &'a mut Vec<Notice>,
}

/// An event that wants to be appended to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The event.
    pub event: ConsumerEvent,
    /// Send an empty message here once the event is applied: a client asked to be told.
    pub reply: Option<Vec<u8>>,
}

/// The end of a message's deliveries that was no ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It was delivered as often as allowed and not settled.
    MaxDeliveries {
        /// Name of the consumer.
        consumer: String,
        /// Which message.
        stream_seq: StreamSeq,
        /// Deliveries it had.
        deliveries: u64,
    },
    /// A client refused it.
    Terminated {
        /// Name of the consumer.
        consumer: String,
        /// Which message.
        stream_seq: StreamSeq,
    },
}

/// Why a consumer stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It, or its stream, was deleted.
    Deleted,
    /// The server shuts down.
    Shutdown,
    /// Another server leads now.
    LeadershipChange,
}

/// Number of matching messages that are not handed out yet.
#[derive(Clone, Copy, Debug)]
struct PendingCount {
    messages: u64,
    /// Messages after this one are not counted yet.
    through: u64,
    /// False until it was counted once, and after changes too wide to follow.
    is_exact: bool,
}

/// One consumer of one stream.
#[derive(Debug)]
pub struct Consumer {
    id: u32,
    name: String,
    created: Timestamp,
    config: ConsumerConfig,
    filters: Filters,
    /// Events go through the log; else they are applied at once and gone with the process.
    is_logged: bool,
    state: State,
    /// Rows other than pending deliveries that differ from the store.
    is_config_dirty: bool,
    is_latest_dirty: bool,

    /// The last delivery sent; at or ahead of `state.delivered`.
    sent: Position,
    /// First stream sequence that was not looked at; after `sent`.
    cursor: u64,
    latest: Option<Latest>,
    /// Deliveries that are due, oldest first; entries may be out of date.
    redeliver: VecDeque<u64>,
    deadlines: Deadlines,
    /// Deliveries sent and not proposed yet.
    unlogged: Vec<Change>,
    unlogged_since: Timestamp,
    /// Deliveries proposed and not applied yet.
    in_flight: VecDeque<Change>,
    /// Removed from the stream after they were sent and before that was recorded.
    removed_unrecorded: BTreeSet<u64>,
    /// Pending deliveries below this may have left the stream.
    suspect_below: u64,
    /// And so may these.
    suspects: Vec<u64>,
    /// When to look at them; zero for at once.
    suspects_after: Timestamp,
    /// With ack policy `all`: everything up to here is settled or settling.
    settling_through: u64,
    /// Resets on their way through the log.
    resets_expected: u32,
    count: PendingCount,
    /// Nothing is left to hand out for the first time.
    is_caught_up: bool,
    /// Nothing new before this time: original pace, or rate limit.
    hold_until: Timestamp,
    last_replayed: Option<(Timestamp, Timestamp)>,
    replay_through: u64,
    waiting: Waiting,
    push: Push,
    /// The time of the last turn.
    clock: Timestamp,
    abandoned_after: Timestamp,
    last_activity: Timestamp,
    last_delivered: Option<Timestamp>,
    last_acked: Option<Timestamp>,
    /// No pending delivery is due after this.
    latest_due: i64,
    /// Ids given out so far.
    unique_ids: u64,
    /// Share of acks to measure, 0 to 100.
    sample_percent: u8,
    sample_draw: u64,
    priority: Policy,
    pin: Option<Pin>,

    /// `$JS.ACK.<stream>.<consumer>.` and the rest of the last ack subject.
    ack_subject: Vec<u8>,
    ack_prefix: usize,
    /// Scratch for the header block of a message sent without payload.
    header: Vec<u8>,
    /// Scratch for the header block of a message to a pinned client.
    pinned_header: Vec<u8>,
    /// Scratch for the header block of a status.
    status: Vec<u8>,
    /// When waiting requests were last checked because the queue was full.
    last_cleaned: Timestamp,
}

impl Consumer {
    /// A consumer as its creation is applied. `id` is unique within the stream and never used
    /// twice; `config` is normalised and valid.
    ///
    /// # Errors
    /// Whatever reading the stream reports.
    pub fn create(
        id: u32,
        name: String,
        config: ConsumerConfig,
        created: Timestamp,
        source: &mut dyn MessageSource,
    ) -> Result<Self, StoreError> {
        let filters = Filters::new(config.filters());
        let (start, latest) = start::position(&config, &filters, source)?;
        let mut consumer = Self::at(id, name, config, created, State::starting_after(start));
        consumer.latest = latest;
        consumer.is_latest_dirty = consumer.latest.is_some();
        consumer.is_config_dirty = true;
        consumer.replay_through = source.last_seq().0;
        consumer.last_activity = created;
        consumer.recount(source)?;
        Ok(consumer)
    }

    /// A consumer in this state, its local half at the beginning.
    fn at(id: u32, name: String, config: ConsumerConfig, created: Timestamp, state: State) -> Self {
        let mut consumer = Self {
            id,
            name,
            created,
            filters: Filters::new(config.filters()),
            is_logged: true,
            is_config_dirty: false,
            is_latest_dirty: false,
            sent: state.delivered,
            cursor: state.delivered.stream.0 + 1,
            state,
            latest: None,
            redeliver: VecDeque::new(),
            deadlines: Deadlines::default(),
            unlogged: Vec::new(),
            unlogged_since: Timestamp::ZERO,
            in_flight: VecDeque::new(),
            removed_unrecorded: BTreeSet::new(),
            suspect_below: 0,
            suspects: Vec::new(),
            suspects_after: Timestamp::ZERO,
            settling_through: 0,
            resets_expected: 0,
            count: PendingCount {
                messages: 0,
                through: 0,
                is_exact: false,
            },
            is_caught_up: false,
            hold_until: Timestamp::ZERO,
            last_replayed: None,
            replay_through: 0,
            waiting: Waiting::new(0),
            push: Push::default(),
            clock: created,
            abandoned_after: Timestamp::ZERO,
            last_activity: Timestamp::ZERO,
            last_delivered: None,
            last_acked: None,
            latest_due: 0,
            unique_ids: 0,
            sample_percent: 0,
            sample_draw: u64::from(id),
            priority: Policy::None,
            pin: None,
            ack_subject: Vec::new(),
            ack_prefix: 0,
            header: Vec::new(),
            pinned_header: Vec::new(),
            status: Vec::new(),
            last_cleaned: Timestamp::ZERO,
            config,
        };
        consumer.take_settings();
        consumer
    }

    /// Its number within the stream.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was made.
    #[must_use]
    pub const fn created(&self) -> Timestamp {
        self.created
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// The subjects it wants.
    #[must_use]
    pub const fn filters(&self) -> &Filters {
        &self.filters
    }

    /// The last delivery that the log records.
    #[must_use]
    pub const fn delivered(&self) -> Position {
        self.state.delivered
    }

    /// Below this everything is settled, given up, gone or not wanted.
    #[must_use]
    pub const fn ack_floor(&self) -> Position {
        self.state.ack_floor
    }

    /// Whether its events must go through the log, which is the default.
    ///
    /// Without it every event is applied at once, nothing is proposed, and the rows stay as they
    /// are: for consumers that may lose their place with the process and whose acks remove nothing
    /// from the stream.
    pub fn set_logged(&mut self, is_logged: bool) {
        self.is_logged = is_logged;
    }

    /// Whether [`Consumer::deliver`] may have something to send.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let someone_waits = self.config.is_push() || !self.waiting.is_empty();
        let something_is_there =
            !self.redeliver.is_empty() || (!self.is_caught_up && !self.is_stalled());
        someone_waits && something_is_there
    }

    /// Whether it wants a turn after messages were removed: to hand something out, or to look
    /// which of its deliveries are gone.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        (self.is_ready() && !self.is_unheard()) || self.has_suspects()
    }

    /// Whether someone who would get a message can take it. Pull requests of clients that have a
    /// lot waiting to be read go behind the others.
    pub fn has_taker(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.config.is_push() {
            let target = self.config.deliver_subject.as_bytes();
            return !turn.out.is_congested(turn.account, target);
        }
        let may = |inbox: &[u8]| !turn.out.is_congested(turn.account, inbox);
        self.waiting.is_empty() || self.waiting.bring_to_front(may)
    }

    /// Whether the stream must keep this message for the consumer: it will be delivered, is
    /// pending, or was given up unsettled.
    #[must_use]
    pub fn wants(&self, seq: StreamSeq, subject: &[u8]) -> bool {
        if !self.filters.matches(subject) {
            return false;
        }
        if seq <= self.state.delivered.stream {
            return self.state.exhausted.contains_key(&seq.0)
                || self
                    .state
                    .pending
                    .get(seq.0)
                    .is_some_and(pending::Delivery::is_recorded);
        }
        match &self.latest {
            Some(latest) if seq.0 <= latest.through => latest.contains(seq.0),
            _ => true,
        }
    }

    /// Takes note of a stored message. True when it may now be delivered.
    ///
    /// Every message of an entry that it may want is announced, in order, before what the entry
    /// removed; those its filters do not match need not be.
    pub fn message_stored(&mut self, seq: StreamSeq, subject: &[u8]) -> bool {
        if seq.0 <= self.count.through && self.count.is_exact {
            return false;
        }
        if seq.0 < self.cursor || !self.filters.matches(subject) {
            if self.count.is_exact {
                self.count.through = seq.0;
            }
            return false;
        }
        self.is_caught_up = false;
        if self.count.is_exact {
            self.count.messages += 1;
            self.count.through = seq.0;
        }
        self.is_ready()
    }

    /// Takes note of messages that are no longer in the stream.
    pub fn messages_removed(&mut self, removed: &[Removed]) {
        for removed in removed {
            match removed {
                Removed::Message { seq, subject } => self.message_removed(seq.0, subject),
                Removed::Below(seq) => self.removed_below(seq.0),
                // A consumer of nothing else goes on behind what was purged, one of more at the
                // first message there is.
                Removed::Purged {
                    filter,
                    next,
                    first,
                } => {
                    if self.filters.are_within(filter) {
                        self.removed_below(next.0);
                    } else if self.filters.reach_into(filter) || self.filters.overlap(filter) {
                        self.removed_below(first.0);
                    }
                }
                // Which ones that were is looked up when the stream can be read.
                Removed::Matching { below, .. } => {
                    self.suspect_below = self.suspect_below.max(below.0);
                    self.count.is_exact &= below.0 <= self.cursor;
                    if let Some(latest) = &mut self.latest {
                        latest.distrust();
                    }
                }
            }
        }
        self.state.move_floor();
    }

    fn message_removed(&mut self, seq: u64, subject: &[u8]) {
        if seq >= self.cursor && self.count.is_exact && seq <= self.count.through {
            let was_counted = match &mut self.latest {
                Some(latest) if seq <= latest.through => latest.remove(seq),
                _ => self.filters.matches(subject),
            };
            self.count.messages = self.count.messages.saturating_sub(u64::from(was_counted));
        } else if let Some(latest) = &mut self.latest {
            latest.remove(seq);
        }
        if self.state.settle(seq) && seq > self.state.delivered.stream.0 {
            self.removed_unrecorded.insert(seq);
        }
    }

    fn removed_below(&mut self, seq: u64) {
        if let Some(latest) = &mut self.latest {
            latest.remove_below(seq);
        }
        if seq > self.cursor {
            self.cursor = seq;
            self.count.is_exact = false;
        }
        while let Some(oldest) = self
            .state
            .pending
            .oldest()
            .map(|d| d.seq)
            .filter(|s| *s < seq)
        {
            self.state.settle(oldest);
        }
        while let Some(oldest) = self.state.exhausted.first_key_value().map(|(s, _)| *s) {
            if oldest >= seq {
                break;
            }
            self.state.settle(oldest);
        }
        self.removed_unrecorded = self.removed_unrecorded.split_off(&seq);
        // What is gone counts as delivered, so a delivery recorded later is known to be over.
        let gone = Position {
            stream: StreamSeq(seq).before(),
            ..Position::default()
        };
        self.state.advance(gone);
        self.sent.stream = self.sent.stream.max(gone.stream);
    }

    /// Takes a new configuration, already checked against the old one.
    ///
    /// # Errors
    /// Whatever reading the stream reports.
    pub fn update_config(
        &mut self,
        config: ConsumerConfig,
        source: &mut dyn MessageSource,
    ) -> Result<(), StoreError> {
        let filters_change = config.filters() != self.config.filters();
        if config.deliver_subject != self.config.deliver_subject
            || config.deliver_group != self.config.deliver_group
        {
            self.push = Push::default();
        }
        self.config = config;
        self.is_config_dirty = true;
        self.is_caught_up = false;
        self.take_settings();
        if filters_change {
            self.filters = Filters::new(self.config.filters());
            self.recount(source)?;
        }
        Ok(())
    }

    /// Takes over what is derived from the configuration.
    fn take_settings(&mut self) {
        self.waiting.set_capacity(self.max_waiting());
        self.priority = Policy::of(&self.config);
        self.waiting
            .set_sorted(self.priority == Policy::Prioritized);
        if self.priority != Policy::Pinned {
            self.pin = None;
        }
        let percent = self
            .config
            .sample_freq
            .trim_end_matches('%')
            .parse()
            .unwrap_or(0u8);
        self.sample_percent = percent.min(100);
    }

    /// A reset is on its way through the log. Until it is applied nothing is handed out and nothing
    /// proposed: what would be settled or recorded then is of the time before it.
    pub fn expect_reset(&mut self) {
        self.resets_expected += 1;
    }

    /// A reset did not reach the log and never will.
    pub fn reset_lost(&mut self, now: Timestamp) {
        self.resets_expected = self.resets_expected.saturating_sub(1);
        self.proposals_lost(now);
    }

    /// Whether it waits for a reset. Where there is no log, what happened before is applied already.
    fn expects_reset(&self) -> bool {
        self.is_logged && self.resets_expected > 0
    }

    /// Begins again at `start`, forgetting every delivery and ack.
    pub fn reset(&mut self, start: StreamSeq) {
        self.resets_expected = self.resets_expected.saturating_sub(1);
        let mut state = State::starting_after(start.before());
        state.dirty_chunks = std::mem::take(&mut self.state.dirty_chunks);
        for delivery in self.state.pending.iter() {
            state.touch(delivery.seq);
        }
        for seq in self.state.exhausted.keys() {
            state.touch(*seq);
        }
        self.state = state;
        self.is_latest_dirty = self.latest.take().is_some() || self.is_latest_dirty;
        self.begin_again();
    }

    /// Everything up to here was settled, as the backup it comes from says.
    pub fn stand_at(&mut self, deliveries: u64, stream: StreamSeq) {
        self.reset(stream.next());
        let position = Position {
            consumer: crate::ConsumerSeq(deliveries),
            stream,
        };
        self.state.delivered = position;
        self.state.ack_floor = position;
        self.begin_again();
    }

    /// Sets the local half to where the replicated one stands: after a start, or when this server
    /// begins to lead.
    pub fn begin_again(&mut self) {
        self.sent = self.state.delivered;
        self.cursor = self.state.delivered.stream.0 + 1;
        self.redeliver.clear();
        self.deadlines.clear();
        self.unlogged.clear();
        self.in_flight.clear();
        self.removed_unrecorded.clear();
        self.settling_through = 0;
        self.count.is_exact = false;
        self.is_caught_up = false;
        let recorded: Vec<_> = self
            .state
            .pending
            .iter()
            .filter(|delivery| delivery.is_recorded())
            .map(|d| pending::Delivery::recorded(d.seq, d.first, d.deliveries, d.logged_due))
            .collect();
        self.state.pending.clear();
        for delivery in recorded {
            self.schedule(delivery.due, delivery.seq);
            self.state.pending.insert(delivery);
        }
    }

    /// Tells it that proposed events did not reach the log and never will: what they would have
    /// settled is due again, and what was sent is recorded anew. Not at once: what was refused now
    /// is refused again in a moment.
    pub fn proposals_lost(&mut self, now: Timestamp) {
        let again = now.plus(timers::RETRY);
        for seq in self.state.pending.forget_proposals() {
            if let Some(delivery) = self.state.pending.get_mut(seq) {
                delivery.due = again.0;
                delivery.queued = false;
            }
            self.schedule(again.0, seq);
        }
        self.settling_through = 0;
        let later = std::mem::take(&mut self.unlogged);
        self.unlogged.extend(self.in_flight.drain(..));
        self.unlogged.extend(later);
        self.unlogged_since = again;
    }

    /// What `CONSUMER.INFO` shows. The position is that of this server, which may run ahead of
    /// the log; an ack that is proposed counts as done.
    ///
    /// # Errors
    /// Whatever reading the stream reports.
    pub fn info(&mut self, turn: &mut Turn<'_>) -> Result<ConsumerInfo, StoreError> {
        self.begin_turn(turn.now);
        self.ensure_count(turn.source)?;
        self.drop_deserted(turn);
        let pause = self.config.pause_until.filter(|until| *until > turn.now);
        let push_bound = self.config.is_push() && self.check_interest(turn);
        let floor = self.settled_floor();
        let exhausted = self.state.exhausted.len();
        let redelivered = match self.config.max_deliver {
            1 => 0,
            _ => self.state.pending.redelivered() + exhausted,
        };
        Ok(ConsumerInfo {
            stream_name: turn.stream.to_owned(),
            name: self.name.clone(),
            created: self.created,
            config: Some(self.config.clone()),
            delivered: info::SequenceInfo {
                consumer_seq: self.sent.consumer.0,
                stream_seq: self.sent.stream.0,
                last_active: self.last_delivered,
            },
            ack_floor: info::SequenceInfo {
                consumer_seq: floor.consumer.0,
                stream_seq: floor.stream.0,
                last_active: self.last_acked,
            },
            num_ack_pending: self.state.pending.unsettled() as u64,
            num_redelivered: redelivered as u64,
            num_waiting: self.waiting.len() as u64,
            num_pending: self.count.messages,
            cluster: None,
            push_bound,
            paused: pause.is_some(),
            pause_remaining: pause.map_or(0, |until| until.0 - turn.now.0),
            ts: turn.now,
            priority_groups: self.group_info(),
        })
    }

    /// Stops handing out: waiting requests are told why and forgotten.
    pub fn stop(
        &mut self,
        reason: StopReason,
        account: &AccountName,
        _stream: &str,
        out: &mut dyn Outbox,
    ) {
        for request in self.waiting.drain() {
            match reason {
                StopReason::Deleted => {
                    status::write(&mut self.status, "409 Consumer Deleted", &[]);
                }
                StopReason::LeadershipChange => {
                    status::write(&mut self.status, "409 Leadership Change", &[]);
                }
                StopReason::Shutdown => status::write_remaining(
                    &mut self.status,
                    "409 Server Shutdown",
                    request.left,
                    request.bytes_left,
                ),
            }
            send_status(out, account, &request.inbox, b"", &self.status);
        }
    }

    /// Panics when an invariant does not hold. For tests and simulation.
    pub fn check(&self) {
        self.state.check();
        assert!(
            self.state.delivered.consumer <= self.sent.consumer
                && self.state.delivered.stream <= self.sent.stream,
            "recorded {:?} but sent {:?}",
            self.state.delivered,
            self.sent
        );
        assert!(
            self.sent.stream.0 < self.cursor,
            "the cursor stands behind what was sent"
        );
    }

    /// The ack floor as it will be once everything proposed is applied.
    fn settled_floor(&self) -> Position {
        match self.state.pending.oldest_unsettled() {
            None => self.sent,
            Some(oldest) => self.state.floor_below(oldest),
        }
    }

    /// Counts what is not handed out yet, unless that is known.
    fn ensure_count(&mut self, source: &mut dyn MessageSource) -> Result<(), StoreError> {
        if self.count.is_exact {
            Ok(())
        } else {
            self.recount(source)
        }
    }

    fn recount(&mut self, source: &mut dyn MessageSource) -> Result<(), StoreError> {
        let mut messages = 0;
        let mut from = self.cursor;
        if let Some(latest) = &mut self.latest {
            latest.verify(from, source)?;
            messages = latest.remaining(from);
            from = from.max(latest.through + 1);
        }
        messages += source.count_matching(StreamSeq(from), &self.filters)?;
        self.count = PendingCount {
            messages,
            through: source.last_seq().0,
            is_exact: true,
        };
        Ok(())
    }

    /// Notes the time. The first turn after a start counts as a sign of life: clients were away
    /// because the server was.
    fn begin_turn(&mut self, now: Timestamp) {
        self.clock = now;
        if self.last_activity == Timestamp::ZERO {
            self.last_activity = now;
        }
    }

    /// Whether `max_ack_pending` holds back new messages.
    fn is_stalled(&self) -> bool {
        self.needs_acks()
            && usize::try_from(self.config.max_ack_pending)
                .is_ok_and(|limit| limit > 0 && self.state.pending.unsettled() >= limit)
    }

    fn is_paused(&self, now: Timestamp) -> bool {
        self.config.pause_until.is_some_and(|until| until > now)
    }

    fn needs_acks(&self) -> bool {
        self.config.ack_policy != AckPolicy::None
    }

    fn max_waiting(&self) -> usize {
        usize::try_from(self.config.max_waiting)
            .ok()
            .filter(|max| *max > 0)
            .unwrap_or(DEFAULT_MAX_WAITING)
    }

    /// Deliveries allowed, `None` for any number.
    fn max_deliver(&self) -> Option<u32> {
        let max = u64::try_from(self.config.max_deliver)
            .ok()
            .filter(|max| *max > 0)?;
        Some(u32::try_from(max).unwrap_or(u32::MAX))
    }

    /// Nanoseconds from the `deliveries`-th delivery to the next.
    fn wait_after(&self, deliveries: u32) -> i64 {
        if self.config.ack_policy == AckPolicy::FlowControl {
            return NEVER_NS;
        }
        let backoff = &self.config.backoff;
        let step = usize::try_from(deliveries.saturating_sub(1)).unwrap_or(usize::MAX);
        match backoff.get(step.min(backoff.len().saturating_sub(1))) {
            Some(wait) => *wait,
            None if self.config.ack_wait > 0 => self.config.ack_wait,
            None => DEFAULT_ACK_WAIT_NS,
        }
    }

    /// Notes when a pending delivery is due.
    fn schedule(&mut self, due: i64, seq: u64) {
        if due == NEVER_NS {
            return;
        }
        self.deadlines.push(due, seq);
        self.latest_due = self.latest_due.max(due);
        let pending = &self.state.pending;
        self.deadlines.tidy(pending.len(), |due, seq| {
            pending
                .get(seq)
                .is_some_and(|delivery| delivery.due == due && !delivery.queued)
        });
    }

    /// Appends an event to the log, or applies it at once where there is none.
    fn propose(&mut self, change: Change, reply: &[u8], turn: &mut Turn<'_>) {
        self.flush(turn);
        self.log(change, reply, turn);
    }

    fn log(&mut self, change: Change, reply: &[u8], turn: &mut Turn<'_>) {
        if self.expects_reset() {
            return;
        }
        let event = ConsumerEvent::new(self.id, change);
        if self.is_logged {
            let reply = (!reply.is_empty()).then(|| reply.to_vec());
            turn.events.push(Proposed { event, reply });
            return;
        }
        turn.notices.extend(self.apply(&event, &mut Vec::new()));
        answer(turn, reply);
    }

    /// Proposes the deliveries that were sent and not proposed yet. Called by itself when other
    /// events follow or when they get old; the owner may call it earlier.
    pub fn flush(&mut self, turn: &mut Turn<'_>) {
        if self.expects_reset() {
            return;
        }
        for change in std::mem::take(&mut self.unlogged) {
            if self.is_logged {
                self.in_flight.push_back(change.clone());
            }
            self.log(change, b"", turn);
        }
    }
}

/// Sends the empty message that confirms an ack.
fn answer(turn: &mut Turn<'_>, reply: &[u8]) {
    if !reply.is_empty() {
        send_status(turn.out, turn.account, reply, b"", b"");
    }
}

/// Sends a message that has no payload.
fn send_status(
    out: &mut dyn Outbox,
    account: &AccountName,
    target: &[u8],
    reply: &[u8],
    header: &[u8],
) -> bool {
    out.send(Outgoing {
        account,
        target,
        subject: target,
        reply,
        header,
        payload: b"",
    })
}
