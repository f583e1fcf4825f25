//! What the caller of the log and its threads share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use menes_jetstream::ports::{LogPosition, StoreError, StoreErrorKind, Ticket};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::batch::Batch;

/// Called whenever a sync ended or the log failed, from a thread of the log. It must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Between the caller and the log thread.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// The queue has something for the log thread.
    arrived: Condvar,
    synced: AtomicU64,
    failure: OnceLock<StoreError>,
    stats: Mutex<LogStats>,
    /// Segments that are written to their end and not given back.
    full: Mutex<BTreeSet<u64>>,
    /// The first damage in each segment that has any.
    damage: Mutex<BTreeMap<u64, u32>>,
    wake: Wake,
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Turns: batches written and synced.
    pub turns: u64,
    /// Bytes written to segments.
    pub bytes: u64,
    /// Time spent writing and syncing.
    pub busy: Duration,
    /// The longest turn.
    pub slowest: Duration,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) pending: Batch,
    /// An empty batch whose buffers are worth keeping.
    pub(super) spare: Batch,
    pub(super) closing: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("synced", &self.synced)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(full: BTreeSet<u64>, wake: Wake) -> Self {
        Self {
            queue: Mutex::new(Queue::default()),
            arrived: Condvar::new(),
            synced: AtomicU64::new(0),
            failure: OnceLock::new(),
            stats: Mutex::default(),
            full: Mutex::new(full),
            damage: Mutex::default(),
            wake,
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Tells the log thread that the queue changed.
    pub(super) fn notify(&self) {
        self.arrived.notify_one();
    }

    pub(super) fn arrived(&self) -> &Condvar {
        &self.arrived
    }

    /// The highest ticket that is durable.
    pub(super) fn synced(&self) -> Ticket {
        Ticket(self.synced.load(Ordering::Acquire))
    }

    /// Everything up to `ticket` is durable.
    pub(super) fn publish(&self, ticket: Ticket) {
        self.synced.store(ticket.0, Ordering::Release);
        (self.wake)();
    }

    /// Counts one turn.
    pub(super) fn count(&self, bytes: u64, took: Duration) {
        let mut stats = self.stats.lock();
        stats.turns += 1;
        stats.bytes += bytes;
        stats.busy += took;
        stats.slowest = stats.slowest.max(took);
    }

    pub(super) fn stats(&self) -> LogStats {
        *self.stats.lock()
    }

    /// A segment is written to its end.
    pub(super) fn filled(&self, segment: u64) {
        self.full.lock().insert(segment);
    }

    /// A segment is given back.
    pub(super) fn given_back(&self, segment: u64) {
        self.full.lock().remove(&segment);
        self.damage.lock().remove(&segment);
    }

    pub(super) fn is_full(&self, segment: u64) -> bool {
        self.full.lock().contains(&segment)
    }

    /// The first full segment that is not among those `checked`.
    pub(super) fn next_full_segment(&self, checked: &BTreeSet<u64>) -> Option<u64> {
        self.full.lock().difference(checked).next().copied()
    }

    /// Remembers damage; whether none was known in that segment.
    pub(super) fn note_damage(&self, at: LogPosition) -> bool {
        let known = self.damage.lock().insert(at.segment, at.offset);
        known.is_none()
    }

    pub(super) fn is_damaged(&self, segment: u64) -> bool {
        self.damage.lock().contains_key(&segment)
    }

    /// Where damage is known.
    pub(super) fn damage(&self) -> Vec<LogPosition> {
        let damage = self.damage.lock();
        let position = |(segment, offset): (&u64, &u32)| LogPosition {
            segment: *segment,
            offset: *offset,
        };
        damage.iter().map(position).collect()
    }

    /// What poisoned the log, if anything did.
    pub(super) fn failure(&self) -> Option<&StoreError> {
        self.failure.get()
    }

    /// Poisons the log. Only the first failure counts.
    pub(super) fn fail(&self, error: StoreError) {
        if self.failure.set(error).is_ok() {
            (self.wake)();
        }
    }

    /// An error unless the log can still take entries.
    pub(super) fn usable(&self) -> Result<(), StoreError> {
        match self.failure() {
            None => Ok(()),
            Some(failure) => Err(StoreError::new(
                StoreErrorKind::Closed,
                format!("the log is out of service since an earlier error: {failure}"),
            )),
        }
    }
}
