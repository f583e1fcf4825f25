//! Bytes in, operations out: incremental, borrowing, without allocation.
//!
//! A parser sees one operation at a time, at the start of the buffer it is given. It either takes
//! the operation (and says how many bytes that was), or asks for more bytes of the same operation,
//! or refuses. It remembers how far it came, so that bytes which trickle in are not looked at
//! again: the reader must hand it the same bytes with more behind them, at whatever address.
//!
//! ```text
//!            no LF yet                        payload incomplete
//!   line ───────────────▶ line     line ─────────────────────────▶ body ───▶ operation
//!     └──────────────────▶ operation
//! ```
//!
//! Verbs are case-insensitive; arguments are separated by spaces and tabs; a line ends with LF, and
//! one CR before it is dropped. A CR anywhere else in the arguments is refused.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use memchr::memchr;
use thiserror::Error;

use crate::error::WireError;

pub mod client;
pub mod server;

/// Bounds on what a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a control line behind its verb. Default 4,096.
    pub max_control_line: usize,
    /// Most bytes of header and payload together. Default 1 MiB.
    pub max_payload: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_control_line: 4_096,
            max_payload: 1_048_576,
        }
    }
}

/// Why the bytes of a peer are not accepted. The connection ends with any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The line begins with no known verb.
    #[error("unknown protocol operation")]
    UnknownOperation,
    /// The payload is not followed by CRLF.
    #[error("payload is not followed by a line end")]
    PayloadEnd,
    /// The control line is longer than the limit.
    #[error("control line exceeds {limit} bytes")]
    MaxControlLine {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Header and payload together are larger than the limit.
    #[error("payload of {size} bytes exceeds {limit}")]
    MaxPayload {
        /// The announced size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Too few or too many arguments, a bad number, or a header larger than the whole.
    #[error("bad arguments for {verb}")]
    Arguments {
        /// The verb.
        verb: &'static str,
    },
    /// Headers were sent although CONNECT did not announce them.
    #[error("headers were not agreed upon")]
    HeadersNotAgreed,
}

impl ParseError {
    /// What the peer is told before the connection is closed. `None`: it is closed without a word
    /// (reason "Protocol Violation").
    #[must_use]
    pub fn wire_error(&self) -> Option<WireError<'static>> {
        match self {
            Self::UnknownOperation | Self::PayloadEnd => Some(WireError::UnknownOperation),
            Self::MaxControlLine { .. } => Some(WireError::MaxControlLine),
            Self::MaxPayload { .. } => Some(WireError::MaxPayload),
            Self::Arguments { .. } | Self::HeadersNotAgreed => None,
        }
    }
}

/// Part of a buffer.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    #[inline]
    fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start..self.end).unwrap_or_default()
    }
}

/// A control line that is complete.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The arguments, line end dropped.
    args: Span,
    /// Where the next line or the payload begins.
    next: usize,
}

/// Finds the end of the line whose arguments begin at `args`. The first `scanned` bytes are known
/// to have none.
///
/// `None`: not there yet. The limit counts whether or not the end is in sight.
#[inline]
fn find_line(
    buf: &[u8],
    args: usize,
    scanned: usize,
    limit: usize,
) -> Result<Option<Line>, ParseError> {
    let from = scanned.max(args);
    let found = memchr(b'\n', buf.get(from..).unwrap_or_default());
    let end = found.map_or(buf.len(), |at| from + at);
    let content = match end.checked_sub(1) {
        Some(last) if last >= args && buf.get(last) == Some(&b'\r') => last,
        _ => end,
    };
    if content.saturating_sub(args) > limit {
        return Err(ParseError::MaxControlLine { limit });
    }
    Ok(found.map(|_| Line {
        args: Span {
            start: args,
            end: content,
        },
        next: end + 1,
    }))
}

const MAX_ARGS: usize = 5;

/// The arguments of a line.
struct Args {
    spans: [Span; MAX_ARGS],
    count: usize,
}

impl Args {
    #[inline]
    fn as_slice(&self) -> &[Span] {
        self.spans.get(..self.count).unwrap_or_default()
    }
}

/// Splits a line at spaces and tabs. `None`: more arguments than any verb takes, or a CR.
#[inline]
fn split_args(buf: &[u8], line: Span) -> Option<Args> {
    let mut args = Args {
        spans: [Span::default(); MAX_ARGS],
        count: 0,
    };
    let mut rest = line.of(buf);
    let mut at = line.start;
    loop {
        let blank = rest
            .iter()
            .take_while(|&&byte| byte == b' ' || byte == b'\t')
            .count();
        rest = rest.get(blank..).unwrap_or_default();
        at += blank;
        if rest.is_empty() {
            return Some(args);
        }
        let len = rest
            .iter()
            .position(|&byte| matches!(byte, b' ' | b'\t' | b'\r'))
            .unwrap_or(rest.len());
        let (_, tail) = rest.split_at_checked(len)?;
        if tail.first() == Some(&b'\r') {
            return None;
        }
        *args.spans.get_mut(args.count)? = Span {
            start: at,
            end: at + len,
        };
        args.count += 1;
        rest = tail;
        at += len;
    }
}

/// Most digits of a size.
const MAX_SIZE_DIGITS: usize = 9;

/// A decimal number of at most nine digits.
#[inline]
fn parse_size(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > MAX_SIZE_DIGITS {
        return None;
    }
    let mut value = 0u32;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u32::from(digit);
    }
    Some(value)
}

/// Reads a size argument as a length.
#[inline]
fn parse_len(buf: &[u8], span: Span) -> Option<usize> {
    parse_size(span.of(buf)).and_then(|size| usize::try_from(size).ok())
}

/// What lies behind a line that announced a payload.
#[derive(Clone, Copy, Debug)]
struct Body {
    start: usize,
    header_len: usize,
    total: usize,
}

impl Body {
    /// Bytes of the whole operation, final CRLF included.
    #[inline]
    fn needed(&self) -> usize {
        self.start + self.total + 2
    }

    /// Header and payload once they are there with their CRLF; `None`: not yet.
    #[inline]
    fn take<'b>(&self, buf: &'b [u8]) -> Result<Option<&'b [u8]>, ParseError> {
        let Some(whole) = buf.get(self.start..self.needed()) else {
            // A wrong first byte behind the body is told at once.
            return match buf.get(self.start + self.total) {
                None | Some(b'\r') => Ok(None),
                Some(_) => Err(ParseError::PayloadEnd),
            };
        };
        match whole.split_last_chunk::<2>() {
            Some((body, b"\r\n")) => Ok(Some(body)),
            _ => Err(ParseError::PayloadEnd),
        }
    }
}

/// A verb and how its line goes on.
#[derive(Clone, Copy, Debug)]
struct Verb<T> {
    name: &'static [u8],
    kind: T,
    /// Whether a separator and arguments follow; if not, the rest of the line is ignored.
    has_args: bool,
}

impl<T: Copy> Verb<T> {
    /// Where the arguments begin, if `buf` begins with this verb. `None`: too few bytes to say.
    fn recognise(self, buf: &[u8]) -> Result<Option<(T, usize)>, ParseError> {
        let len = self.name.len();
        let same = self
            .name
            .iter()
            .zip(buf)
            .all(|(want, have)| want.eq_ignore_ascii_case(have));
        if !same {
            return Err(ParseError::UnknownOperation);
        }
        match buf.get(len) {
            _ if buf.len() < len => Ok(None),
            _ if !self.has_args => Ok(Some((self.kind, len))),
            None => Ok(None),
            Some(b' ' | b'\t') => Ok(Some((self.kind, len + 1))),
            Some(_) => Err(ParseError::UnknownOperation),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_at_most_nine_digits() {
        assert_eq!(parse_size(b"0"), Some(0));
        assert_eq!(parse_size(b"000000012"), Some(12));
        assert_eq!(parse_size(b"999999999"), Some(999_999_999));
        for bad in ["", "1000000000", "-1", "+1", "0x10", "1a", " 1"] {
            assert_eq!(parse_size(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn splitting_agrees_with_the_standard_library(line in "[ab \t]{0,20}") {
            let span = Span { start: 0, end: line.len() };
            let naive: Vec<&[u8]> =
                line.split([' ', '\t']).filter(|arg| !arg.is_empty()).map(str::as_bytes).collect();
            match split_args(line.as_bytes(), span) {
                Some(args) => {
                    let args: Vec<_> =
                        args.as_slice().iter().map(|span| span.of(line.as_bytes())).collect();
                    prop_assert_eq!(args, naive);
                }
                None => prop_assert!(naive.len() > MAX_ARGS),
            }
        }
    }
}
