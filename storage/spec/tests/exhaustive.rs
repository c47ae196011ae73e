//! Every way in which up to three replicas can make up to three edits of a small file and deliver them: all are merged as the product
//! does it, and all must agree.
//!
//! ```text
//! replica --edit--> local text --sync: merge3(base, local, current)--> ops --apply--> the next version of the sequencer
//! ```
//! The first to sync wins, the others merge onto it. A replica may sync before and after each of its edits, and those that haven't at the
//! end do so in every order. Checked at each sync: the operations give the merged text; a conflict is about a field of a block that both
//! sides touched; the same edit merged again changes nothing. Checked at the end: all replicas hold one text with nothing left to say;
//! every word written is in it or in a conflict, unless somebody who had seen it took it away, and stands once; a tick stays.

#![expect(clippy::print_stdout, reason = "the count of cases is the result")]

use std::collections::BTreeSet;

use zyflow_spec::{Conflict, ConflictField, Known, align, apply, merge3, parse};

/// Every word is written once, and a task has enough of them to be known again when it was moved and reworded.
const START: &str = "## Plan\n- [ ] alpha red green blue white black\n- [ ] beta north south east west home\n- [ ] gamma spring summer autumn winter rain\n";

/// One edit of a text file. Tasks are named by their first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Tick(&'static str),
    /// A new word at the end.
    Add(&'static str),
    /// A new word in place of the second.
    Replace(&'static str),
    Delete(&'static str),
    /// A new task behind this one; the front when there is none.
    Insert(Option<&'static str>),
    /// The same task as everybody inserts.
    InsertCommon(&'static str),
    MoveToFront(&'static str),
    MoveToEnd(&'static str),
}

use Edit::{Add, Delete, Insert, InsertCommon, MoveToEnd, MoveToFront, Replace, Tick};

/// For pairs of edits.
const ALL: [Edit; 20] = [
    Tick("alpha"),
    Tick("beta"),
    Tick("gamma"),
    Add("alpha"),
    Add("beta"),
    Add("gamma"),
    Replace("alpha"),
    Replace("beta"),
    Delete("alpha"),
    Delete("beta"),
    Delete("gamma"),
    Insert(None),
    Insert(Some("alpha")),
    Insert(Some("gamma")),
    InsertCommon("alpha"),
    InsertCommon("gamma"),
    MoveToFront("gamma"),
    MoveToFront("beta"),
    MoveToEnd("alpha"),
    MoveToEnd("beta"),
];

/// For three edits: all kinds, on the two tasks at the ends.
const FEW: [Edit; 11] = [
    Tick("alpha"),
    Add("alpha"),
    Add("gamma"),
    Replace("alpha"),
    Delete("alpha"),
    Delete("gamma"),
    Insert(Some("alpha")),
    Insert(Some("gamma")),
    InsertCommon("alpha"),
    MoveToFront("gamma"),
    MoveToEnd("alpha"),
];

/// An edit that was made: which one, the word it brought, and what its author took away knowingly.
#[derive(Debug, Clone)]
struct Made {
    edit: Edit,
    word: String,
    removed: Vec<String>,
}

#[derive(Clone)]
struct Replica {
    base: Vec<Known<u32>>,
    /// How many edits the sequencer had when this replica last synced.
    seen: usize,
    local: String,
    pending: Vec<Made>,
}

#[derive(Clone)]
struct World {
    current: Vec<Known<u32>>,
    next_id: u32,
    /// Edits in the order in which they were committed.
    committed: Vec<Made>,
    conflicts: Vec<Conflict<u32>>,
    replicas: Vec<Replica>,
}

#[derive(Default)]
struct Count {
    cases: usize,
    merges: usize,
    conflicts: usize,
    /// Merges that were not tried again.
    ambiguous: usize,
}

fn print(blocks: &[Known<u32>]) -> String {
    blocks.iter().map(|known| known.block.print()).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(|symbol: char| !symbol.is_ascii_alphanumeric())
        .filter(|word| word.len() > 1)
        .map(str::to_owned)
        .collect()
}

/// The line of a task.
fn place(lines: &[String], name: &str) -> Option<usize> {
    lines.iter().position(|line| line.contains(&format!("] {name} ")))
}

/// The text after an edit; `None` when its task is no longer there.
fn edited(text: &str, edit: Edit, word: &str) -> Option<Edited> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut removed = Vec::new();
    match edit {
        Tick(name) => {
            let at = place(&lines, name).filter(|at| lines[*at].contains("[ ]"))?;
            lines[at] = lines[at].replacen("[ ]", "[x]", 1);
        }
        Add(name) => {
            let at = place(&lines, name)?;
            lines[at] = format!("{} {word}", lines[at]);
        }
        Replace(name) => {
            let at = place(&lines, name)?;
            let named = format!("] {name} ");
            let second = lines[at].split_once(&named)?.1.split(' ').next()?.to_owned();
            lines[at] = lines[at].replacen(&format!("{named}{second}"), &format!("{named}{word}"), 1);
            removed.push(second);
        }
        Delete(name) => {
            let at = place(&lines, name)?;
            removed.extend(words(&lines.remove(at)));
        }
        Insert(behind) => {
            let at = behind.map_or(Some(0), |name| place(&lines, name))?;
            lines.insert(at + 1, format!("- [ ] {word}"));
        }
        InsertCommon(behind) => {
            let at = place(&lines, behind)?;
            lines.insert(at + 1, "- [ ] common work".to_owned());
        }
        MoveToFront(name) => {
            let at = place(&lines, name)?;
            let line = lines.remove(at);
            lines.insert(1, line);
        }
        MoveToEnd(name) => {
            let at = place(&lines, name)?;
            let line = lines.remove(at);
            lines.push(line);
        }
    }
    let text = lines.join("\n") + "\n";
    Some(Edited { text, removed })
}

/// What [`edited`] gives.
struct Edited {
    text: String,
    removed: Vec<String>,
}

/// The task that an edit touches, and its field.
fn touches(edit: Edit) -> Option<(&'static str, ConflictField)> {
    match edit {
        Tick(name) => Some((name, ConflictField::Mark)),
        Add(name) | Replace(name) => Some((name, ConflictField::Text)),
        Delete(name) => Some((name, ConflictField::Existence)),
        MoveToFront(name) | MoveToEnd(name) => Some((name, ConflictField::Place)),
        Insert(_) | InsertCommon(_) => None,
    }
}

/// Whether a conflict between these edits is one that a person expects.
fn is_expected(conflict: &Conflict<u32>, mine: &[Made], theirs: &[Made]) -> bool {
    let values = [&conflict.base, &conflict.ours, &conflict.theirs];
    let names = |name: &str| values.iter().any(|value| value.as_ref().is_some_and(|value| value.contains(name)));
    let fields = |edits: &[Made]| -> Vec<(&'static str, ConflictField)> {
        edits.iter().filter_map(|made| touches(made.edit)).collect()
    };
    let (mine, theirs) = (fields(mine), fields(theirs));
    let mut pairs = mine.iter().flat_map(|one| theirs.iter().map(move |two| (one, two)));
    pairs.any(|((one, field), (two, other))| match conflict.field {
        ConflictField::Place => *field == ConflictField::Place && *other == ConflictField::Place,
        ConflictField::Existence => {
            let is_content = |field| matches!(field, ConflictField::Mark | ConflictField::Text);
            let is_pair = (*field == ConflictField::Existence && is_content(*other))
                || (is_content(*field) && *other == ConflictField::Existence);
            one == two && names(one) && is_pair
        }
        ConflictField::Mark | ConflictField::Text => {
            one == two && names(one) && *field == conflict.field && *other == conflict.field
        }
    })
}

/// Whether the same edit merged once more, from the old base, could be taken for another one: words that both put into one task, or an
/// equal line that both inserted beside one that was moved away. Request ids make such a retry safe.
fn is_ambiguous_again(mine: &[Made], theirs: &[Made]) -> bool {
    let reworded = |edits: &[Made]| -> BTreeSet<&'static str> {
        let fields = edits.iter().filter_map(|made| touches(made.edit));
        fields.filter(|(_, field)| *field == ConflictField::Text).map(|(name, _)| name).collect()
    };
    let inserts_common = |edits: &[Made]| edits.iter().any(|made| matches!(made.edit, InsertCommon(_)));
    let is_move = |made: &Made| matches!(made.edit, MoveToFront(_) | MoveToEnd(_));
    let is_moved = mine.iter().chain(theirs).any(is_move);
    !reworded(mine).is_disjoint(&reworded(theirs)) || (is_moved && inserts_common(mine) && inserts_common(theirs))
}

impl World {
    fn new(replicas: usize) -> Self {
        let current: Vec<Known<u32>> = (0..).zip(parse(START).blocks).map(|(id, block)| Known { id, block }).collect();
        let replica = Replica { base: current.clone(), seen: 0, local: START.to_owned(), pending: Vec::new() };
        let replicas = vec![replica; replicas];
        Self { current, next_id: 100, committed: Vec::new(), conflicts: Vec::new(), replicas }
    }

    fn is_stale(&self, replica: usize) -> bool {
        self.replicas[replica].seen < self.committed.len()
    }

    fn edit(&mut self, replica: usize, edit: Edit, number: usize) -> bool {
        let word = format!("new{number}");
        let replica = &mut self.replicas[replica];
        let Some(Edited { text, removed }) = edited(&replica.local, edit, &word) else { return false };
        replica.local = text;
        replica.pending.push(Made { edit, word, removed });
        true
    }

    /// Proposes what a replica changed and takes what the others did.
    fn sync(&mut self, at: usize, count: &mut Count) {
        let replica = self.replicas[at].clone();
        let local = parse(&replica.local);
        let merge = merge3(&replica.base, &local, &self.current);
        count.merges += 1;
        count.conflicts += merge.conflicts.len();
        let placed = apply(&self.current, &merge.ops).expect("the operations fit");
        let id = |insert: Option<u32>| self.next_id + insert.unwrap_or_default();
        let next: Vec<Known<u32>> = placed
            .into_iter()
            .map(|placed| Known { id: placed.id.unwrap_or_else(|| id(placed.insert)), block: placed.block })
            .collect();
        assert_eq!(print(&next), merge.text, "applying the operations prints the text");
        let theirs = &self.committed[replica.seen..];
        for conflict in &merge.conflicts {
            let is_expected = is_expected(conflict, &replica.pending, theirs);
            assert!(is_expected, "{conflict:?} between {:?} and {theirs:?}", replica.pending);
        }
        if !replica.pending.is_empty() {
            if is_ambiguous_again(&replica.pending, theirs) {
                count.ambiguous += 1;
            } else {
                let again = merge3(&replica.base, &local, &next);
                count.merges += 1;
                assert_eq!(again.text, merge.text, "merging {:?} onto {theirs:?} again", replica.pending);
            }
        }
        self.next_id += 10;
        self.current = next;
        self.conflicts.extend(merge.conflicts);
        self.committed.extend(replica.pending);
        let seen = self.committed.len();
        self.replicas[at] =
            Replica { base: self.current.clone(), seen, local: print(&self.current), pending: Vec::new() };
    }

    /// All have synced; the late ones read once more.
    fn check_end(&mut self, count: &mut Count) {
        let text = print(&self.current);
        for at in 0..self.replicas.len() {
            self.sync(at, count);
            assert_eq!(print(&self.current), text, "nobody has anything left to say");
            assert_eq!(self.replicas[at].local, text, "all hold one text");
        }
        let values = self.conflicts.iter().flat_map(|conflict| [&conflict.base, &conflict.ours, &conflict.theirs]);
        let recorded: String = values.flatten().map(String::as_str).collect();
        let removed: BTreeSet<&String> = self.committed.iter().flat_map(|made| &made.removed).collect();
        let written = self.committed.iter().filter(|made| !matches!(made.edit, Tick(_) | Delete(_)));
        let brought = written.filter_map(|made| match made.edit {
            Add(_) | Replace(_) | Insert(_) => Some(made.word.clone()),
            InsertCommon(_) => Some("common".to_owned()),
            Tick(_) | Delete(_) | MoveToFront(_) | MoveToEnd(_) => None,
        });
        for word in brought.chain(words(START)).filter(|word| !removed.contains(word)) {
            let is_there = text.contains(&word) || recorded.contains(&word);
            assert!(is_there, "{word} is lost from {text} after {:?}", self.committed);
        }
        for word in words(&text) {
            let times = words(&text).iter().filter(|other| **other == word).count();
            let is_common = word == "common" || word == "work";
            assert!(times == 1 || is_common, "{word} stands {times} times in {text} after {:?}", self.committed);
        }
        for made in &self.committed {
            if let Tick(name) = made.edit
                && !self.committed.iter().any(|other| other.edit == Delete(name))
            {
                assert!(text.contains(&format!("- [x] {name}")), "{name} lost its tick: {text}");
            }
        }
    }
}

/// All orders of these replicas.
fn orders(replicas: &[usize]) -> Vec<Vec<usize>> {
    if replicas.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, first) in replicas.iter().enumerate() {
        let rest: Vec<usize> = replicas.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, r)| *r).collect();
        all.extend(orders(&rest).into_iter().map(|order| [vec![*first], order].concat()));
    }
    all
}

/// Makes `left` more edits in every way, then delivers what is pending in every order. Replicas are alike: a new one is always the next.
fn explore(world: &World, edits: &[Edit], left: usize, used: usize, number: usize, count: &mut Count) {
    if left == 0 {
        let pending: Vec<usize> =
            (0..world.replicas.len()).filter(|at| !world.replicas[*at].pending.is_empty()).collect();
        for order in orders(&pending) {
            let mut world = world.clone();
            for replica in order {
                world.sync(replica, count);
            }
            world.check_end(count);
            count.cases += 1;
        }
        return;
    }
    for replica in 0..world.replicas.len().min(used + 1) {
        for is_synced_before in [false, true] {
            let mut before = world.clone();
            if is_synced_before {
                if !before.is_stale(replica) {
                    continue;
                }
                before.sync(replica, count);
            }
            for edit in edits {
                let mut after = before.clone();
                if !after.edit(replica, *edit, number) {
                    continue;
                }
                let used = used.max(replica + 1);
                explore(&after, edits, left - 1, used, number + 1, count);
                if left > 1 {
                    after.sync(replica, count);
                    explore(&after, edits, left - 1, used, number + 1, count);
                }
            }
        }
    }
}

#[test]
fn every_schedule_of_up_to_three_edits_on_up_to_three_replicas_converges() {
    let mut count = Count::default();
    for (edits, replicas) in [(&ALL[..], 1), (&ALL[..], 2)] {
        for left in 0..=2 {
            explore(&World::new(replicas), edits, left, 0, 0, &mut count);
        }
    }
    explore(&World::new(3), &FEW, 3, 0, 0, &mut count);
    let Count { cases, merges, conflicts, ambiguous } = count;
    println!("{cases} cases, {merges} merges, {conflicts} conflicts; {ambiguous} edits not merged again");
    assert!(cases > 50_000, "all ways are walked");
    assert!(conflicts > 1_000, "some of them clash");
}

#[test]
fn a_document_keeps_its_ids_through_the_edits_here() {
    let old: Vec<Known<u32>> = (0..).zip(parse(START).blocks).map(|(id, block)| Known { id, block }).collect();
    for edit in ALL {
        let Edited { text, .. } = edited(START, edit, "new0").expect("all tasks are there");
        let kept = align(&old, &parse(&text)).into_iter().flatten().count();
        assert_eq!(kept, old.len() - usize::from(matches!(edit, Delete(_))), "{edit:?}");
    }
}
