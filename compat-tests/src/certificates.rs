//! Certificates made for one test: an authority, a server at 127.0.0.1, and a client.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tempfile::TempDir;

use crate::scenario::Scenario;

/// See the module; the files go when the value goes.
#[derive(Debug)]
pub struct Certificates(TempDir);

impl Certificates {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// If the files cannot be written.
    pub fn new() -> Result<Self> {
        let folder = TempDir::with_prefix("menes-certificates-")?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "an authority for a test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(folder.path().join("ca.pem"), issuer.pem())?;
        let certificates = Self(folder);
        certificates.sign(&issuer, "server", |params| {
            let address = [127, 0, 0, 1].into();
            params.subject_alt_names.push(SanType::IpAddress(address));
            let name = "localhost".try_into()?;
            params.subject_alt_names.push(SanType::DnsName(name));
            Ok(())
        })?;
        certificates.sign(&issuer, "client", |params| {
            let address = "client@example.com".try_into()?;
            params.subject_alt_names.push(SanType::Rfc822Name(address));
            Ok(())
        })?;
        Ok(certificates)
    }

    fn sign(
        &self,
        issuer: &CertifiedIssuer<'_, KeyPair>,
        name: &str,
        fill: impl FnOnce(&mut CertificateParams) -> Result<()>,
    ) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        // Python's library insists on knowing whose key signed.
        params.use_authority_key_identifier_extension = true;
        fill(&mut params)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?;
        fs::write(self.path(&format!("{name}.crt")), certificate.pem())?;
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The authority, in PEM.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The client's certificate and key, in PEM.
    #[must_use]
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.path("client.crt"), self.path("client.key"))
    }

    /// The keys of a server's `tls` section that name its files.
    #[must_use]
    pub fn server_keys(&self) -> String {
        let shown = |path: &Path| path.display().to_string();
        format!(
            "cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\"",
            shown(&self.path("server.crt")),
            shown(&self.path("server.key")),
            shown(&self.authority())
        )
    }

    /// The scenario with TLS in its environment: the authority, and the client's certificate.
    #[must_use]
    pub fn given_to(&self, scenario: Scenario) -> Scenario {
        let (certificate, key) = self.client();
        let shown = |path: &Path| path.display().to_string();
        scenario
            .variable("NATS_CA", &shown(&self.authority()))
            .variable("NATS_CERT", &shown(&certificate))
            .variable("NATS_KEY", &shown(&key))
            // For those that know no option of their own.
            .variable("NODE_EXTRA_CA_CERTS", &shown(&self.authority()))
    }
}
