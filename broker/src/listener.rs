//! Listening sockets and the thread that accepts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::connection::worker::{Accepted, Door, WorkerHandle};
use crate::error::StartError;

/// Connections the operating system holds until they are accepted: enough for all clients of a
/// server to come back at once.
const BACKLOG: i32 = 4096;
/// Pause after an accept that failed for want of something, for instance descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes the kernel takes for a client beyond what is on its way to it; the rest waits here, where it
/// is counted. Without a bound it takes megabytes for each client that does not read, until the
/// memory for all connections runs short and the others slow down to a fifth.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 256 << 10;

/// Opens a listening socket on every address of `host`, preferring IPv4: the first that works.
/// Gives the address it got too. As in nats-server `0.0.0.0` takes connections over IPv6 too, where
/// the machine has it.
pub(crate) fn bind(
    host: &str,
    port: u16,
) -> Result<(std::net::TcpListener, SocketAddr), StartError> {
    let resolved = (host, port)
        .to_socket_addrs()
        .map_err(|source| StartError::Resolve {
            host: host.to_owned(),
            source,
        })?;
    let mut addresses: Vec<SocketAddr> = resolved.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut failure = None;
    for address in addresses {
        let opened = if address.ip() == Ipv4Addr::UNSPECIFIED {
            open_both(port).or_else(|_| open(address))
        } else {
            open(address)
        };
        let opened = opened.and_then(|listener| {
            let mut own = listener.local_addr()?;
            own.set_ip(match own.ip() {
                IpAddr::V6(_) if address.is_ipv4() => address.ip(),
                ip => ip,
            });
            Ok((listener, own))
        });
        match opened {
            Ok(listener) => return Ok(listener),
            Err(source) => failure = Some(StartError::Listen { address, source }),
        }
    }
    Err(failure.unwrap_or_else(|| StartError::Resolve {
        host: host.to_owned(),
        source: io::Error::from(io::ErrorKind::NotFound),
    }))
}

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    listen(socket_for(address)?, address)
}

/// Opens a socket for IPv4 and IPv6.
fn open_both(port: u16) -> io::Result<std::net::TcpListener> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let socket = socket_for(address)?;
    socket.set_only_v6(false)?;
    listen(socket, address)
}

fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )
}

fn listen(socket: Socket, address: SocketAddr) -> io::Result<std::net::TcpListener> {
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts at `own` until told to stop, handing connections to the workers in turn.
pub(crate) async fn accept(
    (listener, own): (std::net::TcpListener, SocketAddr),
    door: Door,
    workers: Arc<Vec<WorkerHandle>>,
    turn: Arc<AtomicUsize>,
    mut stop: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot accept connections: {error}"),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The sender lives as long as the server: an error means it is gone.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted.and_then(|(stream, address)| prepare(stream).map(|s| (s, address))) {
            Ok((socket, mut address)) => {
                // What came over IPv4 is shown as such.
                address.set_ip(address.ip().to_canonical());
                let next = turn.fetch_add(1, Ordering::Relaxed) % workers.len();
                workers[next].accept(Accepted::Socket {
                    socket,
                    address,
                    listener: own,
                    door: door.clone(),
                });
            }
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                tracing::error!("Client accept error: {error}, sleeping {ACCEPT_PAUSE:?}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands clients inside the server to the workers in turn, until told to stop.
pub(crate) async fn accept_inside(
    mut streams: mpsc::UnboundedReceiver<Accepted>,
    workers: Arc<Vec<WorkerHandle>>,
    turn: Arc<AtomicUsize>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            Some(accepted) = streams.recv() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
            else => return,
        };
        let next = turn.fetch_add(1, Ordering::Relaxed) % workers.len();
        workers[next].accept(accepted);
    }
}

fn prepare(stream: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    stream.into_std()
}

/// Whether an accept failed because the peer went away.
fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}
