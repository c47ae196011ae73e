//! What ZyFlow seals with, and how its processes know each other.
//!
//! ```text
//!   data key (a file, outside the data folder)          CA certificate + own certificate and key
//!        |  HKDF extract, once                                     |
//!        v                                                         v
//!   [KeyRing] --seal/open--> envelope v1: log entries,        [TlsMaterial] --> [Acceptor]  who is calling?
//!        |                   snapshot chunks                       |
//!        | seals                                                   +----------> [Connector] did I reach that node?
//!        v
//!   node.key --> [LocalKey]: what one node derives (rows,
//!                base texts), never leaves that node
//! ```
//!
//! Two layers of sealing, for two jobs. [`envelope`] is for what the cluster shares: an entry is sealed once, by the
//! leader, and every replica, log, snapshot and backup holds those same bytes. [`local`] is for what a node computes from
//! it: many small records, read and written all day, under a key that only that node has.
//!
//! [`backup`] is the outside of a backup's objects: what of them is checked without any key.
//!
//! [`identity`] says who a certificate speaks for; [`tls`] makes configurations, an acceptor and a connector that accept
//! nobody else; [`join`] is how a new node gets its certificate. Who may *do* what is decided elsewhere, from the [`Identity`] that this crate hands over.
//!
//! Deliberately not here: permissions, key rotation policy, and any knowledge of terms, log indexes or revisions. A log id
//! can be written twice with different contents, so neither a nonce nor a key nor associated data may come from one.

mod hex;
mod key;
mod private_file;
mod random;

pub mod backup;
pub mod envelope;
pub mod identity;
pub mod join;
pub mod key_file;
pub mod local;
pub mod tls;

pub use envelope::{Lineage, OpenError, Opened, PLAINTEXT_BYTES_MAX, SealError, open, seal};
pub use identity::{Identity, IdentityError, Role, identity_of};
pub use key::{DataKey, KeyId, KeyRing, Purpose};
pub use key_file::{KeyFileError, create_key_file, key_file_text, load_key_file, store_key_file};
pub use local::{LocalKey, LocalKeyError};
pub use private_file::PrivateFileError;
pub use random::RandomError;
pub use tls::{
    AcceptError, Accepted, Acceptor, ConnectError, Connector, SERVER_NAME, TlsError, TlsFiles, TlsMaterial,
    connect_unknown,
};
