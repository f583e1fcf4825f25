//! Opening a store: where the log ends, and whether that is where it should.
//!
//! The log after a crash is a row of valid entries, then perhaps a torn batch, then whatever the
//! file held before. A torn batch was never acknowledged and is cut; anything else that is not
//! valid is damage, and the store is not opened. What decides is evidence of a finished sync:
//!
//! 1. the sidecar says everything up to a position was synced;
//! 2. a mark further on in the segment says the same of everything before it;
//! 3. a later segment that was begun says it of the whole segment before;
//! 4. the clean-shutdown mark says it of the whole log.
//!
//! Everything is checked before the first byte is written. After a crash what may have been written
//! behind the last valid entry is cleared, so that nothing of a torn batch is ever taken for part of
//! a later one. How far that may be the sidecar says, its horizon: a start reads what was written
//! since the last record and a few megabytes behind it, whatever is stored and however large
//! segments are. Where the horizon is not known, all of the segment is read.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use menes_jetstream::ports::LogPosition;

use super::LogOptions;
use super::format::{Kind, OWN_ENTRY_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, VERSION};
use super::keeper::{is_spare, segment_name, segment_number};
use super::segment::{Walker, clear, damaged, find_mark, read_header};
use super::sidecar::{self, Sidecar, Synced};
use super::superblock::{self, Contents, Superblock, Unreadable};
use super::writer::horizon_behind;
use crate::error::OpenError;
use crate::files::{File, Files, prewrite, write_all};

/// Length of the first segment. All of it is written once before its use, as syncs on it are cheaper
/// then, and that must not delay the first start; the segments to come are written in the
/// background.
pub(super) const FIRST_SEGMENT_BYTES: u32 = 4 << 20;

/// The first segment of every store; zero never names one.
pub(super) const FIRST_SEGMENT: u64 = 1;

/// An opened store.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) store: StoreId,
    pub(super) superblock: Superblock,
    pub(super) sidecar: Sidecar,
    /// Segments that hold entries, the active one included.
    pub(super) segments: BTreeSet<u64>,
    pub(super) active: SegmentHeader,
    pub(super) file: Arc<dyn File>,
    /// How far the log goes.
    pub(super) synced: Synced,
    pub(super) prepared: Option<(u64, Arc<dyn File>)>,
    pub(super) spares: Vec<String>,
}

/// Opens the store in `files`, or makes one whose identity is `fresh`.
pub(super) fn recover(
    files: &dyn Files,
    options: &LogOptions,
    fresh: StoreId,
) -> Result<Recovered, OpenError> {
    let names = files
        .names()
        .map_err(OpenError::io("list", files.path("")))?;
    let superblock = if names.iter().any(|name| name == superblock::NAME) {
        open_superblock(files)?
    } else {
        create_superblock(files, &names, fresh)?
    };
    // With a copy damaged, the other one may be from before the store was used.
    if superblock.contents.opened == 0 && superblock.is_whole {
        create_first_segment(files, options, &superblock)?;
    }
    Scan::of(files, &superblock)?.settle(files, options, superblock)
}

fn open_superblock(files: &dyn Files) -> Result<Superblock, OpenError> {
    let path = files.path(superblock::NAME);
    let file = files
        .open(superblock::NAME)
        .map_err(OpenError::io("open", &path))?;
    Superblock::open(file).map_err(|unreadable| match unreadable {
        Unreadable::Newer(found) => OpenError::NewerVersion {
            path,
            found,
            supported: VERSION,
        },
        Unreadable::Damaged => damage(format!("both copies in {} are damaged", path.display())),
        Unreadable::Io(source) => OpenError::Io {
            action: "read",
            path,
            source,
        },
    })
}

/// Makes an empty directory a store. Only a directory without anything of ours will do: segments
/// without a superblock are damage.
fn create_superblock(
    files: &dyn Files,
    names: &[String],
    fresh: StoreId,
) -> Result<Superblock, OpenError> {
    let ours =
        |name: &&String| *name == sidecar::NAME || is_spare(name) || segment_number(name).is_some();
    if let Some(name) = names.iter().find(ours) {
        let path = files.path(superblock::NAME);
        return Err(damage(format!(
            "{} is missing, but {name} is there",
            path.display()
        )));
    }
    let created = || {
        Superblock::create(files, fresh)?;
        files.rename(superblock::NEW_NAME, superblock::NAME)?;
        files.sync_names()
    };
    created().map_err(OpenError::io("create", files.path(superblock::NAME)))?;
    open_superblock(files)
}

/// Makes what a store needs besides its superblock. A crash in between leaves a store that was
/// never opened, and this is done again.
fn create_first_segment(
    files: &dyn Files,
    options: &LogOptions,
    superblock: &Superblock,
) -> Result<(), OpenError> {
    let store = superblock.contents.store;
    let name = segment_name(FIRST_SEGMENT);
    let created = || {
        let len = options.segment_bytes.min(FIRST_SEGMENT_BYTES);
        let file = files.create(&name, u64::from(len))?;
        prewrite(&*file, u64::from(len), &|| true)?;
        let header = SegmentHeader {
            number: FIRST_SEGMENT,
            len,
            sealed: options.vault.is_on(),
            store,
        };
        write_all(&*file, &header.encode(), 0)?;
        file.sync()
    };
    created().map_err(OpenError::io("create", files.path(&name)))?;
    let start = SEGMENT_HEADER_BYTES;
    let synced = Synced {
        segment: FIRST_SEGMENT,
        batch_start: start,
        end: start,
        batch_serial: 0,
    };
    let created = Sidecar::create(files, store, synced).and_then(|()| files.sync_names());
    created.map_err(OpenError::io("create", files.path(sidecar::NAME)))
}

fn open_sidecar(files: &dyn Files, store: StoreId, opened: u64) -> Result<Sidecar, OpenError> {
    let path = files.path(sidecar::NAME);
    match files
        .open(sidecar::NAME)
        .and_then(|file| Sidecar::open(file, store, opened))
    {
        Ok(Some(sidecar)) => Ok(sidecar),
        Ok(None) => Err(damage(format!("{} holds no sound record", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(damage(format!("{} is missing", path.display())))
        }
        Err(source) => Err(OpenError::Io {
            action: "read",
            path,
            source,
        }),
    }
}

/// What was found, before anything is changed.
#[derive(Debug)]
struct Scan {
    store: StoreId,
    /// Whether the store was closed in good order.
    clean: bool,
    sidecar: Sidecar,
    segments: BTreeSet<u64>,
    active: SegmentHeader,
    file: Arc<dyn File>,
    /// The file of the segment to come, when there is one.
    prepared: Option<(u64, Arc<dyn File>)>,
    spares: Vec<String>,
    /// How far valid entries go.
    valid: Synced,
    written: Written,
}

/// How far the last segments may have been written, as offsets.
#[derive(Clone, Copy, Debug)]
struct Written {
    active: u32,
    /// In the segment that was prepared and not begun.
    prepared: u32,
}

impl Written {
    fn of(horizon: Option<LogPosition>, valid: LogPosition, active: SegmentHeader) -> Self {
        match horizon {
            // The next segment is named before anything is written to it.
            Some(horizon) if horizon.segment == active.number && horizon >= valid => Self {
                active: horizon.offset.min(active.len),
                prepared: 0,
            },
            Some(horizon) if horizon.segment == active.number + 1 => Self {
                active: active.len,
                prepared: horizon.offset,
            },
            _ => Self {
                active: active.len,
                prepared: u32::MAX,
            },
        }
    }
}

impl Scan {
    fn of(files: &dyn Files, superblock: &Superblock) -> Result<Self, OpenError> {
        let Contents {
            store,
            opened,
            clean_end,
        } = superblock.contents;
        let sidecar = open_sidecar(files, store, opened)?;
        let floor = sidecar.latest;
        let names = files
            .names()
            .map_err(OpenError::io("list", files.path("")))?;
        let spares = names
            .iter()
            .filter(|name| is_spare(name))
            .cloned()
            .collect();
        let mut segments: BTreeSet<u64> = names
            .iter()
            .filter_map(|name| segment_number(name))
            .collect();

        let (active, file, mut unbegun) = find_active(files, store, &mut segments)?;
        // A segment is prepared only once the one before it was begun and synced.
        let missing = |(number, _): &(u64, Arc<dyn File>)| *number > active.number + 1;
        // As a segment is named in a horizon only once the one before it was synced.
        let named = sidecar.horizon.map_or(0, |horizon| horizon.segment);
        if active.number < floor.segment || named > active.number + 1 || unbegun.iter().any(missing)
        {
            let start = LogPosition {
                segment: active.number + 1,
                offset: 0,
            };
            return Err(damaged(files, start).into());
        }
        let prepared = unbegun.pop();

        let valid = walk(files, store, floor, active, &file)?;
        let written = Written::of(sidecar.horizon, valid.end(), active);
        if let Some(end) = clean_end {
            if end != valid.end() {
                return Err(damaged(files, valid.end()).into());
            }
        } else {
            refuse_marks(files, store, &*file, valid.end(), written.active)?;
            if let Some((number, file)) = &prepared {
                // The first mark is written together with the header, and both may be torn.
                let offset = SEGMENT_HEADER_BYTES + OWN_ENTRY_BYTES;
                let from = LogPosition {
                    segment: *number,
                    offset,
                };
                refuse_marks(files, store, &**file, from, written.prepared)?;
            }
        }
        if valid.end() < floor.end() {
            return Err(damaged(files, valid.end()).into());
        }
        let clean = clean_end.is_some();
        Ok(Self {
            store,
            clean,
            sidecar,
            segments,
            active,
            file,
            prepared,
            spares,
            valid,
            written,
        })
    }

    /// Makes what was found the durable truth, and takes the clean mark away.
    fn settle(
        mut self,
        files: &dyn Files,
        options: &LogOptions,
        mut superblock: Superblock,
    ) -> Result<Recovered, OpenError> {
        if !self.clean {
            let path = files.path(&segment_name(self.active.number));
            self.repair().map_err(OpenError::io("repair", path))?;
        }
        self.drop_unusable(files, options)
            .map_err(OpenError::io("tidy", files.path("")))?;
        let opened = superblock.contents.opened + 1;
        let horizon = horizon_behind(self.valid.end(), self.active.len);
        let recorded = self.sidecar.record(self.valid, opened, horizon);
        recorded.map_err(OpenError::io("write", files.path(sidecar::NAME)))?;
        tracing::debug!(
            segment = self.valid.segment,
            end = self.valid.end,
            clean = self.clean,
            "the log ends here"
        );
        let contents = Contents {
            opened,
            clean_end: None,
            ..superblock.contents
        };
        let updated = superblock.update(contents);
        updated.map_err(OpenError::io("write", files.path(superblock::NAME)))?;
        Ok(Recovered {
            store: self.store,
            superblock,
            sidecar: self.sidecar,
            segments: self.segments,
            active: self.active,
            file: self.file,
            synced: self.valid,
            prepared: self.prepared,
            spares: self.spares,
        })
    }

    /// Clears what lies behind the last valid entry. Entries that a killed process had written may
    /// be in no more than the page cache, so this syncs them too.
    fn repair(&self) -> io::Result<()> {
        if self.file.len()? < u64::from(self.active.len) {
            self.file.set_len(u64::from(self.active.len))?;
        }
        clear(&*self.file, self.valid.end, self.written.active)?;
        self.file.sync()?;
        if let Some((_, file)) = &self.prepared {
            let len = u32::try_from(file.len()?).unwrap_or(u32::MAX);
            clear(&**file, 0, len.min(self.written.prepared))?;
            file.sync()?;
        }
        Ok(())
    }

    /// Removes prepared files and spares that have another length than new segments have, or what
    /// should not be readable any more.
    fn drop_unusable(&mut self, files: &dyn Files, options: &LogOptions) -> io::Result<()> {
        let wanted = u64::from(options.segment_bytes);
        // Files of a time without a key may still hold what was readable.
        let clear = options.vault.is_on() && !self.active.sealed;
        if let Some((number, file)) = &self.prepared
            && (file.len()? != wanted || clear)
        {
            files.remove(&segment_name(*number))?;
            self.prepared = None;
        }
        let mut kept = Vec::new();
        for spare in std::mem::take(&mut self.spares) {
            if files.open(&spare)?.len()? == wanted && !clear {
                kept.push(spare);
            } else {
                files.remove(&spare)?;
            }
        }
        self.spares = kept;
        files.sync_names()
    }
}

type Begun = (SegmentHeader, Arc<dyn File>, Vec<(u64, Arc<dyn File>)>);

/// The last segment that was begun, and the files after it, which are taken out of `segments`.
fn find_active(
    files: &dyn Files,
    store: StoreId,
    segments: &mut BTreeSet<u64>,
) -> Result<Begun, OpenError> {
    let mut unbegun = Vec::new();
    while let Some(number) = segments.last().copied() {
        let path = files.path(&segment_name(number));
        let file = files
            .open(&segment_name(number))
            .map_err(OpenError::io("open", &path))?;
        let header = read_header(&*file, store, number).map_err(OpenError::io("read", &path))?;
        if let Some(header) = header {
            return Ok((header, file, unbegun));
        }
        unbegun.push((number, file));
        segments.pop_last();
    }
    Err(damage(format!(
        "{} holds no segment with a sound header",
        files.path("").display()
    )))
}

/// Follows valid entries from the last batch known to be synced to the end of the log.
fn walk(
    files: &dyn Files,
    store: StoreId,
    floor: Synced,
    active: SegmentHeader,
    active_file: &Arc<dyn File>,
) -> Result<Synced, OpenError> {
    let known = u64::from(floor.batch_start < floor.end);
    let mut valid = Synced {
        end: floor.batch_start,
        batch_serial: floor.batch_serial - known,
        ..floor
    };
    for number in floor.segment..=active.number {
        let path = files.path(&segment_name(number));
        let (header, file) = if number == active.number {
            (active, Arc::clone(active_file))
        } else {
            begun(files, store, number)?
        };
        if number > floor.segment {
            let start = SEGMENT_HEADER_BYTES;
            valid = Synced {
                segment: number,
                batch_start: start,
                end: start,
                ..valid
            };
        }
        let mut walker = Walker::new(file, store, valid.end(), header.len);
        let mut sealed = false;
        while let Some(entry) = walker.next().map_err(OpenError::io("read", &path))? {
            match entry.kind {
                Kind::Entry(_) => {}
                Kind::Mark if entry.header.group == valid.batch_serial + 1 => {
                    valid.batch_start = valid.end;
                    valid.batch_serial = entry.header.group;
                }
                Kind::Mark => return Err(damaged(files, valid.end()).into()),
                Kind::Seal => {
                    sealed = true;
                    break;
                }
            }
            valid.end = walker.position.offset;
        }
        if !sealed && number < active.number {
            return Err(damaged(files, valid.end()).into());
        }
    }
    Ok(valid)
}

/// A segment that must have been begun.
fn begun(
    files: &dyn Files,
    store: StoreId,
    number: u64,
) -> Result<(SegmentHeader, Arc<dyn File>), OpenError> {
    let path = files.path(&segment_name(number));
    let file = match files.open(&segment_name(number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damage(format!("{} is missing", path.display())));
        }
        opened => opened.map_err(OpenError::io("open", &path))?,
    };
    let header = read_header(&*file, store, number).map_err(OpenError::io("read", &path))?;
    let start = LogPosition {
        segment: number,
        offset: 0,
    };
    header
        .map(|header| (header, file))
        .ok_or_else(|| damaged(files, start).into())
}

/// Damage, if a mark lies anywhere in `from..limit`.
fn refuse_marks(
    files: &dyn Files,
    store: StoreId,
    file: &dyn File,
    from: LogPosition,
    limit: u32,
) -> Result<(), OpenError> {
    let path = files.path(&segment_name(from.segment));
    let found = find_mark(file, store, from, limit).map_err(OpenError::io("read", path))?;
    if found.is_some() {
        Err(damaged(files, from).into())
    } else {
        Ok(())
    }
}

fn damage(what: String) -> OpenError {
    OpenError::Damaged { what }
}
