//! The two servers a sequence is played to.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::generate::Flavour;
use crate::ports::Ports;

const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// Small limits, so that sequences reach them.
const OPEN: &str = "
max_payload: 1024
max_control_line: 512
max_subscriptions: 40
max_subscription_tokens: 6
";

/// The same with users. No rule allows `b.*`: the reference takes it to allow `b.>` as well, which
/// Menes refuses.
const USERS: &str = r#"
max_payload: 1024
max_control_line: 512
no_auth_user: full
authorization {
  users: [
    {user: full, password: full}
    {user: limited, password: limited, permissions: {
      publish: {allow: ["a.>", "*.b", "r.*"], deny: ["a.a.>", "a.b"]}
      subscribe: {allow: ["a.>", "b.>", "r.>", "q.> g1", "q.> *.g"], deny: ["a.b.>", "b.a", "b.> g2"]}
      allow_responses: {max: 2, expires: "10m"}
    }}
    {user: deny, password: deny, permissions: {publish: {deny: ["a.*", "b"]}, subscribe: {deny: ["a", "*.b.c", "> g3"]}}}
  ]
}
"#;

/// A server and its folder.
#[derive(Debug)]
struct Server {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl Server {
    fn start(binary: &Path, flavour: Flavour) -> Result<Self> {
        let folder = TempDir::with_prefix("menes-differential-")?;
        let at = |name: &str| folder.path().join(name);
        let config = at("server.conf");
        let rules = match flavour {
            Flavour::Open => OPEN,
            Flavour::Users => USERS,
            Flavour::Streams => "",
        };
        fs::write(&config, rules)?;
        fs::create_dir(at("ports"))?;
        let log = File::create(at("server.log"))?;
        // The name tells Menes which face to show.
        let name = at("nats-server");
        std::os::unix::fs::symlink(fs::canonicalize(binary)?, &name)?;
        let mut command = Command::new(name);
        if flavour == Flavour::Streams {
            command.arg("-js").arg("-sd").arg(at("data"));
        }
        let process = command
            .args(["-a", "127.0.0.1", "-p", "-1", "-c"])
            .arg(&config)
            .arg("--ports_file_dir")
            .arg(at("ports"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut server = Self {
            process,
            folder,
            port: 0,
        };
        server.port = server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<u16> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let ports = Ports::read(&self.folder.path().join("ports"));
            if let Some(port) = ports.and_then(|ports| ports.of("nats")) {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                if TcpStream::connect(address).is_ok() {
                    return Ok(port);
                }
            }
            if self.process.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("server.log"))?;
                bail!("the server did not start:\n{log}");
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a child that has ended already, which is what is wanted.
        let _: Result<(), _> = self.process.kill();
        let _: Result<ExitStatus, _> = self.process.wait();
    }
}

/// The reference and the server under test, set up alike.
#[derive(Debug)]
pub struct Pair {
    reference: Server,
    tested: Server,
}

impl Pair {
    /// Starts both.
    ///
    /// # Errors
    ///
    /// If one does not start; with its log.
    pub fn start(reference: &Path, tested: &Path, flavour: Flavour) -> Result<Self> {
        Ok(Self {
            reference: Server::start(reference, flavour)?,
            tested: Server::start(tested, flavour)?,
        })
    }

    /// Where the reference listens.
    #[must_use]
    pub fn reference(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.reference.port))
    }

    /// Where the server under test listens.
    #[must_use]
    pub fn tested(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.tested.port))
    }

    /// Where the logs are, the reference's first.
    #[must_use]
    pub fn logs(&self) -> [PathBuf; 2] {
        [&self.reference, &self.tested].map(|server| server.folder.path().join("server.log"))
    }

    /// Whether the server under test still runs.
    ///
    /// # Errors
    ///
    /// If it ended; with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.tested.process.try_wait()? {
            let log = fs::read_to_string(&self.logs()[1])?;
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            bail!("the server under test ended: {status}\n{}", tail.join("\n"));
        }
        Ok(())
    }
}
