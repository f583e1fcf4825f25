//! Which stations an application user may read and write.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::name::StationName;

/// Longest pattern in bytes.
const MAX_PATTERN: usize = 120;
/// Most patterns of one list.
pub(crate) const MAX_PATTERNS: usize = 200;

/// Four lists of patterns. Without any list every station may be read and written; with one of the
/// first two, only what these allow; what the last two deny is denied whatever the others say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Stations that may be consumed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_read: Vec<StationPattern>,
    /// Stations that may be made, removed and produced to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_write: Vec<StationPattern>,
    /// Stations that may not be consumed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_read: Vec<StationPattern>,
    /// Stations that may not be made, removed and produced to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_write: Vec<StationPattern>,
}

impl Access {
    /// Every station.
    pub const ALL: Self = Self {
        allow_read: Vec::new(),
        allow_write: Vec::new(),
        deny_read: Vec::new(),
        deny_write: Vec::new(),
    };

    /// Whether `station` may be consumed.
    #[must_use]
    pub fn may_read(&self, station: &StationName) -> bool {
        self.may_read_named(station.external().as_bytes())
    }

    /// Whether `station` may be made, removed and produced to.
    #[must_use]
    pub fn may_write(&self, station: &StationName) -> bool {
        self.may_write_named(station.external().as_bytes())
    }

    /// The same by an external name.
    pub(super) fn may_read_named(&self, name: &[u8]) -> bool {
        self.allows(&self.allow_read, &self.deny_read, name)
    }

    pub(super) fn may_write_named(&self, name: &[u8]) -> bool {
        self.allows(&self.allow_write, &self.deny_write, name)
    }

    /// Only what is listed is allowed.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        !self.allow_read.is_empty() || !self.allow_write.is_empty()
    }

    /// There are no lists.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }

    fn allows(&self, allow: &[StationPattern], deny: &[StationPattern], name: &[u8]) -> bool {
        let covers = |pattern: &StationPattern| pattern.covers(name);
        (!self.is_limited() || allow.iter().any(covers)) && !deny.iter().any(covers)
    }
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Nothing there.
    #[error("a station pattern can not be empty")]
    Empty,
    /// Too long.
    #[error("a station pattern should be under 120 characters")]
    TooLong,
    /// A character that no pattern has.
    #[error("only a-z, 0-9 and the '_', '-', '.', '*' characters are allowed in a station pattern")]
    Characters,
}

/// A pattern of external station names. With a `*` in it, it is a regular expression over the
/// whole name in which `.` is any character and `*` repeats what stands before it, or any
/// character where nothing does; without, it is the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StationPattern(String);

impl fmt::Display for StationPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StationPattern {
    /// A pattern as people write it; letters are lower-cased.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let pattern = Self::new(text.trim());
        if pattern.0.is_empty() {
            return Err(PatternError::Empty);
        }
        if pattern.0.len() > MAX_PATTERN {
            return Err(PatternError::TooLong);
        }
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || matches!(byte, b'_' | b'-' | b'.' | b'*')
        };
        if pattern.0.bytes().all(allowed) {
            Ok(pattern)
        } else {
            Err(PatternError::Characters)
        }
    }

    /// A pattern; letters are lower-cased, nothing is checked.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_lowercase())
    }

    /// Whether the whole name matches.
    #[must_use]
    pub fn matches(&self, station: &StationName) -> bool {
        self.covers(station.external().as_bytes())
    }

    /// The same for a name that is not checked.
    pub(super) fn covers(&self, name: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        if !pattern.contains(&b'*') {
            return pattern == name;
        }
        let mut atoms: Vec<(u8, bool)> = Vec::new();
        for &byte in pattern {
            match (byte, atoms.last_mut()) {
                (b'*', Some((_, repeated))) => *repeated = true,
                (b'*', None) => atoms.push((b'.', true)),
                _ => atoms.push((byte, false)),
            }
        }
        // `reached[i]`: the first `i` atoms can match what was read so far.
        let mut reached = vec![false; atoms.len() + 1];
        reached[0] = true;
        skip_repeated(&atoms, &mut reached);
        for &byte in name {
            let mut next = vec![false; atoms.len() + 1];
            for (i, &(atom, repeated)) in atoms.iter().enumerate() {
                if reached[i] && (atom == b'.' || atom == byte) {
                    next[if repeated { i } else { i + 1 }] = true;
                }
            }
            skip_repeated(&atoms, &mut next);
            reached = next;
        }
        reached[atoms.len()]
    }
}

fn skip_repeated(atoms: &[(u8, bool)], reached: &mut [bool]) {
    for (i, &(_, repeated)) in atoms.iter().enumerate() {
        if reached[i] && repeated {
            reached[i + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> StationName {
        StationName::parse(name).expect("a good name")
    }

    #[test]
    fn a_star_makes_a_pattern_a_regular_expression() {
        let matches =
            |pattern: &str, name: &str| StationPattern::new(pattern).matches(&named(name));
        assert!(matches("orders", "orders"));
        assert!(!matches("orders", "orders2"));
        assert!(!matches("o.ders", "orders"));
        assert!(matches("orders.*", "orders"));
        assert!(matches("orders.*", "orders.eu"));
        assert!(!matches("orders.*", "my-orders"));
        assert!(matches(".*", "anything"));
        assert!(matches("*", "anything"));
        assert!(matches("*a", "a"));
        assert!(matches("ab*c", "ac"));
        assert!(matches("ab*c", "abbbc"));
        assert!(!matches("ab*c", "abd"));
        assert!(matches(&"a*".repeat(60), &"a".repeat(100)));
    }

    #[test]
    fn patterns_hold_what_names_hold_and_stars() {
        assert_eq!(
            StationPattern::parse("Orders.*"),
            Ok(StationPattern::new("orders.*"))
        );
        assert_eq!(StationPattern::parse(" "), Err(PatternError::Empty));
        assert_eq!(StationPattern::parse("a b"), Err(PatternError::Characters));
        assert_eq!(StationPattern::parse("a>"), Err(PatternError::Characters));
        assert_eq!(
            StationPattern::parse(&"a".repeat(121)),
            Err(PatternError::TooLong)
        );
    }

    #[test]
    fn a_denial_wins_over_what_is_allowed() {
        let patterns = |list: &[&str]| list.iter().map(|text| StationPattern::new(text)).collect();
        assert!(Access::ALL.may_read(&named("a")) && Access::ALL.may_write(&named("a")));
        let reader = Access {
            allow_read: patterns(&["a.*"]),
            deny_read: patterns(&["a.b"]),
            ..Access::ALL
        };
        assert!(reader.may_read(&named("a.c")));
        assert!(!reader.may_read(&named("a.b")));
        assert!(!reader.may_read(&named("c")));
        assert!(!reader.may_write(&named("a.c")));
        let kept_out = Access {
            deny_write: patterns(&["a"]),
            ..Access::ALL
        };
        assert!(kept_out.may_read(&named("a")) && !kept_out.may_write(&named("a")));
        assert!(kept_out.may_write(&named("b")));
    }
}
