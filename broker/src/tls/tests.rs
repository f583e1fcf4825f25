use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::config::options::{CertificateFiles, TlsVersion};

/// A certificate for `name` and its key, in files.
fn files(folder: &TempDir, name: &str) -> CertificateFiles {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let write = |ending: &str, text: String| -> PathBuf {
        let path = folder.path().join(format!("{name}.{ending}"));
        std::fs::write(&path, text).expect("a folder to write to");
        path
    };
    CertificateFiles {
        cert_file: write("crt", certificate.pem()),
        key_file: write("key", key.serialize_pem()),
    }
}

fn options(folder: &TempDir) -> TlsOptions {
    TlsOptions {
        certificates: vec![files(folder, "localhost")],
        ..TlsOptions::default()
    }
}

fn refused(options: &TlsOptions) -> String {
    check(options).expect_err("refused").to_string()
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = TempDir::new().expect("a folder");
    let good = options(&folder);
    check(&good).expect("usable");

    let mut missing = good.clone();
    missing.certificates[0].cert_file = "/nowhere/a.pem".into();
    let text = refused(&missing);
    assert!(
        text.starts_with("error parsing X509 certificate/key pair: /nowhere/a.pem: "),
        "{text}"
    );

    let mut mixed = good.clone();
    mixed.certificates[0].key_file = files(&folder, "other").key_file;
    assert!(refused(&mixed).contains("other.key"));

    let mut swapped = good.clone();
    swapped.certificates[0].cert_file = swapped.certificates[0].key_file.clone();
    assert!(refused(&swapped).contains("holds no certificate in PEM"));

    let mut authority = good;
    authority.verify = true;
    authority.ca_file = Some(folder.path().join("localhost.key"));
    assert!(refused(&authority).starts_with("failed to parse root ca certificate: "));
}

#[test]
fn options_must_leave_something_to_agree_on() {
    let folder = TempDir::new().expect("a folder");
    let mut options = options(&folder);
    options.cipher_suites = Some(vec!["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA".to_owned()]);
    assert!(refused(&options).contains("none of the cipher suites"));
    options.min_version = TlsVersion::Tls13;
    check(&options).expect("the suites of 1.3 cannot be chosen");
    options.cipher_suites = Some(suites().map(str::to_owned).collect());
    options.min_version = TlsVersion::Tls12;
    check(&options).expect("all of them");
    options.curve_preferences = Some(vec!["CurveP521".to_owned()]);
    assert!(refused(&options).contains("none of the curves CurveP521"));
    options.curve_preferences = Some(OFFERED_CURVES.iter().map(ToString::to_string).collect());
    let prepared = Prepared::new(&options).expect("all of them");
    assert!(prepared.expires().is_some());
}

#[test]
fn handshakes_are_counted_by_the_second() {
    let folder = TempDir::new().expect("a folder");
    let mut options = options(&folder);
    options.connection_rate_limit = Some(2);
    let prepared = Prepared::new(&options).expect("usable");
    let tls = Tls::default();
    let start = Instant::now();
    let admitted = |millis| tls.admits(&prepared, start + Duration::from_millis(millis));
    assert_eq!([0, 10, 20, 999].map(admitted), [true, true, false, false]);
    assert_eq!([1000, 1001, 1002].map(admitted), [true, true, false]);
}
