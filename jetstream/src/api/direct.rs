//! Direct gets: messages without JSON around them.
//!
//! Requests on `$JS.API.DIRECT.GET.<stream>` say in their body what they want; on
//! `$JS.API.DIRECT.GET.<stream>.<subject>` the last message of that subject is meant. A message
//! comes back with its own header and a few lines that say where it was; everything else is a
//! status without payload. Unknown fields of a body are ignored here, as in the reference server.

use super::json::{self, Unknown};
use super::request::{MESSAGE_FIELDS, MessageFields, MessageSelector, Start};
use crate::ids::StreamSeq;
use crate::time::Timestamp;

/// Most subjects that a request for the last message of each may match.
pub const MAX_MULTI_LAST: usize = 1024;

/// What a direct get asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectGet {
    /// One message, answered by it or [`NOT_FOUND`].
    One {
        /// Which.
        selector: MessageSelector,
        /// Without any header.
        no_headers: bool,
    },
    /// Several messages in a row. [`NOT_FOUND`] if there is not even one, else they end with
    /// [`end_of_batch`].
    Batch {
        /// Where to begin.
        from: Start,
        /// Only messages whose subject matches.
        filter: Option<String>,
        /// Most messages.
        batch: u64,
        /// Stop after the message with which subjects, headers and payloads reach so many bytes;
        /// `None` for what a connection may have pending.
        max_bytes: Option<u64>,
        /// Without any header.
        no_headers: bool,
    },
    /// The last message of every subject that matches one of the filters. [`NO_RESULTS`] or
    /// [`TOO_MANY_RESULTS`], else they end with [`end_of_multi`].
    MultiLast {
        /// Patterns.
        filters: Vec<String>,
        /// Only messages from here on.
        from: StreamSeq,
        /// Only messages up to here.
        up_to: UpTo,
        /// Most messages; `None` for all.
        batch: Option<u64>,
        /// As in [`DirectGet::Batch`].
        max_bytes: Option<u64>,
    },
}

/// Up to where the last message of each subject is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpTo {
    /// The end of the stream.
    End,
    /// This sequence.
    Seq(StreamSeq),
    /// The last message before this time; [`NO_RESULTS`] if the stream begins later.
    Time(Timestamp),
}

/// Reads a request. `subject` is the one in the request's subject, if there is one.
///
/// # Errors
///
/// The status block to answer with.
pub fn parse(subject: Option<&str>, body: &[u8]) -> Result<DirectGet, &'static [u8]> {
    if subject.is_none() && body.is_empty() {
        return Err(EMPTY_REQUEST);
    }
    let mut fields: MessageFields = json::object_with(&MESSAGE_FIELDS, body, Unknown::Dropped)
        .and_then(json::finish)
        .map_err(|_| MALFORMED_REQUEST)?;
    let has_multi = !fields.multi_last.is_empty();
    if let Some(subject) = subject {
        let asks_more = fields.seq != 0
            || fields.batch != 0
            || has_multi
            || fields.up_to_seq != 0
            || fields.up_to_time.is_some()
            || fields.start_time.is_some()
            || !fields.last_by_subj.is_empty()
            || !fields.next_by_subj.is_empty();
        if asks_more {
            return Err(BAD_REQUEST);
        }
        fields.last_by_subj = subject.to_owned();
    }
    let has_last = !fields.last_by_subj.is_empty();
    let has_next = !fields.next_by_subj.is_empty();
    let has_time = fields.start_time.is_some();
    if fields.seq == 0 && !has_last && !has_next && !has_multi && !has_time {
        return Err(EMPTY_REQUEST);
    }
    let contradicts = (fields.up_to_seq > 0 && fields.up_to_time.is_some())
        || (has_last && (fields.batch > 0 || has_multi))
        || (has_multi && (has_next || has_time));
    if contradicts {
        return Err(BAD_REQUEST);
    }
    let max_bytes = u64::try_from(fields.max_bytes)
        .ok()
        .filter(|bytes| *bytes > 0);
    let batch = u64::try_from(fields.batch).ok();
    if has_multi {
        return Ok(DirectGet::MultiLast {
            from: StreamSeq(fields.seq),
            up_to: match (fields.up_to_seq, fields.up_to_time) {
                (0, None) => UpTo::End,
                (_, Some(time)) => UpTo::Time(time),
                (seq, None) => UpTo::Seq(StreamSeq(seq)),
            },
            filters: fields.multi_last,
            batch: batch.filter(|batch| *batch > 0),
            max_bytes,
        });
    }
    let selector = fields.selector().ok_or(BAD_REQUEST)?;
    let no_headers = fields.no_hdr;
    let Some(batch) = batch else {
        return Err(BAD_REQUEST);
    };
    if batch == 0 {
        return Ok(DirectGet::One {
            selector,
            no_headers,
        });
    }
    let (from, filter) = match selector {
        MessageSelector::Seq(seq) => (Start::Seq(seq), None),
        MessageSelector::Time(time) => (Start::Time(time), None),
        MessageSelector::Next { filter, from } => (from, Some(filter)),
        MessageSelector::Last(_) => return Err(BAD_REQUEST),
    };
    Ok(DirectGet::Batch {
        from,
        filter,
        batch,
        max_bytes,
        no_headers,
    })
}

/// Where a message was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Name of the stream.
    pub stream: &'a str,
    /// Subject of the message.
    pub subject: &'a [u8],
    /// Its sequence.
    pub seq: StreamSeq,
    /// When it was stored.
    pub time: Timestamp,
    /// Its place in a batch.
    pub place: Option<Place>,
}

/// Place of a message in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Messages that match and come after it.
    pub num_pending: u64,
    /// Sequence of the one before it in the batch, 0 for the first.
    pub last_seq: StreamSeq,
}

/// Header block of a found message: its own lines, `stored`, then where it was found. Lines of its
/// own that claim to say where it was found are left out, for readers take the first of a name.
#[must_use]
pub fn header_block(stored: &[u8], found: &Found<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored.len() + found.subject.len() + 160);
    out.extend_from_slice(b"NATS/1.0\r\n");
    copy_own_lines(&mut out, stored);
    let mut digits = itoa::Buffer::new();
    line(&mut out, STREAM, found.stream.as_bytes());
    line(&mut out, SUBJECT, found.subject);
    line(&mut out, SEQUENCE, digits.format(found.seq.0).as_bytes());
    line(&mut out, TIME_STAMP, found.time.to_string().as_bytes());
    if let Some(place) = found.place {
        line(
            &mut out,
            NUM_PENDING,
            digits.format(place.num_pending).as_bytes(),
        );
        line(
            &mut out,
            LAST_SEQUENCE,
            digits.format(place.last_seq.0).as_bytes(),
        );
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Header block of a message that is published again: its own lines, then where it was stored, and
/// the sequence of the one of its subject before it. `size` is that of a payload that is left out.
#[must_use]
pub fn republished_header(
    stored: &[u8],
    found: &Found<'_>,
    previous: StreamSeq,
    size: Option<usize>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored.len() + found.subject.len() + 160);
    match stored.strip_suffix(b"\r\n") {
        Some(own) => out.extend_from_slice(own),
        None => out.extend_from_slice(b"NATS/1.0\r\n"),
    }
    let mut digits = itoa::Buffer::new();
    line(&mut out, STREAM, found.stream.as_bytes());
    line(&mut out, SUBJECT, found.subject);
    line(&mut out, SEQUENCE, digits.format(found.seq.0).as_bytes());
    line(&mut out, TIME_STAMP, found.time.to_string().as_bytes());
    line(
        &mut out,
        LAST_SEQUENCE,
        digits.format(previous.0).as_bytes(),
    );
    if let Some(size) = size {
        line(&mut out, b"Nats-Msg-Size", digits.format(size).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

const STREAM: &[u8] = b"Nats-Stream";
const SUBJECT: &[u8] = b"Nats-Subject";
const SEQUENCE: &[u8] = b"Nats-Sequence";
const TIME_STAMP: &[u8] = b"Nats-Time-Stamp";
const NUM_PENDING: &[u8] = b"Nats-Num-Pending";
const LAST_SEQUENCE: &[u8] = b"Nats-Last-Sequence";

fn copy_own_lines(out: &mut Vec<u8>, stored: &[u8]) {
    let reserved = [
        STREAM,
        SUBJECT,
        SEQUENCE,
        TIME_STAMP,
        NUM_PENDING,
        LAST_SEQUENCE,
    ];
    let mut rest = match memchr::memmem::find(stored, b"\r\n") {
        Some(end) => &stored[end + 2..],
        None => return,
    };
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let (own, after) = (&rest[..end], &rest[end + 2..]);
        if own.is_empty() {
            return;
        }
        let name = &own[..memchr::memchr(b':', own).unwrap_or(own.len())];
        if !reserved
            .iter()
            .any(|reserved| reserved.eq_ignore_ascii_case(name))
        {
            out.extend_from_slice(own);
            out.extend_from_slice(b"\r\n");
        }
        rest = after;
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The request wants nothing.
pub const EMPTY_REQUEST: &[u8] = b"NATS/1.0 408 Empty Request\r\n\r\n";
/// The request is no JSON object of the right kinds.
pub const MALFORMED_REQUEST: &[u8] = b"NATS/1.0 408 Malformed Request\r\n\r\n";
/// The request contradicts itself.
pub const BAD_REQUEST: &[u8] = b"NATS/1.0 408 Bad Request\r\n\r\n";
/// The request needs a higher API level.
pub const REQUIRED_LEVEL: &[u8] = b"NATS/1.0 412 Required Api Level\r\n\r\n";
/// There is no such message.
pub const NOT_FOUND: &[u8] = b"NATS/1.0 404 Message Not Found\r\n\r\n";
/// No subject matches.
pub const NO_RESULTS: &[u8] = b"NATS/1.0 404 No Results\r\n\r\n";
/// More than [`MAX_MULTI_LAST`] subjects match.
pub const TOO_MANY_RESULTS: &[u8] = b"NATS/1.0 413 Too Many Results\r\n\r\n";

/// Status at the end of a batch. `place` is what is still pending and the last message sent.
#[must_use]
pub fn end_of_batch(place: Place) -> Vec<u8> {
    end(place, None)
}

/// Status at the end of the last messages of several subjects, which were looked for up to
/// `up_to`.
#[must_use]
pub fn end_of_multi(place: Place, up_to: StreamSeq) -> Vec<u8> {
    end(place, Some(up_to))
}

fn end(place: Place, up_to: Option<StreamSeq>) -> Vec<u8> {
    let mut digits = itoa::Buffer::new();
    let mut out = b"NATS/1.0 204 EOB\r\n".to_vec();
    line(
        &mut out,
        NUM_PENDING,
        digits.format(place.num_pending).as_bytes(),
    );
    line(
        &mut out,
        LAST_SEQUENCE,
        digits.format(place.last_seq.0).as_bytes(),
    );
    if let Some(up_to) = up_to {
        line(
            &mut out,
            b"Nats-UpTo-Sequence",
            digits.format(up_to.0).as_bytes(),
        );
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use menes_protocol::headers::HeaderBlock;
    use proptest::prelude::*;

    use super::*;

    fn one(selector: MessageSelector) -> Result<DirectGet, &'static [u8]> {
        Ok(DirectGet::One {
            selector,
            no_headers: false,
        })
    }

    fn body(text: &str) -> Result<DirectGet, &'static [u8]> {
        parse(None, text.as_bytes())
    }

    #[test]
    fn one_message_is_selected_in_one_way() {
        let next = |from| MessageSelector::Next {
            filter: "p.*".into(),
            from,
        };
        let (time, at) = ("2020-01-01T00:00:00Z", Timestamp(1_577_836_800_000_000_000));
        assert_eq!(
            body(r#"{"seq":1}"#),
            one(MessageSelector::Seq(StreamSeq(1)))
        );
        assert_eq!(
            body(r#"{"last_by_subj":"p.c"}"#),
            one(MessageSelector::Last("p.c".into()))
        );
        assert_eq!(
            body(r#"{"next_by_subj":"p.*"}"#),
            one(next(Start::Seq(StreamSeq(0))))
        );
        assert_eq!(
            body(r#"{"seq":2,"next_by_subj":"p.*"}"#),
            one(next(Start::Seq(StreamSeq(2))))
        );
        assert_eq!(
            body(&format!(
                r#"{{"start_time":"{time}","next_by_subj":"p.*"}}"#
            )),
            one(next(Start::Time(at)))
        );
        assert_eq!(
            body(&format!(r#"{{"start_time":"{time}"}}"#)),
            one(MessageSelector::Time(at))
        );
        assert_eq!(
            body(r#"{"seq":1,"nope":1}"#),
            one(MessageSelector::Seq(StreamSeq(1)))
        );
        assert_eq!(
            body(r#"{"seq":1,"no_hdr":true}"#),
            Ok(DirectGet::One {
                selector: MessageSelector::Seq(StreamSeq(1)),
                no_headers: true
            })
        );
    }

    #[test]
    fn the_subject_may_say_it_all() {
        let last = one(MessageSelector::Last("p.c".into()));
        assert_eq!(parse(Some("p.c"), b""), last);
        assert_eq!(parse(Some("p.c"), b"{}"), last);
        assert_eq!(parse(Some("p.c"), br#"{"seq":1}"#), Err(BAD_REQUEST));
        assert_eq!(
            parse(Some("p.c"), br#"{"last_by_subj":"p.c"}"#),
            Err(BAD_REQUEST)
        );
        assert_eq!(parse(Some("p.c"), b"x"), Err(MALFORMED_REQUEST));
    }

    #[test]
    fn batches_and_many_subjects() {
        assert_eq!(
            body(r#"{"seq":1,"batch":9,"next_by_subj":"p.>","max_bytes":5}"#),
            Ok(DirectGet::Batch {
                from: Start::Seq(StreamSeq(1)),
                filter: Some("p.>".into()),
                batch: 9,
                max_bytes: Some(5),
                no_headers: false
            })
        );
        let multi = |up_to, batch| {
            Ok(DirectGet::MultiLast {
                filters: vec!["p.>".into()],
                from: StreamSeq(0),
                up_to,
                batch,
                max_bytes: None,
            })
        };
        assert_eq!(body(r#"{"multi_last":["p.>"]}"#), multi(UpTo::End, None));
        assert_eq!(
            body(r#"{"multi_last":["p.>"],"up_to_seq":3,"batch":2}"#),
            multi(UpTo::Seq(StreamSeq(3)), Some(2))
        );
        assert_eq!(
            body(r#"{"multi_last":["p.>"],"up_to_time":"1970-01-01T00:00:01Z"}"#),
            multi(UpTo::Time(Timestamp(1_000_000_000)), None)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_status() {
        for (text, status) in [
            ("", EMPTY_REQUEST),
            ("{}", EMPTY_REQUEST),
            ("null", EMPTY_REQUEST),
            (r#"{"batch":9}"#, EMPTY_REQUEST),
            ("x", MALFORMED_REQUEST),
            (r#"{"seq":-1}"#, MALFORMED_REQUEST),
            (r#"{"seq":1,"last_by_subj":"a"}"#, BAD_REQUEST),
            (
                r#"{"seq":1,"start_time":"2020-01-01T00:00:00Z"}"#,
                BAD_REQUEST,
            ),
            (
                r#"{"start_time":"2020-01-01T00:00:00Z","last_by_subj":"a"}"#,
                BAD_REQUEST,
            ),
            (r#"{"last_by_subj":"a","next_by_subj":"a"}"#, BAD_REQUEST),
            (r#"{"last_by_subj":"a","batch":2}"#, BAD_REQUEST),
            (r#"{"last_by_subj":"a","multi_last":["a"]}"#, BAD_REQUEST),
            (r#"{"next_by_subj":"a","multi_last":["a"]}"#, BAD_REQUEST),
            (r#"{"seq":1,"batch":-1}"#, BAD_REQUEST),
            (
                r#"{"multi_last":["a"],"up_to_seq":1,"up_to_time":"2020-01-01T00:00:00Z"}"#,
                BAD_REQUEST,
            ),
        ] {
            assert_eq!(body(text), Err(status), "{text}");
        }
    }

    fn found(place: Option<Place>) -> Found<'static> {
        let time = Timestamp::parse("2026-01-01T00:00:00Z").expect("a time");
        Found {
            stream: "P",
            subject: b"p.a",
            seq: StreamSeq(1),
            time,
            place,
        }
    }

    #[test]
    fn replies_say_where_the_message_was() {
        assert_eq!(
            header_block(b"", &found(None)),
            b"NATS/1.0\r\nNats-Stream: P\r\nNats-Subject: p.a\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n\r\n"
        );
        let place = Place {
            num_pending: 2,
            last_seq: StreamSeq(0),
        };
        assert_eq!(
            header_block(b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n", &found(Some(place))),
            b"NATS/1.0\r\nNats-Msg-Id: x\r\nNats-Stream: P\r\nNats-Subject: p.a\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Num-Pending: 2\r\nNats-Last-Sequence: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_publisher_cannot_forge_where_the_message_was() {
        let stored = b"NATS/1.0\r\nA: 1\r\nNats-Sequence: 77\r\nnats-stream:x\r\nB:\r\n\r\n";
        let block = header_block(stored, &found(None));
        let parsed = HeaderBlock::parse(&block).expect("a header block");
        assert_eq!(parsed.get("Nats-Sequence"), Some(b"1".as_slice()));
        assert_eq!(parsed.get("A"), Some(b"1".as_slice()));
        assert_eq!(parsed.iter().count(), 6);
    }

    #[test]
    fn ends_say_what_is_left() {
        let place = Place {
            num_pending: 1,
            last_seq: StreamSeq(2),
        };
        assert_eq!(
            end_of_batch(place),
            b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 1\r\nNats-Last-Sequence: 2\r\n\r\n"
        );
        assert_eq!(
            end_of_multi(place, StreamSeq(3)),
            b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 1\r\nNats-Last-Sequence: 2\r\nNats-UpTo-Sequence: 3\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            drop(parse(None, &bytes));
            prop_assert!(header_block(&bytes, &found(None)).ends_with(b"\r\n\r\n"));
        }
    }
}
