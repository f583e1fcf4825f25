//! Consumers come and go, get their messages, and let streams forget what nobody wants.

use menes_jetstream::engine::Options;
use serde_json::Value;

use super::server::{SECOND, Sent, Server, code, consumer_body, seq_of};

fn messages(server: &mut Server, stream: &str) -> u64 {
    server.state(stream)["messages"].as_u64().expect("a number")
}

fn ack_all(server: &mut Server, deliveries: &[Sent]) {
    for delivery in deliveries {
        server.ack(delivery, "+ACK");
    }
    server.settle();
}

#[test]
fn a_work_queue_forgets_what_is_acked() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        let more = format!(r#","retention":"workqueue","storage":"{storage}""#);
        server.stream("S", &["s.>"], &more);
        server.consumer("S", "C", "");
        for _ in 0..3 {
            server.store("s.a");
        }
        let got = server.pull("S", "C", 3);
        ack_all(&mut server, &got[1..2]);
        assert_eq!(messages(&mut server, "S"), 2);
        server.ack(&got[0], "+TERM no good");
        server.settle();
        assert_eq!(messages(&mut server, "S"), 1);
        server.must("CONSUMER.DELETE.S.C", "");
        assert_eq!(
            messages(&mut server, "S"),
            1,
            "the last one waits for another consumer"
        );
    }
}

#[test]
fn an_interest_stream_keeps_what_someone_still_wants() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        let more = format!(r#","retention":"interest","storage":"{storage}""#);
        server.stream("S", &["s.>"], &more);
        assert_eq!(server.store("s.a"), r#"{"stream":"S","seq":1}"#);
        assert_eq!(messages(&mut server, "S"), 0, "nobody was interested");
        server.consumer("S", "A", r#","filter_subject":"s.a""#);
        server.consumer("S", "B", "");
        for subject in ["s.a", "s.b", "s.a"] {
            server.store(subject);
        }
        let got = server.pull("S", "B", 3);
        ack_all(&mut server, &got);
        assert_eq!(messages(&mut server, "S"), 2, "A wants both of its own");
        let got = server.pull("S", "A", 1);
        ack_all(&mut server, &got);
        assert_eq!(messages(&mut server, "S"), 1);
        server.must("CONSUMER.DELETE.S.A", "");
        assert_eq!(messages(&mut server, "S"), 0, "nobody is left who wants it");
        let info = server.must("CONSUMER.INFO.S.B", "");
        assert_eq!(
            (&info["num_pending"], &info["num_ack_pending"]),
            (&Value::from(0), &Value::from(0))
        );
    }
}

#[test]
fn a_changed_filter_gives_up_interest() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], r#","retention":"interest""#);
    server.consumer("S", "A", r#","filter_subject":"s.a""#);
    server.consumer("S", "B", r#","filter_subject":"s.b""#);
    for subject in ["s.a", "s.a", "s.b"] {
        server.store(subject);
    }
    server.consumer("S", "A", r#","filter_subject":"s.c""#);
    assert_eq!(messages(&mut server, "S"), 1);
    assert_eq!(server.must("CONSUMER.INFO.S.B", "")["num_pending"], 1);
}

#[test]
fn a_stream_that_turns_to_interest_forgets_what_its_consumers_are_done_with() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "A", r#","filter_subject":"s.a""#);
    for subject in ["s.a", "s.b", "s.c", "s.a"] {
        server.store(subject);
    }
    let got = server.pull("S", "A", 1);
    ack_all(&mut server, &got);
    let body = r#"{"name":"S","subjects":["s.>"],"retention":"interest"}"#;
    server.must("STREAM.UPDATE.S", body);
    let state = server.state("S");
    // What no consumer ever wanted stays, as in nats-server.
    assert_eq!(
        (&state["messages"], &state["first_seq"]),
        (&Value::from(3), &Value::from(2))
    );
}

#[test]
fn the_last_consumer_of_an_interest_stream_takes_everything_with_it() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], r#","retention":"interest""#);
    server.consumer("S", "A", "");
    for _ in 0..100 {
        server.publish("s.a");
    }
    server.settle();
    server.must("CONSUMER.DELETE.S.A", "");
    assert_eq!(messages(&mut server, "S"), 0);
    server.crash();
    assert_eq!(messages(&mut server, "S"), 0);
}

#[test]
fn an_idle_consumer_goes_after_its_threshold() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        server.stream("S", &["s.>"], &format!(r#","storage":"{storage}""#));
        server.consumer("S", "C", r#","inactive_threshold":1000000000"#);
        let inbox = server.request(
            "$JS.API.CONSUMER.MSG.NEXT.S.C",
            r#"{"batch":1,"expires":3000000000}"#,
        );
        server.pass(2 * SECOND);
        assert_eq!(
            code(&server.call("CONSUMER.INFO.S.C", "")),
            0,
            "someone waits"
        );
        server.pass(2 * SECOND);
        assert!(server.answer(&inbox).starts_with("NATS/1.0 408"));
        server.pass(3 * SECOND);
        assert_eq!(
            code(&server.call("CONSUMER.INFO.S.C", "")),
            10014,
            "{storage}"
        );
        assert_eq!(server.engine().next_deadline(), None);
        server.crash();
        assert_eq!(code(&server.call("CONSUMER.INFO.S.C", "")), 10014);
    }
}

#[test]
fn who_waits_for_a_deleted_consumer_is_told() {
    for what in ["CONSUMER.DELETE.S.C", "STREAM.DELETE.S"] {
        let mut server = Server::new();
        server.stream("S", &["s.>"], "");
        server.consumer("S", "C", "");
        let inbox = server.request("$JS.API.CONSUMER.MSG.NEXT.S.C", r#"{"batch":5}"#);
        server.must(what, "");
        assert_eq!(
            server.answer(&inbox),
            "NATS/1.0 409 Consumer Deleted\r\n\r\n"
        );
        let inbox = server.request("$JS.API.CONSUMER.MSG.NEXT.S.C", "");
        server.settle();
        assert!(server.answer(&inbox).starts_with("NATS/1.0 503"));
    }
}

#[test]
fn two_consumers_made_at_once_do_not_share_a_work_queue() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], r#","retention":"workqueue""#);
    let inboxes = ["A", "B"].map(|name| {
        let subject = format!("$JS.API.CONSUMER.CREATE.S.{name}");
        server.request(&subject, &consumer_body("S", name, ""))
    });
    server.settle();
    let answers = inboxes.map(|inbox| server.answer(&inbox));
    assert!(!answers[0].contains("error"), "{}", answers[0]);
    assert!(answers[1].contains(r#""err_code":10099"#), "{}", answers[1]);
}

#[test]
fn a_stream_takes_no_more_consumers_than_it_may_have() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], r#","max_consumers":2"#);
    let inboxes = ["A", "B", "C"].map(|name| {
        let subject = format!("$JS.API.CONSUMER.CREATE.S.{name}");
        server.request(&subject, &consumer_body("S", name, ""))
    });
    server.settle();
    let refused = inboxes.map(|inbox| server.answer(&inbox).contains("10026"));
    assert_eq!(refused, [false, false, true]);
}

#[test]
fn a_reset_consumer_begins_again() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        server.stream("S", &["s.>"], &format!(r#","storage":"{storage}""#));
        server.consumer("S", "C", "");
        for _ in 0..4 {
            server.store("s.a");
        }
        let got = server.pull("S", "C", 3);
        ack_all(&mut server, &got[..1]);
        let reset = server.must("CONSUMER.RESET.S.C", "");
        assert_eq!(
            (&reset["reset_seq"], &reset["num_pending"]),
            (&2.into(), &3.into())
        );
        assert_eq!(reset["num_ack_pending"], 0, "{reset}");
        let again = server.pull("S", "C", 4);
        assert_eq!(again.iter().map(seq_of).collect::<Vec<_>>(), [2, 3, 4]);
        let reset = server.must("CONSUMER.RESET.S.C", r#"{"seq":1}"#);
        assert_eq!(reset["reset_seq"], 1);
        assert_eq!(
            server
                .pull("S", "C", 1)
                .iter()
                .map(seq_of)
                .collect::<Vec<_>>(),
            [1]
        );
    }
}

#[test]
fn time_passes_while_a_reset_is_on_its_way() {
    // The deliveries of a pinned client, of one that acknowledges late, and those not recorded yet:
    // all of them have timers.
    let groups = r#","priority_policy":"pinned_client","priority_groups":["g"],"priority_timeout":1000000000"#;
    for (more, body) in [
        ("", r#"{"batch":2,"expires":60000000000}"#),
        (
            r#","ack_wait":1000000000"#,
            r#"{"batch":2,"expires":60000000000}"#,
        ),
        (groups, r#"{"batch":2,"expires":60000000000,"group":"g"}"#),
    ] {
        for settled in [false, true] {
            let mut server = Server::new();
            server.stream("S", &["s.>"], "");
            server.consumer("S", "C", more);
            server.store("s.a");
            server.store("s.b");
            let inbox = server.request("$JS.API.CONSUMER.MSG.NEXT.S.C", body);
            if settled {
                server.settle();
            } else {
                server.turn();
            }
            assert_eq!(server.received(&inbox).len(), 2, "{more}");
            let reset = server.request("$JS.API.CONSUMER.RESET.S.C", "");
            for _ in 0..10 {
                server.turn();
                server.now.0 += SECOND / 2;
            }
            server.settle();
            assert!(server.answer(&reset).contains(r#""reset_seq":1"#), "{more}");
            let inbox = server.request("$JS.API.CONSUMER.MSG.NEXT.S.C", body);
            server.settle();
            let again: Vec<_> = server.received(&inbox).iter().map(seq_of).collect();
            assert_eq!(again, [1, 2], "{more}");
        }
    }
}

#[test]
fn a_consumer_is_not_reset_to_before_its_start() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer(
        "S",
        "C",
        r#","deliver_policy":"by_start_sequence","opt_start_seq":5"#,
    );
    server.consumer("S", "N", r#","deliver_policy":"new""#);
    for (what, body, expected) in [
        ("CONSUMER.RESET.S.C", r#"{"seq":4}"#, 10204),
        ("CONSUMER.RESET.S.N", r#"{"seq":1}"#, 10204),
        ("CONSUMER.RESET.S.C", "x", 10025),
    ] {
        let answer = server.call(what, body);
        assert_eq!(code(&answer), expected, "{what} {body}: {answer}");
    }
    server.must("CONSUMER.RESET.S.C", r#"{"seq":5}"#);
    server.must("CONSUMER.RESET.S.N", "");
}

#[test]
fn unpinning_wants_a_group_of_the_consumer() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer(
        "S",
        "C",
        r#","priority_policy":"pinned_client","priority_groups":["g"]"#,
    );
    for (body, expected) in [
        ("", 10025),
        (r#"{"group":"h"}"#, 10160),
        (r#"{"group":"a b"}"#, 10162),
    ] {
        let answer = server.call("CONSUMER.UNPIN.S.C", body);
        assert_eq!(code(&answer), expected, "{body}: {answer}");
    }
    server.must("CONSUMER.UNPIN.S.C", r#"{"group":"g"}"#);
}

#[test]
fn lists_show_configurations_as_they_are_stored() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    let streams = server.must("STREAM.LIST", "");
    let consumers = server.must("CONSUMER.LIST.S", "");
    for config in [
        &streams["streams"][0]["config"],
        &consumers["consumers"][0]["config"],
    ] {
        let metadata = config["metadata"].as_object().expect("an object");
        assert_eq!(metadata.keys().collect::<Vec<_>>(), ["_nats.req.level"]);
    }
}

#[test]
fn a_pause_and_a_change_at_once_both_hold() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    let change = consumer_body("S", "C", r#","filter_subject":"s.a","ack_wait":5000000000"#);
    let until = r#"{"pause_until":"2035-01-01T00:00:00Z"}"#;
    for first_pause in [true, false] {
        if first_pause {
            server.request("$JS.API.CONSUMER.PAUSE.S.C", until);
        }
        server.request("$JS.API.CONSUMER.CREATE.S.C", &change);
        if !first_pause {
            server.request("$JS.API.CONSUMER.PAUSE.S.C", until);
        }
        server.settle();
        let info = server.must("CONSUMER.INFO.S.C", "");
        assert_eq!(info["config"]["filter_subject"], "s.a", "{info}");
        assert_eq!(info["paused"], true, "{info}");
        assert_eq!(info["config"]["metadata"]["_nats.req.level"], "1");
        let resumed = server.must("CONSUMER.PAUSE.S.C", "");
        assert_eq!(resumed["paused"], false);
        server.consumer("S", "C", "");
    }
}

#[test]
fn the_second_of_two_updates_is_checked_against_the_first() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    let sealed = r#"{"name":"S","subjects":["s.>"],"sealed":true}"#;
    let unsealed = r#"{"name":"S","subjects":["s.>"]}"#;
    let first = server.request("$JS.API.STREAM.UPDATE.S", sealed);
    let second = server.request("$JS.API.STREAM.UPDATE.S", unsealed);
    let purge = server.request("$JS.API.STREAM.PURGE.S", "");
    server.settle();
    assert!(!server.answer(&first).contains("error"));
    assert!(server.answer(&second).contains("10052"));
    assert!(server.answer(&purge).contains("10109"));
    assert_eq!(server.must("STREAM.INFO.S", "")["config"]["sealed"], true);
}

#[test]
fn a_push_consumer_waits_for_someone_to_listen() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.wire.deaf.insert("there".to_owned());
    server.consumer("S", "P", r#","deliver_subject":"there""#);
    server.store("s.a");
    assert!(server.engine().awaits_interest());
    assert!(server.received("there").is_empty());
    server.wire.deaf.clear();
    server.engine().interest_changed();
    server.settle();
    assert_eq!(server.received("there").len(), 1);
    assert!(!server.engine().awaits_interest());
    server.store("s.b");
    assert_eq!(server.received("there").len(), 1);
    server.must("CONSUMER.DELETE.S.P", "");
    assert!(!server.engine().awaits_interest());
}

#[test]
fn nobody_waits_for_interest_in_what_is_gone() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.wire.deaf.insert("there".to_owned());
    server.consumer("S", "P", r#","deliver_subject":"there""#);
    assert!(server.engine().awaits_interest());
    server.must("STREAM.DELETE.S", "");
    assert!(!server.engine().awaits_interest());
    assert_eq!(server.engine().next_deadline(), None);
}

#[test]
fn a_receiver_that_is_behind_gets_nothing_until_it_has_caught_up() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "P", r#","deliver_subject":"there""#);
    server.consumer("S", "C", "");
    server.wire.congested.insert("there".to_owned());
    server.wire.congested.insert("slow".to_owned());
    server.store("s.a");
    let pull = r#"{"batch":5,"expires":30000000000}"#;
    server.request_to("$JS.API.CONSUMER.MSG.NEXT.S.C", "slow", pull);
    server.request_to("$JS.API.CONSUMER.MSG.NEXT.S.C", "quick", pull);
    server.pass(SECOND / 100);
    assert!(server.received("there").is_empty());
    assert!(server.received("slow").is_empty());
    assert_eq!(server.received("quick").len(), 1);
    server.wire.congested.clear();
    server.pass(SECOND / 100);
    assert_eq!(server.received("there").len(), 1);
}

#[test]
fn a_long_backlog_does_not_keep_others_waiting() {
    let options = Options {
        delivery_burst_bytes: 10_000,
        turn_bytes: 20_000,
        ..Options::default()
    };
    let mut server = Server::with_options(options);
    server.stream("S", &["s.>"], "");
    for _ in 0..1000 {
        server.publish_with("s.a", "", &[1; 1000]);
    }
    server.settle();
    server.wire.sent.clear();
    for name in ["A", "B", "C"] {
        server.consumer("S", name, r#","max_ack_pending":-1"#);
    }
    for name in ["A", "B", "C"] {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.S.{name}");
        server.request_to(&subject, name, r#"{"batch":1000}"#);
    }
    let mut got = [0; 3];
    let mut turns = 0;
    while got != [1000; 3] {
        let now = server.now;
        let engine = server.engine.as_mut().expect("it runs");
        engine.turn(now, &mut server.wire);
        let bytes: usize = server.wire.sent.iter().map(|sent| sent.payload.len()).sum();
        assert!(bytes < 40_000, "{bytes} bytes in one turn");
        for (count, name) in got.iter_mut().zip(["A", "B", "C"]) {
            *count += server.received(name).len();
        }
        let spread = got.iter().max().unwrap_or(&0) - got.iter().min().unwrap_or(&0);
        assert!(spread <= 30, "{got:?}");
        turns += 1;
        assert!(turns < 1000, "{got:?}");
    }
}

#[test]
fn a_consumer_is_its_own_whoever_was_called_so_before() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    for _ in 0..3 {
        server.store("s.a");
    }
    server.consumer("S", "C", "");
    assert_eq!(server.pull("S", "C", 2).len(), 2);
    server.request("$JS.API.CONSUMER.DELETE.S.C", "");
    server.consumer("S", "C", "");
    let got: Vec<u64> = server.pull("S", "C", 10).iter().map(seq_of).collect();
    assert_eq!(got, [1, 2, 3]);
    let names = server.must("CONSUMER.NAMES.S", "");
    assert_eq!(names["total"], 1);
}

#[test]
fn what_was_delivered_often_enough_is_told_once() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", r#","max_deliver":2,"ack_wait":1000000000"#);
    server.store("s.a");
    for _ in 0..3 {
        server.pull("S", "C", 1);
        server.pass(2 * SECOND);
    }
    assert_eq!(server.engine().take_ended().len(), 1);
}

#[test]
fn an_ack_makes_room_at_once() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        server.stream("S", &["s.>"], &format!(r#","storage":"{storage}""#));
        server.consumer("S", "C", r#","max_ack_pending":1"#);
        server.store("s.a");
        server.store("s.b");
        server.request_to("$JS.API.CONSUMER.MSG.NEXT.S.C", "in", r#"{"batch":5}"#);
        server.settle();
        let first = server.received("in");
        assert_eq!(first.len(), 1);
        server.ack(&first[0], "+ACK");
        server.turn();
        assert_eq!(server.received("in").len(), 1, "{storage}");
    }
}

#[test]
fn a_purge_moves_consumers_on_even_if_it_finds_nothing() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.store("s.a");
    server.store("s.a");
    server.consumer("S", "c", "");
    server.must("STREAM.MSG.DELETE.S", r#"{"seq":1}"#);
    server.must("STREAM.PURGE.S", r#"{"seq":1}"#);
    let info = server.must("CONSUMER.INFO.S.c", "");
    assert_eq!(info["delivered"]["stream_seq"], 1);
    assert_eq!(info["ack_floor"]["stream_seq"], 1);
    assert_eq!(info["num_pending"], 1);
}

#[test]
fn acks_that_nobody_wants_are_told_apart() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.must(
        "CONSUMER.CREATE.S.none",
        r#"{"stream_name":"S","config":{"name":"none","ack_policy":"none"}}"#,
    );
    server.consumer("S", "C", "");
    for (consumer, is_taken) in [("C", true), ("none", false), ("gone", false)] {
        let subject = format!("$JS.ACK.S.{consumer}.1.1.1.9000000000000000000.0");
        assert_eq!(server.takes_ack(&subject), is_taken, "{consumer}");
    }
}

#[test]
fn consumers_go_on_behind_what_is_purged() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    for subject in ["s.a.1", "s.b.1", "s.a.2"] {
        server.store(subject);
    }
    server.consumer("S", "narrow", r#","filter_subject":"s.a.*""#);
    server.consumer("S", "other", r#","filter_subject":"s.b.*""#);
    server.consumer("S", "all", "");
    server.must("STREAM.PURGE.S", r#"{"filter":"s.a.>"}"#);
    let mut place = |name: &str| {
        let info = server.must(&format!("CONSUMER.INFO.S.{name}"), "");
        (
            info["ack_floor"]["stream_seq"].clone(),
            info["num_pending"].clone(),
        )
    };
    assert_eq!(place("narrow"), (3.into(), 0.into()));
    assert_eq!(place("other"), (0.into(), 1.into()));
    assert_eq!(place("all"), (1.into(), 1.into()));
}

#[test]
fn a_stream_without_consumers_loses_its_messages_when_interest_comes_to_count() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.store("s.a");
    let interest = r#"{"name":"S","subjects":["s.>"],"retention":"interest"}"#;
    server.must("STREAM.UPDATE.S", interest);
    assert_eq!(server.state("S")["messages"], 0);
}
