//! Numbers in the values of index rows.

use crate::ids::GroupId;
use crate::ports::{StoreError, StoreErrorKind};

/// Appends `value` in groups of seven bits, lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads the value of a row from front to back; `None` from the first field that does not fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What was read from the index of `group` contradicts what was written.
pub(super) fn corrupt(group: GroupId, what: impl std::fmt::Display) -> StoreError {
    StoreError::new(
        StoreErrorKind::Corrupt,
        format!("index of stream group {group}: {what}"),
    )
}

/// Takes `by` off a count that was kept with what it counts.
pub(super) fn less(count: &mut u64, by: u64, group: GroupId) -> Result<(), StoreError> {
    *count = count
        .checked_sub(by)
        .ok_or_else(|| corrupt(group, "a count is less than what is taken off it"))?;
    Ok(())
}

/// First key of a group in a table whose keys begin with the group.
pub(super) fn group_start(group: GroupId) -> Vec<u8> {
    group.0.to_be_bytes().to_vec()
}

/// The key behind the last one of a group.
pub(super) fn group_end(group: GroupId) -> Vec<u8> {
    group.next().0.to_be_bytes().to_vec()
}

/// The smallest key behind every key that begins with `prefix`; `prefix` holds a byte below 0xff.
pub(super) fn behind_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.last() == Some(&0xff) {
        prefix.pop();
    }
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back() {
        let mut out = Vec::new();
        let values = [
            0,
            1,
            0x7f,
            0x80,
            0x3fff,
            0x4000,
            u64::from(u32::MAX),
            u64::MAX,
        ];
        for value in values {
            put_varint(&mut out, value);
        }
        let mut reader = Reader(&out);
        for value in values {
            assert_eq!(reader.varint(), Some(value));
        }
        assert!(reader.is_empty());
        assert_eq!(reader.varint(), None);
    }

    #[test]
    fn the_key_behind_a_prefix_is_behind_all_that_begin_with_it() {
        assert_eq!(behind_prefix(vec![0, 1]), [0, 2]);
        assert_eq!(behind_prefix(vec![0, 0xff, 0xff]), [1]);
    }
}
