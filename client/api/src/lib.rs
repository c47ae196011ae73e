//! How others talk to the cluster: the `zyflow.v1` protocol.
//!
//! [`v1`] is what the `.proto` files in `proto/zyflow/v1` generate: messages, client stubs, server traits. Start with
//! `propose.proto` (changing the state), then `query.proto`, `watch.proto`, `replay.proto`, `admin.proto`; `types.proto` holds what they
//! share. [`convert`] turns messages into the types of `zyflow-machine` and back: what comes in is parsed once, here, into
//! types that can't be wrong, and what is malformed is a [`ConvertError`] that names the field. [`error`] carries the errors
//! of a service through a gRPC status without losing their code or the hint where the leader is.
//!
//! Deliberately not here: connections, retries, sessions (`zyflow-client`), and any decision about a command
//! (`zyflow-machine`). This crate does no IO.
//!
//! Compatibility: field numbers are never used again; an enum's 0 and an absent `oneof` are errors, so a newer peer's unknown
//! command is refused instead of being taken for something else.

pub mod convert;
pub mod error;

/// The generated code of package `zyflow.v1`.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::pedantic,
    clippy::as_conversions,
    reason = "generated; the documentation is in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("zyflow.v1");
}

pub use convert::ConvertError;
pub use error::ApiError;

/// Largest message on the wire, in bytes: a change of 1 MiB (the limit of a synced file) as blocks, several times over, and
/// small enough that a hostile peer can't exhaust memory with a few calls.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The bytes that a message takes on the wire.
#[must_use]
pub fn message_bytes(message: &impl prost::Message) -> usize {
    message.encoded_len()
}
