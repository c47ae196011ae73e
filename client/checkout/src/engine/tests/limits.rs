//! What the machine gives: hints that are lost or never come, places that are full or must not be written to. Each is made to happen, in
//! namespaces of its own where it would be everybody's otherwise.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::path::FilePath;

/// Files made and removed while the engine stands still: each gives three hints, so that twice as many as fit the queue come.
const FLOOD: usize = 3_000;

fn flood(folder: &Path) {
    for number in 0..FLOOD {
        let file = folder.join(format!("flood-{number}"));
        fs::write(&file, "x").unwrap();
        fs::remove_file(file).unwrap();
    }
}

/// The engine is held up in a write while more hints come than the queue takes; the hint about an edit is among the lost ones. The
/// periodic look is a minute away, so only the look at everything that an overflow asks for can find it in time.
#[test]
fn hints_that_overflow_the_queue_are_made_up_for() {
    run(async {
        let node = one();
        let (mut bench, running) = agreed(&node).await;
        bench.write_at("tasks.md", TWO);
        running.is("tasks.md", FileState::Synced).await;
        running.stop().await;
        bench.timing.rescan = Duration::from_secs(600);
        let (folder, other) = (bench.file().parent().unwrap().to_owned(), bench.root().join("tasks.md"));
        let is_done = Arc::new(AtomicBool::new(false));
        let done = is_done.clone();
        bench.seams.before_swap = Some(Arc::new(move |_: &FilePath| {
            if !done.swap(true, Ordering::SeqCst) {
                flood(&folder);
                fs::write(&other, TWO_TICKED).unwrap();
                flood(&folder);
            }
        }));
        let running = bench.start();
        running.synced().await;
        running.is("tasks.md", FileState::Synced).await;
        set(&node, THREE);
        bench.holds(THREE).await;
        until(|| "the lost edit is found".to_owned(), || cluster_text_at(&node, "tasks.md") == TWO_TICKED).await;
        assert!(is_done.load(Ordering::SeqCst));
        running.stop().await;
    });
}

/// A namespace with its own limit: no inotify instance at all, or one watch only.
fn with_inotify_limit(test: &str, limit: &str, value: u32, says: &str) {
    let script = format!("echo {value} > /proc/sys/user/{limit} && exec \"$@\"");
    if !is_inside(test, &["unshare", "--user", "--map-root-user", "sh", "-c", &script, "sh"]) {
        return;
    }
    scene(async |node, bench, running| {
        let notes = running.handle.status().notes;
        assert!(notes.iter().any(|note| note.contains("polling") && note.contains(says)), "{notes:?}");
        bench.write(TWO_TICKED);
        cluster_holds(node, TWO_TICKED).await;
        bench.write_at("openspec/changes/add-y/tasks.md", TWO);
        until(
            || "a new folder is found".to_owned(),
            || cluster_text_at(node, "openspec/changes/add-y/tasks.md") == TWO,
        )
        .await;
        set(node, THREE_TICKED);
        bench.holds(THREE_TICKED).await;
    });
}

#[test]
fn without_inotify_instances_the_checkout_polls_and_says_the_setting() {
    with_inotify_limit(
        "engine::tests::limits::without_inotify_instances_the_checkout_polls_and_says_the_setting",
        "max_inotify_instances",
        0,
        "fs.inotify.max_user_instances",
    );
}

#[test]
fn without_inotify_watches_the_checkout_polls_and_says_the_setting() {
    with_inotify_limit(
        "engine::tests::limits::without_inotify_watches_the_checkout_polls_and_says_the_setting",
        "max_inotify_watches",
        1,
        "fs.inotify.max_user_watches",
    );
}

/// A file system of 300 KiB of its own: our write doesn't fit, the file stays as it is and the status says why; with room it goes on.
/// The person's edits go out all the while, as far as they can be noted first.
#[test]
fn a_full_disk_keeps_the_file_as_it_is() {
    let mount = "mount -t tmpfs -o size=300k none /mnt && exec \"$@\"";
    let prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"];
    if !is_inside("engine::tests::limits::a_full_disk_keeps_the_file_as_it_is", &prefix) {
        return;
    }
    run(async {
        let node = one();
        let bench = Bench::new_in(&node, Path::new("/mnt"));
        bench.write(TWO);
        let running = bench.start();
        running.synced().await;
        let ballast = bench.dir.path().join("ballast");
        let full = fs::write(&ballast, vec![1; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        let long: String = (0..400).map(|number| format!("- [ ] 9.{number} a line that takes room\n")).collect();
        set(&node, &format!("{TWO}{long}"));
        running.says(PATH, "No space left on device").await;
        assert_eq!(bench.read(), TWO);
        fs::remove_file(&ballast).unwrap();
        bench.holds(&format!("{TWO}{long}")).await;
        running.synced().await;
        let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!(left(bench.file().parent().unwrap()), 1, "no temporary file is left");
        assert_eq!(left(&bench.state().join("replaced")), 1, "only the replaced file is kept");
        running.stop().await;
    });
}

/// As a person without root's right to read and write everything.
fn as_a_person(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if is_root { is_inside(test, &["unshare", "--user"]) } else { true }
}

#[test]
fn a_file_that_nobody_may_read_is_left_alone_until_somebody_may() {
    if !as_a_person("engine::tests::limits::a_file_that_nobody_may_read_is_left_alone_until_somebody_may") {
        return;
    }
    scene(async |node, bench, running| {
        let chmod = |mode| fs::set_permissions(bench.file(), std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o000);
        running.says(PATH, "can't be read: Permission denied").await;
        set(node, THREE);
        running.looked_at().await;
        chmod(0o644);
        assert_eq!(fs::read_to_string(bench.file()).unwrap_or_default(), TWO);
        bench.holds(THREE).await;
        running.synced().await;
    });
}

#[test]
fn a_folder_that_must_not_be_written_to_is_left_alone_until_it_may() {
    if !as_a_person("engine::tests::limits::a_folder_that_must_not_be_written_to_is_left_alone_until_it_may") {
        return;
    }
    scene(async |node, bench, running| {
        let folder = bench.file().parent().unwrap().to_owned();
        let chmod = |mode| fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o555);
        set(node, TWO_TICKED);
        running.says(PATH, "Permission denied").await;
        assert_eq!(bench.read(), TWO);
        bench.write(THREE);
        cluster_holds(node, THREE_TICKED).await;
        chmod(0o000);
        running.says(PATH, "can't be read: Permission denied").await;
        chmod(0o755);
        bench.holds(THREE_TICKED).await;
    });
}
