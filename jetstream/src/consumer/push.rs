//! Push consumers: interest, heartbeats, flow control, rate.

use std::time::Duration;

use super::config::AckPolicy;
use super::{Consumer, Turn, send_status, status};
use crate::ids::StreamSeq;
use crate::time::Timestamp;

/// Most bytes that may be on their way to a client with flow control.
const WINDOW_LIMIT: u64 = 32 << 20;
/// Where the window begins.
const WINDOW_START: u64 = WINDOW_LIMIT / 16;
/// Burst that a rate limit allows, bytes: the default largest payload.
const RATE_BURST: u64 = 1 << 20;
/// A consumer with an inactive threshold looks for its listeners this often at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The push side of a consumer; unused by pull consumers.
#[derive(Clone, Debug, Default)]
pub(super) struct Push {
    is_active: bool,
    checked: Timestamp,
    /// Since when nobody listens; zero before the first look.
    inactive_since: Timestamp,
    /// When something was sent last.
    last_sent: Timestamp,
    flow: Option<FlowControl>,
    requests: u64,
    /// Time at which the rate limit has forgotten everything sent.
    rate_clear_at: i64,
}

/// What is on its way to a client that asked for flow control.
#[derive(Clone, Debug)]
struct FlowControl {
    window: u64,
    /// Bytes sent and not confirmed.
    in_flight: u64,
    /// Bytes that the answer to `request` confirms.
    asked: u64,
    /// Reply subject of the request that is not answered.
    request: Option<Vec<u8>>,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            window: WINDOW_START,
            in_flight: 0,
            asked: 0,
            request: None,
        }
    }
}

impl Push {
    /// Whether the window is used up.
    pub(super) fn is_stalled(&self) -> bool {
        self.flow
            .as_ref()
            .is_some_and(|flow| flow.in_flight > flow.window)
    }

    /// Whether an answer is awaited.
    fn is_asked(&self) -> bool {
        let flow = self.flow.as_ref();
        flow.is_some_and(|flow| flow.request.is_some())
    }

    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Since when nobody listens, if so.
    pub(super) fn inactive_since(&self) -> Option<Timestamp> {
        (!self.is_active && self.inactive_since > Timestamp::ZERO).then_some(self.inactive_since)
    }

    pub(super) fn sent(&mut self, now: Timestamp) {
        self.last_sent = now;
    }

    /// Nobody listens: whoever comes next begins with a fresh window.
    pub(super) fn lose_interest(&mut self, now: Timestamp) {
        if self.is_active || self.inactive_since == Timestamp::ZERO {
            self.inactive_since = now;
        }
        self.is_active = false;
        self.flow = None;
    }

    /// Counts a message against the window. True when the client must be asked for a confirmation.
    pub(super) fn uses_window(&mut self, size: u64) -> bool {
        let flow = self.flow.get_or_insert_default();
        flow.in_flight += size;
        if flow.request.is_none() {
            return flow.in_flight > flow.window / 2;
        }
        if flow.in_flight.saturating_sub(flow.asked) >= flow.window {
            flow.asked += size;
        }
        false
    }

    /// When a message of `size` bytes may go out, if that is not now. If it is, it is counted.
    pub(super) fn limit_rate(&mut self, bps: u64, size: u64, now: Timestamp) -> Option<Timestamp> {
        if bps == 0 {
            return None;
        }
        let nanos = |bytes: u64| {
            let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(bps);
            i64::try_from(nanos).unwrap_or(i64::MAX)
        };
        let burst = nanos(RATE_BURST.max(size));
        let clear_at = self.rate_clear_at.max(now.0).saturating_add(nanos(size));
        let earliest = clear_at.saturating_sub(burst);
        if earliest > now.0 {
            return Some(Timestamp(earliest));
        }
        self.rate_clear_at = clear_at;
        None
    }
}

impl Consumer {
    /// Whether it pushes, and nobody listened when it last looked: then it wants a
    /// [`Consumer::deliver`] when someone subscribes.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        self.config.is_push() && !self.push.is_active
    }

    /// Takes the answer to a flow control request, published on its reply subject. True when more
    /// may be sent.
    ///
    /// With acks by flow control, everything up to `last` is settled: the stream sequence that the
    /// answer names.
    pub fn flow_confirmed(
        &mut self,
        subject: &[u8],
        last: Option<StreamSeq>,
        turn: &mut Turn<'_>,
    ) -> bool {
        self.begin_turn(turn.now);
        let Some(flow) = self
            .push
            .flow
            .as_mut()
            .filter(|f| f.request.as_deref() == Some(subject))
        else {
            return false;
        };
        flow.window = (flow.window * 2).min(WINDOW_LIMIT);
        flow.in_flight = flow.in_flight.saturating_sub(flow.asked);
        flow.asked = 0;
        flow.request = None;
        if self.config.ack_policy == AckPolicy::FlowControl
            && let Some(last) = last.filter(|last| *last <= self.sent.stream)
        {
            self.last_acked = Some(turn.now);
            self.settle_all(last, b"", turn);
        }
        true
    }

    /// Whether the client has to say what it has before it gets more.
    pub(super) fn wants_confirmation(&self) -> bool {
        self.config.ack_policy == AckPolicy::FlowControl
            && !self.push.is_asked()
            && self.is_stalled()
    }

    /// Looks whether anyone listens on the deliver subject.
    pub(super) fn check_interest(&mut self, turn: &mut Turn<'_>) -> bool {
        let group = self.config.deliver_group.as_bytes();
        let group = (!group.is_empty()).then_some(group);
        let target = self.config.deliver_subject.as_bytes();
        let push = &mut self.push;
        push.checked = turn.now;
        if !turn.out.has_interest(turn.account, target, group) {
            push.lose_interest(turn.now);
            return false;
        }
        if !push.is_active {
            push.is_active = true;
            push.last_sent = turn.now;
        }
        true
    }

    /// Sends the heartbeat that is due, and looks for interest when it is time to.
    pub(super) fn beat(&mut self, turn: &mut Turn<'_>) {
        if self.push_deadline().is_none_or(|at| at > turn.now) || !self.check_interest(turn) {
            return;
        }
        let Some(due) = self.heartbeat_due().filter(|due| *due <= turn.now) else {
            return;
        };
        debug_assert!(due <= turn.now);
        let stalled = self
            .push
            .flow
            .as_ref()
            .and_then(|flow| flow.request.as_deref());
        let (last_consumer, last_stream) = (self.sent.consumer.0, self.cursor - 1);
        status::write_heartbeat(&mut self.status, last_consumer, last_stream, stalled);
        let target = self.config.deliver_subject.as_bytes();
        if send_status(turn.out, turn.account, target, b"", &self.status) {
            self.push.sent(turn.now);
        } else {
            self.push.lose_interest(turn.now);
            return;
        }
        // The end of the stream: what it has is settled, too.
        if self.config.ack_policy == AckPolicy::FlowControl
            && !self.push.is_asked()
            && self.state.pending.unsettled() > 0
        {
            self.request_flow_control(turn);
        }
    }

    /// When [`Consumer::beat`] has something to do. Never while nobody listens: then the owner
    /// calls [`Consumer::deliver`] when subscriptions change.
    pub(super) fn push_deadline(&self) -> Option<Timestamp> {
        if !self.config.is_push() || !self.push.is_active() {
            return None;
        }
        // Without heartbeats only an inactive threshold wants to know when interest goes.
        let threshold = self.config.inactive_threshold;
        let look = (threshold > 0).then(|| {
            let every = super::waiting::duration(threshold / 2).max(LOOK_EVERY);
            self.push.checked.plus(every)
        });
        [look, self.heartbeat_due()].into_iter().flatten().min()
    }

    fn heartbeat_due(&self) -> Option<Timestamp> {
        let every = u64::try_from(self.config.idle_heartbeat)
            .ok()
            .filter(|ns| *ns > 0)?;
        self.push
            .is_active()
            .then(|| self.push.last_sent.plus(Duration::from_nanos(every)))
    }

    /// Asks the client to confirm what it got so far.
    pub(super) fn request_flow_control(&mut self, turn: &mut Turn<'_>) {
        self.push.requests += 1;
        let token = token(self.push.requests);
        let reply = format!("$JS.FC.{}.{}.{token}", turn.stream, self.name).into_bytes();
        let flow = self.push.flow.get_or_insert_default();
        flow.asked = flow.in_flight;
        status::write(&mut self.status, "100 FlowControl Request", &[]);
        let target = self.config.deliver_subject.as_bytes();
        send_status(turn.out, turn.account, target, &reply, &self.status);
        flow.request = Some(reply);
    }
}

/// Four letters and digits that differ between consecutive requests.
fn token(number: u64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
    (0..4)
        .map(|_| {
            let digit = DIGITS[(rest % 62) as usize];
            rest /= 62;
            char::from(digit)
        })
        .collect()
}

/// Stream and consumer of a `$JS.FC.` subject, if it is one.
#[must_use]
pub fn parse_flow_subject(subject: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut tokens = subject
        .strip_prefix(b"$JS.FC.")?
        .split(|byte| *byte == b'.');
    let (stream, consumer) = (tokens.next()?, tokens.next()?);
    tokens.next()?;
    tokens.next().is_none().then_some((stream, consumer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_subject_names_stream_and_consumer() {
        assert_eq!(
            parse_flow_subject(b"$JS.FC.S.C.abcd"),
            Some((&b"S"[..], &b"C"[..]))
        );
        assert_eq!(parse_flow_subject(b"$JS.FC.S.C"), None);
        assert_eq!(parse_flow_subject(b"$JS.ACK.S.C.abcd"), None);
    }

    #[test]
    fn a_rate_limit_lets_a_burst_pass_and_then_holds() {
        let mut push = Push::default();
        let now = Timestamp(1_000_000_000);
        // 8 Mbit/s are 1 MB/s: the burst goes at once, the rest at that pace.
        assert_eq!(push.limit_rate(8_000_000, RATE_BURST, now), None);
        let next = push.limit_rate(8_000_000, 1_000, now).expect("held back");
        assert_eq!(next.0 - now.0, 1_000_000);
        assert_eq!(push.limit_rate(8_000_000, 1_000, next), None);
    }

    #[test]
    fn the_window_asks_at_half_and_doubles() {
        let mut push = Push::default();
        assert!(!push.uses_window(WINDOW_START / 2));
        assert!(push.uses_window(1));
        assert!(!push.is_stalled());
    }
}
