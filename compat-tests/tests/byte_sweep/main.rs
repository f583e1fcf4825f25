//! Every byte of a store is flipped, one at a time, and the store is opened and read through: what
//! is read is right, or the damage is reported. Never something else, never a panic, never a hang.
//!
//! The store is made by the server and stock clients: streams of each kind with messages, holes,
//! headers and message ids, a bucket, an object, a counter, consumers with deliveries outstanding.
//! It is then opened again and again by the real stores and the engine, in threads, without a server
//! around them, which makes a hundred cases a second of what would take minutes.
//!
//! `MENES_SWEEP_STEP` says how far apart the flipped bytes are: 1 for all of them
//! (`make byte-sweep`). Of long runs of zeros, which fill up what is written in blocks, the edges and
//! every 64th byte are flipped, and behind the end of what a file holds one in a page.

mod case;
mod reference;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use case::{Case, Verdict};
use reference::{End, Image};

/// How far apart flips are in the zeros behind the end of a file.
const PAGE: usize = 4096;
/// From here on a run of zeros is long, and how far apart flips are in it.
const LONG: usize = 64;
/// Bytes at both ends of a long run that are flipped one by one.
const EDGE: usize = 8;
/// What one case may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// By default about this many cases of each store.
const CASES: usize = 40;
/// So many cases are a sample of the whole store.
const MANY: usize = 1000;

#[tokio::test]
async fn a_flipped_byte_is_reported_or_does_no_harm() -> Result<()> {
    sweep(None, End::Stopped).await
}

#[tokio::test]
async fn a_flipped_byte_in_a_store_after_a_kill_is_reported_or_does_no_harm() -> Result<()> {
    sweep(None, End::Killed).await
}

#[tokio::test]
async fn a_flipped_byte_in_an_encrypted_store_is_reported_or_does_no_harm() -> Result<()> {
    sweep(Some("sesame"), End::Stopped).await
}

/// What came of the cases of one file.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    bytes: usize,
    cases: usize,
    reported: usize,
}

async fn sweep(key: Option<&str>, end: End) -> Result<()> {
    let image = reference::make(key, end).await?;
    tokio::task::spawn_blocking(move || judge(&image)).await?
}

fn judge(image: &Image) -> Result<()> {
    let case = Case::new(image)?;
    let right = case.truth()?;
    case.notices(&right)?;
    let all: Vec<(usize, usize)> = (0..image.files.len())
        .flat_map(|file| {
            let places = places(&image.files[file]).into_iter();
            places.map(move |at| (file, at))
        })
        .collect();
    let step = match std::env::var("MENES_SWEEP_STEP") {
        Ok(text) => text.parse().context("MENES_SWEEP_STEP is a number")?,
        // A prime one, so that no structure of a file hides between two flips.
        Err(_) => [127, 251, 509, 1021, 2039]
            .into_iter()
            .find(|step| all.len() / step <= CASES)
            .unwrap_or(4093),
    };
    let chosen: Vec<(usize, usize)> = all.iter().copied().step_by(step).collect();
    eprintln!(
        "{} files, {} places, {} cases",
        image.files.len(),
        all.len(),
        chosen.len()
    );
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let failures: Mutex<Vec<String>> = Mutex::default();
    let counts: Mutex<BTreeMap<usize, Counts>> = Mutex::default();
    let running: Mutex<BTreeMap<usize, (Instant, usize, usize)>> = Mutex::default();
    let workers = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for worker in 0..workers {
            let (next, chosen, right) = (&next, &chosen, &right);
            let (failures, counts, running) = (&failures, &counts, &running);
            threads.push(scope.spawn(move || -> Result<()> {
                let case = Case::new(image)?;
                while let Some((file, at)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    lock(running).insert(worker, (Instant::now(), *file, *at));
                    let flip = 1 << (at % 8);
                    let judged =
                        catch_unwind(AssertUnwindSafe(|| case.flipped(*file, *at, flip, right)));
                    let name = &image.files[*file].name;
                    let mut counts = lock(counts);
                    let count = counts.entry(*file).or_default();
                    count.bytes = image.files[*file].len;
                    count.cases += 1;
                    let wrong = match judged {
                        Ok(Ok(Verdict::Right)) => continue,
                        Ok(Ok(Verdict::Reported)) => {
                            count.reported += 1;
                            continue;
                        }
                        Ok(Ok(Verdict::Wrong(what))) => what,
                        Ok(Err(error)) => format!("{error:#}"),
                        Err(panic) => format!("panic: {}", text_of(&*panic)),
                    };
                    drop(counts);
                    eprintln!("{name} flipped at {at}: {wrong}");
                    lock(failures).push(format!("{name} flipped at {at}: {wrong}"));
                }
                lock(running).remove(&worker);
                Ok(())
            }));
        }
        while threads.iter().any(|thread| !thread.is_finished()) {
            end_if_one_hangs(image, &lock(&running));
            std::thread::sleep(Duration::from_millis(50));
        }
        for thread in threads {
            thread
                .join()
                .map_err(|panic| anyhow::anyhow!("{}", text_of(&*panic)))??;
        }
        Ok(())
    })?;
    let took = began.elapsed();
    let mut sum = Counts::default();
    for (file, count) in lock(&counts).iter() {
        let name = &image.files[*file].name;
        eprintln!(
            "{name}: {} bytes, {} flipped, {} reported",
            count.bytes, count.cases, count.reported
        );
        sum.cases += count.cases;
        sum.reported += count.reported;
    }
    eprintln!(
        "{} flipped, {} reported, in {took:.0?}",
        sum.cases, sum.reported
    );
    let failures = lock(&failures);
    ensure!(
        failures.is_empty(),
        "{} flips were neither reported nor harmless:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // Few flips are no sample; whether the least difference is noticed was seen before.
    ensure!(
        sum.reported > 0 && (sum.cases < MANY || sum.reported * 10 > sum.cases),
        "hardly anything is reported"
    );
    Ok(())
}

/// Says which case takes too long, if one does, and ends the process with it: nothing else ends a
/// thread, and whoever waits for one that hangs hangs too.
fn end_if_one_hangs(image: &Image, running: &BTreeMap<usize, (Instant, usize, usize)>) {
    let hanging = running
        .values()
        .filter(|(since, ..)| since.elapsed() > LIMIT);
    let hanging: Vec<String> = hanging
        .map(|(_, file, at)| format!("{} flipped at {at} hangs", image.files[*file].name))
        .collect();
    if !hanging.is_empty() {
        // Not with a macro: what those print is kept for the end of the test, which does not come.
        let said = writeln!(std::io::stderr(), "{}", hanging.join("\n"));
        drop(said);
        std::process::abort();
    }
}

/// Which bytes of a file are flipped when all are.
fn places(file: &reference::Content) -> Vec<usize> {
    // RocksDB's diary, and the settings it was opened with, are written and never read.
    let base = file.name.rsplit('/').next().unwrap_or_default();
    if base.starts_with("LOG") || base.starts_with("OPTIONS-") {
        return (0..file.len).step_by(509).collect();
    }
    let mut chosen = Vec::new();
    let mut at = 0;
    while at < file.bytes.len() {
        let zeros = file.bytes[at..].iter().take_while(|byte| **byte == 0);
        let run = zeros.count();
        if run < LONG {
            chosen.extend(at..at + run + 1);
            at += run + 1;
        } else {
            let end = at + run;
            chosen.extend((at..at + EDGE).chain((at + EDGE..end - EDGE).step_by(LONG)));
            chosen.extend(end - EDGE..end);
            at = end;
        }
    }
    chosen.extend((at..file.len).step_by(PAGE));
    chosen.extend((file.len > at).then(|| file.len - 1));
    chosen
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "of no text".to_owned())
}
