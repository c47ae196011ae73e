//! What can be wrong with a set of certificate files: one variant each, since each has another next step.

use std::io;
use std::path::PathBuf;

use super::SERVER_NAME;
use crate::identity::IdentityError;
use crate::private_file::PrivateFileError;

/// Why a set of certificate files can't be used. Each names the file and the next step.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The private key file: missing, or usable by others.
    #[error("private key: {0}")]
    KeyFile(#[from] PrivateFileError),
    /// A certificate file is missing or unreadable.
    #[error("cannot read the {what} {}: {source}; check the path in the configuration and the file's mode", path.display())]
    Read {
        /// Which of the files.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not PEM, or not the right kind of PEM.
    #[error(
        "the {what} {} is not usable PEM ({problem}): it must hold `-----BEGIN {label}-----`; make it with \
         deploy/certificates.sh or convert it with openssl",
        path.display()
    )]
    Pem {
        /// Which of the files.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kind of PEM section that it must hold.
        label: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// PEM, but not a certificate inside.
    #[error("the {what} {} holds no readable X.509 certificate ({problem}): make it again with deploy/certificates.sh", path.display())]
    Certificate {
        /// Which of the files.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the parser said.
        problem: String,
    },
    /// The CA file holds a certificate that may not issue others; often the files are swapped.
    #[error("{} is not the certificate of a CA: set `ca` to the file that signed the others (ca.pem), not to a node's own", path.display())]
    NotACa {
        /// The file.
        path: PathBuf,
    },
    /// Over. Nobody accepts it.
    #[error("the {what} {} expired at {not_after}: issue a new one (deploy/certificates.sh) and start or reload", path.display())]
    Expired {
        /// Which of the files.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// When.
        not_after: String,
    },
    /// Not begun, or this machine's clock is behind.
    #[error("the {what} {} is valid only from {not_before}: check this machine's clock, or issue it again", path.display())]
    NotYetValid {
        /// Which of the files.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// From when.
        not_before: String,
    },
    /// The certificate was signed by another CA.
    #[error(
        "the certificate {} was not issued by the CA in {}: use the files of one cluster together, or issue the certificate \
         again with that CA",
        cert.display(), ca.display()
    )]
    Untrusted {
        /// The certificate's file.
        cert: PathBuf,
        /// The CA's file.
        ca: PathBuf,
    },
    /// A node's certificate without the DNS name that its peers ask for.
    #[error("the certificate {} lacks the DNS name {SERVER_NAME}, which peers ask for: issue it again with deploy/certificates.sh", cert.display())]
    ServerName {
        /// The certificate's file.
        cert: PathBuf,
    },
    /// Extended key usages that don't fit.
    #[error(
        "the certificate {} may not be used as {usage} (extended key usage): issue it again with deploy/certificates.sh",
        cert.display()
    )]
    Usage {
        /// The certificate's file.
        cert: PathBuf,
        /// For what it was needed.
        usage: &'static str,
    },
    /// Refused for another reason.
    #[error("the certificate {} is refused ({source}): issue it again with deploy/certificates.sh", cert.display())]
    Refused {
        /// The certificate's file.
        cert: PathBuf,
        /// What the verifier said.
        source: rustls::Error,
    },
    /// Certificate and key belong to different pairs.
    #[error("the private key {} does not belong to the certificate {}: use the pair that was issued together", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A private key of a kind that isn't supported.
    #[error("the private key {} can't be used ({source}): use an EC P-256 key, as deploy/certificates.sh makes", key.display())]
    Key {
        /// The key's file.
        key: PathBuf,
        /// What the provider said.
        source: rustls::Error,
    },
    /// The certificate speaks for nobody.
    #[error("the certificate {}: {source}", cert.display())]
    Identity {
        /// The certificate's file.
        cert: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// Right kind of certificate, wrong cluster.
    #[error(
        "the certificate {} is for the cluster {found:?}, but this process is configured for {expected:?}: use that cluster's \
         certificates, or correct the cluster's name in the configuration",
        cert.display()
    )]
    WrongCluster {
        /// The certificate's file.
        cert: PathBuf,
        /// The cluster that it names.
        found: String,
        /// The cluster that was configured.
        expected: String,
    },
}
