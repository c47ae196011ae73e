//! Steps about what people and agents decide: who takes a task, and which of two values stands.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::CHANGE;
use super::WITHIN;
use super::frame::{Step, agree_on};
use super::script::Demo;

/// The exit code of a conflict.
const CONFLICT: i32 = 4;

impl Demo {
    /// Two agents ask for work at once; each gets a task of its own, and a taken one is refused.
    pub(super) async fn claim(&self) -> Step {
        let next = ["task", "next", "--change", CHANGE, "--claim", "--lease", "10m", "--as"];
        let [one, two] = ["agent-1", "agent-2"].map(|agent| [&next[..], &[agent]].concat());
        let (first, second) = tokio::join!(self.command.must(&one), self.command.must(&two));
        let (first, second) = (id(&first?)?, id(&second?)?);
        ensure!(first != second, "both agents have task {first}");
        let refused = self.command.run(&["task", "claim", &first, "--as", "agent-2"]).await?;
        ensure!(refused.code == CONFLICT, "agent-2 could take what agent-1 has: {}", refused.value);
        self.command.must(&["task", "comment", &first, "--", "taken for the demo"]).await?;
        let found = self.command.must(&["task", "search", "taken for the demo"]).await?;
        let is_found = rows(&found).any(|row| row["id"] == first.as_str());
        ensure!(is_found, "a search doesn't find the comment: {found}");
        self.command.must(&["task", "release", &first, "--as", "agent-1"]).await?;
        self.command.must(&["task", "release", &second, "--as", "agent-2"]).await?;
        Ok(format!(
            "two agents at once got tasks {first} and {second}; the second claim of one was refused with exit {CONFLICT}"
        ))
    }

    /// The same words changed in two checkouts that can't see each other: one value stands, the other is taken by command.
    pub(super) async fn disagree(&self) -> Step {
        let paths: Vec<String> = self.checkouts.iter().take(2).map(|path| path.display().to_string()).collect();
        for path in &paths {
            self.command.must(&["checkout", "pause", path]).await?;
        }
        let before = self.files[0].text()?;
        let line = before.lines().find(|line| line.contains("- [")).context("no task is left")?;
        let with = |words: &str| before.replacen(line, &format!("{line} {words}"), 1);
        self.files[0].replace(&with("by hand at the first desk"))?;
        self.files[1].replace(&with("by hand at the second desk"))?;
        for path in &paths {
            self.command.must(&["checkout", "resume", path]).await?;
        }
        let conflict = self.open_conflict().await?;
        self.wait_until_quiet().await?;
        let other = conflict["spec"].as_str().context("a conflict without the file's value")?.to_owned();
        ensure!(!self.files[0].text()?.contains(&other), "the value that lost stands");
        let id = id(&conflict)?;
        let resolved = self.command.must(&["conflict", "resolve", &id, "--take", "other"]).await?;
        agree_on(&self.files, WITHIN, |text| text.contains(&other)).await?;
        let point =
            rows(&resolved).next().and_then(|row| row["point"].as_str()).context("no rollback point was made")?;
        let points = self.command.must(&["point", "list"]).await?;
        ensure!(rows(&points).any(|row| row["name"] == point), "point {point} isn't listed: {points}");
        let left = self.command.must(&["conflict", "list", "--change", CHANGE]).await?;
        ensure!(!rows(&left).any(|row| row["id"] == id.as_str()), "conflict {id} is still open");
        Ok(format!(
            "conflict {id} was recorded; the other value was taken by command and is in all checkouts; point {point}"
        ))
    }

    async fn open_conflict(&self) -> anyhow::Result<Value> {
        let mut found = Value::Null;
        let since = std::time::Instant::now();
        while found.is_null() {
            let list = self.command.must(&["conflict", "list", "--change", CHANGE]).await?;
            let wanted =
                |row: &&Value| row["field"] == "text" && row["spec"].as_str().is_some_and(|text| text.contains("desk"));
            found = rows(&list).find(wanted).cloned().unwrap_or_default();
            ensure!(since.elapsed() < WITHIN, "no conflict was recorded: {list}");
        }
        Ok(found)
    }

    /// What texts say and what the runtime has, after all of this.
    pub(super) async fn validate(&self) -> Step {
        self.wait_until_quiet().await?;
        let planned = self.command.must(&["sync", CHANGE, "--direction", "both", "--dry-run"]).await?;
        self.command.must(&["sync", CHANGE, "--direction", "both"]).await?;
        self.wait_until_quiet().await?;
        let again = self.command.must(&["sync", CHANGE, "--direction", "both", "--dry-run"]).await?;
        ensure!(rows(&again).next().is_none(), "a second sync still has something to do: {again}");
        let report = self.command.run(&["validate"]).await?;
        ensure!(report.code == 0, "{}: {}", report.errors, report.value);
        Ok(format!(
            "{} fields were brought together, then texts, runtime state and checkouts agree",
            rows(&planned).count()
        ))
    }
}

fn id(value: &Value) -> anyhow::Result<String> {
    value["id"].as_str().map(str::to_owned).with_context(|| format!("no id in {value}"))
}

/// The rows of a list that a command printed.
fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().or_else(|| value["items"].as_array()).into_iter().flatten()
}
