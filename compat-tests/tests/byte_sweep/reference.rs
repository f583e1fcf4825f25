//! The store that is damaged: made by the server, with stock clients.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::{self, AckKind, consumer, kv, object_store, stream};
use futures_util::StreamExt;
use menes_compat_tests::{ServerKind, ServerOptions, TestServer, connect};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In good order: everything is in the state, the log is marked as whole.
    Stopped,
    /// Killed, with nothing under way: the log has to be replayed.
    Killed,
}

/// A file of the store.
#[derive(Debug)]
pub(crate) struct Content {
    /// Below the data folder.
    pub(crate) name: String,
    /// Without the zeros at the end.
    pub(crate) bytes: Vec<u8>,
    pub(crate) len: usize,
}

/// A store.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) files: Vec<Content>,
    pub(crate) key: Option<String>,
    /// When the server had ended; whoever opens it takes it to be now.
    pub(crate) made: SystemTime,
    /// Streams and their message ids.
    pub(crate) ids: Vec<(String, String, u64)>,
}

/// Message ids on the stream that has them.
const IDS: u64 = 10;

/// Makes one.
pub(crate) async fn make(key: Option<&str>, end: End) -> Result<Image> {
    let mut options = ServerOptions::default().with_kind(ServerKind::Menes);
    if let Some(key) = key {
        let login = options.login.section();
        options = options.with_config(&format!("{login}jetstream {{ key: {key} }}"));
    }
    let mut server = TestServer::start(options)?;
    fill(&server).await?;
    // The state comes to have files of more than one generation.
    server.stop()?;
    server.restart()?;
    go_on(&server).await?;
    match end {
        End::Stopped => {
            server.stop()?;
        }
        End::Killed => {
            // Until the log has noted that all of it is synced, a torn tail and a damaged one look
            // the same.
            let log = server.folder().join("data/log");
            let until = Instant::now() + Duration::from_secs(30);
            while !is_noted(&log)? {
                ensure!(
                    Instant::now() < until,
                    "the log does not note that it is synced"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            server.kill_9()?;
        }
    }
    let mut files = Vec::new();
    let data = server.folder().join("data");
    collect(&data, &data, &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(files.len() > 8, "{files:?}");
    let ids = (1..=IDS).map(|n| ("ORDERS".to_owned(), format!("id-{n}"), n));
    Ok(Image {
        files,
        key: key.map(str::to_owned),
        made: SystemTime::now(),
        ids: ids.collect(),
    })
}

/// Whether the newest record of the log's `sidecar` says that everything was synced that is written.
fn is_noted(log: &Path) -> Result<bool> {
    // Serial of the record, segment, and where in it what was synced ends, of each sound record; one
    // that is being written is of no serial that fits.
    let sidecar = fs::read(log.join("sidecar"))?;
    let records = sidecar
        .chunks_exact(4096)
        .filter(|at| at.starts_with(b"SYNC"));
    let number = |bytes: &[u8]| {
        let bytes = bytes.iter().rev();
        bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let newest = records
        .map(|record| {
            (
                number(&record[8..16]),
                number(&record[24..32]),
                number(&record[36..40]),
            )
        })
        .max();
    let (_, segment, end) = newest.context("the sidecar has records")?;
    let written = fs::read(log.join(format!("{segment:020}.segment")))?;
    let behind = written.get(usize::try_from(end)?..);
    let is_last = !log.join(format!("{:020}.segment", segment + 1)).exists();
    Ok(is_last && behind.is_some_and(|behind| behind.iter().all(|byte| *byte == 0)))
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<Content>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
            continue;
        }
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let base = name.rsplit('/').next().unwrap_or_default();
        // Claims, and space to give up: both empty of meaning.
        if matches!(base, "lock" | "LOCK" | "ballast") {
            continue;
        }
        let mut bytes = fs::read(&path)?;
        let len = bytes.len();
        let held = len - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        bytes.truncate(held);
        files.push(Content { name, bytes, len });
    }
    Ok(())
}

async fn request(js: &jetstream::Context, subject: String, body: Value) -> Result<Value> {
    let answer: Value = js.request(subject, &body).await?;
    ensure!(answer.get("error").is_none(), "{answer}");
    Ok(answer)
}

/// Streams of each kind, and everything that leaves rows.
async fn fill(server: &TestServer) -> Result<()> {
    let client = connect::connect(server).await?;
    let js = jetstream::new(client.clone());
    let orders = js
        .create_stream(stream::Config {
            name: "ORDERS".into(),
            subjects: vec!["orders.>".into()],
            allow_direct: true,
            description: Some("what was ordered".into()),
            ..Default::default()
        })
        .await?;
    for n in 1..=IDS {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("id-{n}"));
        headers.insert("Kind", "test");
        let subject = format!("orders.{}", ["a", "b", "c"][n as usize % 3]);
        js.publish_with_headers(subject, headers, format!("order {n}").into())
            .await?
            .await?;
    }
    orders.delete_message(4).await?;
    orders
        .create_consumer(consumer::pull::Config {
            durable_name: Some("c".into()),
            filter_subject: "orders.a".into(),
            ..Default::default()
        })
        .await?;

    let bucket = js
        .create_key_value(kv::Config {
            bucket: "cfg".into(),
            history: 3,
            ..Default::default()
        })
        .await?;
    for n in 0..4 {
        bucket.put("color", format!("value {n}").into()).await?;
    }
    bucket.put("size", "large".into()).await?;
    bucket.delete("size").await?;

    js.create_stream(stream::Config {
        name: "WORK".into(),
        subjects: vec!["work".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    })
    .await?;
    for n in 0..5 {
        js.publish("work", format!("task {n}").into())
            .await?
            .await?;
    }
    for (name, config) in [
        (
            "COUNT",
            json!({"subjects": ["count.*"], "allow_msg_counter": true, "allow_direct": true}),
        ),
        (
            "PACKED",
            json!({"subjects": ["packed"], "compression": "s2", "allow_direct": true}),
        ),
        (
            "PLANS",
            json!({"subjects": ["plans.>"], "allow_msg_schedules": true}),
        ),
        (
            "COPY",
            json!({"mirror": {"name": "ORDERS"}, "mirror_direct": true}),
        ),
    ] {
        let mut body = config;
        body["name"] = name.into();
        request(&js, format!("STREAM.CREATE.{name}"), body).await?;
    }
    for by in ["+3", "-10", "+1"] {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Incr", by);
        js.publish_with_headers("count.k", headers, "".into())
            .await?
            .await?;
    }
    for n in 0..2 {
        js.publish("packed", format!("again and again {n} ").repeat(30).into())
            .await?
            .await?;
    }
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Schedule", "@at 2199-01-01T00:00:00Z");
    headers.insert("Nats-Schedule-Target", "plans.out");
    js.publish_with_headers("plans.in", headers, "later".into())
        .await?
        .await?;

    let objects = js
        .create_object_store(object_store::Config {
            bucket: "files".into(),
            ..Default::default()
        })
        .await?;
    objects
        .put("report", &mut b"not very long".repeat(20).as_slice())
        .await?;
    let mut read = Vec::new();
    objects.get("report").await?.read_to_end(&mut read).await?;
    ensure!(read.len() == 13 * 20, "the object is {} long", read.len());
    let mut mirrored = js.get_stream("COPY").await?;
    let until = Instant::now() + Duration::from_secs(20);
    while mirrored.info().await?.state.last_sequence < IDS {
        ensure!(Instant::now() < until, "the mirror stands still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Deliveries, acks, and what changes what was there.
async fn go_on(server: &TestServer) -> Result<()> {
    let js = jetstream::new(connect::connect(server).await?);
    let orders = js.get_stream("ORDERS").await?;
    let pull: consumer::PullConsumer = orders
        .get_consumer("c")
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    take(&pull, 3, 2).await?;
    let work = js.get_stream("WORK").await?;
    let worker = work
        .create_consumer(consumer::pull::Config {
            durable_name: Some("w".into()),
            ack_wait: Duration::from_secs(3600),
            ..Default::default()
        })
        .await?;
    take(&worker, 3, 2).await?;
    js.publish("orders.b", "one more".into()).await?.await?;
    let purge = json!({"filter": "orders.c", "keep": 1});
    request(&js, "STREAM.PURGE.ORDERS".to_owned(), purge).await?;
    Ok(())
}

/// Takes some messages and acknowledges fewer.
async fn take(from: &consumer::PullConsumer, count: usize, acked: usize) -> Result<()> {
    let mut batch = from.fetch().max_messages(count).messages().await?;
    let mut seen = 0;
    while let Some(message) = batch.next().await {
        let message = message.map_err(|error| anyhow::anyhow!("{error}"))?;
        seen += 1;
        if seen <= acked {
            message
                .double_ack_with(AckKind::Ack)
                .await
                .map_err(|error| anyhow::anyhow!("{error}"))?;
        }
    }
    ensure!(seen == count, "{seen} of {count} came");
    Ok(())
}
