//! Messages under other subjects: transforms, what is published again, markers.

use menes_jetstream::engine::Options;

use super::server::{SECOND, Server};

#[test]
fn a_message_is_stored_under_its_transformed_subject() {
    let mut server = Server::new();
    server.stream(
        "S",
        &["in.>"],
        r#","subject_transform":{"src":"in.*","dest":"out.{{wildcard(1)}}.x"}"#,
    );
    assert_eq!(server.store("in.a"), r#"{"stream":"S","seq":1}"#);
    assert_eq!(server.store("in.a.b"), r#"{"stream":"S","seq":2}"#);
    let stored = |server: &mut Server, seq: u64| {
        let body = format!(r#"{{"seq":{seq}}}"#);
        server.must("STREAM.MSG.GET.S", &body)["message"]["subject"].clone()
    };
    assert_eq!(stored(&mut server, 1), "out.a.x");
    assert_eq!(stored(&mut server, 2), "in.a.b");
    server.restart();
    assert_eq!(stored(&mut server, 1), "out.a.x");
}

#[test]
fn a_stored_message_is_published_again_once() {
    let mut server = Server::new();
    server.stream(
        "S",
        &["s.>"],
        r#","republish":{"src":"s.*","dest":"again.{{wildcard(1)}}"}"#,
    );
    server.store("s.a");
    server.store("s.other.b");
    server.store("s.a");
    let again: Vec<_> = server
        .wire
        .sent
        .iter()
        .filter(|sent| sent.subject.starts_with("again."))
        .cloned()
        .collect();
    assert_eq!(again.len(), 2);
    assert_eq!(again[0].subject, "again.a");
    assert_eq!(again[0].payload, b"x");
    assert!(again[0].header.starts_with(
        "NATS/1.0\r\nNats-Stream: S\r\nNats-Subject: s.a\r\nNats-Sequence: 1\r\nNats-Time-Stamp: "
    ));
    assert!(again[0].header.ends_with("Nats-Last-Sequence: 0\r\n\r\n"));
    assert!(again[1].header.ends_with("Nats-Last-Sequence: 1\r\n\r\n"));
    server.wire.sent.clear();
    server.crash();
    assert!(
        !server
            .wire
            .sent
            .iter()
            .any(|sent| sent.subject == "again.a")
    );
}

#[test]
fn headers_alone_say_how_long_the_payload_was() {
    let mut server = Server::new();
    server.stream(
        "S",
        &["s.>"],
        r#","republish":{"dest":"again.>","headers_only":true}"#,
    );
    server.publish_with("s.a", "NATS/1.0\r\nOwn: 1\r\n\r\n", b"four");
    server.settle();
    let sent = server
        .wire
        .sent
        .iter()
        .find(|sent| sent.subject == "again.s.a");
    let sent = sent.expect("published again");
    assert!(sent.payload.is_empty());
    assert!(
        sent.header
            .starts_with("NATS/1.0\r\nOwn: 1\r\nNats-Stream: S\r\n")
    );
    assert!(
        sent.header
            .ends_with("Nats-Last-Sequence: 0\r\nNats-Msg-Size: 4\r\n\r\n")
    );
}

fn with_ttls() -> Server {
    let mut options = Options::default();
    options.stream_bounds.features.msg_ttl = true;
    Server::with_options(options)
}

fn marked(server: &mut Server, extra: &str) {
    let options = format!(
        r#","allow_msg_ttl":true,"allow_rollup_hdrs":true,"subject_delete_marker_ttl":{}{extra}"#,
        10 * SECOND
    );
    server.stream("S", &["s.>"], &options);
}

fn header_of(server: &mut Server, seq: u64) -> String {
    let body = format!(r#"{{"seq":{seq}}}"#);
    let header = server.must("STREAM.MSG.GET.S", &body)["message"]["hdrs"].clone();
    let header = header.as_str().unwrap_or_default();
    let header = data_encoding::BASE64.decode(header.as_bytes());
    String::from_utf8(header.expect("base64")).expect("text")
}

#[test]
fn the_last_message_of_a_subject_leaves_a_marker_when_it_expires() {
    for storage in ["file", "memory"] {
        let mut server = with_ttls();
        marked(
            &mut server,
            &format!(r#","max_age":{},"storage":"{storage}""#, 5 * SECOND),
        );
        server.store("s.a");
        server.store("s.a");
        server.store("s.b");
        server.pass(6 * SECOND);
        assert_eq!(server.state("S")["messages"], 2, "{storage}");
        assert_eq!(
            header_of(&mut server, 4),
            "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 10s\r\nNats-Rollup: sub\r\n\r\n"
        );
        // A marker goes without another one.
        server.pass(30 * SECOND);
        let state = server.state("S");
        assert_eq!(
            (&state["messages"], &state["last_seq"]),
            (&0.into(), &5.into())
        );
    }
}

#[test]
fn a_marker_that_was_due_at_a_crash_is_stored_after_it() {
    let mut server = with_ttls();
    marked(&mut server, "");
    server.publish_with("s.a", "NATS/1.0\r\nNats-TTL: 20\r\n\r\n", b"x");
    server.settle();
    server.now.0 += 21 * SECOND;
    // The removal is proposed and synced, its marker proposed but lost.
    server.turn();
    server.log.sync();
    server.turn();
    server.crash();
    server.settle();
    let state = server.state("S");
    assert_eq!(
        (&state["messages"], &state["last_seq"]),
        (&1.into(), &2.into())
    );
    assert!(header_of(&mut server, 2).contains("Nats-Marker-Reason: MaxAge"));
}

#[test]
fn no_marker_hides_a_message_that_came_first() {
    let mut server = with_ttls();
    marked(&mut server, "");
    server.publish_with("s.a", "NATS/1.0\r\nNats-TTL: 20\r\n\r\n", b"x");
    server.settle();
    server.now.0 += 21 * SECOND;
    server.turn();
    // Before the removal is applied somebody publishes.
    let inbox = server.publish("s.a");
    server.settle();
    assert_eq!(server.answer(&inbox), r#"{"stream":"S","seq":2}"#);
    let state = server.state("S");
    assert_eq!(
        (&state["messages"], &state["last_seq"]),
        (&1.into(), &2.into())
    );
}

#[test]
fn a_short_time_to_live_is_raised_to_that_of_markers() {
    let mut server = with_ttls();
    marked(&mut server, "");
    server.publish_with("s.a", "NATS/1.0\r\nNats-TTL: 1\r\nOwn: 1\r\n\r\n", b"x");
    server.settle();
    assert!(header_of(&mut server, 1).contains("Nats-TTL: 10\r\n"));
    server.pass(9 * SECOND);
    assert_eq!(server.state("S")["last_seq"], 1);
}

#[test]
fn a_rollup_published_to_a_wildcard_replaces_what_matches() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], r#","allow_rollup_hdrs":true"#);
    for subject in ["s.a.1", "s.a.2", "s.b"] {
        server.store(subject);
    }
    // One entry: what is rolled up lies in the same block.
    server.publish("s.a.3");
    server.publish_with("s.a.*", "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n", b"");
    server.publish("s.a.4");
    server.settle();
    let state = server.state("S");
    assert_eq!(state["messages"], 3);
    assert_eq!(state["num_subjects"], 3);
    server.crash();
    assert_eq!(server.state("S"), state);
}
