//! Bad input on the client port: every row of the security checklist's table for TCP.

use std::time::{Duration, Instant};

use crate::harness::{Running, eventually, options};
use menes_broker::config::options::{Limits, Options, Timing};

const UNKNOWN: &str = "-ERR 'Unknown Protocol Operation'\r\n";

#[test]
fn a_line_without_end_is_refused_at_the_limit() {
    let server = Running::new(options());
    for mut peer in [server.silent(), server.client()] {
        let line = format!("PUB {}", "a".repeat(5000));
        peer.say(&line);
        peer.expect("-ERR 'maximum control line exceeded'\r\n");
        peer.expect_closed();
    }
}

#[test]
fn a_payload_above_the_limit_is_refused_before_it_comes() {
    let server = Running::new(options());
    let mut listener = server.client();
    listener.say("SUB a 1\r\n");
    listener.sync();
    let mut peer = server.client();
    peer.say("PUB a 1048577\r\n");
    peer.expect("-ERR 'Maximum Payload Violation'\r\n");
    peer.expect_closed();
    let mut peer = server.client();
    // Most of the payload is on its way already: the answer is not lost for that.
    peer.say("PUB a 1048577\r\n");
    peer.try_send(&vec![b'x'; 300_000]);
    peer.expect("-ERR 'Maximum Payload Violation'\r\n");
    listener.sync();
}

#[test]
fn bad_sizes_close_silently() {
    let server = Running::new(options());
    for line in [
        "PUB a 99999999999999999999",
        "PUB a -1",
        "PUB a 0x10",
        "PUB a",
        "PUB",
    ] {
        let mut peer = server.client();
        peer.say(&format!("{line}\r\nxx\r\n"));
        if line == "PUB" {
            peer.expect(UNKNOWN);
        }
        peer.expect_closed();
    }
}

#[test]
fn bad_header_sizes_close_silently() {
    let server = Running::new(options());
    for line in [
        "HPUB a 20 10",
        "HPUB a 10",
        "HPUB a x 10",
        "HPUB a 1 2 3 4 5",
    ] {
        let mut peer = server.modern();
        peer.say(&format!("{line}\r\n"));
        peer.expect_closed();
    }
    let mut peer = server.client();
    peer.say("HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n");
    peer.expect_closed();
}

#[test]
fn a_payload_needs_its_line_end() {
    let server = Running::new(options());
    let mut listener = server.client();
    listener.say("SUB a 1\r\n");
    listener.sync();
    for bytes in [
        "PUB a 2\r\nhix\r\n",
        "PUB a 2\r\nhi\n\n",
        "PUB a 1\r\nhi\r\n",
    ] {
        let mut peer = server.client();
        peer.say(bytes);
        peer.expect(UNKNOWN);
        peer.expect_closed();
    }
    listener.sync();
}

#[test]
fn other_protocols_are_refused() {
    let server = Running::new(options());
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"RS+ $G a\r\n",
        b"\r\n",
        b"XYZ\r\n",
    ] {
        let mut peer = server.silent();
        peer.send(bytes);
        peer.expect(UNKNOWN);
        peer.expect_closed();
    }
}

#[test]
fn malformed_subjects_of_subscriptions_are_refused_and_forgiven() {
    let server = Running::new(options());
    let mut peer = server.client();
    for subject in ["foo..bar", ".a", "a.", "foo.>.bar", ".", ">.a"] {
        peer.say(&format!("SUB {subject} 1\r\n"));
        peer.expect("-ERR 'Invalid Subject'\r\n");
    }
    peer.sync();
    assert_eq!(server.handle().subscription_count(), 0);
}

#[test]
fn wildcards_in_a_published_subject_are_plain_tokens() {
    let server = Running::new(options());
    let mut listener = server.client();
    listener.say("SUB foo.bar 1\r\nSUB foo.* 2\r\nSUB foo.> 3\r\n");
    listener.sync();
    let mut peer = server.client();
    peer.say("PUB foo.* 1\r\nx\r\nPUB foo..bar 1\r\nx\r\n");
    peer.sync();
    listener.expect("MSG foo.* 3 1\r\nx\r\nMSG foo.* 2 1\r\nx\r\n");
    listener.sync();
}

#[test]
fn pedantic_clients_hear_about_their_subjects_and_are_served() {
    let server = Running::new(options());
    let mut peer = server.silent();
    peer.say("CONNECT {\"verbose\":false}\r\nSUB foo.* 1\r\nSUB bad 2\r\n");
    for subject in ["foo.*", "foo.>"] {
        peer.say(&format!("PUB {subject} 1\r\nx\r\n"));
        peer.expect("-ERR 'Invalid Publish Subject'\r\n");
        peer.expect(&format!("MSG {subject} 1 1\r\nx\r\n"));
    }
    peer.say("PUB a..b 1\r\nx\r\n");
    peer.expect("-ERR 'Invalid Publish Subject'\r\n");
    peer.sync();
}

#[test]
fn control_characters_end_a_subject() {
    let server = Running::new(options());
    let mut listener = server.client();
    listener.say("SUB > 1\r\n");
    listener.sync();
    // A CR inside a line is an argument error; a LF ends the line, so the rest is no size.
    for bytes in ["PUB a\rb 1\r\nx\r\n", "PUB a\nb 1\r\nx\r\n"] {
        let mut peer = server.client();
        peer.say(bytes);
        peer.expect_closed();
    }
    // Other bytes are legal and come out as they went in.
    let mut peer = server.client();
    peer.send(b"PUB a\x00\xff 1\r\nx\r\n");
    peer.sync();
    listener.expect_bytes(b"MSG a\x00\xff 1 1\r\nx\r\n");
    listener.sync();
}

#[test]
fn subscriptions_are_limited_in_tokens_and_number() {
    let limits = Limits {
        max_sub_tokens: Some(8),
        max_subscriptions: Some(3),
        ..Limits::default()
    };
    let server = Running::new(Options {
        limits,
        ..options()
    });
    let mut peer = server.client();
    let long = vec!["a"; 300].join(".");
    peer.say(&format!("SUB {long} 1\r\n"));
    peer.expect(&format!(
        "-ERR 'Permissions Violation for Subscription to \"{long}\", too many tokens'\r\n"
    ));
    peer.say("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nSUB d 4\r\n");
    peer.expect("-ERR 'maximum subscriptions exceeded'\r\n");
    peer.say("UNSUB 1\r\nSUB d 4\r\n");
    peer.sync();
    peer.say(&format!("SUB {} 9\r\n", "b".repeat(65_536)));
    peer.expect("-ERR 'maximum control line exceeded'\r\n");
    peer.expect_closed();
}

#[test]
fn a_subject_of_three_hundred_tokens_works_without_limit() {
    let server = Running::new(options());
    let mut peer = server.client();
    let long = vec!["a"; 300].join(".");
    peer.say(&format!("SUB {long} 1\r\nPUB {long} 1\r\nx\r\n"));
    peer.expect(&format!("MSG {long} 1 1\r\nx\r\n"));
}

#[test]
fn odd_unsubscribes_are_ignored() {
    let server = Running::new(options());
    let mut peer = server.client();
    peer.say("UNSUB 77\r\nSUB a 1\r\nUNSUB 1 -1\r\nPUB a 1\r\nx\r\n");
    peer.sync();
    peer.say(&format!("UNSUB {}\r\n", "9".repeat(10_000)));
    peer.expect("-ERR 'maximum control line exceeded'\r\n");
    peer.expect_closed();
    eventually("the end of its subscriptions", || {
        server.handle().subscription_count() == 0
    });
}

#[test]
fn a_login_that_never_comes_times_out() {
    let timing = Timing {
        auth_timeout: Duration::from_millis(400),
        ..Timing::default()
    };
    let options = Options {
        timing,
        ..crate::harness::with_users(vec![crate::harness::user("a", "b")])
    };
    let server = Running::new(options);
    let start = Instant::now();
    let mut quiet = server.silent();
    let mut slow = server.silent();
    slow.say("CONNE");
    quiet.expect("-ERR 'Authentication Timeout'\r\n");
    quiet.expect_closed();
    slow.expect("-ERR 'Authentication Timeout'\r\n");
    slow.expect_closed();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(390) && took < Duration::from_secs(2),
        "{took:?}"
    );
}

#[test]
fn a_flood_of_pings_is_answered_and_others_are_served() {
    let server = Running::new(options());
    let mut flood = server.client();
    let mut other = server.client();
    let pings = "PING\r\n".repeat(1000);
    let pongs = "PONG\r\n".repeat(1000);
    for _ in 0..100 {
        flood.say(&pings);
        other.sync();
        flood.expect(&pongs);
    }
}

#[test]
fn a_client_that_never_reads_is_closed_and_holds_nobody_up() {
    let limits = Limits {
        max_pending: 1024 * 1024,
        ..Limits::default()
    };
    let server = Running::new(Options {
        limits,
        ..options()
    });
    let mut stuck = server.client();
    stuck.say("SUB > 1\r\n");
    stuck.sync();
    let mut reading = server.client();
    reading.say("SUB done 1\r\n");
    reading.sync();
    let mut publisher = server.client();
    let payload = "x".repeat(1000);
    let message = format!("PUB a 1000\r\n{payload}\r\n").repeat(100);
    let start = Instant::now();
    for _ in 0..300 {
        publisher.say(&message);
    }
    publisher.say("PUB done 0\r\n\r\n");
    reading.expect("MSG done 1 0\r\n\r\n");
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "publisher held up"
    );
    eventually("the end of the slow consumer", || {
        server.handle().connection_count() == 2
    });
    assert_eq!(server.handle().counters().slow_consumers_pending, 1);
    let got = stuck.drain();
    assert!(!String::from_utf8_lossy(&got).contains("-ERR"));
}

#[test]
fn a_client_may_be_cut_anywhere() {
    let server = Running::new(options());
    let mut listener = server.modern();
    listener.say("SUB a.> 7\r\n");
    listener.sync();
    let mut peer = server.modern();
    let bytes = b"pub a.b 5\r\nhello\r\nHPUB a.c r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPING\r\n";
    for byte in bytes {
        peer.send(&[*byte]);
    }
    peer.expect("PONG\r\n");
    listener.expect("MSG a.b 7 5\r\nhello\r\nHMSG a.c 7 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
}

#[test]
fn large_payloads_arrive_whole() {
    let server = Running::new(options());
    let mut one = server.client();
    let mut two = server.client();
    for peer in [&mut one, &mut two] {
        peer.say("SUB big 1\r\n");
        peer.sync();
    }
    let mut peer = server.client();
    for size in [2047, 2048, 40_000, 65_536, 200_000, 1_048_576] {
        let payload: Vec<u8> = (0..size)
            .map(|n| u8::try_from(n % 251).expect("small"))
            .collect();
        let mut wire = format!("PUB big {size}\r\n").into_bytes();
        wire.extend_from_slice(&payload);
        wire.extend_from_slice(b"\r\nPUB big 1\r\nx\r\n");
        peer.send(&wire);
        for listener in [&mut one, &mut two] {
            listener.expect(&format!("MSG big 1 {size}\r\n"));
            listener.expect_bytes(&payload);
            listener.expect("\r\nMSG big 1 1\r\nx\r\n");
        }
    }
}
