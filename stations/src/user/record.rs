//! What is stored about a user and a tenant.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use menes_jetstream::{AccountName, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Access;

/// What the tenant that is always there is called; its account is `$G`.
pub const DEFAULT_TENANT: &str = "$memphis";
/// What every connection token begins with.
pub const TOKEN_PREFIX: &str = "mnt_";
/// Most connection tokens of one user.
pub const MAX_TOKENS: usize = 100;
/// Longest name of a user or a tenant, bytes.
const MAX_NAME: usize = 60;
/// Shortest and longest password, characters.
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=20;
/// Characters of a password that are neither letters nor digits.
const SPECIAL: &str = "!?-@#$%";
/// Longest text of a hash, bytes.
const MAX_HASH: usize = 512;

/// The name of a user or a tenant: 1 to 60 of `a-z`, `0-9`, `_`, `-`, `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(Arc<str>);

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UserNameError {
    /// Nothing there.
    #[error("username can not be empty")]
    Empty,
    /// More than 60 bytes.
    #[error("username exceeds the maximum allowed length of 60 characters")]
    TooLong,
    /// Something else in it.
    #[error("username has to include only letters, numbers and the '_', '-', '.' characters")]
    Characters,
}

impl UserName {
    /// Lower-cases and checks.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, UserNameError> {
        let name = text.to_lowercase();
        if name.is_empty() {
            return Err(UserNameError::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(UserNameError::TooLong);
        }
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.')
        };
        if name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(UserNameError::Characters)
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The account of the tenant of this name.
    #[must_use]
    pub fn account(&self) -> AccountName {
        AccountName::from(&*self.0)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UserName {
    type Error = UserNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// What a user is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// The one who makes tenants, in the default tenant; cannot be removed.
    Root,
    /// A person: everything in its own tenant.
    Management,
    /// A program: produces and consumes, as far as its [`Access`] goes.
    Application,
}

impl UserKind {
    /// What a request asks for; root is made by the server alone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "management" => Some(Self::Management),
            "application" => Some(Self::Application),
            _ => None,
        }
    }

    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Management => "management",
            Self::Application => "application",
        }
    }
}

/// What a connection may ask of the broker itself; a [`UserKind`], or what stands for it where
/// users come from elsewhere. A greater one may do what a smaller one may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Produces and consumes.
    Application,
    /// Manages its own account as far as permissions of its own go, and no users: those it makes
    /// would have none.
    Limited,
    /// Manages its own account.
    #[default]
    Management,
    /// Manages tenants too.
    Root,
}

impl From<UserKind> for Role {
    fn from(kind: UserKind) -> Self {
        match kind {
            UserKind::Root => Self::Root,
            UserKind::Management => Self::Management,
            UserKind::Application => Self::Application,
        }
    }
}

/// A password that was hashed elsewhere: argon2id or, from an import, bcrypt, in the usual text
/// form. Is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordHash(Arc<str>);

/// Why a hash is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HashError {
    /// Neither of the two kinds.
    #[error("password_hash has to be an argon2id or a bcrypt hash")]
    Kind,
    /// Checking it would take too much memory or time.
    #[error(
        "password_hash costs too much to check: at most 256 MiB and 8 passes, or bcrypt cost 14"
    )]
    Cost,
}

impl PasswordHash {
    /// Looks at the kind and the cost of a hash.
    ///
    /// # Errors
    /// A kind that is not known, or a cost that nobody should be able to cause.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        if text.len() > MAX_HASH || !text.is_ascii() {
            return Err(HashError::Kind);
        }
        if let Some(rest) = text.strip_prefix("$argon2id$") {
            let parameters = rest
                .split('$')
                .find(|part| part.starts_with("m="))
                .ok_or(HashError::Kind)?;
            for part in parameters.split(',') {
                let (name, value) = part.split_once('=').ok_or(HashError::Kind)?;
                let value: u32 = value.parse().map_err(|_| HashError::Kind)?;
                let most = match name {
                    "m" => 256 * 1024,
                    "t" | "p" => 8,
                    _ => return Err(HashError::Kind),
                };
                if value > most {
                    return Err(HashError::Cost);
                }
            }
            return Ok(Self(text.into()));
        }
        let bytes = text.as_bytes();
        match bytes {
            [
                b'$',
                b'2',
                b'a' | b'b' | b'x' | b'y',
                b'$',
                tens,
                ones,
                b'$',
                ..,
            ] if tens.is_ascii_digit() && ones.is_ascii_digit() && bytes.len() == 60 => {
                let cost = (tens - b'0') * 10 + (ones - b'0');
                if cost > 14 {
                    return Err(HashError::Cost);
                }
                Ok(Self(text.into()))
            }
            _ => Err(HashError::Kind),
        }
    }

    /// The text, to check passwords with.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> Self {
        hash.0.as_ref().to_owned()
    }
}

/// A password that is too weak, or has characters that no password has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "password must be 8 to 20 characters of letters, digits and !?-@#$%, with at least one \
     uppercase letter, one lowercase letter, one digit and one special character"
)]
pub struct PasswordError;

/// The rules for passwords.
///
/// # Errors
/// Some rule is broken; which, would help a guess.
pub fn check_password(password: &str) -> Result<(), PasswordError> {
    let all = |rule: fn(char) -> bool| password.chars().all(rule);
    let any = |rule: fn(char) -> bool| password.chars().any(rule);
    let is_special = |character: char| SPECIAL.contains(character);
    let is_good = PASSWORD_LENGTH.contains(&password.len())
        && all(|character| character.is_ascii_alphanumeric() || SPECIAL.contains(character))
        && any(|character| character.is_ascii_uppercase())
        && any(|character| character.is_ascii_lowercase())
        && any(|character| character.is_ascii_digit())
        && any(is_special);
    if is_good { Ok(()) } else { Err(PasswordError) }
}

/// A connection token of a user. The token itself is known to whoever got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What people call it by.
    pub id: String,
    /// SHA-256 of the whole token, lower-case hexadecimal.
    pub digest: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
}

/// What people note about a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// At most 100 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// At most 30 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub full_name: String,
    /// At most 20 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub team: String,
    /// At most 30 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub position: String,
    /// Who answers for it; at most 60 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Number of a picture.
    #[serde(skip_serializing_if = "is_zero")]
    pub avatar_id: i64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Profile {
    /// Looks at the lengths.
    ///
    /// # Errors
    /// For people: the field that is too long.
    pub fn check(&self) -> Result<(), String> {
        let fields = [
            ("description", &self.description, 100),
            ("full_name", &self.full_name, 30),
            ("team", &self.team, 20),
            ("position", &self.position, 30),
            ("owner", &self.owner, 60),
        ];
        for (name, text, most) in fields {
            if text.chars().count() > most {
                return Err(format!("{name} should be at most {most} characters"));
            }
        }
        Ok(())
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Name, unique in its tenant.
    pub name: UserName,
    /// What it is there for.
    pub kind: UserKind,
    /// Without one it can log in by a token only.
    pub password: Option<PasswordHash>,
    /// Times the password was changed; who logged in before the last one has to go.
    #[serde(default)]
    pub password_changes: u64,
    /// Connection tokens by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, Token>,
    /// Of an application user: what it may touch.
    #[serde(default, skip_serializing_if = "Access::is_all")]
    pub access: Access,
    /// What people note.
    #[serde(default)]
    pub profile: Profile,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// What changes about a user; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserChange {
    /// Other lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Other notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// A tenant: an account with its own stations, groups, schemas and users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Name, which is that of its account.
    pub name: UserName,
    /// What SDKs know it by: `<user>$<id>`. Is given when it is made and never given again.
    pub id: u32,
    /// What people note.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// A user of the configuration: known here to be shown, and so that nobody else gets its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredUser {
    /// Its account.
    pub account: AccountName,
    /// Its name.
    pub name: String,
    /// What it may ask of the broker.
    pub role: Role,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_lower_case_and_short() {
        assert_eq!(
            UserName::parse("Ada.L-1").map(String::from),
            Ok("ada.l-1".to_owned())
        );
        assert_eq!(UserName::parse(""), Err(UserNameError::Empty));
        assert_eq!(UserName::parse("a$1"), Err(UserNameError::Characters));
        assert_eq!(
            UserName::parse(&"a".repeat(61)),
            Err(UserNameError::TooLong)
        );
    }

    #[test]
    fn a_password_needs_four_kinds_of_characters() {
        for good in ["Abcdef1!", "aB3$aB3$aB3$aB3$aB3$"] {
            assert_eq!(check_password(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "Abcde1!",
            "aB3$aB3$aB3$aB3$aB3$x",
            "abcdef1!",
            "ABCDEF1!",
            "Abcdefg!",
            "Abcdefg1",
            "Abcdef1! ",
            "Abcdef1!é",
        ] {
            assert_eq!(check_password(bad), Err(PasswordError), "{bad}");
        }
    }

    #[test]
    fn a_hash_that_costs_too_much_is_refused() {
        let argon = |p: &str| format!("$argon2id$v=19${p}$c2FsdHNhbHQ$aGFzaA");
        assert!(PasswordHash::parse(&argon("m=19456,t=2,p=1")).is_ok());
        assert_eq!(
            PasswordHash::parse(&argon("m=4194304,t=2,p=1")),
            Err(HashError::Cost)
        );
        assert_eq!(
            PasswordHash::parse(&argon("m=19456,t=99,p=1")),
            Err(HashError::Cost)
        );
        assert_eq!(
            PasswordHash::parse("$argon2i$v=19$m=1,t=1,p=1$a$b"),
            Err(HashError::Kind)
        );
        let bcrypt = |cost: &str| format!("$2a${cost}${}", "a".repeat(53));
        assert!(PasswordHash::parse(&bcrypt("10")).is_ok());
        assert_eq!(PasswordHash::parse(&bcrypt("31")), Err(HashError::Cost));
        assert_eq!(PasswordHash::parse("plain"), Err(HashError::Kind));
        let hash = PasswordHash::parse(&bcrypt("10")).expect("good");
        assert_eq!(format!("{hash:?}"), "PasswordHash");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reading_of_hashes(text in "\\$?(argon2id|2a)?\\$?.{0,80}") {
            let _ = PasswordHash::parse(&text);
        }
    }
}
