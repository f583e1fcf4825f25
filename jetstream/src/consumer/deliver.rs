//! Messages go out: first what is due again, then what is new.

use super::config::ReplayPolicy;
use super::event::{Change, MAX_RUN};
use super::pending::Delivery;
use super::{Consumer, Turn, send_status, status};
use crate::ids::{ConsumerSeq, StreamSeq};
use crate::ports::{Outgoing, StoreError};
use crate::record::StoredMessage;
use crate::time::Timestamp;

/// Events of deliveries that are gathered at most before they are proposed.
const MAX_UNLOGGED: usize = 1024;

/// What there is to send.
enum Next {
    /// A message, for the first time.
    New(StoredMessage),
    /// A message whose earlier deliveries were not settled, and which delivery this is.
    Again(StoredMessage, u32),
    /// There may be more, but not now.
    Held,
    /// Nothing.
    End,
}

impl Consumer {
    /// Hands out what it may, `burst` messages at most. True when it stopped for that reason alone
    /// and wants to go on.
    ///
    /// # Errors
    /// Whatever reading the stream reports. What was sent until then is noted.
    pub fn deliver(&mut self, turn: &mut Turn<'_>, burst: usize) -> Result<bool, StoreError> {
        let more = self.deliver_burst(turn, burst);
        if !self.is_logged || self.unlogged.len() >= MAX_UNLOGGED {
            self.flush(turn);
        }
        more
    }

    fn deliver_burst(&mut self, turn: &mut Turn<'_>, burst: usize) -> Result<bool, StoreError> {
        self.begin_turn(turn.now);
        if self.expects_reset() {
            return Ok(false);
        }
        let is_push = self.config.is_push();
        if is_push {
            if !self.check_interest(turn) {
                return Ok(false);
            }
        } else if self.waiting.is_empty() {
            return Ok(false);
        }
        if self.is_paused(turn.now) {
            self.finish_no_wait(turn);
            return Ok(false);
        }
        self.collect_due(turn)?;
        self.ensure_count(turn.source)?;
        for _ in 0..burst {
            if is_push && self.wants_confirmation() {
                self.request_flow_control(turn);
            }
            if if is_push {
                self.push.is_stalled()
            } else {
                self.waiting.is_empty()
            } {
                return Ok(false);
            }
            let (message, deliveries) = match self.next(turn)? {
                Next::New(message) => (message, 1),
                Next::Again(message, deliveries) => (message, deliveries),
                Next::Held => return Ok(false),
                Next::End => {
                    self.finish_no_wait(turn);
                    return Ok(false);
                }
            };
            if !self.send(&message, deliveries, turn) {
                return Ok(false);
            }
            self.note_sent(&message, deliveries, turn.now);
        }
        Ok(true)
    }

    /// Finds the next message and changes nothing that sending it would change.
    fn next(&mut self, turn: &mut Turn<'_>) -> Result<Next, StoreError> {
        while let Some(seq) = self.redeliver.front().copied() {
            let sent = match self.state.pending.get(seq) {
                Some(delivery) if delivery.queued && !delivery.is_settling() => delivery.sent,
                _ => {
                    self.redeliver.pop_front();
                    continue;
                }
            };
            if self.max_deliver().is_some_and(|max| sent >= max) {
                self.redeliver.pop_front();
                self.give_up(seq, turn)?;
                continue;
            }
            match turn.source.message(StreamSeq(seq))? {
                Some(message) => return Ok(Next::Again(message, sent.saturating_add(1))),
                None => {
                    self.redeliver.pop_front();
                    self.forget_gone(seq, turn);
                }
            }
        }
        if self.is_stalled() || self.hold_until > turn.now {
            return Ok(Next::Held);
        }
        match self.next_new(turn)? {
            Some(message) if self.is_too_early(&message, turn.now) => Ok(Next::Held),
            Some(message) => Ok(Next::New(message)),
            None => Ok(Next::End),
        }
    }

    fn next_new(&mut self, turn: &mut Turn<'_>) -> Result<Option<StoredMessage>, StoreError> {
        while let Some(latest) = self.latest.as_mut().filter(|l| self.cursor <= l.through) {
            let Some(seq) = latest.next(self.cursor) else {
                self.cursor = latest.through + 1;
                break;
            };
            if let Some(message) = turn.source.message(StreamSeq(seq))? {
                return Ok(Some(message));
            }
            latest.remove(seq);
            self.count.messages = self.count.messages.saturating_sub(1);
        }
        let next = turn
            .source
            .next_message(StreamSeq(self.cursor), &self.filters)?;
        if next.is_none() {
            let last = turn.source.last_seq();
            self.cursor = self.cursor.max(last.0 + 1);
            self.is_caught_up = true;
            self.count.messages = 0;
            self.count.through = self.count.through.max(last.0);
        }
        Ok(next)
    }

    /// With original pace: whether its turn comes later. Then that time is noted.
    fn is_too_early(&mut self, message: &StoredMessage, now: Timestamp) -> bool {
        if self.config.replay_policy != ReplayPolicy::Original
            || message.seq.0 > self.replay_through
        {
            return false;
        }
        let Some((stored, sent)) = self.last_replayed else {
            return false;
        };
        let turn = sent.plus(message.time().since(stored));
        if turn <= now {
            return false;
        }
        self.hold_until = turn;
        true
    }

    /// Sends a message to whoever is next; false when nobody took it.
    fn send(&mut self, message: &StoredMessage, deliveries: u32, turn: &mut Turn<'_>) -> bool {
        let is_counted = deliveries == 1 && message.seq.0 <= self.count.through;
        let pending = self.count.messages.saturating_sub(u64::from(is_counted));
        self.write_ack_subject(turn.stream, message, deliveries, pending);
        if self.config.headers_only {
            let size = message.payload().len().to_string();
            status::write_with(&mut self.header, message.header(), "Nats-Msg-Size", &size);
        }
        if self.config.is_push() {
            self.send_pushed(message, turn)
        } else {
            self.send_pulled(message, pending + 1, turn)
        }
    }

    fn send_pulled(&mut self, message: &StoredMessage, pending: u64, turn: &mut Turn<'_>) -> bool {
        let (subject, header, payload) = parts(self.config.headers_only, &self.header, message);
        let size = subject.len() + self.ack_subject.len() + header.len() + payload.len();
        let size = size as u64;
        while self.bring_to_front(pending, turn) {
            let Some(request) = self.waiting.front() else {
                return false;
            };
            let refusal = if request.has_expired(turn.now) {
                Some("408 Request Timeout")
            } else if request.bytes_left > 0 && size > request.bytes_left {
                Some("409 Message Size Exceeds MaxBytes")
            } else {
                None
            };
            if let Some(line) = refusal {
                status::write_remaining(&mut self.status, line, request.left, request.bytes_left);
                send_status(turn.out, turn.account, &request.inbox, b"", &self.status);
                self.release_unused_pin(turn.now);
                self.waiting.pop_front();
                continue;
            }
            let (subject, mut header, payload) =
                parts(self.config.headers_only, &self.header, message);
            if let Some(pin) = &self.pin {
                status::write_with(&mut self.pinned_header, header, "Nats-Pin-Id", pin.id());
                header = &self.pinned_header;
            }
            let is_taken = turn.out.send(Outgoing {
                account: turn.account,
                target: &request.inbox,
                subject,
                reply: &self.ack_subject,
                header,
                payload,
            });
            if !is_taken {
                self.release_unused_pin(turn.now);
                self.waiting.pop_front();
                continue;
            }
            if let Some(done) = self.waiting.served(size, turn.now)
                && done.bytes_left > 0
            {
                let left = done.bytes_left;
                status::write_remaining(&mut self.status, "409 Batch Completed", 0, left);
                send_status(turn.out, turn.account, &done.inbox, b"", &self.status);
            }
            return true;
        }
        false
    }

    fn send_pushed(&mut self, message: &StoredMessage, turn: &mut Turn<'_>) -> bool {
        let (subject, header, payload) = parts(self.config.headers_only, &self.header, message);
        let target = self.config.deliver_subject.as_bytes();
        let size = (target.len() + self.ack_subject.len() + header.len() + payload.len()) as u64;
        if let Some(until) = self
            .push
            .limit_rate(self.config.rate_limit_bps, size, turn.now)
        {
            self.hold_until = until;
            return false;
        }
        let is_taken = turn.out.send(Outgoing {
            account: turn.account,
            target,
            subject,
            reply: &self.ack_subject,
            header,
            payload,
        });
        if !is_taken {
            self.push.lose_interest(turn.now);
            return false;
        }
        self.push.sent(turn.now);
        if self.config.flow_control && self.push.uses_window(size) {
            self.request_flow_control(turn);
        }
        true
    }

    /// Notes that a message was sent.
    fn note_sent(&mut self, message: &StoredMessage, deliveries: u32, now: Timestamp) {
        let seq = message.seq.0;
        self.sent.consumer = self.sent.consumer.next();
        let consumer_seq = self.sent.consumer.0;
        self.last_activity = now;
        self.last_delivered = Some(now);
        let due = now.0.saturating_add(self.wait_after(deliveries));
        if deliveries > 1 {
            self.redeliver.pop_front();
            self.state.pending.set_sent(seq, deliveries);
            if let Some(delivery) = self.state.pending.get_mut(seq) {
                delivery.due = due;
                delivery.queued = false;
            }
            self.schedule(due, seq);
            self.note_redelivered(consumer_seq, seq, deliveries, now);
            return;
        }
        self.sent.stream = StreamSeq(seq);
        self.cursor = seq + 1;
        if seq <= self.count.through {
            self.count.messages = self.count.messages.saturating_sub(1);
        } else {
            self.count.through = seq;
        }
        self.last_replayed = Some((message.time(), now));
        if self.needs_acks() {
            self.state
                .pending
                .insert(Delivery::sent(seq, consumer_seq, due));
            self.schedule(due, seq);
        }
        self.note_delivered(consumer_seq, seq, now);
    }

    pub(super) fn note_delivered(&mut self, consumer: u64, seq: u64, now: Timestamp) {
        if let Some(Change::Delivered {
            consumer_seq,
            stream_seq,
            count,
            ..
        }) = self.unlogged.last_mut()
            && *count < MAX_RUN
            && consumer_seq.0 + u64::from(*count) == consumer
            && stream_seq.0 + u64::from(*count) == seq
        {
            *count += 1;
            return;
        }
        self.note_unlogged(
            Change::Delivered {
                at: now,
                consumer_seq: ConsumerSeq(consumer),
                stream_seq: StreamSeq(seq),
                count: 1,
            },
            now,
        );
    }

    pub(super) fn note_redelivered(
        &mut self,
        consumer: u64,
        seq: u64,
        deliveries: u32,
        now: Timestamp,
    ) {
        self.note_unlogged(
            Change::Redelivered {
                at: now,
                consumer_seq: ConsumerSeq(consumer),
                stream_seq: StreamSeq(seq),
                deliveries,
            },
            now,
        );
    }

    fn note_unlogged(&mut self, change: Change, now: Timestamp) {
        if self.unlogged.is_empty() {
            self.unlogged_since = now;
        }
        self.unlogged.push(change);
    }

    /// Builds the ack subject of the next delivery in the buffer kept for it.
    fn write_ack_subject(
        &mut self,
        stream: &str,
        message: &StoredMessage,
        deliveries: u32,
        pending: u64,
    ) {
        let subject = &mut self.ack_subject;
        if self.ack_prefix == 0 {
            for part in ["$JS.ACK.", stream, ".", &self.name, "."] {
                subject.extend_from_slice(part.as_bytes());
            }
            self.ack_prefix = subject.len();
        }
        subject.truncate(self.ack_prefix);
        let mut digits = itoa::Buffer::new();
        let numbers = [
            u64::from(deliveries),
            message.seq.0,
            self.sent.consumer.next().0,
        ];
        for number in numbers {
            subject.extend_from_slice(digits.format(number).as_bytes());
            subject.push(b'.');
        }
        subject.extend_from_slice(digits.format(message.time().0).as_bytes());
        subject.push(b'.');
        subject.extend_from_slice(digits.format(pending).as_bytes());
    }
}

/// Subject, header and payload as they are sent.
fn parts<'a>(
    headers_only: bool,
    header: &'a [u8],
    message: &'a StoredMessage,
) -> (&'a [u8], &'a [u8], &'a [u8]) {
    if headers_only {
        (message.subject(), header, b"")
    } else {
        (message.subject(), message.header(), message.payload())
    }
}
