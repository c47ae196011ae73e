//! The sync as a model: up to five checkouts over one history, random schedules, and what must hold at rest ([`oracle`]).
//!
//! ```text
//!   seed ─▶ schedule ─▶ World: writers (`writers`) ║ arrows of the sync (`sync`) ─▶ rest ─▶ check ─▶ shrink (`run`)
//! ```
//! Real are the plan, the record with its codec, the text algorithms and the state machine. The file system, the hints, the
//! network and the order of things are the model's. [`faults`] plants faults that it must find; [`small`] goes through all
//! schedules of a small world instead of random ones of a large one.
//!
//! ```text
//!   ZYFLOW_MODEL_SCHEDULES=1000000 ZYFLOW_MODEL_SEED=1 cargo test --release -p zyflow-checkout --lib model::random -- --nocapture
//! ```
//! A failure prints the shortest schedule that breaks the same invariant, and how to run it alone; it belongs into [`regressions`].

mod disk;
mod faults;
mod oracle;
mod regressions;
mod run;
mod script;
mod small;
mod sync;
mod writers;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use zyflow_machine::id::{RequestId, SessionId};
use zyflow_machine::outcome::Outcome;
use zyflow_spec::{Encoding, encode};

use self::disk::{Disk, Handle};
use self::faults::Plant;

use self::script::{Action, Edit, Schedule, Style, Verb};
use self::sync::Volatile;
use super::*;
use crate::base::{Record, codec_for_tests};
use crate::testing::Ledger;

const PATH: &str = "tasks.md";

/// One checkout.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one checkout")]
#[derive(Clone)]
struct Copy {
    disk: Disk,
    /// How its file is written where there is none to look at.
    habit: Encoding,
    /// What a writer has read.
    buffer: String,
    /// Another writer, that holds a file open.
    handle: Option<Handle>,
    crossing: Option<Edit>,
    stored: Vec<u8>,
    /// Every state that was stored, oldest first.
    states: Vec<Vec<u8>>,
    record: Record,
    /// Texts of the file that were looked at: an older one that never was is a save like any other.
    looked_at: BTreeSet<String>,
    abandoned: Option<String>,
    is_fresh: bool,
    /// It was in agreement since the last start.
    is_watched: bool,
    is_due: bool,
    is_muted: bool,
    is_overflowed: bool,
    is_grace: bool,
    is_confirmed: bool,
    /// HEAD moved since the last look.
    is_head_moved: bool,
    /// It ever did.
    has_jumped: bool,
    origin: Origin,
    applied: Revision,
    wait: Revision,
    session: Option<SessionId>,
    /// When that session was opened.
    opened: Revision,
    next: u64,
    /// Requests that were sent, newest last.
    sent: Vec<(RequestId, Body)>,
    volatile: Volatile,
}

/// Everything.
#[derive(Clone)]
struct World {
    ledger: Ledger,
    project: RecordId,
    /// The first change.
    change: RecordId,
    copies: Vec<Copy>,
    style: Style,
    plant: Option<Plant>,
    noise: u64,
    first_tokens: u64,
    /// For each later token the checkout whose writer made it.
    owners: Vec<(usize, writers::Hand)>,
    /// Tokens that somebody who had seen them took away.
    deleted: BTreeSet<u64>,
    /// Tokens whose lines somebody changed.
    touched: BTreeSet<u64>,
    /// Tokens that the cluster has or had.
    accepted: BTreeSet<u64>,
    /// Tokens of edits whose fate a checkout doesn't know: its session expired unanswered, or its state is an old one.
    doubtful: BTreeSet<u64>,
    proposals: usize,
    writes: usize,
}

/// Whether the shortest failing schedule is being told step by step.
static IS_TOLD: AtomicBool = AtomicBool::new(false);

fn trace(what: impl FnOnce() -> String) {
    if IS_TOLD.load(Ordering::Relaxed) {
        eprintln!("{}", what());
    }
}

fn created(outcome: &Outcome) -> &[RecordId] {
    match outcome {
        Outcome::Accepted { created, .. } => created,
        other => panic!("not accepted: {other:?}"),
    }
}

impl World {
    fn new(schedule: &Schedule, plant: Option<Plant>) -> Self {
        let mut ledger = Ledger::default();
        let body = Body::CreateProject { name: "p".to_owned(), files: vec![PATH.to_owned()] };
        let project = created(&ledger.apply(None, body, "t"))[0];
        let (text, first_tokens) = writers::first_text(schedule.style);
        let blocks = parse(&text).blocks.iter().map(new_block).collect();
        let body = Body::CreateChange { project, path: PATH.to_owned(), blocks, ops: Vec::new() };
        let change = created(&ledger.apply(None, body, "t"))[0];
        let applied = ledger.revision();
        let copies = (0..schedule.copies).map(|at| {
            let habit = writers::encoding(schedule.noise >> (8 * at));
            let mut disk = Disk::default();
            let inode = disk.make(encode(&text, habit), 0);
            disk.put(inode);
            let record = Record::new(PATH);
            Copy {
                disk,
                habit,
                buffer: text.clone(),
                handle: None,
                crossing: None,
                stored: codec_for_tests::encode(&record),
                states: Vec::new(),
                record,
                looked_at: BTreeSet::new(),
                abandoned: None,
                is_fresh: false,
                is_watched: false,
                is_due: true,
                is_muted: false,
                is_overflowed: false,
                is_grace: false,
                is_confirmed: false,
                is_head_moved: false,
                has_jumped: false,
                origin: Origin::Saved,
                applied,
                wait: Revision(0),
                session: None,
                opened: Revision(0),
                next: 1,
                sent: Vec::new(),
                volatile: Volatile::Idle,
            }
        });
        Self {
            copies: copies.collect(),
            ledger,
            project,
            change,
            style: schedule.style,
            plant,
            noise: schedule.noise,
            first_tokens,
            owners: Vec::new(),
            deleted: BTreeSet::new(),
            touched: BTreeSet::new(),
            accepted: (0..first_tokens).collect(),
            doubtful: BTreeSet::new(),
            proposals: 0,
            writes: 0,
        }
    }

    fn act(&mut self, action: &Action) {
        trace(|| format!("> {action}"));
        self.act_of(action.copy % self.copies.len(), action.verb);
    }

    fn act_of(&mut self, at: usize, verb: Verb) {
        match verb {
            Verb::Save(_)
            | Verb::Stale(_)
            | Verb::Cross(_)
            | Verb::Open
            | Verb::Truncate
            | Verb::Held(_)
            | Verb::Remove
            | Verb::Revert(_)
            | Verb::Restore(_)
            | Verb::Jump(_) => self.write_of(at, verb),
            _ => self.sync_of(at, verb),
        }
    }

    /// A number that means nothing: a clock that jumps (F11).
    fn noise(&mut self) -> u64 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.noise >> 33
    }
}

fn number_of(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().unwrap())
}

/// A few thousand schedules take some seconds in the dev profile.
const SCHEDULES: u64 = 3_000;

/// Failing schedules after which a long run stops.
const ENOUGH: usize = 20;

#[test]
fn random_schedules_break_no_invariant() {
    let count = number_of("ZYFLOW_MODEL_SCHEDULES", SCHEDULES);
    let first = number_of("ZYFLOW_MODEL_SEED", 1);
    let begin = Instant::now();
    let failed = run::search(first, count, None, ENOUGH);
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("{count} schedules from seed {first} in {seconds:.1} s, {} violations {failed:?}", failed.len());
    if let Some(seed) = failed.first() {
        let (least, violation) = run::shrink(&run::schedule(*seed), None);
        if std::env::var_os("ZYFLOW_TRACE").is_some() {
            IS_TOLD.store(true, Ordering::Relaxed);
            run::run(&least, None).unwrap_err();
        }
        panic!(
            "ZYFLOW_MODEL_SEED={seed} ZYFLOW_MODEL_SCHEDULES=1 breaks {violation}\n\
             the shortest that does (ZYFLOW_TRACE=1 tells it step by step):\n{least}"
        );
    }
}
