//! Markers for subjects whose last message expired.
//!
//! That a marker is due is a row written with the removal; the marker itself is a message like any
//! other and has to go through the log first. Its record takes the row away again, whether or not
//! it is stored: who published to the subject meanwhile made it pointless.

use bytes::Bytes;

use crate::ids::GroupId;
use crate::ports::{StoreError, Table};
use crate::txn::Txn;

use super::codec::behind_prefix;
use super::directives::go_duration_text;
use super::rows::Rows;
use super::{Stream, View};

const PREFIX: &[u8] = b"marker-due/";

impl Stream {
    /// Subjects for which a marker has become due since the last call.
    pub fn take_due_markers(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.due_markers)
    }

    /// Every subject for which a marker is due, as the store has it.
    ///
    /// # Errors
    /// As the store.
    pub fn load_due_markers(&mut self, view: &View<'_>) -> Result<Vec<Bytes>, StoreError> {
        self.due_markers.clear();
        let from = prefix(self.group);
        let to = behind_prefix(from.clone());
        let mut due = Vec::new();
        view.rows.scan(Table::Meta, &from, &to, &mut |key, _| {
            due.push(Bytes::copy_from_slice(&key[from.len()..]));
            true
        })?;
        Ok(due)
    }

    /// Notes subjects that need a marker.
    pub fn markers_are_due(&mut self, subjects: Vec<Bytes>) {
        self.due_markers = subjects;
    }

    /// Header block of a marker; `None` for a stream without markers.
    #[must_use]
    pub fn marker_header(&self) -> Option<Vec<u8>> {
        let ttl = go_duration_text(self.limits.marker_ttl?);
        Some(
            format!(
                "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: {ttl}\r\nNats-Rollup: \
                 sub\r\n\r\n"
            )
            .into_bytes(),
        )
    }

    pub(super) fn marker_is_due(&mut self, subject: Bytes, txn: &mut Txn<'_>) {
        txn.put(Table::Meta, key(self.group, &subject), Vec::new());
        self.due_markers.push(subject);
    }

    /// Takes the row away; whether there was one.
    pub(super) fn marker_settled(
        &mut self,
        subject: &[u8],
        txn: &mut Txn<'_>,
    ) -> Result<bool, StoreError> {
        let key = key(self.group, subject);
        let is_due = Rows::Txn(txn).get(Table::Meta, &key)?.is_some();
        if is_due {
            txn.delete(Table::Meta, key);
        }
        Ok(is_due && self.limits.marker_ttl.is_some())
    }
}

/// What the keys of a group begin with.
pub(super) fn prefix(group: GroupId) -> Vec<u8> {
    [PREFIX, &group.0.to_be_bytes()].concat()
}

fn key(group: GroupId, subject: &[u8]) -> Vec<u8> {
    [prefix(group).as_slice(), subject].concat()
}
