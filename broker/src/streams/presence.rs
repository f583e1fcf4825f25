//! Who is connected, for the stations: noted by connection threads, taken by the engine thread.

use std::sync::Arc;

use parking_lot::Mutex;

use super::driver::Alarm;
use crate::connection::client::{ClientInfo, ConnectionObserver};
use crate::error::CloseReason;

/// A client came or went.
#[derive(Clone, Debug)]
pub(crate) struct PresenceEvent {
    /// Who.
    pub(crate) client: ClientInfo,
    /// It came.
    pub(crate) is_open: bool,
}

/// Events on their way to the engine thread, in order.
#[derive(Debug)]
pub(crate) struct Presence {
    events: Mutex<Vec<PresenceEvent>>,
    alarm: Arc<Alarm>,
}

impl Presence {
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        Self {
            events: Mutex::default(),
            alarm,
        }
    }

    pub(crate) fn take(&self) -> Vec<PresenceEvent> {
        std::mem::take(&mut self.events.lock())
    }

    fn note(&self, client: &ClientInfo, is_open: bool) {
        self.events.lock().push(PresenceEvent {
            client: client.clone(),
            is_open,
        });
        self.alarm.ring();
    }
}

impl ConnectionObserver for Presence {
    fn connected(&self, client: &ClientInfo) {
        self.note(client, true);
    }

    fn disconnected(&self, client: &ClientInfo, _reason: CloseReason) {
        self.note(client, false);
    }
}
