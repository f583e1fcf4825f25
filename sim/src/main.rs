//! `menes-sim [--seeds N] [--seed S] [--steps N] [--mutant NAME] [--trace]`

use std::process::ExitCode;

use menes_sim::mutant::Mutant;
use menes_sim::world::{Report, Settings, World};

struct Arguments {
    seeds: u64,
    seed: Option<u64>,
    steps: u64,
    mutant: Option<Mutant>,
    trace: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        seeds: 100,
        seed: None,
        steps: 600,
        mutant: None,
        trace: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
        match word.as_str() {
            "--seeds" => parsed.seeds = number(value()?)?,
            "--seed" => parsed.seed = Some(number(value()?)?),
            "--steps" => parsed.steps = number(value()?)?,
            "--mutant" => {
                let name = value()?;
                let known: Vec<_> = Mutant::ALL.iter().map(|m| m.name()).collect();
                parsed.mutant = Some(
                    Mutant::named(&name)
                        .ok_or_else(|| format!("{name} is none of {}", known.join(", ")))?,
                );
            }
            "--trace" => parsed.trace = true,
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(parsed)
}

#[expect(
    clippy::print_stdout,
    reason = "the report is the point of this program"
)]
fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => 1..arguments.seeds + 1,
    };
    let mut sum = Report::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let settings = Settings {
            seed,
            steps: arguments.steps,
            mutant: arguments.mutant,
        };
        match World::run(settings) {
            Ok(report) => {
                sum.acked += report.acked;
                sum.commands += report.commands;
                sum.crashes += report.crashes;
                sum.failures += report.failures;
                sum.refused += report.refused;
                sum.delivered += report.delivered;
                sum.settled += report.settled;
                sum.restored += report.restored;
                if arguments.trace {
                    for event in &report.events {
                        println!("{event}");
                    }
                    println!("trace {:016x}", report.trace);
                }
            }
            Err(violation) => {
                for event in &violation.report.events {
                    println!("{event}");
                }
                println!("seed {seed}: {}", violation.what);
                let mutant = arguments
                    .mutant
                    .map_or_else(String::new, |m| format!(" --mutant {}", m.name()));
                println!(
                    "again: menes-sim --seed {seed} --steps {}{mutant}",
                    arguments.steps
                );
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{count} seeds: {} acked, {} commands, {} refused by a full disk, {} delivered, \
         {} double acks, {} restores, {} crashes, {} of them after a failed sync; nothing contradicted",
        sum.acked,
        sum.commands,
        sum.refused,
        sum.delivered,
        sum.settled,
        sum.restored,
        sum.crashes,
        sum.failures
    );
    ExitCode::SUCCESS
}
