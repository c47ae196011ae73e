//! The configuration of `zyflowd`, as far as it is written here: for a local cluster, and for a machine that joins one. What isn't here is as
//! it is by default.

use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
pub(crate) struct NodeConfig {
    pub(crate) node: NodeSection,
    pub(crate) tls: TlsSection,
    pub(crate) peer: PortSection,
    pub(crate) api: PortSection,
    pub(crate) http: HttpSection,
    pub(crate) log: LogSection,
}

#[derive(Serialize)]
pub(crate) struct NodeSection {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    pub(crate) lineage: String,
    pub(crate) data: PathBuf,
    pub(crate) key_file: PathBuf,
}

#[derive(Serialize)]
pub(crate) struct TlsSection {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

#[derive(Serialize)]
pub(crate) struct PortSection {
    pub(crate) listen: String,
    pub(crate) advertise: String,
}

#[derive(Serialize)]
pub(crate) struct HttpSection {
    pub(crate) listen: String,
}

#[derive(Serialize)]
pub(crate) struct LogSection {
    pub(crate) level: &'static str,
    pub(crate) format: &'static str,
}

impl LogSection {
    /// What `zyflowd` does where nothing is said.
    pub(crate) const USUAL: Self = Self { level: "info", format: "json" };
}
