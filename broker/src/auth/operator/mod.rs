//! Operator mode: accounts and users are what tokens say.
//!
//! An account comes into being when its token is first needed, with the accounts it imports from.
//! From then on the token in force is kept here; a newer one, brought by an update, takes its place
//! and what it changes happens to the connections there are.
//!
//! # Invariants
//!
//! 1. Only tokens signed by a trusted key are ever in force.
//! 2. A token in force is replaced by one that is valid, or not at all.

mod directory;
mod services;
mod translate;
mod url;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use menes_auth::admission::{
    AccountError, Admission, Denied, Facts, Trust, TrustedAccount, UserToken,
};
use menes_auth::token;
use menes_jetstream::ids::AccountName;
use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::Notify;

use self::directory::{Directory, DirectoryError};
use self::url::UrlResolver;
use super::callout::{self, Scheme};
use super::gate::{Decision, Deferred, Outcome, REFUSED};
use super::permissions::Permissions;
use super::{Attempt, Grant, Login};
use crate::account::Accounts;
use crate::config::options::{OperatorOptions, ResolverOptions};
use crate::connection::client::Client;
use crate::error::CloseReason;
use crate::server::{Shared, log_refusals};
use crate::streams::ingest::LimitChange;
use crate::tls::TlsError;

pub(crate) use self::services::start;
pub(crate) use self::translate::permission_options;

/// Accounts that one account can bring along by its imports, and theirs.
const MAX_TOGETHER: usize = 1024;
/// Time for everything that is needed to find an account.
const FETCH_TIMEOUT: Duration = Duration::from_millis(1900);

/// Why operator mode cannot begin.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The folder of tokens cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A preloaded token cannot be read.
    #[error("preload account error for {account:?}: {error}")]
    Preload {
        /// Its key.
        account: String,
        /// What is wrong.
        error: String,
    },
    /// Nobody answers where accounts are found.
    #[error("{0}")]
    Unreachable(String),
    /// TLS towards where accounts are found cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Where accounts are found takes no preloaded ones.
    #[error("resolver preloads only available for writeable resolver types MEM/DIR/CACHE_DIR")]
    ReadOnly,
}

/// Where account tokens are found.
#[derive(Debug)]
enum Resolver {
    Memory(Mutex<BTreeMap<String, String>>),
    Directory(Directory),
    Url(UrlResolver),
}

impl Resolver {
    /// The token of an account, if there is one.
    async fn fetch(&self, account: &str) -> Result<Option<String>, String> {
        match self {
            Self::Memory(tokens) => Ok(tokens.lock().get(account).cloned()),
            Self::Directory(directory) => directory.load(account).map_err(|e| e.to_string()),
            Self::Url(url) => url.fetch(account).await,
        }
    }
}

/// Looks whether there is a place for preloaded tokens, and whether they can be read.
///
/// # Errors
/// [`OperatorError::ReadOnly`] and [`OperatorError::Preload`].
pub(crate) fn check_preload(options: &OperatorOptions) -> Result<(), OperatorError> {
    if matches!(options.resolver, ResolverOptions::Url(_)) && !options.preload.is_empty() {
        return Err(OperatorError::ReadOnly);
    }
    for (account, token) in &options.preload {
        token::decode_account(token).map_err(|error| preload_error(account, &error))?;
    }
    Ok(())
}

fn preload_error(account: &str, error: &dyn std::fmt::Display) -> OperatorError {
    OperatorError::Preload {
        account: account.to_owned(),
        error: error.to_string(),
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Operator {
    trust: Trust,
    resolver: Resolver,
    pinned: Option<BTreeSet<String>>,
    sentinel: Option<String>,
    system_account: Option<String>,
    local_zone: TimeZone,
    /// Tokens in force.
    accounts: RwLock<HashMap<String, Arc<TrustedAccount>>>,
    /// When tokens that activate an import run out, and whose import it is.
    activations: Mutex<BTreeSet<(i64, String)>>,
    /// One change at a time.
    changing: Mutex<()>,
    /// A token was put in force: it may be the next to expire.
    installed: Notify,
}

impl Operator {
    /// Opens where accounts are found, and puts the preloaded ones there.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub(crate) fn open(options: &OperatorOptions) -> Result<Self, OperatorError> {
        check_preload(options)?;
        let resolver = match &options.resolver {
            ResolverOptions::Memory => Resolver::Memory(Mutex::new(options.preload.clone())),
            ResolverOptions::Url(url) => {
                let resolver = UrlResolver::new(url, options.resolver_tls.as_ref())?;
                resolver.check().map_err(OperatorError::Unreachable)?;
                Resolver::Url(resolver)
            }
            ResolverOptions::Full {
                folder,
                delete,
                limit,
            } => Resolver::Directory(Directory::full(folder, *delete, *limit)?),
            ResolverOptions::Cache { folder, ttl, limit } => {
                Resolver::Directory(Directory::cache(folder, *ttl, *limit)?)
            }
        };
        if let Resolver::Directory(directory) = &resolver {
            for (account, token) in &options.preload {
                directory
                    .save_if_newer(account, token)
                    .map_err(|error| preload_error(account, &error))?;
            }
        }
        let mut pinned = options.pinned_accounts.clone();
        if let (Some(pinned), Some(system)) = (&mut pinned, &options.system_account) {
            pinned.insert(system.clone());
        }
        Ok(Self {
            trust: options.trust.clone(),
            resolver,
            pinned,
            sentinel: options.default_sentinel.clone(),
            system_account: options.system_account.clone(),
            local_zone: TimeZone::system(),
            accounts: RwLock::default(),
            activations: Mutex::default(),
            changing: Mutex::default(),
            installed: Notify::new(),
        })
    }

    /// Has the accounts of a server ask here about activation tokens.
    pub(crate) fn serve(self: &Arc<Self>, accounts: &Accounts) {
        let check = translate::Activations(Arc::downgrade(self));
        accounts.set_activation_check(Arc::new(check));
    }

    /// Who signs accounts.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The token in force of an account.
    pub(crate) fn loaded(&self, account: &str) -> Option<Arc<TrustedAccount>> {
        self.accounts.read().get(account).cloned()
    }

    /// Decides about a login, or begins to.
    pub(crate) fn decide(self: &Arc<Self>, shared: &Arc<Shared>, attempt: Attempt) -> Outcome {
        let (text, user) = match self.user_token(&attempt) {
            Ok(user) => user,
            Err(denied) => return Outcome::Refused(refuse(&attempt, &denied)),
        };
        if let Some(account) = self.loaded(user.account())
            && !account.is_expired(now())
            && !account.claims().nats.authorization.is_enabled()
        {
            return match self.admit(&account, user, &text, &attempt) {
                Ok(login) => Outcome::Accepted(login),
                Err(denied) => Outcome::Refused(refuse(&attempt, &denied)),
            };
        }
        let (operator, shared) = (Arc::clone(self), Arc::clone(shared));
        Outcome::Later(Deferred::new(async move {
            operator.decide_later(&shared, user, text, attempt).await
        }))
    }

    async fn decide_later(
        self: Arc<Self>,
        shared: &Arc<Shared>,
        user: UserToken,
        text: String,
        attempt: Attempt,
    ) -> Decision {
        let Some(account) = self.find(shared, user.account()).await else {
            let denied = Denied::Account("account missing".to_owned());
            return Err(refuse(&attempt, &denied));
        };
        let login = match self.admit(&account, user, &text, &attempt) {
            Ok(login) => login,
            Err(denied) => return Err(refuse(&attempt, &denied)),
        };
        let rules = &account.claims().nats.authorization;
        if !rules.is_enabled() {
            return Ok(login);
        }
        let grant = login.grant.as_ref();
        if grant.is_some_and(|grant| rules.auth_users.contains(&grant.admission.user)) {
            return Ok(callout::without_requests(login, account.key()));
        }
        callout::ask(shared, &attempt, Scheme::Operator(self, account)).await
    }

    /// The token of the user: the one in CONNECT, or the one for those who bring none.
    fn user_token(&self, attempt: &Attempt) -> Result<(String, UserToken), Denied> {
        let given = attempt.connect.jwt.as_deref();
        let text = given
            .filter(|text| token::decode_user(text).is_ok())
            .or(self.sentinel.as_deref())
            .or(given)
            .ok_or(Denied::NoToken)?;
        let user = UserToken::open(text, attempt.is_proxied, Timestamp::now())?;
        let account = user.account();
        if let Some(pinned) = &self.pinned
            && !pinned.contains(account)
        {
            return Err(Denied::NotPinned(account.to_owned()));
        }
        Ok((text.to_owned(), user))
    }

    fn admit(
        &self,
        account: &TrustedAccount,
        user: UserToken,
        text: &str,
        attempt: &Attempt,
    ) -> Result<Login, Denied> {
        let issuer = user.claims().common.issuer.clone();
        let facts = Facts {
            address: attempt.address,
            connection: attempt.connection,
            nonce: &attempt.nonce,
            signature: attempt.connect.sig.as_deref(),
            is_proxied: attempt.is_proxied,
            now: Timestamp::now(),
            local_zone: &self.local_zone,
        };
        let admission = user.admit(account, &facts)?;
        Ok(login_of(admission, issuer, text))
    }

    /// The token in force of an account; brings the account into being, and those it imports from.
    pub(crate) async fn find(
        &self,
        shared: &Arc<Shared>,
        account: &str,
    ) -> Option<Arc<TrustedAccount>> {
        if let Some(found) = self
            .loaded(account)
            .filter(|found| !found.is_expired(now()))
        {
            return Some(found);
        }
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch_together(account)).await;
        let Ok(fetched) = fetched else {
            tracing::warn!("Account fetch failed: {account} took more than {FETCH_TIMEOUT:?}");
            return None;
        };
        self.install(shared, fetched);
        self.loaded(account)
            .filter(|found| !found.is_expired(now()))
    }

    /// Fetches an account and those it imports from, where they are not in force already.
    async fn fetch_together(&self, first: &str) -> Vec<TrustedAccount> {
        let mut fetched = Vec::new();
        let mut seen = BTreeSet::from([first.to_owned()]);
        let mut wanted = vec![first.to_owned()];
        while let Some(name) = wanted.pop() {
            let account = match self.fetch(&name).await {
                Ok(account) => account,
                Err(error) => {
                    tracing::warn!("Account fetch failed: {error}");
                    continue;
                }
            };
            for import in &account.claims().nats.imports {
                if seen.len() < MAX_TOGETHER
                    && self.loaded(&import.account).is_none()
                    && seen.insert(import.account.clone())
                {
                    wanted.push(import.account.clone());
                }
            }
            fetched.push(account);
        }
        fetched
    }

    async fn fetch(&self, account: &str) -> Result<TrustedAccount, String> {
        let token = self.resolver.fetch(account).await?;
        let token = token.ok_or_else(|| format!("account {account} is missing"))?;
        TrustedAccount::open_of(account, &token, &self.trust, now())
            .map_err(|error| error.to_string())
    }

    /// Puts tokens in force, and does what they change to the connections there are.
    pub(crate) fn install(&self, shared: &Arc<Shared>, fetched: Vec<TrustedAccount>) {
        let _one_at_a_time = self.changing.lock();
        let mut changed = Vec::new();
        for account in fetched {
            let account = Arc::new(account);
            let key = account.key().to_owned();
            let before = self.accounts.write().insert(key, Arc::clone(&account));
            if before
                .as_ref()
                .is_none_or(|before| before.token() != account.token())
            {
                changed.push((before, account));
            }
        }
        let descriptions = changed
            .iter()
            .map(|(_, account)| translate::description(account));
        log_refusals(&shared.accounts().describe(descriptions));
        for (_, account) in &changed {
            self.note_activations(account);
            if let Some(engine) = shared.ingest() {
                let name = AccountName::from(account.key());
                engine.change_limits(LimitChange::Account(
                    shared.accounts().get_or_create(&name),
                    translate::jetstream_limits(&account.claims().nats.limits),
                ));
            }
        }
        for (before, account) in &changed {
            if let Some(before) = before {
                apply_to_connections(shared, before, account);
            }
        }
        let replaced = changed.iter().filter(|(before, _)| before.is_some());
        let replaced = replaced.map(|(_, account)| AccountName::from(account.key()));
        let replaced = replaced.map(|name| shared.accounts().get_or_create(&name));
        shared.hold_to_limits(replaced);
        self.installed.notify_one();
    }

    /// Puts the token of an account in force, if it is newer than none: when it is in use.
    ///
    /// # Errors
    /// A token that is not one of a trusted account, or of another.
    pub(crate) fn update(
        &self,
        shared: &Arc<Shared>,
        account: &str,
        token: &str,
    ) -> Result<(), AccountError> {
        let account = TrustedAccount::open_of(account, token, &self.trust, now())?;
        if self.loaded(account.key()).is_some() {
            self.install(shared, vec![account]);
        }
        Ok(())
    }

    /// Puts other preloaded tokens where accounts are found, and in force where accounts are in
    /// use. Who is not among them any more is gone, if there is nowhere else to find it.
    pub(crate) fn preload_again(&self, shared: &Arc<Shared>, tokens: BTreeMap<String, String>) {
        if let Resolver::Directory(directory) = &self.resolver {
            let kept = tokens.into_iter().filter_map(|(account, token)| {
                let saved = directory.save_if_newer(&account, &token).map(drop);
                match saved.and_then(|()| directory.load(&account)) {
                    Ok(token) => Some((account, token?)),
                    Err(error) => {
                        tracing::error!("preload account error for {account:?}: {error}");
                        None
                    }
                }
            });
            return self.take_over(shared, &kept.collect());
        }
        if let Resolver::Memory(known) = &self.resolver {
            known.lock().clone_from(&tokens);
            let in_use: Vec<String> = self.accounts.read().keys().cloned().collect();
            for account in in_use.iter().filter(|key| !tokens.contains_key(*key)) {
                tracing::info!("Reloaded: deleting account [removed]: {account:?}");
                self.forget(shared, account);
            }
            self.take_over(shared, &tokens);
        }
    }

    /// Puts these tokens in force where their accounts are in use.
    fn take_over(&self, shared: &Arc<Shared>, tokens: &BTreeMap<String, String>) {
        for (account, token) in tokens {
            let is_newer = |loaded: Arc<TrustedAccount>| loaded.token() != token.as_str();
            if self.loaded(account).is_some_and(is_newer)
                && let Err(error) = self.update(shared, account, token)
            {
                tracing::error!("Reloaded: account {account:?} stays as it was: {error}");
            }
        }
    }

    /// An account is gone: nobody may be in it.
    fn forget(&self, shared: &Arc<Shared>, account: &str) {
        let _one_at_a_time = self.changing.lock();
        if self.accounts.write().remove(account).is_some() {
            self.forget_activations(account);
            for client in clients_of(shared, account) {
                client.expire_account();
            }
        }
    }

    fn forget_activations(&self, account: &str) {
        self.activations
            .lock()
            .retain(|(_, whose)| whose != account);
    }

    /// Notes when the imports of an account end that somebody activated for a time, in place of
    /// what was noted of its token before.
    fn note_activations(&self, account: &TrustedAccount) {
        let imports = account.claims().nats.imports.iter();
        let ends = imports.filter_map(|import| {
            let activation = token::decode_activation(&import.token).ok()?;
            (activation.common.expires != 0).then_some(activation.common.expires)
        });
        let ends = ends.map(|end| (end, account.key().to_owned()));
        self.forget_activations(account.key());
        self.activations.lock().extend(ends);
    }

    /// Ends imports whose activation has run out. Gives the time of the next to run out.
    fn expire_activations(&self, shared: &Arc<Shared>, now: i64) -> Option<i64> {
        let mut touched = BTreeSet::new();
        let next = loop {
            let mut activations = self.activations.lock();
            match activations.pop_first() {
                Some((end, account)) if end < now => touched.insert(account),
                Some(first) => {
                    // It still holds in the second in which it ends.
                    let next = first.0.saturating_add(1);
                    activations.insert(first);
                    break Some(next);
                }
                None => break None,
            };
        };
        let _one_at_a_time = self.changing.lock();
        for account in touched.iter().filter_map(|account| self.loaded(account)) {
            tracing::info!("An activation of account {:?} has expired", account.key());
            let description = translate::description(&account);
            log_refusals(&shared.accounts().describe([description]));
        }
        next
    }

    /// Closes connections of accounts that have expired, and ends what was shared for a time. Gives
    /// the time of the next to expire.
    fn expire(&self, shared: &Arc<Shared>) -> Option<i64> {
        let now = now();
        let mut next = self.expire_activations(shared, now);
        let accounts: Vec<_> = self.accounts.read().values().cloned().collect();
        for account in accounts {
            let expires = account.claims().common.expires;
            if account.is_expired(now) {
                for client in clients_of(shared, account.key()) {
                    client.expire_account();
                }
            } else if expires != 0 {
                next = Some(next.map_or(expires, |next: i64| next.min(expires)));
            }
        }
        next
    }
}

/// Unix seconds.
fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Logs why, and gives what is noted of the connection.
fn refuse(attempt: &Attempt, denied: &Denied) -> CloseReason {
    match denied {
        Denied::Source(_) | Denied::Times => {
            tracing::error!("{} - {denied}", attempt.who);
        }
        _ => tracing::debug!("{} - {denied}", attempt.who),
    }
    match denied {
        Denied::ProxyRequired => CloseReason::ProxyRequired,
        _ => REFUSED,
    }
}

fn login_of(admission: Admission, issuer: String, text: &str) -> Login {
    let options = permission_options(&admission.permissions);
    Login {
        stored: None,
        user: Some(admission.user.as_str().into()),
        account: AccountName::from(admission.account.as_str()),
        permissions: options.map(|options| Arc::new(Permissions::new(&options))),
        grant: Some(Arc::new(Grant {
            admission,
            token: Some(text.to_owned()),
            issuer,
        })),
    }
}

fn clients_of(shared: &Shared, account: &str) -> Vec<Arc<Client>> {
    let is_of = |client: &Arc<Client>| {
        let identity = client.identity();
        let bound = identity.account.as_ref();
        bound.is_some_and(|bound| bound.name().as_str() == account)
    };
    shared.clients().into_iter().filter(is_of).collect()
}

/// Ends the connections that the new token of their account does not allow.
fn apply_to_connections(shared: &Shared, before: &TrustedAccount, account: &TrustedAccount) {
    for client in clients_of(shared, account.key()) {
        let identity = client.identity();
        let Some(grant) = &identity.grant else {
            continue;
        };
        let user = &grant.admission;
        if account.has_revoked(&user.user, user.issued_at) {
            client.revoke();
        } else if user.is_bearer && account.claims().nats.limits.disallow_bearer {
            client.violate();
        } else if let Some(key) = &user.signing_key
            && account.signer(key) != before.signer(key)
        {
            client.close(CloseReason::AuthenticationViolation);
        } else if user.has_default_permissions
            && before.claims().nats.default_permissions != account.claims().nats.default_permissions
        {
            // What it may do is decided when it connects; it connects again at once.
            client.revoke();
        }
    }
}

#[cfg(test)]
mod tests {
    use menes_auth::claims::account::{AccountClaims, AccountLimits, ExportKind, Import};
    use menes_auth::claims::activation::ActivationClaims;
    use menes_auth::claims::{Claims, Common};
    use menes_auth::key::{KeyKind, Signer};

    use super::*;

    fn common(of: &Signer, expires: i64) -> Common {
        Common {
            subject: of.public_key().to_owned(),
            expires,
            ..Common::default()
        }
    }

    /// The account's token, with an import that ends at each of these times.
    fn account(operator: &Signer, account: &Signer, ends: &[i64]) -> String {
        let exporter = Signer::generate(KeyKind::Account);
        let imports = ends.iter().enumerate().map(|(n, end)| {
            let subject = format!("private.{n}");
            let activation = Claims {
                common: common(account, *end),
                nats: ActivationClaims {
                    import_subject: subject.clone(),
                    import_kind: Some(ExportKind::Stream),
                    ..ActivationClaims::default()
                },
            };
            Import {
                account: exporter.public_key().to_owned(),
                subject,
                token: token::encode(activation, &exporter, now()),
                kind: Some(ExportKind::Stream),
                ..Import::default()
            }
        });
        let claims = Claims {
            common: common(account, 0),
            nats: AccountClaims {
                imports: imports.collect(),
                limits: AccountLimits::unlimited(),
                ..AccountClaims::default()
            },
        };
        token::encode(claims, operator, now())
    }

    #[test]
    fn preloaded_tokens_need_a_place_and_have_to_be_tokens() {
        let one = Signer::generate(KeyKind::Account);
        let options = |resolver: ResolverOptions, token: &str| OperatorOptions {
            resolver,
            preload: BTreeMap::from([(one.public_key().to_owned(), token.to_owned())]),
            ..OperatorOptions::default()
        };
        let token = account(&Signer::generate(KeyKind::Operator), &one, &[]);
        assert!(check_preload(&options(ResolverOptions::Memory, &token)).is_ok());
        let broken = check_preload(&options(ResolverOptions::Memory, "broken"));
        assert!(matches!(broken, Err(OperatorError::Preload { .. })));
        let url = ResolverOptions::Url("http://127.0.0.1:1/".to_owned());
        let nowhere = check_preload(&options(url, &token));
        assert!(matches!(nowhere, Err(OperatorError::ReadOnly)));
    }

    #[test]
    fn activations_are_those_of_the_token_in_force() {
        let operator = Operator::open(&OperatorOptions::default()).expect("memory");
        let signer = Signer::generate(KeyKind::Operator);
        let trust = Trust::in_keys([signer.public_key()]).expect("an operator's");
        let (one, other) = (
            Signer::generate(KeyKind::Account),
            Signer::generate(KeyKind::Account),
        );
        let later = now() + 1000;
        let note = |of: &Signer, ends: &[i64]| {
            let text = account(&signer, of, ends);
            let account = TrustedAccount::open(&text, &trust, now()).expect("trusted");
            operator.note_activations(&account);
        };
        let noted = |of: &Signer| -> Vec<i64> {
            let activations = operator.activations.lock();
            let its = activations
                .iter()
                .filter(|(_, whose)| whose == of.public_key());
            its.map(|(end, _)| end - later).collect()
        };
        note(&one, &[later, later + 5]);
        note(&other, &[later + 7]);
        note(&one, &[later + 9]);
        assert_eq!((noted(&one), noted(&other)), (vec![9], vec![7]));
        operator.forget_activations(one.public_key());
        assert_eq!((noted(&one), noted(&other)), (vec![], vec![7]));
        note(&other, &[]);
        assert!(operator.activations.lock().is_empty());
    }
}
