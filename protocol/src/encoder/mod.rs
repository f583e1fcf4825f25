//! Operations in, bytes out, into a buffer the caller owns; nothing is allocated per message.
//!
//! Subjects, sids and queue names are written as they are. They must be single arguments, which
//! everything a parser handed out is: an argument with a space or a line break would become
//! another protocol line. Debug builds check it.

use bytes::BufMut;

pub mod client;
pub mod server;

/// `PING` with its line end.
pub const PING: &[u8] = b"PING\r\n";
/// `PONG` with its line end.
pub const PONG: &[u8] = b"PONG\r\n";
/// `+OK` with its line end.
pub const OK: &[u8] = b"+OK\r\n";

#[inline]
fn put_arg(out: &mut impl BufMut, arg: &[u8]) {
    debug_assert!(
        is_arg(arg),
        "{:?} is no single argument",
        arg.escape_ascii().to_string()
    );
    out.put_slice(arg);
    out.put_u8(b' ');
}

fn is_arg(arg: &[u8]) -> bool {
    !arg.is_empty()
        && !arg
            .iter()
            .any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[inline]
fn put_len(out: &mut impl BufMut, len: usize) {
    out.put_slice(itoa::Buffer::new().format(len).as_bytes());
}
