//! What an account, or the whole server, may not exceed.

use menes_jetstream::AccountName;
use menes_jetstream::api::response::AccountLimits;
use menes_jetstream::engine::{Options, ServerLimits};

use super::server::{Server, code, consumer_body};

fn limited(limits: AccountLimits) -> Server {
    let mut server = Server::new();
    let account = server.account.clone();
    server.engine().set_account_limits(&account, limits);
    server
}

#[test]
fn streams_are_refused_beyond_their_number() {
    let mut server = limited(AccountLimits {
        max_streams: 2,
        ..AccountLimits::default()
    });
    server.stream("A", &["a"], "");
    // Two at once: the first takes the place of the second.
    let first = server.request("$JS.API.STREAM.CREATE.B", r#"{"name":"B"}"#);
    let second = server.request("$JS.API.STREAM.CREATE.C", r#"{"name":"C"}"#);
    server.settle();
    assert!(server.answer(&first).contains("did_create"));
    assert!(server.answer(&second).contains(r#""err_code":10027"#));
    server.must("STREAM.CREATE.A", r#"{"name":"A","subjects":["a"]}"#);
    server.must("STREAM.DELETE.A", "");
    server.stream("C", &["c"], "");
}

#[test]
fn promised_bytes_are_refused_beyond_the_limit() {
    let mut server = limited(AccountLimits {
        max_memory: 500,
        max_storage: 1000,
        memory_max_stream_bytes: 400,
        storage_max_stream_bytes: 800,
        ..AccountLimits::default()
    });
    for (what, body, expected) in [
        ("CREATE.A", r#"{"name":"A","max_bytes":801}"#, 10122),
        ("CREATE.A", r#"{"name":"A","max_bytes":800}"#, 0),
        ("CREATE.B", r#"{"name":"B","max_bytes":201}"#, 10047),
        ("CREATE.B", r#"{"name":"B","max_bytes":100}"#, 0),
        ("UPDATE.B", r#"{"name":"B","max_bytes":201}"#, 10047),
        ("UPDATE.B", r#"{"name":"B","max_bytes":200}"#, 0),
        (
            "CREATE.M",
            r#"{"name":"M","storage":"memory","max_bytes":401}"#,
            10122,
        ),
        (
            "CREATE.M",
            r#"{"name":"M","storage":"memory","max_bytes":400}"#,
            0,
        ),
        (
            "CREATE.N",
            r#"{"name":"N","storage":"memory","max_bytes":101}"#,
            10028,
        ),
    ] {
        let answer = server.call(&format!("STREAM.{what}"), body);
        assert_eq!(code(&answer), expected, "{what} {body}: {answer}");
    }
    let info = server.must("INFO", "");
    assert_eq!(info["reserved_storage"], 1000);
    assert_eq!(info["reserved_memory"], 400);
    assert_eq!(info["limits"]["max_storage"], 1000);
}

#[test]
fn streams_have_to_say_how_large_they_get() {
    let mut server = limited(AccountLimits {
        max_bytes_required: true,
        ..AccountLimits::default()
    });
    let answer = server.call("STREAM.CREATE.A", r#"{"name":"A"}"#);
    assert_eq!(code(&answer), 10113, "{answer}");
    server.must("STREAM.CREATE.A", r#"{"name":"A","max_bytes":10}"#);
}

#[test]
fn messages_are_refused_while_the_account_is_full() {
    let mut server = limited(AccountLimits {
        max_storage: 300,
        ..AccountLimits::default()
    });
    server.stream("S", &["s.>"], "");
    // 30 bytes each beside subject and payload; all of them at once.
    let inboxes: Vec<_> = (0..10)
        .map(|_| server.publish_with("s.a", "", &[0; 67]))
        .collect();
    server.settle();
    let stored = inboxes.iter().filter(|inbox| {
        let answer = server.answer(inbox);
        assert!(
            answer.contains(r#""seq":"#) || answer.contains(r#""err_code":10002"#),
            "{answer}"
        );
        !answer.contains("error")
    });
    assert_eq!(stored.count(), 3);
    server.must("STREAM.PURGE.S", "");
    assert!(!server.store("s.a").contains("error"));
    // Others have their own limits.
    assert_eq!(server.state("S")["messages"], 1);
    let other = AccountName::from("other");
    server
        .engine()
        .set_account_limits(&other, AccountLimits::default());
}

#[test]
fn consumers_are_refused_beyond_their_number() {
    let mut server = limited(AccountLimits {
        max_consumers: 1,
        max_ack_pending: 10,
        ..AccountLimits::default()
    });
    server.stream("S", &["s.>"], "");
    let answer = server.call(
        "CONSUMER.CREATE.S.A",
        &consumer_body("S", "A", r#","max_ack_pending":11"#),
    );
    assert_eq!(code(&answer), 10121, "{answer}");
    server.consumer("S", "A", r#","max_ack_pending":10"#);
    let body = consumer_body("S", "B", r#","max_ack_pending":1"#);
    let answer = server.call("CONSUMER.CREATE.S.B", &body);
    assert_eq!(code(&answer), 10026, "{answer}");
}

#[test]
fn the_server_refuses_what_all_accounts_together_may_not_hold() {
    let limits = ServerLimits {
        memory: Some(100),
        storage: None,
    };
    let mut server = Server::with_options(Options {
        limits,
        ..Options::default()
    });
    server.stream("M", &["m"], r#","storage":"memory""#);
    server.stream("F", &["f"], "");
    let answers: Vec<_> = (0..8).map(|_| server.store("m")).collect();
    // 18 bytes each; the limit may be passed once.
    let stored = answers.iter().filter(|answer| !answer.contains("error"));
    assert_eq!(stored.count(), 6, "{answers:?}");
    assert!(answers[7].contains(r#""err_code":10023"#), "{answers:?}");
    assert!(!server.store("f").contains("error"));
}

#[test]
fn figures_follow_whatever_happens() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], r#","max_msgs":3"#);
    server.stream("M", &["m"], r#","storage":"memory","max_bytes":1000"#);
    for _ in 0..5 {
        server.store("s.a");
    }
    server.store("m");
    server.consumer("S", "C", "");
    let figures = server.engine().figures();
    assert_eq!(
        (figures.accounts, figures.streams, figures.consumers),
        (1, 2, 1)
    );
    assert_eq!((figures.messages, figures.reserved_memory), (4, 1000));
    assert_eq!(figures.bytes, figures.memory + figures.storage);
    server.must("STREAM.MSG.DELETE.S", r#"{"seq":4}"#);
    server.must("CONSUMER.DELETE.S.C", "");
    assert_eq!(server.engine().figures().messages, 3);
    server.restart();
    let figures = server.engine().figures();
    assert_eq!(
        (figures.messages, figures.streams, figures.consumers),
        (2, 2, 0)
    );
    server.must("STREAM.DELETE.S", "");
    server.must("STREAM.DELETE.M", "");
    let figures = server.engine().figures();
    assert_eq!(
        (figures.accounts, figures.streams, figures.bytes),
        (0, 0, 0)
    );
    assert_eq!((figures.reserved_memory, figures.reserved_storage), (0, 0));
}

#[test]
fn limits_given_by_tier_are_shown_by_tier() {
    let mut server = limited(AccountLimits {
        max_storage: 1000,
        is_tier: true,
        ..AccountLimits::default()
    });
    server.stream("S", &["s"], "");
    let info = server.must("INFO", "");
    assert_eq!(info["streams"], 1);
    assert_eq!(info["limits"]["max_storage"], 0);
    assert_eq!(info["tiers"]["R1"]["limits"]["max_storage"], 1000);
    assert_eq!(info["tiers"]["R1"]["limits"]["max_streams"], -1);
}
