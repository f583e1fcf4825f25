//! `menes station`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::Outcome;
use super::output::{Output, cell};
use super::server::Server;

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
    /// Keep messages for so many seconds
    #[arg(long, value_name = "SECONDS", group = "retention")]
    max_age: Option<u64>,
    /// Keep so many messages on each partition
    #[arg(long, value_name = "COUNT", group = "retention")]
    max_messages: Option<u64>,
    /// Keep so many bytes on each partition
    #[arg(long, value_name = "BYTES", group = "retention")]
    max_bytes: Option<u64>,
    /// Keep messages until every group has acknowledged them
    #[arg(long, group = "retention")]
    until_acked: bool,
    /// A station that receives copies of dead letters; empty for none
    #[arg(long, value_name = "STATION")]
    dead_letter_station: Option<String>,
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
        let retention = [
            ("message_age_sec", self.max_age),
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
            let answer = server.ask("STATION.CREATE", body.into()).await?;
            let partitions = cell(&answer["partitions"]);
            let plural = if partitions == "1" { "" } else { "s" };
            let text = format!("created station {station}: {partitions} partition{plural}");
            output.done(&text, &answer)
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
    }
}
