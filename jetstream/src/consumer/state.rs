//! The replicated part of a consumer: what the log says was delivered and settled.

use std::collections::{BTreeMap, BTreeSet};

use super::pending::{Delivery, Pending};
use crate::ids::{ConsumerSeq, StreamSeq};

/// Pending deliveries of this many stream sequences share a row.
pub(super) const CHUNK: u64 = 256;

/// A place in both countings of a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Deliveries up to here.
    pub consumer: ConsumerSeq,
    /// Messages of the stream up to here.
    pub stream: StreamSeq,
}

impl Position {
    fn advanced_to(self, other: Self) -> Self {
        Self {
            consumer: self.consumer.max(other.consumer),
            stream: self.stream.max(other.stream),
        }
    }
}

/// What the log says about a consumer. [`Pending`] also carries what this server sent ahead of it.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The last delivery recorded.
    pub(super) delivered: Position,
    /// Below this everything is settled, given up, gone or not wanted.
    pub(super) ack_floor: Position,
    /// Delivered and not settled.
    pub(super) pending: Pending,
    /// Delivered as often as allowed and never settled: stream sequence and deliveries.
    pub(super) exhausted: BTreeMap<u64, u32>,
    /// Rows of pending deliveries that differ from the store.
    pub(super) dirty_chunks: BTreeSet<u64>,
}

impl State {
    /// A consumer that begins after `start`.
    pub(super) fn starting_after(start: StreamSeq) -> Self {
        let position = Position {
            consumer: ConsumerSeq(0),
            stream: start,
        };
        Self {
            delivered: position,
            ack_floor: position,
            ..Self::default()
        }
    }

    /// Notes that the row holding `seq` must be written.
    pub(super) fn touch(&mut self, seq: u64) {
        self.dirty_chunks.insert(seq / CHUNK);
    }

    /// Moves the delivered position forward; it never moves back.
    pub(super) fn advance(&mut self, to: Position) {
        self.delivered = self.delivered.advanced_to(to);
    }

    /// Raises the floor to just below the oldest recorded delivery that is not settled.
    pub(super) fn move_floor(&mut self) {
        let floor = match self.pending.oldest() {
            Some(oldest) if oldest.is_recorded() => self.floor_below(oldest),
            _ => self.delivered,
        };
        self.ack_floor = self.ack_floor.advanced_to(floor);
    }

    /// The floor while `oldest` is the oldest delivery that is not settled. What lies before it
    /// because it was passed over counts as settled only with a delivery that is, as in the
    /// reference server.
    pub(super) fn floor_below(&self, oldest: &Delivery) -> Position {
        let consumer = ConsumerSeq(oldest.first).before();
        if consumer <= self.ack_floor.consumer {
            return self.ack_floor;
        }
        Position {
            consumer,
            stream: StreamSeq(oldest.seq).before(),
        }
    }

    /// Takes out a delivery that is settled, given up or gone before; true when it was there.
    pub(super) fn settle(&mut self, seq: u64) -> bool {
        let was_here = self.pending.remove(seq).is_some() || self.exhausted.remove(&seq).is_some();
        if was_here {
            self.touch(seq);
        }
        was_here
    }

    /// Panics when an invariant of the module does not hold. For tests and simulation.
    pub(super) fn check(&self) {
        assert!(
            self.ack_floor.consumer <= self.delivered.consumer
                && self.ack_floor.stream <= self.delivered.stream,
            "ack floor {:?} passed delivered {:?}",
            self.ack_floor,
            self.delivered
        );
        let mut last = None;
        for delivery in self.pending.iter() {
            assert!(
                last < Some(delivery.seq),
                "pending deliveries are out of order"
            );
            last = Some(delivery.seq);
            assert!(
                delivery.seq > self.ack_floor.stream.0,
                "pending {} lies below the ack floor {:?}",
                delivery.seq,
                self.ack_floor
            );
            assert!(
                delivery.deliveries <= delivery.sent,
                "a delivery is recorded but not sent"
            );
            assert_eq!(
                delivery.is_recorded(),
                delivery.seq <= self.delivered.stream.0,
                "recorded deliveries are those up to {:?}: {delivery:?}",
                self.delivered
            );
            assert!(
                !self.exhausted.contains_key(&delivery.seq),
                "pending and given up"
            );
        }
    }
}
