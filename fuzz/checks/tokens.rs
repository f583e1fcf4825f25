//! What must hold for any text of a token. The fuzz target calls this, and so does a test of the
//! crate, on the seeds that are checked in.

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use menes_auth::admission::{ConnectionType, Facts, Trust, TrustedAccount, UserToken};
use menes_auth::key::Signer;
use menes_auth::token;
use menes_auth::validation::Validate;

/// Made for this; guards nothing.
const OPERATOR: &str = "SOAAOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOB4CS4";
const ACCOUNT: &str = "SAAASCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCNU74";

/// Foreign bytes are refused or read. As the body of a token that is signed well, they are looked
/// at as far as a login goes.
pub(crate) fn token(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        let _ = token::decode(text);
    }
    let (operator, account) = (signer(OPERATOR), signer(ACCOUNT));
    let Ok(mut body) = serde_json::from_slice::<serde_json::Value>(data) else {
        return;
    };
    let Some(map) = body.as_object_mut() else {
        return;
    };
    for (issuer, subject) in [
        (&operator, operator.public_key()),
        (&operator, account.public_key()),
        (&account, account.public_key()),
    ] {
        map.insert("iss".to_owned(), issuer.public_key().into());
        map.insert("sub".to_owned(), subject.into());
        let json = serde_json::to_vec(&map).expect("it was JSON");
        look_at(&sign(&json, issuer), &operator);
    }
}

fn signer(seed: &str) -> Signer {
    Signer::from_seed(seed).expect("a seed")
}

fn sign(body: &[u8], signer: &Signer) -> String {
    let header = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(body));
    let signature = BASE64URL_NOPAD.encode(&signer.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn look_at(text: &str, operator: &Signer) {
    let now = Timestamp::from_second(1_800_000_000).expect("in range");
    let facts = Facts {
        address: [127, 0, 0, 1].into(),
        connection: ConnectionType::Standard,
        nonce: "nonce",
        signature: None,
        is_proxied: true,
        now,
        local_zone: &TimeZone::UTC,
    };
    let trust = Trust::in_keys([operator.public_key()]).expect("an operator");
    let _ = Trust::in_operators([text], "2.14.6", now.as_second());
    let account = TrustedAccount::open(text, &trust, now.as_second());
    if let Ok(response) = token::decode_response(text) {
        let _ = response.issues(0);
    }
    if let Ok(user) = UserToken::open(text, true, now)
        && let Ok(account) = &account
    {
        let _ = user.admit(account, &facts);
    }
}
