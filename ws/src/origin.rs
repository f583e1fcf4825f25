//! Which web pages may open a connection.
//!
//! A browser sends the origin of the page that opens a WebSocket, and sends along its cookies for
//! the server. So a page of another site could act as the user who is logged in; the origin is
//! what tells them apart.

use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;
use tokio_tungstenite::tungstenite::http::{Uri, uri::Authority};

/// Scheme, host and port of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    https: bool,
    /// In lower case.
    host: String,
    port: u16,
}

/// Why a text is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an origin is http:// or https:// with a host and perhaps a port, and nothing else")]
pub struct OriginError;

impl Origin {
    /// Reads `https://host[:port]`. The port defaults to that of the scheme.
    ///
    /// # Errors
    ///
    /// Anything else: another scheme, a path, a query, a user name, `null`.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let uri = Uri::from_str(text).map_err(|_| OriginError)?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(OriginError),
        };
        if uri.query().is_some() || text.contains('#') || !matches!(uri.path(), "" | "/") {
            return Err(OriginError);
        }
        Self::from_authority(https, uri.authority().ok_or(OriginError)?)
    }

    /// Whether the page comes from this machine, by whatever port.
    #[must_use]
    pub fn is_local(&self) -> bool {
        is_local_name(&self.host)
    }

    /// The origin that a request to `host` (as the Host header has it) belongs to.
    pub(crate) fn of_host(https: bool, host: &str) -> Result<Self, OriginError> {
        Self::from_authority(https, &Authority::from_str(host).map_err(|_| OriginError)?)
    }

    fn from_authority(https: bool, authority: &Authority) -> Result<Self, OriginError> {
        let host = authority.host();
        let text = authority.as_str();
        // Whatever is not the host must be a port; `http` keeps user names and bad ports.
        let port = match text.strip_prefix(host).ok_or(OriginError)? {
            "" => {
                if https {
                    443
                } else {
                    80
                }
            }
            port => port
                .strip_prefix(':')
                .and_then(|p| p.parse().ok())
                .ok_or(OriginError)?,
        };
        if host.is_empty() || port == 0 {
            return Err(OriginError);
        }
        Ok(Self {
            https,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

/// Whether a host, as the Host header has it, is this machine by a name that no stranger can give
/// it: `localhost`, a name below that, or a loopback address. A name of a stranger may lead here too,
/// and then their pages are of the same origin as what listens here.
#[must_use]
pub fn is_local_host(host: &str) -> bool {
    Origin::of_host(false, host).is_ok_and(|origin| origin.is_local())
}

fn is_local_name(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(host).parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Which origins are accepted. A request without an origin does not come from a browser and is
/// accepted, unless it brings a cookie that may log it in.
#[derive(Clone, Debug, Default)]
pub struct OriginRules {
    /// The origin must be that of this listener: scheme, host of the request, and port.
    pub same_origin: bool,
    /// The origin must be one of these; an empty list does not restrict.
    pub allowed: Vec<Origin>,
    /// A cookie may log a client in. A request with a cookie then needs an origin, and one that
    /// is checked: by the rules above, or as `same_origin` when there are none.
    pub cookie_login: bool,
    /// The host of the request must be this machine by a name of its own ([`is_local_host`]), and so
    /// must the origin: for a listener on loopback that lets anyone in.
    pub only_local: bool,
}

impl OriginRules {
    /// Checks a request. `origins` are all its Origin headers, `https` the listener's scheme.
    pub(crate) fn check(
        &self,
        origins: &[&str],
        host: &str,
        https: bool,
        has_cookie: bool,
    ) -> Result<(), &'static str> {
        if self.only_local && !is_local_host(host) {
            return Err("not a name of this machine");
        }
        let by_cookie = self.cookie_login && has_cookie;
        let same_origin = self.same_origin || (self.cookie_login && self.allowed.is_empty());
        let origin = match *origins {
            [] if by_cookie => return Err("missing"),
            [] => return Ok(()),
            [origin] => origin,
            _ => return Err("several origins"),
        };
        let is_restricted = same_origin || self.only_local;
        if !is_restricted && self.allowed.is_empty() {
            return Ok(());
        }
        let origin = Origin::parse(origin).map_err(|_| "not an origin")?;
        if self.only_local && !origin.is_local() {
            return Err("not of this machine");
        }
        if same_origin && Origin::of_host(https, host) != Ok(origin.clone()) {
            return Err("not same origin");
        }
        if !self.allowed.is_empty() && !self.allowed.contains(&origin) {
            return Err("not in the allowed list");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same() -> OriginRules {
        OriginRules {
            same_origin: true,
            ..OriginRules::default()
        }
    }

    fn listed(origins: &[&str]) -> OriginRules {
        let allowed = origins
            .iter()
            .map(|text| Origin::parse(text).expect(text))
            .collect();
        OriginRules {
            allowed,
            ..OriginRules::default()
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "null",
            "example.com",
            "//example.com",
            "ws://example.com",
            "file:///x",
            "https://",
            "https://a/path",
            "https://a?x",
            "https://a#x",
            "https://u@a",
            "https://u:p@a",
            "https://a:0",
            "https://a:99999",
            "https://a:",
            "https://a:x",
            "https://a b",
            "javascript:x",
        ] {
            assert_eq!(Origin::parse(text), Err(OriginError), "{text}");
        }
    }

    #[test]
    fn default_ports_are_filled_and_case_is_ignored() {
        assert_eq!(
            Origin::parse("https://A.example"),
            Origin::parse("https://a.example:443/")
        );
        assert_eq!(Origin::parse("http://a"), Origin::parse("http://a:80"));
        assert_ne!(Origin::parse("http://a"), Origin::parse("https://a"));
        assert_eq!(
            Origin::parse("http://[::1]:8080"),
            Origin::of_host(false, "[::1]:8080")
        );
    }

    #[test]
    fn the_same_origin_has_scheme_host_and_port() {
        let check = |origin, host, https| same().check(&[origin], host, https, false);
        assert_eq!(check("https://a.example", "a.example", true), Ok(()));
        assert_eq!(check("https://a.example", "A.example:443", true), Ok(()));
        assert_eq!(
            check("http://a.example:7770", "a.example:7770", false),
            Ok(())
        );
        for (origin, host, https) in [
            ("http://a.example", "a.example", true),
            ("https://a.example", "a.example", false),
            ("https://a.example:444", "a.example", true),
            ("https://a.example.evil.com", "a.example", true),
            ("https://evil.com", "a.example", true),
            ("null", "a.example", true),
            ("https://a.example", "", true),
            ("https://a.example", "u@a.example", true),
        ] {
            assert!(
                check(origin, host, https).is_err(),
                "{origin} {host} {https}"
            );
        }
    }

    #[test]
    fn listed_origins_are_compared_whole() {
        let rules = listed(&["https://good.example", "http://dev:3000"]);
        let check = |origin| rules.check(&[origin], "broker:7770", false, false);
        assert_eq!(check("https://good.example"), Ok(()));
        assert_eq!(check("http://DEV:3000"), Ok(()));
        for origin in [
            "https://good.example.evil.com",
            "https://evil.com",
            "http://good.example",
            "https://good.example:8443",
            "https://xgood.example",
            "null",
            "http://dev",
        ] {
            assert!(check(origin).is_err(), "{origin}");
        }
    }

    #[test]
    fn a_stranger_is_not_this_machine_by_any_name() {
        let rules = OriginRules {
            only_local: true,
            ..OriginRules::default()
        };
        let own = [
            "localhost",
            "localhost:7770",
            "LOCALHOST",
            "app.localhost:1",
            "127.0.0.1:7770",
        ];
        for host in own
            .into_iter()
            .chain(["127.9.9.9", "[::1]:7770", "[::ffff:127.0.0.1]"])
        {
            assert!(is_local_host(host), "{host}");
            assert_eq!(rules.check(&[], host, false, false), Ok(()));
            let page = format!("http://{host}");
            assert_eq!(
                rules.check(&[&page], "localhost", false, false),
                Ok(()),
                "{page}"
            );
        }
        let strange = [
            "evil.example",
            "localhost.evil.example",
            "xlocalhost",
            "127.0.0.1.evil.example",
        ];
        for host in strange
            .into_iter()
            .chain(["192.0.2.1", "0.0.0.0", "", "u@localhost", "[::2]"])
        {
            assert!(!is_local_host(host), "{host}");
            assert!(rules.check(&[], host, false, false).is_err(), "{host}");
            let page = format!("https://{host}");
            assert!(
                rules.check(&[&page], "localhost", false, false).is_err(),
                "{page}"
            );
        }
        assert!(rules.check(&["null"], "localhost", false, false).is_err());
    }

    #[test]
    fn several_origins_are_refused_even_without_rules() {
        let rules = OriginRules::default();
        assert!(
            rules
                .check(&["https://a", "https://a"], "a", true, false)
                .is_err()
        );
        assert_eq!(rules.check(&["null"], "a", true, false), Ok(()));
    }

    #[test]
    fn no_origin_is_no_browser_unless_it_logs_in_by_cookie() {
        assert_eq!(same().check(&[], "a", true, true), Ok(()));
        let rules = OriginRules {
            cookie_login: true,
            ..OriginRules::default()
        };
        assert_eq!(rules.check(&[], "a", true, false), Ok(()));
        assert_eq!(rules.check(&[], "a", true, true), Err("missing"));
        assert_eq!(rules.check(&["https://a"], "a", true, true), Ok(()));
        assert_eq!(
            rules.check(&["https://b"], "a", true, true),
            Err("not same origin")
        );
    }
}
