//! Users that are stored: what the stations say about them, for those who decide about logins.
//!
//! ```text
//!   engine thread ── users changed ──▶ Directory ◀── who is this? ── connection threads
//!                                          └──▶ server: looks at who is connected
//! ```
//!
//! The engine thread is the only one that writes, and replaces everything at once; reading never
//! waits.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use menes_jetstream::ids::AccountName;
use menes_stations::user::{
    Access, ConfiguredUser, DEFAULT_ACCOUNT_ID, People, Role, User, UserKind, UserName, UserRef,
};
use parking_lot::{Condvar, Mutex};
use sha2::{Digest, Sha256};

use super::password::Secret;
use super::permissions::Permissions;
use super::{Login, Standing};
use crate::config::options::AuthOptions;

/// Longest token that is looked at, bytes.
const MAX_TOKEN: usize = 256;

/// A user of a tenant, ready to be held against a login.
#[derive(Debug)]
pub struct StoredUser {
    account: AccountName,
    name: Arc<str>,
    kind: UserKind,
    secret: Option<Arc<Secret>>,
    password_changes: u64,
    tokens: BTreeSet<String>,
    access: Access,
    permissions: Option<Arc<Permissions>>,
}

/// By what a stored user logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Credential {
    /// A password, which had been changed so many times.
    Password(u64),
    /// The token of this id.
    Token(String),
}

/// The login of a stored user.
#[derive(Clone, Debug)]
pub struct StoredLogin {
    user: Arc<StoredUser>,
    credential: Credential,
}

impl StoredLogin {
    /// What the user may ask of the broker itself.
    #[must_use]
    pub fn role(&self) -> Role {
        self.user.kind.into()
    }
}

/// Everything known at a time.
#[derive(Debug, Default)]
struct Known {
    users: HashMap<AccountName, HashMap<Arc<str>, Arc<StoredUser>>>,
    /// Whose a token is and its id, by digest.
    tokens: HashMap<String, (Arc<StoredUser>, String)>,
    tenants: HashMap<u32, AccountName>,
    has_users: bool,
    has_root: bool,
}

type Watcher = Arc<dyn Fn() + Send + Sync>;

/// See the module.
pub struct Directory {
    known: ArcSwap<Known>,
    configured: ArcSwap<Vec<ConfiguredUser>>,
    watcher: OnceLock<Watcher>,
    has_root: Mutex<bool>,
    root_came: Condvar,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            known: ArcSwap::default(),
            configured: ArcSwap::default(),
            watcher: OnceLock::new(),
            has_root: Mutex::new(false),
            root_came: Condvar::new(),
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

/// What the directory says about a login.
#[derive(Debug)]
pub(super) enum Found {
    /// This user, who has to prove it with a password.
    User(Arc<StoredUser>),
    /// The right token.
    Token(Login),
    /// Nobody.
    Nobody,
}

impl Directory {
    /// Replaces everything, and has whoever is connected looked at.
    pub(crate) fn replace(&self, people: &People) {
        let before = self.known.load_full();
        let known = Known::new(people, &before);
        let has_root = known.has_root;
        self.known.store(Arc::new(known));
        if has_root {
            *self.has_root.lock() = true;
            self.root_came.notify_all();
        }
        if let Some(watcher) = self.watcher.get() {
            watcher();
        }
    }

    /// Calls `watcher` after every change, on the thread that makes it.
    pub(crate) fn watch(&self, watcher: Watcher) {
        let is_first = self.watcher.set(watcher).is_ok();
        debug_assert!(is_first, "one server watches");
    }

    /// Notes which users the configuration names.
    pub(crate) fn configure(&self, options: &AuthOptions) {
        let users = options.users.iter().map(|user| {
            let account = user.account.as_deref();
            let account = account.map_or_else(AccountName::global, AccountName::from);
            let role = if user.permissions.is_some() {
                Role::Limited
            } else if account == AccountName::global() {
                Role::Root
            } else {
                Role::Management
            };
            ConfiguredUser {
                account,
                name: user.user.clone(),
                role,
            }
        });
        self.configured.store(Arc::new(users.collect()));
    }

    /// The users of the configuration.
    pub(crate) fn configured(&self) -> Arc<Vec<ConfiguredUser>> {
        self.configured.load_full()
    }

    /// Waits until root is stored; false when that takes longer than `limit`.
    pub(crate) fn wait_for_root(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut has_root = self.has_root.lock();
        while !*has_root {
            if self.root_came.wait_until(&mut has_root, until).timed_out() {
                return *has_root;
            }
        }
        true
    }

    /// Whether any user is stored.
    pub(super) fn has_users(&self) -> bool {
        self.known.load().has_users
    }

    /// Who a login is for that says a user or a token or both.
    pub(super) fn find(
        &self,
        user: Option<&str>,
        password: Option<&str>,
        token: Option<&str>,
    ) -> Found {
        let known = self.known.load();
        if !known.has_users {
            return Found::Nobody;
        }
        // SDKs that have a token may name the user beside it.
        match (user, password, token) {
            (user, None, Some(token)) => known.by_token(user, token),
            (Some(user), ..) => known.by_name(user).map_or(Found::Nobody, Found::User),
            (None, _, Some(token)) => known.by_token(None, token),
            (None, _, None) => Found::Nobody,
        }
    }

    /// What has become of someone who is connected.
    pub(crate) fn standing(
        &self,
        login: &StoredLogin,
        permissions: Option<&Arc<Permissions>>,
    ) -> Standing {
        let known = self.known.load();
        let was = &login.user;
        let users = known.users.get(&was.account);
        let Some(now) = users.and_then(|users| users.get(&was.name)) else {
            return Standing::Refused;
        };
        let holds = match &login.credential {
            Credential::Password(changes) => now.password_changes == *changes,
            Credential::Token(id) => now.tokens.contains(id),
        };
        if !holds || now.kind != was.kind {
            return Standing::Refused;
        }
        let access = permissions.and_then(|permissions| permissions.stations());
        if now.permissions.is_none() || access == Some(&now.access) {
            Standing::Same
        } else {
            Standing::Permitted(now.permissions.clone())
        }
    }
}

impl StoredUser {
    fn new(UserRef { account, user }: UserRef<'_>) -> Self {
        let access = user.access.clone();
        let permissions = (user.kind == UserKind::Application)
            .then(|| Arc::new(Permissions::of_application(access.clone())));
        let secret = user.password.as_ref();
        Self {
            account: account.clone(),
            name: user.name.as_str().into(),
            kind: user.kind,
            secret: secret.map(|hash| Arc::new(Secret::new(hash.expose()))),
            password_changes: user.password_changes,
            tokens: user.tokens.keys().cloned().collect(),
            access,
            permissions,
        }
    }

    fn is_as(&self, user: &User) -> bool {
        self.kind == user.kind
            && self.password_changes == user.password_changes
            && self.secret.is_some() == user.password.is_some()
            && self.access == user.access
            && self.tokens.iter().eq(user.tokens.keys())
    }

    /// The hash of its password, if it has one.
    pub(super) fn secret(&self) -> Option<&Arc<Secret>> {
        self.secret.as_ref()
    }

    /// What it logs in as with its password.
    pub(super) fn by_password(self: &Arc<Self>) -> Login {
        self.login(Credential::Password(self.password_changes))
    }

    fn login(self: &Arc<Self>, credential: Credential) -> Login {
        Login {
            user: Some(Arc::clone(&self.name)),
            account: self.account.clone(),
            permissions: self.permissions.clone(),
            grant: None,
            stored: Some(Arc::new(StoredLogin {
                user: Arc::clone(self),
                credential,
            })),
        }
    }
}

impl Known {
    fn new(people: &People, before: &Self) -> Self {
        let mut known = Self::default();
        for tenant in people.tenants() {
            known.tenants.insert(tenant.id, tenant.name.account());
        }
        for user in people.all_users() {
            let was = before.users.get(user.account);
            let was = was.and_then(|users| users.get(user.user.name.as_str()));
            // Whoever did not change is not made anew.
            let stored = match was.filter(|was| was.is_as(user.user)) {
                Some(was) => Arc::clone(was),
                None => Arc::new(StoredUser::new(user)),
            };
            for token in user.user.tokens.values() {
                let owner = (Arc::clone(&stored), token.id.clone());
                known.tokens.insert(token.digest.clone(), owner);
            }
            known.has_users = true;
            known.has_root |= user.user.kind == UserKind::Root;
            let users = known.users.entry(user.account.clone()).or_default();
            users.insert(Arc::clone(&stored.name), stored);
        }
        known
    }

    /// `ada`, `ada$1` of the default tenant; `ada$<id>` and `ada$<name>` of another.
    fn by_name(&self, given: &str) -> Option<Arc<StoredUser>> {
        let (name, account) = match given.rsplit_once('$') {
            None => (given, AccountName::global()),
            Some((name, tenant)) => (name, self.account_of(tenant)?),
        };
        let name = UserName::parse(name).ok()?;
        self.users.get(&account)?.get(name.as_str()).map(Arc::clone)
    }

    fn account_of(&self, tenant: &str) -> Option<AccountName> {
        if tenant.bytes().all(|byte| byte.is_ascii_digit()) {
            let id: u32 = tenant.parse().ok()?;
            return match id {
                DEFAULT_ACCOUNT_ID => Some(AccountName::global()),
                id => self.tenants.get(&id).cloned(),
            };
        }
        let account = UserName::parse(tenant).ok()?.account();
        self.tenants
            .values()
            .any(|known| *known == account)
            .then_some(account)
    }

    /// The owner of a token, which may be `<user>::<token>`. A user that is named has to be it.
    fn by_token(&self, user: Option<&str>, given: &str) -> Found {
        if given.len() > MAX_TOKEN {
            return Found::Nobody;
        }
        let (named, token) = match given.split_once("::") {
            Some((named, token)) => (Some(named), token),
            None => (None, given),
        };
        let digest = HEXLOWER.encode(&Sha256::digest(token.as_bytes()));
        let Some((owner, id)) = self.tokens.get(&digest) else {
            return Found::Nobody;
        };
        let is_owner = |named: &str| {
            let bare = menes_stations::user::display_name(named);
            bare.eq_ignore_ascii_case(&owner.name)
        };
        if named.or(user).is_none_or(is_owner) {
            Found::Token(owner.login(Credential::Token(id.clone())))
        } else {
            Found::Nobody
        }
    }
}
