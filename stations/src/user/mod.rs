//! Users: who a client is, what is stored about the users of each tenant, and what they may touch.
//!
//! What is stored is a part of the [`State`](crate::State) like stations are, and changes by
//! commands alone. Nothing secret is in it: passwords are hashes made elsewhere, tokens are the
//! digests of long random texts.

mod access;
mod people;
mod record;
mod subjects;

use std::borrow::Cow;

pub(crate) use access::MAX_PATTERNS;
pub use access::{Access, PatternError, StationPattern};
pub use people::{People, UserRef};
pub use record::{
    ConfiguredUser, DEFAULT_TENANT, HashError, MAX_TOKENS, PasswordError, PasswordHash, Profile,
    Role, TOKEN_PREFIX, Tenant, Token, User, UserChange, UserKind, UserName, UserNameError,
    check_password,
};

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
}
