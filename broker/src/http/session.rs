//! Who is logged in over HTTP.
//!
//! A session is a user with a connection inside the server, opened when the user logs in and again
//! when it was closed. The same user with the same password shares one, as clients that log in for
//! every message would otherwise leave a connection behind each time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use rand::Rng;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::auth::throttle::origin;
use crate::inside::{Inside, Login, LoginError};
use crate::server::Shared;

/// Time between two looks for sessions that have ended.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(30);
/// Most sessions at a time.
const MAX_SESSIONS: usize = 1_000;
/// The same from one address, or one network of IPv6: where anyone may log in, nobody can take all
/// of them.
const MAX_OF_ADDRESS: usize = 200;
/// Most stations and groups a session remembers.
const MAX_REMEMBERED: usize = 1_000;

/// A user who is logged in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    /// Half of the connection's name: what the stations know the client by.
    pub(crate) connection_id: String,
    pub(crate) user: String,
    login: Login,
    peer: SocketAddr,
    inside: tokio::sync::Mutex<Option<Arc<Inside>>>,
    ends: Mutex<Instant>,
    /// It was logged out, let go or refused, whatever time is left.
    is_over: AtomicBool,
    /// Partitions of stations that a producer is registered at.
    producers: Mutex<HashMap<String, Arc<Route>>>,
    /// The same of consumers, by station, consumer and group.
    consumers: Mutex<HashMap<[String; 3], Arc<Route>>>,
    /// Live views it may still open.
    views: OnceLock<Arc<Semaphore>>,
}

/// The partitions of a station, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Route {
    internal: String,
    pub(crate) group: String,
    partitions: Vec<u32>,
    turn: AtomicUsize,
}

impl Route {
    /// `partitions` are one or more.
    pub(crate) fn new(internal: String, group: String, partitions: Vec<u32>) -> Self {
        Self {
            internal,
            group,
            partitions,
            turn: AtomicUsize::new(0),
        }
    }

    /// The partition whose turn it is, as the name of its stream.
    pub(crate) fn next_stream(&self) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let partition = self.partitions[turn % self.partitions.len()];
        format!("{}${partition}", self.internal)
    }

    pub(crate) fn partitions(&self) -> usize {
        self.partitions.len()
    }
}

impl Session {
    /// The connection, opened anew if it was closed.
    ///
    /// # Errors
    /// As [`Inside::log_in`]: the password may have been changed meanwhile. The session of one that
    /// is refused is over: trying again would count against the user and its address.
    pub(crate) async fn inside(&self, desk: &Sessions) -> Result<Arc<Inside>, LoginError> {
        let mut inside = self.inside.lock().await;
        if let Some(open) = &*inside
            && !open.is_closed()
        {
            return Ok(Arc::clone(open));
        }
        if self.is_over.load(Ordering::Relaxed) {
            return Err(LoginError::Refused);
        }
        // Registrations ended with the connection.
        self.producers.lock().clear();
        self.consumers.lock().clear();
        let opened = Inside::log_in(&desk.shared, &self.login, self.peer, desk.listener).await;
        if matches!(opened, Err(LoginError::Refused)) {
            desk.log_out(self);
        }
        let opened = Arc::new(opened?);
        *inside = Some(Arc::clone(&opened));
        Ok(opened)
    }

    pub(crate) fn producer(&self, station: &str) -> Option<Arc<Route>> {
        self.producers.lock().get(station).cloned()
    }

    pub(crate) fn remember_producer(&self, station: String, route: &Arc<Route>) {
        let mut producers = self.producers.lock();
        if producers.len() >= MAX_REMEMBERED {
            producers.clear();
        }
        producers.insert(station, Arc::clone(route));
    }

    /// Forgets a station whose partitions are not what they were.
    pub(crate) fn forget(&self, station: &str) {
        self.producers.lock().remove(station);
        self.consumers.lock().retain(|key, _| key[0] != station);
    }

    pub(crate) fn consumer(&self, key: &[String; 3]) -> Option<Arc<Route>> {
        self.consumers.lock().get(key).cloned()
    }

    pub(crate) fn remember_consumer(&self, key: [String; 3], route: &Arc<Route>) {
        let mut consumers = self.consumers.lock();
        if consumers.len() >= MAX_REMEMBERED {
            consumers.clear();
        }
        consumers.insert(key, Arc::clone(route));
    }

    /// The live views of this session, `most` of them.
    pub(crate) fn views(&self, most: usize) -> Arc<Semaphore> {
        let views = self.views.get_or_init(|| Arc::new(Semaphore::new(most)));
        Arc::clone(views)
    }

    fn lives_until(&self, end: Instant) {
        let mut ends = self.ends.lock();
        *ends = end.max(*ends);
    }

    /// Whether nobody is logged in by it any more.
    pub(crate) fn has_ended(&self, now: Instant) -> bool {
        self.is_over.load(Ordering::Relaxed) || *self.ends.lock() <= now
    }

    /// Ends it, for whoever still holds it.
    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    shared: Arc<Shared>,
    listener: SocketAddr,
    /// Mixed into what is remembered of passwords.
    salt: [u8; 32],
    all: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// Whether the server holds messages of a station of this name against a schema.
    pub(crate) fn checks(&self, station: &str) -> bool {
        let ingest = self.shared.ingest();
        ingest.is_some_and(|ingest| ingest.enforcement().checks(station))
    }

    pub(crate) fn new(shared: Arc<Shared>, listener: SocketAddr) -> Self {
        Self {
            shared,
            listener,
            salt: rand::rng().random(),
            all: Mutex::default(),
        }
    }

    /// The session of this number, if it has not ended.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Session>> {
        let session = self.all.lock().get(id).cloned()?;
        (!session.has_ended(Instant::now())).then_some(session)
    }

    /// Logs a user in, for at least `lifetime`.
    ///
    /// # Errors
    /// Wrong credentials, or a server that takes nobody now.
    pub(crate) async fn log_in(
        &self,
        credentials: Credentials,
        lifetime: Duration,
        peer: SocketAddr,
    ) -> Result<Arc<Session>, LoginError> {
        let id = self.id_of(&credentials);
        let now = Instant::now();
        let end = now.checked_add(lifetime).unwrap_or(now);
        if let Some(known) = self.find(&id) {
            // The password was right once; it has to be still.
            known.inside(self).await?;
            known.lives_until(end);
            return Ok(known);
        }
        let connection_id = HEXLOWER.encode(&rand::rng().random::<[u8; 12]>());
        let session = Arc::new(Session {
            id: id.clone(),
            user: credentials.user.clone(),
            login: credentials.login(&connection_id),
            connection_id,
            peer,
            inside: tokio::sync::Mutex::new(None),
            ends: Mutex::new(end),
            is_over: AtomicBool::new(false),
            producers: Mutex::default(),
            consumers: Mutex::default(),
            views: OnceLock::new(),
        });
        session.inside(self).await?;
        let mut all = self.all.lock();
        make_room(&mut all, peer.ip(), now);
        Ok(Arc::clone(all.entry(id).or_insert(session)))
    }

    /// Ends a session.
    pub(crate) fn log_out(&self, session: &Session) {
        session.end();
        let mut all = self.all.lock();
        // The user may have logged in anew.
        if all
            .get(&session.id)
            .is_some_and(|kept| std::ptr::eq(&raw const **kept, session))
        {
            all.remove(&session.id);
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Keeps a session for longer.
    pub(crate) fn extend(&self, session: &Session, lifetime: Duration) {
        let now = Instant::now();
        session.lives_until(now.checked_add(lifetime).unwrap_or(now));
    }

    /// Closes sessions that have ended, for ever.
    pub(crate) async fn expire(&self) {
        loop {
            tokio::time::sleep(EXPIRY_INTERVAL).await;
            let now = Instant::now();
            sweep(&mut self.all.lock(), now);
        }
    }

    /// One number for the same user with the same password. Says nothing about either.
    fn id_of(&self, credentials: &Credentials) -> String {
        let mut digest = Sha256::new();
        digest.update(self.salt);
        for part in [&credentials.user, &credentials.password, &credentials.token] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        HEXLOWER.encode(&digest.finalize())
    }
}

/// Lets go of those that have ended.
fn sweep(all: &mut HashMap<String, Arc<Session>>, now: Instant) {
    all.retain(|_, session| {
        let has_ended = session.has_ended(now);
        if has_ended {
            session.end();
        }
        !has_ended
    });
}

/// Makes room for one more session from `ip`. Whoever has most gives one up: the one that would
/// end first, whose user is least likely to notice.
fn make_room(all: &mut HashMap<String, Arc<Session>>, ip: IpAddr, now: Instant) {
    sweep(all, now);
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for session in all.values() {
        *counts.entry(origin(session.peer.ip())).or_default() += 1;
    }
    let own = origin(ip);
    let giver = if counts.get(&own).copied().unwrap_or(0) >= MAX_OF_ADDRESS {
        Some(own)
    } else if all.len() >= MAX_SESSIONS {
        let most = counts.iter().max_by_key(|(_, count)| **count);
        most.map(|(ip, _)| *ip)
    } else {
        None
    };
    let Some(giver) = giver else {
        return;
    };
    let first = all
        .values()
        .filter(|session| origin(session.peer.ip()) == giver)
        .min_by_key(|session| *session.ends.lock())
        .map(|session| session.id.clone());
    if let Some(id) = first {
        tracing::warn!("HTTP: too many users logged in, one from {giver} is let go");
        if let Some(session) = all.remove(&id) {
            session.end();
        }
    }
}

/// What a client logs in with.
pub(crate) struct Credentials {
    /// User name, its `$<account id>` included if it has one.
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) token: String,
}

impl Credentials {
    fn login(self, connection_id: &str) -> Login {
        let name = format!(
            "{connection_id}::{}",
            menes_stations::user::display_name(&self.user)
        );
        // In the way of the SDKs: with a token, the user is part of it.
        if self.token.is_empty() {
            Login {
                user: self.user,
                password: self.password,
                name,
                ..Login::default()
            }
        } else {
            Login {
                token: format!("{}::{}", self.user, self.token),
                name,
                ..Login::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::{AuthOptions, Options, UserOptions};
    use crate::error::CloseReason;
    use crate::server::{Hooks, Server};

    fn session(id: &str, ip: &str, seconds: u64, now: Instant) -> (String, Arc<Session>) {
        let credentials = Credentials {
            user: id.to_owned(),
            password: String::new(),
            token: String::new(),
        };
        let session = Session {
            id: id.to_owned(),
            connection_id: String::new(),
            user: id.to_owned(),
            login: credentials.login(""),
            peer: SocketAddr::new(ip.parse().expect("an address"), 1),
            inside: tokio::sync::Mutex::new(None),
            ends: Mutex::new(now + Duration::from_secs(seconds)),
            is_over: AtomicBool::new(false),
            producers: Mutex::default(),
            consumers: Mutex::default(),
            views: OnceLock::new(),
        };
        (id.to_owned(), Arc::new(session))
    }

    #[test]
    fn who_has_most_sessions_gives_up_the_one_that_ends_first() {
        let now = Instant::now();
        let mut all: HashMap<String, Arc<Session>> = HashMap::new();
        for n in 0..MAX_OF_ADDRESS as u64 {
            all.extend([session(&format!("a{n}"), "192.0.2.1", 60 + n, now)]);
        }
        make_room(&mut all, "192.0.2.2".parse().expect("an address"), now);
        assert_eq!(all.len(), MAX_OF_ADDRESS);
        let first = Arc::clone(&all["a0"]);
        assert!(!first.has_ended(now));
        make_room(&mut all, "192.0.2.1".parse().expect("an address"), now);
        assert_eq!(all.len(), MAX_OF_ADDRESS - 1);
        // Its live views end.
        assert!(first.has_ended(now));
        assert!(!all.contains_key("a0") && all.contains_key("a1"));
        for n in all.len()..MAX_SESSIONS {
            // Each from an address of its own, but one customer of a provider has 2^64.
            let ip = format!("2001:db8::{n:x}");
            all.extend([session(&format!("b{n}"), &ip, 30, now)]);
        }
        make_room(&mut all, "198.51.100.1".parse().expect("an address"), now);
        let left = |letter: char| all.keys().filter(|id| id.starts_with(letter)).count();
        assert_eq!(
            (left('a'), left('b')),
            (MAX_OF_ADDRESS - 1, MAX_SESSIONS - MAX_OF_ADDRESS)
        );
        make_room(
            &mut all,
            "198.51.100.1".parse().expect("an address"),
            now + Duration::from_secs(31),
        );
        assert_eq!(all.keys().filter(|id| id.starts_with('b')).count(), 0);
    }

    #[test]
    fn a_session_whose_time_is_over_is_not_prolonged_once_it_is_gone() {
        let now = Instant::now();
        let mut all: HashMap<String, Arc<Session>> = HashMap::new();
        all.extend([session("a", "192.0.2.1", 30, now)]);
        let held = Arc::clone(&all["a"]);
        let later = now + Duration::from_secs(30);
        sweep(&mut all, now);
        assert!(all.len() == 1 && !held.has_ended(now) && held.has_ended(later));
        sweep(&mut all, later);
        held.lives_until(later + Duration::from_secs(30));
        assert!(all.is_empty() && held.has_ended(later));
    }

    fn rules(password: &str) -> AuthOptions {
        AuthOptions {
            users: vec![UserOptions {
                user: "ada".to_owned(),
                password: bcrypt::hash(password, 4).expect("a cost in range"),
                ..UserOptions::default()
            }],
            ..AuthOptions::default()
        }
    }

    fn ada(password: &str) -> Credentials {
        Credentials {
            user: "ada".to_owned(),
            password: password.to_owned(),
            token: String::new(),
        }
    }

    #[tokio::test]
    async fn a_session_whose_password_no_longer_holds_is_over_at_the_first_refusal() {
        let options = Options {
            host: "127.0.0.1".to_owned(),
            ports: vec![0],
            auth: rules("old"),
            ..Options::default()
        };
        let mut server = Server::new(options, Hooks::default());
        server.bind().expect("a free port");
        let shared = server.shared();
        let handle = server.serve().expect("threads");
        let listener = handle.addresses()[0];
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        let desk = Sessions::new(Arc::clone(&shared), listener);
        let lifetime = Duration::from_secs(600);
        let limit = Instant::now() + Duration::from_secs(20);
        let session = loop {
            match desk.log_in(ada("old"), lifetime, peer).await {
                Ok(session) => break session,
                // Its threads begin.
                Err(LoginError::Unavailable(_)) if Instant::now() < limit => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("the right password: {error}"),
            }
        };
        assert!(desk.find(&session.id).is_some());

        shared.auth().replace(&rules("new"));
        let open = session.inside(&desk).await.expect("still open");
        let client = shared.client_of(&session.connection_id);
        client.expect("connected").close(CloseReason::Revoked);
        while !open.is_closed() {
            assert!(Instant::now() < limit, "the connection ends");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // More often than a user may fail.
        for _ in 0..20 {
            let refused = session.inside(&desk).await.expect_err("another password");
            assert_eq!(refused, LoginError::Refused);
            assert!(desk.find(&session.id).is_none());
        }
        assert!(session.has_ended(Instant::now()));
        let anew = desk.log_in(ada("new"), lifetime, peer).await;
        let anew = anew.expect("nobody is locked out");
        // Who is logged in anew is not logged out by who holds the old one.
        desk.log_out(&session);
        assert!(desk.find(&anew.id).is_some());
        desk.log_out(&anew);
        assert!(desk.find(&anew.id).is_none() && anew.has_ended(Instant::now()));
        drop((open, anew, session));
        handle.shutdown().await;
    }
}
