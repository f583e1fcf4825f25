//! What acks do and who is answered.

use super::*;

fn world() -> World {
    let mut world = World::with_messages(3, pull_config());
    world.pull("inbox", "3");
    world.apply();
    world.sent();
    world
}

fn answers(world: &mut World) -> usize {
    world
        .sent()
        .iter()
        .filter(|sent| sent.target == "confirm")
        .count()
}

#[test]
fn a_double_ack_is_answered_after_it_is_applied() {
    let mut world = world();
    world.ack_with(1, "+ACK", "confirm");
    assert_eq!(answers(&mut world), 0);
    world.apply();
    assert_eq!(answers(&mut world), 1);
}

#[test]
fn a_repeated_ack_is_answered_too() {
    let mut world = world();
    world.ack(1);
    world.ack_with(1, "", "confirm");
    assert_eq!(answers(&mut world), 0, "the first one is not applied yet");
    world.apply();
    assert_eq!(answers(&mut world), 1);
    world.ack_with(1, "", "confirm");
    assert_eq!(answers(&mut world), 1);
    assert_eq!(world.settled, [1]);
}

#[test]
fn an_ack_for_what_was_never_delivered_is_not_answered() {
    let mut world = world();
    world.publish("a", "4");
    world.ack_with(4, "", "confirm");
    world.apply();
    assert_eq!(answers(&mut world), 0);
    world.pull("inbox", "1");
    assert_eq!(world.seqs(), [4]);
}

#[test]
fn unknown_words_are_answered_and_do_nothing() {
    let mut world = world();
    world.ack_with(1, "+HELLO", "confirm");
    assert_eq!(answers(&mut world), 1);
    assert_eq!(world.info().num_ack_pending, 3);
}

#[test]
fn a_nak_repeats_at_once_and_says_so() {
    let mut world = world();
    world.ack_with(2, "-NAK", "confirm");
    let sent = world.sent();
    assert_eq!(sent[0].subject, "$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.S.C");
    let advisory: serde_json::Value = serde_json::from_str(&sent[0].payload).expect("JSON");
    assert_eq!(advisory["type"], "io.nats.jetstream.advisory.v1.nak");
    assert_eq!(advisory["consumer_seq"], 2);
    world.pull("inbox", "1");
    assert_eq!(world.seqs(), [2]);
    world.apply();
    assert_eq!(answers(&mut world), 1);
}

#[test]
fn a_delayed_nak_waits_even_through_a_crash() {
    let mut world = world();
    world.ack_with(2, "-NAK {\"delay\": 40000000000}", "");
    world.ack(1);
    world.ack(3);
    world.apply();
    world.crash();
    world.pull("inbox", "9");
    world.sent();
    world.advance(39 * SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
    world.advance(SECOND);
    assert_eq!(world.seqs(), [2]);
}

#[test]
fn work_in_progress_starts_the_wait_again() {
    let mut world = world();
    world.ack(1);
    world.ack(2);
    world.advance(20 * SECOND);
    world.ack_with(3, "+WPI", "confirm");
    world.apply();
    assert_eq!(answers(&mut world), 1);
    world.pull("inbox", "1");
    world.advance(29 * SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
    world.advance(SECOND);
    assert_eq!(world.seqs(), [3]);
}

#[test]
fn a_late_nak_does_not_touch_the_delivery_after_it() {
    let mut world = world();
    world.ack_with(1, "-NAK", "");
    world.pull("inbox", "1");
    world.apply();
    world.sent();
    world.pull("inbox", "9");
    world.advance(29 * SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
}

#[test]
fn next_is_an_ack_and_a_pull_request() {
    let mut world = world();
    world.publish("a", "4");
    world.publish("a", "5");
    world.ack_with(1, "+NXT 2", "more");
    world.deliver();
    let sent = world.sent();
    assert_eq!(
        sent.iter().map(|s| s.target.as_str()).collect::<Vec<_>>(),
        ["more", "more"]
    );
    world.apply();
    assert_eq!(world.settled, [1]);
    assert_eq!(world.sent(), [], "the messages are the answer");
}

#[test]
fn term_ends_it_with_a_reason() {
    let mut world = world();
    world.ack_with(2, "+TERM bad data", "confirm");
    let sent = world.sent();
    assert_eq!(
        sent[0].subject,
        "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.C"
    );
    let advisory: serde_json::Value = serde_json::from_str(&sent[0].payload).expect("JSON");
    assert_eq!(advisory["reason"], "bad data");
    world.apply();
    assert_eq!(answers(&mut world), 1);
    assert_eq!(world.settled, [2]);
    let notice = Notice::Terminated {
        consumer: "C".to_owned(),
        stream_seq: StreamSeq(2),
    };
    assert_eq!(world.notices, [notice]);
}

#[test]
fn with_policy_all_an_ack_settles_everything_before_it() {
    let config = ConsumerConfig {
        ack_policy: AckPolicy::All,
        ..pull_config()
    };
    let mut world = World::with_messages(5, config);
    world.pull("inbox", "5");
    world.apply();
    world.sent();
    world.ack_with(3, "", "confirm");
    assert_eq!(world.info().num_ack_pending, 2);
    world.ack(2);
    world.apply();
    assert_eq!(answers(&mut world), 1);
    assert_eq!(world.settled, [1, 2, 3]);
    assert_eq!(world.consumer.ack_floor().stream, StreamSeq(3));
    world.ack_with(1, "", "confirm");
    assert_eq!(answers(&mut world), 1, "settled long ago");
}

#[test]
fn events_that_come_again_change_nothing() {
    let mut world = world();
    world.ack(1);
    world.ack_with(2, "-NAK", "");
    world.pull("inbox", "1");
    world.apply();
    let before = world.info();
    for event in world.applied.clone() {
        let mut settled = Vec::new();
        assert_eq!(world.consumer.apply(&event, &mut settled), None);
        assert_eq!(settled, []);
        world.consumer.check();
    }
    assert_eq!(world.info(), before);
}
