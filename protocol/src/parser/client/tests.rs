use proptest::prelude::*;

use super::*;
use crate::{encoder::client as encoder, error::WireError};

fn parser() -> ClientParser {
    let mut parser = ClientParser::new(Limits::default());
    parser.set_headers(true);
    parser
}

/// Parses all of `bytes`, which arrive in pieces that end at `cuts`.
fn run(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Option<ParseError>) {
    let mut parser = parser();
    let mut ops = Vec::new();
    let mut start = 0;
    let ends = cuts.iter().copied().chain([bytes.len()]);
    for end in ends {
        loop {
            let buf = bytes[start..end].to_vec();
            match parser.parse(&buf) {
                Ok(Some((used, op))) => {
                    assert!(used > 0 && used <= buf.len());
                    ops.push(format!("{op:?}"));
                    start += used;
                }
                Ok(None) => {
                    assert!(
                        parser.needed() > buf.len(),
                        "{} of {}",
                        buf.len(),
                        parser.needed()
                    );
                    break;
                }
                Err(error) => return (ops, Some(error)),
            }
        }
    }
    (ops, None)
}

fn one(bytes: &[u8]) -> Result<Option<(usize, ClientOp<'_>)>, ParseError> {
    parser().parse(bytes)
}

fn taken(bytes: &[u8]) -> ClientOp<'_> {
    let (used, op) = one(bytes).expect("valid").expect("complete");
    assert_eq!(used, bytes.len());
    op
}

fn refused(bytes: &[u8]) -> ParseError {
    one(bytes).expect_err("refused")
}

fn bad(verb: &'static str) -> ParseError {
    ParseError::Arguments { verb }
}

#[test]
fn publishes_borrow_from_the_buffer() {
    let publish = Publish {
        subject: b"a.b",
        reply: None,
        body: b"hello",
        header_len: 0,
    };
    for line in [
        "PUB a.b 5",
        "pub a.b 5",
        "PuB  a.b\t 5 ",
        "PUB\ta.b\t5",
        "PUB a.b 000000005",
    ] {
        let bytes = format!("{line}\r\nhello\r\n");
        assert_eq!(taken(bytes.as_bytes()), ClientOp::Pub(publish), "{line}");
    }
    assert_eq!(taken(b"PUB a.b 5\nhello\r\n"), ClientOp::Pub(publish));
    let with_reply = Publish {
        reply: Some(b"r"),
        ..publish
    };
    assert_eq!(
        taken(b"PUB a.b r 5\r\nhello\r\n"),
        ClientOp::Pub(with_reply)
    );
}

#[test]
fn an_empty_payload_still_has_its_line_end() {
    let ClientOp::Pub(publish) = taken(b"PUB a 0\r\n\r\n") else {
        panic!("a publish")
    };
    assert_eq!(publish.payload(), b"");
    assert_eq!(one(b"PUB a 0\r\n"), Ok(None));
}

#[test]
fn headers_and_payload_are_told_apart() {
    for line in ["HPUB a r 12 14", "hpub a r 12 14", "HPUB\ta\tr\t12\t14"] {
        let bytes = format!("{line}\r\nNATS/1.0\r\n\r\nhi\r\n");
        let ClientOp::Pub(publish) = taken(bytes.as_bytes()) else {
            panic!("a publish")
        };
        assert_eq!(publish.reply, Some(&b"r"[..]));
        assert_eq!(publish.header(), b"NATS/1.0\r\n\r\n");
        assert_eq!(publish.payload(), b"hi");
        assert_eq!(publish.body, b"NATS/1.0\r\n\r\nhi");
    }
}

#[test]
fn headers_need_an_agreement() {
    let mut parser = ClientParser::new(Limits::default());
    let error = parser.parse(b"HPUB a 12 12\r\n").expect_err("not agreed");
    assert_eq!(error, ParseError::HeadersNotAgreed);
    assert_eq!(error.wire_error(), None);
}

#[test]
fn subscriptions_and_their_ends() {
    assert_eq!(
        taken(b"SUB a.> 1\r\n"),
        ClientOp::Sub {
            subject: b"a.>",
            queue: None,
            sid: b"1"
        }
    );
    assert_eq!(
        taken(b"sub  a \t q  x1\n"),
        ClientOp::Sub {
            subject: b"a",
            queue: Some(b"q"),
            sid: b"x1"
        }
    );
    assert_eq!(
        taken(b"UNSUB 1\r\n"),
        ClientOp::Unsub {
            sid: b"1",
            max: None
        }
    );
    assert_eq!(
        taken(b"unsub 1 5\r\n"),
        ClientOp::Unsub {
            sid: b"1",
            max: Some(5)
        }
    );
    for max in ["0", "-1", "x", "9999999999"] {
        let bytes = format!("UNSUB 1 {max}\r\n");
        assert_eq!(
            taken(bytes.as_bytes()),
            ClientOp::Unsub {
                sid: b"1",
                max: None
            },
            "{max}"
        );
    }
}

#[test]
fn the_rest_of_a_ping_line_is_ignored() {
    for bytes in ["PING\r\n", "PING\n", "ping  \r\n", "PINGx y\r\n"] {
        assert_eq!(taken(bytes.as_bytes()), ClientOp::Ping, "{bytes:?}");
    }
    assert_eq!(taken(b"PONG\r\n"), ClientOp::Pong);
    assert_eq!(taken(b"+OK\r\n"), ClientOp::Ok);
    assert_eq!(taken(b"+ok whatever\r\n"), ClientOp::Ok);
}

#[test]
fn documents_and_errors_are_handed_on() {
    assert_eq!(taken(b"CONNECT {}\r\n"), ClientOp::Connect(b"{}"));
    assert_eq!(
        taken(b"connect \t {\"a\": 1} \r\n"),
        ClientOp::Connect(b"{\"a\": 1}")
    );
    assert_eq!(taken(b"INFO {}\r\n"), ClientOp::Info(b"{}"));
    assert_eq!(taken(b"-ERR 'x'\r\n"), ClientOp::Err(b"'x'"));
}

#[test]
fn documents_need_no_blank_before_them() {
    assert_eq!(taken(b"CONNECT{}\r\n"), ClientOp::Connect(b"{}"));
    assert_eq!(taken(b"CONNECT\r\n"), ClientOp::Connect(b""));
    assert_eq!(taken(b"INFO{}\r\n"), ClientOp::Info(b"{}"));
}

#[test]
fn unknown_verbs_are_refused_at_the_first_wrong_byte() {
    for bytes in [
        "G",
        "X",
        "PX",
        "PUX",
        "PUBX",
        "PUB\r\n",
        "PUBa",
        "SUBx",
        "UNSUB\n",
        "\r\n",
        "\n",
        " PING",
        "\x16\x03\x01",
        "RS+ $G foo\r\n",
        "RMSG",
        "MSG a 1 2\r\n",
        "LS+ a\r\n",
        "A+ x",
        "GET / HTTP/1.1\r\n",
        "HPUB\r\n",
        "-ERR\r\n",
        "HPUX",
        "PUB\0a 1\r\n",
    ] {
        let error = refused(bytes.as_bytes());
        assert_eq!(error, ParseError::UnknownOperation, "{bytes:?}");
        assert_eq!(error.wire_error(), Some(WireError::UnknownOperation));
    }
}

#[test]
fn bad_arguments_close_silently() {
    for args in [
        "a",
        "",
        " ",
        "a b c d",
        "a b c d e f g",
        "a -1",
        "a +1",
        "a 0x10",
        "a 1.0",
        "a 2 x",
        "a 99999999999999999999",
        "a 1000000000",
        "a\rb 1",
        "\r",
    ] {
        let bytes = format!("PUB {args}\r\n");
        assert_eq!(refused(bytes.as_bytes()), bad("PUB"), "{args:?}");
    }
    for args in [
        "a 20 10",
        "a 1",
        "a",
        "a b c d e",
        "a x 10",
        "a 1 x",
        "a -1 10",
    ] {
        let bytes = format!("HPUB {args}\r\n");
        assert_eq!(refused(bytes.as_bytes()), bad("HPUB"), "{args:?}");
    }
    for args in ["", "a", "a b c d", "a\rb 1"] {
        let bytes = format!("SUB {args}\r\n");
        assert_eq!(refused(bytes.as_bytes()), bad("SUB"), "{args:?}");
    }
    for args in ["", "1 2 3"] {
        let bytes = format!("UNSUB {args}\r\n");
        assert_eq!(refused(bytes.as_bytes()), bad("UNSUB"), "{args:?}");
    }
    assert_eq!(bad("PUB").wire_error(), None);
}

#[test]
fn a_payload_without_line_end_is_refused() {
    for bytes in [
        "PUB a 2\r\nhixx",
        "PUB a 2\r\nhi\n\n",
        "PUB a 2\r\nhi\rx",
        "PUB a 1\r\nhi\r\n",
    ] {
        let error = refused(bytes.as_bytes());
        assert_eq!(error, ParseError::PayloadEnd, "{bytes:?}");
        assert_eq!(error.wire_error(), Some(WireError::UnknownOperation));
    }
}

#[test]
fn a_large_payload_is_refused_before_it_arrives() {
    let error = refused(b"PUB a 1048577\r\n");
    assert_eq!(
        error,
        ParseError::MaxPayload {
            size: 1_048_577,
            limit: 1_048_576
        }
    );
    assert_eq!(error.wire_error(), Some(WireError::MaxPayload));
    assert_eq!(refused(b"HPUB a 12 1048577\r\n"), error);
    assert_eq!(one(b"PUB a 1048576\r\n"), Ok(None));

    let mut parser = parser();
    parser.set_limits(Limits {
        max_payload: 2,
        ..Limits::default()
    });
    assert_eq!(
        parser.parse(b"PUB a 3\r\n"),
        Err(ParseError::MaxPayload { size: 3, limit: 2 })
    );
}

#[test]
fn the_control_line_limit_counts_arguments() {
    let error = ParseError::MaxControlLine { limit: 4_096 };
    assert_eq!(error.wire_error(), Some(WireError::MaxControlLine));
    for verb in ["PUB", "HPUB", "SUB", "UNSUB", "CONNECT", "INFO", "-ERR"] {
        for tail in ["", "\n", "\r\n", "\r", "more"] {
            let bytes = format!("{verb} {}{tail}", "x".repeat(4_097));
            assert_eq!(refused(bytes.as_bytes()), error, "{verb} {tail:?}");
        }
    }
    let full = "x".repeat(4_094);
    assert!(one(format!("SUB {full} 1\r\n").as_bytes()).is_ok_and(|op| op.is_some()));
    assert_eq!(one(format!("SUB {full} 1\r").as_bytes()), Ok(None));
    assert_eq!(refused(format!("SUB {full} 12\r\n").as_bytes()), error);
    assert_eq!(
        refused(format!("PING{}", " ".repeat(4_097)).as_bytes()),
        error
    );
    assert_eq!(
        refused(format!("PUB{}", " ".repeat(5_000)).as_bytes()),
        error
    );
}

#[test]
fn a_half_received_payload_says_what_it_needs() {
    let mut parser = parser();
    let whole = b"PUB a 5\r\nhello\r\nPING\r\n";
    assert_eq!(parser.parse(&whole[..5]), Ok(None));
    assert_eq!(parser.needed(), 6);
    assert_eq!(parser.parse(&whole[..10]), Ok(None));
    assert_eq!(parser.needed(), 16);
    assert_eq!(parser.parse(&whole[..15]), Ok(None));
    let (used, _) = parser.parse(whole).expect("valid").expect("complete");
    assert_eq!(used, 16);
    assert_eq!(parser.parse(&whole[used..]), Ok(Some((6, ClientOp::Ping))));
}

#[test]
fn splitting_anywhere_gives_the_same_operations() {
    let bytes = b"CONNECT {\"verbose\":false}\r\nPING\r\nsub a.* q 1\nPUB a.b 5\r\nhello\r\n\
        HPUB a.c r.s 12 17\r\nNATS/1.0\r\n\r\nworld\r\nPUB x 0\r\n\r\nUNSUB 1 2\r\n+OK\r\n-ERR 'x'\r\n\
        PUB  a  r  2 \r\n\r\n\r\npong\r\nGET /\r\n";
    let (ops, error) = run(bytes, &[]);
    assert_eq!(ops.len(), 11);
    assert_eq!(error, Some(ParseError::UnknownOperation));
    for cut in 1..bytes.len() {
        assert_eq!(run(bytes, &[cut]), (ops.clone(), error), "cut at {cut}");
    }
    let every: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(run(bytes, &every), (ops, error));
}

#[derive(Clone, Debug)]
enum Sent {
    Pub {
        subject: String,
        reply: Option<String>,
        header: Option<Vec<u8>>,
        payload: Vec<u8>,
    },
    Sub {
        subject: String,
        queue: Option<String>,
        sid: String,
    },
    Unsub {
        sid: String,
        max: Option<u32>,
    },
    Ping,
    Pong,
}

fn sent() -> impl Strategy<Value = Sent> {
    let arg = || "[!-~]{1,20}";
    let some = |strategy| proptest::option::of(strategy);
    let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        4 => (arg(), some(arg()), proptest::option::of(bytes()), bytes()).prop_map(
            |(subject, reply, header, payload)| Sent::Pub { subject, reply, header, payload }
        ),
        2 => (arg(), some(arg()), arg()).prop_map(
            |(subject, queue, sid)| Sent::Sub { subject, queue, sid }
        ),
        1 => (arg(), proptest::option::of(1u32..1_000_000_000)).prop_map(
            |(sid, max)| Sent::Unsub { sid, max }
        ),
        1 => Just(Sent::Ping),
        1 => Just(Sent::Pong),
    ]
}

impl Sent {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Pub {
                subject,
                reply,
                header,
                payload,
            } => {
                let reply = reply.as_deref().map(str::as_bytes);
                match header {
                    Some(header) => {
                        encoder::hpub(out, subject.as_bytes(), reply, header, payload);
                    }
                    None => encoder::publish(out, subject.as_bytes(), reply, payload),
                }
            }
            Self::Sub {
                subject,
                queue,
                sid,
            } => {
                let queue = queue.as_deref().map(str::as_bytes);
                encoder::sub(out, subject.as_bytes(), queue, sid.as_bytes());
            }
            Self::Unsub { sid, max } => encoder::unsub(out, sid.as_bytes(), *max),
            Self::Ping => out.extend_from_slice(crate::encoder::PING),
            Self::Pong => out.extend_from_slice(crate::encoder::PONG),
        }
    }

    fn op(&self) -> String {
        let body: Vec<u8>;
        let op = match self {
            Self::Pub {
                subject,
                reply,
                header,
                payload,
            } => {
                let header = header.as_deref().unwrap_or_default();
                body = [header, payload].concat();
                ClientOp::Pub(Publish {
                    subject: subject.as_bytes(),
                    reply: reply.as_deref().map(str::as_bytes),
                    body: &body,
                    header_len: header.len(),
                })
            }
            Self::Sub {
                subject,
                queue,
                sid,
            } => ClientOp::Sub {
                subject: subject.as_bytes(),
                queue: queue.as_deref().map(str::as_bytes),
                sid: sid.as_bytes(),
            },
            Self::Unsub { sid, max } => ClientOp::Unsub {
                sid: sid.as_bytes(),
                max: *max,
            },
            Self::Ping => ClientOp::Ping,
            Self::Pong => ClientOp::Pong,
        };
        format!("{op:?}")
    }
}

proptest! {
    #[test]
    fn what_was_encoded_is_parsed_however_it_is_cut(
        sent in proptest::collection::vec(sent(), 1..8),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for op in &sent {
            op.encode(&mut bytes);
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let expected: Vec<String> = sent.iter().map(Sent::op).collect();
        prop_assert_eq!(run(&bytes, &cuts), (expected, None));
    }

    #[test]
    fn damaged_streams_are_refused_alike_however_they_are_cut(
        sent in proptest::collection::vec(sent(), 1..4),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        for op in &sent {
            op.encode(&mut bytes);
        }
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = cut.index(bytes.len());
        prop_assert_eq!(run(&bytes, &[cut]), run(&bytes, &[]));
    }
}
