//! What happens in a schedule, as values and as text, so that a failure can be pasted into a test: `0 save add 3` is a writer of
//! checkout 0 who reads the file, adds a line at place 3, and saves.

use std::fmt;
use std::str::FromStr;

/// One thing that happens at one checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) copy: usize,
    pub(super) verb: Verb,
}

/// What a writer does to its buffer, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) kind: EditKind,
    pub(super) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EditKind {
    Add,
    Tick,
    Reword,
    Delete,
    Move,
    /// All explicit numbers anew, from 1.
    Renumber,
    /// Saved as it is.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// A writer reads the file, changes its buffer and saves it under the name.
    Save(Edit),
    /// The same with the buffer that it read before.
    Stale(Edit),
    /// The same in the moment between our last look at the file and our swap.
    Cross(Edit),
    /// Another writer opens the file, reads it and keeps it open.
    Open,
    /// That one empties the file that it holds, to write it anew.
    Truncate,
    /// That one writes its changed buffer into the file that it holds, wherever that is by now.
    Held(Edit),
    /// One arrow of the sync.
    Step,
    /// The node applies everything.
    Deliver,
    /// All that isn't stored is forgotten.
    Crash,
    /// The answer to what flies gets lost.
    LoseAnswer,
    /// A request that was sent before arrives once more.
    Late,
    /// The session of the checkout expires.
    Expire,
    /// Hints about changes get lost, and nobody says so.
    Mute,
    /// The queue of hints overflows: those in it are lost, and that is said.
    Overflow,
    /// The slow rescan.
    Scan,
    /// A replaced file was quiet for its time.
    Quiet,
    /// A missing or emptied file was so for its time.
    Grace,
    /// Somebody deletes the file.
    Remove,
    /// The file is put back to an older text by somebody who has seen the newest.
    Revert(usize),
    /// The file comes from a backup: an older text, and an older time.
    Restore(usize),
    /// HEAD moves, and with it the file, to an older text.
    Jump(usize),
    /// The state of the sync comes from a backup.
    RestoreState(usize),
}

impl fmt::Display for EditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Tick => "tick",
            Self::Reword => "reword",
            Self::Delete => "delete",
            Self::Move => "move",
            Self::Renumber => "renumber",
            Self::Nothing => "nothing",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edit = |f: &mut fmt::Formatter<'_>, verb: &str, edit: &Edit| write!(f, "{verb} {} {}", edit.kind, edit.at);
        write!(f, "{} ", self.copy)?;
        match &self.verb {
            Verb::Save(of) => edit(f, "save", of),
            Verb::Stale(of) => edit(f, "stale", of),
            Verb::Cross(of) => edit(f, "cross", of),
            Verb::Held(of) => edit(f, "held", of),
            Verb::Open => f.write_str("open"),
            Verb::Truncate => f.write_str("truncate"),
            Verb::Step => f.write_str("step"),
            Verb::Deliver => f.write_str("deliver"),
            Verb::Crash => f.write_str("crash"),
            Verb::LoseAnswer => f.write_str("lose-answer"),
            Verb::Late => f.write_str("late"),
            Verb::Expire => f.write_str("expire"),
            Verb::Mute => f.write_str("mute"),
            Verb::Overflow => f.write_str("overflow"),
            Verb::Scan => f.write_str("scan"),
            Verb::Quiet => f.write_str("quiet"),
            Verb::Grace => f.write_str("grace"),
            Verb::Remove => f.write_str("remove"),
            Verb::Revert(back) => write!(f, "revert {back}"),
            Verb::Restore(back) => write!(f, "restore {back}"),
            Verb::Jump(back) => write!(f, "jump {back}"),
            Verb::RestoreState(back) => write!(f, "restore-state {back}"),
        }
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bad = || format!("not an action: {line}");
        let number = |word: &str| word.parse::<usize>().map_err(|_| bad());
        let edit = |kind: &str, at: &str| {
            let kind = match kind {
                "add" => EditKind::Add,
                "tick" => EditKind::Tick,
                "reword" => EditKind::Reword,
                "delete" => EditKind::Delete,
                "move" => EditKind::Move,
                "renumber" => EditKind::Renumber,
                "nothing" => EditKind::Nothing,
                _ => return Err(bad()),
            };
            Ok(Edit { kind, at: number(at)? })
        };
        let verb = match words[1..] {
            ["save", kind, at] => Verb::Save(edit(kind, at)?),
            ["stale", kind, at] => Verb::Stale(edit(kind, at)?),
            ["cross", kind, at] => Verb::Cross(edit(kind, at)?),
            ["held", kind, at] => Verb::Held(edit(kind, at)?),
            ["open"] => Verb::Open,
            ["truncate"] => Verb::Truncate,
            ["step"] => Verb::Step,
            ["deliver"] => Verb::Deliver,
            ["crash"] => Verb::Crash,
            ["lose-answer"] => Verb::LoseAnswer,
            ["late"] => Verb::Late,
            ["expire"] => Verb::Expire,
            ["mute"] => Verb::Mute,
            ["overflow"] => Verb::Overflow,
            ["scan"] => Verb::Scan,
            ["quiet"] => Verb::Quiet,
            ["grace"] => Verb::Grace,
            ["remove"] => Verb::Remove,
            ["revert", back] => Verb::Revert(number(back)?),
            ["restore", back] => Verb::Restore(number(back)?),
            ["jump", back] => Verb::Jump(number(back)?),
            ["restore-state", back] => Verb::RestoreState(number(back)?),
            _ => return Err(bad()),
        };
        Ok(Self { copy: number(words[0])?, verb })
    }
}

/// A script: an action a line, or between semicolons.
pub(super) fn script(text: &str) -> Vec<Action> {
    text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect()
}

/// How the lines of a document look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Usual tasks: a word more leaves one recognisable.
    Plain,
    /// They differ in one word alone, so that nobody can tell a reworded line from one that was deleted beside a new one.
    Alike,
    /// With explicit numbers, which a renumbering changes.
    Numbered,
    /// Headings, prose, comments, a fence, blank lines between the tasks.
    Mixed,
}

/// All that a run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) copies: usize,
    pub(super) style: Style,
    /// All checkouts are in agreement before anything happens; else the first binding is part of it.
    pub(super) is_bound: bool,
    /// Chooses encodings and times.
    pub(super) noise: u64,
    pub(super) actions: Vec<Action>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "copies: {}, style: Style::{:?}, is_bound: {}, noise: {}",
            self.copies, self.style, self.is_bound, self.noise
        )?;
        for action in &self.actions {
            writeln!(f, "    {action}")?;
        }
        Ok(())
    }
}
