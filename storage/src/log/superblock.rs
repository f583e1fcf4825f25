//! Identity of a store and how it was left, in two alternating copies.
//!
//! The copies lie in blocks of their own and are written in turn, so a torn write leaves the other
//! one. A clean-shutdown mark counts only when both copies are sound: with one of them damaged
//! nobody can tell whether the mark is the last word.
//!
//! ```text
//! copy: magic [8] | version u32 | crc32c u32 | serial u64 | store id [16] | opened u64
//!       | clean u32 | end offset u32 | end segment u64 | 0 ...       4096 bytes, crc over the rest
//! ```

use std::io;
use std::sync::Arc;

use menes_jetstream::ports::LogPosition;

use super::format::{Fields, StoreId, VERSION, put};
use crate::files::{File, Files, write_all};

pub(super) const NAME: &str = "superblock";
/// Under this name the first superblock is written; renaming it is what makes a store.
pub(super) const NEW_NAME: &str = "superblock.new";
const MAGIC: [u8; 8] = *b"MENESLOG";
const COPY_BYTES: usize = 4096;
const COPIES: u64 = 2;

/// What the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) store: StoreId,
    /// How often the store was opened for writing.
    pub(super) opened: u64,
    /// Where the log ended when it was closed in good order; `None` while it is open.
    pub(super) clean_end: Option<LogPosition>,
}

/// The superblock of an open store.
#[derive(Debug)]
pub(super) struct Superblock {
    file: Arc<dyn File>,
    serial: u64,
    pub(super) contents: Contents,
    /// Whether both copies were sound when it was opened.
    pub(super) is_whole: bool,
}

/// Why there is no usable superblock.
#[derive(Debug)]
pub(super) enum Unreadable {
    Newer(u32),
    Damaged,
    Io(io::Error),
}

impl Superblock {
    /// Writes the superblock of a new store under a temporary name.
    pub(super) fn create(files: &dyn Files, store: StoreId) -> io::Result<()> {
        let file = files.create(NEW_NAME, COPIES * COPY_BYTES as u64)?;
        let contents = Contents {
            store,
            opened: 0,
            clean_end: None,
        };
        for serial in 0..COPIES {
            write_all(&*file, &encode(serial, &contents), offset_of(serial))?;
        }
        file.sync()
    }

    /// Reads the superblock of a store.
    pub(super) fn open(file: Arc<dyn File>) -> Result<Self, Unreadable> {
        let mut copies = Vec::new();
        let mut newer = None;
        for place in 0..COPIES {
            let mut bytes = vec![0; COPY_BYTES];
            file.read_at(&mut bytes, offset_of(place))
                .map_err(Unreadable::Io)?;
            match decode(&bytes) {
                // A copy that lies in the other's place is as good as none.
                Ok((serial, contents)) if serial % COPIES == place => {
                    copies.push((serial, contents));
                }
                Ok(_) | Err(None) => {}
                Err(Some(version)) => newer = Some(version),
            }
        }
        let is_whole = copies.len() as u64 == COPIES;
        match (copies.into_iter().max_by_key(|(serial, _)| *serial), newer) {
            (Some((serial, mut contents)), _) => {
                contents.clean_end = contents.clean_end.filter(|_| is_whole);
                Ok(Self {
                    file,
                    serial,
                    contents,
                    is_whole,
                })
            }
            (None, Some(version)) => Err(Unreadable::Newer(version)),
            (None, None) => Err(Unreadable::Damaged),
        }
    }

    /// Replaces the contents, durably.
    pub(super) fn update(&mut self, contents: Contents) -> io::Result<()> {
        let serial = self.serial + 1;
        write_all(&*self.file, &encode(serial, &contents), offset_of(serial))?;
        self.file.sync()?;
        self.serial = serial;
        self.contents = contents;
        Ok(())
    }
}

const fn offset_of(serial: u64) -> u64 {
    (serial % COPIES) * COPY_BYTES as u64
}

fn encode(serial: u64, contents: &Contents) -> Vec<u8> {
    let end = contents.clean_end.unwrap_or_default();
    let mut body = vec![0; COPY_BYTES - 16];
    put(
        &mut body,
        &[
            &serial.to_le_bytes(),
            &contents.store.0,
            &contents.opened.to_le_bytes(),
            &u32::from(contents.clean_end.is_some()).to_le_bytes(),
            &end.offset.to_le_bytes(),
            &end.segment.to_le_bytes(),
        ],
    );
    let mut bytes = Vec::with_capacity(COPY_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.append(&mut body);
    bytes
}

/// The serial and contents of one copy; the version when it is sound and newer than ours, `None`
/// when it is not sound. Magic, version and checksum keep their places in every version.
fn decode(bytes: &[u8]) -> Result<(u64, Contents), Option<u32>> {
    let mut fields = Fields(bytes);
    let magic: [u8; 8] = fields.array().ok_or(None)?;
    let version = fields.u32().ok_or(None)?;
    let crc = fields.u32().ok_or(None)?;
    if magic != MAGIC || crc != crc32c::crc32c(fields.0) || version == 0 {
        return Err(None);
    }
    if version > VERSION {
        return Err(Some(version));
    }
    let mut read = || {
        let serial = fields.u64()?;
        let store = StoreId(fields.array()?);
        let opened = fields.u64()?;
        let clean = fields.u32()?;
        let offset = fields.u32()?;
        let end = LogPosition {
            segment: fields.u64()?,
            offset,
        };
        Some((
            serial,
            Contents {
                store,
                opened,
                clean_end: (clean == 1).then_some(end),
            },
        ))
    };
    read().ok_or(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        Contents {
            store: StoreId(*b"0123456789abcdef"),
            opened: 3,
            clean_end: Some(LogPosition {
                segment: 7,
                offset: 4096,
            }),
        }
    }

    #[test]
    fn a_copy_has_this_layout() {
        let bytes = encode(0x0102, &contents());
        assert_eq!(bytes.len(), 4096);
        let expected: &[&[u8]] = &[
            b"MENESLOG",
            &[1, 0, 0, 0],
            &crc32c::crc32c(&bytes[16..]).to_le_bytes(),
            &[2, 1, 0, 0, 0, 0, 0, 0],
            b"0123456789abcdef",
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0],
            &[0, 16, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes[..64], expected.concat());
        assert!(bytes[64..].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[12..16], [124, 128, 215, 69]);
    }

    #[test]
    fn every_flipped_bit_of_a_copy_is_noticed() {
        let good = encode(5, &contents());
        assert_eq!(decode(&good), Ok((5, contents())));
        for byte in (0..128).chain([4095]) {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                if (8..12).contains(&byte) {
                    // The version lies outside the checksum: a flip reads as another version.
                    assert_ne!(decode(&bad), Ok((5, contents())));
                } else {
                    assert_eq!(decode(&bad), Err(None), "byte {byte} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = encode(5, &contents());
        bytes[8] = 9;
        assert_eq!(decode(&bytes), Err(Some(9)));
    }
}
