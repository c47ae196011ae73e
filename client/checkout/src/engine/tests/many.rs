//! Several checkouts of one project: pulls of one commit, habits of writing, bindings that get in each other's way.

use super::*;
use crate::testing::deliver;

const CHECKOUTS: usize = 20;

/// A bare repository with one commit of [`TWO`], and checkouts of it that agree on that with the cluster, running.
struct Team {
    origin: TempDir,
    nodes: Vec<Arc<Node>>,
    benches: Vec<Bench>,
    running: Vec<Running>,
}

impl Team {
    async fn new(checkouts: usize, policy: WritePolicy) -> Self {
        let nodes = cluster(checkouts);
        make_project(&nodes[0]);
        deliver(&nodes);
        let origin = TempDir::new().unwrap();
        git_in(origin.path(), &["init", "-q", "--bare"]).unwrap();
        let mut benches: Vec<Bench> = nodes.iter().map(Bench::new).collect();
        let url = origin.path().to_str().unwrap().to_owned();
        for (number, bench) in benches.iter_mut().enumerate() {
            bench.policy = policy;
            if number == 0 {
                bench.write(TWO);
                bench.init();
                bench.git(&["remote", "add", "origin", &url]);
                bench.git(&["push", "-q", "-u", "origin", "main"]);
            } else {
                bench.git(&["clone", "-q", &url, "."]);
            }
        }
        let running = benches.iter().map(Bench::start).collect();
        let team = Self { origin, nodes, benches, running };
        team.all("all agree", |team, at| team.running[at].state_of(PATH) == Some(FileState::Synced)).await;
        team
    }

    /// Lets every node see everything until this holds for each checkout.
    async fn all(&self, what: &str, holds: impl Fn(&Self, usize) -> bool) {
        let states = || self.running.iter().map(|running| running.state_of(PATH)).collect::<Vec<_>>();
        until(
            || format!("{what}: {:?}\n{}", states(), cluster_text(&self.nodes[0])),
            || {
                deliver(&self.nodes);
                (0..self.benches.len()).all(|at| holds(self, at))
            },
        )
        .await;
    }

    /// A commit that ZyFlow has never seen, made in a clone of its own.
    fn push(&self, text: &str) {
        let clone = TempDir::new().unwrap();
        git_in(clone.path(), &["clone", "-q", self.origin.path().to_str().unwrap(), "."]).unwrap();
        fs::write(clone.path().join(PATH), text).unwrap();
        git_in(clone.path(), &["commit", "-qam", "elsewhere"]).unwrap();
        git_in(clone.path(), &["push", "-q"]).unwrap();
    }

    fn proposals(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.proposals()).collect()
    }

    /// Has each checkout propose something of its own, so that none must open a session first.
    async fn open_sessions(&self) {
        let own = |at: usize| format!("openspec/changes/own-{at}/tasks.md");
        for (at, bench) in self.benches.iter().enumerate() {
            bench.write_at(&own(at), TWO);
        }
        self.all("each has a session", |team, at| team.running[at].state_of(&own(at)) == Some(FileState::Synced)).await;
    }

    async fn each_has_proposed(&self, before: &[usize]) {
        until(
            || format!("each has proposed: {before:?} {:?}\n{:#?}", self.proposals(), self.running[1].handle.status()),
            || self.proposals().iter().zip(before).all(|(now, before)| now > before),
        )
        .await;
    }

    /// Nobody hears of the others' proposals before each has made its own: the worst case.
    async fn pull_at_once(&self) {
        let before: Vec<usize> = self.proposals();
        self.nodes.iter().for_each(|node| node.lag(true));
        self.pull_everywhere();
        self.each_has_proposed(&before).await;
        self.nodes.iter().for_each(|node| node.lag(false));
    }

    fn pull_everywhere(&self) {
        std::thread::scope(|scope| {
            for bench in &self.benches {
                scope.spawn(move || bench.git(&["pull", "-q", "--ff-only"]));
            }
        });
    }

    async fn stop(self) {
        for running in self.running {
            running.stop().await;
        }
    }
}

#[test]
fn twenty_pulls_of_one_commit_are_one_command() {
    run(async {
        let team = Team::new(CHECKOUTS, WritePolicy::Clean).await;
        team.open_sessions().await;
        let accepted = team.nodes[0].ledger().accepted();
        team.push(THREE);
        team.pull_at_once().await;
        team.all("all agree", |team, at| team.running[at].state_of(PATH) == Some(FileState::Synced)).await;
        for bench in &team.benches {
            assert_eq!(bench.read(), THREE);
        }
        assert_eq!(cluster_text(&team.nodes[0]), THREE);
        assert_eq!(team.nodes[0].ledger().accepted(), accepted + 1);
        team.stop().await;
    });
}

/// The cluster has moved on since the text that the commit was made from: that text is the base, and nothing is undone.
#[test]
fn a_pulled_commit_is_merged_from_the_text_it_was_made_from() {
    run(async {
        let team = Team::new(CHECKOUTS, WritePolicy::Off).await;
        set(&team.nodes[0], TWO_TICKED);
        let waits = |team: &Team, at: usize| matches!(team.running[at].state_of(PATH), Some(FileState::Unsynced(_)));
        team.all("all see that", waits).await;
        team.open_sessions().await;
        let accepted = team.nodes[0].ledger().accepted();
        team.push(THREE);
        team.pull_at_once().await;
        deliver(&team.nodes);
        team.all("all have merged", |team, at| waits(team, at) && cluster_text(&team.nodes[at]) == THREE_TICKED).await;
        assert_eq!(team.nodes[0].ledger().accepted(), accepted + 1);
        assert_eq!(team.nodes[0].ledger().conflicts(), []);
        // An edit on top of what was pulled is that edit and no more.
        team.benches[7].write(THREE.replace("read it", "read all of it"));
        let both = THREE_TICKED.replace("read it", "read all of it");
        team.all("the edit is merged", |team, _| cluster_text(&team.nodes[0]) == both).await;
        assert_eq!(team.nodes[0].ledger().accepted(), accepted + 2);
        team.stop().await;
    });
}

/// The cluster had the commit's text once, so it isn't proposed, and the newest, in which its line is deleted again, goes over it; so also
/// over a restart, when nobody saw the pull.
#[test]
fn a_pulled_commit_that_the_cluster_knows_is_nothing_new() {
    run(async {
        for is_running in [true, false] {
            let mut team = Team::new(2, WritePolicy::Clean).await;
            let second = team.running.remove(1);
            second.handle.pause();
            second.paused("by request").await;
            team.benches[0].write(THREE);
            team.all("the first has proposed", |team, _| cluster_text(&team.nodes[0]) == THREE).await;
            team.benches[0].commit("two");
            team.benches[0].git(&["push", "-q"]);
            set(&team.nodes[0], TWO_TICKED);
            deliver(&team.nodes);
            let second = if is_running {
                team.benches[1].git(&["pull", "-q"]);
                second.handle.resume();
                second
            } else {
                second.stop().await;
                team.benches[1].git(&["pull", "-q"]);
                team.benches[1].start()
            };
            assert_eq!(team.benches[1].read(), THREE);
            let proposals = team.nodes[1].proposals();
            team.benches[1].holds(TWO_TICKED).await;
            second.synced().await;
            assert_eq!((cluster_text(&team.nodes[1]).as_str(), team.nodes[1].proposals()), (TWO_TICKED, proposals));
            second.stop().await;
            team.stop().await;
        }
    });
}

/// Four people pull a commit with a new file and a deletion.
#[test]
fn a_pulled_file_is_made_once_and_a_pulled_deletion_spreads() {
    run(async {
        let team = Team::new(4, WritePolicy::Clean).await;
        let other = "openspec/changes/add-y/tasks.md";
        team.benches[0].git(&["rm", "-q", PATH]);
        team.benches[0].write_at(other, THREE);
        team.benches[0].commit("another change");
        team.benches[0].git(&["push", "-q"]);
        for bench in &team.benches[1..] {
            bench.git(&["pull", "-q"]);
        }
        team.all("the new one is everywhere", |team, at| {
            team.running[at].state_of(other) == Some(FileState::Synced) && team.running[at].state_of(PATH).is_none()
        })
        .await;
        assert!(change_at(&team.nodes[0], PATH).is_none());
        assert_eq!(cluster_text_at(&team.nodes[0], other), THREE);
        team.stop().await;
    });
}

type Habit = fn(&str) -> String;

/// Three checkouts on one machine and one node, each with its own line ends, byte order mark and last line.
#[test]
fn habits_of_writing_live_side_by_side() {
    run(async {
        let node = one();
        let habits: [Habit; 3] = [
            str::to_owned,
            |text| text.replace('\n', "\r\n"),
            |text| format!("\u{feff}{}", text.trim_end_matches('\n').replace('\n', "\r\n")),
        ];
        let benches: Vec<Bench> = habits.iter().map(|_| Bench::new(&node)).collect();
        for (bench, habit) in benches.iter().zip(&habits) {
            bench.write(habit(TWO));
        }
        let mut running = Vec::new();
        for bench in &benches {
            running.push(bench.start());
            running.last().unwrap().synced().await;
        }
        for (writer, text) in [(0, TWO_TICKED), (1, THREE_TICKED), (2, THREE), (1, TWO)] {
            benches[writer].write(habits[writer](text));
            cluster_holds(&node, text).await;
            for (bench, habit) in benches.iter().zip(&habits) {
                bench.holds(&habit(text)).await;
            }
        }
        let proposals = node.proposals();
        for running in &running {
            running.looked_at().await;
        }
        assert_eq!(node.proposals(), proposals, "nobody takes another's habit for an edit");
        for running in running {
            running.stop().await;
        }
    });
}

#[test]
fn a_binding_inside_another_is_refused_also_over_links() {
    run(async {
        let node = one();
        let (bench, running) = agreed(&node).await;
        let link = bench.dir.path().join("link");
        std::os::unix::fs::symlink(bench.root(), &link).unwrap();
        let refused = async |root: PathBuf, part: &str| {
            let other = Bench::new(&node);
            let ended = tokio::time::timeout(DEADLINE, other.start_at(root).task).await;
            let error = ended.expect("it ends at once").unwrap().unwrap_err();
            assert!(matches!(error, Error::Bound { .. }) && error.to_string().contains(part), "{error}");
        };
        let real = bench.root().canonicalize().unwrap().display().to_string();
        refused(bench.root(), "bound already").await;
        refused(link.clone(), "bound already").await;
        refused(bench.root().join("openspec"), &real).await;
        refused(link.join("openspec/changes"), &real).await;
        refused(bench.dir.path().to_owned(), "a folder inside it").await;
        assert_eq!(bench.read(), TWO);
        running.stop().await;
        let running = bench.start_at(link);
        running.synced().await;
        running.stop().await;
    });
}
