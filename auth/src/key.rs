//! Keys as NATS writes them: base32 of a prefix that says what the key is for, 32 bytes, and a
//! checksum.

use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use nkeys::{KeyPair, KeyPairType, XKey};
use thiserror::Error;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `O`, signs accounts.
    Operator,
    /// `A`, signs users.
    Account,
    /// `U`, signs nonces.
    User,
    /// `N`, a server.
    Server,
    /// `X`, encrypts.
    Curve,
}

impl KeyKind {
    /// Whether `text` is a well-formed public key of this kind.
    #[must_use]
    pub fn is_public_key(self, text: &str) -> bool {
        match self {
            Self::Curve => XKey::from_public_key(text).is_ok() && text.len() == PUBLIC_KEY_LEN,
            _ => nkeys::from_public_key(text).is_ok_and(|(prefix, _)| prefix == self.prefix()),
        }
    }

    const fn prefix(self) -> u8 {
        match self {
            Self::Operator => 14 << 3,
            Self::Account => 0,
            Self::User => 20 << 3,
            Self::Server => 13 << 3,
            Self::Curve => 23 << 3,
        }
    }
}

/// Characters of a public key.
pub const PUBLIC_KEY_LEN: usize = 56;

/// A key that cannot be read, or a signature that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not a key of the kind expected.
    #[error("not a valid key")]
    Invalid,
    /// Not the signature of this key over these bytes.
    #[error("signature does not match")]
    Signature,
    /// A sealed message that this key does not open.
    #[error("message cannot be decrypted")]
    Sealed,
}

/// Checks `signature` by the public key `key` over `message`.
///
/// # Errors
/// An invalid key, or a signature that is not its own.
pub fn verify(key: &str, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
    let key = KeyPair::from_public_key(key).map_err(|_| KeyError::Invalid)?;
    key.verify(message, signature)
        .map_err(|_| KeyError::Signature)
}

/// Whether `text` is a public key that can sign, of whatever kind.
#[must_use]
pub fn is_public(text: &str) -> bool {
    nkeys::from_public_key(text).is_ok_and(|(prefix, _)| prefix != KeyKind::Curve.prefix())
}

/// Checks the `sig` of CONNECT, base64url without padding or plain base64, over the server's nonce.
///
/// # Errors
/// As [`verify`]; text that is no base64 is a wrong signature.
pub fn verify_nonce(key: &str, nonce: &str, signature: &str) -> Result<(), KeyError> {
    let raw = BASE64URL_NOPAD
        .decode(signature.as_bytes())
        .or_else(|_| BASE64.decode(signature.as_bytes()))
        .map_err(|_| KeyError::Signature)?;
    verify(key, nonce.as_bytes(), &raw)
}

/// A pair that signs.
#[derive(Clone)]
pub struct Signer {
    pair: KeyPair,
    public: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A new pair.
    #[must_use]
    pub fn generate(kind: KeyKind) -> Self {
        let kind = match kind {
            KeyKind::Operator => KeyPairType::Operator,
            KeyKind::Account => KeyPairType::Account,
            KeyKind::User => KeyPairType::User,
            KeyKind::Server => KeyPairType::Server,
            KeyKind::Curve => KeyPairType::Curve,
        };
        Self::of(KeyPair::new(kind))
    }

    /// The pair of a seed, `S` and the letter of its kind.
    ///
    /// # Errors
    /// Text that is no seed.
    pub fn from_seed(seed: &str) -> Result<Self, KeyError> {
        KeyPair::from_seed(seed)
            .map(Self::of)
            .map_err(|_| KeyError::Invalid)
    }

    fn of(pair: KeyPair) -> Self {
        let public = pair.public_key();
        Self { pair, public }
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public
    }

    /// Its seed: a secret.
    #[must_use]
    pub fn seed(&self) -> String {
        self.pair.seed().expect("a signer has a seed")
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).expect("a signer has a seed")
    }

    /// Signs a nonce, as the `sig` of CONNECT.
    #[must_use]
    pub fn sign_nonce(&self, nonce: &str) -> String {
        BASE64URL_NOPAD.encode(&self.sign(nonce.as_bytes()))
    }
}

/// A pair that encrypts: an X key.
#[derive(Clone)]
pub struct Sealer {
    pair: XKey,
    public: String,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// A new pair.
    #[must_use]
    pub fn generate() -> Self {
        let pair = XKey::new();
        let public = pair.public_key();
        Self { pair, public }
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public
    }

    /// Encrypts for the holder of `recipient`.
    ///
    /// # Errors
    /// A recipient that is no X key.
    pub fn seal(&self, message: &[u8], recipient: &str) -> Result<Vec<u8>, KeyError> {
        let recipient = XKey::from_public_key(recipient).map_err(|_| KeyError::Invalid)?;
        self.pair
            .seal(message, &recipient)
            .map_err(|_| KeyError::Sealed)
    }

    /// Decrypts what the holder of `sender` sealed for this pair.
    ///
    /// # Errors
    /// A sender that is no X key, or a message that was not sealed like that.
    pub fn open(&self, sealed: &[u8], sender: &str) -> Result<Vec<u8>, KeyError> {
        let sender = XKey::from_public_key(sender).map_err(|_| KeyError::Invalid)?;
        self.pair
            .open(sealed, &sender)
            .map_err(|_| KeyError::Sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the `nk` tool.
    const USER_SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    const USER: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    #[test]
    fn keys_of_the_official_tools_are_read() {
        let signer = Signer::from_seed(USER_SEED).expect("a seed");
        assert_eq!(signer.public_key(), USER);
        assert_eq!(signer.seed(), USER_SEED);
        assert!(KeyKind::User.is_public_key(USER));
        assert!(!KeyKind::Account.is_public_key(USER));
    }

    #[test]
    fn a_signature_of_another_key_or_text_is_refused() {
        let signer = Signer::generate(KeyKind::User);
        let signature = signer.sign_nonce("nonce");
        assert_eq!(
            verify_nonce(signer.public_key(), "nonce", &signature),
            Ok(())
        );
        let padded = BASE64.encode(&signer.sign(b"nonce"));
        assert_eq!(verify_nonce(signer.public_key(), "nonce", &padded), Ok(()));
        let wrong = Err(KeyError::Signature);
        assert_eq!(
            verify_nonce(signer.public_key(), "other", &signature),
            wrong
        );
        assert_eq!(verify_nonce(USER, "nonce", &signature), wrong);
        assert_eq!(verify_nonce(USER, "nonce", "***"), wrong);
        assert_eq!(verify_nonce(USER, "nonce", "YQ"), wrong);
        assert_eq!(
            verify_nonce("U", "nonce", &signature),
            Err(KeyError::Invalid)
        );
    }

    #[test]
    fn a_sealed_message_opens_for_its_recipient_only() {
        let (server, service, other) = (Sealer::generate(), Sealer::generate(), Sealer::generate());
        assert!(KeyKind::Curve.is_public_key(server.public_key()));
        let sealed = server.seal(b"hello", service.public_key()).expect("keys");
        assert!(sealed.starts_with(b"xkv1"));
        assert_eq!(
            service.open(&sealed, server.public_key()).as_deref(),
            Ok(&b"hello"[..])
        );
        assert!(other.open(&sealed, server.public_key()).is_err());
        assert!(service.open(&sealed[..20], server.public_key()).is_err());
        assert!(service.open(b"", server.public_key()).is_err());
        assert!(server.seal(b"x", USER).is_err());
    }

    #[test]
    fn malformed_keys_are_no_keys() {
        for text in [
            "",
            "U",
            "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF5",
            "é",
        ] {
            for kind in [KeyKind::User, KeyKind::Curve, KeyKind::Account] {
                assert!(!kind.is_public_key(text), "{text}");
            }
            assert!(Signer::from_seed(text).is_err());
        }
    }
}
