//! Live views: server-sent events.
//!
//! ```text
//!   GET /events?topics=overview,station:orders,dead-letters:orders
//!   GET /stations/orders/tail
//! ```
//!
//! A topic is looked at every second as its user would, and sent when it is not what was sent
//! before: a client that comes again has the whole of it with the first event. Dead letters and the
//! messages of a tail are sent one by one; the id of an event says where the next one continues, so
//! that `Last-Event-ID` loses none.
//!
//! # Invariants
//!
//! 1. What waits for a client is bounded: one that does not read for [`PATIENCE`] is let go.
//! 2. A client that is idle hears something every [`HEARTBEAT`].
//! 3. The views that are open are bounded, together and for each session.
//! 4. A view does not outlive its session. One whose request brought the password itself keeps the
//!    session; one with a token does not.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::answer::{Answer, Content, Problem};
use super::{Management, ask};
use crate::http::session::Session;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same for the messages of a tail.
const TAIL_INTERVAL: Duration = Duration::from_millis(300);
/// Longest silence.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client may read nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events that wait for a client.
const WAITING: usize = 16;
/// Most topics of a client.
const MAX_TOPICS: usize = 16;
/// Live views open at a time.
pub(super) const MAX_VIEWS: usize = 128;
/// The same of one session.
const MAX_VIEWS_OF_SESSION: usize = 16;
/// Dead letters of one event at most, and messages looked at in one go.
const PAGE: u64 = 100;

/// What a client follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Overview,
    Stations,
    Station(String),
    Groups(String),
    /// Of one station, or of all.
    DeadLetters(Option<String>),
}

impl Topic {
    fn parse(text: &str) -> Option<Self> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) if !name.is_empty() => (kind, Some(name.to_owned())),
            Some(_) => return None,
            None => (text, None),
        };
        match (kind, name) {
            ("overview", None) => Some(Self::Overview),
            ("stations", None) => Some(Self::Stations),
            ("station", Some(name)) => Some(Self::Station(name)),
            ("groups", Some(name)) => Some(Self::Groups(name)),
            ("dead-letters", name) => Some(Self::DeadLetters(name)),
            _ => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Overview => "overview".to_owned(),
            Self::Stations => "stations".to_owned(),
            Self::Station(name) => format!("station:{name}"),
            Self::Groups(name) => format!("groups:{name}"),
            Self::DeadLetters(None) => "dead-letters".to_owned(),
            Self::DeadLetters(Some(name)) => format!("dead-letters:{name}"),
        }
    }

    /// What is asked for, and under which name the answer has it.
    fn question(&self) -> Option<(&'static str, Value)> {
        Some(match self {
            Self::Overview | Self::DeadLetters(_) => return None,
            Self::Stations => ("STATION.LIST", json!({"figures": true, "limit": 1_000})),
            Self::Station(name) => ("STATION.INFO", json!({"station": name, "figures": true})),
            Self::Groups(name) => ("GROUP.LIST", json!({ "station": name })),
        })
    }
}

/// Reads `topics`.
fn topics(text: &str) -> Result<Vec<Topic>, Problem> {
    let mut topics = Vec::new();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let topic = Topic::parse(word).ok_or_else(|| {
            Problem::query(format!(
                "there is no topic {word:?}: overview, stations, station:NAME, groups:NAME, dead-letters, dead-letters:NAME"
            ))
        })?;
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    if topics.is_empty() || topics.len() > MAX_TOPICS {
        return Err(Problem::query(format!(
            "topics has to name 1 to {MAX_TOPICS}"
        )));
    }
    Ok(topics)
}

/// Where the dead letters of each topic were left, as an event's id says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen(BTreeMap<String, u64>);

impl Seen {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| {
            let (name, number) = pair.split_once('=')?;
            Some((name.to_owned(), number.parse().ok()?))
        });
        Self(pairs.take(MAX_TOPICS).collect())
    }

    fn text(&self) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(name, number)| format!("{name}={number}"))
            .collect();
        pairs.join("&")
    }
}

/// One event as it is sent. `data` is one line.
fn event(name: &str, id: &str, data: &Value) -> Bytes {
    let id = if id.is_empty() {
        String::new()
    } else {
        format!("id: {id}\n")
    };
    Bytes::from(format!("event: {name}\n{id}data: {data}\n\n"))
}

/// The other end of a live view.
struct Client {
    out: mpsc::Sender<Bytes>,
    heard: Instant,
    /// When somebody looks for it again.
    looks: Interval,
    /// For how long each look prolongs the session, if it does.
    keeps: Option<Duration>,
    _permits: [OwnedSemaphorePermit; 2],
}

/// The client is gone, or does not read.
struct Gone;

impl Client {
    async fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.heard = Instant::now();
        match tokio::time::timeout(PATIENCE, self.out.send(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// Whether somebody is still logged in.
    fn stays(&self, management: &Management, session: &Session) -> bool {
        if session.has_ended(std::time::Instant::now()) {
            return false;
        }
        if let Some(lifetime) = self.keeps {
            management.sessions.extend(session, lifetime);
        }
        true
    }

    /// Waits until it is time to look again, for as long as the client is there and logged in.
    async fn next_look(&mut self, management: &Management, session: &Session) -> Result<(), Gone> {
        self.keep_alive().await?;
        tokio::select! {
            _ = self.looks.tick() => {}
            () = self.out.closed() => return Err(Gone),
        }
        if self.stays(management, session) {
            Ok(())
        } else {
            Err(Gone)
        }
    }

    /// Says something if nothing was said for long.
    async fn keep_alive(&mut self) -> Result<(), Gone> {
        if self.out.is_closed() {
            return Err(Gone);
        }
        if self.heard.elapsed() >= HEARTBEAT {
            return self.send(Bytes::from_static(b": still here\n\n")).await;
        }
        Ok(())
    }
}

/// The body of a live view.
struct View(mpsc::Receiver<Bytes>);

impl HttpBody for View {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Opens a view, if there is room for one more.
fn open(
    management: &Management,
    session: &Arc<Session>,
    keeps: Option<Duration>,
    interval: Duration,
) -> Result<(Client, Answer), Problem> {
    let full = |what: &str| {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "E-API-VIEWS",
            format!("{what} has as many live views open as it may: close one"),
        )
    };
    let all = Arc::clone(&management.views).try_acquire_owned();
    let all = all.map_err(|_| full("the server"))?;
    let own = session.views(MAX_VIEWS_OF_SESSION).try_acquire_owned();
    let own = own.map_err(|_| full("this user"))?;
    let (out, body) = mpsc::channel(WAITING);
    let mut looks = tokio::time::interval(interval);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let client = Client {
        out,
        heard: Instant::now(),
        looks,
        keeps,
        _permits: [all, own],
    };
    let content = Content::Events(Body::new(View(body)));
    Ok((client, Answer::of(StatusCode::OK, content)))
}

/// `GET /events`. Each look keeps the session for `keeps`, if it is given.
pub(super) fn follow(
    management: &Arc<Management>,
    session: Arc<Session>,
    fields: &Map<String, Value>,
    last: Option<&str>,
    keeps: Option<Duration>,
) -> Result<Answer, Problem> {
    let topics = topics(
        fields
            .get("topics")
            .and_then(Value::as_str)
            .unwrap_or_default(),
    )?;
    let (client, answer) = open(management, &session, keeps, INTERVAL)?;
    let following = Following {
        management: Arc::clone(management),
        session,
        client,
        topics,
        sent: HashMap::new(),
        seen: last.map(Seen::parse).unwrap_or_default(),
    };
    tokio::spawn(following.run());
    Ok(answer)
}

struct Following {
    management: Arc<Management>,
    session: Arc<Session>,
    client: Client,
    topics: Vec<Topic>,
    /// What was sent last of each topic.
    sent: HashMap<Topic, String>,
    seen: Seen,
}

impl Following {
    async fn run(mut self) {
        while let Ok(()) = self.client.next_look(&self.management, &self.session).await {
            for topic in self.topics.clone() {
                let looked = match &topic {
                    Topic::DeadLetters(station) => {
                        self.dead_letters(&topic, station.as_deref()).await
                    }
                    _ => self.snapshot(&topic).await,
                };
                match looked {
                    Ok(()) => {}
                    Err(Stop::Gone) => return,
                    Err(Stop::Problem(problem)) if self.report(&topic, &problem).await.is_ok() => {}
                    Err(Stop::Problem(_)) => return,
                }
            }
        }
    }

    /// Says what is wrong with a topic, once. Whoever may not log in any more is let go.
    async fn report(&mut self, topic: &Topic, problem: &Problem) -> Result<(), Gone> {
        let mut document = problem.document("/api/v1/events", "");
        document["topic"] = topic.name().into();
        let text = document.to_string();
        if self.sent.insert(topic.clone(), text.clone()).as_ref() != Some(&text) {
            self.client.send(event("problem", "", &document)).await?;
        }
        if problem.status == StatusCode::UNAUTHORIZED {
            return Err(Gone);
        }
        Ok(())
    }

    async fn snapshot(&mut self, topic: &Topic) -> Result<(), Stop> {
        let document = match topic.question() {
            Some((request, body)) => {
                ask::broker(&self.management, &self.session, request, body).await?
            }
            None => self.management.overview(&self.session).await?,
        };
        let text = document.to_string();
        if self.sent.get(topic) == Some(&text) {
            return Ok(());
        }
        self.sent.insert(topic.clone(), text);
        let message = event(&topic.name(), &self.seen.text(), &document);
        Ok(self.client.send(message).await?)
    }

    /// Sends the dead letters that came; at first only where the last one is.
    async fn dead_letters(&mut self, topic: &Topic, station: Option<&str>) -> Result<(), Stop> {
        let name = topic.name();
        let mut is_first = !self.seen.0.contains_key(&name);
        loop {
            let after = self.seen.0.get(&name).copied().unwrap_or(0);
            let mut body = json!({"after": after, "limit": PAGE});
            if let Some(station) = station {
                body["station"] = station.into();
            }
            let mut answer =
                ask::broker(&self.management, &self.session, "DEAD_LETTER.LIST", body).await?;
            let letters = match answer["dead_letters"].take() {
                Value::Array(letters) => letters,
                _ => Vec::new(),
            };
            let last = letters.last().and_then(|letter| letter["id"].as_u64());
            let next = answer["next"].as_u64();
            let reached = next.or(last).unwrap_or(after).max(after);
            self.seen.0.insert(name.clone(), reached);
            if !is_first {
                for letter in letters {
                    if let Some(id) = letter["id"].as_u64() {
                        self.seen.0.insert(name.clone(), id);
                    }
                    let message = event(&name, &self.seen.text(), &letter);
                    self.client.send(message).await?;
                }
                self.seen.0.insert(name.clone(), reached);
            }
            if next.is_none() {
                if std::mem::take(&mut is_first) {
                    let begun = json!({"follows_after": reached});
                    let message = event(&name, &self.seen.text(), &begun);
                    self.client.send(message).await?;
                }
                return Ok(());
            }
        }
    }
}

/// Why a look ended.
enum Stop {
    Gone,
    Problem(Problem),
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// `GET /stations/{station}/tail`. `keeps` as for [`follow`].
pub(super) async fn tail(
    management: &Arc<Management>,
    session: Arc<Session>,
    fields: &Map<String, Value>,
    last: Option<&str>,
    keeps: Option<Duration>,
) -> Result<Answer, Problem> {
    let station = fields.get("station").cloned().unwrap_or_default();
    let from = fields.get("from").and_then(Value::as_str);
    let position = match (last, from) {
        (Some(position), _) => position.to_owned(),
        (None, Some("start")) => String::new(),
        (None, None | Some("end")) => {
            let body = json!({"station": station, "figures": true});
            let info = ask::broker(management, &session, "STATION.INFO", body).await?;
            let partitions = info["figures"]["partitions"].as_array();
            let ends: Vec<String> = partitions
                .into_iter()
                .flatten()
                .map(|one| format!("{}:{}", one["partition"], one["last_sequence"]))
                .collect();
            ends.join(",")
        }
        (None, Some(_)) => return Err(Problem::query("from has to be start or end")),
    };
    let mut body = json!({"station": station, "limit": PAGE, "payload_bytes": 64 * 1024});
    for key in ["partition", "search"] {
        if let Some(value) = fields.get(key) {
            body[key] = value.clone();
        }
    }
    body["after"] = position.clone().into();
    // Whatever is wrong with the request is said before the first event.
    ask::broker(management, &session, "MESSAGE.LIST", body.clone()).await?;
    let (client, answer) = open(management, &session, keeps, TAIL_INTERVAL)?;
    let tailing = Tailing {
        management: Arc::clone(management),
        session,
        client,
        body,
    };
    tokio::spawn(tailing.run());
    Ok(answer)
}

struct Tailing {
    management: Arc<Management>,
    session: Arc<Session>,
    client: Client,
    /// The next request.
    body: Value,
}

impl Tailing {
    async fn run(mut self) {
        while let Ok(()) = self.client.next_look(&self.management, &self.session).await {
            match self.look().await {
                Ok(()) => {}
                Err(Stop::Gone) => return,
                Err(Stop::Problem(problem)) => {
                    let document = problem.document("/api/v1/stations", "");
                    // It is over either way.
                    drop(self.client.send(event("problem", "", &document)).await);
                    return;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), Stop> {
        loop {
            let body = self.body.clone();
            let mut answer =
                ask::broker(&self.management, &self.session, "MESSAGE.LIST", body).await?;
            let position = answer["position"].as_str().unwrap_or_default().to_owned();
            let mut messages = match answer["messages"].take() {
                Value::Array(messages) => messages,
                _ => Vec::new(),
            };
            let last = messages.pop();
            let mut before = self.body["after"].as_str().unwrap_or_default().to_owned();
            for message in messages {
                before = moved(&before, &message);
                self.client
                    .send(event("message", &before, &message))
                    .await?;
            }
            if let Some(message) = last {
                self.client
                    .send(event("message", &position, &message))
                    .await?;
            }
            self.body["after"] = position.into();
            if answer["next"].is_null() {
                return Ok(());
            }
        }
    }
}

/// A position once a message is behind it.
fn moved(position: &str, message: &Value) -> String {
    let partition = format!("{}:", message["partition"]);
    let mut parts: Vec<String> = position
        .split(',')
        .filter(|part| !part.is_empty() && !part.starts_with(&partition))
        .map(str::to_owned)
        .collect();
    parts.push(format!("{partition}{}", message["sequence"]));
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_once_each_and_bounded() {
        let read =
            topics("overview,station:a,dead-letters,station:a,dead-letters:b").expect("good");
        let names: Vec<String> = read.iter().map(Topic::name).collect();
        assert_eq!(
            names,
            ["overview", "station:a", "dead-letters", "dead-letters:b"]
        );
        for bad in ["", ",", "x", "station", "station:", "overview:a", "groups"] {
            assert!(topics(bad).is_err(), "{bad}");
        }
        let many: Vec<String> = (0..=MAX_TOPICS).map(|n| format!("station:{n}")).collect();
        assert!(topics(&many.join(",")).is_err());
    }

    #[test]
    fn the_id_of_an_event_says_where_to_go_on() {
        let seen = Seen(BTreeMap::from([
            ("dead-letters".to_owned(), 3),
            ("dead-letters:a".to_owned(), 17),
        ]));
        assert_eq!(Seen::parse(&seen.text()), seen);
        assert_eq!(Seen::parse("junk&a=b&=1&x=2").0.len(), 2);
        assert_eq!(
            moved("1:2,2:3", &json!({"partition": 1, "sequence": 9})),
            "2:3,1:9"
        );
        assert_eq!(moved("", &json!({"partition": 1, "sequence": 1})), "1:1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_let_go() {
        let views = Arc::new(tokio::sync::Semaphore::new(2));
        let permit = || Arc::clone(&views).try_acquire_owned().expect("room");
        let (out, mut body) = mpsc::channel(WAITING);
        let mut client = Client {
            out,
            heard: Instant::now(),
            looks: tokio::time::interval(INTERVAL),
            keeps: None,
            _permits: [permit(), permit()],
        };
        for _ in 0..WAITING {
            assert!(client.send(Bytes::from_static(b"x")).await.is_ok());
        }
        let began = Instant::now();
        assert!(client.send(Bytes::from_static(b"x")).await.is_err());
        assert_eq!(began.elapsed(), PATIENCE);
        for _ in 0..WAITING {
            assert!(body.recv().await.is_some());
        }
        assert!(client.keep_alive().await.is_ok());
        assert!(body.try_recv().is_err(), "it was said something just now");
        tokio::time::advance(HEARTBEAT).await;
        assert!(client.keep_alive().await.is_ok());
        assert!(
            body.recv()
                .await
                .is_some_and(|bytes| bytes.starts_with(b":"))
        );
        drop(body);
        assert!(client.keep_alive().await.is_err());
        drop(client);
        assert_eq!(views.available_permits(), 2);
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let sent = event("station:a", "x=1", &json!({"text": "a\nb"}));
        assert_eq!(
            &sent[..],
            b"event: station:a\nid: x=1\ndata: {\"text\":\"a\\nb\"}\n\n"
        );
        assert_eq!(
            &event("a", "", &Value::Null)[..],
            b"event: a\ndata: null\n\n"
        );
    }
}
