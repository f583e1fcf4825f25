//! What lies on the disk and may be damaged: it is read or refused, and what is read lies in it.

#![allow(dead_code, reason = "each target checks one of them")]

use menes_storage::readers;

/// A copy of the file of keys: as it is, and behind a checksum that is right.
pub(crate) fn keys(data: &[u8]) {
    for copy in [data.to_vec(), readers::copy_of_keys(data)] {
        if let Some(sealed) = readers::keys(&copy) {
            assert!(sealed <= copy.len());
        }
    }
}

/// A compressed payload, and what comes of compressing it.
pub(crate) fn packed(data: &[u8]) {
    for payload in [readers::packed(data), Some(data.to_vec())]
        .into_iter()
        .flatten()
    {
        if let Some(packed) = readers::pack(&payload) {
            assert!(packed.len() < payload.len());
            assert_eq!(readers::packed(&packed), Some(payload));
        }
    }
}
