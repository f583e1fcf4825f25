//! Client scripts as child processes.
//!
//! A script finds the server in its environment, exits with 0 if everything was as expected, and
//! prints one line per thing it saw. Those lines are shown when it fails, and are what
//! [`crate::comparison`] compares.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::server::menes_binary;
use crate::tools::clients;
use crate::{TestServer, Tools};

/// How long one script may take unless told otherwise.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A script, named by its path under `compat-tests/clients`.
#[derive(Clone, Debug)]
pub struct Scenario {
    name: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    limit: Duration,
}

/// What a finished script printed.
#[derive(Clone, Debug)]
pub struct Printed {
    /// Standard output: what the script saw.
    pub seen: String,
    /// Standard error: what went wrong.
    pub complaints: String,
}

impl Scenario {
    /// A script such as `nats-py/core.py`; its ending decides what runs it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            limit: LIMIT,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Changes the time limit from one minute.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the script against a server and expects it to succeed.
    ///
    /// # Errors
    ///
    /// If its toolchain is not prepared, it fails, or it exceeds its time; with what it printed.
    pub fn run(&self, server: &TestServer) -> Result<Printed> {
        let mut child = self.start(server, Stdio::null())?;
        let seen = drain(child.stdout.take());
        let complaints = drain(child.stderr.take());
        let ended = wait(&mut child, self.limit);
        let printed = Printed {
            seen: collect(seen),
            complaints: collect(complaints),
        };
        match ended? {
            Some(status) if status.success() => Ok(printed),
            Some(status) => bail!("{} failed ({status})\n{printed}", self.name),
            None => bail!(
                "{} did not end within {:?}\n{printed}",
                self.name,
                self.limit
            ),
        }
    }

    /// Starts the script with pipes for its output; the caller waits for it or ends it.
    ///
    /// # Errors
    ///
    /// If its toolchain is not prepared or it cannot be started.
    pub fn start(&self, server: &TestServer, input: Stdio) -> Result<Child> {
        let tools = Tools::find()?;
        let mut command = self.command(&tools)?;
        let login = server.login();
        command
            .args(&self.arguments)
            .env("NATS_URL", server.url())
            .env("NATS_USER", &login.user)
            .env("NATS_PASSWORD", &login.password)
            .env("MEMPHIS_HOST", "127.0.0.1")
            .env(
                "MEMPHIS_PORT",
                server
                    .memphis_port()
                    .map_or_else(String::new, |p| p.to_string()),
            )
            .env("REST_URL", server.rest_url().unwrap_or_default())
            .env(
                "MANAGEMENT_URL",
                server.management_url().unwrap_or_default(),
            )
            .env("METRICS_URL", server.metrics_url().unwrap_or_default())
            .env("WS_URL", server.websocket_url().unwrap_or_default())
            .env(
                "MONITORING_URL",
                server
                    .monitoring_port()
                    .map_or_else(String::new, |port| format!("http://127.0.0.1:{port}")),
            )
            .env(
                "SERVER_PID",
                server.pid().map_or_else(String::new, |pid| pid.to_string()),
            )
            .env("MENES_TEST_SERVER", server.options().kind.name())
            .env("NATS_CLI", tools.path("nats")?)
            .env("MENES", menes_binary()?)
            .env("CHROMIUM", tools.path("chromium")?)
            .env("SCENARIO_DIR", server.folder())
            // The `nats` command keeps contexts below it; nothing of the user's may leak in.
            .env("XDG_CONFIG_HOME", server.folder())
            // Before version 22, Node has the browsers' WebSocket only when asked.
            .env("NODE_OPTIONS", "--experimental-websocket")
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))
    }

    fn command(&self, tools: &Tools) -> Result<Command> {
        let script = clients().join(&self.name);
        let runner = match script.extension().and_then(|ending| ending.to_str()) {
            Some("py") => tools.path("python")?,
            Some("mjs" | "cjs") => tools.path("node")?,
            Some("sh") => "bash".as_ref(),
            Some("java") => {
                let classes = std::env::var("MEMPHIS_JAVA");
                let classes = classes.context("make memphis-java SDK=<checkout>")?;
                let mut command = Command::new("java");
                command.args(["-cp", &classes]).arg(script);
                return Ok(command);
            }
            None if self.name == "memphis-rust" => {
                return Ok(Command::new(tools.path("memphis_rust")?));
            }
            None => return Ok(Command::new(build_go(tools, &self.name)?)),
            Some(other) => bail!("nothing runs a script ending in .{other}"),
        };
        let mut command = Command::new(runner);
        command.arg(script);
        Ok(command)
    }
}

/// Builds the Go program in this folder under `compat-tests/clients`; Go's own cache makes that
/// quick.
///
/// # Errors
///
/// If Go is missing or refuses.
pub fn build_go(tools: &Tools, name: &str) -> Result<PathBuf> {
    build_go_package(tools, name, ".")
}

/// As [`build_go`], for a package that the module of the folder names, such as a released tool.
///
/// # Errors
///
/// If Go is missing or refuses.
pub fn build_go_package(tools: &Tools, name: &str, package: &str) -> Result<PathBuf> {
    // One test's build must not replace the program that another test runs.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);

    let folder = clients().join(name);
    let test_binary = std::env::current_exe()?;
    let file_name = test_binary
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let out = test_binary.with_file_name(format!("client-{name}-{file_name}"));
    let status = Command::new(tools.path("go")?)
        .args(["build", "-mod=readonly", "-o"])
        .arg(&out)
        .arg(package)
        .current_dir(folder)
        .status()?;
    if !status.success() {
        bail!("{name} does not build ({status})");
    }
    Ok(out)
}

impl std::fmt::Display for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "--- seen\n{}--- complaints\n{}---",
            self.seen, self.complaints
        )
    }
}

/// Waits for a child and its group; `None` if the time was up and they were killed.
///
/// # Errors
///
/// If the child cannot be waited for.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            end(child)?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Kills a child together with what it has started, such as a browser.
///
/// # Errors
///
/// If the child cannot be waited for.
pub fn end(child: &mut Child) -> Result<()> {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It fails only if the whole group has ended already.
        let _: Result<(), _> = kill_process_group(group, Signal::KILL);
    }
    child.wait()?;
    Ok(())
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    let mut pipe = pipe.expect("both outputs are pipes");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _: Result<usize, _> = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn collect(reader: thread::JoinHandle<String>) -> String {
    reader.join().expect("reading a pipe does not panic")
}
