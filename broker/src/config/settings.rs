//! From a configuration tree to typed settings, once, at the start.
//!
//! Every key of nats-server is known here: it sets something, is accepted because leaving it out
//! changes nothing a client can see, or is refused because this version cannot keep what it
//! promises. Keys that nobody knows are refused too.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use menes_ws::Origin;

use super::digest::digest;
use super::grammar::{self, ConfigError, Environment, Field, Map, Node, Value};
use super::options::{Options, PermissionOptions, SubjectRules, UserOptions, WebSocketOptions};
use crate::auth::permissions::ResponseLimits;
use crate::logging::LogOptions;

/// Everything a server is started with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The core server.
    pub server: Options,
    /// Streams; `None` leaves JetStream off.
    pub jetstream: Option<JetStreamSettings>,
    /// Accounts whose configuration switches JetStream on.
    pub jetstream_accounts: Vec<String>,
    /// Monitoring listener.
    pub monitor: Option<Address>,
    /// Path before those of the monitoring listener, as `/menes`. Default none.
    pub http_base_path: String,
    /// The second client port, where Memphis SDKs look; 0 takes any free port.
    pub memphis_port: Option<u16>,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// Folder for the file that lists the ports.
    pub ports_file_dir: Option<PathBuf>,
    /// The log.
    pub log: LogOptions,
    /// How connections are closed before the server is replaced.
    pub lame_duck: LameDuck,
    /// Tell a person where to connect, once the server is ready. Default false.
    pub greets: bool,
    /// The configuration file that was read.
    pub config_file: Option<PathBuf>,
    /// `sha256:` and the digest of what it says.
    pub config_digest: Option<String>,
    /// Makes these settings anew from the same flags and files, for a reload.
    pub again: Option<Again>,
    /// What the configuration says that an operator should know.
    pub warnings: Vec<String>,
}

/// Makes settings anew, see [`Settings::again`].
#[derive(Clone)]
pub struct Again(Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>);

impl Again {
    /// The function that reads everything once more. Its error is for people.
    pub fn new(make: impl Fn() -> Result<Settings, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// Calls it.
    ///
    /// # Errors
    /// What is wrong with the settings, for people.
    pub fn make(&self) -> Result<Settings, String> {
        (self.0)()
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Again").finish_non_exhaustive()
    }
}

/// Times of lame duck mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LameDuck {
    /// Time over which connections are closed. Default 2 min, at least 30 s.
    pub duration: Duration,
    /// Time between telling the clients and closing the first one. Default 10 s, below `duration`.
    pub grace: Duration,
}

impl Default for LameDuck {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(120),
            grace: Duration::from_secs(10),
        }
    }
}

/// Host and port of a listener; port 0 takes any free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Settings of the streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JetStreamSettings {
    /// Folder of the stores; `None` takes the default of the way the server was called.
    pub store_dir: Option<PathBuf>,
    /// Most bytes in memory streams; `None` is three quarters of the memory there is.
    pub max_memory: Option<u64>,
    /// Most bytes in file streams; `None` is three quarters of the disk that is free.
    pub max_file: Option<u64>,
    /// Domain.
    pub domain: Option<String>,
}

/// The real environment and files.
struct World;

impl Environment for World {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn include(&self, from: &str, path: &str) -> Result<(String, String), String> {
        let folder = Path::new(from).parent().unwrap_or_else(|| Path::new("."));
        let full = folder.join(path);
        let text = fs::read_to_string(&full)
            .map_err(|error| format!("{} cannot be read: {error}", full.display()))?;
        Ok((full.display().to_string(), text))
    }
}

/// Reads a configuration file into `settings`.
///
/// # Errors
/// For people: the file that cannot be read, or the first mistake with its place.
pub fn load(path: &Path, settings: &mut Settings) -> Result<(), String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("error opening config file {}: {error}", path.display()))?;
    let map = grammar::parse(&text, &path.display().to_string(), &World)
        .map_err(|error| error.to_string())?;
    apply(&map, settings).map_err(|error| error.to_string())?;
    settings.config_file = Some(path.to_owned());
    settings.config_digest = Some(digest(&map));
    Ok(())
}

impl Settings {
    /// Looks for values that contradict each other, wherever they came from.
    ///
    /// # Errors
    /// The first contradiction, for people.
    pub fn validate(&mut self) -> Result<(), String> {
        let limits = self.server.limits;
        if limits.max_payload > limits.max_pending {
            return Err(format!(
                "max_payload ({}) cannot be higher than max_pending ({})",
                limits.max_payload, limits.max_pending
            ));
        }
        if self
            .server
            .server_name
            .as_deref()
            .is_some_and(|name| name.contains(' '))
        {
            return Err("server name cannot contain spaces".to_owned());
        }
        if self.lame_duck.grace >= self.lame_duck.duration {
            return Err(format!(
                "lame duck grace period ({:?}) should be strictly lower than lame duck duration ({:?})",
                self.lame_duck.grace, self.lame_duck.duration
            ));
        }
        if self.jetstream.is_none()
            && let Some(account) = self.jetstream_accounts.first()
        {
            self.warnings.push(format!(
                "account {account:?} wants JetStream, which is not enabled for the server"
            ));
        }
        self.validate_users()
    }

    fn validate_users(&mut self) -> Result<(), String> {
        let auth = &self.server.auth;
        let mut names = HashSet::new();
        for user in &auth.users {
            if !names.insert(user.user.as_str()) {
                return Err(format!("Duplicate user {:?} detected", user.user));
            }
        }
        if let Some(name) = &auth.no_auth_user
            && !names.contains(name.as_str())
        {
            return Err(format!(
                "no_auth_user: {name:?} not present as user in authorization block or account \
                 configuration"
            ));
        }
        let secrets = auth
            .users
            .iter()
            .map(|user| &user.password)
            .chain(&auth.token);
        if secrets.into_iter().any(|secret| !secret.starts_with('$')) {
            self.warnings
                .push("Plaintext passwords detected, use nkeys or bcrypt".to_owned());
        }
        Ok(())
    }
}

/// Keys that say how much is reported, or tune what this server does otherwise.
const WITHOUT_EFFECT: &[&str] = &[
    "server_tags",
    "server_metadata",
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
    "max_closed_clients",
    "write_timeout",
    "connect_error_reports",
    "reconnect_error_reports",
    "disable_sublist_cache",
    "no_sublist_cache",
    "default_sentinel",
    "no_system_account",
    "no_system",
    "no_sys_acc",
    "system_account",
    "system",
    "ocsp",
    "ocsp_cache",
    "default_js_domain",
];

/// Keys whose promise this version cannot keep.
const NOT_BUILT: &[&str] = &[
    "operator",
    "operators",
    "roots",
    "root",
    "root_operators",
    "root_operator",
    "trusted",
    "trusted_keys",
    "resolver",
    "account_resolver",
    "accounts_resolver",
    "resolver_tls",
    "resolver_preload",
    "resolver_pinned_accounts",
    "tls",
    "cluster",
    "gateway",
    "leafnodes",
    "leaf",
    "mqtt",
    "proxies",
    "proxy_protocol",
    "allow_non_tls",
    "mappings",
    "maps",
    "https",
    "https_port",
    "syslog",
    "remote_syslog",
];

/// Clients of a closing server must have time to go elsewhere.
const MIN_LAME_DUCK: Duration = Duration::from_secs(30);

fn apply(map: &Map, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut store_dir = None;
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
            "jetstream" => jetstream(node, settings)?,
            "store_dir" | "storedir" => {
                store_dir = Some(PathBuf::from(text(node)?));
            }
            "websocket" | "ws" => websocket(node, settings)?,
            "memphis_port" => settings.memphis_port = Some(port(node)?),
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
    Ok(())
}

fn authorization(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let map = map(node)?;
    let mut single = UserOptions::default();
    let mut defaults = None;
    let mut users = Vec::new();
    for field in &map.fields {
        let node = &field.node;
        match key(field).as_str() {
            "user" | "username" => single.user = text(node)?,
            "pass" | "password" => single.password = text(node)?,
            "token" => settings.server.auth.token = Some(text(node)?),
            "timeout" => settings.server.timing.auth_timeout = duration(node)?,
            "users" => {
                for node in list(node)? {
                    users.push(user(node, None)?);
                }
            }
            "default_permissions" | "default_permission" | "permissions" => {
                defaults = Some(permissions(node)?);
            }
            "auth_callout" | "auth_hook" | "proxy_required" => return Err(not_built(field)),
            _ => unknown(field)?,
        }
    }
    if !single.user.is_empty() {
        if settings.server.auth.token.is_some() {
            return Err(wrong(node, "Cannot have a user/pass and token"));
        }
        if !users.is_empty() {
            return Err(wrong(
                node,
                "Can not have a single user/pass and a users array",
            ));
        }
        users.push(single);
    }
    for user in &mut users {
        if user.permissions.is_none() {
            user.permissions.clone_from(&defaults);
        }
    }
    settings.server.auth.users.append(&mut users);
    Ok(())
}

fn user(node: &Node, account: Option<&str>) -> Result<UserOptions, ConfigError> {
    let map = map(node)?;
    let mut user = UserOptions {
        account: account.map(str::to_owned),
        ..UserOptions::default()
    };
    for field in &map.fields {
        let node = &field.node;
        match key(field).as_str() {
            "user" | "username" => user.user = text(node)?,
            "pass" | "password" => user.password = text(node)?,
            "permissions" | "permission" | "authorization" => {
                user.permissions = Some(permissions(node)?);
            }
            "nkey"
            | "allowed_connection_types"
            | "connection_types"
            | "clients"
            | "proxy_required" => return Err(not_built(field)),
            _ => unknown(field)?,
        }
    }
    if user.user.is_empty() {
        return Err(wrong(node, "User entry requires a user"));
    }
    Ok(user)
}

fn permissions(node: &Node) -> Result<PermissionOptions, ConfigError> {
    let mut options = PermissionOptions::default();
    for field in &map(node)?.fields {
        let node = &field.node;
        match key(field).as_str() {
            "publish" | "pub" | "import" => options.publish = rules(node)?,
            "subscribe" | "sub" | "export" => options.subscribe = rules(node)?,
            "allow_responses" | "publish_allow_responses" => options.responses = responses(node)?,
            _ => unknown(field)?,
        }
    }
    Ok(options)
}

fn rules(node: &Node) -> Result<SubjectRules, ConfigError> {
    let Value::Map(map) = &node.value else {
        return Ok(SubjectRules {
            allow: Some(texts(node)?),
            deny: Vec::new(),
        });
    };
    let mut rules = SubjectRules::default();
    for field in &map.fields {
        match key(field).as_str() {
            "allow" => rules.allow = Some(texts(&field.node)?),
            "deny" => rules.deny = texts(&field.node)?,
            _ => unknown(field)?,
        }
    }
    Ok(rules)
}

fn responses(node: &Node) -> Result<Option<ResponseLimits>, ConfigError> {
    let mut limits = ResponseLimits::default();
    match &node.value {
        Value::Bool(true) => {}
        Value::Bool(false) => return Ok(None),
        _ => {
            for field in &map(node)?.fields {
                match key(field).as_str() {
                    "max" | "max_msgs" | "max_messages" | "max_responses" => {
                        limits.max = u32::try_from(integer(&field.node)?).ok();
                    }
                    "expires" | "expiration" | "ttl" => {
                        limits.ttl = unless_negative(&field.node, duration)?;
                    }
                    _ => unknown(field)?,
                }
            }
        }
    }
    Ok(Some(limits))
}

/// A value for which a negative number means that there is no limit.
fn unless_negative<T>(
    node: &Node,
    read: impl Fn(&Node) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    match node.value {
        Value::Integer(number) if number < 0 => Ok(None),
        _ => read(node).map(Some),
    }
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

fn accounts(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let Value::Map(accounts) = &node.value else {
        // A list of names makes accounts without users; they exist when first named.
        texts(node)?;
        return Ok(());
    };
    for account in &accounts.fields {
        let mut defaults = None;
        let mut users = Vec::new();
        for field in &map(&account.node)?.fields {
            match key(field).as_str() {
                "users" => {
                    for node in list(&field.node)? {
                        users.push(user(node, Some(&account.key))?);
                    }
                }
                "default_permissions" => defaults = Some(permissions(&field.node)?),
                "jetstream" => {
                    let on = match &field.node.value {
                        Value::Bool(on) => *on,
                        Value::String(word) => word.eq_ignore_ascii_case("enabled"),
                        _ => true,
                    };
                    if on {
                        settings.jetstream_accounts.push(account.key.clone());
                    }
                }
                "nkey" | "imports" | "exports" | "mappings" | "maps" | "limits" | "msg_trace"
                | "trace_dest" => return Err(not_built(field)),
                _ => unknown(field)?,
            }
        }
        for user in &mut users {
            if user.permissions.is_none() {
                user.permissions.clone_from(&defaults);
            }
        }
        settings.server.auth.users.append(&mut users);
    }
    Ok(())
}

fn jetstream(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut streams = settings.jetstream.take().unwrap_or_default();
    match &node.value {
        Value::Bool(false) => return Ok(()),
        Value::Bool(true) => {}
        Value::String(word) if word.eq_ignore_ascii_case("enabled") => {}
        Value::String(word) if word.eq_ignore_ascii_case("disabled") => return Ok(()),
        Value::Map(map) => {
            for field in &map.fields {
                let node = &field.node;
                match key(field).as_str() {
                    "enabled" | "enable" => {
                        if !boolean(node)? {
                            return Ok(());
                        }
                    }
                    "store_dir" | "store" | "storedir" => {
                        streams.store_dir = Some(text(node)?.into());
                    }
                    "max_memory_store" | "max_mem_store" | "max_mem" => {
                        streams.max_memory = Some(store_size(node)?);
                    }
                    "max_file_store" | "max_file" => streams.max_file = Some(store_size(node)?),
                    "domain" => streams.domain = Some(text(node)?),
                    "sync_interval" | "sync" => {
                        // Every acknowledgement waits for a sync, whatever is asked for.
                        if text(node).is_ok_and(|word| word != "always") {
                            settings.warnings.push(format!(
                                "{}: acknowledgements always wait for the disk here",
                                field.place
                            ));
                        }
                    }
                    "key"
                    | "ek"
                    | "encryption_key"
                    | "prev_key"
                    | "prev_ek"
                    | "prev_encryption_key"
                    | "cipher"
                    | "tpm" => return Err(not_built(field)),
                    "strict"
                    | "unique_tag"
                    | "extension_hint"
                    | "limits"
                    | "max_outstanding_catchup"
                    | "max_buffered_size"
                    | "max_buffered_msgs"
                    | "request_queue_limit"
                    | "info_queue_limit"
                    | "meta_compact"
                    | "meta_compact_size"
                    | "meta_compact_sync"
                    | "max_concurrent_io" => {
                        settings.warnings.push(format!(
                            "{}: {:?} has no effect in this version",
                            field.place, field.key
                        ));
                    }
                    _ => unknown(field)?,
                }
            }
        }
        _ => return Err(expected(node, "true, false, enabled, disabled or a map")),
    }
    settings.jetstream = Some(streams);
    Ok(())
}

fn websocket(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut listener = WebSocketOptions::at("0.0.0.0", 0);
    let mut plain = false;
    for field in &map(node)?.fields {
        let node = &field.node;
        match key(field).as_str() {
            "listen" => {
                let address = address(node, "0.0.0.0")?;
                listener.host = address.host;
                listener.port = address.port;
            }
            "host" | "net" => listener.host = text(node)?,
            "port" => listener.port = port(node)?,
            "no_tls" => plain = boolean(node)?,
            "same_origin" => listener.origins.same_origin = boolean(node)?,
            "allowed_origins" | "allowed_origin" | "allow_origins" | "allow_origin" | "origins"
            | "origin" => {
                for text in texts(node)? {
                    let origin = Origin::parse(&text)
                        .map_err(|error| wrong(node, &format!("{text:?}: {error}")))?;
                    listener.origins.allowed.push(origin);
                }
            }
            "handshake_timeout" => listener.handshake_timeout = duration(node)?,
            "compression" => {
                if boolean(node)? {
                    settings.warnings.push(format!(
                        "{}: compression is not offered, clients speak without",
                        field.place
                    ));
                }
            }
            "advertise" | "ping_interval" | "headers" => settings.warnings.push(format!(
                "{}: {:?} has no effect in this version",
                field.place, field.key
            )),
            "tls" | "authorization" | "jwt_cookie" | "user_cookie" | "pass_cookie"
            | "token_cookie" | "no_auth_user" => return Err(not_built(field)),
            _ => unknown(field)?,
        }
    }
    if !plain {
        return Err(wrong(
            node,
            "websocket requires TLS configuration or no_tls: true; TLS is not supported by this version",
        ));
    }
    settings.server.websocket = Some(listener);
    Ok(())
}

fn key(field: &Field) -> String {
    field.key.to_ascii_lowercase()
}

fn unknown(field: &Field) -> Result<(), ConfigError> {
    if field.referred {
        return Ok(());
    }
    Err(ConfigError {
        place: field.place.clone(),
        what: format!("unknown field {:?}", field.key),
    })
}

fn not_built(field: &Field) -> ConfigError {
    ConfigError {
        place: field.place.clone(),
        what: format!("{:?} is not supported by this version", field.key),
    }
}

fn wrong(node: &Node, what: &str) -> ConfigError {
    ConfigError {
        place: node.place.clone(),
        what: what.to_owned(),
    }
}

fn expected(node: &Node, what: &str) -> ConfigError {
    ConfigError {
        place: node.place.clone(),
        what: format!("expected {what}, found {}", node.value.kind()),
    }
}

fn map(node: &Node) -> Result<&Map, ConfigError> {
    match &node.value {
        Value::Map(map) => Ok(map),
        _ => Err(expected(node, "a map")),
    }
}

fn list(node: &Node) -> Result<&[Node], ConfigError> {
    match &node.value {
        Value::Array(items) => Ok(items),
        _ => Err(expected(node, "a list")),
    }
}

fn text(node: &Node) -> Result<String, ConfigError> {
    match &node.value {
        Value::String(text) => Ok(text.clone()),
        // A password of digits is still a password.
        Value::Integer(number) => Ok(number.to_string()),
        _ => Err(expected(node, "text")),
    }
}

fn texts(node: &Node) -> Result<Vec<String>, ConfigError> {
    match &node.value {
        Value::Array(items) => items.iter().map(text).collect(),
        _ => Ok(vec![text(node)?]),
    }
}

fn boolean(node: &Node) -> Result<bool, ConfigError> {
    match node.value {
        Value::Bool(value) => Ok(value),
        _ => Err(expected(node, "true or false")),
    }
}

fn integer(node: &Node) -> Result<i64, ConfigError> {
    match node.value {
        Value::Integer(number) => Ok(number),
        _ => Err(expected(node, "a whole number")),
    }
}

fn limit(node: &Node) -> Result<Option<usize>, ConfigError> {
    Ok(usize::try_from(integer(node)?)
        .ok()
        .filter(|limit| *limit > 0))
}

fn size(node: &Node) -> Result<usize, ConfigError> {
    usize::try_from(integer(node)?).map_err(|_| wrong(node, "a size must be 0 or more"))
}

/// A size of a store: a number, or text with K, M, G or T counting in 1024s.
fn store_size(node: &Node) -> Result<u64, ConfigError> {
    let Value::String(text) = &node.value else {
        return u64::try_from(integer(node)?).map_err(|_| wrong(node, "a size must be 0 or more"));
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text
        .get(digits.len()..)
        .unwrap_or("")
        .to_ascii_uppercase()
        .as_str()
    {
        "" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(wrong(node, "a size is a number with K, M, G or T")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| wrong(node, "a size is a number with K, M, G or T"))
}

fn port(node: &Node) -> Result<u16, ConfigError> {
    match integer(node)? {
        -1 => Ok(0),
        number => u16::try_from(number).map_err(|_| {
            wrong(
                node,
                "a port is a number from 0 to 65535, or -1 for any free one",
            )
        }),
    }
}

fn address(node: &Node, default_host: &str) -> Result<Address, ConfigError> {
    if let Value::Integer(_) = node.value {
        return Ok(Address {
            host: default_host.to_owned(),
            port: port(node)?,
        });
    }
    let text = text(node)?;
    let (host, number) = text.rsplit_once(':').unwrap_or(("", &text));
    let number: i64 = number
        .parse()
        .map_err(|_| wrong(node, "expected a port or host:port"))?;
    let number = if number == -1 { 0 } else { number };
    let port = u16::try_from(number).map_err(|_| wrong(node, "a port is at most 65535"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { default_host } else { host };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

/// A duration: text as `2m` or `1h30m`, a bare number counts seconds.
fn duration(node: &Node) -> Result<Duration, ConfigError> {
    let parsed = match &node.value {
        Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        Value::String(text) => parse_duration(text),
        _ => None,
    };
    parsed.ok_or_else(|| wrong(node, "expected a duration such as \"2m\" or \"500ms\""))
}

/// A duration as Go writes it: numbers with `ns us ms s m h`, one after the other.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let factor = match rest.get(..unit)? {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * factor;
        rest = rest.get(unit..)?;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Environment for Nothing {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
        fn include(&self, _: &str, path: &str) -> Result<(String, String), String> {
            Err(format!("{path} cannot be read"))
        }
    }

    fn read(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let map = grammar::parse(text, "t.conf", &Nothing).map_err(|error| error.to_string())?;
        apply(&map, &mut settings).map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn a_test_suites_configuration_is_understood() {
        let settings = read(
            r#"
            listen: 127.0.0.1:-1
            server_name: a
            max_payload: 2MB
            ping_interval: "30s"
            jetstream { store_dir: /tmp/x, max_file_store: 10G, max_mem: "256M" }
            websocket { port: -1, no_tls: true }
            authorization {
              users = [
                {user: derek, password: foobar, permissions: {publish: ["a", "b.>"], subscribe: {deny: "c"}}}
                {user: bob, pass: 1234}
              ]
            }
            accounts { A { users: [{user: x, pass: y}] } }
            "#,
        )
        .expect("valid");
        assert_eq!(settings.server.host, "127.0.0.1");
        assert_eq!(settings.server.ports, [0]);
        assert_eq!(settings.server.limits.max_payload, 2 << 20);
        assert_eq!(
            settings.server.timing.ping_interval,
            Duration::from_secs(30)
        );
        let streams = settings.jetstream.expect("on");
        assert_eq!(streams.max_memory, Some(256 << 20));
        assert_eq!(streams.max_file, Some(10_000_000_000));
        assert_eq!(settings.server.auth.users.len(), 3);
        assert_eq!(settings.server.auth.users[1].password, "1234");
        assert_eq!(settings.server.auth.users[2].account.as_deref(), Some("A"));
        assert_eq!(settings.server.websocket.expect("on").port, 0);
    }

    #[test]
    fn mistakes_name_place_and_remedy() {
        assert_eq!(
            read("port: 1\nnonsense: 2").expect_err("refused"),
            "t.conf:2:1: unknown field \"nonsense\""
        );
        assert_eq!(
            read("port: foo").expect_err("refused"),
            "t.conf:1:7: expected a whole number, found text"
        );
        assert!(
            read("tls { cert_file: a }")
                .expect_err("refused")
                .contains("not supported by this version")
        );
        assert!(
            read("websocket { port: 1 }")
                .expect_err("refused")
                .contains("no_tls")
        );
        assert!(read("my_port = 5\nport = $my_port").is_ok());
    }

    #[test]
    fn permissions_of_all_notations_are_read() {
        let settings = read(
            r#"authorization {
              default_permissions: { sub: "_INBOX.>" }
              users: [
                {user: a, pass: p, permissions: {pub: {allow: [x, y], deny: y}, allow_responses: {max: -1, ttl: "1m"}}}
                {user: b, pass: p}
                {user: c, pass: p, permissions: {allow_responses: true}}
              ]
            }"#,
        )
        .expect("valid");
        let permissions = |index: usize| {
            settings.server.auth.users[index]
                .permissions
                .clone()
                .expect("given")
        };
        let first = permissions(0);
        assert_eq!(
            first.publish.allow,
            Some(vec!["x".to_owned(), "y".to_owned()])
        );
        assert_eq!(first.publish.deny, ["y"]);
        let limits = first.responses.expect("given");
        assert_eq!(
            (limits.max, limits.ttl),
            (None, Some(Duration::from_secs(60)))
        );
        assert_eq!(
            permissions(1).subscribe.allow,
            Some(vec!["_INBOX.>".to_owned()])
        );
        assert_eq!(permissions(2).responses, Some(ResponseLimits::default()));
    }

    #[test]
    fn contradictions_are_refused_wherever_they_come_from() {
        let refused = |text: &str| {
            read(text)
                .expect("each value is valid")
                .validate()
                .expect_err("a contradiction")
        };
        assert!(refused("max_payload: 2MB\nmax_pending: 1MB").contains("max_pending (1048576)"));
        assert!(refused("server_name: \"a b\"").contains("spaces"));
        assert!(refused("no_auth_user: x").contains("no_auth_user: \"x\" not present"));
        assert!(refused("lame_duck_grace_period: 3m").contains("lame duck"));
        let twice = "authorization { users: [{user: a, pass: b}, {user: a, pass: c}] }";
        assert!(refused(twice).contains("Duplicate user \"a\""));
        let mut plain = read("authorization { user: a, pass: b }").expect("valid");
        plain.validate().expect("consistent");
        assert_eq!(
            plain.warnings,
            ["Plaintext passwords detected, use nkeys or bcrypt"]
        );
    }

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        for text in ["", "5", "s", "5 s", "-1s", "5x"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
