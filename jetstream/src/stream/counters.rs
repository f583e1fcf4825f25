//! The counters of a stream, in one row.

use crate::ids::GroupId;
use crate::ports::{StoreError, Table};
use crate::time::Timestamp;

use super::codec::{Reader, corrupt, put_varint};
use super::rows::Rows;

const VERSION: u8 = 1;
const PREFIX: &[u8] = b"stream-counters/";

/// What changes with every entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// Sequence of the first message; `last + 1` when there is none.
    pub(super) first: u64,
    /// The last sequence given.
    pub(super) last: u64,
    /// When it was given.
    pub(super) last_time: Timestamp,
    /// The latest time seen in an entry.
    pub(super) log_time: Timestamp,
    /// Distinct subjects.
    pub(super) subjects: u64,
    /// Message id of the last sequence given, empty for none.
    pub(super) last_id: Vec<u8>,
}

impl Counters {
    /// Those of a stream whose first message will get `first`.
    pub(super) fn starting_at(first: u64) -> Self {
        let first = first.max(1);
        Self {
            first,
            last: first - 1,
            ..Self::default()
        }
    }

    pub(super) fn key(group: GroupId) -> Vec<u8> {
        [PREFIX, &group.0.to_be_bytes()].concat()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + self.last_id.len());
        out.push(VERSION);
        put_varint(&mut out, self.messages);
        put_varint(&mut out, self.bytes);
        put_varint(&mut out, self.first);
        put_varint(&mut out, self.last);
        out.extend_from_slice(&self.last_time.0.to_le_bytes());
        out.extend_from_slice(&self.log_time.0.to_le_bytes());
        put_varint(&mut out, self.subjects);
        out.extend_from_slice(&self.last_id);
        out
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        if reader.u8()? != VERSION {
            return None;
        }
        Some(Self {
            messages: reader.varint()?,
            bytes: reader.varint()?,
            first: reader.varint()?,
            last: reader.varint()?,
            last_time: Timestamp(reader.i64()?),
            log_time: Timestamp(reader.i64()?),
            subjects: reader.varint()?,
            last_id: reader.0.to_vec(),
        })
    }

    pub(super) fn read(rows: Rows<'_>, group: GroupId) -> Result<Option<Self>, StoreError> {
        match rows.get(Table::Meta, &Self::key(group))? {
            None => Ok(None),
            Some(value) => match Self::decode(&value) {
                Some(counters) => Ok(Some(counters)),
                None => Err(corrupt(group, "counters")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_back() {
        let counters = Counters {
            messages: 5,
            bytes: 900,
            first: 3,
            last: 9,
            last_time: Timestamp(1_700_000_000_000_000_000),
            log_time: Timestamp(1_700_000_000_000_000_001),
            subjects: 2,
            last_id: b"id".to_vec(),
        };
        assert_eq!(Counters::decode(&counters.encode()), Some(counters));
    }

    #[test]
    fn an_empty_stream_begins_behind_its_last_sequence() {
        let counters = Counters::starting_at(0);
        assert_eq!((counters.first, counters.last), (1, 0));
        let counters = Counters::starting_at(100);
        assert_eq!((counters.first, counters.last), (100, 99));
    }
}
