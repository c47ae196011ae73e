//! The whole thing, on real processes: the main job, and what a person gets to see when something is wrong.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use zyflow_tests::{Harness, binary, check, said, text, until, zyflow};

const CHANGE: &str = "openspec/changes/add-login/tasks.md";

/// The id of the first task of the demo's change that is open.
fn open_task(harness: &Harness) -> anyhow::Result<String> {
    let listed = harness.zyflow(&["-o", "json", "task", "list", "--change", CHANGE, "--status", "todo"])?;
    check(&listed, 0, &[]);
    let id = listed.out.split("\"id\":").nth(1).and_then(|rest| rest.split('"').nth(1));
    Ok(id.with_context(|| format!("no open task in {}", listed.out))?.to_owned())
}

#[tokio::test]
async fn three_nodes_keep_checkouts_in_agreement_and_say_what_is_wrong() -> anyhow::Result<()> {
    let mut harness = Harness::start(3).await?;
    files_in_files_out(&harness).await?;
    bad_input_is_told(&harness)?;
    files_that_cannot_be_synced_are_parked(&harness).await?;
    edits_made_while_a_node_was_down_arrive(&mut harness).await?;
    no_quorum_is_told(&mut harness).await?;
    harness.cluster.stop().await?;
    Ok(())
}

async fn files_in_files_out(harness: &Harness) -> anyhow::Result<()> {
    let files: Vec<_> = (1..=3).map(|node| harness.file(node, CHANGE)).collect();
    until("the demo's change in every checkout", || files.iter().all(|file| text(file).contains("- ["))).await?;
    let edited = format!("{}- [ ] 7.1 Written by hand\n", text(&files[1]));
    std::fs::write(&files[1], &edited)?;
    until("the line in every checkout", || files.iter().all(|file| text(file) == edited)).await?;

    let task = open_task(harness)?;
    check(&harness.zyflow(&["task", "set", &task, "--status", "done", "--note", "by command"])?, 0, &[]);
    let shown = harness.zyflow(&["-o", "json", "task", "show", &task])?;
    check(&shown, 0, &["by command", "done"]);
    let boxes = edited.matches("- [x]").count() + 1;
    until("one more box in every checkout", || files.iter().all(|file| text(file).matches("- [x]").count() == boxes))
        .await?;
    check(&harness.zyflow(&["verify"])?, 0, &[]);
    sql_reads_and_writes(harness, &task)
}

fn sql_reads_and_writes(harness: &Harness, task: &str) -> anyhow::Result<()> {
    let select = format!("SELECT status, note FROM tasks WHERE id = '{task}'");
    check(&harness.zyflow(&["-o", "jsonl", "sql", &select])?, 0, &["\"done\"", "by command"]);
    let update = format!("UPDATE tasks SET note = 'by SQL', priority = 'high' WHERE id = '{task}'");
    check(&harness.zyflow(&["sql", &update])?, 0, &["written at revision"]);
    check(&harness.zyflow(&["--node", "2", "sql", &select])?, 0, &["STATUS", "by SQL"]);
    check(&harness.zyflow(&["sql", "DROP VIEW tasks"])?, 2, &["only queries"]);
    Ok(())
}

fn bad_input_is_told(harness: &Harness) -> anyhow::Result<()> {
    let task = open_task(harness)?;
    let set = harness.zyflow(&["task", "set", &task, "--expected", "1", "--note", "stale"])?;
    check(&set, 4, &[&task]);
    check(&harness.zyflow(&["task", "show", "999999.1"])?, 3, &["999999.1"]);
    check(&harness.zyflow(&["task", "show", "nonsense"])?, 2, &["nonsense"]);
    check(&harness.zyflow(&["change", "list", "--project", "nowhere"])?, 3, &["nowhere"]);
    check(&harness.zyflow(&["task", "set", &task, "--status", "perhaps"])?, 2, &["perhaps"]);

    let root = harness.cluster.layout().checkout(1);
    let root = root.to_str().context("a UTF-8 path")?;
    let absent = format!("{root}-absent");
    check(&harness.zyflow(&["checkout", "add", &absent, "--project", "demo"])?, 2, &["absent"]);
    check(&harness.zyflow(&["checkout", "add", root, "--project", "demo"])?, 4, &["already bound"]);
    check(&harness.zyflow(&["checkout", "add", "/usr", "--project", "nowhere"])?, 3, &["nowhere"]);

    let profile = harness.cluster.layout().dir().join("broken.toml");
    let good = std::fs::read_to_string(harness.cluster.layout().profile())?;
    std::fs::write(&profile, good.replace("admin-dev.pem", "absent.pem"))?;
    let broken = zyflow(Some(&profile), &["status"])?;
    ensure!(broken.code != 0 && broken.err.contains("absent.pem"), "{broken:#?}");
    let data = harness.cluster.layout().config(1);
    let other = harness.folder().join("other.toml");
    std::fs::write(&other, text(&data).replace("[node]", "[node]\ncolour = \"red\""))?;
    let refused = Command::new(binary("zyflowd")?).args(["check", "--config"]).arg(&other).output()?;
    check(&said(&refused)?, 1, &["colour"]);
    data_folder_of_another(harness)
}

/// A node that is pointed at somebody else's data folder doesn't touch it.
fn data_folder_of_another(harness: &Harness) -> anyhow::Result<()> {
    let folder = harness.cluster.layout().dir().join("foreign");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("precious"), "mine")?;
    let config = harness.cluster.layout().dir().join("foreign.toml");
    let own = text(&harness.cluster.layout().config(3));
    let lines: Vec<String> = own
        .lines()
        .map(|line| {
            if line.starts_with("data =") {
                format!("data = {:?}", folder.display().to_string())
            } else {
                line.to_owned()
            }
        })
        .collect();
    std::fs::write(&config, lines.join("\n"))?;
    let refused = Command::new(binary("zyflowd")?).args(["run", "--config"]).arg(&config).output()?;
    check(&said(&refused)?, 1, &["foreign", "empty"]);
    let lost =
        text(&config).replace(&folder.display().to_string(), &folder.with_extension("lost").display().to_string());
    std::fs::write(&config, lost)?;
    let refused = Command::new(binary("zyflowd")?).args(["run", "--config"]).arg(&config).output()?;
    check(&said(&refused)?, 1, &["doesn't exist", "zyflowd new", "join under a new one"]);
    ensure!(!folder.with_extension("lost").exists(), "a start made a data folder in the place of a lost one");
    ensure!(
        text(&folder.join("precious")) == "mine" && std::fs::read_dir(&folder)?.count() == 1,
        "the folder was touched"
    );
    Ok(())
}

async fn files_that_cannot_be_synced_are_parked(harness: &Harness) -> anyhow::Result<()> {
    let latin = harness.file(1, "specs/latin/tasks.md");
    let large = harness.file(1, "specs/large/tasks.md");
    let bytes = b"- [ ] na\xefve\n".to_vec();
    let much = "- [ ] more\n".repeat(110_000).into_bytes();
    for (file, content) in [(&latin, &bytes), (&large, &much)] {
        std::fs::create_dir_all(file.parent().context("a folder")?)?;
        std::fs::write(file, content)?;
    }
    until("both files parked in the status", || {
        let status = harness.zyflow(&["-o", "json", "--node", "1", "checkout", "status"]);
        status.is_ok_and(|said| said.out.matches("parked").count() >= 2)
    })
    .await?;
    ensure!(std::fs::read(&latin)? == bytes && std::fs::read(&large)? == much, "a parked file was touched");
    ensure!(!harness.file(2, "specs/latin/tasks.md").exists(), "a parked file was synced");
    Ok(())
}

async fn edits_made_while_a_node_was_down_arrive(harness: &mut Harness) -> anyhow::Result<()> {
    harness.cluster.kill(3).await?;
    let (there, here) = (harness.file(3, CHANGE), harness.file(1, CHANGE));
    std::fs::write(&there, format!("{}- [ ] 8.1 While it was down\n", text(&there)))?;
    std::fs::write(&here, format!("# A heading meanwhile\n\n{}", text(&here)))?;
    harness.cluster.restart(3).await?;
    let files: Vec<_> = (1..=3).map(|node| harness.file(node, CHANGE)).collect();
    until("both edits in every checkout", || {
        files.iter().all(|file| text(file).contains("While it was down") && text(file).contains("A heading meanwhile"))
    })
    .await
}

async fn no_quorum_is_told(harness: &mut Harness) -> anyhow::Result<()> {
    let task = open_task(harness)?;
    for node in [2, 3] {
        harness.cluster.kill(node).await?;
    }
    let profile = harness.cluster.layout().profile_of(1);
    let refused = zyflow(Some(&profile), &["--timeout", "3s", "task", "set", &task, "--note", "alone"])?;
    check(&refused, 5, &["quorum"]);
    let local = zyflow(Some(&profile), &["--consistency", "local", "task", "show", &task])?;
    check(&local, 0, &[&task]);
    for node in [2, 3] {
        harness.cluster.restart(node).await?;
    }
    harness.cluster.wait_for_leader().await?;
    check(&harness.zyflow(&["task", "set", &task, "--note", "together"])?, 0, &[]);
    Ok(())
}

#[test]
fn a_certificate_of_another_cluster_is_refused() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let harness = Harness::start(1).await?;
        let stranger = harness.folder().join("stranger");
        let script =
            Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../deploy/certificates.sh");
        let made = Command::new("sh").arg(script).arg(&stranger).args(["dev", "ca", "admin", "dev"]).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let profile = harness.cluster.layout().dir().join("stranger.toml");
        let own = text(&harness.cluster.layout().profile());
        let lines: Vec<String> = own
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some((key @ ("cert" | "key"), _)) => {
                    let ending = if key == "cert" { "pem" } else { "key" };
                    format!("{key} = {:?}", stranger.join(format!("admin-dev.{ending}")).display().to_string())
                }
                Some(_) | None => line.to_owned(),
            })
            .collect();
        std::fs::write(&profile, lines.join("\n"))?;
        let refused = zyflow(Some(&profile), &["--timeout", "3s", "task", "list"])?;
        ensure!(refused.code != 0 && refused.err.contains("not issued by"), "{refused:#?}");
        harness.cluster.stop().await?;
        Ok(())
    })
}
