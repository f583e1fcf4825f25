//! `menes config`: a configuration file checked, shown and explained.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use menes_broker::config::reference::{self, Entry};
use menes_broker::config::settings::{LoadError, Settings, load};
use menes_broker::config::shown::{self, Origin};

const USAGE: &str = "\
menes config check FILE      say whether FILE is valid, and what is wrong with it
menes config show [FILE]     every setting at the top level with its value and where that comes from
menes config explain [KEY]   what a key does, what it can be, and whether a reload takes it up
menes config init            print a configuration with comments, to start from
";

/// Runs the command behind `config`.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["check", file] => check(Path::new(file)),
        ["show"] => show(None),
        ["show", file] => show(Some(Path::new(file))),
        ["explain"] => crate::say(&list()),
        ["explain", key] => explain(key),
        ["init"] => crate::say(&sample()),
        [] | ["help" | "-h" | "--help"] => crate::say(USAGE),
        other => crate::fail(&format!(
            "menes config: cannot make sense of {:?}\n\n{USAGE}",
            other.join(" ")
        )),
    }
}

fn read(file: &Path) -> Result<Settings, String> {
    let mut settings = Settings::default();
    load(file, &mut settings).map_err(|error: LoadError| error.explained())?;
    settings
        .validate()
        .map_err(|error| format!("error: {error}\n  {}\n", file.display()))?;
    Ok(settings)
}

fn check(file: &Path) -> ExitCode {
    match read(file) {
        Ok(settings) => {
            for warning in &settings.warnings {
                eprintln!("warning: {warning}");
            }
            let digest = settings.config_digest.as_deref().unwrap_or_default();
            crate::say(&format!("{} is valid ({digest})\n", file.display()))
        }
        Err(error) => crate::fail(error.trim_end()),
    }
}

fn show(file: Option<&Path>) -> ExitCode {
    if let Some(file) = file
        && let Err(error) = read(file)
    {
        return crate::fail(error.trim_end());
    }
    let values = match shown::values(file) {
        Ok(values) => values,
        Err(error) => return crate::fail(&error),
    };
    let width = |pick: fn(&shown::Value) -> &str| {
        let lengths = values.iter().map(|value| pick(value).chars().count());
        lengths.max().unwrap_or(0).min(40)
    };
    let (keys, texts) = (width(|value| &value.key), width(|value| &value.text));
    let mut text = String::new();
    for value in &values {
        let origin = match &value.origin {
            Origin::Default => "default".to_owned(),
            Origin::File(place) => place.to_string(),
        };
        put(
            &mut text,
            format_args!("{:keys$}  {:texts$}  {origin}\n", value.key, value.text),
        );
    }
    crate::say(&text)
}

fn explain(key: &str) -> ExitCode {
    let found = reference::find(key);
    if found.is_empty() {
        let hint = reference::closest(key)
            .map(|known| format!("; did you mean {known:?}?"))
            .unwrap_or_default();
        return crate::fail(&format!(
            "no key is called {key:?}{hint}\n`menes config explain` lists them all"
        ));
    }
    let mut text = String::new();
    for entry in found {
        put(&mut text, format_args!("{}\n", described(entry)));
    }
    crate::say(&text)
}

fn described(entry: &Entry) -> String {
    let mut text = format!("{}\n  {}\n", entry.key, entry.about);
    put(&mut text, format_args!("  value    {}\n", entry.value));
    put(&mut text, format_args!("  default  {}\n", entry.default));
    let reload = if entry.reloads {
        "takes effect"
    } else {
        "needs a restart"
    };
    put(&mut text, format_args!("  reload   {reload}\n"));
    if !entry.aliases.is_empty() {
        put(
            &mut text,
            format_args!("  also     {}\n", entry.aliases.join(", ")),
        );
    }
    text
}

fn list() -> String {
    let width = reference::ENTRIES.iter().map(|entry| entry.key.len());
    let width = width.max().unwrap_or(0);
    let mut text = String::new();
    for entry in reference::ENTRIES {
        put(
            &mut text,
            format_args!("{:width$}  {}\n", entry.key, entry.about),
        );
    }
    text
}

/// Everything commented out, so that it changes nothing as it stands.
fn sample() -> String {
    let mut text = "# What can be told to the server; as it stands, nothing is.\n".to_owned();
    let sections = ["", "tls", "websocket", "jetstream", "authorization"];
    for section in sections {
        if !section.is_empty() {
            put(&mut text, format_args!("\n# {section} {{\n"));
        }
        for entry in reference::ENTRIES {
            let (own_section, own) = entry.key.rsplit_once('.').unwrap_or(("", entry.key));
            let is_section = sections.contains(&own) && own_section.is_empty();
            if own_section != section || is_section || entry.about.starts_with("Not supported") {
                continue;
            }
            let indent = if section.is_empty() { "" } else { "  " };
            put(
                &mut text,
                format_args!(
                    "# {indent}{own}:    # {} ({}; default {})\n",
                    entry.about, entry.value, entry.default
                ),
            );
        }
        if !section.is_empty() {
            text.push_str("# }\n");
        }
    }
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_a_valid_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.conf");
        std::fs::write(&file, sample()).expect("written");
        read(&file).expect("valid");
        assert!(sample().contains("# tls {\n#   cert_file:"));
    }

    #[test]
    fn every_key_is_listed_and_described() {
        let all = list();
        for entry in reference::ENTRIES {
            assert!(all.contains(entry.key));
            assert!(described(entry).contains(entry.about));
        }
    }
}
