//! Who a client is: the spellings of a login, the connection name, and what a user may touch.

use std::borrow::Cow;

use crate::name::StationName;

/// Account that holds everything when logins are users with passwords.
pub const DEFAULT_ACCOUNT: &str = "$memphis";
/// Number of that account, the suffix of its user names.
pub const DEFAULT_ACCOUNT_ID: u32 = 1;

/// The user names to look up for a login, in this order: as it came, then with `$1` appended.
pub fn login_candidates(user: &str) -> impl Iterator<Item = Cow<'_, str>> {
    [
        Cow::Borrowed(user),
        Cow::Owned(format!("{user}${DEFAULT_ACCOUNT_ID}")),
    ]
    .into_iter()
}

/// The name people know a user by: a login without its `$<account id>`.
#[must_use]
pub fn display_name(user: &str) -> &str {
    match user.rsplit_once('$') {
        Some((name, id)) if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => user,
    }
}

/// What the `name` of a CONNECT says about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionName<'a> {
    /// A Memphis SDK, `<connection id>::<user>`.
    Native {
        /// Made by the SDK, the same on every reconnect.
        connection_id: &'a str,
        /// Not authenticated; for display only.
        user: &'a str,
    },
    /// Any other NATS client.
    Plain,
    /// More than one `::`; to be refused.
    Malformed,
}

impl<'a> ConnectionName<'a> {
    /// Reads a connection name.
    #[must_use]
    pub fn parse(name: &'a str) -> Self {
        match name.split_once("::") {
            None => Self::Plain,
            Some((_, user)) if user.contains("::") => Self::Malformed,
            Some((connection_id, user)) => Self::Native {
                connection_id,
                user,
            },
        }
    }
}

/// The connection id in a request body: the Java SDK sends its whole connection name.
#[must_use]
pub fn connection_id(text: &str) -> &str {
    text.split_once("::").map_or(text, |(id, _)| id)
}

/// Which stations a user may read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Every station: the root user and users without roles.
    #[default]
    All,
    /// Stations that match a pattern.
    Limited {
        /// Those that may be consumed.
        read: Vec<StationPattern>,
        /// Those that may be made, removed and produced to.
        write: Vec<StationPattern>,
    },
}

impl Access {
    /// Whether `station` may be consumed.
    #[must_use]
    pub fn may_read(&self, station: &StationName) -> bool {
        match self {
            Self::All => true,
            Self::Limited { read, .. } => read.iter().any(|pattern| pattern.matches(station)),
        }
    }

    /// Whether `station` may be made, removed and produced to.
    #[must_use]
    pub fn may_write(&self, station: &StationName) -> bool {
        match self {
            Self::All => true,
            Self::Limited { write, .. } => write.iter().any(|pattern| pattern.matches(station)),
        }
    }
}

/// A pattern of external station names. With a `*` in it, it is a regular expression over the
/// whole name in which `.` is any character and `*` repeats what stands before it; without, it
/// is the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationPattern(String);

impl StationPattern {
    /// A pattern; letters are lower-cased.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_lowercase())
    }

    /// Whether the whole name matches.
    #[must_use]
    pub fn matches(&self, station: &StationName) -> bool {
        let (pattern, name) = (self.0.as_bytes(), station.external().as_bytes());
        if !pattern.contains(&b'*') {
            return pattern == name;
        }
        let mut atoms: Vec<(u8, bool)> = Vec::new();
        for &byte in pattern {
            match (byte, atoms.last_mut()) {
                (b'*', Some((_, repeated))) => *repeated = true,
                (b'*', None) => {}
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

    #[test]
    fn a_bare_login_is_tried_with_the_default_account_id() {
        let tried: Vec<_> = login_candidates("root").collect();
        assert_eq!(tried, ["root", "root$1"]);
    }

    #[test]
    fn only_a_number_after_the_dollar_is_an_account_id() {
        assert_eq!(display_name("root$1"), "root");
        assert_eq!(display_name("root"), "root");
        assert_eq!(display_name("a$b"), "a$b");
        assert_eq!(display_name("a$"), "a$");
        assert_eq!(display_name("$$memphis"), "$$memphis");
    }

    #[test]
    fn connection_names_tell_sdks_from_plain_clients() {
        assert_eq!(
            ConnectionName::parse("4b76::root"),
            ConnectionName::Native {
                connection_id: "4b76",
                user: "root"
            }
        );
        assert_eq!(
            ConnectionName::parse("NATS CLI Version 1"),
            ConnectionName::Plain
        );
        assert_eq!(ConnectionName::parse(""), ConnectionName::Plain);
        assert_eq!(ConnectionName::parse("a::b::c"), ConnectionName::Malformed);
        assert_eq!(connection_id("4b76::root"), "4b76");
        assert_eq!(connection_id("4b76"), "4b76");
    }

    #[test]
    fn a_star_makes_a_pattern_a_regular_expression() {
        let matches = |pattern: &str, name: &str| {
            StationPattern::new(pattern).matches(&StationName::parse(name).expect("a good name"))
        };
        assert!(matches("orders", "orders"));
        assert!(!matches("orders", "orders2"));
        assert!(!matches("o.ders", "orders"));
        assert!(matches("orders.*", "orders"));
        assert!(matches("orders.*", "orders.eu"));
        assert!(!matches("orders.*", "my-orders"));
        assert!(matches(".*", "anything"));
        assert!(matches("*a", "a"));
        assert!(matches("ab*c", "ac"));
        assert!(matches("ab*c", "abbbc"));
        assert!(!matches("ab*c", "abd"));
        assert!(matches(&"a*".repeat(60), &"a".repeat(100)));
    }
}
