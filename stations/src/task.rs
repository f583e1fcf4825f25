//! What a driver is asked to do, what it answers, and how a run that failed is undone.

use std::fmt;

use bytes::Bytes;
use menes_jetstream::AccountName;
use menes_jetstream::Timestamp;
use menes_jetstream::consumer::{ConsumerConfig, ConsumerInfo};
use menes_jetstream::engine::ended::EndedKey;
use menes_jetstream::stream::{StreamConfig, StreamState};
use thiserror::Error;

use crate::command::{Command, Outcome};
use crate::lock::{Hold, LockKey};
use crate::name::{SchemaName, StationName};
use crate::presence::Presence;
use crate::schema::{CheckedSchema, SchemaKind};
use crate::state::State;
use crate::user::{ConfiguredUser, PasswordHash};

/// JetStream error code of a stream that does not exist.
const STREAM_NOT_FOUND: u32 = 10_059;
/// JetStream error code of a consumer that does not exist.
const CONSUMER_NOT_FOUND: u32 = 10_014;
/// JetStream error codes of a message that does not exist.
const MESSAGE_NOT_FOUND: [u32; 2] = [10_037, 10_043];
/// JetStream error codes of a message that is not where its publisher expects the stream to end.
const NOT_EXPECTED: [u32; 2] = [10_071, 10_164];
/// JetStream error code of a stream that keeps no message without a consumer that wants it.
const NO_INTEREST: u32 = 10_077;

/// A message on its way into a stream, or out to whoever subscribes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Subject.
    pub subject: String,
    /// Header block, empty for none.
    pub header: Bytes,
    /// Payload.
    pub payload: Bytes,
}

/// A message read from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its sequence.
    pub seq: u64,
    /// When it was stored.
    pub time: Timestamp,
    /// Subject.
    pub subject: String,
    /// Header block, empty for none.
    pub header: Bytes,
    /// Payload.
    pub payload: Bytes,
}

/// A definition of a schema that is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaSource {
    /// Name of the schema.
    pub name: SchemaName,
    /// Number the version is to get.
    pub version: u32,
    /// What it is written in.
    pub kind: SchemaKind,
    /// The definition.
    pub content: String,
    /// Root message of a Protobuf definition, empty for its first one.
    pub message: String,
    /// The definition it must be compatible with, if any.
    pub follows: Option<String>,
}

/// One thing for the driver to do, in the account of the request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make a stream, as the JetStream API would. One that exists with the same configuration is
    /// [`StepResult::Existed`].
    CreateStream(Box<StreamConfig>),
    /// Remove a stream.
    DeleteStream {
        /// Its name.
        name: String,
        /// Leave it, and be [`StepResult::Done`], if it ever held a message.
        only_if_unused: bool,
    },
    /// Make a durable or update it, as the JetStream API does without an `action`. One that
    /// exists, changed or not, is [`StepResult::Existed`].
    CreateConsumer {
        /// Its stream.
        stream: String,
        /// Its configuration.
        config: Box<ConsumerConfig>,
    },
    /// Update a durable.
    UpdateConsumer {
        /// Its stream.
        stream: String,
        /// Its configuration.
        config: Box<ConsumerConfig>,
    },
    /// Remove a durable.
    DeleteConsumer {
        /// Its stream.
        stream: String,
        /// Its name.
        name: String,
    },
    /// Write a command to the application group's log and wait until [`crate::Stations::apply`]
    /// has seen it; the result is its outcome.
    Record(Box<Command>),
    /// Read the state of a stream; the result is [`StepResult::Stream`].
    QueryStream(String),
    /// Make a stream unless there is one of this name, whatever its configuration.
    EnsureStream(Box<StreamConfig>),
    /// Change a stream.
    UpdateStream(Box<StreamConfig>),
    /// Store a message in a stream. One that the stream holds already, or that is not where its
    /// header expects the stream to end, is [`StepResult::Done`].
    Publish {
        /// The stream.
        stream: String,
        /// The message.
        message: Box<Outbound>,
    },
    /// Send a message, without a reply subject, to whoever subscribes.
    Send(Box<Outbound>),
    /// Read a message; the result is [`StepResult::Messages`] with one or none.
    Read {
        /// The stream.
        stream: String,
        /// Its sequence.
        seq: u64,
    },
    /// Read a message that a consumer gave up; the result is [`StepResult::Messages`].
    ReadEnded {
        /// The record of its end.
        key: EndedKey,
        /// Its sequence.
        seq: u64,
    },
    /// Check a payload, away from the engine, as the server does for the station's producers.
    CheckMessage {
        /// The station.
        station: StationName,
        /// The payload.
        payload: Bytes,
    },
    /// Name the streams of the account; the result is [`StepResult::Names`].
    ListStreams,
    /// Count those of these streams that exist; the result is [`StepResult::Sequence`].
    CountStreams(Vec<String>),
    /// Read messages; the result is [`StepResult::Messages`]. A stream that does not exist has
    /// none.
    List {
        /// The stream.
        stream: String,
        /// Subjects, wildcards included.
        filter: String,
        /// First sequence.
        from: u64,
        /// Most messages.
        limit: usize,
    },
    /// Remove messages. A stream that does not exist has none.
    Purge {
        /// The stream.
        stream: String,
        /// Only those on a subject that matches.
        filter: Option<String>,
    },
    /// Remove a message.
    DeleteMessage {
        /// The stream.
        stream: String,
        /// Its sequence.
        seq: u64,
    },
    /// The message that a consumer gave up was taken over.
    HandOver(EndedKey),
    /// Find the first message at or after a time; the result is [`StepResult::Sequence`].
    FindTime {
        /// The stream.
        stream: String,
        /// The time.
        time: Timestamp,
    },
    /// Let a durable begin again at a sequence.
    ResetConsumer {
        /// Its stream.
        stream: String,
        /// Its name.
        name: String,
        /// The next message it hands out.
        start: u64,
    },
    /// Let a durable hand out nothing until this time; zero goes on at once.
    PauseConsumer {
        /// Its stream.
        stream: String,
        /// Its name.
        name: String,
        /// Until when.
        until: Timestamp,
    },
    /// Read how a durable stands; the result is [`StepResult::Consumer`].
    QueryConsumer {
        /// Its stream.
        stream: String,
        /// Its name.
        name: String,
    },
    /// Check a definition, away from the engine; the result is [`StepResult::Checked`].
    CheckSchema(Box<SchemaSource>),
    /// Make ready to check messages against a known version, away from the engine.
    PrepareSchema {
        /// Name of the schema.
        name: SchemaName,
        /// The version.
        version: u32,
    },
    /// Hash a password, away from the engine; the result is [`StepResult::Hashed`].
    HashPassword(Secret),
    /// Make a connection token that nobody can guess; the result is [`StepResult::Token`].
    MakeToken,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A new connection token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What people call it by.
    pub id: String,
    /// The whole token, for whoever asked.
    pub secret: Secret,
    /// SHA-256 of it, lower-case hexadecimal.
    pub digest: String,
}

impl Step {
    pub(crate) fn record(command: Command) -> Self {
        Self::Record(Box::new(command))
    }

    /// Whether `error` says that what this step removes is gone already.
    fn is_done_by(&self, error: &StepError) -> bool {
        match self {
            Self::DeleteStream { .. } => error.err_code == STREAM_NOT_FOUND,
            Self::DeleteConsumer { .. } => {
                matches!(error.err_code, STREAM_NOT_FOUND | CONSUMER_NOT_FOUND)
            }
            Self::Purge { .. } | Self::HandOver(_) => error.err_code == STREAM_NOT_FOUND,
            Self::DeleteMessage { .. } => {
                error.err_code == STREAM_NOT_FOUND || MESSAGE_NOT_FOUND.contains(&error.err_code)
            }
            Self::Publish { .. } => {
                error.err_code == NO_INTEREST || NOT_EXPECTED.contains(&error.err_code)
            }
            _ => false,
        }
    }
}

/// An error of the engine, shown to Memphis clients as `<description> (<code>)`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{description} ({err_code})")]
pub struct StepError {
    /// JetStream error code, such as 10058.
    pub err_code: u32,
    /// Its text.
    pub description: String,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepResult {
    /// Done; what was to be made is new.
    Done,
    /// What was to be made was there, and is now as asked.
    Existed,
    /// The outcome of a recorded command.
    Recorded(Outcome),
    /// The state of a stream.
    Stream(Box<StreamState>),
    /// Messages, in the order of the stream.
    Messages(Vec<Message>),
    /// A sequence, or a count.
    Sequence(u64),
    /// Names.
    Names(Vec<String>),
    /// How a durable stands.
    Consumer(Box<ConsumerInfo>),
    /// A definition that is in order.
    Checked(Box<CheckedSchema>),
    /// A password as it may be stored.
    Hashed(PasswordHash),
    /// A new connection token.
    Token(Box<NewToken>),
    /// Not done.
    Failed(StepError),
}

impl StepResult {
    /// Whether the run stops here.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Failed(_) => true,
            Self::Recorded(outcome) => *outcome != Outcome::Done,
            _ => false,
        }
    }
}

/// What a task wants now.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Carry out these steps in order, stop after the first that [fails](StepResult::is_failure),
    /// and hand back what came of those that were tried to [`crate::Stations::resume`].
    Run(Vec<Step>),
    /// The task is over: send this payload, without headers, to whoever waits for it.
    Reply(Vec<u8>),
    /// The task is over and nobody waits for it.
    Silent,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The engine refused.
    Engine(StepError),
    /// A command was refused when it was applied.
    Record(Outcome),
}

/// Undoes one step, depending on what came of it.
#[derive(Clone, Debug, Default)]
struct Undo {
    fresh: Option<Step>,
    existed: Option<Step>,
}

/// Steps with what undoes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    undo: Vec<Undo>,
    after_undo: Vec<Step>,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.steps.push(step);
        self.undo.push(Undo::default());
    }

    /// A step that is undone by `fresh` if it made something, by `existed` if it was there.
    pub(crate) fn undoable(&mut self, step: Step, fresh: Option<Step>, existed: Option<Step>) {
        self.steps.push(step);
        self.undo.push(Undo { fresh, existed });
    }

    /// Ends the undoing of this plan, whichever step failed.
    pub(crate) fn after_undo(&mut self, step: Step) {
        self.after_undo.push(step);
    }

    /// What undoes the steps that were done, last one first.
    fn undoing(self, results: &[StepResult]) -> Self {
        let done = self.undo.into_iter().zip(results).rev();
        let mut steps: Vec<Step> = done
            .filter_map(|(undo, result)| match result {
                StepResult::Done | StepResult::Recorded(Outcome::Done) => undo.fresh,
                StepResult::Existed => undo.existed,
                _ => None,
            })
            .collect();
        steps.extend(self.after_undo);
        let undo = vec![Undo::default(); steps.len()];
        Self {
            steps,
            undo,
            after_undo: Vec::new(),
        }
    }
}

/// A plan being carried out.
#[derive(Debug)]
pub(crate) struct Run {
    plan: Plan,
    results: Vec<StepResult>,
}

/// What a run asks for next.
pub(crate) enum RunEnd {
    /// These steps remain.
    Continue(Vec<Step>),
    /// Every step was done.
    Done(Vec<StepResult>),
    /// A step failed; the plan undoes the others.
    Failed(Failure, Plan),
}

impl Run {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            results: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plan.steps.is_empty()
    }

    pub(crate) fn steps(&self) -> Vec<Step> {
        self.plan.steps.clone()
    }

    /// Takes in what came of the steps that were tried.
    pub(crate) fn take(mut self, results: Vec<StepResult>) -> (Option<Self>, RunEnd) {
        for result in results {
            let Some(step) = self.plan.steps.get(self.results.len()) else {
                break;
            };
            let failure = match &result {
                StepResult::Failed(error) if step.is_done_by(error) => {
                    self.results.push(StepResult::Done);
                    continue;
                }
                StepResult::Failed(error) => Failure::Engine(error.clone()),
                StepResult::Recorded(outcome) if *outcome != Outcome::Done => {
                    Failure::Record(*outcome)
                }
                _ => {
                    self.results.push(result);
                    continue;
                }
            };
            return (
                None,
                RunEnd::Failed(failure, self.plan.undoing(&self.results)),
            );
        }
        let remaining = self.plan.steps[self.results.len()..].to_vec();
        if remaining.is_empty() {
            return (None, RunEnd::Done(self.results));
        }
        (Some(self), RunEnd::Continue(remaining))
    }
}

/// What a task may look at.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a State,
    pub(crate) presence: &'a Presence,
    pub(crate) account: &'a AccountName,
    /// Users that the configuration names.
    pub(crate) configured: &'a [ConfiguredUser],
    pub(crate) now: Timestamp,
    /// The task holds its stations for itself alone.
    pub(crate) exclusive: bool,
}

/// What a job wants.
pub(crate) enum Next {
    Run(Plan),
    Reply(Vec<u8>),
    Silent,
    /// Hold the stations exclusively and ask again.
    Exclusive,
}

/// A request being served. It plans from the state as it is now, so that whatever was left
/// unfinished by others, or by a crash, is met and finished on the way.
pub(crate) trait Job: Send {
    /// What to hold, each key once, with stations held as `stations` says.
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)>;

    /// Whether registering only, and so sharing the station, is a chance worth taking first.
    fn starts_shared(&self) -> bool;

    /// The next plan. Called at the start and after each plan that was carried out.
    fn next(&mut self, cx: &Context<'_>) -> Next;

    /// Takes in the results of the plan that was just carried out.
    fn absorb(&mut self, _results: &[StepResult]) {}

    /// The reply when a plan failed and was undone; none for work of our own.
    fn failed(&self, failure: &Failure) -> Option<Vec<u8>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str) -> Step {
        Step::QueryStream(name.to_owned())
    }

    fn delete(name: &str) -> Step {
        Step::DeleteStream {
            name: name.to_owned(),
            only_if_unused: false,
        }
    }

    fn error(err_code: u32) -> StepResult {
        StepResult::Failed(StepError {
            err_code,
            description: "text".to_owned(),
        })
    }

    #[test]
    fn a_failed_plan_is_undone_backwards_as_far_as_it_came() {
        let mut plan = Plan::default();
        plan.undoable(query("1"), Some(query("-1")), None);
        plan.undoable(query("2"), Some(query("-2")), Some(query("=2")));
        plan.undoable(query("3"), Some(query("-3")), Some(query("=3")));
        plan.undoable(query("4"), Some(query("-4")), None);
        plan.after_undo(query("end"));
        let results = vec![
            StepResult::Done,
            StepResult::Existed,
            StepResult::Done,
            error(1),
        ];
        let (_, RunEnd::Failed(Failure::Engine(error), undo)) = Run::new(plan).take(results) else {
            panic!("the run failed");
        };
        assert_eq!(error.to_string(), "text (1)");
        assert_eq!(
            undo.steps,
            [query("-3"), query("=2"), query("-1"), query("end")]
        );
    }

    #[test]
    fn removing_what_is_gone_does_not_stop_a_run() {
        let mut plan = Plan::default();
        plan.step(delete("a"));
        plan.step(delete("b"));
        let (run, end) = Run::new(plan).take(vec![error(STREAM_NOT_FOUND)]);
        let RunEnd::Continue(steps) = end else {
            panic!("one step remains")
        };
        assert_eq!(steps, [delete("b")]);
        let (_, end) = run.expect("goes on").take(vec![StepResult::Done]);
        assert!(matches!(end, RunEnd::Done(results) if results.len() == 2));
    }
}
