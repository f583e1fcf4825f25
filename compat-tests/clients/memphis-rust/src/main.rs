//! memphis-rust-community against a running server: every call of the SDK that reaches it.
//!
//! Behind the scenes means the same connection's JetStream and the broker's own interface: what the
//! SDK cannot ask for is looked at there.

use std::env;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use memphis_rust_community::consumer::{MemphisConsumerOptions, MemphisMessage};
use memphis_rust_community::memphis_client::MemphisClient;
use memphis_rust_community::producer::{
    ComposableMessage, MemphisProducer, MemphisProducerOptions,
};
use memphis_rust_community::station::{MemphisStation, MemphisStationsOptions, RetentionType};
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

fn check<T: PartialEq + std::fmt::Debug>(label: &str, seen: T, expected: T) -> Result<()> {
    println!("{label}: {seen:?}");
    if seen == expected {
        return Ok(());
    }
    Err(format!("{label}: saw {seen:?}, expected {expected:?}").into())
}

fn check_error<T>(
    label: &str,
    result: std::result::Result<T, impl std::fmt::Display>,
    part: &str,
) -> Result<()> {
    let Err(error) = result else {
        return Err(format!("{label}: no error").into());
    };
    println!("{label}: {error}");
    if error.to_string().contains(part) {
        return Ok(());
    }
    Err(format!("{label}: {error} does not contain {part:?}").into())
}

/// Repeats a question until its answer is true.
async fn eventually<F: Future<Output = Result<bool>>>(
    label: &str,
    mut probe: impl FnMut() -> F,
) -> Result<()> {
    timeout(LIMIT, async {
        while !probe().await? {
            sleep(POLL).await;
        }
        Ok(())
    })
    .await
    .unwrap_or_else(|_| Err(format!("{label}: not within {LIMIT:?}").into()))
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

async fn connect(user: &str, password: &str, account: Option<&str>) -> Result<MemphisClient> {
    let host = format!("{}:{}", variable("MEMPHIS_HOST"), variable("MEMPHIS_PORT"));
    Ok(MemphisClient::new(&host, user, password, account).await?)
}

/// A request to the broker's own interface.
async fn ask(client: &MemphisClient, what: &str, body: Value) -> Result<Value> {
    let reply = client
        .get_broker_connection()
        .request(format!("$MENES.API.{what}"), body.to_string().into())
        .await?;
    let answer: Value = serde_json::from_slice(&reply.payload)?;
    match answer.get("error") {
        Some(error) => Err(format!("{what}: {error}").into()),
        None => Ok(answer),
    }
}

async fn letters(client: &MemphisClient, station: &str) -> Result<Vec<Value>> {
    let answer = ask(client, "DEAD_LETTER.LIST", json!({"station": station})).await?;
    Ok(answer["dead_letters"]
        .as_array()
        .cloned()
        .unwrap_or_default())
}

/// Streams that are there, of those a station's partitions would be.
async fn streams(client: &MemphisClient, name: &str) -> usize {
    let mut found = 0;
    for partition in 1..=3 {
        let stream = client
            .get_jetstream_context()
            .get_stream(format!("{name}${partition}"));
        found += usize::from(stream.await.is_ok());
    }
    found
}

async fn producer(station: &MemphisStation, name: &str) -> Result<MemphisProducer> {
    let options = MemphisProducerOptions::new(name).with_generate_unique_suffix(false);
    Ok(station.create_producer(options).await?)
}

fn text(text: &str) -> ComposableMessage {
    ComposableMessage::new().with_payload(text.to_owned())
}

async fn next(messages: &mut UnboundedReceiver<MemphisMessage>) -> Result<MemphisMessage> {
    let next = timeout(LIMIT, messages.recv()).await?;
    next.ok_or_else(|| "the consumer has ended".into())
}

async fn take(
    messages: &mut UnboundedReceiver<MemphisMessage>,
    count: usize,
) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let message = next(messages).await?;
        seen.push(message.get_data_as_string()?);
        message.ack().await?;
    }
    Ok(seen)
}

async fn stations(client: &MemphisClient) -> Result<()> {
    let options = || MemphisStationsOptions::new("Rs.Station").with_partition_number(3);
    client.create_station(options()).await?;
    let station = client.create_station(options()).await?;
    check(
        "a stream for each partition",
        streams(client, "rs#station").await,
        3,
    )?;
    let limited = MemphisStationsOptions::new("rs.limited")
        .with_retention_type(RetentionType::Messages)
        .with_retention_value(7);
    client.create_station(limited).await?;
    let mut stream = client
        .get_jetstream_context()
        .get_stream("rs#limited$1")
        .await?;
    check("retention", stream.info().await?.config.max_messages, 7)?;

    let mut made = producer(&station, "Prod.R").await?;
    let mut acks = Vec::new();
    for n in 0..4 {
        let message = text(&n.to_string())
            .with_header("k", "v")
            .with_msg_id(format!("id{n}"));
        acks.push(made.produce(message).await?.await?);
    }
    let placed: Vec<(&str, u64)> = acks
        .iter()
        .map(|ack| (ack.stream.as_str(), ack.sequence))
        .collect();
    // The SDK steps before it sends the first.
    let expected = vec![
        ("rs#station$2", 1),
        ("rs#station$3", 1),
        ("rs#station$1", 1),
        ("rs#station$2", 2),
    ];
    check("partitions in turn", placed, expected)?;
    let again = text("again").with_msg_id("id2");
    let ack = made.produce_to_partition(Some(1), again).await?.await?;
    check("the same id", (ack.sequence, ack.duplicate), (1, true))?;
    check_error(
        "no such partition",
        made.produce_to_partition(Some(9), text("x")).await,
        "not valid",
    )?;

    let options = MemphisConsumerOptions::new("Cons.R").with_consumer_group("Grp.R");
    let consumer = station.create_consumer(options).await?;
    let mut messages = consumer.consume().await?;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let message = next(&mut messages).await?;
        let headers = message.get_headers().clone().ok_or("no headers")?;
        let header = |name: &str| headers.get(name).map(|value| value.to_string());
        check(
            "headers",
            [header("k"), header("$memphis_producedBy")],
            [Some("v".into()), Some("prod.r".into())],
        )?;
        seen.push(message.get_data_as_string()?);
        message.ack().await?;
    }
    seen.sort();
    check("consumed from all partitions", seen, ["0", "1", "2", "3"].map(String::from).to_vec())?;
    eventually("acknowledged", || async {
        let groups = ask(client, "GROUP.LIST", json!({"station": "rs.station"})).await?;
        let group = &groups["groups"][0];
        Ok(group["group"] == "grp.r" && group["lag"] == 0 && group["in_process"] == 0)
    })
    .await?;

    consumer.destroy().await?;
    let groups = ask(client, "GROUP.LIST", json!({"station": "rs.station"})).await?;
    check("its group is gone", groups["groups"].clone(), json!([]))?;
    made.destroy().await?;
    station.clone().destroy().await?;
    check("its streams are gone", streams(client, "rs#station").await, 0)?;
    let again = station.destroy().await;
    println!("destroyed again: {again:?}");
    Ok(())
}

async fn dead_letters(client: &MemphisClient) -> Result<()> {
    let station = client
        .create_station(MemphisStationsOptions::new("rs.dead"))
        .await?;
    let mut made = producer(&station, "prod").await?;
    for name in ["delayed", "left", "kept"] {
        made.produce(text(name)).await?.await?;
    }
    let options = MemphisConsumerOptions::new("c")
        .with_consumer_group("Grp.D")
        .with_max_ack_time(Duration::from_secs(1))
        .with_max_msg_deliveries(2);
    let consumer = station.create_consumer(options).await?;
    let mut messages = consumer.consume().await?;
    let mut letters_of_group = consumer.consume_dls().await?;

    let delayed = next(&mut messages).await?;
    check("the first", delayed.get_data_as_string()?, "delayed".into())?;
    delayed
        .delay(Duration::from_millis(1500))
        .await
        .map_err(|()| "not delayed")?;
    drop(delayed);
    let left = next(&mut messages).await?;
    check("the second", left.get_data_as_string()?, "left".into())?;
    // While a message is held, the SDK says that it is being worked on; one that is dropped is late.
    drop(left);
    let kept = next(&mut messages).await?;
    check("the third", kept.get_data_as_string()?, "kept".into())?;

    let mut again = Vec::new();
    while again.len() < 2 {
        let message = next(&mut messages).await?;
        let name = message.get_data_as_string()?;
        if name == "delayed" {
            message.ack().await?;
        }
        again.push(name);
    }
    again.sort();
    check("these come again", again, vec!["delayed".into(), "left".to_owned()])?;
    eventually("what was left twice is a dead letter", || async {
        Ok(letters(client, "rs.dead").await?.len() == 1)
    })
    .await?;
    let letter = &letters(client, "rs.dead").await?[0];
    check(
        "of its group",
        (letter["group"].clone(), letter["sequence"].clone()),
        (json!("grp.d"), json!(2)),
    )?;
    kept.ack().await?;

    ask(client, "DEAD_LETTER.RESEND", json!({"station": "rs.dead"})).await?;
    let resent = timeout(LIMIT, letters_of_group.recv())
        .await?
        .ok_or("the dead letters have ended")?;
    check("resent", resent.payload.to_vec(), b"left".to_vec())?;
    let headers = resent.headers.ok_or("no headers")?;
    let header = |name: &str| headers.get(name).map(|value| value.to_string());
    let (id, group) = (header("$memphis_pm_id"), header("$memphis_pm_cg_name"));
    check("for this group", group.clone(), Some("grp.d".into()))?;
    // What the SDK sends when such a message is acknowledged: the number as a text, and it waits.
    let confirmation = json!({"id": id, "cg_name": group}).to_string();
    let reply = client
        .get_broker_connection()
        .request("$memphis_pm_acks".into(), confirmation.into())
        .await?;
    check("confirmed", reply.payload.is_empty(), true)?;
    eventually("settled", || async {
        Ok(letters(client, "rs.dead").await?.is_empty())
    })
    .await?;
    consumer.destroy().await?;
    Ok(())
}

/// The SDK never looks at a schema, so the broker does.
async fn schemas(client: &MemphisClient) -> Result<()> {
    let definition = r#"{"type":"object","properties":{"f":{"type":"string"}},"required":["f"]}"#;
    ask(
        client,
        "SCHEMA.CREATE",
        json!({"name": "rs-person", "type": "json", "content": definition}),
    )
    .await?;
    let mut options = MemphisStationsOptions::new("rs.schema");
    options.schema_name = "rs-person".into();
    let station = client.create_station(options).await?;
    let mut made = producer(&station, "prod").await?;
    made.produce(text(r#"{"f":"x"}"#)).await?.await?;
    check_error(
        "refused by the broker",
        made.produce(text(r#"{"g":1}"#)).await?.await,
        "",
    )?;
    eventually("kept as a dead letter", || async {
        Ok(letters(client, "rs.schema").await?.len() == 1)
    })
    .await?;
    let mut stream = client
        .get_jetstream_context()
        .get_stream("rs#schema$1")
        .await?;
    check("stored", stream.info().await?.state.messages, 1)?;
    let mut missing = MemphisStationsOptions::new("rs.other");
    missing.schema_name = "missing".into();
    check_error(
        "no such schema",
        client.create_station(missing).await,
        "",
    )?;
    Ok(())
}

async fn logins(client: &MemphisClient) -> Result<()> {
    const PASSWORD: &str = "Secret-1!";
    let user = |tenant: &str| json!({"user": "crab", "password": PASSWORD, "tenant": tenant});
    ask(client, "USER.CREATE", json!({"user": "crab", "password": PASSWORD})).await?;
    let tenant = ask(client, "TENANT.CREATE", json!({"tenant": "other"})).await?;
    ask(client, "USER.CREATE", user("other")).await?;
    let id = tenant["id"].to_string();
    let bare = connect("crab", PASSWORD, None).await?;
    let elsewhere = connect("crab", PASSWORD, Some(&id)).await?;
    for (name, client) in [("here", &bare), ("there", &elsewhere)] {
        let station = client
            .create_station(MemphisStationsOptions::new("rs.logins"))
            .await?;
        producer(&station, name).await?.produce(text(name)).await?.await?;
    }
    let station = elsewhere
        .create_station(MemphisStationsOptions::new("rs.logins"))
        .await?;
    let consumer = station
        .create_consumer(MemphisConsumerOptions::new("c"))
        .await?;
    let mut messages = consumer.consume().await?;
    check(
        "only what its tenant produced",
        take(&mut messages, 1).await?,
        vec!["there".into()],
    )?;
    // The SDK goes on trying: what counts is that it is not let in.
    let wrong = timeout(Duration::from_secs(2), connect("crab", "Wrong-1!", None)).await;
    check("a wrong password", matches!(wrong, Ok(Ok(_))), false)?;
    ask(client, "USER.DELETE", json!({"user": "crab"})).await?;
    eventually("a user who is gone is sent away", || async {
        Ok(!bare.is_connected())
    })
    .await?;
    check("that of the other tenant stays", elsewhere.is_connected(), true)
}

/// Goes on after the server was ended and started again; whoever runs this does that when told.
async fn reconnects(client: &MemphisClient) -> Result<()> {
    let station = client
        .create_station(MemphisStationsOptions::new("rs.again"))
        .await?;
    let mut made = producer(&station, "prod").await?;
    let options = MemphisConsumerOptions::new("c").with_consumer_group("g");
    let consumer = station.create_consumer(options).await?;
    let mut messages = consumer.consume().await?;
    made.produce(text("before")).await?.await?;
    check("before", take(&mut messages, 1).await?, vec!["before".into()])?;

    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    timeout(LIMIT * 2, lines.next_line()).await??;

    // What is sent while nobody listens fails; the same call works when the server is back.
    let mut stored = None;
    for _ in 0..50 {
        if let Ok(ack) = made.produce(text("after").with_msg_id("after")).await?.await {
            stored = Some(ack.sequence);
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    check("stored after the restart", stored, Some(2))?;
    check("and consumed", take(&mut messages, 1).await?, vec!["after".into()])?;
    // The answers to the acks come from the connection that was there before, too.
    let mut subscription = client
        .get_broker_connection()
        .subscribe("rs.plain".into())
        .await?;
    client
        .get_broker_connection()
        .publish("rs.plain".into(), "x".into())
        .await?;
    let plain = timeout(LIMIT, subscription.next()).await?;
    check("plain messages, too", plain.is_some(), true)
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = connect(&variable("NATS_USER"), &variable("NATS_PASSWORD"), None).await?;
    match env::args().nth(1).as_deref() {
        Some("stations") => stations(&client).await,
        Some("dead-letters") => dead_letters(&client).await,
        Some("schemas") => schemas(&client).await,
        Some("logins") => logins(&client).await,
        Some("reconnects") => reconnects(&client).await,
        other => Err(format!("no scenario {other:?}").into()),
    }
}
