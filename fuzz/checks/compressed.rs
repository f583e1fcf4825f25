//! What must hold for any bytes of a WebSocket client that may compress its messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use menes_ws::{Limits, Rules, WsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const LIMITS: Limits = Limits {
    max_message_bytes: 4_096,
    spare_frames: 8,
};
const RULES: Rules = Rules {
    compression: true,
    unmasked: true,
};

/// Reading ends, however the bytes come, and gives the same bytes, those before an error included.
pub(crate) fn compressed(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else {
        return;
    };
    let whole = read(data, data.len().max(1), 1_000);
    let pieces = read(data, usize::from(piece).max(1), 7);
    assert!(whole == pieces);
}

/// What is read, and whether it ended in order.
fn read(data: &[u8], piece: usize, room: usize) -> (Vec<u8>, bool) {
    let mut stream = WsStream::new(Pieces { data, piece }, LIMITS, 100).with_rules(RULES, 100);
    let mut context = Context::from_waker(Waker::noop());
    let mut got = Vec::new();
    let mut buffer = vec![0; room];
    loop {
        let mut space = ReadBuf::new(&mut buffer);
        match Pin::new(&mut stream).poll_read(&mut context, &mut space) {
            Poll::Pending => unreachable!("bytes are always there"),
            Poll::Ready(Err(_)) => return (got, false),
            Poll::Ready(Ok(())) if space.filled().is_empty() => return (got, true),
            Poll::Ready(Ok(())) => got.extend_from_slice(space.filled()),
        }
    }
}

struct Pieces<'d> {
    data: &'d [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.piece.min(self.data.len()).min(buf.remaining());
        let (now, later) = self.data.split_at(len);
        buf.put_slice(now);
        self.data = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
