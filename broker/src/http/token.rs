//! Tokens for HTTP clients: JSON Web Tokens, signed with a key that this server made when it
//! started.
//!
//! A token says which session it belongs to and when it ends, nothing else: no password travels in
//! it, and after a restart every client logs in again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use data_encoding::BASE64URL_NOPAD;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// The only header there is: it is compared, not read.
const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;
/// Longest token that is looked at, bytes.
const MAX_TOKEN: usize = 1_024;

/// Signs and checks tokens of one kind.
pub(crate) struct Tokens(Key);

impl std::fmt::Debug for Tokens {
    /// Leaves out the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    /// The session.
    sid: String,
    /// End, seconds since 1970.
    exp: u64,
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Tokens {
    /// Tokens that nobody else can sign.
    pub(crate) fn new() -> Self {
        let key = rand::rng().random::<[u8; 32]>();
        Self(Key::new(HMAC_SHA256, &key))
    }

    /// A token for a session.
    pub(crate) fn sign(&self, session: &str, lifetime: Duration) -> String {
        let claims = Claims {
            sid: session.to_owned(),
            exp: unix_seconds().saturating_add(lifetime.as_secs()),
        };
        let claims = serde_json::to_vec(&claims).expect("texts and numbers are JSON");
        let mut token = BASE64URL_NOPAD.encode(HEADER);
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(&claims));
        let signature = hmac::sign(&self.0, token.as_bytes());
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(signature.as_ref()));
        token
    }

    /// The session of a token that was signed here and has not ended.
    pub(crate) fn session(&self, token: &str) -> Option<String> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        hmac::verify(&self.0, signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        (claims.exp > unix_seconds()).then_some(claims.sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_names_its_session_until_it_ends() {
        let tokens = Tokens::new();
        let token = tokens.sign("s", HOUR);
        assert_eq!(tokens.session(&token).as_deref(), Some("s"));
        assert_eq!(tokens.session(&tokens.sign("s", Duration::ZERO)), None);
    }

    #[test]
    fn tokens_of_others_are_refused() {
        let tokens = Tokens::new();
        let token = tokens.sign("s", HOUR);
        assert_eq!(Tokens::new().session(&token), None);
        let unsigned = BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
        let claims = token.split('.').nth(1).expect("three parts");
        for forged in [
            format!("{unsigned}.{claims}."),
            format!("{token}x"),
            claims.to_owned(),
            String::new(),
            "..".to_owned(),
            "x".repeat(10_000),
        ] {
            assert_eq!(tokens.session(&forged), None, "{forged}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_a_token(text in ".{0,200}", flip in 0_usize..100) {
            let tokens = Tokens::new();
            assert_eq!(tokens.session(&text), None);
            let mut token = tokens.sign("s", HOUR).into_bytes();
            let at = flip % token.len();
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(token).expect("still ASCII");
            assert_eq!(tokens.session(&changed), None);
        }
    }
}
