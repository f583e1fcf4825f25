//! The data keys of a store, in one file that the key of the configuration opens.
//!
//! ```text
//! copy: magic [8] | version u32 | crc32c u32 | salt [32] | rounds u32 | length u32 | sealed keys
//! keys: id u32 | suite u8 | secret [32], each          two copies, 4096 bytes apart
//! ```
//!
//! The file is replaced as a whole: written under another name, synced, renamed. The configured key
//! may be a phrase, so it is stretched with the salt; the salt is drawn for each writing, so what
//! it comes to seals exactly one thing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;

use super::{CipherSuite, DataKey, random};
use crate::error::OpenError;
use crate::log::format::{Fields, put};

/// Name of the file.
pub(crate) const NAME: &str = "keys";
const NEW_NAME: &str = "keys.new";
const MAGIC: [u8; 8] = *b"MENESKEY";
const VERSION: u32 = 1;
const COPY_BYTES: usize = 4096;
const HEADER_BYTES: usize = 56;
const KEY_BYTES: usize = 37;
const ROUNDS: u32 = if cfg!(test) { 100 } else { 600_000 };
/// More would take longer than anybody waits for.
const MAX_ROUNDS: u32 = 100_000_000;

/// The ring as it is stored.
pub(super) struct Stored {
    salt: [u8; 32],
    rounds: NonZeroU32,
    sealed: Vec<u8>,
}

/// The ring of the store in `directory`, if it has one.
pub(super) fn read(directory: &Path) -> Result<Option<Stored>, OpenError> {
    let path = directory.join(NAME);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(OpenError::io("read", &path))?,
    };
    let mut newer = None;
    for copy in bytes.chunks(COPY_BYTES) {
        match decode(copy) {
            Ok(stored) => return Ok(Some(stored)),
            Err(version) => newer = newer.or(version),
        }
    }
    Err(match newer {
        Some(found) => OpenError::NewerVersion {
            path,
            found,
            supported: VERSION,
        },
        None => OpenError::Damaged {
            what: format!("both copies of the keys in {} are damaged", path.display()),
        },
    })
}

/// Replaces the ring, durably.
pub(super) fn write(
    directory: &Path,
    key: &str,
    keys: &BTreeMap<u32, DataKey>,
) -> Result<(), OpenError> {
    let copy = encode(key, keys)?;
    let path = directory.join(NEW_NAME);
    let written = || {
        let mut file = fs::File::create(&path)?;
        restrict(&file)?;
        file.write_all(&copy)?;
        file.write_all(&copy)?;
        file.sync_all()?;
        fs::rename(&path, directory.join(NAME))?;
        fs::File::open(directory)?.sync_all()
    };
    written().map_err(OpenError::io("write", &path))
}

/// Removes the ring.
pub(super) fn remove(directory: &Path) -> Result<(), OpenError> {
    let path = directory.join(NAME);
    let removed = || {
        fs::remove_file(&path)?;
        fs::File::open(directory)?.sync_all()
    };
    removed().map_err(OpenError::io("remove", &path))
}

fn restrict(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

impl Stored {
    /// The data keys, if `key` opens them.
    pub(super) fn open(&self, key: &str) -> Option<BTreeMap<u32, DataKey>> {
        let mut bytes = self.sealed.clone();
        let opened = wrapping_key(key, &self.salt, self.rounds)?
            .open_in_place(
                zero(),
                Aad::from(place(&self.salt, self.rounds)),
                &mut bytes,
            )
            .ok()?;
        let mut keys = BTreeMap::new();
        for one in opened.chunks(KEY_BYTES) {
            let mut fields = Fields(one);
            let id = fields.u32()?;
            let suite = match fields.u8()? {
                1 => CipherSuite::ChaCha,
                2 => CipherSuite::Aes,
                _ => return None,
            };
            let secret = fields.array()?;
            keys.insert(id, DataKey { suite, secret });
        }
        Some(keys)
    }
}

fn encode(key: &str, keys: &BTreeMap<u32, DataKey>) -> Result<Vec<u8>, OpenError> {
    let salt: [u8; 32] = random()?;
    let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
    let mut sealed = Vec::new();
    for (id, key) in keys {
        sealed.extend_from_slice(&id.to_le_bytes());
        sealed.push(match key.suite {
            CipherSuite::ChaCha => 1,
            CipherSuite::Aes => 2,
        });
        sealed.extend_from_slice(&key.secret);
    }
    let refused = || OpenError::Options("the key cannot be used".to_owned());
    wrapping_key(key, &salt, rounds)
        .ok_or_else(refused)?
        .seal_in_place_append_tag(zero(), Aad::from(place(&salt, rounds)), &mut sealed)
        .map_err(|_| refused())?;
    if HEADER_BYTES + sealed.len() > COPY_BYTES {
        return Err(OpenError::Options(
            "the key was changed too often: back the streams up and restore them into a new store"
                .to_owned(),
        ));
    }
    let len = u32::try_from(sealed.len()).map_err(|_| refused())?;
    let mut body = vec![0; COPY_BYTES - 16];
    put(
        &mut body,
        &[&place(&salt, rounds), &len.to_le_bytes(), &sealed],
    );
    Ok(copy_with(&body))
}

/// A copy with this body and what is checked before it is looked at.
pub(crate) fn copy_with(body: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(COPY_BYTES);
    copy.extend_from_slice(&MAGIC);
    copy.extend_from_slice(&VERSION.to_le_bytes());
    copy.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    copy.extend_from_slice(body);
    copy
}

/// How much is sealed in a copy, if it is sound.
pub(crate) fn sealed_bytes(copy: &[u8]) -> Option<usize> {
    let stored = decode(copy).ok()?;
    Some(stored.sealed.len())
}

/// A sound copy; the version of a sound one that is newer than ours, `None` for damage.
fn decode(copy: &[u8]) -> Result<Stored, Option<u32>> {
    let mut fields = Fields(copy);
    let magic: [u8; 8] = fields.array().ok_or(None)?;
    let (version, crc) = (fields.u32().ok_or(None)?, fields.u32().ok_or(None)?);
    if magic != MAGIC || crc != crc32c::crc32c(fields.0) {
        return Err(None);
    }
    if version != VERSION {
        return Err(Some(version));
    }
    let salt = fields.array().ok_or(None)?;
    let rounds = fields.u32().filter(|rounds| *rounds <= MAX_ROUNDS);
    let rounds = rounds.and_then(NonZeroU32::new).ok_or(None)?;
    let len = fields.u32().ok_or(None)? as usize;
    let sealed = fields.0.get(..len).ok_or(None)?.to_vec();
    Ok(Stored {
        salt,
        rounds,
        sealed,
    })
}

fn place(salt: &[u8; 32], rounds: NonZeroU32) -> [u8; 36] {
    let mut bytes = [0; 36];
    put(&mut bytes, &[salt, &rounds.get().to_le_bytes()]);
    bytes
}

fn wrapping_key(key: &str, salt: &[u8; 32], rounds: NonZeroU32) -> Option<LessSafeKey> {
    let mut secret = [0; 32];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, rounds, salt, key.as_bytes(), &mut secret);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &secret).ok()?;
    Some(LessSafeKey::new(key))
}

/// The key is used once.
fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
