//! Entries on their way to the disk: what one turn of the log thread writes.
//!
//! Headers, padding and small payloads are copied into one staging buffer; large payloads are
//! shared. A batch is a list of runs, each contiguous in one segment, so it goes out with one
//! vectored write per run in the common case.

use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::Bytes;
use menes_jetstream::ports::{LogPosition, Ticket};

use super::format::{
    ENTRY_HEADER_LEN, EntryHeader, Kind, OWN_ENTRY_BYTES, SegmentHeader, StoreId, align,
};
use crate::files::{File, short_write};

/// Payloads up to this size are copied; above it a reference and one more part of the write cost
/// less than the copy.
const COPY_BYTES: usize = 4096;
/// Most parts the operating system takes in one write.
const MAX_PARTS: usize = 1024;
/// A staging buffer that has grown beyond this is not kept for the next batch.
const KEPT_STAGING_BYTES: usize = 4 << 20;

/// What is written and synced together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    runs: Vec<Run>,
    parts: Vec<Part>,
    staging: Vec<u8>,
    /// The last append in the batch.
    pub(super) ticket: Ticket,
    /// The last mark: position and serial.
    pub(super) mark: (LogPosition, u64),
    /// Where the next batch begins.
    pub(super) end: LogPosition,
    bytes: u64,
}

/// Contiguous bytes of one segment.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) segment: u64,
    offset: u32,
    /// Where it ends.
    pub(super) end: u32,
    parts: Range<usize>,
}

#[derive(Debug)]
enum Part {
    Staged(Range<usize>),
    Shared(Bytes),
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes to write.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// An empty batch that keeps the buffers of this one.
    pub(super) fn cleared(mut self) -> Self {
        self.runs.clear();
        self.parts.clear();
        self.staging.clear();
        if self.staging.capacity() > KEPT_STAGING_BYTES {
            self.staging = Vec::new();
        }
        Self {
            runs: self.runs,
            parts: self.parts,
            staging: self.staging,
            ..Self::default()
        }
    }

    /// Begins a segment: its header and a mark. Returns where the first entry goes.
    pub(super) fn begin_segment(&mut self, header: &SegmentHeader, serial: u64) -> LogPosition {
        self.stage(
            LogPosition {
                segment: header.number,
                offset: 0,
            },
            &header.encode(),
        );
        self.mark(self.end, header.store, serial)
    }

    /// Begins a batch at `at`. Returns where the first entry goes.
    pub(super) fn mark(&mut self, at: LogPosition, store: StoreId, serial: u64) -> LogPosition {
        self.mark = (at, serial);
        self.own(at, store, Kind::Mark, serial)
    }

    /// Ends the segment at `at`.
    pub(super) fn seal_segment(&mut self, at: LogPosition, store: StoreId, serial: u64) {
        self.own(at, store, Kind::Seal, serial);
    }

    /// Adds an entry at `at`: its header, and its payload as it is written. Returns where the next
    /// one goes.
    pub(super) fn entry(
        &mut self,
        at: LogPosition,
        store: StoreId,
        header: EntryHeader,
        payload: &Bytes,
    ) -> LogPosition {
        self.stage(at, &header.finish(store, at, payload));
        if payload.len() <= COPY_BYTES {
            self.stage(self.end, payload);
        } else {
            self.parts.push(Part::Shared(payload.clone()));
            self.advance(header.len - ENTRY_HEADER_LEN);
        }
        self.pad()
    }

    fn own(&mut self, at: LogPosition, store: StoreId, kind: Kind, serial: u64) -> LogPosition {
        self.stage(at, &EntryHeader::own(kind, serial).finish(store, at, &[]));
        let next = self.pad();
        debug_assert_eq!(next.offset, at.offset + OWN_ENTRY_BYTES);
        next
    }

    fn pad(&mut self) -> LogPosition {
        let padding = align(self.end.offset) - self.end.offset;
        let zeros = [0; 8];
        let (zeros, _) = zeros.split_at(padding as usize);
        self.stage(self.end, zeros);
        self.end
    }

    /// Copies bytes that lie at `at`, which is the end of the last run or begins a new one.
    fn stage(&mut self, at: LogPosition, bytes: &[u8]) {
        if self.runs.is_empty() || at != self.end {
            let parts = self.parts.len()..self.parts.len();
            self.runs.push(Run {
                segment: at.segment,
                offset: at.offset,
                end: at.offset,
                parts,
            });
            self.end = at;
        }
        let start = self.staging.len();
        self.staging.extend_from_slice(bytes);
        let open = self.runs.last().is_some_and(|run| !run.parts.is_empty());
        match self.parts.last_mut() {
            Some(Part::Staged(range)) if open => range.end = self.staging.len(),
            _ => self.parts.push(Part::Staged(start..self.staging.len())),
        }
        let len = u32::try_from(bytes.len()).expect("an entry is shorter than a segment");
        self.advance(len);
    }

    fn advance(&mut self, len: u32) {
        self.end.offset += len;
        self.bytes += u64::from(len);
        if let Some(run) = self.runs.last_mut() {
            run.parts.end = self.parts.len();
            run.end = self.end.offset;
        }
    }

    /// Writes one run with as few calls as possible. A short write is an error.
    pub(super) fn write(&self, run: &Run, file: &dyn File) -> io::Result<()> {
        let parts = self.parts.get(run.parts.clone()).unwrap_or_default();
        let mut offset = u64::from(run.offset);
        for parts in parts.chunks(MAX_PARTS) {
            let slices: Vec<IoSlice<'_>> = parts
                .iter()
                .map(|part| IoSlice::new(self.bytes_of(part)))
                .collect();
            let expected = slices.iter().map(|slice| slice.len()).sum();
            let written = file.write_at(&slices, offset)?;
            if written != expected {
                return Err(short_write(written, expected));
            }
            offset += expected as u64;
        }
        Ok(())
    }

    fn bytes_of<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match part {
            Part::Staged(range) => self.staging.get(range.clone()).unwrap_or_default(),
            Part::Shared(bytes) => bytes,
        }
    }
}
