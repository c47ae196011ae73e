//! Things that stand where a synced file should: not a file, not text, too much of it, or with a name that can't be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::path::FilePath;

/// Megabytes of memory that parking a file of a gigabyte may take at most, the test itself included.
const MEMORY_MB_MAX: u64 = 300;

/// More than a synced file may have, of a kind that costs most if it is read nevertheless.
#[test]
fn too_much_text_is_parked_unread() {
    scene(async |node, bench, running| {
        let headings = "# heading\n".repeat(1_000_000);
        let line = format!("- [ ] {}\n", "long ".repeat(2_000_000));
        for text in [headings.as_str(), line.as_str()] {
            bench.write(text);
            running.says(PATH, &format!("{} bytes, and a synced file may have 1048576", text.len())).await;
            set(node, if cluster_text(node) == TWO { THREE } else { TWO });
            running.looked_at().await;
            assert!(bench.read() == text, "the file is untouched");
        }
        bench.write(THREE_TICKED);
        running.synced().await;
    });
}

#[test]
fn a_sparse_gigabyte_takes_no_memory() {
    if !is_inside("engine::tests::files::a_sparse_gigabyte_takes_no_memory", &["env"]) {
        return;
    }
    scene(async |node, bench, running| {
        let file = fs::OpenOptions::new().write(true).open(bench.file()).unwrap();
        file.set_len(1 << 30).unwrap();
        drop(file);
        running.says(PATH, "1073741824 bytes").await;
        running.looked_at().await;
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kilobytes / 1024 < MEMORY_MB_MAX, "{peak}");
        assert_eq!((fs::metadata(bench.file()).unwrap().len(), cluster_text(node).as_str()), (1 << 30, TWO));
    });
}

/// As much as is allowed, in one line and in as many as possible; and characters that are text for a machine only.
#[test]
fn a_megabyte_of_any_shape_and_control_characters_are_text() {
    run(async {
        for text in [
            format!("- [ ] {}\n", "x".repeat((1 << 20) - 7)),
            "# h\n".repeat(1 << 16),
            format!("{TWO}- [ ] nul \0 and escape \u{1b}[31m and bell \u{7}\n"),
        ] {
            let node = one();
            let (bench, running) = agreed(&node).await;
            bench.write(&text);
            until(|| "the text is the cluster's".to_owned(), || cluster_text(&node) == text).await;
            running.synced().await;
            assert!(bench.read() == text);
            running.stop().await;
        }
    });
}

/// A pipe, a socket, a device and a folder by the name of a synced file: none is opened for good, none is waited for.
#[test]
fn what_is_no_file_is_left_alone() {
    scene(async |node, bench, running| {
        let fifo = |file: &Path| mknodat(CWD, file, FileType::Fifo, Mode::from_raw_mode(0o644), 0).is_ok();
        let device = |file: &Path| {
            let null = rustix::fs::makedev(1, 3);
            mknodat(CWD, file, FileType::CharacterDevice, Mode::from_raw_mode(0o644), null).is_ok()
        };
        let socket = |file: &Path| UnixListener::bind(file).is_ok();
        let folder = |file: &Path| fs::create_dir_all(file.join("tasks.md")).is_ok();
        let link = |file: &Path| symlink("../../../elsewhere.md", file).is_ok();
        let kinds: [(&str, &dyn Fn(&Path) -> bool); 5] =
            [("pipe", &fifo), ("device", &device), ("socket", &socket), ("folder", &folder), ("link", &link)];
        for (kind, make) in kinds {
            fs::remove_file(bench.file()).unwrap();
            if !make(&bench.file()) {
                skipped("what_is_no_file_is_left_alone", &format!("a {kind} can't be made here"));
                bench.write(cluster_text(node));
                continue;
            }
            running.says(PATH, "not a regular file").await;
            set(node, if cluster_text(node) == TWO { THREE } else { TWO });
            running.looked_at().await;
            assert!(!fs::symlink_metadata(bench.file()).unwrap().is_file(), "{kind}");
            if kind == "folder" { fs::remove_dir_all(bench.file()) } else { fs::remove_file(bench.file()) }.unwrap();
            bench.holds(&cluster_text(node)).await;
            running.synced().await;
        }
        assert!(!bench.root().join("elsewhere.md").exists());
    });
}

#[test]
fn a_name_that_is_not_utf8_is_told() {
    scene(async |node, bench, running| {
        let folder = bench.root().join("openspec/changes").join(OsStr::from_bytes(b"caf\xe9"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tasks.md"), TWO).unwrap();
        running.looked_at().await;
        let notes = running.handle.status().notes;
        assert!(notes.iter().any(|note| note.contains("caf\u{fffd} is not synced")), "{notes:?}");
        assert_eq!(fs::read_to_string(folder.join("tasks.md")).unwrap(), TWO);
        bench.write(THREE);
        cluster_holds(node, THREE).await;
    });
}

#[test]
fn names_that_differ_by_case_only_are_told() {
    scene(async |node, bench, running| {
        let other = "openspec/changes/Add-X/tasks.md";
        bench.write_at(other, THREE);
        running.says(other, "only by upper and lower case").await;
        assert_eq!((bench.read_at(other).as_str(), cluster_text(node).as_str()), (THREE, TWO));
        bench.write(TWO_TICKED);
        cluster_holds(node, TWO_TICKED).await;
    });
}

/// Between the look and the write the file's folder becomes a link that leads out.
#[test]
fn a_folder_that_becomes_a_link_leads_no_write_out() {
    run(async {
        let node = one();
        let (mut bench, running) = agreed(&node).await;
        running.stop().await;
        let outside = bench.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("tasks.md"), "not ours\n").unwrap();
        let (folder, moved) = (bench.file().parent().unwrap().to_owned(), bench.root().join("openspec/moved"));
        let target = outside.clone();
        bench.seams.before_swap = Some(Arc::new(move |_: &FilePath| {
            if !moved.exists() {
                fs::rename(&folder, &moved).unwrap();
                symlink(&target, &folder).unwrap();
            }
        }));
        let running = bench.start();
        running.synced().await;
        set(&node, THREE);
        running.says(PATH, "not a regular file").await;
        set(&node, THREE_TICKED);
        running.looked_at().await;
        assert_eq!(fs::read_to_string(outside.join("tasks.md")).unwrap(), "not ours\n");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        running.stop().await;
    });
}

/// What OpenSpec's archive does, in a project whose globs leave the archive out and in one whose globs have it.
#[test]
fn an_archived_change_is_neither_lost_nor_brought_back() {
    run(async {
        for is_archive_synced in [false, true] {
            let node = cluster(1).remove(0);
            let mut files = vec!["openspec/changes/*/tasks.md".to_owned()];
            if is_archive_synced {
                files.push("openspec/changes/archive/*/tasks.md".to_owned());
            }
            node.act(Body::CreateProject { name: "p".to_owned(), files });
            let (first, second) = (Bench::new(&node), Bench::new(&node));
            // So many that they would be a mass deletion if they weren't moved.
            let changes: Vec<String> = (0..6).map(|number| format!("c{number}")).collect();
            let text = |change: &str| format!("{THREE}- [x] only in {change}\n");
            let at = |change: &str| format!("openspec/changes/{change}/tasks.md");
            let archived = |change: &str| format!("openspec/changes/archive/2026-01-02-{change}/tasks.md");
            for change in &changes {
                first.write_at(&at(change), text(change));
            }
            let running = [first.start(), second.start()];
            until(
                || "both have them".to_owned(),
                || changes.iter().all(|change| second.read_at(&at(change)) == text(change)),
            )
            .await;
            for running in &running {
                for change in &changes {
                    running.is(&at(change), FileState::Synced).await;
                }
            }
            let change_at = |path: &str| {
                let listed = node.paths(project_of(&node)).unwrap().into_iter();
                listed.filter(|(at, _, is_deleted)| at == path && !is_deleted).map(|(_, change, _)| change).next()
            };
            let before: Vec<_> = changes[..5].iter().map(|change| change_at(&at(change))).collect();
            let folder = |bench: &Bench, change: &str| bench.root().join("openspec/changes").join(change);
            fs::create_dir(folder(&first, "archive")).unwrap();
            for change in &changes[..5] {
                fs::rename(folder(&first, change), folder(&first, &format!("archive/2026-01-02-{change}"))).unwrap();
            }
            until(
                || "they are gone from the other".to_owned(),
                || changes[..5].iter().all(|change| !second.root().join(at(change)).exists()),
            )
            .await;
            let holds =
                |bench: &Bench| changes[..5].iter().all(|change| bench.read_at(&archived(change)) == text(change));
            assert!(holds(&first));
            if is_archive_synced {
                until(|| "the other has the archive".to_owned(), || holds(&second)).await;
                let after: Vec<_> = changes[..5].iter().map(|change| change_at(&archived(change))).collect();
                assert_eq!(after, before, "each change went along with its file");
            }
            for (bench, running) in [&first, &second].into_iter().zip(running) {
                running.looked_at().await;
                assert!(changes[..5].iter().all(|change| !bench.root().join(at(change)).exists()), "no resurrection");
                assert_eq!(bench.read_at(&at("c5")), text("c5"));
                running.stop().await;
            }
        }
    });
}
