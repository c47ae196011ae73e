//! The handle to a cluster: connections, routing, deadlines, retries.
//!
//! A client knows the endpoints of its profile and prefers one of them: the leader, once a hint or a status has told which
//! that is, else the one that answered last. Any node can serve any call, so the preference is speed, not correctness. What
//! fails for a reason that may pass is tried again, on the next endpoint, until the caller's deadline.
//!
//! What is safe to try again: every read but a script of SQL; a proposal with a request id (the machine applies it once); the opening of a
//! session (a second one merely expires). Everything else fails at the first doubt. A script changes nothing, but it may be what ended the
//! node that it was sent to: tried on the next, and the next, it could take the quorum. So one that a node has begun to run is not repeated.

use crate::channel::{channel, status_error};
use crate::error::ClientError;
use crate::pipeline::Pipeline;
use crate::profile::Profile;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use zyflow_api::convert::Call;
use zyflow_api::v1::admin_client::AdminClient;
use zyflow_api::v1::propose_response::Result as Decided;
use zyflow_api::v1::query_client::QueryClient;
use zyflow_api::v1::{self, ErrorCode, LeaderHint};
use zyflow_api::{ApiError, MESSAGE_BYTES_MAX};
use zyflow_crypto::{ConnectError, Connector, TlsMaterial};
use zyflow_machine::command::{Body, Command};
use zyflow_machine::outcome::Outcome;

/// First pause before a retry; doubled each time. Short: an election takes a second, a new connection milliseconds.
const BACKOFF_MIN: Duration = Duration::from_millis(20);

/// Longest pause before a retry.
const BACKOFF_MAX: Duration = Duration::from_millis(400);

/// One try gets at least this long of what is left, so that a slow node isn't taken for a dead one.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);

/// The server is told to give up this much before we do, so that its reason arrives.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);

/// How something may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trying {
    /// Until there is an answer: a second time has no second effect.
    Often,
    /// Until one try may have had an effect.
    UntilInDoubt,
    /// Until there is an answer; each try may take all the time that is left.
    AtLength,
}

/// A cluster. Clones share connections. Must be made and used inside a tokio runtime.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: String,
    nodes: Vec<Node>,
    /// Index of the endpoint that is asked first.
    preferred: AtomicUsize,
    /// Which endpoint is which node, as far as statuses have told.
    known: Mutex<BTreeMap<u64, usize>>,
}

struct Node {
    address: String,
    connections: Vec<Connection>,
}

struct Connection {
    channel: Channel,
    pipeline: Mutex<Option<Arc<Pipeline>>>,
}

/// What was decided, and whether an earlier try may have been applied already.
pub(crate) struct Decision {
    pub(crate) outcome: Outcome,
    pub(crate) was_in_doubt: bool,
}

impl Client {
    /// A client with one connection per endpoint. Connects nowhere yet.
    ///
    /// # Errors
    /// Where the certificates can't be used or an endpoint is no address.
    pub fn new(profile: &Profile) -> Result<Self, ClientError> {
        Self::with_connections(profile, NonZeroUsize::MIN)
    }

    /// A client with several connections per endpoint, for callers that saturate one.
    ///
    /// # Errors
    /// Where the certificates can't be used or an endpoint is no address.
    pub fn with_connections(profile: &Profile, connections: NonZeroUsize) -> Result<Self, ClientError> {
        let connector = Connector::new(TlsMaterial::load(&profile.tls_files(), Some(&profile.cluster))?);
        let node = |address: &String| {
            let connection =
                |_| channel(address, &connector).map(|channel| Connection { channel, pipeline: Mutex::default() });
            let connections = (0..connections.get()).map(connection).collect::<Result<_, _>>()?;
            Ok(Node { address: address.clone(), connections })
        };
        let nodes = profile.endpoints.iter().map(node).collect::<Result<_, ClientError>>()?;
        let (cluster, preferred) = (profile.cluster.clone(), AtomicUsize::new(0));
        Ok(Self { shared: Arc::new(Shared { cluster, nodes, preferred, known: Mutex::default() }) })
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.shared.cluster
    }

    /// The endpoints, in the order of the profile.
    #[must_use]
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &str> {
        self.shared.nodes.iter().map(|node| node.address.as_str())
    }

    /// Asks this endpoint (counted from 0) first from now on.
    ///
    /// # Errors
    /// Where there are fewer.
    pub fn prefer(&self, node: usize) -> Result<(), ClientError> {
        self.node(node)?;
        self.shared.preferred.store(node, Ordering::Relaxed);
        Ok(())
    }

    /// Reads the state; tried on one endpoint after the other until `within` is over.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn query(&self, request: v1::QueryRequest, within: Duration) -> Result<v1::QueryResponse, ClientError> {
        let attempt = |node: usize, wait: Duration| {
            let mut call = Request::new(request.clone());
            call.set_timeout(wait);
            let channel = self.channel(node, 0);
            async move { QueryClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).query(call).await }
        };
        let unary = |node, wait| {
            let asking = attempt(node, wait);
            async move { self.answered(node, asking.await) }
        };
        self.until(within, Trying::Often, unary).await.map(|(response, _)| response)
    }

    /// Runs a script of SQL against the state; tried on one endpoint after the other until one has begun to run it, or `within` is over.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sql(&self, request: v1::SqlRequest, within: Duration) -> Result<v1::SqlResponse, ClientError> {
        let attempt = |node: usize, wait: Duration| {
            let mut call = Request::new(within_wait(request.clone(), wait));
            call.set_timeout(wait);
            let asking = async move {
                let channel = self.channel(node, 0);
                QueryClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).sql(call).await
            };
            async move {
                let result = asking.await;
                let may_have_run = result.as_ref().is_err_and(was_sent);
                match self.answered(node, result) {
                    Err(error) if may_have_run && ends_a_script(&error) => Ok(Err(error)),
                    answer => answer.map(Ok),
                }
            }
        };
        self.until(within, Trying::AtLength, attempt).await?.0
    }

    /// Calls the Admin service of one endpoint (counted from 0), once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn admin<T, F, Fut>(&self, node: usize, within: Duration, call: F) -> Result<T, ClientError>
    where
        F: FnOnce(AdminClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.node(node)?;
        let client = AdminClient::new(self.channel(node, 0)).max_decoding_message_size(MESSAGE_BYTES_MAX);
        match timeout(within, call(client)).await {
            Ok(result) => self.answered(node, result),
            Err(_elapsed) => Err(ClientError::Deadline { waited: within, last: None, may_apply: true }),
        }
    }

    /// The status of every endpoint, in the order of the profile, asked at once. Also learns which node is the leader.
    pub async fn node_statuses(&self, within: Duration) -> Vec<Result<v1::NodeStatusResponse, ClientError>> {
        let mut asking = tokio::task::JoinSet::new();
        for node in 0..self.shared.nodes.len() {
            let client = self.clone();
            asking.spawn(async move { (node, client.node_status(node, within).await) });
        }
        let mut statuses = asking.join_all().await;
        statuses.sort_by_key(|(node, _)| *node);
        let statuses: Vec<_> = statuses.into_iter().map(|(_, status)| status).collect();
        let leader =
            statuses.iter().flatten().filter(|status| status.leader.is_some()).max_by_key(|status| status.term);
        if let Some(hint) = leader.and_then(|status| status.leader.as_ref()) {
            self.follow(hint);
        }
        statuses
    }

    /// The status of one endpoint (counted from 0).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn node_status(&self, node: usize, within: Duration) -> Result<v1::NodeStatusResponse, ClientError> {
        let ask = |mut admin: AdminClient<Channel>| async move { admin.node_status(v1::NodeStatusRequest {}).await };
        let status = self.admin(node, within, ask).await?;
        locked(&self.shared.known).insert(status.node_id, node);
        Ok(status)
    }

    /// Which endpoint (counted from 0) is this node, as far as statuses have told.
    #[must_use]
    pub fn endpoint_of(&self, node_id: u64) -> Option<usize> {
        locked(&self.shared.known).get(&node_id).copied()
    }

    /// Proposes one command on the connection `slot` until it is decided or `within` is over.
    pub(crate) async fn decide(
        &self,
        command: &Command,
        slot: usize,
        within: Duration,
    ) -> Result<Decision, ClientError> {
        let is_repeatable = command.request.is_some() || command.body == Body::OpenSession;
        let attempt = |node: usize, wait: Duration| {
            let deadline = Some(wait.saturating_sub(ANSWER_MARGIN.min(wait / 4)));
            let request = Call { call: 0, deadline, command: command.clone() }.into();
            let pipeline = self.pipeline(node, slot);
            async move { self.decided(node, pipeline.call(request).await?) }
        };
        let trying = if is_repeatable { Trying::Often } else { Trying::UntilInDoubt };
        let (outcome, was_in_doubt) = self.until(within, trying, attempt).await?;
        Ok(Decision { outcome, was_in_doubt })
    }

    fn decided(&self, node: usize, response: v1::ProposeResponse) -> Result<Outcome, ClientError> {
        let address = self.shared.nodes[node].address.as_str();
        match response.result {
            Some(Decided::Outcome(outcome)) => {
                outcome.try_into().map_err(|error| ClientError::convert(address, &error))
            }
            Some(Decided::Error(error)) => {
                Err(ClientError::Service { address: address.to_owned(), error: ApiError::from(error) })
            }
            None => Err(ClientError::convert(address, &zyflow_api::ConvertError::Missing { field: "result" })),
        }
    }

    /// Tries until there is an answer, an error that won't pass, or no time left. Also says whether a try before the one
    /// that was answered may have had an effect.
    async fn until<T, F, Fut>(&self, within: Duration, trying: Trying, mut attempt: F) -> Result<(T, bool), ClientError>
    where
        F: FnMut(usize, Duration) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let end = Instant::now() + within;
        let (mut last, mut may_apply, mut backoff) = (None, false, BACKOFF_MIN);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Deadline { waited: within, last: last.map(Box::new), may_apply });
            }
            let node = self.shared.preferred.load(Ordering::Relaxed);
            let is_only = self.shared.nodes.len() == 1 || trying == Trying::AtLength;
            let wait = if is_only { left } else { left.min((left / 2).max(ATTEMPT_MIN)) };
            match timeout(wait, attempt(node, wait)).await {
                Ok(Ok(answer)) => return Ok((answer, may_apply)),
                Ok(Err(error)) => {
                    may_apply |= leaves_doubt(&error);
                    if !may_pass(&error) || (may_apply && trying == Trying::UntilInDoubt) {
                        return Err(error);
                    }
                    self.turn_from(node, &error);
                    last = Some(telling(last, error));
                }
                Err(_elapsed) => {
                    may_apply = true;
                    self.rotate(node);
                    if trying == Trying::UntilInDoubt {
                        return Err(ClientError::Deadline { waited: wait, last: None, may_apply });
                    }
                }
            }
            sleep(backoff.min(end.saturating_duration_since(Instant::now()))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn answered<T>(&self, node: usize, result: Result<Response<T>, Status>) -> Result<T, ClientError> {
        result.map(Response::into_inner).map_err(|status| status_error(&self.shared.nodes[node].address, &status))
    }

    /// The endpoint that is asked first.
    pub(crate) fn preferred(&self) -> usize {
        self.shared.preferred.load(Ordering::Relaxed)
    }

    /// The address of an endpoint that there is.
    pub(crate) fn address(&self, node: usize) -> &str {
        &self.shared.nodes[node].address
    }

    fn node(&self, node: usize) -> Result<&Node, ClientError> {
        let count = self.shared.nodes.len();
        self.shared.nodes.get(node).ok_or(ClientError::NoSuchNode { number: node.saturating_add(1), count })
    }

    /// A connection to an endpoint that there is.
    pub(crate) fn channel(&self, node: usize, slot: usize) -> Channel {
        let connections = &self.shared.nodes[node].connections;
        connections[slot % connections.len()].channel.clone()
    }

    /// The open stream of a connection; a broken one is replaced.
    fn pipeline(&self, node: usize, slot: usize) -> Arc<Pipeline> {
        let node = &self.shared.nodes[node];
        let connection = &node.connections[slot % node.connections.len()];
        let mut current = locked(&connection.pipeline);
        if let Some(open) = current.as_ref().filter(|pipeline| !pipeline.has_ended()) {
            return Arc::clone(open);
        }
        let opened = Arc::new(Pipeline::open(&node.address, connection.channel.clone()));
        *current = Some(Arc::clone(&opened));
        opened
    }

    /// After an error of `node`: to the leader that it named, else to the next endpoint.
    fn turn_from(&self, node: usize, error: &ClientError) {
        let hint = if let ClientError::Service { error, .. } = error { error.leader.as_ref() } else { None };
        let is_followed =
            hint.is_some_and(|hint| self.follow(hint) && self.shared.preferred.load(Ordering::Relaxed) != node);
        if !is_followed {
            self.rotate(node);
        }
    }

    /// Prefers the leader, if it is an endpoint of ours.
    fn follow(&self, hint: &LeaderHint) -> bool {
        let by_address = || self.endpoints().position(|address| address == hint.api_address);
        let leader = self.endpoint_of(hint.node_id).or_else(by_address);
        if let Some(leader) = leader {
            self.shared.preferred.store(leader, Ordering::Relaxed);
        }
        leader.is_some()
    }

    /// Prefers the endpoint after `from`, unless somebody has moved on already.
    fn rotate(&self, from: usize) {
        let next = (from + 1) % self.shared.nodes.len();
        // A lost race means that another caller has chosen: its choice is as good.
        let _ = self.shared.preferred.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The script shall be told to end before we stop waiting.
fn within_wait(request: v1::SqlRequest, wait: Duration) -> v1::SqlRequest {
    let millis = wait.saturating_sub(ANSWER_MARGIN.min(wait / 4)).as_millis();
    // 0 is the server's own limit.
    let millis = u32::try_from(millis).unwrap_or(u32::MAX).max(1);
    let asked = if request.millis_max == 0 { u32::MAX } else { request.millis_max };
    v1::SqlRequest { millis_max: asked.min(millis), ..request }
}

/// Whether a call that failed so may have reached the node: it has, unless there was no connection to send it on.
fn was_sent(status: &Status) -> bool {
    let mut sources = std::iter::successors(std::error::Error::source(status), |error| (*error).source());
    !sources.any(<dyn std::error::Error>::is::<ConnectError>)
}

/// Whether a script that was sent, and that ended so, isn't to be sent to another node: it may be the reason.
fn ends_a_script(error: &ClientError) -> bool {
    if let ClientError::Service { error, .. } = error {
        return error.code == ErrorCode::Deadline;
    }
    matches!(error, ClientError::Unreachable { .. })
}

/// Both tables hold values whose every step leaves them whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of two failed tries the one that says more: what a node said, over that another isn't there.
fn telling(before: Option<ClientError>, now: ClientError) -> ClientError {
    match before {
        Some(said @ ClientError::Service { .. }) if matches!(now, ClientError::Unreachable { .. }) => said,
        Some(_) | None => now,
    }
}

/// Whether trying again, maybe elsewhere, can help.
pub(crate) fn may_pass(error: &ClientError) -> bool {
    if let ClientError::Service { error, .. } = error {
        let passing = [ErrorCode::Overloaded, ErrorCode::NotLeader];
        return passing.contains(&error.code) || IN_DOUBT.contains(&error.code);
    }
    matches!(error, ClientError::Unreachable { .. })
}

/// Errors of a service after which a proposal may have been applied, or may yet be.
const IN_DOUBT: [ErrorCode; 4] = [ErrorCode::NoQuorum, ErrorCode::Deadline, ErrorCode::Stopping, ErrorCode::NodeFailed];

/// Whether a proposal that met this error may have been applied, or may yet be.
fn leaves_doubt(error: &ClientError) -> bool {
    if let ClientError::Service { error, .. } = error {
        return IN_DOUBT.contains(&error.code);
    }
    matches!(error, ClientError::Unreachable { .. } | ClientError::Protocol { .. } | ClientError::Deadline { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_told_to_end_before_its_caller_stops_waiting() {
        let millis = |millis_max: u32, wait: Duration| {
            let request = v1::SqlRequest { millis_max, ..v1::SqlRequest::default() };
            within_wait(request, wait).millis_max
        };
        assert_eq!(millis(10_000, Duration::from_secs(10)), 9_900);
        assert_eq!(millis(0, Duration::from_secs(10)), 9_900);
        assert_eq!(millis(500, Duration::from_secs(10)), 500);
        assert_eq!(millis(500, Duration::ZERO), 1);
    }
}
