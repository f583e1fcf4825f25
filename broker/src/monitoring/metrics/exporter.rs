//! The metrics under the names of the NATS exporter, and of Memphis, which is that exporter with
//! another prefix.
//!
//! That exporter takes every number of a monitoring document for a gauge, named by the path to it.
//! The same documents are made here, so the same names come out, counters among them as gauges.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use menes_jetstream::api::response::SourceInfo;
use menes_jetstream::consumer::ConsumerInfo;
use menes_jetstream::engine::{AccountFigures, StreamFigures};
use serde::Serialize;
use serde_json::Value as Json;

use super::Streams;
use super::text::{Family, Kind, Labels, Value};
use crate::config::settings::MetricsSettings;
use crate::monitoring::Monitor;
use crate::monitoring::connz::ConnzOptions;
use crate::monitoring::subsz::SubszOptions;

/// How names begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Namespace {
    core: &'static str,
    jetstream: &'static str,
}

impl Namespace {
    /// The NATS exporter as it is delivered.
    pub(super) const NATS: Self = Self {
        core: "gnatsd",
        jetstream: "jetstream",
    };
    /// With the prefix of Memphis.
    pub(super) const MEMPHIS: Self = Self {
        core: "memphis",
        jetstream: "memphis",
    };
}

/// What the exporter leaves out.
const SKIPPED: &[&str] = &[
    "leaf",
    "trusted_operators_claim",
    "cluster_tls_timeout",
    "cluster_cluster_port",
    "cluster_auth_timeout",
    "gateway_port",
    "gateway_auth_timeout",
    "gateway_tls_timeout",
    "gateway_connect_retries",
];
/// Texts that the exporter shows, as labels of a 1.
const TEXTS: &[&str] = &[
    "server_id",
    "server_name",
    "version",
    "domain",
    "leader",
    "name",
    "start",
    "config_load_time",
];

/// Everything the exporter shows of the documents there are.
pub(super) fn families(
    monitor: &Monitor,
    streams: Option<&Streams>,
    settings: &MetricsSettings,
    names: Namespace,
) -> Vec<Family> {
    let mut book = Book {
        families: BTreeMap::new(),
        server: vec![("server_id", monitor.shared.id().to_owned())],
    };
    book.document(names.core, "varz", &monitor.varz());
    if let Ok(document) = monitor.subsz(&SubszOptions::default()) {
        book.document(names.core, "subsz", &document);
    }
    book.document(names.core, "routez", &monitor.routez());
    connections(monitor, names, &mut book);
    health(streams, names, &mut book);
    if let Some(streams) = streams {
        jetstream(monitor, streams, settings, names, &mut book);
    }
    book.families.into_values().collect()
}

/// Families by name.
struct Book {
    families: BTreeMap<String, Family>,
    /// The label that is on everything.
    server: Vec<(&'static str, String)>,
}

impl Book {
    fn put(&mut self, name: String, help: &str, labels: &Labels, value: impl Into<Value>) {
        let family = self
            .families
            .entry(name)
            .or_insert_with_key(|name| Family::new(Kind::Gauge, name.clone(), help.to_owned()));
        family.add(labels, value);
    }

    /// Every number of a document.
    fn document(&mut self, system: &str, endpoint: &str, document: &impl Serialize) {
        // Documents are plain data.
        if let Ok(Json::Object(fields)) = serde_json::to_value(document) {
            let labels = Arc::new(self.server.clone());
            self.fields(&format!("{system}_{endpoint}"), "", fields, &labels);
        }
    }

    fn fields(
        &mut self,
        system: &str,
        path: &str,
        fields: serde_json::Map<String, Json>,
        labels: &Labels,
    ) {
        for (key, value) in fields {
            let path = join(path, &key);
            if SKIPPED.contains(&path.as_str()) {
                continue;
            }
            let name = format!("{system}_{path}");
            match value {
                Json::Object(inner) => self.fields(system, &path, inner, labels),
                Json::Number(number) => {
                    if let Some(number) = number.as_u64() {
                        self.put(name, &path, labels, number);
                    } else if let Some(number) = number.as_f64() {
                        self.put(name, &path, labels, number);
                    }
                }
                Json::String(text) if TEXTS.contains(&key.as_str()) => {
                    if let Ok(time) = text.parse::<Timestamp>() {
                        let seconds = time.as_duration().as_secs_f64();
                        self.put(name, &path, labels, seconds);
                    } else {
                        let mut labels = labels.to_vec();
                        labels.push(("value", text));
                        self.put(name, &path, &Arc::new(labels), true);
                    }
                }
                _ => {}
            }
        }
    }
}

/// A name of what lies at a path, with nothing in it that a name cannot hold.
fn join(path: &str, key: &str) -> String {
    let mut name = path.to_owned();
    for part in key.split(|c: char| !c.is_ascii_alphanumeric()) {
        if !part.is_empty() {
            if !name.is_empty() {
                name.push('_');
            }
            name.push_str(part);
        }
    }
    name
}

fn connections(monitor: &Monitor, names: Namespace, book: &mut Book) {
    let Ok(document) = monitor.connz(&ConnzOptions::default()) else {
        return;
    };
    let labels = Arc::new(book.server.clone());
    for (name, value) in document.sums() {
        book.put(format!("{}_connz_{name}", names.core), name, &labels, value);
    }
}

fn health(streams: Option<&Streams>, names: Namespace, book: &mut Book) {
    let is_well =
        streams.is_none_or(|streams| streams.status.is_ready && streams.status.poisoned.is_none());
    let name = format!("{}_healthz_status", names.core);
    let labels = Arc::new(book.server.clone());
    book.put(name.clone(), "0 is healthy", &labels, !is_well);
    let mut labels = book.server.clone();
    let word = if is_well { "ok" } else { "unavailable" };
    labels.push(("value", word.to_owned()));
    book.put(
        format!("{name}_value"),
        "status",
        &Arc::new(labels),
        is_well,
    );
}

fn jetstream(
    monitor: &Monitor,
    streams: &Streams,
    settings: &MetricsSettings,
    names: Namespace,
    book: &mut Book,
) {
    let loaded = monitor.loaded.load();
    let jetstream = loaded.jetstream.clone().unwrap_or_default();
    let mut writer = Writer {
        book,
        prefix: names.jetstream,
        server_name: monitor.shared.name().to_owned(),
        domain: jetstream.domain.unwrap_or_default(),
        streams_left: settings.max_streams,
        consumers_left: settings.max_consumers,
    };
    let figures = &streams.status.figures;
    let labels = Arc::new(writer.server_labels());
    for (name, value) in [
        ("server_jetstream_disabled", 0),
        ("server_max_memory", jetstream.max_memory.unwrap_or(0)),
        ("server_max_storage", jetstream.max_file.unwrap_or(0)),
        ("server_total_streams", figures.streams),
        ("server_total_consumers", figures.consumers),
        ("server_total_messages", figures.messages),
        ("server_total_message_bytes", figures.bytes),
    ] {
        writer.put(name, &labels, value);
    }
    for account in streams.status.accounts.iter() {
        writer.account(account);
    }
}

/// Writes what the exporter reads from `/jsz`.
struct Writer<'a> {
    book: &'a mut Book,
    prefix: &'static str,
    server_name: String,
    domain: String,
    streams_left: usize,
    consumers_left: usize,
}

type LabelList = Vec<(&'static str, String)>;

impl Writer<'_> {
    fn put(&mut self, name: &str, labels: &Labels, value: impl Into<Value>) {
        self.book
            .put(format!("{}_{name}", self.prefix), name, labels, value);
    }

    /// A server alone leads everything.
    fn server_labels(&self) -> LabelList {
        let mut labels = self.book.server.clone();
        labels.extend([
            ("server_name", self.server_name.clone()),
            ("cluster", String::new()),
            ("domain", self.domain.clone()),
            ("meta_leader", String::new()),
            ("is_meta_leader", "true".to_owned()),
        ]);
        labels
    }

    fn account(&mut self, account: &AccountFigures) {
        let name = account.account.as_str();
        let mut list = self.server_labels();
        for label in ["account", "account_name", "account_id"] {
            list.push((label, name.to_owned()));
        }
        let labels = Arc::new(list.clone());
        let figures = &account.figures;
        let limits = &account.limits;
        // No limit, -1, is the largest number, as in the document.
        let limit = |most: i64| match limits.is_tier {
            true => 0,
            false => most.cast_unsigned(),
        };
        for (name, value) in [
            ("account_max_memory", limit(limits.max_memory)),
            ("account_max_storage", limit(limits.max_storage)),
            ("account_storage_used", figures.storage),
            ("account_memory_used", figures.memory),
        ] {
            self.put(name, &labels, value);
        }
        for stream in &account.streams {
            if self.streams_left == 0 {
                return;
            }
            self.streams_left -= 1;
            self.stream(&list, stream);
        }
    }

    fn stream(&mut self, account: &LabelList, stream: &StreamFigures) {
        let info = &stream.info;
        let mut list = account.clone();
        list.extend([
            ("stream_name", info.config.name.clone()),
            ("stream_leader", self.server_name.clone()),
            ("is_stream_leader", "true".to_owned()),
            ("stream_raft_group", String::new()),
        ]);
        let labels = Arc::new(list.clone());
        let state = &info.state;
        for (name, value) in [
            ("stream_total_messages", state.messages),
            ("stream_total_bytes", state.bytes),
            ("stream_first_seq", state.first_seq),
            ("stream_last_seq", state.last_seq),
            ("stream_consumer_count", state.consumer_count),
            ("stream_subject_count", state.num_subjects),
        ] {
            self.put(name, &labels, value);
        }
        self.put("stream_limit_bytes", &labels, info.config.max_bytes);
        self.put("stream_limit_messages", &labels, info.config.max_msgs);
        for source in &info.sources {
            self.origin(&list, "source", source);
        }
        if let Some(mirror) = &info.mirror {
            self.origin(&list, "mirror", mirror);
        }
        for consumer in &stream.consumers {
            if self.consumers_left == 0 {
                return;
            }
            self.consumers_left -= 1;
            self.consumer(&list, consumer);
        }
    }

    fn origin(&mut self, stream: &LabelList, kind: &str, origin: &SourceInfo) {
        let labels = match kind {
            "mirror" => ["mirror_name", "mirror_api", "mirror_deliver"],
            _ => ["source_name", "source_api", "source_deliver"],
        };
        let external = origin.external.clone().unwrap_or_default();
        let values = [origin.name.clone(), external.api, external.deliver];
        let mut list = stream.clone();
        list.extend(labels.into_iter().zip(values));
        let labels = Arc::new(list);
        self.put(&format!("stream_{kind}_lag"), &labels, origin.lag);
        let active = format!("stream_{kind}_active_duration_ns");
        self.put(&active, &labels, origin.active);
    }

    fn consumer(&mut self, stream: &LabelList, consumer: &ConsumerInfo) {
        let config = consumer.config.as_ref();
        let description = config.map(|config| config.description.clone());
        let mut list = stream.clone();
        list.extend([
            ("consumer_name", consumer.name.clone()),
            ("consumer_leader", String::new()),
            ("is_consumer_leader", "true".to_owned()),
            ("consumer_desc", description.unwrap_or_default()),
        ]);
        let labels = Arc::new(list);
        for (name, at) in [
            (
                "consumer_last_delivery_seconds",
                consumer.delivered.last_active,
            ),
            ("consumer_last_ack_seconds", consumer.ack_floor.last_active),
        ] {
            if let Some(at) = at {
                self.put(name, &labels, consumer.ts.since(at).as_secs_f64());
            }
        }
        for (name, value) in [
            (
                "consumer_delivered_consumer_seq",
                consumer.delivered.consumer_seq,
            ),
            (
                "consumer_delivered_stream_seq",
                consumer.delivered.stream_seq,
            ),
            ("consumer_num_ack_pending", consumer.num_ack_pending),
            ("consumer_num_redelivered", consumer.num_redelivered),
            ("consumer_num_waiting", consumer.num_waiting),
            ("consumer_num_pending", consumer.num_pending),
            (
                "consumer_ack_floor_stream_seq",
                consumer.ack_floor.stream_seq,
            ),
            (
                "consumer_ack_floor_consumer_seq",
                consumer.ack_floor.consumer_seq,
            ),
        ] {
            self.put(name, &labels, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_paths_of_the_exporter() {
        assert_eq!(join("", "in_msgs"), "in_msgs");
        assert_eq!(
            join("http_req_stats", "/debug/vars"),
            "http_req_stats_debug_vars"
        );
        assert_eq!(
            join("jetstream_config", "max_storage"),
            "jetstream_config_max_storage"
        );
        assert_eq!(join("metadata", "a-b\"c{"), "metadata_a_b_c");
    }
}
