//! Replays on one node: the one that is asked first. Nothing is tried again, as a replay says something about that node.

use crate::channel::status_error;
use crate::client::Client;
use crate::error::ClientError;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::Channel;
use zyflow_api::ConvertError;
use zyflow_api::v1::replay_client::ReplayClient;
use zyflow_api::v1::replay_response::Item;
use zyflow_api::v1::{ReplayRequest, ReplayResult, ReplaysRequest};

impl Client {
    /// Replays a range of the past; `progress` is told a revision and a count of events now and then. `within` is how long the node may
    /// say nothing.
    ///
    /// # Errors
    /// See [`ClientError`]; the code is `REVISION` where a moment isn't kept or lies in the future.
    pub async fn replay(
        &self,
        request: ReplayRequest,
        within: Duration,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<ReplayResult, ClientError> {
        let address = self.address(self.preferred()).to_owned();
        let late = |_| ClientError::Deadline { waited: within, last: None, may_apply: false };
        let failed = |status: tonic::Status| status_error(&address, &status);
        let begun = timeout(within, self.replay_service().replay(Request::new(request))).await.map_err(late)?;
        let mut stream = begun.map_err(failed)?.into_inner();
        loop {
            let message = timeout(within, stream.message()).await.map_err(late)?.map_err(failed)?;
            let item = message.and_then(|message| message.item);
            match item.ok_or_else(|| ClientError::convert(&address, &ConvertError::Missing { field: "item" }))? {
                Item::Progress(at) => progress(at.revision, at.events),
                Item::Result(result) => return Ok(result),
            }
        }
    }

    /// What came of the newest replays of that node, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn replays(&self, within: Duration) -> Result<Vec<ReplayResult>, ClientError> {
        let address = self.address(self.preferred()).to_owned();
        let asked = timeout(within, self.replay_service().replays(ReplaysRequest {})).await;
        let answered = asked.map_err(|_| ClientError::Deadline { waited: within, last: None, may_apply: false })?;
        answered.map(|answer| answer.into_inner().results).map_err(|status| status_error(&address, &status))
    }

    fn replay_service(&self) -> ReplayClient<Channel> {
        ReplayClient::new(self.channel(self.preferred(), 0)).max_decoding_message_size(zyflow_api::MESSAGE_BYTES_MAX)
    }
}
