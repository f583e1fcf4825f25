//! What happens because time passes.

use std::time::Duration;

use super::advisory::Which;
use super::event::Change;
use super::{Consumer, Turn};
use crate::ids::StreamSeq;
use crate::ports::StoreError;
use crate::time::Timestamp;

/// Deliveries are recorded after this time at the latest.
const FLUSH_AFTER: Duration = Duration::from_millis(10);
/// Added to the inactive threshold of a pull consumer, for requests that are on their way.
const GRACE: Duration = Duration::from_millis(100);
/// Time after which what failed is tried again, and an abandoned consumer that is still there says
/// so again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

impl Consumer {
    /// Does what is due: requests expire, heartbeats go out, deliveries become due again and are
    /// recorded. Messages are not sent here; call [`Consumer::deliver`] after it.
    ///
    /// # Errors
    /// Whatever reading the stream reports.
    pub fn tick(&mut self, turn: &mut Turn<'_>) -> Result<(), StoreError> {
        self.begin_turn(turn.now);
        // Before a reset nothing is proposed, and what else is due goes with it.
        let expects_reset = self.expects_reset();
        if !expects_reset {
            self.find_gone(turn)?;
            self.collect_due(turn)?;
        }
        self.expire_requests(turn);
        if !expects_reset {
            self.expire_pin(turn);
        }
        self.beat(turn);
        if expects_reset {
            return Ok(());
        }
        if !self.unlogged.is_empty() && self.unlogged_since.plus(FLUSH_AFTER) <= turn.now {
            self.flush(turn);
        }
        Ok(())
    }

    /// When [`Consumer::tick`] and [`Consumer::deliver`] should be called although nothing
    /// happened. May be early, never late.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let requests = self.waiting.wake().map(Timestamp);
        let anyway = [requests, self.abandoned_at(), self.push_deadline()];
        if self.expects_reset() {
            return anyway.into_iter().flatten().min();
        }
        let flush = (!self.unlogged.is_empty()).then(|| self.unlogged_since.plus(FLUSH_AFTER));
        let someone_waits = self.config.is_push() || !self.waiting.is_empty();
        let ahead = |time: &Timestamp| someone_waits && *time > self.clock;
        let hold = Some(self.hold_until).filter(|_| !self.is_caught_up);
        [
            self.has_suspects()
                .then(|| self.suspects_after.max(self.clock)),
            self.deadlines.earliest().map(Timestamp),
            flush,
            hold.filter(ahead),
            self.config.pause_until.filter(ahead),
            self.pin_expires(),
        ]
        .into_iter()
        .chain(anyway)
        .flatten()
        .min()
    }

    /// Whether nobody used it for longer than its inactive threshold, so that it should go.
    pub fn is_abandoned(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.config.is_push() && self.check_interest(turn) {
            return false;
        }
        if self.abandoned_at().is_none_or(|at| at > turn.now) {
            return false;
        }
        self.drop_deserted(turn);
        if !self.waiting.is_empty() {
            self.last_activity = turn.now;
            return false;
        }
        // Whoever asked will see to it; ask again only if that fails.
        self.abandoned_after = turn.now.plus(RETRY);
        true
    }

    /// When it may be abandoned if nothing happens.
    fn abandoned_at(&self) -> Option<Timestamp> {
        let threshold = u64::try_from(self.config.inactive_threshold)
            .ok()
            .filter(|ns| *ns > 0)?;
        let threshold = Duration::from_nanos(threshold);
        if self.config.is_push() {
            let since = self.push.inactive_since()?;
            return Some(since.plus(threshold).max(self.abandoned_after));
        }
        // Someone may still be working on what was handed out last.
        let busy_until = if self.state.pending.is_empty() {
            0
        } else {
            self.latest_due
        };
        let busy_until = self.last_activity.max(Timestamp(busy_until));
        Some(
            busy_until
                .plus(threshold)
                .plus(GRACE)
                .max(self.abandoned_after),
        )
    }

    /// Queues the deliveries that are due again; gives up those that had enough.
    pub(super) fn collect_due(&mut self, turn: &mut Turn<'_>) -> Result<(), StoreError> {
        let mut due = Vec::new();
        while let Some((at, seq)) = self.deadlines.pop_due(turn.now.0) {
            let still_holds = self.state.pending.get(seq).is_some_and(|delivery| {
                delivery.due == at && !delivery.queued && !delivery.is_settling()
            });
            if still_holds {
                due.push(seq);
            }
        }
        due.sort_unstable();
        due.dedup();
        let max_deliver = self.max_deliver();
        let mut result = Ok(());
        for seq in due {
            let Some(delivery) = self.state.pending.get_mut(seq) else {
                continue;
            };
            if max_deliver.is_none_or(|max| delivery.sent < max) {
                delivery.queued = true;
                self.redeliver.push_back(seq);
            } else if let Err(error) = self.give_up(seq, turn) {
                self.try_again_later(seq, turn.now);
                result = Err(error);
            }
        }
        result
    }

    /// Keeps the timer of a delivery whose message could not be looked at.
    fn try_again_later(&mut self, seq: u64, now: Timestamp) {
        let due = now.plus(RETRY).0;
        if let Some(delivery) = self.state.pending.get_mut(seq) {
            delivery.due = due;
            self.schedule(due, seq);
        }
    }

    /// Ends the deliveries of a message that was delivered as often as allowed.
    pub(super) fn give_up(&mut self, seq: u64, turn: &mut Turn<'_>) -> Result<(), StoreError> {
        let stream_seq = StreamSeq(seq);
        if turn.source.message(stream_seq)?.is_none() {
            self.forget_gone(seq, turn);
            return Ok(());
        }
        let deliveries = self
            .state
            .pending
            .get(seq)
            .map_or(0, |delivery| delivery.sent);
        if self.state.pending.mark_settling(seq) {
            let which = Which {
                stream_seq,
                consumer_seq: None,
                deliveries: u64::from(deliveries),
            };
            self.advise_max_deliveries(which, turn);
            self.propose(
                Change::Exhausted {
                    stream_seq,
                    deliveries,
                },
                b"",
                turn,
            );
        }
        Ok(())
    }

    pub(super) fn has_suspects(&self) -> bool {
        self.suspect_below > 0 || !self.suspects.is_empty()
    }

    /// Finds the pending deliveries whose messages left the stream without being named.
    fn find_gone(&mut self, turn: &mut Turn<'_>) -> Result<(), StoreError> {
        if !self.has_suspects() || self.suspects_after > turn.now {
            return Ok(());
        }
        // Until it has worked.
        self.suspects_after = turn.now.plus(RETRY);
        let mut suspects = self.suspects.clone();
        let below = self.suspect_below;
        suspects.extend(
            self.state
                .pending
                .range(0, below)
                .map(|delivery| delivery.seq),
        );
        let mut gone = Vec::new();
        for seq in suspects {
            if turn.source.message(StreamSeq(seq))?.is_none() {
                gone.push(seq);
            }
        }
        self.suspects.clear();
        self.suspect_below = 0;
        self.suspects_after = Timestamp::ZERO;
        for seq in gone {
            self.forget_gone(seq, turn);
        }
        Ok(())
    }

    /// Ends the deliveries of a message that left the stream.
    pub(super) fn forget_gone(&mut self, seq: u64, turn: &mut Turn<'_>) {
        let Some(delivery) = self.state.pending.get(seq) else {
            return;
        };
        let which = Which {
            stream_seq: StreamSeq(seq),
            consumer_seq: Some(delivery.first),
            deliveries: u64::from(delivery.sent),
        };
        if !self.state.pending.mark_settling(seq) {
            return;
        }
        self.advise_terminated(which, "Unacknowledged message was deleted", turn);
        self.propose(
            Change::Gone {
                stream_seq: StreamSeq(seq),
            },
            b"",
            turn,
        );
    }
}
