//! A disagreement that is kept: two values of one field, which of them stands, and how it was settled.

use super::Settlement;
use crate::id::{RecordId, Revision};
use serde::{Deserialize, Serialize};

/// What kind of disagreement a conflict is (the seed's classes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConflictClass {
    /// Two values of one field.
    Data,
    /// Places, parents, existence.
    Structure,
    /// A version that was expected is gone.
    Version,
    /// A blocked-by that can't hold.
    Dependency,
    /// One side wasn't allowed to.
    Permission,
    /// A file whose dialect or structure changed.
    Schema,
}

/// What a conflict can be about: parts of a block, of a file (`dialect`), and a task's runtime fields.
pub const CONFLICT_FIELDS: &[&str] = &[
    "mark",
    "text",
    "place",
    "existence",
    "dialect",
    "status",
    "assignee",
    "priority",
    "due",
    "labels",
    "blocked-by",
    "requirements",
];

/// How much a conflict matters (the seed's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing was lost that anybody must see.
    Low,
    /// Somebody should look.
    Medium,
    /// Words or work of somebody don't stand.
    High,
    /// A whole file waits.
    Critical,
}

/// Two values of which one lost. The winner stands in the record; the loser is kept here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The change in which it arose.
    pub change: RecordId,
    /// The block it is about, where that is one.
    pub block: Option<RecordId>,
    /// What kind of disagreement.
    pub class: ConflictClass,
    /// One of [`CONFLICT_FIELDS`].
    pub field: String,
    /// The value both started from.
    pub base: Option<String>,
    /// The value from the file.
    pub spec: Option<String>,
    /// The value that the cluster had; it stands unless the settlement says otherwise.
    pub runtime: Option<String>,
    /// Who proposed the file's value.
    pub author: String,
    /// When and how it was settled; `None` while it is open.
    pub settled: Option<Settled>,
}

/// When, by whom and how a conflict was settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The revision that settled it.
    pub at: Revision,
    /// In whose name.
    pub author: String,
    /// How.
    pub settlement: Settlement,
}

impl Conflict {
    /// How much it matters: a function of what it is about, so that it needs no place in the record.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match (self.class, self.field.as_str()) {
            (ConflictClass::Schema, _) => Severity::Critical,
            (ConflictClass::Permission, _) | (_, "text" | "existence") => Severity::High,
            (_, "mark" | "status" | "assignee" | "blocked-by") => Severity::Medium,
            (
                ConflictClass::Data | ConflictClass::Structure | ConflictClass::Version | ConflictClass::Dependency,
                _,
            ) => Severity::Low,
        }
    }
}
