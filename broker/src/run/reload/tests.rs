use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::config::settings::load;

/// Two configurations that differ in one setting, by its name.
const PAIRS: &[(&str, &str, &str)] = &[
    ("Host", "host: 127.0.0.1", "host: 127.0.0.2"),
    ("Port", "port: 1", "port: 2"),
    ("MemphisPort", "memphis_port: 1", "memphis_port: 2"),
    ("RestGateway", "", "rest_gateway: 4445"),
    (
        "RestGatewayTLS",
        "rest_gateway { port: 1, tls { cert_file: ./a.crt, key_file: ./a.key } }",
        "rest_gateway { port: 1, tls { cert_file: ./b.crt, key_file: ./b.key } }",
    ),
    (
        "ManagementTLS",
        "management { port: 1, tls { cert_file: ./a.crt, key_file: ./a.key } }",
        "management { port: 1, tls { cert_file: ./b.crt, key_file: ./b.key } }",
    ),
    (
        "Management",
        "management: 9001",
        "management { port: 9002 }",
    ),
    ("ClientAdvertise", "", "client_advertise: a.example:5"),
    ("ServerName", "", "server_name: a"),
    ("Tags", "server_tags: a", "server_tags: [a, b]"),
    ("Metadata", "", "server_metadata { region: x }"),
    ("Accounts", "mappings { a: b }", "mappings { a: c }"),
    (
        "AccountLimits",
        "accounts { A { users: [{user: a, password: b}], jetstream { max_mem: 5 } } }",
        "accounts { A { users: [{user: a, password: b}], jetstream { max_mem: 6 } } }",
    ),
    (
        "SystemAccount",
        "accounts { A {} }",
        "accounts { A {} }\nsystem_account: A",
    ),
    ("NoHeaderSupport", "", "no_header_support: true"),
    ("ProxyProtocol", "", "proxy_protocol: true"),
    ("MaxConn", "", "max_connections: 5"),
    ("MaxSubs", "", "max_subscriptions: 5"),
    ("MaxSubTokens", "", "max_sub_tokens: 5"),
    ("MaxControlLine", "", "max_control_line: 500"),
    ("MaxPayload", "", "max_payload: 5"),
    ("MaxPending", "", "max_pending: 5MB"),
    ("MaxClosedClients", "", "max_closed_clients: 5"),
    ("NoFastProducerStall", "", "no_fast_producer_stall: true"),
    ("PingInterval", "", "ping_interval: 5s"),
    ("MaxPingsOut", "", "ping_max: 5"),
    ("WriteDeadline", "", "write_deadline: 5s"),
    ("WriteTimeout", "", "write_timeout: retry"),
    ("AuthTimeout", "", "authorization { timeout: 5 }"),
    ("Users", "", "authorization { user: a, password: b }"),
    ("Authorization", "", "authorization { token: b }"),
    (
        "NoAuthUser",
        "authorization { users: [{user: a, password: b}] }",
        "authorization { users: [{user: a, password: b}] }\nno_auth_user: a",
    ),
    (
        "ProxyRequired",
        "authorization { token: b }",
        "authorization { token: b, proxy_required: true }",
    ),
    (
        "Proxies",
        "",
        "proxies { trusted: [{key: UCNGL4W5QX66CFX6A6DCBVDH5VOHMI7B2UZZU7TXAUQQSI2JPHULCKBR}] }",
    ),
    (
        "TLSConfig",
        TLS,
        "tls { cert_file: ./b.crt, key_file: ./b.key }",
    ),
    (
        "TLSCiphers",
        TLS,
        "tls { cert_file: ./a.crt, key_file: ./a.key, curve_preferences: [X25519] }",
    ),
    (
        "TLSTimeout",
        TLS,
        "tls { cert_file: ./a.crt, key_file: ./a.key, timeout: 5 }\nauthorization { timeout: 3 }",
    ),
    (
        "TLSPinnedCerts",
        TLS,
        "tls { cert_file: ./a.crt, key_file: ./a.key, pinned_certs: [\"a8f407340dcc719864214b85ed96f98d16cbffa8f509d9fa4ca237b7bb3f9c32\"] }",
    ),
    (
        "TLSHandshakeFirst",
        TLS,
        "tls { cert_file: ./a.crt, key_file: ./a.key, handshake_first: auto }",
    ),
    (
        "TLSMap",
        "tls { cert_file: ./a.crt, key_file: ./a.key, ca_file: ./a.crt, verify: true }",
        "tls { cert_file: ./a.crt, key_file: ./a.key, ca_file: ./a.crt, verify_and_map: true }",
    ),
    (
        "TLSRateLimit",
        TLS,
        "tls { cert_file: ./a.crt, key_file: ./a.key, connection_rate_limit: 5 }",
    ),
    ("OCSPConfig", "", "ocsp { mode: must }"),
    (
        "AllowNonTLS",
        TLS,
        "tls { cert_file: ./a.crt, key_file: ./a.key }\nallow_non_tls: true",
    ),
    (
        "Websocket",
        "websocket { port: 1, no_tls: true }",
        "websocket { port: 2, no_tls: true }",
    ),
    (
        "WebsocketMap",
        "websocket { port: 1, tls { cert_file: ./a.crt, key_file: ./a.key, ca_file: ./a.crt, verify: true } }",
        "websocket { port: 1, tls { cert_file: ./a.crt, key_file: ./a.key, ca_file: ./a.crt, verify_and_map: true } }",
    ),
    (
        "WebsocketAdvertise",
        "websocket { port: 1, no_tls: true }",
        "websocket { port: 1, no_tls: true, advertise: \"a.example:443\" }",
    ),
    (
        "WebsocketOrigins",
        "websocket { port: 1, no_tls: true }",
        "websocket { port: 1, no_tls: true, same_origin: true }",
    ),
    (
        "WebsocketCompression",
        "websocket { port: 1, no_tls: true }",
        "websocket { port: 1, no_tls: true, compression: true }",
    ),
    (
        "WebsocketHeaders",
        "websocket { port: 1, no_tls: true }",
        "websocket { port: 1, no_tls: true, headers { X-A: b } }",
    ),
    (
        "WebsocketTimes",
        "websocket { port: 1, no_tls: true }",
        "websocket { port: 1, no_tls: true, handshake_timeout: 5s }",
    ),
    (
        "WebsocketCookies",
        "websocket { port: 1, no_tls: true }",
        "websocket { port: 1, no_tls: true, token_cookie: a }",
    ),
    (
        "WebsocketAuthorization",
        "websocket { port: 1, no_tls: true }",
        "websocket { port: 1, no_tls: true, authorization { token: a } }",
    ),
    (
        "WebsocketTLS",
        "websocket { port: 1, tls { cert_file: ./a.crt, key_file: ./a.key } }",
        "websocket { port: 1, tls { cert_file: ./b.crt, key_file: ./b.key } }",
    ),
    ("HTTPHost", "http: \"127.0.0.1:1\"", "http: \"127.0.0.2:1\""),
    ("HTTPPort", "http_port: 1", "http_port: 2"),
    (
        "HTTPSPort",
        TLS,
        "tls { cert_file: ./a.crt, key_file: ./a.key }\nhttps_port: 5",
    ),
    ("HTTPBasePath", "", "http_base_path: a"),
    ("JetStream", "", "jetstream: true"),
    (
        "JetStreamAccounts",
        "accounts { A { users: [{user: a, password: b}] } }",
        "accounts { A { users: [{user: a, password: b}], jetstream: true } }",
    ),
    (
        "StoreDir",
        "jetstream { store_dir: /a }",
        "jetstream { store_dir: /b }",
    ),
    (
        "JetStreamMaxMemory",
        "jetstream { max_mem: 5 }",
        "jetstream { max_mem: 6 }",
    ),
    (
        "JetStreamMaxStore",
        "jetstream { max_file: 5 }",
        "jetstream { max_file: 6 }",
    ),
    (
        "JetStreamKey",
        "jetstream { key: a, cipher: aes }",
        "jetstream { key: b, cipher: aes }",
    ),
    (
        "JetStreamOldKey",
        "jetstream { key: a, prev_key: b }",
        "jetstream { key: a, prev_key: c }",
    ),
    (
        "JetStreamCipher",
        "jetstream { key: a, cipher: aes }",
        "jetstream { key: a, cipher: chacha }",
    ),
    (
        "JetStreamDomain",
        "jetstream { domain: a }",
        "jetstream { domain: b }",
    ),
    ("PidFile", "", "pid_file: a"),
    ("PortsFileDir", "", "ports_file_dir: a"),
    ("LameDuckDuration", "", "lame_duck_duration: 50s"),
    ("LameDuckGracePeriod", "", "lame_duck_grace_period: 5s"),
    ("ConnectErrorReports", "", "connect_error_reports: 5"),
    ("ReconnectErrorReports", "", "reconnect_error_reports: 5"),
    ("Debug", "", "debug: true"),
    ("Trace", "", "trace: true"),
    ("TraceVerbose", "trace: true", "trace_verbose: true"),
    ("TraceHeaders", "trace: true", "trace_headers: true"),
    ("MaxTracedMsgLen", "", "max_traced_msg_len: 5"),
    ("Logtime", "", "logtime: false"),
    ("LogtimeUTC", "", "logtime_utc: true"),
    ("LogFile", "", "log_file: a"),
    ("LogSizeLimit", "", "logfile_size_limit: 5"),
    ("LogMaxFiles", "", "logfile_max_num: 5"),
    ("Syslog", "", "remote_syslog: \"udp://127.0.0.1:514\""),
];

/// Settings that take signed tokens to be configured.
const WITHOUT_PAIR: &[&str] = &[
    "TrustedOperators",
    "AccountResolver",
    "AccountResolverPreload",
    "AuthCallout",
];

const TLS: &str = "tls { cert_file: ./a.crt, key_file: ./a.key }";

/// Files that configurations name as `./a.crt` and the like.
fn certificates(folder: &TempDir) {
    for name in ["a", "b"] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let write = |ending: &str, text: String| {
            std::fs::write(folder.path().join(format!("{name}.{ending}")), text).expect("written");
        };
        write("crt", certificate.pem());
        write("key", key.serialize_pem());
    }
}

fn read(folder: &Path, text: &str) -> Settings {
    let file: PathBuf = folder.join("test.conf");
    let text = text.replace("./", &format!("{}/", folder.display()));
    std::fs::write(&file, &text).expect("written");
    let mut settings = Settings::default();
    load(&file, &mut settings).unwrap_or_else(|error| panic!("{text}: {error}"));
    settings
        .validate()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    settings
}

/// Names of the settings that differ.
fn differing(old: &Settings, new: &Settings) -> Vec<&'static str> {
    SETTINGS
        .iter()
        .filter(|setting| (setting.value)(old) != (setting.value)(new))
        .map(|setting| setting.name)
        .collect()
}

#[test]
fn every_setting_has_a_pair_of_configurations() {
    let in_table: HashSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    let in_pairs = PAIRS.iter().map(|(name, ..)| *name);
    let in_pairs: HashSet<_> = in_pairs.chain(WITHOUT_PAIR.iter().copied()).collect();
    assert_eq!(in_table, in_pairs);
    assert_eq!(in_table.len(), SETTINGS.len());
}

#[test]
fn every_setting_changes_as_the_table_says() {
    let folder = TempDir::new().expect("a folder");
    certificates(&folder);
    for (name, before, after) in PAIRS {
        let (old, new) = (read(folder.path(), before), read(folder.path(), after));
        assert_eq!(differing(&old, &new), [*name], "{before} and {after}");
        assert_eq!(first_refusal(&old, &old), None);
        let setting = SETTINGS
            .iter()
            .find(|setting| setting.name == *name)
            .expect(name);
        let refusal = first_refusal(&old, &new);
        match setting.on_change {
            Refuses => {
                let refusal = refusal.expect(name);
                let start = format!("config reload not supported for {name}: old=");
                assert!(refusal.starts_with(&start), "{refusal}");
            }
            RefusesSaying(words) => assert_eq!(refusal.as_deref(), Some(words)),
            Switches => {
                assert_eq!(refusal, None, "{name}");
                for (old, new) in [(&old, &new), (&new, &old)] {
                    assert_eq!(changes(old, new), [*name]);
                }
            }
            TakesAs(words) => assert!(!words(&old, &new).is_empty(), "{name}"),
            Takes(logged) | TakesSilently(logged) | Grows(logged, _) => {
                assert_eq!(refusal, None, "{name}");
                let changes = changes(&old, &new);
                assert!(
                    changes.iter().any(|change| change.starts_with(logged)),
                    "{name}: {changes:?}"
                );
            }
        }
    }
}

#[test]
fn streams_that_are_switched_on_are_as_they_are_configured() {
    let folder = TempDir::new().expect("a folder");
    let without = read(folder.path(), "");
    let with = "jetstream { store_dir: /a, max_mem: 5, domain: a, key: b }";
    let mut with = read(folder.path(), with);
    assert_eq!(first_refusal(&without, &with), None);
    assert_eq!(first_refusal(&with, &without), None);
    assert_eq!(changes(&without, &with), ["JetStream"]);
    with.server.auth.is_closed = true;
    assert_eq!(
        first_refusal(&with, &without).as_deref(),
        Some(
            "config reload not supported for JetStream: the directory of users cannot do without it"
        )
    );
}

#[test]
fn limits_of_streams_only_grow() {
    let folder = TempDir::new().expect("a folder");
    let [without, low, high] = ["", "max_file: 5", "max_file: 6"].map(|limit| {
        read(
            folder.path(),
            &format!("jetstream {{ domain: a, {limit} }}"),
        )
    });
    let refused = |old, new| {
        let start = "config reload not supported for ";
        first_refusal(old, new).map(|text| text.replacen(start, "", 1))
    };
    assert_eq!(refused(&low, &high), None);
    let refusals = [
        (&high, &low, "decreasing jetstream max memory and store"),
        (&low, &without, "jetstream max memory and max store"),
        (&without, &low, "jetstream dynamic max memory and store"),
    ];
    for (old, new, text) in refusals {
        assert_eq!(refused(old, new).as_deref(), Some(text));
    }
}

#[test]
fn secrets_are_not_shown() {
    let folder = TempDir::new().expect("a folder");
    let old = read(
        folder.path(),
        "authorization { user: a, password: canary1 }",
    );
    let new = read(
        folder.path(),
        "authorization { user: a, password: canary2 }",
    );
    assert_eq!(changes(&old, &new), ["authorization users"]);
    let (old, new) = (
        read(folder.path(), "authorization { token: canary1 }"),
        read(folder.path(), "authorization { token: canary2 }"),
    );
    assert_eq!(changes(&old, &new), ["authorization token"]);
}

#[test]
fn refusals_and_changes_are_told_in_words() {
    let folder = TempDir::new().expect("a folder");
    certificates(&folder);
    let between = |before: &str, after: &str| {
        let (old, new) = (read(folder.path(), before), read(folder.path(), after));
        match first_refusal(&old, &new) {
            Some(refusal) => vec![refusal],
            None => changes(&old, &new),
        }
    };
    let cases = [
        (
            "port: 1",
            "port: 2",
            "config reload not supported for Port: old=1, new=2",
        ),
        (
            "jetstream { domain: a }",
            "jetstream { domain: b }",
            "config reload not supported for JetStreamDomain: old=a, new=b",
        ),
        (
            "",
            "lame_duck_duration: 50s",
            "config reload not supported for LameDuckDuration: old=2m0s, new=50s",
        ),
        ("", "ping_interval: 20s", "ping_interval = 20s"),
        (
            "",
            "authorization { timeout: 5 }",
            "authorization timeout = 5",
        ),
        (
            "authorization { timeout: 3 }",
            &format!("{TLS}\nauthorization {{ timeout: 3 }}"),
            "tls = enabled",
        ),
        (
            &format!("{TLS}\nauthorization {{ timeout: 3 }}"),
            "authorization { timeout: 3 }",
            "tls = disabled",
        ),
    ];
    for (before, after, expected) in cases {
        assert_eq!(between(before, after), [expected], "{before} and {after}");
    }
}
