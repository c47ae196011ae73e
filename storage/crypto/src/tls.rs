//! Mutual TLS: certificates from files, made into configurations that talk to this cluster and to nobody else.
//!
//! Every connection, between nodes and with clients, is TLS 1.3 with a certificate on both sides, issued by the cluster's CA
//! and naming the cluster (see [`crate::identity`]). Certificates are checked in full when they are loaded, by the code that
//! a peer would use, so that a wrong file is refused at start or reload with its name, and not by every peer later.
//!
//! - [`TlsMaterial`]: one set of checked files, with its configurations.
//! - [`Acceptor`]: takes TCP connections, gives streams with the caller's [`Identity`]; reloads without losing connections.
//! - [`Connector`]: reaches a node by address and makes sure that it is the one that was meant.
//! - [`connect_unknown`]: for a node that has no certificate yet (see [`crate::join`]).
//!
//! Session resumption is off on both sides: a resumed session skips the check of the peer's certificate, so it would outlive
//! a reload. Connections live long here, so it would save nothing.
//!
//! Deliberately not here: revocation lists and what a role may do.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, InconsistentKeys, RootCertStore, ServerConfig, WantsVerifier,
    version,
};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::identity::{Identity, identity_of};
use crate::private_file;

mod acceptor;
mod connector;
mod error;
mod joining;

pub use acceptor::{AcceptError, Accepted, Acceptor, HANDSHAKE_DEADLINE, ReloadError};
pub use connector::{CONNECT_DEADLINE, ConnectError, Connector};
pub use error::TlsError;
pub use joining::connect_unknown;

/// The DNS name in every node's certificate, whatever its address: an address that changes never breaks TLS. Which node
/// answered is told by its identity.
pub const SERVER_NAME: &str = "node.zyflow.internal";

/// The application protocol that is offered and accepted: HTTP/2, for gRPC.
const ALPN: &[u8] = b"h2";

/// The longest certificate file that is read: 1 MiB, hundreds of certificates.
const CERTIFICATES_BYTES_MAX: usize = 1 << 20;

/// Where the certificates of a process are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster's CA, or several while one replaces another.
    pub ca: PathBuf,
    /// This process's certificate, followed by intermediates if there are any.
    pub cert: PathBuf,
    /// The private key of that certificate, mode 0600 or 0400.
    pub key: PathBuf,
}

/// One checked set of certificate files, ready to serve and to connect.
#[derive(Debug, Clone)]
pub struct TlsMaterial {
    identity: Identity,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    joining: Arc<ServerConfig>,
}

impl TlsMaterial {
    /// Reads the three files and checks everything that a peer would check: dates, issuer, names, usages, that the key fits
    /// and is private, and, if given, the cluster's name.
    ///
    /// # Errors
    /// See [`TlsError`]: a variant for each thing that can be wrong.
    pub fn load(files: &TlsFiles, expected_cluster: Option<&str>) -> Result<TlsMaterial, TlsError> {
        let now = UnixTime::now();
        let authorities = certificates("CA certificate", &files.ca)?;
        let chain = certificates("certificate", &files.cert)?;
        let key = private_key(&files.key)?;
        for authority in &authorities {
            check_dates("CA certificate", &files.ca, authority, now)?;
        }
        check_dates("certificate", &files.cert, &chain[0], now)?;
        let identity =
            identity_of(&chain[0]).map_err(|source| TlsError::Identity { cert: files.cert.clone(), source })?;
        if let Some(expected) = expected_cluster.filter(|expected| *expected != identity.cluster) {
            let (found, expected) = (identity.cluster, expected.to_owned());
            return Err(TlsError::WrongCluster { cert: files.cert.clone(), found, expected });
        }
        let verifiers = Verifiers::new(files, &authorities)?;
        verifiers.check_own(files, &identity, &chain, now)?;
        let joining = joining_configuration(files, chain.clone(), authorities, key.clone_key())?;
        let (server, client) = verifiers.configurations(files, chain, key)?;
        Ok(TlsMaterial { identity, server: Arc::new(server), client: Arc::new(client), joining: Arc::new(joining) })
    }

    /// Who these files speak for.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// TLS 1.3 only, a certificate of the CA required of every client, no resumption, HTTP/2.
    ///
    /// It doesn't look at the client's cluster or role: [`Acceptor`] does.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// TLS 1.3 only, shows this certificate, checks the server's against the CA, no resumption, HTTP/2.
    ///
    /// It doesn't look at the server's cluster, role or id: [`Connector`] does.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// As [`TlsMaterial::server_config`], but the client shows no certificate, and the server its CAs: for nodes that join.
    pub(crate) fn joining_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.joining)
    }
}

/// What decides over a peer's certificate, and over our own before we show it.
struct Verifiers {
    provider: Arc<CryptoProvider>,
    server: Arc<WebPkiServerVerifier>,
    client: Arc<dyn ClientCertVerifier>,
}

impl Verifiers {
    fn new(files: &TlsFiles, authorities: &[CertificateDer<'static>]) -> Result<Verifiers, TlsError> {
        let mut roots = RootCertStore::empty();
        let unusable =
            |problem: String| TlsError::Certificate { what: "CA certificate", path: files.ca.clone(), problem };
        for authority in authorities {
            let (_, parsed) = X509Certificate::from_der(authority).map_err(|error| unusable(error.to_string()))?;
            if !parsed.is_ca() {
                return Err(TlsError::NotACa { path: files.ca.clone() });
            }
            roots.add(authority.clone()).map_err(|error| unusable(error.to_string()))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
        let server = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let client = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        Ok(Verifiers {
            server: server.build().map_err(|error| unusable(error.to_string()))?,
            client: client.build().map_err(|error| unusable(error.to_string()))?,
            provider,
        })
    }

    /// Asks of our own certificate what peers will ask of it.
    fn check_own(
        &self,
        files: &TlsFiles,
        identity: &Identity,
        chain: &[CertificateDer<'static>],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        let refused = |usage| move |error| own_refused(files, usage, error);
        let (own, intermediates) = (&chain[0], &chain[1..]);
        self.client.verify_client_cert(own, intermediates, now).map_err(refused("a client"))?;
        if identity.role.is_node() {
            let name = server_name();
            self.server.verify_server_cert(own, intermediates, &name, &[], now).map_err(refused("a server"))?;
        }
        Ok(())
    }

    fn configurations(
        self,
        files: &TlsFiles,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(ServerConfig, ClientConfig), TlsError> {
        let unusable = |error| key_refused(files, error);
        let server = server_builder(&self.provider)
            .with_client_cert_verifier(self.client)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        let server = without_resumption(server);

        let mut client = ClientConfig::builder_with_provider(self.provider)
            .with_protocol_versions(&[&version::TLS13])
            .expect("invariant: the provider has cipher suites for TLS 1.3")
            .with_webpki_verifier(self.server)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        Ok((server, client))
    }
}

fn server_builder(provider: &Arc<CryptoProvider>) -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])
        .expect("invariant: the provider has cipher suites for TLS 1.3")
}

fn without_resumption(mut server: ServerConfig) -> ServerConfig {
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server
}

fn joining_configuration(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let shown = chain.into_iter().chain(authorities).collect();
    let server = server_builder(&Arc::new(aws_lc_rs::default_provider()))
        .with_no_client_auth()
        .with_single_cert(shown, key)
        .map_err(|error| key_refused(files, error))?;
    Ok(without_resumption(server))
}

fn own_refused(files: &TlsFiles, usage: &'static str, error: rustls::Error) -> TlsError {
    let cert = files.cert.clone();
    let rustls::Error::InvalidCertificate(reason) = &error else {
        return TlsError::Refused { cert, source: error };
    };
    if is_untrusted(reason) {
        TlsError::Untrusted { cert, ca: files.ca.clone() }
    } else if is_other_name(reason) {
        TlsError::ServerName { cert }
    } else if is_other_purpose(reason) {
        TlsError::Usage { cert, usage }
    } else {
        TlsError::Refused { cert, source: error }
    }
}

fn key_refused(files: &TlsFiles, error: rustls::Error) -> TlsError {
    let key = files.key.clone();
    if matches!(error, rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) {
        TlsError::KeyMismatch { cert: files.cert.clone(), key }
    } else {
        TlsError::Key { key, source: error }
    }
}

/// An issuer of another name, or of the same name and another key: clusters may be named alike.
fn is_untrusted(reason: &CertificateError) -> bool {
    matches!(reason, CertificateError::UnknownIssuer | CertificateError::BadSignature)
}

fn is_other_name(reason: &CertificateError) -> bool {
    matches!(reason, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
}

fn is_other_purpose(reason: &CertificateError) -> bool {
    matches!(reason, CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. })
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("invariant: the constant is a DNS name")
}

/// All certificates of a PEM file, at least one, each readable.
pub(crate) fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read_error = |source| TlsError::Read { what, path: path.to_owned(), source };
    let mut contents = Vec::new();
    let file = fs::File::open(path).map_err(read_error)?;
    let limit = u64::try_from(CERTIFICATES_BYTES_MAX + 1).expect("invariant: 1 MiB and a byte fit in 64 bits");
    file.take(limit).read_to_end(&mut contents).map_err(read_error)?;
    let unusable = |problem| TlsError::Pem { what, path: path.to_owned(), label: "CERTIFICATE", problem };
    let pem_error = |error: pem::Error| unusable(error.to_string());
    if contents.len() > CERTIFICATES_BYTES_MAX {
        return Err(unusable(format!("it is over {CERTIFICATES_BYTES_MAX} bytes")));
    }
    let found = CertificateDer::pem_slice_iter(&contents).collect::<Result<Vec<_>, _>>().map_err(pem_error)?;
    if found.is_empty() {
        return Err(pem_error(pem::Error::NoItemsFound));
    }
    for certificate in &found {
        X509Certificate::from_der(certificate).map_err(|error| TlsError::Certificate {
            what,
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let contents = private_file::read(path)?;
    // The parser's own words may quote a line of the file, which may be part of the key.
    PrivateKeyDer::from_pem_slice(&contents).map_err(|error| TlsError::Pem {
        what: "private key",
        path: path.to_owned(),
        label: "PRIVATE KEY",
        problem: if matches!(error, pem::Error::NoItemsFound) { "no private key found" } else { "damaged" }.to_owned(),
    })
}

fn check_dates(what: &'static str, path: &Path, der: &CertificateDer<'_>, now: UnixTime) -> Result<(), TlsError> {
    let unreadable = |problem: String| TlsError::Certificate { what, path: path.to_owned(), problem };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    let seconds = i64::try_from(now.as_secs()).map_err(|error| unreadable(format!("this machine's clock: {error}")))?;
    let now =
        ASN1Time::from_timestamp(seconds).map_err(|error| unreadable(format!("this machine's clock: {error}")))?;
    let validity = certificate.validity();
    if now < validity.not_before {
        return Err(TlsError::NotYetValid { what, path: path.to_owned(), not_before: validity.not_before.to_string() });
    }
    if now > validity.not_after {
        return Err(TlsError::Expired { what, path: path.to_owned(), not_after: validity.not_after.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
