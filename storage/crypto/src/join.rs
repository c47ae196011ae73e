//! How a new node gets its certificate: by a token, without its private key ever leaving it.
//!
//! ```text
//!   administrator       node with the CA's key                      new node
//!       | token of id 4? ->|  keeps a hash of the secret                |
//!       |<- zyj1_...@host -|                                            |  makes its key
//!       |---------------- by any safe way ----------------------------->|
//!                          |<-- TLS; the server is known by its CA's ---|
//!                          |    hash, the caller by nothing yet         |
//!                          |<-- secret, request for its public key -----|
//!                          |--- certificate, CA, data key ------------->|
//! ```
//! The pattern is that of k3s's secure token and of Docker's `SWMTKN-1`: the token names the CA by its hash, so the secret is told to
//! nobody else. Whatever a request asks for but its public key is ignored: identity and usages are the token's.
//!
//! [`JoinToken`] is the token, [`Authority`] the CA's key, [`NodeKey`] the new node's. Which tokens are good, and for how long, is the
//! issuing node's to know.

mod authority;
mod token;

pub(crate) use authority::hash_of;
pub use authority::{Authority, AuthorityError, NodeKey, Request};
pub use token::{JoinToken, SecretHash, TokenError};

/// How long a certificate that was issued for a token is good, in days: as those of `deploy/certificates.sh`.
pub const CERTIFICATE_DAYS: u32 = 90;

#[cfg(test)]
mod tests;
