//! From the stores to a running engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::accounts::Accounts;
use super::apply::is_logged;
use super::meta::{self, Meta};
use super::reclaim::Reclaim;
use super::replicate::Listeners;
use super::starts::Starts;
use super::{Application, Change, Engine, Options, StreamGroup};
use crate::consumer::Consumer;
use crate::ids::{AccountName, GroupId};
use crate::memory::MemoryState;
use crate::ports::{
    Entry, EntryLocation, LogPosition, LogStore, Outbox, Outgoing, StateStore, StoreError,
    StoreErrorKind,
};
use crate::stream::config::Storage;
use crate::stream::{BlockCache, SegmentUse, Stream, View};
use crate::time::Timestamp;

use super::view::StreamView;

/// Entries are read from the log in portions of about this many payload bytes.
const PORTION_BYTES: usize = 8 << 20;

/// Nobody listens while the log is replayed.
struct Nobody;

impl Outbox for Nobody {
    fn send(&mut self, _message: Outgoing<'_>) -> bool {
        false
    }
    fn has_interest(
        &mut self,
        _account: &AccountName,
        _subject: &[u8],
        _queue: Option<&[u8]>,
    ) -> bool {
        false
    }
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Reads the state store, replays what the log holds beyond it, and is ready to serve.
    ///
    /// # Errors
    /// Damage in either store, or a read that failed. Nothing was changed then.
    pub fn open(
        log: L,
        state: S,
        mut application: A,
        options: Options,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let (meta, rows) = Meta::load(&state)?;
        application.load(&state)?;
        let segments = SegmentUse::load(&state)?;
        let next_meta_index = meta::read_index(GroupId::META, &state)? + 1;
        let next_application_index = meta::read_index(GroupId::APPLICATION, &state)? + 1;
        let mut engine = Self {
            volatile: MemoryState::default(),
            cache: BlockCache::new(options.cache_bytes),
            random: options.seed,
            accounts: Accounts::new(options.limits),
            options,
            log,
            state,
            application,
            meta,
            groups: BTreeMap::new(),
            segments,
            term: 1,
            next_meta_index,
            next_application_index,
            sealed: Vec::new(),
            reads: Vec::new(),
            gathering: Vec::new(),
            counting: BTreeSet::new(),
            fast: BTreeSet::new(),
            pending: VecDeque::new(),
            in_flight_bytes: 0,
            reclaim: Reclaim::default(),
            ready: BTreeSet::new(),
            served: (GroupId(0), 0),
            unheard: BTreeSet::new(),
            timers: BTreeMap::new(),
            due: BTreeSet::new(),
            changes: Vec::new(),
            listeners: Listeners::default(),
            backups: BTreeMap::new(),
            restores: BTreeMap::new(),
            starts: Starts::default(),
            linked: BTreeSet::new(),
            requests: Vec::new(),
            completions: Vec::new(),
            ended: Vec::new(),
            turn_notices: Vec::new(),
            outcomes: Vec::new(),
            removed: Vec::new(),
            poisoned: None,
            is_stopped: false,
        };
        for row in rows {
            engine.load_stream(row)?;
        }
        engine.replay(now)?;
        // Replayed ends have their records among the others.
        engine.ended = super::ended::load(&engine.state)?;
        for target in engine.groups.values_mut() {
            target.last_time = target.last_time.max(target.stream.log_time());
            if target.in_memory {
                target.since = target.last_time.max(now);
            }
            // Replayed deliveries are recorded but not scheduled: from here on this server hands
            // out.
            for consumer in target.consumers.values_mut() {
                consumer.begin_again();
            }
        }
        let captures: Vec<Change> = engine
            .groups
            .iter()
            .filter(|(_, target)| !target.restoring)
            .map(|(group, target)| Change::Capture {
                account: target.account.clone(),
                group: *group,
                subjects: target.stream.config().subjects.clone(),
            })
            .collect();
        engine.changes = captures;
        let groups: Vec<GroupId> = engine.groups.keys().copied().collect();
        for group in groups {
            if engine.drop_unfinished(group) {
                continue;
            }
            engine.propose_due_again(group, now)?;
            engine.follow_origins(group, now, &mut Nobody);
            engine.schedule_expiry(group);
            let ids: Vec<u32> = engine
                .groups
                .get(&group)
                .map_or_else(Vec::new, |g| g.names.keys().copied().collect());
            for id in ids {
                engine.ready.insert((group, id));
            }
        }
        Ok(engine)
    }

    fn load_stream(&mut self, row: meta::StreamRow) -> Result<(), StoreError> {
        let group = row.group;
        let in_memory = row.config.storage == Storage::Memory;
        let restoring = row.restoring;
        let index = meta::read_index(group, &self.state)?;
        let stream = if in_memory {
            Stream::create(group, row.account.clone(), row.config, row.created)
        } else {
            Stream::load(
                group,
                row.account.clone(),
                row.config,
                row.created,
                &self.state,
            )?
        };
        let subjects = &stream.config().subjects;
        self.starts.note(&row.account, group, subjects);
        let slot = self.accounts.slot(&row.account);
        let mut target = StreamGroup::new(row.account, slot, row.created, stream, index);
        target.restoring = restoring;
        target.next_consumer = meta::read_next_consumer(group, &self.state)?;
        let mut consumers = Vec::new();
        if in_memory {
            for kept in meta::load_volatile_consumers(group, &self.state)? {
                let view = View::new(&self.volatile, &self.log, &mut self.cache);
                let mut view = StreamView::new(&target.stream, view);
                let (id, name) = (kept.id, kept.name);
                let consumer = Consumer::create(id, name, kept.config, kept.created, &mut view)?;
                consumers.push(consumer);
            }
        } else {
            consumers = Consumer::load_all(group, &self.state)?;
        }
        let retention = target.stream.config().retention;
        for mut consumer in consumers {
            consumer.set_logged(is_logged(consumer.config(), retention));
            target.insert_consumer(consumer);
        }
        self.groups.insert(group, target);
        self.recount(group);
        Ok(())
    }

    /// Applies what the log holds beyond the state store, a portion at a time.
    fn replay(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut from = self.state.applied().unwrap_or_default();
        let mut count = 0;
        loop {
            let portion = self.portion(from)?;
            let Some((last, _)) = portion.last() else {
                break;
            };
            from = last.position;
            count += portion.len();
            for (location, entry) in portion {
                self.replay_entry(location, &entry, now)?;
            }
        }
        if count > 0 {
            tracing::info!("replayed {count} log entries");
        }
        Ok(())
    }

    /// The next entries of the log after the one at `from`.
    fn portion(&mut self, from: LogPosition) -> Result<Vec<(EntryLocation, Entry)>, StoreError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let result = self.log.replay(from, &mut |location, entry: Entry| {
            bytes += entry.payload.len();
            entries.push((location, entry));
            if bytes < PORTION_BYTES {
                return Ok(());
            }
            // Not a failure: the only way to make the log stop here.
            Err(StoreError::new(StoreErrorKind::Closed, "enough for now"))
        });
        if bytes < PORTION_BYTES {
            result?;
        }
        Ok(entries)
    }

    fn replay_entry(
        &mut self,
        location: EntryLocation,
        entry: &Entry,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        match entry.group {
            GroupId::META => self.next_meta_index = entry.index + 1,
            GroupId::APPLICATION => self.next_application_index = entry.index + 1,
            group => {
                if let Some(target) = self.groups.get_mut(&group) {
                    target.next_index = entry.index + 1;
                }
            }
        }
        self.apply_entry(Some(location), entry, None, now, &mut Nobody);
        self.poisoned.take().map_or(Ok(()), Err)
    }
}
