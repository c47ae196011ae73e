//! Who gets a certificate for what, and whom a node without one trusts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::identity::Identity;
use crate::tls::{Acceptor, ConnectError, TlsFiles, TlsMaterial, connect_unknown};

/// A CA in files, and what it issues.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = Self { issuer, folder: tempfile::tempdir().unwrap() };
        ca.write("ca.pem", &ca.issuer.pem());
        ca.write("ca.key", &ca.issuer.key().serialize_pem());
        ca
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, contents: &str) {
        fs::write(self.path(name), contents).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    fn authority(&self) -> Authority {
        Authority::load(&self.path("ca.pem"), &self.path("ca.key")).unwrap()
    }

    /// A node's files, certified for `identity`, trusting what is in `ca`.
    fn node(&self, identity: &str, ca: &str) -> TlsMaterial {
        let _ = fs::remove_file(self.path("node.key"));
        let key = NodeKey::generate().unwrap();
        key.store(&self.path("node.key")).unwrap();
        let request = Request::parse(&key.request().unwrap()).unwrap();
        self.write("node.pem", &self.authority().certify(request, &identity.parse().unwrap()).unwrap());
        self.write("trusted.pem", ca);
        let [ca, cert, key] = ["trusted.pem", "node.pem", "node.key"].map(|name| self.path(name));
        TlsMaterial::load(&TlsFiles { ca, cert, key }, None).unwrap()
    }
}

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

/// What `connect_unknown` says of a node that shows `material`.
async fn connect(material: TlsMaterial, ca: [u8; 32]) -> Result<Identity, ConnectError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = Acceptor::new(material);
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept_unknown(listener.accept().await.unwrap().0).await?;
        let mut told = [0; 6];
        // Nothing comes where the caller has turned away.
        let _ = stream.read_exact(&mut told).await;
        Ok::<_, crate::AcceptError>(told)
    });
    let (mut stream, identity) = connect_unknown(&address, ca).await?;
    stream.write_all(b"secret").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(serving.await.unwrap().unwrap(), *b"secret");
    Ok(identity)
}

#[test]
fn a_certificate_says_what_the_token_does_and_nothing_that_the_request_asks_for() {
    let ca = Ca::new();
    let key = KeyPair::generate().unwrap();
    let mut asked = CertificateParams::default();
    asked.subject_alt_names = vec![SanType::URI("spiffe://team/admin/1".try_into().unwrap())];
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = asked.serialize_request(&key).unwrap();
    let pem =
        ca.authority().certify(Request::parse(request.der()).unwrap(), &identity("spiffe://team/learner/4")).unwrap();
    ca.write("node.pem", &pem);
    ca.write("node.key", &key.serialize_pem());
    let [ca, cert, key] = ["ca.pem", "node.pem", "node.key"].map(|name| ca.path(name));
    let material = TlsMaterial::load(&TlsFiles { ca, cert, key }, Some("team")).unwrap();
    assert_eq!(*material.identity(), identity("spiffe://team/learner/4"));
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let key = NodeKey::generate().unwrap();
    let good = key.request().unwrap();
    let other = NodeKey::generate().unwrap().request().unwrap();
    assert_ne!(Request::parse(&good).unwrap().key_hash(), Request::parse(&other).unwrap().key_hash());
    let own = Request::parse(&good).unwrap().key_hash();
    let mut as_good = 0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // A few say nothing: how many bits of the last byte are unused, for example.
        let is_as_good = Request::parse(&bad).is_ok_and(|request| request.key_hash() == own);
        assert!(is_as_good || Request::parse(&bad).is_err(), "bit flipped in byte {at}");
        as_good += usize::from(is_as_good);
    }
    assert!(as_good < 8, "{as_good} flipped bits are accepted");
    let edwards = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let edwards = CertificateParams::default().serialize_request(&edwards).unwrap();
    let refused = Request::parse(edwards.der()).err().unwrap().to_string();
    assert!(refused.contains("P-256"), "{refused}");
}

#[test]
fn a_key_of_another_ca_is_refused_and_one_of_several_is_found() {
    let (one, two) = (Ca::new(), Ca::new());
    let refused = Authority::load(&one.path("ca.pem"), &two.path("ca.key")).unwrap_err();
    assert!(matches!(refused, AuthorityError::Mismatch { .. }), "{refused}");
    one.write("both.pem", &format!("{}{}", one.issuer.pem(), two.issuer.pem()));
    let both = Authority::load(&one.path("both.pem"), &two.path("ca.key")).unwrap();
    assert_eq!(both.hash(), two.authority().hash());
    fs::set_permissions(one.path("ca.key"), Permissions::from_mode(0o644)).unwrap();
    let refused = Authority::load(&one.path("ca.pem"), &one.path("ca.key")).unwrap_err();
    assert!(matches!(refused, AuthorityError::File(_)), "{refused}");
}

#[tokio::test]
async fn the_secret_is_told_to_a_node_of_that_ca_and_to_nobody_else() {
    let (ca, other) = (Ca::new(), Ca::new());
    let hash = ca.authority().hash();
    let node = ca.node("spiffe://team/voter/1", &ca.issuer.pem());
    assert_eq!(connect(node.clone(), hash).await.unwrap(), identity("spiffe://team/voter/1"));
    let several = ca.node("spiffe://team/voter/1", &format!("{}{}", other.issuer.pem(), ca.issuer.pem()));
    assert_eq!(connect(several, hash).await.unwrap(), identity("spiffe://team/voter/1"));

    let refused = connect(node, other.authority().hash()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Handshake { .. }), "{refused}");
    // It shows the right CA, which isn't its own.
    let posing = other.node("spiffe://team/voter/1", &format!("{}{}", other.issuer.pem(), ca.issuer.pem()));
    let refused = connect(posing, hash).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Handshake { .. }), "{refused}");
    let admin = ca.node("spiffe://team/admin/1", &ca.issuer.pem());
    let refused = connect(admin, hash).await.unwrap_err();
    assert!(matches!(refused, ConnectError::NotANode { .. }), "{refused}");
    assert_eq!(hash_of(&CertificateDer::from(ca.issuer.der().to_vec())), hash);
}
