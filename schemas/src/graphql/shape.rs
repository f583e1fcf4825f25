//! The shape of a document: its tokens, without what numbers and texts say.
//!
//! Whether a document is valid follows from its tokens. Of a number and a text only some things
//! count: what kind it is, whether it fits its type, and whether it is the same as another one in
//! the document (two fields of one name need the same arguments). So a whole number of at most nine
//! digits, a plain float and a plain text are replaced by their kind and by which of the different
//! ones it is; everything else stays as it is written. What is not certainly understood has no
//! shape, and is validated as a whole.

/// Longest document that has a shape, and longest shape, bytes.
pub(super) const MAX_BYTES: usize = 4 * 1024;
/// Most different values of a kind.
const MAX_VALUES: usize = 64;
/// Digits of a whole number that fits into 32 bits whatever they are.
const MAX_DIGITS: usize = 9;
/// Characters of a float that is finite whatever they are.
const MAX_FLOAT: usize = 18;

/// Begins each token; no token has it in it.
const MARK: u8 = 0;

/// The shape of `text`; none where it is not certain.
pub(super) fn of(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let mut shape = Vec::with_capacity(bytes.len());
    let mut values = Values::default();
    let mut at = 0;
    while let Some(&first) = bytes.get(at) {
        let rest = &bytes[at..];
        let length = match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {
                at += 1;
                continue;
            }
            b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|'
            | b'}' => {
                shape.extend([MARK, first]);
                1
            }
            b'.' if rest.starts_with(b"...") => {
                shape.extend([MARK, b'.']);
                3
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let length = length_of(rest, |byte| byte == b'_' || byte.is_ascii_alphanumeric());
                shape.push(MARK);
                shape.extend(&rest[..length]);
                length
            }
            b'"' => {
                let content = plain_text(rest)?;
                let place = values.texts.place(content)?;
                shape.extend([MARK, b'"', place]);
                content.len() + 2
            }
            b'-' | b'0'..=b'9' => number(rest, &mut shape, &mut values)?,
            // A remark, a byte order mark, or nothing that belongs into a document.
            _ => return None,
        };
        at += length;
    }
    // One of nothing but short tokens is up to three times as long as they are.
    (shape.len() <= MAX_BYTES).then_some(shape)
}

/// The values that were seen, of each kind.
#[derive(Default)]
struct Values<'a> {
    texts: Seen<&'a [u8]>,
    numbers: Seen<&'a [u8]>,
    floats: Seen<&'a [u8]>,
    /// Floats may be compared by what they are worth.
    worth: Seen<u64>,
}

struct Seen<T>(Vec<T>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> Seen<T> {
    /// Which of the different ones it is.
    fn place(&mut self, value: T) -> Option<u8> {
        let place = match self.0.iter().position(|known| *known == value) {
            Some(place) => place,
            None if self.0.len() < MAX_VALUES => {
                self.0.push(value);
                self.0.len() - 1
            }
            None => return None,
        };
        // Behind the mark.
        u8::try_from(place + 1).ok()
    }
}

fn length_of(bytes: &[u8], is_of_it: impl Fn(u8) -> bool) -> usize {
    bytes
        .iter()
        .position(|byte| !is_of_it(*byte))
        .unwrap_or(bytes.len())
}

/// What stands between the quotes of a text without escapes; none for every other text.
fn plain_text(bytes: &[u8]) -> Option<&[u8]> {
    let content = &bytes[1..];
    let end = content
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f | 0x7f))?;
    // Two quotes and a third begin a block.
    let is_block = end == 0 && content.get(1) == Some(&b'"');
    (content[end] == b'"' && !is_block).then(|| &content[..end])
}

/// Adds a number, and says how long it is.
fn number<'a>(bytes: &'a [u8], shape: &mut Vec<u8>, values: &mut Values<'a>) -> Option<usize> {
    let digits = |from: usize| length_of(&bytes[from..], |byte| byte.is_ascii_digit());
    let sign = usize::from(bytes[0] == b'-');
    let whole = digits(sign);
    let is_zero = bytes.get(sign) == Some(&b'0');
    // No leading zeros; the zero with a sign is rare enough to be looked at as a whole.
    if whole == 0 || (is_zero && (whole > 1 || sign == 1)) {
        return None;
    }
    let mut length = sign + whole;
    let is_float = bytes.get(length) == Some(&b'.');
    if is_float {
        let fraction = digits(length + 1);
        if fraction == 0 {
            return None;
        }
        length += 1 + fraction;
    }
    // An exponent, or what may not follow a number.
    if bytes
        .get(length)
        .is_some_and(|next| *next == b'_' || *next == b'.' || next.is_ascii_alphanumeric())
    {
        return None;
    }
    let written = &bytes[..length];
    if is_float {
        if length > MAX_FLOAT {
            return None;
        }
        let worth: f64 = std::str::from_utf8(written).ok()?.parse().ok()?;
        let (place, worth) = (
            values.floats.place(written)?,
            values.worth.place(worth.to_bits())?,
        );
        shape.extend([MARK, b'1', b'.', place, worth]);
    } else if whole <= MAX_DIGITS {
        let place = values.numbers.place(written)?;
        shape.extend([MARK, b'1', place]);
    } else {
        shape.push(MARK);
        shape.extend(written);
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let (a, b) = (of(a), of(b));
        a.is_some() && a == b
    }

    #[test]
    fn values_do_not_count_and_everything_else_does() {
        assert!(same("{a(x:1,y:\"s\")}", "{ a ( x : 22 y : \"longer\" ) }"));
        assert!(same("{a(x:1.5)}", "{a(x:-12.25)}"));
        for (a, b) in [
            ("{a(x:1)}", "{a(x:1.0)}"),
            ("{a(x:1)}", "{a(x:\"1\")}"),
            ("{a(x:1)}", "{a(y:1)}"),
            ("{a(x:true)}", "{a(x:false)}"),
            ("{a b}", "{ab}"),
            ("{a(x:1,y:1)}", "{a(x:1,y:2)}"),
            ("{a(x:1.0,y:1.00)}", "{a(x:1.0,y:1.0)}"),
            ("{a(x:1.0,y:1.00)}", "{a(x:1.0,y:2.0)}"),
            ("{a(x:1234567890)}", "{a(x:1234567891)}"),
        ] {
            assert!(of(a).is_some() && of(b).is_some(), "{a} {b}");
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn what_is_not_certain_has_no_shape() {
        for text in [
            "{a} # remark",
            "{a(x:\"\\n\")}",
            "{a(x:\"\"\"block\"\"\")}",
            "{a(x:01)}",
            "{a(x:1e9)}",
            "{a(x:1a)}",
            "{a(x:-)}",
            "{a(x:-0)}",
            "{a(x:1.)}",
            "{a(x:\"open)}",
            "{..a}",
            "\u{feff}{a}",
            "{ä}",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(of(&format!("{{{}}}", "a ".repeat(MAX_BYTES))), None);
        let longest = format!("{{a{}}}", "()".repeat((MAX_BYTES - 6) / 4));
        assert_eq!(of(&longest).map(|shape| shape.len()), Some(MAX_BYTES - 2));
        assert_eq!(
            of(&format!("{longest}b")).map(|shape| shape.len()),
            Some(MAX_BYTES)
        );
        assert_eq!(of(&format!("{longest}bb")), None);
    }
}
