//! From a configuration tree to typed settings, one file for each section.
//!
//! Every key of nats-server is known here: it sets something, is accepted because leaving it out
//! changes nothing a client can see, or is refused because this version cannot keep what it
//! promises. Keys that nobody knows are refused too.

mod about;
mod accounts;
mod authorization;
mod http;
mod jetstream;
mod leafnodes;
mod log;
mod mappings;
mod operator;
mod sharing;
mod tls;
mod users;
pub(super) mod values;
mod websocket;

use std::path::PathBuf;
use std::time::Duration;

use menes_auth::admission::ConnectionType;
use menes_jetstream::ids::AccountName;

use self::accounts::accounts;
use self::authorization::{authorization, proxies};
use self::jetstream::jetstream;
use self::leafnodes::leafnodes;
use self::log::log;
use self::tls::tls;
use self::values::{
    address, boolean, duration, integer, key, limit, not_built, port, size, text, unknown, wrong,
};
use self::websocket::websocket;
use super::grammar::{ConfigError, Field, Map, Node, Value};
use super::options::{Limits, Options, WriteTimeout};
use super::settings::{Address, Settings};
use crate::account::description::AccountDescription;

/// Keys that say how much is reported, or tune what this server does otherwise.
const WITHOUT_EFFECT: &[&str] = &[
    "prof_port",
    "prof_block_rate",
    "disable_sublist_cache",
    "no_sublist_cache",
    "no_system_account",
    "no_system",
    "no_sys_acc",
    "ocsp_cache",
    "default_js_domain",
];

/// Keys whose promise this version cannot keep.
const NOT_BUILT: &[&str] = &["cluster", "gateway", "mqtt"];

/// Clients of a closing server must have time to go elsewhere.
const MIN_LAME_DUCK: Duration = Duration::from_secs(30);

/// Puts what a configuration says into `settings`.
///
/// # Errors
/// The first mistake of each top-level key, with its place.
pub(super) fn apply(map: &Map, settings: &mut Settings) -> Result<(), Vec<ConfigError>> {
    let mut store_dir = None;
    if settings.greets && (map.get("https").is_some() || map.get("https_port").is_some()) {
        // It takes the place of the listener that is there unasked.
        settings.monitor = None;
    }
    let mut operator = operator::Section::default();
    let fields = map.fields.iter();
    let mut errors: Vec<ConfigError> = fields
        .filter_map(|field| top(field, settings, &mut store_dir, &mut operator).err())
        .collect();
    if let Some(folder) = store_dir
        && let Some(jetstream) = &mut settings.jetstream
    {
        let own = map
            .get("jetstream")
            .and_then(|field| match &field.node.value {
                Value::Map(map) => ["store_dir", "store", "storedir"]
                    .iter()
                    .find_map(|key| map.get(key)),
                _ => None,
            });
        if let Some(own) = own {
            errors.push(wrong(&own.node, "Duplicate 'store_dir' configuration"));
        } else if jetstream.store_dir.is_none() {
            jetstream.store_dir = Some(folder);
        }
    }
    errors.extend(operator.finish(settings).err());
    settings.server.auth.mapped = mapped(&settings.server);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// Kinds of connection that certificates say the users of.
fn mapped(server: &Options) -> Vec<ConnectionType> {
    let websocket = server.websocket.as_ref();
    [
        (ConnectionType::Standard, server.tls.as_ref()),
        (
            ConnectionType::WebSocket,
            websocket.and_then(|listener| listener.tls.as_ref()),
        ),
    ]
    .into_iter()
    .filter(|(_, tls)| tls.is_some_and(|tls| tls.map_users))
    .map(|(connection, _)| connection)
    .collect()
}

/// Takes one key. `store_dir` is for the streams, wherever it stands.
fn top(
    field: &Field,
    settings: &mut Settings,
    store_dir: &mut Option<PathBuf>,
    operator: &mut operator::Section,
) -> Result<(), ConfigError> {
    let node = &field.node;
    let key = key(field);
    if log(&key, node, settings)? {
        return Ok(());
    }
    let server = &mut settings.server;
    match key.as_str() {
        "listen" => {
            let address = address(node, "0.0.0.0")?;
            server.host = address.host;
            server.ports = vec![address.port];
        }
        "host" | "net" => server.host = text(node)?,
        "port" => server.ports = vec![port(node)?],
        "client_advertise" => server.client_advertise = Some(advertised(node)?),
        "server_name" => server.server_name = Some(text(node)?),
        "system_account" | "system" => server.system_account = Some(text(node)?),
        "server_tags" => server.tags = about::tags(node)?,
        "server_metadata" => server.metadata = about::metadata(node)?,
        "feature_flags" => about::feature_flags(node, &mut settings.warnings)?,
        "ocsp" => server.ocsp = about::ocsp(node)?,
        "max_closed_clients" => server.limits.max_closed_clients = size(node)?,
        "write_timeout" => server.timing.write_timeout = write_timeout(node)?,
        "connect_error_reports" => settings.connect_error_reports = integer(node)?,
        "reconnect_error_reports" => settings.reconnect_error_reports = integer(node)?,
        "pidfile" | "pid_file" => settings.pid_file = Some(text(node)?.into()),
        "ports_file_dir" => settings.ports_file_dir = Some(text(node)?.into()),
        "tls" => server.tls = Some(tls(node, &mut settings.warnings)?),
        "allow_non_tls" => server.allow_non_tls = boolean(node)?,
        "proxy_protocol" => server.proxy_protocol = boolean(node)?,
        "https" => settings.secure_monitor = Some(address(node, "0.0.0.0")?),
        "https_port" => {
            settings.secure_monitor = Some(Address {
                host: "0.0.0.0".to_owned(),
                port: port(node)?,
            });
        }
        "http" => settings.monitor = Some(address(node, "0.0.0.0")?),
        "http_port" | "monitor_port" => {
            settings.monitor = Some(Address {
                host: "0.0.0.0".to_owned(),
                port: port(node)?,
            });
        }
        "http_base_path" => settings.http_base_path = base_path(&text(node)?),
        "lame_duck_duration" => {
            settings.lame_duck.duration = duration(node)?;
            if settings.lame_duck.duration < MIN_LAME_DUCK {
                return Err(wrong(
                    node,
                    &format!(
                        "invalid lame_duck_duration of {:?}, minimum is {} seconds",
                        settings.lame_duck.duration,
                        MIN_LAME_DUCK.as_secs()
                    ),
                ));
            }
        }
        "lame_duck_grace_period" => settings.lame_duck.grace = duration(node)?,
        "max_connections" | "max_conn" => {
            server.limits.max_connections = match integer(node)? {
                0 => Limits::default().max_connections,
                limit => usize::try_from(limit).unwrap_or(0),
            };
        }
        "max_subscriptions" | "max_subs" => server.limits.max_subscriptions = limit(node)?,
        "max_sub_tokens" | "max_subscription_tokens" => {
            server.limits.max_sub_tokens = limit(node)?;
        }
        "max_control_line" => server.limits.max_control_line = message_size(field)?,
        "max_payload" => server.limits.max_payload = message_size(field)?,
        "max_pending" => server.limits.max_pending = size(node)?,
        "no_fast_producer_stall" => {
            server.limits.no_fast_producer_stall = boolean(node)?;
        }
        "ping_interval" => {
            server.timing.ping_interval = duration(node)?;
            settings.warnings.extend(bare_duration(field));
        }
        "ping_max" => {
            server.timing.ping_max = u32::try_from(integer(node)?)
                .map_err(|_| wrong(node, "ping_max must be 0 or more"))?;
        }
        "write_deadline" => {
            server.timing.write_deadline = duration(node)?;
            settings.warnings.extend(bare_duration(field));
        }
        "no_header_support" => server.no_header_support = boolean(node)?,
        "no_auth_user" => server.auth.no_auth_user = Some(text(node)?),
        "authorization" => authorization(node, settings)?,
        "proxies" => proxies(node, settings)?,
        "accounts" => accounts(node, settings)?,
        "mappings" | "maps" => global_mappings(node, settings)?,
        "leafnodes" | "leaf" => leafnodes(field, settings)?,
        "jetstream" => jetstream(node, settings)?,
        "store_dir" | "storedir" => {
            *store_dir = Some(PathBuf::from(text(node)?));
        }
        "websocket" | "ws" => websocket(node, settings)?,
        known if operator::is_key(known) => operator.read(field, &mut settings.warnings)?,
        "memphis_port" => settings.memphis_port = Some(port(node)?),
        "management" => settings.management = Some(http::listener(node, 9000, settings)?),
        "metrics" => settings.metrics = http::metrics(node, settings)?,
        "rest_gateway" => settings.rest = Some(http::listener(node, 4444, settings)?),
        known if WITHOUT_EFFECT.contains(&known) => settings.warnings.push(format!(
            "{}: {:?} has no effect in this version",
            field.place, field.key
        )),
        known if NOT_BUILT.contains(&known) => return Err(not_built(field)),
        _ => unknown(field)?,
    }
    Ok(())
}

/// A number of bytes that sizes on the wire can have.
fn message_size(field: &Field) -> Result<usize, ConfigError> {
    let size = size(&field.node)?;
    if i32::try_from(size).is_err() {
        let what = format!("{} value is too big", key(field));
        return Err(wrong(&field.node, &what));
    }
    Ok(size)
}

/// What to say about a duration that is but a number.
fn bare_duration(field: &Field) -> Option<String> {
    let is_bare = matches!(field.node.value, Value::Integer(_) | Value::Float(_));
    let (place, key) = (&field.place, &field.key);
    is_bare.then(|| {
        format!("{place}: invalid use of field {key:?}: {key} should be converted to a duration")
    })
}

/// What is done about a socket that takes nothing in time. Clients are closed unless it is said
/// otherwise.
fn write_timeout(node: &Node) -> Result<WriteTimeout, ConfigError> {
    match text(node)?.as_str() {
        "default" | "close" => Ok(WriteTimeout::Close),
        "retry" => Ok(WriteTimeout::Retry),
        _ => Err(wrong(
            node,
            "write_timeout must be 'default', 'close' or 'retry'",
        )),
    }
}

/// A host, perhaps with a port, that clients are told.
pub(super) fn advertised(node: &Node) -> Result<(String, u16), ConfigError> {
    crate::config::settings::advertised(&text(node)?).map_err(|what| wrong(node, &what))
}

/// Mappings outside of accounts are those of the global one.
fn global_mappings(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut global = AccountDescription::new(AccountName::global());
    global.mappings = mappings::mappings(node)?;
    settings.server.accounts.push(global);
    Ok(())
}

/// A path with a slash before it and none behind.
fn base_path(text: &str) -> String {
    let path = text.trim_matches('/');
    if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    }
}

#[cfg(test)]
mod tests;
