//! Races for a folder: what was a folder at one look is a link at the next.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err as fs;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::*;

/// Turns of a race: some thousand swaps go by meanwhile.
const TURNS: usize = 2_000;

struct Place {
    dir: TempDir,
    root: Root,
}

fn place() -> Place {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
    fs::create_dir_all(dir.path().join("outside/b")).unwrap();
    fs::write(dir.path().join("outside/b/tasks.md"), "secret").unwrap();
    let root = Root::open(&dir.path().join("root")).unwrap();
    Place { dir, root }
}

#[test]
fn nothing_is_opened_over_a_link_wherever_it_leads() {
    let place = place();
    let (root, outside) = (place.dir.path().join("root"), place.dir.path().join("outside"));
    fs::write(root.join("a/b/tasks.md"), "ours").unwrap();
    for (target, link) in [
        (outside.as_path(), "out"),
        (Path::new("../outside"), "dots"),
        (Path::new("a"), "beneath"),
        (Path::new("/proc/self/root"), "magic"),
    ] {
        symlink(target, root.join(link)).unwrap();
        assert!(place.root.folder(link).is_err(), "{link}");
        assert!(place.root.folder(&format!("{link}/b")).is_err(), "{link}/b");
        assert!(place.root.make_folder(&format!("{link}/c")).is_err(), "{link}/c");
    }
    assert!(!outside.join("c").exists() && !root.join("a/c").exists());
    symlink(outside.join("b/tasks.md"), root.join("a/link.md")).unwrap();
    let folder = place.root.folder("a").unwrap();
    assert!(folder.read("link.md").is_err());
    assert!(folder.create_new("link.md").is_err());
    assert!(folder.metadata("link.md").unwrap().is_some_and(|metadata| metadata.is_symlink()));
    assert!(place.root.folder("..").is_err() && place.root.folder("a/../..").is_err());
    assert!(folder.read("../../outside/b/tasks.md").is_err());
}

/// A folder and a link to the outside change places all the time: whatever is opened lies beneath.
#[test]
fn a_folder_that_becomes_a_link_between_check_and_use_leads_nowhere() {
    let place = place();
    let (folder, link) = (place.dir.path().join("root/a"), place.dir.path().join("root/link"));
    symlink(place.dir.path().join("outside"), &link).unwrap();
    let is_done = AtomicBool::new(false);
    // Asserted when the swapping has ended: a panic in here would be waited for without end.
    let has_escaped = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let (mut opened, mut refused, mut has_escaped) = (0, 0, false);
        for turn in 0.. {
            match place.root.folder("a/b") {
                Ok(folder) => {
                    opened += 1;
                    has_escaped |=
                        folder.read("tasks.md").is_ok() || folder.create_new(&format!("new-{turn}")).is_err();
                }
                Err(_) => refused += 1,
            }
            if has_escaped || (turn >= TURNS && opened > 0 && refused > 0) {
                break;
            }
        }
        is_done.store(true, Ordering::Relaxed);
        has_escaped
    });
    assert!(!has_escaped, "a folder of the outside was opened");
    assert_eq!(fs::read_dir(place.dir.path().join("outside/b")).unwrap().count(), 1);
}
