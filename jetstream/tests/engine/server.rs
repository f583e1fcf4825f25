//! A server in a test: an engine over stores in memory whose syncs the test decides, and clients
//! that remember what they got.

use std::collections::{BTreeMap, BTreeSet};

use menes_jetstream::engine::{ApiRequest, Application, Change, Engine, Options, Publish};
use menes_jetstream::memory::{FlushedState, MemoryLog, MemoryState};
use menes_jetstream::ports::{Outbox, Outgoing, StateStore, StoreError, Table};
use menes_jetstream::txn::Txn;
use menes_jetstream::{AccountName, GroupId, Timestamp};
use serde_json::Value;

/// A moment to begin at.
pub(crate) const START: i64 = 1_800_000_000_000_000_000;
/// One second in nanoseconds.
pub(crate) const SECOND: i64 = 1_000_000_000;

/// A message that left the server.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) target: String,
    pub(crate) subject: String,
    pub(crate) reply: String,
    pub(crate) header: String,
    pub(crate) payload: Vec<u8>,
}

impl Sent {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// Where messages go. Everybody listens to everything except what is named here.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) sent: Vec<Sent>,
    pub(crate) deaf: BTreeSet<String>,
    pub(crate) congested: BTreeSet<String>,
    pub(crate) hears_advisories: bool,
    /// Where mirrors and sources listen.
    pub(crate) listeners: BTreeMap<u64, Vec<String>>,
    /// What the engine sent to itself.
    pub(crate) looped: Vec<Sent>,
    /// Messages to mirrors and sources are lost.
    pub(crate) is_cut: bool,
}

impl Wire {
    fn listens(&self, subject: &[u8]) -> bool {
        let subject = String::from_utf8_lossy(subject);
        if subject.starts_with("$JS.EVENT.") {
            return self.hears_advisories;
        }
        if is_link(&subject) {
            return self.listener(&subject).is_some();
        }
        !self.deaf.contains(&*subject)
    }

    fn listener(&self, subject: &str) -> Option<u64> {
        let mut all = self.listeners.iter();
        let is_of = |pattern: &String| {
            menes_protocol::subject::matches(pattern.as_bytes(), subject.as_bytes())
        };
        let found = all.find(|(_, subjects)| subjects.iter().any(is_of));
        found.map(|(listener, _)| *listener)
    }
}

/// Whether a mirror or source listens there, if anybody.
fn is_link(subject: &str) -> bool {
    ["$JS.M.", "$JS.S.", "$JS.R."]
        .iter()
        .any(|start| subject.starts_with(start))
}

/// Whether the engine listens there.
fn is_engine(subject: &str) -> bool {
    ["$JS.API.", "$JS.ACK.", "$JS.FC."]
        .iter()
        .any(|start| subject.starts_with(start))
}

impl Outbox for Wire {
    fn send(&mut self, message: Outgoing<'_>) -> bool {
        if !self.listens(message.target) {
            return false;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let sent = Sent {
            target: text(message.target),
            subject: text(message.subject),
            reply: text(message.reply),
            header: text(message.header),
            payload: message.payload.to_vec(),
        };
        if is_link(&sent.target) {
            if !self.is_cut {
                self.looped.push(sent);
            }
        } else if is_engine(&sent.target) {
            self.looped.push(sent);
        } else {
            self.sent.push(sent);
        }
        true
    }

    fn has_interest(&mut self, _: &AccountName, subject: &[u8], _: Option<&[u8]>) -> bool {
        self.listens(subject)
    }

    fn is_congested(&mut self, _: &AccountName, subject: &[u8]) -> bool {
        self.congested.contains(&*String::from_utf8_lossy(subject))
    }
}

/// Counts its commands.
#[derive(Default)]
pub(crate) struct Counter(pub(crate) u64);

const COUNT_KEY: &[u8] = b"count";

impl Application for Counter {
    fn load(&mut self, state: &dyn StateStore) -> Result<(), StoreError> {
        let row = state.get(Table::Application, COUNT_KEY)?;
        self.0 = row.map_or(0, |row| {
            u64::from_be_bytes(row.try_into().expect("8 bytes"))
        });
        Ok(())
    }

    fn apply(&mut self, _: &[u8], txn: &mut Txn<'_>) -> Result<(), StoreError> {
        self.0 += 1;
        txn.put(
            Table::Application,
            COUNT_KEY.to_vec(),
            self.0.to_be_bytes().to_vec(),
        );
        Ok(())
    }

    fn takes_over(&self, _account: &AccountName, stream: &str) -> bool {
        stream.starts_with("KEPT")
    }
}

/// An engine and everything around it.
pub(crate) struct Server<S = MemoryState> {
    pub(crate) engine: Option<Engine<MemoryLog, S, Counter>>,
    pub(crate) log: MemoryLog,
    pub(crate) flushed: FlushedState,
    pub(crate) wire: Wire,
    pub(crate) now: Timestamp,
    pub(crate) account: AccountName,
    /// Subjects of streams, by group.
    pub(crate) captured: BTreeMap<GroupId, Vec<String>>,
    pub(crate) options: Options,
    inboxes: u64,
}

impl Server<MemoryState> {
    /// A new server with an empty disk; nothing is durable before [`Server::sync`].
    pub(crate) fn new() -> Self {
        Self::with_options(Options::default())
    }

    pub(crate) fn with_options(options: Options) -> Self {
        Self::on(MemoryLog::manual(), options)
    }

    pub(crate) fn on(log: MemoryLog, options: Options) -> Self {
        let state = MemoryState::new();
        let flushed = state.flushed();
        Self::over(log, state, flushed, options)
    }

    /// The power goes and comes back: what was not synced is gone, rows are as they were flushed.
    pub(crate) fn crash(&mut self) {
        self.engine = None;
        self.log.crash();
        self.open(MemoryState::reopen(&self.flushed));
    }

    /// Everything is flushed, then the server starts again.
    pub(crate) fn restart(&mut self) {
        self.settle();
        self.engine().flush_state().expect("memory does not fail");
        self.crash();
    }
}

impl<S: StateStore> Server<S> {
    pub(crate) fn over(log: MemoryLog, state: S, flushed: FlushedState, options: Options) -> Self {
        let mut server = Self {
            engine: None,
            log,
            flushed,
            wire: Wire::default(),
            now: Timestamp(START),
            account: AccountName::global(),
            captured: BTreeMap::new(),
            options,
            inboxes: 0,
        };
        server.open(state);
        server
    }

    pub(crate) fn open(&mut self, state: S) {
        let options = self.options.clone();
        let engine = Engine::open(
            self.log.clone(),
            state,
            Counter::default(),
            options,
            self.now,
        );
        self.engine = Some(engine.expect("the stores are sound"));
        self.captured.clear();
        self.wire.listeners.clear();
        self.wire.looped.clear();
        self.follow();
        self.turn();
    }

    pub(crate) fn engine(&mut self) -> &mut Engine<MemoryLog, S, Counter> {
        self.engine.as_mut().expect("it runs")
    }

    /// The engine does what it can without a sync.
    pub(crate) fn turn(&mut self) {
        for _ in 0..1000 {
            let engine = self.engine.as_mut().expect("it runs");
            let more = engine.turn(self.now, &mut self.wire);
            let relayed = self.follow();
            if !more && !relayed {
                return;
            }
        }
        panic!("the engine does not come to rest");
    }

    /// True when the engine got something of its own.
    fn follow(&mut self) -> bool {
        for change in self.engine().take_changes() {
            match change {
                Change::Capture {
                    group, subjects, ..
                } => {
                    self.captured.insert(group, subjects);
                }
                Change::Release { group, .. } => {
                    self.captured.remove(&group);
                }
                Change::Listen {
                    listener, subjects, ..
                } => {
                    self.wire.listeners.insert(listener, subjects);
                }
                Change::Unlisten { listener } => {
                    self.wire.listeners.remove(&listener);
                }
            }
        }
        let engine = self.engine.as_mut().expect("it runs");
        engine.send_link_requests(&mut self.wire);
        self.relay()
    }

    /// What the engine sent to itself comes in again: mirrors and sources talk to the API.
    fn relay(&mut self) -> bool {
        let looped = std::mem::take(&mut self.wire.looped);
        let has_any = !looped.is_empty();
        for sent in looped {
            let request = ApiRequest {
                account: &self.account,
                subject: sent.subject.as_bytes(),
                reply: sent.reply.as_bytes(),
                header: sent.header.as_bytes(),
                payload: &sent.payload,
                client: b"",
            };
            let engine = self.engine.as_mut().expect("it runs");
            let target = sent.target.as_str();
            if target.starts_with("$JS.API.") {
                engine.request(request, self.now, &mut self.wire);
            } else if target.starts_with("$JS.ACK.") {
                engine.ack(request, self.now, &mut self.wire);
            } else if target.starts_with("$JS.FC.") {
                engine.flow_control(request, self.now, &mut self.wire);
            } else if let Some(listener) = self.wire.listener(target) {
                engine.link_message(listener, request, self.now, &mut self.wire);
            }
        }
        has_any
    }

    /// A sync ends that covers everything appended.
    pub(crate) fn sync(&mut self) {
        self.turn();
        self.log.sync();
        self.turn();
    }

    /// Syncs until nothing is in flight.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100 {
            self.sync();
            if self.engine().in_flight() == 0 {
                return;
            }
        }
        panic!("entries stay in flight");
    }

    /// Time passes; timers run when they are due.
    pub(crate) fn pass(&mut self, nanos: i64) {
        let until = Timestamp(self.now.0 + nanos);
        for _ in 0..10_000 {
            match self.engine().next_deadline() {
                Some(at) if at <= until => {
                    self.now = self.now.max(at);
                    self.settle();
                }
                _ => {
                    self.now = until;
                    self.settle();
                    return;
                }
            }
        }
        panic!("timers run without end");
    }

    pub(crate) fn inbox(&mut self) -> String {
        self.inboxes += 1;
        format!("_INBOX.{}", self.inboxes)
    }

    /// Publishes to whatever stream captures the subject; gives the inbox of the ack.
    pub(crate) fn publish_with(&mut self, subject: &str, header: &str, payload: &[u8]) -> String {
        let reply = self.inbox();
        self.publish_to(subject, &reply, header, payload);
        reply
    }

    /// Publishes with a reply subject of one's own.
    pub(crate) fn publish_to(&mut self, subject: &str, reply: &str, header: &str, payload: &[u8]) {
        let group = self.group_of(subject).expect("a stream captures it");
        self.publish_into(group, subject.as_bytes(), reply, header, payload);
    }

    /// Publishes to a subject of any bytes that this stream captures.
    pub(crate) fn publish_into(
        &mut self,
        group: GroupId,
        subject: &[u8],
        reply: &str,
        header: &str,
        payload: &[u8],
    ) {
        let message = Publish {
            reply: reply.as_bytes(),
            subject,
            header: header.as_bytes(),
            payload,
        };
        let engine = self.engine.as_mut().expect("it runs");
        engine.publish(group, self.now, message, &mut self.wire);
    }

    pub(crate) fn group_of(&self, subject: &str) -> Option<GroupId> {
        let matches = |pattern: &String| {
            menes_protocol::subject::matches(pattern.as_bytes(), subject.as_bytes())
        };
        let found = self
            .captured
            .iter()
            .find(|(_, subjects)| subjects.iter().any(matches));
        found.map(|(group, _)| *group)
    }

    pub(crate) fn publish(&mut self, subject: &str) -> String {
        self.publish_with(subject, "", b"x")
    }

    /// Publishes and waits for the ack; gives its text.
    pub(crate) fn store(&mut self, subject: &str) -> String {
        let inbox = self.publish(subject);
        self.settle();
        self.answer(&inbox)
    }

    /// Sends a request; gives the inbox of the answer.
    pub(crate) fn request(&mut self, subject: &str, body: &str) -> String {
        let reply = self.inbox();
        self.request_to(subject, &reply, body);
        reply
    }

    pub(crate) fn request_to(&mut self, subject: &str, reply: &str, body: &str) {
        let request = ApiRequest {
            account: &self.account,
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            header: b"",
            payload: body.as_bytes(),
            client: b"",
        };
        let engine = self.engine.as_mut().expect("it runs");
        engine.request(request, self.now, &mut self.wire);
    }

    /// Sends a request below `$JS.API.` and waits for the answer.
    pub(crate) fn call(&mut self, what: &str, body: &str) -> Value {
        let inbox = self.request(&format!("$JS.API.{what}"), body);
        self.settle();
        let answer = self.answer(&inbox);
        serde_json::from_str(&answer).unwrap_or(Value::String(answer))
    }

    /// A call that must succeed.
    pub(crate) fn must(&mut self, what: &str, body: &str) -> Value {
        let answer = self.call(what, body);
        assert!(answer.get("error").is_none(), "{what}: {answer}");
        answer
    }

    /// A stream on disk called `name`, with `more` of a configuration.
    pub(crate) fn stream(&mut self, name: &str, subjects: &[&str], more: &str) {
        let subjects = serde_json::to_string(subjects).expect("text");
        let body = format!(r#"{{"name":"{name}","subjects":{subjects}{more}}}"#);
        self.must(&format!("STREAM.CREATE.{name}"), &body);
    }

    /// A durable consumer with explicit acks, and `more` of a configuration.
    pub(crate) fn consumer(&mut self, stream: &str, name: &str, more: &str) {
        let body = consumer_body(stream, name, more);
        self.must(&format!("CONSUMER.CREATE.{stream}.{name}"), &body);
    }

    /// The counters of a stream.
    pub(crate) fn state(&mut self, stream: &str) -> Value {
        self.must(&format!("STREAM.INFO.{stream}"), "")["state"].clone()
    }

    /// Pulls at most `batch` messages and gives what came.
    pub(crate) fn pull(&mut self, stream: &str, consumer: &str, batch: u32) -> Vec<Sent> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let body = format!(r#"{{"batch":{batch},"no_wait":true}}"#);
        let inbox = self.request(&subject, &body);
        self.settle();
        let mut got = self.received(&inbox);
        got.retain(|sent| sent.reply.starts_with("$JS.ACK."));
        got
    }

    /// Whether an ack on this subject is taken.
    pub(crate) fn takes_ack(&mut self, subject: &str) -> bool {
        let request = ApiRequest {
            account: &self.account,
            subject: subject.as_bytes(),
            reply: b"",
            header: b"",
            payload: b"+ACK",
            client: b"",
        };
        let engine = self.engine.as_mut().expect("it runs");
        engine.ack(request, self.now, &mut self.wire)
    }

    /// Acknowledges a delivery; gives the inbox of the confirmation.
    pub(crate) fn ack(&mut self, delivery: &Sent, payload: &str) -> String {
        let reply = self.inbox();
        let request = ApiRequest {
            account: &self.account,
            subject: delivery.reply.as_bytes(),
            reply: reply.as_bytes(),
            header: b"",
            payload: payload.as_bytes(),
            client: b"",
        };
        let engine = self.engine.as_mut().expect("it runs");
        engine.ack(request, self.now, &mut self.wire);
        reply
    }

    /// Sends something to whoever of the engine listens there.
    pub(crate) fn tell(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        let Some(listener) = self.wire.listener(subject) else {
            return;
        };
        let request = ApiRequest {
            account: &self.account,
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            header: b"",
            payload,
            client: b"",
        };
        let engine = self.engine.as_mut().expect("it runs");
        engine.link_message(listener, request, self.now, &mut self.wire);
    }

    /// Takes what went to an inbox.
    pub(crate) fn received(&mut self, inbox: &str) -> Vec<Sent> {
        let (mine, others) = std::mem::take(&mut self.wire.sent)
            .into_iter()
            .partition(|sent| sent.target == inbox);
        self.wire.sent = others;
        mine
    }

    /// Takes the one answer that went to an inbox, header before payload.
    pub(crate) fn answer(&mut self, inbox: &str) -> String {
        let got = self.received(inbox);
        assert_eq!(got.len(), 1, "answers on {inbox}: {got:?}");
        format!("{}{}", got[0].header, got[0].text())
    }

    pub(crate) fn is_answered(&self, inbox: &str) -> bool {
        self.wire.sent.iter().any(|sent| sent.target == inbox)
    }
}

pub(crate) fn consumer_body(stream: &str, name: &str, more: &str) -> String {
    format!(
        r#"{{"stream_name":"{stream}","config":{{"durable_name":"{name}","ack_policy":"explicit"{more}}}}}"#
    )
}

/// The number of the error in an answer, 0 for none.
pub(crate) fn code(answer: &Value) -> u64 {
    answer["error"]["err_code"].as_u64().unwrap_or(0)
}

/// The sequence in the stream that a delivery is of.
pub(crate) fn seq_of(delivery: &Sent) -> u64 {
    let seq = delivery.reply.split('.').nth(5).expect("an ack subject");
    seq.parse().expect("a number")
}
