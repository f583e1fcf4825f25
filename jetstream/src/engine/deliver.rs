//! Consumers get their turn: deliveries, timers, expiry.

use std::cell::Cell;
use std::ops::Bound;
use std::time::Duration;

use super::additions::SCHEDULE_TIMER;
use super::atomic::BATCH_TIMER;
use super::ended::Ended;
use super::replicate::LINK_TIMER;
use super::view::StreamView;
use super::{Application, Engine, Origin, StreamGroup};
use crate::command::StreamCommand;
use crate::consumer::{Consumer, StopReason, Turn};
use crate::ids::{AccountName, GroupId};
use crate::ports::{LogStore, Outbox, Outgoing, StateStore};
use crate::stream::View;
use crate::time::Timestamp;

/// Stands for the stream itself among the timers of its group.
pub(super) const STREAM_TIMER: u32 = 0;
/// How long a consumer waits for a receiver that is behind before it looks again.
const CONGESTION_WAIT: Duration = Duration::from_millis(5);
/// How long a consumer that cannot read its stream waits before it tries again.
const READ_RETRY: Duration = Duration::from_secs(1);
/// Messages that expire or are purged before others get their turn, about: some milliseconds.
pub(super) const MAX_REMOVED: u32 = 2048;
/// Messages handed out before the bytes they took are looked at.
const MAX_STEP: u64 = 64;

/// Counts what goes out.
struct Metered<'a> {
    out: &'a mut dyn Outbox,
    bytes: &'a Cell<u64>,
}

impl Outbox for Metered<'_> {
    fn send(&mut self, message: Outgoing<'_>) -> bool {
        let size = message.header.len() + message.payload.len() + message.subject.len();
        self.bytes.set(self.bytes.get() + size as u64);
        self.out.send(message)
    }

    fn has_interest(
        &mut self,
        account: &AccountName,
        subject: &[u8],
        queue: Option<&[u8]>,
    ) -> bool {
        self.out.has_interest(account, subject, queue)
    }

    fn has_exact_interest(&mut self, account: &AccountName, subject: &[u8]) -> bool {
        self.out.has_exact_interest(account, subject)
    }

    fn is_congested(&mut self, account: &AccountName, subject: &[u8]) -> bool {
        self.out.is_congested(account, subject)
    }
}

/// How a consumer's turn ended.
enum Served {
    /// It has nothing to hand out now.
    All,
    /// It has more.
    Some,
    /// Who would get its messages is behind.
    Congested,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Lets ready consumers hand out what they may, one after the other, until the turn has given
    /// out enough. Those that have more to give, or did not get their turn, stay ready.
    pub(super) fn deliver(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        let ready = std::mem::take(&mut self.ready);
        let bytes = Cell::new(0);
        let mut out = Metered { out, bytes: &bytes };
        let next = (Bound::Excluded(self.served), Bound::Unbounded);
        let wrapped = (Bound::Unbounded, Bound::Included(self.served));
        for key in ready.range(next).chain(ready.range(wrapped)) {
            if bytes.get() >= self.options.turn_bytes {
                self.ready.insert(*key);
            } else {
                self.served = *key;
                self.serve(*key, now, &mut out);
            }
        }
    }

    /// Gives one consumer its turn.
    fn serve(&mut self, key: (GroupId, u32), now: Timestamp, out: &mut Metered<'_>) {
        let (group, id) = key;
        // Its turn comes when the stream is whole: till then nobody could acknowledge anything.
        if self
            .groups
            .get(&group)
            .is_some_and(|target| target.restoring)
        {
            return;
        }
        let step = self.step(group);
        let burst = self.options.delivery_burst as u64;
        let bytes = out.bytes;
        let enough = bytes.get() + self.options.delivery_burst_bytes;
        let result = self.with_consumer(group, id, now, out, |consumer, turn| {
            if !consumer.has_taker(turn) {
                return (Ok(Served::Congested), consumer.is_unheard());
            }
            let mut given = 0;
            let result = loop {
                match consumer.deliver(turn, usize::try_from(step).unwrap_or(usize::MAX)) {
                    Ok(true) => given += step,
                    Ok(false) => break Ok(Served::All),
                    Err(error) => break Err(error),
                }
                if given >= burst || bytes.get() >= enough {
                    break Ok(Served::Some);
                }
            };
            (result, consumer.is_unheard())
        });
        let Some((result, is_unheard)) = result else {
            return;
        };
        if is_unheard {
            self.unheard.insert(key);
        } else {
            self.unheard.remove(&key);
        }
        match result {
            Ok(Served::All) => {}
            Ok(Served::Some) => {
                self.ready.insert(key);
            }
            Ok(Served::Congested) => self.look_again(key, now.plus(CONGESTION_WAIT)),
            Err(error) => {
                tracing::error!("a consumer cannot read its stream: {error}");
                self.look_again(key, now.plus(READ_RETRY));
            }
        }
    }

    /// Messages of a stream that are a small part of what a consumer may hand out at once.
    fn step(&self, group: GroupId) -> u64 {
        let Some(target) = self.groups.get(&group) else {
            return 1;
        };
        let size = target.stream.bytes() / target.stream.messages().max(1);
        (self.options.delivery_burst_bytes / 4 / size.max(1)).clamp(1, MAX_STEP)
    }

    /// Gives a consumer its turn at `at`, or earlier if its own timer says so.
    fn look_again(&mut self, key: (GroupId, u32), at: Timestamp) {
        let (group, id) = key;
        let at = self.timers.get(&key).map_or(at, |own| at.min(*own));
        self.set_timer(group, id, Some(at));
    }

    /// Runs whatever is due.
    pub(super) fn run_timers(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        while let Some(&(at, group, id)) = self.due.first() {
            if at > now {
                break;
            }
            self.due.pop_first();
            self.timers.remove(&(group, id));
            if id == STREAM_TIMER {
                self.expire(group, now);
                continue;
            }
            if id == BATCH_TIMER {
                self.run_batches(group, now);
                continue;
            }
            if id == SCHEDULE_TIMER {
                self.run_schedules(group, now);
                continue;
            }
            if id == LINK_TIMER {
                self.run_links(group, now, out);
                continue;
            }
            let expired = self.with_consumer(group, id, now, out, |consumer, turn| {
                consumer.tick(turn).map(|()| consumer.is_abandoned(turn))
            });
            match expired {
                Some(Ok(true)) => self.delete_abandoned(group, id),
                Some(Ok(false)) => {
                    self.ready.insert((group, id));
                }
                Some(Err(error)) => {
                    tracing::error!("a consumer cannot read its stream: {error}");
                    self.set_timer(group, id, Some(now.plus(READ_RETRY)));
                }
                None => {}
            }
        }
    }

    /// Gives one consumer its turn, keeps what it proposes, and sets its next timer.
    pub(super) fn with_consumer<T>(
        &mut self,
        group: GroupId,
        id: u32,
        now: Timestamp,
        out: &mut dyn Outbox,
        work: impl FnOnce(&mut Consumer, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let target = self.groups.get_mut(&group)?;
        let StreamGroup {
            account,
            name: stream_name,
            stream,
            consumers,
            names,
            in_memory,
            proposed,
            builder,
            ..
        } = target;
        let name = names.get(&id)?;
        let consumer = consumers.get_mut(name)?;
        let base: &dyn StateStore = if *in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let idle = proposed.is_empty() && builder.is_none();
        let value = {
            let view = View::new(base, &self.log, &mut self.cache);
            let mut view = StreamView::new(stream, view);
            let mut turn = Turn {
                now,
                account,
                stream: stream_name,
                domain: self.options.domain.as_deref(),
                source: &mut view,
                out,
                events: proposed,
                notices: &mut self.turn_notices,
            };
            work(consumer, &mut turn)
        };
        let deadline = consumer.next_deadline();
        if idle && !proposed.is_empty() {
            self.gathering.push(group);
        }
        for notice in self.turn_notices.drain(..) {
            self.ended.push(Ended {
                account: account.clone(),
                stream: stream_name.to_string(),
                notice,
                key: None,
            });
        }
        self.set_timer(group, id, deadline);
        Some(value)
    }

    /// Sets the expiry timer of a stream.
    pub(super) fn schedule_expiry(&mut self, group: GroupId) {
        let Some(target) = self.groups.get(&group) else {
            return;
        };
        let deadline = if target.advancing {
            None
        } else if !target.shrinking.is_empty() {
            // Who waits for that is answered then, whatever it was that made it shrink.
            Some(Timestamp::ZERO)
        } else {
            target.stream.next_expiry()
        };
        let schedule = if target.producing {
            None
        } else {
            target.stream.next_schedule()
        };
        self.set_timer(group, STREAM_TIMER, deadline);
        self.set_timer(group, SCHEDULE_TIMER, schedule);
    }

    pub(super) fn set_timer(&mut self, group: GroupId, id: u32, deadline: Option<Timestamp>) {
        let key = (group, id);
        let old = match deadline {
            Some(at) => {
                if self.timers.get(&key) == Some(&at) {
                    return;
                }
                self.due.insert((at, group, id));
                self.timers.insert(key, at)
            }
            None => self.timers.remove(&key),
        };
        if let Some(old) = old {
            self.due.remove(&(old, group, id));
        }
    }

    pub(super) fn forget_timers(&mut self, group: GroupId) {
        let keys: Vec<_> = self
            .timers
            .range((group, 0)..=(group, u32::MAX))
            .map(|(key, _)| *key)
            .collect();
        for (group, id) in keys {
            self.set_timer(group, id, None);
        }
    }

    /// Forgets everything about a consumer that is gone.
    pub(super) fn forget_consumer(&mut self, group: GroupId, id: u32) {
        self.set_timer(group, id, None);
        self.ready.remove(&(group, id));
        self.unheard.remove(&(group, id));
    }

    pub(super) fn expire(&mut self, group: GroupId, now: Timestamp) {
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        if std::mem::take(&mut target.additions_lost)
            && let Err(error) = self.propose_due_again(group, now)
        {
            self.poison(error);
            return;
        }
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        if target.advancing {
            return;
        }
        target.advancing = true;
        let most = Some(MAX_REMOVED);
        let command = StreamCommand::Advance { now, most };
        self.propose_stream(group, command, Origin::None);
    }

    fn delete_abandoned(&mut self, group: GroupId, id: u32) {
        let Some(name) = self
            .groups
            .get(&group)
            .and_then(|g| g.names.get(&id))
            .cloned()
        else {
            return;
        };
        let id = Some(id);
        let command = StreamCommand::DeleteConsumer { name, id };
        self.propose_stream(group, command, Origin::None);
    }

    /// Tells every waiting pull request that nothing will come.
    pub(super) fn stop_consumers(&mut self, reason: StopReason, out: &mut dyn Outbox) {
        for target in self.groups.values_mut() {
            for consumer in target.consumers.values_mut() {
                consumer.stop(reason, &target.account, &target.name, out);
            }
        }
    }
}
