//! One server process: started on free loopback ports, killed, restarted, stopped.
//!
//! # Invariants
//!
//! 1. A server that was started is ended: by `stop`, by `kill_9`, or when the value is dropped.
//! 2. It is ended by its process id, never by name.
//! 3. A restart keeps the data folder and every port, as clients that reconnect need.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::ports::Ports;
use crate::tools::{Tools, clients};

/// How long a server may take until it accepts clients; recovery of a test's data included.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How often a file or a process is looked at that cannot be awaited.
const POLL: Duration = Duration::from_millis(5);

/// Which server a test talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// The server of this repository.
    Menes,
    /// nats-server, the reference; with Memphis asked for, together with a stand-in control plane.
    Reference,
}

impl ServerKind {
    /// The server named by `MENES_TEST_SERVER`.
    ///
    /// # Panics
    ///
    /// If the variable names neither `menes` nor `nats-server`.
    #[must_use]
    pub fn under_test() -> Self {
        match std::env::var("MENES_TEST_SERVER").as_deref() {
            Err(_) | Ok("" | "menes") => Self::Menes,
            Ok("nats-server") => Self::Reference,
            Ok(other) => panic!("MENES_TEST_SERVER is menes or nats-server, not {other:?}"),
        }
    }

    /// The name scripts see in `MENES_TEST_SERVER`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Menes => "menes",
            Self::Reference => "nats-server",
        }
    }
}

/// The one user of a test server.
#[derive(Clone, Debug)]
pub struct Login {
    /// User name, without an account suffix.
    pub user: String,
    /// Password in clear.
    pub password: String,
}

impl Login {
    /// The section of a configuration that lets this user in.
    #[must_use]
    pub fn section(&self) -> String {
        let Self { user, password } = self;
        // Memphis knows a user by two names; nats-server needs both spelt out.
        format!(
            "authorization {{ users: [ {{user: \"{user}\", password: \"{password}\"}}, \
             {{user: \"{user}$1\", password: \"{password}\"}} ] }}\n"
        )
    }
}

impl Default for Login {
    fn default() -> Self {
        Self {
            user: "root".into(),
            password: "menes-compat".into(),
        }
    }
}

/// What a test wants of its server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Which server.
    pub kind: ServerKind,
    /// User and password of every face.
    pub login: Login,
    /// Whether the test needs the port Memphis SDKs connect to.
    pub memphis: bool,
    /// Whether the test needs NATS over WebSocket.
    pub websocket: bool,
    /// The configuration file, for both servers, in place of the one user.
    pub config: Option<String>,
    /// Further command-line arguments.
    pub arguments: Vec<String>,
    /// Whether Menes shows the face of nats-server alone, and the configuration says whether there
    /// is JetStream.
    pub is_plain: bool,
    /// Where the data goes, in place of a folder that goes with the server value.
    pub data: Option<PathBuf>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            kind: ServerKind::under_test(),
            login: Login::default(),
            memphis: false,
            websocket: false,
            config: None,
            arguments: Vec::new(),
            is_plain: false,
            data: None,
        }
    }
}

impl ServerOptions {
    /// Also opens the port for Memphis SDKs.
    #[must_use]
    pub fn with_memphis(mut self) -> Self {
        self.memphis = true;
        self
    }

    /// Also opens the WebSocket port.
    #[must_use]
    pub fn with_websocket(mut self) -> Self {
        self.websocket = true;
        self
    }

    /// Starts the server with this configuration file; it has to know the user of
    /// [`ServerOptions::login`].
    #[must_use]
    pub fn with_config(mut self, text: &str) -> Self {
        self.config = Some(text.into());
        self
    }

    /// Asks for a certain server instead of the one under test.
    #[must_use]
    pub fn with_kind(mut self, kind: ServerKind) -> Self {
        self.kind = kind;
        self
    }
}

/// A server process and everything it left on disk.
#[derive(Debug)]
pub struct TestServer {
    options: ServerOptions,
    folder: TempDir,
    /// `None` between a kill and a restart.
    process: Option<Child>,
    /// The reference's Memphis control plane.
    control_plane: Option<Child>,
    ports: Ports,
}

impl TestServer {
    /// Starts a server and waits until it accepts clients.
    ///
    /// # Errors
    ///
    /// If the binary is missing, ends, or is not ready in time; with the end of its log.
    pub fn start(options: ServerOptions) -> Result<Self> {
        let folder = TempDir::with_prefix("menes-compat-")?;
        let mut server = Self {
            options,
            folder,
            process: None,
            control_plane: None,
            ports: Ports::default(),
        };
        fs::create_dir_all(server.data_path())?;
        server.launch()?;
        Ok(server)
    }

    /// Starts the server again on the same data and the same ports, after a kill or a stop.
    ///
    /// # Errors
    ///
    /// As [`TestServer::start`]; also if it still runs.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the server still runs");
        }
        self.launch()
    }

    /// Starts the server again as [`TestServer::restart`] does, with another configuration.
    ///
    /// # Errors
    ///
    /// As [`TestServer::restart`].
    pub fn restart_with(&mut self, config: &str) -> Result<()> {
        self.options.config = Some(config.to_owned());
        self.restart()
    }

    /// Starts the server again as [`TestServer::restart`] does, and kills it before it is ready or
    /// soon after.
    ///
    /// # Errors
    ///
    /// If it still runs, or cannot be started.
    pub fn restart_interrupted(&mut self, after: Duration) -> Result<()> {
        if self.process.is_some() {
            bail!("the server still runs");
        }
        let ports_folder = self.folder.path().join("ports");
        self.spawn(&ports_folder)?;
        // The moment is the point: there is nothing to wait for.
        thread::sleep(after);
        self.kill_9()
    }

    /// Ends the server as a power cut would, as far as the process goes: nothing is flushed.
    ///
    /// # Errors
    ///
    /// If the process cannot be signalled or waited for.
    pub fn kill_9(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().context("SIGKILL")?;
            process.wait().context("waiting for a killed server")?;
        }
        Ok(())
    }

    /// Ends the server in good order (SIGTERM).
    ///
    /// # Errors
    ///
    /// If it does not end within 15 seconds.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the server does not run")?;
        kill_process(pid_of(&process), Signal::TERM).context("SIGTERM")?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = process.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                process.kill()?;
                process.wait()?;
                bail!(
                    "the server did not end {STOP_LIMIT:?} after SIGTERM\n{}",
                    self.log_tail()
                );
            }
            thread::sleep(POLL);
        }
    }

    /// The server's options.
    #[must_use]
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// User and password.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.options.login
    }

    /// `nats://127.0.0.1:<port>`, without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port("nats"))
    }

    /// `ws://127.0.0.1:<port>`, or `wss` where the configuration gives its listener TLS; only if
    /// the options asked for it.
    #[must_use]
    pub fn websocket_url(&self) -> Option<String> {
        self.ports.url_of("websocket")
    }

    /// Has the server read another configuration, and gives what its log says about that.
    ///
    /// # Errors
    ///
    /// If it does not run, or says nothing.
    pub fn reload(&mut self, config: &str) -> Result<String> {
        self.options.config = Some(config.to_owned());
        fs::write(self.config_path(), config)?;
        let before = self.log().len();
        let process = self.process.as_ref().context("the server does not run")?;
        kill_process(pid_of(process), Signal::HUP).context("SIGHUP")?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            let log = self.log();
            let fresh = log.get(before..).unwrap_or_default();
            if fresh.contains("Reloaded server configuration")
                || fresh.contains("Failed to reload server configuration")
            {
                return Ok(fresh.to_owned());
            }
            if Instant::now() >= deadline {
                bail!("the server did not reload\n{}", self.log_tail());
            }
            thread::sleep(POLL);
        }
    }

    /// The port for Memphis SDKs; only if the options asked for it.
    #[must_use]
    pub fn memphis_port(&self) -> Option<u16> {
        match self.options.kind {
            ServerKind::Menes => self.ports.of("memphis"),
            ServerKind::Reference => Some(self.port("nats")),
        }
    }

    /// `http://127.0.0.1:<port>` of the REST gateway, or `https`; Menes only.
    #[must_use]
    pub fn rest_url(&self) -> Option<String> {
        self.ports.url_of("rest")
    }

    /// `http://127.0.0.1:<port>` of the management API, or `https`; Menes only.
    #[must_use]
    pub fn management_url(&self) -> Option<String> {
        self.ports.url_of("management")
    }

    /// `http://127.0.0.1:<port>` of the metrics, or `https`; Menes only.
    #[must_use]
    pub fn metrics_url(&self) -> Option<String> {
        self.ports.url_of("metrics")
    }

    /// The process id, while the server runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The HTTP port of the monitoring endpoints.
    #[must_use]
    pub fn monitoring_port(&self) -> Option<u16> {
        self.ports.of("monitoring")
    }

    /// A folder for what a scenario writes; it goes when the server value goes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything the server has logged, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(60)..];
        format!("--- end of the server's log\n{}\n---", tail.join("\n"))
    }

    fn data_path(&self) -> PathBuf {
        let own = || self.folder.path().join("data");
        self.options.data.clone().unwrap_or_else(own)
    }

    fn config_path(&self) -> PathBuf {
        self.folder.path().join("server.conf")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// A port that [`TestServer::launch`] has made sure of.
    fn port(&self, face: &str) -> u16 {
        self.ports
            .of(face)
            .expect("a started server has listed the ports it needs")
    }

    fn launch(&mut self) -> Result<()> {
        let ports_folder = self.folder.path().join("ports");
        self.spawn(&ports_folder)?;
        self.ports = self.wait_until_ready(&ports_folder)?;
        if self.options.kind == ServerKind::Reference
            && self.options.memphis
            && self.control_plane.is_none()
        {
            self.start_control_plane()?;
        }
        Ok(())
    }

    fn spawn(&mut self, ports_folder: &Path) -> Result<()> {
        // A killed server leaves its ports file, which would be taken for the new one's.
        let _: Result<(), _> = fs::remove_dir_all(ports_folder);
        fs::create_dir(ports_folder)?;

        let mut command = match self.options.kind {
            ServerKind::Menes => self.menes_command()?,
            ServerKind::Reference => self.reference_command()?,
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        command
            .args([
                "-a",
                "127.0.0.1",
                "-p",
                &self.wanted("nats"),
                "-m",
                &self.wanted("monitoring"),
            ])
            .args(if self.options.is_plain {
                &[][..]
            } else {
                &["-js"][..]
            })
            .arg("-sd")
            .arg(self.data_path())
            .arg("--ports_file_dir")
            .arg(ports_folder)
            .args(&self.options.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = command.spawn().with_context(|| {
            format!(
                "cannot start {}",
                Path::new(command.get_program()).display()
            )
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn menes_command(&self) -> Result<Command> {
        let mut command = Command::new(menes_binary()?);
        let login = self.login();
        if self.options.is_plain {
            let path = self.config_path();
            fs::write(&path, self.reference_config())?;
            command.arg("-c").arg(path);
            return Ok(command);
        }
        command.arg("serve");
        match &self.options.config {
            Some(text) => {
                let path = self.config_path();
                fs::write(&path, text)?;
                command.arg("-c").arg(path);
            }
            None => {
                command.args(["--user", &login.user, "--pass", &login.password]);
            }
        }
        command
            .args(["--memphis_port", &self.wanted("memphis")])
            .args(["--ws_port", &self.wanted("websocket")])
            .args(["--rest_port", &self.wanted("rest")])
            .args(["--api_port", &self.wanted("management")])
            .args(["--metrics_port", &self.wanted("metrics")]);
        Ok(command)
    }

    fn reference_command(&self) -> Result<Command> {
        let path = self.config_path();
        fs::write(&path, self.reference_config())?;
        let mut command = Command::new(Tools::find()?.path("nats_server")?);
        command.arg("-c").arg(path);
        Ok(command)
    }

    fn reference_config(&self) -> String {
        if let Some(text) = &self.options.config {
            return text.clone();
        }
        let mut config = self.login().section();
        if self.options.websocket {
            let port = self.wanted("websocket");
            config += &format!("websocket {{ host: \"127.0.0.1\", port: {port}, no_tls: true }}\n");
        }
        config
    }

    /// The port to ask for: the former one after a restart, else any free one.
    fn wanted(&self, face: &str) -> String {
        self.ports
            .of(face)
            .map_or_else(|| "-1".into(), |port| port.to_string())
    }

    fn wait_until_ready(&mut self, ports_folder: &Path) -> Result<Ports> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(ports) = Ports::read(ports_folder) {
                self.check_faces(&ports)?;
                if accepts(ports.of("nats").expect("checked just now")) {
                    return Ok(ports);
                }
            }
            let process = self.process.as_mut().expect("launched just now");
            if let Some(status) = process.try_wait()? {
                self.process = None;
                bail!("the server ended at start: {status}\n{}", self.log_tail());
            }
            if Instant::now() >= deadline {
                bail!(
                    "the server was not ready after {START_LIMIT:?}\n{}",
                    self.log_tail()
                );
            }
            thread::sleep(POLL);
        }
    }

    fn check_faces(&self, ports: &Ports) -> Result<()> {
        let menes_memphis = self.options.memphis && self.options.kind == ServerKind::Menes;
        let needed = [
            ("nats", true),
            ("websocket", self.options.websocket),
            ("memphis", menes_memphis),
        ];
        for (face, is_needed) in needed {
            if is_needed && ports.of(face).is_none() {
                bail!("the server's ports file lists no {face:?}: {ports:?}");
            }
        }
        Ok(())
    }

    fn start_control_plane(&mut self) -> Result<()> {
        let login = self.login();
        let ready = self.folder.path().join("control-plane.ready");
        let child = Command::new(Tools::find()?.path("python")?)
            .arg(clients().join("reference/control_plane.py"))
            .arg(&ready)
            .env("NATS_URL", self.url())
            .env("NATS_USER", &login.user)
            .env("NATS_PASSWORD", &login.password)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.folder.path().join("control-plane.log"))?)
            .spawn()
            .context("cannot start the control plane")?;
        self.control_plane = Some(child);
        let deadline = Instant::now() + START_LIMIT;
        while !ready.exists() {
            if Instant::now() >= deadline {
                let path = self.folder.path().join("control-plane.log");
                bail!(
                    "no control plane: {}",
                    fs::read_to_string(path).unwrap_or_default()
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        for mut child in [self.process.take(), self.control_plane.take()]
            .into_iter()
            .flatten()
        {
            // Both fail only for a child that has ended already, which is what is wanted.
            let _: Result<(), _> = child.kill();
            let _: Result<ExitStatus, _> = child.wait();
        }
    }
}

fn accepts(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

fn pid_of(process: &Child) -> Pid {
    i32::try_from(process.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a child has a process id")
}

/// `MENES_BIN`, or the `menes` that cargo built beside this test binary.
///
/// # Errors
/// When there is none, with what to do.
pub fn menes_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("MENES_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let test_binary = std::env::current_exe()?;
            let profile = test_binary
                .ancestors()
                .nth(2)
                .context("test binaries lie in deps/")?;
            profile.join("menes")
        }
    };
    if !path.is_file() {
        bail!(
            "no server at {}: run `cargo build -p menes-cli`, or set MENES_BIN",
            path.display()
        );
    }
    Ok(path)
}
