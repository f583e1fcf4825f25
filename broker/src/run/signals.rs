//! What the operating system asks of a server.

use std::fmt;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal, by what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// End now.
    Interrupt,
    /// End now, unless the server is ending already.
    Terminate,
    /// Read the configuration again.
    Hangup,
    /// Open the log file again.
    User1,
    /// Leave slowly.
    User2,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "interrupt",
            Self::Terminate => "terminated",
            Self::Hangup => "hangup",
            Self::User1 => "user defined signal 1",
            Self::User2 => "user defined signal 2",
        })
    }
}

/// The signals of this process, instead of what they would do by default.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.hangup.recv() => Asked::Hangup,
            _ = self.user1.recv() => Asked::User1,
            _ = self.user2.recv() => Asked::User2,
        }
    }

    /// Waits for an interrupt; other signals do nothing meanwhile.
    pub(super) async fn interrupted(&mut self) {
        self.interrupt.recv().await;
        tracing::info!("Trapped \"{}\" signal", Asked::Interrupt);
    }
}
