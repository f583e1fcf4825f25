//! What a server knows after it starts again.

use menes_jetstream::Timestamp;
use menes_jetstream::engine::Options;
use menes_jetstream::memory::{MemoryLog, MemoryState};
use menes_jetstream::ports::{LogStore as _, StateStore as _};

use super::server::{SECOND, Server, code, seq_of};

#[test]
fn streams_consumers_and_positions_come_back() {
    for is_flushed in [false, true] {
        let mut server = Server::new();
        server.stream("S", &["s.>"], "");
        server.consumer("S", "C", "");
        for _ in 0..5 {
            server.store("s.a");
        }
        let got = server.pull("S", "C", 3);
        let acked = server.ack(&got[0], "+ACK");
        server.settle();
        assert_eq!(server.answer(&acked), "");
        server.engine().propose_application(&b"command"[..], 1);
        server.settle();
        if is_flushed {
            server.restart();
        } else {
            server.crash();
        }
        assert_eq!(server.store("s.b"), r#"{"stream":"S","seq":6}"#);
        let info = server.must("CONSUMER.INFO.S.C", "");
        assert_eq!(info["ack_floor"]["stream_seq"], 1, "{info}");
        assert_eq!(server.engine().application().0, 1);
        server.pass(31 * SECOND);
        let again: Vec<u64> = server.pull("S", "C", 10).iter().map(seq_of).collect();
        assert_eq!(again, [2, 3, 4, 5, 6], "flushed {is_flushed}");
    }
}

#[test]
fn a_memory_stream_comes_back_empty_with_its_consumers() {
    for is_flushed in [false, true] {
        let mut server = Server::new();
        server.stream("M", &["m.>"], r#","storage":"memory","max_msgs":10"#);
        server.consumer("M", "C", "");
        server.consumer("M", "D", "");
        server.must("CONSUMER.DELETE.M.D", "");
        server.store("m.a");
        let got = server.pull("M", "C", 1);
        server.now.0 += SECOND;
        if is_flushed {
            server.restart();
        } else {
            server.crash();
        }
        assert_eq!(server.state("M")["messages"], 0);
        assert_eq!(server.must("STREAM.INFO.M", "")["config"]["max_msgs"], 10);
        assert_eq!(server.must("CONSUMER.NAMES.M", "")["consumers"][0], "C");
        assert_eq!(server.store("m.b"), r#"{"stream":"M","seq":1}"#);
        assert_eq!(server.pull("M", "C", 1).len(), 1);
        // What is acknowledged was another message.
        server.ack(&got[0], "+ACK");
        server.settle();
        let info = server.must("CONSUMER.INFO.M.C", "");
        assert_eq!(info["num_ack_pending"], 1, "{info}");
    }
}

#[test]
fn the_number_of_a_deleted_consumer_is_not_given_again() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "A", "");
    server.must("CONSUMER.DELETE.S.A", "");
    // From here on the rows know nothing of A.
    server.engine().flush_state().expect("memory does not fail");
    server.consumer("S", "B", "");
    server.store("s.a");
    let got = server.pull("S", "B", 1);
    let acked = server.ack(&got[0], "+ACK");
    server.settle();
    assert_eq!(server.answer(&acked), "");
    server.crash();
    server.pass(31 * SECOND);
    assert_eq!(server.pull("S", "B", 1).len(), 0, "its ack was forgotten");
}

#[test]
fn a_segment_is_kept_while_a_crash_would_need_it() {
    let log = MemoryLog::manual().with_segment_bytes(4096);
    let mut server = Server::on(log, Options::default());
    server.stream("S", &["s.>"], r#","retention":"interest""#);
    server.consumer("S", "A", "");
    server.consumer("S", "B", r#","filter_subject":"s.*""#);
    for round in 0..200 {
        server.publish_with("s.a", "", &[1; 100]);
        server.settle();
        for consumer in ["A", "B"] {
            for delivery in server.pull("S", consumer, 10) {
                server.ack(&delivery, "+ACK");
            }
        }
        server.settle();
        if round % 7 == 0 {
            // Does not panic: everything that replay reads is there.
            server.crash();
        }
    }
    assert_eq!(server.state("S")["messages"], 0);
    let segments = server.log.segments().len();
    assert!(segments < 10, "{segments} segments are kept for nothing");
}

#[test]
fn a_long_tail_of_the_log_is_replayed_in_portions() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    for _ in 0..25 {
        server.publish_with("s.a", "", &vec![1; 1 << 20]);
        server.settle();
    }
    server.crash();
    assert_eq!(server.state("S")["messages"], 25);
    assert_eq!(server.store("s.b"), r#"{"stream":"S","seq":26}"#);
    server.crash();
    assert_eq!(server.state("S")["messages"], 26);
}

#[test]
fn what_was_written_a_while_ago_is_not_gone_through_again() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.settle();
    server.engine().flush_state().expect("memory does not fail");
    let applied = |server: &Server| MemoryState::reopen(&server.flushed).applied();
    let before = applied(&server);
    server.store("s.a");
    server.pass(60 * SECOND);
    assert_eq!(applied(&server), before, "a little is not worth a flush");
    server.publish_with("s.a", "", &vec![1; 16 << 20]);
    server.settle();
    assert_eq!(applied(&server), before, "not at once");
    server.pass(3 * SECOND);
    assert!(applied(&server) > before);
    assert_eq!(server.engine().next_deadline(), None);
    // What a start goes through is not left to the next one either.
    server.publish_with("s.a", "", &vec![1; 16 << 20]);
    server.settle();
    let before = applied(&server);
    server.crash();
    assert_eq!(server.state("S")["messages"], 3);
    server.pass(3 * SECOND);
    assert!(applied(&server) > before);
}

#[test]
fn a_stream_made_again_under_the_same_name_is_another_one() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    server.store("s.a");
    let got = server.pull("S", "C", 1);
    server.must("STREAM.DELETE.S", "");
    server.now.0 += SECOND;
    server.stream("S", &["s.>"], "");
    assert_eq!(server.store("s.b"), r#"{"stream":"S","seq":1}"#);
    server.consumer("S", "C", "");
    assert_eq!(server.pull("S", "C", 1).len(), 1);
    // An ack for the old message does not settle the new one.
    server.ack(&got[0], "+ACK");
    server.settle();
    assert_eq!(server.must("CONSUMER.INFO.S.C", "")["num_ack_pending"], 1);
    for _ in 0..2 {
        server.crash();
        assert_eq!(server.state("S")["last_seq"], 1);
        server.restart();
        assert_eq!(server.state("S")["messages"], 1);
    }
}

#[test]
fn refused_commands_leave_no_gap_in_the_numbers_of_entries() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    // Checked before the first one is applied, refused when it is applied.
    server.request(
        "$JS.API.STREAM.CREATE.T",
        r#"{"name":"T","subjects":["t"]}"#,
    );
    server.request(
        "$JS.API.STREAM.CREATE.T",
        r#"{"name":"T","subjects":["u"]}"#,
    );
    server.restart();
    server.stream("V", &["v"], "");
    let mut indexes = Vec::new();
    let mut log = server.log.clone();
    log.replay(Default::default(), &mut |_, entry| {
        if entry.group == menes_jetstream::GroupId::META {
            indexes.push(entry.index);
        }
        Ok(())
    })
    .expect("a sound log");
    assert_eq!(indexes, [1, 2, 3, 4]);
}

#[test]
fn time_does_not_go_back() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.now.0 += 3600 * SECOND;
    server.store("s.a");
    let last = last_time(&mut server);
    server.settle();
    server.now.0 -= 3600 * SECOND;
    server.crash();
    assert!(server.engine().log_time() > server.now);
    server.store("s.b");
    assert!(last_time(&mut server) > last);
}

fn last_time(server: &mut Server) -> Option<Timestamp> {
    Timestamp::parse(server.state("S")["last_ts"].as_str()?)
}

#[test]
fn a_consumer_in_memory_keeps_its_configuration_and_forgets_its_place() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", r#","mem_storage":true"#);
    let appended = server.log.appended();
    server.store("s.a");
    let got = server.pull("S", "C", 1);
    let acked = server.ack(&got[0], "+ACK");
    server.settle();
    assert_eq!(server.answer(&acked), "");
    assert_eq!(
        server.log.appended().0,
        appended.0 + 1,
        "its acks are not logged"
    );
    server.crash();
    assert_eq!(server.pull("S", "C", 1).len(), 1);
    assert_eq!(code(&server.call("CONSUMER.INFO.S.C", "")), 0);
}

#[test]
fn a_consumer_in_memory_is_logged_once_acks_remove_messages() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", r#","mem_storage":true"#);
    let interest = r#"{"name":"S","subjects":["s.>"],"retention":"interest"}"#;
    server.must("STREAM.UPDATE.S", interest);
    server.store("s.a");
    let got = server.pull("S", "C", 1);
    server.ack(&got[0], "+ACK");
    server.settle();
    assert_eq!(server.state("S")["messages"], 0);
    server.crash();
    assert_eq!(server.state("S")["messages"], 0);
    assert_eq!(server.pull("S", "C", 1).len(), 0);
}

#[test]
fn what_a_consumer_gave_up_is_told_until_it_is_taken_over() {
    for retention in ["limits", "interest", "workqueue"] {
        let mut server = Server::new();
        server.stream("KEPT", &["s.>"], &format!(r#","retention":"{retention}""#));
        server.consumer("KEPT", "C", "");
        server.store("s.a");
        let delivery = server.pull("KEPT", "C", 1).remove(0);
        server.ack(&delivery, "+TERM");
        server.settle();
        let told = server.engine().take_ended();
        assert_eq!(told.len(), 1, "{retention}");
        for ending in [true, false] {
            if ending {
                server.crash();
            } else {
                server.restart();
            }
            assert_eq!(server.engine().take_ended(), told, "{retention}");
        }
        let key = told[0].key.expect("its stream keeps a record");
        let seq = told[0].stream_seq();
        let message = server.engine().ended_message(key, seq).expect("readable");
        let message = message.expect("it is there although the stream may have let it go");
        assert_eq!(message.subject(), b"s.a");
        server.engine().handed_over(key.group, &[key], 7);
        server.settle();
        let completed = server.engine().take_completions();
        assert!(
            completed
                .iter()
                .any(|done| done.token == 7 && done.result.is_ok())
        );
        server.crash();
        assert_eq!(server.engine().take_ended(), [], "{retention}");
    }
}
