//! The CA's key at work: certificates for nodes, as `deploy/certificates.sh` makes them, for requests that come over the network.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::CERTIFICATE_DAYS;
use crate::identity::Identity;
use crate::private_file::{self, PrivateFileError};
use crate::tls::{SERVER_NAME, TlsError, certificates};

/// A certificate is good from this long ago, for clocks that are behind.
const BACKDATED: Duration = Duration::from_hours(1);

/// Why nothing can be issued.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The CA's certificate.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// The CA's key: missing, or readable by others.
    #[error("the CA's key: {0}")]
    File(#[from] PrivateFileError),
    /// Not a key that can be used.
    #[error("the CA's key {} can't be used ({problem}): use the ca.key that deploy/certificates.sh made", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong; never shows its contents.
        problem: String,
    },
    /// The key of something else.
    #[error("{} is the key of no certificate in {}: both have to be of this cluster's CA", key.display(), ca.display())]
    Mismatch {
        /// The key.
        key: PathBuf,
        /// The certificates.
        ca: PathBuf,
    },
    /// What a new node asks for can't be signed.
    #[error("the request can't be signed ({0}): make it again with `zyflow cluster join`")]
    Request(String),
}

/// Whoever can issue certificates of this cluster.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A request whose signature shows that its sender has the private key.
pub struct Request(CertificateSigningRequestParams);

impl Request {
    /// Checks a request.
    ///
    /// # Errors
    /// It can't be read, isn't signed by its own key, or is for a key of another kind than EC P-256.
    pub fn parse(der: &[u8]) -> Result<Self, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        let request = request.map_err(|error| AuthorityError::Request(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(AuthorityError::Request("its key isn't an EC P-256 key".to_owned()));
        }
        Ok(Self(request))
    }

    /// SHA-256 of the public key: the same key asks twice, or another one.
    #[must_use]
    pub fn key_hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.public_key.der_bytes()).into()
    }
}

impl Authority {
    /// Reads the CA's key, and its certificate out of the file of all CAs.
    ///
    /// # Errors
    /// A file can't be read or used, or the key is of none of the certificates.
    pub fn load(ca: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let contents = private_file::read(key)?;
        let unusable = |problem: String| AuthorityError::Key { path: key.to_owned(), problem };
        let text = str::from_utf8(&contents).map_err(|_| unusable("it isn't text".to_owned()))?;
        // What rcgen says of a key quotes nothing of it.
        let pair = KeyPair::from_pem(text).map_err(|error| unusable(error.to_string()))?;
        let is_its = |der: &CertificateDer<'_>| {
            let spki = X509Certificate::from_der(der).map(|(_, parsed)| parsed.public_key().raw.to_vec());
            spki.is_ok_and(|spki| spki == pair.subject_public_key_info())
        };
        let certificate = certificates("CA certificate", ca)?.into_iter().find(is_its);
        let certificate =
            certificate.ok_or_else(|| AuthorityError::Mismatch { key: key.to_owned(), ca: ca.to_owned() })?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { certificate, issuer })
    }

    /// SHA-256 of the CA's certificate.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash_of(&self.certificate)
    }

    /// A certificate for the key of a request, in PEM: for `identity`, as a client and a server, for [`CERTIFICATE_DAYS`].
    ///
    /// # Errors
    /// It can't be signed.
    pub fn certify(&self, request: Request, identity: &Identity) -> Result<String, AuthorityError> {
        let refused = |error: rcgen::Error| AuthorityError::Request(error.to_string());
        let clock = |problem: String| AuthorityError::Request(format!("this machine's clock: {problem}"));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| clock(error.to_string()))?;
        let time = |since: Duration| -> Result<_, AuthorityError> {
            let seconds = i64::try_from(since.as_secs()).map_err(|error| clock(error.to_string()))?;
            Ok(ASN1Time::from_timestamp(seconds).map_err(|error| clock(error.to_string()))?.to_datetime())
        };
        let mut params = CertificateParams::default();
        params.not_before = time(now.saturating_sub(BACKDATED))?;
        params.not_after = time(now + Duration::from_hours(24) * CERTIFICATE_DAYS)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{}-{}", identity.role, identity.node_id));
        params.subject_alt_names = vec![
            SanType::URI(identity.to_string().try_into().map_err(refused)?),
            SanType::DnsName(SERVER_NAME.try_into().map_err(refused)?),
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let request = CertificateSigningRequestParams { params, ..request.0 };
        Ok(request.signed_by(&self.issuer).map_err(refused)?.pem())
    }
}

/// SHA-256 of a certificate.
pub(crate) fn hash_of(der: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// A new node's private key.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new one, EC P-256.
    ///
    /// # Errors
    /// The system gave no key.
    pub fn generate() -> Result<Self, AuthorityError> {
        KeyPair::generate().map(Self).map_err(|error| AuthorityError::Request(error.to_string()))
    }

    /// The one that an earlier try has stored.
    ///
    /// # Errors
    /// It is no private key, or readable by others.
    pub fn load(path: &Path) -> Result<Self, AuthorityError> {
        let contents = private_file::read(path)?;
        let unusable = |problem: String| AuthorityError::Key { path: path.to_owned(), problem };
        let text = str::from_utf8(&contents).map_err(|_| unusable("it isn't text".to_owned()))?;
        KeyPair::from_pem(text).map(Self).map_err(|error| unusable(error.to_string()))
    }

    /// Stores it, mode 0600.
    ///
    /// # Errors
    /// The file exists, or can't be written.
    pub fn store(&self, path: &Path) -> Result<(), AuthorityError> {
        let pem = Zeroizing::new(self.0.serialize_pem());
        Ok(private_file::create(path, pem.as_bytes())?)
    }

    /// The request for its certificate, signed by itself. It names nobody: the token does.
    ///
    /// # Errors
    /// It can't be signed.
    pub fn request(&self) -> Result<Vec<u8>, AuthorityError> {
        let request = CertificateParams::default().serialize_request(&self.0);
        Ok(request.map_err(|error| AuthorityError::Request(error.to_string()))?.der().to_vec())
    }
}
