//! Bytes on their way to one socket.
//!
//! A [`ByteQueue`] is a sequence of chunks and a growing tail. Small messages are copied into the
//! tail; large payloads are shared between their receivers as chunks. Buffers travel: a publisher
//! fills one, gives it to the receiver's queue whole, the writer takes the queue whole and returns
//! the empty buffer to the [`Buffers`] of its thread. A connection at rest holds none.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// A tail longer than this becomes a chunk, so that growing copies little.
const TAIL_BYTES: usize = 128 * 1024;
/// Appending up to this many bytes copies them instead of adding a chunk.
const COPY_BYTES: usize = 8 * 1024;

#[derive(Debug)]
enum Chunk {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks`, those already written included.
    chunk_bytes: usize,
    tail: Vec<u8>,
    /// Bytes of the first chunk (or of the tail, when there is no chunk) that are written.
    written: usize,
}

impl ByteQueue {
    /// A queue whose tail grows in `buffer`, which must be empty.
    pub(crate) fn with_buffer(buffer: Vec<u8>) -> Self {
        debug_assert!(buffer.is_empty());
        Self {
            tail: buffer,
            ..Self::default()
        }
    }

    /// Bytes that wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.chunk_bytes + self.tail.len() - self.written
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.len() == self.written
    }

    /// Where to append.
    #[inline]
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.len() >= TAIL_BYTES {
            self.seal();
        }
        &mut self.tail
    }

    /// Appends bytes without copying them.
    pub(crate) fn push_shared(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.seal();
        self.chunk_bytes += bytes.len();
        self.chunks.push_back(Chunk::Shared(bytes));
    }

    /// Makes the tail a chunk.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.chunk_bytes += tail.len();
            self.chunks.push_back(Chunk::Own(tail));
        }
    }

    /// Moves everything of `other` behind what is here; `other` is left empty, perhaps with a
    /// buffer.
    pub(crate) fn append(&mut self, other: &mut Self) {
        debug_assert_eq!(other.written, 0);
        if self.is_empty() {
            self.clear();
            std::mem::swap(self, other);
            return;
        }
        if other.chunks.is_empty()
            && other.tail.len() <= COPY_BYTES
            && self.tail.len() + other.tail.len() <= TAIL_BYTES
        {
            self.tail.extend_from_slice(&other.tail);
            other.tail.clear();
            return;
        }
        self.seal();
        self.chunks.append(&mut other.chunks);
        self.chunk_bytes += std::mem::take(&mut other.chunk_bytes);
        self.tail = std::mem::take(&mut other.tail);
    }

    /// Throws everything away but a buffer.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.chunk_bytes = 0;
        self.tail.clear();
        self.written = 0;
    }

    /// The empty buffer of a queue that is empty, for [`Buffers::put`].
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        debug_assert!(self.is_empty());
        self.clear();
        std::mem::take(&mut self.tail)
    }

    /// The bytes that wait, as slices for one vectored write; returns how many slices were set.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.written;
        let tail = (!self.tail.is_empty()).then_some(self.tail.as_slice());
        let all = self.chunks.iter().map(Chunk::as_slice).chain(tail);
        let mut count = 0;
        for (slot, bytes) in into.iter_mut().zip(all) {
            *slot = IoSlice::new(&bytes[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// Forgets the first `count` bytes. Buffers that became empty go to `buffers`.
    pub(crate) fn advance(&mut self, count: usize, buffers: &mut Buffers) {
        self.written += count;
        while let Some(first) = self.chunks.front() {
            let len = first.as_slice().len();
            if self.written < len {
                return;
            }
            self.written -= len;
            self.chunk_bytes -= len;
            if let Some(Chunk::Own(buffer)) = self.chunks.pop_front() {
                buffers.put(buffer);
            }
        }
        if self.written == self.tail.len() {
            self.tail.clear();
            self.written = 0;
        }
    }
}

/// Empty buffers of one thread, to be used again.
#[derive(Debug)]
pub(crate) struct Buffers {
    own: Vec<Vec<u8>>,
    shared: BufferPool,
}

/// Empty buffers that threads pass to each other: one thread fills what another one empties.
#[derive(Clone, Debug, Default)]
pub(crate) struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

/// Buffers outside these capacities are not worth keeping.
const KEPT_CAPACITY: std::ops::RangeInclusive<usize> = 1024..=512 * 1024;
const OWN_BUFFERS: usize = 16;
const SHARED_BUFFERS: usize = 32;

impl Buffers {
    pub(crate) fn new(shared: BufferPool) -> Self {
        Self {
            own: Vec::new(),
            shared,
        }
    }

    /// An empty buffer, with or without room.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.own
            .pop()
            .or_else(|| self.shared.0.lock().pop())
            .unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        if !KEPT_CAPACITY.contains(&buffer.capacity()) {
            return;
        }
        buffer.clear();
        if self.own.len() < OWN_BUFFERS {
            self.own.push(buffer);
            return;
        }
        let mut shared = self.shared.0.lock();
        if shared.len() < SHARED_BUFFERS {
            shared.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(queue: &mut ByteQueue, step: usize, buffers: &mut Buffers) -> Vec<u8> {
        let mut out = Vec::new();
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = queue.slices(&mut slices);
            let flat: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            let taken = step.clamp(1, flat.len());
            out.extend_from_slice(&flat[..taken]);
            queue.advance(taken, buffers);
        }
        out
    }

    #[derive(Clone, Debug)]
    enum Piece {
        Copied(usize),
        Shared(usize),
        Appended(usize, usize),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let size = prop_oneof![0_usize..50, 5_000_usize..20_000, 100_000_usize..150_000];
        prop_oneof![
            size.clone().prop_map(Piece::Copied),
            size.clone().prop_map(Piece::Shared),
            (size.clone(), size).prop_map(|(a, b)| Piece::Appended(a, b)),
        ]
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            pieces in prop::collection::vec(piece(), 0..12),
            step in 1_usize..200_000,
        ) {
            let mut buffers = Buffers::new(BufferPool::default());
            let mut queue = ByteQueue::default();
            let mut expected = Vec::new();
            for (n, piece) in pieces.into_iter().enumerate() {
                let fill = |len| vec![u8::try_from(n).unwrap_or(0); len];
                match piece {
                    Piece::Copied(len) => {
                        queue.tail().extend_from_slice(&fill(len));
                        expected.extend(fill(len));
                    }
                    Piece::Shared(len) => {
                        queue.push_shared(Bytes::from(fill(len)));
                        expected.extend(fill(len));
                    }
                    Piece::Appended(a, b) => {
                        let mut other = ByteQueue::with_buffer(buffers.take());
                        other.tail().extend_from_slice(&fill(a));
                        if b > 1000 {
                            other.push_shared(Bytes::from(fill(b)));
                        } else {
                            other.tail().extend_from_slice(&fill(b));
                        }
                        queue.append(&mut other);
                        prop_assert!(other.is_empty());
                        buffers.put(other.take_buffer());
                        expected.extend(fill(a));
                        expected.extend(fill(b));
                    }
                }
                prop_assert_eq!(queue.len(), expected.len());
            }
            prop_assert!(drain(&mut queue, step, &mut buffers) == expected);
        }
    }

    #[test]
    fn appending_to_an_empty_queue_moves_the_buffer() {
        let mut staged = ByteQueue::default();
        staged.tail().extend_from_slice(&[1; 5000]);
        let address = staged.tail.as_ptr();
        let mut queue = ByteQueue::default();
        queue.append(&mut staged);
        assert_eq!(queue.tail.as_ptr(), address);
    }
}
