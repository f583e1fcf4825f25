//! Stored messages go out again, on another subject, with where they were stored.

use super::{Application, Engine, next_random};
use crate::api::direct::{Found, republished_header};
use crate::ports::{Entry, LogStore, Outbox, Outgoing, StateStore};
use crate::record;
use crate::stream::PublishOutcome;

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Publishes again what an entry stored. Only the server that proposed it does.
    pub(super) fn republish(
        &mut self,
        entry: &Entry,
        outcomes: &[PublishOutcome],
        out: &mut dyn Outbox,
    ) {
        let Some(target) = self.groups.get(&entry.group) else {
            return;
        };
        let Some(republish) = &target.stream.config().republish else {
            return;
        };
        let mut time = crate::Timestamp::ZERO;
        let spans = record::records(&entry.payload).into_iter().flatten();
        for (span, outcome) in spans.zip(outcomes) {
            let PublishOutcome::Stored { seq, previous } = outcome else {
                continue;
            };
            time = time.max(span.time);
            let subject = span.subject(&entry.payload);
            let random = &mut self.random;
            let Some(to) = target
                .stream
                .republished(subject, || next_random(random) as u32)
            else {
                continue;
            };
            let payload = span.payload(&entry.payload);
            let size = republish.headers_only.then_some(payload.len());
            let stored = span.header(&entry.payload);
            let found = Found {
                stream: &target.name,
                subject,
                seq: *seq,
                time,
                place: None,
            };
            let header = republished_header(stored, &found, *previous, size);
            out.send(Outgoing {
                account: &target.account,
                target: &to,
                subject: &to,
                reply: b"",
                header: &header,
                payload: if size.is_some() { b"" } else { payload },
            });
        }
    }
}
