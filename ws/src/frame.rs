//! Frames of a client, taken apart in place.
//!
//! The decoder gets bytes as they came from the socket and moves the payload of data frames to the
//! front, unmasked; headers and control frames vanish from the buffer. It keeps at most one header
//! (14 bytes) and one control payload (125 bytes) between calls.
//!
//! ```text
//! in:   header payload… header ping header payload… hea
//! out:  payload…payload…                                  (3 bytes of a header kept)
//! ```

use std::io::Cursor;

use thiserror::Error;
use tokio_tungstenite::tungstenite::{
    error::{Error as WsError, ProtocolError},
    protocol::frame::{
        FrameHeader,
        coding::{CloseCode, Control as ControlCode, Data, OpCode},
    },
};

/// Most bytes of a control frame's payload.
pub(crate) const MAX_CONTROL_BYTES: usize = 125;
const MAX_HEADER_BYTES: usize = 14;

/// Bounds on what a client may send in one message. The message is never held, so these bound
/// nothing but how it may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one message. Default 8 MiB, eight times the usual `max_payload`.
    pub max_message_bytes: u64,
    /// Frames one message may have besides one for every 64 bytes it carried. Default 1,024;
    /// a message of empty frames costs work and carries nothing.
    pub spare_frames: u64,
}

/// Bytes for which a message may have one frame more.
const BYTES_PER_FRAME: u64 = 64;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 8 * 1_048_576,
            spare_frames: 1_024,
        }
    }
}

/// What a client did that ends the connection, and the code it is closed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("websocket: {reason}")]
pub struct Violation {
    /// Close code to send.
    pub code: CloseCode,
    /// In words.
    pub reason: &'static str,
}

impl Violation {
    pub(crate) fn protocol(reason: &'static str) -> Self {
        Self {
            code: CloseCode::Protocol,
            reason,
        }
    }
}

/// A control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// Wants its payload back in a pong.
    Ping(&'a [u8]),
    /// Answers a ping.
    Pong,
    /// The client is done; nothing follows. `None`: it gave no code.
    Close(Option<CloseCode>),
}

/// What was agreed on besides the protocol itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Messages may be compressed. Default false.
    pub compression: bool,
    /// Frames need not be masked. Default false.
    pub unmasked: bool,
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Bytes used, those of headers and controls included.
    pub(crate) taken: usize,
    /// Bytes of payload, unmasked, at the front of what was used.
    pub(crate) payload: usize,
    /// The message is compressed.
    pub(crate) is_compressed: bool,
    /// The message is complete.
    pub(crate) is_last: bool,
}

/// Takes frames apart.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    rules: Rules,
    state: State,
    /// The message that goes on with the next data frame.
    message: Option<Message>,
    /// The data frame at hand belongs to a compressed message.
    is_compressed: bool,
    /// The data frame at hand is the last of its message.
    is_last: bool,
    /// A header that is not complete, or that of the control frame being collected.
    header: [u8; MAX_HEADER_BYTES],
    header_len: usize,
    control: [u8; MAX_CONTROL_BYTES],
    control_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    Data {
        left: u64,
        mask: Mask,
    },
    Control {
        code: ControlCode,
        left: usize,
        mask: Mask,
    },
    /// A close frame or a violation was seen; whatever follows is dropped.
    Ended,
}

/// The header of a data frame.
#[derive(Clone, Copy, Debug)]
struct DataFrame {
    code: Data,
    is_final: bool,
    is_compressed: bool,
    length: u64,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    bytes: u64,
    frames: u64,
    is_compressed: bool,
}

/// A masking key, turned so that it begins with the byte for the next payload byte.
#[derive(Clone, Copy, Debug)]
struct Mask([u8; 4]);

impl Mask {
    fn apply(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.0;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c, d]) {
            *byte ^= key;
        }
        self.0.rotate_left(rest.len() % 4);
    }
}

impl Decoder {
    /// A decoder at the start of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rules: Rules::default(),
            state: State::Header,
            message: None,
            is_compressed: false,
            is_last: false,
            header: [0; MAX_HEADER_BYTES],
            header_len: 0,
            control: [0; MAX_CONTROL_BYTES],
            control_len: 0,
        }
    }

    /// Changes the bounds, from the next frame on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Decodes by these rules, from the next frame on.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Ends decoding: whatever follows is dropped.
    pub(crate) fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Takes the next part of a message; less than that when the bytes end before. Control frames
    /// go to `on_control`.
    pub(crate) fn next_part(
        &mut self,
        bytes: &mut [u8],
        on_control: &mut impl FnMut(Control<'_>) -> Result<(), Violation>,
    ) -> Result<Part, Violation> {
        let mut part = Part {
            taken: 0,
            payload: 0,
            is_compressed: false,
            is_last: false,
        };
        while part.taken < bytes.len() {
            let rest = &mut bytes[part.taken..];
            let step = match self.state {
                State::Header => self.take_header(rest, on_control),
                State::Data { left, mut mask } => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    mask.apply(&mut rest[..len]);
                    self.state = match left - len as u64 {
                        0 => State::Header,
                        left => State::Data { left, mask },
                    };
                    let is_done = matches!(self.state, State::Header);
                    bytes.copy_within(part.taken..part.taken + len, 0);
                    return Ok(Part {
                        taken: part.taken + len,
                        payload: len,
                        is_compressed: self.is_compressed,
                        is_last: is_done && std::mem::take(&mut self.is_last),
                    });
                }
                State::Control { code, left, mask } => {
                    self.take_control(rest, (code, left, mask), on_control)
                }
                State::Ended => {
                    part.taken = bytes.len();
                    return Ok(part);
                }
            };
            match step {
                Ok(taken) => part.taken += taken,
                Err(violation) => {
                    self.state = State::Ended;
                    return Err(violation);
                }
            }
            // A frame without payload may be the last of its message.
            let is_between = matches!(self.state, State::Header) && self.header_len == 0;
            if is_between && std::mem::take(&mut self.is_last) {
                return Ok(Part {
                    is_compressed: self.is_compressed,
                    is_last: true,
                    ..part
                });
            }
        }
        Ok(part)
    }

    /// Takes all of `bytes`; gives how many bytes of payload now lie at their front. Control
    /// frames go to `on_control` in order; if it refuses one, that ends the connection.
    ///
    /// The violation, if there is one, counts after the payload in front of it.
    pub fn decode(
        &mut self,
        bytes: &mut [u8],
        mut on_control: impl FnMut(Control<'_>) -> Result<(), Violation>,
    ) -> (usize, Result<(), Violation>) {
        let mut done = 0;
        let mut at = 0;
        while at < bytes.len() {
            let step = match self.state {
                State::Header => self.take_header(&bytes[at..], &mut on_control),
                State::Data { left, mut mask } => {
                    let len = usize::try_from(left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len() - at);
                    bytes.copy_within(at..at + len, done);
                    mask.apply(&mut bytes[done..done + len]);
                    done += len;
                    self.state = match left - len as u64 {
                        0 => State::Header,
                        left => State::Data { left, mask },
                    };
                    Ok(len)
                }
                State::Control { code, left, mask } => {
                    self.take_control(&bytes[at..], (code, left, mask), &mut on_control)
                }
                State::Ended => break,
            };
            match step {
                Ok(taken) => at += taken,
                Err(violation) => {
                    self.state = State::Ended;
                    return (done, Err(violation));
                }
            }
        }
        (done, Ok(()))
    }

    fn take_header(
        &mut self,
        bytes: &[u8],
        on_control: &mut impl FnMut(Control<'_>) -> Result<(), Violation>,
    ) -> Result<usize, Violation> {
        let mut taken = 0;
        // The first two bytes say how long the header is.
        while self.header_len < self.header_bytes() {
            let want = self.header_bytes() - self.header_len;
            let len = want.min(bytes.len() - taken);
            if len == 0 {
                return Ok(taken);
            }
            self.header[self.header_len..self.header_len + len]
                .copy_from_slice(&bytes[taken..taken + len]);
            self.header_len += len;
            taken += len;
        }
        let len = std::mem::take(&mut self.header_len);
        self.state = self.begin_frame(len)?;
        if let State::Control {
            code,
            left: 0,
            mask,
        } = self.state
        {
            self.take_control(&[], (code, 0, mask), on_control)?;
        }
        Ok(taken)
    }

    /// Length of the header as far as its first bytes say.
    fn header_bytes(&self) -> usize {
        if self.header_len < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_frame(&mut self, header_len: usize) -> Result<State, Violation> {
        let parsed = FrameHeader::parse(&mut Cursor::new(&self.header[..header_len]));
        let (header, length) = match parsed {
            Ok(Some(parsed)) => parsed,
            Err(WsError::Protocol(ProtocolError::InvalidOpcode(_))) => {
                return Err(Violation::protocol("reserved opcode"));
            }
            Ok(None) | Err(_) => return Err(Violation::protocol("bad frame header")),
        };
        let may_compress = self.rules.compression
            && matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        if (header.rsv1 && !may_compress) || header.rsv2 || header.rsv3 {
            return Err(Violation::protocol("reserved bits without an extension"));
        }
        let mask = match header.mask {
            Some(mask) => mask,
            None if self.rules.unmasked => [0; 4],
            None => return Err(Violation::protocol("frame is not masked")),
        };
        if length > i64::MAX as u64 || header.len(length) != header_len {
            return Err(Violation::protocol("bad frame length"));
        }
        match header.opcode {
            OpCode::Control(code) => self.begin_control(code, header.is_final, length, Mask(mask)),
            OpCode::Data(code) => {
                let frame = DataFrame {
                    code,
                    is_final: header.is_final,
                    is_compressed: header.rsv1,
                    length,
                };
                self.begin_data(frame, Mask(mask))
            }
        }
    }

    fn begin_control(
        &mut self,
        code: ControlCode,
        is_final: bool,
        length: u64,
        mask: Mask,
    ) -> Result<State, Violation> {
        if !is_final {
            return Err(Violation::protocol("fragmented control frame"));
        }
        let left = usize::try_from(length)
            .ok()
            .filter(|&length| length <= MAX_CONTROL_BYTES);
        let left = left.ok_or_else(|| Violation::protocol("control frame is too large"))?;
        self.control_len = 0;
        Ok(State::Control { code, left, mask })
    }

    fn begin_data(&mut self, frame: DataFrame, mask: Mask) -> Result<State, Violation> {
        let length = frame.length;
        let mut message = match (frame.code, self.message) {
            (Data::Continue, Some(message)) => message,
            (Data::Continue, None) => {
                return Err(Violation::protocol("continuation of no message"));
            }
            (_, Some(_)) => return Err(Violation::protocol("message inside a message")),
            (_, None) => Message {
                bytes: 0,
                frames: 0,
                is_compressed: frame.is_compressed,
            },
        };
        message.bytes = message.bytes.saturating_add(length);
        message.frames += 1;
        if message.bytes > self.limits.max_message_bytes {
            return Err(Violation {
                code: CloseCode::Size,
                reason: "message is too large",
            });
        }
        if message.frames > self.limits.spare_frames + message.bytes / BYTES_PER_FRAME {
            return Err(Violation {
                code: CloseCode::Policy,
                reason: "too many fragments",
            });
        }
        self.message = (!frame.is_final).then_some(message);
        self.is_compressed = message.is_compressed;
        self.is_last = frame.is_final;
        Ok(if length == 0 {
            State::Header
        } else {
            State::Data { left: length, mask }
        })
    }

    fn take_control(
        &mut self,
        bytes: &[u8],
        (code, left, mut mask): (ControlCode, usize, Mask),
        on_control: &mut impl FnMut(Control<'_>) -> Result<(), Violation>,
    ) -> Result<usize, Violation> {
        let len = left.min(bytes.len());
        let part = &mut self.control[self.control_len..self.control_len + len];
        part.copy_from_slice(&bytes[..len]);
        mask.apply(part);
        self.control_len += len;
        if len < left {
            self.state = State::Control {
                code,
                left: left - len,
                mask,
            };
            return Ok(len);
        }
        self.state = State::Header;
        let payload = &self.control[..self.control_len];
        match code {
            ControlCode::Ping => on_control(Control::Ping(payload))?,
            ControlCode::Pong => on_control(Control::Pong)?,
            ControlCode::Close => {
                let code = close_code(payload)?;
                self.state = State::Ended;
                on_control(Control::Close(code))?;
            }
            ControlCode::Reserved(_) => return Err(Violation::protocol("reserved opcode")),
        }
        Ok(len)
    }
}

fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::protocol("close frame of one byte")),
        [high, low, reason @ ..] => (CloseCode::from(u16::from_be_bytes([*high, *low])), reason),
    };
    if !code.is_allowed() {
        return Err(Violation::protocol("bad close code"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation {
            code: CloseCode::Invalid,
            reason: "close reason is not UTF-8",
        });
    }
    Ok(Some(code))
}

/// Appends a whole message that is compressed already, in frames of at most `max_bytes`.
pub(crate) fn put_compressed(out: &mut Vec<u8>, payload: &[u8], max_bytes: usize) {
    let mut rest = payload;
    let mut is_first = true;
    loop {
        let (now, later) = rest.split_at(rest.len().min(max_bytes));
        let header = FrameHeader {
            is_final: later.is_empty(),
            rsv1: is_first,
            opcode: OpCode::Data(if is_first {
                Data::Binary
            } else {
                Data::Continue
            }),
            ..FrameHeader::default()
        };
        header
            .format(now.len() as u64, out)
            .expect("a vector takes every byte");
        out.extend_from_slice(now);
        if later.is_empty() {
            return;
        }
        is_first = false;
        rest = later;
    }
}

/// Appends the header of an unmasked frame that is a whole message.
pub(crate) fn put_header(out: &mut Vec<u8>, opcode: OpCode, payload_len: usize) {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    header
        .format(payload_len as u64, out)
        .expect("a vector takes every byte");
}

/// Appends a whole control frame. `payload` is cut at 125 bytes.
pub(crate) fn put_control(out: &mut Vec<u8>, code: ControlCode, payload: &[u8]) {
    let payload = &payload[..payload.len().min(MAX_CONTROL_BYTES)];
    put_header(out, OpCode::Control(code), payload.len());
    out.extend_from_slice(payload);
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A masked frame; `first` is its first byte.
    pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            is_final: first & 0x80 != 0,
            rsv1: first & 0x40 != 0,
            rsv2: first & 0x20 != 0,
            rsv3: first & 0x10 != 0,
            opcode: OpCode::from(first & 0x0f),
            mask: Some(KEY),
        };
        let mut out = Vec::new();
        header
            .format(payload.len() as u64, &mut out)
            .expect("a vector takes every byte");
        out.extend(
            payload
                .iter()
                .zip(KEY.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        out
    }

    pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
        frame(0x88, &[&code.to_be_bytes(), reason].concat())
    }

    type Decoded = (Vec<u8>, Vec<String>, Option<Violation>);

    /// Decodes bytes that arrive in pieces which end at `cuts`.
    fn run(bytes: &[u8], cuts: &[usize], limits: Limits) -> Decoded {
        let mut decoder = Decoder::new(limits);
        let (mut payload, mut controls, mut end) = (Vec::new(), Vec::new(), None);
        let mut start = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let mut piece = bytes[start..cut].to_vec();
            let (len, result) = decoder.decode(&mut piece, |control| {
                controls.push(format!("{control:?}"));
                Ok(())
            });
            payload.extend_from_slice(&piece[..len]);
            end = end.or_else(|| result.err());
            start = cut;
        }
        (payload, controls, end)
    }

    fn violation(bytes: &[u8]) -> CloseCode {
        let whole = run(bytes, &[], Limits::default());
        let single: Vec<usize> = (1..bytes.len()).collect();
        assert_eq!(run(bytes, &single, Limits::default()), whole);
        whole.2.expect("a violation").code
    }

    #[test]
    fn text_and_binary_and_their_fragments_are_payload() {
        let bytes = [
            frame(0x82, b"PING\r\nPUB a"),
            frame(0x81, b" 2\r\n"),
            frame(0x02, b"h"),
            frame(0x89, b"now"),
            frame(0x00, b""),
            frame(0x80, b"i\r\n"),
            frame(0x8a, b""),
            close(1000, b"bye"),
            frame(0x82, b"dropped"),
        ]
        .concat();
        let (payload, controls, end) = run(&bytes, &[], Limits::default());
        assert_eq!(payload, b"PING\r\nPUB a 2\r\nhi\r\n");
        assert_eq!(
            controls,
            ["Ping([110, 111, 119])", "Pong", "Close(Some(Normal))"]
        );
        assert_eq!(end, None);
    }

    #[test]
    fn a_client_masks_its_frames() {
        assert_eq!(violation(&[0x82, 0x02, b'h', b'i']), CloseCode::Protocol);
        assert_eq!(violation(&[0x89, 0x00]), CloseCode::Protocol);
    }

    #[test]
    fn reserved_bits_and_opcodes_are_refused() {
        for first in [0xc2, 0xa2, 0x92, 0xc9, 0xc0, 0x40, 0x83, 0x87, 0x8b, 0x8f] {
            assert_eq!(
                violation(&frame(first, b"x")),
                CloseCode::Protocol,
                "{first:#x}"
            );
        }
    }

    #[test]
    fn huge_lengths_are_refused_without_waiting_for_them() {
        let with_length = |length: u64| {
            let mut bytes = vec![0x82, 0xff];
            bytes.extend(length.to_be_bytes());
            bytes.extend(KEY);
            violation(&bytes)
        };
        assert_eq!(with_length(u64::MAX), CloseCode::Protocol);
        assert_eq!(with_length((1 << 63) + 1), CloseCode::Protocol);
        assert_eq!(with_length(1 << 63), CloseCode::Protocol);
        assert_eq!(with_length((1 << 63) - 1), CloseCode::Size);
        assert_eq!(with_length(8 * 1_048_576 + 1), CloseCode::Size);
    }

    #[test]
    fn lengths_are_written_the_shortest_way() {
        let mut two = vec![0x82, 0x80 | 126, 0, 125];
        two.extend(KEY);
        assert_eq!(violation(&two), CloseCode::Protocol);
        let mut eight = vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        eight.extend(KEY);
        assert_eq!(violation(&eight), CloseCode::Protocol);
    }

    #[test]
    fn control_frames_are_short_and_whole() {
        assert_eq!(violation(&frame(0x89, &[0; 126])), CloseCode::Protocol);
        assert_eq!(violation(&frame(0x88, &[0; 200])), CloseCode::Protocol);
        assert_eq!(violation(&frame(0x09, b"")), CloseCode::Protocol);
        assert_eq!(violation(&frame(0x08, b"")), CloseCode::Protocol);
        let (_, controls, end) = run(&frame(0x89, &[7; 125]), &[], Limits::default());
        assert_eq!((controls.len(), end), (1, None));
    }

    #[test]
    fn close_frames_are_checked() {
        assert_eq!(violation(&frame(0x88, b"x")), CloseCode::Protocol);
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert_eq!(violation(&close(code, b"")), CloseCode::Protocol, "{code}");
        }
        assert_eq!(violation(&close(1000, b"\xff")), CloseCode::Invalid);
        for code in [1000, 1001, 1003, 1007, 1011, 3000, 4999] {
            assert_eq!(
                run(&close(code, b"ok"), &[], Limits::default()).2,
                None,
                "{code}"
            );
        }
        assert_eq!(
            run(&frame(0x88, b""), &[], Limits::default()).1,
            ["Close(None)"]
        );
    }

    #[test]
    fn fragments_belong_to_one_message() {
        assert_eq!(violation(&frame(0x80, b"x")), CloseCode::Protocol);
        assert_eq!(violation(&frame(0x00, b"x")), CloseCode::Protocol);
        let nested = [frame(0x02, b"x"), frame(0x82, b"y")].concat();
        assert_eq!(violation(&nested), CloseCode::Protocol);
    }

    #[test]
    fn a_message_is_bounded_over_its_fragments() {
        let limits = Limits {
            max_message_bytes: 5,
            ..Limits::default()
        };
        let end = |frames: &[Vec<u8>]| run(&frames.concat(), &[], limits).2.map(|end| end.code);
        assert_eq!(
            end(&[
                frame(0x02, b"abc"),
                frame(0x80, b"de"),
                frame(0x82, b"abcde")
            ]),
            None
        );
        assert_eq!(
            end(&[frame(0x02, b"abc"), frame(0x80, b"def")]),
            Some(CloseCode::Size)
        );
        assert_eq!(end(&[frame(0x82, b"abcdef")]), Some(CloseCode::Size));
    }

    #[test]
    fn fragments_without_content_are_counted() {
        for content in [&b""[..], b"x"] {
            let mut bytes = frame(0x02, content);
            for _ in 0..100_000 {
                bytes.extend(frame(0x00, content));
            }
            let (payload, _, end) = run(&bytes, &[], Limits::default());
            assert_eq!(end.expect("a violation").code, CloseCode::Policy);
            assert!(payload.len() < 1_100);
        }
    }

    #[test]
    fn a_control_may_be_refused() {
        let refusal = Violation {
            code: CloseCode::Policy,
            reason: "no",
        };
        let mut bytes = [frame(0x82, b"a"), frame(0x89, b""), frame(0x82, b"b")].concat();
        let mut decoder = Decoder::new(Limits::default());
        let (len, end) = decoder.decode(&mut bytes, |_| Err(refusal));
        assert_eq!((len, bytes[0], end), (1, b'a', Err(refusal)));
        assert_eq!(
            decoder.decode(&mut frame(0x82, b"c"), |_| Ok(())),
            (0, Ok(()))
        );
    }

    proptest! {
        #[test]
        fn cutting_frames_anywhere_changes_nothing(
            frames in proptest::collection::vec(
                (
                    prop::sample::select(vec![0x82u8, 0x81, 0x02, 0x00, 0x80, 0x89, 0x8a]),
                    prop_oneof![
                        8 => proptest::collection::vec(any::<u8>(), 0..40),
                        1 => proptest::collection::vec(any::<u8>(), 120..130),
                        1 => proptest::collection::vec(any::<u8>(), 65_530..65_540),
                    ],
                ),
                0..8,
            ),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
            let mut cuts: Vec<usize> =
                cuts.iter().map(|cut| cut.index(bytes.len().max(1))).collect();
            cuts.sort_unstable();
            let whole = run(&bytes, &[], Limits::default());
            prop_assert!(run(&bytes, &cuts, Limits::default()) == whole);

            // Until something is refused, the payload is that of the data frames.
            if whole.2.is_none() {
                let data: Vec<u8> = frames
                    .iter()
                    .filter(|(first, _)| first & 0x08 == 0)
                    .flat_map(|(_, payload)| payload.clone())
                    .collect();
                prop_assert_eq!(whole.0, data);
            }
        }

        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(bytes.len().max(1));
            let whole = run(&bytes, &[], Limits::default());
            prop_assert!(run(&bytes, &[cut], Limits::default()) == whole);
        }
    }
}
