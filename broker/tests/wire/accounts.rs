//! Exports, imports, mappings and limits of accounts, from the text of a configuration.

use std::io::Write;

use menes_broker::config::options::Options;
use menes_broker::config::settings::{Settings, load};
use menes_broker::routing::Message;
use menes_jetstream::ids::AccountName;

use crate::harness::{Peer, Running, eventually};

/// Options from a configuration.
pub(crate) fn configured(text: &str) -> Options {
    try_configured(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn try_configured(text: &str) -> Result<Options, String> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write!(file, "listen: \"127.0.0.1:-1\"\n{text}").expect("it can be written");
    let mut settings = Settings::default();
    load(file.path(), &mut settings)
        .map_err(|error| error.to_string())
        .and_then(|()| settings.validate())
        .map_err(|error| error.replace(&file.path().display().to_string(), "conf"))?;
    Ok(settings.server)
}

/// A client of the user `name`, whose password is `p`, with headers and no-responders.
fn login(server: &Running, name: &str) -> Peer {
    server.client_with(&format!(
        ",\"user\":\"{name}\",\"pass\":\"p\",\"headers\":true,\"no_responders\":true"
    ))
}

const TWO: &str = r#"
accounts {
  A {
    users [{user: a, pass: p}]
    exports [
      {stream: "news.>"}
      {stream: "own.*.x", accounts: [B]}
      {service: "help.*"}
      {service: "many", response: stream, threshold: "400ms"}
      {service: "slow", threshold: "300ms", latency: {sampling: 100, subject: "latency"}}
    ]
  }
  B {
    users [{user: b, pass: p}]
    imports [
      {stream: {account: A, subject: "news.>"}, prefix: "from.a"}
      {stream: {account: A, subject: "own.*.x"}, to: "mine.$1"}
      {service: {account: A, subject: "help.*"}, to: "ask.$1"}
      {service: {account: A, subject: "many"}}
      {service: {account: A, subject: "slow"}, share: true}
    ]
  }
}
"#;

#[test]
fn what_a_service_delivers_keeps_the_subject_it_has() {
    let server = Running::new(configured(TWO));
    let accounts = server.handle().accounts();
    let exporter = accounts.get_or_create(&AccountName::from("A"));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    a.say("SUB many 1\r\n");
    a.sync();
    b.say("SUB answers 1\r\nPUB many answers 0\r\n\r\n");
    let request = a.line();
    let reply = request.split(' ').nth(3).expect("a reply").to_owned();
    // As a stream does.
    let delivery = Message {
        subject: b"stored.under",
        ..Message::new(reply.as_bytes(), b"x")
    };
    let mut batch = server.handle().route_batch();
    assert_eq!(exporter.route(&mut batch, &delivery, None), 1);
    batch.flush();
    b.expect("MSG stored.under 1 1\r\nx\r\n");
}

#[test]
fn an_imported_stream_appears_in_its_place() {
    let server = Running::new(configured(TWO));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    b.say("SUB from.a.news.* 1\r\nSUB > 2\r\nSUB mine.k 3\r\nSUB news.x 4\r\n");
    b.sync();
    a.say("PUB news.x r 2\r\nhi\r\n");
    let mut lines = [b.line(), b.line(), b.line(), b.line()];
    lines.sort();
    let first = "MSG from.a.news.x 1 r 2\r\n";
    assert_eq!(
        lines,
        [first, "MSG from.a.news.x 2 r 2\r\n", "hi\r\n", "hi\r\n"]
    );
    a.say("PUB own.k.x 1\r\nk\r\n");
    let mut lines = [b.line(), b.line(), b.line(), b.line()];
    lines.sort();
    assert_eq!(
        lines,
        ["MSG mine.k 2 1\r\n", "MSG mine.k 3 1\r\n", "k\r\n", "k\r\n"]
    );
    // What B publishes stays in B.
    a.say("SUB > 9\r\n");
    a.sync();
    b.say("UNSUB 2\r\nPUB from.a.news.x 1\r\nb\r\n");
    b.expect("MSG from.a.news.x 1 1\r\nb\r\n");
    assert!(a.is_silent());
    // Ended subscriptions end everywhere.
    b.say("UNSUB 1\r\nUNSUB 3\r\n");
    b.sync();
    a.say("PUB news.x 1\r\nx\r\n");
    a.expect("MSG news.x 9 1\r\nx\r\n");
    assert!(b.is_silent());
}

#[test]
fn a_maximum_counts_what_is_imported() {
    let server = Running::new(configured(TWO));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    b.say("SUB from.a.> 1\r\nUNSUB 1 2\r\n");
    b.sync();
    a.say("PUB news.1 0\r\n\r\nPUB news.2 0\r\n\r\nPUB news.3 0\r\n\r\n");
    a.sync();
    b.expect("MSG from.a.news.1 1 0\r\n\r\nMSG from.a.news.2 1 0\r\n\r\n");
    assert!(b.is_silent());
    let handle = server.handle();
    eventually("the end of the subscription", || {
        handle.subscription_count() == 3
    });
}

#[test]
fn a_queue_group_spans_accounts() {
    let server = Running::new(configured(TWO));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    a.say("SUB news.q group 1\r\n");
    a.sync();
    b.say("SUB from.a.news.q group 1\r\n");
    b.sync();
    let mut publisher = login(&server, "a");
    for _ in 0..200 {
        publisher.say("PUB news.q 0\r\n\r\n");
    }
    publisher.sync();
    let mut counts = [0, 0];
    for (peer, count) in [&mut a, &mut b].into_iter().zip(&mut counts) {
        peer.say("PING\r\n");
        loop {
            match peer.line().as_str() {
                "PONG\r\n" => break,
                "MSG news.q 1 0\r\n" | "MSG from.a.news.q 1 0\r\n" => *count += 1,
                "\r\n" => {}
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!(counts.iter().sum::<u32>(), 200);
    assert!(counts.iter().all(|&count| count > 50), "{counts:?}");
}

#[test]
fn a_request_finds_its_way_there_and_back() {
    let server = Running::new(configured(TWO));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    b.say("SUB inbox.1 1\r\nPUB ask.me inbox.1 1\r\n?\r\n");
    b.expect("HMSG inbox.1 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: ask.me\r\n\r\n\r\n");
    a.say("SUB help.* 7\r\n");
    a.sync();
    b.say("PUB ask.me inbox.1 1\r\n?\r\n");
    let reply = expect_request(&mut a, "help.me", 7, "{\"acc\":\"B\"", "?");
    assert!(reply.starts_with("_R_.") && reply.len() == 17, "{reply}");
    a.say(&format!("PUB {reply} 2\r\nok\r\nPUB {reply} 3\r\nbad\r\n"));
    a.sync();
    b.expect("MSG inbox.1 1 2\r\nok\r\n");
    assert!(b.is_silent());
    // Replies are the server's to make up.
    b.say("PUB ask.me _R_.x 0\r\n\r\n");
    b.expect("-ERR 'Permissions Violation for Publish with Reply of \"_R_.x\"'\r\n");
}

/// Reads a request; returns its reply subject. The header says `info` of who asked.
fn expect_request(peer: &mut Peer, subject: &str, sid: u32, info: &str, payload: &str) -> String {
    let line = peer.line();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    assert_eq!(words[..3], ["HMSG", subject, &sid.to_string()], "{line}");
    let reply = if words.len() == 6 { words[3] } else { "" };
    peer.expect("NATS/1.0\r\n");
    let header = peer.line();
    let json = header.strip_prefix("Nats-Request-Info: ");
    let json = json.unwrap_or_else(|| panic!("no request info but {header}"));
    assert!(json.starts_with(info), "{json}");
    peer.expect(&format!("\r\n{payload}\r\n"));
    reply.to_owned()
}

#[test]
fn a_response_of_many_messages_ends_with_an_empty_one() {
    let server = Running::new(configured(TWO));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    a.say("SUB many 1\r\n");
    a.sync();
    b.say("SUB in 1\r\nPUB many in 0\r\n\r\n");
    let reply = expect_request(&mut a, "many", 1, "{\"acc\":\"B\"", "");
    for part in ["1", "2", "3", "", "4"] {
        a.say(&format!("PUB {reply} {}\r\n{part}\r\n", part.len()));
    }
    for part in ["1", "2", "3", ""] {
        b.expect(&format!("MSG in 1 {}\r\n{part}\r\n", part.len()));
    }
    a.sync();
    assert!(b.is_silent());
}

#[test]
fn what_takes_too_long_is_forgotten_and_every_outcome_reported() {
    let server = Running::new(configured(TWO));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    let mut watcher = login(&server, "a");
    watcher.say("SUB latency 1\r\n");
    watcher.sync();
    let mut report = || {
        assert!(watcher.line().starts_with("MSG latency 1 "));
        let json: serde_json::Value = serde_json::from_str(&watcher.line()).expect("JSON");
        assert_eq!(json["type"], "io.nats.server.metric.v1.service_latency");
        json
    };
    b.say("SUB in 1\r\nPUB slow in 0\r\n\r\n");
    let nobody = report();
    assert_eq!(nobody["status"], 503);
    assert_eq!(nobody["description"], "Service Unavailable");
    assert_eq!(nobody["requestor"]["user"], "b");
    b.expect("HMSG in 1 36 36\r\nNATS/1.0 503\r\nNats-Subject: slow\r\n\r\n\r\n");

    a.say("SUB slow 1\r\n");
    a.sync();
    b.say("PUB slow 0\r\n\r\n");
    assert_eq!(report()["status"], 400);
    expect_request(&mut a, "slow", 1, "{\"start\":", "");

    b.say("PUB slow in 0\r\n\r\n");
    let reply = expect_request(&mut a, "slow", 1, "{\"start\":", "");
    a.say(&format!("PUB {reply} 1\r\ny\r\n"));
    b.expect("MSG in 1 1\r\ny\r\n");
    let good = report();
    assert_eq!(
        (&good["status"], &good["responder"]["user"]),
        (&200.into(), &"a".into())
    );
    assert!(good["total"].as_u64().is_some_and(|nanos| nanos > 0));

    b.say("PUB slow in 0\r\n\r\n");
    let late = expect_request(&mut a, "slow", 1, "{\"start\":", "");
    assert_eq!(report()["status"], 504);
    a.say(&format!("PUB {late} 1\r\ny\r\n"));
    a.sync();
    assert!(b.is_silent());

    b.say("PUB slow in 0\r\n\r\n");
    expect_request(&mut a, "slow", 1, "{\"start\":", "");
    b.say("UNSUB 1\r\n");
    assert_eq!(report()["status"], 408);
}

#[test]
fn reports_about_reports_end() {
    let server = Running::new(configured(
        r#"accounts {
          A {
            users [{user: a, pass: p}]
            exports [{service: sa, latency: la}]
            imports [{service: {account: B, subject: sb}, to: la}]
          }
          B {
            users [{user: b, pass: p}]
            exports [{service: sb, latency: lb}]
            imports [{service: {account: A, subject: sa}, to: lb}]
          }
        }"#,
    ));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    b.say("SUB sb 1\r\n");
    b.sync();
    // Without a reply subject it is reported to `la`, which is a request to `sb`.
    b.say("PUB lb 0\r\n\r\n");
    assert!(b.line().starts_with("HMSG sb 1 "));
    a.sync();
}

#[test]
fn a_chain_of_imports_has_an_end() {
    let mut text =
        "accounts { N0 { exports [{service: s}], users [{user: last, pass: p}] }\n".to_owned();
    for n in 1..100 {
        let before = n - 1;
        text += &format!(
            "N{n} {{ users [{{user: u{n}, pass: p}}], exports [{{service: s}}], \
             imports [{{service: {{account: N{before}, subject: s}}}}] }}\n"
        );
    }
    let server = Running::new(configured(&(text + "}")));
    let mut last = login(&server, "last");
    last.say("SUB s 1\r\n");
    last.sync();
    for (user, arrives) in [("u1", true), ("u32", true), ("u33", false), ("u99", false)] {
        let mut first = login(&server, user);
        first.say("SUB in 1\r\nPUB s in 0\r\n\r\n");
        if arrives {
            assert!(last.line().starts_with("HMSG s 1 _R_."));
            let header = [last.line(), last.line(), last.line(), last.line()];
            assert!(header[1].starts_with("Nats-Request-Info: "), "{header:?}");
        } else {
            assert!(first.line().starts_with("HMSG in 1 "), "no responders");
        }
    }
}

#[test]
fn mappings_come_before_permissions() {
    let server = Running::new(configured(
        r#"
        mappings { g: h }
        accounts { A {
          users [{user: a, pass: p, permissions: {publish: ["to.>", "gone"]}}]
          mappings {
            "from.*": "to.$1"
            "part.*": "to.{{partition(10,1)}}"
            gone: [{destination: gone, weight: 0}]
            half: [{dest: "to.half", weight: "50%"}]
          }
        } }
        "#,
    ));
    let mut a = login(&server, "a");
    a.say("SUB > 1\r\nPUB from.x 1\r\nx\r\n");
    a.expect("MSG to.x 1 1\r\nx\r\n");
    a.say("PUB part.hello 0\r\n\r\n");
    a.expect("MSG to.3 1 0\r\n\r\n");
    a.say("PUB other 0\r\n\r\n");
    a.expect("-ERR 'Permissions Violation for Publish to \"other\"'\r\n");
    a.say("PUB gone 0\r\n\r\n");
    a.expect("-ERR 'Permissions Violation for Publish to \"\"'\r\n");
    let (mut mapped, mut refused) = (0, 0);
    for _ in 0..200 {
        a.say("PUB half 0\r\n\r\n");
        if a.line().starts_with("MSG to.half") {
            mapped += 1;
            a.expect("\r\n");
        } else {
            refused += 1;
        }
    }
    assert!(mapped > 50 && refused > 50, "{mapped} and {refused}");
}

#[test]
fn limits_of_an_account_hold_for_its_connections() {
    let server = Running::new(configured(
        r#"accounts { A {
          users [{user: a, pass: p}]
          limits { max_connections: 2, max_subscriptions: 1, max_payload: 10 }
        } }"#,
    ));
    let (mut first, second) = (login(&server, "a"), login(&server, "a"));
    let mut third = server.silent();
    third.say("CONNECT {\"user\":\"a\",\"pass\":\"p\"}\r\n");
    third.expect("-ERR 'maximum account active connections exceeded'\r\n");
    third.expect_closed();
    drop(second);
    let handle = server.handle();
    eventually("the end of the second", || handle.connection_count() == 1);
    first.say("SUB a 1\r\nSUB b 2\r\n");
    first.expect("-ERR 'maximum subscriptions exceeded'\r\n");
    first.say("PUB a 11\r\n");
    first.expect("-ERR 'Maximum Payload Violation'\r\n");
    first.expect_closed();
}

#[test]
fn limits_that_get_lower_end_what_is_more_than_they_allow() {
    let accounts = |limits: [&str; 2]| {
        let [a, b] = limits;
        configured(&format!(
            "accounts {{ A {{ users [{{user: a, pass: p}}], limits {{ {a} }} }}
             B {{ users [{{user: b, pass: p}}], limits {{ {b} }} }} C {{ users [{{user: c, pass: p}}] }} }}"
        ))
    };
    let server = Running::new(accounts(["", ""]));
    let mut peers: Vec<Peer> = ["a", "b", "c", "a", "b", "c"]
        .map(|name| login(&server, name))
        .into();
    peers[4].say("SUB x 1\r\nSUB y 2\r\nPING\r\n");
    peers[4].expect("PONG\r\n");
    let lower = accounts(["max_connections: 1", "max_subscriptions: 1"]);
    server.handle().update_accounts(lower.accounts);
    peers[3].expect("-ERR 'maximum account active connections exceeded'\r\n");
    peers[4].expect("-ERR 'maximum subscriptions exceeded'\r\n");
    for stays in [0, 1, 2, 5] {
        peers[stays].say("PING\r\n");
        peers[stays].expect("PONG\r\n");
    }
}

#[test]
fn imports_change_while_clients_stay() {
    let server = Running::new(configured(TWO));
    let (mut a, mut b) = (login(&server, "a"), login(&server, "b"));
    b.say("SUB > 1\r\n");
    b.sync();
    let other = configured(
        r#"accounts {
          A { users [{user: a, pass: p}], exports [{stream: "news.>"}, {service: new}] }
          B { users [{user: b, pass: p}], imports [
            {stream: {account: A, subject: "news.x"}, to: "elsewhere"}
            {service: {account: A, subject: new}}
          ] }
        }"#,
    );
    server.handle().update_accounts(other.accounts);
    a.say("SUB new 1\r\nPUB news.x 1\r\n1\r\nPUB news.y 1\r\n2\r\n");
    a.sync();
    b.expect("MSG elsewhere 1 1\r\n1\r\n");
    b.say("PUB new 0\r\n\r\n");
    b.expect("MSG new 1 0\r\n\r\n");
    expect_request(&mut a, "new", 1, "{\"acc\":\"B\"", "");
    server.handle().update_accounts(Vec::new());
    a.say("PUB news.x 1\r\n1\r\n");
    a.sync();
    assert!(b.is_silent());
}

#[test]
fn a_system_account_with_users_leaves_the_global_one_open() {
    let server = Running::new(configured(
        "accounts { $SYS { users [{user: s, pass: p}] } }",
    ));
    let mut anyone = server.client();
    anyone.say("SUB a 1\r\nPUB a 0\r\n\r\n");
    anyone.expect("MSG a 1 0\r\n\r\n");
    let system = login(&server, "s");
    drop(system);
    let mut wrong = server.silent();
    wrong.say("CONNECT {\"user\":\"s\",\"pass\":\"x\"}\r\n");
    wrong.expect("-ERR 'Authorization Violation'\r\n");
    let server = Running::new(configured(
        "system_account: S\naccounts { S { users [{user: s, pass: p}] }, A { users [{user: a, pass: p}] } }",
    ));
    let mut anyone = server.silent();
    anyone.say("CONNECT {}\r\n");
    anyone.expect("-ERR 'Authorization Violation'\r\n");
}

#[test]
fn mistakes_are_told_as_nats_server_tells_them() {
    for (text, error) in [
        (
            "accounts { A { imports [{stream: {account: Z, subject: a}}] } }",
            "\"Z\" account not defined for stream import",
        ),
        (
            "accounts { A { exports [{stream: a, accounts: [Z]}] } }",
            "\"Z\" account not defined for stream export",
        ),
        (
            "accounts { A { exports [{stream: a}] }, B { imports [{stream: {account: A, subject: b}}] } }",
            "Error adding stream import \"b\": stream import not authorized",
        ),
        (
            "accounts { A { exports [{service: s}], imports [{service: {account: B, subject: s}}] }
                        B { exports [{service: s}], imports [{service: {account: A, subject: s}}] } }",
            "Error adding service import \"s\": import forms a cycle",
        ),
        (
            "accounts { A { exports [{service: s, latency: {subject: \"l.*\"}}] } }",
            "Error adding service latency sampling for \"s\" on subject \"l.*\": invalid publish subject",
        ),
        (
            "accounts { A { exports [{stream: s, response: stream}] } }",
            "Detected response directive on non-service",
        ),
        (
            "accounts { A { mappings { a: \"b.{{foo(1)}}\" } } }",
            "Error adding mapping for \"a\" to \"b.{{foo(1)}}\" : invalid mapping destination: unknown \
             function in {{foo(1)}}",
        ),
        ("accounts { $G { } }", "\"$G\" is a Reserved Account"),
        ("accounts [A, B, A]", "Duplicate Account Entry: A"),
        (
            "accounts { A { limits { max_foo: 1 } } }",
            "Unknown field \"max_foo\" parsing account limits",
        ),
    ] {
        let found = try_configured(text).map(drop).expect_err(text);
        assert!(found.ends_with(error), "{found}\nis not\n{error}");
        assert!(found.starts_with("conf:"), "{found}");
    }
}
