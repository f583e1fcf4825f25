//! The framing of S2: chunks with a checksum, compressed or not.

use minlz::{crc, s2};

use super::ArchiveError;

const STREAM_START: &[u8] = b"\xff\x06\x00\x00S2sTwO";
const COMPRESSED: u8 = 0;
const PLAIN: u8 = 1;
const START: u8 = 0xff;
/// First type of the chunks that may be passed over.
const SKIPPABLE: u8 = 0x80;
/// Plain bytes in one chunk as this writes them.
const BLOCK: usize = 64 << 10;
/// Most plain bytes that a chunk may hold.
const MAX_BLOCK: usize = 4 << 20;
/// Most bytes of a chunk.
const MAX_CHUNK: usize = MAX_BLOCK + MAX_BLOCK / 4;

/// Compresses a stream of bytes.
#[derive(Debug, Default)]
pub struct Packer {
    plain: Vec<u8>,
    packed: Vec<u8>,
    has_begun: bool,
}

impl Packer {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
        let mut done = 0;
        while self.plain.len() - done >= BLOCK {
            let block = done..done + BLOCK;
            done = block.end;
            pack(&self.plain[block], &mut self.has_begun, &mut self.packed);
        }
        self.plain.drain(..done);
    }

    /// No more bytes come.
    pub fn finish(&mut self) {
        let rest = std::mem::take(&mut self.plain);
        if !rest.is_empty() {
            pack(&rest, &mut self.has_begun, &mut self.packed);
        }
    }

    /// Compressed bytes that wait.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.packed.len()
    }

    /// Takes at most this many of them.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let rest = self.packed.split_off(most.min(self.packed.len()));
        std::mem::replace(&mut self.packed, rest)
    }
}

fn pack(block: &[u8], has_begun: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(has_begun, true) {
        out.extend_from_slice(STREAM_START);
    }
    let packed = s2::encode(block);
    let (kind, body) = if packed.len() < block.len() {
        (COMPRESSED, packed.as_slice())
    } else {
        (PLAIN, block)
    };
    out.push(kind);
    let len = u32::try_from(body.len() + 4).expect("a block is small");
    out.extend_from_slice(&len.to_le_bytes()[..3]);
    out.extend_from_slice(&crc::crc(block).to_le_bytes());
    out.extend_from_slice(body);
}

/// Takes a stream of frames apart.
#[derive(Debug, Default)]
pub struct Unpacker {
    input: Vec<u8>,
    has_begun: bool,
}

impl Unpacker {
    /// Adds frames, cut anywhere, and appends what is in the whole ones.
    ///
    /// # Errors
    /// When they are no frames, or a checksum does not match.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        self.input.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.input.get(at..at + 4) {
            let len = usize::from(head[1]) | usize::from(head[2]) << 8 | usize::from(head[3]) << 16;
            if len > MAX_CHUNK {
                return Err(ArchiveError::Compression);
            }
            let kind = head[0];
            let Some(body) = self.input.get(at + 4..at + 4 + len) else {
                break;
            };
            self.has_begun |= kind == START;
            if !self.has_begun {
                return Err(ArchiveError::Compression);
            }
            unpack(kind, body, out)?;
            at += 4 + len;
        }
        self.input.drain(..at);
        Ok(())
    }

    /// Whether the frames ended at the end of one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.input.is_empty()
    }
}

fn unpack(kind: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), ArchiveError> {
    const BAD: ArchiveError = ArchiveError::Compression;
    let before = out.len();
    match kind {
        START => {
            let is_known = matches!(body, b"S2sTwO" | b"sNaPpY");
            return is_known.then_some(()).ok_or(BAD);
        }
        SKIPPABLE.. => return Ok(()),
        COMPRESSED | PLAIN => {}
        _ => return Err(BAD),
    }
    let (sum, block) = body.split_first_chunk::<4>().ok_or(BAD)?;
    if kind == PLAIN {
        if block.len() > MAX_BLOCK {
            return Err(BAD);
        }
        out.extend_from_slice(block);
    } else {
        let (len, _) = s2::decode_len(block).map_err(|_| BAD)?;
        if len > MAX_BLOCK {
            return Err(BAD);
        }
        out.extend_from_slice(&s2::decode(block).map_err(|_| BAD)?);
    }
    if crc::crc(&out[before..]) != u32::from_le_bytes(*sum) {
        return Err(BAD);
    }
    Ok(())
}
