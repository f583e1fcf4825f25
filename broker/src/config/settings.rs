//! Everything a server is started with, from files and flags.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use menes_jetstream::api::response::AccountLimits;
use menes_jetstream::ids::AccountName;
use menes_storage::Encryption;
use rand::Rng;
use rand::distr::Alphanumeric;

use super::diagnostic;
use super::digest::digest;
use super::grammar::{self, ConfigError, Environment, Map};
use super::options::{
    AuthOptions, ListenerAuthOptions, Options, ResolverOptions, Timing, TlsOptions, UserOptions,
};
use super::sections;
use crate::account::SYSTEM_ACCOUNT;
use crate::logging::LogOptions;

/// Everything a server is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The core server.
    pub server: Options,
    /// Streams; `None` leaves JetStream off.
    pub jetstream: Option<JetStreamSettings>,
    /// Accounts whose configuration switches JetStream on.
    pub jetstream_accounts: Vec<String>,
    /// What those accounts may use, where that is limited.
    pub account_limits: BTreeMap<String, AccountLimits>,
    /// Monitoring listener.
    pub monitor: Option<Address>,
    /// Monitoring listener inside TLS; there may be one of both.
    pub secure_monitor: Option<Address>,
    /// Time for a valid CONNECT, where it was given. Default 2 s, or 1 s more than TLS has.
    pub auth_timeout: Option<Duration>,
    /// Path before those of the monitoring listener, as `/menes`. Default none.
    pub http_base_path: String,
    /// The second client port, where Memphis SDKs look; 0 takes any free port.
    pub memphis_port: Option<u16>,
    /// The REST gateway.
    pub rest: Option<HttpSettings>,
    /// The management API.
    pub management: Option<HttpSettings>,
    /// Metrics for Prometheus.
    pub metrics: Option<MetricsSettings>,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// Folder for the file that lists the ports.
    pub ports_file_dir: Option<PathBuf>,
    /// Failed attempts to connect to another server after which it is reported again. Default
    /// 3,600.
    pub connect_error_reports: i64,
    /// The same for one that was connected before. Default 1.
    pub reconnect_error_reports: i64,
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

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: Options::default(),
            jetstream: None,
            jetstream_accounts: Vec::new(),
            account_limits: BTreeMap::new(),
            monitor: None,
            secure_monitor: None,
            auth_timeout: None,
            http_base_path: String::new(),
            memphis_port: None,
            rest: None,
            management: None,
            metrics: None,
            pid_file: None,
            ports_file_dir: None,
            connect_error_reports: 3600,
            reconnect_error_reports: 1,
            log: LogOptions::default(),
            lame_duck: LameDuck::default(),
            greets: false,
            config_file: None,
            config_digest: None,
            again: None,
            warnings: Vec::new(),
        }
    }
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

/// A listener for HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// Where it listens.
    pub address: Address,
    /// TLS; without it everything is in the clear.
    pub tls: Option<TlsOptions>,
}

impl HttpSettings {
    /// A listener in the clear.
    #[must_use]
    pub fn at(host: &str, port: u16) -> Self {
        Self {
            address: Address {
                host: host.to_owned(),
                port,
            },
            tls: None,
        }
    }
}

/// Where metrics are, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsSettings {
    /// Where they are served.
    pub listener: HttpSettings,
    /// The names they have, unless a scraper asks for others. Default ours.
    pub names: Vec<NameSet>,
    /// Streams that are shown one by one. Default 10,000.
    pub max_streams: usize,
    /// Consumers that are shown one by one. Default 10,000.
    pub max_consumers: usize,
}

impl MetricsSettings {
    /// Metrics in the clear, under our names.
    #[must_use]
    pub fn at(host: &str, port: u16) -> Self {
        Self {
            listener: HttpSettings::at(host, port),
            names: vec![NameSet::Menes],
            max_streams: 10_000,
            max_consumers: 10_000,
        }
    }
}

/// Names that metrics can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSet {
    /// `menes_…`.
    Menes,
    /// `gnatsd_…` and `jetstream_…`, as the NATS exporter has them.
    Nats,
    /// `memphis_…`, as Memphis's exporter has them.
    Memphis,
}

impl NameSet {
    /// Names of these sets with commas between them, each once.
    ///
    /// # Errors
    /// Which is none, for people.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut sets = Vec::new();
        for word in text.split(',') {
            let set = match word.trim() {
                "menes" => Self::Menes,
                "nats" => Self::Nats,
                "memphis" => Self::Memphis,
                other => {
                    return Err(format!(
                        "{other:?} is no set of names: menes, nats or memphis"
                    ));
                }
            };
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        Ok(sets)
    }
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
    /// What the stores are encrypted with.
    pub encryption: Encryption,
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

/// `host` or `host:port` that clients are told; the port of clients is meant where there is none.
///
/// # Errors
/// What is wrong, for people.
pub fn advertised(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{text:?} is no host with or without a port");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.map_or(Ok(0), |port| port.parse::<i32>().map_err(|_| wrong()))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong());
    }
    match port {
        -1 | 0 => Ok((host.to_owned(), CLIENT_PORT)),
        _ => u16::try_from(port)
            .map(|port| (host.to_owned(), port))
            .map_err(|_| wrong()),
    }
}

/// Where clients look unless told otherwise.
const CLIENT_PORT: u16 = 4222;

/// Why a configuration file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It cannot be read.
    Unreadable(String),
    /// What is wrong with it.
    Mistakes(Vec<ConfigError>),
}

impl LoadError {
    /// Every mistake with the line it stands in, for people.
    #[must_use]
    pub fn explained(&self) -> String {
        match self {
            Self::Unreadable(what) => format!("error: {what}\n"),
            Self::Mistakes(mistakes) => {
                let shown: Vec<String> = mistakes.iter().map(diagnostic::explain).collect();
                shown.join("\n")
            }
        }
    }
}

impl fmt::Display for LoadError {
    /// One line for each mistake, as nats-server has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(what) => f.write_str(what),
            Self::Mistakes(mistakes) => {
                let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

/// The tree of a configuration file, with what it includes.
///
/// # Errors
/// A file that cannot be read, or is not in the grammar.
pub fn parse(path: &Path) -> Result<Map, LoadError> {
    let text = fs::read_to_string(path).map_err(|error| {
        LoadError::Unreadable(format!(
            "error opening config file {}: {error}",
            path.display()
        ))
    })?;
    grammar::parse(&text, &path.display().to_string(), &World)
        .map_err(|error| LoadError::Mistakes(vec![error]))
}

/// Reads a configuration file into `settings`.
///
/// # Errors
/// A file that cannot be read, or every mistake in it.
pub fn load(path: &Path, settings: &mut Settings) -> Result<(), LoadError> {
    let map = parse(path)?;
    sections::apply(&map, settings).map_err(LoadError::Mistakes)?;
    settings.config_file = Some(path.to_owned());
    settings.config_digest = Some(digest(&map));
    Ok(())
}

/// A user for those who bring nothing must be one of several.
fn check_no_auth_user<'a>(name: &str, auth: &'a AuthOptions) -> Result<&'a UserOptions, String> {
    let mut listed = auth.users.iter().filter(|user| !user.is_single).peekable();
    if listed.peek().is_none() {
        return Err(format!(
            "no_auth_user: {name:?} present, but users/nkeys are not defined"
        ));
    }
    listed.find(|user| user.user == name).ok_or_else(|| {
        format!(
            "no_auth_user: {name:?} not present as user or nkey in authorization block or account \
             configuration"
        )
    })
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
        self.validate_tls()?;
        if self.jetstream.is_none()
            && let Some(account) = self.jetstream_accounts.first()
        {
            self.warnings.push(format!(
                "account {account:?} wants JetStream, which is not enabled for the server"
            ));
        }
        self.validate_users()?;
        self.leave_global_open();
        Ok(())
    }

    /// Users of the system account alone do not close the global one: who brings no credentials
    /// acts there, as in nats-server through a user that nobody else can be.
    fn leave_global_open(&mut self) {
        static PASSWORD: LazyLock<String> = LazyLock::new(|| {
            rand::rng()
                .sample_iter(Alphanumeric)
                .take(22)
                .map(char::from)
                .collect()
        });
        const NAME: &str = "nats-global";
        let system = self
            .server
            .system_account
            .as_deref()
            .unwrap_or(SYSTEM_ACCOUNT);
        let mut named = self
            .server
            .accounts
            .iter()
            .map(|account| account.name.as_str());
        let global = AccountName::global();
        let has_others = named.any(|name| name != system && name != global.as_str());
        let auth = &mut self.server.auth;
        let is_of_system = |user: &UserOptions| user.account.as_deref() == Some(system);
        let closes = auth.token.is_some() || auth.no_auth_user.is_some() || has_others;
        if closes || auth.users.is_empty() || !auth.users.iter().all(is_of_system) {
            return;
        }
        auth.users.push(UserOptions {
            user: NAME.to_owned(),
            password: PASSWORD.clone(),
            ..UserOptions::default()
        });
        auth.no_auth_user = Some(NAME.to_owned());
    }

    /// What an operator leaves nothing for the configuration to say.
    fn validate_operator(&self) -> Result<(), String> {
        let Some(operator) = &self.server.operator else {
            return Ok(());
        };
        let auth = &self.server.auth;
        if !self.server.accounts.is_empty() {
            return Err("operators do not allow Accounts to be configured directly".to_owned());
        }
        if !auth.users.is_empty() {
            return Err("operators do not allow users to be configured directly".to_owned());
        }
        if auth.no_auth_user.is_some() {
            return Err("no_auth_user not compatible with Trusted Operator".to_owned());
        }
        if auth.callout.is_some() {
            return Err(
                "operators do not allow authorization callouts to be configured directly"
                    .to_owned(),
            );
        }
        let is_folder = matches!(
            operator.resolver,
            ResolverOptions::Full { .. } | ResolverOptions::Cache { .. }
        );
        if is_folder && operator.system_account.is_none() {
            return Err(
                "using nats based account resolver - the system account needs to be specified in \
                 configuration or the operator jwt"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn validate_tls(&mut self) -> Result<(), String> {
        if let (Some(plain), Some(secure)) = (&self.monitor, &self.secure_monitor) {
            return Err(format!(
                "can't specify both HTTP ({}) and HTTPs ({}) ports",
                plain.port, secure.port
            ));
        }
        let tls = self.server.tls.as_ref();
        if self.secure_monitor.is_some() && tls.is_none() {
            return Err("TLS cert and key required for HTTPS".to_owned());
        }
        self.server.timing.auth_timeout = match (self.auth_timeout, tls) {
            (Some(given), _) => given,
            (None, Some(tls)) => tls.timeout + Duration::from_secs(1),
            (None, None) => Timing::default().auth_timeout,
        };
        Ok(())
    }

    /// Accounts of which a service is asked must be there.
    fn validate_callout(&self) -> Result<(), String> {
        let callout = self.server.auth.callout.as_ref();
        let allowed = callout
            .into_iter()
            .flat_map(|callout| &callout.allowed_accounts);
        let is_there = |name: &String| {
            let mut accounts = self.server.accounts.iter();
            name == AccountName::global().as_str()
                || accounts.any(|account| account.name.as_str() == name)
        };
        match allowed.into_iter().find(|name| !is_there(name)) {
            Some(name) => Err(format!(
                "auth_callout allowed account {name:?} not found in configured accounts"
            )),
            None => Ok(()),
        }
    }

    fn validate_users(&mut self) -> Result<(), String> {
        self.validate_operator()?;
        self.validate_callout()?;
        let auth = &self.server.auth;
        let mut names = HashSet::new();
        for user in &auth.users {
            if !names.insert(user.user.as_str()) {
                let kind = if user.is_nkey { "nkey" } else { "user" };
                return Err(format!("Duplicate {kind} {:?} detected", user.user));
            }
        }
        let mut warnings = Vec::new();
        let of_websocket = auth.websocket.as_ref();
        let open_to = of_websocket.and_then(|own| own.no_auth_user.as_ref());
        for name in auth.no_auth_user.iter().chain(open_to) {
            if check_no_auth_user(name, auth)?.password.starts_with('$') {
                warnings.push(format!(
                    "no_auth_user: {name:?} has a hashed password, and lets nobody in"
                ));
            }
        }
        if let Some(own) = of_websocket
            && auth.users.iter().any(|user| !user.is_single)
        {
            let both = match own {
                ListenerAuthOptions { user: Some(_), .. } => Some("username"),
                ListenerAuthOptions { token: Some(_), .. } => Some("token"),
                _ => None,
            };
            if let Some(what) = both {
                return Err(format!(
                    "websocket authentication {what} not compatible with presence of users/nkeys"
                ));
            }
        }
        let websocket = self.server.websocket.as_ref();
        if let Some(cookie) = websocket.and_then(|options| options.cookies.jwt.as_ref())
            && self.server.operator.is_none()
        {
            return Err(format!(
                "trusted operators or trusted keys configuration is required for JWT \
                 authentication via cookie {cookie:?}"
            ));
        }
        let own_user = of_websocket.and_then(|own| own.user.as_ref());
        let own_token = of_websocket.and_then(|own| own.token.as_ref());
        let own_secrets = own_user
            .map(|user| &user.password)
            .into_iter()
            .chain(own_token);
        let secrets = auth
            .users
            .iter()
            .filter(|user| !user.is_nkey)
            .map(|user| &user.password)
            .chain(&auth.token)
            .chain(own_secrets);
        if secrets.into_iter().any(|secret| !secret.starts_with('$')) {
            warnings.push("Plaintext passwords detected, use nkeys or bcrypt".to_owned());
            // nats-server says nothing of it, and what stands in for it does not either.
            let file = self.config_file.as_deref().filter(|_| self.greets);
            if let Some(file) = file.filter(|file| is_open_to_others(file)) {
                let file = file.display();
                warnings.push(format!(
                    "Others on this machine can read {file}, which holds passwords: chmod 600 {file}"
                ));
            }
        }
        self.warnings.append(&mut warnings);
        Ok(())
    }
}

/// Whether a file can be read by others than its owner and group.
fn is_open_to_others(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|known| known.permissions().mode() & 0o004 != 0)
}
