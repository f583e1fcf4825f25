//! Arguments, in the notation of nats-server: one or two dashes, `-x v` and `-x=v` alike.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Parser;
use menes_broker::config::options::{CertificateFiles, TlsOptions, UserOptions, WebSocketOptions};
use menes_broker::config::settings::{
    Address, Again, HttpSettings, JetStreamSettings, MetricsSettings, Settings, advertised, load,
};
use menes_broker::logging::{LogOptions, SyslogTarget};

/// Other spellings of a flag, each with the one that the parser knows.
const ALIASES: &[(&str, &str)] = &[
    ("a", "addr"),
    ("net", "addr"),
    ("p", "port"),
    ("n", "name"),
    ("server_name", "name"),
    ("P", "pid"),
    ("m", "http_port"),
    ("ms", "https_port"),
    ("c", "config"),
    ("js", "jetstream"),
    ("sd", "store_dir"),
    ("data", "store_dir"),
    ("sl", "signal"),
    ("l", "log"),
    ("T", "logtime"),
    ("s", "syslog"),
    ("r", "remote_syslog"),
    ("D", "debug"),
    ("V", "trace"),
    ("VV", "trace_verbose"),
    ("DV", "debug_trace"),
    ("DVV", "debug_trace_verbose"),
    ("v", "version"),
    ("h", "help"),
];

/// The other spellings, for people.
pub(crate) fn short_forms() -> String {
    let mut text = "Other spellings, with one dash or two, as -x v or -x=v:\n".to_owned();
    for (alias, flag) in ALIASES {
        let dashes = if alias.len() > 3 { "--" } else { "-" };
        let spelling = format!("{dashes}{alias}");
        writeln!(text, "  {spelling:<14} --{flag}").expect("writing to text cannot fail");
    }
    text
}

/// Flags that stand alone; the others want a value.
const SWITCHES: &[&str] = &[
    "jetstream",
    "debug",
    "trace",
    "trace_verbose",
    "debug_trace",
    "debug_trace_verbose",
    "syslog",
    "help_tls",
    "version",
    "help",
    "t",
    "logtime",
    "no_logtime",
    "tls",
    "no_tls",
    "tlsverify",
];

/// Flags of nats-server that ask for something this version does not have.
const NOT_BUILT: &[&str] = &[
    "routes",
    "cluster",
    "cluster_name",
    "cluster_listen",
    "cluster_advertise",
    "no_advertise",
    "connect_retries",
];

/// A message broker that speaks NATS and Memphis and keeps every acknowledged message.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "menes serve",
    disable_version_flag = true,
    rename_all = "snake_case"
)]
pub(crate) struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "HOST")]
    addr: Option<String>,
    /// Port for clients; -1 takes any free one
    #[arg(long, allow_hyphen_values = true)]
    port: Option<i64>,
    /// Second port for clients, where Memphis SDKs look; -1 takes any free one
    #[arg(long, allow_hyphen_values = true)]
    memphis_port: Option<i64>,
    /// Port for clients over WebSocket; -1 takes any free one
    #[arg(long, allow_hyphen_values = true)]
    ws_port: Option<i64>,
    /// Port of the REST gateway; -1 takes any free one
    #[arg(long, allow_hyphen_values = true)]
    rest_port: Option<i64>,
    /// Port of the management API; -1 takes any free one
    #[arg(long, allow_hyphen_values = true)]
    api_port: Option<i64>,
    /// Port of the metrics for Prometheus; -1 takes any free one, 0 is for none
    #[arg(long, allow_hyphen_values = true)]
    metrics_port: Option<i64>,
    /// Port for monitoring, on the same address as clients; -1 takes any free one
    #[arg(long, allow_hyphen_values = true)]
    http_port: Option<i64>,
    /// As --http_port, inside TLS
    #[arg(long, allow_hyphen_values = true)]
    https_port: Option<i64>,
    /// Clients must use TLS
    #[arg(long)]
    tls: bool,
    /// Clients do not use TLS, whatever the configuration says, also --tls=false
    #[arg(long)]
    no_tls: bool,
    /// Certificate of the server, in PEM
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Key of that certificate, in PEM
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
    /// Clients must show a certificate
    #[arg(long)]
    tlsverify: bool,
    /// Authorities that sign the certificates of clients, in PEM
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// Name of the server
    #[arg(long)]
    name: Option<String>,
    /// Configuration file, in the grammar of nats-server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and end
    #[arg(long = "t")]
    pub(crate) check: bool,
    /// Switch JetStream on
    #[arg(long)]
    jetstream: bool,
    /// Folder for streams, also --data
    #[arg(long, value_name = "DIR")]
    store_dir: Option<PathBuf>,
    /// User that clients must give
    #[arg(long)]
    user: Option<String>,
    /// Password that clients must give
    #[arg(long)]
    pass: Option<String>,
    /// Token that clients must give
    #[arg(long)]
    auth: Option<String>,
    /// File for the process id
    #[arg(long, value_name = "FILE")]
    pid: Option<PathBuf>,
    /// Folder for a file that lists the ports
    #[arg(long, value_name = "DIR")]
    ports_file_dir: Option<PathBuf>,
    /// Host and port to announce to clients
    #[arg(long, value_name = "HOST:PORT")]
    client_advertise: Option<String>,
    /// Log file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Begin log lines with the time
    #[arg(long, overrides_with = "no_logtime")]
    logtime: bool,
    /// Begin log lines without the time, also --logtime=false
    #[arg(long)]
    no_logtime: bool,
    /// Log debug lines
    #[arg(long)]
    debug: bool,
    /// Log every protocol line
    #[arg(long)]
    trace: bool,
    /// Log every protocol line, the system account's too
    #[arg(long)]
    trace_verbose: bool,
    /// --debug and --trace
    #[arg(long)]
    debug_trace: bool,
    /// --debug and --trace_verbose
    #[arg(long)]
    debug_trace_verbose: bool,
    /// Bytes of a message shown in a trace; 0 for all
    #[arg(long, value_name = "BYTES")]
    max_traced_msg_len: Option<usize>,
    /// Bytes after which the log file is moved aside; 0 for never
    #[arg(long, value_name = "BYTES")]
    log_size_limit: Option<u64>,
    /// Log to the syslog of this machine
    #[arg(long)]
    syslog: bool,
    /// Log to another syslog: udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH
    #[arg(long, value_name = "URL")]
    remote_syslog: Option<String>,
    /// Port for profiles, which this version does not serve
    #[arg(long, value_name = "PORT", allow_hyphen_values = true)]
    profile: Option<i64>,
    /// Say what TLS can be told
    #[arg(long)]
    pub(crate) help_tls: bool,
    /// Send a signal to a running server: stop, quit, term, reopen, ldm, reload, with =PID or =FILE
    #[arg(long, value_name = "SIGNAL[=PID]")]
    pub(crate) signal: Option<String>,
    /// Print the version
    #[arg(long)]
    pub(crate) version: bool,
}

/// How the executable was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// `menes serve`: every listener on its documented port, streams on, users have to log in.
    Menes,
    /// `menes dev`: the same for one machine, on loopback, and nobody has to log in.
    Dev,
    /// As nats-server, by name or by flags: only what the flags and the configuration ask for.
    NatsServer,
}

impl Flags {
    /// Parses arguments behind the name of the program and of the command.
    ///
    /// # Errors
    /// What clap prints: a mistake, or the help that was asked for.
    pub(crate) fn parse_from(arguments: &[String]) -> Result<Self, clap::Error> {
        let words = normalise(arguments).map_err(|what| {
            clap::Error::raw(clap::error::ErrorKind::UnknownArgument, format!("{what}\n"))
        })?;
        let program = std::iter::once("menes serve".to_owned());
        Self::try_parse_from(program.chain(words))
    }

    /// The settings these flags and the configuration file they name ask for.
    ///
    /// # Errors
    /// For people: a value that makes no sense, or a mistake in the file.
    pub(crate) fn settings(&self, face: Face) -> Result<Settings, String> {
        let mut settings = Settings::default();
        if face != Face::NatsServer {
            settings.memphis_port = Some(6666);
            settings.server.websocket = Some(WebSocketOptions::at("0.0.0.0", 7770));
            settings.rest = Some(HttpSettings::at("0.0.0.0", 4444));
            settings.management = Some(HttpSettings::at("0.0.0.0", 9000));
            // Monitoring tells strangers too much to be open unasked.
            settings.monitor = Some(Address {
                host: "127.0.0.1".to_owned(),
                port: 8222,
            });
            settings.metrics = Some(MetricsSettings::at("127.0.0.1", 7777));
            settings.jetstream = Some(JetStreamSettings::default());
            settings.greets = true;
            settings.server.auth.is_closed = face == Face::Menes;
        }
        if face == Face::Dev {
            let loopback = || "127.0.0.1".to_owned();
            settings.server.host = loopback();
            settings.server.local_pages = true;
            if let Some(listener) = &mut settings.server.websocket {
                listener.host = loopback();
            }
            for listener in [&mut settings.rest, &mut settings.management]
                .into_iter()
                .flatten()
            {
                listener.address.host = loopback();
            }
        }
        if let Some(file) = &self.config {
            load(file, &mut settings).map_err(|error| match face {
                Face::NatsServer => error.to_string(),
                Face::Menes | Face::Dev => error.explained(),
            })?;
        }
        self.apply(&mut settings)?;
        if let Some(streams) = &mut settings.jetstream
            && streams.store_dir.is_none()
        {
            streams.store_dir = Some(match face {
                Face::Menes | Face::Dev => PathBuf::from("./menes-data"),
                Face::NatsServer => {
                    settings.warnings.push(
                        "Temporary storage directory used, data could be lost on system reboot"
                            .to_owned(),
                    );
                    std::env::temp_dir().join("nats")
                }
            });
        }
        if face == Face::NatsServer
            && let Some(streams) = &mut settings.jetstream
            && let Some(folder) = &mut streams.store_dir
        {
            *folder = folder.join("jetstream");
        }
        // Users are stored beside the streams. Where WebSocket has logins of its own, the
        // configuration says who may connect: everybody else, without one.
        let is_said = settings.server.auth.websocket.is_some();
        settings.server.auth.is_closed &= settings.jetstream.is_some() && !is_said;
        settings.validate()?;
        let flags = self.clone();
        settings.again = Some(Again::new(move || flags.settings(face)));
        Ok(settings)
    }

    fn apply(&self, settings: &mut Settings) -> Result<(), String> {
        if let Some(host) = &self.addr {
            settings.server.host.clone_from(host);
            if let Some(listener) = &mut settings.server.websocket {
                listener.host.clone_from(host);
            }
            let http = [&mut settings.rest, &mut settings.management];
            for listener in http.into_iter().flatten() {
                listener.address.host.clone_from(host);
            }
            if let Some(monitor) = &mut settings.monitor {
                monitor.host.clone_from(host);
            }
            if let Some(metrics) = &mut settings.metrics {
                metrics.listener.address.host.clone_from(host);
            }
            if let Some(monitor) = &mut settings.secure_monitor {
                monitor.host.clone_from(host);
            }
        }
        let host = settings.server.host.clone();
        if let Some(port) = self.port {
            settings.server.ports = vec![checked(port)?];
        }
        if let Some(port) = self.memphis_port {
            settings.memphis_port = Some(checked(port)?);
        }
        if let Some(port) = self.ws_port {
            let port = checked(port)?;
            let listener = &mut settings.server.websocket;
            listener
                .get_or_insert_with(|| WebSocketOptions::at(&host, port))
                .port = port;
        }
        if let Some(port) = self.rest_port {
            let port = checked(port)?;
            let listener = settings
                .rest
                .get_or_insert_with(|| HttpSettings::at(&host, port));
            listener.address.port = port;
        }
        if let Some(port) = self.api_port {
            let port = checked(port)?;
            let listener = &mut settings.management;
            let listener = listener.get_or_insert_with(|| HttpSettings::at(&host, port));
            listener.address.port = port;
        }
        match self.metrics_port {
            None => {}
            Some(0) => settings.metrics = None,
            Some(port) => {
                let port = checked(port)?;
                let metrics = &mut settings.metrics;
                let metrics = metrics.get_or_insert_with(|| MetricsSettings::at(&host, port));
                metrics.listener.address.port = port;
            }
        }
        if let Some(port) = self.http_port {
            settings.monitor = Some(Address {
                host: host.clone(),
                port: checked(port)?,
            });
        }
        if let Some(port) = self.https_port {
            settings.secure_monitor = Some(Address {
                host,
                port: checked(port)?,
            });
            // It takes the place of the one that is there unasked.
            if self.http_port.is_none() && settings.greets {
                settings.monitor = None;
            }
        }
        if let Some(name) = &self.name {
            settings.server.server_name = Some(name.clone());
        }
        if self.jetstream && settings.jetstream.is_none() {
            settings.jetstream = Some(JetStreamSettings::default());
        }
        if let (Some(folder), Some(streams)) = (&self.store_dir, &mut settings.jetstream) {
            streams.store_dir = Some(folder.clone());
        }
        self.apply_login(settings)?;
        self.apply_tls(settings)?;
        if let Some(text) = &self.client_advertise {
            settings.server.client_advertise = Some(advertised(text)?);
        }
        settings.pid_file = self.pid.clone().or_else(|| settings.pid_file.take());
        settings.ports_file_dir = self
            .ports_file_dir
            .clone()
            .or_else(|| settings.ports_file_dir.take());
        settings.log.file = self.log.clone().or_else(|| settings.log.file.take());
        self.apply_log(&mut settings.log)?;
        if self.profile.is_some_and(|port| port != 0) {
            let text = "--profile has no effect in this version";
            settings.warnings.push(text.to_owned());
        }
        Ok(())
    }

    fn apply_log(&self, log: &mut LogOptions) -> Result<(), String> {
        log.trace_verbose |= self.trace_verbose || self.debug_trace_verbose;
        log.debug |= self.debug || self.debug_trace || self.debug_trace_verbose;
        log.trace |= self.trace || self.debug_trace || log.trace_verbose;
        log.time = (log.time || self.logtime) && !self.no_logtime;
        log.max_traced = self.max_traced_msg_len.unwrap_or(log.max_traced);
        log.size_limit = self.log_size_limit.unwrap_or(log.size_limit);
        if self.syslog && log.syslog.is_none() {
            log.syslog = Some(SyslogTarget::Local);
        }
        if let Some(url) = &self.remote_syslog {
            log.syslog = Some(SyslogTarget::parse(url)?);
        }
        Ok(())
    }

    /// Flags about TLS replace what the file says as a whole, as in nats-server.
    fn apply_tls(&self, settings: &mut Settings) -> Result<(), String> {
        if self.no_tls {
            settings.server.tls = None;
            return Ok(());
        }
        let is_asked = self.tls
            || self.tlsverify
            || self.tlscert.is_some()
            || self.tlskey.is_some()
            || self.tlscacert.is_some();
        if !is_asked {
            return Ok(());
        }
        let cert_file = self
            .tlscert
            .clone()
            .ok_or("TLS Server certificate must be present and valid")?;
        let key_file = self
            .tlskey
            .clone()
            .ok_or("TLS Server private key must be present and valid")?;
        let options = TlsOptions {
            certificates: vec![CertificateFiles {
                cert_file,
                key_file,
            }],
            ca_file: self.tlscacert.clone(),
            verify: self.tlsverify,
            ..TlsOptions::default()
        };
        menes_broker::tls::check(&options).map_err(|error| error.to_string())?;
        settings.server.tls = Some(options);
        Ok(())
    }

    fn apply_login(&self, settings: &mut Settings) -> Result<(), String> {
        let auth = &mut settings.server.auth;
        match (&self.user, &self.pass) {
            (Some(user), Some(password)) => {
                auth.users.retain(|known| known.user != *user);
                auth.users.push(UserOptions {
                    user: user.clone(),
                    password: password.clone(),
                    ..Default::default()
                });
            }
            (None, None) => {}
            (Some(_), None) => return Err("--user wants --pass as well".to_owned()),
            (None, Some(_)) => return Err("--pass wants --user as well".to_owned()),
        }
        if let Some(token) = &self.auth {
            auth.token = Some(token.clone());
        }
        Ok(())
    }
}

/// Brings arguments into the one spelling that the parser knows.
fn normalise(arguments: &[String]) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument
            .strip_prefix("--")
            .or_else(|| argument.strip_prefix('-'))
        else {
            match argument.as_str() {
                "help" | "version" => words.push(format!("--{argument}")),
                other => return Err(format!("unrecognized command: {other:?}")),
            }
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        if NOT_BUILT.contains(&name) {
            return Err(format!("{argument} is not supported by this version"));
        }
        let name = ALIASES
            .iter()
            .find(|(from, _)| *from == name)
            .map_or(name, |(_, to)| to);
        if SWITCHES.contains(&name) {
            match value {
                Some("false") if *name == *"logtime" => words.push("--no_logtime".to_owned()),
                Some("false") if *name == *"tls" => words.push("--no_tls".to_owned()),
                Some("false") => {}
                _ => words.push(format!("--{name}")),
            }
            continue;
        }
        words.push(format!("--{name}"));
        words.extend(value.map(str::to_owned).or_else(|| rest.next().cloned()));
    }
    Ok(words)
}

fn checked(port: i64) -> Result<u16, String> {
    match port {
        -1 => Ok(0),
        _ => u16::try_from(port)
            .map_err(|_| format!("{port} is no port: 0 to 65535, or -1 for any free one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str, face: Face) -> Settings {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Flags::parse_from(&words)
            .expect("flags")
            .settings(face)
            .expect("settings")
    }

    #[test]
    fn one_or_two_dashes_and_equals_signs_are_the_same() {
        for line in [
            "-p -1 -js -sd /tmp/x -m -1 -a 127.0.0.1",
            "--port=-1 --jetstream --store_dir=/tmp/x --http_port=-1 --addr=127.0.0.1",
            "-p=-1 -js=true -sd=/tmp/x -m=-1 --net 127.0.0.1",
        ] {
            let settings = settings(line, Face::NatsServer);
            assert_eq!(settings.server.ports, [0], "{line}");
            assert_eq!(settings.server.host, "127.0.0.1");
            assert_eq!(settings.monitor.expect("on").port, 0);
            let folder = settings.jetstream.expect("on").store_dir;
            assert_eq!(folder, Some(PathBuf::from("/tmp/x/jetstream")));
        }
    }

    #[test]
    fn the_plain_server_has_every_door_open() {
        let settings = settings("", Face::Menes);
        assert_eq!(settings.server.ports, [4222]);
        assert_eq!(settings.memphis_port, Some(6666));
        assert_eq!(settings.server.websocket.expect("on").port, 7770);
        assert_eq!(settings.rest.expect("on").address.port, 4444);
        assert_eq!(settings.management.expect("on").address.port, 9000);
        assert!(settings.jetstream.is_some() && settings.greets);
        let monitor = settings.monitor.expect("on");
        assert_eq!((monitor.host.as_str(), monitor.port), ("127.0.0.1", 8222));
        let metrics = settings.metrics.expect("on").listener.address;
        assert_eq!((metrics.host.as_str(), metrics.port), ("127.0.0.1", 7777));
    }

    #[test]
    fn flags_win_over_the_file_and_are_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.conf");
        std::fs::write(&file, "port: 1\nserver_name: a\nlogtime: true").expect("written");
        let line = format!("-c {} -p 2 -T=false", file.display());
        let settings = settings(&line, Face::NatsServer);
        assert_eq!(settings.server.ports, [2]);
        assert_eq!(settings.server.server_name.as_deref(), Some("a"));
        assert!(!settings.log.time);
        std::fs::write(&file, "server_name: b").expect("written");
        let again = settings.again.expect("always").make().expect("valid");
        assert_eq!(again.server.server_name.as_deref(), Some("b"));
        assert_eq!(again.server.ports, [2]);
    }

    #[test]
    fn as_nats_server_only_what_was_asked_for_is_on() {
        let settings = settings("-p 4333 --user a --pass b", Face::NatsServer);
        assert_eq!(settings.server.ports, [4333]);
        assert!(settings.jetstream.is_none() && settings.server.websocket.is_none());
        assert!(settings.memphis_port.is_none() && settings.monitor.is_none());
        assert!(settings.rest.is_none() && settings.management.is_none());
        assert!(settings.metrics.is_none());
        assert_eq!(settings.server.auth.users[0].user, "a");
    }

    #[test]
    fn mistakes_are_refused_in_words() {
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(Flags::parse_from(&words("--nonsense 1")).is_err());
        assert!(
            Flags::parse_from(&words("--routes nats://a:1"))
                .expect_err("refused")
                .to_string()
                .contains("--routes")
        );
        let error = Flags::parse_from(&words("frobnicate")).expect_err("refused");
        assert!(
            error
                .to_string()
                .contains("unrecognized command: \"frobnicate\"")
        );
        let flags = Flags::parse_from(&words("-p 70000")).expect("flags");
        assert!(
            flags
                .settings(Face::Menes)
                .expect_err("refused")
                .contains("70000")
        );
        let flags = Flags::parse_from(&words("--user a")).expect("flags");
        assert!(
            flags
                .settings(Face::Menes)
                .expect_err("refused")
                .contains("--pass")
        );
    }
}
