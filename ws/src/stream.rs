//! The byte stream inside a WebSocket.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{
    CloseCode, Control as ControlCode, Data, OpCode,
};

use crate::deflate::{self, Corrupt, Inflater};
use crate::frame::{
    Control, Decoder, Limits, MAX_CONTROL_BYTES, Rules, Violation, put_compressed, put_control,
    put_header,
};

/// Pings answered per second; one more closes the connection.
const MAX_PINGS_PER_SECOND: u32 = 10;
/// Bytes read at a time where messages may be compressed.
const CHUNK_BYTES: usize = 8 * 1024;
/// Most slices of one vectored write.
const MAX_SLICES: usize = 64;

/// A WebSocket connection after its upgrade, as a stream of bytes.
///
/// Reading gives the payload of the client's data frames, one behind the other. A close frame is
/// the end of the stream; what a client must not do is an error of kind `InvalidData` that holds a
/// [`Violation`]. Writing puts each write into binary frames of its own; large writes are cut for
/// browsers. Shutting down sends a close frame.
///
/// A frame announces its length before its payload is out. When a write takes only part of the
/// bytes, the next write must go on with the rest of them, as it does for every stream of bytes;
/// a connection that is shut down instead ends without a close frame.
///
/// Pings are answered while reading and while writing. Reader and writer may be two tasks.
#[derive(Debug)]
pub struct WsStream<S> {
    inner: S,
    decoder: Decoder,
    pings: PingBudget,
    ended: Option<Ended>,
    /// The ping to answer; an older one that was not answered is forgotten.
    pong: Option<Vec<u8>>,
    close: Close,
    /// Bytes that go out before any payload: control frames, then at most one frame header.
    head: Vec<u8>,
    head_sent: usize,
    /// Payload bytes the last frame header promised and that are not written.
    promised: usize,
    max_frame_bytes: usize,
    compressed: Option<Box<Compressed>>,
    /// A write waits for the socket; its task, not the reader's, must be woken.
    is_writer_waiting: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    ByPeer,
    By(Violation),
}

#[derive(Debug)]
enum Close {
    /// What to send when the stream is shut down.
    Later {
        code: CloseCode,
        reason: String,
    },
    /// To be sent at the next frame boundary. No code: the client gave none either.
    Now {
        code: Option<CloseCode>,
        reason: String,
    },
    Sent,
}

impl<S> WsStream<S> {
    /// Wraps a connection whose upgrade is done. Frames carry at most `max_frame_bytes`.
    #[must_use]
    pub fn new(inner: S, limits: Limits, max_frame_bytes: usize) -> Self {
        Self {
            inner,
            decoder: Decoder::new(limits),
            pings: PingBudget::default(),
            ended: None,
            pong: None,
            close: Close::Later {
                code: CloseCode::Normal,
                reason: String::new(),
            },
            head: Vec::new(),
            head_sent: 0,
            promised: 0,
            max_frame_bytes: max_frame_bytes.max(1),
            compressed: None,
            is_writer_waiting: false,
        }
    }

    /// The same by these rules. Compressed messages are cut into frames of `max_compressed_bytes`.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules, max_compressed_bytes: usize) -> Self {
        self.decoder = self.decoder.with_rules(rules);
        self.compressed = rules.compression.then(|| {
            Box::new(Compressed {
                raw: Vec::new(),
                at: 0,
                part: None,
                inflater: None,
                made: 0,
                max_frame_bytes: max_compressed_bytes.max(1),
            })
        });
        self
    }

    /// The connection below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Changes the bounds on messages, from the next frame on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.decoder.set_limits(limits);
    }

    /// What the close frame will say when the stream is shut down; without this, 1000 and nothing.
    /// The reason is cut to 123 bytes. Too late once a close frame was sent or is due.
    pub fn set_close(&mut self, code: CloseCode, reason: &str) {
        if let Close::Later { .. } = self.close {
            self.close = Close::Later {
                code,
                reason: reason.to_owned(),
            };
        }
    }

    /// Takes frames apart in the caller's buffer; gives how many bytes of it are payload.
    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        let (decoder, mut controls) = self.receiver();
        let (len, result) = decoder.decode(bytes, |control| controls.take(control));
        if let Err(violation) = result {
            self.violated(violation);
        }
        len
    }

    /// The decoder, and what its control frames are for.
    fn receiver(&mut self) -> (&mut Decoder, Controls<'_>) {
        let Self {
            decoder,
            pings,
            pong,
            ended,
            close,
            ..
        } = self;
        let controls = Controls {
            pings,
            pong,
            ended,
            close,
        };
        (decoder, controls)
    }

    fn violated(&mut self, violation: Violation) {
        self.decoder.end();
        self.ended = Some(Ended::By(violation));
        if !matches!(self.close, Close::Sent) {
            let reason = violation.reason.to_owned();
            self.close = Close::Now {
                code: Some(violation.code),
                reason,
            };
        }
    }

    fn has_control_due(&self) -> bool {
        self.pong.is_some() || matches!(self.close, Close::Now { .. })
    }

    /// Puts what is due into the head, at a frame boundary.
    fn queue_controls(&mut self) {
        if self.promised > 0 || matches!(self.close, Close::Sent) {
            return;
        }
        if let Some(payload) = self.pong.take() {
            put_control(&mut self.head, ControlCode::Pong, &payload);
        }
        if let Close::Now { code, reason } = &self.close {
            let mut payload = Vec::new();
            if let Some(code) = code {
                payload.extend(u16::from(code).to_be_bytes());
                payload.extend(cut(reason, MAX_CONTROL_BYTES - 2).as_bytes());
            }
            put_control(&mut self.head, ControlCode::Close, &payload);
            self.close = Close::Sent;
        }
    }

    /// Begins a frame for up to `len` bytes, unless one is open.
    fn begin_frame(&mut self, len: usize) {
        if self.promised == 0 {
            self.promised = len.min(self.max_frame_bytes);
            put_header(&mut self.head, OpCode::Data(Data::Binary), self.promised);
        }
    }

    /// Accounts for `written` bytes of the head and the payload behind it; gives how many of them
    /// were payload.
    fn wrote(&mut self, written: usize) -> usize {
        let head = written.min(self.head.len() - self.head_sent);
        self.head_sent += head;
        if self.head_sent == self.head.len() {
            self.head.clear();
            self.head_sent = 0;
        }
        let payload = written - head;
        self.promised -= payload;
        payload
    }
}

impl<S: AsyncWrite + Unpin> WsStream<S> {
    /// Writes out the head alone.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.head_sent < self.head.len() {
            let head = &self.head[self.head_sent..];
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, head))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends controls that are due as far as the socket takes them; the writer does the rest.
    fn try_controls(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let due = self.has_control_due() || self.head_sent < self.head.len();
        if !due || self.is_writer_waiting || self.promised > 0 {
            return Ok(());
        }
        self.queue_controls();
        match self.poll_head(cx) {
            Poll::Ready(Ok(())) => match Pin::new(&mut self.inner).poll_flush(cx) {
                Poll::Ready(result) => result,
                Poll::Pending => Ok(()),
            },
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(()),
        }
    }

    /// Takes bytes into a compressed message. It may lie in the head when this returns, and is
    /// written before anything else, at the latest when the stream is flushed.
    fn poll_compressed(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(cx))?;
        let Some(compressed) = &self.compressed else {
            return Poll::Ready(Ok(0));
        };
        let mut room = deflate::MAX_CHUNK;
        let parts = bufs.iter().map(|buf| {
            let part = &buf[..buf.len().min(room)];
            room -= part.len();
            part
        });
        let mut payload = Vec::new();
        let mut taken = 0;
        deflate::deflate(parts.inspect(|part| taken += part.len()), &mut payload);
        put_compressed(&mut self.head, &payload, compressed.max_frame_bytes);
        match self.poll_head(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        loop {
            self.queue_controls();
            if matches!(self.close, Close::Sent) {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if self.compressed.is_some() && self.promised == 0 && total > deflate::MIN_BYTES {
                return self.poll_compressed(cx, bufs);
            }
            self.begin_frame(total);
            if !self.inner.is_write_vectored() {
                ready!(self.poll_head(cx))?;
            }
            let head = &self.head[self.head_sent..];
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = gather(&mut slices, head, bufs, self.promised);
            let slices = &slices[..count];
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let payload = self.wrote(written);
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }
}

/// What control frames change.
struct Controls<'s> {
    pings: &'s mut PingBudget,
    pong: &'s mut Option<Vec<u8>>,
    ended: &'s mut Option<Ended>,
    close: &'s mut Close,
}

impl Controls<'_> {
    fn take(&mut self, control: Control<'_>) -> Result<(), Violation> {
        match control {
            Control::Pong => {}
            Control::Ping(payload) => {
                self.pings.spend(Instant::now())?;
                *self.pong = Some(payload.to_vec());
            }
            Control::Close(code) => {
                *self.ended = Some(Ended::ByPeer);
                if !matches!(self.close, Close::Sent) {
                    *self.close = Close::Now {
                        code,
                        reason: String::new(),
                    };
                }
            }
        }
        Ok(())
    }
}

/// Messages on their way through a decompressor.
#[derive(Debug)]
struct Compressed {
    /// What came from the socket; holds nothing while there is nothing to do.
    raw: Vec<u8>,
    /// How much of it is used.
    at: usize,
    /// The part of a message being given out.
    part: Option<Pending>,
    inflater: Option<Inflater>,
    /// Bytes inflated from this message.
    made: u64,
    /// Most bytes of a frame of a compressed message to the client.
    max_frame_bytes: usize,
}

/// A part of a message that lies in [`Compressed::raw`].
#[derive(Clone, Copy, Debug)]
struct Pending {
    start: usize,
    end: usize,
    is_compressed: bool,
    is_last: bool,
}

const TOO_LARGE: Violation = Violation {
    code: CloseCode::Size,
    reason: "message is too large",
};
const CORRUPT: Violation = Violation {
    code: CloseCode::Invalid,
    reason: "message cannot be inflated",
};

impl Compressed {
    /// Gives out payload of the part at hand; 0 when it is used up.
    fn give(&mut self, part: Pending, out: &mut [u8], limit: u64) -> Result<usize, Violation> {
        let input = &self.raw[part.start..part.end];
        if !part.is_compressed {
            let len = input.len().min(out.len());
            out[..len].copy_from_slice(&input[..len]);
            let start = part.start + len;
            self.part = (start < part.end).then_some(Pending { start, ..part });
            return Ok(len);
        }
        let left = usize::try_from(limit - self.made).unwrap_or(usize::MAX);
        // At the limit there must be nothing more to come.
        let mut spill = [0];
        let out = if left == 0 {
            &mut spill
        } else {
            let room = out.len().min(left);
            &mut out[..room]
        };
        let inflater = self.inflater.get_or_insert_with(Inflater::new);
        let (taken, mut made) = inflater.inflate(input, out).map_err(|Corrupt| CORRUPT)?;
        let start = part.start + taken;
        self.part = Some(Pending { start, ..part });
        if inflater.is_corrupt() {
            // What came before it goes out first; then the inflater says so.
        } else if made < out.len() && start == part.end {
            let last = if part.is_last {
                inflater.finish(&mut out[made..])
            } else {
                Ok(0)
            };
            match last {
                Ok(more) => {
                    made += more;
                    if made < out.len() && !inflater.is_corrupt() {
                        self.part = None;
                    }
                }
                // As above.
                Err(Corrupt) if made > 0 => {}
                Err(Corrupt) => return Err(CORRUPT),
            }
        } else if taken == 0 && made == 0 {
            // There is room and there are bytes, and neither is used.
            return Err(CORRUPT);
        }
        self.made += made as u64;
        if self.made > limit {
            return Err(TOO_LARGE);
        }
        if self.part.is_none() && part.is_last {
            self.inflater = None;
            self.made = 0;
        }
        Ok(made)
    }
}

/// Fills `slices` with the head and up to `limit` bytes of `bufs`; gives how many were filled.
fn gather<'a>(
    slices: &mut [IoSlice<'a>],
    head: &'a [u8],
    bufs: &'a [IoSlice<'_>],
    mut limit: usize,
) -> usize {
    let mut count = 0;
    let mut slots = slices.iter_mut();
    let mut put = |bytes: &'a [u8]| {
        if bytes.is_empty() {
            return true;
        }
        let Some(slot) = slots.next() else {
            return false;
        };
        *slot = IoSlice::new(bytes);
        count += 1;
        true
    };
    put(head);
    for buf in bufs {
        let part = &buf[..buf.len().min(limit)];
        if limit == 0 || !put(part) {
            break;
        }
        limit -= part.len();
    }
    count
}

impl<S: AsyncRead + AsyncWrite + Unpin> WsStream<S> {
    /// Reads where messages may be compressed; 0 at the end.
    fn poll_inflated(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(mut compressed) = self.compressed.take() else {
            return Poll::Ready(Ok(0));
        };
        let outcome = self.poll_inflated_from(&mut compressed, cx, buf);
        self.compressed = Some(compressed);
        outcome
    }

    fn poll_inflated_from(
        &mut self,
        compressed: &mut Compressed,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(part) = compressed.part {
                let limit = self.decoder.limits().max_message_bytes;
                match compressed.give(part, buf.initialize_unfilled(), limit) {
                    Ok(0) => continue,
                    Ok(len) => {
                        buf.advance(len);
                        return Poll::Ready(Ok(len));
                    }
                    Err(violation) => {
                        self.violated(violation);
                        return Poll::Ready(Ok(0));
                    }
                }
            }
            if compressed.at < compressed.raw.len() {
                let start = compressed.at;
                let (decoder, mut controls) = self.receiver();
                let next = decoder.next_part(&mut compressed.raw[start..], &mut |control| {
                    controls.take(control)
                });
                match next {
                    Ok(part) => {
                        compressed.at += part.taken;
                        let has_end = part.is_compressed && part.is_last;
                        compressed.part = (part.payload > 0 || has_end).then_some(Pending {
                            start,
                            end: start + part.payload,
                            is_compressed: part.is_compressed,
                            is_last: part.is_last,
                        });
                    }
                    Err(violation) => self.violated(violation),
                }
                if self.ended.is_some() {
                    return Poll::Ready(Ok(0));
                }
                continue;
            }
            compressed.raw = Vec::new();
            compressed.at = 0;
            self.try_controls(cx)?;
            let mut chunk = [0; CHUNK_BYTES];
            let mut space = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut space))?;
            if space.filled().is_empty() {
                self.ended = Some(Ended::ByPeer);
                return Poll::Ready(Ok(0));
            }
            compressed.raw.extend_from_slice(space.filled());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.try_controls(cx)?;
            match this.ended {
                Some(Ended::ByPeer) => return Poll::Ready(Ok(())),
                Some(Ended::By(violation)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
                }
                None if buf.remaining() == 0 => return Poll::Ready(Ok(())),
                None => {}
            }
            if this.compressed.is_some() {
                if ready!(this.poll_inflated(cx, buf))? > 0 {
                    this.try_controls(cx)?;
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            let len = this.receive(&mut buf.filled_mut()[before..]);
            buf.set_filled(before + len);
            if len > 0 {
                this.try_controls(cx)?;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = this.poll_frames(cx, bufs);
        this.is_writer_waiting = result.is_pending();
        // A pong that came due inside the frame that is now complete.
        this.try_controls(cx)?;
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.queue_controls();
        let result = match this.poll_head(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.inner).poll_flush(cx),
            other => other,
        };
        this.is_writer_waiting = result.is_pending();
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Close::Later { code, reason } = &mut this.close {
            this.close = Close::Now {
                code: Some(*code),
                reason: std::mem::take(reason),
            };
        }
        this.queue_controls();
        ready!(this.poll_head(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// The longest part of `text` of at most `len` bytes that ends between characters.
fn cut(text: &str, len: usize) -> &str {
    &text[..text.floor_char_boundary(len)]
}

/// How many pings may still be answered in this second.
#[derive(Debug, Default)]
struct PingBudget {
    since: Option<Instant>,
    spent: u32,
}

impl PingBudget {
    fn spend(&mut self, now: Instant) -> Result<(), Violation> {
        let is_over = |since: Instant| now.duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            self.since = Some(now);
            self.spent = 0;
        }
        self.spent += 1;
        if self.spent > MAX_PINGS_PER_SECOND {
            return Err(Violation {
                code: CloseCode::Policy,
                reason: "too many pings",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::deflate::tests::deflated;
    use crate::frame::tests::{close, frame};

    /// A stream and the client's end below it.
    fn pair() -> (WsStream<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(1 << 20);
        (WsStream::new(server, Limits::default(), 65_535), client)
    }

    fn violation(error: &io::Error) -> Violation {
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Violation>());
        *inner.expect("a violation")
    }

    async fn rest(mut client: DuplexStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        client
            .read_to_end(&mut bytes)
            .await
            .expect("the server's end is closed in order");
        bytes
    }

    #[tokio::test]
    async fn bytes_go_both_ways() {
        let (mut server, mut client) = pair();
        client
            .write_all(&frame(0x82, b"PING\r\n"))
            .await
            .expect("room");
        let mut buf = [0; 64];
        assert_eq!(server.read(&mut buf).await.expect("open"), 6);
        assert_eq!(&buf[..6], b"PING\r\n");
        server.write_all(b"PONG\r\n").await.expect("open");
        server.shutdown().await.expect("open");
        drop(server);
        assert_eq!(rest(client).await, b"\x82\x06PONG\r\n\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn a_ping_is_answered_while_reading() {
        let (mut server, mut client) = pair();
        let bytes = [frame(0x89, b"one"), frame(0x89, b"two"), frame(0x82, b"x")].concat();
        client.write_all(&bytes).await.expect("room");
        let mut buf = [0; 64];
        assert_eq!(server.read(&mut buf).await.expect("open"), 1);
        drop(server);
        // Only the last of pings that came together must be answered.
        assert_eq!(rest(client).await, b"\x8a\x03two");
    }

    #[tokio::test]
    async fn a_close_is_echoed_and_ends_the_stream() {
        for (sent, echoed) in [
            (close(1000, b"bye"), &b"\x88\x02\x03\xe8"[..]),
            (close(4321, b""), b"\x88\x02\x10\xe1"),
            (frame(0x88, b""), b"\x88\x00"),
        ] {
            let (mut server, mut client) = pair();
            client
                .write_all(&[frame(0x82, b"last"), sent].concat())
                .await
                .expect("room");
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.expect("a clean end");
            assert_eq!(got, b"last");
            let error = server.write_all(b"late").await.expect_err("closed");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            server.shutdown().await.expect("open");
            drop(server);
            assert_eq!(rest(client).await, echoed);
        }
    }

    #[tokio::test]
    async fn a_violation_comes_after_the_payload_before_it() {
        let (mut server, mut client) = pair();
        let bytes = [frame(0x82, b"ok"), vec![0x82, 0x01, b'x']].concat();
        client.write_all(&bytes).await.expect("room");
        let mut buf = [0; 64];
        assert_eq!(server.read(&mut buf).await.expect("payload"), 2);
        let error = server.read(&mut buf).await.expect_err("unmasked");
        assert_eq!(violation(&error).code, CloseCode::Protocol);
        server.shutdown().await.expect("open");
        drop(server);
        assert_eq!(rest(client).await, b"\x88\x15\x03\xeaframe is not masked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_pings_ends_the_connection() {
        let (mut server, mut client) = pair();
        for second in 0..3 {
            for _ in 0..10 {
                client
                    .write_all(&frame(0x89, &[second]))
                    .await
                    .expect("room");
            }
            client.write_all(&frame(0x82, b"x")).await.expect("room");
            server.read_u8().await.expect("within the budget");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        for _ in 0..11 {
            client.write_all(&frame(0x89, b"")).await.expect("room");
        }
        let error = server.read_u8().await.expect_err("one ping too many");
        assert_eq!(violation(&error).code, CloseCode::Policy);
    }

    #[tokio::test]
    async fn the_reason_for_closing_is_the_callers() {
        let (mut server, client) = pair();
        server.set_close(CloseCode::Away, &"\u{e9}".repeat(100));
        server.shutdown().await.expect("open");
        drop(server);
        let bytes = rest(client).await;
        assert_eq!(&bytes[..4], b"\x88\x7c\x03\xe9");
        assert_eq!(bytes.len(), 2 + 2 + 122);
    }

    #[tokio::test]
    async fn a_browser_gets_small_frames() {
        let (server, client) = duplex(1 << 20);
        let mut server = WsStream::new(server, Limits::default(), 4_096);
        server.write_all(&[b'x'; 10_000]).await.expect("room");
        drop(server);
        let bytes = rest(client).await;
        let mut at = 0;
        for len in [4_096usize, 4_096, 1_808] {
            assert_eq!(bytes[at..at + 2], [0x82, 126]);
            assert_eq!(
                usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])),
                len
            );
            at += 4 + len;
        }
        assert_eq!(at, bytes.len());
    }

    #[tokio::test]
    async fn a_pong_waits_for_the_end_of_a_frame() {
        let (server, mut client) = duplex(8);
        let mut server = WsStream::new(server, Limits::default(), 65_535);
        let taken = server.write(b"0123456789").await.expect("room");
        assert_eq!(taken, 6);
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; 14];
            client.write_all(&frame(0x89, b"")).await.expect("room");
            client.write_all(&frame(0x82, b"x")).await.expect("room");
            client.read_exact(&mut bytes).await.expect("open");
            bytes
        });
        assert_eq!(server.read_u8().await.expect("open"), b'x');
        server.write_all(b"6789").await.expect("open");
        server.flush().await.expect("open");
        let bytes = reading.await.expect("no panic");
        assert_eq!(bytes, b"\x82\x0a0123456789\x8a\x00");
    }

    #[tokio::test]
    async fn an_end_without_close_is_an_end() {
        let (mut server, mut client) = pair();
        client
            .write_all(&frame(0x82, b"abc")[..7])
            .await
            .expect("room");
        drop(client);
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.expect("an end");
        assert_eq!(got, b"a");
    }

    proptest! {
        #[test]
        fn the_stream_is_what_the_client_sent_however_both_sides_cut_it(
            frames in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..300), 0..20,
            ),
            pings in any::<bool>(),
            pipe in 1usize..200,
            read in 1usize..50,
        ) {
            in_runtime(async {
                let (server, mut client) = duplex(pipe);
                let mut server = WsStream::new(server, Limits::default(), 65_535);
                let expected = frames.concat();
                let sending = tokio::spawn(async move {
                    for (at, payload) in frames.iter().enumerate() {
                        if pings && at < 5 {
                            client.write_all(&frame(0x89, b"p")).await.expect("open");
                        }
                        client.write_all(&frame(0x82, payload)).await.expect("open");
                    }
                    client.write_all(&close(1000, b"")).await.expect("open");
                    rest(client).await
                });
                let got = all_of(&mut server, read).await;
                assert_eq!(got, expected);
                server.shutdown().await.expect("open");
                drop(server);
                let answer = sending.await.expect("no panic");
                assert!(answer.ends_with(b"\x88\x02\x03\xe8"));
            });
        }

        #[test]
        fn frames_carry_what_was_written_however_the_socket_takes_it(
            writes in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..300), 0..12,
            ),
            pipe in 1usize..100,
            max_frame in 1usize..200,
        ) {
            in_runtime(async {
                let (server, client) = duplex(pipe);
                let mut server = WsStream::new(server, Limits::default(), max_frame);
                let receiving = tokio::spawn(rest(client));
                for (at, bytes) in writes.iter().enumerate() {
                    if at % 2 == 0 {
                        server.write_all(bytes).await.expect("open");
                    } else {
                        let (mut left, mut right) = bytes.split_at(bytes.len() / 3);
                        while !left.is_empty() || !right.is_empty() {
                            let slices = [IoSlice::new(left), IoSlice::new(right)];
                            let taken = server.write_vectored(&slices).await.expect("open");
                            let from_left = taken.min(left.len());
                            left = &left[from_left..];
                            right = &right[taken - from_left..];
                        }
                    }
                }
                server.shutdown().await.expect("open");
                drop(server);
                let bytes = receiving.await.expect("no panic");
                assert_eq!(payload_of(&bytes, max_frame), writes.concat());
            });
        }
    }

    const COMPRESSED: Rules = Rules {
        compression: true,
        unmasked: false,
    };

    /// A stream with compression and the client's end below it.
    fn compressed_pair(limits: Limits) -> (WsStream<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(1 << 20);
        let server = WsStream::new(server, limits, 65_535).with_rules(COMPRESSED, 4_096);
        (server, client)
    }

    /// A compressed message in one frame.
    fn small(payload: &[u8]) -> Vec<u8> {
        frame(0xc2, &deflated(payload))
    }

    #[tokio::test]
    async fn compressed_and_plain_messages_mix() {
        let (mut server, mut client) = compressed_pair(Limits::default());
        let long = deflated(b"fragments of one message");
        let (first, last) = long.split_at(5);
        let bytes = [
            small(b"one "),
            frame(0x82, b"two "),
            small(b""),
            frame(0x42, first),
            frame(0x89, b"now"),
            frame(0x00, b""),
            frame(0x00, last),
            frame(0x80, b""),
            small(b" end"),
            close(1000, b""),
        ]
        .concat();
        client.write_all(&bytes).await.expect("room");
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.expect("a clean end");
        assert_eq!(got, b"one two fragments of one message end");
        server.shutdown().await.expect("open");
        drop(server);
        assert_eq!(rest(client).await, b"\x8a\x03now\x88\x02\x03\xe8");
    }

    /// The code of the violation that these bytes are.
    async fn compressed_violation(bytes: &[u8], limits: Limits) -> CloseCode {
        let (mut server, mut client) = compressed_pair(limits);
        client.write_all(bytes).await.expect("room");
        let mut got = Vec::new();
        let error = server.read_to_end(&mut got).await.expect_err("a violation");
        violation(&error).code
    }

    #[tokio::test]
    async fn a_bomb_ends_at_the_limit() {
        let limits = Limits {
            max_message_bytes: 100_000,
            ..Limits::default()
        };
        let bomb = small(&vec![0; 1 << 23]);
        assert!(bomb.len() < 100_000);
        assert_eq!(compressed_violation(&bomb, limits).await, CloseCode::Size);
        // Cut into fragments it is the same.
        let bytes = deflated(&vec![0; 1 << 23]);
        let mut fragments = frame(0x42, &bytes[..1_000]);
        for chunk in bytes[1_000..].chunks(1_000) {
            fragments.extend(frame(0x00, chunk));
        }
        assert_eq!(
            compressed_violation(&fragments, limits).await,
            CloseCode::Size
        );
    }

    #[tokio::test]
    async fn what_does_not_inflate_ends_the_connection() {
        let limits = Limits::default();
        for payload in [&[0xff; 50][..], b"\x05abcdefgh"] {
            let code = compressed_violation(&frame(0xc2, payload), limits).await;
            assert_eq!(code, CloseCode::Invalid, "{payload:?}");
        }
    }

    #[tokio::test]
    async fn the_bit_of_compression_has_its_place() {
        let limits = Limits::default();
        for bytes in [
            frame(0xc9, b"ping"),
            frame(0xc8, b""),
            [frame(0x42, &[]), frame(0xc0, &[])].concat(),
            frame(0xa2, b"x"),
            frame(0x92, b"x"),
        ] {
            let code = compressed_violation(&bytes, limits).await;
            assert_eq!(code, CloseCode::Protocol, "{bytes:x?}");
        }
        let (mut server, mut client) = pair();
        client.write_all(&small(b"x")).await.expect("room");
        let error = server.read_u8().await.expect_err("not agreed on");
        assert_eq!(violation(&error).code, CloseCode::Protocol);
    }

    #[tokio::test]
    async fn masks_may_be_left_out_where_that_was_agreed_on() {
        let rules = Rules {
            compression: false,
            unmasked: true,
        };
        let (server, mut client) = duplex(1 << 10);
        let mut server = WsStream::new(server, Limits::default(), 100).with_rules(rules, 100);
        let bytes = [&[0x82, 2, b'h', b'i'][..], &frame(0x82, b"!")].concat();
        client.write_all(&bytes).await.expect("room");
        let mut got = [0; 3];
        server.read_exact(&mut got).await.expect("both kinds");
        assert_eq!(&got, b"hi!");
    }

    #[tokio::test]
    async fn a_compressed_message_is_cut_for_browsers_and_short_ones_are_left_alone() {
        let (mut server, client) = compressed_pair(Limits::default());
        server.write_all(&[b'x'; 64]).await.expect("room");
        // Bytes that do not compress.
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(10_000)
        .collect();
        server.write_all(&noise).await.expect("room");
        server.flush().await.expect("room");
        drop(server);
        let bytes = rest(client).await;
        assert_eq!(bytes[..2], [0x82, 64]);
        let mut at = 66;
        let mut heads = Vec::new();
        let mut message = Vec::new();
        while at < bytes.len() {
            heads.push(bytes[at]);
            let (len, head) = match bytes[at + 1] {
                126 => (
                    usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])),
                    4,
                ),
                len => (usize::from(len), 2),
            };
            assert!(len <= 4_096);
            message.extend_from_slice(&bytes[at + head..at + head + len]);
            at += head + len;
        }
        assert_eq!(heads, [0x42, 0x00, 0x80]);
        let mut out = vec![0; 20_000];
        let (_, made) = Inflater::new().inflate(&message, &mut out).expect("sound");
        assert!(out[..made] == noise);
    }

    proptest! {
        #[test]
        fn compressed_streams_are_what_was_sent_however_they_are_cut(
            frames in proptest::collection::vec(
                (
                    any::<bool>(),
                    prop_oneof![
                        proptest::collection::vec(any::<u8>(), 0..300),
                        proptest::collection::vec(0_u8..2, 0..30_000),
                    ],
                ),
                0..10,
            ),
            pipe in 1usize..200,
            read in 1usize..500,
        ) {
            in_runtime(async {
                let (server, mut client) = duplex(pipe);
                let mut server =
                    WsStream::new(server, Limits::default(), 65_535).with_rules(COMPRESSED, 100);
                let expected: Vec<u8> =
                    frames.iter().flat_map(|(_, payload)| payload.clone()).collect();
                let sending = tokio::spawn(async move {
                    for (is_compressed, payload) in &frames {
                        let bytes = if *is_compressed { small(payload) } else { frame(0x82, payload) };
                        client.write_all(&bytes).await.expect("open");
                    }
                    client.write_all(&close(1000, b"")).await.expect("open");
                    rest(client).await
                });
                let got = all_of(&mut server, read).await;
                assert!(got == expected);
                server.shutdown().await.expect("open");
                drop(server);
                let answer = sending.await.expect("no panic");
                assert!(answer.ends_with(b"\x88\x02\x03\xe8"));
            });
        }

        #[test]
        fn what_the_server_compresses_its_own_reader_understands(
            writes in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 1..300),
                    proptest::collection::vec(0_u8..2, 1..200_000),
                ],
                1..6,
            ),
            pipe in 1usize..5_000,
            max_frame in 1usize..5_000,
        ) {
            in_runtime(async {
                let (server, client) = duplex(pipe);
                let mut server =
                    WsStream::new(server, Limits::default(), max_frame).with_rules(COMPRESSED, max_frame);
                // The other end reads frames without masks.
                let both = Rules { compression: true, unmasked: true };
                let generous = Limits { spare_frames: u64::MAX / 2, ..Limits::default() };
                let mut client = WsStream::new(client, generous, 100).with_rules(both, 100);
                let reading = tokio::spawn(async move {
                    let mut got = Vec::new();
                    client.read_to_end(&mut got).await.expect("nothing wrong");
                    got
                });
                for bytes in &writes {
                    server.write_all(bytes).await.expect("open");
                }
                server.flush().await.expect("open");
                server.shutdown().await.expect("open");
                // The close frame is answered: the server's end stays until then.
                assert!(reading.await.expect("no panic") == writes.concat());
                drop(server);
            });
        }
    }

    fn in_runtime(conversation: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(conversation);
    }

    /// What comes until the end, read in pieces of at most this size.
    async fn all_of(stream: &mut (impl AsyncRead + Unpin), size: usize) -> Vec<u8> {
        let mut got = Vec::new();
        let mut buf = vec![0; size];
        loop {
            match stream.read(&mut buf).await.expect("nothing wrong") {
                0 => return got,
                len => got.extend_from_slice(&buf[..len]),
            }
        }
    }

    /// Payload of unmasked binary frames that end with a close frame.
    fn payload_of(mut bytes: &[u8], max_frame: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        loop {
            let (len, head) = match bytes[1] {
                126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
                len => (usize::from(len), 2),
            };
            let body = &bytes[head..head + len];
            match bytes[0] {
                0x88 => {
                    assert_eq!(bytes.len(), head + len);
                    return payload;
                }
                first => assert_eq!(first, 0x82),
            }
            assert!(len <= max_frame);
            payload.extend_from_slice(body);
            bytes = &bytes[head + len..];
        }
    }
}
