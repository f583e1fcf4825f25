//! Names of stations, groups and clients, in their two spellings.
//!
//! Outside, a name is lower case and may hold dots. Inside, where names become stream, consumer
//! and subject tokens, every dot is written as `#`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name in bytes.
pub const MAX_NAME_LEN: usize = 128;

/// What a name belongs to; selects the word in the error texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A station.
    Station,
    /// A producer.
    Producer,
    /// A consumer or a consumer group.
    Consumer,
    /// A schema.
    Schema,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Station => "Station",
            Self::Producer => "Producer",
            Self::Consumer => "Consumer",
            Self::Schema => "Schema",
        })
    }
}

/// Why a name is refused. The texts are part of the SDK contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("{0} name can not be empty")]
    Empty(Named),
    /// More than [`MAX_NAME_LEN`] bytes.
    #[error("{0} should be under 128 characters")]
    TooLong(Named),
    /// Something other than `a-z`, `0-9`, `_`, `-` and `.`.
    #[error("Only alphanumeric and the '_', '-', '.' characters are allowed in {0}")]
    Characters(Named),
    /// `.`, `-` or `_` at an end.
    #[error("{0} name can not start or end with non alphanumeric character")]
    Ends(Named),
}

/// Lower-cases `text`, turns an internal spelling back into the external one, and checks it.
///
/// # Errors
/// The first rule that is broken, in the order of [`NameError`].
pub fn normalise(named: Named, text: &str) -> Result<String, NameError> {
    let name = relaxed(text);
    if name.is_empty() {
        return Err(NameError::Empty(named));
    }
    if name.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong(named));
    }
    let punctuation = |byte: u8| matches!(byte, b'_' | b'-' | b'.');
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || punctuation(byte);
    if !name.bytes().all(allowed) {
        return Err(NameError::Characters(named));
    }
    if name.bytes().next().is_some_and(punctuation) || name.bytes().last().is_some_and(punctuation)
    {
        return Err(NameError::Ends(named));
    }
    Ok(name)
}

/// The external spelling of whatever a client sent, unchecked: for looking up and for texts.
#[must_use]
pub fn relaxed(text: &str) -> String {
    text.to_lowercase().replace('#', ".")
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $named:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Lower-cases, accepts either spelling, and checks.
            ///
            /// # Errors
            /// The first rule that is broken.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                normalise($named, text).map(|name| Self(Arc::from(name)))
            }

            /// The spelling people see, with dots.
            #[must_use]
            pub fn external(&self) -> &str {
                &self.0
            }

            /// The spelling inside stream, consumer and subject names, with `#` for every dot.
            #[must_use]
            pub fn internal(&self) -> String {
                self.0.replace('.', "#")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                Self::from(&*name.0)
            }
        }
    };
}

name! {
    /// Name of a station.
    StationName, Named::Station
}
name! {
    /// Name of a consumer group.
    GroupName, Named::Consumer
}
name! {
    /// Name of a consumer, a member of a group.
    ConsumerName, Named::Consumer
}
name! {
    /// Name of a schema.
    SchemaName, Named::Schema
}
name! {
    /// Name of a producer.
    ProducerName, Named::Producer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_outside_and_without_dots_inside() {
        let name = StationName::parse("My.Station").expect("a good name");
        assert_eq!(
            (name.external(), name.internal().as_str()),
            ("my.station", "my#station")
        );
        assert_eq!(StationName::parse("my#station"), Ok(name));
    }

    #[test]
    fn each_rule_has_its_text() {
        let text = |text: &str| StationName::parse(text).expect_err("refused").to_string();
        assert_eq!(text(""), "Station name can not be empty");
        assert_eq!(
            text(&"a".repeat(129)),
            "Station should be under 128 characters"
        );
        assert_eq!(StationName::parse(&"a".repeat(128)).map(|_| ()), Ok(()));
        assert_eq!(
            text("a b"),
            "Only alphanumeric and the '_', '-', '.' characters are allowed in Station"
        );
        for bad in [".a", "-a", "_a", "a.", "a-", "a_", "#a", "-"] {
            assert_eq!(
                text(bad),
                "Station name can not start or end with non alphanumeric character"
            );
        }
        assert_eq!(
            GroupName::parse("").expect_err("refused").to_string(),
            "Consumer name can not be empty"
        );
        assert_eq!(
            ProducerName::parse("ü").expect_err("refused").to_string(),
            "Only alphanumeric and the '_', '-', '.' characters are allowed in Producer"
        );
    }

    #[test]
    fn a_stored_name_is_checked_when_it_is_read() {
        let name: StationName = serde_json::from_str("\"a.b\"").expect("a good name");
        assert_eq!(serde_json::to_string(&name).expect("a string"), "\"a.b\"");
        assert!(serde_json::from_str::<StationName>("\"a b\"").is_err());
    }
}
