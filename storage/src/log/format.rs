//! What a segment looks like on disk, format version 1.
//!
//! ```text
//! segment: header (64 bytes) | entry | padding to 8 | entry | ...
//! header:  magic [8] | version u32 | crc32c u32 | number u64 | length u32 | sealed u32 | store id [16] | 0
//! entry:   len u32 | crc32c u32 | group u64 | index u64 | term u64 | kind u8 | payload
//! ```
//!
//! Numbers are little-endian. `len` counts the whole entry without its padding. The checksum of an
//! entry covers the store id, the segment number, the offset, and every byte but itself, so that a
//! valid entry in the wrong place, in a recycled file or from another store is not valid there.
//!
//! A kind with the bit 64 says that the payload is sealed: encrypted, [`crate::vault`]. In a segment
//! whose header says sealed every payload is, in any other none. One with the bit 32 says that the
//! payload is packed: compressed, [`super::packing`], before it was sealed.
//!
//! Two kinds are the log's own and carry no payload: a **mark** begins every batch, with the
//! batch's serial number as its group, and a **seal** ends a full segment. A batch is written only
//! after the one before it was synced, so a mark is evidence that everything before it was durable.

use bytes::Bytes;
use menes_jetstream::ids::GroupId;
use menes_jetstream::ports::{Entry, EntryKind, LogPosition};

use super::packing;
use crate::vault::Vault;

pub(crate) const VERSION: u32 = 1;
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 64;
pub(crate) const ENTRY_HEADER_BYTES: usize = 33;
pub(crate) const ENTRY_HEADER_LEN: u32 = 33;
/// Space of a mark or a seal with its padding.
pub(crate) const OWN_ENTRY_BYTES: u32 = 40;
const ALIGNMENT: u32 = 8;
const SEGMENT_MAGIC: [u8; 8] = *b"MENESSEG";
const MARK: u8 = 0;
const SEAL: u8 = 255;
/// Set in the kind of an entry whose payload is encrypted.
const SEALED: u8 = 64;
/// Set in the kind of an entry whose payload is compressed.
const PACKED: u8 = 32;
/// What an entry's encryption is bound to: the store, the place, and the entry's own header.
const PLACE_BYTES: usize = 28 + ENTRY_HEADER_BYTES;

/// Where the entry after one that ends at `end` begins.
pub(crate) const fn align(end: u32) -> u32 {
    end.next_multiple_of(ALIGNMENT)
}

/// Identity of a store, drawn once. Secret from clients, so that nobody can publish bytes that
/// pass for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

/// What an entry on disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Begins a batch.
    Mark,
    /// Ends a segment.
    Seal,
    /// An entry of the engine.
    Entry(EntryKind),
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Mark => MARK,
            Self::Seal => SEAL,
            Self::Entry(kind) => kind as u8,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            MARK => Some(Self::Mark),
            SEAL => Some(Self::Seal),
            number => match EntryKind::from_u8(number) {
                Some(kind) => Some(Self::Entry(kind)),
                None => None,
            },
        }
    }
}

/// The fixed part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    /// Bytes of the entry, this header included, padding not.
    pub(crate) len: u32,
    pub(crate) crc: u32,
    /// The group; the batch serial in a mark.
    pub(crate) group: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    kind: u8,
}

impl EntryHeader {
    /// The header of an engine entry of `len` bytes with all of it; the checksum is still missing.
    pub(crate) fn of(entry: &Entry, len: u32, is_packed: bool, is_sealed: bool) -> Self {
        let packed = if is_packed { PACKED } else { 0 };
        let sealed = if is_sealed { SEALED } else { 0 };
        Self {
            len,
            crc: 0,
            group: entry.group.0,
            index: entry.index,
            term: entry.term,
            kind: Kind::Entry(entry.kind).number() | packed | sealed,
        }
    }

    /// The header of a mark or a seal; the checksum is still missing.
    pub(crate) const fn own(kind: Kind, serial: u64) -> Self {
        Self {
            len: ENTRY_HEADER_LEN,
            crc: 0,
            group: serial,
            index: 0,
            term: 0,
            kind: kind.number(),
        }
    }

    /// The header with its checksum, as bytes.
    pub(crate) fn finish(
        mut self,
        store: StoreId,
        position: LogPosition,
        payload: &[u8],
    ) -> [u8; ENTRY_HEADER_BYTES] {
        self.crc = self.checksum(store, position, payload);
        self.encode()
    }

    fn encode(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        let fields: [&[u8]; 6] = [
            &self.len.to_le_bytes(),
            &self.crc.to_le_bytes(),
            &self.group.to_le_bytes(),
            &self.index.to_le_bytes(),
            &self.term.to_le_bytes(),
            &[self.kind],
        ];
        put(&mut bytes, &fields);
        bytes
    }

    /// Reads a header; whether it is one only the checksum tells.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self {
            len: fields.u32()?,
            crc: fields.u32()?,
            group: fields.u64()?,
            index: fields.u64()?,
            term: fields.u64()?,
            kind: fields.u8()?,
        })
    }

    pub(crate) const fn kind(&self) -> Option<Kind> {
        match Kind::from_number(self.kind) {
            None => match Kind::from_number(self.kind & !(SEALED | PACKED)) {
                Some(Kind::Entry(kind)) => Some(Kind::Entry(kind)),
                _ => None,
            },
            kind => kind,
        }
    }

    /// Whether the payload is encrypted.
    pub(crate) const fn is_sealed(&self) -> bool {
        self.kind & SEALED != 0 && self.kind != SEAL
    }

    /// Whether the payload is compressed.
    const fn is_packed(&self) -> bool {
        self.kind & PACKED != 0 && self.kind != SEAL
    }

    /// What the encryption of this entry is bound to besides its payload.
    pub(crate) fn place(&self, store: StoreId, position: LogPosition) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        let header = Self { crc: 0, ..*self }.encode();
        put(
            &mut bytes,
            &[
                &store.0,
                &position.segment.to_le_bytes(),
                &position.offset.to_le_bytes(),
                &header,
            ],
        );
        bytes
    }

    /// Whether this is the header of a valid entry with this payload at this position.
    pub(crate) fn is_valid(&self, store: StoreId, position: LogPosition, payload: &[u8]) -> bool {
        self.crc == self.checksum(store, position, payload)
    }

    fn checksum(&self, store: StoreId, position: LogPosition, payload: &[u8]) -> u32 {
        let mut place = [0; 28];
        put(
            &mut place,
            &[
                &store.0,
                &position.segment.to_le_bytes(),
                &position.offset.to_le_bytes(),
            ],
        );
        let bytes = self.encode();
        let (len, rest) = bytes.split_at(4);
        let crc = crc32c::crc32c(&place);
        let crc = crc32c::crc32c_append(crc, len);
        let crc = crc32c::crc32c_append(crc, rest.split_at(4).1);
        crc32c::crc32c_append(crc, payload)
    }
}

/// An entry that was read and found valid.
#[derive(Clone, Debug)]
pub(crate) struct Decoded {
    pub(crate) header: EntryHeader,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

impl Decoded {
    /// The entry at the beginning of `bytes`, if a valid one lies there and ends within them.
    pub(crate) fn read(store: StoreId, position: LogPosition, bytes: &Bytes) -> Option<Self> {
        let header = EntryHeader::decode(bytes)?;
        let kind = header.kind()?;
        let len = usize::try_from(header.len).ok()?;
        if len < ENTRY_HEADER_BYTES || len > bytes.len() {
            return None;
        }
        let payload = bytes.slice(ENTRY_HEADER_BYTES..len);
        header.is_valid(store, position, &payload).then_some(Self {
            header,
            kind,
            payload,
        })
    }

    /// The same with its payload in the clear; `None` when that cannot be had.
    pub(crate) fn reveal(
        mut self,
        store: StoreId,
        position: LogPosition,
        vault: &Vault,
    ) -> Option<Self> {
        if self.header.is_sealed() {
            let place = self.header.place(store, position);
            self.payload = vault.unseal(&place, &self.payload)?;
        }
        if self.header.is_packed() {
            self.payload = packing::unpack(&self.payload)?;
        }
        Some(self)
    }

    pub(crate) fn into_entry(self, kind: EntryKind) -> Entry {
        Entry {
            group: GroupId(self.header.group),
            index: self.header.index,
            term: self.header.term,
            kind,
            compress: self.header.is_packed(),
            payload: self.payload,
        }
    }
}

/// The beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    /// Bytes of the whole segment.
    pub(crate) len: u32,
    /// Every payload in it is encrypted; or none.
    pub(crate) sealed: bool,
    pub(crate) store: StoreId,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut tail = [0; SEGMENT_HEADER_BYTES as usize - 16];
        put(
            &mut tail,
            &[
                &self.number.to_le_bytes(),
                &self.len.to_le_bytes(),
                &u32::from(self.sealed).to_le_bytes(),
                &self.store.0,
            ],
        );
        let crc = Self::checksum(VERSION, &tail);
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        put(
            &mut bytes,
            &[
                &SEGMENT_MAGIC,
                &VERSION.to_le_bytes(),
                &crc.to_le_bytes(),
                &tail,
            ],
        );
        bytes
    }

    /// The header in `bytes`, if it is a sound one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes.get(..SEGMENT_HEADER_BYTES as usize)?);
        let magic: [u8; 8] = fields.array()?;
        let (version, crc) = (fields.u32()?, fields.u32()?);
        if magic != SEGMENT_MAGIC || version != VERSION || crc != Self::checksum(version, fields.0)
        {
            return None;
        }
        let (number, len, sealed) = (fields.u64()?, fields.u32()?, fields.u32()?);
        Some(Self {
            number,
            len,
            sealed: sealed != 0,
            store: StoreId(fields.array()?),
        })
    }

    fn checksum(version: u32, tail: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&version.to_le_bytes()), tail)
    }
}

/// Lays `fields` one after the other into `bytes`; what does not fit is left out, which the fixed
/// vectors in the tests would show.
pub(crate) fn put(bytes: &mut [u8], fields: &[&[u8]]) {
    for (to, from) in bytes.iter_mut().zip(fields.iter().copied().flatten()) {
        *to = *from;
    }
}

/// Takes little-endian numbers off the front of some bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
