//! What an application user may do on NATS: which subjects its lists of stations mean.
//!
//! | | publish | subscribe |
//! |---|---|---|
//! | every application user | SDK requests, answers, `$JS.API.INFO`, `$JS.API.STREAM.NAMES` | answers to itself, news for SDKs |
//! | who may write a station | its streams' subjects, `$JS.API.STREAM.INFO` | news about it |
//! | who may read a station | fetching, acknowledging and consumers of its streams | its streams' subjects, its resent dead letters, news about it |
//! | who has no list of what is allowed | any other subject, other streams' consumers | the same |
//! | who has no list at all | consumers of streams that begin with `$`, such as dead letters | the same |
//! | nobody | `$MENES.`, dead letters, making and changing streams | `$MENES.` |
//!
//! Nothing here looks at which stations there are: a subject names its station by itself.

use std::borrow::Cow;

use super::Access;
use crate::dead_letter;
use crate::sdk::CONTROL_SUBJECTS;

impl Access {
    /// Whether an application user may publish to `subject`. Wildcards in it are plain tokens.
    #[must_use]
    pub fn may_publish(&self, subject: &[u8]) -> bool {
        let mut tokens = subject.split(|&byte| byte == b'.');
        let first = tokens.next().unwrap_or_default();
        match first {
            b"$MENES" => false,
            b"$JS" => {
                let tokens: Vec<&[u8]> = tokens.collect();
                self.may_ask(&tokens)
            }
            b"_INBOX" => true,
            b"$SYS" => subject == b"$SYS.REQ.USER.INFO" || self.is_all(),
            // The server alone stores dead letters: what they say decides whose they are.
            _ if first == dead_letter::STREAM.as_bytes() => false,
            _ if first.starts_with(b"$memphis_") => {
                let is_control = |known: &&str| known.as_bytes() == subject;
                CONTROL_SUBJECTS.iter().any(is_control) || self.is_all()
            }
            _ => match station_of_stream(first) {
                Some(station) => self.may_write_named(&station),
                None => !self.is_limited(),
            },
        }
    }

    /// Whether answers and deliveries may be sent to `subject` for it. They have no client behind
    /// them, so nothing that begins with `$` is, least of all what the broker takes as a request.
    #[must_use]
    pub fn may_hear_on(&self, subject: &[u8]) -> bool {
        !subject.starts_with(b"$") && self.may_publish(subject)
    }

    /// Whether it may subscribe to `filter`. A filter that is wider than what is denied is
    /// accepted from who has no list of what is allowed; see [`Access::may_receive`].
    #[must_use]
    pub fn may_subscribe(&self, filter: &[u8]) -> bool {
        let first = filter.split(|&byte| byte == b'.').next();
        let first = first.unwrap_or_default();
        if is_wildcard(first) {
            return !self.is_limited();
        }
        match first {
            // Nobody sees what others ask the broker.
            b"$MENES" => false,
            b"$JS" | b"$SYS" => self.is_all(),
            b"_INBOX" => is_one_inbox(filter),
            _ => self.sees(first, filter),
        }
    }

    /// Whether a message on `subject` may be delivered to it.
    #[must_use]
    pub fn may_receive(&self, subject: &[u8]) -> bool {
        let first = subject.split(|&byte| byte == b'.').next();
        let first = first.unwrap_or_default();
        match first {
            b"$MENES" => false,
            b"$JS" | b"$SYS" => self.is_all(),
            b"_INBOX" => true,
            _ => self.sees(first, subject),
        }
    }

    /// Whether a subscription to `filter` may be handed a message on `subject`, going by what the
    /// two say together: what others fetch and are told comes to their inboxes, and a wildcard is
    /// nobody's inbox.
    #[must_use]
    pub fn may_overhear(filter: &[u8], subject: &[u8]) -> bool {
        !subject.starts_with(b"_INBOX.") || is_one_inbox(filter)
    }

    /// Whether deliveries to such a subscription have to be looked at one by one.
    #[must_use]
    pub fn needs_filter(&self, filter: &[u8]) -> bool {
        // Whatever comes, even to an inbox, may be a message of a station.
        !self.is_all()
            || filter
                .split(|&byte| byte == b'.')
                .next()
                .is_some_and(is_wildcard)
    }

    /// Whether what is sent on such a subject may be seen; `first` is its first token.
    fn sees(&self, first: &[u8], subject: &[u8]) -> bool {
        let Some(news) = first.strip_prefix(b"$memphis_") else {
            return match station_of_stream(first) {
                Some(station) => self.may_read_named(&station),
                None => !self.is_limited(),
            };
        };
        if self.is_all() {
            return true;
        }
        if let Some(rest) = news.strip_prefix(b"dls_") {
            // In the older form, `_` parts the station from the group, and both may hold it: it
            // may be any of these stations.
            let is_older = first.len() == subject.len();
            return if is_older {
                let cuts = rest.iter().enumerate().filter(|(_, byte)| **byte == b'_');
                let mut stations = cuts.map(|(at, _)| external(&rest[..at])).peekable();
                stations.peek().is_some() && stations.all(|station| self.may_read_named(&station))
            } else {
                self.may_read_named(&external(rest))
            };
        }
        let about = [&b"schema_updates_"[..], b"functions_updates_"];
        let station = about.iter().find_map(|prefix| news.strip_prefix(*prefix));
        match station {
            Some(station) => {
                let station = external(station);
                self.may_read_named(&station) || self.may_write_named(&station)
            }
            None => news == b"sdk_clients_updates" || news == b"configurations_updates",
        }
    }

    /// Requests to JetStream, acknowledgements, flow control: `tokens` follow `$JS`.
    fn may_ask(&self, tokens: &[&[u8]]) -> bool {
        match tokens {
            [b"API", rest @ ..] => self.may_ask_api(rest),
            [b"ACK", rest @ ..] => {
                // With the domain and the account in front, the stream is the third.
                let stream = if rest.len() >= 9 {
                    rest.get(2)
                } else {
                    rest.first()
                };
                stream.is_some_and(|stream| self.may_fetch(stream))
            }
            [b"FC", stream, ..] => self.may_fetch(stream),
            [_domain, b"API", rest @ ..] => self.may_ask_api(rest),
            _ => false,
        }
    }

    fn may_ask_api(&self, tokens: &[&[u8]]) -> bool {
        match tokens {
            [b"INFO"] | [b"STREAM", b"NAMES"] => true,
            [b"STREAM", b"LIST"] => self.is_all(),
            [b"STREAM", b"INFO", stream] => match station_of_stream(stream) {
                _ if stream.starts_with(b"$") => self.is_all(),
                Some(station) => self.may_read_named(&station) || self.may_write_named(&station),
                None => !self.is_limited(),
            },
            [b"STREAM", b"MSG", b"GET", stream]
            | [b"DIRECT", b"GET", stream, ..]
            | [b"CONSUMER", b"DURABLE", b"CREATE", stream, _]
            | [b"CONSUMER", b"MSG", b"NEXT", stream, _]
            | [
                b"CONSUMER",
                b"CREATE" | b"INFO" | b"DELETE" | b"LIST" | b"NAMES" | b"UNPIN",
                stream,
                ..,
            ] => self.may_fetch(stream),
            _ => false,
        }
    }

    /// Whether messages of `stream` may be read. What begins with `$` holds those of every station.
    fn may_fetch(&self, stream: &[u8]) -> bool {
        match station_of_stream(stream) {
            _ if stream.starts_with(b"$") => self.is_all(),
            Some(station) => self.may_read_named(&station),
            None => !self.is_limited(),
        }
    }
}

fn is_wildcard(token: &[u8]) -> bool {
    matches!(token, b"*" | b">")
}

/// Whether this is one client's inbox, or a part of it.
fn is_one_inbox(filter: &[u8]) -> bool {
    let mut tokens = filter.split(|&byte| byte == b'.');
    tokens.next() == Some(b"_INBOX") && tokens.next().is_some_and(|token| !is_wildcard(token))
}

/// The external name of the station whose partition `token` names: `<internal name>$<number>`.
fn station_of_stream(token: &[u8]) -> Option<Cow<'_, [u8]>> {
    let dollar = token.iter().rposition(|&byte| byte == b'$')?;
    let (station, number) = (&token[..dollar], &token[dollar + 1..]);
    let is_partition = !station.is_empty()
        && !number.is_empty()
        && number.len() <= 10
        && number.iter().all(u8::is_ascii_digit);
    is_partition.then(|| external(station))
}

/// The external spelling of an internal name. Names are lower case, so patterns see them so.
fn external(internal: &[u8]) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| *byte != b'#' && !byte.is_ascii_uppercase();
    if internal.iter().all(is_plain) {
        return Cow::Borrowed(internal);
    }
    let spelt = |byte: &u8| match *byte {
        b'#' => b'.',
        other => other.to_ascii_lowercase(),
    };
    Cow::Owned(internal.iter().map(spelt).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::StationPattern;
    use super::*;

    fn patterns(list: &[&str]) -> Vec<StationPattern> {
        list.iter().map(|text| StationPattern::new(text)).collect()
    }

    fn limited() -> Access {
        Access {
            allow_read: patterns(&["orders.*"]),
            allow_write: patterns(&["logs"]),
            deny_read: patterns(&["orders.secret"]),
            ..Access::ALL
        }
    }

    #[test]
    fn who_may_write_a_station_publishes_into_its_streams_only() {
        let access = limited();
        for allowed in [
            "logs$1.final",
            "logs$3.final",
            "_INBOX.x.y",
            "$memphis_producer_creations",
            "$JS.API.STREAM.INFO.logs$1",
            "$JS.API.INFO",
        ] {
            assert!(access.may_publish(allowed.as_bytes()), "{allowed}");
        }
        for refused in [
            "orders$1.final",
            "logs$1x.final",
            "logs.final",
            "logs",
            "logs2$1.final",
            "$MENES.API.STATUS",
            "$JS.API.STREAM.DELETE.logs$1",
            "$JS.API.STREAM.PURGE.logs$1",
            "$JS.API.STREAM.CREATE.new",
            "$JS.API.STREAM.LIST",
            "$JS.API.CONSUMER.MSG.NEXT.logs$1.g",
            "$KV.bucket.key",
            "$memphis_dls_logs.g",
            "$SYS.REQ.SERVER.PING",
            "",
        ] {
            assert!(!access.may_publish(refused.as_bytes()), "{refused}");
        }
    }

    #[test]
    fn who_may_read_a_station_fetches_and_acknowledges() {
        let access = limited();
        for allowed in [
            "$JS.API.CONSUMER.MSG.NEXT.orders#eu$1.g",
            "$JS.API.CONSUMER.DURABLE.CREATE.orders$2.g",
            "$JS.API.CONSUMER.CREATE.orders$2.g.orders$2.final",
            "$JS.API.CONSUMER.INFO.orders$1.g",
            "$JS.HUB.API.CONSUMER.INFO.orders$1.g",
            "$JS.API.DIRECT.GET.orders$1",
            "$JS.ACK.orders$1.g.1.1.1.1.0",
            "$JS.ACK.dom.hash.orders$1.g.1.1.1.1.0.x",
        ] {
            assert!(access.may_publish(allowed.as_bytes()), "{allowed}");
        }
        for refused in [
            "$JS.API.CONSUMER.MSG.NEXT.orders#secret$1.g",
            "$JS.API.CONSUMER.MSG.NEXT.other.g",
            "$JS.ACK.orders#secret$1.g.1.1.1.1.0",
            "$JS.ACK.dom.hash.logs$1.g.1.1.1.1.0.x",
            "$JS.API.STREAM.MSG.DELETE.orders$1",
        ] {
            assert!(!access.may_publish(refused.as_bytes()), "{refused}");
        }
        for allowed in [
            "orders$1.>",
            "orders#eu$1.final",
            "_INBOX.mine.*",
            "_INBOX.mine",
            "$memphis_dls_orders.g",
            "$memphis_dls_orders_g",
            "$memphis_schema_updates_logs",
            "$memphis_sdk_clients_updates",
        ] {
            assert!(access.may_subscribe(allowed.as_bytes()), "{allowed}");
        }
        for refused in [
            ">",
            "*",
            "*.final",
            "logs$1.final",
            "orders#secret$1.final",
            "_INBOX.>",
            "_INBOX.*.x",
            "_INBOX",
            "$MENES.>",
            "$JS.>",
            "$memphis_dls_logs.g",
            "$memphis_dls_orders#secret_g",
            "$memphis_schema_updates_other",
            "$memphis_station_creations",
        ] {
            assert!(!access.may_subscribe(refused.as_bytes()), "{refused}");
        }
    }

    #[test]
    fn without_lists_only_management_is_kept_back() {
        let access = Access::ALL;
        for subject in [
            "any.thing",
            "orders$1.final",
            "$KV.b.k",
            "$JS.API.CONSUMER.INFO.S.c",
        ] {
            assert!(access.may_publish(subject.as_bytes()), "{subject}");
        }
        assert!(access.may_subscribe(b">") && access.needs_filter(b">"));
        assert!(!access.needs_filter(b"orders$1.final"));
        assert!(!access.may_subscribe(b"_INBOX.>") && access.may_subscribe(b"_INBOX.own.*"));
        assert!(!Access::may_overhear(b">", b"_INBOX.other.1"));
        assert!(Access::may_overhear(b"_INBOX.own.*", b"_INBOX.own.1"));
        assert!(Access::may_overhear(b">", b"any.thing"));
        for subject in ["$MENES.API.USER.LIST", "$JS.API.STREAM.DELETE.S"] {
            assert!(!access.may_publish(subject.as_bytes()), "{subject}");
        }
        assert!(!access.may_receive(b"$MENES.API.USER.CREATE"));
    }

    #[test]
    fn who_has_any_list_sees_no_stream_of_the_server() {
        let denied = Access {
            deny_read: patterns(&["secret"]),
            ..Access::ALL
        };
        for subject in [
            "$JS.API.STREAM.INFO.$memphis_dead_letters",
            "$JS.API.STREAM.MSG.GET.$memphis_dead_letters",
            "$JS.API.DIRECT.GET.$memphis_dead_letters",
            "$JS.API.DIRECT.GET.$memphis_dead_letters.$memphis_dead_letters.secret.schema",
            "$JS.API.CONSUMER.CREATE.$memphis_dead_letters",
            "$JS.API.CONSUMER.CREATE.$memphis_dead_letters.c.f",
            "$JS.API.CONSUMER.DURABLE.CREATE.$memphis_dead_letters.c",
            "$JS.API.CONSUMER.MSG.NEXT.$memphis_dead_letters.c",
            "$JS.HUB.API.CONSUMER.MSG.NEXT.$memphis_dead_letters.c",
            "$JS.ACK.$memphis_dead_letters.c.1.1.1.1.0",
            "$JS.API.STREAM.INFO.$other$1",
            "$JS.API.CONSUMER.MSG.NEXT.$other$1.c",
        ] {
            assert!(!denied.may_publish(subject.as_bytes()), "{subject}");
            assert!(!limited().may_publish(subject.as_bytes()), "{subject}");
            assert!(Access::ALL.may_publish(subject.as_bytes()), "{subject}");
        }
        assert!(denied.may_publish(b"$JS.API.CONSUMER.MSG.NEXT.other.c"));
        assert!(denied.may_publish(b"$JS.API.STREAM.INFO.other"));
    }

    #[test]
    fn nobody_makes_dead_letters_by_hand() {
        for access in [Access::ALL, limited()] {
            for subject in [
                "$memphis_dead_letters",
                "$memphis_dead_letters.orders.schema",
                "$memphis_dead_letters.orders.poison.1.1.g",
            ] {
                assert!(!access.may_publish(subject.as_bytes()), "{subject}");
            }
        }
    }

    #[test]
    fn nothing_is_sent_in_a_users_place_to_what_is_served() {
        for access in [Access::ALL, limited()] {
            for subject in [
                "$JS.API.INFO",
                "$JS.API.CONSUMER.CREATE.orders$1",
                "$JS.HUB.API.CONSUMER.CREATE.orders$1",
                "$JS.ACK.orders$1.g.1.1.1.1.0",
                "$memphis_producer_creations",
                "$SYS.REQ.USER.INFO",
                "$MENES.API.STATUS",
            ] {
                assert!(!access.may_hear_on(subject.as_bytes()), "{subject}");
            }
            assert!(access.may_hear_on(b"_INBOX.a.b") && access.may_hear_on(b"logs$1.final"));
        }
    }

    proptest! {
        #[test]
        fn a_resent_message_of_the_older_form_is_seen_if_it_is_of_none_but_readable_stations(
            read in "[ab_.]{0,3}\\*?", deny in "[ab_]{0,3}\\*?",
            station in "[ab_]{1,4}", group in "[ab_]{1,3}",
        ) {
            let listed = |text: &str| match text {
                "" => Vec::new(),
                text => patterns(&[text]),
            };
            let access = Access {
                allow_read: listed(&read),
                deny_read: listed(&deny),
                ..Access::ALL
            };
            let subject = format!("$memphis_dls_{station}_{group}");
            let whole = format!("{station}_{group}");
            let readable = |(at, _): (usize, &str)| access.may_read_named(&whole.as_bytes()[..at]);
            let expected = access.is_all() || whole.match_indices('_').all(readable);
            prop_assert_eq!(access.may_subscribe(subject.as_bytes()), expected);
            prop_assert_eq!(access.may_receive(subject.as_bytes()), expected);
        }

        #[test]
        fn what_may_be_subscribed_to_may_be_received(
            read in "[ab.]{0,3}\\*?", deny in "[ab.]{0,3}\\*?", name in "[ab#]{1,4}",
        ) {
            let access = Access {
                allow_read: if read.is_empty() { Vec::new() } else { patterns(&[&read]) },
                deny_read: if deny.is_empty() { Vec::new() } else { patterns(&[&deny]) },
                ..Access::ALL
            };
            let subject = format!("{name}$1.final");
            let subject = subject.as_bytes();
            prop_assert_eq!(access.may_subscribe(subject), access.may_receive(subject));
            let next = format!("$JS.API.CONSUMER.MSG.NEXT.{name}$1.g");
            prop_assert_eq!(access.may_publish(next.as_bytes()), access.may_receive(subject));
        }

        #[test]
        fn no_subject_breaks_the_rules(subject in proptest::collection::vec(any::<u8>(), 0..60)) {
            let access = limited();
            let _ = access.may_publish(&subject);
            let _ = access.may_subscribe(&subject);
            let _ = access.may_receive(&subject);
        }
    }
}
