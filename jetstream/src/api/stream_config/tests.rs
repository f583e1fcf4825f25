//! What the transcript of the reference server cannot show: features that are not there, bounds
//! of our own, limits of accounts, and properties of every configuration.

use proptest::prelude::*;

use super::*;
use crate::api::json;
use crate::api::metadata::Identity;
use crate::stream::config::{Compression, ConsumerLimits};

fn parse(body: &str) -> StreamRequest {
    StreamRequest::parse(body.as_bytes()).expect("a request")
}

fn made(body: &str) -> Result<StreamConfig, ApiError> {
    create(parse(body), "S", &Bounds::default())
}

fn changed(current: &StreamConfig, body: &str) -> Result<StreamConfig, ApiError> {
    update(parse(body), "S", Some(current), &Bounds::default())
}

#[test]
fn features_that_are_not_there_are_refused_by_name() {
    let with_ttl = r#"{"name":"S","allow_msg_ttl":true}"#;
    let error = made(with_ttl).expect_err("per-message TTLs");
    let text = "per-message TTLs are not supported by this version";
    assert_eq!(error, ApiError::stream_config(text));
    let current = made(r#"{"name":"S"}"#).expect("a plain stream");
    assert!(changed(&current, with_ttl).is_err());
    for field in [
        r#""allow_batched":true,"allow_msg_counter":true"#,
        r#""mirror":null"#,
        r#""sources":[]"#,
        r#""republish":null"#,
        r#""persist_mode":"default""#,
        r#""persist_mode":"async""#,
        r#""allow_msg_ttl":false"#,
    ] {
        assert!(
            made(&format!(r#"{{"name":"S",{field}}}"#)).is_ok(),
            "{field}"
        );
    }
}

#[test]
fn markers_turn_on_what_they_need_once_they_are_there() {
    let bounds = Bounds {
        features: Features {
            msg_ttl: true,
            ..Features::default()
        },
        ..Bounds::default()
    };
    let body = r#"{"name":"S","subject_delete_marker_ttl":1000000000}"#;
    let config = create(parse(body), "S", &bounds).expect("markers are there");
    assert!(config.allow_msg_ttl && config.allow_rollup_hdrs && !config.deny_purge);
    assert_eq!(config.metadata["_nats.req.level"], "1");
    let without = r#"{"name":"S"}"#;
    assert_eq!(
        update(parse(without), "S", Some(&config), &bounds),
        Err(ApiError::stream_config(
            "message TTL status can not be disabled"
        ))
    );
    let pedantic = r#"{"name":"S","subject_delete_marker_ttl":1000000000,"pedantic":true}"#;
    assert_eq!(
        create(parse(pedantic), "S", &bounds)
            .expect_err("pedantic")
            .err_code,
        10052
    );
}

#[test]
fn what_is_published_again_must_not_come_back() {
    let error = |body: &str| made(body).expect_err(body).description.into_owned();
    assert_eq!(
        error(r#"{"name":"S","subjects":["a.>"],"republish":{"dest":"a.b"}}"#),
        "stream configuration for republish destination forms a cycle"
    );
    assert_eq!(
        error(r#"{"name":"S","subjects":["a.>"],"republish":{"src":"a.*","dest":"b.>"}}"#),
        "stream configuration for republish with transform from 'a.*' to 'b.>' not valid"
    );
    let config = made(r#"{"name":"S","subjects":["a.>"],"republish":{"dest":"b.>"}}"#);
    let republish = config.expect("no cycle").republish.expect("kept");
    assert_eq!(republish.src, ">");
    let implicit = made(
        r#"{"name":"S","subjects":["a.>"],"subject_transform":{"src":"a.>","dest":"b.>"},
            "republish":{"src":">","dest":">"}}"#,
    );
    let republish = implicit.expect("no cycle").republish.expect("kept");
    assert_eq!(
        (republish.src.as_str(), republish.dest.as_str()),
        ("b.>", "b.>")
    );
}

#[test]
fn origins_that_make_no_sense_are_refused() {
    let code = |fields: &str| match made(&format!(r#"{{"name":"S",{fields}}}"#)) {
        Ok(_) => 0,
        Err(error) => error.err_code,
    };
    assert_eq!(code(r#""mirror":{"name":"O"}"#), 0);
    assert_eq!(
        code(r#""sources":[{"name":"O"},{"name":"P","filter_subject":"a"}]"#),
        0
    );
    assert_eq!(code(r#""mirror":{"name":"O"},"subjects":["a"]"#), 10034);
    assert_eq!(code(r#""mirror":{"name":"O"},"first_seq":5"#), 10143);
    assert_eq!(
        code(r#""mirror":{"name":"O"},"sources":[{"name":"P"}]"#),
        10031
    );
    assert_eq!(code(r#""mirror":{"name":"a.b"}"#), 10142);
    assert_eq!(
        code(r#""mirror":{"name":"O","filter_subject":"a","subject_transforms":[{"src":"a"}]}"#),
        10150
    );
    assert_eq!(
        code(r#""mirror":{"name":"O","subject_transforms":[{"src":"a.>"},{"src":"a.b"}]}"#),
        10152
    );
    assert_eq!(
        code(r#""mirror":{"name":"O"},"subject_delete_marker_ttl":1000000000"#),
        10052
    );
    assert_eq!(code(r#""sources":[{"name":"a.b"}]"#), 10141);
    assert_eq!(code(r#""sources":[{"name":"O"},{"name":"O"}]"#), 10140);
    assert_eq!(
        code(r#""sources":[{"name":"O","subject_transforms":[{"src":"a.>"},{"src":"a.b"}]}]"#),
        10147
    );
    assert_eq!(
        code(r#""sources":[{"name":"O","external":{"api":"$JS.API","deliver":""}}]"#),
        10021
    );
    let mirror = made(r#"{"name":"S","mirror":{"name":"O"}}"#).expect("a mirror");
    assert!(mirror.subjects.is_empty());
    assert_eq!(
        changed(&mirror, r#"{"name":"S","mirror":{"name":"P"}}"#),
        Err(ApiError::mirror_not_updatable())
    );
    let promoted = changed(&mirror, r#"{"name":"S","subjects":["s"]}"#).expect("promoted");
    assert_eq!(
        (promoted.mirror, promoted.subjects),
        (None, vec!["s".to_owned()])
    );
}

#[test]
fn a_transform_that_cannot_be_is_refused() {
    let code = |body: &str| made(body).expect_err(body).err_code;
    assert_eq!(
        code(r#"{"name":"S","subject_transform":{"src":"a..b","dest":"b"}}"#),
        10155
    );
    assert_eq!(
        code(r#"{"name":"S","subject_transform":{"src":"a","dest":"{{wildcard(1)}}"}}"#),
        10156
    );
}

#[test]
fn compression_is_accepted_and_shown() {
    let config = made(r#"{"name":"S","compression":"s2"}"#).expect("a stream");
    assert_eq!(config.compression, Compression::S2);
}

#[test]
fn replicas_want_a_cluster() {
    let body = r#"{"name":"S","num_replicas":3}"#;
    assert_eq!(made(body), Err(ApiError::replicas_not_supported()));
    let features = Features {
        replicas: true,
        ..Features::default()
    };
    let bounds = Bounds {
        features,
        ..Bounds::default()
    };
    assert_eq!(
        create(parse(body), "S", &bounds)
            .expect("three replicas")
            .num_replicas,
        3
    );
    for (replicas, code) in [("-1", 10133), ("6", 10052), ("9223372036854775807", 10052)] {
        let body = format!(r#"{{"name":"S","num_replicas":{replicas}}}"#);
        assert_eq!(
            create(parse(&body), "S", &bounds)
                .expect_err(replicas)
                .err_code,
            code
        );
    }
    let huge = br#"{"name":"S","num_replicas":9223372036854775808}"#;
    assert_eq!(
        StreamRequest::parse(huge).expect_err("no int64").err_code,
        10025
    );
}

#[test]
fn names_that_look_like_paths_go_no_further() {
    for (name, code) in [
        ("../x", 10128),
        ("a/b", 10128),
        ("a\\b", 10128),
        (".", 10052),
        ("", 10052),
        ("a\0b", 10052),
        (&"n".repeat(256), 10052),
    ] {
        let mut request = parse("{}");
        request.config.name = name.to_owned();
        let error = create(request, name, &Bounds::default()).expect_err(name);
        assert_eq!(error.err_code, code, "{name:?}");
    }
}

#[test]
fn too_many_subjects_are_refused() {
    let subjects = |count: usize| {
        let mut request = parse(r#"{"name":"S"}"#);
        request.config.subjects = (0..count).map(|n| format!("s.{n}")).collect();
        create(request, "S", &Bounds::default())
    };
    assert_eq!(
        subjects(MAX_SUBJECTS).expect("just as many").subjects.len(),
        MAX_SUBJECTS
    );
    assert_eq!(
        subjects(10_000),
        Err(ApiError::stream_config(
            "maximum number of subjects is 2048"
        ))
    );
}

#[test]
fn accounts_limit_streams() {
    let with = |bounds: Bounds, body: &str| create(parse(body), "S", &bounds);
    let required = Bounds {
        max_bytes_required: true,
        ..Bounds::default()
    };
    assert_eq!(
        with(required, r#"{"name":"S"}"#),
        Err(ApiError::max_bytes_required())
    );
    assert!(with(required, r#"{"name":"S","max_bytes":1}"#).is_ok());
    let file = Bounds {
        file_max_bytes: 10,
        ..Bounds::default()
    };
    let eleven = r#"{"name":"S","max_bytes":11}"#;
    assert_eq!(
        with(file, eleven),
        Err(ApiError::max_bytes_exceeds_account_limit())
    );
    let memory = r#"{"name":"S","max_bytes":11,"storage":"memory"}"#;
    assert!(with(file, memory).is_ok());
    let few = Bounds {
        max_consumers: 2,
        ..Bounds::default()
    };
    let three = r#"{"name":"S","max_consumers":3}"#;
    assert_eq!(with(few, three), Err(ApiError::consumer_limit_reached()));
    let window = Bounds {
        duplicate_window: Duration::from_secs(90),
        ..Bounds::default()
    };
    let config = with(window, r#"{"name":"S"}"#).expect("a stream");
    assert_eq!(config.duplicate_window, 90_000_000_000);
    assert_eq!(
        with(window, r#"{"name":"S","duplicate_window":100000000000}"#),
        Err(ApiError::stream_config(
            "duplicates window can not be larger then server limit of 1m30s"
        ))
    );
}

#[test]
fn promised_bytes_are_summed_without_overflow() {
    let huge = i64::MAX;
    let mut config = StreamConfig {
        max_bytes: huge,
        ..StreamConfig::default()
    };
    assert_eq!(check_reservation(&config, [huge, huge, huge], -1), Ok(()));
    assert_eq!(check_reservation(&config, [], huge), Ok(()));
    assert_eq!(
        check_reservation(&config, [huge, huge, huge], huge),
        Err(ApiError::insufficient_storage())
    );
    config.storage = Storage::Memory;
    assert_eq!(
        check_reservation(&config, [-1, 1], huge),
        Err(ApiError::insufficient_memory())
    );
    config.max_bytes = -1;
    assert_eq!(check_reservation(&config, [-1, -1], 0), Ok(()));
}

#[test]
fn new_limits_on_consumers_name_those_that_exceed_them() {
    let consumer = |max_ack_pending| ConsumerConfig {
        max_ack_pending,
        ..Default::default()
    };
    let (small, big) = (consumer(5), consumer(50));
    let all = || [("a", &small), ("b", &big), ("c", &big)];
    let current = StreamConfig::default();
    let mut wanted = current.clone();
    wanted.consumer_limits = ConsumerLimits {
        max_ack_pending: 10,
        inactive_threshold: 0,
    };
    assert_eq!(
        check_consumers(&current, &wanted, all()),
        Err(ApiError::stream_update(
            "change to limits violates consumers: b, c"
        ))
    );
    assert_eq!(check_consumers(&wanted, &wanted, all()), Ok(()));
    assert_eq!(check_consumers(&wanted, &current, all()), Ok(()));
}

#[test]
fn what_info_shows_can_be_sent_back() {
    let identity = Identity {
        version: "2.15.1".into(),
        level: 1,
    };
    let current =
        made(r#"{"name":"S","subjects":["a"],"metadata":{"k":"v"},"max_age":1000000000}"#)
            .expect("a stream");
    let mut shown = current.clone();
    identity.show(&mut shown.metadata);
    let body = String::from_utf8(json::to_vec(&shown)).expect("text");
    assert_eq!(changed(&current, &body), Ok(current.clone()));
    let again = made(&body).expect("a stream");
    assert!(same(&current, &again));
    assert!(!same(
        &current,
        &made(r#"{"name":"S","subjects":["a"]}"#).expect("a stream")
    ));
}

#[test]
fn other_streams_keep_their_subjects() {
    let other = |subjects: &[&str]| StreamConfig {
        subjects: subjects
            .iter()
            .map(|subject| (*subject).to_owned())
            .collect(),
        ..StreamConfig::default()
    };
    let ours = ["a.*".to_owned(), "b".to_owned()];
    assert!(overlapping(&ours, [&other(&["x"]), &other(&["c", "a.b"])]));
    assert!(overlapping(&ours, [&other(&[">"])]));
    assert!(!overlapping(&ours, [&other(&["a", "a.b.c", "c"])]));
    assert!(!overlapping(&ours, []));
}

prop_compose! {
    fn any_config()(
        numbers in proptest::collection::vec(prop_oneof![Just(0_i64), -3..5_i64, any::<i64>()], 6),
        size: i32,
        age in prop_oneof![Just(0_i64), -1..300_000_000_i64, any::<i64>()],
        flags in proptest::collection::vec(any::<bool>(), 8),
        subjects in proptest::collection::vec("[a-c*>.$]{0,4}", 0..4),
        first_seq: u64,
    ) -> StreamConfig {
        StreamConfig {
            name: "S".into(),
            subjects,
            max_msgs: numbers[0],
            max_bytes: numbers[1],
            max_msgs_per_subject: numbers[2],
            max_consumers: numbers[3],
            num_replicas: numbers[4].clamp(-1, 7),
            duplicate_window: if flags[0] { 0 } else { numbers[5] },
            max_msg_size: size,
            max_age: age,
            first_seq,
            no_ack: flags[1],
            discard: if flags[2] { Discard::New } else { Discard::Old },
            storage: if flags[3] { Storage::Memory } else { Storage::File },
            retention: if flags[4] { Retention::WorkQueue } else { Retention::Limits },
            discard_new_per_subject: flags[5],
            deny_purge: flags[6],
            allow_rollup_hdrs: flags[7],
            ..StreamConfig::default()
        }
    }
}

proptest! {
    #[test]
    fn a_normalised_config_is_left_alone(config in any_config()) {
        if let Ok(once) = validate(config, false, &Bounds::default()) {
            let twice = validate(once.clone(), true, &Bounds::default());
            prop_assert_eq!(twice.as_ref(), Ok(&once));
            let text = json::to_vec(&once);
            let back = StreamRequest::parse(&text).expect("what was just written");
            prop_assert_eq!(back.config, once);
        }
    }

    #[test]
    fn an_accepted_update_keeps_what_cannot_change(a in any_config(), b in any_config()) {
        let bounds = Bounds::default();
        let first = create(StreamRequest { config: a, pedantic: false }, "S", &bounds);
        if let Ok(first) = first {
            let request = StreamRequest { config: b, pedantic: false };
            if let Ok(second) = update(request, "S", Some(&first), &bounds) {
                prop_assert_eq!(first.storage, second.storage);
                prop_assert_eq!(first.retention, second.retention);
                prop_assert!(second.deny_purge || !first.deny_purge);
            }
        }
    }
}
