//! Holds what a snapshot says against itself: do its versions follow each other, and add up to its digest?
//!
//! ```text
//!   version, version, .. --> the newest of each record, and what it adds --> sum ---+
//!   session, session, .. --> what each adds --------------------------------> sum --+--> the digest in the header, and the machine's
//! ```
//!
//! One pass and no database: each version takes away again what the one before it added. So something of each record is in memory
//! meanwhile, deleted ones included: 48 bytes, and with the room in the nodes of the tree at most some 100. A million records are 100 MB
//! for the seconds that it takes; their texts are never in memory together.
//!
//! It asks of versions what an installation asks (`tables/snapshots.rs`), so what passes here can be installed.
//!
//! Deliberately not here: whether the bytes are those that were written; the reader of the file sees to that.

use std::collections::BTreeMap;
use std::path::Path;

use zyflow_machine::format::FormatError;
use zyflow_machine::id::{EventId, RecordId, Revision, SessionId};
use zyflow_machine::record::Record;
use zyflow_machine::session::digest_of_saved;
use zyflow_machine::{Digest, Machine};

use super::SnapshotError;
use super::format::Header;
use crate::tables::{SavedSession, TablesError, TravellingVersion};

/// See the module.
pub(super) struct Tally<'a> {
    file: &'a Path,
    header: &'a Header,
    /// Where the history begins, as the versions say.
    horizon: Revision,
    last: Option<EventId>,
    newest: BTreeMap<RecordId, Newest>,
    digest: Digest,
    sessions: Vec<SavedSession>,
}

/// The newest version of a record so far.
struct Newest {
    version: EventId,
    /// What it adds; a deleted record adds nothing.
    part: Digest,
}

impl<'a> Tally<'a> {
    /// Of a file with that header.
    pub(super) fn new(file: &'a Path, header: &'a Header) -> Self {
        let (horizon, digest) = (Revision::default(), Digest::ZERO);
        Self { file, header, horizon, last: None, newest: BTreeMap::new(), digest, sessions: Vec::new() }
    }

    /// Adds a version; they come in version order.
    pub(super) fn add_version(&mut self, given: &TravellingVersion) -> Result<(), SnapshotError> {
        let (version, id) = (given.version, given.id);
        if self.last >= Some(version) {
            return Err(self.wrong("its versions are out of order"));
        }
        self.last = Some(version);
        let known = self.newest.get(&id);
        let is_next = match (given.previous, known) {
            (Some(previous), Some(newest)) => previous == newest.version,
            // What was replaced by the horizon isn't kept.
            (Some(previous), None) => previous.revision() <= self.header.horizon,
            (None, known) => known.is_none(),
        };
        if !is_next {
            return Err(self.wrong(format!("the version before {version} of {id} is missing")));
        }
        let row = given.body.row(version, id, given.previous).map_err(|error| self.unreadable(version, error))?;
        let mut part = Digest::ZERO;
        if let Some(record) = &row.stored.record {
            let encoded = given.body.encoded_record().map_err(|error| self.unreadable(version, error))?;
            part = Digest::of_encoded_row(id, encoded);
            if let Record::Retention(retention) = record {
                self.horizon = retention.horizon;
            }
        }
        let replaced = self.newest.insert(id, Newest { version, part });
        self.digest = self.digest.add(part).remove(replaced.map_or(Digest::ZERO, |replaced| replaced.part));
        Ok(())
    }

    /// Adds a session.
    pub(super) fn add_session(&mut self, id: SessionId, bytes: Vec<u8>) -> Result<(), SnapshotError> {
        let part =
            digest_of_saved(id, &bytes).map_err(|error| self.undecodable(&format!("session {}", id.0), error))?;
        self.digest = self.digest.add(part);
        self.sessions.push((id, bytes));
        Ok(())
    }

    /// After the last item: does all of it add up to what the header says?
    pub(super) fn finish(mut self) -> Result<(), SnapshotError> {
        let (found, expected) = (self.digest, Digest::from_bytes(self.header.digest));
        if found != expected {
            return Err(self.wrong(format!("it adds up to {found} and not to {expected}")));
        }
        if self.horizon != self.header.horizon {
            return Err(self.wrong("its horizon is not the one that its rows say"));
        }
        let (state, sessions) = (&self.header.state, std::mem::take(&mut self.sessions));
        let machine = Machine::restore(&state.machine, sessions.into_iter())
            .map_err(|error| self.undecodable("the machine's state", error))?;
        if machine.revision() != state.revision() || machine.digest() != expected {
            return Err(self.wrong("the machine's header is of another state than its rows"));
        }
        Ok(())
    }

    fn wrong(&self, reason: impl Into<String>) -> SnapshotError {
        SnapshotError::inconsistent(self.file, reason)
    }

    fn unreadable(&self, version: EventId, error: TablesError) -> SnapshotError {
        let what = format!("version {version}");
        if let TablesError::Undecodable { source, .. } = error {
            self.undecodable(&what, source)
        } else {
            self.wrong(format!("{what} is malformed"))
        }
    }

    /// What can't be decoded is wrong, unless a newer release wrote it: then this one mustn't judge it.
    fn undecodable(&self, what: &str, source: FormatError) -> SnapshotError {
        if matches!(source, FormatError::UnknownVersion { .. }) {
            return TablesError::Undecodable { what: what.to_owned(), source }.into();
        }
        self.wrong(format!("{what} can't be read: {source}"))
    }
}
