//! A server in trouble: its disk full, its log damaged. It says what is wrong, keeps what it
//! acknowledged, and goes on where it can.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use menes_compat_tests::{Login, ServerOptions, TestServer, connect, menes_binary};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long a server may take to come up, or to notice that there is space again.
const LIMIT: Duration = Duration::from_secs(20);

/// Messages enough to be found in the log, and time enough for the log to note that they are synced.
async fn publish(server: &TestServer, count: u64) -> Result<()> {
    let context = jetstream::new(connect::connect(server).await?);
    let config = stream::Config {
        name: "T".into(),
        subjects: vec!["t.>".into()],
        ..Default::default()
    };
    context.get_or_create_stream(config).await?;
    for n in 0..count {
        context
            .publish("t.a", format!("message {n}").into())
            .await?
            .await?;
    }
    sleep(Duration::from_millis(200)).await;
    Ok(())
}

async fn stored(server: &TestServer) -> Result<u64> {
    let context = jetstream::new(connect::connect(server).await?);
    Ok(context.get_stream("T").await?.cached_info().state.messages)
}

#[tokio::test]
async fn a_damaged_log_is_refused_by_name_and_nothing_is_cut() -> Result<()> {
    let mut server = TestServer::start(ServerOptions::default())?;
    publish(&server, 200).await?;
    server.kill_9()?;
    let segment = first_segment(server.folder())?;
    let place = find(&segment, b"message 100")?;
    flip(&segment, place)?;
    ensure!(
        server.restart().is_err(),
        "the server started on a damaged log"
    );
    let log = server.log();
    let told = log
        .lines()
        .any(|line| line.contains("[FTL]") && line.contains("log"));
    ensure!(told, "no fatal line names the log:\n{log}");
    flip(&segment, place)?;
    server.restart()?;
    ensure!(stored(&server).await? == 200, "messages are gone");
    Ok(())
}

/// More than one segment of the log holds.
const MEGABYTES: usize = 80;

#[tokio::test]
async fn damage_is_found_before_anybody_meets_it_and_costs_nothing_else() -> Result<()> {
    let options = ServerOptions::default();
    let Login { user, password } = &options.login;
    let config = format!(
        "accounts {{ APP {{ jetstream: enabled, users: [ {{user: {user}, password: {password}}} ] }}\n\
         $SYS {{ users: [ {{user: sys, password: sys}} ] }} }}"
    );
    let mut server = TestServer::start(options.clone().with_config(&config))?;
    let context = jetstream::new(connect::connect(&server).await?);
    let config = stream::Config {
        name: "T".into(),
        subjects: vec!["t.>".into()],
        ..Default::default()
    };
    context.create_stream(config).await?;
    for n in 0..MEGABYTES {
        let mut payload = format!("message {} ", 100 + n).into_bytes();
        payload.resize(1 << 20 >> 1, b'x');
        for _ in 0..2 {
            context
                .publish("t.a", payload.clone().into())
                .await?
                .await?;
        }
    }
    server.stop()?;
    let segment = first_segment(server.folder())?;
    flip(&segment, find(&segment, b"message 101 ")?)?;
    server.restart()?;

    let until = Instant::now() + Duration::from_secs(60);
    let told = loop {
        let health = health(&server)?;
        if health.contains(r#""status":"degraded""#) {
            break health;
        }
        ensure!(Instant::now() < until, "the damage is not found: {health}");
        sleep(Duration::from_millis(200)).await;
    };
    ensure!(told.contains("damaged at offset"), "{told}");
    let is_told = |line: &str| line.contains("[ERR]") && line.contains("is damaged at offset");
    ensure!(server.log().lines().any(is_told), "{}", server.log());
    let system = async_nats::ConnectOptions::with_user_and_password("sys".into(), "sys".into())
        .connect(server.url())
        .await?;
    let mut advisories = system.subscribe("$JS.EVENT.ADVISORY.STORE.>").await?;
    let advisory = timeout(Duration::from_secs(30), advisories.next())
        .await?
        .context("the connection ended")?;
    let text = String::from_utf8_lossy(&advisory.payload).into_owned();
    ensure!(text.contains("damaged at offset"), "{text}");

    let context = jetstream::new(connect::connect(&server).await?);
    let stream = context.get_stream("T").await?;
    ensure!(
        stream.get_raw_message(3).await.is_err(),
        "a damaged message was read"
    );
    for seq in [1, 2, 5, 2 * MEGABYTES as u64] {
        stream.get_raw_message(seq).await?;
    }
    stream.purge().await?;
    context.publish("t.a", "goes on".into()).await?.await?;

    // The segment is not used again.
    let is_aside = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("damaged-"))
    };
    let folder = segment.parent().context("a segment lies in a folder")?;
    while !fs::read_dir(folder)?.any(|entry| entry.is_ok_and(|entry| is_aside(&entry.path()))) {
        ensure!(Instant::now() < until, "the segment is not set aside");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// What the monitoring port says of the server's health.
fn health(server: &TestServer) -> Result<String> {
    let port = server.monitoring_port().context("monitoring is on")?;
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The segment file with the first messages.
fn first_segment(folder: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::metadata(&path)?.len() > 1 << 20 && find(&path, b"message 100").is_ok() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
        .into_iter()
        .next()
        .context("no file holds the messages")
}

fn find(file: &Path, text: &[u8]) -> Result<u64> {
    let mut bytes = Vec::new();
    fs::File::open(file)?
        .take(4 << 20)
        .read_to_end(&mut bytes)?;
    let at = bytes
        .windows(text.len())
        .position(|window| window == text)
        .context("not there")?;
    Ok(at as u64)
}

fn flip(file: &Path, at: u64) -> Result<()> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 1])?;
    Ok(())
}

/// A server whose data lies on a small disk of its own.
struct Small {
    process: Child,
    ports: PathBuf,
    _folder: TempDir,
}

impl Small {
    /// Starts it in a mount namespace, where a memory file system serves as the disk.
    fn start(megabytes: u32) -> Result<Self> {
        let folder = TempDir::with_prefix("menes-small-")?;
        let (disk, ports) = (folder.path().join("disk"), folder.path().join("ports"));
        fs::create_dir(&disk)?;
        fs::create_dir(&ports)?;
        let script = "mount -t tmpfs -o size=$3m tmpfs \"$0\" && exec \"$1\" -a 127.0.0.1 -p -1 \
                      -js -sd \"$0/data\" --ports_file_dir \"$2\" -l \"$2/log\"";
        let process = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .args([disk.as_os_str(), menes_binary()?.as_os_str()])
            .arg(&ports)
            .arg(megabytes.to_string())
            .stdout(Stdio::null())
            .spawn()
            .context("unshare is needed to give the server a small disk of its own")?;
        Ok(Self {
            process,
            ports,
            _folder: folder,
        })
    }

    async fn url(&self) -> Result<String> {
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            for entry in fs::read_dir(&self.ports)? {
                let path = entry?.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "ports")
                {
                    let ports: serde_json::Value =
                        serde_json::from_slice(&fs::read(&path)?).unwrap_or_default();
                    if let Some(url) = ports["nats"][0].as_str() {
                        return Ok(url.to_owned());
                    }
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!(
            "it did not start:\n{}",
            fs::read_to_string(self.ports.join("log")).unwrap_or_default()
        )
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the server on a small disk did not end: {error}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_messages_and_nothing_else() -> Result<()> {
    let cycles = match std::env::var("MENES_FULL_DISKS") {
        Ok(text) => text.parse().context("MENES_FULL_DISKS is a number")?,
        Err(_) => 2,
    };
    let server = Small::start(400)?;
    let client = async_nats::connect(server.url().await?).await?;
    let context = jetstream::new(client.clone());
    let config = stream::Config {
        name: "FULL".into(),
        subjects: vec!["full".into()],
        ..Default::default()
    };
    let mut stream = context.create_stream(config).await?;
    for cycle in 1..=cycles {
        fill_and_purge(&client, &context, &mut stream)
            .await
            .with_context(|| format!("the disk is full for the {cycle}. time"))?;
    }
    Ok(())
}

/// Publishes until that is refused, looks at everything, purges, and waits until there is room.
async fn fill_and_purge(
    client: &async_nats::Client,
    context: &jetstream::Context,
    stream: &mut stream::Stream,
) -> Result<()> {
    let payload = |number: u64| {
        let mut payload = vec![7; 256 << 10];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        bytes::Bytes::from(payload)
    };
    let before = stream.info().await?.state.clone();
    let mut acked = before.messages;
    let first = before.last_sequence + 1 - acked;
    let refusal = loop {
        match context.publish("full", payload(first + acked)).await?.await {
            Ok(_) => acked += 1,
            Err(error) => break error.to_string(),
        }
        ensure!(acked < 2_000, "the disk never filled");
    };
    ensure!(
        refusal.contains("insufficient storage resources available"),
        "{refusal}"
    );
    let state = stream.info().await?.state.clone();
    ensure!(
        (state.messages, state.first_sequence) == (acked, first),
        "{acked} were acknowledged from {first} on, and now: {state:?}"
    );
    for sequence in [first, first + acked / 2, first + acked - 1] {
        let message = stream.get_raw_message(sequence).await?;
        ensure!(
            message.payload == payload(sequence),
            "message {sequence} reads differently"
        );
    }
    client.publish("core", "still works".into()).await?;
    client.flush().await?;

    ensure!(stream.purge().await?.success, "no purge on a full disk");
    let next = stream.info().await?.state.last_sequence + 1;
    let until = Instant::now() + LIMIT;
    loop {
        match context.publish("full", payload(next)).await?.await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => bail!("no space after a purge: {error}"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
