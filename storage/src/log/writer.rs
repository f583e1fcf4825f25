//! The log thread: takes what is pending, writes it, syncs it, tells.
//!
//! One turn is one batch: everything appended while the last sync ran. There is no timer and no
//! minimum; the next turn begins the moment the last one ends. The first error ends the thread and
//! poisons the log: nothing is retried, and no second sync can claim what the first one lost.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem};

use menes_jetstream::ports::{LogPosition, StoreError, StoreErrorKind};

use super::batch::Batch;
use super::keeper::{Keeper, segment_name};
use super::shared::Shared;
use super::sidecar::{Sidecar, Synced};
use super::superblock::{self, Contents, Superblock};
use super::{TailEvidence, sidecar};
use crate::error::io_error;
use crate::files::{File, Files};

/// A new segment is written once before its use, which makes the syncs to come cheaper, when the
/// current one took this long to fill half: then the disk has time for it.
const PREWRITE_AFTER: Duration = Duration::from_millis(500);
/// It is also when batches were smaller than this: then there are many syncs in a segment. Large
/// batches gain little by it, and would be written twice.
const PREWRITE_BELOW: u64 = 64 << 10;
/// How far the horizon lies beyond what is written when it is moved. Each move is a sync of the
/// sidecar, and a start after a crash reads this much at most.
const HORIZON_BYTES: u32 = if cfg!(test) { 2048 } else { 8 << 20 };
/// A turn that takes longer than this is reported.
const SLOW_TURN: Duration = Duration::from_secs(1);

/// Owns the files that are written.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) files: Arc<dyn Files>,
    pub(super) keeper: Keeper,
    /// The segment being written.
    pub(super) segment: u64,
    pub(super) segment_bytes: u32,
    pub(super) file: Arc<dyn File>,
    /// Whether the segment after this one was asked for.
    pub(super) next_requested: bool,
    /// When the segment being written was begun, or the log opened.
    pub(super) begun: Instant,
    /// Batches written since then, and their bytes.
    pub(super) batches: (u64, u64),
    /// Length of the segments to come.
    pub(super) next_segment_bytes: u32,
    /// Whether segments may be written before their use.
    pub(super) prewrite: bool,
    pub(super) sidecar: Sidecar,
    pub(super) superblock: Superblock,
    pub(super) evidence: TailEvidence,
    /// What the last finished sync covered.
    pub(super) synced: Synced,
    /// Nothing is written behind it, and the sidecar says so.
    pub(super) horizon: LogPosition,
}

/// The horizon for a log that is written up to `end` in a segment of so many bytes.
pub(super) fn horizon_behind(end: LogPosition, segment_bytes: u32) -> LogPosition {
    LogPosition {
        segment: end.segment,
        offset: end.offset.saturating_add(HORIZON_BYTES).min(segment_bytes),
    }
}

enum Turn {
    Commit(Batch),
    /// Nothing to do for a while, and the sidecar is behind.
    Idle,
    Close,
}

impl Writer {
    /// Starts the log thread. It ends when the queue is closing, or at the first error.
    pub(super) fn start(self, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("menes-log".into())
            .spawn(move || {
                let _guard = PanicGuard(&shared);
                if let Err(error) = self.run(&shared) {
                    shared.fail(error);
                }
            })
    }

    fn run(mut self, shared: &Shared) -> Result<(), StoreError> {
        loop {
            match self.next(shared) {
                Turn::Commit(batch) => {
                    // The keeper may have poisoned the log while this thread waited.
                    shared.usable()?;
                    let begun = Instant::now();
                    let rolled = self.commit(&batch, shared)?;
                    let took = begun.elapsed();
                    shared.count(batch.bytes(), took);
                    if took > SLOW_TURN {
                        tracing::warn!(bytes = batch.bytes(), ?took, "the log device is slow");
                    }
                    // The segment before may be given back as soon as this is known to be durable,
                    // so nothing may look for it any more.
                    if rolled || self.evidence == TailEvidence::BeforeAck {
                        self.record()?;
                    }
                    shared.publish(batch.ticket);
                    self.look_ahead()?;
                    shared.queue().spare = batch.cleared();
                }
                Turn::Idle => self.record()?,
                Turn::Close => {
                    shared.usable()?;
                    return self.close();
                }
            }
        }
    }

    fn next(&self, shared: &Shared) -> Turn {
        let mut queue = shared.queue();
        loop {
            if !queue.pending.is_empty() {
                let empty = mem::take(&mut queue.spare);
                return Turn::Commit(mem::replace(&mut queue.pending, empty));
            }
            if queue.closing {
                return Turn::Close;
            }
            match self.evidence_delay() {
                None => shared.arrived().wait(&mut queue),
                Some(delay) => {
                    let waited = shared.arrived().wait_for(&mut queue, delay);
                    if waited.timed_out() && queue.pending.is_empty() && !queue.closing {
                        return Turn::Idle;
                    }
                }
            }
        }
    }

    /// How long to stay idle before the sidecar is brought up to date; `None` when it is.
    fn evidence_delay(&self) -> Option<Duration> {
        match self.evidence {
            TailEvidence::WhenIdle(delay) if self.sidecar.latest != self.synced => Some(delay),
            TailEvidence::WhenIdle(_) | TailEvidence::BeforeAck => None,
        }
    }

    /// Writes and syncs one batch. True when it began a segment.
    fn commit(&mut self, batch: &Batch, shared: &Shared) -> Result<bool, StoreError> {
        let mut rolled = false;
        let mut unsynced = false;
        for run in batch.runs() {
            if run.segment != self.segment {
                // The old segment is durable before the new one shows up, so that a segment's
                // existence proves the one before it.
                if unsynced {
                    self.sync()?;
                }
                shared.filled(self.segment);
                self.roll(run.segment)?;
                rolled = true;
            }
            self.cover(LogPosition {
                segment: run.segment,
                offset: run.end,
            })?;
            batch
                .write(run, &*self.file)
                .map_err(|error| self.error("write", &error))?;
            unsynced = true;
        }
        self.sync()?;
        let (mark, batch_serial) = batch.mark;
        self.synced = Synced {
            segment: batch.end.segment,
            batch_start: mark.offset,
            end: batch.end.offset,
            batch_serial,
        };
        self.batches.0 += 1;
        self.batches.1 += batch.bytes();
        if !self.next_requested && batch.end.offset > self.segment_bytes / 2 {
            self.request_next();
        }
        Ok(rolled)
    }

    fn roll(&mut self, segment: u64) -> Result<(), StoreError> {
        if !self.next_requested {
            self.request_next();
        }
        self.file = self.keeper.take(segment)?;
        self.segment = segment;
        self.segment_bytes = self.next_segment_bytes;
        self.next_requested = false;
        self.begun = Instant::now();
        self.batches = (0, 0);
        Ok(())
    }

    fn request_next(&mut self) {
        let (count, bytes) = self.batches;
        let has_time = self.begun.elapsed() > PREWRITE_AFTER;
        let prewrite = self.prewrite && (has_time || bytes < count.saturating_mul(PREWRITE_BELOW));
        self.keeper.prepare(self.segment + 1, prewrite);
        self.next_requested = true;
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.file.sync().map_err(|error| self.error("sync", &error))
    }

    /// Moves the horizon, durably, unless everything up to `end` lies before it.
    fn cover(&mut self, end: LogPosition) -> Result<(), StoreError> {
        if end.segment == self.horizon.segment && end.offset <= self.horizon.offset {
            return Ok(());
        }
        self.horizon = horizon_behind(end, self.segment_bytes);
        self.write_record()
    }

    /// Moves the horizon before the next batch needs it.
    fn look_ahead(&mut self) -> Result<(), StoreError> {
        let next = horizon_behind(self.synced.end(), self.segment_bytes);
        if next.offset.saturating_sub(self.horizon.offset) > HORIZON_BYTES / 2 {
            self.horizon = next;
            self.write_record()?;
        }
        Ok(())
    }

    fn record(&mut self) -> Result<(), StoreError> {
        if self.sidecar.latest == self.synced {
            return Ok(());
        }
        self.write_record()
    }

    fn write_record(&mut self) -> Result<(), StoreError> {
        let opened = self.superblock.contents.opened;
        let recorded = self.sidecar.record(self.synced, opened, self.horizon);
        recorded.map_err(|error| io_error("write", self.files.path(sidecar::NAME), &error))
    }

    fn close(mut self) -> Result<(), StoreError> {
        self.record()?;
        let contents = Contents {
            clean_end: Some(self.synced.end()),
            ..self.superblock.contents
        };
        let updated = self.superblock.update(contents);
        updated.map_err(|error| io_error("write", self.files.path(superblock::NAME), &error))
    }

    fn error(&self, action: &str, error: &io::Error) -> StoreError {
        io_error(action, self.files.path(&segment_name(self.segment)), error)
    }
}

/// Poisons the log when its thread panics, so that nobody waits for it.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(StoreError::new(
                StoreErrorKind::Io,
                "the log thread panicked",
            ));
        }
    }
}
