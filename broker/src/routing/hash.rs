//! A fast keyed hash for short byte strings that strangers choose.
//!
//! Subjects and sids come from clients, so tables over them must not be fillable with colliding
//! keys. The hash folds 16 bytes at a time through a 64 by 64 to 128 bit multiplication, keyed with
//! numbers drawn once per process; it is a few nanoseconds for a usual subject. It is no
//! cryptographic hash, and its values mean nothing outside this process.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// Key of every table of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashKey {
    first: u64,
    second: u64,
}

impl HashKey {
    /// The key drawn when the process first asked.
    pub(crate) fn of_process() -> Self {
        static KEY: OnceLock<HashKey> = OnceLock::new();
        *KEY.get_or_init(|| Self {
            first: RandomState::new().hash_one(1_u8) | 1,
            second: RandomState::new().hash_one(2_u8) | 1,
        })
    }

    /// Hash of `bytes`.
    #[inline]
    pub(crate) fn hash(self, bytes: &[u8]) -> u64 {
        let mut state = self.first ^ (bytes.len() as u64).wrapping_mul(self.second);
        let mut rest = bytes;
        while rest.len() > 16
            && let Some((block, tail)) = rest.split_first_chunk::<16>()
        {
            let (low, high) = ends(block);
            state = fold(state ^ low, self.second ^ high);
            rest = tail;
        }
        // Behind whole blocks the last 16 bytes count, some of them twice.
        let (low, high) = match bytes.last_chunk::<16>() {
            Some(last) => ends(last),
            None => ends(rest),
        };
        state = fold(state ^ low, self.second ^ high);
        fold(state, self.first)
    }
}

/// At most 16 bytes as two words that overlap where there are fewer. Whole words are read, never
/// byte by byte into memory and out again: that stalls the processor.
#[inline]
fn ends(bytes: &[u8]) -> (u64, u64) {
    if let (Some(low), Some(high)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return (u64::from_le_bytes(*low), u64::from_le_bytes(*high));
    }
    if let (Some(low), Some(high)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return (
            u32::from_le_bytes(*low).into(),
            u32::from_le_bytes(*high).into(),
        );
    }
    match bytes {
        [] => (0, 0),
        [one] => (u64::from(*one), 0),
        [one, two] => (u64::from(*one), u64::from(*two)),
        [one, two, three, ..] => (u64::from(*one) | u64::from(*two) << 8, u64::from(*three)),
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "both halves of the product are used"
)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Builds the hashers of tables whose keys are byte strings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BytesHash(HashKey);

impl Default for BytesHash {
    fn default() -> Self {
        Self(HashKey::of_process())
    }
}

impl BuildHasher for BytesHash {
    type Hasher = BytesHasher;

    fn build_hasher(&self) -> BytesHasher {
        BytesHasher {
            key: self.0,
            state: 0,
        }
    }
}

/// See [`BytesHash`].
#[derive(Debug)]
pub(crate) struct BytesHasher {
    key: HashKey,
    state: u64,
}

impl Hasher for BytesHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.state = self.state.rotate_left(5) ^ self.key.hash(bytes);
    }

    fn write_usize(&mut self, _length: usize) {
        // The length prefix of a slice: `hash` mixes the length in already.
    }

    fn write_u64(&mut self, number: u64) {
        self.state = fold(self.state ^ number ^ self.key.first, self.key.second);
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn different_subjects_hash_differently() {
        let key = HashKey::of_process();
        let hashes: HashSet<u64> = (0..100_000)
            .map(|n| key.hash(format!("_INBOX.abc.{n}").as_bytes()))
            .collect();
        assert_eq!(hashes.len(), 100_000);
    }

    #[test]
    fn a_trailing_zero_byte_counts() {
        let key = HashKey::of_process();
        assert_ne!(key.hash(b"a"), key.hash(b"a\0"));
        assert_ne!(key.hash(b""), key.hash(b"\0"));
    }
}
