//! `menes bench`: how fast a server is, as a client sees it.
//!
//! Every client has a connection of its own and works on a station that is made for the run and
//! removed after it, however it ends. What is measured is what an application waits for: the
//! acknowledgement of a message, which means that it is on disk, and its way to a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use menes_stations::name::{GroupName, StationName};
use menes_stations::units;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::output::Output;
use super::server::{Server, Where};
use super::station::{bytes, duration};
use super::{Outcome, Trouble};

/// Longest latency that is told apart, microseconds.
const MAX_LATENCY: u64 = 600_000_000;
/// Messages that a client of `consume` asks for at a time.
const FETCH: usize = 500;
/// A group that finds nothing for so long has everything.
const SILENCE: Duration = Duration::from_secs(5);
/// Largest message.
const MAX_SIZE: u64 = 8 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Messages stored: each is acknowledged once it is on disk
    #[command(
        after_help = "Examples:\n  menes bench produce\n  menes bench produce --size 256 --clients 4 --in-flight 500 --for 30s"
    )]
    Produce {
        #[command(flatten)]
        load: Load,
        /// Messages of a client that may wait for their acknowledgement
        #[arg(long, value_name = "COUNT", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=100_000))]
        in_flight: u32,
        /// So many messages, in place of a time
        #[arg(long, value_name = "COUNT", conflicts_with = "time",
              value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
        count: Option<u64>,
    },
    /// Messages taken by a group and acknowledged; they are produced first
    #[command(after_help = "Examples:\n  menes bench consume --count 1000000 --size 256")]
    Consume {
        #[command(flatten)]
        load: Load,
        /// How many
        #[arg(long, value_name = "COUNT", default_value_t = 100_000,
              value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
        count: u64,
    },
    /// From sending a message to having it as a member of a group, one at a time for each client
    #[command(after_help = "Examples:\n  menes bench roundtrip --size 1KiB --clients 8 --for 10s")]
    Roundtrip {
        #[command(flatten)]
        load: Load,
    },
}

/// What is sent, by how many
#[derive(Clone, Debug, Args)]
pub(super) struct Load {
    /// Size of a payload, as 1KiB
    #[arg(long, default_value = "1KiB", value_parser = bytes)]
    size: u64,
    /// Clients, each with a connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: u32,
    /// How long, as 10s
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    time: Duration,
    /// Partitions of the station; as many as there are clients otherwise, 16 at most
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    partitions: Option<u32>,
    /// Where the station lies
    #[arg(long, value_enum, default_value_t = Storage::File)]
    storage: Storage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Storage {
    /// On disk
    File,
    /// In memory
    Memory,
}

/// What the clients did together.
struct Figures {
    messages: u64,
    /// Messages that were refused, or whose answer did not come.
    failures: u64,
    /// Why the first one failed.
    why: Option<String>,
    /// Microseconds.
    latency: Histogram<u64>,
}

impl Figures {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY, 3);
        Self {
            messages: 0,
            failures: 0,
            why: None,
            latency: latency.expect("the bounds are constants in order"),
        }
    }

    fn done(&mut self, took: Duration) {
        self.messages += 1;
        let micros = u64::try_from(took.as_micros()).unwrap_or(MAX_LATENCY);
        self.latency.saturating_record(micros.max(1));
    }

    fn failed(&mut self, why: &impl std::fmt::Display) {
        self.failures += 1;
        self.why.get_or_insert_with(|| why.to_string());
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.failures += other.failures;
        self.why = self.why.take().or(other.why);
        self.latency
            .add(other.latency)
            .expect("all have the same bounds");
    }
}

/// A station that is removed after the run.
struct Track {
    station: StationName,
    partitions: u32,
    group: GroupName,
    payload: Bytes,
    /// What the clients count their time from.
    epoch: Instant,
}

impl Track {
    /// Nanoseconds since the epoch.
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The partition and subject of the n-th message.
    fn subject(&self, turn: u64) -> String {
        let partition = turn % u64::from(self.partitions) + 1;
        self.station.subject(u32::try_from(partition).unwrap_or(1))
    }
}

pub(super) async fn run(
    server: &Server,
    at: &Where,
    output: &Output,
    command: Command,
    timeout: Duration,
) -> Outcome {
    let load = match &command {
        Command::Produce { load, .. }
        | Command::Consume { load, .. }
        | Command::Roundtrip { load } => load.clone(),
    };
    if load.size == 0 || load.size > MAX_SIZE {
        return Err(Trouble::Usage("--size is 1 to 8MiB".to_owned()));
    }
    let name = format!("bench-{:08x}", rand::random::<u32>());
    let partitions = load.partitions.unwrap_or_else(|| load.clients.min(16));
    let storage = match load.storage {
        Storage::File => "file",
        Storage::Memory => "memory",
    };
    let parsed = |error: &dyn std::fmt::Display| Trouble::Failed(error.to_string());
    let track = Arc::new(Track {
        station: StationName::parse(&name).map_err(|error| parsed(&error))?,
        partitions,
        group: GroupName::parse("bench").map_err(|error| parsed(&error))?,
        payload: payload(load.size),
        epoch: Instant::now(),
    });
    let body = json!({
        "station": name, "partitions_number": partitions, "storage_type": storage,
        "retention_type": "message_age_sec", "retention_value": 3600,
        "dls_configuration": {"poison": false, "schemaverse": false},
    });
    let made = server.ask("STATION.CREATE", body).await?;
    let clients = Clients {
        at,
        timeout,
        load: &load,
        track,
    };
    let outcome = tokio::select! {
        outcome = measured(server, &clients, &command) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Trouble::Failed("stopped".to_owned())),
    };
    // It goes whatever came out, and says so if it does not.
    let removed = server.ask("STATION.DELETE", json!({"station": name})).await;
    let (figures, took) = outcome?;
    removed?;
    show(output, &command, &load, &made, &figures, took)
}

/// A payload that does not shrink when it is compressed.
fn payload(size: u64) -> Bytes {
    use rand::RngCore;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    rand::rng().fill_bytes(&mut bytes);
    bytes.into()
}

/// Who does the work.
struct Clients<'a> {
    at: &'a Where,
    timeout: Duration,
    load: &'a Load,
    track: Arc<Track>,
}

impl Clients<'_> {
    /// Runs `work` on a connection for each client, and puts together what they did.
    async fn each<W, F>(&self, work: W) -> Outcome<(Figures, Duration)>
    where
        W: Fn(u64, Server, Arc<Track>) -> F,
        F: Future<Output = Outcome<Figures>> + Send + 'static,
    {
        let mut servers = Vec::new();
        for _ in 0..self.load.clients {
            servers.push(Server::connect(self.at, self.timeout, false).await?);
        }
        let began = Instant::now();
        let mut working = JoinSet::new();
        for (number, server) in (0..).zip(servers) {
            working.spawn(work(number, server, Arc::clone(&self.track)));
        }
        let mut all = Figures::new();
        while let Some(ended) = working.join_next().await {
            let figures = ended.map_err(|error| Trouble::Failed(error.to_string()))?;
            all.add(figures?);
        }
        Ok((all, began.elapsed()))
    }

    /// Makes the group, for each partition.
    async fn join(&self, server: &Server) -> Outcome {
        let body = json!({
            "station": self.track.station.external(), "group": self.track.group.external(),
            "max_ack_time_ms": 30_000, "max_msg_deliveries": 10,
        });
        server.ask("GROUP.CREATE", body).await.map(drop)
    }
}

async fn measured(
    server: &Server,
    clients: &Clients<'_>,
    command: &Command,
) -> Outcome<(Figures, Duration)> {
    let time = clients.load.time;
    match command {
        Command::Produce {
            in_flight, count, ..
        } => {
            let in_flight = *in_flight as usize;
            let end = Instant::now() + time;
            let each = count.map(|count| count.div_ceil(u64::from(clients.load.clients)));
            clients
                .each(|number, server, track| async move {
                    let goes_on = move |sent: u64| match each {
                        Some(each) => sent < each,
                        None => Instant::now() < end,
                    };
                    producing(number, &server, &track, in_flight, goes_on).await
                })
                .await
        }
        Command::Consume { count, load } => {
            let each = count.div_ceil(u64::from(load.clients));
            clients.join(server).await?;
            let (made, _) = clients
                .each(|number, server, track| async move {
                    producing(number, &server, &track, 500, move |sent| sent < each).await
                })
                .await?;
            if let Some(why) = made.why {
                return Err(Trouble::Failed(why));
            }
            let total = made.messages;
            let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
            clients
                .each(|number, server, track| {
                    let taken = Arc::clone(&taken);
                    async move { consuming(number, &server, &track, &taken, total).await }
                })
                .await
        }
        Command::Roundtrip { .. } => {
            clients.join(server).await?;
            clients
                .each(|number, server, track| async move {
                    round_trips(number, &server, &track, time).await
                })
                .await
        }
    }
}

/// Sends while it `goes_on`, and waits for every acknowledgement.
async fn producing(
    number: u64,
    server: &Server,
    track: &Track,
    in_flight: usize,
    goes_on: impl Fn(u64) -> bool,
) -> Outcome<Figures> {
    let mut figures = Figures::new();
    let jetstream = jetstream::new(server.client.clone());
    let mut waiting = FuturesUnordered::new();
    let mut sent = 0;
    loop {
        while waiting.len() < in_flight && goes_on(sent) {
            let subject = track.subject(number + sent);
            sent += 1;
            let began = Instant::now();
            let published = jetstream.publish(subject, track.payload.clone()).await;
            let published = published.map_err(|error| Trouble::Failed(error.to_string()))?;
            waiting.push(async move { (published.await, began.elapsed()) });
        }
        match waiting.next().await {
            None => break,
            Some((Ok(_), took)) => figures.done(took),
            Some((Err(error), _)) => {
                figures.failed(&error);
                // A server that refuses everything need not be asked for long.
                if figures.messages == 0 && figures.failures > 100 {
                    break;
                }
            }
        }
    }
    server.close().await;
    Ok(figures)
}

/// The group of a partition, to be asked for messages.
async fn consumer(server: &Server, track: &Track, partition: u32) -> Outcome<PullConsumer> {
    let jetstream = jetstream::new(server.client.clone());
    let stream = track.station.stream(partition);
    jetstream
        .get_consumer_from_stream(track.group.internal(), stream)
        .await
        .map_err(|error| Trouble::Failed(error.to_string()))
}

/// Takes and acknowledges until the clients have taken them all.
async fn consuming(
    number: u64,
    server: &Server,
    track: &Track,
    taken: &std::sync::atomic::AtomicU64,
    total: u64,
) -> Outcome<Figures> {
    use std::sync::atomic::Ordering;
    let mut figures = Figures::new();
    let failed = |error: &dyn std::fmt::Display| Trouble::Failed(error.to_string());
    let mut streams = Vec::new();
    for partition in 1..=track.partitions {
        let consumer = consumer(server, track, partition).await?;
        let messages: pull::Stream = consumer
            .stream()
            .max_messages_per_batch(FETCH)
            .messages()
            .await
            .map_err(|error| failed(&error))?;
        streams.push(messages);
    }
    // Not everybody begins with the first partition.
    let turn = usize::try_from(number).unwrap_or(0) % streams.len();
    streams.rotate_left(turn);
    let mut messages = futures_util::stream::select_all(streams);
    let mut last = Instant::now();
    while taken.load(Ordering::Relaxed) < total {
        // Others may take the rest: this one looks again now and then.
        match tokio::time::timeout(Duration::from_millis(100), messages.next()).await {
            Ok(Some(message)) => {
                let message = message.map_err(|error| failed(&error))?;
                message.ack().await.map_err(|error| failed(&error))?;
                figures.done(last.elapsed());
                last = Instant::now();
                taken.fetch_add(1, Ordering::Relaxed);
            }
            Ok(None) => break,
            Err(_) if last.elapsed() > SILENCE => break,
            Err(_) => {}
        }
    }
    drop(messages);
    server.close().await;
    Ok(figures)
}

/// Sends one message at a time and takes whatever comes: with as many clients as there are
/// messages, each takes the message of another, which is timed by when it was sent.
async fn round_trips(
    number: u64,
    server: &Server,
    track: &Track,
    time: Duration,
) -> Outcome<Figures> {
    let mut figures = Figures::new();
    let failed = |error: &dyn std::fmt::Display| Trouble::Failed(error.to_string());
    let partition = u32::try_from(number % u64::from(track.partitions)).unwrap_or(0) + 1;
    let consumer = consumer(server, track, partition).await?;
    let mut messages: pull::Stream = consumer
        .stream()
        .max_messages_per_batch(1)
        .messages()
        .await
        .map_err(|error| failed(&error))?;
    let subject = track.station.subject(partition);
    let jetstream = jetstream::new(server.client.clone());
    let end = Instant::now() + time;
    while Instant::now() < end {
        let mut headers = HeaderMap::new();
        headers.insert(SENT, track.now().to_string());
        let published = jetstream
            .publish_with_headers(subject.clone(), headers, track.payload.clone())
            .await
            .map_err(|error| failed(&error))?;
        if let Err(error) = published.await {
            figures.failed(&error);
            continue;
        }
        let next = tokio::time::timeout(SILENCE, messages.next()).await;
        let Ok(Some(message)) = next else {
            figures.failed(&"the message did not come");
            continue;
        };
        let message = message.map_err(|error| failed(&error))?;
        let now = track.now();
        let sent = message.headers.as_ref().and_then(|fields| fields.get(SENT));
        let sent = sent.and_then(|text| text.as_str().parse::<u64>().ok());
        message.ack().await.map_err(|error| failed(&error))?;
        let took = now.saturating_sub(sent.unwrap_or(now));
        figures.done(Duration::from_nanos(took));
    }
    drop(messages);
    server.close().await;
    Ok(figures)
}

/// When a message was sent, nanoseconds.
const SENT: &str = "Sent";

fn rate(count: u64, took: Duration) -> u64 {
    // As near as anybody looks.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate for people; it is positive, and far below what a float holds"
    )]
    let rate = (count as f64 / took.as_secs_f64().max(0.001)) as u64;
    rate
}

fn show(
    output: &Output,
    command: &Command,
    load: &Load,
    made: &Value,
    figures: &Figures,
    took: Duration,
) -> Outcome {
    let quantile = |part: f64| figures.latency.value_at_quantile(part);
    let name = made["name"].as_str().unwrap_or_default();
    let messages = rate(figures.messages, took);
    let bytes = rate(figures.messages.saturating_mul(load.size), took);
    let verb = match command {
        Command::Consume { .. } => "taken",
        Command::Produce { .. } | Command::Roundtrip { .. } => "sent",
    };
    if output.is_document() {
        output.document(&json!({
            "messages": figures.messages,
            "failures": figures.failures,
            "seconds": took.as_secs_f64(),
            "messages_per_second": messages,
            "bytes_per_second": bytes,
            "latency_us": {
                "p50": quantile(0.5), "p99": quantile(0.99), "p999": quantile(0.999),
                "max": figures.latency.max(),
            },
            "station": name,
        }))?;
    } else {
        output.line(&format!(
            "{verb:9} {} messages   {} msg/s   {}/s",
            grouped(figures.messages),
            units::show_count(messages),
            units::show_bytes(bytes),
        ))?;
        // Between two messages of a group there is nothing to wait for.
        if !matches!(command, Command::Consume { .. }) {
            output.line(&format!(
                "latency   50 % {} · 99 % {} · 99.9 % {} · max {}",
                milliseconds(quantile(0.5)),
                milliseconds(quantile(0.99)),
                milliseconds(quantile(0.999)),
                milliseconds(figures.latency.max()),
            ))?;
        }
        let mut place = String::from(match load.storage {
            Storage::File => "stored",
            Storage::Memory => "in memory",
        });
        if let Some(replicas) = made["replicas"].as_u64() {
            place.push_str(&format!(" on {replicas} of {replicas}"));
        }
        output.line(&format!(
            "{place} before each acknowledgement · station {name} removed"
        ))?;
    }
    match &figures.why {
        None => Ok(()),
        Some(why) => Err(Trouble::Failed(format!(
            "{} messages failed, the first: {why}",
            figures.failures
        ))),
    }
}

/// A number with its thousands apart.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds, for people.
fn milliseconds(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{:02} ms", micros / 1_000, micros % 1_000 / 10),
        _ => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_people() {
        assert_eq!(grouped(1_204_311), "1,204,311");
        assert_eq!((grouped(0), grouped(999)), ("0".into(), "999".into()));
        assert_eq!(milliseconds(410), "0.41 ms");
        assert_eq!(milliseconds(21_049), "21.0 ms");
    }

    #[test]
    fn what_clients_did_is_put_together() {
        let mut all = Figures::new();
        for took in [1, 2, 9] {
            let mut one = Figures::new();
            one.done(Duration::from_millis(took));
            all.add(one);
        }
        let mut bad = Figures::new();
        bad.failed(&"no room");
        all.add(bad);
        assert_eq!((all.messages, all.failures), (3, 1));
        assert_eq!(all.why.as_deref(), Some("no room"));
        assert!(all.latency.max() >= 9_000);
        all.done(Duration::from_secs(100_000));
        assert!(all.latency.max() >= MAX_LATENCY);
    }
}
