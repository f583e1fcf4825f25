//! Counters: subjects whose messages carry the sum of all increments so far.
//!
//! A publisher sends an increment (`Nats-Incr`); the server that proposes it adds it to the last
//! message of the subject and proposes the sum as the body, so that the block holds what is
//! delivered. Applying it compares: the sum is stored only if it follows from the message that is
//! the last one by then. Numbers are whole and of any size.
//!
//! A copy of another stream's counter brings that stream's sum. What counts is how far it moved
//! since the last copy, so the last sum of every source is kept with the counter, in
//! `Nats-Counter-Sources`.

use std::collections::BTreeMap;

use bytes::Bytes;
use menes_protocol::headers::{HeaderBlock, HeaderBuilder};
use num_bigint::BigInt;
use serde::Deserialize;

use super::directives::Directives;
use super::subject::SubjectRow;
use super::{Stream, View};
use crate::api::{ApiError, json};
use crate::ids::StreamSeq;
use crate::ports::{StoreError, StoreErrorKind};

const INCREMENT: &str = "Nats-Incr";
const SOURCES: &str = "Nats-Counter-Sources";

/// The last sums of other streams' counters, by stream and subject.
type Sources = BTreeMap<String, BTreeMap<String, String>>;

/// The body of a counter's message.
#[derive(Deserialize)]
struct Value {
    #[serde(default)]
    val: String,
}

/// A counter as its last message has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counter {
    sum: BigInt,
    sources: Sources,
}

/// The last message of the subject is no counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// An increment as it is proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Header block.
    pub(crate) header: Bytes,
    /// The new sum.
    pub(crate) payload: Vec<u8>,
}

/// A whole number: decimal digits, perhaps with a sign.
pub(super) fn number(text: &[u8]) -> Option<BigInt> {
    let digits = match text {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| BigInt::parse_bytes(text, 10)).flatten()
}

/// The sum that a body holds.
pub(super) fn sum_of(payload: &[u8]) -> Result<BigInt, Broken> {
    let value: Value = serde_json::from_slice(payload).map_err(|_| Broken)?;
    Ok(number(value.val.as_bytes()).unwrap_or_default())
}

/// The text of the sum that a body holds, for the acknowledgement.
pub(crate) fn text_of(payload: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    Some(value.val)
}

/// Whether an increment may not come with these.
pub(super) fn conflicts(directives: &Directives<'_>) -> bool {
    [
        directives.rollup,
        directives.expected_stream,
        directives.expected_last,
        directives.expected_last_in_subject,
        directives.expected_subject,
        directives.expected_last_id,
    ]
    .iter()
    .any(|field| !field.is_empty())
}

/// Whether a client's message is an increment that can be counted.
pub(crate) fn is_increment(header: &[u8], payload: &[u8]) -> bool {
    payload.is_empty()
        && Directives::parse(header).is_ok_and(|directives| {
            number(directives.increment).is_some() && !conflicts(&directives)
        })
}

/// Why a message is no increment.
pub(crate) fn increment_refused(header: &[u8], payload: &[u8]) -> ApiError {
    match Directives::parse(header) {
        Err(error) => error,
        Ok(directives) if directives.increment.is_empty() => ApiError::counter_increment_missing(),
        Ok(directives) if number(directives.increment).is_some() && !payload.is_empty() => {
            ApiError::counter_with_payload()
        }
        Ok(_) => ApiError::counter_increment_invalid(),
    }
}

impl Counter {
    /// The counter of which this is the last message.
    fn read(header: &[u8], payload: &[u8]) -> Result<Self, Broken> {
        let sum = sum_of(payload)?;
        let kept = HeaderBlock::parse(header)
            .ok()
            .and_then(|block| block.get(SOURCES));
        let sources = match kept {
            Some(text) if !text.is_empty() => serde_json::from_slice(text).map_err(|_| Broken)?,
            _ => Sources::new(),
        };
        Ok(Self { sum, sources })
    }

    /// Counts one message on `subject`; `None` when it is no increment.
    pub(crate) fn add(&mut self, subject: &[u8], header: &[u8], payload: &[u8]) -> Option<Counted> {
        let block = HeaderBlock::parse(header).ok()?;
        let mut increment = number(block.get(INCREMENT)?)?;
        let mut own = HeaderBuilder::from_block(&block);
        if let Some(source) = block.get("Nats-Stream-Source").filter(|v| !v.is_empty()) {
            let source = String::from_utf8_lossy(source);
            let fields: Vec<&str> = source.split(' ').collect();
            let theirs = fields.first().copied().unwrap_or_default();
            let subject = String::from_utf8_lossy(subject);
            let subject = fields.get(4).copied().unwrap_or(&subject);
            let sum = sum_of(payload).ok()?;
            let last = self
                .sources
                .entry(theirs.to_owned())
                .or_default()
                .insert(subject.to_owned(), sum.to_string());
            let last = last.and_then(|text| number(text.as_bytes()));
            increment = sum - last.unwrap_or_default();
            own.set(INCREMENT, increment.to_string());
        }
        self.sum += increment;
        if self.sources.is_empty() {
            own.remove(SOURCES);
        } else {
            let mut text = Vec::new();
            json::write(&mut text, &self.sources);
            own.set(SOURCES, text);
        }
        Some(Counted {
            header: own.finish(),
            payload: format!("{{\"val\":\"{}\"}}", self.sum).into_bytes(),
        })
    }
}

/// Whether a sum follows from the one before it.
pub(super) fn follows(before: &[u8], increment: &[u8], after: &[u8]) -> bool {
    Counter::read(b"", before).is_ok_and(|counter| counter.leads_to(increment, after))
}

impl Stream {
    /// The counter of a subject.
    ///
    /// # Errors
    /// As [`Stream::message`].
    pub(crate) fn counter(
        &self,
        subject: &[u8],
        view: &mut View<'_>,
    ) -> Result<Result<Counter, Broken>, StoreError> {
        let row = SubjectRow::read(view.rows, self.group(), subject)?;
        self.counter_at(row.map_or(0, |row| row.last), view)
    }

    /// The counter whose last message has this sequence, 0 for none.
    pub(super) fn counter_at(
        &self,
        last: u64,
        view: &mut View<'_>,
    ) -> Result<Result<Counter, Broken>, StoreError> {
        match self.message(StreamSeq(last), view) {
            Ok(Some(message)) => Ok(Counter::read(message.header(), message.payload())),
            Ok(None) => Ok(Ok(Counter::default())),
            Err(error) if error.kind == StoreErrorKind::Corrupt => Ok(Err(Broken)),
            Err(error) => Err(error),
        }
    }

    /// Whether it holds counters only.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.limits.counter
    }
}

impl Counter {
    /// Whether a message with this header and body follows.
    pub(super) fn leads_to(&self, increment: &[u8], payload: &[u8]) -> bool {
        match (number(increment), sum_of(payload)) {
            (Some(increment), Ok(sum)) => &self.sum + increment == sum,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(fields: &str) -> Vec<u8> {
        format!("NATS/1.0\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn a_number_is_digits_with_a_sign() {
        for text in ["", "-", "+", "1.5", "0x1", "1e3", " 1", "--1", "1_000"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
        let shown = |text: &str| number(text.as_bytes()).map(|n| n.to_string());
        assert_eq!(shown("+007").as_deref(), Some("7"));
        assert_eq!(shown("-0").as_deref(), Some("0"));
    }

    #[test]
    fn a_sum_grows_beyond_any_machine_word() {
        let mut counter = Counter::default();
        let nines = "9".repeat(100);
        let large = header(&format!("Nats-Incr: {nines}\r\n"));
        let counted = counter.add(b"a", &large, b"").expect("an increment");
        assert_eq!(
            counted.payload,
            format!("{{\"val\":\"{nines}\"}}").into_bytes()
        );
        let one = header("Nats-Incr: +1\r\n");
        let counted = counter.add(b"a", &one, b"").expect("an increment");
        let sum = format!("{{\"val\":\"1{}\"}}", "0".repeat(100));
        assert_eq!(counted.payload, sum.into_bytes());
        assert_eq!(counted.header, one);
    }

    #[test]
    fn a_copy_counts_by_how_far_its_origin_moved() {
        let mut counter = Counter::default();
        let own = header("Nats-Incr: 5\r\n");
        counter.add(b"a", &own, b"").expect("an increment");
        let copy = header("Nats-Incr: 1\r\nNats-Stream-Source: EAST 1 > > a\r\n");
        let counted = counter.add(b"a", &copy, br#"{"val":"10"}"#).expect("a sum");
        assert_eq!(counted.payload, br#"{"val":"15"}"#);
        let expected = header(
            "Nats-Incr: 10\r\nNats-Stream-Source: EAST 1 > > a\r\nNats-Counter-Sources: {\"EAST\":{\"a\":\"10\"}}\r\n",
        );
        assert_eq!(counted.header, expected);
        let counted = counter.add(b"a", &copy, br#"{"val":"8"}"#).expect("a sum");
        assert_eq!(counted.payload, br#"{"val":"13"}"#);
        let read = Counter::read(&counted.header, &counted.payload).expect("a counter");
        assert_eq!(read, counter);
        assert!(!counter.leads_to(b"1", br#"{"val":"13"}"#));
        assert!(counter.leads_to(b"-3", br#"{"val":"10"}"#));
    }

    proptest! {
        #[test]
        fn it_counts_as_numbers_do(increments in prop::collection::vec(any::<i64>(), 1..20)) {
            let mut counter = Counter::default();
            let mut sum = 0i128;
            for increment in increments {
                let before = counter.clone();
                let header = header(&format!("Nats-Incr: {increment}\r\n"));
                let counted = counter.add(b"a", &header, b"").expect("an increment");
                sum += i128::from(increment);
                let text = text_of(&counted.payload).expect("a sum");
                prop_assert_eq!(text, sum.to_string());
                let increment = increment.to_string();
                prop_assert!(before.leads_to(increment.as_bytes(), &counted.payload));
            }
        }
    }
}
