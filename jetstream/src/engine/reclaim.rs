//! Log segments that nothing refers to any more go back to the log.
//!
//! A segment is *spent* once all its entries are applied and none of its blocks holds a message. A
//! crash, though, brings the rows of the last flush back, and those may still point into it; so it
//! is given up only when a flush covers the state in which it was found spent.

use std::collections::VecDeque;

use super::{Application, Engine};
use crate::ports::{LogPosition, LogStore, StateStore, StoreError};

/// Segments that the flushed state may lie behind before a flush is asked for: what a restart
/// replays at most, give or take the segment being written and what comes in during the flush.
const MAX_LAG: u64 = 2;

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
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Gives back spent segments, and asks for a flush where that would let more go or where the
    /// flushed state lies far behind.
    pub(super) fn reclaim(&mut self) {
        if let Err(error) = self.try_reclaim() {
            self.poison(error);
        }
    }

    fn try_reclaim(&mut self) -> Result<(), StoreError> {
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
        if (has_waiting || is_behind) && !is_asked {
            self.reclaim.asked = Some((applied, durable));
            self.state.begin_flush()?;
        }
        Ok(())
    }
}
