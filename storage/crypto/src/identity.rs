//! Who a certificate speaks for: one URI, matched exactly.
//!
//! ```text
//!   spiffe://<cluster>/<role>/<node id>          spiffe://team-a/voter/3
//! ```
//!
//! Each identity has one spelling, so comparing identities is comparing text: the cluster's name is lower case, the id has
//! no leading zeros. A certificate with no such URI, or with more than one URI of any kind, speaks for nobody. Deliberately
//! not here: trust in the certificate (the handshake checks its chain before this is asked) and what an identity may do.

use std::fmt;
use std::str::FromStr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const SCHEME: &str = "spiffe://";

/// The longest cluster name: 63 characters, as of a DNS label.
pub const CLUSTER_CHARS_MAX: usize = 63;

/// What kind of process or person holds a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A full replica that votes.
    Voter,
    /// A full replica without a vote, on a trusted workstation.
    Learner,
    /// A light process that keeps checkouts of some projects; no replica.
    Agent,
    /// A person or tool at the command line.
    Client,
    /// Somebody who may change membership, keys and permissions.
    Admin,
}

impl Role {
    /// All roles, in the order of the enum.
    pub const ALL: [Role; 5] = [Role::Voter, Role::Learner, Role::Agent, Role::Client, Role::Admin];

    /// The role as it stands in the URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Voter => "voter",
            Role::Learner => "learner",
            Role::Agent => "agent",
            Role::Client => "client",
            Role::Admin => "admin",
        }
    }

    /// Whether a process of this role has a replica and serves others. Only these may answer a TLS connection.
    #[must_use]
    pub fn is_node(self) -> bool {
        match self {
            Role::Voter | Role::Learner => true,
            Role::Agent | Role::Client | Role::Admin => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The holder of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster's name: 1 to 63 of `a-z 0-9 . _ -`, first a letter or digit.
    pub cluster: String,
    /// What the holder is.
    pub role: Role,
    /// The node's id; for holders that are no nodes, a number that tells them apart.
    pub node_id: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.role, self.node_id)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Identity, IdentityError> {
        let malformed = |problem| IdentityError::Malformed { uri: uri.to_owned(), problem };
        let path = uri.strip_prefix(SCHEME).ok_or_else(|| malformed("it doesn't begin with spiffe://"))?;
        let [cluster, role, id]: [&str; 3] = path
            .split('/')
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| malformed("it doesn't have the three parts cluster, role and id"))?;
        if !is_cluster_name(cluster) {
            return Err(malformed("the cluster's name is not 1 to 63 of a-z 0-9 . _ - with a letter or digit first"));
        }
        let role = Role::ALL.into_iter().find(|known| known.as_str() == role);
        let role = role.ok_or_else(|| malformed("the role is none of voter, learner, agent, client and admin"))?;
        let node_id: u64 = id.parse().map_err(|_| malformed("the id is not a number below 2^64"))?;
        if node_id.to_string() != id {
            return Err(malformed("the id is written with a sign or leading zeros"));
        }
        Ok(Identity { cluster: cluster.to_owned(), role, node_id })
    }
}

/// Whether `name` can be the name of a cluster: 1 to 63 of `a-z 0-9 . _ -`, first a letter or digit.
#[must_use]
pub fn is_cluster_name(name: &str) -> bool {
    let letter_or_digit = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    name.len() <= CLUSTER_CHARS_MAX
        && name.as_bytes().first().is_some_and(letter_or_digit)
        && name.bytes().all(|byte| letter_or_digit(&byte) || matches!(byte, b'.' | b'_' | b'-'))
}

/// Why a certificate speaks for nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not DER, not X.509, or a broken extension.
    #[error("it is not a readable X.509 certificate ({problem}): make it again with deploy/certificates.sh")]
    Certificate {
        /// What the parser said.
        problem: String,
    },
    /// A certificate of something else, such as a web server.
    #[error(
        "it names {count} URIs as subject alternative names instead of one, spiffe://CLUSTER/ROLE/ID: use a certificate made \
         for this cluster (deploy/certificates.sh)"
    )]
    NotOneUri {
        /// How many URIs it names.
        count: usize,
    },
    /// One URI, but not of ours.
    #[error(
        "its URI {uri:?} is no identity: {problem}; expected \
         spiffe://CLUSTER/ROLE/ID; use a certificate made for this cluster (deploy/certificates.sh)"
    )]
    Malformed {
        /// The URI.
        uri: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The identity in a DER certificate: that of its one URI among the subject alternative names.
///
/// # Errors
/// The certificate is unreadable, or hasn't exactly one URI, or the URI is no identity.
pub fn identity_of(cert_der: &[u8]) -> Result<Identity, IdentityError> {
    let certificate_error = |problem: String| IdentityError::Certificate { problem };
    let (rest, certificate) =
        X509Certificate::from_der(cert_der).map_err(|error| certificate_error(error.to_string()))?;
    if !rest.is_empty() {
        return Err(certificate_error(format!("{} bytes follow it", rest.len())));
    }
    let names = certificate.subject_alternative_name().map_err(|error| certificate_error(error.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> =
        names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
    match uris.as_slice() {
        [uri] => uri.parse(),
        _ => Err(IdentityError::NotOneUri { count: uris.len() }),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.subject_alt_names.push(SanType::DnsName("node.zyflow.internal".try_into().unwrap()));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn every_role_round_trips_through_its_uri() {
        for role in Role::ALL {
            for node_id in [0, 1, u64::MAX] {
                let identity = Identity { cluster: "team-a.eu_1".to_owned(), role, node_id };
                assert_eq!(identity.to_string().parse(), Ok(identity));
            }
        }
    }

    #[test]
    fn an_identity_has_one_spelling() {
        let long = format!("spiffe://{}/voter/1", "a".repeat(64));
        for bad in [
            "",
            "spiffe://",
            "spiffe://c/voter",
            "spiffe://c/voter/1/",
            "spiffe://c/voter/1/2",
            "spiffe:///voter/1",
            "spiffe://C/voter/1",
            "spiffe://-c/voter/1",
            "spiffe://c c/voter/1",
            "spiffe://c@d/voter/1",
            "Spiffe://c/voter/1",
            "https://c/voter/1",
            "spiffe://c/Voter/1",
            "spiffe://c/voters/1",
            "spiffe://c/voter/",
            "spiffe://c/voter/01",
            "spiffe://c/voter/+1",
            "spiffe://c/voter/-1",
            "spiffe://c/voter/1?x",
            "spiffe://c/voter/18446744073709551616",
            "spiffe://c/voter/1 ",
            &long,
        ] {
            let error = bad.parse::<Identity>().expect_err(bad);
            assert!(matches!(error, IdentityError::Malformed { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn a_certificate_speaks_for_its_one_uri() {
        let identity = identity_of(&certificate(&["spiffe://team-a/learner/9"])).unwrap();
        assert_eq!(identity, Identity { cluster: "team-a".to_owned(), role: Role::Learner, node_id: 9 });
    }

    #[test]
    fn no_uri_two_uris_and_no_certificate_speak_for_nobody() {
        assert_eq!(identity_of(&certificate(&[])), Err(IdentityError::NotOneUri { count: 0 }));
        let two = certificate(&["spiffe://team-a/voter/1", "https://example.org/"]);
        assert_eq!(identity_of(&two), Err(IdentityError::NotOneUri { count: 2 }));
        let foreign = identity_of(&certificate(&["https://example.org/"]));
        assert!(matches!(foreign, Err(IdentityError::Malformed { .. })), "{foreign:?}");

        let mut der = certificate(&["spiffe://team-a/voter/1"]);
        der.push(0);
        assert!(matches!(identity_of(&der), Err(IdentityError::Certificate { .. })));
        assert!(matches!(identity_of(&der[..40]), Err(IdentityError::Certificate { .. })));
        assert!(matches!(identity_of(b""), Err(IdentityError::Certificate { .. })));
    }
}
