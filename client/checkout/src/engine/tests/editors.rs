//! How editors and tools save, done by the real ones where they are installed.

use std::fs::{FileTimes, OpenOptions};
use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn vim_saves_in_each_of_its_ways() {
    if Command::new("vim").arg("--version").output().is_err() {
        return skipped("vim_saves_in_each_of_its_ways", "vim is not installed");
    }
    scene(async |node, bench, running| {
        let mut text = TWO.to_owned();
        for (number, setting) in [
            "backupcopy=no backup",
            "backupcopy=yes backup",
            "backupcopy=no nobackup writebackup",
            "nobackup nowritebackup",
            "backupcopy=auto,breakhardlink swapfile updatecount=1",
        ]
        .iter()
        .enumerate()
        {
            let (old, new) = (format!("log{}", "!".repeat(number)), format!("log{}", "!".repeat(number + 1)));
            let command = format!("set {setting} | %s/{old}$/{new}/ | wq");
            let mut vim = Command::new("vim");
            let output =
                vim.args(["-es", "-u", "NONE", "-i", "NONE", "-c", &command]).arg(bench.file()).output().unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
            text = text.replace(&format!("{old}\n"), &format!("{new}\n"));
            cluster_holds(node, &text).await;
            running.synced().await;
            // And ours in between, which vim's droppings must survive.
            set(node, &format!("{text}- [ ] 2.{number} theirs\n"));
            text = cluster_text(node);
            bench.holds(&text).await;
        }
        let status = running.handle.status();
        assert!(status.files.iter().all(|file| file.path == PATH), "{:#?}", status.files);
    });
}

#[test]
fn other_tools_save_in_their_ways() {
    scene(async |node, bench, running| {
        let sed = |script: &str| {
            let status = Command::new("sed").args(["-i", script]).arg(bench.file()).status().unwrap();
            assert!(status.success());
        };
        sed("s/write the log/write it/");
        cluster_holds(node, &TWO.replace("the log", "it")).await;
        sed("s/write it/write the log/");
        cluster_holds(node, TWO).await;
        // Like an editor: a new file is written beside it and moved over it.
        let beside = bench.file().with_file_name("___jb_tmp___");
        fs::write(&beside, TWO_TICKED).unwrap();
        fs::rename(&beside, bench.file()).unwrap();
        cluster_holds(node, TWO_TICKED).await;
        // Remove and make anew, with the same inode number where the file system gives it again.
        let inode = || fs::metadata(bench.file()).unwrap().ino();
        let before = inode();
        fs::remove_file(bench.file()).unwrap();
        bench.write(TWO);
        let is_same = inode() == before;
        cluster_holds(node, TWO).await;
        running.synced().await;
        eprintln!("the inode number was {} again", if is_same { "given" } else { "not given" });
        let mut file = OpenOptions::new().append(true).open(bench.file()).unwrap();
        file.write_all(b"- [ ] 1.3 cut the power\n").unwrap();
        drop(file);
        cluster_holds(node, THREE).await;
    });
}

/// A file that is truncated and written piece by piece is one edit, not a deletion of the rest and its return.
#[test]
fn a_save_in_pieces_is_one_edit() {
    run(async {
        let node = one();
        let mut bench = Bench::new(&node);
        // Only that the file is closed tells that it is whole.
        bench.timing.quiet = Duration::from_secs(600);
        bench.timing.quiet_cap = Duration::from_secs(600);
        let lines: String = (0..200).map(|number| format!("- [ ] {number} write line {number}\n")).collect();
        bench.write(format!("## Plan\n\n{lines}"));
        let running = bench.start();
        running.synced().await;
        let change = change_at(&node, PATH).unwrap();
        let ids = |node: &Node| {
            let ledger = node.ledger();
            let document = ledger.document(change, ledger.revision()).unwrap();
            document.blocks.iter().map(|known| known.id).collect::<Vec<_>>()
        };
        let (before, proposals) = (ids(&node), node.proposals());
        let ticked = format!("## Plan\n\n{}", lines.replace("[ ] 77 ", "[x] 77 "));
        let mut file = OpenOptions::new().write(true).truncate(true).open(bench.file()).unwrap();
        for piece in ticked.as_bytes().chunks(397) {
            file.write_all(piece).unwrap();
            running.looked_at().await;
        }
        drop(file);
        cluster_holds(&node, &ticked).await;
        assert_eq!((ids(&node), node.proposals()), (before, proposals + 1));
        running.stop().await;
    });
}

/// The second save is of the same size, and its time is set back to the first one's: only the digest tells.
#[test]
fn two_saves_within_a_millisecond_and_a_time_that_stands_still() {
    run(async {
        for is_deaf in [false, true] {
            let node = one();
            let mut bench = Bench::new(&node);
            bench.seams.is_deaf = is_deaf;
            bench.write(TWO);
            let running = bench.start();
            running.synced().await;
            let time = fs::metadata(bench.file()).unwrap().modified().unwrap();
            for round in 0..8 {
                let last = if round % 2 == 0 { TWO_TICKED } else { TWO };
                bench.write(THREE);
                bench.write(last);
                let file = OpenOptions::new().write(true).open(bench.file()).unwrap();
                file.set_times(FileTimes::new().set_modified(time)).unwrap();
                drop(file);
                cluster_holds(&node, last).await;
                running.synced().await;
                assert_eq!(bench.read(), last);
            }
            running.stop().await;
        }
    });
}

#[test]
fn a_storm_of_renames_loses_nothing_and_deletes_nothing() {
    run(async {
        let node = one();
        let mut bench = Bench::new(&node);
        bench.timing.deletion_grace = Duration::from_secs(600);
        bench.write(TWO);
        let running = bench.start();
        running.synced().await;
        let change = change_at(&node, PATH);
        let (here, there) = (bench.root().join("openspec/changes/add-x"), bench.root().join("openspec/changes/other"));
        let mut text = TWO.to_owned();
        for turn in 0..300 {
            let away = if turn % 2 == 0 { bench.file().with_file_name("tasks.md~") } else { bench.root().join("t.md") };
            fs::rename(bench.file(), &away).unwrap();
            if turn % 10 == 0 {
                text.push_str(&format!("- [ ] 9.{turn} in the storm\n"));
                fs::write(&away, &text).unwrap();
            }
            fs::rename(&away, bench.file()).unwrap();
            if turn % 3 == 0 {
                fs::rename(&here, &there).unwrap();
                fs::rename(&there, &here).unwrap();
            }
        }
        cluster_holds(&node, &text).await;
        running.looked_at().await;
        assert_eq!((bench.read(), change_at(&node, PATH)), (text, change));
        set(&node, THREE);
        bench.holds(THREE).await;
        running.stop().await;
    });
}

/// A backup of a text that we had written over, with an edit of its own and its old time, is read against that text. Exactly that text
/// is a wish to have it back.
#[test]
fn a_restored_backup_brings_its_edits_and_undoes_nothing() {
    run(async {
        for is_down in [false, true] {
            let node = one();
            let (bench, running) = agreed(&node).await;
            let time = fs::metadata(bench.file()).unwrap().modified().unwrap();
            for text in [TWO_TICKED, THREE_TICKED] {
                set(&node, text);
                bench.holds(text).await;
                running.synced().await;
            }
            let restore = |text: &str| {
                let backup = bench.dir.path().join("backup");
                fs::write(&backup, text).unwrap();
                let file = OpenOptions::new().write(true).open(&backup).unwrap();
                file.set_times(FileTimes::new().set_modified(time)).unwrap();
                drop(file);
                fs::rename(&backup, bench.file()).unwrap();
            };
            let running = if is_down {
                running.stop().await;
                restore(&format!("{TWO}\nof the backup\n"));
                bench.start()
            } else {
                restore(&format!("{TWO}\nof the backup\n"));
                running
            };
            until(
                || format!("all three edits stand: {}", cluster_text(&node)),
                || {
                    ["[x] 1.1", "1.3 cut the power", "of the backup"]
                        .iter()
                        .all(|part| cluster_text(&node).contains(part))
                },
            )
            .await;
            bench.holds(&cluster_text(&node)).await;
            running.stop().await;
        }
    });
}
