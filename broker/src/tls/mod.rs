//! TLS of the listeners.
//!
//! A `Tls` belongs to one listener. What it is told to do can be replaced while the server runs:
//! new connections take the new certificates, open ones keep what they agreed on.

mod certificates;
mod client;
mod dn;
mod ocsp;
mod peer;
mod prepared;
mod staple;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use thiserror::Error;

pub(crate) use self::client::client_config;
pub(crate) use self::dn::Dn;
pub(crate) use self::peer::CertificateName;
pub use self::peer::{PeerCertificate, Secured};
pub(crate) use self::prepared::{
    OFFERED_CURVES, Prepared, Standing, standing_of_curve, standing_of_suite, suites,
};
pub(crate) use self::staple::Stapling;
use crate::config::options::TlsOptions;

/// Why TLS cannot be set up as asked, in the words of nats-server where it has any.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A certificate without a key.
    #[error("missing 'key_file' in TLS configuration")]
    MissingKey,
    /// A key without a certificate.
    #[error("missing 'cert_file' in TLS configuration")]
    MissingCertificate,
    /// A certificate and its key cannot be used.
    #[error("error parsing X509 certificate/key pair: {0}")]
    Pair(String),
    /// The file of certificate authorities cannot be used.
    #[error("failed to parse root ca certificate: {0}")]
    Authorities(String),
    /// The status of a certificate cannot be had, or is not good.
    #[error("{0}")]
    Staple(String),
    /// Cipher suites, curves and versions leave nothing to agree on.
    #[error("{0}")]
    Nothing(String),
}

/// What a listener does about TLS now; nothing where it speaks in the clear.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    current: ArcSwapOption<Prepared>,
    rate: Mutex<Rate>,
}

/// Handshakes begun in the current second.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    count: u32,
}

/// Reads the files that `options` name, without keeping anything.
///
/// # Errors
/// Files that cannot be used, and options that leave nothing to agree on.
pub fn check(options: &TlsOptions) -> Result<(), TlsError> {
    Prepared::new(options).map(drop)
}

/// Names of the cipher suites that are offered.
pub fn cipher_suites() -> impl Iterator<Item = &'static str> {
    suites()
}

/// Names of the curves that are offered.
pub fn curves() -> impl Iterator<Item = &'static str> {
    OFFERED_CURVES.iter().copied()
}

impl Tls {
    /// TLS that stays as it is.
    pub(crate) fn fixed(prepared: Prepared) -> Arc<Self> {
        let tls = Self::default();
        tls.replace(Some(prepared));
        Arc::new(tls)
    }

    /// What holds for a connection that begins now.
    pub(crate) fn current(&self) -> Option<Arc<Prepared>> {
        self.current.load_full()
    }

    /// Whether TLS is on.
    pub(crate) fn is_on(&self) -> bool {
        self.current.load().is_some()
    }

    /// Makes `prepared` hold for the connections to come.
    pub(crate) fn replace(&self, prepared: Option<Prepared>) {
        self.current.store(prepared.map(Arc::new));
    }

    /// Whether one more handshake may begin in this second.
    pub(crate) fn admits(&self, prepared: &Prepared, now: Instant) -> bool {
        let Some(limit) = prepared.options().connection_rate_limit else {
            return true;
        };
        let mut rate = self.rate.lock();
        let is_over = |since: Instant| now.duration_since(since).as_secs() >= 1;
        if rate.since.is_none_or(is_over) {
            *rate = Rate {
                since: Some(now),
                count: 0,
            };
        }
        let admitted = rate.count < limit;
        if admitted {
            rate.count += 1;
        }
        admitted
    }
}

#[cfg(test)]
mod tests;
