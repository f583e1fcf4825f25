//! Pull requests that wait for messages.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;

use super::priority::Policy;
use crate::time::Timestamp;

/// A pull request as a client wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PullRequest {
    /// Messages wanted; less than 1 counts as 1.
    pub batch: i64,
    /// Time until the request ends, nanoseconds; 0 for never.
    pub expires: i64,
    /// Whether to answer at once when there is nothing.
    pub no_wait: bool,
    /// Most bytes wanted, 0 for no limit.
    pub max_bytes: i64,
    /// Time without a message after which the client wants to hear something, nanoseconds.
    pub idle_heartbeat: i64,
    /// Priority group.
    pub group: String,
    /// Serve only when this many messages are pending.
    pub min_pending: i64,
    /// Serve only when this many deliveries are not settled.
    pub min_ack_pending: i64,
    /// Id of the pinned client.
    pub id: String,
    /// Priority, 0 first.
    pub priority: i64,
    /// It came without JSON and so without a priority group.
    #[serde(skip)]
    pub is_plain: bool,
}

impl PullRequest {
    /// Reads the payload of a request: empty, a number, or JSON. Anything else asks for one message.
    ///
    /// # Errors
    /// The text to follow `Bad Request - ` when the JSON is malformed or contradicts itself.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let payload = payload.trim_ascii();
        if payload.first() != Some(&b'{') {
            let number = std::str::from_utf8(payload)
                .ok()
                .and_then(|text| text.parse().ok());
            return Ok(Self {
                batch: number.unwrap_or(1),
                is_plain: true,
                ..Self::default()
            });
        }
        let request = match serde_json::from_slice(payload) {
            Ok(request) => request,
            Err(_) => Self::parse_nulls(payload)?,
        };
        let heartbeat = request.idle_heartbeat;
        if heartbeat > 0 && heartbeat.saturating_mul(2) > request.expires {
            return Err("heartbeat value too large".to_owned());
        }
        Ok(request)
    }

    /// Reads JSON in which `null` stands for what is not asked for, as some clients write it.
    fn parse_nulls(payload: &[u8]) -> Result<Self, String> {
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        fields.retain(|_, value| !value.is_null());
        serde_json::from_value(serde_json::Value::Object(fields)).map_err(|error| error.to_string())
    }
}

/// What a request says about its priority group.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) group: String,
    pub(super) min_pending: i64,
    pub(super) min_ack_pending: i64,
    /// Empty for a client that is not pinned.
    pub(super) pin_id: String,
    priority: i64,
}

/// A request in the queue.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Where the messages go.
    pub(super) inbox: Box<[u8]>,
    /// Messages still wanted, at least 1.
    pub(super) left: u64,
    /// Messages it got.
    pub(super) delivered: u64,
    /// Bytes still wanted; 0 without a limit.
    pub(super) bytes_left: u64,
    /// When it ends, `i64::MAX` for never.
    expires: i64,
    /// Ends when there is nothing left.
    pub(super) no_wait: bool,
    /// Nanoseconds between heartbeats, 0 for none.
    heartbeat: i64,
    next_heartbeat: i64,
    /// None without a priority policy.
    pub(super) terms: Option<Box<Terms>>,
}

impl Request {
    pub(super) fn new(inbox: &[u8], request: &PullRequest, now: Timestamp, policy: Policy) -> Self {
        let has_terms = policy != Policy::None && !request.is_plain;
        let terms = has_terms.then(|| {
            Box::new(Terms {
                group: request.group.clone(),
                min_pending: request.min_pending,
                min_ack_pending: request.min_ack_pending,
                pin_id: request.id.clone(),
                priority: request.priority,
            })
        });
        let heartbeat = request.idle_heartbeat.max(0);
        Self {
            inbox: inbox.into(),
            left: u64::try_from(request.batch).unwrap_or(0).max(1),
            delivered: 0,
            bytes_left: u64::try_from(request.max_bytes).unwrap_or(0),
            expires: match request.expires {
                ..=0 => i64::MAX,
                expires => now.0.saturating_add(expires),
            },
            no_wait: request.no_wait,
            heartbeat,
            next_heartbeat: if heartbeat == 0 {
                i64::MAX
            } else {
                now.0.saturating_add(heartbeat)
            },
            terms,
        }
    }

    pub(super) fn never_expires(&self) -> bool {
        self.expires == i64::MAX
    }

    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires <= now.0
    }

    /// Whether a heartbeat is due; the next one is then set.
    pub(super) fn take_heartbeat(&mut self, now: Timestamp) -> bool {
        let due = self.next_heartbeat <= now.0;
        if due {
            self.next_heartbeat = now.0.saturating_add(self.heartbeat);
        }
        due
    }

    /// Whether nothing more is to come once there is nothing left to send.
    pub(super) fn wanted_what_there_was(&self) -> bool {
        self.no_wait && (self.never_expires() || self.delivered > 0)
    }

    fn priority(&self) -> i64 {
        self.terms.as_ref().map_or(i64::MAX, |terms| terms.priority)
    }

    fn wake(&self) -> i64 {
        self.expires.min(self.next_heartbeat)
    }
}

/// The waiting requests, served in turn.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    requests: VecDeque<Request>,
    capacity: usize,
    /// No request needs attention before this time; may be early, never late.
    wake: i64,
    /// How many of them end when there is nothing left.
    no_wait: usize,
    /// Lowest priority number first.
    is_sorted: bool,
}

impl Waiting {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            requests: VecDeque::new(),
            capacity,
            wake: i64::MAX,
            no_wait: 0,
            is_sorted: false,
        }
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.requests.len() >= self.capacity
    }

    /// Messages wanted by all of them.
    pub(super) fn wanted(&self) -> u64 {
        self.requests
            .iter()
            .fold(0, |sum, request| sum.saturating_add(request.left))
    }

    pub(super) fn push(&mut self, request: Request) {
        self.wake = self.wake.min(request.wake());
        self.no_wait += usize::from(request.no_wait);
        self.enqueue(request);
    }

    /// Whether they are served by priority instead of in turn.
    pub(super) fn set_sorted(&mut self, is_sorted: bool) {
        if is_sorted && !self.is_sorted {
            self.requests
                .make_contiguous()
                .sort_by_key(Request::priority);
        }
        self.is_sorted = is_sorted;
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Request> {
        self.requests.front_mut()
    }

    /// The one to serve next.
    pub(super) fn front(&self) -> Option<&Request> {
        self.requests.front()
    }

    /// Brings a request to the front whose inbox `may` have messages now. False when there is none;
    /// priorities stand, so then only the front one is asked for.
    pub(super) fn bring_to_front(&mut self, mut may: impl FnMut(&[u8]) -> bool) -> bool {
        let tries = if self.is_sorted {
            1
        } else {
            self.requests.len()
        };
        (0..tries).any(|_| {
            let is_good = self.requests.front().is_some_and(|front| may(&front.inbox));
            if !is_good && !self.is_sorted {
                self.pass_front();
            }
            is_good
        })
    }

    pub(super) fn pop_front(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.no_wait -= usize::from(request.no_wait);
        Some(request)
    }

    /// Whether some of them end when there is nothing left.
    pub(super) fn has_no_wait(&self) -> bool {
        self.no_wait > 0
    }

    /// Notes that the front request got a message of `size` bytes and moves it behind the others;
    /// returns it when it is done.
    pub(super) fn served(&mut self, size: u64, now: Timestamp) -> Option<Request> {
        let request = self.requests.front_mut()?;
        request.delivered += 1;
        request.left -= 1;
        if request.bytes_left > 0 {
            request.bytes_left = request.bytes_left.saturating_sub(size);
            if request.bytes_left == 0 {
                request.left = 0;
            }
        }
        if request.left == 0 {
            return self.pop_front();
        }
        if request.heartbeat > 0 {
            request.next_heartbeat = now.0.saturating_add(request.heartbeat);
        }
        if self.requests.len() > 1 {
            if self.is_sorted {
                let request = self.requests.pop_front()?;
                self.enqueue(request);
            } else {
                self.requests.rotate_left(1);
            }
        }
        None
    }

    /// Moves the front request behind the others.
    pub(super) fn pass_front(&mut self) {
        if self.requests.len() > 1 {
            self.requests.rotate_left(1);
        }
    }

    /// Adds a request at the end, or behind those of its priority.
    fn enqueue(&mut self, request: Request) {
        if !self.is_sorted {
            self.requests.push_back(request);
            return;
        }
        let at = self
            .requests
            .partition_point(|other| other.priority() <= request.priority());
        self.requests.insert(at, request);
    }

    /// Keeps the requests for which `keep` is true, in order.
    pub(super) fn retain(&mut self, keep: impl FnMut(&mut Request) -> bool) {
        self.requests.retain_mut(keep);
        self.wake = self
            .requests
            .iter()
            .map(Request::wake)
            .min()
            .unwrap_or(i64::MAX);
        self.no_wait = self
            .requests
            .iter()
            .filter(|request| request.no_wait)
            .count();
    }

    /// Takes out all requests.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Request> {
        self.wake = i64::MAX;
        self.no_wait = 0;
        self.requests.drain(..)
    }

    /// When a request needs attention, if ever.
    pub(super) fn wake(&self) -> Option<i64> {
        Some(self.wake).filter(|wake| *wake != i64::MAX && !self.requests.is_empty())
    }
}

/// A count of nanoseconds that may be negative as a duration.
pub(super) fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_empty_or_a_number_or_json() {
        let batch = |payload: &[u8]| PullRequest::parse(payload).expect("valid").batch;
        assert_eq!(batch(b""), 1);
        assert_eq!(batch(b" 25 "), 25);
        assert_eq!(batch(b"many"), 1);
        assert_eq!(batch(br#"{"batch":7,"no_wait":true}"#), 7);
        assert_eq!(batch(b"{}"), 0);
        assert_eq!(batch(br#"{"batch":4,"expires":null,"group":null}"#), 4);
        assert!(PullRequest::parse(b"3").is_ok_and(|request| request.is_plain));
        assert!(PullRequest::parse(b"{").is_err());
    }

    #[test]
    fn a_heartbeat_must_fit_twice() {
        let json = |expires: i64| format!(r#"{{"expires":{expires},"idle_heartbeat":10}}"#);
        assert!(PullRequest::parse(json(20).as_bytes()).is_ok());
        assert_eq!(
            PullRequest::parse(json(19).as_bytes()),
            Err("heartbeat value too large".to_owned())
        );
    }

    #[test]
    fn requests_are_served_in_turn() {
        let mut waiting = Waiting::new(10);
        for inbox in [b"a", b"b"] {
            let request = PullRequest {
                batch: 2,
                ..PullRequest::default()
            };
            waiting.push(Request::new(inbox, &request, Timestamp(0), Policy::None));
        }
        let mut served = Vec::new();
        while let Some(front) = waiting.front() {
            served.push(front.inbox[0]);
            waiting.served(1, Timestamp(0));
        }
        assert_eq!(served, b"abab");
    }

    proptest! {
        #[test]
        fn any_payload_gets_an_answer(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = PullRequest::parse(&payload);
        }
    }
}
