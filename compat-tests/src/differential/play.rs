//! Plays a sequence to one server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::generate::Sequence;
use super::normal::{CLOSED, Normal, UNSETTLED};

/// How long a PING may stay unanswered before the connection counts as not answering.
const PATIENCE: Duration = Duration::from_millis(700);
/// Between two parts of what is written in parts.
const PAUSE: Duration = Duration::from_micros(300);
/// What a server needs to forget a connection that it has closed.
const FORGETTING: Duration = Duration::from_millis(4);

struct Connection {
    stream: Option<TcpStream>,
    /// Everything of this step.
    received: Vec<u8>,
    /// PONGs asked for in this step.
    pongs: usize,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: Some(stream),
            received: Vec::new(),
            pongs: 0,
        })
    }

    fn write(&mut self, parts: &[&[u8]]) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                thread::sleep(PAUSE);
            }
            // A closed connection is noticed when it is read.
            if stream.write_all(part).is_err() {
                break;
            }
        }
    }

    /// Reads until every PING is answered, or the connection is closed.
    fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 16_384];
        while let Some(stream) = &mut self.stream {
            if count_pongs(&self.received) >= self.pongs {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.received.extend_from_slice(UNSETTLED);
                self.stream = None;
                return;
            }
            let read = stream
                .set_read_timeout(Some(left))
                .and_then(|()| stream.read(&mut buffer));
            match read {
                Ok(0) => self.close(),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.close(),
            }
        }
    }

    /// Ends the connection and waits until the server has done so too.
    fn end(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let mut buffer = [0; 4_096];
        let ended = stream
            .shutdown(Shutdown::Write)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
        if ended.is_ok() {
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    }

    fn close(&mut self) {
        self.received.extend_from_slice(CLOSED);
        self.stream = None;
        thread::sleep(FORGETTING);
    }
}

/// Complete PONG lines that are not part of a payload.
fn count_pongs(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let line = &bytes[..end];
        bytes = &bytes[end + 2..];
        if line == b"PONG" {
            count += 1;
        } else if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
            let size = line.rsplit(|byte| *byte == b' ').next();
            let size = size.and_then(|size| std::str::from_utf8(size).ok()?.parse::<usize>().ok());
            let Some(rest) = size.and_then(|size| bytes.get(size + 2..)) else {
                return count;
            };
            bytes = rest;
        }
    }
    count
}

/// Plays the sequence and gives what each step caused; the first is the greeting.
///
/// # Errors
///
/// If the server cannot be connected to.
pub fn play(sequence: &Sequence, address: SocketAddr) -> Result<Vec<Normal>> {
    let mut connections = Vec::new();
    for _ in 0..sequence.connections {
        connections.push(Connection::open(address)?);
    }
    for connection in &mut connections {
        await_line(connection);
    }
    let mut outcomes = vec![collect(&mut connections)];
    let mut has_begun = vec![false; sequence.connections];
    for step in &sequence.steps {
        let Some(connection) = connections.get_mut(step.connection) else {
            continue;
        };
        has_begun[step.connection] = true;
        let bytes = step.bytes();
        connection.pongs = step.pings();
        connection.write(&step.parts(&bytes));
        let others = (0..sequence.connections).filter(|at| *at != step.connection);
        for at in std::iter::once(step.connection).chain(others) {
            // The first bytes of a connection are a step of their own.
            if has_begun[at] {
                let connection = &mut connections[at];
                connection.pongs += 1;
                connection.write(&[b"PING\r\n"]);
                connection.settle();
            }
        }
        outcomes.push(collect(&mut connections));
        if connections.iter().all(|one| one.stream.is_none()) {
            break;
        }
    }
    for connection in &mut connections {
        connection.end();
    }
    Ok(outcomes)
}

/// The greeting.
fn await_line(connection: &mut Connection) {
    let mut buffer = [0; 4_096];
    while !connection.received.ends_with(b"\r\n") {
        let Some(stream) = &mut connection.stream else {
            return;
        };
        let read = stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .and_then(|()| stream.read(&mut buffer));
        match read {
            Ok(count) if count > 0 => connection.received.extend_from_slice(&buffer[..count]),
            _ => connection.close(),
        }
    }
}

fn collect(connections: &mut [Connection]) -> Normal {
    let received: Vec<Vec<u8>> = connections
        .iter_mut()
        .map(|connection| {
            connection.pongs = 0;
            std::mem::take(&mut connection.received)
        })
        .collect();
    Normal::of(&received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pongs_in_payloads_do_not_count() {
        assert_eq!(
            count_pongs(b"PONG\r\nMSG a 1 6\r\nPONG\r\n\r\nPONG\r\nPON"),
            2
        );
        assert_eq!(count_pongs(b"MSG a 1 60\r\nPONG\r\n"), 0);
    }
}
