//! Holds the map: what ARCHITECTURE.md and STYLE.md promise and a program can check.
//!
//! Crate edges, which crate may name which library, file sizes, module headers, words that must not stand in the source, and
//! documents that name files which aren't there. Each rule collects all its violations before it fails, so that one run
//! shows them all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines past which a file fails; past [`LINES_WITH_REASON`] its header must say why.
const LINES_MAX: usize = 800;
const LINES_WITH_REASON: usize = 500;

/// For each of our crates, our crates that it may depend on (tests and benches aside).
const EDGES: &[(&str, &[&str])] = &[
    ("zyflow-spec", &[]),
    ("zyflow-machine", &["zyflow-spec"]),
    ("zyflow-crypto", &[]),
    ("zyflow-storage", &["zyflow-spec", "zyflow-machine", "zyflow-crypto"]),
    ("zyflow-raft", &["zyflow-machine", "zyflow-crypto", "zyflow-storage"]),
    ("zyflow-api", &["zyflow-spec", "zyflow-machine", "zyflow-crypto"]),
    ("zyflow-checkout", &["zyflow-spec", "zyflow-machine", "zyflow-api"]),
    ("zyflow-client", &["zyflow-spec", "zyflow-machine", "zyflow-crypto", "zyflow-api", "zyflow-checkout"]),
    (
        "zyflow-node",
        &[
            "zyflow-spec",
            "zyflow-machine",
            "zyflow-crypto",
            "zyflow-storage",
            "zyflow-raft",
            "zyflow-api",
            "zyflow-checkout",
        ],
    ),
    ("zyflow-tests", &["*"]),
    ("zyflow-jepsen", &["*"]),
];

/// Libraries that only some source folders may name in code.
const NAMES: &[(&str, &[&str])] = &[
    (
        "openraft",
        &[
            "raft/",
            "storage/src/log",
            "storage/src/types.rs",
            "storage/tests/",
            "storage/examples/log",
            "tests/",
            "jepsen/",
        ],
    ),
    ("rocksdb", &["storage/src/log"]),
    ("rusqlite", &["storage/", "jepsen/", "client/src/export.rs", "tests/export.rs"]),
    ("notify", &["client/checkout/src/watch"]),
    ("tonic", &["raft/", "client/api/", "client/src", "client/tests/", "node/", "tests/"]),
];

/// What must not stand in a source file, and why.
const BANNED: &[(&str, &str)] = &[
    ("// TODO", "finish it or say it in an issue"),
    ("// FIXME", "finish it or say it in an issue"),
    ("#[ignore", "a test that doesn't run is none"),
    ("todo!(", "no stubs"),
    ("unimplemented!(", "no stubs"),
    ("thread::sleep(", "wait for a condition with a deadline"),
    ("#[allow(", "use #[expect(lint, reason = \"..\")]"),
];

fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .parent()
        .expect("invariant: tests/ lies in the root")
        .to_path_buf()
}

/// All files that git tracks or would track.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed by ./x setup");
    assert!(output.status.success(), "git ls-files failed");
    let listed = String::from_utf8(output.stdout).expect("our paths are UTF-8");
    listed.lines().filter(|file| root().join(file).is_file()).map(str::to_owned).collect()
}

fn has_extension(file: &str, wanted: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == wanted)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn sources() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter(|file| has_extension(file, "rs")).map(|file| (file.clone(), read(&file)))
}

#[track_caller]
fn assert_none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

#[test]
fn crates_depend_only_along_the_map() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut violations = Vec::new();
    for package in &metadata.packages {
        let Some(edges) = allowed.get(package.name.as_str()) else {
            violations.push(format!("{} is not on the map", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let is_ours = dependency.name.starts_with("zyflow-");
            let is_shipped = dependency.kind != cargo_metadata::DependencyKind::Development;
            if is_ours && is_shipped && !edges.contains(&"*") && !edges.contains(&dependency.name.as_str()) {
                violations.push(format!("{} -> {} is not an edge of the map", package.name, dependency.name));
            }
        }
    }
    assert_none("ARCHITECTURE.md shows the edges; a new one needs an ADR", &violations);
}

#[test]
fn libraries_are_named_only_where_the_map_says() {
    let mut violations = Vec::new();
    for (file, text) in sources() {
        for (library, folders) in NAMES {
            let names_it = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("{library}::")) || code.contains(&format!("use {library};"))
            });
            if names_it && !folders.iter().any(|folder| file.starts_with(folder)) && file != "tests/tidy.rs" {
                violations.push(format!("{file} names {library}; only {folders:?} may"));
            }
        }
    }
    assert_none("each library stays behind its module", &violations);
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut violations = Vec::new();
    for (file, text) in sources() {
        let lines = text.lines().count();
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if header.is_empty() {
            violations.push(format!("{file} doesn't open with //!"));
        }
        if lines > LINES_MAX {
            violations.push(format!("{file} has {lines} lines, over {LINES_MAX}"));
        } else if lines > LINES_WITH_REASON && !header.iter().any(|line| line.contains("Long because")) {
            violations
                .push(format!("{file} has {lines} lines; past {LINES_WITH_REASON} its header says `Long because ..`"));
        }
    }
    assert_none("files", &violations);
}

#[test]
fn no_banned_words_and_no_machine_paths() {
    let mut violations = Vec::new();
    for (file, text) in sources().filter(|(file, _)| file != "tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            for (word, reason) in BANNED {
                if line.contains(word) {
                    violations.push(format!("{file}:{}: `{word}`: {reason}", number + 1));
                }
            }
        }
    }
    for file in files().iter().filter(|file| *file != "tests/tidy.rs" && !has_extension(file, "lock")) {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        for path in ["work/", "root/", "home/"] {
            let is_named =
                ["\"/", " /", "`/", "(/", "=/"].iter().any(|before| text.contains(&format!("{before}{path}")));
            if is_named {
                violations.push(format!("{file} names the machine path {path}"));
            }
        }
    }
    assert_none("words", &violations);
}

#[test]
fn documents_name_only_files_that_are_there() {
    let roots: BTreeSet<&str> = ["storage", "raft", "client", "node", "deploy", "tests", "jepsen", "docs"].into();
    let mut violations = Vec::new();
    for file in files().iter().filter(|file| has_extension(file, "md")) {
        for span in read(file).split('`').skip(1).step_by(2) {
            let is_path = span.split_once('/').is_some_and(|(first, _)| roots.contains(first))
                && span.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && !root().join(span).exists() {
                violations.push(format!("{file} names `{span}`, which isn't there"));
            }
        }
        for target in read(file).split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let target = target.split('#').next().unwrap_or_default();
            let is_local = !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
            let folder = root().join(file).parent().map(Path::to_path_buf).unwrap_or_default();
            if is_local && !folder.join(target).exists() {
                violations.push(format!("{file} links to {target}, which isn't there"));
            }
        }
    }
    assert_none("documents", &violations);
}

#[test]
fn every_shipped_part_is_on_the_page_that_draws_the_map() {
    let map = read("ARCHITECTURE.md");
    let missing: Vec<String> = EDGES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .filter(|name| !map.contains(name.trim_start_matches("zyflow-")))
        .collect();
    assert_none("ARCHITECTURE.md names every crate", &missing);
}
