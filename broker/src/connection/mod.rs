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
mod reader;
mod session;
pub(crate) mod websocket;
pub(crate) mod worker;
mod writer;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::client::{Client, Transport};
use self::closed::Closed;
use self::session::Session;
use self::worker::Worker;
use self::writer::SharedSocket;

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

/// Serves one client connection until it ends.
async fn serve<R, W>(worker: Rc<Worker>, client: Arc<Client>, mut read: R, write: W)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let shared = Arc::clone(worker.shared());
    let address = client.address();
    let admitted = shared.register(worker.index(), &client);
    tracing::debug!(
        "{} - cid:{} - Client connection created",
        address,
        client.id().0
    );
    let written =
        tokio::task::spawn_local(writer::run(write, Arc::clone(&client), Rc::clone(&worker)));
    let mut session = Session::new(Rc::clone(&worker), Arc::clone(&client));
    session.greet();
    let reason = if admitted {
        reader::run(&mut session, &mut read).await
    } else {
        session.refuse_connection()
    };
    client.close(reason);
    let reason = client.close_reason().unwrap_or(reason);
    let closed = admitted.then(|| Closed::now(&client, reason));
    session.end(reason);
    if written.await.is_err() {
        tracing::error!(
            "{} - cid:{} - the writer of a connection failed",
            address,
            client.id().0
        );
    }
    if session.was_refused() && !reason.drops_output() {
        linger(&mut read).await;
    }
    tracing::debug!(
        "{} - cid:{} - Client connection closed: {}",
        address,
        client.id().0,
        reason
    );
    shared.system().disconnected(&client, reason);
    if let Some(closed) = closed {
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
