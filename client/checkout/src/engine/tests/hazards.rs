//! Things that stand in a checkout and must be left alone, waited for, or asked about.

use super::*;
use crate::testing::Fault;
use zyflow_machine::command::Scope;
use zyflow_machine::outcome::Reject;

#[test]
fn conflict_markers_make_a_file_read_only_to_us() {
    scene(async |node, bench, running| {
        let marked = format!("{TWO}<<<<<<< ours\n- [ ] a\n=======\n- [ ] b\n>>>>>>> theirs\n");
        bench.write(&marked);
        running.says(PATH, "conflict markers").await;
        set(node, TWO_TICKED);
        running.looked_at().await;
        assert_eq!(bench.read(), marked);
        assert_eq!(cluster_text(node), TWO_TICKED);
        bench.write(format!("{TWO}- [ ] 1.3 cut the power\n"));
        bench.holds(THREE_TICKED).await;
    });
}

#[test]
fn bytes_that_are_no_text_and_too_many_of_them_are_parked() {
    scene(async |node, bench, running| {
        bench.write(b"- [ ] caf\xe9\n");
        running.says(PATH, "not UTF-8").await;
        bench.write(vec![b'a'; (1 << 20) + 1]);
        running.says(PATH, "1048577").await;
        running.looked_at().await;
        assert_eq!(fs::metadata(bench.file()).unwrap().len(), (1 << 20) + 1);
        assert_eq!(cluster_text(node), TWO);
        bench.write(TWO_TICKED);
        cluster_holds(node, TWO_TICKED).await;
    });
}

#[test]
fn an_emptied_file_is_not_believed_at_once() {
    scene(async |node, bench, running| {
        bench.write("");
        running.says(PATH, "empty").await;
        assert_eq!(cluster_text(node), TWO);
        bench.write(THREE);
        cluster_holds(node, THREE).await;
        bench.write("");
        until(|| "an emptied file is believed in the end".to_owned(), || cluster_text(node).is_empty()).await;
    });
}

#[test]
fn links_are_neither_followed_nor_replaced() {
    run(async {
        let node = one();
        let bench = Bench::new(&node);
        let outside = bench.dir.path().join("outside.md");
        fs::write(&outside, TWO).unwrap();
        fs::create_dir_all(bench.file().parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&outside, bench.file()).unwrap();
        let elsewhere = bench.dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, bench.root().join("openspec/changes/linked")).unwrap();
        let running = bench.start();
        running.says(PATH, "not a regular file").await;
        create(&node, PATH, THREE);
        create(&node, "openspec/changes/linked/tasks.md", THREE);
        running.looked_at().await;
        assert_eq!(fs::read_to_string(&outside).unwrap(), TWO);
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        running.stop().await;
    });
}

#[test]
fn paths_of_the_cluster_that_match_no_glob_are_not_written() {
    scene(async |node, bench, running| {
        create(node, "src/main.rs", "no\n");
        create(node, ".git/hooks/pre-commit", "no\n");
        set(node, THREE);
        bench.holds(THREE).await;
        running.looked_at().await;
        assert!(!bench.root().join("src").exists() && !bench.root().join(".git").exists());
    });
}

#[test]
fn a_deletion_waits_then_spreads() {
    scene(async |node, bench, running| {
        create(node, "tasks.md", TWO);
        until(|| "the other file is there".to_owned(), || bench.read_at("tasks.md") == TWO).await;
        fs::remove_file(bench.file()).unwrap();
        until(|| "the change is deleted".to_owned(), || change_at(node, PATH).is_none()).await;
        until(|| "nothing is remembered of it".to_owned(), || running.state_of(PATH).is_none()).await;
        bench.write(THREE);
        cluster_holds(node, THREE).await;
    });
}

/// Files of [`held`].
const MANY: usize = 5;

fn one_of_many(number: usize) -> String {
    format!("openspec/changes/c{number}/tasks.md")
}

/// A checkout whose files are all gone, which is held.
async fn held(node: &Arc<Node>) -> (Bench, Running) {
    let bench = Bench::new(node);
    for number in 0..MANY {
        bench.write_at(&one_of_many(number), TWO);
    }
    let running = bench.start();
    for number in 0..MANY {
        running.is(&one_of_many(number), FileState::Synced).await;
    }
    fs::remove_dir_all(bench.root().join("openspec")).unwrap();
    for number in 0..MANY {
        running.is(&one_of_many(number), FileState::DeletionHeld).await;
    }
    running.looked_at().await;
    assert!((0..MANY).all(|number| change_at(node, &one_of_many(number)).is_some()));
    (bench, running)
}

async fn are_deleted(node: &Node) {
    let is_gone = |number| change_at(node, &one_of_many(number)).is_none();
    until(|| "they are deleted".to_owned(), || (0..MANY).all(is_gone)).await;
}

/// Each deletion is small, and none of them makes a point: the checkout asks for one before the first.
#[test]
fn many_deletions_at_once_are_held_until_they_are_confirmed_and_can_be_taken_back() {
    run(async {
        let node = one();
        let (bench, running) = held(&node).await;
        let before = node.ledger().revision();
        // The first time that the point is asked for the cluster hears nothing.
        node.fail_next(Fault::LostRequest);
        running.handle.confirm_deletions();
        are_deleted(&node).await;

        let name = format!("before-deletion-{before}");
        let point = |is_automatic| {
            let name = name.clone();
            node.act(Body::CreatePoint { name, at: Some(before), note: String::new(), is_automatic })
        };
        let Outcome::Rejected(Reject::Exists { id, .. }) = point(false) else { panic!("there is no point {name}") };
        assert_eq!(id.0.revision(), Revision(before.0 + 1), "the point comes before the first deletion");
        assert_eq!(created(&point(true)), [id], "whoever else names this state has the same point");
        created(&node.act(Body::Rollback { scope: Scope::All, to: before, expected: None }));
        let is_back = |number| bench.read_at(&one_of_many(number)) == TWO;
        let states =
            || (0..MANY).map(|number| (is_back(number), running.state_of(&one_of_many(number)))).collect::<Vec<_>>();
        until(
            || format!("all files are back: {:?} {:?}", states(), running.handle.status().notes),
            || (0..MANY).all(is_back),
        )
        .await;
        running.stop().await;
    });
}

#[test]
fn confirmed_deletions_before_which_there_can_be_no_point_are_held_on() {
    run(async {
        let node = one();
        let (_bench, running) = held(&node).await;
        let name = format!("before-deletion-{}", node.ledger().revision().0 + 1);
        let taken = Body::CreatePoint { name, at: Some(Revision(1)), note: String::new(), is_automatic: false };
        created(&node.act(taken));
        running.handle.confirm_deletions();
        let notes = || running.handle.status().notes;
        let is_told = || notes().iter().any(|note| note.contains("before-deletion-"));
        until(|| format!("it is told: {:?}", notes()), is_told).await;
        running.looked_at().await;
        for number in 0..MANY {
            assert_eq!(running.state_of(&one_of_many(number)), Some(FileState::DeletionHeld));
            assert!(change_at(&node, &one_of_many(number)).is_some());
        }
        // The refused command has moved the cluster on, so that the next name is free.
        running.handle.confirm_deletions();
        are_deleted(&node).await;
        until(|| format!("nothing is left to tell: {:?}", notes()), || !is_told()).await;
        running.stop().await;
    });
}

#[test]
fn a_deletion_in_the_cluster_removes_the_file_unless_it_was_edited() {
    scene(async |node, bench, running| {
        let delete = |node: &Node| {
            let change = change_at(node, PATH).unwrap();
            let base = node.ledger().revision();
            node.act(Body::DeleteChange { change, base });
        };
        delete(node);
        until(|| "the file is gone".to_owned(), || !bench.file().exists()).await;
        bench.write(TWO);
        cluster_holds(node, TWO).await;
        running.synced().await;
        running.handle.pause();
        running.paused("by request").await;
        bench.write(THREE);
        delete(node);
        running.handle.resume();
        cluster_holds(node, THREE).await;
        bench.holds(THREE).await;
    });
}

#[test]
fn the_folder_being_replaced_is_not_a_mass_deletion() {
    scene(async |node, bench, running| {
        fs::rename(bench.root(), bench.dir.path().join("moved")).unwrap();
        fs::create_dir(bench.root()).unwrap();
        running.handle.rescan();
        running.paused("is gone or was replaced").await;
        assert_eq!(cluster_text(node), TWO);
    });
}

#[test]
fn folders_and_state_that_cannot_be_used_are_refused() {
    run(async {
        let node = one();
        let (bench, running) = agreed(&node).await;
        running.stop().await;
        fs::remove_dir_all(bench.root()).unwrap();
        let running = bench.start();
        let error = running.task.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Root { .. }), "{error}");
    });
}
