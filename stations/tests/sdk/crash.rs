//! Whatever happens in between, the same requests lead to the same stations.

use std::collections::BTreeSet;

use menes_jetstream::Timestamp;
use menes_stations::sdk;
use menes_stations::station::StationStatus;
use menes_stations::{Command, Step};
use proptest::prelude::*;

use crate::bench::{Bench, Client, SECOND, account};

#[derive(Clone, Debug)]
enum Deed {
    CreateStation {
        station: u8,
        partitions: u8,
        dead_letters: Option<u8>,
    },
    DestroyStation {
        station: u8,
    },
    CreateProducer {
        connection: u8,
        station: u8,
        name: u8,
    },
    DestroyProducer {
        connection: u8,
        station: u8,
        name: u8,
    },
    CreateConsumer {
        connection: u8,
        station: u8,
        name: u8,
        group: u8,
        deliveries: u8,
        last: i8,
    },
    DestroyConsumer {
        connection: u8,
        station: u8,
        name: u8,
    },
    CreateUser {
        name: u8,
        tenant: u8,
    },
    DestroyUser {
        name: u8,
        tenant: u8,
    },
    CreateTenant {
        tenant: u8,
    },
    DestroyTenant {
        tenant: u8,
    },
}

const STATIONS: u8 = 3;
const CONNECTIONS: u8 = 3;

fn deed() -> impl Strategy<Value = Deed> {
    let (station, connection, name) = (0..STATIONS, 0..CONNECTIONS, 0..2_u8);
    prop_oneof![
        3 => (station.clone(), 0..4_u8, proptest::option::of(station.clone())).prop_map(
            |(station, partitions, dead_letters)| Deed::CreateStation {
                station, partitions, dead_letters
            }
        ),
        1 => station.clone().prop_map(|station| Deed::DestroyStation { station }),
        2 => (connection.clone(), station.clone(), name.clone()).prop_map(
            |(connection, station, name)| Deed::CreateProducer { connection, station, name }
        ),
        1 => (connection.clone(), station.clone(), name.clone()).prop_map(
            |(connection, station, name)| Deed::DestroyProducer { connection, station, name }
        ),
        4 => (connection.clone(), station.clone(), name.clone(), 0..2_u8, 1..3_u8, -1..3_i8)
            .prop_map(|(connection, station, name, group, deliveries, last)| {
                Deed::CreateConsumer { connection, station, name, group, deliveries, last }
            }),
        3 => (connection, station, name).prop_map(
            |(connection, station, name)| Deed::DestroyConsumer { connection, station, name }
        ),
        2 => (0..2_u8, 0..3_u8).prop_map(|(name, tenant)| Deed::CreateUser { name, tenant }),
        1 => (0..2_u8, 0..3_u8).prop_map(|(name, tenant)| Deed::DestroyUser { name, tenant }),
        1 => (1..3_u8).prop_map(|tenant| Deed::CreateTenant { tenant }),
        1 => (1..3_u8).prop_map(|tenant| Deed::DestroyTenant { tenant }),
    ]
}

impl Deed {
    fn request(&self) -> (u8, &'static str, String) {
        match self {
            Self::CreateStation {
                station,
                partitions,
                dead_letters,
            } => {
                let dls = dead_letters.map_or(String::new(), |n| format!("s.{n}"));
                let body = format!(
                    r#"{{"name":"s.{station}","partitions_number":{partitions},"dls_station":"{dls}"}}"#
                );
                (0, sdk::STATION_CREATIONS, body)
            }
            Self::DestroyStation { station } => (
                0,
                sdk::STATION_DESTRUCTIONS,
                format!(r#"{{"station_name":"s.{station}"}}"#),
            ),
            Self::CreateProducer {
                connection,
                station,
                name,
            } => {
                let body = format!(
                    r#"{{"name":"p{name}","station_name":"s#{station}","connection_id":"c{connection}",
                    "producer_type":"application","req_version":4}}"#
                );
                (*connection, sdk::PRODUCER_CREATIONS, body)
            }
            Self::CreateConsumer {
                connection,
                station,
                name,
                group,
                deliveries,
                last,
            } => {
                let body = format!(
                    r#"{{"name":"c{name}","station_name":"s.{station}","connection_id":"c{connection}",
                    "consumer_type":"application","consumers_group":"g.{group}",
                    "max_msg_deliveries":{deliveries},"start_consume_from_sequence":1,
                    "last_messages":{last},"req_version":4}}"#
                );
                (*connection, sdk::CONSUMER_CREATIONS, body)
            }
            Self::DestroyProducer {
                connection,
                station,
                name,
            } => {
                let body = destruction('p', *connection, *station, *name);
                (*connection, sdk::PRODUCER_DESTRUCTIONS, body)
            }
            Self::DestroyConsumer {
                connection,
                station,
                name,
            } => {
                let body = destruction('c', *connection, *station, *name);
                (*connection, sdk::CONSUMER_DESTRUCTIONS, body)
            }
            Self::CreateUser { name, tenant } => {
                let tenant = tenant_name(*tenant);
                let body = format!(
                    r#"{{"user":"u{name}","tenant":"{tenant}","password":"Secret-{name}",
                    "permissions":{{"allow_read":["s.*"]}}}}"#
                );
                (0, "$MENES.API.USER.CREATE", body)
            }
            Self::DestroyUser { name, tenant } => {
                let tenant = tenant_name(*tenant);
                let body = format!(r#"{{"user":"u{name}","tenant":"{tenant}"}}"#);
                (0, "$MENES.API.USER.DELETE", body)
            }
            Self::CreateTenant { tenant } => {
                let body = format!(r#"{{"tenant":"{}"}}"#, tenant_name(*tenant));
                (0, "$MENES.API.TENANT.CREATE", body)
            }
            Self::DestroyTenant { tenant } => {
                let body = format!(r#"{{"tenant":"{}"}}"#, tenant_name(*tenant));
                (0, "$MENES.API.TENANT.DELETE", body)
            }
        }
    }
}

fn tenant_name(number: u8) -> String {
    match number {
        0 => "$memphis".to_owned(),
        other => format!("t{other}"),
    }
}

fn destruction(kind: char, connection: u8, station: u8, name: u8) -> String {
    format!(
        r#"{{"name":"{kind}{name}","station_name":"s.{station}","connection_id":"c{connection}",
        "req_version":1}}"#
    )
}

fn connect_all(bench: &mut Bench) {
    for connection in 0..CONNECTIONS {
        bench.connect(&format!("c{connection}"));
    }
}

fn begin(bench: &mut Bench, at: usize, deed: &Deed) {
    bench.now = Timestamp((1_700_000_000 + i64::try_from(at).expect("few deeds")) * SECOND);
    let (connection, subject, body) = deed.request();
    bench.begin(&Client::sdk(&format!("c{connection}")), subject, &body);
}

/// Whether the request took effect, so that its client would only be counted twice.
fn is_counted(step: &Step) -> bool {
    matches!(step, Step::Record(command) if matches!(
        **command,
        Command::ProducerRegistered { .. } | Command::MemberJoined { .. } | Command::MemberLeft { .. }
    ))
}

/// The engine holds what the finished stations and groups say, and nothing else.
fn check(bench: &Bench) {
    bench.check_rows();
    let mut streams = BTreeSet::new();
    let mut durables = BTreeSet::new();
    for entry in bench.state().stations(&account()) {
        assert_eq!(entry.station.status, StationStatus::Ready);
        for partition in entry.station.partition_numbers() {
            let stream = entry.station.name.stream(partition);
            assert_eq!(
                bench.engine.streams.get(&stream),
                Some(&entry.station.stream_config(partition))
            );
            for group in entry.groups() {
                let key = (stream.clone(), group.group.name.internal());
                assert_eq!(
                    bench.engine.durables.get(&key),
                    Some(&group.group.consumer_config(&entry.station, partition))
                );
                durables.insert(key);
            }
            streams.insert(stream);
        }
    }
    assert!(bench.engine.streams.keys().eq(streams.iter()));
    assert!(bench.engine.durables.keys().eq(durables.iter()));
}

proptest! {
    #[test]
    fn a_crash_at_any_step_changes_nothing_in_the_end(
        deeds in proptest::collection::vec((deed(), proptest::option::of(0..8_u32)), 1..24),
    ) {
        let (mut calm, mut rough) = (Bench::default(), Bench::default());
        connect_all(&mut calm);
        connect_all(&mut rough);
        for (at, (deed, crash_after)) in deeds.iter().enumerate() {
            begin(&mut calm, at, deed);
            calm.settle();
            rough.steps.clear();
            begin(&mut rough, at, deed);
            if let Some(steps) = crash_after {
                for _ in 0..*steps {
                    rough.step(0);
                }
                let unanswered = !rough.running.is_empty();
                rough.crash();
                connect_all(&mut rough);
                rough.recover();
                if unanswered && !rough.steps.iter().any(is_counted) {
                    begin(&mut rough, at, deed);
                }
            }
            rough.settle();
            check(&rough);
            prop_assert_eq!(calm.state(), rough.state());
            prop_assert_eq!(&calm.engine, &rough.engine);
        }
    }

    #[test]
    fn after_any_mixture_of_requests_and_failures_nothing_is_left_over(
        deeds in proptest::collection::vec(deed(), 1..12),
        order in proptest::collection::vec((0..6_usize, proptest::bool::weighted(0.08)), 0..160),
    ) {
        let mut bench = Bench::default();
        connect_all(&mut bench);
        for (at, deed) in deeds.iter().enumerate() {
            begin(&mut bench, at, deed);
        }
        for (index, fail) in order {
            if fail {
                bench.fail_in = Some(0);
            }
            bench.step(index);
        }
        bench.fail_in = None;
        bench.settle();
        prop_assert_eq!(bench.replies.len(), deeds.len(), "every request is answered once");
        bench.recover();
        check_streams(&bench);
    }

    #[test]
    fn foreign_bytes_are_answered(
        subject in 0..13_usize,
        body in proptest::collection::vec(any::<u8>(), 0..200),
        text in "\\{\"(name|station_name|connection_id|req_version)\":(null|1|\"\\PC{0,9}\"|\\[\\])\\}",
    ) {
        let mut bench = Bench::default();
        let client = Client::sdk("c0");
        for payload in [String::from_utf8_lossy(&body).into_owned(), text] {
            bench.ask(&client, sdk::CONTROL_SUBJECTS[subject], &payload);
        }
        check(&bench);
    }
}

/// As [`check`], but the limits of durables may be ahead of their group: a failed change whose
/// undoing failed too is put right by the next member that joins.
fn check_streams(bench: &Bench) {
    bench.check_rows();
    let mut streams = BTreeSet::new();
    let mut durables = BTreeSet::new();
    for entry in bench.state().stations(&account()) {
        assert_eq!(entry.station.status, StationStatus::Ready);
        for partition in entry.station.partition_numbers() {
            let stream = entry.station.name.stream(partition);
            durables.extend(
                entry
                    .groups()
                    .map(|group| (stream.clone(), group.group.name.internal())),
            );
            streams.insert(stream);
        }
    }
    assert!(bench.engine.streams.keys().eq(streams.iter()));
    assert!(bench.engine.durables.keys().eq(durables.iter()));
}
