//! Events of the log take effect.

use super::config::AckPolicy;
use super::event::{Change, ConsumerEvent};
use super::pending::Delivery;
use super::state::Position;
use super::{Consumer, Notice};
use crate::ids::{ConsumerSeq, StreamSeq};
use crate::time::Timestamp;

impl Consumer {
    /// Applies an event of this consumer. Sequences it settled are added to `settled`: the stream
    /// may remove those messages if its retention says so. Returns what ended without an ack; the
    /// same event ends a message once, however often it is applied.
    ///
    /// Applying cannot fail. An event that comes again, or speaks of a delivery that is settled,
    /// changes nothing.
    pub fn apply(&mut self, event: &ConsumerEvent, settled: &mut Vec<StreamSeq>) -> Option<Notice> {
        let mut notice = None;
        match *event.change() {
            Change::Delivered {
                at,
                consumer_seq,
                stream_seq,
                count,
            } => {
                self.apply_delivered(at, consumer_seq.0, stream_seq.0, u64::from(count), settled);
            }
            Change::Redelivered {
                at,
                consumer_seq,
                stream_seq,
                deliveries,
            } => {
                self.apply_redelivered(at, consumer_seq, stream_seq.0, deliveries);
            }
            Change::Acked { stream_seq } => {
                if self.settle_recorded(stream_seq.0) {
                    settled.push(stream_seq);
                }
            }
            Change::AckedAll { stream_seq } => self.apply_acked_all(stream_seq.0, settled),
            Change::Rescheduled {
                stream_seq,
                deliveries,
                due,
            } => {
                self.apply_rescheduled(stream_seq.0, deliveries, due.0);
            }
            Change::Terminated { stream_seq } => {
                if self.settle_recorded(stream_seq.0) {
                    settled.push(stream_seq);
                    let consumer = self.name.clone();
                    notice = Some(Notice::Terminated {
                        consumer,
                        stream_seq,
                    });
                }
            }
            Change::Exhausted {
                stream_seq,
                deliveries,
            } => {
                if self.is_recorded(stream_seq.0)
                    && self.state.pending.remove(stream_seq.0).is_some()
                {
                    self.state.touch(stream_seq.0);
                    self.state.exhausted.insert(stream_seq.0, deliveries);
                    notice = Some(self.max_deliveries(stream_seq, deliveries));
                }
            }
            Change::Gone { stream_seq } => {
                self.settle_recorded(stream_seq.0);
            }
        }
        self.state.move_floor();
        notice
    }

    pub(super) fn max_deliveries(&self, stream_seq: StreamSeq, deliveries: u32) -> Notice {
        Notice::MaxDeliveries {
            consumer: self.name.clone(),
            stream_seq,
            deliveries: u64::from(deliveries),
        }
    }

    fn apply_delivered(
        &mut self,
        at: Timestamp,
        consumer_seq: u64,
        first: u64,
        count: u64,
        settled: &mut Vec<StreamSeq>,
    ) {
        let end = first.saturating_add(count);
        let due = at.0.saturating_add(self.wait_after(1));
        for seq in first.max(self.state.delivered.stream.0 + 1)..end {
            if self.config.ack_policy == AckPolicy::None {
                settled.push(StreamSeq(seq));
                continue;
            }
            self.state.touch(seq);
            if let Some(delivery) = self.state.pending.get_mut(seq) {
                delivery.deliveries = 1;
                delivery.logged_due = due;
                continue;
            }
            // Sent by another server, or before a crash, or removed from the stream since.
            if self.removed_unrecorded.remove(&seq) {
                self.suspects.push(seq);
            }
            let consumer_seq = consumer_seq.saturating_add(seq - first);
            self.schedule(due, seq);
            self.state
                .pending
                .insert(Delivery::recorded(seq, consumer_seq, 1, due));
        }
        let last = Position {
            consumer: ConsumerSeq(consumer_seq.saturating_add(count - 1)),
            stream: StreamSeq(end - 1),
        };
        self.state.advance(last);
        self.follow();
        self.drop_in_flight(last.consumer);
        self.drop_finished_latest();
    }

    fn apply_redelivered(
        &mut self,
        at: Timestamp,
        consumer_seq: ConsumerSeq,
        seq: u64,
        deliveries: u32,
    ) {
        self.state.advance(Position {
            consumer: consumer_seq,
            stream: StreamSeq(0),
        });
        self.follow();
        self.drop_in_flight(consumer_seq);
        let due = at.0.saturating_add(self.wait_after(deliveries));
        let Some(delivery) = self.state.pending.get_mut(seq) else {
            return;
        };
        if !delivery.is_recorded() || delivery.deliveries >= deliveries {
            return;
        }
        delivery.deliveries = deliveries;
        delivery.logged_due = due;
        let was_sent_elsewhere = delivery.sent < deliveries;
        if was_sent_elsewhere {
            delivery.due = due;
            delivery.queued = false;
            self.state.pending.set_sent(seq, deliveries);
            self.schedule(due, seq);
        }
        self.state.touch(seq);
    }

    fn apply_acked_all(&mut self, last: u64, settled: &mut Vec<StreamSeq>) {
        let last = last.min(self.state.delivered.stream.0);
        while let Some(seq) = self
            .state
            .exhausted
            .keys()
            .next()
            .copied()
            .filter(|s| *s <= last)
        {
            self.state.settle(seq);
            settled.push(StreamSeq(seq));
        }
        while let Some(seq) = self
            .state
            .pending
            .oldest()
            .map(|d| d.seq)
            .filter(|s| *s <= last)
        {
            self.state.settle(seq);
            settled.push(StreamSeq(seq));
        }
    }

    fn apply_rescheduled(&mut self, seq: u64, deliveries: u32, due: i64) {
        let Some(delivery) = self.state.pending.get_mut(seq) else {
            return;
        };
        let was_moved_here = delivery.moving > 0;
        delivery.moving = delivery.moving.saturating_sub(1);
        if delivery.deliveries != deliveries {
            return;
        }
        delivery.logged_due = due;
        let is_news = !was_moved_here && delivery.sent == deliveries && !delivery.queued;
        if is_news {
            delivery.due = due;
            self.schedule(due, seq);
        }
        self.state.touch(seq);
    }

    fn is_recorded(&self, seq: u64) -> bool {
        seq <= self.state.delivered.stream.0
    }

    fn settle_recorded(&mut self, seq: u64) -> bool {
        self.is_recorded(seq) && self.state.settle(seq)
    }

    /// Keeps what was sent at or ahead of what is recorded.
    fn follow(&mut self) {
        let delivered = self.state.delivered;
        self.sent.consumer = self.sent.consumer.max(delivered.consumer);
        if delivered.stream > self.sent.stream {
            self.sent.stream = delivered.stream;
        }
        if self.cursor <= delivered.stream.0 {
            self.cursor = delivered.stream.0 + 1;
            self.count.is_exact = false;
        }
    }

    /// Forgets the deliveries that wait to be recorded, up to one that now is.
    fn drop_in_flight(&mut self, recorded: ConsumerSeq) {
        let is_recorded = |change: &Change| match change {
            Change::Delivered { consumer_seq, .. } | Change::Redelivered { consumer_seq, .. } => {
                *consumer_seq <= recorded
            }
            Change::Acked { .. }
            | Change::AckedAll { .. }
            | Change::Rescheduled { .. }
            | Change::Terminated { .. }
            | Change::Exhausted { .. }
            | Change::Gone { .. } => true,
        };
        while self.in_flight.front().is_some_and(is_recorded) {
            self.in_flight.pop_front();
        }
    }

    /// Forgets the list of first messages once it is behind.
    fn drop_finished_latest(&mut self) {
        let is_finished = self
            .latest
            .as_ref()
            .is_some_and(|latest| latest.last() <= Some(self.state.delivered.stream.0));
        if is_finished {
            self.latest = None;
            self.is_latest_dirty = true;
        }
    }
}
