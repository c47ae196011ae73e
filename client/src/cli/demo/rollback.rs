//! The step that puts every checkout back to a point, with an edit that the cluster doesn't know yet, and forward again.

use anyhow::{Context as _, ensure};

use super::WITHIN;
use super::frame::{Step, agree_on};
use super::script::Demo;

impl Demo {
    /// A point, an edit too many, one that isn't synced yet: back to the point with that one on top, then to what was before.
    pub(super) async fn roll_back(&self) -> Step {
        self.wait_until_quiet().await?;
        self.command.must(&["point", "create", "demo-good"]).await?;
        let good = self.files[0].text()?;
        self.files[0].append("- [ ] 9.1 a thought too many")?;
        agree_on(&self.files, WITHIN, |text| text.contains("a thought too many")).await?;
        let mess = self.files[1].text()?;

        let away = self.checkouts[1].display().to_string();
        self.command.must(&["checkout", "pause", &away]).await?;
        let unsynced = "- [ ] 9.2 not synced yet";
        self.files[1].append(unsynced)?;
        let preview = self.command.must(&["rollback", "demo-good", "--dry-run"]).await?;
        ensure!(preview.to_string().contains("a thought too many"), "the preview doesn't name the task: {preview}");
        let said = self.command.must(&["rollback", "demo-good"]).await?;
        let undo = said["undo_point"].as_str().with_context(|| format!("no point was made: {said}"))?;
        self.command.must(&["checkout", "resume", &away]).await?;
        let merged = format!("{good}{unsynced}\n");
        agree_on(&self.files, WITHIN, |text| text == merged).await?;

        self.command.must(&["rollback", undo]).await?;
        agree_on(&self.files, WITHIN, |text| text == mess).await?;
        Ok(format!(
            "all {} checkouts went back to revision {}, with an unsynced edit on top, and forward again to {undo}",
            self.files.len(),
            said["to"]
        ))
    }
}
