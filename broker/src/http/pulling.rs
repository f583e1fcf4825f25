//! Messages of a group, taken through a connection inside the server.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::session::Route;
use crate::inside::{Inside, Received, RequestError};

/// Time for the broker to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait at one partition of several, so that the others have their turn.
const TURN: Duration = Duration::from_millis(250);
/// What the messages of one pull may weigh, unless `max_payload` allows more for one.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A group whose messages are taken.
#[derive(Debug)]
pub(crate) struct Pulling<'a> {
    pub(crate) inside: &'a Inside,
    pub(crate) route: &'a Route,
    /// Most messages.
    pub(crate) count: usize,
    /// They are acknowledged before anybody sees them.
    pub(crate) acknowledges: bool,
    /// Waiting goes on until there are as many as wanted, where one partition is waited for.
    pub(crate) fills: bool,
}

impl Pulling<'_> {
    /// Takes whatever is there, at every partition. `NoResponders` where there is no such group.
    pub(crate) async fn take_there(&self) -> Result<Vec<Received>, RequestError> {
        self.take(Vec::new()).await
    }

    /// The same behind those that are taken already.
    async fn take(&self, mut taken: Vec<Received>) -> Result<Vec<Received>, RequestError> {
        for _ in 0..self.route.partitions() {
            if taken.len() >= self.count {
                break;
            }
            let pull = json!({
                "batch": self.count - taken.len(),
                "no_wait": true,
                "max_bytes": self.max_bytes(),
            });
            taken.extend(self.pull(&pull, Duration::ZERO).await?);
        }
        Ok(taken)
    }

    /// Waits for the first message until `end`, and takes those that are there then.
    pub(crate) async fn wait(&self, end: Instant) -> Result<Vec<Received>, RequestError> {
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(Vec::new());
            }
            let wait = if self.route.partitions() == 1 {
                rest
            } else {
                rest.min(TURN)
            };
            let expires = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
            let pull = json!({
                "batch": if self.fills { self.count } else { 1 },
                "expires": expires.max(1_000_000),
                "max_bytes": self.max_bytes(),
            });
            let taken = self.pull(&pull, wait).await?;
            if !taken.is_empty() {
                return if self.fills {
                    Ok(taken)
                } else {
                    self.take(taken).await
                };
            }
        }
    }

    /// Every message that can be stored has to fit.
    fn max_bytes(&self) -> usize {
        MAX_BYTES.max(2 * self.inside.max_payload())
    }

    /// Takes what comes until the pull is over.
    async fn pull(&self, pull: &Value, wait: Duration) -> Result<Vec<Received>, RequestError> {
        let stream = self.route.next_stream();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", self.route.group);
        let wanted = pull["batch"].as_u64().unwrap_or(1);
        let mut answers = self
            .inside
            .pull(&subject, pull.to_string().as_bytes())
            .await?;
        let end = Instant::now() + wait + ANSWER_TIMEOUT;
        let mut taken = Vec::new();
        while (taken.len() as u64) < wanted {
            let message = answers.next(end).await?;
            match message.status() {
                None => {
                    if self.acknowledges {
                        let reply = String::from_utf8_lossy(&message.reply).into_owned();
                        self.inside.send(&reply, None, b"", b"").await?;
                    }
                    taken.push(message);
                }
                // Says that it is there.
                Some(100) => {}
                Some(503) if taken.is_empty() => return Err(RequestError::NoResponders),
                // No messages, or no more of them.
                Some(_) => break,
            }
        }
        Ok(taken)
    }
}
