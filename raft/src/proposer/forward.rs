//! A follower's commands to the leader: one stream, many under way, answers in any order.
//!
//! The task of a link ends when its stream breaks, or when the proposer has found another leader and what is under way was
//! answered or given up. What was not answered goes back: with a request id to be proposed again, without one to its caller
//! as lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use tracing::debug;
use zyflow_crypto::PLAINTEXT_BYTES_MAX;
use zyflow_machine::command::Batch;
use zyflow_machine::format;
use zyflow_machine::id::ClusterTime;
use zyflow_storage::types::NodeId;

use super::answer::{self, Received};
use super::{Answer, Proposal};
use crate::config::millis;
use crate::error::ProposeError;
use crate::network::peers::{Lane, Peers};
use crate::network::proto;
use crate::network::wire::len_u64;

/// Commands under way to the leader at once, and the most that a leader takes from one peer.
pub(crate) const FORWARDED_MAX: usize = 4096;
/// Commands in one message: under load messages fill up while the one before is sent.
const COMMANDS_PER_MESSAGE_MAX: usize = 512;
/// Bytes of commands after which a message is full.
const MESSAGE_BYTES_TARGET: usize = 1 << 20;
/// Messages that wait for the network.
const MESSAGES_WAITING_MAX: usize = 8;
/// How long opening the stream may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(3);
/// How long a stream to a former leader is listened to.
const LINGER: Duration = Duration::from_secs(2);
/// The leader is given this much less time than the caller has, so that its reasons arrive before the caller gives up.
const MARGIN: Duration = Duration::from_millis(30);

/// The proposer's end of a link.
pub(crate) struct ForwardLink {
    pub(crate) leader: NodeId,
    pub(crate) tx: mpsc::Sender<Proposal>,
}

impl ForwardLink {
    /// Opens a link to a leader. `returned` gets what has to be proposed again.
    pub(crate) fn open(
        peers: Arc<Peers>,
        leader: NodeId,
        address: String,
        returned: mpsc::UnboundedSender<Vec<Proposal>>,
    ) -> Self {
        let (tx, rx) = mpsc::channel(FORWARDED_MAX);
        let task = LinkTask { peers, leader, address, rx, under_way: BTreeMap::new(), next: 0, returned };
        tokio::spawn(task.run());
        Self { leader, tx }
    }
}

struct LinkTask {
    peers: Arc<Peers>,
    leader: NodeId,
    address: String,
    rx: mpsc::Receiver<Proposal>,
    /// Sent and not answered.
    under_way: BTreeMap<u64, Proposal>,
    next: u64,
    returned: mpsc::UnboundedSender<Vec<Proposal>>,
}

enum Event {
    Proposals(Vec<Proposal>),
    /// The proposer has turned to another leader.
    Left,
    Reply(proto::ForwardReply),
    Broken(String),
}

impl LinkTask {
    async fn run(mut self) {
        let reason = match self.open().await {
            Ok((messages, replies)) => self.pump(messages, replies).await,
            Err(reason) => reason,
        };
        debug!(leader = self.leader, reason, "a forwarding link ended");
        self.give_back(&reason);
    }

    async fn open(&mut self) -> Result<(mpsc::Sender<proto::ForwardRequest>, Streaming<proto::ForwardReply>), String> {
        let (messages, rx) = mpsc::channel(MESSAGES_WAITING_MAX);
        let mut client = self.peers.client(self.leader, &self.address, Lane::Bulk);
        let opening = client.forward(Request::new(ReceiverStream::new(rx)));
        match timeout(OPEN_DEADLINE, opening).await {
            Ok(Ok(response)) => Ok((messages, response.into_inner())),
            Ok(Err(status)) => Err(self.refused(&status)),
            Err(_elapsed) => Err(format!("node {} opened no stream in {OPEN_DEADLINE:?}", self.leader)),
        }
    }

    fn refused(&self, status: &Status) -> String {
        self.peers.note_refusal(self.leader, status);
        status.to_string()
    }

    /// Gives the reason why it ended.
    async fn pump(
        &mut self,
        messages: mpsc::Sender<proto::ForwardRequest>,
        mut replies: Streaming<proto::ForwardReply>,
    ) -> String {
        let mut leave_by: Option<Instant> = None;
        loop {
            let event = tokio::select! {
                reply = replies.message() => match reply {
                    Ok(Some(reply)) => Event::Reply(reply),
                    Ok(None) => Event::Broken("the leader ended the stream".to_owned()),
                    Err(status) => Event::Broken(self.refused(&status)),
                },
                proposals = receive(&mut self.rx), if leave_by.is_none() && self.under_way.len() < FORWARDED_MAX => {
                    if proposals.is_empty() { Event::Left } else { Event::Proposals(proposals) }
                }
                () = tokio::time::sleep_until(leave_by.unwrap_or_else(Instant::now)), if leave_by.is_some() => {
                    Event::Broken("another node leads".to_owned())
                }
            };
            match event {
                Event::Proposals(proposals) => {
                    for message in self.pack(proposals) {
                        if messages.send(message).await.is_err() {
                            return "the stream to the leader closed".to_owned();
                        }
                    }
                }
                Event::Left => leave_by = Some(Instant::now() + LINGER),
                Event::Reply(reply) => self.answer(reply),
                Event::Broken(reason) => return reason,
            }
            if leave_by.is_some() && self.under_way.is_empty() {
                return "another node leads".to_owned();
            }
        }
    }

    fn pack(&mut self, proposals: Vec<Proposal>) -> Vec<proto::ForwardRequest> {
        let now = Instant::now();
        let empty = || proto::ForwardRequest { from: self.peers.own, to: self.leader, commands: Vec::new() };
        let (mut messages, mut filled) = (vec![empty()], 0);
        for proposal in proposals {
            if proposal.ticket.is_abandoned() || !proposal.ticket.phase.submit() {
                continue;
            }
            let (ticket, remaining) = (self.next, proposal.ticket.deadline.saturating_duration_since(now));
            self.next += 1;
            let timeout_ms = millis(remaining.checked_sub(MARGIN).unwrap_or(remaining / 2));
            let batch = Batch { stamped: ClusterTime(0), commands: vec![proposal.command] };
            let command = format::encode_batch(&batch);
            if command.len() > PLAINTEXT_BYTES_MAX {
                // No entry would hold it, and a message that is too long would break the stream for all.
                let (bytes, limit) = (len_u64(command.len()), len_u64(PLAINTEXT_BYTES_MAX));
                proposal.ticket.answer(Answer::Error(ProposeError::TooLarge { bytes, limit }));
                continue;
            }
            let Batch { mut commands, .. } = batch;
            if filled > 0 && filled + command.len() > MESSAGE_BYTES_TARGET {
                messages.push(empty());
                filled = 0;
            }
            filled += command.len();
            let message = messages.last_mut().expect("invariant: begins with one message and only grows");
            message.commands.push(proto::ForwardedCommand { ticket, command: command.into(), timeout_ms });
            let command = commands.pop().expect("invariant: the batch was made of one command");
            self.under_way.insert(ticket, Proposal { command, ticket: proposal.ticket });
        }
        self.peers.counters.forwarded_out.add(messages.iter().map(|message| message.commands.len()).sum());
        messages.retain(|message| !message.commands.is_empty());
        messages
    }

    fn answer(&mut self, reply: proto::ForwardReply) {
        self.peers.hear(self.leader);
        let mut again = Vec::new();
        for answer in reply.answers {
            let Some(proposal) = self.under_way.remove(&answer.ticket) else { continue };
            match answer::read(answer) {
                Received::Final(answer) => proposal.ticket.answer(answer),
                Received::Again => {
                    proposal.ticket.phase.withdraw();
                    again.push(proposal);
                }
                Received::Unknown(reason) => again.extend(retry_or_lose(proposal, &reason)),
            }
        }
        self.send_back(again);
    }

    fn give_back(mut self, reason: &str) {
        let mut back: Vec<Proposal> =
            std::mem::take(&mut self.under_way).into_values().filter_map(|p| retry_or_lose(p, reason)).collect();
        self.rx.close();
        while let Ok(proposal) = self.rx.try_recv() {
            back.push(proposal);
        }
        self.send_back(back);
    }

    fn send_back(&self, proposals: Vec<Proposal>) {
        if proposals.is_empty() {
            return;
        }
        if let Err(mpsc::error::SendError(proposals)) = self.returned.send(proposals) {
            for proposal in proposals {
                let fate = fate_of(&proposal);
                proposal.ticket.answer(Answer::Error(ProposeError::Stopping(fate)));
            }
        }
    }
}

/// Whether a proposal that has come back may have happened.
pub(crate) fn fate_of(proposal: &Proposal) -> crate::error::Fate {
    if proposal.ticket.phase.is_submitted() { crate::error::Fate::Unknown } else { crate::error::Fate::Nothing }
}

/// A proposal of unknown fate: back if it is safe to propose again, else its caller learns that it is lost.
pub(crate) fn retry_or_lose(proposal: Proposal, reason: &str) -> Option<Proposal> {
    if proposal.command.request.is_some() && !proposal.ticket.is_forwarded() {
        return Some(proposal);
    }
    proposal.ticket.answer(Answer::Error(ProposeError::Lost { reason: reason.to_owned() }));
    None
}

/// What is there; empty when the channel is closed. Safe to cancel.
async fn receive(rx: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut proposals = Vec::new();
    rx.recv_many(&mut proposals, COMMANDS_PER_MESSAGE_MAX).await;
    proposals
}
