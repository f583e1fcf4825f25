//! A driver over an engine made of maps, one step at a time.

use std::collections::{BTreeMap, VecDeque};

use menes_jetstream::consumer::ConsumerConfig;
use menes_jetstream::stream::{StreamConfig, StreamState};
use menes_jetstream::{AccountName, Timestamp};
use menes_stations::sdk::{ClientIdentity, Request};
use menes_stations::user::{Access, PasswordHash, Role};
use menes_stations::{
    Command, Message, NewToken, Outbound, Progress, Secret, State, Stations, Step, StepError,
    StepResult, TaskId,
};

pub(crate) const SECOND: i64 = 1_000_000_000;

/// Streams, durables and the stored rows: what a crash leaves behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Engine {
    pub(crate) streams: BTreeMap<String, StreamConfig>,
    pub(crate) durables: BTreeMap<(String, String), ConsumerConfig>,
    pub(crate) last_seq: BTreeMap<String, u64>,
    pub(crate) messages: BTreeMap<String, Vec<Message>>,
    pub(crate) sent: Vec<Outbound>,
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn failed(err_code: u32, description: &str) -> StepResult {
    StepResult::Failed(StepError {
        err_code,
        description: description.to_owned(),
    })
}

impl Engine {
    fn run(&mut self, stations: &mut Stations, step: &Step) -> StepResult {
        match step {
            Step::CreateStream(config) => match self.streams.get(&config.name) {
                Some(known) if known == &**config => StepResult::Existed,
                Some(_) => failed(
                    10_058,
                    "stream name already in use with a different configuration",
                ),
                None if config.num_replicas > 1 => {
                    failed(10_074, "replicas > 1 not supported in non-clustered mode")
                }
                None => {
                    self.streams.insert(config.name.clone(), (**config).clone());
                    StepResult::Done
                }
            },
            Step::DeleteStream {
                name,
                only_if_unused,
            } => {
                if *only_if_unused && self.last_seq.get(name).is_some_and(|seq| *seq > 0) {
                    return StepResult::Done;
                }
                if self.streams.remove(name).is_none() {
                    return failed(10_059, "stream not found");
                }
                self.last_seq.remove(name);
                self.durables.retain(|(stream, _), _| stream != name);
                StepResult::Done
            }
            Step::CreateConsumer { stream, config } => self.put_durable(stream, config, true),
            Step::UpdateConsumer { stream, config } => self.put_durable(stream, config, false),
            Step::DeleteConsumer { stream, name } => {
                match self.durables.remove(&(stream.clone(), name.clone())) {
                    Some(_) => StepResult::Done,
                    None => failed(10_014, "consumer not found"),
                }
            }
            Step::Record(command) => {
                let decoded = Command::decode(&command.encode()).expect("what was written");
                assert_eq!(decoded, **command);
                let applied = stations.apply(&decoded);
                for (key, value) in applied.rows {
                    match value {
                        Some(value) => self.rows.insert(key, value),
                        None => self.rows.remove(&key),
                    };
                }
                StepResult::Recorded(applied.outcome)
            }
            Step::QueryStream(name) => match self.streams.contains_key(name) {
                true => StepResult::Stream(Box::new(StreamState {
                    last_seq: self.last_seq.get(name).copied().unwrap_or(0),
                    ..StreamState::default()
                })),
                false => failed(10_059, "stream not found"),
            },
            other => self.run_message_step(other),
        }
    }

    /// Steps about messages and schemas.
    fn run_message_step(&mut self, step: &Step) -> StepResult {
        match step {
            Step::EnsureStream(config) => {
                if self.streams.contains_key(&config.name) {
                    return StepResult::Existed;
                }
                self.streams.insert(config.name.clone(), (**config).clone());
                StepResult::Done
            }
            Step::UpdateStream(config) => {
                self.streams.insert(config.name.clone(), (**config).clone());
                StepResult::Done
            }
            Step::Publish { stream, message } => {
                let messages = self.messages.entry(stream.clone()).or_default();
                messages.push(Message {
                    seq: messages.len() as u64 + 1,
                    time: Timestamp(1),
                    subject: message.subject.clone(),
                    header: message.header.clone(),
                    payload: message.payload.clone(),
                });
                StepResult::Done
            }
            Step::Read { stream, seq } => {
                let found = self.messages.get(stream).into_iter().flatten();
                let found = found.filter(|message| message.seq == *seq);
                StepResult::Messages(found.cloned().collect())
            }
            Step::List { stream, .. } => {
                StepResult::Messages(self.messages.get(stream).cloned().unwrap_or_default())
            }
            Step::DeleteMessage { stream, seq } => {
                if let Some(messages) = self.messages.get_mut(stream) {
                    messages.retain(|message| message.seq != *seq);
                }
                StepResult::Done
            }
            Step::Send(message) => {
                self.sent.push((**message).clone());
                StepResult::Done
            }
            Step::CheckSchema(source) if source.content == "bad" => failed(0, "it is bad"),
            Step::CheckSchema(_) => StepResult::Checked(Box::default()),
            Step::CountStreams(names) => {
                let there = names.iter().filter(|name| self.streams.contains_key(*name));
                StepResult::Sequence(there.count() as u64)
            }
            Step::Purge { .. } | Step::PrepareSchema { .. } => StepResult::Done,
            Step::ListStreams => StepResult::Names(Vec::new()),
            Step::HashPassword(password) => {
                // No hash, but it looks like one and tells what was hashed.
                let text = data_encoding::BASE64_NOPAD.encode(password.expose().as_bytes());
                let hash = format!("$argon2id$v=19$m=8,t=1,p=1$c2FsdA${text}");
                StepResult::Hashed(PasswordHash::parse(&hash).expect("it looks like one"))
            }
            Step::MakeToken => StepResult::Token(Box::new(NewToken {
                id: format!("t{}", self.rows.len()),
                secret: Secret::new(format!("mnt_{}", self.rows.len())),
                digest: format!("d{}", self.rows.len()),
            })),
            other => panic!("no test asks for {other:?}"),
        }
    }

    fn put_durable(&mut self, stream: &str, config: &ConsumerConfig, create: bool) -> StepResult {
        if !self.streams.contains_key(stream) {
            return failed(10_059, "stream not found");
        }
        let name = config.name.clone().expect("a durable has a name");
        let key = (stream.to_owned(), name);
        let result = match self.durables.get(&key) {
            None if !create => return failed(10_149, "consumer does not exist"),
            None => StepResult::Done,
            Some(known) if known.deliver_policy != config.deliver_policy => {
                return failed(10_012, "deliver policy can not be updated");
            }
            Some(known) if known.opt_start_seq != config.opt_start_seq => {
                return failed(10_012, "start sequence can not be updated");
            }
            Some(_) => StepResult::Existed,
        };
        self.durables.insert(key, config.clone());
        result
    }

    pub(crate) fn reload(&self, now: Timestamp) -> Stations {
        Stations::load(self.rows.clone(), now).expect("rows it wrote itself")
    }
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) user: String,
    pub(crate) connection: String,
    pub(crate) lang: String,
    pub(crate) native: bool,
    pub(crate) access: Access,
    pub(crate) role: Role,
}

impl Client {
    pub(crate) fn sdk(connection: &str) -> Self {
        Self {
            user: "root$1".to_owned(),
            connection: connection.to_owned(),
            lang: "go".to_owned(),
            native: true,
            access: Access::ALL,
            role: Role::Root,
        }
    }
}

/// A server with its engine.
pub(crate) struct Bench {
    pub(crate) stations: Stations,
    pub(crate) engine: Engine,
    pub(crate) now: Timestamp,
    /// Runs that wait to be carried out, and how far they came.
    pub(crate) running: VecDeque<(TaskId, VecDeque<Step>, Vec<StepResult>)>,
    pub(crate) replies: BTreeMap<TaskId, Vec<u8>>,
    pub(crate) steps: Vec<Step>,
    /// Steps after which one fails; counts down.
    pub(crate) fail_in: Option<u32>,
}

impl Default for Bench {
    fn default() -> Self {
        let now = Timestamp(1_700_000_000 * SECOND);
        Self {
            stations: Stations::load([], now).expect("nothing to load"),
            engine: Engine::default(),
            now,
            running: VecDeque::new(),
            replies: BTreeMap::new(),
            steps: Vec::new(),
            fail_in: None,
        }
    }
}

pub(crate) fn account() -> AccountName {
    AccountName::from("$memphis")
}

impl Bench {
    pub(crate) fn state(&self) -> &State {
        self.stations.state()
    }

    pub(crate) fn connect(&mut self, connection: &str) {
        self.stations.connection_opened(&account(), connection);
    }

    pub(crate) fn disconnect(&mut self, connection: &str) {
        self.stations
            .connection_closed(&account(), connection, self.now);
    }

    pub(crate) fn begin(&mut self, client: &Client, subject: &str, body: &str) -> TaskId {
        let id = self.stations.begin(&Request {
            account: &account(),
            subject: subject.as_bytes(),
            payload: body.as_bytes(),
            client: ClientIdentity {
                user: &client.user,
                connection_id: &client.connection,
                lang: &client.lang,
                native: client.native,
                access: &client.access,
                role: client.role,
            },
            now: self.now,
        });
        self.drain();
        id
    }

    /// Takes what the stations want.
    pub(crate) fn drain(&mut self) {
        while let Some((id, progress)) = self.stations.poll() {
            match progress {
                Progress::Run(steps) => {
                    assert!(!steps.is_empty());
                    self.running.push_back((id, steps.into(), Vec::new()));
                }
                Progress::Reply(reply) => {
                    assert!(self.replies.insert(id, reply).is_none(), "one reply each");
                }
                Progress::Silent => {}
            }
        }
    }

    /// Carries out one step of the run at `index`; false when nothing runs.
    pub(crate) fn step(&mut self, index: usize) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let index = index % self.running.len();
        let (_, steps, results) = &mut self.running[index];
        let step = steps.pop_front().expect("a run has steps");
        let result = match &mut self.fail_in {
            Some(0) => {
                self.fail_in = None;
                failed(10_077, "injected")
            }
            counter => {
                if let Some(left) = counter {
                    *left -= 1;
                }
                self.engine.run(&mut self.stations, &step)
            }
        };
        self.steps.push(step);
        let stop = result.is_failure() || steps.is_empty();
        results.push(result);
        if stop {
            let (id, _, results) = self.running.remove(index).expect("it is there");
            self.stations.resume(id, results);
            self.drain();
        }
        true
    }

    pub(crate) fn settle(&mut self) {
        while self.step(0) {}
    }

    /// Sends a request and returns its reply.
    pub(crate) fn ask(&mut self, client: &Client, subject: &str, body: &str) -> String {
        self.steps.clear();
        let id = self.begin(client, subject, body);
        self.settle();
        let reply = self.replies.remove(&id).expect("a reply");
        String::from_utf8(reply).expect("replies are text")
    }

    /// The server stops and starts again; connections are gone.
    pub(crate) fn crash(&mut self) {
        self.stations = self.engine.reload(self.now);
        self.running.clear();
        self.replies.clear();
        self.fail_in = None;
    }

    pub(crate) fn recover(&mut self) {
        self.stations.recover(self.now);
        self.drain();
        self.settle();
    }

    /// Names of all streams.
    pub(crate) fn streams(&self) -> Vec<&str> {
        self.engine.streams.keys().map(String::as_str).collect()
    }

    /// Names of all durables as `stream/name`.
    pub(crate) fn durables(&self) -> Vec<String> {
        let keys = self.engine.durables.keys();
        keys.map(|(stream, name)| format!("{stream}/{name}"))
            .collect()
    }

    /// The stored rows say what is in memory.
    pub(crate) fn check_rows(&self) {
        let stored = State::load(self.engine.rows.clone()).expect("rows it wrote itself");
        assert_eq!(&stored, self.state());
    }
}
