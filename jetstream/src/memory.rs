//! Both stores in memory: for memory-storage streams, for tests and for simulation.
//!
//! [`MemoryState`] holds the applied state of memory streams. [`MemoryLog`] keeps the promises of
//! the real log, among them that nothing is durable before a sync, so a test decides when a sync
//! ends, crashes the server in between and looks at what is left.
//!
//! A [`MemoryLog`] is a handle: clones share one log. A test gives one clone to the engine and
//! keeps another to play the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::ids::GroupId;
use crate::ports::{
    Appended, Entry, EntryKind, EntryLocation, LogPosition, LogStore, Row, Seek, StateStore,
    StoreError, StoreErrorKind, Table, Ticket, Write, WriteSet,
};

/// Bytes that an entry takes beyond its payload.
const ENTRY_HEADER_BYTES: u32 = 33;
/// Offset of the first entry of a segment; zero never names an entry.
const FIRST_OFFSET: u32 = 64;
/// Entries start at multiples of this.
const ENTRY_ALIGNMENT: u32 = 8;

/// A log in memory.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    shared: Arc<Mutex<LogState>>,
}

#[derive(Debug)]
struct LogState {
    segment_bytes: u32,
    /// Whether an append is durable at once.
    auto_sync: bool,
    full: bool,
    failure: Option<StoreError>,
    entries: BTreeMap<LogPosition, Stored>,
    segments: Vec<u64>,
    /// Where the next entry goes.
    next: LogPosition,
    appended: Ticket,
    synced: Ticket,
}

#[derive(Clone, Debug)]
struct Stored {
    entry: Entry,
    len: u32,
    ticket: Ticket,
}

impl MemoryLog {
    /// A log in which every append is durable at once.
    #[must_use]
    pub fn new() -> Self {
        Self::build(true)
    }

    /// A log in which nothing is durable before [`MemoryLog::sync`].
    #[must_use]
    pub fn manual() -> Self {
        Self::build(false)
    }

    fn build(auto_sync: bool) -> Self {
        let state = LogState {
            segment_bytes: 64 << 20,
            auto_sync,
            full: false,
            failure: None,
            entries: BTreeMap::new(),
            segments: vec![1],
            next: LogPosition {
                segment: 1,
                offset: FIRST_OFFSET,
            },
            appended: Ticket(0),
            synced: Ticket(0),
        };
        Self {
            shared: Arc::new(Mutex::new(state)),
        }
    }

    /// The same log with segments of this size, in bytes. An entry larger than that gets a segment
    /// of its own.
    #[must_use]
    pub fn with_segment_bytes(self, segment_bytes: u32) -> Self {
        self.state().segment_bytes = segment_bytes;
        self
    }

    /// Ends a sync that covers everything appended so far.
    pub fn sync(&self) -> Ticket {
        let mut state = self.state();
        let appended = state.appended;
        state.sync_to(appended)
    }

    /// Ends a sync that covers the appends up to `ticket`.
    pub fn sync_to(&self, ticket: Ticket) -> Ticket {
        self.state().sync_to(ticket)
    }

    /// The number of appends so far.
    #[must_use]
    pub fn appended(&self) -> Ticket {
        self.state().appended
    }

    /// Forgets everything no sync has covered, as a power cut does, and starts again: the log can
    /// be replayed and appended to, and tickets start from zero.
    pub fn crash(&self) {
        let mut state = self.state();
        let synced = state.synced;
        state.entries.retain(|_, stored| stored.ticket <= synced);
        for stored in state.entries.values_mut() {
            stored.ticket = Ticket(0);
        }
        let end = state
            .entries
            .last_key_value()
            .map(|(position, stored)| (*position, stored.len));
        let oldest = state.segments.first().copied().unwrap_or(1);
        state.next = match end {
            Some((position, len)) if position.segment >= oldest => LogPosition {
                segment: position.segment,
                offset: align(position.offset.saturating_add(len)),
            },
            _ => LogPosition {
                segment: oldest,
                offset: FIRST_OFFSET,
            },
        };
        let active = state.next.segment;
        state.segments.retain(|segment| *segment <= active);
        state.appended = Ticket(0);
        state.synced = Ticket(0);
        state.failure = None;
        state.full = false;
    }

    /// Makes appends of messages fail with `Full`, or work again.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Poisons the log: what a failed write or sync does. Only [`MemoryLog::crash`] ends it.
    pub fn fail(&self, what: &str) {
        self.state().failure = Some(StoreError::new(StoreErrorKind::Io, what));
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl LogState {
    fn sync_to(&mut self, ticket: Ticket) -> Ticket {
        if self.failure.is_none() {
            self.synced = self.synced.max(ticket.min(self.appended));
        }
        self.synced
    }

    fn usable(&self) -> Result<(), StoreError> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(StoreError::new(
                StoreErrorKind::Closed,
                format!("the log is out of service: {failure}"),
            )),
        }
    }

    fn place(&mut self, payload_bytes: usize) -> Result<EntryLocation, StoreError> {
        let len = u32::try_from(payload_bytes)
            .ok()
            .and_then(|payload| payload.checked_add(ENTRY_HEADER_BYTES))
            .filter(|len| *len <= u32::MAX / 2)
            .ok_or_else(|| {
                StoreError::new(
                    StoreErrorKind::Full,
                    format!("an entry of {payload_bytes} bytes is too large for the log"),
                )
            })?;
        let fits = self
            .next
            .offset
            .checked_add(len)
            .is_some_and(|end| end <= self.segment_bytes);
        if !fits && self.next.offset > FIRST_OFFSET {
            self.next = LogPosition {
                segment: self.next.segment + 1,
                offset: FIRST_OFFSET,
            };
            self.segments.push(self.next.segment);
        }
        let position = self.next;
        self.next.offset = align(position.offset + len);
        Ok(EntryLocation { position, len })
    }
}

impl LogStore for MemoryLog {
    fn append(&mut self, entries: &[Entry]) -> Result<Appended, StoreError> {
        let mut state = self.state();
        state.usable()?;
        if state.full && entries.iter().any(|entry| entry.kind == EntryKind::Publish) {
            return Err(StoreError::new(
                StoreErrorKind::Full,
                "no space left for messages",
            ));
        }
        let ticket = Ticket(state.appended.0 + 1);
        let before = (state.next, state.segments.len());
        let mut locations = Vec::with_capacity(entries.len());
        for entry in entries {
            match state.place(entry.payload.len()) {
                Ok(location) => locations.push(location),
                Err(error) => {
                    state.next = before.0;
                    state.segments.truncate(before.1);
                    return Err(error);
                }
            }
        }
        for (entry, location) in entries.iter().zip(&locations) {
            let stored = Stored {
                entry: entry.clone(),
                len: location.len,
                ticket,
            };
            state.entries.insert(location.position, stored);
        }
        state.appended = ticket;
        if state.auto_sync {
            state.sync_to(ticket);
        }
        Ok(Appended { ticket, locations })
    }

    fn poll_synced(&mut self) -> Result<Ticket, StoreError> {
        let state = self.state();
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(state.synced),
        }
    }

    fn read(
        &self,
        location: EntryLocation,
        group: GroupId,
        index: u64,
    ) -> Result<Bytes, StoreError> {
        let state = self.state();
        match state.entries.get(&location.position) {
            Some(Stored { entry, len, .. })
                if *len == location.len && entry.group == group && entry.index == index =>
            {
                Ok(entry.payload.clone())
            }
            _ => Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!(
                    "segment {} offset {} does not hold entry {index} of group {group}",
                    location.position.segment, location.position.offset
                ),
            )),
        }
    }

    fn replay(
        &mut self,
        from: LogPosition,
        visit: &mut dyn FnMut(EntryLocation, Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let durable: Vec<_> = {
            let state = self.state();
            state.usable()?;
            if from != LogPosition::default() && !state.entries.contains_key(&from) {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    format!(
                        "no entry at segment {} offset {}",
                        from.segment, from.offset
                    ),
                ));
            }
            let later = state
                .entries
                .iter()
                .filter(|(position, stored)| **position > from && stored.ticket <= state.synced);
            later
                .map(|(position, stored)| (*position, stored.clone()))
                .collect()
        };
        for (position, stored) in durable {
            visit(
                EntryLocation {
                    position,
                    len: stored.len,
                },
                stored.entry,
            )?;
        }
        Ok(())
    }

    fn segments(&self) -> Vec<u64> {
        self.state().segments.clone()
    }

    fn recycle(&mut self, segments: &[u64]) -> Result<(), StoreError> {
        let mut state = self.state();
        state.usable()?;
        for segment in segments {
            if *segment == state.next.segment || !state.segments.contains(segment) {
                return Err(StoreError::new(
                    StoreErrorKind::Io,
                    format!("segment {segment} cannot be recycled: it is in use or unknown"),
                ));
            }
        }
        state.segments.retain(|segment| !segments.contains(segment));
        state
            .entries
            .retain(|position, _| !segments.contains(&position.segment));
        Ok(())
    }
}

const fn align(offset: u32) -> u32 {
    offset.next_multiple_of(ENTRY_ALIGNMENT)
}

type Tables = [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()];

/// Applied state in memory.
///
/// A flush ends at once. Whoever holds the [`FlushedState`] of a store can open it again as the
/// last flush left it.
#[derive(Debug, Default)]
pub struct MemoryState {
    tables: Tables,
    applied: Option<LogPosition>,
    durable_applied: Option<LogPosition>,
    flushed: FlushedState,
}

/// What the flushes of a [`MemoryState`] left behind: the disk under it.
#[derive(Clone, Debug, Default)]
pub struct FlushedState {
    image: Arc<Mutex<(Tables, Option<LogPosition>)>>,
}

impl MemoryState {
    /// Another store with the same rows, flushed apart from this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            tables: self.tables.clone(),
            applied: self.applied,
            durable_applied: self.durable_applied,
            flushed: FlushedState::default(),
        }
    }

    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk under this store. Flushes copy the rows there from now on, which costs as much as
    /// there are rows.
    #[must_use]
    pub fn flushed(&self) -> FlushedState {
        self.flushed.clone()
    }

    /// The store as the last flush left it.
    #[must_use]
    pub fn reopen(flushed: &FlushedState) -> Self {
        let (tables, applied) = flushed.lock().clone();
        Self {
            tables,
            applied,
            durable_applied: applied,
            flushed: flushed.clone(),
        }
    }

    /// Number of rows in `table`.
    #[must_use]
    pub fn row_count(&self, table: Table) -> usize {
        self.table(table).len()
    }

    fn table(&self, table: Table) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.tables[table as usize]
    }

    fn table_mut(&mut self, table: Table) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        &mut self.tables[table as usize]
    }
}

impl FlushedState {
    fn lock(&self) -> MutexGuard<'_, (Tables, Option<LogPosition>)> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryState {
    fn write(&mut self, writes: &WriteSet) -> Result<(), StoreError> {
        for write in &writes.writes {
            match write {
                Write::Put(table, key, value) => {
                    self.table_mut(*table).insert(key.clone(), value.clone());
                }
                Write::Delete(table, key) => {
                    self.table_mut(*table).remove(key);
                }
                Write::DeleteRange(table, from, to) => {
                    if from < to {
                        let range = from.clone()..to.clone();
                        self.table_mut(*table)
                            .extract_if(range, |_, _| true)
                            .for_each(drop);
                    }
                }
            }
        }
        if writes.applied.is_some() {
            self.applied = writes.applied;
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.table(table).get(key).cloned())
    }

    fn seek(&self, table: Table, key: &[u8], seek: Seek) -> Result<Option<Row>, StoreError> {
        use std::ops::Bound::{Included, Unbounded};
        let rows = self.table(table);
        let row = match seek {
            Seek::AtOrAfter => rows.range::<[u8], _>((Included(key), Unbounded)).next(),
            Seek::AtOrBefore => rows
                .range::<[u8], _>((Unbounded, Included(key)))
                .next_back(),
        };
        Ok(row.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        use std::ops::Bound::{Excluded, Included};
        if from >= to {
            return Ok(());
        }
        for (key, value) in self
            .table(table)
            .range::<[u8], _>((Included(from), Excluded(to)))
        {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn durable_applied(&self) -> Option<LogPosition> {
        self.durable_applied
    }

    fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    fn begin_flush(&mut self) -> Result<(), StoreError> {
        if Arc::strong_count(&self.flushed.image) > 1 {
            *self.flushed.lock() = (self.tables.clone(), self.applied);
        }
        self.durable_applied = self.applied;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, payload: &'static [u8]) -> Entry {
        Entry {
            group: GroupId(16),
            index,
            term: 1,
            kind: EntryKind::Publish,
            compress: false,
            payload: Bytes::from_static(payload),
        }
    }

    fn indexes(log: &mut MemoryLog, from: LogPosition) -> Vec<u64> {
        let mut seen = Vec::new();
        log.replay(from, &mut |_, entry| {
            seen.push(entry.index);
            Ok(())
        })
        .expect("the log is sound");
        seen
    }

    #[test]
    fn nothing_is_durable_before_a_sync() {
        let mut log = MemoryLog::manual();
        let disk = log.clone();
        let first = log.append(&[entry(1, b"a")]).expect("space");
        log.append(&[entry(2, b"b")]).expect("space");
        assert_eq!(log.poll_synced().expect("sound"), Ticket(0));
        assert_eq!(disk.sync_to(first.ticket), first.ticket);
        disk.crash();
        assert_eq!(indexes(&mut log, LogPosition::default()), [1]);
        assert_eq!(
            log.append(&[entry(2, b"c")]).expect("space").ticket,
            Ticket(1)
        );
        disk.sync();
        disk.crash();
        assert_eq!(indexes(&mut log, first.locations[0].position), [2]);
    }

    #[test]
    fn a_failed_log_stays_failed() {
        let mut log = MemoryLog::new();
        log.fail("the disk is gone");
        assert_eq!(
            log.append(&[]).map_err(|e| e.kind),
            Err(StoreErrorKind::Closed)
        );
        assert_eq!(
            log.poll_synced().map_err(|e| e.kind),
            Err(StoreErrorKind::Io)
        );
    }

    #[test]
    fn recycled_segments_are_gone() {
        let mut log = MemoryLog::new().with_segment_bytes(128);
        let mut last = EntryLocation::default();
        for index in 1..=3 {
            last = log
                .append(&[entry(index, b"0123456789012345")])
                .expect("space")
                .locations[0];
        }
        assert_eq!(log.segments(), [1, 2, 3]);
        log.recycle(&[2]).expect("not in use");
        assert_eq!(log.segments(), [1, 3]);
        assert!(log.recycle(&[last.position.segment]).is_err());
        assert_eq!(indexes(&mut log, LogPosition::default()), [1, 3]);
    }

    #[test]
    fn removing_a_range_spares_its_end() {
        let mut state = MemoryState::new();
        let rows = (b'a'..=b'e').map(|key| Write::Put(Table::Block, vec![key], vec![key]));
        let mut writes: Vec<_> = rows.collect();
        writes.push(Write::DeleteRange(
            Table::Block,
            b"b".to_vec(),
            b"d".to_vec(),
        ));
        state
            .write(&WriteSet {
                writes,
                applied: None,
            })
            .expect("memory");
        let mut keys = Vec::new();
        state
            .scan(Table::Block, b"a", b"z", &mut |key, _| {
                keys.extend_from_slice(key);
                true
            })
            .expect("memory");
        assert_eq!(keys, b"ade");
    }

    #[test]
    fn reopening_goes_back_to_the_last_flush() {
        let mut state = MemoryState::new();
        let disk = state.flushed();
        let put = |key: u8, offset| WriteSet {
            writes: vec![Write::Put(Table::Meta, vec![key], vec![])],
            applied: Some(LogPosition { segment: 1, offset }),
        };
        state.write(&put(1, 64)).expect("memory");
        state.begin_flush().expect("memory");
        state.write(&put(2, 128)).expect("memory");
        let state = MemoryState::reopen(&disk);
        assert_eq!(state.row_count(Table::Meta), 1);
        assert_eq!(
            state.applied(),
            Some(LogPosition {
                segment: 1,
                offset: 64
            })
        );
        assert_eq!(state.durable_applied(), state.applied());
    }
}
