//! The readers of what may be damaged on the disk, one by one, for the fuzzer.

use crate::log;
use crate::vault;

/// Reads one copy of the file of keys; gives the length of what is sealed in it. `None` for one that
/// is damaged or of another version.
#[must_use]
pub fn keys(copy: &[u8]) -> Option<usize> {
    vault::sealed_bytes(copy)
}

/// A copy of the file of keys that is sound as far as its checksum can tell, with these fields.
#[must_use]
pub fn copy_of_keys(fields: &[u8]) -> Vec<u8> {
    vault::copy_with(fields)
}

/// Unpacks the payload of an entry that was compressed; `None` for anything else.
#[must_use]
pub fn packed(payload: &[u8]) -> Option<Vec<u8>> {
    log::unpacked(payload)
}

/// Packs a payload; `None` where that is not worth it.
#[must_use]
pub fn pack(payload: &[u8]) -> Option<Vec<u8>> {
    log::packed(payload)
}
