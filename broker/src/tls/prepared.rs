//! Options of TLS, made ready for handshakes.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SupportedProtocolVersion, version};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use super::certificates::{Certificates, authorities, in_file};
use super::staple::{self, Keeping, Stapling};
use crate::config::options::{TlsOptions, TlsVersion};

/// See the module.
pub(crate) struct Prepared {
    options: TlsOptions,
    config: Arc<ServerConfig>,
    /// The same without a question for the client's certificate.
    open: Arc<ServerConfig>,
    expires: Option<SystemTime>,
    authorities: Vec<CertificateDer<'static>>,
    certificates: Arc<Certificates>,
    stapled: Option<Keeping>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    /// Reads the files that `options` name.
    ///
    /// # Errors
    /// Files that cannot be used, and options that leave nothing to agree on.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, TlsError> {
        if options.certificates.is_empty() {
            return Err(TlsError::MissingCertificate);
        }
        let provider = Arc::new(provider(options)?);
        let certificates = Certificates::load(&options.certificates, &provider)?;
        let expires = certificates.first().and_then(|der| not_after(&der));
        let certificates = Arc::new(certificates);
        let verifier = if options.verify {
            let roots = Arc::new(authorities(options.ca_file.as_deref())?);
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| TlsError::Authorities(error.to_string()))?
        } else {
            if let Some(path) = &options.ca_file {
                // A file that is named must be readable, used or not.
                authorities(Some(path))?;
            }
            Arc::new(NoClientAuth)
        };
        let versions = versions(options.min_version);
        let config = |verifier| -> Result<Arc<ServerConfig>, TlsError> {
            let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)
                .map_err(|error| TlsError::Nothing(error.to_string()))?
                .with_client_cert_verifier(verifier)
                .with_cert_resolver(Arc::<Certificates>::clone(&certificates));
            Ok(Arc::new(config))
        };
        Ok(Self {
            config: config(verifier)?,
            open: config(Arc::new(NoClientAuth))?,
            authorities: if options.verify {
                in_file(options.ca_file.as_deref())
            } else {
                Vec::new()
            },
            options: options.clone(),
            expires,
            certificates,
            stapled: None,
        })
    }

    /// Has its certificates stapled, where they or the configuration want that.
    ///
    /// # Errors
    /// See [`staple::keep`].
    pub(crate) fn staple(mut self, stapling: &Stapling<'_>) -> Result<Self, TlsError> {
        self.stapled = Some(staple::keep(&self.certificates, &self.options, stapling)?);
        Ok(self)
    }

    /// What it was made from.
    pub(crate) fn options(&self) -> &TlsOptions {
        &self.options
    }

    /// Who signs clients' certificates, where a file says so.
    pub(crate) fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Makes handshakes.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Makes handshakes that never ask for a certificate, as monitoring does.
    pub(crate) fn open_acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.open))
    }

    /// When the first certificate is no longer valid.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.expires
    }
}

fn not_after(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds))
}

pub(super) fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    static LATEST: &[&SupportedProtocolVersion] = &[&version::TLS13];
    match min {
        TlsVersion::Tls12 => BOTH,
        TlsVersion::Tls13 => LATEST,
    }
}

pub(super) fn provider(options: &TlsOptions) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(names) = &options.cipher_suites {
        // As in Go, the suites of TLS 1.3 cannot be chosen.
        provider.cipher_suites.retain(|suite| {
            suite.version().version == ProtocolVersion::TLSv1_3
                || names
                    .iter()
                    .any(|name| suite_name(suite.suite()) == Some(name))
        });
        let has_old = provider
            .cipher_suites
            .iter()
            .any(|suite| suite.version().version == ProtocolVersion::TLSv1_2);
        let wants_old = names
            .iter()
            .any(|name| !name.starts_with("TLS_AES_") && !name.starts_with("TLS_CHACHA20_"));
        if wants_old && !has_old && options.min_version == TlsVersion::Tls12 && !names.is_empty() {
            return Err(TlsError::Nothing(format!(
                "none of the cipher suites {} is offered by this server; it has {}",
                names.join(", "),
                suites().collect::<Vec<_>>().join(", ")
            )));
        }
    }
    if let Some(names) = &options.curve_preferences {
        provider.kx_groups = names.iter().filter_map(|name| curve(name)).collect();
        if provider.kx_groups.is_empty() {
            return Err(TlsError::Nothing(format!(
                "none of the curves {} is offered by this server; it has {}",
                names.join(", "),
                OFFERED_CURVES.join(", ")
            )));
        }
    }
    Ok(provider)
}

/// Cipher suites of TLS 1.2 and 1.3 that this server has, by the names of IANA.
const SUITES: &[(CipherSuite, &str)] = &[
    (
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_128_GCM_SHA256",
    ),
    (
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        "TLS_AES_256_GCM_SHA384",
    ),
    (
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
];

/// Suites that Go has and counts as sound; configurations may name them, nobody is offered them.
const KNOWN_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// Suites that Go has and counts as insecure.
const INSECURE_SUITES: &[&str] = &[
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// How this server stands to something a configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is offered.
    Offered,
    /// nats-server would offer it, this server does not.
    Left,
    /// nats-server wants to be told twice, this server does not offer it.
    Insecure,
}

/// How this server stands to a cipher suite; `None` for one that nobody knows.
pub(crate) fn standing_of_suite(name: &str) -> Option<Standing> {
    if SUITES.iter().any(|(_, known)| *known == name) {
        Some(Standing::Offered)
    } else if KNOWN_SUITES.contains(&name) {
        Some(Standing::Left)
    } else if INSECURE_SUITES.contains(&name) {
        Some(Standing::Insecure)
    } else {
        None
    }
}

/// The names of the cipher suites offered.
pub(crate) fn suites() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|(_, name)| *name)
}

/// The name of a suite this server has.
pub(super) fn suite_name(suite: CipherSuite) -> Option<&'static str> {
    SUITES
        .iter()
        .find_map(|(known, name)| (*known == suite).then_some(*name))
}

/// Curves that are offered when a configuration names them.
pub(crate) const OFFERED_CURVES: &[&str] = &[
    "X25519MLKEM768",
    "SecP256r1MLKEM768",
    "X25519",
    "CurveP256",
    "CurveP384",
];

/// Curves that nats-server knows and this server does not have.
const LEFT_CURVES: &[&str] = &["CurveP521", "SecP384r1MLKEM1024"];

/// How this server stands to a curve; `None` for one that nobody knows.
pub(crate) fn standing_of_curve(name: &str) -> Option<Standing> {
    if OFFERED_CURVES.contains(&name) {
        Some(Standing::Offered)
    } else if LEFT_CURVES.contains(&name) {
        Some(Standing::Left)
    } else {
        None
    }
}

fn curve(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    let group = match name {
        "X25519" => NamedGroup::X25519,
        "CurveP256" => NamedGroup::secp256r1,
        "CurveP384" => NamedGroup::secp384r1,
        "X25519MLKEM768" => NamedGroup::X25519MLKEM768,
        "SecP256r1MLKEM768" => NamedGroup::secp256r1MLKEM768,
        _ => return None,
    };
    aws_lc_rs::ALL_KX_GROUPS
        .iter()
        .find(|known| known.name() == group)
        .copied()
}
