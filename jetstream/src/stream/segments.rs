//! How many live blocks lie in each segment of the log.

use std::collections::{BTreeMap, BTreeSet};

use crate::ports::{StateStore, StoreError, Table};
use crate::txn::Txn;

use super::codec::behind_prefix;

const PREFIX: &[u8] = b"segment/";

/// Live blocks per log segment, all streams of an engine together.
///
/// A block is live from the entry that stored it to the one that removed its last message. A
/// segment without live blocks holds no message; it can be given up once everything in it is
/// applied durably.
#[derive(Debug, Default)]
pub struct SegmentUse {
    live: BTreeMap<u64, u64>,
    changed: BTreeSet<u64>,
    emptied: Vec<u64>,
}

impl SegmentUse {
    /// The counts as the store has them.
    ///
    /// # Errors
    /// As [`StateStore::scan`], and `Corrupt` for a row that is no count.
    pub fn load(state: &dyn StateStore) -> Result<Self, StoreError> {
        let mut live = BTreeMap::new();
        let mut bad = false;
        state.scan(
            Table::Meta,
            PREFIX,
            &behind_prefix(PREFIX.to_vec()),
            &mut |key, value| {
                let segment = key[PREFIX.len()..].try_into().map(u64::from_be_bytes);
                let count = value.try_into().map(u64::from_le_bytes);
                match (segment, count) {
                    (Ok(segment), Ok(count)) => live.insert(segment, count),
                    _ => {
                        bad = true;
                        None
                    }
                };
                true
            },
        )?;
        if bad {
            return Err(StoreError::new(
                crate::ports::StoreErrorKind::Corrupt,
                "a row of the segment counts is not a count",
            ));
        }
        Ok(Self {
            live,
            ..Self::default()
        })
    }

    /// One more live block in a segment.
    pub fn add(&mut self, segment: u64) {
        *self.live.entry(segment).or_insert(0) += 1;
        self.changed.insert(segment);
    }

    /// One live block less.
    pub fn release(&mut self, segment: u64) {
        if let Some(count) = self.live.get_mut(&segment) {
            *count -= 1;
            if *count == 0 {
                self.live.remove(&segment);
                self.emptied.push(segment);
            }
            self.changed.insert(segment);
        } else {
            debug_assert!(false, "segment {segment} has no live block to release");
        }
    }

    /// Live blocks in a segment.
    #[must_use]
    pub fn live(&self, segment: u64) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// Segments that lost their last live block since the last call; one may have got another since.
    pub fn take_emptied(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.emptied)
    }

    /// Writes what changed since the last call; belongs into the transaction of the entry that
    /// changed it.
    pub fn write_changes(&mut self, txn: &mut Txn<'_>) {
        for segment in std::mem::take(&mut self.changed) {
            let key = [PREFIX, &segment.to_be_bytes()].concat();
            match self.live.get(&segment) {
                Some(count) => txn.put(Table::Meta, key, count.to_le_bytes().to_vec()),
                None => txn.delete(Table::Meta, key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryState;

    #[test]
    fn counts_survive_in_the_store() {
        let mut state = MemoryState::new();
        let mut segments = SegmentUse::default();
        segments.add(7);
        segments.add(7);
        segments.add(9);
        let mut txn = Txn::new(&state);
        segments.write_changes(&mut txn);
        let writes = txn.into_writes();
        state.write(&writes).expect("memory takes it");
        segments.release(9);
        let mut txn = Txn::new(&state);
        segments.write_changes(&mut txn);
        let writes = txn.into_writes();
        state.write(&writes).expect("memory takes it");
        let loaded = SegmentUse::load(&state).expect("rows are sound");
        assert_eq!((loaded.live(7), loaded.live(9)), (2, 0));
    }
}
