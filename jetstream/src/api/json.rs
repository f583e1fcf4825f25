//! JSON as the reference server reads and writes it.
//!
//! Writing: `<`, `>` and `&` are escaped and so are U+2028 and U+2029, so that a reply equals the
//! reference byte for byte.
//!
//! Reading: a [`Shape`] says which fields a request may have. A field that is not in it is refused
//! by name; `null` counts as absent, because several clients send it for every unset option; the
//! case of field names does not matter. What is left decodes into plain structs.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::time::Timestamp;

/// Text of `value`, escaped as the reference server does.
#[must_use]
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(&mut out, value);
    out
}

/// Appends the text of `value` to `out`.
pub fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Escaping);
    value
        .serialize(&mut serializer)
        .expect("writing to memory works and all maps have text keys");
}

/// Appends `text` as a JSON string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
    if text.is_ascii() && text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        write(out, text);
    }
}

struct Escaping;

impl serde_json::ser::Formatter for Escaping {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let odd = rest[at..].chars().next().expect("something was found here");
            write!(writer, "\\u{:04x}", u32::from(odd))?;
            rest = &rest[at + odd.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// The fields a JSON object may have.
#[derive(Debug)]
pub struct Shape(pub &'static [(&'static str, Kind)]);

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string.
    Text,
    /// A whole number, 64 bits with sign. Durations are such, in nanoseconds.
    Int,
    /// A whole number, 32 bits with sign.
    Int32,
    /// A whole number, 64 bits without sign.
    Unsigned,
    /// `true` or `false`.
    Bool,
    /// RFC 3339.
    Time,
    /// Strings.
    Texts,
    /// Whole numbers with sign.
    Ints,
    /// String to string.
    TextMap,
    /// One of these words, in any case; an empty word stands for "not set".
    Choice(&'static [&'static str], Refusal),
    /// Another object.
    Object(&'static Shape),
    /// Other objects.
    Objects(&'static Shape),
    /// Anything: kept as it came.
    Any,
}

/// How an unknown word is refused.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// `can not unmarshal "\"word\""`
    CannotUnmarshal,
    /// The text, then `: "word"`.
    Unknown(&'static str),
    /// The text alone.
    Plain(&'static str),
}

/// Reads a request. An empty body and `null` are the same as `{}`.
///
/// # Errors
///
/// 10025 for anything but one JSON object with these fields.
pub fn decode<T: DeserializeOwned>(shape: &Shape, body: &[u8]) -> Result<T, ApiError> {
    finish(object(shape, body)?)
}

/// Like [`decode`], with what was read still open for changes.
///
/// # Errors
///
/// As [`decode`].
pub fn object(shape: &Shape, body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    object_with(shape, body, Unknown::Refused)
}

/// Turns fields that fit their shape into a struct.
///
/// # Errors
///
/// 10025 if the struct wants something else after all.
pub fn finish<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(fields)).map_err(ApiError::invalid_json)
}

/// What happens to a field that is not in the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The request is refused.
    Refused,
    /// The field is dropped.
    Dropped,
}

/// Like [`object`], with a choice about unknown fields.
///
/// # Errors
///
/// As [`decode`].
pub fn object_with(
    shape: &Shape,
    body: &[u8],
    unknown: Unknown,
) -> Result<Map<String, Value>, ApiError> {
    if is_blank(body) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body).map_err(ApiError::invalid_json)? {
        Value::Object(fields) => fit(shape, fields, unknown).map_err(ApiError::invalid_json),
        Value::Null => Ok(Map::new()),
        other => Err(ApiError::invalid_json(mismatch(&other, "", "object"))),
    }
}

/// Whether a body is empty or white space.
#[must_use]
pub fn is_blank(body: &[u8]) -> bool {
    body.iter().all(u8::is_ascii_whitespace)
}

/// Whether a body begins like an object or an array. The listings read their body only if it does.
#[must_use]
pub fn is_structured(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Whether a body asks for nothing: empty, or an object without fields.
#[must_use]
pub fn is_empty_request(body: &[u8]) -> bool {
    body.is_empty()
        || body == b"{}"
        || matches!(serde_json::from_slice(body), Ok(Value::Object(fields)) if fields.is_empty())
}

fn fit(
    shape: &Shape,
    fields: Map<String, Value>,
    unknown: Unknown,
) -> Result<Map<String, Value>, String> {
    let mut fitted = Map::with_capacity(fields.len());
    for (name, value) in fields {
        let exact = shape.0.iter().find(|(known, _)| *known == name);
        let known = exact.or_else(|| shape.0.iter().find(|(k, _)| k.eq_ignore_ascii_case(&name)));
        let Some((known, kind)) = known else {
            if unknown == Unknown::Dropped {
                continue;
            }
            return Err(format!("json: unknown field {}", quote(&name)));
        };
        if value.is_null() || (exact.is_none() && fitted.contains_key(*known)) {
            continue;
        }
        if let Some(value) = fit_value(known, kind, value, unknown)? {
            fitted.insert((*known).to_owned(), value);
        }
    }
    Ok(fitted)
}

/// `None` for a value that means the same as an absent field.
fn fit_value(
    name: &str,
    kind: &Kind,
    value: Value,
    unknown: Unknown,
) -> Result<Option<Value>, String> {
    let fits = match (kind, &value) {
        (Kind::Text, Value::String(_)) | (Kind::Bool, Value::Bool(_)) | (Kind::Any, _) => true,
        (Kind::Int, Value::Number(number)) => number.is_i64(),
        (Kind::Int32, Value::Number(number)) => {
            number.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
        }
        (Kind::Unsigned, Value::Number(number)) => number.is_u64(),
        (Kind::Time, Value::String(text)) => {
            if Timestamp::parse(text).is_none() {
                return Err(format!("parsing time {} as RFC 3339 failed", quote(text)));
            }
            true
        }
        (Kind::Choice(words, refusal), Value::String(word)) => {
            return choose(words, *refusal, word).map(|word| word.map(Value::from));
        }
        _ => false,
    };
    if fits {
        return Ok(Some(value));
    }
    let fitted = match (kind, value) {
        (Kind::Texts, Value::Array(items)) => fit_items(name, &Kind::Text, "".into(), items)?,
        (Kind::Ints, Value::Array(items)) => fit_items(name, &Kind::Int, 0.into(), items)?,
        (Kind::TextMap, Value::Object(entries)) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, value) in entries {
                let value = if value.is_null() { "".into() } else { value };
                if !value.is_string() {
                    return Err(mismatch(&value, name, "string"));
                }
                map.insert(key, value);
            }
            Value::Object(map)
        }
        (Kind::Object(shape), Value::Object(fields)) => Value::Object(fit(shape, fields, unknown)?),
        (Kind::Objects(shape), Value::Array(items)) => {
            let mut fitted = Vec::with_capacity(items.len());
            for item in items {
                let Value::Object(fields) = item else {
                    return Err(mismatch(&item, name, "object"));
                };
                fitted.push(Value::Object(fit(shape, fields, unknown)?));
            }
            Value::Array(fitted)
        }
        (Kind::Choice(_, refusal), other) => return Err(refuse(*refusal, &other.to_string())),
        (kind, other) => return Err(mismatch(&other, name, kind.type_name())),
    };
    Ok(Some(fitted))
}

fn fit_items(name: &str, kind: &Kind, zero: Value, items: Vec<Value>) -> Result<Value, String> {
    let mut fitted = Vec::with_capacity(items.len());
    for item in items {
        let item = if item.is_null() {
            None
        } else {
            fit_value(name, kind, item, Unknown::Refused)?
        };
        fitted.push(item.unwrap_or_else(|| zero.clone()));
    }
    Ok(Value::Array(fitted))
}

/// The word as it is spelt in `words`, `None` for the empty one.
fn choose(
    words: &'static [&'static str],
    refusal: Refusal,
    word: &str,
) -> Result<Option<&'static str>, String> {
    match words.iter().find(|known| known.eq_ignore_ascii_case(word)) {
        Some(&"") => Ok(None),
        Some(known) => Ok(Some(*known)),
        None => Err(refuse(refusal, &quote(word))),
    }
}

fn refuse(refusal: Refusal, json: &str) -> String {
    match refusal {
        Refusal::CannotUnmarshal => format!("can not unmarshal {}", quote(json)),
        Refusal::Unknown(what) => format!("{what}: {json}"),
        Refusal::Plain(text) => text.to_owned(),
    }
}

fn mismatch(value: &Value, name: &str, wanted: &str) -> String {
    let got = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) => format!("number {number}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    if name.is_empty() {
        format!("json: cannot unmarshal {got} into a request, which is an {wanted}")
    } else {
        format!("json: cannot unmarshal {got} into field {name} of type {wanted}")
    }
}

/// Text in double quotes, quotes and backslashes inside escaped.
pub(super) fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

impl Kind {
    fn type_name(self) -> &'static str {
        match self {
            Self::Text | Self::Choice(..) => "string",
            Self::Int => "int64",
            Self::Int32 => "int32",
            Self::Unsigned => "uint64",
            Self::Bool => "bool",
            Self::Time => "time",
            Self::Texts => "[]string",
            Self::Ints => "[]int64",
            Self::TextMap => "map[string]string",
            Self::Object(_) => "object",
            Self::Objects(_) => "[]object",
            Self::Any => "any",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Sample {
        name: String,
        count: i64,
        small: i32,
        seq: u64,
        on: bool,
        at: Timestamp,
        subjects: Vec<String>,
        waits: Vec<i64>,
        metadata: std::collections::BTreeMap<String, String>,
        policy: Option<String>,
        inner: Option<Inner>,
        more: Vec<Inner>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        x: i64,
    }

    const INNER: Shape = Shape(&[("x", Kind::Int)]);
    const SAMPLE: Shape = Shape(&[
        ("name", Kind::Text),
        ("count", Kind::Int),
        ("small", Kind::Int32),
        ("seq", Kind::Unsigned),
        ("on", Kind::Bool),
        ("at", Kind::Time),
        ("subjects", Kind::Texts),
        ("waits", Kind::Ints),
        ("metadata", Kind::TextMap),
        (
            "policy",
            Kind::Choice(&["", "old", "new"], Refusal::CannotUnmarshal),
        ),
        ("inner", Kind::Object(&INNER)),
        ("more", Kind::Objects(&INNER)),
    ]);

    fn read(body: &str) -> Result<Sample, String> {
        decode(&SAMPLE, body.as_bytes()).map_err(|error| {
            assert_eq!((error.code, error.err_code), (400, 10025));
            error.description.into_owned()
        })
    }

    #[test]
    fn strings_are_escaped_as_the_reference_does() {
        assert_eq!(
            to_vec("a<b>&c\u{2028}\"\\\n\u{e9}"),
            "\"a\\u003cb\\u003e\\u0026c\\u2028\\\"\\\\\\n\u{e9}\"".as_bytes()
        );
        for text in ["plain", "o>dd", "qu\"ote", "ünï", "tab\t"] {
            let mut out = Vec::new();
            write_text(&mut out, text);
            assert_eq!(out, to_vec(text));
        }
    }

    #[test]
    fn null_means_absent_everywhere() {
        let all = r#"{"name":null,"count":null,"small":null,"seq":null,"on":null,"at":null,
            "subjects":null,"waits":null,"metadata":null,"policy":null,"inner":null,"more":null}"#;
        assert_eq!(read(all), Ok(Sample::default()));
        let inside =
            r#"{"subjects":["a",null],"waits":[1,null],"metadata":{"k":null},"inner":{"x":null}}"#;
        let sample = read(inside).expect("nulls are fine");
        assert_eq!(sample.subjects, ["a", ""]);
        assert_eq!(sample.waits, [1, 0]);
        assert_eq!(sample.metadata["k"], "");
        assert_eq!(sample.inner, Some(Inner::default()));
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        for body in ["", "  \n", "{}", "null", " null "] {
            assert_eq!(read(body), Ok(Sample::default()), "{body:?}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_by_name_at_any_depth() {
        for body in [
            r#"{"x":1}"#,
            r#"{"inner":{"y":1}}"#,
            r#"{"more":[{"x":1},{"z":null}]}"#,
        ] {
            let error = read(body).expect_err("a field that is not known");
            assert!(
                error.starts_with("invalid JSON: json: unknown field \""),
                "{error}"
            );
        }
        assert_eq!(
            read(r#"{"x\"y":1}"#),
            Err(r#"invalid JSON: json: unknown field "x\"y""#.into())
        );
        let fields = object_with(&SAMPLE, br#"{"x":1,"count":2}"#, Unknown::Dropped);
        assert_eq!(fields.expect("unknown is fine here").len(), 1);
    }

    #[test]
    fn the_case_of_names_and_words_does_not_matter() {
        let sample = read(r#"{"NAME":"a","Policy":"NEW"}"#).expect("fits");
        assert_eq!(
            (sample.name.as_str(), sample.policy.as_deref()),
            ("a", Some("new"))
        );
        assert_eq!(
            read(r#"{"Name":"other","name":"exact"}"#)
                .expect("fits")
                .name,
            "exact"
        );
        assert_eq!(read(r#"{"policy":""}"#).expect("fits").policy, None);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (body, error) in [
            (
                r#"{"count":"x"}"#,
                "json: cannot unmarshal string into field count of type int64",
            ),
            (
                r#"{"count":1.5}"#,
                "json: cannot unmarshal number 1.5 into field count of type int64",
            ),
            (
                r#"{"count":9223372036854775808}"#,
                "json: cannot unmarshal number 9223372036854775808 into field count of type int64",
            ),
            (
                r#"{"small":2147483648}"#,
                "json: cannot unmarshal number 2147483648 into field small of type int32",
            ),
            (
                r#"{"seq":-1}"#,
                "json: cannot unmarshal number -1 into field seq of type uint64",
            ),
            (
                r#"{"on":1}"#,
                "json: cannot unmarshal number 1 into field on of type bool",
            ),
            (
                r#"{"at":"soon"}"#,
                "parsing time \"soon\" as RFC 3339 failed",
            ),
            (
                r#"{"subjects":"a"}"#,
                "json: cannot unmarshal string into field subjects of type []string",
            ),
            (
                r#"{"subjects":[1]}"#,
                "json: cannot unmarshal number 1 into field subjects of type string",
            ),
            (
                r#"{"metadata":{"a":1}}"#,
                "json: cannot unmarshal number 1 into field metadata of type string",
            ),
            (r#"{"policy":"nope"}"#, r#"can not unmarshal "\"nope\"""#),
            (r#"{"policy":7}"#, r#"can not unmarshal "7""#),
            (
                r#"{"inner":[]}"#,
                "json: cannot unmarshal array into field inner of type object",
            ),
            (
                r#"{"more":[7]}"#,
                "json: cannot unmarshal number 7 into field more of type object",
            ),
            (
                "[]",
                "json: cannot unmarshal array into a request, which is an object",
            ),
        ] {
            assert_eq!(read(body), Err(format!("invalid JSON: {error}")), "{body}");
        }
        for body in [
            "x",
            "{",
            "{}x",
            "{}{}",
            "{\"name\":\"\u{1}\"}",
            "\u{feff}{}",
        ] {
            assert!(read(body).is_err(), "{body:?}");
        }
        assert!(read(&"[".repeat(100_000)).is_err(), "depth is bounded");
    }

    #[test]
    fn bodies_that_count_as_empty() {
        for (body, empty, structured) in [
            ("", true, false),
            ("{}", true, true),
            (" { } ", true, true),
            ("null", false, false),
            ("[]", false, true),
            ("{\"a\":1}", false, true),
            ("x", false, false),
        ] {
            assert_eq!(is_empty_request(body.as_bytes()), empty, "{body}");
            assert_eq!(is_structured(body.as_bytes()), structured, "{body}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode::<Sample>(&SAMPLE, &body));
            prop_assert!(!(is_empty_request(&body) && body.contains(&b'"')));
        }

        #[test]
        fn any_text_survives_the_escapes(text in ".*") {
            let mut out = Vec::new();
            write_text(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
        }
    }
}
