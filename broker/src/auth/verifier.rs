//! Slow passwords checked without slowing others: few at a time, and what was right once is
//! remembered by a digest with a key of this process.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::available_parallelism;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::password::Secret;
use super::throttle::origin;

/// Digests remembered at most.
const MAX_REMEMBERED: usize = 65_536;
/// Checks that wait at most; more logins are sent away.
const MAX_WAITING: usize = 4_096;
/// The same of one address, or one network of IPv6: nobody can take all places.
const MAX_WAITING_OF_ADDRESS: usize = 1_024;

/// See the module.
pub(super) struct Verifier {
    key: Key,
    right: Mutex<HashSet<[u8; 32]>>,
    places: Arc<Semaphore>,
    waiting: Mutex<Queue>,
}

/// How many wait, by where they come from.
#[derive(Debug, Default)]
struct Queue {
    all: usize,
    by_origin: HashMap<IpAddr, usize>,
}

/// Somebody who waits.
struct Waiting<'a> {
    queue: &'a Mutex<Queue>,
    origin: IpAddr,
}

impl<'a> Waiting<'a> {
    fn enter(queue: &'a Mutex<Queue>, address: IpAddr) -> Option<Self> {
        let origin = origin(address);
        let mut counts = queue.lock();
        let own = counts.by_origin.get(&origin).copied().unwrap_or(0);
        if counts.all >= MAX_WAITING || own >= MAX_WAITING_OF_ADDRESS {
            return None;
        }
        counts.all += 1;
        counts.by_origin.insert(origin, own + 1);
        Some(Self { queue, origin })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut counts = self.queue.lock();
        counts.all -= 1;
        if let Some(own) = counts.by_origin.get_mut(&self.origin) {
            *own -= 1;
            if *own == 0 {
                counts.by_origin.remove(&self.origin);
            }
        }
    }
}

/// A place to compute a hash at.
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
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
            places: Arc::new(Semaphore::new(cores.div_ceil(2))),
            waiting: Mutex::default(),
        }
    }
}

impl Verifier {
    /// Whether this password was found right for this hash before.
    pub(super) fn knows(&self, secret: &Secret, given: &str) -> bool {
        let digest = self.digest(secret, given);
        digest.is_some_and(|digest| self.right.lock().contains(&digest))
    }

    /// Waits for a turn; `None` where too many do.
    pub(super) async fn turn(&self, address: IpAddr) -> Option<Turn> {
        let _waiting = Waiting::enter(&self.waiting, address)?;
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.ok().map(|place| Turn { _place: place })
    }

    /// Checks a password. `wrong` is called for one that is not right, also when nobody waits for
    /// the result any more: whoever hangs up has guessed all the same.
    pub(super) async fn verify(
        &self,
        turn: Turn,
        secret: Arc<Secret>,
        given: String,
        wrong: impl FnOnce() + Send + 'static,
    ) -> bool {
        let digest = self.digest(&secret, &given);
        let check = tokio::task::spawn_blocking(move || {
            let is_right = secret.matches(&given);
            if !is_right {
                wrong();
            }
            drop(turn);
            is_right
        });
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
    use std::future::{Future, poll_fn};
    use std::net::Ipv4Addr;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    async fn is_waiting<F: Future>(future: &mut Pin<Box<F>>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    async fn verify(verifier: &Verifier, secret: &Arc<Secret>, given: &str) -> bool {
        let turn = verifier.turn(HOME).await.expect("room");
        let secret = Arc::clone(secret);
        verifier.verify(turn, secret, given.to_owned(), || {}).await
    }

    #[tokio::test]
    async fn a_right_password_is_remembered_for_its_hash_only() {
        let verifier = Verifier::default();
        let hash = |password| bcrypt::hash(password, 4).expect("a cost in range");
        let secret = Arc::new(Secret::new(&hash("p")));
        let other = Secret::new(&hash("p"));
        assert!(!verifier.knows(&secret, "p"));
        assert!(!verify(&verifier, &secret, "q").await);
        assert!(!verifier.knows(&secret, "q"));
        assert!(verify(&verifier, &secret, "p").await);
        assert!(verifier.knows(&secret, "p"));
        assert!(!verifier.knows(&secret, "q") && !verifier.knows(&other, "p"));
        let decoy = Arc::new(Secret::decoy());
        assert!(!verify(&verifier, &decoy, "p").await);
        assert!(!verifier.knows(&decoy, "p"));
    }

    #[tokio::test]
    async fn one_address_takes_some_of_the_places_and_gives_back_what_it_leaves() {
        let verifier = Verifier::default();
        let mut taken = Vec::new();
        while let Ok(place) = Arc::clone(&verifier.places).try_acquire_owned() {
            taken.push(place);
        }
        let mut waiting = Vec::new();
        for _ in 0..MAX_WAITING_OF_ADDRESS {
            let mut turn = Box::pin(verifier.turn(HOME));
            assert!(is_waiting(&mut turn).await);
            waiting.push(turn);
        }
        assert!(verifier.turn(HOME).await.is_none());
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        let mut other = Box::pin(verifier.turn(elsewhere));
        assert!(is_waiting(&mut other).await);
        // They hang up.
        waiting.clear();
        taken.clear();
        assert!(other.await.is_some());
        let counts = verifier.waiting.lock();
        assert!(counts.all == 0 && counts.by_origin.is_empty());
    }

    #[tokio::test]
    async fn a_guess_counts_and_holds_its_place_when_nobody_waits_for_it() {
        let verifier = Verifier::default();
        let places = verifier.places.available_permits();
        let wrong = Arc::new(AtomicUsize::new(0));
        let turn = verifier.turn(HOME).await.expect("room");
        let hash = bcrypt::hash("p", 4).expect("a cost in range");
        let counted = Arc::clone(&wrong);
        let mut check = Box::pin(verifier.verify(
            turn,
            Arc::new(Secret::new(&hash)),
            "q".to_owned(),
            move || {
                counted.fetch_add(1, Ordering::Relaxed);
            },
        ));
        assert!(is_waiting(&mut check).await);
        drop(check);
        // Whoever has all places comes after it.
        let all = u32::try_from(places).expect("few");
        let all = verifier.places.acquire_many(all).await;
        assert!(all.is_ok());
        assert_eq!(wrong.load(Ordering::Relaxed), 1);
    }
}
