//! The query of a request, read as nats-server reads it.

use std::fmt::Display;
use std::str::FromStr;

use thiserror::Error;

/// Fields of a query taken at most; more are left out.
const MAX_FIELDS: usize = 64;

/// Why a query is refused. The texts are those of nats-server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum QueryError {
    /// A value of the wrong kind.
    #[error(
        "Error decoding {kind} for '{name}': strconv.{function}: parsing {text:?}: invalid syntax"
    )]
    Value {
        kind: &'static str,
        function: &'static str,
        name: &'static str,
        text: String,
    },
    /// A value that is none of those there are, or that goes with no other.
    #[error("{0}")]
    Meaning(String),
}

/// A number of entries, if it is one.
pub(super) fn above_zero(number: i64) -> Option<usize> {
    usize::try_from(number).ok().filter(|count| *count > 0)
}

/// The fields of a query, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let fields = text
            .split('&')
            .filter(|field| !field.is_empty())
            .take(MAX_FIELDS);
        Self(
            fields
                .map(|field| {
                    let (name, value) = field.split_once('=').unwrap_or((field, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of this name; empty for none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map_or("", |(_, value)| value)
    }

    /// A truth; false when it is not given.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, QueryError> {
        match self.text(name) {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            text => Err(wrong("boolean", "ParseBool", name, text)),
        }
    }

    /// What is asked for of subscriptions: their subjects, or all about them.
    pub(super) fn subscriptions(&self) -> Result<(bool, bool), QueryError> {
        if self.text("subs").eq_ignore_ascii_case("detail") {
            Ok((false, true))
        } else {
            Ok((self.flag("subs")?, false))
        }
    }

    /// A number; 0 when it is not given.
    pub(super) fn int(&self, name: &'static str) -> Result<i64, QueryError> {
        Ok(self.number(name, "int", "Atoi")?.unwrap_or(0))
    }

    /// A number of a connection.
    pub(super) fn id(&self, name: &'static str) -> Result<Option<u64>, QueryError> {
        self.number(name, "uint64", "ParseUint")
    }

    fn number<T: FromStr<Err: Display>>(
        &self,
        name: &'static str,
        kind: &'static str,
        function: &'static str,
    ) -> Result<Option<T>, QueryError> {
        match self.text(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| wrong(kind, function, name, text)),
        }
    }
}

fn wrong(kind: &'static str, function: &'static str, name: &'static str, text: &str) -> QueryError {
    QueryError::Value {
        kind,
        function,
        name,
        text: text.to_owned(),
    }
}

/// Undoes percent-encoding; what is not UTF-8 then is replaced, what is no code stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = text
            .get(at + 1..at + 3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                decoded.push(code);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("test=foo.%3E&acc=a+b&x&acc=second&bad=%zz%");
        assert_eq!(query.text("test"), "foo.>");
        assert_eq!(query.text("acc"), "a b");
        assert_eq!(query.text("x"), "");
        assert_eq!(query.text("bad"), "%zz%");
        assert_eq!(query.text("none"), "");
    }

    #[test]
    fn flags_and_counts_are_those_of_go() {
        let query = Query::parse("a=1&b=TRUE&c=0&e=yes&l=-5&m=7&n=x");
        assert_eq!((query.flag("a"), query.flag("b")), (Ok(true), Ok(true)));
        assert_eq!((query.flag("c"), query.flag("d")), (Ok(false), Ok(false)));
        assert_eq!(
            query.flag("e").expect_err("wrong").to_string(),
            "Error decoding boolean for 'e': strconv.ParseBool: parsing \"yes\": invalid syntax"
        );
        assert_eq!(
            (query.int("l"), query.int("m"), query.int("z")),
            (Ok(-5), Ok(7), Ok(0))
        );
        assert_eq!(
            query.int("n").expect_err("wrong").to_string(),
            "Error decoding int for 'n': strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            query.id("n").expect_err("wrong").to_string(),
            "Error decoding uint64 for 'n': strconv.ParseUint: parsing \"x\": invalid syntax"
        );
    }

    proptest! {
        #[test]
        fn any_query_is_read(text in "\\PC{0,80}") {
            let query = Query::parse(&text);
            prop_assert!(query.0.len() <= MAX_FIELDS);
        }
    }
}
