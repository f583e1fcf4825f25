//! Reading the configuration again while the server runs.
//!
//! A reload takes effect as a whole or not at all. What may change is the table below; whatever
//! else differs refuses the reload, by the name nats-server has for it.

use std::fmt::Debug;

use super::announce::friendly_bytes;
use super::{Running, files, streams_options};
use crate::auth::operator::check_preload;
use crate::config::options::{HandshakeFirst, OperatorOptions, TlsOptions, WebSocketOptions};
use crate::config::settings::{HttpSettings, JetStreamSettings, Settings};
use crate::logging::{LogOptions, Logging};
use crate::monitoring::text::go_duration;

/// Reads the settings anew and applies them, or says why not and leaves everything as it is.
///
/// # Errors
/// Why nothing changed, for people. It is logged already.
pub(super) fn reload(running: &Running<'_>, settings: &mut Settings) -> Result<(), String> {
    let outcome = try_reload(running, settings);
    match &outcome {
        Ok(changes) => {
            for change in changes {
                tracing::info!("Reloaded: {change}");
            }
            let digest = settings.config_digest.as_deref().unwrap_or_default();
            tracing::info!("Reloaded server configuration ({digest})");
        }
        Err(error) => tracing::error!("Failed to reload server configuration: {error}"),
    }
    outcome.map(drop)
}

fn try_reload(running: &Running<'_>, settings: &mut Settings) -> Result<Vec<String>, String> {
    let Running {
        server,
        monitor,
        logging,
        http_tls,
        streams,
    } = *running;
    let (Some(again), Some(_)) = (&settings.again, &settings.config_file) else {
        return Err(
            "can only reload config when a file is provided using -c or --config".to_owned(),
        );
    };
    let fresh = again.make()?;
    if let Some(refusal) = first_refusal(settings, &fresh) {
        return Err(refusal);
    }
    if let Some(operator) = &fresh.server.operator {
        check_preload(operator).map_err(|error| error.to_string())?;
    }
    let changes = changes(settings, &fresh);
    let prepared = http_tls
        .prepare(&fresh)
        .map_err(|error| error.to_string())?;
    // What may fail comes first, and what cannot last.
    let log_before = settings.log.clone();
    if settings.log != fresh.log {
        apply_log(logging, &fresh.log)?;
    }
    let mut options = fresh.server.clone();
    // What the start made of the settings stays.
    let now = server.options();
    options.ports.clone_from(&now.ports);
    options.jetstream = fresh.jetstream.is_some();
    options.domain.clone_from(&now.domain);
    options.ocsp.folder.clone_from(&now.ocsp.folder);
    let mut prepared_streams = fresh.clone();
    let started = match switched(settings, &fresh) {
        Some(true) => {
            tracing::info!("Restarting JetStream");
            let started = super::prepare_streams(&mut prepared_streams).and_then(|()| {
                super::start_streams(&prepared_streams, &fresh, &streams.engine, &server.shared())
            });
            match started {
                Ok(started) => {
                    options.domain.clone_from(&prepared_streams.server.domain);
                    Some(started)
                }
                Err(error) => {
                    apply_log(logging, &log_before)?;
                    return Err(error.to_string());
                }
            }
        }
        _ => None,
    };
    if let Err(error) = server.reload(options) {
        if let Some(started) = started {
            started.switch_off();
        }
        apply_log(logging, &log_before)?;
        return Err(error.to_string());
    }
    if let Some(started) = started {
        streams.handle.replace(Some(started));
    }
    if switched(settings, &fresh) == Some(false)
        && let Some(running) = streams.handle.take()
    {
        tracing::info!("Initiating JetStream Shutdown...");
        running.switch_off();
        tracing::info!("JetStream Shutdown");
    }
    http_tls.replace(&fresh, prepared);
    if written(&settings.server.auth) != written(&fresh.server.auth) {
        server.update_auth(fresh.server.auth.clone());
    }
    let preload = |settings: &Settings| {
        let operator = settings.server.operator.as_ref();
        operator.map(|operator| operator.preload.clone())
    };
    if let Some(tokens) = preload(&fresh).filter(|_| preload(settings) != preload(&fresh)) {
        server.update_preloaded(tokens);
    }
    if settings.server.accounts != fresh.server.accounts {
        server.update_accounts(fresh.server.accounts.clone());
    }
    if let Some(path) = fresh
        .pid_file
        .as_ref()
        .filter(|_| settings.pid_file != fresh.pid_file)
        && let Err(error) = files::write_pid(path)
    {
        tracing::error!("Could not write pidfile: {error}");
    }
    monitor.reload(&prepared_streams);
    if fresh.jetstream.is_some() {
        server.update_streams(&streams_options(&fresh, monitor.max_memory()));
    }
    for warning in &fresh.warnings {
        tracing::warn!("{warning}");
    }
    let greets = settings.greets;
    *settings = fresh;
    settings.greets = greets;
    Ok(changes)
}

fn apply_log(logging: &Logging, options: &LogOptions) -> Result<(), String> {
    logging
        .apply(options)
        .map_err(|error| format!("the log cannot be opened: {error}"))
}

/// A setting, and what a reload does about it.
struct Setting {
    /// Its field in nats-server.
    name: &'static str,
    /// Its value, to be compared and shown.
    value: fn(&Settings) -> String,
    on_change: OnChange,
}

/// What a reload does about a setting that differs.
#[derive(Clone, Copy)]
enum OnChange {
    /// It takes effect, and is logged by this name with its value.
    Takes(&'static str),
    /// It takes effect, and is logged by this name alone: the value is a secret, or long.
    TakesSilently(&'static str),
    /// It takes effect, and is logged in the words that this makes of the old and the new.
    TakesAs(fn(&Settings, &Settings) -> Vec<String>),
    /// It refuses the reload.
    Refuses,
    /// It refuses the reload in these words.
    RefusesSaying(&'static str),
    /// Streams are started or stopped, unless something else in the server lives on them.
    Switches,
    /// A limit of the streams in bytes, logged by this name: it may be raised.
    Grows(&'static str, fn(&JetStreamSettings) -> Option<u64>),
}

use OnChange::{Grows, Refuses, RefusesSaying, Switches, Takes, TakesAs, TakesSilently};

fn written(value: &dyn Debug) -> String {
    format!("{value:?}")
}

/// Where a listener for HTTP listens, and whether inside TLS.
fn listener_of(settings: Option<&HttpSettings>) -> String {
    written(&settings.map(|settings| (&settings.address, settings.tls.is_some())))
}

fn shown<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// What is picked of the WebSocket listener, if there is one.
fn websocket<'s, T: Debug>(
    settings: &'s Settings,
    pick: impl Fn(&'s WebSocketOptions) -> T,
) -> String {
    written(&settings.server.websocket.as_ref().map(pick))
}

fn streams<T: Debug>(settings: &Settings, pick: fn(&JetStreamSettings) -> T) -> String {
    settings
        .jetstream
        .as_ref()
        .map_or_else(|| "None".to_owned(), |streams| written(&pick(streams)))
}

macro_rules! settings {
    ($($name:literal, $on_change:expr, |$s:ident| $value:expr;)*) => {
        &[$(Setting { name: $name, value: |$s| $value, on_change: $on_change }),*]
    };
}

/// Every setting there is. A test holds it against the keys of a configuration.
const SETTINGS: &[Setting] = settings! {
    "Host", Refuses, |s| s.server.host.clone();
    "Port", Refuses, |s| {
        let ports = s.server.ports.iter().map(ToString::to_string);
        ports.collect::<Vec<_>>().join(",")
    };
    "MemphisPort", Refuses, |s| shown(s.memphis_port);
    "RestGateway", RefusesSaying("config reload not supported for RestGateway"), |s| listener_of(s.rest.as_ref());
    "RestGatewayTLS", TakesSilently("rest_gateway tls"), |s| {
        written(&s.rest.as_ref().and_then(|rest| rest.tls.as_ref()))
    };
    "Management", RefusesSaying("config reload not supported for Management"), |s| listener_of(s.management.as_ref());
    "ManagementTLS", TakesSilently("management tls"), |s| {
        written(&s.management.as_ref().and_then(|management| management.tls.as_ref()))
    };
    "ClientAdvertise", Takes("client_advertise"), |s| {
        shown(s.server.client_advertise.as_ref().map(|(host, port)| format!("{host}:{port}")))
    };
    "ServerName", Refuses, |s| s.server.server_name.clone().unwrap_or_default();
    "Tags", TakesSilently("tags"), |s| written(&s.server.tags);
    "Metadata", TakesSilently("metadata"), |s| written(&s.server.metadata);
    "Accounts", TakesSilently("accounts"), |s| written(&s.server.accounts);
    // In words without the tokens.
    "TrustedOperators", RefusesSaying("config reload not supported for TrustedOperators"), |s| {
        written(&s.server.operator.as_ref().map(|operator| {
            let OperatorOptions { tokens, pinned_accounts, default_sentinel, system_account, .. } = operator;
            (tokens, &operator.trust, pinned_accounts, default_sentinel, system_account)
        }))
    };
    "AccountResolver", RefusesSaying("config reload not supported for AccountResolver"), |s| {
        written(&s.server.operator.as_ref().map(|operator| {
            (&operator.resolver, &operator.resolver_tls)
        }))
    };
    "AccountResolverPreload", TakesSilently("resolver_preload"), |s| {
        written(&s.server.operator.as_ref().map(|operator| &operator.preload))
    };
    "AccountLimits", TakesSilently("jetstream limits of accounts"), |s| written(&s.account_limits);
    "AuthCallout", TakesSilently("auth callout"), |s| written(&s.server.auth.callout);
    "SystemAccount", Refuses, |s| s.server.system_account.clone().unwrap_or_default();
    "NoHeaderSupport", Refuses, |s| s.server.no_header_support.to_string();
    "ProxyProtocol", Refuses, |s| s.server.proxy_protocol.to_string();
    "MaxConn", Takes("max_connections"), |s| s.server.limits.max_connections.to_string();
    "MaxSubs", Refuses, |s| s.server.limits.max_subscriptions.unwrap_or(0).to_string();
    "MaxSubTokens", Refuses, |s| s.server.limits.max_sub_tokens.unwrap_or(0).to_string();
    "MaxControlLine", Takes("max_control_line"), |s| s.server.limits.max_control_line.to_string();
    "MaxPayload", Takes("max_payload"), |s| s.server.limits.max_payload.to_string();
    "MaxPending", Refuses, |s| s.server.limits.max_pending.to_string();
    "MaxClosedClients", Refuses, |s| s.server.limits.max_closed_clients.to_string();
    "NoFastProducerStall", Takes("no_fast_producer_stall"), |s| {
        s.server.limits.no_fast_producer_stall.to_string()
    };
    "PingInterval", Takes("ping_interval"), |s| go_duration(s.server.timing.ping_interval);
    "MaxPingsOut", Takes("ping_max"), |s| s.server.timing.ping_max.to_string();
    "WriteDeadline", Takes("write_deadline"), |s| go_duration(s.server.timing.write_deadline);
    "WriteTimeout", Refuses, |s| written(&s.server.timing.write_timeout).to_lowercase();
    "AuthTimeout", Takes("authorization timeout"), |s| {
        s.server.timing.auth_timeout.as_secs_f64().to_string()
    };
    "Users", TakesSilently("authorization users"), |s| written(&s.server.auth.users);
    "Authorization", TakesSilently("authorization token"), |s| written(&s.server.auth.token);
    "ProxyRequired", Refuses, |s| s.server.auth.proxy_required.to_string();
    "Proxies", TakesAs(changed_proxies), |s| written(&s.server.auth.trusted_proxies);
    "NoAuthUser", Takes("no_auth_user"), |s| shown(s.server.auth.no_auth_user.as_ref());
    "TLSConfig", TakesSilently("tls"), |s| {
        written(&s.server.tls.as_ref().map(|tls| {
            (&tls.certificates, &tls.ca_file, tls.verify, tls.min_version)
        }))
    };
    "TLSCiphers", TakesSilently("tls ciphers and curves"), |s| {
        written(&s.server.tls.as_ref().map(|tls| (&tls.cipher_suites, &tls.curve_preferences)))
    };
    "TLSTimeout", Takes("tls timeout"), |s| {
        shown(s.server.tls.as_ref().map(|tls| tls.timeout.as_secs_f64()))
    };
    "TLSPinnedCerts", TakesSilently("pinned_certs"), |s| {
        written(&s.server.tls.as_ref().map(|tls| &tls.pinned_certs))
    };
    "TLSHandshakeFirst", Takes("Client TLS handshake first"), |s| {
        shown(s.server.tls.as_ref().map(|tls| match tls.handshake_first {
            HandshakeFirst::Never => "false".to_owned(),
            HandshakeFirst::Always => "true".to_owned(),
            HandshakeFirst::Within(time) => go_duration(time),
        }))
    };
    "TLSMap", Refuses, |s| s.server.tls.as_ref().is_some_and(|tls| tls.map_users).to_string();
    "TLSRateLimit", Refuses, |s| {
        let limit = s.server.tls.as_ref().and_then(|tls| tls.connection_rate_limit);
        limit.unwrap_or(0).to_string()
    };
    "OCSPConfig", TakesSilently("ocsp"), |s| written(&s.server.ocsp);
    "AllowNonTLS", Refuses, |s| s.server.allow_non_tls.to_string();
    "Websocket", RefusesSaying("config reload not supported for Websocket: listen"), |s| {
        websocket(s, |options| (&options.host, options.port, options.tls.is_some()))
    };
    "WebsocketMap", RefusesSaying("config reload not supported for Websocket: verify_and_map"), |s| {
        websocket(s, |options| options.tls.as_ref().is_some_and(|tls| tls.map_users))
    };
    "WebsocketAdvertise", RefusesSaying("config reload not supported for Websocket: advertise"), |s| {
        websocket(s, |options| &options.advertise)
    };
    "WebsocketOrigins", RefusesSaying("config reload not supported for Websocket: same_origin and allowed_origins"), |s| {
        websocket(s, |options| &options.origins)
    };
    "WebsocketCompression", RefusesSaying("config reload not supported for Websocket: compression"), |s| {
        websocket(s, |options| options.compression)
    };
    "WebsocketHeaders", RefusesSaying("config reload not supported for Websocket: headers"), |s| {
        websocket(s, |options| &options.headers)
    };
    "WebsocketTimes", RefusesSaying("config reload not supported for Websocket: handshake_timeout and ping_interval"), |s| {
        websocket(s, |options| (options.handshake_timeout, options.ping_interval))
    };
    "WebsocketCookies", RefusesSaying("config reload not supported for Websocket: cookies"), |s| {
        websocket(s, |options| &options.cookies)
    };
    "WebsocketAuthorization", RefusesSaying("config reload not supported for Websocket: authorization"), |s| {
        let timeout = s.server.websocket.as_ref().and_then(|options| options.auth_timeout);
        written(&(&s.server.auth.websocket, timeout))
    };
    "WebsocketTLS", TakesSilently("websocket tls"), |s| {
        websocket(s, |options| {
            options.tls.as_ref().map(|tls| TlsOptions { map_users: false, ..tls.clone() })
        })
    };
    "HTTPHost", Refuses, |s| shown(s.monitor.as_ref().map(|at| &at.host));
    "HTTPPort", Refuses, |s| shown(s.monitor.as_ref().map(|at| at.port));
    "HTTPSPort", Refuses, |s| {
        shown(s.secure_monitor.as_ref().map(|at| format!("{}:{}", at.host, at.port)))
    };
    "HTTPBasePath", Refuses, |s| s.http_base_path.clone();
    "JetStream", Switches, |s| s.jetstream.is_some().to_string();
    "JetStreamAccounts", TakesSilently("jetstream accounts"), |s| written(&s.jetstream_accounts);
    "StoreDir", RefusesSaying("config reload not supported for jetstream storage directory"), |s| {
        streams(s, |streams| streams.store_dir.clone())
    };
    "JetStreamMaxMemory", Grows("JetStream max_mem_store", |streams| streams.max_memory), |s| {
        streams(s, |streams| streams.max_memory)
    };
    "JetStreamMaxStore", Grows("JetStream max_file_store", |streams| streams.max_file), |s| {
        streams(s, |streams| streams.max_file)
    };
    "JetStreamDomain", Refuses, |s| {
        shown(s.jetstream.as_ref().and_then(|streams| streams.domain.as_ref()))
    };
    // In words without the keys.
    "JetStreamKey", RefusesSaying("config reload not supported for jetstream encryption key"), |s| {
        streams(s, |streams| streams.encryption.key.clone())
    };
    "JetStreamOldKey", RefusesSaying("config reload not supported for jetstream encryption key"), |s| {
        streams(s, |streams| streams.encryption.previous.clone())
    };
    "JetStreamCipher", RefusesSaying("config reload not supported for jetstream encryption cipher"), |s| {
        streams(s, |streams| {
            let key = streams.encryption.key.as_ref();
            key.map(|_| streams.encryption.cipher)
        })
    };
    "PidFile", Takes("pid_file"), |s| shown(s.pid_file.as_ref().map(|path| path.display()));
    "PortsFileDir", Refuses, |s| shown(s.ports_file_dir.as_ref().map(|path| path.display()));
    "LameDuckDuration", Refuses, |s| go_duration(s.lame_duck.duration);
    "LameDuckGracePeriod", Refuses, |s| go_duration(s.lame_duck.grace);
    "ConnectErrorReports", Takes("connect_error_reports"), |s| s.connect_error_reports.to_string();
    "ReconnectErrorReports", Takes("reconnect_error_reports"), |s| {
        s.reconnect_error_reports.to_string()
    };
    "Debug", Takes("debug"), |s| s.log.debug.to_string();
    "Trace", Takes("trace"), |s| s.log.trace.to_string();
    "TraceVerbose", Takes("trace_verbose"), |s| s.log.trace_verbose.to_string();
    "TraceHeaders", Takes("trace_headers"), |s| s.log.trace_headers.to_string();
    "MaxTracedMsgLen", Takes("max_traced_msg_len"), |s| s.log.max_traced.to_string();
    "Logtime", Takes("logtime"), |s| s.log.time.to_string();
    "LogtimeUTC", Takes("logtime_utc"), |s| s.log.utc.to_string();
    "LogFile", Takes("log_file"), |s| shown(s.log.file.as_ref().map(|path| path.display()));
    "LogSizeLimit", Refuses, |s| s.log.size_limit.to_string();
    "LogMaxFiles", Refuses, |s| s.log.max_files.to_string();
    "Syslog", Takes("syslog"), |s| written(&s.log.syslog);
};

/// The first setting that differs and may not.
fn first_refusal(old: &Settings, new: &Settings) -> Option<String> {
    let is_switched = switched(old, new).is_some();
    SETTINGS.iter().find_map(|setting| {
        let (was, is) = ((setting.value)(old), (setting.value)(new));
        match setting.on_change {
            _ if was == is => None,
            // Streams that come, or go, are as they are configured.
            _ if is_switched && is_of_streams(setting.name) => None,
            Switches => [old, new].into_iter().find_map(needs_streams).map(|why| {
                format!("config reload not supported for JetStream: {why} cannot do without it")
            }),
            Takes(_) | TakesSilently(_) | TakesAs(_) => None,
            Refuses => Some(format!(
                "config reload not supported for {}: old={was}, new={is}",
                setting.name
            )),
            RefusesSaying(words) => Some(words.to_owned()),
            Grows(_, limit) => {
                let limit = |settings: &Settings| settings.jetstream.as_ref().and_then(limit);
                refused_limit(limit(old), limit(new)).map(str::to_owned)
            }
        }
    })
}

/// Whether streams are switched on, or off, if either.
fn switched(old: &Settings, new: &Settings) -> Option<bool> {
    let is_on = new.jetstream.is_some();
    (old.jetstream.is_some() != is_on).then_some(is_on)
}

/// Whether a setting is one of the streams, but for whether there are any.
fn is_of_streams(name: &str) -> bool {
    name == "StoreDir" || (name.starts_with("JetStream") && name != "JetStream")
}

/// What of a server lives on streams.
fn needs_streams(settings: &Settings) -> Option<&'static str> {
    let parts = [
        (settings.memphis_port.is_some(), "memphis_port"),
        (settings.rest.is_some(), "rest_gateway"),
        (settings.management.is_some(), "management"),
        (settings.server.operator.is_some(), "operator"),
        (settings.server.auth.is_closed, "the directory of users"),
    ];
    parts
        .into_iter()
        .find(|(is_there, _)| *is_there)
        .map(|(_, name)| name)
}

/// Why a limit of the streams cannot become another one.
fn refused_limit(was: Option<u64>, is: Option<u64>) -> Option<&'static str> {
    match (was, is) {
        (Some(was), Some(is)) if is >= was => None,
        (Some(_), Some(_)) => {
            Some("config reload not supported for decreasing jetstream max memory and store")
        }
        (Some(_), None) => {
            Some("config reload not supported for jetstream max memory and max store")
        }
        (None, Some(_)) => {
            Some("config reload not supported for jetstream dynamic max memory and store")
        }
        (None, None) => None,
    }
}

/// What differs and may, as it is logged.
fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let differs = |setting: &&Setting| (setting.value)(old) != (setting.value)(new);
    // TLS that comes or goes is told as one thing.
    let has_tls = |settings: &Settings| settings.server.tls.is_some();
    let is_part_of_tls = |setting: &&Setting| {
        has_tls(old) != has_tls(new)
            && setting.name.starts_with("TLS")
            && setting.name != "TLSConfig"
    };
    let mut changes: Vec<String> = SETTINGS
        .iter()
        .filter(differs)
        .filter(|setting| !is_part_of_tls(setting))
        .filter(|setting| switched(old, new).is_none() || !is_of_streams(setting.name))
        .flat_map(|setting| match setting.on_change {
            Takes(name) => vec![format!("{name} = {}", (setting.value)(new))],
            TakesSilently("tls") => vec![format!("tls = {}", enabled(new))],
            TakesSilently(name) => vec![name.to_owned()],
            TakesAs(words) => words(old, new),
            Grows(name, limit) => {
                let limit = new.jetstream.as_ref().and_then(limit);
                vec![format!("{name} = {}", friendly_bytes(limit.unwrap_or(0)))]
            }
            Switches => vec![setting.name.to_owned()],
            Refuses | RefusesSaying(_) => Vec::new(),
        })
        .collect();
    // The files may be others under the same names.
    if new.server.tls.is_some() && !changes.iter().any(|change| change.starts_with("tls = ")) {
        changes.push(format!("tls = {}", enabled(new)));
    }
    changes
}

fn changed_proxies(old: &Settings, new: &Settings) -> Vec<String> {
    let keys = |settings: &Settings| settings.server.auth.trusted_proxies.clone();
    let (old, new) = (keys(old), keys(new));
    let only_in = |these: &[String], others: &[String]| -> Vec<String> {
        let these = these.iter().filter(|key| !others.contains(key));
        these.map(|key| format!("{key:?}")).collect()
    };
    [
        ("removed", only_in(&old, &new)),
        ("added", only_in(&new, &old)),
    ]
    .into_iter()
    .filter(|(_, keys)| !keys.is_empty())
    .map(|(what, keys)| format!("proxies trusted keys [{}] were {what}", keys.join(" ")))
    .collect()
}

fn enabled(settings: &Settings) -> &'static str {
    if settings.server.tls.is_some() {
        "enabled"
    } else {
        "disabled"
    }
}

#[cfg(test)]
mod tests;
