//! What a server tells of itself: over HTTP, and to the account of the system.
//!
//! Every document is compared with that of nats-server, field by field. Where both have to differ,
//! the scenarios say so in `documents.py`.

use anyhow::Result;
use menes_compat_tests::comparison::compare;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{Login, ServerOptions, TestServer};

/// Accounts, one of them the system's.
const CONFIG: &str = r#"
server_name: one-of-these
server_tags: ["Zone:A", "big"]
accounts {
  SYS { users: [ {user: admin, password: admin} ] }
  A {
    jetstream: enabled
    users: [
      {user: a, password: a}
      {user: limited, password: limited, permissions: {
        publish: {allow: [">"], deny: ["no.>"]}
        subscribe: ["_INBOX.>", "orders.>"]
        allow_responses: {max: 5, expires: "1m"}
      }}
    ]
  }
}
system_account: SYS
"#;

/// Accounts that share.
const SHARING: &str = r#"
accounts {
  A {
    users: [ {user: a, password: a} ]
    exports: [
      {stream: "news.>"}
      {service: "help.*", accounts: [B], latency: {sampling: 50, subject: lat}}
      {service: "open.*", allow_trace: true}
      {stream: "told.>"}
    ]
    imports: [ {service: {account: C, subject: "far"}, to: "open.on"} ]
    mappings: {"old.*": "new.$1", split: [ {destination: one, weight: 40%}, {destination: two, weight: 60%} ]}
    msg_trace: {dest: "traces.x", sampling: 100}
  }
  B {
    users: [ {user: b, password: b} ]
    imports: [
      {stream: {account: A, subject: "news.>"}, prefix: "from.a"}
      {service: {account: A, subject: "help.me"}, to: "aid", share: true}
      {service: {account: A, subject: "open.door"}, to: "door"}
      {service: {account: A, subject: "open.on"}, to: "on"}
      {stream: {account: A, subject: "told.>"}, prefix: "heard", allow_trace: true}
    ]
  }
  C {
    users: [ {user: c, password: c} ]
    exports: [ {service: "far", allow_trace: true} ]
  }
}
"#;

fn as_user(name: &str) -> ServerOptions {
    ServerOptions {
        login: Login {
            user: name.into(),
            password: name.into(),
        },
        ..ServerOptions::default()
    }
}

fn with_accounts() -> ServerOptions {
    as_user("admin").with_config(CONFIG)
}

#[test]
fn monitoring_documents_are_those_of_nats_server() -> Result<()> {
    let scenario = Scenario::new("nats-py/monitoring.py");
    compare(&scenario, &ServerOptions::default(), &[])
}

#[test]
fn system_requests_and_events_are_those_of_nats_server() -> Result<()> {
    compare(&Scenario::new("nats-py/system.py"), &with_accounts(), &[])
}

#[test]
fn the_nats_command_looks_after_a_server() -> Result<()> {
    let server = TestServer::start(with_accounts())?;
    Scenario::new("nats-cli/server.sh").run(&server)?;
    Ok(())
}

#[test]
fn a_server_that_is_leaving_is_not_healthy() -> Result<()> {
    let scenario = Scenario::new("nats-py/leaving.py");
    let options = ServerOptions {
        is_plain: true,
        ..ServerOptions::default()
    };
    let config = options.login.section() + "lame_duck_duration: 40s\nlame_duck_grace_period: 30s";
    compare(&scenario, &options.with_config(&config), &[])
}

#[test]
fn traces_are_those_of_nats_server() -> Result<()> {
    let scenario = Scenario::new("nats-py/tracing.py");
    compare(&scenario, &ServerOptions::default(), &[])
}

#[test]
fn traces_between_accounts_are_those_of_nats_server() -> Result<()> {
    let scenario = Scenario::new("nats-py/tracing_accounts.py");
    compare(&scenario, &as_user("a").with_config(SHARING), &[])
}
