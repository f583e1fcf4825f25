//! What clients send.

use bytes::BufMut;

use super::{OK, PING, PONG, put_arg, put_len};
use crate::{connect::Connect, parser::client::ClientOp};

/// Writes an operation as it was parsed, in its plainest spelling.
pub fn op(out: &mut impl BufMut, op: &ClientOp<'_>) {
    match *op {
        ClientOp::Connect(json) => put_line(out, b"CONNECT ", json),
        ClientOp::Pub(message) if message.header_len == 0 => {
            publish(out, message.subject, message.reply, message.body);
        }
        ClientOp::Pub(message) => {
            hpub(
                out,
                message.subject,
                message.reply,
                message.header(),
                message.payload(),
            );
        }
        ClientOp::Sub {
            subject,
            queue,
            sid,
        } => sub(out, subject, queue, sid),
        ClientOp::Unsub { sid, max } => unsub(out, sid, max),
        ClientOp::Ping => out.put_slice(PING),
        ClientOp::Pong => out.put_slice(PONG),
        ClientOp::Ok => out.put_slice(OK),
        ClientOp::Err(text) => put_line(out, b"-ERR ", text),
        ClientOp::Info(json) => put_line(out, b"INFO ", json),
    }
}

fn put_line(out: &mut impl BufMut, verb: &[u8], rest: &[u8]) {
    out.put_slice(verb);
    out.put_slice(rest);
    out.put_slice(b"\r\n");
}

/// Writes `PUB`.
pub fn publish(out: &mut impl BufMut, subject: &[u8], reply: Option<&[u8]>, payload: &[u8]) {
    out.put_slice(b"PUB ");
    put_arg(out, subject);
    if let Some(reply) = reply {
        put_arg(out, reply);
    }
    put_len(out, payload.len());
    out.put_slice(b"\r\n");
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

/// Writes `HPUB`. `header` is a whole block, its empty line included.
pub fn hpub(
    out: &mut impl BufMut,
    subject: &[u8],
    reply: Option<&[u8]>,
    header: &[u8],
    payload: &[u8],
) {
    out.put_slice(b"HPUB ");
    put_arg(out, subject);
    if let Some(reply) = reply {
        put_arg(out, reply);
    }
    put_len(out, header.len());
    out.put_u8(b' ');
    put_len(out, header.len() + payload.len());
    out.put_slice(b"\r\n");
    out.put_slice(header);
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

/// Writes `SUB`.
pub fn sub(out: &mut impl BufMut, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
    out.put_slice(b"SUB ");
    put_arg(out, subject);
    if let Some(queue) = queue {
        put_arg(out, queue);
    }
    out.put_slice(sid);
    out.put_slice(b"\r\n");
}

/// Writes `UNSUB`; with `max` it takes effect after that many deliveries since SUB.
pub fn unsub(out: &mut impl BufMut, sid: &[u8], max: Option<u32>) {
    out.put_slice(b"UNSUB ");
    out.put_slice(sid);
    if let Some(max) = max {
        out.put_u8(b' ');
        out.put_slice(itoa::Buffer::new().format(max).as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// Writes `CONNECT`.
pub fn connect(out: &mut impl BufMut, connect: &Connect) {
    out.put_slice(b"CONNECT ");
    out.put_slice(&connect.to_json());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_wire_form() {
        let mut out = Vec::new();
        publish(&mut out, b"a", Some(b"r"), b"hi");
        hpub(&mut out, b"a", None, b"NATS/1.0\r\n\r\n", b"hi");
        sub(&mut out, b"a.>", Some(b"q"), b"1");
        unsub(&mut out, b"1", None);
        unsub(&mut out, b"1", Some(5));
        let wire = "PUB a r 2\r\nhi\r\nHPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n\
            SUB a.> q 1\r\nUNSUB 1\r\nUNSUB 1 5\r\n";
        assert_eq!(
            out.escape_ascii().to_string(),
            wire.escape_default().to_string()
        );
    }

    #[test]
    fn connect_is_read_back() {
        let sent = Connect {
            user: Some("u".into()),
            verbose: false,
            ..Connect::default()
        };
        let mut out = Vec::new();
        connect(&mut out, &sent);
        let json = &out[b"CONNECT ".len()..out.len() - 2];
        assert_eq!(Connect::parse(json).expect("valid"), sent);
    }
}
