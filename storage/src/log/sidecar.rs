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
//! A record also says how far the log may have been written, its **horizon**: nothing was ever
//! written beyond it, because a record with a later one is durable before anything is. So a start
//! after a crash looks for evidence of a finished sync, and clears what is torn, up to there and not
//! to the end of the segment. A horizon is believed only when all records are sound and follow each
//! other, and when the store was not opened since by a server that knows of no horizons.
//!
//! ```text
//! record:  magic [4] | crc32c u32 | serial u64 | batch serial u64 | segment u64
//!          | batch start u32 | end u32 | first 16 of store id | 0 u64        64 bytes
//! horizon: magic [4] | crc32c u32 | serial u64 | opened u64 | segment u64 | offset u32 | 0 u32
//!          | store id [16]                                          56 bytes, behind its record
//! ```

use std::io;
use std::sync::Arc;

use menes_jetstream::ports::LogPosition;

use super::format::{Fields, StoreId, put};
use crate::files::{File, Files, write_all};

pub(super) const NAME: &str = "sidecar";
const MAGIC: [u8; 4] = *b"SYNC";
const HORIZON_MAGIC: [u8; 4] = *b"HRZN";
const RECORD_BYTES: usize = 64;
const HORIZON_BYTES: usize = 56;
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
    /// Nothing was ever written behind it; `None` when that is not known.
    pub(super) horizon: Option<LogPosition>,
}

impl Sidecar {
    /// Makes the sidecar of a new store in which nothing is written behind `synced`.
    pub(super) fn create(files: &dyn Files, store: StoreId, synced: Synced) -> io::Result<()> {
        let file = files.create(NAME, RECORDS * BLOCK_BYTES)?;
        for serial in 0..RECORDS {
            let record = [
                encode(store, serial, &synced).as_slice(),
                &encode_horizon(store, serial, 0, synced.end()),
            ]
            .concat();
            write_all(&*file, &record, serial * BLOCK_BYTES)?;
        }
        file.sync()
    }

    /// Reads the sidecar of a store that was opened so many times; `None` when it holds no sound
    /// record.
    pub(super) fn open(
        file: Arc<dyn File>,
        store: StoreId,
        opened: u64,
    ) -> io::Result<Option<Self>> {
        let mut sound: Vec<(u64, Synced, Option<LogPosition>)> = Vec::new();
        for place in 0..RECORDS {
            let mut bytes = [0; RECORD_BYTES + HORIZON_BYTES];
            file.read_at(&mut bytes, place * BLOCK_BYTES)?;
            let (record, horizon) = bytes.split_at(RECORD_BYTES);
            if let Some((serial, synced)) = decode(store, record)
                && serial % RECORDS == place
            {
                sound.push((
                    serial,
                    synced,
                    decode_horizon(store, serial, opened, horizon),
                ));
            }
        }
        sound.sort_unstable_by_key(|(serial, _, _)| *serial);
        let oldest = sound.first().map(|(serial, _, _)| *serial);
        let Some((serial, latest, horizon)) = sound.last().copied() else {
            return Ok(None);
        };
        let is_whole = sound.len() as u64 == RECORDS && oldest == Some(serial + 1 - RECORDS);
        Ok(Some(Self {
            file,
            store,
            serial,
            latest,
            horizon: horizon.filter(|_| is_whole),
        }))
    }

    /// Adds a record, durably. What it says must have been synced before, and nothing may have been
    /// written behind `horizon`. `opened` is how often the store was opened, this time included.
    pub(super) fn record(
        &mut self,
        synced: Synced,
        opened: u64,
        horizon: LogPosition,
    ) -> io::Result<()> {
        let serial = self.serial + 1;
        let offset = (serial % RECORDS) * BLOCK_BYTES;
        let mut bytes = [0; RECORD_BYTES + HORIZON_BYTES];
        put(
            &mut bytes,
            &[
                &encode(self.store, serial, &synced),
                &encode_horizon(self.store, serial, opened, horizon),
            ],
        );
        write_all(&*self.file, &bytes, offset)?;
        self.file.sync()?;
        self.serial = serial;
        self.latest = synced;
        self.horizon = Some(horizon);
        Ok(())
    }
}

fn encode_horizon(
    store: StoreId,
    serial: u64,
    opened: u64,
    horizon: LogPosition,
) -> [u8; HORIZON_BYTES] {
    let mut body = [0; HORIZON_BYTES - 8];
    put(
        &mut body,
        &[
            &serial.to_le_bytes(),
            &opened.to_le_bytes(),
            &horizon.segment.to_le_bytes(),
            &horizon.offset.to_le_bytes(),
            &0_u32.to_le_bytes(),
            &store.0,
        ],
    );
    let mut bytes = [0; HORIZON_BYTES];
    let crc = crc32c::crc32c(&body).to_le_bytes();
    put(&mut bytes, &[&HORIZON_MAGIC, &crc, &body]);
    bytes
}

/// The horizon that belongs to record `serial`, written while the store was open for the
/// `opened`th time.
fn decode_horizon(store: StoreId, serial: u64, opened: u64, bytes: &[u8]) -> Option<LogPosition> {
    let mut fields = Fields(bytes);
    let magic: [u8; 4] = fields.array()?;
    let crc = fields.u32()?;
    if magic != HORIZON_MAGIC || crc != crc32c::crc32c(fields.0) {
        return None;
    }
    let is_of = fields.u64()? == serial && fields.u64()? == opened;
    let segment = fields.u64()?;
    let offset = fields.u32()?;
    let _ = fields.u32()?;
    let is_ours = StoreId(fields.array()?) == store;
    (is_of && is_ours).then_some(LogPosition { segment, offset })
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

    const HORIZON: LogPosition = LogPosition {
        segment: 7,
        offset: 8192,
    };

    #[test]
    fn a_horizon_has_this_layout() {
        let bytes = encode_horizon(STORE, 3, 2, HORIZON);
        let expected: &[&[u8]] = &[
            b"HRZN",
            &crc32c::crc32c(&bytes[8..]).to_le_bytes(),
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[0, 32, 0, 0],
            &[0; 4],
            b"0123456789abcdef",
        ];
        assert_eq!(bytes.as_slice(), expected.concat());
    }

    #[test]
    fn a_horizon_counts_only_with_its_record_in_its_time() {
        let good = encode_horizon(STORE, 3, 2, HORIZON);
        assert_eq!(decode_horizon(STORE, 3, 2, &good), Some(HORIZON));
        assert_eq!(decode_horizon(STORE, 4, 2, &good), None);
        assert_eq!(decode_horizon(STORE, 3, 3, &good), None);
        assert_eq!(decode_horizon(StoreId([0; 16]), 3, 2, &good), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_horizon(STORE, 3, 2, &bad), None, "bit {bit}");
        }
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
