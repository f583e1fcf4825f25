//! What goes other than to make room: deleted, settled, purged, expired.

use std::ops::ControlFlow;

use bytes::Bytes;
use menes_protocol::headers::HeaderBlock;

use crate::command::Purge;
use crate::ids::StreamSeq;
use crate::ports::{StoreError, StoreErrorKind, Table};
use crate::record::RecordSpan;
use crate::time::Timestamp;

use super::codec::{behind_prefix, group_end, group_start};
use super::counters::Counters;
use super::dedup::Dedup;
use super::directives::{Directives, Ttl};
use super::edit::Edit;
use super::filters::Filters;
use super::rows::Rows;
use super::subject::{each_subject, each_subject_after};
use super::{
    Context, Limits, MAX_FIRST_SEQ, NEVER, Removed, Stream, StreamConfig, few_in_tests, markers,
    origins, schedules, ttl,
};

/// Subjects purged before their rows are written.
const SUBJECTS_PER_ROUND: usize = few_in_tests(1024);

/// What a purge came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// How many messages went, by this purge and those it went on with.
    pub purged: u64,
    /// What goes on with it, if it was not all.
    pub rest: Option<Purge>,
}

impl Purged {
    /// The same, with what the purges before it removed.
    fn behind(mut self, purge: &Purge) -> Self {
        self.purged += purge.purged;
        if let Some(rest) = &mut self.rest {
            rest.purged = self.purged;
            rest.most = purge.most;
        }
        self
    }
}

/// The subject behind which a purge goes on; none before the first.
type Behind = Option<Vec<u8>>;

/// How much may still go; what goes at once, as a block does, may be more, and is owed then.
pub(super) struct Room {
    messages: i64,
    /// Counted only for what comes in meanwhile, [`Room::grow`].
    bytes: i64,
}

impl Room {
    /// Room for everything.
    pub(super) const fn all() -> Self {
        Self {
            messages: i64::MAX,
            bytes: 0,
        }
    }

    /// Room for about this many messages.
    pub(super) fn of(messages: u32) -> Self {
        Self {
            messages: i64::from(messages),
            bytes: 0,
        }
    }

    /// Makes room because a message of so many bytes was stored: for more than came in, so that a
    /// stream gets within its limits however much is published to it.
    pub(super) fn grow(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.messages = self.messages.saturating_add(GOES_FOR_EACH);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn take(&mut self, messages: u64) {
        self.take_with(messages, 0);
    }

    pub(super) fn take_with(&mut self, messages: u64, bytes: u64) {
        let amount = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.messages = self.messages.saturating_sub(amount(messages));
        self.bytes = self.bytes.saturating_sub(amount(bytes));
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.messages <= 0 && self.bytes <= 0
    }
}

/// How many messages go for one that is stored while a stream shrinks to new limits, about. What
/// entries of the log come to depends on it, so it never changes.
const GOES_FOR_EACH: i64 = 2;

impl Stream {
    /// Removes one message, because somebody deleted it or everybody who wanted it settled it.
    /// False when it is not there.
    ///
    /// # Errors
    /// As [`Stream::apply_publish`].
    pub fn remove(
        &mut self,
        seq: StreamSeq,
        cx: &mut Context<'_, '_>,
        removed: &mut Vec<Removed>,
    ) -> Result<bool, StoreError> {
        Ok(self.remove_all(&[seq], cx, removed)? > 0)
    }

    /// Removes several messages, cheaper than one by one; returns how many were there.
    ///
    /// # Errors
    /// As [`Stream::apply_publish`].
    pub fn remove_all(
        &mut self,
        seqs: &[StreamSeq],
        cx: &mut Context<'_, '_>,
        removed: &mut Vec<Removed>,
    ) -> Result<u64, StoreError> {
        let mut edit = Edit::new(self, cx, removed);
        let mut count = 0;
        for seq in seqs {
            count += u64::from(edit.remove(seq.0)?);
        }
        edit.finish()?;
        Ok(count)
    }

    /// Removes messages as a request asks, about as many as it allows at once. A purge below a
    /// sequence not yet given moves the sequence on to it.
    ///
    /// # Errors
    /// As [`Stream::apply_publish`].
    pub fn purge(
        &mut self,
        purge: &Purge,
        cx: &mut Context<'_, '_>,
        removed: &mut Vec<Removed>,
    ) -> Result<Purged, StoreError> {
        let filters = Filters::new(purge.filter.as_deref());
        let below = purge.below.map_or(0, |below| below.0);
        let keep = purge.keep.unwrap_or(0);
        let mut room = purge.most.map_or_else(Room::all, Room::of);
        if filters.is_all() {
            let purged = self.purge_to(below, keep, &mut room, cx, removed)?;
            // Consumers move on to the first message even where nothing was purged.
            let first = Removed::Below(StreamSeq(self.counters.first));
            if removed.last() != Some(&first) {
                removed.push(first);
            }
            return Ok(purged.behind(purge));
        }
        // What comes in before the last portion of it is not meant.
        let mut boundary = match below {
            0 if purge.most.is_some() => self.counters.last + 1,
            0 => u64::MAX,
            below => below,
        };
        if keep > 0 {
            boundary = boundary.min(self.boundary_to_keep(&filters, keep, cx)?);
        }
        if boundary == 0 {
            return Ok(Purged::default().behind(purge));
        }
        let mut edit = Edit::new(self, cx, removed);
        let after = purge.after.as_deref();
        let (purged, stopped) = edit.purge_matching(&filters, boundary, after, &mut room)?;
        if let (true, Some(filter)) = (purged > 0, &purge.filter) {
            let below = StreamSeq(boundary.min(edit.stream.counters.last + 1));
            let filter = Bytes::copy_from_slice(filter.as_bytes());
            edit.removed.push(Removed::Matching { filter, below });
        }
        edit.finish()?;
        if let Some(after) = stopped {
            let rest = Purge {
                below: Some(StreamSeq(boundary)),
                keep: None,
                after,
                ..purge.clone()
            };
            let rest = Some(rest);
            return Ok(Purged { purged, rest }.behind(purge));
        }
        if let Some(filter) = &purge.filter {
            let first = StreamSeq(self.counters.first);
            let next = self.next_sequence(first, &filters, &mut cx.view())?;
            removed.push(Removed::Purged {
                filter: Bytes::copy_from_slice(filter.as_bytes()),
                next: next.unwrap_or(StreamSeq(self.counters.last + 1)),
                first,
            });
        }
        Ok(Purged { purged, rest: None }.behind(purge))
    }

    /// Purges all subjects: everything, or what lies below a sequence, or all but the last messages.
    fn purge_to(
        &mut self,
        below: u64,
        keep: u64,
        room: &mut Room,
        cx: &mut Context<'_, '_>,
        removed: &mut Vec<Removed>,
    ) -> Result<Purged, StoreError> {
        if below == 0 && keep == 0 {
            let purged = self.purge_all(cx, removed)?;
            return Ok(Purged { purged, rest: None });
        }
        let mut boundary = if below == 0 { u64::MAX } else { below };
        if keep > 0 {
            boundary = boundary.min(self.boundary_to_keep(&Filters::all(), keep, cx)?);
        }
        if boundary > self.counters.last {
            let purged = self.purge_all(cx, removed)?;
            self.move_on_to(boundary, cx);
            return Ok(Purged { purged, rest: None });
        }
        let mut edit = Edit::new(self, cx, removed);
        let purged = edit.purge_below(boundary, room)?;
        edit.finish()?;
        let counters = &self.counters;
        let is_over = counters.messages == 0 || counters.first >= boundary;
        let rest = (!is_over).then(|| Purge {
            below: Some(StreamSeq(boundary)),
            ..Purge::default()
        });
        Ok(Purged { purged, rest })
    }

    /// The sequence from which on exactly `keep` matching messages lie; 0 to keep all.
    fn boundary_to_keep(
        &self,
        filters: &Filters,
        keep: u64,
        cx: &mut Context<'_, '_>,
    ) -> Result<u64, StoreError> {
        let (mut low, mut high) = (self.counters.first, self.counters.last + 1);
        if self.count_matching(StreamSeq(low), filters, &mut cx.view())? <= keep {
            return Ok(0);
        }
        // At `low` there are more than `keep`, at `high` at most.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.count_matching(StreamSeq(middle), filters, &mut cx.view())? > keep {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(high)
    }

    fn purge_all(
        &mut self,
        cx: &mut Context<'_, '_>,
        removed: &mut Vec<Removed>,
    ) -> Result<u64, StoreError> {
        let purged = self.counters.messages;
        if purged == 0 {
            return Ok(0);
        }
        self.release_blocks(cx)?;
        for table in [Table::Block, Table::Subject, Table::SubjectSeq] {
            cx.txn
                .delete_range(table, group_start(self.group), group_end(self.group));
        }
        let ttls = ttl::prefix(self.group);
        if self.next_ttl.take().is_some() {
            cx.txn
                .delete_range(Table::Meta, ttls.clone(), behind_prefix(ttls));
        }
        if self.next_schedule.take().is_some() {
            schedules::delete_all(self.group, cx.txn);
            self.unscheduled = None;
        }
        let mut edit = Edit::new(self, cx, removed);
        edit.forget();
        edit.stream.first_time.set(None);
        edit.stream.oldest = NEVER;
        let counters = &mut edit.stream.counters;
        counters.messages = 0;
        counters.bytes = 0;
        counters.subjects = 0;
        counters.first = counters.last + 1;
        let below = StreamSeq(counters.first);
        edit.removed.push(Removed::Below(below));
        edit.finish()?;
        Ok(purged)
    }

    /// Takes sequences up to `last`, given at `time`, as given, if they are not yet; nothing is
    /// removed.
    pub fn skip_to(&mut self, last: StreamSeq, time: Timestamp, cx: &mut Context<'_, '_>) {
        let last = last.0.min(MAX_FIRST_SEQ);
        if last <= self.counters.last {
            return;
        }
        self.counters.last = last;
        self.counters.last_time = self.counters.last_time.max(time);
        if self.counters.messages == 0 {
            self.counters.first = last + 1;
        }
        cx.txn.put(
            Table::Meta,
            Counters::key(self.group),
            self.counters.encode(),
        );
    }

    /// Makes `next` the next sequence, if it lies ahead.
    fn move_on_to(&mut self, next: u64, cx: &mut Context<'_, '_>) {
        if next == u64::MAX || next <= self.counters.last + 1 {
            return;
        }
        self.counters.first = next.min(MAX_FIRST_SEQ).max(self.counters.first);
        self.counters.last = self.counters.first - 1;
        cx.txn.put(
            Table::Meta,
            Counters::key(self.group),
            self.counters.encode(),
        );
    }

    fn release_blocks(&self, cx: &mut Context<'_, '_>) -> Result<(), StoreError> {
        let mut segments = Vec::new();
        let mut bad = None;
        cx.txn.scan(
            Table::Block,
            &group_start(self.group),
            &group_end(self.group),
            &mut |key, value| {
                let block = super::Block::first_seq_of(self.group, key)
                    .and_then(|first_seq| super::Block::decode(first_seq, value));
                match block {
                    Some(block) => {
                        segments.extend(block.at.map(|at| at.position.segment));
                        true
                    }
                    None => {
                        bad = Some(super::codec::corrupt(self.group, "a block row"));
                        false
                    }
                }
            },
        )?;
        if let Some(error) = bad {
            return Err(error);
        }
        for segment in segments {
            cx.segments.release(segment);
        }
        Ok(())
    }

    /// Moves log time on: messages that are too old, whose own time has come, or that new limits
    /// leave no room for go, about `most` of them, and message ids leave the duplicate window. While
    /// more are due, [`Stream::next_expiry`] is not later than `now`.
    ///
    /// # Errors
    /// As [`Stream::apply_publish`].
    pub fn advance(
        &mut self,
        now: Timestamp,
        most: u32,
        cx: &mut Context<'_, '_>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), StoreError> {
        self.counters.log_time = self.counters.log_time.max(now);
        let now = self.counters.log_time;
        if let (Some(dedup), Some(window)) = (&mut self.dedup, self.limits.duplicate_window) {
            dedup.expire(cx.txn, self.group, window, now);
        }
        let mut edit = Edit::new(self, cx, removed);
        if edit.stream.is_beyond_limits() {
            edit.room = Room::of(most);
            edit.evict_to_limits()?;
        }
        // In this order, as if all of it had gone at once.
        if !edit.stream.is_beyond_limits() {
            let mut room = Room::of(most);
            edit.expire_by_age(now, &mut room)?;
            edit.expire_by_ttl(now, &mut room)?;
            edit.drop_stale_schedules(now)?;
        }
        edit.finish()?;
        self.next_ttl = match self.next_ttl {
            Some(_) => ttl::next(Rows::Txn(cx.txn), self.group)?,
            None => None,
        };
        Ok(())
    }

    /// Replaces the configuration; of what exceeds its limits or is too old about `most` messages go
    /// at once, as in [`Stream::advance`], but of what a subject has too much all.
    ///
    /// # Errors
    /// As [`Stream::apply_publish`].
    pub fn update_config(
        &mut self,
        config: StreamConfig,
        now: Timestamp,
        most: u32,
        cx: &mut Context<'_, '_>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), StoreError> {
        self.counters.log_time = self.counters.log_time.max(now);
        let limits = Limits {
            memory: self.limits.memory,
            ..Limits::new(&config)
        };
        if limits.duplicate_window != self.limits.duplicate_window {
            self.settle_duplicates(limits.duplicate_window.is_some(), cx)?;
        }
        let schedules_begin = limits.schedules && !self.limits.schedules;
        let per_subject_lowered = limits.per_subject < self.limits.per_subject;
        self.config = config;
        self.limits = limits;
        self.ageless_below = 0;
        let mut edit = Edit::new(self, cx, removed);
        if edit.stream.is_beyond_limits() {
            // What a subject has too much is found among what is left.
            edit.room = if per_subject_lowered {
                Room::all()
            } else {
                Room::of(most)
            };
            edit.evict_to_limits()?;
        }
        if per_subject_lowered {
            edit.evict_per_subject()?;
        }
        if schedules_begin {
            edit.look_for_schedules();
        }
        edit.finish()?;
        self.advance(now, most, cx, removed)
    }

    /// Forgets for good what has left the duplicate window, before the window changes or goes;
    /// otherwise it would depend on the last restart what a wider window still knows.
    fn settle_duplicates(
        &mut self,
        stays: bool,
        cx: &mut Context<'_, '_>,
    ) -> Result<(), StoreError> {
        let Some(window) = self.limits.duplicate_window else {
            return Ok(());
        };
        if !stays {
            cx.txn
                .delete_range(Table::Dedup, group_start(self.group), group_end(self.group));
            self.dedup = None;
            return Ok(());
        }
        let now = self.counters.log_time;
        let mut dedup = match self.dedup.take() {
            Some(dedup) => dedup,
            None => Box::new(Dedup::load(cx.txn, self.group, window, now)?),
        };
        dedup.expire(cx.txn, self.group, window, now);
        dedup.rewrite_oldest(cx.txn, self.group);
        self.dedup = Some(dedup);
        Ok(())
    }

    /// Deletes every row of the stream and gives up its blocks; the stream is gone afterwards.
    ///
    /// # Errors
    /// As [`Stream::apply_publish`].
    pub fn drop_rows(&mut self, cx: &mut Context<'_, '_>) -> Result<(), StoreError> {
        self.release_blocks(cx)?;
        for table in [
            Table::Block,
            Table::Subject,
            Table::SubjectSeq,
            Table::Dedup,
        ] {
            cx.txn
                .delete_range(table, group_start(self.group), group_end(self.group));
        }
        let ttls = ttl::prefix(self.group);
        cx.txn
            .delete_range(Table::Meta, ttls.clone(), behind_prefix(ttls));
        for prefix in [origins::prefix(self.group), markers::prefix(self.group)] {
            cx.txn
                .delete_range(Table::Meta, prefix.clone(), behind_prefix(prefix));
        }
        schedules::delete_all(self.group, cx.txn);
        cx.txn.delete(Table::Meta, Counters::key(self.group));
        cx.cache.forget_group(self.group);
        self.counters = Counters::starting_at(self.counters.last + 1);
        self.first_time.set(None);
        self.oldest = NEVER;
        self.next_ttl = None;
        self.next_schedule = None;
        self.unscheduled = None;
        self.dedup = None;
        self.recent.clear();
        self.memory.clear();
        Ok(())
    }
}

impl Edit<'_, '_, '_> {
    fn remove(&mut self, seq: u64) -> Result<bool, StoreError> {
        let counters = &self.stream.counters;
        if seq < counters.first || seq > counters.last || counters.messages == 0 {
            return Ok(false);
        }
        self.bound_memory();
        let Some(slot) = self
            .stream
            .locate(Rows::Txn(self.cx.txn), self.cx.cache, seq)?
        else {
            return Ok(false);
        };
        if !self.cx.cache.block(slot).is_live(seq) {
            return Ok(false);
        }
        let subject = self.subject_at(slot, seq)?;
        self.take(slot, subject, seq, true)?;
        Ok(true)
    }

    /// Purges every subject that matches and lies behind `after`, in rounds. Stops when there is no
    /// more room, and then says behind which subject to go on.
    fn purge_matching(
        &mut self,
        filters: &Filters,
        below: u64,
        after: Option<&[u8]>,
        room: &mut Room,
    ) -> Result<(u64, Option<Behind>), StoreError> {
        let mut purged = 0;
        let mut after: Option<Bytes> = after.map(Bytes::copy_from_slice);
        loop {
            let mut names = Vec::new();
            each_subject_after(
                Rows::Txn(self.cx.txn),
                self.stream.group,
                filters,
                after.as_deref(),
                &mut |name, _| {
                    names.push(Bytes::copy_from_slice(name));
                    if names.len() < SUBJECTS_PER_ROUND {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                },
            )?;
            if names.is_empty() {
                return Ok((purged, None));
            }
            for name in names {
                if room.is_used_up() {
                    return Ok((purged, Some(after.map(Vec::from))));
                }
                // One that is looked at and keeps all it has is not for nothing either.
                room.take(1);
                let subject = self.subject(&name, &name)?;
                let (count, is_over) = self.purge_subject(subject, below, false, room)?;
                purged += count;
                if is_over {
                    after = Some(name);
                }
            }
            self.let_go_of_subjects()?;
        }
    }

    /// Purges every subject that matches while messages are being stored: subjects in hand stay.
    pub(super) fn roll_up_matching(
        &mut self,
        filter: &[u8],
        below: u64,
    ) -> Result<u64, StoreError> {
        let Ok(text) = std::str::from_utf8(filter) else {
            return Ok(0);
        };
        self.write_subjects()?;
        let mut names = Vec::new();
        each_subject(
            Rows::Txn(self.cx.txn),
            self.stream.group,
            &Filters::new([text]),
            &mut |name, _| {
                names.push(Bytes::copy_from_slice(name));
                ControlFlow::Continue(())
            },
        )?;
        let mut purged = 0;
        for name in &names {
            let subject = self.subject(name, name)?;
            let (count, _) = self.purge_subject(subject, below, false, &mut Room::all())?;
            purged += count;
        }
        Ok(purged)
    }

    /// Evicts the oldest messages of every subject that has too many.
    fn evict_per_subject(&mut self) -> Result<(), StoreError> {
        let limit = self.stream.limits.per_subject;
        let mut full = Vec::new();
        each_subject(
            Rows::Txn(self.cx.txn),
            self.stream.group,
            &Filters::all(),
            &mut |name, row| {
                if row.count > limit {
                    full.push(Bytes::copy_from_slice(name));
                }
                ControlFlow::Continue(())
            },
        )?;
        for names in full.chunks(SUBJECTS_PER_ROUND) {
            for name in names {
                let subject = self.subject(name, name)?;
                while self.subject_count(subject) > limit
                    && let Some((first, block_first)) = self.subject_first(subject)?
                {
                    self.bound_memory();
                    let slot = self.slot_of(block_first)?;
                    self.take(slot, subject, first, true)?;
                }
            }
            self.let_go_of_subjects()?;
        }
        Ok(())
    }

    /// Removes messages that are older than the stream allows.
    fn expire_by_age(&mut self, now: Timestamp, room: &mut Room) -> Result<(), StoreError> {
        let Some(age) = self.stream.limits.age else {
            return Ok(());
        };
        let cutoff = Timestamp(
            now.0
                .saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)),
        );
        if self.stream.limits.ttl {
            return self.expire_one_by_one(cutoff, room);
        }
        let mut below = 0;
        let mut from = self.stream.counters.first;
        let mut oldest = NEVER;
        while let Some((slot, seq)) =
            self.stream
                .next_live(Rows::Txn(self.cx.txn), self.cx.cache, from)?
        {
            let block = self.cx.cache.block(slot);
            oldest = block.first_time;
            if oldest <= cutoff && room.is_used_up() {
                break;
            }
            let end = block.end();
            room.take(block.live_from(seq));
            if block.last_time <= cutoff {
                (below, from) = (end, end);
                continue;
            }
            if oldest <= cutoff {
                let (young, time) = self.first_younger(slot, seq, cutoff)?;
                (below, oldest) = (young, time);
                if young == end {
                    from = end;
                    continue;
                }
            }
            break;
        }
        if below > 0 {
            self.purge_below(below, &mut Room::all())?;
        }
        self.stream.oldest = if self.stream.counters.messages > 0 {
            oldest
        } else {
            NEVER
        };
        Ok(())
    }

    /// The first message of a block, from `seq` on, that is younger than `cutoff`, with its time. A
    /// block that cannot be read expires as a whole.
    fn first_younger(
        &mut self,
        slot: usize,
        seq: u64,
        cutoff: Timestamp,
    ) -> Result<(u64, Timestamp), StoreError> {
        match self.stream.load_data(self.cx.log, self.cx.cache, slot) {
            Ok(()) => {}
            Err(error) if error.kind == StoreErrorKind::Corrupt => {
                return Ok((seq, self.cx.cache.block(slot).last_time));
            }
            Err(error) => return Err(error),
        }
        let block = self.cx.cache.block(slot);
        let mut at = Some(seq);
        while let Some(seq) = at {
            let span = self.span_of(slot, seq);
            if let Some(span) = span.filter(|span| span.time > cutoff) {
                return Ok((seq, span.time));
            }
            at = block.next_live(seq + 1);
        }
        Ok((block.end(), block.last_time))
    }

    fn span_of(&self, slot: usize, seq: u64) -> Option<RecordSpan> {
        let ordinal = self.cx.cache.block(slot).ordinal(seq) as usize;
        self.cx
            .cache
            .data(slot)
            .and_then(|(_, spans)| spans.get(ordinal))
            .copied()
    }

    /// As [`Self::expire_by_age`] where single messages may be without an age limit.
    fn expire_one_by_one(&mut self, cutoff: Timestamp, room: &mut Room) -> Result<(), StoreError> {
        let mut from = self.stream.counters.first.max(self.stream.ageless_below);
        while let Some((slot, seq)) =
            self.stream
                .next_live(Rows::Txn(self.cx.txn), self.cx.cache, from)?
        {
            if room.is_used_up() {
                // It is due as long as its block may be.
                let first_time = self.cx.cache.block(slot).first_time;
                self.wait_for(seq, first_time);
                return Ok(());
            }
            room.take(1);
            self.bound_memory();
            from = seq + 1;
            match self.stream.load_data(self.cx.log, self.cx.cache, slot) {
                Ok(()) => {}
                Err(error) if error.kind == StoreErrorKind::Corrupt => {
                    let last_time = self.cx.cache.block(slot).last_time;
                    if last_time > cutoff {
                        self.wait_for(seq, last_time);
                        return Ok(());
                    }
                    let subject = self.subject_at(slot, seq)?;
                    self.take(slot, subject, seq, true)?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let Some(span) = self.span_of(slot, seq) else {
                break;
            };
            if span.time > cutoff {
                self.wait_for(seq, span.time);
                return Ok(());
            }
            let ageless = self.cx.cache.data(slot).is_some_and(|(bytes, _)| {
                Directives::parse(span.header(bytes))
                    .is_ok_and(|directives| directives.ttl() == Ok(Some(Ttl::Never)))
            });
            if ageless {
                continue;
            }
            self.expire_message(slot, seq)?;
        }
        // Nothing is left that has an age limit.
        self.wait_for(self.stream.counters.last + 1, NEVER);
        Ok(())
    }

    /// What is left below `seq` has no age limit, and nothing that has one is older than `time`.
    fn wait_for(&mut self, seq: u64, time: Timestamp) {
        self.stream.ageless_below = seq;
        self.stream.oldest = time;
    }

    /// Removes a message that has expired, if it is still there.
    fn expire(&mut self, seq: u64) -> Result<(), StoreError> {
        if self.stream.limits.marker_ttl.is_none() {
            self.remove(seq)?;
            return Ok(());
        }
        self.bound_memory();
        let found = self
            .stream
            .locate(Rows::Txn(self.cx.txn), self.cx.cache, seq)?;
        if let Some(slot) = found.filter(|slot| self.cx.cache.block(*slot).is_live(seq)) {
            match self.stream.load_data(self.cx.log, self.cx.cache, slot) {
                Ok(()) => {}
                Err(error) if error.kind == StoreErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
            self.expire_message(slot, seq)?;
        }
        Ok(())
    }

    /// Takes an expired message out. The last one of a subject leaves a marker, unless it was one.
    fn expire_message(&mut self, slot: usize, seq: u64) -> Result<(), StoreError> {
        let subject = self.subject_at(slot, seq)?;
        let leaves_marker = self.stream.limits.marker_ttl.is_some()
            && self.subject_count(subject) == 1
            && !self.is_marker(slot, seq);
        self.take(slot, subject, seq, true)?;
        if leaves_marker {
            // The block that the name lies in may be large, and the name stays for a while.
            let name = Bytes::copy_from_slice(self.subject_name(subject));
            self.stream.marker_is_due(name, self.cx.txn);
        }
        Ok(())
    }

    /// Whether a message says that its subject is empty: a marker, or the purge of a key.
    fn is_marker(&self, slot: usize, seq: u64) -> bool {
        let Some(span) = self.span_of(slot, seq) else {
            return false;
        };
        let Some((bytes, _)) = self.cx.cache.data(slot) else {
            return false;
        };
        HeaderBlock::parse(span.header(bytes)).is_ok_and(|header| {
            header
                .get("Nats-Marker-Reason")
                .is_some_and(|reason| !reason.is_empty())
                || header.get("KV-Operation") == Some(b"PURGE")
        })
    }

    /// Removes messages whose own time has come.
    fn expire_by_ttl(&mut self, now: Timestamp, room: &mut Room) -> Result<(), StoreError> {
        while !room.is_used_up() && self.stream.next_ttl.is_some_and(|next| next <= now) {
            let due = ttl::due(
                Rows::Txn(self.cx.txn),
                self.stream.group,
                now,
                SUBJECTS_PER_ROUND,
            )?;
            for (key, seq) in &due {
                self.cx.txn.delete(Table::Meta, key.clone());
                self.expire(*seq)?;
            }
            room.take(due.len() as u64);
            if due.len() < SUBJECTS_PER_ROUND {
                break;
            }
        }
        Ok(())
    }
}
