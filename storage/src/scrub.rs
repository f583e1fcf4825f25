//! What all threads share that look for damage nobody has met yet: how fast they read, how they
//! rest, and how they end.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How fast and how often what is stored is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// Bytes a second, at most. Default 8 MiB.
    pub bytes_per_second: u64,
    /// From the end of one pass to the next. Default 7 days.
    pub pause: Duration,
    /// Before the first pass. Default 10 s.
    pub delay: Duration,
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            bytes_per_second: 8 << 20,
            pause: Duration::from_secs(7 * 24 * 3600),
            delay: Duration::from_secs(10),
        }
    }
}

/// Bytes read between two looks at the clock.
pub(crate) const SLICE_BYTES: u64 = 256 << 10;

/// A thread that checks, until it is dropped.
#[derive(Debug)]
pub(crate) struct Scrubber {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// Starts a thread of this name, which makes one pass after the other.
    pub(crate) fn start(
        name: &str,
        scrub: Scrub,
        mut pass: impl FnMut(&Rest) -> Outcome + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::default();
        let rest = Rest {
            scrub,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let mut pause = scrub.delay;
                while !rest.pause(pause) && pass(&rest) == Outcome::Done {
                    pause = scrub.pause;
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!("the thread {name}, which looks for damage, panicked");
            }
        }
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There will be another.
    Done,
    /// In the midst, as there is no time left.
    Stopped,
}

/// The thread's rests.
#[derive(Debug)]
pub(crate) struct Rest {
    scrub: Scrub,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl Rest {
    /// Rests for as long as so many bytes take; true when the thread is to end.
    #[must_use]
    pub(crate) fn after(&self, bytes: u64) -> bool {
        let nanos = bytes.saturating_mul(1_000_000_000) / self.scrub.bytes_per_second.max(1);
        self.pause(Duration::from_nanos(nanos))
    }

    fn pause(&self, pause: Duration) -> bool {
        let mut stopped = self.stop.0.lock();
        if !*stopped {
            self.stop.1.wait_for(&mut stopped, pause);
        }
        *stopped
    }
}
