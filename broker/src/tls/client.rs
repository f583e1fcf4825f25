//! TLS towards other servers.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::TlsError;
use super::certificates::{authorities, fail};
use super::prepared::{provider, versions};
use crate::config::options::TlsOptions;

/// How to speak TLS as a client: whom to trust, by default the authorities of the operating system,
/// and which certificate to show, if any.
///
/// # Errors
/// Files that cannot be used, and options that leave nothing to agree on.
pub(crate) fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(provider(options)?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(options.min_version))
        .map_err(|error| TlsError::Nothing(error.to_string()))?;
    let builder = if options.insecure {
        let anyone = Arc::new(Anyone(provider));
        builder.dangerous().with_custom_certificate_verifier(anyone)
    } else {
        builder.with_root_certificates(authorities(options.ca_file.as_deref())?)
    };
    let Some(files) = options.certificates.first() else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.cert_file)
        .map_err(|error| fail(&files.cert_file, &error))?
        .collect();
    let chain = chain.map_err(|error| fail(&files.cert_file, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|error| fail(&files.key_file, &error))?;
    let config = builder.with_client_auth_cert(chain, key);
    config
        .map(Arc::new)
        .map_err(|error| fail(&files.key_file, &error))
}

/// Takes any server for the one that was meant, if it has the key of the certificate it shows.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
