//! Steps about files: edits in every checkout, by command, one after the other and ten at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use zyflow_machine::record::Status;

use super::account::{Account, Ledger};
use super::command::{self, Commanded};
use super::editors::{self, Journal, journal_path};
use super::file::everywhere;
use super::frame::{Step, agree_on, all_hold, millis};
use super::habits::Habit;
use super::latency;
use super::script::{Demo, linearizable};
use super::{CHANGE, EDIT_P99_MAX, MEASURED, WITHIN};
use crate::read::Task;

impl Demo {
    pub(super) async fn bind(&self) -> Step {
        agree_on(&self.files, WITHIN, |text| text.contains("- [")).await?;
        agree_on(&self.measured, WITHIN, |text| text.contains("- [")).await?;
        let lines = self.files[0].text()?.lines().count();
        Ok(format!("{CHANGE} ({lines} lines) and {MEASURED} went from checkout 1 to all {}", self.checkouts.len()))
    }

    /// The last checkout has CR LF from now on, as one on Windows may. The others must not notice.
    pub(super) async fn use_crlf(&mut self) -> Step {
        let text = self.files[0].text()?;
        for files in [&mut self.files, &mut self.measured] {
            let last = files.last_mut().context("no checkouts")?;
            *last = last.to_crlf()?;
        }
        self.wait_until_quiet().await?;
        ensure!(all_hold(&self.files, &text)?, "the text changed");
        Ok(format!("checkout {} has CR LF from now on, the others LF", self.checkouts.len()))
    }

    pub(super) async fn edit_in(&self, number: usize) -> Step {
        let file = &self.files[number - 1];
        let before = file.text()?;
        let open = before.find("- [ ]").context("no open task is left to check")?;
        let mut edited = before.clone();
        edited.replace_range(open..open + "- [ ]".len(), "- [x]");
        file.replace(&edited)?;
        let took = agree_on(&self.files, WITHIN, |text| text == edited).await?;
        Ok(format!("a box checked there is checked in all, {:.1} ms after the save", millis(took)))
    }

    pub(super) async fn set_by_command(&self) -> Step {
        let is_open = |task: &&Task| task.block.record.mark.value == " ";
        let tasks = self.tasks().await?;
        let task = tasks.iter().find(is_open).context("no open task is left")?;
        let line = |mark: &str| format!("{}{mark}{}", task.block.record.lead, task.block.record.text.value);
        let (open, done) = (line(" "), line("x"));
        ensure!(self.files[0].text()?.contains(&open), "the file doesn't show the open task {open:?}");
        let id = task.block.id.to_string();
        let said = self.command.must(&["task", "set", &id, "--status", "done"]).await?;
        let revision = said["revision"].as_u64().context("the command doesn't say its revision")?;
        let took = agree_on(&self.files, WITHIN, |text| text.contains(&done)).await?;
        Ok(format!(
            "task {id} done at revision {revision}; all files showed it {:.1} ms after the command",
            millis(took)
        ))
    }

    pub(super) async fn new_file(&self) -> Step {
        const PATH: &str = "specs/001-import/tasks.md";
        let files = everywhere(&self.checkouts, PATH);
        let file = files.last().context("no checkouts")?;
        std::fs::create_dir_all(file.path().parent().context("a path without a folder")?)?;
        let wanted = "# Tasks: import\n\n## Phase 1: Setup\n\n- [ ] T001 [P] Write the reader in src/read.rs\n- [ ] T002 Map the columns\n";
        file.replace(wanted)?;
        agree_on(&files, WITHIN, |text| text == wanted).await?;
        Ok(format!("{PATH}, made in checkout {}, is in all", files.len()))
    }

    pub(super) async fn measure(&self, edits: u32) -> Step {
        let latency = latency::measure(&self.measured, edits).await?;
        let detail = format!(
            "from a save to the bytes in all {} others: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.checkouts.len() - 1,
            millis(latency.p50),
            millis(latency.p99),
            millis(latency.max)
        );
        ensure!(latency.p99 <= EDIT_P99_MAX, "{detail}");
        Ok(detail)
    }

    /// Nine editors with habits of their own and one who works by command, all on one file; then every token is looked up.
    pub(super) async fn edit_at_once(&mut self, span: Duration) -> Step {
        let path = journal_path(self.cluster.layout().dir());
        let journal = Arc::new(Journal::new(&path)?);
        let (written, commanded) = tokio::join!(
            editors::run(&self.files, span, &journal),
            command::work(&self.command, CHANGE, span, &journal)
        );
        let (written, commanded) = (written?, commanded?);
        let mut ledger = Ledger::default();
        let stale: u32 = written.iter().map(|editor| editor.stale_saves).sum();
        for mut editor in written {
            ledger.written.append(&mut editor.ledger.written);
            ledger.deleted.append(&mut editor.ledger.deleted);
        }
        ledger.written.extend(commanded.added.iter().cloned());
        let since = Instant::now();
        self.wait_until_quiet().await?;
        let quiet = since.elapsed().as_secs_f64();
        let shown = self.files[0].text()?;
        ensure!(self.cluster_text().await? == shown, "the checkouts agree on a text that isn't the cluster's");
        let account = ledger.account(&shown, &self.conflicting_texts().await?);
        let saves = ledger.written.len();
        let journal = path.display();
        ensure!(
            account.lost.is_empty(),
            "{} of {saves} tokens are in no checkout, in no conflict, and nobody deleted them: {:?}; who wrote them: {journal}",
            account.lost.len(),
            account.lost
        );
        ensure!(account.twice.is_empty(), "tokens that are there twice: {:?}; see {journal}", account.twice);
        self.check_notes(&commanded, &account).await?;
        let Account { shown, in_conflict, deleted, back, doubtful, .. } = account;
        let detail = format!(
            "{} s, {saves} edits ({stale} saved from old buffers) in {} checkouts, quiet after {quiet:.1} s: {} tokens in all checkouts and the cluster \
             ({} twice, as a conflict says), {} in recorded conflicts, {} on lines deleted by one who saw them ({} more came back by an edit made meanwhile), {} notes set by command, 0 lost",
            span.as_secs(),
            self.checkouts.len(),
            shown.len(),
            doubtful.len(),
            in_conflict.len(),
            deleted.len(),
            back.len(),
            commanded.notes.len()
        );
        self.shown = shown;
        Ok(format!("{} editors, {detail}", Habit::ALL.len() + 1))
    }

    /// The text of [`CHANGE`] as the cluster has it.
    async fn cluster_text(&self) -> anyhow::Result<String> {
        let client = self.cluster.client();
        let change = self.tasks().await?.first().context("the change has no tasks")?.block.record.change;
        let document = client.document(linearizable(), change).await?.value;
        let line =
            |block: &zyflow_machine::record::Block| format!("{}{}{}", block.lead, block.mark.value, block.text.value);
        Ok(document.blocks.iter().map(|row| line(&row.record)).collect())
    }

    async fn conflicting_texts(&self) -> anyhow::Result<Vec<String>> {
        let conflicts = self.cluster.client().conflicts(linearizable(), None, None, true).await?.value;
        let values = conflicts
            .into_iter()
            .flat_map(|found| [found.row.record.base, found.row.record.spec, found.row.record.runtime]);
        Ok(values.flatten().collect())
    }

    /// What the file doesn't show is as it was set, whatever was saved around it: note and progress of every task that is there.
    async fn check_notes(&self, commanded: &Commanded, account: &Account) -> anyhow::Result<()> {
        let tasks = self.tasks().await?;
        for (id, noted) in commanded.notes.iter().filter(|(_, noted)| account.shown.contains(&noted.task)) {
            let task = tasks.iter().find(|task| task.block.id.to_string() == *id);
            let fields = task.and_then(|task| task.block.record.task.as_ref());
            let fields = fields.with_context(|| format!("task {id} with {} is shown under another id", noted.task))?;
            ensure!(fields.note.value == noted.note, "the note {} of task {id} is lost", noted.note);
            let is_under_way = matches!(fields.status.value, Status::InProgress | Status::Done);
            ensure!(is_under_way, "task {id} was set to in progress and is {:?}", fields.status.value);
        }
        Ok(())
    }
}
