//! Batches that are published fast: acknowledged every so many messages, told of gaps.
//!
//! Everything about such a batch is in the reply subject of each message:
//!
//! ```text
//! <inbox>.<id>.<flow>.<gap>.<sequence>.<operation>.$FI
//! ```
//!
//! The messages are stored one by one, as they come. Where a gap ends the batch, nothing may be
//! stored behind a message that was refused, so only one run of them is on its way through the log
//! at a time; what comes in meanwhile is the next. Within a run, what follows a refused message of
//! the same batch is refused when it is applied.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use menes_protocol::headers::{HeaderBlock, HeaderBuilder};
use xxhash_rust::xxh3::xxh3_64;

use super::counting::{Increment, Totals};
use super::gather::Record;
use super::request::send;
use super::{Application, Engine, Publish, StreamGroup, next_random};
use crate::api::request::{REQUIRED_LEVEL_HEADER, check_required_level};
use crate::api::{self, ApiError, json};
use crate::ids::GroupId;
use crate::ports::{Entry, LogStore, Outbox, StateStore, StoreError};
use crate::record::{self, Tag};
use crate::stream::PublishOutcome;
use crate::time::Timestamp;

const SUFFIX: &[u8] = b".$FI";
/// Most unfinished batches of a stream.
const MAX_OPEN: usize = 1000;
/// Most unfinished batches of all streams.
const MAX_OPEN_IN_ALL: usize = 50_000;
/// How long a batch waits for its next message.
const IDLE: Duration = Duration::from_secs(10);
/// What a record takes beside its parts, at most.
const RECORD_BYTES: usize = 64;
/// Longest id of a batch, bytes.
const MAX_ID: usize = 64;
/// Messages that all batches of a stream together may publish between acknowledgements.
const MAX_FLOW: u16 = 500;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Start,
    Append,
    /// It is the last one.
    Commit,
    /// The one before it was the last.
    CommitBefore,
    /// Nothing, but an answer.
    Ping,
}

/// The reply subject of a message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step<'a> {
    id: &'a [u8],
    /// Most messages between acknowledgements.
    flow: u16,
    gaps_are_fine: bool,
    seq: u64,
    operation: Operation,
}

/// Whether a reply subject speaks of a batch.
pub(super) fn is_fast(reply: &[u8]) -> bool {
    reply.len() > SUFFIX.len() && reply.ends_with(SUFFIX)
}

impl<'a> Step<'a> {
    fn parse(reply: &'a [u8]) -> Option<Self> {
        let rest = reply.strip_suffix(SUFFIX)?;
        let mut parts = rest.rsplitn(6, |byte| *byte == b'.');
        let operation = match parts.next()? {
            b"0" => Operation::Start,
            b"1" => Operation::Append,
            b"2" => Operation::Commit,
            b"3" => Operation::CommitBefore,
            b"4" => Operation::Ping,
            _ => return None,
        };
        let seq = number(parts.next()?).filter(|seq| (1..u64::MAX).contains(seq))?;
        let fits = match operation {
            Operation::Start => seq == 1,
            Operation::Append | Operation::CommitBefore => seq > 1,
            Operation::Commit | Operation::Ping => true,
        };
        let gaps_are_fine = match parts.next()? {
            b"ok" => true,
            b"fail" => false,
            _ => return None,
        };
        let flow = match number(parts.next()?) {
            None | Some(0) => 10,
            Some(flow) => u16::try_from(flow).unwrap_or(u16::MAX),
        };
        let id = parts.next()?;
        // Something has to be before it.
        parts.next()?;
        fits.then_some(Self {
            id,
            flow,
            gaps_are_fine,
            seq,
            operation,
        })
    }

    fn commits(&self) -> bool {
        matches!(self.operation, Operation::Commit | Operation::CommitBefore)
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_number)?;
    text.parse().ok()
}

/// What waits for its turn, and the unfinished batches of a stream.
#[derive(Debug, Default)]
pub(super) struct FastBatches {
    open: BTreeMap<Vec<u8>, FastBatch>,
    queue: VecDeque<Waiting>,
    /// Messages on their way through the log.
    in_flight: usize,
}

#[derive(Debug)]
struct Waiting {
    reply: Vec<u8>,
    subject: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
    /// It was on its way already, and is to be counted again.
    is_prepared: bool,
}

/// An unfinished batch.
#[derive(Debug)]
struct FastBatch {
    due: Timestamp,
    gaps_are_fine: bool,
    most_flow: u16,
    /// Messages between acknowledgements.
    flow: u16,
    /// The highest sequence that came.
    last: u64,
    /// The highest of which is known what became of it.
    settled: u64,
    /// The one acknowledged last.
    acknowledged: u64,
    /// Messages of which is not known what becomes of them.
    pending: u64,
    /// Sequence in the stream of the last one stored.
    stream_seq: u64,
    is_committed: bool,
    /// Where the last ack goes, if not to the last message stored.
    ack_to: Option<Vec<u8>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.subject.len() + self.header.len() + self.payload.len() + RECORD_BYTES
    }
}

impl FastBatches {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The next message that waits, as long as there is room for any.
    fn take(&mut self, room: &mut usize) -> Option<Waiting> {
        let next = self.queue.front().filter(|_| *room > 0)?;
        *room = room.saturating_sub(next.bytes());
        // What does not fit begins the next run.
        if self.queue.get(1).is_some_and(|after| after.bytes() > *room) {
            *room = 0;
        }
        self.queue.pop_front()
    }

    /// Whether messages wait for their turn.
    pub(super) fn waits(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.open.values().map(|batch| batch.due).min()
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        for batch in self.open.values_mut() {
            // Its client waits for the disk.
            if batch.pending > 0 {
                batch.due = now.plus(IDLE);
            }
        }
        self.open.retain(|_, batch| batch.due > now);
    }
}

impl FastBatch {
    /// The text of an acknowledgement when one is due, which also sets the pace.
    fn acknowledge(&mut self, batches: usize) -> Option<Vec<u8>> {
        let flow = u64::from(self.flow);
        if self.settled < self.acknowledged + flow {
            return None;
        }
        self.acknowledged += (self.settled - self.acknowledged) / flow * flow;
        let share = usize::from(MAX_FLOW) / batches.max(1);
        let most = u16::try_from(share).unwrap_or(MAX_FLOW).max(1);
        let most = most.min(self.most_flow);
        if self.flow < most {
            self.flow = self.flow.saturating_mul(2).min(most);
        } else if self.flow > most {
            self.flow = (self.flow / 2).max(most);
        }
        Some(self.flow_text())
    }

    fn flow_text(&self) -> Vec<u8> {
        flow_text(self.acknowledged, self.flow)
    }

    /// Whether it is over and everything about it is known.
    fn is_done(&self) -> bool {
        self.is_committed && (self.pending == 0 || self.settled == self.last)
    }
}

fn flow_text(seq: u64, flow: u16) -> Vec<u8> {
    format!(r#"{{"type":"ack","seq":{seq},"msgs":{flow}}}"#).into_bytes()
}

fn gap_text(expected: u64, seq: u64) -> Vec<u8> {
    format!(r#"{{"type":"gap","last_seq":{expected},"seq":{seq}}}"#).into_bytes()
}

fn error_text(seq: u64, error: &ApiError) -> Vec<u8> {
    let mut text = format!(r#"{{"type":"err","seq":{seq},"error":"#).into_bytes();
    json::write(&mut text, error);
    text.push(b'}');
    text
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Takes a message of a batch that is published fast.
    pub(super) fn publish_fast(
        &mut self,
        group: GroupId,
        now: Timestamp,
        message: Publish<'_>,
        out: &mut dyn Outbox,
    ) {
        if let Err(error) = self.take_fast(group, now, message, out) {
            self.refuse_fast(group, message.reply, &error, out);
        }
        self.schedule_batches(group);
    }

    fn refuse_fast(&self, group: GroupId, reply: &[u8], error: &ApiError, out: &mut dyn Outbox) {
        if let Some(target) = self.groups.get(&group)
            && !target.stream.config().no_ack
        {
            let mut text = Vec::new();
            api::pub_ack::write_pub_error(&mut text, &target.name, error);
            send(&target.account, reply, b"", &text, out);
        }
    }

    fn take_fast(
        &mut self,
        group: GroupId,
        now: Timestamp,
        message: Publish<'_>,
        out: &mut dyn Outbox,
    ) -> Result<(), ApiError> {
        // Looked at where one more begins.
        let begins = Step::parse(message.reply).is_some_and(|step| step.seq == 1);
        let open = match begins {
            true => self.groups.values().map(|target| target.fast.len()).sum(),
            false => 0_usize,
        };
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(ApiError::stream_not_found());
        };
        let config = target.stream.config();
        if config.sealed {
            return Err(ApiError::stream_sealed());
        }
        let size = message.header.len() + message.payload.len();
        if u64::try_from(config.max_msg_size).is_ok_and(|most| size as u64 > most) {
            return Err(ApiError::message_too_large());
        }
        if !config.allow_batched {
            return Err(ApiError::batch_disabled());
        }
        let step = Step::parse(message.reply).ok_or_else(ApiError::batch_pattern_invalid)?;
        if step.id.len() > MAX_ID {
            return Err(ApiError::batch_id_invalid());
        }
        let batches = &mut target.fast;
        if !batches.open.contains_key(step.id) {
            if step.seq != 1 {
                return Err(ApiError::batch_id_unknown());
            }
            if batches.open.len() >= MAX_OPEN || open >= MAX_OPEN_IN_ALL {
                return Err(ApiError::batch_too_many_in_flight());
            }
            let flow = match batches.open.is_empty() {
                true => step.flow.min(MAX_FLOW),
                false => 1,
            };
            let batch = FastBatch {
                due: now,
                gaps_are_fine: step.gaps_are_fine,
                most_flow: step.flow,
                flow,
                last: 0,
                settled: 0,
                acknowledged: 0,
                pending: 0,
                stream_seq: 0,
                is_committed: false,
                ack_to: None,
            };
            batches.open.insert(step.id.to_vec(), batch);
        }
        let mut header = message.header.to_vec();
        if let Ok(block) = HeaderBlock::parse(message.header)
            && let Some(level) = block.get(REQUIRED_LEVEL_HEADER)
        {
            if let Err(error) = check_required_level(Some(level), api::API_LEVEL) {
                batches.open.remove(step.id);
                return Err(error);
            }
            let mut own = HeaderBuilder::from_block(&block);
            own.remove(REQUIRED_LEVEL_HEADER);
            header = if own.is_empty() {
                Vec::new()
            } else {
                own.finish().to_vec()
            };
        }
        if self.follow_fast(group, now, &step, message.reply, out) {
            let Some(target) = self.groups.get_mut(&group) else {
                return Err(ApiError::stream_not_found());
            };
            if let Some(batch) = target.fast.open.get_mut(step.id) {
                batch.pending += 1;
            }
            target.fast.queue.push_back(Waiting {
                reply: message.reply.to_vec(),
                subject: message.subject.to_vec(),
                header,
                payload: message.payload.to_vec(),
                is_prepared: false,
            });
            self.fast.insert(group);
        }
        Ok(())
    }

    /// What a message means for its batch before it is stored; whether it is to be stored.
    fn follow_fast(
        &mut self,
        group: GroupId,
        now: Timestamp,
        step: &Step<'_>,
        reply: &[u8],
        out: &mut dyn Outbox,
    ) -> bool {
        let Some(target) = self.groups.get_mut(&group) else {
            return false;
        };
        let count = target.fast.open.len();
        let Some(batch) = target.fast.open.get_mut(step.id) else {
            return false;
        };
        let account = &target.account;
        batch.due = now.plus(IDLE);
        if step.operation == Operation::Ping {
            let mut answer = Some(batch.flow_text());
            if step.seq > batch.last {
                let gap = gap_text(batch.last + 1, step.seq + 1);
                send(account, reply, b"", &gap, out);
                if batch.gaps_are_fine {
                    batch.last = step.seq;
                    if batch.pending == 0 {
                        batch.settled = batch.last;
                    }
                    answer = batch.acknowledge(count).or_else(|| Some(batch.flow_text()));
                } else {
                    batch.is_committed = true;
                    if batch.is_done() {
                        answer = None;
                    }
                }
            }
            if let Some(answer) = answer {
                send(account, reply, b"", &answer, out);
            }
            self.finish_fast(group, step.id, reply, out);
            return false;
        }
        // It ends, and the client waits for the acknowledgement.
        if batch.is_committed {
            return false;
        }
        let expected = batch.last + 1;
        if step.seq != expected {
            send(account, reply, b"", &gap_text(expected, step.seq), out);
        }
        if step.seq != expected && !(batch.gaps_are_fine && step.seq > expected) {
            batch.is_committed = true;
            self.finish_fast(group, step.id, reply, out);
            return false;
        }
        batch.last = step.seq;
        if step.commits() {
            batch.is_committed = true;
        }
        if step.operation == Operation::CommitBefore {
            batch.last = step.seq - 1;
            batch.ack_to = Some(reply.to_vec());
            self.finish_fast(group, step.id, reply, out);
            return false;
        }
        if step.seq == 1 && !step.commits() && !target.stream.config().no_ack {
            let answer = flow_text(0, batch.flow);
            send(account, reply, b"", &answer, out);
        }
        true
    }

    /// Acknowledges a batch that is over.
    fn finish_fast(&mut self, group: GroupId, id: &[u8], reply: &[u8], out: &mut dyn Outbox) {
        let domain = self.options.domain.as_deref();
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        if target
            .fast
            .open
            .get(id)
            .is_none_or(|batch| !batch.is_done())
        {
            return;
        }
        if let Some(batch) = target.fast.open.remove(id)
            && !target.stream.config().no_ack
        {
            let mut text = Vec::new();
            let seq = crate::ids::StreamSeq(batch.stream_seq);
            api::pub_ack::write_pub_ack_in_domain(&mut text, &target.name, domain, seq, false);
            api::pub_ack::add_batch(&mut text, &String::from_utf8_lossy(id), batch.last);
            let reply = batch.ack_to.as_deref().unwrap_or(reply);
            send(&target.account, reply, b"", &text, out);
        }
    }

    /// Proposes what waits in streams that have none of it on its way.
    pub(super) fn propose_fast(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        for group in std::mem::take(&mut self.fast) {
            let is_idle = self.is_idle(group);
            let Some(target) = self.groups.get_mut(&group) else {
                continue;
            };
            // A sum follows from everything before it.
            let waits = target.fast.in_flight > 0 || (target.stream.counts() && !is_idle);
            if waits && self.poisoned.is_none() {
                self.fast.insert(group);
                continue;
            }
            // All of it has to be one entry.
            self.seal_publishes(group);
            let mut room = self.options.max_entry_bytes;
            let mut totals = Totals::new();
            while let Some(next) = self
                .groups
                .get_mut(&group)
                .and_then(|target| target.fast.take(&mut room))
            {
                match self.propose_one_fast(group, now, &next, &mut totals) {
                    Ok(None) => {}
                    Ok(Some(error)) => {
                        let outcome = PublishOutcome::Refused(error);
                        self.settle_fast(group, &next.reply, &outcome, out);
                    }
                    Err(error) => self.poison(error),
                }
            }
            if let Some(target) = self.groups.get(&group)
                && !target.fast.queue.is_empty()
            {
                self.fast.insert(group);
            }
            self.seal_publishes(group);
        }
    }

    fn propose_one_fast(
        &mut self,
        group: GroupId,
        now: Timestamp,
        message: &Waiting,
        totals: &mut Totals,
    ) -> Result<Option<ApiError>, StoreError> {
        let Some(target) = self.groups.get_mut(&group) else {
            return Ok(None);
        };
        let Some(step) = Step::parse(&message.reply) else {
            return Ok(Some(ApiError::batch_pattern_invalid()));
        };
        if !target.fast.open.contains_key(step.id) {
            return Ok(Some(ApiError::batch_id_unknown()));
        }
        let random = &mut self.random;
        let mut increment = Increment {
            tag: Tag::Client,
            subject: message.subject.clone(),
            header: message.header.clone(),
            payload: message.payload.clone(),
        };
        if !message.is_prepared {
            let incoming = target
                .stream
                .prepare(&message.subject, &message.header, || {
                    next_random(random) as u32
                });
            increment.subject = incoming.subject.into_owned();
            increment.header = incoming.header.into_owned();
        }
        let counted = match target.stream.counts() {
            // Where there is no sum, applying it tells why.
            true => self.counted(group, &increment, totals)?,
            false => None,
        };
        let (header, payload) = match &counted {
            Some(counted) => (&counted.header[..], &counted.payload[..]),
            None => (&increment.header[..], &increment.payload[..]),
        };
        let record = Record {
            tag: Tag::Fast {
                batch: xxh3_64(step.id),
                is_strict: !step.gaps_are_fine,
                is_counted: counted.is_some(),
            },
            reply: &message.reply,
            subject: &increment.subject,
            header,
            payload,
        };
        let result = self.gather(group, now, record);
        if result.is_ok()
            && let Some(target) = self.groups.get_mut(&group)
        {
            target.fast.in_flight += 1;
        }
        Ok(result.err())
    }

    /// What became of the messages in an entry.
    pub(super) fn fast_applied<'a>(
        &mut self,
        entry: &Entry,
        replies: impl Iterator<Item = &'a [u8]>,
        outcome: impl Fn(usize) -> PublishOutcome,
        out: &mut dyn Outbox,
    ) {
        let Some(mut records) = record::records(&entry.payload) else {
            return;
        };
        let mut is_any = false;
        let mut again = Vec::new();
        for (place, reply) in replies.enumerate() {
            let Some(span) = records.next() else {
                break;
            };
            let Tag::Fast { .. } = records.tag() else {
                continue;
            };
            is_any = true;
            if let Some(target) = self.groups.get_mut(&entry.group) {
                target.fast.in_flight = target.fast.in_flight.saturating_sub(1);
            }
            let outcome = outcome(place);
            if outcome == PublishOutcome::Outdated {
                again.push(Waiting {
                    reply: reply.to_vec(),
                    subject: span.subject(&entry.payload).to_vec(),
                    header: span.header(&entry.payload).to_vec(),
                    // An increment has no body; what is here is the sum.
                    payload: Vec::new(),
                    is_prepared: true,
                });
                continue;
            }
            self.settle_fast(entry.group, reply, &outcome, out);
        }
        if !again.is_empty()
            && let Some(target) = self.groups.get_mut(&entry.group)
        {
            for waiting in again.into_iter().rev() {
                target.fast.queue.push_front(waiting);
            }
            self.fast.insert(entry.group);
        }
        if is_any {
            self.schedule_batches(entry.group);
        }
    }

    fn settle_fast(
        &mut self,
        group: GroupId,
        reply: &[u8],
        outcome: &PublishOutcome,
        out: &mut dyn Outbox,
    ) {
        let domain = self.options.domain.as_deref();
        let Some(step) = Step::parse(reply) else {
            return;
        };
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let count = target.fast.open.len();
        let Some(batch) = target.fast.open.get_mut(step.id) else {
            // It ended with a message before this one.
            return self.refuse_fast(group, reply, &ApiError::batch_id_unknown(), out);
        };
        let account = &target.account;
        batch.pending = batch.pending.saturating_sub(1);
        let is_first = step.seq == 1 && !step.gaps_are_fine;
        match outcome {
            PublishOutcome::Stored { seq, .. } | PublishOutcome::NotKept { seq } => {
                batch.stream_seq = seq.0;
                batch.settled = match batch.pending {
                    0 => batch.last,
                    _ => batch.settled.max(step.seq),
                };
            }
            PublishOutcome::Duplicate { seq } if is_first && step.commits() => {
                let mut text = Vec::new();
                api::pub_ack::write_pub_ack_in_domain(&mut text, &target.name, domain, *seq, true);
                api::pub_ack::add_batch(&mut text, &String::from_utf8_lossy(step.id), step.seq);
                send(account, reply, b"", &text, out);
                target.fast.open.remove(step.id);
                return;
            }
            PublishOutcome::Duplicate { .. } => {
                batch.settled = batch.settled.max(step.seq);
            }
            PublishOutcome::Refused(error) if is_first => {
                let error = error.clone();
                target.fast.open.remove(step.id);
                return self.refuse_fast(group, reply, &error, out);
            }
            PublishOutcome::Refused(error) => {
                send(account, reply, b"", &error_text(step.seq, error), out);
                if !batch.gaps_are_fine || step.commits() {
                    batch.last = step.seq - 1;
                    batch.settled = batch.last;
                    batch.pending = 0;
                    batch.is_committed = true;
                }
                if !batch.is_done() {
                    return;
                }
            }
            PublishOutcome::Outdated => {}
        }
        if batch.is_done() {
            return self.finish_fast(group, step.id, reply, out);
        }
        if !batch.is_committed
            && let Some(text) = batch.acknowledge(count)
        {
            send(account, reply, b"", &text, out);
        }
    }

    /// A stream is gone, and so is what waits in it.
    pub(super) fn refuse_waiting_fast(&self, target: &mut StreamGroup, out: &mut dyn Outbox) {
        for waiting in std::mem::take(&mut target.fast.queue) {
            let mut text = Vec::new();
            let error = ApiError::stream_not_found();
            api::pub_ack::write_pub_error(&mut text, &target.name, &error);
            send(&target.account, &waiting.reply, b"", &text, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reply_subject_says_what_a_message_is() {
        let step = Step::parse(b"_INBOX.x.id.100.ok.7.1.$FI").expect("a step");
        let expected = Step {
            id: b"id",
            flow: 100,
            gaps_are_fine: true,
            seq: 7,
            operation: Operation::Append,
        };
        assert_eq!(step, expected);
        let flow = |text: &str| Step::parse(text.as_bytes()).map(|step| step.flow);
        assert_eq!(flow("i.id.0.fail.1.0.$FI"), Some(10));
        assert_eq!(flow("i.id.x.fail.1.0.$FI"), Some(10));
        assert_eq!(flow("i.id.99999.fail.1.2.$FI"), Some(u16::MAX));
        for bad in [
            "$FI",
            ".$FI",
            "i.id.1.ok.1.0.$FX",
            "i.id.1.ok.1.5.$FI",
            "i.id.1.ok.2.0.$FI",
            "i.id.1.ok.1.1.$FI",
            "i.id.1.ok.1.3.$FI",
            "i.id.1.ok.0.4.$FI",
            "i.id.1.ok.18446744073709551615.1.$FI",
            "i.id.1.maybe.1.0.$FI",
            "id.1.ok.1.0.$FI",
        ] {
            assert_eq!(flow(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_pace_grows_and_shrinks_with_the_number_of_batches() {
        let mut batch = FastBatch {
            due: Timestamp(0),
            gaps_are_fine: false,
            most_flow: 100,
            flow: 1,
            last: 0,
            settled: 0,
            acknowledged: 0,
            pending: 0,
            stream_seq: 0,
            is_committed: false,
            ack_to: None,
        };
        assert_eq!(batch.acknowledge(1), None);
        batch.settled = 5;
        let text = batch.acknowledge(1).expect("due");
        assert_eq!(text, br#"{"type":"ack","seq":5,"msgs":2}"#);
        batch.settled = 8;
        let text = batch.acknowledge(1).expect("due");
        assert_eq!(text, br#"{"type":"ack","seq":7,"msgs":4}"#);
        batch.settled = 1007;
        batch.acknowledge(500).expect("due");
        assert_eq!((batch.acknowledged, batch.flow), (1007, 2));
    }

    proptest! {
        #[test]
        fn any_reply_subject_is_a_step_or_none(
            inbox in "[a-z.]{1,12}",
            id in "[a-zA-Z0-9]{1,22}",
            flow in any::<u32>(),
            is_ok in any::<bool>(),
            seq in 0_u64..5,
            operation in 0_u8..7,
            noise in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let gaps = if is_ok { "ok" } else { "fail" };
            let reply = format!("{inbox}.{id}.{flow}.{gaps}.{seq}.{operation}.$FI");
            let fits = match operation {
                0 => seq == 1,
                1 | 3 => seq > 1,
                2 | 4 => seq > 0,
                _ => false,
            };
            let step = Step::parse(reply.as_bytes());
            prop_assert_eq!(step.is_some(), fits, "{}", reply);
            if let Some(step) = step {
                prop_assert_eq!(step.id, id.as_bytes());
                prop_assert_eq!(step.seq, seq);
                prop_assert_eq!(step.gaps_are_fine, is_ok);
                let wanted = if flow == 0 { 10 } else { flow.min(u32::from(u16::MAX)) };
                prop_assert_eq!(u32::from(step.flow), wanted);
            }
            for reply in [noise.clone(), [&noise[..], SUFFIX].concat()] {
                prop_assert!(Step::parse(&reply).is_none_or(|step| step.seq > 0));
            }
        }
    }
}
