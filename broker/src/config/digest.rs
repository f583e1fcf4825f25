//! A digest of what a configuration says, to tell whether two servers were told the same.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::grammar::{Map, Value};

/// `sha256:` and the digest in hexadecimal, over the values in JSON with sorted keys. Comments,
/// order and notation do not count, nor do keys that only serve as variables. The same file gives
/// the same digest on nats-server.
#[must_use]
pub fn digest(map: &Map) -> String {
    let mut json = String::new();
    write_map(map, &mut json);
    json.push('\n');
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(json.as_bytes()) {
        push(&mut text, format_args!("{byte:02x}"));
    }
    text
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything");
}

fn write_map(map: &Map, json: &mut String) {
    let mut fields: Vec<_> = map.fields.iter().filter(|field| !field.referred).collect();
    fields.sort_by(|a, b| a.key.cmp(&b.key));
    json.push('{');
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_text(&field.key, json);
        json.push(':');
        write_value(&field.node.value, json);
    }
    json.push('}');
}

fn write_value(value: &Value, json: &mut String) {
    match value {
        Value::Map(map) => write_map(map, json),
        Value::Array(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_value(&item.value, json);
            }
            json.push(']');
        }
        Value::String(text) => write_text(text, json),
        Value::Integer(number) => push(json, format_args!("{number}")),
        Value::Float(number) => push(json, format_args!("{number}")),
        Value::Bool(truth) => push(json, format_args!("{truth}")),
    }
}

/// A JSON string; besides what must be escaped, what would mean something in HTML is too.
fn write_text(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\u{0}'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                push(json, format_args!("\\u{:04x}", u32::from(c)));
            }
            _ => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::grammar::{Environment, parse};
    use super::*;

    struct Nothing;

    impl Environment for Nothing {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
        fn include(&self, _: &str, path: &str) -> Result<(String, String), String> {
            Err(path.to_owned())
        }
    }

    fn of(text: &str) -> String {
        digest(&parse(text, "t.conf", &Nothing).expect("valid"))
    }

    #[test]
    fn notation_and_order_do_not_count() {
        assert_eq!(
            of("a = 1\nb { c: [x, true] }"),
            of("{\"b\": {c [ 'x'\n on ]}, a: 1} # same")
        );
        assert_ne!(of("a = 1"), of("a = 2"));
        assert_ne!(of("a = 1"), of("a = \"1\""));
    }

    #[test]
    fn digests_are_those_of_nats_server() {
        // As `nats-server -t` prints them.
        assert_eq!(of(SAMPLE), SAMPLE_DIGEST);
    }

    const SAMPLE: &str = "port: 4222\nmax_payload: 2MB\nwrite_deadline: \"3s\"\n\
        authorization { timeout: 1.5, users = [ {user: \"a<&>\", password: 'p\\w'} ] }\n";
    const SAMPLE_DIGEST: &str =
        "sha256:40ccbcd838b44a163fbe94500543852b3ff990ee3690b81f0df8153f7de87922";
}
