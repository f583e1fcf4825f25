//! The way into the running server: streams as backups that it restores, everything else by its
//! own requests. Whatever is there already stays as it is, so that an import can be repeated.

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use menes_jetstream::Timestamp;
use menes_jetstream::archive::{self, Entry, Packer};
use menes_jetstream::consumer::ConsumerConfig;
use menes_jetstream::stream::{StreamConfig, StreamState};
use menes_protocol::headers::HeaderBlock;
use menes_stations::Outbound;
use serde_json::{Value, json};

use super::super::server::Server;
use super::super::{Outcome, Trouble};
use super::metadata::{SchemaRow, VersionRow};
use super::store::{StoredStream, Survey};

/// Bytes of a piece of a backup; below the smallest usual limit of a message.
const PIECE: usize = 256 << 10;
/// Time for a piece to be taken, and for all of them to be stored.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
const FINISH_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the server may take to give up what an import that was interrupted has left half done,
/// and how often it is asked.
const HALF_DONE: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// JetStream error codes.
const STREAM_NOT_FOUND: u64 = 10_059;
const RESTORE_NAME_IN_USE: u64 = 10_130;
const WRONG_LAST_SEQUENCE: [u64; 2] = [10_071, 10_164];

/// What became of something that was to be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    There,
}

/// A durable on its way.
pub(super) struct Durable {
    pub(super) name: String,
    pub(super) config: ConsumerConfig,
    /// Deliveries, and messages of the stream, up to which all is settled.
    pub(super) ack_floor: (u64, u64),
}

/// Restores a stream, unless the server has it already.
pub(super) async fn stream(
    server: &Server,
    config: &StreamConfig,
    stored: &StoredStream,
    survey: &Survey,
    durables: &[Durable],
) -> Outcome<Taken> {
    let state = StreamState {
        messages: survey.messages,
        bytes: survey.bytes,
        first_seq: survey.first,
        first_ts: Timestamp(survey.first_time),
        last_seq: survey.last,
        last_ts: Timestamp(survey.last_time),
        consumer_count: durables.len() as u64,
        ..StreamState::default()
    };
    let request = json!({"config": config, "state": state});
    let deadline = Instant::now() + HALF_DONE;
    let deliver = loop {
        if is_there(server, config, stored, survey).await? {
            return Ok(Taken::There);
        }
        if let Some(deliver) = begin(server, &config.name, &request, deadline).await? {
            break deliver;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    let mut sender = Sender {
        server,
        deliver: &deliver,
        packer: Packer::default(),
    };
    sender.packer.push(archive::MAGIC);
    let now = jiff::Timestamp::now().as_nanosecond();
    let now = i64::try_from(now).unwrap_or(0);
    let note = |name: String, body: &Value| Entry {
        name: name.into_bytes(),
        time: now,
        payload: body.to_string().into_bytes(),
        ..Entry::default()
    };
    sender
        .entry(&note("state.json".to_owned(), &json!(state)))
        .await?;
    for durable in durables {
        let floor = json!({"consumer_seq": durable.ack_floor.0, "stream_seq": durable.ack_floor.1});
        let body = json!({
            "config": durable.config,
            "state": {"delivered": floor, "ack_floor": floor},
        });
        let name = format!("consumers/{}", durable.name);
        sender.entry(&note(name, &body)).await?;
    }
    let mut previous = 0;
    for at in 0..stored.block_count() {
        let entries = stored.block(at, survey, &mut previous);
        for entry in entries.map_err(Trouble::Failed)? {
            sender.entry(&entry).await?;
        }
    }
    sender.finish().await?;
    Ok(Taken::New)
}

/// Begins to restore a stream; where its backup goes. None if the stream is neither there nor free
/// yet: an import that was interrupted had begun with it, and the server waits for its rest.
async fn begin(
    server: &Server,
    name: &str,
    request: &Value,
    deadline: Instant,
) -> Outcome<Option<String>> {
    let subject = format!("$JS.API.STREAM.RESTORE.{name}");
    let answer = ask(server, &subject, request).await?;
    let error = &answer["error"];
    if error["err_code"].as_u64() == Some(RESTORE_NAME_IN_USE) && Instant::now() < deadline {
        return Ok(None);
    }
    // An answer with an error has the field too.
    match (answer["deliver_subject"].as_str(), error) {
        (Some(deliver), Value::Null) => Ok(Some(deliver.to_owned())),
        _ => Err(Trouble::Failed(format!("{subject}: {answer}"))),
    }
}

/// Whether the server has a stream, and it is this one.
async fn is_there(
    server: &Server,
    config: &StreamConfig,
    stored: &StoredStream,
    survey: &Survey,
) -> Outcome<bool> {
    let name = &config.name;
    let answer = ask(server, &format!("$JS.API.STREAM.INFO.{name}"), &json!({})).await?;
    if answer["error"]["err_code"].as_u64() == Some(STREAM_NOT_FOUND) {
        return Ok(false);
    }
    let error = answer["error"]["description"].as_str();
    if let Some(text) = error {
        return Err(Trouble::Failed(format!("stream {name}: {text}")));
    }
    let other = || Trouble::Conflict(format!("stream {name} exists already with other messages"));
    if answer["state"]["last_seq"].as_u64().unwrap_or(0) < survey.last {
        return Err(other());
    }
    // The last message tells, if it is not gone meanwhile.
    let mut previous = survey.last.saturating_sub(1);
    let last = match stored.block_count().checked_sub(1) {
        Some(at) => stored.block(at, survey, &mut previous),
        None => Ok(Vec::new()),
    };
    let Some(last) = last.map_err(Trouble::Failed)?.pop() else {
        return Ok(true);
    };
    let subject = format!("$JS.API.STREAM.MSG.GET.{name}");
    let answer = ask(server, &subject, &json!({"seq": last.seq})).await?;
    let Some(time) = answer["message"]["time"].as_str() else {
        return Ok(true);
    };
    let time = time
        .parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_nanosecond);
    match time {
        Ok(time) if time == i128::from(last.time) => Ok(true),
        _ => Err(other()),
    }
}

/// A question whose answer may be a refusal that means something.
async fn ask(server: &Server, subject: &str, body: &Value) -> Outcome<Value> {
    let answer = server
        .request(subject, HeaderMap::new(), body.to_string().into_bytes())
        .await?;
    serde_json::from_slice(&answer).map_err(|error| Trouble::Failed(format!("{subject}: {error}")))
}

/// Sends a backup in pieces, each once the one before was taken.
struct Sender<'a> {
    server: &'a Server,
    deliver: &'a str,
    packer: Packer,
}

impl Sender<'_> {
    async fn entry(&mut self, entry: &Entry) -> Outcome {
        let mut plain = Vec::new();
        entry.write(&mut plain);
        self.packer.push(&plain);
        while self.packer.ready() >= PIECE {
            self.piece(PIECE_TIMEOUT).await?;
        }
        Ok(())
    }

    async fn piece(&mut self, limit: Duration) -> Outcome<Value> {
        let piece = self.packer.take(PIECE);
        let request = async_nats::Request::new()
            .payload(piece.into())
            .timeout(Some(limit));
        let answer = self
            .server
            .client
            .send_request(self.deliver.to_owned(), request)
            .await
            .map_err(|error| Trouble::Unreachable(format!("restore: {error}")))?;
        if answer.payload.is_empty() {
            return Ok(Value::Null);
        }
        let answer: Value = serde_json::from_slice(&answer.payload)
            .map_err(|error| Trouble::Failed(format!("restore: {error}")))?;
        match answer["error"]["description"].as_str() {
            Some(text) => Err(Trouble::Failed(text.to_owned())),
            None => Ok(answer),
        }
    }

    async fn finish(mut self) -> Outcome {
        self.entry(&Entry::default()).await?;
        self.packer.finish();
        while self.packer.ready() > 0 {
            self.piece(PIECE_TIMEOUT).await?;
        }
        // An empty piece is the end.
        self.piece(FINISH_TIMEOUT).await?;
        Ok(())
    }
}

/// Stores a message, unless the stream has it already.
pub(super) async fn message(server: &Server, message: &Outbound) -> Outcome<Taken> {
    let mut headers = HeaderMap::new();
    let block = HeaderBlock::parse(&message.header);
    for (name, value) in block.iter().flat_map(HeaderBlock::iter) {
        let name = String::from_utf8_lossy(name).into_owned();
        let value = String::from_utf8_lossy(value).into_owned();
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    let payload = message.payload.to_vec();
    let answer = server.request(&message.subject, headers, payload).await?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| Trouble::Failed(format!("{}: {error}", message.subject)))?;
    let error = &answer["error"];
    if error["err_code"]
        .as_u64()
        .is_some_and(|code| WRONG_LAST_SEQUENCE.contains(&code))
        || answer["duplicate"] == true
    {
        return Ok(Taken::There);
    }
    match error["description"].as_str() {
        Some(text) => Err(Trouble::Failed(text.to_owned())),
        None => Ok(Taken::New),
    }
}

/// Makes a stream unless there is one of this name.
pub(super) async fn ensure_stream(server: &Server, config: &StreamConfig) -> Outcome {
    let subject = format!("$JS.API.STREAM.INFO.{}", config.name);
    let answer = ask(server, &subject, &json!({})).await?;
    if answer["error"]["err_code"].as_u64() == Some(STREAM_NOT_FOUND) {
        let subject = format!("$JS.API.STREAM.CREATE.{}", config.name);
        server.call(&subject, &json!(config)).await?;
    }
    Ok(())
}

/// Whether the version of a schema at this place, from 0, is there and the same.
pub(super) async fn has_version(
    server: &Server,
    schema: &SchemaRow,
    at: usize,
    version: &VersionRow,
) -> Outcome<bool> {
    let known = server
        .ask("SCHEMA.INFO", json!({"name": schema.name}))
        .await?;
    Ok(known["versions"][at]["content"] == version.schema_content.as_str())
}

/// Makes a user. One who came before without a password gets it.
pub(super) async fn user(server: &Server, body: Value, hash: Option<&str>) -> Outcome<Taken> {
    let name = body["user"].clone();
    let taken = make(server, "USER.CREATE", body).await?;
    let Some(hash) = hash.filter(|_| taken == Taken::There) else {
        return Ok(taken);
    };
    let known = server.ask("USER.INFO", json!({"user": name})).await?;
    if known["has_password"] == false {
        let body = json!({"user": name, "password_hash": hash});
        server.ask("USER.PASSWORD", body).await?;
    }
    Ok(taken)
}

/// Asks the broker to make something; there already is as good as made.
pub(super) async fn make(server: &Server, what: &str, body: Value) -> Outcome<Taken> {
    match server.ask(what, body).await {
        Ok(_) => Ok(Taken::New),
        Err(Trouble::Conflict(_)) => Ok(Taken::There),
        Err(trouble) => Err(trouble),
    }
}
