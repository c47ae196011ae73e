//! Messages into the types of `zyflow-machine` and back.
//!
//! Outwards is `From` and never fails. Inwards is `TryFrom` and fails with the name of the field that is wrong; it never
//! fills in a default for something that the sender must have said.
//!
//! Deliberately not here: limits on sizes and names. The machine checks those, on every node the same.

mod command;
mod event;
mod ids;
mod outcome;
mod policy;
mod record;
mod retention;

#[cfg(test)]
mod tests;

pub use command::{Call, body_of, part};
pub use ids::{event_id, record_id};

/// A message that isn't what its type promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A message or `oneof` that must be set isn't, or is of a kind that this version doesn't know.
    #[error("`{field}` is missing, or of a kind that this version doesn't know")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// An enum is unset or has a value that this version doesn't know.
    #[error("`{field}` is {value}, which this version doesn't know")]
    UnknownValue {
        /// Which.
        field: &'static str,
        /// What came.
        value: i32,
    },
    /// A number is larger than its type holds.
    #[error("`{field}` is {value}, over the limit of {limit}")]
    OutOfRange {
        /// Which.
        field: &'static str,
        /// What came.
        value: u64,
        /// The largest that is possible.
        limit: u64,
    },
    /// Something stands within something of its own kind, where that isn't allowed.
    #[error("`{field}` holds one of its own kind")]
    Nested {
        /// Which.
        field: &'static str,
    },
}

/// The message or `oneof` that must be there.
fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing { field })
}
