//! A server from its settings to its end: what the executable does.
//!
//! ```text
//! log ─▶ banner ─▶ sockets ─▶ monitoring ─▶ streams ─▶ accept ─▶ "Server is ready" ─▶ signals ─▶ end
//! ```
//!
//! All sockets are bound before anything else is touched, so a port that is taken ends the start
//! early; clients that connect while streams are recovered wait in the backlog. Log lines are those
//! of nats-server, because tools wait for them.

mod announce;
mod files;
mod lame_duck;
mod reload;
mod signals;
mod store_dir;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use menes_jetstream::AccountName;
use menes_jetstream::engine::ServerLimits;
use thiserror::Error;
use tokio::sync::mpsc;

use self::files::PortsFile;
use self::signals::{Asked, Signals};
use crate::auth::operator;
use crate::config::options::TlsOptions;
use crate::config::settings::{HttpSettings, Settings};
use crate::error::StartError;
use crate::gateway;
use crate::listener;
use crate::logging::{FATAL, LogOptions, Logging};
use crate::management;
use crate::monitoring::{self, Monitor};
use crate::server::{Server, ServerHandle, Shared};
use crate::streams::{Streams, StreamsError, StreamsHandle, StreamsOptions};
use crate::system::{self, Reload, RunningSystem};
use crate::tls::{Prepared, Tls, TlsError};

/// Why a server did not start. The text says what happened, where, and what to do about it.
#[derive(Debug, Error)]
pub enum RunError {
    /// The log file cannot be opened.
    #[error("cannot open the log file {}: {source}; make its folder writable or log elsewhere with -l", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder for streams cannot be used.
    #[error("cannot keep streams in {}: {source}; make the folder writable for this user or choose another with --store_dir", path.display())]
    StoreDir {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The streams cannot start.
    #[error("cannot start JetStream: {0}")]
    Streams(#[from] StreamsError),
    /// The file for the process id cannot be written.
    #[error("cannot write the pid file {}: {source}; make its folder writable or choose another with -P", path.display())]
    PidFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A listener cannot be opened, or a thread cannot be started.
    #[error("{}", with_remedy(.0))]
    Start(#[from] StartError),
    /// The operating system refuses something that every server needs.
    #[error("cannot start: {0}")]
    System(io::Error),
}

fn with_remedy(error: &StartError) -> String {
    let StartError::Listen { address, source } = error else {
        return error.to_string();
    };
    let port = address.port();
    let remedy = match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!("stop the program that uses port {port}, or choose another port")
        }
        io::ErrorKind::PermissionDenied => format!("port {port} needs root, choose one above 1023"),
        _ => "the address must be one of this machine".to_owned(),
    };
    format!("{error}; {remedy}")
}

/// Runs a server until a signal ends it.
///
/// # Errors
/// When it could not start. The log has a `[FTL]` line that says the same.
pub fn run(settings: Settings) -> Result<(), RunError> {
    let outcome = start_logging(&settings.log).and_then(|logging| serve(settings, logging));
    if let Err(error) = &outcome {
        tracing::error!(target: FATAL, "{error}");
    }
    outcome
}

fn start_logging(options: &LogOptions) -> Result<Logging, RunError> {
    Logging::start(options).map_err(|source| {
        // Standard error takes the line that says why.
        let to_stderr = Logging::start(&LogOptions {
            file: None,
            syslog: None,
            ..options.clone()
        });
        debug_assert!(to_stderr.is_ok(), "standard error needs no opening");
        RunError::Log {
            path: options.file.clone().unwrap_or_else(|| "syslog".into()),
            source,
        }
    })
}

fn serve(asked: Settings, logging: Logging) -> Result<(), RunError> {
    let mut settings = asked.clone();
    prepare_streams(&mut settings)?;
    settings.server.ports.extend(settings.memphis_port);

    // Also where there are none: a reload may switch them on.
    let engine = Streams::default();
    if settings.jetstream.is_none() {
        engine.stay_off();
    }
    let status = Some(Arc::clone(engine.status()));
    let mut server = Server::new(settings.server.clone(), engine.hooks());
    announce::start(&server, &settings);

    server.bind()?;
    let monitor_address = settings
        .monitor
        .as_ref()
        .or(settings.secure_monitor.as_ref());
    let monitor_listener = match monitor_address {
        Some(at) => Some(listener::bind(&at.host, at.port)?.0),
        None => None,
    };
    let rest_listener = settings.rest.as_ref().map(bind_http).transpose()?;
    let api_listener = settings.management.as_ref().map(bind_http).transpose()?;
    let metrics_listener = settings.metrics.as_ref().map(|metrics| &metrics.listener);
    let metrics_listener = metrics_listener.map(bind_http).transpose()?;
    if let Some(path) = &settings.pid_file {
        files::write_pid(path).map_err(|source| RunError::PidFile {
            path: path.clone(),
            source,
        })?;
    }
    let monitor = Arc::new(Monitor::new(server.shared(), &settings, status));
    let documents = Arc::clone(&monitor);
    let reloaded_documents = Arc::clone(&monitor);
    let metrics = match (&settings.metrics, metrics_listener) {
        (Some(metrics), Some((listener, tls))) => {
            let monitor = Arc::clone(&monitor);
            let running = monitoring::start_metrics(listener, monitor, metrics.clone(), tls);
            Some(running.map_err(RunError::System)?)
        }
        _ => None,
    };
    let monitor = match monitor_listener {
        Some(listener) => {
            let tls = settings.secure_monitor.is_some();
            let tls = tls.then(|| Arc::clone(&server.shared().tls().clients));
            let scheme = if tls.is_some() { "https" } else { "http" };
            let running = monitoring::start(listener, monitor, tls).map_err(RunError::System)?;
            tracing::info!("Starting {scheme} monitor on {}", running.address());
            Some(running)
        }
        None => None,
    };
    let mut streams = match &settings.jetstream {
        Some(_) => Some(start_streams(&settings, &asked, &engine, &server.shared())?),
        None => None,
    };
    if let Some(streams) = &mut streams
        && let Some(password) = streams.take_first_password()?
    {
        announce::first_user(&password);
    }
    let (reload, reloads) = mpsc::unbounded_channel();
    let system = system::start(server.shared(), documents, reload).map_err(RunError::System)?;
    let claims = operator::start(&server.shared()).map_err(RunError::System)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::System)?;
    // Before the first client: from there on the server ends in order. Until then a signal ends the
    // process at once, which leaves nothing that a start does not find as it should be.
    let signals = {
        let _inside = runtime.enter();
        Signals::listen().map_err(RunError::System)?
    };
    let shared = server.shared();
    let server = server.serve()?;
    let http_tls = HttpTls {
        rest: rest_listener.as_ref().and_then(|(_, tls)| tls.clone()),
        management: api_listener.as_ref().and_then(|(_, tls)| tls.clone()),
    };
    let gateway = match rest_listener {
        Some((listener, tls)) => {
            let shared = Arc::clone(&shared);
            Some(gateway::start(listener, shared, tls).map_err(RunError::System)?)
        }
        None => None,
    };
    let api = match api_listener {
        Some((listener, tls)) => {
            let rest = gateway.as_ref().map(|gateway| {
                let port = gateway.address().port();
                let scheme = if http_tls.rest.is_some() {
                    "https"
                } else {
                    "http"
                };
                (port, format!("{scheme}://localhost:{port}"))
            });
            Some(management::start(listener, shared, tls, rest).map_err(RunError::System)?)
        }
        None => None,
    };
    let addresses = announce::Addresses::of(
        &server,
        &settings,
        &announce::Faces {
            monitoring: monitor.as_ref(),
            rest: gateway.as_ref(),
            management: api.as_ref(),
            metrics: metrics.as_ref(),
        },
    );
    for (name, running) in [
        ("monitoring", &monitor),
        ("rest", &gateway),
        ("management", &api),
        ("metrics", &metrics),
    ] {
        if let Some(running) = running {
            reloaded_documents.watch(name, running);
        }
    }
    announce::listeners(&addresses);
    let ports_file = write_ports_file(&settings, &addresses);
    let running_streams = RunningStreams {
        engine,
        handle: RefCell::new(streams),
    };
    runtime.block_on(async {
        tracing::info!("Server is ready");
        if settings.greets {
            announce::greet(&addresses);
        }
        let running = Running {
            server: &server,
            monitor: &reloaded_documents,
            logging: &logging,
            http_tls: &http_tls,
            streams: &running_streams,
        };
        supervise(&running, &system, asked, reloads, signals).await;
        tracing::info!("Initiating Shutdown...");
        // Its requests that are under way are cut off.
        drop(gateway);
        drop(api);
        server.stop_accepting();
        system.shut_down();
        if let Some(streams) = running_streams.handle.take() {
            // Before the connections go: what is in flight is still answered.
            tracing::info!("Initiating JetStream Shutdown...");
            streams.stop();
            tracing::info!("JetStream Shutdown");
        }
        server.shutdown().await;
    });
    drop(claims);
    drop(monitor);
    drop(metrics);
    drop(ports_file);
    tracing::info!("Server Exiting..");
    Ok(())
}

/// Where staples are kept: beside the folder of the streams, which holds nothing else.
fn beside(store: &Path) -> Option<PathBuf> {
    let name = store.file_name()?.to_string_lossy();
    Some(store.with_file_name(format!("{name}-ocsp")))
}

/// Opens a listener for HTTP, and reads what it needs for TLS.
fn bind_http(
    settings: &HttpSettings,
) -> Result<(std::net::TcpListener, Option<Arc<Tls>>), StartError> {
    let tls = settings.tls.as_ref().map(Prepared::new).transpose()?;
    let (listener, _) = listener::bind(&settings.address.host, settings.address.port)?;
    Ok((listener, tls.map(Tls::fixed)))
}

/// Makes the folder of the streams, if there are any, and tells the server of them.
fn prepare_streams(settings: &mut Settings) -> Result<(), RunError> {
    if let Some(streams) = &mut settings.jetstream {
        store_dir::prepare(streams)?;
        settings.server.jetstream = true;
        settings.server.domain.clone_from(&streams.domain);
        settings.server.ocsp.folder = streams.store_dir.as_deref().and_then(beside);
    }
    Ok(())
}

fn start_streams(
    settings: &Settings,
    asked: &Settings,
    streams: &Streams,
    server: &Arc<Shared>,
) -> Result<StreamsHandle, RunError> {
    let jetstream = settings.jetstream.clone().unwrap_or_default();
    announce::streams(&jetstream);
    let options = streams_options(asked, jetstream.max_memory);
    let folder = jetstream
        .store_dir
        .as_deref()
        .unwrap_or_else(|| Path::new(store_dir::DEFAULT));
    let start = Instant::now();
    let handle = streams.start(folder, server, &options)?;
    tracing::info!("Took {:?} to start JetStream", start.elapsed());
    Ok(handle)
}

/// How streams are served. Without a limit in the settings, memory streams have `max_memory`.
fn streams_options(asked: &Settings, max_memory: Option<u64>) -> StreamsOptions {
    let jetstream = asked.jetstream.clone().unwrap_or_default();
    let auth = &asked.server.auth;
    let is_said = !auth.users.is_empty()
        || auth.token.is_some()
        || auth.callout.is_some()
        || asked.server.operator.is_some();
    StreamsOptions {
        wants_root: auth.is_closed && !is_said,
        domain: jetstream.domain,
        encryption: jetstream.encryption,
        limits: ServerLimits {
            memory: jetstream.max_memory.or(max_memory),
            // What is free now says nothing about what is stored already; the disk itself tells
            // when it is full.
            storage: jetstream.max_file,
        },
        // With an operator, accounts come later and their tokens say what they may use.
        accounts: (!asked.jetstream_accounts.is_empty() || asked.server.operator.is_some()).then(
            || {
                let names = asked.jetstream_accounts.iter();
                let limits = |name: &String| asked.account_limits.get(name).copied();
                names
                    .map(|name| {
                        (
                            AccountName::from(name.as_str()),
                            limits(name).unwrap_or_default(),
                        )
                    })
                    .collect()
            },
        ),
    }
}

fn write_ports_file(settings: &Settings, addresses: &announce::Addresses) -> Option<PortsFile> {
    let folder = settings.ports_file_dir.as_ref()?;
    match PortsFile::write(folder, addresses) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::error!("Error writing ports file to {}: {error}", folder.display());
            None
        }
    }
}

/// What a reload changes.
struct Running<'a> {
    server: &'a ServerHandle,
    monitor: &'a Monitor,
    logging: &'a Logging,
    http_tls: &'a HttpTls,
    streams: &'a RunningStreams,
}

/// The engine, which a reload may start and stop.
struct RunningStreams {
    engine: Streams,
    handle: RefCell<Option<StreamsHandle>>,
}

/// TLS of the listeners for HTTP that have some of their own.
#[derive(Debug)]
struct HttpTls {
    rest: Option<Arc<Tls>>,
    management: Option<Arc<Tls>>,
}

impl HttpTls {
    fn faces<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> impl Iterator<Item = (&'a Arc<Tls>, &'a TlsOptions)> {
        let faces = [
            (&self.rest, &settings.rest),
            (&self.management, &settings.management),
        ];
        faces.into_iter().filter_map(|(tls, settings)| {
            let options = settings.as_ref()?.tls.as_ref()?;
            Some((tls.as_ref()?, options))
        })
    }

    /// Reads the certificates that `settings` name, without using them yet.
    fn prepare(&self, settings: &Settings) -> Result<Vec<Prepared>, TlsError> {
        let faces = self.faces(settings);
        faces.map(|(_, options)| Prepared::new(options)).collect()
    }

    /// Uses what was prepared of the same settings, for the connections to come.
    fn replace(&self, settings: &Settings, prepared: Vec<Prepared>) {
        for ((tls, _), prepared) in self.faces(settings).zip(prepared) {
            tls.replace(Some(prepared));
        }
    }
}

/// Does what signals and messages ask for, until the server is to end.
async fn supervise(
    running: &Running<'_>,
    system: &RunningSystem,
    mut settings: Settings,
    mut reloads: mpsc::UnboundedReceiver<Reload>,
    mut signals: Signals,
) {
    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            () = running.server.must_stop() => return,
            Some(answer) = reloads.recv() => {
                let outcome = reload::reload(running, &mut settings);
                // Whoever asked may have gone.
                drop(answer.send(outcome));
                continue;
            }
        };
        tracing::info!("Trapped \"{asked}\" signal");
        match asked {
            Asked::Interrupt | Asked::Terminate => return,
            Asked::Hangup => {
                // What went wrong is in the log.
                drop(reload::reload(running, &mut settings));
            }
            Asked::User1 => match running.logging.reopen() {
                Ok(()) => tracing::info!("File log re-opened"),
                Err(error) => tracing::error!("The log file cannot be opened again: {error}"),
            },
            Asked::User2 => {
                system.announce_lame_duck();
                tokio::select! {
                    () = lame_duck::run(running.server, settings.lame_duck) => {}
                    () = signals.interrupted() => {}
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_a_remedy() {
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let address = ([0, 0, 0, 0], 4222).into();
        let error = RunError::from(StartError::Listen { address, source });
        let text = error.to_string();
        assert!(
            text.contains("0.0.0.0:4222") && text.contains("uses port 4222"),
            "{text}"
        );
    }
}
