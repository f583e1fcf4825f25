//! Auth callout: a service of the user's decides who a client is.
//!
//! The server signs a request about a key that it made for this one client, and publishes it in the
//! callout account. The answer, signed by the issuer, holds a user token for that key or an error.
//! The key makes an answer useless for any other request.

use jiff::Timestamp;
use thiserror::Error;

use crate::admission::{
    self, Admission, Denied, Facts, TrustedAccount, account_of, allows_connection, place_and_time,
};
use crate::claims::authorization::AuthorizationRequest;
use crate::claims::user::UserClaims;
use crate::claims::{Claims, Common};
use crate::key::{KeyError, Sealer, Signer};
use crate::token::{self, TokenError};
use crate::validation::Validate;

/// Subject of requests.
pub const SUBJECT: &str = "$SYS.REQ.USER.AUTH";
/// Audience of requests.
pub const AUDIENCE: &str = "nats-authorization-request";
/// Header of a sealed request with the server's X key.
pub const XKEY_HEADER: &str = "Nats-Server-Xkey";

/// Who answers, and for which accounts.
#[derive(Clone, Copy, Debug)]
pub enum Issuer<'a> {
    /// Without operator: the key in the configuration.
    Configured {
        /// Public key that signs answers and users.
        key: &'a str,
    },
    /// With operator: the account whose users are asked about.
    Account(&'a TrustedAccount),
}

impl Issuer<'_> {
    /// Subject of the request.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Configured { key } => key,
            Self::Account(account) => account.key(),
        }
    }
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Signs and has the server's id.
    pub server: &'a Signer,
    /// Who answers.
    pub issuer: Issuer<'a>,
    /// Name of the callout account, for texts.
    pub account: &'a str,
    /// The X key requests are sealed for, and the server's pair.
    pub sealing: Option<(&'a str, &'a Sealer)>,
    /// Public key made for this request.
    pub user_key: &'a str,
}

impl Request<'_> {
    /// The bytes to publish. `expires` and `now` are in Unix seconds. The request's server, key and
    /// X key are filled in.
    ///
    /// # Errors
    /// An X key that is none.
    pub fn encode(
        &self,
        mut body: AuthorizationRequest,
        expires: i64,
        now: i64,
    ) -> Result<Vec<u8>, KeyError> {
        self.server.public_key().clone_into(&mut body.server_id.id);
        self.user_key.clone_into(&mut body.user_nkey);
        if let Some((_, sealer)) = self.sealing {
            sealer.public_key().clone_into(&mut body.server_id.xkey);
        }
        let claims = Claims {
            common: Common {
                audience: AUDIENCE.to_owned(),
                subject: self.issuer.subject().to_owned(),
                expires,
                ..Common::default()
            },
            nats: body,
        };
        let token = token::encode(claims, self.server, now);
        match self.sealing {
            Some((recipient, sealer)) => sealer.seal(token.as_bytes(), recipient),
            None => Ok(token.into_bytes()),
        }
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// Why the client is not admitted, in the words the log has for it.
    pub fn answer(&self, payload: &[u8], now: Timestamp) -> Result<Answer, CalloutError> {
        if payload.is_empty() {
            return Err(CalloutError::NoReason(self.account.to_owned()));
        }
        let opened;
        let mut is_sealed = false;
        let text = match self.sealing {
            Some((sender, sealer)) if !payload.starts_with(token::PREFIX.as_bytes()) => {
                opened = sealer
                    .open(payload, sender)
                    .map_err(|error| CalloutError::Sealed(self.account.to_owned(), error))?;
                is_sealed = true;
                opened.as_slice()
            }
            _ => payload,
        };
        let text = str::from_utf8(text).map_err(|_| TokenError::Parts)?;
        let response = token::decode_response(text)?;
        if let Some(issue) = response.issues(now.as_second()).first() {
            return Err(CalloutError::Response(issue.to_string()));
        }
        if response.common.subject != self.user_key {
            return Err(CalloutError::OtherUser);
        }
        if response.common.audience != self.server.public_key() {
            return Err(CalloutError::OtherServer);
        }
        // Only the holder of the X key can have sealed it.
        if !is_sealed {
            self.check_signer(&response.common.issuer, &response.nats.issuer_account)?;
        }
        if !response.nats.error.is_empty() {
            return Err(CalloutError::Service(response.nats.error));
        }
        let user = token::decode_user(&response.nats.jwt)?;
        if let Some(issue) = user.issues(now.as_second()).first() {
            return Err(CalloutError::User(issue.to_string()));
        }
        if user.common.subject != self.user_key {
            return Err(CalloutError::WrongUser {
                expected: self.user_key.to_owned(),
                found: user.common.subject,
                account: self.account.to_owned(),
            });
        }
        let target = self.target(&user)?;
        Ok(Answer { user, target })
    }

    fn check_signer(&self, signer: &str, issuer_account: &str) -> Result<(), CalloutError> {
        let is_known = match self.issuer {
            Issuer::Configured { key } => signer == key,
            Issuer::Account(account) => {
                if !issuer_account.is_empty() && issuer_account != account.key() {
                    return Err(CalloutError::IssuerAccount(issuer_account.to_owned()));
                }
                signer == account.key() || account.signer(signer).is_some()
            }
        };
        if is_known {
            Ok(())
        } else {
            Err(CalloutError::UnknownSigner)
        }
    }

    /// The account the user is put into.
    fn target(&self, user: &Claims<UserClaims>) -> Result<String, CalloutError> {
        match self.issuer {
            Issuer::Configured { key } => {
                if !user.nats.issuer_account.is_empty() {
                    return Err(CalloutError::UsesIssuerAccount(self.account.to_owned()));
                }
                if user.common.issuer != key {
                    return Err(CalloutError::WrongIssuer {
                        account: self.account.to_owned(),
                        expected: key.to_owned(),
                        found: user.common.issuer.clone(),
                    });
                }
                Ok(user.common.audience.clone())
            }
            Issuer::Account(account) => {
                let target = account_of(user);
                let rules = &account.claims().nats.authorization;
                if target != account.key() && !rules.allows_account(target) {
                    return Err(CalloutError::NotAllowed {
                        issuer: user.common.issuer.clone(),
                        account: self.account.to_owned(),
                    });
                }
                Ok(target.to_owned())
            }
        }
    }
}

/// An answer that says who the client is.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    user: Claims<UserClaims>,
    target: String,
}

impl Answer {
    /// Name of the account the user is put into: with operator its public key.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Decides. `account` is the target's token, with operator.
    ///
    /// # Errors
    /// Why the client is not admitted.
    pub fn admit(
        self,
        account: Option<&TrustedAccount>,
        callout_account: &str,
        facts: &Facts<'_>,
    ) -> Result<Admission, CalloutError> {
        let limits = match account {
            Some(account) => {
                admission::effective_limits(&self.user, account).map_err(|denied| match denied {
                    Denied::UnknownIssuer => {
                        CalloutError::UnknownIssuer(self.user.common.issuer.clone())
                    }
                    other => CalloutError::Denied(other),
                })?
            }
            None => self.user.nats.limits.clone(),
        };
        if limits.proxy_required && !facts.is_proxied {
            return Err(CalloutError::Denied(Denied::ProxyRequired));
        }
        if !allows_connection(&limits, facts) {
            return Err(CalloutError::ConnectionType(callout_account.to_owned()));
        }
        let common = &self.user.common;
        let is_void =
            |account: &TrustedAccount| account.has_revoked(&common.subject, common.issued_at);
        if account.is_some_and(is_void) {
            return Err(CalloutError::Denied(Denied::Revoked));
        }
        if account.is_some_and(|account| account.is_expired(facts.now.as_second())) {
            return Err(CalloutError::Denied(Denied::AccountExpired));
        }
        let expires =
            place_and_time(&limits, common.expires, facts).map_err(|denied| match denied {
                Denied::Times => CalloutError::Times(callout_account.to_owned()),
                other => CalloutError::Denied(other),
            })?;
        let mut admitted = admission::admission(&self.user, limits, account, expires);
        admitted.account = self.target;
        Ok(admitted)
    }
}

/// Why a callout does not admit a client. The texts are those of nats-server's log.
#[derive(Debug, Error)]
pub enum CalloutError {
    /// An empty answer.
    #[error("Auth callout violation: \"no reason supplied\" on account {0:?}")]
    NoReason(String),
    /// An answer that does not open.
    #[error("Error decrypting auth callout response on account {0:?}: {1}")]
    Sealed(String, KeyError),
    /// A token that cannot be read.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The answer's contents are wrong.
    #[error("Authorization response had validation errors: {0}")]
    Response(String),
    /// About another key.
    #[error("Auth callout violation: auth callout response is not for expected user")]
    OtherUser,
    /// For another server.
    #[error("Auth callout violation: auth callout response is not for server")]
    OtherServer,
    /// For another account.
    #[error("Auth callout response issuer account {0:?} is not the callout account")]
    IssuerAccount(String),
    /// Not signed by the issuer.
    #[error("Auth callout signing key is unknown")]
    UnknownSigner,
    /// The service says no.
    #[error("Auth callout service returned an error: {0}")]
    Service(String),
    /// The user's contents are wrong.
    #[error("Error validating user JWT: {0}")]
    User(String),
    /// A user with another key.
    #[error("Expected authorized user of {expected:?} but got {found:?} on account {account:?}")]
    WrongUser {
        /// The key of the request.
        expected: String,
        /// The key of the user.
        found: String,
        /// The callout account.
        account: String,
    },
    /// `issuer_account` without operator.
    #[error("Error non operator mode account {0:?}: attempted to use issuer_account")]
    UsesIssuerAccount(String),
    /// The user is signed by another key.
    #[error(
        "Wrong issuer for auth callout response on account {account:?}, expected {expected:?} got {found:?}"
    )]
    WrongIssuer {
        /// The callout account.
        account: String,
        /// The issuer.
        expected: String,
        /// Who signed.
        found: String,
    },
    /// The service may not put users into that account.
    #[error(
        "Account {issuer:?} not permitted as valid account option for auth callout for account {account:?}"
    )]
    NotAllowed {
        /// Who signed.
        issuer: String,
        /// The callout account.
        account: String,
    },
    /// The account the user is to be put into does not exist.
    #[error(
        "No valid account {target:?} for auth callout response on account {account:?}: account missing"
    )]
    NoAccount {
        /// That account.
        target: String,
        /// The callout account.
        account: String,
    },
    /// Not signed by the target account.
    #[error("User JWT issuer {0:?} is not known")]
    UnknownIssuer(String),
    /// Outside the hours allowed.
    #[error("Authorized user on account {0:?} outside of valid connect times")]
    Times(String),
    /// Not connected in an allowed way.
    #[error("Authorized user on account {0:?} using invalid connection type")]
    ConnectionType(String),
    /// As for every user.
    #[error("{0}")]
    Denied(Denied),
}
