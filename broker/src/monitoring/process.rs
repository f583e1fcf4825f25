//! What this process uses of its machine.

use std::fs;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Processor use is measured over at least this long.
const WINDOW: Duration = Duration::from_secs(1);

/// Measures this process.
#[derive(Debug)]
pub(super) struct Process {
    last: Mutex<Sample>,
}

/// Processor time used by a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    used: Duration,
    /// Percent of one core over the window before.
    percent: f64,
}

impl Process {
    /// `started` is when the first window began.
    pub(super) fn new(started: Instant) -> Self {
        let sample = Sample {
            at: started,
            used: Duration::ZERO,
            percent: 0.0,
        };
        Self {
            last: Mutex::new(sample),
        }
    }

    /// Bytes of memory that are resident; 0 where that cannot be told.
    pub(super) fn memory(&self) -> u64 {
        let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = text
            .split_whitespace()
            .nth(1)
            .and_then(|field| field.parse::<u64>().ok());
        let page_size = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        pages.unwrap_or(0).saturating_mul(page_size)
    }

    /// Percent of one core used lately, to a tenth.
    pub(super) fn cpu(&self) -> f64 {
        let mut last = self.last.lock();
        let elapsed = last.at.elapsed();
        if elapsed >= WINDOW
            && let Some(used) = processor_time()
        {
            let share = used.saturating_sub(last.used).as_secs_f64() / elapsed.as_secs_f64();
            let percent = (share * 1000.0).round() / 10.0;
            *last = Sample {
                at: Instant::now(),
                used,
                percent,
            };
        }
        last.percent
    }
}

/// Time that this process ran on any core.
pub(super) fn processor_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; behind it, user and system time are the 12th and
    // 13th field.
    let mut fields = text
        .get(text.rfind(')')? + 1..)?
        .split_whitespace()
        .skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(
        (user + system).saturating_mul(1000) / per_second,
    ))
}

/// File descriptors in use; 0 where that cannot be told.
pub(super) fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The threads of this process with what they do, a line each. There are no stacks to show as Go
/// has them.
pub(super) fn threads() -> String {
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let name = read("comm");
        let stat = read("stat");
        let state = stat
            .rfind(')')
            .and_then(|end| stat.get(end + 2..end + 3))
            .unwrap_or("?");
        lines.push(format!("{} [{state}]\n", name.trim_end()));
    }
    lines.sort_unstable();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let process = Process::new(Instant::now());
        assert!(process.memory() > 100_000);
        assert!(processor_time().is_some());
        assert!(process.cpu() >= 0.0);
    }
}
