//! Acknowledgements of published messages.
//!
//! They are written for every message, so they are put together from bytes. Clients look for
//! `error` first; some compare the text, hence the odd space before `true`.

use super::error::ApiError;
use super::json;
use crate::ids::StreamSeq;

/// Appends the ack of a message that the stream holds under `seq`.
///
/// ```
/// use menes_jetstream::StreamSeq;
/// use menes_jetstream::api::pub_ack::write_pub_ack;
///
/// let mut ack = Vec::new();
/// write_pub_ack(&mut ack, "ORDERS", StreamSeq(7), false);
/// assert_eq!(ack, br#"{"stream":"ORDERS","seq":7}"#);
/// ```
pub fn write_pub_ack(out: &mut Vec<u8>, stream: &str, seq: StreamSeq, duplicate: bool) {
    write_pub_ack_in_domain(out, stream, None, seq, duplicate);
}

/// Like [`write_pub_ack`], on a server with a JetStream domain.
pub fn write_pub_ack_in_domain(
    out: &mut Vec<u8>,
    stream: &str,
    domain: Option<&str>,
    seq: StreamSeq,
    duplicate: bool,
) {
    out.reserve(64 + stream.len());
    out.extend_from_slice(br#"{"stream":"#);
    json::write_text(out, stream);
    if let Some(domain) = domain {
        out.extend_from_slice(br#","domain":"#);
        json::write_text(out, domain);
    }
    out.extend_from_slice(br#","seq":"#);
    out.extend_from_slice(itoa::Buffer::new().format(seq.0).as_bytes());
    out.extend_from_slice(if duplicate {
        br#","duplicate": true}"#
    } else {
        b"}"
    });
}

/// Adds to an ack that it is for a batch of `count` messages.
pub fn add_batch(ack: &mut Vec<u8>, id: &str, count: u64) {
    let out = ack;
    // Before the closing brace.
    out.pop();
    out.extend_from_slice(br#","batch":"#);
    json::write_text(out, id);
    out.extend_from_slice(br#","count":"#);
    out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
    out.push(b'}');
}

/// Adds to an ack what a counter's sum is now.
pub fn add_sum(ack: &mut Vec<u8>, sum: &str) {
    ack.pop();
    ack.extend_from_slice(br#","val":"#);
    json::write_text(ack, sum);
    ack.push(b'}');
}

/// Appends the refusal of a message by a stream.
pub fn write_pub_error(out: &mut Vec<u8>, stream: &str, error: &ApiError) {
    out.extend_from_slice(br#"{"error":"#);
    json::write(out, error);
    out.extend_from_slice(br#","stream":"#);
    json::write_text(out, stream);
    out.extend_from_slice(br#","seq":0}"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(stream: &str, domain: Option<&str>, seq: u64, duplicate: bool) -> String {
        let mut out = Vec::new();
        write_pub_ack_in_domain(&mut out, stream, domain, StreamSeq(seq), duplicate);
        String::from_utf8(out).expect("JSON is text")
    }

    #[test]
    fn acks_are_the_texts_clients_know() {
        assert_eq!(ack("P", None, 1, false), r#"{"stream":"P","seq":1}"#);
        assert_eq!(
            ack("P", None, 2, true),
            r#"{"stream":"P","seq":2,"duplicate": true}"#
        );
        assert_eq!(
            ack("P", Some("hub"), 3, false),
            r#"{"stream":"P","domain":"hub","seq":3}"#
        );
        assert_eq!(
            ack("P", Some("hub"), u64::MAX, true),
            r#"{"stream":"P","domain":"hub","seq":18446744073709551615,"duplicate": true}"#
        );
        assert_eq!(
            ack("a\"<b", None, 1, false),
            r#"{"stream":"a\"\u003cb","seq":1}"#
        );
    }

    #[test]
    fn refusals_begin_with_the_error() {
        let mut out = Vec::new();
        write_pub_error(&mut out, "P", &ApiError::wrong_last_sequence(2));
        write_pub_error(
            &mut out,
            "P",
            &ApiError::rollup(r#"rollup value invalid: "x""#),
        );
        assert_eq!(
            String::from_utf8(out).expect("JSON is text"),
            concat!(
                r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 2"},"stream":"P","seq":0}"#,
                r#"{"error":{"code":500,"err_code":10111,"description":"rollup value invalid: \"x\""},"stream":"P","seq":0}"#,
            )
        );
    }
}
