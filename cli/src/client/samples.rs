//! Messages to look at: of a station, or from files.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::messages::content;
use super::server::Server;
use super::{Outcome, Trouble};

/// Messages asked for at a time.
const PAGE: usize = 100;
/// Bytes of a payload that come with a list; of a larger one is asked by itself.
const PREVIEW: usize = 64 * 1024;

/// A message and where it is from, for people.
pub(super) struct Sample {
    pub(super) from: String,
    pub(super) payload: Vec<u8>,
}

/// Texts, `@FILE`s, or `-` for standard input; of those that hold lines of JSON, each is one.
pub(super) fn given(arguments: &[String]) -> Outcome<Vec<Sample>> {
    let mut samples = Vec::new();
    for (argument, number) in arguments.iter().zip(1..) {
        let bytes = content(argument)?;
        let from = match argument.strip_prefix('@') {
            Some(path) => path.to_owned(),
            None => format!("message {number}"),
        };
        let lines: Vec<&[u8]> = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
            .collect();
        let is_json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).is_ok();
        if lines.len() > 1 && !is_json(&bytes) && lines.iter().all(|line| is_json(line)) {
            samples.extend(lines.iter().zip(1..).map(|(line, at)| Sample {
                from: format!("{from}, line {at}"),
                payload: line.to_vec(),
            }));
        } else {
            samples.push(Sample {
                from,
                payload: bytes,
            });
        }
    }
    Ok(samples)
}

/// The newest messages of a station, at most so many.
pub(super) async fn newest(server: &Server, station: &str, most: usize) -> Outcome<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut after = Value::from("");
    while samples.len() < most {
        let body = json!({
            "station": station, "newest_first": true, "after": after, "payload_bytes": PREVIEW,
            "limit": PAGE.min(most - samples.len()),
        });
        let mut page = server.ask("MESSAGE.LIST", body).await?;
        for message in page["messages"].as_array().into_iter().flatten() {
            samples.push(sample(server, station, message).await?);
        }
        after = page["next"].take();
        if after.is_null() {
            break;
        }
    }
    Ok(samples)
}

async fn sample(server: &Server, station: &str, message: &Value) -> Outcome<Sample> {
    let (partition, sequence) = (&message["partition"], &message["sequence"]);
    let whole = if message["is_cut"] == true {
        let body = json!({"station": station, "partition": partition, "sequence": sequence});
        Some(server.ask("MESSAGE.GET", body).await?)
    } else {
        None
    };
    let text = whole.as_ref().unwrap_or(message)["payload"].as_str();
    let payload = BASE64.decode(text.unwrap_or_default().as_bytes());
    Ok(Sample {
        from: format!("partition {partition} #{sequence}"),
        payload: payload.map_err(|error| Trouble::Failed(format!("payload: {error}")))?,
    })
}
