//! The log: one row of segments per server, shared by all groups.
//!
//! [`SegmentLog`] belongs to the thread that appends. An append assigns places, encodes the entries
//! into the pending batch and returns; the log thread (`writer`) takes everything pending, writes
//! it with one vectored write and one `fdatasync`, publishes the ticket and wakes the caller, while
//! the next batch gathers. There is no timer, and one sync covers all groups.
//!
//! ```text
//!  append ──▶ pending batch ──▶ log thread: write, sync ──▶ ticket, wake
//!     │                              │        └──▶ sidecar: "synced up to here"
//!     └─ in flight, readable         └── asks the keeper for the next segment
//! ```
//!
//! # Invariants
//!
//! 1. A batch is written only after the one before it was synced; a segment is begun only after the
//!    one before it was synced whole.
//! 2. A ticket is published only after everything up to it was synced.
//! 3. The first failed or short write and the first failed sync are the last: the log is poisoned.
//! 4. What may have been acknowledged is never cut: recovery cuts a torn tail or refuses to open.
//! 5. What is read whole is what was appended for that group and index, or an error; of parts that
//!    are read the caller has a hash.
//!
//! Which entries still matter is for the engine to say; the log knows nothing of their meaning.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::cast_possible_truncation)
)]

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use bytes::Bytes;
use menes_jetstream::ids::GroupId;
use menes_jetstream::ports::{
    Appended, Entry, EntryKind, EntryLocation, LogPosition, LogStore, StoreError, StoreErrorKind,
    Ticket, part,
};

use self::coverage::Coverage;
use self::format::{
    ENTRY_HEADER_BYTES, ENTRY_HEADER_LEN, EntryHeader, Kind, OWN_ENTRY_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader, StoreId, align,
};
use self::keeper::{Keeper, Stock};
use self::recovery::Recovered;
use self::segment::{Reader, Walker, read_header};
use self::shared::Shared;
use self::writer::Writer;
use crate::disk_space::{Ballast, DiskSpace, Pressure, Room, Space, Watermarks};
use crate::error::{OpenError, corrupt, io_error};
use crate::files::{Files, RealFiles};
use crate::lock::DirectoryLock;
use crate::scrub::{Scrub, Scrubber};
use crate::vault::{SEAL_BYTES, Sealer, Vault};

mod batch;
mod coverage;
pub(crate) mod format;
mod keeper;
mod packing;
mod recovery;
mod scrub;
mod segment;
mod shared;
mod sidecar;
mod superblock;
mod writer;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

pub use self::shared::{COMMIT_BOUNDS, LogStats, TURN_BOUNDS, Wake};

/// Entries that carry no messages pass when the disk is nearly full, up to this payload.
const SMALL_ENTRY_BYTES: usize = 64 << 10;
const MIN_SEGMENT_BYTES: u32 = 4096;
const MAX_SEGMENT_BYTES: u32 = 1 << 30;

/// When the sidecar learns that a batch was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailEvidence {
    /// Before the batch is acknowledged: a second sync on every acknowledgement, and damage to
    /// anything acknowledged is always told from a torn tail.
    BeforeAck,
    /// Once the log has had nothing to do for this long. Until then a crash that also damages the
    /// very last batch looks like a torn tail; every batch before it is covered by the next one.
    WhenIdle(Duration),
}

/// How the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of a new segment, a multiple of 4096 from 4 KiB to 1 GiB. Default 64 MiB. An entry
    /// must fit into one segment.
    pub segment_bytes: u32,
    /// Bytes that may be appended and not yet taken by the log thread; beyond them an append is
    /// refused with `Full`. Default 256 MiB.
    pub max_pending_bytes: u64,
    /// Recycled segment files kept for reuse. Default 2.
    pub max_spares: usize,
    /// Whether the segment to come is written with zeros beforehand, when the disk has time for it
    /// or batches are small: syncs in it are cheaper then. Default true.
    pub prewrite: bool,
    /// Default: when idle for 10 ms.
    pub tail_evidence: TailEvidence,
    /// When messages are refused because the disk fills up.
    pub watermarks: Watermarks,
    /// How what is stored is checked for damage; `None` for not at all.
    pub scrub: Option<Scrub>,
    /// What payloads are encrypted with. Default: nothing.
    pub vault: Vault,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            max_pending_bytes: 256 << 20,
            max_spares: 2,
            prewrite: true,
            tail_evidence: TailEvidence::WhenIdle(Duration::from_millis(10)),
            watermarks: Watermarks::default(),
            scrub: Some(Scrub::default()),
            vault: Vault::default(),
        }
    }
}

/// Payloads as they are kept where they are compressed.
pub(crate) fn packed(payload: &[u8]) -> Option<Vec<u8>> {
    packing::pack(payload).map(Vec::from)
}

/// A payload that was compressed.
pub(crate) fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    packing::unpack(packed).map(Vec::from)
}

impl LogOptions {
    fn validate(&self) -> Result<(), OpenError> {
        let range = MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES;
        if range.contains(&self.segment_bytes) && self.segment_bytes.is_multiple_of(4096) {
            Ok(())
        } else {
            Err(OpenError::Options(format!(
                "segment_bytes is {}, it must be a multiple of 4096 from {MIN_SEGMENT_BYTES} to \
                 {MAX_SEGMENT_BYTES}",
                self.segment_bytes
            )))
        }
    }
}

/// The log of one server on disk.
#[derive(Debug)]
pub struct SegmentLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    keeper: Option<(Keeper, JoinHandle<()>)>,
    /// Ends with the log.
    _scrubber: Option<Scrubber>,
    files: Arc<dyn Files>,
    reader: Reader,
    store: StoreId,
    options: LogOptions,
    space: DiskSpace,
    segments: BTreeSet<u64>,
    /// Bytes of the segment being filled.
    active_bytes: u32,
    /// Where the next entry goes.
    next: LogPosition,
    /// Serial of the last batch begun.
    serial: u64,
    appended: Ticket,
    /// Entries not known to be durable, in order; they are read from here.
    in_flight: VecDeque<InFlight>,
    /// Encrypts what is appended.
    sealer: Option<Sealer>,
    /// Segments by whether what lies in them is encrypted.
    coverage: Coverage,
    /// Where the log ended when it was opened.
    recovered_end: LogPosition,
    locks: Vec<DirectoryLock>,
}

/// Tells how a log is doing, for metrics and health.
#[derive(Clone, Debug)]
pub struct LogMonitor {
    shared: Arc<Shared>,
    room: Room,
}

impl LogMonitor {
    /// What the log has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.shared.stats()
    }

    /// The space of the file system that holds the log; `None` where it does not tell.
    #[must_use]
    pub fn space(&self) -> Option<Space> {
        self.room.space()
    }

    /// Below how many free bytes an operator should look, and messages are refused, in a file
    /// system of this size.
    #[must_use]
    pub fn watermarks(&self, space: Space) -> (u64, u64) {
        let watermarks = self.room.watermarks();
        (watermarks.low(space), watermarks.critical(space))
    }

    /// What poisoned the log, if anything did.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.shared.failure().cloned()
    }

    /// Where entries are damaged, as far as anybody has looked: the first place in each segment.
    #[must_use]
    pub fn damage(&self) -> Vec<LogPosition> {
        self.shared.damage()
    }
}

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    location: EntryLocation,
    group: GroupId,
    index: u64,
    payload: Bytes,
}

impl SegmentLog {
    /// Opens the log in `directory`, or makes one there. `wake` is called after every sync and
    /// after a failure.
    ///
    /// # Errors
    /// Nothing in the directory is changed when it is in use, damaged or of a newer version.
    pub fn open(
        directory: &Path,
        options: LogOptions,
        ballast: Option<Arc<Ballast>>,
        wake: Wake,
    ) -> Result<Self, OpenError> {
        fs::create_dir_all(directory).map_err(OpenError::io("create", directory))?;
        let lock = DirectoryLock::take(directory)?;
        let files = RealFiles::open(directory).map_err(OpenError::io("open", directory))?;
        let space = DiskSpace::of(directory, options.watermarks);
        let fresh = random_id().map_err(OpenError::io("read", "/dev/urandom"))?;
        let mut log = Self::start(Arc::new(files), options, space, ballast, fresh, wake)?;
        log.locks.push(lock);
        Ok(log)
    }

    fn start(
        files: Arc<dyn Files>,
        options: LogOptions,
        space: DiskSpace,
        ballast: Option<Arc<Ballast>>,
        fresh: StoreId,
        wake: Wake,
    ) -> Result<Self, OpenError> {
        options.validate()?;
        let Recovered {
            store,
            superblock,
            sidecar,
            segments,
            active,
            file,
            synced,
            prepared,
            spares,
        } = recovery::recover(&*files, &options, fresh)?;
        let sealer = options.vault.sealer()?;
        let coverage = Coverage::of(&*files, store, &segments, &options.vault)?;
        let full = segments.range(..active.number).copied().collect();
        let shared = Arc::new(Shared::new(full, wake));
        let scrubber = match options.scrub {
            Some(scrub) => {
                let shared = Arc::clone(&shared);
                let vault = options.vault.clone();
                let started = scrub::start(scrub, Arc::clone(&files), store, vault, shared);
                Some(started.map_err(OpenError::io("start a thread for", files.path("")))?)
            }
            None => None,
        };
        let next_requested = prepared.is_some();
        let stock = Stock {
            files: Arc::clone(&files),
            segment_bytes: u64::from(options.segment_bytes),
            spares,
            max_spares: options.max_spares,
            last: prepared
                .as_ref()
                .map_or(active.number, |(number, _)| *number),
            prepared,
            room: space.room().clone(),
            ballast,
        };
        let path = files.path("");
        let (keeper, keeper_thread) = Keeper::start(stock, Arc::clone(&shared))
            .map_err(OpenError::io("start a thread for", &path))?;
        let writer = Writer {
            files: Arc::clone(&files),
            keeper: keeper.clone(),
            segment: active.number,
            segment_bytes: active.len,
            file,
            next_requested,
            begun: Instant::now(),
            batches: (0, 0),
            next_segment_bytes: options.segment_bytes,
            prewrite: options.prewrite,
            horizon: writer::horizon_behind(synced.end(), active.len),
            sidecar,
            superblock,
            evidence: options.tail_evidence,
            synced,
        };
        let writer = writer
            .start(Arc::clone(&shared))
            .map_err(OpenError::io("start a thread for", &path))?;
        Ok(Self {
            shared,
            writer: Some(writer),
            keeper: Some((keeper, keeper_thread)),
            _scrubber: scrubber,
            reader: Reader::new(Arc::clone(&files), store, options.vault.clone()),
            files,
            store,
            options,
            space,
            segments,
            active_bytes: active.len,
            next: synced.end(),
            serial: synced.batch_serial,
            appended: Ticket(0),
            in_flight: VecDeque::new(),
            sealer,
            coverage,
            recovered_end: synced.end(),
            locks: Vec::new(),
        })
    }

    /// Whether `directory` holds a log, be it a damaged one.
    #[must_use]
    pub fn exists(directory: &Path) -> bool {
        fs::read_dir(directory).is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| {
                    let name = entry.file_name();
                    let is_segment = |name| keeper::segment_number(name).is_some();
                    name == superblock::NAME || name.to_str().is_some_and(is_segment)
                })
            })
        })
    }

    /// Whether `directory` holds nothing but what an interrupted attempt to make a log leaves.
    #[must_use]
    pub(crate) fn is_unused(directory: &Path) -> bool {
        let harmless = ["lock", superblock::NEW_NAME];
        fs::read_dir(directory).is_ok_and(|mut entries| {
            entries.all(|entry| {
                entry.is_ok_and(|entry| harmless.iter().any(|name| *name == entry.file_name()))
            })
        })
    }

    /// The log, holding `lock` until it ends.
    pub(crate) fn hold(mut self, lock: DirectoryLock) -> Self {
        self.locks.push(lock);
        self
    }

    /// Writes and syncs what is pending, marks the store as closed in good order and ends.
    ///
    /// # Errors
    /// What poisoned the log, now or earlier. The store is then as after a crash.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.stop();
        self.shared.failure().cloned().map_or(Ok(()), Err)
    }

    /// How tight disk space is.
    pub fn pressure(&mut self) -> Pressure {
        self.space.pressure()
    }

    /// A handle that tells how the log is doing, wherever the log itself goes.
    #[must_use]
    pub fn monitor(&self) -> LogMonitor {
        LogMonitor {
            shared: Arc::clone(&self.shared),
            room: self.space.room().clone(),
        }
    }

    /// Largest payload an entry can have, in bytes.
    #[must_use]
    pub fn max_payload_bytes(&self) -> u32 {
        self.options.segment_bytes
            - SEGMENT_HEADER_BYTES
            - 2 * OWN_ENTRY_BYTES
            - align(ENTRY_HEADER_LEN + self.seal_bytes())
    }

    /// What encryption adds to a payload.
    fn seal_bytes(&self) -> u32 {
        let added = u32::try_from(SEAL_BYTES).expect("a small number");
        if self.sealer.is_some() { added } else { 0 }
    }

    /// Whether a segment holds what is encrypted, the one being written included.
    #[must_use]
    pub(crate) fn has_sealed_segments(&self) -> bool {
        !self.coverage.sealed.is_empty()
    }

    /// Whether the log holds every entry since the store was made.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.segments.first() == Some(&recovery::FIRST_SEGMENT) && self.gap_after(1).is_none()
    }

    /// Identity of the store, drawn when it was made.
    #[must_use]
    pub fn store_id(&self) -> [u8; 16] {
        self.store.0
    }

    /// The first segment missing between `from` and the one being written.
    fn gap_after(&self, from: u64) -> Option<u64> {
        (from..=self.next.segment).find(|number| !self.segments.contains(number))
    }

    fn stop(&mut self) {
        self.shared.queue().closing = true;
        self.shared.notify();
        let writer = self.writer.take();
        let keeper = self.keeper.take().map(|(keeper, thread)| {
            drop(keeper);
            thread
        });
        // The writer first: the keeper ends when the writer's handle to it is gone.
        for thread in writer.into_iter().chain(keeper) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }

    /// Refuses what can never be stored or must not be stored now.
    fn admit(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let full = |what| Err(StoreError::new(StoreErrorKind::Full, what));
        let max = self.max_payload_bytes() as usize;
        if let Some(entry) = entries.iter().find(|entry| entry.payload.len() > max) {
            let bytes = entry.payload.len();
            return full(format!(
                "an entry of {bytes} bytes is larger than {max}, the most a segment holds"
            ));
        }
        let has_messages = entries.iter().any(|entry| {
            entry.kind == EntryKind::Publish || entry.payload.len() > SMALL_ENTRY_BYTES
        });
        if has_messages && (self.space.pressure() == Pressure::Critical || self.is_tight(entries)) {
            let path = self.files.path("");
            return full(format!(
                "the disk that holds {} is nearly full: no messages are stored",
                path.display()
            ));
        }
        Ok(())
    }

    /// Whether `entries` need files that would leave too little space.
    fn is_tight(&self, entries: &[Entry]) -> bool {
        let segment = self.segment_after(entries);
        let missing = match &self.keeper {
            Some((keeper, _)) if segment != self.next.segment => keeper.missing(segment),
            _ => 0,
        };
        let bytes = missing * u64::from(self.options.segment_bytes);
        bytes > 0 && self.space.room().pressure_with(bytes) == Pressure::Critical
    }

    /// The segment the last of `entries` comes to lie in, or the one after it.
    fn segment_after(&self, entries: &[Entry]) -> u64 {
        let LogPosition { segment, offset } = self.next;
        // Every one may begin a batch, and a segment ends with an entry of its own.
        let own = 2 * OWN_ENTRY_BYTES + self.seal_bytes();
        let mut end = (segment, u64::from(offset), self.active_bytes);
        if self.coverage.is_mixed(segment, self.sealer.is_some()) {
            end.1 = u64::from(end.2);
        }
        for entry in entries {
            let len = entry.payload.len() as u64 + u64::from(align(ENTRY_HEADER_LEN) + 8 + own);
            if end.1 + len > u64::from(end.2) {
                let first = u64::from(SEGMENT_HEADER_BYTES);
                end = (end.0 + 1, first, self.options.segment_bytes);
            }
            end.1 += len;
        }
        end.0
    }

    /// Forgets in-flight entries that are on disk now.
    fn settle(&mut self, synced: Ticket) {
        while self
            .in_flight
            .front()
            .is_some_and(|entry| entry.ticket <= synced)
        {
            self.in_flight.pop_front();
        }
    }

    fn find_in_flight(&self, position: LogPosition) -> Option<&InFlight> {
        let place = self
            .in_flight
            .binary_search_by_key(&position, |e| e.location.position)
            .ok()?;
        self.in_flight.get(place)
    }

    /// The segment's file and where its entries end, for replay.
    fn replayed(&self, number: u64) -> Result<(Arc<dyn crate::files::File>, u32), StoreError> {
        let path = self.files.path(&keeper::segment_name(number));
        let read = || {
            let file = self.reader.file(number)?;
            let header = read_header(&*file, self.store, number)?;
            Ok((file, header))
        };
        let (file, header) = read().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => corrupt(format!("{} is missing", path.display())),
            _ => io_error("read", &path, &error),
        })?;
        let Some(header) = header else {
            return Err(self.reader.damaged(LogPosition {
                segment: number,
                offset: 0,
            }));
        };
        let active = number == self.recovered_end.segment;
        Ok((
            file,
            if active {
                self.recovered_end.offset
            } else {
                header.len
            },
        ))
    }

    /// Visits the entries of one segment from `start` on.
    fn replay_segment(
        &self,
        start: LogPosition,
        visit: &mut dyn FnMut(EntryLocation, Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (file, end) = self.replayed(start.segment)?;
        let mut walker = Walker::new(file, self.store, start, end);
        loop {
            let position = walker.position;
            if position == self.recovered_end {
                return Ok(());
            }
            let next = walker.next().map_err(|error| {
                let path = self.files.path(&keeper::segment_name(position.segment));
                io_error("read", path, &error)
            })?;
            let revealed = next.and_then(|decoded| self.reader.reveal(position, decoded));
            let Some(decoded) = revealed else {
                return Err(self.reader.damaged(position));
            };
            match decoded.kind {
                Kind::Mark => {}
                Kind::Seal => return Ok(()),
                Kind::Entry(kind) => {
                    let location = EntryLocation {
                        position,
                        len: decoded.header.len,
                    };
                    let mut entry = decoded.into_entry(kind);
                    // The window it was read with is much larger.
                    entry.payload = Bytes::copy_from_slice(&entry.payload);
                    visit(location, entry)?;
                }
            }
        }
    }

    /// Where replay begins after the entry at `from`, which must be there.
    fn after(&self, from: LogPosition) -> Result<LogPosition, StoreError> {
        let (file, end) = self.replayed(from.segment)?;
        let mut walker = Walker::new(file, self.store, from, end);
        let found = if from.offset < SEGMENT_HEADER_BYTES || from.offset >= end {
            None
        } else {
            let path = self.files.path(&keeper::segment_name(from.segment));
            walker
                .next()
                .map_err(|error| io_error("read", path, &error))?
        };
        match found.map(|decoded| decoded.kind) {
            Some(Kind::Entry(_)) => Ok(walker.position),
            Some(Kind::Mark | Kind::Seal) | None => Err(corrupt(format!(
                "the state was applied up to segment {} offset {}, where {} holds no entry",
                from.segment,
                from.offset,
                self.files
                    .path(&keeper::segment_name(from.segment))
                    .display()
            ))),
        }
    }
}

/// Lays entries into the pending batch.
struct Placer<'a> {
    log: &'a mut SegmentLog,
    batch: &'a mut batch::Batch,
}

impl Placer<'_> {
    fn place(&mut self, entry: &Entry) -> EntryLocation {
        let packed = Some(&entry.payload)
            .filter(|_| entry.compress)
            .and_then(|payload| packing::pack(payload));
        let payload = packed.as_ref().unwrap_or(&entry.payload);
        let bytes = u32::try_from(payload.len()).expect("admitted entries fit a segment");
        let is_sealed = self.log.sealer.is_some();
        let len = ENTRY_HEADER_LEN + bytes + self.log.seal_bytes();
        let begins_batch = self.batch.is_empty();
        let mark_bytes = if begins_batch { OWN_ENTRY_BYTES } else { 0 };
        let end = u64::from(self.log.next.offset)
            + u64::from(mark_bytes + align(len))
            + u64::from(OWN_ENTRY_BYTES);
        let is_mixed = self.log.coverage.is_mixed(self.log.next.segment, is_sealed);
        if end > u64::from(self.log.active_bytes) || is_mixed {
            self.roll();
        } else if begins_batch {
            self.log.serial += 1;
            self.log.next = self
                .batch
                .mark(self.log.next, self.log.store, self.log.serial);
        }
        let position = self.log.next;
        let header = EntryHeader::of(entry, len, packed.is_some(), is_sealed);
        let payload = match &mut self.log.sealer {
            Some(sealer) => sealer.seal(&header.place(self.log.store, position), payload),
            None => payload.clone(),
        };
        self.log.next = self.batch.entry(position, self.log.store, header, &payload);
        EntryLocation { position, len }
    }

    fn roll(&mut self) {
        let log = &mut *self.log;
        self.batch.seal_segment(log.next, log.store, log.serial);
        log.serial += 1;
        log.active_bytes = log.options.segment_bytes;
        let number = log.next.segment + 1;
        let header = SegmentHeader {
            number,
            len: log.active_bytes,
            sealed: log.sealer.is_some(),
            store: log.store,
        };
        log.coverage.begun(&header);
        log.next = self.batch.begin_segment(&header, log.serial);
        log.segments.insert(number);
    }
}

impl LogStore for SegmentLog {
    fn append(&mut self, entries: &[Entry]) -> Result<Appended, StoreError> {
        self.shared.usable()?;
        self.settle(self.shared.synced());
        if entries.is_empty() {
            return Ok(Appended {
                ticket: self.appended,
                locations: Vec::new(),
            });
        }
        self.admit(entries)?;
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue();
        let new_bytes: u64 = entries
            .iter()
            .map(|entry| (entry.payload.len() + ENTRY_HEADER_BYTES) as u64)
            .sum();
        let pending = queue.pending.bytes();
        if pending > 0 && pending + new_bytes > self.options.max_pending_bytes {
            return Err(StoreError::new(
                StoreErrorKind::Full,
                format!("{pending} bytes wait for the log to be written, no more are taken"),
            ));
        }
        let ticket = Ticket(self.appended.0 + 1);
        let mut placer = Placer {
            log: self,
            batch: &mut queue.pending,
        };
        let locations: Vec<_> = entries.iter().map(|entry| placer.place(entry)).collect();
        queue.pending.ticket = ticket;
        drop(queue);
        shared.notify();

        self.appended = ticket;
        let taken = entries
            .iter()
            .zip(&locations)
            .map(|(entry, location)| InFlight {
                ticket,
                location: *location,
                group: entry.group,
                index: entry.index,
                payload: entry.payload.clone(),
            });
        self.in_flight.extend(taken);
        Ok(Appended { ticket, locations })
    }

    fn poll_synced(&mut self) -> Result<Ticket, StoreError> {
        if let Some(failure) = self.shared.failure() {
            return Err(failure.clone());
        }
        let synced = self.shared.synced();
        self.settle(synced);
        Ok(synced)
    }

    fn read(
        &self,
        location: EntryLocation,
        group: GroupId,
        index: u64,
    ) -> Result<Bytes, StoreError> {
        let EntryLocation { position, len } = location;
        let wrong = || {
            corrupt(format!(
                "{} holds at offset {} not entry {index} of group {group}",
                self.files
                    .path(&keeper::segment_name(position.segment))
                    .display(),
                position.offset
            ))
        };
        if let Some(entry) = self.find_in_flight(position) {
            let same = entry.location == location && entry.group == group && entry.index == index;
            return if same {
                Ok(entry.payload.clone())
            } else {
                Err(wrong())
            };
        }
        if len > MAX_SEGMENT_BYTES || !self.segments.contains(&position.segment) {
            return Err(wrong());
        }
        let decoded = self.reader.read(position, len).inspect_err(|error| {
            if error.kind == StoreErrorKind::Io {
                self.shared.fail(error.clone());
            } else if self.shared.note_damage(position) {
                tracing::error!("{error}");
            }
        })?;
        let same = decoded.header.group == group.0 && decoded.header.index == index;
        match decoded.kind {
            Kind::Entry(_) if same => Ok(decoded.payload),
            Kind::Entry(_) | Kind::Mark | Kind::Seal => Err(wrong()),
        }
    }

    fn has_parts(&self, location: EntryLocation, payload_len: usize) -> bool {
        self.sealer.is_none() && location.len as usize == ENTRY_HEADER_BYTES + payload_len
    }

    fn read_part(
        &self,
        location: EntryLocation,
        group: GroupId,
        index: u64,
        range: Range<u32>,
    ) -> Result<Option<Bytes>, StoreError> {
        let EntryLocation { position, len } = location;
        if let Some(entry) = self.find_in_flight(position) {
            let same = entry.location == location && entry.group == group && entry.index == index;
            return Ok(same.then(|| part(&entry.payload, &range)).flatten());
        }
        let fits = range.start <= range.end && range.end <= len.saturating_sub(ENTRY_HEADER_LEN);
        if !fits || !self.segments.contains(&position.segment) {
            return Ok(None);
        }
        self.reader
            .read_part(position, range)
            .inspect_err(|error| self.shared.fail(error.clone()))
    }

    fn replay(
        &mut self,
        from: LogPosition,
        visit: &mut dyn FnMut(EntryLocation, Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.shared.usable()?;
        if self.appended != Ticket(0) {
            let what = "the log is replayed before the first append";
            return Err(StoreError::new(StoreErrorKind::Closed, what));
        }
        let mut next_segment = 0;
        if from != LogPosition::default() {
            if let Some(missing) = self.gap_after(from.segment) {
                let path = self.files.path(&keeper::segment_name(missing));
                return Err(corrupt(format!("{} is missing", path.display())));
            }
            let start = self.after(from)?;
            self.replay_segment(start, visit)?;
            next_segment = from.segment + 1;
        }
        for number in self.segments.range(next_segment..) {
            let start = LogPosition {
                segment: *number,
                offset: SEGMENT_HEADER_BYTES,
            };
            self.replay_segment(start, visit)?;
        }
        Ok(())
    }

    fn segments(&self) -> Vec<u64> {
        self.segments.iter().copied().collect()
    }

    fn recycle(&mut self, segments: &[u64]) -> Result<(), StoreError> {
        self.shared.usable()?;
        self.settle(self.shared.synced());
        let oldest_in_flight = self
            .in_flight
            .front()
            .map(|entry| entry.location.position.segment);
        let written = oldest_in_flight.unwrap_or(self.next.segment);
        for segment in segments {
            if *segment >= written || !self.segments.contains(segment) {
                return Err(StoreError::new(
                    StoreErrorKind::Io,
                    format!("segment {segment} cannot be recycled: it is being written or unknown"),
                ));
            }
        }
        let is_damaged = |segment: &&u64| self.shared.is_damaged(**segment);
        let (damaged, sound): (Vec<u64>, Vec<u64>) = segments.iter().partition(is_damaged);
        // What was readable without a key is not kept where everything else is encrypted.
        let is_clear = |segment: &u64| self.coverage.is_mixed(*segment, self.sealer.is_some());
        let (clear, sound) = match &self.sealer {
            Some(_) => sound.into_iter().partition(is_clear),
            None => (Vec::new(), sound),
        };
        for segment in segments {
            self.segments.remove(segment);
            self.reader.forget(*segment);
            self.shared.given_back(*segment);
            self.coverage.forget(*segment);
        }
        // Where space is short, files are not kept for later.
        let keep = self.space.pressure() == Pressure::Normal;
        if let Some((keeper, _)) = &self.keeper {
            keeper.recycle(sound, keep);
            if !clear.is_empty() {
                keeper.remove(clear);
            }
            if !damaged.is_empty() {
                keeper.set_aside(damaged);
            }
        }
        Ok(())
    }
}

impl Drop for SegmentLog {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.stop();
            if let Some(failure) = self.shared.failure() {
                tracing::error!(%failure, "the log was not closed in good order");
            }
        }
    }
}

fn random_id() -> io::Result<StoreId> {
    let mut id = [0; 16];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut id)?;
    Ok(StoreId(id))
}
