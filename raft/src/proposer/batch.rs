//! Proposals into sealed entries.

use std::sync::Arc;

use tracing::error;
use zyflow_crypto::{KeyRing, Lineage, PLAINTEXT_BYTES_MAX, Purpose};
use zyflow_machine::command::{Batch, Command};
use zyflow_machine::format;
use zyflow_machine::id::ClusterTime;
use zyflow_storage::types::Payload;

use super::{Answer, ENTRY_BYTES_TARGET, Proposal, Ticket};
use crate::error::ProposeError;
use crate::metrics::Counters;
use crate::network::wire::len_u64;

/// One entry, sealed, and who waits for its outcomes. The commands stay for the case that the entry comes back.
pub(crate) struct SealedBatch {
    pub(crate) payload: Payload,
    pub(crate) commands: Vec<Command>,
    pub(crate) tickets: Vec<Ticket>,
}

impl SealedBatch {
    /// Takes it apart again.
    pub(crate) fn into_proposals(self) -> impl Iterator<Item = Proposal> {
        self.commands.into_iter().zip(self.tickets).map(|(command, ticket)| Proposal { command, ticket })
    }
}

/// What seals.
pub(crate) struct Sealer {
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) lineage: Lineage,
    pub(crate) counters: Arc<Counters>,
}

impl Sealer {
    /// Seals proposals, in order, into one entry or, where they are large or one must be the first of its entry, into several. A
    /// command that fits no entry is answered here.
    pub(crate) fn seal(&self, mut proposals: Vec<Proposal>, stamped: ClusterTime) -> Vec<SealedBatch> {
        let mut sealed = Vec::with_capacity(1);
        while !proposals.is_empty() {
            let next = proposals.iter().skip(1).position(|proposal| proposal.command.body.begins_entry());
            let rest = next.map(|at| proposals.split_off(at + 1)).unwrap_or_default();
            let (commands, tickets) = proposals.into_iter().map(|proposal| (proposal.command, proposal.ticket)).unzip();
            self.seal_into(&mut sealed, Batch { stamped, commands }, tickets);
            proposals = rest;
        }
        sealed
    }

    fn seal_into(&self, sealed: &mut Vec<SealedBatch>, mut batch: Batch, mut tickets: Vec<Ticket>) {
        if batch.commands.is_empty() {
            return;
        }
        let bytes = format::encode_batch(&batch);
        if bytes.len() > ENTRY_BYTES_TARGET && batch.commands.len() > 1 {
            let half = batch.commands.len() / 2;
            let rest = Batch { stamped: batch.stamped, commands: batch.commands.split_off(half) };
            let rest_tickets = tickets.split_off(half);
            self.seal_into(sealed, batch, tickets);
            self.seal_into(sealed, rest, rest_tickets);
            return;
        }
        if bytes.len() > PLAINTEXT_BYTES_MAX {
            let (bytes, limit) = (len_u64(bytes.len()), len_u64(PLAINTEXT_BYTES_MAX));
            refuse(tickets, &ProposeError::TooLarge { bytes, limit });
            return;
        }
        let entry_id = uuid::Uuid::new_v4().into_bytes();
        match zyflow_crypto::seal(&self.ring, Purpose::Entry, &self.lineage, &entry_id, &bytes) {
            Ok(envelope) => {
                self.counters.entries_sealed.add(1);
                self.counters.commands_sealed.add(tickets.len());
                self.counters.bytes_sealed.add(envelope.len());
                sealed.push(SealedBatch { payload: Payload(envelope.into()), commands: batch.commands, tickets });
            }
            Err(error) => {
                let reason = crate::fatal::chain(&error);
                error!(reason, "sealing an entry failed");
                refuse(tickets, &ProposeError::Fatal(reason));
            }
        }
    }
}

fn refuse(tickets: Vec<Ticket>, error: &ProposeError) {
    for ticket in tickets {
        ticket.answer(Answer::Error(error.clone()));
    }
}
