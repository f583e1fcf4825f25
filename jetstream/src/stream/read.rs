//! Looking things up. Nothing here changes the stream; caches and cursors move.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::ids::StreamSeq;
use crate::ports::{Seek, StoreError, StoreErrorKind, Table};
use crate::record::StoredMessage;
use crate::time::Timestamp;

use super::block::Block;
use super::cache::SlotId;
use super::codec::{corrupt, group_end, group_start};
use super::filters::{Filter, Filters};
use super::runs::Runs;
use super::subject::{SubjectRow, each_subject, listed_subject, seek_seqs, seq_key};
use super::{Stream, StreamState, View, few_in_tests};

/// Most subjects whose next messages are compared before messages are walked instead.
const MAX_JUMP_SUBJECTS: usize = few_in_tests(256);

/// Most index rows looked at to find them.
const MAX_JUMP_ROWS: usize = few_in_tests(1024);

/// Blocks walked before the index is asked again.
const BLOCKS_BETWEEN_JUMPS: usize = few_in_tests(16);

impl Stream {
    /// The message with a sequence, `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt` when the message is there and cannot be read; others can.
    pub fn message(
        &self,
        seq: StreamSeq,
        view: &mut View<'_>,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let seq = seq.0;
        if seq < self.counters.first || seq > self.counters.last {
            return Ok(None);
        }
        let Some(slot) = self.locate(view.rows, view.cache, seq)? else {
            return Ok(None);
        };
        if !view.cache.block(slot).is_live(seq) {
            return Ok(None);
        }
        self.read_alone(slot, seq, view).map(Some)
    }

    /// The subject of the message with a sequence, `None` when there is none. Known also where the
    /// message cannot be read, though slowly then.
    ///
    /// # Errors
    /// As the state store.
    pub fn subject_of(
        &self,
        seq: StreamSeq,
        view: &mut View<'_>,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.message(seq, view) {
            Ok(message) => Ok(message.map(|message| message.block.slice_ref(message.subject()))),
            Err(error) if error.kind == StoreErrorKind::Corrupt => {
                let Some(slot) = self.locate(view.rows, view.cache, seq.0)? else {
                    return Ok(None);
                };
                let block_first = view.cache.block(slot).first_seq;
                listed_subject(view.rows, self.group, block_first, seq.0)
            }
            Err(error) => Err(error),
        }
    }

    /// One message, without the rest of its block where that is known to be possible.
    fn read_alone(
        &self,
        slot: SlotId,
        seq: u64,
        view: &mut View<'_>,
    ) -> Result<StoredMessage, StoreError> {
        let Some(at) = view
            .cache
            .block(slot)
            .at
            .filter(|_| !view.cache.has_data(slot))
        else {
            return self.read(slot, seq, view);
        };
        if let Some(piece) = view.cache.piece(slot, seq) {
            let index = view.cache.block(slot).index;
            let bytes = view.log.read_part(at, self.group, index, piece)?;
            if let Some(message) = view.cache.message_of_piece(slot, seq, bytes) {
                return Ok(message);
            }
            // The whole block will tell whether it is damaged.
            let (stream, group) = (self.name(), self.group);
            tracing::warn!(stream, %group, seq, "part of a block was read wrongly, it is read again");
        }
        let message = self.read(slot, seq, view)?;
        if view.log.has_parts(at, message.block.len()) {
            view.cache.divide(slot);
        }
        Ok(message)
    }

    fn read(
        &self,
        slot: SlotId,
        seq: u64,
        view: &mut View<'_>,
    ) -> Result<StoredMessage, StoreError> {
        self.load_data(view.log, view.cache, slot)?;
        view.cache.message(slot, seq).ok_or_else(|| {
            corrupt(
                self.group,
                format_args!("sequence {seq} is not in its block"),
            )
        })
    }

    /// The first message at or after `from` whose subject matches.
    ///
    /// # Errors
    /// `Corrupt` when that message cannot be read; [`Stream::next_sequence`] tells which it is, so
    /// that the caller can go on behind it.
    pub fn next_message(
        &self,
        from: StreamSeq,
        filters: &Filters,
        view: &mut View<'_>,
    ) -> Result<Option<StoredMessage>, StoreError> {
        match self.find_next(from.0, filters, view)? {
            Some((slot, seq)) => self.read(slot, seq, view).map(Some),
            None => Ok(None),
        }
    }

    /// The sequence of the first message at or after `from` whose subject matches, whether or not
    /// the message can be read.
    ///
    /// # Errors
    /// As the state store.
    pub fn next_sequence(
        &self,
        from: StreamSeq,
        filters: &Filters,
        view: &mut View<'_>,
    ) -> Result<Option<StreamSeq>, StoreError> {
        Ok(self
            .find_next(from.0, filters, view)?
            .map(|(_, seq)| StreamSeq(seq)))
    }

    fn find_next(
        &self,
        from: u64,
        filters: &Filters,
        view: &mut View<'_>,
    ) -> Result<Option<(SlotId, u64)>, StoreError> {
        let mut from = from.max(self.counters.first);
        if filters.is_all() {
            return self.next_live(view.rows, view.cache, from);
        }
        let mut is_first = true;
        let mut blocks_until_jump = 0;
        while let Some((slot, seq)) = self.next_live(view.rows, view.cache, from)? {
            // A block at hand is walked; one that is not is worth a look at the index first.
            if blocks_until_jump == 0 && !(is_first && view.cache.has_data(slot)) {
                if self.has_only(filters, view)? {
                    return Ok(Some((slot, seq)));
                }
                match self.jump(seq, filters, MAX_JUMP_SUBJECTS, view)? {
                    Jump::To(slot, seq) => return Ok(Some((slot, seq))),
                    Jump::Nowhere => return Ok(None),
                    Jump::TooMany => blocks_until_jump = BLOCKS_BETWEEN_JUMPS,
                }
            }
            match self.walk(slot, seq, filters, view) {
                Ok(Some(seq)) => return Ok(Some((slot, seq))),
                Ok(None) => {}
                Err(error) if error.kind == StoreErrorKind::Corrupt => {
                    return self.jump(seq, filters, usize::MAX, view).map(Jump::found);
                }
                Err(error) => return Err(error),
            }
            from = view.cache.block(slot).end();
            is_first = false;
            blocks_until_jump = blocks_until_jump.saturating_sub(1);
        }
        Ok(None)
    }

    /// The first message of a block, from `seq` on, that matches.
    fn walk(
        &self,
        slot: SlotId,
        seq: u64,
        filters: &Filters,
        view: &mut View<'_>,
    ) -> Result<Option<u64>, StoreError> {
        self.load_data(view.log, view.cache, slot)?;
        let block = view.cache.block(slot);
        let Some((bytes, spans)) = view.cache.data(slot) else {
            return Ok(None);
        };
        let mut at = Some(seq);
        while let Some(seq) = at {
            let span = &spans[block.ordinal(seq) as usize];
            if filters.matches(span.subject(bytes)) {
                return Ok(Some(seq));
            }
            at = block.next_live(seq + 1);
        }
        Ok(None)
    }

    /// Finds the next match through the subject index.
    fn jump(
        &self,
        from: u64,
        filters: &Filters,
        max_subjects: usize,
        view: &mut View<'_>,
    ) -> Result<Jump, StoreError> {
        let Some(subjects) = self.subjects_from(from, filters, max_subjects, view)? else {
            return Ok(Jump::TooMany);
        };
        let mut next: Option<u64> = None;
        for (subject, row) in &subjects {
            // Cheaper than a search where the last message is the one.
            let found = match row.count {
                1 => Some(row.last),
                _ => self.next_of(subject, from, view)?,
            };
            next = match (next, found) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        let Some(seq) = next else {
            return Ok(Jump::Nowhere);
        };
        match self.locate(view.rows, view.cache, seq)? {
            Some(slot) if view.cache.block(slot).is_live(seq) => Ok(Jump::To(slot, seq)),
            _ => Err(corrupt(
                self.group,
                format_args!("sequence {seq} is listed and not stored"),
            )),
        }
    }

    /// Matching subjects that have messages at or after `from`, unless there are too many.
    fn subjects_from(
        &self,
        from: u64,
        filters: &Filters,
        max: usize,
        view: &View<'_>,
    ) -> Result<Option<Vec<NamedRow>>, StoreError> {
        let mut subjects = Vec::new();
        let mut seen = 0usize;
        let mut too_many = false;
        each_subject(view.rows, self.group, filters, &mut |subject, row| {
            seen += 1;
            if row.last >= from {
                subjects.push((subject.to_vec(), row));
            }
            too_many = subjects.len() > max || (max < usize::MAX && seen > MAX_JUMP_ROWS);
            if too_many {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok((!too_many).then_some(subjects))
    }

    /// The first sequence of a subject at or after `from`.
    fn next_of(
        &self,
        subject: &[u8],
        from: u64,
        view: &View<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let before = seek_seqs(view.rows, self.group, subject, from, Seek::AtOrBefore)?;
        if let Some(seq) = before.and_then(|(_, runs)| runs.at_or_after(from)) {
            return Ok(Some(seq));
        }
        let after = seek_seqs(view.rows, self.group, subject, from + 1, Seek::AtOrAfter)?;
        Ok(after.and_then(|(_, runs)| runs.first()))
    }

    /// The last message whose subject matches.
    ///
    /// # Errors
    /// As [`Stream::message`].
    pub fn last_for_subject(
        &self,
        filters: &Filters,
        view: &mut View<'_>,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let last = self.last_sequence_for(filters, view)?;
        self.message(last, view)
    }

    /// The sequence of the last message whose subject matches, 0 for none.
    ///
    /// # Errors
    /// As the state store.
    pub fn last_sequence_for(
        &self,
        filters: &Filters,
        view: &mut View<'_>,
    ) -> Result<StreamSeq, StoreError> {
        let mut last = 0;
        if filters.is_all() {
            return self.last_message_sequence(view);
        }
        each_subject(view.rows, self.group, filters, &mut |_, row| {
            last = last.max(row.last);
            ControlFlow::Continue(())
        })?;
        Ok(StreamSeq(last))
    }

    /// The sequence of the last message that is there, 0 for none.
    fn last_message_sequence(&self, view: &mut View<'_>) -> Result<StreamSeq, StoreError> {
        if self.counters.messages == 0 {
            return Ok(StreamSeq(0));
        }
        let key = Block::key(self.group, u64::MAX);
        let found = view.rows.seek(Table::Block, &key, Seek::AtOrBefore)?;
        let Some(first_seq) = found.and_then(|(key, _)| Block::first_seq_of(self.group, &key))
        else {
            return Ok(StreamSeq(0));
        };
        let slot = self.slot_of(view.rows, view.cache, first_seq)?;
        let block = view.cache.block(slot);
        let last = (block.first_seq..block.end())
            .rev()
            .find(|seq| block.is_live(*seq));
        Ok(StreamSeq(last.unwrap_or(0)))
    }

    /// The last message of every matching subject, as sequences in rising order; with `up_to`, the
    /// last one at or below it. Stops once it has found `limit` of them.
    ///
    /// # Errors
    /// As the state store.
    pub fn last_per_subject(
        &self,
        filters: &Filters,
        up_to: Option<StreamSeq>,
        limit: usize,
        view: &mut View<'_>,
    ) -> Result<Vec<StreamSeq>, StoreError> {
        let up_to = up_to.map_or(u64::MAX, |seq| seq.0);
        let mut last = Vec::new();
        let mut older = Vec::new();
        each_subject(view.rows, self.group, filters, &mut |subject, row| {
            if row.last <= up_to {
                last.push(StreamSeq(row.last));
            } else if row.count > 1 {
                older.push(subject.to_vec());
            }
            if last.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        for subject in older {
            if last.len() >= limit {
                break;
            }
            last.extend(self.last_of(&subject, up_to, view)?.map(StreamSeq));
        }
        last.sort_unstable();
        Ok(last)
    }

    /// The last sequence of a subject at or below `up_to`.
    fn last_of(
        &self,
        subject: &[u8],
        up_to: u64,
        view: &View<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let found = seek_seqs(view.rows, self.group, subject, up_to, Seek::AtOrBefore)?;
        let Some((block_first, runs)) = found else {
            return Ok(None);
        };
        if let Some(seq) = runs.at_or_before(up_to) {
            return Ok(Some(seq));
        }
        let Some(before) = block_first.checked_sub(1) else {
            return Ok(None);
        };
        let found = seek_seqs(view.rows, self.group, subject, before, Seek::AtOrBefore)?;
        Ok(found.and_then(|(_, runs)| runs.last()))
    }

    /// How many messages at or after `from` match; exact.
    ///
    /// # Errors
    /// As the state store.
    pub fn count_matching(
        &self,
        from: StreamSeq,
        filters: &Filters,
        view: &mut View<'_>,
    ) -> Result<u64, StoreError> {
        let from = from.0.max(self.counters.first);
        if from > self.counters.last {
            return Ok(0);
        }
        if filters.is_all() || self.has_only(filters, view)? {
            return self.count_all(from, view);
        }
        let mut count = 0;
        let mut cut = Vec::new();
        each_subject(view.rows, self.group, filters, &mut |subject, row| {
            if from <= row.first_block || from <= self.counters.first {
                count += row.count;
            } else if row.last >= from {
                cut.push((subject.to_vec(), row));
            }
            ControlFlow::Continue(())
        })?;
        for (subject, row) in cut {
            count += self.count_subject(&subject, row, from, view)?;
        }
        Ok(count)
    }

    /// Whether every subject matches, as far as that is seen from the first and the last of them: in
    /// the order of names all others begin as both of them do.
    fn has_only(&self, filters: &Filters, view: &View<'_>) -> Result<bool, StoreError> {
        let mut whole = filters.list().iter().filter_map(Filter::everything_below);
        let Some(any) = whole.next() else {
            return Ok(false);
        };
        let start = group_start(self.group);
        let Some((first, _)) = view.rows.seek(Table::Subject, &start, Seek::AtOrAfter)? else {
            return Ok(false);
        };
        let begins = |key: &[u8], prefix: &[u8]| {
            let subject = key.strip_prefix(start.as_slice());
            subject.is_some_and(|subject| subject.starts_with(prefix))
        };
        let Some(prefix) = std::iter::once(any)
            .chain(whole)
            .find(|p| begins(&first, p))
        else {
            return Ok(false);
        };
        let end = group_end(self.group);
        let last = view.rows.seek(Table::Subject, &end, Seek::AtOrBefore)?;
        Ok(last.is_some_and(|(last, _)| begins(&last, prefix)))
    }

    /// Messages of one subject at or after `from`, from the nearer end of its rows.
    fn count_subject(
        &self,
        subject: &[u8],
        row: SubjectRow,
        from: u64,
        view: &View<'_>,
    ) -> Result<u64, StoreError> {
        let from_front = from - row.first_block.min(from) < row.last.saturating_sub(from);
        let (start, end) = if from_front {
            (
                seq_key(self.group, subject, row.first_block),
                seq_key(self.group, subject, from),
            )
        } else {
            let mut end = seq_key(self.group, subject, u64::MAX);
            end.push(0);
            (seq_key(self.group, subject, from), end)
        };
        // Rows of blocks wholly on one side of `from`, and the one that it may cut.
        let mut count = 0;
        let mut cut = None;
        let mut bad = false;
        view.rows
            .scan(Table::SubjectSeq, &start, &end, &mut |key, value| {
                bad = Runs::peek_count(value).is_none();
                count += Runs::peek_count(value).unwrap_or(0);
                if from_front {
                    cut = Some((key.to_vec(), value.to_vec()));
                }
                !bad
            })?;
        if bad {
            return Err(super::subject::bad_subject(self.group, subject));
        }
        if !from_front {
            let before = match from.checked_sub(1) {
                Some(before) => {
                    seek_seqs(view.rows, self.group, subject, before, Seek::AtOrBefore)?
                }
                None => None,
            };
            return Ok(count + before.map_or(0, |(_, runs)| runs.count_from(from)));
        }
        let above = match cut {
            Some((key, value)) => {
                let (_, block_first) = super::subject::parse_seq_key(self.group, &key)
                    .ok_or_else(|| super::subject::bad_subject(self.group, subject))?;
                Runs::decode(block_first, &value)
                    .ok_or_else(|| super::subject::bad_subject(self.group, subject))?
                    .count_from(from)
            }
            None => 0,
        };
        Ok(row.count.saturating_sub(count - above))
    }

    /// Messages at or after `from`, from the nearer end of the blocks.
    fn count_all(&self, from: u64, view: &mut View<'_>) -> Result<u64, StoreError> {
        let counters = &self.counters;
        if from == counters.first {
            return Ok(counters.messages);
        }
        if counters.last - counters.first + 1 == counters.messages {
            return Ok(counters.last - from + 1);
        }
        let Some(slot) = self.locate(view.rows, view.cache, from)? else {
            return Ok(0);
        };
        let block = view.cache.block(slot);
        let (first_seq, end) = (block.first_seq, block.end());
        let here = block.live_from(from);
        let below_here = u64::from(block.live).saturating_sub(here);
        if from - counters.first < counters.last - from {
            let below = self.sum_live(&Block::key(self.group, 0), first_seq, view)?;
            return Ok(counters.messages.saturating_sub(below + below_here));
        }
        let key = Block::key(self.group, end);
        Ok(here + self.sum_live(&key, u64::MAX, view)?)
    }

    /// Live messages of the blocks from the key `start` on that begin below `end`.
    fn sum_live(&self, start: &[u8], end: u64, view: &View<'_>) -> Result<u64, StoreError> {
        let mut sum = 0;
        self.each_block(start, &Block::key(self.group, end), view, &mut |block| {
            sum += u64::from(block.live);
        })?;
        Ok(sum)
    }

    fn each_block(
        &self,
        start: &[u8],
        end: &[u8],
        view: &View<'_>,
        visit: &mut dyn FnMut(Block),
    ) -> Result<(), StoreError> {
        let mut bad = None;
        view.rows
            .scan(Table::Block, start, end, &mut |key, value| {
                let block = Block::first_seq_of(self.group, key)
                    .and_then(|first_seq| Block::decode(first_seq, value));
                match block {
                    Some(block) => visit(block),
                    None => bad = Some(corrupt(self.group, "a block row")),
                }
                bad.is_none()
            })?;
        bad.map_or(Ok(()), Err)
    }

    /// The first message stored at or after a time.
    ///
    /// # Errors
    /// As [`Stream::message`].
    pub fn seq_at_time(
        &self,
        time: Timestamp,
        view: &mut View<'_>,
    ) -> Result<Option<StreamSeq>, StoreError> {
        // The first block that ends at or after the time, by halving the sequences.
        let (mut low, mut high) = (self.counters.first, self.counters.last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.locate(view.rows, view.cache, middle)? {
                Some(slot) if view.cache.block(slot).last_time < time => {
                    low = view.cache.block(slot).end();
                }
                Some(slot) if view.cache.block(slot).first_seq > middle => high = middle,
                Some(slot) => high = view.cache.block(slot).first_seq.max(low),
                None => high = middle,
            }
        }
        let mut from = low;
        while let Some((slot, seq)) = self.next_live(view.rows, view.cache, from)? {
            let end = view.cache.block(slot).end();
            if view.cache.block(slot).first_time >= time {
                return Ok(Some(StreamSeq(seq)));
            }
            self.load_data(view.log, view.cache, slot)?;
            let block = view.cache.block(slot);
            let spans = view.cache.data(slot).map_or(&[][..], |(_, spans)| spans);
            let first = spans.partition_point(|span| span.time < time);
            let found = block.next_live(seq.max(block.first_seq + first as u64));
            if let Some(seq) = found {
                return Ok(Some(StreamSeq(seq)));
            }
            from = end;
        }
        Ok(None)
    }

    /// Subjects that match, with how many messages each has, in the order of their names, `offset`
    /// left out and at most `limit` of them; and how many match in all.
    ///
    /// # Errors
    /// As the state store.
    pub fn subjects(
        &self,
        filter: &str,
        offset: usize,
        limit: usize,
        view: &mut View<'_>,
    ) -> Result<(BTreeMap<String, u64>, usize), StoreError> {
        let mut subjects = BTreeMap::new();
        let mut total = 0;
        each_subject(
            view.rows,
            self.group,
            &Filters::new([filter]),
            &mut |subject, row| {
                if total >= offset && subjects.len() < limit {
                    subjects.insert(String::from_utf8_lossy(subject).into_owned(), row.count);
                }
                total += 1;
                ControlFlow::Continue(())
            },
        )?;
        Ok((subjects, total))
    }

    /// The counters; without subjects, deleted sequences and consumers, which are asked for one by
    /// one.
    ///
    /// # Errors
    /// As the state store.
    pub fn state(&self, view: &mut View<'_>) -> Result<StreamState, StoreError> {
        let counters = &self.counters;
        // A stream that never gave a sequence has no first one either.
        let is_fresh = (counters.first, counters.last) == (1, 0) && self.config.first_seq == 0;
        Ok(StreamState {
            messages: counters.messages,
            bytes: counters.bytes,
            first_seq: if is_fresh { 0 } else { counters.first },
            first_ts: self.first_time(view)?,
            last_seq: counters.last,
            last_ts: counters.last_time,
            num_subjects: counters.subjects,
            num_deleted: (counters.last + 1).saturating_sub(counters.first + counters.messages),
            ..StreamState::default()
        })
    }

    /// Time of the first message, zero when there is none. Of a message that cannot be read it is
    /// the time of its block.
    fn first_time(&self, view: &mut View<'_>) -> Result<Timestamp, StoreError> {
        if self.counters.messages == 0 {
            return Ok(Timestamp::ZERO);
        }
        if let Some(time) = self.first_time.get() {
            return Ok(time);
        }
        let first = self.counters.first;
        let Some(slot) = self.locate(view.rows, view.cache, first)? else {
            return Err(corrupt(self.group, "the first message is in no block"));
        };
        match self.read(slot, first, view) {
            Ok(message) => {
                self.first_time.set(Some(message.time()));
                Ok(message.time())
            }
            Err(error) if error.kind == StoreErrorKind::Corrupt => {
                Ok(view.cache.block(slot).first_time)
            }
            Err(error) => Err(error),
        }
    }

    /// Sequences between the first and the last that have no message, at most `limit`.
    ///
    /// # Errors
    /// As the state store.
    pub fn deleted(&self, limit: usize, view: &mut View<'_>) -> Result<Vec<u64>, StoreError> {
        let mut deleted = Vec::new();
        let mut expected = self.counters.first;
        let add = |from: u64, to: u64, deleted: &mut Vec<u64>| {
            let room = (limit - deleted.len()) as u64;
            deleted.extend(from..to.min(from.saturating_add(room)));
        };
        let start = Block::key(self.group, 0);
        self.each_block(&start, &group_end(self.group), view, &mut |block| {
            while let Some(seq) = block.next_live(expected) {
                match expected.cmp(&seq) {
                    Ordering::Less => add(expected, seq, &mut deleted),
                    Ordering::Equal | Ordering::Greater => {}
                }
                expected = seq + 1;
            }
        })?;
        add(expected, self.counters.last + 1, &mut deleted);
        Ok(deleted)
    }
}

/// A subject with its row.
type NamedRow = (Vec<u8>, SubjectRow);

/// Where the subject index leads.
enum Jump {
    To(SlotId, u64),
    Nowhere,
    /// More subjects match than are worth comparing.
    TooMany,
}

impl Jump {
    fn found(self) -> Option<(SlotId, u64)> {
        match self {
            Self::To(slot, seq) => Some((slot, seq)),
            Self::Nowhere | Self::TooMany => None,
        }
    }
}
