//! The binary on files of this machine: `spec check`, `spec merge`, and what goes wrong before any node is asked.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use expect_test::{Expect, expect};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn zyflow(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zyflow"))
        .current_dir(dir)
        .env_remove("ZYFLOW_PROFILE")
        .env("XDG_CONFIG_HOME", dir)
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

/// The exit code and all that is printed to stderr, with the folder's own path taken out.
fn fails(dir: &Path, arguments: &[&str], exit: i32, message: &Expect) {
    let output = zyflow(dir, arguments);
    message.assert_eq(&stderr(&output).replace(&dir.display().to_string(), "DIR"));
    assert_eq!(output.status.code(), Some(exit), "{}", stderr(&output));
}

#[test]
fn check_reports_every_file_as_an_object_of_its_own() {
    let dir = folder(&[
        ("a.md", b"- [x] 1.1 one\n- [ ] 1.2 two\n"),
        ("deep/b.md", b"\xef\xbb\xbf# T\r\n\r\n* [ ] three"),
        ("deep/not-markdown.txt", b"- [ ] four\n"),
        ("deep/.git/c.md", b"- [ ] five\n"),
    ]);
    let output = zyflow(dir.path(), &["spec", "check", "a.md", "deep", "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let objects: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> =
        objects.iter().map(|o| (o["path"].as_str().unwrap(), &o["lossless"], &o["tasks"], &o["done"])).collect();
    let (yes, zero, one, two) = (Value::Bool(true), Value::from(0), Value::from(1), Value::from(2));
    assert_eq!(seen, [("a.md", &yes, &two, &one), ("deep/b.md", &yes, &one, &zero)]);
    let keys: Vec<_> = objects[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["bytes", "dialect", "done", "lossless", "path", "problems", "tasks"]);
}

#[test]
fn check_fails_on_what_is_no_text_and_still_reports_the_rest() {
    let dir = folder(&[("a.md", b"- [ ] one\n"), ("bad.md", b"- [ ] \xff\n")]);
    let output = zyflow(dir.path(), &["spec", "check", ".", "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output).lines().count(), 2);
    assert!(stderr(&output).contains("E-CHECK") && stderr(&output).contains("bad.md"), "{}", stderr(&output));
}

#[test]
fn check_reads_no_file_over_the_limit() {
    let dir = folder(&[]);
    let file = fs::File::create(dir.path().join("huge.md")).unwrap();
    file.set_len(1 << 40).unwrap();
    let output = zyflow(dir.path(), &["spec", "check", "huge.md", "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(object["bytes"], 1_u64 << 40);
}

#[test]
fn a_missing_path_is_not_found() {
    let dir = folder(&[]);
    fails(
        dir.path(),
        &["spec", "check", "nowhere.md"],
        3,
        &expect![[r"
        zyflow: E-NOT-FOUND: cannot read nowhere.md: No such file or directory (os error 2); check the path and its permissions
    "]],
    );
}

const BASE: &[u8] = b"- [ ] 1.1 one\n- [ ] 1.2 two\n";

#[test]
fn merge_writes_the_united_text_over_ours() {
    let dir = folder(&[
        ("base", BASE),
        ("ours", b"- [x] 1.1 one\n- [ ] 1.2 two\n"),
        ("theirs", b"- [ ] 1.1 one\n- [ ] 1.2 two\n- [ ] 1.3 three\n"),
    ]);
    let output = zyflow(dir.path(), &["spec", "merge", "base", "ours", "theirs"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    let merged = fs::read_to_string(dir.path().join("ours")).unwrap();
    assert_eq!(merged, "- [x] 1.1 one\n- [ ] 1.2 two\n- [ ] 1.3 three\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "a temporary file is left");
}

#[test]
fn merge_keeps_ours_in_a_conflict_and_tells_both() {
    let dir = folder(&[
        ("base", BASE),
        ("ours", b"- [ ] 1.1 one red\n- [ ] 1.2 two\n"),
        ("theirs", b"- [ ] 1.1 one blue\n- [x] 1.2 two\n"),
    ]);
    let output = zyflow(dir.path(), &["spec", "merge", "-p", "base", "ours", "theirs"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert_eq!(stdout(&output), "- [ ] 1.1 one red\n- [x] 1.2 two\n");
    assert!(stderr(&output).contains("E-CONFLICT") && stderr(&output).contains("blue"), "{}", stderr(&output));
    let untouched = fs::read(dir.path().join("ours")).unwrap();
    assert_eq!(untouched, b"- [ ] 1.1 one red\n- [ ] 1.2 two\n", "-p leaves the file");
}

#[test]
fn merge_serves_git() {
    let dir = folder(&[("tasks.md", BASE), (".gitattributes", b"tasks.md merge=zyflow\n")]);
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(dir.path())
            .args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}{}", stdout(&output), stderr(&output));
    };
    let save = |text: &str| fs::write(dir.path().join("tasks.md"), text).unwrap();
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["config", "merge.zyflow.driver", &format!("'{}' spec merge %O %A %B", env!("CARGO_BIN_EXE_zyflow"))]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "base"]);
    git(&["checkout", "--quiet", "-b", "side"]);
    save("- [ ] 1.1 one\n- [x] 1.2 two\n");
    git(&["commit", "--quiet", "-a", "-m", "theirs"]);
    git(&["checkout", "--quiet", "main"]);
    save("- [x] 1.1 one\n- [ ] 1.2 two\n");
    git(&["commit", "--quiet", "-a", "-m", "ours"]);
    git(&["merge", "--quiet", "--no-edit", "side"]);
    let merged = fs::read_to_string(dir.path().join("tasks.md")).unwrap();
    assert_eq!(merged, "- [x] 1.1 one\n- [x] 1.2 two\n", "adjacent lines, which git alone can't merge");
}

#[test]
fn a_missing_or_malformed_profile_is_a_usage_error() {
    let dir = folder(&[("bad.toml", b"endpoint = 1\n")]);
    fails(
        dir.path(),
        &["status"],
        2,
        &expect![[r"
        zyflow: E-PROFILE: no profile: DIR/zyflow/client.toml doesn't exist; name one with --profile FILE or ZYFLOW_PROFILE (`zyflow dev` writes client.toml into its folder)
    "]],
    );
    fails(
        dir.path(),
        &["--profile", "none.toml", "status"],
        2,
        &expect![[r"
        zyflow: E-PROFILE: cannot read the profile none.toml: No such file or directory (os error 2); check the path and the file's mode
    "]],
    );
    fails(
        dir.path(),
        &["--profile", "bad.toml", "status"],
        2,
        &expect![[r"
        zyflow: E-PROFILE: the profile bad.toml is malformed: unknown field `endpoint`, expected one of `cluster`, `endpoints`, `ca`, `cert`, `key`
    "]],
    );
}

#[test]
fn a_malformed_certificate_is_named() {
    let profile =
        b"cluster = \"dev\"\nendpoints = [\"127.0.0.1:1\"]\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"c.key\"\n";
    let dir = folder(&[
        ("client.toml", profile),
        ("ca.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ]);
    let output = zyflow(dir.path(), &["--profile", "client.toml", "status"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("E-CERTIFICATE") && stderr(&output).contains("ca.pem"), "{}", stderr(&output));
}

#[test]
fn nobody_listening_is_unavailable() {
    let dir = folder(&[]);
    let script =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../deploy/certificates.sh");
    let made = Command::new("sh").arg(script).arg(dir.path()).args(["dev", "ca", "client", "ann"]).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    // Bound and then released: nobody listens there now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let profile = format!(
        "cluster = \"dev\"\nendpoints = [\"127.0.0.1:{port}\"]\nca = \"ca.pem\"\ncert = \"client-ann.pem\"\nkey = \"client-ann.key\"\n"
    );
    fs::write(dir.path().join("client.toml"), profile).unwrap();
    for command in [&["status"][..], &["task", "list"], &["task", "set", "12.3", "--note", "x"], &["verify"]] {
        let arguments = [&["--profile", "client.toml", "--timeout", "3s"], command].concat();
        let output = zyflow(dir.path(), &arguments);
        assert_eq!(output.status.code(), Some(5), "{command:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("E-CONNECT"), "{command:?}: {}", stderr(&output));
    }
}

#[test]
fn dev_leaves_a_folder_that_it_did_not_make() {
    let dir = folder(&[("mine/precious.txt", b"1")]);
    // Any program does: the folder is refused before a node is started.
    let output = Command::new(env!("CARGO_BIN_EXE_zyflow"))
        .current_dir(dir.path())
        .env("ZYFLOWD", "/bin/false")
        .args(["dev", "--dir", "mine"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("wasn't made by `zyflow dev`"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(dir.path().join("mine")).unwrap().count(), 1, "nothing was added");
}

#[test]
fn dev_says_why_a_node_does_not_start() {
    let dir = folder(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_zyflow"))
        .current_dir(dir.path())
        .env("ZYFLOWD", "/bin/false")
        .args(["dev", "--dir", "d", "--nodes", "1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output)
            .contains("E-DEV: the data folder of node 1 can't be made: /bin/false ended with exit status: 1"),
        "{}",
        stderr(&output)
    );
    for made in
        ["d/dev.toml", "d/node-1.toml", "d/client.toml", "d/client-1.toml", "d/certs/node-1.pem", "d/keys/data.key"]
    {
        assert!(dir.path().join(made).exists(), "{made}");
    }
}
