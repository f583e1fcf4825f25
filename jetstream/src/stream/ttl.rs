//! Which messages expire on their own, by time. A row outlives its message when that goes first;
//! sequences are never given twice, so it then finds nothing.

use crate::ids::GroupId;
use crate::ports::{Seek, StoreError, Table};
use crate::time::Timestamp;

use super::codec::behind_prefix;
use super::rows::Rows;

const PREFIX: &[u8] = b"message-ttl/";

/// Key of the row of one message.
pub(super) fn key(group: GroupId, expires: Timestamp, seq: u64) -> Vec<u8> {
    let mut key = prefix(group);
    key.extend_from_slice(&expires.0.max(0).to_be_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// What the keys of a group begin with.
pub(super) fn prefix(group: GroupId) -> Vec<u8> {
    [PREFIX, &group.0.to_be_bytes()].concat()
}

fn parse(group: GroupId, key: &[u8]) -> Option<(Timestamp, u64)> {
    let rest = key.strip_prefix(prefix(group).as_slice())?;
    let (time, seq) = rest.split_first_chunk::<8>()?;
    Some((
        Timestamp(i64::from_be_bytes(*time)),
        u64::from_be_bytes(seq.try_into().ok()?),
    ))
}

/// When the first message expires.
pub(super) fn next(rows: Rows<'_>, group: GroupId) -> Result<Option<Timestamp>, StoreError> {
    let found = rows.seek(Table::Meta, &prefix(group), Seek::AtOrAfter)?;
    Ok(found
        .and_then(|(key, _)| parse(group, &key))
        .map(|(time, _)| time))
}

/// Keys and sequences of messages that have expired at `now`, at most `limit`.
pub(super) fn due(
    rows: Rows<'_>,
    group: GroupId,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
    let from = prefix(group);
    let to = behind_prefix(key(group, now, u64::MAX));
    let mut due = Vec::new();
    rows.scan(Table::Meta, &from, &to, &mut |key, _| {
        if let Some((_, seq)) = parse(group, key) {
            due.push((key.to_vec(), seq));
        }
        due.len() < limit
    })?;
    Ok(due)
}
