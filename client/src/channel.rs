//! HTTP/2 channels over our own TLS, and what their errors mean.
//!
//! The connector makes sure that a node of the right cluster answers; tonic sees a plain stream. A channel connects at its
//! first call and again after a break; a call on a broken one fails at once and is retried by whoever made it.

use crate::error::ClientError;
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;
use zyflow_api::ApiError;
use zyflow_api::v1::ErrorCode;
use zyflow_crypto::{ConnectError, Connector, Identity, connect_unknown};

/// Flow-control window of one stream, in bytes: a thousand pipelined proposals of 4 KiB never wait for a window update.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Flow-control window of one connection, in bytes: several such streams.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// A silent connection is asked whether it lives after this long. Shorter than the command line's default deadline of 10 s,
/// so that one dead connection doesn't use it up.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// No answer to that in this time: it is dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A channel to `address`, connected when it is first used. Needs a runtime around it.
pub(crate) fn channel(address: &str, connector: &Connector) -> Result<Channel, ClientError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| ClientError::Address { address: address.to_owned() })?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let (connector, address) = (connector.clone(), address.to_owned());
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move { connector.connect(&address, None).await.map(TokioIo::new) }
    })))
}

/// A channel to a node that lets others join, known by the hash of its CA, and who it is. It is connected already, and isn't again: for
/// one call.
pub(crate) async fn joining_channel(address: &str, ca: [u8; 32]) -> Result<(Channel, Identity), ClientError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| ClientError::Address { address: address.to_owned() })?;
    let unreachable = |reason: String| ClientError::Unreachable { address: address.to_owned(), reason };
    let (stream, identity) = connect_unknown(address, ca).await.map_err(|error| unreachable(error.to_string()))?;
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = service_fn(move |_: Uri| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| unreachable(error.to_string()))?;
    Ok((channel, identity))
}

/// What a status of a call to `address` means: the service's own error, or a connection that isn't there.
pub(crate) fn status_error(address: &str, status: &Status) -> ClientError {
    let address = address.to_owned();
    if !status.details().is_empty() {
        return ClientError::Service { address, error: ApiError::from_status(status) };
    }
    if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) {
        let error = ApiError::new(ErrorCode::Deadline, format!("{address} did not answer in time"));
        return ClientError::Service { address, error };
    }
    // Only what arose on our side has a source: a status that a server sent is text and code.
    let mut chain = std::iter::successors(status.source(), |error| (*error).source()).peekable();
    if chain.peek().is_none() && status.code() != Code::Unavailable {
        return ClientError::Service { address, error: ApiError::from_status(status) };
    }
    let mut reasons: Vec<String> = vec![status.message().to_owned()];
    for error in chain {
        if let Some(connect) = error.downcast_ref::<ConnectError>() {
            return ClientError::Unreachable { address, reason: connect.to_string() };
        }
        let reason = error.to_string();
        if !reasons.iter().any(|known| known.contains(&reason)) {
            reasons.push(reason);
        }
    }
    let reason = format!(
        "the connection to {address} broke ({}); check that the node runs and accepts this certificate",
        reasons.join(": ")
    );
    ClientError::Unreachable { address, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_own_error_keeps_its_code() {
        let status = ApiError::new(ErrorCode::NoQuorum, "no majority").into();
        let error = status_error("a:1", &status);
        assert!(matches!(&error, ClientError::Service { error, .. } if error.code == ErrorCode::NoQuorum), "{error:?}");
    }

    #[test]
    fn a_status_without_details_is_a_broken_connection_only_if_it_says_unavailable() {
        let broken = status_error("a:1", &Status::unavailable("reset"));
        assert!(matches!(broken, ClientError::Unreachable { .. }), "{broken:?}");
        let late = status_error("a:1", &Status::cancelled("Timeout expired"));
        assert!(matches!(&late, ClientError::Service { error, .. } if error.code == ErrorCode::Deadline), "{late:?}");
        let denied = status_error("a:1", &Status::permission_denied("no"));
        assert!(matches!(&denied, ClientError::Service { error, .. } if error.code == ErrorCode::Denied), "{denied:?}");
    }
}
