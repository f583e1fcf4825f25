//! What a TLS client is known by.

use std::fmt::Write;

use data_encoding::BASE64;
use menes_auth::claims::authorization::ClientTls;
use rustls::pki_types::CertificateDer;
use rustls::{ProtocolVersion, ServerConnection};
use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::dn::{Dn, short_name, text_of};
use super::prepared::suite_name;

/// What a finished handshake agreed on, and who the client is by its certificate.
#[derive(Clone, Debug, Default)]
pub struct Secured {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite, by its name at IANA.
    pub cipher_suite: &'static str,
    /// The handshake came before INFO.
    pub is_first: bool,
    /// The client's certificates, its own first; empty when none was asked for.
    pub certificates: Vec<PeerCertificate>,
    /// What users the first certificate may stand for, in the order to be tried.
    pub(crate) names: Vec<CertificateName>,
    /// The client's certificates in DER.
    pub chain: Vec<Vec<u8>>,
}

/// A certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerCertificate {
    /// Subject, as Go writes it.
    pub subject: String,
    /// SHA-256 of the public key with its kind, in hexadecimal.
    pub spki_sha256: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub cert_sha256: String,
}

/// A name that a certificate gives its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateName {
    /// Equal to the name of a user.
    Text(String),
    /// Equal to the name of a user that is read as a distinguished name.
    Dn(Dn),
}

impl Secured {
    /// What a connection agreed on.
    pub(crate) fn of(connection: &ServerConnection, is_first: bool) -> Self {
        let chain = connection.peer_certificates().unwrap_or_default();
        let certificates = chain.iter().filter_map(|der| certificate(der)).collect();
        let names = chain.first().map(|der| names(der)).unwrap_or_default();
        let suite = connection.negotiated_cipher_suite();
        Self {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                _ => "unknown",
            },
            cipher_suite: suite
                .and_then(|suite| suite_name(suite.suite()))
                .unwrap_or("unknown"),
            is_first,
            certificates,
            names,
            chain: chain.iter().map(|der| der.to_vec()).collect(),
        }
    }

    /// As a service is told that decides about the client. To a chain that was verified belongs the
    /// authority that it leads to, which clients do not send.
    pub(crate) fn described(&self, authorities: &[CertificateDer<'_>]) -> ClientTls {
        let mut chain: Vec<&[u8]> = self.chain.iter().map(Vec::as_slice).collect();
        if let Some(issuer) = self.chain.last().and_then(|last| names_of(last)?.1) {
            let is_issuer = |der: &&CertificateDer<'_>| {
                names_of(der).is_some_and(|(subject, _)| subject == issuer)
            };
            chain.extend(
                authorities
                    .iter()
                    .find(is_issuer)
                    .map(AsRef::<[u8]>::as_ref),
            );
        }
        let chain: Vec<String> = chain.into_iter().map(pem).collect();
        ClientTls {
            version: self.version.to_owned(),
            cipher: self.cipher_suite.to_owned(),
            certs: Vec::new(),
            verified_chains: if chain.is_empty() {
                Vec::new()
            } else {
                vec![chain]
            },
        }
    }

    /// Whether the client's certificate is among the pinned ones, if there are any.
    pub(crate) fn is_pinned(&self, pinned: &[String]) -> bool {
        pinned.is_empty()
            || self
                .certificates
                .first()
                .is_some_and(|own| pinned.contains(&own.spki_sha256))
    }
}

/// The subject of a certificate, and its issuer if that is another, in DER.
fn names_of(der: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let subject = parsed.subject().as_raw().to_vec();
    let issuer = parsed.issuer().as_raw().to_vec();
    let issuer = Some(issuer).filter(|issuer| *issuer != subject);
    Some((subject, issuer))
}

/// Characters of one line of PEM.
const PEM_LINE: usize = 64;

fn pem(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn certificate(der: &[u8]) -> Option<PeerCertificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(PeerCertificate {
        subject: subject_text(parsed.subject()),
        spki_sha256: hex(&Sha256::digest(parsed.public_key().raw)),
        cert_sha256: hex(&Sha256::digest(der)),
    })
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// E-mail addresses, host names and URIs among the alternative names, then the subject: as a
/// distinguished name, as text with its domain components behind it, as text.
fn names(der: &[u8]) -> Vec<CertificateName> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        let alternatives = &alternatives.value.general_names;
        let mut put = |pick: fn(&GeneralName<'_>) -> Option<String>| {
            names.extend(
                alternatives
                    .iter()
                    .filter_map(pick)
                    .map(CertificateName::Text),
            );
        };
        put(|name| match name {
            GeneralName::RFC822Name(text) => Some((*text).to_owned()),
            _ => None,
        });
        put(|name| match name {
            GeneralName::DNSName(text) => Some((*text).to_owned()),
            _ => None,
        });
        put(|name| match name {
            GeneralName::URI(text) => Some((*text).to_owned()),
            _ => None,
        });
    }
    let subject = certificate.subject();
    names.extend(Dn::of_subject(subject).map(CertificateName::Dn));
    let text = subject_text(subject);
    let components = domain_components(subject);
    if !components.is_empty() {
        names.push(CertificateName::Text(format!("{text},{components}")));
    }
    names.push(CertificateName::Text(text));
    // Nobody is called nothing.
    names.retain(|name| *name != CertificateName::Text(String::new()));
    names
}

fn domain_components(subject: &X509Name<'_>) -> String {
    let components: Vec<String> = subject
        .iter_attributes()
        .filter(|attribute| short_name(attribute.attr_type()) == Some("DC"))
        .filter_map(|attribute| text_of(attribute).map(|text| format!("DC={text}")))
        .collect();
    components.join(",")
}

/// Kinds in the order that Go writes them in, whatever their order in the certificate.
const KINDS: [&str; 9] = [
    "SERIALNUMBER",
    "CN",
    "POSTALCODE",
    "STREET",
    "ST",
    "L",
    "OU",
    "O",
    "C",
];

/// A subject as Go writes it: a fixed order of kinds, several of one kind joined by `+`; kinds it
/// does not know are left out, and of common names and serial numbers only the last counts.
fn subject_text(subject: &X509Name<'_>) -> String {
    let mut text = String::new();
    for kind in KINDS {
        let mut values: Vec<String> = subject
            .iter_attributes()
            .filter(|attribute| short_name(attribute.attr_type()) == Some(kind))
            .filter_map(text_of)
            .collect();
        if matches!(kind, "CN" | "SERIALNUMBER") {
            values.drain(..values.len().saturating_sub(1));
            values.retain(|value| !value.is_empty());
        }
        for (index, value) in values.iter().enumerate() {
            match index {
                0 if text.is_empty() => {}
                0 => text.push(','),
                _ => text.push('+'),
            }
            let written = write!(text, "{kind}={}", escaped(value));
            written.expect("a string takes everything");
        }
    }
    text
}

/// A value with what RFC 2253 wants escaped.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let is_special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == '#' && index == 0)
            || (c == ' ' && (index == 0 || index == last));
        if is_special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn der(fill: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        fill(&mut params);
        let key = KeyPair::generate().expect("a key");
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    }

    fn texts(der: &[u8]) -> Vec<String> {
        let texts = names(der).into_iter().filter_map(|name| match name {
            CertificateName::Text(text) => Some(text),
            CertificateName::Dn(_) => None,
        });
        texts.collect()
    }

    #[test]
    fn names_come_in_the_order_of_nats_server() {
        let der = der(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CountryName, "US");
            name.push(DnType::CommonName, "a, b");
            name.push(DnType::OrganizationalUnitName, "unit");
            params.subject_alt_names = vec![
                SanType::URI("spiffe://x/y".try_into().expect("ASCII")),
                SanType::DnsName("host.example".try_into().expect("ASCII")),
                SanType::Rfc822Name("a@example.com".try_into().expect("ASCII")),
            ];
        });
        assert_eq!(
            texts(&der),
            [
                "a@example.com",
                "host.example",
                "spiffe://x/y",
                "CN=a\\, b,OU=unit,C=US"
            ]
        );
        let written: Dn = "OU=unit,CN=a\\, b,C=US".parse().expect("a name");
        assert!(names(&der).contains(&CertificateName::Dn(written)));
    }

    #[test]
    fn domain_components_follow_the_subject() {
        let der = der(|params| {
            let component = DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]);
            params.distinguished_name.push(component, "org");
            params.distinguished_name.push(DnType::CommonName, "x");
        });
        assert_eq!(texts(&der), ["CN=x,DC=org", "CN=x"]);
        let written: Dn = "CN=x,DC=org".parse().expect("a name");
        assert!(names(&der).contains(&CertificateName::Dn(written)));
    }

    #[test]
    fn a_nameless_certificate_stands_for_nobody() {
        assert_eq!(texts(&der(|_| {})), [""; 0]);
    }

    #[test]
    fn foreign_bytes_have_no_names() {
        assert!(names(b"").is_empty());
        assert!(names(&[0x30, 0x82, 0xff, 0xff, 1, 2, 3]).is_empty());
    }
}
