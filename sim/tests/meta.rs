//! Does the simulator prove anything?

use menes_sim::mutant::Mutant;
use menes_sim::world::{Settings, World};

const STEPS: u64 = 600;

fn settings(seed: u64, mutant: Option<Mutant>) -> Settings {
    Settings {
        seed,
        steps: STEPS,
        mutant,
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..=20 {
        let trace = || match World::run(settings(seed, None)) {
            Ok(report) => report.trace,
            Err(violation) => panic!("seed {seed}: {}", violation.what),
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

#[test]
fn runs_without_planted_bugs_are_clean_and_do_something() {
    let mut sums = [0; 8];
    for seed in 1..=100 {
        match World::run(settings(seed, None)) {
            Ok(report) => {
                let counts = [
                    report.acked,
                    report.commands,
                    report.crashes,
                    report.failures,
                    report.refused,
                    report.delivered,
                    report.settled,
                    report.restored,
                ];
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            Err(violation) => panic!("seed {seed}: {}", violation.what),
        }
    }
    let least = [25_000, 1_500, 600, 20, 100, 10_000, 2_000, 60];
    for (sum, least) in sums.iter().zip(least) {
        assert!(*sum > least, "{sums:?} instead of {least:?}");
    }
}

#[test]
fn every_planted_bug_is_caught() {
    for mutant in Mutant::ALL {
        let caught = (1..=200).find(|seed| World::run(settings(*seed, Some(mutant))).is_err());
        assert!(
            caught.is_some(),
            "{} was not caught in 200 seeds",
            mutant.name()
        );
    }
}
