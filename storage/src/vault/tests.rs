use proptest::prelude::*;

use super::*;

fn asked(key: Option<&str>, previous: Option<&str>) -> Encryption {
    Encryption {
        key: key.map(str::to_owned),
        previous: previous.map(str::to_owned),
        cipher: CipherSuite::ChaCha,
    }
}

fn keys(vault: &Vault) -> Vec<[u8; 32]> {
    let ring = vault.0.as_ref().expect("it has keys");
    ring.keys.values().map(|key| key.secret).collect()
}

#[test]
fn without_keys_nothing_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let vault = Vault::open(directory.path(), &Encryption::default()).expect("plain");
    assert!(!vault.has_keys());
    assert!(
        std::fs::read_dir(directory.path())
            .expect("listed")
            .next()
            .is_none()
    );
}

#[test]
fn the_key_that_made_it_opens_it_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let made = Vault::open(path, &asked(Some("one"), None)).expect("new");
    let opened = Vault::open(path, &asked(Some("one"), None)).expect("the same");
    assert_eq!(keys(&made), keys(&opened));
    let before = std::fs::read(path.join(ring::NAME)).expect("there");
    for (wrong, says) in [
        (asked(None, None), "no key is configured"),
        (asked(Some("two"), None), "does not open it"),
        (asked(None, Some("two")), "does not open it"),
        (asked(Some("two"), Some("three")), "neither"),
    ] {
        let error = Vault::open(path, &wrong).expect_err("wrong").to_string();
        assert!(error.contains(says), "{error}");
    }
    let after = std::fs::read(path.join(ring::NAME)).expect("there");
    assert_eq!(before, after, "nothing is touched");
}

#[test]
fn a_new_key_takes_over_and_the_old_one_opens_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let first = Vault::open(path, &asked(Some("one"), None)).expect("new");
    let second = Vault::open(path, &asked(Some("two"), Some("one"))).expect("changed");
    assert_eq!(keys(&second).len(), 2);
    assert_eq!(
        keys(&second)[0],
        keys(&first)[0],
        "what is there stays readable"
    );
    Vault::open(path, &asked(Some("one"), None)).expect_err("no longer");
    let again = Vault::open(path, &asked(Some("two"), Some("one"))).expect("still configured");
    assert_eq!(keys(&again), keys(&second), "the change is made once");
    let third = Vault::open(path, &asked(Some("two"), None)).expect("alone");
    assert_eq!(keys(&third), keys(&second));
}

#[test]
fn another_cipher_is_another_data_key() {
    let directory = tempfile::tempdir().expect("a directory");
    Vault::open(directory.path(), &asked(Some("one"), None)).expect("new");
    let aes = Encryption {
        cipher: CipherSuite::Aes,
        ..asked(Some("one"), None)
    };
    let vault = Vault::open(directory.path(), &aes).expect("changed");
    assert_eq!(keys(&vault).len(), 2);
    assert_eq!(vault.current().expect("on").1.suite, CipherSuite::Aes);
}

#[test]
fn one_damaged_copy_does_no_harm_and_two_are_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(ring::NAME);
    Vault::open(directory.path(), &asked(Some("one"), None)).expect("new");
    let good = std::fs::read(&path).expect("there");
    for at in [0, 9, 20, 60, 100] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).expect("written");
        Vault::open(directory.path(), &asked(Some("one"), None)).expect("the other copy");
        if !(8..12).contains(&at) {
            bad[4096 + at] ^= 1;
            std::fs::write(&path, &bad).expect("written");
            let error = Vault::open(directory.path(), &asked(Some("one"), None));
            assert!(matches!(error, Err(OpenError::Damaged { .. })), "{error:?}");
        }
    }
}

#[test]
fn a_sealed_entry_is_bound_to_every_bit_and_to_its_place() {
    for cipher in [CipherSuite::ChaCha, CipherSuite::Aes] {
        let vault = testing(cipher);
        let mut sealer = vault.sealer().expect("random").expect("on");
        let sealed = sealer.seal(b"here", b"a message");
        assert_eq!(sealed.len(), 9 + SEAL_BYTES);
        assert_eq!(
            vault.unseal(b"here", &sealed).as_deref(),
            Some(&b"a message"[..])
        );
        assert_eq!(vault.unseal(b"there", &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(vault.unseal(b"here", &bad), None, "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert_eq!(vault.unseal(b"here", &sealed[..len]), None);
        }
    }
}

#[test]
fn the_same_payload_at_the_same_place_never_looks_the_same() {
    let vault = testing(CipherSuite::ChaCha);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..8 {
        // As after a crash: the count begins again.
        let mut sealer = vault.sealer().expect("random").expect("on");
        for _ in 0..8 {
            assert!(seen.insert(sealer.seal(b"here", b"a message")));
        }
    }
}

/// A vault that lies nowhere.
pub(crate) fn testing(cipher: CipherSuite) -> Vault {
    holding(cipher, 7, Some(1))
}

/// The same with another key.
pub(crate) fn testing_other() -> Vault {
    holding(CipherSuite::ChaCha, 8, Some(1))
}

/// The same, with which nothing more is encrypted.
pub(crate) fn ended() -> Vault {
    holding(CipherSuite::ChaCha, 7, None)
}

fn holding(suite: CipherSuite, secret: u8, current: Option<u32>) -> Vault {
    let key = DataKey {
        suite,
        secret: [secret; 32],
    };
    Vault(Some(Arc::new(Ring {
        keys: BTreeMap::from([(1, key)]),
        current,
        ready: Mutex::default(),
    })))
}

proptest! {
    #[test]
    fn a_file_reads_the_same_in_any_pieces(
        contents in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(0_usize..300, 0..8),
    ) {
        let vault = testing(CipherSuite::ChaCha);
        let prefix = vault.new_prefix().expect("random").expect("on");
        let cipher = vault.file_cipher(&prefix).expect("its key");
        let mut whole = contents.clone();
        prop_assert!(cipher.apply(PREFIX_BYTES as u64, &mut whole));
        prop_assert!(contents.len() < 8 || whole != contents);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(contents.len())).collect();
        cuts.extend([0, contents.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let part = &mut whole[pair[0]..pair[1]];
            prop_assert!(cipher.apply((PREFIX_BYTES + pair[0]) as u64, part));
        }
        prop_assert_eq!(whole, contents);
    }
}
