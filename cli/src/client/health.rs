//! `menes health`: is a server there, for probes and people. Nobody has to log in for it.
//!
//! A server that listens says who it is before anything else. It is *live* when it does so, and
//! *ready* when it takes clients: it is not on its way out, and, where its monitoring can be
//! reached, that says so too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::{Value, json};

use super::output::Output;
use super::{Outcome, Trouble};

/// Longest line that a server may open with.
const MAX_LINE: u64 = 64 * 1024;
/// Port of clients where the URL names none.
const PORT: u16 = 4222;
/// Where monitoring is unless said otherwise.
const MONITORING: &str = "http://127.0.0.1:8222";

#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// Only whether it runs
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Whether it takes clients: the same as without
    #[arg(long)]
    ready: bool,
    /// Its monitoring; http://127.0.0.1:8222, if that answers, unless said otherwise
    #[arg(long, value_name = "URL")]
    monitoring: Option<String>,
}

/// Looks at the server at `url`.
pub(super) fn run(output: &Output, command: &Health, url: &str, timeout: Duration) -> Outcome {
    let info = greeting(url, timeout)?;
    let name = info["server_name"].as_str().unwrap_or_default();
    if command.live {
        let text = format!("live: {name} at {url}");
        return output.done(&text, &json!({"status": "live", "server": name}));
    }
    if info["ldm"] == true {
        let text = format!("{url}: {name} is on its way out and takes no new clients");
        return Err(Trouble::Failed(text));
    }
    let monitoring = command.monitoring.as_deref();
    match healthz(monitoring.unwrap_or(MONITORING), timeout) {
        Ok(200) => {}
        Ok(status) => {
            let text = format!("{url}: {name} says that it is not healthy (status {status})");
            return Err(Trouble::Failed(text));
        }
        // Somebody who names it means it.
        Err(error) if monitoring.is_some() => return Err(Trouble::Unreachable(error)),
        Err(_) => {}
    }
    let text = format!("ready: {name} at {url}");
    output.done(&text, &json!({"status": "ready", "server": name}))
}

/// Host and port of a URL such as `nats://user@host:4222`.
fn place(url: &str, port: u16) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', '?', ',']).next().unwrap_or(rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let has_port = match host.rfind(']') {
        Some(end) => host[end..].contains(':'),
        None => host.contains(':'),
    };
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

fn connect(place: &str, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("no such host");
    for address in place.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What a server says first.
fn greeting(url: &str, timeout: Duration) -> Outcome<Value> {
    let unreachable = |what: String| Trouble::Unreachable(format!("{url}: {what}"));
    let stream =
        connect(&place(url, PORT), timeout).map_err(|error| unreachable(error.to_string()))?;
    let mut line = String::new();
    BufReader::new(stream)
        .take(MAX_LINE)
        .read_line(&mut line)
        .map_err(|error| unreachable(error.to_string()))?;
    let document = line.strip_prefix("INFO ").map(str::trim);
    document
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| unreachable("it is no server of this kind".to_owned()))
}

/// The status of `/healthz`.
fn healthz(url: &str, timeout: Duration) -> Result<u16, String> {
    let place = place(url, 8222);
    let failed = |error: std::io::Error| format!("{url}: {error}");
    let mut stream = connect(&place, timeout).map_err(failed)?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream)
        .take(MAX_LINE)
        .read_line(&mut line)
        .map_err(failed)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.ok_or_else(|| format!("{url}: it does not speak HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_look() {
        for (url, host) in [
            ("nats://127.0.0.1:4333", "127.0.0.1:4333"),
            ("broker", "broker:4222"),
            ("tls://me:p@broker", "broker:4222"),
            ("nats://[::1]", "[::1]:4222"),
            ("nats://[::1]:5,nats://b", "[::1]:5"),
            ("http://a/b", "a:4222"),
        ] {
            assert_eq!(place(url, PORT), host, "{url}");
        }
    }
}
