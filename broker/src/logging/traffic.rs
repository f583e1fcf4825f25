//! What clients and the server say to each other, as lines of the log (`-V`).
//!
//! ```text
//! [TRC] 127.0.0.1:5 - cid:5 - "v1:go" - "$G/user:ada" - <<- [PUB a 2]
//! [TRC] 127.0.0.1:5 - cid:5 - "v1:go" - "$G/user:ada" - <<- MSG_PAYLOAD: ["hi"]
//! ```
//!
//! The lines are those of nats-server. Credentials are left out of them, user tokens among them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use menes_protocol::error::Quoted;
use menes_protocol::parser::client::ClientOp;
use tracing::level_filters::LevelFilter;

use super::LogOptions;
use crate::connection::client::Client;
use crate::routing::Message;

/// Bytes of a message that are shown; 0 for all. Like the log, one for the process.
static MAX_SHOWN: AtomicUsize = AtomicUsize::new(0);
static HEADERS_ONLY: AtomicBool = AtomicBool::new(false);
static WITH_SYSTEM: AtomicBool = AtomicBool::new(false);

/// What stands for a credential.
const REDACTED: &str = "[REDACTED]";
/// Line ends behind a header.
const HEADER_END: usize = 4;

pub(super) fn apply(options: &LogOptions) {
    MAX_SHOWN.store(options.max_traced, Ordering::Relaxed);
    HEADERS_ONLY.store(options.trace_headers, Ordering::Relaxed);
    WITH_SYSTEM.store(options.trace_verbose, Ordering::Relaxed);
}

/// Whether anybody wants to read this. Cheap: asked for every message.
#[inline]
pub(crate) fn is_on() -> bool {
    LevelFilter::current() >= LevelFilter::TRACE
}

/// An operation came, whose bytes these are.
#[cold]
#[inline(never)]
pub(crate) fn heard(client: &Client, bytes: &[u8], op: &ClientOp<'_>) {
    let bytes = bytes.trim_ascii_start();
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let verb_end = line.iter().position(u8::is_ascii_whitespace);
    let (verb, arguments) = line.split_at(verb_end.unwrap_or(line.len()));
    let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
    let arguments = String::from_utf8_lossy(arguments.trim_ascii_start());
    let who = client.who();
    match op {
        ClientOp::Connect(json) => {
            tracing::trace!("{who} - <<- [{verb} {}]", without_secrets(json));
        }
        _ if arguments.is_empty() => tracing::trace!("{who} - <<- [{verb}]"),
        _ => tracing::trace!("{who} - <<- [{verb} {arguments}]"),
    }
    if let ClientOp::Pub(publish) = op {
        let header = publish.header().len();
        let (header, payload) = publish.body.split_at(header.min(publish.body.len()));
        let payload = if holds_secrets(publish.subject) {
            REDACTED.as_bytes()
        } else {
            payload
        };
        body(&who, "<<-", header, payload);
    }
}

/// Whether passwords may be asked for with such a message.
fn holds_secrets(subject: &[u8]) -> bool {
    subject.starts_with(b"$MENES.API.USER.")
}

/// Whether this tells somebody a new connection token.
fn tells_token(payload: &[u8]) -> bool {
    let prefix = menes_stations::user::TOKEN_PREFIX.as_bytes();
    payload.starts_with(b"{") && payload.windows(prefix.len()).any(|part| part == prefix)
}

/// A mapping gave a message another subject.
#[cold]
#[inline(never)]
pub(crate) fn mapped(client: &Client, from: &[u8], to: &[u8]) {
    let (from, to) = (String::from_utf8_lossy(from), String::from_utf8_lossy(to));
    tracing::trace!("{} - <<- [MAPPING {from} -> {to}]", client.who());
}

/// A client is sent this line.
#[cold]
#[inline(never)]
pub(crate) fn said(client: &Client, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    let who = client.who();
    if let Some(error) = text.strip_prefix("-ERR ") {
        let bare = error.strip_prefix('\'').and_then(|e| e.strip_suffix('\''));
        tracing::trace!("{who} - ->> [-ERR {}]", bare.unwrap_or(error));
    } else {
        tracing::trace!("{who} - ->> [{}]", text.trim_start_matches('+'));
    }
}

/// A client is sent this message, with its header or without.
#[cold]
#[inline(never)]
pub(crate) fn delivered(client: &Client, line: &[u8], header: &[u8], message: &Message<'_>) {
    let line = String::from_utf8_lossy(line);
    let who = client.who();
    tracing::trace!("{who} - ->> [{}]", line.trim_end());
    let payload = if tells_token(message.payload) {
        REDACTED.as_bytes()
    } else {
        message.payload
    };
    body(&who, "->>", header, payload);
}

/// A subscription ended.
#[cold]
#[inline(never)]
pub(crate) fn unsubscribed(client: &Client, sid: &[u8]) {
    let sid = String::from_utf8_lossy(sid);
    tracing::trace!("{} - <-> [DELSUB {sid}]", client.who());
}

/// The system published something itself.
pub(crate) fn published_by_system(subject: &[u8], payload: &[u8]) {
    if is_on() && WITH_SYSTEM.load(Ordering::Relaxed) {
        let subject = String::from_utf8_lossy(subject);
        tracing::trace!("SYSTEM - <<- [PUB {subject}  {}]", payload.len());
        body(&"SYSTEM", "<<-", &[], payload);
    }
}

fn body(who: &dyn fmt::Display, direction: &str, header: &[u8], payload: &[u8]) {
    let most = MAX_SHOWN.load(Ordering::Relaxed);
    let shown = if HEADERS_ONLY.load(Ordering::Relaxed) {
        header[..header.len().saturating_sub(HEADER_END)].to_vec()
    } else {
        [header, payload].concat()
    };
    if shown.is_empty() {
        return;
    }
    if most > 0 && shown.len() > most {
        let start = Quoted(&shown[..most]).to_string();
        let start = start.strip_suffix('"').unwrap_or(&start);
        tracing::trace!("{who} - {direction} MSG_PAYLOAD: [{start}...\"]");
    } else {
        tracing::trace!("{who} - {direction} MSG_PAYLOAD: [{}]", Quoted(&shown));
    }
}

/// CONNECT without the values of what logs someone in.
fn without_secrets(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(json);
    let mut shown = String::with_capacity(text.len());
    let mut rest = &*text;
    let mut is_secret = false;
    while let Some(start) = rest.find('"') {
        let string = string_at(&rest[start..]);
        let end = start + string.len();
        let before = &rest[..start];
        let is_key = rest[end..].trim_start().starts_with(':');
        // A secret that is no string stands between its key and the next string.
        if is_secret && !before.trim_matches([':', ' ']).is_empty() {
            shown.push_str(": ");
            shown.push_str(REDACTED);
            shown.push_str(before.find(',').map_or("", |comma| &before[comma..]));
            is_secret = false;
        } else {
            shown.push_str(before);
        }
        if is_secret {
            shown.push('"');
            shown.push_str(REDACTED);
            shown.push('"');
        } else {
            shown.push_str(string);
        }
        is_secret = is_key && !is_secret && names_secret(string);
        rest = &rest[end..];
    }
    if is_secret {
        shown.push_str(": ");
        shown.push_str(REDACTED);
    } else {
        shown.push_str(rest);
    }
    shown
}

/// The string literal that `text` begins with, its quotes included.
fn string_at(text: &str) -> &str {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return &text[..=at],
            _ => {}
        }
    }
    text
}

/// Whether the value behind this key is not for the log. A key with an escape in it may be any.
fn names_secret(key: &str) -> bool {
    let key = key.trim_matches('"').to_ascii_lowercase();
    ["auth_token", "pass"]
        .iter()
        .any(|start| key.starts_with(start))
        || ["jwt", "sig", "proxy_sig", "nkey"].contains(&key.as_str())
        || key.contains('\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_are_left_out() {
        for (json, shown) in [
            (r#"{"pass":"a","x":1}"#, r#"{"pass":"[REDACTED]","x":1}"#),
            (
                r#"{"user":"u", "Pass" : "a\"b,c" }"#,
                r#"{"user":"u", "Pass" : "[REDACTED]" }"#,
            ),
            (
                r#"{"auth_token":"t","sig":"s"}"#,
                r#"{"auth_token":"[REDACTED]","sig":"[REDACTED]"}"#,
            ),
            (
                r#"{"name":"pass","lang":"x"}"#,
                r#"{"name":"pass","lang":"x"}"#,
            ),
            (
                r#"{"pass":12,"lang":"x"}"#,
                r#"{"pass": [REDACTED],"lang":"x"}"#,
            ),
            (r#"{"pass":12}"#, r#"{"pass": [REDACTED]"#),
            (r#"{"p\u0061ss":"a"}"#, r#"{"p\u0061ss":"[REDACTED]"}"#),
            (r#"{"pass":"never ends"#, r#"{"pass":"[REDACTED]""#),
            ("", ""),
        ] {
            assert_eq!(without_secrets(json.as_bytes()), shown, "{json}");
        }
    }

    proptest! {
        #[test]
        fn no_password_is_shown(before in "[a-z]{0,5}", password in "canary[\\\\\" ,:{}a-z]{0,8}", after in "[a-z]{0,5}") {
            let json = serde_json::json!({"lang": before, "pass": password, "name": after});
            let shown = without_secrets(json.to_string().as_bytes());
            prop_assert!(!shown.contains("canary"), "{}", shown);
        }

        #[test]
        fn whatever_comes_is_shown_somehow(bytes in any::<Vec<u8>>()) {
            without_secrets(&bytes);
        }
    }
}
