//! Random schedules of up to three checkouts over one history: writers with fresh and stale buffers, late deliveries, crashes
//! between any two arrows, saves that cross our write. At rest: every token is somewhere, all disks are equal, and nothing moves.
//!
//! Which text a stale buffer was read at is a guess from its contents; where the guess is wrong, the words it takes away are in a
//! conflict (`unseen`), so no schedule loses one. Not solved: after a save that crossed our write, about one schedule in a hundred
//! thousand has a line twice (`ZYFLOW_MODEL_SEED=14 PROPTEST_CASES=5000`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use zyflow_machine::id::{RequestId, SessionId};
use zyflow_machine::outcome::{Outcome, Reject};

use super::*;
use crate::base::{Flight, Intent, Record, codec_for_tests};
use crate::testing::Ledger;

/// Rounds of delivering and stepping within which everything must come to rest.
const ROUNDS_MAX: usize = 120;

#[derive(Clone, Debug)]
enum Action {
    /// A writer changes its buffer and saves it; a fresh one reads the file first.
    Edit { copy: usize, is_fresh: bool, edit: Edit, at: usize },
    /// One arrow of the sync of one checkout.
    Step { copy: usize },
    /// The node of a checkout applies everything.
    Deliver { copy: usize },
    /// A checkout loses all that it didn't store.
    Crash { copy: usize },
    /// The next swap of a checkout is crossed by this save.
    Cross { copy: usize, at: usize },
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Add,
    Tick,
    Reword,
    Delete,
    Move,
}

/// What a step waits for, in memory only.
#[derive(Clone, Debug, Default)]
enum Volatile {
    #[default]
    Idle,
    Flying,
    Answered(Outcome),
    Writing {
        scanned: Option<String>,
        text: KnownText,
    },
}

struct Copy {
    disk: String,
    buffer: String,
    stored: Vec<u8>,
    record: Record,
    kept: Vec<(String, Option<KnownText>)>,
    abandoned: Option<String>,
    is_fresh: bool,
    applied: Revision,
    session: SessionId,
    next: u64,
    volatile: Volatile,
    crossing: Option<usize>,
}

struct World {
    ledger: Arc<Mutex<Ledger>>,
    project: RecordId,
    change: RecordId,
    copies: Vec<Copy>,
    tokens: u64,
    deleted: BTreeSet<String>,
    is_alike: bool,
}

/// Says what happens where `ZYFLOW_TRACE` is set.
fn trace(what: impl FnOnce() -> String) {
    if std::env::var_os("ZYFLOW_TRACE").is_some() {
        eprintln!("{}", what());
    }
}

const WORDS: [&str; 24] = [
    "log", "cut", "power", "read", "back", "vote", "fsync", "check", "merge", "diff", "node", "key", "seal", "open",
    "queue", "batch", "snapshot", "rollback", "index", "leader", "replay", "bench", "watch", "swap",
];

/// A task of a usual length: a word that is added leaves it recognisable. Alike lines differ in the token alone, so that nobody
/// can tell a line that was reworded from one that was deleted beside a new one.
fn line(number: u64, is_alike: bool) -> String {
    if is_alike {
        return format!("- [ ] make t{number} work in the new way that was agreed on");
    }
    let words = [number * 7 + 1, number * 11 + 5, number * 13 + 2, number * 17 + 3, number * 5 + 11];
    let count = u64::try_from(WORDS.len()).unwrap();
    let words = words.map(|word| WORDS[usize::try_from(word % count).unwrap()]);
    format!("- [ ] t{number} {}", words.join(" "))
}

fn created(outcome: &Outcome) -> &[RecordId] {
    match outcome {
        Outcome::Accepted { created, .. } => created,
        other => panic!("not accepted: {other:?}"),
    }
}

impl World {
    fn new(copies: usize, is_alike: bool) -> Self {
        let mut ledger = Ledger::default();
        let body = Body::CreateProject { name: "p".to_owned(), files: vec!["tasks.md".to_owned()] };
        let project = created(&ledger.apply(None, body, "t"))[0];
        let text: String = (0..4).map(|number| line(number, is_alike) + "\n").collect();
        let blocks = parse(&text).blocks.iter().map(new_block).collect();
        let body = Body::CreateChange { project, path: "tasks.md".to_owned(), blocks, ops: Vec::new() };
        let change = created(&ledger.apply(None, body, "t"))[0];
        let copies = (0..copies).map(|_| {
            let session = SessionId(created(&ledger.apply(None, Body::OpenSession, "t"))[0].0);
            let record = Record::new("tasks.md");
            let stored = codec_for_tests::encode(&record);
            Copy {
                disk: text.clone(),
                buffer: text.clone(),
                stored,
                record,
                kept: Vec::new(),
                abandoned: None,
                is_fresh: false,
                applied: Revision(3),
                session,
                next: 1,
                volatile: Volatile::Idle,
                crossing: None,
            }
        });
        let copies = copies.collect();
        Self {
            ledger: Arc::new(Mutex::new(ledger)),
            project,
            change,
            copies,
            tokens: 4,
            deleted: BTreeSet::new(),
            is_alike,
        }
    }

    fn act(&mut self, action: &Action) {
        trace(|| format!("{action:?}"));
        match action {
            Action::Edit { copy, is_fresh, edit, at } => {
                let at_copy = copy % self.copies.len();
                if *is_fresh {
                    self.copies[at_copy].buffer = self.copies[at_copy].disk.clone();
                }
                self.edit(at_copy, *edit, *at);
                self.copies[at_copy].disk = self.copies[at_copy].buffer.clone();
            }
            Action::Step { copy } => self.step(copy % self.copies.len()),
            Action::Deliver { copy } => {
                let at_copy = copy % self.copies.len();
                self.copies[at_copy].applied = self.ledger.lock().unwrap().revision();
            }
            Action::Crash { copy } => self.crash(copy % self.copies.len()),
            Action::Cross { copy, at } => {
                let at_copy = copy % self.copies.len();
                self.copies[at_copy].crossing = Some(*at);
            }
        }
    }

    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("t{}", self.tokens - 1)
    }

    fn edit(&mut self, copy: usize, edit: Edit, at: usize) {
        let token = self.token();
        let fresh = line(self.tokens - 1, self.is_alike);
        let mut lines: Vec<String> = self.copies[copy].buffer.lines().map(str::to_owned).collect();
        let place = if lines.is_empty() { 0 } else { at % lines.len() };
        match edit {
            _ if lines.is_empty() => lines.push(fresh),
            Edit::Add => lines.insert(place, fresh),
            Edit::Tick => lines[place] = lines[place].replacen("[ ]", "[x]", 1),
            Edit::Reword => lines[place] = format!("{} {token}", lines[place]),
            Edit::Delete => {
                let line = lines.remove(place);
                self.deleted.extend(tokens(&line));
            }
            Edit::Move => {
                let line = lines.remove(place);
                let to = (at / 7) % (lines.len() + 1);
                lines.insert(to, line);
            }
        }
        if !matches!(edit, Edit::Add | Edit::Reword) && !self.copies[copy].buffer.is_empty() {
            self.deleted.insert(token);
        }
        self.copies[copy].buffer = lines.iter().map(|line| format!("{line}\n")).collect();
    }

    fn crash(&mut self, copy: usize) {
        let copy = &mut self.copies[copy];
        copy.record = codec_for_tests::decode(&copy.stored);
        copy.volatile = Volatile::Idle;
        copy.abandoned = None;
        copy.is_fresh = true;
        for (_, start) in &mut copy.kept {
            *start = None;
        }
    }

    /// One arrow.
    fn step(&mut self, at: usize) {
        let volatile = std::mem::take(&mut self.copies[at].volatile);
        match volatile {
            Volatile::Idle if self.copies[at].record.flight.is_some() => self.copies[at].volatile = Volatile::Flying,
            Volatile::Idle => self.look(at),
            Volatile::Flying => {
                let flight = self.copies[at].record.flight.clone().unwrap();
                let outcome = self.ledger.lock().unwrap().apply(Some(flight.request), flight.body, "writer");
                self.copies[at].volatile = Volatile::Answered(outcome);
            }
            Volatile::Answered(outcome) => self.answered(at, outcome),
            Volatile::Writing { scanned, text } => self.swap(at, scanned, text),
        }
    }

    fn answered(&mut self, at: usize, outcome: Outcome) {
        let copy = &mut self.copies[at];
        match outcome {
            Outcome::Duplicate(first) => return self.answered(at, *first),
            Outcome::Accepted { revision, created } => {
                let flight = copy.record.flight.take().unwrap();
                let text = flight.named_text(&created, revision).expect("the ids of an accepted text add up");
                match &flight.displaced {
                    Some(content) => {
                        copy.kept.retain(|(kept, _)| kept != content);
                        copy.record.show_below_newest(self.change, text);
                    }
                    None => copy.record.show(self.change, text, By::Writer),
                }
            }
            Outcome::Stale { .. } => copy.record.flight = None,
            Outcome::Rejected(Reject::SessionExpired) => panic!("sessions don't expire in so few revisions"),
            Outcome::Rejected(reject) => panic!("rejected: {reject}"),
        }
        copy.stored = codec_for_tests::encode(&copy.record);
    }

    fn look(&mut self, at: usize) {
        let (change, project) = (self.change, self.project);
        let copy = &mut self.copies[at];
        let document = self.ledger.lock().unwrap().document(change, copy.applied).unwrap();
        let side = Side::Live { change, text: KnownText { revision: copy.applied, blocks: document.blocks } };
        if std::mem::take(&mut copy.is_fresh) {
            copy.abandoned = copy.record.settle_intent(Some(&copy.disk));
        }
        let need = copy.record.shown.iter().map(|shown| shown.text.revision).max().unwrap_or_default();
        let input = Input {
            path: "tasks.md",
            project,
            agreed: copy.record.agreed(),
            local: Some(&copy.disk),
            origin: Origin::Saved,
            cluster: &side,
            take: Some(Take::Merge),
            is_deletion_confirmed: false,
        };
        if need <= copy.applied {
            copy.kept.retain(|(content, _)| !content.is_empty() && copy.abandoned.as_ref() != Some(content));
            let pending = copy.kept.first().cloned();
            if let Some((content, start)) = pending {
                let proposal = plan_displaced(&input, &content, start.as_ref());
                trace(|| format!("checkout {at}: displaced {proposal:#?}\n{content}"));
                match proposal {
                    Some(proposal) => return self.launch(at, *proposal, Some(content)),
                    None => drop(copy.kept.remove(0)),
                }
                return;
            }
        }
        let step = plan(&input);
        trace(|| format!("checkout {at}: {step:#?}\nlocal\n{}cluster\n{side:?}", copy.disk));
        match step {
            Step::Settled | Step::Behind { .. } => {}
            Step::Learn { change, text } => {
                copy.record.show(change, text, By::Writer);
                copy.stored = codec_for_tests::encode(&copy.record);
            }
            Step::Propose(proposal) => {
                self.launch(at, *proposal, None);
            }
            Step::Write { change, seen, text } => {
                if let Some(seen) = seen {
                    copy.record.show(change, seen, By::Writer);
                }
                copy.record.intent = Some(Intent { change, text: text.clone() });
                copy.stored = codec_for_tests::encode(&copy.record);
                copy.volatile = Volatile::Writing { scanned: Some(copy.disk.clone()), text };
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn launch(&mut self, at: usize, proposal: Proposal, displaced: Option<String>) {
        let copy = &mut self.copies[at];
        let request = RequestId { session: copy.session, seq: copy.next };
        copy.next += 1;
        let Proposal { body, text, ids, .. } = proposal;
        copy.record.flight = Some(Flight { request, body, text, ids, displaced });
        copy.stored = codec_for_tests::encode(&copy.record);
        copy.volatile = Volatile::Flying;
    }

    fn swap(&mut self, at: usize, scanned: Option<String>, text: KnownText) {
        if let Some(place) = self.copies[at].crossing.take() {
            self.edit(at, Edit::Add, place);
            self.copies[at].disk = self.copies[at].buffer.clone();
        } else if Some(&self.copies[at].disk) != scanned.as_ref() {
            // Seen before the swap.
            self.copies[at].record.intent = None;
            return;
        }
        let change = self.change;
        let copy = &mut self.copies[at];
        let before = copy.record.base().cloned();
        let came_out = std::mem::replace(&mut copy.disk, text.text());
        copy.record.intent = None;
        copy.record.show(change, text, By::Us);
        if Some(&came_out) != scanned.as_ref() {
            copy.kept.push((came_out, before));
        }
        copy.stored = codec_for_tests::encode(&copy.record);
    }

    /// Everything is delivered and stepped until nothing moves.
    fn rest(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "it doesn't come to rest");
            let before = self.fingerprint();
            for at in 0..self.copies.len() {
                self.act(&Action::Deliver { copy: at });
                for _ in 0..4 {
                    self.step(at);
                }
            }
            let is_idle = self.copies.iter().all(|copy| matches!(copy.volatile, Volatile::Idle));
            if is_idle && before == self.fingerprint() {
                return;
            }
        }
    }

    fn fingerprint(&self) -> (Revision, Vec<String>, Vec<usize>) {
        let revision = self.ledger.lock().unwrap().revision();
        let kept = self.copies.iter().map(|copy| copy.kept.len()).collect();
        (revision, self.copies.iter().map(|copy| copy.disk.clone()).collect(), kept)
    }

    fn check(&self) {
        let ledger = self.ledger.lock().unwrap();
        let document = ledger.document(self.change, ledger.revision()).unwrap();
        let text: String = document.blocks.iter().map(|known| known.block.print()).collect();
        for (at, copy) in self.copies.iter().enumerate() {
            assert_eq!(copy.disk, text, "checkout {at} differs from the cluster");
        }
        let mut found: Vec<String> = tokens(&text).collect();
        let in_text = found.len();
        let once: BTreeSet<&String> = found.iter().filter(|token| !self.deleted.contains(*token)).collect();
        let times = found.iter().filter(|token| !self.deleted.contains(*token)).count();
        assert!(self.is_alike || once.len() == times, "a token stands twice in\n{text}");
        for conflict in ledger.conflicts() {
            for value in [conflict.base, conflict.spec, conflict.runtime].into_iter().flatten() {
                found.extend(tokens(&value));
            }
        }
        assert!(in_text <= found.len());
        for number in 0..self.tokens {
            let token = format!("t{number}");
            assert!(found.contains(&token) || self.deleted.contains(&token), "{token} is lost; the text is\n{text}");
        }
    }
}

fn tokens(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace()
        .filter(|word| word.strip_prefix('t').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())))
        .map(str::to_owned)
}

fn action() -> impl Strategy<Value = Action> {
    let edit = prop_oneof![
        4 => Just(Edit::Add),
        3 => Just(Edit::Tick),
        3 => Just(Edit::Reword),
        2 => Just(Edit::Delete),
        1 => Just(Edit::Move),
    ];
    let copy = 0..3_usize;
    prop_oneof![
        4 => (copy.clone(), any::<bool>(), edit, 0..40_usize)
            .prop_map(|(copy, is_fresh, edit, at)| Action::Edit { copy, is_fresh, edit, at }),
        12 => copy.clone().prop_map(|copy| Action::Step { copy }),
        4 => copy.clone().prop_map(|copy| Action::Deliver { copy }),
        1 => copy.clone().prop_map(|copy| Action::Crash { copy }),
        1 => (copy, 0..40_usize).prop_map(|(copy, at)| Action::Cross { copy, at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        // A fixed sequence: a test that is red by chance would say nothing about a change.
        rng_seed: proptest::test_runner::RngSeed::Fixed(seed()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_schedule_loses_a_token(
        copies in 1..4_usize,
        is_alike in any::<bool>(),
        actions in prop::collection::vec(action(), 1..80),
    ) {
        let mut world = World::new(copies, is_alike);
        world.rest();
        for action in &actions {
            world.act(action);
        }
        world.rest();
        world.check();
    }
}

/// A thousand schedules take a few seconds; `PROPTEST_CASES` asks for more.
/// `ZYFLOW_MODEL_SEED` looks elsewhere.
fn seed() -> u64 {
    std::env::var("ZYFLOW_MODEL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000)
}

fn stale(copy: usize, edit: Edit, at: usize) -> Action {
    Action::Edit { copy, is_fresh: false, edit, at }
}

fn steps(copy: usize, times: usize) -> impl Iterator<Item = Action> {
    std::iter::repeat_n(Action::Step { copy }, times)
}

fn replay(copies: usize, is_alike: bool, actions: impl IntoIterator<Item = Action>) {
    let mut world = World::new(copies, is_alike);
    world.rest();
    for action in actions {
        world.act(&action);
    }
    world.rest();
    world.check();
}

/// Found by `ZYFLOW_MODEL_SEED=3`: an old buffer with the line reworded that we had just written a rewording of.
#[test]
fn a_rewording_over_an_unseen_rewording_keeps_both() {
    let mut actions = vec![stale(0, Edit::Reword, 4)];
    actions.extend(steps(0, 1));
    actions.extend([stale(2, Edit::Add, 0), stale(2, Edit::Add, 0)]);
    actions.extend(steps(0, 1));
    actions.push(Action::Deliver { copy: 1 });
    actions.extend(steps(0, 1).chain(steps(1, 2)));
    actions.push(stale(1, Edit::Reword, 4));
    replay(3, false, actions);
}

#[test]
fn a_crossing_save_that_is_saved_once_more_is_nothing_new() {
    let mut actions = vec![stale(0, Edit::Delete, 3)];
    actions.extend(steps(0, 2));
    actions.push(Action::Deliver { copy: 1 });
    actions.extend(steps(1, 1));
    actions.extend([stale(0, Edit::Delete, 11), Action::Cross { copy: 1, at: 27 }, stale(1, Edit::Tick, 32)]);
    actions.extend(steps(1, 1));
    actions.extend([stale(1, Edit::Tick, 5), stale(0, Edit::Move, 8)]);
    actions.extend(steps(1, 1));
    replay(2, false, actions);
}
