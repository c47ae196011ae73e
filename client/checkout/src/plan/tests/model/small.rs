//! All schedules of a small world: two checkouts, a few edits each, a crash or a lost answer at every arrow, every order of
//! deliveries. Breadth first, so the first failure is a shortest one; states that were seen before are not gone through again.
//!
//! Each new state is brought to rest in a copy and checked there, so an invariant holds whenever everything stops right then.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::oracle::Violation;
use super::script::{Action, Schedule, Style, Verb, script};
use super::*;

/// What can happen in a world, and how often.
struct Budget {
    name: &'static str,
    /// The edits of each checkout, in their order.
    edits: [&'static str; 2],
    /// Crashes, and answers that get lost, together.
    faults: usize,
}

/// A state, what is left of the edits and faults, and how it was come to.
#[derive(Clone)]
struct Node {
    world: World,
    edits: [usize; 2],
    faults: usize,
    path: Vec<Action>,
}

impl Node {
    /// What tells states apart: all that decides what can happen next.
    fn key(&self) -> [u8; 32] {
        let world = &self.world;
        let mut hash = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hash.update(&bytes.len().to_le_bytes());
            hash.update(bytes);
        };
        add(format!("{:?} {} {:?}", self.edits, self.faults, world.ledger.revision()).as_bytes());
        for copy in &world.copies {
            let applied = world.ledger.document(world.change, copy.applied);
            let kept: Vec<_> = copy.disk.keep.iter().map(|kept| (kept, &copy.disk.inodes[kept.inode].bytes)).collect();
            add(&copy.stored);
            add(copy.disk.bytes().unwrap_or_default());
            add(copy.buffer.as_bytes());
            let rest = (
                &copy.volatile,
                &copy.crossing,
                copy.is_due,
                (copy.is_fresh, copy.is_watched),
                copy.wait,
                copy.applied,
            );
            add(format!("{rest:?} {kept:?} {:?} {:?} {:?}", copy.session, copy.next, copy.abandoned).as_bytes());
            add(format!("{applied:?}").as_bytes());
        }
        let newest = world.ledger.document(world.change, world.ledger.revision());
        add(format!("{newest:?} {:?}", world.ledger.conflicts()).as_bytes());
        *hash.finalize().as_bytes()
    }

    /// Everything that can happen now.
    fn next(&self, edits: &[Vec<Action>; 2]) -> Vec<Self> {
        let mut all = Vec::new();
        for (copy, edits) in edits.iter().enumerate() {
            let mut go = |verb: Verb, change: &dyn Fn(&mut Self)| {
                let mut node = self.clone();
                let action = Action { copy, verb };
                node.world.act(&action);
                node.path.push(action);
                change(&mut node);
                all.push(node);
            };
            let at = &self.world.copies[copy];
            if let Some(edit) = edits.get(self.edits[copy]) {
                go(edit.verb, &|node| node.edits[copy] += 1);
            }
            let is_idle = matches!(at.volatile, Volatile::Idle);
            if !is_idle || at.record.flight.is_some() || (at.is_due && at.applied >= at.wait) {
                go(Verb::Step, &|_| ());
            }
            if at.applied < self.world.ledger.revision() {
                go(Verb::Deliver, &|_| ());
            }
            if self.faults > 0 && (!is_idle || at.record.flight.is_some()) {
                go(Verb::Crash, &|node| node.faults -= 1);
            }
            if self.faults > 0 && matches!(at.volatile, Volatile::Answered(_)) {
                go(Verb::LoseAnswer, &|node| node.faults -= 1);
            }
        }
        all
    }

    fn check(&self) -> Result<(), Violation> {
        let mut world = self.world.clone();
        world.rest()?;
        world.check()
    }
}

/// Goes through all of it. Returns how many states there are.
fn explore(budget: &Budget) -> usize {
    let schedule = Schedule { copies: 2, style: Style::Plain, is_bound: true, noise: 1, actions: Vec::new() };
    let edits = [0, 1].map(|copy| script(budget.edits[copy]));
    let mut world = World::new(&schedule, None);
    world.rest().unwrap();
    let first = Node { world, edits: [0, 0], faults: budget.faults, path: Vec::new() };
    let mut seen = BTreeSet::from([first.key()]);
    let mut queue = VecDeque::from([first]);
    while let Some(node) = queue.pop_front() {
        if let Err(violation) = node.check() {
            let path: Vec<String> = node.path.iter().map(ToString::to_string).collect();
            panic!("{}: {violation}\n{}", budget.name, path.join("\n"));
        }
        queue.extend(node.next(&edits).into_iter().filter(|next| seen.insert(next.key())));
    }
    seen.len()
}

#[test]
fn every_order_of_a_few_edits_and_a_fault_breaks_no_invariant() {
    let budgets = [
        Budget { name: "one edit, a fault", edits: ["0 save add 1", ""], faults: 1 },
        Budget { name: "an edit each", edits: ["0 save add 1", "1 save reword 1"], faults: 0 },
        Budget { name: "a stale save", edits: ["0 save add 4", "1 stale add 2"], faults: 0 },
        Budget { name: "a save that crosses our write", edits: ["0 save tick 0", "1 cross add 3"], faults: 0 },
        Budget { name: "the same line", edits: ["0 save reword 2", "1 save delete 2"], faults: 0 },
    ];
    for budget in budgets {
        let begin = Instant::now();
        let states = explore(&budget);
        eprintln!("{}: {states} states in {:.1} s", budget.name, begin.elapsed().as_secs_f64());
    }
}
