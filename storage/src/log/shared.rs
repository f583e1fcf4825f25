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
    /// Turns by how long they took: each counts those up to its bound in [`TURN_BOUNDS`] and above
    /// the one before; the last counts the others.
    pub turns_by_time: [u64; TURN_BOUNDS.len() + 1],
    /// The same by bytes, see [`COMMIT_BOUNDS`].
    pub turns_by_bytes: [u64; COMMIT_BOUNDS.len() + 1],
}

/// Bounds by which turns are counted.
pub const TURN_BOUNDS: [Duration; 14] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

/// Bounds in bytes by which turns are counted.
pub const COMMIT_BOUNDS: [u64; 10] = [
    512,
    2 << 10,
    8 << 10,
    32 << 10,
    128 << 10,
    512 << 10,
    2 << 20,
    8 << 20,
    32 << 20,
    128 << 20,
];

/// Counts one more where `value` belongs.
fn count_in<T: PartialOrd>(counts: &mut [u64], bounds: &[T], value: &T) {
    let place = bounds.partition_point(|bound| bound < value);
    if let Some(count) = counts.get_mut(place) {
        *count += 1;
    }
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
        stats.bytes = stats.bytes.saturating_add(bytes);
        stats.busy = stats.busy.saturating_add(took);
        stats.slowest = stats.slowest.max(took);
        count_in(&mut stats.turns_by_time, &TURN_BOUNDS, &took);
        count_in(&mut stats.turns_by_bytes, &COMMIT_BOUNDS, &bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted_by_the_first_bound_they_do_not_pass() {
        let shared = Shared::new(BTreeSet::new(), Arc::new(|| {}));
        shared.count(512, Duration::from_micros(100));
        shared.count(513, Duration::from_micros(101));
        shared.count(u64::MAX, Duration::MAX);
        let stats = shared.stats();
        assert_eq!(stats.turns_by_time[..2], [1, 1]);
        assert_eq!(stats.turns_by_time[TURN_BOUNDS.len()], 1);
        assert_eq!(stats.turns_by_bytes[..2], [1, 1]);
        assert_eq!(stats.turns_by_bytes[COMMIT_BOUNDS.len()], 1);
        assert_eq!(stats.turns_by_time.iter().sum::<u64>(), stats.turns);
    }
}
