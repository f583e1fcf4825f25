//! Message headers: reading a block without copying it, and making one.
//!
//! ```text
//! NATS/1.0[ <code>[ <description>]] CRLF
//! Name: value CRLF
//! ...
//! CRLF
//! ```
//!
//! A block travels through the server as the bytes the client sent; it is parsed where somebody
//! has to understand it (stored messages, services), and then strictly. Names keep their case and
//! are compared exactly. A name may occur several times; the first one counts.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr;
use thiserror::Error;

/// First bytes of every block.
pub const VERSION: &[u8] = b"NATS/1.0";

/// Longest block that is parsed, in bytes: the JetStream limit for a stored header block.
pub const MAX_BLOCK_BYTES: usize = 65_535;

/// Most fields a block may have.
pub const MAX_FIELDS: usize = 4_096;

/// Why bytes are not a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The first line does not begin with `NATS/1.0`.
    #[error("header block does not start with NATS/1.0")]
    Version,
    /// The status in the first line is not a three-digit code.
    #[error("header status is not a three-digit code")]
    Status,
    /// The block does not end with an empty line, or goes on behind it.
    #[error("header block does not end with one empty line")]
    End,
    /// A line is not `name: value`, or its name is empty or has a space or control byte.
    #[error("header field has no valid name")]
    Name,
    /// A value has a NUL, CR or LF.
    #[error("header value has a NUL, CR or LF")]
    Value,
    /// Longer than [`MAX_BLOCK_BYTES`].
    #[error("header block of {0} bytes is too large")]
    TooLarge(usize),
    /// More than [`MAX_FIELDS`] fields.
    #[error("header block has more than {MAX_FIELDS} fields")]
    TooManyFields,
}

/// A header block that was checked; it borrows the bytes it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderBlock<'a> {
    bytes: &'a [u8],
    /// Where the first field begins.
    fields: usize,
}

impl<'a> HeaderBlock<'a> {
    /// Checks a whole block, final empty line included.
    ///
    /// # Errors
    ///
    /// Anything that is not exactly one block; see [`HeaderError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HeaderError> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(HeaderError::TooLarge(bytes.len()));
        }
        if !bytes.starts_with(VERSION) {
            return Err(HeaderError::Version);
        }
        let (line, fields) = split_line(bytes).ok_or(HeaderError::End)?;
        check_status(line)?;

        let mut at = fields;
        let mut count = 0;
        loop {
            let (line, len) = split_line(&bytes[at..]).ok_or(HeaderError::End)?;
            at += len;
            if line.is_empty() {
                break;
            }
            count += 1;
            if count > MAX_FIELDS {
                return Err(HeaderError::TooManyFields);
            }
            check_field(line)?;
        }
        if at != bytes.len() {
            return Err(HeaderError::End);
        }
        Ok(Self { bytes, fields })
    }

    /// The bytes of the block.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Value of the first field called `name` (case-sensitive), leading spaces trimmed.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    /// Values of all fields called `name` (case-sensitive), in order.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter()
            .filter(move |(field, _)| *field == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// All fields as (name, value), in order.
    #[must_use]
    pub fn iter(&self) -> Fields<'a> {
        Fields {
            rest: &self.bytes[self.fields..],
        }
    }

    /// Code and description of the first line, when it has them. The description may be empty.
    #[must_use]
    pub fn status(&self) -> Option<(u16, &'a [u8])> {
        let line = &self.bytes[VERSION.len()..self.fields - 2];
        parse_status(line).ok().flatten()
    }
}

impl<'a> IntoIterator for &HeaderBlock<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Fields<'a>;

    fn into_iter(self) -> Fields<'a> {
        self.iter()
    }
}

/// Iterator over the fields of a block.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (line, len) = split_line(self.rest)?;
        let colon = memchr(b':', line)?;
        self.rest = &self.rest[len..];
        Some((&line[..colon], trim_start(&line[colon + 1..])))
    }
}

/// The line before the next CRLF, and how many bytes it takes with the CRLF. A bare LF is no end.
fn split_line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let mut from = 0;
    loop {
        let cr = from + memchr(b'\r', &bytes[from..])?;
        if bytes.get(cr + 1) == Some(&b'\n') {
            return Some((&bytes[..cr], cr + 2));
        }
        from = cr + 1;
    }
}

fn trim_start(value: &[u8]) -> &[u8] {
    let spaces = value.iter().take_while(|&&byte| byte == b' ').count();
    &value[spaces..]
}

fn check_status(line: &[u8]) -> Result<(), HeaderError> {
    let status = &line[VERSION.len()..];
    if !is_value(status) {
        return Err(HeaderError::Value);
    }
    if !matches!(status, [] | [b' ', ..]) {
        return Err(HeaderError::Version);
    }
    parse_status(status).map(drop)
}

fn parse_status(status: &[u8]) -> Result<Option<(u16, &[u8])>, HeaderError> {
    match trim_start(status) {
        [] => Ok(None),
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', tail @ ..]
            if matches!(tail, [] | [b' ', ..]) =>
        {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Ok(Some((
                digit(a) * 100 + digit(b) * 10 + digit(c),
                trim_start(tail),
            )))
        }
        _ => Err(HeaderError::Status),
    }
}

fn check_field(line: &[u8]) -> Result<(), HeaderError> {
    let colon = memchr(b':', line).ok_or(HeaderError::Name)?;
    if !may_be_name(&line[..colon]) {
        return Err(HeaderError::Name);
    }
    if !is_value(&line[colon + 1..]) {
        return Err(HeaderError::Value);
    }
    Ok(())
}

/// Whether clients may send this as a name: some put spaces into names. What begins with one goes on
/// with the line before.
fn may_be_name(name: &[u8]) -> bool {
    is_value(name) && !matches!(name.first(), None | Some(b' ' | b'\t'))
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|&byte| byte > b' ' && byte != b':' && byte != 0x7f)
}

fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|&byte| matches!(byte, 0 | b'\r' | b'\n'))
}

/// Makes a header block.
///
/// ```
/// # use menes_protocol::headers::HeaderBuilder;
/// let block = HeaderBuilder::new().push("Nats-Msg-Id", "7").finish();
/// assert_eq!(&block[..], b"NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n");
/// ```
#[derive(Clone, Debug)]
pub struct HeaderBuilder {
    buffer: BytesMut,
    fields: usize,
}

impl Default for HeaderBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl HeaderBuilder {
    /// A block without status and fields.
    #[must_use]
    pub fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(128);
        buffer.put_slice(VERSION);
        buffer.put_slice(b"\r\n");
        let fields = buffer.len();
        Self { buffer, fields }
    }

    /// A block with a status line. `code` is written with three digits; `description` may be
    /// empty.
    #[must_use]
    pub fn status(code: u16, description: &str) -> Self {
        debug_assert!(
            (100..=999).contains(&code),
            "a status code has three digits"
        );
        let mut buffer = BytesMut::with_capacity(128);
        buffer.put_slice(VERSION);
        buffer.put_u8(b' ');
        buffer.put_slice(itoa::Buffer::new().format(code.clamp(100, 999)).as_bytes());
        if !description.is_empty() {
            buffer.put_u8(b' ');
            put_value(&mut buffer, description.as_bytes());
        }
        buffer.put_slice(b"\r\n");
        let fields = buffer.len();
        Self { buffer, fields }
    }

    /// A block that starts as a copy of `block`, status included.
    #[must_use]
    pub fn from_block(block: &HeaderBlock<'_>) -> Self {
        let bytes = block.as_bytes();
        let mut buffer = BytesMut::with_capacity(bytes.len() + 64);
        buffer.put_slice(&bytes[..bytes.len() - 2]);
        Self {
            buffer,
            fields: block.fields,
        }
    }

    /// Adds a field behind the others. A NUL, CR or LF in the value becomes a space.
    ///
    /// The name must be one the program chose; names that come from outside go through
    /// [`Self::try_push`]. An invalid name is left out in release builds.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        let pushed = self.try_push(name.as_bytes(), value.as_ref());
        debug_assert!(pushed.is_ok(), "invalid header name {name:?}");
        self
    }

    /// Adds a field whose name comes from outside. A NUL, CR or LF in the value becomes a space.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Name`] if the name is empty or has a space, colon or control byte.
    pub fn try_push(&mut self, name: &[u8], value: &[u8]) -> Result<&mut Self, HeaderError> {
        if !is_name(name) {
            return Err(HeaderError::Name);
        }
        self.buffer.reserve(name.len() + value.len() + 4);
        self.buffer.put_slice(name);
        self.buffer.put_slice(b": ");
        put_value(&mut self.buffer, value);
        self.buffer.put_slice(b"\r\n");
        Ok(self)
    }

    /// Gives the first field called `name` (case-sensitive) another value, where it is; adds it
    /// behind the others if there is none. As for [`Self::push`].
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        let old = self.buffer.split_off(self.fields);
        let mut rest = &old[..];
        let mut is_set = false;
        while let Some((line, len)) = split_line(rest) {
            let colon = memchr(b':', line).unwrap_or(line.len());
            if !is_set && line[..colon] == *name.as_bytes() {
                self.push(name, value.as_ref());
                is_set = true;
            } else {
                self.buffer.put_slice(&rest[..len]);
            }
            rest = &rest[len..];
        }
        if !is_set {
            self.push(name, value);
        }
        self
    }

    /// Removes every field called `name` (case-sensitive).
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.retain(|field, _| field != name.as_bytes())
    }

    /// Keeps the fields for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> &mut Self {
        let old = self.buffer.split_off(self.fields);
        let mut rest = &old[..];
        while let Some((line, len)) = split_line(rest) {
            let colon = memchr(b':', line).unwrap_or(line.len());
            if keep(
                &line[..colon],
                trim_start(line.get(colon + 1..).unwrap_or(&[])),
            ) {
                self.buffer.put_slice(&rest[..len]);
            }
            rest = &rest[len..];
        }
        self
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == self.fields
    }

    /// The block. The builder stays behind without status and fields.
    pub fn finish(&mut self) -> Bytes {
        let mut done = std::mem::take(self);
        done.buffer.put_slice(b"\r\n");
        done.buffer.freeze()
    }
}

fn put_value(buffer: &mut BytesMut, value: &[u8]) {
    if is_value(value) {
        buffer.put_slice(value);
    } else {
        buffer.extend(value.iter().map(|&byte| match byte {
            0 | b'\r' | b'\n' => b' ',
            byte => byte,
        }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_of_several_fields_counts() {
        let bytes = b"NATS/1.0\r\nA: 1\r\nB:2\r\nA:   3 \r\na: 4\r\nE:\r\n\r\n";
        let block = HeaderBlock::parse(bytes).expect("valid");
        assert_eq!(block.get("A"), Some(&b"1"[..]));
        assert_eq!(block.get("B"), Some(&b"2"[..]));
        assert_eq!(block.get("a"), Some(&b"4"[..]));
        assert_eq!(block.get("E"), Some(&b""[..]));
        assert_eq!(block.get("b"), None);
        assert_eq!(block.get_all("A").collect::<Vec<_>>(), [&b"1"[..], b"3 "]);
        assert_eq!(block.iter().count(), 5);
        assert_eq!(block.status(), None);
    }

    #[test]
    fn status_lines_are_read() {
        let status = |bytes: &'static [u8]| HeaderBlock::parse(bytes).map(|block| block.status());
        assert_eq!(status(b"NATS/1.0 503\r\n\r\n"), Ok(Some((503, &b""[..]))));
        assert_eq!(
            status(b"NATS/1.0 100 Idle Heartbeat\r\nA: b\r\n\r\n"),
            Ok(Some((100, &b"Idle Heartbeat"[..])))
        );
        assert_eq!(status(b"NATS/1.0 \r\n\r\n"), Ok(None));
        assert_eq!(status(b"NATS/1.0 5o3\r\n\r\n"), Err(HeaderError::Status));
        assert_eq!(status(b"NATS/1.0 5033\r\n\r\n"), Err(HeaderError::Status));
        assert_eq!(status(b"NATS/1.01\r\n\r\n"), Err(HeaderError::Version));
    }

    #[test]
    fn what_is_not_a_block_is_refused() {
        let error = |bytes: &[u8]| HeaderBlock::parse(bytes).expect_err("invalid");
        assert_eq!(error(b""), HeaderError::Version);
        assert_eq!(error(b"A: b\r\n\r\n"), HeaderError::Version);
        assert_eq!(error(b"NATS/1.0"), HeaderError::End);
        assert_eq!(error(b"NATS/1.0\r\n"), HeaderError::End);
        assert_eq!(error(b"NATS/1.0\r\nA: b\r\n"), HeaderError::End);
        assert_eq!(error(b"NATS/1.0\r\n\r\nA: b\r\n\r\n"), HeaderError::End);
        assert_eq!(error(b"NATS/1.0\nA: b\n\n"), HeaderError::End);
        assert_eq!(error(b"NATS/1.0\r\nA: b\nC: d\r\n\r\n"), HeaderError::Value);
        assert_eq!(error(b"NATS/1.0\r\nA: b\rc\r\n\r\n"), HeaderError::Value);
        assert_eq!(error(b"NATS/1.0\r\nA: b\0\r\n\r\n"), HeaderError::Value);
        assert_eq!(error(b"NATS/1.0\r\nno colon\r\n\r\n"), HeaderError::Name);
        assert_eq!(error(b"NATS/1.0\r\n: b\r\n\r\n"), HeaderError::Name);
        assert_eq!(error(b"NATS/1.0\r\n A: folded\r\n\r\n"), HeaderError::Name);
    }

    #[test]
    fn size_and_count_are_bounded() {
        let mut many = b"NATS/1.0\r\n".to_vec();
        for _ in 0..MAX_FIELDS {
            many.extend_from_slice(b"A: b\r\n");
        }
        let mut more = many.clone();
        many.extend_from_slice(b"\r\n");
        more.extend_from_slice(b"A: b\r\n\r\n");
        assert!(HeaderBlock::parse(&many).is_ok());
        assert_eq!(HeaderBlock::parse(&more), Err(HeaderError::TooManyFields));
        let large = vec![b'x'; MAX_BLOCK_BYTES + 1];
        assert_eq!(
            HeaderBlock::parse(&large),
            Err(HeaderError::TooLarge(MAX_BLOCK_BYTES + 1))
        );
    }

    #[test]
    fn builder_writes_the_wire_form() {
        let block = HeaderBuilder::status(408, "Request Timeout")
            .push("A", "1")
            .finish();
        assert_eq!(&block[..], b"NATS/1.0 408 Request Timeout\r\nA: 1\r\n\r\n");
        assert_eq!(
            &HeaderBuilder::status(503, "").finish()[..],
            b"NATS/1.0 503\r\n\r\n"
        );
        assert_eq!(&HeaderBuilder::new().finish()[..], b"NATS/1.0\r\n\r\n");
    }

    #[test]
    fn builder_edits_a_received_block() {
        let block = HeaderBlock::parse(b"NATS/1.0 100 x\r\nA:1\r\nB: 2\r\nA: 3\r\n\r\n");
        let mut builder = HeaderBuilder::from_block(&block.expect("valid"));
        let edited = builder.remove("A").push("C", b"4").finish();
        assert_eq!(&edited[..], b"NATS/1.0 100 x\r\nB: 2\r\nC: 4\r\n\r\n");
    }

    #[test]
    fn builder_lets_no_line_break_in() {
        let mut builder = HeaderBuilder::new();
        assert_eq!(
            builder.try_push(b"A: x\r\nB", b"1").expect_err("name"),
            HeaderError::Name
        );
        assert!(builder.is_empty());
        let block = builder.push("A", "1\r\nB: 2\0").finish();
        assert_eq!(&block[..], b"NATS/1.0\r\nA: 1  B: 2 \r\n\r\n");
    }

    proptest! {
        #[test]
        fn parse_gives_back_what_was_built(
            fields in proptest::collection::vec(("[!-9;-~]{1,12}", "[!-~][ -~\t]{0,20}|"), 0..12),
            status in proptest::option::of((100u16..1000, "[a-zA-Z][a-zA-Z ]{0,10}|")),
        ) {
            let mut builder = match &status {
                Some((code, description)) => HeaderBuilder::status(*code, description),
                None => HeaderBuilder::new(),
            };
            for (name, value) in &fields {
                builder.push(name, value);
            }
            let bytes = builder.finish();
            let block = HeaderBlock::parse(&bytes).expect("built blocks parse");
            let read: Vec<_> = block.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            let put: Vec<_> =
                fields.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone().into_bytes())).collect();
            prop_assert_eq!(read, put);
            let status = status.as_ref().map(|(code, text)| (*code, text.as_bytes()));
            prop_assert_eq!(block.status(), status);
            prop_assert_eq!(HeaderBuilder::from_block(&block).finish(), bytes);
        }

        #[test]
        fn no_bytes_panic(tail in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), any::<u8>()], 0..40,
        )) {
            let mut bytes = b"NATS/1.0".to_vec();
            bytes.extend(tail);
            if let Ok(block) = HeaderBlock::parse(&bytes) {
                let copy = HeaderBuilder::from_block(&block).finish();
                prop_assert_eq!(&copy[..], &bytes[..]);
            }
        }
    }
}
