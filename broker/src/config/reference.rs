//! Every key of a configuration, in words: for `menes config explain`, for suggestions, and for the
//! documentation. Tests hold it against what is read.

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name; keys inside a section have the section's in front, as `tls.cert_file`.
    pub key: &'static str,
    /// Other spellings.
    pub aliases: &'static [&'static str],
    /// What its value is.
    pub value: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// Whether a reload takes it up.
    pub reloads: bool,
    /// What it does.
    pub about: &'static str,
}

const NO: bool = false;
const RELOADS: bool = true;

macro_rules! entries {
    ($($key:literal $aliases:tt $value:literal $default:literal $reloads:ident $about:literal;)*) => {
        &[$(Entry {
            key: $key,
            aliases: &$aliases,
            value: $value,
            default: $default,
            reloads: $reloads,
            about: $about,
        }),*]
    };
}

/// The keys, by section.
pub const ENTRIES: &[Entry] = entries! {
    "listen" [] "port or host:port" "0.0.0.0:4222" NO "Where clients connect; -1 as the port takes any free one.";
    "host" ["net"] "address" "0.0.0.0" NO "The address of the client port.";
    "port" [] "number" "4222" NO "The client port; -1 takes any free one.";
    "memphis_port" [] "number" "6666 with menes serve, else none" NO "A second client port, where Memphis SDKs look.";
    "rest_gateway" [] "port, host:port or map" "port 4444 with menes serve, else none" NO "The REST gateway: stations over HTTP, as that of Memphis.";
    "rest_gateway.listen" [] "port or host:port" "0.0.0.0:4444" NO "Where it listens.";
    "rest_gateway.host" ["net"] "address" "0.0.0.0" NO "Its address.";
    "rest_gateway.port" [] "number" "4444" NO "Its port; -1 takes any free one.";
    "rest_gateway.tls" [] "map" "none" NO "As tls at the top.";
    "management" [] "port, host:port or map" "port 9000 with menes serve, else none" NO "The management API, /api/v1 over HTTP.";
    "management.listen" [] "port or host:port" "0.0.0.0:9000" NO "Where it listens.";
    "management.host" ["net"] "address" "0.0.0.0" NO "Its address.";
    "management.port" [] "number" "9000" NO "Its port; -1 takes any free one.";
    "management.tls" [] "map" "none" NO "As tls at the top.";
    "metrics" [] "port, host:port, map or false" "port 7777 with menes serve, else none" NO "Metrics for Prometheus, /metrics over HTTP.";
    "metrics.listen" [] "port or host:port" "127.0.0.1:7777" NO "Where it listens.";
    "metrics.host" ["net"] "address" "127.0.0.1" NO "Its address.";
    "metrics.port" [] "number" "7777" NO "Its port; -1 takes any free one.";
    "metrics.tls" [] "map" "none" NO "As tls at the top.";
    "metrics.names" [] "menes, nats, memphis or a list" "menes" NO "Names of the metrics, unless a scraper asks for others.";
    "metrics.max_streams" [] "number" "10000" NO "Streams that are shown one by one.";
    "metrics.max_consumers" [] "number" "10000" NO "Durable consumers that are shown one by one.";
    "client_advertise" [] "host or host:port" "none" RELOADS "What clients are told to reconnect to in place of the listener's address.";
    "server_name" [] "text without spaces" "the server's id" NO "The name clients and monitoring show.";
    "server_tags" [] "text or list" "none" RELOADS "Tags shown by monitoring, in lower case.";
    "server_metadata" [] "map of texts" "none" RELOADS "What else monitoring shows of this server.";
    "feature_flags" [] "map of true or false" "none" NO "Experiments of nats-server; none has an effect here.";
    "debug" [] "true or false" "false" RELOADS "Log debug lines.";
    "trace" [] "true or false" "false" RELOADS "Log every operation of clients.";
    "trace_verbose" [] "true or false" "false" RELOADS "As trace, the system account included.";
    "trace_headers" [] "true or false" "false" RELOADS "As trace, with headers in place of payloads.";
    "max_traced_msg_len" [] "bytes" "0, no limit" RELOADS "How much of a message a trace shows.";
    "logtime" [] "true or false" "true" RELOADS "Begin log lines with the time.";
    "logtime_utc" [] "true or false" "false, local time" RELOADS "That time is UTC.";
    "log_file" ["logfile"] "path" "standard error" RELOADS "Where the log goes.";
    "logfile_size_limit" ["log_size_limit"] "bytes" "0, no limit" NO "The log file is moved aside when it has grown beyond this.";
    "logfile_max_num" ["log_max_num"] "number" "0, all" NO "Log files kept, the one written to included.";
    "syslog" [] "true or false" "false" RELOADS "Log to the syslog of this machine.";
    "remote_syslog" [] "URL" "none" RELOADS "Log to a syslog at udp://host:port, tcp://host:port or unix:///path.";
    "pid_file" ["pidfile"] "path" "none" RELOADS "A file for the process id.";
    "ports_file_dir" [] "path" "none" NO "A folder for a file that lists the ports.";
    "prof_port" [] "number" "0, none" NO "Profiles of nats-server; has no effect here.";
    "prof_block_rate" [] "number" "0" NO "Profiles of nats-server; has no effect here.";
    "http" [] "port or host:port" "none" NO "Where monitoring listens.";
    "https" [] "port or host:port" "none" NO "Where monitoring listens inside TLS, with the certificates of tls. One of http and https.";
    "http_port" ["monitor_port"] "number" "none" NO "The port of monitoring.";
    "https_port" [] "number" "none" NO "The port of monitoring inside TLS.";
    "http_base_path" [] "path" "none" NO "A path in front of those of monitoring.";
    "max_connections" ["max_conn"] "number" "65536" RELOADS "Client connections at a time. A lower limit closes the latest ones.";
    "max_subscriptions" ["max_subs"] "number" "0, no limit" NO "Subscriptions of one connection.";
    "max_sub_tokens" ["max_subscription_tokens"] "number" "0, no limit" NO "Tokens in the subject of a subscription.";
    "max_control_line" [] "bytes" "4096" RELOADS "The longest line of the protocol.";
    "max_payload" [] "bytes" "1MB" RELOADS "The largest message, headers included; at most max_pending.";
    "max_pending" [] "bytes" "64MB" NO "Bytes queued for a connection before it is closed as a slow consumer.";
    "max_closed_clients" [] "number" "10000" NO "Closed connections that monitoring remembers.";
    "ping_interval" [] "duration" "2m" RELOADS "Time between two pings.";
    "ping_max" [] "number" "2" RELOADS "Unanswered pings before a connection is closed.";
    "write_deadline" [] "duration" "10s" RELOADS "Longest time a connection may take no bytes at all.";
    "write_timeout" [] "default, close or retry" "close" NO "What is done when the write deadline has passed.";
    "lame_duck_duration" [] "duration" "2m, at least 30s" NO "Time over which connections are closed before the server is replaced.";
    "lame_duck_grace_period" [] "duration" "10s" NO "Time between telling clients and closing the first one.";
    "connect_error_reports" [] "number" "3600" RELOADS "Failed attempts to reach another server after which it is logged again.";
    "reconnect_error_reports" [] "number" "1" RELOADS "The same for a server that was connected before.";
    "no_header_support" [] "true or false" "false" NO "Do not speak message headers.";
    "no_fast_producer_stall" [] "true or false" "false" RELOADS "Drop messages for receivers that are far behind instead of holding their publishers up.";
    "disable_sublist_cache" ["no_sublist_cache"] "true or false" "false" NO "A switch of nats-server; has no effect here.";
    "proxy_protocol" [] "true or false" "false" NO "A load balancer in front says where clients are: PROXY protocol, version 1 or 2.";
    "allow_non_tls" [] "true or false" "false" NO "Clients may also speak in the clear where tls is on.";
    "no_auth_user" [] "user" "none" RELOADS "The user of connections that bring no credentials.";
    "default_sentinel" [] "user JWT" "none" RELOADS "The credentials of connections that bring none, with operators.";
    "system_account" ["system"] "account" "$SYS" NO "The account that hears about the server itself.";
    "no_system_account" ["no_system", "no_sys_acc"] "true or false" "false" NO "No such account.";
    "authorization" [] "map" "everyone may connect" RELOADS "Who may connect: a user, a token, or users.";
    "accounts" [] "map or list" "one account for all" RELOADS "Users and streams that do not see each other.";
    "mappings" ["maps"] "map" "none" RELOADS "Subjects that become other subjects.";
    "operator" ["operators", "roots", "root", "root_operators", "root_operator"] "JWT, file or list" "none" NO "Operators whose accounts and users are trusted.";
    "trusted_keys" ["trusted"] "list" "none" NO "Public keys of operators.";
    "resolver" ["account_resolver", "accounts_resolver"] "map or word" "none" NO "Where the JWTs of accounts are.";
    "resolver_tls" [] "map" "none" RELOADS "TLS towards a resolver: ca_file, cert_file and key_file, insecure.";
    "resolver_preload" [] "map" "none" RELOADS "JWTs of accounts that are known from the start.";
    "resolver_pinned_accounts" [] "list" "all" NO "Accounts that may be resolved.";
    "tls" [] "map" "none" RELOADS "TLS of the client port, and of monitoring on https.";
    "ocsp" [] "true, false or map" "auto" RELOADS "Stapling of certificate status: mode auto, always, must or never, and url or urls of responders.";
    "ocsp_cache" [] "map" "none" RELOADS "Part of ocsp; has no effect here.";
    "store_dir" ["storedir"] "path" "./menes-data, or the temporary folder as nats-server" NO "The folder of the streams.";
    "jetstream" [] "true, false or map" "on with menes serve, else off" RELOADS "Streams. A reload may switch them on and off where nothing else of the server needs them.";
    "default_js_domain" [] "map" "none" NO "Part of leafnodes; has no effect here.";
    "cluster" [] "map" "none" NO "Not supported by this version.";
    "gateway" [] "map" "none" NO "Not supported by this version.";
    "leafnodes" ["leaf"] "map" "none" NO "Servers that extend this one; not supported by this version.";
    "mqtt" [] "map" "none" NO "Not supported by this version.";
    "proxies" [] "map" "none" RELOADS "Public keys of proxies, as `trusted: [{key: U…}]`; users with `proxy_required` come through one.";
    "websocket" ["ws"] "map" "port 7770 with menes serve, else none" NO "The listener for clients over WebSocket.";
    "tls.cert_file" [] "path" "none" RELOADS "The server's certificate chain, in PEM.";
    "tls.key_file" [] "path" "none" RELOADS "The key of that certificate, in PEM.";
    "tls.certs" ["certificates"] "list of maps" "none" RELOADS "Several pairs of cert_file and key_file, chosen by the name a client asks for.";
    "tls.ca_file" [] "path" "those of the system" RELOADS "Authorities that sign clients' certificates, in PEM.";
    "tls.verify" [] "true or false" "false" RELOADS "Clients must show a certificate.";
    "tls.verify_and_map" [] "true or false" "false" NO "As verify, and the certificate says which user a client is.";
    "tls.timeout" [] "seconds or duration" "2s" RELOADS "Time for the handshake.";
    "tls.handshake_first" ["first", "immediate"] "true, false, auto or duration" "false" RELOADS "The handshake comes before INFO: always, or if the client begins within this time.";
    "tls.pinned_certs" [] "list" "any" RELOADS "SHA-256 of the public keys clients may have.";
    "tls.min_version" [] "\"1.2\" or \"1.3\"" "\"1.2\"" RELOADS "The oldest version spoken.";
    "tls.cipher_suites" [] "list" "all there are" RELOADS "Cipher suites of TLS 1.2.";
    "tls.curve_preferences" [] "list" "all there are" RELOADS "Groups for the exchange of keys, the best first.";
    "tls.allow_insecure_cipher_suites" [] "true or false" "false" RELOADS "Insecure suites may be named. None is offered.";
    "tls.connection_rate_limit" [] "number" "0, no limit" NO "Handshakes begun per second.";
    "tls.insecure" [] "true or false" "false" RELOADS "About connections to other servers; has no effect here.";
    "websocket.listen" [] "port or host:port" "none" NO "Where it listens.";
    "websocket.host" ["net"] "address" "0.0.0.0" NO "Its address.";
    "websocket.port" [] "number" "none" NO "Its port; -1 takes any free one.";
    "websocket.advertise" [] "host or host:port" "none" NO "What clients are told in place of the listener's address.";
    "websocket.no_tls" [] "true or false" "false" NO "Speak in the clear. Without it tls is required.";
    "websocket.tls" [] "map" "none" RELOADS "As tls at the top.";
    "websocket.same_origin" [] "true or false" "false" NO "Pages may connect only to the host they come from.";
    "websocket.allowed_origins" ["allowed_origin", "allow_origins", "allow_origin", "origins", "origin"] "list of URLs" "all" NO "Pages that may connect.";
    "websocket.handshake_timeout" [] "duration" "2s" NO "Time for the upgrade.";
    "websocket.compression" [] "true or false" "false" NO "Messages may be compressed, each on its own.";
    "websocket.headers" [] "map of texts" "none" NO "Headers to add to the answer of an upgrade.";
    "websocket.ping_interval" [] "duration" "that of other clients" NO "Time between two pings.";
    "websocket.jwt_cookie" [] "name" "none" NO "A cookie that holds a user JWT.";
    "websocket.user_cookie" [] "name" "none" NO "A cookie that holds a user name.";
    "websocket.pass_cookie" [] "name" "none" NO "A cookie that holds a password.";
    "websocket.token_cookie" [] "name" "none" NO "A cookie that holds a token.";
    "websocket.authorization" ["authentication"] "map" "that of all listeners" NO "A user and password, or a token, and a timeout of its own, in place of the one user or token of others.";
    "websocket.no_auth_user" [] "user" "that of all listeners" NO "The user of connections to it that bring no credentials.";
    "jetstream.store_dir" ["store", "storedir"] "path" "that at the top" NO "The folder of the streams.";
    "jetstream.max_memory_store" ["max_mem_store", "max_mem"] "bytes" "three quarters of the memory" RELOADS "Most bytes in memory streams. A reload may raise it.";
    "jetstream.max_file_store" ["max_file"] "bytes" "three quarters of the free disk" RELOADS "Most bytes in file streams. A reload may raise it.";
    "jetstream.domain" [] "text" "none" NO "The domain of the streams' API.";
    "jetstream.key" ["ek", "encryption_key"] "text" "none" NO "What is stored is encrypted with it. Better a variable of the environment: key: $JS_KEY";
    "jetstream.prev_key" ["prev_ek", "prev_encryption_key"] "text" "none" NO "The key of before, when another one takes its place or encryption ends.";
    "jetstream.cipher" [] "chacha or aes" "chacha" NO "ChaCha20-Poly1305 or AES-256-GCM, for what is written from now on.";
    "jetstream.sync_interval" ["sync"] "duration or always" "always" NO "Acknowledgements always wait for the disk here.";
    "authorization.user" ["username"] "text" "none" RELOADS "The one user.";
    "authorization.password" ["pass"] "text or hash" "none" RELOADS "Its password.";
    "authorization.token" [] "text or hash" "none" RELOADS "One token for everyone.";
    "authorization.timeout" [] "seconds or duration" "2s, or 1s more than tls has" RELOADS "Time to log in.";
    "authorization.proxy_required" [] "true or false" "false" NO "The one user or token must come through a trusted proxy.";
    "authorization.users" [] "list of maps" "none" RELOADS "Users, each with user, password and permissions.";
    "authorization.default_permissions" ["default_permission", "permissions"] "map" "everything" RELOADS "What users without permissions of their own may do.";
};

/// The entries of a key, by any of its spellings, and of the section it names.
#[must_use]
pub fn find(name: &str) -> Vec<&'static Entry> {
    let name = name.to_ascii_lowercase();
    let is_it = |entry: &&Entry| {
        let (section, own) = entry.key.rsplit_once('.').unwrap_or(("", entry.key));
        let (wanted, last) = name.rsplit_once('.').unwrap_or((section, &name));
        let is_called = own == last || entry.aliases.contains(&last);
        is_called && (wanted == section || !name.contains('.'))
    };
    let exact: Vec<&Entry> = ENTRIES.iter().filter(is_it).collect();
    let top: Vec<&Entry> = exact
        .iter()
        .copied()
        .filter(|e| !e.key.contains('.'))
        .collect();
    let mut found = if top.is_empty() { exact } else { top };
    if let [section] = found.as_slice() {
        let prefix = format!("{}.", section.key);
        found.extend(
            ENTRIES
                .iter()
                .filter(|entry| entry.key.starts_with(&prefix)),
        );
    }
    found
}

/// The key, without its section, that is most like `name`; `None` if none is like it.
#[must_use]
pub fn closest(name: &str) -> Option<&'static str> {
    let names = ENTRIES.iter().flat_map(|entry| {
        let own = entry.key.rsplit('.').next().unwrap_or(entry.key);
        entry.aliases.iter().copied().chain([own])
    });
    closest_of(name, names)
}

/// The one of `names` that is most like `name`; `None` if none is like it.
#[must_use]
pub fn closest_of<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_ascii_lowercase();
    let limit = name.chars().count().div_ceil(2).clamp(1, 3);
    names
        .map(|known| (distance(&name, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Changes of one character that make one text the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, c) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in b.iter().enumerate() {
            let change = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::grammar::{Environment, parse};
    use super::super::sections::apply;
    use super::super::settings::Settings;
    use super::*;

    struct Nothing;

    impl Environment for Nothing {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
        fn include(&self, _: &str, path: &str) -> Result<(String, String), String> {
            Err(path.to_owned())
        }
    }

    #[test]
    fn every_key_explained_is_read_by_every_spelling() {
        let mut seen = HashSet::new();
        for entry in ENTRIES {
            let (section, own) = entry.key.rsplit_once('.').unwrap_or(("", entry.key));
            for name in entry.aliases.iter().chain([&own]) {
                assert!(
                    seen.insert(format!("{section}.{name}")),
                    "{name} is there twice"
                );
                // A value of a kind that none wants: what matters is how it is refused.
                let text = if section.is_empty() {
                    format!("{name}: 1.5")
                } else {
                    format!("{section} {{ {name}: 1.5 }}")
                };
                let map = parse(&text, "t.conf", &Nothing).expect("grammar");
                let mut settings = Settings::default();
                if let Err(errors) = apply(&map, &mut settings) {
                    let text = format!("{errors:?}");
                    assert!(!text.contains("unknown field"), "{name}: {text}");
                }
            }
        }
    }

    #[test]
    fn keys_are_found_by_any_name() {
        assert_eq!(find("logfile")[0].key, "log_file");
        assert_eq!(find("tls.first")[0].key, "tls.handshake_first");
        assert!(find("tls").len() > 10);
        assert_eq!(find("cert_file").len(), 1);
        assert!(find("nonsense").is_empty());
        assert_eq!(closest("prot"), Some("port"));
        assert_eq!(closest("max_conections"), Some("max_connections"));
        assert_eq!(closest("completely_else"), None);
    }
}
