//! Passwords of application users, which Memphis kept in a form that its key opens.
//!
//! A password is AES-GCM of the text, with the nonce before it and the tag behind it, in
//! hexadecimal or base64. The key is the text that Memphis's brokers had as
//! `ENCRYPTION_SECRET_KEY`. The tag says whether a key is the right one, and is what tells if this
//! reading of the form is wrong: it was never held against a Memphis that ran.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce,
    UnboundKey,
};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};

use super::super::{Outcome, Trouble};
use super::metadata::UserRow;

/// The variable that Memphis's brokers have their key in.
pub(super) const KEY_VARIABLE: &str = "ENCRYPTION_SECRET_KEY";

/// What opens passwords.
struct Key(LessSafeKey);

impl Key {
    fn parse(text: &str) -> Result<Self, String> {
        let algorithm: &Algorithm = match text.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            length => {
                return Err(format!(
                    "the key of Memphis has 32 characters, not {length}"
                ));
            }
        };
        let key = UnboundKey::new(algorithm, text.as_bytes())
            .map_err(|_| "the key of Memphis cannot be used".to_owned())?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// The password, if this is the key it was kept with.
    fn open(&self, kept: &str) -> Option<String> {
        let encodings = [HEXLOWER_PERMISSIVE, BASE64].into_iter();
        let decoded = encodings.filter_map(|encoding| encoding.decode(kept.as_bytes()).ok());
        let mut opened = decoded.filter_map(|bytes| {
            let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut sealed = sealed.to_vec();
            let plain = self
                .0
                .open_in_place(nonce, Aad::empty(), &mut sealed)
                .ok()?;
            String::from_utf8(plain.to_vec()).ok()
        });
        opened.next()
    }
}

/// Whether the password of this user is one that a key has to open.
pub(super) fn is_sealed(user: &UserRow) -> bool {
    user.kind == "application" && !user.password.is_empty() && !user.password.starts_with("$2")
}

/// Hashes of the passwords that the key opens, by user; before anything is changed.
///
/// # Errors
/// The key is none, or opens not a single one of the passwords there are.
pub(super) fn hashes(users: &[UserRow], key: Option<&str>) -> Outcome<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    let Some(key) = key else {
        return Ok(hashes);
    };
    let key = Key::parse(key).map_err(Trouble::Usage)?;
    let sealed: Vec<&UserRow> = users.iter().filter(|user| is_sealed(user)).collect();
    for user in &sealed {
        let Some(password) = key.open(&user.password) else {
            continue;
        };
        let hash = menes_broker::auth::hash_password(&password)
            .ok_or_else(|| Trouble::Failed("a password cannot be hashed".to_owned()))?;
        hashes.insert(user.username.clone(), hash);
    }
    if hashes.is_empty() && !sealed.is_empty() {
        return Err(Trouble::Failed(format!(
            "the key of Memphis opens none of the {} passwords of its application users: it is \
             another one, and nothing was changed. It is what its brokers had as {KEY_VARIABLE}; \
             without a key, users come without passwords",
            sealed.len()
        )));
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn sealed(key: &str, nonce: [u8; NONCE_LEN], text: &str) -> Vec<u8> {
        let mut sealed = text.as_bytes().to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        Key::parse(key)
            .expect("a key")
            .0
            .seal_in_place_append_tag(nonce_used, Aad::empty(), &mut sealed)
            .expect("it fits");
        [&nonce[..], &sealed].concat()
    }

    fn user(name: &str, kind: &str, password: &str) -> UserRow {
        UserRow {
            username: name.into(),
            kind: kind.into(),
            password: password.into(),
            ..UserRow::default()
        }
    }

    #[test]
    fn a_key_opens_what_it_sealed_and_nothing_else() {
        let bytes = sealed(KEY, [7; NONCE_LEN], "Secret-1!");
        let key = Key::parse(KEY).expect("a key");
        let other = Key::parse("0123456789abcdef0123456789abcdeX").expect("a key");
        for kept in [HEXLOWER_PERMISSIVE.encode(&bytes), BASE64.encode(&bytes)] {
            assert_eq!(key.open(&kept).as_deref(), Some("Secret-1!"));
            assert_eq!(other.open(&kept), None);
        }
        assert_eq!(key.open("zz"), None);
        assert!(Key::parse("short").is_err());
    }

    #[test]
    fn only_application_users_have_something_to_open() {
        let kept = HEXLOWER_PERMISSIVE.encode(&sealed(KEY, [1; NONCE_LEN], "Secret-1!"));
        let users = [
            user("root", "root", "$2a$04$x"),
            user("anna", "management", "$2a$04$x"),
            user("app", "application", &kept),
            user("tokens", "application", ""),
            user("odd", "application", "00"),
        ];
        let hashes = hashes(&users, Some(KEY)).expect("it opens them");
        assert_eq!(hashes.keys().collect::<Vec<_>>(), ["app"]);
        assert!(hashes["app"].starts_with("$argon2id$"));
    }

    #[test]
    fn a_wrong_key_is_told_before_anything_happens() {
        let kept = HEXLOWER_PERMISSIVE.encode(&sealed(KEY, [1; NONCE_LEN], "Secret-1!"));
        let users = [user("app", "application", &kept)];
        let wrong = hashes(&users, Some("0123456789abcdef0123456789abcdeX"));
        assert!(matches!(wrong, Err(Trouble::Failed(_))));
        assert!(hashes(&users, None).expect("no key").is_empty());
        assert!(
            hashes(&users[..0], Some(KEY))
                .expect("nothing to open")
                .is_empty()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at(text in ".{0,80}", hex in "[0-9a-f]{0,120}") {
            let key = Key::parse(KEY).expect("a key");
            prop_assert_eq!(key.open(&text), None);
            prop_assert_eq!(key.open(&hex), None);
        }
    }
}
