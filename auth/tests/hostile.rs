//! Tokens made to mislead: none passes and none ends the process.

use data_encoding::BASE64URL_NOPAD;
use menes_auth::key::{KeyKind, Signer};
use menes_auth::token::{self, MAX_TOKEN_LEN, TokenError};
use proptest::prelude::*;

/// A token with these parts, signed as version 2 wants.
fn forge(header: &str, body: &str, signer: &Signer) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(body.as_bytes())
    );
    let signature = BASE64URL_NOPAD.encode(&signer.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

fn user_body(issuer: &str) -> String {
    format!(r#"{{"iss":"{issuer}","sub":"U","nats":{{"type":"user","version":2}}}}"#)
}

#[test]
fn the_algorithm_is_not_the_tokens_choice() {
    let account = Signer::generate(KeyKind::Account);
    let body = user_body(account.public_key());
    assert!(token::decode(&forge(HEADER, &body, &account)).is_ok());
    for algorithm in [
        "none",
        "",
        "HS256",
        "EdDSA",
        "ed25519-nkeys",
        "RS256",
        "null",
    ] {
        let header = format!(r#"{{"typ":"JWT","alg":"{algorithm}"}}"#);
        let refused = token::decode(&forge(&header, &body, &account));
        assert!(
            matches!(refused, Err(TokenError::Algorithm(_))),
            "{algorithm}"
        );
    }
    for header in [
        "{}",
        "[]",
        "null",
        r#"{"alg":"ed25519-nkey"}"#,
        r#"{"typ":["JWT"]}"#,
    ] {
        assert!(
            token::decode(&forge(header, &body, &account)).is_err(),
            "{header}"
        );
    }
}

#[test]
fn a_body_that_was_changed_or_unsigned_is_refused() {
    let account = Signer::generate(KeyKind::Account);
    let other = Signer::generate(KeyKind::Account);
    let body = user_body(account.public_key());
    let refused = |text: &str| matches!(token::decode(text), Err(TokenError::Signature(_)));
    assert!(refused(&forge(HEADER, &body, &other)));
    let good = forge(HEADER, &body, &account);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    assert!(refused(&format!("{signed}.")));
    assert!(refused(&format!(
        "{signed}.{}",
        BASE64URL_NOPAD.encode(&[0; 64])
    )));
    let (header, _) = signed.split_once('.').expect("two parts");
    let changed = BASE64URL_NOPAD.encode(body.replace("\"U\"", "\"V\"").as_bytes());
    assert!(refused(&format!("{header}.{changed}.{signature}")));
    // A header of the old algorithm does not make the old signature do for a new token.
    let old_header = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ed25519"}"#);
    let encoded = BASE64URL_NOPAD.encode(body.as_bytes());
    let bare = BASE64URL_NOPAD.encode(&account.sign(encoded.as_bytes()));
    assert!(refused(&format!("{old_header}.{encoded}.{bare}")));
}

#[test]
fn only_the_right_kind_of_key_signs_a_kind_of_token() {
    for (kind, signers) in [
        ("operator", &[KeyKind::Operator][..]),
        ("account", &[KeyKind::Operator, KeyKind::Account]),
        ("user", &[KeyKind::Account]),
        ("activation", &[KeyKind::Operator, KeyKind::Account]),
        ("authorization_request", &[KeyKind::Server]),
        ("authorization_response", &[KeyKind::Account]),
    ] {
        for signer in [
            KeyKind::Operator,
            KeyKind::Account,
            KeyKind::User,
            KeyKind::Server,
        ] {
            let pair = Signer::generate(signer);
            let body = format!(
                r#"{{"iss":"{}","sub":"x","nats":{{"type":"{kind}","version":2}}}}"#,
                pair.public_key()
            );
            let is_read = token::decode(&forge(HEADER, &body, &pair)).is_ok();
            assert_eq!(is_read, signers.contains(&signer), "{kind} by {signer:?}");
        }
    }
}

#[test]
fn sizes_depths_and_versions_are_bounded() {
    let account = Signer::generate(KeyKind::Account);
    let huge = "a".repeat(MAX_TOKEN_LEN + 1);
    assert!(matches!(token::decode(&huge), Err(TokenError::TooLarge(_))));
    assert!(matches!(token::decode(&huge[1..]), Err(TokenError::Parts)));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = user_body(account.public_key()).replace("\"U\"", &deep);
    assert!(token::decode(&forge(HEADER, &body, &account)).is_err());
    for (version, kind) in [
        ("3", "user"),
        ("0", "user"),
        ("-1", "account"),
        ("99", "nonsense"),
    ] {
        let body = format!(
            r#"{{"iss":"{}","nats":{{"type":"{kind}","version":{version}}}}}"#,
            account.public_key()
        );
        assert!(
            token::decode(&forge(HEADER, &body, &account)).is_err(),
            "{version} {kind}"
        );
    }
}

#[test]
fn fields_of_the_wrong_type_are_refused_and_nulls_are_nothing() {
    let account = Signer::generate(KeyKind::Account);
    let read = |nats: &str| {
        let body = format!(
            r#"{{"iss":"{}","sub":"U","exp":null,"nats":{{"type":"user","version":2,{nats}}}}}"#,
            account.public_key()
        );
        token::decode_user(&forge(HEADER, &body, &account))
    };
    for nats in [
        r#""subs":"many""#,
        r#""subs":1e400"#,
        r#""subs":99999999999999999999"#,
        r#""pub":[]"#,
        r#""pub":{"allow":"x"}"#,
        r#""pub":{"allow":[null]}"#,
        r#""times":[1]"#,
        r#""times":[[]]"#,
        r#""resp":[]"#,
        r#""bearer_token":"yes""#,
        r#""issuer_account":{}"#,
    ] {
        assert!(read(nats).is_err(), "{nats}");
    }
    let user = read(r#""pub":null,"sub":{"deny":null},"times":null,"src":"10.0.0.0/8, ::1/128""#)
        .expect("null is nothing");
    assert!(user.nats.limits.permissions.is_empty());
    assert_eq!(user.nats.limits.sources, ["10.0.0.0/8", "::1/128"]);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,300}") {
        let _ = token::decode(&text);
    }

    #[test]
    fn any_body_is_read_or_refused(body in any::<Vec<u8>>(), kind in 0..7_usize) {
        let kinds = ["operator", "account", "user", "activation", "authorization_response", "x", ""];
        let account = Signer::generate(KeyKind::Account);
        let inner = String::from_utf8_lossy(&body).replace('"', "'").replace('\\', "/");
        let inner: String = inner.chars().filter(|c| !c.is_control()).collect();
        let body = format!(
            r#"{{"iss":"{0}","sub":"{inner}","nats":{{"type":"{1}","version":2,"subs":-1,"pub":{{"allow":["{inner}"]}},"src":["{inner}"]}}}}"#,
            account.public_key(), kinds[kind]
        );
        let _ = token::decode(&forge(HEADER, &body, &account));
    }

    #[test]
    fn one_changed_byte_never_passes(at in 0..200_usize, to in any::<u8>()) {
        let account = Signer::generate(KeyKind::Account);
        let good = forge(HEADER, &user_body(account.public_key()), &account);
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        // The last character of a part holds bits that nothing uses.
        bytes[at] = to;
        if let Ok(text) = String::from_utf8(bytes)
            && text != good
        {
            prop_assert!(token::decode(&text).is_err());
        }
    }
}

#[path = "../../fuzz/checks/tokens.rs"]
mod checks;

#[test]
fn the_seeds_of_the_fuzz_target_hold() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/token");
    let mut count = 0;
    for entry in std::fs::read_dir(seeds).expect("the folder is checked in") {
        let path = entry.expect("it can be read").path();
        checks::token(&std::fs::read(path).expect("it can be read"));
        count += 1;
    }
    assert!(count > 10);
}
