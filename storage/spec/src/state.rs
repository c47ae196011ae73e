//! Where the work on a task stands, and how pressing it is: the words that all dialects are translated into.
//!
//! How a file shows a state is the business of `convention` and `express`; what may follow what is decided where states are stored.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where the work on a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody works on it.
    Todo,
    /// Somebody works on it.
    InProgress,
    /// It is written and somebody looks at it.
    Review,
    /// It waits for something else.
    Blocked,
    /// It is finished.
    Done,
    /// It won't be done.
    Cancelled,
    /// It is put away.
    Archived,
}

impl State {
    /// All states, in the order of a task's life.
    pub const ALL: [Self; 7] =
        [Self::Todo, Self::InProgress, Self::Review, Self::Blocked, Self::Done, Self::Cancelled, Self::Archived];

    /// The state's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Todo => "todo",
            Self::InProgress => "in-progress",
            Self::Review => "review",
            Self::Blocked => "blocked",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Archived => "archived",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A name that no state has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no state is called {name:?}; there are {}", State::ALL.map(State::as_str).join(", "))]
pub struct UnknownState {
    /// The name asked for.
    pub name: String,
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == name);
        found.ok_or_else(|| UnknownState { name: name.to_owned() })
    }
}

/// How pressing a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// It can wait.
    Low,
    /// As others.
    Medium,
    /// Before others.
    High,
}

/// What people write for an urgency, in lower case.
const URGENCIES: &[(&str, Urgency)] = &[
    ("high", Urgency::High),
    ("highest", Urgency::High),
    ("critical", Urgency::High),
    ("urgent", Urgency::High),
    ("p0", Urgency::High),
    ("p1", Urgency::High),
    ("高", Urgency::High),
    ("높음", Urgency::High),
    ("alta", Urgency::High),
    ("высокий", Urgency::High),
    ("medium", Urgency::Medium),
    ("normal", Urgency::Medium),
    ("p2", Urgency::Medium),
    ("中", Urgency::Medium),
    ("중간", Urgency::Medium),
    ("보통", Urgency::Medium),
    ("media", Urgency::Medium),
    ("средний", Urgency::Medium),
    ("low", Urgency::Low),
    ("lowest", Urgency::Low),
    ("p3", Urgency::Low),
    ("p4", Urgency::Low),
    ("低", Urgency::Low),
    ("낮음", Urgency::Low),
    ("baja", Urgency::Low),
    ("baixa", Urgency::Low),
    ("низкий", Urgency::Low),
];

impl Urgency {
    /// What a word written for a priority means (`high`, `P0`, `低`), in any case; `None` when it is no such word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        URGENCIES.iter().find(|(known, _)| *known == word).map(|(_, urgency)| *urgency)
    }

    /// The urgency's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Urgency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failing test should panic")]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse::<State>().unwrap(), state);
        }
        let error = "finished".parse::<State>().unwrap_err().to_string();
        assert_eq!(
            error,
            r#"no state is called "finished"; there are todo, in-progress, review, blocked, done, cancelled, archived"#
        );
    }

    #[test]
    fn urgencies_are_read_in_any_case() {
        assert_eq!(Urgency::of_word("P0"), Some(Urgency::High));
        assert_eq!(Urgency::of_word("Low"), Some(Urgency::Low));
        assert_eq!(Urgency::of_word("中"), Some(Urgency::Medium));
        assert_eq!(Urgency::of_word("soon"), None);
    }
}
