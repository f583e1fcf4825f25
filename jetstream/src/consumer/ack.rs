//! Acks: where they point, what they say, what they do.

use serde::Deserialize;

use super::advisory::Which;
use super::config::AckPolicy;
use super::duration::parse_go_duration;
use super::event::Change;
use super::{Consumer, Turn, answer};
use crate::ids::{ConsumerSeq, StreamSeq};
use crate::ports::StoreError;
use crate::time::Timestamp;

/// An ack subject taken apart.
///
/// ```text
/// v1: $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>
/// v2: $JS.ACK.<domain>.<account hash>.<stream>.<consumer>. ... .<pending>[.<more>]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckToken<'a> {
    /// Name of the stream.
    pub stream: &'a [u8],
    /// Name of the consumer.
    pub consumer: &'a [u8],
    /// Which delivery of the message it was.
    pub deliveries: u64,
    /// Sequence in the stream, at least 1.
    pub stream_seq: StreamSeq,
    /// Sequence of the delivery.
    pub consumer_seq: ConsumerSeq,
    /// When the message was stored.
    pub timestamp: Timestamp,
    /// Messages that were pending after it.
    pub pending: u64,
}

impl<'a> AckToken<'a> {
    /// Takes an ack subject apart; `None` when it is none.
    #[must_use]
    pub fn parse(subject: &'a [u8]) -> Option<Self> {
        const V2_TOKENS: usize = 11;
        let rest = subject.strip_prefix(b"$JS.ACK.")?;
        let mut tokens = [&b""[..]; V2_TOKENS - 2];
        let mut count = 0;
        for token in rest.split(|byte| *byte == b'.') {
            if let Some(slot) = tokens.get_mut(count) {
                *slot = token;
            }
            count += 1;
        }
        let from = match count + 2 {
            9 => 0,
            V2_TOKENS.. => 2,
            _ => return None,
        };
        let [
            stream,
            consumer,
            deliveries,
            stream_seq,
            consumer_seq,
            timestamp,
            pending,
        ] = tokens.get(from..from + 7)?.try_into().ok()?;
        let stream_seq = number(stream_seq).filter(|seq| *seq > 0)?;
        Some(Self {
            stream,
            consumer,
            deliveries: number(deliveries)?,
            stream_seq: StreamSeq(stream_seq),
            consumer_seq: ConsumerSeq(number(consumer_seq)?),
            timestamp: Timestamp(i64::try_from(number(timestamp)?).ok()?),
            pending: number(pending).unwrap_or(0),
        })
    }
}

impl AckToken<'_> {
    fn which(&self) -> Which {
        Which {
            stream_seq: self.stream_seq,
            consumer_seq: Some(self.consumer_seq.0),
            deliveries: self.deliveries,
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// What the payload of an ack says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind<'a> {
    /// Done with it.
    Ack,
    /// Send it again, after this many nanoseconds.
    Nak(i64),
    /// Still working on it.
    Progress,
    /// Done with it; the rest is a pull request for more.
    Next(&'a [u8]),
    /// Never send it again, for this reason.
    Term(&'a [u8]),
    /// Nothing known.
    Unknown,
}

impl<'a> AckKind<'a> {
    /// Reads a payload, without headers. A delay that cannot be read counts as none.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Self {
        match payload {
            b"" | b"+ACK" | b"+OK" => Self::Ack,
            b"+WPI" => Self::Progress,
            _ => {
                if let Some(rest) = payload.strip_prefix(b"-NAK") {
                    Self::Nak(nak_delay(rest.trim_ascii()).unwrap_or(0).max(0))
                } else if let Some(rest) = payload.strip_prefix(b"+NXT") {
                    Self::Next(rest)
                } else if let Some(rest) = payload.strip_prefix(b"+TERM") {
                    Self::Term(rest.trim_ascii())
                } else {
                    Self::Unknown
                }
            }
        }
    }
}

fn nak_delay(argument: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Options {
        #[serde(default)]
        delay: i64,
    }
    if argument.first() == Some(&b'{') {
        let options: Options = serde_json::from_slice(argument).ok()?;
        return Some(options.delay);
    }
    parse_go_duration(std::str::from_utf8(argument).ok()?)
}

impl Consumer {
    /// Takes an ack with this payload. `reply`, if not empty, gets an empty message once the ack is
    /// applied, or at once when there is nothing to do; an ack for what was never delivered gets
    /// none. Call [`Consumer::deliver`] after it: an ack may make room.
    ///
    /// # Errors
    /// Whatever reading the stream reports, for an ack that is a pull request as well.
    pub fn ack(
        &mut self,
        token: &AckToken<'_>,
        payload: &[u8],
        reply: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), StoreError> {
        self.begin_turn(turn.now);
        if self.config.ack_policy == AckPolicy::FlowControl {
            return Ok(());
        }
        match AckKind::parse(payload) {
            AckKind::Ack => self.settle(token, None, reply, turn),
            AckKind::Next(request) => {
                self.settle(token, None, b"", turn);
                self.pull(reply, request, turn)?;
            }
            AckKind::Term(reason) => {
                let reason = String::from_utf8_lossy(reason);
                self.settle(token, Some(&reason), reply, turn);
            }
            AckKind::Nak(delay) => self.nak(token, delay, reply, turn),
            AckKind::Progress => {
                let seq = token.stream_seq.0;
                let sent = self
                    .state
                    .pending
                    .get(seq)
                    .map_or(1, |delivery| delivery.sent);
                let due = turn.now.0.saturating_add(self.wait_after(sent));
                self.reschedule(seq, due, reply, turn);
            }
            AckKind::Unknown => answer(turn, reply),
        }
        Ok(())
    }

    /// Acks or, with a reason, terminates.
    fn settle(
        &mut self,
        token: &AckToken<'_>,
        reason: Option<&str>,
        reply: &[u8],
        turn: &mut Turn<'_>,
    ) {
        let stream_seq = token.stream_seq;
        if stream_seq > self.sent.stream || !self.needs_acks() {
            return;
        }
        self.last_acked = Some(turn.now);
        if let Some(reason) = reason {
            self.advise_terminated(token.which(), reason, turn);
        } else if self.is_sampled() {
            self.sample(token, turn);
        }
        if self.config.ack_policy == AckPolicy::All {
            self.settle_all(stream_seq, reply, turn);
            return;
        }
        let seq = stream_seq.0;
        let is_news = self.state.pending.mark_settling(seq);
        let is_open = is_news || self.state.exhausted.contains_key(&seq);
        // Settling already: only the answer must wait for the log.
        let is_under_way = !is_news && self.state.pending.contains(seq);
        if is_open || (is_under_way && !reply.is_empty()) {
            let change = match reason {
                Some(_) => Change::Terminated { stream_seq },
                None => Change::Acked { stream_seq },
            };
            self.propose(change, reply, turn);
        } else if !is_under_way {
            answer(turn, reply);
        }
    }

    /// Whether the next ack is one of the share to measure.
    fn is_sampled(&mut self) -> bool {
        if self.sample_percent == 0 {
            return false;
        }
        self.sample_draw = self
            .sample_draw
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        (self.sample_draw >> 33) % 100 < u64::from(self.sample_percent)
    }

    fn sample(&mut self, token: &AckToken<'_>, turn: &mut Turn<'_>) {
        let open = self.state.pending.get(token.stream_seq.0);
        let Some(delivery) = open.filter(|delivery| !delivery.is_settling()) else {
            return;
        };
        let sent_at = delivery.due.saturating_sub(self.wait_after(delivery.sent));
        self.measure_ack(
            token.which(),
            turn.now.0.saturating_sub(sent_at).max(0),
            turn,
        );
    }

    pub(super) fn settle_all(&mut self, stream_seq: StreamSeq, reply: &[u8], turn: &mut Turn<'_>) {
        let seq = stream_seq.0;
        let is_news = seq > self.settling_through;
        let is_open = self
            .state
            .pending
            .oldest()
            .is_some_and(|oldest| oldest.seq <= seq)
            || self
                .state
                .exhausted
                .first_key_value()
                .is_some_and(|(oldest, _)| *oldest <= seq);
        if !is_open {
            answer(turn, reply);
            return;
        }
        if !is_news && reply.is_empty() && self.state.exhausted.is_empty() {
            return;
        }
        let covered: Vec<_> = self
            .state
            .pending
            .range(self.settling_through + 1, seq.saturating_add(1))
            .map(|delivery| delivery.seq)
            .collect();
        for seq in covered {
            self.state.pending.mark_settling(seq);
        }
        self.settling_through = self.settling_through.max(seq);
        self.propose(Change::AckedAll { stream_seq }, reply, turn);
    }

    fn nak(&mut self, token: &AckToken<'_>, delay: i64, reply: &[u8], turn: &mut Turn<'_>) {
        let seq = token.stream_seq.0;
        let is_open = self
            .state
            .pending
            .get(seq)
            .is_some_and(|delivery| !delivery.is_settling());
        if is_open {
            self.advise_nak(token.which(), turn);
        }
        self.reschedule(seq, turn.now.0.saturating_add(delay), reply, turn);
    }

    /// Moves the time at which a delivery is repeated.
    fn reschedule(&mut self, seq: u64, due: i64, reply: &[u8], turn: &mut Turn<'_>) {
        let Some(delivery) = self
            .state
            .pending
            .get_mut(seq)
            .filter(|delivery| !delivery.is_settling())
        else {
            answer(turn, reply);
            return;
        };
        if delivery.queued && due <= turn.now.0 {
            answer(turn, reply);
            return;
        }
        delivery.due = due;
        delivery.queued = false;
        delivery.moving = delivery.moving.saturating_add(1);
        let deliveries = delivery.sent;
        self.schedule(due, seq);
        let change = Change::Rescheduled {
            stream_seq: StreamSeq(seq),
            deliveries,
            due: Timestamp(due),
        };
        self.propose(change, reply, turn);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_of_an_ack_subject_are_read() {
        let v1 = AckToken::parse(b"$JS.ACK.S.C.2.10.7.1700000000000000000.5").expect("v1");
        assert_eq!((v1.stream, v1.consumer), (&b"S"[..], &b"C"[..]));
        assert_eq!(
            (v1.deliveries, v1.stream_seq, v1.consumer_seq),
            (2, StreamSeq(10), ConsumerSeq(7))
        );
        assert_eq!(
            (v1.timestamp, v1.pending),
            (Timestamp(1_700_000_000_000_000_000), 5)
        );
        for subject in [
            "$JS.ACK._.hash.S.C.2.10.7.1700000000000000000.5",
            "$JS.ACK._.hash.S.C.2.10.7.1700000000000000000.5.x.y",
        ] {
            assert_eq!(AckToken::parse(subject.as_bytes()), Some(v1), "{subject}");
        }
    }

    #[test]
    fn what_is_no_ack_subject_is_none() {
        for subject in [
            "",
            "$JS.ACK.",
            "$JS.ACK.S.C.1.1.1.1",
            "$JS.ACK.S.C.1.1.1.1.1.1",
            "$JS.ACK.S.C.1.0.1.1.1",
            "$JS.ACK.S.C.1.x.1.1.1",
            "$JS.ACK.S.C.1.99999999999999999999999.1.1.1",
            "$JS.NAK.S.C.1.1.1.1.1",
        ] {
            assert_eq!(AckToken::parse(subject.as_bytes()), None, "{subject}");
        }
    }

    #[test]
    fn payloads_say_what_they_say() {
        for (payload, kind) in [
            ("", AckKind::Ack),
            ("+ACK", AckKind::Ack),
            ("+OK", AckKind::Ack),
            ("-NAK", AckKind::Nak(0)),
            ("-NAK {\"delay\": 1500}", AckKind::Nak(1500)),
            ("-NAK 1m30s", AckKind::Nak(90_000_000_000)),
            ("-NAK soon", AckKind::Nak(0)),
            ("-NAK -5s", AckKind::Nak(0)),
            ("+WPI", AckKind::Progress),
            ("+NXT", AckKind::Next(b"")),
            ("+NXT 5", AckKind::Next(b" 5")),
            ("+TERM", AckKind::Term(b"")),
            ("+TERM  bad data ", AckKind::Term(b"bad data")),
            ("+ack", AckKind::Unknown),
            ("+WPI ", AckKind::Unknown),
        ] {
            assert_eq!(AckKind::parse(payload.as_bytes()), kind, "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = AckToken::parse(&bytes);
            let _ = AckKind::parse(&bytes);
            let mut subject = b"$JS.ACK.".to_vec();
            subject.extend_from_slice(&bytes);
            let _ = AckToken::parse(&subject);
        }
    }
}
