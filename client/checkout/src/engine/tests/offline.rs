//! A workstation without quorum keeps editing; on return its edits meet what the others did, in one pass.

use std::time::SystemTime;

use super::*;

fn path(number: usize) -> String {
    format!("openspec/changes/c{number:02}/tasks.md")
}

/// Two nodes of one history, and a checkout of `files` files at the first.
struct Scene {
    nodes: Vec<Arc<Node>>,
    bench: Bench,
    files: usize,
}

impl Scene {
    fn new(files: usize) -> Self {
        let nodes = cluster(2);
        make_project(&nodes[0]);
        let bench = Bench::new(&nodes[0]);
        (0..files).for_each(|number| bench.write_at(&path(number), TWO));
        Self { nodes, bench, files }
    }

    async fn start(&self) -> Running {
        let running = self.bench.start();
        self.all_synced(&running).await;
        running
    }

    async fn all_synced(&self, running: &Running) {
        for number in 0..self.files {
            running.is(&path(number), FileState::Synced).await;
        }
    }

    fn cut(&self, is_cut: bool) {
        self.nodes[0].set_unavailable(is_cut);
        self.nodes[0].lag(is_cut);
    }

    /// Others go on at the other node.
    fn others(&self, number: usize, text: &str) {
        let change = change_at(&self.nodes[0], &path(number)).unwrap();
        set_in(&mut self.nodes[1].ledger(), change, text);
    }

    fn text(&self, number: usize) -> String {
        cluster_text_at(&self.nodes[0], &path(number))
    }

    async fn agree(&self, running: &Running) {
        self.all_synced(running).await;
        until(
            || "files and cluster agree".to_owned(),
            || (0..self.files).all(|number| self.bench.read_at(&path(number)) == self.text(number)),
        )
        .await;
    }
}

#[test]
fn edits_without_a_quorum_merge_in_one_pass_on_return() {
    run(async {
        let scene = Scene::new(12);
        let running = scene.start().await;
        let before = SystemTime::now();
        scene.cut(true);
        // Edited once and twice and thrice, each time seen before the next.
        for number in 0..12 {
            scene.bench.write_at(&path(number), TWO.replace("write", "sketch"));
            running.says(&path(number), "no quorum").await;
        }
        for text in [TWO_TICKED, THREE] {
            for number in 0..4 {
                scene.bench.write_at(&path(number), text);
            }
            running.looked_at().await;
        }
        let status = running.handle.status();
        let offline = status.offline.clone().unwrap();
        assert!(offline.reason.contains("no quorum") && offline.since >= before, "{offline:?}");
        assert_eq!(status.unsynced().count(), 12);
        assert!(status.unsynced().all(|file| file.unsynced_since.is_some_and(|since| since >= before)));
        // 0: another line. 5: the same line to other words. 6: the same line to the same words. 7: a tick of the same line.
        scene.others(0, TWO_TICKED);
        scene.others(5, &TWO.replace("write", "draft"));
        scene.others(6, &TWO.replace("write", "sketch"));
        scene.others(7, TWO_TICKED);
        let (proposals, accepted) = (scene.nodes[0].proposals(), scene.nodes[0].ledger().accepted());
        scene.cut(false);
        scene.agree(&running).await;
        let sketch = TWO.replace("write", "sketch");
        assert_eq!(scene.text(0), THREE_TICKED);
        assert_eq!(scene.text(1), THREE);
        assert_eq!(scene.text(4), sketch);
        assert_eq!(scene.text(5), TWO.replace("write", "draft"), "first committed stands");
        assert_eq!(scene.text(6), sketch);
        assert_eq!(scene.text(7), TWO_TICKED.replace("write", "sketch"));
        let conflicts = scene.nodes[0].ledger().conflicts();
        assert_eq!(conflicts.len(), 1, "{conflicts:#?}");
        assert!(conflicts[0].spec.as_ref().is_some_and(|spec| spec.contains("sketch")), "{conflicts:#?}");
        // One command per file, but for the one that knocked with an earlier text; none for the file that needs none.
        let effects = scene.nodes[0].ledger().accepted() - accepted;
        let asked = scene.nodes[0].proposals() - proposals;
        assert!(effects <= 12 && asked <= 13, "{effects} effects of {asked} proposals");
        let status = running.handle.status();
        assert_eq!(
            (status.offline, status.files.iter().filter(|file| file.unsynced_since.is_some()).count()),
            (None, 0)
        );
        running.stop().await;
    });
}

/// Hours without the engine, on both sides.
#[test]
fn a_node_that_was_down_for_hours_loses_nothing() {
    run(async {
        let scene = Scene::new(8);
        scene.start().await.stop().await;
        for number in 0..8 {
            scene.bench.write_at(&path(number), format!("{TWO}- [ ] 1.3 cut the power\n"));
            if number % 2 == 0 {
                scene.others(number, TWO_TICKED);
            }
        }
        let proposals = scene.nodes[0].proposals();
        scene.nodes[0].catch_up();
        let running = scene.bench.start();
        scene.agree(&running).await;
        for number in 0..8 {
            assert_eq!(scene.text(number), if number % 2 == 0 { THREE_TICKED } else { THREE }, "{number}");
        }
        assert_eq!(scene.nodes[0].proposals(), proposals + 8);
        assert_eq!(scene.nodes[0].ledger().conflicts(), []);
        running.stop().await;
    });
}

/// Without ever having reached the cluster's session: nothing spins, everything is told, and everything goes out in the end.
#[test]
fn a_start_without_a_quorum_waits_and_says_so() {
    run(async {
        let scene = Scene::new(3);
        scene.start().await.stop().await;
        scene.cut(true);
        for number in 0..3 {
            scene.bench.write_at(&path(number), THREE);
        }
        let running = scene.bench.start();
        for number in 0..3 {
            running.says(&path(number), "no quorum").await;
        }
        let refused = scene.nodes[0].refused();
        for _ in 0..20 {
            running.looked_at().await;
        }
        let tries = scene.nodes[0].refused() - refused;
        assert!(tries < 100, "{tries} tries during twenty looks");
        let proposals = scene.nodes[0].proposals();
        scene.cut(false);
        scene.agree(&running).await;
        assert_eq!(scene.nodes[0].proposals(), proposals + 3);
        running.stop().await;
    });
}
