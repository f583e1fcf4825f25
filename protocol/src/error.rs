//! The texts of `-ERR`, one table: clients compare them, parse subjects out of them, and decide by
//! them whether to reconnect.

use std::fmt::{self, Display, Write};

use bytes::BufMut;

/// What `-ERR` says. `Display` gives the exact text between the single quotes; subjects, queues
/// and sids appear as Go's `%q` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError<'a> {
    /// Any failed authentication; the client never learns which.
    AuthorizationViolation,
    /// No CONNECT in time.
    AuthenticationTimeout,
    /// The user's credentials ran out while connected.
    UserAuthenticationExpired,
    /// The user's credentials were revoked while connected.
    UserAuthenticationRevoked,
    /// The account's claims ran out.
    AccountAuthenticationExpired,
    /// The account has as many connections as it may have.
    MaxAccountConnections,
    /// The server has as many connections as it may have.
    MaxConnections,
    /// The account could not be registered; the result of authentication follows.
    FailedAccountRegistration,
    /// No TLS handshake in time, on a port that requires it.
    TlsRequired,
    /// Too many TLS handshakes per second.
    ConnectionThrottled,
    /// An unknown verb, or a payload not followed by CRLF.
    UnknownOperation,
    /// A payload above the connection's `max_payload`.
    MaxPayload,
    /// A control line above `max_control_line`.
    MaxControlLine,
    /// CONNECT with a `protocol` other than 0 and 1.
    InvalidClientProtocol,
    /// CONNECT with `no_responders` but without `headers`.
    NoRespondersRequiresHeaders,
    /// The client did not answer PING.
    StaleConnection,
    /// A client on a port that is not for clients.
    WrongPort(Port),
    /// SUB with a malformed subject.
    InvalidSubject,
    /// PUB with a malformed or wildcard subject, in pedantic mode. The message is still routed.
    InvalidPublishSubject,
    /// The connection has as many subscriptions as it may have.
    MaxSubscriptions,
    /// May not publish to this subject.
    PublishPermission {
        /// The refused subject.
        subject: &'a [u8],
    },
    /// May not use this reply subject.
    ReplyPermission {
        /// The refused reply subject.
        reply: &'a [u8],
    },
    /// May not subscribe.
    SubscribePermission {
        /// The refused subject.
        subject: &'a [u8],
        /// The queue group asked for.
        queue: Option<&'a [u8]>,
    },
    /// A subscription was taken away because permissions changed.
    SubscriptionRemoved {
        /// Its subject.
        subject: &'a [u8],
        /// Its queue group.
        queue: Option<&'a [u8]>,
        /// Its id.
        sid: &'a [u8],
    },
    /// SUB with more tokens than `max_sub_tokens`.
    TooManyTokens {
        /// The refused subject.
        subject: &'a [u8],
    },
}

/// Ports of a server that are not for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Servers of the same cluster.
    Route,
    /// Leafnodes.
    Leafnode,
    /// Servers of other clusters.
    Gateway,
}

impl WireError<'_> {
    /// Whether the server closes the connection after sending this.
    #[must_use]
    pub fn closes(&self) -> bool {
        match self {
            Self::AuthorizationViolation
            | Self::AuthenticationTimeout
            | Self::UserAuthenticationExpired
            | Self::UserAuthenticationRevoked
            | Self::AccountAuthenticationExpired
            | Self::MaxAccountConnections
            | Self::MaxConnections
            | Self::TlsRequired
            | Self::ConnectionThrottled
            | Self::UnknownOperation
            | Self::MaxPayload
            | Self::MaxControlLine
            | Self::InvalidClientProtocol
            | Self::NoRespondersRequiresHeaders
            | Self::StaleConnection
            | Self::WrongPort(_) => true,
            Self::FailedAccountRegistration
            | Self::InvalidSubject
            | Self::InvalidPublishSubject
            | Self::MaxSubscriptions
            | Self::PublishPermission { .. }
            | Self::ReplyPermission { .. }
            | Self::SubscribePermission { .. }
            | Self::SubscriptionRemoved { .. }
            | Self::TooManyTokens { .. } => false,
        }
    }

    /// Writes the whole line, `-ERR '...'` and CRLF.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(format!("-ERR '{self}'\r\n").as_bytes());
    }
}

impl Display for WireError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::AuthorizationViolation => "Authorization Violation",
            Self::AuthenticationTimeout => "Authentication Timeout",
            Self::UserAuthenticationExpired => "User Authentication Expired",
            Self::UserAuthenticationRevoked => "User Authentication Revoked",
            Self::AccountAuthenticationExpired => "Account Authentication Expired",
            Self::MaxAccountConnections => "maximum account active connections exceeded",
            Self::MaxConnections => "maximum connections exceeded",
            Self::FailedAccountRegistration => "Failed Account Registration",
            Self::TlsRequired => "Secure Connection - TLS Required",
            Self::ConnectionThrottled => "Connection throttling is active. Please try again later.",
            Self::UnknownOperation => "Unknown Protocol Operation",
            Self::MaxPayload => "Maximum Payload Violation",
            Self::MaxControlLine => "maximum control line exceeded",
            Self::InvalidClientProtocol => "invalid client protocol",
            Self::NoRespondersRequiresHeaders => "no responders requires headers support",
            Self::StaleConnection => "Stale Connection",
            Self::WrongPort(Port::Route) => "attempted to connect to route port",
            Self::WrongPort(Port::Leafnode) => "attempted to connect to leaf node port",
            Self::WrongPort(Port::Gateway) => "attempted to connect to gateway port",
            Self::InvalidSubject => "Invalid Subject",
            Self::InvalidPublishSubject => "Invalid Publish Subject",
            Self::MaxSubscriptions => "maximum subscriptions exceeded",
            Self::PublishPermission { subject } => {
                return write!(
                    f,
                    "Permissions Violation for Publish to {}",
                    Quoted(subject)
                );
            }
            Self::ReplyPermission { reply } => {
                return write!(
                    f,
                    "Permissions Violation for Publish with Reply of {}",
                    Quoted(reply)
                );
            }
            Self::SubscribePermission { subject, queue } => {
                return fmt_subscription(f, subject, queue);
            }
            Self::SubscriptionRemoved {
                subject,
                queue,
                sid,
            } => {
                fmt_subscription(f, subject, queue)?;
                return write!(f, " (sid {})", Quoted(sid));
            }
            Self::TooManyTokens { subject } => {
                fmt_subscription(f, subject, None)?;
                ", too many tokens"
            }
        };
        f.write_str(text)
    }
}

fn fmt_subscription(
    f: &mut fmt::Formatter<'_>,
    subject: &[u8],
    queue: Option<&[u8]>,
) -> fmt::Result {
    write!(
        f,
        "Permissions Violation for Subscription to {}",
        Quoted(subject)
    )?;
    match queue {
        Some(queue) => write!(f, " using queue {}", Quoted(queue)),
        None => Ok(()),
    }
}

/// Bytes as Go's `%q` shows them: in double quotes, printable characters as they are, everything
/// else escaped, bytes that are not UTF-8 as `\xNN`.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(
    /// The bytes to show.
    pub &'a [u8],
);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                quote_char(f, character)?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_char('"')
    }
}

fn quote_char(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '"' => f.write_str("\\\""),
        '\\' => f.write_str("\\\\"),
        '\x07' => f.write_str("\\a"),
        '\x08' => f.write_str("\\b"),
        '\x0c' => f.write_str("\\f"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\x0b' => f.write_str("\\v"),
        ' '..='~' => f.write_char(character),
        '\0'..='\x7f' => write!(f, "\\x{:02x}", u32::from(character)),
        _ if is_printable(character) => f.write_char(character),
        '\u{80}'..='\u{ffff}' => write!(f, "\\u{:04x}", u32::from(character)),
        _ => write!(f, "\\U{:08x}", u32::from(character)),
    }
}

/// Whether the character is one that is shown as it is. Behind another character the standard
/// library escapes exactly the unprintable ones (at the start it also escapes combining marks).
fn is_printable(character: char) -> bool {
    let mut pair = String::from("a");
    pair.push(character);
    pair.escape_debug().nth(1) == Some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(error: WireError<'_>) -> String {
        let mut out = Vec::new();
        error.encode(&mut out);
        String::from_utf8(out).expect("-ERR is text")
    }

    #[test]
    fn permission_texts_are_those_clients_parse() {
        let subject = b"foo.bar";
        let queue = Some(&b"q"[..]);
        for (error, text) in [
            (
                WireError::PublishPermission { subject },
                "Publish to \"foo.bar\"",
            ),
            (
                WireError::ReplyPermission { reply: b"_R_.x" },
                "Publish with Reply of \"_R_.x\"",
            ),
            (
                WireError::SubscribePermission {
                    subject,
                    queue: None,
                },
                "Subscription to \"foo.bar\"",
            ),
            (
                WireError::SubscribePermission { subject, queue },
                "Subscription to \"foo.bar\" using queue \"q\"",
            ),
            (
                WireError::SubscriptionRemoved {
                    subject,
                    queue: None,
                    sid: b"7",
                },
                "Subscription to \"foo.bar\" (sid \"7\")",
            ),
            (
                WireError::SubscriptionRemoved {
                    subject,
                    queue,
                    sid: b"7",
                },
                "Subscription to \"foo.bar\" using queue \"q\" (sid \"7\")",
            ),
            (
                WireError::TooManyTokens { subject },
                "Subscription to \"foo.bar\", too many tokens",
            ),
        ] {
            assert_eq!(
                wire(error),
                format!("-ERR 'Permissions Violation for {text}'\r\n")
            );
            assert!(!error.closes());
        }
    }

    #[test]
    fn closing_errors_close() {
        assert!(WireError::UnknownOperation.closes());
        assert!(WireError::WrongPort(Port::Route).closes());
        assert!(!WireError::InvalidSubject.closes());
        assert!(!WireError::MaxSubscriptions.closes());
        assert_eq!(
            wire(WireError::StaleConnection),
            "-ERR 'Stale Connection'\r\n"
        );
    }

    #[test]
    fn quoting_is_that_of_go() {
        for (bytes, quoted) in [
            (&b"a b"[..], r#""a b""#),
            (b"a\"b\\c'd", r#""a\"b\\c'd""#),
            (
                b"\x07\x08\x0c\n\r\t\x0b\x00\x1f\x7f",
                r#""\a\b\f\n\r\t\v\x00\x1f\x7f""#,
            ),
            (
                "\u{e9}\u{65e5}\u{1f980}".as_bytes(),
                "\"\u{e9}\u{65e5}\u{1f980}\"",
            ),
            ("e\u{301}".as_bytes(), "\"e\u{301}\""),
            ("\u{a0}\u{200b}\u{85}".as_bytes(), r#""\u00a0\u200b\u0085""#),
            ("\u{e0001}".as_bytes(), r#""\U000e0001""#),
            (b"a\xff\xc3", r#""a\xff\xc3""#),
        ] {
            assert_eq!(Quoted(bytes).to_string(), quoted);
        }
    }
}
