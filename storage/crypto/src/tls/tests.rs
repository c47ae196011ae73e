//! Tests of the module above: laws, tables and failure paths.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use tempfile::TempDir;

use crate::Role;

use super::*;

mod handshake;
mod load;

/// A CA of its own for each test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        Authority::with(|_params| ())
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, uri: &str) -> Files {
        self.issue_with(uri, |_params| ())
    }

    /// A certificate as deploy/certificates.sh makes them for nodes, but for what `change` changes.
    fn issue_with(&self, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Files {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::URI(uri.try_into().unwrap()), SanType::DnsName(SERVER_NAME.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Files::write(&self.0.pem(), &certificate.pem(), &key.serialize_pem())
    }

    fn material(&self, uri: &str) -> TlsMaterial {
        self.issue(uri).load(None).unwrap()
    }
}

/// The three files, in a folder that goes away with them.
struct Files {
    files: TlsFiles,
    _folder: TempDir,
}

impl Files {
    fn write(ca: &str, cert: &str, key: &str) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let [ca_path, cert_path, key_path] = ["ca.pem", "cert.pem", "cert.key"].map(|name| folder.path().join(name));
        for (path, contents) in [(&ca_path, ca), (&cert_path, cert), (&key_path, key)] {
            fs::write(path, contents).unwrap();
        }
        fs::set_permissions(&key_path, Permissions::from_mode(0o600)).unwrap();
        Files { files: TlsFiles { ca: ca_path, cert: cert_path, key: key_path }, _folder: folder }
    }

    fn load(&self, expected_cluster: Option<&str>) -> Result<TlsMaterial, TlsError> {
        TlsMaterial::load(&self.files, expected_cluster)
    }
}
