//! Auth callout: asks a service who a client is, by a message in an account.
//!
//! What is asked and whether the answer counts is decided in [`menes_auth::callout`]; here is the
//! message, the wait, and what the answer becomes.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use menes_auth::admission::{Admission, Denied, Facts, TrustedAccount};
use menes_auth::callout::{self, CalloutError, Issuer, Request};
use menes_auth::claims::authorization::{
    AuthorizationRequest, ClientInformation, ConnectOptions, ServerId,
};
use menes_auth::key::{KeyKind, Signer};
use menes_jetstream::ids::AccountName;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::gate::{Decision, REFUSED};
use super::operator::{Operator, permission_options};
use super::permissions::Permissions;
use super::{Attempt, Grant, Login};
use crate::account::Account;
use crate::config::options::{CalloutOptions, PermissionOptions};
use crate::connection::client::Transport;
use crate::error::CloseReason;
use crate::routing::{Message, Receiver};
use crate::server::{NATS_VERSION, Shared};

/// How the service was set up.
pub(crate) enum Scheme {
    /// In the configuration.
    Configured(Arc<CalloutOptions>),
    /// In the token of the account whose user it is.
    Operator(Arc<Operator>, Arc<TrustedAccount>),
}

impl Scheme {
    fn account(&self) -> &str {
        match self {
            Self::Configured(options) => &options.account,
            Self::Operator(_, account) => account.key(),
        }
    }

    fn issuer(&self) -> Issuer<'_> {
        match self {
            Self::Configured(options) => Issuer::Configured {
                key: &options.issuer,
            },
            Self::Operator(_, account) => Issuer::Account(account),
        }
    }

    fn xkey(&self) -> Option<&str> {
        let key = match self {
            Self::Configured(options) => options.xkey.as_deref()?,
            Self::Operator(_, account) => &account.claims().nats.authorization.xkey,
        };
        (!key.is_empty()).then_some(key)
    }
}

/// Takes the one answer.
#[derive(Debug)]
struct Reply(Mutex<Option<oneshot::Sender<Vec<u8>>>>);

impl Receiver for Reply {
    fn receive(&self, _: &Arc<Account>, message: &Message<'_>) -> bool {
        let Some(waiting) = self.0.lock().take() else {
            return false;
        };
        // Nobody waits any more if it came too late.
        waiting.send(message.payload.to_vec()).is_ok()
    }
}

/// Asks the service. Nobody is admitted when it does not answer in time.
pub(crate) async fn ask(shared: &Arc<Shared>, attempt: &Attempt, scheme: Scheme) -> Decision {
    let name = AccountName::from(scheme.account());
    let Some(account) = shared.accounts().get(&name) else {
        tracing::warn!(
            "No valid account {:?} for auth callout request: account missing",
            name.as_str()
        );
        return Err(REFUSED);
    };
    let user_key = Signer::generate(KeyKind::User);
    let request = Request {
        server: shared.signer(),
        issuer: scheme.issuer(),
        account: scheme.account(),
        sealing: scheme.xkey().map(|key| (key, shared.sealer())),
        user_key: user_key.public_key(),
    };
    let payload = exchange(shared, attempt, &account, &request)
        .await
        .ok_or(REFUSED)?;
    match admit(shared, attempt, &scheme, &request, &payload).await {
        Ok(login) => Ok(login),
        Err(error) => {
            tracing::warn!("{error}");
            Err(match error {
                CalloutError::Denied(Denied::ProxyRequired) => CloseReason::ProxyRequired,
                _ => REFUSED,
            })
        }
    }
}

/// Sends the request and waits for the answer.
async fn exchange(
    shared: &Arc<Shared>,
    attempt: &Attempt,
    account: &Arc<Account>,
    request: &Request<'_>,
) -> Option<Vec<u8>> {
    let now = Timestamp::now().as_second();
    let wait = shared.options().timing.auth_timeout;
    let expires = now.saturating_add(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX));
    let bytes = match request.encode(describe(shared, attempt), expires, now) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!(
                "Error encrypting auth request claim on account {:?}: {error}",
                request.account
            );
            return None;
        }
    };
    let (answered, answer) = oneshot::channel();
    let inbox = shared.new_inbox();
    let reply = Arc::new(Reply(Mutex::new(Some(answered))));
    let subscription = account.subscribe_receiver(inbox.as_bytes(), None, reply);
    let header = request.sealing.map_or_else(Vec::new, |(_, sealer)| {
        format!(
            "NATS/1.0\r\n{}: {}\r\n\r\n",
            callout::XKEY_HEADER,
            sealer.public_key()
        )
        .into_bytes()
    });
    let message = Message {
        reply: inbox.as_bytes(),
        header: &header,
        ..Message::new(callout::SUBJECT.as_bytes(), &bytes)
    };
    let receivers = shared.send_internally(account, &message);
    let outcome = if receivers == 0 {
        tracing::debug!(
            "No authorization callout service on account {:?}",
            request.account
        );
        None
    } else {
        let outcome = timeout(wait, answer).await;
        if outcome.is_err() {
            tracing::debug!(
                "Authorization callout response not received in time on account {:?}",
                request.account
            );
        }
        outcome.ok().and_then(Result::ok)
    };
    account.unsubscribe(&subscription);
    outcome
}

async fn admit(
    shared: &Arc<Shared>,
    attempt: &Attempt,
    scheme: &Scheme,
    request: &Request<'_>,
    payload: &[u8],
) -> Result<Login, CalloutError> {
    let now = Timestamp::now();
    let answer = request.answer(payload, now)?;
    let target = answer.target().to_owned();
    let missing = || CalloutError::NoAccount {
        target: target.clone(),
        account: request.account.to_owned(),
    };
    let account = match scheme {
        Scheme::Configured(_) => {
            let name = AccountName::from(target.as_str());
            shared.accounts().get(&name).ok_or_else(missing)?;
            None
        }
        Scheme::Operator(operator, _) => {
            let found = operator.find(shared, &target).await;
            Some(found.ok_or_else(missing)?)
        }
    };
    let facts = Facts {
        address: attempt.address,
        connection: attempt.connection,
        nonce: &attempt.nonce,
        signature: None,
        is_proxied: attempt.is_proxied,
        now,
        local_zone: &TimeZone::system(),
    };
    let admission = answer.admit(account.as_deref(), request.account, &facts)?;
    let login = login_of(attempt, admission);
    Ok(without_requests(login, request.account))
}

fn login_of(attempt: &Attempt, admission: Admission) -> Login {
    let connect = &attempt.connect;
    let given = connect.nkey.as_deref().or(connect.user.as_deref());
    let user = if admission.name.is_empty() {
        given.unwrap_or(&admission.user)
    } else {
        &admission.name
    };
    let options = permission_options(&admission.permissions);
    Login {
        stored: None,
        user: Some(user.into()),
        account: AccountName::from(admission.account.as_str()),
        permissions: options.map(|options| Arc::new(Permissions::new(&options))),
        grant: Some(Arc::new(Grant {
            issuer: admission
                .signing_key
                .clone()
                .unwrap_or_else(|| admission.account.clone()),
            admission,
            token: None,
        })),
    }
}

/// Users of the service's account must not send requests themselves.
pub(crate) fn without_requests(mut login: Login, callout_account: &str) -> Login {
    if login.account.as_str() == callout_account {
        let mut options: PermissionOptions = login
            .permissions
            .as_ref()
            .map(|permissions| permissions.options().clone())
            .unwrap_or_default();
        let subject = callout::SUBJECT.to_owned();
        if !options.publish.deny.contains(&subject) {
            options.publish.deny.push(subject);
        }
        login.permissions = Some(Arc::new(Permissions::new(&options)));
    }
    login
}

/// All that is known of the client.
fn describe(shared: &Shared, attempt: &Attempt) -> AuthorizationRequest {
    let connect = &attempt.connect;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let token_user = connect
        .jwt
        .as_deref()
        .and_then(|jwt| menes_auth::token::decode_user(jwt).ok());
    let user = if connect.nkey.is_some() {
        text(&connect.nkey)
    } else if connect.user.is_some() {
        text(&connect.user)
    } else if let Some(user) = token_user.as_ref().filter(|_| shared.operator().is_some()) {
        user.common.subject.clone()
    } else if connect.auth_token.is_some() {
        "[REDACTED]".to_owned()
    } else {
        String::new()
    };
    let nonce = connect.sig.as_ref().map(|_| attempt.nonce.to_string());
    AuthorizationRequest {
        server_id: ServerId {
            name: shared.name().to_owned(),
            host: shared.options().host.clone(),
            version: NATS_VERSION.to_owned(),
            ..ServerId::default()
        },
        client_info: ClientInformation {
            host: attempt.address.to_canonical().to_string(),
            id: i64::try_from(attempt.cid).unwrap_or(i64::MAX),
            user,
            name: text(&connect.name),
            kind: "Client".to_owned(),
            transport: transport_name(attempt).to_owned(),
            nonce: nonce.unwrap_or_default(),
            ..ClientInformation::default()
        },
        connect_opts: ConnectOptions {
            jwt: text(&connect.jwt),
            nkey: text(&connect.nkey),
            sig: text(&connect.sig),
            auth_token: text(&connect.auth_token),
            user: text(&connect.user),
            pass: text(&connect.pass),
            name: text(&connect.name),
            lang: text(&connect.lang),
            version: text(&connect.version),
            protocol: connect.protocol,
        },
        client_tls: attempt.tls.clone(),
        ..AuthorizationRequest::default()
    }
}

fn transport_name(attempt: &Attempt) -> &'static str {
    use menes_auth::admission::ConnectionType::{LeafnodeWs, MqttWs, WebSocket};
    match attempt.connection {
        WebSocket | LeafnodeWs | MqttWs => "websocket",
        _ => "nats",
    }
}

impl From<Transport> for menes_auth::admission::ConnectionType {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Nats => Self::Standard,
            Transport::WebSocket => Self::WebSocket,
        }
    }
}
