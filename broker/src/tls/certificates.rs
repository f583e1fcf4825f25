//! Certificates and keys from files.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsError;
use crate::config::options::CertificateFiles;

/// The certificates of a listener, the first one for clients that name none of them.
#[derive(Debug)]
pub(super) struct Certificates(Vec<ArcSwap<CertifiedKey>>);

impl Certificates {
    pub(super) fn load(
        files: &[CertificateFiles],
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let keys: Result<Vec<_>, _> = files.iter().map(|pair| load(pair, provider)).collect();
        Ok(Self(keys?.into_iter().map(ArcSwap::new).collect()))
    }

    /// The one that is served to clients who ask for no name.
    pub(super) fn first(&self) -> Option<CertificateDer<'static>> {
        self.get(0)?.cert.first().cloned()
    }

    /// One of them, by its place in the configuration.
    pub(super) fn get(&self, at: usize) -> Option<Arc<CertifiedKey>> {
        self.0.get(at).map(ArcSwap::load_full)
    }

    /// Serves one of them with this staple from now on; with none if it is empty.
    pub(super) fn staple(&self, at: usize, staple: &[u8]) {
        let (Some(place), Some(key)) = (self.0.get(at), self.get(at)) else {
            return;
        };
        let mut fresh = CertifiedKey::new(key.cert.clone(), Arc::clone(&key.key));
        fresh.ocsp = (!staple.is_empty()).then(|| staple.to_vec());
        place.store(Arc::new(fresh));
    }

    fn named(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = ServerName::try_from(name).ok()?;
        self.0.iter().map(ArcSwap::load_full).find(|key| {
            let end = key.end_entity_cert().ok();
            let parsed = end.and_then(|end| rustls::server::ParsedCertificate::try_from(end).ok());
            parsed.is_some_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let can_sign =
            |key: &Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().and_then(|name| self.named(name));
        named
            .filter(can_sign)
            .or_else(|| self.0.iter().map(ArcSwap::load_full).find(can_sign))
            .or_else(|| self.get(0))
    }
}

/// Why a file of a certificate or its key cannot be used.
pub(super) fn fail(path: &Path, what: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pair(format!("{}: {what}", path.display()))
}

fn load(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.cert_file)
        .map_err(|error| fail(&files.cert_file, &error))?
        .collect();
    let chain = chain.map_err(|error| fail(&files.cert_file, &error))?;
    if chain.is_empty() {
        return Err(fail(&files.cert_file, &"holds no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|error| fail(&files.key_file, &error))?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Arc::new)
        .map_err(|error| fail(&files.key_file, &error))
}

/// The certificates in a file; none where it cannot be read.
pub(super) fn in_file(path: Option<&Path>) -> Vec<CertificateDer<'static>> {
    let all = path.and_then(|path| CertificateDer::pem_file_iter(path).ok());
    all.into_iter().flatten().filter_map(Result::ok).collect()
}

/// The authorities in `path`, or those of the operating system.
pub(super) fn authorities(path: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = path else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::Authorities(
                "name a 'ca_file', this system has no certificate authorities".into(),
            ));
        }
        return Ok(roots);
    };
    let fail =
        |what: &dyn std::fmt::Display| TlsError::Authorities(format!("{}: {what}", path.display()));
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fail(&error))? {
        let certificate = certificate.map_err(|error| fail(&error))?;
        roots.add(certificate).map_err(|error| fail(&error))?;
    }
    if roots.is_empty() {
        return Err(fail(&"holds no certificate in PEM"));
    }
    Ok(roots)
}
