//! Carries out what the stations ask for: their steps become calls of the engine, one at a time.

use std::collections::{BTreeMap, VecDeque};

use menes_jetstream::consumer::ConsumerConfig;
use menes_jetstream::engine::{ApiRequest, Application, Completion, Engine, InternalCall};
use menes_jetstream::ids::AccountName;
use menes_jetstream::ports::{
    LogStore, Outbox, Outgoing, StateStore, StoreError, StoreErrorKind, Table,
};
use menes_jetstream::time::Timestamp;
use menes_jetstream::txn::Txn;
use menes_stations::sdk::{ClientIdentity, Request};
use menes_stations::user::Access;
use menes_stations::{Command, Outcome, Progress, Stations, Step, StepError, StepResult, TaskId};

use super::presence::PresenceEvent;
use crate::connection::client::ClientInfo;

/// How long what a closed connection registered stays known.
const REGISTRATION_AGE: std::time::Duration = std::time::Duration::from_secs(2 * 3600);

/// The stations as the engine's application, with the tasks that are being carried out.
pub(crate) struct StationsDriver {
    stations: Stations,
    now: Timestamp,
    tasks: BTreeMap<TaskId, Running>,
    /// Outcomes of applied commands whose completion was not taken yet, oldest first.
    outcomes: VecDeque<Outcome>,
    expiry_due: Timestamp,
}

/// A task between two steps.
struct Running {
    account: AccountName,
    reply: Vec<u8>,
    steps: VecDeque<Step>,
    results: Vec<StepResult>,
    /// What the step under way makes was there before it.
    existed: bool,
    is_record: bool,
}

/// How a step was taken.
enum Taken {
    /// It is done.
    Now(StepResult),
    /// Its completion will come.
    Later,
}

impl StationsDriver {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            stations: Stations::default(),
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

    /// Takes in a message on a control subject.
    pub(crate) fn begin(
        &mut self,
        request: &ApiRequest<'_>,
        client: Option<&ClientInfo>,
        now: Timestamp,
    ) {
        let Some(client) = client else { return };
        let connection = connection_id(client);
        let identity = ClientIdentity {
            // Where nobody has to log in, everyone may do what root may.
            user: client.identity.user.as_deref().unwrap_or("root"),
            connection_id: &connection,
            lang: &client.identity.lang,
            native: client.identity.connection_id().is_some(),
            access: &Access::All,
        };
        let task = self.stations.begin(&Request {
            account: request.account,
            subject: request.subject,
            payload: request.payload,
            client: identity,
            now,
        });
        self.tasks.insert(
            task,
            Running::new(request.account.clone(), request.reply.to_vec()),
        );
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
            account,
            reply,
            steps: VecDeque::new(),
            results: Vec::new(),
            existed: false,
            is_record: false,
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
    for completion in engine.take_completions() {
        complete(engine, completion, now, out);
        worked = true;
    }
    let driver = engine.application_mut();
    if now >= driver.expiry_due {
        driver.expiry_due = now.plus(std::time::Duration::from_secs(60));
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
                let Some(task) = driver.tasks.remove(&id) else {
                    continue;
                };
                if !task.reply.is_empty() {
                    out.send(Outgoing {
                        account: &task.account,
                        target: &task.reply,
                        subject: &task.reply,
                        reply: b"",
                        header: b"",
                        payload: &payload,
                    });
                }
            }
            Progress::Silent => {
                driver.tasks.remove(&id);
            }
        }
    }
    worked
}

fn complete<L: LogStore, S: StateStore>(
    engine: &mut Engine<L, S, StationsDriver>,
    completion: Completion,
    now: Timestamp,
    out: &mut dyn Outbox,
) {
    let id = TaskId(completion.token);
    let driver = engine.application_mut();
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
    let (call, existed) = match step {
        Step::CreateStream(config) => {
            let existed = engine.has_stream(account, &config.name);
            (InternalCall::CreateStream(config), existed)
        }
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
        Step::Record(command) => {
            if let Some(task) = engine.application_mut().tasks.get_mut(&id) {
                task.is_record = true;
            }
            engine.propose_application(command.encode(), id.0);
            return Taken::Later;
        }
        Step::QueryStream(name) => {
            return Taken::Now(match engine.stream_state(account, &name) {
                Ok(state) => StepResult::Stream(Box::new(state)),
                Err(error) => StepResult::Failed(StepError {
                    err_code: u32::from(error.err_code),
                    description: error.description.into_owned(),
                }),
            });
        }
    };
    if let Some(task) = engine.application_mut().tasks.get_mut(&id) {
        task.is_record = false;
        task.existed = existed;
    }
    engine.call(account, call, id.0, now, out);
    Taken::Later
}

fn name_of(config: &ConsumerConfig) -> &str {
    config
        .durable_name
        .as_deref()
        .or(config.name.as_deref())
        .unwrap_or("")
}
