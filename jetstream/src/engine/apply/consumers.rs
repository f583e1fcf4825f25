//! Consumers come, change and go.

use super::damaged;
use super::streams::{Outcome, drop_unwanted};
use crate::api::{ApiError, consumer_config, metadata};
use crate::consumer::{Consumer, ConsumerConfig, StopReason};
use crate::engine::advisory::{Action, Event};
use crate::engine::request::{Applied, Members};
use crate::engine::view::StreamView;
use crate::engine::{Application, Engine, StreamGroup, meta};
use crate::ids::{GroupId, StreamSeq};
use crate::ports::{Entry, EntryLocation, LogStore, Outbox, StateStore, StoreError};
use crate::stream::config::Retention;
use crate::stream::{self, Rows, View};
use crate::time::Timestamp;
use crate::txn::Txn;

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    #[expect(
        clippy::too_many_arguments,
        reason = "an entry, where it lies, and a command with its time"
    )]
    pub(super) fn create_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: String,
        config: ConsumerConfig,
        created: Timestamp,
        settled: Option<(u64, u64)>,
        out: &mut dyn Outbox,
    ) -> Outcome {
        let group = entry.group;
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(damaged(entry, "its stream is gone"));
        };
        let known = target.consumers.get(&name).map(|existing| {
            let mut wanted = config.clone();
            wanted.pause_until = existing.config().pause_until;
            let same = consumer_config::same(existing.config(), &wanted);
            let known = Ok(Applied::Consumer(group, existing.id()));
            if same {
                known
            } else {
                Err(ApiError::consumer_exists())
            }
        });
        let refusal = known.or_else(|| {
            let bounds = consumer_config::Bounds::default();
            let stream = target.stream.config();
            consumer_config::check_room(&config, stream, &Members(target), &bounds)
                .err()
                .map(Err)
        });
        if let Some(answer) = refusal {
            self.skip(entry, location)?;
            return Ok(answer);
        }
        let id = target.next_consumer;
        let base: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        let view = View {
            rows: Rows::Txn(&txn),
            log: &self.log,
            cache: &mut self.cache,
        };
        let mut view = StreamView::new(&target.stream, view);
        let mut consumer = Consumer::create(id, name.clone(), config.clone(), created, &mut view)?;
        consumer.set_logged(is_logged(&config, target.stream.config().retention));
        if let Some((deliveries, stream)) = settled {
            consumer.stand_at(deliveries, StreamSeq(stream));
        }
        consumer.write_rows(group, &mut txn);
        target.insert_consumer(consumer);
        let stream_name = target.name.clone();
        let account = target.account.clone();
        let next = target.next_consumer;
        let row = meta::VolatileConsumerRow {
            id,
            name,
            created,
            config,
        };
        self.commit_consumer(entry, location, txn.into_writes(), |txn, in_memory| {
            meta::write_next_consumer(group, next, txn);
            if in_memory {
                meta::write_volatile_consumer(group, &row, txn);
            }
        })?;
        self.ready.insert((group, id));
        let event = Event::Consumer(&stream_name, &row.name, Action::Create);
        self.advise(&account, event, created, out);
        Ok(Ok(Applied::Consumer(group, id)))
    }

    pub(super) fn update_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: &str,
        mut config: ConsumerConfig,
    ) -> Outcome {
        let Some(target) = self.groups.get(&entry.group) else {
            return Err(damaged(entry, "its stream is gone"));
        };
        let refusal = match target.consumers.get(name) {
            None => Some(ApiError::consumer_does_not_exist()),
            Some(consumer) => {
                let current = consumer.config();
                config.pause_until = current.pause_until;
                let retention = target.stream.config().retention;
                if retention == Retention::WorkQueue
                    && !consumer_config::is_only_taker(Some(name), &config, &Members(target))
                {
                    Some(ApiError::work_queue_filter_not_unique())
                } else {
                    consumer_config::check_change(current, &config, false).err()
                }
            }
        };
        if let Some(refusal) = refusal {
            self.skip(entry, location)?;
            return Ok(Err(refusal));
        }
        metadata::stamp_consumer(&mut config);
        self.reconfigure(entry, location, name, config)
    }

    pub(super) fn pause_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: &str,
        until: Timestamp,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Outcome {
        let target = self.groups.get(&entry.group);
        let consumer = target.and_then(|target| target.consumers.get(name));
        let (Some(target), Some(consumer)) = (target, consumer) else {
            self.skip(entry, location)?;
            return Ok(Err(ApiError::consumer_not_found()));
        };
        let (account, stream_name) = (target.account.clone(), target.name.clone());
        let mut config = consumer.config().clone();
        config.pause_until = (until > Timestamp::ZERO).then_some(until);
        metadata::stamp_consumer(&mut config);
        let outcome = self.reconfigure(entry, location, name, config)?;
        let event = Event::Pause(&stream_name, name, until);
        self.advise(&account, event, now, out);
        Ok(outcome)
    }

    /// Gives a consumer a configuration that was found good.
    fn reconfigure(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: &str,
        config: ConsumerConfig,
    ) -> Outcome {
        let group = entry.group;
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(damaged(entry, "its stream is gone"));
        };
        let base: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        let Some(consumer) = target.consumers.get_mut(name) else {
            return Err(damaged(entry, "its consumer is gone"));
        };
        let old_filters = consumer.filters().clone();
        let view = View {
            rows: Rows::Txn(&txn),
            log: &self.log,
            cache: &mut self.cache,
        };
        let mut view = StreamView::new(&target.stream, view);
        consumer.update_config(config.clone(), &mut view)?;
        consumer.write_rows(group, &mut txn);
        let (id, created) = (consumer.id(), consumer.created());
        let filters = consumer.filters().clone();
        if old_filters != filters {
            target.audience.remove(id, &old_filters);
            target.audience.insert(id, &filters);
        }
        let lost_interest =
            old_filters != filters && target.stream.config().retention == Retention::Interest;
        let mut removed = Vec::new();
        if lost_interest {
            let mut cx = stream::Context {
                txn: &mut txn,
                log: &self.log,
                cache: &mut self.cache,
                segments: &mut self.segments,
            };
            drop_unwanted(target, &old_filters, &mut cx, &mut removed)?;
        }
        let row = meta::VolatileConsumerRow {
            id,
            name: name.to_owned(),
            created,
            config,
        };
        self.commit_consumer(entry, location, txn.into_writes(), |txn, in_memory| {
            if in_memory {
                meta::write_volatile_consumer(group, &row, txn);
            }
        })?;
        self.announce_removed(group, &removed);
        self.ready.insert((group, id));
        Ok(Ok(Applied::Consumer(group, id)))
    }

    /// Has a consumer begin again at `start`, or behind its ack floor.
    pub(super) fn reset_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: &str,
        start: Option<StreamSeq>,
    ) -> Outcome {
        let group = entry.group;
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(damaged(entry, "its stream is gone"));
        };
        let Some(consumer) = target.consumers.get_mut(name) else {
            self.skip(entry, location)?;
            return Ok(Err(ApiError::consumer_not_found()));
        };
        let base: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        let start = start
            .unwrap_or_else(|| consumer.ack_floor().stream.next())
            .max(StreamSeq(1));
        consumer.reset(start);
        consumer.write_rows(group, &mut txn);
        let id = consumer.id();
        let filters = consumer.filters().clone();
        let mut removed = Vec::new();
        if target.stream.config().retention == Retention::Interest {
            // It no longer wants what it leaves out.
            let mut cx = stream::Context {
                txn: &mut txn,
                log: &self.log,
                cache: &mut self.cache,
                segments: &mut self.segments,
            };
            drop_unwanted(target, &filters, &mut cx, &mut removed)?;
        }
        self.commit(entry, location, txn.into_writes())?;
        self.announce_removed(group, &removed);
        self.ready.insert((group, id));
        Ok(Ok(Applied::Reset(group, id, start)))
    }

    pub(super) fn delete_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        name: &str,
        only: Option<u32>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Outcome {
        let group = entry.group;
        let Some(target) = self.groups.get_mut(&group) else {
            return Err(damaged(entry, "its stream is gone"));
        };
        let id = target.consumers.get(name).map(Consumer::id);
        let wanted = id.filter(|id| only.is_none_or(|only| only == *id));
        let Some(mut consumer) = wanted.and_then(|_| target.remove_consumer(name)) else {
            self.skip(entry, location)?;
            return Ok(Err(ApiError::consumer_not_found()));
        };
        let id = consumer.id();
        let (account, stream_name) = (target.account.clone(), target.name.clone());
        let base: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut txn = Txn::new(base);
        consumer.drop_rows(group, &mut txn);
        let mut removed = Vec::new();
        if target.stream.config().retention == Retention::Interest {
            // What only this consumer still wanted goes with it.
            let mut cx = stream::Context {
                txn: &mut txn,
                log: &self.log,
                cache: &mut self.cache,
                segments: &mut self.segments,
            };
            drop_unwanted(target, consumer.filters(), &mut cx, &mut removed)?;
        }
        self.commit_consumer(entry, location, txn.into_writes(), |txn, in_memory| {
            if in_memory {
                meta::delete_volatile_consumer(group, id, txn);
            }
        })?;
        self.announce_removed(group, &removed);
        self.forget_consumer(group, id);
        consumer.stop(StopReason::Deleted, &account, &stream_name, out);
        let event = Event::Consumer(&stream_name, name, Action::Delete);
        self.advise(&account, event, now, out);
        Ok(Ok(Applied::Done))
    }

    /// Writes a change of a consumer. Those of memory streams are rows in memory; that the consumer
    /// exists, and how it is configured, is durable all the same.
    fn commit_consumer(
        &mut self,
        entry: &Entry,
        location: Option<EntryLocation>,
        mut writes: crate::ports::WriteSet,
        note: impl FnOnce(&mut Txn<'_>, bool),
    ) -> Result<(), StoreError> {
        let target = self.groups.get(&entry.group);
        let in_memory = target.is_some_and(|target| target.in_memory);
        if in_memory {
            self.volatile.write(&writes)?;
            writes.writes.clear();
        }
        let mut txn = Txn::new(&self.state);
        note(&mut txn, in_memory);
        writes.writes.append(&mut txn.into_writes().writes);
        self.commit_durable(entry, location, writes)
    }
}

impl StreamGroup {
    /// After the retention changed: consumers that kept no log of their acks begin to where acks
    /// remove messages, and then with what the log knows of them, which is nothing.
    pub(super) fn follow_retention(&mut self, group: GroupId, cx: &mut stream::Context<'_, '_>) {
        let retention = self.stream.config().retention;
        let first = self.stream.first_seq().max(StreamSeq(1));
        for consumer in self.consumers.values_mut() {
            if is_logged(consumer.config(), Retention::Limits) {
                continue;
            }
            let is_logged = is_logged(consumer.config(), retention);
            consumer.set_logged(is_logged);
            if is_logged {
                consumer.reset(first);
                consumer.write_rows(group, cx.txn);
            }
        }
    }
}

/// Whether what happens to a consumer goes through the log. One that its owner wants in memory may
/// forget its place with the process, unless its acks remove messages from the stream.
pub(in crate::engine) fn is_logged(config: &ConsumerConfig, retention: Retention) -> bool {
    !config.mem_storage || retention != Retention::Limits
}
