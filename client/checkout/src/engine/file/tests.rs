//! When a file may be taken for whole.

use std::path::Path;

use super::*;

const PIECE: &str = "# List\n- [ ] a\n";

fn stamp_of(folder: &Path, text: &str) -> Option<Stamp> {
    let path = folder.join("tasks.md");
    std::fs::write(&path, text).unwrap();
    let file = std::fs::File::open(path).ok()?;
    cap_std::fs::File::from_std(file).metadata().ok().as_ref().map(Stamp::from)
}

/// A file that was seen as it is now, and the timing.
fn seen(folder: &Path) -> (File, Instant, Timing) {
    let now = Instant::now();
    let mut file = File::new(Record::new("tasks.md"), now);
    file.seen = stamp_of(folder, "# List\n- [ ] a\n- [ ] b\n");
    file.is_fresh = false;
    (file, now, Timing::default())
}

#[test]
fn half_a_file_is_not_looked_at_because_the_cluster_moved() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, now, timing) = seen(folder.path());
    assert!(file.is_quiet(file.seen, now, &timing), "nothing happened to it");
    let half = stamp_of(folder.path(), PIECE);
    file.hint(half, false, now, &timing);
    file.due_now(now);
    assert!(!file.is_quiet(half, now + timing.quiet_cap / 2, &timing), "the cluster moved before it was quiet");
    assert_eq!(file.due(), Some(now + timing.quiet_cap));
    assert!(file.is_quiet(half, now + timing.quiet_cap, &timing));
}

#[test]
fn half_a_file_whose_hint_is_still_on_the_way_is_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, now, timing) = seen(folder.path());
    let half = stamp_of(folder.path(), PIECE);
    assert!(!file.is_quiet(half, now, &timing));
    assert!(!file.is_quiet(half, now + timing.quiet_cap / 2, &timing));
    assert!(file.is_quiet(half, now + timing.quiet_cap, &timing));
}

#[test]
fn a_file_that_was_closed_is_looked_at_at_once_and_one_that_never_rests_after_the_cap() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, now, timing) = seen(folder.path());
    let whole = stamp_of(folder.path(), "# List\n- [ ] a\n- [ ] b\n- [ ] c\n");
    file.hint(whole, true, now, &timing);
    assert!(file.is_quiet(whole, now, &timing));
    for step in 0..10 {
        let stamp = stamp_of(folder.path(), &"- [ ] more\n".repeat(10 + step));
        assert!(!file.is_quiet(stamp, now, &timing), "{step}");
    }
    let last = stamp_of(folder.path(), "- [ ] other\n");
    assert!(file.is_quiet(last, now + timing.quiet_cap, &timing));
}
