//! One operation on a stream: the rows it has in its hands until it is done.
//!
//! Rows of subjects are read once, changed in memory and written by [`Edit::finish`]; rows of blocks
//! are changed in their cache slots, which are pinned until then. What disappears is deleted from
//! the transaction at once, so that a search through the transaction never meets it; only the block
//! being applied has no rows there before the end.

use bytes::Bytes;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::StreamSeq;
use crate::ports::{EntryLocation, Seek, StoreError, StoreErrorKind, Table};
use crate::record::RecordSpan;
use crate::time::Timestamp;

use super::block::{Block, MAX_GAPS};
use super::cache::SlotId;
use super::codec::{corrupt, group_end, group_start, less};
use super::counters::Counters;
use super::hashed::HashedMap;
use super::remove::Room;
use super::rows::Rows;
use super::runs::Runs;
use super::subject::{SubjectRow, listed_subject, listed_subjects, read_seqs, seek_seqs, seq_key};
use super::{Context, NEVER, Removed, Stream, few_in_tests};

/// Changed blocks kept before their rows are written.
const MAX_DIRTY_BLOCKS: usize = few_in_tests(1024);

/// Rows of one subject kept before they are written.
const MAX_SUBJECT_ROWS: usize = few_in_tests(64);

/// Subjects kept before they are written.
const MAX_SUBJECTS: usize = few_in_tests(16_384);

/// The rows one operation works on.
pub(super) struct Edit<'e, 'a, 's> {
    pub(super) stream: &'e mut Stream,
    pub(super) cx: &'e mut Context<'a, 's>,
    pub(super) removed: &'e mut Vec<Removed>,
    subjects: Vec<SubjectEdit>,
    by_hash: HashedMap<u64, usize>,
    dirty: Vec<SlotId>,
    /// The block being applied.
    pub(super) open: Option<Open>,
    /// How many messages may go because there are more than the limits allow: all, unless they were
    /// lowered.
    pub(super) room: Room,
}

/// The block being applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) slot: SlotId,
    pub(super) first_seq: u64,
}

/// A subject in hand.
#[derive(Debug)]
struct SubjectEdit {
    subject: Bytes,
    row: SubjectRow,
    /// Whether the store has a row.
    stored: bool,
    changed: bool,
    /// The last message was removed; `row.last` has to be looked up.
    stale_last: bool,
    rows: SmallVec<[RowEdit; 1]>,
    /// Another subject with the same hash.
    same_hash: Option<usize>,
}

/// The sequences of a subject in one block.
#[derive(Debug)]
struct RowEdit {
    block_first: u64,
    runs: Runs,
    stored: bool,
    changed: bool,
}

impl<'e, 'a, 's> Edit<'e, 'a, 's> {
    pub(super) fn new(
        stream: &'e mut Stream,
        cx: &'e mut Context<'a, 's>,
        removed: &'e mut Vec<Removed>,
    ) -> Self {
        let room = if stream.is_beyond_limits() {
            Room::of(0)
        } else {
            Room::all()
        };
        Self {
            stream,
            cx,
            removed,
            subjects: Vec::new(),
            by_hash: HashedMap::default(),
            dirty: Vec::new(),
            open: None,
            room,
        }
    }

    /// Begins with a block whose first sequence will be the next one.
    pub(super) fn open_block(
        &mut self,
        at: Option<EntryLocation>,
        index: u64,
        records: u32,
        bytes: &Bytes,
    ) {
        let first_seq = self.stream.counters.last + 1;
        let block = Block {
            first_seq,
            at,
            index,
            records,
            ..Block::default()
        };
        let slot = self.cx.cache.insert(self.stream.group, block);
        self.cx.cache.pin(slot);
        self.cx.cache.attach(
            slot,
            bytes.clone(),
            Vec::with_capacity(room_for(records, bytes)),
        );
        self.open = Some(Open { slot, first_seq });
    }

    /// Makes `seq` the next sequence of the open block; those before it have no message. False when
    /// there are too many of them for one block.
    pub(super) fn jump_to(&mut self, seq: u64, time: Timestamp) -> bool {
        let Some(open) = self.open else { return false };
        let gap = seq.saturating_sub(self.stream.counters.last + 1);
        if gap == 0 {
            return true;
        }
        let block = self.cx.cache.block_mut(open.slot);
        if block.seqs == 0 {
            let bytes = self
                .cx
                .cache
                .data(open.slot)
                .map(|(bytes, _)| bytes.clone());
            let mut block = self.cx.cache.block(open.slot).clone();
            self.cx.cache.drop_slot(open.slot);
            block.first_seq = seq;
            let slot = self.cx.cache.insert(self.stream.group, block);
            self.cx.cache.pin(slot);
            if let Some(bytes) = bytes {
                self.cx.cache.attach(slot, bytes, Vec::new());
            }
            self.open = Some(Open {
                slot,
                first_seq: seq,
            });
        } else {
            let Some(gaps) = u32::try_from(gap)
                .ok()
                .filter(|gap| block.gaps.saturating_add(*gap) <= MAX_GAPS)
            else {
                return false;
            };
            block.gaps += gaps;
            for _ in 0..gaps {
                block.removed.insert(block.seqs);
                block.seqs += 1;
            }
            for _ in 0..gaps {
                self.cx
                    .cache
                    .push_span(open.slot, RecordSpan::nothing(time));
            }
        }
        let counters = &mut self.stream.counters;
        counters.last = seq - 1;
        if counters.messages == 0 {
            counters.first = seq;
        }
        true
    }

    /// Gives the next record of the open block a sequence, without a message.
    pub(super) fn skip(&mut self, open: Open, span: RecordSpan) -> u64 {
        let seq = self.take_seq(open, span);
        let block = self.cx.cache.block_mut(open.slot);
        block.removed.insert(block.seqs - 1);
        if self.stream.counters.messages == 0 {
            self.stream.counters.first = seq + 1;
        }
        seq
    }

    /// Makes the next record of the open block a message.
    pub(super) fn store(
        &mut self,
        open: Open,
        span: RecordSpan,
        subject: usize,
        size: u64,
    ) -> Result<u64, StoreError> {
        let at = self.row_of(subject, open.first_seq)?;
        let seq = self.take_seq(open, span);
        let block = self.cx.cache.block_mut(open.slot);
        block.live += 1;
        block.live_bytes += size;

        let edit = &mut self.subjects[subject];
        let row = &mut edit.rows[at];
        row.runs.push(seq, size);
        row.changed = true;
        edit.changed = true;
        edit.stale_last = false;
        if edit.row.count == 0 {
            edit.row.first_block = open.first_seq;
            self.stream.counters.subjects += 1;
        }
        edit.row.count += 1;
        edit.row.last = seq;
        edit.row.last_block = open.first_seq;

        self.stream.oldest = self.stream.oldest.min(span.time);
        let counters = &mut self.stream.counters;
        if counters.messages == 0 {
            counters.first = seq;
            self.stream.first_time.set(Some(span.time));
        }
        counters.messages += 1;
        counters.bytes += size;
        Ok(seq)
    }

    fn take_seq(&mut self, open: Open, span: RecordSpan) -> u64 {
        let counters = &mut self.stream.counters;
        counters.last += 1;
        counters.last_time = span.time;
        let block = self.cx.cache.block_mut(open.slot);
        if block.seqs == 0 {
            block.first_time = span.time;
        }
        block.last_time = span.time;
        block.seqs += 1;
        self.cx.cache.push_span(open.slot, span);
        counters.last
    }

    /// The number of a subject in this edit; `within` is the block its name lies in.
    pub(super) fn subject(&mut self, within: &Bytes, subject: &[u8]) -> Result<usize, StoreError> {
        if let Some(last) = self.subjects.last()
            && *last.subject == *subject
        {
            return Ok(self.subjects.len() - 1);
        }
        let hash = xxh3_64(subject);
        let known = self.by_hash.get(&hash).copied();
        let mut at = known;
        while let Some(number) = at {
            if *self.subjects[number].subject == *subject {
                return Ok(number);
            }
            at = self.subjects[number].same_hash;
        }
        let row = match self.stream.recent.get(hash, subject) {
            Some(row) => Some(row),
            None => SubjectRow::read(Rows::Txn(self.cx.txn), self.stream.group, subject)?,
        };
        let number = self.subjects.len();
        self.subjects.push(SubjectEdit {
            subject: within.slice_ref(subject),
            stored: row.is_some(),
            row: row.unwrap_or_default(),
            changed: false,
            stale_last: false,
            rows: SmallVec::new(),
            same_hash: known,
        });
        self.by_hash.insert(hash, number);
        Ok(number)
    }

    pub(super) fn subject_name(&self, subject: usize) -> &Bytes {
        &self.subjects[subject].subject
    }

    pub(super) fn subject_count(&self, subject: usize) -> u64 {
        self.subjects[subject].row.count
    }

    /// The last sequence of a subject, 0 for none.
    pub(super) fn subject_last(&mut self, subject: usize) -> Result<u64, StoreError> {
        let edit = &self.subjects[subject];
        if edit.row.count == 0 {
            return Ok(0);
        }
        if !edit.stale_last {
            return Ok(edit.row.last);
        }
        let mut before = u64::MAX;
        let mut found = None;
        if let Some(open) = self.open {
            before = open.first_seq - 1;
            found = edit
                .rows
                .iter()
                .find(|row| row.block_first == open.first_seq)
                .and_then(|row| Some((open.first_seq, row.runs.last()?)));
        }
        if found.is_none() {
            let row = seek_seqs(
                Rows::Txn(self.cx.txn),
                self.stream.group,
                &edit.subject,
                before,
                Seek::AtOrBefore,
            )?;
            if let Some((block_first, _)) = row {
                let at = self.row_of(subject, block_first)?;
                let last = self.subjects[subject].rows[at].runs.last();
                found = last.map(|last| (block_first, last));
            }
        }
        let Some((block_first, last)) = found else {
            return Err(self.lost(subject));
        };
        let edit = &mut self.subjects[subject];
        edit.row.last = last;
        edit.row.last_block = block_first;
        edit.row.first_block = edit.row.first_block.min(block_first);
        edit.stale_last = false;
        Ok(last)
    }

    /// The first sequence of a subject and the block it lies in.
    pub(super) fn subject_first(
        &mut self,
        subject: usize,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let edit = &self.subjects[subject];
        if edit.row.count == 0 {
            return Ok(None);
        }
        if edit.row.count == 1 && !edit.stale_last {
            return Ok(Some((edit.row.last, edit.row.last_block)));
        }
        // Mostly the first block is the one that was first before.
        let hint = edit.row.first_block;
        if let Some(at) = self.find_row(subject, hint)?
            && let Some(first) = self.subjects[subject].rows[at].runs.first()
        {
            return Ok(Some((first, hint)));
        }
        let found = seek_seqs(
            Rows::Txn(self.cx.txn),
            self.stream.group,
            &self.subjects[subject].subject,
            hint + 1,
            Seek::AtOrAfter,
        )?;
        let block_first = match (found, self.open) {
            (Some((block_first, _)), _) => block_first,
            (None, Some(open)) => open.first_seq,
            (None, None) => return Err(self.lost(subject)),
        };
        let at = self.row_of(subject, block_first)?;
        let edit = &mut self.subjects[subject];
        match edit.rows[at].runs.first() {
            Some(first) => {
                edit.row.first_block = block_first;
                Ok(Some((first, block_first)))
            }
            None => Err(self.lost(subject)),
        }
    }

    /// The row of a subject for a block that has one, as a place in its list.
    fn row_of(&mut self, subject: usize, block_first: u64) -> Result<usize, StoreError> {
        match self.find_row(subject, block_first)? {
            Some(at) => Ok(at),
            None => Err(self.lost(subject)),
        }
    }

    /// The row of a subject for a block, if there is one; for the open block there always is.
    fn find_row(&mut self, subject: usize, block_first: u64) -> Result<Option<usize>, StoreError> {
        let edit = &self.subjects[subject];
        if let Some(at) = edit
            .rows
            .iter()
            .rposition(|row| row.block_first == block_first)
        {
            return Ok(Some(at));
        }
        if edit.rows.len() >= MAX_SUBJECT_ROWS {
            self.write_rows(subject);
            let open = self.open.map(|open| open.first_seq);
            self.subjects[subject]
                .rows
                .retain(|row| Some(row.block_first) == open);
        }
        let is_open = self.open.is_some_and(|open| open.first_seq == block_first);
        let edit = &mut self.subjects[subject];
        let runs = if is_open {
            None
        } else {
            read_seqs(
                Rows::Txn(self.cx.txn),
                self.stream.group,
                &edit.subject,
                block_first,
            )?
        };
        if runs.is_none() && !is_open {
            return Ok(None);
        }
        edit.rows.push(RowEdit {
            block_first,
            stored: runs.is_some(),
            runs: runs.unwrap_or_default(),
            changed: false,
        });
        Ok(Some(edit.rows.len() - 1))
    }

    /// Bytes that a listed message counts for.
    pub(super) fn size_of(
        &mut self,
        subject: usize,
        seq: u64,
        block_first: u64,
    ) -> Result<u64, StoreError> {
        let at = self.row_of(subject, block_first)?;
        match self.subjects[subject].rows[at].runs.size_of(seq) {
            Some(size) => Ok(size),
            None => Err(self.lost(subject)),
        }
    }

    fn lost(&self, subject: usize) -> StoreError {
        let edit = &self.subjects[subject];
        corrupt(
            self.stream.group,
            format_args!(
                "sequences of subject {:?} are not listed",
                String::from_utf8_lossy(&edit.subject)
            ),
        )
    }

    /// Deletes a row of a subject that ran empty.
    fn drop_row(&mut self, subject: usize, at: usize) {
        let edit = &mut self.subjects[subject];
        let row = &edit.rows[at];
        if self
            .open
            .is_some_and(|open| open.first_seq == row.block_first)
        {
            return;
        }
        let key = seq_key(self.stream.group, &edit.subject, row.block_first);
        self.cx.txn.delete(Table::SubjectSeq, key);
        if edit.row.first_block == row.block_first {
            edit.row.first_block += 1;
        }
        edit.rows.swap_remove(at);
    }

    /// Takes a message out. `slot` may be gone afterwards.
    pub(super) fn take(
        &mut self,
        slot: SlotId,
        subject: usize,
        seq: u64,
        report: bool,
    ) -> Result<(), StoreError> {
        let at = self.row_of(subject, self.cx.cache.block(slot).first_seq)?;
        let edit = &mut self.subjects[subject];
        let row = &mut edit.rows[at];
        let Some(size) = row.runs.remove(seq) else {
            return Err(self.lost(subject));
        };
        row.changed = true;
        if row.runs.is_empty() {
            self.drop_row(subject, at);
        }
        self.count_down(subject, 1, seq)?;
        self.take_from_block(slot, seq, 1, size)?;
        if report {
            let subject = self.subjects[subject].subject.clone();
            self.removed.push(Removed::Message {
                seq: StreamSeq(seq),
                subject,
            });
        }
        if seq == self.stream.counters.first {
            self.refresh_first()?;
        }
        Ok(())
    }

    /// Accounts for `count` messages of a subject that are gone, the last of them `last`.
    fn count_down(&mut self, subject: usize, count: u64, last: u64) -> Result<(), StoreError> {
        let group = self.stream.group;
        let edit = &mut self.subjects[subject];
        edit.changed = true;
        less(&mut edit.row.count, count, group)?;
        if edit.row.count == 0 {
            less(&mut self.stream.counters.subjects, 1, group)?;
            edit.stale_last = false;
        } else if last >= edit.row.last {
            edit.stale_last = true;
        } else if edit.row.count == 1 && !edit.stale_last {
            edit.row.first_block = edit.row.last_block;
        }
        Ok(())
    }

    /// Clears messages of equal size out of a block and the counters.
    fn take_from_block(
        &mut self,
        slot: SlotId,
        first: u64,
        count: u64,
        size: u64,
    ) -> Result<(), StoreError> {
        let block = self.cx.cache.block_mut(slot);
        for seq in first..first + count {
            block.remove(seq, size);
        }
        self.less_messages(count, size.saturating_mul(count))?;
        if self.cx.cache.block(slot).live == 0 {
            self.drop_block(slot);
        } else {
            self.mark_dirty(slot);
        }
        Ok(())
    }

    fn less_messages(&mut self, count: u64, bytes: u64) -> Result<(), StoreError> {
        let group = self.stream.group;
        less(&mut self.stream.counters.messages, count, group)?;
        less(&mut self.stream.counters.bytes, bytes, group)
    }

    fn mark_dirty(&mut self, slot: SlotId) {
        if self.cx.cache.pin(slot) {
            self.dirty.push(slot);
        }
    }

    /// Deletes the row of a block without messages; the open one is dealt with at the end.
    fn drop_block(&mut self, slot: SlotId) {
        if self.open.is_some_and(|open| open.slot == slot) {
            return;
        }
        let block = self.cx.cache.block(slot);
        let first_seq = block.first_seq;
        match block.at {
            Some(at) => self.cx.segments.release(at.position.segment),
            None => drop(self.stream.memory.remove(&first_seq)),
        }
        self.cx
            .txn
            .delete(Table::Block, Block::key(self.stream.group, first_seq));
        self.cx.cache.drop_slot(slot);
        self.dirty.retain(|dirty| *dirty != slot);
    }

    /// Finds the first message again after the one that was first is gone.
    pub(super) fn refresh_first(&mut self) -> Result<(), StoreError> {
        let counters = &self.stream.counters;
        if counters.messages == 0 {
            self.stream.counters.first = counters.last + 1;
            self.stream.first_time.set(None);
            self.stream.oldest = NEVER;
            return Ok(());
        }
        let from = counters.first;
        let found = self
            .stream
            .next_live(Rows::Txn(self.cx.txn), self.cx.cache, from)?;
        let Some((slot, seq)) = found else {
            return Err(corrupt(
                self.stream.group,
                "messages are counted but not listed",
            ));
        };
        if seq == from {
            return Ok(());
        }
        let block = self.cx.cache.block(slot);
        let time = self
            .cx
            .cache
            .data(slot)
            .and_then(|(_, spans)| spans.get(block.ordinal(seq) as usize))
            .map(|span| span.time);
        self.stream.first_time.set(time);
        // With times to live the first message may be one that never grows too old.
        if !self.stream.limits.ttl {
            self.stream.oldest = time.unwrap_or(block.first_time);
        }
        self.stream.counters.first = seq;
        Ok(())
    }

    /// Takes the first message out to make room.
    pub(super) fn evict_first(&mut self) -> Result<(), StoreError> {
        self.bound_memory();
        let first = self.stream.counters.first;
        let slot = self.slot_at(first)?;
        let subject = self.subject_at(slot, first)?;
        self.take(slot, subject, first, true)
    }

    /// The slot of the block of an existing message.
    pub(super) fn slot_at(&mut self, seq: u64) -> Result<SlotId, StoreError> {
        let found = self
            .stream
            .locate(Rows::Txn(self.cx.txn), self.cx.cache, seq)?;
        match found {
            Some(slot) if self.cx.cache.block(slot).contains(seq) => Ok(slot),
            _ => Err(corrupt(
                self.stream.group,
                format_args!("sequence {seq} is in no block"),
            )),
        }
    }

    /// The slot of the block that begins at `first_seq`.
    pub(super) fn slot_of(&mut self, first_seq: u64) -> Result<SlotId, StoreError> {
        self.stream
            .slot_of(Rows::Txn(self.cx.txn), self.cx.cache, first_seq)
    }

    /// The subject of a message, without reading its block where there is only one subject.
    pub(super) fn subject_at(&mut self, slot: SlotId, seq: u64) -> Result<usize, StoreError> {
        if self.stream.counters.subjects == 1
            && let Some(subject) = self.sole_subject()?
        {
            return Ok(subject);
        }
        match self.stream.load_data(self.cx.log, self.cx.cache, slot) {
            Ok(()) => {}
            Err(error) if error.kind == StoreErrorKind::Corrupt => {
                let block_first = self.cx.cache.block(slot).first_seq;
                return self.listed_subject(block_first, seq);
            }
            Err(error) => return Err(error),
        }
        let ordinal = self.cx.cache.block(slot).ordinal(seq) as usize;
        let Some((bytes, span)) = self
            .cx
            .cache
            .data(slot)
            .and_then(|(b, s)| Some((b.clone(), *s.get(ordinal)?)))
        else {
            return Err(corrupt(
                self.stream.group,
                format_args!("sequence {seq} is in no block"),
            ));
        };
        self.subject(&bytes, span.subject(&bytes))
    }

    /// The only subject of the stream.
    fn sole_subject(&mut self) -> Result<Option<usize>, StoreError> {
        if let Some(at) = self.subjects.iter().rposition(|edit| edit.row.count > 0) {
            return Ok(Some(at));
        }
        if let Some(name) = self.stream.recent.sole() {
            let name = Bytes::copy_from_slice(name);
            let at = self.subject(&name, &name)?;
            if self.subjects[at].row.count > 0 {
                return Ok(Some(at));
            }
        }
        let group = self.stream.group;
        let mut names = Vec::new();
        self.cx.txn.scan(
            Table::Subject,
            &group_start(group),
            &group_end(group),
            &mut |key, _| {
                names.push(Bytes::copy_from_slice(&key[8..]));
                true
            },
        )?;
        for name in names {
            let at = self.subject(&name, &name)?;
            if self.subjects[at].row.count > 0 {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The subject of a message out of the index alone, for a block that cannot be read.
    fn listed_subject(&mut self, block_first: u64, seq: u64) -> Result<usize, StoreError> {
        let rows = Rows::Txn(self.cx.txn);
        match listed_subject(rows, self.stream.group, block_first, seq)? {
            Some(name) => self.subject(&name, &name),
            None => Err(corrupt(
                self.stream.group,
                format_args!("sequence {seq} has no subject"),
            )),
        }
    }

    /// Takes out messages of a subject below a sequence, as long as there is room; returns how many,
    /// and whether that was all of them.
    pub(super) fn purge_subject(
        &mut self,
        subject: usize,
        below: u64,
        report: bool,
        room: &mut Room,
    ) -> Result<(u64, bool), StoreError> {
        let mut purged = 0;
        let mut is_over = true;
        while let Some((first, block_first)) = self.subject_first(subject)?
            && first < below
        {
            if room.is_used_up() && purged > 0 {
                is_over = false;
                break;
            }
            self.bound_memory();
            let at = self.row_of(subject, block_first)?;
            let slot = self.slot_of(block_first)?;
            let row = &mut self.subjects[subject].rows[at];
            let mut gone = SmallVec::<[_; 8]>::new();
            while let Some(run) = row.runs.take_run_below(below) {
                gone.push(run);
            }
            row.changed = true;
            if row.runs.is_empty() {
                self.drop_row(subject, at);
            }
            let left = gone.len();
            for (at, run) in gone.into_iter().enumerate() {
                let count = u64::from(run.len);
                purged += count;
                room.take(count);
                self.count_down(subject, count, run.start + count - 1)?;
                debug_assert!(at + 1 == left || self.cx.cache.block(slot).live > 0);
                self.take_from_block(slot, run.start, count, run.size)?;
                if report {
                    let subject = &self.subjects[subject].subject;
                    self.removed
                        .extend((run.start..run.start + count).map(|seq| Removed::Message {
                            seq: StreamSeq(seq),
                            subject: subject.clone(),
                        }));
                }
            }
        }
        if purged > 0 {
            self.refresh_first()?;
        }
        Ok((purged, is_over))
    }

    /// Takes out messages below a sequence that is not above the last one, as long as there is room;
    /// block by block where it can.
    pub(super) fn purge_below(&mut self, below: u64, room: &mut Room) -> Result<u64, StoreError> {
        let before = self.stream.counters.messages;
        let mut reached = below;
        while self.stream.counters.messages > 0 && self.stream.counters.first < below {
            let first = self.stream.counters.first;
            if room.is_used_up() {
                reached = first;
                break;
            }
            let slot = self.slot_at(first)?;
            room.take(u64::from(self.cx.cache.block(slot).live));
            let is_open = self.open.is_some_and(|open| open.slot == slot);
            if self.cx.cache.block(slot).end() <= below && !is_open {
                self.take_block(slot)?;
            } else {
                // The last block touched: what lies above stays.
                let mut seq = first;
                while seq < below && self.stream.counters.messages > 0 {
                    let subject = self.subject_at(slot, seq)?;
                    self.take(slot, subject, seq, false)?;
                    seq = self.stream.counters.first;
                }
                break;
            }
            if self.subjects.len() > MAX_SUBJECTS && self.open.is_none() {
                self.let_go_of_subjects()?;
            }
        }
        let purged = before - self.stream.counters.messages;
        if purged > 0 {
            self.removed.push(Removed::Below(StreamSeq(reached)));
        }
        Ok(purged)
    }

    /// Takes out a whole block.
    pub(super) fn take_block(&mut self, slot: SlotId) -> Result<(), StoreError> {
        let (block_first, end, live, live_bytes) = {
            let block = self.cx.cache.block(slot);
            (
                block.first_seq,
                block.end(),
                u64::from(block.live),
                block.live_bytes,
            )
        };
        // Reading a block may drop others from the cache, never this one.
        for subject in self.subjects_of(slot)? {
            let at = self.row_of(subject, block_first)?;
            let count = self.subjects[subject].rows[at].runs.count();
            self.drop_row(subject, at);
            self.count_down(subject, count, end - 1)?;
        }
        self.less_messages(live, live_bytes)?;
        self.drop_block(slot);
        if self.stream.counters.first < end {
            self.refresh_first()?;
        }
        Ok(())
    }

    /// The subjects of the messages of a block, each once.
    fn subjects_of(&mut self, slot: SlotId) -> Result<Vec<usize>, StoreError> {
        if self.stream.counters.subjects == 1
            && let Some(subject) = self.sole_subject()?
        {
            return Ok(vec![subject]);
        }
        let mut subjects = Vec::new();
        match self.stream.load_data(self.cx.log, self.cx.cache, slot) {
            Ok(()) => {}
            Err(error) if error.kind == StoreErrorKind::Corrupt => {
                let block_first = self.cx.cache.block(slot).first_seq;
                let rows = Rows::Txn(self.cx.txn);
                for name in listed_subjects(rows, self.stream.group, block_first, |_| true)? {
                    subjects.push(self.subject(&name, &name)?);
                }
                return Ok(subjects);
            }
            Err(error) => return Err(error),
        }
        let block = self.cx.cache.block(slot).clone();
        let Some((bytes, spans)) = self
            .cx
            .cache
            .data(slot)
            .map(|(bytes, spans)| (bytes.clone(), spans.to_vec()))
        else {
            return Ok(subjects);
        };
        let mut from = block.first_seq;
        while let Some(seq) = block.next_live(from) {
            let subject = spans[block.ordinal(seq) as usize].subject(&bytes);
            // Messages of one subject often come in a row.
            let again = subjects
                .last()
                .is_some_and(|last: &usize| *self.subjects[*last].subject == *subject);
            if !again {
                subjects.push(self.subject(&bytes, subject)?);
            }
            from = seq + 1;
        }
        subjects.sort_unstable();
        subjects.dedup();
        Ok(subjects)
    }

    /// Writes the rows of a subject's blocks.
    fn write_rows(&mut self, subject: usize) {
        let edit = &mut self.subjects[subject];
        for row in edit.rows.iter_mut().filter(|row| row.changed) {
            row.changed = false;
            let key = seq_key(self.stream.group, &edit.subject, row.block_first);
            if row.runs.is_empty() {
                if row.stored {
                    self.cx.txn.delete(Table::SubjectSeq, key);
                }
                row.stored = false;
            } else {
                let mut value = Vec::with_capacity(16);
                row.runs.encode(row.block_first, &mut value);
                self.cx.txn.put(Table::SubjectSeq, key, value);
                row.stored = true;
            }
        }
    }

    /// Writes everything known of the subjects in hand.
    pub(super) fn write_subjects(&mut self) -> Result<(), StoreError> {
        for subject in 0..self.subjects.len() {
            if !self.subjects[subject].changed {
                continue;
            }
            self.subject_last(subject)?;
            self.write_rows(subject);
            let edit = &mut self.subjects[subject];
            edit.changed = false;
            let key = SubjectRow::key(self.stream.group, &edit.subject);
            if edit.row.count > 0 {
                self.cx.txn.put(Table::Subject, key, edit.row.encode());
                edit.stored = true;
            } else if edit.stored {
                self.cx.txn.delete(Table::Subject, key);
                edit.stored = false;
            }
            let hash = xxh3_64(&edit.subject);
            self.stream.recent.set(hash, &edit.subject, edit.row);
        }
        Ok(())
    }

    /// Writes the subjects in hand and forgets them, to begin with others.
    pub(super) fn let_go_of_subjects(&mut self) -> Result<(), StoreError> {
        debug_assert!(self.open.is_none());
        self.write_subjects()?;
        self.subjects.clear();
        self.by_hash.clear();
        self.write_blocks();
        Ok(())
    }

    /// Writes changed blocks when there are many. Slots that are not open may go.
    pub(super) fn bound_memory(&mut self) {
        if self.dirty.len() > MAX_DIRTY_BLOCKS {
            self.write_blocks();
        }
    }

    fn write_blocks(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            let block = self.cx.cache.block(slot);
            let key = Block::key(self.stream.group, block.first_seq);
            self.cx.txn.put(Table::Block, key, block.encode());
            self.cx.cache.unpin(slot);
        }
    }

    /// Forgets every subject and block in hand, for a purge of everything.
    pub(super) fn forget(&mut self) {
        debug_assert!(self.open.is_none());
        self.subjects.clear();
        self.by_hash.clear();
        self.dirty.clear();
        self.stream.recent.clear();
        self.stream.memory.clear();
        self.cx.cache.forget_group(self.stream.group);
    }

    /// Writes everything.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.write_subjects()?;
        if let Some(open) = self.open.take() {
            self.close_block(open);
        }
        self.write_blocks();
        let group = self.stream.group;
        if let Some(dedup) = &mut self.stream.dedup {
            dedup.flush(self.cx.txn, group);
        }
        self.cx.txn.put(
            Table::Meta,
            Counters::key(group),
            self.stream.counters.encode(),
        );
        Ok(())
    }

    fn close_block(&mut self, open: Open) {
        let block = self.cx.cache.block(open.slot);
        if block.live == 0 {
            self.cx.cache.drop_slot(open.slot);
            return;
        }
        match block.at {
            Some(at) => self.cx.segments.add(at.position.segment),
            None => {
                if let Some((bytes, _)) = self.cx.cache.data(open.slot) {
                    self.stream.memory.insert(open.first_seq, bytes.clone());
                }
            }
        }
        let block = self.cx.cache.block(open.slot);
        let key = Block::key(self.stream.group, open.first_seq);
        self.cx.txn.put(Table::Block, key, block.encode());
        self.cx.cache.unpin(open.slot);
    }
}

/// How many records to expect of a block that says it has `declared`.
pub(super) fn room_for(declared: u32, block: &[u8]) -> usize {
    // A record takes more than eight bytes.
    (declared as usize).min(block.len() / 8)
}
