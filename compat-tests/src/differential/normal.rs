//! What a server sent, without what it does not promise.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Fields of INFO that belong to one server or one connection.
const INFO_OF_ITS_OWN: &[&str] = &[
    "server_id",
    "server_name",
    "version",
    "go",
    "git_commit",
    "host",
    "port",
    "client_id",
    "client_ip",
    "nonce",
    "xkey",
    // It goes with the version.
    "api_lvl",
    "cluster",
];

/// One thing a server sends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Frame {
    /// A line, an error or a part that could not be read.
    Line(String),
    /// MSG or HMSG: sid, and the whole as text.
    Message { sid: String, text: String },
}

/// What one step caused, on every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Normal {
    /// Lines and messages of each connection; between two lines, messages in the order of sids.
    connections: Vec<Vec<Frame>>,
    /// Messages to queue groups, whichever member got them.
    queues: Vec<String>,
}

impl Normal {
    /// The normal form of the bytes each connection got in a step.
    #[must_use]
    pub fn of(received: &[Vec<u8>]) -> Self {
        let mut normal = Self::default();
        for bytes in received {
            let mut frames = frames(bytes);
            frames.retain(|frame| match frame {
                Frame::Line(line) => line != "PING",
                Frame::Message { sid, text } if sid.starts_with('q') => {
                    normal.queues.push(text.clone());
                    false
                }
                Frame::Message { .. } => true,
            });
            // The reference says it again when the rest of the message comes with a later read, and
            // before it sees what is wrong with that rest.
            frames.dedup_by(|a, b| a == b && *a == error("Invalid Publish Subject"));
            if let Some(at) = frames
                .iter()
                .position(|frame| *frame == error("Unknown Protocol Operation"))
                && at > 0
                && frames[at - 1] == error("Invalid Publish Subject")
            {
                frames.remove(at - 1);
            }
            let is_message = |frame: &Frame| matches!(frame, Frame::Message { .. });
            for run in frames.chunk_by_mut(|a, b| is_message(a) && is_message(b)) {
                run.sort_by(|a, b| match (a, b) {
                    (Frame::Message { sid: a, .. }, Frame::Message { sid: b, .. }) => a.cmp(b),
                    _ => std::cmp::Ordering::Equal,
                });
            }
            normal.connections.push(frames);
        }
        normal.queues.sort();
        normal
    }
}

fn error(text: &str) -> Frame {
    Frame::Line(format!("-ERR \\'{text}\\'"))
}

impl fmt::Display for Normal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, frames) in self.connections.iter().enumerate() {
            for frame in frames {
                let (Frame::Line(text) | Frame::Message { text, .. }) = frame;
                writeln!(f, "  {index} <<< {text}")?;
            }
        }
        for text in &self.queues {
            writeln!(f, "  queue <<< {text}")?;
        }
        Ok(())
    }
}

/// The first step whose outcomes differ.
#[must_use]
pub fn first_difference(reference: &[Normal], tested: &[Normal]) -> Option<usize> {
    reference.iter().zip(tested).position(|(a, b)| a != b)
}

/// What is told of a connection's end.
pub(super) const CLOSED: &[u8] = b"(closed)\r\n";
/// What is told of a connection that did not come to rest.
pub(super) const UNSETTLED: &[u8] = b"(no answer)\r\n";

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(2).position(|two| two == b"\r\n");
        let Some(end) = end else {
            frames.push(Frame::Line(format!("(part of a line) {}", shown(bytes))));
            break;
        };
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 2..];
        let args: Vec<&str> = line.split(' ').collect();
        if !matches!(args[0], "MSG" | "HMSG") {
            frames.push(Frame::Line(plain(&line)));
            continue;
        }
        let size = args.last().and_then(|size| size.parse::<usize>().ok());
        let Some(size) = size.filter(|size| size + 2 <= bytes.len()) else {
            frames.push(Frame::Line(format!("(part of a message) {line}")));
            break;
        };
        let (body, rest) = bytes.split_at(size + 2);
        bytes = rest;
        frames.push(if args.get(2).is_some_and(|sid| sid.starts_with('q')) {
            queued(&args, body)
        } else {
            message(&args, &shown(body))
        });
    }
    frames
}

/// What any member of a queue group may get, whether it understands headers or not.
fn queued(args: &[&str], body: &[u8]) -> Frame {
    let (args, header_len) = match args {
        ["HMSG", args @ .., header, _] => (args, header.parse().unwrap_or(0)),
        ["MSG", args @ .., _] => (args, 0),
        _ => (args, 0),
    };
    let payload = shown(body.get(header_len..).unwrap_or_default());
    let (subject, reply) = (args.first().unwrap_or(&""), args.get(2).unwrap_or(&""));
    let sid = args.get(1).copied().unwrap_or_default();
    // Members of a group may have different filters.
    let group = sid.split(['/', '_']).nth(1).unwrap_or_default();
    Frame::Message {
        sid: sid.to_owned(),
        text: format!("{group}: {subject} {reply} | {payload}"),
    }
}

/// A message, with what may be the one or the other way put one way.
fn message(args: &[&str], body: &str) -> Frame {
    let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let sid = args.get(2).cloned().unwrap_or_default();
    if body.starts_with("NATS/1.0 503\\r\\nNats-Subject:") {
        // Any one subscription to the reply hears that there are no responders.
        args[2] = "any".to_owned();
    }
    // The reference repeats the digits a publisher wrote: 02 is 2.
    for size in args.iter_mut().skip(3) {
        if let Ok(number) = size.parse::<u64>() {
            *size = number.to_string();
        }
    }
    Frame::Message {
        sid: if args[2] == "any" {
            args[2].clone()
        } else {
            sid
        },
        text: format!("{} | {body}", args.join(" ")),
    }
}

/// A line without what is the server's own.
fn plain(line: &str) -> String {
    let Some(json) = line.strip_prefix("INFO ") else {
        return shown(line.as_bytes());
    };
    match serde_json::from_str::<BTreeMap<String, Value>>(json) {
        Ok(mut info) => {
            info.retain(|key, _| !INFO_OF_ITS_OWN.contains(&key.as_str()));
            format!("INFO {info:?}")
        }
        Err(error) => format!("INFO that cannot be read: {error}"),
    }
}

/// Bytes as text on one line.
pub(super) fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_between_receivers_is_not_compared() {
        let a = Normal::of(&[b"MSG a 1 1\r\nx\r\nMSG a 2 1\r\nx\r\nPONG\r\n".to_vec()]);
        let b = Normal::of(&[b"MSG a 2 1\r\nx\r\nMSG a 1 1\r\nx\r\nPONG\r\n".to_vec()]);
        assert_eq!(a, b);
    }

    #[test]
    fn order_at_one_receiver_is_compared() {
        let a = Normal::of(&[b"MSG a 1 1\r\nx\r\nMSG a 1 1\r\ny\r\n".to_vec()]);
        let b = Normal::of(&[b"MSG a 1 1\r\ny\r\nMSG a 1 1\r\nx\r\n".to_vec()]);
        assert_ne!(a, b);
    }

    #[test]
    fn any_member_of_a_queue_group_will_do() {
        let a = Normal::of(&[b"MSG a qa/g_1 1\r\nx\r\n".to_vec(), Vec::new()]);
        let b = Normal::of(&[Vec::new(), b"MSG a qa/g_2 1\r\nx\r\n".to_vec()]);
        assert_eq!(a, b);
    }

    #[test]
    fn pings_of_the_server_and_its_names_are_not_compared() {
        let a = Normal::of(&[b"PING\r\nINFO {\"server_id\":\"A\",\"max_payload\":5}\r\n".to_vec()]);
        let b = Normal::of(&[b"INFO {\"server_id\":\"B\",\"max_payload\":5}\r\n".to_vec()]);
        assert_eq!(a, b);
    }
}
