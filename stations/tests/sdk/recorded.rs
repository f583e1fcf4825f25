//! Requests as the real SDKs sent them, and what they were answered.

use menes_stations::sdk;

use crate::bench::{Bench, Client};

const PYTHON: &str = "4b76a1f0-0c7c-4a3e-8e54-3f1f7f2f0b9d";

#[test]
fn python_from_station_to_consumer() {
    let mut bench = Bench::default();
    let client = Client {
        lang: "python3".to_owned(),
        ..Client::sdk(PYTHON)
    };
    // The probe closes while the real connection is already open.
    bench.connect(PYTHON);
    bench.connect(PYTHON);
    bench.disconnect(PYTHON);
    let station = r#"{
  "name": "My.Station",
  "retention_type": "message_age_sec",
  "retention_value": 3600,
  "storage_type": "file",
  "replicas": 1,
  "idempotency_window_in_ms": 120000,
  "schema_name": "",
  "dls_configuration": {
    "poison": true,
    "Schemaverse": true
  },
  "username": "root",
  "tiered_storage_enabled": false,
  "partitions_number": 3,
  "dls_station": ""
}"#;
    assert_eq!(bench.ask(&client, sdk::STATION_CREATIONS, station), "");
    let producer = format!(
        r#"{{"name": "Prod.A", "station_name": "My.Station", "connection_id": "{PYTHON}", "producer_type": "application", "req_version": 4, "username": "root", "app_id": "eca5d3a7-1b5a-4f0e-9b1e-0d9f3c1d2e4f", "sdk_lang": "python"}}"#
    );
    assert_eq!(
        bench.ask(&client, sdk::PRODUCER_CREATIONS, &producer),
        r#"{"schema_update":{"schema_name":"","type":"","active_version":{"version_number":0,"descriptor":"","schema_content":"","message_struct_name":""}},"partitions_update":{"partitions_list":[1,2,3]},"schemaverse_to_dls":true,"send_notification":false,"station_version":2,"station_partitions_first_functions":{},"error":""}"#
    );
    let consumer = format!(
        r#"{{"name": "Cons.B", "station_name": "My.Station", "connection_id": "{PYTHON}", "consumer_type": "application", "consumers_group": "Grp.C", "max_ack_time_ms": 1000, "max_msg_deliveries": 1, "start_consume_from_sequence": 1, "last_messages": -1, "req_version": 4, "username": "root", "app_id": "eca5d3a7-1b5a-4f0e-9b1e-0d9f3c1d2e4f", "sdk_lang": "python"}}"#
    );
    assert_eq!(
        bench.ask(&client, sdk::CONSUMER_CREATIONS, &consumer),
        r#"{"schema_update":{"schema_name":"","type":"","active_version":{"version_number":0,"descriptor":"","schema_content":"","message_struct_name":""}},"partitions_update":{"partitions_list":[1,2,3]},"error":""}"#
    );
    assert_eq!(
        bench.streams(),
        ["my#station$1", "my#station$2", "my#station$3"]
    );
    assert_eq!(
        bench.durables(),
        [
            "my#station$1/grp#c",
            "my#station$2/grp#c",
            "my#station$3/grp#c"
        ]
    );
    let subject = &bench.engine.durables[&("my#station$1".to_owned(), "grp#c".to_owned())];
    assert_eq!(subject.filter_subject, "my#station$1.final");
    bench.check_rows();
}

#[test]
fn fire_and_forget_messages_as_recorded() {
    let mut bench = Bench::default();
    let client = Client::sdk("0bce");
    let messages = [
        (
            sdk::NACKED_DEAD_LETTERS,
            r#"{"station_name":"js#st","error":"why","partition":2,"cg_name":"grp.j","seq":1}"#,
        ),
        (sdk::DEAD_LETTER_ACKS, r#"{"id":1,"cg_name":"grp.j"}"#),
        (sdk::DEAD_LETTER_ACKS, r#"{"id": "1", "cg_name": "grp.r"}"#),
        (
            sdk::NOTIFICATIONS,
            r#"{"Title":"Schema validation has failed","Msg":"Station: Go.St\nProducer: prod.g\nError: e","Code":"{\"g\":1}","Type":"schema_validation_fail_alert"}"#,
        ),
        (
            sdk::SCHEMA_DEAD_LETTERS,
            r#"{"station_name":"js#st","producer":{"name":"prod.j","connection_id":"0bce"},"message":{"data":"7b2267223a317d","headers":{"hk":"hv"}},"validation_error":"Schema validation has failed: must have required property 'f'"}"#,
        ),
    ];
    for (subject, body) in messages {
        assert_eq!(bench.ask(&client, subject, body), "");
    }
}
