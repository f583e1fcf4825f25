//! From a fresh socket to the bytes a session speaks over: what a proxy says, INFO in the clear,
//! and TLS.
//!
//! Listeners that have none of these never come here.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use menes_protocol::error::WireError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use super::Opened;
use super::client::{Client, Transport};
use super::proxy::{self, Preface};
use super::session::Session;
use super::worker::Worker;
use super::writer;
use crate::config::options::HandshakeFirst;
use crate::error::CloseReason;
use crate::tls::{Prepared, Secured, Tls};

/// Time for the header of a proxy.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// How client listeners receive connections.
#[derive(Debug)]
pub(crate) struct ClientDoor {
    /// TLS.
    pub(crate) tls: Arc<Tls>,
    /// Clients may speak in the clear where TLS is on.
    pub(crate) allow_non_tls: bool,
    /// A proxy may speak first.
    pub(crate) proxy_protocol: bool,
}

impl ClientDoor {
    /// Whether connections begin with the protocol itself.
    pub(super) fn is_plain(&self) -> bool {
        !self.proxy_protocol && !self.tls.is_on()
    }
}

/// Bytes that were read too early, then the rest of a socket.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    early: Vec<u8>,
    inner: S,
}

impl<S> Rewound<S> {
    pub(super) fn new(early: Vec<u8>, inner: S) -> Self {
        Self { early, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..count]);
        self.early.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A connection, in the clear or not.
#[derive(Debug)]
pub(super) enum Stream {
    /// In the clear.
    Plain(Rewound<TcpStream>),
    /// Inside TLS.
    Tls(Box<TlsStream<Rewound<TcpStream>>>),
}

macro_rules! delegate {
    ($self:ident, $method:ident, $($argument:expr),*) => {
        match $self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Self::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown, cx)
    }
}

/// Receives a connection and serves it until it ends.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    door: Arc<ClientDoor>,
    address: SocketAddr,
    listener: SocketAddr,
) {
    let client = Arc::new(worker.new_client(Transport::Nats, address, listener));
    let mut opened = super::open(&worker, &client);
    let closed = Arc::clone(&client);
    let received = tokio::select! {
        received = receive(&worker, &client, &door, &mut opened, stream) => received,
        reason = closed.closed() => Err(reason),
    };
    match received {
        Ok(stream) => {
            opened.session.begin();
            let (read, write) = tokio::io::split(stream);
            super::converse(worker, client, opened, read, write).await;
        }
        Err(reason) => super::end(&worker, &client, opened, reason),
    }
}

/// Brings a connection to where both sides speak the protocol. INFO is sent, or waits to be.
async fn receive(
    worker: &Worker,
    client: &Client,
    door: &ClientDoor,
    opened: &mut Opened,
    mut stream: TcpStream,
) -> Result<Stream, CloseReason> {
    let session = &mut opened.session;
    let tls = door.tls.current();
    let order = tls
        .as_ref()
        .map_or(HandshakeFirst::Never, |tls| tls.options().handshake_first);
    let mut early = Vec::new();
    let mut is_first = order != HandshakeFirst::Never;
    if let HandshakeFirst::Within(delay) = order {
        gather(&mut stream, &mut early, 1, delay).await?;
        is_first = !early.is_empty();
    }
    if !is_first || !opened.is_admitted {
        session.greet();
        writer::flush(&mut stream, client, worker).await?;
    }
    if !opened.is_admitted {
        let reason = session.refuse_connection();
        return Err(refuse(stream, client, worker, reason).await);
    }
    if door.proxy_protocol
        && let Some(address) = proxied(&mut stream, &mut early, client).await?
    {
        client.now_at(address);
    }
    let Some(tls) = tls else {
        return Ok(Stream::Plain(Rewound::new(early, stream)));
    };
    if door.allow_non_tls && !is_first {
        gather(&mut stream, &mut early, 1, tls.options().timeout).await?;
        if early.first() != Some(&HANDSHAKE) {
            return Ok(Stream::Plain(Rewound::new(early, stream)));
        }
    }
    if !door.tls.admits(&tls, Instant::now().into_std()) {
        let reason = session.refuse(WireError::ConnectionThrottled);
        return Err(refuse(stream, client, worker, reason).await);
    }
    let (stream, secured) = handshake(
        worker,
        client,
        session,
        &tls,
        Rewound::new(early, stream),
        is_first,
    )
    .await?;
    tracing::debug!(
        "{} - TLS handshake complete, version {}, cipher suite {}",
        client.who(),
        secured.version,
        secured.cipher_suite,
    );
    client.is_secured(secured);
    if is_first {
        session.greet();
    }
    Ok(Stream::Tls(Box::new(stream)))
}

/// Reads until there are `wanted` bytes, the peer is done, or the time is over.
async fn gather(
    stream: &mut TcpStream,
    early: &mut Vec<u8>,
    wanted: usize,
    limit: Duration,
) -> Result<(), CloseReason> {
    let reading = async {
        while early.len() < wanted {
            if stream.read_buf(early).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    match timeout(limit, reading).await {
        Ok(Err(_)) => Err(CloseReason::ReadError),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

/// Takes the header of a proxy off the front of the bytes, and gives the address in it.
async fn proxied(
    stream: &mut TcpStream,
    early: &mut Vec<u8>,
    client: &Client,
) -> Result<Option<SocketAddr>, CloseReason> {
    let deadline = Instant::now() + PROXY_TIMEOUT;
    let refuse = |why: &dyn std::fmt::Display| {
        tracing::warn!(
            "Error reading PROXY protocol header from {}: {why}",
            client.address()
        );
        CloseReason::ProtocolViolation
    };
    loop {
        match proxy::parse(early).map_err(|error| refuse(&error))? {
            Preface::Absent => return Ok(None),
            Preface::Header { len, client } => {
                early.drain(..len);
                return Ok(client);
            }
            Preface::Incomplete(wanted) => {
                let before = early.len();
                let left = deadline.saturating_duration_since(Instant::now());
                gather(stream, early, wanted, left).await?;
                if early.len() == before {
                    return Err(refuse(&"timeout reading PROXY protocol header"));
                }
            }
        }
    }
}

/// Tells a client why it may not stay.
async fn refuse(
    mut stream: TcpStream,
    client: &Client,
    worker: &Worker,
    reason: CloseReason,
) -> CloseReason {
    if writer::flush(&mut stream, client, worker).await.is_ok() {
        super::linger(&mut stream).await;
    }
    reason
}

async fn handshake(
    worker: &Worker,
    client: &Client,
    session: &mut Session,
    tls: &Prepared,
    stream: Rewound<TcpStream>,
    is_first: bool,
) -> Result<(TlsStream<Rewound<TcpStream>>, Secured), CloseReason> {
    let log_error = |error: &dyn std::fmt::Display| {
        tracing::error!("{} - TLS handshake error: {error}", client.who());
    };
    let mut accept = tls.acceptor().accept(stream);
    let deadline = Instant::now() + tls.options().timeout;
    match timeout_at(deadline, &mut accept).await {
        Ok(Ok(stream)) => {
            let secured = Secured::of(stream.get_ref().1, is_first);
            if !secured.is_pinned(&tls.options().pinned_certs) {
                log_error(&"certificate not pinned");
                return Err(CloseReason::TlsHandshakeError);
            }
            Ok((stream, secured))
        }
        Ok(Err(error)) => {
            log_error(&error);
            Err(CloseReason::TlsHandshakeError)
        }
        Err(_) => {
            tracing::error!("{} - TLS handshake timeout", client.who());
            let reason = session.refuse(WireError::TlsRequired);
            if let Some(stream) = accept.get_mut() {
                writer::flush(stream, client, worker).await?;
            }
            Err(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn early_bytes_come_before_the_rest() {
        let mut stream = Rewound::new(b"abcdef".to_vec(), &b"ghi"[..]);
        let mut few = [0; 4];
        stream.read_exact(&mut few).await.expect("there");
        assert_eq!(&few, b"abcd");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("there");
        assert_eq!(rest, "efghi");
    }
}
