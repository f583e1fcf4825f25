//! Compression of messages (RFC 7692, permessage-deflate).
//!
//! Neither side keeps a context from one message to the next, so that an idle connection needs no
//! window: compressors and decompressors belong to the thread and are lent for one message.
//!
//! Inflating is pulled: a decompressor fills the room its caller has and stops there, so a message
//! that grows a thousandfold costs no more memory than one that does not. How far it may grow
//! altogether is bounded by [`Limits`](crate::Limits).

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What ends every message and is not sent.
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];
/// Messages of this many bytes and fewer are not worth the work.
pub(crate) const MIN_BYTES: usize = 64;
/// Bytes taken into one compressed message.
pub(crate) const MAX_CHUNK: usize = 64 * 1024;
/// Decompressors kept by a thread.
const KEPT: usize = 4;

thread_local! {
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    static DECOMPRESSORS: RefCell<Vec<Decompress>> = const { RefCell::new(Vec::new()) };
}

/// Appends the bytes of `parts`, compressed as one message, to `out`.
pub(crate) fn deflate<'a>(parts: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        for part in parts {
            feed(compressor, part, FlushCompress::None, out);
        }
        feed(compressor, &[], FlushCompress::Sync, out);
    });
    debug_assert!(out.ends_with(TAIL));
    out.truncate(out.len().saturating_sub(TAIL.len()));
}

fn feed(compressor: &mut Compress, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    loop {
        if out.capacity() - out.len() < 256 {
            out.reserve(4096);
        }
        let before = compressor.total_in();
        let status = compressor
            .compress_vec(input, out, flush)
            .expect("a compressor that was reset takes every byte");
        let taken = usize::try_from(compressor.total_in() - before).unwrap_or(input.len());
        input = &input[taken..];
        let is_done = input.is_empty() || matches!(status, Status::BufError);
        if is_done && out.len() < out.capacity() {
            return;
        }
    }
}

/// What cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// A message being inflated.
#[derive(Debug)]
pub(crate) struct Inflater {
    /// `None` only while it is being dropped.
    state: Option<Decompress>,
    /// Bytes of the tail that were fed.
    tail: usize,
    /// What comes next cannot be inflated.
    is_corrupt: bool,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        let kept = DECOMPRESSORS.with_borrow_mut(Vec::pop);
        Self {
            state: Some(kept.unwrap_or_else(|| Decompress::new(false))),
            tail: 0,
            is_corrupt: false,
        }
    }

    /// Inflates from `input` into `out`; gives how many bytes of each were used. When either is
    /// used up, there is no more to do until there is more of it. What comes before something
    /// corrupt is still given; the next call says that it is.
    pub(crate) fn inflate(
        &mut self,
        input: &[u8],
        out: &mut [u8],
    ) -> Result<(usize, usize), Corrupt> {
        let Some(state) = self.state.as_mut().filter(|_| !self.is_corrupt) else {
            return Err(Corrupt);
        };
        let (mut taken, mut made) = (0, 0);
        loop {
            let before = (state.total_in(), state.total_out());
            let status = state.decompress(&input[taken..], &mut out[made..], FlushDecompress::Sync);
            let (in_now, out_now) = (state.total_in() - before.0, state.total_out() - before.1);
            taken += usize::try_from(in_now).map_err(|_| Corrupt)?;
            made += usize::try_from(out_now).map_err(|_| Corrupt)?;
            let Ok(status) = status else {
                self.is_corrupt = true;
                return if made > 0 {
                    Ok((taken, made))
                } else {
                    Err(Corrupt)
                };
            };
            match status {
                // A sender may end its blocks early and begin anew.
                Status::StreamEnd => state.reset(false),
                Status::Ok | Status::BufError if in_now == 0 && out_now == 0 => {
                    return Ok((taken, made));
                }
                Status::Ok | Status::BufError => {}
            }
            if made == out.len() {
                return Ok((taken, made));
            }
        }
    }

    /// Whether nothing more can be inflated.
    pub(crate) fn is_corrupt(&self) -> bool {
        self.is_corrupt
    }

    /// Inflates what is left when the message has no more bytes; nothing when it is done.
    pub(crate) fn finish(&mut self, out: &mut [u8]) -> Result<usize, Corrupt> {
        let (taken, made) = self.inflate(&TAIL[self.tail..], out)?;
        self.tail += taken;
        Ok(made)
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take() else {
            return;
        };
        state.reset(false);
        // The thread may be ending; then there is nothing to keep it in.
        let _ = DECOMPRESSORS.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT {
                kept.push(state);
            }
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        deflate(std::iter::once(bytes), &mut out);
        out
    }

    /// Inflates a message with this much room at a time.
    fn inflated(bytes: &[u8], room: usize) -> Result<Vec<u8>, Corrupt> {
        let mut inflater = Inflater::new();
        let mut all = Vec::new();
        let mut out = vec![0; room];
        let mut rest = bytes;
        loop {
            let (taken, made) = inflater.inflate(rest, &mut out)?;
            rest = &rest[taken..];
            all.extend_from_slice(&out[..made]);
            if made < room {
                break;
            }
        }
        loop {
            let made = inflater.finish(&mut out)?;
            all.extend_from_slice(&out[..made]);
            if made == 0 {
                return Ok(all);
            }
        }
    }

    #[test]
    fn the_examples_of_the_rfc_inflate() {
        let hello: &[&[u8]] = &[
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            // A block without compression.
            &[
                0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            ],
            // A final block.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            // Two blocks.
            &[
                0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ],
        ];
        for bytes in hello {
            for room in [1, 2, 5, 64] {
                assert_eq!(inflated(bytes, room).as_deref(), Ok(&b"Hello"[..]));
            }
        }
        assert_eq!(inflated(b"", 10), Ok(Vec::new()));
        assert_eq!(inflated(&[0], 10), Ok(Vec::new()));
    }

    #[test]
    fn nonsense_is_corrupt() {
        assert_eq!(inflated(&[0xff; 20], 64), Err(Corrupt));
    }

    #[test]
    fn a_bomb_fills_only_the_room_there_is() {
        let bomb = deflated(&vec![0; 1 << 24]);
        assert!(bomb.len() < 1 << 18);
        let mut out = [1; 100];
        let (taken, made) = Inflater::new().inflate(&bomb, &mut out).expect("sound");
        assert_eq!((made, out), (100, [0; 100]));
        assert!(taken < bomb.len());
    }

    proptest! {
        #[test]
        fn what_was_deflated_inflates(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..2000),
                proptest::collection::vec(0_u8..3, 0..100_000),
            ],
            room in 1_usize..5000,
        ) {
            let mut out = b"before".to_vec();
            let middle = bytes.len() / 3;
            deflate([&bytes[..middle], &bytes[middle..]].into_iter(), &mut out);
            prop_assert_eq!(&out[..6], b"before");
            prop_assert!(inflated(&out[6..], room) == Ok(bytes));
        }

        #[test]
        fn foreign_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = inflated(&bytes, 100);
        }
    }
}
