//! What an authority says of a certificate (OCSP, RFC 6960): the question, and the answer checked.
//!
//! An answer counts when the issuer of the certificate signed it, or someone whom the issuer
//! certified for that, and when it is of now.

use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use sha1::{Digest, Sha1};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Null, ObjectIdentifier, OctetString};
use x509_cert::der::{Any, Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, ExtendedKeyUsage};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse,
    OcspResponseStatus, Request, SingleResponse, TbsRequest,
};

/// The extension by which a certificate insists on a staple, and its value: `status_request`.
const TLS_FEATURE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.24");
const STATUS_REQUEST: &[u8] = &[0x30, 0x03, 0x02, 0x01, 0x05];
/// Where an authority tells the status of its certificates.
const OCSP_ACCESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
/// The use of a key that signs answers.
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// Bytes of an answer at most.
pub(super) const MAX_ANSWER: usize = 64 * 1024;
/// When to ask again after an answer that does not say until when it holds.
const USUAL_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// The shortest time between two questions.
const MIN_INTERVAL: Duration = Duration::from_secs(120);

/// What is wrong with an answer, or why there is none.
#[derive(Debug, Error)]
pub(crate) enum OcspError {
    /// It is no answer.
    #[error("{0}")]
    Encoding(#[from] x509_cert::der::Error),
    /// The authority does not answer this.
    #[error("the responder says {0:?}")]
    Refused(OcspResponseStatus),
    /// It is about something else.
    #[error("the response is not about this certificate")]
    Other,
    /// Nobody who may has signed it.
    #[error("bad signature of the response")]
    Signature,
    /// It no longer holds.
    #[error("invalid ocsp NextUpdate, is past time")]
    Past,
    /// It does not hold yet.
    #[error("invalid ocsp ThisUpdate, is future time")]
    Future,
    /// Nobody is there to be asked.
    #[error("no available ocsp servers")]
    NoResponder,
    /// Nobody who was asked answered.
    #[error("exhausted ocsp servers: {0}")]
    Exhausted(String),
    /// The certificate's issuer is neither in its chain nor among the authorities.
    #[error("no issuers found")]
    NoIssuer,
    /// The answer cannot be kept.
    #[error("failed to write ocsp status: {0}")]
    Store(std::io::Error),
}

/// What an authority says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Good,
    Revoked,
    Unknown,
}

impl Status {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

/// An answer that counts.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    until: Option<SystemTime>,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    /// Until when it holds, for people.
    pub(super) fn until(&self) -> String {
        let until = self.until.and_then(|at| jiff::Timestamp::try_from(at).ok());
        until.map_or_else(|| "unknown".to_owned(), |at| at.to_string())
    }

    /// How long to wait before asking again: half of the time for which it still holds.
    pub(super) fn ask_again_in(&self, now: SystemTime) -> Duration {
        let Some(until) = self.until else {
            return USUAL_INTERVAL;
        };
        until
            .duration_since(now)
            .map_or(MIN_INTERVAL, |left| left / 2)
    }

    /// Whether it holds at this time.
    pub(super) fn holds(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A certificate and who issued it.
#[derive(Debug)]
pub(super) struct Certified {
    leaf: Certificate,
    issuer: Certificate,
}

impl Certified {
    /// Reads a chain, the certificate itself first. Its issuer is behind it, or among `authorities`.
    pub(super) fn of<'c>(
        chain: &'c [impl AsRef<[u8]>],
        authorities: impl IntoIterator<Item = &'c [u8]>,
    ) -> Result<Self, OcspError> {
        let (leaf, rest) = chain.split_first().ok_or(OcspError::NoIssuer)?;
        let leaf = Certificate::from_der(leaf.as_ref())?;
        let above = rest.iter().map(AsRef::as_ref).chain(authorities);
        let issuer = above
            .filter_map(|der| Certificate::from_der(der).ok())
            .find(|above| {
                above.tbs_certificate.subject == leaf.tbs_certificate.issuer
                    && is_signed_by(&leaf, &above.tbs_certificate.subject_public_key_info)
            })
            .ok_or(OcspError::NoIssuer)?;
        Ok(Self { leaf, issuer })
    }

    /// Whom to ask, as the certificate has it.
    pub(super) fn responders(&self) -> Vec<String> {
        let access = self.leaf.tbs_certificate.get::<AuthorityInfoAccessSyntax>();
        let Ok(Some((_, access))) = access else {
            return Vec::new();
        };
        let ocsp = access.0.iter().filter(|a| a.access_method == OCSP_ACCESS);
        ocsp.filter_map(|access| match &access.access_location {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
            _ => None,
        })
        .collect()
    }

    /// The question.
    pub(super) fn question(&self) -> Result<Vec<u8>, OcspError> {
        let issuer = &self.issuer.tbs_certificate;
        let name = self.leaf.tbs_certificate.issuer.to_der()?;
        let key = issuer
            .subject_public_key_info
            .subject_public_key
            .raw_bytes();
        let request = Request {
            req_cert: CertId {
                hash_algorithm: AlgorithmIdentifierOwned {
                    oid: SHA_1,
                    parameters: Some(Any::from(Null)),
                },
                issuer_name_hash: OctetString::new(Sha1::digest(&name).to_vec())?,
                issuer_key_hash: OctetString::new(Sha1::digest(key).to_vec())?,
                serial_number: self.leaf.tbs_certificate.serial_number.clone(),
            },
            single_request_extensions: None,
        };
        let request = OcspRequest {
            tbs_request: TbsRequest {
                request_list: vec![request],
                ..TbsRequest::default()
            },
            optional_signature: None,
        };
        Ok(request.to_der()?)
    }

    /// Reads an answer that came, or was kept.
    pub(super) fn answer(&self, bytes: &[u8], now: SystemTime) -> Result<Answer, OcspError> {
        let response = OcspResponse::from_der(bytes)?;
        if response.response_status != OcspResponseStatus::Successful {
            return Err(OcspError::Refused(response.response_status));
        }
        let inner = response.response_bytes.ok_or(OcspError::Other)?;
        let basic = BasicOcspResponse::from_der(inner.response.as_bytes())?;
        self.check_signature(&basic)?;
        let mut told = basic.tbs_response_data.responses.iter();
        let about_this = |one: &&SingleResponse| {
            one.cert_id.serial_number == self.leaf.tbs_certificate.serial_number
        };
        let told = told.find(about_this).ok_or(OcspError::Other)?;
        if time(&told.this_update) > now {
            return Err(OcspError::Future);
        }
        let until = told.next_update.as_ref().map(time);
        if until.is_some_and(|until| until < now) {
            return Err(OcspError::Past);
        }
        Ok(Answer {
            status: match told.cert_status {
                CertStatus::Good(_) => Status::Good,
                CertStatus::Revoked(_) => Status::Revoked,
                CertStatus::Unknown(_) => Status::Unknown,
            },
            until,
            bytes: bytes.to_vec(),
        })
    }

    fn check_signature(&self, basic: &BasicOcspResponse) -> Result<(), OcspError> {
        let issuer = &self.issuer.tbs_certificate.subject_public_key_info;
        let delegates = basic.certs.iter().flatten().filter(|certificate| {
            let uses = certificate.tbs_certificate.get::<ExtendedKeyUsage>();
            let signs = matches!(uses, Ok(Some((_, uses))) if uses.0.contains(&OCSP_SIGNING));
            signs && is_signed_by(certificate, issuer)
        });
        let keys =
            delegates.map(|certificate| &certificate.tbs_certificate.subject_public_key_info);
        let message = basic.tbs_response_data.to_der()?;
        let signature = basic.signature.raw_bytes();
        let is_signed = [issuer]
            .into_iter()
            .chain(keys)
            .any(|key| verify(key, &basic.signature_algorithm, &message, signature));
        is_signed.then_some(()).ok_or(OcspError::Signature)
    }
}

/// Whether a certificate insists on a staple.
pub(super) fn insists(certificate: &[u8]) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return false;
    };
    let extensions = certificate.tbs_certificate.extensions.iter().flatten();
    extensions.into_iter().any(|extension| {
        extension.extn_id == TLS_FEATURE && extension.extn_value.as_bytes() == STATUS_REQUEST
    })
}

fn time(at: &OcspGeneralizedTime) -> SystemTime {
    at.0.to_system_time()
}

fn is_signed_by(certificate: &Certificate, key: &SubjectPublicKeyInfoOwned) -> bool {
    certificate.tbs_certificate.to_der().is_ok_and(|message| {
        let signature = certificate.signature.raw_bytes();
        verify(key, &certificate.signature_algorithm, &message, signature)
    })
}

/// Whether `signature` over `message` is of this key.
fn verify(
    key: &SubjectPublicKeyInfoOwned,
    algorithm: &AlgorithmIdentifierOwned,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let (Some(of_key), Some(of_signature)) = (contents(&key.algorithm), contents(algorithm)) else {
        return false;
    };
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let fits = algorithms.all.iter().filter(|known| {
        known.public_key_alg_id().as_ref() == of_key
            && known.signature_alg_id().as_ref() == of_signature
    });
    let key = key.subject_public_key.raw_bytes();
    fits.into_iter()
        .any(|known| known.verify_signature(key, message, signature).is_ok())
}

/// The inside of the sequence that an algorithm is written as.
fn contents(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let der = algorithm.to_der().ok()?;
    let any = Any::from_der(&der).ok()?;
    Some(any.value().to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair};

    use super::*;

    /// A certificate and its authority's.
    fn chain(extensions: Vec<CustomExtension>) -> [Vec<u8>; 2] {
        let mut authority = CertificateParams::new(vec![]).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = authority.self_signed(&key).expect("signed");
        let issuer = Issuer::new(authority, key);
        let mut leaf = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.custom_extensions = extensions;
        let key = KeyPair::generate().expect("a key");
        let leaf = leaf.signed_by(&key, &issuer).expect("signed");
        [leaf.der().to_vec(), root.der().to_vec()]
    }

    #[test]
    fn the_issuer_is_in_the_chain_or_among_the_authorities() {
        let [leaf, root] = chain(Vec::new());
        let [_, other] = chain(Vec::new());
        let nobody = std::iter::empty::<&[u8]>;
        assert!(Certified::of(&[&leaf, &root], nobody()).is_ok());
        assert!(Certified::of(&[&leaf], [&*other, &*root]).is_ok());
        for chain in [vec![&leaf], vec![&leaf, &other], vec![]] {
            let found = Certified::of(&chain, nobody());
            assert!(matches!(found, Err(OcspError::NoIssuer)));
        }
    }

    #[test]
    fn a_question_names_the_certificate() {
        let [leaf, root] = chain(Vec::new());
        let certified = Certified::of(&[&leaf, &root], []).expect("issued");
        let question = certified.question().expect("encoded");
        let request = OcspRequest::from_der(&question).expect("a request");
        let asked = &request.tbs_request.request_list[0].req_cert;
        let leaf = Certificate::from_der(&leaf).expect("a certificate");
        assert_eq!(asked.serial_number, leaf.tbs_certificate.serial_number);
        assert!(certified.responders().is_empty());
    }

    #[test]
    fn a_certificate_may_insist_on_a_staple() {
        let feature = |value: &[u8]| {
            let oid = [1, 3, 6, 1, 5, 5, 7, 1, 24];
            let extension = CustomExtension::from_oid_content(&oid, value.to_vec());
            insists(&chain(vec![extension])[0])
        };
        assert!(feature(STATUS_REQUEST));
        assert!(!feature(&[0x30, 0x03, 0x02, 0x01, 0x11]));
        assert!(!insists(&chain(Vec::new())[0]));
        assert!(!insists(b"no certificate"));
    }

    #[test]
    fn the_next_question_comes_at_half_of_the_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let answer = |until| Answer {
            status: Status::Good,
            until,
            bytes: Vec::new(),
        };
        let hour = Duration::from_secs(3600);
        let at_half = answer(Some(now + hour));
        assert_eq!(at_half.ask_again_in(now), hour / 2);
        assert!(at_half.holds(now) && !at_half.holds(now + hour));
        assert_eq!(answer(Some(now - hour)).ask_again_in(now), MIN_INTERVAL);
        assert_eq!(answer(None).ask_again_in(now), USUAL_INTERVAL);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let [leaf, root] = chain(Vec::new());
            let certified = Certified::of(&[&leaf, &root], []).expect("issued");
            prop_assert!(certified.answer(&bytes, SystemTime::now()).is_err());
        }
    }
}
