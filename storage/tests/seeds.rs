//! Every seed of the fuzzer is read, or refused, without a panic; and so is what is like it.

use proptest::prelude::*;

#[path = "../../fuzz/checks/stored.rs"]
mod checks;

fn seeds(of: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/../fuzz/seeds/{of}", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(folder).expect("seeds");
    files
        .map(|file| std::fs::read(file.expect("a seed").path()).expect("readable"))
        .collect()
}

fn changed(mut seed: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (at, byte) in changes {
        if !seed.is_empty() {
            let at = at.index(seed.len());
            seed[at] = *byte;
        }
    }
    seed
}

#[test]
fn seeds_of_the_fuzzer_are_read_or_refused() {
    let (keys, packed) = (seeds("keys"), seeds("packed"));
    assert!(keys.len() >= 8 && packed.len() >= 8);
    keys.iter().for_each(|seed| checks::keys(seed));
    packed.iter().for_each(|seed| checks::packed(seed));
}

proptest! {
    #[test]
    fn what_is_like_them_is_read_or_refused(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let all = seeds("keys");
        checks::keys(&changed(all[seed.index(all.len())].clone(), &changes));
        checks::keys(&noise);
        let all = seeds("packed");
        checks::packed(&changed(all[seed.index(all.len())].clone(), &changes));
        checks::packed(&noise);
    }
}
