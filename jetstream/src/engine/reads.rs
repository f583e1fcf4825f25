//! Questions about a stream wait for what came before them.
//!
//! A message or an ack takes effect when its entry is durable, a moment after it came. Who asks
//! next what the stream holds, over whatever connection, expects to find it there, as with a server
//! that stores before it syncs. So such a question waits until the entries of the stream that are
//! under way are applied. What waits is bounded: beyond that, or for a long one, the answer is what
//! is applied already.

use super::{ApiRequest, Application, Engine};
use crate::api::subject::Call;
use crate::ids::{AccountName, GroupId};
use crate::ports::{LogStore, Outbox, StateStore};
use crate::time::Timestamp;

/// Questions that wait at a time, at most.
const MAX_HELD: usize = 1024;
/// A question of more bytes does not wait. Sensible ones have a few dozen.
const MAX_BYTES: usize = 16 * 1024;

/// A question that waits.
#[derive(Debug)]
pub(super) struct Held {
    group: GroupId,
    /// The entry of the stream it waits for.
    until: u64,
    account: AccountName,
    subject: Vec<u8>,
    reply: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
    client: Vec<u8>,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Keeps a question for later if something of its stream is under way. True if it did.
    pub(super) fn holds(&mut self, call: &Call<'_>, request: &ApiRequest<'_>) -> bool {
        let (Call::StreamInfo { stream }
        | Call::ConsumerInfo { stream, .. }
        | Call::MessageGet { stream }) = *call
        else {
            return false;
        };
        let Some(group) = self.meta.group(request.account, stream) else {
            return false;
        };
        let bytes = request.subject.len()
            + request.reply.len()
            + request.header.len()
            + request.payload.len();
        let is_too_much = self.reads.len() >= MAX_HELD || bytes > MAX_BYTES;
        if self.poisoned.is_some() || is_too_much {
            return false;
        }
        self.seal_group(group);
        let Some(target) = self.groups.get(&group) else {
            return false;
        };
        let until = target.next_index - 1;
        if until <= target.applied {
            return false;
        }
        self.reads.push(Held {
            group,
            until,
            account: request.account.clone(),
            subject: request.subject.to_vec(),
            reply: request.reply.to_vec(),
            header: request.header.to_vec(),
            payload: request.payload.to_vec(),
            client: request.client.to_vec(),
        });
        true
    }

    /// Answers what waited for entries of `group` that are applied now.
    pub(super) fn answer_reads(&mut self, group: GroupId, now: Timestamp, out: &mut dyn Outbox) {
        let applied = self.groups.get(&group).map(|target| target.applied);
        let is_due = |held: &Held| {
            held.group == group && applied.is_none_or(|applied| held.until <= applied)
        };
        self.answer_due(is_due, now, out);
    }

    /// Answers what waited for entries that will not come: they were refused, or given less room.
    pub(super) fn answer_forgotten_reads(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        if self.reads.is_empty() || !self.sealed.is_empty() {
            return;
        }
        let under_way: Vec<GroupId> = self.pending.iter().map(|p| p.entry.group).collect();
        self.answer_due(|held| !under_way.contains(&held.group), now, out);
    }

    fn answer_due(&mut self, is_due: impl Fn(&Held) -> bool, now: Timestamp, out: &mut dyn Outbox) {
        let (due, kept) = std::mem::take(&mut self.reads)
            .into_iter()
            .partition(is_due);
        self.reads = kept;
        let due: Vec<Held> = due;
        for held in due {
            let request = ApiRequest {
                account: &held.account,
                subject: &held.subject,
                reply: &held.reply,
                header: &held.header,
                payload: &held.payload,
                client: &held.client,
            };
            self.carry_out(&request, &Call::parse(&held.subject), now, out);
        }
    }
}
