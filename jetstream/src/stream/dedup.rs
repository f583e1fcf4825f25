//! Message ids inside the duplicate window.
//!
//! An id is remembered as a 128-bit hash with the sequence it got. There is one row per entry that
//! brought ids, and the table comes into memory with the first id after a start: a stream that
//! nobody publishes to with ids pays nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use crate::ids::GroupId;
use crate::ports::{StoreError, Table};
use crate::time::Timestamp;
use crate::txn::Txn;

use super::codec::{Reader, corrupt, group_end, group_start, put_varint};

/// Takes a number that is a hash already for its own hash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
    fn write_u128(&mut self, number: u128) {
        self.0 = number as u64;
    }
}

pub(super) type HashedMap<K, V> = HashMap<K, V, BuildHasherDefault<Hashed>>;

/// The duplicate window of a stream.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    ids: HashedMap<u128, Seen>,
    /// In the order they came.
    order: VecDeque<(u128, Seen)>,
    /// Key and time of the newest id of each row, oldest first.
    rows: VecDeque<(u64, Timestamp)>,
    /// Ids of the entry being applied.
    pending: Vec<(u128, Seen)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    seq: u64,
    time: Timestamp,
}

impl Dedup {
    /// The window as the store has it, without what is older than `window` at `now`.
    pub(super) fn load(
        txn: &Txn<'_>,
        group: GroupId,
        window: Duration,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut dedup = Self::default();
        let mut bad = false;
        txn.scan(
            Table::Dedup,
            &group_start(group),
            &group_end(group),
            &mut |key, value| {
                bad = dedup.read_row(key, value, window, now).is_none();
                !bad
            },
        )?;
        if bad {
            return Err(corrupt(group, "message ids"));
        }
        Ok(dedup)
    }

    fn read_row(
        &mut self,
        key: &[u8],
        value: &[u8],
        window: Duration,
        now: Timestamp,
    ) -> Option<()> {
        let first = u64::from_be_bytes(key.get(8..)?.try_into().ok()?);
        let mut reader = Reader(value);
        let mut time = reader.i64()?;
        let mut seq = first;
        while !reader.is_empty() {
            seq = seq.checked_add(reader.varint()?)?;
            time = time.checked_add_unsigned(reader.varint()?)?;
            let hash = u128::from_le_bytes(reader.array()?);
            let seen = Seen {
                seq,
                time: Timestamp(time),
            };
            if !is_over(seen.time, window, now) {
                self.ids.insert(hash, seen);
                self.order.push_back((hash, seen));
            }
        }
        self.rows.push_back((first, Timestamp(time)));
        Some(())
    }

    /// The sequence that `id` got, if that was inside the window. Call [`Self::expire`] first.
    pub(super) fn get(&self, id: &[u8]) -> Option<u64> {
        self.ids.get(&xxh3_128(id)).map(|seen| seen.seq)
    }

    /// Remembers that `id` got a sequence.
    pub(super) fn insert(&mut self, id: &[u8], seq: u64, time: Timestamp) {
        let hash = xxh3_128(id);
        let seen = Seen { seq, time };
        self.ids.insert(hash, seen);
        self.order.push_back((hash, seen));
        self.pending.push((hash, seen));
    }

    /// Forgets what has left the window at `now`.
    pub(super) fn expire(
        &mut self,
        txn: &mut Txn<'_>,
        group: GroupId,
        window: Duration,
        now: Timestamp,
    ) {
        while let Some((hash, seen)) = self.order.front()
            && is_over(seen.time, window, now)
        {
            // The id may have come again since.
            if self.ids.get(hash) == Some(seen) {
                self.ids.remove(hash);
            }
            self.order.pop_front();
        }
        // What a burst needed is given back when it is over.
        if self.ids.capacity() > 4096 && self.ids.len() < self.ids.capacity() / 8 {
            self.ids.shrink_to(self.ids.len() * 2);
            self.order.shrink_to(self.order.len() * 2);
        }
        while let Some((first, newest)) = self.rows.front()
            && is_over(*newest, window, now)
        {
            txn.delete(Table::Dedup, row_key(group, *first));
            self.rows.pop_front();
        }
    }

    /// Writes the ids of the entry.
    pub(super) fn flush(&mut self, txn: &mut Txn<'_>, group: GroupId) {
        if let (Some((_, first)), Some((_, last))) = (self.pending.first(), self.pending.last()) {
            self.rows.push_back((first.seq, last.time));
            txn.put(
                Table::Dedup,
                row_key(group, first.seq),
                row_value(first.seq, &self.pending),
            );
            self.pending.clear();
        }
    }

    /// Writes the oldest row again, without the ids that are forgotten. Only that one can have
    /// any, as times rise.
    pub(super) fn rewrite_oldest(&mut self, txn: &mut Txn<'_>, group: GroupId) {
        let Some((first, _)) = self.rows.front() else {
            return;
        };
        let end = self.rows.get(1).map_or(u64::MAX, |(next, _)| *next);
        let left: Vec<_> = self
            .order
            .iter()
            .take_while(|(_, seen)| seen.seq < end)
            .copied()
            .collect();
        txn.put(
            Table::Dedup,
            row_key(group, *first),
            row_value(*first, &left),
        );
    }
}

fn row_value(first: u64, ids: &[(u128, Seen)]) -> Vec<u8> {
    let mut value = Vec::with_capacity(8 + ids.len() * 20);
    let mut time = ids.first().map_or(0, |(_, seen)| seen.time.0);
    let mut seq = first;
    value.extend_from_slice(&time.to_le_bytes());
    for (hash, seen) in ids {
        put_varint(&mut value, seen.seq - seq);
        put_varint(&mut value, seen.time.0.abs_diff(time));
        value.extend_from_slice(&hash.to_le_bytes());
        (seq, time) = (seen.seq, seen.time.0);
    }
    value
}

fn is_over(time: Timestamp, window: Duration, now: Timestamp) -> bool {
    now.since(time) >= window
}

fn row_key(group: GroupId, first: u64) -> Vec<u8> {
    let mut key = group_start(group);
    key.extend_from_slice(&first.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryState;
    use crate::ports::StateStore;

    const GROUP: GroupId = GroupId(16);
    const WINDOW: Duration = Duration::from_nanos(100);

    #[test]
    fn an_id_is_known_for_the_window_and_no_longer() {
        let state = MemoryState::new();
        let mut txn = Txn::new(&state);
        let mut dedup = Dedup::default();
        dedup.insert(b"a", 1, Timestamp(1000));
        dedup.flush(&mut txn, GROUP);
        dedup.expire(&mut txn, GROUP, WINDOW, Timestamp(1099));
        assert_eq!(dedup.get(b"a"), Some(1));
        dedup.expire(&mut txn, GROUP, WINDOW, Timestamp(1100));
        assert_eq!(dedup.get(b"a"), None);
        assert_eq!(
            txn.get(Table::Dedup, &row_key(GROUP, 1)).expect("memory"),
            None
        );
    }

    #[test]
    fn a_newer_use_of_an_id_outlives_the_older_one() {
        let state = MemoryState::new();
        let mut txn = Txn::new(&state);
        let mut dedup = Dedup::default();
        dedup.insert(b"a", 1, Timestamp(1000));
        dedup.insert(b"a", 2, Timestamp(1050));
        dedup.expire(&mut txn, GROUP, WINDOW, Timestamp(1120));
        assert_eq!(dedup.get(b"a"), Some(2));
    }

    #[test]
    fn the_window_is_the_same_after_a_load() {
        let mut state = MemoryState::new();
        let mut txn = Txn::new(&state);
        let mut dedup = Dedup::default();
        dedup.insert(b"a", 5, Timestamp(1000));
        dedup.insert(b"b", 9, Timestamp(1050));
        dedup.flush(&mut txn, GROUP);
        state.write(&txn.into_writes()).expect("memory");
        let txn = Txn::new(&state);
        let loaded = Dedup::load(&txn, GROUP, WINDOW, Timestamp(1120)).expect("sound");
        assert_eq!((loaded.get(b"a"), loaded.get(b"b")), (None, Some(9)));
        let other = Dedup::load(&txn, GROUP.next(), WINDOW, Timestamp(1120)).expect("sound");
        assert_eq!(other.get(b"b"), None);
    }
}
