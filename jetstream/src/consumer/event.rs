//! What happens to consumers, as the log carries it.
//!
//! ```text
//! batch:  version u8 | event*
//! event:  kind u8 | consumer | fields
//! ```
//!
//! Fields are variable-length numbers ([`super::varint`]); a time is the difference to the time
//! before it in the batch. Events are facts about one delivery, so applying one again, or after the
//! delivery is settled, changes nothing.

use thiserror::Error;

use super::varint::{self, Reader};
use crate::ids::{ConsumerSeq, StreamSeq};
use crate::time::Timestamp;

const VERSION: u8 = 1;
/// Longest run of deliveries in one event; longer ones are split.
pub(super) const MAX_RUN: u32 = 65_536;

/// Something that happened to one consumer of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerEvent {
    consumer: u32,
    change: Change,
}

impl ConsumerEvent {
    /// A change of the consumer with this id.
    #[must_use]
    pub const fn new(consumer: u32, change: Change) -> Self {
        Self { consumer, change }
    }

    /// Id of the consumer within its stream.
    #[must_use]
    pub const fn consumer(&self) -> u32 {
        self.consumer
    }

    /// What happened.
    #[must_use]
    pub const fn change(&self) -> &Change {
        &self.change
    }
}

/// A change of a consumer's replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Messages with consecutive stream sequences were handed out for the first time.
    Delivered {
        /// When the first of them was sent.
        at: Timestamp,
        /// Consumer sequence of the first; the others follow.
        consumer_seq: ConsumerSeq,
        /// Stream sequence of the first.
        stream_seq: StreamSeq,
        /// How many, 1 to 65,536.
        count: u32,
    },
    /// A message was handed out again.
    Redelivered {
        /// When.
        at: Timestamp,
        /// Consumer sequence of this delivery.
        consumer_seq: ConsumerSeq,
        /// Which message.
        stream_seq: StreamSeq,
        /// Deliveries so far, this one included.
        deliveries: u32,
    },
    /// A message was acknowledged.
    Acked {
        /// Which one.
        stream_seq: StreamSeq,
    },
    /// A message and all before it were acknowledged.
    AckedAll {
        /// The last of them.
        stream_seq: StreamSeq,
    },
    /// A delivery will be repeated at another time: a nak, or work in progress.
    Rescheduled {
        /// Which message.
        stream_seq: StreamSeq,
        /// The delivery it speaks of; ignored once there was another one.
        deliveries: u32,
        /// The new time.
        due: Timestamp,
    },
    /// A client refused a message for good.
    Terminated {
        /// Which one.
        stream_seq: StreamSeq,
    },
    /// A message was delivered as often as allowed and not settled. It stays in the stream.
    Exhausted {
        /// Which one.
        stream_seq: StreamSeq,
        /// Deliveries it had.
        deliveries: u32,
    },
    /// A message was found to be no longer in the stream when it was to be repeated.
    Gone {
        /// Which one.
        stream_seq: StreamSeq,
    },
}

/// Why a batch of events cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// A later server wrote it.
    #[error("consumer events of unknown version {0}")]
    Version(u8),
    /// It is not what any server writes.
    #[error("malformed consumer event number {0}")]
    Malformed(usize),
}

/// Writes events so that [`decode_batch`] gives them back.
#[must_use]
pub fn encode_batch<'a>(events: impl IntoIterator<Item = &'a ConsumerEvent>) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(128);
    buffer.push(VERSION);
    let mut clock = 0;
    for event in events {
        encode(event, &mut clock, &mut buffer);
    }
    buffer
}

/// Reads the events of a batch.
///
/// # Errors
/// When the bytes are no batch of a version this server knows.
pub fn decode_batch(bytes: &[u8]) -> Result<Vec<ConsumerEvent>, EventError> {
    let mut reader = Reader::new(bytes);
    match reader.byte() {
        Some(VERSION) => {}
        Some(version) => return Err(EventError::Version(version)),
        None => return Err(EventError::Malformed(0)),
    }
    let mut clock = 0;
    let mut events = Vec::new();
    while !reader.is_empty() {
        let event = decode(&mut reader, &mut clock).ok_or(EventError::Malformed(events.len()))?;
        events.push(event);
    }
    Ok(events)
}

fn encode(event: &ConsumerEvent, clock: &mut i64, buffer: &mut Vec<u8>) {
    let head = |buffer: &mut Vec<u8>, kind: u8, stream_seq: StreamSeq| {
        buffer.push(kind);
        varint::put(buffer, u64::from(event.consumer));
        varint::put(buffer, stream_seq.0);
    };
    match event.change {
        Change::Delivered {
            at,
            consumer_seq,
            stream_seq,
            count,
        } => {
            head(buffer, 1, stream_seq);
            put_time(buffer, clock, at);
            varint::put(buffer, consumer_seq.0);
            varint::put(buffer, u64::from(count));
        }
        Change::Redelivered {
            at,
            consumer_seq,
            stream_seq,
            deliveries,
        } => {
            head(buffer, 2, stream_seq);
            put_time(buffer, clock, at);
            varint::put(buffer, consumer_seq.0);
            varint::put(buffer, u64::from(deliveries));
        }
        Change::Acked { stream_seq } => head(buffer, 3, stream_seq),
        Change::AckedAll { stream_seq } => head(buffer, 4, stream_seq),
        Change::Rescheduled {
            stream_seq,
            deliveries,
            due,
        } => {
            head(buffer, 5, stream_seq);
            put_time(buffer, clock, due);
            varint::put(buffer, u64::from(deliveries));
        }
        Change::Terminated { stream_seq } => head(buffer, 6, stream_seq),
        Change::Exhausted {
            stream_seq,
            deliveries,
        } => {
            head(buffer, 7, stream_seq);
            varint::put(buffer, u64::from(deliveries));
        }
        Change::Gone { stream_seq } => head(buffer, 8, stream_seq),
    }
}

fn decode(reader: &mut Reader<'_>, clock: &mut i64) -> Option<ConsumerEvent> {
    let kind = reader.byte()?;
    let consumer = reader.number32()?;
    let stream_seq = StreamSeq(reader.number()?);
    let change = match kind {
        1 => {
            let at = time(reader, clock)?;
            let consumer_seq = ConsumerSeq(reader.number()?);
            let count = reader
                .number32()
                .filter(|count| (1..=MAX_RUN).contains(count))?;
            // Its last sequences must be numbers too.
            stream_seq.0.checked_add(u64::from(count))?;
            consumer_seq.0.checked_add(u64::from(count))?;
            Change::Delivered {
                at,
                consumer_seq,
                stream_seq,
                count,
            }
        }
        2 => Change::Redelivered {
            at: time(reader, clock)?,
            consumer_seq: ConsumerSeq(reader.number()?),
            stream_seq,
            deliveries: reader.number32()?,
        },
        3 => Change::Acked { stream_seq },
        4 => Change::AckedAll { stream_seq },
        5 => Change::Rescheduled {
            stream_seq,
            due: time(reader, clock)?,
            deliveries: reader.number32()?,
        },
        6 => Change::Terminated { stream_seq },
        7 => Change::Exhausted {
            stream_seq,
            deliveries: reader.number32()?,
        },
        8 => Change::Gone { stream_seq },
        _ => return None,
    };
    Some(ConsumerEvent { consumer, change })
}

fn put_time(buffer: &mut Vec<u8>, clock: &mut i64, time: Timestamp) {
    varint::put_signed(buffer, time.0.wrapping_sub(*clock));
    *clock = time.0;
}

fn time(reader: &mut Reader<'_>, clock: &mut i64) -> Option<Timestamp> {
    *clock = clock.wrapping_add(reader.signed()?);
    Some(Timestamp(*clock))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = Change> {
        let seq = any::<u32>().prop_map(|seq| StreamSeq(u64::from(seq)));
        let consumer_seq = any::<u32>().prop_map(|seq| ConsumerSeq(u64::from(seq)));
        let at = any::<i64>().prop_map(Timestamp);
        prop_oneof![
            (at.clone(), consumer_seq.clone(), seq.clone(), 1..=MAX_RUN).prop_map(
                |(at, consumer_seq, stream_seq, count)| Change::Delivered {
                    at,
                    consumer_seq,
                    stream_seq,
                    count
                }
            ),
            (at.clone(), consumer_seq, seq.clone(), any::<u32>()).prop_map(
                |(at, consumer_seq, stream_seq, deliveries)| Change::Redelivered {
                    at,
                    consumer_seq,
                    stream_seq,
                    deliveries
                }
            ),
            seq.clone()
                .prop_map(|stream_seq| Change::Acked { stream_seq }),
            seq.clone()
                .prop_map(|stream_seq| Change::AckedAll { stream_seq }),
            (seq.clone(), any::<u32>(), at).prop_map(|(stream_seq, deliveries, due)| {
                Change::Rescheduled {
                    stream_seq,
                    deliveries,
                    due,
                }
            }),
            seq.clone()
                .prop_map(|stream_seq| Change::Terminated { stream_seq }),
            (seq.clone(), any::<u32>()).prop_map(|(stream_seq, deliveries)| Change::Exhausted {
                stream_seq,
                deliveries
            }),
            seq.prop_map(|stream_seq| Change::Gone { stream_seq }),
        ]
    }

    #[test]
    fn a_run_of_deliveries_takes_a_few_bytes() {
        let event = ConsumerEvent::new(
            3,
            Change::Delivered {
                at: Timestamp(1_700_000_000_000_000_000),
                consumer_seq: ConsumerSeq(1),
                stream_seq: StreamSeq(1),
                count: 500,
            },
        );
        assert!(encode_batch([&event]).len() <= 16);
        let ack = ConsumerEvent::new(
            3,
            Change::Acked {
                stream_seq: StreamSeq(1_000_000),
            },
        );
        assert!(encode_batch([&ack]).len() <= 6);
    }

    #[test]
    fn a_run_that_would_never_end_is_refused() {
        let mut bytes = vec![VERSION, 1, 1, 1, 0, 1];
        varint::put(&mut bytes, u64::from(u32::MAX));
        assert_eq!(decode_batch(&bytes), Err(EventError::Malformed(0)));
        assert_eq!(decode_batch(&[9]), Err(EventError::Version(9)));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            changes in proptest::collection::vec((any::<u32>(), change()), 0..20)
        ) {
            let events: Vec<_> =
                changes.into_iter().map(|(id, change)| ConsumerEvent::new(id, change)).collect();
            prop_assert_eq!(decode_batch(&encode_batch(&events)), Ok(events));
        }

        #[test]
        fn foreign_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_batch(&bytes);
            let mut versioned = vec![VERSION];
            versioned.extend_from_slice(&bytes);
            let _ = decode_batch(&versioned);
        }
    }
}
