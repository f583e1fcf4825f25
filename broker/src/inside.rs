//! Clients inside the server: what the HTTP faces speak through.
//!
//! A request that comes over HTTP acts for a user of the broker. So it goes through a connection
//! like any other, only without a socket: the user logs in with CONNECT, and every rule about what
//! that user may do, use and see holds by itself. Nothing in the broker has a second door.
//!
//! ```text
//!   HTTP request ──▶ Inside ──▶ pipe in memory ──▶ worker: a client connection
//! ```
//!
//! # Invariants
//!
//! 1. Answers are matched with requests by a subject that nobody else can guess.
//! 2. What waits for one answer is bounded by what was asked for; an answer nobody waits for any
//!    more is dropped.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use data_encoding::BASE32_NOPAD;
use menes_protocol::connect::Connect;
use menes_protocol::encoder::client as encode;
use menes_protocol::headers::HeaderBlock;
use menes_protocol::parser::server::{ServerOp, ServerParser};
use parking_lot::Mutex;
use rand::Rng;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::server::Shared;

/// Bytes between a client and its connection, each way.
pub(crate) const PIPE_BYTES: usize = 256 * 1024;
/// Time to log in. Passwords are slow to check on purpose.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The subscription for everything that is answered once.
const INBOX_SID: &[u8] = b"1";

/// As whom to log in.
#[derive(Clone, Default)]
pub(crate) struct Login {
    /// User name; empty where nobody has to log in.
    pub(crate) user: String,
    /// Password.
    pub(crate) password: String,
    /// Token, in place of a password.
    pub(crate) token: String,
    /// What the connection calls itself.
    pub(crate) name: String,
}

impl std::fmt::Debug for Login {
    /// Leaves out the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why nobody is logged in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum LoginError {
    /// The user, the password or the token is wrong.
    #[error("the user is not known, or the password is wrong")]
    Refused,
    /// The server takes nobody now.
    #[error("the server does not take a connection: {0}")]
    Unavailable(String),
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum RequestError {
    /// Nobody listens.
    #[error("nobody answers on this subject")]
    NoResponders,
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The user may not do this.
    #[error("{0}")]
    Denied(String),
    /// The connection is gone.
    #[error("the connection is closed")]
    Closed,
    /// More bytes than a message may have.
    #[error("the message is larger than max_payload, {0} bytes")]
    TooLarge(usize),
}

/// A message for this client.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Where an acknowledgement goes; empty for none.
    pub(crate) reply: Bytes,
    /// Header block; empty for none.
    pub(crate) header: Bytes,
    /// Payload.
    pub(crate) payload: Bytes,
}

impl Received {
    /// The status of a message that is only a status.
    pub(crate) fn status(&self) -> Option<u16> {
        let block = HeaderBlock::parse(&self.header).ok()?;
        block.status().map(|(code, _)| code)
    }
}

type Writer = Arc<tokio::sync::Mutex<WriteHalf<DuplexStream>>>;

/// A logged-in client. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct Inside {
    write: Writer,
    waiting: Arc<Waiting>,
    /// Where answers go, without the number of the request.
    inbox: String,
    next: AtomicU64,
    max_payload: usize,
    /// Ends the reader.
    _stop: oneshot::Sender<()>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: HashMap<u64, Request>,
    /// Those who wait for their turn in the stream of the server's answers.
    pongs: std::collections::VecDeque<oneshot::Sender<()>>,
    /// Why the server refused the login.
    refused: Option<String>,
    is_closed: bool,
}

/// A request that waits for answers.
#[derive(Debug)]
struct Request {
    subject: String,
    answers: mpsc::UnboundedSender<Result<Received, RequestError>>,
}

/// Answers to one request, in the order they come.
#[derive(Debug)]
pub(crate) struct Answers<'a> {
    inside: &'a Inside,
    number: u64,
    /// They have a subscription of their own.
    is_own: bool,
    incoming: mpsc::UnboundedReceiver<Result<Received, RequestError>>,
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        let mut state = self.inside.waiting.state.lock();
        state.requests.remove(&self.number);
        if self.is_own && !state.is_closed {
            tokio::spawn(unsubscribe(Arc::clone(&self.inside.write), self.number));
        }
    }
}

impl Answers<'_> {
    /// The next answer.
    ///
    /// # Errors
    /// No answer in time, or a connection that is gone.
    pub(crate) async fn next(&mut self, until: Instant) -> Result<Received, RequestError> {
        let wait = until.saturating_duration_since(Instant::now());
        match timeout_at(until, self.incoming.recv()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(RequestError::Closed),
            Err(_) => Err(RequestError::Timeout(wait)),
        }
    }
}

impl Inside {
    /// Logs in.
    ///
    /// # Errors
    /// Wrong credentials, or a server that takes nobody now.
    pub(crate) async fn log_in(
        shared: &Shared,
        login: &Login,
        peer: SocketAddr,
        listener: SocketAddr,
    ) -> Result<Self, LoginError> {
        let unavailable = |what: &str| LoginError::Unavailable(what.to_owned());
        let stream = shared
            .open_inside(peer, listener)
            .ok_or_else(|| unavailable("it does not serve clients now"))?;
        let (read, write) = tokio::io::split(stream);
        let write = Arc::new(tokio::sync::Mutex::new(write));
        let waiting = Arc::new(Waiting::default());
        let (stop, stopped) = oneshot::channel();
        let unique = BASE32_NOPAD.encode(&rand::rng().random::<[u8; 15]>());
        let inside = Self {
            write: Arc::clone(&write),
            waiting: Arc::clone(&waiting),
            inbox: format!("_INBOX.{unique}."),
            // The first subscription has a number already.
            next: AtomicU64::new(2),
            max_payload: shared.options().limits.max_payload,
            _stop: stop,
        };
        tokio::spawn(read_all(read, write, waiting, stopped));
        let mut first = BytesMut::new();
        encode::connect(&mut first, &connect(login));
        encode::sub(
            &mut first,
            format!("{}*", inside.inbox).as_bytes(),
            None,
            INBOX_SID,
        );
        let answered = tokio::time::timeout(LOGIN_TIMEOUT, inside.ping(first)).await;
        let refused = inside.waiting.state.lock().refused.clone();
        match (answered, refused) {
            (Ok(Ok(())), _) => Ok(inside),
            (_, Some(text))
                if text.starts_with("Authorization") || text.contains("Authentication") =>
            {
                Err(LoginError::Refused)
            }
            (_, Some(text)) => Err(LoginError::Unavailable(text)),
            (Ok(Err(error)), None) => Err(LoginError::Unavailable(error.to_string())),
            (Err(_), None) => Err(unavailable("it takes too long")),
        }
    }

    /// Most bytes of a message, its headers included.
    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Whether the server has ended the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.waiting.state.lock().is_closed
    }

    /// Writes `bytes`, then waits until the server has taken them in.
    async fn ping(&self, mut bytes: BytesMut) -> Result<(), RequestError> {
        bytes.extend_from_slice(b"PING\r\n");
        let (pong, answered) = oneshot::channel();
        {
            // Pongs come in the order of the pings.
            let mut write = self.write.lock().await;
            {
                let mut state = self.waiting.state.lock();
                if state.is_closed {
                    return Err(RequestError::Closed);
                }
                state.pongs.push_back(pong);
            }
            let written = write.write_all(&bytes).await;
            written.map_err(|_| RequestError::Closed)?;
        }
        answered.await.map_err(|_| RequestError::Closed)
    }

    /// Asks for messages of a stream. They come on subjects of their own, so the subscription says
    /// which request they are for.
    ///
    /// # Errors
    /// A connection that is gone.
    pub(crate) async fn pull(
        &self,
        subject: &str,
        payload: &[u8],
    ) -> Result<Answers<'_>, RequestError> {
        self.begin(subject, b"", payload, true).await
    }

    /// Sends a request whose answers are waited for later: several can be under way, and reach
    /// the server in the order they were sent.
    ///
    /// # Errors
    /// A message that is too large, or a connection that is gone.
    pub(crate) async fn ask(
        &self,
        subject: &str,
        header: &[u8],
        payload: &[u8],
    ) -> Result<Answers<'_>, RequestError> {
        self.begin(subject, header, payload, false).await
    }

    /// Sends a message whose answers nobody else sees.
    async fn begin(
        &self,
        subject: &str,
        header: &[u8],
        payload: &[u8],
        is_own: bool,
    ) -> Result<Answers<'_>, RequestError> {
        if header.len() + payload.len() > self.max_payload {
            return Err(RequestError::TooLarge(self.max_payload));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answers, incoming) = mpsc::unbounded_channel();
        {
            let mut state = self.waiting.state.lock();
            if state.is_closed {
                return Err(RequestError::Closed);
            }
            let subject = subject.to_owned();
            state.requests.insert(number, Request { subject, answers });
        }
        let asked = Answers {
            inside: self,
            number,
            is_own,
            incoming,
        };
        // The common subscription takes one token only.
        let reply = if is_own {
            format!("{}p.{number}", self.inbox)
        } else {
            format!("{}{number}", self.inbox)
        };
        if is_own {
            let mut bytes = BytesMut::new();
            let sid = number.to_string();
            encode::sub(&mut bytes, reply.as_bytes(), None, sid.as_bytes());
            let written = self.write.lock().await.write_all(&bytes).await;
            written.map_err(|_| RequestError::Closed)?;
        }
        self.send(subject, Some(&reply), header, payload).await?;
        Ok(asked)
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// What kept the answer away.
    pub(crate) async fn request(
        &self,
        subject: &str,
        header: &[u8],
        payload: &[u8],
        wait: Duration,
    ) -> Result<Received, RequestError> {
        let mut answers = self.begin(subject, header, payload, false).await?;
        let answer = answers.next(Instant::now() + wait).await?;
        if answer.payload.is_empty() && answer.status() == Some(503) {
            return Err(RequestError::NoResponders);
        }
        Ok(answer)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// A connection that is gone.
    pub(crate) async fn send(
        &self,
        subject: &str,
        reply: Option<&str>,
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), RequestError> {
        let mut bytes = BytesMut::with_capacity(header.len() + payload.len() + 256);
        let (subject, reply) = (subject.as_bytes(), reply.map(str::as_bytes));
        if header.is_empty() {
            encode::publish(&mut bytes, subject, reply, payload);
        } else {
            encode::hpub(&mut bytes, subject, reply, header, payload);
        }
        let mut write = self.write.lock().await;
        let written = write.write_all(&bytes).await;
        written.map_err(|_| RequestError::Closed)
    }

    /// Waits until the server has taken in everything sent so far.
    ///
    /// # Errors
    /// A connection that is gone.
    pub(crate) async fn flush(&self) -> Result<(), RequestError> {
        self.ping(BytesMut::new()).await
    }
}

fn connect(login: &Login) -> Connect {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Connect {
        verbose: false,
        pedantic: false,
        user: given(&login.user),
        pass: given(&login.password),
        auth_token: given(&login.token),
        name: given(&login.name),
        lang: Some("rest".to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        protocol: 1,
        echo: true,
        headers: true,
        no_responders: true,
        ..Connect::default()
    }
}

/// Hands out what the server sends until it or the client ends.
async fn read_all(
    mut read: ReadHalf<DuplexStream>,
    write: Writer,
    waiting: Arc<Waiting>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut parser = ServerParser::new(ServerParser::TRUSTING);
    let mut buffer = BytesMut::new();
    loop {
        let took = match parser.parse(&buffer) {
            Ok(Some((length, operation))) => {
                if matches!(operation, ServerOp::Ping) {
                    tokio::spawn(pong(Arc::clone(&write)));
                }
                take_in(&operation, &waiting);
                length
            }
            Ok(None) => {
                let came = tokio::select! {
                    came = read.read_buf(&mut buffer) => came,
                    // The client was dropped.
                    _ = &mut stopped => break,
                };
                if !came.is_ok_and(|bytes| bytes > 0) {
                    break;
                }
                continue;
            }
            Err(error) => {
                tracing::error!("a client inside the server cannot read what it sends: {error}");
                break;
            }
        };
        bytes::Buf::advance(&mut buffer, took);
    }
    let mut state = waiting.state.lock();
    state.is_closed = true;
    // Who waits is told by the end of the channels.
    state.requests.clear();
    state.pongs.clear();
}

fn take_in(operation: &ServerOp<'_>, waiting: &Waiting) {
    let mut state = waiting.state.lock();
    match operation {
        ServerOp::Msg(message) => {
            let number = match message.sid {
                INBOX_SID => message.subject.rsplit(|byte| *byte == b'.').next(),
                own => Some(own),
            };
            let number =
                number.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
            if let Some(request) = number.and_then(|number| state.requests.get(&number)) {
                // Nobody may wait any more.
                drop(request.answers.send(Ok(Received {
                    reply: Bytes::copy_from_slice(message.reply.unwrap_or_default()),
                    header: Bytes::copy_from_slice(message.header()),
                    payload: Bytes::copy_from_slice(message.payload()),
                })));
            }
        }
        ServerOp::Pong => {
            if let Some(waiter) = state.pongs.pop_front() {
                // Nobody may wait any more.
                let _: Result<(), ()> = waiter.send(());
            }
        }
        ServerOp::Err(text) => {
            let text = String::from_utf8_lossy(text).into_owned();
            for request in state.requests.values() {
                // The server names the subject of a publish that is not permitted.
                if text.contains(&format!("\"{}\"", request.subject)) {
                    drop(
                        request
                            .answers
                            .send(Err(RequestError::Denied(text.clone()))),
                    );
                }
            }
            state.refused = Some(text);
        }
        ServerOp::Ping | ServerOp::Info(_) | ServerOp::Ok => {}
    }
}

async fn unsubscribe(write: Writer, number: u64) {
    let mut bytes = BytesMut::new();
    encode::unsub(&mut bytes, number.to_string().as_bytes(), None);
    // A connection that is gone has no subscriptions.
    drop(write.lock().await.write_all(&bytes).await);
}

/// Answers the server, which asks after silence. Not from the reader: that never waits to write.
async fn pong(write: Writer) {
    // A connection that is gone has no use for it.
    drop(write.lock().await.write_all(b"PONG\r\n").await);
}
