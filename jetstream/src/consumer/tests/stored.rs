//! What survives a crash, and what it costs to keep it.

use super::*;
use crate::ports::Table;

#[test]
fn acked_stays_acked_and_the_rest_comes_again() {
    let mut world = World::with_messages(5, pull_config());
    world.pull("inbox", "3");
    world.ack(2);
    world.apply();
    world.sent();
    world.crash();
    let info = world.info();
    assert_eq!((info.num_ack_pending, info.num_pending), (2, 2));
    assert_eq!(info.delivered.consumer_seq, 3);
    world.pull("inbox", "99");
    assert_eq!(world.seqs(), [4, 5]);
    world.advance(30 * SECOND);
    let sent = world.sent();
    assert_eq!(
        sent.iter()
            .map(|s| (s.seq(), s.token().deliveries))
            .collect::<Vec<_>>(),
        [(1, 2), (3, 2), (4, 2), (5, 2)]
    );
}

#[test]
fn an_ack_rewrites_one_chunk_however_much_is_pending() {
    let mut world = World::with_messages(
        5000,
        ConsumerConfig {
            max_ack_pending: -1,
            ..pull_config()
        },
    );
    world.pull("inbox", "5000");
    world.apply();
    assert_eq!(world.store.row_count(Table::Consumer), 2 + 20);
    world.ack(2500);
    world.turn(|consumer, turn| consumer.flush(turn));
    let event = world.proposed.remove(0).event;
    world.consumer.apply(&event, &mut Vec::new());
    let mut txn = Txn::new(&world.store);
    world.consumer.write_rows(GROUP, &mut txn);
    let writes = txn.into_writes().writes;
    assert_eq!(writes.len(), 2, "the position and one chunk");
}

#[test]
fn rows_go_with_their_consumer_and_leave_the_others() {
    let mut world = World::with_messages(5, pull_config());
    world.pull("inbox", "5");
    world.apply();
    let other = Consumer::create(
        2,
        "D".to_owned(),
        pull_config(),
        world.now,
        &mut world.stream,
    );
    let mut other = other.expect("a fake stream never fails");
    let mut txn = Txn::new(&world.store);
    other.write_rows(GROUP, &mut txn);
    let writes = txn.into_writes();
    world
        .store
        .write(&writes)
        .expect("memory takes every write");
    let both = Consumer::load_all(GROUP, &world.store).expect("rows this test wrote");
    assert_eq!(
        both.iter().map(Consumer::name).collect::<Vec<_>>(),
        ["C", "D"]
    );
    let mut txn = Txn::new(&world.store);
    world.consumer.drop_rows(GROUP, &mut txn);
    let writes = txn.into_writes();
    world
        .store
        .write(&writes)
        .expect("memory takes every write");
    let left = Consumer::load_all(GROUP, &world.store).expect("rows this test wrote");
    assert_eq!(left.iter().map(Consumer::name).collect::<Vec<_>>(), ["D"]);
}

#[test]
fn settled_chunks_leave_no_rows() {
    let mut world = World::with_messages(600, pull_config());
    world.pull("inbox", "600");
    world.apply();
    for seq in 1..=600 {
        world.ack(seq);
    }
    world.apply();
    assert_eq!(world.store.row_count(Table::Consumer), 2);
}

#[test]
fn what_was_given_up_is_remembered() {
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
    world.crash();
    assert!(world.consumer.wants(StreamSeq(1), b"a"));
    world.sent();
    world.pull("inbox", "9");
    world.advance(90 * SECOND);
    assert_eq!(world.seqs(), [0u64; 0]);
}
