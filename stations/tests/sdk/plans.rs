//! What is done in which order, and how it is undone.

use std::time::Duration;

use menes_jetstream::Timestamp;
use menes_jetstream::consumer::config::DeliverPolicy;
use menes_stations::name::StationName;
use menes_stations::sdk;
use menes_stations::{Command, Step};

use crate::bench::{Bench, Client, SECOND, account};

fn station(name: &str, partitions: u32) -> String {
    format!(r#"{{"name":"{name}","partitions_number":{partitions}}}"#)
}

fn consumer(connection: &str, name: &str, group: &str, more: &str) -> String {
    format!(
        r#"{{"name":"{name}","station_name":"st","connection_id":"{connection}",
        "consumer_type":"application","consumers_group":"{group}","max_ack_time_ms":1000,
        "max_msg_deliveries":2,"start_consume_from_sequence":1,"last_messages":-1,
        "req_version":4,"app_id":"a","sdk_lang":"go"{more}}}"#
    )
}

fn destroy(connection: &str, name: &str) -> String {
    format!(
        r#"{{"name":"{name}","station_name":"st","connection_id":"{connection}","req_version":1}}"#
    )
}

fn join(bench: &mut Bench, connection: &str, name: &str, group: &str, more: &str) -> String {
    let body = consumer(connection, name, group, more);
    bench.ask(&Client::sdk(connection), sdk::CONSUMER_CREATIONS, &body)
}

fn leave(bench: &mut Bench, connection: &str, name: &str) -> String {
    bench.ask(
        &Client::sdk(connection),
        sdk::CONSUMER_DESTRUCTIONS,
        &destroy(connection, name),
    )
}

fn is_joined(reply: &str) -> bool {
    reply.ends_with(r#""error":""}"#)
}

fn bench(partitions: u32) -> Bench {
    let mut bench = Bench::default();
    bench.connect("c1");
    bench.connect("c2");
    let body = station("st", partitions);
    assert_eq!(
        bench.ask(&Client::sdk("c1"), sdk::STATION_CREATIONS, &body),
        ""
    );
    bench
}

/// The steps that were tried, in short.
fn tried(bench: &Bench) -> Vec<String> {
    let short = |step: &Step| {
        Some(match step {
            Step::CreateStream(config) => format!("+{}", config.name),
            Step::DeleteStream { name, .. } => format!("-{name}"),
            Step::CreateConsumer { stream, .. } => format!("+{stream}/"),
            Step::UpdateConsumer { stream, .. } => format!("~{stream}/"),
            Step::DeleteConsumer { stream, .. } => format!("-{stream}/"),
            Step::QueryStream(name) => format!("?{name}"),
            Step::Record(command) => match &**command {
                Command::StationPlanned { .. } => "planned".to_owned(),
                Command::StationCreated { .. } => "created".to_owned(),
                Command::StationRemoving { .. } => "removing".to_owned(),
                Command::StationRemoved { .. } => "removed".to_owned(),
                Command::GroupPlanned { .. } => "group planned".to_owned(),
                Command::GroupRemoved { .. } => "group removed".to_owned(),
                Command::MemberJoined { .. } => "joined".to_owned(),
                Command::MemberLeft { .. } => "left".to_owned(),
                Command::ProducerRegistered { .. } => "registered".to_owned(),
                Command::ProducerRemoved { .. } => "unregistered".to_owned(),
                Command::RegistrationsExpired { .. } => "expired".to_owned(),
                other => panic!("no test asks for {other:?}"),
            },
            _ => return None,
        })
    };
    bench.steps.iter().filter_map(short).collect()
}

#[test]
fn a_station_is_announced_after_its_streams_and_forgotten_after_them() {
    let mut bench = bench(2);
    assert_eq!(tried(&bench), ["planned", "+st$1", "+st$2", "created"]);
    let body = r#"{"station_name":"st"}"#;
    bench.ask(&Client::sdk("c1"), sdk::STATION_DESTRUCTIONS, body);
    assert_eq!(tried(&bench), ["removing", "-st$1", "-st$2", "removed"]);
}

#[test]
fn partitions_already_made_are_removed_when_one_fails() {
    let mut bench = Bench {
        fail_in: Some(3),
        ..Bench::default()
    };
    let reply = bench.ask(
        &Client::sdk("c1"),
        sdk::STATION_CREATIONS,
        &station("st", 3),
    );
    assert_eq!(reply, "injected (10077)");
    assert_eq!(
        tried(&bench),
        [
            "planned", "+st$1", "+st$2", "+st$3", "-st$2", "-st$1", "removed"
        ]
    );
    assert!(bench.streams().is_empty() && bench.engine.rows.is_empty());
}

#[test]
fn a_stream_in_the_way_is_neither_taken_over_nor_removed() {
    let mut bench = bench(1);
    let mut foreign = bench.engine.streams["st$1"].clone();
    foreign.name = "new$2".to_owned();
    bench.engine.streams.insert("new$2".to_owned(), foreign);
    let reply = bench.ask(
        &Client::sdk("c1"),
        sdk::STATION_CREATIONS,
        &station("new", 3),
    );
    assert_eq!(
        reply,
        "stream name already in use with a different configuration (10058)"
    );
    assert_eq!(bench.streams(), ["new$2", "st$1"]);
}

#[test]
fn a_stream_that_holds_messages_outlives_a_failed_creation() {
    let mut bench = Bench::default();
    let client = Client::sdk("c1");
    bench.ask(&client, sdk::STATION_CREATIONS, &station("st", 2));
    bench.ask(
        &client,
        sdk::STATION_DESTRUCTIONS,
        r#"{"station_name":"st"}"#,
    );
    // Somebody made the first partition by hand and wrote to it.
    let Step::CreateStream(config) = ({
        bench.ask(&client, sdk::STATION_CREATIONS, &station("st", 2));
        bench.steps[1].clone()
    }) else {
        panic!("the second step makes the first stream");
    };
    bench.ask(
        &client,
        sdk::STATION_DESTRUCTIONS,
        r#"{"station_name":"st"}"#,
    );
    bench.engine.streams.insert(config.name.clone(), *config);
    bench.engine.last_seq.insert("st$1".to_owned(), 5);
    bench.fail_in = Some(2);
    bench.ask(&client, sdk::STATION_CREATIONS, &station("st", 2));
    assert_eq!(bench.streams(), ["st$1"]);
    assert!(bench.engine.rows.is_empty());
}

#[test]
fn of_two_creations_at_once_the_second_finds_the_station_of_the_first() {
    let mut bench = Bench::default();
    let first = bench.begin(
        &Client::sdk("c1"),
        sdk::STATION_CREATIONS,
        &station("st", 3),
    );
    let second = bench.begin(
        &Client::sdk("c2"),
        sdk::STATION_CREATIONS,
        &station("st", 5),
    );
    let other = bench.begin(
        &Client::sdk("c2"),
        sdk::STATION_CREATIONS,
        &station("other", 1),
    );
    assert_eq!(
        bench.running.len(),
        2,
        "different stations do not wait for each other"
    );
    bench.settle();
    for id in [first, second, other] {
        assert_eq!(bench.replies[&id], b"");
    }
    assert_eq!(bench.streams(), ["other$1", "st$1", "st$2", "st$3"]);
}

#[test]
fn the_second_of_two_creations_makes_the_station_when_the_first_fails() {
    let mut bench = Bench {
        fail_in: Some(2),
        ..Bench::default()
    };
    let first = bench.begin(
        &Client::sdk("c1"),
        sdk::STATION_CREATIONS,
        &station("st", 3),
    );
    let second = bench.begin(
        &Client::sdk("c2"),
        sdk::STATION_CREATIONS,
        &station("st", 2),
    );
    bench.settle();
    assert_eq!(bench.replies[&first], b"injected (10077)");
    assert_eq!(bench.replies[&second], b"");
    assert_eq!(bench.streams(), ["st$1", "st$2"]);
    bench.check_rows();
}

#[test]
fn a_retry_of_a_slow_request_is_not_a_second_registration() {
    let mut bench = bench(1);
    let body = consumer("c1", "c", "g", "");
    let client = Client::sdk("c1");
    let first = bench.begin(&client, sdk::CONSUMER_CREATIONS, &body);
    bench.now = bench.now.plus(Duration::from_secs(5));
    let retry = bench.begin(&client, sdk::CONSUMER_CREATIONS, &body);
    bench.settle();
    assert_eq!(bench.replies[&first], bench.replies[&retry]);
    assert_eq!(leave(&mut bench, "c1", "c"), "");
    assert!(bench.durables().is_empty());
    // Two at the same moment are two.
    bench.begin(&client, sdk::CONSUMER_CREATIONS, &body);
    bench.begin(&client, sdk::CONSUMER_CREATIONS, &body);
    bench.settle();
    assert_eq!(leave(&mut bench, "c1", "c"), "");
    assert_eq!(bench.durables().len(), 1);
    assert_eq!(leave(&mut bench, "c1", "c"), "");
    assert!(bench.durables().is_empty());
}

#[test]
fn registrations_on_one_station_run_side_by_side() {
    let mut bench = bench(1);
    let body = |name: &str| {
        format!(
            r#"{{"name":"{name}","station_name":"st","connection_id":"c1",
            "producer_type":"application","req_version":4}}"#
        )
    };
    bench.begin(&Client::sdk("c1"), sdk::PRODUCER_CREATIONS, &body("p1"));
    bench.begin(&Client::sdk("c1"), sdk::PRODUCER_CREATIONS, &body("p2"));
    bench.begin(
        &Client::sdk("c1"),
        sdk::CONSUMER_CREATIONS,
        &consumer("c1", "c", "g", ""),
    );
    assert_eq!(bench.running.len(), 3);
    let gone = bench.begin(
        &Client::sdk("c1"),
        sdk::STATION_DESTRUCTIONS,
        r#"{"station_name":"st"}"#,
    );
    let late = bench.begin(&Client::sdk("c1"), sdk::PRODUCER_CREATIONS, &body("p3"));
    assert_eq!(
        bench.running.len(),
        3,
        "removal waits for them, and the next one for it"
    );
    bench.settle();
    assert_eq!(bench.replies[&gone], b"");
    assert!(bench.replies[&late].ends_with(br#""error":""}"#));
    assert_eq!(bench.streams(), ["st$1"]);
    let name = StationName::parse("st").expect("a good name");
    let entry = bench
        .state()
        .station(&account(), &name)
        .expect("made again");
    assert_eq!((entry.producers().count(), entry.groups().count()), (1, 0));
    bench.check_rows();
}

#[test]
fn a_live_group_keeps_its_durables_unless_its_limits_change() {
    let mut bench = bench(2);
    assert!(is_joined(&join(&mut bench, "c1", "c", "g", "")));
    assert_eq!(
        tried(&bench),
        ["group planned", "+st$1/", "+st$2/", "joined"]
    );
    // The start position of a second member does not matter.
    let start = r#","start_consume_from_sequence":7"#;
    assert!(is_joined(&join(&mut bench, "c2", "c", "g", start)));
    assert_eq!(tried(&bench), ["joined"]);
    let limits = r#","max_msg_deliveries":5,"last_messages":0"#;
    assert!(is_joined(&join(&mut bench, "c2", "d", "g", limits)));
    assert_eq!(tried(&bench), ["~st$1/", "~st$2/", "joined"]);
    let config = &bench.engine.durables[&("st$2".to_owned(), "g".to_owned())];
    assert_eq!(
        (config.max_deliver, config.deliver_policy),
        (5, DeliverPolicy::All)
    );
    bench.check_rows();
}

#[test]
fn limits_are_put_back_when_they_cannot_change_everywhere() {
    let mut bench = bench(3);
    join(&mut bench, "c1", "c", "g", "");
    let before = bench.engine.clone();
    bench.fail_in = Some(2);
    let limits = r#","max_msg_deliveries":5"#;
    assert_eq!(join(&mut bench, "c2", "d", "g", limits), "injected (10077)");
    assert_eq!(
        tried(&bench),
        ["~st$1/", "~st$2/", "~st$3/", "~st$2/", "~st$1/"]
    );
    assert_eq!(bench.engine, before);
    bench.disconnect("c1");
    bench.fail_in = Some(2);
    assert_eq!(join(&mut bench, "c2", "d", "g", limits), "injected (10077)");
    assert_eq!(bench.engine, before);
}

#[test]
fn durables_already_made_are_removed_when_one_fails() {
    let mut bench = bench(3);
    let before = bench.engine.clone();
    bench.fail_in = Some(3);
    assert_eq!(join(&mut bench, "c1", "c", "g", ""), "injected (10077)");
    assert_eq!(bench.engine, before);
    assert!(is_joined(&join(
        &mut bench,
        "c1",
        "c",
        "g",
        r#","last_messages":0"#
    )));
}

#[test]
fn a_group_that_comes_back_keeps_its_position_and_may_change_its_limits() {
    let mut bench = bench(2);
    join(&mut bench, "c1", "c", "g", "");
    bench.disconnect("c1");
    assert_eq!(bench.durables().len(), 2);
    let limits = r#","max_ack_time_ms":2000"#;
    assert!(is_joined(&join(&mut bench, "c2", "c", "g", limits)));
    assert_eq!(tried(&bench), ["+st$1/", "+st$2/", "joined"]);
    bench.disconnect("c2");
    let start = r#","start_consume_from_sequence":7"#;
    let before = bench.engine.clone();
    let text = "deliver policy can not be updated (10012)";
    assert_eq!(join(&mut bench, "c2", "c", "g", start), text);
    assert_eq!(bench.engine, before);
}

#[test]
fn last_messages_are_counted_on_each_partition_and_once() {
    let mut bench = bench(2);
    bench.engine.last_seq.insert("st$1".to_owned(), 10);
    let last = r#","last_messages":3"#;
    assert!(is_joined(&join(&mut bench, "c1", "c", "g", last)));
    assert_eq!(
        tried(&bench),
        [
            "?st$1",
            "?st$2",
            "group planned",
            "+st$1/",
            "+st$2/",
            "joined"
        ]
    );
    let start = |bench: &Bench, stream: &str| {
        bench.engine.durables[&(stream.to_owned(), "g".to_owned())].opt_start_seq
    };
    assert_eq!((start(&bench, "st$1"), start(&bench, "st$2")), (8, 1));
    // The same program started again asks for the same, though there are more messages now.
    bench.disconnect("c1");
    bench.engine.last_seq.insert("st$1".to_owned(), 20);
    assert!(is_joined(&join(&mut bench, "c2", "c", "g", last)));
    assert_eq!(start(&bench, "st$1"), 8);
    bench.disconnect("c2");
    let more = r#","last_messages":4"#;
    assert_eq!(
        join(&mut bench, "c2", "c", "g", more),
        "start sequence can not be updated (10012)"
    );
}

#[test]
fn only_new_messages_are_asked_for_by_policy() {
    let mut bench = bench(1);
    assert!(is_joined(&join(
        &mut bench,
        "c1",
        "c",
        "g",
        r#","last_messages":0"#
    )));
    let config = &bench.engine.durables[&("st$1".to_owned(), "g".to_owned())];
    assert_eq!(config.deliver_policy, DeliverPolicy::New);
}

#[test]
fn the_durables_go_with_the_last_active_member() {
    let mut bench = bench(1);
    join(&mut bench, "c1", "c", "g", "");
    join(&mut bench, "c1", "c", "g", "");
    join(&mut bench, "c2", "c", "g", "");
    assert_eq!(leave(&mut bench, "c1", "c"), "");
    assert_eq!(tried(&bench), ["left"]);
    assert_eq!(leave(&mut bench, "c1", "c"), "");
    assert_eq!(bench.durables(), ["st$1/g"]);
    // The other one is disconnected: it does not count, and goes with the group.
    join(&mut bench, "c1", "d", "g", "");
    bench.disconnect("c2");
    assert_eq!(leave(&mut bench, "c1", "d"), "");
    assert_eq!(tried(&bench), ["left", "-st$1/", "group removed"]);
    assert!(bench.durables().is_empty());
    bench.connect("c2");
    assert_eq!(
        leave(&mut bench, "c2", "c"),
        "Consumer c at station st does not exist"
    );
    assert_eq!(bench.engine.rows.len(), 1);
}

#[test]
fn a_probe_connection_does_not_end_the_group() {
    let mut bench = bench(1);
    join(&mut bench, "c1", "c", "g", "");
    bench.connect("c1");
    bench.disconnect("c1");
    join(&mut bench, "c2", "d", "g", "");
    assert_eq!(leave(&mut bench, "c2", "d"), "");
    assert_eq!(bench.durables(), ["st$1/g"]);
}

#[test]
fn a_connection_id_without_a_connection_lives_with_its_sender() {
    let mut bench = bench(1);
    bench.connect("plain");
    let sender = Client {
        native: false,
        ..Client::sdk("plain")
    };
    let body = consumer("made-up", "c", "g", "");
    assert!(is_joined(&bench.ask(
        &sender,
        sdk::CONSUMER_CREATIONS,
        &body
    )));
    assert!(bench.stations.is_active(&account(), "made-up"));
    join(&mut bench, "c1", "d", "g", "");
    assert_eq!(tried(&bench), ["joined"]);
    bench.disconnect("plain");
    assert!(!bench.stations.is_active(&account(), "made-up"));
}

#[test]
fn what_cannot_be_undone_now_is_finished_later() {
    let mut bench = Bench::default();
    bench.begin(
        &Client::sdk("c1"),
        sdk::STATION_CREATIONS,
        &station("st", 2),
    );
    for _ in 0..2 {
        bench.step(0);
    }
    bench.fail_in = Some(0);
    bench.step(0);
    bench.fail_in = Some(0);
    bench.settle();
    assert_eq!(bench.streams(), ["st$1"]);
    // The client was told of a failure. The next one to name the station completes it.
    let reply = bench.ask(
        &Client::sdk("c1"),
        sdk::STATION_CREATIONS,
        &station("st", 2),
    );
    assert_eq!(reply, "");
    assert_eq!(bench.streams(), ["st$1", "st$2"]);
}

#[test]
fn a_completion_that_fails_removes_what_earlier_attempts_made() {
    let mut bench = Bench::default();
    bench.begin(
        &Client::sdk("c1"),
        sdk::STATION_CREATIONS,
        &station("st", 3),
    );
    for _ in 0..3 {
        bench.step(0);
    }
    bench.crash();
    assert_eq!(bench.streams(), ["st$1", "st$2"]);
    bench.fail_in = Some(0);
    bench.recover();
    assert!(bench.streams().is_empty() && bench.engine.rows.is_empty());
}

#[test]
fn a_removal_that_fails_is_finished_by_whoever_comes_next() {
    let mut bench = bench(2);
    bench.fail_in = Some(2);
    let body = r#"{"station_name":"st"}"#;
    let client = Client::sdk("c1");
    assert_eq!(
        bench.ask(&client, sdk::STATION_DESTRUCTIONS, body),
        "injected (10077)"
    );
    assert_eq!(bench.streams(), ["st$2"]);
    bench.crash();
    let reply = bench.ask(&client, sdk::STATION_CREATIONS, &station("st", 1));
    assert_eq!(reply, "");
    assert_eq!(
        tried(&bench),
        [
            "removing", "-st$1", "-st$2", "removed", "planned", "+st$1", "created"
        ]
    );
    bench.check_rows();
}

#[test]
fn registrations_survive_a_restart_and_are_active_when_their_connection_is() {
    let mut bench = bench(1);
    join(&mut bench, "c1", "c", "g", "");
    let before = bench.state().clone();
    bench.crash();
    bench.recover();
    assert_eq!(bench.state(), &before);
    assert!(!bench.stations.is_active(&account(), "c1"));
    bench.connect("c1");
    bench.connect("c2");
    join(&mut bench, "c2", "d", "g", "");
    assert_eq!(tried(&bench), ["joined"]);
}

#[test]
fn registrations_of_connections_that_stay_away_expire_but_the_group_stays() {
    let mut bench = bench(1);
    join(&mut bench, "c1", "c", "g", "");
    join(&mut bench, "c2", "d", "g", "");
    let body = r#"{"name":"p","station_name":"st","connection_id":"c1",
        "producer_type":"application","req_version":4}"#;
    bench.ask(&Client::sdk("c1"), sdk::PRODUCER_CREATIONS, body);
    bench.disconnect("c1");
    let age = Duration::from_secs(7_200);
    let expire = |bench: &mut Bench, at: i64| {
        bench.now = Timestamp(1_700_000_000 * SECOND + at * SECOND);
        bench.steps.clear();
        bench.stations.expire_registrations(age, bench.now);
        bench.drain();
        bench.settle();
    };
    expire(&mut bench, 7_199);
    assert!(bench.steps.is_empty());
    expire(&mut bench, 7_200);
    assert_eq!(tried(&bench), ["expired"]);
    let name = StationName::parse("st").expect("a good name");
    let entry = bench.state().station(&account(), &name).expect("there");
    assert_eq!((entry.producers().count(), entry.groups().count()), (0, 1));
    let members: Vec<_> = entry
        .groups()
        .flat_map(|group| group.members())
        .map(|m| m.name.external())
        .collect();
    assert_eq!(members, ["d"]);
    // After a restart nobody is connected, and the clock starts anew.
    bench.crash();
    expire(&mut bench, 14_000);
    assert!(bench.steps.is_empty());
    expire(&mut bench, 14_400);
    assert_eq!(tried(&bench), ["expired"]);
    assert_eq!(bench.durables(), ["st$1/g"]);
    bench.check_rows();
}
