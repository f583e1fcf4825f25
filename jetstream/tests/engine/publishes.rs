//! Messages on their way into streams.

use menes_jetstream::engine::Options;

use super::server::{SECOND, Server};

#[test]
fn an_ack_waits_for_the_sync() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let inbox = server.publish("s.a");
    server.turn();
    assert!(!server.is_answered(&inbox));
    server.sync();
    assert_eq!(server.answer(&inbox), r#"{"stream":"S","seq":1}"#);
}

#[test]
fn a_message_in_memory_is_acked_at_once() {
    let mut server = Server::new();
    server.stream("M", &["m.>"], r#","storage":"memory""#);
    let inbox = server.publish("m.a");
    server.turn();
    assert_eq!(server.answer(&inbox), r#"{"stream":"M","seq":1}"#);
}

#[test]
fn what_came_before_a_command_is_applied_before_it() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        server.stream("S", &["s.>"], &format!(r#","storage":"{storage}""#));
        let before = server.publish("s.a");
        let purge = server.request("$JS.API.STREAM.PURGE.S", "");
        let after = server.publish("s.a");
        server.settle();
        assert_eq!(server.answer(&before), r#"{"stream":"S","seq":1}"#);
        assert!(server.answer(&purge).contains(r#""purged":1"#), "{storage}");
        assert_eq!(server.answer(&after), r#"{"stream":"S","seq":2}"#);
        assert_eq!(server.state("S")["messages"], 1, "{storage}");
    }
}

#[test]
fn a_message_before_an_update_has_the_old_limits() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let before = server.publish_with("s.a", "", &[0; 100]);
    let body = r#"{"name":"S","subjects":["s.>"],"max_msg_size":10}"#;
    server.request("$JS.API.STREAM.UPDATE.S", body);
    let after = server.publish_with("s.a", "", &[0; 100]);
    server.settle();
    assert_eq!(server.answer(&before), r#"{"stream":"S","seq":1}"#);
    assert!(server.answer(&after).contains("10054"));
}

#[test]
fn a_message_id_is_remembered_across_a_restart() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let header = "NATS/1.0\r\nNats-Msg-Id: one\r\n\r\n";
    let publish = |server: &mut Server| {
        let inbox = server.publish_with("s.a", header, b"x");
        server.settle();
        server.answer(&inbox)
    };
    assert_eq!(publish(&mut server), r#"{"stream":"S","seq":1}"#);
    server.crash();
    assert_eq!(
        publish(&mut server),
        r#"{"stream":"S","seq":1,"duplicate": true}"#
    );
    server.restart();
    assert_eq!(
        publish(&mut server),
        r#"{"stream":"S","seq":1,"duplicate": true}"#
    );
    server.pass(121 * SECOND);
    assert_eq!(publish(&mut server), r#"{"stream":"S","seq":2}"#);
}

#[test]
fn a_full_log_refuses_every_publisher_and_the_engine_goes_on() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.stream("T", &["t.>"], "");
    server.log.set_full(true);
    let inboxes: Vec<_> = ["s.a", "s.b", "t.a"]
        .map(|subject| server.publish(subject))
        .into();
    server.settle();
    for inbox in inboxes {
        let answer = server.answer(&inbox);
        assert!(answer.contains(r#""err_code":10047"#), "{answer}");
    }
    server.log.set_full(false);
    assert_eq!(server.store("s.a"), r#"{"stream":"S","seq":1}"#);
    server.crash();
    assert_eq!(server.store("s.a"), r#"{"stream":"S","seq":2}"#);
    assert_eq!(server.store("t.a"), r#"{"stream":"T","seq":1}"#);
}

#[test]
fn a_full_log_still_takes_acks_and_deletes() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], r#","retention":"workqueue""#);
    server.consumer("S", "C", "");
    server.store("s.a");
    server.store("s.b");
    let got = server.pull("S", "C", 1);
    server.log.set_full(true);
    let refused = server.publish("s.c");
    let acked = server.ack(&got[0], "+ACK");
    let deleted = server.request("$JS.API.STREAM.MSG.DELETE.S", r#"{"seq":2}"#);
    server.settle();
    assert!(server.answer(&refused).contains("10047"));
    assert_eq!(server.answer(&acked), "");
    assert!(server.answer(&deleted).contains(r#""success":true"#));
    assert_eq!(server.state("S")["messages"], 0);
    server.log.set_full(false);
    server.crash();
    assert_eq!(server.state("S")["messages"], 0);
    assert_eq!(server.store("s.d"), r#"{"stream":"S","seq":3}"#);
}

#[test]
fn a_stream_that_does_not_ack_does_not_refuse_either() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], r#","no_ack":true"#);
    server.log.set_full(true);
    let inbox = server.publish("s.a");
    server.settle();
    assert!(!server.is_answered(&inbox));
}

#[test]
fn a_message_behind_the_deletion_of_its_stream_is_refused() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let before = server.publish("s.a");
    let deleted = server.request("$JS.API.STREAM.DELETE.S", "");
    let behind = server.publish("s.a");
    server.settle();
    assert_eq!(server.answer(&before), r#"{"stream":"S","seq":1}"#);
    assert!(server.answer(&deleted).contains(r#""success":true"#));
    let answer = server.answer(&behind);
    assert!(answer.contains(r#""err_code":10059"#), "{answer}");
}

#[test]
fn a_large_batch_becomes_several_entries() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let payload = vec![7; 300 << 10];
    let inboxes: Vec<_> = (0..10)
        .map(|_| server.publish_with("s.a", "", &payload))
        .collect();
    server.settle();
    for (seq, inbox) in (1..).zip(inboxes) {
        assert_eq!(
            server.answer(&inbox),
            format!(r#"{{"stream":"S","seq":{seq}}}"#)
        );
    }
    server.crash();
    assert_eq!(server.state("S")["messages"], 10);
}

#[test]
fn a_subject_that_no_block_can_hold_is_refused() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let subject = format!("s.{}", "a".repeat(70_000));
    let inbox = server.publish(&subject);
    server.settle();
    assert!(server.answer(&inbox).contains(r#""err_code":10054"#));
}

#[test]
fn old_messages_expire_when_their_time_has_come() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        let more = format!(r#","max_age":1000000000,"storage":"{storage}""#);
        server.stream("S", &["s.>"], &more);
        server.store("s.a");
        server.pass(SECOND / 2);
        server.store("s.b");
        let due = server.engine().next_deadline().expect("something expires");
        assert!(due.0 <= server.now.0 + SECOND / 2 + 1000, "{storage}");
        server.pass(SECOND / 2 + 1000);
        assert_eq!(server.state("S")["first_seq"], 2, "{storage}");
        server.pass(SECOND);
        assert_eq!(server.state("S")["messages"], 0, "{storage}");
        assert_eq!(server.engine().next_deadline(), None, "{storage}");
    }
}

#[test]
fn other_streams_go_on_while_many_messages_expire() {
    for more in ["", r#","allow_msg_ttl":true"#] {
        let mut options = Options::default();
        options.stream_bounds.features.msg_ttl = true;
        let mut server = Server::with_options(options);
        server.stream("OLD", &["old.>"], more);
        server.stream("S", &["s.>"], "");
        for n in 0..7000 {
            server.publish(&format!("old.{}", n % 100));
        }
        server.settle();
        server.pass(2 * SECOND);
        let body = format!(r#"{{"name":"OLD","subjects":["old.>"],"max_age":{SECOND}{more}}}"#);
        let update = server.request("$JS.API.STREAM.UPDATE.OLD", &body);
        server.sync();
        assert!(!server.answer(&update).contains("error"));
        // With every sync both get further.
        let mut rounds = 0;
        while server.engine().in_flight() > 0 {
            rounds += 1;
            let inbox = server.publish("s.a");
            server.sync();
            let ack = format!(r#""seq":{rounds}"#);
            assert!(server.answer(&inbox).contains(&ack));
            if rounds == 2 {
                // A crash in between changes nothing.
                server.crash();
            }
        }
        assert!(rounds >= 2, "{rounds}");
        server.pass(1);
        assert_eq!(server.state("OLD")["messages"], 0);
        assert_eq!(server.state("OLD")["first_seq"], 7001);
        assert_eq!(server.engine().next_deadline(), None);
    }
}

#[test]
fn other_streams_go_on_while_many_messages_are_purged() {
    let purges = [
        (r#"{"filter":"old.*"}"#, 7000),
        (r#"{"filter":"old.7"}"#, 70),
        (r#"{"filter":"old.*","keep":10}"#, 6990),
        (r#"{"filter":"old.*","seq":6000}"#, 5999),
        (r#"{"keep":10}"#, 6990),
        (r#"{"seq":6000}"#, 5999),
        ("", 7000),
    ];
    for (body, purged) in purges {
        let mut server = Server::new();
        server.stream("OLD", &["old.>"], "");
        server.stream("S", &["s.>"], "");
        for n in 0..7000 {
            server.publish(&format!("old.{}", n % 100));
        }
        server.settle();
        let purge = server.request("$JS.API.STREAM.PURGE.OLD", body);
        let mut rounds = 0;
        while server.engine().in_flight() > 0 || rounds == 0 {
            rounds += 1;
            let inbox = server.publish("s.a");
            // What comes in meanwhile is not meant.
            server.publish("old.7");
            server.sync();
            let ack = format!(r#""seq":{rounds}"#);
            assert!(server.answer(&inbox).contains(&ack), "{body}");
        }
        let is_much = !body.is_empty() && purged > 4096;
        assert!(rounds > u64::from(is_much), "{body} in {rounds}");
        let told = server.answer(&purge);
        assert!(
            told.contains(&format!(r#""purged":{purged}"#)),
            "{body}: {told}"
        );
        server.settle();
        assert_eq!(
            server.state("OLD")["messages"],
            7000 - purged + rounds,
            "{body}"
        );
        assert_eq!(server.state("OLD")["last_seq"], 7000 + rounds);
    }
}

#[test]
fn other_streams_go_on_while_a_stream_shrinks_to_new_limits() {
    for limit in [r#""max_msgs":10"#, r#""max_bytes":400"#] {
        let mut server = Server::new();
        server.stream("OLD", &["old.>"], "");
        server.stream("S", &["s.>"], "");
        // Small entries, as many publishers make them.
        for n in 0..7000 {
            server.publish(&format!("old.{}", n % 100));
            if n % 100 == 0 {
                server.sync();
            }
        }
        server.settle();
        let body = format!(r#"{{"name":"OLD","subjects":["old.>"],{limit}}}"#);
        let mut update = server.request("$JS.API.STREAM.UPDATE.OLD", &body);
        let mut rounds = 0;
        while server.engine().in_flight() > 0 || rounds == 0 {
            rounds += 1;
            let inbox = server.publish("s.a");
            server.publish("old.7");
            server.sync();
            let ack = format!(r#""seq":{rounds}"#);
            assert!(server.answer(&inbox).contains(&ack), "{limit}");
            if rounds == 2 {
                // A crash in between changes nothing, but nobody waits for the answer any more.
                server.crash();
                update = server.request("$JS.API.STREAM.UPDATE.OLD", &body);
            }
        }
        assert!(rounds >= 3, "{limit} in {rounds}");
        server.pass(1);
        let told: serde_json::Value = serde_json::from_str(&server.answer(&update)).expect("JSON");
        let state = server.state("OLD");
        // Who asked is answered when it is done.
        for state in [&told["state"], &state] {
            let left = state["messages"].as_u64().expect("a count");
            assert!((1..=10).contains(&left), "{limit}: {state}");
        }
        assert_eq!(state["last_seq"], 7000 + rounds);
    }
}

#[test]
fn a_stream_that_shrinks_gets_there_however_much_is_published_and_after_a_crash() {
    let payload = [b'x'; 300];
    for (limit, has_crashed) in [
        (r#""max_msgs":10"#, false),
        (r#""max_bytes":4000"#, false),
        (r#""max_msgs":10"#, true),
        (r#""max_bytes":4000"#, true),
    ] {
        let mut server = Server::new();
        server.stream("OLD", &["old.>"], "");
        for n in 0..20_000 {
            server.publish(&format!("old.{}", n % 100));
        }
        server.settle();
        let body = format!(r#"{{"name":"OLD","subjects":["old.>"],{limit}}}"#);
        server.request("$JS.API.STREAM.UPDATE.OLD", &body);
        server.sync();
        let mut before = server.state("OLD")["messages"].as_u64().expect("a count");
        assert!(before > 10_000, "{before}");
        if has_crashed {
            // Nobody asks again.
            server.crash();
            server.settle();
        } else {
            // More at once than goes in a portion.
            while before > 100 {
                for n in 0..4000 {
                    server.publish_with(&format!("old.{}", n % 100), "", &payload);
                }
                server.sync();
                let now = server.state("OLD")["messages"].as_u64().expect("a count");
                assert!(now < before, "{limit}: {before}, {now}");
                before = now;
            }
        }
        let left = server.state("OLD")["messages"].as_u64().expect("a count");
        assert!((1..=110).contains(&left), "{limit}, {has_crashed}: {left}");
    }
}

#[test]
fn a_purge_goes_on_behind_subjects_of_any_bytes() {
    let mut server = Server::new();
    server.stream("OLD", &["old.>"], "");
    let group = server.group_of("old.a").expect("captured");
    for n in 0..6000u32 {
        let mut subject = b"old.".to_vec();
        // Not UTF-8, on both sides of what stands for that.
        subject.push(if n % 2 == 0 { 0x85 } else { 0xf9 });
        subject.extend_from_slice(format!("{n:05}").as_bytes());
        server.publish_into(group, &subject, "", "", b"x");
    }
    server.settle();
    assert_eq!(server.state("OLD")["messages"], 6000);
    let purge = server.request(
        "$JS.API.STREAM.PURGE.OLD",
        r#"{"filter":"old.*","seq":6001}"#,
    );
    server.settle();
    assert!(server.answer(&purge).contains(r#""purged":6000"#));
    assert_eq!(server.state("OLD")["messages"], 0);
}

#[test]
fn a_purge_that_a_crash_cut_short_can_be_asked_for_again() {
    let mut server = Server::new();
    server.stream("OLD", &["old.>"], "");
    for n in 0..7000 {
        server.publish(&format!("old.{}", n % 100));
    }
    server.settle();
    let body = r#"{"filter":"old.*","keep":10}"#;
    server.request("$JS.API.STREAM.PURGE.OLD", body);
    server.sync();
    server.crash();
    server.settle();
    let left = server.state("OLD")["messages"].as_u64().expect("a count");
    assert!(left > 10 && left < 7000, "{left}");
    let purge = server.request("$JS.API.STREAM.PURGE.OLD", body);
    server.settle();
    let told = server.answer(&purge);
    assert!(
        told.contains(&format!(r#""purged":{}"#, left - 10)),
        "{told}"
    );
    assert_eq!(server.state("OLD")["messages"], 10);
    assert_eq!(server.state("OLD")["first_seq"], 6991);
}

#[test]
fn names_of_header_fields_are_the_clients_own() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let header = "NATS/1.0\r\nA name: of words\r\nNats-Msg-Id: 1\r\n\r\n";
    for _ in 0..2 {
        server.publish_with("s.a", header, b"x");
        server.settle();
    }
    assert_eq!(server.state("S")["messages"], 1);
}
