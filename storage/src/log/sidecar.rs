//! How far the log was durable, kept apart from the log.
//!
//! After a crash the last bytes of the log may be torn, and a torn batch looks exactly like a
//! damaged one. What tells them apart is evidence that a batch had been synced: then it may have
//! been acknowledged, and must never be cut. Most evidence is in the log itself, because a batch is
//! written only after the one before it was synced. For the last batch there is this file: a ring
//! of records, each saying "everything up to here was synced", written after the sync it speaks of.
//!
//! By default a record is written as soon as the log has nothing else to do, and nobody waits for
//! it ([`crate::log::TailEvidence`]). Each record has a block of its own, so writing one never
//! endangers another.
//!
//! ```text
//! record: magic [4] | crc32c u32 | serial u64 | batch serial u64 | segment u64
//!         | batch start u32 | end u32 | first 16 of store id | 0 u64        64 bytes
//! ```

use std::io;
use std::sync::Arc;

use menes_jetstream::ports::LogPosition;

use super::format::{Fields, StoreId, put};
use crate::files::{File, Files, write_all};

pub(super) const NAME: &str = "sidecar";
const MAGIC: [u8; 4] = *b"SYNC";
const RECORD_BYTES: usize = 64;
const BLOCK_BYTES: u64 = 4096;
const RECORDS: u64 = 16;

/// Everything up to `end` in `segment`, and all segments before it, was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Synced {
    pub(super) segment: u64,
    /// Where the last batch in that segment begins; the end, when there is none.
    pub(super) batch_start: u32,
    pub(super) end: u32,
    /// Serial of the last batch.
    pub(super) batch_serial: u64,
}

impl Synced {
    pub(super) const fn end(&self) -> LogPosition {
        LogPosition {
            segment: self.segment,
            offset: self.end,
        }
    }
}

/// The sidecar of an open store.
#[derive(Debug)]
pub(super) struct Sidecar {
    file: Arc<dyn File>,
    store: StoreId,
    serial: u64,
    pub(super) latest: Synced,
}

impl Sidecar {
    /// Makes the sidecar of a new store.
    pub(super) fn create(files: &dyn Files, store: StoreId, synced: Synced) -> io::Result<()> {
        let file = files.create(NAME, RECORDS * BLOCK_BYTES)?;
        write_all(&*file, &encode(store, 0, &synced), 0)?;
        file.sync()
    }

    /// Reads the sidecar of a store; `None` when it holds no sound record.
    pub(super) fn open(file: Arc<dyn File>, store: StoreId) -> io::Result<Option<Self>> {
        let mut best: Option<(u64, Synced)> = None;
        for place in 0..RECORDS {
            let mut bytes = [0; RECORD_BYTES];
            file.read_at(&mut bytes, place * BLOCK_BYTES)?;
            if let Some((serial, synced)) = decode(store, &bytes)
                && serial % RECORDS == place
                && best.is_none_or(|(highest, _)| serial > highest)
            {
                best = Some((serial, synced));
            }
        }
        Ok(best.map(|(serial, latest)| Self {
            file,
            store,
            serial,
            latest,
        }))
    }

    /// Adds a record, durably. What it says must have been synced before.
    pub(super) fn record(&mut self, synced: Synced) -> io::Result<()> {
        let serial = self.serial + 1;
        let offset = (serial % RECORDS) * BLOCK_BYTES;
        write_all(&*self.file, &encode(self.store, serial, &synced), offset)?;
        self.file.sync()?;
        self.serial = serial;
        self.latest = synced;
        Ok(())
    }
}

fn encode(store: StoreId, serial: u64, synced: &Synced) -> [u8; RECORD_BYTES] {
    let mut body = [0; RECORD_BYTES - 8];
    put(
        &mut body,
        &[
            &serial.to_le_bytes(),
            &synced.batch_serial.to_le_bytes(),
            &synced.segment.to_le_bytes(),
            &synced.batch_start.to_le_bytes(),
            &synced.end.to_le_bytes(),
            &store.0,
        ],
    );
    let mut bytes = [0; RECORD_BYTES];
    put(
        &mut bytes,
        &[&MAGIC, &crc32c::crc32c(&body).to_le_bytes(), &body],
    );
    bytes
}

fn decode(store: StoreId, bytes: &[u8]) -> Option<(u64, Synced)> {
    let mut fields = Fields(bytes);
    let magic: [u8; 4] = fields.array()?;
    let crc = fields.u32()?;
    if magic != MAGIC || crc != crc32c::crc32c(fields.0) {
        return None;
    }
    let serial = fields.u64()?;
    let batch_serial = fields.u64()?;
    let segment = fields.u64()?;
    let synced = Synced {
        segment,
        batch_start: fields.u32()?,
        end: fields.u32()?,
        batch_serial,
    };
    (StoreId(fields.array()?) == store).then_some((serial, synced))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId(*b"0123456789abcdef");
    const SYNCED: Synced = Synced {
        segment: 7,
        batch_start: 64,
        end: 512,
        batch_serial: 9,
    };

    #[test]
    fn a_record_has_this_layout() {
        let bytes = encode(STORE, 3, &SYNCED);
        let expected: &[&[u8]] = &[
            b"SYNC",
            &[163, 128, 207, 170],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[64, 0, 0, 0],
            &[0, 2, 0, 0],
            b"0123456789abcdef",
            &[0; 8],
        ];
        assert_eq!(bytes.as_slice(), expected.concat());
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let good = encode(STORE, 3, &SYNCED);
        assert_eq!(decode(STORE, &good), Some((3, SYNCED)));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(STORE, &bad), None, "bit {bit}");
        }
        assert_eq!(decode(StoreId([0; 16]), &good), None);
    }
}
