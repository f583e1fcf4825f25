//! Whatever clients send, in whatever order: the engine answers and does not panic.

use std::collections::BTreeSet;

use menes_jetstream::api::Call;
use menes_jetstream::engine::Publish;
use proptest::prelude::*;

use super::server::{SECOND, Sent, Server};

/// Something a client or the world does.
#[derive(Clone, Debug)]
enum Step {
    Request {
        what: String,
        body: String,
    },
    Publish {
        subject: String,
        header: String,
    },
    /// Acknowledges one of the deliveries so far.
    Ack {
        pick: usize,
        payload: String,
    },
    /// Acknowledges what may never have been delivered.
    ForeignAck(String),
    Pass(i64),
    Sync,
    Full(bool),
    Flush,
    Crash,
}

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(choices).prop_map(str::to_owned)
}

const STREAMS: &[&str] = &["S", "T", "M", "S", "T", "a b", ">", "", "x/y"];
const CONSUMERS: &[&str] = &["C", "D", "C", "D", "e.f", "*", ""];
const SUBJECTS: &[&str] = &["s.a", "s.b", "t.a", "t.b", "m.a", "s.a.b"];

fn stream_body() -> impl Strategy<Value = String> {
    let field = one_of(&[
        r#""retention":"interest""#,
        r#""retention":"workqueue""#,
        r#""storage":"memory""#,
        r#""max_msgs":3"#,
        r#""max_msgs":-7"#,
        r#""max_bytes":200"#,
        r#""max_age":1000000000,"duplicate_window":500000000"#,
        r#""max_msgs_per_subject":1"#,
        r#""discard":"new""#,
        r#""discard_new_per_subject":true"#,
        r#""allow_direct":true"#,
        r#""allow_rollup_hdrs":true"#,
        r#""sealed":true"#,
        r#""deny_purge":true"#,
        r#""no_ack":true"#,
        r#""max_consumers":1"#,
        r#""first_seq":1000"#,
        r#""first_seq":18446744073709551615"#,
        r#""num_replicas":3"#,
        r#""bogus":1"#,
        r#""allow_msg_ttl":true"#,
        r#""subjects":["a","a"]"#,
        r#""max_msg_size":1"#,
    ]);
    let fields = proptest::collection::vec(field, 0..4);
    (one_of(&["S", "T", "M"]), one_of(&["s", "t", "m"]), fields).prop_map(
        |(name, subject, fields)| {
            let mut all = vec![format!(r#""name":"{name}""#)];
            if !fields.iter().any(|field| field.contains("subjects")) {
                all.push(format!(r#""subjects":["{subject}.>"]"#));
            }
            all.extend(fields);
            format!("{{{}}}", all.join(","))
        },
    )
}

fn consumer_config() -> impl Strategy<Value = String> {
    let field = one_of(&[
        r#""ack_policy":"explicit""#,
        r#""ack_policy":"all""#,
        r#""ack_policy":"none""#,
        r#""deliver_policy":"new""#,
        r#""deliver_policy":"last_per_subject","filter_subject":"s.*""#,
        r#""deliver_policy":"by_start_sequence","opt_start_seq":2"#,
        r#""deliver_policy":"by_start_sequence","opt_start_seq":18446744073709551615"#,
        r#""deliver_subject":"push""#,
        r#""deliver_subject":"push","flow_control":true,"idle_heartbeat":500000000"#,
        r#""max_deliver":1"#,
        r#""max_deliver":2"#,
        r#""ack_wait":1000000000"#,
        r#""backoff":[1000000000,2000000000],"max_deliver":3"#,
        r#""max_ack_pending":1"#,
        r#""filter_subject":"s.a""#,
        r#""filter_subjects":["s.a","s.b"]"#,
        r#""headers_only":true"#,
        r#""inactive_threshold":1000000000"#,
        r#""mem_storage":true"#,
        r#""replay_policy":"original""#,
        r#""max_waiting":1"#,
        r#""rate_limit_bps":1000"#,
        r#""bogus":1"#,
    ]);
    (
        one_of(STREAMS),
        one_of(CONSUMERS),
        any::<bool>(),
        proptest::collection::vec(field, 0..4),
        one_of(&["", "create", "update"]),
    )
        .prop_map(|(stream, name, is_durable, mut fields, action)| {
            let key = if is_durable { "durable_name" } else { "name" };
            fields.push(format!(r#""{key}":"{name}""#));
            let config = fields.join(",");
            format!(r#"{{"stream_name":"{stream}","config":{{{config}}},"action":"{action}"}}"#)
        })
}

fn small_body() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        2 => one_of(&[
            "{}", "null", "junk", "[]", r#"{"seq":1}"#, r#"{"seq":2,"no_erase":true}"#,
            r#"{"seq":18446744073709551615}"#, r#"{"seq":-1}"#, r#"{"keep":1}"#,
            r#"{"filter":"s.a"}"#, r#"{"filter":"s.a","keep":1}"#, r#"{"seq":1,"keep":1}"#,
            r#"{"last_by_subj":"s.a"}"#, r#"{"next_by_subj":"s.*","seq":1}"#,
            r#"{"seq":1,"batch":10}"#, r#"{"multi_last":[">"]}"#, r#"{"offset":9}"#,
            r#"{"subject":"s.>"}"#, r#"{"subjects_filter":">","deleted_details":true}"#,
            r#"{"pause_until":"2035-01-01T00:00:00Z"}"#, r#"{"pause_until":"soon"}"#,
            r#"{"batch":3}"#, r#"{"batch":3,"no_wait":true}"#,
            r#"{"batch":2,"expires":1000000000,"idle_heartbeat":100000000}"#,
            r#"{"batch":9223372036854775807,"expires":9223372036854775807}"#,
            r#"{"batch":5,"max_bytes":1,"expires":500000000}"#,
            r#"{"start_time":"2020-01-01T00:00:00Z"}"#,
        ]),
        1 => "\\PC{0,20}",
    ]
}

fn request() -> impl Strategy<Value = Step> {
    let named = (
        one_of(&[
            "STREAM.INFO",
            "STREAM.DELETE",
            "STREAM.PURGE",
            "STREAM.PURGE",
            "STREAM.MSG.GET",
            "STREAM.MSG.DELETE",
            "STREAM.SNAPSHOT",
            "STREAM.RESTORE",
            "STREAM.LEADER.STEPDOWN",
            "CONSUMER.NAMES",
            "CONSUMER.LIST",
            "DIRECT.GET",
            "STREAM.CANCEL_MOVE",
        ]),
        one_of(STREAMS),
        small_body(),
    )
        .prop_map(|(what, stream, body)| (format!("{what}.{stream}"), body));
    let of_consumer = (
        one_of(&[
            "CONSUMER.INFO",
            "CONSUMER.DELETE",
            "CONSUMER.PAUSE",
            "CONSUMER.MSG.NEXT",
            "CONSUMER.MSG.NEXT",
            "CONSUMER.MSG.NEXT",
            "CONSUMER.RESET",
            "CONSUMER.UNPIN",
        ]),
        one_of(STREAMS),
        one_of(CONSUMERS),
        small_body(),
    )
        .prop_map(|(what, stream, name, body)| (format!("{what}.{stream}.{name}"), body));
    let making = (
        one_of(&["STREAM.CREATE", "STREAM.CREATE", "STREAM.UPDATE"]),
        stream_body(),
    )
        .prop_map(|(what, body)| {
            let name = body.split('"').nth(3).unwrap_or_default().to_owned();
            (format!("{what}.{name}"), body)
        });
    let making_consumers = (any::<bool>(), consumer_config()).prop_map(|(legacy, body)| {
        let text: serde_json::Value = serde_json::from_str(&body).expect("made here");
        let stream = text["stream_name"].as_str().unwrap_or_default();
        let config = &text["config"];
        let name = config["durable_name"]
            .as_str()
            .or_else(|| config["name"].as_str());
        let name = name.unwrap_or_default();
        let what = if legacy {
            format!("CONSUMER.DURABLE.CREATE.{stream}.{name}")
        } else {
            format!("CONSUMER.CREATE.{stream}.{name}")
        };
        (what, body)
    });
    let others = (
        one_of(&[
            "INFO",
            "STREAM.NAMES",
            "STREAM.LIST",
            "FOO",
            "DIRECT.GET.S.s.a",
            "",
            ".",
        ]),
        small_body(),
    );
    prop_oneof![2 => named, 2 => of_consumer, 3 => making, 3 => making_consumers, 1 => others]
        .prop_map(|(what, body)| Step::Request { what, body })
}

fn step() -> impl Strategy<Value = Step> {
    let header = one_of(&[
        "",
        "",
        "NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n",
        "NATS/1.0\r\nNats-Msg-Id: 2\r\n\r\n",
        "NATS/1.0\r\nNats-Expected-Last-Sequence: 1\r\n\r\n",
        "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n",
        "NATS/1.0\r\nNats-Rollup: all\r\n\r\n",
        "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n",
        "NATS/1.0\r\nNats-TTL: 1\r\n\r\n",
        "NATS/1.0 garbage",
        "garbage",
    ]);
    let payload = one_of(&[
        "",
        "+ACK",
        "-NAK",
        "+TERM why",
        "+WPI",
        "+NXT",
        "+NXT {\"batch\":2}",
        "-NAK 1s",
        "what",
    ]);
    prop_oneof![
        8 => request(),
        6 => (one_of(SUBJECTS), header).prop_map(|(subject, header)| Step::Publish { subject, header }),
        5 => (any::<usize>(), payload).prop_map(|(pick, payload)| Step::Ack { pick, payload }),
        1 => one_of(&[
            "$JS.ACK.S.C.1.1.1.1800000000000000001.0", "$JS.ACK.S.C.1.99.99.1900000000000000000.0",
            "$JS.ACK.S.C.1.18446744073709551615.18446744073709551615.9223372036854775807.0",
            "$JS.ACK", "$JS.FC.S.C.abcd", "$JS.ACK.S.C.0.1.0.1900000000000000000.0",
        ]).prop_map(Step::ForeignAck),
        3 => (0i64..3 * SECOND).prop_map(Step::Pass),
        4 => Just(Step::Sync),
        1 => any::<bool>().prop_map(Step::Full),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ]
}

/// Requests that may stay without an answer for ever: pulls that wait.
fn may_wait(what: &str) -> bool {
    what.starts_with("CONSUMER.MSG.NEXT.")
}

fn play(steps: Vec<Step>) {
    let mut server = Server::new();
    server.wire.deaf.insert("nowhere".to_owned());
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    let mut deliveries: Vec<Sent> = Vec::new();
    for step in steps {
        match step {
            Step::Request { what, body } => {
                let subject = format!("$JS.API.{what}");
                let is_unknown = matches!(Call::parse(subject.as_bytes()), Call::Unknown);
                let inbox = server.request(&subject, &body);
                // What is no request of the API is not answered, as by the reference server.
                if !may_wait(&what) && !is_unknown {
                    waiting.insert(inbox);
                }
            }
            Step::Publish { subject, header } => {
                let reply = server.inbox();
                if let Some(group) = server.group_of(&subject) {
                    let message = Publish {
                        reply: reply.as_bytes(),
                        subject: subject.as_bytes(),
                        header: header.as_bytes(),
                        payload: b"payload",
                    };
                    let engine = server.engine.as_mut().expect("it runs");
                    engine.publish(group, server.now, message, &mut server.wire);
                }
            }
            Step::Ack { pick, payload } => {
                if !deliveries.is_empty() {
                    let at = pick % deliveries.len();
                    let delivery = deliveries[at].clone();
                    server.ack(&delivery, &payload);
                }
            }
            Step::ForeignAck(subject) => {
                let delivery = Sent {
                    target: String::new(),
                    subject: String::new(),
                    reply: subject,
                    header: String::new(),
                    payload: Vec::new(),
                };
                server.ack(&delivery, "+ACK");
            }
            Step::Pass(nanos) => server.pass(nanos),
            Step::Sync => server.sync(),
            Step::Full(full) => server.log.set_full(full),
            Step::Flush => server.engine().flush_state().expect("memory does not fail"),
            Step::Crash => {
                server.crash();
                waiting.clear();
            }
        }
        assert!(
            server.engine().poisoned().is_none(),
            "{:?}",
            server.engine().poisoned()
        );
        for sent in std::mem::take(&mut server.wire.sent) {
            waiting.remove(&sent.target);
            if sent.reply.starts_with("$JS.ACK.") {
                deliveries.push(sent);
            }
        }
    }
    server.settle();
    for sent in std::mem::take(&mut server.wire.sent) {
        waiting.remove(&sent.target);
    }
    assert!(waiting.is_empty(), "never answered: {waiting:?}");
    // What is on disk can be read again.
    server.crash();
    server.restart();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_and_nothing_panics(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        play(steps);
    }
}
