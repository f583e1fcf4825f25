//! Replays the transcripts under `testdata/`.
//!
//! `>>>` is a line that arrives: CRLF is added unless it ends with `\`; `\r`, `\n`, `\t`, `\\` and
//! `\xNN` are bytes, `{x*9}` is `x` nine times. `<<<` is what the parser made of it: the operation
//! in its plainest spelling, the `-ERR` it answers, `(close)`, or `(more 16)` when it waits for an
//! operation of at least 16 bytes. `==` starts a new connection.
//!
//! `MENES_REWRITE_GOLDEN=1` writes the answers anew; the diff is then for people to judge.

use std::{fmt::Write as _, fs, path::PathBuf};

use menes_protocol::{
    encoder,
    error::{Port, WireError},
    parser::{
        Limits, ParseError,
        client::{ClientOp, ClientParser},
        server::ServerParser,
    },
};

fn golden(name: &str, expected: impl FnOnce(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    let text = fs::read_to_string(&path).expect("testdata is checked in");
    let fresh = expected(&text);
    if std::env::var_os("MENES_REWRITE_GOLDEN").is_some() {
        fs::write(&path, fresh).expect("testdata is writable when it is rewritten");
    } else {
        assert_eq!(fresh, text, "{name} differs");
    }
}

/// Replays a transcript: keeps everything but the answers, which `connection` gives anew.
fn replay(text: &str, connection: impl Fn(&str, &[u8]) -> Vec<String>) -> String {
    let mut fresh = String::new();
    let (mut title, mut input) = ("", Vec::new());
    let mut lines = text
        .lines()
        .filter(|line| !line.starts_with("<<<"))
        .peekable();
    while let Some(line) = lines.next() {
        fresh.push_str(line);
        fresh.push('\n');
        if let Some(name) = line.strip_prefix("== ") {
            title = name;
        } else if let Some(sent) = line.strip_prefix(">>>") {
            input.extend(unescape(sent.strip_prefix(' ').unwrap_or(sent)));
        }
        let ends = lines.peek().is_none_or(|next| !next.starts_with(">>>"));
        if ends && !input.is_empty() {
            for answer in connection(title, &input) {
                writeln!(fresh, "<<< {answer}").expect("a string takes all");
            }
            input.clear();
        }
    }
    fresh
}

fn unescape(line: &str) -> Vec<u8> {
    let (line, end) = match line.strip_suffix('\\') {
        Some(line) if !line.ends_with('\\') => (line, ""),
        _ => (line, "\r\n"),
    };
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some(character) = rest.chars().next() {
        let tail = &rest[character.len_utf8()..];
        rest = match (character, tail.as_bytes().first()) {
            ('\\', Some(b'x')) => {
                bytes.push(u8::from_str_radix(&tail[1..3], 16).expect("two hex digits"));
                &tail[3..]
            }
            ('\\', Some(escape)) => {
                bytes.push(match escape {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    other => *other,
                });
                &tail[1..]
            }
            ('{', _) if tail.get(1..2) == Some("*") => {
                let (count, tail) = tail[2..].split_once('}').expect("{x*9}");
                let count = count.parse().expect("{x*9}");
                bytes.extend(std::iter::repeat_n(rest.as_bytes()[1], count));
                tail
            }
            _ => {
                bytes.extend(character.to_string().bytes());
                tail
            }
        };
    }
    bytes.extend(end.bytes());
    bytes
}

fn shown(bytes: &[u8]) -> String {
    bytes
        .strip_suffix(b"\r\n")
        .unwrap_or(bytes)
        .escape_ascii()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
}

fn refusal(answers: &mut Vec<String>, error: ParseError) {
    if let Some(error) = error.wire_error() {
        let mut out = Vec::new();
        error.encode(&mut out);
        answers.push(shown(&out));
        assert!(error.closes());
    }
    answers.push("(close)".into());
}

fn client_connection(title: &str, mut input: &[u8]) -> Vec<String> {
    let mut parser = ClientParser::new(Limits::default());
    parser.set_headers(!title.ends_with("without headers"));
    let mut answers = Vec::new();
    loop {
        match parser.parse(input) {
            Ok(Some((used, op))) => {
                let mut out = Vec::new();
                encoder::client::op(&mut out, &op);
                answers.push(shown(&out));
                if matches!(op, ClientOp::Err(_)) {
                    answers.push("(close)".into());
                    return answers;
                }
                input = &input[used..];
            }
            Ok(None) if input.is_empty() => return answers,
            Ok(None) => {
                answers.push(format!("(more {})", parser.needed()));
                return answers;
            }
            Err(error) => {
                refusal(&mut answers, error);
                return answers;
            }
        }
    }
}

fn server_connection(_title: &str, mut input: &[u8]) -> Vec<String> {
    let mut parser = ServerParser::new(Limits::default());
    let mut answers = Vec::new();
    loop {
        match parser.parse(input) {
            Ok(Some((used, op))) => {
                let mut out = Vec::new();
                encoder::server::op(&mut out, &op);
                answers.push(shown(&out));
                input = &input[used..];
            }
            Ok(None) if input.is_empty() => return answers,
            Ok(None) => {
                answers.push(format!("(more {})", parser.needed()));
                return answers;
            }
            Err(error) => {
                answers.push(format!("({error})"));
                return answers;
            }
        }
    }
}

#[test]
fn clients_are_understood_as_the_transcript_says() {
    golden("client.txt", |text| replay(text, client_connection));
}

#[test]
fn servers_are_understood_as_the_transcript_says() {
    golden("server.txt", |text| replay(text, server_connection));
}

#[test]
fn errors_have_the_texts_of_the_table() {
    let (subject, reply, sid) = (&b"a.b"[..], &b"_R_.x"[..], &b"7"[..]);
    let queue = Some(&b"q"[..]);
    let all = [
        WireError::AuthorizationViolation,
        WireError::AuthenticationTimeout,
        WireError::UserAuthenticationExpired,
        WireError::UserAuthenticationRevoked,
        WireError::AccountAuthenticationExpired,
        WireError::MaxAccountConnections,
        WireError::MaxConnections,
        WireError::FailedAccountRegistration,
        WireError::TlsRequired,
        WireError::ConnectionThrottled,
        WireError::UnknownOperation,
        WireError::MaxPayload,
        WireError::MaxControlLine,
        WireError::InvalidClientProtocol,
        WireError::NoRespondersRequiresHeaders,
        WireError::StaleConnection,
        WireError::WrongPort(Port::Route),
        WireError::WrongPort(Port::Leafnode),
        WireError::WrongPort(Port::Gateway),
        WireError::InvalidSubject,
        WireError::InvalidPublishSubject,
        WireError::MaxSubscriptions,
        WireError::PublishPermission { subject },
        WireError::ReplyPermission { reply },
        WireError::SubscribePermission {
            subject,
            queue: None,
        },
        WireError::SubscribePermission { subject, queue },
        WireError::SubscriptionRemoved {
            subject,
            queue: None,
            sid,
        },
        WireError::SubscriptionRemoved {
            subject,
            queue,
            sid,
        },
        WireError::TooManyTokens { subject },
        WireError::PublishPermission {
            subject: b"a\"b\\\xff'\r\n",
        },
    ];
    golden("errors.txt", |_| {
        let mut text = String::new();
        for error in all {
            let mut out = Vec::new();
            error.encode(&mut out);
            let line = String::from_utf8(out).expect("-ERR is text");
            let line = line.strip_suffix("\r\n").expect("a whole line");
            assert!(!line.contains(['\r', '\n']));
            let fate = if error.closes() { "closes" } else { "stays " };
            writeln!(text, "{fate} {line}").expect("a string takes all");
        }
        text
    });
}
