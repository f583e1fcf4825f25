//! `mem`: the commands of Memphis's own tools, in ours.
//!
//! The old tool managed stations and users, the newer one measured. What the old one knew is
//! translated; everything else `menes` knows works under this name as well.

/// What a command of `mem` is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A command of `menes`.
    Ours(Vec<String>),
    /// Keep where the server is and as whom to log in.
    Connect {
        /// As it was given.
        server: String,
        user: String,
        password: String,
    },
    /// The text that says what to do instead.
    Gone(&'static str),
}

/// Port of the clients of Memphis.
const PORT: u16 = 6666;

/// What `mem` with these arguments means.
///
/// # Errors
/// For people: something is missing.
pub(super) fn meaning(arguments: &[String]) -> Result<Meaning, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ours =
        |words: &[&str]| Meaning::Ours(words.iter().map(|word| (*word).to_owned()).collect());
    Ok(match words.as_slice() {
        ["connect", rest @ ..] => {
            let options = options(rest, &["-u --user", "-p --password", "-s --server"])?;
            let needed = |index: usize, name: &str| {
                options.values[index]
                    .clone()
                    .ok_or_else(|| format!("mem connect needs {name}"))
            };
            Meaning::Connect {
                user: needed(0, "-u USER")?,
                password: needed(1, "-p PASSWORD")?,
                server: needed(2, "-s SERVER")?,
            }
        }
        ["station", "create", rest @ ..] => station(rest)?,
        ["station", "info", rest @ ..] => ours(&[&["station", "show"], rest].concat()),
        ["station", "del", rest @ ..] => ours(&[&["station", "rm", "--yes"], rest].concat()),
        ["user", "add", rest @ ..] => {
            let options = options(
                rest,
                &["-u --username --user", "-p --password", "-t --type"],
            )?;
            let user = options.values[0]
                .as_deref()
                .or_else(|| options.rest.first().map(String::as_str));
            let user = user.ok_or("mem user add needs -u USER")?;
            let kind = options.values[2].as_deref().unwrap_or("management");
            let mut words = vec!["user", "create", user, "--type", kind];
            if let Some(password) = options.values[1].as_deref() {
                words.extend(["--new-password", password]);
            }
            ours(&words)
        }
        ["user", "del", rest @ ..] => ours(&[&["user", "rm", "--yes"], rest].concat()),
        ["producer", "ls", rest @ ..] => of_station(["station", "producers"], rest)?,
        ["consumer", "ls", rest @ ..] => of_station(["group", "members"], rest)?,
        ["cluster", "info", ..] => ours(&["status"]),
        ["init", ..] => Meaning::Gone(
            "mem init is gone: the SDKs are unchanged, and their README has an example to begin with",
        ),
        ["function" | "func", ..] => Meaning::Gone("there are no functions here"),
        ["bench" | "benchmark", "producer" | "produce", rest @ ..] => bench("produce", rest)?,
        ["bench" | "benchmark", "consumer" | "consume", rest @ ..] => bench("consume", rest)?,
        _ => Meaning::Ours(arguments.to_vec()),
    })
}

/// Options that take a value, and what else there is.
struct Options {
    values: Vec<Option<String>>,
    rest: Vec<String>,
}

fn options(words: &[&str], known: &[&str]) -> Result<Options, String> {
    let mut values = vec![None; known.len()];
    let mut rest = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, joined) = match word.split_once('=') {
            Some((name, value)) if name.starts_with('-') => (name, Some(value.to_owned())),
            _ => (*word, None),
        };
        let index = known
            .iter()
            .position(|names| names.split(' ').any(|one| one == name));
        match index {
            None => rest.push((*word).to_owned()),
            Some(index) => {
                let value = joined.or_else(|| words.next().map(|value| (*value).to_owned()));
                values[index] = Some(value.ok_or_else(|| format!("{name} needs a value"))?);
            }
        }
    }
    Ok(Options { values, rest })
}

/// `mem station create`.
fn station(words: &[&str]) -> Result<Meaning, String> {
    let options = options(
        words,
        &[
            "-rt --retentiontype",
            "-rv --retentionvalue",
            "-s --storage",
            "-r --replicas",
            "-ipw --idempotency",
            "-pmdls --poisontodls",
            "-sfdls --schemafailtodls",
        ],
    )?;
    let value = |index: usize| options.values[index].as_deref();
    let mut made = vec!["station".to_owned(), "create".to_owned()];
    let mut add = |flag: &str, value: &str| made.extend([flag.to_owned(), value.to_owned()]);
    let amount = value(1).unwrap_or("604800");
    match value(0).unwrap_or("time") {
        "time" | "message_age_sec" => add("--max-age", amount),
        "messages" => add("--max-messages", amount),
        "bytes" => add("--max-bytes", amount),
        other => return Err(format!("retention type {other:?}: time, messages or bytes")),
    }
    match value(2).unwrap_or("disk") {
        "disk" | "file" => add("--storage", "file"),
        "memory" => add("--storage", "memory"),
        other => return Err(format!("storage {other:?}: disk or memory")),
    }
    for (index, flag) in [
        (3, "--replicas"),
        (4, "--id-window"),
        (5, "--keep-poison"),
        (6, "--keep-violations"),
    ] {
        if let Some(value) = value(index) {
            // The window is in milliseconds there.
            let value = if index == 4 {
                format!("{value}ms")
            } else {
                value.to_owned()
            };
            add(flag, &value);
        }
    }
    made.extend(options.rest);
    Ok(Meaning::Ours(made))
}

/// `mem bench`: on a station of its own, which goes afterwards, so the names that the old tool took
/// say nothing here.
fn bench(what: &str, words: &[&str]) -> Result<Meaning, String> {
    let is_sync = words.contains(&"--sync-produce");
    let words: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| *word != "--sync-produce")
        .collect();
    let options = options(
        &words,
        &[
            "--message-size",
            "--count",
            "--concurrency",
            "--host",
            "--user",
            "--password",
            "--account-id",
            "--station",
            "--partition-key",
            "--partition-number",
            "--producer-name",
            "--consumer-name",
            "--group",
            "--batch-size",
            "--batch-max-wait-time",
        ],
    )?;
    let value = |index: usize| options.values[index].as_deref();
    let mut made = vec!["bench".to_owned(), what.to_owned()];
    let mut add = |flag: &str, value: &str| made.extend([flag.to_owned(), value.to_owned()]);
    add("--size", value(0).unwrap_or("128"));
    add("--count", value(1).unwrap_or("1"));
    add("--clients", value(2).unwrap_or("1"));
    if is_sync {
        add("--in-flight", "1");
    }
    if let Some(host) = value(3) {
        add("--server", &url(host));
    }
    if let Some(user) = value(4) {
        let user = match value(6).filter(|id| *id != "1") {
            Some(id) => format!("{user}${id}"),
            None => user.to_owned(),
        };
        add("--user", &user);
    }
    if let Some(password) = value(5) {
        add("--password", password);
    }
    made.extend(options.rest);
    Ok(Meaning::Ours(made))
}

/// A list of what a station has, or every station.
fn of_station(command: [&str; 2], words: &[&str]) -> Result<Meaning, String> {
    // Whether they are connected is a column here.
    let words: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| !["--connected", "--disconnected", "--deleted"].contains(word))
        .collect();
    let options = options(&words, &["-s --station"])?;
    let mut made = command.map(str::to_owned).to_vec();
    made.extend(options.values.into_iter().flatten());
    made.extend(options.rest);
    Ok(Meaning::Ours(made))
}

/// Where the clients' port of a server is that was given as Memphis's tool took it: a host, or the
/// URL of its management.
pub(super) fn url(server: &str) -> String {
    let (scheme, rest) = server.split_once("://").unwrap_or(("", server));
    let rest = rest.trim_end_matches('/');
    if scheme == "nats" || scheme == "tls" {
        return server.to_owned();
    }
    // The port of the management is not the one of clients.
    let host = match rest.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.ends_with(':') => host,
        _ => rest,
    };
    let scheme = if scheme == "https" { "tls" } else { "nats" };
    format!("{scheme}://{host}:{PORT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(text: &str) -> String {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        match meaning(&words) {
            Ok(Meaning::Ours(words)) => words.join(" "),
            Ok(other) => format!("{other:?}"),
            Err(text) => format!("error: {text}"),
        }
    }

    #[test]
    fn the_old_commands_are_ours() {
        for (old, new) in [
            ("station ls", "station ls"),
            ("station info a", "station show a"),
            ("station del a", "station rm --yes a"),
            (
                "station create a",
                "station create --max-age 604800 --storage file a",
            ),
            (
                "station create a -rt messages -rv 10 -s memory -r 1 -ipw 5000 -pmdls true --schemafailtodls=false",
                "station create --max-messages 10 --storage memory --replicas 1 --id-window 5000ms --keep-poison true --keep-violations false a",
            ),
            (
                "user add -u a -p b -t application",
                "user create a --type application --new-password b",
            ),
            ("user del a", "user rm --yes a"),
            ("producer ls -s a --connected", "station producers a"),
            ("consumer ls --station=a -o json", "group members a -o json"),
            ("cluster info", "status"),
            ("dls ls a", "dls ls a"),
            (
                "station create a -rt odd",
                "error: retention type \"odd\": time, messages or bytes",
            ),
            ("producer ls", "station producers"),
            (
                "bench producer --message-size 1024 --count=5 --concurrency 2 --sync-produce --station x --host h --user u --password p --account-id 2",
                "bench produce --size 1024 --count 5 --clients 2 --in-flight 1 --server nats://h:6666 --user u$2 --password p",
            ),
            (
                "benchmark consume --batch-size 10",
                "bench consume --size 128 --count 1 --clients 1",
            ),
            ("connect -u a", "error: mem connect needs -p PASSWORD"),
        ] {
            assert_eq!(meant(old), new, "{old}");
        }
        assert!(meant("init").contains("gone"));
        let words = ["connect", "-u", "a", "-p", "b", "-s", "h"].map(str::to_owned);
        assert!(matches!(meaning(&words), Ok(Meaning::Connect { .. })));
    }

    #[test]
    fn a_server_is_where_its_clients_are() {
        for (given, meant) in [
            ("localhost", "nats://localhost:6666"),
            ("http://localhost:9000", "nats://localhost:6666"),
            ("https://memphis.example/", "tls://memphis.example:6666"),
            ("nats://a:4222", "nats://a:4222"),
            ("[::1]:9000", "nats://[::1]:6666"),
        ] {
            assert_eq!(url(given), meant);
        }
    }
}
