//! Every reply and error text of the contract.

use menes_stations::name::StationName;
use menes_stations::schema::{MAX_CONTENT, Room};
use menes_stations::sdk::{self, CONTROL_SUBJECTS};
use menes_stations::station::StationRetention;
use menes_stations::user::{Access, Role, StationPattern};
use serde_json::{Value, json};

use crate::bench::{Bench, Client, account};

fn client() -> Client {
    Client::sdk("c1")
}

/// `base` with the fields of `over` laid over it.
fn with(base: Value, over: Value) -> String {
    let (Value::Object(mut base), Value::Object(over)) = (base, over) else {
        panic!("two objects");
    };
    base.extend(over);
    Value::Object(base).to_string()
}

fn station(over: Value) -> String {
    let base = json!({
        "name": "st", "retention_type": "message_age_sec", "retention_value": 3600,
        "storage_type": "file", "replicas": 1, "idempotency_window_in_ms": 120000,
        "schema_name": "", "dls_configuration": {"poison": true, "Schemaverse": true},
        "username": "root", "tiered_storage_enabled": false, "partitions_number": 1,
        "dls_station": "",
    });
    with(base, over)
}

fn producer(over: Value) -> String {
    let base = json!({
        "name": "p", "station_name": "st", "connection_id": "c1",
        "producer_type": "application", "req_version": 4, "username": "root", "app_id": "a",
        "sdk_lang": "go",
    });
    with(base, over)
}

fn consumer(over: Value) -> String {
    let base = json!({
        "name": "c", "station_name": "st", "connection_id": "c1",
        "consumer_type": "application", "consumers_group": "g", "max_ack_time_ms": 1000,
        "max_msg_deliveries": 2, "start_consume_from_sequence": 1, "last_messages": -1,
        "req_version": 4, "username": "root", "app_id": "a", "sdk_lang": "go",
    });
    with(base, over)
}

fn destroy(name: &str, station: &str) -> String {
    json!({"name": name, "station_name": station, "username": "root", "connection_id": "c1",
        "req_version": 1})
    .to_string()
}

fn bench() -> Bench {
    let mut bench = Bench::default();
    bench.connect("c1");
    bench
}

fn create_station(bench: &mut Bench, over: Value) -> String {
    bench.ask(&client(), sdk::STATION_CREATIONS, &station(over))
}

fn create_producer(bench: &mut Bench, over: Value) -> String {
    bench.ask(&client(), sdk::PRODUCER_CREATIONS, &producer(over))
}

fn create_consumer(bench: &mut Bench, over: Value) -> String {
    bench.ask(&client(), sdk::CONSUMER_CREATIONS, &consumer(over))
}

fn producer_error(reply: &str) -> String {
    let reply: Value = serde_json::from_str(reply).expect("JSON");
    let error = reply["error"].as_str().expect("a text").to_owned();
    assert_eq!(
        reply,
        json!({
            "schema_update": {"schema_name": "", "type": "", "active_version": {
                "version_number": 0, "descriptor": "", "schema_content": "",
                "message_struct_name": ""}},
            "partitions_update": {"partitions_list": null}, "schemaverse_to_dls": false,
            "send_notification": false, "station_version": 0,
            "station_partitions_first_functions": null, "error": error,
        })
    );
    error
}

#[test]
fn a_station_is_made_once_and_then_found_whatever_the_options() {
    let mut bench = bench();
    let over = json!({"name": "My.Station", "partitions_number": 3});
    assert_eq!(create_station(&mut bench, over.clone()), "");
    assert_eq!(
        bench.streams(),
        ["my#station$1", "my#station$2", "my#station$3"]
    );
    assert_eq!(create_station(&mut bench, over), "");
    assert!(bench.steps.is_empty());
    assert_eq!(
        create_station(
            &mut bench,
            json!({"name": "my.station", "partitions_number": 0})
        ),
        ""
    );
    assert_eq!(
        create_station(&mut bench, json!({"name": "MY#station", "replicas": 5})),
        ""
    );
    assert_eq!(bench.streams().len(), 3);
    bench.check_rows();
}

#[test]
fn station_creation_errors() {
    let mut bench = bench();
    let cases = [
        (json!({"name": ""}), "Station name can not be empty"),
        (
            json!({"name": "x".repeat(129)}),
            "Station should be under 128 characters",
        ),
        (
            json!({"name": "a b"}),
            "Only alphanumeric and the '_', '-', '.' characters are allowed in Station",
        ),
        (
            json!({"name": "-a"}),
            "Station name can not start or end with non alphanumeric character",
        ),
        (
            json!({"partitions_number": 0}),
            "you are using an old SDK, make sure to update your SDK",
        ),
        (
            json!({"partitions_number": null}),
            "you are using an old SDK, make sure to update your SDK",
        ),
        (
            json!({"partitions_number": -2}),
            "cannot create station with -2 partitions (max:10000 min:1): Station -  st, ",
        ),
        (
            json!({"partitions_number": 10001, "name": "S.T"}),
            "cannot create station with 10001 partitions (max:10000 min:1): Station -  s.t, ",
        ),
        (
            json!({"schema_name": "Orders"}),
            "Schema orders does not exist",
        ),
        (
            json!({"retention_type": "forever"}),
            "retention type can be one of the following message_age_sec/messages/bytes/ack_based",
        ),
        (
            json!({"storage_type": "tape"}),
            "storage type can be one of the following file/memory",
        ),
        (
            json!({"idempotency_window_in_ms": 86400001}),
            "idempotency window can not exceed 24 hours",
        ),
        (
            json!({"retention_value": 60}),
            "idempotency window cannot be greater than the station retention",
        ),
        (
            json!({"dls_station": "a b"}),
            "Only alphanumeric and the '_', '-', '.' characters are allowed in Station",
        ),
        (
            json!({"replicas": 3}),
            "station can not be created, probably since replicas count is larger than the \
             cluster size",
        ),
        (
            json!({"name": 7}),
            "field name of the request has a wrong type",
        ),
        (
            json!({"retention_value": "7"}),
            "field retention_value of the request has a wrong type",
        ),
    ];
    for (over, text) in cases {
        assert_eq!(create_station(&mut bench, over), text);
        assert!(bench.streams().is_empty() && bench.engine.rows.is_empty());
    }
    assert_eq!(
        bench.ask(&client(), sdk::STATION_CREATIONS, "[1]"),
        "the request is not a JSON object"
    );
}

#[test]
fn the_first_broken_rule_is_the_one_reported() {
    let mut bench = bench();
    let over = json!({"partitions_number": 0, "schema_name": "x", "retention_type": "y"});
    assert!(create_station(&mut bench, over).starts_with("you are using an old SDK"));
    let over = json!({"schema_name": "x", "retention_type": "y", "storage_type": "z"});
    assert_eq!(create_station(&mut bench, over), "Schema x does not exist");
    let over = json!({"retention_type": "y", "storage_type": "z"});
    assert!(create_station(&mut bench, over).starts_with("retention type"));
}

#[test]
fn keys_match_in_any_case_and_odd_ones_are_ignored() {
    let mut bench = bench();
    let body = r#"{"NAME":"net","Retention_Type":"ACK_BASED","Storage_Type":"MEMORY",
        "idempotency_windows_in_ms":7,"DLS_configuration":{"Poison":false,"SchemaVerse":true},
        "partitions_number":2,"creation_unix":1,"schema_name":null,"dls_station":null}"#;
    assert_eq!(bench.ask(&client(), sdk::STATION_CREATIONS, body), "");
    let name = StationName::parse("net").expect("a good name");
    let station = &bench
        .state()
        .station(&account(), &name)
        .expect("made")
        .station;
    assert_eq!(station.retention, StationRetention::AckBased);
    assert_eq!(station.idempotency_window_ms, 120_000);
    assert!(!station.dead_letters.poison && station.dead_letters.schemaverse);
    assert_eq!(station.created_by, "root");
}

#[test]
fn a_missing_dead_letter_station_is_made_with_defaults() {
    let mut bench = bench();
    let over = json!({"dls_station": "Dead.Letters", "partitions_number": 2});
    assert_eq!(create_station(&mut bench, over), "");
    assert_eq!(bench.streams(), ["dead#letters$1", "st$1", "st$2"]);
    let over = json!({"name": "own", "dls_station": "own"});
    assert_eq!(create_station(&mut bench, over), "");
    let destroyed = r#"{"station_name":"Dead.Letters"}"#;
    assert_eq!(
        bench.ask(&client(), sdk::STATION_DESTRUCTIONS, destroyed),
        ""
    );
    let name = StationName::parse("st").expect("a good name");
    let station = &bench
        .state()
        .station(&account(), &name)
        .expect("made")
        .station;
    assert_eq!(station.dead_letter_station, None);
    bench.check_rows();
}

#[test]
fn destroying_a_station_removes_everything_about_it() {
    let mut bench = bench();
    create_station(
        &mut bench,
        json!({"name": "My.Station", "partitions_number": 2}),
    );
    create_producer(&mut bench, json!({"station_name": "my#station"}));
    create_consumer(&mut bench, json!({"station_name": "My.Station"}));
    assert_eq!(bench.engine.rows.len(), 4);
    let body = r#"{"station_name":"My.Station","username":"root"}"#;
    assert_eq!(bench.ask(&client(), sdk::STATION_DESTRUCTIONS, body), "");
    assert!(bench.streams().is_empty() && bench.durables().is_empty());
    assert!(bench.engine.rows.is_empty());
    assert_eq!(
        bench.ask(&client(), sdk::STATION_DESTRUCTIONS, body),
        "Station  does not exist"
    );
    let body = r#"{"station_name":"no such"}"#;
    assert_eq!(
        bench.ask(&client(), sdk::STATION_DESTRUCTIONS, body),
        "Station  does not exist"
    );
}

#[test]
fn a_producer_gets_the_whole_key_set_and_its_station_on_demand() {
    let mut bench = bench();
    let reply = create_producer(
        &mut bench,
        json!({"name": "Prod.A", "station_name": "New.One"}),
    );
    assert_eq!(
        reply,
        r#"{"schema_update":{"schema_name":"","type":"","active_version":{"version_number":0,"descriptor":"","schema_content":"","message_struct_name":""}},"partitions_update":{"partitions_list":[1]},"schemaverse_to_dls":true,"send_notification":false,"station_version":2,"station_partitions_first_functions":{},"error":""}"#
    );
    assert_eq!(bench.streams(), ["new#one$1"]);
    let over = json!({"name": "st3", "partitions_number": 3,
        "dls_configuration": {"poison": true, "schemaverse": false}});
    create_station(&mut bench, over);
    let reply = create_producer(&mut bench, json!({"station_name": "st3"}));
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    assert_eq!(
        reply["partitions_update"]["partitions_list"],
        json!([1, 2, 3])
    );
    assert_eq!(reply["schemaverse_to_dls"], json!(false));
}

#[test]
fn producer_creation_errors() {
    let mut bench = bench();
    create_station(&mut bench, json!({}));
    let cases = [
        (
            json!({"station_name": "", "name": ""}),
            "Station name can not be empty",
        ),
        (json!({"name": ""}), "Producer name can not be empty"),
        (
            json!({"name": "a_"}),
            "Producer name can not start or end with non alphanumeric character",
        ),
        (
            json!({"producer_type": "other"}),
            "producer type has to be one of the following application/connector",
        ),
        (
            json!({"station_name": "none", "req_version": 1}),
            "this station does not exist, a default station can not be created automatically, \
             please upgrade your SDK version",
        ),
        (
            json!({"req_version": 1}),
            "to produce to this station please upgrade your SDK version",
        ),
        (
            json!({"req_version": 0}),
            "to produce to this station please upgrade your SDK version",
        ),
        (
            json!({"name": []}),
            "field name of the request has a wrong type",
        ),
        (
            json!({"connection_id": "x".repeat(257)}),
            "field connection_id of the request is too long",
        ),
    ];
    for (over, text) in cases {
        assert_eq!(producer_error(&create_producer(&mut bench, over)), text);
    }
    assert_eq!(bench.engine.rows.len(), 1);
}

#[test]
fn destroying_a_producer_never_fails() {
    let mut bench = bench();
    create_producer(&mut bench, json!({"name": "Prod.A"}));
    create_producer(&mut bench, json!({"name": "Prod.A"}));
    create_producer(&mut bench, json!({"name": "Prod.A", "connection_id": "c2"}));
    assert_eq!(bench.engine.rows.len(), 3);
    let body = destroy("prod.a", "ST");
    assert_eq!(bench.ask(&client(), sdk::PRODUCER_DESTRUCTIONS, &body), "");
    assert_eq!(bench.engine.rows.len(), 2);
    for body in [
        destroy("prod.a", "st"),
        destroy("x", "none"),
        destroy("", ""),
    ] {
        assert_eq!(bench.ask(&client(), sdk::PRODUCER_DESTRUCTIONS, &body), "");
        assert!(bench.steps.is_empty());
    }
    // Without a version an SDK connection means itself, and any other client means everybody.
    let body = r#"{"name":"prod.a","station_name":"st","connection_id":"c2"}"#;
    assert_eq!(bench.ask(&client(), sdk::PRODUCER_DESTRUCTIONS, body), "");
    assert_eq!(bench.engine.rows.len(), 2);
    let plain = Client {
        native: false,
        ..client()
    };
    assert_eq!(bench.ask(&plain, sdk::PRODUCER_DESTRUCTIONS, body), "");
    assert_eq!(bench.engine.rows.len(), 1);
    bench.check_rows();
}

#[test]
fn a_consumer_gets_its_durables_before_its_reply() {
    let mut bench = bench();
    create_station(
        &mut bench,
        json!({"name": "My.Station", "partitions_number": 2}),
    );
    let over = json!({"name": "Cons.B", "station_name": "My.Station", "consumers_group": "Grp.C"});
    assert_eq!(
        create_consumer(&mut bench, over),
        r#"{"schema_update":{"schema_name":"","type":"","active_version":{"version_number":0,"descriptor":"","schema_content":"","message_struct_name":""}},"partitions_update":{"partitions_list":[1,2]},"error":""}"#
    );
    assert_eq!(
        bench.durables(),
        ["my#station$1/grp#c", "my#station$2/grp#c"]
    );
    // Without a group the consumer is its own.
    let over = json!({"name": "Solo", "station_name": "fresh", "consumers_group": ""});
    create_consumer(&mut bench, over);
    assert_eq!(bench.durables()[0], "fresh$1/solo");
}

#[test]
fn java_is_told_of_no_error_by_null() {
    let mut bench = bench();
    let over = json!({"connection_id": "c1::root", "req_version": 3});
    let reply: Value = serde_json::from_str(&create_consumer(&mut bench, over)).expect("JSON");
    assert_eq!(reply["error"], Value::Null);
    assert!(
        reply
            .as_object()
            .is_some_and(|reply| reply.contains_key("error"))
    );
    // Its registration counts as active because the id is cut.
    let name = StationName::parse("st").expect("a good name");
    let entry = bench.state().station(&account(), &name).expect("made");
    let connection = &entry
        .groups()
        .flat_map(|g| g.members())
        .next()
        .expect("one")
        .connection;
    assert_eq!(connection, "c1");
}

#[test]
fn consumer_creation_errors() {
    let mut bench = bench();
    create_station(&mut bench, json!({}));
    let cases = [
        (
            json!({"start_consume_from_sequence": 0, "last_messages": -2}),
            "startConsumeFromSequence has to be a positive number",
        ),
        (
            json!({"start_consume_from_sequence": null}),
            "startConsumeFromSequence has to be a positive number",
        ),
        (
            json!({"last_messages": -2, "name": ""}),
            "min value for LastMessages is -1",
        ),
        (
            json!({"start_consume_from_sequence": 2, "last_messages": 0}),
            "consumer creation options can't contain both startConsumeFromSequence and \
             lastMessages",
        ),
        (json!({"name": ""}), "Consumer name can not be empty"),
        (
            json!({"consumers_group": "a b"}),
            "Only alphanumeric and the '_', '-', '.' characters are allowed in Consumer",
        ),
        (
            json!({"consumer_type": "Sink"}),
            "consumer type has to be one of the following application/connector and not Sink",
        ),
        (
            json!({"station_name": ".x"}),
            "Station name can not start or end with non alphanumeric \
             character",
        ),
        (
            json!({"station_name": "none", "req_version": 1}),
            "This station does not exist, a default station can not be created automatically, \
             please upgrade your SDK version",
        ),
        (
            json!({"req_version": 1}),
            "to consume from this station please upgrade your SDK version",
        ),
    ];
    for (over, text) in cases {
        assert_eq!(create_consumer(&mut bench, over), text);
    }
    assert!(bench.durables().is_empty());
    assert_eq!(bench.engine.rows.len(), 1);
}

#[test]
fn an_engine_error_is_shown_with_its_code() {
    let mut bench = bench();
    create_consumer(&mut bench, json!({}));
    bench.disconnect("c1");
    let over = json!({"last_messages": 0});
    assert_eq!(
        create_consumer(&mut bench, over),
        "deliver policy can not be updated (10012)"
    );
    bench.fail_in = Some(1);
    assert_eq!(
        create_station(&mut bench, json!({"name": "other"})),
        "injected (10077)"
    );
}

#[test]
fn destroying_a_consumer_that_is_not_there_is_told() {
    let mut bench = bench();
    let text = "Consumer cons.b at station st does not exist";
    let body = destroy("Cons.B", "ST");
    assert_eq!(
        bench.ask(&client(), sdk::CONSUMER_DESTRUCTIONS, &body),
        text
    );
    create_consumer(&mut bench, json!({"name": "Cons.B"}));
    assert_eq!(bench.ask(&client(), sdk::CONSUMER_DESTRUCTIONS, &body), "");
    assert!(bench.durables().is_empty());
    assert_eq!(
        bench.ask(&client(), sdk::CONSUMER_DESTRUCTIONS, &body),
        text
    );
    assert_eq!(
        bench.ask(&client(), sdk::CONSUMER_DESTRUCTIONS, &destroy("", "")),
        "Consumer  at station  does not exist"
    );
    bench.check_rows();
}

#[test]
fn users_with_roles_are_kept_to_their_stations() {
    let mut bench = bench();
    create_station(&mut bench, json!({}));
    let patterns = |list: &[&str]| list.iter().map(|text| StationPattern::new(text)).collect();
    let limited = Client {
        user: "bob$1".to_owned(),
        access: Access {
            allow_read: patterns(&["in.*"]),
            allow_write: patterns(&["out.*"]),
            ..Access::ALL
        },
        ..client()
    };
    let ask = |bench: &mut Bench, subject: &str, body: String| bench.ask(&limited, subject, &body);
    assert_eq!(
        ask(
            &mut bench,
            sdk::STATION_CREATIONS,
            station(json!({"name": "new", "partitions_number": 0}))
        ),
        "user bob is not allowed to create station new"
    );
    assert_eq!(
        ask(&mut bench, sdk::STATION_CREATIONS, station(json!({}))),
        ""
    );
    let over = json!({"name": "out.1", "dls_station": "dls"});
    assert_eq!(
        ask(&mut bench, sdk::STATION_CREATIONS, station(over)),
        "user bob is not allowed to create station dls"
    );
    assert_eq!(
        ask(
            &mut bench,
            sdk::STATION_DESTRUCTIONS,
            r#"{"station_name":"st"}"#.to_owned()
        ),
        "user bob is not allowed to remove station st"
    );
    let reply = ask(&mut bench, sdk::PRODUCER_CREATIONS, producer(json!({})));
    assert_eq!(
        producer_error(&reply),
        "user bob is not allowed to access station st"
    );
    let reply = ask(
        &mut bench,
        sdk::PRODUCER_CREATIONS,
        producer(json!({"station_name": "in.1"})),
    );
    assert_eq!(
        producer_error(&reply),
        "user bob is not allowed to create station in.1"
    );
    let reply = ask(
        &mut bench,
        sdk::PRODUCER_CREATIONS,
        producer(json!({"station_name": "out.1"})),
    );
    assert!(reply.ends_with(r#""error":""}"#));
    assert_eq!(
        ask(&mut bench, sdk::CONSUMER_CREATIONS, consumer(json!({}))),
        "user bob is not allowed to access station st"
    );
    assert_eq!(
        ask(
            &mut bench,
            sdk::CONSUMER_CREATIONS,
            consumer(json!({"station_name": "in.1"}))
        ),
        "user bob is not allowed to create station in.1"
    );
    assert_eq!(bench.streams(), ["out#1$1", "st$1"]);
}

fn application(user: &str, connection: &str) -> Client {
    Client {
        user: format!("{user}$1"),
        role: Role::Application,
        ..Client::sdk(connection)
    }
}

fn denied(read: &[&str], write: &[&str]) -> Access {
    let patterns = |list: &[&str]| list.iter().map(|text| StationPattern::new(text)).collect();
    Access {
        deny_read: patterns(read),
        deny_write: patterns(write),
        ..Access::ALL
    }
}

fn producers(bench: &Bench) -> Vec<(String, String)> {
    let name = StationName::parse("st").expect("a good name");
    let entry = bench.state().station(&account(), &name);
    let producers = entry.into_iter().flat_map(|entry| entry.producers());
    producers
        .map(|known| (known.user.clone(), known.connection.clone()))
        .collect()
}

#[test]
fn application_users_remove_what_is_theirs_and_nothing_of_a_denied_station() {
    let mut bench = bench();
    bench.connect("c2");
    create_station(&mut bench, json!({}));
    let (bob, eve) = (application("bob", "c1"), application("eve", "c2"));
    let reply = bench.ask(&bob, sdk::PRODUCER_CREATIONS, &producer(json!({})));
    assert!(reply.ends_with(r#""error":""}"#), "{reply}");
    let reply = bench.ask(&bob, sdk::CONSUMER_CREATIONS, &consumer(json!({})));
    assert!(reply.starts_with('{'), "{reply}");
    let durables = bench.durables();
    let owned = vec![("bob".to_owned(), "c1".to_owned())];
    assert_eq!(producers(&bench), owned);
    assert!(!durables.is_empty());

    // Naming another's connection, or none at all, does not help.
    let anyone = json!({"name": "p", "station_name": "st"}).to_string();
    let plain = Client {
        native: false,
        ..eve.clone()
    };
    for (client, body) in [
        (&eve, destroy("p", "st")),
        (&eve, anyone.clone()),
        (&plain, anyone),
    ] {
        assert_eq!(bench.ask(client, sdk::PRODUCER_DESTRUCTIONS, &body), "");
        assert_eq!(producers(&bench), owned);
    }
    let anyone = json!({"name": "c", "station_name": "st"}).to_string();
    for (client, body) in [
        (&eve, destroy("c", "st")),
        (&eve, anyone.clone()),
        (&plain, anyone),
    ] {
        assert_eq!(
            bench.ask(client, sdk::CONSUMER_DESTRUCTIONS, &body),
            "Consumer c at station st does not exist"
        );
        assert_eq!(bench.durables(), durables);
    }
    // Nor does registering as if it were another's first.
    let reply = bench.ask(&eve, sdk::PRODUCER_CREATIONS, &producer(json!({})));
    assert_eq!(
        producer_error(&reply),
        "producer p is registered by another user"
    );
    assert_eq!(
        bench.ask(&eve, sdk::CONSUMER_CREATIONS, &consumer(json!({}))),
        "consumer c is registered by another user"
    );
    let own = producer(json!({"connection_id": "c2"}));
    let reply = bench.ask(&eve, sdk::PRODUCER_CREATIONS, &own);
    assert!(reply.ends_with(r#""error":""}"#), "{reply}");
    let all = json!({"name": "p", "station_name": "st"}).to_string();
    assert_eq!(bench.ask(&plain, sdk::PRODUCER_DESTRUCTIONS, &all), "");
    assert_eq!(producers(&bench), owned);

    // Who lost the station leaves it alone.
    let lost = Client {
        access: denied(&["st"], &["st"]),
        ..bob.clone()
    };
    let text = "user bob is not allowed to access station st";
    for (subject, name) in [
        (sdk::PRODUCER_DESTRUCTIONS, "p"),
        (sdk::CONSUMER_DESTRUCTIONS, "c"),
    ] {
        assert_eq!(bench.ask(&lost, subject, &destroy(name, "st")), text);
    }
    assert_eq!(producers(&bench), owned);
    assert_eq!(bench.durables(), durables);
    // Reading is what a consumer needs, writing what a producer needs.
    let reader = Client {
        access: denied(&[], &["st"]),
        ..bob.clone()
    };
    assert_eq!(
        bench.ask(&reader, sdk::PRODUCER_DESTRUCTIONS, &destroy("p", "st")),
        text
    );
    let body = destroy("c", "st");
    assert_eq!(bench.ask(&reader, sdk::CONSUMER_DESTRUCTIONS, &body), "");
    assert!(bench.durables().is_empty());
    let writer = Client {
        access: denied(&["st"], &[]),
        ..bob
    };
    let body = destroy("p", "st");
    assert_eq!(bench.ask(&writer, sdk::PRODUCER_DESTRUCTIONS, &body), "");
    assert!(producers(&bench).is_empty());
    bench.check_rows();
}

#[test]
fn who_manages_removes_what_is_registered_by_anybody() {
    let mut bench = bench();
    create_station(&mut bench, json!({}));
    let bob = application("bob", "c1");
    bench.ask(&bob, sdk::PRODUCER_CREATIONS, &producer(json!({})));
    bench.ask(&bob, sdk::CONSUMER_CREATIONS, &consumer(json!({})));
    let body = destroy("p", "st");
    assert_eq!(bench.ask(&client(), sdk::PRODUCER_DESTRUCTIONS, &body), "");
    assert!(producers(&bench).is_empty());
    let body = destroy("c", "st");
    assert_eq!(bench.ask(&client(), sdk::CONSUMER_DESTRUCTIONS, &body), "");
    assert!(bench.durables().is_empty());
}

#[test]
fn a_user_the_account_does_not_know_gets_nothing() {
    let mut bench = bench();
    let nobody = Client {
        user: String::new(),
        ..client()
    };
    let over = json!({"username": "Eve$1"});
    assert_eq!(
        bench.ask(&nobody, sdk::STATION_CREATIONS, &station(over.clone())),
        "User Eve does not exist"
    );
    let reply = bench.ask(&nobody, sdk::PRODUCER_CREATIONS, &producer(over.clone()));
    assert_eq!(producer_error(&reply), "User Eve does not exist");
    assert_eq!(
        bench.ask(&nobody, sdk::CONSUMER_CREATIONS, &consumer(over)),
        "user does not exist"
    );
    assert!(bench.engine.rows.is_empty());
}

#[test]
fn fire_and_forget_subjects_are_answered_with_nothing() {
    let mut bench = bench();
    for subject in [
        sdk::NOTIFICATIONS,
        sdk::SCHEMA_DEAD_LETTERS,
        sdk::NACKED_DEAD_LETTERS,
        sdk::DEAD_LETTER_ACKS,
    ] {
        assert_eq!(bench.ask(&client(), subject, "\u{1}not json"), "");
    }
}

#[test]
fn schemas_grow_by_versions_and_only_the_first_is_active_at_once() {
    let mut bench = Bench::default();
    bench.connect("c1");
    let client = Client::sdk("c1");
    let mut create = |name: &str, kind: &str, content: &str| {
        let body = format!(
            r#"{{"name":"{name}","type":"{kind}","created_by_username":"root","schema_content":"{content}"}}"#
        );
        bench.ask(&client, sdk::SCHEMA_CREATIONS, &body)
    };
    assert_eq!(create("S1", "json", "one"), r#"{"error":""}"#);
    assert_eq!(
        create("s1", "json", "one"),
        r#"{"error":"s1 already exists in the db with the same schema content"}"#
    );
    assert_eq!(
        create("s1", "avro", "two"),
        r#"{"error":"s1 already exist with type - json"}"#
    );
    assert_eq!(create("s1", "json", "two"), r#"{"error":""}"#);
    assert_eq!(create("s1", "json", "bad"), r#"{"error":"it is bad"}"#);
    assert_eq!(
        create("s2", "xml", "x"),
        r#"{"error":"unsupported schema type"}"#
    );
    assert_eq!(
        create("s2", "json", ""),
        r#"{"error":"your schema content is invalid"}"#
    );
    let name = menes_stations::name::SchemaName::parse("s1").expect("a good name");
    let known = bench
        .stations
        .state()
        .schema(&account(), &name)
        .expect("it was made");
    assert_eq!((known.active, known.versions().count()), (1, 2));
    // Rows bring back what commands made.
    let reloaded = bench.engine.reload(menes_jetstream::Timestamp(1));
    assert_eq!(reloaded.state(), bench.stations.state());
}

#[test]
fn applications_leave_room_for_the_schemas_of_those_who_manage() {
    let root = Client::sdk("c1");
    let application = Client {
        user: "app$1".to_owned(),
        role: Role::Application,
        ..Client::sdk("c2")
    };
    let create = |bench: &mut Bench, client: &Client, name: String, content: String| {
        let body = json!({"name": name, "type": "json", "schema_content": content});
        bench.ask(client, sdk::SCHEMA_CREATIONS, &body.to_string())
    };
    let mut bench = Bench::default();
    for client in [&root, &application] {
        bench.connect(&client.connection);
    }
    for n in 0..Room::APPLICATION.schemas {
        let answer = create(&mut bench, &application, format!("s{n}"), n.to_string());
        assert_eq!(answer, r#"{"error":""}"#, "{n}");
    }
    let refused = |answer: &str| answer.contains("there is no room for ");
    let one_more = || ("more".to_owned(), "more".to_owned());
    let (name, content) = one_more();
    assert!(refused(&create(&mut bench, &application, name, content)));
    // A version of one that is there takes the place of no other.
    let answer = create(&mut bench, &application, "s1".to_owned(), "new".to_owned());
    assert_eq!(answer, r#"{"error":""}"#);
    let (name, content) = one_more();
    assert_eq!(create(&mut bench, &root, name, content), r#"{"error":""}"#);

    let mut bench = Bench::default();
    for client in [&root, &application] {
        bench.connect(&client.connection);
    }
    let long = |n: usize| format!("{n:0>4}{}", "x".repeat(MAX_CONTENT - 4));
    let most = Room::APPLICATION.bytes / MAX_CONTENT;
    for n in 0..most {
        let answer = create(&mut bench, &application, "s".to_owned(), long(n));
        assert_eq!(answer, r#"{"error":""}"#, "{n}");
    }
    let answer = create(&mut bench, &application, "s".to_owned(), long(most));
    assert!(refused(&answer), "{answer}");
    let answer = create(&mut bench, &root, "s".to_owned(), long(most));
    assert_eq!(answer, r#"{"error":""}"#);
}

#[test]
fn clients_hear_of_a_schema_before_the_one_who_gave_it_is_answered() {
    let mut bench = Bench::default();
    bench.connect("c1");
    let client = Client::sdk("c1");
    let attach = r#"{"name":"s1","station_name":"My.St","username":"root"}"#;
    let missing = "memphis: Station my.st does not exist";
    assert_eq!(bench.ask(&client, sdk::SCHEMA_ATTACHMENTS, attach), missing);
    let detach = r#"{"station_name":"My.St","username":"root"}"#;
    let missing = "station my.st does not exist";
    assert_eq!(bench.ask(&client, sdk::SCHEMA_DETACHMENTS, detach), missing);
    let station = r#"{"name":"my.st","partitions_number":1}"#;
    bench.ask(&client, sdk::STATION_CREATIONS, station);
    let missing = "Schema s1 does not exist";
    assert_eq!(bench.ask(&client, sdk::SCHEMA_ATTACHMENTS, attach), missing);
    let schema = r#"{"name":"s1","type":"json","schema_content":"{}"}"#;
    bench.ask(&client, sdk::SCHEMA_CREATIONS, schema);
    assert_eq!(bench.ask(&client, sdk::SCHEMA_ATTACHMENTS, attach), "");
    assert_eq!(bench.ask(&client, sdk::SCHEMA_DETACHMENTS, detach), "");
    assert_eq!(bench.ask(&client, sdk::SCHEMA_DETACHMENTS, detach), "");
    let sent: Vec<(&str, String)> = bench
        .engine
        .sent
        .iter()
        .map(|message| {
            let payload = String::from_utf8_lossy(&message.payload).into_owned();
            (&message.subject[..], payload)
        })
        .collect();
    let subject = "$memphis_schema_updates_my#st";
    let given = r#"{"UpdateType":1,"init":{"schema_name":"s1","type":"json","active_version":{"version_number":1,"descriptor":"","schema_content":"{}","message_struct_name":""}}}"#;
    let taken = r#"{"UpdateType":2,"init":{"schema_name":"","type":"","active_version":{"version_number":0,"descriptor":"","schema_content":"","message_struct_name":""}}}"#;
    let expected = [given, taken, taken].map(|payload| (subject, payload.to_owned()));
    assert_eq!(sent, expected);
}

#[test]
fn what_a_consumer_gives_up_is_stored_with_its_reason() {
    let mut bench = Bench::default();
    bench.connect("c1");
    let client = Client::sdk("c1");
    let station = r#"{"name":"my.st","partitions_number":2,"dls_configuration":{"poison":true}}"#;
    bench.ask(&client, sdk::STATION_CREATIONS, station);
    bench.engine.messages.insert(
        "my#st$2".to_owned(),
        vec![menes_stations::Message {
            seq: 1,
            time: menes_jetstream::Timestamp(5),
            subject: "my#st$2.final".to_owned(),
            header: bytes::Bytes::new(),
            payload: bytes::Bytes::from_static(b"body"),
        }],
    );
    let nacked =
        r#"{"station_name":"my#st","error":"why","partition":2,"cg_name":"Grp.C","seq":1}"#;
    assert_eq!(bench.ask(&client, sdk::NACKED_DEAD_LETTERS, nacked), "");
    let stream = menes_stations::dead_letter::STREAM;
    let stored = bench.engine.messages[stream].clone();
    let letter = menes_stations::dead_letter::DeadLetter::parse(&stored[0]).expect("it is one");
    assert_eq!(
        (letter.id, &letter.reason[..], &letter.payload[..]),
        (1, "why", &b"body"[..])
    );
    // Another group's word does not settle it, nor does an ack for another id.
    for ack in [
        r#"{"id":1,"cg_name":"other"}"#,
        r#"{"id":"2","cg_name":"Grp.C"}"#,
    ] {
        assert_eq!(bench.ask(&client, sdk::DEAD_LETTER_ACKS, ack), "");
        assert_eq!(bench.engine.messages[stream].len(), 1);
    }
    let ack = r#"{"id":"1","cg_name":"Grp.C"}"#;
    // Nor does the word of who may not read the station.
    let kept_out = Client {
        access: denied(&["my.st"], &[]),
        ..application("eve", "c1")
    };
    assert_eq!(bench.ask(&kept_out, sdk::DEAD_LETTER_ACKS, ack), "");
    assert_eq!(bench.engine.messages[stream].len(), 1);
    assert_eq!(bench.ask(&client, sdk::DEAD_LETTER_ACKS, ack), "");
    assert!(bench.engine.messages[stream].is_empty());
}

#[test]
fn every_control_subject_is_served() {
    let mut bench = bench();
    for subject in CONTROL_SUBJECTS {
        let reply = bench.ask(&client(), subject, "{}");
        assert!(!reply.contains("nothing is served"), "{subject}");
    }
    assert_eq!(
        bench.ask(&client(), "$memphis_x", ""),
        "nothing is served on $memphis_x"
    );
}

#[test]
fn older_request_versions_take_the_sdk_from_the_connection() {
    let mut bench = bench();
    let mut register = |version: i64, lang: &str, name: &str| {
        let client = Client {
            lang: lang.to_owned(),
            ..client()
        };
        let body = producer(json!({"req_version": version, "name": name}));
        bench.ask(&client, sdk::PRODUCER_CREATIONS, &body);
        let station = StationName::parse("st").expect("a good name");
        let entry = bench.state().station(&account(), &station).expect("made");
        let known = entry
            .producers()
            .find(|p| p.name.external() == name)
            .expect("registered");
        (known.app_id.clone(), known.sdk.clone())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(register(2, "nats.js", "p1"), pair("c1", "node.js"));
    assert_eq!(register(3, "python3", "p2"), pair("c1", "python"));
    assert_eq!(register(3, "rust", "p3"), pair("c1", "rust"));
    assert_eq!(register(4, "nats.js", "p4"), pair("a", "go"));
}
