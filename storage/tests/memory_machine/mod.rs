//! The smallest state machine that openraft's suite accepts: positions and membership, in memory.

use std::{
    io,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt};
use openraft::{
    RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
};
use zyflow_storage::types::{Applied, EntryPayload, LogId, SnapshotMeta, StoredMembership, TypeConfig};

/// What a snapshot of this machine is: nothing but its meta data.
type Content = ();
type MemorySnapshot = openraft::alias::SnapshotOf<TypeConfig, Content>;

#[derive(Clone, Default)]
struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

/// The machine, and its own snapshot builder.
#[derive(Clone, Default)]
pub struct MemoryMachine {
    state: Arc<Mutex<State>>,
}

impl RaftSnapshotBuilder<TypeConfig> for MemoryMachine {
    type SnapshotData = Content;

    async fn build_snapshot(&mut self) -> Result<MemorySnapshot, io::Error> {
        let mut state = self.state.lock().unwrap();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        state.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for MemoryMachine {
    type SnapshotData = Content;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state.lock().unwrap();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let mut state = self.state.lock().unwrap();
            state.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                state.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Applied { revision: entry.log_id.index, outcomes: Vec::new() });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): Content) -> Result<(), io::Error> {
        let mut state = self.state.lock().unwrap();
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<MemorySnapshot>, io::Error> {
        let state = self.state.lock().unwrap();
        Ok(state.snapshot.clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}
