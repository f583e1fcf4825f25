//! `menes group`.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::output::{Output, cell};
use super::server::Server;
use super::{Outcome, Trouble};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the groups of a station
    Ls {
        /// The station
        station: String,
    },
    /// Show a group: members, and where it stands on each partition
    Show {
        /// The station
        station: String,
        /// The group
        group: String,
    },
    /// List the members of every group of a station
    Members {
        /// The station; all of them without one
        station: Option<String>,
    },
    /// Let a group go on elsewhere
    Reset {
        /// The station
        station: String,
        /// The group
        group: String,
        /// At this sequence
        #[arg(long, group = "target")]
        sequence: Option<u64>,
        /// At the first message from this RFC 3339 time on
        #[arg(long, group = "target")]
        time: Option<String>,
        /// At the first message
        #[arg(long, group = "target")]
        start: bool,
        /// After the last message
        #[arg(long, group = "target")]
        end: bool,
        /// Only on this partition
        #[arg(long)]
        partition: Option<u32>,
    },
    /// Hand out nothing for a time
    Pause {
        /// The station
        station: String,
        /// The group
        group: String,
        /// For so long, as 90s or 2h; a bare number is seconds
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = super::station::duration)]
        time: Duration,
    },
    /// End a pause
    Resume {
        /// The station
        station: String,
        /// The group
        group: String,
    },
    /// Decide how messages are tried again
    Edit {
        /// The station
        station: String,
        /// The group
        group: String,
        /// Time to acknowledge, milliseconds
        #[arg(long, value_name = "MS")]
        ack_time: Option<u64>,
        /// Most deliveries, -1 for no end
        #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
        deliveries: Option<i64>,
        /// Waits before the second delivery, the third and so on, milliseconds
        #[arg(long, value_name = "MS,MS,…", value_delimiter = ',')]
        backoff: Option<Vec<u64>>,
        /// What its members ask for holds again
        #[arg(long, conflicts_with_all = ["ack_time", "deliveries", "backoff"])]
        follow_members: bool,
    },
    /// Remove a group with its position and its dead letters
    Rm {
        /// The station
        station: String,
        /// The group
        group: String,
    },
}

pub(super) async fn run(server: &Server, output: &Output, command: Command) -> Outcome {
    match command {
        Command::Ls { station } => {
            let answer = server
                .ask("GROUP.LIST", json!({ "station": station }))
                .await?;
            let headings = ["GROUP", "LAG", "IN FLIGHT", "MEMBERS", "PAUSED"];
            output.table(&answer["groups"], &headings, |group| {
                vec![
                    cell(&group["group"]),
                    cell(&group["lag"]),
                    cell(&group["in_process"]),
                    active(group).to_string(),
                    yes_no(&group["is_paused"]),
                ]
            })
        }
        Command::Members { station } => {
            let mut members = Vec::new();
            for name in server.named_stations(station.as_deref()).await? {
                let answer = server.ask("GROUP.LIST", json!({ "station": name })).await?;
                for group in answer["groups"].as_array().into_iter().flatten() {
                    for member in group["members"].as_array().into_iter().flatten() {
                        let mut member = member.clone();
                        member["station"] = name.as_str().into();
                        member["group"] = group["group"].clone();
                        members.push(member);
                    }
                }
            }
            let headings = ["MEMBER", "STATION", "GROUP", "USER", "SDK", "ACTIVE"];
            output.table(&members.into(), &headings, |one| {
                vec![
                    cell(&one["name"]),
                    cell(&one["station"]),
                    cell(&one["group"]),
                    cell(&one["user"]),
                    cell(&one["sdk"]),
                    yes_no(&one["is_active"]),
                ]
            })
        }
        Command::Show { station, group } => {
            let body = json!({"station": station, "group": group});
            let answer = server.ask("GROUP.INFO", body).await?;
            show(output, &answer)
        }
        Command::Reset {
            station,
            group,
            sequence,
            time,
            start,
            end,
            partition,
        } => {
            let mut body = json!({"station": station, "group": group, "partition": partition});
            match (sequence, time, start, end) {
                (Some(sequence), ..) => body["sequence"] = sequence.into(),
                (_, Some(time), ..) => body["time"] = time.into(),
                (_, _, true, _) => body["to"] = "start".into(),
                (_, _, _, true) => body["to"] = "end".into(),
                _ => {
                    let text = "say where to: --start, --end, --sequence or --time";
                    return Err(Trouble::Usage(text.to_owned()));
                }
            }
            let answer = server.ask("GROUP.RESET", body).await?;
            if output.is_document() {
                return output.document(&answer);
            }
            output.table(&answer["sequences"], &["PARTITION", "GOES ON AT"], |one| {
                vec![cell(&one["partition"]), cell(&one["sequence"])]
            })
        }
        Command::Pause {
            station,
            group,
            time,
        } => {
            let seconds = time.as_secs();
            let body = json!({"station": station, "group": group, "seconds": seconds});
            let answer = server.ask("GROUP.PAUSE", body).await?;
            let text = format!(
                "group {group} is paused for {}   (end it: menes group resume {station} {group})",
                menes_stations::units::show_duration(time)
            );
            output.done(&text, &answer)
        }
        Command::Resume { station, group } => {
            let body = json!({"station": station, "group": group});
            let answer = server.ask("GROUP.RESUME", body).await?;
            output.done(&format!("group {group} goes on"), &answer)
        }
        Command::Edit {
            station,
            group,
            ack_time,
            deliveries,
            backoff,
            follow_members,
        } => {
            let mut body = Map::new();
            body.insert("station".to_owned(), station.into());
            body.insert("group".to_owned(), group.clone().into());
            let wanted = [
                ("max_ack_time_ms", ack_time.map(Value::from)),
                ("max_msg_deliveries", deliveries.map(Value::from)),
                ("backoff_ms", backoff.map(Value::from)),
                ("follow_members", follow_members.then_some(true.into())),
            ];
            for (key, value) in wanted {
                if let Some(value) = value {
                    body.insert(key.to_owned(), value);
                }
            }
            let answer = server.ask("GROUP.UPDATE", body.into()).await?;
            output.done(&format!("changed group {group}"), &answer)
        }
        Command::Rm { station, group } => {
            output.sure(&format!(
                "remove group {group} of station {station} and its position"
            ))?;
            let body = json!({"station": station, "group": group});
            let answer = server.ask("GROUP.DELETE", body).await?;
            output.done(&format!("removed group {group}"), &answer)
        }
    }
}

fn active(group: &Value) -> usize {
    let members = group["members"].as_array().into_iter().flatten();
    members.filter(|member| member["is_active"] == true).count()
}

fn yes_no(value: &Value) -> String {
    if *value == true { "yes" } else { "no" }.to_owned()
}

fn show(output: &Output, group: &Value) -> Outcome {
    if output.is_document() {
        return output.document(group);
    }
    for (name, key) in [
        ("group", "group"),
        ("lag", "lag"),
        ("in flight", "in_process"),
        ("time to ack, ms", "max_ack_time_ms"),
        ("most deliveries", "max_msg_deliveries"),
        ("backoff, ms", "backoff_ms"),
    ] {
        output.line(&format!("{name:16} {}", cell(&group[key])))?;
    }
    output.line("")?;
    let headings = [
        "PARTITION",
        "LAG",
        "IN FLIGHT",
        "DELIVERED",
        "ACKNOWLEDGED",
        "PAUSED",
    ];
    output.table(&group["partitions"], &headings, |one| {
        vec![
            cell(&one["partition"]),
            cell(&one["lag"]),
            cell(&one["in_process"]),
            cell(&one["delivered"]),
            cell(&one["ack_floor"]),
            yes_no(&one["is_paused"]),
        ]
    })?;
    output.line("")?;
    output.table(
        &group["members"],
        &["MEMBER", "USER", "SDK", "ACTIVE"],
        |one| {
            vec![
                cell(&one["name"]),
                cell(&one["user"]),
                cell(&one["sdk"]),
                yes_no(&one["is_active"]),
            ]
        },
    )
}
