//! Typed options of a server, with the defaults of nats-server.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use menes_auth::admission::{ConnectionType, Trust};
use menes_ws::OriginRules;

use crate::account::description::AccountDescription;
use crate::auth::permissions::ResponseLimits;

/// Everything the core server can be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address the client listeners bind to. Default `0.0.0.0`.
    pub host: String,
    /// Ports of the client listeners, all equivalent; 0 takes any free port. Default 4222 alone.
    pub ports: Vec<u16>,
    /// The listener for WebSocket clients. Default none.
    pub websocket: Option<WebSocketOptions>,
    /// Host and port announced to clients in place of the listener's.
    pub client_advertise: Option<(String, u16)>,
    /// Name in INFO. Default: the server's id.
    pub server_name: Option<String>,
    /// Threads that serve connections. Default: one per core.
    pub workers: Option<NonZeroUsize>,
    /// Name of the account of the system. Default `$SYS`.
    pub system_account: Option<String>,
    /// Words by which requests to all servers choose among them; lower case. Default none.
    pub tags: Vec<String>,
    /// What an operator wants monitoring to say about this server. Default nothing.
    pub metadata: BTreeMap<String, String>,
    /// Announce JetStream in INFO. Default false: set when an engine runs.
    pub jetstream: bool,
    /// JetStream domain announced in INFO.
    pub domain: Option<String>,
    /// Do not speak headers. Default false.
    pub no_header_support: bool,
    /// Limits of connections.
    pub limits: Limits,
    /// Pings, deadlines and other times.
    pub timing: Timing,
    /// Who may connect.
    pub auth: AuthOptions,
    /// Accounts that share something, map subjects or have limits; others exist when first named.
    pub accounts: Vec<AccountDescription>,
    /// Accounts and users are what tokens say. Default none: they are what the configuration says.
    pub operator: Option<OperatorOptions>,
    /// TLS of the client listeners. Default none.
    pub tls: Option<TlsOptions>,
    /// Status of certificates, stapled to handshakes.
    pub ocsp: OcspOptions,
    /// Clients may also speak in the clear where TLS is on. Default false.
    pub allow_non_tls: bool,
    /// Connections may begin with a line or header of a proxy (PROXY protocol 1 and 2) that tells
    /// where the client is. Default false.
    pub proxy_protocol: bool,
    /// A browser may ask listeners on loopback only by a name of this machine, and only for pages of
    /// this machine. Default false: for servers that let anyone in, which pages of strangers would
    /// otherwise use.
    pub local_pages: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            ports: vec![4222],
            websocket: None,
            client_advertise: None,
            server_name: None,
            workers: None,
            system_account: None,
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            jetstream: false,
            domain: None,
            no_header_support: false,
            limits: Limits::default(),
            timing: Timing::default(),
            auth: AuthOptions::default(),
            accounts: Vec::new(),
            operator: None,
            tls: None,
            ocsp: OcspOptions::default(),
            allow_non_tls: false,
            proxy_protocol: false,
            local_pages: false,
        }
    }
}

impl Options {
    /// What INFO says of them.
    pub(crate) fn announced(&self) -> impl PartialEq + use<> {
        (
            self.client_advertise.clone(),
            self.limits.max_payload,
            self.tls.is_some(),
            self.tls.as_ref().is_some_and(|tls| tls.verify),
            self.allow_non_tls,
        )
    }
}

/// The listener for clients that speak in WebSocket frames.
#[derive(Clone, Debug)]
pub struct WebSocketOptions {
    /// Address it binds to.
    pub host: String,
    /// Port; 0 takes any free one.
    pub port: u16,
    /// Which web pages may connect. Default all.
    pub origins: OriginRules,
    /// Time for the upgrade. Default 2 s.
    pub handshake_timeout: Duration,
    /// TLS of this listener. Default none.
    pub tls: Option<TlsOptions>,
    /// Messages may be compressed. Default false.
    pub compression: bool,
    /// Headers to add to the answer of an upgrade.
    pub headers: Vec<(String, String)>,
    /// Host and port announced to clients in place of the listener's.
    pub advertise: Option<(String, u16)>,
    /// Time between two pings. Default that of other clients.
    pub ping_interval: Option<Duration>,
    /// Cookies that may stand in for what CONNECT lacks.
    pub cookies: CookieNames,
    /// Time for a valid CONNECT. Default that of other clients.
    pub auth_timeout: Option<Duration>,
}

/// Names of cookies that hold credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieNames {
    /// A user JWT.
    pub jwt: Option<String>,
    /// A user name.
    pub user: Option<String>,
    /// A password.
    pub password: Option<String>,
    /// A token.
    pub token: Option<String>,
}

impl WebSocketOptions {
    /// A listener at this address with the defaults.
    #[must_use]
    pub fn at(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            origins: OriginRules::default(),
            handshake_timeout: Duration::from_secs(2),
            tls: None,
            compression: false,
            headers: Vec::new(),
            advertise: None,
            ping_interval: None,
            cookies: CookieNames::default(),
            auth_timeout: None,
        }
    }
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Certificates with their keys; the one for the name the client asks for is used, else the
    /// first.
    pub certificates: Vec<CertificateFiles>,
    /// Authorities that sign clients' certificates, in PEM. Default those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// Clients must show a certificate. Default false.
    pub verify: bool,
    /// The certificate says which user a client is. Default false.
    pub map_users: bool,
    /// Time for the handshake. Default 2 s.
    pub timeout: Duration,
    /// Whether the handshake comes before INFO. Default never.
    pub handshake_first: HandshakeFirst,
    /// SHA-256 of the public keys clients may have, in lower-case hexadecimal; empty for any.
    pub pinned_certs: Vec<String>,
    /// Oldest version spoken. Default 1.2.
    pub min_version: TlsVersion,
    /// Cipher suites of TLS 1.2, by their names at IANA. Default all there are.
    pub cipher_suites: Option<Vec<String>>,
    /// Groups for the key exchange, by Go's names, the best first.
    pub curve_preferences: Option<Vec<String>>,
    /// Handshakes begun per second; more are refused. Default no limit.
    pub connection_rate_limit: Option<u32>,
    /// Towards other servers: take any for the one that was meant. Default false.
    pub insecure: bool,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            ca_file: None,
            verify: false,
            map_users: false,
            timeout: Duration::from_secs(2),
            handshake_first: HandshakeFirst::Never,
            pinned_certs: Vec::new(),
            min_version: TlsVersion::Tls12,
            cipher_suites: None,
            curve_preferences: None,
            connection_rate_limit: None,
            insecure: false,
        }
    }
}

/// A certificate chain and the key of its first certificate, both in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub cert_file: PathBuf,
    /// The key.
    pub key_file: PathBuf,
}

/// Status of certificates, stapled to handshakes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OcspOptions {
    /// Which certificates are stapled.
    pub mode: OcspMode,
    /// Whom to ask, in place of those whom a certificate names.
    pub urls: Vec<String>,
    /// Where answers are kept. Default nowhere.
    pub folder: Option<PathBuf>,
}

/// Which certificates are stapled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OcspMode {
    /// Those that insist on it, whatever their status is.
    #[default]
    Auto,
    /// All, and a server with one that is not good ends.
    Always,
    /// Those that insist on it, and a server with one that is not good ends.
    Must,
    /// None.
    Never,
}

/// Who begins on a connection with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// The server, with INFO in the clear.
    Never,
    /// The client, with the handshake.
    Always,
    /// The client within this time, else the server.
    Within(Duration),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// Bounds on what one connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. Default 65,536.
    pub max_connections: usize,
    /// Subscriptions of one connection; `None` is unlimited, the default.
    pub max_subscriptions: Option<usize>,
    /// Tokens in the subject of a subscription; `None` is unlimited, the default.
    pub max_sub_tokens: Option<usize>,
    /// Bytes of a control line behind its verb. Default 4,096.
    pub max_control_line: usize,
    /// Bytes of header and payload. Default 1 MiB.
    pub max_payload: usize,
    /// Bytes queued for a connection before it counts as a slow consumer. Default 64 MiB.
    pub max_pending: usize,
    /// Connections that are remembered after their end, for those who ask why. Default 10,000.
    pub max_closed_clients: usize,
    /// Drop a message for a receiver that is far behind instead of holding its publisher up.
    /// Default false.
    pub no_fast_producer_stall: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_subscriptions: None,
            max_sub_tokens: None,
            max_control_line: 4_096,
            max_payload: 1024 * 1024,
            max_pending: 64 * 1024 * 1024,
            max_closed_clients: 10_000,
            no_fast_producer_stall: false,
        }
    }
}

/// How long the server waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time for a valid CONNECT where authentication is required. Default 2 s.
    pub auth_timeout: Duration,
    /// Time between two pings. Default 2 min.
    pub ping_interval: Duration,
    /// Unanswered pings before a connection is stale. Default 2.
    pub ping_max: u32,
    /// Delay of the first ping after the connection was made; up to a fifth is added. Default 2 s.
    pub first_ping: Duration,
    /// Longest time a socket may take no bytes at all. Default 10 s.
    pub write_deadline: Duration,
    /// What is done then. Default to close the connection.
    pub write_timeout: WriteTimeout,
}

/// What is done about a connection whose socket took nothing for the write deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteTimeout {
    /// It is closed.
    Close,
    /// It is noted, and has as much time again.
    Retry,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            auth_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            first_ping: Duration::from_secs(2),
            write_deadline: Duration::from_secs(10),
            write_timeout: WriteTimeout::Close,
        }
    }
}

/// Who may connect. Empty: everyone, as account `$G`.
#[derive(Clone, Debug, Default)]
pub struct AuthOptions {
    /// Users with passwords.
    pub users: Vec<UserOptions>,
    /// One token for everyone, in clear or as a hash.
    pub token: Option<String>,
    /// Account of those who come with the token. Default `$G`.
    pub token_account: Option<String>,
    /// User of connections that bring no credentials.
    pub no_auth_user: Option<String>,
    /// A service that decides about users. Default none.
    pub callout: Option<CalloutOptions>,
    /// Who comes with the token must come through a trusted proxy. Default false.
    pub proxy_required: bool,
    /// Public keys of the proxies that are trusted.
    pub trusted_proxies: Vec<String>,
    /// In place of the one user, the token and `no_auth_user` for clients over WebSocket. Default
    /// none: they log in as others do.
    pub websocket: Option<ListenerAuthOptions>,
    /// Everyone has to log in; where nothing else here says who may, stored users may. Default
    /// false: where nothing says who may, everyone may.
    pub is_closed: bool,
    /// Kinds of connection at whose listener a certificate says which user a client is: there a user
    /// without a password is known by the certificate, and can be nobody's by its name alone
    /// elsewhere. Default none.
    pub mapped: Vec<ConnectionType>,
}

/// Who may connect to one listener, beside those users that all listeners know.
#[derive(Clone, Debug, Default)]
pub struct ListenerAuthOptions {
    /// The one user.
    pub user: Option<UserOptions>,
    /// One token for everyone, in clear or as a hash.
    pub token: Option<String>,
    /// User of connections that bring no credentials.
    pub no_auth_user: Option<String>,
}

impl AuthOptions {
    /// What holds for clients over WebSocket, where that is something else.
    pub(crate) fn for_websocket(&self) -> Option<Self> {
        let own = self.websocket.as_ref()?;
        let shared = self.users.iter().filter(|user| !user.is_single).cloned();
        Some(Self {
            users: shared.chain(own.user.clone()).collect(),
            token: own.token.clone(),
            no_auth_user: own.no_auth_user.clone(),
            websocket: None,
            ..self.clone()
        })
    }
}

/// A service that decides about users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalloutOptions {
    /// Public key that signs its answers and the users in them.
    pub issuer: String,
    /// Account it is in. Default `$G`.
    pub account: String,
    /// Users it is not asked about: its own.
    pub auth_users: Vec<String>,
    /// Accounts whose configured users it is asked about. Default all.
    pub allowed_accounts: Vec<String>,
    /// Public X key that requests are sealed for. Default none: they are in clear.
    pub xkey: Option<String>,
}

/// Accounts and users are what tokens say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperatorOptions {
    /// Who signs accounts.
    pub trust: Trust,
    /// Tokens of the operators, as configured.
    pub tokens: Vec<String>,
    /// Where accounts are found.
    pub resolver: ResolverOptions,
    /// TLS towards there. Default with the authorities of the operating system.
    pub resolver_tls: Option<TlsOptions>,
    /// Tokens of accounts by public key, put where accounts are found.
    pub preload: BTreeMap<String, String>,
    /// The only accounts whose users may connect. Default all.
    pub pinned_accounts: Option<BTreeSet<String>>,
    /// User token of clients that bring none.
    pub default_sentinel: Option<String>,
    /// Public key of the system account.
    pub system_account: Option<String>,
}

/// Where account tokens are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResolverOptions {
    /// Among those preloaded.
    #[default]
    Memory,
    /// `GET <url><public key>`.
    Url(String),
    /// All are in a folder.
    Full {
        /// The folder.
        folder: PathBuf,
        /// Whether accounts can be deleted, and how.
        delete: DeleteAccounts,
        /// Accounts at most; `None` is unlimited.
        limit: Option<usize>,
    },
    /// Those in use are in a folder.
    Cache {
        /// The folder.
        folder: PathBuf,
        /// Time after which one that is not used is forgotten; `None` is never.
        ttl: Option<Duration>,
        /// Accounts at most. Default 1,000.
        limit: usize,
    },
}

/// What deleting an account does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeleteAccounts {
    /// It is refused.
    #[default]
    Never,
    /// The file gets a name that is not read.
    Rename,
    /// The file is removed.
    Remove,
}

/// A user.
#[derive(Clone, Debug, Default)]
pub struct UserOptions {
    /// Name as in CONNECT; the public key of a user who signs.
    pub user: String,
    /// The user signs and has no password. Default false.
    pub is_nkey: bool,
    /// Password: in clear, bcrypt (`$2a$…`) or argon2 (`$argon2id$…`).
    pub password: String,
    /// Account. Default `$G`.
    pub account: Option<String>,
    /// What the user may do. Default everything.
    pub permissions: Option<PermissionOptions>,
    /// Ways the user may connect. Empty is all, the default.
    pub connection_types: Vec<ConnectionType>,
    /// The user must come through a trusted proxy. Default false.
    pub proxy_required: bool,
    /// The one user of an `authorization`, not an entry of its list. Default false.
    pub is_single: bool,
}

/// What a user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionOptions {
    /// Subjects to publish to.
    pub publish: SubjectRules,
    /// Subjects to subscribe to; an entry may be `subject queue`.
    pub subscribe: SubjectRules,
    /// Permission to publish to the reply subjects of received messages.
    pub responses: Option<ResponseLimits>,
}

/// Subjects, wildcards among them, that are allowed and denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectRules {
    /// `None` allows everything, an empty list nothing.
    pub allow: Option<Vec<String>>,
    /// A deny wins over an allow.
    pub deny: Vec<String>,
}
