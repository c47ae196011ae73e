//! Committed entries into the tables: opens what the leader sealed, decodes it, applies it, answers.
//!
//! An entry that can't be opened or decoded stops this node for good, with the reason: another node could apply it, so to
//! skip it would be to part from the others for ever. The usual reasons are a missing data key and an older release.
//!
//! This runs as a task of openraft. [`Tables::apply`] is synchronous but only works in memory; between entries the task gives
//! way, so that a heartbeat on the same thread never waits for more than [`ENTRIES_PER_TURN`] of them. A rollback, which may take
//! seconds, is applied on a thread for blocking work; so are snapshots built and installed.

pub(crate) mod snapshots;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use futures::stream::Stream;
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftStateMachine};
use tokio::sync::watch;
use tracing::{error, info, warn};
use zyflow_crypto::{KeyRing, Lineage, OpenError, Purpose};
use zyflow_machine::command::Body;
use zyflow_machine::format::{self, FormatError};
use zyflow_storage::codec::{self, CodecError};
use zyflow_storage::snapshot::{SnapshotError, SnapshotStore};
use zyflow_storage::tables::{self, Position, Tables, TablesError};
use zyflow_storage::types::{
    Applied, Entry, EntryPayload, LogId, NodeId, Roster, SnapshotMeta, StoredMembership, TypeConfig,
};

use crate::fatal::chain;
use crate::log::{Log, LogWatch};
use crate::metrics::Counters;
use snapshots::SnapshotBuilder;

/// Entries applied before other tasks get their turn: at some 100 µs for a full one, a few milliseconds.
const ENTRIES_PER_TURN: usize = 32;

/// Rows that wait for SQLite, past which applying rests until it has caught up: 7/8 of what the tables hold before they would
/// block this thread, and with it the heartbeats.
const BACKLOG_REST_OPS: usize = 28_672;
/// How long it rests at a time.
const BACKLOG_REST: Duration = Duration::from_millis(1);

/// A snapshot file, complete and durable.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// A snapshot as openraft passes it around.
pub(crate) type Snapshot = SnapshotOf<TypeConfig, SnapshotFile>;

/// Why this node can't apply an entry, or handle a snapshot. All of them stop it, but for a snapshot that there is no room for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("opening entry {index}: {source}")]
    Open {
        index: u64,
        #[source]
        source: OpenError,
    },
    #[error("decoding entry {index}: {source}")]
    Decode {
        index: u64,
        #[source]
        source: FormatError,
    },
    #[error("applying entry {index}: {source}")]
    Tables {
        index: u64,
        #[source]
        source: TablesError,
    },
    #[error("reading the membership that the tables keep")]
    Membership(#[source] CodecError),
    #[error("{doing}")]
    Snapshot {
        doing: &'static str,
        #[source]
        source: SnapshotError,
    },
    #[error("looking at the tables")]
    State(#[source] TablesError),
    #[error("{0} panicked")]
    Panicked(&'static str),
}

/// The state machine that openraft feeds.
#[derive(Clone)]
pub(crate) struct Applier {
    pub(crate) tables: Tables,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) log: Arc<dyn LogWatch>,
    pub(crate) disk_free_bytes_min: u64,
    pub(crate) snapshots_inline: bool,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) lineage: Lineage,
    pub(crate) counters: Arc<Counters>,
    /// Who was removed, as of the newest applied entry.
    pub(crate) removed: watch::Sender<BTreeSet<NodeId>>,
    /// Where the reason goes that stops this node: openraft's own error carries less of it.
    pub(crate) fatal: watch::Sender<Option<Arc<str>>>,
}

impl Applier {
    /// Notes why this node stops, for people, and says it to openraft.
    fn stop<T>(&self, result: Result<T, ApplyError>) -> Result<T, io::Error> {
        result.map_err(|failure| {
            let reason = chain(&failure);
            error!(reason, "this node can't apply the log and stops");
            crate::fatal::set(&self.fatal, || reason);
            io::Error::other(failure)
        })
    }

    /// The entry as the tables take it, and who is removed once it is applied, where it says so.
    fn open(&self, entry: Entry) -> Result<(tables::Entry, Option<BTreeSet<NodeId>>), ApplyError> {
        let index = entry.log_id.index;
        let mut removed = None;
        let payload = match entry.payload {
            EntryPayload::Blank => tables::EntryPayload::Blank,
            EntryPayload::Normal(sealed) => {
                let opened = zyflow_crypto::open(&self.ring, Purpose::Entry, &self.lineage, &sealed.0)
                    .map_err(|source| ApplyError::Open { index, source })?;
                let batch =
                    format::decode_batch(&opened.plaintext).map_err(|source| ApplyError::Decode { index, source })?;
                tables::EntryPayload::Batch(batch)
            }
            EntryPayload::Membership(membership) => {
                let roster = self.roster()?.followed_by(membership);
                let mut bytes = Vec::new();
                codec::encode_roster(&roster, &mut bytes);
                removed = Some(roster.removed);
                tables::EntryPayload::Membership(bytes)
            }
        };
        Ok((tables::Entry { position: position_of(entry.log_id), payload }, removed))
    }

    fn apply_one(&self, entry: tables::Entry, removed: Option<BTreeSet<NodeId>>) -> Result<Applied, ApplyError> {
        let index = entry.position.index;
        let outcomes = self.tables.apply(entry).map_err(|source| ApplyError::Tables { index, source })?;
        self.counters.entries_applied.add(1);
        if let Some(removed) = removed {
            self.publish_removed(removed);
        }
        Ok(Applied { revision: index, outcomes: outcomes.iter().map(format::encode_outcome).collect() })
    }

    /// Refuses a log that ends before what the tables were fed from it: openraft would take the gap for a snapshot.
    ///
    /// # Errors
    /// Why it doesn't fit, for people.
    pub(crate) async fn check_log(&self, log: &impl Log) -> Result<(), String> {
        let (applied, _membership) = self.state().map_err(|error| chain(&error))?;
        let snapshot = self.on_a_thread("looking for the newest snapshot", Self::current).await;
        let snapshot = snapshot.map_err(|error| chain(&error))?;
        let snapshot = snapshot.and_then(|snapshot| snapshot.meta.last_log_id);
        log.check_state(applied, snapshot).await.map_err(|error| chain(error.as_ref()))
    }

    /// Work that blocks.
    async fn on_a_thread<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Self) -> Result<T, ApplyError> + Send + 'static,
    ) -> Result<T, ApplyError> {
        if self.snapshots_inline {
            return work(self);
        }
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.unwrap_or(Err(ApplyError::Panicked(what)))
    }

    /// Who takes part, and who was removed, as of the newest applied entry.
    fn roster(&self) -> Result<Roster, ApplyError> {
        let (_applied, kept) = self.tables.applied_state().map_err(ApplyError::State)?;
        kept.map_or_else(|| Ok(Roster::default()), |(_position, bytes)| codec::decode_roster(&bytes))
            .map_err(ApplyError::Membership)
    }

    /// Reads from the tables who was removed, for the gate.
    pub(crate) fn load_removed(&self) -> Result<(), ApplyError> {
        self.publish_removed(self.roster()?.removed);
        Ok(())
    }

    fn publish_removed(&self, removed: BTreeSet<NodeId>) {
        self.removed.send_if_modified(|known| {
            let is_new = *known != removed;
            *known = removed;
            is_new
        });
    }

    fn state(&self) -> Result<(Option<LogId>, StoredMembership), ApplyError> {
        let (applied, membership) = self.tables.applied_state().map_err(ApplyError::State)?;
        Ok((applied.map(log_id_of), stored_membership(membership)?))
    }
}

/// Whether an entry may take so long that the heartbeats on this thread must not wait for it: a rollback reads and changes a whole state.
fn takes_long(entry: &tables::Entry) -> bool {
    match &entry.payload {
        tables::EntryPayload::Batch(batch) => batch.commands.iter().any(|command| is_rollback(&command.body)),
        tables::EntryPayload::Blank | tables::EntryPayload::Membership(_) => false,
    }
}

fn is_rollback(body: &Body) -> bool {
    if let Body::Expecting { body, .. } = body { is_rollback(body) } else { matches!(body, Body::Rollback { .. }) }
}

/// Log ids carry no leader: at most one leads in a term.
fn position_of(id: LogId) -> Position {
    Position { term: id.leader_id.term, leader: 0, index: id.index }
}

fn log_id_of(position: Position) -> LogId {
    LogId::new_term_index(position.term, position.index)
}

fn stored_membership(stored: Option<(Position, Vec<u8>)>) -> Result<StoredMembership, ApplyError> {
    let Some((position, bytes)) = stored else { return Ok(StoredMembership::default()) };
    let roster = codec::decode_roster(&bytes).map_err(ApplyError::Membership)?;
    Ok(StoredMembership::new(Some(log_id_of(position)), roster.membership))
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.stop(self.state())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut turn = 0;
        while let Some((entry, responder)) = entries.try_next().await? {
            while self.tables.backlog_ops() > BACKLOG_REST_OPS && self.fatal.borrow().is_none() {
                tokio::time::sleep(BACKLOG_REST).await;
            }
            let (entry, removed) = self.stop(self.open(entry))?;
            let applied = if takes_long(&entry) {
                self.on_a_thread("applying a rollback", move |this| this.apply_one(entry, removed)).await
            } else {
                self.apply_one(entry, removed)
            };
            let applied = self.stop(applied)?;
            if let Some(responder) = responder {
                responder.send(applied);
            }
            turn += 1;
            if turn == ENTRIES_PER_TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// No snapshot where it would leave the disk nearly full: the log goes on without it, and openraft asks again some thousand entries
    /// later. With `force` openraft asks at a start, and can't go on without one.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        if !force {
            let looked = self.on_a_thread("looking for room for a snapshot", Self::room_needed).await;
            let free = self.log.free_space();
            match looked {
                Ok(needed) if free >= needed => {}
                Ok(needed) => {
                    warn!(free, needed, "no snapshot is built: the disk is nearly full");
                    return None;
                }
                Err(error) => {
                    warn!(reason = chain(&error), "no snapshot is built: how much room it needs isn't known");
                    return None;
                }
            }
        }
        Some(SnapshotBuilder { applier: self.clone(), is_needed: force })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { applier: self.clone(), is_needed: true }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> Result<(), io::Error> {
        let installed = self.on_a_thread("installing a snapshot", move |this| this.install(&snapshot)).await;
        self.stop(installed.and_then(|()| self.load_removed()))?;
        self.counters.snapshots_installed.add(1);
        info!(last = ?meta.last_log_id, "installed a snapshot");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.on_a_thread("looking for the newest snapshot", Self::current).await;
        self.stop(current)
    }
}
