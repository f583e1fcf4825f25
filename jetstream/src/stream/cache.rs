//! Recently used blocks, shared by all streams of an engine.
//!
//! A slot holds the index row of a block, decoded, and, once somebody read a message of it, its
//! bytes with the place of every message. Where single messages were read, how to read the next one
//! without all of them ([`Pieces`]) stays when the bytes go. Rows are changed in their slot and
//! written to the store from there, so a slot is never older than the store.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::ids::{GroupId, StreamSeq};
use crate::record::{RecordSpan, StoredMessage};

use super::block::Block;
use super::pieces::Pieces;

/// Bound of a cache made with [`BlockCache::default`].
pub const DEFAULT_CACHE_BYTES: usize = 64 << 20;

/// What a slot costs besides its bytes, its place in the index included.
const SLOT_BYTES: usize = size_of::<Slot>() + 40;

/// One part in so many of the bound is for rows and pieces, even where others want it for bytes.
const ROWS_SHARE: usize = 4;

/// A block is read whole when this many times its bytes were read of it in pieces: what is wanted
/// often comes back into memory, and what was read in vain is bounded.
const PATIENCE: u32 = 8;

/// Number of a slot; good until the next insertion unless the slot is pinned.
pub(super) type SlotId = usize;

/// A slot as it was once; tells whether it still is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    slot: u32,
    generation: u32,
}

/// Blocks in memory, bounded in bytes; those not used for longest go first, their bytes before
/// their rows: a row takes much less room, and tells where the bytes are.
#[derive(Debug)]
pub struct BlockCache {
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    index: BTreeMap<(GroupId, u64), SlotId>,
    bytes: usize,
    /// What of it is not the bytes of messages.
    row_bytes: usize,
    limit: usize,
    /// Where the search for a slot to drop goes on.
    hand: usize,
    generation: u32,
}

#[derive(Debug)]
struct Slot {
    group: GroupId,
    /// Zero for a slot that holds nothing.
    generation: u32,
    /// Used since the hand came by.
    hot: bool,
    /// Holds changes that the store does not have.
    pinned: bool,
    cost: Cost,
    block: Block,
    data: Option<Data>,
    /// Empty when pieces of the block are of no use.
    pieces: Option<Pieces>,
    /// Bytes read in pieces since the block was last read whole.
    in_pieces: u32,
}

/// Bytes a slot counts for.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    row: usize,
    data: usize,
}

#[derive(Debug)]
struct Data {
    bytes: Bytes,
    /// One per sequence of the block.
    spans: Vec<RecordSpan>,
}

impl Default for BlockCache {
    fn default() -> Self {
        Self::new(DEFAULT_CACHE_BYTES)
    }
}

impl BlockCache {
    /// An empty cache that holds about `limit` bytes. It goes beyond that only for blocks that are
    /// being changed.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: BTreeMap::new(),
            bytes: 0,
            row_bytes: 0,
            limit,
            hand: 0,
            generation: 0,
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the bound, and drops what is beyond it.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink(None);
    }

    /// Drops everything of a group.
    pub(super) fn forget_group(&mut self, group: GroupId) {
        let gone: Vec<_> = self
            .index
            .range((group, 0)..=(group, u64::MAX))
            .map(|(_, slot)| *slot)
            .collect();
        for slot in gone {
            self.drop_slot(slot);
        }
    }

    pub(super) fn cursor(&self, slot: SlotId) -> Cursor {
        let generation = self.slots[slot].generation;
        Cursor {
            slot: u32::try_from(slot).expect("fewer slots than 2^32"),
            generation,
        }
    }

    /// The slot a cursor points to, when it still holds the same block.
    pub(super) fn at_cursor(&self, cursor: Cursor) -> Option<SlotId> {
        let slot = self.slots.get(cursor.slot as usize)?;
        (slot.generation == cursor.generation && cursor.generation != 0)
            .then_some(cursor.slot as usize)
    }

    /// The cached block of `group` that begins at or before `seq`, nearest to it.
    pub(super) fn at_or_before(&self, group: GroupId, seq: u64) -> Option<SlotId> {
        self.index
            .range((group, 0)..=(group, seq))
            .next_back()
            .map(|(_, slot)| *slot)
    }

    /// The first cached block of `group` that begins at or after `seq`.
    pub(super) fn at_or_after(&self, group: GroupId, seq: u64) -> Option<SlotId> {
        self.index
            .range((group, seq)..=(group, u64::MAX))
            .next()
            .map(|(_, slot)| *slot)
    }

    pub(super) fn exact(&self, group: GroupId, first_seq: u64) -> Option<SlotId> {
        self.index.get(&(group, first_seq)).copied()
    }

    pub(super) fn block(&self, slot: SlotId) -> &Block {
        &self.slots[slot].block
    }

    /// The row, to be changed; the caller sees to it that the store gets it.
    pub(super) fn block_mut(&mut self, slot: SlotId) -> &mut Block {
        &mut self.slots[slot].block
    }

    /// Marks a slot as used.
    pub(super) fn touch(&mut self, slot: SlotId) {
        self.slots[slot].hot = true;
    }

    /// Keeps a slot from being dropped; false when it was pinned already.
    pub(super) fn pin(&mut self, slot: SlotId) -> bool {
        !std::mem::replace(&mut self.slots[slot].pinned, true)
    }

    /// Undoes [`Self::pin`] and accounts for what the slot has grown by.
    pub(super) fn unpin(&mut self, slot: SlotId) {
        self.slots[slot].pinned = false;
        self.slots[slot].hot = true;
        self.account(slot);
        self.shrink(Some(slot));
    }

    pub(super) fn has_data(&self, slot: SlotId) -> bool {
        self.slots[slot].data.is_some()
    }

    /// Bytes and places of the messages of a slot, when they were attached.
    pub(super) fn data(&self, slot: SlotId) -> Option<(&Bytes, &[RecordSpan])> {
        self.slots[slot]
            .data
            .as_ref()
            .map(|data| (&data.bytes, data.spans.as_slice()))
    }

    /// The message at a sequence of a slot that has its data.
    pub(super) fn message(&self, slot: SlotId, seq: u64) -> Option<StoredMessage> {
        let slot = &self.slots[slot];
        let data = slot.data.as_ref()?;
        let span = *data.spans.get(slot.block.ordinal(seq) as usize)?;
        Some(StoredMessage {
            seq: StreamSeq(seq),
            block: data.bytes.clone(),
            span,
        })
    }

    /// The bytes of a block to read for one message of it, when nothing but its row is here. `None`
    /// when the whole block is better: it has no pieces, or much of it was read in pieces already.
    pub(super) fn piece(&mut self, slot: SlotId, seq: u64) -> Option<Range<u32>> {
        let slot = &mut self.slots[slot];
        let pieces = slot.pieces.as_ref().filter(|_| slot.data.is_none())?;
        let range = pieces.range(slot.block.ordinal(seq))?;
        let len = slot.block.at.map_or(0, |at| at.len);
        if slot.in_pieces / PATIENCE >= len {
            return None;
        }
        slot.in_pieces = slot.in_pieces.saturating_add(range.end - range.start);
        Some(range)
    }

    /// The message at a sequence, out of the bytes of its [`BlockCache::piece`]. When they are not
    /// what they were, no more pieces of the block are read.
    pub(super) fn message_of_piece(
        &mut self,
        slot: SlotId,
        seq: u64,
        bytes: Option<Bytes>,
    ) -> Option<StoredMessage> {
        let read = &mut self.slots[slot];
        let pieces = read.pieces.as_ref()?;
        let found = bytes.and_then(|bytes| pieces.message(&read.block, seq, bytes));
        if found.is_none() {
            read.pieces = Some(Pieces::default());
            self.account(slot);
        }
        found
    }

    /// Divides a block that has its bytes into pieces, if that was not tried before and they may
    /// take room.
    pub(super) fn divide(&mut self, slot: SlotId) {
        if self.row_bytes > self.limit / ROWS_SHARE {
            return;
        }
        let divided = &mut self.slots[slot];
        if let (Some(data), None) = (&divided.data, &divided.pieces) {
            divided.pieces = Some(Pieces::of(&divided.block, &data.bytes));
            self.account(slot);
            self.shrink(Some(slot));
        }
    }

    /// Forgets all bytes that can be read again, and no rows.
    #[cfg(test)]
    pub(super) fn forget_bytes(&mut self) {
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if !slot.pinned && slot.data.take().is_some() {
                self.account(at);
            }
        }
    }

    /// Gives a slot its bytes.
    pub(super) fn attach(&mut self, slot: SlotId, bytes: Bytes, spans: Vec<RecordSpan>) {
        self.slots[slot].data = Some(Data { bytes, spans });
        self.slots[slot].in_pieces = 0;
        self.slots[slot].hot = true;
        self.account(slot);
        self.shrink(Some(slot));
    }

    /// Adds the place of one more sequence to a slot that is being filled.
    pub(super) fn push_span(&mut self, slot: SlotId, span: RecordSpan) {
        if let Some(data) = &mut self.slots[slot].data {
            data.spans.push(span);
        }
    }

    /// Puts a block in.
    pub(super) fn insert(&mut self, group: GroupId, block: Block) -> SlotId {
        debug_assert!(self.exact(group, block.first_seq).is_none());
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let key = (group, block.first_seq);
        let new = Slot {
            group,
            generation: self.generation,
            hot: true,
            pinned: false,
            cost: Cost::default(),
            block,
            data: None,
            pieces: None,
            in_pieces: 0,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = new;
                slot
            }
            None => {
                self.slots.push(new);
                self.slots.len() - 1
            }
        };
        self.index.insert(key, slot);
        self.account(slot);
        self.shrink(Some(slot));
        slot
    }

    /// Takes a block out.
    pub(super) fn drop_slot(&mut self, slot: SlotId) {
        let gone = &mut self.slots[slot];
        self.index.remove(&(gone.group, gone.block.first_seq));
        self.bytes -= gone.cost.row + gone.cost.data;
        self.row_bytes -= gone.cost.row;
        *gone = Slot {
            group: GroupId(0),
            generation: 0,
            hot: false,
            pinned: false,
            cost: Cost::default(),
            block: Block::default(),
            data: None,
            pieces: None,
            in_pieces: 0,
        };
        self.free.push(slot);
    }

    fn account(&mut self, slot: SlotId) {
        let slot = &mut self.slots[slot];
        let data = slot.data.as_ref().map_or(0, |data| {
            data.bytes.len() + data.spans.capacity() * size_of::<RecordSpan>()
        });
        let cost = Cost {
            row: SLOT_BYTES
                + slot.block.heap_bytes()
                + slot.pieces.as_ref().map_or(0, Pieces::heap_bytes),
            data,
        };
        self.row_bytes = self.row_bytes - slot.cost.row + cost.row;
        self.bytes = self.bytes - slot.cost.row - slot.cost.data + cost.row + cost.data;
        slot.cost = cost;
    }

    /// Drops what is cold until the bound holds; `keep` and pinned slots stay.
    fn shrink(&mut self, keep: Option<SlotId>) {
        // Three rounds: one to cool everything down, one to find what stayed cold, and one for the
        // rows of what was dropped.
        let mut steps = self.slots.len() * 3;
        while self.bytes > self.limit && steps > 0 {
            steps -= 1;
            self.hand = if self.hand + 1 < self.slots.len() {
                self.hand + 1
            } else {
                0
            };
            let at = self.hand;
            let may_lose_row = self.row_bytes > self.limit / ROWS_SHARE;
            let slot = &mut self.slots[at];
            if slot.generation == 0 || slot.pinned || Some(at) == keep {
                continue;
            }
            if std::mem::take(&mut slot.hot) {
                continue;
            }
            if may_lose_row {
                self.drop_slot(at);
            } else if slot.data.take().is_some() {
                self.account(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(first_seq: u64) -> Block {
        Block {
            first_seq,
            records: 10,
            seqs: 10,
            live: 10,
            ..Block::default()
        }
    }

    #[test]
    fn the_bound_holds_and_pinned_blocks_stay() {
        let mut cache = BlockCache::new(SLOT_BYTES * 4);
        let pinned = cache.insert(GroupId(16), block(1));
        assert!(cache.pin(pinned));
        for n in 1..100 {
            cache.insert(GroupId(16), block(1 + n * 10));
            assert!(cache.bytes() <= SLOT_BYTES * 4);
        }
        assert_eq!(cache.exact(GroupId(16), 1), Some(pinned));
        assert_eq!(cache.exact(GroupId(16), 11), None);
    }

    #[test]
    fn bytes_go_before_the_rows_that_tell_where_they_are() {
        let mut cache = BlockCache::new(100 << 10);
        for n in 0..40 {
            let slot = cache.insert(GroupId(16), block(1 + n * 10));
            cache.attach(slot, Bytes::from(vec![0; 10 << 10]), Vec::new());
            assert!(cache.bytes() <= 100 << 10);
        }
        let slots: Vec<_> = (0..40)
            .filter_map(|n| cache.exact(GroupId(16), 1 + n * 10))
            .collect();
        assert_eq!(slots.len(), 40, "all rows are there");
        let with_bytes = slots.iter().filter(|slot| cache.has_data(**slot)).count();
        assert!((5..10).contains(&with_bytes), "{with_bytes}");
        // They count as well.
        for n in 40..400 {
            cache.insert(GroupId(16), block(1 + n * 10));
            assert!(cache.bytes() <= 100 << 10);
        }
        for slot in cache.index.values().copied().collect::<Vec<_>>() {
            cache.drop_slot(slot);
        }
        assert_eq!((cache.bytes, cache.row_bytes), (0, 0));
    }

    #[test]
    fn a_cursor_knows_that_its_slot_was_given_to_another_block() {
        let mut cache = BlockCache::default();
        let slot = cache.insert(GroupId(16), block(1));
        let cursor = cache.cursor(slot);
        assert_eq!(cache.at_cursor(cursor), Some(slot));
        cache.drop_slot(slot);
        assert_eq!(cache.at_cursor(cursor), None);
        assert_eq!(cache.insert(GroupId(17), block(1)), slot);
        assert_eq!(cache.at_cursor(cursor), None);
    }

    #[test]
    fn groups_do_not_see_each_other() {
        let mut cache = BlockCache::default();
        cache.insert(GroupId(16), block(1));
        let other = cache.insert(GroupId(17), block(5));
        assert_eq!(cache.at_or_before(GroupId(17), 4), None);
        assert_eq!(cache.at_or_after(GroupId(16), 2), None);
        cache.forget_group(GroupId(16));
        assert_eq!(cache.at_or_before(GroupId(17), 9), Some(other));
        assert_eq!(cache.at_or_before(GroupId(16), 9), None);
    }
}
