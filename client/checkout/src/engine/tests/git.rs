//! Real `git` in a checkout: what it puts into the work tree, what it is in the middle of, and what our writes mean to it.

use super::*;

const BIG: &str = "## Plan\n\n- [ ] 1.1 write the big log\n- [ ] 1.2 read it back\n";
const SMALL: &str = "## Plan\n\n- [ ] 1.1 write the small log\n- [ ] 1.2 read it back\n";
const SMALL_THREE: &str = "## Plan\n\n- [ ] 1.1 write the small log\n- [ ] 1.2 read it back\n- [ ] 1.3 cut the power\n";

#[test]
fn each_file_of_an_operation_pauses() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Always).await;
        for (number, (file, reason)) in [
            ("MERGE_HEAD", "a merge"),
            ("CHERRY_PICK_HEAD", "a cherry-pick"),
            ("REVERT_HEAD", "a revert"),
            ("rebase-merge", "a rebase"),
            ("rebase-apply", "a rebase"),
            ("index.lock", "a git command"),
            ("HEAD.lock", "a git command"),
            ("BISECT_LOG", "a bisect"),
        ]
        .into_iter()
        .enumerate()
        {
            let other = format!("openspec/changes/c{number}/tasks.md");
            let marker = bench.root().join(".git").join(file);
            fs::write(&marker, "").unwrap();
            running.paused(reason).await;
            let before = cluster_text(&node);
            set(&node, if before == TWO { THREE } else { TWO });
            bench.write_at(&other, TWO);
            running.has_turned(reason).await;
            assert_eq!((bench.read(), cluster_text_at(&node, &other)), (before, String::new()));
            fs::remove_file(&marker).unwrap();
            bench.holds(&cluster_text(&node)).await;
            until(|| "the other file is synced".to_owned(), || cluster_text_at(&node, &other) == TWO).await;
        }
        running.stop().await;
    });
}

#[test]
fn another_branch_and_back_is_no_edit() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Always).await;
        bench.git(&["switch", "-qc", "other"]);
        running.paused("on branch other").await;
        bench.write(SMALL_THREE);
        bench.commit("on the other branch");
        set(&node, TWO_TICKED);
        running.has_turned("on branch other").await;
        assert_eq!((bench.read().as_str(), cluster_text(&node).as_str()), (SMALL_THREE, TWO_TICKED));
        bench.git(&["switch", "-q", "main"]);
        bench.holds(TWO_TICKED).await;
        running.synced().await;
        assert_eq!(cluster_text(&node), TWO_TICKED);
        // There and back so fast that nothing of it is seen but its traces.
        bench.git(&["checkout", "-q", "--", PATH]);
        for _ in 0..5 {
            // By force, as we may write in between.
            bench.git(&["switch", "-qf", "other"]);
            bench.git(&["switch", "-qf", "main"]);
        }
        bench.holds(TWO_TICKED).await;
        running.synced().await;
        assert_eq!(cluster_text(&node), TWO_TICKED);
        running.stop().await;
    });
}

#[test]
fn an_older_text_that_git_puts_back_undoes_nothing() {
    run(async {
        for command in [&["checkout", "-q", "--", PATH][..], &["reset", "-q", "--hard"], &["stash", "-q"]] {
            let node = one();
            let (bench, running) = committed(&node, WritePolicy::Always).await;
            set(&node, THREE);
            bench.holds(THREE).await;
            running.synced().await;
            let proposals = node.proposals();
            bench.git(command);
            bench.holds(THREE).await;
            running.synced().await;
            assert_eq!((cluster_text(&node).as_str(), node.proposals()), (THREE, proposals), "{command:?}");
            running.stop().await;
        }
    });
}

/// What a stash brings back may be older than the cluster's text by then.
#[test]
fn a_stash_that_comes_back_undoes_nothing() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Always).await;
        set(&node, THREE);
        bench.holds(THREE).await;
        running.synced().await;
        running.handle.pause();
        running.paused("by request").await;
        bench.git(&["stash", "-q"]);
        assert_eq!(bench.read(), TWO);
        set(&node, THREE_TICKED);
        bench.git(&["stash", "pop", "-q"]);
        assert_eq!(bench.read(), THREE);
        let proposals = node.proposals();
        running.handle.resume();
        bench.holds(THREE_TICKED).await;
        running.synced().await;
        assert_eq!((cluster_text(&node).as_str(), node.proposals()), (THREE_TICKED, proposals));
        running.stop().await;
    });
}

/// A file that HEAD doesn't have goes with `git stash -u` and comes back later; meanwhile it must not be deleted everywhere.
#[test]
fn a_file_that_went_with_a_stash_is_not_deleted() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Always).await;
        let other = "openspec/changes/add-y/tasks.md";
        create(&node, other, THREE);
        running.is(other, FileState::Synced).await;
        bench.git(&["stash", "-q", "-u"]);
        running.is(other, FileState::DeletionHeld).await;
        assert!(change_at(&node, other).is_some());
        bench.git(&["stash", "pop", "-q"]);
        running.is(other, FileState::Synced).await;
        assert_eq!(cluster_text_at(&node, other), THREE);
        running.stop().await;
    });
}

#[test]
fn a_revert_by_git_is_nothing_new() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Clean).await;
        bench.write(THREE);
        cluster_holds(&node, THREE).await;
        bench.commit("two");
        running.synced().await;
        let proposals = node.proposals();
        bench.git(&["revert", "--no-edit", "HEAD"]);
        bench.holds(THREE).await;
        running.synced().await;
        assert_eq!((cluster_text(&node).as_str(), node.proposals()), (THREE, proposals));
        until(|| "our text is told to be ours".to_owned(), || running.handle.status().dirtied == [PATH]).await;
        running.stop().await;
    });
}

/// Both sides reworded one line. While the person resolves that, the file is theirs; what they made of it is then an edit of the text
/// that HEAD had before, and what the cluster did meanwhile stays.
#[test]
fn conflicts_are_resolved_in_peace() {
    run(async {
        for (start, marker, reason, finish) in [
            (&["merge", "up"][..], "MERGE_HEAD", "a merge", &["commit", "-qm", "merged"][..]),
            (&["rebase", "up"], "rebase-merge", "a rebase", &["rebase", "--continue"]),
            (&["cherry-pick", "up"], "CHERRY_PICK_HEAD", "a cherry-pick", &["commit", "-qm", "picked"]),
            (&["revert", "--no-edit", "HEAD~1"], "REVERT_HEAD", "a revert", &["commit", "-qm", "reverted"]),
        ] {
            let node = one();
            let mut bench = Bench::new(&node);
            bench.policy = WritePolicy::Always;
            bench.write(TWO);
            bench.init();
            bench.git(&["switch", "-qc", "up"]);
            bench.write(BIG);
            bench.commit("big");
            bench.git(&["switch", "-q", "main"]);
            if marker == "REVERT_HEAD" {
                bench.write(BIG);
                bench.commit("big here too");
            }
            bench.write(SMALL);
            bench.commit("small");
            let running = bench.start();
            running.synced().await;
            let complaint = git_in(&bench.root(), start).unwrap_err();
            assert!(complaint.contains("CONFLICT"), "{complaint}");
            assert!(bench.root().join(".git").join(marker).exists());
            running.paused(reason).await;
            let marked = bench.read();
            assert!(marked.contains("<<<<<<<"), "{marked}");
            set(&node, SMALL_THREE);
            running.has_turned(reason).await;
            assert_eq!(bench.read(), marked);
            let resolved = SMALL.replace("small", "big but small");
            bench.write(&resolved);
            running.has_turned(reason).await;
            assert_eq!((bench.read(), cluster_text(&node)), (resolved, SMALL_THREE.to_owned()));
            bench.git(&["add", "."]);
            bench.git(finish);
            let both = SMALL_THREE.replace("small", "big but small");
            bench.holds(&both).await;
            cluster_holds(&node, &both).await;
            assert_eq!(node.ledger().conflicts(), [], "{start:?}");
            running.stop().await;
        }
    });
}

#[test]
fn a_bisect_walks_through_old_texts_unseen() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Always).await;
        for text in [TWO_TICKED, THREE_TICKED, THREE] {
            bench.write(text);
            cluster_holds(&node, text).await;
            running.synced().await;
            bench.commit("another");
        }
        bench.git(&["bisect", "start", "HEAD", "HEAD~3"]);
        running.paused("a bisect").await;
        let old = bench.read();
        assert_ne!(old, THREE);
        set(&node, THREE_TICKED);
        running.has_turned("a bisect").await;
        assert_eq!((bench.read(), cluster_text(&node)), (old, THREE_TICKED.to_owned()));
        bench.git(&["bisect", "reset"]);
        bench.holds(THREE_TICKED).await;
        running.stop().await;
    });
}

/// `git commit -a` holds the index's lock while the message is being written.
#[test]
fn an_open_commit_message_pauses() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Always).await;
        bench.write(TWO_TICKED);
        cluster_holds(&node, TWO_TICKED).await;
        let go = bench.dir.path().join("go");
        let (go_on, folder) = (go.display(), bench.dir.path().display());
        let editor = format!("while test -d '{folder}' && ! test -e '{go_on}'; do :; done; echo two >");
        let root = bench.root();
        let commit =
            std::thread::spawn(move || git_in(&root, &["-c", &format!("core.editor={editor}"), "commit", "-qa"]));
        running.paused("a git command").await;
        set(&node, THREE_TICKED);
        running.has_turned("a git command").await;
        assert_eq!(bench.read(), TWO_TICKED);
        fs::write(&go, "").unwrap();
        commit.join().unwrap().unwrap();
        bench.holds(THREE_TICKED).await;
        running.stop().await;
    });
}

#[test]
fn a_worktree_has_a_git_folder_of_its_own() {
    run(async {
        let node = one();
        let bench = Bench::new(&node);
        let main = bench.dir.path().join("main");
        fs::create_dir(&main).unwrap();
        git_in(&main, &["init", "-q"]).unwrap();
        git_in(&main, &["commit", "-q", "--allow-empty", "-m", "one"]).unwrap();
        fs::remove_dir(bench.root()).unwrap();
        git_in(&main, &["worktree", "add", "-q", bench.root().to_str().unwrap(), "-b", "side"]).unwrap();
        assert!(bench.root().join(".git").is_file());
        bench.write(TWO);
        let running = bench.start();
        running.synced().await;
        fs::write(main.join(".git/MERGE_HEAD"), "").unwrap();
        running.looked_at().await;
        assert_eq!(running.handle.status().paused, None, "a merge in the main work tree is none of ours");
        let marker = main.join(".git/worktrees").join(bench.root().file_name().unwrap()).join("MERGE_HEAD");
        fs::write(&marker, "").unwrap();
        running.paused("a merge").await;
        fs::remove_file(&marker).unwrap();
        set(&node, THREE);
        bench.holds(THREE).await;
        assert!(!bench.root().join(".zyflow").exists());
        running.stop().await;
    });
}

#[test]
fn the_clean_policy_leaves_uncommitted_work_alone() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Clean).await;
        set(&node, TWO_TICKED);
        bench.holds(TWO_TICKED).await;
        set(&node, THREE_TICKED);
        bench.holds(THREE_TICKED).await;
        running.synced().await;
        let mine = format!("{THREE_TICKED}- [ ] 1.4 mine\n");
        bench.write(&mine);
        cluster_holds(&node, &mine).await;
        set(&node, &format!("{mine}- [ ] 1.5 theirs\n"));
        running.says(PATH, "aren't committed").await;
        assert_eq!(bench.read(), mine);
        bench.git(&["commit", "-qam", "two"]);
        bench.holds(&format!("{mine}- [ ] 1.5 theirs\n")).await;
        running.stop().await;
    });
}

#[test]
fn without_writing_the_tree_stays_clean_and_edits_still_go_out() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Off).await;
        bench.git(&["branch", "other"]);
        set(&node, TWO_TICKED);
        running.says(PATH, "`off`").await;
        assert_eq!(bench.git(&["status", "--porcelain"]), "");
        bench.git(&["switch", "-q", "other"]);
        bench.git(&["switch", "-q", "main"]);
        running.goes_on().await;
        bench.write(THREE);
        cluster_holds(&node, THREE_TICKED).await;
        assert_eq!((bench.read().as_str(), running.handle.status().dirtied.len()), (THREE, 0));
        running.stop().await;
    });
}

/// A file that we changed is one that git won't check another text out over. It is told as ours, and throwing it away loses nothing.
#[test]
fn what_we_made_dirty_is_told_and_may_be_thrown_away() {
    run(async {
        let node = one();
        let (bench, running) = committed(&node, WritePolicy::Clean).await;
        bench.git(&["switch", "-qc", "other"]);
        bench.write(BIG);
        bench.commit("big");
        bench.git(&["switch", "-q", "main"]);
        running.goes_on().await;
        running.synced().await;
        assert_eq!(running.handle.status().dirtied, [""; 0]);
        set(&node, THREE);
        bench.holds(THREE).await;
        let dirtied = |running: &Running, paths: &[&str]| running.handle.status().dirtied == paths;
        until(|| "the file is told to be dirty".to_owned(), || dirtied(&running, &[PATH])).await;
        assert_eq!(bench.git(&["status", "--porcelain"]), format!(" M {PATH}\n"));
        let complaint = git_in(&bench.root(), &["switch", "-q", "other"]).unwrap_err();
        assert!(complaint.contains(PATH), "{complaint}");
        bench.git(&["switch", "-qf", "other"]);
        running.paused("on branch other").await;
        bench.git(&["switch", "-q", "main"]);
        bench.holds(THREE).await;
        running.synced().await;
        assert_eq!(cluster_text(&node), THREE);
        until(|| "it is dirty again".to_owned(), || dirtied(&running, &[PATH])).await;
        bench.commit("theirs");
        until(|| "a commit ends that".to_owned(), || dirtied(&running, &[])).await;
        bench.write(THREE_TICKED);
        cluster_holds(&node, THREE_TICKED).await;
        assert!(dirtied(&running, &[]), "what a person wrote isn't ours");
        running.stop().await;
    });
}

/// A node whose text is [`TWO_TICKED`], and a paused checkout of it into which git pulled [`THREE`], made from [`TWO`].
async fn pulled() -> (Arc<Node>, Bench, Running) {
    let node = one();
    create(&node, PATH, TWO);
    set(&node, TWO_TICKED);
    let bench = Bench::new(&node);
    bench.write(THREE);
    bench.init();
    bench.git(&["branch", "up"]);
    bench.write(TWO);
    bench.git(&["commit", "-qa", "--amend", "-m", "one"]);
    bench.git(&["switch", "-q", "up"]);
    bench.git(&["reset", "-q", "--soft", "main"]);
    bench.commit("two");
    bench.git(&["switch", "-q", "main"]);
    bench.write(TWO_TICKED);
    let running = bench.start();
    running.synced().await;
    running.handle.pause();
    running.paused("by request").await;
    bench.git(&["checkout", "-q", "--", PATH]);
    bench.git(&["merge", "-q", "--ff-only", "up"]);
    assert_eq!(bench.read(), THREE);
    (node, bench, running)
}

/// HEAD had a text that this checkout has never shown, and the commit that is pulled was made from that. What the cluster did since
/// isn't undone.
#[test]
fn a_pulled_text_is_read_against_the_one_that_head_had() {
    run(async {
        let (node, bench, running) = pulled().await;
        running.handle.resume();
        bench.holds(THREE_TICKED).await;
        cluster_holds(&node, THREE_TICKED).await;
        running.stop().await;
    });
}

/// What git did is not forgotten by a restart before its texts were merged.
#[test]
fn a_pulled_text_is_still_one_after_a_restart() {
    run(async {
        let (node, bench, running) = pulled().await;
        node.set_unavailable(true);
        running.handle.resume();
        running.says(PATH, "no quorum").await;
        running.stop().await;
        node.set_unavailable(false);
        let running = bench.start();
        bench.holds(THREE_TICKED).await;
        cluster_holds(&node, THREE_TICKED).await;
        running.stop().await;
    });
}

/// git has written the work tree and the index, and HEAD comes last: until then nobody knows what the text is.
#[test]
fn half_a_checkout_is_no_edit() {
    run(async {
        for is_pull in [true, false] {
            let node = one();
            let bench = Bench::new(&node);
            bench.write(TWO);
            bench.init();
            bench.git(&["switch", "-qc", "other"]);
            bench.write(THREE);
            bench.commit("three");
            bench.git(&["switch", "-q", "main"]);
            let running = bench.start();
            running.synced().await;
            let (proposals, accepted) = (node.proposals(), node.ledger().accepted());
            bench.git(&["read-tree", "-m", "-u", "HEAD", "other"]);
            running.is(PATH, FileState::Syncing).await;
            running.looked_at().await;
            assert_eq!((bench.read().as_str(), node.proposals()), (THREE, proposals));
            if is_pull {
                bench.git(&["update-ref", "refs/heads/main", "other"]);
                cluster_holds(&node, THREE).await;
                running.synced().await;
                assert_eq!(node.ledger().accepted(), accepted + 1);
            } else {
                bench.git(&["symbolic-ref", "HEAD", "refs/heads/other"]);
                running.paused("on branch other").await;
                assert_eq!((cluster_text(&node).as_str(), node.proposals()), (TWO, proposals));
            }
            running.stop().await;
        }
    });
}

/// While the new text is written down and not yet in its place, git sees a clean tree: a temporary in it would come and go under the
/// feet of `git add .`, which gives up then.
#[test]
fn a_write_under_way_is_not_in_the_way_of_git() {
    run(async {
        let node = one();
        let (mut bench, running) = committed(&node, WritePolicy::Clean).await;
        running.stop().await;
        let (root, seen) = (bench.root(), Arc::new(std::sync::Mutex::new(Vec::new())));
        let notes = seen.clone();
        bench.seams.before_swap = Some(Arc::new(move |_| {
            notes.lock().unwrap().push(git_in(&root, &["status", "--porcelain", "-uall"]).unwrap());
        }));
        let running = bench.start();
        running.synced().await;
        set(&node, THREE);
        bench.holds(THREE).await;
        assert_eq!(*seen.lock().unwrap(), [""]);
        running.stop().await;
    });
}
