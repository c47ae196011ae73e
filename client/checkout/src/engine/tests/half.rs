//! Half a file: whoever has it open for writing is waited for, as the rest of the text isn't deleted but on its way.

use std::fs::{File, OpenOptions};
use std::sync::Mutex;

use super::*;

/// A text long enough that half of it is a deletion.
fn whole() -> String {
    let lines: String = (0..40).map(|number| format!("- [ ] {number} write line {number} of the plan\n")).collect();
    format!("## Plan\n\n{lines}")
}

/// What the writer is about to save.
fn saved() -> String {
    whole().replace("- [ ] 3 ", "- [x] 3 ")
}

/// Half of it, which ends within a word.
fn half() -> String {
    let saved = saved();
    saved[..saved.len() / 2].to_owned()
}

/// Empties the file and writes half of what is to be saved. The file stays open.
fn begin(file: &Path) -> File {
    let mut file = OpenOptions::new().write(true).truncate(true).open(file).unwrap();
    file.write_all(half().as_bytes()).unwrap();
    file
}

fn finish(mut file: File) {
    file.write_all(&saved().as_bytes()[half().len()..]).unwrap();
}

impl Bench {
    /// A writer begins right before our first swap, so that our write replaces the file under it. What it holds open.
    fn begins_under_our_write(&mut self) -> Arc<Mutex<Option<File>>> {
        let (open, path) = (Arc::new(Mutex::new(None)), self.file());
        let slot = open.clone();
        self.seams.before_swap = Some(Arc::new(move |_| {
            slot.lock().unwrap().get_or_insert_with(|| begin(&path));
        }));
        open
    }

    /// A bench whose file and cluster agree on [`whole`], running.
    async fn begun(&self, node: &Arc<Node>) -> Running {
        self.write(whole());
        let running = self.start();
        cluster_holds(node, &whole()).await;
        running.synced().await;
        running
    }
}

/// For longer than any time after which an emptied file is believed, however often it is looked at, the cluster holds `text`.
async fn stays(node: &Node, running: &Running, timing: &Timing, text: &str) {
    let start = StdInstant::now();
    while start.elapsed() < timing.emptied_hold * 3 {
        running.looked_at().await;
        assert_eq!(cluster_text(node), text);
    }
}

#[test]
fn half_a_file_is_not_believed_while_its_writer_has_it_open() {
    run(async {
        for is_deaf in [false, true] {
            let node = one();
            let mut bench = Bench::new(&node);
            bench.seams.is_deaf = is_deaf;
            let running = bench.begun(&node).await;
            let proposals = node.proposals();
            let file = begin(&bench.file());
            running.says(PATH, "open for writing").await;
            stays(&node, &running, &bench.timing, &whole()).await;
            finish(file);
            cluster_holds(&node, &saved()).await;
            assert_eq!(node.proposals(), proposals + 1);
            running.stop().await;
        }
    });
}

#[test]
fn half_a_file_under_our_write_is_not_believed_while_its_writer_has_it_open() {
    run(async {
        let node = one();
        let mut bench = Bench::new(&node);
        let open = bench.begins_under_our_write();
        let running = bench.begun(&node).await;
        let theirs = format!("{}- [ ] 40 theirs\n", whole());
        set(&node, &theirs);
        bench.holds(&theirs).await;
        stays(&node, &running, &bench.timing, &theirs).await;
        finish(open.lock().unwrap().take().unwrap());
        let both = format!("{}- [ ] 40 theirs\n", saved());
        cluster_holds(&node, &both).await;
        bench.holds(&both).await;
        assert!(node.ledger().conflicts().is_empty(), "{:#?}", node.ledger().conflicts());
        running.stop().await;
    });
}

/// A writer that never closes the file and writes nothing any more has meant what it wrote.
#[test]
fn an_open_file_is_believed_once_nobody_writes_to_it_for_long() {
    run(async {
        let node = one();
        let mut bench = Bench::new(&node);
        bench.timing.writer_hold = Duration::from_millis(300);
        let running = bench.begun(&node).await;
        let file = begin(&bench.file());
        until(|| cluster_text(&node), || !cluster_text(&node).contains("line 39")).await;
        drop(file);
        running.stop().await;
    });
}

/// Where the writer can't be seen, half of a file that was replaced is believed. The other half brings back what that deleted.
#[test]
fn the_rest_of_a_replaced_file_brings_back_what_half_of_it_had_deleted() {
    run(async {
        let node = one();
        let mut bench = Bench::new(&node);
        let open = bench.begins_under_our_write();
        bench.seams.is_blind = true;
        let running = bench.begun(&node).await;
        set(&node, &format!("{}- [ ] 40 theirs\n", whole()));
        until(|| cluster_text(&node), || !cluster_text(&node).contains("line 39")).await;
        assert!(cluster_text(&node).contains("40 theirs"));
        running.synced().await;
        finish(open.lock().unwrap().take().unwrap());
        until(|| cluster_text(&node), || cluster_text(&node).contains("line 39")).await;
        running.synced().await;
        let (mut lines, mut all): (Vec<_>, Vec<_>) =
            (cluster_text(&node).lines().map(str::to_owned).collect(), Vec::new());
        all.extend(format!("{}- [ ] 40 theirs\n", saved()).lines().map(str::to_owned));
        lines.sort();
        all.sort();
        assert_eq!(lines, all);
        running.stop().await;
    });
}
