//! Deciding what becomes of each record of a block, in the order nats-server decides.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use menes_protocol::headers::HeaderBlock;
use menes_protocol::subject::has_wildcard;

use crate::api::ApiError;
use crate::ids::StreamSeq;
use crate::ports::{EntryLocation, StoreError, Table};
use crate::record::{RecordSpan, Tag, is_tagged, records};
use crate::time::Timestamp;

use super::codec::corrupt;
use super::counter;
use super::dedup::Dedup;
use super::directives::{Directives, Rollup, Ttl, number};
use super::edit::{Edit, Open, room_for};
use super::filters::Filters;
use super::remove::Room;
use super::rows::Rows;
use super::subject::each_subject;
use super::{Context, PublishOutcome, Removed, Stream, few_in_tests, origins, ttl};

/// Longest header block that is stored, bytes.
pub(super) const MAX_HEADER_BYTES: usize = 65_535;

/// A rollup of at most this many messages reports each of them.
const MAX_REPORTED: u64 = few_in_tests(256) as u64;

/// Whether anybody wants messages of a subject.
type Interest<'i> = &'i mut dyn FnMut(&[u8]) -> bool;

impl Stream {
    /// Applies a block of proposed messages: one outcome per record, in order, is added to
    /// `outcomes`, and what went to make room to `removed`.
    ///
    /// `at` is where the entry lies, `None` for a stream in memory; `index` is its index in the log
    /// of the group. `interest` is asked only by a stream with interest retention.
    ///
    /// # Errors
    /// `Corrupt` when `block` is no block or the index contradicts itself, and what the stores
    /// return. The stream is unusable then.
    #[expect(
        clippy::too_many_arguments,
        reason = "where, what and the three ways out"
    )]
    pub fn apply_publish(
        &mut self,
        at: Option<EntryLocation>,
        index: u64,
        block: &Bytes,
        interest: Interest<'_>,
        cx: &mut Context<'_, '_>,
        outcomes: &mut Vec<PublishOutcome>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), StoreError> {
        let group = self.group;
        let Some(mut records) = records(block) else {
            return Err(corrupt(group, format_args!("entry {index} holds no block")));
        };
        let declared = records.declared();
        let before = outcomes.len();
        outcomes.reserve(room_for(declared, block));
        let mut edit = Edit::new(self, cx, removed);
        edit.open_block(at, index, declared, block);
        // Fast batches that ended in this block with a refused message.
        let mut ended = BTreeSet::new();
        // Counters of which an increment in this block has to be counted again, and fast batches of
        // which one has to.
        let mut outdated: BTreeSet<&[u8]> = BTreeSet::new();
        let mut postponed = BTreeSet::new();
        let mut ordinal = 0;
        let is_batch = is_batch(block);
        let refused = if is_batch {
            edit.batch_refused(block)?
        } else {
            None
        };
        while let Some(span) = records.next() {
            let proposed = Proposed {
                block,
                span,
                tag: records.tag(),
            };
            let outcome = match &refused {
                Some(error) => {
                    edit.pass_over(ordinal);
                    PublishOutcome::Refused(error.clone())
                }
                None if proposed.is_behind(&ended) => {
                    edit.pass_over(ordinal);
                    PublishOutcome::Refused(ApiError::batch_id_unknown())
                }
                // Those behind it would overtake it.
                None if proposed.is_counted() && outdated.contains(proposed.subject())
                    || proposed.batch().is_some_and(|id| postponed.contains(&id)) =>
                {
                    edit.pass_over(ordinal);
                    PublishOutcome::Outdated
                }
                None => edit.publish(ordinal, proposed, interest)?,
            };
            if outcome == PublishOutcome::Outdated {
                outdated.insert(proposed.subject());
                postponed.extend(proposed.batch());
            } else if let Tag::Fast {
                batch,
                is_strict: true,
                ..
            } = proposed.tag
                && outcome.is_refusal()
            {
                ended.insert(batch);
            }
            outcomes.push(outcome);
            ordinal += 1;
        }
        if outcomes.len() - before != declared as usize {
            return Err(corrupt(
                group,
                format_args!("entry {index} holds a cut block"),
            ));
        }
        edit.finish()
    }
}

/// Whether a block holds a batch.
fn is_batch(block: &[u8]) -> bool {
    if !is_tagged(block) {
        return false;
    }
    let Some(mut records) = records(block) else {
        return false;
    };
    records.next().is_some() && matches!(records.tag(), Tag::Batch { .. })
}

/// A record of the block being applied.
#[derive(Clone, Copy)]
struct Proposed<'b> {
    block: &'b Bytes,
    span: RecordSpan,
    tag: Tag,
}

impl<'b> Proposed<'b> {
    fn subject(&self) -> &'b [u8] {
        self.span.subject(self.block)
    }
    fn header(&self) -> &'b [u8] {
        self.span.header(self.block)
    }
    fn payload(&self) -> &'b [u8] {
        self.span.payload(self.block)
    }
    /// Whether its batch ended before it.
    fn is_behind(&self, ended: &BTreeSet<u64>) -> bool {
        matches!(self.tag, Tag::Fast { batch, is_strict: true, .. } if ended.contains(&batch))
    }
    /// Whether it is a client's increment with the sum that was found for it.
    fn is_counted(&self) -> bool {
        matches!(
            self.tag,
            Tag::Counter
                | Tag::Fast {
                    is_counted: true,
                    ..
                }
        )
    }
    /// The fast batch that it belongs to.
    fn batch(&self) -> Option<u64> {
        match self.tag {
            Tag::Fast { batch, .. } => Some(batch),
            _ => None,
        }
    }
}

impl Edit<'_, '_, '_> {
    fn publish(
        &mut self,
        ordinal: u32,
        record: Proposed<'_>,
        interest: Interest<'_>,
    ) -> Result<PublishOutcome, StoreError> {
        let outcome = match self.origin_refuses(&record)? {
            Some(outcome) => outcome,
            None => self.decide(record, interest)?,
        };
        if let Tag::Source { id, seq, .. } = record.tag
            && !outcome.is_refusal()
        {
            self.stream
                .origins
                .set(self.cx.txn, self.stream.group, id, seq);
        }
        // What comes back out of a backup was taken from a source before.
        if let Tag::Mirror { .. } = record.tag
            && !outcome.is_refusal()
            && !self.stream.config.sources.is_empty()
            && let Ok(header) = HeaderBlock::parse(record.header())
            && let Some(value) = header.get("Nats-Stream-Source")
            && let Some((id, seq)) = origins::named_source(&self.stream.config.sources, value)
            && seq > self.stream.origins.get(id)
        {
            self.stream
                .origins
                .set(self.cx.txn, self.stream.group, id, seq);
        }
        if let Tag::Schedule { .. } = record.tag
            && outcome.is_refusal()
            && let Ok(directives) = Directives::parse(record.header())
            && self.is_due_now(&directives, record.tag)?
        {
            self.give_up_occurrence(&directives)?;
        }
        if outcome.is_refusal() || matches!(outcome, PublishOutcome::Duplicate { .. }) {
            self.pass_over(ordinal);
        }
        Ok(outcome)
    }

    /// The record of the open block gets no sequence.
    fn pass_over(&mut self, ordinal: u32) {
        if let Some(open) = self.open {
            self.cx.cache.block_mut(open.slot).skipped.insert(ordinal);
        }
    }

    fn decide(
        &mut self,
        record: Proposed<'_>,
        interest: Interest<'_>,
    ) -> Result<PublishOutcome, StoreError> {
        let Proposed {
            block,
            mut span,
            tag,
        } = record;
        let counters = &mut self.stream.counters;
        span.time = span.time.max(counters.last_time);
        counters.log_time = counters.log_time.max(span.time);
        if self.stream.limits.sealed {
            return Ok(PublishOutcome::Refused(ApiError::stream_sealed()));
        }
        let header = record.header();
        let subject = record.subject();
        let (header_len, payload_len) = (header.len(), record.payload().len());
        if (header_len + payload_len) as u64 > self.stream.limits.message_bytes {
            return Ok(PublishOutcome::Refused(ApiError::message_too_large()));
        }
        if header_len > MAX_HEADER_BYTES {
            return Ok(PublishOutcome::Refused(ApiError::headers_too_large()));
        }
        let mut rollup = None;
        let mut directives = Directives::default();
        if !header.is_empty() {
            directives = match Directives::parse(header) {
                Ok(directives) => directives,
                // The origin took it as it is.
                Err(_) if matches!(tag, Tag::Mirror { .. }) => Directives::default(),
                Err(error) => return Ok(PublishOutcome::Refused(error)),
            };
            match self.check(&directives, &record, span.time)? {
                ControlFlow::Continue(found) => rollup = found,
                ControlFlow::Break(outcome) => return Ok(outcome),
            }
        }
        if self.stream.limits.counter
            && let Some(outcome) = self.miscounted(&directives, &record)?
        {
            return Ok(outcome);
        }
        if let Tag::Mirror { seq, .. } = tag
            && !self.jump_to(seq, span.time)
        {
            return Ok(PublishOutcome::Refused(
                ApiError::expected_sequence_does_not_match(),
            ));
        }
        let Some(open) = self.open else {
            return Err(corrupt(self.stream.group, "no block is open"));
        };
        if self.stream.limits.interest && !interest(subject) {
            return self.pass_by(open, block, span, &directives, rollup);
        }
        let expires = match directives.ttl() {
            Ok(ttl) => ttl.filter(|_| self.stream.limits.ttl),
            Err(error) => return Ok(PublishOutcome::Refused(error)),
        };
        let size = self
            .stream
            .limits
            .stored_size(subject.len(), header_len, payload_len);
        let number = self.subject(block, subject)?;
        let is_checked = matches!(tag, Tag::Batch { .. });
        if self.stream.limits.discard_new
            && !is_checked
            && let Some(error) = self.no_room(number, size, rollup.is_some())?
        {
            return Ok(PublishOutcome::Refused(error));
        }

        let previous = StreamSeq(self.subject_last(number)?);
        let seq = self.store(open, span, number, size)?;
        self.note_id(&directives, seq, span.time);
        if let Some(Ttl::Seconds(seconds)) = expires {
            self.note_ttl(seconds, seq, span.time);
        }
        self.make_room(number, size)?;
        if let Some(rollup) = rollup {
            self.roll_up(rollup, number, seq)?;
        }
        self.note_schedule(&directives, subject, seq, span.time)?;
        self.settle_schedule(&directives, block, seq)?;
        Ok(PublishOutcome::Stored {
            seq: StreamSeq(seq),
            previous,
        })
    }

    /// What becomes of a record that the server added at a wrong moment: a marker for a subject
    /// that has messages again, a copy that does not follow the one before it.
    fn origin_refuses(
        &mut self,
        record: &Proposed<'_>,
    ) -> Result<Option<PublishOutcome>, StoreError> {
        let last = self.stream.counters.last;
        let follows = match record.tag {
            Tag::Client | Tag::Counter | Tag::Fast { .. } | Tag::Batch { .. } => true,
            Tag::Marker => {
                let is_due = self.stream.marker_settled(record.subject(), self.cx.txn)?;
                let number = self.subject(record.block, record.subject())?;
                is_due && self.subject_count(number) == 0
            }
            Tag::Schedule { .. } => match Directives::parse(record.header()) {
                Ok(directives) => self.is_due_now(&directives, record.tag)?,
                Err(_) => false,
            },
            Tag::Mirror { previous, seq, .. } => previous == last && seq > last,
            Tag::Source { id, previous, seq } => {
                let position = self.stream.origins.get(id);
                previous == position && seq > position
            }
        };
        let refusal = PublishOutcome::Refused(ApiError::expected_sequence_does_not_match());
        Ok((!follows).then_some(refusal))
    }

    /// Checks what the header asks for, and returns the rollup it asks for.
    fn check(
        &mut self,
        directives: &Directives<'_>,
        record: &Proposed<'_>,
        now: Timestamp,
    ) -> Result<ControlFlow<PublishOutcome, Option<Rollup>>, StoreError> {
        let (block, subject) = (record.block, record.subject());
        let refuse = |error| Ok(ControlFlow::Break(PublishOutcome::Refused(error)));
        match record.tag {
            Tag::Client | Tag::Counter | Tag::Fast { .. } => {}
            // A batch was checked as a whole.
            Tag::Marker | Tag::Mirror { .. } | Tag::Batch { .. } | Tag::Schedule { .. } => {
                let rollup = directives.rollup().ok().flatten();
                return Ok(ControlFlow::Continue(
                    rollup.filter(|_| self.stream.limits.rollup),
                ));
            }
            // The source has checked what the publisher expected of it.
            Tag::Source { .. } => {
                if let Some(seq) = self.seen(directives.id)? {
                    return Ok(ControlFlow::Break(PublishOutcome::Duplicate {
                        seq: StreamSeq(seq),
                    }));
                }
                let rollup = directives.rollup().ok().flatten();
                return Ok(ControlFlow::Continue(
                    rollup.filter(|_| self.stream.limits.rollup),
                ));
            }
        }
        if let Some(error) = self.increment_refused(directives, record) {
            return refuse(error);
        }
        if !directives.batch.is_empty() {
            return refuse(ApiError::atomic_disabled());
        }
        let stream = directives.expected_stream;
        if !stream.is_empty() && stream != self.stream.config.name.as_bytes() {
            return refuse(ApiError::expected_stream_does_not_match());
        }
        if !self.stream.limits.ttl && matches!(directives.ttl(), Ok(Some(_))) {
            return refuse(ApiError::message_ttl_disabled());
        }
        if !directives.expected_last_in_subject.is_empty() {
            let last = self.last_expected(directives, block, subject)?;
            if number(directives.expected_last_in_subject) != Some(last) {
                return refuse(ApiError::wrong_last_sequence(last));
            }
        } else if !directives.expected_subject.is_empty() {
            return refuse(ApiError::expected_subject_without_sequence());
        }
        let last = self.stream.counters.last;
        if !directives.expected_last.is_empty() && number(directives.expected_last) != Some(last) {
            return refuse(ApiError::wrong_last_sequence(last));
        }
        if let Err(error) = self.stream.check_schedule(directives, subject, now) {
            return refuse(error);
        }
        match self.stream.check_scheduler(directives, subject) {
            Ok(false) => {}
            Ok(true) => {
                let ended = self.check_ended(directives.scheduler, block)?;
                if let ControlFlow::Break(error) = ended {
                    return refuse(error);
                }
            }
            Err(error) => return refuse(error),
        }
        if !directives.source.is_empty() {
            return refuse(ApiError::source_header_not_allowed());
        }
        if let Some(seq) = self.seen(directives.id)? {
            return Ok(ControlFlow::Break(PublishOutcome::Duplicate {
                seq: StreamSeq(seq),
            }));
        }
        let last_id = &self.stream.counters.last_id;
        if !directives.expected_last_id.is_empty() && directives.expected_last_id != last_id {
            let last_id = String::from_utf8_lossy(last_id);
            return refuse(ApiError::wrong_last_msg_id(last_id));
        }
        if !directives.rollup.is_empty() && !self.stream.limits.rollup {
            return refuse(ApiError::rollup("rollup not permitted"));
        }
        match directives.rollup() {
            Ok(rollup) => Ok(ControlFlow::Continue(rollup)),
            Err(error) => refuse(error),
        }
    }

    /// Why a client's increment cannot be counted.
    fn increment_refused(
        &self,
        directives: &Directives<'_>,
        record: &Proposed<'_>,
    ) -> Option<ApiError> {
        if directives.increment.is_empty() {
            None
        } else if counter::number(directives.increment).is_none() {
            Some(ApiError::counter_increment_invalid())
        } else if !self.stream.limits.counter {
            Some(ApiError::counter_disabled())
        } else if record.is_counted() {
            None
        } else if !record.payload().is_empty() {
            Some(ApiError::counter_with_payload())
        } else {
            counter::conflicts(directives).then(ApiError::counter_increment_invalid)
        }
    }

    /// What becomes of a record whose sum does not follow from the last one of its subject.
    fn miscounted(
        &mut self,
        directives: &Directives<'_>,
        record: &Proposed<'_>,
    ) -> Result<Option<PublishOutcome>, StoreError> {
        match record.tag {
            Tag::Client | Tag::Counter | Tag::Fast { .. } | Tag::Source { .. } => {}
            Tag::Marker | Tag::Mirror { .. } | Tag::Batch { .. } | Tag::Schedule { .. } => {
                return Ok(None);
            }
        }
        let refuse = |error| Ok(Some(PublishOutcome::Refused(error)));
        if directives.increment.is_empty() {
            return refuse(ApiError::counter_increment_missing());
        }
        let number = self.subject(record.block, record.subject())?;
        let last = self.subject_last(number)?;
        let Ok(counter) = self.stream.counter_at(last, &mut self.cx.view())? else {
            return refuse(ApiError::counter_broken());
        };
        let follows = counter.leads_to(directives.increment, record.payload());
        match record.tag {
            _ if record.is_counted() && follows => Ok(None),
            Tag::Source { .. } if follows => Ok(None),
            Tag::Source { .. } if counter::sum_of(record.payload()).is_err() => {
                refuse(ApiError::counter_broken())
            }
            Tag::Source { .. } => refuse(ApiError::expected_sequence_does_not_match()),
            _ => Ok(Some(PublishOutcome::Outdated)),
        }
    }

    /// Whether the schedule that produced a record is still the one it was.
    fn is_due_now(&mut self, directives: &Directives<'_>, tag: Tag) -> Result<bool, StoreError> {
        match tag {
            Tag::Schedule { seq, due } => self.is_due(directives.scheduler, seq, due),
            _ => Ok(false),
        }
    }

    /// The sequence that `Nats-Expected-Last-Subject-Sequence` is compared with.
    fn last_expected(
        &mut self,
        directives: &Directives<'_>,
        block: &Bytes,
        subject: &[u8],
    ) -> Result<u64, StoreError> {
        let filter = directives.expected_subject;
        if filter.is_empty() || filter == subject {
            let number = self.subject(block, subject)?;
            return self.subject_last(number);
        }
        if menes_protocol::subject::is_literal(filter) {
            let number = self.subject(block, filter)?;
            return self.subject_last(number);
        }
        self.last_matching(filter)
    }

    /// The last sequence of the subjects that match a filter, 0 for none.
    pub(super) fn last_matching(&mut self, filter: &[u8]) -> Result<u64, StoreError> {
        let Ok(filter) = std::str::from_utf8(filter) else {
            return Ok(0);
        };
        self.write_subjects()?;
        let mut last = 0;
        each_subject(
            Rows::Txn(self.cx.txn),
            self.stream.group,
            &Filters::new([filter]),
            &mut |_, row| {
                last = last.max(row.last);
                ControlFlow::Continue(())
            },
        )?;
        Ok(last)
    }

    /// The sequence that a message id got inside the duplicate window.
    pub(super) fn seen(&mut self, id: &[u8]) -> Result<Option<u64>, StoreError> {
        let stream = &mut *self.stream;
        let Some(window) = stream.limits.duplicate_window.filter(|_| !id.is_empty()) else {
            return Ok(None);
        };
        let now = stream.counters.log_time;
        let dedup = match &mut stream.dedup {
            Some(dedup) => dedup,
            none => {
                let loaded = Dedup::load(self.cx.txn, stream.group, window, now)?;
                none.insert(Box::new(loaded))
            }
        };
        dedup.expire(self.cx.txn, stream.group, window, now);
        Ok(dedup.get(id))
    }

    fn note_id(&mut self, directives: &Directives<'_>, seq: u64, time: Timestamp) {
        let last_id = &mut self.stream.counters.last_id;
        last_id.clear();
        last_id.extend_from_slice(directives.id);
        if !directives.id.is_empty()
            && let Some(dedup) = &mut self.stream.dedup
            && self.stream.limits.duplicate_window.is_some()
        {
            dedup.insert(directives.id, seq, time);
        }
    }

    fn note_ttl(&mut self, seconds: u64, seq: u64, time: Timestamp) {
        let expires = time.plus(std::time::Duration::from_secs(seconds));
        self.cx.txn.put(
            Table::Meta,
            ttl::key(self.stream.group, expires, seq),
            Vec::new(),
        );
        let next = self
            .stream
            .next_ttl
            .map_or(expires, |next| next.min(expires));
        self.stream.next_ttl = Some(next);
    }

    /// Gives a record a sequence and keeps nothing of it.
    fn pass_by(
        &mut self,
        open: Open,
        block: &Bytes,
        span: RecordSpan,
        directives: &Directives<'_>,
        rollup: Option<Rollup>,
    ) -> Result<PublishOutcome, StoreError> {
        let seq = self.skip(open, span);
        self.note_id(directives, seq, span.time);
        if let Some(rollup) = rollup {
            let number = self.subject(block, span.subject(block))?;
            self.roll_up(rollup, number, seq)?;
        }
        self.settle_schedule(directives, block, seq)?;
        Ok(PublishOutcome::NotKept {
            seq: StreamSeq(seq),
        })
    }

    /// Why a stream that discards new messages has no room for one.
    fn no_room(
        &mut self,
        subject: usize,
        size: u64,
        is_rollup: bool,
    ) -> Result<Option<ApiError>, StoreError> {
        let (max_messages, max_bytes, per_subject, discard_per_subject) = {
            let limits = &self.stream.limits;
            (
                limits.messages,
                limits.bytes,
                limits.per_subject,
                limits.discard_new_per_subject,
            )
        };
        // A message that replaces the oldest of its subject takes its place.
        let replaces = self.subject_count(subject) >= per_subject;
        if replaces && discard_per_subject && !is_rollup {
            return Ok(Some(ApiError::store(
                "maximum messages per subject exceeded",
            )));
        }
        if self.stream.counters.messages >= max_messages && !replaces {
            return Ok(Some(ApiError::store("maximum messages exceeded")));
        }
        if self.stream.counters.bytes.saturating_add(size) > max_bytes {
            let freed = match self.subject_first(subject)? {
                Some((first, block_first)) if replaces => {
                    self.size_of(subject, first, block_first)?
                }
                _ => 0,
            };
            if !replaces || freed < size {
                return Ok(Some(ApiError::store("maximum bytes exceeded")));
            }
        }
        Ok(None)
    }

    /// Removes what is too much after a message of `subject`, of so many bytes, was stored.
    fn make_room(&mut self, subject: usize, size: u64) -> Result<(), StoreError> {
        let per_subject = self.stream.limits.per_subject;
        while self.subject_count(subject) > per_subject {
            let Some((first, block_first)) = self.subject_first(subject)? else {
                break;
            };
            self.bound_memory();
            let slot = self.slot_of(block_first)?;
            self.take(slot, subject, first, true)?;
        }
        if !self.stream.limits.discard_new {
            self.room.grow(size);
            self.evict_to_limits()?;
        }
        Ok(())
    }

    /// Removes the oldest messages until the stream is within its limits, or there is no more room.
    pub(super) fn evict_to_limits(&mut self) -> Result<(), StoreError> {
        let (max_messages, max_bytes) = (self.stream.limits.messages, self.stream.limits.bytes);
        loop {
            let (messages, bytes) = (self.stream.counters.messages, self.stream.counters.bytes);
            let is_within = messages <= max_messages && bytes <= max_bytes;
            if messages == 0 || is_within || self.room.is_used_up() {
                return Ok(());
            }
            let slot = self.slot_at(self.stream.counters.first)?;
            let block = self.cx.cache.block(slot);
            let whole = messages.saturating_sub(u64::from(block.live)) >= max_messages
                || bytes.saturating_sub(block.live_bytes) >= max_bytes;
            let end = block.end();
            if whole && block.live > 1 && self.open.is_none_or(|open| open.slot != slot) {
                self.room.take_with(u64::from(block.live), block.live_bytes);
                self.take_block(slot)?;
                self.removed.push(Removed::Below(StreamSeq(end)));
            } else {
                self.evict_first()?;
                self.room
                    .take_with(1, bytes.saturating_sub(self.stream.counters.bytes));
            }
        }
    }

    pub(super) fn roll_up(
        &mut self,
        rollup: Rollup,
        subject: usize,
        seq: u64,
    ) -> Result<(), StoreError> {
        match rollup {
            Rollup::Subject if has_wildcard(self.subject_name(subject)) => {
                // Published to a wildcard, a message replaces whatever matches.
                let filter = self.subject_name(subject).clone();
                let purged = self.roll_up_matching(&filter, seq)?;
                if purged > 0 {
                    self.removed.push(Removed::Matching {
                        filter,
                        below: StreamSeq(seq),
                    });
                }
            }
            Rollup::Subject => {
                let report = self.subject_count(subject) <= MAX_REPORTED;
                let (purged, _) = self.purge_subject(subject, seq, report, &mut Room::all())?;
                if purged > 0 && !report {
                    let filter = self.subject_name(subject).clone();
                    self.removed.push(Removed::Matching {
                        filter,
                        below: StreamSeq(seq),
                    });
                }
            }
            Rollup::All => {
                self.purge_below(seq, &mut Room::all())?;
            }
        }
        Ok(())
    }
}
