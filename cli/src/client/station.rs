//! `menes station`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use data_encoding::BASE64;
use menes_stations::units;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::output::{Output, beginning, cell, clock};
use super::server::Server;

/// Messages asked for at a time.
const PAGE: usize = 100;
/// Time between two looks for new messages.
const TAIL_INTERVAL: Duration = Duration::from_millis(300);
/// Bytes of a payload in a list.
const PREVIEW: usize = 4_096;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List stations
    Ls,
    /// Make a station
    Create {
        /// Its name
        station: String,
        #[command(flatten)]
        limits: Limits,
        /// Where messages are kept
        #[arg(long, value_enum)]
        storage: Option<Storage>,
        /// A schema for its messages
        #[arg(long)]
        schema: Option<String>,
        /// How long ids of messages are remembered, as 2m
        #[arg(long, value_name = "TIME", value_parser = duration)]
        id_window: Option<Duration>,
    },
    /// Show a station
    Show {
        /// Its name
        station: String,
    },
    /// Change a living station
    Edit {
        /// Its name
        station: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// Remove the messages of a station
    Purge {
        /// Its name
        station: String,
        /// Only this partition
        #[arg(long)]
        partition: Option<u32>,
        /// Its dead letters as well
        #[arg(long)]
        dead_letters: bool,
    },
    /// Remove a station with everything in it
    Rm {
        /// Its name
        station: String,
    },
    /// List who writes to a station
    Producers {
        /// Its name; all of them without one
        station: Option<String>,
    },
    /// Show a message
    Get {
        /// The station
        station: String,
        /// Its sequence
        sequence: u64,
        /// Its partition
        #[arg(long, default_value_t = 1)]
        partition: u32,
    },
    /// List messages that have a text in headers or payload
    Find {
        /// The station
        station: String,
        /// The text; upper and lower case are the same
        text: String,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show messages as they come; no group moves
    Tail {
        /// The station
        station: String,
        /// Those that are there first
        #[arg(long)]
        all: bool,
        /// End after so many
        #[arg(long, short = 'n')]
        count: Option<u64>,
    },
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).ok_or_else(|| "a time, as 7d, 12h or 90s".to_owned())
}

pub(super) fn bytes(text: &str) -> Result<u64, String> {
    units::parse_bytes(text).ok_or_else(|| "a size, as 200GiB or 1000000".to_owned())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Storage {
    File,
    Memory,
}

/// What may be said about a station at any time
#[derive(Debug, Args)]
pub(super) struct Limits {
    /// How many partitions; they can only become more
    #[arg(long)]
    partitions: Option<u32>,
    /// Copies
    #[arg(long)]
    replicas: Option<u32>,
    /// Keep messages for so long, as 7d or 12h; a bare number is seconds
    #[arg(long, value_name = "TIME", group = "retention", value_parser = duration)]
    max_age: Option<Duration>,
    /// Keep so many messages on each partition
    #[arg(long, value_name = "COUNT", group = "retention")]
    max_messages: Option<u64>,
    /// Keep so much on each partition, as 200GiB
    #[arg(long, value_name = "SIZE", group = "retention", value_parser = bytes)]
    max_bytes: Option<u64>,
    /// Keep messages until every group has acknowledged them
    #[arg(long, group = "retention")]
    until_acked: bool,
    /// A station that receives copies of dead letters; empty for none
    #[arg(long, value_name = "STATION")]
    dead_letter_station: Option<String>,
    /// Messages that nobody acknowledged become dead letters
    #[arg(long, value_name = "BOOL")]
    keep_poison: Option<bool>,
    /// Messages that violate the schema become dead letters
    #[arg(long, value_name = "BOOL")]
    keep_violations: Option<bool>,
}

impl Limits {
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(key.to_owned(), value);
            }
        };
        put("partitions_number", self.partitions.map(Value::from));
        put("replicas", self.replicas.map(Value::from));
        put(
            "dls_station",
            self.dead_letter_station.clone().map(Value::from),
        );
        let mut switches = Map::new();
        for (key, value) in [
            ("poison", self.keep_poison),
            ("schemaverse", self.keep_violations),
        ] {
            if let Some(value) = value {
                switches.insert(key.to_owned(), value.into());
            }
        }
        if !switches.is_empty() {
            put("dls_configuration", Some(switches.into()));
        }
        let retention = [
            ("message_age_sec", self.max_age.map(|age| age.as_secs())),
            ("messages", self.max_messages),
            ("bytes", self.max_bytes),
            ("ack_based", self.until_acked.then_some(0)),
        ];
        for (kind, value) in retention {
            if let Some(value) = value {
                put("retention_type", Some(kind.into()));
                put("retention_value", Some(value.into()));
            }
        }
        fields
    }
}

pub(super) async fn run(server: &Server, output: &Output, command: Command) -> Outcome {
    match command {
        Command::Ls => {
            let answer = server.ask("STATION.LIST", json!({})).await?;
            let headings = [
                "STATION",
                "PARTITIONS",
                "RETENTION",
                "STORAGE",
                "SCHEMA",
                "GROUPS",
            ];
            output.table(&answer["stations"], &headings, |station| {
                let retention = &station["retention"];
                let retention = match retention["type"].as_str() {
                    Some(kind) => format!("{kind} {}", cell(&retention["value"])),
                    None => "–".to_owned(),
                };
                let groups = station["groups"].as_array().map_or(0, Vec::len);
                vec![
                    cell(&station["name"]),
                    cell(&station["partitions"]),
                    retention,
                    cell(&station["storage"]),
                    cell(&station["schema"]["name"]),
                    groups.to_string(),
                ]
            })
        }
        Command::Create {
            station,
            limits,
            storage,
            schema,
            id_window,
        } => {
            let mut body = limits.fields();
            body.insert("station".to_owned(), station.clone().into());
            if let Some(storage) = storage {
                let word = match storage {
                    Storage::File => "file",
                    Storage::Memory => "memory",
                };
                body.insert("storage_type".to_owned(), word.into());
            }
            if let Some(schema) = schema {
                body.insert("schema_name".to_owned(), schema.into());
            }
            if let Some(window) = id_window {
                let ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
                body.insert("idempotency_window_in_ms".to_owned(), ms.into());
            }
            // One of them alone would switch the other off.
            if let Some(Value::Object(switches)) = body.get_mut("dls_configuration") {
                for key in ["poison", "schemaverse"] {
                    switches.entry(key).or_insert(true.into());
                }
            }
            let answer = server.ask("STATION.CREATE", body.into()).await?;
            output.done(&created(&answer), &answer)
        }
        Command::Show { station } => {
            let body = json!({ "station": station });
            output.fields(&server.ask("STATION.INFO", body).await?)
        }
        Command::Edit { station, limits } => {
            let mut body = limits.fields();
            body.insert("station".to_owned(), station.clone().into());
            let answer = server.ask("STATION.UPDATE", body.into()).await?;
            output.done(&format!("changed station {station}"), &answer)
        }
        Command::Purge {
            station,
            partition,
            dead_letters,
        } => {
            output.sure(&format!("remove the messages of station {station}"))?;
            let body =
                json!({"station": station, "partition": partition, "dead_letters": dead_letters});
            let answer = server.ask("STATION.PURGE", body).await?;
            output.done(&format!("purged station {station}"), &answer)
        }
        Command::Rm { station } => {
            output.sure(&format!("remove station {station} with everything in it"))?;
            let answer = server
                .ask("STATION.DELETE", json!({ "station": station }))
                .await?;
            output.done(&format!("removed station {station}"), &answer)
        }
        Command::Producers { station } => {
            let mut producers = Vec::new();
            for name in server.named_stations(station.as_deref()).await? {
                let body = json!({ "station": name });
                let mut answer = server.ask("PRODUCER.LIST", body).await?;
                if let Value::Array(some) = answer["producers"].take() {
                    producers.extend(some.into_iter().map(|mut one| {
                        one["station"] = name.as_str().into();
                        one
                    }));
                }
            }
            let headings = ["PRODUCER", "STATION", "USER", "SDK", "ACTIVE", "SINCE"];
            output.table(&Value::from(producers), &headings, |one| {
                vec![
                    cell(&one["name"]),
                    cell(&one["station"]),
                    cell(&one["user"]),
                    cell(&one["sdk"]),
                    if one["is_active"] == true {
                        "yes"
                    } else {
                        "no"
                    }
                    .to_owned(),
                    clock(&one["registered"]),
                ]
            })
        }
        Command::Get {
            station,
            sequence,
            partition,
        } => {
            let body = json!({"station": station, "partition": partition, "sequence": sequence});
            let message = server.ask("MESSAGE.GET", body).await?;
            if output.is_document() {
                return output.document(&message);
            }
            let mut shown = message.clone();
            shown["payload"] = payload_text(&message).into();
            if let Some(fields) = shown.as_object_mut() {
                fields.remove("is_cut");
            }
            output.fields(&shown)
        }
        Command::Find {
            station,
            text,
            limit,
        } => find(server, output, &station, &text, limit).await,
        Command::Tail {
            station,
            all,
            count,
        } => tail(server, output, &station, all, count).await,
    }
}

/// What was made, in a line.
pub(super) fn created(station: &Value) -> String {
    let many =
        |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let name = cell(&station["name"]);
    let place = match station["storage"].as_str() {
        Some("memory") => "in memory",
        _ => "on disk",
    };
    format!(
        "created station {name}: {}, {place}, {}, keeps {}   (change: menes station edit {name})",
        many(station["partitions"].as_u64().unwrap_or(1), "partition"),
        many(station["replicas"].as_u64().unwrap_or(1), "replica"),
        kept(station),
    )
}

/// What a station keeps.
fn kept(station: &Value) -> String {
    let number = |key: &str| station[key].as_u64();
    if let Some(ms) = number("max_age_ms") {
        units::show_duration(Duration::from_millis(ms))
    } else if let Some(count) = number("max_messages") {
        format!("{count} messages")
    } else if let Some(bytes) = number("max_bytes") {
        units::show_bytes(bytes)
    } else {
        "messages until every group has them".to_owned()
    }
}

/// The payload of a message, as a text.
fn payload_text(message: &Value) -> String {
    let text = message["payload"].as_str().unwrap_or_default();
    let bytes = BASE64.decode(text.as_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A message in a line.
fn print(output: &Output, message: &Value) -> Outcome {
    if output.is_document() {
        return output.record(message);
    }
    let partition = match message["partition"].as_u64() {
        Some(1) | None => String::new(),
        Some(other) => format!("partition {other} "),
    };
    output.line(&format!(
        "{partition}#{}  {}  {}  {}",
        message["sequence"],
        clock(&message["time"]),
        units::show_bytes(message["size"].as_u64().unwrap_or(0)),
        beginning(&payload_text(message), PREVIEW),
    ))
}

async fn find(
    server: &Server,
    output: &Output,
    station: &str,
    text: &str,
    limit: usize,
) -> Outcome {
    let mut after = Value::from("");
    let mut found = 0;
    loop {
        let body = json!({
            "station": station, "search": text, "after": after, "limit": PAGE,
            "payload_bytes": PREVIEW,
        });
        let mut page = server.ask("MESSAGE.LIST", body).await?;
        for message in page["messages"].as_array().into_iter().flatten() {
            if found == limit {
                output.remark("there are more: --limit");
                return Ok(());
            }
            found += 1;
            print(output, message)?;
        }
        after = page["next"].take();
        if after.is_null() {
            return Ok(());
        }
    }
}

async fn tail(
    server: &Server,
    output: &Output,
    station: &str,
    all: bool,
    count: Option<u64>,
) -> Outcome {
    let mut after = String::new();
    if !all {
        let body = json!({"station": station, "figures": true});
        let info = server.ask("STATION.INFO", body).await?;
        let partitions = info["figures"]["partitions"].as_array();
        let ends: Vec<String> = partitions
            .into_iter()
            .flatten()
            .map(|one| format!("{}:{}", one["partition"], one["last_sequence"]))
            .collect();
        after = ends.join(",");
    }
    output.remark("waiting for messages, Ctrl-C stops (no group moves)");
    let mut shown = 0;
    loop {
        let body = json!({
            "station": station, "after": after, "limit": PAGE, "payload_bytes": PREVIEW,
        });
        let page = server.ask("MESSAGE.LIST", body).await?;
        for message in page["messages"].as_array().into_iter().flatten() {
            if count == Some(shown) {
                return Ok(());
            }
            shown += 1;
            print(output, message)?;
        }
        if count == Some(shown) {
            return Ok(());
        }
        page["position"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut after);
        if page["next"].is_null() {
            tokio::select! {
                () = tokio::time::sleep(TAIL_INTERVAL) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_said_in_a_line() {
        let made = json!({
            "name": "orders", "partitions": 1, "replicas": 1, "storage": "file",
            "max_age_ms": 604_800_000,
        });
        assert_eq!(
            created(&made),
            "created station orders: 1 partition, on disk, 1 replica, keeps 7 days   (change: menes station edit orders)"
        );
        let made = json!({
            "name": "a", "partitions": 3, "replicas": 3, "storage": "memory", "max_bytes": 1 << 30,
        });
        assert_eq!(
            created(&made),
            "created station a: 3 partitions, in memory, 3 replicas, keeps 1.0 GiB   (change: menes station edit a)"
        );
    }
}
