//! Connections of nodes that have no certificate yet: the server is known by the hash of its CA, the caller by nothing.
//!
//! The server shows its CA along with its certificate, so one handshake does: whoever can't show a certificate that hashes to what the
//! token says, or wasn't certified by it, is never told the secret.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, version};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::server::TlsStream as ServerStream;

use super::acceptor::HANDSHAKE_DEADLINE;
use super::connector::{check_server, handshake};
use super::{ALPN, AcceptError, Acceptor, CONNECT_DEADLINE, ConnectError};
use crate::identity::Identity;
use crate::join::hash_of;

impl Acceptor {
    /// Performs the handshake with a caller who shows no certificate.
    ///
    /// # Errors
    /// See [`AcceptError`]; none concerns any other connection.
    pub async fn accept_unknown(&self, connection: TcpStream) -> Result<ServerStream<TcpStream>, AcceptError> {
        let config = self.material().joining_config();
        let peer = connection.peer_addr().map_err(|source| AcceptError::Socket { source })?;
        connection.set_nodelay(true).map_err(|source| AcceptError::Socket { source })?;
        let deadline = HANDSHAKE_DEADLINE;
        timeout(deadline, TlsAcceptor::from(config).accept(connection))
            .await
            .map_err(|_elapsed| AcceptError::Deadline { peer, deadline })?
            .map_err(|source| AcceptError::Handshake { peer, source })
    }
}

/// Connects to `address` (`host:port`) without a certificate of ours, and makes sure that a node answers that the CA with the SHA-256
/// `ca` has certified. Gives the node's identity as well: the cluster's name is in it.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect_unknown(address: &str, ca: [u8; 32]) -> Result<(ClientStream<TcpStream>, Identity), ConnectError> {
    let (stream, identity) = handshake(address, pinned_config(ca), CONNECT_DEADLINE).await?;
    check_server(address, identity.clone(), &identity.cluster, None)?;
    Ok((stream, identity))
}

fn pinned_config(ca: [u8; 32]) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned { ca, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .expect("invariant: the provider has cipher suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Trusts the CA with one hash, if the server shows it; then checks the server as everywhere else.
#[derive(Debug)]
struct Pinned {
    ca: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(|shown| hash_of(shown) == self.ca).ok_or_else(|| unknown.clone())?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        let verifier = verifier.build().map_err(|_no_roots| unknown)?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
