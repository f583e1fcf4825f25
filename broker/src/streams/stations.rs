//! Carries out what the stations ask for: their steps become calls of the engine, one at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use menes_jetstream::api::ApiError;
use menes_jetstream::command::Purge;
use menes_jetstream::consumer::{ConsumerConfig, Notice};
use menes_jetstream::engine::ended::{Ended, EndedKey};
use menes_jetstream::engine::{ApiRequest, Application, Completion, Engine, InternalCall, Publish};
use menes_jetstream::ids::{AccountName, StreamSeq};
use menes_jetstream::ports::{
    LogStore, Outbox, Outgoing, StateStore, StoreError, StoreErrorKind, Table,
};
use menes_jetstream::record::StoredMessage;
use menes_jetstream::time::Timestamp;
use menes_jetstream::txn::Txn;
use menes_stations::name::{SchemaName, StationName};
use menes_stations::sdk::{ClientIdentity, Request};
use menes_stations::user::{Access, ConfiguredUser, PasswordHash, UserKind};
use menes_stations::{
    Command, Enforced, Message, Outcome, Progress, Secret, Stations, Step, StepError, StepResult,
    TaskId,
};

use super::passwords::{self, PasswordDesk};
use super::presence::PresenceEvent;
use super::schemas::{Checked, SchemaDesk};
use crate::auth::directory::Directory;
use crate::auth::password;
use crate::connection::client::ClientInfo;

/// How long a refused message waits for the reason before it is recorded without one.
const REASON_WAIT: Duration = Duration::from_secs(1);
/// How long after a dead letter could not be stored the next attempt begins.
const RECORD_RETRY: Duration = Duration::from_secs(5);
/// Most dead letters being stored at a time.
const MAX_RECORDING: usize = 256;
/// Of those whom nothing limits.
static UNLIMITED: Access = Access::ALL;
/// JetStream error code of a stream that does not exist.
const STREAM_NOT_FOUND: u16 = 10_059;
/// How long what a closed connection registered stays known.
const REGISTRATION_AGE: Duration = Duration::from_secs(2 * 3600);

/// The stations as the engine's application, with the tasks that are being carried out.
pub(crate) struct StationsDriver {
    stations: Stations,
    schemas: SchemaDesk,
    passwords: PasswordDesk,
    /// Those who decide about logins read the users here.
    directory: Arc<Directory>,
    /// What the stations were told of the users of the configuration.
    configured: Arc<Vec<ConfiguredUser>>,
    /// Accounts of tenants that were not served before.
    new_tenants: Vec<AccountName>,
    /// What consumers gave up and nobody has taken over yet.
    ended: BTreeMap<EndedKey, Ended>,
    /// Those of them that wait for their turn, by when it comes.
    due: BTreeSet<(Timestamp, EndedKey)>,
    /// Those that are being taken over.
    recording: BTreeMap<TaskId, EndedKey>,
    /// Streams came or went since messages were last matched with schemas.
    has_new_streams: bool,
    now: Timestamp,
    tasks: BTreeMap<TaskId, Running>,
    /// Outcomes of applied commands whose completion was not taken yet, oldest first.
    outcomes: VecDeque<Outcome>,
    expiry_due: Timestamp,
}

/// A task between two steps.
struct Running {
    /// Whose streams it works on.
    account: AccountName,
    /// Where its answer goes.
    asker: AccountName,
    reply: Vec<u8>,
    steps: VecDeque<Step>,
    results: Vec<StepResult>,
    /// What the step under way makes was there before it.
    existed: bool,
    is_record: bool,
    is_hand_over: bool,
}

/// How a step was taken.
enum Taken {
    /// It is done.
    Now(StepResult),
    /// Its completion will come.
    Later,
}

impl StationsDriver {
    pub(crate) fn new(
        schemas: SchemaDesk,
        passwords: PasswordDesk,
        directory: Arc<Directory>,
        now: Timestamp,
    ) -> Self {
        Self {
            stations: Stations::default(),
            schemas,
            passwords,
            directory,
            configured: Arc::default(),
            new_tenants: Vec::new(),
            ended: BTreeMap::new(),
            due: BTreeSet::new(),
            recording: BTreeMap::new(),
            has_new_streams: true,
            now,
            tasks: BTreeMap::new(),
            outcomes: VecDeque::new(),
            expiry_due: now,
        }
    }

    /// Notes that a client came or went.
    pub(crate) fn presence(&mut self, event: &PresenceEvent, now: Timestamp) {
        let client = &event.client;
        let connection = connection_id(client);
        if event.is_open {
            self.stations
                .connection_opened(&client.account, &connection);
        } else {
            self.stations
                .connection_closed(&client.account, &connection, now);
        }
    }

    /// Takes in that a consumer gave up a message.
    pub(crate) fn delivery_ended(&mut self, ended: Ended, now: Timestamp) {
        let Some(key) = ended.key else { return };
        // A client that refuses a message says why right after.
        let due = match ended.notice {
            Notice::Terminated { .. } => now.plus(REASON_WAIT),
            Notice::MaxDeliveries { .. } => now,
        };
        self.due.insert((due, key));
        self.ended.insert(key, ended);
    }

    /// Takes in that a message violates the schema of its station.
    pub(crate) fn message_refused(
        &mut self,
        account: &AccountName,
        station: StationName,
        reason: &str,
        header: &[u8],
        payload: &[u8],
        now: Timestamp,
    ) {
        self.stations.message_refused(
            account,
            station,
            reason.to_owned(),
            Bytes::copy_from_slice(header),
            Bytes::copy_from_slice(payload),
            now,
        );
    }

    /// Notes that there is a stream, maybe a new one.
    pub(crate) fn stream_came(&mut self) {
        self.has_new_streams = true;
    }

    /// Takes in that a stream is gone.
    pub(crate) fn stream_gone(&mut self, account: &AccountName, stream: &str, now: Timestamp) {
        self.has_new_streams = true;
        self.stations.stream_gone(account, stream, now);
    }

    /// When there is something to do although nothing came in.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let has_room = self.recording.len() < MAX_RECORDING;
        let first = self.due.first().filter(|_| has_room);
        first.map(|(at, _)| *at)
    }

    /// Begins to take over what is due.
    fn record_ended(&mut self, now: Timestamp) {
        while self.recording.len() < MAX_RECORDING
            && let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            if let Some(ended) = self.ended.get(&key) {
                let task = self.stations.delivery_ended(ended, key, now);
                self.recording.insert(task, key);
            }
        }
    }

    /// A task is over; a message it did not take over is due again, later.
    fn task_over(&mut self, id: TaskId, now: Timestamp) {
        if let Some(key) = self.recording.remove(&id)
            && self.ended.contains_key(&key)
        {
            self.due.insert((now.plus(RECORD_RETRY), key));
        }
    }

    /// Tells those who decide about logins, if users or tenants changed.
    pub(crate) fn follow_people(&mut self) {
        if !self.stations.take_people_change() {
            return;
        }
        let people = self.stations.state().people();
        let tenants = people.tenants().map(|tenant| tenant.name.account());
        self.new_tenants = tenants.collect();
        self.directory.replace(people);
    }

    /// Accounts that tenants have, after users or tenants changed.
    pub(crate) fn take_new_tenants(&mut self) -> Vec<AccountName> {
        std::mem::take(&mut self.new_tenants)
    }

    /// Takes in a message on a control subject.
    pub(crate) fn begin(
        &mut self,
        request: &ApiRequest<'_>,
        client: Option<&ClientInfo>,
        now: Timestamp,
    ) {
        let Some(client) = client else { return };
        let configured = self.directory.configured();
        if !Arc::ptr_eq(&configured, &self.configured) {
            self.stations.set_configured_users(configured.to_vec());
            self.configured = configured;
        }
        let connection = connection_id(client);
        let permissions = client.identity.permissions.as_ref();
        let access = permissions.and_then(|permissions| permissions.stations());
        let identity = ClientIdentity {
            // Where nobody has to log in, everyone may do what root may.
            user: client.identity.user.as_deref().unwrap_or("root"),
            connection_id: &connection,
            lang: &client.identity.lang,
            native: client.identity.connection_id().is_some(),
            access: access.unwrap_or(&UNLIMITED),
            role: client.identity.role(),
        };
        let task = self.stations.begin(&Request {
            account: request.account,
            subject: request.subject,
            payload: request.payload,
            client: identity,
            now,
        });
        // Root may ask about another tenant; the answer goes to root.
        let account = self.stations.account_of(task).unwrap_or(request.account);
        let mut running = Running::new(account.clone(), request.reply.to_vec());
        running.asker = request.account.clone();
        self.tasks.insert(task, running);
    }
}

/// The first half of an SDK's connection name, or a name of our own for other clients.
fn connection_id(client: &ClientInfo) -> String {
    match client.identity.connection_id() {
        Some(id) => id.to_owned(),
        None => format!("cid-{}", client.id.0),
    }
}

impl Running {
    fn new(account: AccountName, reply: Vec<u8>) -> Self {
        Self {
            asker: account.clone(),
            account,
            reply,
            steps: VecDeque::new(),
            results: Vec::new(),
            existed: false,
            is_record: false,
            is_hand_over: false,
        }
    }
}

impl Application for StationsDriver {
    fn load(&mut self, state: &dyn StateStore) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        state.scan(Table::Application, &[], &[0xff; 256], &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            true
        })?;
        self.stations = Stations::load(rows, self.now).map_err(|error| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                format!("the stations cannot be read: {error}"),
            )
        })?;
        Ok(())
    }

    fn apply(&mut self, command: &[u8], txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let command = Command::decode(command).map_err(|error| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                format!("a command of the stations cannot be read: {error}"),
            )
        })?;
        let applied = self.stations.apply(&command);
        for (key, value) in applied.rows {
            match value {
                Some(value) => txn.put(Table::Application, key, value),
                None => txn.delete(Table::Application, key),
            }
        }
        self.outcomes.push_back(applied.outcome);
        Ok(())
    }

    fn takes_over(&self, account: &AccountName, stream: &str) -> bool {
        self.stations.takes_over(account, stream)
    }
}

/// Finishes what a crash left half done.
pub(crate) fn recover<L: LogStore, S: StateStore>(
    engine: &mut Engine<L, S, StationsDriver>,
    now: Timestamp,
) {
    let driver = engine.application_mut();
    // Replayed commands have nobody waiting.
    driver.outcomes.clear();
    driver.stations.recover(now);
}

/// Takes in finished steps and carries out everything that is ready. True when a step was taken.
pub(crate) fn advance<L: LogStore, S: StateStore>(
    engine: &mut Engine<L, S, StationsDriver>,
    now: Timestamp,
    out: &mut dyn Outbox,
) -> bool {
    let mut worked = false;
    let mut done = engine.application_mut().schemas.take_done();
    done.extend(engine.application().passwords.take_done());
    for (id, result) in done {
        if let Some(task) = engine.application_mut().tasks.get_mut(&id) {
            take(task, result);
            step(engine, id, now, out);
        }
        worked = true;
    }
    engine.application_mut().record_ended(now);
    for completion in engine.take_completions() {
        complete(engine, completion, now, out);
        worked = true;
    }
    let driver = engine.application_mut();
    if now >= driver.expiry_due {
        driver.expiry_due = now.plus(Duration::from_secs(60));
        driver.stations.expire_registrations(REGISTRATION_AGE, now);
    }
    while let Some((id, progress)) = engine.application_mut().stations.poll() {
        worked = true;
        let driver = engine.application_mut();
        if !driver.tasks.contains_key(&id) {
            // Work of the stations' own, nobody waits for it.
            let Some(account) = driver.stations.account_of(id).cloned() else {
                continue;
            };
            driver.tasks.insert(id, Running::new(account, Vec::new()));
        }
        match progress {
            Progress::Run(steps) => {
                if let Some(task) = driver.tasks.get_mut(&id) {
                    task.steps = steps.into();
                    task.results.clear();
                }
                step(engine, id, now, out);
            }
            Progress::Reply(payload) => {
                driver.task_over(id, now);
                let Some(task) = driver.tasks.remove(&id) else {
                    continue;
                };
                if !task.reply.is_empty() {
                    out.send(Outgoing {
                        account: &task.asker,
                        target: &task.reply,
                        subject: &task.reply,
                        reply: b"",
                        header: b"",
                        payload: &payload,
                    });
                }
            }
            Progress::Silent => {
                driver.task_over(id, now);
                driver.tasks.remove(&id);
            }
        }
    }
    enforce(engine);
    engine.application_mut().follow_people();
    worked
}

/// Makes root, unless there is one; the password is what it gets. The engine has to run for it.
pub(crate) fn make_root<L: LogStore, S: StateStore>(
    engine: &mut Engine<L, S, StationsDriver>,
    now: Timestamp,
) -> Option<Secret> {
    let driver = engine.application_mut();
    let people = driver.stations.state().people();
    if people
        .all_users()
        .any(|user| user.user.kind == UserKind::Root)
    {
        return None;
    }
    let password = password::random();
    let hash = PasswordHash::parse(&password::hash(&password)?).ok()?;
    driver.stations.make_root(hash, now);
    Some(Secret::new(password))
}

/// Lets connections hold messages against what stations want now.
fn enforce<L: LogStore, S: StateStore>(engine: &mut Engine<L, S, StationsDriver>) {
    let driver = engine.application_mut();
    let is_new = std::mem::take(&mut driver.has_new_streams);
    if !driver.stations.take_enforcement_change() && !is_new {
        return;
    }
    let enforced: Vec<Enforced> = driver.stations.enforced().collect();
    let mut streams = HashMap::new();
    let mut used = Vec::new();
    for wanted in enforced {
        let key = (wanted.account, wanted.schema, wanted.version);
        let driver = engine.application_mut();
        let schema = driver.stations.state().schema(&key.0, &key.1);
        let known = schema.and_then(|schema| Some((schema.kind, schema.version(key.2)?.clone())));
        let Some((kind, version)) = known else {
            continue;
        };
        let Some(validator) = driver.schemas.validator(&key, kind, &version) else {
            continue;
        };
        let checked = Arc::new(Checked {
            station: wanted.station,
            validator,
        });
        for partition in 1..=wanted.partitions {
            let stream = checked.station.stream(partition);
            if let Some(group) = engine.group_of(&key.0, &stream) {
                streams.insert(group.0, Arc::clone(&checked));
            }
        }
        used.push(key);
    }
    engine.application_mut().schemas.enforce(streams, &used);
}

fn complete<L: LogStore, S: StateStore>(
    engine: &mut Engine<L, S, StationsDriver>,
    completion: Completion,
    now: Timestamp,
    out: &mut dyn Outbox,
) {
    let id = TaskId(completion.token);
    let driver = engine.application_mut();
    if completion.result.is_ok()
        && driver.tasks.get(&id).is_some_and(|task| task.is_hand_over)
        && let Some(key) = driver.recording.get(&id)
    {
        driver.ended.remove(key);
    }
    let Some(task) = driver.tasks.get_mut(&id) else {
        return;
    };
    let result = match completion.result {
        Err(error) => StepResult::Failed(StepError {
            err_code: u32::from(error.err_code),
            description: error.description.into_owned(),
        }),
        Ok(()) if task.is_record => {
            StepResult::Recorded(driver.outcomes.pop_front().unwrap_or(Outcome::Done))
        }
        Ok(()) if task.existed => StepResult::Existed,
        Ok(()) => StepResult::Done,
    };
    take(task, result);
    step(engine, id, now, out);
}

/// Notes a result; a failure ends the run.
fn take(task: &mut Running, result: StepResult) {
    if result.is_failure() {
        task.steps.clear();
    }
    task.results.push(result);
}

/// Takes the next steps of a task until one has to wait or none is left.
fn step<L: LogStore, S: StateStore>(
    engine: &mut Engine<L, S, StationsDriver>,
    id: TaskId,
    now: Timestamp,
    out: &mut dyn Outbox,
) {
    loop {
        let driver = engine.application_mut();
        let Some(task) = driver.tasks.get_mut(&id) else {
            return;
        };
        let Some(next) = task.steps.pop_front() else {
            let results = std::mem::take(&mut task.results);
            driver.stations.resume(id, results);
            return;
        };
        let account = task.account.clone();
        match take_step(engine, id, &account, next, now, out) {
            Taken::Later => return,
            Taken::Now(result) => {
                if let Some(task) = engine.application_mut().tasks.get_mut(&id) {
                    take(task, result);
                }
            }
        }
    }
}

fn take_step<L: LogStore, S: StateStore>(
    engine: &mut Engine<L, S, StationsDriver>,
    id: TaskId,
    account: &AccountName,
    step: Step,
    now: Timestamp,
    out: &mut dyn Outbox,
) -> Taken {
    if let Some(task) = engine.application_mut().tasks.get_mut(&id) {
        task.is_record = matches!(step, Step::Record(_));
        task.is_hand_over = matches!(step, Step::HandOver(_));
        task.existed = false;
    }
    let (call, existed) = match step {
        Step::CreateStream(config) => {
            let existed = engine.has_stream(account, &config.name);
            (InternalCall::CreateStream(config), existed)
        }
        Step::EnsureStream(config) => {
            if engine.has_stream(account, &config.name) {
                return Taken::Now(StepResult::Existed);
            }
            (InternalCall::CreateStream(config), false)
        }
        Step::UpdateStream(config) => (InternalCall::UpdateStream(config), false),
        Step::DeleteStream {
            name,
            only_if_unused,
        } => {
            let call = InternalCall::DeleteStream {
                name,
                only_if_unused,
            };
            (call, false)
        }
        Step::CreateConsumer { stream, config } | Step::UpdateConsumer { stream, config } => {
            let existed = engine.has_consumer(account, &stream, name_of(&config));
            (InternalCall::CreateConsumer { stream, config }, existed)
        }
        Step::DeleteConsumer { stream, name } => (
            InternalCall::DeleteConsumer {
                stream,
                consumer: name,
            },
            false,
        ),
        Step::ResetConsumer {
            stream,
            name,
            start,
        } => (
            InternalCall::ResetConsumer {
                stream,
                consumer: name,
                start: StreamSeq(start),
            },
            false,
        ),
        Step::PauseConsumer {
            stream,
            name,
            until,
        } => (
            InternalCall::PauseConsumer {
                stream,
                consumer: name,
                until,
            },
            false,
        ),
        Step::Purge { stream, filter } => {
            let purge = Purge {
                filter,
                ..Purge::default()
            };
            (InternalCall::Purge { stream, purge }, false)
        }
        Step::DeleteMessage { stream, seq } => {
            let seq = StreamSeq(seq);
            (InternalCall::DeleteMessage { stream, seq }, false)
        }
        Step::Record(command) => {
            engine.propose_application(command.encode(), id.0);
            return Taken::Later;
        }
        Step::HandOver(key) => {
            engine.handed_over(key.group, &[key], id.0);
            return Taken::Later;
        }
        Step::Publish { stream, message } => {
            let publish = Publish {
                reply: b"",
                subject: message.subject.as_bytes(),
                header: &message.header,
                payload: &message.payload,
            };
            engine.publish_for(account, &stream, now, publish, id.0);
            return Taken::Later;
        }
        Step::Send(message) => {
            out.send(Outgoing {
                account,
                target: message.subject.as_bytes(),
                subject: message.subject.as_bytes(),
                reply: b"",
                header: &message.header,
                payload: &message.payload,
            });
            return Taken::Now(StepResult::Done);
        }
        Step::CheckSchema(source) => {
            let schemas = &engine.application().schemas;
            schemas.check(id, account, *source);
            return Taken::Later;
        }
        Step::HashPassword(secret) => {
            if engine.application().passwords.hash(id, secret) {
                return Taken::Later;
            }
            return Taken::Now(passwords::failed());
        }
        Step::MakeToken => return Taken::Now(passwords::new_token()),
        Step::PrepareSchema { name, version } => {
            return prepare(engine.application(), id, account, name, version);
        }
        Step::CheckMessage { station, payload } => {
            let group = engine.group_of(account, &station.stream(1));
            let schemas = &engine.application().schemas;
            return match group {
                Some(group) if schemas.message(id, group.0, payload) => Taken::Later,
                _ => Taken::Now(StepResult::Done),
            };
        }
        question => return Taken::Now(answer(engine, account, question, now, out)),
    };
    if let Some(task) = engine.application_mut().tasks.get_mut(&id) {
        task.existed = existed;
    }
    engine.call(account, call, id.0, now, out);
    Taken::Later
}

/// Makes a version of a schema ready.
fn prepare(
    driver: &StationsDriver,
    id: TaskId,
    account: &AccountName,
    name: SchemaName,
    number: u32,
) -> Taken {
    let Some(schema) = driver.stations.state().schema(account, &name) else {
        return Taken::Now(StepResult::Done);
    };
    let Some(version) = schema.version(number) else {
        return Taken::Now(StepResult::Done);
    };
    let key = (account.clone(), name, number);
    if driver.schemas.prepare(id, key, schema.kind, version) {
        Taken::Now(StepResult::Done)
    } else {
        Taken::Later
    }
}

/// Answers a step that changes nothing.
fn answer<L: LogStore, S: StateStore>(
    engine: &mut Engine<L, S, StationsDriver>,
    account: &AccountName,
    question: Step,
    now: Timestamp,
    out: &mut dyn Outbox,
) -> StepResult {
    let is_reading = matches!(question, Step::Read { .. } | Step::List { .. });
    let answer = match question {
        Step::QueryStream(name) => engine
            .stream_state(account, &name)
            .map(|state| StepResult::Stream(Box::new(state))),
        Step::QueryConsumer { stream, name } => engine
            .consumer_state(account, &stream, &name, now, out)
            .map(|info| StepResult::Consumer(Box::new(info))),
        Step::FindTime { stream, time } => engine
            .seq_at_time(account, &stream, time)
            .map(|seq| StepResult::Sequence(seq.0)),
        Step::Read { stream, seq } => engine
            .messages(account, &stream, None, StreamSeq(seq), 1)
            .map(|found| {
                let found = found.into_iter().filter(|message| message.seq.0 == seq);
                StepResult::Messages(found.map(|message| read(&message)).collect())
            }),
        Step::List {
            stream,
            filter,
            from,
            limit,
        } => engine
            .messages(account, &stream, Some(&filter), StreamSeq(from), limit)
            .map(|found| StepResult::Messages(found.iter().map(read).collect())),
        Step::ReadEnded { key, seq } => engine
            .ended_message(key, StreamSeq(seq))
            .map(|found| StepResult::Messages(found.iter().map(read).collect()))
            .map_err(|error| {
                tracing::error!("a dead letter cannot be read: {error}");
                ApiError::temporarily_unavailable()
            }),
        Step::ListStreams => {
            let names = engine.stream_names(account).map(str::to_owned);
            Ok(StepResult::Names(names.collect()))
        }
        Step::CountStreams(names) => {
            let there = names.iter().filter(|name| engine.has_stream(account, name));
            Ok(StepResult::Sequence(there.count() as u64))
        }
        other => {
            debug_assert!(false, "{other:?} is no question");
            Err(ApiError::bad_request())
        }
    };
    match answer {
        Ok(answer) => answer,
        // What does not exist holds nothing.
        Err(error) if error.err_code == STREAM_NOT_FOUND && is_reading => {
            StepResult::Messages(Vec::new())
        }
        Err(error) => StepResult::Failed(StepError {
            err_code: u32::from(error.err_code),
            description: error.description.into_owned(),
        }),
    }
}

fn read(message: &StoredMessage) -> Message {
    Message {
        seq: message.seq.0,
        time: message.time(),
        subject: String::from_utf8_lossy(message.subject()).into_owned(),
        header: Bytes::copy_from_slice(message.header()),
        payload: Bytes::copy_from_slice(message.payload()),
    }
}

fn name_of(config: &ConsumerConfig) -> &str {
    config
        .durable_name
        .as_deref()
        .or(config.name.as_deref())
        .unwrap_or("")
}
