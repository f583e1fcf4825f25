//! Message blocks of the reference server, as they lie on its disk and in its older backups.
//!
//! ```text
//! record:  len u32 | seq u64 | time i64 | subject len u16 | subject
//!          | header len u32 | header | payload | checksum 8        the two of the header if it has one
//! ```
//!
//! A block may hold records of messages that are gone: their sequence carries a mark, a record of
//! its own says so later, or the index beside the block does ([`super::index`]).

use super::{ArchiveError, Entry};

const RECORD_HEAD: usize = 22;
const CHECKSUM: usize = 8;
const HAS_HEADER: u32 = 1 << 31;
const ERASED: u64 = 1 << 63;
const TOMBSTONE: u64 = 1 << 62;
/// What a compressed block begins with.
const COMPRESSED: &[u8] = b"cmp";

/// One record of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockRecord<'a> {
    /// A message.
    Message(BlockMessage<'a>),
    /// This sequence has no message any more.
    Removed(u64),
}

/// A message as it lies in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockMessage<'a> {
    /// Its sequence.
    pub seq: u64,
    /// When it was stored, nanoseconds.
    pub time: i64,
    /// Subject.
    pub subject: &'a [u8],
    /// Header block, empty for none.
    pub header: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// What the server wrote to find damage.
    pub checksum: u64,
}

impl<'a> BlockMessage<'a> {
    /// The parts that the checksum covers, in their order: sequence and time, subject, header,
    /// payload.
    #[must_use]
    pub fn summed(&self) -> ([u8; 16], [&'a [u8]; 3]) {
        let mut head = [0; 16];
        head[..8].copy_from_slice(&self.seq.to_le_bytes());
        head[8..].copy_from_slice(&self.time.to_le_bytes());
        (head, [self.subject, self.header, self.payload])
    }

    /// The message as an entry of an archive.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry {
            name: self.subject.to_vec(),
            time: self.time,
            seq: self.seq,
            header: self.header.to_vec(),
            payload: self.payload.to_vec(),
        }
    }
}

/// Reads the records of a block one by one. After an error there are no more.
#[derive(Clone, Debug)]
pub struct BlockReader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> BlockReader<'a> {
    /// Reads this block.
    #[must_use]
    pub fn new(block: &'a [u8]) -> Self {
        Self { rest: block, at: 0 }
    }

    /// Whether a block is compressed; it cannot be read then.
    #[must_use]
    pub fn is_compressed(block: &[u8]) -> bool {
        block.starts_with(COMPRESSED)
    }

    /// Where in the block the next record begins.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    fn read(&mut self) -> Result<Option<BlockRecord<'a>>, ArchiveError> {
        const BAD: ArchiveError = ArchiveError::Invalid;
        while !self.rest.is_empty() {
            let head = self.rest.get(..RECORD_HEAD).ok_or(BAD)?;
            let number = |at: usize| {
                let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
                bytes.map(u64::from_le_bytes).ok_or(BAD)
            };
            let len = u32::from_le_bytes(head[..4].try_into().map_err(|_| BAD)?);
            let has_header = len & HAS_HEADER != 0;
            let len = (len & !HAS_HEADER) as usize;
            let (seq, time) = (number(4)?, number(12)?.cast_signed());
            let subject = usize::from(u16::from_le_bytes([head[20], head[21]]));
            let record = self.rest.get(..len).ok_or(BAD)?;
            let end = len.checked_sub(CHECKSUM).ok_or(BAD)?;
            let body = record.get(RECORD_HEAD..end).ok_or(BAD)?;
            let checksum = record.get(end..).and_then(|sum| sum.try_into().ok());
            let checksum = u64::from_le_bytes(checksum.ok_or(BAD)?);
            self.rest = self.rest.get(len..).ok_or(BAD)?;
            self.at += len;
            if seq & TOMBSTONE != 0 {
                return Ok(Some(BlockRecord::Removed(seq & !(TOMBSTONE | ERASED))));
            }
            if seq == 0 || seq & ERASED != 0 {
                continue;
            }
            let (subject, mut payload) = body.split_at_checked(subject).ok_or(BAD)?;
            let mut header = &[][..];
            if has_header {
                let (len, behind) = payload.split_first_chunk::<4>().ok_or(BAD)?;
                let len = u32::from_le_bytes(*len) as usize;
                (header, payload) = behind.split_at_checked(len).ok_or(BAD)?;
            }
            return Ok(Some(BlockRecord::Message(BlockMessage {
                seq,
                time,
                subject,
                header,
                payload,
                checksum,
            })));
        }
        Ok(None)
    }
}

impl<'a> Iterator for BlockReader<'a> {
    type Item = Result<BlockRecord<'a>, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.read().transpose();
        if matches!(item, Some(Err(_))) {
            self.rest = &[];
        }
        item
    }
}

/// Appends a record as it lies in a block, with this checksum.
#[cfg(test)]
pub(super) fn write(
    out: &mut Vec<u8>,
    seq: u64,
    time: i64,
    subject: &str,
    header: &[u8],
    payload: &[u8],
) {
    let extra = if header.is_empty() { 0 } else { 4 };
    let len = RECORD_HEAD + subject.len() + extra + header.len() + payload.len() + CHECKSUM;
    let mark = if header.is_empty() { 0 } else { HAS_HEADER };
    out.extend_from_slice(&(len as u32 | mark).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&time.to_le_bytes());
    out.extend_from_slice(&(subject.len() as u16).to_le_bytes());
    out.extend_from_slice(subject.as_bytes());
    if !header.is_empty() {
        out.extend_from_slice(&(header.len() as u32).to_le_bytes());
        out.extend_from_slice(header);
    }
    out.extend_from_slice(payload);
    out.extend_from_slice(&[0; CHECKSUM]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_of_a_block_are_read_and_what_is_gone_is_left_out() {
        let mut block = Vec::new();
        write(&mut block, 3, 77, "a.b", b"", b"plain");
        write(&mut block, 4 | ERASED, 77, "", b"", b"gone");
        write(&mut block, 5, 77, "c", b"NATS/1.0\r\n\r\n", b"");
        write(&mut block, 3 | TOMBSTONE, 77, "", b"", b"");
        let records: Vec<_> = BlockReader::new(&block)
            .map(|it| it.expect("sound"))
            .collect();
        let [
            BlockRecord::Message(plain),
            BlockRecord::Message(other),
            BlockRecord::Removed(3),
        ] = &records[..]
        else {
            panic!("{records:?}");
        };
        let plain = plain.entry();
        assert_eq!(
            (plain.seq, plain.time, &*plain.payload),
            (3, 77, &b"plain"[..])
        );
        assert_eq!((other.seq, other.header), (5, &b"NATS/1.0\r\n\r\n"[..]));
    }

    #[test]
    fn a_torn_block_gives_what_is_whole_and_one_error() {
        let mut block = Vec::new();
        write(&mut block, 1, 1, "a", b"", b"one");
        let whole = block.len();
        write(&mut block, 2, 2, "a", b"", b"two");
        block.truncate(block.len() - 1);
        let mut reader = BlockReader::new(&block);
        assert!(matches!(
            reader.next(),
            Some(Ok(BlockRecord::Message(BlockMessage { seq: 1, .. })))
        ));
        assert_eq!(reader.position(), whole);
        assert_eq!(reader.next(), Some(Err(ArchiveError::Invalid)));
        assert_eq!(reader.next(), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for record in BlockReader::new(&bytes) {
                drop(record);
            }
        }
    }
}
