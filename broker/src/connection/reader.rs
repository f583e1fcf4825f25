//! The reading half of a connection.
//!
//! Bytes are read into the buffer of the thread, which all its connections share, and handled at
//! once; a connection keeps bytes of its own only while an operation is incomplete. So an idle
//! connection holds no buffer.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::client::{Client, End};
use super::limits::{MAX_STALL, READ_BYTES, STALL};
use super::session::{Session, Step};
use crate::error::CloseReason;
use crate::streams::ingest::IngestQueue;

/// What ended a wait.
enum Event {
    /// Bytes came and were handled.
    Handled(Step),
    /// The session's deadline passed.
    Timer,
    /// The user may do something else than before.
    Permitted,
    /// The connection is over.
    Closed(CloseReason),
}

/// Serves the session until the connection ends.
pub(super) async fn run<R>(session: &mut Session, read: &mut R) -> CloseReason
where
    R: AsyncRead + Unpin,
{
    let mut pending = Pending::default();
    let mut timer = Box::pin(sleep_until(Instant::from_std(session.deadline())));
    loop {
        let deadline = Instant::from_std(session.deadline());
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        let event =
            poll_fn(|cx| poll_event(session, &mut *read, &mut pending, timer.as_mut(), cx)).await;
        let mut step = match event {
            Event::Handled(step) => step,
            Event::Timer => session.handle_deadline(),
            Event::Permitted => {
                session.adopt_permissions();
                Step::Read
            }
            Event::Closed(reason) => return reason,
        };
        loop {
            step = match step {
                Step::Read => break,
                Step::ReadSoon => {
                    tokio::task::yield_now().await;
                    break;
                }
                Step::Stall(receiver) => {
                    session.stalled();
                    stall(&receiver).await;
                    break;
                }
                Step::AwaitEngine(queue) => {
                    await_engine(&queue, session.client()).await;
                    break;
                }
                Step::Decide(deferred) => {
                    let login = tokio::select! {
                        login = deferred => login,
                        reason = closed(session.client()) => return reason,
                    };
                    session.decided(login)
                }
                Step::Resume => pending.handle(session),
                Step::Close(reason) => return reason,
            };
        }
    }
}

/// Holds a publisher up while a receiver is far behind, for a bounded time.
async fn stall(receiver: &Arc<Client>) {
    let start = Instant::now();
    while start.elapsed() < MAX_STALL {
        sleep(STALL).await;
        if receiver.is_closed() || receiver.pending_bytes() <= receiver.max_pending() / 4 * 3 {
            return;
        }
    }
}

/// Stops reading until the engine has caught up or the connection ends.
async fn await_engine(queue: &IngestQueue, client: &Client) {
    tokio::select! {
        () = queue.drained() => {}
        _ = closed(client) => {}
    }
}

/// Waits until the connection ends.
async fn closed(client: &Client) -> CloseReason {
    poll_fn(|cx| match client.poll_closed(End::Reader, cx.waker()) {
        Some(reason) => Poll::Ready(reason),
        None => Poll::Pending,
    })
    .await
}

fn poll_event<R>(
    session: &mut Session,
    read: &mut R,
    pending: &mut Pending,
    timer: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<Event>
where
    R: AsyncRead + Unpin,
{
    if let Some(reason) = session.client().poll_closed(End::Reader, cx.waker()) {
        return Poll::Ready(Event::Closed(reason));
    }
    if session.client().take_permitted_anew() {
        return Poll::Ready(Event::Permitted);
    }
    if timer.poll(cx).is_ready() {
        return Poll::Ready(Event::Timer);
    }
    match pending.poll_read(session, read, cx) {
        Poll::Ready(Ok(step)) => Poll::Ready(Event::Handled(step)),
        Poll::Ready(Err(reason)) => Poll::Ready(Event::Closed(reason)),
        Poll::Pending => Poll::Pending,
    }
}

/// Bytes of operations that are not handled yet.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// How many of `bytes` are there; the rest is room for a large operation.
    filled: usize,
}

/// An operation that needs more than this is gathered in a buffer of its own.
const SMALL_BYTES: usize = READ_BYTES / 2;

impl Pending {
    fn poll_read<R>(
        &mut self,
        session: &mut Session,
        read: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Step, CloseReason>>
    where
        R: AsyncRead + Unpin,
    {
        let is_large = self.filled > 0 && session.needed_bytes().max(self.filled) > SMALL_BYTES;
        if is_large {
            return self.poll_read_large(session, read, cx);
        }
        let worker = Rc::clone(session.worker());
        let mut buffer = worker.read_buffer();
        let mut space = ReadBuf::new(&mut buffer[self.filled..]);
        let outcome = Pin::new(read).poll_read(cx, &mut space);
        let room = space.remaining();
        let count = space.filled().len();
        let Some(count) = finish(outcome, count)? else {
            return Poll::Pending;
        };
        buffer[..self.filled].copy_from_slice(&self.bytes[..self.filled]);
        let end = self.filled + count;
        let (used, step) = session.handle_bytes(&buffer[..end]);
        self.keep(&buffer[used..end]);
        Poll::Ready(Ok(soon(step, room == 0)))
    }

    fn poll_read_large<R>(
        &mut self,
        session: &mut Session,
        read: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Step, CloseReason>>
    where
        R: AsyncRead + Unpin,
    {
        if self.filled == self.bytes.len() {
            // Room grows with what has come, not with what was announced.
            let wanted = session.needed_bytes().max(self.filled + 1);
            self.bytes
                .resize(wanted.min(2 * self.filled.max(SMALL_BYTES)), 0);
        }
        let mut space = ReadBuf::new(&mut self.bytes[self.filled..]);
        let outcome = Pin::new(read).poll_read(cx, &mut space);
        let count = space.filled().len();
        let Some(count) = finish(outcome, count)? else {
            return Poll::Pending;
        };
        self.filled += count;
        if self.filled < session.needed_bytes() {
            return Poll::Ready(Ok(soon(Step::Read, self.filled == self.bytes.len())));
        }
        let bytes = std::mem::take(&mut self.bytes);
        let (used, step) = session.handle_bytes(&bytes[..self.filled]);
        let end = self.filled;
        self.keep(&bytes[used..end]);
        Poll::Ready(Ok(soon(step, true)))
    }

    /// Handles what was left when a step interrupted the handling.
    fn handle(&mut self, session: &mut Session) -> Step {
        let bytes = std::mem::take(&mut self.bytes);
        let (used, step) = session.handle_bytes(&bytes[..self.filled]);
        let end = self.filled;
        self.keep(&bytes[used..end]);
        step
    }

    fn keep(&mut self, rest: &[u8]) {
        self.bytes.clear();
        if rest.is_empty() {
            self.bytes = Vec::new();
        }
        self.bytes.extend_from_slice(rest);
        self.filled = rest.len();
    }
}

/// After a read that filled its buffer there is probably more; others get their turn first.
fn soon(step: Step, is_full: bool) -> Step {
    match step {
        Step::Read if is_full => Step::ReadSoon,
        step => step,
    }
}

fn finish(outcome: Poll<std::io::Result<()>>, count: usize) -> Result<Option<usize>, CloseReason> {
    match outcome {
        Poll::Pending => Ok(None),
        Poll::Ready(Ok(())) if count > 0 => Ok(Some(count)),
        Poll::Ready(Ok(())) => Err(CloseReason::ClientClosed),
        Poll::Ready(Err(error)) => Err(match error.kind() {
            // The latter where a client leaves without saying so inside TLS.
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => CloseReason::ClientClosed,
            _ => CloseReason::ReadError,
        }),
    }
}
