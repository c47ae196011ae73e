//! Runs every scenario in `tests/scripts`: the file's name is the sentence that it shows. `UPDATE_EXPECT=1` writes them anew.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a failing test should panic")]

mod harness;
mod script;

use expect_test::expect_file;
use std::path::Path;

#[test]
#[expect(clippy::disallowed_methods, reason = "scenarios are files; the machine itself reads none")]
fn every_scenario_happens_as_written() {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("tests/scripts");
    let mut scenarios = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        println!("{}", path.file_stem().unwrap().display());
        expect_file![&path].assert_eq(&script::run(&script));
        scenarios += 1;
    }
    assert!(scenarios >= 18, "only {scenarios} scenarios were found");
}
