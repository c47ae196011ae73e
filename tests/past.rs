//! The past on real processes: reads at a revision, a time and a rollback point, what happened, what differs, and who changed what.

use anyhow::{Context, ensure};
use zyflow_client::Session;
use zyflow_client::read::{Consistency, Read};
use zyflow_machine::command::{Body, EditMode, NewConflict};
use zyflow_machine::id::RecordId;
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::ConflictClass;
use zyflow_tests::{Harness, WITHIN, check, text, until};

const CHANGE: &str = "openspec/changes/add-login/tasks.md";

/// What stands after `"name":` in a line of JSON, without quotes.
fn member(json: &str, name: &str) -> anyhow::Result<String> {
    let rest = json.split(&format!("\"{name}\":")).nth(1).with_context(|| format!("no {name} in {json}"))?;
    let value = rest.trim_start_matches('"').split(['"', ',', '}']).next().unwrap_or_default();
    Ok(value.to_owned())
}

/// A task that was changed twice, with what was so in between.
struct Story {
    task: String,
    /// The revision of the first note, and its time.
    first: String,
    first_time: String,
    /// The revision of the second.
    second: String,
}

#[tokio::test]
async fn every_moment_is_read_the_same_on_every_node_and_what_happened_is_told() -> anyhow::Result<()> {
    let harness = Harness::start(3).await?;
    let story = tell(&harness).await?;
    moments_are_the_same_on_every_node(&harness, &story)?;
    moments_that_there_are_not_are_told(&harness)?;
    the_log_tells_what_happened(&harness, &story)?;
    two_moments_are_compared(&harness, &story)?;
    who_changed_what_is_told(&harness, &story)?;
    what_is_expected_is_held(&harness, &story)?;
    the_past_comes_out_the_same_again(&harness, &story)?;
    harness.cluster.stop().await?;
    Ok(())
}

/// Waits until a checkout has brought the demo's change into the cluster.
async fn imported(harness: &Harness) -> anyhow::Result<()> {
    until("the demo's change in the cluster", || {
        let listed = harness.zyflow(&["-o", "jsonl", "task", "list", "--change", CHANGE]);
        listed.is_ok_and(|said| said.code == 0 && !said.out.is_empty())
    })
    .await
}

async fn tell(harness: &Harness) -> anyhow::Result<Story> {
    imported(harness).await?;
    let listed = harness.zyflow(&["-o", "jsonl", "task", "list", "--change", CHANGE, "--status", "todo"])?;
    let task = member(listed.out.lines().next().context("a task to do")?, "id")?;
    let set = |note: &str, status: &str| -> anyhow::Result<String> {
        let set = ["-o", "jsonl", "--author", "ann", "task", "set", &task, "--note", note, "--status", status];
        member(&harness.zyflow(&set)?.out, "revision")
    };
    let first = set("first", "in-progress")?;
    check(&harness.zyflow(&["point", "create", "before-release"])?, 0, &[]);
    let second = set("second", "done")?;
    let log = harness.zyflow(&["log", "--from", &first, "--to", &first, "-o", "jsonl"])?;
    let first_time = member(&log.out, "time")?;
    Ok(Story { task, first, first_time, second })
}

fn moments_are_the_same_on_every_node(harness: &Harness, story: &Story) -> anyhow::Result<()> {
    let mut answers = Vec::new();
    for at in [&story.first, "before-release", "point:before-release"] {
        for node in ["1", "2", "3"] {
            let asked = ["--node", node, "--at", at, "-o", "json", "task", "show", &story.task];
            let said = harness.zyflow(&asked)?;
            check(&said, 0, &["\"note\":\"first\"", "in-progress"]);
            answers.push((at, said.out));
        }
    }
    let same = |at: &str| answers.iter().filter(|(asked, _)| *asked == at).map(|(_, out)| out).collect::<Vec<_>>();
    for at in [story.first.as_str(), "before-release"] {
        ensure!(same(at).windows(2).all(|pair| pair[0] == pair[1]), "nodes answer {at} differently: {answers:?}");
    }
    // Several revisions may be of one millisecond; then the second note may be there already.
    for node in ["1", "2", "3"] {
        let said = harness.zyflow(&["--node", node, "--at", &story.first_time, "task", "show", &story.task])?;
        check(&said, 0, &[]);
        ensure!(said.out.contains("first") || said.out.contains("second"), "{said:#?}");
    }
    let listed =
        harness.zyflow(&["--at", &story.first, "task", "list", "--change", CHANGE, "--status", "in-progress"])?;
    check(&listed, 0, &[&story.task, &format!("at revision {}", story.first)]);
    check(&harness.zyflow(&["--at", "0s", "task", "show", &story.task])?, 0, &["second"]);
    Ok(())
}

fn moments_that_there_are_not_are_told(harness: &Harness) -> anyhow::Result<()> {
    let at = |moment: &str| harness.zyflow(&["--at", moment, "task", "list"]);
    check(&at("99999999")?, 3, &["E-REVISION", "has not been applied"]);
    check(&at("1990-01-01T00:00:00Z")?, 3, &["E-REVISION", "the oldest revision is"]);
    check(&at("2990-01-01T00:00:00Z")?, 3, &["E-REVISION", "lies in the future"]);
    check(&at("before-relaese")?, 3, &["E-NOT-FOUND", "did you mean `before-release`"]);
    check(&at("")?, 2, &["is no moment"]);
    check(&harness.zyflow(&["log", "--from", "99999999"])?, 3, &["E-REVISION"]);
    check(&harness.zyflow(&["log", "--from", "nowhere"])?, 3, &["E-NOT-FOUND", "nowhere"]);
    check(&harness.zyflow(&["log", "--type", "task-sat"])?, 2, &["task-set"]);
    check(&harness.zyflow(&["log", "--follow", "-o", "json"])?, 2, &["jsonl"]);
    check(&harness.zyflow(&["diff", "1", "99999999"])?, 3, &["E-REVISION"]);
    check(&harness.zyflow(&["diff", "1"])?, 2, &[]);
    Ok(())
}

fn the_log_tells_what_happened(harness: &Harness, story: &Story) -> anyhow::Result<()> {
    let all = harness.zyflow(&["log", "--from", "1", "-o", "jsonl"])?;
    check(&all, 0, &["project-created", "change-created", "inserted", "point-created", "before-release"]);
    let events: Vec<String> = all.out.lines().map(|line| member(line, "event")).collect::<Result<_, _>>()?;
    let number = |event: &String| {
        event.split_once('.').and_then(|(r, o)| Some((r.parse::<u64>().ok()?, o.parse::<u64>().ok()?)))
    };
    ensure!(events.iter().is_sorted_by(|one, other| number(one) < number(other)), "out of order: {events:?}");
    for node in ["1", "2", "3"] {
        let there = harness.zyflow(&["--node", node, "log", "--from", "1", "--to", &story.second, "-o", "jsonl"])?;
        ensure!(all.out.starts_with(&there.out) && !there.out.is_empty(), "node {node} tells another history");
    }
    let by_ann = ["log", "--from", "1", "--task", &story.task, "--type", "task-set", "--by", "ann", "-o", "jsonl"];
    let by_ann = harness.zyflow(&by_ann)?;
    check(&by_ann, 0, &["\"author\":\"ann\"", "\"type\":\"task-set\"", CHANGE, "causation", "correlation"]);
    ensure!(by_ann.out.lines().count() == 2, "{by_ann:#?}");
    let newest = harness.zyflow(&["log", "--task", &story.task, "--limit", "1", "-o", "jsonl"])?;
    ensure!(newest.out.lines().count() == 1 && newest.out.contains("second"), "{newest:#?}");
    let oldest = harness.zyflow(&["log", "--from", "1", "--task", &story.task, "--limit", "1", "-o", "json"])?;
    check(&oldest, 0, &["\"type\":\"inserted\"", "\"items\""]);
    check(&harness.zyflow(&["log", "--from", "before-release", "--type", "task-set"])?, 0, &["EVENT", "second"]);
    let since = harness.zyflow(&["log", "--from", &story.first_time, "--type", "task-set", "-o", "jsonl"])?;
    ensure!(since.out.lines().count() == 2, "from its own time on both notes are told: {since:#?}");
    Ok(())
}

fn two_moments_are_compared(harness: &Harness, story: &Story) -> anyhow::Result<()> {
    let diff = harness.zyflow(&["diff", "before-release", &story.second])?;
    check(&diff, 0, &[CHANGE, "@@", "status: in-progress -> done", "note: first -> second", &story.task]);
    ensure!(
        diff.out.lines().any(|line| line.starts_with("-- ["))
            && diff.out.lines().any(|line| line.starts_with("+- [x]"))
    );
    let json = harness.zyflow(&["-o", "json", "diff", &story.first, &story.second, "--change", CHANGE])?;
    check(&json, 0, &["\"kind\":\"changed\"", "\"old\":\"first\"", "\"new\":\"second\""]);
    let back = harness.zyflow(&["diff", &story.second, &story.first])?;
    check(&back, 0, &["note: second -> first"]);
    let same = harness.zyflow(&["-o", "json", "diff", &story.second, &story.second])?;
    check(&same, 0, &["\"changes\":[]"]);
    check(&harness.zyflow(&["diff", "0", &story.second])?, 0, &["added", "/dev/null"]);
    Ok(())
}

fn who_changed_what_is_told(harness: &Harness, story: &Story) -> anyhow::Result<()> {
    let history = harness.zyflow(&["task", "history", &story.task])?;
    check(&history, 0, &["ann", "note: first -> second", "status: in-progress -> done", "checkout ", "of node "]);
    let json = harness.zyflow(&["-o", "json", "task", "history", &story.task])?;
    check(&json, 0, &["\"old\":\"in-progress\"", "\"from\":\"session ", "\"revision\":"]);
    let all = harness.zyflow(&["-o", "jsonl", "task", "history", &story.task])?;
    let newest = harness.zyflow(&["-o", "jsonl", "task", "history", &story.task, "--limit", "1"])?;
    ensure!(newest.out.lines().eq(all.out.lines().last()), "the newest, with what it changed: {newest:#?}");
    Ok(())
}

fn what_is_expected_is_held(harness: &Harness, story: &Story) -> anyhow::Result<()> {
    let (task, old, now) = (story.task.as_str(), story.first.as_str(), story.second.as_str());
    let expect = |args: &[&str], revision: &str| harness.zyflow(&[args, &["--expect", revision, "--yes"]].concat());
    let stale = ["E-STALE", "by ann (session ", now];
    check(&expect(&["task", "set", task, "--note", "third"], old)?, 4, &stale);
    check(&expect(&["task", "comment", task, "too late"], old)?, 4, &stale);
    check(&expect(&["task", "claim", task], old)?, 4, &stale);
    check(&expect(&["task", "move", task, "--first"], old)?, 4, &stale);
    check(&expect(&["task", "remove", task], old)?, 4, &stale);
    check(&expect(&["task", "add", CHANGE, "Too late"], old)?, 4, &stale);
    check(&expect(&["change", "move", CHANGE, "--to", "late/tasks.md"], old)?, 4, &stale);
    check(&expect(&["change", "delete", CHANGE], old)?, 4, &["E-STALE"]);
    check(&expect(&["project", "policy", "demo", "--strategy", "merge"], "1")?, 4, &["E-STALE"]);
    let log = harness.zyflow(&["log", "--from", now, "-o", "jsonl"])?;
    ensure!(!log.out.contains("too late") && !log.out.contains("Too late"), "a stale command did something: {log:#?}");
    check(&expect(&["task", "comment", task, "in time"], now)?, 0, &["in time"]);
    check(&expect(&["task", "set", task, "--note", "never"], "99999999")?, 2, &["has not been reached"]);
    check(&harness.zyflow(&["task", "set", task, "--note", "third", "--expected", now])?, 0, &[]);
    Ok(())
}

fn the_past_comes_out_the_same_again(harness: &Harness, story: &Story) -> anyhow::Result<()> {
    for mode in ["safe", "fast", "verbose"] {
        let all = harness.zyflow(&["-o", "json", "replay", "--mode", mode, "--strategy", "parallel"])?;
        check(&all, 0, &["\"is_same\":true", "\"differences\":0", "\"inserted\":"]);
        ensure!(member(&all.out, "replayed")? == member(&all.out, "stored")?, "{all:#?}");
    }
    for node in ["1", "2", "3"] {
        let range = ["--node", node, "-o", "json", "replay", "--from", &story.first, "--to", &story.second];
        check(&harness.zyflow(&range)?, 0, &["\"is_same\":true", "\"strategy\":\"sequential\""]);
    }
    let narrow = harness.zyflow(&["-o", "json", "replay", "--task", &story.task, "--from", "before-release"])?;
    check(&narrow, 0, &["\"strategy\":\"selective\"", "\"task-set\":"]);
    let dry = harness.zyflow(&["-o", "json", "replay", "--mode", "dry-run"])?;
    check(&dry, 0, &["\"replayed\":null", "\"mode\":\"dry-run\""]);
    check(&harness.zyflow(&["--node", "1", "replay", "--list"])?, 0, &["parallel", "selective", "dry-run"]);
    check(&harness.zyflow(&["replay", "--from", &story.second, "--to", &story.first])?, 2, &["goes forward"]);
    check(&harness.zyflow(&["replay", "--to", "99999999"])?, 3, &["E-REVISION"]);
    check(&harness.zyflow(&["replay", "--strategy", "selective"])?, 2, &["needs one of them"]);
    Ok(())
}

#[tokio::test]
async fn history_is_let_go_of_on_every_node_and_by_a_checkout_that_was_away() -> anyhow::Result<()> {
    let harness = Harness::start(3).await?;
    let story = tell(&harness).await?;
    let away = harness.file(2, CHANGE);
    until("the change in the second checkout", || !text(&away).is_empty()).await?;
    let folder = harness.cluster.layout().checkout(2);
    let folder = folder.to_str().context("a UTF-8 path")?;
    check(&harness.zyflow(&["checkout", "pause", folder])?, 0, &[]);
    check(&harness.zyflow(&["--yes", "change", "delete", CHANGE])?, 0, &[]);
    until("the deletion in the first checkout", || !harness.file(1, CHANGE).exists()).await?;

    check(&harness.zyflow(&["retention", "show"])?, 0, &["all"]);
    check(&harness.zyflow(&["retention", "set"])?, 2, &["--revisions"]);
    check(&harness.zyflow(&["retention", "set", "--revisions", "0"])?, 2, &["E-INVALID", "keep at least one"]);
    check(&harness.zyflow(&["--yes", "retention", "compact", "99999999"])?, 3, &["E-REVISION"]);
    check(&harness.zyflow(&["retention", "compact", &story.second])?, 2, &["--yes"]);
    let held = harness.zyflow(&["--yes", "retention", "compact", &story.second])?;
    check(&held, 2, &["before-release", "remove the point"]);
    check(&harness.zyflow(&["--yes", "point", "remove", "before-release"])?, 0, &[]);
    let newest = member(&harness.zyflow(&["-o", "jsonl", "retention", "show"])?.out, "revision")?;
    check(&harness.zyflow(&["--yes", "retention", "compact", &newest])?, 0, &[]);

    for node in ["1", "2", "3"] {
        let on = |args: &[&str]| harness.zyflow(&[&["--node", node, "--consistency", "linearizable"], args].concat());
        check(&on(&["retention", "show"])?, 0, &[&newest]);
        check(&on(&["--at", &story.second, "task", "list"])?, 3, &["E-REVISION", "no longer kept", &newest]);
        check(&on(&["task", "show", &story.task])?, 3, &["E-NOT-FOUND"]);
        check(&on(&["--at", &newest, "task", "list"])?, 0, &[]);
    }
    check(&harness.zyflow(&["log", "--from", "1"])?, 3, &["E-REVISION", "no longer kept"]);
    check(&harness.zyflow(&["log", "--type", "horizon-moved", "-o", "jsonl"])?, 0, &[&newest]);
    check(&harness.zyflow(&["--yes", "rollback", &story.first])?, 3, &["E-REVISION", &newest]);
    check(&harness.zyflow(&["--at", &story.first_time, "task", "list"])?, 3, &["E-REVISION", "the oldest revision is"]);
    check(&harness.zyflow(&["point", "create", "too-late", "--at", &story.first])?, 3, &["E-REVISION"]);
    check(&harness.zyflow(&["verify", "--recompute"])?, 0, &[]);

    // Nobody knows of the change any more, and the checkout that was away takes it for what it is: deleted.
    ensure!(away.exists());
    check(&harness.zyflow(&["checkout", "resume", folder])?, 0, &[]);
    until("the deletion in the checkout that was away", || !away.exists()).await?;
    check(&harness.zyflow(&["change", "list"])?, 0, &[]);
    ensure!(!harness.zyflow(&["change", "list"])?.out.contains(CHANGE), "the change has come back");
    harness.cluster.stop().await?;
    Ok(())
}

/// Two conflicts over words of the demo's change, as a checkout would record them.
async fn conflicts(harness: &Harness) -> anyhow::Result<[String; 2]> {
    imported(harness).await?;
    let listed = harness.zyflow(&["-o", "jsonl", "task", "list", "--change", CHANGE])?;
    let task = |line: &str| -> anyhow::Result<RecordId> { Ok(member(line, "id")?.parse()?) };
    let tasks: Vec<RecordId> = listed.out.lines().map(task).collect::<Result<_, _>>()?;
    let client = harness.cluster.client();
    let first = *tasks.first().context("a task")?;
    let read = Read { consistency: Consistency::Linearizable, at: None, within: WITHIN };
    let found = client.task(read, first).await?;
    let conflict = |task: &RecordId| NewConflict {
        block: Some(*task),
        class: ConflictClass::Data,
        field: "text".to_owned(),
        base: None,
        spec: Some("mine".to_owned()),
        runtime: Some("theirs".to_owned()),
        settlement: None,
    };
    let body = Body::Edit {
        change: found.value.block.record.change,
        base: found.revision,
        mode: EditMode::Merge,
        ops: Vec::new(),
        conflicts: tasks.iter().take(2).map(conflict).collect(),
    };
    let outcome = Session::new(client.clone(), "ann", 0).propose(body, WITHIN).await?;
    let Outcome::Accepted { created, .. } = &outcome else { anyhow::bail!("{outcome:?}") };
    let [one, other] = created[..] else { anyhow::bail!("{outcome:?}") };
    Ok([one.to_string(), other.to_string()])
}

/// Of two that are resolved by one command the second stands on the first; one that is opened again and resolved again has another past.
#[tokio::test]
async fn the_point_before_a_resolution_takes_back_that_one_alone() -> anyhow::Result<()> {
    let harness = Harness::start(1).await?;
    let [one, other] = conflicts(&harness).await?;
    let resolve = |ids: &[&str]| -> anyhow::Result<Vec<String>> {
        let said =
            harness.zyflow(&[&["-o", "jsonl", "conflict", "resolve", "--take", "agreed words"], ids].concat())?;
        check(&said, 0, &["before-conflict-"]);
        said.out.lines().map(|line| member(line, "point")).collect()
    };
    let points = resolve(&[one.as_str(), other.as_str()])?;
    ensure!(points.len() == 2 && points[0] != points[1], "{points:?}");
    check(&harness.zyflow(&["--yes", "rollback", &points[1]])?, 0, &[]);
    let open = harness.zyflow(&["-o", "jsonl", "conflict", "list"])?.out;
    let open: Vec<String> = open.lines().map(|line| member(line, "id")).collect::<Result<_, _>>()?;
    ensure!(open.contains(&other) && !open.contains(&one), "{open:?} are open: {one} stays resolved");

    let again = resolve(&[other.as_str()])?;
    ensure!(again.len() == 1 && !points.contains(&again[0]), "{again:?} is none of {points:?}");
    harness.cluster.stop().await?;
    Ok(())
}
