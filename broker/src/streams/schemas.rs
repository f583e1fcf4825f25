//! Schemas at work: definitions are checked and compiled on a thread of their own, messages are
//! held against them where they come in.
//!
//! ```text
//!   engine thread ──▶ schema thread          compile, compare: may take its time
//!   connection thread ──▶ Enforcement        every message of a station with a schema, before it
//!                                            reaches the engine
//! ```
//!
//! A message is checked by the thread of the connection that published it, so a publisher pays for
//! its own messages, order is kept, and the engine never waits. What a check can cost is bounded by
//! the size of the message and by what the definition was measured to cost ([`menes_schemas`]).

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use arc_swap::ArcSwap;
use bytes::Bytes;
use data_encoding::BASE64;
use menes_jetstream::ids::AccountName;
use menes_schemas::{Definition, Format, Validator};
use menes_stations::name::{SchemaName, StationName};
use menes_stations::schema::{CheckedSchema, SchemaKind, SchemaVersion};
use menes_stations::{SchemaSource, StepError, StepResult, TaskId};
use parking_lot::Mutex;

use super::driver::Alarm;

/// Stack of the schema thread; definitions are recursive.
const STACK_BYTES: usize = 16 << 20;

/// A version of a schema of an account.
pub(crate) type VersionKey = (AccountName, SchemaName, u32);

/// A station as its publishers meet it.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) station: StationName,
    pub(crate) validator: Arc<Validator>,
}

/// What is held against which messages, by stream.
#[derive(Debug, Default)]
pub(crate) struct Enforcement {
    /// Anything is, anywhere.
    is_active: AtomicBool,
    streams: ArcSwap<HashMap<u64, Arc<Checked>>>,
    checked: AtomicU64,
    rejected: AtomicU64,
}

impl Enforcement {
    /// Whether any message is checked at all.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// Whether messages of a station of this name are checked, in whatever account.
    pub(crate) fn checks(&self, station: &str) -> bool {
        let Ok(name) = StationName::parse(station) else {
            return false;
        };
        let streams = self.streams.load();
        self.is_active() && streams.values().any(|checked| checked.station == name)
    }

    /// Messages that were checked, and those of them that were rejected.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (get(&self.checked), get(&self.rejected))
    }

    /// Counts messages that were checked.
    pub(crate) fn count(&self, checked: u64, rejected: u64) {
        if checked > 0 {
            self.checked.fetch_add(checked, Ordering::Relaxed);
            self.rejected.fetch_add(rejected, Ordering::Relaxed);
        }
    }

    /// What messages of a stream are held against.
    pub(crate) fn of(&self, stream: u64) -> Option<Arc<Checked>> {
        self.streams.load().get(&stream).map(Arc::clone)
    }

    pub(crate) fn replace(&self, streams: HashMap<u64, Arc<Checked>>) {
        let is_active = !streams.is_empty();
        self.streams.store(Arc::new(streams));
        self.is_active.store(is_active, Ordering::Release);
    }
}

impl Checked {
    /// What is wrong with a message, if anything is.
    pub(crate) fn violation(&self, payload: &[u8]) -> Option<String> {
        violation(&self.validator, payload)
    }
}

/// A check that panics counts as a violation: what cannot be checked is not let in.
fn violation(validator: &Validator, payload: &[u8]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| validator.check(payload))) {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(format!("Schema validation has failed: {violation}")),
        Err(_) => {
            tracing::error!("a message could not be checked against its schema");
            Some("Schema validation has failed: the message could not be checked".to_owned())
        }
    }
}

/// Work for the schema thread.
enum Work {
    Check(AccountName, SchemaSource),
    Prepare(VersionKey, SchemaKind, SchemaVersion),
    Message(Arc<Validator>, Bytes),
}

/// Work that is done.
struct Done {
    task: TaskId,
    result: StepResult,
    compiled: Option<(VersionKey, Arc<Validator>)>,
}

/// The way to the schema thread and back, and what it compiled.
pub(crate) struct SchemaDesk {
    work: Sender<(TaskId, Work)>,
    done: Arc<Mutex<Vec<Done>>>,
    compiled: BTreeMap<VersionKey, Arc<Validator>>,
    enforcement: Arc<Enforcement>,
}

impl SchemaDesk {
    /// Starts the thread. It ends with the desk.
    pub(crate) fn new(
        alarm: Arc<Alarm>,
        enforcement: Arc<Enforcement>,
    ) -> Result<Self, std::io::Error> {
        let (work, todo) = mpsc::channel::<(TaskId, Work)>();
        let done = Arc::new(Mutex::new(Vec::new()));
        let finished = Arc::clone(&done);
        thread::Builder::new()
            .name("schemas".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                for (task, work) in todo {
                    let done = carry_out(task, work);
                    finished.lock().push(done);
                    alarm.ring();
                }
            })?;
        Ok(Self {
            work,
            done,
            compiled: BTreeMap::new(),
            enforcement,
        })
    }

    /// Lets a definition be checked; the result comes from [`SchemaDesk::take_done`].
    pub(crate) fn check(&self, task: TaskId, account: &AccountName, source: SchemaSource) {
        self.hand_over(task, Work::Check(account.clone(), source));
    }

    /// Makes a version ready. True if it is so already; otherwise the result comes later.
    pub(crate) fn prepare(
        &self,
        task: TaskId,
        key: VersionKey,
        kind: SchemaKind,
        version: &SchemaVersion,
    ) -> bool {
        let is_ready = self.compiled.contains_key(&key);
        if !is_ready {
            self.hand_over(task, Work::Prepare(key, kind, version.clone()));
        }
        is_ready
    }

    /// Lets a message be checked as those of a stream are. False if they are not.
    pub(crate) fn message(&self, task: TaskId, stream: u64, payload: Bytes) -> bool {
        let Some(checked) = self.enforcement.of(stream) else {
            return false;
        };
        let validator = Arc::clone(&checked.validator);
        self.hand_over(task, Work::Message(validator, payload));
        true
    }

    fn hand_over(&self, task: TaskId, work: Work) {
        if self.work.send((task, work)).is_err() {
            let result = failed("the schema thread has ended");
            self.done.lock().push(Done {
                task,
                result,
                compiled: None,
            });
        }
    }

    /// Steps that are done since the last call.
    pub(crate) fn take_done(&mut self) -> Vec<(TaskId, StepResult)> {
        let done = std::mem::take(&mut *self.done.lock());
        done.into_iter()
            .map(|done| {
                self.compiled.extend(done.compiled);
                (done.task, done.result)
            })
            .collect()
    }

    /// A version ready for use, compiled here and now if need be.
    pub(crate) fn validator(
        &mut self,
        key: &VersionKey,
        kind: SchemaKind,
        version: &SchemaVersion,
    ) -> Option<Arc<Validator>> {
        if let Some(known) = self.compiled.get(key) {
            return Some(Arc::clone(known));
        }
        match compile(
            &key.1,
            kind,
            version.number,
            &version.content,
            &version.message,
        ) {
            Ok(compiled) => {
                let validator = Arc::new(compiled.validator);
                self.compiled.insert(key.clone(), Arc::clone(&validator));
                Some(validator)
            }
            Err(error) => {
                tracing::error!(
                    "version {} of schema {} is not usable: {error}",
                    key.2,
                    key.1
                );
                None
            }
        }
    }

    /// Puts what is in force in the place of what was, and forgets what nobody uses.
    pub(crate) fn enforce(&mut self, streams: HashMap<u64, Arc<Checked>>, used: &[VersionKey]) {
        self.enforcement.replace(streams);
        self.compiled.retain(|key, _| used.contains(key));
    }
}

fn failed(text: impl Into<String>) -> StepResult {
    StepResult::Failed(StepError {
        err_code: 0,
        description: text.into(),
    })
}

fn carry_out(task: TaskId, work: Work) -> Done {
    let outcome = catch_unwind(AssertUnwindSafe(|| work.carry_out()));
    let (result, compiled) = outcome.unwrap_or_else(|_| {
        tracing::error!("a schema could not be compiled");
        (failed("the schema could not be compiled"), None)
    });
    Done {
        task,
        result,
        compiled,
    }
}

impl Work {
    fn carry_out(self) -> (StepResult, Option<(VersionKey, Arc<Validator>)>) {
        match self {
            Self::Check(account, source) => check(account, &source),
            Self::Prepare(key, kind, version) => {
                let compiled = compile(
                    &key.1,
                    kind,
                    version.number,
                    &version.content,
                    &version.message,
                );
                match compiled {
                    Ok(compiled) => (StepResult::Done, Some((key, Arc::new(compiled.validator)))),
                    Err(error) => (failed(error.to_string()), None),
                }
            }
            Self::Message(validator, payload) => match violation(&validator, &payload) {
                None => (StepResult::Done, None),
                Some(text) => (failed(text), None),
            },
        }
    }
}

fn check(
    account: AccountName,
    source: &SchemaSource,
) -> (StepResult, Option<(VersionKey, Arc<Validator>)>) {
    let compiled = compile(
        &source.name,
        source.kind,
        source.version,
        &source.content,
        &source.message,
    )
    .and_then(|compiled| {
        if let Some(before) = &source.follows {
            menes_schemas::compatible(format(source.kind), before, &source.content)?;
        }
        Ok(compiled)
    });
    match compiled {
        Err(error) => (failed(error.to_string()), None),
        Ok(compiled) => {
            let checked = CheckedSchema {
                message: compiled.message,
                descriptor: if compiled.descriptor.is_empty() {
                    String::new()
                } else {
                    BASE64.encode(&compiled.descriptor)
                },
            };
            let key = (account, source.name.clone(), source.version);
            (
                StepResult::Checked(Box::new(checked)),
                Some((key, Arc::new(compiled.validator))),
            )
        }
    }
}

fn compile(
    name: &SchemaName,
    kind: SchemaKind,
    version: u32,
    content: &str,
    message: &str,
) -> Result<menes_schemas::Compiled, menes_schemas::SchemaError> {
    menes_schemas::compile(&Definition {
        format: format(kind),
        content,
        message,
        // SDKs look the file up by this name.
        file_name: &format!("{name}_{version}.proto"),
    })
}

const fn format(kind: SchemaKind) -> Format {
    match kind {
        SchemaKind::Protobuf => Format::Protobuf,
        SchemaKind::Json => Format::Json,
        SchemaKind::Graphql => Format::Graphql,
        SchemaKind::Avro => Format::Avro,
    }
}
