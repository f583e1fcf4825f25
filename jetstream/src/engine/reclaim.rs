//! Log segments that nothing refers to any more go back to the log.
//!
//! A segment is *spent* once all its entries are applied and none of its blocks holds a message. A
//! crash, though, brings the rows of the last flush back, and those may still point into it; so it
//! is given up only when a flush covers the state in which it was found spent.
//!
//! Flushes also bound what a restart goes through again: a few seconds of what was written, and
//! nothing to speak of once it is quiet.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Application, Engine};
use crate::ports::{LogPosition, LogStore, StateStore, StoreError};
use crate::time::Timestamp;

/// Segments that the flushed state may lie behind before a flush is asked for: what a restart
/// replays at most, give or take the segment being written and what comes in during the flush.
const MAX_LAG: u64 = 2;
/// Rows that may wait for a flush however long it takes: writing so many again is no work.
const FEW_ROWS: usize = 20_000;
/// Bytes of the log that take a restart as long as one row.
const BYTES_PER_ROW: usize = 512;
/// How long more of them wait at most: so much of the past does a restart go through again.
const FLUSH_AFTER: Duration = Duration::from_secs(3);

/// What is known about segments that can go.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    /// Spent segments, and how far the log was applied when they were found.
    spent: VecDeque<(u64, LogPosition)>,
    /// Segments below this were looked at when the applied position left them.
    passed: u64,
    /// The applied position that the last flush asked for covers, and where the flushed state was
    /// then.
    asked: Option<(LogPosition, LogPosition)>,
    /// What a restart would do again, in rows, if it was not for a flush that was asked for.
    rows: usize,
    /// When they are to be flushed, once they are more than a few.
    due: Option<Timestamp>,
}

impl Reclaim {
    /// Counts an entry that was applied: the rows it wrote and its length in the log.
    pub(super) fn applied(&mut self, rows: usize, bytes: usize) {
        self.rows += rows + bytes / BYTES_PER_ROW;
    }

    /// When [`Engine::reclaim`] has something to do.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Gives back spent segments, and asks for a flush where that would let more go or where the
    /// flushed state lies far behind.
    pub(super) fn reclaim(&mut self, now: Timestamp) {
        if let Err(error) = self.try_reclaim(now) {
            self.poison(error);
        }
    }

    fn try_reclaim(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let applied = self.state.applied().unwrap_or_default();
        for segment in self.segments.take_emptied() {
            if segment < self.reclaim.passed && self.segments.live(segment) == 0 {
                self.reclaim.spent.push_back((segment, applied));
            }
        }
        if applied.segment > self.reclaim.passed {
            let left = self.log.segments().into_iter().filter(|segment| {
                (self.reclaim.passed..applied.segment).contains(segment)
                    && self.segments.live(*segment) == 0
            });
            self.reclaim
                .spent
                .extend(left.map(|segment| (segment, applied)));
            self.reclaim.passed = applied.segment;
        }
        let durable = self.state.durable_applied().unwrap_or_default();
        let mut free = Vec::new();
        while let Some((segment, _)) = self.reclaim.spent.pop_front_if(|(_, at)| *at <= durable) {
            free.push(segment);
        }
        if !free.is_empty() {
            self.log.recycle(&free)?;
        }
        let has_waiting = !self.reclaim.spent.is_empty();
        let is_behind = applied.segment >= durable.segment + MAX_LAG;
        let is_asked = self
            .reclaim
            .asked
            .is_some_and(|(until, since)| durable < until && durable == since);
        if self.reclaim.due.is_none() && self.reclaim.rows > FEW_ROWS {
            self.reclaim.due = Some(now.plus(FLUSH_AFTER));
        }
        let is_due = self.reclaim.due.is_some_and(|due| due <= now);
        if is_due && is_asked {
            self.reclaim.due = Some(now.plus(FLUSH_AFTER));
        } else if (has_waiting || is_behind || is_due) && !is_asked {
            self.reclaim.rows = 0;
            self.reclaim.due = None;
            self.reclaim.asked = Some((applied, durable));
            self.state.begin_flush()?;
        }
        Ok(())
    }
}
