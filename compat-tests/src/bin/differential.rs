//! Plays generated sequences to nats-server and to Menes and prints what differs.
//!
//! ```text
//! differential [--reference PATH] [--server PATH] [--sequences N] [--scripts N] [--seed FIRST]
//!     [--stop-after N]
//! ```
//!
//! Sequences are bytes on connections, scripts are requests of the JetStream API.
//!
//! ```text
//! seed 334: what is sent, then what nats-server and what Menes answers
//! ```

#![expect(clippy::print_stdout, reason = "what differs is the output")]

use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, bail};
use menes_compat_tests::differential::jetstream::{Player, Script, Seen};
use menes_compat_tests::differential::{
    Flavour, Normal, Pair, Sequence, first_difference, play, shrink,
};
use menes_compat_tests::{Tools, menes_binary};

/// How often a difference must show to be one.
const CONFIRMATIONS: usize = 2;

struct Arguments {
    reference: PathBuf,
    server: PathBuf,
    sequences: u64,
    scripts: u64,
    first: u64,
    stop_after: usize,
}

fn arguments() -> Result<Arguments> {
    let mut reference = None;
    let mut server = None;
    let (mut sequences, mut scripts, mut first, mut stop_after) = (1000, 0, 0, 20);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words
            .next()
            .with_context(|| format!("{word} wants a value"))?;
        match word.as_str() {
            "--reference" => reference = Some(PathBuf::from(value)),
            "--server" => server = Some(PathBuf::from(value)),
            "--sequences" => sequences = value.parse()?,
            "--scripts" => scripts = value.parse()?,
            "--seed" => first = value.parse()?,
            "--stop-after" => stop_after = value.parse()?,
            _ => bail!("unknown argument {word}"),
        }
    }
    let reference = match reference {
        Some(path) => path,
        None => Tools::find()?.path("nats_server")?.to_owned(),
    };
    let server = match server {
        Some(path) => path,
        None => menes_binary()?,
    };
    Ok(Arguments {
        reference,
        server,
        sequences,
        scripts,
        first,
        stop_after,
    })
}

/// The outcomes at the reference and at the server under test.
fn both(pair: &Pair, sequence: &Sequence) -> Result<[Vec<Normal>; 2]> {
    let (reference, tested) = thread::scope(|scope| {
        let reference = scope.spawn(|| play(sequence, pair.reference()));
        let tested = play(sequence, pair.tested());
        (reference.join().expect("playing does not panic"), tested)
    });
    Ok([reference?, tested?])
}

fn differs(pair: &Pair, sequence: &Sequence) -> bool {
    (0..CONFIRMATIONS).all(|_| {
        both(pair, sequence).is_ok_and(|[reference, tested]| {
            reference.len() != tested.len() || first_difference(&reference, &tested).is_some()
        })
    })
}

fn report(pair: &Pair, sequence: &Sequence) -> Result<()> {
    let small = shrink(sequence, |sequence| differs(pair, sequence));
    let [reference, tested] = both(pair, &small)?;
    println!("=== seed {}", sequence.seed);
    print!("{small}");
    match first_difference(&reference, &tested) {
        Some(step) => println!(
            "step {step}\nnats-server:\n{}menes:\n{}",
            reference[step], tested[step]
        ),
        None if reference.len() == tested.len() => println!("no longer"),
        None => println!("{} and {} steps", reference.len(), tested.len()),
    }
    Ok(())
}

/// What was found.
#[derive(Default)]
struct Tally {
    played: u64,
    differ: usize,
    /// Differed, but not again.
    unstable: usize,
}

impl Tally {
    fn print(&self, what: &str) {
        println!(
            "{} {what}: {} differ, {} did so once only",
            self.played, self.differ, self.unstable
        );
    }
}

fn sequences(arguments: &Arguments) -> Result<Tally> {
    let start = |flavour| Pair::start(&arguments.reference, &arguments.server, flavour);
    let mut pairs = [
        (Flavour::Open, start(Flavour::Open)?),
        (Flavour::Users, start(Flavour::Users)?),
    ];
    let mut tally = Tally::default();
    for seed in arguments.first..arguments.first + arguments.sequences {
        let (flavour, pair) = &mut pairs[usize::from(seed % 3 == 0)];
        let sequence = Sequence::generate(seed, *flavour);
        let [reference, tested] = both(pair, &sequence)?;
        if reference.len() != tested.len() || first_difference(&reference, &tested).is_some() {
            if differs(pair, &sequence) {
                tally.differ += 1;
                report(pair, &sequence)?;
            } else {
                tally.unstable += 1;
            }
        }
        pair.check()?;
        tally.played += 1;
        if tally.played % 500 == 0 {
            tally.print("sequences");
        }
        if tally.differ >= arguments.stop_after {
            break;
        }
    }
    Ok(tally)
}

/// One connection to each server.
struct Players {
    reference: Player,
    tested: Player,
}

impl Players {
    fn play(&mut self, script: &Script) -> Result<[Vec<Seen>; 2]> {
        let Self { reference, tested } = self;
        let (reference, tested) = thread::scope(|scope| {
            let reference = scope.spawn(|| reference.play(script));
            let tested = tested.play(script);
            (reference.join().expect("playing does not panic"), tested)
        });
        Ok([reference.context("nats-server")?, tested.context("menes")?])
    }

    /// The first operation with different outcomes, if there is one every time.
    fn difference(&mut self, script: &Script) -> Result<Option<usize>> {
        let mut found = None;
        for _ in 0..CONFIRMATIONS {
            let [reference, tested] = self.play(script)?;
            found = reference.iter().zip(&tested).position(|(a, b)| a != b);
            if found.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn report(&mut self, script: &Script, at: usize) -> Result<()> {
        let mut small = script.clone();
        small.ops.truncate(at + 1);
        for op in (0..at).rev() {
            let less = small.without(op);
            if self.difference(&less)? == Some(less.ops.len() - 1) {
                small = less;
            }
        }
        let [reference, tested] = self.play(&small)?;
        println!("=== seed {}", script.seed);
        for (index, op) in small.ops.iter().enumerate() {
            println!("{index:>3}: {op}");
        }
        let last = small.ops.len() - 1;
        println!("nats-server:\n{}menes:\n{}", reference[last], tested[last]);
        Ok(())
    }
}

fn scripts(arguments: &Arguments) -> Result<Tally> {
    let mut tally = Tally::default();
    if arguments.scripts == 0 {
        return Ok(tally);
    }
    let mut pair = Pair::start(&arguments.reference, &arguments.server, Flavour::Streams)?;
    let mut players = Players {
        reference: Player::connect(pair.reference())?,
        tested: Player::connect(pair.tested())?,
    };
    for seed in arguments.first..arguments.first + arguments.scripts {
        let script = Script::generate(seed);
        let [reference, tested] = players.play(&script)?;
        if reference != tested {
            if let Some(at) = players.difference(&script)? {
                tally.differ += 1;
                players.report(&script, at)?;
            } else {
                tally.unstable += 1;
            }
        }
        pair.check()?;
        tally.played += 1;
        if tally.played % 100 == 0 {
            tally.print("scripts");
        }
        if tally.differ >= arguments.stop_after {
            break;
        }
    }
    Ok(tally)
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let mut found = 0;
    for (what, tally) in [
        ("sequences", sequences(&arguments)?),
        ("scripts", scripts(&arguments)?),
    ] {
        tally.print(what);
        found += tally.differ;
    }
    if found > 0 {
        bail!("Menes answers differently");
    }
    Ok(())
}
