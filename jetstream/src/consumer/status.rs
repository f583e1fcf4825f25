//! Header blocks of status messages, which tell a client something instead of giving it a message.

use std::io::Write as _;

/// Clears `buffer` and writes `NATS/1.0 <line>` with these fields.
pub(super) fn write(buffer: &mut Vec<u8>, line: &str, fields: &[(&str, u64)]) {
    buffer.clear();
    buffer.extend_from_slice(b"NATS/1.0 ");
    buffer.extend_from_slice(line.as_bytes());
    buffer.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        write!(buffer, "{name}: {value}\r\n").expect("a vector takes every write");
    }
    buffer.extend_from_slice(b"\r\n");
}

/// Writes a status with what was left of a pull request.
pub(super) fn write_remaining(buffer: &mut Vec<u8>, line: &str, messages: u64, bytes: u64) {
    let fields = [
        ("Nats-Pending-Messages", messages),
        ("Nats-Pending-Bytes", bytes),
    ];
    write(buffer, line, &fields);
}

/// Writes an idle heartbeat: the last sequences sent, and the flow control request that went
/// unanswered, if there is one.
pub(super) fn write_heartbeat(
    buffer: &mut Vec<u8>,
    last_consumer: u64,
    last_stream: u64,
    stalled: Option<&[u8]>,
) {
    let fields = [
        ("Nats-Last-Consumer", last_consumer),
        ("Nats-Last-Stream", last_stream),
    ];
    write(buffer, "100 Idle Heartbeat", &fields);
    if let Some(request) = stalled {
        buffer.truncate(buffer.len() - 2);
        buffer.extend_from_slice(b"Nats-Consumer-Stalled: ");
        buffer.extend_from_slice(request);
        buffer.extend_from_slice(b"\r\n\r\n");
    }
}

/// Clears `buffer` and writes a header block with one more field.
pub(super) fn write_with(buffer: &mut Vec<u8>, header: &[u8], name: &str, value: &str) {
    buffer.clear();
    match header.strip_suffix(b"\r\n") {
        Some(fields) if !fields.is_empty() => buffer.extend_from_slice(fields),
        _ => buffer.extend_from_slice(b"NATS/1.0\r\n"),
    }
    write!(buffer, "{name}: {value}\r\n\r\n").expect("a vector takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_header_block() {
        let mut buffer = b"old".to_vec();
        write_remaining(&mut buffer, "408 Request Timeout", 3, 0);
        assert_eq!(
            buffer,
            b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 0\r\n\r\n"
        );
        write(&mut buffer, "404 No Messages", &[]);
        assert_eq!(buffer, b"NATS/1.0 404 No Messages\r\n\r\n");
    }

    #[test]
    fn a_stalled_heartbeat_names_the_request() {
        let mut buffer = Vec::new();
        write_heartbeat(&mut buffer, 1, 2, Some(b"$JS.FC.S.C.abcd"));
        assert_eq!(
            buffer,
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 2\r\nNats-Consumer-Stalled: $JS.FC.S.C.abcd\r\n\r\n"
        );
    }

    #[test]
    fn a_field_is_added_to_the_headers_there_are() {
        let mut buffer = Vec::new();
        write_with(&mut buffer, b"", "Nats-Msg-Size", "5");
        assert_eq!(buffer, b"NATS/1.0\r\nNats-Msg-Size: 5\r\n\r\n");
        write_with(
            &mut buffer,
            b"NATS/1.0\r\nA: b\r\n\r\n",
            "Nats-Msg-Size",
            "0",
        );
        assert_eq!(buffer, b"NATS/1.0\r\nA: b\r\nNats-Msg-Size: 0\r\n\r\n");
    }
}
