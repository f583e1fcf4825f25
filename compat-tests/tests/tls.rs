//! TLS with every client: the scenarios of the plain tests, over an encrypted connection.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use menes_compat_tests::certificates::Certificates;
use menes_compat_tests::scenario::Scenario;
use menes_compat_tests::{Login, ServerOptions, TestServer, Tools, connect, menes_binary};

/// A server that wants certificates, and says more about TLS.
fn server(certificates: &Certificates, more: &str) -> Result<TestServer> {
    let keys = certificates.server_keys();
    let options =
        ServerOptions::default().with_config(&config(&format!("tls {{ {keys}, {more} }}")));
    TestServer::start(options)
}

/// A configuration that lets the tests' user in and says this.
fn config(more: &str) -> String {
    Login::default().section() + more
}

fn run(scenario: Scenario, more: &str) -> Result<()> {
    let certificates = Certificates::new()?;
    let server = server(&certificates, more)?;
    certificates.given_to(scenario).run(&server)?;
    Ok(())
}

#[test]
fn nats_py_over_tls() -> Result<()> {
    run(Scenario::new("nats-py/core.py"), "verify: true")?;
    run(Scenario::new("nats-py/streams.py"), "verify: true")
}

#[test]
fn nats_py_with_the_handshake_first() -> Result<()> {
    let first = Scenario::new("nats-py/core.py").variable("TLS_FIRST", "1");
    run(first.clone(), "handshake_first: true")?;
    run(first, "handshake_first: auto")?;
    run(Scenario::new("nats-py/core.py"), "handshake_first: auto")
}

#[test]
fn nats_js_over_tls() -> Result<()> {
    run(Scenario::new("nats-js/core.mjs"), "verify: true")?;
    run(
        Scenario::new("nats-js/jetstream.mjs"),
        "min_version: \"1.3\"",
    )
}

#[test]
fn nats_js_with_the_handshake_first() -> Result<()> {
    let first = Scenario::new("nats-js/core.mjs").variable("TLS_FIRST", "1");
    run(first, "handshake_first: true")
}

#[test]
fn nats_go_over_tls() -> Result<()> {
    run(Scenario::new("nats-go").argument("core"), "verify: true")?;
    run(
        Scenario::new("nats-go").argument("jetstream"),
        "verify: true",
    )
}

#[test]
fn nats_go_with_the_handshake_first() -> Result<()> {
    let first = Scenario::new("nats-go")
        .argument("core")
        .variable("TLS_FIRST", "1");
    run(first.clone(), "handshake_first: true")?;
    run(first, "handshake_first: 500ms")
}

#[test]
fn the_nats_command_over_tls() -> Result<()> {
    run(Scenario::new("nats-cli/core.sh"), "verify: true")?;
    run(Scenario::new("nats-cli/streams.sh"), "verify: true")
}

#[test]
fn nats_js_over_websocket_inside_tls() -> Result<()> {
    let certificates = Certificates::new()?;
    let keys = certificates.server_keys();
    let options = ServerOptions::default()
        .with_websocket()
        .with_config(&config(&format!(
            "websocket {{ port: -1, compression: true, tls {{ {keys} }} }}"
        )));
    let server = TestServer::start(options)?;
    let url = server.websocket_url().context("it was asked for")?;
    ensure!(url.starts_with("wss://"), "{url}");
    for script in ["nats-js/core.mjs", "nats-js/jetstream.mjs"] {
        let scenario = Scenario::new(script).variable("TRANSPORT", "ws");
        certificates.given_to(scenario).run(&server)?;
    }
    Ok(())
}

#[tokio::test]
async fn async_nats_over_tls_survives_a_reload_of_the_certificate() -> Result<()> {
    let certificates = Certificates::new()?;
    let mut server = server(&certificates, "verify: true")?;
    let (certificate, key) = certificates.client();
    let options = |authority| {
        connect::options(&server)
            .add_root_certificates(authority)
            .add_client_certificate(certificate.clone(), key.clone())
            .require_tls(true)
    };
    let client = options(certificates.authority())
        .connect(server.url())
        .await?;
    let mut subscriber = client.subscribe("a").await?;
    client.publish("a", "before".into()).await?;
    let next = tokio::time::timeout(Duration::from_secs(5), subscriber.next());
    ensure!(next.await?.context("open")?.payload == "before");

    let other = Certificates::new()?;
    let strangers = options(other.authority()).connect(server.url()).await;
    ensure!(
        strangers.is_err(),
        "a certificate of another authority was accepted"
    );
    // The server shows the other certificate from now on, and asks for none.
    let keys = other.server_keys();
    let said = server.reload(&config(&format!("tls {{ {keys} }}")))?;
    ensure!(said.contains("Reloaded: tls = enabled"), "{said}");
    let fresh = connect::options(&server)
        .add_root_certificates(other.authority())
        .require_tls(true)
        .connect(server.url())
        .await?;
    fresh.publish("a", "after".into()).await?;
    fresh.flush().await?;
    let next = tokio::time::timeout(Duration::from_secs(5), subscriber.next());
    ensure!(
        next.await?
            .context("the old connection is still open")?
            .payload
            == "after"
    );

    // A reload that fails changes nothing.
    let said = server.reload(&config("tls { cert_file: nowhere, key_file: nowhere }"))?;
    ensure!(
        said.contains("Failed to reload server configuration"),
        "{said}"
    );
    fresh.publish("a", "still".into()).await?;
    fresh.flush().await?;
    Ok(())
}

/// What the HTTP faces answer to somebody who trusts this authority; none if they are not trusted.
fn https(url: &str, path: &str, certificates: &Certificates) -> Result<Option<String>> {
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "20", "--cacert"])
        .arg(certificates.authority())
        .arg(format!("{url}{path}"))
        .output()?;
    // 60: the certificate is not signed by anybody who is trusted.
    match output.status.code() {
        Some(0) => Ok(Some(String::from_utf8(output.stdout)?)),
        Some(60) => Ok(None),
        code => {
            let said = String::from_utf8_lossy(&output.stderr);
            anyhow::bail!("curl {url}{path}: {code:?} {said}")
        }
    }
}

#[test]
fn the_http_faces_speak_tls_and_take_another_certificate() -> Result<()> {
    let (certificates, others) = (Certificates::new()?, Certificates::new()?);
    let with = |certificates: &Certificates| {
        let keys = certificates.server_keys();
        config(&format!(
            "rest_gateway {{ host: \"127.0.0.1\", port: -1, tls {{ {keys} }} }}\n\
             management {{ host: \"127.0.0.1\", port: -1, tls {{ {keys} }} }}\n"
        ))
    };
    let options = ServerOptions::default().with_config(&with(&certificates));
    let mut server = TestServer::start(options)?;
    let rest = server.rest_url().context("a REST gateway")?;
    let management = server.management_url().context("a management API")?;
    ensure!(rest.starts_with("https://") && management.starts_with("https://"));
    let faces = [
        (&rest, "/monitoring/status"),
        (&management, "/api/v1/health"),
    ];
    for (url, path) in faces {
        let said = https(url, path, &certificates)?.context("trusted")?;
        ensure!(said.contains("ok"), "{said}");
        ensure!(https(url, path, &others)?.is_none(), "trusted by strangers");
        let plain = url.replace("https://", "http://");
        ensure!(
            https(&plain, path, &certificates).is_err(),
            "in the clear, too"
        );
    }
    let said = server.reload(&with(&others))?;
    ensure!(said.contains("Reloaded: rest_gateway tls"), "{said}");
    ensure!(said.contains("Reloaded: management tls"), "{said}");
    for (url, path) in faces {
        ensure!(
            https(url, path, &others)?.is_some(),
            "the other certificate"
        );
        ensure!(https(url, path, &certificates)?.is_none(), "the first one");
    }
    // Files that cannot be used, and TLS that would go away, change nothing.
    let broken = with(&others).replace("server.crt", "nowhere.crt");
    let plain = config("rest_gateway { host: \"127.0.0.1\", port: -1 }\n");
    for refused in [broken, plain] {
        let said = server.reload(&refused)?;
        ensure!(said.contains("Failed to reload"), "{said}");
    }
    for (url, path) in faces {
        ensure!(https(url, path, &others)?.is_some(), "still served");
    }
    Ok(())
}

/// What `nats-cli/ocsp.sh` sees of a server.
fn stapled(server: &Path) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let output = Command::new("bash")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/clients/nats-cli/ocsp.sh"
        ))
        .env("SERVER", server)
        .env("SCENARIO_DIR", folder.path())
        .output()?;
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{seen}\n{complaints}");
    Ok(seen.lines().map(str::to_owned).collect())
}

#[test]
fn certificates_are_stapled_as_by_nats_server() -> Result<()> {
    let mut expected = stapled(Tools::find()?.path("nats_server")?)?;
    let seen = stapled(&menes_binary()?)?;
    // nats-server takes an answer that anyone signed whom the authority certified for anything.
    let is_stricter = |line: &&mut String| line.starts_with("signed by somebody else: ");
    for line in expected.iter_mut().filter(is_stricter) {
        "signed by somebody else: refused: bad OCSP status update for certificate".clone_into(line);
    }
    ensure!(
        seen == expected,
        "{seen:#?}\nbut nats-server\n{expected:#?}"
    );
    Ok(())
}
