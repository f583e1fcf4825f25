//! Message ids inside the duplicate window.
//!
//! An id is remembered as a 128-bit hash with the sequence it got. There is one row per entry that
//! brought ids, and the table comes into memory with the first id after a start: a stream that
//! nobody publishes to with ids pays nothing. An id takes 32 bytes in memory in the order they came,
//! and a number of 4 bytes by which it is found.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_128;

use crate::ids::GroupId;
use crate::ports::{StoreError, Table};
use crate::time::Timestamp;
use crate::txn::Txn;

use super::codec::{Reader, corrupt, group_end, group_start, put_varint};

/// The duplicate window of a stream.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    /// In the order they came.
    order: VecDeque<Seen>,
    /// How many came before the first of them, of which the low half is enough: no window holds so
    /// many ids.
    gone: u32,
    /// The number of the newest use of each id.
    newest: HashTable<u32>,
    /// Key and time of the newest id of each row, oldest first.
    rows: VecDeque<(u64, Timestamp)>,
    /// How many of the last belong to the entry being applied.
    pending: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    hash: u128,
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
                hash,
                seq,
                time: Timestamp(time),
            };
            if !is_over(seen.time, window, now) {
                self.remember(seen);
            }
        }
        self.rows.push_back((first, Timestamp(time)));
        Some(())
    }

    /// The sequence that `id` got, if that was inside the window. Call [`Self::expire`] first.
    pub(super) fn get(&self, id: &[u8]) -> Option<u64> {
        let hash = xxh3_128(id);
        let number = self.newest.find(table_hash(hash), |number| {
            self.seen(*number).is_some_and(|seen| seen.hash == hash)
        })?;
        self.seen(*number).map(|seen| seen.seq)
    }

    /// Remembers that `id` got a sequence.
    pub(super) fn insert(&mut self, id: &[u8], seq: u64, time: Timestamp) {
        self.remember(Seen {
            hash: xxh3_128(id),
            seq,
            time,
        });
        self.pending += 1;
    }

    fn seen(&self, number: u32) -> Option<&Seen> {
        self.order.get(number.wrapping_sub(self.gone) as usize)
    }

    fn remember(&mut self, seen: Seen) {
        let number = self.gone.wrapping_add(self.order.len() as u32);
        self.order.push_back(seen);
        let (order, gone) = (&self.order, self.gone);
        let hash_of = |number: &u32| order[number.wrapping_sub(gone) as usize].hash;
        let entry = self.newest.entry(
            table_hash(seen.hash),
            |other| hash_of(other) == seen.hash,
            |other| table_hash(hash_of(other)),
        );
        *entry.or_insert(number).get_mut() = number;
    }

    /// Forgets what has left the window at `now`.
    pub(super) fn expire(
        &mut self,
        txn: &mut Txn<'_>,
        group: GroupId,
        window: Duration,
        now: Timestamp,
    ) {
        while let Some(seen) = self.order.front()
            && is_over(seen.time, window, now)
        {
            // The id may have come again since.
            let is_first = |number: &u32| *number == self.gone;
            if let Ok(entry) = self.newest.find_entry(table_hash(seen.hash), is_first) {
                entry.remove();
            }
            self.order.pop_front();
            self.gone = self.gone.wrapping_add(1);
        }
        // What a burst needed is given back when it is over.
        let (order, gone) = (&self.order, self.gone);
        if self.newest.capacity() > 4096 && self.newest.len() < self.newest.capacity() / 8 {
            self.newest.shrink_to(self.newest.len() * 2, |number| {
                table_hash(order[number.wrapping_sub(gone) as usize].hash)
            });
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
        let before = self
            .order
            .len()
            .saturating_sub(std::mem::take(&mut self.pending));
        let new = self.order.range(before..);
        if let (Some(first), Some(last)) = (self.order.get(before), self.order.back()) {
            self.rows.push_back((first.seq, last.time));
            txn.put(
                Table::Dedup,
                row_key(group, first.seq),
                row_value(first.seq, new),
            );
        }
    }

    /// Writes the oldest row again, without the ids that are forgotten. Only that one can have
    /// any, as times rise.
    pub(super) fn rewrite_oldest(&mut self, txn: &mut Txn<'_>, group: GroupId) {
        let Some((first, _)) = self.rows.front() else {
            return;
        };
        let end = self.rows.get(1).map_or(u64::MAX, |(next, _)| *next);
        let left = self.order.partition_point(|seen| seen.seq < end);
        txn.put(
            Table::Dedup,
            row_key(group, *first),
            row_value(*first, self.order.range(..left)),
        );
    }
}

/// What an id is found by.
fn table_hash(hash: u128) -> u64 {
    hash as u64
}

fn row_value<'a>(first: u64, ids: impl ExactSizeIterator<Item = &'a Seen> + Clone) -> Vec<u8> {
    let mut value = Vec::with_capacity(8 + ids.len() * 20);
    let mut time = ids.clone().next().map_or(0, |seen| seen.time.0);
    let mut seq = first;
    value.extend_from_slice(&time.to_le_bytes());
    for seen in ids {
        put_varint(&mut value, seen.seq - seq);
        put_varint(&mut value, seen.time.0.abs_diff(time));
        value.extend_from_slice(&seen.hash.to_le_bytes());
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

    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn it_knows_what_a_list_of_all_uses_knows(
            steps in prop::collection::vec((0..12u8, 0..40i64, any::<bool>()), 1..200),
            gone in prop_oneof![Just(0), Just(u32::MAX - 20)],
        ) {
            let state = MemoryState::new();
            let mut txn = Txn::new(&state);
            let mut dedup = Dedup { gone, ..Dedup::default() };
            let mut uses: Vec<(u8, u64, Timestamp)> = Vec::new();
            let mut now = Timestamp(1000);
            for (seq, (id, later, is_flushed)) in (1..).zip(steps) {
                now.0 += later;
                dedup.expire(&mut txn, GROUP, WINDOW, now);
                for id in 0..12u8 {
                    let known = uses.iter().rev().find(|(other, ..)| *other == id);
                    let known = known.filter(|(_, _, time)| !is_over(*time, WINDOW, now));
                    prop_assert_eq!(dedup.get(&[id]), known.map(|(_, seq, _)| *seq));
                }
                dedup.insert(&[id], seq, now);
                uses.push((id, seq, now));
                if is_flushed {
                    dedup.flush(&mut txn, GROUP);
                }
            }
            dedup.flush(&mut txn, GROUP);
            let loaded = Dedup::load(&txn, GROUP, WINDOW, now).expect("sound");
            for id in 0..12u8 {
                prop_assert_eq!(loaded.get(&[id]), dedup.get(&[id]));
            }
        }
    }
}
