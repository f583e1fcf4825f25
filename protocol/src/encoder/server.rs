//! What servers send.

use bytes::BufMut;

use super::{OK, PING, PONG, put_arg, put_len};
use crate::{headers, info::Info, parser::server::ServerOp};

/// A message on its way to subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The subject it was published on.
    pub subject: &'a [u8],
    /// Where answers go.
    pub reply: Option<&'a [u8]>,
    /// The header block; empty for none.
    pub header: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl Delivery<'_> {
    /// Writes the message for one subscription. A receiver without `headers` gets `MSG` and the
    /// payload alone.
    #[inline]
    pub fn encode(&self, out: &mut impl BufMut, sid: &[u8], headers: bool) {
        let header = if headers { self.header } else { &[] };
        let lengths = Lengths {
            header: header.len(),
            payload: self.payload.len(),
        };
        message_line(out, self.subject, sid, self.reply, lengths);
        out.put_slice(header);
        out.put_slice(self.payload);
        out.put_slice(b"\r\n");
    }

    /// An upper bound for what [`Self::encode`] writes, in bytes.
    #[must_use]
    pub fn encoded_len_bound(&self, sid: &[u8]) -> usize {
        let reply = self.reply.map_or(0, |reply| reply.len() + 1);
        // Verb, separators and line ends, and two numbers of at most nine digits.
        let fixed = 5 + 2 + 9 + 1 + 9 + 4;
        fixed + self.subject.len() + sid.len() + reply + self.header.len() + self.payload.len()
    }
}

/// Sizes of the two parts of a message, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The header block; 0 for none.
    pub header: usize,
    /// The payload.
    pub payload: usize,
}

/// Writes the control line of `MSG`, or of `HMSG` if there is a header, for callers that put the
/// body behind it without copying it.
#[inline]
pub fn message_line(
    out: &mut impl BufMut,
    subject: &[u8],
    sid: &[u8],
    reply: Option<&[u8]>,
    lengths: Lengths,
) {
    out.put_slice(if lengths.header == 0 {
        b"MSG "
    } else {
        b"HMSG "
    });
    put_arg(out, subject);
    put_arg(out, sid);
    if let Some(reply) = reply {
        put_arg(out, reply);
    }
    if lengths.header > 0 {
        put_len(out, lengths.header);
        out.put_u8(b' ');
    }
    put_len(out, lengths.header + lengths.payload);
    out.put_slice(b"\r\n");
}

/// Writes the answer to a request on `subject` that nobody got. `sid` is the requester's
/// subscription for `reply`.
pub fn no_responders(out: &mut impl BufMut, reply: &[u8], sid: &[u8], subject: &[u8]) {
    const BEFORE: &[u8] = b" 503\r\nNats-Subject: ";
    const AFTER: &[u8] = b"\r\n\r\n";
    let header = headers::VERSION.len() + BEFORE.len() + subject.len() + AFTER.len();
    message_line(out, reply, sid, None, Lengths { header, payload: 0 });
    out.put_slice(headers::VERSION);
    out.put_slice(BEFORE);
    out.put_slice(subject);
    out.put_slice(AFTER);
    out.put_slice(b"\r\n");
}

/// Writes `INFO`, with the one space that nats-server puts before the line end.
pub fn info(out: &mut impl BufMut, info: &Info) {
    out.put_slice(b"INFO ");
    out.put_slice(&info.to_json());
    out.put_slice(b" \r\n");
}

/// Writes an operation as it was parsed, in its plainest spelling.
pub fn op(out: &mut impl BufMut, op: &ServerOp<'_>) {
    match *op {
        ServerOp::Info(json) => {
            out.put_slice(b"INFO ");
            out.put_slice(json);
            out.put_slice(b" \r\n");
        }
        ServerOp::Msg(message) => {
            let lengths = Lengths {
                header: message.header_len,
                payload: message.payload().len(),
            };
            message_line(out, message.subject, message.sid, message.reply, lengths);
            out.put_slice(message.body);
            out.put_slice(b"\r\n");
        }
        ServerOp::Ping => out.put_slice(PING),
        ServerOp::Pong => out.put_slice(PONG),
        ServerOp::Ok => out.put_slice(OK),
        ServerOp::Err(text) => {
            out.put_slice(b"-ERR '");
            out.put_slice(text);
            out.put_slice(b"'\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELIVERY: Delivery<'static> = Delivery {
        subject: b"a.b",
        reply: Some(b"r"),
        header: b"NATS/1.0\r\n\r\n",
        payload: b"hi",
    };

    fn encoded(delivery: Delivery<'_>, headers: bool) -> Vec<u8> {
        let mut out = Vec::new();
        delivery.encode(&mut out, b"12", headers);
        assert!(out.len() <= delivery.encoded_len_bound(b"12"));
        out
    }

    #[test]
    fn deliveries_have_the_wire_form() {
        assert_eq!(
            encoded(DELIVERY, true),
            b"HMSG a.b 12 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
        );
        let plain = Delivery {
            header: b"",
            reply: None,
            ..DELIVERY
        };
        assert_eq!(encoded(plain, true), b"MSG a.b 12 2\r\nhi\r\n");
        assert_eq!(
            encoded(
                Delivery {
                    payload: b"",
                    ..plain
                },
                true
            ),
            b"MSG a.b 12 0\r\n\r\n"
        );
    }

    #[test]
    fn headers_are_cut_off_for_old_clients() {
        assert_eq!(encoded(DELIVERY, false), b"MSG a.b 12 r 2\r\nhi\r\n");
    }

    #[test]
    fn no_responders_names_the_subject() {
        let mut out = Vec::new();
        no_responders(&mut out, b"_INBOX.1", b"3", b"svc.x");
        assert_eq!(
            out,
            b"HMSG _INBOX.1 3 37 37\r\nNATS/1.0 503\r\nNats-Subject: svc.x\r\n\r\n\r\n"
        );
    }

    #[test]
    fn info_ends_with_a_space() {
        let mut out = Vec::new();
        info(&mut out, &Info::default());
        assert!(out.starts_with(b"INFO {\"server_id\":"));
        assert!(out.ends_with(b"} \r\n"));
    }
}
