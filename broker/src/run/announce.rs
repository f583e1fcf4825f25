//! What a starting server says: the lines of nats-server, and a greeting for a person.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::settings::{HttpSettings, JetStreamSettings, Settings};
use crate::http::RunningHttp;
use crate::server::{API_LEVEL, NATS_VERSION, Server, ServerHandle};

/// The first lines: who this is and what it was told.
pub(super) fn start(server: &Server, settings: &Settings) {
    tracing::info!("Starting nats-server");
    tracing::info!("  Version:  {NATS_VERSION}");
    tracing::info!("  Git:      [not set]");
    tracing::info!("  Name:     {}", server.name());
    tracing::info!("  ID:       {}", server.id());
    if let Some(file) = &settings.config_file {
        let digest = settings.config_digest.as_deref().unwrap_or_default();
        tracing::info!("Using configuration file: {} ({digest})", file.display());
    }
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
}

/// How JetStream is set up. Tools read the store directory from here.
pub(super) fn streams(settings: &JetStreamSettings) {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "unlimited".to_owned(), friendly_bytes);
    let folder = settings.store_dir.clone().unwrap_or_default();
    tracing::info!("Starting JetStream");
    tracing::info!("---------------- JETSTREAM ----------------");
    tracing::info!("  Max Memory:      {}", size(settings.max_memory));
    tracing::info!("  Max Storage:     {}", size(settings.max_file));
    tracing::info!("  Store Directory: \"{}\"", folder.display());
    if let Some(domain) = &settings.domain {
        tracing::info!("  Domain:          {domain}");
    }
    tracing::info!("  API Level:       {API_LEVEL}");
    tracing::info!("-------------------------------------------");
}

/// Where a server listens.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) nats: Vec<SocketAddr>,
    pub(super) memphis: Option<SocketAddr>,
    pub(super) websocket: Option<SocketAddr>,
    pub(super) monitoring: Option<SocketAddr>,
    pub(super) rest: Option<SocketAddr>,
    pub(super) management: Option<SocketAddr>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) schemes: Schemes,
}

/// How the URLs of the listeners begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schemes {
    pub(super) nats: &'static str,
    pub(super) websocket: &'static str,
    pub(super) monitoring: &'static str,
    pub(super) rest: &'static str,
    pub(super) management: &'static str,
    pub(super) metrics: &'static str,
}

/// What is served over HTTP.
pub(super) struct Faces<'a> {
    pub(super) monitoring: Option<&'a RunningHttp>,
    pub(super) rest: Option<&'a RunningHttp>,
    pub(super) management: Option<&'a RunningHttp>,
    pub(super) metrics: Option<&'a RunningHttp>,
}

impl Schemes {
    fn of(settings: &Settings) -> Self {
        let pick = |is_secure, secure, plain| if is_secure { secure } else { plain };
        let websocket = settings.server.websocket.as_ref();
        let http = |listener: Option<&HttpSettings>| {
            pick(listener.is_some_and(|at| at.tls.is_some()), "https", "http")
        };
        Self {
            nats: pick(
                settings.server.tls.is_some() && !settings.server.allow_non_tls,
                "tls",
                "nats",
            ),
            websocket: pick(websocket.is_some_and(|ws| ws.tls.is_some()), "wss", "ws"),
            monitoring: pick(settings.secure_monitor.is_some(), "https", "http"),
            rest: http(settings.rest.as_ref()),
            management: http(settings.management.as_ref()),
            metrics: http(settings.metrics.as_ref().map(|metrics| &metrics.listener)),
        }
    }
}

impl Addresses {
    pub(super) fn of(server: &ServerHandle, settings: &Settings, faces: &Faces<'_>) -> Self {
        let mut nats = server.addresses().to_vec();
        // The Memphis port was added behind the others.
        let memphis = settings.memphis_port.and_then(|_| nats.pop());
        Self {
            nats,
            memphis,
            websocket: server.websocket_address(),
            monitoring: faces.monitoring.map(RunningHttp::address),
            rest: faces.rest.map(RunningHttp::address),
            management: faces.management.map(RunningHttp::address),
            metrics: faces.metrics.map(RunningHttp::address),
            schemes: Schemes::of(settings),
        }
    }
}

/// The lines that tools wait for before they connect.
pub(super) fn listeners(addresses: &Addresses) {
    if let Some(address) = addresses.websocket {
        let scheme = addresses.schemes.websocket;
        tracing::info!("Listening for websocket clients on {scheme}://{address}");
    }
    if let Some(address) = addresses.rest {
        let scheme = addresses.schemes.rest;
        tracing::info!("Listening for REST clients on {scheme}://{address}");
    }
    if let Some(address) = addresses.management {
        let scheme = addresses.schemes.management;
        tracing::info!("Listening for management on {scheme}://{address}");
    }
    if let Some(address) = addresses.metrics {
        let scheme = addresses.schemes.metrics;
        tracing::info!("Listening for metrics on {scheme}://{address}");
    }
    for address in addresses.nats.iter().chain(&addresses.memphis) {
        tracing::info!("Listening for client connections on {address}");
    }
}

/// Where a person finds what.
pub(super) fn greet(addresses: &Addresses) {
    for address in &addresses.nats {
        tracing::info!("  clients      {}", url(addresses.schemes.nats, *address));
    }
    if let Some(address) = addresses.memphis {
        tracing::info!("  Memphis SDKs {}", reachable(address));
    }
    if let Some(address) = addresses.websocket {
        tracing::info!(
            "  WebSocket    {}",
            url(addresses.schemes.websocket, address)
        );
    }
    if let Some(address) = addresses.rest {
        tracing::info!("  REST         {}", url(addresses.schemes.rest, address));
    }
    if let Some(address) = addresses.management {
        let at = url(addresses.schemes.management, address);
        tracing::info!("  management   {at}/api/v1");
    }
    if let Some(address) = addresses.monitoring {
        tracing::info!(
            "  monitoring   {}",
            url(addresses.schemes.monitoring, address)
        );
    }
    if let Some(address) = addresses.metrics {
        let at = url(addresses.schemes.metrics, address);
        tracing::info!("  metrics      {at}/metrics");
    }
}

/// Tells whoever started the server how to log in. It goes to standard output and not into the
/// log, which is kept; only a hash of the password is stored.
pub(super) fn first_user(password: &str) {
    let text = format!(
        "\n  first start: made the user root with the password  {password}\n  \
         it is shown this once; change it with: menes user passwd root\n\n"
    );
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = written {
        tracing::error!(
            "the password of root could not be shown: {error}; start once with --user rescue and \
             --pass, and set another: menes user passwd root"
        );
    }
}

/// A URL that works on this machine.
pub(super) fn url(scheme: &str, address: SocketAddr) -> String {
    format!("{scheme}://{}", reachable(address))
}

/// An address to connect to: a listener on all addresses is reached at the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A size in the way nats-server prints it: two decimals and a unit of 1024s.
pub(super) fn friendly_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    let power = if bytes < 1024 { 0 } else { bytes.ilog2() / 10 };
    let unit = usize::try_from(power)
        .ok()
        .and_then(|power| UNITS.get(power.checked_sub(1)?));
    let Some(unit) = unit else {
        return format!("{bytes} B");
    };
    let hundredths = (u128::from(bytes) * 100) >> (10 * power);
    format!("{}.{:02} {unit}B", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_those_of_nats_server() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KB"),
            (18_957_376_512, "17.65 GB"),
            (1 << 40, "1.00 TB"),
            (u64::MAX, "15.99 EB"),
        ] {
            assert_eq!(friendly_bytes(bytes), text);
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_shown_at_loopback() {
        assert_eq!(url("ws", ([0, 0, 0, 0], 7).into()), "ws://127.0.0.1:7");
        assert_eq!(
            url("nats", "[::]:7".parse().expect("valid")),
            "nats://[::1]:7"
        );
        assert_eq!(url("nats", ([10, 0, 0, 1], 7).into()), "nats://10.0.0.1:7");
    }
}
