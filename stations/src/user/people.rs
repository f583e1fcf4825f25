//! Users and tenants as a part of the state: what a command makes of them.

use std::collections::BTreeMap;

use menes_jetstream::AccountName;

use super::record::{MAX_TOKENS, Tenant, Token, User, UserChange, UserKind, UserName};
use super::{DEFAULT_ACCOUNT_ID, PasswordHash};
use crate::command::{Outcome, RowChange};
use crate::state::{self, LoadError, RowKind, StoredRow};

/// Where a user is.
#[derive(Clone, Copy, Debug)]
pub struct UserRef<'a> {
    /// Account of its tenant.
    pub account: &'a AccountName,
    /// The user.
    pub user: &'a User,
}

/// All users and tenants.
///
/// # Invariants
///
/// 1. Every user belongs to the default tenant or to one there is.
/// 2. There is at most one root, in the default tenant, and once there is one there always is.
/// 3. No two tenants ever have the same id; no two tokens have the same digest.
#[derive(Clone, Debug, PartialEq)]
pub struct People {
    users: BTreeMap<AccountName, BTreeMap<UserName, User>>,
    tenants: BTreeMap<UserName, Tenant>,
    /// Whose token it is, by digest.
    tokens: BTreeMap<String, (AccountName, UserName)>,
    last_tenant: u32,
}

impl Default for People {
    fn default() -> Self {
        Self {
            users: BTreeMap::new(),
            tenants: BTreeMap::new(),
            tokens: BTreeMap::new(),
            last_tenant: DEFAULT_ACCOUNT_ID,
        }
    }
}

impl People {
    /// The user of this name.
    #[must_use]
    pub fn user(&self, account: &AccountName, name: &UserName) -> Option<&User> {
        self.users.get(account)?.get(name)
    }

    /// The users of an account by name.
    pub fn users(&self, account: &AccountName) -> impl Iterator<Item = &User> {
        self.users
            .get(account)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// The users of all accounts.
    pub fn all_users(&self) -> impl Iterator<Item = UserRef<'_>> {
        self.users
            .iter()
            .flat_map(|(account, users)| users.values().map(move |user| UserRef { account, user }))
    }

    /// Whose token has this digest.
    #[must_use]
    pub fn owner(&self, digest: &str) -> Option<UserRef<'_>> {
        let (account, name) = self.tokens.get(digest)?;
        let user = self.user(account, name)?;
        Some(UserRef { account, user })
    }

    /// The tenants by name; the default one is not among them.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.values()
    }

    /// The tenant of this name.
    #[must_use]
    pub fn tenant(&self, name: &UserName) -> Option<&Tenant> {
        self.tenants.get(name)
    }

    /// Whether users may be stored in this account.
    #[must_use]
    pub fn has_account(&self, account: &AccountName) -> bool {
        *account == AccountName::global() || self.tenants.contains_key(account.as_str())
    }

    pub(crate) fn create_user(
        &mut self,
        account: &AccountName,
        user: &User,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        if !self.has_account(account) {
            return Err(Outcome::TenantMissing);
        }
        let is_misplaced_root = user.kind == UserKind::Root
            && (*account != AccountName::global()
                || self
                    .users(account)
                    .any(|known| known.kind == UserKind::Root));
        if is_misplaced_root || self.user(account, &user.name).is_some() {
            return Err(Outcome::UserExists);
        }
        let is_known = |token: &Token| self.tokens.contains_key(&token.digest);
        if user.tokens.len() > MAX_TOKENS || user.tokens.values().any(is_known) {
            return Err(Outcome::TokenRefused);
        }
        rows.push(user_row(account, user));
        self.insert(account, user.clone());
        Ok(())
    }

    pub(crate) fn change_user(
        &mut self,
        account: &AccountName,
        name: &UserName,
        change: &UserChange,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        let user = self.user_mut(account, name)?;
        if let Some(access) = &change.access {
            user.access = access.clone();
        }
        if let Some(profile) = &change.profile {
            user.profile = profile.clone();
        }
        rows.push(user_row(account, user));
        Ok(())
    }

    pub(crate) fn change_password(
        &mut self,
        account: &AccountName,
        name: &UserName,
        password: &PasswordHash,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        let user = self.user_mut(account, name)?;
        user.password = Some(password.clone());
        user.password_changes = user.password_changes.saturating_add(1);
        rows.push(user_row(account, user));
        Ok(())
    }

    pub(crate) fn add_token(
        &mut self,
        account: &AccountName,
        name: &UserName,
        token: &Token,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        if self.tokens.contains_key(&token.digest) {
            return Err(Outcome::TokenRefused);
        }
        let user = self.user_mut(account, name)?;
        if user.tokens.len() >= MAX_TOKENS || user.tokens.contains_key(&token.id) {
            return Err(Outcome::TokenRefused);
        }
        user.tokens.insert(token.id.clone(), token.clone());
        rows.push(user_row(account, user));
        self.tokens
            .insert(token.digest.clone(), (account.clone(), name.clone()));
        Ok(())
    }

    pub(crate) fn remove_token(
        &mut self,
        account: &AccountName,
        name: &UserName,
        id: &str,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        let user = self.user_mut(account, name)?;
        if let Some(gone) = user.tokens.remove(id) {
            rows.push(user_row(account, user));
            self.tokens.remove(&gone.digest);
        }
        Ok(())
    }

    pub(crate) fn remove_user(
        &mut self,
        account: &AccountName,
        name: &UserName,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        let Some(user) = self.user(account, name) else {
            return Ok(());
        };
        if user.kind == UserKind::Root {
            return Err(Outcome::RootStays);
        }
        rows.push((user_key(account, name), None));
        let digests: Vec<String> = digests_of(user).collect();
        for digest in digests {
            self.tokens.remove(&digest);
        }
        if let Some(users) = self.users.get_mut(account) {
            users.remove(name);
            if users.is_empty() {
                self.users.remove(account);
            }
        }
        Ok(())
    }

    pub(crate) fn create_tenant(
        &mut self,
        tenant: &Tenant,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        if self.tenants.contains_key(&tenant.name) {
            return Err(Outcome::TenantExists);
        }
        let id = self
            .last_tenant
            .checked_add(1)
            .ok_or(Outcome::TenantExists)?;
        self.last_tenant = id;
        let tenant = Tenant {
            id,
            ..tenant.clone()
        };
        rows.push(tenant_row(&tenant));
        rows.push((
            state::key(RowKind::LastTenant, &["$"]),
            state::value(&self.last_tenant),
        ));
        self.tenants.insert(tenant.name.clone(), tenant);
        Ok(())
    }

    /// Removes a tenant with its users. That nothing else is left of it has been looked at.
    pub(crate) fn remove_tenant(&mut self, name: &UserName, rows: &mut Vec<RowChange>) {
        if self.tenants.remove(name).is_none() {
            return;
        }
        rows.push((state::key(RowKind::Tenant, &[name.as_str()]), None));
        let account = name.account();
        for (user, gone) in self.users.remove(&account).unwrap_or_default() {
            rows.push((user_key(&account, &user), None));
            for digest in digests_of(&gone) {
                self.tokens.remove(&digest);
            }
        }
    }

    pub(crate) fn load_row(&mut self, row: &StoredRow) -> Result<(), LoadError> {
        match row.kind {
            RowKind::User => {
                let account = AccountName::from(row.names[0].as_str());
                self.insert(&account, row.value()?);
            }
            RowKind::Tenant => {
                let tenant: Tenant = row.value()?;
                self.last_tenant = self.last_tenant.max(tenant.id);
                self.tenants.insert(tenant.name.clone(), tenant);
            }
            _ => {
                let last: u32 = row.value()?;
                self.last_tenant = self.last_tenant.max(last);
            }
        }
        Ok(())
    }

    fn insert(&mut self, account: &AccountName, user: User) {
        for digest in digests_of(&user) {
            self.tokens
                .insert(digest, (account.clone(), user.name.clone()));
        }
        self.users
            .entry(account.clone())
            .or_default()
            .insert(user.name.clone(), user);
    }

    fn user_mut(&mut self, account: &AccountName, name: &UserName) -> Result<&mut User, Outcome> {
        self.users
            .get_mut(account)
            .and_then(|users| users.get_mut(name))
            .ok_or(Outcome::UserMissing)
    }

    /// Holds the invariants.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut digests = BTreeMap::new();
        let mut roots = 0;
        for UserRef { account, user } in self.all_users() {
            assert!(self.has_account(account), "{account:?} is no tenant");
            for digest in digests_of(user) {
                digests.insert(digest, (account.clone(), user.name.clone()));
            }
            if user.kind == UserKind::Root {
                assert_eq!(*account, AccountName::global());
                roots += 1;
            }
        }
        assert!(roots <= 1);
        assert_eq!(digests, self.tokens);
        let ids: std::collections::BTreeSet<u32> = self.tenants().map(|t| t.id).collect();
        assert_eq!(ids.len(), self.tenants.len());
        assert!(
            ids.iter()
                .all(|id| *id > DEFAULT_ACCOUNT_ID && *id <= self.last_tenant)
        );
    }
}

impl std::borrow::Borrow<str> for UserName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

fn digests_of(user: &User) -> impl Iterator<Item = String> {
    let tokens = user.tokens.values();
    tokens
        .map(|token| token.digest.clone())
        .collect::<Vec<_>>()
        .into_iter()
}

fn user_key(account: &AccountName, name: &UserName) -> Vec<u8> {
    state::key(RowKind::User, &[account.as_str(), name.as_str()])
}

fn user_row(account: &AccountName, user: &User) -> RowChange {
    (user_key(account, &user.name), state::value(user))
}

fn tenant_row(tenant: &Tenant) -> RowChange {
    let key = state::key(RowKind::Tenant, &[tenant.name.as_str()]);
    (key, state::value(tenant))
}

#[cfg(test)]
mod tests {
    use menes_jetstream::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::command::Command;
    use crate::state::State;
    use crate::user::Access;

    fn name(text: &str) -> UserName {
        UserName::parse(text).expect("a good name")
    }

    fn user(text: &str, kind: UserKind) -> User {
        User {
            name: name(text),
            kind,
            password: None,
            password_changes: 0,
            tokens: BTreeMap::new(),
            access: Access::ALL,
            profile: crate::user::Profile::default(),
            created: Timestamp::default(),
            created_by: String::new(),
        }
    }

    fn token(number: u8) -> Token {
        Token {
            id: format!("t{number}"),
            digest: format!("d{number}"),
            description: String::new(),
            created: Timestamp::default(),
        }
    }

    fn hash() -> PasswordHash {
        PasswordHash::parse("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA").expect("good")
    }

    fn account() -> impl Strategy<Value = AccountName> {
        prop_oneof![
            Just(AccountName::global()),
            Just(AccountName::from("t1")),
            Just(AccountName::from("t2")),
            Just(AccountName::from("other")),
        ]
    }

    fn user_name() -> impl Strategy<Value = UserName> {
        prop_oneof![Just(name("root")), Just(name("ada")), Just(name("bob"))]
    }

    fn tenant_name() -> impl Strategy<Value = UserName> {
        prop_oneof![Just(name("t1")), Just(name("t2"))]
    }

    fn command() -> impl Strategy<Value = Command> {
        let kinds = prop_oneof![
            Just(UserKind::Root),
            Just(UserKind::Management),
            Just(UserKind::Application)
        ];
        let tenant = |name| Tenant {
            name,
            id: 0,
            description: String::new(),
            created: Timestamp::default(),
            created_by: String::new(),
        };
        prop_oneof![
            (account(), user_name(), kinds, proptest::option::of(0_u8..4)).prop_map(
                |(account, name, kind, with)| {
                    let mut user = user(name.as_str(), kind);
                    user.tokens.extend(with.map(|n| (token(n).id, token(n))));
                    Command::UserCreated {
                        account,
                        user: Box::new(user),
                    }
                }
            ),
            (account(), user_name()).prop_map(|(account, user)| Command::UserChanged {
                account,
                user,
                change: Box::new(UserChange {
                    access: Some(Access {
                        allow_read: vec![crate::user::StationPattern::new("a")],
                        ..Access::ALL
                    }),
                    profile: None,
                }),
            }),
            (account(), user_name()).prop_map(|(account, user)| Command::UserPasswordChanged {
                account,
                user,
                password: hash(),
            }),
            (account(), user_name(), 0_u8..4).prop_map(|(account, user, number)| {
                Command::UserTokenAdded {
                    account,
                    user,
                    token: Box::new(token(number)),
                }
            }),
            (account(), user_name(), 0_u8..4).prop_map(|(account, user, number)| {
                Command::UserTokenRemoved {
                    account,
                    user,
                    token: token(number).id,
                }
            }),
            (account(), user_name())
                .prop_map(|(account, user)| Command::UserRemoved { account, user }),
            tenant_name().prop_map(move |name| Command::TenantCreated {
                tenant: Box::new(tenant(name))
            }),
            tenant_name().prop_map(|tenant| Command::TenantRemoved { tenant }),
        ]
    }

    proptest! {
        #[test]
        fn commands_keep_the_invariants_and_rows_give_the_state_back(
            commands in proptest::collection::vec(command(), 0..60),
        ) {
            let mut state = State::default();
            let mut again = State::default();
            let mut rows = BTreeMap::new();
            let mut roots = 0;
            let mut ids = 1;
            for command in &commands {
                let applied = state.apply(command);
                prop_assert_eq!(&applied, &again.apply(&Command::decode(&command.encode()).expect("reads")));
                if applied.outcome != Outcome::Done {
                    prop_assert!(applied.rows.is_empty());
                }
                for (key, value) in applied.rows {
                    match value {
                        Some(value) => rows.insert(key, value),
                        None => rows.remove(&key),
                    };
                }
                state.people().check();
                // Root stays, and ids only grow.
                let has_root = state.people().all_users().filter(|u| u.user.kind == UserKind::Root).count();
                prop_assert!(has_root >= roots);
                roots = has_root;
                prop_assert!(state.people().last_tenant >= ids);
                ids = state.people().last_tenant;
            }
            let loaded = State::load(rows).expect("rows of its own");
            prop_assert_eq!(loaded, state);
        }
    }

    #[test]
    fn a_tenant_with_a_station_stays() {
        let mut state = State::default();
        let tenant = Tenant {
            name: name("t1"),
            id: 0,
            description: String::new(),
            created: Timestamp::default(),
            created_by: String::new(),
        };
        let make = Command::TenantCreated {
            tenant: Box::new(tenant),
        };
        assert_eq!(state.apply(&make).outcome, Outcome::Done);
        assert_eq!(state.apply(&make).outcome, Outcome::TenantExists);
        let gone = Command::TenantRemoved { tenant: name("t1") };
        assert_eq!(state.apply(&gone).outcome, Outcome::Done);
        assert_eq!(state.apply(&make).outcome, Outcome::Done);
        // The number is another one: whoever knew the old tenant does not get the new one.
        assert_eq!(state.people().tenant(&name("t1")).map(|t| t.id), Some(3));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", hash());
        assert!(!shown.contains("argon2"));
    }
}
