//! Runs a script on one server.

use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::generate::{Op, Script};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a pull may stay silent behind its first messages.
const QUIET: Duration = Duration::from_millis(1500);
/// How many deliveries are remembered for settling.
const REMEMBERED: usize = 20;

/// Fields that belong to one server or one moment.
const OF_ITS_OWN: &[&str] = &[
    "_nats.level",
    "_nats.ver",
    "created",
    "ts",
    "time",
    "timestamp",
    "first_ts",
    "last_ts",
    "last_active",
    "cluster",
    "domain",
    "pause_remaining",
];

/// What came for one operation, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen(Vec<String>);

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            writeln!(f, "  <<< {line}")?;
        }
        Ok(())
    }
}

/// A message from the server.
struct Message {
    subject: String,
    reply: String,
    header: String,
    payload: Vec<u8>,
}

/// A connection on which scripts are run.
#[derive(Debug)]
pub struct Player {
    stream: TcpStream,
    buffer: Vec<u8>,
    requests: u64,
}

impl Player {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If nobody answers.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\nSUB _I.> 1\r\n")?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            requests: 0,
        })
    }

    /// Removes all streams, then runs the script; gives what came for each operation.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub fn play(&mut self, script: &Script) -> Result<Vec<Seen>> {
        self.clear()?;
        let mut deliveries = VecDeque::new();
        let mut seen = Vec::new();
        for op in &script.ops {
            let messages = match op {
                Op::Request {
                    subject,
                    header,
                    body,
                } => {
                    let inbox = self.send(subject, header, body)?;
                    self.receive(&inbox, 1, PATIENCE)?
                }
                Op::Pull {
                    subject,
                    batch,
                    body,
                } => {
                    let inbox = self.send(subject, "", body)?;
                    self.receive(&inbox, *batch, QUIET)?
                }
                Op::Settle { which, body } => {
                    let Some(subject): Option<&String> = deliveries.get(*which) else {
                        seen.push(Seen(Vec::new()));
                        continue;
                    };
                    let subject = subject.clone();
                    let inbox = self.send(&subject, "", body)?;
                    self.receive(&inbox, 1, PATIENCE)?
                }
            };
            for message in &messages {
                if message.reply.starts_with("$JS.ACK.") {
                    deliveries.push_front(message.reply.clone());
                    deliveries.truncate(REMEMBERED);
                }
            }
            seen.push(Seen(messages.iter().map(normal).collect()));
        }
        Ok(seen)
    }

    fn clear(&mut self) -> Result<()> {
        for stream in ["A", "B", "other"] {
            let inbox = self.send(&format!("$JS.API.STREAM.DELETE.{stream}"), "", "")?;
            if self.receive(&inbox, 1, PATIENCE * 4)?.is_empty() {
                bail!("no answer to STREAM.DELETE");
            }
        }
        Ok(())
    }

    /// Publishes with a reply of its own, which it gives.
    fn send(&mut self, subject: &str, header: &str, body: &str) -> Result<String> {
        self.requests += 1;
        let inbox = format!("_I.{}", self.requests);
        let bytes = if header.is_empty() {
            format!("PUB {subject} {inbox} {}\r\n{body}\r\n", body.len())
        } else {
            let header = format!("NATS/1.0\r\n{header}\r\n");
            let total = header.len() + body.len();
            format!(
                "HPUB {subject} {inbox} {} {total}\r\n{header}{body}\r\n",
                header.len()
            )
        };
        self.stream.write_all(bytes.as_bytes()).context("sending")?;
        Ok(inbox)
    }

    /// Awaits `count` messages on an inbox, or one that says that no more will come.
    fn receive(&mut self, inbox: &str, count: usize, patience: Duration) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        let mut deadline = Instant::now() + patience;
        while messages.len() < count {
            let Some(message) = self.next(deadline)? else {
                break;
            };
            if message.subject != inbox {
                continue;
            }
            let is_last = message.header.starts_with("NATS/1.0 4")
                || message.header.starts_with("NATS/1.0 5");
            messages.push(message);
            if is_last {
                break;
            }
            deadline = Instant::now() + patience;
        }
        Ok(messages)
    }

    fn next(&mut self, deadline: Instant) -> Result<Option<Message>> {
        let mut chunk = [0; 65_536];
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next whole message of the buffer.
    fn take(&mut self) -> Result<Option<Message>> {
        while let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
            let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            let args: Vec<&str> = line.split(' ').collect();
            if !matches!(args[0], "MSG" | "HMSG") {
                self.buffer.drain(..end + 2);
                match args[0] {
                    "PING" => self.stream.write_all(b"PONG\r\n")?,
                    "-ERR" => bail!("{line}"),
                    _ => {}
                }
                continue;
            }
            let total: usize = args.last().context("size")?.parse()?;
            if self.buffer.len() < end + 4 + total {
                return Ok(None);
            }
            let (header_len, fixed) = if args[0] == "HMSG" {
                (args[args.len() - 2].parse()?, 5)
            } else {
                (0, 4)
            };
            let reply = if args.len() > fixed { args[3] } else { "" };
            let body = &self.buffer[end + 2..end + 2 + total];
            let message = Message {
                subject: args[1].to_owned(),
                reply: reply.to_owned(),
                header: String::from_utf8_lossy(&body[..header_len]).into_owned(),
                payload: body[header_len..].to_vec(),
            };
            self.buffer.drain(..end + 4 + total);
            return Ok(Some(message));
        }
        Ok(None)
    }
}

/// A message without what belongs to one server or one moment.
fn normal(message: &Message) -> String {
    let payload = match serde_json::from_slice::<Value>(&message.payload) {
        Ok(mut value) if value.is_object() => {
            plain(&mut value);
            value.to_string()
        }
        _ => message.payload.escape_ascii().to_string(),
    };
    let header: Vec<&str> = message
        .header
        .lines()
        .filter(|line| !line.starts_with("Nats-Time-Stamp:") && !line.is_empty())
        .collect();
    let mut reply: Vec<&str> = message.reply.split('.').collect();
    if message.reply.starts_with("$JS.ACK.") {
        // The moment at which the message was stored.
        let at = reply.len() - 2;
        reply[at] = "time";
    }
    format!("{} {header:?} {payload}", reply.join("."))
}

fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !OF_ITS_OWN.contains(&key.as_str()));
            // That a stream was told to begin at 1 is shown until its first message, here as long as
            // its configuration says so.
            if fields.get("last_seq") == Some(&0.into())
                && fields.get("messages") == Some(&0.into())
            {
                fields.remove("first_seq");
            }
            // Asked for details, the reference counts sequence 0 of a new stream as deleted.
            if fields.get("last_seq") == Some(&0.into())
                && fields.get("deleted") == Some(&json!([0]))
            {
                fields.remove("deleted");
                fields.remove("num_deleted");
            }
            // Which of two words it has for a message that is gone depends on where its blocks begin.
            if fields.get("err_code") == Some(&10_057.into())
                && fields.get("description") == Some(&"no message found".into())
                || fields.get("err_code") == Some(&10_043.into())
            {
                fields.clear();
                fields.insert("description".to_owned(), "no such message".into());
            }
            if let Some(Value::String(description)) = fields.get_mut("description") {
                *description = wording(description);
            }
            fields.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

/// A description without what a JSON reader says of a text it cannot read: that names the reader's
/// own types. The names of unknown fields and words stay.
fn wording(description: &str) -> String {
    const STAYS: &[&str] = &[
        "json: unknown field",
        "can not unmarshal",
        "unknown ",
        "consumer group",
    ];
    // In no order.
    const VIOLATED: &str = "change to limits violates consumers: ";
    if let Some(consumers) = description.strip_prefix(VIOLATED) {
        let mut consumers: Vec<&str> = consumers.split(", ").collect();
        consumers.sort_unstable();
        return format!("{VIOLATED}{}", consumers.join(", "));
    }
    match description.strip_prefix("invalid JSON: ") {
        Some(rest) if !STAYS.iter().any(|text| rest.starts_with(text)) => {
            "invalid JSON: ...".to_owned()
        }
        _ => description.to_owned(),
    }
}
