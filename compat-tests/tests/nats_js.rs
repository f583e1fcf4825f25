//! nats.js: over TCP and over WebSocket, from Node.

use anyhow::Result;
use menes_compat_tests::comparison::compare;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{Login, ServerOptions, TestServer};

/// A listener that compresses.
const COMPRESSED: &str =
    "websocket { host: \"127.0.0.1\", port: -1, no_tls: true, compression: true }";

fn over_tcp(script: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default())?;
    Scenario::new(script).run(&server)?;
    Ok(())
}

fn over_websocket(script: &str) -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_websocket())?;
    Scenario::new(script)
        .variable("TRANSPORT", "ws")
        .run(&server)?;
    Ok(())
}

#[test]
fn core_nats() -> Result<()> {
    over_tcp("nats-js/core.mjs")
}

#[test]
fn jetstream() -> Result<()> {
    over_tcp("nats-js/jetstream.mjs")
}

#[test]
fn buckets() -> Result<()> {
    over_tcp("nats-js/buckets.mjs")
}

#[test]
fn core_nats_over_websocket() -> Result<()> {
    over_websocket("nats-js/core.mjs")
}

#[test]
fn jetstream_over_websocket() -> Result<()> {
    over_websocket("nats-js/jetstream.mjs")
}

#[test]
fn buckets_over_websocket() -> Result<()> {
    over_websocket("nats-js/buckets.mjs")
}

fn over_compressed_websocket(script: &str) -> Result<()> {
    let options = ServerOptions::default()
        .with_websocket()
        .with_config(&(Login::default().section() + COMPRESSED));
    let server = TestServer::start(options)?;
    Scenario::new(script)
        .variable("TRANSPORT", "ws")
        .run(&server)?;
    Ok(())
}

#[test]
fn core_nats_over_compressed_websocket() -> Result<()> {
    over_compressed_websocket("nats-js/core.mjs")
}

#[test]
fn buckets_over_compressed_websocket() -> Result<()> {
    over_compressed_websocket("nats-js/buckets.mjs")
}

/// What a WebSocket listener has beside its own authorization.
const LISTENER: &str =
    "host: \"127.0.0.1\", port: -1, no_tls: true, user_cookie: u, pass_cookie: p, token_cookie: t";

/// Who is let in over WebSocket and over TCP, in each of these configurations, is the same in
/// nats-server.
fn same_logins(main: &str, own: &str) -> Result<()> {
    let config = format!("{main}\nwebsocket {{ {LISTENER}\n {own} }}\n");
    let options = ServerOptions::default()
        .with_websocket()
        .with_config(&config);
    compare(&Scenario::new("nats-js/websocket_auth.mjs"), &options, &[])
}

const USERS: &str = "authorization { users: [ {user: root, password: menes-compat}, {user: guest, password: guest} ] }";

#[test]
fn websocket_has_a_user_of_its_own() -> Result<()> {
    let main = "authorization { user: root, password: menes-compat }";
    same_logins(
        main,
        "authorization { user: web, password: secret, timeout: 3 }",
    )
}

#[test]
fn websocket_has_a_token_of_its_own() -> Result<()> {
    let main = "authorization { token: main-token }";
    same_logins(main, "authorization { token: web-token }")
}

#[test]
fn only_websocket_wants_a_login() -> Result<()> {
    same_logins("", "authorization { user: web, password: secret }")
}

#[test]
fn only_websocket_lets_in_who_brings_nothing() -> Result<()> {
    same_logins(USERS, "no_auth_user: guest")
}

#[test]
fn websocket_takes_the_users_of_others() -> Result<()> {
    same_logins(&format!("{USERS}\nno_auth_user: guest"), "")
}

#[test]
fn proxies_are_trusted_as_in_nats_server() -> Result<()> {
    const SEEDS: &str = r#"{
        "first": "SUAEBVSFUHSSDRMXA452QEONEOAUPUEMVES3OM5DNCHV6WOVPJBK5X4AEA",
        "second": "SUALEE5UOQ3UFHEC3ZOGSJKX5ASE2YZW3DPK5TWLAY4L7KXHQGLCI5MHPY",
        "other": "SUAOI5ITUSSDJG67PLQKQRDLGCSC26JL7ECAFWUZBVKAQ7JGQVPZQTQ26I"
    }"#;
    const CONFIG: &str = "
        authorization { users: [
            {user: free, password: free}
            {user: bound, password: bound, proxy_required: true}
        ] }
        proxies { trusted: [
            {key: UDRXJE7WNMBJ6WHKNZ4DSFUVRBM6CUWLNLAA5ZJV6TGWJXBBCB4GC4P3}
            {public_key: UAR35XVACGBP6VWYN3EDQYTTVYCCWGU5ES7MKVEVGRHD6CDBZBH5GOCC}
        ] }
    ";
    let options = ServerOptions::default().with_config(CONFIG);
    let scenario = Scenario::new("nats-js/proxies.mjs").variable("PROXY_SEEDS", SEEDS);
    compare(&scenario, &options, &[])
}
