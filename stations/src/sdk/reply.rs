//! Replies to control requests. Key names, order and presence are what SDKs decode.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::command::Outcome;
use crate::name::StationName;
use crate::schema::{Schema, SchemaVersion};
use crate::station::{STATION_VERSION, Station};
use crate::task::{Failure, Outbound, Step};

/// JetStream error codes that mean there are too few servers.
const TOO_FEW_SERVERS: [u32; 2] = [10_005, 10_074];

/// The schema a station has; all empty for none.
#[derive(Debug, Default, Serialize)]
struct SchemaUpdate<'a> {
    schema_name: &'a str,
    r#type: &'static str,
    active_version: ActiveVersion<'a>,
}

#[derive(Debug, Default, Serialize)]
struct ActiveVersion<'a> {
    version_number: u32,
    descriptor: &'a str,
    schema_content: &'a str,
    message_struct_name: &'a str,
}

impl<'a> SchemaUpdate<'a> {
    fn of(schema: Option<(&'a Schema, &'a SchemaVersion)>) -> Self {
        let Some((schema, version)) = schema else {
            return Self::default();
        };
        Self {
            schema_name: schema.name.external(),
            r#type: schema.kind.word(),
            active_version: ActiveVersion {
                version_number: version.number,
                descriptor: &version.descriptor,
                schema_content: &version.content,
                message_struct_name: &version.message,
            },
        }
    }
}

/// Pushed to the clients of a station. The first key has no name of its own in the contract.
#[derive(Debug, Serialize)]
struct SchemaChange<'a> {
    #[serde(rename = "UpdateType")]
    update_type: u8,
    init: SchemaUpdate<'a>,
}

/// Pushed to every client.
#[derive(Debug, Serialize)]
struct ClientsUpdate<'a> {
    station_name: &'a str,
    r#type: &'a str,
    update: Option<bool>,
}

/// Partition numbers, never an empty list.
#[derive(Debug, Default, Serialize)]
struct PartitionsUpdate {
    partitions_list: Option<Vec<u32>>,
}

impl PartitionsUpdate {
    fn of(station: &Station) -> Self {
        Self {
            partitions_list: Some(station.partition_numbers().collect()),
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct ProducerReply<'a> {
    schema_update: SchemaUpdate<'a>,
    partitions_update: PartitionsUpdate,
    schemaverse_to_dls: bool,
    send_notification: bool,
    station_version: u32,
    station_partitions_first_functions: Option<BTreeMap<u32, u64>>,
    error: &'a str,
}

#[derive(Debug, Serialize)]
struct ConsumerReply<'a> {
    schema_update: SchemaUpdate<'a>,
    partitions_update: PartitionsUpdate,
    error: Option<&'a str>,
}

/// A producer is registered.
pub(super) fn producer(station: &Station, schema: Option<(&Schema, &SchemaVersion)>) -> Vec<u8> {
    json(&ProducerReply {
        schema_update: SchemaUpdate::of(schema),
        partitions_update: PartitionsUpdate::of(station),
        schemaverse_to_dls: station.dead_letters.schemaverse,
        station_version: STATION_VERSION,
        station_partitions_first_functions: Some(BTreeMap::new()),
        ..ProducerReply::default()
    })
}

/// A producer is refused.
pub(super) fn producer_error(error: &str) -> Vec<u8> {
    json(&ProducerReply {
        error,
        ..ProducerReply::default()
    })
}

/// A consumer is registered. The Java SDK takes any `error` but null for a failure; every other
/// SDK needs the empty text.
pub(super) fn consumer(
    station: &Station,
    schema: Option<(&Schema, &SchemaVersion)>,
    java: bool,
) -> Vec<u8> {
    json(&ConsumerReply {
        schema_update: SchemaUpdate::of(schema),
        partitions_update: PartitionsUpdate::of(station),
        error: if java { None } else { Some("") },
    })
}

/// The error, or an empty one.
pub(crate) fn error(text: &str) -> Vec<u8> {
    json(&BTreeMap::from([("error", text)]))
}

/// A station has another schema now, or none.
pub(crate) fn schema_changed(schema: Option<(&Schema, &SchemaVersion)>) -> Vec<u8> {
    json(&SchemaChange {
        update_type: if schema.is_some() { 1 } else { 2 },
        init: SchemaUpdate::of(schema),
    })
}

/// Tells every client of a change of a station.
pub(crate) fn clients_update(station: &StationName, what: &str, update: Option<bool>) -> Step {
    Step::Send(Box::new(Outbound {
        subject: "$memphis_sdk_clients_updates".to_owned(),
        header: Bytes::new(),
        payload: json(&ClientsUpdate {
            station_name: &station.internal(),
            r#type: what,
            update,
        })
        .into(),
    }))
}

pub(crate) fn json(reply: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(reply).expect("replies hold only strings, numbers and lists")
}

/// What a client is told when the steps of its request failed.
pub(crate) fn failure_text(failure: &Failure, station: &StationName) -> String {
    match failure {
        Failure::Engine(error) if TOO_FEW_SERVERS.contains(&error.err_code) => {
            "station can not be created, probably since replicas count is larger than the \
             cluster size"
                .to_owned()
        }
        Failure::Engine(error) => error.to_string(),
        Failure::Record(Outcome::StationExists) => format!("Station{station} already exists"),
        Failure::Record(Outcome::StationMissing) => format!("Station {station} does not exist"),
        Failure::Record(_) => {
            format!("consumer groups of station {station} are being changed, try again")
        }
    }
}
