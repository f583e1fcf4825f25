//! Servers and credentials under a name: the contexts of the `nats` command, read and written.
//!
//! They lie in `nats/context/NAME.json` below the configuration folder of the user, and
//! `nats/context.txt` says which of them is used when nothing else is said. A file that holds a
//! password is readable by its owner alone.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::output::{Output, cell};
use super::{Outcome, Trouble};

/// Keys whose values are not shown.
const SECRETS: [&str; 2] = ["password", "token"];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the contexts
    Ls,
    /// Keep where a server is and as whom to log in, from --server, --user, --password, --creds
    #[command(
        after_help = "Example:\n  menes context add shop --server nats://broker:4222 --user root --password … --select"
    )]
    Add {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// A token in place of user and password
        #[arg(long)]
        token: Option<String>,
        /// Use it from now on
        #[arg(long)]
        select: bool,
    },
    /// Use a context when nothing else is said
    Use {
        /// Its name
        name: String,
    },
    /// Show a context, without its secrets
    Show {
        /// Its name; the one in use without one
        name: Option<String>,
    },
    /// Remove a context
    Rm {
        /// Its name
        name: String,
    },
    /// Log in with a context
    Test {
        /// Its name; the one in use without one
        name: Option<String>,
    },
}

/// What is kept besides the description.
pub(super) struct Login<'a> {
    pub(super) url: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    pub(super) creds: Option<&'a str>,
}

/// Where contexts lie.
struct Shelf(PathBuf);

fn failed(path: &Path, error: &std::io::Error) -> Trouble {
    let text = format!("context {}: {error}", path.display());
    if error.kind() == std::io::ErrorKind::NotFound {
        Trouble::NotFound(text)
    } else {
        Trouble::Failed(text)
    }
}

impl Shelf {
    fn find() -> Self {
        let folder = match std::env::var_os("XDG_CONFIG_HOME").filter(|name| !name.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => {
                let home = std::env::var_os("HOME").unwrap_or_default();
                Path::new(&home).join(".config")
            }
        };
        Self(folder.join("nats"))
    }

    fn path(&self, name: &str) -> Outcome<PathBuf> {
        if name.is_empty() || name.contains(['/', '\\', ' ']) || name.starts_with('.') {
            return Err(Trouble::Usage(format!("{name:?} is no name of a context")));
        }
        Ok(self.0.join("context").join(format!("{name}.json")))
    }

    fn read(&self, name: &str) -> Outcome<Value> {
        let path = self.path(name)?;
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
        serde_json::from_str(&text)
            .map_err(|error| Trouble::Failed(format!("context {}: {error}", path.display())))
    }

    fn selected(&self) -> Option<String> {
        let text = fs::read_to_string(self.0.join("context.txt")).ok()?;
        let name = text.trim();
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn select(&self, name: &str) -> Outcome {
        self.read(name)?;
        write(&self.0.join("context.txt"), name)
    }

    fn names(&self) -> Vec<String> {
        let folder = fs::read_dir(self.0.join("context"));
        let files = folder.into_iter().flatten().flatten();
        let mut names: Vec<String> = files
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                name.strip_suffix(".json").map(str::to_owned)
            })
            .collect();
        names.sort();
        names
    }
}

/// Writes a file that only its owner reads, whole or not at all.
fn write(path: &Path, text: &str) -> Outcome {
    let say = |error: std::io::Error| failed(path, &error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(say)?;
    }
    let fresh = path.with_extension("new");
    // One that was left behind may be readable for others.
    drop(fs::remove_file(&fresh));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(say)?;
    file.write_all(text.as_bytes()).map_err(say)?;
    file.sync_all().map_err(say)?;
    fs::rename(&fresh, path).map_err(say)
}

/// The context of this name, or the one in use if there is one.
pub(super) fn resolve(name: Option<&str>) -> Outcome<Value> {
    let shelf = Shelf::find();
    match name {
        Some(name) => shelf.read(name),
        None => match shelf.selected() {
            Some(name) => shelf.read(&name),
            None => Ok(Value::Null),
        },
    }
}

/// Keeps a context.
pub(super) fn save(name: &str, fields: &Map<String, Value>, select: bool) -> Outcome {
    let shelf = Shelf::find();
    let text =
        serde_json::to_string_pretty(fields).map_err(|error| Trouble::Failed(error.to_string()))?;
    write(&shelf.path(name)?, &format!("{text}\n"))?;
    if select {
        shelf.select(name)?;
    }
    Ok(())
}

/// Everything but `Test`, which needs a server. Gives the name to test.
pub(super) fn run(
    output: &Output,
    command: Command,
    login: &Login<'_>,
) -> Outcome<Option<Option<String>>> {
    let shelf = Shelf::find();
    match command {
        Command::Ls => {
            let selected = shelf.selected();
            let list: Vec<Value> = shelf
                .names()
                .into_iter()
                .map(|name| {
                    let context = shelf.read(&name).unwrap_or_default();
                    json!({
                        "name": name,
                        "is_selected": selected.as_ref() == Some(&name),
                        "url": context["url"],
                        "user": context["user"],
                        "description": context["description"],
                    })
                })
                .collect();
            let headings = ["CONTEXT", "USED", "SERVER", "USER", "DESCRIPTION"];
            output.table(&list.into(), &headings, |context| {
                vec![
                    cell(&context["name"]),
                    if context["is_selected"] == true {
                        "*"
                    } else {
                        ""
                    }
                    .to_owned(),
                    cell(&context["url"]),
                    cell(&context["user"]),
                    cell(&context["description"]),
                ]
            })?;
        }
        Command::Add {
            name,
            description,
            token,
            select,
        } => {
            let mut fields = match shelf.read(&name) {
                // What the `nats` command keeps in it stays.
                Ok(Value::Object(fields)) => fields,
                Ok(_) | Err(Trouble::NotFound(_)) => Map::new(),
                Err(other) => return Err(other),
            };
            let given = [
                (
                    "description",
                    Some(description.as_str()).filter(|text| !text.is_empty()),
                ),
                ("url", login.url),
                ("user", login.user),
                ("password", login.password),
                ("creds", login.creds),
                ("token", token.as_deref()),
            ];
            for (key, value) in given {
                if let Some(value) = value {
                    fields.insert(key.to_owned(), value.into());
                }
            }
            if !fields.contains_key("url") {
                return Err(Trouble::Usage(
                    "where is it? menes context add NAME --server nats://HOST:4222".to_owned(),
                ));
            }
            save(&name, &fields, select)?;
            let text = format!("context {name} is kept   (use it: menes context use {name})");
            output.done(&text, &shown(fields.into()))?;
        }
        Command::Use { name } => {
            shelf.select(&name)?;
            output.done(&format!("context {name} is used"), &json!({"name": name}))?;
        }
        Command::Show { name } => {
            let name = name.or_else(|| shelf.selected());
            let name = name.ok_or_else(|| {
                Trouble::NotFound("context: none is in use; menes context use NAME".to_owned())
            })?;
            let mut fields = shown(shelf.read(&name)?);
            fields["name"] = name.into();
            output.fields(&fields)?;
        }
        Command::Rm { name } => {
            let path = shelf.path(&name)?;
            output.sure(&format!("remove context {name}"))?;
            fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
            if shelf.selected().as_ref() == Some(&name) {
                let path = shelf.0.join("context.txt");
                fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
            }
            output.done(&format!("removed context {name}"), &json!({}))?;
        }
        Command::Test { name } => return Ok(Some(name)),
    }
    Ok(None)
}

/// A context without what others must not read.
fn shown(mut context: Value) -> Value {
    for key in SECRETS {
        if context[key]
            .as_str()
            .is_some_and(|secret| !secret.is_empty())
        {
            context[key] = "(set)".into();
        }
    }
    if let Some(fields) = context.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && value != "");
    }
    context
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_for_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let shelf = Shelf(folder.path().join("nats"));
        let path = shelf.path("a").expect("a name");
        write(&path, r#"{"url":"nats://a","password":"p"}"#).expect("written");
        write(&path, r#"{"url":"nats://b","password":"p"}"#).expect("written again");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(shelf.read("a").expect("read")["url"], "nats://b");
        assert_eq!(shelf.names(), ["a"]);
        shelf.select("a").expect("known");
        assert_eq!(shelf.selected().as_deref(), Some("a"));
        assert!(matches!(shelf.select("b"), Err(Trouble::NotFound(_))));
        for bad in ["", "../x", "a/b", ".a", "a b"] {
            assert!(matches!(shelf.path(bad), Err(Trouble::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let context = json!({"url": "u", "password": "p", "token": "", "nkey": null});
        assert_eq!(shown(context), json!({"url": "u", "password": "(set)"}));
    }
}
