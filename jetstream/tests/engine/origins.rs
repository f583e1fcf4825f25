//! Mirrors and sources.

use proptest::prelude::*;

use super::server::{SECOND, Server};

fn mirror(server: &mut Server, name: &str, of: &str, more: &str) {
    let body = format!(r#"{{"name":"{name}","mirror":{{"name":"{of}"{more}}}}}"#);
    server.must(&format!("STREAM.CREATE.{name}"), &body);
    server.settle();
}

fn sourced(server: &mut Server, name: &str, sources: &str) {
    let body = format!(r#"{{"name":"{name}","sources":[{sources}]}}"#);
    server.must(&format!("STREAM.CREATE.{name}"), &body);
    server.settle();
}

/// Sequence, subject, payload and time of every message.
fn content(server: &mut Server, stream: &str) -> Vec<(u64, String, String, String)> {
    let state = server.state(stream);
    let first = state["first_seq"].as_u64().expect("a number").max(1);
    let last = state["last_seq"].as_u64().expect("a number");
    let mut found = Vec::new();
    for seq in first..=last {
        let body = format!(r#"{{"seq":{seq}}}"#);
        let answer = server.call(&format!("STREAM.MSG.GET.{stream}"), &body);
        let message = &answer["message"];
        if message.is_null() {
            continue;
        }
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        found.push((seq, text("subject"), text("data"), text("time")));
    }
    found
}

fn header(server: &mut Server, stream: &str, seq: u64) -> String {
    let body = format!(r#"{{"seq":{seq}}}"#);
    let answer = server.must(&format!("STREAM.MSG.GET.{stream}"), &body);
    let header = answer["message"]["hdrs"].as_str().unwrap_or_default();
    let header = data_encoding::BASE64.decode(header.as_bytes());
    String::from_utf8(header.expect("base64")).expect("text")
}

#[test]
fn a_mirror_holds_the_same_messages_under_the_same_sequences() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        server.stream("O", &["o.>"], &format!(r#","storage":"{storage}""#));
        server.store("o.a");
        server.store("o.b");
        server.store("o.a");
        mirror(&mut server, "M", "O", "");
        server.store("o.c");
        server.settle();
        assert_eq!(content(&mut server, "M"), content(&mut server, "O"));
        let info = server.must("STREAM.INFO.M", "");
        assert_eq!(info["mirror"]["name"], "O");
        assert_eq!(info["mirror"]["lag"], 0);
        assert!(info["mirror"]["active"].as_i64().expect("a number") >= 0);
    }
}

#[test]
fn a_mirror_keeps_the_gaps_of_its_origin() {
    let mut server = Server::new();
    server.stream("O", &["o.>"], "");
    for _ in 0..10 {
        server.store("o.a");
    }
    for seq in [1, 2, 5, 6, 7, 9] {
        server.must("STREAM.MSG.DELETE.O", &format!(r#"{{"seq":{seq}}}"#));
    }
    mirror(&mut server, "M", "O", "");
    assert_eq!(content(&mut server, "M"), content(&mut server, "O"));
    let state = server.state("M");
    assert_eq!(state["first_seq"], 3);
    assert_eq!(state["num_deleted"], 4);
    server.restart();
    assert_eq!(content(&mut server, "M"), content(&mut server, "O"));
    // A gap that is larger than a block may have.
    server.must("STREAM.PURGE.O", r#"{"seq":1000000}"#);
    server.store("o.last");
    server.pass(SECOND);
    let state = server.state("M");
    assert_eq!(
        (&state["messages"], &state["last_seq"]),
        (&5.into(), &1_000_000.into())
    );
}

#[test]
fn an_origin_that_comes_later_is_found() {
    let mut server = Server::new();
    mirror(&mut server, "M", "O", "");
    let info = server.must("STREAM.INFO.M", "");
    assert_eq!(info["mirror"]["error"]["err_code"], 10059);
    assert_eq!(info["mirror"]["active"], -1);
    server.pass(20 * SECOND);
    server.stream("O", &["o.>"], "");
    server.store("o.a");
    server.pass(SECOND);
    assert_eq!(content(&mut server, "M").len(), 1);
    assert!(server.must("STREAM.INFO.M", "")["mirror"]["error"].is_null());
}

#[test]
fn sources_are_merged_and_say_where_messages_come_from() {
    let mut server = Server::new();
    server.stream("A", &["a.>"], "");
    server.stream("B", &["b.>"], "");
    server.store("a.1");
    server.store("a.skip");
    server.publish_with(
        "b.1",
        "NATS/1.0\r\nOwn: x\r\nNats-Expected-Stream: B\r\n\r\n",
        b"x",
    );
    server.settle();
    sourced(
        &mut server,
        "S",
        r#"{"name":"A","filter_subject":"a.1"},{"name":"B","subject_transforms":[{"src":"b.*","dest":"c.{{wildcard(1)}}"}]}"#,
    );
    server.store("a.1");
    server.settle();
    let subjects: Vec<_> = content(&mut server, "S").into_iter().map(|m| m.1).collect();
    assert_eq!(subjects, ["a.1", "c.1", "a.1"]);
    assert_eq!(
        header(&mut server, "S", 1),
        "NATS/1.0\r\nNats-Stream-Source: A 1 a.1 > a.1\r\n\r\n"
    );
    assert_eq!(
        header(&mut server, "S", 2),
        "NATS/1.0\r\nOwn: x\r\nNats-Stream-Source: B 1 b.* c.{{wildcard(1)}} b.1\r\n\r\n"
    );
    let infos = server.must("STREAM.INFO.S", "")["sources"].clone();
    assert_eq!(infos[0]["filter_subject"], "a.1");
    assert_eq!(infos[1]["subject_transforms"][0]["src"], "b.*");
}

#[test]
fn a_link_begins_where_it_is_told() {
    let mut server = Server::new();
    server.stream("O", &["o.>"], "");
    for _ in 0..3 {
        server.store("o.a");
    }
    server.pass(10 * SECOND);
    let time = server.now;
    for _ in 0..3 {
        server.store("o.a");
    }
    mirror(&mut server, "BYSEQ", "O", r#","opt_start_seq":5"#);
    mirror(
        &mut server,
        "BYTIME",
        "O",
        &format!(r#","opt_start_time":"{time}""#),
    );
    let seqs = |server: &mut Server, name| -> Vec<u64> {
        content(server, name).iter().map(|m| m.0).collect()
    };
    assert_eq!(seqs(&mut server, "BYSEQ"), [5, 6]);
    assert_eq!(seqs(&mut server, "BYTIME"), [4, 5, 6]);
}

#[test]
fn a_work_queue_is_emptied_once_the_copies_are_durable() {
    let mut server = Server::new();
    server.stream("Q", &["q.>"], r#","retention":"workqueue""#);
    server.store("q.a");
    server.store("q.b");
    let body = r#"{"name":"S","sources":[{"name":"Q"}]}"#;
    server.request("$JS.API.STREAM.CREATE.S", body);
    server.settle();
    server.store("q.c");
    server.settle();
    assert_eq!(content(&mut server, "S").len(), 3);
    assert_eq!(server.state("Q")["messages"], 0);
    server.restart();
    server.store("q.d");
    server.pass(30 * SECOND);
    assert_eq!(content(&mut server, "S").len(), 4);
    assert_eq!(server.state("Q")["messages"], 0);
}

/// A consumer that settles what the answers to flow control name, delivering to `subject`.
fn feed(server: &mut Server, stream: &str, subject: &str) {
    let body = format!(
        r#"{{"stream_name":"{stream}","config":{{"durable_name":"FEED","ack_policy":"flow_control","deliver_subject":"{subject}"}}}}"#
    );
    server.must(&format!("CONSUMER.CREATE.{stream}.FEED"), &body);
}

#[test]
fn a_consumer_made_for_it_feeds_a_copy() {
    let mut server = Server::new();
    server.stream("Q", &["q.>"], r#","retention":"workqueue""#);
    server.store("q.a");
    feed(&mut server, "Q", "$JS.S.feed");
    let source = r#"{"name":"Q","consumer":{"name":"FEED","deliver_subject":"$JS.S.feed"}}"#;
    sourced(&mut server, "S", source);
    server.store("q.b");
    server.settle();
    assert_eq!(content(&mut server, "S").len(), 2);
    let first = header(&mut server, "S", 1);
    assert!(first.contains("Nats-Stream-Source: Q:C="), "{first}");
    // What is here is settled with the next heartbeat.
    server.pass(2 * SECOND);
    assert_eq!(server.state("Q")["messages"], 0);
    let info = server.must("CONSUMER.INFO.Q.FEED", "");
    assert_eq!(info["ack_floor"]["stream_seq"], 2, "{info}");
    assert_eq!(info["num_ack_pending"], 0);
    for restart in [true, false] {
        server.store("q.c");
        if restart {
            server.restart();
        } else {
            server.crash();
        }
        server.pass(30 * SECOND);
        assert_eq!(server.state("Q")["messages"], 0);
    }
    assert_eq!(content(&mut server, "S").len(), 4);
    // It is not this stream's to remove.
    server.must("STREAM.DELETE.S", "");
    server.must("CONSUMER.INFO.Q.FEED", "");
}

#[test]
fn a_consumer_that_wants_other_acks_feeds_nothing() {
    let mut server = Server::new();
    server.stream("O", &["o.>"], "");
    server.store("o.a");
    let body = r#"{"stream_name":"O","config":{"durable_name":"FEED","ack_policy":"none","deliver_subject":"$JS.M.feed"}}"#;
    server.must("CONSUMER.CREATE.O.FEED", body);
    let more = r#","consumer":{"name":"FEED","deliver_subject":"$JS.M.feed"}"#;
    mirror(&mut server, "M", "O", more);
    server.pass(SECOND);
    let info = server.must("STREAM.INFO.M", "");
    assert_eq!(info["mirror"]["error"]["err_code"], 10214, "{info}");
    server.must("CONSUMER.DELETE.O.FEED", "");
    feed(&mut server, "O", "$JS.M.feed");
    server.pass(20 * SECOND);
    assert_eq!(content(&mut server, "M"), content(&mut server, "O"));
}

#[test]
fn a_full_stream_takes_the_rest_when_there_is_room() {
    let mut server = Server::new();
    server.stream("O", &["o.>"], "");
    for _ in 0..4 {
        server.store("o.a");
    }
    let body = r#"{"name":"S","sources":[{"name":"O"}],"discard":"new","max_msgs":2}"#;
    server.must("STREAM.CREATE.S", body);
    server.pass(SECOND);
    assert_eq!(server.state("S")["messages"], 2);
    let info = server.must("STREAM.INFO.S", "");
    assert_eq!(info["sources"][0]["error"]["err_code"], 10077);
    server.must("STREAM.PURGE.S", "");
    server.pass(30 * SECOND);
    assert_eq!(server.state("S")["messages"], 2);
    assert_eq!(server.state("S")["last_seq"], 4);
    let last = header(&mut server, "S", 4);
    assert!(last.contains("Nats-Stream-Source: O 4 > > o.a"), "{last}");
}

#[test]
fn a_mirror_becomes_a_stream_of_its_own() {
    let mut server = Server::new();
    server.stream("O", &["o.>"], "");
    server.store("o.a");
    mirror(&mut server, "M", "O", "");
    server.must("STREAM.DELETE.O", "");
    let body = r#"{"name":"M","subjects":["o.>"]}"#;
    server.must("STREAM.UPDATE.M", body);
    assert_eq!(server.store("o.a"), r#"{"stream":"M","seq":2}"#);
    assert!(server.must("STREAM.INFO.M", "")["mirror"].is_null());
    assert!(server.wire.listeners.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Delete(u8),
    Turn,
    Sync,
    Crash,
    Restart,
    Cut(bool),
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Publish),
        2 => any::<u8>().prop_map(Step::Delete),
        3 => Just(Step::Turn),
        3 => Just(Step::Sync),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Cut),
        2 => (0u8..15).prop_map(Step::Pass),
    ]
}

fn run(steps: &[Step]) -> Server {
    let mut server = Server::new();
    server.stream("A", &["a.>"], "");
    server.stream("B", &["b.>"], "");
    server.stream("Q", &["q.>"], r#","retention":"workqueue""#);
    server.stream("F", &["f.>"], r#","retention":"workqueue""#);
    feed(&mut server, "F", "$JS.S.feed");
    mirror(&mut server, "M", "A", "");
    sourced(
        &mut server,
        "S",
        r#"{"name":"A"},{"name":"B"},{"name":"Q"},{"name":"F","consumer":{"name":"FEED","deliver_subject":"$JS.S.feed"}}"#,
    );
    server.settle();
    for step in steps {
        match step {
            Step::Publish(n) => {
                let subject = format!("{}.{}", ["a", "b", "q", "f"][usize::from(n % 4)], n % 5);
                server.publish_with(&subject, "", &[*n]);
            }
            Step::Delete(n) => {
                server.request("$JS.API.STREAM.MSG.DELETE.A", &format!(r#"{{"seq":{n}}}"#));
            }
            Step::Turn => server.turn(),
            Step::Sync => server.sync(),
            Step::Crash => server.crash(),
            Step::Restart => server.restart(),
            Step::Cut(is_cut) => server.wire.is_cut = *is_cut,
            Step::Pass(seconds) => server.pass(i64::from(*seconds) * SECOND),
        }
        server.engine().check();
    }
    server.wire.is_cut = false;
    // A consumer that was lost sight of keeps a work queue from others until it is given up.
    server.pass(180 * SECOND);
    server
}

/// The source and sequence in it of every message, in order.
fn taken(server: &mut Server, stream: &str) -> Vec<(String, u64)> {
    let seqs: Vec<u64> = content(server, stream).iter().map(|m| m.0).collect();
    seqs.into_iter()
        .map(|seq| {
            let header = header(server, stream, seq);
            let value = header.split("Nats-Stream-Source: ").nth(1).expect("a copy");
            let mut words = value.split(' ');
            let name = words.next().expect("a name").to_owned();
            (
                name,
                words.next().expect("a number").parse().expect("a number"),
            )
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens on the way: in the end a mirror has all that its origin has, at the same
    /// place, and a stream has every message of its sources once and in their order.
    #[test]
    fn nothing_is_lost_and_nothing_is_twice(steps in proptest::collection::vec(step(), 0..60)) {
        let mut server = run(&steps);
        let origin = content(&mut server, "A");
        let copied = content(&mut server, "M");
        for message in &origin {
            prop_assert!(copied.contains(message), "{message:?} is missing in the mirror");
        }
        prop_assert!(copied.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let taken = taken(&mut server, "S");
        for name in ["A", "B", "Q", "F"] {
            let seqs: Vec<u64> = taken
                .iter()
                .filter(|(source, _)| source.split(':').next() == Some(name))
                .map(|(_, seq)| *seq)
                .collect();
            prop_assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{name}: {seqs:?}");
            if name == "Q" || name == "F" {
                let last = server.state(name)["last_seq"].as_u64().expect("a number");
                let all: Vec<u64> = (1..=last).collect();
                let held = server.state(name).to_string();
                prop_assert_eq!(&seqs, &all, "the work queue {} holds {}", name, held);
                prop_assert_eq!(&server.state(name)["messages"], 0);
            } else {
                for message in content(&mut server, name) {
                    prop_assert!(seqs.contains(&message.0), "{name} {} is missing", message.0);
                }
            }
        }
    }
}
