//! Push consumers.

use super::*;

#[test]
fn messages_go_to_the_deliver_subject_while_someone_listens() {
    let mut world = World::with_messages(2, push_config());
    world.net.deaf.insert("to.me".to_owned());
    world.deliver();
    assert_eq!(world.sent(), []);
    assert!(!world.info().push_bound);
    assert!(world.consumer.is_unheard());
    assert_eq!(world.consumer.next_deadline(), None, "it sleeps");
    world.net.deaf.clear();
    world.deliver();
    assert_eq!(world.seqs(), [1, 2]);
    assert!(world.info().push_bound);
}

#[test]
fn a_message_nobody_took_is_not_delivered() {
    let mut world = World::with_messages(1, push_config());
    world.deliver();
    world.sent();
    world.publish("a", "2");
    world.net.deaf.insert("to.me".to_owned());
    world.deliver();
    assert_eq!(world.info().num_pending, 1);
    assert_eq!(world.info().delivered.consumer_seq, 1);
}

#[test]
fn heartbeats_tell_the_last_sequences() {
    let config = ConsumerConfig {
        idle_heartbeat: 1_000_000_000,
        ..push_config()
    };
    let mut world = World::with_messages(1, config);
    world.deliver();
    world.sent();
    world.advance(Duration::from_millis(2500));
    let sent = world.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(
        sent[0].header,
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 1\r\n\r\n"
    );
}

#[test]
fn flow_control_asks_waits_and_goes_on() {
    let config = ConsumerConfig {
        flow_control: true,
        idle_heartbeat: 1_000_000_000,
        max_ack_pending: -1,
        ..push_config()
    };
    let mut world = World::new(config);
    let large = "x".repeat(256 << 10);
    for _ in 0..20 {
        world.publish("a", &large);
    }
    world.deliver();
    let sent = world.sent();
    // The window is 2 MiB: asked for at half, stopped when it is passed.
    let request = sent
        .iter()
        .position(|s| s.status() == "100 FlowControl Request");
    assert_eq!(request, Some(4), "after the fourth message passed 1 MiB");
    assert_eq!(sent.len(), 8 + 1);
    let reply = sent[4].reply.clone();
    assert!(reply.starts_with("$JS.FC.S.C."), "{reply}");
    assert_eq!(reply.len(), "$JS.FC.S.C.".len() + 4);
    world.advance(SECOND);
    let sent = world.sent();
    assert!(
        sent[0]
            .header
            .contains(&format!("Nats-Consumer-Stalled: {reply}\r\n")),
        "{sent:?}"
    );
    assert!(!world.confirm("$JS.FC.S.C.none", None));
    assert!(world.confirm(&reply, None));
    world.deliver();
    assert!(world.sent().len() >= 8, "the window doubled");
}

#[test]
fn answers_to_flow_control_settle_what_they_name() {
    let config = ConsumerConfig {
        ack_policy: AckPolicy::FlowControl,
        ack_wait: 0,
        max_ack_pending: 3,
        flow_control: true,
        idle_heartbeat: 1_000_000_000,
        ..push_config()
    };
    let mut world = World::new(config);
    for _ in 0..5 {
        world.publish("a", "x");
    }
    world.deliver();
    let sent = world.sent();
    let shown: Vec<_> = sent.iter().map(|s| s.status().to_owned()).collect();
    assert_eq!(shown, ["", "", "", "100 FlowControl Request"]);
    // Neither an ack nor time settles or repeats anything.
    world.ack(1);
    world.advance(100 * SECOND);
    world.deliver();
    assert!(
        world
            .sent()
            .iter()
            .all(|s| s.status() == "100 Idle Heartbeat")
    );
    assert_eq!(world.info().num_ack_pending, 3);
    assert!(world.confirm(&sent[3].reply, Some(2)));
    world.deliver();
    let sent = world.sent();
    let shown: Vec<_> = sent.iter().map(|s| s.status().to_owned()).collect();
    assert_eq!(shown, ["", "", "100 FlowControl Request"]);
    assert_eq!(world.info().ack_floor.stream_seq, 2);
    // What was not sent is not settled.
    assert!(world.confirm(&sent[2].reply, Some(9)));
    world.deliver();
    let sent = world.sent();
    assert_eq!(sent[0].status(), "100 FlowControl Request");
    assert!(world.confirm(&sent[0].reply, Some(5)));
    assert_eq!(world.info().num_ack_pending, 0);
    world.advance(SECOND);
    assert_eq!(world.sent()[0].status(), "100 Idle Heartbeat");
}

#[test]
fn consumer_sequences_start_at_one_and_never_skip() {
    let config = ConsumerConfig {
        durable_name: None,
        ack_policy: AckPolicy::None,
        max_deliver: 1,
        mem_storage: true,
        filter_subject: "a".to_owned(),
        ..push_config()
    };
    let mut world = World::new(config);
    world.consumer.set_logged(false);
    for subject in ["a", "b", "a", "b", "a"] {
        world.publish(subject, "");
        world.deliver();
    }
    let sent = world.sent();
    let seqs: Vec<_> = sent
        .iter()
        .map(|s| (s.token().consumer_seq.0, s.token().stream_seq.0))
        .collect();
    assert_eq!(seqs, [(1, 1), (2, 3), (3, 5)]);
}

#[test]
fn a_push_consumer_without_listeners_is_abandoned() {
    let config = ConsumerConfig {
        inactive_threshold: 5_000_000_000,
        ..push_config()
    };
    let mut world = World::with_messages(0, config);
    world.deliver();
    world.advance(60 * SECOND);
    assert!(!world.is_abandoned);
    world.net.deaf.insert("to.me".to_owned());
    world.advance(5 * SECOND);
    assert!(!world.is_abandoned);
    world.advance(5 * SECOND);
    assert!(world.is_abandoned);
}

#[test]
fn a_rate_limit_spreads_messages() {
    // 8 Mbit/s: a burst of 1 MiB at once, then 1 MB/s.
    let config = ConsumerConfig {
        rate_limit_bps: 8_000_000,
        max_ack_pending: -1,
        ..push_config()
    };
    let mut world = World::new(config);
    let large = "x".repeat(500_000);
    for _ in 0..4 {
        world.publish("a", &large);
    }
    world.deliver();
    assert_eq!(world.seqs(), [1, 2]);
    world.advance(Duration::from_millis(460));
    assert_eq!(world.seqs(), [3]);
    world.advance(Duration::from_millis(510));
    assert_eq!(world.seqs(), [4]);
}
