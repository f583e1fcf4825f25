//! Who is connected, for the stations: noted by connection threads, taken by the engine thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Somebody takes them.
    is_on: AtomicBool,
    alarm: Arc<Alarm>,
}

impl Presence {
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        Self {
            events: Mutex::default(),
            is_on: AtomicBool::new(true),
            alarm,
        }
    }

    pub(crate) fn take(&self) -> Vec<PresenceEvent> {
        std::mem::take(&mut self.events.lock())
    }

    /// Whether somebody takes events from now on.
    pub(crate) fn switch(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Release);
        if !is_on {
            self.events.lock().clear();
        }
    }

    fn note(&self, client: &ClientInfo, is_open: bool) {
        if !self.is_on.load(Ordering::Acquire) {
            return;
        }
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
