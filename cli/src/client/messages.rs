//! `menes produce` and `menes consume`.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use clap::Args;
use data_encoding::BASE64;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use jiff::{Timestamp, Zoned};
use menes_stations::name::{GroupName, StationName};
use menes_stations::units;
use serde_json::{Map, Value, json};

use super::output::{Output, beginning, shown_at};
use super::server::Server;
use super::{Outcome, Trouble};

/// Silence after which a person is told what is waited for.
const QUIET: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Produce {
    /// The station
    station: String,
    /// The message: a text, @FILE, or - for standard input
    #[arg(required_unless_present = "lines")]
    message: Option<String>,
    /// Every line of standard input is a message
    #[arg(long, conflicts_with = "message")]
    lines: bool,
    /// A header, as NAME:VALUE
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// An id: of messages with the same one, one is stored
    #[arg(long, conflicts_with = "lines")]
    id: Option<String>,
    /// To this partition; otherwise in turn
    #[arg(long)]
    partition: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct Consume {
    /// The station
    station: String,
    /// The group; its position is kept
    #[arg(long, short)]
    group: String,
    /// End after so many messages
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// End when there was nothing for so many milliseconds
    #[arg(long, value_name = "MS")]
    idle: Option<u64>,
}

/// A text, a file's content, or what comes on standard input.
pub(super) fn content(argument: &str) -> Outcome<Vec<u8>> {
    if argument == "-" {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut bytes);
        return match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(Trouble::Failed(format!("standard input: {error}"))),
        };
    }
    match argument.strip_prefix('@') {
        Some(path) => {
            std::fs::read(path).map_err(|error| Trouble::NotFound(format!("{path}: {error}")))
        }
        None => Ok(argument.as_bytes().to_vec()),
    }
}

fn station_name(text: &str) -> Outcome<StationName> {
    StationName::parse(text).map_err(|error| Trouble::Usage(format!("{text:?}: {error}")))
}

fn headers(given: &[String], id: Option<&str>, server: &Server) -> Outcome<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("$memphis_producedBy", "menes");
    headers.insert("$memphis_connectionId", server.connection_id.as_str());
    if let Some(id) = id {
        headers.insert("msg-id", id);
    }
    for text in given {
        let wrong = || Trouble::Usage(format!("{text:?} is no header, as NAME:VALUE"));
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// A station being written to.
struct Target<'a> {
    server: &'a Server,
    station: StationName,
    partitions: Vec<u32>,
    turn: usize,
}

impl Target<'_> {
    /// Stores a message; says where.
    async fn store(&mut self, headers: HeaderMap, payload: Vec<u8>) -> Outcome<Value> {
        let partition = self.partitions[self.turn % self.partitions.len()];
        self.turn += 1;
        let subject = self.station.subject(partition);
        let answer = self.server.request(&subject, headers, payload).await?;
        let ack: Value = serde_json::from_slice(&answer)
            .map_err(|error| Trouble::Failed(format!("the answer cannot be read: {error}")))?;
        if let Some(text) = ack["error"]["description"].as_str() {
            return Err(Trouble::of(text.to_owned()));
        }
        Ok(json!({
            "station": self.station.external(),
            "partition": partition,
            "sequence": ack["seq"],
            "duplicate": ack["duplicate"] == true,
        }))
    }
}

/// Becomes a producer of a station, in the way of the SDKs; says how many partitions it has.
async fn register(server: &Server, station: &str) -> Outcome<Value> {
    let request = json!({
        "name": "menes",
        "station_name": station,
        "connection_id": server.connection_id,
        "producer_type": "application",
        "req_version": 4,
        "username": server.user,
        "app_id": server.connection_id,
        "sdk_lang": "menes",
    });
    let joined = server.call("$memphis_producer_creations", &request).await?;
    let numbers = &joined["partitions_update"]["partitions_list"];
    Ok(json!({"partitions": numbers.as_array().map(Vec::len)}))
}

pub(super) async fn produce(server: &Server, output: &Output, command: Produce) -> Outcome {
    let station = station_name(&command.station)?;
    let body = json!({ "station": command.station });
    let info = match server.ask("STATION.INFO", body.clone()).await {
        Err(Trouble::NotFound(_)) => {
            let made = server.ask("STATION.CREATE", body).await?;
            output.remark(&super::station::created(&made));
            made
        }
        // An application may not look at stations, but it may produce.
        Err(Trouble::Refused(_)) => register(server, &command.station).await?,
        other => other?,
    };
    let count = info["partitions"].as_u64().unwrap_or(1);
    let count = u32::try_from(count).unwrap_or(1).max(1);
    let partitions: Vec<u32> = match command.partition {
        Some(partition) if (1..=count).contains(&partition) => vec![partition],
        Some(partition) => {
            let text = format!("station {station} has no partition {partition}: 1 to {count}");
            return Err(Trouble::Usage(text));
        }
        None => (1..=count).collect(),
    };
    let mut target = Target {
        server,
        station,
        turn: rand::random_range(0..partitions.len()),
        partitions,
    };
    let headers = headers(&command.headers, command.id.as_deref(), server)?;
    let Some(message) = &command.message else {
        let mut stored = 0_u64;
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|error| Trouble::Failed(format!("standard input: {error}")))?;
            let receipt = target.store(headers.clone(), line.into_bytes()).await?;
            stored += 1;
            if output.is_document() {
                output.record(&receipt)?;
            }
        }
        return if output.is_document() {
            Ok(())
        } else {
            output.line(&format!("{stored} messages stored"))
        };
    };
    let payload = content(message)?;
    let size = units::show_bytes(payload.len() as u64);
    let began = Instant::now();
    let receipt = target.store(headers, payload).await?;
    let took = began.elapsed().as_secs_f64() * 1_000.0;
    if output.is_document() {
        return output.record(&receipt);
    }
    let state = if receipt["duplicate"] == true {
        "is there already".to_owned()
    } else {
        // One server is all there is.
        format!("stored on 1 of 1 in {took:.1} ms")
    };
    let partition = if count == 1 {
        String::new()
    } else {
        format!("partition {} ", receipt["partition"])
    };
    output.line(&format!(
        "{} {partition}#{}  {size}  {state}",
        target.station, receipt["sequence"]
    ))
}

pub(super) async fn consume(server: &Server, output: &Output, command: Consume) -> Outcome {
    let station = station_name(&command.station)?;
    let group = GroupName::parse(&command.group)
        .map_err(|error| Trouble::Usage(format!("{:?}: {error}", command.group)))?;
    let request = json!({
        "name": "menes",
        "station_name": command.station,
        "connection_id": server.connection_id,
        "consumer_type": "application",
        "consumers_group": command.group,
        "max_ack_time_ms": 30_000,
        "max_msg_deliveries": 10,
        "start_consume_from_sequence": 1,
        "last_messages": -1,
        "username": server.user,
        "req_version": 4,
        "app_id": server.connection_id,
        "sdk_lang": "menes",
    });
    let joined = server.call("$memphis_consumer_creations", &request).await?;
    let numbers = &joined["partitions_update"]["partitions_list"];
    let jetstream = jetstream::new(server.client.clone());
    let failed = |error: &dyn std::fmt::Display| Trouble::Failed(error.to_string());
    let mut streams = Vec::new();
    for partition in numbers.as_array().into_iter().flatten() {
        let partition = u32::try_from(partition.as_u64().unwrap_or(1)).unwrap_or(1);
        let consumer: PullConsumer = jetstream
            .get_consumer_from_stream(group.internal(), station.stream(partition))
            .await
            .map_err(|error| failed(&error))?;
        // Few at a time: what is fetched and not shown is delivered again later.
        let messages: pull::Stream = consumer
            .stream()
            .max_messages_per_batch(1)
            .messages()
            .await
            .map_err(|error| failed(&error))?;
        streams.push(messages.map(move |message| (partition, message)));
    }
    let has_partitions = streams.len() > 1;
    let mut messages = select_all(streams);
    let mut is_said = false;
    let mut taken = 0;
    let idle = command.idle.map(Duration::from_millis);
    while command.count.is_none_or(|count| taken < count) {
        let next = async {
            match idle {
                Some(idle) => tokio::time::timeout(idle, messages.next())
                    .await
                    .ok()
                    .flatten(),
                None => messages.next().await,
            }
        };
        tokio::pin!(next);
        let next = loop {
            tokio::select! {
                next = &mut next => break next,
                _ = tokio::signal::ctrl_c() => break None,
                () = tokio::time::sleep(QUIET), if !is_said => {
                    is_said = true;
                    let what = if taken == 0 { "messages" } else { "more" };
                    output.remark(&format!(
                        "waiting for {what}, Ctrl-C stops (position is kept for group {group})"
                    ));
                }
            }
        };
        let Some((partition, message)) = next else {
            break;
        };
        let message = message.map_err(|error| failed(&error))?;
        let shown = has_partitions.then_some(partition);
        print(output, &station, partition, shown, &message)?;
        message.double_ack().await.map_err(|error| failed(&error))?;
        taken += 1;
    }
    Ok(())
}

fn print(
    output: &Output,
    station: &StationName,
    partition: u32,
    shown: Option<u32>,
    message: &jetstream::Message,
) -> Outcome {
    let info = message
        .info()
        .map_err(|error| Trouble::Failed(error.to_string()))?;
    let payload = &message.payload;
    if !output.is_document() {
        let text = beginning(&String::from_utf8_lossy(payload), 4_096);
        let partition = shown.map_or_else(String::new, |number| format!("partition {number} "));
        let stored = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos());
        let stored = stored.unwrap_or_default();
        return output.line(&format!(
            "{partition}#{}  {}  {}  {text}",
            info.stream_sequence,
            shown_at(stored, &Zoned::now()),
            units::show_bytes(payload.len() as u64),
        ));
    }
    let mut shown = Map::new();
    for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
        let name: &str = name.as_ref();
        let last = values.last().map(|value| value.as_str().to_owned());
        if !name.starts_with("$memphis") {
            shown.insert(name.to_owned(), last.into());
        }
    }
    let mut document = json!({
        "station": station.external(),
        "partition": partition,
        "sequence": info.stream_sequence,
        "deliveries": info.delivered,
        "headers": shown,
    });
    match std::str::from_utf8(payload) {
        Ok(text) => document["payload"] = text.into(),
        Err(_) => document["payload_base64"] = BASE64.encode(payload).into(),
    }
    output.record(&document)
}
