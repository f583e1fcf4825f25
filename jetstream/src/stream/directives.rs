//! What the header of a published message asks of the stream.

use menes_protocol::headers::HeaderBlock;

use super::schedules::NAMELESS_ZONE;
use crate::api::ApiError;
use crate::api::duration::Nanoseconds;

/// Longest message id, bytes.
const MAX_ID_BYTES: usize = 1024;

/// What a rollup replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rollup {
    /// Older messages of the subject.
    Subject,
    /// Every older message.
    All,
}

/// A `Nats-TTL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ttl {
    /// Gone after this many seconds.
    Seconds(u64),
    /// Stays whatever the age limit of the stream says.
    Never,
}

/// The fields of a header block that mean something to a stream; a field with an empty value
/// counts as absent. Values are checked when their turn comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives<'a> {
    pub(super) id: &'a [u8],
    /// Second best to `id`: the name that Memphis clients use.
    memphis_id: &'a [u8],
    pub(super) expected_stream: &'a [u8],
    pub(super) expected_last: &'a [u8],
    pub(super) expected_last_in_subject: &'a [u8],
    pub(super) expected_subject: &'a [u8],
    pub(super) expected_last_id: &'a [u8],
    pub(super) rollup: &'a [u8],
    pub(super) ttl: &'a [u8],
    pub(super) increment: &'a [u8],
    pub(super) schedule: &'a [u8],
    /// The time zone of a schedule.
    pub(super) zone: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) schedule_source: &'a [u8],
    pub(super) schedule_ttl: &'a [u8],
    pub(super) schedule_rollup: &'a [u8],
    pub(super) scheduler: &'a [u8],
    pub(super) schedule_next: &'a [u8],
    pub(super) batch: &'a [u8],
    pub(super) source: &'a [u8],
}

impl<'a> Directives<'a> {
    /// Reads a header block.
    ///
    /// # Errors
    /// 10003 for what is no header block, for a field that is there twice with different values,
    /// and for an id that is too long.
    pub(super) fn parse(header: &'a [u8]) -> Result<Self, ApiError> {
        let block = HeaderBlock::parse(header).map_err(|_| ApiError::bad_request())?;
        let mut directives = Self::default();
        for (name, value) in &block {
            if value.is_empty() {
                if name == b"Nats-Schedule-Time-Zone" {
                    directives.zone = NAMELESS_ZONE;
                }
                continue;
            }
            let Some(field) = directives.field(name) else {
                continue;
            };
            if !field.is_empty() && *field != value {
                return Err(ApiError::bad_request());
            }
            *field = value;
        }
        if directives.id.is_empty() {
            directives.id = directives.memphis_id;
        }
        if directives.id.len() > MAX_ID_BYTES {
            return Err(ApiError::bad_request());
        }
        Ok(directives)
    }

    fn field(&mut self, name: &[u8]) -> Option<&mut &'a [u8]> {
        Some(match name {
            b"Nats-Msg-Id" => &mut self.id,
            b"msg-id" => &mut self.memphis_id,
            b"Nats-Expected-Stream" => &mut self.expected_stream,
            b"Nats-Expected-Last-Sequence" => &mut self.expected_last,
            b"Nats-Expected-Last-Subject-Sequence" => &mut self.expected_last_in_subject,
            b"Nats-Expected-Last-Subject-Sequence-Subject" => &mut self.expected_subject,
            b"Nats-Expected-Last-Msg-Id" => &mut self.expected_last_id,
            b"Nats-Rollup" => &mut self.rollup,
            b"Nats-TTL" => &mut self.ttl,
            b"Nats-Incr" => &mut self.increment,
            b"Nats-Schedule" => &mut self.schedule,
            b"Nats-Schedule-Time-Zone" => &mut self.zone,
            b"Nats-Schedule-Target" => &mut self.target,
            b"Nats-Schedule-Source" => &mut self.schedule_source,
            b"Nats-Schedule-TTL" => &mut self.schedule_ttl,
            b"Nats-Schedule-Rollup" => &mut self.schedule_rollup,
            b"Nats-Scheduler" => &mut self.scheduler,
            b"Nats-Schedule-Next" => &mut self.schedule_next,
            b"Nats-Batch-Id" => &mut self.batch,
            b"Nats-Stream-Source" => &mut self.source,
            _ => return None,
        })
    }

    /// The rollup asked for.
    ///
    /// # Errors
    /// 10111 for a value that is neither `sub` nor `all`.
    pub(super) fn rollup(&self) -> Result<Option<Rollup>, ApiError> {
        if self.rollup.is_empty() {
            Ok(None)
        } else if self.rollup.eq_ignore_ascii_case(b"sub") {
            Ok(Some(Rollup::Subject))
        } else if self.rollup.eq_ignore_ascii_case(b"all") {
            Ok(Some(Rollup::All))
        } else {
            let value = String::from_utf8_lossy(self.rollup).to_lowercase();
            Err(ApiError::rollup(format_args!(
                "rollup value invalid: {value:?}"
            )))
        }
    }

    /// The TTL asked for; 0 seconds mean none, as in nats-server.
    ///
    /// # Errors
    /// 10165 for what is neither `never`, a number of seconds nor a Go duration from 1 s on.
    pub(super) fn ttl(&self) -> Result<Option<Ttl>, ApiError> {
        ttl_of(self.ttl)
    }
}

/// The TTL that a text asks for, as [`Directives::ttl`].
pub(super) fn ttl_of(text: &[u8]) -> Result<Option<Ttl>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.eq_ignore_ascii_case(b"never") {
        return Ok(Some(Ttl::Never));
    }
    // A duration as well as a number, and as such too short.
    if matches!(text, b"0" | b"+0" | b"-0") {
        return Err(ApiError::message_ttl_invalid());
    }
    let seconds = match number(text) {
        Some(seconds) => Some(seconds),
        None => std::str::from_utf8(text)
            .ok()
            .and_then(go_duration_nanos)
            .map(|nanos| nanos / 1_000_000_000)
            .filter(|seconds| *seconds >= 1),
    };
    match seconds {
        // Beyond this the time of expiry would not fit.
        None | Some(9_000_000_000..) => Err(ApiError::message_ttl_invalid()),
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(Ttl::Seconds(seconds))),
    }
}

/// A decimal number of at most 19 digits.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u64::from(byte - b'0'))
    })
}

/// A duration as Go prints and parses it (`1h2m3.5s`), not negative, in nanoseconds.
pub(super) fn go_duration_nanos(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, tail) = rest.split_at(digits);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        if !whole.is_empty() {
            total = total.checked_add(whole.parse::<u64>().ok()?.checked_mul(unit)?)?;
        }
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            total = total.checked_add(scale * u64::from(digit.checked_sub(b'0')?.min(9)))?;
        }
        rest = tail;
    }
    i64::try_from(total).ok()?;
    Some(total)
}

/// A duration as Go prints it: `1m30s`, `1.5s`, `2h0m0s`.
pub(super) fn go_duration_text(span: std::time::Duration) -> String {
    Nanoseconds(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(fields: &str) -> Vec<u8> {
        format!("NATS/1.0\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn the_same_value_twice_is_one_value() {
        let header = block("Nats-Msg-Id: a\r\nNats-Msg-Id: a\r\n");
        assert_eq!(Directives::parse(&header).expect("agreeing").id, b"a");
        let header = block("Nats-Msg-Id: a\r\nNats-Msg-Id: b\r\n");
        assert_eq!(Directives::parse(&header), Err(ApiError::bad_request()));
    }

    #[test]
    fn the_nats_id_comes_before_that_of_memphis() {
        let header = block("msg-id: m\r\nNats-Msg-Id: n\r\n");
        assert_eq!(Directives::parse(&header).expect("sound").id, b"n");
        let header = block("msg-id: m\r\n");
        assert_eq!(Directives::parse(&header).expect("sound").id, b"m");
    }

    #[test]
    fn a_long_id_is_refused() {
        let header = block(&format!("Nats-Msg-Id: {}\r\n", "x".repeat(1025)));
        assert_eq!(Directives::parse(&header), Err(ApiError::bad_request()));
        let header = block(&format!("Nats-Msg-Id: {}\r\n", "x".repeat(1024)));
        assert!(Directives::parse(&header).is_ok());
    }

    #[test]
    fn names_are_compared_with_case_and_rollup_values_without() {
        let header = block("nats-msg-id: a\r\nNats-Rollup: SUB\r\n");
        let directives = Directives::parse(&header).expect("sound");
        assert_eq!(directives.id, b"");
        assert_eq!(directives.rollup(), Ok(Some(Rollup::Subject)));
        let header = block("Nats-Rollup: Some\r\n");
        let error = Directives::parse(&header)
            .expect("sound")
            .rollup()
            .expect_err("unknown");
        assert_eq!(error.description, "rollup value invalid: \"some\"");
    }

    #[test]
    fn a_ttl_is_seconds_a_duration_or_never() {
        let ttl = |text: &str| {
            let header = block(&format!("Nats-TTL: {text}\r\n"));
            Directives::parse(&header).expect("sound").ttl()
        };
        assert_eq!(ttl("5"), Ok(Some(Ttl::Seconds(5))));
        assert_eq!(ttl("1h30m"), Ok(Some(Ttl::Seconds(5400))));
        assert_eq!(ttl("1.5s"), Ok(Some(Ttl::Seconds(1))));
        assert_eq!(ttl("Never"), Ok(Some(Ttl::Never)));
        for bad in [
            "0",
            "-1",
            "1e99",
            "9999999999h",
            "999ms",
            "s",
            "x",
            "99999999999",
        ] {
            assert_eq!(ttl(bad), Err(ApiError::message_ttl_invalid()), "{bad}");
        }
    }
}
