//! What can go wrong, by what the caller can do about it.
//!
//! Errors of a proposal say whether the command may have happened: that is the one thing a caller can't find out alone.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use zyflow_storage::types::NodeId;

/// Why a node could not take part.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The timing doesn't hold together.
    #[error("the consensus configuration is not usable: {0}")]
    Config(String),
    /// openraft refused what it found in the log or the state machine.
    #[error("starting from the stored log and state: {0}")]
    Recovery(String),
    /// The peer port.
    #[error("preparing the peer port {address}")]
    Listen {
        /// What it should have listened on.
        address: String,
        /// Why it doesn't.
        #[source]
        source: std::io::Error,
    },
}

/// Whether a command that was not answered may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It did not, and will not.
    Nothing,
    /// It did, or will, or neither. Proposing it again is safe only with the same request id.
    Unknown,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Nothing => "nothing was changed",
            Fate::Unknown => "it may still happen: ask again with the same request id, or look",
        })
    }
}

/// Who answers, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Voters that were heard from lately, this node included if it votes.
    pub reachable: BTreeSet<NodeId>,
    /// All voters.
    pub voters: BTreeSet<NodeId>,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let silent: Vec<_> = self.voters.difference(&self.reachable).collect();
        write!(
            f,
            "{} of {} voters answer, {} are needed; silent: {silent:?}",
            self.reachable.len(),
            self.voters.len(),
            self.voters.len() / 2 + 1
        )
    }
}

/// Why a proposal was not answered with an outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No majority of voters could be reached before the deadline.
    #[error("no quorum: {reach}; {fate}")]
    NoQuorum {
        /// Who answers.
        reach: Reach,
        /// Whether it may have happened.
        fate: Fate,
    },
    /// The answer did not come in time though there is a quorum.
    #[error("no answer within {} ms; {fate}", waited.as_millis())]
    DeadlineExceeded {
        /// How long it was tried.
        waited: Duration,
        /// Whether it may have happened.
        fate: Fate,
    },
    /// The leader or the way to it was lost while the command was under way, and it carries no request id to try again with.
    #[error("the answer was lost: {reason}; {}", Fate::Unknown)]
    Lost {
        /// What was lost.
        reason: String,
    },
    /// SQLite is too far behind the log, or too many proposals wait.
    #[error("overloaded: {backlog} waiting, the limit is {limit}; try again later, {}", Fate::Nothing)]
    Overloaded {
        /// How much waits.
        backlog: u64,
        /// How much may.
        limit: u64,
    },
    /// Too little disk is left to be sure that the log can be written.
    #[error(
        "disk full: {free} bytes are free, {needed} are kept in reserve; free some space on the node, {}",
        Fate::Nothing
    )]
    DiskFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must stay free.
        needed: u64,
    },
    /// The leader's clock is ahead of a majority of the voters' clocks.
    #[error("the leader's clock is {} ms ahead of a majority: set it right, {}", ahead.as_millis(), Fate::Nothing)]
    ClockAhead {
        /// By how much.
        ahead: Duration,
    },
    /// The command can't be put into an entry.
    #[error("the command has {bytes} bytes, over the limit of {limit}: split it, {}", Fate::Nothing)]
    TooLarge {
        /// Its length when encoded.
        bytes: u64,
        /// How long it may be.
        limit: u64,
    },
    /// The leader could not read the command: it runs another release.
    #[error("the leader couldn't read the command: {reason}; {}", Fate::Nothing)]
    Malformed {
        /// What it said.
        reason: String,
    },
    /// This node is shutting down.
    #[error("this node is stopping; {0}")]
    Stopping(Fate),
    /// This node failed and must be restarted.
    #[error("this node has failed: {0}")]
    Fatal(String),
}

/// Why a read can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No majority of voters confirmed the leader before the deadline.
    #[error("no quorum: {0}")]
    NoQuorum(Reach),
    /// The state didn't get there in time.
    #[error("applied {applied} of {wanted} before the deadline: wait longer, or ask another node")]
    Behind {
        /// The newest applied revision.
        applied: u64,
        /// The revision that was waited for.
        wanted: u64,
    },
    /// There is a quorum, but the leader didn't answer in time.
    #[error("the leader did not confirm the read before the deadline")]
    DeadlineExceeded,
    /// This node is shutting down.
    #[error("this node is stopping")]
    Stopping,
    /// This node failed and must be restarted.
    #[error("this node has failed: {0}")]
    Fatal(String),
}

/// Why a change of membership or leadership didn't happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader does this.
    #[error("this node doesn't lead: ask node {leader:?}")]
    NotLeader {
        /// Who leads, if it is known.
        leader: Option<NodeId>,
    },
    /// The cluster exists already.
    #[error("already initialised: {0}")]
    AlreadyInitialised(String),
    /// No such node where one is needed.
    #[error("node {node} is not a {role} of this cluster")]
    NotA {
        /// Which node.
        node: NodeId,
        /// What it should have been.
        role: &'static str,
    },
    /// The id was another node's.
    #[error(
        "node {node} was removed, and ids are never used again: make the certificate and the configuration for {free}, or any \
             higher id"
    )]
    Removed {
        /// The id.
        node: NodeId,
        /// One that was never used.
        free: NodeId,
    },
    /// It is a member, at another address.
    #[error("node {node} is a member already, at {address}: `zyflow cluster address` changes that")]
    Elsewhere {
        /// Which node.
        node: NodeId,
        /// Where it is.
        address: String,
    },
    /// Another member has the address.
    #[error("{address} is the address of node {holder}: correct one of them")]
    AddressTaken {
        /// Whose it is.
        holder: NodeId,
        /// The address.
        address: String,
    },
    /// It is too far behind to vote.
    #[error(
        "node {node} is behind: it has {matched} of {committed} committed entries, and may lack {limit}; it goes on catching up while \
         it runs and is reached, try again later (`zyflow cluster status` shows its lag)"
    )]
    Lagging {
        /// Which node.
        node: NodeId,
        /// The newest entry that it is known to have.
        matched: u64,
        /// The newest entry that is committed.
        committed: u64,
        /// How many it may lack.
        limit: u64,
    },
    /// It could never lead.
    #[error(
        "node {node} has a learner's certificate, so the others would refuse its votes: give it a voter's (certificates.sh, `node`), \
         restart it, and promote it again"
    )]
    LearnersCertificate {
        /// Which node.
        node: NodeId,
    },
    /// The voters after the change couldn't decide anything.
    #[error(
        "changing node {node} would leave voters without a majority that answers: {reach}; nothing was changed, start the silent ones \
         or remove them first"
    )]
    Outnumbered {
        /// Which node was to be changed.
        node: NodeId,
        /// Who of the voters after the change answers.
        reach: Reach,
    },
    /// The change was refused.
    #[error("refused: {0}")]
    Refused(String),
    /// It did not take place in time.
    #[error("{what} did not happen before the deadline")]
    DeadlineExceeded {
        /// What was waited for.
        what: &'static str,
    },
    /// This node failed and must be restarted.
    #[error("this node has failed: {0}")]
    Fatal(String),
}
