//! Keeps segment files ready and takes them back.
//!
//! Making, renaming and removing files of many megabytes takes milliseconds, so a thread of its own
//! does it: it prepares the next segment while the current one fills, and turns recycled segments
//! into spares. A recycled file has its blocks allocated and written once, which makes syncs on it
//! cheaper. Names are synced before a file is handed out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use menes_jetstream::ports::StoreError;
use parking_lot::{Condvar, Mutex};

use super::shared::Shared;
use crate::disk_space::{Ballast, Pressure, Room};
use crate::error::{corrupt, io_error};
use crate::files::{self, File, Files};

/// Name of a segment's file.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:020}.segment")
}

/// The number of the segment whose file has this name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    if digits.len() != 20 {
        None
    } else {
        digits.parse().ok()
    }
}

/// Name of a segment's file that was set aside.
fn damaged_name(number: u64) -> String {
    format!("damaged-{number:020}")
}

fn spare_name(number: u64) -> String {
    format!("spare-{number:020}")
}

pub(super) fn is_spare(name: &str) -> bool {
    name.starts_with("spare-")
}

#[derive(Debug)]
enum Job {
    Prepare {
        segment: u64,
        /// There is time to write a new file once before it is used.
        prewrite: bool,
        /// It is wanted now, below the watermark or not.
        must: bool,
    },
    /// Keeps files for later, or gives their space back.
    Recycle { segments: Vec<u64>, keep: bool },
    /// Removes files that could be kept.
    Remove { segments: Vec<u64> },
    /// Puts files away that hold damage, for somebody to look at.
    SetAside { segments: Vec<u64> },
}

/// A way to ask the keeper for something.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    jobs: mpsc::Sender<Job>,
    ready: Arc<Ready>,
}

/// The number of a segment, and its file or why there is none.
type Prepared = (u64, Result<Arc<dyn File>, StoreError>);

/// The prepared segment, or the end of the keeper.
#[derive(Debug, Default)]
struct Ready {
    state: Mutex<ReadyState>,
    changed: Condvar,
    /// The last segment that has a file.
    last: AtomicU64,
    /// Unused files that can become segments.
    spares: AtomicU64,
    /// The segment that is waited for: no time is left to write it before its use.
    awaited: AtomicU64,
}

#[derive(Debug, Default)]
struct ReadyState {
    prepared: Option<Prepared>,
    /// A segment that was not prepared ahead of time, because space is tight.
    postponed: Option<u64>,
    ended: bool,
}

/// What the keeper starts with.
#[derive(Debug)]
pub(super) struct Stock {
    pub(super) files: Arc<dyn Files>,
    /// Length of a new segment in bytes.
    pub(super) segment_bytes: u64,
    /// Names of unused files of that length.
    pub(super) spares: Vec<String>,
    /// How many of them to keep.
    pub(super) max_spares: usize,
    /// A segment that is already prepared.
    pub(super) prepared: Option<(u64, Arc<dyn File>)>,
    /// The last segment that has a file.
    pub(super) last: u64,
    /// Asked before a segment is prepared ahead of time.
    pub(super) room: Room,
    /// Given up when there is no space for a segment.
    pub(super) ballast: Option<Arc<Ballast>>,
}

impl Keeper {
    /// Starts the thread. It ends when the last clone of the returned handle is gone.
    pub(super) fn start(
        mut stock: Stock,
        shared: Arc<Shared>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let ready = Arc::new(Ready::default());
        ready.state.lock().prepared = stock
            .prepared
            .take()
            .map(|(number, file)| (number, Ok(file)));
        ready.last.store(stock.last, Ordering::Relaxed);
        stock.count_spares(&ready);
        let (jobs, inbox) = mpsc::channel();
        let outcome = Arc::clone(&ready);
        let thread = std::thread::Builder::new()
            .name("menes-log-files".into())
            .spawn(move || {
                let _end = End(&outcome);
                for job in inbox {
                    // After the first failure nothing is written any more, here as elsewhere.
                    if shared.failure().is_some() {
                        break;
                    }
                    if let Err(error) = stock.run(job, &outcome, &shared) {
                        shared.fail(error);
                        break;
                    }
                }
            })?;
        Ok((Self { jobs, ready }, thread))
    }

    /// Asks for a segment to be made ready ahead of time if there is space, `prewrite` saying that
    /// there is time to write a new file once before it is used. What goes wrong is reported by
    /// `take`.
    pub(super) fn prepare(&self, segment: u64, prewrite: bool) {
        // A keeper that has ended has poisoned the log, and `take` tells.
        drop(self.jobs.send(Job::Prepare {
            segment,
            prewrite,
            must: false,
        }));
    }

    /// How many files have to be made for the log to go on to `segment`.
    pub(super) fn missing(&self, segment: u64) -> u64 {
        let last = self.ready.last.load(Ordering::Relaxed);
        let spares = self.ready.spares.load(Ordering::Relaxed);
        segment.saturating_sub(last).saturating_sub(spares)
    }

    /// Gives segments back.
    pub(super) fn recycle(&self, segments: Vec<u64>, keep: bool) {
        // As in `prepare`.
        drop(self.jobs.send(Job::Recycle { segments, keep }));
    }

    /// Gives segments back whose files must not be kept.
    pub(super) fn remove(&self, segments: Vec<u64>) {
        // As in `prepare`.
        drop(self.jobs.send(Job::Remove { segments }));
    }

    /// Puts segments away that are damaged and no longer needed.
    pub(super) fn set_aside(&self, segments: Vec<u64>) {
        // As in `prepare`.
        drop(self.jobs.send(Job::SetAside { segments }));
    }

    /// The file of a segment that was asked for, waiting for it.
    pub(super) fn take(&self, segment: u64) -> Result<Arc<dyn File>, StoreError> {
        let mut state = self.ready.state.lock();
        self.ready.awaited.store(segment, Ordering::Relaxed);
        loop {
            if state.postponed.take() == Some(segment) {
                // As in `prepare`.
                drop(self.jobs.send(Job::Prepare {
                    segment,
                    prewrite: false,
                    must: true,
                }));
            }
            match state.prepared.take() {
                Some((number, file)) if number == segment => return file,
                _ if state.ended => {
                    return Err(corrupt(format!(
                        "no file could be prepared for segment {segment}"
                    )));
                }
                other => state.prepared = other,
            }
            self.ready.changed.wait(&mut state);
        }
    }
}

/// Tells who waits for a file that none will come any more.
struct End<'a>(&'a Ready);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Stock {
    fn run(&mut self, job: Job, ready: &Ready, shared: &Shared) -> Result<(), StoreError> {
        match job {
            Job::Prepare {
                segment,
                prewrite,
                must,
            } => {
                if !must && self.is_tight() {
                    ready.state.lock().postponed = Some(segment);
                } else {
                    let name = segment_name(segment);
                    let goes_on = || {
                        prewrite
                            && ready.awaited.load(Ordering::Relaxed) != segment
                            && shared.failure().is_none()
                    };
                    let file = self.prepare(&name, &goes_on).map_err(|error| {
                        io_error("create segment", self.files.path(&name), &error)
                    });
                    ready.last.store(segment, Ordering::Relaxed);
                    self.count_spares(ready);
                    ready.state.lock().prepared = Some((segment, file));
                }
                ready.changed.notify_all();
                Ok(())
            }
            Job::SetAside { segments } => {
                for segment in segments {
                    let (name, aside) = (segment_name(segment), damaged_name(segment));
                    let path = self.files.path(&name);
                    match self.files.rename(&name, &aside) {
                        Ok(()) => tracing::warn!(
                            "{} is damaged and no longer needed; it is kept as {aside}",
                            path.display()
                        ),
                        // What is damaged may be that it is missing.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(io_error("set aside", path, &error)),
                    }
                }
                let synced = self.files.sync_names();
                synced.map_err(|error| io_error("sync directory", self.files.path(""), &error))
            }
            Job::Remove { segments } => {
                for segment in segments {
                    let name = segment_name(segment);
                    let removed = self.files.remove(&name);
                    removed.map_err(|error| io_error("remove", self.files.path(&name), &error))?;
                }
                let synced = self.files.sync_names();
                synced.map_err(|error| io_error("sync directory", self.files.path(""), &error))
            }
            Job::Recycle { segments, keep } => {
                if !keep {
                    for spare in std::mem::take(&mut self.spares) {
                        self.files
                            .remove(&spare)
                            .map_err(|error| io_error("remove", self.files.path(&spare), &error))?;
                    }
                }
                for segment in segments {
                    let name = segment_name(segment);
                    let recycled = if keep {
                        self.recycle(segment, &name)
                    } else {
                        self.files.remove(&name)
                    };
                    recycled.map_err(|error| {
                        io_error("recycle segment", self.files.path(&name), &error)
                    })?;
                }
                self.count_spares(ready);
                let synced = self.files.sync_names();
                synced.map_err(|error| io_error("sync directory", self.files.path(""), &error))
            }
        }
    }

    /// Whether another segment would take space that is better left.
    fn is_tight(&self) -> bool {
        self.spares.is_empty() && self.room.pressure_with(self.segment_bytes) == Pressure::Critical
    }

    fn count_spares(&self, ready: &Ready) {
        ready
            .spares
            .store(self.spares.len() as u64, Ordering::Relaxed);
    }

    /// Makes a file; a new one is written once for as long as `goes_on` says so.
    fn prepare(&mut self, name: &str, goes_on: &dyn Fn() -> bool) -> io::Result<Arc<dyn File>> {
        let file = if let Some(spare) = self.spares.pop() {
            self.files.rename(&spare, name)?;
            self.files.open(name)?
        } else {
            match self.files.create(name, self.segment_bytes) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    match &self.ballast {
                        Some(ballast) => ballast.release()?,
                        None => return Err(error),
                    }
                    self.files.create(name, self.segment_bytes)?
                }
                created => {
                    let file = created?;
                    files::prewrite(&*file, self.segment_bytes, goes_on)?;
                    file
                }
            }
        };
        self.files.sync_names()?;
        Ok(file)
    }

    fn recycle(&mut self, segment: u64, name: &str) -> io::Result<()> {
        let fits = self.files.open(name)?.len()? == self.segment_bytes;
        if fits && self.spares.len() < self.max_spares {
            let spare = spare_name(segment);
            self.files.rename(name, &spare)?;
            self.spares.push(spare);
            Ok(())
        } else {
            self.files.remove(name)
        }
    }
}
