//! Between the messages of the protocol and the types of openraft. Pure; refuses what no honest peer sends.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tonic::Status;
use zyflow_storage::codec::{self, CodecError};
use zyflow_storage::types::{Entry, LogId, NodeId, SnapshotMeta, TypeConfig, Vote};

use super::proto;

/// Bytes of entries after which an append message is full: 1 MiB. A batch of commands is far smaller, so a message carries
/// many; one that is larger travels alone.
pub(crate) const APPEND_BYTES_TARGET: usize = 1 << 20;
/// The largest message that is sent or taken: one entry of the greatest length (8 MiB) beside a full message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 12 << 20;
/// Most entries that are taken in one message; the sender's own limit is far lower.
const ENTRIES_TAKEN_MAX: usize = 4096;

/// A message that no honest peer sends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{field}: {source}")]
    Field {
        field: &'static str,
        #[source]
        source: CodecError,
    },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} entries in one message")]
    TooManyEntries(usize),
    #[error("entry {found} where {expected} belongs")]
    Gap { expected: u64, found: u64 },
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Status::invalid_argument(format!("malformed message: {error}"))
    }
}

/// A length as the protocol writes it.
pub(crate) fn len_u64(length: usize) -> u64 {
    u64::try_from(length).expect("invariant: usize has at most 64 bits")
}

fn field<T>(field: &'static str, read: Result<T, CodecError>) -> Result<T, WireError> {
    read.map_err(|source| WireError::Field { field, source })
}

pub(crate) fn vote_bytes(vote: &Vote) -> Bytes {
    let mut out = Vec::with_capacity(16);
    codec::encode_vote(vote, &mut out);
    out.into()
}

pub(crate) fn vote_of(bytes: &Bytes) -> Result<Vote, WireError> {
    field("vote", codec::decode_vote(bytes))
}

fn log_id_bytes(id: &LogId) -> Bytes {
    let mut out = Vec::with_capacity(16);
    codec::encode_log_id(id, &mut out);
    out.into()
}

fn log_id_of(bytes: &Bytes) -> Result<LogId, WireError> {
    field("log id", codec::decode_log_id(bytes))
}

fn optional_bytes(id: Option<&LogId>) -> Bytes {
    let mut out = Vec::with_capacity(16);
    codec::encode_optional_log_id(id, &mut out);
    out.into()
}

fn optional_of(bytes: &Bytes) -> Result<Option<LogId>, WireError> {
    field("optional log id", codec::decode_optional_log_id(bytes))
}

/// Who sends a message to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
}

/// One append as messages of bounded size. Each but the first follows on the last entry of the one before; the receiver
/// answers each, and openraft takes such partial progress as it comes.
pub(crate) fn append_messages(
    ends: Ends,
    request: &AppendEntriesRequest<TypeConfig>,
    clock_ms: u64,
) -> Vec<proto::AppendRequest> {
    let vote = vote_bytes(&request.vote);
    let committed = optional_bytes(request.leader_commit.as_ref());
    let message = |previous: Bytes| proto::AppendRequest {
        from: ends.from,
        to: ends.to,
        vote: vote.clone(),
        previous,
        committed: committed.clone(),
        entries: Vec::new(),
        clock_ms,
    };
    let mut messages = vec![message(optional_bytes(request.prev_log_id.as_ref()))];
    let (mut filled, mut last) = (0, None);
    for entry in &request.entries {
        let mut bytes = Vec::new();
        codec::encode_entry(entry, &mut bytes);
        if filled > 0 && filled + bytes.len() > APPEND_BYTES_TARGET {
            messages.push(message(optional_bytes(last)));
            filled = 0;
        }
        filled += bytes.len();
        let message = messages.last_mut().expect("invariant: begins with one message and only grows");
        message.entries.push(bytes.into());
        last = Some(&entry.log_id);
    }
    messages
}

/// The append that a message holds. Its entries follow on `previous` and on each other.
pub(crate) fn append_of(message: &proto::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    if message.entries.len() > ENTRIES_TAKEN_MAX {
        return Err(WireError::TooManyEntries(message.entries.len()));
    }
    let prev_log_id = optional_of(&message.previous)?;
    let first = prev_log_id.as_ref().map_or(0, |id| id.index + 1);
    let mut entries: Vec<Entry> = Vec::with_capacity(message.entries.len());
    for (expected, bytes) in (first..).zip(&message.entries) {
        let entry = field("entry", codec::decode_entry(bytes))?;
        if entry.log_id.index != expected {
            return Err(WireError::Gap { expected, found: entry.log_id.index });
        }
        entries.push(entry);
    }
    let leader_commit = optional_of(&message.committed)?;
    Ok(AppendEntriesRequest { vote: vote_of(&message.vote)?, prev_log_id, entries, leader_commit })
}

pub(crate) fn append_reply(result: &StreamAppendResult<TypeConfig>, clock_ms: u64) -> proto::AppendReply {
    use proto::append_reply::Result as Reply;
    let result = match result {
        Ok(matching) => Reply::Matching(optional_bytes(matching.as_ref())),
        Err(StreamAppendError::Conflict(at)) => Reply::Conflict(log_id_bytes(at)),
        Err(StreamAppendError::HigherVote(vote)) => Reply::HigherVote(vote_bytes(vote)),
    };
    proto::AppendReply { result: Some(result), clock_ms }
}

pub(crate) fn append_result(reply: &proto::AppendReply) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use proto::append_reply::Result as Reply;
    Ok(match reply.result.as_ref().ok_or(WireError::Missing("the result of an append"))? {
        Reply::Matching(matching) => Ok(optional_of(matching)?),
        Reply::Conflict(at) => Err(StreamAppendError::Conflict(log_id_of(at)?)),
        Reply::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_of(vote)?)),
    })
}

pub(crate) fn vote_message(ends: Ends, request: &VoteRequest<TypeConfig>) -> proto::VoteRequest {
    proto::VoteRequest {
        from: ends.from,
        to: ends.to,
        vote: vote_bytes(&request.vote),
        last: optional_bytes(request.last_log_id.as_ref()),
        transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request(message: &proto::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut request = VoteRequest::new(vote_of(&message.vote)?, optional_of(&message.last)?);
    request.leadership_transfer = message.transfer;
    Ok(request)
}

pub(crate) fn vote_reply(response: &VoteResponse<TypeConfig>) -> proto::VoteReply {
    proto::VoteReply {
        vote: vote_bytes(&response.vote),
        granted: response.vote_granted,
        last: optional_bytes(response.last_log_id.as_ref()),
    }
}

pub(crate) fn vote_response(reply: &proto::VoteReply) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse::new(vote_of(&reply.vote)?, optional_of(&reply.last)?, reply.granted))
}

pub(crate) fn transfer_message(ends: Ends, request: &TransferLeaderRequest<TypeConfig>) -> proto::TransferRequest {
    proto::TransferRequest {
        from: ends.from,
        to: ends.to,
        vote: vote_bytes(request.from_leader()),
        heir: *request.to_node_id(),
        last: optional_bytes(request.last_log_id()),
    }
}

pub(crate) fn transfer_request(
    message: &proto::TransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    Ok(TransferLeaderRequest::new(vote_of(&message.vote)?, message.heir, optional_of(&message.last)?))
}

pub(crate) fn transfer_reply(response: &TransferLeaderResponse<TypeConfig>) -> proto::TransferReply {
    use proto::transfer_reply::Refusal;
    let refusal = match response {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { actual, .. }) => Some(Refusal::VoteChanged(vote_bytes(actual))),
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            Some(Refusal::LogBehind(optional_bytes(actual.as_ref())))
        }
    };
    proto::TransferReply { refusal }
}

pub(crate) fn transfer_response(
    request: &TransferLeaderRequest<TypeConfig>,
    reply: &proto::TransferReply,
) -> Result<TransferLeaderResponse<TypeConfig>, WireError> {
    use proto::transfer_reply::Refusal;
    Ok(match &reply.refusal {
        None => Ok(()),
        Some(Refusal::VoteChanged(vote)) => {
            Err(TransferLeaderError::VoteChanged { expected: *request.from_leader(), actual: vote_of(vote)? })
        }
        Some(Refusal::LogBehind(last)) => {
            let expected = request.last_log_id().copied();
            Err(TransferLeaderError::LogNotFlushed { expected, actual: optional_of(last)? })
        }
    })
}

/// `name` is what no other snapshot is called.
pub(crate) fn snapshot_head(
    ends: Ends,
    vote: &Vote,
    meta: &SnapshotMeta,
    total_bytes: u64,
    name: String,
) -> proto::SnapshotHead {
    let mut membership = Vec::new();
    codec::encode_stored_membership(&meta.last_membership, &mut membership);
    proto::SnapshotHead {
        from: ends.from,
        to: ends.to,
        vote: vote_bytes(vote),
        last: optional_bytes(meta.last_log_id.as_ref()),
        membership: membership.into(),
        total_bytes,
        name,
        offset: 0,
    }
}

pub(crate) fn snapshot_meta(head: &proto::SnapshotHead) -> Result<SnapshotMeta, WireError> {
    Ok(SnapshotMeta {
        last_log_id: optional_of(&head.last)?,
        last_membership: field("membership", codec::decode_stored_membership(&head.membership))?,
    })
}

#[cfg(test)]
mod tests;
