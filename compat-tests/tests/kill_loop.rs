//! `kill -9` at random moments under load: what was acknowledged must be there, for good.
//!
//! Two async-nats producers and one memphis-py producer publish without pause and repeat what was
//! not acknowledged, with the same id; two durable consumers settle what they get and have each
//! settlement confirmed. The server is killed in the midst of it, now and then also while it
//! starts, and restarted on the same data. [`ledger`](menes_compat_tests::ledger) keeps every
//! promise; after every restart a reader goes through the stream and checks them.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::RangeInclusive;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer};
use async_nats::jetstream::context::{ContextBuilder, PublishAckFuture};
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use menes_compat_tests::ledger::{Fingerprint, Ledger, Settlements, Stored};
use menes_compat_tests::power::PowerDisk;
use menes_compat_tests::scenario::{self, Scenario};
use menes_compat_tests::{ServerKind, ServerOptions, TestServer, connect};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{interval, sleep, timeout};

const STREAM: &str = "KILLS";
const STATION: &str = "kills";
const STATION_STREAM: &str = "kills$1";
/// Room for the messages of a thousand rounds.
const POWER_DISK_MEGABYTES: u64 = 8 << 10;
/// Messages one producer has under way.
const WINDOW: usize = 32;
/// Messages a producer sends per tick, and the tick: about 2,000 a second each.
const BURST: usize = 4;
const TICK: Duration = Duration::from_millis(2);
/// How long anything may take after the last restart.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a consumer waits for what it asked for; a pull request lasts half of it.
const DELIVERY: Duration = Duration::from_millis(600);
/// How often in a row a reader may get nothing.
const MAX_IN_VAIN: usize = 5;
/// How long a request may take before it is repeated.
const PATIENCE: Duration = Duration::from_secs(2);

type Shared<T> = Arc<Mutex<T>>;

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_messages_survive_kills() -> Result<()> {
    let kills = from_environment("MENES_KILLS", 50)?;
    Loop::start(true, Disk::Clear).await?.run(kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_kills_without_memphis_lose_nothing() -> Result<()> {
    let kills = from_environment("MENES_KILLS", 50)?;
    Loop::start(false, Disk::Clear)
        .await?
        .run(kills.div_ceil(10))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_kills_of_an_encrypted_and_compressed_store_lose_nothing() -> Result<()> {
    let kills = from_environment("MENES_KILLS", 50)?;
    Loop::start(false, Disk::Encrypted)
        .await?
        .run(kills.div_ceil(10))
        .await
}

/// The same when the power fails: what was not synced is gone. In every other round the disk breaks
/// instead: the server goes on for a moment with one that fails every write and every sync, and must
/// not acknowledge what did not get there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and loop devices: make power-loss"]
async fn acknowledged_messages_survive_power_loss() -> Result<()> {
    let kills = from_environment("MENES_KILLS", 50)?;
    let disk = PowerDisk::start(POWER_DISK_MEGABYTES)?;
    Loop::start(true, Disk::Failing(disk))
        .await?
        .run(kills)
        .await
}

fn from_environment(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name} is a number, not {text:?}")),
    }
}

/// What all tasks know of the server's life.
#[derive(Clone)]
struct Life {
    /// Counts restarts; a change says that what was under way is lost.
    restarts: watch::Receiver<u64>,
    /// True when producers shall finish.
    ending: watch::Receiver<bool>,
}

/// Where the data lies.
enum Disk {
    /// On the disk of the test.
    Clear,
    /// The same, encrypted, and the stream compressed.
    Encrypted,
    /// Where power is to fail.
    Failing(PowerDisk),
}

struct Loop {
    server: TestServer,
    random: StdRng,
    restarts: watch::Sender<u64>,
    ending: watch::Sender<bool>,
    ledger: Shared<Ledger>,
    station_ledger: Shared<Ledger>,
    worker: Shared<Settlements>,
    auditor: Shared<Settlements>,
    producers: JoinSet<Result<()>>,
    consumers: JoinSet<Result<()>>,
    memphis: Option<Memphis>,
    reader: jetstream::Context,
    /// Up to where the stream has been checked since the last full pass.
    checked: u64,
    /// Where the data lies, if power is to fail. Below the server: unmounted when that has ended.
    disk: Option<PowerDisk>,
}

impl Loop {
    async fn start(with_memphis: bool, disk: Disk) -> Result<Self> {
        let seed = from_environment("MENES_SEED", rand::rng().random())?;
        eprintln!("MENES_SEED={seed}");
        let is_encrypted = matches!(disk, Disk::Encrypted);
        let disk = match disk {
            Disk::Clear | Disk::Encrypted => None,
            Disk::Failing(disk) => Some(disk),
        };
        let login = ServerOptions::default().login.section();
        let options = ServerOptions {
            config: is_encrypted.then(|| format!("{login}jetstream {{ key: sesame }}")),
            data: disk.as_ref().map(|disk| disk.path().join("data")),
            ..ServerOptions::default()
        };
        let options = if with_memphis {
            options.with_memphis()
        } else {
            options
        };
        let server = TestServer::start(options)?;
        let reader = context(&server).await?;
        let stream = reader
            .create_stream(stream::Config {
                name: STREAM.into(),
                subjects: vec!["kills.*".into()],
                duplicate_window: Duration::from_secs(3600),
                ..Default::default()
            })
            .await?;
        if is_encrypted {
            let mut config = serde_json::to_value(&stream.cached_info().config)?;
            config["compression"] = "s2".into();
            let update = format!("STREAM.UPDATE.{STREAM}");
            let answer: serde_json::Value = reader.request(update, &config).await?;
            ensure!(answer["config"]["compression"] == "s2", "{answer}");
        }
        for (name, ack_policy) in [("worker", AckPolicy::Explicit), ("auditor", AckPolicy::All)] {
            stream
                .create_consumer(consumer::pull::Config {
                    durable_name: Some(name.into()),
                    ack_policy,
                    ack_wait: Duration::from_secs(2),
                    max_ack_pending: 10_000,
                    ..Default::default()
                })
                .await?;
        }
        let mut started = Self {
            random: StdRng::seed_from_u64(seed),
            restarts: watch::Sender::new(0),
            ending: watch::Sender::new(false),
            ledger: Arc::new(Mutex::new(Ledger::new(STREAM))),
            station_ledger: Arc::new(Mutex::new(Ledger::new(STATION_STREAM))),
            worker: Arc::new(Mutex::new(Settlements::new("worker"))),
            auditor: Arc::new(Mutex::new(Settlements::new("auditor"))),
            producers: JoinSet::new(),
            consumers: JoinSet::new(),
            memphis: None,
            reader,
            checked: 0,
            disk,
            server,
        };
        started.spawn(with_memphis).await?;
        Ok(started)
    }

    async fn spawn(&mut self, with_memphis: bool) -> Result<()> {
        let life = Life {
            restarts: self.restarts.subscribe(),
            ending: self.ending.subscribe(),
        };
        for name in ["one", "two"] {
            let js = context(&self.server).await?;
            let ledger = Arc::clone(&self.ledger);
            self.producers
                .spawn(produce(name, js, ledger, life.clone()));
        }
        for (name, settlements) in [("worker", &self.worker), ("auditor", &self.auditor)] {
            let js = context(&self.server).await?;
            let ledger = Arc::clone(&self.ledger);
            self.consumers
                .spawn(consume(name, js, ledger, Arc::clone(settlements)));
        }
        if self.is_reference() {
            // It keeps acks of consumers in memory for a while, and does not know `msg-id`.
            lock(&self.worker).allow_repeats();
            lock(&self.auditor).allow_repeats();
            lock(&self.station_ledger).allow_duplicates();
        }
        if with_memphis {
            self.memphis = Some(Memphis::start(
                &self.server,
                Arc::clone(&self.station_ledger),
            )?);
        }
        Ok(())
    }

    fn is_reference(&self) -> bool {
        self.server.options().kind == ServerKind::Reference
    }

    async fn run(mut self, kills: u64) -> Result<()> {
        let started = Instant::now();
        for kill in 1..=kills {
            sleep(Duration::from_millis(self.random.random_range(20..700))).await;
            let interrupted = kill.is_multiple_of(8);
            let while_starting = interrupted.then(|| self.random.random_range(0..150));
            let moment = Duration::from_millis(self.random.random_range(0..50));
            block_in_place(|| {
                self.end_abruptly(kill.is_multiple_of(2).then_some(moment))?;
                if let Some(after_ms) = while_starting {
                    self.server
                        .restart_interrupted(Duration::from_millis(after_ms))?;
                }
                self.server.restart()
            })?;
            self.restarts.send_modify(|restarts| *restarts += 1);
            // All of it less often when there is much of it.
            let is_whole = kill.is_multiple_of(if kill <= 100 { 10 } else { 100 });
            let from = if is_whole {
                1
            } else {
                self.checked.saturating_sub(100).max(1)
            };
            self.check(from)
                .await
                .with_context(|| format!("after kill {kill}"))?;
            self.check_tasks()?;
        }
        self.finish().await?;
        let acked = lock(&self.ledger).acked_count() + lock(&self.station_ledger).acked_count();
        let settled = lock(&self.worker).count() + lock(&self.auditor).count();
        eprintln!(
            "{kills} kills in {:?}: {acked} acknowledged messages and {settled} settlements kept",
            started.elapsed()
        );
        ensure!(acked > 0 && settled > 0, "nothing was under load");
        Ok(())
    }

    /// Kills the server; with a disk, either cuts its power or breaks it the given time before.
    fn end_abruptly(&mut self, broken_for: Option<Duration>) -> Result<()> {
        let Some(disk) = &mut self.disk else {
            return self.server.kill_9();
        };
        if let Some(before) = broken_for {
            disk.fail()?;
            // The moment is the point: there is nothing to wait for.
            std::thread::sleep(before);
            self.server.kill_9()?;
        } else {
            self.server.kill_9()?;
            disk.cut()?;
        }
        disk.restore()
    }

    /// Lets everything finish, then checks all of it, also after one more kill and a restart.
    async fn finish(&mut self) -> Result<()> {
        self.ending.send_replace(true);
        if let Some(memphis) = &mut self.memphis {
            block_in_place(|| memphis.finish())?;
        }
        timeout(LIMIT, async {
            while let Some(ended) = self.producers.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        })
        .await
        .context("the producers did not finish")??;
        self.check(1).await?;
        self.wait_until_consumed().await?;
        self.consumers.shutdown().await;
        let sequences = lock(&self.ledger).sequences();
        lock(&self.worker).check_all_delivered(&sequences);
        lock(&self.auditor).check_all_delivered(&sequences);
        self.check_tasks()?;

        block_in_place(|| {
            self.end_abruptly(None)?;
            self.server.restart()
        })?;
        self.check(1).await.context("after the last kill")?;
        block_in_place(|| {
            self.server.stop()?;
            self.server.restart()
        })?;
        self.check(1).await.context("after a stop in good order")?;
        self.check_positions().await
    }

    async fn wait_until_consumed(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        for name in ["worker", "auditor"] {
            loop {
                let info = self.consumer_info(name).await?;
                if info.num_pending == 0 && info.num_ack_pending == 0 {
                    break;
                }
                ensure!(
                    Instant::now() < deadline,
                    "{name} did not get everything: {info:?}"
                );
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// After the last restart both consumers must still stand behind the last message.
    async fn check_positions(&self) -> Result<()> {
        if self.is_reference() {
            return Ok(());
        }
        let last = lock(&self.ledger).sequences().last().copied().unwrap_or(0);
        for name in ["worker", "auditor"] {
            let info = self.consumer_info(name).await?;
            ensure!(
                (
                    info.ack_floor.stream_sequence,
                    info.num_pending,
                    info.num_ack_pending
                ) == (last, 0, 0),
                "{name} had settled everything up to {last}, and now: {info:?}"
            );
        }
        Ok(())
    }

    async fn consumer_info(&self, name: &str) -> Result<consumer::Info> {
        let js = &self.reader;
        let info = persist(|| async {
            let consumer: PullConsumer = js.get_consumer_from_stream(name, STREAM).await?;
            anyhow::Ok(consumer.cached_info().clone())
        });
        info.await.with_context(|| format!("info of {name}"))
    }

    /// Reads the stream from a sequence on, and the station's stream whole; reports violations.
    async fn check(&mut self, from: u64) -> Result<()> {
        self.checked = read(&self.reader, STREAM, from, &self.ledger).await?;
        if self.memphis.is_some() {
            read(&self.reader, STATION_STREAM, 1, &self.station_ledger).await?;
        }
        let reports = [
            lock(&self.ledger).report(),
            lock(&self.station_ledger).report(),
            lock(&self.worker).report(),
            lock(&self.auditor).report(),
        ];
        ensure!(
            reports.iter().all(String::is_empty),
            "promises were broken\n{}",
            reports.concat()
        );
        Ok(())
    }

    /// Fails as soon as a task has failed, instead of at the end.
    fn check_tasks(&mut self) -> Result<()> {
        for tasks in [&mut self.producers, &mut self.consumers] {
            if let Some(ended) = tasks.try_join_next() {
                ended??;
                bail!("a producer or consumer ended by itself");
            }
        }
        self.memphis.as_mut().map_or(Ok(()), Memphis::check)
    }
}

async fn context(server: &TestServer) -> Result<jetstream::Context> {
    let client = connect::options(server)
        .retry_on_initial_connect()
        .ping_interval(Duration::from_millis(500))
        .connect(server.url())
        .await?;
    Ok(ContextBuilder::new()
        .timeout(PATIENCE)
        .ack_timeout(PATIENCE)
        .build(client))
}

/// Repeats a request that a kill may have swallowed.
async fn persist<T, F: Future<Output = Result<T>>>(mut request: impl FnMut() -> F) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match timeout(PATIENCE, request()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if Instant::now() >= deadline => return Err(error),
            Err(late) if Instant::now() >= deadline => return Err(late.into()),
            _ => sleep(Duration::from_millis(20)).await,
        }
    }
}

struct Message {
    id: String,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl Message {
    fn new(producer: &str, number: u64) -> Self {
        let id = format!("{producer}-{number}");
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.as_str());
        headers.insert("Number", number.to_string());
        headers.append("Twice", "1");
        headers.append("Twice", "2");
        // Every size from nothing to a few kilobytes, now and then a large one.
        let size = if number.is_multiple_of(97) {
            50_000
        } else {
            number % 1_500
        };
        let payload = (0..size).map(|n| (n ^ number) as u8).collect();
        Self {
            subject: format!("kills.{producer}"),
            id,
            headers,
            payload,
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.subject, &self.headers, &self.payload, &[])
    }

    async fn send(&self, js: &jetstream::Context) -> Option<PublishAckFuture> {
        let (subject, headers) = (self.subject.clone(), self.headers.clone());
        // It fails when the client has lost its connection for good, or has too much under way;
        // the message then goes with the next round.
        js.publish_with_headers(subject, headers, self.payload.clone())
            .await
            .ok()
    }
}

/// Publishes until told to end; repeats in order what a kill may have swallowed.
async fn produce(
    name: &'static str,
    js: jetstream::Context,
    ledger: Shared<Ledger>,
    mut life: Life,
) -> Result<()> {
    let mut ticks = interval(TICK);
    let mut number = 0;
    let mut under_way: VecDeque<(Message, Option<PublishAckFuture>)> = VecDeque::new();
    loop {
        let is_ending = *life.ending.borrow();
        for _ in 0..BURST {
            if is_ending || under_way.len() == WINDOW {
                break;
            }
            number += 1;
            let message = Message::new(name, number);
            lock(&ledger).sending(name, &message.id, message.fingerprint());
            let ack = message.send(&js).await;
            under_way.push_back((message, ack));
        }
        let Some((message, ack)) = under_way.front_mut() else {
            return Ok(());
        };
        let ack = async {
            match ack.take() {
                Some(ack) => ack.await.ok(),
                None => None,
            }
        };
        let acked = tokio::select! {
            ack = ack => ack,
            changed = life.restarts.changed() => {
                changed?;
                None
            }
        };
        if let Some(ack) = acked {
            lock(&ledger).acked(name, &message.id, ack.sequence);
            under_way.pop_front();
        } else {
            ticks.tick().await;
            for (message, ack) in &mut under_way {
                *ack = message.send(&js).await;
            }
        }
        if under_way.len() < WINDOW {
            ticks.tick().await;
        }
    }
}

/// Settles what a durable consumer delivers, in batches, and has every settlement confirmed.
async fn consume(
    name: &'static str,
    js: jetstream::Context,
    ledger: Shared<Ledger>,
    settlements: Shared<Settlements>,
) -> Result<()> {
    let consumer: PullConsumer =
        persist(|| async { Ok(js.get_consumer_from_stream(name, STREAM).await?) }).await?;
    loop {
        let asked = lock(&settlements).asking();
        let batch = consumer.batch().max_messages(100).expires(DELIVERY / 2);
        let Ok(Ok(mut messages)) = timeout(DELIVERY, batch.messages()).await else {
            continue;
        };
        let mut delivered = Vec::new();
        while let Ok(Some(Ok(message))) = timeout(DELIVERY, messages.next()).await {
            let stored = stored(&message, "Nats-Msg-Id", &[])?;
            lock(&settlements).delivered(stored.seq, asked);
            delivered.push((
                stored.seq,
                message.reply.clone().context("it has an ack subject")?,
            ));
            lock(&ledger).see(stored);
        }
        // The one acknowledges each message; now and then it forgets one, which comes again. The
        // other acknowledges the last, and with it all before.
        let client = js.client();
        let confirmed = |(seq, reply): (u64, async_nats::Subject)| {
            let client = client.clone();
            async move {
                let asked = timeout(DELIVERY, client.request(reply, "+ACK".into())).await;
                matches!(asked, Ok(Ok(_))).then_some(seq)
            }
        };
        if name == "worker" {
            let kept = delivered
                .into_iter()
                .filter(|(seq, _)| seq % 17 != asked.turn() % 17);
            for seq in join_all(kept.map(confirmed)).await.into_iter().flatten() {
                lock(&settlements).settled(seq);
            }
            continue;
        }
        let complete = lock(&settlements).complete_up_to();
        let complete = delivered.into_iter().filter(|(seq, _)| *seq <= complete);
        if let Some(last) = complete.max_by_key(|(seq, _)| *seq)
            && let Some(seq) = confirmed(last).await
        {
            lock(&settlements).settled_up_to(seq);
        }
    }
}

fn stored(message: &jetstream::Message, id_header: &str, ignored: &[&str]) -> Result<Stored> {
    let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
    let headers = message.headers.clone().unwrap_or_default();
    let id = headers
        .get(id_header)
        .map(ToString::to_string)
        .unwrap_or_default();
    let fingerprint = Fingerprint::of(&message.subject, &headers, &message.payload, ignored);
    let time_ns = info.published.unix_timestamp_nanos();
    Ok(Stored {
        seq: info.stream_sequence,
        time_ns,
        id,
        fingerprint,
    })
}

/// Reads a stream from a sequence to its end as of now; returns the last sequence.
async fn read(
    js: &jetstream::Context,
    name: &str,
    from: u64,
    ledger: &Shared<Ledger>,
) -> Result<u64> {
    let pass = lock(ledger).begin_pass();
    let is_station = name == STATION_STREAM;
    let id_header = if is_station { "msg-id" } else { "Nats-Msg-Id" };
    let ignored: &[&str] = if is_station {
        &["$memphis_connectionId"]
    } else {
        &[]
    };
    let stream = persist(|| async { Ok(js.get_stream(name).await?) }).await?;
    let last = stream.cached_info().state.last_sequence;
    let mut sequences = Vec::new();
    let mut in_vain = 0;
    loop {
        let next = sequences.last().map_or(from, |last| last + 1);
        if next > last {
            break;
        }
        let before = sequences.len();
        read_on(&stream, next..=last, |message| {
            let stored = stored(&message, id_header, ignored)?;
            sequences.push(stored.seq);
            lock(ledger).see(stored);
            Ok(())
        })
        .await?;
        in_vain = if sequences.len() > before {
            0
        } else {
            in_vain + 1
        };
        ensure!(in_vain < MAX_IN_VAIN, "{name} gives nothing from {next} on");
    }
    lock(ledger).check_pass(pass, from, last, &sequences);
    Ok(last)
}

/// Hands over what a consumer of its own gives of a range, up to a request that was not answered in
/// full: without acks a message is sent once, and what was on its way when the client gave up has to
/// be asked for by another consumer. Within a request nothing may be missing.
async fn read_on(
    stream: &stream::Stream,
    range: RangeInclusive<u64>,
    mut take: impl FnMut(jetstream::Message) -> Result<()>,
) -> Result<()> {
    let config = consumer::pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: *range.start(),
        },
        ack_policy: AckPolicy::None,
        memory_storage: true,
        inactive_threshold: LIMIT,
        ..Default::default()
    };
    let reader: PullConsumer =
        persist(|| async { Ok(stream.create_consumer(config.clone()).await?) }).await?;
    let mut left = usize::try_from(range.end() - range.start())? + 1;
    let mut is_whole = true;
    while is_whole && left > 0 {
        let asked = left.min(500);
        let batch = reader.batch().max_messages(asked).expires(PATIENCE);
        let mut messages = batch.messages().await?;
        let mut came = 0;
        while let Some(message) = messages.next().await {
            take(message.map_err(|error| anyhow::anyhow!(error))?)?;
            came += 1;
        }
        is_whole = came == asked;
        left -= came;
    }
    // On a machine that is too busy to answer in time it goes by itself, later.
    if let Err(error) = stream.delete_consumer(&reader.cached_info().name).await {
        eprintln!("a reader stays for a while: {error}");
    }
    Ok(())
}

/// The memphis-py producer, a process of its own.
struct Memphis {
    process: Child,
    printed: Option<std::thread::JoinHandle<Result<()>>>,
    complaints: Shared<String>,
}

impl Memphis {
    fn start(server: &TestServer, ledger: Shared<Ledger>) -> Result<Self> {
        let script = Scenario::new("memphis-py/kill_loop.py").argument(STATION);
        let mut process = script.start(server, Stdio::piped())?;
        let mut lines = BufReader::new(process.stdout.take().context("a pipe")?).lines();
        let complaints = Shared::default();
        drain(
            process.stderr.take().context("a pipe")?,
            Arc::clone(&complaints),
        );
        let mut memphis = Self {
            process,
            printed: None,
            complaints,
        };
        match lines.next() {
            Some(Ok(line)) if line == "READY" => {}
            _ => bail!("memphis-py did not start: {}", memphis.complaints()),
        }
        memphis.printed = Some(std::thread::spawn(move || {
            for line in lines {
                note(&ledger, &line?)?;
            }
            Ok(())
        }));
        Ok(memphis)
    }

    fn check(&mut self) -> Result<()> {
        let is_finished = self.printed.is_none();
        if let Some(status) = self.process.try_wait()?
            && !is_finished
        {
            bail!(
                "memphis-py ended by itself, {status}: {}",
                self.complaints()
            );
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let mut input = self
            .process
            .stdin
            .take()
            .context("memphis-py is told once")?;
        input.write_all(b"end\n")?;
        let Some(status) = scenario::wait(&mut self.process, LIMIT)? else {
            bail!("memphis-py did not finish: {}", self.complaints());
        };
        ensure!(
            status.success(),
            "memphis-py failed, {status}: {}",
            self.complaints()
        );
        let printed = self.printed.take().context("memphis-py finishes once")?;
        printed.join().expect("reading a pipe does not panic")
    }

    /// The end of what it wrote to standard error.
    fn complaints(&self) -> String {
        let complaints = lock(&self.complaints);
        let lines: Vec<&str> = complaints.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// Reads a pipe to its end in a thread of its own: a full pipe would stop the process.
fn drain(pipe: impl Read + Send + 'static, into: Shared<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut text = lock(&into);
            text.push_str(&line);
            text.push('\n');
        }
    });
}

impl Drop for Memphis {
    fn drop(&mut self) {
        // It fails only for a process that has ended.
        let _: Result<()> = scenario::end(&mut self.process);
    }
}

/// Notes a line of the memphis-py producer.
fn note(ledger: &Shared<Ledger>, line: &str) -> Result<()> {
    let (event, id) = line
        .split_once(' ')
        .with_context(|| format!("unexpected line {line:?}"))?;
    match event {
        "SENT" => {
            let number = id.rsplit('-').next().unwrap_or_default();
            let mut headers = HeaderMap::new();
            headers.insert("number", number);
            headers.insert("msg-id", id);
            headers.insert("$memphis_producedBy", "kill-loop");
            let subject = format!("{STATION_STREAM}.final");
            let fingerprint = Fingerprint::of(&subject, &headers, id.as_bytes(), &[]);
            lock(ledger).sending("memphis-py", id, fingerprint);
        }
        "ACKED" => lock(ledger).acked_somewhere(id),
        // The SDK itself prints its last connection error when it is closed.
        "memphis:" => {}
        _ => bail!("unexpected line {line:?}"),
    }
    Ok(())
}
