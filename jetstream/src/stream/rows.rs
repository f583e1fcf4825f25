//! Where index rows are read: the store, or the store with the changes of an entry over it.

use crate::ports::{Row, Seek, StateStore, StoreError, Table};
use crate::txn::Txn;

/// A source of index rows.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// What is written.
    Store(&'a dyn StateStore),
    /// What will be written, while an entry is being applied.
    Txn(&'a Txn<'a>),
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Store(_) => "Store",
            Self::Txn(_) => "Txn",
        })
    }
}

impl Rows<'_> {
    pub(super) fn get(self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Store(store) => store.get(table, key),
            Self::Txn(txn) => txn.get(table, key),
        }
    }

    pub(super) fn seek(
        self,
        table: Table,
        key: &[u8],
        seek: Seek,
    ) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Store(store) => store.seek(table, key, seek),
            Self::Txn(txn) => txn.seek(table, key, seek),
        }
    }

    pub(super) fn scan(
        self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        match self {
            Self::Store(store) => store.scan(table, from, to, visit),
            Self::Txn(txn) => txn.scan(table, from, to, visit),
        }
    }
}
