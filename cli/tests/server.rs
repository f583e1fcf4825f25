//! What people and test harnesses see of the executable.

mod common;

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Client, Server, address, http, menes, ports_file};
use rustix::process::Signal;

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1}\r\nPING\r\n";

/// The executable under the name of nats-server.
fn as_nats_server(folder: &Path) -> PathBuf {
    let link = folder.join("nats-server");
    symlink(menes(), &link).expect("a link");
    link
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

#[test]
fn a_harness_of_nats_server_finds_everything_it_waits_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = text(folder.path());
    let pid_file = folder.path().join("pid");
    let mut server = Server::ready(
        &as_nats_server(folder.path()),
        &[
            "-a",
            "127.0.0.1",
            "-p",
            "-1",
            "-m",
            "-1",
            "-js",
            "-sd",
            dir,
            "-P",
            text(&pid_file),
            "--ports_file_dir",
            dir,
            "-n",
            "a",
        ],
    );
    let line = server.wait_for("Listening for client connections on ");
    let (path, ports) = ports_file(folder.path()).expect("written before it is ready");
    let client = address(&ports, "nats");
    assert!(line.ends_with(&client), "{line}");
    let name = format!("nats-server_{}.ports", server.pid());
    assert_eq!(
        path.file_name().and_then(|name| name.to_str()),
        Some(name.as_str())
    );
    assert_eq!(
        std::fs::read_to_string(&pid_file).expect("written"),
        server.pid().to_string()
    );
    let line = server.wait_for("Store Directory:");
    assert!(
        line.contains(&format!("  Store Directory: \"{dir}/jetstream\"")),
        "{line}"
    );
    assert!(server.wait_for("Version:").ends_with("  Version:  2.14.6"));
    assert!(server.wait_for("Name:").ends_with("  Name:     a"));
    assert!(server.wait_for("ID:").contains("  ID:       N"));

    let info = Client::connect(&client).line();
    assert!(
        info.starts_with("INFO {") && info.contains("\"jetstream\":true"),
        "{info}"
    );
    let monitor = address(&ports, "monitoring");
    assert!(
        server
            .wait_for("Starting http monitor on ")
            .ends_with(&monitor)
    );
    let (status, body) = http(&monitor, "GET /varz");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains("\"version\": \"2.14.6\""), "{body}");
    assert_eq!(http(&monitor, "GET /healthz").1, "{\"status\":\"ok\"}");
    assert_eq!(
        http(&monitor, "POST /varz").0,
        "HTTP/1.1 405 Method Not Allowed"
    );

    let start = Instant::now();
    server.signal(Signal::TERM);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(start.elapsed() < Duration::from_secs(10), "{log}");
    assert!(
        log.contains("Initiating Shutdown...") && log.contains("Server Exiting.."),
        "{log}"
    );
    assert!(
        ports_file(folder.path()).is_none(),
        "it goes with the server"
    );
    assert!(pid_file.exists(), "it stays");
}

#[test]
fn as_nats_server_only_what_was_asked_for_is_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = as_nats_server(folder.path());
    let mut server = Server::ready(&link, &["-a", "127.0.0.1", "-p", "-1"]);
    server.signal(Signal::INT);
    server.wait_for("Server Exiting..");
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0));
    assert_eq!(log.matches("Listening for").count(), 1, "{log}");
    assert!(
        !log.contains("http monitor") && !log.contains("JetStream"),
        "{log}"
    );
}

#[test]
fn menes_serve_opens_every_door_and_says_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = text(folder.path());
    let mut server = Server::ready(
        menes(),
        &[
            "serve",
            "-a",
            "127.0.0.1",
            "-p",
            "-1",
            "--memphis_port",
            "-1",
            "--ws_port",
            "-1",
            "--rest_port",
            "-1",
            "--api_port",
            "-1",
            "--metrics_port",
            "-1",
            "-m",
            "-1",
            "--data",
            &format!("{dir}/data"),
            "--ports_file_dir",
            dir,
        ],
    );
    let (_, ports) = ports_file(folder.path()).expect("written");
    for door in ["nats", "memphis"] {
        let info = Client::connect(&address(&ports, door)).line();
        assert!(info.starts_with("INFO {"), "{info}");
    }
    let websocket = address(&ports, "websocket");
    assert!(
        server
            .wait_for("websocket clients on ws://")
            .ends_with(&websocket)
    );
    assert!(
        server
            .wait_for("  clients      nats://")
            .ends_with(&address(&ports, "nats"))
    );
    server.wait_for("  Memphis SDKs ");
    server.wait_for("  WebSocket    ws://");
    server.wait_for("  monitoring   http://");

    // In a frame of its own: the INFO of this listener.
    let mut client = Client::connect(&websocket);
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: {websocket}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ));
    assert!(client.line().starts_with("HTTP/1.1 101 "));
    while !client.line().is_empty() {}
    let head = client.bytes(4);
    assert_eq!(
        head[..2],
        [0x82, 126],
        "a binary frame with two bytes of length"
    );
    let payload = client.bytes(usize::from(u16::from_be_bytes([head[2], head[3]])));
    let info = String::from_utf8(payload).expect("text");
    let port = websocket.rsplit_once(':').expect("a port").1;
    assert!(
        info.starts_with("INFO {") && info.contains(&format!("\"port\":{port}")),
        "{info}"
    );
    let (_, connz) = http(&address(&ports, "monitoring"), "GET /connz");
    assert!(connz.contains("\"type\": \"websocket\""), "{connz}");
}

#[test]
fn a_bad_configuration_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.conf");
    std::fs::write(&file, "port: -1\nnonsense: 1\n").expect("written");
    for arguments in [vec!["-c", text(&file)], vec!["-t", "-c", text(&file)]] {
        let (status, log) = Server::start(menes(), &arguments).ended();
        assert_eq!(status.code(), Some(1));
        assert_eq!(
            log,
            format!("menes: {}:2:1: unknown field \"nonsense\"", file.display())
        );
    }
}

#[test]
fn a_good_configuration_is_valid_and_has_a_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("good.conf");
    std::fs::write(&file, "port: 4222\n").expect("written");
    let link = as_nats_server(folder.path());
    let (status, log) = Server::start(&link, &["-t", "-c", text(&file)]).ended();
    assert_eq!(status.code(), Some(0));
    let expected = format!(
        "nats-server: configuration file {} is valid (sha256:",
        file.display()
    );
    assert!(log.starts_with(&expected), "{log}");
}

#[test]
fn a_port_in_use_ends_the_start_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    for arguments in [
        vec!["-a", "127.0.0.1", "-p", &port],
        vec!["-a", "127.0.0.1", "-p", "-1", "-m", &port],
    ] {
        let (status, log) = Server::start(menes(), &arguments).ended();
        assert_eq!(status.code(), Some(1), "{log}");
        let line = log
            .lines()
            .find(|line| line.contains("[FTL]"))
            .expect("a fatal line");
        assert!(
            line.contains(&format!("stop the program that uses port {port}")),
            "{line}"
        );
        assert_eq!(log.matches("[FTL]").count(), 1);
    }
}

#[test]
fn a_folder_that_cannot_be_written_ends_the_start_and_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").expect("written");
    let arguments = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", text(&file)];
    let (status, log) = Server::start(menes(), &arguments).ended();
    assert_eq!(status.code(), Some(1), "{log}");
    let line = log
        .lines()
        .find(|line| line.contains("[FTL]"))
        .expect("a fatal line");
    assert!(
        line.contains(text(&file)) && line.contains("--store_dir"),
        "{line}"
    );
}

#[test]
fn a_reload_changes_the_log_and_the_users_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = text(folder.path());
    let file = folder.path().join("a.conf");
    let write = |more: &str| {
        let users = format!("authorization {{ user: ada, pass: one }}\n{more}");
        std::fs::write(&file, users).expect("written");
    };
    write("");
    let mut server = Server::ready(
        menes(),
        &[
            "-c",
            text(&file),
            "-a",
            "127.0.0.1",
            "-p",
            "-1",
            "--ports_file_dir",
            dir,
        ],
    );
    let (_, ports) = ports_file(folder.path()).expect("written");
    let mut client = Client::connect(&address(&ports, "nats"));
    client.send("CONNECT {\"verbose\":false,\"user\":\"ada\",\"pass\":\"one\"}\r\nPING\r\n");
    client.line_with("PONG");

    write("debug: true");
    server.signal(Signal::HUP);
    server.wait_for("Reloaded: debug = true");
    server.wait_for("Reloaded server configuration (sha256:");

    write("server_name: other");
    server.signal(Signal::HUP);
    let line = server.wait_for("Failed to reload server configuration");
    assert!(
        line.contains("config reload not supported for ServerName"),
        "{line}"
    );

    std::fs::write(
        &file,
        "authorization { user: ada, pass: two }\ndebug: true\n",
    )
    .expect("written");
    server.signal(Signal::HUP);
    server.wait_for("Reloaded: authorization");
    client.line_with("-ERR 'Authorization Violation'");
    assert!(!server.log().contains("two"), "secrets are not logged");
}

#[test]
fn the_log_file_is_opened_again_when_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = text(folder.path());
    let log = folder.path().join("log");
    let server = Server::start(
        menes(),
        &[
            "-a",
            "127.0.0.1",
            "-p",
            "-1",
            "-l",
            text(&log),
            "--ports_file_dir",
            dir,
        ],
    );
    wait_until(|| std::fs::read_to_string(&log).is_ok_and(|text| text.contains("Server is ready")));
    std::fs::rename(&log, folder.path().join("old")).expect("moved");
    server.signal(Signal::USR1);
    wait_until(|| {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("File log re-opened"))
    });
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0.code(), Some(0));
    assert!(
        std::fs::read_to_string(&log)
            .expect("there")
            .contains("Server Exiting..")
    );
}

/// Nobody tells when a file changes: looks again, for a bounded time.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_lame_duck_sends_its_clients_away_and_ends_when_they_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = text(folder.path());
    let mut server = Server::ready(
        menes(),
        &["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", dir],
    );
    let (_, ports) = ports_file(folder.path()).expect("written");
    let mut client = Client::connect(&address(&ports, "nats"));
    client.send(CONNECT);
    client.line_with("PONG");
    server.signal(Signal::USR2);
    server.wait_for("Entering lame duck mode, stop accepting new clients");
    client.line_with("\"ldm\":true");
    // Ending already: a polite request changes nothing.
    server.signal(Signal::TERM);
    client.send("PING\r\n");
    client.line_with("PONG");
    drop(client);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("Server Exiting.."), "{log}");
}

#[test]
fn versions_and_help_go_to_standard_output() {
    let output = |arguments: &[&str]| {
        let output = Command::new(menes())
            .args(arguments)
            .output()
            .expect("it runs");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(output(&["-v"]), "nats-server: v2.14.6\n");
    assert!(output(&["version"]).starts_with("menes "));
    assert!(output(&["help"]).contains("menes serve"));
    assert!(output(&["serve", "--help"]).contains("--memphis_port"));
    let unknown = Command::new(menes())
        .arg("frobnicate")
        .output()
        .expect("it runs");
    assert_eq!(unknown.status.code(), Some(2), "wrong use");
}

/// Starts a server with data in `folder`; also what it prints.
fn printing(face: &str, folder: &Path, more: &[&str]) -> (Server, String) {
    let dir = text(folder);
    let (data, printed) = (format!("{dir}/data"), format!("{dir}/printed"));
    let mut arguments = vec!["-c", "out=$1; shift; exec \"$@\" >\"$out\"", "sh", &printed];
    arguments.extend([text(menes()), face, "-p", "-1", "--data", &data]);
    arguments.extend(["--ports_file_dir", dir]);
    for port in [
        "--memphis_port",
        "--ws_port",
        "--rest_port",
        "--api_port",
        "--metrics_port",
        "-m",
    ] {
        arguments.extend([port, "-1"]);
    }
    if face == "serve" {
        arguments.extend(["-a", "127.0.0.1"]);
    }
    arguments.extend(more);
    let server = Server::ready(Path::new("/bin/sh"), &arguments);
    let printed = std::fs::read_to_string(&printed).expect("readable");
    (server, printed)
}

/// What the server says to these credentials.
fn log_in(folder: &Path, credentials: &str) -> String {
    let (_, ports) = ports_file(folder).expect("written");
    let mut client = Client::connect(&address(&ports, "nats"));
    client.line_with("INFO");
    client.send(&format!(
        "CONNECT {{\"verbose\":false{credentials}}}\r\nPING\r\n"
    ));
    client.line()
}

fn as_root(password: &str) -> String {
    format!(",\"user\":\"root\",\"pass\":\"{password}\"")
}

fn stop(server: Server) -> String {
    server.signal(Signal::TERM);
    let (status, log) = server.ended();
    assert!(status.success(), "{log}");
    log
}

#[test]
fn the_first_start_makes_root_and_says_its_password_once() {
    const REFUSED: &str = "-ERR 'Authorization Violation'";
    let folder = tempfile::tempdir().expect("a folder");
    let (server, printed) = printing("serve", folder.path(), &[]);
    let password = printed
        .lines()
        .find_map(|line| line.split_once("with the password  "))
        .map(|(_, password)| password.trim().to_owned())
        .expect("a password is printed");
    assert_eq!(log_in(folder.path(), &as_root(&password)), "PONG");
    // Again, by what is remembered.
    assert_eq!(log_in(folder.path(), &as_root(&password)), "PONG");
    assert_eq!(log_in(folder.path(), &as_root("wrong")), REFUSED);
    assert_eq!(log_in(folder.path(), ""), REFUSED);
    let log = stop(server);
    assert!(!log.contains(&password), "the log has the password");

    let (server, printed) = printing("serve", folder.path(), &[]);
    assert_eq!(printed, "");
    assert_eq!(log_in(folder.path(), &as_root(&password)), "PONG");
    assert_eq!(log_in(folder.path(), ""), REFUSED);
    stop(server);

    // A user of the command line is enough, and root goes on.
    let (server, printed) = printing("serve", folder.path(), &["--user", "ops", "--pass", "p"]);
    assert_eq!(printed, "");
    assert_eq!(
        log_in(folder.path(), ",\"user\":\"ops\",\"pass\":\"p\""),
        "PONG"
    );
    assert_eq!(
        log_in(folder.path(), ",\"user\":\"ops$1\",\"pass\":\"p\""),
        "PONG"
    );
    assert_eq!(
        log_in(folder.path(), ",\"user\":\"ops$2\",\"pass\":\"p\""),
        REFUSED
    );
    assert_eq!(log_in(folder.path(), &as_root(&password)), "PONG");
    stop(server);

    // For one machine, nobody has to log in, but who says to be root has to be.
    let (server, printed) = printing("dev", folder.path(), &[]);
    assert_eq!(printed, "");
    assert_eq!(log_in(folder.path(), ""), "PONG");
    assert_eq!(log_in(folder.path(), &as_root(&password)), "PONG");
    assert_eq!(log_in(folder.path(), &as_root("wrong")), REFUSED);
    let (_, ports) = ports_file(folder.path()).expect("written");
    assert!(address(&ports, "nats").starts_with("127.0.0.1:"));
    stop(server);
}
