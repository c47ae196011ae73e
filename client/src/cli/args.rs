//! The grammar of the command line.

use super::{
    backup, bench, change, checkout, cluster, conflict, demo, dev, diff, log, point, project, replay, retention,
    rollback, spec, sql, sync, task, verify,
};
use crate::moment::Moment;
use crate::read::Consistency;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use zyflow_machine::id::Revision;

/// Keeps the tasks.md of every checkout, on every machine, in agreement.
#[derive(Debug, Parser)]
#[command(name = "zyflow", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict or stale, 5 unavailable, 6 denied."
)]
pub struct Cli {
    /// What every command knows.
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command knows.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Profile of the cluster [default: zyflow/client.toml in the user's configuration folder].
    #[arg(long, global = true, value_name = "FILE", env = "ZYFLOW_PROFILE")]
    pub profile: Option<PathBuf>,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Read the state as it was: at a revision, a time (2026-11-26T14:00:00Z), so long ago (10m), or a rollback point.
    #[arg(long, global = true, value_name = "REV|TIME|POINT", value_parser = moment)]
    pub at: Option<Moment>,
    /// How fresh reads must be: local, linearizable, lease, at-least=REV.
    #[arg(long, global = true, value_name = "HOW", default_value = "linearizable", value_parser = consistency)]
    pub consistency: Consistency,
    /// How long a command may wait for the cluster, as 500ms, 10s or 2m.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Don't ask before something is deleted.
    #[arg(long, global = true)]
    pub yes: bool,
    /// Ask this node: the N-th endpoint of the profile, from 1.
    #[arg(long, global = true, value_name = "N")]
    pub node: Option<usize>,
    /// In whose name changes are made [default: the user's name].
    #[arg(long, global = true, value_name = "NAME", env = "ZYFLOW_AUTHOR")]
    pub author: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One document.
    Json,
    /// One document a line for each thing.
    Jsonl,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a local cluster with demo checkouts, until Ctrl-C.
    Dev(dev::DevArgs),
    /// Run the same cluster, or lead it through a script with --once.
    Demo(demo::DemoArgs),
    /// Show every node of the profile.
    Status,
    /// Look for what is wrong with profile, certificates and nodes.
    Doctor,
    /// Run the cluster.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Bind folders on a node's machine to projects.
    #[command(subcommand)]
    Checkout(checkout::CheckoutCommand),
    /// Projects: named sets of changes.
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// Changes: one tasks.md each.
    #[command(subcommand)]
    Change(change::ChangeCommand),
    /// Tasks. TASK is REVISION.ORDINAL, or CHANGE#1.2 by its own number.
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// The text of changes, and of files.
    #[command(subcommand)]
    Spec(spec::SpecCommand),
    /// What couldn't be united, and how it is settled.
    #[command(subcommand)]
    Conflict(conflict::ConflictCommand),
    /// Names for revisions, agreed by all machines.
    #[command(subcommand)]
    Point(point::PointCommand),
    /// How much of the history is kept, on every machine.
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    /// Put everything, a project or a change back to what it was, on every machine; a point is made first, to undo it by.
    Rollback(rollback::RollbackArgs),
    /// Show what differs between two moments: text, and fields of tasks.
    Diff(diff::DiffArgs),
    /// Show what happened: every event, who did it, when.
    Log(log::LogArgs),
    /// Do a range of the past again on a node, beside the state, and say whether it comes out the same.
    Replay(replay::ReplayArgs),
    /// Ask the state in SQL, or change tasks by it.
    Sql(sql::SqlArgs),
    /// Bring the text of a change and its runtime state together.
    Sync(sync::SyncArgs),
    /// Report where texts, runtime state and checkouts disagree.
    Validate(sync::ValidateArgs),
    /// Keep all there is outside the cluster, and begin a new cluster with it.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Compare the digests of all nodes at one revision.
    Verify(verify::VerifyArgs),
    /// Measure durable operations per second.
    Bench(bench::BenchArgs),
}

/// `500ms`, `10s`, `2m`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let wrong = || format!("`{text}` is no time: write it as 500ms, 10s or 2m");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    millis.filter(|millis| *millis > 0).map(Duration::from_millis).ok_or_else(wrong)
}

/// A revision, a time or a rollback point, as of now.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    Moment::parse(text, &jiff::Zoned::now()).map_err(|error| error.to_string())
}

fn consistency(text: &str) -> Result<Consistency, String> {
    let at_least = || text.strip_prefix("at-least")?.strip_prefix(['=', ':', ' '])?.parse().ok();
    match text {
        "local" => Ok(Consistency::Local),
        "linearizable" => Ok(Consistency::Linearizable),
        "lease" => Ok(Consistency::Lease),
        _ => at_least()
            .map(|revision| Consistency::AtLeast(Revision(revision)))
            .ok_or_else(|| format!("`{text}` is no consistency: write local, linearizable, lease or at-least=REV")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units_and_are_never_zero() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "s", "0s", "-1s", "1h", "1.5s", "99999999999999999999s", "18446744073709551615m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn consistencies() {
        assert_eq!(consistency("local"), Ok(Consistency::Local));
        assert_eq!(consistency("at-least=7"), Ok(Consistency::AtLeast(Revision(7))));
        for bad in ["", "at-least", "at-least=x", "strong"] {
            assert!(consistency(bad).is_err(), "{bad}");
        }
    }

    const CONTRACT: &[&str] = &[
        "zyflow dev --nodes 3 --dir d",
        "zyflow status -o json",
        "zyflow cluster status",
        "zyflow cluster init --member 1=127.0.0.1:7101",
        "zyflow cluster init --member 1=127.0.0.1:7101,127.0.0.1:7201 --member 2=127.0.0.1:7102",
        "zyflow cluster add 4 127.0.0.1:7104 --api 127.0.0.1:7204 --timeout 5m",
        "zyflow cluster promote 4",
        "zyflow cluster demote 4",
        "zyflow cluster remove 4 --yes",
        "zyflow cluster address 4 127.0.0.1:7104",
        "zyflow cluster transfer 2",
        "zyflow checkout add . --project demo --take merge",
        "zyflow checkout list",
        "zyflow checkout rescan .",
        "zyflow project show demo",
        "zyflow change show tasks.md --at 12",
        "zyflow task list --project demo --status in-progress -o jsonl",
        "zyflow task show 12.3",
        "zyflow task add tasks.md Write-it --after tasks.md#1.1",
        "zyflow task set tasks.md#1.2 12.4 --status done --note hello --expected 9",
        "zyflow task move 12.3 --after 12.1",
        "zyflow task remove 12.3 --expect 9",
        "zyflow task claim 12.3 --expect 9",
        "zyflow change move add-login --to b/tasks.md --expect 9",
        "zyflow change delete add-login --expect 9 --yes",
        "zyflow project policy demo --strategy merge --expect 9",
        "zyflow task history 12.3",
        "zyflow spec show tasks.md --at 12",
        "zyflow spec check a.md b -o jsonl",
        "zyflow spec merge a b c",
        "zyflow verify",
        "zyflow backup create backups --full",
        "zyflow backup list s3://bucket/team",
        "zyflow backup verify backups --key data.key",
        "zyflow backup restore backups --config zyflowd.toml --to 2026-11-26T14:00:00Z",
        "zyflow spec check a.md --dialect kiro,~=blocked",
        "zyflow checkout add . --project demo --dialect kiro",
        "zyflow checkout rescan . --confirm-deletions",
        "zyflow bench --sync --checkouts 20 --files 50 --seconds 60 -o json",
        "zyflow bench --reads --edits 5000 --seconds 10 -o json",
        "zyflow sql --export state.sqlite --at before-release",
        "zyflow task next --claim --lease 30m --as agent-7",
        "zyflow task claim tasks.md#1.2 --lease 8h",
        "zyflow task release 12.3 --force",
        "zyflow task comment 12.3 hello",
        "zyflow task search log",
        "zyflow conflict list --all",
        "zyflow conflict show 12.3",
        "zyflow conflict resolve 12.3 12.4 --take other --dry-run",
        "zyflow point create before-release --at 12",
        "zyflow point list",
        "zyflow diff 12 before-release --project demo --change add-login -o json",
        "zyflow task list --at 10m",
        "zyflow replay --from 1 --to before-release --mode verbose --strategy parallel",
        "zyflow replay --from 1 --project demo --mode dry-run",
        "zyflow replay --list -o json",
        "zyflow task list --at before-release",
        "zyflow log --from 12 --to 2026-11-26T14:00:00Z --type task-set --type marked -o jsonl",
        "zyflow log --follow --project demo --change add-login --task 12.3 --by ann --limit 10",
        "zyflow point remove before-release --yes",
        "zyflow project policy demo --strategy mark=spec-wins --allow todo=in-progress --convention kiro",
        "zyflow rollback before-release --dry-run",
        "zyflow rollback 12 --project demo --yes",
        "zyflow rollback 12 --change add-login --expected 40 -o json",
        "zyflow retention show",
        "zyflow retention set --revisions 100000 --age 90d",
        "zyflow retention set --all",
        "zyflow retention compact before-release --yes",
        "zyflow change archive add-login --date 2026-01-02",
        "zyflow change move add-login --to b/tasks.md",
        "zyflow sync add-login --direction spec-to-runtime --dry-run",
        "zyflow sync add-login --history",
        "zyflow validate add-login",
        "zyflow validate --fix --dry-run",
        "zyflow bench --clients 64 --seconds 10 --size 256 --batch 4 --read local -o json",
    ];

    #[test]
    fn commands_of_the_contract_parse() {
        for line in CONTRACT {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
        for line in ["zyflow", "zyflow task set 1.2 --status sleeping", "zyflow spec merge a b", "zyflow task move 1.2"]
        {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
