//! What deploy/certificates.sh makes is what this crate loads. Needs `sh` and `openssl`; says so and passes without.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use zyflow_crypto::{Role, TlsFiles, TlsMaterial, load_key_file};

/// Asked for at run time: a target folder may be shared by several clones, and the path of one isn't the path of the other.
fn script() -> std::path::PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../deploy/certificates.sh")
}

/// False, with a notice past the test runner's capture, where openssl is missing.
fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !found {
        let notice = b"SKIPPED: openssl is not installed, deploy/certificates.sh is not tested\n";
        std::io::stderr().write_all(notice).unwrap();
    }
    found
}

fn run(arguments: &[&str]) -> Output {
    Command::new("sh").arg(script()).args(arguments).output().unwrap()
}

#[track_caller]
fn succeed(arguments: &[&str]) {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn fail(arguments: &[&str], code: i32, words: &str) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?}: {said}");
}

fn load(folder: &Path, stem: &str) -> TlsMaterial {
    let [ca, cert, key] =
        ["ca.pem".to_owned(), format!("{stem}.pem"), format!("{stem}.key")].map(|name| folder.join(name));
    TlsMaterial::load(&TlsFiles { ca, cert, key }, Some("team-a")).unwrap()
}

#[test]
fn its_certificates_load_with_the_role_and_id_that_were_asked_for() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A path that openssl's own configuration format could not hold.
    let folder = folder.path().join("a folder # with $signs");
    let at = folder.to_str().unwrap();
    succeed(&[at, "team-a", "ca", "node", "1", "node", "2", "learner", "3", "agent", "4", "client", "me"]);
    succeed(&["--days", "7", at, "team-a", "admin", "root.1"]);
    for (stem, role, id) in [
        ("node-1", Role::Voter, Some(1)),
        ("node-2", Role::Voter, Some(2)),
        ("learner-3", Role::Learner, Some(3)),
        ("agent-4", Role::Agent, Some(4)),
        ("client-me", Role::Client, None),
        ("admin-root.1", Role::Admin, None),
    ] {
        let identity = load(&folder, stem).identity().clone();
        assert_eq!((identity.cluster.as_str(), identity.role), ("team-a", role));
        assert!(id.is_none_or(|id| id == identity.node_id), "{identity}");
    }
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("node-1.key"), mode("node-1.pem")), (0o600, 0o600, 0o644));
    assert!(fs::read_dir(&folder).unwrap().all(|file| !file.unwrap().file_name().to_string_lossy().starts_with('.')));
}

#[test]
fn its_data_key_loads() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.key");
    succeed(&["key", path.to_str().unwrap()]);
    load_key_file(&path, &folder.path().join("data")).unwrap();
    let before = fs::read(&path).unwrap();
    fail(&["key", path.to_str().unwrap()], 1, "not overwritten");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn it_overwrites_nothing_and_says_what_is_wrong() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    fail(&[at, "team-a", "node", "1"], 1, "make the CA first");
    succeed(&[at, "team-a", "ca", "node", "1"]);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let before = ["ca.key", "ca.pem", "node-1.key", "node-1.pem"].map(read);
    fail(&[at, "team-a", "ca"], 1, "not overwritten");
    fail(&[at, "team-a", "node", "1"], 1, "not overwritten");
    assert_eq!(["ca.key", "ca.pem", "node-1.key", "node-1.pem"].map(read), before);
    fail(&[at, "Team A", "node", "2"], 2, "cluster's name");
    for id in ["0", "01", "-1", "x", "1234567890123456789"] {
        fail(&[at, "team-a", "node", id], 2, "id is a number");
    }
    fail(&[at, "team-a", "client", "a/b"], 2, "the name");
    fail(&["--days", "0", at, "team-a", "node", "2"], 2, "--days");
    fail(&[at, "team-a", "voter", "2"], 2, "usage");
    fail(&[at, "team-a"], 2, "usage");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}
