//! Requests that come again: the same `Idempotency-Key` is done once.
//!
//! What a POST with a key was answered is kept for a day, and given to whoever repeats it. Nothing
//! is kept of what failed: that may be tried again; and nothing of what holds a secret. All of it is
//! forgotten when the server ends; messages are not doubled even then, as the key is their id as
//! well.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;

use super::answer::{Answer, Content};

/// How long answers are kept.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Most answers that are kept.
const MAX_KEPT: usize = 10_000;
/// Largest answer that is kept, bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Most bytes of all answers that are kept.
const MAX_BYTES_KEPT: usize = 32 * 1024 * 1024;
/// Longest key, bytes.
pub(super) const MAX_KEY: usize = 128;

/// Who asked, and the key.
type Key = (String, String);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Repeats(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    all: HashMap<Key, Kept>,
    order: VecDeque<(Instant, Key)>,
    /// Bytes of the answers.
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    /// Of the request.
    digest: [u8; 32],
    since: Instant,
    /// None while it is being done.
    answer: Option<Saved>,
}

#[derive(Clone, Debug)]
struct Saved {
    status: StatusCode,
    body: SavedBody,
    /// Of the body.
    bytes: usize,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Debug)]
enum SavedBody {
    Nothing,
    Json(Value),
    Lines(String),
}

impl Saved {
    fn of(answer: &Answer) -> Option<Self> {
        let (body, bytes) = match &answer.content {
            Content::Nothing => (SavedBody::Nothing, 0),
            // A new token is shown once.
            Content::Json(document) if document.get("token").is_some() => return None,
            Content::Json(document) => (
                SavedBody::Json(document.clone()),
                document.to_string().len(),
            ),
            Content::Lines(lines) => (SavedBody::Lines(lines.clone()), lines.len()),
            _ => return None,
        };
        (bytes <= MAX_BYTES).then(|| Self {
            status: answer.status,
            body,
            bytes,
            headers: answer.headers.clone(),
        })
    }

    fn answer(self) -> Answer {
        Answer {
            status: self.status,
            content: match self.body {
                SavedBody::Nothing => Content::Nothing,
                SavedBody::Json(document) => Content::Json(document),
                SavedBody::Lines(lines) => Content::Lines(lines),
            },
            headers: self.headers,
        }
    }
}

/// What becomes of a request with a key.
#[derive(Debug)]
pub(super) enum Begun {
    /// It is new.
    Fresh(Ticket),
    /// It was done.
    Again(Answer),
    /// It is being done.
    Running,
    /// The key was used for something else.
    Other,
}

/// A request being done. Dropping it lets the key be used again.
#[derive(Debug)]
pub(super) struct Ticket {
    known: Arc<Mutex<Known>>,
    key: Key,
    is_done: bool,
}

impl Ticket {
    /// Keeps the answer of a request that was done.
    pub(super) fn done(mut self, answer: &Answer) {
        let mut known = self.known.lock();
        if let Some(kept) = known.all.get_mut(&self.key)
            && let Some(saved) = Saved::of(answer)
        {
            let bytes = saved.bytes;
            let replaced = kept.answer.replace(saved);
            self.is_done = true;
            known.bytes += bytes;
            known.bytes -= replaced.map_or(0, |answer| answer.bytes);
        }
        drop(known);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_done {
            self.known.lock().remove(&self.key);
        }
    }
}

impl Repeats {
    /// A request of `who` with this key and this digest.
    pub(super) fn begin(&self, who: &str, key: &str, digest: [u8; 32], now: Instant) -> Begun {
        let key = (who.to_owned(), key.to_owned());
        let mut known = self.0.lock();
        known.forget(now);
        match known.all.get(&key) {
            Some(kept) if kept.digest != digest => return Begun::Other,
            Some(Kept { answer: None, .. }) => return Begun::Running,
            Some(Kept {
                answer: Some(saved),
                ..
            }) => return Begun::Again(saved.clone().answer()),
            None => {}
        }
        known.order.push_back((now, key.clone()));
        let kept = Kept {
            digest,
            since: now,
            answer: None,
        };
        known.all.insert(key.clone(), kept);
        Begun::Fresh(Ticket {
            known: Arc::clone(&self.0),
            key,
            is_done: false,
        })
    }
}

impl Known {
    /// Lets go of what is too old, or too much.
    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front() {
            let is_old = now.saturating_duration_since(*since) >= LIFETIME;
            if !is_old && self.order.len() < MAX_KEPT && self.bytes < MAX_BYTES_KEPT {
                break;
            }
            let Some((since, key)) = self.order.pop_front() else {
                break;
            };
            // The key may have been freed and used again meanwhile.
            if self.all.get(&key).is_some_and(|kept| kept.since == since) {
                self.remove(&key);
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        let answer = self.all.remove(key).and_then(|kept| kept.answer);
        self.bytes -= answer.map_or(0, |answer| answer.bytes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn begin(repeats: &Repeats, key: &str, digest: u8, now: Instant) -> Begun {
        repeats.begin("u", key, [digest; 32], now)
    }

    #[test]
    fn a_key_is_done_once_and_kept_for_a_day() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let Begun::Fresh(ticket) = begin(&repeats, "k", 1, now) else {
            panic!("a new key");
        };
        assert!(matches!(begin(&repeats, "k", 1, now), Begun::Running));
        assert!(matches!(begin(&repeats, "k", 2, now), Begun::Other));
        ticket.done(&Answer::json(StatusCode::CREATED, json!({"a": 1})));
        let Begun::Again(answer) = begin(&repeats, "k", 1, now) else {
            panic!("a known key");
        };
        assert_eq!(answer.status, StatusCode::CREATED);
        assert!(matches!(
            repeats.begin("v", "k", [1; 32], now),
            Begun::Fresh(_)
        ));
        let later = now + LIFETIME;
        assert!(matches!(begin(&repeats, "k", 2, later), Begun::Fresh(_)));
    }

    #[test]
    fn what_failed_may_be_tried_again_and_there_is_a_bound() {
        let repeats = Repeats::default();
        let now = Instant::now();
        drop(begin(&repeats, "k", 1, now));
        assert!(matches!(begin(&repeats, "k", 2, now), Begun::Fresh(_)));
        for n in 0..2 * MAX_KEPT {
            if let Begun::Fresh(ticket) = begin(&repeats, &n.to_string(), 1, now) {
                ticket.done(&Answer::done());
            }
        }
        let known = repeats.0.lock();
        assert!(known.all.len() <= MAX_KEPT && known.order.len() <= MAX_KEPT);
    }

    #[test]
    fn secrets_are_not_kept_and_the_bytes_of_the_others_are_bounded() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let done = |key: &str, document: Value| {
            if let Begun::Fresh(ticket) = begin(&repeats, key, 1, now) {
                ticket.done(&Answer::json(StatusCode::CREATED, document));
            }
        };
        done("token", json!({"id": "t", "token": "mnt_secret"}));
        assert!(matches!(begin(&repeats, "token", 1, now), Begun::Fresh(_)));
        let text = "x".repeat(MAX_BYTES - 16);
        let fits = MAX_BYTES_KEPT / MAX_BYTES;
        for n in 0..2 * fits {
            done(&n.to_string(), json!({ "a": text }));
            assert!(repeats.0.lock().bytes <= MAX_BYTES_KEPT + MAX_BYTES);
        }
        assert!(matches!(begin(&repeats, "0", 1, now), Begun::Fresh(_)));
        let last = (2 * fits - 1).to_string();
        assert!(matches!(begin(&repeats, &last, 1, now), Begun::Again(_)));
        let known = repeats.0.lock();
        let bytes = known.all.values().filter_map(|kept| kept.answer.as_ref());
        assert_eq!(known.bytes, bytes.map(|answer| answer.bytes).sum::<usize>());
    }
}
