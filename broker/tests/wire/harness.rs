//! A server on a free port and raw clients that speak to it byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use menes_broker::config::options::{AuthOptions, Options, UserOptions};
use menes_broker::server::{Hooks, Server, ServerHandle};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Longest time to wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn options() -> Options {
    Options {
        host: "127.0.0.1".to_owned(),
        ports: vec![0],
        ..Options::default()
    }
}

pub(crate) fn with_users(users: Vec<UserOptions>) -> Options {
    Options {
        auth: AuthOptions {
            users,
            ..AuthOptions::default()
        },
        ..options()
    }
}

pub(crate) fn user(name: &str, password: &str) -> UserOptions {
    UserOptions {
        user: name.to_owned(),
        password: password.to_owned(),
        ..UserOptions::default()
    }
}

/// A running server; ends with the test.
pub(crate) struct Running {
    pub(crate) handle: Option<ServerHandle>,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn new(options: Options) -> Self {
        Self::with_hooks(options, Hooks::default())
    }

    pub(crate) fn with_hooks(options: Options, hooks: Hooks) -> Self {
        let handle = Server::new(options, hooks)
            .listen()
            .expect("loopback has free ports");
        let address = handle.addresses()[0];
        Self {
            handle: Some(handle),
            address,
        }
    }

    pub(crate) fn handle(&self) -> &ServerHandle {
        self.handle.as_ref().expect("it runs until it is dropped")
    }

    /// A client that has read INFO and said nothing.
    pub(crate) fn silent(&self) -> Peer {
        let mut peer = Peer::dial(self.address);
        let info = peer.line();
        assert!(
            info.starts_with("INFO {") && info.ends_with("} \r\n"),
            "{info}"
        );
        peer.info = info;
        peer
    }

    /// A client that is connected with these keys of CONNECT, besides verbose and pedantic off.
    pub(crate) fn client_with(&self, keys: &str) -> Peer {
        let mut peer = self.silent();
        peer.say(&format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false{keys}}}\r\nPING\r\n"
        ));
        peer.expect("PONG\r\n");
        peer
    }

    pub(crate) fn client(&self) -> Peer {
        self.client_with("")
    }

    /// A client with headers and no-responders.
    pub(crate) fn modern(&self) -> Peer {
        self.client_with(",\"headers\":true,\"no_responders\":true")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(handle.shutdown());
        }
    }
}

/// What bytes travel over.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

pub(crate) struct Peer {
    stream: Wire,
    buffer: Vec<u8>,
    pub(crate) info: String,
}

impl Peer {
    pub(crate) fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP option");
        Self {
            stream: Wire::Plain(stream),
            buffer: Vec::new(),
            info: String::new(),
        }
    }

    /// Makes a TLS handshake, as `localhost`, with what was read so far left behind.
    pub(crate) fn secure(self, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        let Wire::Plain(mut socket) = self.stream else {
            panic!("it is secured already");
        };
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = "localhost".try_into().expect("a name");
        let mut connection = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self {
            stream: Wire::Tls(Box::new(StreamOwned::new(connection, socket))),
            buffer: Vec::new(),
            info: self.info,
        })
    }

    /// What its handshake agreed on.
    pub(crate) fn connection(&self) -> Option<&ClientConnection> {
        match &self.stream {
            Wire::Plain(_) => None,
            Wire::Tls(stream) => Some(&stream.conn),
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.send(text.as_bytes());
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends what a server may refuse half-way.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    fn fill(&mut self, limit: Instant) -> std::io::Result<usize> {
        let left = limit
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        self.stream.socket().set_read_timeout(Some(left))?;
        let mut chunk = [0; 65536];
        let count = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// Reads exactly these bytes.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        self.expect_bytes(text.as_bytes());
    }

    #[track_caller]
    pub(crate) fn expect_bytes(&mut self, bytes: &[u8]) {
        let limit = Instant::now() + PATIENCE;
        while self.buffer.len() < bytes.len() && bytes.starts_with(&self.buffer) {
            match self.fill(limit) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => panic!(
                    "wanted {:?}, got {:?}, then {error}",
                    show(bytes),
                    show(&self.buffer)
                ),
            }
        }
        let count = bytes.len().min(self.buffer.len());
        assert!(
            self.buffer[..count] == *bytes,
            "wanted {:?}, got {:?}",
            show(bytes),
            show(&self.buffer)
        );
        self.buffer.drain(..count);
    }

    /// Reads a line.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return String::from_utf8(line).expect("lines are text");
            }
            match self.fill(limit) {
                Ok(0) => panic!("closed after {:?}", show(&self.buffer)),
                Ok(_) => {}
                Err(error) => panic!("no line but {:?}, then {error}", show(&self.buffer)),
            }
        }
    }

    /// Everything sent so far was handled and brought no answer but what was expected already.
    #[track_caller]
    pub(crate) fn sync(&mut self) {
        self.say("PING\r\n");
        self.expect("PONG\r\n");
    }

    /// Whether nothing comes for a short time.
    pub(crate) fn is_silent(&mut self) -> bool {
        let result = self.fill(Instant::now() + Duration::from_millis(50));
        let timed_out = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
        self.buffer.is_empty() && result.is_err_and(|error| timed_out.contains(&error.kind()))
    }

    /// The server closes the connection and says nothing more.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let limit = Instant::now() + PATIENCE;
        loop {
            assert!(
                self.buffer.is_empty(),
                "got {:?} before the end",
                show(&self.buffer)
            );
            match self.fill(limit) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if is_end(&error) => return,
                Err(error) => panic!("not closed: {error}"),
            }
        }
    }

    /// Reads until the server closes; returns what came.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        let limit = Instant::now() + PATIENCE;
        loop {
            match self.fill(limit) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if is_end(&error) => break,
                Err(error) => panic!("not closed: {error}"),
            }
        }
        std::mem::take(&mut self.buffer)
    }
}

/// Whether the connection is over, in order or not.
fn is_end(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
    )
}

fn show(bytes: &[u8]) -> String {
    let end = bytes.len().min(600);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Waits until something that another thread does is done.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_done: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !is_done() {
        assert!(Instant::now() < limit, "{what} did not happen");
        std::thread::yield_now();
    }
}
