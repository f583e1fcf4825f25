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

use crate::frame::{
    Control, Decoder, Limits, MAX_CONTROL_BYTES, Violation, put_control, put_header,
};

/// Pings answered per second; one more closes the connection.
const MAX_PINGS_PER_SECOND: u32 = 10;
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
            is_writer_waiting: false,
        }
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
        let Self {
            decoder,
            pings,
            pong,
            ended,
            close,
            ..
        } = self;
        let (len, result) = decoder.decode(bytes, |control| {
            match control {
                Control::Pong => {}
                Control::Ping(payload) => {
                    pings.spend(Instant::now())?;
                    *pong = Some(payload.to_vec());
                }
                Control::Close(code) => {
                    *ended = Some(Ended::ByPeer);
                    if !matches!(close, Close::Sent) {
                        *close = Close::Now {
                            code,
                            reason: String::new(),
                        };
                    }
                }
            }
            Ok(())
        });
        if let Err(violation) = result {
            self.ended = Some(Ended::By(violation));
            if !matches!(self.close, Close::Sent) {
                let reason = violation.reason.to_owned();
                self.close = Close::Now {
                    code: Some(violation.code),
                    reason,
                };
            }
        }
        len
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
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(async {
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
                let mut got = Vec::new();
                let mut buf = vec![0; read];
                loop {
                    match server.read(&mut buf).await.expect("nothing wrong") {
                        0 => break,
                        len => got.extend_from_slice(&buf[..len]),
                    }
                }
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
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(async {
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
