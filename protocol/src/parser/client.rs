//! What clients send: the server's side of the client protocol.
//!
//! This is the hottest code of the product. PUB and HPUB are recognised by one comparison of their
//! first bytes; everything else takes the general way.

use super::{
    Body, Limits, Line, ParseError, Span, Verb, find_line, parse_len, parse_size, split_args,
};

/// One operation of a client. Everything borrows from the buffer that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientOp<'b> {
    /// `CONNECT {json}`: the JSON, as it came.
    Connect(&'b [u8]),
    /// `PUB` or `HPUB`.
    Pub(Publish<'b>),
    /// `SUB`.
    Sub {
        /// What to subscribe to, unchecked.
        subject: &'b [u8],
        /// The queue group, if one was given.
        queue: Option<&'b [u8]>,
        /// The client's name for the subscription.
        sid: &'b [u8],
    },
    /// `UNSUB`.
    Unsub {
        /// The client's name for the subscription.
        sid: &'b [u8],
        /// Ends after that many deliveries, counted from SUB. `None` (also for 0 and for what is
        /// no number): ends now.
        max: Option<u32>,
    },
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `+OK`, which servers ignore.
    Ok,
    /// `-ERR`: the rest of the line. The connection is closed.
    Err(&'b [u8]),
    /// `INFO {json}`, which means something between servers only.
    Info(&'b [u8]),
}

/// A message as it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'b> {
    /// The subject, unchecked.
    pub subject: &'b [u8],
    /// Where answers go.
    pub reply: Option<&'b [u8]>,
    /// Header block and payload, one behind the other.
    pub body: &'b [u8],
    /// Bytes of `body` that are the header block; never more than it has.
    pub header_len: usize,
}

impl<'b> Publish<'b> {
    /// The header block; empty when there is none.
    #[must_use]
    #[inline]
    pub fn header(&self) -> &'b [u8] {
        self.body.get(..self.header_len).unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'b [u8] {
        self.body.get(self.header_len..).unwrap_or_default()
    }
}

/// Parses what one client sends.
#[derive(Clone, Debug)]
pub struct ClientParser {
    limits: Limits,
    headers: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Looking for the end of the line; the first `scanned` bytes have none.
    Line { scanned: usize },
    /// The line of a publish is done; its payload is not complete.
    Body {
        body: Body,
        subject: Span,
        reply: Option<Span>,
    },
}

const START: State = State::Line { scanned: 0 };

#[derive(Clone, Copy, Debug)]
enum Kind {
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Ok,
    Err,
    Info,
}

impl ClientParser {
    /// A parser at the start of a connection. HPUB is refused until [`Self::set_headers`].
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            headers: false,
            state: START,
        }
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Changes the bounds, from the next operation on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether HPUB is accepted: both sides announced headers.
    pub fn set_headers(&mut self, headers: bool) {
        self.headers = headers;
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
    #[inline]
    pub fn parse<'b>(
        &mut self,
        buf: &'b [u8],
    ) -> Result<Option<(usize, ClientOp<'b>)>, ParseError> {
        match self.state {
            State::Line { scanned } => {
                if let Some(word) = buf.first_chunk::<4>() {
                    let word = u32::from_le_bytes(*word);
                    // Bit 0x20 is the case of a letter.
                    if word & 0xffdf_dfdf == u32::from_le_bytes(*b"PUB ") {
                        return self.publish(buf, 4, scanned);
                    }
                    if word & 0xdfdf_dfdf == u32::from_le_bytes(*b"HPUB")
                        && buf.get(4) == Some(&b' ')
                    {
                        return self.publish_headers(buf, 5, scanned);
                    }
                }
                self.other(buf, scanned)
            }
            State::Body {
                body,
                subject,
                reply,
            } => self.finish(buf, body, subject, reply),
        }
    }

    #[inline]
    fn line(
        &mut self,
        buf: &[u8],
        args: usize,
        scanned: usize,
    ) -> Result<Option<Line>, ParseError> {
        let line = find_line(buf, args, scanned, self.limits.max_control_line)?;
        if line.is_none() {
            self.state = State::Line { scanned: buf.len() };
        }
        Ok(line)
    }

    #[inline]
    fn publish<'b>(
        &mut self,
        buf: &'b [u8],
        args: usize,
        scanned: usize,
    ) -> Result<Option<(usize, ClientOp<'b>)>, ParseError> {
        const BAD: ParseError = ParseError::Arguments { verb: "PUB" };
        let Some(line) = self.line(buf, args, scanned)? else {
            return Ok(None);
        };
        let args = split_args(buf, line.args).ok_or(BAD)?;
        let (subject, reply, total) = match *args.as_slice() {
            [subject, total] => (subject, None, total),
            [subject, reply, total] => (subject, Some(reply), total),
            _ => return Err(BAD),
        };
        let total = parse_len(buf, total).ok_or(BAD)?;
        self.check_payload(total)?;
        self.finish(
            buf,
            Body {
                start: line.next,
                header_len: 0,
                total,
            },
            subject,
            reply,
        )
    }

    #[inline]
    fn publish_headers<'b>(
        &mut self,
        buf: &'b [u8],
        args: usize,
        scanned: usize,
    ) -> Result<Option<(usize, ClientOp<'b>)>, ParseError> {
        const BAD: ParseError = ParseError::Arguments { verb: "HPUB" };
        let Some(line) = self.line(buf, args, scanned)? else {
            return Ok(None);
        };
        if !self.headers {
            return Err(ParseError::HeadersNotAgreed);
        }
        let args = split_args(buf, line.args).ok_or(BAD)?;
        let (subject, reply, header, total) = match *args.as_slice() {
            [subject, header, total] => (subject, None, header, total),
            [subject, reply, header, total] => (subject, Some(reply), header, total),
            _ => return Err(BAD),
        };
        let header_len = parse_len(buf, header).ok_or(BAD)?;
        let total = parse_len(buf, total).ok_or(BAD)?;
        if header_len > total {
            return Err(BAD);
        }
        self.check_payload(total)?;
        self.finish(
            buf,
            Body {
                start: line.next,
                header_len,
                total,
            },
            subject,
            reply,
        )
    }

    #[inline]
    fn check_payload(&self, size: usize) -> Result<(), ParseError> {
        let limit = self.limits.max_payload;
        if size > limit {
            Err(ParseError::MaxPayload { size, limit })
        } else {
            Ok(())
        }
    }

    #[inline]
    fn finish<'b>(
        &mut self,
        buf: &'b [u8],
        body: Body,
        subject: Span,
        reply: Option<Span>,
    ) -> Result<Option<(usize, ClientOp<'b>)>, ParseError> {
        let Some(bytes) = body.take(buf)? else {
            self.state = State::Body {
                body,
                subject,
                reply,
            };
            return Ok(None);
        };
        self.state = START;
        let publish = Publish {
            subject: subject.of(buf),
            reply: reply.map(|span| span.of(buf)),
            body: bytes,
            header_len: body.header_len,
        };
        Ok(Some((body.needed(), ClientOp::Pub(publish))))
    }

    /// Operations that are not worth a fast path, and odd spellings of those that are.
    #[inline(never)]
    fn other<'b>(
        &mut self,
        buf: &'b [u8],
        scanned: usize,
    ) -> Result<Option<(usize, ClientOp<'b>)>, ParseError> {
        let Some((kind, args)) = recognise(buf)? else {
            self.state = State::Line { scanned: buf.len() };
            return Ok(None);
        };
        match kind {
            Kind::Pub => return self.publish(buf, args, scanned),
            Kind::Hpub => return self.publish_headers(buf, args, scanned),
            _ => {}
        }
        // The blank before a document is not part of its length.
        let has_blank = matches!(kind, Kind::Connect | Kind::Info)
            && matches!(buf.get(args), Some(b' ' | b'\t'));
        let args = if has_blank { args + 1 } else { args };
        let Some(line) = self.line(buf, args, scanned)? else {
            return Ok(None);
        };
        let rest = line.args.of(buf);
        let op = match kind {
            Kind::Connect => ClientOp::Connect(rest.trim_ascii()),
            Kind::Sub => subscribe(buf, line)?,
            Kind::Unsub => unsubscribe(buf, line)?,
            Kind::Ping => ClientOp::Ping,
            Kind::Pong => ClientOp::Pong,
            Kind::Err => ClientOp::Err(rest.trim_ascii()),
            Kind::Info => ClientOp::Info(rest.trim_ascii()),
            Kind::Ok | Kind::Pub | Kind::Hpub => ClientOp::Ok,
        };
        self.state = START;
        Ok(Some((line.next, op)))
    }
}

fn subscribe<'b>(buf: &'b [u8], line: Line) -> Result<ClientOp<'b>, ParseError> {
    const BAD: ParseError = ParseError::Arguments { verb: "SUB" };
    let args = split_args(buf, line.args).ok_or(BAD)?;
    match *args.as_slice() {
        [subject, sid] => Ok(ClientOp::Sub {
            subject: subject.of(buf),
            queue: None,
            sid: sid.of(buf),
        }),
        [subject, queue, sid] => Ok(ClientOp::Sub {
            subject: subject.of(buf),
            queue: Some(queue.of(buf)),
            sid: sid.of(buf),
        }),
        _ => Err(BAD),
    }
}

fn unsubscribe<'b>(buf: &'b [u8], line: Line) -> Result<ClientOp<'b>, ParseError> {
    const BAD: ParseError = ParseError::Arguments { verb: "UNSUB" };
    let args = split_args(buf, line.args).ok_or(BAD)?;
    match *args.as_slice() {
        [sid] => Ok(ClientOp::Unsub {
            sid: sid.of(buf),
            max: None,
        }),
        [sid, max] => {
            let max = parse_size(max.of(buf)).filter(|&max| max > 0);
            Ok(ClientOp::Unsub {
                sid: sid.of(buf),
                max,
            })
        }
        _ => Err(BAD),
    }
}

/// The verb at the start of `buf`, as soon as its bytes can be no other.
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
        b'P' => match rest.first().map(u8::to_ascii_uppercase) {
            None => return Ok(None),
            Some(b'U') => verb(b"PUB", Kind::Pub, true),
            Some(b'I') => verb(b"PING", Kind::Ping, false),
            Some(b'O') => verb(b"PONG", Kind::Pong, false),
            Some(_) => return Err(ParseError::UnknownOperation),
        },
        b'H' => verb(b"HPUB", Kind::Hpub, true),
        b'S' => verb(b"SUB", Kind::Sub, true),
        b'U' => verb(b"UNSUB", Kind::Unsub, true),
        // Documents need no blank before them.
        b'C' => verb(b"CONNECT", Kind::Connect, false),
        b'I' => verb(b"INFO", Kind::Info, false),
        b'+' => verb(b"+OK", Kind::Ok, false),
        b'-' => verb(b"-ERR", Kind::Err, true),
        _ => return Err(ParseError::UnknownOperation),
    };
    verb.recognise(buf)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
