//! Batches that are stored as a whole or not at all.
//!
//! Messages of a batch wait here until the last one has come; then all of them become one entry of
//! the log, and applying it decides about all of them together. What waits is gone with the
//! process: nobody was told that it is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use menes_protocol::headers::{HeaderBlock, HeaderBuilder};

use super::counting::Increment;
use super::gather::Record;
use super::replies::Publishers;
use super::request::send;
use super::{Application, Engine, Publish, StreamGroup, next_random};
use crate::api::request::{REQUIRED_LEVEL_HEADER, check_required_level};
use crate::api::{self, ApiError};
use crate::ids::GroupId;
use crate::ports::{LogStore, Outbox, StateStore};
use crate::record::Tag;
use crate::stream::{increment_refused, is_increment};
use crate::time::Timestamp;

/// Stands for the batches of a stream among the timers of its group.
pub(super) const BATCH_TIMER: u32 = u32::MAX - 1;
/// Most messages of a batch.
const MAX_MESSAGES: usize = 1000;
/// Most bytes of a batch: it has to fit into one segment of the log.
const MAX_BYTES: usize = 32 << 20;
/// Most unfinished batches of a stream.
const MAX_OPEN: usize = 50;
/// Most unfinished batches of all streams.
const MAX_OPEN_IN_ALL: usize = 1000;
/// How long a batch waits for its next message.
const IDLE: Duration = Duration::from_secs(10);
/// Longest id of a batch, bytes.
const MAX_ID: usize = 64;

/// The unfinished batches of a stream, by id.
pub(super) type Batches = BTreeMap<Vec<u8>, Batch>;

/// An unfinished batch.
#[derive(Debug)]
pub(super) struct Batch {
    messages: Vec<Staged>,
    bytes: usize,
    due: Timestamp,
}

#[derive(Debug)]
struct Staged {
    subject: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
}

/// How a message ends its batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    No,
    /// It is the last one.
    Here,
    /// The one before it was the last.
    Before,
}

/// Whether a header block may speak of a batch.
pub(super) fn is_batched(header: &[u8]) -> bool {
    memchr::memmem::find(header, b"Nats-Batch-Id:").is_some()
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Takes a message of a batch.
    pub(super) fn stage(
        &mut self,
        group: GroupId,
        now: Timestamp,
        message: Publish<'_>,
        out: &mut dyn Outbox,
    ) {
        let result = self.try_stage(group, now, message);
        let Some(target) = self.groups.get(&group) else {
            return;
        };
        match result {
            Ok(Commit::No) => {
                if !message.reply.is_empty() && !target.stream.config().no_ack {
                    send(&target.account, message.reply, b"", b"", out);
                }
            }
            Ok(Commit::Here | Commit::Before) => {}
            Err(error) => {
                let mut publishers = Publishers::of(target);
                publishers.replies.push(message.reply);
                self.refuse_publishers(group, &publishers, &error, out);
            }
        }
        self.schedule_batches(group);
    }

    fn try_stage(
        &mut self,
        group: GroupId,
        now: Timestamp,
        message: Publish<'_>,
    ) -> Result<Commit, ApiError> {
        let open = self.groups.values().map(|target| target.batches.len());
        let open: usize = open.sum();
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(ApiError::stream_not_found());
        };
        let header = HeaderBlock::parse(message.header).map_err(|_| ApiError::bad_request())?;
        let id = header.get("Nats-Batch-Id").unwrap_or_default();
        if id.len() > MAX_ID || id.is_empty() {
            return Err(ApiError::atomic_batch_id_invalid());
        }
        let number = header
            .get("Nats-Batch-Sequence")
            .and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok())
            .ok_or_else(ApiError::atomic_sequence_missing)?;
        let commit = match header.get("Nats-Batch-Commit") {
            None => Ok(Commit::No),
            Some(b"1") => Ok(Commit::Here),
            Some(b"eob") => Ok(Commit::Before),
            Some(_) => Err(ApiError::atomic_commit_invalid()),
        };
        let size = number - usize::from(commit == Ok(Commit::Before)).min(number);
        let too_large = || ApiError::atomic_batch_too_large(MAX_MESSAGES);
        if !target.batches.contains_key(id) {
            if number != 1 {
                return Err(if size > MAX_MESSAGES {
                    too_large()
                } else {
                    ApiError::atomic_batch_incomplete()
                });
            }
            if target.batches.len() >= MAX_OPEN || open >= MAX_OPEN_IN_ALL {
                return Err(ApiError::atomic_too_many_in_flight());
            }
        }
        // Whatever is wrong from here on ends the batch.
        let mut batch = target.batches.remove(id).unwrap_or(Batch {
            messages: Vec::new(),
            bytes: 0,
            due: now,
        });
        let commit = commit?;
        check_required_level(header.get(REQUIRED_LEVEL_HEADER), api::API_LEVEL)?;
        let is_next = number == batch.messages.len() + 1;
        if !is_next || (number == 1 && commit == Commit::Before) {
            return Err(ApiError::atomic_batch_incomplete());
        }
        if size > MAX_MESSAGES {
            return Err(too_large());
        }
        if commit != Commit::Before {
            let mut own = HeaderBuilder::from_block(&header);
            own.remove(REQUIRED_LEVEL_HEADER);
            let staged = Staged {
                subject: message.subject.to_vec(),
                header: own.finish().to_vec(),
                payload: message.payload.to_vec(),
            };
            batch.bytes += staged.subject.len() + staged.header.len() + staged.payload.len();
            if batch.bytes > MAX_BYTES {
                return Err(too_large());
            }
            batch.messages.push(staged);
        }
        if commit == Commit::No {
            batch.due = now.plus(IDLE);
            target.batches.insert(id.to_vec(), batch);
            return Ok(commit);
        }
        for staged in &batch.messages {
            let header = HeaderBlock::parse(&staged.header).map_err(|_| ApiError::bad_request())?;
            let expected = header.get("Nats-Expected-Last-Msg-Id");
            if expected.is_some_and(|id| !id.is_empty()) {
                return Err(ApiError::atomic_header_unsupported(
                    "Nats-Expected-Last-Msg-Id",
                ));
            }
        }
        if commit == Commit::Before
            && let Some(last) = batch.messages.last_mut()
            && let Ok(header) = HeaderBlock::parse(&last.header)
        {
            let mut own = HeaderBuilder::from_block(&header);
            own.push("Nats-Batch-Commit", "1");
            last.header = own.finish().to_vec();
        }
        self.commit_batch(group, now, &batch, message.reply)?;
        Ok(commit)
    }

    /// Proposes a whole batch as one entry.
    fn commit_batch(
        &mut self,
        group: GroupId,
        now: Timestamp,
        batch: &Batch,
        reply: &[u8],
    ) -> Result<(), ApiError> {
        let total = batch.messages.len() as u64;
        let counts = |target: &StreamGroup| target.stream.counts();
        if self.groups.get(&group).is_some_and(counts) {
            return self.count_batch(group, batch, reply);
        }
        self.seal_publishes(group);
        for (index, staged) in (0u64..).zip(&batch.messages) {
            let Some(target) = self.groups.get(&group) else {
                return Err(ApiError::stream_not_found());
            };
            let random = &mut self.random;
            let incoming = target.stream.prepare(&staged.subject, &staged.header, || {
                next_random(random) as u32
            });
            let record = Record {
                tag: Tag::Batch { index, total },
                reply: if index + 1 == total { reply } else { b"" },
                subject: &incoming.subject,
                header: &incoming.header,
                payload: &staged.payload,
            };
            self.gather(group, now, record)?;
        }
        self.seal_publishes(group);
        Ok(())
    }

    /// Lets a whole batch of increments wait for its turn.
    fn count_batch(&mut self, group: GroupId, batch: &Batch, reply: &[u8]) -> Result<(), ApiError> {
        let total = batch.messages.len() as u64;
        let mut messages = Vec::with_capacity(batch.messages.len());
        for (index, staged) in (0u64..).zip(&batch.messages) {
            let Some(target) = self.groups.get(&group) else {
                return Err(ApiError::stream_not_found());
            };
            if !is_increment(&staged.header, &staged.payload) {
                return Err(increment_refused(&staged.header, &staged.payload));
            }
            let random = &mut self.random;
            let incoming = target.stream.prepare(&staged.subject, &staged.header, || {
                next_random(random) as u32
            });
            messages.push(Increment {
                tag: Tag::Batch { index, total },
                subject: incoming.subject.into_owned(),
                header: incoming.header.into_owned(),
                payload: Vec::new(),
            });
        }
        self.wait_in_turn(group, messages, reply, true);
        Ok(())
    }

    /// Gives up batches that nobody went on with.
    pub(super) fn run_batches(&mut self, group: GroupId, now: Timestamp) {
        if let Some(target) = self.groups.get_mut(&group) {
            target.batches.retain(|_, batch| batch.due > now);
            target.fast.expire(now);
        }
        self.schedule_batches(group);
    }

    pub(super) fn schedule_batches(&mut self, group: GroupId) {
        let due = self.groups.get(&group).and_then(|target| {
            let whole = target.batches.values().map(|batch| batch.due);
            whole.chain(target.fast.due()).min()
        });
        self.set_timer(group, BATCH_TIMER, due);
    }
}
