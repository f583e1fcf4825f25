//! The document of `CONNECT`.
//!
//! Read as nats-server reads it: unknown keys are ignored, `null` is as good as no key, and
//! `verbose`, `pedantic` and `echo` are on unless they are switched off. Stricter in one thing:
//! a credential that occurs twice is refused, because two readers of such a document (a proxy, an
//! auditor, this server) may not agree on who is logging in.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use thiserror::Error;

/// Deepest nesting of a document.
pub const MAX_DEPTH: usize = 32;

/// Why a document is refused.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Not JSON, or a field of the wrong type, or a credential given twice.
    #[error("invalid CONNECT: {0}")]
    Json(#[from] serde_json::Error),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("CONNECT is nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// What a client says about itself. Absent, `null` and empty texts are all `None`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Connect {
    /// `+OK` after every accepted operation. Default true.
    pub verbose: bool,
    /// Check the subjects of publishes. Default true.
    pub pedantic: bool,
    /// The client requires TLS; informative.
    pub tls_required: bool,
    /// Public key, with `sig`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey: Option<String>,
    /// User JWT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<String>,
    /// Signature over the server's nonce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sig: Option<String>,
    /// Token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<String>,
    /// User name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
    /// The client's name for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Language of the client library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    /// Version of the client library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// 0 or 1; with 1 the client understands INFO at any time. Unchecked here.
    pub protocol: i64,
    /// Legacy; not empty means the login is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Legacy; true means the login is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub new_account: bool,
    /// Deliver the client's own publishes to its own subscriptions. Default true.
    pub echo: bool,
    /// The client understands HMSG.
    pub headers: bool,
    /// The client wants to hear when nobody gets its request; needs `headers`.
    pub no_responders: bool,
    /// A trusted proxy's signature over the server's nonce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_sig: Option<String>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            tls_required: false,
            nkey: None,
            jwt: None,
            sig: None,
            auth_token: None,
            user: None,
            pass: None,
            name: None,
            lang: None,
            version: None,
            protocol: 0,
            account: None,
            new_account: false,
            echo: true,
            headers: false,
            no_responders: false,
            proxy_sig: None,
        }
    }
}

impl fmt::Debug for Connect {
    /// Leaves out everything secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("name", &self.name)
            .field("lang", &self.lang)
            .field("version", &self.version)
            .field("user", &self.user)
            .field("nkey", &self.nkey)
            .field("protocol", &self.protocol)
            .field("verbose", &self.verbose)
            .field("pedantic", &self.pedantic)
            .field("echo", &self.echo)
            .field("headers", &self.headers)
            .field("no_responders", &self.no_responders)
            .field("tls_required", &self.tls_required)
            .finish_non_exhaustive()
    }
}

impl Connect {
    /// Reads the document behind `CONNECT`.
    ///
    /// # Errors
    ///
    /// Anything that is not one JSON object with fields of the right types, each credential at
    /// most once, nested at most [`MAX_DEPTH`] deep. The connection is closed without an answer.
    pub fn parse(json: &[u8]) -> Result<Self, ConnectError> {
        Self::default().and_then(json)
    }

    /// Reads the document of a further CONNECT on the same connection: what it leaves out stays as
    /// it is in `self`.
    ///
    /// # Errors
    ///
    /// As [`Connect::parse`].
    pub fn and_then(&self, json: &[u8]) -> Result<Self, ConnectError> {
        if depth(json) > MAX_DEPTH {
            return Err(ConnectError::TooDeep);
        }
        let mut reader = serde_json::Deserializer::from_slice(json);
        let connect = reader.deserialize_any(ConnectVisitor(self.clone()))?;
        reader.end()?;
        Ok(connect)
    }

    /// The document.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, numbers and booleans always serialise")
    }
}

/// Deepest nesting of brackets outside strings.
fn depth(json: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut deepest = 0;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

impl<'de> Deserialize<'de> for Connect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ConnectVisitor(Self::default()))
    }
}

/// Holds what is not changed by the document.
struct ConnectVisitor(Connect);

impl<'de> Visitor<'de> for ConnectVisitor {
    type Value = Connect;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the object of a CONNECT")
    }

    /// `null` names nothing.
    fn visit_unit<E: serde::de::Error>(self) -> Result<Connect, E> {
        Ok(self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Connect, A::Error> {
        let Self(mut connect) = self;
        let mut seen = Credentials::default();
        while let Some(Key(key)) = map.next_key()? {
            // The reference does not tell upper from lower case in keys.
            match &*key.to_ascii_lowercase() {
                "nkey" => once(&mut map, &mut seen.nkey, "nkey", &mut connect.nkey)?,
                "jwt" => once(&mut map, &mut seen.jwt, "jwt", &mut connect.jwt)?,
                "sig" => once(&mut map, &mut seen.sig, "sig", &mut connect.sig)?,
                "auth_token" => once(
                    &mut map,
                    &mut seen.auth_token,
                    "auth_token",
                    &mut connect.auth_token,
                )?,
                "user" => once(&mut map, &mut seen.user, "user", &mut connect.user)?,
                "pass" => once(&mut map, &mut seen.pass, "pass", &mut connect.pass)?,
                "proxy_sig" => once(
                    &mut map,
                    &mut seen.proxy_sig,
                    "proxy_sig",
                    &mut connect.proxy_sig,
                )?,
                "verbose" => replace(&mut map, &mut connect.verbose)?,
                "pedantic" => replace(&mut map, &mut connect.pedantic)?,
                "tls_required" => replace(&mut map, &mut connect.tls_required)?,
                "protocol" => replace(&mut map, &mut connect.protocol)?,
                "new_account" => replace(&mut map, &mut connect.new_account)?,
                "echo" => replace(&mut map, &mut connect.echo)?,
                "headers" => replace(&mut map, &mut connect.headers)?,
                "no_responders" => replace(&mut map, &mut connect.no_responders)?,
                "name" => text(&mut map, &mut connect.name)?,
                "lang" => text(&mut map, &mut connect.lang)?,
                "version" => text(&mut map, &mut connect.version)?,
                "account" => text(&mut map, &mut connect.account)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(connect)
    }
}

/// A key, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Which credentials occurred.
#[derive(Default)]
struct Credentials {
    nkey: bool,
    jwt: bool,
    sig: bool,
    auth_token: bool,
    user: bool,
    pass: bool,
    proxy_sig: bool,
}

fn once<'de, A: MapAccess<'de>>(
    map: &mut A,
    seen: &mut bool,
    key: &'static str,
    field: &mut Option<String>,
) -> Result<(), A::Error> {
    if std::mem::replace(seen, true) {
        return Err(A::Error::duplicate_field(key));
    }
    text(map, field)
}

fn text<'de, A: MapAccess<'de>>(map: &mut A, field: &mut Option<String>) -> Result<(), A::Error> {
    if let Some(text) = map.next_value::<Option<String>>()? {
        *field = Some(text).filter(|text| !text.is_empty());
    }
    Ok(())
}

/// Sets the field, unless the value is `null`.
fn replace<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    field: &mut T,
) -> Result<(), A::Error> {
    if let Some(value) = map.next_value()? {
        *field = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Connect {
        Connect::parse(json.as_bytes()).expect(json)
    }

    fn refused(json: &str) -> ConnectError {
        Connect::parse(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn absent_switches_have_their_defaults() {
        let connect = parse("{}");
        assert_eq!(connect, Connect::default());
        assert!(connect.verbose && connect.pedantic && connect.echo);
        assert!(!connect.headers && !connect.no_responders);
    }

    #[test]
    fn a_further_document_leaves_what_it_does_not_name() {
        let first = parse(r#"{"verbose":false,"headers":true,"user":"a","pass":"b","name":"n"}"#);
        let second = first
            .and_then(br#"{"echo":false,"user":"c","pass":null,"name":""}"#)
            .expect("valid");
        assert!(!second.verbose && second.headers && !second.echo && second.pedantic);
        assert_eq!(second.user.as_deref(), Some("c"));
        assert_eq!(second.pass.as_deref(), Some("b"));
        assert_eq!(second.name, None);
        assert!(first.and_then(b"{} {}").is_err());
    }

    #[test]
    fn the_case_of_keys_does_not_matter() {
        assert!(!parse(r#"{"Verbose":false}"#).verbose);
        refused(r#"{"user":"a","USER":"b"}"#);
    }

    #[test]
    fn null_is_as_good_as_absent() {
        assert_eq!(parse("null"), Connect::default());
        let keys = [
            "verbose",
            "pedantic",
            "echo",
            "tls_required",
            "nkey",
            "sig",
            "jwt",
            "auth_token",
            "user",
            "pass",
            "name",
            "lang",
            "version",
            "protocol",
            "headers",
            "no_responders",
            "account",
            "new_account",
            "proxy_sig",
            "import",
            "export",
            "unknown",
        ];
        for key in keys {
            assert_eq!(
                parse(&format!("{{\"{key}\":null}}")),
                Connect::default(),
                "{key}"
            );
        }
    }

    #[test]
    fn a_client_library_is_understood() {
        let connect = parse(
            r#"{"verbose":false,"pedantic":false,"user":"u","pass":"p","tls_required":false,
            "name":"","lang":"go","version":"1.40.0","protocol":1,"echo":true,"headers":true,
            "no_responders":true,"future":{"a":[1,{"b":null}]}}"#,
        );
        assert!(!connect.verbose && connect.headers && connect.no_responders);
        assert_eq!(connect.user.as_deref(), Some("u"));
        assert_eq!(connect.name, None);
        assert_eq!(connect.protocol, 1);
    }

    #[test]
    fn credentials_occur_once() {
        for key in [
            "user",
            "pass",
            "auth_token",
            "jwt",
            "nkey",
            "sig",
            "proxy_sig",
        ] {
            let json = format!(r#"{{"{key}":"a","x":1,"{key}":"a"}}"#);
            assert!(
                refused(&json).to_string().contains("duplicate field"),
                "{json}"
            );
            assert!(matches!(
                refused(&format!(r#"{{"{key}":null,"{key}":"a"}}"#)),
                ConnectError::Json(_)
            ));
        }
        refused(r#"{"user":"a","\u0075ser":"b"}"#);
        assert!(!parse(r#"{"verbose":true,"verbose":false}"#).verbose);
    }

    #[test]
    fn what_is_no_connect_is_refused() {
        for json in [
            "",
            "{",
            "[]",
            "1",
            "{} x",
            r#"{"user":1}"#,
            r#"{"verbose":"true"}"#,
            r#"{"protocol":"1"}"#,
            r#"{"protocol":1.5}"#,
            r#"{"protocol":99999999999999999999}"#,
            r#"{"user":["a"]}"#,
            r#"{"user":"a",}"#,
        ] {
            refused(json);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested =
            |depth: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        parse(&nested(MAX_DEPTH - 1));
        assert!(matches!(refused(&nested(MAX_DEPTH)), ConnectError::TooDeep));
        assert!(matches!(
            refused(&"[".repeat(100_000)),
            ConnectError::TooDeep
        ));
        parse(&format!(r#"{{"name":"\"{}"}}"#, "[".repeat(100)));
    }

    #[test]
    fn debug_shows_no_secret() {
        let connect =
            parse(r#"{"pass":"hidden","auth_token":"hidden","jwt":"hidden","sig":"hidden"}"#);
        assert!(!format!("{connect:?}").contains("hidden"));
    }
}
