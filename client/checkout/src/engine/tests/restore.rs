//! The cluster is restored from a backup that is older than what the checkouts have agreed on: nobody's lines are taken away.

use super::*;

const OTHER: &str = "openspec/changes/add-y/tasks.md";

/// How far above everything a restored cluster begins.
const AHEAD: u64 = 1_000_000;

/// Checkouts that agree on [`TWO`], whose cluster is restored while none of them runs.
struct Scene {
    nodes: Vec<Arc<Node>>,
    benches: Vec<Bench>,
}

impl Scene {
    fn new(checkouts: usize) -> Self {
        let nodes = cluster(checkouts);
        make_project(&nodes[0]);
        let benches: Vec<Bench> = nodes.iter().map(Bench::new).collect();
        benches[0].write(TWO);
        Self { nodes, benches }
    }

    fn start(&self) -> Vec<Running> {
        self.benches.iter().map(Bench::start).collect()
    }

    async fn all_hold(&self, path: &str, text: &str) {
        let texts = || self.benches.iter().map(|bench| bench.read_at(path)).collect::<Vec<_>>();
        let what =
            || format!("all hold\n{text}\nthey hold {:#?}\nthe cluster\n{}", texts(), cluster_text(&self.nodes[0]));
        until(what, || {
            crate::testing::deliver(&self.nodes);
            texts().iter().all(|held| held == text) && cluster_text_at(&self.nodes[0], path) == text
        })
        .await;
    }

    async fn stop(&self, running: Vec<Running>) {
        for running in running {
            running.looked_at().await;
            running.stop().await;
        }
    }

    /// What is there now, as a backup would have it.
    fn backup(&self) -> Ledger {
        self.nodes[0].ledger().clone()
    }

    fn restore(&self, backup: Ledger) {
        let ahead = Revision(self.nodes[0].ledger().revision().0 + AHEAD);
        self.nodes[0].ledger().restore(backup, ahead);
        crate::testing::deliver(&self.nodes);
    }
}

/// Everything that was acknowledged after the backup stands in the files, and comes back from there, once.
#[test]
fn what_was_agreed_on_after_the_backup_comes_back_from_the_files() {
    run(async {
        let scene = Scene::new(5);
        let running = scene.start();
        scene.all_hold(PATH, TWO).await;
        let backup = scene.backup();
        let before = backup.accepted();
        scene.benches[1].write(THREE_TICKED);
        scene.all_hold(PATH, THREE_TICKED).await;
        scene.benches[0].write_at(OTHER, THREE);
        scene.all_hold(OTHER, THREE).await;
        scene.stop(running).await;

        scene.restore(backup);
        assert_eq!(
            (cluster_text(&scene.nodes[0]), cluster_text_at(&scene.nodes[0], OTHER)),
            (TWO.to_owned(), String::new())
        );
        let running = scene.start();
        for (path, text) in [(PATH, THREE_TICKED), (OTHER, THREE)] {
            scene.all_hold(path, text).await;
        }
        crate::testing::deliver(&scene.nodes);
        for running in &running {
            running.is(PATH, FileState::Synced).await;
            running.is(OTHER, FileState::Synced).await;
        }
        scene.stop(running).await;
        // One edit and one creation, though all held the same; nothing is left to be said, also not after another start.
        let running = scene.start();
        for running in &running {
            running.looked_at().await;
        }
        assert_eq!(scene.nodes[0].ledger().accepted(), before + 2);
        for (path, text) in [(PATH, THREE_TICKED), (OTHER, THREE)] {
            scene.all_hold(path, text).await;
        }
        assert_eq!(scene.nodes[0].ledger().conflicts(), []);
        scene.stop(running).await;
    });
}

/// The file went on while nothing ran, and so did the restored cluster: both are kept.
#[test]
fn edits_on_both_sides_of_a_restore_are_united() {
    run(async {
        let scene = Scene::new(1);
        let running = scene.start();
        scene.all_hold(PATH, TWO).await;
        let backup = scene.backup();
        scene.benches[0].write(THREE);
        scene.all_hold(PATH, THREE).await;
        scene.stop(running).await;
        scene.benches[0].write(format!("{THREE}- [ ] 1.4 written while nothing ran\n"));
        scene.restore(backup);
        set(&scene.nodes[0], TWO_TICKED);
        let running = scene.start();
        scene.all_hold(PATH, &format!("{THREE_TICKED}- [ ] 1.4 written while nothing ran\n")).await;
        scene.stop(running).await;
    });
}

/// A checkout that stands where the backup does just follows; one whose file was put back to an older text by hand brings nothing back.
#[test]
fn a_base_from_before_the_cut_stays_what_it_is() {
    run(async {
        let scene = Scene::new(1);
        let running = scene.start();
        scene.all_hold(PATH, TWO).await;
        scene.stop(running).await;
        let backup = scene.backup();
        scene.restore(backup);
        set(&scene.nodes[0], THREE);
        let running = scene.start();
        scene.all_hold(PATH, THREE).await;
        scene.stop(running).await;
    });
}
