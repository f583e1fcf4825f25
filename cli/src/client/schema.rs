//! `menes schema`.

use clap::Subcommand;
use serde_json::json;

use super::messages::content;
use super::output::{Output, cell};
use super::server::Server;
use super::{Outcome, Trouble};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List schemas
    Ls,
    /// Make a schema, or a version of one
    Create {
        /// Its name
        name: String,
        /// What it is written in: json, protobuf, avro or graphql
        #[arg(long = "type", value_name = "TYPE")]
        kind: String,
        /// The definition: a text, @FILE, or - for standard input
        content: String,
        /// Protobuf: the root message; the first one otherwise
        #[arg(long)]
        message: Option<String>,
        /// Stations follow it at once
        #[arg(long)]
        activate: bool,
        /// Refuse it unless messages of the active version fit
        #[arg(long)]
        compatible: bool,
    },
    /// Show a schema with its versions
    Show {
        /// Its name
        name: String,
    },
    /// Make a version the one that stations follow
    Activate {
        /// Its name
        name: String,
        /// Number of the version
        version: u32,
    },
    /// Give a station a schema
    Attach {
        /// Its name
        name: String,
        /// The station
        station: String,
        /// Clients check messages, the broker does not
        #[arg(long)]
        no_enforce: bool,
    },
    /// Take the schema of a station away
    Detach {
        /// The station
        station: String,
    },
    /// Remove a schema and take it from every station
    Rm {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(server: &Server, output: &Output, command: Command) -> Outcome {
    match command {
        Command::Ls => {
            let answer = server.ask("SCHEMA.LIST", json!({})).await?;
            let headings = ["SCHEMA", "TYPE", "ACTIVE", "LATEST", "STATIONS"];
            output.table(&answer["schemas"], &headings, |schema| {
                let stations = schema["stations"].as_array().into_iter().flatten();
                let stations: Vec<String> = stations.map(cell).collect();
                vec![
                    cell(&schema["name"]),
                    cell(&schema["type"]),
                    cell(&schema["active"]),
                    cell(&schema["latest"]),
                    stations.join(", "),
                ]
            })
        }
        Command::Create {
            name,
            kind,
            content: definition,
            message,
            activate,
            compatible,
        } => {
            let definition = String::from_utf8(content(&definition)?)
                .map_err(|_| Trouble::Usage("the definition is not UTF-8".to_owned()))?;
            let body = json!({
                "name": name, "type": kind, "content": definition, "message": message,
                "activate": activate, "compatible": compatible,
            });
            let answer = server.ask("SCHEMA.CREATE", body).await?;
            let version = cell(&answer["version"]);
            output.done(&format!("schema {name} has version {version}"), &answer)
        }
        Command::Show { name } => {
            let answer = server.ask("SCHEMA.INFO", json!({ "name": name })).await?;
            if output.is_json() {
                return output.json(&answer);
            }
            for version in answer["versions"].as_array().into_iter().flatten() {
                let number = &version["number"];
                let mark = if *number == answer["active"] {
                    " (active)"
                } else {
                    ""
                };
                output.line(&format!("-- version {}{mark}", cell(number)))?;
                for line in version["content"].as_str().unwrap_or_default().lines() {
                    output.line(&super::output::shown(line))?;
                }
            }
            Ok(())
        }
        Command::Activate { name, version } => {
            let body = json!({"name": name, "version": version});
            let answer = server.ask("SCHEMA.ACTIVATE", body).await?;
            output.done(
                &format!("version {version} of schema {name} is active"),
                &answer,
            )
        }
        Command::Attach {
            name,
            station,
            no_enforce,
        } => {
            let body = json!({"name": name, "station": station, "enforce": !no_enforce});
            let answer = server.ask("SCHEMA.ATTACH", body).await?;
            output.done(&format!("station {station} has schema {name}"), &answer)
        }
        Command::Detach { station } => {
            let body = json!({ "station": station });
            let answer = server.ask("SCHEMA.DETACH", body).await?;
            output.done(&format!("station {station} has no schema"), &answer)
        }
        Command::Rm { name } => {
            output.sure(&format!(
                "remove schema {name} and take it from every station"
            ))?;
            let answer = server.ask("SCHEMA.DELETE", json!({ "name": name })).await?;
            output.done(&format!("removed schema {name}"), &answer)
        }
    }
}
