//! The real executable, started on free ports of the loopback address.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest time anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The executable.
pub(crate) fn menes() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_menes"))
}

/// A server that ends with its owner.
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Server {
    /// Starts `program` with these arguments and reads its log.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the executable starts");
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn ready(program: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::start(program, arguments);
        server.wait_for("Server is ready");
        server
    }

    /// The first line that contains `text`, among those seen or still to come.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no line with {text:?} in:\n{}", self.seen.join("\n"));
                }
            }
        }
    }

    /// All lines until now.
    pub(crate) fn log(&self) -> String {
        self.seen.join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end; gives how it ended and its whole log.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + LIMIT;
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line);
        }
        assert!(
            Instant::now() < deadline,
            "it does not end:\n{}",
            self.log()
        );
        let status = self.child.wait().expect("it is ours");
        (status, self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The ports file in this folder.
pub(crate) fn ports_file(folder: &Path) -> Option<(PathBuf, serde_json::Value)> {
    let entry = std::fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .find(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "ports")
        })?;
    let text = std::fs::read_to_string(entry.path()).expect("readable");
    Some((
        entry.path(),
        serde_json::from_str(&text).expect("a document"),
    ))
}

/// Host and port of the first URL of this kind.
pub(crate) fn address(ports: &serde_json::Value, kind: &str) -> String {
    let url = ports[kind][0]
        .as_str()
        .unwrap_or_else(|| panic!("no {kind} in {ports}"));
    url.split_once("://").expect("a URL").1.to_owned()
}

/// A connection that is read line by line.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        Self {
            reader: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.reader
            .get_mut()
            .write_all(text.as_bytes())
            .expect("it takes bytes");
    }

    /// The next line, without its end; empty at the end of the connection.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("in time");
        line.trim_end().to_owned()
    }

    /// The next line that begins with `text`.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the connection ended before {text:?}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Everything until the connection ends.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = Vec::new();
        self.reader.read_to_end(&mut text).expect("in time");
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("in time");
        bytes
    }
}

/// Status line and body of a request.
pub(crate) fn http(address: &str, request: &str) -> (String, String) {
    let mut client = Client::connect(address);
    client.send(&format!(
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    ));
    let answer = client.rest();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (
        head.lines().next().unwrap_or_default().to_owned(),
        body.to_owned(),
    )
}
