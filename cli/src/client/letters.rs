//! `menes dls`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::messages::content;
use super::output::{Output, beginning, cell, clock};
use super::server::Server;
use super::{Outcome, Trouble};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List dead letters, oldest first
    Ls {
        /// The station; all of them without one
        station: Option<String>,
        #[command(flatten)]
        which: Which,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show a dead letter
    Show {
        /// Its number
        id: u64,
    },
    /// Send dead letters to the groups that failed, again
    #[command(
        after_help = "Examples:\n  menes dls resend payments 12 13\n  menes dls resend payments --all --group ledger\n  menes dls resend --all"
    )]
    Resend {
        /// The station; with --all, every station without one
        #[arg(required_unless_present = "all")]
        station: Option<String>,
        /// Their numbers
        ids: Vec<u64>,
        /// All of them
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Only those of this group
        #[arg(long)]
        group: Option<String>,
    },
    /// Publish a dead letter again, perhaps with another payload
    Edit {
        /// Its number
        id: u64,
        /// The payload: a text, @FILE, or - for standard input; as it was without one
        payload: Option<String>,
        /// Change one place of a JSON payload, as /amount=1
        #[arg(long, value_name = "POINTER=VALUE", conflicts_with = "payload")]
        set: Vec<String>,
        /// Send it to the group that failed, as a copy; the dead letter stays until it is
        /// acknowledged
        #[arg(long)]
        resend: bool,
    },
    /// Remove dead letters
    Drop {
        /// The station; with --all, every station without one
        #[arg(required_unless_present = "all")]
        station: Option<String>,
        /// Their numbers
        ids: Vec<u64>,
        /// All of them
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Only those of this kind: poison or schema
        #[arg(long, requires = "all")]
        kind: Option<String>,
        /// Only those of this group
        #[arg(long, requires = "all")]
        group: Option<String>,
    },
    /// Write dead letters to a file, one JSON object to a line
    Export {
        /// The station; all of them without one
        station: Option<String>,
        #[command(flatten)]
        which: Which,
        /// The file; standard output without one
        #[arg(long, short = 'f')]
        file: Option<PathBuf>,
    },
}

/// Which dead letters
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only those of this kind: poison or schema
    #[arg(long)]
    kind: Option<String>,
    /// Only those of this group
    #[arg(long)]
    group: Option<String>,
    /// Only those with this text in headers, payload or reason
    #[arg(long)]
    search: Option<String>,
}

/// Dead letters asked for at a time.
const PAGE: usize = 100;

/// Calls `take` with every dead letter that is meant, up to `limit`. False when there are more.
async fn each(
    server: &Server,
    station: Option<&str>,
    which: &Which,
    limit: usize,
    mut take: impl FnMut(Value) -> Outcome,
) -> Outcome<bool> {
    let mut after = Value::from(0);
    let mut taken = 0;
    loop {
        let body = json!({
            "station": station, "kind": which.kind, "group": which.group,
            "search": which.search, "after": after, "limit": PAGE.min(limit - taken),
        });
        let mut answer = server.ask("DEAD_LETTER.LIST", body).await?;
        if let Value::Array(letters) = answer["dead_letters"].take() {
            for letter in letters {
                taken += 1;
                take(letter)?;
            }
        }
        after = answer["next"].take();
        if after.is_null() {
            return Ok(true);
        }
        if taken >= limit {
            return Ok(false);
        }
    }
}

/// Why a message was given up.
fn why(letter: &Value) -> String {
    match letter["reason"].as_str().unwrap_or_default() {
        "" if letter["kind"] == "poison" => "not acknowledged in time".to_owned(),
        reason => beginning(reason, 60),
    }
}

/// A JSON payload with some of its places changed. A value that is no JSON is a text.
fn changed(payload: &[u8], set: &[String]) -> Outcome<String> {
    let usage = |text: String| Trouble::Usage(text);
    let mut document: Value = serde_json::from_slice(payload)
        .map_err(|_| usage("--set is for JSON, and the payload is none".to_owned()))?;
    for one in set {
        let (pointer, value) = one
            .split_once('=')
            .filter(|(pointer, _)| pointer.starts_with('/'))
            .ok_or_else(|| usage(format!("{one:?} is not /PLACE=VALUE")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        if let Some(place) = document.pointer_mut(pointer) {
            *place = value;
            continue;
        }
        // A field that is missing may be what is wrong.
        let (parent, name) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        let name = name.replace("~1", "/").replace("~0", "~");
        let fields = document.pointer_mut(parent).and_then(Value::as_object_mut);
        let fields = fields.ok_or_else(|| usage(format!("the payload has no place {pointer}")))?;
        fields.insert(name, value);
    }
    Ok(document.to_string())
}

fn payload_of(letter: &Value) -> Vec<u8> {
    let text = letter["payload"].as_str().unwrap_or_default();
    BASE64.decode(text.as_bytes()).unwrap_or_default()
}

pub(super) async fn run(server: &Server, output: &Output, command: Command) -> Outcome {
    match command {
        Command::Ls {
            station,
            which,
            limit,
        } => {
            let mut letters = Vec::new();
            let is_all = each(server, station.as_deref(), &which, limit.max(1), |letter| {
                letters.push(letter);
                Ok(())
            })
            .await?;
            let last = letters.last().map(|letter| cell(&letter["id"]));
            let count = letters.len();
            // Whose they are is said where it is not known.
            let mut headings = vec!["ID", "STATION", "WHEN", "GROUP", "TRIES", "WHY", "PAYLOAD"];
            if station.is_some() {
                headings.remove(1);
            }
            output.table(&Value::from(letters), &headings, |letter| {
                let mut row = vec![
                    cell(&letter["id"]),
                    cell(&letter["station"]),
                    clock(&letter["time_failed"]),
                    cell(&letter["group"]),
                    cell(&letter["deliveries"]),
                    why(letter),
                    beginning(&String::from_utf8_lossy(&payload_of(letter)), 30),
                ];
                if station.is_some() {
                    row.remove(1);
                }
                row
            })?;
            let much = if is_all {
                "in all"
            } else {
                "shown, there are more: --limit"
            };
            if let Some(last) = last {
                let all =
                    station.map_or_else(|| "--all".to_owned(), |name| format!("{name} --all"));
                output.remark(&format!(
                    "{count} {much} · resend all: menes dls resend {all} · look at one: menes dls show {last}"
                ));
            }
            Ok(())
        }
        Command::Show { id } => {
            let letter = server.ask("DEAD_LETTER.GET", json!({ "id": id })).await?;
            if output.is_document() {
                return output.document(&letter);
            }
            let mut shown = letter.clone();
            shown["payload"] = String::from_utf8_lossy(&payload_of(&letter)).into();
            output.fields(&shown)
        }
        Command::Resend {
            station,
            ids,
            all,
            group,
        } => {
            named(&ids, all)?;
            let body = json!({"station": station, "ids": ids, "group": group, "all": all});
            let answer = server.ask("DEAD_LETTER.RESEND", body).await?;
            output.done(&format!("sent again: {}", cell(&answer["resent"])), &answer)
        }
        Command::Edit {
            id,
            payload,
            set,
            resend,
        } => {
            let mut body = json!({ "id": id });
            if !set.is_empty() {
                let letter = server.ask("DEAD_LETTER.GET", json!({ "id": id })).await?;
                let changed = changed(&payload_of(&letter), &set)?;
                body["payload"] = BASE64.encode(changed.as_bytes()).into();
            }
            if let Some(payload) = payload {
                body["payload"] = BASE64.encode(&content(&payload)?).into();
            }
            if resend {
                return resend_edited(server, output, id, body).await;
            }
            let answer = server.ask("DEAD_LETTER.EDIT", body).await?;
            output.done(
                "published again as a new message; the dead letter is gone",
                &answer,
            )
        }
        Command::Drop {
            station,
            ids,
            all,
            kind,
            group,
        } => {
            named(&ids, all)?;
            let whose = station.as_deref().map_or_else(
                || "of every station".to_owned(),
                |name| format!("of station {name}"),
            );
            output.sure(&format!("remove dead letters {whose}"))?;
            let body = json!({
                "station": station, "ids": ids, "kind": kind, "group": group, "all": all,
            });
            let answer = server.ask("DEAD_LETTER.DROP", body).await?;
            output.done("dropped", &answer)
        }
        Command::Export {
            station,
            which,
            file,
        } => export(server, output, station.as_deref(), &which, file).await,
    }
}

/// Sends a dead letter with another payload to the group that failed it.
async fn resend_edited(server: &Server, output: &Output, id: u64, mut body: Value) -> Outcome {
    let letter = server.ask("DEAD_LETTER.GET", json!({ "id": id })).await?;
    let Some(group) = letter["group"].as_str() else {
        return Err(Trouble::Usage(format!(
            "no group failed dead letter {id}, it was refused before it was stored: without \
             --resend it is published"
        )));
    };
    body["station"] = letter["station"].clone();
    body["ids"] = json!([id]);
    let answer = server.ask("DEAD_LETTER.RESEND", body).await?;
    let text = format!("sent again to group {group} as a copy (original stays until acknowledged)");
    output.done(&text, &answer)
}

/// Nothing is meant by nothing.
fn named(ids: &[u64], all: bool) -> Outcome {
    if ids.is_empty() && !all {
        return Err(Trouble::Usage("which ones? numbers, or --all".to_owned()));
    }
    Ok(())
}

async fn export(
    server: &Server,
    output: &Output,
    station: Option<&str>,
    which: &Which,
    file: Option<PathBuf>,
) -> Outcome {
    let Some(path) = file else {
        each(server, station, which, usize::MAX, |letter| {
            output.record(&letter)
        })
        .await?;
        return Ok(());
    };
    let failed = |error: std::io::Error| Trouble::Failed(format!("{}: {error}", path.display()));
    let mut out = BufWriter::new(File::create(&path).map_err(failed)?);
    let mut count = 0;
    each(server, station, which, usize::MAX, |letter| {
        count += 1;
        writeln!(out, "{letter}").map_err(failed)
    })
    .await?;
    out.flush().map_err(failed)?;
    output.done(
        &format!("{count} dead letters in {}", path.display()),
        &json!({ "exported": count }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_of_a_payload_is_changed() {
        let set = |set: &str| changed(br#"{"id":772,"amount":-1}"#, &[set.to_owned()]);
        assert_eq!(
            set("/amount=1").expect("changed"),
            r#"{"amount":1,"id":772}"#
        );
        assert_eq!(
            set("/note=late").expect("added"),
            r#"{"amount":-1,"id":772,"note":"late"}"#
        );
        for bad in ["amount=1", "/a/b/c=1", "/amount"] {
            assert!(matches!(set(bad), Err(Trouble::Usage(_))), "{bad}");
        }
        assert!(changed(b"no JSON", &["/a=1".to_owned()]).is_err());
    }
}
