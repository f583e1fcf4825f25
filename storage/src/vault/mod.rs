//! Encryption at rest: what is stored can be read only by who has the key.
//!
//! The key in the configuration never encrypts data itself. It opens a **ring** of data keys that
//! lies beside the data ([`ring`]); those encrypt entries of the log ([`sealer`]) and files of the
//! state ([`file`]). So another key in the configuration costs one small file and not the whole
//! store, and every change of it draws a new data key for what is written from then on.
//!
//! # Invariants
//!
//! 1. No pair of key and nonce is used twice. Entries of the log are sealed under a key that is
//!    derived with random bits drawn when the log is opened, and counted; after a crash the bits
//!    are others. Each file of the state has a key of its own.
//! 2. A wrong key is noticed before anything is changed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf;
use aws_lc_rs::rand;
use parking_lot::Mutex;

pub(crate) use self::file::{FileCipher, PREFIX_BYTES, is_encrypted};
pub(crate) use self::ring::{NAME as KEYS, copy_with, sealed_bytes};
pub(crate) use self::sealer::{SEAL_BYTES, Sealer};
use crate::error::OpenError;

mod file;
mod ring;
mod sealer;

/// Derived keys that are kept ready.
const READY_KEYS: usize = 256;

/// How entries of the log are encrypted. Files of the state always use AES-256 in counter mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherSuite {
    /// ChaCha20-Poly1305.
    #[default]
    ChaCha,
    /// AES-256-GCM.
    Aes,
}

/// The keys of the configuration. Without any nothing is encrypted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Encryption {
    /// What is written is encrypted with it.
    pub key: Option<String>,
    /// The key of the time before: what was written then is still read. With a new key beside it
    /// the store is opened by the new one alone from then on; alone, encryption ends.
    pub previous: Option<String>,
    /// For what is written from now on.
    pub cipher: CipherSuite,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption")
            .field("key", &self.key.as_ref().map(|_| "..."))
            .field("previous", &self.previous.as_ref().map(|_| "..."))
            .field("cipher", &self.cipher)
            .finish()
    }
}

/// The data keys of one store, opened; by default there are none and nothing is encrypted.
#[derive(Clone, Debug, Default)]
pub struct Vault(Option<Arc<Ring>>);

impl PartialEq for Vault {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl Eq for Vault {}

struct Ring {
    keys: BTreeMap<u32, DataKey>,
    /// What is written is encrypted with this one.
    current: Option<u32>,
    /// Keys of entries read lately, by what they were derived with.
    ready: Mutex<BTreeMap<sealer::Epoch, Arc<LessSafeKey>>>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("keys", &self.keys.len())
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct DataKey {
    suite: CipherSuite,
    secret: [u8; 32],
}

impl DataKey {
    fn draw(suite: CipherSuite) -> Result<Self, OpenError> {
        Ok(Self {
            suite,
            secret: random()?,
        })
    }

    /// 32 bytes that depend on this key, `salt` and what they are for.
    fn derive(&self, salt: &[u8], purpose: &[u8]) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(&self.secret)
            .expand(&[purpose], hkdf::HKDF_SHA256)
            .and_then(|derived| derived.fill(&mut bytes))
            .ok()?;
        Some(bytes)
    }
}

impl Vault {
    /// Opens the keys of the store in `directory` with those of the configuration, making or
    /// replacing what has to be.
    ///
    /// # Errors
    /// `Locked` when no key opens them: nothing was changed.
    pub(crate) fn open(directory: &Path, asked: &Encryption) -> Result<Self, OpenError> {
        let locked = |what: &str| OpenError::Locked {
            directory: directory.to_path_buf(),
            what: what.to_owned(),
        };
        let (mut keys, is_new, opened_by_key) = match ring::read(directory)? {
            None if asked.key.is_none() => return Ok(Self::default()),
            None => (BTreeMap::new(), true, true),
            Some(stored) => {
                let opened = |key: &Option<String>| key.as_ref().and_then(|key| stored.open(key));
                match (opened(&asked.key), opened(&asked.previous)) {
                    (Some(keys), _) => (keys, false, true),
                    (None, Some(keys)) => (keys, false, false),
                    (None, None) => {
                        return Err(locked(match (&asked.key, &asked.previous) {
                            (None, None) => "no key is configured: set jetstream.key",
                            (Some(_), None) => {
                                "the configured key does not open it: if it was changed, set \
                                 jetstream.prev_key to the one before"
                            }
                            (None, Some(_)) => "the configured previous key does not open it",
                            (Some(_), Some(_)) => "neither of the configured keys opens it",
                        }));
                    }
                }
            }
        };
        let mut current = keys.last_key_value().map(|(id, key)| (*id, key.suite));
        if let Some(key) = &asked.key {
            let fits = opened_by_key && current.is_some_and(|(_, suite)| suite == asked.cipher);
            if is_new || !fits {
                let id = current.map_or(1, |(id, _)| id + 1);
                keys.insert(id, DataKey::draw(asked.cipher)?);
                current = Some((id, asked.cipher));
                ring::write(directory, key, &keys)?;
            }
        } else {
            current = None;
        }
        Ok(Self(Some(Arc::new(Ring {
            keys,
            current: current.map(|(id, _)| id),
            ready: Mutex::default(),
        }))))
    }

    /// Forgets the keys of a store in which nothing is encrypted any more.
    pub(crate) fn retire(directory: &Path) -> Result<(), OpenError> {
        ring::remove(directory)
    }

    /// Whether what is written is encrypted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.current().is_some()
    }

    /// Whether anything stored may be encrypted.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.0.is_some()
    }

    fn current(&self) -> Option<(u32, &DataKey)> {
        let ring = self.0.as_ref()?;
        let id = ring.current?;
        Some((id, ring.keys.get(&id)?))
    }

    fn key(&self, id: u32) -> Option<&DataKey> {
        self.0.as_ref()?.keys.get(&id)
    }
}

impl Ring {
    /// The key of entries of an epoch.
    fn entry_key(&self, epoch: sealer::Epoch) -> Option<Arc<LessSafeKey>> {
        if let Some(key) = self.ready.lock().get(&epoch) {
            return Some(Arc::clone(key));
        }
        let key = Arc::new(entry_key(self.keys.get(&epoch.key_id())?, epoch)?);
        let mut ready = self.ready.lock();
        if ready.len() >= READY_KEYS {
            ready.clear();
        }
        ready.insert(epoch, Arc::clone(&key));
        Some(key)
    }
}

fn entry_key(key: &DataKey, epoch: sealer::Epoch) -> Option<LessSafeKey> {
    let secret = key.derive(epoch.as_bytes(), b"menes log entry")?;
    let algorithm = match key.suite {
        CipherSuite::ChaCha => &CHACHA20_POLY1305,
        CipherSuite::Aes => &AES_256_GCM,
    };
    UnboundKey::new(algorithm, &secret)
        .ok()
        .map(LessSafeKey::new)
}

fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| OpenError::Options("no random numbers".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::tests::{ended, testing, testing_other};
