//! What goes wrong between the arrows: lost answers, races for the file, writers that hold an old inode, full and read-only places.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::path::FilePath;
use crate::testing::Fault;

#[test]
fn what_cannot_be_proposed_waits_and_is_told() {
    scene(async |node, bench, running| {
        node.set_unavailable(true);
        bench.write(TWO_TICKED);
        running.says(PATH, "no quorum").await;
        node.set_unavailable(false);
        cluster_holds(node, TWO_TICKED).await;
        running.synced().await;
    });
}

#[test]
fn a_lost_answer_repeats_nothing() {
    scene(async |node, bench, running| {
        node.fail_next(Fault::LostAnswer);
        node.fail_next(Fault::LostAnswer);
        bench.write(THREE);
        running.synced().await;
        cluster_holds(node, THREE).await;
        node.fail_next(Fault::LostRequest);
        bench.write(THREE_TICKED);
        cluster_holds(node, THREE_TICKED).await;
    });
}

/// Where nobody can say any more whether an edit was accepted, it isn't merged anew with a node that lags behind the answer.
#[test]
fn a_lost_session_repeats_nothing() {
    scene(async |node, bench, running| {
        node.lag(true);
        node.fail_next(Fault::ExpiredSession);
        let before = node.sessions();
        bench.write(THREE);
        until(|| "a session is opened".to_owned(), || node.sessions() > before).await;
        running.looked_at().await;
        node.lag(false);
        running.synced().await;
        cluster_holds(node, THREE).await;
        running.looked_at().await;
        assert_eq!(cluster_text(node), THREE);
        assert_eq!(bench.read(), THREE);
    });
}

/// The accepted line is deleted by somebody before the checkout learns that it was accepted, over a restart: merging anew would
/// bring the line back.
#[test]
fn a_restart_before_the_answer_resurrects_nothing() {
    run(async {
        let node = one();
        let (bench, running) = agreed(&node).await;
        node.lag(true);
        // Not one answer only: the next try might be answered before the node is cut off.
        node.lose_answers(true);
        bench.write(THREE);
        cluster_holds(&node, THREE).await;
        node.set_unavailable(true);
        node.lose_answers(false);
        running.says(PATH, "no quorum").await;
        running.stop().await;
        set(&node, TWO);
        node.set_unavailable(false);
        node.lag(false);
        let running = bench.start();
        bench.holds(TWO).await;
        running.synced().await;
        assert_eq!(cluster_text(&node), TWO);
        running.stop().await;
    });
}

/// More replaced files than a checkout remembers texts, left by a run that ended: an old text among them must not be taken for an
/// edit, as it would undo all that came after it.
#[test]
fn replaced_files_of_an_earlier_run_undo_nothing() {
    run(async {
        let node = one();
        let (mut bench, running) = agreed(&node).await;
        running.stop().await;
        let keep = std::mem::replace(&mut bench.timing.keep, Duration::from_secs(600));
        let running = bench.start();
        let mut text = TWO.to_owned();
        for number in 0..24 {
            text.push_str(&format!("- [ ] 3.{number} line {number}\n"));
            set(&node, &text);
            bench.holds(&text).await;
        }
        running.stop().await;
        let replaced = bench.state().join("replaced");
        let left = || std::fs::read_dir(&replaced).unwrap().count();
        assert!(left() > 16, "{} replaced files are too few for this test", left());
        bench.timing.keep = keep;
        let running = bench.start();
        running.synced().await;
        until(|| format!("{} replaced files are left", left()), || left() == 0).await;
        assert_eq!((cluster_text(&node), bench.read()), (text.clone(), text));
        running.stop().await;
    });
}

#[test]
fn an_edit_that_is_overtaken_is_merged_and_proposed_again() {
    scene(async |node, bench, _| {
        let change = change_at(node, PATH).unwrap();
        let theirs = TWO.replace("write the log", "write the whole log");
        let written = theirs.clone();
        node.before_next(move |ledger| set_in(ledger, change, &written));
        bench.write(TWO.replace("write the log", "write the log twice"));
        let both = TWO.replace("write the log", "write the whole log twice");
        cluster_holds(node, &both).await;
        bench.holds(&both).await;
    });
}

#[test]
fn both_changing_the_same_words_is_a_conflict_that_keeps_the_loser() {
    scene(async |node, bench, _| {
        let change = change_at(node, PATH).unwrap();
        let theirs = TWO.replace("write", "draft");
        let written = theirs.clone();
        node.before_next(move |ledger| set_in(ledger, change, &written));
        bench.write(TWO.replace("write", "sketch"));
        bench.holds(&theirs).await;
        let conflicts = node.ledger().conflicts();
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        assert!(conflicts[0].spec.as_ref().is_some_and(|spec| spec.contains("sketch")), "{conflicts:?}");
    });
}

/// Calls `act` at the first swap.
fn at_first_swap(bench: &mut Bench, act: impl Fn() + Send + Sync + 'static) {
    let calls = AtomicUsize::new(0);
    bench.seams.before_swap = Some(Arc::new(move |_: &FilePath| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            act();
        }
    }));
}

/// What somebody does between the look and the swap of a write that ticks a task: it ends up merged with the tick.
async fn merges_at_swap(way: Way, act: fn(&Path, &str)) {
    let node = one();
    let mut bench = Bench::new(&node);
    let file = bench.file();
    at_first_swap(&mut bench, move || act(&file, THREE));
    bench.seams.way = Some(way);
    create(&node, PATH, TWO);
    bench.write(TWO);
    let running = bench.start();
    running.synced().await;
    set(&node, TWO_TICKED);
    bench.holds(THREE_TICKED).await;
    cluster_holds(&node, THREE_TICKED).await;
    running.stop().await;
}

#[test]
fn a_save_between_scan_and_swap_is_merged() {
    run(async {
        for way in [Way::Exchange, Way::LinkThenRename] {
            merges_at_swap(way, |file, text| fs::write(file, text).unwrap()).await;
        }
    });
}

#[test]
fn a_rename_between_scan_and_swap_is_merged() {
    run(async {
        let rename = |file: &Path, text: &str| {
            let beside = file.with_file_name("4913");
            fs::write(&beside, text).unwrap();
            fs::rename(&beside, file).unwrap();
        };
        merges_at_swap(Way::Exchange, rename).await;
    });
}

#[test]
fn bytes_that_cannot_be_merged_are_swapped_back() {
    run(async {
        let node = one();
        let mut bench = Bench::new(&node);
        let file = bench.file();
        at_first_swap(&mut bench, move || fs::write(&file, b"\xff\xfe not text").unwrap());
        create(&node, PATH, TWO);
        bench.write(TWO);
        let running = bench.start();
        running.synced().await;
        set(&node, TWO_TICKED);
        running.says(PATH, "not UTF-8").await;
        assert_eq!(fs::read(bench.file()).unwrap(), b"\xff\xfe not text");
        bench.write(TWO_TICKED);
        running.synced().await;
        running.stop().await;
    });
}

#[test]
fn a_file_that_appears_while_we_make_it_is_not_overwritten() {
    run(async {
        let node = one();
        let mut bench = Bench::new(&node);
        let file = bench.file();
        at_first_swap(&mut bench, move || fs::write(&file, THREE).unwrap());
        let running = bench.start();
        until(|| "the checkout is bound".to_owned(), || running.handle.status().is_ready).await;
        create(&node, PATH, TWO_TICKED);
        bench.holds(THREE_TICKED).await;
        cluster_holds(&node, THREE_TICKED).await;
        running.stop().await;
    });
}

#[test]
fn a_writer_that_holds_the_replaced_inode_is_heard() {
    scene(async |node, bench, running| {
        let mut held = OpenOptions::new().read(true).write(true).open(bench.file()).unwrap();
        set(node, TWO_TICKED);
        bench.holds(TWO_TICKED).await;
        running.synced().await;
        held.seek(SeekFrom::End(0)).unwrap();
        held.write_all(b"- [ ] 1.3 cut the power\n").unwrap();
        drop(held);
        bench.holds(THREE_TICKED).await;
        cluster_holds(node, THREE_TICKED).await;
        until(
            || "replaced files are dropped in the end".to_owned(),
            || running.handle.status().files.iter().all(|file| file.kept.is_empty()),
        )
        .await;
    });
}

#[test]
fn a_replaced_inode_that_was_written_while_we_were_down_is_heard() {
    run(async {
        let node = one();
        let (mut bench, running) = agreed(&node).await;
        running.stop().await;
        bench.timing.keep = Duration::from_secs(600);
        let running = bench.start();
        running.synced().await;
        let mut held = OpenOptions::new().append(true).open(bench.file()).unwrap();
        set(&node, TWO_TICKED);
        bench.holds(TWO_TICKED).await;
        running.synced().await;
        running.stop().await;
        held.write_all(b"- [ ] 1.3 cut the power\n").unwrap();
        drop(held);
        let running = bench.start();
        bench.holds(THREE_TICKED).await;
        running.stop().await;
    });
}

#[test]
fn a_temporary_of_an_interrupted_swap_is_merged() {
    run(async {
        for is_beside in [true, false] {
            let node = one();
            let (bench, running) = agreed(&node).await;
            running.stop().await;
            // As if the machine had stopped between the swap and putting the swapped-out save away.
            let hash = FilePath::parse(PATH).unwrap().hash();
            let folder =
                if is_beside { bench.file().parent().unwrap().to_owned() } else { bench.state().join("replaced") };
            let temporary = folder.join(format!(".zyflow-{hash}-0"));
            fs::write(&temporary, THREE).unwrap();
            let running = bench.start();
            bench.holds(THREE).await;
            cluster_holds(&node, THREE).await;
            // A write of this run may use the name for a moment, so only what is left in the end counts.
            running.synced().await;
            running.stop().await;
            assert!(!temporary.exists());
        }
    });
}

#[test]
fn a_read_only_file_is_left_alone_until_it_is_not() {
    scene(async |node, bench, running| {
        fs::set_permissions(bench.file(), std::fs::Permissions::from_mode(0o444)).unwrap();
        set(node, THREE);
        running.says(PATH, "read-only").await;
        assert_eq!(bench.read(), TWO);
        fs::set_permissions(bench.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
        bench.holds(THREE).await;
    });
}

#[test]
fn a_damaged_record_parks_its_file() {
    run(async {
        let node = one();
        let (bench, running) = agreed(&node).await;
        running.stop().await;
        let record = bench.state().join("files").join(FilePath::parse(PATH).unwrap().hash());
        fs::write(&record, b"torn").unwrap();
        bench.write(TWO_TICKED);
        let running = bench.start();
        running.says(PATH, "--take").await;
        assert_eq!((bench.read().as_str(), cluster_text(&node).as_str()), (TWO_TICKED, TWO));
        running.stop().await;
    });
}

#[test]
fn a_reader_never_sees_a_gap_or_a_half() {
    scene(async |node, bench, _| {
        let file = bench.file();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let is_done = CancellationToken::new();
        let reader = {
            let (seen, is_done) = (seen.clone(), is_done.clone());
            std::thread::spawn(move || {
                while !is_done.is_cancelled() {
                    let text = fs::read_to_string(&file).unwrap_or_else(|error| format!("gap: {error}"));
                    let mut seen = seen.lock().unwrap();
                    if seen.last() != Some(&text) {
                        seen.push(text);
                    }
                }
            })
        };
        for text in [THREE, TWO_TICKED, THREE_TICKED, TWO] {
            set(node, text);
            bench.holds(text).await;
        }
        is_done.cancel();
        reader.join().unwrap();
        for text in seen.lock().unwrap().iter() {
            assert!([TWO, THREE, TWO_TICKED, THREE_TICKED].contains(&text.as_str()), "{text:?}");
        }
    });
}
