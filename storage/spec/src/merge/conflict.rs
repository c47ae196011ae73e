//! What a disagreement is: its values in full, its class, and how much it matters.
//!
//! A conflict is a value that is stored and resolved, never an error. The classes are those of the whole product: a merge of two texts only
//! finds the first two, the others are found by whoever reads dialects, versions, dependencies and permissions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of disagreement a conflict is. The order is part of stored formats; new classes are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConflictClass {
    /// Two values of one field.
    Data,
    /// Whether a block exists, and where.
    Structure,
    /// The dialect or the shape of a file changed, so that fields mean something else.
    Schema,
    /// An edit was made from a version that the other side no longer has, or never had.
    Version,
    /// A task depends on one that isn't there, or in a circle.
    Dependency,
    /// An edit that its author may not make.
    Permission,
}

/// What two writers disagree about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConflictField {
    /// The mark of a task. The values are marks.
    Mark,
    /// The wording, indentation or kind. The values are whole blocks, as in the file.
    Text,
    /// The place. The values are the texts of the blocks before it; empty = it is the first.
    Place,
    /// Whether it exists. The values are whole blocks; `None` = deleted.
    Existence,
}

/// All fields with the names they have in settings and stored conflicts.
const FIELDS: [(ConflictField, &str); 4] = [
    (ConflictField::Mark, "mark"),
    (ConflictField::Text, "text"),
    (ConflictField::Place, "place"),
    (ConflictField::Existence, "existence"),
];

impl fmt::Display for ConflictField {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FIELDS.iter().find(|(field, _)| field == self).map_or("", |(_, name)| *name);
        out.pad(name)
    }
}

/// A name that is none of the fields of a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no field that can be in conflict; use mark, text, place or existence")]
pub struct UnknownField(pub String);

impl FromStr for ConflictField {
    type Err = UnknownField;

    fn from_str(name: &str) -> Result<Self, UnknownField> {
        let field = FIELDS.iter().find(|(_, known)| *known == name).map(|(field, _)| *field);
        field.ok_or_else(|| UnknownField(name.to_owned()))
    }
}

/// A disagreement, with every value in full so that none is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict<I> {
    /// The block; `None` when it no longer has an identity (deleted in the cluster).
    pub id: Option<I>,
    /// What kind of disagreement.
    pub class: ConflictClass,
    /// About what.
    pub field: ConflictField,
    /// The value that both started from.
    pub base: Option<String>,
    /// The local value.
    pub ours: Option<String>,
    /// The current value.
    pub theirs: Option<String>,
}

/// How much a conflict matters to the people who work by the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Nothing that anybody wrote is in doubt.
    Low,
    /// One value is in doubt, and the other is one command away.
    Medium,
    /// A whole task is in doubt, or more than one.
    High,
    /// Somebody's rights are.
    Critical,
}

/// How much a conflict of this class about this field matters.
///
/// | class      | mark   | text   | place  | existence |
/// |------------|--------|--------|--------|-----------|
/// | data       | medium | medium | low    | high      |
/// | structure  | low    | medium | low    | high      |
/// | schema     | high   | high   | high   | high      |
/// | version    | medium | medium | medium | high      |
/// | dependency | high   | high   | high   | high      |
/// | permission | critical in every field                |
#[must_use]
pub fn severity(class: ConflictClass, field: ConflictField) -> Severity {
    match (class, field) {
        (ConflictClass::Permission, _) => Severity::Critical,
        (ConflictClass::Schema | ConflictClass::Dependency, _)
        | (ConflictClass::Data | ConflictClass::Structure | ConflictClass::Version, ConflictField::Existence) => {
            Severity::High
        }
        (ConflictClass::Data | ConflictClass::Version, ConflictField::Mark | ConflictField::Text)
        | (ConflictClass::Structure, ConflictField::Text)
        | (ConflictClass::Version, ConflictField::Place) => Severity::Medium,
        (ConflictClass::Data | ConflictClass::Structure, ConflictField::Place)
        | (ConflictClass::Structure, ConflictField::Mark) => Severity::Low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const CLASSES: [ConflictClass; 6] = [
        ConflictClass::Data,
        ConflictClass::Structure,
        ConflictClass::Schema,
        ConflictClass::Version,
        ConflictClass::Dependency,
        ConflictClass::Permission,
    ];

    #[test]
    fn severities_are_those_of_the_table() {
        let row = |class: &ConflictClass| {
            let cells: Vec<String> =
                FIELDS.iter().map(|(field, _)| format!("{field} {:?}", severity(*class, *field))).collect();
            format!("{class:?}: {}\n", cells.join(", "))
        };
        expect![[r#"
            Data: mark Medium, text Medium, place Low, existence High
            Structure: mark Low, text Medium, place Low, existence High
            Schema: mark High, text High, place High, existence High
            Version: mark Medium, text Medium, place Medium, existence High
            Dependency: mark High, text High, place High, existence High
            Permission: mark Critical, text Critical, place Critical, existence Critical
        "#]]
        .assert_eq(&CLASSES.iter().map(row).collect::<String>());
    }

    #[test]
    fn names_of_fields_are_read_back() {
        for (field, name) in FIELDS {
            assert_eq!(name.parse(), Ok(field));
            assert_eq!(field.to_string(), name);
        }
        assert_eq!("title".parse::<ConflictField>(), Err(UnknownField("title".to_owned())));
    }
}
