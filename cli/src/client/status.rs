//! `menes status`: what there is, and what needs attention.

use menes_stations::units::{show_bytes, show_count};
use serde_json::{Value, json};

use super::Outcome;
use super::output::{Output, cell};
use super::server::Server;

/// Stations that are looked at closely.
const MAX_STATIONS: u64 = 1_000;
/// Messages that a group with members may be behind.
const MUCH_LAG: u64 = 1_000;
/// Dead letters that are counted of one station.
const MAX_COUNTED: usize = 256;

pub(super) async fn run(server: &Server, output: &Output) -> Outcome {
    let mut status = server.ask("STATUS", json!({})).await?;
    let list = json!({"figures": true, "limit": MAX_STATIONS});
    let list = server.ask("STATION.LIST", list).await?;
    let stations = list["stations"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let sum = |key: &str| -> u64 {
        let figures = stations
            .iter()
            .filter_map(|one| one["figures"][key].as_u64());
        figures.sum()
    };
    status["messages"] = sum("messages").into();
    status["bytes"] = sum("bytes").into();
    status["server"] = server.client.server_info().server_name.into();
    let mut attention = Vec::new();
    for station in stations {
        if station["groups"]
            .as_array()
            .is_some_and(|groups| !groups.is_empty())
        {
            slow_groups(server, station, &mut attention).await?;
        }
        if station["figures"]["has_dead_letters"] == true {
            letters(server, station, &mut attention).await?;
        }
    }
    status["needs_attention"] = attention.into();
    if output.is_document() {
        return output.document(&status);
    }
    show(output, &status)
}

async fn slow_groups(server: &Server, station: &Value, attention: &mut Vec<Value>) -> Outcome {
    let name = cell(&station["name"]);
    let list = server.ask("GROUP.LIST", json!({"station": name})).await?;
    for group in list["groups"].as_array().into_iter().flatten() {
        let lag = group["lag"].as_u64().unwrap_or(0);
        let members = group["members"].as_array().into_iter().flatten();
        let members = members.filter(|member| member["is_active"] == true).count();
        let is_paused = group["is_paused"] == true;
        let is_slow = lag > 0 && (members == 0 || is_paused || lag >= MUCH_LAG);
        if !is_slow {
            continue;
        }
        let why = match (is_paused, members) {
            (true, _) => ", paused",
            (_, 0) => ", no members",
            _ => "",
        };
        let who = cell(&group["group"]);
        attention.push(json!({
            "what": "group",
            "name": format!("{name}/{who}"),
            "says": format!("lag {}{why}", show_count(lag)),
            "lag": lag,
            "command": format!("menes group show {name} {who}"),
        }));
    }
    Ok(())
}

async fn letters(server: &Server, station: &Value, attention: &mut Vec<Value>) -> Outcome {
    let name = cell(&station["name"]);
    let body = json!({"station": name, "limit": MAX_COUNTED});
    let list = server.ask("DEAD_LETTER.LIST", body).await?;
    let count = list["dead_letters"].as_array().map_or(0, Vec::len);
    let more = if list["next"].is_null() {
        ""
    } else {
        " or more"
    };
    let plural = if count == 1 { "" } else { "s" };
    attention.push(json!({
        "what": "letters",
        "name": name,
        "says": format!("{count}{more} dead letter{plural}"),
        "count": count,
        "command": format!("menes dls ls {name}"),
    }));
    Ok(())
}

fn show(output: &Output, status: &Value) -> Outcome {
    let count = |key: &str| status[key].as_u64().unwrap_or(0);
    let many = |key: &str, one: &str| {
        let count = count(key);
        format!(
            "{} {one}{}",
            show_count(count),
            if count == 1 { "" } else { "s" }
        )
    };
    output.line(&format!(
        "1 node, up · {} · version {}",
        cell(&status["server"]),
        env!("CARGO_PKG_VERSION")
    ))?;
    output.line(&format!(
        "{}, {} · {}, {} · {} · {} · {} · {}",
        many("stations", "station"),
        many("partitions", "partition"),
        many("messages", "message"),
        show_bytes(count("bytes")),
        many("producers", "producer"),
        many("groups", "group"),
        many("members", "member"),
        many("dead_letters", "dead letter"),
    ))?;
    output.line("")?;
    let attention = status["needs_attention"].as_array();
    let attention = attention.map(Vec::as_slice).unwrap_or_default();
    if attention.is_empty() {
        return output.line("nothing needs attention");
    }
    output.line("needs attention")?;
    let width = |key: &str, least: usize| {
        let widths = attention.iter().map(|one| cell(&one[key]).chars().count());
        widths.max().unwrap_or(0).max(least)
    };
    let (names, says) = (width("name", 18), width("says", 30));
    for one in attention {
        output.line(&format!(
            "  {:7}  {:names$}  {:says$}  {}",
            cell(&one["what"]),
            cell(&one["name"]),
            cell(&one["says"]),
            cell(&one["command"]),
        ))?;
    }
    Ok(())
}
