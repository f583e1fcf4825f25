//! How much there is of everything.

use serde_json::json;

use super::{Turn, course};
use crate::dead_letter::STREAM;
use crate::group::GroupStatus;
use crate::sdk::Opened;
use crate::task::{Plan, Step, StepResult};

pub(super) fn open() -> Opened {
    let mut turn = 0;
    let mut dead_letters = 0;
    course(Vec::new(), move |cx, results| {
        turn += 1;
        let mut plan = Plan::default();
        match (turn, results.first()) {
            (1, _) => plan.step(Step::CountStreams(vec![STREAM.to_owned()])),
            (2, Some(StepResult::Sequence(1))) => plan.step(Step::QueryStream(STREAM.to_owned())),
            (_, last) => {
                if let Some(StepResult::Stream(state)) = last {
                    dead_letters = state.messages;
                }
                let entries = cx.state.stations(cx.account);
                let ready: Vec<_> = entries.filter(|entry| entry.station.is_ready()).collect();
                let groups = ready.iter().flat_map(|entry| entry.groups());
                let groups: Vec<_> = groups
                    .filter(|group| group.group.status == GroupStatus::Ready)
                    .collect();
                let is_open = |id: &str| cx.presence.is_open(cx.account, id);
                let members = groups.iter().flat_map(|group| group.members());
                let producers = ready.iter().flat_map(|entry| entry.producers());
                return Ok(Turn::Done(json!({
                    "stations": ready.len(),
                    "partitions": ready.iter().map(|entry| entry.station.partitions).sum::<u32>(),
                    "groups": groups.len(),
                    "members": members.filter(|member| is_open(&member.connection)).count(),
                    "producers": producers.filter(|one| is_open(&one.connection)).count(),
                    "schemas": cx.state.schemas(cx.account).count(),
                    "dead_letters": dead_letters,
                })));
            }
        }
        Ok(Turn::Run(plan))
    })
}
