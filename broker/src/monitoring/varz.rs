//! `/varz`: the server as a whole.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use menes_jetstream::Timestamp;
use menes_jetstream::api::response::{AccountLimits, ApiStats};
use menes_jetstream::engine::Figures;
use serde::Serialize;

use super::connz::ProxyKey;
use super::text::{Seconds, nanos, uptime};
use super::{DataStats, Monitor, now, timestamp};
use crate::config::options::TlsOptions;
use crate::config::settings::JetStreamSettings;
use crate::server::{API_LEVEL, GO_VERSION, NATS_VERSION};

/// Stands for what is off: `{}`.
#[derive(Serialize)]
struct Off {}

#[derive(Serialize)]
pub(super) struct Varz<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'static str,
    /// The version of this very program; `version` is that of the server it behaves as.
    menes_version: &'static str,
    proto: u8,
    go: &'static str,
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "is_false")]
    auth_required: bool,
    #[serde(skip_serializing_if = "is_false")]
    tls_required: bool,
    #[serde(skip_serializing_if = "is_false")]
    tls_verify: bool,
    max_connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_subscriptions: Option<usize>,
    ping_interval: u64,
    ping_max: u32,
    http_host: &'a str,
    http_port: u16,
    http_base_path: &'a str,
    https_port: u16,
    auth_timeout: Seconds,
    max_control_line: usize,
    max_payload: usize,
    max_pending: usize,
    cluster: Off,
    gateway: Off,
    leaf: Off,
    mqtt: Off,
    websocket: WebSocket,
    jetstream: JetStream,
    tls_timeout: Seconds,
    write_deadline: u64,
    start: Timestamp,
    now: Timestamp,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    cpu: f64,
    connections: usize,
    total_connections: u64,
    routes: u8,
    remotes: u8,
    leafnodes: u8,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: usize,
    http_req_stats: BTreeMap<&'static str, u64>,
    config_load_time: Timestamp,
    config_digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    system_account: &'a str,
    slow_consumer_stats: ByKind,
    stale_connection_stats: ByKind,
    disk_io_wait_stats: DiskWaits,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxies: Option<Proxies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<Timestamp>,
}

/// Proxies that clients may come through.
#[derive(Serialize)]
struct Proxies {
    trusted: Vec<ProxyKey>,
}

impl Proxies {
    fn of(keys: &[String]) -> Option<Self> {
        let trusted: Vec<_> = keys.iter().map(|key| ProxyKey::of(key)).collect();
        (!trusted.is_empty()).then_some(Self { trusted })
    }
}

/// Counts by what a connection is.
#[derive(Default, Serialize)]
struct ByKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

/// Waits for a place among concurrent disk operations. The log has one writer, which never waits.
#[derive(Default, Serialize)]
struct DiskWaits {
    waiters: u64,
    waits: u64,
    wait_time: u64,
    max_wait_time: u64,
}

#[derive(Default, Serialize)]
struct WebSocket {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_timeout: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    no_tls: bool,
    #[serde(skip_serializing_if = "is_false")]
    same_origin: bool,
}

#[derive(Default, Serialize)]
struct JetStream {
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
}

/// Limits that are set; there are none here.
#[derive(Default, Serialize)]
pub(super) struct Limits {}

/// How JetStream is set up.
#[derive(Default, Serialize)]
pub(super) struct Config {
    max_memory: u64,
    max_storage: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_dir: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    sync_always: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    strict: bool,
}

impl Config {
    pub(super) fn of(settings: &JetStreamSettings) -> Self {
        Self {
            max_memory: settings.max_memory.unwrap_or(0),
            max_storage: settings.max_file.unwrap_or(0),
            store_dir: settings
                .store_dir
                .as_ref()
                .map(|folder| folder.display().to_string()),
            sync_always: true,
            domain: settings.domain.clone(),
            strict: true,
        }
    }
}

/// What JetStream uses.
#[derive(Default, Serialize)]
pub(super) struct Stats {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: u64,
    ha_assets: u64,
    api: ApiStats,
}

impl Stats {
    /// Of the whole server.
    pub(super) fn of(figures: &Figures) -> Self {
        let level = u32::try_from(API_LEVEL).unwrap_or(0);
        Self {
            accounts: figures.accounts,
            ..Self::of_account(figures, level)
        }
    }

    /// How many accounts may have streams.
    pub(super) fn set_accounts(&mut self, accounts: u64) {
        self.accounts = accounts;
    }

    /// Shows what an account may use in the place of what its streams reserve: as nats-server does
    /// for each account of `/jsz`, where no limit is the largest number. Limits of tiers are not
    /// shown there.
    #[expect(clippy::cast_sign_loss, reason = "no limit, -1, is shown so")]
    pub(super) const fn with_limits(mut self, limits: &AccountLimits) -> Self {
        if limits.is_tier {
            (self.reserved_memory, self.reserved_storage) = (0, 0);
        } else {
            self.reserved_memory = limits.max_memory as u64;
            self.reserved_storage = limits.max_storage as u64;
        }
        self
    }

    /// Of one account, which counts no accounts; the level of the API is the server's.
    pub(super) fn of_account(figures: &Figures, level: u32) -> Self {
        Self {
            memory: figures.memory,
            storage: figures.storage,
            reserved_memory: figures.reserved_memory,
            reserved_storage: figures.reserved_storage,
            accounts: 0,
            ha_assets: 0,
            api: ApiStats {
                level,
                total: figures.api_total,
                errors: figures.api_errors,
                inflight: 0,
            },
        }
    }
}

/// The server in figures, as it is announced every few seconds.
#[derive(Serialize)]
pub(crate) struct ServerStats {
    start: Timestamp,
    mem: u64,
    cores: usize,
    cpu: f64,
    connections: usize,
    total_connections: u64,
    active_accounts: usize,
    subscriptions: usize,
    sent: DataStats,
    sent_to_clients: DataStats,
    received: DataStats,
    received_from_clients: DataStats,
    slow_consumers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_consumer_stats: Option<ByKind>,
    #[serde(skip_serializing_if = "is_zero")]
    stale_connections: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_connection_stats: Option<ByKind>,
    #[serde(skip_serializing_if = "is_zero")]
    stalled_clients: u64,
    active_servers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jetstream: Option<JetStream>,
    gomaxprocs: usize,
}

impl ByKind {
    fn of_clients(clients: u64) -> Self {
        Self {
            clients,
            ..Self::default()
        }
    }
}

impl Monitor {
    /// The server in figures.
    pub(crate) fn server_stats(&self) -> ServerStats {
        let shared = &self.shared;
        let counters = shared.counter_sums();
        let traffic = counters.traffic;
        let slow = counters.slow_consumers_pending + counters.slow_consumers_deadline;
        let stale = counters.stale_connections;
        let accounts = shared.accounts().all();
        let some = |count: u64| (count > 0).then(|| ByKind::of_clients(count));
        let sent = || DataStats::plain(traffic.out_msgs, traffic.out_bytes);
        let received = || DataStats::plain(traffic.in_msgs, traffic.in_bytes);
        ServerStats {
            start: self.started,
            mem: self.process.memory(),
            cores: cores(),
            cpu: self.process.cpu(),
            connections: shared.connection_count(),
            total_connections: shared.total_connections(),
            active_accounts: accounts.iter().filter(|a| a.connections() > 0).count(),
            subscriptions: shared.subscription_count(),
            sent: sent(),
            sent_to_clients: sent(),
            received: received(),
            received_from_clients: received(),
            slow_consumers: slow,
            slow_consumer_stats: some(slow),
            stale_connections: stale,
            stale_connection_stats: some(stale),
            stalled_clients: counters.stalls,
            active_servers: 1,
            jetstream: self.streams().is_some().then(|| {
                let mut jetstream = self.jetstream();
                if let Some(config) = &mut jetstream.config {
                    // Where files lie is for those who may read varz.
                    config.store_dir = None;
                }
                jetstream
            }),
            gomaxprocs: shared.worker_count(),
        }
    }

    pub(super) fn varz(&self) -> Varz<'_> {
        let shared = &self.shared;
        let options = shared.options();
        let tls = shared.tls().clients.current();
        let counters = shared.counter_sums();
        let traffic = counters.traffic;
        let slow = counters.slow_consumers_pending + counters.slow_consumers_deadline;
        let client = shared.addresses().first().copied();
        let loaded = self.loaded.load();
        Varz {
            server_id: shared.id(),
            server_name: shared.name(),
            version: NATS_VERSION,
            menes_version: env!("CARGO_PKG_VERSION"),
            proto: 1,
            go: GO_VERSION,
            host: options.host.clone(),
            port: client.map_or(0, |address| address.port()),
            auth_required: shared.auth().is_required(),
            tls_required: tls.is_some() && !options.allow_non_tls,
            tls_verify: tls.as_ref().is_some_and(|tls| tls.options().verify),
            max_connections: options.limits.max_connections,
            max_subscriptions: options.limits.max_subscriptions,
            ping_interval: nanos(options.timing.ping_interval),
            ping_max: options.timing.ping_max,
            http_host: &self.http_host,
            http_port: self.http_port.load(Ordering::Relaxed),
            http_base_path: &self.base_path,
            https_port: self.https_port.load(Ordering::Relaxed),
            auth_timeout: Seconds(options.timing.auth_timeout),
            max_control_line: options.limits.max_control_line,
            max_payload: options.limits.max_payload,
            max_pending: options.limits.max_pending,
            cluster: Off {},
            gateway: Off {},
            leaf: Off {},
            mqtt: Off {},
            websocket: self.websocket(),
            jetstream: self.jetstream(),
            tls_timeout: Seconds(tls.as_ref().map_or_else(
                || TlsOptions::default().timeout,
                |tls| tls.options().timeout,
            )),
            write_deadline: nanos(options.timing.write_deadline),
            start: self.started,
            now: now(),
            uptime: uptime(shared.started().elapsed()),
            mem: self.process.memory(),
            cores: cores(),
            gomaxprocs: shared.worker_count(),
            cpu: self.process.cpu(),
            connections: shared.connection_count(),
            total_connections: shared.total_connections(),
            routes: 0,
            remotes: 0,
            leafnodes: 0,
            in_msgs: traffic.in_msgs,
            in_bytes: traffic.in_bytes,
            in_client_msgs: traffic.in_msgs,
            in_client_bytes: traffic.in_bytes,
            out_msgs: traffic.out_msgs,
            out_bytes: traffic.out_bytes,
            out_client_msgs: traffic.out_msgs,
            out_client_bytes: traffic.out_bytes,
            slow_consumers: slow,
            stale_connections: counters.stale_connections,
            stalled_clients: counters.stalls,
            subscriptions: shared.subscription_count(),
            http_req_stats: self.requests.lock().clone(),
            config_load_time: loaded.at,
            config_digest: loaded.digest.clone(),
            tags: options.tags.clone(),
            metadata: options.metadata.clone(),
            system_account: shared.accounts().system().name().as_str(),
            slow_consumer_stats: ByKind::of_clients(slow),
            stale_connection_stats: ByKind::of_clients(counters.stale_connections),
            disk_io_wait_stats: DiskWaits::default(),
            proxies: Proxies::of(shared.trusted_proxies().as_slice()),
            tls_cert_not_after: tls.and_then(|tls| tls.expires()).map(timestamp),
        }
    }

    fn websocket(&self) -> WebSocket {
        let options = self.shared.options();
        let Some(options) = &options.websocket else {
            return WebSocket::default();
        };
        WebSocket {
            host: Some(options.host.clone()),
            port: self
                .shared
                .websocket_address()
                .map(|address| address.port()),
            handshake_timeout: Some(nanos(options.handshake_timeout)),
            no_tls: options.tls.is_none(),
            same_origin: options.origins.same_origin,
        }
    }

    fn jetstream(&self) -> JetStream {
        let loaded = self.loaded.load();
        let (Some(settings), Some(status)) = (&loaded.jetstream, self.streams()) else {
            return JetStream::default();
        };
        let mut stats = Stats::of(&status.load().figures);
        stats.set_accounts(self.accounts_with_streams().len() as u64);
        JetStream {
            config: Some(Config::of(settings)),
            stats: Some(stats),
            limits: Some(Limits {}),
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}
