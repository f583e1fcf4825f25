//! Logging in with keys and tokens.

use std::collections::BTreeMap;

use menes_auth::admission::Trust;
use menes_auth::claims::account::{AccountClaims, AccountLimits};
use menes_auth::claims::user::{Permission, UserClaims, UserPermissionLimits};
use menes_auth::claims::{Claims, Common};
use menes_auth::key::{KeyKind, Signer};
use menes_auth::token;
use menes_broker::config::options::{OperatorOptions, Options, ResolverOptions, UserOptions};

use crate::harness::{Peer, Running, options, with_users};

const VIOLATION: &str = "-ERR 'Authorization Violation'\r\n";

/// What INFO gives to sign.
fn nonce(peer: &Peer) -> String {
    let (_, rest) = peer.info.split_once("\"nonce\":\"").expect("a nonce");
    rest.split('"').next().expect("a text").to_owned()
}

fn connect(peer: &mut Peer, keys: &str) {
    peer.say(&format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false,{keys}}}\r\nPING\r\n"
    ));
}

#[test]
fn a_user_signs_the_nonce() {
    let pair = Signer::generate(KeyKind::User);
    let server = Running::new(with_users(vec![UserOptions {
        user: pair.public_key().to_owned(),
        is_nkey: true,
        ..UserOptions::default()
    }]));
    let keys = |signature: &str| {
        let key = pair.public_key();
        format!("\"nkey\":\"{key}\",\"sig\":\"{signature}\"")
    };
    let mut peer = server.silent();
    let given = nonce(&peer);
    assert_eq!(given.len(), 15);
    connect(&mut peer, &keys(&pair.sign_nonce(&given)));
    peer.expect("PONG\r\n");
    // Another connection has another nonce.
    let mut peer = server.silent();
    assert_ne!(nonce(&peer), given);
    connect(&mut peer, &keys(&pair.sign_nonce(&given)));
    peer.expect(VIOLATION);
    peer.expect_closed();
}

#[test]
fn a_server_without_signers_gives_nothing_to_sign() {
    let server = Running::new(options());
    assert!(!server.silent().info.contains("nonce"));
}

struct Tenancy {
    operator: Signer,
    account: Signer,
}

impl Tenancy {
    fn new() -> Self {
        Self {
            operator: Signer::generate(KeyKind::Operator),
            account: Signer::generate(KeyKind::Account),
        }
    }

    fn options(&self) -> Options {
        let claims = Claims {
            common: Common {
                subject: self.account.public_key().to_owned(),
                ..Common::default()
            },
            nats: AccountClaims {
                limits: AccountLimits::unlimited(),
                ..AccountClaims::default()
            },
        };
        let key = self.account.public_key().to_owned();
        let text = token::encode(claims, &self.operator, 1);
        Options {
            operator: Some(OperatorOptions {
                trust: Trust::in_keys([self.operator.public_key()]).expect("an operator key"),
                resolver: ResolverOptions::Memory,
                preload: BTreeMap::from([(key, text)]),
                ..OperatorOptions::default()
            }),
            ..options()
        }
    }

    fn user(&self, user: &Signer, change: impl FnOnce(&mut Claims<UserClaims>)) -> String {
        let mut claims = Claims {
            common: Common {
                subject: user.public_key().to_owned(),
                ..Common::default()
            },
            nats: UserClaims {
                limits: UserPermissionLimits::unlimited(),
                ..UserClaims::default()
            },
        };
        change(&mut claims);
        token::encode(claims, &self.account, 1)
    }
}

fn log_in(server: &Running, user: &Signer, jwt: &str) -> Peer {
    let mut peer = server.silent();
    let signature = user.sign_nonce(&nonce(&peer));
    connect(
        &mut peer,
        &format!("\"jwt\":\"{jwt}\",\"sig\":\"{signature}\",\"protocol\":1"),
    );
    peer
}

#[test]
fn a_user_is_what_its_token_says() {
    let tenancy = Tenancy::new();
    let server = Running::new(tenancy.options());
    let user = Signer::generate(KeyKind::User);
    let jwt = tenancy.user(&user, |claims| {
        claims.nats.limits.permissions.publish = Permission {
            allow: vec!["a.>".to_owned()],
            deny: Vec::new(),
        };
        claims.nats.limits.subs = 1;
        claims.nats.limits.payload = 10;
    });
    let mut peer = log_in(&server, &user, &jwt);
    peer.expect("PONG\r\n");
    let info = peer.line();
    assert!(info.contains("\"max_payload\":10,"), "{info}");
    assert!(info.contains(tenancy.account.public_key()), "{info}");
    peer.say("SUB > 1\r\nSUB x 2\r\n");
    peer.expect("-ERR 'maximum subscriptions exceeded'\r\n");
    peer.say("PUB a.b 2\r\nhi\r\nPUB b 2\r\nhi\r\n");
    peer.expect("MSG a.b 1 2\r\nhi\r\n");
    peer.expect("-ERR 'Permissions Violation for Publish to \"b\"'\r\n");
    peer.say("PUB a.b 11\r\n");
    peer.expect("-ERR 'Maximum Payload Violation'\r\n");
    // Who has another account does not hear of this one.
    let mut nobody = server.silent();
    connect(&mut nobody, "\"user\":\"a\",\"pass\":\"b\"");
    nobody.expect(VIOLATION);
}

#[test]
fn a_token_runs_out_while_its_user_is_connected() {
    let tenancy = Tenancy::new();
    let server = Running::new(tenancy.options());
    let user = Signer::generate(KeyKind::User);
    let now = jiff::Timestamp::now().as_second();
    let jwt = tenancy.user(&user, |claims| claims.common.expires = now + 1);
    let mut peer = log_in(&server, &user, &jwt);
    peer.expect("PONG\r\n");
    peer.line();
    peer.expect("-ERR 'User Authentication Expired'\r\n");
    peer.expect_closed();
}

#[test]
fn tokens_made_to_mislead_are_refused() {
    let tenancy = Tenancy::new();
    let server = Running::new(tenancy.options());
    let user = Signer::generate(KeyKind::User);
    let good = tenancy.user(&user, |_| {});
    let (signed, _) = good.rsplit_once('.').expect("three parts");
    let other = Tenancy::new().user(&user, |_| {});
    for jwt in [
        "",
        "eyJ",
        "a.b.c",
        &good[..good.len() - 2],
        &format!("{signed}."),
        &other,
    ] {
        let mut peer = log_in(&server, &user, jwt);
        peer.expect(VIOLATION);
        peer.expect_closed();
    }
    log_in(&server, &user, &good).expect("PONG\r\n");
}
