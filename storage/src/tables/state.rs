//! What moves with the rows, in their transaction: where in the log the tables are, and the machine's header.

use serde::{Deserialize, Serialize};
use zyflow_machine::id::{Revision, SessionId};

use super::entry::Position;
use super::error::TablesError;

const FORMAT: u16 = 1;

/// A membership and the entry that brought it.
pub(crate) type StoredMembership = Option<(Position, Vec<u8>)>;

/// The state that isn't rows or sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedState {
    /// The newest entry whose effects are in the rows.
    pub(crate) position: Position,
    /// The membership at that entry.
    pub(crate) membership: StoredMembership,
    /// The machine's header at that entry; its sessions are rows of their own.
    pub(crate) machine: Vec<u8>,
}

/// A session with its bytes.
pub(crate) type SavedSession = (SessionId, Vec<u8>);

impl SavedState {
    pub(crate) fn revision(&self) -> Revision {
        self.position.revision()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes = FORMAT.to_be_bytes().to_vec();
        postcard::to_extend(self, bytes).expect("invariant: memory is the only sink and every length is known")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TablesError> {
        let malformed = || TablesError::damaged("the record of the last applied entry is malformed");
        let (format, body) = bytes.split_first_chunk::<2>().ok_or_else(malformed)?;
        if u16::from_be_bytes(*format) != FORMAT {
            return Err(malformed());
        }
        match postcard::take_from_bytes(body) {
            Ok((state, [])) => Ok(state),
            Ok(_) | Err(_) => Err(malformed()),
        }
    }
}
