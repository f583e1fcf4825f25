//! The log, in the shape that nats-server gives it and that tools wait for.
//!
//! ```text
//! [4711] 2026/11/22 10:00:00.000000 [INF] Server is ready
//! ```
//!
//! Times are local ones unless UTC is asked for. `debug!` lines appear with `-D`, `trace!` lines with `-V`. Control characters are
//! written as escapes: a client chooses its own name, and must not choose lines of this log. A log
//! file is opened again when the server is told to, so that it can be moved away underneath, and
//! moved aside by itself when it has grown to its limit.

mod sink;
mod syslog;
pub(crate) mod traffic;

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use jiff::Zoned;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use self::sink::Sink;
pub use self::syslog::SyslogTarget;

/// The time of a line.
const TIME: &str = "%Y/%m/%d %H:%M:%S%.6f";

/// The time here.
fn local_now() -> Zoned {
    Zoned::now()
}

/// Target of lines that end the server, printed as `[FTL]`.
pub const FATAL: &str = "fatal";

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// File; `None` is standard error.
    pub file: Option<PathBuf>,
    /// Show debug lines.
    pub debug: bool,
    /// Show protocol traces.
    pub trace: bool,
    /// Begin lines with the time. Default true.
    pub time: bool,
    /// That time is UTC. Default false: the local one.
    pub utc: bool,
    /// Bytes after which the file is moved aside; 0, the default, for never.
    pub size_limit: u64,
    /// Files kept, the one written to included; 0, the default, for all.
    pub max_files: usize,
    /// A syslog in place of standard error. Default none.
    pub syslog: Option<SyslogTarget>,
    /// Bytes of a message shown in a trace; 0, the default, for all.
    pub max_traced: usize,
    /// Traces show headers without payloads. Default false.
    pub trace_headers: bool,
    /// Traces show the system account too. Default false.
    pub trace_verbose: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            file: None,
            debug: false,
            trace: false,
            time: true,
            utc: false,
            size_limit: 0,
            max_files: 0,
            syslog: None,
            max_traced: 0,
            trace_headers: false,
            trace_verbose: false,
        }
    }
}

/// The running log.
#[derive(Clone, Debug)]
pub struct Logging {
    shared: Arc<Shared>,
}

impl Logging {
    /// Starts logging for the whole process. Only the first call in a process has an effect.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn start(options: &LogOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(options)?);
        if subscriber(&shared).try_init().is_err() {
            // A second server in one process, in tests: the first one's log serves both.
            tracing::debug!("logging was started before");
        }
        Ok(Self { shared })
    }

    /// Opens the log file anew, after it was moved away.
    ///
    /// # Errors
    /// When it cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        self.shared.sink.lock().reopen()
    }

    /// Logs as these options say from now on.
    ///
    /// # Errors
    /// When the file cannot be opened; nothing changes then.
    pub fn apply(&self, options: &LogOptions) -> io::Result<()> {
        let fresh = Sink::open(options)?;
        *self.shared.sink.lock() = fresh;
        self.shared.set(options);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

fn subscriber(shared: &Arc<Shared>) -> impl Subscriber + Send + Sync + use<> {
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Lines {
            pid: std::process::id(),
            shared: Arc::clone(shared),
        })
        .with_writer(Output(Arc::clone(shared)))
        .with_filter(OwnLevel(Arc::clone(shared)));
    tracing_subscriber::registry().with(layer)
}

/// What can change while the log runs.
#[derive(Debug)]
struct Shared {
    debug: AtomicBool,
    trace: AtomicBool,
    time: AtomicBool,
    utc: AtomicBool,
    /// What lines begin with where they go to a syslog.
    syslog: ArcSwapOption<syslog::Header>,
    colour: AtomicBool,
    sink: Mutex<Sink>,
}

impl Shared {
    fn new(options: &LogOptions) -> io::Result<Self> {
        let shared = Self {
            debug: AtomicBool::new(false),
            trace: AtomicBool::new(false),
            time: AtomicBool::new(true),
            utc: AtomicBool::new(false),
            syslog: ArcSwapOption::empty(),
            colour: AtomicBool::new(false),
            sink: Mutex::new(Sink::open(options)?),
        };
        shared.set(options);
        Ok(shared)
    }

    fn set(&self, options: &LogOptions) {
        self.debug.store(options.debug, Ordering::Relaxed);
        self.trace.store(options.trace, Ordering::Relaxed);
        traffic::apply(options);
        self.time.store(options.time, Ordering::Relaxed);
        self.utc.store(options.utc, Ordering::Relaxed);
        let target = options.syslog.as_ref().filter(|_| options.file.is_none());
        let header = target.map(|target| Arc::new(syslog::Header::new(target)));
        let is_stderr = options.file.is_none() && header.is_none();
        self.syslog.store(header);
        let colour = is_stderr && rustix::termios::isatty(io::stderr());
        self.colour.store(colour, Ordering::Relaxed);
    }

    /// Whether lines of this level are shown. Traces do not bring debug lines with them.
    fn shows(&self, level: Level) -> bool {
        match level {
            Level::TRACE => self.trace.load(Ordering::Relaxed),
            Level::DEBUG => self.debug.load(Ordering::Relaxed),
            _ => true,
        }
    }

    fn max_level(&self) -> LevelFilter {
        let levels = [Level::TRACE, Level::DEBUG];
        let most = levels.into_iter().find(|level| self.shows(*level));
        most.unwrap_or(Level::INFO).into()
    }
}

/// Our own crates at the chosen level, everyone else only with warnings.
struct OwnLevel(Arc<Shared>);

impl OwnLevel {
    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("menes") || metadata.target() == FATAL;
        if ours {
            self.0.shows(*metadata.level())
        } else {
            *metadata.level() <= LevelFilter::WARN
        }
    }
}

impl<S> Filter<S> for OwnLevel {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.shows(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.shows(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.max_level())
    }
}

struct Output(Arc<Shared>);

impl<'a> MakeWriter<'a> for Output {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// A line comes as one write.
impl Write for &Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.sink.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sink.lock().flush()
    }
}

/// Lays out a line.
struct Lines {
    pid: u32,
    shared: Arc<Shared>,
}

fn label(metadata: &Metadata<'_>) -> (&'static str, &'static str) {
    if metadata.target() == FATAL {
        return ("FTL", "31");
    }
    match *metadata.level() {
        Level::ERROR => ("ERR", "31"),
        Level::WARN => ("WRN", "0;93"),
        Level::INFO => ("INF", "32"),
        Level::DEBUG => ("DBG", "36"),
        Level::TRACE => ("TRC", "33"),
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if let Some(header) = &*self.shared.syslog.load() {
            let is_fatal = metadata.target() == FATAL;
            header.write(&mut writer, *metadata.level(), is_fatal)?;
            return write_text(&mut writer, event);
        }
        write!(writer, "[{}] ", self.pid)?;
        if self.shared.time.load(Ordering::Relaxed) {
            let now = if self.shared.utc.load(Ordering::Relaxed) {
                local_now().with_time_zone(TimeZone::UTC)
            } else {
                local_now()
            };
            write!(writer, "{} ", now.strftime(TIME))?;
        }
        let (label, colour) = label(event.metadata());
        if self.shared.colour.load(Ordering::Relaxed) {
            write!(writer, "[\x1b[{colour}m{label}\x1b[0m] ")?;
        } else {
            write!(writer, "[{label}] ")?;
        }
        write_text(&mut writer, event)
    }
}

fn write_text(writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let mut text = Text::default();
    event.record(&mut text);
    escape(writer, &text.message)?;
    escape(writer, &text.fields)?;
    writer.write_char('\n')
}

/// Writes text with its control characters escaped.
fn escape(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    if !text.contains(|c: char| c.is_control()) {
        return writer.write_str(text);
    }
    for c in text.chars() {
        if c.is_control() {
            write!(writer, "{}", c.escape_default())?;
        } else {
            writer.write_char(c)?;
        }
    }
    Ok(())
}

/// The message of an event, and its other fields behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.record_debug(field, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `log` writes with these options, without the time.
    fn logged(options: LogOptions, log: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let options = LogOptions {
            file: Some(path.clone()),
            ..options
        };
        let shared = Arc::new(Shared::new(&options).expect("a file"));
        tracing::subscriber::with_default(subscriber(&shared), log);
        let text = std::fs::read_to_string(path).expect("a log");
        text.replace(&format!("[{}] ", std::process::id()), "")
    }

    fn without_time() -> LogOptions {
        LogOptions {
            time: false,
            ..LogOptions::default()
        }
    }

    #[test]
    fn lines_have_the_labels_of_nats_server() {
        let text = logged(
            LogOptions {
                debug: true,
                trace: true,
                ..without_time()
            },
            || {
                tracing::info!("Server is ready");
                tracing::warn!(count = 3, "odd");
                tracing::error!(target: FATAL, "the end");
                tracing::error!("look");
                tracing::debug!("detail");
                tracing::trace!("more");
            },
        );
        assert_eq!(
            text,
            "[INF] Server is ready\n[WRN] odd count=3\n[FTL] the end\n[ERR] look\n[DBG] detail\n\
             [TRC] more\n"
        );
    }

    #[test]
    fn traces_come_without_debug_lines() {
        let options = LogOptions {
            trace: true,
            ..without_time()
        };
        let text = logged(options, || {
            tracing::debug!("detail");
            tracing::trace!("more");
        });
        assert_eq!(text, "[TRC] more\n");
    }

    #[test]
    fn others_are_heard_from_warnings_on_and_we_at_the_level_chosen() {
        let text = logged(without_time(), || {
            tracing::debug!("not asked for");
            tracing::info!(target: "hyper", "chatter");
            tracing::warn!(target: "hyper", "trouble");
        });
        assert_eq!(text, "[WRN] trouble\n");
    }

    #[test]
    fn a_line_is_one_line_whatever_a_client_calls_itself() {
        let text = logged(without_time(), || {
            let name = "a\n[1] [INF] Server is ready\x1b[2J\r";
            tracing::info!("client {name} connected");
            tracing::info!(name, "connected");
        });
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("[INF] client a\\n[1] [INF] Server is ready\\u{1b}[2J\\r conn"));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn the_time_has_microseconds_and_is_utc_on_request() {
        for utc in [false, true] {
            let options = LogOptions {
                utc,
                ..LogOptions::default()
            };
            let text = logged(options, || tracing::info!("x"));
            let time = text.strip_suffix(" [INF] x\n").expect("a line");
            let shape: String = time
                .chars()
                .map(|c| if c.is_ascii_digit() { '0' } else { c })
                .collect();
            assert_eq!(shape, "0000/00/00 00:00:00.000000");
            let read = jiff::civil::DateTime::strptime(TIME, time).expect("a time");
            let zone = if utc {
                TimeZone::UTC
            } else {
                TimeZone::system()
            };
            let read = read.to_zoned(zone).expect("a time that exists").timestamp();
            let age = jiff::Timestamp::now().duration_since(read);
            assert!(age.as_secs().abs() < 60, "{time} is {age:?} old");
        }
    }

    #[test]
    fn a_syslog_takes_the_place_of_standard_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
        let options = LogOptions {
            syslog: Some(SyslogTarget::Unix(path)),
            ..LogOptions::default()
        };
        let shared = Arc::new(Shared::new(&options).expect("a syslog"));
        tracing::subscriber::with_default(subscriber(&shared), || {
            tracing::info!("Server is ready");
        });
        let mut bytes = [0; 200];
        let count = socket.recv(&mut bytes).expect("a line");
        let line = String::from_utf8_lossy(&bytes[..count]).into_owned();
        assert!(
            line.starts_with("<5>20") && line.ends_with("]: Server is ready\n"),
            "{line}"
        );
    }

    #[test]
    fn a_moved_file_is_made_anew_when_told_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let options = LogOptions {
            file: Some(path.clone()),
            ..without_time()
        };
        let shared = Arc::new(Shared::new(&options).expect("a file"));
        let logging = Logging {
            shared: Arc::clone(&shared),
        };
        tracing::subscriber::with_default(subscriber(&shared), || {
            tracing::info!("one");
            std::fs::rename(&path, folder.path().join("old")).expect("moved");
            tracing::info!("two");
            logging.reopen().expect("opened");
            tracing::info!("three");
            logging
                .apply(&LogOptions {
                    debug: true,
                    ..options.clone()
                })
                .expect("applied");
            tracing::debug!("four");
        });
        let read = |name| std::fs::read_to_string(folder.path().join(name)).expect("a log");
        assert_eq!(read("old").lines().count(), 2);
        assert!(read("log").contains("three") && read("log").contains("four"));
    }
}
