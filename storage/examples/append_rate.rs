//! How fast a log on this disk appends and syncs.
//!
//! ```text
//! append_rate <directory> [seconds per row]
//! ```
//!
//! Each row keeps some batches outstanding, as so many publishers would: it appends another as soon
//! as one is durable. The directory must be empty or a log made by this program.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::path::Path;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use menes_jetstream::ids::GroupId;
use menes_jetstream::ports::{Entry, EntryKind, LogStore, Ticket};
use menes_storage::log::{LogOptions, SegmentLog, TailEvidence};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("a directory as the first argument");
    let seconds = arguments
        .next()
        .map_or(2.0, |text| text.parse().expect("seconds"));
    let duration = Duration::from_secs_f64(seconds);
    println!(
        "{:<22} {:>7} {:>12} {:>10} {:>9} {:>9} {:>9}",
        "evidence", "bytes", "outstanding", "batches/s", "MB/s", "p50 us", "p99 us"
    );
    let idle = TailEvidence::WhenIdle(Duration::from_millis(10));
    for (name, evidence) in [
        ("when idle (default)", idle),
        ("before ack", TailEvidence::BeforeAck),
    ] {
        for (bytes, outstanding) in [
            (128, 1),
            (128, 64),
            (4096, 1),
            (4096, 64),
            (65536, 1),
            (65536, 8),
            (1 << 20, 1),
            (1 << 20, 4),
        ] {
            let row = measure(
                Path::new(&directory),
                evidence,
                bytes,
                outstanding,
                duration,
            );
            println!(
                "{name:<22} {bytes:>7} {outstanding:>12} {:>10.0} {:>9.1} {:>9.0} {:>9.0}",
                row.per_second,
                row.per_second * bytes as f64 / 1e6,
                row.p50,
                row.p99
            );
        }
    }
}

struct Row {
    per_second: f64,
    p50: f64,
    p99: f64,
}

fn measure(
    directory: &Path,
    evidence: TailEvidence,
    bytes: usize,
    outstanding: u64,
    duration: Duration,
) -> Row {
    let options = LogOptions {
        tail_evidence: evidence,
        ..LogOptions::default()
    };
    let appender: Thread = std::thread::current();
    let wake = Arc::new(move || appender.unpark());
    let mut log = SegmentLog::open(directory, options, None, wake).expect("a log");
    let payload = Bytes::from(vec![7; bytes]);
    let begun = Instant::now();
    let mut started = Vec::new();
    let mut latencies = Vec::new();
    let mut synced = Ticket(0);
    while begun.elapsed() < duration {
        while started.len() as u64 - synced.0 < outstanding {
            let index = started.len() as u64 + 1;
            let payload = payload.clone();
            let entry = Entry {
                group: GroupId(16),
                index,
                term: 1,
                kind: EntryKind::Publish,
                compress: false,
                payload,
            };
            started.push(Instant::now());
            log.append(&[entry]).expect("space");
        }
        let now_synced = log.poll_synced().expect("a healthy disk");
        if now_synced == synced {
            std::thread::park();
            continue;
        }
        for ticket in synced.0..now_synced.0 {
            let place = usize::try_from(ticket).expect("few");
            latencies.push(started[place].elapsed());
        }
        synced = now_synced;
        // Everything before the segment being written is given back, as a busy queue would.
        let segments = log.segments();
        if segments.len() > 4 {
            log.recycle(&segments[..1]).expect("it was synced long ago");
        }
    }
    let per_second = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        latencies
            .get(place)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    Row {
        per_second,
        p50: at(0.5),
        p99: at(0.99),
    }
}
