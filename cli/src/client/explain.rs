//! `menes explain`.

use menes_broker::codes::{self, CODES};
use serde_json::{Value, json};

use super::output::Output;
use super::{Outcome, Trouble};

/// Says what a code means, or lists all of them.
pub(super) fn run(output: &Output, code: Option<&str>) -> Outcome {
    let Some(code) = code else {
        let all: Vec<Value> = CODES
            .iter()
            .map(|known| json!({"code": known.code, "what": known.what}))
            .collect();
        return output.table(&all.into(), &["CODE", "WHAT HAPPENED"], |known| {
            vec![
                super::output::cell(&known["code"]),
                super::output::cell(&known["what"]),
            ]
        });
    };
    let Some(known) = codes::find(code) else {
        return Err(Trouble::NotFound(format!(
            "code {code} does not exist; menes explain lists all of them"
        )));
    };
    if output.is_document() {
        return output.document(&json!({
            "code": known.code,
            "what": known.what,
            "cause": known.cause,
            "fix": known.fix,
        }));
    }
    output.line(&format!("{}: {}", known.code, known.what))?;
    output.line(&format!("  why: {}", known.cause))?;
    output.line(&format!("  fix: {}", known.fix))
}
