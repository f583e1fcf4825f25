//! Account tokens by message: `$SYS.REQ.CLAIMS.UPDATE` and its kin, in the system account.
//!
//! Requests are taken from the router and answered one after the other on a thread of their own,
//! which also watches accounts expire.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use menes_auth::admission::AccountError;
use menes_auth::key::KeyKind;
use menes_auth::token;
use menes_auth::validation::Validate;
use menes_jetstream::ids::AccountName;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::directory::Directory;
use super::{Operator, Resolver, now};
use crate::account::Account;
use crate::routing::{Message, Receiver};
use crate::server::Shared;
use crate::system::ServerInfo;

/// Requests that wait at most; more are dropped, and time out.
const MAX_WAITING: usize = 1024;
/// How often it is looked for accounts that have expired, at least.
const EXPIRY_CHECK: Duration = Duration::from_secs(60);

const UPDATE: &str = "$SYS.REQ.CLAIMS.UPDATE";
const LIST: &str = "$SYS.REQ.CLAIMS.LIST";
const DELETE: &str = "$SYS.REQ.CLAIMS.DELETE";
const PACK: &str = "$SYS.REQ.CLAIMS.PACK";
const ACCOUNT_UPDATE: &str = "$SYS.REQ.ACCOUNT.*.CLAIMS.UPDATE";
const OLD_ACCOUNT_UPDATE: &str = "$SYS.ACCOUNT.*.CLAIMS.UPDATE";
const LOOKUP: &str = "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP";

/// The running services. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct RunningClaims {
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for RunningClaims {
    fn drop(&mut self) {
        // It is gone already if the thread ended.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for account tokens ended in a panic");
        }
    }
}

/// Starts the services of a server that has an operator.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Option<RunningClaims>> {
    let Some(operator) = shared.operator().cloned() else {
        return Ok(None);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (requests, incoming) = mpsc::channel(MAX_WAITING);
    let (stop, stopping) = watch::channel(());
    let services = Services {
        shared: Arc::clone(shared),
        operator,
    };
    services.subscribe(&Arc::new(Inbox(requests)));
    let thread = thread::Builder::new()
        .name("menes-claims".to_owned())
        .spawn(move || runtime.block_on(services.run(incoming, stopping)))?;
    Ok(Some(RunningClaims {
        stop,
        thread: Some(thread),
    }))
}

/// Takes requests from the router.
#[derive(Debug)]
struct Inbox(mpsc::Sender<Request>);

#[derive(Debug)]
struct Request {
    subject: String,
    reply: Vec<u8>,
    payload: Vec<u8>,
}

impl Receiver for Inbox {
    fn receive(&self, _: &Arc<Account>, message: &Message<'_>) -> bool {
        let request = Request {
            subject: String::from_utf8_lossy(message.subject).into_owned(),
            reply: message.reply.to_vec(),
            payload: message.payload.to_vec(),
        };
        self.0.try_send(request).is_ok()
    }
}

struct Services {
    shared: Arc<Shared>,
    operator: Arc<Operator>,
}

/// What became of an update or a deletion.
#[derive(Serialize)]
struct Status<'a> {
    server: ServerInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Done<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failed<'a>>,
}

#[derive(Serialize)]
struct Done<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    account: &'a str,
    code: u16,
    message: &'a str,
}

#[derive(Serialize)]
struct Failed<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    account: &'a str,
    code: u16,
    description: String,
}

#[derive(Serialize)]
struct List<'a> {
    server: ServerInfo<'a>,
    data: Vec<String>,
}

impl Services {
    fn account(&self) -> Option<Arc<Account>> {
        let system = self.operator.system_account.as_deref()?;
        Some(
            self.shared
                .accounts()
                .get_or_create(&AccountName::from(system)),
        )
    }

    fn directory(&self) -> Option<&Directory> {
        match &self.operator.resolver {
            Resolver::Directory(directory) => Some(directory),
            Resolver::Memory(_) | Resolver::Url(_) => None,
        }
    }

    /// The subscriptions live as long as the server.
    fn subscribe(&self, inbox: &Arc<Inbox>) {
        let Some(account) = self.account() else {
            return;
        };
        let mut subjects = vec![ACCOUNT_UPDATE, OLD_ACCOUNT_UPDATE];
        if let Some(directory) = self.directory() {
            subjects.extend([UPDATE, LIST, DELETE]);
            if !directory.is_cache() {
                subjects.extend([LOOKUP, PACK]);
            }
            let what = if directory.is_cache() { "some" } else { "all" };
            tracing::info!(
                "Managing {what} jwt in exclusive directory {}",
                directory.folder().display()
            );
        }
        for subject in subjects {
            let queue = (subject == PACK).then_some(&b"responder"[..]);
            let receiver = Arc::clone(inbox) as Arc<dyn Receiver>;
            drop(account.subscribe_receiver(subject.as_bytes(), queue, receiver));
        }
    }

    async fn run(self, mut incoming: mpsc::Receiver<Request>, mut stopping: watch::Receiver<()>) {
        loop {
            let next = self.expire();
            tokio::select! {
                // Without an account of the system nobody can ask; accounts still expire.
                Some(request) = incoming.recv() => self.answer(&request),
                () = tokio::time::sleep(next) => {}
                () = self.operator.installed.notified() => {}
                _ = stopping.changed() => return,
            }
        }
    }

    /// Ends what has expired. Gives the time to the next look.
    fn expire(&self) -> Duration {
        if let Some(directory) = self.directory() {
            for account in directory.expire(now()) {
                tracing::debug!("account {account} has expired");
            }
        }
        let next = self.operator.expire(&self.shared);
        let wait = next.and_then(|next| u64::try_from(next.saturating_sub(now())).ok());
        wait.map_or(EXPIRY_CHECK, |seconds| {
            // A whole second later it has expired for sure.
            Duration::from_secs(seconds.max(1)).min(EXPIRY_CHECK)
        })
    }

    fn answer(&self, request: &Request) {
        let account = |place: usize| request.subject.split('.').nth(place).unwrap_or_default();
        match request.subject.as_str() {
            UPDATE => self.update(request, None),
            LIST => self.list(request),
            DELETE => self.delete(request),
            PACK => self.pack(request),
            subject if subject.ends_with(".CLAIMS.LOOKUP") => self.look_up(request, account(3)),
            subject if subject.starts_with("$SYS.REQ.ACCOUNT.") => {
                self.update(request, Some(account(3)));
            }
            _ => self.update(request, Some(account(2))),
        }
    }

    fn update(&self, request: &Request, expected: Option<&str>) {
        match self.try_update(&request.payload, expected) {
            Ok((account, message)) => self.succeeded(request, &account, message),
            Err((account, message, error)) => self.failed(request, &account, message, &error),
        }
    }

    /// Gives the account and what was done, or the account, what was not done, and why.
    fn try_update(
        &self,
        payload: &[u8],
        expected: Option<&str>,
    ) -> Result<(String, &'static str), (String, &'static str, String)> {
        let is_cache = self.directory().is_some_and(Directory::is_cache);
        let (not_done, invalid, skipped, done) = if is_cache {
            (
                "jwt update cache resulted in error",
                "jwt update cache validation failed",
                "jwt update cache skipped",
                "jwt updated cache",
            )
        } else {
            (
                "jwt update resulted in error",
                "jwt validation failed",
                "jwt update skipped",
                "jwt updated",
            )
        };
        let text = String::from_utf8_lossy(payload);
        let text = text.trim();
        let unknown = || expected.unwrap_or("n/a").to_owned();
        let claims = token::decode_account(text)
            .map_err(|error| (unknown(), not_done, error.to_string()))?;
        let key = claims.common.subject.clone();
        let fail = |message, error: String| Err((key.clone(), message, error));
        if let Some(expected) = expected.filter(|expected| *expected != key) {
            let error = "subject does not match jwt content".to_owned();
            return Err((expected.to_owned(), not_done, error));
        }
        let is_identity = self
            .operator
            .trust()
            .operators()
            .iter()
            .any(|operator| operator.common.subject == claims.common.issuer);
        if !self.operator.trust().has_key(&claims.common.issuer) {
            let error = if is_identity {
                "operator requires issuer to be a signing key".to_owned()
            } else {
                AccountError::NotTrusted.to_string()
            };
            return fail(not_done, error);
        }
        let is_loaded = self.operator.loaded(&key).is_some();
        if !is_loaded && self.directory().is_none_or(Directory::is_cache) {
            return Ok((key, skipped));
        }
        if let Some(issue) = claims.issues(now()).blocking() {
            return fail(invalid, issue.to_string());
        }
        if let Some(directory) = self.directory()
            && let Err(error) = directory.save(&key, text)
        {
            return fail(not_done, error.to_string());
        }
        if let Resolver::Memory(tokens) = &self.operator.resolver {
            tokens.lock().insert(key.clone(), text.to_owned());
        }
        match self.operator.update(&self.shared, &key, text) {
            Ok(()) => Ok((key, done)),
            Err(error) => fail(not_done, error.to_string()),
        }
    }

    fn look_up(&self, request: &Request, account: &str) {
        let Some(directory) = self.directory() else {
            return;
        };
        match directory.load(account) {
            Ok(text) => self.reply(request, text.unwrap_or_default().as_bytes()),
            Err(error) => {
                tracing::error!("DirResolver - Error looking up account {account:?}: {error}")
            }
        }
    }

    fn list(&self, request: &Request) {
        let Some(directory) = self.directory() else {
            return;
        };
        let answer = List {
            server: self.server(),
            data: directory.keys(),
        };
        self.reply_json(request, &answer);
    }

    /// One message for each token, and an empty one at the end; that alone when the other side
    /// holds the same already.
    fn pack(&self, request: &Request) {
        let Some(directory) = self.directory() else {
            return;
        };
        if request.payload != directory.hash() {
            for account in directory.keys() {
                match directory.load(&account) {
                    Ok(Some(text)) if !text.is_empty() => {
                        self.reply(request, format!("{account}|{text}").as_bytes());
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!("DirResolver - Pack request error: {error}"),
                }
            }
        }
        self.reply(request, b"");
    }

    fn delete(&self, request: &Request) {
        let text = String::from_utf8_lossy(&request.payload);
        let claims = token::decode_generic(text.trim());
        let subject = claims
            .as_ref()
            .map_or("", |claims| claims.common.subject.as_str())
            .to_owned();
        let accounts = claims
            .map_err(|error| error.to_string())
            .and_then(|claims| self.accounts_to_delete(&claims.common.issuer, &claims));
        let accounts = match accounts {
            Ok(accounts) => accounts,
            Err(error) => {
                let message = format!("delete accounts request by {subject} failed");
                return self.failed(request, "", &message, &error);
            }
        };
        let (mut count, mut errors) = (0, Vec::new());
        for account in accounts {
            let Some(directory) = self.directory() else {
                return;
            };
            match directory.delete(&account) {
                Ok(_) => {
                    count += 1;
                    self.operator.forget(&self.shared, &account);
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        if errors.is_empty() {
            self.succeeded(request, "", &format!("deleted {count} accounts"));
        } else {
            let message = format!("deleted {count} accounts, failed for {}", errors.len());
            self.failed(request, "", &message, &errors.join("\n"));
        }
    }

    fn accounts_to_delete(
        &self,
        issuer: &str,
        claims: &menes_auth::claims::Claims<serde_json::Map<String, Value>>,
    ) -> Result<Vec<String>, String> {
        let refused = |what: &str| Err(what.to_owned());
        if !self.directory().is_some_and(Directory::deletes) {
            return refused("delete must be enabled in server config");
        }
        if claims.common.subject != issuer {
            return refused("not self signed");
        }
        if !self.operator.trust().has_key(issuer) {
            return refused("not trusted");
        }
        if claims.issues(now()).blocking().is_some() {
            return refused("not valid at this time");
        }
        let Some(Value::Array(list)) = claims.nats.get("accounts") else {
            return refused("malformed request");
        };
        let mut accounts = Vec::new();
        for entry in list {
            match entry.as_str() {
                Some(account) if self.operator.system_account.as_deref() == Some(account) => {
                    return refused("not allowed to delete system account");
                }
                Some(account) if KeyKind::Account.is_public_key(account) => {
                    accounts.push(account.to_owned());
                }
                _ => return refused("malformed request"),
            }
        }
        Ok(accounts)
    }

    fn succeeded(&self, request: &Request, account: &str, message: &str) {
        tracing::debug!("{message} - {account}");
        let status = Status {
            server: self.server(),
            data: Some(Done {
                account,
                code: 200,
                message,
            }),
            error: None,
        };
        self.reply_json(request, &status);
    }

    fn failed(&self, request: &Request, account: &str, message: &str, error: &str) {
        tracing::error!("{message} - {account} - {error}");
        let status = Status {
            server: self.server(),
            data: None,
            error: Some(Failed {
                account,
                code: 500,
                description: format!("{message} - {error}"),
            }),
        };
        self.reply_json(request, &status);
    }

    fn server(&self) -> ServerInfo<'_> {
        ServerInfo::of(&self.shared)
    }

    fn reply_json(&self, request: &Request, document: &impl Serialize) {
        match serde_json::to_vec(document) {
            Ok(bytes) => self.reply(request, &bytes),
            Err(error) => tracing::error!("an answer cannot be written: {error}"),
        }
    }

    fn reply(&self, request: &Request, payload: &[u8]) {
        if request.reply.is_empty() {
            return;
        }
        if let Some(account) = self.account() {
            let message = Message::new(&request.reply, payload);
            self.shared.send_internally(&account, &message);
        }
    }
}
