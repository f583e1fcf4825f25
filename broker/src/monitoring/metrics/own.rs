//! The metrics under our own names; `docs/metrics.md` lists them.

use std::sync::Arc;

use menes_jetstream::engine::StreamFigures;
use menes_stations::dead_letter;
use menes_stations::name::StationName;
use menes_storage::log::{COMMIT_BOUNDS, LogMonitor, TURN_BOUNDS};

use super::Streams;
use super::text::{Family, Kind, Labels, Value};
use crate::config::settings::MetricsSettings;
use crate::monitoring::{Monitor, process};

/// Everything there is to show.
pub(super) fn families(
    monitor: &Monitor,
    streams: Option<&Streams>,
    settings: &MetricsSettings,
) -> Vec<Family> {
    let mut families = server(monitor);
    families.extend(http(monitor));
    if let Some(ingest) = monitor.shared.ingest() {
        let (checked, rejected) = ingest.enforcement().counts();
        families.extend([
            Family::gauge(
                "menes_ingest_waiting_bytes",
                "Bytes that wait for the engine",
            )
            .of(ingest.bytes()),
            Family::counter(
                "menes_schema_checks",
                "Messages held against the schema of their station",
            )
            .of(checked),
            Family::counter(
                "menes_schema_rejections",
                "Messages that violate the schema of their station",
            )
            .of(rejected),
        ]);
    }
    if let Some(streams) = streams {
        families.extend(totals(streams));
        families.extend(details(streams, settings));
    }
    if let Some(log) = monitor.streams().and_then(|status| status.log()) {
        families.extend(log_families(&log));
    }
    families
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    let owned = pairs.map(|(name, value)| (name, value.to_owned()));
    Arc::new(Vec::from(owned))
}

fn server(monitor: &Monitor) -> Vec<Family> {
    let shared = &monitor.shared;
    let counters = shared.counter_sums();
    let traffic = counters.traffic;
    let mut build = Family::gauge("menes_build_info", "What runs; always 1");
    build.add(
        &labels([
            ("version", env!("CARGO_PKG_VERSION")),
            ("server_id", shared.id()),
            ("server_name", shared.name()),
        ]),
        true,
    );
    let mut slow = Family::counter(
        "menes_slow_consumers",
        "Connections closed because they took messages too slowly",
    );
    slow.add(
        &labels([("reason", "pending")]),
        counters.slow_consumers_pending,
    );
    slow.add(
        &labels([("reason", "deadline")]),
        counters.slow_consumers_deadline,
    );
    let processor = process::processor_time().unwrap_or_default();
    vec![
        build,
        Family::gauge("menes_uptime_seconds", "Time since the start")
            .of(shared.started().elapsed().as_secs_f64()),
        Family::counter("menes_process_cpu_seconds", "Processor time used")
            .of(processor.as_secs_f64()),
        Family::gauge("menes_process_resident_memory_bytes", "Memory in use")
            .of(monitor.process.memory()),
        Family::gauge("menes_process_open_files", "Open file descriptors")
            .of(process::open_files()),
        Family::gauge("menes_accounts", "Accounts").of(shared.accounts().all().len()),
        Family::gauge("menes_connections", "Open client connections").of(shared.connection_count()),
        Family::counter(
            "menes_connections_opened",
            "Client connections since the start",
        )
        .of(shared.total_connections()),
        Family::counter(
            "menes_connections_stale",
            "Connections closed because they did not answer pings",
        )
        .of(counters.stale_connections),
        slow,
        Family::counter(
            "menes_publisher_stalls",
            "Times a publisher was held up by a receiver far behind",
        )
        .of(counters.stalls),
        Family::gauge("menes_subscriptions", "Subscriptions of all accounts")
            .of(shared.subscription_count()),
        Family::counter("menes_messages_received", "Messages from clients").of(traffic.in_msgs),
        Family::counter("menes_received_bytes", "Bytes of those, headers included")
            .of(traffic.in_bytes),
        Family::counter("menes_messages_sent", "Messages to clients").of(traffic.out_msgs),
        Family::counter("menes_sent_bytes", "Bytes of those, headers included")
            .of(traffic.out_bytes),
    ]
}

fn http(monitor: &Monitor) -> Vec<Family> {
    const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let mut requests = Family::counter("menes_http_requests", "HTTP requests answered");
    for (face, counts) in monitor.faces.lock().iter() {
        for (class, count) in CLASSES.iter().zip(counts.by_class()) {
            if count > 0 {
                requests.add(&labels([("face", face), ("status", class)]), count);
            }
        }
    }
    vec![requests]
}

fn totals(streams: &Streams) -> Vec<Family> {
    let figures = &streams.status.figures;
    let (file, memory) = (
        labels([("storage", "file")]),
        labels([("storage", "memory")]),
    );
    let mut bytes = Family::gauge("menes_streams_bytes", "Bytes stored in streams");
    bytes.add(&file, figures.storage);
    bytes.add(&memory, figures.memory);
    let mut reserved = Family::gauge("menes_streams_reserved_bytes", "Bytes promised to streams");
    reserved.add(&file, figures.reserved_storage);
    reserved.add(&memory, figures.reserved_memory);
    let is_ready = streams.status.is_ready && streams.status.poisoned.is_none();
    vec![
        Family::gauge("menes_streams_ready", "1 while messages are stored and acknowledged")
            .of(is_ready),
        Family::gauge(
            "menes_details_fresh",
            "1 if streams and consumers below are as of now, 0 if the engine did not answer in time",
        )
        .of(streams.is_fresh),
        Family::gauge("menes_streams", "Streams").of(figures.streams),
        Family::gauge("menes_consumers", "Consumers").of(figures.consumers),
        Family::gauge("menes_streams_messages", "Messages stored in streams").of(figures.messages),
        bytes,
        reserved,
        Family::counter("menes_api_requests", "JetStream API requests").of(figures.api_total),
        Family::counter("menes_api_errors", "JetStream API requests refused")
            .of(figures.api_errors),
    ]
}

/// Streams and consumers one by one, as many as are shown.
fn details(streams: &Streams, settings: &MetricsSettings) -> Vec<Family> {
    let mut stations = Family::gauge("menes_stations", "Stations, and streams shown as such");
    let mut letters = Family::gauge("menes_dead_letters", "Dead letters kept");
    let mut recorded = Family::counter("menes_dead_letters_recorded", "Dead letters so far");
    let mut messages = Family::gauge("menes_stream_messages", "Messages stored");
    let mut bytes = Family::gauge("menes_stream_bytes", "Bytes stored");
    let mut last = Family::counter(
        "menes_stream_stored",
        "Messages stored so far: the last sequence",
    );
    let mut pending = Family::gauge(
        "menes_consumer_pending",
        "Messages not handed out yet: the lag",
    );
    let mut ack_pending = Family::gauge(
        "menes_consumer_ack_pending",
        "Messages handed out and not settled",
    );
    let mut redelivered = Family::gauge(
        "menes_consumer_redelivered",
        "Of those, messages handed out more than once",
    );
    let mut delivered = Family::counter("menes_consumer_deliveries", "Deliveries so far");
    let mut waiting = Family::gauge("menes_consumer_waiting", "Pull requests that wait");
    let (mut streams_left, mut consumers_left) = (0_u64, 0_u64);
    let (mut streams_shown, mut consumers_shown) = (0, 0);
    for account in streams.status.accounts.iter() {
        let of_account = labels([("account", account.account.as_str())]);
        let mut station_count = 0_u64;
        for stream in &account.streams {
            let state = &stream.info.state;
            let place = Place::of(stream);
            station_count += u64::from(place.is_first());
            if stream.info.config.name == dead_letter::STREAM {
                letters.add(&of_account, state.messages);
                recorded.add(&of_account, state.last_seq);
            }
            if streams_shown == settings.max_streams {
                streams_left += 1;
            } else {
                streams_shown += 1;
                let of_stream = labels([
                    ("account", account.account.as_str()),
                    ("stream", &stream.info.config.name),
                    ("station", &place.station),
                    ("partition", place.partition),
                ]);
                messages.add(&of_stream, state.messages);
                bytes.add(&of_stream, state.bytes);
                last.add(&of_stream, state.last_seq);
            }
            // Names made up for a moment would each be a series for good.
            let is_durable = |name: &Option<String>| name.as_ref().is_some_and(|it| !it.is_empty());
            let durable = stream.consumers.iter().filter(|consumer| {
                let config = consumer.config.as_ref();
                config.is_some_and(|config| is_durable(&config.durable_name))
            });
            for consumer in durable {
                if consumers_shown == settings.max_consumers {
                    consumers_left += 1;
                    continue;
                }
                consumers_shown += 1;
                let of_consumer = labels([
                    ("account", account.account.as_str()),
                    ("stream", &stream.info.config.name),
                    ("consumer", &consumer.name),
                    ("station", &place.station),
                    ("partition", place.partition),
                ]);
                pending.add(&of_consumer, consumer.num_pending);
                ack_pending.add(&of_consumer, consumer.num_ack_pending);
                redelivered.add(&of_consumer, consumer.num_redelivered);
                delivered.add(&of_consumer, consumer.delivered.consumer_seq);
                waiting.add(&of_consumer, consumer.num_waiting);
            }
        }
        stations.add(&of_account, station_count);
    }
    let mut left = Family::gauge(
        "menes_series_left_out",
        "Streams and durable consumers that are not shown one by one",
    );
    left.add(&labels([("kind", "stream")]), streams_left);
    left.add(&labels([("kind", "consumer")]), consumers_left);
    vec![
        left,
        stations,
        letters,
        recorded,
        messages,
        bytes,
        last,
        pending,
        ack_pending,
        redelivered,
        delivered,
        waiting,
    ]
}

/// The station a stream belongs to, by its name.
struct Place<'a> {
    /// Empty if there is none.
    station: String,
    partition: &'a str,
}

impl<'a> Place<'a> {
    fn of(stream: &'a StreamFigures) -> Self {
        let name = &stream.info.config.name;
        let parts = name.rsplit_once('$').filter(|(_, partition)| {
            !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit())
        });
        let found = parts.and_then(|(station, partition)| {
            let station = StationName::parse(station).ok()?;
            Some((station.external().to_owned(), partition))
        });
        let (station, partition) = found.unwrap_or_default();
        Self { station, partition }
    }

    /// Whether this stands for a whole station.
    fn is_first(&self) -> bool {
        !self.station.is_empty() && self.partition == "1"
    }
}

fn log_families(log: &LogMonitor) -> Vec<Family> {
    let stats = log.stats();
    let bounds = TURN_BOUNDS.iter().map(std::time::Duration::as_secs_f64);
    let mut syncs = Family::new(
        Kind::Histogram,
        "menes_log_sync_seconds",
        "Time to write and sync what waited",
    );
    syncs.add(
        &Labels::default(),
        histogram(stats.busy.as_secs_f64(), bounds, &stats.turns_by_time),
    );
    #[expect(clippy::cast_precision_loss, reason = "bounds and sums may be rounded")]
    let (bounds, sum) = (
        COMMIT_BOUNDS.iter().map(|bound| *bound as f64),
        stats.bytes as f64,
    );
    let mut commits = Family::new(
        Kind::Histogram,
        "menes_log_commit_bytes",
        "Bytes written by one sync",
    );
    commits.add(
        &Labels::default(),
        histogram(sum, bounds, &stats.turns_by_bytes),
    );
    let mut families = vec![
        syncs,
        commits,
        Family::gauge(
            "menes_log_slowest_sync_seconds",
            "The longest sync since the start",
        )
        .of(stats.slowest.as_secs_f64()),
        Family::gauge("menes_log_failed", "1 once the log takes nothing any more")
            .of(log.failure().is_some()),
        Family::gauge(
            "menes_log_damaged_segments",
            "Segments in which damage was found",
        )
        .of(log.damage().len()),
    ];
    if let Some(space) = log.space() {
        let (low, critical) = log.watermarks(space);
        families.extend([
            Family::gauge(
                "menes_disk_size_bytes",
                "Size of the file system of the streams",
            )
            .of(space.total),
            Family::gauge("menes_disk_free_bytes", "What of it is free").of(space.free),
            Family::gauge("menes_disk_low_bytes", "Below this an operator should look").of(low),
            Family::gauge(
                "menes_disk_critical_bytes",
                "Below this messages are refused",
            )
            .of(critical),
        ]);
    }
    families
}

fn histogram(sum: f64, bounds: impl Iterator<Item = f64>, counts: &[u64]) -> Value {
    let bounds = bounds.chain([f64::INFINITY]);
    Value::Histogram(sum, bounds.zip(counts.iter().copied()).collect())
}
