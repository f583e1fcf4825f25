//! Messages that are schedules: where they stand, and what they produce.
//!
//! A schedule is a message with a pattern; the last one on its subject counts. When it is due the
//! server proposes the message that it produces, and applying that one moves the schedule on, or
//! removes it when it was for once. When a schedule is due is kept in rows, which may outlive its
//! message: a row whose message is gone is taken away when its time comes.

use std::ops::ControlFlow;

use bytes::Bytes;
use menes_protocol::headers::{HeaderBlock, HeaderBuilder};
use menes_protocol::subject;

use super::codec::{behind_prefix, corrupt};
use super::directives::{Directives, ttl_of};
use super::edit::Edit;
use super::rows::Rows;
use super::schedule::{Occurrence, next, rfc3339, zone};
use super::subject::SubjectRow;
use super::{Stream, View};
use crate::api::ApiError;
use crate::ids::{GroupId, StreamSeq};
use crate::ports::{Seek, StoreError, StoreErrorKind, Table};
use crate::record::StoredMessage;
use crate::time::Timestamp;
use crate::txn::Txn;

const BY_TIME: &[u8] = b"schedule-due/";
const BY_SUBJECT: &[u8] = b"schedule/";
const UNSCHEDULED: &[u8] = b"schedule-scan/";
const PURGE: &str = "purge";
/// Stands for a time zone that is named and has no name.
pub(super) const NAMELESS_ZONE: &[u8] = b" ";
/// Schedules looked at in one go.
const MAX_DUE: usize = super::few_in_tests(1024);
/// Blocks looked through for schedules in one go.
const MAX_BLOCKS: usize = super::few_in_tests(64);
/// How the field of a header that makes a message a schedule begins.
const FIELD: &[u8] = b"Nats-Schedule:";

/// A message that a schedule produces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The message of the schedule.
    pub seq: StreamSeq,
    /// When it was due.
    pub due: Timestamp,
    /// Where it goes.
    pub subject: Vec<u8>,
    /// Header block.
    pub header: Bytes,
    /// Body.
    pub payload: Bytes,
}

/// The occurrence of a schedule that has this header, `None` where it has no pattern.
///
/// # Errors
/// 10189 and 10223.
fn occurrence(
    directives: &Directives<'_>,
    last: Timestamp,
    now: Timestamp,
) -> Result<Option<Occurrence>, ApiError> {
    let in_zone = if directives.zone.is_empty() {
        None
    } else {
        let named = std::str::from_utf8(directives.zone).ok().and_then(zone);
        Some(named.ok_or_else(ApiError::schedule_time_zone_invalid)?)
    };
    if directives.schedule.is_empty() {
        return Ok(None);
    }
    let pattern = std::str::from_utf8(directives.schedule).unwrap_or_default();
    next(pattern, in_zone.as_ref(), last, now)
        .map(Some)
        .ok_or_else(ApiError::schedule_pattern_invalid)
}

/// Whether the header block of a stored message makes it a schedule.
pub(super) fn is_schedule(header: &[u8]) -> bool {
    HeaderBlock::parse(header)
        .ok()
        .and_then(|block| block.get("Nats-Schedule"))
        .is_some_and(|pattern| !pattern.is_empty())
}

impl Stream {
    /// Makes a schedule replace the one before it on its subject.
    pub(super) fn schedule_rolls_up(&self, header: &[u8]) -> Option<Bytes> {
        if !self.limits.schedules || memchr::memmem::find(header, FIELD).is_none() {
            return None;
        }
        let block = HeaderBlock::parse(header).ok()?;
        let asks = |name| block.get(name).is_some_and(|value| !value.is_empty());
        if !asks("Nats-Schedule") || asks("Nats-Rollup") {
            return None;
        }
        let mut own = HeaderBuilder::from_block(&block);
        own.push("Nats-Rollup", "sub");
        Some(own.finish())
    }

    /// Why a message is no schedule that this stream takes.
    ///
    /// # Errors
    /// What is wrong first, in the order in which nats-server looks.
    pub(super) fn check_schedule(
        &self,
        directives: &Directives<'_>,
        subject: &[u8],
        now: Timestamp,
    ) -> Result<bool, ApiError> {
        let disabled = || Err(ApiError::schedules_disabled());
        let found = match occurrence(directives, now, now) {
            Err(_) if !self.limits.schedules => return disabled(),
            found => found?,
        };
        if found.is_none() {
            return Ok(false);
        }
        if !self.limits.schedules {
            return disabled();
        }
        if ttl_of(directives.schedule_ttl).is_err() {
            return Err(ApiError::schedule_ttl_invalid());
        }
        if !matches!(directives.schedule_rollup, b"" | b"sub") {
            return Err(ApiError::schedule_rollup_invalid());
        }
        if !directives.schedule_ttl.is_empty() && !self.limits.ttl {
            return Err(ApiError::message_ttl_disabled());
        }
        let (target, source) = (directives.target, directives.schedule_source);
        let is_inside = |wanted: &[u8]| {
            let subjects = self.config.subjects.iter();
            subjects
                .into_iter()
                .any(|ours| subject::overlaps(ours.as_bytes(), wanted))
        };
        if !subject::is_literal(target) || target == subject {
            return Err(ApiError::schedule_target_invalid());
        }
        let has_source = !source.is_empty();
        if has_source && (source == target || source == subject || !subject::is_literal(source)) {
            return Err(ApiError::schedule_source_invalid());
        }
        if !is_inside(target) {
            return Err(ApiError::schedule_target_invalid());
        }
        if has_source && !is_inside(source) {
            return Err(ApiError::schedule_source_invalid());
        }
        if !directives.rollup.eq_ignore_ascii_case(b"sub") {
            return Err(ApiError::schedule_rollup_invalid());
        }
        Ok(true)
    }

    /// Why a client's message cannot end a schedule.
    ///
    /// # Errors
    /// 10212 and 10188.
    pub(super) fn check_scheduler(
        &self,
        directives: &Directives<'_>,
        subject: &[u8],
    ) -> Result<bool, ApiError> {
        let (scheduler, next) = (directives.scheduler, directives.schedule_next);
        if next.is_empty() {
            return match scheduler {
                b"" => Ok(false),
                _ => Err(ApiError::schedule_scheduler_invalid()),
            };
        }
        if next != PURGE.as_bytes() || scheduler == subject || !subject::is_literal(scheduler) {
            return Err(ApiError::schedule_scheduler_invalid());
        }
        if !self.limits.schedules {
            return Err(ApiError::schedules_disabled());
        }
        Ok(true)
    }

    /// When the next schedule is due.
    #[must_use]
    pub fn next_schedule(&self) -> Option<Timestamp> {
        self.next_schedule
    }

    /// Reads what has to be looked through for schedules.
    pub(super) fn load_unscheduled(&mut self, rows: Rows<'_>) -> Result<(), StoreError> {
        let key = prefix(UNSCHEDULED, self.group);
        let Some(value) = rows.get(Table::Meta, &key)? else {
            return Ok(());
        };
        let (numbers, _) = value.as_chunks::<8>();
        let [from, to] = numbers else {
            return Err(corrupt(self.group, "where schedules are looked for"));
        };
        self.unscheduled = Some((u64::from_be_bytes(*from), u64::from_be_bytes(*to)));
        Ok(())
    }

    pub(super) fn load_next_schedule(&mut self, rows: Rows<'_>) -> Result<(), StoreError> {
        if self.unscheduled.is_some() {
            self.next_schedule = Some(Timestamp::ZERO);
            return Ok(());
        }
        let prefix = prefix(BY_TIME, self.group);
        let found = rows.seek(Table::Meta, &prefix, Seek::AtOrAfter)?;
        self.next_schedule = found
            .and_then(|(key, _)| parse(self.group, &key))
            .map(|(due, _)| due);
        Ok(())
    }

    /// What is to be produced at `now`, oldest schedules first, and whether rows were found whose
    /// messages are gone.
    ///
    /// # Errors
    /// As the store.
    pub fn due_schedules(
        &self,
        now: Timestamp,
        view: &mut View<'_>,
    ) -> Result<(Vec<Produced>, bool), StoreError> {
        let mut due = Vec::new();
        for (seq, at, _) in self.due_rows(view.rows, now)? {
            match self.message(StreamSeq(seq), view) {
                Ok(Some(message)) => due.push((seq, at, Some(message))),
                Ok(None) => due.push((seq, at, None)),
                Err(error) if error.kind == StoreErrorKind::Corrupt => due.push((seq, at, None)),
                Err(error) => return Err(error),
            }
        }
        due.sort_unstable_by_key(|(seq, _, _)| *seq);
        let mut produced = Vec::new();
        let mut is_stale = self.unscheduled.is_some();
        for (_, at, message) in due {
            let made = match &message {
                Some(message) => self.produce(message, at, now, view)?,
                None => None,
            };
            is_stale |= made.is_none();
            produced.extend(made);
        }
        Ok((produced, is_stale))
    }

    /// Sequence, time and subject of the rows that are due.
    fn due_rows(
        &self,
        rows: Rows<'_>,
        now: Timestamp,
    ) -> Result<Vec<(u64, Timestamp, Bytes)>, StoreError> {
        let from = prefix(BY_TIME, self.group);
        let to = behind_prefix(time_key(self.group, now, u64::MAX));
        let mut due = Vec::new();
        rows.scan(Table::Meta, &from, &to, &mut |key, value| {
            if let Some((at, seq)) = parse(self.group, key) {
                due.push((seq, at, Bytes::copy_from_slice(value)));
            }
            due.len() < MAX_DUE
        })?;
        Ok(due)
    }

    /// The message of a schedule that was due at `at`.
    fn produce(
        &self,
        schedule: &StoredMessage,
        at: Timestamp,
        now: Timestamp,
        view: &mut View<'_>,
    ) -> Result<Option<Produced>, StoreError> {
        let Ok(directives) = Directives::parse(schedule.header()) else {
            return Ok(None);
        };
        let Ok(Some(following)) = occurrence(&directives, at, now) else {
            return Ok(None);
        };
        if directives.target.is_empty() || ttl_of(directives.schedule_ttl).is_err() {
            return Ok(None);
        }
        let source = match directives.schedule_source {
            b"" => None,
            source => match SubjectRow::read(view.rows, self.group, source)? {
                Some(row) => match self.message(StreamSeq(row.last), view) {
                    Err(error) if error.kind == StoreErrorKind::Corrupt => None,
                    message => message?,
                },
                None => None,
            },
        };
        let content = source.as_ref().unwrap_or(schedule);
        let mut header = match HeaderBlock::parse(content.header()) {
            Ok(block) => HeaderBuilder::from_block(&block),
            Err(_) => HeaderBuilder::new(),
        };
        header.retain(|name, _| {
            !name.starts_with(b"Nats-Schedule")
                && !name.starts_with(b"Nats-Expected-")
                && !matches!(name, b"Nats-Msg-Id" | b"Nats-TTL" | b"Nats-Rollup")
        });
        header.push("Nats-Scheduler", schedule.subject());
        header.push(
            "Nats-Schedule-Next",
            if following.repeats {
                following.text.as_str()
            } else {
                PURGE
            },
        );
        if !directives.schedule_ttl.is_empty() {
            header.push("Nats-TTL", directives.schedule_ttl);
        }
        if !directives.schedule_rollup.is_empty() {
            header.push("Nats-Rollup", directives.schedule_rollup);
        }
        let payload = content.payload();
        Ok(Some(Produced {
            seq: schedule.seq,
            due: at,
            subject: directives.target.to_vec(),
            header: header.finish(),
            payload: content.block.slice_ref(payload),
        }))
    }
}

impl Edit<'_, '_, '_> {
    /// Whether a client may end the schedule on `scheduler`: what is there has to be one, if
    /// anything is.
    pub(super) fn check_ended(
        &mut self,
        scheduler: &[u8],
        within: &Bytes,
    ) -> Result<ControlFlow<ApiError>, StoreError> {
        let number = self.subject(within, scheduler)?;
        let last = self.subject_last(number)?;
        let message = self.stream.message(StreamSeq(last), &mut self.cx.view())?;
        Ok(match message {
            Some(message) if !is_schedule(message.header()) => {
                ControlFlow::Break(ApiError::schedule_scheduler_invalid())
            }
            _ => ControlFlow::Continue(()),
        })
    }

    /// Notes what a stored message means for schedules.
    pub(super) fn note_schedule(
        &mut self,
        directives: &Directives<'_>,
        subject: &[u8],
        seq: u64,
        time: Timestamp,
    ) -> Result<(), StoreError> {
        if !self.stream.limits.schedules {
            return Ok(());
        }
        let now = self.stream.counters.log_time;
        match occurrence(directives, time, now) {
            Ok(Some(first)) => self.set_schedule(subject, Some((seq, first.at)))?,
            _ if directives.scheduler.is_empty() => self.set_schedule(subject, None)?,
            _ => {}
        }
        Ok(())
    }

    /// Moves on, or removes, the schedule that produced a message.
    pub(super) fn settle_schedule(
        &mut self,
        directives: &Directives<'_>,
        within: &Bytes,
        seq: u64,
    ) -> Result<(), StoreError> {
        let (scheduler, next) = (directives.scheduler, directives.schedule_next);
        if scheduler.is_empty() || next.is_empty() {
            return Ok(());
        }
        if next == PURGE.as_bytes() {
            if self.stream.limits.rollup {
                let number = self.subject(within, scheduler)?;
                self.roll_up(super::directives::Rollup::Subject, number, seq)?;
                self.set_schedule(scheduler, None)?;
            }
            return Ok(());
        }
        if !self.stream.limits.schedules {
            return Ok(());
        }
        let next = std::str::from_utf8(next).ok().and_then(rfc3339);
        if let (Some(next), Some((seq, _))) = (next, self.schedule_of(scheduler)?) {
            self.set_schedule(scheduler, Some((seq, next)))?;
        }
        Ok(())
    }

    /// A message that a schedule produced was refused: the schedule goes on, or ends.
    pub(super) fn give_up_occurrence(
        &mut self,
        directives: &Directives<'_>,
    ) -> Result<(), StoreError> {
        let next = std::str::from_utf8(directives.schedule_next).ok();
        let next = next.and_then(rfc3339);
        let Some((seq, _)) = self.schedule_of(directives.scheduler)? else {
            return Ok(());
        };
        self.set_schedule(directives.scheduler, next.map(|next| (seq, next)))
    }

    /// Whether the schedule on a subject is this message and due at this time.
    pub(super) fn is_due(
        &mut self,
        scheduler: &[u8],
        seq: u64,
        due: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(self.schedule_of(scheduler)? == Some((seq, due))
            && self
                .stream
                .message(StreamSeq(seq), &mut self.cx.view())
                .is_ok_and(|message| message.is_some()))
    }

    /// Takes away rows of schedules that are due and whose messages are gone.
    pub(super) fn drop_stale_schedules(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.stream.next_schedule.is_none_or(|next| next > now) {
            return Ok(());
        }
        for (seq, due, subject) in self.stream.due_rows(Rows::Txn(self.cx.txn), now)? {
            let message = self.stream.message(StreamSeq(seq), &mut self.cx.view());
            let produces = match message {
                Ok(Some(message)) => {
                    let view = &mut self.cx.view();
                    self.stream.produce(&message, due, now, view)?.is_some()
                }
                Ok(None) => false,
                Err(error) if error.kind == StoreErrorKind::Corrupt => false,
                Err(error) => return Err(error),
            };
            if produces {
                continue;
            }
            if self.schedule_of(&subject)? == Some((seq, due)) {
                self.set_schedule(&subject, None)?;
            } else {
                let key = time_key(self.stream.group, due, seq);
                self.cx.txn.delete(Table::Meta, key);
            }
        }
        self.find_schedules()?;
        self.stream.load_next_schedule(Rows::Txn(self.cx.txn))
    }

    /// Begins to look for schedules that were stored when they were not switched on: copies of
    /// another stream's.
    pub(super) fn look_for_schedules(&mut self) {
        let counters = &self.stream.counters;
        let all = (counters.first, counters.last);
        self.set_unscheduled((counters.messages > 0).then_some(all));
    }

    fn set_unscheduled(&mut self, unscheduled: Option<(u64, u64)>) {
        let key = prefix(UNSCHEDULED, self.stream.group);
        match unscheduled {
            Some((from, to)) => {
                let value = [from.to_be_bytes(), to.to_be_bytes()].concat();
                self.cx.txn.put(Table::Meta, key, value);
                self.stream.next_schedule = Some(Timestamp::ZERO);
            }
            None => self.cx.txn.delete(Table::Meta, key),
        }
        self.stream.unscheduled = unscheduled;
    }

    /// Looks through some more blocks for schedules from before they were switched on.
    fn find_schedules(&mut self) -> Result<(), StoreError> {
        let Some((mut from, to)) = self.stream.unscheduled else {
            return Ok(());
        };
        for _ in 0..MAX_BLOCKS {
            let rows = Rows::Txn(self.cx.txn);
            let next = self.stream.next_live(rows, self.cx.cache, from)?;
            let Some((slot, first)) = next.filter(|(_, first)| *first <= to) else {
                self.set_unscheduled(None);
                return Ok(());
            };
            from = self.cx.cache.block(slot).end();
            match self.stream.load_data(self.cx.log, self.cx.cache, slot) {
                Err(error) if error.kind == StoreErrorKind::Corrupt => continue,
                loaded => loaded?,
            }
            let data = self.cx.cache.data(slot);
            if data.is_some_and(|(bytes, _)| memchr::memmem::find(bytes, FIELD).is_some()) {
                self.schedule_stored(first, from)?;
            }
        }
        self.set_unscheduled(Some((from, to)));
        Ok(())
    }

    /// Makes schedules of the messages from one sequence to another that are the last ones of
    /// their subjects.
    fn schedule_stored(&mut self, from: u64, to: u64) -> Result<(), StoreError> {
        let now = self.stream.counters.log_time;
        for seq in from..to {
            let message = self.stream.message(StreamSeq(seq), &mut self.cx.view())?;
            let Some(message) = message else {
                continue;
            };
            let Ok(directives) = Directives::parse(message.header()) else {
                continue;
            };
            let Ok(Some(first)) = occurrence(&directives, message.time(), now) else {
                continue;
            };
            let number = self.subject(&message.block, message.subject())?;
            if self.subject_last(number)? == seq {
                self.set_schedule(message.subject(), Some((seq, first.at)))?;
            }
        }
        Ok(())
    }

    fn schedule_of(&self, subject: &[u8]) -> Result<Option<(u64, Timestamp)>, StoreError> {
        let group = self.stream.group;
        let key = subject_key(group, subject);
        let Some(value) = Rows::Txn(self.cx.txn).get(Table::Meta, &key)? else {
            return Ok(None);
        };
        let (numbers, _) = value.as_chunks::<8>();
        match numbers {
            [seq, due] => Ok(Some((
                u64::from_be_bytes(*seq),
                Timestamp(i64::from_be_bytes(*due)),
            ))),
            _ => Err(corrupt(group, "the row of a schedule")),
        }
    }

    fn set_schedule(
        &mut self,
        subject: &[u8],
        schedule: Option<(u64, Timestamp)>,
    ) -> Result<(), StoreError> {
        let group = self.stream.group;
        // Rows are sorted by time, and no time before the epoch.
        let schedule = schedule.map(|(seq, due)| (seq, due.max(Timestamp::ZERO)));
        let before = self.schedule_of(subject)?;
        if before == schedule {
            return Ok(());
        }
        if let Some((seq, due)) = before {
            self.cx.txn.delete(Table::Meta, time_key(group, due, seq));
        }
        let key = subject_key(group, subject);
        match schedule {
            Some((seq, due)) => {
                let value = [seq.to_be_bytes(), due.0.to_be_bytes()].concat();
                self.cx.txn.put(Table::Meta, key, value);
                let key = time_key(group, due, seq);
                self.cx.txn.put(Table::Meta, key, subject.to_vec());
            }
            None => self.cx.txn.delete(Table::Meta, key),
        }
        self.stream.load_next_schedule(Rows::Txn(self.cx.txn))
    }
}

/// Deletes every row of a group.
pub(super) fn delete_all(group: GroupId, txn: &mut Txn<'_>) {
    for kind in [BY_TIME, BY_SUBJECT, UNSCHEDULED] {
        let prefix = prefix(kind, group);
        txn.delete_range(Table::Meta, prefix.clone(), behind_prefix(prefix));
    }
}

fn prefix(kind: &[u8], group: GroupId) -> Vec<u8> {
    [kind, &group.0.to_be_bytes()].concat()
}

fn subject_key(group: GroupId, subject: &[u8]) -> Vec<u8> {
    [prefix(BY_SUBJECT, group).as_slice(), subject].concat()
}

fn time_key(group: GroupId, due: Timestamp, seq: u64) -> Vec<u8> {
    let mut key = prefix(BY_TIME, group);
    key.extend_from_slice(&due.0.max(0).to_be_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

fn parse(group: GroupId, key: &[u8]) -> Option<(Timestamp, u64)> {
    let rest = key.strip_prefix(prefix(BY_TIME, group).as_slice())?;
    let (time, seq) = rest.split_first_chunk::<8>()?;
    Some((
        Timestamp(i64::from_be_bytes(*time)),
        u64::from_be_bytes(seq.try_into().ok()?),
    ))
}
