//! Reads through the changes of the entry being applied.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::ports::{Row, Seek, StateStore, StoreError, Table, Write, WriteSet};

/// The state store with this entry's own changes laid over it.
///
/// Everything applied from one log entry goes through one `Txn` and reaches the store as one
/// atomic [`WriteSet`].
pub struct Txn<'a> {
    base: &'a dyn StateStore,
    /// Rows set and removed, by table.
    overlay: [Overlay; Table::ALL.len()],
    /// Ranges removed before any later put of the overlay, checked against base rows only.
    cleared: Vec<(Table, Vec<u8>, Vec<u8>)>,
}

/// `None` for a row that is removed.
type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl std::fmt::Debug for Txn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Txn")
            .field("overlay", &self.overlay)
            .field("cleared", &self.cleared)
            .finish_non_exhaustive()
    }
}

impl<'a> Txn<'a> {
    /// An empty set of changes over `base`.
    #[must_use]
    pub fn new(base: &'a dyn StateStore) -> Self {
        Self {
            base,
            overlay: Default::default(),
            cleared: Vec::new(),
        }
    }

    /// Sets a row.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.overlay[table as usize].insert(key, Some(value));
    }

    /// Removes a row.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.overlay[table as usize].insert(key, None);
    }

    /// Removes every row with `from <= key < to`, those put earlier in this entry included.
    pub fn delete_range(&mut self, table: Table, from: Vec<u8>, to: Vec<u8>) {
        if from >= to {
            return;
        }
        let overlay = &mut self.overlay[table as usize];
        let mut inside = overlay.split_off(&from);
        let mut behind = inside.split_off(&to);
        overlay.append(&mut behind);
        self.cleared.push((table, from, to));
    }

    /// The value of a row.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.overlay[table as usize].get(key) {
            return Ok(value.clone());
        }
        if self.is_cleared(table, key) {
            return Ok(None);
        }
        self.base.get(table, key)
    }

    /// The nearest row in the given direction.
    ///
    /// # Errors
    /// As [`StateStore::seek`].
    pub fn seek(&self, table: Table, key: &[u8], seek: Seek) -> Result<Option<Row>, StoreError> {
        let based = self.seek_base(table, key, seek)?;
        let limit = based.as_ref().map(|(found, _)| found.as_slice());
        // Nothing behind what the base has can be nearer.
        let here = Bound::Included(key);
        let limit = limit.map_or(Bound::Unbounded, Bound::Excluded);
        let overlay = &self.overlay[table as usize];
        let overlaid = match seek {
            _ if limit == Bound::Excluded(key) => None,
            Seek::AtOrAfter => overlay.range::<[u8], _>((here, limit)).find_map(present),
            Seek::AtOrBefore => overlay
                .range::<[u8], _>((limit, here))
                .rev()
                .find_map(present),
        };
        Ok(overlaid.or(based))
    }

    /// The nearest row of the base that this entry has neither changed nor removed.
    fn seek_base(&self, table: Table, key: &[u8], seek: Seek) -> Result<Option<Row>, StoreError> {
        let mut from = key.to_vec();
        loop {
            let Some((found, value)) = self.base.seek(table, &from, seek)? else {
                return Ok(None);
            };
            let is_cleared = self.is_cleared(table, &found);
            if !is_cleared && !self.overlay[table as usize].contains_key(&found) {
                return Ok(Some((found, value)));
            }
            match seek {
                Seek::AtOrAfter if is_cleared => from = self.skip_cleared_up(table, found),
                Seek::AtOrAfter => {
                    from = found;
                    from.push(0);
                }
                Seek::AtOrBefore => match key_before(found) {
                    Some(before) => from = before,
                    None => return Ok(None),
                },
            }
        }
    }

    /// Visits rows with `from <= key < to` in rising order until `visit` returns false.
    ///
    /// # Errors
    /// As [`StateStore::scan`].
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let mut own = self.overlay[table as usize]
            .range::<[u8], _>(bounds)
            .peekable();
        let mut wanted = true;
        self.base.scan(table, from, to, &mut |key, value| {
            while let Some((own_key, own_value)) = own.next_if(|(own_key, _)| own_key[..] < *key) {
                if let Some(own_value) = own_value {
                    wanted = visit(own_key, own_value);
                    if !wanted {
                        return false;
                    }
                }
            }
            wanted = match own.next_if(|(own_key, _)| own_key[..] == *key) {
                Some((_, Some(own_value))) => visit(key, own_value),
                Some((_, None)) => true,
                None if self.is_cleared(table, key) => true,
                None => visit(key, value),
            };
            wanted
        })?;
        if wanted {
            for (key, value) in own {
                if let Some(value) = value
                    && !visit(key, value)
                {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The changes, ready to be written.
    #[must_use]
    pub fn into_writes(self) -> WriteSet {
        let mut writes: Vec<Write> = self
            .cleared
            .into_iter()
            .map(|(t, from, to)| Write::DeleteRange(t, from, to))
            .collect();
        for (table, overlay) in Table::ALL.into_iter().zip(self.overlay) {
            writes.extend(overlay.into_iter().map(|(key, value)| match value {
                Some(value) => Write::Put(table, key, value),
                None => Write::Delete(table, key),
            }));
        }
        WriteSet {
            writes,
            applied: None,
        }
    }

    fn is_cleared(&self, table: Table, key: &[u8]) -> bool {
        self.cleared
            .iter()
            .any(|(t, from, to)| *t == table && from.as_slice() <= key && key < to.as_slice())
    }

    fn skip_cleared_up(&self, table: Table, key: Vec<u8>) -> Vec<u8> {
        self.cleared
            .iter()
            .filter(|(t, from, to)| *t == table && *from <= key && key < *to)
            .map(|(_, _, to)| to.clone())
            .max()
            .unwrap_or(key)
    }
}

/// A row of the overlay, unless it is a removed one.
fn present((key, value): (&Vec<u8>, &Option<Vec<u8>>)) -> Option<Row> {
    Some((key.clone(), value.clone()?))
}

/// The largest key that sorts before `key` among keys no longer than it, good enough to continue
/// a downward search because every key of a table has a bounded length.
fn key_before(mut key: Vec<u8>) -> Option<Vec<u8>> {
    match key.pop()? {
        0 => Some(key),
        last => {
            key.push(last - 1);
            // Longer keys with this prefix sort between it and the original.
            key.extend_from_slice(&[0xff; 64]);
            Some(key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryState;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Change {
        Put(Vec<u8>, u8),
        Delete(Vec<u8>),
        DeleteRange(Vec<u8>, Vec<u8>),
    }

    /// What a get, a seek either way and a scan answer.
    type Answers = (Option<Vec<u8>>, Option<Row>, Option<Row>, Vec<Row>);

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0u8..3, 0..4)
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            4 => (keys(), any::<u8>()).prop_map(|(key, value)| Change::Put(key, value)),
            2 => keys().prop_map(Change::Delete),
            1 => (keys(), keys()).prop_map(|(from, to)| Change::DeleteRange(from, to)),
        ];
        proptest::collection::vec(change, 0..20)
    }

    fn rows(
        scan: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>,
    ) -> Vec<Row> {
        let mut rows = Vec::new();
        scan(&mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            rows.len() < 5
        })
        .expect("memory");
        rows
    }

    proptest! {
        #[test]
        fn what_is_read_before_the_write_is_what_is_read_after_it(
            base in proptest::collection::vec((keys(), any::<u8>()), 0..20),
            changes in changes(),
            probes in proptest::collection::vec((keys(), keys()), 1..6),
        ) {
            let mut state = MemoryState::new();
            let mut txn = Txn::new(&state);
            for (key, value) in base {
                txn.put(Table::Block, key.clone(), vec![value]);
                txn.put(Table::Subject, key, vec![value]);
            }
            let writes = txn.into_writes();
            state.write(&writes).expect("memory");
            let mut txn = Txn::new(&state);
            for change in changes {
                match change {
                    Change::Put(key, value) => txn.put(Table::Block, key, vec![value]),
                    Change::Delete(key) => txn.delete(Table::Block, key),
                    Change::DeleteRange(from, to) => txn.delete_range(Table::Block, from, to),
                }
            }
            let read = |get: &dyn Fn(&[u8], &[u8]) -> Answers| {
                probes.iter().map(|(key, to)| get(key, to)).collect::<Vec<_>>()
            };
            let before = read(&|key, to| (
                txn.get(Table::Block, key).expect("memory"),
                txn.seek(Table::Block, key, Seek::AtOrAfter).expect("memory"),
                txn.seek(Table::Block, key, Seek::AtOrBefore).expect("memory"),
                rows(|visit| txn.scan(Table::Block, key, to, visit)),
            ));
            let writes = txn.into_writes();
            state.write(&writes).expect("memory");
            let after = read(&|key, to| (
                state.get(Table::Block, key).expect("memory"),
                state.seek(Table::Block, key, Seek::AtOrAfter).expect("memory"),
                state.seek(Table::Block, key, Seek::AtOrBefore).expect("memory"),
                rows(|visit| if key < to {
                    state.scan(Table::Block, key, to, visit)
                } else {
                    Ok(())
                }),
            ));
            prop_assert_eq!(before, after);
        }
    }
}
