//! A new cluster from a backup: the data folder of its first voter, with one snapshot in it.
//!
//! ```text
//!   chain, up to the cut ──────────────┐
//!   "restored: cut, last" at R ────────┼──> snapshot at (term 0, index R), membership = this node
//!   sessions: none                     ┘
//!   log: none; the node makes an empty one at its first start, installs the snapshot, and goes on after R
//! ```
//!
//! R is a million above the last revision of the whole backup, not of the cut: so that whatever was seen of the old cluster, also what came
//! after the backup, lies below it, and can be told from what happens from now on. Sessions are gone, so no request of before can be
//! taken for one that was answered.
//!
//! Deliberately not here: the other nodes. They join the first one by its snapshot, as any node does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use zyflow_crypto::{KeyRing, Lineage};
use zyflow_machine::command::Author;
use zyflow_machine::event::{Event, Fact, Provenance};
use zyflow_machine::evolve::evolve;
use zyflow_machine::id::{ClusterTime, EventId, REVISION_MAX, RecordId, Revision};
use zyflow_machine::record::{Keep, Kind, Record, Restore, Retention};
use zyflow_machine::view::Stored;
use zyflow_machine::{Digest, Machine};

use super::BackupError;
use super::archive::{Archive, Object};
use super::object::Reader;
use super::replay::{Moment, Replayed, State, replay};
use crate::codec::encode_roster;
use crate::layout::Layout;
use crate::snapshot::{Parts, SnapshotError, SnapshotStore};
use crate::tables::{Body, Position, Row, SavedState, TravellingVersion};
use crate::types::{Membership, NodeId, NodeInfo, Roster};

/// How far above the last revision of the backup the new cluster begins: an hour of full load and more of what the old cluster did after
/// its last backup.
pub const REVISIONS_AHEAD: u64 = 1_000_000;

/// What the new cluster begins as.
#[derive(Clone, Debug)]
pub struct RestorePlan<'a> {
    /// Its name, which isn't the old one's.
    pub cluster: &'a str,
    /// The history that its configuration names.
    pub lineage: Lineage,
    /// Its first voter.
    pub node: NodeId,
    /// Where that is reached.
    pub info: NodeInfo,
    /// That node's data folder, which doesn't exist or is empty.
    pub data: &'a Path,
    /// Which state; `None` = the newest.
    pub to: Option<Moment>,
    /// Now, by this machine's clock.
    pub now: ClusterTime,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision whose state it is.
    pub cut: Revision,
    /// The time of its newest event.
    pub cut_time: Option<ClusterTime>,
    /// The last revision of the backup.
    pub last: Revision,
    /// The revision at which the new cluster begins.
    pub revision: Revision,
    /// The oldest revision that it can show.
    pub oldest: Revision,
    /// Versions in it.
    pub versions: u64,
    /// The digest of the state.
    pub digest: Digest,
}

/// Restores a backup into an empty folder; `working` is another folder for what is needed meanwhile. The whole chain is replayed before
/// anything is made.
///
/// # Errors
/// Anything in the backup is not what was backed up, the moment isn't in it, or the folder isn't empty: then nothing was made.
pub fn restore(
    archive: &Archive,
    plan: &RestorePlan<'_>,
    ring: &KeyRing,
    working: &Path,
) -> Result<Restored, BackupError> {
    let lineage = archive.objects().first().map_or(plan.lineage, |object| object.checked.header.lineage);
    if lineage != plan.lineage {
        let (found, expected) = (lineage.to_string(), plan.lineage.to_string());
        return Err(BackupError::OtherLineage { found, expected });
    }
    let last = archive.last();
    let revision = last.0.checked_add(REVISIONS_AHEAD).filter(|revision| *revision < REVISION_MAX).map(Revision);
    let revision = revision.ok_or(BackupError::RevisionsUsedUp(last))?;
    let (chain, replayed, cut) = choose(archive, plan.to, ring, working)?;
    if replayed.cluster == plan.cluster {
        return Err(BackupError::SameCluster(replayed.cluster));
    }
    let time = plan.now.max(newest_time(&replayed));
    let mut mark = Mark::new(revision, time, cut);
    mark.add(None, None, Fact::Restored(Restore { cut: cut.revision, last }))?;
    let horizon = mark.move_horizon(&replayed)?;
    let Mark { versions: marks, digest, .. } = mark;
    let machine = Machine::begin_at(revision, time, digest);
    let position = Position { term: 0, leader: 0, index: revision.0 };
    let state = SavedState { position, membership: Some((position, roster(plan))), machine: machine.save().header };
    let mut versions = 0;
    Layout::create_filled(plan.data, (lineage, plan.node), |layout| {
        let store = SnapshotStore::open(&layout.snapshots_dir(), 1)?;
        let parts = Parts { state: &state, horizon, digest: machine.digest() };
        let meta = store.add_parts(&parts, ring, &lineage, |give| {
            versions = feed(chain, cut.revision, ring, give)?;
            Ok::<_, BackupError>(marks.iter().try_for_each(give)?)
        })?;
        store.verify(&meta.file, ring, &lineage)?;
        Ok::<_, BackupError>(())
    })?;
    let versions = versions + u64::try_from(marks.len()).unwrap_or(u64::MAX);
    Ok(Restored { cut: cut.revision, cut_time: cut.time, last, revision, oldest: horizon, versions, digest })
}

/// The newest chain that has the moment, replayed, with the state there.
fn choose<'a>(
    archive: &'a Archive,
    to: Option<Moment>,
    ring: &KeyRing,
    working: &Path,
) -> Result<(&'a [Object], Replayed, State), BackupError> {
    let mut refused = None;
    for chain in archive.chains().into_iter().rev() {
        let replayed = replay(chain, ring, working, to)?;
        match cut_of(&replayed, to) {
            Ok(cut) => {
                refuse_undone(&replayed, cut.revision)?;
                return Ok((chain, replayed, cut));
            }
            // The newest chain says what is too new, the oldest one what is too old.
            Err(error @ BackupError::TooNew { .. }) => {
                let too_old = refused.filter(|refused| matches!(refused, BackupError::TooOld { .. }));
                return Err(too_old.unwrap_or(error));
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or(BackupError::Unsettled))
}

/// The state at the moment that is wanted.
fn cut_of(replayed: &Replayed, to: Option<Moment>) -> Result<State, BackupError> {
    let end = replayed.end.ok_or(BackupError::Unsettled)?;
    let Some(wanted) = to else { return Ok(end) };
    let (newest, newest_ms) = (end.revision, end.time.map(|time| time.0));
    let (oldest, oldest_ms) = (replayed.oldest, replayed.oldest_time.map(|time| time.0));
    let is_too_old = match wanted {
        Moment::Revision(revision) => revision < oldest,
        Moment::Time(time) => Some(time) < replayed.oldest_time,
    };
    let is_too_new = match wanted {
        Moment::Revision(revision) => revision > newest,
        Moment::Time(time) => time.0 > newest_ms.unwrap_or_default().max(replayed.made_ms),
    };
    if is_too_old {
        return Err(BackupError::TooOld { wanted, oldest, time_ms: oldest_ms });
    }
    if is_too_new {
        return Err(BackupError::TooNew { wanted, newest, time_ms: newest_ms });
    }
    let cut = replayed.cut.filter(|cut| cut.revision <= newest).unwrap_or(end);
    // A time between an earlier restore and what it went back to means the latter.
    let undone = replayed.restores.iter().find(|(at, restore)| restore.undid(cut.revision, *at));
    match (wanted, undone) {
        (Moment::Time(_), Some((_, restore))) => Ok(State { revision: restore.cut, ..cut }),
        (Moment::Time(_) | Moment::Revision(_), _) => Ok(cut),
    }
}

fn refuse_undone(replayed: &Replayed, wanted: Revision) -> Result<(), BackupError> {
    match replayed.restores.iter().find(|(at, restore)| restore.undid(wanted, *at)) {
        Some((at, restore)) => Err(BackupError::Undone { wanted, cut: restore.cut, at: *at }),
        None => Ok(()),
    }
}

fn newest_time(replayed: &Replayed) -> ClusterTime {
    replayed.end.and_then(|end| end.time).unwrap_or_default()
}

/// Gives the versions of a chain up to a revision; says how many they are.
fn feed(
    chain: &[Object],
    cut: Revision,
    ring: &KeyRing,
    give: &mut dyn FnMut(&TravellingVersion) -> Result<(), SnapshotError>,
) -> Result<u64, BackupError> {
    let mut count = 0;
    for object in chain {
        let (mut reader, _) = Reader::open(object.open()?, &object.name(), ring)?;
        while let Some(version) = reader.next()? {
            if version.version.revision() > cut {
                return Ok(count);
            }
            give(&version)?;
            count += 1;
        }
        // It may have changed since it was replayed.
        if reader.finish()? != object.checked {
            return Err(BackupError::damaged(&object.name(), "it changed while it was read"));
        }
    }
    Ok(count)
}

/// What happens at the revision at which the new cluster begins.
struct Mark {
    at: Revision,
    time: ClusterTime,
    cut: State,
    versions: Vec<TravellingVersion>,
    /// Of the rows, with those that are made here.
    digest: Digest,
}

impl Mark {
    fn new(at: Revision, time: ClusterTime, cut: State) -> Self {
        Self { at, time, cut, versions: Vec::new(), digest: cut.digest }
    }

    /// Where the history begins: the backup's oldest revision. At the cut it may have begun earlier; what it let go of since isn't in the
    /// backup, so it is let go of again.
    fn move_horizon(&mut self, replayed: &Replayed) -> Result<Revision, BackupError> {
        let oldest = replayed.oldest;
        let (id, version, retention) = match self.cut.retention {
            Some(kept) => kept,
            None if oldest == Revision::default() => return Ok(oldest),
            None => {
                let id = self.add(None, None, Fact::RetentionCreated(Keep::default()))?;
                (id, id.0, Retention::default())
            }
        };
        if retention.horizon >= oldest {
            return Ok(retention.horizon);
        }
        let order = Record::Retention(retention).order(id);
        let before = Stored {
            version,
            kind: Kind::Retention,
            parent: RecordId::ROOT,
            order,
            record: Some(Record::Retention(retention)),
        };
        let time = replayed.oldest_time.unwrap_or_default();
        self.add(Some(id), Some(&before), Fact::HorizonMoved { to: oldest, time })?;
        Ok(oldest)
    }

    /// Adds an event about a record that was `before`, or about a new one.
    fn add(&mut self, record: Option<RecordId>, before: Option<&Stored>, fact: Fact) -> Result<RecordId, BackupError> {
        let ordinal = u32::try_from(self.versions.len()).expect("invariant: these are three at most");
        let version = EventId::new(self.at, ordinal).ok_or(BackupError::RevisionsUsedUp(self.at))?;
        let id = record.unwrap_or(RecordId(version));
        let made = evolve(Event { id: version, record: id, fact }, before);
        let made = made.expect("invariant: the event is about that record, or the record is new");
        let author = Author { name: "zyflow backup restore".to_owned(), clock_ms: self.time.0 };
        let stored = Stored { version, kind: made.kind, parent: made.parent, order: made.order, record: made.record };
        let provenance = Arc::new(Provenance { author, time: self.time, request: None });
        let previous = before.map(|before| before.version);
        let row = Row { id, stored: Arc::new(stored), previous, fact: made.fact, provenance };
        if let Some(record) = before.and_then(|before| before.record.as_ref()) {
            self.digest = self.digest.remove(Digest::of_row(id, record));
        }
        let body = Body::of_row(&row);
        self.digest = self.digest.add(Digest::of_encoded_row(id, body.encoded_record()?));
        self.versions.push(TravellingVersion { version, id, previous, body });
        Ok(id)
    }
}

/// This node alone, as a voter.
fn roster(plan: &RestorePlan<'_>) -> Vec<u8> {
    let nodes = BTreeMap::from([(plan.node, plan.info.clone())]);
    let membership = Membership::new(vec![BTreeSet::from([plan.node])], nodes);
    let membership = membership.expect("invariant: one voter, and it is among the nodes");
    let mut bytes = Vec::new();
    encode_roster(&Roster { membership, removed: BTreeSet::new() }, &mut bytes);
    bytes
}
