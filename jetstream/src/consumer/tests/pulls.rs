//! Pull requests and the texts they are answered with.

use super::*;

fn status(world: &mut World) -> String {
    let mut statuses = world.statuses();
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    statuses.remove(0).1
}

#[test]
fn no_wait_is_told_at_once_that_there_is_nothing() {
    let mut world = World::with_messages(0, pull_config());
    world.pull("inbox", r#"{"batch":1,"no_wait":true}"#);
    assert_eq!(status(&mut world), "404 No Messages");
}

#[test]
fn no_wait_gets_what_there_is_and_then_ends() {
    let mut world = World::with_messages(2, pull_config());
    world.pull("inbox", r#"{"batch":5,"no_wait":true}"#);
    let sent = world.sent();
    assert_eq!(sent.len(), 3);
    assert!(sent[0].is_message() && sent[1].is_message());
    assert_eq!(sent[2].header, "NATS/1.0 404 No Messages\r\n\r\n");
    assert_eq!(world.info().num_waiting, 0);
}

#[test]
fn no_wait_with_expiry_waits_for_the_first_message_only() {
    let mut world = World::with_messages(0, pull_config());
    world.pull(
        "inbox",
        r#"{"batch":5,"no_wait":true,"expires":5000000000}"#,
    );
    assert_eq!(world.sent(), []);
    world.publish("a", "");
    world.deliver();
    let sent = world.sent();
    assert!(sent[0].is_message());
    assert_eq!(sent[1].status(), "404 No Messages");
}

#[test]
fn no_wait_is_refused_while_others_want_all_there_is() {
    let config = ConsumerConfig {
        max_ack_pending: 1,
        ..pull_config()
    };
    let mut world = World::with_messages(3, config);
    world.pull("first", "10");
    world.sent();
    world.pull("second", r#"{"batch":1,"no_wait":true}"#);
    assert_eq!(status(&mut world), "408 Requests Pending");
}

#[test]
fn an_expired_request_is_told_what_was_left() {
    let mut world = World::with_messages(1, pull_config());
    world.pull(
        "inbox",
        r#"{"batch":3,"expires":1000000000,"max_bytes":1000}"#,
    );
    let size = {
        let sent = &world.net.sent[0];
        sent.subject.len() + sent.reply.len() + sent.header.len() + sent.payload.len()
    };
    world.sent();
    world.advance(SECOND);
    let sent = world.sent();
    assert_eq!(
        sent[0].header,
        format!(
            "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 2\r\nNats-Pending-Bytes: {}\r\n\r\n",
            1000 - size
        )
    );
}

#[test]
fn a_message_too_large_for_max_bytes_ends_the_request() {
    let mut world = World::with_messages(0, pull_config());
    world.publish("a", &"x".repeat(500));
    world.pull("inbox", r#"{"batch":3,"max_bytes":100}"#);
    let sent = world.sent();
    assert_eq!(
        sent[0].header,
        "NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 100\r\n\r\n"
    );
    world.pull("inbox", "1");
    assert_eq!(world.seqs(), [1], "it was not used up");
}

#[test]
fn a_full_batch_with_bytes_left_says_so() {
    let mut world = World::with_messages(1, pull_config());
    world.pull("inbox", r#"{"batch":1,"max_bytes":10000}"#);
    assert!(status(&mut world).starts_with("409 Batch Completed"));
}

#[test]
fn limits_of_the_consumer_are_named() {
    let config = ConsumerConfig {
        max_batch: 10,
        max_expires: 90_000_000_000,
        max_bytes: 1024,
        max_waiting: 1,
        ..pull_config()
    };
    let mut world = World::with_messages(0, config);
    for (request, text) in [
        ("11", "409 Exceeded MaxRequestBatch of 10"),
        (
            r#"{"batch":1,"expires":90000000001}"#,
            "409 Exceeded MaxRequestExpires of 1m30s",
        ),
        (
            r#"{"batch":1,"max_bytes":1025}"#,
            "409 Exceeded MaxRequestMaxBytes of 1024",
        ),
        (
            r#"{"batch":1,"expires":100,"idle_heartbeat":51}"#,
            "400 Bad Request - heartbeat value too large",
        ),
        (
            r#"{"batch":1,"min_pending":5}"#,
            "400 Bad Request - Not a Overflow Priority consumer",
        ),
        (
            r#"{"id":"x"}"#,
            "400 Bad Request - Not a Pinned Client Priority consumer",
        ),
        (
            r#"{"priority":10}"#,
            "400 Bad Request - Priority must be between 0 and 9",
        ),
    ] {
        world.pull("inbox", request);
        assert_eq!(status(&mut world), text, "{request}");
    }
    world.pull("inbox", "1");
    world.pull("inbox", "1");
    assert_eq!(status(&mut world), "409 Exceeded MaxWaiting");
    world.pull(
        "inbox",
        r#"{"expires":10000000000,"idle_heartbeat":1000000000}"#,
    );
    assert_eq!(world.sent(), [], "a client with heartbeats is not told");
}

#[test]
fn a_push_consumer_cannot_be_pulled() {
    let mut world = World::with_messages(0, push_config());
    world.pull("inbox", "1");
    assert_eq!(status(&mut world), "409 Consumer is push based");
}

#[test]
fn heartbeats_come_while_nothing_else_does() {
    let mut world = World::with_messages(1, pull_config());
    world.pull(
        "inbox",
        r#"{"batch":9,"expires":3500000000,"idle_heartbeat":1000000000}"#,
    );
    world.sent();
    world.advance(SECOND);
    let sent = world.sent();
    assert_eq!(
        sent[0].header,
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 1\r\n\r\n"
    );
    world.advance(3 * SECOND);
    let statuses: Vec<_> = world
        .statuses()
        .into_iter()
        .map(|(_, status)| status)
        .collect();
    assert_eq!(
        statuses,
        [
            "100 Idle Heartbeat",
            "100 Idle Heartbeat",
            "408 Request Timeout"
        ]
    );
}

#[test]
fn requests_take_turns() {
    let mut world = World::with_messages(0, pull_config());
    world.pull("one", "2");
    world.pull("two", "2");
    for number in 0..4 {
        world.publish("a", &number.to_string());
    }
    world.deliver();
    let targets: Vec<_> = world.sent().into_iter().map(|sent| sent.target).collect();
    assert_eq!(targets, ["one", "two", "one", "two"]);
}

#[test]
fn a_request_that_nobody_waits_for_costs_no_delivery() {
    let mut world = World::with_messages(0, pull_config());
    world.pull("gone", "5");
    world.pull("here", "5");
    world.net.deaf.insert("gone".to_owned());
    world.publish("a", "");
    world.deliver();
    let sent = world.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].target, "here");
    assert_eq!(
        (sent[0].token().deliveries, sent[0].token().consumer_seq.0),
        (1, 1)
    );
    world.net.deaf.insert("here".to_owned());
    world.publish("a", "");
    world.deliver();
    let info = world.info();
    assert_eq!(
        (info.num_waiting, info.num_pending, info.num_ack_pending),
        (0, 1, 1)
    );
}

#[test]
fn waiting_requests_are_told_why_a_consumer_stops() {
    for (reason, text) in [
        (StopReason::Deleted, "409 Consumer Deleted"),
        (StopReason::LeadershipChange, "409 Leadership Change"),
        (StopReason::Shutdown, "409 Server Shutdown"),
    ] {
        let mut world = World::with_messages(0, pull_config());
        world.pull("inbox", "4");
        world
            .consumer
            .stop(reason, &AccountName::global(), "S", &mut world.net);
        assert_eq!(status(&mut world), text);
    }
}
