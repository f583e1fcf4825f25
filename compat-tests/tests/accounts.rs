//! Accounts that share: exports, imports, mappings, permissions and limits from one configuration,
//! the same for nats-server.

use anyhow::Result;
use menes_compat_tests::comparison::compare;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{Login, ServerOptions, TestServer};

/// A exports, B imports and exports on, C imports that; P is about permissions, L about limits.
const CONFIG: &str = r#"
server_name: one
system_account: SYS
accounts {
  SYS { users: [ {user: sys, password: sys} ] }
  A {
    jetstream: enabled
    users: [ {user: a, password: a} ]
    exports: [
      {stream: "news.>"}
      {stream: "own.*.x", accounts: [B]}
      {stream: "pos.*.x", account_token_position: 2}
      {service: "svc.*"}
      {service: "chunks", response: chunked}
      {service: "slow", threshold: "400ms", latency: {sampling: 100, subject: "latency"}}
      {service: "traced", latency: {sampling: headers, subject: "latency"}}
      {service: "$JS.API.CONSUMER.MSG.NEXT.>", response: stream}
      {service: "$JS.API.>", response: stream}
      {service: "$JS.ACK.>"}
      {stream: "deliver.b.>"}
    ]
  }
  B {
    jetstream: enabled
    users: [ {user: b, password: b} ]
    exports: [ {service: "chain"} ]
    imports: [
      {stream: {account: A, subject: "news.>"}, prefix: "from.a"}
      {stream: {account: A, subject: "own.*.x"}, to: "mine.$1"}
      {stream: {account: A, subject: "pos.B.x"}}
      {stream: {account: A, subject: "deliver.b.>"}}
      {service: {account: A, subject: "svc.*"}, to: "ask.$1"}
      {service: {account: A, subject: "chunks"}}
      {service: {account: A, subject: "slow"}, share: true}
      {service: {account: A, subject: "traced"}}
      {service: {account: A, subject: "svc.chain"}, to: "chain"}
      {service: {account: A, subject: "$JS.API.>"}, to: "JS.A.API.>"}
      {service: {account: A, subject: "$JS.ACK.>"}}
    ]
    mappings: {
      "old.*.*": "new.$2.$1"
      "part.*": "parts.{{partition(10,1)}}"
      "parts3.*.*": "parts3.{{partition(3,1,2)}}"
      "whole.*.*": "wholes.{{partition(1000)}}"
      "sl.*": "cut.{{sliceFromLeft(1,3)}}"
      "sr.*": "cut.{{SliceFromRight(1,3)}}"
      "split.*": "cut.{{split(1,-)}}"
      "spl.*": "cut.{{splitfromleft(1,3)}}"
      "spr.*": "cut.{{SplitFromRight(1,3)}}"
      "lost": [ {destination: lost, weight: 0} ]
      "mapped.ask": "ask.mapped"
    }
  }
  C {
    users: [ {user: c, password: c} ]
    imports: [ {service: {account: B, subject: "chain"}, to: "far.chain"} ]
  }
  P {
    default_permissions: { publish: "default.>", subscribe: ["default.>", "_INBOX.>"] }
    users: [
      {user: p, password: p}
      {user: q, password: q, permissions: {
        publish: ">"
        subscribe: {allow: ["_INBOX.>", "plain", "only v1", "both", "both v1.*"], deny: ["plain bad", "_INBOX.secret"]}
      }}
      {user: r, password: r, permissions: {
        subscribe: ["serve", "_INBOX.>"]
        allow_responses: {max: 2, expires: "1m"}
      }}
    ]
  }
  L {
    users: [ {user: l, password: l} ]
    limits: { max_connections: 1, max_subscriptions: 2, max_payload: 100 }
  }
}
"#;

fn options() -> ServerOptions {
    ServerOptions {
        login: Login {
            user: "a".into(),
            password: "a".into(),
        },
        ..ServerOptions::default()
    }
    .with_config(CONFIG)
}

#[test]
fn accounts_share_as_in_nats_server() -> Result<()> {
    compare(&Scenario::new("nats-py/accounts.py"), &options(), &[])
}

/// What a reload takes away, it takes from those who are connected, too.
#[test]
fn logins_and_limits_are_taken_away_as_by_nats_server() -> Result<()> {
    let tokens = "authorization { token: first }\nmax_payload: 1000";
    let limits = "accounts {
        A { users: [{user: a, password: a}], limits { max_connections: 5 } }
        B { users: [{user: b, password: b}], limits { max_subscriptions: 5 } }
    }";
    for config in [tokens, limits] {
        compare(
            &Scenario::new("nats-py/logins_reload.py"),
            &ServerOptions::default().with_config(config),
            &[],
        )?;
    }
    Ok(())
}

#[test]
fn accounts_are_reloaded_as_in_nats_server() -> Result<()> {
    compare(
        &Scenario::new("nats-py/accounts_reload.py"),
        &options(),
        &[],
    )
}

#[test]
fn the_nats_command_asks_across_accounts() -> Result<()> {
    let server = TestServer::start(options())?;
    Scenario::new("nats-cli/accounts.sh").run(&server)?;
    Ok(())
}
