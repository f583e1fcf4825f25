//! The writing half of a connection.
//!
//! One task per connection, on the connection's thread. It sleeps until something is queued, takes
//! all of it and writes it with as few system calls as the socket allows.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, timeout_at};

use super::client::{Client, End, Taken};
use super::limits::FLUSH_ON_CLOSE;
use super::output::ByteQueue;
use super::worker::Worker;
use crate::error::CloseReason;

/// Slices of one vectored write.
const SLICES: usize = 64;

/// Writes what is queued for `client` until it is closed, then shuts the stream down.
pub(super) async fn run<W>(mut stream: W, client: Arc<Client>, worker: Rc<Worker>)
where
    W: AsyncWrite + Unpin,
{
    let mut queue = ByteQueue::default();
    let end = loop {
        let taken = poll_fn(|cx| match client.take_output(&mut queue, cx.waker()) {
            Taken::Bytes => Poll::Ready(None),
            Taken::Closed(reason) => Poll::Ready(Some(reason)),
            Taken::Nothing => Poll::Pending,
        });
        if let Some(reason) = taken.await {
            break reason;
        }
        let deadline = worker.write_deadline();
        let written = write_all(&mut stream, &mut queue, &client, &worker, deadline).await;
        if let Err(reason) = written {
            client.wrote(queue.len());
            if client.close(reason) && reason == CloseReason::SlowConsumerWriteDeadline {
                report_deadline(&client, &worker, deadline, queue.len());
            }
            break client.close_reason().unwrap_or(reason);
        }
        worker.recycle(queue.take_buffer());
    };
    client.forget_socket();
    if !end.drops_output() {
        // The peer may be gone already; there is nobody to tell.
        drop(timeout_at(Instant::now() + FLUSH_ON_CLOSE, stream.shutdown()).await);
    }
}

/// Writes what is queued for `client` now, before its writer runs.
pub(super) async fn flush<W>(
    stream: &mut W,
    client: &Client,
    worker: &Worker,
) -> Result<(), CloseReason>
where
    W: AsyncWrite + Unpin,
{
    let mut queue = ByteQueue::default();
    let deadline = worker.write_deadline();
    while matches!(client.take_output(&mut queue, Waker::noop()), Taken::Bytes) {
        write_all(stream, &mut queue, client, worker, deadline).await?;
        worker.recycle(queue.take_buffer());
    }
    Ok(())
}

fn report_deadline(client: &Client, worker: &Worker, deadline: Duration, left: usize) {
    worker.counters().slow_by_time();
    tracing::info!(
        "{} - Slow Consumer Detected: WriteDeadline of {:?} exceeded with {} total bytes.",
        client.who(),
        deadline,
        left,
    );
}

async fn write_all<W>(
    stream: &mut W,
    queue: &mut ByteQueue,
    client: &Client,
    worker: &Worker,
    deadline: Duration,
) -> Result<(), CloseReason>
where
    W: AsyncWrite + Unpin,
{
    let mut is_closing = false;
    while !queue.is_empty() {
        // Most writes succeed at once and need no timer.
        let attempt = poll_fn(|cx| Poll::Ready(poll_write(stream, queue, cx))).await;
        let written = match attempt {
            Poll::Ready(written) => written,
            Poll::Pending => {
                let limit = if is_closing { FLUSH_ON_CLOSE } else { deadline };
                let blocked = poll_fn(|cx| {
                    if !is_closing && client.poll_closed(End::Writer, cx.waker()).is_some() {
                        return Poll::Ready(Ok(None));
                    }
                    poll_write(stream, queue, cx).map_ok(Some)
                });
                match timeout_at(Instant::now() + limit, blocked).await {
                    Err(_) if !is_closing && worker.retries_writes() => {
                        report_deadline(client, worker, deadline, queue.len());
                        continue;
                    }
                    Err(_) => return Err(CloseReason::SlowConsumerWriteDeadline),
                    Ok(Ok(None)) => {
                        if client.close_reason().is_some_and(CloseReason::drops_output) {
                            return Err(CloseReason::WriteError);
                        }
                        is_closing = true;
                        continue;
                    }
                    Ok(Ok(Some(written))) => Ok(written),
                    Ok(Err(error)) => Err(error),
                }
            }
        };
        match written {
            Ok(0) | Err(_) => return Err(CloseReason::WriteError),
            Ok(count) => {
                queue.advance(count, worker.batch().buffers());
                client.wrote(count);
            }
        }
    }
    // Plain sockets hold nothing back; TLS may.
    match poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_flush(cx))).await {
        Poll::Ready(flushed) => flushed.map_err(|_| CloseReason::WriteError),
        Poll::Pending => match timeout_at(Instant::now() + deadline, stream.flush()).await {
            Err(_) => Err(CloseReason::SlowConsumerWriteDeadline),
            Ok(flushed) => flushed.map_err(|_| CloseReason::WriteError),
        },
    }
}

fn poll_write<W>(stream: &mut W, queue: &ByteQueue, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
where
    W: AsyncWrite + Unpin,
{
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = queue.slices(&mut slices);
    let stream = Pin::new(stream);
    match &slices[..count] {
        [single] => stream.poll_write(cx, single),
        several => stream.poll_write_vectored(cx, several),
    }
}

/// The writing half of a TCP connection that other threads may write to as well, see
/// [`Client::write_for_writer`].
pub(super) struct SharedSocket(pub(super) Arc<OwnedWriteHalf>);

impl SharedSocket {
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let stream = self.0.as_ref().as_ref();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match write(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream: &TcpStream = self.0.as_ref().as_ref();
        Poll::Ready(SockRef::from(stream).shutdown(Shutdown::Write))
    }
}
