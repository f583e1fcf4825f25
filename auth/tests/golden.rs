//! Tokens and keys of the official Go modules, see `testdata/generate`.

use std::net::IpAddr;

use data_encoding::BASE64;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use menes_auth::admission::{
    AccountError, ConnectionType, Denied, Facts, Trust, TrustError, TrustedAccount, UserToken,
};
use menes_auth::claims::account::{AccountClaims, ExportKind, Sampling};
use menes_auth::claims::authorization::AuthorizationResponse;
use menes_auth::claims::{AnyClaims, Claims, Common};
use menes_auth::key::{self, KeyKind, Sealer, Signer};
use menes_auth::token::{self, TokenError};
use menes_auth::validation::Validate;

struct Golden(serde_json::Value);

impl Golden {
    fn read() -> Self {
        let text = include_str!("../testdata/golden.json");
        Self(serde_json::from_str(text).expect("the file is JSON"))
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().expect("a text of this name")
    }

    fn public(&self, name: &str) -> &str {
        self.0[name]["public"].as_str().expect("a key of this name")
    }

    fn signer(&self, name: &str) -> Signer {
        let seed = self.0[name]["seed"].as_str().expect("a key of this name");
        Signer::from_seed(seed).expect("a seed of the official tools")
    }

    fn trust(&self) -> Trust {
        Trust::in_operators([self.text("operator_jwt")], "2.14.6", now().as_second())
            .expect("an operator of the official tools")
    }

    fn account(&self, name: &str) -> TrustedAccount {
        TrustedAccount::open(self.text(name), &self.trust(), now().as_second())
            .expect("an account of the official tools")
    }

    /// Logs in from the local host, with the right signature.
    fn log_in(&self, user: &str, account: &TrustedAccount) -> Result<(), Denied> {
        self.log_in_from(user, account, "127.0.0.1", ConnectionType::Standard)
    }

    fn log_in_from(
        &self,
        user: &str,
        account: &TrustedAccount,
        address: &str,
        connection: ConnectionType,
    ) -> Result<(), Denied> {
        let facts = Facts {
            address: address.parse::<IpAddr>().expect("an address"),
            connection,
            nonce: self.text("nonce"),
            signature: Some(self.text("nonce_signature")),
            is_proxied: false,
            now: now(),
            local_zone: &TimeZone::UTC,
        };
        UserToken::open(self.text(user), false, now())?
            .admit(account, &facts)
            .map(drop)
    }
}

fn now() -> Timestamp {
    "2027-01-05T12:00:00Z".parse().expect("a time")
}

#[test]
fn keys_and_signatures_of_the_official_tools_are_read() {
    let golden = Golden::read();
    for (name, kind) in [
        ("operator", KeyKind::Operator),
        ("account", KeyKind::Account),
        ("user", KeyKind::User),
        ("server", KeyKind::Server),
    ] {
        assert!(kind.is_public_key(golden.public(name)), "{name}");
        assert_eq!(golden.signer(name).public_key(), golden.public(name));
    }
    assert!(KeyKind::Curve.is_public_key(golden.public("xkey")));
    let (nonce, signature) = (golden.text("nonce"), golden.text("nonce_signature"));
    assert_eq!(
        key::verify_nonce(golden.public("user"), nonce, signature),
        Ok(())
    );
    assert_eq!(golden.signer("user").sign_nonce(nonce), signature);
    let sealed = BASE64
        .decode(golden.text("sealed_for_itself").as_bytes())
        .expect("base64");
    let other = Sealer::generate();
    assert!(other.open(&sealed, golden.public("xkey")).is_err());
}

#[test]
fn an_account_says_the_same_here_as_there() {
    let golden = Golden::read();
    let account = golden.account("account_jwt");
    assert_eq!(
        (account.key(), account.name()),
        (golden.public("account"), "acme")
    );
    let claims = &account.claims().nats;
    assert_eq!(claims.limits.conn, 100);
    assert_eq!(claims.limits.jetstream.streams, 5);
    assert!(claims.limits.has_jetstream());
    assert_eq!(claims.generic.tags, ["plan:gold"]);
    let service = claims
        .exports
        .iter()
        .find(|export| export.kind == Some(ExportKind::Service))
        .expect("exported");
    assert_eq!(service.response_threshold, 1_000_000_000);
    let latency = service.service_latency.as_ref().expect("measured");
    assert_eq!(latency.sampling, Sampling::Headers);
    assert_eq!(claims.imports[0].local_subject, "local.a");
    assert_eq!(claims.mappings["old.*"][0].percent(), 40);
    assert_eq!(claims.mappings["old.*"][1].percent(), 100);
    assert!(claims.authorization.is_enabled());
    assert!(claims.authorization.allows_account("AANY"));
    assert_eq!(claims.default_permissions.responses.expect("given").max, 2);
    let signer = |name: &str| account.signer(golden.public(name));
    assert_eq!(signer("account"), Some(None));
    assert_eq!(signer("account_signer"), Some(None));
    assert_eq!(signer("role").flatten().expect("scoped").role, "worker");
    assert_eq!(signer("user"), None);
    let AnyClaims::Activation(activation) =
        token::decode(golden.text("activation_jwt")).expect("valid")
    else {
        panic!("it is an activation");
    };
    assert!(!account.did_activate(&activation));

    let tiered = golden.account("tiered_account_jwt");
    assert!(tiered.claims().nats.limits.has_jetstream());
    assert_eq!(
        tiered.claims().nats.limits.tiered_limits["R1"].disk_storage,
        1024
    );
}

#[test]
fn what_is_written_here_reads_the_same() {
    let golden = Golden::read();
    let read = token::decode_account(golden.text("account_jwt")).expect("valid");
    let signer = golden.signer("operator_signer");
    let written = token::encode(read.clone(), &signer, read.common.issued_at);
    let again = token::decode_account(&written).expect("signed");
    assert_eq!(again.nats, read.nats);
    // The id is the hash of the same JSON.
    assert_eq!(again.common, read.common);
}

#[test]
fn an_account_of_nobody_trusted_is_refused() {
    let golden = Golden::read();
    let now = now().as_second();
    let own = golden.text("self_signed_account_jwt");
    assert!(matches!(
        TrustedAccount::open(own, &golden.trust(), now),
        Err(AccountError::NotTrusted)
    ));
    let other = golden.public("system");
    let text = golden.text("account_jwt");
    assert!(matches!(
        TrustedAccount::open_of(other, text, &golden.trust(), now),
        Err(AccountError::OtherAccount { .. })
    ));
    let keys = Trust::in_keys([golden.public("operator_signer")]).expect("an operator key");
    assert!(TrustedAccount::open(text, &keys, now).is_ok());
    assert!(matches!(
        Trust::in_keys([golden.public("account")]),
        Err(TrustError::Key(_))
    ));
    assert!(matches!(
        Trust::in_operators([text], "2.14.6", now),
        Err(TrustError::Token(TokenError::Kind("operator")))
    ));
}

#[test]
fn users_log_in_as_their_tokens_say() {
    let golden = Golden::read();
    let account = golden.account("account_jwt");
    for user in [
        "user_jwt",
        "bearer_user_jwt",
        "v1_user_jwt",
        "scoped_user_jwt",
    ] {
        golden
            .log_in(user, &account)
            .unwrap_or_else(|denied| panic!("{user}: {denied}"));
    }
    for user in ["expired_user_jwt", "early_user_jwt"] {
        assert!(
            matches!(golden.log_in(user, &account), Err(Denied::NotValid(_))),
            "{user}"
        );
    }
    assert!(matches!(
        golden.log_in("greedy_scoped_user_jwt", &account),
        Err(Denied::OwnPermissions)
    ));
    for other in [
        "account_jwt",
        "operator_jwt",
        "activation_jwt",
        "response_jwt",
        "generic_jwt",
    ] {
        assert!(
            matches!(
                golden.log_in(other, &account),
                Err(Denied::Token(TokenError::Kind("user")))
            ),
            "{other}"
        );
    }
    let revoking = golden.account("revoking_account_jwt");
    assert!(matches!(
        golden.log_in("user_jwt", &revoking),
        Err(Denied::Revoked)
    ));
    let tiered = golden.account("tiered_account_jwt");
    assert!(matches!(
        golden.log_in("bearer_user_jwt", &tiered),
        Err(Denied::UnknownIssuer)
    ));
    let from = |address, connection| golden.log_in_from("user_jwt", &account, address, connection);
    assert!(matches!(
        from("10.0.0.1", ConnectionType::Standard),
        Err(Denied::Source(_))
    ));
    assert!(matches!(
        from("127.0.0.1", ConnectionType::WebSocket),
        Err(Denied::ConnectionType)
    ));
}

#[test]
fn a_signature_is_needed_unless_the_token_is_a_bearer() {
    let golden = Golden::read();
    let account = golden.account("account_jwt");
    let admit = |user: &str, nonce: &str, signature: Option<&str>| {
        let facts = Facts {
            address: IpAddr::from([127, 0, 0, 1]),
            connection: ConnectionType::Standard,
            nonce,
            signature,
            is_proxied: false,
            now: now(),
            local_zone: &TimeZone::UTC,
        };
        UserToken::open(golden.text(user), false, now())?.admit(&account, &facts)
    };
    assert!(
        admit("bearer_user_jwt", "", None)
            .expect("a bearer")
            .is_bearer
    );
    let signature = golden.text("nonce_signature");
    assert!(matches!(
        admit("user_jwt", "x", None),
        Err(Denied::SignatureMissing)
    ));
    assert!(matches!(
        admit("user_jwt", "x", Some(signature)),
        Err(Denied::Signature)
    ));
    let admitted = admit("user_jwt", golden.text("nonce"), Some(signature)).expect("signed");
    assert_eq!(admitted.user, golden.public("user"));
    assert_eq!(
        (admitted.name.as_str(), admitted.max_payload),
        ("ada", None)
    );
    assert_eq!(admitted.signing_key, None);
    // The hours end before the token does.
    assert!(admitted.expires.is_some());
    let scoped = admit("scoped_user_jwt", golden.text("nonce"), Some(signature)).expect("scoped");
    assert_eq!(
        scoped.permissions.publish.allow,
        ["jobs.ada.>", "eu.gold", "us.gold"]
    );
    assert_eq!(scoped.max_subscriptions, Some(10));
    assert_eq!(scoped.signing_key.as_deref(), Some(golden.public("role")));
    let plain = admit("v1_user_jwt", golden.text("nonce"), Some(signature)).expect("version 1");
    assert_eq!(plain.permissions.publish.allow, ["x"]);
    assert_eq!(plain.max_subscriptions, None);
}

#[test]
fn a_strict_operator_wants_signing_keys() {
    let golden = Golden::read();
    let mut operator = token::decode_operator(golden.text("operator_jwt")).expect("valid");
    operator.nats.strict_signing_key_usage = true;
    let text = token::encode(operator, &golden.signer("operator"), 1);
    let trust = Trust::in_operators([text.as_str()], "2.14.6", 2).expect("valid");
    let open = |name: &str| TrustedAccount::open(golden.text(name), &trust, now().as_second());
    assert!(matches!(
        open("tiered_account_jwt"),
        Err(AccountError::NotTrusted)
    ));
    let account = open("account_jwt").expect("signed by a signing key");
    assert_eq!(account.signer(golden.public("account")), None);
    assert!(matches!(
        golden.log_in("user_jwt", &account),
        Err(Denied::UnknownIssuer)
    ));
}

#[test]
fn an_operator_may_want_a_newer_server() {
    let golden = Golden::read();
    let ask = |version: &str| {
        let mut operator = token::decode_operator(golden.text("operator_jwt")).expect("valid");
        version.clone_into(&mut operator.nats.assert_server_version);
        let text = token::encode(operator, &golden.signer("operator"), 1);
        Trust::in_operators([text.as_str()], "2.14.6", 2).map(drop)
    };
    assert!(ask("2.14.6").is_ok() && ask("2.3.9").is_ok() && ask("1.99.99").is_ok());
    let error = ask("2.15.0").expect_err("newer");
    assert!(
        error
            .to_string()
            .ends_with("expected minor version 15 > server minor version 14")
    );
    assert!(ask("2.15").is_err() && ask("a.b.c").is_err());
}

#[test]
fn accounts_that_contradict_themselves_are_refused() {
    let golden = Golden::read();
    let refused = |change: &dyn Fn(&mut AccountClaims)| {
        let mut account = token::decode_account(golden.text("account_jwt")).expect("valid");
        change(&mut account.nats);
        let text = token::encode(account, &golden.signer("operator"), 1);
        let error = TrustedAccount::open(&text, &golden.trust(), 2).expect_err("refused");
        error.to_string()
    };
    assert!(refused(&|a| a.limits.exports = 1).contains("more exports than allowed"));
    assert!(refused(&|a| a.limits.imports = 0).contains("more imports than allowed"));
    assert!(refused(&|a| a.exports[0].subject = "svc..x".into()).contains("consecutive"));
    assert!(refused(&|a| a.exports[0].kind = None).contains("invalid export type"));
    assert!(refused(&|a| a.imports[0].subject = "other".into()).contains("activation token"));
    assert!(refused(&|a| a.imports[0].local_subject = "x.$1".into()).contains("Reference $1"));
    assert!(refused(&|a| a.imports[0].token = "eyJ".into()).contains("invalid activation"));
    assert!(refused(&|a| a.signing_keys.add("x", None)).contains("signing key"));
    assert!(refused(&|a| a.authorization.auth_users.clear()).contains("without users"));
    let heavy = |a: &mut AccountClaims| {
        a.mappings.get_mut("old.*").expect("mapped")[0].weight = 101;
    };
    assert!(refused(&heavy).contains("exceeds 100"));
}

#[test]
fn an_answer_has_all_it_needs() {
    let golden = Golden::read();
    let issues = |subject: &str, audience: &str, jwt: &str, error: &str| {
        let claims = Claims {
            common: Common {
                subject: subject.to_owned(),
                audience: audience.to_owned(),
                ..Common::default()
            },
            nats: AuthorizationResponse {
                jwt: jwt.to_owned(),
                error: error.to_owned(),
                ..AuthorizationResponse::default()
            },
        };
        claims.issues(1).first().map(ToString::to_string)
    };
    let (user, server) = (golden.public("user"), golden.public("server"));
    assert_eq!(issues(user, server, "x", ""), None);
    assert_eq!(issues(user, server, "", "no"), None);
    assert_eq!(
        issues(user, server, "", "").as_deref(),
        Some("Error or Jwt is required")
    );
    assert_eq!(
        issues(user, server, "x", "y").as_deref(),
        Some("Only Error or Jwt can be set")
    );
    assert!(issues(server, server, "x", "").is_some() && issues(user, user, "x", "").is_some());
    assert!(token::decode_response(golden.text("response_jwt")).is_ok());
    assert!(token::decode_generic(golden.text("generic_jwt")).is_ok());
}
