//! Streams out to a backup and back.

use menes_jetstream::archive::{EntryReader, MAGIC, Packer, Unpacker};

use super::server::{SECOND, Server};

/// Takes a backup of a stream, as pieces.
fn backup(server: &mut Server, stream: &str, more: &str) -> (serde_json::Value, Vec<Vec<u8>>) {
    let inbox = server.inbox();
    let body = format!(r#"{{"deliver_subject":"{inbox}"{more}}}"#);
    let answer = server.must(&format!("STREAM.SNAPSHOT.{stream}"), &body);
    let mut pieces = Vec::new();
    loop {
        let got = server.received(&inbox);
        assert!(!got.is_empty(), "it stopped after {} pieces", pieces.len());
        for sent in got {
            if sent.payload.is_empty() {
                let whole = pieces.len() > 1;
                assert_eq!(sent.header, if whole { "NATS/1.0 204\r\n\r\n" } else { "" });
                return (answer, pieces);
            }
            if !sent.reply.is_empty() {
                server.tell(&sent.reply, "", b"");
            }
            pieces.push(sent.payload);
        }
        server.settle();
    }
}

/// Sends a backup; gives the last answer.
fn restore(
    server: &mut Server,
    name: &str,
    begun: &serde_json::Value,
    pieces: &[Vec<u8>],
) -> serde_json::Value {
    let to = begin(server, name, begun);
    for piece in pieces {
        let inbox = server.inbox();
        server.tell(&to, &inbox, piece);
        server.settle();
        let answer = server.answer(&inbox);
        if !answer.is_empty() {
            return serde_json::from_str(&answer).expect("JSON");
        }
    }
    let inbox = server.inbox();
    server.tell(&to, &inbox, b"");
    server.settle();
    serde_json::from_str(&server.answer(&inbox)).expect("JSON")
}

fn begin(server: &mut Server, name: &str, begun: &serde_json::Value) -> String {
    let body = serde_json::json!({"config": begun["config"], "state": begun["state"]});
    let answer = server.must(&format!("STREAM.RESTORE.{name}"), &body.to_string());
    answer["deliver_subject"]
        .as_str()
        .expect("a subject")
        .to_owned()
}

fn messages(server: &mut Server, stream: &str) -> Vec<serde_json::Value> {
    let last = server.state(stream)["last_seq"].as_u64().expect("a number");
    (1..=last)
        .map(|seq| {
            server.call(
                &format!("STREAM.MSG.GET.{stream}"),
                &format!(r#"{{"seq":{seq}}}"#),
            )
        })
        .collect()
}

#[test]
fn a_stream_comes_back_as_it_was() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    for n in 0..200u32 {
        let header = "NATS/1.0\r\nOwn: x\r\n\r\n";
        server.publish_with(
            &format!("s.{}", n % 7),
            header,
            &n.to_le_bytes().repeat(100),
        );
    }
    server.settle();
    let got = server.pull("S", "C", 10);
    server.ack(&got[0], "");
    server.ack(&got[1], "");
    server.ack(&got[4], "");
    for seq in [1, 50, 51, 200] {
        server.must("STREAM.MSG.DELETE.S", &format!(r#"{{"seq":{seq}}}"#));
    }
    server.settle();
    let before = messages(&mut server, "S");
    let state = server.state("S");
    let (begun, pieces) = backup(&mut server, "S", r#","chunk_size":1024,"window_size":4096"#);
    assert!(pieces.len() > 4);
    assert_eq!(begun["state"]["messages"], 196);
    server.must("STREAM.DELETE.S", "");
    // The stream is made later than what comes back into it.
    server.pass(SECOND);
    let answer = restore(&mut server, "S", &begun, &pieces);
    assert_eq!(answer["state"]["messages"], 196, "{answer}");
    assert_eq!(messages(&mut server, "S"), before);
    assert_eq!(server.state("S"), state);
    // What was handed out and not settled comes again.
    let again = server.pull("S", "C", 3);
    let seqs: Vec<u64> = again.iter().map(super::server::seq_of).collect();
    assert_eq!(seqs, [3, 4, 5]);
    let confirmed = server.ack(&again[0], "");
    server.settle();
    assert!(server.is_answered(&confirmed));
    let info = server.must("CONSUMER.INFO.S.C", "");
    assert_eq!(info["ack_floor"]["stream_seq"], 3, "{info}");
    assert_eq!(server.store("s.new"), r#"{"stream":"S","seq":201}"#);
    server.restart();
    assert_eq!(server.state("S")["messages"], 197);
}

#[test]
fn a_backup_without_consumers_has_none() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    server.must("STREAM.PURGE.S", r#"{"seq":100}"#);
    let (begun, pieces) = backup(&mut server, "S", r#","no_consumers":true"#);
    server.must("STREAM.DELETE.S", "");
    let answer = restore(&mut server, "S", &begun, &pieces);
    assert_eq!(answer["state"]["first_seq"], 100, "{answer}");
    assert_eq!(server.must("CONSUMER.NAMES.S", "")["total"], 0);
    assert_eq!(server.store("s.new"), r#"{"stream":"S","seq":100}"#);
}

#[test]
fn damage_and_a_short_backup_leave_nothing() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    for _ in 0..100 {
        server.store("s.a");
    }
    let (begun, pieces) = backup(&mut server, "S", r#","chunk_size":1024"#);
    server.must("STREAM.DELETE.S", "");
    let mut damaged = pieces.clone();
    damaged[0][500] ^= 1;
    let answer = restore(&mut server, "S", &begun, &damaged);
    assert_eq!(answer["error"]["err_code"], 10062, "{answer}");
    let answer = restore(&mut server, "S", &begun, &[]);
    assert_eq!(
        answer["error"]["description"],
        "restore failed: backup was truncated"
    );
    server.settle();
    assert_eq!(server.must("STREAM.NAMES", "")["total"], 0);
    let answer = restore(&mut server, "S", &begun, &pieces);
    assert_eq!(answer["state"]["messages"], 100, "{answer}");
    let body = serde_json::json!({"config": begun["config"], "state": begun["state"]});
    let answer = server.call("STREAM.RESTORE.S", &body.to_string());
    assert_eq!(answer["error"]["err_code"], 10130);
}

#[test]
fn messages_without_a_valid_subject_are_not_restored() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.store("s.a");
    server.store("s.b");
    let (begun, pieces) = backup(&mut server, "S", "");
    server.must("STREAM.DELETE.S", "");
    let mut unpacked = Vec::new();
    let mut unpacker = Unpacker::default();
    for piece in &pieces {
        unpacker.push(piece, &mut unpacked).expect("ours");
    }
    for subject in ["s.", "s..b", "s.*", ">", " "] {
        let mut reader = EntryReader::default();
        reader.push(&unpacked[MAGIC.len()..]);
        let mut changed = MAGIC.to_vec();
        while let Some(mut entry) = reader.next_entry().expect("ours") {
            if entry.name[..] == *b"s.b" {
                entry.name = subject.as_bytes().to_vec();
            }
            entry.write(&mut changed);
        }
        let mut packer = Packer::default();
        packer.push(&changed);
        packer.finish();
        let packed = packer.take(packer.ready());
        let answer = restore(&mut server, "S", &begun, &[packed]);
        let why = "restore failed: message 2 has no valid subject";
        assert_eq!(answer["error"]["description"], why, "{subject:?}");
        server.settle();
        assert_eq!(server.must("STREAM.NAMES", "")["total"], 0);
    }
    let answer = restore(&mut server, "S", &begun, &pieces);
    assert_eq!(answer["state"]["messages"], 2, "{answer}");
}

#[test]
fn a_stream_is_not_seen_before_it_is_whole() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.consumer("S", "C", "");
    server.consumer("S", "P", r#","deliver_subject":"there""#);
    // Nothing that could be compressed.
    let mut random = 1_u64;
    for _ in 0..20 {
        let bytes = (0..50_000).map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[0]
        });
        server.publish_with("s.a", "", &bytes.collect::<Vec<u8>>());
    }
    server.settle();
    let (begun, pieces) = backup(&mut server, "S", "");
    assert!(pieces.len() > 4);
    server.must("STREAM.DELETE.S", "");
    server.received("there");
    let to = begin(&mut server, "S", &begun);
    let config = begun["config"].to_string();
    let again = serde_json::json!({"config": begun["config"], "state": begun["state"]}).to_string();
    let create = r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#;
    let missing = [
        ("STREAM.INFO.S", ""),
        ("STREAM.DELETE.S", ""),
        ("STREAM.MSG.GET.S", r#"{"seq":1}"#),
        ("CONSUMER.INFO.S.C", ""),
        ("CONSUMER.DURABLE.CREATE.S.C", create),
        ("STREAM.UPDATE.S", &config),
    ];
    let code = |server: &mut Server, subject: &str, body: &str| {
        let answer = server.call(subject, body);
        answer["error"]["err_code"].as_u64().unwrap_or(0)
    };
    for piece in &pieces {
        let inbox = server.inbox();
        server.tell(&to, &inbox, piece);
        server.settle();
        assert_eq!(server.answer(&inbox), "");
        assert_eq!(server.must("STREAM.NAMES", "")["total"], 0);
        assert_eq!(server.must("STREAM.LIST", "")["total"], 0);
        assert!(server.received("there").is_empty());
        for (subject, body) in missing {
            assert_eq!(code(&mut server, subject, body), 10059, "{subject}");
        }
        // Its name is taken all the same.
        assert_eq!(code(&mut server, "STREAM.RESTORE.S", &again), 10130);
        assert_eq!(code(&mut server, "STREAM.CREATE.S", &config), 10058);
    }
    let overlapping = r#"{"name":"T","subjects":["s.a"]}"#;
    assert_eq!(code(&mut server, "STREAM.CREATE.T", overlapping), 10065);
    let inbox = server.inbox();
    server.tell(&to, &inbox, b"");
    server.settle();
    let answer: serde_json::Value = serde_json::from_str(&server.answer(&inbox)).expect("JSON");
    assert_eq!(answer["state"]["messages"], 20, "{answer}");
    assert_eq!(server.must("STREAM.NAMES", "")["total"], 1);
    assert_eq!(server.received("there").len(), 20);
    server.must("CONSUMER.INFO.S.C", "");
    server.crash();
    server.settle();
    assert_eq!(server.must("STREAM.NAMES", "")["total"], 1);
}

#[test]
fn a_restore_that_is_given_up_leaves_nothing() {
    for crash in [false, true] {
        let mut server = Server::new();
        server.stream("S", &["s.>"], "");
        server.publish_with("s.a", "", &[7; 200_000]);
        server.settle();
        let (begun, pieces) = backup(&mut server, "S", "");
        server.must("STREAM.DELETE.S", "");
        let to = begin(&mut server, "S", &begun);
        let inbox = server.inbox();
        server.tell(&to, &inbox, &pieces[0]);
        server.settle();
        if crash {
            server.crash();
            server.settle();
        } else {
            server.pass(6 * SECOND);
        }
        assert_eq!(server.must("STREAM.NAMES", "")["total"], 0, "{crash}");
    }
}

#[test]
fn a_receiver_that_does_not_answer_gets_no_more() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    for n in 0..100u8 {
        let noise: Vec<u8> = (0..2000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ n)
            .collect();
        server.publish_with("s.a", "", &noise);
    }
    server.settle();
    let inbox = server.inbox();
    let body = format!(r#"{{"deliver_subject":"{inbox}","chunk_size":1024,"window_size":2048}}"#);
    server.must("STREAM.SNAPSHOT.S", &body);
    assert_eq!(server.received(&inbox).len(), 2);
    server.pass(6 * SECOND);
    let end = server.received(&inbox);
    assert_eq!(end[0].header, "NATS/1.0 408 No Flow Response\r\n\r\n");
    server.wire.deaf.insert("nobody".to_owned());
    server.must("STREAM.SNAPSHOT.S", r#"{"deliver_subject":"nobody"}"#);
    server.pass(3 * SECOND);
    assert!(server.wire.listeners.is_empty());
}

#[test]
fn a_restore_on_a_full_disk_fails_and_leaves_nothing() {
    for storage in ["file", "memory"] {
        let mut server = Server::new();
        server.stream("S", &["s.>"], &format!(r#","storage":"{storage}""#));
        for _ in 0..20 {
            server.store("s.a");
        }
        let (begun, pieces) = backup(&mut server, "S", "");
        server.must("STREAM.DELETE.S", "");
        // Commands still have room.
        server.log.set_full(true);
        let answer = restore(&mut server, "S", &begun, &pieces);
        server.settle();
        if storage == "file" {
            // The same where nothing waits for an answer.
            let to = begin(&mut server, "S", &begun);
            for piece in &pieces {
                server.tell(&to, "_INBOX.piece", piece);
            }
            server.tell(&to, "_INBOX.end", b"");
            server.settle();
            let told = server.answer("_INBOX.end");
            assert!(told.contains("insufficient storage resources"), "{told}");
            let error = "restore failed: insufficient storage resources available";
            assert_eq!(answer["error"]["description"], error, "{answer}");
            assert_eq!(server.must("STREAM.NAMES", "")["total"], 0);
            server.crash();
            server.settle();
            assert_eq!(server.must("STREAM.NAMES", "")["total"], 0);
            server.log.set_full(false);
            let answer = restore(&mut server, "S", &begun, &pieces);
            assert_eq!(answer["state"]["messages"], 20, "{answer}");
        } else {
            assert_eq!(answer["state"]["messages"], 20, "{answer}");
        }
    }
}

#[test]
fn a_stream_with_sources_goes_on_behind_what_came_back() {
    let mut server = Server::new();
    server.stream("A", &["a.>"], "");
    server.stream("B", &["b.>"], "");
    let body = r#"{"name":"S","sources":[{"name":"A"},{"name":"B","subject_transforms":[{"src":"b.*","dest":"c.{{wildcard(1)}}"}]}]}"#;
    server.must("STREAM.CREATE.S", body);
    for n in 0..5 {
        server.store("a.x");
        server.store(&format!("b.{n}"));
    }
    server.pass(SECOND);
    assert_eq!(server.state("S")["messages"], 10);
    let (begun, pieces) = backup(&mut server, "S", "");
    server.must("STREAM.DELETE.S", "");
    server.store("a.x");
    server.store("b.x");
    let answer = restore(&mut server, "S", &begun, &pieces);
    assert_eq!(answer["state"]["messages"], 10, "{answer}");
    server.pass(20 * SECOND);
    assert_eq!(server.state("S")["messages"], 12);
    server.restart();
    server.store("a.x");
    server.pass(20 * SECOND);
    assert_eq!(server.state("S")["messages"], 13);
}
