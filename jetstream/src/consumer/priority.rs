//! Priority groups: which of the waiting requests may be served at all.

use super::waiting::{PullRequest, Request, duration};
use super::{Consumer, ConsumerConfig, Turn, send_status, status};
use crate::consumer::info::PriorityGroupInfo;
use crate::time::Timestamp;

/// Time without a request after which a pinned client loses its pin, where the configuration does
/// not say: two minutes.
const DEFAULT_PIN_NS: i64 = 120_000_000_000;

/// How requests of a group share the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Policy {
    /// In turn.
    #[default]
    None,
    /// Some only when much is pending.
    Overflow,
    /// One client alone, until it stays away.
    Pinned,
    /// The lowest number first.
    Prioritized,
}

impl Policy {
    pub(super) fn of(config: &ConsumerConfig) -> Self {
        match config.priority_policy.as_deref() {
            Some("overflow") => Self::Overflow,
            Some("pinned_client") => Self::Pinned,
            Some("prioritized") => Self::Prioritized,
            _ => Self::None,
        }
    }
}

/// The client that is served alone.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    id: String,
    since: Timestamp,
    /// Gone at this time, unless the client asks again.
    expires: Timestamp,
}

impl Pin {
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// Whether the request in front may have a message.
enum Fit {
    Yes,
    /// Not this time.
    NotNow,
    /// Never: it names a client that is not pinned any more.
    Never,
}

impl Consumer {
    /// Whether a request may join its group; else the status line of the refusal.
    pub(super) fn accept_priority(&mut self, request: &PullRequest) -> Result<(), &'static str> {
        if request.is_plain {
            return Ok(());
        }
        let policy = self.priority;
        let wants_overflow = request.min_pending != 0 || request.min_ack_pending != 0;
        if wants_overflow && policy != Policy::Overflow {
            return Err("400 Bad Request - Not a Overflow Priority consumer");
        }
        if !request.id.is_empty() && policy != Policy::Pinned {
            return Err("400 Bad Request - Not a Pinned Client Priority consumer");
        }
        if !(0..=9).contains(&request.priority) {
            return Err("400 Bad Request - Priority must be between 0 and 9");
        }
        if policy == Policy::None {
            return Ok(());
        }
        if request.group.is_empty() {
            return Err("400 Bad Request - Priority Group missing");
        }
        if !self.config.priority_groups.contains(&request.group) {
            return Err("400 Bad Request - Invalid Priority Group");
        }
        let expires = self.clock.plus(duration(self.pin_ns()));
        if let Some(pin) = &mut self.pin {
            if request.id == pin.id {
                pin.expires = expires;
            } else if !request.id.is_empty() {
                return Err("423 Nats-Pin-Id mismatch");
            }
        }
        Ok(())
    }

    /// Brings a request that may have the next message to the front; false when there is none.
    /// `pending` counts that message too.
    pub(super) fn bring_to_front(&mut self, pending: u64, turn: &mut Turn<'_>) -> bool {
        if matches!(self.priority, Policy::None | Policy::Prioritized) {
            return !self.waiting.is_empty();
        }
        let mut passed = 0;
        while passed < self.waiting.len() {
            let Some(request) = self.waiting.front() else {
                return false;
            };
            match self.fit(request, pending) {
                Fit::Yes => {
                    self.pin_front(turn);
                    return true;
                }
                Fit::NotNow => {
                    self.waiting.pass_front();
                    passed += 1;
                }
                Fit::Never => {
                    let (left, bytes) = (request.left, request.bytes_left);
                    status::write_remaining(&mut self.status, "423 Nats-Wrong-Pin-Id", left, bytes);
                    send_status(turn.out, turn.account, &request.inbox, b"", &self.status);
                    self.waiting.pop_front();
                }
            }
        }
        false
    }

    fn fit(&self, request: &Request, pending: u64) -> Fit {
        let Some(terms) = &request.terms else {
            return if self.pin.is_some() {
                Fit::NotNow
            } else {
                Fit::Yes
            };
        };
        if self.priority == Policy::Overflow {
            let is_unconditional = terms.min_pending <= 0 && terms.min_ack_pending <= 0;
            let reached = |wanted: i64, there: u64| {
                wanted > 0 && u64::try_from(wanted).is_ok_and(|wanted| wanted <= there)
            };
            let unsettled = self.state.pending.unsettled() as u64;
            let fits = is_unconditional
                || reached(terms.min_pending, pending)
                || reached(terms.min_ack_pending, unsettled);
            return if fits { Fit::Yes } else { Fit::NotNow };
        }
        match &self.pin {
            Some(pin) if terms.pin_id == pin.id => Fit::Yes,
            Some(_) if terms.pin_id.is_empty() => Fit::NotNow,
            None if terms.pin_id.is_empty() => Fit::Yes,
            Some(_) | None => Fit::Never,
        }
    }

    /// Pins the client in front when nobody is.
    fn pin_front(&mut self, turn: &mut Turn<'_>) {
        if self.priority != Policy::Pinned || self.pin.is_some() {
            return;
        }
        let id = self.unique_id(turn.stream);
        let Some(terms) = self
            .waiting
            .front_mut()
            .and_then(|front| front.terms.as_mut())
        else {
            return;
        };
        terms.pin_id.clone_from(&id);
        let group = terms.group.clone();
        let expires = turn.now.plus(duration(self.pin_ns()));
        self.advise_pinned(&group, &id, turn);
        self.pin = Some(Pin {
            id,
            since: turn.now,
            expires,
        });
    }

    /// Takes the pin back from the request in front, which goes without having had a message.
    pub(super) fn release_unused_pin(&mut self, now: Timestamp) {
        let is_unused = self
            .waiting
            .front()
            .is_some_and(|request| request.delivered == 0)
            && self.pin.as_ref().is_some_and(|pin| pin.since == now);
        if is_unused {
            self.pin = None;
        }
    }

    /// When the pinned client loses its pin.
    pub(super) fn pin_expires(&self) -> Option<Timestamp> {
        self.pin.as_ref().map(|pin| pin.expires)
    }

    /// Takes the pin from a client that stayed away.
    pub(super) fn expire_pin(&mut self, turn: &mut Turn<'_>) {
        if self.pin_expires().is_some_and(|at| at <= turn.now) {
            self.take_pin("timeout", turn);
        }
    }

    /// Takes the pin from whoever has it, because someone said so; another client gets it with the
    /// next message.
    pub fn unpin(&mut self, turn: &mut Turn<'_>) {
        self.begin_turn(turn.now);
        self.take_pin("admin", turn);
    }

    fn take_pin(&mut self, reason: &str, turn: &mut Turn<'_>) {
        if self.pin.take().is_some()
            && let Some(group) = self.config.priority_groups.first().cloned()
        {
            self.advise_unpinned(&group, reason, turn);
        }
    }

    pub(super) fn group_info(&self) -> Vec<PriorityGroupInfo> {
        let groups = self.config.priority_groups.iter().take(1);
        groups
            .map(|group| PriorityGroupInfo {
                group: group.clone(),
                pinned_client_id: self
                    .pin
                    .as_ref()
                    .map_or_else(String::new, |pin| pin.id.clone()),
                pinned_ts: self.pin.as_ref().map_or(Timestamp::ZERO, |pin| pin.since),
            })
            .collect()
    }

    fn pin_ns(&self) -> i64 {
        match self.config.priority_timeout {
            ..=0 => DEFAULT_PIN_NS,
            nanos => nanos,
        }
    }
}
