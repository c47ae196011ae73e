//! What marks mean in one checkout: a dialect, and the marks that a team gives a meaning of its own.
//!
//! It translates marks, it never changes them: a mark without a meaning is open and stays as it is. Blank always means todo and `x` always means
//! done, so that a convention can't contradict [`crate::Block::is_done`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::block::is_done_mark;
use crate::dialect::rules::rules_of;
use crate::dialect::{Dialect, UnknownDialect};
use crate::line::{shape, task};
use crate::state::{State, UnknownState};
use crate::status;

/// Most marks of a team's own: there are hardly more characters that one can type and tell apart.
pub const TEAM_MARKS_MAX: usize = 32;

/// A dialect and a team's own marks. Written as `kiro` or `kiro,~=blocked,!=review`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Convention {
    /// The dialect.
    pub dialect: Dialect,
    /// The team's own marks; they go before the dialect's.
    pub marks: BTreeMap<String, State>,
}

/// A text that is no convention.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConventionError {
    /// It names no dialect that there is.
    #[error(transparent)]
    Dialect(#[from] UnknownDialect),
    /// A mark is given a state that there isn't.
    #[error("mark {mark:?}: {unknown}")]
    State {
        /// The mark.
        mark: String,
        /// What it was to mean.
        #[source]
        unknown: UnknownState,
    },
    /// A part isn't `mark=state`.
    #[error("{part:?} gives no mark a meaning: write a dialect, then `mark=state` after commas, as in kiro,~=blocked")]
    Shape {
        /// The part.
        part: String,
    },
    /// A task with that mark would not be read as a task, or the mark means something else in all dialects.
    #[error("{mark:?} can't be a mark of your own: {reason}")]
    Mark {
        /// The mark.
        mark: String,
        /// Why not.
        reason: &'static str,
    },
    /// More than [`TEAM_MARKS_MAX`] marks.
    #[error("{marks} marks of your own, and there may be {TEAM_MARKS_MAX}")]
    TooMany {
        /// How many.
        marks: usize,
    },
}

impl Convention {
    /// A dialect without marks of a team's own.
    #[must_use]
    pub fn of(dialect: Dialect) -> Self {
        Self { dialect, marks: BTreeMap::new() }
    }

    /// What a mark means; `None` when that isn't known, and then the task counts as open. Blanks around a mark don't matter.
    #[must_use]
    pub fn state_of(&self, mark: &str) -> Option<State> {
        match mark.trim() {
            "" => Some(State::Todo),
            "x" | "X" => Some(State::Done),
            mark => self.marks.get(mark).copied().or_else(|| self.dialect_state(mark)),
        }
    }

    /// The mark that shows a state; `None` when the dialect can't show it by a mark. [`Convention::state_of`] gives the state back.
    #[must_use]
    pub fn mark_of(&self, state: State) -> Option<String> {
        let own = || self.marks.iter().filter(|(_, known)| **known == state).map(|(mark, _)| mark.as_str());
        let given = || rules_of(self.dialect).marks.iter().filter(|(_, known)| *known == state).map(|(mark, _)| *mark);
        let fits = |mark: &&str| self.state_of(mark) == Some(state);
        let found = match state {
            // Everybody reads the dialect's own marks of these two, whatever the settings.
            State::Todo | State::Done => given().chain(own()).find(fits),
            State::InProgress | State::Review | State::Blocked | State::Cancelled | State::Archived => {
                own().chain(given()).find(fits)
            }
        };
        found.map(str::to_owned)
    }

    /// What a mark means without the team's own marks.
    fn dialect_state(&self, mark: &str) -> Option<State> {
        let given = rules_of(self.dialect).marks.iter().find(|(known, _)| *known == mark);
        given.map(|(_, state)| *state).or_else(|| status::state_of(mark))
    }
}

impl From<Dialect> for Convention {
    fn from(dialect: Dialect) -> Self {
        Self::of(dialect)
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dialect.fmt(out)?;
        self.marks.iter().try_for_each(|(mark, state)| write!(out, ",{mark}={state}"))
    }
}

impl FromStr for Convention {
    type Err = ConventionError;

    fn from_str(text: &str) -> Result<Self, ConventionError> {
        let mut parts = text.split(',');
        let dialect = parts.next().unwrap_or_default().trim().parse()?;
        let mut marks = BTreeMap::new();
        for part in parts {
            let (mark, state) =
                part.rsplit_once('=').ok_or_else(|| ConventionError::Shape { part: part.to_owned() })?;
            let mark = mark.trim();
            check_mark(mark)?;
            let state = state.trim().parse();
            let state = state.map_err(|unknown| ConventionError::State { mark: mark.to_owned(), unknown })?;
            if is_done_mark(mark) && state != State::Done {
                return Err(ConventionError::Mark { mark: mark.to_owned(), reason: "it means done in every dialect" });
            }
            marks.insert(mark.to_owned(), state);
        }
        if marks.len() > TEAM_MARKS_MAX {
            return Err(ConventionError::TooMany { marks: marks.len() });
        }
        Ok(Self { dialect, marks })
    }
}

fn check_mark(mark: &str) -> Result<(), ConventionError> {
    let line = format!("- [{mark}] text");
    let is_read = shape(&line) == task("- [".len(), mark.len());
    let reason = if mark.is_empty() {
        "blank means todo in every dialect"
    } else if matches!(mark, "x" | "X") {
        "it means done in every dialect"
    } else if !is_read || mark.contains('\n') {
        "a line with it in brackets isn't read as a task"
    } else {
        return Ok(());
    };
    Err(ConventionError::Mark { mark: mark.to_owned(), reason })
}

impl TryFrom<String> for Convention {
    type Error = ConventionError;

    fn try_from(text: String) -> Result<Self, ConventionError> {
        text.parse()
    }
}

impl From<Convention> for String {
    fn from(convention: Convention) -> Self {
        convention.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failing test should panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conventions_are_written_and_read() {
        for text in
            ["kiro", "kiro,!=review,~=blocked", "checklist,==blocked", "table,-=cancelled", "openspec,漢=review"]
        {
            let read = text.parse::<Convention>();
            if text.contains('漢') {
                assert_eq!(read.unwrap().state_of("漢"), Some(State::Review));
            } else {
                assert_eq!(read.unwrap().to_string(), text);
            }
        }
        let convention: Convention = "kiro,~=blocked,!=review".parse().unwrap();
        assert_eq!(convention.state_of("~"), Some(State::Blocked));
        assert_eq!(convention.state_of("!"), Some(State::Review));
        assert_eq!(convention.state_of("?"), None);
        assert_eq!(convention.mark_of(State::Review).as_deref(), Some("!"));
        assert_eq!(convention.mark_of(State::Archived), None);
    }

    #[test]
    fn what_is_no_convention_is_refused_with_what_there_is() {
        for (text, said) in [
            ("kirro", "no dialect is called \"kirro\"; there are "),
            ("kiro,~=stuck", "mark \"~\": no state is called \"stuck\"; there are todo, in-progress"),
            ("kiro,~", "\"~\" gives no mark a meaning"),
            ("kiro,x=todo", "\"x\" can't be a mark of your own: it means done in every dialect"),
            ("kiro,✅=review", "it means done in every dialect"),
            ("kiro, =review", "blank means todo in every dialect"),
            ("kiro,P=review", "a line with it in brackets isn't read as a task"),
            ("kiro,a long mark of many=review", "a line with it in brackets isn't read as a task"),
            ("", "no dialect is called \"\""),
        ] {
            let error = text.parse::<Convention>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        let many: Vec<String> = ('\u{2900}'..'\u{2940}').map(|mark| format!(",{mark}=review")).collect();
        assert!(matches!(format!("kiro{}", many.concat()).parse::<Convention>(), Err(ConventionError::TooMany { .. })));
    }

    #[test]
    fn every_mark_of_every_dialect_gives_its_state_back() {
        for dialect in Dialect::all() {
            for state in State::ALL {
                if let Some(mark) = Convention::of(dialect).mark_of(state) {
                    assert_eq!(Convention::of(dialect).state_of(&mark), Some(state), "{dialect} {state}");
                }
            }
            for (mark, state) in rules_of(dialect).marks {
                assert_eq!(Convention::of(dialect).state_of(mark), Some(*state), "{dialect} {mark}");
            }
        }
    }

    proptest! {
        #[test]
        fn with_any_marks_a_mark_gives_its_state_back(marks in prop::collection::btree_map("[-xX~! /✅a]{1,2}", prop::sample::select(&State::ALL[..]), 0..6), at: prop::sample::Index) {
            let dialects: Vec<Dialect> = Dialect::all().collect();
            let convention = Convention { dialect: *at.get(&dialects), marks };
            for state in State::ALL {
                if let Some(mark) = convention.mark_of(state) {
                    prop_assert_eq!(convention.state_of(&mark), Some(state));
                }
            }
            if let Ok(read) = convention.to_string().parse::<Convention>() {
                prop_assert_eq!(read.to_string().parse::<Convention>().unwrap(), read);
            }
        }
    }
}
