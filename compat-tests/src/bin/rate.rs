//! How many messages a second one publisher gets to one subscriber: over TCP or WebSocket, alone or
//! beside subscribers that never read.
//!
//! For `make benchmarks`, where the load generator has no WebSocket and no stalled receivers. It
//! writes and reads raw bytes in large pieces, so that the server is what is measured.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Bytes of one write, and of one WebSocket frame.
const CHUNK_BYTES: usize = 64 << 10;
/// How long nothing may arrive.
const PATIENCE: Duration = Duration::from_secs(20);
const SUBJECT: &str = "rate";
/// What the subscribers that never read are subscribed to.
const STALLED: &str = "stalled";
/// It gets a message for every so many chunks, and before the start so many of this size, which is
/// more than sockets hold.
const CHUNKS_PER_STALLED: usize = 100;
const FILLING: (usize, usize) = (4, 1 << 20);

/// A connection to the server; with WebSocket every write is one frame.
struct Connection {
    stream: TcpStream,
    is_websocket: bool,
    /// Bytes of the current frame that are still to come.
    in_frame: usize,
    /// Bytes read and not yet looked at.
    buffer: Vec<u8>,
    filled: std::ops::Range<usize>,
}

impl Connection {
    fn open(address: &str, is_websocket: bool) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Self {
            stream,
            is_websocket: false,
            in_frame: 0,
            buffer: vec![0; 1 << 20],
            filled: 0..0,
        };
        if is_websocket {
            connection.upgrade(address)?;
        }
        connection.wait_for(b"INFO ")?;
        connection.write(b"CONNECT {\"verbose\":false}\r\nPING\r\n")?;
        connection.wait_for(b"PONG\r\n")?;
        Ok(connection)
    }

    fn upgrade(&mut self, address: &str) -> Result<()> {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            self.stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        ensure!(
            answer.starts_with(b"HTTP/1.1 101"),
            "no upgrade: {}",
            String::from_utf8_lossy(&answer)
        );
        self.is_websocket = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let framed = self.framed(bytes)?;
        Ok(self.stream.write_all(&framed)?)
    }

    /// `bytes` as they go over the wire. The mask is zero, which leaves them as they are.
    fn framed(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut framed = Vec::with_capacity(bytes.len() + 14);
        if self.is_websocket {
            framed.push(0x82);
            match bytes.len() {
                short @ ..126 => framed.push(0x80 | u8::try_from(short)?),
                medium @ ..65536 => {
                    framed.push(0x80 | 126);
                    framed.extend_from_slice(&u16::try_from(medium)?.to_be_bytes());
                }
                long => {
                    framed.push(0x80 | 127);
                    framed.extend_from_slice(&u64::try_from(long)?.to_be_bytes());
                }
            }
            framed.extend_from_slice(&[0; 4]);
        }
        framed.extend_from_slice(bytes);
        Ok(framed)
    }

    /// Reads some protocol bytes, without frames.
    fn read(&mut self) -> Result<&[u8]> {
        loop {
            if self.filled.is_empty() {
                self.fill()?;
            }
            if !self.is_websocket {
                let taken = std::mem::replace(&mut self.filled, 0..0);
                return Ok(&self.buffer[taken]);
            }
            if self.in_frame == 0 {
                self.frame_header()?;
                continue;
            }
            let count = self.in_frame.min(self.filled.len());
            self.in_frame -= count;
            let start = self.filled.start;
            self.filled.start += count;
            return Ok(&self.buffer[start..start + count]);
        }
    }

    fn fill(&mut self) -> Result<()> {
        let kept = self.filled.len();
        self.buffer.copy_within(self.filled.clone(), 0);
        let count = self.stream.read(&mut self.buffer[kept..])?;
        ensure!(count > 0, "the server closed the connection");
        self.filled = 0..kept + count;
        Ok(())
    }

    fn frame_header(&mut self) -> Result<()> {
        loop {
            let bytes = &self.buffer[self.filled.clone()];
            let header = match bytes {
                [_, len @ 0..=125, ..] => Some((2, usize::from(*len))),
                [_, 126, a, b, ..] => Some((4, usize::from(u16::from_be_bytes([*a, *b])))),
                [_, 127, len @ ..] if len.len() >= 8 => {
                    let len: [u8; 8] = len[..8].try_into()?;
                    Some((10, usize::try_from(u64::from_be_bytes(len))?))
                }
                _ => None,
            };
            if let Some((skip, len)) = header {
                self.filled.start += skip;
                self.in_frame = len;
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn wait_for(&mut self, wanted: &[u8]) -> Result<()> {
        let mut seen = Vec::new();
        while !seen.windows(wanted.len()).any(|part| part == wanted) {
            seen.extend_from_slice(self.read()?);
        }
        Ok(())
    }

    fn subscribe(&mut self, subject: &str) -> Result<()> {
        self.write(format!("SUB {subject} 1\r\nPING\r\n").as_bytes())?;
        self.wait_for(b"PONG\r\n")
    }
}

fn message(subject: &str, size: usize) -> String {
    format!("PUB {subject} {size}\r\n{}\r\n", "x".repeat(size))
}

fn publish(mut to: Connection, messages: usize, size: usize) -> Result<()> {
    let one = message(SUBJECT, size);
    let in_chunk = (CHUNK_BYTES / one.len()).max(1);
    let chunk = to.framed(one.repeat(in_chunk).as_bytes())?;
    let mut left = messages;
    let mut chunks = 0;
    while left >= in_chunk {
        to.stream.write_all(&chunk)?;
        left -= in_chunk;
        chunks += 1;
        if chunks % CHUNKS_PER_STALLED == 0 {
            to.write(message(STALLED, size).as_bytes())?;
        }
    }
    to.write(format!("{}PING\r\n", one.repeat(left)).as_bytes())?;
    to.wait_for(b"PONG\r\n")
}

/// Messages a second.
fn rate(address: &str, is_websocket: bool, messages: usize, size: usize) -> Result<f64> {
    let mut subscriber = Connection::open(address, is_websocket)?;
    subscriber.subscribe(SUBJECT)?;
    let publisher = Connection::open(address, is_websocket)?;
    let expected = messages * (format!("MSG {SUBJECT} 1 {size}\r\n").len() + size + 2);
    let begun = Instant::now();
    let publishing = std::thread::spawn(move || publish(publisher, messages, size));
    let mut came = 0;
    while came < expected {
        came += subscriber.read().context("messages are missing")?.len();
    }
    let took = begun.elapsed();
    match publishing.join() {
        Ok(outcome) => outcome?,
        Err(_) => bail!("the publisher panicked"),
    }
    // A ping of the server may be among them.
    ensure!(
        came - expected <= "PING\r\n".len(),
        "{came} bytes came instead of {expected}"
    );
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    Ok(messages as f64 / took.as_secs_f64())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scheme, address, messages, size, stalled] = &arguments[..] else {
        bail!("usage: rate tcp|ws HOST:PORT MESSAGES SIZE STALLED-SUBSCRIBERS");
    };
    let is_websocket = match scheme.as_str() {
        "tcp" => false,
        "ws" => true,
        other => bail!("{other:?} is neither tcp nor ws"),
    };
    let mut idle = Vec::new();
    for _ in 0..stalled.parse::<usize>()? {
        let mut connection = Connection::open(address, is_websocket)?;
        connection.subscribe(STALLED)?;
        connection.buffer = Vec::new();
        idle.push(connection);
    }
    if !idle.is_empty() {
        let (count, size) = FILLING;
        let mut filler = Connection::open(address, is_websocket)?;
        filler.write(message(STALLED, size).repeat(count).as_bytes())?;
        filler.write(b"PING\r\n")?;
        filler.wait_for(b"PONG\r\n")?;
    }
    let rate = rate(address, is_websocket, messages.parse()?, size.parse()?)?;
    #[expect(clippy::print_stdout, reason = "its answer")]
    {
        println!("{rate:.0}");
    }
    for connection in idle {
        // Closed by the server already, if it gave up on it.
        drop(connection.stream.shutdown(Shutdown::Both));
    }
    Ok(())
}
