//! Numbers in as many bytes as they need, seven bits in each, lowest first.

/// Appends an unsigned number, 1 to 10 bytes.
pub(super) fn put(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// Appends a signed number; small ones of either sign are short.
pub(super) fn put_signed(buffer: &mut Vec<u8>, value: i64) {
    put(buffer, ((value << 1) ^ (value >> 63)) as u64);
}

/// Takes numbers from the front of a slice; `None` when it ends early or is malformed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn number32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_cut_short_is_none() {
        let mut buffer = Vec::new();
        put(&mut buffer, u64::MAX);
        assert_eq!(buffer.len(), 10);
        for cut in 0..buffer.len() {
            assert_eq!(Reader::new(&buffer[..cut]).number(), None);
        }
        assert_eq!(Reader::new(&[0xff; 10]).number(), None);
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64) {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            put_signed(&mut buffer, signed);
            let mut reader = Reader::new(&buffer);
            prop_assert_eq!(reader.number(), Some(value));
            prop_assert_eq!(reader.signed(), Some(signed));
            prop_assert!(reader.is_empty());
        }
    }
}
