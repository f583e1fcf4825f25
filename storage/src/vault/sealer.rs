//! Entries of the log, encrypted and bound to their place.
//!
//! ```text
//! sealed payload: key id u32 | random [12] | count u64 | encrypted payload | tag [16]
//!                 └── epoch ────────────┘   └ nonce
//! ```
//!
//! An epoch is one opening of the log. Its random part is drawn anew each time, so what is written
//! over a torn tail after a crash, at the same place, is under another key. What is authenticated
//! besides the payload is the header of the entry and where it lies.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use bytes::{Bytes, BytesMut};

use super::{Vault, entry_key, random};
use crate::error::OpenError;

/// What a sealed payload is longer by.
pub(crate) const SEAL_BYTES: usize = EPOCH_BYTES + 8 + TAG_BYTES;
const EPOCH_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// Which data key and which opening of the log entries were sealed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch([u8; EPOCH_BYTES]);

impl Epoch {
    pub(super) fn key_id(&self) -> u32 {
        self.0.first_chunk().map_or(0, |id| u32::from_le_bytes(*id))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Seals what is appended between one opening of the log and the next.
pub(crate) struct Sealer {
    epoch: Epoch,
    key: LessSafeKey,
    count: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// `payload`, encrypted, and authenticated together with `place`.
    pub(crate) fn seal(&mut self, place: &[u8], payload: &[u8]) -> Bytes {
        let mut sealed = BytesMut::with_capacity(payload.len() + SEAL_BYTES);
        sealed.extend_from_slice(&self.epoch.0);
        sealed.extend_from_slice(&self.count.to_le_bytes());
        let head = sealed.len();
        sealed.extend_from_slice(payload);
        let nonce = nonce(self.count);
        self.count += 1;
        let (_, body) = sealed.split_at_mut(head);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(place), body)
            .expect("an entry is far shorter than what these ciphers take");
        sealed.extend_from_slice(tag.as_ref());
        sealed.freeze()
    }
}

impl Vault {
    /// A sealer for one opening of the log; `None` when nothing is to be encrypted.
    pub(crate) fn sealer(&self) -> Result<Option<Sealer>, OpenError> {
        let Some((id, key)) = self.current() else {
            return Ok(None);
        };
        let mut epoch = [0; EPOCH_BYTES];
        let (head, tail) = epoch.split_at_mut(4);
        head.copy_from_slice(&id.to_le_bytes());
        tail.copy_from_slice(&random::<12>()?);
        let epoch = Epoch(epoch);
        let key = entry_key(key, epoch)
            .ok_or_else(|| OpenError::Options("no key could be derived".to_owned()))?;
        Ok(Some(Sealer {
            epoch,
            key,
            count: 0,
        }))
    }

    /// What was sealed at `place`; `None` when it was changed, moved, or sealed with a key that is
    /// not there.
    pub(crate) fn unseal(&self, place: &[u8], sealed: &[u8]) -> Option<Bytes> {
        let (epoch, rest) = sealed.split_first_chunk()?;
        let (count, body) = rest.split_first_chunk()?;
        let key = self.0.as_ref()?.entry_key(Epoch(*epoch))?;
        let mut body = BytesMut::from(body);
        let nonce = nonce(u64::from_le_bytes(*count));
        let len = key
            .open_in_place(nonce, Aad::from(place), &mut body)
            .ok()?
            .len();
        body.truncate(len);
        Some(body.freeze())
    }
}

fn nonce(count: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes
        .split_at_mut(4)
        .1
        .copy_from_slice(&count.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
