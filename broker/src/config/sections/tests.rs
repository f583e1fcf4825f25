use std::time::Duration;

use super::super::grammar::{self, Environment};
use super::apply;
use super::values::parse_duration;
use crate::auth::permissions::ResponseLimits;
use crate::config::settings::Settings;

struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
    fn include(&self, _: &str, path: &str) -> Result<(String, String), String> {
        Err(format!("{path} cannot be read"))
    }
}

fn read(text: &str) -> Result<Settings, String> {
    let mut settings = Settings::default();
    let map = grammar::parse(text, "t.conf", &Nothing).map_err(|error| error.to_string())?;
    apply(&map, &mut settings).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    Ok(settings)
}

#[test]
fn a_test_suites_configuration_is_understood() {
    let settings = read(
        r#"
        listen: 127.0.0.1:-1
        server_name: a
        max_payload: 2MB
        ping_interval: "30s"
        jetstream { store_dir: /tmp/x, max_file_store: 10G, max_mem: "256M" }
        websocket { port: -1, no_tls: true }
        authorization {
          users = [
            {user: derek, password: foobar, permissions: {publish: ["a", "b.>"], subscribe: {deny: "c"}}}
            {user: bob, pass: 1234}
          ]
        }
        accounts { A { users: [{user: x, pass: y}] } }
        "#,
    )
    .expect("valid");
    assert_eq!(settings.server.host, "127.0.0.1");
    assert_eq!(settings.server.ports, [0]);
    assert_eq!(settings.server.limits.max_payload, 2 << 20);
    assert_eq!(
        settings.server.timing.ping_interval,
        Duration::from_secs(30)
    );
    let streams = settings.jetstream.expect("on");
    assert_eq!(streams.max_memory, Some(256 << 20));
    assert_eq!(streams.max_file, Some(10_000_000_000));
    let open = read("jetstream { max_file_store: -1, max_mem: -1 }").expect("valid");
    let streams = open.jetstream.expect("on");
    assert_eq!((streams.max_memory, streams.max_file), (None, None));
    assert_eq!(settings.server.auth.users.len(), 3);
    assert_eq!(settings.server.auth.users[1].password, "1234");
    assert_eq!(settings.server.auth.users[2].account.as_deref(), Some("A"));
    assert_eq!(settings.server.websocket.expect("on").port, 0);
}

#[test]
fn mistakes_name_place_and_remedy() {
    assert_eq!(
        read("port: 1\nnonsense: 2").expect_err("refused"),
        "t.conf:2:1: unknown field \"nonsense\""
    );
    assert_eq!(
        read("port: foo").expect_err("refused"),
        "t.conf:1:7: expected a whole number, found text"
    );
    assert!(
        read("cluster { port: 1 }")
            .expect_err("refused")
            .contains("not supported by this version")
    );
    // Every mistake is told, not only the first.
    assert_eq!(
        read("port: foo\ndebug: 1\nnonsense: 2\nno_header_support: 1").expect_err("refused"),
        "t.conf:1:7: expected a whole number, found text\n\
         t.conf:2:8: expected true or false, found a whole number\n\
         t.conf:3:1: unknown field \"nonsense\"\n\
         t.conf:4:20: expected true or false, found a whole number"
    );
    assert!(
        read("websocket { port: 1 }")
            .expect_err("refused")
            .contains("no_tls")
    );
    assert!(read("my_port = 5\nport = $my_port").is_ok());
}

#[test]
fn leafnodes_may_only_ask_for_a_port_nobody_knows() {
    let settings = read("leafnodes { listen: \"127.0.0.1:-1\" }").expect("accepted");
    assert_eq!(
        settings.warnings,
        [
            "t.conf:1:1: \"leafnodes\" is not supported by this version: nothing listens for leafnodes"
        ]
    );
    for refused in [
        "leafnodes { port: 7422 }",
        "leafnodes { listen: \"0.0.0.0:7422\" }",
        "leafnodes { port: -1, remotes: [{url: \"nats://a:7422\"}] }",
        "leafnodes {}",
    ] {
        let error = read(refused).expect_err("refused");
        assert!(error.contains("not supported by this version"), "{error}");
    }
}

#[test]
fn permissions_of_all_notations_are_read() {
    let settings = read(
        r#"authorization {
          default_permissions: { sub: "_INBOX.>" }
          users: [
            {user: a, pass: p, permissions: {pub: {allow: [x, y], deny: y}, allow_responses: {max: -1, ttl: "1m"}}}
            {user: b, pass: p}
            {user: c, pass: p, permissions: {allow_responses: true}}
          ]
        }"#,
    )
    .expect("valid");
    let permissions = |index: usize| {
        settings.server.auth.users[index]
            .permissions
            .clone()
            .expect("given")
    };
    let first = permissions(0);
    assert_eq!(
        first.publish.allow,
        Some(vec!["x".to_owned(), "y".to_owned()])
    );
    assert_eq!(first.publish.deny, ["y"]);
    let limits = first.responses.expect("given");
    assert_eq!(
        (limits.max, limits.ttl),
        (None, Some(Duration::from_secs(60)))
    );
    assert_eq!(
        permissions(1).subscribe.allow,
        Some(vec!["_INBOX.>".to_owned()])
    );
    assert_eq!(permissions(2).responses, Some(ResponseLimits::default()));
}

#[test]
fn contradictions_are_refused_wherever_they_come_from() {
    let refused = |text: &str| {
        read(text)
            .expect("each value is valid")
            .validate()
            .expect_err("a contradiction")
    };
    assert!(refused("max_payload: 2MB\nmax_pending: 1MB").contains("max_pending (1048576)"));
    assert!(refused("server_name: \"a b\"").contains("spaces"));
    let none = "no_auth_user: \"x\" present, but users/nkeys are not defined";
    let single = "authorization { user: x, pass: y }\nno_auth_user: x";
    let others = "authorization { users: [{user: y, pass: z}] }\n";
    assert_eq!(refused("no_auth_user: x"), none);
    assert_eq!(refused(single), none);
    assert!(refused(&format!("{others}no_auth_user: x")).contains("not present as user or nkey"));
    let websocket = |own: &str| refused(&format!("{others}websocket {{ no_tls: true, {own} }}"));
    assert!(websocket("no_auth_user: x").contains("not present as user or nkey"));
    for (own, what) in [("user: a, pass: b", "username"), ("token: a", "token")] {
        assert_eq!(
            websocket(&format!("authorization {{ {own} }}")),
            format!("websocket authentication {what} not compatible with presence of users/nkeys")
        );
    }
    assert!(websocket("jwt_cookie: c").contains("JWT authentication via cookie \"c\""));
    assert!(refused("lame_duck_grace_period: 3m").contains("lame duck"));
    let twice = "authorization { users: [{user: a, pass: b}, {user: a, pass: c}] }";
    assert!(refused(twice).contains("Duplicate user \"a\""));
    let mut plain = read("authorization { user: a, pass: b }").expect("valid");
    plain.validate().expect("consistent");
    assert_eq!(
        plain.warnings,
        ["Plaintext passwords detected, use nkeys or bcrypt"]
    );
}

#[test]
fn durations_are_those_of_go() {
    assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
    assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
    assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
    for text in ["", "5", "s", "5 s", "-1s", "5x"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

/// What would make a rule that does not hold, or leave open who is meant.
#[test]
fn contradictions_are_refused_as_by_nats_server() {
    let users = "users: [{user: a, password: b}]";
    let permit = |rules: &str| {
        format!("authorization {{ users: [{{user: u, password: p, permissions: {{ {rules} }}}}] }}")
    };
    let cases = [
        (
            permit("publish: { deny: [\"a b\"] }"),
            "subject \"a b\" is not a valid subject",
        ),
        (
            permit("publish: \"a..b\""),
            "subject \"a..b\" is not a valid subject",
        ),
        (
            permit("subscribe: [\"a b c\"]"),
            "subject \"a b c\" is not a valid subject",
        ),
        (
            permit("subscribe: [\"a. b\"]"),
            "subject \"a. b\" contains an invalid subject",
        ),
        (
            format!("authorization {{ token: t, {users} }}"),
            "Can not have a token and a users array",
        ),
        (
            format!("authorization {{ user: u, password: p }}\naccounts {{ A {{ {users} }} }}"),
            "Can not have a single user/pass and accounts",
        ),
        (
            format!("accounts {{ A {{ {users} }} }}\nauthorization {{ user: u, password: p }}"),
            "Can not have a single user/pass and accounts",
        ),
        (
            "accounts { A { trace_dest: 123 } }".to_owned(),
            "Expected account message trace \"trace_dest\" to be a string or a map/struct, got a \
             whole number",
        ),
        (
            "accounts { A { msg_trace: {dest: 123} } }".to_owned(),
            "Field \"dest\" should be a string, got a whole number",
        ),
        (
            "store_dir: a\njetstream { store_dir: b }".to_owned(),
            "Duplicate 'store_dir' configuration",
        ),
        (
            "max_control_line: 3000000000".to_owned(),
            "max_control_line value is too big",
        ),
        (
            "max_payload: 3000000000".to_owned(),
            "max_payload value is too big",
        ),
    ];
    for (text, expected) in cases {
        let refusal = read(&text).expect_err(&text);
        assert!(refusal.ends_with(expected), "{text}: {refusal}");
    }
    for text in [
        permit("subscribe: { allow: [\"a q\", \"b.> *\"], deny: \"c d\" }"),
        permit("publish: [], subscribe: \">\""),
        "store_dir: a\njetstream { max_mem: 5 }".to_owned(),
    ] {
        read(&text).expect(&text);
    }
}

#[test]
fn numbers_for_durations_are_taken_with_a_warning() {
    let warnings = |text: &str| read(text).expect("valid").warnings;
    assert_eq!(
        warnings("ping_interval: 5"),
        [
            "t.conf:1:1: invalid use of field \"ping_interval\": ping_interval should be converted \
             to a duration"
        ]
    );
    assert_eq!(warnings("write_deadline: 5").len(), 1);
    assert_eq!(warnings("authorization { timeout: 1m }").len(), 1);
    for text in [
        "ping_interval: 5s",
        "write_deadline: \"5s\"",
        "authorization { timeout: 5 }",
    ] {
        assert!(warnings(text).is_empty(), "{text}");
    }
}
