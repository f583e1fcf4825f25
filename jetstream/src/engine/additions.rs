//! Messages that the server itself adds to streams.
//!
//! They are proposed like those of clients and carry a tag that says what they are. What made one
//! necessary is in the store, so one that did not come through is proposed again.

use super::deliver::STREAM_TIMER;
use super::gather::Record;
use super::{Application, Engine, next_random};
use crate::ids::GroupId;
use crate::ports::{Entry, LogStore, StateStore, StoreError};
use crate::record::{self, Tag};
use crate::stream::View;
use crate::time::Timestamp;

/// Stands for the schedules of a stream among the timers of its group.
pub(super) const SCHEDULE_TIMER: u32 = u32::MAX - 2;
/// How long a stream waits before it proposes again what the log refused.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Proposes a marker for every subject whose last message expired.
    pub(super) fn propose_markers(&mut self, group: GroupId, now: Timestamp) {
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let due = target.stream.take_due_markers();
        let Some(header) = target.stream.marker_header().filter(|_| !due.is_empty()) else {
            return;
        };
        for subject in due {
            let record = Record {
                tag: Tag::Marker,
                reply: b"",
                subject: &subject,
                header: &header,
                payload: b"",
            };
            // It fails when nothing goes into the log any more.
            if self.gather(group, now, record).is_err() {
                return;
            }
        }
    }

    /// Proposes what the store says is due, after a restart or a refusal.
    pub(super) fn propose_due_again(
        &mut self,
        group: GroupId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(target) = self.groups.get_mut(&group) else {
            return Ok(());
        };
        if target.stream.marker_header().is_none() {
            return Ok(());
        }
        let base: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let view = View::new(base, &self.log, &mut self.cache);
        let due = target.stream.load_due_markers(&view)?;
        target.stream.markers_are_due(due);
        self.propose_markers(group, now);
        Ok(())
    }

    /// Proposes what schedules produce by now.
    pub(super) fn run_schedules(&mut self, group: GroupId, now: Timestamp) {
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let base: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut view = View::new(base, &self.log, &mut self.cache);
        let (produced, is_stale) = match target.stream.due_schedules(now, &mut view) {
            Ok(due) => due,
            Err(error) => {
                tracing::error!("the schedules of a stream cannot be read: {error}");
                self.set_timer(group, SCHEDULE_TIMER, Some(now.plus(RETRY)));
                return;
            }
        };
        target.producing = false;
        let mut failed = false;
        for message in produced {
            let Some(target) = self.groups.get(&group) else {
                return;
            };
            let random = &mut self.random;
            let incoming = target
                .stream
                .prepare(&message.subject, &message.header, || {
                    next_random(random) as u32
                });
            let record = Record {
                tag: Tag::Schedule {
                    seq: message.seq.0,
                    due: message.due,
                },
                reply: b"",
                subject: &incoming.subject,
                header: &incoming.header,
                payload: &message.payload,
            };
            match self.gather(group, now, record) {
                Ok(()) => {
                    if let Some(target) = self.groups.get_mut(&group) {
                        target.producing = true;
                    }
                }
                Err(_) => failed = true,
            }
        }
        if failed {
            self.set_timer(group, SCHEDULE_TIMER, Some(now.plus(RETRY)));
        } else if is_stale {
            self.expire(group, now);
        }
    }

    /// What schedules produced was applied.
    pub(super) fn produced(&mut self, entry: &Entry) {
        if has_schedules(entry)
            && let Some(target) = self.groups.get_mut(&entry.group)
        {
            target.producing = false;
            self.schedule_expiry(entry.group);
        }
    }

    /// An entry that held messages of the server was refused.
    pub(super) fn additions_refused(&mut self, entry: &Entry, now: Timestamp) {
        if !record::is_tagged(&entry.payload) {
            return;
        }
        if let Some(target) = self.groups.get_mut(&entry.group) {
            target.additions_lost = true;
            if has_schedules(entry) {
                target.producing = false;
                self.set_timer(entry.group, SCHEDULE_TIMER, Some(now.plus(RETRY)));
            }
            self.set_timer(entry.group, STREAM_TIMER, Some(now.plus(RETRY)));
        }
    }
}

/// Whether an entry holds what schedules produced.
fn has_schedules(entry: &Entry) -> bool {
    let Some(mut records) = record::records(&entry.payload) else {
        return false;
    };
    while records.next().is_some() {
        if let Tag::Schedule { .. } = records.tag() {
            return true;
        }
    }
    false
}
