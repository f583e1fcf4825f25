//! Reading segments: in order, and one entry at a time.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use menes_jetstream::ports::{LogPosition, StoreError};
use parking_lot::Mutex;

use super::format::{
    Decoded, ENTRY_HEADER_BYTES, ENTRY_HEADER_LEN, EntryHeader, Kind, SEGMENT_HEADER_BYTES,
    SegmentHeader, StoreId, align,
};
use super::keeper::segment_name;
use crate::error::{corrupt, io_error};
use crate::files::{File, Files};
use crate::vault::Vault;

/// Bytes read at once while walking.
const WINDOW_BYTES: usize = 1 << 20;
/// Segment files kept open for reading.
const OPEN_FILES: usize = 64;

/// Reads the header of a segment's file; `None` when it is not sound or of another segment.
pub(super) fn read_header(
    file: &dyn File,
    store: StoreId,
    number: u64,
) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes)
        .filter(|header| header.number == number && header.store == store))
}

/// Walks the entries of one segment in order.
#[derive(Debug)]
pub(super) struct Walker {
    file: Arc<dyn File>,
    store: StoreId,
    /// The entry that is read next.
    pub(super) position: LogPosition,
    /// Nothing is read beyond this offset.
    limit: u32,
    window: Bytes,
    window_offset: u32,
}

impl Walker {
    /// A walk from `position` to `limit`, at most the end of the segment.
    pub(super) fn new(
        file: Arc<dyn File>,
        store: StoreId,
        position: LogPosition,
        limit: u32,
    ) -> Self {
        Self {
            file,
            store,
            position,
            limit,
            window: Bytes::new(),
            window_offset: position.offset,
        }
    }

    /// The entry at the current position, which moves on to the next one; `None` and no move when
    /// there is no valid entry.
    pub(super) fn next(&mut self) -> io::Result<Option<Decoded>> {
        let Some(header) = EntryHeader::decode(&self.window(ENTRY_HEADER_BYTES)?) else {
            return Ok(None);
        };
        let room = self.limit.saturating_sub(self.position.offset);
        if header.len > room || header.kind().is_none() {
            return Ok(None);
        }
        let bytes = self.window(header.len as usize)?;
        let decoded = Decoded::read(self.store, self.position, &bytes);
        if decoded.is_some() {
            self.position.offset = align(self.position.offset + header.len);
        }
        Ok(decoded)
    }

    /// The bytes from the current position on, `len` of them unless the file or the limit ends.
    fn window(&mut self, len: usize) -> io::Result<Bytes> {
        let skip = (self.position.offset - self.window_offset) as usize;
        if self.window.len() < skip.saturating_add(len) {
            let room = self.limit.saturating_sub(self.position.offset) as usize;
            let mut bytes = vec![0; len.max(WINDOW_BYTES).min(room)];
            let read = self
                .file
                .read_at(&mut bytes, u64::from(self.position.offset))?;
            bytes.truncate(read);
            self.window = Bytes::from(bytes);
            self.window_offset = self.position.offset;
            return Ok(self.window.slice(..len.min(read)));
        }
        Ok(self.window.slice(skip..skip + len))
    }
}

/// The offset of the first mark in `from..limit`, wherever it may lie.
///
/// Called where a walk ended: a mark further on proves that what lies before it was durable.
pub(super) fn find_mark(
    file: &dyn File,
    store: StoreId,
    from: LogPosition,
    limit: u32,
) -> io::Result<Option<u32>> {
    let mut position = from;
    let mut bytes = Vec::new();
    while position.offset < limit {
        bytes.resize(WINDOW_BYTES.min((limit - position.offset) as usize), 0);
        let read = file.read_at(&mut bytes, u64::from(position.offset))?;
        let has_room = |window: &&[u8]| window.len() >= ENTRY_HEADER_BYTES;
        let Some(window) = bytes.get(..read).filter(has_room) else {
            break;
        };
        let mut rest = window;
        while rest.len() >= ENTRY_HEADER_BYTES {
            if let Some(header) = EntryHeader::decode(rest)
                && header.len as usize == ENTRY_HEADER_BYTES
                && header.kind() == Some(Kind::Mark)
                && header.is_valid(store, position, &[])
            {
                return Ok(Some(position.offset));
            }
            rest = rest.split_at(8).1;
            position.offset += 8;
        }
        if read < bytes.len() {
            break;
        }
    }
    Ok(None)
}

/// Sets every byte of `from..to` to zero, without writing where they are.
pub(super) fn clear(file: &dyn File, from: u32, to: u32) -> io::Result<()> {
    let zeros = vec![0; WINDOW_BYTES];
    let mut bytes = vec![0; WINDOW_BYTES];
    let mut offset = from;
    while offset < to {
        let len = bytes.len().min((to - offset) as usize);
        let read = file.read_at(bytes.split_at_mut(len).0, u64::from(offset))?;
        // Compared as a whole: byte by byte it is most of the time a start takes.
        if bytes.split_at(read).0 != zeros.split_at(read).0 {
            crate::files::write_all(file, zeros.split_at(len).0, u64::from(offset))?;
        }
        offset = offset.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    }
    Ok(())
}

/// Reads single entries, keeping some files open.
#[derive(Debug)]
pub(super) struct Reader {
    files: Arc<dyn Files>,
    store: StoreId,
    vault: Vault,
    open: Mutex<OpenFiles>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    by_segment: BTreeMap<u64, (Arc<dyn File>, u64)>,
    uses: u64,
}

impl Reader {
    pub(super) fn new(files: Arc<dyn Files>, store: StoreId, vault: Vault) -> Self {
        Self {
            files,
            store,
            vault,
            open: Mutex::default(),
        }
    }

    /// The file of a segment.
    pub(super) fn file(&self, segment: u64) -> io::Result<Arc<dyn File>> {
        let mut open = self.open.lock();
        open.uses += 1;
        let now = open.uses;
        if let Some((file, used)) = open.by_segment.get_mut(&segment) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        let file = self.files.open(&segment_name(segment))?;
        if open.by_segment.len() >= OPEN_FILES {
            let oldest = open.by_segment.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(segment, _)| *segment) {
                open.by_segment.remove(&oldest);
            }
        }
        open.by_segment.insert(segment, (Arc::clone(&file), now));
        Ok(file)
    }

    /// Forgets the file of a segment that is given back.
    pub(super) fn forget(&self, segment: u64) {
        self.open.lock().by_segment.remove(&segment);
    }

    /// The valid entry of `len` bytes at `position`, its payload in the clear.
    pub(super) fn read(&self, position: LogPosition, len: u32) -> Result<Decoded, StoreError> {
        let path = || self.files.path(&segment_name(position.segment));
        let read = || {
            let file = self.file(position.segment)?;
            let bytes = file.read_new(len as usize, u64::from(position.offset))?;
            Ok(Bytes::from(bytes))
        };
        let bytes = read().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => corrupt(format!("{} is missing", path().display())),
            _ => io_error("read", path(), &error),
        })?;
        Decoded::read(self.store, position, &bytes)
            .filter(|decoded| decoded.header.len == len)
            .and_then(|decoded| self.reveal(position, decoded))
            .ok_or_else(|| self.damaged(position))
    }

    /// Bytes of the payload of the entry at `position`, as they lie there; `None` when there are
    /// not as many.
    pub(super) fn read_part(
        &self,
        position: LogPosition,
        range: Range<u32>,
    ) -> Result<Option<Bytes>, StoreError> {
        let begin = [position.offset, ENTRY_HEADER_LEN, range.start];
        let begin = begin.map(u64::from).iter().sum();
        let len = (range.end - range.start) as usize;
        let read = || self.file(position.segment)?.read_new(len, begin);
        match read() {
            Ok(bytes) => Ok((bytes.len() == len).then(|| Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let path = self.files.path(&segment_name(position.segment));
                Err(io_error("read", path, &error))
            }
        }
    }

    /// The entry at `position` with its payload in the clear, unless that cannot be had.
    pub(super) fn reveal(&self, position: LogPosition, decoded: Decoded) -> Option<Decoded> {
        decoded.reveal(self.store, position, &self.vault)
    }

    /// The error for an entry that is not what was written.
    pub(super) fn damaged(&self, position: LogPosition) -> StoreError {
        damaged(&*self.files, position)
    }
}

pub(super) fn damaged(files: &dyn Files, position: LogPosition) -> StoreError {
    let path = files.path(&segment_name(position.segment));
    corrupt(format!(
        "{} is damaged at offset {}",
        path.display(),
        position.offset
    ))
}
