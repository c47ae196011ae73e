//! An independent opinion on which task of one version is which task of the next, slow and generous.
//!
//! It shares nothing with the library's matching: it compares letters in threes instead of words, weighs all pairs at once, and takes the
//! assignment of the greatest total weight (the Hungarian method, cubic in the number of tasks) instead of deciding in stages. Only lines
//! that are equal, under the same heading and unrepeated, are paired beforehand; nobody would dispute them.
//!
//! A pair counts as the same task when its wording is half alike; or a third alike, with the same number, under the same heading or
//! between the same neighbours. The limits were chosen by reading pairs on both sides of them, not by what the library finds.

use std::collections::BTreeMap;

use crate::task::Task;

/// Likeness of two equal texts, in thousandths.
pub(crate) const ALIKE_MAX: i64 = 1000;

/// Likeness that makes two tasks one by itself.
const ALIKE_MIN: i64 = 500;

/// Likeness that does when the number, the heading or both neighbours agree.
const SUPPORTED_MIN: i64 = 330;

/// What a pair of one mind in everything but the wording weighs, beside six times the likeness.
mod weight {
    pub(super) const ID: i64 = 1500;
    pub(super) const HEADING: i64 = 700;
    pub(super) const NEIGHBOUR: i64 = 400;
    pub(super) const PLACE: i64 = 300;
}

/// Counts of the letters of a text in threes, without case.
pub(crate) struct Letters(BTreeMap<[char; 3], i64>, i64);

impl Letters {
    pub(crate) fn of(text: &str) -> Self {
        let padded: Vec<char> = format!("  {} ", text.to_lowercase()).chars().collect();
        let mut counts = BTreeMap::new();
        let mut total = 0;
        for three in padded.windows(3) {
            if let [one, two, three] = three {
                *counts.entry([*one, *two, *three]).or_default() += 1;
                total += 1;
            }
        }
        Self(counts, total)
    }

    /// Share of letters in common, in thousandths.
    pub(crate) fn alike(&self, other: &Self) -> i64 {
        let common: i64 =
            self.0.iter().map(|(three, count)| other.0.get(three).map_or(0, |other| *count.min(other))).sum();
        2 * common * ALIKE_MAX / (self.1 + other.1).max(1)
    }
}

/// For each old task the new one that it became.
pub(crate) fn assign(old: &[Task], new: &[Task]) -> Vec<Option<usize>> {
    let mut matched = undisputed(old, new);
    let taken: Vec<usize> = matched.iter().copied().flatten().collect();
    let rows: Vec<usize> = (0..old.len()).filter(|at| matched[*at].is_none()).collect();
    let columns: Vec<usize> = (0..new.len()).filter(|at| !taken.contains(at)).collect();
    let letters = |tasks: &[Task]| -> Vec<Letters> { tasks.iter().map(|task| Letters::of(&task.title)).collect() };
    let (old_letters, new_letters) = (letters(old), letters(new));
    let judge = Judge { old, new, old_letters: &old_letters, new_letters: &new_letters };
    let weights: Vec<Vec<i64>> =
        rows.iter().map(|row| columns.iter().map(|column| judge.weight(*row, *column)).collect()).collect();
    for (row, column) in heaviest(&weights).into_iter().enumerate() {
        if let Some(column) = column.filter(|column| weights[row][*column] > 0) {
            matched[rows[row]] = Some(columns[column]);
        }
    }
    matched
}

/// Equal lines under the same heading that neither version repeats.
fn undisputed(old: &[Task], new: &[Task]) -> Vec<Option<usize>> {
    let places = |tasks: &[Task]| {
        let mut places: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
        for (at, task) in tasks.iter().enumerate() {
            places.entry((task.line.clone(), task.heading.clone())).or_default().push(at);
        }
        places
    };
    let new_places = places(new);
    let mut matched = vec![None; old.len()];
    for (key, olds) in places(old) {
        if let ([old], Some([new])) = (olds.as_slice(), new_places.get(&key).map(Vec::as_slice)) {
            matched[*old] = Some(*new);
        }
    }
    matched
}

struct Judge<'a> {
    old: &'a [Task],
    new: &'a [Task],
    old_letters: &'a [Letters],
    new_letters: &'a [Letters],
}

impl Judge<'_> {
    /// How much speaks for a pair; 0 = it isn't the same task.
    fn weight(&self, old: usize, new: usize) -> i64 {
        let (one, two) = (&self.old[old], &self.new[new]);
        let alike = self.old_letters[old].alike(&self.new_letters[new]);
        let is_same_id = one.id.is_some() && one.id == two.id;
        let is_same_heading = one.heading == two.heading;
        let before = self.is_neighbour(old.checked_sub(1), new.checked_sub(1));
        let after = self.is_neighbour(Some(old + 1), Some(new + 1));
        let is_supported = is_same_id || is_same_heading || (before && after);
        if alike < if is_supported { SUPPORTED_MIN } else { ALIKE_MIN } {
            return 0;
        }
        let share = |at: usize, tasks: &[Task]| weight::PLACE * small(at) / small(tasks.len()).max(1);
        6 * alike
            + weight::ID * i64::from(is_same_id)
            + weight::HEADING * i64::from(is_same_heading)
            + weight::NEIGHBOUR * (i64::from(before) + i64::from(after))
            + weight::PLACE
            - (share(old, self.old) - share(new, self.new)).abs()
    }

    fn is_neighbour(&self, old: Option<usize>, new: Option<usize>) -> bool {
        match (old.and_then(|at| self.old_letters.get(at)), new.and_then(|at| self.new_letters.get(at))) {
            (None, None) => true,
            (Some(one), Some(two)) => one.alike(two) >= ALIKE_MIN,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

fn small(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// For each row the column of the assignment of the greatest total weight: the Hungarian method with potentials, over a square that is
/// filled up with zeros.
fn heaviest(weights: &[Vec<i64>]) -> Vec<Option<usize>> {
    let size = weights.len().max(weights.first().map_or(0, Vec::len));
    let cost = |row: usize, column: usize| -weights.get(row).and_then(|row| row.get(column)).copied().unwrap_or(0);
    let (mut rows, mut columns) = (vec![0; size + 1], vec![0; size + 1]);
    // index 0 stands for nothing; rows and columns count from 1
    let mut owner = vec![0; size + 1];
    for row in 1..=size {
        owner[0] = row;
        let mut way = vec![0; size + 1];
        let (mut slack, mut is_done) = (vec![i64::MAX; size + 1], vec![false; size + 1]);
        let mut at = 0;
        while owner[at] != 0 {
            is_done[at] = true;
            let (mut least, mut next) = (i64::MAX, 0);
            for column in 1..=size {
                if is_done[column] {
                    continue;
                }
                let reduced = cost(owner[at] - 1, column - 1) - rows[owner[at]] - columns[column];
                if reduced < slack[column] {
                    (slack[column], way[column]) = (reduced, at);
                }
                if slack[column] < least {
                    (least, next) = (slack[column], column);
                }
            }
            for column in 0..=size {
                if is_done[column] {
                    rows[owner[column]] += least;
                    columns[column] -= least;
                } else if slack[column] < i64::MAX {
                    slack[column] -= least;
                }
            }
            at = next;
        }
        while at != 0 {
            owner[at] = owner[way[at]];
            at = way[at];
        }
    }
    let mut assigned = vec![None; weights.len()];
    for (column, row) in owner.into_iter().enumerate().skip(1) {
        if let Some(slot) = row.checked_sub(1).and_then(|row| assigned.get_mut(row)) {
            *slot = Some(column - 1);
        }
    }
    assigned
        .into_iter()
        .map(|column| column.filter(|column| weights.first().is_some_and(|row| *column < row.len())))
        .collect()
}
