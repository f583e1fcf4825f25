//! What a configuration comes to: every key at the top level, its value, and where that is from.

use std::path::Path;

use super::grammar::{Map, Place, Value as Parsed};
use super::reference;
use super::settings;

/// Keys whose values are not shown.
const SECRET: &[&str] = &[
    "pass",
    "password",
    "token",
    "auth_token",
    "nkey",
    "seed",
    "key",
    "ek",
    "encryption_key",
    "prev_key",
    "prev_ek",
    "prev_encryption_key",
    "jwt",
    "default_sentinel",
];
/// In place of a secret.
const HIDDEN: &str = "********";

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its key.
    pub key: String,
    /// Its value, in the grammar of configurations; secrets are hidden.
    pub text: String,
    /// Where it is from.
    pub origin: Origin,
}

/// Where a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was said.
    Default,
    /// A file.
    File(Place),
}

/// The settings, in the order of the reference.
///
/// # Errors
/// For people: a file that cannot be read.
pub fn values(file: Option<&Path>) -> Result<Vec<Value>, String> {
    let map = match file {
        Some(file) => settings::parse(file).map_err(|error| error.to_string())?,
        None => Map::default(),
    };
    let top = reference::ENTRIES
        .iter()
        .filter(|entry| !entry.key.contains('.'));
    Ok(top
        .map(|entry| {
            let names = std::iter::once(entry.key).chain(entry.aliases.iter().copied());
            let found = names.filter_map(|name| map.get(name)).next_back();
            match found {
                Some(field) => Value {
                    key: entry.key.to_owned(),
                    text: text(&field.key, &field.node.value),
                    origin: Origin::File(field.node.place.clone()),
                },
                None => Value {
                    key: entry.key.to_owned(),
                    text: entry.default.to_owned(),
                    origin: Origin::Default,
                },
            }
        })
        .collect())
}

fn text(key: &str, value: &Parsed) -> String {
    let is_secret = SECRET.contains(&key.to_ascii_lowercase().as_str());
    match value {
        Parsed::Map(map) => {
            let fields = map.fields.iter();
            let fields: Vec<String> = fields
                .map(|field| format!("{}: {}", field.key, text(&field.key, &field.node.value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        _ if is_secret => HIDDEN.to_owned(),
        Parsed::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| text(key, &item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Parsed::String(text) => {
            let is_bare = !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte));
            if is_bare {
                text.clone()
            } else {
                format!("{text:?}")
            }
        }
        Parsed::Integer(number) => number.to_string(),
        Parsed::Float(number) => number.to_string(),
        Parsed::Bool(truth) => truth.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_their_origin_and_without_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.conf");
        let config = "max_conn: 5\nauthorization { user: ada, pass: canary, token: canary\n\
                      users: [{user: b, password: canary}] }\nserver_name: \"a b\"\n";
        std::fs::write(&file, config).expect("written");
        let values = values(Some(&file)).expect("readable");
        let value = |key: &str| values.iter().find(|value| value.key == key).expect(key);
        assert_eq!(value("max_connections").text, "5");
        let Origin::File(place) = &value("max_connections").origin else {
            panic!("it is in the file");
        };
        assert_eq!((place.line, place.column), (1, 11));
        assert_eq!(value("server_name").text, "\"a b\"");
        assert_eq!(value("max_payload").origin, Origin::Default);
        assert_eq!(
            value("authorization").text,
            "{user: ada, pass: ********, token: ********, users: [{user: b, password: ********}]}"
        );
        assert!(!format!("{values:?}").contains("canary"));
    }
}
