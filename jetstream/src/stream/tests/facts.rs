//! What is true of a stream, one fact a test.

use super::*;
use crate::api::ApiError;
use crate::ports::{StoreErrorKind, Table};
use crate::stream::config::{Discard, Retention};

fn texts(count: usize) -> Vec<Proposal> {
    (0..count)
        .map(|n| plain("a", &format!("message {n}")))
        .collect()
}

#[test]
fn sequences_begin_at_one_and_rise_over_blocks() {
    let mut world = World::new(config());
    let outcomes = world.publish(&texts(3));
    assert_eq!(outcomes.iter().map(seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(seq(&world.publish_one(plain("b", "x"))), 4);
    let message = world.message(2).expect("stored");
    assert_eq!(message.subject(), b"a");
    assert_eq!(message.payload(), b"message 1");
    assert_eq!(message.time(), Timestamp(START + 1));
    assert!(world.message(5).is_none());
    let state = world.state();
    assert_eq!((state.messages, state.first_seq, state.last_seq), (4, 1, 4));
    assert_eq!((state.num_subjects, state.num_deleted), (2, 0));
    assert_eq!(state.first_ts, Timestamp(START));
}

#[test]
fn an_empty_stream_begins_behind_its_last_sequence() {
    let mut world = World::new(StreamConfig {
        first_seq: 100,
        ..config()
    });
    let state = world.state();
    assert_eq!((state.first_seq, state.last_seq), (100, 99));
    assert_eq!(state.first_ts, Timestamp::ZERO);
    assert_eq!(seq(&world.publish_one(plain("a", "x"))), 100);
    assert!(world.remove(100));
    let state = world.state();
    assert_eq!(
        (state.messages, state.first_seq, state.last_seq),
        (0, 101, 100)
    );
    assert_eq!(state.first_ts, Timestamp::ZERO);
    world.reload();
    assert_eq!(world.state(), state);
    assert_eq!(seq(&world.publish_one(plain("a", "x"))), 101);
}

#[test]
fn a_block_of_one_subject_costs_one_row_of_each_kind() {
    let mut world = World::new(config());
    world.publish(&texts(500));
    for table in [Table::Block, Table::Subject, Table::SubjectSeq] {
        assert_eq!(world.state.row_count(table), 1, "{table:?}");
    }
    // Counters and the segment's count.
    assert_eq!(world.state.row_count(Table::Meta), 2);
    assert_eq!(world.state.row_count(Table::Dedup), 0);
}

#[test]
fn sizes_are_those_of_nats_server() {
    let mut world = World::new(config());
    world.publish_one(plain("abc", "hello"));
    assert_eq!(world.stream.bytes(), 22 + 3 + 5 + 8);
    let mut world = World::new(config());
    let proposal = with("abc", &["A: b"]);
    let header = proposal.header.len() as u64;
    world.publish_one(proposal);
    assert_eq!(world.stream.bytes(), 22 + 3 + 4 + header + 1 + 8);
    let mut world = World::new(StreamConfig {
        storage: Storage::Memory,
        ..config()
    });
    world.publish_one(plain("abc", "hello"));
    assert_eq!(world.stream.bytes(), 3 + 5 + 16);
}

#[test]
fn a_stream_in_memory_answers_without_a_log() {
    let mut world = World::new(StreamConfig {
        storage: Storage::Memory,
        ..config()
    });
    world.publish(&texts(10));
    world.cache.set_limit(0);
    world.cache.set_limit(1 << 20);
    assert_eq!(world.message(7).expect("stored").payload(), b"message 6");
    world.purge(Purge::default());
    assert!(world.stream.memory.is_empty());
}

#[test]
fn times_never_go_down() {
    let mut world = World::new(config());
    world.wait(10 * SECOND);
    world.publish(&texts(2));
    world.now = SECOND;
    world.publish(&texts(2));
    let late = Timestamp(START + 10 * SECOND + 1);
    assert_eq!(world.message(3).expect("stored").time(), late);
    assert_eq!(world.stream.last_time(), late);
    world.reload();
    assert_eq!(world.message(4).expect("stored").time(), late);
}

#[test]
fn an_id_is_stored_once_inside_the_window() {
    let mut world = World::new(StreamConfig {
        duplicate_window: 10 * SECOND,
        ..config()
    });
    let first = with("a", &["Nats-Msg-Id: 1"]);
    assert_eq!(seq(&world.publish_one(first.clone())), 1);
    assert_eq!(
        world.publish_one(first.clone()),
        PublishOutcome::Duplicate { seq: StreamSeq(1) }
    );
    world.reload();
    assert_eq!(
        world.publish_one(first.clone()),
        PublishOutcome::Duplicate { seq: StreamSeq(1) }
    );
    assert_eq!(world.stream.last_seq(), StreamSeq(1));
    world.wait(10 * SECOND);
    assert_eq!(seq(&world.publish_one(first)), 2);
}

#[test]
fn an_id_is_stored_once_inside_one_block() {
    let mut world = World::new(StreamConfig {
        duplicate_window: SECOND,
        ..config()
    });
    let outcomes = world.publish(&[
        with("a", &["Nats-Msg-Id: 1"]),
        with("a", &["msg-id: 1"]),
        plain("a", "x"),
        with("b", &["Nats-Msg-Id: 1"]),
    ]);
    assert_eq!(seq(&outcomes[0]), 1);
    assert_eq!(outcomes[1], PublishOutcome::Duplicate { seq: StreamSeq(1) });
    assert_eq!(seq(&outcomes[2]), 2);
    assert_eq!(outcomes[3], PublishOutcome::Duplicate { seq: StreamSeq(1) });
    assert_eq!(world.message(2).expect("stored").payload(), b"x");
}

#[test]
fn a_wider_window_does_not_bring_ids_back() {
    for reload in [false, true] {
        let mut world = World::new(StreamConfig {
            duplicate_window: SECOND,
            ..config()
        });
        let old = with("a", &["Nats-Msg-Id: old"]);
        world.publish(&[old.clone(), with("a", &["Nats-Msg-Id: new"])]);
        // The first has left the window, the second is in it for one more nanosecond.
        world.now = SECOND;
        world.update(StreamConfig {
            duplicate_window: 60 * SECOND,
            ..config()
        });
        if reload {
            world.reload();
        }
        assert_eq!(seq(&world.publish_one(old)), 3);
        let again = world.publish_one(with("a", &["Nats-Msg-Id: new"]));
        assert_eq!(again, PublishOutcome::Duplicate { seq: StreamSeq(2) });
    }
}

#[test]
fn expected_sequences_are_checked_against_what_is_applied() {
    let mut world = World::new(config());
    world.publish(&[plain("a", "1"), plain("b", "2")]);
    let refused = world.publish_one(with("a", &["Nats-Expected-Last-Sequence: 1"]));
    assert_eq!(
        refused,
        PublishOutcome::Refused(ApiError::wrong_last_sequence(2))
    );
    let subject = "Nats-Expected-Last-Subject-Sequence";
    let refused = world.publish_one(with("a", &[&format!("{subject}: 2")]));
    assert_eq!(
        refused,
        PublishOutcome::Refused(ApiError::wrong_last_sequence(1))
    );
    let stored = world.publish_one(with("a", &[&format!("{subject}: 1")]));
    assert_eq!(
        stored,
        PublishOutcome::Stored {
            seq: StreamSeq(3),
            previous: StreamSeq(1)
        }
    );
    let outcomes = world.publish(&[
        with("c", &[&format!("{subject}: 0")]),
        with("c", &[&format!("{subject}: 0")]),
        with(
            "x.1",
            &[&format!("{subject}: 4"), &format!("{subject}-Subject: c")],
        ),
        with(
            "x.2",
            &[&format!("{subject}: 5"), &format!("{subject}-Subject: x.*")],
        ),
        with(
            "x.3",
            &[&format!("{subject}: 5"), &format!("{subject}-Subject: x.*")],
        ),
        with("x.3", &[&format!("{subject}-Subject: x.*")]),
        with("x.3", &["Nats-Expected-Last-Sequence: one"]),
    ]);
    assert_eq!(seq(&outcomes[0]), 4);
    assert_eq!(
        outcomes[1],
        PublishOutcome::Refused(ApiError::wrong_last_sequence(4))
    );
    assert_eq!(seq(&outcomes[2]), 5);
    assert_eq!(seq(&outcomes[3]), 6);
    assert_eq!(
        outcomes[4],
        PublishOutcome::Refused(ApiError::wrong_last_sequence(6))
    );
    assert_eq!(code(&outcomes[5]), 10193);
    assert_eq!(
        outcomes[6],
        PublishOutcome::Refused(ApiError::wrong_last_sequence(6))
    );
}

#[test]
fn the_last_of_a_subject_is_found_again_after_it_was_removed() {
    let mut world = World::new(config());
    world.publish(&[plain("a", "1"), plain("b", "2")]);
    world.publish(&[plain("a", "3")]);
    world.remove(3);
    let last = world.read(|s, v| {
        s.last_for_subject(&Filters::new(["a"]), v)
            .expect("readable")
    });
    assert_eq!(last.expect("there").seq, StreamSeq(1));
    let stored = world.publish_one(with("a", &["Nats-Expected-Last-Subject-Sequence: 1"]));
    assert_eq!(seq(&stored), 4);
}

#[test]
fn refusals_have_the_codes_of_nats_server() {
    let large = "x".repeat(101);
    let mut world = World::new(StreamConfig {
        max_msg_size: 100,
        ..config()
    });
    let cases = [
        (with("a", &["Nats-Expected-Stream: other"]), 10060),
        (with("a", &["Nats-TTL: 5"]), 10166),
        (with("a", &["Nats-Expected-Last-Msg-Id: no"]), 10070),
        (with("a", &["Nats-Rollup: sub"]), 10111),
        (with("a", &["Nats-Incr: 1"]), 10168),
        (with("a", &["Nats-Schedule: @every 1s"]), 10188),
        (with("a", &["Nats-Batch-Id: b"]), 10174),
        (with("a", &["Nats-Stream-Source: s 1"]), 10227),
        (with("a", &["Nats-Msg-Id: 1", "Nats-Msg-Id: 2"]), 10003),
        (plain("a", &large), 10054),
        // Before anything else that is wrong with it.
        (
            Proposal {
                payload: large.clone().into(),
                ..with("a", &["Nats-Expected-Stream: other"])
            },
            10054,
        ),
    ];
    for (proposal, expected) in cases {
        let header = proposal.header.clone();
        assert_eq!(code(&world.publish_one(proposal)), expected, "{header}");
    }
    let mut world = World::new(config());
    let long = with("a", &[&format!("A: {}", "x".repeat(65_535))]);
    assert_eq!(code(&world.publish_one(long)), 10097);
    let broken = Proposal {
        header: "NATS/1.0\r\nbroken".into(),
        ..plain("a", "x")
    };
    assert_eq!(code(&world.publish_one(broken)), 10003);
    let mut world = World::new(StreamConfig {
        sealed: true,
        ..config()
    });
    assert_eq!(code(&world.publish_one(plain("a", "x"))), 10109);
    assert_eq!(world.stream.last_seq(), StreamSeq(0));
}

#[test]
fn the_last_id_is_that_of_the_last_message() {
    let mut world = World::new(StreamConfig {
        duplicate_window: SECOND,
        ..config()
    });
    world.publish_one(with("a", &["Nats-Msg-Id: one"]));
    world.reload();
    let fine = world.publish_one(with("a", &["Nats-Expected-Last-Msg-Id: one"]));
    assert_eq!(seq(&fine), 2);
    let refused = world.publish_one(with("a", &["Nats-Expected-Last-Msg-Id: one"]));
    assert_eq!(
        refused,
        PublishOutcome::Refused(ApiError::wrong_last_msg_id(""))
    );
}

#[test]
fn at_a_limit_the_oldest_go() {
    let mut world = World::new(StreamConfig {
        max_msgs: 3,
        ..config()
    });
    world.publish(&texts(2));
    world.publish(&texts(5));
    assert_eq!(world.seqs(), [5, 6, 7]);
    assert_eq!(world.segments.live(1), 1);
    let size = world.stream.bytes() / 3;
    let max_bytes = i64::try_from(size * 2 + 1).expect("small");
    let mut world = World::new(StreamConfig {
        max_bytes,
        ..config()
    });
    world.publish(&texts(5));
    assert_eq!(world.seqs(), [4, 5]);
}

#[test]
fn a_message_larger_than_the_stream_takes_a_sequence_and_goes() {
    let mut world = World::new(StreamConfig {
        max_bytes: 50,
        ..config()
    });
    world.publish_one(plain("a", "x"));
    assert_eq!(seq(&world.publish_one(plain("a", &"x".repeat(100)))), 2);
    assert!(world.seqs().is_empty());
    assert_eq!(
        (world.stream.first_seq(), world.stream.last_seq()),
        (StreamSeq(3), StreamSeq(2))
    );
    assert_eq!(world.state.row_count(Table::Block), 0);
    assert_eq!(world.state.row_count(Table::Subject), 0);
    assert_eq!(world.state.row_count(Table::SubjectSeq), 0);
}

#[test]
fn a_subject_keeps_its_newest() {
    let mut world = World::new(StreamConfig {
        max_msgs_per_subject: 2,
        ..config()
    });
    world.publish(&[
        plain("a", "1"),
        plain("b", "2"),
        plain("a", "3"),
        plain("a", "4"),
    ]);
    world.publish(&[plain("a", "5"), plain("b", "6")]);
    assert_eq!(world.seqs(), [2, 4, 5, 6]);
    assert_eq!(world.walk(&Filters::new(["a"])), [4, 5]);
    let state = world.state();
    assert_eq!((state.first_seq, state.num_deleted), (2, 1));
    let deleted = world.read(|s, v| s.deleted(100, v).expect("readable"));
    assert_eq!(deleted, [3]);
}

#[test]
fn a_full_stream_that_discards_new_says_which_limit() {
    let full = StreamConfig {
        max_msgs: 1,
        discard: Discard::New,
        ..config()
    };
    let mut world = World::new(full);
    world.publish_one(plain("a", "x"));
    assert_eq!(
        world.publish_one(plain("a", "x")),
        PublishOutcome::Refused(ApiError::store("maximum messages exceeded"))
    );
    let mut world = World::new(StreamConfig {
        max_bytes: 50,
        discard: Discard::New,
        ..config()
    });
    world.publish_one(plain("a", "x"));
    assert_eq!(
        world.publish_one(plain("a", "x")),
        PublishOutcome::Refused(ApiError::store("maximum bytes exceeded"))
    );
    let mut world = World::new(StreamConfig {
        max_msgs_per_subject: 1,
        discard_new_per_subject: true,
        discard: Discard::New,
        ..config()
    });
    world.publish_one(plain("a", "x"));
    assert_eq!(
        world.publish_one(plain("a", "x")),
        PublishOutcome::Refused(ApiError::store("maximum messages per subject exceeded"))
    );
    assert_eq!(seq(&world.publish_one(plain("b", "x"))), 2);
}

#[test]
fn a_key_of_a_full_bucket_may_be_replaced() {
    let mut world = World::new(StreamConfig {
        max_msgs: 2,
        max_msgs_per_subject: 1,
        discard: Discard::New,
        ..config()
    });
    world.publish(&[plain("a", "x"), plain("b", "x")]);
    assert_eq!(code(&world.publish_one(plain("c", "x"))), 10077);
    assert_eq!(seq(&world.publish_one(plain("a", "y"))), 3);
    assert_eq!(world.seqs(), [2, 3]);
}

#[test]
fn a_rollup_replaces_what_came_before_it() {
    let mut world = World::new(StreamConfig {
        allow_rollup_hdrs: true,
        ..config()
    });
    world.publish(&[plain("a", "1"), plain("b", "2"), plain("a", "3")]);
    world.publish(&[
        plain("a", "4"),
        with("a", &["Nats-Rollup: sub"]),
        plain("a", "6"),
    ]);
    assert_eq!(world.seqs(), [2, 5, 6]);
    world.publish(&[
        plain("c", "7"),
        with("d", &["Nats-Rollup: ALL"]),
        plain("d", "9"),
    ]);
    assert_eq!(world.seqs(), [8, 9]);
    assert_eq!(world.state().num_subjects, 1);
    assert_eq!(world.state.row_count(Table::Subject), 1);
}

#[test]
fn without_interest_a_sequence_is_used_and_nothing_kept() {
    let mut world = World::new(StreamConfig {
        retention: Retention::Interest,
        ..config()
    });
    world.interest = |subject| subject == b"wanted";
    let outcomes = world.publish(&[
        plain("other", "1"),
        plain("wanted", "2"),
        plain("other", "3"),
    ]);
    assert_eq!(outcomes[0], PublishOutcome::NotKept { seq: StreamSeq(1) });
    assert_eq!(seq(&outcomes[1]), 2);
    assert_eq!(outcomes[2], PublishOutcome::NotKept { seq: StreamSeq(3) });
    let state = world.state();
    assert_eq!((state.messages, state.first_seq, state.last_seq), (1, 2, 3));
    assert_eq!(state.num_deleted, 1);
    let deleted = world.read(|s, v| s.deleted(10, v).expect("readable"));
    assert_eq!(deleted, [3]);
    world.publish(&[plain("other", "4")]);
    assert_eq!(world.state.row_count(Table::Block), 1);
    assert_eq!(world.stream.last_seq(), StreamSeq(4));
}

#[test]
fn purging_everything_leaves_no_rows() {
    let mut world = World::new(config());
    for n in 0..20 {
        world.publish(&[plain(&format!("a.{n}"), "x"), plain("b", "x")]);
    }
    assert_eq!(world.purge(Purge::default()), 40);
    for table in [Table::Block, Table::Subject, Table::SubjectSeq] {
        assert_eq!(world.state.row_count(table), 0, "{table:?}");
    }
    assert_eq!(world.segments.live(1), 0);
    assert_eq!(world.removed, [Removed::Below(StreamSeq(41))]);
    assert_eq!(seq(&world.publish_one(plain("b", "x"))), 41);
    world.reload();
    assert_eq!(world.seqs(), [41]);
}

#[test]
fn purges_combine_filter_sequence_and_keep() {
    let fill = || {
        let mut world = World::new(config());
        for _ in 0..4 {
            world.publish(&[plain("a.1", "x"), plain("a.2", "x"), plain("b", "x")]);
        }
        world
    };
    let mut world = fill();
    let below = |seq| Purge {
        below: Some(StreamSeq(seq)),
        ..Purge::default()
    };
    assert_eq!(world.purge(below(5)), 4);
    assert_eq!(world.stream.first_seq(), StreamSeq(5));
    assert_eq!(world.purge(below(1)), 0);
    let filter = |filter: &str| Purge {
        filter: Some(filter.into()),
        ..Purge::default()
    };
    let mut world = fill();
    assert_eq!(
        world.purge(Purge {
            below: Some(StreamSeq(7)),
            ..filter("a.*")
        }),
        4
    );
    assert_eq!(world.seqs(), [3, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(
        world.purge(Purge {
            keep: Some(1),
            ..filter("a.*")
        }),
        3
    );
    assert_eq!(world.walk(&Filters::new(["a.*"])), [11]);
    assert_eq!(
        world.purge(Purge {
            keep: Some(9),
            ..filter("a.*")
        }),
        0
    );
    assert_eq!(world.purge(filter("b")), 4);
    assert_eq!(world.seqs(), [11]);
    let mut world = fill();
    assert_eq!(
        world.purge(Purge {
            keep: Some(5),
            ..Purge::default()
        }),
        7
    );
    assert_eq!(world.seqs(), [8, 9, 10, 11, 12]);
}

#[test]
fn a_purge_below_a_sequence_to_come_moves_on_to_it() {
    let mut world = World::new(config());
    world.publish(&texts(3));
    world.purge(Purge {
        below: Some(StreamSeq(10)),
        ..Purge::default()
    });
    assert_eq!(
        (world.stream.first_seq(), world.stream.last_seq()),
        (StreamSeq(10), StreamSeq(9))
    );
    world.reload();
    assert_eq!(seq(&world.publish_one(plain("a", "x"))), 10);
}

#[test]
fn a_segment_is_free_when_its_last_message_is_gone() {
    let mut world = World::new(config());
    world.publish(&texts(2));
    world.publish(&texts(2));
    assert_eq!(world.segments.live(1), 2);
    for seq in [1, 3, 2] {
        assert!(world.remove(seq));
        assert!(!world.remove(seq));
    }
    assert_eq!(world.segments.live(1), 1);
    world.remove(4);
    assert_eq!(world.segments.live(1), 0);
    assert_eq!(SegmentUse::load(&world.state).expect("sound").live(1), 0);
}

#[test]
fn messages_grow_too_old_by_log_time() {
    let mut world = World::new(StreamConfig {
        max_age: 10 * SECOND,
        ..config()
    });
    world.publish(&texts(3));
    assert_eq!(
        world.stream.next_expiry(),
        Some(Timestamp(START + 10 * SECOND))
    );
    world.wait(5 * SECOND);
    world.publish(&[plain("a", "4"), plain("b", "5")]);
    world.now = 10 * SECOND - 1;
    world.advance();
    assert_eq!(world.stream.messages(), 5);
    world.now = 10 * SECOND + 1;
    world.advance();
    assert_eq!(world.seqs(), [3, 4, 5]);
    assert_eq!(
        world.stream.next_expiry(),
        Some(Timestamp(START + 10 * SECOND + 2))
    );
    world.reload();
    assert!(world.stream.next_expiry() <= Some(Timestamp(START + 10 * SECOND + 2)));
    world.now = 15 * SECOND + 3;
    world.advance();
    assert_eq!(world.seqs(), [5]);
    world.wait(100 * SECOND);
    world.advance();
    assert!(world.seqs().is_empty());
    assert_eq!(world.stream.next_expiry(), None);
}

#[test]
fn a_time_to_live_ends_one_message_and_never_outlives_the_age_limit() {
    let ttl = StreamConfig {
        allow_msg_ttl: true,
        ..config()
    };
    let mut world = World::new(ttl.clone());
    world.publish(&[
        plain("a", "1"),
        with("a", &["Nats-TTL: 5"]),
        with("a", &["Nats-TTL: 2s"]),
        plain("a", "4"),
    ]);
    assert_eq!(
        world.stream.next_expiry(),
        Some(Timestamp(START + 2 * SECOND + 2))
    );
    world.now = 3 * SECOND;
    world.advance();
    assert_eq!(world.seqs(), [1, 2, 4]);
    world.reload();
    assert_eq!(
        world.stream.next_expiry(),
        Some(Timestamp(START + 5 * SECOND + 1))
    );
    world.now = 6 * SECOND;
    world.advance();
    assert_eq!(world.seqs(), [1, 4]);
    assert_eq!(world.stream.next_expiry(), None);
    assert_eq!(code(&world.publish_one(with("a", &["Nats-TTL: x"]))), 10165);

    let mut world = World::new(StreamConfig {
        max_age: 10 * SECOND,
        ..ttl
    });
    world.publish(&[with("a", &["Nats-TTL: never"]), plain("a", "2")]);
    world.wait(SECOND);
    world.publish(&[with("b", &["Nats-TTL: never"]), plain("b", "4")]);
    world.now = 10 * SECOND + 10;
    world.advance();
    assert_eq!(world.seqs(), [1, 3, 4]);
    assert_eq!(world.state().first_ts, Timestamp(START));
    world.now = 20 * SECOND;
    world.advance();
    assert_eq!(world.seqs(), [1, 3]);
    assert_eq!(world.stream.next_expiry(), None);
    world.publish_one(plain("c", "x"));
    assert_eq!(
        world.stream.next_expiry(),
        Some(Timestamp(START + 30 * SECOND))
    );
}

#[test]
fn lowered_limits_hold_at_once() {
    let mut world = World::new(config());
    for _ in 0..10 {
        world.publish(&[plain("a", "x"), plain("b", "x"), plain("c", "x")]);
    }
    world.update(StreamConfig {
        max_msgs_per_subject: 4,
        ..config()
    });
    assert_eq!(world.stream.messages(), 12);
    world.update(StreamConfig {
        max_msgs: 5,
        ..config()
    });
    assert_eq!(world.seqs(), [26, 27, 28, 29, 30]);
    world.wait(100 * SECOND);
    world.update(StreamConfig {
        max_age: SECOND,
        ..config()
    });
    assert!(world.seqs().is_empty());
}

#[test]
fn a_damaged_block_costs_its_messages_and_no_others() {
    let mut world = World::with_cache(config(), BlockCache::new(0));
    world.publish(&[plain("a", "1"), plain("b", "2")]);
    world.publish(&[plain("a", "3"), plain("b", "4")]);
    world.publish(&[plain("a", "5"), plain("b", "6")]);
    world.cache = BlockCache::default();
    // Another log: what lies where the second block was is an entry of another index.
    world.log = MemoryLog::new().with_segment_bytes(1 << 14);
    for (n, subjects) in [["a", "b"], ["x", "y"], ["a", "b"]].iter().enumerate() {
        let mut builder = BlockBuilder::new(Timestamp(START));
        for subject in subjects {
            builder.push(Timestamp(START), subject.as_bytes(), b"", b"?");
        }
        let entry = Entry {
            group: GROUP,
            index: if n == 1 { 99 } else { n as u64 + 1 },
            term: 1,
            kind: EntryKind::Publish,
            compress: false,
            payload: builder.finish(),
        };
        world.log.append(&[entry]).expect("memory has room");
    }
    let all = Filters::all();
    let only_b = Filters::new(["b"]);
    assert_eq!(world.message(2).expect("sound").seq, StreamSeq(2));
    let error = world.read(|s, v| s.message(StreamSeq(3), v).expect_err("damaged"));
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(world.read(|s, v| s.next_message(StreamSeq(3), &all, v).is_err()));
    assert!(world.read(|s, v| s.next_message(StreamSeq(3), &only_b, v).is_err()));
    let next = world.read(|s, v| s.next_sequence(StreamSeq(3), &only_b, v).expect("index"));
    assert_eq!(next, Some(StreamSeq(4)));
    let subject = world.read(|s, v| s.subject_of(StreamSeq(4), v).expect("index"));
    assert_eq!(subject.as_deref(), Some(b"b".as_slice()));
    assert_eq!(world.message(5).expect("sound").seq, StreamSeq(5));
    assert!(world.remove(4));
    world.purge(Purge {
        below: Some(StreamSeq(5)),
        ..Purge::default()
    });
    assert_eq!(world.seqs(), [5, 6]);
}

#[test]
fn a_sparse_subject_is_found_without_walking() {
    let mut world = World::new(config());
    for n in 0..200 {
        world.publish(&texts(20));
        if n % 67 == 66 {
            world.publish_one(plain("rare.x", "!"));
        }
    }
    world.reload();
    assert_eq!(world.walk(&Filters::new(["rare.x"])).len(), 2);
    assert_eq!(world.walk(&Filters::new(["rare.>"])).len(), 2);
    assert_eq!(world.walk(&Filters::new(["rare.*", "none"])).len(), 2);
    let count = world.read(|s, v| {
        s.count_matching(StreamSeq(2000), &Filters::new(["rare.x"]), v)
            .expect("index")
    });
    assert_eq!(count, 1);
}

#[test]
fn the_first_message_at_a_time_is_found() {
    let mut world = World::new(config());
    for _ in 0..20 {
        world.publish(&texts(3));
        world.wait(SECOND - 3);
    }
    let at = |world: &mut World, nanos: i64| {
        world.read(|s, v| {
            s.seq_at_time(Timestamp(START + nanos), v)
                .expect("readable")
        })
    };
    assert_eq!(at(&mut world, -5), Some(StreamSeq(1)));
    assert_eq!(at(&mut world, 1), Some(StreamSeq(2)));
    assert_eq!(at(&mut world, 5 * SECOND), Some(StreamSeq(16)));
    assert_eq!(at(&mut world, 5 * SECOND + 3), Some(StreamSeq(19)));
    assert_eq!(at(&mut world, 100 * SECOND), None);
    world.remove(16);
    world.remove(19);
    assert_eq!(at(&mut world, 5 * SECOND), Some(StreamSeq(17)));
    assert_eq!(at(&mut world, 5 * SECOND + 3), Some(StreamSeq(20)));
}

#[test]
fn a_stream_that_is_gone_leaves_nothing() {
    let mut world = World::new(StreamConfig {
        allow_msg_ttl: true,
        duplicate_window: SECOND,
        ..config()
    });
    world.publish(&[
        with("a", &["Nats-TTL: 5", "Nats-Msg-Id: 1"]),
        plain("b", "x"),
    ]);
    let mut txn = Txn::new(&world.state);
    world
        .stream
        .drop_rows(&mut Context {
            txn: &mut txn,
            log: &world.log,
            cache: &mut world.cache,
            segments: &mut world.segments,
        })
        .expect("rows are sound");
    world.segments.write_changes(&mut txn);
    let writes = txn.into_writes();
    world.state.write(&writes).expect("memory takes it");
    for table in Table::ALL {
        assert_eq!(world.state.row_count(table), 0, "{table:?}");
    }
    assert_eq!(world.cache.bytes(), 0);
}

#[test]
fn single_messages_are_read_without_their_blocks() {
    let mut world = World::new(config());
    for block in 0..4 {
        let proposals: Vec<_> = (0..20)
            .map(|n| plain("a", &format!("{:0200}", block * 20 + n + 1)))
            .collect();
        world.publish(&proposals);
    }
    fn read(world: &mut World, seq: u64) -> usize {
        let message = world.message(seq).expect("stored");
        assert_eq!(message.payload(), format!("{seq:0200}").as_bytes());
        message.block.len()
    }
    world.cache.forget_bytes();
    for seq in [3, 30, 50, 80] {
        assert!(read(&mut world, seq) > 4000, "the first is read whole");
    }
    world.cache.forget_bytes();
    for seq in [1, 39, 41, 61, 2] {
        assert!(read(&mut world, seq) < 400, "{seq}");
    }
    // What is wanted often comes back whole, after reads of several times as much.
    let whole = (1..400).find(|n| read(&mut world, 21 + n % 20) > 4000);
    assert!(whole.is_some_and(|n| n > 100), "{whole:?}");
}

#[test]
fn a_count_below_a_prefix_knows_of_subjects_elsewhere() {
    let mut world = World::new(config());
    let filters = Filters::new(["k.b.>"]);
    let mut others = 0;
    // None, before in the order of names, the prefix without its dot, and behind.
    for elsewhere in [None, Some("k.a.1"), Some("k.b"), Some("k.c")] {
        if let Some(subject) = elsewhere {
            world.publish_one(plain(subject, "x"));
            others += 1;
        }
        world.publish(&[plain("k.b.1", "x"), plain("k.b.2", "x")]);
        let count = |from: u64, world: &mut World| {
            world
                .read(|stream, view| stream.count_matching(StreamSeq(from), &filters, view))
                .expect("sound")
        };
        let all = world.state().messages;
        assert_eq!(count(1, &mut world), all - others);
        assert_eq!(count(2, &mut world), all - others - 1);
        assert_eq!(count(all, &mut world), 1);
    }
}
