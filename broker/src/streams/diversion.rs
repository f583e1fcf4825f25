//! Consumers that would publish in the place of an application user where it may not.
//!
//! What a push consumer delivers has no client behind it any more, so nothing looks at it again on
//! its way: where it goes is decided when the consumer is asked for, on what the engine itself reads
//! in the request.

use menes_jetstream::api::Call;
use menes_jetstream::api::consumer_config::Endpoint;
use menes_jetstream::api::request::ConsumerRequest;
use menes_jetstream::engine::ApiRequest;
use menes_stations::user::Access;

/// Whether somebody with this access asks for a consumer that delivers where it may not. What the
/// engine cannot read, it refuses by itself.
pub(super) fn diverts(access: &Access, request: &ApiRequest<'_>) -> bool {
    if Endpoint::of(Call::parse(request.subject)).is_none() {
        return false;
    }
    ConsumerRequest::parse(request.payload).is_ok_and(|wanted| {
        let deliver = wanted.config.deliver_subject.as_bytes();
        !deliver.is_empty() && !access.may_hear_on(deliver)
    })
}

#[cfg(test)]
mod tests {
    use menes_jetstream::ids::AccountName;
    use menes_stations::user::StationPattern;
    use proptest::prelude::*;

    use super::*;

    const PURGE: &str = "$JS.API.STREAM.PURGE.secret$1";
    const CREATIONS: [&str; 3] = [
        "$JS.API.CONSUMER.CREATE.orders$1",
        "$JS.API.CONSUMER.CREATE.orders$1.c.orders$1.final",
        "$JS.API.CONSUMER.DURABLE.CREATE.orders$1.c",
    ];

    fn limited() -> Access {
        Access {
            allow_read: vec![StationPattern::new("orders")],
            allow_write: vec![StationPattern::new("orders")],
            ..Access::ALL
        }
    }

    fn asks(access: &Access, subject: &str, payload: &str) -> bool {
        let request = ApiRequest {
            account: &AccountName::from("$memphis"),
            subject: subject.as_bytes(),
            reply: b"_INBOX.a.b",
            header: b"",
            payload: payload.as_bytes(),
            client: b"",
        };
        diverts(access, &request)
    }

    fn delivering_to(subject: &str) -> String {
        format!(r#"{{"stream_name":"orders$1","config":{{"deliver_subject":"{subject}"}}}}"#)
    }

    /// `word` with the letters in upper case whose bit is set.
    fn spelt(word: &str, bits: u32) -> String {
        let letters = word.chars().enumerate();
        letters
            .map(|(i, letter)| match (bits >> i) & 1 {
                0 => letter,
                _ => letter.to_ascii_uppercase(),
            })
            .collect()
    }

    #[test]
    fn deliveries_go_where_the_asker_may_publish_and_nothing_is_served() {
        for access in [limited(), Access::ALL] {
            for creation in CREATIONS {
                for refused in [
                    PURGE,
                    "$JS.HUB.API.STREAM.PURGE.secret$1",
                    // What is delivered there would be a request that nobody asked.
                    "$JS.API.CONSUMER.CREATE.orders$1",
                    "$JS.API.CONSUMER.MSG.NEXT.orders$1.c",
                    "$JS.ACK.orders$1.c.1.1.1.1.0",
                    "$memphis_dead_letters.orders.schema",
                    "$memphis_station_destructions",
                    "$MENES.API.USER.CREATE",
                    "$SYS.REQ.USER.INFO",
                ] {
                    let payload = delivering_to(refused);
                    assert!(asks(&access, creation, &payload), "{creation} {refused}");
                }
                for allowed in ["_INBOX.a.b", "orders$1.final", ""] {
                    let payload = delivering_to(allowed);
                    assert!(!asks(&access, creation, &payload), "{creation} {allowed}");
                }
            }
            // Nothing is made.
            assert!(!asks(
                &access,
                "$JS.API.CONSUMER.INFO.orders$1.c",
                &delivering_to(PURGE)
            ));
            assert!(!asks(&access, CREATIONS[0], ""));
        }
        assert!(asks(&limited(), CREATIONS[0], &delivering_to("other")));
        assert!(!asks(&Access::ALL, CREATIONS[0], &delivering_to("other")));
    }

    #[test]
    fn of_a_field_that_comes_twice_the_one_counts_that_the_engine_takes() {
        let inbox = "_INBOX.a.b";
        for fields in [
            format!(r#""deliver_subject":"{inbox}","Deliver_Subject":"{PURGE}""#),
            format!(r#""Deliver_Subject":"{PURGE}","deliver_subject":"{inbox}""#),
            format!(r#""deliver_subject":"{inbox}","deliver_subject":"{PURGE}""#),
            format!(r#""deliver_subject":"{PURGE}","deliver_subject":"{inbox}""#),
            format!(r#""deliver_subject":null,"DELIVER_SUBJECT":"{PURGE}""#),
            format!(r#""deliver\u005fsubject":"{PURGE}""#),
        ] {
            for payload in [
                format!(r#"{{"config":{{{fields}}}}}"#),
                format!(r#"{{"config":{{}},"Config":{{{fields}}}}}"#),
                format!(r#"{{"CONFIG":{{{fields}}},"Config":{{}}}}"#),
            ] {
                let wanted = ConsumerRequest::parse(payload.as_bytes()).expect("a request");
                let is_meant = wanted.config.deliver_subject == PURGE;
                assert_eq!(
                    asks(&limited(), CREATIONS[0], &payload),
                    is_meant,
                    "{payload}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn no_spelling_of_the_fields_gets_by(config: u32, deliver: u32, first: bool) {
            let (config, deliver) = (spelt("config", config), spelt("deliver_subject", deliver));
            let fields = if first {
                format!(r#""{deliver}":"{PURGE}","durable_name":"c""#)
            } else {
                format!(r#""durable_name":"c","{deliver}":"{PURGE}""#)
            };
            let payload = format!(r#"{{"{config}":{{{fields}}},"stream_name":"orders$1"}}"#);
            let wanted = ConsumerRequest::parse(payload.as_bytes()).expect("a request");
            prop_assert_eq!(wanted.config.deliver_subject, PURGE);
            for creation in CREATIONS {
                prop_assert!(asks(&limited(), creation, &payload));
                prop_assert!(asks(&Access::ALL, creation, &payload));
            }
        }

        #[test]
        fn nothing_breaks_it(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let payload = String::from_utf8_lossy(&payload);
            let _ = asks(&limited(), CREATIONS[0], &payload);
        }
    }
}
