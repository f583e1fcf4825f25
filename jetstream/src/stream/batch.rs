//! Whether a batch may be stored as a whole.
//!
//! Each message is checked as if those before it were stored already; their sequences are known,
//! for none of them is refused unless all are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::api::ApiError;
use crate::ports::StoreError;
use crate::record::{RecordSpan, records};
use crate::time::Timestamp;

use super::apply::MAX_HEADER_BYTES;
use super::counter;
use super::directives::{Directives, number};
use super::edit::Edit;

/// What those before a message of a batch will have done.
#[derive(Default)]
struct Staged<'b> {
    last: BTreeMap<&'b [u8], u64>,
    added: BTreeMap<&'b [u8], u64>,
    ids: BTreeSet<&'b [u8]>,
    /// Whether the last message of a subject is a schedule.
    schedules: BTreeMap<&'b [u8], bool>,
    /// The sums of counters.
    sums: BTreeMap<&'b [u8], &'b [u8]>,
    messages: u64,
    bytes: u64,
}

impl Edit<'_, '_, '_> {
    /// Why the batch that `block` holds cannot be stored.
    pub(super) fn batch_refused(&mut self, block: &Bytes) -> Result<Option<ApiError>, StoreError> {
        let mut staged = Staged::default();
        for span in records(block).into_iter().flatten() {
            let (subject, header) = (span.subject(block), span.header(block));
            let size = header.len() + span.payload(block).len();
            let limits = &self.stream.limits;
            if limits.sealed {
                return Ok(Some(ApiError::stream_sealed()));
            }
            if size as u64 > limits.message_bytes {
                return Ok(Some(ApiError::message_too_large()));
            }
            if header.len() > MAX_HEADER_BYTES {
                return Ok(Some(ApiError::headers_too_large()));
            }
            let directives = match Directives::parse(header) {
                Ok(directives) => directives,
                Err(error) => return Ok(Some(error)),
            };
            if let ControlFlow::Break(error) =
                self.check_staged(&directives, block, subject, span.time, &mut staged)?
            {
                return Ok(Some(error));
            }
            if let Some(error) = self.miscounted_staged(&directives, block, &span, &mut staged)? {
                return Ok(Some(error));
            }
            let stored = self.stream.limits.stored_size(
                subject.len(),
                header.len(),
                span.payload(block).len(),
            );
            if let Some(error) = self.no_room_staged(block, subject, stored, &mut staged)? {
                return Ok(Some(error));
            }
            let seq = self.stream.counters.last + staged.messages;
            staged.last.insert(subject, seq);
        }
        Ok(None)
    }

    fn check_staged<'b>(
        &mut self,
        directives: &Directives<'b>,
        block: &'b Bytes,
        subject: &'b [u8],
        now: Timestamp,
        staged: &mut Staged<'b>,
    ) -> Result<ControlFlow<ApiError>, StoreError> {
        let refuse = |error| Ok(ControlFlow::Break(error));
        if !directives.increment.is_empty() {
            if counter::number(directives.increment).is_none() {
                return refuse(ApiError::counter_increment_invalid());
            }
            if !self.stream.limits.counter {
                return refuse(ApiError::counter_disabled());
            }
        } else if self.stream.limits.counter {
            return refuse(ApiError::counter_increment_missing());
        }
        let stream = directives.expected_stream;
        if !stream.is_empty() && stream != self.stream.config.name.as_bytes() {
            return refuse(ApiError::expected_stream_does_not_match());
        }
        match directives.ttl() {
            Ok(Some(_)) if !self.stream.limits.ttl => {
                return refuse(ApiError::message_ttl_disabled());
            }
            Ok(_) => {}
            Err(error) => return refuse(error),
        }
        if !directives.id.is_empty()
            && (!staged.ids.insert(directives.id) || self.seen(directives.id)?.is_some())
        {
            return refuse(ApiError::atomic_batch_duplicate_id());
        }
        if !directives.source.is_empty() {
            return refuse(ApiError::source_header_not_allowed());
        }
        let last = self.stream.counters.last + staged.messages;
        if !directives.expected_last.is_empty() && number(directives.expected_last) != Some(last) {
            return refuse(ApiError::wrong_last_sequence(last));
        }
        if !directives.expected_last_in_subject.is_empty() {
            let filter = match directives.expected_subject {
                b"" => subject,
                filter => filter,
            };
            let last = self.last_staged(filter, block, staged)?;
            if number(directives.expected_last_in_subject) != Some(last) {
                return refuse(ApiError::wrong_last_sequence(last));
            }
        } else if !directives.expected_subject.is_empty() {
            return refuse(ApiError::expected_subject_without_sequence());
        }
        let is_schedule = match self.stream.check_schedule(directives, subject, now) {
            Ok(is_schedule) => is_schedule,
            Err(error) => return refuse(error),
        };
        match self.stream.check_scheduler(directives, subject) {
            Ok(false) => {}
            Ok(true) => {
                let scheduler = directives.scheduler;
                let ended = match staged.schedules.get(scheduler) {
                    Some(true) => ControlFlow::Continue(()),
                    Some(false) => ControlFlow::Break(ApiError::schedule_scheduler_invalid()),
                    None => self.check_ended(scheduler, block)?,
                };
                if let ControlFlow::Break(error) = ended {
                    return refuse(error);
                }
            }
            Err(error) => return refuse(error),
        }
        staged.schedules.insert(subject, is_schedule);
        if !directives.rollup.is_empty() && !self.stream.limits.rollup {
            return refuse(ApiError::rollup("rollup not permitted"));
        }
        match directives.rollup() {
            Ok(_) => Ok(ControlFlow::Continue(())),
            Err(error) => refuse(error),
        }
    }

    /// Why the sum of a counter's message does not follow from those before it.
    fn miscounted_staged<'b>(
        &mut self,
        directives: &Directives<'b>,
        block: &'b Bytes,
        span: &RecordSpan,
        staged: &mut Staged<'b>,
    ) -> Result<Option<ApiError>, StoreError> {
        if !self.stream.limits.counter {
            return Ok(None);
        }
        let (subject, payload) = (span.subject(block), span.payload(block));
        let follows = match staged.sums.insert(subject, payload) {
            Some(before) => counter::follows(before, directives.increment, payload),
            None => {
                let number = self.subject(block, subject)?;
                let last = self.subject_last(number)?;
                match self.stream.counter_at(last, &mut self.cx.view())? {
                    Ok(counter) => counter.leads_to(directives.increment, payload),
                    Err(_) => return Ok(Some(ApiError::counter_broken())),
                }
            }
        };
        // The server counted it, so only something that came in between can be the reason.
        Ok((!follows).then(ApiError::temporarily_unavailable))
    }

    /// The last sequence of what matches `filter` once the messages before are stored.
    fn last_staged(
        &mut self,
        filter: &[u8],
        block: &Bytes,
        staged: &Staged<'_>,
    ) -> Result<u64, StoreError> {
        if menes_protocol::subject::is_literal(filter) {
            if let Some(last) = staged.last.get(filter) {
                return Ok(*last);
            }
            let number = self.subject(block, filter)?;
            return self.subject_last(number);
        }
        let last = self.last_matching(filter)?;
        let matching = staged
            .last
            .iter()
            .filter(|(subject, _)| menes_protocol::subject::matches(filter, subject));
        Ok(matching.map(|(_, seq)| *seq).fold(last, u64::max))
    }

    /// Counts a message; why there is no room for it in a stream that discards new ones.
    fn no_room_staged<'b>(
        &mut self,
        block: &Bytes,
        subject: &'b [u8],
        size: u64,
        staged: &mut Staged<'b>,
    ) -> Result<Option<ApiError>, StoreError> {
        staged.messages += 1;
        staged.bytes = staged.bytes.saturating_add(size);
        let added = staged.added.entry(subject).or_default();
        *added += 1;
        if !self.stream.limits.discard_new {
            return Ok(None);
        }
        let at = self.subject(block, subject)?;
        let in_subject = self.subject_count(at).saturating_add(*added);
        let (limits, counters) = (&self.stream.limits, &self.stream.counters);
        let exceeded = if in_subject > limits.per_subject && limits.discard_new_per_subject {
            "maximum messages per subject exceeded"
        } else if in_subject > limits.per_subject {
            return Ok(None);
        } else if counters.messages.saturating_add(staged.messages) > limits.messages {
            "maximum messages exceeded"
        } else if counters.bytes.saturating_add(staged.bytes) > limits.bytes {
            "maximum bytes exceeded"
        } else {
            return Ok(None);
        };
        Ok(Some(ApiError::store(exceeded)))
    }
}
