//! The PROXY protocol on the client port.

use crate::harness::{Peer, Running, eventually, options};
use menes_broker::config::options::Options;

fn server() -> Running {
    Running::new(Options {
        proxy_protocol: true,
        ..options()
    })
}

#[test]
fn a_proxy_says_where_the_client_is() {
    let server = server();
    let mut peer = server.silent();
    assert!(!peer.info.contains("client_ip"), "{}", peer.info);
    peer.say("PROXY TCP4 192.0.2.7 127.0.0.1 4711 4222\r\nCONNECT {\"verbose\":false,\"protocol\":1}\r\n");
    peer.say("PING\r\n");
    peer.expect("PONG\r\n");
    assert!(peer.line().contains("\"client_ip\":\"192.0.2.7\""));
    let client = &server.handle().clients()[0];
    assert_eq!(
        client.address(),
        "192.0.2.7:4711".parse().expect("an address")
    );
}

#[test]
fn clients_may_come_without_a_proxy() {
    let server = server();
    let mut peer = server.client();
    peer.sync();
    assert!(server.handle().clients()[0].address().ip().is_loopback());
}

#[test]
fn a_header_that_makes_no_sense_ends_the_connection() {
    let server = server();
    for bytes in [
        "PROXY TCP4 nobody 127.0.0.1 1 2\r\n",
        "\r\n\r\n\0\r\nQUIX\n0000",
    ] {
        let mut peer = server.silent();
        peer.send(bytes.as_bytes());
        peer.expect_closed();
    }
    eventually("both are forgotten", || {
        server.handle().connection_count() == 0
    });
}

#[test]
fn without_the_option_a_header_is_no_operation() {
    let server = Running::new(options());
    let mut peer = Peer::dial(server.address);
    peer.line();
    peer.say("PROXY TCP4 192.0.2.7 127.0.0.1 4711 4222\r\n");
    peer.expect("-ERR 'Unknown Protocol Operation'\r\n");
    peer.expect_closed();
}
