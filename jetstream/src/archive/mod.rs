//! Backups of streams as nats-server writes them.
//!
//! ```text
//! S2 frames ─▶ "NATSARC1" | entry*      entry: name len | time | seq | header len | payload len
//!                                              | name | header | payload
//!           ─▶ tar, from servers before 2.15
//! ```
//!
//! The first entry is `state.json`; then come consumers, `consumers/<name>`, then messages in the
//! order of their sequences, named by their subjects, and at last an entry of nothing.

mod block;
mod frames;
mod index;
mod old;

use thiserror::Error;

pub use self::block::{BlockMessage, BlockReader, BlockRecord};
pub use self::frames::{Packer, Unpacker};
pub use self::index::{ConsumerPosition, Gone, block_index, consumer_position, stream_index};
pub use self::old::{OldArchive, OldPart};

/// What an archive begins with.
pub const MAGIC: &[u8; 8] = b"NATSARC1";
/// Largest entry that is read, bytes.
const MAX_ENTRY: usize = 80 << 20;
/// Longest name of an entry, bytes.
const MAX_NAME: usize = 1 << 16;

/// Why an archive cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ArchiveError {
    /// It is not what it should be.
    #[error("archive: invalid archive stream")]
    Invalid,
    /// The compression is damaged.
    #[error("s2: corrupt input")]
    Compression,
    /// It ends too early.
    #[error("backup was truncated")]
    Truncated,
    /// Something in it is too large.
    #[error("archive: an entry is too large")]
    TooLarge,
}

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Subject of a message, or what it is.
    pub name: Vec<u8>,
    /// When a message was stored, nanoseconds.
    pub time: i64,
    /// Sequence of a message, 0 for everything else.
    pub seq: u64,
    /// Header block.
    pub header: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Entry {
    /// Whether it says that nothing follows.
    #[must_use]
    pub fn is_end(&self) -> bool {
        *self == Self::default()
    }

    /// Appends the entry as it lies in an archive.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_entry(
            out,
            &self.name,
            self.time,
            self.seq,
            &self.header,
            &self.payload,
        );
    }
}

/// Appends an entry as it lies in an archive.
pub fn write_entry(
    out: &mut Vec<u8>,
    name: &[u8],
    time: i64,
    seq: u64,
    header: &[u8],
    payload: &[u8],
) {
    put_varint(out, name.len() as u64);
    // Small numbers of either sign take few bytes.
    put_varint(out, (time << 1 ^ time >> 63).cast_unsigned());
    put_varint(out, seq);
    put_varint(out, header.len() as u64);
    put_varint(out, payload.len() as u64);
    out.extend_from_slice(name);
    out.extend_from_slice(header);
    out.extend_from_slice(payload);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes the entries out of an archive whose bytes come in pieces.
#[derive(Debug, Default)]
pub struct EntryReader {
    buffer: Vec<u8>,
    at: usize,
}

impl EntryReader {
    /// Adds bytes behind the magic ones.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 && self.at >= self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next entry, `None` until more bytes come.
    ///
    /// # Errors
    /// When the bytes are no archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut rest = self.buffer.get(self.at..).unwrap_or_default();
        let start = rest.len();
        let mut numbers = [0u64; 5];
        for number in &mut numbers {
            match varint(&mut rest)? {
                Some(value) => *number = value,
                None => return Ok(None),
            }
        }
        let [name, time, seq, header, payload] = numbers;
        let size = |value: u64, most: usize| {
            let size = usize::try_from(value).map_err(|_| ArchiveError::TooLarge)?;
            (size <= most).then_some(size).ok_or(ArchiveError::TooLarge)
        };
        let name = size(name, MAX_NAME)?;
        let header = size(header, MAX_ENTRY)?;
        let payload = size(payload, MAX_ENTRY)?;
        let Some((own, _)) = rest.split_at_checked(name + header + payload) else {
            return Ok(None);
        };
        let entry = Entry {
            name: own[..name].to_vec(),
            time: (time >> 1).cast_signed() ^ -(time & 1).cast_signed(),
            seq,
            header: own[name..name + header].to_vec(),
            payload: own[name + header..].to_vec(),
        };
        self.at += start - rest.len() + own.len();
        Ok(Some(entry))
    }
}

fn varint(rest: &mut &[u8]) -> Result<Option<u64>, ArchiveError> {
    let mut value = 0u64;
    for (at, byte) in rest.iter().enumerate() {
        if at == 10 {
            return Err(ArchiveError::Invalid);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            *rest = &rest[at + 1..];
            return Ok(Some(value));
        }
    }
    if rest.len() >= 10 {
        return Err(ArchiveError::Invalid);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
        (bytes(20), any::<i64>(), any::<u64>(), bytes(40), bytes(200)).prop_map(
            |(name, time, seq, header, payload)| Entry {
                name,
                time,
                seq,
                header,
                payload,
            },
        )
    }

    proptest! {
        #[test]
        fn entries_come_back_however_the_bytes_are_cut(
            entries in proptest::collection::vec(entry(), 0..20),
            piece in 1usize..100,
        ) {
            let mut plain = Vec::new();
            entries.iter().for_each(|entry| entry.write(&mut plain));
            let mut packer = Packer::default();
            packer.push(&plain);
            packer.finish();
            let packed = packer.take(usize::MAX);
            let (mut unpacker, mut reader) = (Unpacker::default(), EntryReader::default());
            let mut seen = Vec::new();
            for piece in packed.chunks(piece) {
                let mut out = Vec::new();
                unpacker.push(piece, &mut out).expect("sound frames");
                reader.push(&out);
                while let Some(entry) = reader.next_entry().expect("a sound archive") {
                    seen.push(entry);
                }
            }
            prop_assert_eq!(seen, entries);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut reader = EntryReader::default();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_entry() {}
            let mut out = Vec::new();
            let _ = Unpacker::default().push(&bytes, &mut out);
            let mut framed = b"\xff\x06\x00\x00S2sTwO\x00".to_vec();
            framed.extend_from_slice(&(bytes.len() as u32).to_le_bytes()[..3]);
            framed.extend_from_slice(&bytes);
            let _ = Unpacker::default().push(&framed, &mut out);
            let mut old = OldArchive::default();
            old.push(&bytes);
            while let Ok(Some(_)) = old.next_part() {}
        }
    }
}
