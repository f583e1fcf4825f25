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
        }
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
        }
    }
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
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            auth_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            first_ping: Duration::from_secs(2),
            write_deadline: Duration::from_secs(10),
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
