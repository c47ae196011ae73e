//! The Propose service: a pipelined stream of commands, and its unary twin.
//!
//! Every command of a stream runs as soon as it arrives, up to `OUTSTANDING_MAX` at once, and is answered when it is
//! decided; so one connection keeps the leader's batches full. A full window stops reading, and HTTP/2's flow control
//! slows the sender.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use zyflow_api::convert::Call;
use zyflow_api::v1::propose_server::Propose;
use zyflow_api::v1::{ProposeRequest, ProposeResponse, propose_response};
use zyflow_api::{ApiError, ConvertError};
use zyflow_machine::outcome::Outcome;
use zyflow_raft::Consensus;

use crate::metrics::Metrics;
use crate::services::propose_error;

/// Commands of one stream that may be under way: more than the 256 that a session's window could answer again.
const OUTSTANDING_MAX: usize = 1_024;

/// How long a command may take if its sender doesn't say: a few elections.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Longest that a sender may ask for: nothing waits for ever.
const TIMEOUT_MAX: Duration = Duration::from_mins(2);

/// The service.
#[derive(Clone)]
pub struct ProposeService {
    consensus: Consensus,
}

impl ProposeService {
    /// Proposes through `consensus`.
    #[must_use]
    pub fn new(consensus: Consensus) -> Self {
        Self { consensus }
    }

    async fn answer(self, request: ProposeRequest) -> ProposeResponse {
        let call = request.call;
        let result = match self.propose(request).await {
            Ok(outcome) => {
                Metrics::count_proposal(name(&outcome));
                propose_response::Result::Outcome(outcome.into())
            }
            Err(error) => {
                Metrics::count_proposal("error");
                propose_response::Result::Error(error.into())
            }
        };
        ProposeResponse { call, result: Some(result) }
    }

    async fn propose(&self, request: ProposeRequest) -> Result<Outcome, ApiError> {
        let call = Call::try_from(request).map_err(|error: ConvertError| ApiError::from(error))?;
        let wait = call.deadline.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX);
        self.consensus.propose(call.command, Instant::now() + wait).await.map_err(|error| propose_error(&error))
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Stale { .. } => "stale",
        Outcome::Rejected(_) => "rejected",
        Outcome::Duplicate(_) => "duplicate",
    }
}

#[tonic::async_trait]
impl Propose for ProposeService {
    type ProposeStream = Pin<Box<dyn Stream<Item = Result<ProposeResponse, Status>> + Send>>;

    async fn propose(
        &self,
        request: Request<Streaming<ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        let service = self.clone();
        let answers = request
            .into_inner()
            .map(move |request| {
                let service = service.clone();
                async move { Ok(service.answer(request?).await) }
            })
            .buffer_unordered(OUTSTANDING_MAX);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn propose_one(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        Ok(Response::new(self.clone().answer(request.into_inner()).await))
    }
}
