//! Tokens inside the text that tools put around them.
//!
//! A file of `nsc` holds `-----BEGIN NATS USER JWT-----`, the token, and a line that ends it with
//! six dashes; a plain file holds the token alone.

/// The token in `text`: the first block between a line that begins and a line that ends one, or all
/// of the text.
#[must_use]
pub fn token(text: &str) -> &str {
    let mut start = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let is_fence = line.trim_end().starts_with("---") && line.trim_end().ends_with("---");
        match start {
            None if is_fence => start = Some(offset + line.len()),
            Some(begin) if is_fence => return text[begin..offset].trim(),
            _ => {}
        }
        offset += line.len();
    }
    text.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_a_file_and_bare() {
        let file = "-----BEGIN NATS OPERATOR JWT-----\r\neyJ.a.b\r\n------END NATS OPERATOR JWT------\r\n\r\n\
                    -----BEGIN USER NKEY SEED-----\nSU\n------END USER NKEY SEED------\n";
        assert_eq!(token(file), "eyJ.a.b");
        assert_eq!(token(" eyJ.a.b\n"), "eyJ.a.b");
        assert_eq!(token("-----BEGIN\neyJ"), "-----BEGIN\neyJ");
        assert_eq!(token(""), "");
    }
}
