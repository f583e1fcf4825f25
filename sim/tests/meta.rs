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
        let first = World::run(settings(seed, None)).expect("a clean run").trace;
        let second = World::run(settings(seed, None)).expect("a clean run").trace;
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn runs_without_planted_bugs_are_clean_and_do_something() {
    let (mut acked, mut crashes, mut settled) = (0, 0, 0);
    for seed in 1..=100 {
        match World::run(settings(seed, None)) {
            Ok(report) => {
                acked += report.acked;
                crashes += report.crashes;
                settled += report.settled;
            }
            Err(violation) => panic!("seed {seed}: {}", violation.what),
        }
    }
    assert!(acked > 10_000, "{acked} acked");
    assert!(crashes > 500, "{crashes} crashes");
    assert!(settled > 1_000, "{settled} settled");
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
