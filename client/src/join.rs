//! How a machine becomes a node: a folder with its key, its certificate, the data key and its configuration, for a join token.
//!
//! ```text
//!   DIR/node.key      made here, and never told to anybody        DIR/zyflowd.toml   for `zyflowd run --config`
//!   DIR/node.pem      what the token was exchanged for            DIR/client.toml    a profile that speaks as this node
//!   DIR/ca.pem        the cluster's CAs                           DIR/data/          the node's data, once it runs
//!   DIR/data.key      the cluster's data key                      DIR/joining        whom the folder is for: its first file
//! ```
//! Each step may be repeated: a key that is there is used again, for which the token is still good, and files are whole or not there. The
//! profile is the last: a folder that has one is ready.

use crate::channel::{joining_channel, status_error};
use crate::error::ClientError;
use crate::node_config::{HttpSection, LogSection, NodeConfig, NodeSection, PortSection, TlsSection};
use crate::profile::Profile;
use serde::Serialize;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;
use zyflow_api::v1;
use zyflow_api::v1::join_client::JoinClient;
use zyflow_crypto::join::{AuthorityError, JoinToken, NodeKey};
use zyflow_crypto::{KeyFileError, TlsError, TlsFiles, TlsMaterial, store_key_file};

/// Says whom a folder is for; there from its beginning.
const MARK_FILE: &str = "joining";

/// How others reach the new node, and where its metrics are.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// `HOST:PORT` of its peer port.
    pub peer: String,
    /// `HOST:PORT` of its API.
    pub api: String,
    /// Of its metrics and health.
    pub http: SocketAddr,
}

/// A folder that is ready for `zyflowd`.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration of the node.
    pub config: PathBuf,
    /// A profile of the other members, with the node's own certificate.
    pub profile: PathBuf,
}

/// Why a machine can't become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The node that the token names.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The key, or its request.
    #[error(transparent)]
    Key(#[from] AuthorityError),
    /// What came back is no data key, or can't be stored.
    #[error(transparent)]
    DataKey(#[from] KeyFileError),
    /// What came back isn't the certificate that was asked for.
    #[error("the certificate that was issued can't be used: {0}")]
    Certificate(#[from] TlsError),
    /// It speaks for somebody else.
    #[error("the folder's certificate is for {found}, not for {expected}: name a folder of its own for each token")]
    Identity {
        /// Whom it speaks for.
        found: String,
        /// Whom the token is for.
        expected: String,
    },
    /// A file of the folder.
    #[error("{path}: {source}; name a folder that can be made, or that an earlier try with this token made")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else's files.
    #[error("{0} isn't empty, and wasn't made for this token: nothing was changed; name a folder that isn't there yet")]
    Occupied(PathBuf),
    /// An address that others can't call.
    #[error("`{0}` is no address that others can call: write HOST:PORT")]
    Address(String),
}

/// Makes the folder ready, as far as it isn't.
///
/// # Errors
/// See [`JoinError`]; what was made stays, and the next try goes on from there.
pub async fn prepare(
    token: &JoinToken,
    folder: &Path,
    addresses: &Addresses,
    within: Duration,
) -> Result<Prepared, JoinError> {
    let file = |name: &str| folder.join(name);
    let prepared = Prepared { config: file("zyflowd.toml"), profile: file("client.toml") };
    let key_path = file("node.key");
    let files = TlsFiles { ca: file("ca.pem"), cert: file("node.pem"), key: key_path.clone() };
    if prepared.profile.exists() {
        check_holder(&TlsMaterial::load(&files, None)?, token)?;
        return Ok(prepared);
    }
    let (peer, api) = (listen(&addresses.peer)?, listen(&addresses.api)?);
    let folder = claim(folder, token)?;
    let key = if key_path.exists() {
        NodeKey::load(&key_path)?
    } else {
        let key = NodeKey::generate()?;
        key.store(&key_path)?;
        key
    };
    let (answer, cluster) = redeem(token, key.request()?, within).await?;
    write_whole(&file("ca.pem"), &answer.authorities)?;
    write_whole(&file("node.pem"), &answer.certificate)?;
    if !file("data.key").exists() {
        store_key_file(&file("data.key"), &answer.data_key)?;
    }
    check_holder(&TlsMaterial::load(&files, Some(&cluster))?, token)?;
    let endpoints = answer.members.iter().map(|member| member.api_address.clone()).filter(|api| !api.is_empty());
    let profile = Profile {
        cluster: cluster.clone(),
        endpoints: endpoints.collect(),
        ca: "ca.pem".into(),
        cert: "node.pem".into(),
        key: "node.key".into(),
    };
    let config = NodeConfig {
        node: NodeSection {
            id: token.node_id,
            cluster,
            lineage: answer.lineage,
            data: folder.join("data"),
            key_file: folder.join("data.key"),
        },
        tls: TlsSection { ca: folder.join("ca.pem"), cert: folder.join("node.pem"), key: folder.join("node.key") },
        peer: PortSection { listen: peer.to_string(), advertise: addresses.peer.clone() },
        api: PortSection { listen: api.to_string(), advertise: addresses.api.clone() },
        http: HttpSection { listen: addresses.http.to_string() },
        log: LogSection::USUAL,
    };
    write_toml(&prepared.config, &config)?;
    write_toml(&prepared.profile, &profile)?;
    Ok(prepared)
}

/// Makes the folder, or sees that an earlier try with this token made it: nothing that others put there is touched.
fn claim(folder: &Path, token: &JoinToken) -> Result<PathBuf, JoinError> {
    let failed = |source| JoinError::File { path: folder.to_owned(), source };
    let (mark, ours) = (folder.join(MARK_FILE), format!("{} {}\n", token.role, token.node_id));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    if std::fs::read_dir(folder).map_err(failed)?.next().is_none() {
        write_whole(&mark, &ours)?;
    } else if std::fs::read_to_string(&mark).ok().as_ref() != Some(&ours) {
        return Err(JoinError::Occupied(folder.to_owned()));
    }
    folder.canonicalize().map_err(failed)
}

/// That a certificate speaks for the node that a token is for.
fn check_holder(material: &TlsMaterial, token: &JoinToken) -> Result<(), JoinError> {
    let found = material.identity();
    if (found.role, found.node_id) == (token.role, token.node_id) {
        return Ok(());
    }
    let expected = format!("{} {}", token.role, token.node_id);
    Err(JoinError::Identity { found: found.to_string(), expected })
}

/// Exchanges the token; the name of the cluster is the one in the certificate of the node that answers.
async fn redeem(
    token: &JoinToken,
    request: Vec<u8>,
    within: Duration,
) -> Result<(v1::RedeemResponse, String), ClientError> {
    let (channel, identity) = joining_channel(&token.address, token.ca).await?;
    let secret = token.secret().to_vec();
    let asking =
        async { JoinClient::new(channel).redeem(v1::RedeemRequest { node_id: token.node_id, secret, request }).await };
    let answered = timeout(within, asking).await;
    let late = |_| ClientError::Deadline { waited: within, last: None, may_apply: true };
    let answer = answered.map_err(late)?.map_err(|status| status_error(&token.address, &status))?;
    Ok((answer.into_inner(), identity.cluster))
}

/// Where to listen for what others call `address`: that address itself, or all of this machine's where it has a name.
fn listen(address: &str) -> Result<SocketAddr, JoinError> {
    let wrong = || JoinError::Address(address.to_owned());
    if let Ok(listen) = address.parse::<SocketAddr>() {
        return if listen.port() > 0 { Ok(listen) } else { Err(wrong()) };
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0 && !host.is_empty()).ok_or_else(wrong)?;
    Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
}

fn write_toml(path: &Path, value: &impl Serialize) -> Result<(), JoinError> {
    let text = toml::to_string(value);
    let text = text.map_err(|error| JoinError::File { path: path.to_owned(), source: io::Error::other(error) })?;
    write_whole(path, &text)
}

fn write_whole(path: &Path, text: &str) -> Result<(), JoinError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    written().map_err(|source| JoinError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_listened_for_on_every_address() {
        let listen = |address| listen(address).map(|listen| listen.to_string());
        assert_eq!(listen("10.0.0.4:7101").unwrap(), "10.0.0.4:7101");
        assert_eq!(listen("[::1]:7101").unwrap(), "[::1]:7101");
        assert_eq!(listen("node-4.example:7101").unwrap(), "0.0.0.0:7101");
        for bad in ["", "node-4", ":7101", "node-4:0", "10.0.0.4:0", "node-4:many"] {
            assert!(matches!(listen(bad), Err(JoinError::Address(_))), "{bad}");
        }
    }
}
