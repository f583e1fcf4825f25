//! TLS on the client port, with certificates made for the test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use menes_broker::config::options::{
    CertificateFiles, HandshakeFirst, Options, TlsOptions, TlsVersion,
};
use menes_broker::error::CloseReason;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::accounts::configured;
use crate::harness::{Peer, Running, eventually, options, user, with_users};

/// An authority and what it signs, in files.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key");
        let authority = Self {
            folder: TempDir::new().expect("a folder"),
            issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate"),
        };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a folder to write to");
        path
    }

    /// A certificate in the files `name.crt` and `name.key`.
    fn sign(&self, name: &str, fill: impl FnOnce(&mut CertificateParams)) -> CertificateFiles {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        fill(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        CertificateFiles {
            cert_file: self.write(&format!("{name}.crt"), &certificate.pem()),
            key_file: self.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    fn server(&self) -> TlsOptions {
        let files = self.sign("server", |params| {
            params.subject_alt_names =
                vec![SanType::DnsName("localhost".try_into().expect("ASCII"))];
        });
        TlsOptions {
            certificates: vec![files],
            ..TlsOptions::default()
        }
    }

    /// A server that wants certificates of this authority.
    fn strict(&self) -> TlsOptions {
        TlsOptions {
            ca_file: Some(self.folder.path().join("ca.pem")),
            verify: true,
            ..self.server()
        }
    }

    /// What a client that trusts this authority brings.
    fn client(&self, files: Option<&CertificateFiles>) -> Arc<ClientConfig> {
        self.client_at(files, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    fn client_at(
        &self,
        files: Option<&CertificateFiles>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match files {
            None => config.with_no_client_auth(),
            Some(files) => {
                let chain = CertificateDer::pem_file_iter(&files.cert_file)
                    .expect("a file")
                    .collect::<Result<_, _>>()
                    .expect("PEM");
                let key = PrivateKeyDer::from_pem_file(&files.key_file).expect("PEM");
                config.with_client_auth_cert(chain, key).expect("a pair")
            }
        })
    }
}

fn running(tls: TlsOptions, options: Options) -> Running {
    Running::new(Options {
        tls: Some(tls),
        ..options
    })
}

fn talk(peer: &mut Peer) {
    peer.say(
        "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nUNSUB 1\r\nPING\r\n",
    );
    peer.expect("MSG a 1 2\r\nhi\r\nPONG\r\n");
}

#[test]
fn info_comes_in_the_clear_and_tls_behind_it() {
    let authority = Authority::new();
    let server = running(authority.server(), options());
    let peer = server.silent();
    assert!(peer.info.contains("\"tls_required\":true"), "{}", peer.info);
    assert!(!peer.info.contains("tls_available") && !peer.info.contains("tls_verify"));
    let mut peer = peer.secure(authority.client(None)).expect("TLS");
    talk(&mut peer);
    let client = &server.handle().clients()[0];
    let secured = client.secured().expect("it is");
    assert_eq!(secured.version, "1.3");
    assert!(
        secured.cipher_suite.starts_with("TLS_"),
        "{}",
        secured.cipher_suite
    );
    assert!(secured.certificates.is_empty() && !secured.is_first);
}

#[test]
fn messages_larger_than_a_record_go_both_ways() {
    let authority = Authority::new();
    let server = running(authority.server(), options());
    let mut peer = server.silent().secure(authority.client(None)).expect("TLS");
    peer.say("CONNECT {\"verbose\":false}\r\nSUB a 1\r\n");
    let payload = "x".repeat(1 << 20);
    for _ in 0..4 {
        peer.say(&format!("PUB a {}\r\n{payload}\r\n", payload.len()));
        peer.expect(&format!("MSG a 1 {}\r\n{payload}\r\n", payload.len()));
    }
    peer.sync();
}

#[test]
fn versions_are_those_of_the_configuration() {
    let authority = Authority::new();
    let old = || authority.client_at(None, &[&rustls::version::TLS12]);
    let server = running(authority.server(), options());
    let mut peer = server.silent().secure(old()).expect("1.2 is the default");
    talk(&mut peer);
    let version = peer.connection().and_then(|c| c.protocol_version());
    assert_eq!(version, Some(ProtocolVersion::TLSv1_2));
    let tls = TlsOptions {
        min_version: TlsVersion::Tls13,
        ..authority.server()
    };
    let server = running(tls, options());
    assert!(server.silent().secure(old()).is_err());
    eventually("it is closed", || server.handle().connection_count() == 0);
    let mut peer = server.silent().secure(authority.client(None)).expect("TLS");
    talk(&mut peer);
}

#[test]
fn the_handshake_may_come_first() {
    let authority = Authority::new();
    let tls = TlsOptions {
        handshake_first: HandshakeFirst::Always,
        ..authority.server()
    };
    let server = running(tls, options());
    let mut peer = Peer::dial(server.address);
    assert!(peer.is_silent());
    let mut peer = peer.secure(authority.client(None)).expect("TLS");
    assert!(peer.line().contains("\"tls_required\":true"));
    talk(&mut peer);
    assert!(
        server.handle().clients()[0]
            .secured()
            .expect("it is")
            .is_first
    );
}

#[test]
fn who_does_not_begin_gets_info_after_a_while() {
    let authority = Authority::new();
    let tls = TlsOptions {
        handshake_first: HandshakeFirst::Within(Duration::from_millis(500)),
        ..authority.server()
    };
    let server = running(tls, options());
    let peer = Peer::dial(server.address);
    let mut first = peer.secure(authority.client(None)).expect("TLS");
    first.line();
    talk(&mut first);
    let mut second = server.silent().secure(authority.client(None)).expect("TLS");
    talk(&mut second);
    let firsts: Vec<_> = server
        .handle()
        .clients()
        .iter()
        .map(|client| client.secured().is_some_and(|tls| tls.is_first))
        .collect();
    assert_eq!(firsts.iter().filter(|is_first| **is_first).count(), 1);
}

#[test]
fn both_may_be_spoken_on_one_port() {
    let authority = Authority::new();
    let server = Running::new(Options {
        allow_non_tls: true,
        tls: Some(authority.server()),
        ..options()
    });
    let mut plain = server.client();
    assert!(plain.info.contains("\"tls_available\":true"));
    assert!(!plain.info.contains("tls_required"));
    plain.sync();
    let mut secured = server.silent().secure(authority.client(None)).expect("TLS");
    talk(&mut secured);
}

#[test]
fn who_does_not_speak_tls_in_time_is_told() {
    let authority = Authority::new();
    let tls = TlsOptions {
        timeout: Duration::from_millis(100),
        ..authority.server()
    };
    let server = running(tls, options());
    let mut peer = server.silent();
    peer.expect("-ERR 'Secure Connection - TLS Required'\r\n");
    peer.expect_closed();
    let mut peer = server.silent();
    peer.say("CONNECT {}\r\nPING\r\n");
    // An alert, in the binary of TLS.
    assert!(!peer.drain().starts_with(b"-ERR"));
    eventually("both are closed", || {
        server.handle().connection_count() == 0
    });
}

#[test]
fn a_certificate_may_be_demanded() {
    let authority = Authority::new();
    let server = running(authority.strict(), options());
    let peer = server.silent();
    assert!(peer.info.contains("\"tls_verify\":true"), "{}", peer.info);
    // With 1.3 the client learns of the refusal only when it reads.
    let old = authority.client_at(None, &[&rustls::version::TLS12]);
    assert!(peer.secure(old).is_err());
    let stranger = Authority::new();
    let theirs = stranger.sign("c", |params| {
        params.distinguished_name.push(DnType::CommonName, "c");
    });
    let old = authority.client_at(Some(&theirs), &[&rustls::version::TLS12]);
    assert!(server.silent().secure(old).is_err());
    let ours = authority.sign("c", |params| {
        params.distinguished_name.push(DnType::CommonName, "c");
    });
    let mut peer = server
        .silent()
        .secure(authority.client(Some(&ours)))
        .expect("TLS");
    talk(&mut peer);
    let clients = server.handle().clients();
    assert_eq!(clients.len(), 1);
    let certificates = &clients[0].secured().expect("it is").certificates;
    assert_eq!(certificates[0].subject, "CN=c");
}

#[test]
fn only_pinned_keys_are_let_in() {
    let authority = Authority::new();
    let name = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::CommonName, "c");
    };
    let (known, other) = (authority.sign("known", name), authority.sign("other", name));
    let der = CertificateDer::from_pem_file(&known.cert_file).expect("PEM");
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
    let digest = Sha256::digest(parsed.public_key().raw);
    let tls = TlsOptions {
        pinned_certs: vec![data_encoding::HEXLOWER.encode(&digest)],
        ..authority.strict()
    };
    let server = running(tls, options());
    let mut peer = server
        .silent()
        .secure(authority.client(Some(&known)))
        .expect("TLS");
    talk(&mut peer);
    if let Ok(mut peer) = server.silent().secure(authority.client(Some(&other))) {
        peer.expect_closed();
    }
    eventually("the other is closed", || {
        server.handle().connection_count() == 1
    });
}

#[test]
fn the_certificate_says_who_the_client_is() {
    let authority = Authority::new();
    let tls = TlsOptions {
        map_users: true,
        ..authority.strict()
    };
    let users = vec![
        user("ada@example.com", ""),
        user("bob.example.com", ""),
        user("CN=carl,OU=crew", ""),
    ];
    let server = running(tls, with_users(users));
    let common = |name: &'static str| {
        move |params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, name);
        }
    };
    let ada = authority.sign("ada", |params| {
        params.subject_alt_names = vec![
            SanType::DnsName("bob.example.com".try_into().expect("ASCII")),
            SanType::Rfc822Name("ada@example.com".try_into().expect("ASCII")),
        ];
    });
    let bob = authority.sign("bob", |params| {
        params.subject_alt_names = vec![SanType::DnsName(
            "bob.example.com".try_into().expect("ASCII"),
        )];
    });
    let carl = authority.sign("carl", |params| {
        params.distinguished_name.push(DnType::CommonName, "carl");
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "crew");
    });
    for (files, name) in [
        (&ada, "ada@example.com"),
        (&bob, "bob.example.com"),
        (&carl, "CN=carl,OU=crew"),
    ] {
        let mut peer = server
            .silent()
            .secure(authority.client(Some(files)))
            .expect("TLS");
        // What CONNECT says about the user does not count; a password would have to be its own.
        peer.say("CONNECT {\"verbose\":false,\"user\":\"eve\"}\r\nPING\r\n");
        peer.expect("PONG\r\n");
        let clients = server.handle().clients();
        let newest = clients
            .iter()
            .max_by_key(|client| client.id())
            .expect("it is there");
        assert_eq!(newest.identity().user.as_deref(), Some(name));
    }
    let eve = authority.sign("eve", common("eve"));
    let mut peer = server
        .silent()
        .secure(authority.client(Some(&eve)))
        .expect("TLS");
    peer.say("CONNECT {\"user\":\"ada@example.com\",\"pass\":\"\"}\r\n");
    peer.expect("-ERR 'Authorization Violation'\r\n");
}

#[test]
fn a_certificates_user_is_nobody_by_name_alone_where_no_certificate_says_so() {
    let authority = Authority::new();
    let files = &authority.server().certificates[0];
    let server = Running::new(configured(&format!(
        "websocket {{ host: 127.0.0.1, port: -1, tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify_and_map: true }} }}
         authorization {{ users: [
           {{user: \"ada@example.com\"}}
           {{user: bob, allowed_connection_types: [STANDARD]}}
         ] }}",
        files.cert_file,
        files.key_file,
        authority.folder.path().join("ca.pem"),
    )));
    let log_in = |user: &str| {
        let mut peer = server.silent();
        peer.say(&format!(
            "CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"\"}}\r\nPING\r\n"
        ));
        peer
    };
    log_in("ada@example.com").expect("-ERR 'Authorization Violation'\r\n");
    log_in("bob").expect("PONG\r\n");
}

#[test]
fn handshakes_may_be_limited_by_the_second() {
    let authority = Authority::new();
    let tls = TlsOptions {
        connection_rate_limit: Some(1),
        ..authority.server()
    };
    let server = running(tls, options());
    // Two within one second are there after at most three.
    let refused = (0..3).any(|_| match server.silent().secure(authority.client(None)) {
        Ok(mut peer) => {
            talk(&mut peer);
            false
        }
        Err(_) => true,
    });
    assert!(refused);
}

#[test]
fn certificates_are_replaced_under_open_connections() {
    let authority = Authority::new();
    let server = running(authority.server(), options());
    let mut before = server.silent().secure(authority.client(None)).expect("TLS");
    talk(&mut before);
    let successor = Authority::new();
    let mut changed = Options::clone(&server.handle().options());
    changed.tls = Some(successor.server());
    server.handle().reload(changed).expect("usable files");
    before.sync();
    assert!(server.silent().secure(authority.client(None)).is_err());
    let mut after = server.silent().secure(successor.client(None)).expect("TLS");
    talk(&mut after);
    before.sync();
    // What cannot be used changes nothing.
    let mut broken = Options::clone(&server.handle().options());
    broken.tls = Some(TlsOptions::default());
    assert!(server.handle().reload(broken).is_err());
    let mut again = server.silent().secure(successor.client(None)).expect("TLS");
    talk(&mut again);
    // Without TLS, new connections are plain.
    let mut plain = Options::clone(&server.handle().options());
    plain.tls = None;
    server.handle().reload(plain).expect("nothing to read");
    server.client().sync();
    before.sync();
}

#[test]
fn a_client_hello_on_a_plain_port_is_no_operation() {
    let authority = Authority::new();
    let server = Running::new(options());
    assert!(server.silent().secure(authority.client(None)).is_err());
    eventually("it is closed", || server.handle().connection_count() == 0);
    assert_eq!(
        CloseReason::TlsHandshakeError.to_string(),
        "TLS Handshake Failure"
    );
}

#[test]
fn a_proxy_may_stand_before_tls() {
    let authority = Authority::new();
    let server = Running::new(Options {
        proxy_protocol: true,
        tls: Some(authority.server()),
        ..options()
    });
    let mut peer = server.silent();
    peer.say("PROXY TCP4 192.0.2.7 127.0.0.1 4711 4222\r\n");
    let mut peer = peer.secure(authority.client(None)).expect("TLS");
    talk(&mut peer);
    let client = &server.handle().clients()[0];
    assert_eq!(
        client.address(),
        "192.0.2.7:4711".parse().expect("an address")
    );
}
