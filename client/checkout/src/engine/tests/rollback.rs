//! The cluster goes back to a point while people go on writing: files follow, and what wasn't synced yet is on top.

use super::*;
use zyflow_machine::command::Scope;

const OTHER: &str = "openspec/changes/add-y/tasks.md";
const NEWER: &str = "openspec/changes/add-z/tasks.md";

/// What three people made of [`TWO`] after the point: a tick, other words, a new line, one that is gone.
const LATER: &str = "## Plan\n\n- [x] 1.2 read it back twice\n- [ ] 1.4 tell somebody\n";

/// Checkouts that agree on [`TWO`], each on a node of its own.
struct Team {
    nodes: Vec<Arc<Node>>,
    benches: Vec<Bench>,
    running: Vec<Running>,
}

impl Team {
    async fn new(checkouts: usize) -> Self {
        let nodes = cluster(checkouts);
        make_project(&nodes[0]);
        let benches: Vec<Bench> = nodes.iter().map(Bench::new).collect();
        benches[0].write(TWO);
        let running = benches.iter().map(Bench::start).collect();
        let team = Self { nodes, benches, running };
        team.all_hold(PATH, TWO).await;
        team
    }

    async fn all_hold(&self, path: &str, text: &str) {
        self.these_hold(0..self.benches.len(), path, text).await;
    }

    /// Lets every node see what it may until these files hold exactly `text`; empty = there is no file.
    async fn these_hold(&self, which: std::ops::Range<usize>, path: &str, text: &str) {
        let texts = || self.benches.iter().map(|bench| bench.read_at(path)).collect::<Vec<_>>();
        until(
            || {
                format!(
                    "{which:?} hold {path}\n{text}\nthey hold {:#?}\nthe cluster\n{}",
                    texts(),
                    cluster_text(&self.nodes[0])
                )
            },
            || {
                crate::testing::deliver(&self.nodes);
                self.benches[which.clone()].iter().all(|bench| bench.read_at(path) == text)
            },
        )
        .await;
    }

    /// A checkout's node hears nothing and answers nothing, or does again.
    fn cut_off(&self, checkout: usize, is_cut_off: bool) {
        self.nodes[checkout].lag(is_cut_off);
        self.nodes[checkout].set_unavailable(is_cut_off);
    }

    fn revision(&self) -> Revision {
        self.nodes[0].ledger().revision()
    }

    /// Goes back, and gives the revision that undoes it.
    fn roll_back(&self, to: Revision) -> Revision {
        let before = self.revision();
        let outcome = self.nodes[0].act(Body::Rollback { scope: Scope::All, to, expected: None });
        assert!(matches!(&outcome, Outcome::Accepted { created, .. } if created.len() == 1), "{outcome:?}");
        before
    }

    /// Nobody has anything left to say.
    async fn nothing_follows(&self) {
        let accepted = self.nodes[0].ledger().accepted();
        for running in &self.running {
            running.looked_at().await;
        }
        assert_eq!(self.nodes[0].ledger().accepted(), accepted, "a text that went back is taken for an edit");
    }

    async fn stop(self) {
        for running in self.running {
            running.stop().await;
        }
    }
}

/// The main job: edits, a point, edits, one of them unsynced while the cluster goes back; then forward again.
#[test]
fn files_go_back_with_what_was_not_synced_on_top_and_forward_again() {
    run(async {
        let team = Team::new(3).await;
        team.benches[0].write_at(OTHER, THREE);
        team.all_hold(OTHER, THREE).await;
        let point = team.revision();

        team.benches[1].write(TWO.replace("- [ ] 1.1 write the log\n", ""));
        team.all_hold(PATH, "## Plan\n\n- [ ] 1.2 read it back\n").await;
        team.benches[2].write(LATER);
        team.all_hold(PATH, LATER).await;
        std::fs::remove_file(team.benches[0].root().join(OTHER)).unwrap();
        team.benches[1].write_at(NEWER, THREE_TICKED);
        team.all_hold(OTHER, "").await;
        team.all_hold(NEWER, THREE_TICKED).await;

        team.cut_off(2, true);
        let unsynced = format!("{LATER}- [ ] 1.9 not synced yet\n");
        team.benches[2].write(&unsynced);
        until(|| "the third has tried".to_owned(), || team.nodes[2].refused() > 0).await;
        let forward = team.roll_back(point);
        for (path, text) in [(PATH, TWO), (OTHER, THREE), (NEWER, "")] {
            team.these_hold(0..2, path, text).await;
        }
        assert_eq!((team.benches[2].read(), team.benches[2].read_at(OTHER)), (unsynced, String::new()));
        team.cut_off(2, false);
        let merged = format!("{TWO}- [ ] 1.9 not synced yet\n");
        for (path, text) in [(PATH, merged.as_str()), (OTHER, THREE), (NEWER, "")] {
            team.all_hold(path, text).await;
        }
        assert_eq!(cluster_text(&team.nodes[0]), merged);
        team.nothing_follows().await;

        team.roll_back(forward);
        for (path, text) in [(PATH, LATER), (OTHER, ""), (NEWER, THREE_TICKED)] {
            team.all_hold(path, text).await;
        }
        team.nothing_follows().await;
        // The ids that came back are ids that edits can name.
        team.benches[0].write(LATER.replace("tell somebody", "tell everybody"));
        team.all_hold(PATH, &LATER.replace("tell somebody", "tell everybody")).await;
        team.stop().await;
    });
}

/// A tool read the file before the cluster went back, and saves its buffer over what we wrote: that is its edit and no more.
#[test]
fn a_buffer_from_before_the_rollback_brings_nothing_back() {
    run(async {
        let team = Team::new(2).await;
        let point = team.revision();
        team.benches[0].write(LATER);
        team.all_hold(PATH, LATER).await;
        team.roll_back(point);
        team.all_hold(PATH, TWO).await;
        for running in &team.running {
            running.synced().await;
        }
        team.benches[1].write(format!("{LATER}- [ ] 1.9 from an old buffer\n"));
        team.all_hold(PATH, &format!("{TWO}- [ ] 1.9 from an old buffer\n")).await;
        team.nothing_follows().await;
        team.stop().await;
    });
}

/// Somebody works on a line that the rollback takes away: work beats deletion, and the line is in a conflict.
#[test]
fn work_on_a_line_that_goes_is_kept() {
    run(async {
        let team = Team::new(2).await;
        let point = team.revision();
        let newer = format!("{TWO}- [ ] 1.3 cut the power of every node at once\n");
        team.benches[0].write(&newer);
        team.all_hold(PATH, &newer).await;
        team.cut_off(1, true);
        let worked = newer.replace("at once", "at once twice");
        team.benches[1].write(&worked);
        until(|| "the second has tried".to_owned(), || team.nodes[1].refused() > 0).await;
        team.roll_back(point);
        team.these_hold(0..1, PATH, TWO).await;
        team.cut_off(1, false);
        team.all_hold(PATH, &worked).await;
        assert_eq!(team.nodes[0].ledger().conflicts().len(), 1);
        team.stop().await;
    });
}

/// A checkout that didn't run while the cluster went back finds out at its start, with and without an edit of its own.
#[test]
fn a_checkout_that_was_stopped_follows_at_its_start() {
    run(async {
        for is_edited in [false, true] {
            let mut team = Team::new(2).await;
            let point = team.revision();
            team.benches[0].write(LATER);
            team.all_hold(PATH, LATER).await;
            let second = team.running.pop().unwrap();
            second.synced().await;
            second.stop().await;
            team.roll_back(point);
            team.these_hold(0..1, PATH, TWO).await;
            let added = if is_edited { "- [ ] 1.9 offline\n" } else { "" };
            team.benches[1].write(format!("{LATER}{added}"));
            team.running.push(team.benches[1].start());
            team.all_hold(PATH, &format!("{TWO}{added}")).await;
            team.nothing_follows().await;
            team.stop().await;
        }
    });
}

/// The writer has gone back by hand to the very text that the rollback makes, or to the one that it takes away.
#[test]
fn a_text_that_is_there_already_is_nobodys_edit() {
    run(async {
        let team = Team::new(2).await;
        let point = team.revision();
        team.benches[0].write(LATER);
        team.all_hold(PATH, LATER).await;
        team.cut_off(1, true);
        team.benches[1].write(TWO);
        until(|| "the second has tried".to_owned(), || team.nodes[1].refused() > 0).await;
        team.roll_back(point);
        team.cut_off(1, false);
        team.all_hold(PATH, TWO).await;
        team.nothing_follows().await;
        assert_eq!(team.nodes[0].ledger().conflicts(), []);
        // Afterwards the old text, saved as it was, is somebody's wish.
        team.benches[0].write(LATER);
        team.all_hold(PATH, LATER).await;
        team.stop().await;
    });
}

/// A file was deleted, is made anew, and its change comes back before the checkout hears that the new one was accepted.
#[test]
fn a_file_made_anew_while_its_change_comes_back_is_there() {
    run(async {
        let team = Team::new(2).await;
        let point = team.revision();
        std::fs::remove_file(team.benches[0].file()).unwrap();
        team.all_hold(PATH, "").await;
        team.running[1].looked_at().await;

        team.nodes[1].lose_answers(true);
        team.benches[1].write("- [ ] 9.1 made anew\n");
        until(|| "it is made anew".to_owned(), || change_at(&team.nodes[0], PATH).is_some()).await;
        team.roll_back(point);
        crate::testing::deliver(&team.nodes);
        team.running[1].looked_at().await;
        team.nodes[1].lose_answers(false);
        team.all_hold(PATH, TWO).await;
        team.nothing_follows().await;
        team.stop().await;
    });
}

/// A file was deleted and made anew, and the list of what there is, as old as its node's state, still says that it is gone.
#[test]
fn a_file_made_anew_stays_while_its_node_lags() {
    run(async {
        let team = Team::new(2).await;
        // By the second, which has a session from then on.
        std::fs::remove_file(team.benches[1].file()).unwrap();
        team.all_hold(PATH, "").await;
        team.running[1].looked_at().await;

        team.nodes[1].lag(true);
        team.benches[1].write("- [ ] 9.1 made anew\n");
        team.these_hold(0..1, PATH, "- [ ] 9.1 made anew\n").await;
        for _ in 0..3 {
            team.running[1].looked_at().await;
            assert_eq!(team.benches[1].read(), "- [ ] 9.1 made anew\n");
        }
        team.nodes[1].lag(false);
        team.all_hold(PATH, "- [ ] 9.1 made anew\n").await;
        team.nothing_follows().await;
        team.stop().await;
    });
}
