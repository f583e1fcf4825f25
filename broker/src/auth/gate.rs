//! Which way a login is decided.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::callout::{self, Scheme};
use super::{Attempt, Login, Verdict, Verified};
use crate::config::options::CalloutOptions;
use crate::error::CloseReason;
use crate::server::Shared;

/// The answer to a login.
#[derive(Debug)]
pub(crate) enum Outcome {
    Accepted(Login),
    Refused(CloseReason),
    /// Something has to be waited for.
    Later(Deferred),
}

/// A login that is being decided. It stays on the thread of its connection.
pub(crate) struct Deferred(Pin<Box<dyn Future<Output = Decision>>>);

/// Who the connection acts as, or what is noted of its end.
pub(crate) type Decision = Result<Login, CloseReason>;

/// Why most are refused.
pub(crate) const REFUSED: CloseReason = CloseReason::AuthenticationViolation;

/// Why some are sent away whose credentials nobody has looked at: they may come again.
pub(crate) const BUSY: CloseReason = CloseReason::MaxConnectionsExceeded;

impl Deferred {
    pub(crate) fn new(future: impl Future<Output = Decision> + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl Future for Deferred {
    type Output = Decision;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").finish_non_exhaustive()
    }
}

/// Decides about a login, or begins to.
pub(crate) fn decide(shared: &Arc<Shared>, attempt: Attempt) -> Outcome {
    if let Some(operator) = shared.operator() {
        return operator.decide(shared, attempt);
    }
    let verdict = shared.auth().check(&attempt, Instant::now());
    match shared.auth().callout() {
        None => without_callout(shared, attempt, verdict),
        Some(callout) => with_callout(shared, attempt, verdict, callout),
    }
}

fn without_callout(shared: &Arc<Shared>, attempt: Attempt, verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Accepted(login) => Outcome::Accepted(login),
        Verdict::Refused => Outcome::Refused(REFUSED),
        Verdict::NeedsProxy => Outcome::Refused(CloseReason::ProxyRequired),
        Verdict::Pending(_) => {
            let shared = Arc::clone(shared);
            Outcome::Later(Deferred::new(async move {
                settle(&shared, &attempt, verdict).await
            }))
        }
    }
}

/// Waits for the hash, if it is that.
async fn settle(shared: &Shared, attempt: &Attempt, verdict: Verdict) -> Decision {
    let check = match verdict {
        Verdict::Accepted(login) => return Ok(login),
        Verdict::Refused => return Err(REFUSED),
        Verdict::NeedsProxy => return Err(CloseReason::ProxyRequired),
        Verdict::Pending(check) => check,
    };
    match shared.auth().verify(check, attempt).await {
        Verified::Accepted(login) => Ok(login),
        Verified::Refused => Err(REFUSED),
        Verified::Busy => Err(BUSY),
    }
}

/// The service decides about everyone but its own users, and users of accounts that it has no say
/// in.
fn with_callout(
    shared: &Arc<Shared>,
    attempt: Attempt,
    verdict: Verdict,
    options: Arc<CalloutOptions>,
) -> Outcome {
    let shared = Arc::clone(shared);
    let needs_proxy = matches!(verdict, Verdict::NeedsProxy);
    Outcome::Later(Deferred::new(async move {
        let connect = &attempt.connect;
        let given = connect.nkey.as_ref().or(connect.user.as_ref());
        let is_own = given.is_some_and(|given| options.auth_users.contains(given));
        let allowed = &options.allowed_accounts;
        if is_own || !allowed.is_empty() {
            let login = settle(&shared, &attempt, verdict).await;
            let is_elsewhere = login.as_ref().is_ok_and(|login| {
                let account = login.account.as_str();
                account != "$G" && !allowed.iter().any(|allowed| allowed == account)
            });
            if is_own || is_elsewhere {
                return login.map(|login| callout::without_requests(login, &options.account));
            }
        }
        let login = callout::ask(&shared, &attempt, Scheme::Configured(options)).await?;
        if needs_proxy {
            return Err(CloseReason::ProxyRequired);
        }
        Ok(login)
    }))
}
