//! What tokens say, with the JSON names of the NATS JWT library, version 2.
//!
//! Tokens of version 1 are read into the same types; nothing writes them. An absent field, and one
//! that is `null`, has the default of its type: for a limit that is 0, which is *none*, not
//! unlimited.

pub mod account;
pub mod activation;
pub mod authorization;
pub mod operator;
pub mod user;

use serde::{Deserialize, Serialize};

use self::account::AccountClaims;
use self::activation::ActivationClaims;
use self::authorization::{AuthorizationRequest, AuthorizationResponse};
use self::operator::OperatorClaims;
use self::user::UserClaims;

/// A limit that is none.
pub const NO_LIMIT: i64 = -1;

/// What every token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Common {
    /// Whom it is meant for.
    #[serde(rename = "aud", skip_serializing_if = "String::is_empty")]
    pub audience: String,
    /// Unix seconds after which it is void; 0 is never.
    #[serde(rename = "exp", skip_serializing_if = "is_zero")]
    pub expires: i64,
    /// Hash of the other fields.
    #[serde(rename = "jti", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Unix seconds of its making.
    #[serde(rename = "iat", skip_serializing_if = "is_zero")]
    pub issued_at: i64,
    /// Public key that signed it.
    #[serde(rename = "iss", skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// Name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Unix seconds before which it is void; 0 is none.
    #[serde(rename = "nbf", skip_serializing_if = "is_zero")]
    pub not_before: i64,
    /// Public key it is about.
    #[serde(rename = "sub", skip_serializing_if = "String::is_empty")]
    pub subject: String,
}

/// What is about every kind, inside `nats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generic {
    /// Lower-case labels, often `key:value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Kind of the token.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Version of the format, 1 or 2.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: i64,
}

/// A token's contents: what all say, and what its kind says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims<T> {
    /// What every token says.
    #[serde(flatten)]
    pub common: Common,
    /// What this kind says.
    pub nats: T,
}

/// A kind of token.
pub trait Kind: Serialize {
    /// Its name in `nats.type`.
    const NAME: &'static str;

    /// The fields that every kind has.
    fn generic_mut(&mut self) -> &mut Generic;
}

/// A token of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyClaims {
    /// Trusted by configuration; signs accounts.
    Operator(Claims<OperatorClaims>),
    /// A tenant; signs users.
    Account(Claims<AccountClaims>),
    /// Who may connect.
    User(Claims<UserClaims>),
    /// Lets one account import from another.
    Activation(Claims<ActivationClaims>),
    /// A server asks whether a client may connect.
    AuthorizationRequest(Claims<AuthorizationRequest>),
    /// The answer.
    AuthorizationResponse(Claims<AuthorizationResponse>),
    /// Anything else.
    Generic(Claims<serde_json::Map<String, serde_json::Value>>),
}

impl AnyClaims {
    /// What every token says.
    #[must_use]
    pub fn common(&self) -> &Common {
        match self {
            Self::Operator(claims) => &claims.common,
            Self::Account(claims) => &claims.common,
            Self::User(claims) => &claims.common,
            Self::Activation(claims) => &claims.common,
            Self::AuthorizationRequest(claims) => &claims.common,
            Self::AuthorizationResponse(claims) => &claims.common,
            Self::Generic(claims) => &claims.common,
        }
    }
}

pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}

pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
