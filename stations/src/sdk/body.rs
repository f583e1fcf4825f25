//! Bodies of control requests: JSON objects, read as forgivingly as the SDKs need.
//!
//! Keys match in any case, unknown keys are ignored, missing keys and `null` are the zero value. A
//! value of the wrong type is an error.

use serde_json::{Map, Value};
use thiserror::Error;

/// Longest text that is stored as it came, bytes.
const MAX_SHORT_TEXT: usize = 256;
/// Object whose keys belong to users.
const HEADERS: &str = "headers";

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum BodyError {
    #[error("the request is not a JSON object")]
    NotAnObject,
    #[error("field {0} of the request has a wrong type")]
    WrongType(&'static str),
    #[error("field {0} of the request is too long")]
    TooLong(&'static str),
}

/// A decoded body with its keys in lower case.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Body(Map<String, Value>);

impl Body {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, BodyError> {
        match serde_json::from_slice(payload) {
            Ok(Value::Object(object)) => Ok(Self(lower_keys(object))),
            _ => Err(BodyError::NotAnObject),
        }
    }

    pub(crate) fn text(&self, key: &'static str) -> Result<String, BodyError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(BodyError::WrongType(key)),
        }
    }

    /// A text of at most 256 bytes.
    pub(crate) fn short_text(&self, key: &'static str) -> Result<String, BodyError> {
        let text = self.text(key)?;
        if text.len() > MAX_SHORT_TEXT {
            Err(BodyError::TooLong(key))
        } else {
            Ok(text)
        }
    }

    pub(crate) fn number(&self, key: &'static str) -> Result<i64, BodyError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(0),
            Some(value) => value.as_i64().ok_or(BodyError::WrongType(key)),
        }
    }

    /// A number that some clients write as text.
    pub(crate) fn number_or_text(&self, key: &'static str) -> Result<i64, BodyError> {
        match self.0.get(key) {
            Some(Value::String(text)) => text.parse().map_err(|_| BodyError::WrongType(key)),
            _ => self.number(key),
        }
    }

    /// Names and values of an object whose keys belong to users; none if it is no object.
    pub(crate) fn entries(&self, key: &'static str) -> impl Iterator<Item = (&String, &Value)> {
        let object = self.0.get(key).and_then(Value::as_object);
        object.into_iter().flat_map(Map::iter)
    }

    /// A list of numbers; none for a missing one.
    pub(crate) fn numbers(&self, key: &'static str) -> Result<Vec<u64>, BodyError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| value.as_u64().ok_or(BodyError::WrongType(key)))
                .collect(),
            Some(_) => Err(BodyError::WrongType(key)),
        }
    }

    /// A list of texts; none for a missing one.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Vec<String>, BodyError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| value.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or(BodyError::WrongType(key)),
            Some(_) => Err(BodyError::WrongType(key)),
        }
    }

    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.0.get(key).is_some_and(|value| !value.is_null())
    }

    /// Every key, in lower case.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn flag(&self, key: &'static str) -> Result<bool, BodyError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or(BodyError::WrongType(key)),
        }
    }

    pub(crate) fn object(&self, key: &'static str) -> Result<Self, BodyError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::Object(object)) => Ok(Self(object.clone())),
            Some(_) => Err(BodyError::WrongType(key)),
        }
    }
}

fn lower_keys(object: Map<String, Value>) -> Map<String, Value> {
    object
        .into_iter()
        .map(|(key, value)| {
            let key = key.to_lowercase();
            let value = if key == HEADERS {
                value
            } else {
                lower_keys_within(value)
            };
            (key, value)
        })
        .collect()
}

fn lower_keys_within(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(lower_keys(object)),
        Value::Array(values) => Value::Array(values.into_iter().map(lower_keys_within).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Body {
        Body::parse(text.as_bytes()).expect("an object")
    }

    #[test]
    fn keys_match_in_any_case_at_any_depth_but_not_inside_headers() {
        let body = body(r#"{"Name":"n","A":{"SchemaVerse":true},"Headers":{"K":"v"}}"#);
        assert_eq!(body.text("name"), Ok("n".to_owned()));
        assert_eq!(
            body.object("a").and_then(|a| a.flag("schemaverse")),
            Ok(true)
        );
        assert_eq!(
            body.object("headers").and_then(|h| h.text("K")),
            Ok("v".to_owned())
        );
    }

    #[test]
    fn what_is_missing_or_null_is_zero() {
        let body = body(r#"{"a":null,"unknown":[1,{"x":2}]}"#);
        assert_eq!(body.text("a"), Ok(String::new()));
        assert_eq!(body.number("a"), Ok(0));
        assert_eq!(body.flag("b"), Ok(false));
        assert_eq!(body.object("c"), Ok(Body::default()));
    }

    #[test]
    fn a_wrong_type_is_an_error() {
        let body = body(r#"{"s":1,"n":"1","f":1.5,"h":18446744073709551615,"b":0,"o":[]}"#);
        assert_eq!(body.text("s"), Err(BodyError::WrongType("s")));
        for key in ["n", "f", "h"] {
            assert_eq!(body.number(key), Err(BodyError::WrongType(key)));
        }
        assert_eq!(body.flag("b"), Err(BodyError::WrongType("b")));
        assert_eq!(body.object("o"), Err(BodyError::WrongType("o")));
        for bad in ["", "null", "[]", "{", "\"x\"", "{}x", "\u{fffd}"] {
            assert_eq!(Body::parse(bad.as_bytes()), Err(BodyError::NotAnObject));
        }
    }
}
