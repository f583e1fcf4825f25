//! The index row of a block: where it lies, and which of its records are messages.

use crate::ids::GroupId;
use crate::ports::{EntryLocation, LogPosition};
use crate::record::{RecordSpan, Records, Tag, records};
use crate::time::Timestamp;

use super::bits::Bits;
use super::codec::{Reader, put_varint};

const VERSION: u8 = 1;

/// Most sequences of one block that no record stands for: gaps of a mirror.
pub(crate) const MAX_GAPS: u32 = 16_384;

/// What the index knows about one block.
///
/// The block itself holds what was proposed. Records that were duplicates or refused have no
/// sequence; the others have sequences in a row from `first_seq` on, whether or not they are still
/// there. In a mirror the sequences that the origin has lost lie between them, as removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Sequence of the first record that got one.
    pub(super) first_seq: u64,
    /// Where the entry lies; `None` for a block kept in memory.
    pub(super) at: Option<EntryLocation>,
    /// Index of the entry in the log of the group.
    pub(super) index: u64,
    /// Records in the block.
    pub(super) records: u32,
    /// Records that got a sequence.
    pub(super) seqs: u32,
    /// Messages still there.
    pub(super) live: u32,
    /// Bytes they count for in stream limits.
    pub(super) live_bytes: u64,
    /// Time of the first sequence; no message of the block is older.
    pub(super) first_time: Timestamp,
    /// Time of the last sequence.
    pub(super) last_time: Timestamp,
    /// Records without a sequence, counted from the first record of the block.
    pub(super) skipped: Bits,
    /// Sequences without a message, counted from `first_seq`.
    pub(super) removed: Bits,
    /// Sequences that no record stands for, while the block is applied.
    pub(super) gaps: u32,
}

impl Block {
    /// The sequence behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.first_seq + u64::from(self.seqs)
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.first_seq <= seq && seq < self.end()
    }

    /// Place of a sequence of this block among its sequences.
    pub(super) fn ordinal(&self, seq: u64) -> u32 {
        debug_assert!(self.contains(seq));
        (seq - self.first_seq) as u32
    }

    pub(super) fn is_live(&self, seq: u64) -> bool {
        self.contains(seq) && !self.removed.contains(self.ordinal(seq))
    }

    /// The first message at or after `from`.
    pub(super) fn next_live(&self, from: u64) -> Option<u64> {
        let from = from.max(self.first_seq);
        if from >= self.end() {
            return None;
        }
        let ordinal = self.removed.next_absent(self.ordinal(from), self.seqs)?;
        Some(self.first_seq + u64::from(ordinal))
    }

    /// How many messages lie at or after `from`.
    pub(super) fn live_from(&self, from: u64) -> u64 {
        if from <= self.first_seq {
            return u64::from(self.live);
        }
        if from >= self.end() {
            return 0;
        }
        let ordinal = self.ordinal(from);
        let live_below = ordinal - self.removed.count_below(ordinal);
        u64::from(self.live.saturating_sub(live_below))
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, seq: u64, size: u64) {
        let ordinal = self.ordinal(seq);
        if self.removed.insert(ordinal) {
            self.live = self.live.saturating_sub(1);
            self.live_bytes = self.live_bytes.saturating_sub(size);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.skipped.heap_bytes() + self.removed.heap_bytes()
    }

    pub(super) fn key(group: GroupId, first_seq: u64) -> Vec<u8> {
        let mut key = Vec::with_capacity(16);
        key.extend_from_slice(&group.0.to_be_bytes());
        key.extend_from_slice(&first_seq.to_be_bytes());
        key
    }

    /// The first sequence in the key of a row of `group`.
    pub(super) fn first_seq_of(group: GroupId, key: &[u8]) -> Option<u64> {
        let rest = key.strip_prefix(group.0.to_be_bytes().as_slice())?;
        Some(u64::from_be_bytes(rest.try_into().ok()?))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        match self.at {
            None => out.push(0),
            Some(at) => {
                out.push(1);
                put_varint(&mut out, at.position.segment);
                put_varint(&mut out, u64::from(at.position.offset));
                put_varint(&mut out, u64::from(at.len));
            }
        }
        put_varint(&mut out, self.index);
        put_varint(&mut out, u64::from(self.records));
        put_varint(&mut out, u64::from(self.seqs));
        put_varint(&mut out, u64::from(self.live));
        put_varint(&mut out, self.live_bytes);
        out.extend_from_slice(&self.first_time.0.to_le_bytes());
        put_varint(&mut out, self.last_time.0.abs_diff(self.first_time.0));
        self.skipped.encode(&mut out);
        self.removed.encode(&mut out);
        out
    }

    pub(super) fn decode(first_seq: u64, value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        if reader.u8()? != VERSION {
            return None;
        }
        let at = match reader.u8()? {
            0 => None,
            _ => Some(EntryLocation {
                position: LogPosition {
                    segment: reader.varint()?,
                    offset: reader.varint_u32()?,
                },
                len: reader.varint_u32()?,
            }),
        };
        let index = reader.varint()?;
        let records = reader.varint_u32()?;
        let seqs = reader.varint_u32()?;
        let live = reader.varint_u32()?;
        let live_bytes = reader.varint()?;
        let first_time = reader.i64()?;
        let last_time = first_time.checked_add_unsigned(reader.varint()?)?;
        let skipped = Bits::decode(&mut reader, records)?;
        let removed = Bits::decode(&mut reader, seqs)?;
        let is_too_long = seqs > records.saturating_add(MAX_GAPS);
        if live > seqs
            || live > records
            || is_too_long
            || first_seq.checked_add(u64::from(seqs)).is_none()
        {
            return None;
        }
        Some(Self {
            first_seq,
            at,
            index,
            records,
            seqs,
            live,
            live_bytes,
            first_time: Timestamp(first_time),
            last_time: Timestamp(last_time),
            skipped,
            removed,
            gaps: 0,
        })
    }

    /// The records of `bytes` that have sequences, in order; `None` when `bytes` is not the block
    /// this row is about. Times never go down, also where the proposer's clock did.
    pub(super) fn spans(&self, bytes: &[u8]) -> Option<Vec<RecordSpan>> {
        // No more than the bytes can hold, whatever the row says.
        let mut spans = Vec::with_capacity((self.seqs as usize).min(bytes.len() / 8));
        let mut walk = Walk::new(self, records(bytes)?);
        if walk.records.declared() != self.records {
            return None;
        }
        while let Some((ordinal, span)) = walk.step().ok()? {
            while spans.len() < ordinal as usize {
                spans.push(RecordSpan::nothing(span.time));
            }
            spans.push(span);
        }
        let is_whole = walk.place.passed == self.records && walk.place.seqs == self.seqs;
        is_whole.then_some(spans)
    }
}

/// Goes through the records of a block that have sequences.
pub(super) struct Walk<'a> {
    block: &'a Block,
    pub(super) records: Records<'a>,
    pub(super) place: Place,
}

/// How far a walk is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Records of the block before it.
    passed: u32,
    /// Sequences of the block before it.
    pub(super) seqs: u32,
    /// Time of the last of them.
    time: Timestamp,
}

/// A record is not where the row of its block says.
#[derive(Debug)]
pub(super) struct Misplaced;

impl<'a> Walk<'a> {
    /// Through the whole block.
    pub(super) fn new(block: &'a Block, records: Records<'a>) -> Self {
        let place = Place {
            passed: 0,
            seqs: 0,
            time: block.first_time,
        };
        Self::at(block, records, place)
    }

    /// From a place on, at which `records` begins.
    pub(super) fn at(block: &'a Block, records: Records<'a>, place: Place) -> Self {
        Self {
            block,
            records,
            place,
        }
    }

    /// The next record that has a sequence, and how many of the block come before that.
    #[inline]
    pub(super) fn step(&mut self) -> Result<Option<(u32, RecordSpan)>, Misplaced> {
        while let Some(mut span) = self.records.next() {
            self.place.passed += 1;
            if self.block.skipped.contains(self.place.passed - 1) {
                continue;
            }
            self.place.time = self.place.time.max(span.time);
            span.time = self.place.time;
            let mut ordinal = self.place.seqs;
            if let Tag::Mirror { seq, .. } = self.records.tag() {
                let before = seq.checked_sub(self.block.first_seq).ok_or(Misplaced)?;
                if before >= u64::from(self.block.seqs) {
                    return Err(Misplaced);
                }
                ordinal = ordinal.max(before as u32);
            }
            self.place.seqs = ordinal + 1;
            return Ok(Some((ordinal, span)));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        let mut block = Block {
            first_seq: 41,
            at: Some(EntryLocation {
                position: LogPosition {
                    segment: 3,
                    offset: 4096,
                },
                len: 70_000,
            }),
            index: 9,
            records: 12,
            seqs: 10,
            live: 10,
            live_bytes: 1000,
            first_time: Timestamp(1_700_000_000_000_000_000),
            last_time: Timestamp(1_700_000_000_000_000_900),
            ..Block::default()
        };
        block.skipped.insert(0);
        block.skipped.insert(5);
        block
    }

    #[test]
    fn a_row_comes_back() {
        let mut block = block();
        block.remove(43, 100);
        assert_eq!(Block::decode(41, &block.encode()), Some(block.clone()));
        block.at = None;
        assert_eq!(Block::decode(41, &block.encode()), Some(block));
    }

    #[test]
    fn a_cut_row_is_no_row() {
        let value = block().encode();
        for cut in 0..value.len() {
            assert_eq!(Block::decode(41, &value[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn removed_messages_are_passed_over() {
        let mut block = block();
        for seq in [41, 42, 45, 50] {
            block.remove(seq, 100);
        }
        assert_eq!((block.live, block.live_bytes), (6, 600));
        assert_eq!(block.next_live(1), Some(43));
        assert_eq!(block.next_live(45), Some(46));
        assert_eq!(block.next_live(50), None);
        assert_eq!(block.live_from(0), 6);
        assert_eq!(block.live_from(46), 4);
        assert_eq!(block.live_from(51), 0);
    }
}
