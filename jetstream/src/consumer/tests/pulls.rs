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
fn no_wait_ends_with_a_heartbeat_where_acks_are_missing() {
    let config = ConsumerConfig {
        max_ack_pending: 2,
        ..pull_config()
    };
    let mut world = World::with_messages(3, config);
    world.pull(
        "inbox",
        r#"{"batch":5,"no_wait":true,"expires":5000000000,"idle_heartbeat":1000000000}"#,
    );
    assert_eq!(world.sent().len(), 2);
    world.advance(SECOND);
    assert_eq!(status(&mut world), "404 No Messages");
    assert_eq!(world.info().num_waiting, 0);
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

fn grouped(policy: &str) -> ConsumerConfig {
    ConsumerConfig {
        priority_groups: vec!["A".to_owned()],
        priority_policy: Some(policy.to_owned()),
        ..pull_config()
    }
}

#[test]
fn a_priority_group_must_be_named_and_known() {
    let mut world = World::with_messages(0, grouped("overflow"));
    for (request, text) in [
        (r#"{"batch":1}"#, "400 Bad Request - Priority Group missing"),
        (
            r#"{"batch":1,"group":"B"}"#,
            "400 Bad Request - Invalid Priority Group",
        ),
    ] {
        world.pull("inbox", request);
        assert_eq!(status(&mut world), text);
    }
}

#[test]
fn overflow_is_served_only_when_enough_is_pending() {
    let mut world = World::with_messages(0, grouped("overflow"));
    world.pull("over", r#"{"batch":5,"group":"A","min_pending":3}"#);
    world.publish("a", "");
    world.publish("a", "");
    world.deliver();
    assert_eq!(world.seqs(), [0u64; 0]);
    world.publish("a", "");
    world.deliver();
    assert_eq!(world.seqs(), [1], "then fewer are pending");
    world.pull("busy", r#"{"batch":1,"group":"A","min_ack_pending":2}"#);
    assert_eq!(world.seqs(), [0u64; 0]);
    world.pull("any", r#"{"batch":1,"group":"A"}"#);
    let targets: Vec<_> = world.sent().into_iter().map(|sent| sent.target).collect();
    assert_eq!(targets, ["any", "busy"]);
}

#[test]
fn the_lowest_priority_number_goes_first() {
    let mut world = World::with_messages(0, grouped("prioritized"));
    world.pull("last", r#"{"batch":2,"group":"A","priority":5}"#);
    world.pull("first", r#"{"batch":2,"group":"A","priority":1}"#);
    world.pull("second", r#"{"batch":1,"group":"A","priority":1}"#);
    for _ in 0..5 {
        world.publish("a", "");
    }
    world.deliver();
    let targets: Vec<_> = world.sent().into_iter().map(|sent| sent.target).collect();
    assert_eq!(targets, ["first", "second", "first", "last", "last"]);
}

#[test]
fn one_client_is_pinned_until_it_stays_away() {
    let config = ConsumerConfig {
        priority_timeout: 5_000_000_000,
        ..grouped("pinned_client")
    };
    let mut world = World::with_messages(1, config);
    world.pull("one", r#"{"batch":2,"group":"A"}"#);
    let sent = world.sent();
    assert_eq!(sent[0].subject, "$JS.EVENT.ADVISORY.CONSUMER.PINNED.S.C");
    let advisory: serde_json::Value = serde_json::from_str(&sent[0].payload).expect("JSON");
    let id = advisory["pinned_id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (advisory["group"].as_str(), advisory["account"].as_str()),
        (Some("A"), Some("$G"))
    );
    assert_eq!(
        sent[1].header,
        format!("NATS/1.0\r\nNats-Pin-Id: {id}\r\n\r\n")
    );
    assert_eq!(world.info().priority_groups[0].pinned_client_id, id);

    world.pull("two", r#"{"batch":2,"group":"A"}"#);
    world.pull("stranger", r#"{"batch":2,"group":"A","id":"someone"}"#);
    assert_eq!(status(&mut world), "423 Nats-Pin-Id mismatch");
    world.publish("a", "");
    world.deliver();
    assert_eq!(world.sent()[0].target, "one", "two must wait");
    world.publish("a", "");
    world.deliver();
    assert_eq!(
        world.sent(),
        [],
        "nobody else is served while the pin holds"
    );

    world.advance(4 * SECOND);
    world.pull("one", &format!(r#"{{"batch":1,"group":"A","id":"{id}"}}"#));
    assert_eq!(world.sent()[0].target, "one");
    world.publish("a", "");
    world.deliver();
    assert_eq!(world.sent(), []);
    world.advance(5 * SECOND);
    let subjects: Vec<_> = world
        .sent()
        .iter()
        .map(|s| (s.target.clone(), s.subject.clone()))
        .collect();
    let event = |name: &str| {
        let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.{name}.S.C");
        (subject.clone(), subject)
    };
    let message = ("two".to_owned(), "a".to_owned());
    assert_eq!(subjects, [event("UNPINNED"), event("PINNED"), message]);
    world.turn(Consumer::unpin);
    assert_eq!(world.info().priority_groups[0].pinned_client_id, "");
}

#[test]
fn a_share_of_acks_is_measured() {
    let config = ConsumerConfig {
        sample_freq: "100%".to_owned(),
        ..pull_config()
    };
    let mut world = World::with_messages(1, config);
    world.pull("inbox", "1");
    world.sent();
    world.advance(2 * SECOND);
    world.ack(1);
    let sent = world.sent();
    assert_eq!(sent[0].subject, "$JS.EVENT.METRIC.CONSUMER.ACK.S.C");
    let metric: serde_json::Value = serde_json::from_str(&sent[0].payload).expect("JSON");
    assert_eq!(metric["type"], "io.nats.jetstream.metric.v1.consumer_ack");
    assert_eq!(metric["ack_time"], 2_000_000_000);
    world.ack(1);
    assert_eq!(world.sent(), [], "once");
}
