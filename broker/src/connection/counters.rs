//! What a server counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::TrafficCount;

/// Counts of one thread, on cache lines of their own. Sums over all threads are made on demand.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    in_msgs: AtomicU64,
    in_bytes: AtomicU64,
    out_msgs: AtomicU64,
    out_bytes: AtomicU64,
    slow_pending: AtomicU64,
    slow_deadline: AtomicU64,
    stale: AtomicU64,
    stalled: AtomicU64,
}

/// A sum of [`Counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterSums {
    /// Messages and bytes in and out.
    pub traffic: TrafficCount,
    /// Connections closed because too many bytes waited.
    pub slow_consumers_pending: u64,
    /// Connections closed because a write took too long.
    pub slow_consumers_deadline: u64,
    /// Connections closed because they did not answer pings.
    pub stale_connections: u64,
    /// Times a publisher was held up by a receiver far behind.
    pub stalls: u64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn received(&self, msgs: u64, bytes: u64) {
        add(&self.in_msgs, msgs);
        add(&self.in_bytes, bytes);
    }

    pub(crate) fn delivered(&self, msgs: u64, bytes: u64) {
        add(&self.out_msgs, msgs);
        add(&self.out_bytes, bytes);
    }

    pub(crate) fn slow_by_size(&self) {
        add(&self.slow_pending, 1);
    }

    pub(crate) fn slow_by_time(&self) {
        add(&self.slow_deadline, 1);
    }

    pub(crate) fn went_stale(&self) {
        add(&self.stale, 1);
    }

    pub(crate) fn stalled(&self) {
        add(&self.stalled, 1);
    }

    /// The sum over all threads.
    #[must_use]
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Arc<Self>>) -> CounterSums {
        let mut sums = CounterSums::default();
        for counters in all {
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            sums.traffic.in_msgs += get(&counters.in_msgs);
            sums.traffic.in_bytes += get(&counters.in_bytes);
            sums.traffic.out_msgs += get(&counters.out_msgs);
            sums.traffic.out_bytes += get(&counters.out_bytes);
            sums.slow_consumers_pending += get(&counters.slow_pending);
            sums.slow_consumers_deadline += get(&counters.slow_deadline);
            sums.stale_connections += get(&counters.stale);
            sums.stalls += get(&counters.stalled);
        }
        sums
    }
}
