//! Faults that are planted to see that the model finds them. Two stand in the plan's place (who wins by time, and the stale save);
//! the other three would live in the engine's watcher and writer, so they are planted in the model's arrows, which mirror those.

use zyflow_machine::command::{Body, EditMode};
use zyflow_spec::{diff, parse};

use super::*;
use crate::text::block_op;

/// What is done wrongly on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plant {
    /// The newer of file and cluster wins, by the file's time.
    ResolveByMtime,
    /// A queue of hints that overflowed causes no scan.
    NoRescanOnOverflow,
    /// What comes out of the swap isn't compared with what was scanned.
    WriteWithoutSwapCheck,
    /// A save is read against the newest text, whatever buffer it came from.
    StaleAgainstNewest,
    /// A replaced file is deleted although a writer may hold it open.
    DisplacedDeletedAtOnce,
}

const PLANTS: [Plant; 5] = [
    Plant::ResolveByMtime,
    Plant::NoRescanOnOverflow,
    Plant::WriteWithoutSwapCheck,
    Plant::StaleAgainstNewest,
    Plant::DisplacedDeletedAtOnce,
];

/// The plan, or what stands in its place.
pub(super) fn decide(plant: Option<Plant>, input: &Input<'_>, mtime: Option<u64>) -> Step {
    match (plant, input.agreed) {
        (Some(Plant::StaleAgainstNewest), Some((change, shown))) => {
            plan(&Input { agreed: Some((change, &shown[shown.len() - 1..])), ..*input })
        }
        (Some(Plant::ResolveByMtime), Some((_, shown))) => {
            by_mtime(input, &shown[shown.len() - 1].text, mtime).unwrap_or_else(|| plan(input))
        }
        _ => plan(input),
    }
}

/// Where both sides changed, the file's text replaces the cluster's or the other way round.
fn by_mtime(input: &Input<'_>, base: &KnownText, mtime: Option<u64>) -> Option<Step> {
    let (Some(local), Side::Live { change, text }) = (input.local, input.cluster) else { return None };
    if base.text() == local || base.text() == text.text() || text.text() == local {
        return None;
    }
    if mtime? % 2 == 0 {
        return Some(Step::Write { change: *change, seen: None, text: text.clone() });
    }
    let document = parse(local);
    let ops = diff(&text.blocks, &document).into_iter().map(block_op).collect();
    let body = Body::Edit { change: *change, base: text.revision, mode: EditMode::Merge, ops, conflicts: Vec::new() };
    let ids = align(&text.blocks, &document);
    Some(Step::Propose(Box::new(Proposal { body, text: Some(local.to_owned()), ids, start: None })))
}

/// Schedules within which each must be found.
const SCHEDULES: u64 = 2_000;

#[test]
fn every_planted_fault_is_caught() {
    for plant in PLANTS {
        let caught = run::search(1, SCHEDULES, Some(plant), 1);
        let seed = *caught.first().unwrap_or_else(|| panic!("{plant:?} is not caught in {SCHEDULES} schedules"));
        let (least, violation) = run::shrink(&run::schedule(seed), Some(plant));
        let kind = violation.split(':').next().unwrap_or_default().to_owned();
        let length = least.actions.len();
        eprintln!("{plant:?} breaks {kind} in schedule {seed}, at its shortest in {length} actions");
        assert_eq!(run::search(1, seed, None, 1), [0; 0], "without {plant:?} the same schedules are clean");
        run::run(&least, None).unwrap_or_else(|violation| panic!("without {plant:?} its shortest breaks {violation}"));
    }
}
