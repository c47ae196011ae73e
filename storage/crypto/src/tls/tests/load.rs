//! What `TlsMaterial::load` takes, and what each wrong file is told.

use super::*;
use crate::PrivateFileError;

const VOTER: &str = "spiffe://team-a/voter/3";

/// The error, after checking that it names a file and a next step.
#[track_caller]
fn refused(files: &Files) -> TlsError {
    let error = files.load(Some("team-a")).expect_err("refused");
    let shown = error.to_string();
    assert!(shown.contains(".pem") || shown.contains(".key"), "names no file: {shown}");
    assert!(["issue", "use", "check", "chmod", "make", "set"].iter().any(|step| shown.contains(step)), "{shown}");
    error
}

#[test]
fn a_good_set_of_files_says_who_it_is() {
    let material = Authority::new().issue(VOTER).load(Some("team-a")).unwrap();
    assert_eq!(material.identity().to_string(), VOTER);
    assert_eq!(material.identity().role, Role::Voter);
}

#[test]
fn several_authorities_are_accepted_while_one_replaces_another() {
    let (old, new) = (Authority::new(), Authority::new());
    for issuer in [&old, &new] {
        let files = issuer.issue(VOTER);
        fs::write(&files.files.ca, old.0.pem() + &new.0.pem()).unwrap();
        assert!(files.load(None).is_ok());
    }
}

#[test]
fn a_client_needs_no_server_name_and_no_server_usage() {
    let files = Authority::new().issue_with("spiffe://team-a/client/7", |params| {
        params.subject_alt_names.pop();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(files.load(Some("team-a")).unwrap().identity().role, Role::Client);
}

#[test]
fn dates_are_checked() {
    let authority = Authority::new();
    let over = authority.issue_with(VOTER, |params| params.not_after = date_time_ymd(2020, 1, 1));
    assert!(matches!(refused(&over), TlsError::Expired { what: "certificate", .. }));
    let early = authority.issue_with(VOTER, |params| params.not_before = date_time_ymd(4000, 1, 1));
    assert!(matches!(refused(&early), TlsError::NotYetValid { what: "certificate", .. }));
    let over = Authority::with(|params| params.not_after = date_time_ymd(2020, 1, 1)).issue(VOTER);
    assert!(matches!(refused(&over), TlsError::Expired { what: "CA certificate", .. }));
}

#[test]
fn another_cluster_is_refused_by_name() {
    let files = Authority::new().issue("spiffe://team-b/voter/3");
    let error = refused(&files);
    assert!(
        matches!(&error, TlsError::WrongCluster { found, expected, .. } if found == "team-b" && expected == "team-a"),
        "{error}"
    );
    assert!(files.load(None).is_ok());
}

#[test]
fn a_certificate_that_speaks_for_nobody_is_refused() {
    let files = Authority::new().issue("https://example.org/");
    assert!(matches!(refused(&files), TlsError::Identity { .. }));
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let files = Authority::new().issue(VOTER);
    fs::write(&files.files.ca, Authority::new().0.pem()).unwrap();
    assert!(matches!(refused(&files), TlsError::Untrusted { .. }));
}

#[test]
fn a_node_needs_the_server_name_and_both_usages() {
    let authority = Authority::new();
    let nameless = authority.issue_with(VOTER, |params| {
        params.subject_alt_names.pop();
    });
    assert!(matches!(refused(&nameless), TlsError::ServerName { .. }));
    for (usage, lacking) in
        [(ExtendedKeyUsagePurpose::ServerAuth, "a client"), (ExtendedKeyUsagePurpose::ClientAuth, "a server")]
    {
        let files = authority.issue_with(VOTER, |params| params.extended_key_usages = vec![usage]);
        let error = refused(&files);
        assert!(matches!(&error, TlsError::Usage { usage, .. } if *usage == lacking), "{error}");
    }
}

#[test]
fn a_key_of_another_pair_is_refused() {
    let authority = Authority::new();
    let (files, other) = (authority.issue(VOTER), authority.issue(VOTER));
    fs::copy(other.files.key, &files.files.key).unwrap();
    assert!(matches!(refused(&files), TlsError::KeyMismatch { .. }));
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let files = Authority::new().issue(VOTER);
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(&files.files.key, Permissions::from_mode(mode)).unwrap();
        assert!(
            matches!(refused(&files), TlsError::KeyFile(PrivateFileError::Mode { mode: found, .. }) if found == mode)
        );
    }
}

#[test]
fn swapped_files_are_told_apart() {
    let authority = Authority::new();
    let leaf_as_ca = authority.issue(VOTER);
    fs::copy(&leaf_as_ca.files.cert, &leaf_as_ca.files.ca).unwrap();
    assert!(matches!(refused(&leaf_as_ca), TlsError::NotACa { .. }));

    let certificate_as_key = authority.issue(VOTER);
    fs::copy(&certificate_as_key.files.cert, &certificate_as_key.files.key).unwrap();
    fs::set_permissions(&certificate_as_key.files.key, Permissions::from_mode(0o600)).unwrap();
    let error = refused(&certificate_as_key);
    assert!(matches!(&error, TlsError::Pem { what: "private key", .. }), "{error}");
}

#[test]
fn malformed_pem_is_refused_for_each_file_without_showing_a_key() {
    let contents = [
        "",
        "not PEM at all",
        "-----BEGIN CERTIFICATE-----\nAAAA",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n",
        "-----BEGIN PRIVATE KEY\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        "\u{0}\u{1}\u{2}",
    ];
    for contents in contents {
        for file in ["ca", "cert", "key"] {
            let files = Authority::new().issue(VOTER);
            let paths = &files.files;
            let path = match file {
                "ca" => &paths.ca,
                "cert" => &paths.cert,
                _ => &paths.key,
            };
            fs::write(path, contents).unwrap();
            let error = refused(&files);
            assert!(
                matches!(&error, TlsError::Pem { path: found, .. } if found == path),
                "{file} {contents:?}: {error}"
            );
            assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
        }
    }
}

#[test]
fn pem_without_a_certificate_or_key_inside_is_refused() {
    let wrap = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let files = Authority::new().issue(VOTER);
    fs::write(&files.files.cert, wrap("CERTIFICATE")).unwrap();
    assert!(matches!(refused(&files), TlsError::Certificate { what: "certificate", .. }));
    let files = Authority::new().issue(VOTER);
    fs::write(&files.files.ca, wrap("CERTIFICATE")).unwrap();
    assert!(matches!(refused(&files), TlsError::Certificate { what: "CA certificate", .. }));
    let files = Authority::new().issue(VOTER);
    fs::write(&files.files.key, wrap("PRIVATE KEY")).unwrap();
    assert!(matches!(refused(&files), TlsError::Key { .. }));
}

#[test]
fn a_certificate_file_over_the_limit_is_refused_whole() {
    let files = Authority::new().issue(VOTER);
    let padded = fs::read_to_string(&files.files.ca).unwrap() + &"#".repeat(CERTIFICATES_BYTES_MAX);
    fs::write(&files.files.ca, padded).unwrap();
    let error = refused(&files);
    assert!(matches!(&error, TlsError::Pem { problem, .. } if problem == "it is over 1048576 bytes"), "{error}");
}

#[test]
fn missing_files_are_named() {
    let missing = PathBuf::from("/nonexistent/zyflow.pem");
    let good = Authority::new().issue(VOTER);
    let with = |files: TlsFiles| TlsMaterial::load(&files, None).unwrap_err();
    let files = TlsFiles { ca: missing.clone(), ..good.files.clone() };
    assert!(matches!(with(files), TlsError::Read { what: "CA certificate", path, .. } if path == missing));
    let files = TlsFiles { cert: missing.clone(), ..good.files.clone() };
    assert!(matches!(with(files), TlsError::Read { what: "certificate", path, .. } if path == missing));
    let files = TlsFiles { key: missing.clone(), ..good.files.clone() };
    assert!(matches!(with(files), TlsError::KeyFile(PrivateFileError::Open { path, .. }) if path == missing));
}
