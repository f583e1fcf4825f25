//! Wakes that cross threads.
//!
//! Waking a task of another thread costs a system call. A thread that has bytes for many
//! connections of another one therefore posts all their wakers together, and only the first post
//! until the other thread looks wakes it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Wakers on their way to one worker.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// The worker sleeps: whatever is posted has to wake it first.
    is_asleep: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    wakers: Vec<Waker>,
    /// The task that empties the inbox, when it waits.
    task: Option<Waker>,
}

impl Inbox {
    /// Whether the worker sleeps. It may wake at any time.
    pub(crate) fn is_asleep(&self) -> bool {
        self.is_asleep.load(Ordering::Relaxed)
    }

    /// The worker is about to sleep, or has woken.
    pub(crate) fn set_asleep(&self, is_asleep: bool) {
        self.is_asleep.store(is_asleep, Ordering::Relaxed);
    }

    /// Has all of `wakers` woken on the worker's thread; leaves the list empty.
    pub(crate) fn post(&self, wakers: &mut Vec<Waker>) {
        if wakers.is_empty() {
            return;
        }
        let task = {
            let mut state = self.state.lock();
            state.wakers.append(wakers);
            state.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Wakes what is posted, on this thread, for ever.
    pub(crate) async fn serve(&self) {
        let mut taken = Vec::new();
        poll_fn(|cx| self.poll_serve(&mut taken, cx)).await;
    }

    fn poll_serve(&self, taken: &mut Vec<Waker>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.state.lock();
            std::mem::swap(&mut state.wakers, taken);
            state.task = Some(cx.waker().clone());
        }
        for waker in taken.drain(..) {
            waker.wake();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_posts_wake_the_worker_once() {
        let inbox = Inbox::default();
        let (worker, connection) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let worker_waker = Waker::from(Arc::clone(&worker));
        let mut cx = Context::from_waker(&worker_waker);
        let mut taken = Vec::new();
        assert!(inbox.poll_serve(&mut taken, &mut cx).is_pending());
        for _ in 0..3 {
            inbox.post(&mut vec![Waker::from(Arc::clone(&connection)); 2]);
        }
        inbox.post(&mut Vec::new());
        assert_eq!(worker.0.load(Ordering::Relaxed), 1);
        assert_eq!(connection.0.load(Ordering::Relaxed), 0);
        assert!(inbox.poll_serve(&mut taken, &mut cx).is_pending());
        assert_eq!(connection.0.load(Ordering::Relaxed), 6);
    }
}
