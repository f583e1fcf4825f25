//! What the API answers, and what the outside is told.

use menes_jetstream::engine::{ApiRequest, InternalCall, Options};
use serde_json::Value;

use super::server::{Server, code, consumer_body};

#[test]
fn nonsense_gets_the_answer_of_the_reference_server() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    for (what, body, expected) in [
        ("STREAM.CREATE.T", "{nonsense", 10025),
        ("STREAM.CREATE.T", r#"{"name":"T","bogus":1}"#, 10025),
        ("STREAM.CREATE.T", r#"{"name":"S"}"#, 10056),
        (
            "STREAM.CREATE.T",
            r#"{"name":"T","subjects":["s.x"]}"#,
            10065,
        ),
        ("STREAM.CREATE.S", r#"{"name":"S","subjects":["t"]}"#, 10058),
        ("STREAM.CREATE.T>", r#"{"name":"T>"}"#, 10052),
        ("STREAM.UPDATE.T", r#"{"name":"T","subjects":["t"]}"#, 10059),
        ("STREAM.DELETE.T", "", 10059),
        ("STREAM.DELETE.S", "junk", 10038),
        ("STREAM.INFO.T", "", 10059),
        ("STREAM.PURGE.S", r#"{"seq":1,"keep":1}"#, 10003),
        ("STREAM.MSG.GET.S", r#"{"seq":9}"#, 10037),
        ("STREAM.MSG.GET.S", "", 10003),
        ("STREAM.MSG.DELETE.S", "", 10003),
        ("STREAM.LEADER.STEPDOWN.S", "", 10010),
        ("CONSUMER.CREATE.T.C", &consumer_body("T", "C", ""), 10059),
        ("CONSUMER.CREATE.S.D", &consumer_body("S", "C", ""), 10017),
        ("CONSUMER.CREATE.S.D", &consumer_body("T", "D", ""), 10056),
        ("CONSUMER.INFO.S.D", "", 10014),
        ("CONSUMER.INFO.T.D", "", 10059),
        ("CONSUMER.INFO.S.C", r#"{"a":1}"#, 10038),
        ("CONSUMER.DELETE.S.D", "", 10014),
        ("CONSUMER.DELETE.S.C", "xx", 10038),
        ("CONSUMER.DELETE.S.C", "null", 10038),
        ("CONSUMER.PAUSE.S.D", "", 10014),
    ] {
        let answer = server.call(what, body);
        assert_eq!(code(&answer), expected, "{what} {body}: {answer}");
    }
}

#[test]
fn nobody_answers_a_subject_that_is_none_of_the_api() {
    let mut server = Server::new();
    for subject in ["$JS.API.FOO.BAR", "$JS.API.STREAM.INFO", "$JS.API.NOPE"] {
        let inbox = server.request(subject, "");
        server.settle();
        assert!(!server.is_answered(&inbox), "{subject}");
    }
}

#[test]
fn requests_are_audited_for_whoever_asks() {
    let mut server = Server::with_options(Options {
        server_name: "here".to_owned(),
        domain: Some("hub".to_owned()),
        ..Options::default()
    });
    server.wire.hears_advisories = true;
    let request = |server: &mut Server, subject: &str, payload: &str| {
        let engine = server.engine.as_mut().expect("it runs");
        let request = ApiRequest {
            account: &server.account,
            subject: subject.as_bytes(),
            reply: b"in",
            header: b"",
            payload: payload.as_bytes(),
            client: br#"{"id":7}"#,
        };
        engine.request(request, server.now, &mut server.wire);
        server.settle();
        let sent = std::mem::take(&mut server.wire.sent);
        let audits = sent
            .into_iter()
            .filter(|sent| sent.subject == "$JS.EVENT.ADVISORY.API");
        audits
            .map(|sent| serde_json::from_str(&sent.text()).expect("JSON"))
            .collect::<Vec<Value>>()
    };
    let audits = request(&mut server, "$JS.API.STREAM.CREATE.S", r#"{"name":"S"}"#);
    assert_eq!(audits.len(), 1);
    let audit = &audits[0];
    assert_eq!(audit["type"], "io.nats.jetstream.advisory.v1.api_audit");
    assert_eq!(
        (&audit["server"], &audit["domain"]),
        (&"here".into(), &"hub".into())
    );
    assert_eq!(audit["client"]["id"], 7);
    assert_eq!(audit["subject"], "$JS.API.STREAM.CREATE.S");
    assert_eq!(audit["request"], r#"{"name":"S"}"#);
    let response = audit["response"].as_str().expect("text");
    assert!(response.contains(r#""did_create":true"#), "{response}");
    let audits = request(&mut server, "$JS.API.STREAM.INFO.T", "");
    assert!(
        audits[0]["response"]
            .as_str()
            .is_some_and(|text| text.contains("10059"))
    );
    assert_eq!(audits[0].get("request"), None);
    // What the reference server does not audit.
    assert!(
        request(&mut server, "$JS.API.STREAM.MSG.GET.S", r#"{"seq":1}"#)
            .iter()
            .all(|audit| audit["response"]
                .as_str()
                .is_some_and(|text| text.contains("error")))
    );
}

#[test]
fn a_missing_message_is_refused_as_the_store_of_the_reference_server_does() {
    let mut server = Server::new();
    server.stream("F", &["f"], "");
    server.stream("M", &["m"], r#","storage":"memory""#);
    for subject in ["f", "f", "f", "m", "m", "m"] {
        server.store(subject);
    }
    for (what, seq, expected) in [
        ("F", 2, 0),
        ("F", 2, 10043),
        ("F", 0, 10057),
        ("F", 9, 10057),
        ("M", 2, 0),
        ("M", 2, 10043),
        ("M", 0, 10043),
        ("M", 9, 10043),
    ] {
        let body = format!(r#"{{"seq":{seq}}}"#);
        let answer = server.call(&format!("STREAM.MSG.DELETE.{what}"), &body);
        assert_eq!(code(&answer), expected, "{what} {seq}: {answer}");
    }
}

#[test]
fn who_asks_what_is_not_there_finds_no_responders() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.stream("D", &["d.>"], r#","allow_direct":true"#);
    server.store("d.a");
    for subject in [
        "$JS.API.CONSUMER.MSG.NEXT.S.NONE",
        "$JS.API.CONSUMER.MSG.NEXT.NONE.NONE",
        "$JS.API.DIRECT.GET.S",
        "$JS.API.DIRECT.GET.NONE",
    ] {
        let inbox = server.request(subject, r#"{"seq":1}"#);
        let answer = server.answer(&inbox);
        assert!(
            answer.starts_with("NATS/1.0 503\r\n"),
            "{subject}: {answer}"
        );
    }
    let inbox = server.request("$JS.API.DIRECT.GET.D", r#"{"seq":1}"#);
    assert!(server.answer(&inbox).contains("Nats-Sequence: 1"));
}

#[test]
fn a_batch_of_direct_gets_ends_before_it_is_too_much_for_a_connection() {
    let mut server = Server::new();
    server.stream("D", &["d.>"], r#","allow_direct":true"#);
    for _ in 0..20 {
        server.publish_with("d.a", "", &vec![1; 1 << 20]);
        server.settle();
    }
    let inbox = server.request(
        "$JS.API.DIRECT.GET.D",
        r#"{"seq":1,"batch":100,"max_bytes":1000000000}"#,
    );
    let got = server.received(&inbox);
    assert_eq!(got.len(), 17);
    let end = &got[16].header;
    assert!(end.starts_with("NATS/1.0 204 EOB"), "{end}");
    assert!(end.contains("Nats-Num-Pending: 4"), "{end}");
}

#[test]
fn names_are_filtered_by_what_streams_capture() {
    let mut server = Server::new();
    server.stream("A", &["a.>", "x.1"], "");
    server.stream("B", &["b.*"], "");
    for (filter, expected) in [
        ("a.b.c", r#"["A"]"#),
        ("x.*", r#"["A"]"#),
        ("b.>", r#"["B"]"#),
        (">", r#"["A","B"]"#),
        ("zz", "null"),
    ] {
        let answer = server.must("STREAM.NAMES", &format!(r#"{{"subject":"{filter}"}}"#));
        assert_eq!(answer["streams"].to_string(), expected, "{filter}");
    }
}

#[test]
fn a_stream_that_never_held_anything_begins_at_zero() {
    let mut server = Server::new();
    server.stream("S", &["s"], "");
    assert_eq!(server.state("S")["first_seq"], 0);
    server.stream("T", &["t"], r#","first_seq":10"#);
    let state = server.state("T");
    assert_eq!(
        (&state["first_seq"], &state["last_seq"]),
        (&Value::from(10), &Value::from(9))
    );
    server.store("s");
    server.must("STREAM.PURGE.S", "");
    assert_eq!(server.state("S")["first_seq"], 2);
}

#[test]
fn an_account_is_told_its_own_figures() {
    let mut server = Server::new();
    server.stream("F", &["f"], "");
    server.stream("M", &["m"], r#","storage":"memory","max_bytes":1000"#);
    server.consumer("F", "C", "");
    server.store("f");
    server.call("STREAM.INFO.NONE", "");
    let info = server.must("INFO", "");
    assert_eq!(info["streams"], 2);
    assert_eq!(info["consumers"], 1);
    assert_eq!(info["reserved_memory"], 1000);
    assert!(info["storage"].as_u64() > Some(0));
    assert_eq!(info["limits"]["max_streams"], -1);
    assert_eq!(
        (&info["api"]["total"], &info["api"]["errors"]),
        (&Value::from(4), &Value::from(1)),
        "all but this one, which is not answered yet"
    );
    server.account = "OTHER".into();
    let info = server.must("INFO", "");
    assert_eq!(
        (&info["streams"], &info["api"]["total"]),
        (&Value::from(0), &Value::from(0))
    );
}

#[test]
fn creating_the_same_again_is_success() {
    let mut server = Server::new();
    let body = r#"{"name":"S","subjects":["s.>"]}"#;
    for _ in 0..2 {
        assert_eq!(server.must("STREAM.CREATE.S", body)["did_create"], true);
    }
    let body = consumer_body("S", "C", "");
    let first = server.must("CONSUMER.CREATE.S.C", &body);
    let second = server.must("CONSUMER.CREATE.S.C", &body);
    assert_eq!(first["created"], second["created"]);
}

#[test]
fn the_subjects_to_capture_follow_the_stream() {
    let mut server = Server::new();
    server.stream("S", &["a", "b"], "");
    assert!(server.group_of("a").is_some());
    server.must("STREAM.UPDATE.S", r#"{"name":"S","subjects":["b","c"]}"#);
    assert!(server.group_of("a").is_none());
    assert!(server.group_of("c").is_some());
    server.crash();
    assert!(server.group_of("c").is_some());
    server.must("STREAM.DELETE.S", "");
    assert!(server.captured.is_empty());
}

#[test]
fn what_happens_to_streams_and_consumers_is_advised() {
    let mut server = Server::new();
    server.stream("QUIET", &["q"], "");
    assert!(server.wire.sent.is_empty());
    server.wire.hears_advisories = true;
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    server.must(
        "CONSUMER.PAUSE.S.C",
        r#"{"pause_until":"2035-01-01T00:00:00Z"}"#,
    );
    server.must("CONSUMER.PAUSE.S.C", "");
    server.must("STREAM.UPDATE.S", r#"{"name":"S","subjects":["t.>"]}"#);
    server.must("STREAM.DELETE.S", "");
    let expected = [
        ("STREAM.CREATED.S", "stream_action", r#""action":"create""#),
        (
            "CONSUMER.CREATED.S.C",
            "consumer_action",
            r#""consumer":"C","action":"create""#,
        ),
        (
            "CONSUMER.PAUSE.S.C",
            "consumer_pause",
            r#""consumer":"C","paused":true,"pause_until":"2035-01-01T00:00:00Z""#,
        ),
        (
            "CONSUMER.PAUSE.S.C",
            "consumer_pause",
            r#""consumer":"C","paused":false,"pause_until":"0001-01-01T00:00:00Z""#,
        ),
        ("STREAM.UPDATED.S", "stream_action", r#""action":"modify""#),
        (
            "CONSUMER.DELETED.S.C",
            "consumer_action",
            r#""action":"delete""#,
        ),
        ("STREAM.DELETED.S", "stream_action", r#""action":"delete""#),
    ];
    let sent: Vec<_> = std::mem::take(&mut server.wire.sent);
    assert_eq!(sent.len(), expected.len(), "{sent:?}");
    for (sent, (subject, kind, part)) in sent.iter().zip(expected) {
        let text = sent.text();
        assert_eq!(sent.subject, format!("$JS.EVENT.ADVISORY.{subject}"));
        let head = format!(r#"{{"type":"io.nats.jetstream.advisory.v1.{kind}","id":""#);
        assert!(text.starts_with(&head), "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_higher_level_than_there_is_is_refused() {
    let mut server = Server::new();
    let request = ApiRequest {
        account: &server.account,
        subject: b"$JS.API.INFO",
        reply: b"in",
        header: b"NATS/1.0\r\nNats-Required-Api-Level: 99\r\n\r\n",
        payload: b"",
        client: b"",
    };
    let engine = server.engine.as_mut().expect("it runs");
    engine.request(request, server.now, &mut server.wire);
    assert!(server.answer("in").contains(r#""err_code":10185"#));
}

#[test]
fn a_stream_in_use_survives_the_deletion_of_an_unused_one() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let inbox = server.publish("s.a");
    let (account, now) = (server.account.clone(), server.now);
    let call = InternalCall::DeleteStream {
        name: "S".to_owned(),
        only_if_unused: true,
    };
    let engine = server.engine.as_mut().expect("it runs");
    engine.call(&account, call, 1, now, &mut server.wire);
    server.settle();
    assert_eq!(server.answer(&inbox), r#"{"stream":"S","seq":1}"#);
    assert!(server.engine().take_completions()[0].result.is_ok());
    assert_eq!(server.state("S")["messages"], 1);
}

#[test]
fn figures_add_up_and_details_say_more() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    server.store("s.a");
    let total = server.engine().figures();
    assert_eq!(
        (
            total.accounts,
            total.streams,
            total.consumers,
            total.messages
        ),
        (1, 1, 1, 1)
    );
    let now = server.now;
    let engine = server.engine.as_mut().expect("it runs");
    let mut details = engine.begin_details();
    assert!(!details.is_complete());
    engine.gather_details(&mut details, 1, now, &mut server.wire);
    assert!(details.is_complete());
    let details = engine.finish_details(details);
    assert_eq!(details[0].streams[0].info.config.name, "S");
    assert_eq!(details[0].streams[0].consumers[0].num_pending, 1);
    assert_eq!(details[0].figures.api_total, 2);
}

#[test]
fn a_stream_in_memory_begins_where_it_is_told() {
    let mut server = Server::new();
    for (storage, more, first) in [
        ("memory", r#","first_seq":1"#, 1),
        ("memory", "", 0),
        ("file", r#","first_seq":7"#, 7),
    ] {
        let name = format!("{storage}{first}");
        let more = format!(r#","storage":"{storage}"{more}"#);
        server.stream(&name, &[&format!("{name}.>")], &more);
        assert_eq!(server.state(&name)["first_seq"], first, "{name}");
    }
}

#[test]
fn who_asks_finds_what_came_before() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        let more = format!(r#","retention":"workqueue","storage":"{storage}""#);
        server.stream("S", &["s.>"], &more);
        server.consumer("S", "C", "");
        let state = |server: &mut Server, inbox: &str| -> (Value, Value) {
            let answer: Value = serde_json::from_str(&server.answer(inbox)).expect("JSON");
            let state = &answer["state"];
            (state["messages"].clone(), state["last_seq"].clone())
        };
        // Nobody waits for acks, and nothing is synced in between.
        server.publish("s.a");
        server.publish("s.b");
        let asked = server.request("$JS.API.STREAM.INFO.S", "");
        server.publish("s.c");
        let get = server.request("$JS.API.STREAM.MSG.GET.S", r#"{"seq":3}"#);
        server.settle();
        assert_eq!(
            state(&mut server, &asked),
            (2.into(), 2.into()),
            "{storage}"
        );
        assert!(server.answer(&get).contains(r#""subject":"s.c""#));

        for delivery in &server.pull("S", "C", 2) {
            server.ack(delivery, "+ACK");
        }
        let asked = server.request("$JS.API.STREAM.INFO.S", "");
        let info = server.request("$JS.API.CONSUMER.INFO.S.C", "");
        server.settle();
        assert_eq!(
            state(&mut server, &asked),
            (1.into(), 3.into()),
            "{storage}"
        );
        assert!(server.answer(&info).contains(r#""num_ack_pending":0"#));
    }
}

#[test]
fn questions_do_not_pile_up_behind_a_slow_disk() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.publish("s.a");
    let long = format!(r#"{{"subjects_filter":"{}"}}"#, "a".repeat(20_000));
    let long = server.request("$JS.API.STREAM.INFO.S", &long);
    assert!(server.answer(&long).contains("stream_info_response"));
    let asked: Vec<String> = (0..2_000)
        .map(|_| server.request("$JS.API.STREAM.INFO.S", ""))
        .collect();
    let last = asked.last().expect("many were asked");
    assert!(server.answer(last).contains(r#""messages":0"#));
    server.settle();
    assert!(server.answer(&asked[0]).contains(r#""messages":1"#));
}
