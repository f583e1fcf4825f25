//! From a configuration tree to typed settings, one file for each section.
//!
//! Every key of nats-server is known here: it sets something, is accepted because leaving it out
//! changes nothing a client can see, or is refused because this version cannot keep what it
//! promises. Keys that nobody knows are refused too.

mod accounts;
mod authorization;
mod jetstream;
mod leafnodes;
mod mappings;
mod operator;
mod sharing;
mod users;
pub(super) mod values;
mod websocket;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use menes_jetstream::ids::AccountName;

use self::accounts::accounts;
use self::authorization::authorization;
use self::jetstream::jetstream;
use self::leafnodes::leafnodes;
use self::values::{
    address, boolean, duration, integer, key, limit, map, not_built, port, size, text, texts,
    unknown, wrong,
};
use self::websocket::websocket;
use super::grammar::{ConfigError, Map, Node};
use super::settings::{Address, Settings};
use crate::account::description::AccountDescription;

/// Keys that say how much is reported, or tune what this server does otherwise.
const WITHOUT_EFFECT: &[&str] = &[
    "feature_flags",
    "trace_verbose",
    "trace_headers",
    "logtime_utc",
    "logfile_size_limit",
    "log_size_limit",
    "logfile_max_num",
    "log_max_num",
    "prof_port",
    "prof_block_rate",
    "max_traced_msg_len",
    "write_timeout",
    "connect_error_reports",
    "reconnect_error_reports",
    "disable_sublist_cache",
    "no_sublist_cache",
    "no_system_account",
    "no_system",
    "no_sys_acc",
    "ocsp",
    "ocsp_cache",
    "default_js_domain",
];

/// Keys whose promise this version cannot keep.
const NOT_BUILT: &[&str] = &[
    "resolver_tls",
    "tls",
    "cluster",
    "gateway",
    "mqtt",
    "proxies",
    "proxy_protocol",
    "allow_non_tls",
    "https",
    "https_port",
    "syslog",
    "remote_syslog",
];

/// Clients of a closing server must have time to go elsewhere.
const MIN_LAME_DUCK: Duration = Duration::from_secs(30);

/// Puts what a configuration says into `settings`.
///
/// # Errors
/// The first mistake, with its place.
pub(super) fn apply(map: &Map, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut store_dir = None;
    let mut operator = operator::Section::default();
    for field in &map.fields {
        let node = &field.node;
        let server = &mut settings.server;
        match key(field).as_str() {
            "listen" => {
                let address = address(node, "0.0.0.0")?;
                server.host = address.host;
                server.ports = vec![address.port];
            }
            "host" | "net" => server.host = text(node)?,
            "port" => server.ports = vec![port(node)?],
            "client_advertise" => {
                let address = address(node, "")?;
                server.client_advertise = Some((address.host, address.port));
            }
            "server_name" => server.server_name = Some(text(node)?),
            "system_account" | "system" => server.system_account = Some(text(node)?),
            "server_tags" => server.tags = tags(node)?,
            "server_metadata" => server.metadata = metadata(node)?,
            "max_closed_clients" => server.limits.max_closed_clients = size(node)?,
            "debug" => settings.log.debug = boolean(node)?,
            "trace" => settings.log.trace = boolean(node)?,
            "logtime" => settings.log.time = boolean(node)?,
            "logfile" | "log_file" => settings.log.file = Some(text(node)?.into()),
            "pidfile" | "pid_file" => settings.pid_file = Some(text(node)?.into()),
            "ports_file_dir" => settings.ports_file_dir = Some(text(node)?.into()),
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
                        &format!("invalid lame_duck_duration, minimum is {MIN_LAME_DUCK:?}"),
                    ));
                }
            }
            "lame_duck_grace_period" => settings.lame_duck.grace = duration(node)?,
            "max_connections" | "max_conn" => {
                server.limits.max_connections = usize::try_from(integer(node)?).unwrap_or(0);
            }
            "max_subscriptions" | "max_subs" => server.limits.max_subscriptions = limit(node)?,
            "max_sub_tokens" | "max_subscription_tokens" => {
                server.limits.max_sub_tokens = limit(node)?;
            }
            "max_control_line" => server.limits.max_control_line = size(node)?,
            "max_payload" => server.limits.max_payload = size(node)?,
            "max_pending" => server.limits.max_pending = size(node)?,
            "no_fast_producer_stall" => {
                server.limits.no_fast_producer_stall = boolean(node)?;
            }
            "ping_interval" => server.timing.ping_interval = duration(node)?,
            "ping_max" => {
                server.timing.ping_max = u32::try_from(integer(node)?)
                    .map_err(|_| wrong(node, "ping_max must be 0 or more"))?;
            }
            "write_deadline" => server.timing.write_deadline = duration(node)?,
            "no_header_support" => server.no_header_support = boolean(node)?,
            "no_auth_user" => server.auth.no_auth_user = Some(text(node)?),
            "authorization" => authorization(node, settings)?,
            "accounts" => accounts(node, settings)?,
            "mappings" | "maps" => global_mappings(node, settings)?,
            "jetstream" => jetstream(node, settings)?,
            "store_dir" | "storedir" => {
                store_dir = Some(PathBuf::from(text(node)?));
            }
            "websocket" | "ws" => websocket(node, settings)?,
            known if operator::is_key(known) => operator.read(field)?,
            "memphis_port" => settings.memphis_port = Some(port(node)?),
            "leafnodes" | "leaf" => leafnodes(field, settings)?,
            known if WITHOUT_EFFECT.contains(&known) => settings.warnings.push(format!(
                "{}: {:?} has no effect in this version",
                field.place, field.key
            )),
            known if NOT_BUILT.contains(&known) => return Err(not_built(field)),
            _ => unknown(field)?,
        }
    }
    if let Some(folder) = store_dir
        && let Some(jetstream) = &mut settings.jetstream
        && jetstream.store_dir.is_none()
    {
        jetstream.store_dir = Some(folder);
    }
    operator.finish(settings)
}

/// Words in lower case: a list, or one text with spaces between them.
fn tags(node: &Node) -> Result<Vec<String>, ConfigError> {
    let texts = texts(node)?;
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    Ok(words.map(str::to_lowercase).collect())
}

fn metadata(node: &Node) -> Result<BTreeMap<String, String>, ConfigError> {
    let fields = map(node)?.fields.iter();
    fields
        .map(|field| Ok((field.key.clone(), text(&field.node)?)))
        .collect()
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
