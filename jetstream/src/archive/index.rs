//! What the reference server notes beside its message blocks: which of their messages are gone, and
//! how far consumers are.
//!
//! ```text
//! <n>.idx    until 2.9    22 1 | msgs bytes first seq, time, last seq, time, deleted | checksum 8
//!                         | deleted sequences less the first
//! index.db   from 2.10    11 version | totals | subjects | blocks, each with its deleted sequences
//!                         | checksum 8
//! o.dat                   22 version | ack floor, delivered | what is pending
//! ```
//!
//! Numbers are varints; those of times have their sign in the lowest bit. An index that is not
//! understood is no index: the blocks are then read as if nothing of them were gone.

use std::collections::BTreeSet;

const INDEX_START: [u8; 2] = [22, 1];
const FULL_STATE: u8 = 11;
const NEWEST_FULL_STATE: u8 = 4;
const CONSUMER_STATE: u8 = 22;
const SEQUENCE_SET: u8 = 22;
const CHECKSUM: usize = 8;
/// Words of a node of a set of sequences, by the version of the set.
const WORDS: [usize; 2] = [64, 32];

/// Which messages are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Everything below.
    pub below: u64,
    /// These.
    pub sequences: BTreeSet<u64>,
    /// The last sequence the index knows of.
    pub last: u64,
}

impl Gone {
    /// Whether a message is gone.
    #[must_use]
    pub fn has(&self, seq: u64) -> bool {
        seq < self.below || self.sequences.contains(&seq)
    }
}

/// How far a consumer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerPosition {
    /// Up to here everything is settled: deliveries, and messages of the stream.
    pub ack_floor: (u64, u64),
    /// Up to here everything was handed out.
    pub delivered: (u64, u64),
    /// Handed out and not settled.
    pub pending: u64,
}

struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn next(&mut self) -> Option<u64> {
        super::varint(&mut self.0).ok().flatten()
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.next()?).ok()
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.next().map(drop))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Reads `<n>.idx`, the index of one block.
#[must_use]
pub fn block_index(bytes: &[u8]) -> Option<Gone> {
    let mut numbers = Numbers(bytes.strip_prefix(&INDEX_START)?);
    let messages = numbers.next()?;
    numbers.next()?;
    let below = numbers.next()?;
    numbers.next()?;
    let last = numbers.next()?;
    numbers.next()?;
    let deleted = numbers.next()?;
    numbers.take(CHECKSUM)?;
    // As the server itself: numbers that do not add up are not believed.
    let span = last.checked_add(1)?.checked_sub(below)?;
    if span.checked_sub(deleted)? != messages {
        return None;
    }
    let mut sequences = BTreeSet::new();
    for _ in 0..deleted {
        sequences.insert(below.checked_add(numbers.next()?)?);
    }
    Some(Gone {
        below,
        sequences,
        last,
    })
}

/// Reads `index.db`, the index of all blocks.
#[must_use]
pub fn stream_index(bytes: &[u8]) -> Option<Gone> {
    let (body, _) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    let [magic, version, rest @ ..] = body else {
        return None;
    };
    if *magic != FULL_STATE || !(1..=NEWEST_FULL_STATE).contains(version) {
        return None;
    }
    let mut numbers = Numbers(rest);
    numbers.skip(2)?;
    let below = numbers.next()?;
    numbers.next()?;
    let last = numbers.next()?;
    numbers.next()?;
    for _ in 0..numbers.count()? {
        let len = numbers.count()?;
        if len > 0 {
            numbers.take(len)?;
            let total = numbers.next()?;
            numbers.next()?;
            if total > 1 || *version >= 4 {
                numbers.next()?;
            }
        }
    }
    let mut sequences = BTreeSet::new();
    for _ in 0..numbers.count()? {
        numbers.skip(6)?;
        let deleted = numbers.next()?;
        // Messages with a time to live, and scheduled ones.
        numbers.skip(usize::from(version.saturating_sub(1).min(2)))?;
        if deleted > 0 {
            read_set(&mut numbers, &mut sequences)?;
        }
    }
    Some(Gone {
        below,
        sequences,
        last,
    })
}

/// Reads a set of sequences: nodes of bits.
fn read_set(numbers: &mut Numbers<'_>, out: &mut BTreeSet<u64>) -> Option<()> {
    let head = numbers.take(10)?;
    let (magic, version) = (head[0], usize::from(head[1]));
    if magic != SEQUENCE_SET {
        return None;
    }
    let words = *WORDS.get(version.checked_sub(1)?)?;
    let nodes = u32::from_le_bytes(head[2..6].try_into().ok()?);
    for _ in 0..nodes {
        let node = numbers.take(words * 8 + 10)?;
        let (base, bits) = node.split_first_chunk::<8>()?;
        let base = u64::from_le_bytes(*base);
        for (word, bytes) in (0u64..).zip(bits.chunks_exact(8).take(words)) {
            let mut bits = u64::from_le_bytes(bytes.try_into().ok()?);
            while bits != 0 {
                let bit = u64::from(bits.trailing_zeros());
                out.insert(base.checked_add(word * 64 + bit)?);
                bits &= bits - 1;
            }
        }
    }
    Some(())
}

/// Reads `o.dat`.
#[must_use]
pub fn consumer_position(bytes: &[u8]) -> Option<ConsumerPosition> {
    let [CONSUMER_STATE, version @ (1 | 2), rest @ ..] = bytes else {
        return None;
    };
    let mut numbers = Numbers(rest);
    let ack_floor = (numbers.next()?, numbers.next()?);
    let mut delivered = (numbers.next()?, numbers.next()?);
    if *version == 1 {
        // It held the next delivery, counted from the floor.
        delivered.0 = delivered.0.checked_add(ack_floor.0.saturating_sub(1))?;
        delivered.1 = delivered.1.checked_add(ack_floor.1.saturating_sub(1))?;
    }
    Some(ConsumerPosition {
        ack_floor,
        delivered,
        pending: numbers.next()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::put_varint;
    use super::*;

    fn numbers(start: &[u8], numbers: &[u64]) -> Vec<u8> {
        let mut bytes = start.to_vec();
        numbers
            .iter()
            .for_each(|number| put_varint(&mut bytes, *number));
        bytes
    }

    #[test]
    fn the_index_of_a_block_names_what_is_gone() {
        let mut bytes = numbers(&INDEX_START, &[8, 900, 11, 2, 20, 4, 2]);
        bytes.extend_from_slice(&[0; CHECKSUM]);
        bytes.extend(numbers(&[], &[1, 5]));
        let gone = block_index(&bytes).expect("an index");
        assert_eq!((gone.below, gone.last), (11, 20));
        assert!(gone.has(10) && !gone.has(11) && gone.has(12) && gone.has(16) && !gone.has(20));
    }

    #[test]
    fn an_index_that_does_not_add_up_is_none() {
        let mut bytes = numbers(&INDEX_START, &[9, 900, 11, 2, 20, 4, 2]);
        bytes.extend_from_slice(&[0; CHECKSUM]);
        assert_eq!(block_index(&bytes), None);
        assert_eq!(block_index(&bytes[..5]), None);
    }

    fn set(version: u8, base: u64, word: u64) -> Vec<u8> {
        let words = WORDS[usize::from(version) - 1];
        let mut bytes = vec![SEQUENCE_SET, version, 1, 0, 0, 0, 2, 0, 0, 0];
        bytes.extend_from_slice(&base.to_le_bytes());
        bytes.extend_from_slice(&word.to_le_bytes());
        bytes.resize(bytes.len() + (words - 1) * 8 + 2, 0);
        bytes
    }

    #[test]
    fn the_index_of_a_stream_is_read_in_every_version() {
        for version in 1..=NEWEST_FULL_STATE {
            let mut bytes = numbers(&[FULL_STATE, version], &[18, 900, 1, 2, 20, 4, 1, 3]);
            bytes.extend_from_slice(b"a.b");
            bytes.extend(numbers(&[], &[20, 1, 1]));
            bytes.extend(numbers(&[], &[1, 1, 900, 1, 0, 20, 0, 2]));
            bytes.extend(std::iter::repeat_n(
                0,
                usize::from(version.saturating_sub(1).min(2)),
            ));
            bytes.extend(set(1 + version % 2, 0, 1 << 7 | 1 << 9));
            bytes.extend(numbers(&[], &[1]));
            bytes.extend_from_slice(&[0; CHECKSUM * 2]);
            let gone = stream_index(&bytes).expect("an index");
            assert_eq!((gone.below, gone.last), (1, 20));
            assert_eq!(gone.sequences, BTreeSet::from([7, 9]));
        }
    }

    #[test]
    fn a_consumer_says_how_far_it_is() {
        let position = consumer_position(&[22, 2, 7, 5, 9, 8, 0, 0]).expect("a state");
        assert_eq!((position.ack_floor, position.delivered), ((7, 5), (9, 8)));
        let old = consumer_position(&[22, 1, 7, 5, 3, 4, 1]).expect("a state");
        assert_eq!((old.delivered, old.pending), ((9, 8), 1));
        assert_eq!(consumer_position(&[22, 3, 1, 1, 1, 1, 0]), None);
        assert_eq!(consumer_position(&[22, 2, 1]), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            version in 0u8..6,
        ) {
            for start in [&INDEX_START[..], &[FULL_STATE, version], &[22, version]] {
                let mut file = start.to_vec();
                file.extend_from_slice(&bytes);
                drop((block_index(&file), stream_index(&file), consumer_position(&file)));
            }
        }
    }
}
