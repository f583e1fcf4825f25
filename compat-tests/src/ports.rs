//! The file in which a server says which ports it got.
//!
//! nats-server writes `<program>_<pid>.ports` into `--ports_file_dir` once it listens: a JSON object
//! of lists of URLs, keyed by face. Bare numbers and single strings are understood as well.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// The ports a server listens on, by face: `nats`, `memphis`, `websocket`, `monitoring`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    ports: BTreeMap<String, u16>,
    schemes: BTreeMap<String, String>,
}

impl Ports {
    /// Reads the first complete ports file of a folder; `None` while there is none.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
            let path = entry.path();
            if path.extension()? != "ports" {
                return None;
            }
            Self::parse(&std::fs::read_to_string(path).ok()?)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let Value::Object(faces) = serde_json::from_str(text).ok()? else {
            return None;
        };
        let ports = faces
            .iter()
            .filter_map(|(face, listed)| Some((face.clone(), port_of(listed)?)));
        let schemes = faces
            .iter()
            .filter_map(|(face, listed)| Some((face.clone(), scheme_of(listed)?)));
        Some(Self {
            ports: ports.collect(),
            schemes: schemes.collect(),
        })
    }

    /// The URL of a face on the loopback address.
    pub(crate) fn url_of(&self, face: &str) -> Option<String> {
        let scheme = self.schemes.get(face).map_or(face, String::as_str);
        Some(format!("{scheme}://127.0.0.1:{}", self.of(face)?))
    }

    /// The port of a face.
    pub(crate) fn of(&self, face: &str) -> Option<u16> {
        self.ports.get(face).copied()
    }
}

fn scheme_of(listed: &Value) -> Option<String> {
    match listed {
        Value::Array(several) => several.iter().find_map(scheme_of),
        Value::String(url) => url.split_once("://").map(|(scheme, _)| scheme.to_owned()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn port_of(listed: &Value) -> Option<u16> {
    match listed {
        Value::Array(several) => several.iter().find_map(port_of),
        Value::Number(number) => number.as_u64().and_then(|port| u16::try_from(port).ok()),
        Value::String(url) => url.rsplit(':').next()?.trim_end_matches('/').parse().ok(),
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_numbers_and_strings_are_understood() {
        let text = r#"{"nats":["nats://127.0.0.1:4222"],"websocket":["ws://127.0.0.1:80/"],
                       "memphis":6666,"monitoring":"http://127.0.0.1:8222","cluster":[]}"#;
        let ports = Ports::parse(text).expect("a ports file");
        let of = |face| ports.of(face);
        assert_eq!(
            (
                of("nats"),
                of("websocket"),
                of("memphis"),
                of("monitoring"),
                of("cluster")
            ),
            (Some(4222), Some(80), Some(6666), Some(8222), None)
        );
    }

    #[test]
    fn half_a_file_is_no_file() {
        assert!(Ports::parse(r#"{"nats":["nats://127.0."#).is_none());
    }
}
