//! Names of streams and consumers.

use super::error::ApiError;

/// Longest name of a stream or consumer, bytes.
pub const MAX_NAME: usize = 255;

/// Whether `name` may name a stream or consumer: not empty, no white space, no `.`, `*`, `>`, `/`,
/// `\`, no control characters. Its length is checked apart, since that has errors of its own.
#[must_use]
pub fn is_valid(name: &str) -> bool {
    let odd = |c: char| c.is_ascii_control() || matches!(c, ' ' | '.' | '*' | '>' | '/' | '\\');
    !name.is_empty() && !name.contains(odd)
}

/// Refuses the name of a stream that looks like a path. Creation checks this before all else.
///
/// # Errors
///
/// 10128.
pub fn refuse_stream_path(name: &str) -> Result<(), ApiError> {
    if name.contains(['/', '\\']) {
        return Err(ApiError::stream_name_with_path_separator());
    }
    Ok(())
}

/// Refuses the name of a consumer that looks like a path.
///
/// # Errors
///
/// 10127.
pub fn refuse_consumer_path(name: &str) -> Result<(), ApiError> {
    if name.contains(['/', '\\']) {
        return Err(ApiError::consumer_name_with_path_separator());
    }
    Ok(())
}

/// A consumer name of eight letters and digits made of `random`.
#[must_use]
pub fn generate(random: u64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = random;
    let mut name = String::with_capacity(8);
    for _ in 0..8 {
        let digit = usize::try_from(rest % 62).expect("less than 62");
        name.push(char::from(DIGITS[digit]));
        rest /= 62;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_token_path_or_control_characters() {
        for name in ["a", "ORDERS", "KV_x", "a-b_c", "$x", "ünï", "a\"b", "CON"] {
            assert!(is_valid(name), "{name}");
        }
        for name in [
            "", ".", "..", "a.b", "a*", ">", "a/b", "../x", "a\\b", "a b", "a\tb", "a\r", "a\n",
            "\u{c}", "a\0", "\u{7f}",
        ] {
            assert!(!is_valid(name), "{name:?}");
        }
    }

    #[test]
    fn generated_names_are_eight_letters_and_digits() {
        assert_eq!(generate(0), "00000000");
        assert_eq!(generate(61), "z0000000");
        for random in [u64::MAX, 1 << 40, 12_345_678_901] {
            let name = generate(random);
            assert_eq!(name.len(), 8);
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()));
        }
        assert_ne!(generate(1), generate(2));
    }
}
