//! Looks through what is stored, slowly and all the time, for damage that nobody has met yet.
//!
//! A thread of its own walks every segment that is full, from its header to its seal, at a bounded
//! rate, and checks every entry against its checksum and, where it is encrypted, its authentication.
//! What is damaged is reported once and remembered: the log tells of it, and does not give such a
//! segment back for reuse but sets it aside, under another name, for somebody to look at.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use menes_jetstream::ports::LogPosition;

use super::format::{Kind, SEGMENT_HEADER_BYTES, StoreId};
use super::keeper::segment_name;
use super::segment::{Walker, read_header};
use super::shared::Shared;
use crate::files::Files;
use crate::scrub::{Outcome, Rest, SLICE_BYTES, Scrub, Scrubber};
use crate::vault::Vault;

/// Starts the thread, which ends when the returned value is dropped.
pub(super) fn start(
    scrub: Scrub,
    files: Arc<dyn Files>,
    store: StoreId,
    vault: Vault,
    shared: Arc<Shared>,
) -> io::Result<Scrubber> {
    let pass = Pass {
        files,
        store,
        vault,
        shared,
    };
    Scrubber::start("menes-log-scrub", scrub, move |rest| pass.run(rest))
}

struct Pass {
    files: Arc<dyn Files>,
    store: StoreId,
    vault: Vault,
    shared: Arc<Shared>,
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
    fn run(&self, rest: &Rest) -> Outcome {
        let mut checked = BTreeSet::new();
        // Segments come and go meanwhile.
        while let Some(segment) = self.shared.next_full_segment(&checked) {
            checked.insert(segment);
            match self.check(segment, rest) {
                Found::Sound | Found::Unknown => {}
                Found::Stopped => return Outcome::Stopped,
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
        Outcome::Done
    }

    fn check(&self, segment: u64, rest: &Rest) -> Found {
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
            let read = u64::from(walker.position.offset - rested_at);
            if read >= SLICE_BYTES {
                rested_at = walker.position.offset;
                if rest.after(read) {
                    return Found::Stopped;
                }
            }
        }
    }
}
