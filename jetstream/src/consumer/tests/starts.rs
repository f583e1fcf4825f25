//! Where consumers begin and how much they say is pending.

use super::*;
use crate::consumer::config::DeliverPolicy;

/// `a1 b1 a2 c1 b2`, a second apart.
fn stream() -> FakeStream {
    let mut world = World::new(pull_config());
    for subject in ["a", "b", "a", "c", "b"] {
        world.publish(subject, "");
        world.now = world.now.plus(SECOND);
    }
    world.stream
}

fn begin(config: ConsumerConfig) -> (u64, Vec<u64>) {
    let mut world = World::over(stream(), config);
    let pending = world.info().num_pending;
    world.pull("inbox", "99");
    (pending, world.seqs())
}

#[test]
fn each_deliver_policy_begins_where_it_says() {
    let policy = |deliver_policy| ConsumerConfig {
        deliver_policy,
        ..pull_config()
    };
    let filtered = |deliver_policy, filters: &[&str]| ConsumerConfig {
        deliver_policy,
        filter_subjects: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        ..pull_config()
    };
    assert_eq!(begin(policy(DeliverPolicy::All)), (5, vec![1, 2, 3, 4, 5]));
    assert_eq!(begin(policy(DeliverPolicy::New)), (0, vec![]));
    assert_eq!(begin(policy(DeliverPolicy::Last)), (1, vec![5]));
    assert_eq!(begin(filtered(DeliverPolicy::Last, &["a"])), (1, vec![3]));
    assert_eq!(begin(filtered(DeliverPolicy::Last, &["none"])), (0, vec![]));
    assert_eq!(
        begin(filtered(DeliverPolicy::All, &["a", "c"])),
        (3, vec![1, 3, 4])
    );
    assert_eq!(
        begin(filtered(DeliverPolicy::LastPerSubject, &[">"])),
        (3, vec![3, 4, 5])
    );
    assert_eq!(
        begin(filtered(DeliverPolicy::LastPerSubject, &["a", "b"])),
        (2, vec![3, 5])
    );
    let from_seq = ConsumerConfig {
        opt_start_seq: 4,
        ..policy(DeliverPolicy::ByStartSequence)
    };
    assert_eq!(begin(from_seq), (2, vec![4, 5]));
    let time = Timestamp(1_700_000_000_000_000_000).plus(Duration::from_millis(1500));
    let from_time = ConsumerConfig {
        opt_start_time: Some(time),
        ..policy(DeliverPolicy::ByStartTime)
    };
    assert_eq!(begin(from_time), (3, vec![3, 4, 5]));
}

#[test]
fn a_start_sequence_in_the_future_is_waited_for() {
    let config = ConsumerConfig {
        deliver_policy: DeliverPolicy::ByStartSequence,
        opt_start_seq: 7,
        ..pull_config()
    };
    let mut world = World::over(stream(), config);
    world.pull("inbox", "99");
    world.publish("a", "");
    world.deliver();
    assert_eq!((world.seqs(), world.info().num_pending), (vec![], 0));
    world.publish("a", "");
    world.deliver();
    assert_eq!(world.seqs(), [7]);
}

#[test]
fn the_floor_begins_before_the_start() {
    let config = ConsumerConfig {
        deliver_policy: DeliverPolicy::New,
        ..pull_config()
    };
    let mut world = World::over(stream(), config);
    let info = world.info();
    assert_eq!(
        (info.delivered.stream_seq, info.ack_floor.stream_seq),
        (5, 5)
    );
    assert_eq!(info.delivered.consumer_seq, 0);
}

#[test]
fn last_per_subject_follows_the_stream_after_its_list() {
    let config = ConsumerConfig {
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..pull_config()
    };
    let mut world = World::over(stream(), config);
    world.publish("a", "");
    assert_eq!(world.info().num_pending, 4);
    world.remove(3);
    world.remove(1);
    assert_eq!(world.info().num_pending, 3);
    world.pull("inbox", "99");
    let sent = world.sent();
    assert_eq!(sent.iter().map(Sent::seq).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(
        sent.iter().map(|s| s.token().pending).collect::<Vec<_>>(),
        [2, 1, 0]
    );
}

#[test]
fn last_per_subject_survives_a_crash_in_the_middle_of_its_list() {
    let config = ConsumerConfig {
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..pull_config()
    };
    let mut world = World::over(stream(), config);
    world.pull("inbox", "1");
    world.apply();
    assert_eq!(world.seqs(), [3]);
    world.crash();
    world.remove(4);
    assert_eq!(world.info().num_pending, 1);
    assert!(
        !world.consumer.wants(StreamSeq(2), b"b"),
        "there is a later one"
    );
    assert!(world.consumer.wants(StreamSeq(5), b"b"));
    world.pull("inbox", "99");
    assert_eq!(world.seqs(), [5]);
    world.apply();
    world.crash();
    world.publish("c", "");
    world.pull("inbox", "99");
    assert_eq!(world.seqs(), [6]);
}
