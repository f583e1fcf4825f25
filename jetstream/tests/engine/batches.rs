//! Batches that are stored as a whole or not at all.

use super::server::{SECOND, Server};

fn server(more: &str) -> Server {
    let mut server = Server::new();
    server.stream("S", &["s.>"], &format!(r#","allow_atomic":true{more}"#));
    server
}

/// Publishes a message of a batch; gives its answer.
fn part(server: &mut Server, id: &str, seq: u32, more: &str) -> String {
    let header =
        format!("NATS/1.0\r\nNats-Batch-Id: {id}\r\nNats-Batch-Sequence: {seq}\r\n{more}\r\n");
    let inbox = server.publish_with(&format!("s.{seq}"), &header, b"x");
    server.settle();
    server.answer(&inbox)
}

const COMMIT: &str = "Nats-Batch-Commit: 1\r\n";

#[test]
fn a_batch_appears_when_it_is_complete() {
    for storage in ["file", "memory"] {
        let mut server = server(&format!(r#","storage":"{storage}""#));
        server.store("s.a");
        assert_eq!(part(&mut server, "one", 1, ""), "");
        assert_eq!(part(&mut server, "two", 1, ""), "");
        assert_eq!(part(&mut server, "one", 2, ""), "");
        assert_eq!(server.state("S")["messages"], 1);
        assert_eq!(
            part(&mut server, "one", 3, COMMIT),
            r#"{"stream":"S","seq":4,"batch":"one","count":3}"#
        );
        assert_eq!(server.state("S")["messages"], 4);
        // A last message that only says that the one before it was the last.
        assert_eq!(
            part(&mut server, "two", 2, "Nats-Batch-Commit: eob\r\n"),
            r#"{"stream":"S","seq":5,"batch":"two","count":1}"#
        );
        let state = server.state("S");
        assert_eq!(
            (&state["messages"], &state["last_seq"]),
            (&5.into(), &5.into())
        );
    }
}

#[test]
fn a_batch_that_is_refused_leaves_nothing() {
    let mut server = server("");
    server.store("s.a");
    part(&mut server, "b", 1, "Nats-Expected-Last-Sequence: 1\r\n");
    part(&mut server, "b", 2, "");
    let refused = part(
        &mut server,
        "b",
        3,
        "Nats-Expected-Last-Subject-Sequence: 7\r\nNats-Batch-Commit: 1\r\n",
    );
    assert!(refused.contains("10071"), "{refused}");
    let state = server.state("S");
    assert_eq!(
        (&state["messages"], &state["last_seq"]),
        (&1.into(), &1.into())
    );
    // What is expected may be of the same batch.
    part(&mut server, "c", 1, "");
    let stored = part(
        &mut server,
        "c",
        2,
        "Nats-Expected-Last-Subject-Sequence: 2\r\nNats-Expected-Last-Subject-Sequence-Subject: s.1\r\nNats-Batch-Commit: 1\r\n",
    );
    assert_eq!(stored, r#"{"stream":"S","seq":3,"batch":"c","count":2}"#);
    server.crash();
    assert_eq!(server.state("S")["messages"], 3);
}

#[test]
fn what_is_wrong_with_a_batch_is_said() {
    let mut server = server("");
    let code = |answer: String| -> u64 {
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        super::server::code(&answer)
    };
    assert_eq!(code(part(&mut server, &"x".repeat(65), 1, "")), 10179);
    assert_eq!(code(part(&mut server, "gap", 2, "")), 10176);
    assert_eq!(code(part(&mut server, "large", 1001, "")), 10199);
    part(&mut server, "skip", 1, "");
    assert_eq!(code(part(&mut server, "skip", 3, "")), 10176);
    assert_eq!(
        code(part(&mut server, "how", 1, "Nats-Batch-Commit: no\r\n")),
        10200
    );
    assert_eq!(
        code(part(&mut server, "eob", 1, "Nats-Batch-Commit: eob\r\n")),
        10176
    );
    assert_eq!(
        code(part(
            &mut server,
            "id",
            1,
            "Nats-Expected-Last-Msg-Id: a\r\nNats-Batch-Commit: 1\r\n"
        )),
        10177
    );
    part(&mut server, "twice", 1, "Nats-Msg-Id: a\r\n");
    assert_eq!(
        code(part(
            &mut server,
            "twice",
            2,
            "Nats-Msg-Id: a\r\nNats-Batch-Commit: 1\r\n"
        )),
        10201
    );
    let header = "NATS/1.0\r\nNats-Batch-Id: none\r\n\r\n";
    let inbox = server.publish_with("s.a", header, b"x");
    server.settle();
    assert_eq!(code(server.answer(&inbox)), 10175);
    for n in 0..50 {
        part(&mut server, &format!("open{n}"), 1, "");
    }
    assert_eq!(code(part(&mut server, "more", 1, "")), 10210);
    assert_eq!(server.state("S")["messages"], 0);
    // Those that nobody goes on with make room.
    server.pass(11 * SECOND);
    assert_eq!(code(part(&mut server, "open0", 2, "")), 10176);
    assert_eq!(
        part(&mut server, "new", 1, COMMIT),
        r#"{"stream":"S","seq":1,"batch":"new","count":1}"#
    );
}

#[test]
fn a_full_stream_refuses_the_whole_batch() {
    let mut server = server(r#","discard":"new","max_msgs":3"#);
    server.store("s.a");
    server.store("s.a");
    part(&mut server, "b", 1, "");
    let refused = part(&mut server, "b", 2, COMMIT);
    assert!(refused.contains("maximum messages exceeded"), "{refused}");
    assert_eq!(server.state("S")["messages"], 2);
    assert!(part(&mut server, "c", 1, COMMIT).contains(r#""count":1"#));
}
