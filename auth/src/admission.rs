//! Who is admitted as what.
//!
//! ```text
//!   user token ──▶ UserToken::open ──▶ account() ──▶ (the driver finds the account's token)
//!                                                        │
//!          Admission | Denied ◀── UserToken::admit ◀── TrustedAccount::open
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::claims::account::{AccountClaims, UserScope, is_revoked};
use crate::claims::activation::ActivationClaims;
use crate::claims::operator::OperatorClaims;
use crate::claims::user::{Permissions, UserClaims, UserPermissionLimits};
use crate::claims::{Claims, NO_LIMIT};
use crate::key::{self, KeyKind};
use crate::scope::{self, Values};
use crate::token::{self, TokenError};
use crate::validation::{Validate, parse_version};
use crate::window;

/// Why a set of operators cannot be trusted.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The token cannot be read.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// Its contents are wrong.
    #[error("error validating operator JWT: {0}")]
    Invalid(String),
    /// A key that is no operator's.
    #[error("trusted Keys {0:?} are required to be a valid public operator nkey")]
    Key(String),
    /// The operator wants a newer server.
    #[error(
        "operator {operator} expected {part} version {expected} > server {part} version {actual}"
    )]
    ServerVersion {
        /// Its public key.
        operator: String,
        /// `major`, `minor` or `update`.
        part: &'static str,
        /// What it expects.
        expected: u64,
        /// What this server is.
        actual: u64,
    },
}

/// The operators a server trusts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trust {
    operators: Vec<Claims<OperatorClaims>>,
    keys: BTreeSet<String>,
    /// Operator keys whose accounts sign with signing keys only.
    strict: BTreeSet<String>,
}

impl Trust {
    /// Trusts these operator tokens. `server_version` is `major.minor.update`, `now` is in Unix
    /// seconds.
    ///
    /// # Errors
    /// The first token that is not one of an operator, is void, or wants a newer server.
    pub fn in_operators<'a>(
        tokens: impl IntoIterator<Item = &'a str>,
        server_version: &str,
        now: i64,
    ) -> Result<Self, TrustError> {
        let mut trust = Self::default();
        for text in tokens {
            let claims = token::decode_operator(text)?;
            if let Some(issue) = claims.issues(now).blocking() {
                return Err(TrustError::Invalid(issue.to_string()));
            }
            check_version(&claims, server_version)?;
            let operator = &claims.nats;
            if operator.strict_signing_key_usage {
                trust.strict.extend(operator.signing_keys.iter().cloned());
            } else {
                trust.keys.insert(claims.common.subject.clone());
            }
            trust.keys.extend(operator.signing_keys.iter().cloned());
            trust.operators.push(claims);
        }
        Self::check_keys(trust)
    }

    /// Trusts these public keys.
    ///
    /// # Errors
    /// The first that is no operator's.
    pub fn in_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, TrustError> {
        let keys = keys.into_iter().map(str::to_owned).collect();
        Self::check_keys(Self {
            keys,
            ..Self::default()
        })
    }

    fn check_keys(self) -> Result<Self, TrustError> {
        match self
            .keys
            .iter()
            .find(|key| !KeyKind::Operator.is_public_key(key))
        {
            Some(key) => Err(TrustError::Key(key.clone())),
            None => Ok(self),
        }
    }

    /// The tokens behind it; none when keys are trusted.
    #[must_use]
    pub fn operators(&self) -> &[Claims<OperatorClaims>] {
        &self.operators
    }

    /// All trusted keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    /// Whether tokens signed by `key` are accounts of this server.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// The system account that the first operator names, if it does.
    #[must_use]
    pub fn system_account(&self) -> Option<&str> {
        let first = self.operators.first()?;
        let name = first.nats.system_account.as_str();
        (!name.is_empty()).then_some(name)
    }
}

fn check_version(claims: &Claims<OperatorClaims>, server: &str) -> Result<(), TrustError> {
    let invalid = |what: String| TrustError::Invalid(what);
    let expected = parse_version(&claims.nats.assert_server_version).map_err(invalid)?;
    let bare = server.split('-').next().unwrap_or_default();
    let actual = parse_version(bare).map_err(invalid)?;
    let parts = [
        ("major", expected.0, actual.0),
        ("minor", expected.1, actual.1),
        ("update", expected.2, actual.2),
    ];
    match parts
        .iter()
        .find(|(_, expected, actual)| expected != actual)
    {
        Some((part, expected, actual)) if expected > actual => Err(TrustError::ServerVersion {
            operator: claims.common.subject.clone(),
            part,
            expected: *expected,
            actual: *actual,
        }),
        _ => Ok(()),
    }
}

/// Why an account's token is not accepted.
#[derive(Debug, Error)]
pub enum AccountError {
    /// The token cannot be read.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// Signed by nobody this server trusts.
    #[error("account JWT not signed by trusted operator")]
    NotTrusted,
    /// Its contents are wrong.
    #[error("account validation failed: {0}")]
    Invalid(String),
    /// About another account.
    #[error("account JWT is for {found:?}, not for {expected:?}")]
    OtherAccount {
        /// The account asked for.
        expected: String,
        /// The account found.
        found: String,
    },
}

/// An account whose token was signed by a trusted operator.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedAccount {
    token: String,
    claims: Claims<AccountClaims>,
    /// Users are signed by signing keys only.
    is_strict: bool,
}

impl TrustedAccount {
    /// Reads and checks an account's token. `now` is in Unix seconds.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub fn open(text: &str, trust: &Trust, now: i64) -> Result<Self, AccountError> {
        let text = text.trim();
        let claims = token::decode_account(text)?;
        if !trust.has_key(&claims.common.issuer) {
            return Err(AccountError::NotTrusted);
        }
        if !KeyKind::Account.is_public_key(&claims.common.subject) {
            return Err(AccountError::Invalid(
                "subject is not an account public key".to_owned(),
            ));
        }
        if let Some(issue) = claims.issues(now).blocking() {
            return Err(AccountError::Invalid(issue.to_string()));
        }
        Ok(Self {
            token: text.to_owned(),
            is_strict: trust.strict.contains(&claims.common.issuer),
            claims,
        })
    }

    /// As [`TrustedAccount::open`], for the account `expected`.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub fn open_of(
        expected: &str,
        text: &str,
        trust: &Trust,
        now: i64,
    ) -> Result<Self, AccountError> {
        let account = Self::open(text, trust, now)?;
        if account.key() == expected {
            Ok(account)
        } else {
            Err(AccountError::OtherAccount {
                expected: expected.to_owned(),
                found: account.claims.common.subject,
            })
        }
    }

    /// Its public key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.claims.common.subject
    }

    /// Its name for people, if it has one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.claims.common.name
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What it says.
    #[must_use]
    pub fn claims(&self) -> &Claims<AccountClaims> {
        &self.claims
    }

    /// Whether it has expired. `now` is in Unix seconds.
    #[must_use]
    pub fn is_expired(&self, now: i64) -> bool {
        let expires = self.claims.common.expires;
        expires != 0 && expires <= now
    }

    /// The scope of a key that signs for it: `Some(None)` for its identity and keys without scope,
    /// `None` for keys that do not sign for it.
    #[must_use]
    pub fn signer(&self, key: &str) -> Option<Option<&UserScope>> {
        if let Some(scope) = self.claims.nats.signing_keys.scope(key) {
            return Some(scope);
        }
        (key == self.key() && !self.is_strict).then_some(None)
    }

    /// Whether user tokens of `key` issued at `issued_at` are void.
    #[must_use]
    pub fn has_revoked(&self, key: &str, issued_at: i64) -> bool {
        is_revoked(&self.claims.nats.revocations, key, issued_at)
    }

    /// Whether an activation that names this account as its issuer is one of its own.
    #[must_use]
    pub fn did_activate(&self, activation: &Claims<ActivationClaims>) -> bool {
        let issuer_account = &activation.nats.issuer_account;
        if issuer_account.is_empty() {
            activation.common.issuer == self.key()
        } else {
            issuer_account == self.key() && self.signer(&activation.common.issuer).is_some()
        }
    }
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionType {
    /// NATS over TCP or TLS.
    Standard,
    /// NATS in WebSocket frames.
    WebSocket,
    /// A leafnode.
    Leafnode,
    /// A leafnode in WebSocket frames.
    LeafnodeWs,
    /// MQTT.
    Mqtt,
    /// MQTT in WebSocket frames.
    MqttWs,
    /// Inside the server's process.
    InProcess,
}

impl ConnectionType {
    /// Reads a name of any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_uppercase().as_str() {
            "STANDARD" => Self::Standard,
            "WEBSOCKET" => Self::WebSocket,
            "LEAFNODE" => Self::Leafnode,
            "LEAFNODE_WS" => Self::LeafnodeWs,
            "MQTT" => Self::Mqtt,
            "MQTT_WS" => Self::MqttWs,
            "IN_PROCESS" => Self::InProcess,
            _ => return None,
        })
    }

    /// Whether a list of a token allows it. Unknown names are passed over, unless all are unknown.
    fn is_among(self, allowed: &[String]) -> bool {
        let known: Vec<_> = allowed
            .iter()
            .filter_map(|text| Self::parse(text))
            .collect();
        allowed.is_empty() || known.contains(&self)
    }
}

/// What is known of a connection that wants in.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Where it comes from.
    pub address: IpAddr,
    /// How it is connected.
    pub connection: ConnectionType,
    /// What the server gave it to sign.
    pub nonce: &'a str,
    /// `sig` of CONNECT.
    pub signature: Option<&'a str>,
    /// It came through a proxy whose key is trusted.
    pub is_proxied: bool,
    /// The time.
    pub now: Timestamp,
    /// Zone of tokens that name none.
    pub local_zone: &'a TimeZone,
}

/// Why a user is not admitted. For the log: the client hears the same whatever it was.
#[derive(Debug, Error)]
pub enum Denied {
    /// No token.
    #[error("Authentication requires a user JWT")]
    NoToken,
    /// The token cannot be read.
    #[error("User JWT not valid: {0}")]
    Token(#[from] TokenError),
    /// It must come through a trusted proxy.
    #[error("Proxy Required")]
    ProxyRequired,
    /// Expired, not yet valid, or contents that are wrong.
    #[error("User JWT no longer valid: {0}")]
    NotValid(String),
    /// The account was not found or is not trusted.
    #[error("Account JWT lookup error: {0}")]
    Account(String),
    /// The operator pinned other accounts.
    #[error("Account {0} not listed as operator pinned account")]
    NotPinned(String),
    /// Not signed by the account or one of its keys.
    #[error("User JWT issuer is not known")]
    UnknownIssuer,
    /// Signed by a scoped key and carries permissions of its own.
    #[error("User JWT is not valid: scoped users require no permissions or limits set")]
    OwnPermissions,
    /// The template of a scoped key cannot be filled in.
    #[error("User JWT generated invalid permissions: {0}")]
    Template(#[from] scope::ScopeError),
    /// The account has expired.
    #[error("Account JWT has expired")]
    AccountExpired,
    /// The account wants signatures.
    #[error("Account does not allow bearer tokens")]
    BearerDisallowed,
    /// Not connected in an allowed way.
    #[error("Connection type not allowed")]
    ConnectionType,
    /// No signature.
    #[error("Signature missing")]
    SignatureMissing,
    /// Not the user's signature over the nonce.
    #[error("Signature not verified")]
    Signature,
    /// The account voided it.
    #[error("User authentication revoked")]
    Revoked,
    /// From an address that is not allowed.
    #[error("Bad src Ip {0}")]
    Source(IpAddr),
    /// Outside the hours allowed.
    #[error("Outside connect times")]
    Times,
}

/// A user that is admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// Its public key.
    pub user: String,
    /// Its name for people; may be empty.
    pub name: String,
    /// Tags of its token.
    pub tags: Vec<String>,
    /// Public key of its account.
    pub account: String,
    /// What it may do: its own, its scope's, or the account's default. Empty is everything.
    pub permissions: Permissions,
    /// Whether `permissions` are the account's default, and change with it.
    pub has_default_permissions: bool,
    /// Subscriptions; `None` is unlimited.
    pub max_subscriptions: Option<u64>,
    /// Bytes of a message; `None` is unlimited.
    pub max_payload: Option<u64>,
    /// When it must go.
    pub expires: Option<Timestamp>,
    /// The token alone was proof.
    pub is_bearer: bool,
    /// When the token was made, in Unix seconds.
    pub issued_at: i64,
    /// The account's key that signed, when it was not its identity.
    pub signing_key: Option<String>,
}

/// A user's token that can be read and is valid now.
#[derive(Clone, Debug, PartialEq)]
pub struct UserToken {
    claims: Claims<UserClaims>,
}

impl UserToken {
    /// Reads a user's token.
    ///
    /// # Errors
    /// A token that cannot be read or is not valid now.
    pub fn open(text: &str, is_proxied: bool, now: Timestamp) -> Result<Self, Denied> {
        let claims = token::decode_user(text)?;
        if claims.nats.limits.proxy_required && !is_proxied {
            return Err(Denied::ProxyRequired);
        }
        if !KeyKind::User.is_public_key(&claims.common.subject) {
            return Err(Denied::NotValid(
                "subject is not a user public key".to_owned(),
            ));
        }
        match claims.issues(now.as_second()).blocking() {
            Some(issue) => Err(Denied::NotValid(issue.to_string())),
            None => Ok(Self { claims }),
        }
    }

    /// What it says.
    #[must_use]
    pub fn claims(&self) -> &Claims<UserClaims> {
        &self.claims
    }

    /// Public key of the account it is of.
    #[must_use]
    pub fn account(&self) -> &str {
        account_of(&self.claims)
    }

    /// Decides. `account` is that of [`UserToken::account`].
    ///
    /// # Errors
    /// See [`Denied`]; the first that applies.
    pub fn admit(self, account: &TrustedAccount, facts: &Facts<'_>) -> Result<Admission, Denied> {
        if account.key() != self.account() {
            return Err(Denied::UnknownIssuer);
        }
        let limits = effective_limits(&self.claims, account)?;
        if limits.proxy_required && !facts.is_proxied {
            return Err(Denied::ProxyRequired);
        }
        if account.is_expired(facts.now.as_second()) {
            return Err(Denied::AccountExpired);
        }
        if limits.bearer_token && account.claims.nats.limits.disallow_bearer {
            return Err(Denied::BearerDisallowed);
        }
        if !facts.connection.is_among(&limits.allowed_connection_types) {
            return Err(Denied::ConnectionType);
        }
        let common = &self.claims.common;
        if !limits.bearer_token {
            let signature = facts.signature.ok_or(Denied::SignatureMissing)?;
            key::verify_nonce(&common.subject, facts.nonce, signature)
                .map_err(|_| Denied::Signature)?;
        }
        if account.has_revoked(&common.subject, common.issued_at) {
            return Err(Denied::Revoked);
        }
        let expires = place_and_time(&limits, common.expires, facts)?;
        Ok(admission(&self.claims, limits, Some(account), expires))
    }
}

pub(crate) fn account_of(claims: &Claims<UserClaims>) -> &str {
    let account = &claims.nats.issuer_account;
    if account.is_empty() {
        &claims.common.issuer
    } else {
        account
    }
}

/// The user's own limits, or those of the scope that signed it.
pub(crate) fn effective_limits(
    claims: &Claims<UserClaims>,
    account: &TrustedAccount,
) -> Result<UserPermissionLimits, Denied> {
    let own = &claims.nats.limits;
    match account.signer(&claims.common.issuer) {
        None => Err(Denied::UnknownIssuer),
        Some(None) => Ok(own.clone()),
        Some(Some(_)) if *own != UserPermissionLimits::default() => Err(Denied::OwnPermissions),
        Some(Some(scope)) => {
            let values = Values {
                name: &claims.common.name,
                subject: &claims.common.subject,
                tags: &claims.nats.generic.tags,
                account_name: account.name(),
                account_subject: &claims.nats.issuer_account,
                account_tags: &account.claims.nats.generic.tags,
            };
            Ok(scope::fill(&scope.template, values)?)
        }
    }
}

/// Whether the user may be here now, and until when.
pub(crate) fn place_and_time(
    limits: &UserPermissionLimits,
    expires: i64,
    facts: &Facts<'_>,
) -> Result<Option<Timestamp>, Denied> {
    if !window::may_come_from(limits, facts.address) {
        return Err(Denied::Source(facts.address));
    }
    let left: Option<Duration> =
        window::remaining(limits, facts.now, facts.local_zone).ok_or(Denied::Times)?;
    let window_end = left.and_then(|left| facts.now.checked_add(left).ok());
    let token_end = (expires > 0)
        .then(|| Timestamp::from_second(expires).ok())
        .flatten();
    Ok(match (window_end, token_end) {
        (Some(window), Some(token)) => Some(window.min(token)),
        (one, other) => one.or(other),
    })
}

/// Whether the way of connecting is allowed.
pub(crate) fn allows_connection(limits: &UserPermissionLimits, facts: &Facts<'_>) -> bool {
    facts.connection.is_among(&limits.allowed_connection_types)
}

pub(crate) fn admission(
    claims: &Claims<UserClaims>,
    limits: UserPermissionLimits,
    account: Option<&TrustedAccount>,
    expires: Option<Timestamp>,
) -> Admission {
    let has_default_permissions = limits.permissions.is_empty();
    let permissions = match account {
        Some(account) if has_default_permissions => account.claims.nats.default_permissions.clone(),
        _ => limits.permissions,
    };
    let limit = |number: i64| (number != NO_LIMIT).then(|| u64::try_from(number).unwrap_or(0));
    let common = &claims.common;
    Admission {
        user: common.subject.clone(),
        name: common.name.clone(),
        tags: claims.nats.generic.tags.clone(),
        account: account.map_or_else(String::new, |account| account.key().to_owned()),
        permissions,
        has_default_permissions,
        max_subscriptions: limit(limits.subs),
        max_payload: limit(limits.payload),
        expires,
        is_bearer: limits.bearer_token,
        issued_at: common.issued_at,
        signing_key: (!claims.nats.issuer_account.is_empty()).then(|| common.issuer.clone()),
    }
}
