//! Delivery, redelivery, and what a consumer knows of itself.

use super::*;

#[test]
fn a_message_keeps_its_subject_and_carries_its_ack_address() {
    let mut world = World::new(pull_config());
    let header = b"NATS/1.0\r\nA: b\r\n\r\n";
    world.publish_with("orders.1", header, "hello");
    world.publish("orders.2", "world");
    world.pull("inbox", "1");
    let sent = world.sent();
    assert_eq!(
        sent,
        [Sent {
            target: "inbox".to_owned(),
            subject: "orders.1".to_owned(),
            reply: "$JS.ACK.S.C.1.1.1.1700000000000000000.1".to_owned(),
            header: String::from_utf8_lossy(header).into_owned(),
            payload: "hello".to_owned(),
        }]
    );
}

#[test]
fn what_is_not_acked_comes_again_after_ack_wait() {
    let mut world = World::with_messages(2, pull_config());
    world.pull("inbox", "10");
    assert_eq!(world.seqs(), [1, 2]);
    world.apply();
    world.ack(1);
    world.advance(29 * SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
    world.advance(SECOND);
    let sent = world.sent();
    assert_eq!(sent.len(), 1);
    let token = sent[0].token();
    assert_eq!(
        (token.stream_seq.0, token.deliveries, token.consumer_seq.0),
        (2, 2, 3)
    );
    assert_eq!(world.info().num_redelivered, 1);
}

#[test]
fn an_ack_that_is_not_applied_yet_already_stops_redelivery() {
    let mut world = World::with_messages(1, pull_config());
    world.pull("inbox", "5");
    world.sent();
    world.ack(1);
    world.advance(60 * SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
    let info = world.info();
    assert_eq!((info.num_ack_pending, info.ack_floor.stream_seq), (0, 1));
    assert_eq!(
        world.consumer.ack_floor().stream,
        StreamSeq(0),
        "the log does not know it yet"
    );
    world.apply();
    assert_eq!(world.consumer.ack_floor().stream, StreamSeq(1));
    assert_eq!(world.settled, [1]);
}

#[test]
fn an_ack_whose_proposal_was_lost_is_forgotten() {
    let mut world = World::with_messages(1, pull_config());
    world.pull("inbox", "5");
    world.apply();
    world.sent();
    world.ack(1);
    world.proposed.clear();
    let now = world.now;
    world.consumer.proposals_lost(now);
    world.deliver();
    assert_eq!(
        world.seqs(),
        [0u64; 0],
        "what was refused now is refused again"
    );
    world.advance(SECOND);
    assert_eq!(world.seqs(), [1]);
}

#[test]
fn deliveries_whose_record_was_lost_are_recorded_again() {
    let mut world = World::with_messages(3, pull_config());
    world.pull("inbox", "3");
    world.turn(|consumer, turn| consumer.flush(turn));
    world.proposed.clear();
    let now = world.now;
    world.consumer.proposals_lost(now);
    world.apply();
    assert_eq!(world.consumer.delivered().stream, StreamSeq(3));
    assert_eq!(world.consumer.delivered().consumer.0, 3);
}

#[test]
fn the_ack_floor_waits_for_the_oldest_pending_message() {
    let mut world = World::with_messages(4, pull_config());
    world.pull("inbox", "4");
    world.apply();
    world.ack(2);
    world.ack(3);
    world.apply();
    assert_eq!(world.consumer.ack_floor().stream, StreamSeq(0));
    world.ack(1);
    world.apply();
    assert_eq!(world.consumer.ack_floor().stream, StreamSeq(3));
    world.ack(4);
    world.apply();
    let info = world.info();
    assert_eq!(
        (info.ack_floor.stream_seq, info.ack_floor.consumer_seq),
        (4, 4)
    );
    assert_eq!(
        (info.delivered.stream_seq, info.delivered.consumer_seq),
        (4, 4)
    );
}

#[test]
fn max_ack_pending_holds_back_new_messages_until_an_ack() {
    let mut world = World::with_messages(
        5,
        ConsumerConfig {
            max_ack_pending: 2,
            ..pull_config()
        },
    );
    world.pull("inbox", "5");
    assert_eq!(world.seqs(), [1, 2]);
    world.ack(1);
    world.deliver();
    assert_eq!(world.seqs(), [3]);
}

#[test]
fn at_max_deliver_a_message_is_given_up_and_an_advisory_says_so() {
    let config = ConsumerConfig {
        max_deliver: 2,
        ..pull_config()
    };
    let mut world = World::with_messages(1, config);
    world.pull("inbox", "9");
    world.advance(30 * SECOND);
    assert_eq!(world.seqs(), [1, 1]);
    world.advance(30 * SECOND);
    let sent = world.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(
        sent[0].subject,
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.C"
    );
    let advisory: serde_json::Value = serde_json::from_str(&sent[0].payload).expect("JSON");
    assert_eq!(
        advisory["type"],
        "io.nats.jetstream.advisory.v1.max_deliver"
    );
    assert_eq!(advisory["stream_seq"], 1);
    assert_eq!(advisory["deliveries"], 2);
    world.apply();
    let notice = Notice::MaxDeliveries {
        consumer: "C".to_owned(),
        stream_seq: StreamSeq(1),
        deliveries: 2,
    };
    assert_eq!(world.notices, [notice], "once, when it is applied");
    let info = world.info();
    assert_eq!((info.num_ack_pending, info.num_redelivered), (0, 1));
    assert_eq!(info.ack_floor.stream_seq, 1);
    assert!(world.settled.is_empty(), "the stream keeps it");
    assert!(world.consumer.wants(StreamSeq(1), b"a"));
    world.advance(90 * SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
}

#[test]
fn a_late_ack_settles_what_was_given_up() {
    let mut world = World::with_messages(
        1,
        ConsumerConfig {
            max_deliver: 1,
            ..pull_config()
        },
    );
    world.pull("inbox", "9");
    world.advance(30 * SECOND);
    world.apply();
    world.ack(1);
    world.apply();
    assert_eq!(world.settled, [1]);
    assert!(!world.consumer.wants(StreamSeq(1), b"a"));
}

#[test]
fn backoff_sets_each_wait_and_its_last_one_repeats() {
    let backoff = vec![1_000_000_000, 3_000_000_000];
    let mut world = World::with_messages(
        1,
        ConsumerConfig {
            backoff,
            ..pull_config()
        },
    );
    world.pull("inbox", "9");
    let mut at = Vec::new();
    for second in 1..=10 {
        world.sent();
        world.advance(SECOND);
        if !world.seqs().is_empty() {
            at.push(second);
        }
    }
    assert_eq!(at, [1, 4, 7, 10]);
}

#[test]
fn redeliveries_go_before_new_messages_in_stream_order() {
    let mut world = World::with_messages(3, pull_config());
    world.pull("inbox", "3");
    world.ack_with(3, "-NAK", "");
    world.ack_with(2, "-NAK", "");
    world.publish("a", "4");
    world.sent();
    world.pull("inbox", "3");
    assert_eq!(world.seqs(), [2, 3, 4]);
}

#[test]
fn a_paused_consumer_sends_nothing_until_the_pause_ends() {
    let mut config = pull_config();
    config.pause_until = Some(Timestamp(1_700_000_000_000_000_000).plus(5 * SECOND));
    let mut world = World::with_messages(1, config);
    world.pull("inbox", "1");
    assert_eq!(world.seqs(), [0u64; 0]);
    let info = world.info();
    assert!(info.paused);
    assert_eq!(info.pause_remaining, 5_000_000_000);
    world.advance(5 * SECOND);
    assert_eq!(world.seqs(), [1]);
    assert!(!world.info().paused);
}

#[test]
fn headers_only_tells_the_size_instead_of_sending_the_payload() {
    let mut world = World::with_messages(
        0,
        ConsumerConfig {
            headers_only: true,
            ..pull_config()
        },
    );
    world.publish("a", "hello");
    world.pull("inbox", "1");
    let sent = world.sent();
    assert_eq!(sent[0].header, "NATS/1.0\r\nNats-Msg-Size: 5\r\n\r\n");
    assert_eq!(sent[0].payload, "");
}

#[test]
fn a_removed_message_leaves_the_pending_ones_and_the_floor_moves() {
    let mut world = World::with_messages(3, pull_config());
    world.pull("inbox", "2");
    world.apply();
    world.remove(1);
    assert_eq!(world.consumer.ack_floor().stream, StreamSeq(1));
    world.remove(3);
    assert_eq!(world.info().num_pending, 0);
    world.advance(30 * SECOND);
    world.pull("inbox", "1");
    assert_eq!(world.seqs(), [1, 2, 2]);
}

#[test]
fn what_was_removed_between_sending_and_recording_is_forgotten() {
    let mut world = World::with_messages(2, pull_config());
    world.pull("inbox", "2");
    world.remove(1);
    world.apply();
    world.sent();
    world.advance(Duration::ZERO);
    world.apply();
    assert_eq!(world.consumer.ack_floor().stream, StreamSeq(1));
    world.advance(29 * SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
}

#[test]
fn a_purge_moves_position_and_floor() {
    let mut world = World::with_messages(9, pull_config());
    world.pull("inbox", "3");
    world.apply();
    world.purge_below(8);
    let info = world.info();
    assert_eq!(
        (info.delivered.stream_seq, info.ack_floor.stream_seq),
        (7, 7)
    );
    assert_eq!((info.num_pending, info.num_ack_pending), (2, 0));
    world.sent();
    world.pull("inbox", "9");
    assert_eq!(world.seqs(), [8, 9]);
}

#[test]
fn after_a_filtered_purge_pending_messages_that_went_are_found() {
    let mut world = World::with_messages(0, pull_config());
    for subject in ["a", "b", "a", "b"] {
        world.publish(subject, "");
    }
    world.pull("inbox", "3");
    world.apply();
    world
        .stream
        .messages
        .retain(|_, message| message.subject() != b"a");
    let removed = Removed::Matching {
        filter: Bytes::from_static(b"a"),
        below: StreamSeq(5),
    };
    world.consumer.messages_removed(&[removed]);
    world.advance(Duration::ZERO);
    world.apply();
    let info = world.info();
    assert_eq!((info.num_ack_pending, info.num_pending), (1, 1));
    assert_eq!(info.ack_floor.stream_seq, 1);
}

#[test]
fn a_run_of_deliveries_is_one_event() {
    let mut world = World::with_messages(500, pull_config());
    world.pull("inbox", "500");
    world.turn(|consumer, turn| consumer.flush(turn));
    assert_eq!(world.proposed.len(), 1);
    assert_eq!(world.sent().len(), 500);
}

#[test]
fn deliveries_are_recorded_soon_without_being_asked() {
    let mut world = World::with_messages(1, pull_config());
    world.pull("inbox", "1");
    assert!(world.proposed.is_empty());
    world.advance(Duration::from_millis(10));
    assert_eq!(world.proposed.len(), 1);
}

#[test]
fn without_a_log_everything_takes_effect_at_once() {
    let mut world = World::with_messages(2, pull_config());
    world.consumer.set_logged(false);
    world.pull("inbox", "2");
    world.ack_with(1, "+ACK", "confirm");
    assert!(world.proposed.is_empty());
    assert_eq!(world.consumer.ack_floor().stream, StreamSeq(1));
    assert_eq!(
        world.sent().last().map(|sent| sent.target.clone()),
        Some("confirm".to_owned())
    );
}

#[test]
fn ack_none_settles_by_sending() {
    let config = ConsumerConfig {
        ack_policy: AckPolicy::None,
        ..pull_config()
    };
    let mut world = World::with_messages(3, config);
    world.pull("inbox", "3");
    world.apply();
    assert_eq!(world.settled, [1, 2, 3]);
    let info = world.info();
    assert_eq!((info.num_ack_pending, info.ack_floor.stream_seq), (0, 3));
}

#[test]
fn a_pull_consumer_that_nobody_uses_is_abandoned() {
    let config = ConsumerConfig {
        inactive_threshold: 5_000_000_000,
        ..pull_config()
    };
    let mut world = World::with_messages(0, config);
    world.pull("inbox", r#"{"batch":1,"expires":8000000000}"#);
    world.advance(8 * SECOND);
    assert!(!world.is_abandoned, "a request waits");
    world.advance(2 * SECOND);
    assert!(!world.is_abandoned, "it was seen waiting 5 s ago");
    world.advance(SECOND);
    assert!(world.is_abandoned);
}

#[test]
fn a_pull_consumer_whose_messages_are_worked_on_is_not_abandoned() {
    let config = ConsumerConfig {
        inactive_threshold: 5_000_000_000,
        ..pull_config()
    };
    let mut world = World::with_messages(1, config);
    world.pull("inbox", "1");
    world.advance(34 * SECOND);
    assert!(!world.is_abandoned);
    world.advance(2 * SECOND);
    assert!(world.is_abandoned);
}

#[test]
fn a_reset_forgets_deliveries_and_begins_at_the_sequence() {
    let mut world = World::with_messages(5, pull_config());
    world.pull("inbox", "5");
    world.apply();
    world.sent();
    world.consumer.reset(StreamSeq(4));
    world.write_rows();
    world.flush_store();
    world.crash();
    world.pull("inbox", "5");
    let sent = world.sent();
    assert_eq!(sent.iter().map(Sent::seq).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(sent[0].token().consumer_seq.0, 1);
}

#[test]
fn new_filters_change_what_is_pending() {
    let mut world = World::with_messages(0, pull_config());
    for subject in ["a", "b", "c", "a"] {
        world.publish(subject, "");
    }
    let config = ConsumerConfig {
        filter_subjects: vec!["a".to_owned(), "c".to_owned()],
        ..pull_config()
    };
    world
        .consumer
        .update_config(config, &mut world.stream)
        .expect("a fake stream never fails");
    assert_eq!(world.info().num_pending, 3);
    world.pull("inbox", "9");
    assert_eq!(world.seqs(), [1, 3, 4]);
}

#[test]
fn original_pace_repeats_the_gaps_between_messages() {
    let mut world = World::new(pull_config());
    for _ in 0..3 {
        world.publish("a", "");
        world.now = world.now.plus(2 * SECOND);
    }
    let stream = std::mem::take(&mut world.stream);
    let config = ConsumerConfig {
        replay_policy: config::ReplayPolicy::Original,
        ..pull_config()
    };
    let mut world = World::over(stream, config);
    world.pull("inbox", "9");
    assert_eq!(world.seqs(), [1]);
    world.advance(SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
    world.advance(SECOND);
    assert_eq!(world.seqs(), [2]);
    world.advance(2 * SECOND);
    assert_eq!(world.seqs(), [3]);
}

#[test]
fn a_restart_gives_clients_time_to_come_back() {
    let config = ConsumerConfig {
        inactive_threshold: 5_000_000_000,
        ..pull_config()
    };
    let mut world = World::with_messages(0, config);
    world.now = world.now.plus(60 * SECOND);
    world.crash();
    world.deliver();
    world.advance(5 * SECOND);
    assert!(!world.is_abandoned);
    world.advance(SECOND);
    assert!(world.is_abandoned);
}

#[test]
fn an_idle_consumer_has_no_timer_and_takes_little_memory() {
    let mut world = World::with_messages(3, pull_config());
    world.pull("inbox", r#"{"batch":3,"expires":1000000000}"#);
    for seq in 1..=3 {
        world.ack(seq);
    }
    world.apply();
    world.advance(60 * SECOND);
    assert_eq!(world.consumer.next_deadline(), None);
    // 100,000 of them must fit beside everything else.
    assert!(
        size_of::<Consumer>() <= 1536,
        "{} bytes",
        size_of::<Consumer>()
    );
}
