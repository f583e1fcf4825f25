//! Which segments hold what is encrypted, and which what is not.
//!
//! A segment is one or the other: when encryption was turned on or off since, the first append
//! begins a new one. That is only looked at where the store has keys.

use std::collections::BTreeSet;

use super::format::{SegmentHeader, StoreId};
use super::keeper::segment_name;
use super::segment::read_header;
use crate::error::OpenError;
use crate::files::Files;
use crate::vault::Vault;

/// The segments of a store that has keys.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    /// Everything in them is encrypted.
    pub(super) sealed: BTreeSet<u64>,
    /// Nothing in them is.
    pub(super) clear: BTreeSet<u64>,
    has_keys: bool,
}

impl Coverage {
    pub(super) fn of(
        files: &dyn Files,
        store: StoreId,
        segments: &BTreeSet<u64>,
        vault: &Vault,
    ) -> Result<Self, OpenError> {
        let mut coverage = Self {
            has_keys: vault.has_keys(),
            ..Self::default()
        };
        if !coverage.has_keys {
            return Ok(coverage);
        }
        for number in segments {
            let name = segment_name(*number);
            let header = files
                .open(&name)
                .and_then(|file| read_header(&*file, store, *number))
                .map_err(OpenError::io("read", files.path(&name)))?;
            match header {
                Some(header) => coverage.begun(&header),
                // Damaged: what is read from it will say so.
                None => drop(coverage.clear.insert(*number)),
            }
        }
        if vault.is_on() && !coverage.clear.is_empty() {
            tracing::warn!(
                segments = coverage.clear.len(),
                "some of what is stored was written without a key and stays as it is until its \
                 messages go"
            );
        }
        Ok(coverage)
    }

    pub(super) fn begun(&mut self, header: &SegmentHeader) {
        if self.has_keys {
            let kind = if header.sealed {
                &mut self.sealed
            } else {
                &mut self.clear
            };
            kind.insert(header.number);
        }
    }

    pub(super) fn forget(&mut self, segment: u64) {
        self.sealed.remove(&segment);
        self.clear.remove(&segment);
    }

    /// Whether a segment holds the other kind than what is appended now.
    pub(super) fn is_mixed(&self, segment: u64, is_sealed: bool) -> bool {
        if is_sealed {
            self.clear.contains(&segment)
        } else {
            self.sealed.contains(&segment)
        }
    }
}
