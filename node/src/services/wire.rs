//! Answers of the Query service as the bytes that they were encoded to, once.
//!
//! ```text
//!   QueryResponse on the wire:   revision | time_ms | answer
//!                                └── encoded here ──┘ └── as it was kept, or as it was just read: copied ──┘
//! ```
//!
//! A message of Protocol Buffers is its fields one after the other, in any order, so the two parts together are one message. All other
//! calls of the service go to the generated code. Invariant: what goes out is what [`v1::QueryResponse`] would have been encoded to.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use zyflow_api::v1::query_server::QueryServer;
use zyflow_api::v1::{self, query_response};
use zyflow_api::{ApiError, MESSAGE_BYTES_MAX};
use zyflow_machine::id::{ClusterTime, Revision};

use super::query::QueryService;

/// The one call whose answers are encoded here.
const QUERY: &str = "/zyflow.v1.Query/Query";

/// An answer, encoded.
#[derive(Debug)]
pub struct Encoded {
    /// What it is true at.
    pub revision: Revision,
    /// The clock that belongs to it.
    pub time: ClusterTime,
    /// The field `answer` with its tag.
    pub answer: Bytes,
}

impl Encoded {
    /// The bytes of an answer, as they are kept.
    #[must_use]
    pub fn bytes_of(answer: query_response::Answer) -> Bytes {
        v1::QueryResponse { revision: 0, time_ms: 0, answer: Some(answer) }.encode_to_vec().into()
    }

    fn encode(&self, out: &mut impl BufMut) -> Result<(), Status> {
        let head = v1::QueryResponse { revision: self.revision.0, time_ms: self.time.0, answer: None };
        head.encode(out).map_err(|error| Status::internal(error.to_string()))?;
        out.put_slice(&self.answer);
        Ok(())
    }

    /// The message that this is.
    ///
    /// # Errors
    /// What was kept is no answer.
    pub fn decode(&self) -> Result<v1::QueryResponse, Status> {
        let mut response =
            v1::QueryResponse::decode(self.answer.clone()).map_err(|error| Status::internal(error.to_string()))?;
        (response.revision, response.time_ms) = (self.revision.0, self.time.0);
        Ok(response)
    }
}

/// The Query service.
#[derive(Clone)]
pub struct QueryWire {
    service: QueryService,
    generated: QueryServer<QueryService>,
}

impl QueryWire {
    /// Serves `service`.
    #[must_use]
    pub fn new(service: QueryService) -> Self {
        let generated = QueryServer::new(service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Self { service, generated }
    }
}

impl NamedService for QueryWire {
    const NAME: &'static str = <QueryServer<QueryService> as NamedService>::NAME;
}

impl<B> Service<http::Request<B>> for QueryWire
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != QUERY {
            return self.generated.call(request);
        }
        let asking = Asking(self.service.clone());
        Box::pin(async move {
            let grpc = Grpc::new(EncodedCodec).apply_max_message_size_config(Some(MESSAGE_BYTES_MAX), None);
            let mut grpc = grpc;
            Ok(grpc.unary(asking, request).await)
        })
    }
}

struct Asking(QueryService);

impl UnaryService<v1::QueryRequest> for Asking {
    type Response = Encoded;
    type Future = BoxFuture<Response<Encoded>, Status>;

    fn call(&mut self, request: Request<v1::QueryRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let answer: Result<Encoded, ApiError> = service.respond(request.into_inner()).await;
            Ok(Response::new(answer?))
        })
    }
}

/// Questions as messages, answers as they are.
struct EncodedCodec;

impl Codec for EncodedCodec {
    type Encode = Encoded;
    type Decode = v1::QueryRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for EncodedCodec {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, item: Encoded, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out)
    }
}

impl Decoder for EncodedCodec {
    type Item = v1::QueryRequest;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<v1::QueryRequest>, Status> {
        let request = v1::QueryRequest::decode(bytes);
        request.map(Some).map_err(|error| Status::internal(format!("the question can't be decoded: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_is_the_message_itself() {
        let changes = vec![v1::Change { id: 7, version: 9, record: None }];
        let answer = query_response::Answer::Changes(v1::ChangeList { changes });
        let whole = v1::QueryResponse { revision: 12, time_ms: 99, answer: Some(answer.clone()) };
        let encoded = Encoded { revision: Revision(12), time: ClusterTime(99), answer: Encoded::bytes_of(answer) };
        let mut out = Vec::new();
        encoded.encode(&mut out).unwrap();
        assert_eq!(v1::QueryResponse::decode(out.as_slice()).unwrap(), whole);
        assert_eq!(encoded.decode().unwrap(), whole);
        assert_eq!(out.len(), whole.encoded_len());
    }
}
