//! Batches whose messages are stored one by one.

use super::server::{SECOND, Server};

const START: u32 = 0;
const APPEND: u32 = 1;
const COMMIT: u32 = 2;
const COMMIT_BEFORE: u32 = 3;
const PING: u32 = 4;

fn server(more: &str) -> Server {
    let mut server = Server::new();
    server.stream("S", &["s.>"], &format!(r#","allow_batched":true{more}"#));
    server
}

/// Publishes a message of a batch, two of which are told of with one ack; gives where answers go.
fn send(server: &mut Server, gaps: &str, seq: u64, operation: u32, header: &str) -> String {
    let reply = format!("p.b.2.{gaps}.{seq}.{operation}.$FI");
    server.publish_to("s.a", &reply, header, b"x");
    reply
}

/// Publishes a message of a batch without gaps and lets it be stored; gives its answers.
fn part(server: &mut Server, seq: u64, operation: u32) -> Vec<String> {
    let reply = send(server, "fail", seq, operation, "");
    server.settle();
    answers(server, &reply)
}

fn answers(server: &mut Server, reply: &str) -> Vec<String> {
    let received = server.received(reply);
    received.iter().map(|sent| sent.text()).collect()
}

fn ack(seq: u64) -> String {
    format!(r#"{{"type":"ack","seq":{seq},"msgs":2}}"#)
}

fn whole(seq: u64, count: u64) -> String {
    format!(r#"{{"stream":"S","seq":{seq},"batch":"b","count":{count}}}"#)
}

const NOTHING: [&str; 0] = [];
const WRONG: &str = "NATS/1.0\r\nNats-Expected-Last-Sequence: 77\r\n\r\n";
const REFUSED: &str = r#"{"type":"err","seq":2,"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 1"}}"#;

#[test]
fn a_batch_is_told_how_far_it_is() {
    for storage in ["file", "memory"] {
        let mut server = server(&format!(r#","storage":"{storage}""#));
        server.store("s.first");
        assert_eq!(part(&mut server, 1, START), [ack(0)]);
        assert_eq!(part(&mut server, 2, APPEND), [ack(2)]);
        assert_eq!(part(&mut server, 3, APPEND), NOTHING);
        assert_eq!(part(&mut server, 3, PING), [ack(2)]);
        assert_eq!(part(&mut server, 4, APPEND), [ack(4)]);
        assert_eq!(part(&mut server, 5, COMMIT), [whole(6, 5)]);
        assert_eq!(server.state("S")["messages"], 6);
        // The same name again is another batch, which may be of one message.
        assert_eq!(part(&mut server, 1, COMMIT), [whole(7, 1)]);
        // Or end without a message of its own.
        part(&mut server, 1, START);
        assert_eq!(part(&mut server, 2, COMMIT_BEFORE), [whole(8, 1)]);
        // The ack goes to what ended the batch, also if the last message is still on its way.
        send(&mut server, "fail", 1, START, "");
        assert_eq!(part(&mut server, 2, COMMIT_BEFORE), [whole(9, 1)]);
    }
}

#[test]
fn nothing_is_stored_behind_a_refused_message() {
    for storage in ["file", "memory"] {
        let mut server = server(&format!(r#","storage":"{storage}""#));
        part(&mut server, 1, START);
        // Nobody waits for answers here.
        let second = send(&mut server, "fail", 2, APPEND, WRONG);
        send(&mut server, "fail", 3, APPEND, "");
        send(&mut server, "fail", 4, COMMIT, "");
        server.settle();
        assert_eq!(
            answers(&mut server, &second),
            [REFUSED, &whole(1, 1)],
            "{storage}"
        );
        assert_eq!(server.state("S")["messages"], 1);
    }
}

#[test]
fn what_waited_for_a_doubtful_message_follows_it() {
    for storage in ["file", "memory"] {
        let mut server = server(&format!(r#","storage":"{storage}""#));
        let right = "NATS/1.0\r\nNats-Expected-Last-Sequence: 0\r\n\r\n";
        send(&mut server, "fail", 1, START, right);
        send(&mut server, "fail", 2, APPEND, "");
        let next = "NATS/1.0\r\nNats-Expected-Last-Sequence: 2\r\n\r\n";
        send(&mut server, "fail", 3, APPEND, next);
        send(&mut server, "fail", 4, APPEND, "");
        let last = send(&mut server, "fail", 5, COMMIT, "");
        server.settle();
        assert_eq!(answers(&mut server, &last), [whole(5, 5)], "{storage}");
    }
}

#[test]
fn gaps_are_told_and_end_a_batch_only_where_they_are_not_allowed() {
    let mut allowing = server("");
    send(&mut allowing, "ok", 1, START, "");
    let fourth = send(&mut allowing, "ok", 4, APPEND, "");
    allowing.settle();
    let gap = r#"{"type":"gap","last_seq":2,"seq":4}"#;
    assert_eq!(answers(&mut allowing, &fourth), [gap, &ack(4)]);
    let refused = send(&mut allowing, "ok", 5, APPEND, WRONG);
    let last = send(&mut allowing, "ok", 6, COMMIT, "");
    allowing.settle();
    assert!(answers(&mut allowing, &refused)[0].contains("10071"));
    assert_eq!(answers(&mut allowing, &last), [whole(3, 6)]);

    let mut strict = server("");
    part(&mut strict, 1, START);
    assert_eq!(part(&mut strict, 4, APPEND), [gap, &whole(1, 1)]);
    assert!(part(&mut strict, 5, APPEND)[0].contains("10208"));
    assert_eq!(strict.state("S")["messages"], 1);
}

#[test]
fn what_is_wrong_with_a_batch_is_said() {
    let mut server = server("");
    let code = |server: &mut Server, reply: &str| -> u64 {
        server.publish_to("s.a", reply, "", b"x");
        server.settle();
        let answer: serde_json::Value =
            serde_json::from_str(&answers(server, reply)[0]).expect("JSON");
        super::server::code(&answer)
    };
    assert_eq!(code(&mut server, "p.b.2.fail.2.1.$FI"), 10208);
    assert_eq!(code(&mut server, "p.b.2.never.1.0.$FI"), 10206);
    let long = format!("p.{}.2.fail.1.0.$FI", "x".repeat(65));
    assert_eq!(code(&mut server, &long), 10207);
    // A first message is answered as if it were alone.
    let first = send(&mut server, "fail", 1, START, WRONG);
    server.settle();
    let told = answers(&mut server, &first);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains(r#""err_code":10071"#) && told[1].contains(r#""seq":0"#));
    // A second message of the same id is no error, and counts.
    let again = "NATS/1.0\r\nNats-Msg-Id: a\r\n\r\n";
    send(&mut server, "fail", 1, START, again);
    let last = send(&mut server, "fail", 2, COMMIT, again);
    server.settle();
    assert_eq!(answers(&mut server, &last), [whole(1, 2)]);
    server.must(
        "STREAM.UPDATE.S",
        r#"{"name":"S","subjects":["s.>"],"max_msg_size":-1}"#,
    );
    assert_eq!(code(&mut server, "p.c.2.fail.1.0.$FI"), 10205);
}

#[test]
fn a_batch_that_nobody_goes_on_with_is_given_up() {
    let mut server = server("");
    part(&mut server, 1, START);
    server.pass(9 * SECOND);
    part(&mut server, 2, APPEND);
    server.pass(11 * SECOND);
    assert!(part(&mut server, 3, COMMIT)[0].contains("10208"));
    assert_eq!(server.state("S")["messages"], 2);
}

#[test]
fn a_crash_ends_a_batch_and_loses_nothing_that_was_told() {
    let mut server = server("");
    part(&mut server, 1, START);
    assert_eq!(part(&mut server, 2, APPEND), [ack(2)]);
    server.crash();
    assert!(part(&mut server, 3, COMMIT)[0].contains("10208"));
    assert_eq!(server.state("S")["messages"], 2);
}
