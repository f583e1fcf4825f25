//! A block: the messages one stream gathered in a turn, as they lie in the log.
//!
//! ```text
//! block:   version u8 | base_time i64 | count u32 | record*
//! record:  len u32 | time_delta u32 | subject_len u16 | header_len u32 | subject | header | payload
//! ```
//!
//! Version 2 is the block of a server that adds messages of its own: every record says whose it is.
//!
//! ```text
//! record:  len u32 | time_delta u32 | subject_len u16 | header_len u32 | tag_len u8 | tag
//!          | subject | header | payload
//! ```
//!
//! All numbers are little endian. `len` counts the bytes after itself. Subject, header and payload
//! are kept in wire form, so that a delivery is a line of text and slices of the block. A block
//! holds what was *proposed*; which of its records were stored, and under which sequences, is
//! decided when it is applied and kept in the index, never in the block.

use bytes::{BufMut, Bytes, BytesMut};

use crate::time::Timestamp;

/// Version byte of the layout above.
pub const BLOCK_VERSION: u8 = 1;
/// Version byte of a block whose records carry a [`Tag`].
pub const TAGGED_VERSION: u8 = 2;
const BLOCK_HEADER: usize = 1 + 8 + 4;
const RECORD_HEADER: usize = 4 + 4 + 2 + 4;

/// Who proposed a record, and what is done with it beyond storing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tag {
    /// A client published it.
    #[default]
    Client,
    /// It marks that the last message of its subject expired.
    Marker,
    /// A copy of a message of the origin of a mirror.
    Mirror {
        /// Sequence that the copy before it got, 0 for none.
        previous: u64,
        /// Its own, in both streams.
        seq: u64,
        /// When the origin stored it.
        time: Timestamp,
    },
    /// A copy of a message of a source.
    Source {
        /// Which source, [`crate::stream::source_id`].
        id: u64,
        /// Sequence in the source of the copy before it, 0 for none.
        previous: u64,
        /// Its sequence in the source.
        seq: u64,
    },
    /// A client's increment of a counter, with the sum that the server found.
    Counter,
    /// A schedule produced it.
    Schedule {
        /// Sequence of the message of the schedule.
        seq: u64,
        /// When it was due.
        due: Timestamp,
    },
    /// A message of a batch that is published fast.
    Fast {
        /// Which batch, a hash of its id.
        batch: u64,
        /// Nothing behind a refused message of the batch is stored.
        is_strict: bool,
        /// Its body is the new sum of a counter.
        is_counted: bool,
    },
    /// It is stored with the others of its block or not at all.
    Batch {
        /// Its place among them, from 0.
        index: u64,
        /// How many they are.
        total: u64,
    },
}

impl Tag {
    fn encode(self, out: &mut BytesMut) {
        let (kind, numbers) = match self {
            Self::Client => (0, None),
            Self::Marker => (1, None),
            Self::Mirror {
                previous,
                seq,
                time,
            } => (2, Some([previous, seq, time.0.cast_unsigned()])),
            Self::Source { id, previous, seq } => (3, Some([id, previous, seq])),
            Self::Batch { index, total } => (4, Some([index, total, 0])),
            Self::Counter => (5, None),
            Self::Fast {
                batch,
                is_strict,
                is_counted,
            } => {
                let numbers = [batch, u64::from(is_strict), u64::from(is_counted)];
                (7, Some(numbers))
            }
            Self::Schedule { seq, due } => (6, Some([seq, due.0.cast_unsigned(), 0])),
        };
        out.put_u8(if numbers.is_some() { 1 + 3 * 8 } else { 1 });
        out.put_u8(kind);
        for number in numbers.iter().flatten() {
            out.put_u64_le(*number);
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (numbers, rest) = rest.as_chunks::<8>();
        let number = |at: usize| numbers.get(at).map(|bytes| u64::from_le_bytes(*bytes));
        let (tag, count) = match kind {
            0 => (Self::Client, 0),
            1 => (Self::Marker, 0),
            2 => {
                let tag = Self::Mirror {
                    previous: number(0)?,
                    seq: number(1)?,
                    time: Timestamp(number(2)?.cast_signed()),
                };
                (tag, 3)
            }
            3 => {
                let tag = Self::Source {
                    id: number(0)?,
                    previous: number(1)?,
                    seq: number(2)?,
                };
                (tag, 3)
            }
            4 => {
                let tag = Self::Batch {
                    index: number(0)?,
                    total: number(1)?,
                };
                (tag, 3)
            }
            5 => (Self::Counter, 0),
            6 => {
                let tag = Self::Schedule {
                    seq: number(0)?,
                    due: Timestamp(number(1)?.cast_signed()),
                };
                (tag, 3)
            }
            7 => {
                let tag = Self::Fast {
                    batch: number(0)?,
                    is_strict: number(1)? != 0,
                    is_counted: number(2)? != 0,
                };
                (tag, 3)
            }
            _ => return None,
        };
        (rest.is_empty() && numbers.len() == count).then_some(tag)
    }
}

/// Collects the records of a block.
#[derive(Debug)]
pub struct BlockBuilder {
    buffer: BytesMut,
    base: Timestamp,
    count: u32,
    is_tagged: bool,
}

/// Bytes a block has room for at first.
const FIRST_ROOM: usize = 512;

impl BlockBuilder {
    /// An empty block whose records carry times from `base` on.
    #[must_use]
    pub fn new(base: Timestamp) -> Self {
        Self::of_version(base, BLOCK_VERSION)
    }

    /// The same for records that carry a [`Tag`].
    #[must_use]
    pub fn tagged(base: Timestamp) -> Self {
        Self::of_version(base, TAGGED_VERSION)
    }

    fn of_version(base: Timestamp, version: u8) -> Self {
        let mut buffer = BytesMut::with_capacity(FIRST_ROOM);
        buffer.put_u8(version);
        buffer.put_i64_le(base.0);
        buffer.put_u32_le(0);
        Self {
            buffer,
            base,
            count: 0,
            is_tagged: version == TAGGED_VERSION,
        }
    }

    /// Makes room for a block of so many bytes.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Self {
        self.buffer.reserve(bytes.saturating_sub(self.buffer.len()));
        self
    }

    /// Whether the records carry a [`Tag`].
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        self.is_tagged
    }

    /// Adds a record. `time` must not lie before the base nor 4 s after it; it is clamped.
    pub fn push(&mut self, time: Timestamp, subject: &[u8], header: &[u8], payload: &[u8]) {
        self.push_tagged(Tag::Client, time, subject, header, payload);
    }

    /// The same for a record with a tag, which an untagged block does not keep.
    pub fn push_tagged(
        &mut self,
        tag: Tag,
        time: Timestamp,
        subject: &[u8],
        header: &[u8],
        payload: &[u8],
    ) {
        debug_assert!(
            self.is_tagged || tag == Tag::Client,
            "the tag would be lost"
        );
        let delta = u32::try_from(time.0.saturating_sub(self.base.0).max(0)).unwrap_or(u32::MAX);
        let len = RECORD_HEADER - 4 + subject.len() + header.len() + payload.len();
        let start = self.buffer.len();
        self.buffer.reserve(len + 4);
        self.buffer
            .put_u32_le(u32::try_from(len).expect("a record is bounded by max_payload"));
        self.buffer.put_u32_le(delta);
        self.buffer
            .put_u16_le(u16::try_from(subject.len()).expect("a subject fits a control line"));
        self.buffer
            .put_u32_le(u32::try_from(header.len()).expect("bounded by max_payload"));
        if self.is_tagged {
            let before = self.buffer.len();
            tag.encode(&mut self.buffer);
            let len = len + self.buffer.len() - before;
            let len = u32::try_from(len).expect("a record is bounded by max_payload");
            self.buffer[start..start + 4].copy_from_slice(&len.to_le_bytes());
        }
        self.buffer.put_slice(subject);
        self.buffer.put_slice(header);
        self.buffer.put_slice(payload);
        self.count += 1;
    }

    /// Records so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no record was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The finished block.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        self.buffer[9..13].copy_from_slice(&self.count.to_le_bytes());
        if self.buffer.capacity() > 2 * self.buffer.len() {
            // Blocks are kept in memory for a while, and room is not worth keeping.
            return Bytes::copy_from_slice(&self.buffer);
        }
        self.buffer.freeze()
    }
}

/// Offsets of one record inside its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSpan {
    /// When it was proposed.
    pub time: Timestamp,
    subject: u32,
    header: u32,
    payload: u32,
    end: u32,
}

impl RecordSpan {
    /// Stands for a sequence without a message.
    #[must_use]
    pub(crate) fn nothing(time: Timestamp) -> Self {
        Self {
            time,
            subject: 0,
            header: 0,
            payload: 0,
            end: 0,
        }
    }

    /// The subject, out of the block this span belongs to.
    #[must_use]
    pub fn subject<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        block
            .get(self.subject as usize..self.header as usize)
            .unwrap_or(&[])
    }

    /// The header block, empty when there is none.
    #[must_use]
    pub fn header<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        block
            .get(self.header as usize..self.payload as usize)
            .unwrap_or(&[])
    }

    /// The payload.
    #[must_use]
    pub fn payload<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        block
            .get(self.payload as usize..self.end as usize)
            .unwrap_or(&[])
    }

    /// Header and payload together, as they follow each other on the wire.
    #[must_use]
    pub fn body<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        block
            .get(self.header as usize..self.end as usize)
            .unwrap_or(&[])
    }

    /// Bytes this message counts for in stream limits: subject, header, payload and the fixed
    /// overhead that nats-server's file store adds (22 bytes, 4 more with a header).
    #[must_use]
    pub fn stored_size(&self) -> u64 {
        let raw = u64::from(self.end - self.subject);
        let overhead = if self.header == self.payload {
            22 + 8
        } else {
            22 + 4 + 8
        };
        raw + overhead
    }
}

/// Walks the records of a block; stops at the first one that does not fit.
#[derive(Debug)]
pub struct Records<'a> {
    block: &'a [u8],
    base: i64,
    at: usize,
    left: u32,
    is_tagged: bool,
    tag: Tag,
}

/// Whether the records of `block` carry tags.
#[must_use]
pub fn is_tagged(block: &[u8]) -> bool {
    block.first() == Some(&TAGGED_VERSION)
}

/// The records of `block`, or `None` when it is no block this version understands.
#[must_use]
pub fn records(block: &[u8]) -> Option<Records<'_>> {
    if block.len() < BLOCK_HEADER || !matches!(block[0], BLOCK_VERSION | TAGGED_VERSION) {
        return None;
    }
    let base = i64::from_le_bytes(block[1..9].try_into().ok()?);
    let left = u32::from_le_bytes(block[9..13].try_into().ok()?);
    Some(Records {
        block,
        base,
        at: BLOCK_HEADER,
        left,
        is_tagged: block[0] == TAGGED_VERSION,
        tag: Tag::Client,
    })
}

impl<'a> Records<'a> {
    /// Records that follow each other somewhere in a block with this base and these tags, as many
    /// as there are in `bytes`.
    pub(crate) fn part(bytes: &'a [u8], base: i64, is_tagged: bool) -> Self {
        Self {
            block: bytes,
            base,
            at: 0,
            left: u32::MAX,
            is_tagged,
            tag: Tag::Client,
        }
    }

    /// What times are counted from.
    pub(crate) fn base(&self) -> i64 {
        self.base
    }

    /// Whether the records carry tags.
    pub(crate) fn is_tagged(&self) -> bool {
        self.is_tagged
    }

    /// Where the next record begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// How many records the block says it has from here on.
    #[must_use]
    pub fn declared(&self) -> u32 {
        self.left
    }

    /// The tag of the record given last.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.tag
    }
}

impl Iterator for Records<'_> {
    type Item = RecordSpan;

    fn next(&mut self) -> Option<RecordSpan> {
        if self.left == 0 {
            return None;
        }
        let head = self.block.get(self.at..self.at + RECORD_HEADER)?;
        let len = u32::from_le_bytes(head[0..4].try_into().ok()?) as usize;
        let delta = u32::from_le_bytes(head[4..8].try_into().ok()?);
        let subject_len = u16::from_le_bytes(head[8..10].try_into().ok()?) as usize;
        let header_len = u32::from_le_bytes(head[10..14].try_into().ok()?) as usize;
        let mut subject = self.at + RECORD_HEADER;
        let end = self.at.checked_add(4)?.checked_add(len)?;
        let mut time = Timestamp(self.base.saturating_add(i64::from(delta)));
        if self.is_tagged {
            let tag_len = usize::from(*self.block.get(subject)?);
            subject += 1 + tag_len;
            self.tag = Tag::decode(self.block.get(subject - tag_len..subject)?)?;
            if let Tag::Mirror { time: origin, .. } = self.tag {
                time = origin;
            }
        }
        let header = subject.checked_add(subject_len)?;
        let payload = header.checked_add(header_len)?;
        if payload > end || end > self.block.len() {
            return None;
        }
        self.at = end;
        self.left -= 1;
        Some(RecordSpan {
            time,
            subject: u32::try_from(subject).ok()?,
            header: u32::try_from(header).ok()?,
            payload: u32::try_from(payload).ok()?,
            end: u32::try_from(end).ok()?,
        })
    }
}

/// One stored message: its place in the stream and a shared view of the block it lies in.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Sequence in the stream.
    pub seq: crate::StreamSeq,
    /// The block, or a part of it, shared.
    pub block: Bytes,
    /// Where in those bytes.
    pub span: RecordSpan,
}

impl StoredMessage {
    /// When it was proposed.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.span.time
    }
    /// Its subject.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        self.span.subject(&self.block)
    }
    /// Its header block, empty when there is none.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        self.span.header(&self.block)
    }
    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.span.payload(&self.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut builder = BlockBuilder::new(Timestamp(1000));
        builder.push(Timestamp(1001), b"a.b", b"", b"hello");
        builder.push(Timestamp(1002), b"c", b"NATS/1.0\r\nA: b\r\n\r\n", b"");
        let block = builder.finish();
        let spans: Vec<_> = records(&block).expect("a block").collect();
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0].subject(&block), b"a.b");
        assert_eq!(spans[0].payload(&block), b"hello");
        assert_eq!(spans[1].header(&block), b"NATS/1.0\r\nA: b\r\n\r\n");
        assert_eq!(spans[1].time, Timestamp(1002));
    }

    #[test]
    fn tags_come_back() {
        let tags = [
            Tag::Client,
            Tag::Marker,
            Tag::Mirror {
                previous: 1,
                seq: 5,
                time: Timestamp(-7),
            },
            Tag::Source {
                id: u64::MAX,
                previous: 0,
                seq: 9,
            },
            Tag::Batch { index: 2, total: 3 },
            Tag::Counter,
            Tag::Schedule {
                seq: 4,
                due: Timestamp(9),
            },
            Tag::Fast {
                batch: 1,
                is_strict: true,
                is_counted: false,
            },
            Tag::Fast {
                batch: 2,
                is_strict: false,
                is_counted: true,
            },
        ];
        let mut builder = BlockBuilder::tagged(Timestamp(1000));
        for tag in tags {
            builder.push_tagged(tag, Timestamp(1001), b"a", b"", b"x");
        }
        let block = builder.finish();
        let mut records = records(&block).expect("a block");
        for tag in tags {
            let span = records.next().expect("a record");
            assert_eq!(records.tag(), tag);
            assert_eq!(span.subject(&block), b"a");
            assert_eq!(span.payload(&block), b"x");
            let time = match tag {
                Tag::Mirror { time, .. } => time,
                _ => Timestamp(1001),
            };
            assert_eq!(span.time, time);
        }
        assert!(records.next().is_none());
    }

    #[test]
    fn a_cut_block_gives_the_whole_records_only() {
        let mut builder = BlockBuilder::new(Timestamp(0));
        builder.push(Timestamp(0), b"a", b"", b"x");
        builder.push(Timestamp(0), b"b", b"", b"y");
        let block = builder.finish();
        for cut in 0..block.len() {
            let count = records(&block[..cut]).map_or(0, Iterator::count);
            assert!(count <= 1, "cut at {cut} gave {count}");
        }
    }
}
