//! What makes a change safe to ask for: the tag of what is there, and a rehearsal.
//!
//! Every object that can be changed is shown with an `etag`, which is another one as soon as its
//! definition is. A change that names one in `if_match` is refused when the object has another,
//! and this is looked at while the request holds the object. A change with `dry_run` goes as far
//! as its first step that would change anything, and answers with the steps.

use std::hash::{DefaultHasher, Hash, Hasher};

use menes_jetstream::AccountName;
use serde::Serialize;
use serde_json::{Value, json};

use crate::lock::{Hold, LockKey};
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused};
use crate::task::{Context, Failure, Job, Next, Step, StepResult};

/// The tag of a definition.
pub(super) fn etag(definition: &impl Serialize) -> String {
    let mut hasher = DefaultHasher::new();
    // A definition that cannot be written has no tag that anyone could name.
    let text = serde_json::to_string(definition).unwrap_or_default();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The tag that a change asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct IfMatch(Option<String>);

impl IfMatch {
    pub(super) fn read(body: &Body) -> Result<Self, Refused> {
        Ok(Self(if body.has("if_match") {
            Some(body.short_text("if_match")?)
        } else {
            None
        }))
    }

    /// Refuses a change of something else than what was looked at.
    pub(super) fn check(&self, what: &str, definition: &impl Serialize) -> Result<(), String> {
        let Some(wanted) = &self.0 else {
            return Ok(());
        };
        let tag = etag(definition);
        if *wanted == tag {
            Ok(())
        } else {
            Err(format!("{what} is not what it was: its etag is {tag}"))
        }
    }
}

/// The request without its consequences.
pub(super) fn rehearsed(opened: Opened) -> Opened {
    match opened {
        Opened::Job { job, account, .. } => Opened::Job {
            job: Box::new(Rehearsal { job }),
            registers_from: None,
            account,
        },
        answered @ Opened::Reply(_) => answered,
    }
}

struct Rehearsal {
    job: Box<dyn Job>,
}

impl Job for Rehearsal {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        self.job.locks(account, stations)
    }

    fn starts_shared(&self) -> bool {
        self.job.starts_shared()
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        match self.job.next(cx) {
            Next::Run(plan) if plan.steps().any(|step| change(step).is_some()) => {
                let steps: Vec<Value> = plan.steps().filter_map(change).collect();
                Next::Reply(reply(&steps))
            }
            Next::Reply(answer) => {
                let refused: Option<Value> = serde_json::from_slice(&answer).ok();
                match refused {
                    Some(answer) if answer["error"].is_object() => {
                        Next::Reply(answer.to_string().into_bytes())
                    }
                    // There was nothing to do.
                    _ => Next::Reply(reply(&[])),
                }
            }
            other => other,
        }
    }

    fn absorb(&mut self, results: &[StepResult]) {
        self.job.absorb(results);
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        self.job.failed(failure)
    }
}

fn reply(steps: &[Value]) -> Vec<u8> {
    json!({"dry_run": true, "steps": steps})
        .to_string()
        .into_bytes()
}

/// What a step would change; none if it only looks.
fn change(step: &Step) -> Option<Value> {
    let (does, what) = match step {
        Step::CreateStream(config) | Step::EnsureStream(config) => ("make stream", &config.name),
        Step::UpdateStream(config) => ("change stream", &config.name),
        Step::DeleteStream { name, .. } => ("remove stream", name),
        Step::CreateConsumer { stream, .. } => ("make or change a consumer of stream", stream),
        Step::UpdateConsumer { stream, .. } => ("change a consumer of stream", stream),
        Step::DeleteConsumer { stream, .. } => ("remove a consumer of stream", stream),
        Step::ResetConsumer { stream, .. } => ("move a consumer of stream", stream),
        Step::PauseConsumer { stream, .. } => ("pause a consumer of stream", stream),
        Step::Publish { stream, .. } => ("store a message in stream", stream),
        Step::Purge { stream, .. } => ("remove messages of stream", stream),
        Step::DeleteMessage { stream, .. } => ("remove a message of stream", stream),
        Step::Send(message) => ("tell clients on", &message.subject),
        Step::Record(command) => {
            let text = format!("{command:?}");
            let word = text.split([' ', '(', '{']).next().unwrap_or_default();
            return Some(json!({"does": "record", "what": word}));
        }
        Step::HandOver(_) => {
            return Some(json!({"does": "take over", "what": "a given up message"}));
        }
        Step::QueryStream(_)
        | Step::Read { .. }
        | Step::ReadEnded { .. }
        | Step::CheckMessage { .. }
        | Step::ListStreams
        | Step::CountStreams(_)
        | Step::List { .. }
        | Step::FindTime { .. }
        | Step::QueryConsumer { .. }
        | Step::CheckSchema(_)
        | Step::PrepareSchema { .. }
        | Step::HashPassword(_)
        | Step::MakeToken => return None,
    };
    Some(json!({"does": does, "what": what}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_definition_has_another_tag() {
        assert_eq!(etag(&json!({"a": 1})), etag(&json!({"a": 1})));
        assert_ne!(etag(&json!({"a": 1})), etag(&json!({"a": 2})));
        let wanted = IfMatch(Some(etag(&"x")));
        assert!(wanted.check("it", &"x").is_ok());
        assert!(wanted.check("it", &"y").is_err());
        assert!(IfMatch::default().check("it", &"y").is_ok());
    }
}
