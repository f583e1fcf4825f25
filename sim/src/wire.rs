//! What the server sends, and who listens.

use std::collections::{BTreeMap, BTreeSet};

use menes_jetstream::AccountName;
use menes_jetstream::ports::{Outbox, Outgoing};

/// A message that went out of the server.
pub(crate) struct Sent {
    pub(crate) target: String,
    pub(crate) subject: String,
    pub(crate) reply: String,
    pub(crate) header: String,
    pub(crate) payload: String,
    /// The payload as it is, where it is not text.
    pub(crate) bytes: Vec<u8>,
}

/// Collects what the engine sends. Everyone listens but those named here.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) sent: Vec<Sent>,
    /// Subjects nobody listens on.
    pub(crate) deaf: BTreeSet<String>,
    /// Which link of the engine listens where.
    pub(crate) links: BTreeMap<String, u64>,
    /// Subjects whose receivers are behind.
    pub(crate) congested: BTreeSet<String>,
}

impl Outbox for Wire {
    fn send(&mut self, message: Outgoing<'_>) -> bool {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let target = text(message.target);
        if self.deaf.contains(&target) {
            return false;
        }
        self.sent.push(Sent {
            target,
            subject: text(message.subject),
            reply: text(message.reply),
            header: text(message.header),
            payload: text(message.payload),
            bytes: message.payload.to_vec(),
        });
        true
    }

    fn has_interest(&mut self, _: &AccountName, subject: &[u8], _: Option<&[u8]>) -> bool {
        let text = &*String::from_utf8_lossy(subject);
        if text.starts_with("$JS.M.") || text.starts_with("$JS.S.") || text.starts_with("$JS.R.") {
            return self.links.contains_key(text);
        }
        // Advisories have tests of their own.
        !text.starts_with("$JS.EVENT.") && !self.deaf.contains(text)
    }

    fn is_congested(&mut self, _: &AccountName, subject: &[u8]) -> bool {
        self.congested.contains(&*String::from_utf8_lossy(subject))
    }
}
