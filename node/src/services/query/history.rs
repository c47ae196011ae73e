//! Parts of a history: as many versions, from the newest down, as are asked for and one message holds. Whoever wants all of it goes on
//! before the oldest version of the last part.

use prost::Message;
use zyflow_api::MESSAGE_BYTES_MAX;
use zyflow_api::v1;
use zyflow_machine::record::Record;
use zyflow_storage::tables::Version;

/// Most versions in one part.
const VERSIONS_MAX: usize = 10_000;

/// Bytes of one part: half of what a message may have. A version, a block and what happened to it, takes at most some 2 MiB.
pub(super) const PART_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

/// A part that is being gathered.
pub(super) struct Part {
    /// Newest first.
    versions: Vec<v1::Version>,
    bytes: usize,
    versions_max: usize,
    /// There is an older one that has no place here.
    is_cut: bool,
}

impl Part {
    /// Of at most `limit` versions; 0 = as many as there may be.
    pub(super) fn new(limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(VERSIONS_MAX);
        let versions_max = if limit == 0 { VERSIONS_MAX } else { limit.min(VERSIONS_MAX) };
        Self { versions: Vec::new(), bytes: 0, versions_max, is_cut: false }
    }

    /// Takes the next older version, if it has a place; whether to go on. At least one always has.
    pub(super) fn take(&mut self, version: Version) -> bool {
        if self.versions.len() >= self.versions_max {
            self.is_cut = true;
            return false;
        }
        let version = shown(version);
        self.bytes += version.encoded_len();
        self.is_cut = self.bytes > PART_BYTES_MAX && !self.versions.is_empty();
        if !self.is_cut {
            self.versions.push(version);
        }
        !self.is_cut
    }

    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    pub(super) fn newest_first(self) -> v1::History {
        v1::History { versions: self.versions, more: self.is_cut }
    }

    pub(super) fn oldest_first(mut self) -> v1::History {
        self.versions.reverse();
        self.newest_first()
    }
}

fn shown(version: Version) -> v1::Version {
    v1::Version {
        version: version.version.to_u64(),
        provenance: Some((*version.provenance).clone().into()),
        block: match &version.stored.record {
            Some(Record::Block(block)) => Some(block.clone().into()),
            _ => None,
        },
        fact: Some(version.fact.into()),
    }
}
