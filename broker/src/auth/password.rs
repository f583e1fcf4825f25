//! Stored passwords and tokens, in clear or hashed.

use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use data_encoding::BASE32_NOPAD;
use menes_stations::user::{TOKEN_PREFIX, check_password};
use rand::Rng;
use subtle::ConstantTimeEq;

/// Longer passwords are refused before anything is computed.
pub(crate) const MAX_BYTES: usize = 1024;

/// What a password is compared with.
pub(crate) enum Secret {
    Clear(Box<str>),
    /// `$2a$…` and its relatives.
    Bcrypt(Box<str>),
    /// `$argon2id$…`
    Argon2(Box<str>),
    /// Matches nothing, after as long as a usual bcrypt.
    Decoy,
    /// Matches nothing, after as long as a password that was hashed here.
    StoredDecoy,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a decoy computes: cost 11, that of `nats server passwd`.
const DECOY_HASH: &str = "$2a$11$vAhzpjAEbqr5qgpqLQ8g4u6Wk8vUyZCcqpzGv8m8OGxTQWSmVKlsy";

impl Secret {
    /// A stored value; a hash is recognised by its beginning.
    pub(crate) fn new(stored: &str) -> Self {
        if is_bcrypt(stored) {
            Self::Bcrypt(stored.into())
        } else if stored.starts_with("$argon2") {
            Self::Argon2(stored.into())
        } else {
            Self::Clear(stored.into())
        }
    }

    /// A secret nobody has.
    pub(crate) const fn decoy() -> Self {
        Self::Decoy
    }

    /// A secret nobody has among those that are hashed here.
    pub(crate) const fn stored_decoy() -> Self {
        Self::StoredDecoy
    }

    /// The hash, if it is one.
    pub(crate) fn hash(&self) -> Option<&str> {
        match self {
            Self::Bcrypt(hash) | Self::Argon2(hash) => Some(hash),
            Self::Clear(_) | Self::Decoy | Self::StoredDecoy => None,
        }
    }

    /// Whether [`Secret::matches`] takes long.
    pub(crate) const fn is_slow(&self) -> bool {
        !matches!(self, Self::Clear(_))
    }

    /// Whether `given` is the password.
    pub(crate) fn matches(&self, given: &str) -> bool {
        match self {
            Self::Clear(stored) => stored.as_bytes().ct_eq(given.as_bytes()).into(),
            Self::Bcrypt(hash) => bcrypt::verify(given, hash).unwrap_or(false),
            Self::Argon2(hash) => PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(given.as_bytes(), &hash)
                    .is_ok()
            }),
            Self::Decoy => {
                // Only the time it takes is of interest.
                drop(bcrypt::verify(given, DECOY_HASH));
                false
            }
            Self::StoredDecoy => {
                drop(hash(given));
                false
            }
        }
    }
}

/// A password as it is stored: argon2id with the parameters that OWASP recommends (19 MiB, two
/// passes) and a salt of its own; `None` if it is longer than those may be.
#[must_use]
pub fn hash(password: &str) -> Option<String> {
    let salt = rand::rng().random::<[u8; 16]>();
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .ok()?;
    Some(hash.to_string())
}

/// A password that keeps to the rules, for somebody to write down.
pub(crate) fn random() -> String {
    // Without those that look alike.
    const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut random = rand::rng();
    loop {
        let mut text = String::with_capacity(20);
        for at in 0..20 {
            text.push(if at % 7 == 6 {
                '-'
            } else {
                char::from(LETTERS[random.random_range(0..LETTERS.len())])
            });
        }
        if check_password(&text).is_ok() {
            return text;
        }
    }
}

/// A connection token with 160 random bits.
pub(crate) fn random_token() -> String {
    let bits = rand::rng().random::<[u8; 20]>();
    format!(
        "{TOKEN_PREFIX}{}",
        BASE32_NOPAD.encode(&bits).to_lowercase()
    )
}

/// Tells one token of a user from the others.
pub(crate) fn random_id() -> String {
    let bits = rand::rng().random::<[u8; 5]>();
    BASE32_NOPAD.encode(&bits).to_lowercase()
}

/// Whether the value looks like `$2a$11$…`.
fn is_bcrypt(stored: &str) -> bool {
    matches!(
        stored.as_bytes(),
        [b'$', b'2', b'a' | b'b' | b'x' | b'y', b'$', tens, ones, b'$', ..]
            if tens.is_ascii_digit() && ones.is_ascii_digit()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_recognised_by_their_beginning() {
        assert!(matches!(Secret::new("$2a$11$x"), Secret::Bcrypt(_)));
        assert!(matches!(Secret::new("$2$11$x"), Secret::Clear(_)));
        assert!(matches!(Secret::new("$argon2id$v=19$x"), Secret::Argon2(_)));
        assert!(matches!(Secret::new("plain"), Secret::Clear(_)));
    }

    #[test]
    fn what_is_made_here_keeps_to_the_rules() {
        let password = random();
        assert_eq!(check_password(&password), Ok(()));
        assert_ne!(password, random());
        let hash = hash(&password).expect("it can be hashed");
        assert!(
            menes_stations::user::PasswordHash::parse(&hash).is_ok(),
            "{hash}"
        );
        let secret = Secret::new(&hash);
        assert!(secret.matches(&password) && !secret.matches("other"));
        assert!(random_token().starts_with(TOKEN_PREFIX));
    }

    #[test]
    fn each_kind_matches_its_password_only() {
        let bcrypt = Secret::new(&bcrypt::hash("p", 4).expect("a cost in range"));
        for secret in [Secret::new("p"), bcrypt] {
            assert!(secret.matches("p"));
            assert!(!secret.matches("q"));
            assert!(!secret.matches(""));
        }
        assert!(!Secret::decoy().matches("p"));
        assert!(!Secret::stored_decoy().matches("p"));
        assert!(!Secret::new("$2a$11$broken").matches("p"));
        assert!(!Secret::new("$argon2id$broken").matches("p"));
    }
}
