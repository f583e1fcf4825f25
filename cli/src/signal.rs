//! `--signal`: tell a running server what to do.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Sends the signal named in `text`, `NAME` or `NAME=PID` or `NAME=FILE`.
///
/// # Errors
/// For people: the signal is unknown, or the process is.
pub(crate) fn send(text: &str) -> Result<(), String> {
    let (name, target) = match text.split_once('=') {
        Some((name, target)) => (name, Some(target)),
        None => (text, None),
    };
    let signal = match name {
        "stop" => Signal::KILL,
        "quit" => Signal::INT,
        "term" => Signal::TERM,
        "reopen" => Signal::USR1,
        "ldm" => Signal::USR2,
        "reload" => Signal::HUP,
        other => return Err(format!("unknown signal {other:?}")),
    };
    let pid = match target {
        Some(target) => pid_of(target)?,
        None => the_only_server()?,
    };
    let pid = Pid::from_raw(pid).ok_or_else(|| format!("{pid} is no process id"))?;
    kill_process(pid, signal).map_err(|error| format!("signal {name:?} cannot be sent: {error}"))
}

fn pid_of(target: &str) -> Result<i32, String> {
    if let Ok(pid) = target.parse() {
        return Ok(pid);
    }
    let text = fs::read_to_string(target)
        .map_err(|error| format!("the pid file {target} cannot be read: {error}"))?;
    text.trim()
        .parse()
        .map_err(|_| format!("the pid file {target} holds no process id"))
}

/// The process id of the one server that runs under the name it is known by.
fn the_only_server() -> Result<i32, String> {
    let mut found = Vec::new();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for entry in fs::read_dir("/proc")
        .map_err(|error| error.to_string())?
        .flatten()
    {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if pid != own && matches!(name.trim(), "nats-server" | "menes") {
            found.push(pid);
        }
    }
    match found.as_slice() {
        [pid] => Ok(*pid),
        [] => Err("no nats-server processes running".to_owned()),
        many => {
            let list: Vec<String> = many.iter().map(ToString::to_string).collect();
            Err(format!(
                "multiple nats-server processes running:\n{}",
                list.join("\n")
            ))
        }
    }
}
