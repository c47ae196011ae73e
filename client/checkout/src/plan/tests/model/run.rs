//! From a seed to a schedule, many of them on all cores, and from a failure to the shortest schedule that still fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::World;
use super::faults::Plant;
use super::oracle::Violation;
use super::script::{Action, Edit, EditKind, Schedule, Style, Verb};

/// Most actions of a schedule.
const ACTIONS_MAX: u64 = 70;

/// Most checkouts.
const COPIES_MAX: u64 = 5;

struct Dice(TestRng);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }

    fn index(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap()
    }

    /// One of these, by its weight.
    fn pick<T: Copy>(&mut self, table: &[(u64, T)]) -> T {
        let mut left = self.below(table.iter().map(|(weight, _)| weight).sum());
        for (weight, value) in table {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *value,
            }
        }
        unreachable!("less than the sum of the weights")
    }

    fn edit(&mut self) -> Edit {
        let kind = self.pick(&[
            (8, EditKind::Add),
            (6, EditKind::Tick),
            (6, EditKind::Reword),
            (4, EditKind::Delete),
            (2, EditKind::Move),
            (1, EditKind::Renumber),
            (1, EditKind::Nothing),
        ]);
        Edit { kind, at: self.index(40) }
    }

    fn action(&mut self, copies: u64) -> Action {
        #[derive(Clone, Copy)]
        enum Draw {
            Edit(fn(Edit) -> Verb),
            Back(fn(usize) -> Verb),
            Plain(Verb),
        }
        let copy = self.index(copies);
        let draw = self.pick(&[
            (90, Draw::Edit(Verb::Save)),
            (90, Draw::Edit(Verb::Stale)),
            (20, Draw::Edit(Verb::Cross)),
            (50, Draw::Edit(Verb::Held)),
            (30, Draw::Plain(Verb::Open)),
            (8, Draw::Plain(Verb::Truncate)),
            (600, Draw::Plain(Verb::Step)),
            (180, Draw::Plain(Verb::Deliver)),
            (40, Draw::Plain(Verb::Crash)),
            (25, Draw::Plain(Verb::LoseAnswer)),
            (15, Draw::Plain(Verb::Late)),
            (8, Draw::Plain(Verb::Expire)),
            (12, Draw::Plain(Verb::Mute)),
            (15, Draw::Plain(Verb::Overflow)),
            (15, Draw::Plain(Verb::Scan)),
            (20, Draw::Plain(Verb::Quiet)),
            (10, Draw::Plain(Verb::Grace)),
            (4, Draw::Plain(Verb::Remove)),
            (8, Draw::Back(Verb::Revert)),
            (6, Draw::Back(Verb::Restore)),
            (10, Draw::Back(Verb::Jump)),
            (5, Draw::Back(Verb::RestoreState)),
        ]);
        let verb = match draw {
            Draw::Edit(verb) => verb(self.edit()),
            Draw::Back(verb) => verb(self.index(8)),
            Draw::Plain(verb) => verb,
        };
        Action { copy, verb }
    }
}

/// The schedule of a seed. The same on every machine.
pub(super) fn schedule(seed: u64) -> Schedule {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut dice = Dice(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let copies = 1 + dice.below(COPIES_MAX);
    let style = dice.pick(&[(4, Style::Plain), (2, Style::Alike), (2, Style::Numbered), (3, Style::Mixed)]);
    let is_bound = dice.below(4) != 0;
    let noise = dice.0.next_u64();
    let length = 1 + dice.below(ACTIONS_MAX);
    let actions = (0..length).map(|_| dice.action(copies)).collect();
    Schedule { copies: usize::try_from(copies).unwrap(), style, is_bound, noise, actions }
}

/// Runs one schedule.
pub(super) fn run(schedule: &Schedule, plant: Option<Plant>) -> Result<(), Violation> {
    let attempt = || -> Result<(), Violation> {
        let mut world = World::new(schedule, plant);
        if schedule.is_bound {
            world.rest()?;
        }
        for action in &schedule.actions {
            world.act(action);
        }
        world.rest()?;
        world.check()
    };
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", message.unwrap_or_default()))
    })
}

/// Seeds from `first` on, `count` of them, whose schedules fail, in order; it stops after `enough` of them.
pub(super) fn search(first: u64, count: u64, plant: Option<Plant>, enough: usize) -> Vec<u64> {
    let next = AtomicU64::new(first);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || failed.lock().unwrap().len() >= enough {
                return;
            }
            if run(&schedule(seed), plant).is_err() {
                failed.lock().unwrap().push(seed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    failed
}

/// The shortest schedule that still breaks the same invariant, by taking away ever smaller pieces.
pub(super) fn shrink(schedule: &Schedule, plant: Option<Plant>) -> (Schedule, Violation) {
    let kind = |violation: &Violation| violation.split(':').next().unwrap_or_default().to_owned();
    let mut least = schedule.clone();
    let mut violation = run(&least, plant).unwrap_err();
    let wanted = kind(&violation);
    let mut attempt = |candidate: Schedule, least: &mut Schedule| match run(&candidate, plant) {
        Err(found) if kind(&found) == wanted => {
            violation = found;
            *least = candidate;
            true
        }
        Err(_) | Ok(()) => false,
    };
    loop {
        let before = least.clone();
        let mut size = least.actions.len().max(1).next_power_of_two();
        while size > 0 {
            let mut from = 0;
            while from < least.actions.len() {
                let mut candidate = least.clone();
                candidate.actions.drain(from..(from + size).min(candidate.actions.len()));
                if !attempt(candidate, &mut least) {
                    from += size;
                }
            }
            size /= 2;
        }
        for copy in (0..least.copies).rev().filter(|_| before.copies > 1) {
            let mut candidate = least.clone();
            candidate.copies -= 1;
            if candidate.copies == 0 {
                break;
            }
            candidate.actions.retain(|action| action.copy != copy);
            for action in &mut candidate.actions {
                action.copy -= usize::from(action.copy > copy);
            }
            attempt(candidate, &mut least);
        }
        for change in [
            |schedule: &mut Schedule| schedule.is_bound = true,
            |schedule: &mut Schedule| schedule.style = Style::Plain,
            |schedule: &mut Schedule| schedule.noise = 1,
        ] {
            let mut candidate = least.clone();
            change(&mut candidate);
            if candidate != least {
                attempt(candidate, &mut least);
            }
        }
        if least == before {
            return (least, violation);
        }
    }
}
