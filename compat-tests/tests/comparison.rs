//! The same scenario against nats-server and Menes must print the same.
//!
//! Scenarios replace times, ids and addresses by their kind before printing; what differs beyond
//! that is a difference of the servers, and either a fault or listed here with its reason.

use anyhow::Result;
use menes_compat_tests::ServerOptions;
use menes_compat_tests::certificates::Certificates;
use menes_compat_tests::comparison::{Exclusion, compare};
use menes_compat_tests::scenario::Scenario;

/// What an account may use of JetStream, and one that has none.
const LIMITS: &str = r#"
    accounts {
        LIMITED {
            users: [ { user: root, password: menes-compat } ]
            jetstream {
                max_file: 64KB, max_mem: 16KB, max_streams: 2, max_consumers: 1, max_ack_pending: 100
                max_bytes_required: true, disk_max_stream_bytes: 32KB
            }
        }
        WITHOUT { users: [ { user: without, password: without } ] }
    }
"#;

/// The same with limits that a reload changes.
const CHANGING_LIMITS: &str = r#"
    jetstream { max_memory_store: 8KB, max_file_store: 128KB }
    accounts {
        A {
            users: [ { user: root, password: menes-compat } ]
            jetstream { max_file: 32KB, max_mem: 4KB, max_streams: 3 }
        }
        B { jetstream: disabled, users: [ { user: b, password: b } ] }
    }
"#;

fn same(script: &str) -> Result<()> {
    compare(&Scenario::new(script), &ServerOptions::default(), &[])
}

#[test]
fn api_answers() -> Result<()> {
    let excluded = [Exclusion {
        begins: "28 = ",
        reason: "nats-server counts message 0 as deleted where there never was a message",
    }];
    let scenario = Scenario::new("nats-py/raw_api.py");
    compare(&scenario, &ServerOptions::default(), &excluded)
}

#[test]
fn limits_of_accounts() -> Result<()> {
    let options = ServerOptions::default().with_config(LIMITS);
    compare(&Scenario::new("nats-py/account_limits.py"), &options, &[])
}

#[test]
fn limits_that_a_reload_changes() -> Result<()> {
    let options = ServerOptions::default().with_config(CHANGING_LIMITS);
    compare(&Scenario::new("nats-py/limits_reload.py"), &options, &[])
}

#[test]
fn streams_that_a_reload_switches_on_and_off() -> Result<()> {
    let options = ServerOptions {
        is_plain: true,
        ..ServerOptions::default()
    };
    for first in ["jetstream: enabled", "jetstream: disabled"] {
        let config = format!("{}{first}\n", options.login.section());
        let options = options.clone().with_config(&config);
        compare(&Scenario::new("nats-py/jetstream_reload.py"), &options, &[])?;
    }
    Ok(())
}

#[test]
fn who_brings_nothing_is_the_user_of_those() -> Result<()> {
    const KEY: &str = "UDRXJE7WNMBJ6WHKNZ4DSFUVRBM6CUWLNLAA5ZJV6TGWJXBBCB4GC4P3";
    const HASH: &str = "$2a$04$ODHhyIwvMfwSZvqGVFzbTOZGXRYjaLQMqJ/6fJKIGIwRT8ZWEdUIC";
    let guests = [
        ("user: guest, password: guest".to_owned(), "guest"),
        (format!("user: guest, password: \"{HASH}\""), "guest"),
        (
            "user: guest, password: g, allowed_connection_types: [WEBSOCKET]".to_owned(),
            "guest",
        ),
        (
            "user: guest, password: g, proxy_required: true".to_owned(),
            "guest",
        ),
        (format!("nkey: {KEY}"), KEY),
    ];
    for (guest, name) in guests {
        let users = format!("users: [ {{user: root, password: menes-compat}}, {{{guest}}} ]");
        let config = format!("authorization {{ {users} }}\nno_auth_user: {name}\n");
        let options = ServerOptions::default().with_config(&config);
        compare(&Scenario::new("nats-py/nobody.py"), &options, &[])?;
    }
    Ok(())
}

#[test]
fn a_certificates_user_is_nobody_by_name_alone() -> Result<()> {
    let certificates = Certificates::new()?;
    let keys = certificates.server_keys();
    for (more, nobody) in [
        ("", ""),
        (", allowed_connection_types: [STANDARD]", ""),
        ("", "no_auth_user: guest"),
    ] {
        let users =
            format!("users: [ {{user: root, password: menes-compat}}, {{user: guest{more}}} ]");
        let websocket = format!("websocket {{ port: -1, tls {{ {keys}, verify_and_map: true }} }}");
        let config = format!("authorization {{ {users} }}\n{websocket}\n{nobody}\n");
        let options = ServerOptions::default().with_config(&config);
        compare(&Scenario::new("nats-py/nobody.py"), &options, &[])?;
    }
    Ok(())
}

#[test]
fn traces_of_the_protocol() -> Result<()> {
    for argument in ["-V", "-VV", "-DV"] {
        let options = ServerOptions {
            arguments: vec![argument.to_owned()],
            ..ServerOptions::default()
        };
        let config = options.login.section() + "mappings { mapped.a: mapped.b }";
        let scenario = Scenario::new("nats-py/protocol_trace.py");
        compare(&scenario, &options.with_config(&config), &[])?;
    }
    Ok(())
}

#[test]
fn traces_of_headers_or_of_the_start() -> Result<()> {
    for setting in ["trace_headers: true", "trace: true, max_traced_msg_len: 5"] {
        let options = ServerOptions::default();
        let config = options.login.section() + setting;
        let scenario = Scenario::new("nats-py/protocol_trace.py");
        compare(&scenario, &options.with_config(&config), &[])?;
    }
    Ok(())
}

#[test]
fn connections_that_do_wrong_end_as_in_nats_server() -> Result<()> {
    let config = r#"
        max_payload: 1000
        max_control_line: 512
        max_subscriptions: 3
        max_sub_tokens: 4
        authorization {
          timeout: 5
          users: [
            {user: root, password: "menes-compat"}
            {user: web, password: "menes-compat", allowed_connection_types: [WEBSOCKET]}
            {user: limited, password: "menes-compat", permissions: {
              publish: "ok.>", subscribe: {allow: "ok.>", deny: "ok.no"}
            }}
          ]
        }
    "#;
    let scenario = Scenario::new("nats-py/reasons.py");
    compare(
        &scenario,
        &ServerOptions::default().with_config(config),
        &[],
    )
}

#[test]
fn nats_py_streams() -> Result<()> {
    same("nats-py/streams.py")
}

#[test]
fn nats_py_consumers() -> Result<()> {
    same("nats-py/consumers.py")
}

#[test]
fn nats_py_buckets() -> Result<()> {
    same("nats-py/key_value.py")
}

#[test]
fn nats_py_subjects() -> Result<()> {
    same("nats-py/subjects.py")
}

#[test]
fn nats_py_origins() -> Result<()> {
    same("nats-py/origins.py")
}

#[test]
fn nats_py_feeding() -> Result<()> {
    same("nats-py/feeding.py")
}

#[test]
fn nats_py_advisories() -> Result<()> {
    same("nats-py/advisories.py")
}

#[test]
fn nats_py_batches() -> Result<()> {
    same("nats-py/batches.py")
}

#[test]
fn nats_py_fast_batches() -> Result<()> {
    same("nats-py/fast_batches.py")
}

#[test]
fn nats_py_fast_counters() -> Result<()> {
    same("nats-py/fast_counters.py")
}

#[test]
fn nats_py_counters() -> Result<()> {
    same("nats-py/counters.py")
}

#[test]
fn nats_py_schedules() -> Result<()> {
    same("nats-py/schedules.py")
}

#[test]
fn nats_py_late_schedules() -> Result<()> {
    same("nats-py/late_schedules.py")
}

#[test]
fn nats_command_backups() -> Result<()> {
    same("nats-cli/backups.sh")
}

#[test]
fn nats_command_core() -> Result<()> {
    same("nats-cli/core.sh")
}

#[test]
fn nats_command_streams() -> Result<()> {
    same("nats-cli/streams.sh")
}

#[test]
fn nats_command_buckets() -> Result<()> {
    same("nats-cli/buckets.sh")
}
