//! The subject index: how many messages a subject has, and where they are.
//!
//! `Subject` has a row per subject, in the order of their names. `SubjectSeq` has a row per subject
//! and block that lists the sequences; a row without sequences does not exist.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::ids::GroupId;
use crate::ports::{Seek, StoreError, Table};

use super::codec::{Reader, behind_prefix, corrupt, group_end, group_start, put_varint};
use super::few_in_tests;
use super::filters::Filters;
use super::hashed::HashedMap;
use super::rows::Rows;
use super::runs::Runs;

/// What is known of one subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SubjectRow {
    /// Messages; a row with none does not exist.
    pub(super) count: u64,
    /// Sequence of the last one.
    pub(super) last: u64,
    /// First sequence of the block it lies in.
    pub(super) last_block: u64,
    /// No message of the subject lies in a block that begins below this.
    pub(super) first_block: u64,
}

impl SubjectRow {
    pub(super) fn key(group: GroupId, subject: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(8 + subject.len());
        key.extend_from_slice(&group.0.to_be_bytes());
        key.extend_from_slice(subject);
        key
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        put_varint(&mut out, self.count);
        put_varint(&mut out, self.last_block);
        put_varint(&mut out, self.last - self.last_block);
        put_varint(&mut out, self.last_block - self.first_block);
        out
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        let count = reader.varint()?;
        let last_block = reader.varint()?;
        let last = last_block.checked_add(reader.varint()?)?;
        let first_block = last_block.checked_sub(reader.varint()?)?;
        (count > 0).then_some(Self {
            count,
            last,
            last_block,
            first_block,
        })
    }

    pub(super) fn read(
        rows: Rows<'_>,
        group: GroupId,
        subject: &[u8],
    ) -> Result<Option<Self>, StoreError> {
        match rows.get(Table::Subject, &Self::key(group, subject))? {
            None => Ok(None),
            Some(value) => match Self::decode(&value) {
                Some(row) => Ok(Some(row)),
                None => Err(bad_subject(group, subject)),
            },
        }
    }
}

/// Rows of subjects as they are in the store, those that changed lately.
#[derive(Debug, Default)]
pub(super) struct RecentSubjects {
    /// By the hash of their names.
    rows: HashedMap<u64, (Box<[u8]>, SubjectRow)>,
}

/// Most subjects remembered of a stream: a few KiB.
const MAX_RECENT: usize = few_in_tests(128);

impl RecentSubjects {
    /// The row of a subject whose hash is `hash`, if it is remembered; it then exists.
    pub(super) fn get(&self, hash: u64, subject: &[u8]) -> Option<SubjectRow> {
        let (name, row) = self.rows.get(&hash)?;
        (**name == *subject).then_some(*row)
    }

    /// The row of a subject is this now; one without messages does not exist.
    pub(super) fn set(&mut self, hash: u64, subject: &[u8], row: SubjectRow) {
        if row.count == 0 {
            self.rows.remove(&hash);
            return;
        }
        if let Some((name, known)) = self.rows.get_mut(&hash)
            && **name == *subject
        {
            *known = row;
            return;
        }
        if self.rows.len() >= MAX_RECENT {
            self.rows.clear();
        }
        self.rows.insert(hash, (subject.into(), row));
    }

    /// The only one remembered.
    pub(super) fn sole(&self) -> Option<&[u8]> {
        let mut names = self.rows.values().map(|(name, _)| &**name);
        names.next().filter(|_| self.rows.len() == 1)
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.rows = HashedMap::default();
    }
}

pub(super) fn bad_subject(group: GroupId, subject: &[u8]) -> StoreError {
    corrupt(
        group,
        format_args!("row of subject {:?}", String::from_utf8_lossy(subject)),
    )
}

/// Key of the row that lists the sequences of a subject in a block.
pub(super) fn seq_key(group: GroupId, subject: &[u8], block_first: u64) -> Vec<u8> {
    let mut key = seq_prefix(group, subject);
    key.extend_from_slice(&block_first.to_be_bytes());
    key
}

/// What the keys of all rows of a subject begin with. The length comes first, so that no subject
/// is a beginning of another.
pub(super) fn seq_prefix(group: GroupId, subject: &[u8]) -> Vec<u8> {
    let len = u16::try_from(subject.len()).expect("a record keeps the length in 16 bits");
    let mut key = Vec::with_capacity(8 + 2 + subject.len() + 8);
    key.extend_from_slice(&group.0.to_be_bytes());
    key.extend_from_slice(&len.to_be_bytes());
    key.extend_from_slice(subject);
    key
}

/// Subject and block of a key of [`Table::SubjectSeq`].
pub(super) fn parse_seq_key(group: GroupId, key: &[u8]) -> Option<(&[u8], u64)> {
    let mut reader = Reader(key.strip_prefix(group.0.to_be_bytes().as_slice())?);
    let len = u16::from_be_bytes(reader.array()?);
    let subject = reader.bytes(usize::from(len))?;
    let block_first = u64::from_be_bytes(reader.array()?);
    reader.is_empty().then_some((subject, block_first))
}

/// The nearest row of a subject for a block at or after, or at or before, `block_first`.
pub(super) fn seek_seqs(
    rows: Rows<'_>,
    group: GroupId,
    subject: &[u8],
    block_first: u64,
    seek: Seek,
) -> Result<Option<(u64, Runs)>, StoreError> {
    let key = seq_key(group, subject, block_first);
    let prefix = &key[..key.len() - 8];
    let Some((found, value)) = rows.seek(Table::SubjectSeq, &key, seek)? else {
        return Ok(None);
    };
    let Some(tail) = found
        .strip_prefix(prefix)
        .and_then(|tail| tail.try_into().ok())
    else {
        return Ok(None);
    };
    let block_first = u64::from_be_bytes(tail);
    match Runs::decode(block_first, &value) {
        Some(runs) if !runs.is_empty() => Ok(Some((block_first, runs))),
        _ => Err(bad_subject(group, subject)),
    }
}

/// The row of a subject for one block.
pub(super) fn read_seqs(
    rows: Rows<'_>,
    group: GroupId,
    subject: &[u8],
    block_first: u64,
) -> Result<Option<Runs>, StoreError> {
    match rows.get(Table::SubjectSeq, &seq_key(group, subject, block_first))? {
        None => Ok(None),
        Some(value) => match Runs::decode(block_first, &value) {
            Some(runs) => Ok(Some(runs)),
            None => Err(bad_subject(group, subject)),
        },
    }
}

/// The subjects with a wanted row for a block, by a walk over the whole index: for blocks that
/// cannot be read.
pub(super) fn listed_subjects(
    rows: Rows<'_>,
    group: GroupId,
    block_first: u64,
    wanted: impl Fn(&Runs) -> bool,
) -> Result<Vec<Bytes>, StoreError> {
    let (from, to) = (group_start(group), group_end(group));
    let mut names = Vec::new();
    rows.scan(Table::SubjectSeq, &from, &to, &mut |key, value| {
        if let Some((name, first)) = parse_seq_key(group, key)
            && first == block_first
            && Runs::decode(first, value).is_some_and(|runs| wanted(&runs))
        {
            names.push(Bytes::copy_from_slice(name));
        }
        true
    })?;
    Ok(names)
}

/// The subject of a sequence of a block that cannot be read.
pub(super) fn listed_subject(
    rows: Rows<'_>,
    group: GroupId,
    block_first: u64,
    seq: u64,
) -> Result<Option<Bytes>, StoreError> {
    let holds = |runs: &Runs| runs.at_or_after(seq) == Some(seq);
    Ok(listed_subjects(rows, group, block_first, holds)?
        .into_iter()
        .next())
}

/// Visits every subject that matches, each once; within one filter in the order of their names.
pub(super) fn each_subject(
    rows: Rows<'_>,
    group: GroupId,
    filters: &Filters,
    visit: &mut dyn FnMut(&[u8], SubjectRow) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    if filters.is_all() {
        return scan_subjects(rows, group, b"", &|_| true, visit).map(drop);
    }
    for (at, filter) in filters.list().iter().enumerate() {
        let wanted = |subject: &[u8]| filter.matches(subject) && !filters.seen_before(at, subject);
        let flow = if filter.is_literal() {
            match SubjectRow::read(rows, group, filter.prefix())? {
                Some(row) if wanted(filter.prefix()) => visit(filter.prefix(), row),
                _ => ControlFlow::Continue(()),
            }
        } else {
            scan_subjects(rows, group, filter.prefix(), &wanted, visit)?
        };
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

fn scan_subjects(
    rows: Rows<'_>,
    group: GroupId,
    prefix: &[u8],
    wanted: &dyn Fn(&[u8]) -> bool,
    visit: &mut dyn FnMut(&[u8], SubjectRow) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let from = SubjectRow::key(group, prefix);
    let to = behind_prefix(from.clone());
    scan_range(rows, group, &from, &to, wanted, visit)
}

/// Visits subjects that match one filter and come behind `after`, in the order of their names.
pub(super) fn each_subject_after(
    rows: Rows<'_>,
    group: GroupId,
    filters: &Filters,
    after: Option<&[u8]>,
    visit: &mut dyn FnMut(&[u8], SubjectRow) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let prefix = match filters.list() {
        [filter] => filter.prefix(),
        _ => b"",
    };
    let first = SubjectRow::key(group, prefix);
    let to = behind_prefix(first.clone());
    let mut from = first;
    if let Some(after) = after {
        let mut key = SubjectRow::key(group, after);
        key.push(0);
        from = from.max(key);
    }
    scan_range(
        rows,
        group,
        &from,
        &to,
        &|subject| filters.matches(subject),
        visit,
    )
    .map(drop)
}

fn scan_range(
    rows: Rows<'_>,
    group: GroupId,
    from: &[u8],
    to: &[u8],
    wanted: &dyn Fn(&[u8]) -> bool,
    visit: &mut dyn FnMut(&[u8], SubjectRow) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let skip = group_start(group).len();
    let mut flow = ControlFlow::Continue(());
    let mut bad = None;
    rows.scan(Table::Subject, from, to, &mut |key, value| {
        let subject = &key[skip..];
        if wanted(subject) {
            match SubjectRow::decode(value) {
                Some(row) => flow = visit(subject, row),
                None => {
                    bad = Some(bad_subject(group, subject));
                    return false;
                }
            }
        }
        flow.is_continue()
    })?;
    bad.map_or(Ok(flow), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back() {
        let row = SubjectRow {
            count: 3,
            last: 900,
            last_block: 850,
            first_block: 12,
        };
        assert_eq!(SubjectRow::decode(&row.encode()), Some(row));
        assert_eq!(SubjectRow::decode(&SubjectRow::default().encode()), None);
    }

    #[test]
    fn keys_of_one_subject_are_not_mixed_with_those_of_a_longer_one() {
        let group = GroupId(16);
        let key = seq_key(group, b"a", 7);
        assert_eq!(parse_seq_key(group, &key), Some((b"a".as_slice(), 7)));
        assert_eq!(parse_seq_key(GroupId(17), &key), None);
        assert!(!seq_key(group, b"a\0\0", 7).starts_with(&seq_prefix(group, b"a")));
    }
}
