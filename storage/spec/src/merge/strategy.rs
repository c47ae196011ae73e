//! What a project wants done with conflicts: one strategy by default, and others for single fields.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::conflict::ConflictField;

/// How a conflict is settled. "Ours" is the file's value that is being proposed, "theirs" the cluster's, which was committed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Strategy {
    /// The specification wins: ours is set.
    SpecWins,
    /// The runtime state wins: theirs stays.
    RuntimeWins,
    /// The value that is committed last wins. That is ours: it is being proposed now. No clock is asked.
    LastWriteWins,
    /// Both values are kept where that needs no invented text; else the conflict stays open.
    Merge,
    /// Theirs stays and the conflict waits for a person.
    #[default]
    Manual,
    /// Theirs stays and nobody is asked; the record says so.
    Skip,
}

/// All strategies with their names in settings and records.
const STRATEGIES: [(Strategy, &str); 6] = [
    (Strategy::SpecWins, "SPEC_WINS"),
    (Strategy::RuntimeWins, "RUNTIME_WINS"),
    (Strategy::LastWriteWins, "LAST_WRITE_WINS"),
    (Strategy::Merge, "MERGE"),
    (Strategy::Manual, "MANUAL"),
    (Strategy::Skip, "SKIP"),
];

impl fmt::Display for Strategy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = STRATEGIES.iter().find(|(strategy, _)| strategy == self).map_or("", |(_, name)| *name);
        out.pad(name)
    }
}

/// A name that is no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no strategy; use SPEC_WINS, RUNTIME_WINS, LAST_WRITE_WINS, MERGE, MANUAL or SKIP")]
pub struct UnknownStrategy(pub String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    /// Reads `SPEC_WINS` as well as `spec-wins`.
    fn from_str(name: &str) -> Result<Self, UnknownStrategy> {
        let is_named = |known: &str| name == known || name == known.to_ascii_lowercase().replace('_', "-");
        let strategy = STRATEGIES.iter().find(|(_, known)| is_named(known)).map(|(strategy, _)| *strategy);
        strategy.ok_or_else(|| UnknownStrategy(name.to_owned()))
    }
}

/// The strategies of a project: a default and exceptions by field. The default of all is [`Strategy::Manual`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Strategies {
    /// For every field that `fields` doesn't name.
    pub default: Strategy,
    /// For single fields.
    pub fields: BTreeMap<ConflictField, Strategy>,
}

impl Strategies {
    /// One strategy for everything.
    #[must_use]
    pub fn all(default: Strategy) -> Self {
        Self { default, fields: BTreeMap::new() }
    }

    /// The same with another strategy for one field.
    #[must_use]
    pub fn with(mut self, field: ConflictField, strategy: Strategy) -> Self {
        self.fields.insert(field, strategy);
        self
    }

    /// The strategy for a field.
    #[must_use]
    pub fn of(&self, field: ConflictField) -> Strategy {
        self.fields.get(&field).copied().unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_both_writings() {
        for (strategy, name) in STRATEGIES {
            assert_eq!(strategy.to_string(), name);
            assert_eq!(name.parse(), Ok(strategy));
            assert_eq!(name.to_ascii_lowercase().replace('_', "-").parse(), Ok(strategy));
        }
        assert_eq!("spec_wins".parse::<Strategy>(), Err(UnknownStrategy("spec_wins".to_owned())));
    }

    #[test]
    fn a_field_overrides_the_default() {
        let strategies = Strategies::default().with(ConflictField::Mark, Strategy::RuntimeWins);
        assert_eq!(strategies.of(ConflictField::Mark), Strategy::RuntimeWins);
        assert_eq!(strategies.of(ConflictField::Text), Strategy::Manual);
    }
}
