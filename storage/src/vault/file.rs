//! Files of the state, encrypted as a whole.
//!
//! RocksDB writes its files once from front to back, reads them anywhere, and checks what it reads.
//! So each file gets a random salt and with it a key of its own, and its bytes pass AES-256 in
//! counter mode: as long as before, and readable from any offset. The prefix that holds the salt
//! says also which data key it is:
//!
//! ```text
//! prefix: magic [8] | version u32 | key id u32 | salt [32] | 0 ...      4096 bytes
//! ```

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::{Vault, random};
use crate::error::OpenError;
use crate::log::format::{Fields, put};

/// What stands before the contents of each file.
pub(crate) const PREFIX_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"MENESENC";
const VERSION: u32 = 1;
const BLOCK_BYTES: u64 = 16;

/// Whether a file that begins like this is encrypted.
pub(crate) fn is_encrypted(beginning: &[u8]) -> bool {
    beginning.starts_with(&MAGIC)
}

/// Encrypts and decrypts one file.
#[derive(Debug)]
pub(crate) struct FileCipher {
    key: DecryptingKey,
}

impl Vault {
    /// Begins a new file: fills its prefix. `None` when nothing is to be encrypted.
    pub(crate) fn new_prefix(&self) -> Result<Option<Vec<u8>>, OpenError> {
        let Some((id, _)) = self.current() else {
            return Ok(None);
        };
        let mut prefix = vec![0; PREFIX_BYTES];
        put(
            &mut prefix,
            &[
                &MAGIC,
                &VERSION.to_le_bytes(),
                &id.to_le_bytes(),
                &random::<32>()?,
            ],
        );
        Ok(Some(prefix))
    }

    /// The cipher of the file with this prefix; `None` when there is no key for it.
    pub(crate) fn file_cipher(&self, prefix: &[u8]) -> Option<FileCipher> {
        let mut fields = Fields(prefix);
        let magic: [u8; 8] = fields.array()?;
        let (version, id) = (fields.u32()?, fields.u32()?);
        let salt: [u8; 32] = fields.array()?;
        if magic != MAGIC || version != VERSION {
            return None;
        }
        let secret = self.key(id)?.derive(&salt, b"menes state file")?;
        let key = UnboundCipherKey::new(&AES_256, &secret).ok()?;
        Some(FileCipher {
            key: DecryptingKey::ctr(key).ok()?,
        })
    }
}

impl FileCipher {
    /// Encrypts or decrypts `data`, which lies at `offset` of the file, the prefix counted. False
    /// when it cannot.
    #[must_use]
    pub(crate) fn apply(&self, offset: u64, data: &mut [u8]) -> bool {
        let skip = (offset % BLOCK_BYTES) as usize;
        let mut block = offset / BLOCK_BYTES;
        let mut rest = data;
        if skip > 0 {
            // In the middle of a block: its beginning passes too and is thrown away.
            let mut whole = [0; BLOCK_BYTES as usize];
            let len = rest.len().min(whole.len() - skip);
            let (head, tail) = rest.split_at_mut(len);
            let (_, place) = whole.split_at_mut(skip);
            place.split_at_mut(len).0.copy_from_slice(head);
            if !self.pass(block, &mut whole) {
                return false;
            }
            head.copy_from_slice(whole.split_at(skip).1.split_at(len).0);
            rest = tail;
            block += 1;
        }
        rest.is_empty() || self.pass(block, rest)
    }

    fn pass(&self, block: u64, data: &mut [u8]) -> bool {
        let counter = u128::from(block).to_be_bytes();
        let context = DecryptionContext::Iv128(FixedLength::from(counter));
        self.key.decrypt(data, context).is_ok()
    }
}
