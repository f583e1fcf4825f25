//! Replies to control requests. Key names, order and presence are what SDKs decode.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::command::Outcome;
use crate::name::StationName;
use crate::station::{STATION_VERSION, Station};
use crate::task::Failure;

/// JetStream error codes that mean there are too few servers.
const TOO_FEW_SERVERS: [u32; 2] = [10_005, 10_074];

/// The schema a station enforces; all empty for none.
#[derive(Debug, Default, Serialize)]
struct SchemaUpdate {
    schema_name: &'static str,
    r#type: &'static str,
    active_version: ActiveVersion,
}

#[derive(Debug, Default, Serialize)]
struct ActiveVersion {
    version_number: u32,
    descriptor: &'static str,
    schema_content: &'static str,
    message_struct_name: &'static str,
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
    schema_update: SchemaUpdate,
    partitions_update: PartitionsUpdate,
    schemaverse_to_dls: bool,
    send_notification: bool,
    station_version: u32,
    station_partitions_first_functions: Option<BTreeMap<u32, u64>>,
    error: &'a str,
}

#[derive(Debug, Serialize)]
struct ConsumerReply<'a> {
    schema_update: SchemaUpdate,
    partitions_update: PartitionsUpdate,
    error: Option<&'a str>,
}

/// A producer is registered.
pub(super) fn producer(station: &Station) -> Vec<u8> {
    json(&ProducerReply {
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
pub(super) fn consumer(station: &Station, java: bool) -> Vec<u8> {
    json(&ConsumerReply {
        schema_update: SchemaUpdate::default(),
        partitions_update: PartitionsUpdate::of(station),
        error: if java { None } else { Some("") },
    })
}

pub(super) fn json(reply: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(reply).expect("replies hold only strings, numbers and lists")
}

/// What a client is told when the steps of its request failed.
pub(super) fn failure_text(failure: &Failure, station: &StationName) -> String {
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
