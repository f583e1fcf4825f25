//! Who may connect, and as whom.
//!
//! ```text
//!   CONNECT ─▶ gate ─┬─▶ rules of the configuration ─┬─▶ admitted or refused
//!                    └─▶ operator: tokens            └─▶ auth callout: a service decides
//! ```
//!
//! Checking a password in clear or a signature is done at once. Checking a hash takes long on
//! purpose, an account's token may have to be fetched, and a service takes its time: what has to
//! wait is a `Deferred`.

pub mod callout;
mod certificate;
pub mod directory;
pub(crate) mod gate;
pub mod operator;
pub mod password;
pub mod permissions;
pub(crate) mod throttle;
mod verifier;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use menes_auth::admission::{Admission, ConnectionType};
use menes_auth::claims::authorization::ClientTls;
use menes_auth::key;
use menes_jetstream::ids::AccountName;
use menes_protocol::connect::Connect;

pub use self::password::hash as hash_password;

use self::directory::{Directory, Found, StoredLogin};
use self::password::Secret;
use self::permissions::Permissions;
use self::throttle::Throttle;
use self::verifier::Verifier;
use crate::config::options::{AuthOptions, CalloutOptions, UserOptions};
use crate::tls::CertificateName;

/// What an accepted login means.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user as configured; `None` when nobody had to log in, or for the token.
    pub user: Option<Arc<str>>,
    /// The account bound.
    pub account: AccountName,
    /// What the user may do; `None` is everything.
    pub permissions: Option<Arc<Permissions>>,
    /// What a token granted, if one did.
    pub grant: Option<Arc<Grant>>,
    /// The stored user, if it is one.
    pub stored: Option<Arc<StoredLogin>>,
}

/// What a user token grants beside permissions, and what of it others want to know.
#[derive(Clone, Debug)]
pub struct Grant {
    /// What was admitted.
    pub admission: Admission,
    /// The token, where it came from the client; a service's stays with the server.
    pub token: Option<String>,
    /// Public key of the account or its signing key that issued the token.
    pub issuer: String,
}

impl Grant {
    /// The token, unless whoever has it may log in with it.
    #[must_use]
    pub fn shown_token(&self) -> Option<&str> {
        let token = self.token.as_deref();
        token.filter(|_| !self.admission.is_bearer)
    }

    /// When the user must go.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.admission.expires
    }

    /// How long the user may stay; `None` is without end.
    #[must_use]
    pub fn nanoseconds_left(&self) -> Option<u64> {
        let left = self.expires()?.duration_since(Timestamp::now());
        Some(u64::try_from(left.as_nanos()).unwrap_or(0))
    }

    /// Subscriptions it may have; `None` is unlimited.
    #[must_use]
    pub fn max_subscriptions(&self) -> Option<usize> {
        let max = self.admission.max_subscriptions?;
        Some(usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// Bytes its messages may have; `None` is unlimited.
    #[must_use]
    pub fn max_payload(&self) -> Option<usize> {
        let max = self.admission.max_payload?;
        Some(usize::try_from(max).unwrap_or(usize::MAX))
    }
}

/// Someone who wants in.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// What CONNECT said.
    pub(crate) connect: Arc<Connect>,
    /// What the server gave it to sign; empty when it gave nothing.
    pub(crate) nonce: Arc<str>,
    /// Where it comes from.
    pub(crate) address: IpAddr,
    /// Number of the connection.
    pub(crate) cid: u64,
    /// What the connection is called in the log.
    pub(crate) who: String,
    /// How it is connected.
    pub(crate) connection: ConnectionType,
    /// What its certificate calls it, where that says who it is.
    pub(crate) certificate: Option<Vec<CertificateName>>,
    /// What its TLS agreed on, where a service may want to know.
    pub(crate) tls: Option<ClientTls>,
    /// A trusted proxy vouches for it.
    pub(crate) is_proxied: bool,
}

/// Whether a connection came through a proxy that signed the nonce.
#[derive(Debug)]
pub(crate) enum Proxied {
    /// None signed, or none is known.
    No,
    /// The one of this key.
    By(Arc<str>),
    /// One that is not trusted.
    ByOther,
}

/// The result of looking at credentials.
#[derive(Debug)]
pub(crate) enum Verdict {
    Accepted(Login),
    Refused,
    /// Only a trusted proxy may bring this user.
    NeedsProxy,
    /// A hash must be checked first.
    Pending(HashCheck),
}

/// A password against a hash: takes tens of milliseconds.
#[derive(Debug)]
pub(crate) struct HashCheck {
    secret: Arc<Secret>,
    given: String,
    /// `None` for a user that does not exist: the same work, and then a refusal.
    login: Option<Login>,
}

impl HashCheck {
    /// Does the work, here and now.
    pub(crate) fn run(self) -> Option<Login> {
        let is_right = self.secret.matches(&self.given);
        self.login.filter(|_| is_right)
    }
}

/// What became of such a check.
#[derive(Debug)]
pub(crate) enum Verified {
    Accepted(Login),
    Refused,
    /// Too many wait: nothing is said about the password.
    Busy,
}

#[derive(Debug)]
struct User {
    /// `None` for a user who signs.
    secret: Option<Arc<Secret>>,
    login: Login,
    options: UserOptions,
}

/// What new rules mean for someone who is connected.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Nothing.
    Same,
    /// The login stands and permits something else.
    Permitted(Option<Arc<Permissions>>),
    /// What was brought would not do any more.
    Changed,
    /// The user is gone.
    Refused,
}

/// The rules in force.
#[derive(Debug, Default)]
struct Rules {
    users: HashMap<Box<str>, User>,
    token: Option<(Arc<Secret>, AccountName)>,
    no_auth_user: Option<Box<str>>,
    /// Stands in for the hash of users that do not exist; present when a user has a hash.
    decoy: Option<Arc<Secret>>,
    /// Some users sign.
    has_nkeys: bool,
    /// A service decides about users.
    callout: Option<Arc<CalloutOptions>>,
    /// The token needs a trusted proxy.
    proxy_required: bool,
    /// Keys of trusted proxies.
    proxies: Vec<Arc<str>>,
    /// What holds for clients over WebSocket, where that is something else.
    websocket: Option<Box<Self>>,
    /// Everyone has to log in, as a stored user where there is no other.
    is_closed: bool,
    /// Kinds of connection at whose listener certificates say who clients are.
    mapped: Vec<ConnectionType>,
}

/// Decides about logins. The rules can be replaced while the server runs.
#[derive(Debug)]
pub struct Authenticator {
    rules: ArcSwap<Rules>,
    directory: Arc<Directory>,
    verifier: Verifier,
    throttle: Arc<Throttle>,
}

impl Authenticator {
    /// The rules of these options, without stored users.
    #[must_use]
    pub fn new(options: &AuthOptions) -> Self {
        Self::with(options, Arc::default())
    }

    /// The rules of these options, and the users in `directory` beside those of the options.
    pub(crate) fn with(options: &AuthOptions, directory: Arc<Directory>) -> Self {
        directory.configure(options);
        Self {
            rules: ArcSwap::from_pointee(Rules::new(options)),
            directory,
            verifier: Verifier::default(),
            throttle: Arc::default(),
        }
    }

    /// Replaces the rules. Connections that are open are not looked at.
    pub fn replace(&self, options: &AuthOptions) {
        self.directory.configure(options);
        self.rules.store(Arc::new(Rules::new(options)));
    }

    /// The stored users.
    pub(crate) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Whether CONNECT must bring credentials.
    #[must_use]
    pub fn is_required(&self) -> bool {
        let rules = self.rules.load();
        rules.is_required() && rules.no_auth_user.is_none()
    }

    /// Whether any rule exists for such a connection, so that a login must be decided before
    /// anything else.
    #[must_use]
    pub(crate) fn has_rules(&self, connection: ConnectionType) -> bool {
        self.rules.load().of(connection).is_required()
    }

    /// What has become of someone who logged in as `user` under the rules `before`, going by
    /// everything but the password given.
    pub(crate) fn standing(
        &self,
        user: Option<&str>,
        connection: ConnectionType,
        before: &AuthOptions,
        after: &AuthOptions,
    ) -> Standing {
        let rules = self.rules.load();
        let rules = rules.of(connection);
        let is_websocket = connection == ConnectionType::WebSocket;
        let for_it =
            |options: &AuthOptions| is_websocket.then(|| options.for_websocket()).flatten();
        let (own_before, own_after) = (for_it(before), for_it(after));
        let before = own_before.as_ref().unwrap_or(before);
        let after = own_after.as_ref().unwrap_or(after);
        let Some(name) = user else {
            // It brought the token, if there was one, or nothing.
            let may_stay = !rules.is_required()
                || rules.no_auth_user.is_some()
                || (before.token.is_some() && before.token == after.token);
            return if may_stay {
                Standing::Same
            } else {
                Standing::Changed
            };
        };
        let was = before.users.iter().find(|was| was.user == name);
        match (was, rules.users.get(name)) {
            (Some(was), Some(now)) if was.is_same_as(&now.options) => {
                if was.permissions == now.options.permissions {
                    Standing::Same
                } else {
                    Standing::Permitted(now.login.permissions.clone())
                }
            }
            (_, Some(_)) => Standing::Changed,
            (_, None) => Standing::Refused,
        }
    }

    /// The login of a connection that brings nothing.
    pub(crate) fn anonymous(&self, connection: ConnectionType) -> Option<Login> {
        let rules = self.rules.load();
        rules
            .callout
            .is_none()
            .then(|| rules.of(connection).unasked(connection))?
    }

    /// Whether clients are given something to sign.
    pub(crate) fn needs_nonce(&self) -> bool {
        let rules = self.rules.load();
        rules.has_nkeys || !rules.proxies.is_empty()
    }

    /// Looks whether a proxy that is trusted signed the nonce.
    pub(crate) fn proxied(&self, connect: &Connect, nonce: &str) -> Proxied {
        let rules = self.rules.load();
        let signature = connect.proxy_sig.as_deref().unwrap_or_default();
        if signature.is_empty() || rules.proxies.is_empty() {
            return Proxied::No;
        }
        let mut keys = rules.proxies.iter();
        keys.find(|key| key::verify_nonce(key, nonce, signature).is_ok())
            .map_or(Proxied::ByOther, |key| Proxied::By(Arc::clone(key)))
    }

    /// Whether the proxy of this key is trusted.
    pub(crate) fn trusts(&self, proxy: &str) -> bool {
        let rules = self.rules.load();
        rules.proxies.iter().any(|key| **key == *proxy)
    }

    /// The service that decides, if one does.
    pub(crate) fn callout(&self) -> Option<Arc<CalloutOptions>> {
        self.rules.load().callout.clone()
    }

    /// Decides about what CONNECT brought.
    pub(crate) fn check(&self, attempt: &Attempt, now: Instant) -> Verdict {
        let rules = self.rules.load();
        let rules = rules.of(attempt.connection);
        let verdict = match self.check_stored(rules, attempt) {
            Some(verdict) => verdict,
            None => rules.check(attempt),
        };
        let Verdict::Pending(check) = verdict else {
            return verdict;
        };
        let user = attempt.connect.user.as_deref();
        if self.throttle.refuses_user(attempt.address, user, now) {
            return Verdict::Refused;
        }
        if self.verifier.knows(&check.secret, &check.given) {
            return check.login.map_or(Verdict::Refused, Verdict::Accepted);
        }
        if self.throttle.refuses_hashes(attempt.address, now) {
            return Verdict::Refused;
        }
        Verdict::Pending(check)
    }

    /// Decides about a login that says a stored user, or should.
    fn check_stored(&self, rules: &Rules, attempt: &Attempt) -> Option<Verdict> {
        let connect = &attempt.connect;
        let signs = connect.nkey.is_some() && rules.has_nkeys;
        if signs || attempt.certificate.is_some() || !self.directory.has_users() {
            return None;
        }
        let given = |text: &'_ Option<String>| {
            text.as_deref()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let (user, password) = (given(&connect.user), given(&connect.pass));
        let token = given(&connect.auth_token);
        // Users of the configuration come first.
        if user
            .as_deref()
            .is_some_and(|user| rules.find(user).is_some())
        {
            return None;
        }
        let password = password.as_deref();
        if password.is_some_and(|given| given.len() > password::MAX_BYTES) {
            return Some(Verdict::Refused);
        }
        let brings_proof = password.is_some() || token.is_some();
        if user.is_some() && !brings_proof {
            // As slow or as quick for every name: the time would tell who is stored.
            if rules.decoy.is_some() {
                return None;
            }
            if rules.is_required() {
                return Some(Verdict::Refused);
            }
        }
        match self
            .directory
            .find(user.as_deref(), password, token.as_deref())
        {
            Found::User(_) if !brings_proof => Some(Verdict::Refused),
            Found::Token(login) => Some(Verdict::Accepted(login)),
            Found::User(stored) => Some(Verdict::Pending(HashCheck {
                // Who has no password takes as long.
                login: stored.secret().map(|_| stored.by_password()),
                secret: stored
                    .secret()
                    .map_or_else(|| Arc::new(Secret::stored_decoy()), Arc::clone),
                given: password.unwrap_or_default().to_owned(),
            })),
            // Where nobody has to log in, a name is but a name.
            Found::Nobody if !rules.is_required() => None,
            Found::Nobody if user.is_some() && password.is_some() => {
                Some(Verdict::Pending(HashCheck {
                    secret: Arc::new(Secret::stored_decoy()),
                    given: password.unwrap_or_default().to_owned(),
                    login: None,
                }))
            }
            Found::Nobody => None,
        }
    }

    /// Checks a slow password, when its turn comes, and counts one that is wrong.
    pub(crate) async fn verify(&self, check: HashCheck, attempt: &Attempt) -> Verified {
        let (address, user) = (attempt.address, attempt.connect.user.clone());
        let Some(turn) = self.verifier.turn(address).await else {
            return Verified::Busy;
        };
        // Many from there may have been wrong meanwhile, or somebody right with the same password.
        let now = Instant::now();
        let is_right = if self.throttle.refuses_user(address, user.as_deref(), now) {
            false
        } else if self.verifier.knows(&check.secret, &check.given) {
            true
        } else if self.throttle.refuses_hashes(address, now) {
            false
        } else {
            let throttle = Arc::clone(&self.throttle);
            let wrong = move || throttle.failed(address, user.as_deref(), Instant::now());
            let HashCheck { secret, given, .. } = check;
            self.verifier.verify(turn, secret, given, wrong).await
        };
        let login = check.login.filter(|_| is_right);
        login.map_or(Verified::Refused, Verified::Accepted)
    }
}

impl UserOptions {
    /// Whether it is the same login, whatever it permits.
    fn is_same_as(&self, other: &Self) -> bool {
        self.password == other.password
            && self.is_nkey == other.is_nkey
            && self.account == other.account
            && self.connection_types == other.connection_types
            && self.proxy_required == other.proxy_required
    }
}

impl Rules {
    fn new(options: &AuthOptions) -> Self {
        let users: HashMap<Box<str>, User> = options
            .users
            .iter()
            .map(|user| (user.user.as_str().into(), User::new(user)))
            .collect();
        let token_account = options
            .token_account
            .as_deref()
            .map_or_else(AccountName::global, AccountName::from);
        let decoy = users
            .values()
            .any(|user| user.secret.as_ref().is_some_and(|secret| secret.is_slow()))
            .then(|| Arc::new(Secret::decoy()));
        Self {
            has_nkeys: users.values().any(|user| user.options.is_nkey),
            callout: options.callout.clone().map(Arc::new),
            users,
            token: options
                .token
                .as_deref()
                .map(|token| (Arc::new(Secret::new(token)), token_account)),
            no_auth_user: options.no_auth_user.as_deref().map(Into::into),
            decoy,
            proxy_required: options.proxy_required,
            proxies: options
                .trusted_proxies
                .iter()
                .map(|key| key.as_str().into())
                .collect(),
            websocket: options.for_websocket().map(|own| Box::new(Self::new(&own))),
            is_closed: options.is_closed,
            mapped: options.mapped.clone(),
        }
    }

    /// Those for connections of this kind.
    fn of(&self, connection: ConnectionType) -> &Self {
        match &self.websocket {
            Some(own) if connection == ConnectionType::WebSocket => own,
            _ => self,
        }
    }

    fn is_required(&self) -> bool {
        self.is_closed || !self.users.is_empty() || self.token.is_some() || self.callout.is_some()
    }

    /// Who someone is that begins without CONNECT. A user who signs has to say so.
    fn unasked(&self, connection: ConnectionType) -> Option<Login> {
        let login = self.anonymous(connection, false)?;
        let user = login.user.as_ref().and_then(|user| self.users.get(&**user));
        user.is_none_or(|user| !user.options.is_nkey)
            .then_some(login)
    }

    /// Who someone is that brings nothing.
    fn anonymous(&self, connection: ConnectionType, is_proxied: bool) -> Option<Login> {
        if !self.is_required() {
            return Some(Login {
                user: None,
                account: AccountName::global(),
                permissions: None,
                grant: None,
                stored: None,
            });
        }
        let user = self.find(self.no_auth_user.as_deref()?)?;
        // As in nats-server, where the hash would have to be the password.
        if user.secret.as_ref().is_some_and(|secret| secret.is_slow()) {
            return None;
        }
        let may = user.allows(connection) && (is_proxied || !user.options.proxy_required);
        may.then(|| user.login.clone())
    }

    fn check(&self, attempt: &Attempt) -> Verdict {
        let connect = &attempt.connect;
        let anonymous = || self.anonymous(attempt.connection, attempt.is_proxied);
        if !self.is_required() {
            return anonymous().map_or(Verdict::Refused, Verdict::Accepted);
        }
        if let Some(key) = connect.nkey.as_deref().filter(|_| self.has_nkeys) {
            return self.check_nkey(key, attempt);
        }
        if let Some(names) = &attempt.certificate {
            return self.check_certificate(names, attempt);
        }
        if let Some(name) = connect.user.as_deref().filter(|_| !self.users.is_empty()) {
            let given = connect.pass.as_deref().unwrap_or_default();
            return self.check_user(name, given, attempt);
        }
        if let (Some((secret, account)), Some(given)) = (&self.token, &connect.auth_token) {
            if self.proxy_required && !attempt.is_proxied {
                return Verdict::NeedsProxy;
            }
            return check_token(secret, account, given);
        }
        let brings_nothing =
            connect.user.is_none() && connect.pass.is_none() && connect.auth_token.is_none();
        match anonymous() {
            Some(login) if brings_nothing => Verdict::Accepted(login),
            _ => Verdict::Refused,
        }
    }

    /// The key must be known and have signed the nonce. That of `no_auth_user` need not sign.
    fn check_nkey(&self, key: &str, attempt: &Attempt) -> Verdict {
        let known = self.users.get(key).filter(|user| user.options.is_nkey);
        let Some(user) = known.filter(|user| user.allows(attempt.connection)) else {
            return Verdict::Refused;
        };
        if user.needs_proxy(attempt) {
            return Verdict::NeedsProxy;
        }
        let signature = attempt.connect.sig.as_deref().unwrap_or_default();
        let is_signed =
            !attempt.nonce.is_empty() && key::verify_nonce(key, &attempt.nonce, signature).is_ok();
        if is_signed || self.no_auth_user.as_deref() == Some(key) {
            Verdict::Accepted(user.login.clone())
        } else {
            Verdict::Refused
        }
    }

    fn check_user(&self, name: &str, given: &str, attempt: &Attempt) -> Verdict {
        let known = self
            .find(name)
            .filter(|user| user.allows(attempt.connection));
        if known.is_some_and(|user| user.needs_proxy(attempt)) {
            return Verdict::NeedsProxy;
        }
        let known = known.filter(|user| !self.needs_certificate(user));
        let known = known.and_then(|user| Some((user.secret.clone()?, user.login.clone())));
        let (secret, login) = match known {
            Some((secret, login)) => (secret, Some(login)),
            None => match &self.decoy {
                Some(decoy) => (Arc::clone(decoy), None),
                None => return Verdict::Refused,
            },
        };
        check_password(secret, given, login)
    }

    /// Whether only a certificate can be this user: it has no password, and some listener knows it
    /// by that. Its name alone, with a password as empty as its own, is nobody.
    fn needs_certificate(&self, user: &User) -> bool {
        let options = &user.options;
        options.password.is_empty()
            && self.no_auth_user.as_deref() != Some(options.user.as_str())
            && self.mapped.iter().any(|kind| user.allows(*kind))
    }

    /// The user of this name; else, as in Memphis, the name with the default account's id behind
    /// it, or without the id or name of its account that it ends in: `root` and `root$1` are one
    /// login.
    fn find(&self, name: &str) -> Option<&User> {
        if let Some(user) = self.users.get(name) {
            return Some(user);
        }
        if let Some(user) = self.users.get(format!("{name}$1").as_str()) {
            return Some(user);
        }
        let (bare, tenant) = name.rsplit_once('$')?;
        let user = self.users.get(bare)?;
        let account = user.login.account.as_str();
        let is_default = matches!(account, "$G" | menes_stations::user::DEFAULT_ACCOUNT);
        let is_its = (is_default && tenant == "1") || tenant == account;
        is_its.then_some(user)
    }
}

/// Whether the password is right; later, if it takes long to say.
fn check_password(secret: Arc<Secret>, given: &str, login: Option<Login>) -> Verdict {
    if given.len() > password::MAX_BYTES {
        return Verdict::Refused;
    }
    let check = HashCheck {
        secret,
        given: given.to_owned(),
        login,
    };
    if check.secret.is_slow() {
        return Verdict::Pending(check);
    }
    check.run().map_or(Verdict::Refused, Verdict::Accepted)
}

/// The token, or as plain clients of Memphis send it, `<user>::<token>`.
fn check_token(secret: &Arc<Secret>, account: &AccountName, given: &str) -> Verdict {
    if given.len() > password::MAX_BYTES {
        return Verdict::Refused;
    }
    let bare = given.split_once("::").map_or(given, |(_, token)| token);
    let login = Login {
        user: None,
        account: account.clone(),
        permissions: None,
        grant: None,
        stored: None,
    };
    if secret.is_slow() {
        let given = bare.to_owned();
        return Verdict::Pending(HashCheck {
            secret: Arc::clone(secret),
            given,
            login: Some(login),
        });
    }
    if secret.matches(given) | secret.matches(bare) {
        Verdict::Accepted(login)
    } else {
        Verdict::Refused
    }
}

impl User {
    fn new(options: &UserOptions) -> Self {
        let login = Login {
            user: Some(options.user.as_str().into()),
            account: options
                .account
                .as_deref()
                .map_or_else(AccountName::global, AccountName::from),
            permissions: options
                .permissions
                .as_ref()
                .map(|p| Arc::new(Permissions::new(p))),
            grant: None,
            stored: None,
        };
        Self {
            secret: (!options.is_nkey).then(|| Arc::new(Secret::new(&options.password))),
            login,
            options: options.clone(),
        }
    }

    fn needs_proxy(&self, attempt: &Attempt) -> bool {
        self.options.proxy_required && !attempt.is_proxied
    }

    fn allows(&self, connection: ConnectionType) -> bool {
        let types = &self.options.connection_types;
        types.is_empty() || types.contains(&connection)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::options::ListenerAuthOptions;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn user(name: &str, password: &str) -> UserOptions {
        UserOptions {
            user: name.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        }
    }

    const NONCE: &str = "nonce";

    fn attempt(connect: Connect, address: IpAddr) -> Attempt {
        Attempt {
            certificate: None,
            tls: None,
            connect: Arc::new(connect),
            nonce: NONCE.into(),
            address,
            cid: 1,
            who: String::new(),
            connection: ConnectionType::Standard,
            is_proxied: false,
        }
    }

    fn login(rules: &Authenticator, json: &str) -> Option<String> {
        let connect = Connect::parse(json.as_bytes()).expect("valid JSON");
        let login = match rules.check(&attempt(connect, HOME), Instant::now()) {
            Verdict::Accepted(login) => Some(login),
            Verdict::Refused | Verdict::NeedsProxy => None,
            Verdict::Pending(check) => check.run(),
        };
        login.map(|login| login.user.as_deref().unwrap_or("nobody").to_owned())
    }

    #[test]
    fn nothing_configured_lets_everyone_in() {
        let rules = Authenticator::new(&AuthOptions::default());
        assert!(!rules.is_required());
        assert_eq!(login(&rules, "{}").as_deref(), Some("nobody"));
        assert_eq!(
            login(&rules, r#"{"user":"a","pass":"b"}"#).as_deref(),
            Some("nobody")
        );
    }

    #[test]
    fn a_user_needs_the_right_password() {
        let users = vec![user("ada", "secret"), user("bob", "s2")];
        let rules = Authenticator::new(&AuthOptions {
            users,
            ..Default::default()
        });
        assert!(rules.is_required());
        assert_eq!(
            login(&rules, r#"{"user":"ada","pass":"secret"}"#).as_deref(),
            Some("ada")
        );
        for wrong in [
            r#"{"user":"ada","pass":"s2"}"#,
            r#"{"user":"ada"}"#,
            r#"{"user":"eve","pass":"secret"}"#,
            r#"{"auth_token":"secret"}"#,
            "{}",
        ] {
            assert_eq!(login(&rules, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_user_without_a_password_needs_its_certificate_where_some_listener_maps_it() {
        use ConnectionType::{Standard, WebSocket};
        let of = |name: &str, types: &[ConnectionType]| UserOptions {
            connection_types: types.to_vec(),
            ..user(name, "")
        };
        let rules = |mapped: &[ConnectionType], more: Vec<UserOptions>| {
            let users = vec![
                of("any", &[]),
                of("plain", &[Standard]),
                of("both", &[Standard, WebSocket]),
                of("guest", &[]),
                user("ada", "p"),
            ];
            Authenticator::new(&AuthOptions {
                users: users.into_iter().chain(more).collect(),
                no_auth_user: Some("guest".to_owned()),
                mapped: mapped.to_vec(),
                ..Default::default()
            })
        };
        let by_name = |rules: &Authenticator, name: &str| {
            login(rules, &format!(r#"{{"user":"{name}"}}"#)).is_some()
        };
        let nothing_maps = rules(&[], vec![]);
        for name in ["any", "plain", "both", "guest"] {
            assert!(by_name(&nothing_maps, name), "{name}");
        }
        let websocket_maps = rules(&[WebSocket], vec![]);
        for (name, is_in) in [
            ("any", false),
            ("any$1", false),
            ("plain", true),
            ("both", false),
            ("guest", true),
            ("ada", false),
        ] {
            assert_eq!(by_name(&websocket_maps, name), is_in, "{name}");
        }
        assert!(login(&websocket_maps, r#"{"user":"ada","pass":"p"}"#).is_some());
        assert!(!by_name(&rules(&[Standard], vec![]), "plain"));
        // As slow as one that nobody knows.
        let hash = bcrypt::hash("p", 4).expect("a cost in range");
        let hashed = rules(&[WebSocket], vec![user("eve", &hash)]);
        for name in ["any", "nobody-knows"] {
            let connect = Connect {
                user: Some(name.to_owned()),
                ..Connect::default()
            };
            let Verdict::Pending(check) = hashed.check(&attempt(connect, HOME), Instant::now())
            else {
                panic!("{name} is decided at once");
            };
            assert!(check.run().is_none(), "{name}");
        }
    }

    #[test]
    fn root_and_root_1_are_one_login() {
        let rules = |name| {
            Authenticator::new(&AuthOptions {
                users: vec![user(name, "p")],
                ..Default::default()
            })
        };
        for configured in ["root", "root$1"] {
            let rules = rules(configured);
            for given in ["root", "root$1"] {
                let json = format!(r#"{{"user":"{given}","pass":"p"}}"#);
                assert_eq!(login(&rules, &json).as_deref(), Some(configured), "{given}");
            }
            assert_eq!(login(&rules, r#"{"user":"root$x","pass":"p"}"#), None);
            assert_eq!(login(&rules, r#"{"user":"$1","pass":"p"}"#), None);
        }
    }

    #[test]
    fn a_token_is_accepted_bare_and_behind_a_user() {
        let token = Some("tok".to_owned());
        let rules = Authenticator::new(&AuthOptions {
            token,
            ..Default::default()
        });
        assert!(login(&rules, r#"{"auth_token":"tok"}"#).is_some());
        assert!(login(&rules, r#"{"auth_token":"root::tok"}"#).is_some());
        assert!(login(&rules, r#"{"auth_token":"root::"}"#).is_none());
        assert!(login(&rules, r#"{"auth_token":"x"}"#).is_none());
        assert!(login(&rules, "{}").is_none());
    }

    #[test]
    fn no_auth_user_is_for_those_who_bring_nothing() {
        let rules = Authenticator::new(&AuthOptions {
            users: vec![user("guest", "g"), user("ada", "a")],
            no_auth_user: Some("guest".to_owned()),
            ..Default::default()
        });
        assert!(!rules.is_required());
        assert_eq!(login(&rules, "{}").as_deref(), Some("guest"));
        assert_eq!(login(&rules, r#"{"user":"ada","pass":"x"}"#), None);
        assert_eq!(
            login(&rules, r#"{"user":"ada","pass":"a"}"#).as_deref(),
            Some("ada")
        );
    }

    #[test]
    fn unknown_users_cost_as_much_as_known_ones() {
        let hash = bcrypt::hash("p", 4).expect("a cost in range");
        let rules = Authenticator::new(&AuthOptions {
            users: vec![user("ada", &hash)],
            ..Default::default()
        });
        let connect = |user| Connect {
            user: Some(user),
            pass: Some("p".into()),
            ..Connect::default()
        };
        for name in ["ada", "eve"] {
            let verdict = rules.check(&attempt(connect(name.to_owned()), HOME), Instant::now());
            assert!(matches!(verdict, Verdict::Pending(_)), "{name}");
        }
        assert_eq!(
            login(&rules, r#"{"user":"ada","pass":"p"}"#).as_deref(),
            Some("ada")
        );
    }

    #[test]
    fn guessing_is_refused_before_hashing() {
        let hash = bcrypt::hash("p", 4).expect("a cost in range");
        let rules = Authenticator::new(&AuthOptions {
            users: vec![user("ada", &hash)],
            ..Default::default()
        });
        let connect = |address| {
            let connect = Connect {
                user: Some("ada".into()),
                ..Connect::default()
            };
            attempt(connect, address)
        };
        let now = Instant::now();
        for _ in 0..throttle::MAX_FAILURES {
            assert!(matches!(
                rules.check(&connect(HOME), now),
                Verdict::Pending(_)
            ));
            rules.throttle.failed(HOME, Some("ada"), now);
        }
        assert!(matches!(rules.check(&connect(HOME), now), Verdict::Refused));
        assert!(matches!(
            rules.check(&connect(HOME), now + throttle::WINDOW),
            Verdict::Pending(_)
        ));
        let elsewhere = IpAddr::from([10, 0, 0, 1]);
        assert!(matches!(
            rules.check(&connect(elsewhere), now),
            Verdict::Pending(_)
        ));
    }

    #[tokio::test]
    async fn guesses_that_wait_together_are_refused_once_enough_were_wrong() {
        let hash = bcrypt::hash("p", 4).expect("a cost in range");
        let rules = Arc::new(Authenticator::new(&AuthOptions {
            users: vec![user("ada", &hash), user("eve", &hash)],
            ..Default::default()
        }));
        let begin = |user: &str, password: String| {
            let connect = Connect {
                user: Some(user.to_owned()),
                pass: Some(password),
                ..Connect::default()
            };
            let attempt = attempt(connect, HOME);
            match rules.check(&attempt, Instant::now()) {
                Verdict::Pending(check) => (check, attempt),
                other => panic!("nothing has failed yet: {other:?}"),
            }
        };
        let mut guesses: Vec<_> = (0..200).map(|n| begin("ada", n.to_string())).collect();
        guesses.push(begin("ada", "p".to_owned()));
        let (check, mut elsewhere) = begin("eve", "p".to_owned());
        elsewhere.address = IpAddr::from([192, 0, 2, 1]);
        let mut running = JoinSet::new();
        for (check, attempt) in guesses {
            let rules = Arc::clone(&rules);
            running.spawn(async move { rules.verify(check, &attempt).await });
        }
        let outcomes = running.join_all().await;
        let is_refused = |outcome: &Verified| matches!(outcome, Verified::Refused);
        assert!(outcomes.iter().all(is_refused), "the right one came late");
        let hashed = rules.throttle.failures(HOME, None, Instant::now());
        let at_a_time = std::thread::available_parallelism().map_or(1, usize::from);
        let most = throttle::MAX_FAILURES + u32::try_from(at_a_time).expect("few");
        assert!(
            (throttle::MAX_FAILURES..=most).contains(&hashed),
            "{hashed}"
        );
        let outcome = rules.verify(check, &elsewhere).await;
        assert!(matches!(outcome, Verified::Accepted(_)));
    }

    #[tokio::test]
    async fn many_who_are_right_at_the_same_time_are_let_in() {
        let hash = || bcrypt::hash("p", 4).expect("a cost in range");
        let users = (0..50).map(|n| user(&format!("u{n}"), &hash())).collect();
        let rules = Arc::new(Authenticator::new(&AuthOptions {
            users,
            ..Default::default()
        }));
        let mut running = JoinSet::new();
        for n in 0..50 {
            let connect = Connect {
                user: Some(format!("u{n}")),
                pass: Some("p".to_owned()),
                ..Connect::default()
            };
            let attempt = attempt(connect, HOME);
            let Verdict::Pending(check) = rules.check(&attempt, Instant::now()) else {
                panic!("a hash to check");
            };
            let rules = Arc::clone(&rules);
            running.spawn(async move { rules.verify(check, &attempt).await });
        }
        let outcomes = running.join_all().await;
        let is_in = |outcome: &Verified| matches!(outcome, Verified::Accepted(_));
        assert!(outcomes.iter().all(is_in));
    }

    #[test]
    fn a_key_must_have_signed_the_nonce() {
        let pair = key::Signer::generate(key::KeyKind::User);
        let other = key::Signer::generate(key::KeyKind::User);
        let users = vec![UserOptions {
            is_nkey: true,
            ..user(pair.public_key(), "")
        }];
        let rules = Authenticator::new(&AuthOptions {
            users,
            ..Default::default()
        });
        assert!(rules.is_required() && rules.needs_nonce());
        let connect = |key: &str, signature: &str| {
            let json = format!(r#"{{"nkey":"{key}","sig":"{signature}"}}"#);
            login(&rules, &json)
        };
        let own = pair.public_key();
        assert_eq!(connect(own, &pair.sign_nonce(NONCE)).as_deref(), Some(own));
        assert_eq!(connect(own, &pair.sign_nonce("another")), None);
        assert_eq!(connect(own, &other.sign_nonce(NONCE)), None);
        assert_eq!(connect(other.public_key(), &other.sign_nonce(NONCE)), None);
        assert_eq!(connect(own, ""), None);
        // A key is no password.
        assert_eq!(
            login(&rules, &format!(r#"{{"user":"{own}","pass":""}}"#)),
            None
        );
    }

    #[test]
    fn websocket_may_have_a_user_and_a_token_of_its_own() {
        let single = |name| UserOptions {
            is_single: true,
            ..user(name, "p")
        };
        let options = AuthOptions {
            users: vec![single("ada")],
            websocket: Some(ListenerAuthOptions {
                user: Some(single("web")),
                ..ListenerAuthOptions::default()
            }),
            ..AuthOptions::default()
        };
        let rules = Authenticator::new(&options);
        let is_let_in = |name: &str, connection| {
            let json = format!(r#"{{"user":"{name}","pass":"p"}}"#);
            let connect = Connect::parse(json.as_bytes()).expect("valid");
            let attempt = Attempt {
                connection,
                ..attempt(connect, HOME)
            };
            let verdict = rules.check(&attempt, Instant::now());
            matches!(verdict, Verdict::Accepted(_))
        };
        use ConnectionType::{Standard, WebSocket};
        assert!(is_let_in("ada", Standard) && is_let_in("web", WebSocket));
        assert!(!is_let_in("web", Standard) && !is_let_in("ada", WebSocket));
        let standing = |connection| rules.standing(Some("web"), connection, &options, &options);
        assert!(matches!(standing(WebSocket), Standing::Same));
        assert!(matches!(standing(Standard), Standing::Refused));
    }

    #[test]
    fn who_brought_a_token_stays_while_it_is_the_token() {
        let with = |token: Option<&str>| AuthOptions {
            token: token.map(str::to_owned),
            ..AuthOptions::default()
        };
        let stays = |before: Option<&str>, after: Option<&str>| {
            let (before, after) = (with(before), with(after));
            let rules = Authenticator::new(&after);
            let standing = rules.standing(None, ConnectionType::Standard, &before, &after);
            matches!(standing, Standing::Same)
        };
        assert!(stays(Some("a"), Some("a")));
        assert!(!stays(Some("a"), Some("b")));
        // Nobody has to bring anything any more, or now everybody has to.
        assert!(stays(Some("a"), None));
        assert!(stays(None, None));
        assert!(!stays(None, Some("a")));
    }

    #[test]
    fn a_user_may_need_a_proxy_that_signs() {
        let (proxy, other) = (
            key::Signer::generate(key::KeyKind::User),
            key::Signer::generate(key::KeyKind::User),
        );
        let rules = Authenticator::new(&AuthOptions {
            users: vec![UserOptions {
                proxy_required: true,
                ..user("ada", "p")
            }],
            trusted_proxies: vec![proxy.public_key().to_owned()],
            ..Default::default()
        });
        let connect = |signature: String| Connect {
            user: Some("ada".to_owned()),
            pass: Some("p".to_owned()),
            proxy_sig: Some(signature),
            ..Connect::default()
        };
        assert!(rules.needs_nonce());
        let proxied = |signature: &str| rules.proxied(&connect(signature.to_owned()), NONCE);
        assert!(matches!(proxied(""), Proxied::No));
        assert!(matches!(proxied("x"), Proxied::ByOther));
        let signed = other.sign_nonce(NONCE);
        assert!(matches!(proxied(&signed), Proxied::ByOther));
        let signed = proxy.sign_nonce(NONCE);
        assert!(matches!(proxied(&signed), Proxied::By(key) if *key == *proxy.public_key()));
        let mut attempt = attempt(connect(signed), HOME);
        let verdict = rules.check(&attempt, Instant::now());
        assert!(matches!(verdict, Verdict::NeedsProxy));
        attempt.is_proxied = true;
        let verdict = rules.check(&attempt, Instant::now());
        assert!(matches!(verdict, Verdict::Accepted(_)));
    }

    #[test]
    fn a_user_may_be_kept_to_some_ways_of_connecting() {
        let users = vec![UserOptions {
            connection_types: vec![ConnectionType::WebSocket],
            ..user("ada", "p")
        }];
        let rules = Authenticator::new(&AuthOptions {
            users,
            ..Default::default()
        });
        let connect = Connect::parse(br#"{"user":"ada","pass":"p"}"#).expect("valid");
        let mut attempt = attempt(connect, HOME);
        let verdict = rules.check(&attempt, Instant::now());
        assert!(matches!(verdict, Verdict::Refused));
        attempt.connection = ConnectionType::WebSocket;
        let verdict = rules.check(&attempt, Instant::now());
        assert!(matches!(verdict, Verdict::Accepted(_)));
    }
}
