//! Folders of our own, of others, in use, damaged and newer.

use super::*;

const LINEAGE: Lineage = Lineage(*b"0123456789abcdef");
const OTHER: Lineage = Lineage([7; 16]);

fn shown(dir: &Path, error: &LayoutError) -> String {
    error.to_string().replace(dir.to_str().unwrap(), "DIR")
}

#[test]
fn a_folder_is_made_once_and_opened_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("deep/data");
    let made = Layout::create(&dir, LINEAGE, 3).unwrap();
    assert_eq!(fs::read_to_string(made.pid_file()).unwrap(), format!("{}\n", std::process::id()));
    drop(made);
    let opened = Layout::open(&dir).unwrap();
    assert_eq!((opened.lineage(), opened.node_id()), (LINEAGE, 3));
    for folder in [opened.log_dir(), opened.tables_dir(), opened.snapshots_dir(), opened.checkouts_dir()] {
        assert!(folder.is_dir(), "{}", folder.display());
    }
    opened.expect(LINEAGE, 3).unwrap();
    let error = opened.expect(OTHER, 3).unwrap_err();
    assert!(shown(&dir, &error).starts_with("DIR belongs to lineage 30313233-"), "{error}");
    let error = opened.expect(LINEAGE, 4).unwrap_err();
    assert_eq!(shown(&dir, &error), "DIR belongs to node 3, not 4: point `data` to the folder of this node");
    drop(opened);
    let error = Layout::create(&dir, OTHER, 4).unwrap_err();
    assert!(matches!(error, LayoutError::Exists { lineage: LINEAGE, node_id: 3, .. }), "{error}");
}

#[test]
fn a_second_opener_is_told_which_process_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let held = Layout::create(dir.path(), LINEAGE, 1).unwrap();
    let error = Layout::open(dir.path()).unwrap_err();
    let expected = format!("DIR is in use by process {}: stop that process first", std::process::id());
    assert_eq!(shown(dir.path(), &error), expected);
    drop(held);
    Layout::open(dir.path()).unwrap();
}

#[test]
fn a_folder_of_somebody_else_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    for error in [Layout::create(dir.path(), LINEAGE, 1).unwrap_err(), Layout::open(dir.path()).unwrap_err()] {
        assert!(matches!(error, LayoutError::Foreign { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(Layout::open(&nowhere).unwrap_err(), LayoutError::Missing { .. }));
    assert!(!nowhere.exists());
}

#[test]
fn an_interrupted_creation_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("lock"), "").unwrap();
    fs::write(dir.path().join("IDENTITY.tmp"), "zyfl").unwrap();
    drop(Layout::create(dir.path(), LINEAGE, 1).unwrap());
    // But a log that holds something is never taken over.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("log/000001.log"), "entries").unwrap();
    assert!(matches!(Layout::create(dir.path(), LINEAGE, 1).unwrap_err(), LayoutError::Foreign { .. }));
}

#[test]
fn a_newer_folder_is_told_from_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(Layout::create(dir.path(), LINEAGE, 1).unwrap());
    let path = dir.path().join(IDENTITY_FILE);
    let good = fs::read_to_string(&path).unwrap();
    let outcome = |text: &str| {
        fs::write(&path, text).unwrap();
        shown(dir.path(), &Layout::open(dir.path()).unwrap_err())
    };
    let advice = "restore it from a backup of this folder, or let the node join again";
    assert_eq!(
        outcome(&good.replace("format 1", "format 2")),
        "DIR has format 2, this release knows 1: start the release that wrote it, or a newer one"
    );
    let damaged = |reason| format!("DIR/IDENTITY is damaged ({reason}): {advice}");
    assert_eq!(outcome(&good.replace("node 1", "node 2")), damaged("its checksum is wrong"));
    assert_eq!(outcome(good.split_once("check").unwrap().0), damaged("it has no checksum"));
    assert_eq!(outcome(""), damaged("it doesn't begin with its title"));
    assert_eq!(outcome(&"x".repeat(2000)), damaged("it is too long"));
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(shown(dir.path(), &Layout::open(dir.path()).unwrap_err()), damaged("it is not text"));
    fs::write(&path, &good).unwrap();
    Layout::open(dir.path()).unwrap();
}

#[test]
fn only_a_folder_that_no_node_has_begun_in_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(dir.path(), LINEAGE, 1).unwrap();
    assert!(layout.is_new());
    drop(layout);
    let layout = Layout::open(dir.path()).unwrap();
    assert!(layout.is_new(), "a start that was broken off before its log was made");
    layout.begin().unwrap();
    assert!(!layout.is_new());
    drop(layout);
    assert!(!Layout::open(dir.path()).unwrap().is_new());
    let restored = tempfile::tempdir().unwrap();
    let layout = Layout::create_filled::<LayoutError>(restored.path(), (LINEAGE, 4), |_| Ok(())).unwrap();
    assert!(layout.is_new());
}
