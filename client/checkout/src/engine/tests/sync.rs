//! What happens all day.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

#[test]
fn a_new_file_becomes_a_change_and_an_edit_of_it_an_edit() {
    scene(async |node, bench, _| {
        assert_eq!(cluster_text(node), TWO);
        bench.write(TWO_TICKED);
        cluster_holds(node, TWO_TICKED).await;
    });
}

#[test]
fn a_change_of_the_cluster_reaches_the_file() {
    scene(async |node, bench, _| {
        set(node, THREE);
        bench.holds(THREE).await;
    });
}

#[test]
fn a_change_that_is_new_in_the_cluster_makes_a_file_with_its_folders() {
    run(async {
        let node = one();
        let bench = Bench::new(&node);
        let running = bench.start();
        create(&node, PATH, TWO);
        bench.holds(TWO).await;
        create(&node, "openspec/changes/add-y/tasks.md", THREE);
        until(|| "the second file is there".to_owned(), || bench.read_at("openspec/changes/add-y/tasks.md") == THREE)
            .await;
        bench.write(TWO_TICKED);
        cluster_holds(&node, TWO_TICKED).await;
        running.stop().await;
    });
}

#[test]
fn a_save_in_one_checkout_reaches_the_two_others() {
    run(async {
        let nodes = cluster(3);
        make_project(&nodes[0]);
        let benches: Vec<Bench> = nodes.iter().map(Bench::new).collect();
        let relay = {
            let nodes = nodes.clone();
            tokio::spawn(async move {
                loop {
                    crate::testing::deliver(&nodes);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        };
        benches[0].write(TWO);
        let running: Vec<Running> = benches.iter().map(Bench::start).collect();
        for bench in &benches {
            bench.holds(TWO).await;
        }
        benches[1].write(TWO_TICKED);
        for bench in &benches {
            bench.holds(TWO_TICKED).await;
        }
        benches[0].write(THREE_TICKED);
        for bench in &benches {
            bench.holds(THREE_TICKED).await;
        }
        for running in running {
            running.stop().await;
        }
        relay.abort();
    });
}

#[test]
fn our_own_write_is_no_edit() {
    run(async {
        let node = one();
        let (bench, running) = agreed(&node).await;
        set(&node, THREE);
        bench.holds(THREE).await;
        let (proposals, inode) = (node.proposals(), fs::metadata(bench.file()).unwrap().ino());
        running.looked_at().await;
        running.looked_at().await;
        assert_eq!(node.proposals(), proposals);
        assert_eq!(fs::metadata(bench.file()).unwrap().ino(), inode, "identical bytes are not written again");
        running.stop().await;
        let running = bench.start();
        running.synced().await;
        assert_eq!(node.proposals(), proposals);
        assert_eq!(fs::metadata(bench.file()).unwrap().ino(), inode);
        running.stop().await;
    });
}

#[test]
fn a_stale_whole_file_save_undoes_nothing() {
    scene(async |node, bench, running| {
        set(node, TWO_TICKED);
        bench.holds(TWO_TICKED).await;
        running.synced().await;
        bench.write(format!("{TWO}- [ ] 1.3 cut the power\n"));
        bench.holds(THREE_TICKED).await;
        cluster_holds(node, THREE_TICKED).await;
    });
}

/// Two writers in one checkout: the one appended to what the other had saved, and the other never looked. Whether that one deleted the line
/// can't be told from the save; as it missed our write too, it probably never saw it, so the line is in a conflict.
#[test]
fn what_a_neighbour_wrote_right_after_a_stale_buffer_is_not_lost() {
    scene(async |node, bench, running| {
        bench.write(THREE);
        cluster_holds(node, THREE).await;
        running.synced().await;
        bench.write(format!("{THREE}- [ ] 1.4 by the neighbour\n"));
        cluster_holds(node, &format!("{THREE}- [ ] 1.4 by the neighbour\n")).await;
        running.synced().await;
        let theirs = format!("{THREE_TICKED}- [ ] 1.4 by the neighbour\n- [ ] 1.5 by another checkout\n");
        set(node, &theirs);
        bench.holds(&theirs).await;
        running.synced().await;
        bench.write(format!("## Goal\n\n{THREE}"));
        until(|| cluster_text(node), || cluster_text(node).starts_with("## Goal")).await;
        let recorded = format!("{:?}", node.ledger().conflicts());
        let is_there = |line: &str| cluster_text(node).contains(line) || recorded.contains(line);
        assert!(is_there("by the neighbour"), "{}{recorded}", cluster_text(node));
        assert!(cluster_text(node).contains("- [x] 1.1") && cluster_text(node).contains("by another checkout"));
    });
}

#[test]
fn a_revert_of_our_write_is_a_revert() {
    scene(async |node, bench, running| {
        set(node, TWO_TICKED);
        bench.holds(TWO_TICKED).await;
        running.synced().await;
        bench.write(TWO);
        cluster_holds(node, TWO).await;
    });
}

#[test]
fn each_checkout_keeps_its_line_ends_byte_order_mark_and_last_line() {
    run(async {
        for (before, after) in [
            (TWO.replace('\n', "\r\n"), THREE.replace('\n', "\r\n")),
            (format!("\u{feff}{TWO}"), format!("\u{feff}{THREE}")),
            (TWO.trim_end().to_owned(), THREE.trim_end().to_owned()),
        ] {
            let node = one();
            create(&node, PATH, TWO);
            let bench = Bench::new(&node);
            bench.write(&before);
            let running = bench.start();
            running.synced().await;
            assert_eq!(bench.read(), before, "adopted as it stands");
            set(&node, THREE);
            bench.holds(&after).await;
            assert_eq!(cluster_text(&node), THREE);
            running.stop().await;
        }
    });
}

#[test]
fn mode_and_attributes_stay() {
    scene(async |node, bench, _| {
        fs::set_permissions(bench.file(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let name = "user.zyflow-test";
        let has_attributes = rustix::fs::setxattr(bench.file(), name, b"kept", rustix::fs::XattrFlags::empty()).is_ok();
        set(node, THREE);
        bench.holds(THREE).await;
        assert_eq!(fs::metadata(bench.file()).unwrap().permissions().mode() & 0o7777, 0o640);
        if has_attributes {
            let mut value = [0; 16];
            let size = rustix::fs::getxattr(bench.file(), name, &mut value[..]).unwrap();
            assert_eq!(&value[..size], b"kept");
        } else {
            eprintln!("skipped: this file system has no extended attributes");
        }
    });
}

#[test]
fn edits_made_while_the_node_was_down_are_found() {
    run(async {
        let node = one();
        let (bench, running) = agreed(&node).await;
        running.stop().await;
        bench.write(format!("{TWO}- [ ] 1.3 cut the power\n"));
        set(&node, TWO_TICKED);
        let running = bench.start();
        cluster_holds(&node, THREE_TICKED).await;
        bench.holds(THREE_TICKED).await;
        running.stop().await;
    });
}

#[test]
fn without_hints_everything_is_found_by_looking() {
    run(async {
        let node = one();
        let mut bench = Bench::new(&node);
        bench.seams.is_deaf = true;
        bench.write(TWO);
        let running = bench.start();
        running.synced().await;
        bench.write(TWO_TICKED);
        cluster_holds(&node, TWO_TICKED).await;
        set(&node, THREE_TICKED);
        bench.holds(THREE_TICKED).await;
        assert!(running.handle.status().notes.iter().any(|note| note.contains("polling")));
        running.stop().await;
    });
}

#[test]
fn first_binding_adopts_asks_and_takes() {
    run(async {
        for (take, expected) in [
            (Take::Cluster, TWO_TICKED.to_owned()),
            (Take::Local, THREE.to_owned()),
            (Take::Merge, THREE_TICKED.to_owned()),
        ] {
            let node = one();
            create(&node, PATH, TWO_TICKED);
            let bench = Bench::new(&node);
            bench.write(THREE);
            let running = bench.start();
            running.is(PATH, FileState::NeedsTake).await;
            running.stop().await;
            let running = bench.start();
            running.is(PATH, FileState::NeedsTake).await;
            assert_eq!(
                (bench.read().as_str(), cluster_text(&node).as_str()),
                (THREE, TWO_TICKED),
                "nothing is touched"
            );
            running.handle.take(take);
            running.synced().await;
            bench.holds(&expected).await;
            cluster_holds(&node, &expected).await;
            running.stop().await;
        }
    });
}

#[test]
fn a_project_that_does_not_exist_yet_is_waited_for() {
    run(async {
        let node = cluster(1).remove(0);
        let bench = Bench::new(&node);
        bench.write(TWO);
        let running = bench.start();
        until(
            || "the status says so".to_owned(),
            || running.handle.status().notes.iter().any(|note| note.contains("`p` doesn't exist")),
        )
        .await;
        make_project(&node);
        cluster_holds(&node, TWO).await;
        running.stop().await;
    });
}
