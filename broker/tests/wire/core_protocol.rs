//! The core protocol as clients see it.

use crate::harness::{Peer, Running, eventually, options};
use menes_broker::config::options::Options;

#[test]
fn info_says_what_clients_need() {
    let server = Running::new(options());
    let peer = server.silent();
    let port = server.address.port();
    let id = server.handle().id();
    let (rest, xkey) = peer
        .info
        .split_once(",\"xkey\":\"")
        .expect("a key to seal for");
    assert!(xkey.starts_with('X') && xkey.len() == 56 + "\"} \r\n".len());
    let expected = format!(
        "INFO {{\"server_id\":\"{id}\",\"server_name\":\"{id}\",\"version\":\"2.14.6\",\"proto\":1,\
         \"go\":\"go1.26.0\",\"host\":\"127.0.0.1\",\"port\":{port},\"headers\":true,\
         \"max_payload\":1048576,\"client_id\":1,\"client_ip\":\"127.0.0.1\",\"api_lvl\":4"
    );
    assert_eq!(rest, expected);
}

#[test]
fn a_second_info_follows_the_first_pong_only() {
    let server = Running::new(options());
    let mut peer = server.silent();
    peer.say("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\nPING\r\n");
    peer.expect("PONG\r\n");
    let info = peer.line();
    assert!(
        info.contains("\"connect_info\":true,\"remote_account\":\"$G\""),
        "{info}"
    );
    peer.expect("PONG\r\n");
    let mut old = server.client();
    old.sync();
}

#[test]
fn several_ports_are_one_server() {
    let server = Running::new(Options {
        ports: vec![0, 0],
        ..options()
    });
    let second = server.handle().addresses()[1];
    let mut listener = Peer::dial(second);
    assert!(
        listener
            .line()
            .contains(&format!("\"port\":{}", second.port()))
    );
    listener.say("CONNECT {\"verbose\":false}\r\nSUB a 1\r\n");
    listener.sync();
    let mut peer = server.client();
    peer.say("PUB a 2\r\nhi\r\n");
    listener.expect("MSG a 1 2\r\nhi\r\n");
}

#[test]
fn messages_reach_every_subscription_with_reply_and_order() {
    let server = Running::new(options());
    let mut peer = server.client();
    peer.say("SUB a.* 1\r\nSUB a.b 2\r\n");
    peer.say("PUB a.b back 2\r\nhi\r\nPUB a.c 0\r\n\r\nPUB a.b.c 1\r\nx\r\n");
    peer.expect("MSG a.b 1 back 2\r\nhi\r\nMSG a.b 2 back 2\r\nhi\r\nMSG a.c 1 0\r\n\r\n");
    peer.sync();
}

#[test]
fn a_live_sid_is_kept() {
    let server = Running::new(options());
    let mut peer = server.client();
    peer.say("SUB a 1\r\nSUB b 1\r\nPUB b 1\r\nx\r\nPUB a 1\r\ny\r\n");
    peer.expect("MSG a 1 1\r\ny\r\n");
    peer.sync();
}

#[test]
fn verbose_clients_hear_ok() {
    let server = Running::new(options());
    let mut peer = server.silent();
    // Without CONNECT a client is verbose and pedantic.
    peer.say("SUB a 1\r\n");
    peer.expect("+OK\r\n");
    peer.say("PUB a 1\r\nx\r\n");
    peer.expect("+OK\r\nMSG a 1 1\r\nx\r\n");
    peer.say("CONNECT {\"verbose\":true,\"pedantic\":false}\r\nSUB b 2\r\nUNSUB 2\r\nUNSUB 9\r\n");
    peer.expect("+OK\r\n+OK\r\n+OK\r\n+OK\r\n");
    // Within one account a second CONNECT leaves the subscriptions.
    peer.say("PUB a 1\r\nx\r\nPING\r\n");
    peer.expect("+OK\r\nMSG a 1 1\r\nx\r\nPONG\r\n");
}

#[test]
fn own_messages_come_back_unless_echo_is_off() {
    let server = Running::new(options());
    let mut other = server.client();
    other.say("SUB a 5\r\nSUB q g 6\r\n");
    other.sync();
    let mut peer = server.client_with(",\"echo\":false");
    peer.say("SUB a 1\r\nSUB q g 2\r\nPUB a 1\r\nx\r\n");
    other.expect("MSG a 5 1\r\nx\r\n");
    // The only other member of the group gets everything.
    for _ in 0..20 {
        peer.say("PUB q 1\r\nx\r\n");
        other.expect("MSG q 6 1\r\nx\r\n");
    }
    peer.sync();
}

#[test]
fn unsub_with_max_counts_from_sub() {
    let server = Running::new(options());
    let mut peer = server.client();
    peer.say("SUB a 1\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nUNSUB 1 3\r\n");
    peer.say("PUB a 1\r\n3\r\nPUB a 1\r\n4\r\n");
    peer.expect("MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\nMSG a 1 1\r\n3\r\n");
    peer.sync();
    assert_eq!(server.handle().subscription_count(), 0);
    // The sid is free again; a max that is reached already removes at once.
    peer.say("SUB a 1\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nUNSUB 1 2\r\nPUB a 1\r\n3\r\n");
    peer.expect("MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\n");
    peer.sync();
    peer.say("SUB a 2\r\nUNSUB 2 0\r\nPUB a 1\r\nx\r\n");
    peer.sync();
    assert_eq!(server.handle().subscription_count(), 0);
}

#[test]
fn one_member_of_a_group_gets_a_message() {
    let server = Running::new(options());
    let mut members = [server.client(), server.client(), server.client()];
    for (n, member) in members.iter_mut().enumerate() {
        member.say(&format!("SUB work.* g {n}\r\nSUB count.{n} 9\r\n"));
        member.sync();
    }
    let mut plain = server.client();
    plain.say("SUB work.x 1\r\n");
    plain.sync();
    let mut peer = server.client();
    peer.say(&"PUB work.x 1\r\nx\r\n".repeat(300));
    peer.sync();
    plain.expect(&"MSG work.x 1 1\r\nx\r\n".repeat(300));
    let mut total = 0;
    for (n, member) in members.iter_mut().enumerate() {
        peer.say(&format!("PUB count.{n} 3\r\nend\r\n"));
        let mut count = 0;
        loop {
            let line = member.line();
            if line.starts_with("MSG count") {
                member.expect("end\r\n");
                break;
            }
            assert_eq!(line, format!("MSG work.x {n} 1\r\n"));
            member.expect("x\r\n");
            count += 1;
        }
        assert!(count > 50, "member {n} got {count} of 300");
        total += count;
    }
    assert_eq!(total, 300);
}

#[test]
fn a_group_goes_on_without_a_member_that_left() {
    let server = Running::new(options());
    let mut stays = server.client();
    stays.say("SUB a g 1\r\n");
    stays.sync();
    let mut peer = server.client();
    {
        let mut leaves = server.client();
        leaves.say("SUB a g 1\r\n");
        leaves.sync();
    }
    eventually("its end", || server.handle().subscription_count() == 1);
    peer.say(&"PUB a 1\r\nx\r\n".repeat(20));
    stays.expect(&"MSG a 1 1\r\nx\r\n".repeat(20));
}

#[test]
fn headers_are_for_those_who_understand_them() {
    let server = Running::new(options());
    let mut old = server.client();
    let mut new = server.modern();
    for peer in [&mut old, &mut new] {
        peer.say("SUB a 1\r\n");
        peer.sync();
    }
    let mut peer = server.modern();
    peer.say("HPUB a r 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\nPUB a 1\r\nx\r\n");
    new.expect("HMSG a 1 r 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\nMSG a 1 1\r\nx\r\n");
    old.expect("MSG a 1 r 2\r\nhi\r\nMSG a 1 1\r\nx\r\n");
    let big = "y".repeat(5000);
    peer.say(&format!("HPUB a 12 5012\r\nNATS/1.0\r\n\r\n{big}\r\n"));
    new.expect(&format!("HMSG a 1 12 5012\r\nNATS/1.0\r\n\r\n{big}\r\n"));
    old.expect(&format!("MSG a 1 5000\r\n{big}\r\n"));
}

#[test]
fn a_requester_hears_that_nobody_listens() {
    let server = Running::new(options());
    let mut peer = server.modern();
    peer.say("SUB _INBOX.x.* 3\r\nPUB svc.a _INBOX.x.1 2\r\nhi\r\n");
    peer.expect("HMSG _INBOX.x.1 3 37 37\r\nNATS/1.0 503\r\nNats-Subject: svc.a\r\n\r\n\r\n");
    // Not without a reply, not when someone gets it, not when the inbox is another's or a group's.
    peer.say("PUB svc.a 2\r\nhi\r\nSUB svc.b 4\r\nPUB svc.b _INBOX.x.1 1\r\nx\r\n");
    peer.expect("MSG svc.b 4 _INBOX.x.1 1\r\nx\r\n");
    let mut other = server.modern();
    other.say("SUB _INBOX.y.* g 1\r\nSUB _INBOX.z.1 2\r\n");
    other.sync();
    peer.say("PUB svc.a _INBOX.z.1 1\r\nx\r\nPUB svc.a nowhere 1\r\nx\r\n");
    other.say("PUB svc.a _INBOX.y.1 1\r\nx\r\n");
    peer.sync();
    other.sync();
    let mut plain = server.client_with(",\"headers\":true");
    plain.say("SUB r 1\r\nPUB svc.a r 1\r\nx\r\n");
    plain.sync();
}

#[test]
fn a_no_responders_answer_does_not_count_towards_a_max() {
    let server = Running::new(options());
    let mut peer = server.modern();
    peer.say("SUB r 1\r\nUNSUB 1 1\r\nPUB svc r 0\r\n\r\nPUB svc r 0\r\n\r\n");
    peer.expect(&"HMSG r 1 35 35\r\nNATS/1.0 503\r\nNats-Subject: svc\r\n\r\n\r\n".repeat(2));
    peer.say("PUB r 1\r\nx\r\n");
    peer.expect("MSG r 1 1\r\nx\r\n");
    peer.sync();
    assert_eq!(server.handle().subscription_count(), 0);
}

#[test]
fn every_address_is_one_of_ipv6_too() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        // The machine has no IPv6.
        return;
    }
    let server = Running::new(Options {
        host: "0.0.0.0".to_owned(),
        ..options()
    });
    assert!(server.address.ip().is_unspecified() && server.address.is_ipv4());
    for (host, ip) in [("[::1]", "::1"), ("127.0.0.1", "127.0.0.1")] {
        let address = format!("{host}:{}", server.address.port());
        let mut peer = Peer::dial(address.parse().expect("an address"));
        let info = peer.line();
        assert!(info.contains(&format!("\"client_ip\":\"{ip}\"")), "{info}");
    }
}

#[test]
fn connect_is_checked() {
    let server = Running::new(options());
    for (json, answer) in [
        ("{\"protocol\":2}", "-ERR 'invalid client protocol'\r\n"),
        (
            "{\"no_responders\":true}",
            "-ERR 'no responders requires headers support'\r\n",
        ),
        ("{\"account\":\"x\"}", "-ERR 'Authorization Violation'\r\n"),
        ("not json", ""),
        ("{\"user\":1}", ""),
        ("{\"user\":\"a\",\"user\":\"b\"}", ""),
    ] {
        let mut peer = server.silent();
        peer.say(&format!("CONNECT {json}\r\n"));
        peer.expect(answer);
        peer.expect_closed();
    }
    let deep = format!(
        "CONNECT {{\"x\":{}{}}}\r\n",
        "[".repeat(1000),
        "]".repeat(1000)
    );
    let mut peer = server.silent();
    peer.say(&deep);
    peer.expect_closed();
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let mut options = options();
    options.limits.max_connections = 1;
    let server = Running::new(options);
    let mut first = server.client();
    let mut second = server.silent();
    second.expect("-ERR 'maximum connections exceeded'\r\n");
    second.expect_closed();
    first.sync();
    drop(first);
    eventually("the end of the first", || {
        server.handle().connection_count() == 0
    });
    server.client().sync();
}

#[test]
fn silent_clients_are_pinged_and_closed() {
    let mut options = options();
    options.timing.first_ping = std::time::Duration::from_millis(20);
    options.timing.ping_interval = std::time::Duration::from_millis(50);
    let server = Running::new(options);
    let mut peer = server.client();
    peer.expect("PING\r\n");
    peer.say("PONG\r\n");
    peer.expect("PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
    peer.expect_closed();
    assert_eq!(server.handle().counters().stale_connections, 1);
}

#[test]
fn a_further_connect_changes_only_what_it_names() {
    let server = Running::new(options());
    let mut peer = server.client();
    peer.say("CONNECT {\"verbose\":true,\"headers\":true}\r\n");
    peer.expect("+OK\r\n");
    peer.say("CONNECT {\"pedantic\":false}\r\nHPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n");
    peer.expect("+OK\r\n+OK\r\n");
    peer.say("INFO {\"server_id\":\"x\"}\r\nPING\r\n");
    peer.expect("PONG\r\n");
}

#[test]
fn a_sid_in_use_stays_what_it_is() {
    let server = Running::new(options());
    let mut peer = server.client();
    peer.say("CONNECT {\"verbose\":true}\r\nSUB a 1\r\nSUB a..b 1\r\nSUB b 1\r\n");
    peer.expect("+OK\r\n+OK\r\n+OK\r\n+OK\r\n");
    peer.say("PUB b 1\r\nx\r\nPUB a 1\r\ny\r\n");
    peer.expect("+OK\r\n+OK\r\nMSG a 1 1\r\ny\r\n");
}

#[test]
fn reserved_subjects_and_replies_are_refused() {
    let server = Running::new(options());
    let mut peer = server.client();
    peer.say("PUB _GR_.a 1\r\nx\r\nPUB $NRG.a 1\r\nx\r\n");
    for subject in ["_GR_.a", "$NRG.a"] {
        peer.expect(&format!(
            "-ERR 'Permissions Violation for Publish to \"{subject}\"'\r\n"
        ));
    }
    for reply in ["_R_.a", "$JS.ACK.s.c.1.1.1.1.0", "_GR_.x"] {
        peer.say(&format!("PUB a {reply} 1\r\nx\r\n"));
        peer.expect(&format!(
            "-ERR 'Permissions Violation for Publish with Reply of \"{reply}\"'\r\n"
        ));
    }
    peer.say("SUB a _sys_ 1\r\n");
    peer.expect("-ERR 'Permissions Violation for Subscription to \"a\" using queue \"_sys_\"'\r\n");
    peer.sync();
}

#[test]
fn everything_is_counted() {
    let server = Running::new(options());
    let mut peer = server.client();
    peer.say("SUB a 1\r\nSUB a 2\r\nPUB a 3\r\nabc\r\nPUB b 2\r\nxx\r\n");
    peer.expect("MSG a 1 3\r\nabc\r\nMSG a 2 3\r\nabc\r\n");
    peer.sync();
    let sums = server.handle().counters().traffic;
    assert_eq!((sums.in_msgs, sums.in_bytes), (2, 5));
    assert_eq!((sums.out_msgs, sums.out_bytes), (2, 6));
    let clients = server.handle().clients();
    assert_eq!(clients.len(), 1);
    assert_eq!(clients[0].traffic().count(), sums);
    assert_eq!(clients[0].subscription_count(), 2);
    assert_eq!(server.handle().total_connections(), 1);
}

#[test]
fn a_server_that_stops_closes_without_a_word() {
    let mut server = Running::new(options());
    let mut peer = server.client();
    let handle = server.handle.take().expect("it runs");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(handle.shutdown());
    peer.expect_closed();
    assert!(std::net::TcpStream::connect(server.address).is_err());
}
