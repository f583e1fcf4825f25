//! `menes schema`.

use clap::{Args, Subcommand};
use menes_schemas::{Definition, Format, Inferred, Validator};
use menes_stations::schema::SchemaKind;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::messages::content;
use super::output::{Output, beginning, cell, shown};
use super::samples::{self, Sample};
use super::server::Server;
use super::{Outcome, Trouble};

/// Messages of a station that are looked at unless told otherwise.
const NEWEST: usize = 1_000;
/// Violations that are shown.
const SHOWN: usize = 10;

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
    /// What is other in one version than in another, and whether messages of the one fit the other
    #[command(
        after_help = "Examples:\n  menes schema diff order\n  menes schema diff order 2 3\n  menes schema diff order --with @order.json"
    )]
    Diff {
        /// Its name
        name: String,
        /// The one; the active one otherwise
        from: Option<u32>,
        /// The other; the latest otherwise
        to: Option<u32>,
        /// The other is this definition: a text, @FILE, or - for standard input
        #[arg(long, value_name = "DEFINITION", conflicts_with = "to")]
        with: Option<String>,
    },
    /// Hold messages against a schema; exit code 1 if one violates it
    #[command(
        after_help = "Examples:\n  menes schema check order '{\"id\": 1}'\n  menes schema check order --station orders --last 10000\n  menes schema check --type json --content @order.json @message.json"
    )]
    Check(Check),
    /// Make a JSON Schema that these messages keep
    #[command(
        after_help = "Examples:\n  menes schema infer --station orders\n  menes schema infer @messages.json > order.json"
    )]
    Infer {
        /// The messages: texts, @FILEs (also with one to a line), or - for standard input
        #[arg(required_unless_present = "station")]
        messages: Vec<String>,
        /// The newest messages of this station
        #[arg(long, conflicts_with = "messages")]
        station: Option<String>,
        /// How many of them
        #[arg(long, default_value_t = NEWEST, value_name = "COUNT")]
        last: usize,
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

/// Which schema, and which messages
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Name of the schema, and messages: texts, @FILEs (also with one to a line), or - for
    /// standard input
    #[arg(required_unless_present = "content", value_name = "NAME|MESSAGE")]
    words: Vec<String>,
    /// This version; the active one otherwise
    #[arg(long)]
    version: Option<u32>,
    /// The newest messages of this station
    #[arg(long)]
    station: Option<String>,
    /// How many of them
    #[arg(long, default_value_t = NEWEST, value_name = "COUNT")]
    last: usize,
    /// A definition in place of a stored one: a text, @FILE, or - for standard input
    #[arg(long, value_name = "DEFINITION", conflicts_with = "version")]
    content: Option<String>,
    /// What the definition is written in: json, protobuf, avro or graphql
    #[arg(long = "type", value_name = "TYPE", default_value = "json")]
    kind: String,
    /// Protobuf: the root message of the definition
    #[arg(long)]
    message: Option<String>,
}

fn format_of(kind: &str) -> Outcome<Format> {
    match SchemaKind::parse(kind) {
        Some(SchemaKind::Json) => Ok(Format::Json),
        Some(SchemaKind::Protobuf) => Ok(Format::Protobuf),
        Some(SchemaKind::Avro) => Ok(Format::Avro),
        Some(SchemaKind::Graphql) => Ok(Format::Graphql),
        None => Err(Trouble::Usage(format!(
            "{kind:?} is no type of schema: json, protobuf, avro or graphql"
        ))),
    }
}

fn text(argument: &str) -> Outcome<String> {
    String::from_utf8(content(argument)?)
        .map_err(|_| Trouble::Usage("the definition is not UTF-8".to_owned()))
}

/// A stored version: this one, or the active one.
fn version(schema: &Value, number: Option<u32>) -> Outcome<&Value> {
    let number = number.map_or_else(|| schema["active"].clone(), Value::from);
    let mut versions = schema["versions"].as_array().into_iter().flatten();
    let found = versions.find(|version| version["number"] == number);
    found.ok_or_else(|| {
        let name = cell(&schema["name"]);
        Trouble::NotFound(format!("schema {name} has no version {}", cell(&number)))
    })
}

fn content_of(version: &Value) -> &str {
    version["content"].as_str().unwrap_or_default()
}

/// JSON on lines of its own, so that a difference is one of lines.
fn laid_out(format: Format, content: &str) -> String {
    if matches!(format, Format::Json | Format::Avro)
        && let Ok(document) = serde_json::from_str::<Value>(content)
        && let Ok(text) = serde_json::to_string_pretty(&document)
    {
        return text;
    }
    content.to_owned()
}

async fn diff(
    server: &Server,
    output: &Output,
    name: &str,
    from: Option<u32>,
    other: (Option<u32>, Option<&str>),
) -> Outcome {
    let schema = server.ask("SCHEMA.INFO", json!({ "name": name })).await?;
    let format = format_of(schema["type"].as_str().unwrap_or_default())?;
    let one = version(&schema, from)?;
    let (to, with) = other;
    let (label, after) = match with {
        Some(definition) => ("the new definition".to_owned(), text(definition)?),
        None => {
            let latest = schema["versions"].as_array().and_then(|all| all.last());
            let latest = latest.and_then(|version| version["number"].as_u64());
            let latest = latest.and_then(|number| u32::try_from(number).ok());
            let two = version(&schema, to.or(latest))?;
            let label = format!("version {}", cell(&two["number"]));
            (label, content_of(two).to_owned())
        }
    };
    let before = content_of(one);
    let fits = menes_schemas::compatible(format, before, &after);
    let (old, new) = (laid_out(format, before), laid_out(format, &after));
    let compared = TextDiff::from_lines(&old, &new);
    let lines: Vec<String> = compared
        .iter_all_changes()
        .map(|change| {
            let mark = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            format!("{mark} {}", shown(change.value().trim_end_matches('\n')))
        })
        .collect();
    let why = fits.as_ref().err().map(ToString::to_string);
    if output.is_document() {
        return output.document(&json!({
            "name": name, "from": one["number"], "to": label,
            "is_same": old == new, "is_compatible": why.is_none(), "why_not": why, "lines": lines,
        }));
    }
    output.line(&format!("- version {}", cell(&one["number"])))?;
    output.line(&format!("+ {label}"))?;
    if old == new {
        return output.line("no difference");
    }
    for line in lines {
        output.line(&line)?;
    }
    match why {
        None => output.line("compatible: messages of the one are understood with the other"),
        Some(why) => output.line(&format!("not compatible: {}", shown(&why))),
    }
}

/// Carries out what needs no server; gives everything else back.
pub(super) fn alone(output: &Output, command: Command) -> Outcome<Option<Command>> {
    match command {
        Command::Infer {
            messages,
            station: None,
            ..
        } => infer(output, &samples::given(&messages)?)?,
        Command::Check(Check {
            words,
            station: None,
            content: Some(definition),
            kind,
            message,
            ..
        }) => {
            let message = message.unwrap_or_default();
            let validator = compiled(format_of(&kind)?, &text(&definition)?, &message)?;
            held(output, &validator, &samples::given(&words)?)?;
        }
        command => return Ok(Some(command)),
    }
    Ok(None)
}

fn compiled(format: Format, content: &str, message: &str) -> Outcome<Validator> {
    let definition = Definition {
        format,
        content,
        message,
        file_name: "definition.proto",
    };
    menes_schemas::compile(&definition)
        .map(|compiled| compiled.validator)
        .map_err(|error| Trouble::Failed(error.to_string()))
}

async fn check(server: &Server, output: &Output, asked: Check) -> Outcome {
    let mut messages = asked.words;
    let validator = match asked.content {
        Some(definition) => {
            let message = asked.message.unwrap_or_default();
            compiled(format_of(&asked.kind)?, &text(&definition)?, &message)?
        }
        None => {
            let name = messages.remove(0);
            let schema = server.ask("SCHEMA.INFO", json!({ "name": name })).await?;
            let format = format_of(schema["type"].as_str().unwrap_or_default())?;
            let version = version(&schema, asked.version)?;
            let message = version["message"].as_str().unwrap_or_default();
            compiled(format, content_of(version), message)?
        }
    };
    let mut samples = samples::given(&messages)?;
    if let Some(station) = &asked.station {
        samples.extend(samples::newest(server, station, asked.last).await?);
    }
    held(output, &validator, &samples)
}

/// Says what of the messages violates the schema.
fn held(output: &Output, validator: &Validator, samples: &[Sample]) -> Outcome {
    if samples.is_empty() {
        let text = "there are no messages to check: texts, @FILEs, or --station";
        return Err(Trouble::Usage(text.to_owned()));
    }
    let mut violations = Vec::new();
    for sample in samples {
        if let Err(why) = validator.check(&sample.payload) {
            violations.push(json!({"from": sample.from, "why": why.to_string()}));
        }
    }
    let (count, bad) = (samples.len(), violations.len());
    if output.is_document() {
        output.document(&json!({"checked": count, "violations": violations}))?;
    } else {
        for violation in violations.iter().take(SHOWN) {
            let why = violation["why"].as_str().unwrap_or_default();
            output.line(&format!(
                "{}: {}",
                cell(&violation["from"]),
                beginning(why, 200)
            ))?;
        }
        if bad > SHOWN {
            output.line(&format!("and {} more", bad - SHOWN))?;
        }
        if bad == 0 {
            output.line(&format!("all of {count} keep the schema"))?;
        }
    }
    if bad == 0 {
        return Ok(());
    }
    // Tenths of a percent, without losing the last of many.
    let per_mille = (bad * 1_000).div_ceil(count);
    Err(Trouble::Failed(format!(
        "{bad} of {count} would be rejected ({}.{} %)",
        per_mille / 10,
        per_mille % 10
    )))
}

fn infer(output: &Output, samples: &[Sample]) -> Outcome {
    let mut inferred = Inferred::default();
    for sample in samples {
        match serde_json::from_slice(&sample.payload) {
            Ok(message) => inferred.add(&message),
            Err(error) => {
                let text = format!("{} is no JSON: {error}", sample.from);
                return Err(Trouble::Failed(text));
            }
        }
    }
    if inferred.samples() == 0 {
        return Err(Trouble::NotFound("there are no messages".to_owned()));
    }
    output.remark(&format!(
        "of {} messages · store it: menes schema create NAME --type json @FILE",
        inferred.samples()
    ));
    output.document(&inferred.schema())
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
            let definition = text(&definition)?;
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
            if output.is_document() {
                return output.document(&answer);
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
                    output.line(&shown(line))?;
                }
            }
            Ok(())
        }
        Command::Diff {
            name,
            from,
            to,
            with,
        } => diff(server, output, &name, from, (to, with.as_deref())).await,
        Command::Check(asked) => check(server, output, asked).await,
        Command::Infer {
            messages,
            station,
            last,
        } => {
            let samples = match station {
                Some(station) => samples::newest(server, &station, last).await?,
                None => samples::given(&messages)?,
            };
            infer(output, &samples)
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
