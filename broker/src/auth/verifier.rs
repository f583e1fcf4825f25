//! Slow passwords checked without slowing others: few at a time, and what was right once is
//! remembered by a digest with a key of this process.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::Semaphore;

use super::password::Secret;

/// Digests remembered at most.
const MAX_REMEMBERED: usize = 65_536;
/// Checks that wait at most; more logins are refused.
const MAX_WAITING: usize = 4_096;

/// See the module.
pub(super) struct Verifier {
    key: Key,
    right: Mutex<HashSet<[u8; 32]>>,
    places: Semaphore,
    waiting: AtomicUsize,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Default for Verifier {
    fn default() -> Self {
        let key = rand::rng().random::<[u8; 32]>();
        // The other half of the processors goes on serving.
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            key: Key::new(HMAC_SHA256, &key),
            right: Mutex::default(),
            places: Semaphore::new(cores.div_ceil(2)),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Verifier {
    /// Whether this password was found right for this hash before.
    pub(super) fn knows(&self, secret: &Secret, given: &str) -> bool {
        let digest = self.digest(secret, given);
        digest.is_some_and(|digest| self.right.lock().contains(&digest))
    }

    /// Checks a password, when its turn comes.
    pub(super) async fn verify(&self, secret: std::sync::Arc<Secret>, given: String) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let place = self.places.acquire().await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if place.is_err() {
            return false;
        }
        // Somebody with the same password may have been before.
        if self.knows(&secret, &given) {
            return true;
        }
        let digest = self.digest(&secret, &given);
        let check = tokio::task::spawn_blocking(move || secret.matches(&given));
        let is_right = check.await.unwrap_or(false);
        if let Some(digest) = digest.filter(|_| is_right) {
            let mut right = self.right.lock();
            if right.len() >= MAX_REMEMBERED {
                right.clear();
            }
            right.insert(digest);
        }
        is_right
    }

    /// Says nothing about the password to who does not have the key. A decoy has none.
    fn digest(&self, secret: &Secret, given: &str) -> Option<[u8; 32]> {
        let mut context = hmac::Context::with_key(&self.key);
        let hash = secret.hash()?;
        context.update(&(hash.len() as u64).to_le_bytes());
        context.update(hash.as_bytes());
        context.update(given.as_bytes());
        context.sign().as_ref().try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_right_password_is_remembered_for_its_hash_only() {
        let verifier = Verifier::default();
        let hash = |password| bcrypt::hash(password, 4).expect("a cost in range");
        let secret = Arc::new(Secret::new(&hash("p")));
        let other = Secret::new(&hash("p"));
        assert!(!verifier.knows(&secret, "p"));
        assert!(!verifier.verify(Arc::clone(&secret), "q".to_owned()).await);
        assert!(!verifier.knows(&secret, "q"));
        assert!(verifier.verify(Arc::clone(&secret), "p".to_owned()).await);
        assert!(verifier.knows(&secret, "p"));
        assert!(!verifier.knows(&secret, "q") && !verifier.knows(&other, "p"));
        let decoy = Arc::new(Secret::decoy());
        assert!(!verifier.verify(Arc::clone(&decoy), "p".to_owned()).await);
        assert!(!verifier.knows(&decoy, "p"));
    }
}
