//! Ten checkouts on three nodes, real processes: edits, a point in the middle, more edits, back to the point, forward again.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use zyflow_tests::{Harness, Said, text, until};

const CHECKOUTS: u64 = 10;
const FILES: [&str; 3] =
    ["openspec/changes/add-login/tasks.md", "openspec/changes/add-a/tasks.md", "openspec/changes/add-b/tasks.md"];
const NEWER: &str = "openspec/changes/add-c/tasks.md";

/// Edits of each checkout before the point, and again after it: 1,000 in all.
const ROUNDS: u64 = 50;

/// Edits of each checkout while a rollback is under way.
const RACING_ROUNDS: u64 = 10;

/// Every file of one checkout, by path; empty = it isn't there.
type Snapshot = Vec<(&'static str, String)>;

struct Team {
    harness: Harness,
}

impl Team {
    fn file(&self, checkout: u64, path: &str) -> PathBuf {
        self.harness.cluster.layout().checkout(checkout).join(path)
    }

    fn snapshot(&self, checkout: u64) -> Snapshot {
        let paths = FILES.into_iter().chain([NEWER]);
        paths.map(|path| (path, text(&self.file(checkout, path)))).collect()
    }

    async fn all_hold(&self, what: &str, wanted: &Snapshot, but: Option<u64>) -> anyhow::Result<()> {
        let others = || (1..=CHECKOUTS).filter(|checkout| Some(*checkout) != but);
        let done = until(what, || others().all(|checkout| self.snapshot(checkout) == *wanted)).await;
        let differing = || others().find(|checkout| self.snapshot(*checkout) != *wanted);
        done.with_context(|| match differing() {
            Some(checkout) => format!("checkout {checkout} has {:#?}, wanted {wanted:#?}", self.snapshot(checkout)),
            None => "just now".to_owned(),
        })
    }

    /// Until all checkouts have the same files, with `lines` lines that were written by `word`.
    async fn all_agree(&self, word: &str, lines: usize) -> anyhow::Result<Snapshot> {
        let count = |snapshot: &Snapshot| snapshot.iter().map(|(_, text)| text.matches(word).count()).sum::<usize>();
        let done = until(&format!("{lines} lines `{word}` everywhere"), || {
            let first = self.snapshot(1);
            count(&first) == lines && (2..=CHECKOUTS).all(|checkout| self.snapshot(checkout) == first)
        })
        .await;
        done.with_context(|| {
            let counts: Vec<_> = (1..=CHECKOUTS).map(|checkout| count(&self.snapshot(checkout))).collect();
            format!("lines in each checkout: {counts:?}, in the first {:#?}", self.snapshot(1))
        })?;
        Ok(self.snapshot(1))
    }

    fn zyflow(&self, args: &[&str], code: i32) -> anyhow::Result<Said> {
        let said = self.harness.zyflow(args)?;
        ensure!(said.code == code, "{args:?}: {said:#?}");
        Ok(said)
    }
}

/// As editors save: a new file in the place of the old one.
fn save(file: &Path, edit: impl FnOnce(String) -> String) -> anyhow::Result<()> {
    let folder = file.parent().context("a folder")?;
    std::fs::create_dir_all(folder)?;
    let new = folder.join(".saved");
    std::fs::write(&new, edit(text(file)))?;
    std::fs::rename(&new, file)?;
    Ok(())
}

/// The text of a member of a JSON object.
fn member<'a>(said: &'a Said, name: &str) -> Option<&'a str> {
    said.out.split(&format!("\"{name}\":\"")).nth(1)?.split('"').next()
}

#[tokio::test]
async fn ten_checkouts_go_back_to_a_point_and_forward_again() -> anyhow::Result<()> {
    let mut harness = Harness::start(3).await?;
    harness.cluster.ensure_checkouts(CHECKOUTS).await?;
    let team = Team { harness };
    until("the demo's file everywhere", || (1..=CHECKOUTS).all(|at| text(&team.file(at, FILES[0])).contains("- [")))
        .await?;
    for path in &FILES[1..] {
        save(&team.file(1, path), |_| "## Plan\n\n- [ ] 1.1 begin\n".to_owned())?;
    }
    team.all_agree("begin", 2).await?;

    edit_everywhere(&team, "first", &FILES, ROUNDS)?;
    let at_point = team.all_agree("first", usize::try_from(CHECKOUTS * ROUNDS)?).await?;
    team.zyflow(&["point", "create", "good", "--note", "before the mess"], 0)?;

    edit_everywhere(&team, "second", &FILES, ROUNDS)?;
    team.all_agree("second", usize::try_from(CHECKOUTS * ROUNDS)?).await?;
    save(&team.file(4, FILES[0]), |text| text.replace("- [ ] first", "- [x] first").replacen("second", "reworded", 3))?;
    save(&team.file(5, NEWER), |_| "- [ ] 1.1 a change too many\n".to_owned())?;
    std::fs::remove_file(team.file(6, FILES[2]))?;
    until("the mess everywhere", || {
        (1..=CHECKOUTS).all(|checkout| {
            let snapshot = team.snapshot(checkout);
            snapshot[0].1.matches("reworded").count() == 3 && snapshot[2].1.is_empty() && !snapshot[3].1.is_empty()
        })
    })
    .await?;
    let mess = team.snapshot(1);
    team.all_hold("the same mess everywhere", &mess, None).await?;

    refusals(&team)?;
    there_and_forth(&team, &at_point, &mess).await?;
    edits_race_the_command(&team).await?;
    team.zyflow(&["verify"], 0)?;
    team.harness.cluster.stop().await?;
    Ok(())
}

/// Each checkout saves a line in one file after the other, without waiting for the others.
fn edit_everywhere(team: &Team, word: &str, files: &[&str], rounds: u64) -> anyhow::Result<()> {
    for round in 0..rounds {
        for checkout in 1..=CHECKOUTS {
            let path = files[usize::try_from(checkout + round)? % files.len()];
            // Words that no two lines share: what a stale save carries is told apart by them.
            let line = format!("- [ ] {word}-{checkout}-{round}\n");
            save(&team.file(checkout, path), |text| text + &line)?;
        }
    }
    Ok(())
}

/// Whatever is saved while everything goes back, also into a file that was deleted and comes back, stands afterwards, or did when it went
/// back (then the point that was made has it), or is in a recorded conflict.
async fn edits_race_the_command(team: &Team) -> anyhow::Result<()> {
    let (said, edited) = std::thread::scope(|scope| {
        let rollback = scope.spawn(|| team.zyflow(&["-o", "json", "--yes", "rollback", "good"], 0));
        let edited = edit_everywhere(team, "racing", &FILES, RACING_ROUNDS);
        (rollback.join(), edited)
    });
    edited?;
    let said = said.map_err(|_| anyhow::anyhow!("the rollback panicked"))??;
    let undo = member(&said, "undo_point").with_context(|| format!("no undo point in {said:?}"))?;
    let points = team.zyflow(&["-o", "json", "point", "show", undo], 0)?;
    let at =
        points.out.split("\"at\":").nth(1).and_then(|rest| rest.split(&[',', '}'][..]).next()).context("a point")?;
    let mut then = team.zyflow(&["--at", at, "-o", "json", "conflict", "list", "--all"], 0)?.out;
    for path in FILES {
        let said = team.harness.zyflow(&["--at", at, "spec", "show", path])?;
        ensure!(said.code == 0 || said.err.contains("E-NOT-FOUND"), "{path} at {at}: {said:#?}");
        then += &said.out;
    }
    let agreed = until("one text everywhere, of every file", || {
        let first = team.snapshot(1);
        first[..FILES.len()].iter().all(|(_, text)| !text.is_empty())
            && (2..=CHECKOUTS).all(|checkout| team.snapshot(checkout) == first)
    })
    .await;
    agreed.with_context(|| {
        let all: Vec<Snapshot> = (1..=CHECKOUTS).map(|checkout| team.snapshot(checkout)).collect();
        format!("{all:#?}\n{:#?}", team.zyflow(&["checkout", "list"], 0))
    })?;
    until("every racing line somewhere", || lost(team, &then).is_ok_and(|lost| lost.is_empty()))
        .await
        .with_context(|| format!("neither here, nor there, nor in a conflict: {:?}", lost(team, &then)))
}

/// The racing lines that are neither in `then`, nor in the first checkout's files, nor in a conflict.
fn lost(team: &Team, then: &str) -> anyhow::Result<Vec<String>> {
    let conflicts = team.zyflow(&["-o", "json", "conflict", "list", "--all"], 0)?.out;
    let files: String = team.snapshot(1).into_iter().map(|(_, text)| text).collect();
    let words = (0..RACING_ROUNDS).flat_map(|round| (1..=CHECKOUTS).map(move |at| format!("racing-{at}-{round}")));
    // A whole word: `racing-1-1` is no part of what `racing-1-10` says.
    let holds = |text: &str, word: &str| {
        text.match_indices(word).any(|(at, _)| !text[at + word.len()..].starts_with(|next: char| next.is_ascii_digit()))
    };
    Ok(words.filter(|word| ![then, &conflicts, &files].iter().any(|text| holds(text, word))).collect())
}

fn refusals(team: &Team) -> anyhow::Result<()> {
    let dry = team.zyflow(&["-o", "json", "rollback", "good", "--dry-run"], 0)?;
    for word in ["made", "removed", "a change too many", "first-", "todo"] {
        ensure!(dry.out.contains(word), "`{word}` isn't in the preview: {dry:#?}");
    }
    let asked = team.zyflow(&["rollback", "good"], 2)?;
    ensure!(asked.err.contains("--yes"), "{asked:#?}");
    let unknown = team.zyflow(&["--yes", "rollback", "better"], 3)?;
    ensure!(unknown.err.contains("better"), "{unknown:#?}");
    let ahead = team.zyflow(&["--yes", "rollback", "999999"], 3)?;
    ensure!(ahead.err.contains("E-REVISION"), "{ahead:#?}");
    let stale = team.zyflow(&["--yes", "rollback", "1", "--expected", "1"], 4)?;
    ensure!(stale.err.contains("E-STALE"), "{stale:#?}");
    let newer = team.zyflow(&["--yes", "rollback", "good", "--change", NEWER], 3)?;
    ensure!(newer.err.contains("E-NOT-FOUND"), "{newer:#?}");
    Ok(())
}

async fn there_and_forth(team: &Team, at_point: &Snapshot, mess: &Snapshot) -> anyhow::Result<()> {
    // One checkout has an edit that the cluster doesn't know yet.
    let away = 7;
    let folder = team.harness.cluster.layout().checkout(away);
    let folder = folder.to_str().context("a UTF-8 path")?;
    team.zyflow(&["checkout", "pause", folder], 0)?;
    let line = "- [ ] 9.1 not synced yet\n";
    save(&team.file(away, FILES[1]), |text| text + line)?;

    let said = team.zyflow(&["-o", "json", "--yes", "rollback", "good"], 0)?;
    let undo = member(&said, "undo_point").with_context(|| format!("no undo point in {said:?}"))?.to_owned();
    team.all_hold("the files of the point", at_point, Some(away)).await?;
    team.zyflow(&["checkout", "resume", folder], 0)?;
    let mut merged = at_point.clone();
    merged[1].1.push_str(line);
    team.all_hold("the files of the point with the edit", &merged, None).await?;
    let again = team.zyflow(&["-o", "json", "--yes", "rollback", "good", "--change", FILES[0]], 0)?;
    ensure!(again.out.contains("\"is_changed\":false"), "{again:#?}");

    team.zyflow(&["--yes", "rollback", &undo], 0)?;
    team.all_hold("the files from before", mess, None).await
}
