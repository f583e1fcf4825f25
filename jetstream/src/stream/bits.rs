//! A set of small numbers: which records or sequences of a block are meant.

use super::codec::{Reader, put_varint};

/// A set of numbers, kept as a bitmap that grows with its largest member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn contains(&self, number: u32) -> bool {
        let word = self.words.get(number as usize / 64).copied().unwrap_or(0);
        word >> (number % 64) & 1 == 1
    }

    /// Adds a number; false when it was there.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let at = number as usize / 64;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let bit = 1 << (number % 64);
        let new = self.words[at] & bit == 0;
        self.words[at] |= bit;
        new
    }

    /// The first number from `from` on, below `end`, that is not in the set.
    pub(super) fn next_absent(&self, from: u32, end: u32) -> Option<u32> {
        let mut number = from;
        while number < end {
            let Some(word) = self.words.get(number as usize / 64) else {
                return Some(number);
            };
            let rest = !word >> (number % 64);
            if rest != 0 {
                let found = number + rest.trailing_zeros();
                return (found < end).then_some(found);
            }
            number = (number / 64 + 1) * 64;
        }
        None
    }

    /// How many numbers below `end` are in the set.
    pub(super) fn count_below(&self, end: u32) -> u32 {
        let whole = (end as usize / 64).min(self.words.len());
        let mut count = self.words[..whole]
            .iter()
            .map(|word| word.count_ones())
            .sum();
        if let Some(word) = self.words.get(end as usize / 64) {
            count += (word & ((1 << (end % 64)) - 1)).count_ones();
        }
        count
    }

    /// Bytes of memory held.
    pub(super) fn heap_bytes(&self) -> usize {
        self.words.capacity() * 8
    }

    /// Appends the set: the number of full words it begins with, then the others.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let full = self
            .words
            .iter()
            .take_while(|word| **word == u64::MAX)
            .count();
        put_varint(out, full as u64);
        put_varint(out, (self.words.len() - full) as u64);
        for word in &self.words[full..] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads a set whose members lie below `end`.
    pub(super) fn decode(reader: &mut Reader<'_>, end: u32) -> Option<Self> {
        let full = usize::try_from(reader.varint()?).ok()?;
        let rest = usize::try_from(reader.varint()?).ok()?;
        if full.checked_add(rest)? > (end as usize).div_ceil(64) {
            return None;
        }
        let mut words = vec![u64::MAX; full];
        for _ in 0..rest {
            words.push(u64::from_le_bytes(reader.array()?));
        }
        Some(Self { words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set(numbers in proptest::collection::btree_set(0u32..400, 0..300), from in 0u32..400) {
            let mut bits = Bits::default();
            for number in &numbers {
                prop_assert!(bits.insert(*number));
                prop_assert!(!bits.insert(*number));
            }
            for number in 0..500 {
                prop_assert_eq!(bits.contains(number), numbers.contains(&number));
            }
            let absent = (from..400).find(|n| !numbers.contains(n));
            prop_assert_eq!(bits.next_absent(from, 400), absent);
            prop_assert_eq!(bits.count_below(from) as usize, numbers.range(..from).count());
            let mut out = Vec::new();
            bits.encode(&mut out);
            prop_assert_eq!(Bits::decode(&mut Reader(&out), 400), Some(bits));
        }
    }

    #[test]
    fn a_set_with_a_long_beginning_is_short() {
        let mut bits = Bits::default();
        let members: BTreeSet<u32> = (0..1000).collect();
        for member in members {
            bits.insert(member);
        }
        let mut out = Vec::new();
        bits.encode(&mut out);
        assert!(out.len() < 12, "{} bytes", out.len());
    }

    #[test]
    fn a_row_cannot_ask_for_more_than_its_block_has() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX / 2);
        put_varint(&mut out, 0);
        assert_eq!(Bits::decode(&mut Reader(&out), 500), None);
    }
}
