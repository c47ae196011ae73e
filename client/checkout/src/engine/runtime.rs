//! What a checkout asks of the cluster beside texts: the project's policy, and the runtime fields of tasks.

use zyflow_machine::id::RecordId;

use super::run::Engine;
use crate::cluster::{Cluster, ClusterError};
use crate::fields::{Runtime, complete};
use crate::plan::{Input, Proposal, Side, base_of};

impl<C: Cluster> Engine<C> {
    /// The policy and what the runtime has of a change's tasks.
    fn runtime(&self, change: Option<RecordId>) -> Result<Runtime, ClusterError> {
        let tasks = change.map(|change| self.cluster.tasks(change)).transpose()?.unwrap_or_default();
        Ok(Runtime { policy: self.policy.clone(), convention: self.config.convention.clone(), tasks })
    }

    /// A proposal with what its text says of runtime fields.
    pub(super) fn with_fields(&self, input: &Input<'_>, proposal: Proposal) -> Result<Proposal, ClusterError> {
        let change = if let Side::Live { change, .. } = input.cluster { Some(*change) } else { None };
        let runtime = self.runtime(change)?;
        let base = base_of(input, &proposal);
        Ok(complete(proposal, base, input.path, &runtime))
    }
}
