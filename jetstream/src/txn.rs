//! Reads through the changes of the entry being applied.

use std::collections::BTreeMap;

use crate::ports::{Row, Seek, StateStore, StoreError, Table, Write, WriteSet};

/// The state store with this entry's own changes laid over it.
///
/// Everything applied from one log entry goes through one `Txn` and reaches the store as one
/// atomic [`WriteSet`].
pub struct Txn<'a> {
    base: &'a dyn StateStore,
    overlay: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    /// Ranges removed before any later put of the overlay, checked against base rows only.
    cleared: Vec<(Table, Vec<u8>, Vec<u8>)>,
}

impl<'a> Txn<'a> {
    /// An empty set of changes over `base`.
    #[must_use]
    pub fn new(base: &'a dyn StateStore) -> Self {
        Self {
            base,
            overlay: BTreeMap::new(),
            cleared: Vec::new(),
        }
    }

    /// Sets a row.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.overlay.insert((table, key), Some(value));
    }

    /// Removes a row.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.overlay.insert((table, key), None);
    }

    /// Removes every row with `from <= key < to`, those put earlier in this entry included.
    pub fn delete_range(&mut self, table: Table, from: Vec<u8>, to: Vec<u8>) {
        let inside: Vec<_> = self
            .overlay
            .range((table, from.clone())..(table, to.clone()))
            .map(|(key, _)| key.clone())
            .collect();
        for key in inside {
            self.overlay.remove(&key);
        }
        self.cleared.push((table, from, to));
    }

    /// The value of a row.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.overlay.get(&(table, key.to_vec())) {
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
        let overlaid = match seek {
            Seek::AtOrAfter => self
                .overlay
                .range((table, key.to_vec())..)
                .take_while(|((t, _), _)| *t == table)
                .find_map(|((_, k), v)| v.as_ref().map(|v| (k.clone(), v.clone()))),
            Seek::AtOrBefore => self
                .overlay
                .range(..=(table, key.to_vec()))
                .rev()
                .take_while(|((t, _), _)| *t == table)
                .find_map(|((_, k), v)| v.as_ref().map(|v| (k.clone(), v.clone()))),
        };
        let mut from = key.to_vec();
        let based = loop {
            match self.base.seek(table, &from, seek)? {
                None => break None,
                Some((found, value)) => {
                    let hidden = self.overlay.contains_key(&(table, found.clone()))
                        || self.is_cleared(table, &found);
                    if !hidden {
                        break Some((found, value));
                    }
                    match seek {
                        Seek::AtOrAfter => {
                            from = self.skip_cleared_up(table, found.clone());
                            if from == found {
                                from.push(0);
                            }
                        }
                        Seek::AtOrBefore => match key_before(found) {
                            Some(before) => from = before,
                            None => break None,
                        },
                    }
                }
            }
        };
        Ok(match (overlaid, based) {
            (Some(a), Some(b)) => Some(match seek {
                Seek::AtOrAfter => {
                    if a.0 <= b.0 {
                        a
                    } else {
                        b
                    }
                }
                Seek::AtOrBefore => {
                    if a.0 >= b.0 {
                        a
                    } else {
                        b
                    }
                }
            }),
            (a, b) => a.or(b),
        })
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
        let mut own = self
            .overlay
            .range((table, from.to_vec())..(table, to.to_vec()))
            .peekable();
        let mut wanted = true;
        self.base.scan(table, from, to, &mut |key, value| {
            while let Some(((_, own_key), own_value)) =
                own.next_if(|((_, own_key), _)| own_key.as_slice() < key)
            {
                if let Some(own_value) = own_value {
                    wanted = visit(own_key, own_value);
                    if !wanted {
                        return false;
                    }
                }
            }
            wanted = match own.next_if(|((_, own_key), _)| own_key.as_slice() == key) {
                Some((_, Some(own_value))) => visit(key, own_value),
                Some((_, None)) => true,
                None if self.is_cleared(table, key) => true,
                None => visit(key, value),
            };
            wanted
        })?;
        if wanted {
            for ((_, key), value) in own {
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
        writes.extend(
            self.overlay
                .into_iter()
                .map(|((table, key), value)| match value {
                    Some(value) => Write::Put(table, key, value),
                    None => Write::Delete(table, key),
                }),
        );
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
