//! Ending a server in order.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{interval, timeout};

/// Connections that were accepted while the acceptors stopped are found by looking again.
const CLOSE_AGAIN: Duration = Duration::from_millis(20);
/// Time for all threads to end. A connection flushes for 100 ms and lingers for 200 ms.
const LIMIT: Duration = Duration::from_secs(5);

/// What is needed to stop the threads of a server and to know that they have.
#[derive(Debug)]
pub(crate) struct Shutdown {
    stop: watch::Sender<bool>,
    ends: Vec<oneshot::Receiver<()>>,
}

impl Shutdown {
    pub(crate) fn new(stop: watch::Sender<bool>, ends: Vec<oneshot::Receiver<()>>) -> Self {
        Self { stop, ends }
    }

    /// Stops the acceptors. Connections stay.
    pub(crate) fn stop_accepting(&self) {
        self.stop.send_replace(true);
    }

    /// Stops the acceptors, closes connections with `close_all` until every thread has ended.
    pub(crate) async fn run(self, close_all: impl Fn()) {
        self.stop_accepting();
        let all_ended = async {
            for end in self.ends {
                // An error means that the thread is gone, which is what we wait for.
                drop(end.await);
            }
        };
        let mut again = interval(CLOSE_AGAIN);
        let closing = async {
            tokio::pin!(all_ended);
            loop {
                tokio::select! {
                    () = &mut all_ended => return,
                    _ = again.tick() => close_all(),
                }
            }
        };
        if timeout(LIMIT, closing).await.is_err() {
            tracing::error!("some connections did not end within {LIMIT:?}");
        }
    }
}
