//! Client connections.
//!
//! ```text
//!            reader ──▶ parser ──▶ session ──▶ RouteBatch ──▶ queues of receivers
//!   socket                           │
//!            writer ◀── own queue ◀──┘◀───── other connections, the engine
//! ```
//!
//! `Session` is the protocol of one client; the tasks here feed it bytes and
//! time and carry out what it asks for.

pub mod client;
pub(crate) mod closed;
pub mod counters;
pub(crate) mod inbox;
pub mod limits;
pub(crate) mod output;
mod proxy;
mod reader;
pub(crate) mod secure;
mod session;
pub(crate) mod websocket;
mod who;
pub(crate) mod worker;
mod writer;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::client::{Client, Transport};
use self::closed::Closed;
use self::session::Session;
use self::worker::Worker;
use self::writer::SharedSocket;
use crate::error::CloseReason;

/// Serves one client connection over TCP until it ends.
pub(crate) async fn serve_tcp(
    worker: Rc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    listener: SocketAddr,
) {
    let (read, write) = stream.into_split();
    let write = Arc::new(write);
    let client = Arc::new(worker.new_client(Transport::Nats, address, listener));
    client.share_socket(Arc::clone(&write));
    serve(worker, client, read, SharedSocket(write)).await;
}

/// Serves a client inside the server until it ends.
pub(crate) async fn serve_inside(
    worker: Rc<Worker>,
    stream: DuplexStream,
    address: SocketAddr,
    listener: SocketAddr,
) {
    let (read, write) = tokio::io::split(stream);
    let client = Arc::new(worker.new_client(Transport::Nats, address, listener));
    serve(worker, client, read, write).await;
}

/// Serves one client connection until it ends.
async fn serve<R, W>(worker: Rc<Worker>, client: Arc<Client>, read: R, write: W)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let mut opened = open(&worker, &client);
    opened.session.greet();
    converse(worker, client, opened, read, write).await;
}

/// A connection that is known to the server.
struct Opened {
    session: Session,
    /// False when there are too many: it is only told so.
    is_admitted: bool,
}

fn open(worker: &Rc<Worker>, client: &Arc<Client>) -> Opened {
    let is_admitted = worker.shared().register(worker.index(), client);
    tracing::debug!("{} - Client connection created", client.who());
    Opened {
        session: Session::new(Rc::clone(worker), Arc::clone(client)),
        is_admitted,
    }
}

/// Speaks with a client until the connection ends.
async fn converse<R, W>(
    worker: Rc<Worker>,
    client: Arc<Client>,
    mut opened: Opened,
    mut read: R,
    write: W,
) where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let written =
        tokio::task::spawn_local(writer::run(write, Arc::clone(&client), Rc::clone(&worker)));
    let session = &mut opened.session;
    let reason = if opened.is_admitted {
        reader::run(session, &mut read).await
    } else {
        session.refuse_connection()
    };
    let was_refused = session.was_refused();
    let left = leave(&client, opened, reason);
    if written.await.is_err() {
        tracing::error!("{} - the writer of a connection failed", client.who());
    }
    if was_refused && !left.reason.drops_output() {
        linger(&mut read).await;
    }
    forget(&worker, &client, left);
}

/// Ends a connection that never came to speak.
fn end(worker: &Worker, client: &Arc<Client>, opened: Opened, reason: CloseReason) {
    let left = leave(client, opened, reason);
    forget(worker, client, left);
}

/// How a connection ended.
struct Left {
    reason: CloseReason,
    /// What is remembered of it; nothing when it was not admitted.
    closed: Option<Closed>,
}

fn leave(client: &Arc<Client>, mut opened: Opened, reason: CloseReason) -> Left {
    client.close(reason);
    let reason = client.close_reason().unwrap_or(reason);
    let closed = opened.is_admitted.then(|| Closed::now(client, reason));
    opened.session.end(reason);
    Left { reason, closed }
}

fn forget(worker: &Worker, client: &Client, left: Left) {
    tracing::debug!(
        "{} - Client connection closed: {}",
        client.who(),
        left.reason
    );
    let shared = worker.shared();
    shared.system().disconnected(client, left.reason);
    if let Some(closed) = left.closed {
        shared.unregister(worker.index(), client.id());
        shared.note_closed(closed);
    }
}
/// Reads and drops what a refused client still sends: closing a socket with unread bytes resets the
/// connection, and the client would not see why.
async fn linger<R: AsyncRead + Unpin>(read: &mut R) {
    let drain = async {
        // On the heap: this task's size is paid by every idle connection.
        let mut buffer = vec![0_u8; 4096];
        let mut left = limits::LINGER_BYTES;
        while let Ok(count) = read.read(&mut buffer).await {
            left = left.saturating_sub(count);
            if count == 0 || left == 0 {
                return;
            }
        }
    };
    // Whoever keeps sending is cut off.
    drop(timeout(limits::LINGER, drain).await);
}
