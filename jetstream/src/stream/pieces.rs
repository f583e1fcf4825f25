//! Parts of a block that can be read, and checked, without the rest of it.
//!
//! A block is read from the log whole: its checksum is over all of it. For a single message, as
//! keys looked up at random want it, most of that is in vain. So the block is divided when a single
//! message of it is wanted for the first time, and when its bytes leave the cache what remains says
//! where each piece lies and whether bytes read from there are still the same.

use std::ops::Range;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::StreamSeq;
use crate::record::{Records, StoredMessage, records};

use super::block::{Block, Place, Walk};

/// What a piece has at least, unless it is the last of its block: little enough to be read in a
/// step, and so much that pieces take less than a hundredth of the room of their blocks.
const PIECE_BYTES: usize = if cfg!(test) { 64 } else { 4 << 10 };

/// The pieces of one block.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    base: i64,
    is_tagged: bool,
    list: Box<[Piece]>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where it begins in the block.
    start: u32,
    end: u32,
    /// What comes before it.
    place: Place,
    /// Of its bytes.
    hash: u64,
}

impl Pieces {
    /// The pieces of a block with these bytes; none when it is not worth dividing, or another.
    pub(super) fn of(block: &Block, bytes: &[u8]) -> Self {
        Self::divide(block, bytes).unwrap_or_default()
    }

    fn divide(block: &Block, bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 2 * PIECE_BYTES {
            return None;
        }
        let mut walk = Walk::new(block, records(bytes)?);
        let (base, is_tagged) = (walk.records.base(), walk.records.is_tagged());
        let mut list = Vec::with_capacity(bytes.len() / PIECE_BYTES);
        let (mut start, mut place) = (walk.records.position(), walk.place);
        loop {
            let is_over = walk.step().ok()?.is_none();
            let end = walk.records.position();
            if end - start >= PIECE_BYTES || (is_over && end > start) {
                list.push(Piece {
                    start: u32::try_from(start).ok()?,
                    end: u32::try_from(end).ok()?,
                    place,
                    hash: xxh3_64(&bytes[start..end]),
                });
                (start, place) = (end, walk.place);
            }
            if is_over {
                break;
            }
        }
        (list.len() > 1).then(|| Self {
            base,
            is_tagged,
            list: list.into(),
        })
    }

    /// The piece with the sequence that has this many of the block before it.
    fn find(&self, ordinal: u32) -> Option<&Piece> {
        let behind = self
            .list
            .partition_point(|piece| piece.place.seqs <= ordinal);
        self.list.get(behind.checked_sub(1)?)
    }

    /// The bytes of the block that a sequence of it lies in; `None` when it has no pieces.
    pub(super) fn range(&self, ordinal: u32) -> Option<Range<u32>> {
        self.find(ordinal).map(|piece| piece.start..piece.end)
    }

    /// The message with a sequence, out of the bytes of [`Self::range`]; `None` when they are not
    /// what they were.
    pub(super) fn message(&self, block: &Block, seq: u64, bytes: Bytes) -> Option<StoredMessage> {
        let ordinal = block.ordinal(seq);
        let piece = self.find(ordinal)?;
        if xxh3_64(&bytes) != piece.hash {
            return None;
        }
        let records = Records::part(&bytes, self.base, self.is_tagged);
        let mut walk = Walk::at(block, records, piece.place);
        while let Some((at, span)) = walk.step().ok()? {
            if at == ordinal {
                return Some(StoredMessage {
                    seq: StreamSeq(seq),
                    block: bytes,
                    span,
                });
            }
        }
        None
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.list.len() * size_of::<Piece>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{BlockBuilder, Tag};
    use crate::time::Timestamp;

    /// Blocks as they can be: with records that got no sequence, times that go down, and in a
    /// mirror with sequences that no record stands for.
    fn built() -> impl Strategy<Value = (Block, Bytes)> {
        let record = (any::<bool>(), 0..4u64, 0..50i64, 0..200usize);
        (any::<bool>(), prop::collection::vec(record, 1..60)).prop_map(|(is_mirror, records)| {
            let base = Timestamp(1000);
            let mut builder = match is_mirror {
                true => BlockBuilder::tagged(base),
                false => BlockBuilder::new(base),
            };
            let mut block = Block {
                first_seq: 40,
                first_time: base,
                ..Block::default()
            };
            for (is_skipped, gap, late, len) in records {
                let time = Timestamp(base.0 + late);
                let (subject, payload) = (format!("s.{len}"), vec![b'x'; len]);
                if is_skipped {
                    block.skipped.insert(block.records);
                } else {
                    if is_mirror && block.seqs > 0 {
                        block.seqs += u32::try_from(gap).expect("small");
                    }
                    block.seqs += 1;
                }
                let tag = match is_mirror {
                    true => Tag::Mirror {
                        previous: 0,
                        seq: block.first_seq + u64::from(block.seqs.max(1)) - 1,
                        time,
                    },
                    false => Tag::Client,
                };
                builder.push_tagged(tag, time, subject.as_bytes(), b"", &payload);
                block.records += 1;
            }
            (block, builder.finish())
        })
    }

    proptest! {
        #[test]
        fn a_message_of_a_piece_is_the_message_of_the_block((block, bytes) in built()) {
            let spans = block.spans(&bytes).expect("the block");
            let pieces = Pieces::of(&block, &bytes);
            prop_assert!(pieces.list.is_empty() || bytes.len() >= 2 * PIECE_BYTES);
            for seq in block.first_seq..block.end() {
                let Some(range) = pieces.range(block.ordinal(seq)) else {
                    prop_assert!(pieces.list.is_empty());
                    continue;
                };
                let part = bytes.slice(range.start as usize..range.end as usize);
                let span = spans[block.ordinal(seq) as usize];
                match pieces.message(&block, seq, part.clone()) {
                    Some(found) => {
                        prop_assert_eq!(found.subject(), span.subject(&bytes));
                        prop_assert_eq!(found.payload(), span.payload(&bytes));
                        prop_assert_eq!(found.time(), span.time);
                    }
                    None => prop_assert!(span.subject(&bytes).is_empty(), "{} is lost", seq),
                }
                let mut other = part.to_vec();
                other[part.len() / 2] ^= 4;
                prop_assert!(pieces.message(&block, seq, Bytes::from(other)).is_none());
                prop_assert!(pieces.message(&block, seq, part.slice(1..)).is_none());
            }
        }
    }
}
