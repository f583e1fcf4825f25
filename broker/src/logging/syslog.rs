//! Lines for a syslog, local or remote, in the form Go's library sends them in.

use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::Level;

use super::local_now;

/// Where the local syslog listens.
const LOCAL: &[&str] = &["/dev/log", "/var/run/syslog", "/var/run/log"];
/// Facility of the local syslog: a system daemon.
const DAEMON: u8 = 3 << 3;
/// Longest time a remote syslog may hold the log up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which syslog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// That of this machine.
    Local,
    /// `udp://host:port`
    Udp(String),
    /// `tcp://host:port`
    Tcp(String),
    /// `unix:///path`
    Unix(PathBuf),
}

impl SyslogTarget {
    /// Reads the URL of a remote syslog.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let has_port = || {
            let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(_)))
        };
        match scheme {
            "udp" if has_port() => Ok(Self::Udp(rest.to_owned())),
            "tcp" if has_port() => Ok(Self::Tcp(rest.to_owned())),
            "unix" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            "udp" | "tcp" => Err(format!("{url:?} needs a host and a port")),
            _ => Err(format!(
                "error invalid network type: {scheme:?}; udp://host:port, tcp://host:port and \
                 unix:///path are known"
            )),
        }
    }
}

/// A syslog, connected.
#[derive(Debug)]
pub(super) struct Connection {
    target: SyslogTarget,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Datagram(UnixDatagram),
    Stream(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Connection {
    pub(super) fn open(target: &SyslogTarget) -> io::Result<Self> {
        Ok(Self {
            socket: connect(target)?,
            target: target.clone(),
        })
    }

    /// Sends a line. One that cannot be sent, after another attempt to connect, is lost: the log
    /// must not stop the server.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.send(line).is_err()
            && let Ok(socket) = connect(&self.target)
        {
            self.socket = socket;
            drop(self.send(line));
        }
        Ok(line.len())
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Datagram(socket) => socket.send(line).map(drop),
            Socket::Udp(socket) => socket.send(line).map(drop),
            Socket::Stream(socket) => socket.write_all(line),
            Socket::Tcp(socket) => socket.write_all(line),
        }
    }
}

fn connect(target: &SyslogTarget) -> io::Result<Socket> {
    match target {
        SyslogTarget::Local => {
            let found = LOCAL.iter().find_map(|path| unix(Path::new(path)).ok());
            found.ok_or_else(|| io::Error::other("Unix syslog delivery error"))
        }
        SyslogTarget::Unix(path) => unix(path),
        SyslogTarget::Udp(address) => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(address)?;
            Ok(Socket::Udp(socket))
        }
        SyslogTarget::Tcp(address) => {
            let socket = TcpStream::connect(address)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Socket::Tcp(socket))
        }
    }
}

fn unix(path: &Path) -> io::Result<Socket> {
    let datagram = UnixDatagram::unbound().and_then(|socket| {
        socket.connect(path)?;
        Ok(Socket::Datagram(socket))
    });
    datagram.or_else(|_| {
        let socket = UnixStream::connect(path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Socket::Stream(socket))
    })
}

/// What every line to a syslog begins with.
#[derive(Clone, Debug)]
pub(super) struct Header {
    is_local: bool,
    host: String,
    tag: String,
}

impl Header {
    pub(super) fn new(target: &SyslogTarget) -> Self {
        let called = std::env::args_os().next().map(PathBuf::from);
        let name = called.as_deref().and_then(Path::file_name);
        Self {
            is_local: matches!(target, SyslogTarget::Local),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            tag: name.map_or_else(
                || "menes".into(),
                |name| name.to_string_lossy().into_owned(),
            ),
        }
    }

    pub(super) fn write(
        &self,
        writer: &mut impl std::fmt::Write,
        level: Level,
        is_fatal: bool,
    ) -> std::fmt::Result {
        let severity = severity(level, is_fatal);
        let (tag, pid) = (&self.tag, std::process::id());
        if self.is_local {
            let time = local_now().strftime("%b %e %H:%M:%S");
            write!(writer, "<{}>{time} {tag}[{pid}]: ", DAEMON | severity)
        } else {
            let time = local_now().strftime("%Y-%m-%dT%H:%M:%S%:z");
            write!(writer, "<{severity}>{time} {} {tag}[{pid}]: ", self.host)
        }
    }
}

fn severity(level: Level, is_fatal: bool) -> u8 {
    match level {
        _ if is_fatal => 2,
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO | Level::TRACE => 5,
        Level::DEBUG => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_which_syslog() {
        let parse = SyslogTarget::parse;
        assert_eq!(parse("udp://h:514"), Ok(SyslogTarget::Udp("h:514".into())));
        assert_eq!(
            parse("tcp://[::1]:514"),
            Ok(SyslogTarget::Tcp("[::1]:514".into()))
        );
        assert_eq!(
            parse("unix:///dev/log"),
            Ok(SyslogTarget::Unix("/dev/log".into()))
        );
        for url in [
            "",
            "h:514",
            "http://h:514",
            "udp://h",
            "tcp://h:x",
            "unix://",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_syslog_that_comes_back_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let listen = || {
            let socket = UnixDatagram::bind(&path).expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("an option");
            socket
        };
        let heard = |socket: &UnixDatagram| {
            let mut bytes = [0; 100];
            let count = socket.recv(&mut bytes).expect("a line");
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        let first = listen();
        let mut connection = Connection::open(&SyslogTarget::Unix(path.clone())).expect("there");
        connection.write(b"one").expect("never fails");
        assert_eq!(heard(&first), "one");
        drop(first);
        std::fs::remove_file(&path).expect("there");
        connection.write(b"lost").expect("never fails");
        let second = listen();
        connection.write(b"two").expect("never fails");
        assert_eq!(heard(&second), "two");
    }

    #[test]
    fn lines_begin_as_those_of_go() {
        let mut line = String::new();
        let header = Header {
            is_local: false,
            host: "h".into(),
            tag: "t".into(),
        };
        header.write(&mut line, Level::WARN, false).expect("text");
        assert!(line.starts_with("<4>20"), "{line}");
        assert!(
            line.ends_with(&format!(" h t[{}]: ", std::process::id())),
            "{line}"
        );
        let mut line = String::new();
        let header = Header {
            is_local: true,
            ..header
        };
        header.write(&mut line, Level::INFO, false).expect("text");
        assert!(line.starts_with("<29>"), "{line}");
    }
}
