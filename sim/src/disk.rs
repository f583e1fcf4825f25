//! A disk that crashes.
//!
//! [`SimLog`] keeps what was appended, what was handed to the disk, and what is surely on it.
//! [`SimState`] keeps the applied rows and the copy a crash would leave. Both can be told to
//! misbehave in a planned way, so that the checker can be shown to notice.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use menes_jetstream::GroupId;
use menes_jetstream::consumer::{decode_batch, encode_batch};
use menes_jetstream::memory::MemoryState;
use menes_jetstream::ports::{
    Appended, Entry, EntryKind, EntryLocation, LogPosition, LogStore, Row, Seek, StateStore,
    StoreError, StoreErrorKind, Table, Ticket, WriteSet,
};

use crate::mutant::Mutant;
use crate::random::Random;

/// What a disk without space still takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// Everything.
    #[default]
    Enough,
    /// Entries without messages.
    Low,
    /// Nothing.
    None,
}

const ENTRY_OVERHEAD: u32 = 37;

/// What lies on the platter; outlives the server.
#[derive(Default)]
pub struct Disk {
    entries: Vec<(EntryLocation, Entry)>,
    /// Entries surely on disk.
    synced: usize,
    /// Entries the running sync covers.
    syncing: usize,
    /// Entries the server was told are on disk.
    reported: usize,
    segment_bytes: u32,
    recycled: BTreeSet<u64>,
    end: LogPosition,
    space: Space,
    /// The running or next sync will fail.
    will_fail: bool,
    /// A sync failed: nothing works until the server starts again.
    has_failed: bool,
    state: MemoryState,
    /// Rows as a crash would leave them.
    durable: MemoryState,
    /// A flush that has begun: what it will leave.
    flushing: Option<MemoryState>,
}

/// A disk and the way it misbehaves.
#[derive(Clone)]
pub struct SimDisk {
    disk: Rc<RefCell<Disk>>,
    mutant: Option<Mutant>,
}

impl SimDisk {
    /// An empty disk whose log has segments of `segment_bytes`.
    #[must_use]
    pub fn new(segment_bytes: u32, mutant: Option<Mutant>) -> Self {
        let disk = Disk {
            segment_bytes,
            ..Disk::default()
        };
        Self {
            disk: Rc::new(RefCell::new(disk)),
            mutant,
        }
    }

    /// Takes space away or gives it back.
    pub fn set_space(&self, space: Space) {
        self.disk.borrow_mut().space = space;
    }

    /// The running sync, or else the next one, will fail.
    pub fn fail_next_sync(&self) {
        self.disk.borrow_mut().will_fail = true;
    }

    /// The two stores of a server on this disk.
    #[must_use]
    pub fn open(&self) -> (SimLog, SimState) {
        (
            SimLog {
                disk: self.disk.clone(),
                mutant: self.mutant,
            },
            SimState {
                disk: self.disk.clone(),
                mutant: self.mutant,
            },
        )
    }

    /// Begins a sync of everything appended so far, unless one is running.
    pub fn begin_sync(&self) {
        let mut disk = self.disk.borrow_mut();
        if disk.syncing <= disk.reported {
            disk.syncing = disk.entries.len();
        }
    }

    /// Ends the running sync.
    pub fn end_sync(&self) {
        let mut disk = self.disk.borrow_mut();
        if disk.syncing > disk.reported && disk.will_fail {
            disk.has_failed = true;
        }
        if disk.has_failed {
            return;
        }
        disk.reported = disk.reported.max(disk.syncing);
        if self.mutant != Some(Mutant::SkipTheSync) {
            disk.synced = disk.reported;
        }
    }

    /// Whether a sync is running.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        let disk = self.disk.borrow();
        disk.syncing > disk.reported
    }

    /// Ends the running flush of the state store.
    pub fn end_flush(&self) {
        let mut disk = self.disk.borrow_mut();
        if let Some(flushed) = disk.flushing.take() {
            disk.durable = flushed;
        }
    }

    /// The power goes: of what was not synced a prefix may survive, the entry after it is torn
    /// and cut by recovery; rows go back to the last flush.
    pub fn crash(&self, random: &mut Random) {
        let mut disk = self.disk.borrow_mut();
        disk.will_fail = false;
        disk.has_failed = false;
        let unsynced = disk.entries.len() - disk.synced;
        let kept = disk.synced + random.below(unsynced as u64 + 1) as usize;
        disk.entries.truncate(kept);
        disk.synced = kept;
        disk.syncing = kept;
        disk.reported = kept;
        disk.end = disk
            .entries
            .last()
            .map_or_else(LogPosition::default, |(location, _)| after(*location));
        if let Some(flushing) = disk.flushing.take()
            && random.chance(50)
        {
            disk.durable = flushing;
        }
        // Rows cannot be ahead of the log: a flush only covers synced entries, as in RocksDB the
        // rows of an entry are written after its sync.
        disk.state = disk.durable.copy();
        if self.mutant == Some(Mutant::ForgetDedupe) {
            let all = menes_jetstream::ports::Write::DeleteRange(
                Table::Dedup,
                Vec::new(),
                vec![0xff; 300],
            );
            let forget = WriteSet {
                writes: vec![all],
                applied: None,
            };
            disk.state.write(&forget).expect("memory does not fail");
            disk.durable = disk.state.copy();
        }
    }
}

impl Disk {
    fn usable(&self) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::new(StoreErrorKind::Io, "a sync failed"));
        }
        Ok(())
    }
}

fn after(location: EntryLocation) -> LogPosition {
    LogPosition {
        segment: location.position.segment,
        offset: location.position.offset + location.len,
    }
}

/// The log on a [`SimDisk`].
pub struct SimLog {
    disk: Rc<RefCell<Disk>>,
    mutant: Option<Mutant>,
}

impl LogStore for SimLog {
    fn append(&mut self, entries: &[Entry]) -> Result<Appended, StoreError> {
        let mut disk = self.disk.borrow_mut();
        disk.usable()?;
        let has_messages = entries.iter().any(|entry| entry.kind == EntryKind::Publish);
        let is_full = match disk.space {
            Space::Enough => false,
            Space::Low => has_messages,
            Space::None => true,
        };
        if is_full {
            return Err(StoreError::new(StoreErrorKind::Full, "no space left"));
        }
        let mut locations = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut entry = entry.clone();
            if self.mutant == Some(Mutant::AckFloorOverUnacked)
                && entry.kind == EntryKind::Consumer
                && let Ok(events) = decode_batch(&entry.payload)
            {
                let moved: Vec<_> = events
                    .into_iter()
                    .map(Mutant::ack_everything_below)
                    .collect();
                entry.payload = Bytes::from(encode_batch(moved.iter()));
            }
            if self.mutant == Some(Mutant::HalfARestore) && entry.kind == EntryKind::Command {
                let text = String::from_utf8_lossy(&entry.payload);
                if text.contains(r#""restoring":true"#) {
                    let whole = text.replace(r#""restoring":true"#, r#""restoring":false"#);
                    entry.payload = Bytes::from(whole);
                }
            }
            let len = ENTRY_OVERHEAD + u32::try_from(entry.payload.len()).expect("small");
            if disk.end.offset > 0 && disk.end.offset + len > disk.segment_bytes {
                disk.end = LogPosition {
                    segment: disk.end.segment + 1,
                    offset: 0,
                };
            }
            // Positions begin at 1: the default position stands for "before everything".
            if disk.end == LogPosition::default() {
                disk.end.offset = 1;
            }
            let location = EntryLocation {
                position: disk.end,
                len,
            };
            disk.end = after(location);
            disk.entries.push((location, entry));
            locations.push(location);
        }
        Ok(Appended {
            ticket: Ticket(disk.entries.len() as u64),
            locations,
        })
    }

    fn poll_synced(&mut self) -> Result<Ticket, StoreError> {
        let disk = self.disk.borrow();
        disk.usable()?;
        let synced = match self.mutant {
            Some(Mutant::AckBeforeTheSync) => disk.entries.len(),
            _ => disk.reported,
        };
        Ok(Ticket(synced as u64))
    }

    fn read(
        &self,
        location: EntryLocation,
        group: GroupId,
        index: u64,
    ) -> Result<Bytes, StoreError> {
        let disk = self.disk.borrow();
        let found = disk
            .entries
            .binary_search_by_key(&location.position, |(at, _)| at.position)
            .ok()
            .map(|at| &disk.entries[at].1);
        match found {
            Some(entry) if entry.group == group && entry.index == index => {
                Ok(entry.payload.clone())
            }
            _ => Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!("no entry {index} of group {group} at {location:?}"),
            )),
        }
    }

    fn replay(
        &mut self,
        from: LogPosition,
        visit: &mut dyn FnMut(EntryLocation, Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let tail: Vec<_> = self
            .disk
            .borrow()
            .entries
            .iter()
            .filter(|(location, _)| location.position > from)
            .cloned()
            .collect();
        for (location, entry) in tail {
            if entry.index == u64::MAX {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    format!("{location:?} is needed and was recycled"),
                ));
            }
            visit(location, entry)?;
        }
        Ok(())
    }

    fn segments(&self) -> Vec<u64> {
        let disk = self.disk.borrow();
        (0..=disk.end.segment)
            .filter(|segment| !disk.recycled.contains(segment))
            .collect()
    }

    fn recycle(&mut self, segments: &[u64]) -> Result<(), StoreError> {
        let mut disk = self.disk.borrow_mut();
        disk.usable()?;
        for segment in segments {
            if *segment >= disk.end.segment || !disk.recycled.insert(*segment) {
                return Err(StoreError::new(
                    StoreErrorKind::Io,
                    format!("segment {segment} is being written or is none"),
                ));
            }
        }
        // Tickets count entries, so the entries stay; a read of a recycled segment must fail.
        for (location, entry) in &mut disk.entries {
            if segments.contains(&location.position.segment) {
                entry.index = u64::MAX;
                entry.payload = Bytes::new();
            }
        }
        Ok(())
    }
}

/// The rows on a [`SimDisk`].
pub struct SimState {
    disk: Rc<RefCell<Disk>>,
    mutant: Option<Mutant>,
}

impl StateStore for SimState {
    fn write(&mut self, writes: &WriteSet) -> Result<(), StoreError> {
        let mut disk = self.disk.borrow_mut();
        if self.mutant == Some(Mutant::AppliedIndexInASecondWrite) {
            // The rows first, the position with the next write set: a crash between them replays
            // an entry that is applied already, or skips one that is not.
            let late = disk.state.applied();
            let rows = WriteSet {
                writes: writes.writes.clone(),
                applied: late,
            };
            disk.state.write(&rows)?;
            if disk.flushing.is_none() {
                disk.flushing = Some(disk.state.copy());
            }
            return disk.state.write(&WriteSet {
                writes: Vec::new(),
                applied: writes.applied,
            });
        }
        disk.state.write(writes)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.borrow().state.get(table, key)
    }

    fn seek(&self, table: Table, key: &[u8], seek: Seek) -> Result<Option<Row>, StoreError> {
        self.disk.borrow().state.seek(table, key, seek)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.disk.borrow().state.scan(table, from, to, visit)
    }

    fn durable_applied(&self) -> Option<LogPosition> {
        self.disk.borrow().durable.applied()
    }

    fn applied(&self) -> Option<LogPosition> {
        self.disk.borrow().state.applied()
    }

    fn begin_flush(&mut self) -> Result<(), StoreError> {
        let mut disk = self.disk.borrow_mut();
        if disk.flushing.is_none() {
            disk.flushing = Some(disk.state.copy());
        }
        Ok(())
    }
}
