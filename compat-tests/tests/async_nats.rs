//! `async-nats`, directly from Rust: core NATS, streams, consumers, buckets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, PushConsumer};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, AckKind, ErrorCode, kv, object_store};
use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use menes_compat_tests::{ServerOptions, TestServer, connect};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(5);

struct Fixture {
    server: TestServer,
    client: Client,
    js: jetstream::Context,
}

async fn fixture() -> Result<Fixture> {
    let server = TestServer::start(ServerOptions::default())?;
    let client = connect::connect(&server).await?;
    let js = jetstream::new(client.clone());
    Ok(Fixture { server, client, js })
}

async fn next(subscriber: &mut Subscriber) -> Result<async_nats::Message> {
    timeout(LIMIT, subscriber.next())
        .await?
        .context("the subscription ended")
}

async fn expect_silence(subscriber: &mut Subscriber) -> Result<()> {
    match timeout(Duration::from_millis(100), subscriber.next()).await {
        Err(_) => Ok(()),
        Ok(message) => bail!("unexpected {message:?}"),
    }
}

fn payload(number: usize) -> Bytes {
    Bytes::from(number.to_string())
}

fn number(message: &async_nats::Message) -> Result<usize> {
    Ok(std::str::from_utf8(&message.payload)?.parse()?)
}

async fn fetch(consumer: &PullConsumer, count: usize) -> Result<Vec<jetstream::Message>> {
    let batch = consumer
        .batch()
        .max_messages(count)
        .expires(LIMIT)
        .messages()
        .await?;
    batch
        .take(count)
        .map(|message| message.map_err(|e| anyhow::anyhow!(e)))
        .try_collect()
        .await
}

async fn fetch_numbers(consumer: &PullConsumer, count: usize) -> Result<Vec<usize>> {
    fetch(consumer, count)
        .await?
        .iter()
        .map(|message| number(message))
        .collect()
}

fn explicit(name: &str) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(name.into()),
        ack_policy: AckPolicy::Explicit,
        ..Default::default()
    }
}

fn ok<T>(result: Result<T, async_nats::Error>) -> Result<T> {
    result.map_err(|error| anyhow::anyhow!(error))
}

/// A stream of `count` messages, numbered from 1, on the subjects `<name>.0` and `<name>.1`.
async fn filled(js: &jetstream::Context, name: &str, count: usize) -> Result<stream::Stream> {
    let config = stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.*")],
        allow_direct: true,
        ..Default::default()
    };
    let stream = js.create_stream(config).await?;
    for n in 1..=count {
        js.publish(format!("{name}.{}", n % 2), payload(n))
            .await?
            .await?;
    }
    Ok(stream)
}

#[tokio::test]
async fn a_wrong_password_is_refused() -> Result<()> {
    let server = TestServer::start(ServerOptions::default())?;
    let user = server.login().user.clone();
    let options = async_nats::ConnectOptions::with_user_and_password(user, "wrong".into());
    let error = options
        .connect(server.url())
        .await
        .expect_err("the password is wrong");
    assert_eq!(
        error.kind(),
        async_nats::ConnectErrorKind::AuthorizationViolation
    );
    let error = async_nats::connect(server.url())
        .await
        .expect_err("there is no password");
    assert_eq!(
        error.kind(),
        async_nats::ConnectErrorKind::AuthorizationViolation
    );
    Ok(())
}

#[tokio::test]
async fn subjects_wildcards_and_queue_groups_route() -> Result<()> {
    let Fixture { client, server, .. } = fixture().await?;
    let mut star = client.subscribe("a.*.c").await?;
    let mut tail = client.subscribe("a.>").await?;
    client.publish("a.b.c", "1".into()).await?;
    client.publish("a.b", "2".into()).await?;
    client.publish("b.b.c", "3".into()).await?;
    assert_eq!(next(&mut star).await?.subject.as_str(), "a.b.c");
    expect_silence(&mut star).await?;
    assert_eq!(next(&mut tail).await?.payload, "1");
    assert_eq!(next(&mut tail).await?.payload, "2");
    expect_silence(&mut tail).await?;

    let other = connect::connect(&server).await?;
    let mut members = Vec::new();
    for connection in [&client, &client, &other] {
        members.push(connection.queue_subscribe("work", "group".into()).await?);
        connection.flush().await?;
    }
    for n in 0..90 {
        client.publish("work", payload(n)).await?;
    }
    let mut seen = BTreeSet::new();
    let mut all = futures_util::stream::select_all(members);
    while seen.len() < 90 {
        let message = timeout(LIMIT, all.next())
            .await?
            .context("the subscriptions ended")?;
        ensure!(
            seen.insert(number(&message)?),
            "a queue group got a message twice"
        );
    }
    Ok(())
}

#[tokio::test]
async fn requests_headers_and_no_responders_work() -> Result<()> {
    let Fixture {
        client,
        server: _server,
        ..
    } = fixture().await?;
    let mut service = client.subscribe("echo").await?;
    let answering = client.clone();
    let answers = tokio::spawn(async move {
        while let Some(request) = service.next().await {
            let reply = request.reply.context("a request has a reply subject")?;
            let mut headers = HeaderMap::new();
            headers.insert(
                "Seen",
                request.headers.unwrap_or_default().len().to_string(),
            );
            headers.append("Twice", "1");
            headers.append("Twice", "2");
            answering
                .publish_with_headers(reply, headers, request.payload)
                .await?;
        }
        anyhow::Ok(())
    });
    let mut headers = HeaderMap::new();
    headers.insert("Key", "value");
    headers.insert("Other", "value");
    let reply = client
        .request_with_headers("echo", headers, "hello".into())
        .await?;
    assert_eq!(reply.payload, "hello");
    let headers = reply.headers.context("the reply has headers")?;
    assert_eq!(headers.get("Seen").context("Seen")?.as_str(), "2");
    let twice: Vec<&str> = headers.get_all("Twice").map(AsRef::as_ref).collect();
    assert_eq!(twice, ["1", "2"]);

    let error = client
        .request("nobody", "".into())
        .await
        .expect_err("nobody answers");
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    answers.abort();
    Ok(())
}

#[tokio::test]
async fn a_million_bytes_pass_and_more_is_refused() -> Result<()> {
    let Fixture {
        client,
        server: _server,
        ..
    } = fixture().await?;
    let mut subscriber = client.subscribe("large").await?;
    let large = Bytes::from(vec![7_u8; client.max_payload()]);
    client.publish("large", large.clone()).await?;
    assert_eq!(next(&mut subscriber).await?.payload, large);
    let error = client
        .publish("large", vec![0; large.len() + 1].into())
        .await;
    assert_eq!(
        error.expect_err("larger than the limit").kind(),
        async_nats::client::PublishErrorKind::MaxPayloadExceeded
    );
    Ok(())
}

#[tokio::test]
async fn a_client_survives_a_restart_of_the_server() -> Result<()> {
    let Fixture {
        client,
        js,
        mut server,
    } = fixture().await?;
    filled(&js, "KEEP", 3).await?;
    let mut subscriber = client.subscribe("after").await?;
    client.flush().await?;
    let status = server.stop()?;
    ensure!(status.success(), "SIGTERM ended the server with {status}");
    server.restart()?;
    let deadline = Instant::now() + LIMIT;
    // The subscription is back when something published later arrives.
    loop {
        client.publish("after", "x".into()).await?;
        if timeout(Duration::from_millis(100), subscriber.next())
            .await
            .is_ok()
        {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "the subscription did not come back"
        );
    }
    let mut stream = js.get_stream("KEEP").await?;
    assert_eq!(stream.info().await?.state.messages, 3);
    assert_eq!(js.publish("KEEP.1", "4".into()).await?.await?.sequence, 4);
    Ok(())
}

#[tokio::test]
async fn publishing_is_acknowledged_and_checked() -> Result<()> {
    let Fixture {
        js,
        server: _server,
        ..
    } = fixture().await?;
    filled(&js, "P", 0).await?;
    let ack = js.publish("P.a", "1".into()).await?.await?;
    assert_eq!(
        (ack.stream.as_str(), ack.sequence, ack.duplicate),
        ("P", 1, false)
    );
    for expected in [(2, false), (2, true)] {
        let message = PublishMessage::build().payload("2".into()).message_id("id");
        let ack = js.send_publish("P.a", message).await?.await?;
        assert_eq!((ack.sequence, ack.duplicate), expected);
    }
    let wrong = PublishMessage::build().expected_last_sequence(9);
    let error = js
        .send_publish("P.a", wrong)
        .await?
        .await
        .expect_err("the last is 2");
    assert_eq!(
        error.kind(),
        jetstream::context::PublishErrorKind::WrongLastSequence
    );
    let right = PublishMessage::build()
        .expected_last_sequence(2)
        .expected_stream("P");
    assert_eq!(js.send_publish("P.a", right).await?.await?.sequence, 3);
    let wrong = PublishMessage::build().expected_last_message_id("other");
    let error = js
        .send_publish("P.a", wrong)
        .await?
        .await
        .expect_err("another id was last");
    assert_eq!(
        error.kind(),
        jetstream::context::PublishErrorKind::WrongLastMessageId
    );
    let error = js
        .publish("elsewhere", "".into())
        .await?
        .await
        .expect_err("no stream");
    assert_eq!(
        error.kind(),
        jetstream::context::PublishErrorKind::StreamNotFound
    );

    let mut acks = Vec::new();
    for n in 0..1000 {
        acks.push(js.publish("P.b", payload(n)).await?);
    }
    for (n, ack) in acks.into_iter().enumerate() {
        assert_eq!(ack.await?.sequence, 4 + n as u64);
    }
    Ok(())
}

#[tokio::test]
async fn streams_are_managed_read_and_purged() -> Result<()> {
    let Fixture {
        js,
        server: _server,
        ..
    } = fixture().await?;
    let mut stream = filled(&js, "S", 6).await?;
    let same = js
        .get_or_create_stream(stream.cached_info().config.clone())
        .await?;
    assert_eq!(same.cached_info().state.messages, 6);
    let other = stream::Config {
        name: "S".into(),
        max_messages: 5,
        ..Default::default()
    };
    let error = js
        .create_stream(other)
        .await
        .expect_err("it exists with another configuration");
    match error.kind() {
        jetstream::context::CreateStreamErrorKind::JetStream(e) => {
            assert_eq!(e.error_code(), ErrorCode::STREAM_NAME_EXIST);
        }
        kind => bail!("unexpected {kind:?}"),
    }
    js.create_stream(stream::Config {
        name: "T".into(),
        storage: StorageType::Memory,
        ..Default::default()
    })
    .await?;
    let names: BTreeSet<String> = js.stream_names().try_collect().await?;
    assert_eq!(names, BTreeSet::from(["S".into(), "T".into()]));
    assert_eq!(js.stream_by_subject("S.1").await?, "S");
    assert_eq!(js.query_account().await?.streams, 2);

    let third = stream.get_raw_message(3).await?;
    assert_eq!(
        (third.sequence, third.subject.as_str(), &third.payload[..]),
        (3, "S.1", &b"3"[..])
    );
    assert_eq!(
        stream
            .get_last_raw_message_by_subject("S.0")
            .await?
            .sequence,
        6
    );
    let direct = stream.direct_get(3).await?;
    assert_eq!((direct.sequence, direct.time), (3, third.time));
    assert_eq!(stream.direct_get_last_for_subject("S.1").await?.sequence, 5);
    assert_eq!(
        stream
            .direct_get_next_for_subject("S.0", Some(3))
            .await?
            .sequence,
        4
    );
    assert!(stream.direct_get(99).await.is_err());

    assert!(stream.delete_message(3).await?);
    assert!(stream.get_raw_message(3).await.is_err());
    let info = stream.info().await?.clone();
    assert_eq!(
        (info.state.messages, info.state.deleted_count),
        (5, Some(1))
    );
    let subjects: Vec<(String, usize)> =
        stream.info_with_subjects(">").await?.try_collect().await?;
    let subjects: BTreeSet<(String, usize)> = subjects.into_iter().collect();
    assert_eq!(
        subjects,
        BTreeSet::from([("S.0".into(), 3), ("S.1".into(), 2)])
    );
    assert_eq!(stream.purge().filter("S.0").keep(1).await?.purged, 2);
    assert_eq!(stream.purge().sequence(5).await?.purged, 1);
    assert_eq!(stream.purge().await?.purged, 2);
    let state = &stream.info().await?.state;
    assert_eq!(
        (state.messages, state.first_sequence, state.last_sequence),
        (0, 7, 6)
    );
    assert!(js.delete_stream("S").await?.success);
    assert!(js.get_stream("S").await.is_err());
    Ok(())
}

#[tokio::test]
async fn limits_and_retention_remove_messages() -> Result<()> {
    let Fixture {
        js,
        server: _server,
        ..
    } = fixture().await?;
    let config = |name: &str| stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.*")],
        ..Default::default()
    };
    let mut old = js
        .create_stream(stream::Config {
            max_messages: 2,
            ..config("OLD")
        })
        .await?;
    let new = stream::Config {
        max_messages: 2,
        discard: DiscardPolicy::New,
        ..config("NEW")
    };
    js.create_stream(new).await?;
    let each = stream::Config {
        max_messages_per_subject: 1,
        ..config("EACH")
    };
    let mut each = js.create_stream(each).await?;
    for n in 0..4 {
        js.publish("OLD.x", payload(n)).await?.await?;
        js.publish(format!("EACH.{}", n % 2), payload(n))
            .await?
            .await?;
    }
    assert_eq!(old.info().await?.state.first_sequence, 3);
    assert_eq!(each.info().await?.state.first_sequence, 3);
    js.publish("NEW.x", "1".into()).await?.await?;
    js.publish("NEW.x", "2".into()).await?.await?;
    assert!(js.publish("NEW.x", "3".into()).await?.await.is_err());

    let work = stream::Config {
        retention: RetentionPolicy::WorkQueue,
        ..config("WORK")
    };
    let mut work = js.create_stream(work).await?;
    for n in 1..=3 {
        js.publish("WORK.x", payload(n)).await?.await?;
    }
    let worker = work.create_consumer(explicit("worker")).await?;
    for message in fetch(&worker, 2).await? {
        ok(message.double_ack().await)?;
    }
    assert_eq!(work.info().await?.state.messages, 1);
    Ok(())
}

#[tokio::test]
async fn pull_consumers_fetch_and_settle() -> Result<()> {
    let Fixture {
        js,
        server: _server,
        ..
    } = fixture().await?;
    let stream = filled(&js, "PULL", 6).await?;
    let config = consumer::pull::Config {
        ack_wait: Duration::from_secs(1),
        ..explicit("worker")
    };
    let mut worker = stream.create_consumer(config).await?;
    // All are handed out, so that only what is redelivered can come again.
    let messages = fetch(&worker, 6).await?;
    let info = ok(messages[1].info())?;
    assert_eq!((info.stream, info.consumer), ("PULL", "worker"));
    assert_eq!(
        (info.stream_sequence, info.delivered, info.pending),
        (2, 1, 4)
    );
    ok(messages[0].double_ack().await)?;
    ok(messages[1].ack_with(AckKind::Nak(None)).await)?;
    let again = fetch(&worker, 1).await?.remove(0);
    assert_eq!((number(&again)?, ok(again.info())?.delivered), (2, 2));
    ok(again.double_ack().await)?;
    let delay = Duration::from_millis(200);
    let asked = Instant::now();
    ok(messages[2].ack_with(AckKind::Nak(Some(delay))).await)?;
    ok(messages[3].double_ack_with(AckKind::Term).await)?;
    ok(messages[4].double_ack().await)?;
    // Number 3 comes again after its delay, number 6 after its ack wait.
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        for message in fetch(&worker, 1).await? {
            let n = number(&message)?;
            ensure!(n != 3 || asked.elapsed() >= delay, "3 came too early");
            ensure!([3, 6].contains(&n), "{n} was settled");
            ok(message.double_ack().await)?;
            seen.insert(n);
        }
    }
    let info = worker.info().await?;
    assert_eq!(
        (
            info.ack_floor.stream_sequence,
            info.num_ack_pending,
            info.num_pending
        ),
        (6, 0, 0)
    );

    let mut empty = worker.fetch().max_messages(10).messages().await?;
    assert!(
        timeout(LIMIT, empty.next()).await?.is_none(),
        "a fetch of nothing ends at once"
    );

    let once = consumer::pull::Config {
        ack_wait: Duration::from_millis(100),
        max_deliver: 2,
        filter_subject: "PULL.0".into(),
        ..explicit("twice")
    };
    let twice = stream.create_consumer(once).await?;
    let mut counts = Vec::new();
    for _ in 0..2 {
        for message in fetch(&twice, 3).await? {
            counts.push((number(&message)?, ok(message.info())?.delivered));
        }
    }
    counts.sort_unstable();
    assert_eq!(counts, [(2, 1), (2, 2), (4, 1), (4, 2), (6, 1), (6, 2)]);
    Ok(())
}

#[tokio::test]
async fn a_continuous_pull_consumer_keeps_up() -> Result<()> {
    let Fixture {
        js,
        server: _server,
        ..
    } = fixture().await?;
    let stream = filled(&js, "FLOW", 0).await?;
    let worker = stream.create_consumer(explicit("worker")).await?;
    let publisher = js.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..2000 {
            publisher.publish("FLOW.x", payload(n)).await?;
        }
        anyhow::Ok(())
    });
    let mut messages = worker
        .stream()
        .max_messages_per_batch(100)
        .messages()
        .await?;
    for expected in 0..2000 {
        let message = timeout(LIMIT, messages.next())
            .await?
            .context("the stream ended")??;
        assert_eq!(number(&message)?, expected);
        ok(message.ack().await)?;
    }
    publishing.await??;
    Ok(())
}

#[tokio::test]
async fn push_and_ordered_consumers_deliver_in_order() -> Result<()> {
    let Fixture {
        client,
        js,
        server: _server,
    } = fixture().await?;
    let stream = filled(&js, "PUSH", 500).await?;
    let push: PushConsumer = stream
        .create_consumer(consumer::push::Config {
            deliver_subject: client.new_inbox(),
            durable_name: Some("push".into()),
            flow_control: true,
            idle_heartbeat: Duration::from_millis(200),
            ..Default::default()
        })
        .await?;
    let mut messages = push.messages().await?;
    for expected in 1..=500 {
        let message = timeout(LIMIT, messages.next())
            .await?
            .context("the stream ended")??;
        assert_eq!(number(&message)?, expected);
        ok(message.ack().await)?;
    }
    let ordered = stream
        .create_consumer(consumer::pull::OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: 101,
            },
            ..Default::default()
        })
        .await?;
    let mut messages = ordered.messages().await?;
    for expected in 101..=500 {
        let message = timeout(LIMIT, messages.next())
            .await?
            .context("the stream ended")??;
        assert_eq!(number(&message)?, expected);
    }
    let ordered = stream
        .create_consumer(consumer::push::OrderedConfig {
            deliver_subject: client.new_inbox(),
            filter_subject: "PUSH.1".into(),
            ..Default::default()
        })
        .await?;
    let mut messages = ordered.messages().await?;
    for expected in (1..=500).step_by(2) {
        let message = timeout(LIMIT, messages.next())
            .await?
            .context("the stream ended")??;
        assert_eq!(number(&message)?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn consumers_are_managed() -> Result<()> {
    let Fixture {
        js,
        server: _server,
        ..
    } = fixture().await?;
    let stream = filled(&js, "C", 4).await?;
    stream.create_consumer(explicit("a")).await?;
    stream.create_consumer(explicit("a")).await?;
    let policies = [
        (DeliverPolicy::All, 4),
        (DeliverPolicy::Last, 1),
        (DeliverPolicy::New, 0),
        (DeliverPolicy::ByStartSequence { start_sequence: 3 }, 2),
    ];
    for (deliver_policy, pending) in policies {
        let config = consumer::pull::Config {
            deliver_policy,
            ..explicit("b")
        };
        let mut consumer = stream.create_consumer(config).await?;
        assert_eq!(
            consumer.info().await?.num_pending,
            pending,
            "{deliver_policy:?}"
        );
        stream.delete_consumer("b").await?;
    }
    let ephemeral = stream
        .create_consumer(consumer::pull::Config::default())
        .await?;
    let name = ephemeral.cached_info().name.clone();
    let names: BTreeSet<String> = stream.consumer_names().try_collect().await?;
    assert_eq!(names, BTreeSet::from(["a".into(), name]));
    assert!(stream.delete_consumer("a").await?.success);
    let error = stream
        .get_consumer::<consumer::pull::Config>("a")
        .await
        .expect_err("deleted");
    ensure!(error.to_string().contains("consumer not found"), "{error}");
    Ok(())
}

#[tokio::test]
async fn key_value_buckets_work() -> Result<()> {
    let Fixture {
        js,
        server: _server,
        ..
    } = fixture().await?;
    let config = kv::Config {
        bucket: "bucket".into(),
        history: 3,
        ..Default::default()
    };
    let bucket = js.create_key_value(config).await?;
    assert_eq!(bucket.put("a", "1".into()).await?, 1);
    assert_eq!(bucket.get("a").await?, Some("1".into()));
    assert_eq!(bucket.get("b").await?, None);
    assert_eq!(bucket.update("a", "2".into(), 1).await?, 2);
    let error = bucket
        .update("a", "3".into(), 1)
        .await
        .expect_err("the revision is 2");
    assert_eq!(error.kind(), kv::UpdateErrorKind::WrongLastRevision);
    assert_eq!(bucket.create("b", "new".into()).await?, 3);
    assert!(bucket.create("b", "again".into()).await.is_err());
    let mut watch = bucket.watch_with_history("a").await?;
    let entry = timeout(LIMIT, watch.next())
        .await?
        .context("the watch ended")??;
    assert_eq!((entry.key.as_str(), entry.revision), ("a", 2));
    bucket.delete("a").await?;
    let entry = timeout(LIMIT, watch.next())
        .await?
        .context("the watch ended")??;
    assert_eq!(
        (entry.operation, entry.revision),
        (kv::Operation::Delete, 4)
    );
    assert_eq!(bucket.get("a").await?, None);
    let history: Vec<u64> = bucket
        .history("a")
        .await?
        .map_ok(|entry| entry.revision)
        .try_collect()
        .await?;
    assert_eq!(history, [1, 2, 4]);
    bucket.purge("a").await?;
    let keys: Vec<String> = bucket.keys().await?.try_collect().await?;
    assert_eq!(keys, ["b"]);
    let status = bucket.status().await?;
    assert_eq!((status.bucket(), status.history()), ("bucket", 3));
    js.delete_key_value("bucket").await?;
    assert!(js.get_key_value("bucket").await.is_err());
    Ok(())
}

#[tokio::test]
async fn object_buckets_work() -> Result<()> {
    use tokio::io::AsyncReadExt;

    let Fixture {
        js,
        server: _server,
        ..
    } = fixture().await?;
    let config = object_store::Config {
        bucket: "files".into(),
        ..Default::default()
    };
    let bucket = js.create_object_store(config).await?;
    let large: Vec<u8> = (0..3_000_017_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let info = bucket.put("large", &mut large.as_slice()).await?;
    ensure!(info.size == large.len() && info.chunks > 20, "{info:?}");
    let mut object = bucket.get("large").await?;
    let mut read = Vec::new();
    object.read_to_end(&mut read).await?;
    assert!(read == large, "the object came back changed");

    let mut watch = bucket.watch().await?;
    bucket.put("small", &mut b"hello".as_slice()).await?;
    let seen = timeout(LIMIT, watch.next())
        .await?
        .context("the watch ended")??;
    assert_eq!((seen.name.as_str(), seen.size), ("small", 5));
    let mut names: Vec<String> = bucket
        .list()
        .await?
        .map_ok(|info| info.name)
        .try_collect()
        .await?;
    names.sort();
    assert_eq!(names, ["large", "small"]);
    bucket.delete("large").await?;
    assert!(bucket.get("large").await.is_err());
    assert!(
        timeout(LIMIT, watch.next())
            .await?
            .context("the watch ended")??
            .deleted
    );
    Ok(())
}

#[tokio::test]
async fn the_websocket_port_speaks_nats() -> Result<()> {
    let server = TestServer::start(ServerOptions::default().with_websocket())?;
    let url = server
        .websocket_url()
        .context("the test asked for WebSocket")?;
    let client = connect::options(&server).connect(url).await?;
    let js = jetstream::new(client.clone());
    filled(&js, "WS", 3).await?;
    let mut subscriber = client.subscribe("large").await?;
    let large = Bytes::from(vec![9_u8; 1_000_000]);
    client.publish("large", large.clone()).await?;
    assert_eq!(next(&mut subscriber).await?.payload, large);
    let plain = connect::connect(&server).await?;
    let stream = jetstream::new(plain).get_stream("WS").await?;
    let worker = stream.create_consumer(explicit("worker")).await?;
    assert_eq!(fetch_numbers(&worker, 3).await?, [1, 2, 3]);
    Ok(())
}
