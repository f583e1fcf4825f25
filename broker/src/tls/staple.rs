//! Staples: what an authority says of a certificate, served with the certificate.
//!
//! ```text
//!   kept in the store folder ─┐
//!                             ├─▶ staple ─▶ handshakes
//!   asked of the authority ───┘      ▲
//!                                    └── asked again at half of the time for which it holds
//! ```
//!
//! A certificate whose staple cannot be had does not start a server, as in nats-server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, HEXLOWER};
use hyper::Uri;
use sha2::{Digest, Sha256};
use tokio::runtime::Builder;
use tokio::sync::Notify;

use super::TlsError;
use super::certificates::Certificates;
use super::ocsp::{Answer, Certified, MAX_ANSWER, OcspError, Status, insists};
use crate::config::options::{OcspMode, OcspOptions, TlsOptions};
use crate::fetch::{self, Question};

/// Time for one responder to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// When to ask again after a question that failed.
const RETRY: Duration = Duration::from_secs(120);
const REQUEST_TYPE: &str = "application/ocsp-request";

/// How certificates of a listener are stapled.
pub(crate) struct Stapling<'s> {
    /// What is asked for.
    pub(crate) options: &'s OcspOptions,
    /// What the listener is called in the log.
    pub(crate) kind: &'static str,
    /// Told when the server must not go on, because its certificate was revoked.
    pub(crate) stop: &'s Arc<Notify>,
}

/// Ends the keeping of staples when it is dropped.
#[derive(Debug)]
pub(super) struct Keeping {
    _ends: Vec<mpsc::Sender<()>>,
}

/// One certificate to be stapled.
struct Staple {
    kind: &'static str,
    file: String,
    certified: Certified,
    responders: Vec<String>,
    /// Where the answer is kept; nowhere without a store folder.
    kept: Option<PathBuf>,
    /// The server ends when the certificate is not good.
    must_be_good: bool,
}

/// Staples the certificates that want it, and keeps doing so until the result is dropped.
///
/// # Errors
/// A certificate that insists, or is to be stapled in any case, whose status cannot be had or is
/// not good.
pub(super) fn keep(
    certificates: &Arc<Certificates>,
    options: &TlsOptions,
    stapling: &Stapling<'_>,
) -> Result<Keeping, TlsError> {
    let mut ends = Vec::new();
    for (at, files) in options.certificates.iter().enumerate() {
        let Some(key) = certificates.get(at) else {
            continue;
        };
        let file = files.cert_file.display().to_string();
        let must_staple = key.cert.first().is_some_and(|der| insists(der));
        let (wanted, must_be_good) = match stapling.options.mode {
            OcspMode::Never => {
                if must_staple {
                    tracing::warn!("Certificate at '{file}' has MustStaple but OCSP is disabled");
                }
                continue;
            }
            OcspMode::Always => (true, true),
            OcspMode::Must => (must_staple, true),
            OcspMode::Auto => (must_staple, false),
        };
        if !wanted {
            continue;
        }
        let failed = |error: OcspError| {
            TlsError::Staple(format!(
                "bad OCSP status update for certificate at '{file}': {error}"
            ))
        };
        let authorities = super::certificates::in_file(options.ca_file.as_deref());
        let authorities = authorities.iter().map(AsRef::as_ref);
        let certified = Certified::of(&key.cert, authorities).map_err(failed)?;
        let own = stapling.options.urls.clone();
        let staple = Staple {
            kind: stapling.kind,
            responders: if own.is_empty() {
                certified.responders()
            } else {
                own
            },
            kept: stapling.options.folder.as_ref().zip(key.cert.first()).map(
                |(folder, certificate)| folder.join(HEXLOWER.encode(&Sha256::digest(certificate))),
            ),
            certified,
            file: file.clone(),
            must_be_good,
        };
        let answer = staple.first().map_err(failed)?;
        if must_be_good && answer.status != Status::Good {
            return Err(TlsError::Staple(format!(
                "found existing OCSP status for certificate at '{file}': {}",
                answer.status.name()
            )));
        }
        certificates.staple(at, &answer.bytes);
        ends.push(staple.renew(Arc::downgrade(certificates), at, answer, stapling.stop)?);
    }
    if !ends.is_empty() {
        tracing::info!("OCSP Stapling enabled for {} connections", stapling.kind);
    }
    Ok(Keeping { _ends: ends })
}

impl Staple {
    /// The answer that was kept, if it still holds, else a new one.
    fn first(&self) -> Result<Answer, OcspError> {
        let now = SystemTime::now();
        let kept = self.kept.as_ref().and_then(|path| fs::read(path).ok());
        if let Some(answer) = kept.and_then(|bytes| self.certified.answer(&bytes, now).ok()) {
            return Ok(answer);
        }
        // The caller may be in a runtime already, where nothing may be waited for.
        let asked = thread::scope(|scope| scope.spawn(|| self.ask()).join());
        asked.unwrap_or_else(|_| Err(OcspError::Exhausted("the question failed".to_owned())))
    }

    /// Asks those who are to be asked, one after the other.
    fn ask(&self) -> Result<Answer, OcspError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| OcspError::Exhausted(error.to_string()))?;
        let bytes = runtime.block_on(self.ask_all())?;
        let answer = self.certified.answer(&bytes, SystemTime::now())?;
        if let Some(path) = &self.kept {
            write(path, &answer.bytes).map_err(OcspError::Store)?;
        }
        Ok(answer)
    }

    async fn ask_all(&self) -> Result<Vec<u8>, OcspError> {
        let question = self.certified.question()?;
        let mut problems = Vec::new();
        for responder in &self.responders {
            let base = responder.trim_end_matches('/');
            let posted = Some((REQUEST_TYPE, question.clone()));
            let in_path = format!("{base}/{}", BASE64.encode(&question));
            for (url, body) in [(responder.clone(), posted), (in_path, None)] {
                match tokio::time::timeout(TIMEOUT, ask_one(&url, body)).await {
                    Ok(Ok(bytes)) => return Ok(bytes),
                    Ok(Err(error)) => problems.push(error.to_string()),
                    Err(_) => problems.push(format!("{base}: timeout")),
                }
            }
        }
        if self.responders.is_empty() {
            return Err(OcspError::NoResponder);
        }
        Err(OcspError::Exhausted(problems.join("; ")))
    }

    /// Renews the staple until the certificates are gone, or the sender that is returned.
    fn renew(
        self,
        certificates: Weak<Certificates>,
        at: usize,
        mut answer: Answer,
        stop: &Arc<Notify>,
    ) -> Result<mpsc::Sender<()>, TlsError> {
        let (sender, end) = mpsc::channel();
        let stop = Arc::clone(stop);
        let run = move || {
            let mut wait = self.note("Found", &answer);
            while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(wait) {
                match self.ask() {
                    Ok(fresh) => answer = fresh,
                    Err(error) => {
                        wait = RETRY;
                        tracing::error!(
                            "Bad OCSP status update for certificate '{}': {error}, trying again in {wait:?}",
                            self.file
                        );
                        let Some(certificates) = certificates.upgrade() else {
                            return;
                        };
                        if !answer.holds(SystemTime::now()) {
                            certificates.staple(at, &[]);
                        }
                        continue;
                    }
                }
                let Some(certificates) = certificates.upgrade() else {
                    return;
                };
                certificates.staple(at, &answer.bytes);
                wait = self.note("Received", &answer);
                if answer.status != Status::Good && self.must_be_good {
                    stop.notify_one();
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("menes-ocsp".to_owned())
            .spawn(run)
            .map(|_| sender)
            .map_err(|error| TlsError::Staple(error.to_string()))
    }

    /// Logs an answer, and gives the time until the next question.
    fn note(&self, how: &str, answer: &Answer) -> Duration {
        let wait = answer.ask_again_in(SystemTime::now());
        let (kind, file, status) = (self.kind, &self.file, answer.status.name());
        if answer.status == Status::Good {
            tracing::info!(
                "{how} OCSP status for {kind} certificate at '{file}': good, next update {}, checking again in {wait:?}",
                answer.until()
            );
        } else {
            tracing::error!("{how} OCSP status for {kind} certificate at '{file}': {status}");
        }
        wait
    }
}

async fn ask_one(url: &str, body: Option<(&'static str, Vec<u8>)>) -> io::Result<Vec<u8>> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let question = Question {
        uri: &uri,
        body,
        tls: None,
        limit: MAX_ANSWER,
    };
    let (status, bytes) = fetch::ask(question).await?;
    if !status.is_success() {
        return Err(io::Error::other(format!("non-ok http status: {status}")));
    }
    Ok(bytes.to_vec())
}

/// Writes a file as a whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, path)
}
