//! What servers send: the client's side of the client protocol.

use super::{Body, Limits, Line, ParseError, Span, Verb, find_line, parse_len, split_args};

/// One operation of a server. Everything borrows from the buffer that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerOp<'b> {
    /// `INFO {json}`: the JSON, as it came.
    Info(&'b [u8]),
    /// `MSG` or `HMSG`.
    Msg(Message<'b>),
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `+OK`.
    Ok,
    /// `-ERR`: the text without its quotes.
    Err(&'b [u8]),
}

/// A message as it was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'b> {
    /// The subject it was published on.
    pub subject: &'b [u8],
    /// The subscription it is for.
    pub sid: &'b [u8],
    /// Where answers go.
    pub reply: Option<&'b [u8]>,
    /// Header block and payload, one behind the other.
    pub body: &'b [u8],
    /// Bytes of `body` that are the header block; never more than it has.
    pub header_len: usize,
}

impl<'b> Message<'b> {
    /// The header block; empty when there is none.
    #[must_use]
    pub fn header(&self) -> &'b [u8] {
        self.body.get(..self.header_len).unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &'b [u8] {
        self.body.get(self.header_len..).unwrap_or_default()
    }
}

/// Parses what a server sends.
#[derive(Clone, Debug)]
pub struct ServerParser {
    limits: Limits,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Line {
        scanned: usize,
    },
    Body {
        body: Body,
        subject: Span,
        sid: Span,
        reply: Option<Span>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Info,
    Msg,
    Hmsg,
    Ping,
    Pong,
    Ok,
    Err,
}

impl ServerParser {
    /// Bounds for a server that is trusted: lines of 64 KiB, since INFO lists every address of a
    /// cluster, and the 64 MiB that no server's `max_payload` exceeds.
    pub const TRUSTING: Limits = Limits {
        max_control_line: 65_536,
        max_payload: 67_108_864,
    };

    /// A parser at the start of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Line { scanned: 0 },
        }
    }

    /// How many bytes the pending operation needs at least, counted from its first one. The exact
    /// number once its control line is complete.
    #[must_use]
    pub fn needed(&self) -> usize {
        match &self.state {
            State::Line { scanned } => scanned + 1,
            State::Body { body, .. } => body.needed(),
        }
    }

    /// Takes the operation at the start of `buf`: how many bytes it was, and what it says.
    ///
    /// `None`: it is incomplete. Call again with the same bytes and more behind them.
    ///
    /// # Errors
    ///
    /// See [`ParseError`]. The parser must not be used afterwards.
    pub fn parse<'b>(
        &mut self,
        buf: &'b [u8],
    ) -> Result<Option<(usize, ServerOp<'b>)>, ParseError> {
        match self.state {
            State::Line { scanned } => self.parse_line(buf, scanned),
            State::Body {
                body,
                subject,
                sid,
                reply,
            } => self.finish(buf, body, subject, sid, reply),
        }
    }

    fn parse_line<'b>(
        &mut self,
        buf: &'b [u8],
        scanned: usize,
    ) -> Result<Option<(usize, ServerOp<'b>)>, ParseError> {
        let Some((kind, args)) = recognise(buf)? else {
            self.state = State::Line { scanned: buf.len() };
            return Ok(None);
        };
        let Some(line) = find_line(buf, args, scanned, self.limits.max_control_line)? else {
            self.state = State::Line { scanned: buf.len() };
            return Ok(None);
        };
        let rest = line.args.of(buf).trim_ascii();
        let op = match kind {
            Kind::Msg | Kind::Hmsg => {
                return self.message(buf, line, matches!(kind, Kind::Hmsg));
            }
            Kind::Info => ServerOp::Info(rest),
            Kind::Ping => ServerOp::Ping,
            Kind::Pong => ServerOp::Pong,
            Kind::Ok => ServerOp::Ok,
            Kind::Err => ServerOp::Err(unquote(rest)),
        };
        self.state = State::Line { scanned: 0 };
        Ok(Some((line.next, op)))
    }

    fn message<'b>(
        &mut self,
        buf: &'b [u8],
        line: Line,
        has_header: bool,
    ) -> Result<Option<(usize, ServerOp<'b>)>, ParseError> {
        let bad = ParseError::Arguments {
            verb: if has_header { "HMSG" } else { "MSG" },
        };
        let args = split_args(buf, line.args).ok_or(bad)?;
        let (subject, sid, reply, header, total) = match (has_header, args.as_slice()) {
            (false, &[subject, sid, total]) => (subject, sid, None, None, total),
            (false, &[subject, sid, reply, total]) => (subject, sid, Some(reply), None, total),
            (true, &[subject, sid, header, total]) => (subject, sid, None, Some(header), total),
            (true, &[subject, sid, reply, header, total]) => {
                (subject, sid, Some(reply), Some(header), total)
            }
            _ => return Err(bad),
        };
        let header_len = match header {
            Some(span) => parse_len(buf, span).ok_or(bad)?,
            None => 0,
        };
        let total = parse_len(buf, total).ok_or(bad)?;
        if header_len > total {
            return Err(bad);
        }
        let limit = self.limits.max_payload;
        if total > limit {
            return Err(ParseError::MaxPayload { size: total, limit });
        }
        let body = Body {
            start: line.next,
            header_len,
            total,
        };
        self.finish(buf, body, subject, sid, reply)
    }

    fn finish<'b>(
        &mut self,
        buf: &'b [u8],
        body: Body,
        subject: Span,
        sid: Span,
        reply: Option<Span>,
    ) -> Result<Option<(usize, ServerOp<'b>)>, ParseError> {
        let Some(bytes) = body.take(buf)? else {
            self.state = State::Body {
                body,
                subject,
                sid,
                reply,
            };
            return Ok(None);
        };
        self.state = State::Line { scanned: 0 };
        let message = Message {
            subject: subject.of(buf),
            sid: sid.of(buf),
            reply: reply.map(|span| span.of(buf)),
            body: bytes,
            header_len: body.header_len,
        };
        Ok(Some((body.needed(), ServerOp::Msg(message))))
    }
}

fn unquote(text: &[u8]) -> &[u8] {
    match text {
        [b'\'', inner @ .., b'\''] => inner,
        other => other,
    }
}

fn recognise(buf: &[u8]) -> Result<Option<(Kind, usize)>, ParseError> {
    let verb = |name, kind, has_args| Verb {
        name,
        kind,
        has_args,
    };
    let [first, rest @ ..] = buf else {
        return Ok(None);
    };
    let verb = match first.to_ascii_uppercase() {
        b'M' => verb(b"MSG", Kind::Msg, true),
        b'H' => verb(b"HMSG", Kind::Hmsg, true),
        b'P' => match rest.first().map(u8::to_ascii_uppercase) {
            None => return Ok(None),
            Some(b'I') => verb(b"PING", Kind::Ping, false),
            Some(b'O') => verb(b"PONG", Kind::Pong, false),
            Some(_) => return Err(ParseError::UnknownOperation),
        },
        b'I' => verb(b"INFO", Kind::Info, true),
        b'+' => verb(b"+OK", Kind::Ok, false),
        b'-' => verb(b"-ERR", Kind::Err, true),
        _ => return Err(ParseError::UnknownOperation),
    };
    verb.recognise(buf)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encoder::{self, server};

    fn run(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Option<ParseError>) {
        let mut parser = ServerParser::new(Limits::default());
        let mut ops = Vec::new();
        let mut start = 0;
        for end in cuts.iter().copied().chain([bytes.len()]) {
            loop {
                match parser.parse(&bytes[start..end]) {
                    Ok(Some((used, op))) => {
                        ops.push(format!("{op:?}"));
                        start += used;
                    }
                    Ok(None) => break,
                    Err(error) => return (ops, Some(error)),
                }
            }
        }
        (ops, None)
    }

    fn taken(bytes: &[u8]) -> ServerOp<'_> {
        let mut parser = ServerParser::new(ServerParser::TRUSTING);
        let (used, op) = parser.parse(bytes).expect("valid").expect("complete");
        assert_eq!(used, bytes.len());
        op
    }

    #[test]
    fn deliveries_are_read() {
        let message = Message {
            subject: b"a.b",
            sid: b"9",
            reply: None,
            body: b"NATS/1.0\r\n\r\nhi",
            header_len: 0,
        };
        assert_eq!(
            taken(b"MSG a.b 9 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
            ServerOp::Msg(message)
        );
        let message = Message {
            reply: Some(b"r"),
            header_len: 12,
            ..message
        };
        assert_eq!(
            taken(b"HMSG a.b 9 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
            ServerOp::Msg(message)
        );
        assert_eq!(message.payload(), b"hi");
    }

    #[test]
    fn errors_lose_their_quotes() {
        assert_eq!(
            taken(b"-ERR 'Stale Connection'\r\n"),
            ServerOp::Err(b"Stale Connection")
        );
        assert_eq!(taken(b"-ERR odd\r\n"), ServerOp::Err(b"odd"));
        assert_eq!(taken(b"-ERR '\r\n"), ServerOp::Err(b"'"));
        assert_eq!(taken(b"INFO {\"a\":1} \r\n"), ServerOp::Info(b"{\"a\":1}"));
    }

    #[test]
    fn what_servers_never_send_is_refused() {
        for bytes in [
            "PUB a 1\r\n",
            "SUB a 1\r\n",
            "CONNECT {}\r\n",
            "\r\n",
            "MSGx",
        ] {
            assert_eq!(
                run(bytes.as_bytes(), &[]).1,
                Some(ParseError::UnknownOperation)
            );
        }
        for bytes in ["MSG a 1\r\n", "MSG a 1 r 2 3\r\n", "MSG a 1 x\r\n"] {
            assert_eq!(
                run(bytes.as_bytes(), &[]).1,
                Some(ParseError::Arguments { verb: "MSG" })
            );
        }
        for bytes in ["HMSG a 1 2\r\n", "HMSG a 1 9 2\r\n", "HMSG a 1 r 1 2 3\r\n"] {
            assert_eq!(
                run(bytes.as_bytes(), &[]).1,
                Some(ParseError::Arguments { verb: "HMSG" })
            );
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_parsed_however_it_is_cut(
            messages in proptest::collection::vec((
                "[!-~]{1,20}", "[!-~]{1,8}", proptest::option::of("[!-~]{1,20}"),
                proptest::option::of(proptest::collection::vec(any::<u8>(), 1..60)),
                proptest::collection::vec(any::<u8>(), 0..60),
            ), 1..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (subject, sid, reply, header, payload) in &messages {
                let header = header.as_deref().unwrap_or_default();
                let delivery = server::Delivery {
                    subject: subject.as_bytes(),
                    reply: reply.as_deref().map(str::as_bytes),
                    header,
                    payload,
                };
                delivery.encode(&mut bytes, sid.as_bytes(), true);
                bytes.extend_from_slice(encoder::PING);
                let op = ServerOp::Msg(Message {
                    subject: subject.as_bytes(),
                    sid: sid.as_bytes(),
                    reply: reply.as_deref().map(str::as_bytes),
                    body: &[header, payload].concat(),
                    header_len: header.len(),
                });
                expected.push(format!("{op:?}"));
                expected.push(format!("{:?}", ServerOp::Ping));
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.sort_unstable();
            prop_assert_eq!(run(&bytes, &cuts), (expected, None));
        }

        #[test]
        fn damaged_streams_are_refused_alike_however_they_are_cut(
            damage in proptest::collection::vec((0usize..67, any::<u8>()), 1..4), cut in 0usize..67,
        ) {
            let mut bytes =
                b"INFO {} \r\nPONG\r\nHMSG a.b 9 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n+OK\r\n-ERR 'x'\r\n".to_vec();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            prop_assert_eq!(run(&bytes, &[cut]), run(&bytes, &[]));
        }
    }
}
