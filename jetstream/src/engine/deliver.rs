//! Consumers get their turn: deliveries, timers, expiry.

use super::view::StreamView;
use super::{Application, Engine, Origin, StreamGroup};
use crate::command::StreamCommand;
use crate::consumer::{Consumer, StopReason, Turn};
use crate::ids::GroupId;
use crate::ports::{LogStore, Outbox, StateStore};
use crate::stream::View;
use crate::time::Timestamp;

/// Stands for the stream itself among the timers of its group.
const STREAM_TIMER: u32 = 0;

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Lets every ready consumer hand out what it may. True when one has more to give.
    pub(super) fn deliver(&mut self, now: Timestamp, out: &mut dyn Outbox) -> bool {
        let ready = std::mem::take(&mut self.ready);
        let burst = self.options.delivery_burst;
        for (group, id) in ready {
            let more = self.with_consumer(group, id, now, out, |consumer, turn| {
                let more = consumer.deliver(turn, burst);
                (more, consumer.is_unheard())
            });
            match more.as_ref().map(|(_, is_unheard)| *is_unheard) {
                Some(true) => self.unheard.insert((group, id)),
                Some(false) | None => self.unheard.remove(&(group, id)),
            };
            match more.map(|(more, _)| more) {
                Some(Ok(true)) => {
                    self.ready.insert((group, id));
                }
                Some(Ok(false)) | None => {}
                Some(Err(error)) => {
                    tracing::error!("a consumer cannot read its stream: {error}");
                }
            }
        }
        !self.ready.is_empty()
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
        let stream_name = stream.config().name.clone();
        let idle = proposed.is_empty() && builder.is_none();
        let value = {
            let view = View::new(base, &self.log, &mut self.cache);
            let mut view = StreamView { stream, view };
            let mut turn = Turn {
                now,
                account,
                stream: &stream_name,
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
            self.notices
                .push((account.clone(), stream_name.clone(), notice));
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
        } else {
            target.stream.next_expiry()
        };
        self.set_timer(group, STREAM_TIMER, deadline);
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

    pub(super) fn forget_consumer_timer(&mut self, group: GroupId, id: u32) {
        self.set_timer(group, id, None);
    }

    fn expire(&mut self, group: GroupId, now: Timestamp) {
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        if target.advancing {
            return;
        }
        target.advancing = true;
        self.propose_stream(group, StreamCommand::Advance { now }, Origin::None);
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
        self.propose_stream(group, StreamCommand::DeleteConsumer { name }, Origin::None);
    }

    /// Tells every waiting pull request that the server goes away.
    pub(super) fn stop_consumers(&mut self, _now: Timestamp, out: &mut dyn Outbox) {
        for target in self.groups.values_mut() {
            let stream_name = target.stream.config().name.clone();
            for consumer in target.consumers.values_mut() {
                consumer.stop(StopReason::Shutdown, &target.account, &stream_name, out);
            }
        }
    }
}
