//! The desk where control requests are served.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use menes_jetstream::engine::ended::{Ended, EndedKey};
use menes_jetstream::{AccountName, Timestamp};

use crate::api;
use crate::command::{Applied, Command, Outcome};
use crate::dead_letter::{Origin, Recording, Source};
use crate::lock::{Hold, LockKey, Locks};
use crate::name::{GroupName, SchemaName, StationName};
use crate::presence::Presence;
use crate::sdk::{self, Opened, Request};
use crate::state::{LoadError, State};
use crate::station::StationStatus;
use crate::task::{Context, Job, Next, Plan, Progress, Run, RunEnd, Step, StepResult};
use crate::upkeep;
use crate::user::{ConfiguredUser, PasswordHash};

/// Requests served at one time; more are refused.
const MAX_TASKS: usize = 65_536;
/// A repetition of a request that is still being served counts as the client's retry when the
/// first is at least this old; clients wait longer than that before they try again.
const SHORTEST_RETRY: Duration = Duration::from_millis(900);

/// Number of a request being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Tells a repeated request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RequestKey {
    account: AccountName,
    connection: String,
    subject: Vec<u8>,
    payload: Vec<u8>,
}

struct Task {
    account: AccountName,
    job: Box<dyn Job>,
    began: Timestamp,
    key: Option<RequestKey>,
    /// Repetitions that get the same reply.
    followers: Vec<TaskId>,
    locks: Vec<(LockKey, Hold)>,
    exclusive: bool,
    run: Option<Run>,
    /// The end of a task whose plan failed, once that is undone.
    verdict: Option<Progress>,
}

/// Stations of all accounts, and the requests about them that are being served.
///
/// Everything is leader-local except the [`State`], which followers keep by [`Stations::apply`]
/// alone.
#[derive(Default)]
pub struct Stations {
    state: State,
    presence: Presence,
    locks: Locks,
    tasks: BTreeMap<TaskId, Task>,
    in_service: BTreeMap<RequestKey, TaskId>,
    runnable: VecDeque<TaskId>,
    ready: VecDeque<(TaskId, Progress)>,
    last_task: u64,
    /// What the server checks for producers may have changed.
    is_enforcement_stale: bool,
    /// Who may log in, or what somebody may do, may have changed.
    are_people_stale: bool,
    configured: Vec<ConfiguredUser>,
}

/// A station whose messages the server checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// Owner.
    pub account: AccountName,
    /// The station.
    pub station: StationName,
    /// Its partitions.
    pub partitions: u32,
    /// The schema.
    pub schema: SchemaName,
    /// The version that is active.
    pub version: u32,
}

impl Stations {
    /// The stations stored as `rows`. `now` is the time from which registrations of connections
    /// that do not come back grow old.
    ///
    /// # Errors
    /// A row that cannot be understood.
    pub fn load(
        rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        now: Timestamp,
    ) -> Result<Self, LoadError> {
        let state = State::load(rows)?;
        let mut presence = Presence::new(now);
        for (account, stations) in state.accounts() {
            for entry in stations.values() {
                for producer in entry.producers() {
                    presence.registered(account, &producer.connection, now);
                }
                for member in entry.groups().flat_map(|group| group.members()) {
                    presence.registered(account, &member.connection, now);
                }
            }
        }
        Ok(Self {
            state,
            presence,
            is_enforcement_stale: true,
            are_people_stale: true,
            ..Self::default()
        })
    }

    /// What is known.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a connection with this id is open: what is registered from it counts as active.
    #[must_use]
    pub fn is_active(&self, account: &AccountName, connection: &str) -> bool {
        self.presence.is_open(account, connection)
    }

    /// Carries out a command of the application group; on every replica, in log order.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let applied = self.state.apply(command);
        if applied.outcome != Outcome::Done {
            return applied;
        }
        self.is_enforcement_stale |= matches!(
            command,
            Command::StationCreated { .. }
                | Command::StationChanged { .. }
                | Command::StationRemoved { .. }
                | Command::SchemaActivated { .. }
                | Command::SchemaRemoved { .. }
        );
        self.are_people_stale |= command.is_about_people();
        if let Some((account, connection, when)) = command.registration() {
            self.presence.registered(account, connection, when);
        } else if let Command::RegistrationsExpired {
            account,
            connections,
            ..
        } = command
        {
            self.presence.forget(account, connections);
        }
        applied
    }

    /// Notes that a client connected: `connection` is the first half of an SDK's connection name.
    /// For other clients any id will do that is unique and the same in [`sdk::ClientIdentity`].
    pub fn connection_opened(&mut self, account: &AccountName, connection: &str) {
        self.presence.opened(account, connection);
    }

    /// Notes that a connection closed. Registrations from it stay.
    pub fn connection_closed(&mut self, account: &AccountName, connection: &str, now: Timestamp) {
        self.presence.closed(account, connection, now);
    }

    /// Takes in a request. What to do about it comes from [`Stations::poll`] under the number
    /// returned; it ends with one [`Progress::Reply`], which is dropped if the request has no
    /// reply subject.
    pub fn begin(&mut self, request: &Request<'_>) -> TaskId {
        let id = self.next_id();
        let key = RequestKey {
            account: request.account.clone(),
            connection: request.client.connection_id.to_owned(),
            subject: request.subject.to_vec(),
            payload: request.payload.to_vec(),
        };
        if let Some(first) = self.in_service.get(&key)
            && let Some(task) = self.tasks.get_mut(first)
            && request.now.since(task.began) >= SHORTEST_RETRY
        {
            task.followers.push(id);
            return id;
        }
        if self.tasks.len() >= MAX_TASKS {
            let refusal = sdk::refusal(request.subject, "too many requests are being served");
            self.ready.push_back((id, Progress::Reply(refusal)));
            return id;
        }
        match sdk::open(request) {
            Opened::Job {
                job,
                registers_from,
                account,
            } => {
                if let Some(connection) = registers_from {
                    let owner = request.client.connection_id;
                    self.presence.adopt(request.account, owner, &connection);
                }
                let account = account.as_ref().unwrap_or(request.account);
                self.start(id, account, job, Some(key), request.now);
            }
            Opened::Reply(reply) => self.ready.push_back((id, Progress::Reply(reply))),
        }
        id
    }

    /// Whether [`Stations::enforced`] may have changed since the last call.
    pub fn take_enforcement_change(&mut self) -> bool {
        std::mem::take(&mut self.is_enforcement_stale)
    }

    /// Whether [`State::people`] changed since the last call.
    pub fn take_people_change(&mut self) -> bool {
        std::mem::take(&mut self.are_people_stale)
    }

    /// Tells which users the configuration names: they are shown, and nobody else gets their names.
    pub fn set_configured_users(&mut self, users: Vec<ConfiguredUser>) {
        self.configured = users;
    }

    /// Makes root, with this password, unless there is one.
    pub fn make_root(&mut self, password: PasswordHash, now: Timestamp) -> TaskId {
        let id = self.next_id();
        let job = api::first_root(password, now);
        self.start(id, &AccountName::global(), job, None, now);
        id
    }

    /// The stations whose messages the server checks, and against what.
    pub fn enforced(&self) -> impl Iterator<Item = Enforced> {
        self.state.accounts().flat_map(move |(account, stations)| {
            stations.values().filter_map(move |entry| {
                let station = &entry.station;
                let link = station.schema.as_ref().filter(|link| link.is_enforced)?;
                let (_, version) = self.state.schema_of(account, station)?;
                station.is_ready().then(|| Enforced {
                    account: account.clone(),
                    station: station.name.clone(),
                    partitions: station.partitions,
                    schema: link.name.clone(),
                    version: version.number,
                })
            })
        })
    }

    /// Whether messages of this stream that a consumer gave up become dead letters.
    #[must_use]
    pub fn takes_over(&self, account: &AccountName, stream: &str) -> bool {
        let partition = self.state.partition(account, stream);
        partition.is_some_and(|(entry, _)| entry.station.dead_letters.poison)
    }

    /// Takes in that a consumer gave up a message. The task ends with [`Step::HandOver`] if the
    /// message is taken over or need not be; otherwise it is to be told again, later.
    pub fn delivery_ended(&mut self, ended: &Ended, key: EndedKey, now: Timestamp) -> TaskId {
        let id = self.next_id();
        let Some((station, partition)) = partition_of(&ended.stream) else {
            let mut plan = Plan::default();
            plan.step(Step::HandOver(key));
            self.start(id, &ended.account, upkeep::just(plan), None, now);
            return id;
        };
        // A consumer that no SDK could have made is its own group all the same.
        let group = GroupName::parse(ended.consumer());
        let job: Box<dyn Job> = match group {
            Ok(group) => {
                let origin = Origin {
                    partition,
                    sequence: ended.stream_seq().0,
                    group,
                };
                let source = Source::Ended(key);
                let mut recording = Recording::new(station, origin, String::new(), source);
                recording.deliveries = ended.deliveries();
                Box::new(recording)
            }
            Err(_) => {
                let mut plan = Plan::default();
                plan.step(Step::HandOver(key));
                upkeep::just(plan)
            }
        };
        self.start(id, &ended.account, job, None, now);
        id
    }

    /// Takes in that the server refused a message because it violates the station's schema.
    pub fn message_refused(
        &mut self,
        account: &AccountName,
        station: StationName,
        reason: String,
        header: Bytes,
        payload: Bytes,
        now: Timestamp,
    ) {
        let id = self.next_id();
        let job = sdk::dead_letter::violation(station, reason, header, payload, now);
        self.start(id, account, job, None, now);
    }

    /// Takes in that a stream is gone. A station whose streams are all gone is removed.
    pub fn stream_gone(&mut self, account: &AccountName, stream: &str, now: Timestamp) {
        let Some((entry, _)) = self.state.partition(account, stream) else {
            return;
        };
        if entry.station.is_ready() {
            let job = upkeep::abandonment(entry.station.name.clone());
            let id = self.next_id();
            self.start(id, account, job, None, now);
        }
    }

    /// The account whose streams a task works on, while it runs.
    #[must_use]
    pub fn account_of(&self, id: TaskId) -> Option<&AccountName> {
        self.tasks.get(&id).map(|task| &task.account)
    }

    /// The next thing to do for any request, if there is something now.
    pub fn poll(&mut self) -> Option<(TaskId, Progress)> {
        while self.ready.is_empty() {
            let id = self.runnable.pop_front()?;
            self.advance(id);
        }
        self.ready.pop_front()
    }

    /// Takes in what came of the steps of a run: one result for each step that was tried. With
    /// fewer results than steps and no failure, the remaining steps are asked for again.
    pub fn resume(&mut self, id: TaskId, results: Vec<StepResult>) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let Some(run) = task.run.take() else { return };
        let (rest, end) = run.take(results);
        task.run = rest;
        match end {
            RunEnd::Continue(steps) => {
                self.ready.push_back((id, Progress::Run(steps)));
                return;
            }
            RunEnd::Done(results) => {
                if task.verdict.is_none() {
                    task.job.absorb(&results);
                }
            }
            RunEnd::Failed(failure, undo) => {
                // A failure while undoing leaves a mark in the state that is met later.
                if task.verdict.is_none() {
                    let reply = task.job.failed(&failure);
                    task.verdict = Some(reply.map_or(Progress::Silent, Progress::Reply));
                    let run = Run::new(undo);
                    if !run.is_empty() {
                        self.ready.push_back((id, Progress::Run(run.steps())));
                        task.run = Some(run);
                        return;
                    }
                }
            }
        }
        self.runnable.push_back(id);
    }

    /// Finishes what a crash or a failure left half done. To be called when this server begins
    /// to serve requests; without it, the next request that meets such a station does the same.
    pub fn recover(&mut self, now: Timestamp) {
        let unfinished: Vec<_> = self
            .state
            .accounts()
            .flat_map(|(account, stations)| stations.values().map(move |entry| (account, entry)))
            .filter(|(_, entry)| upkeep::is_unfinished(entry))
            .map(|(account, entry)| (account.clone(), entry.station.name.clone()))
            .collect();
        for (account, station) in unfinished {
            let id = self.next_id();
            self.start(id, &account, upkeep::settling(station), None, now);
        }
    }

    /// Removes what was registered from connections that closed `age` or longer ago. Groups keep
    /// their durables and positions.
    pub fn expire_registrations(&mut self, age: Duration, now: Timestamp) {
        let gone = self.presence.take_closed(now.minus(age));
        if gone.is_empty() {
            return;
        }
        let mut expired = Vec::new();
        for (account, stations) in self.state.accounts() {
            for entry in stations
                .values()
                .filter(|e| e.station.status == StationStatus::Ready)
            {
                let producers = entry.producers().map(|producer| &producer.connection);
                let members = entry.groups().flat_map(|group| group.members());
                let connections = producers
                    .chain(members.map(|member| &member.connection))
                    .filter(|id| gone.contains(&(account.clone(), String::clone(id))))
                    .cloned()
                    .collect();
                expired.push((account.clone(), entry.station.name.clone(), connections));
            }
        }
        for (account, station, connections) in expired {
            if let Some(job) = upkeep::expiry(station, connections) {
                let id = self.next_id();
                self.start(id, &account, job, None, now);
            }
        }
    }

    fn next_id(&mut self) -> TaskId {
        self.last_task += 1;
        TaskId(self.last_task)
    }

    fn start(
        &mut self,
        id: TaskId,
        account: &AccountName,
        job: Box<dyn Job>,
        key: Option<RequestKey>,
        now: Timestamp,
    ) {
        let exclusive = !job.starts_shared();
        if let Some(key) = &key {
            self.in_service.insert(key.clone(), id);
        }
        let task = Task {
            account: account.clone(),
            job,
            began: now,
            key,
            followers: Vec::new(),
            locks: Vec::new(),
            exclusive,
            run: None,
            verdict: None,
        };
        self.tasks.insert(id, task);
        self.line_up(id);
    }

    /// Asks for the locks of a task and lets it run once it has them.
    fn line_up(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let hold = if task.exclusive {
            Hold::Exclusive
        } else {
            Hold::Shared
        };
        task.locks = task.job.locks(&task.account, hold);
        if self.locks.acquire(id, &task.locks) {
            self.runnable.push_back(id);
        }
    }

    /// Asks a task that holds its locks and has nothing running what it wants.
    fn advance(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        if let Some(verdict) = task.verdict.take() {
            self.finish(id, verdict);
            return;
        }
        let cx = Context {
            state: &self.state,
            presence: &self.presence,
            account: &task.account,
            configured: &self.configured,
            now: task.began,
            exclusive: task.exclusive,
        };
        match task.job.next(&cx) {
            Next::Run(plan) => self.run(id, plan),
            Next::Reply(reply) => self.finish(id, Progress::Reply(reply)),
            Next::Silent => self.finish(id, Progress::Silent),
            Next::Exclusive => {
                debug_assert!(!task.exclusive, "a task asks for more only once");
                task.exclusive = true;
                let held = std::mem::take(&mut task.locks);
                self.runnable.extend(self.locks.release(id, &held));
                self.line_up(id);
            }
        }
    }

    fn run(&mut self, id: TaskId, plan: Plan) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let run = Run::new(plan);
        debug_assert!(!run.is_empty(), "a job that wants nothing replies");
        self.ready.push_back((id, Progress::Run(run.steps())));
        task.run = Some(run);
    }

    fn finish(&mut self, id: TaskId, end: Progress) {
        let Some(task) = self.tasks.remove(&id) else {
            return;
        };
        if let Some(key) = &task.key
            && self.in_service.get(key) == Some(&id)
        {
            self.in_service.remove(key);
        }
        self.runnable.extend(self.locks.release(id, &task.locks));
        for follower in task.followers {
            self.ready.push_back((follower, end.clone()));
        }
        self.ready.push_back((id, end));
    }
}

/// The station and the partition that a stream is named for.
fn partition_of(stream: &str) -> Option<(StationName, u32)> {
    let (station, partition) = stream.rsplit_once('$')?;
    Some((StationName::parse(station).ok()?, partition.parse().ok()?))
}
