//! From the stores to a running engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::meta::{self, Meta};
use super::{Application, Change, Engine, Options, StreamGroup};
use crate::consumer::Consumer;
use crate::ids::{AccountName, GroupId};
use crate::memory::MemoryState;
use crate::ports::{Entry, EntryLocation, LogStore, Outbox, Outgoing, StateStore, StoreError};
use crate::stream::config::Storage;
use crate::stream::{BlockCache, SegmentUse, Stream, View};
use crate::time::Timestamp;

use super::view::StreamView;

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
            gathering: Vec::new(),
            pending: VecDeque::new(),
            ready: BTreeSet::new(),
            freed: BTreeMap::new(),
            unheard: BTreeSet::new(),
            timers: BTreeMap::new(),
            due: BTreeSet::new(),
            changes: Vec::new(),
            completions: Vec::new(),
            notices: Vec::new(),
            turn_notices: Vec::new(),
            outcomes: Vec::new(),
            removed: Vec::new(),
            poisoned: None,
            api_total: 0,
            api_errors: 0,
        };
        for row in rows {
            engine.load_stream(row)?;
        }
        engine.replay(now)?;
        // Replayed deliveries are recorded but not scheduled: from here on this server hands out.
        for consumer in engine
            .groups
            .values_mut()
            .flat_map(|group| group.consumers.values_mut())
        {
            consumer.begin_again();
        }
        let captures: Vec<Change> = engine
            .groups
            .iter()
            .map(|(group, target)| Change::Capture {
                account: target.account.clone(),
                group: *group,
                subjects: target.stream.config().subjects.clone(),
            })
            .collect();
        engine.changes = captures;
        let groups: Vec<GroupId> = engine.groups.keys().copied().collect();
        for group in groups {
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
        let mut target = StreamGroup::new(row.account, row.created, stream, in_memory, index);
        if in_memory {
            for kept in meta::load_volatile_consumers(group, &self.state)? {
                let view = View::new(&self.volatile, &self.log, &mut self.cache);
                let mut view = StreamView {
                    stream: &target.stream,
                    view,
                };
                let consumer =
                    Consumer::create(kept.id, kept.name, kept.config, kept.created, &mut view)?;
                target.insert_consumer(consumer);
            }
        } else {
            for consumer in Consumer::load_all(group, &self.state)? {
                target.insert_consumer(consumer);
            }
        }
        self.groups.insert(group, target);
        Ok(())
    }

    fn replay(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let from = self.state.applied().unwrap_or_default();
        let mut entries: Vec<(EntryLocation, Entry)> = Vec::new();
        // The tail is bounded by how far the state store may lag, see `reclaim`.
        self.log.replay(from, &mut |location, entry| {
            entries.push((location, entry));
            Ok(())
        })?;
        let replayed = entries.len();
        for (location, entry) in entries {
            match entry.group {
                GroupId::META => self.next_meta_index = entry.index + 1,
                GroupId::APPLICATION => self.next_application_index = entry.index + 1,
                group => {
                    if let Some(target) = self.groups.get_mut(&group) {
                        target.next_index = entry.index + 1;
                    }
                }
            }
            self.apply_entry(Some(location), &entry, None, now, &mut Nobody);
            if let Some(error) = self.poisoned.take() {
                return Err(error);
            }
        }
        if replayed > 0 {
            tracing::info!("replayed {replayed} log entries");
        }
        Ok(())
    }
}
