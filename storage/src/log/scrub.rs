//! Looks through what is stored, slowly and all the time, for damage that nobody has met yet.
//!
//! A thread of its own walks every segment that is full, from its header to its seal, and checks
//! every entry against its checksum and, where it is encrypted, its authentication, at a bounded rate. What is damaged is reported once and
//! remembered: the log tells of it, and does not give such a segment back for reuse but sets it
//! aside, under another name, for somebody to look at.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use menes_jetstream::ports::LogPosition;
use parking_lot::{Condvar, Mutex};

use super::format::{Kind, SEGMENT_HEADER_BYTES, StoreId};
use super::keeper::segment_name;
use super::segment::{Walker, read_header};
use super::shared::Shared;
use crate::files::Files;
use crate::vault::Vault;

/// How fast and how often what is stored is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// Bytes a second, at most. Default 8 MiB.
    pub bytes_per_second: u64,
    /// From the end of one pass to the next. Default 7 days.
    pub pause: Duration,
    /// Before the first pass. Default 10 s.
    pub delay: Duration,
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            bytes_per_second: 8 << 20,
            pause: Duration::from_secs(7 * 24 * 3600),
            delay: Duration::from_secs(10),
        }
    }
}

/// Entries between two looks at the clock.
const SLICE_BYTES: u32 = 256 << 10;

/// The thread, until it is dropped.
#[derive(Debug)]
pub(super) struct Scrubber {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    pub(super) fn start(
        scrub: Scrub,
        files: Arc<dyn Files>,
        store: StoreId,
        vault: Vault,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let ended = Arc::clone(&stop);
        let pass = Pass {
            scrub,
            files,
            store,
            vault,
            shared,
            stop: ended,
        };
        let thread = std::thread::Builder::new()
            .name("menes-log-scrub".into())
            .spawn(move || pass.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that checks the log panicked");
        }
    }
}

struct Pass {
    scrub: Scrub,
    files: Arc<dyn Files>,
    store: StoreId,
    vault: Vault,
    shared: Arc<Shared>,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

/// What a look at a segment found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Sound,
    Damage(u32),
    /// It could not be looked at; the next pass will.
    Unknown,
    Stopped,
}

impl Pass {
    fn run(self) {
        if self.rest(self.scrub.delay) {
            return;
        }
        loop {
            let mut checked = BTreeSet::new();
            // Segments come and go meanwhile.
            while let Some(segment) = self.shared.next_full_segment(&checked) {
                checked.insert(segment);
                match self.check(segment) {
                    Found::Sound | Found::Unknown => {}
                    Found::Stopped => return,
                    Found::Damage(offset) => {
                        // What was given back meanwhile is no damage.
                        let position = LogPosition { segment, offset };
                        if self.shared.is_full(segment) && self.shared.note_damage(position) {
                            let path = self.files.path(&segment_name(segment));
                            tracing::error!("{} is damaged at offset {offset}", path.display());
                        }
                    }
                }
            }
            tracing::debug!(segments = checked.len(), "the log was checked");
            if self.rest(self.scrub.pause) {
                return;
            }
        }
    }

    fn check(&self, segment: u64) -> Found {
        let name = segment_name(segment);
        let file = match self.files.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Damage(0),
            // Too many open files, say: that tells nothing about what is stored.
            Err(error) => {
                tracing::warn!(
                    "{} is not checked: {error}",
                    self.files.path(&name).display()
                );
                return Found::Unknown;
            }
        };
        let Ok(Some(header)) = read_header(&*file, self.store, segment) else {
            return Found::Damage(0);
        };
        let start = LogPosition {
            segment,
            offset: SEGMENT_HEADER_BYTES,
        };
        let mut walker = Walker::new(file, self.store, start, header.len);
        let mut rested_at = start.offset;
        loop {
            let position = walker.position;
            let offset = position.offset;
            let next = walker.next().map(|entry| {
                // What is encrypted has a stronger seal than its checksum.
                entry.and_then(|entry| entry.reveal(self.store, position, &self.vault))
            });
            match next {
                Ok(Some(entry)) if entry.kind == Kind::Seal => return Found::Sound,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Found::Damage(offset),
            }
            let read = walker.position.offset - rested_at;
            if read >= SLICE_BYTES {
                rested_at = walker.position.offset;
                let nanos = u64::from(read).saturating_mul(1_000_000_000);
                let pause = nanos / self.scrub.bytes_per_second.max(1);
                if self.rest(Duration::from_nanos(pause)) {
                    return Found::Stopped;
                }
            }
        }
    }

    /// Waits; true when it is over.
    fn rest(&self, pause: Duration) -> bool {
        let mut stopped = self.stop.0.lock();
        if !*stopped {
            self.stop.1.wait_for(&mut stopped, pause);
        }
        *stopped
    }
}
