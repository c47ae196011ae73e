//! The client side of ZyFlow: a library for programs, and the `zyflow` command line on top of it.
//!
//! Read it in this order. [`profile`]: where a cluster is and who we are to it. [`client`]: connections, routing to the
//! leader, deadlines, retries. [`session`]: numbered requests, so that a retry has no second effect. [`read`]: typed
//! queries, [`moment`]: of which revision. [`export`]: all of it as a plain SQLite file. [`watch`]: what happens, across broken connections; [`join`]: how a
//! machine becomes a node. [`replay`]: whether it comes out the same again. [`backup`]: all of it, kept elsewhere. [`coordinator`]: what keeps text and runtime state consistent, pure. [`error`] and [`code`]: what can go wrong, as types, as codes with a page each, and as exit codes. [`dev`]: a
//! whole cluster of `zyflowd` processes on this machine. [`cli`]: the commands.
//!
//! ```text
//!   cli --> dev --> zyflowd processes
//!    |       |
//!    +-------+--> session --> client --> pipeline (one Propose stream per connection)
//!    |                          |
//!    +--> read -----------------+------> channel (gRPC over our own TLS)
//! ```
//!
//! Nothing outside `cli` prints. Deliberately not here: the checkout engine (`zyflow-checkout`), and anything that opens a
//! data folder (`zyflowd`).

pub mod backup;
pub mod cli;
pub mod client;
pub mod code;
pub mod coordinator;
pub mod dev;
pub mod error;
pub mod export;
pub mod join;
pub mod moment;
pub mod profile;
pub mod read;
pub mod replay;
pub mod session;
pub mod watch;

mod channel;
mod node_config;
mod pipeline;

pub use client::Client;
pub use code::{Code, Exit};
pub use error::ClientError;
pub use profile::Profile;
pub use session::Session;
