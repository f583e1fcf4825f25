//! What must hold for any bytes. Fuzz targets call these, and so do tests of the crate, on the
//! seeds that are checked in.

#![allow(dead_code, reason = "each fuzz target calls one of these")]

use menes_protocol::{
    connect::Connect,
    encoder,
    headers::{HeaderBlock, HeaderBuilder},
    info::Info,
    parser::{Limits, ParseError, client::ClientParser, server::ServerParser},
    transform::Transform,
};

const LIMITS: Limits = Limits {
    max_control_line: 256,
    max_payload: 16_384,
};

/// Cutting the input changes neither operations nor refusal, and what was parsed, encoded and
/// parsed again is the same.
pub(crate) fn client_parser(data: &[u8]) {
    let parse = |bytes: &[u8], cut: usize| {
        let mut parser = ClientParser::new(LIMITS);
        parser.set_headers(true);
        drive(bytes, cut, |buf, out| {
            let Some((used, op)) = parser.parse(buf)? else {
                assert!(parser.needed() > buf.len());
                return Ok(None);
            };
            encoder::client::op(out, &op);
            Ok(Some(used))
        })
    };
    check_parser(data, parse);
}

/// As [`client_parser`], for the other direction.
pub(crate) fn server_parser(data: &[u8]) {
    let parse = |bytes: &[u8], cut: usize| {
        let mut parser = ServerParser::new(LIMITS);
        drive(bytes, cut, |buf, out| {
            let Some((used, op)) = parser.parse(buf)? else {
                assert!(parser.needed() > buf.len());
                return Ok(None);
            };
            encoder::server::op(out, &op);
            Ok(Some(used))
        })
    };
    check_parser(data, parse);
}

type Parsed = (Vec<u8>, Option<ParseError>);

fn check_parser(data: &[u8], parse: impl Fn(&[u8], usize) -> Parsed) {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let whole = parse(data, data.len());
    assert_eq!(parse(data, data.len() * usize::from(first) / 256), whole);
    // Plain spelling is not longer than what was sent, but for quotes, CRs and an INFO's space.
    let (again, error) = parse(&whole.0, whole.0.len());
    if error.is_none() {
        assert_eq!(again, whole.0);
    } else {
        assert!(
            matches!(error, Some(ParseError::MaxControlLine { .. })),
            "{error:?}"
        );
    }
}

/// Feeds `bytes` in two pieces. Gives all operations in their plain spelling.
fn drive(
    bytes: &[u8],
    cut: usize,
    mut parse: impl FnMut(&[u8], &mut Vec<u8>) -> Result<Option<usize>, ParseError>,
) -> Parsed {
    let mut out = Vec::new();
    let mut start = 0;
    for end in [cut, bytes.len()] {
        loop {
            match parse(&bytes[start..end], &mut out) {
                Ok(Some(used)) => start += used,
                Ok(None) => break,
                Err(error) => return (out, Some(error)),
            }
        }
    }
    (out, None)
}

/// A block that parses is what a builder makes of it, and its fields are found by name.
pub(crate) fn headers(data: &[u8]) {
    let Ok(block) = HeaderBlock::parse(data) else {
        return;
    };
    assert_eq!(&HeaderBuilder::from_block(&block).finish()[..], data);
    for (name, _) in &block {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        assert!(block.get(name).is_some());
        assert_eq!(block.get(name), block.get_all(name).next());
        let without = HeaderBuilder::from_block(&block).remove(name).finish();
        let without = HeaderBlock::parse(&without).expect("still a block");
        assert_eq!(without.get(name), None);
        assert_eq!(without.status(), block.status());
        assert_eq!(
            without.iter().count() + block.get_all(name).count(),
            block.iter().count()
        );
    }
}

/// A document that parses says the same when it is written and read again.
pub(crate) fn connect(data: &[u8]) {
    if let Ok(connect) = Connect::parse(data) {
        let again = Connect::parse(&connect.to_json()).expect("own output");
        assert_eq!(again, connect);
    }
    if let Ok(info) = Info::parse(data) {
        let again = Info::parse(&info.to_json()).expect("own output");
        assert_eq!(again, info);
    }
}

/// Three lines: source, destination, subject. A strict transform leads back to where it came from.
pub(crate) fn transform(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (source, destination, subject) = (line(), line(), line().as_bytes());
    if let Ok(transform) = Transform::new(source, destination)
        && let Some(applied) = transform.apply(subject, 1)
    {
        assert_eq!(transform.rewrite(subject, 1), applied);
    }
    if let Ok(transform) = Transform::strict(source, destination)
        && let Some(reverse) = transform.reverse()
        && let Some(there) = transform.apply(subject, 1)
        && let Some(back) = reverse.apply(&there, 1)
    {
        assert_eq!(back, subject);
    }
}
