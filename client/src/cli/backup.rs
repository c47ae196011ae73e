//! `zyflow backup`: make, list, verify and restore backups.
//!
//! What needs the data key is done by `zyflowd`, on this machine, which this finds and runs; objects in a store are fetched into a folder
//! for it first.

use super::context::Context;
use super::report::{Failure, Output, Report};
use super::task_view::time;
use crate::backup::place::{Place, PlaceError};
use crate::backup::{BackupError, Covered, Made, verify as verify_outside};
use crate::code::Code;
use crate::dev::find_zyflowd;
use crate::moment::Moment;
use clap::Subcommand;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use tempfile::TempDir;
use zyflow_crypto::backup::{Header, object_name};
use zyflow_machine::id::ClusterTime;

#[derive(Debug, Subcommand)]
pub(super) enum BackupCommand {
    /// Add what has happened since the last time; the first time, everything. Any node can be asked, also one without a quorum.
    Create {
        /// A folder, or `s3://BUCKET/PREFIX`.
        dest: String,
        /// Begin anew with everything that is kept.
        #[arg(long)]
        full: bool,
    },
    /// Show the objects of a backup.
    List {
        /// A folder, or `s3://BUCKET/PREFIX`.
        dest: String,
    },
    /// Read a backup to its last byte; with the data key, also do all that happened again and compare.
    Verify {
        /// A folder, or `s3://BUCKET/PREFIX`.
        dest: String,
        /// The data key.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Make the data folder of a new cluster's first voter.
    Restore {
        /// A folder, or `s3://BUCKET/PREFIX`.
        dest: String,
        /// That voter's configuration: a new cluster name, the old lineage and data key, and an empty data folder.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The state to go back to [default: the newest].
        #[arg(long, value_name = "REV|TIME", value_parser = moment)]
        to: Option<Moment>,
    },
}

/// A revision or a time. Points are part of the state, which isn't there yet.
fn moment(text: &str) -> Result<Moment, String> {
    match super::args::moment(text)? {
        Moment::Point(name) => Err(format!(
            "`{name}` is neither a revision nor a time; of a rollback point, `zyflow point list` of the old cluster shows the revision"
        )),
        moment @ (Moment::Revision(_) | Moment::Time(_)) => Ok(moment),
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let code = match &error {
            BackupError::Client(error) => error.code(),
            BackupError::Place(PlaceError::Malformed(_)) => Code::Usage,
            BackupError::Place(PlaceError::File { .. }) => Code::File,
            BackupError::Taken { .. } => Code::Exists,
            BackupError::Empty(_) => Code::NotFound,
            BackupError::TooLarge { .. } => Code::Limit,
            BackupError::Place(PlaceError::Store { .. } | PlaceError::Object { .. })
            | BackupError::Object { .. }
            | BackupError::Sent { .. } => Code::Backup,
        };
        Self::new(code, chain(&error))
    }
}

impl From<PlaceError> for Failure {
    fn from(error: PlaceError) -> Self {
        BackupError::from(error).into()
    }
}

/// An error with what caused it, where it doesn't say that itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

pub(super) async fn run(context: &Context, command: BackupCommand) -> Result<Report, Failure> {
    match command {
        BackupCommand::Create { dest, full } => create(context, &Place::parse(&dest)?, full).await,
        BackupCommand::List { dest } => list(&Place::parse(&dest)?).await,
        BackupCommand::Verify { dest, key: None } => {
            let mut items = Vec::new();
            verify_outside(&Place::parse(&dest)?, |found| items.push(shown(&found.header, found.bytes))).await?;
            Ok(Output::List { columns: COLUMNS, items, revision: None }.into())
        }
        BackupCommand::Verify { dest, key: Some(key) } => {
            let (folder, _fetched) = folder(&Place::parse(&dest)?).await?;
            zyflowd("verify", vec![folder.into(), "--key".into(), key.into()]).await
        }
        BackupCommand::Restore { dest, config, to } => {
            let (folder, _fetched) = folder(&Place::parse(&dest)?).await?;
            let mut args = vec![folder.into(), "--config".into(), config.into()];
            if let Some(to) = to {
                args.extend(["--to".into(), written(&to).into()]);
            }
            zyflowd("restore", args).await
        }
    }
}

/// A moment as `zyflowd` takes it.
fn written(moment: &Moment) -> String {
    match moment {
        Moment::Revision(revision) => revision.to_string(),
        Moment::Time(at) => time(*at),
        Moment::Point(name) => name.clone(),
    }
}

const COLUMNS: &[&str] = &["object", "kind", "oldest", "first", "last", "settled", "made", "bytes"];

fn shown(header: &Header, bytes: u64) -> Value {
    json!({
        "object": object_name(header.number),
        "kind": if header.previous.is_some() { "segment" } else { "base" },
        "oldest": header.oldest,
        "first": header.first,
        "last": header.last,
        "settled": header.is_settled,
        "made": time(ClusterTime(header.made_ms)),
        "bytes": bytes,
        "lineage": header.lineage.to_string(),
    })
}

async fn create(context: &Context, place: &Place, full: bool) -> Result<Report, Failure> {
    let client = context.client()?;
    let is_watched = std::io::stderr().is_terminal();
    let mut items = Vec::new();
    let made = |Made { checked, node }: Made| {
        let mut item = shown(&checked.header, checked.bytes);
        item["node"] = node.into();
        items.push(item);
        if is_watched {
            // Progress is a courtesy: a closed stderr doesn't stop the backup.
            let _ = writeln!(
                std::io::stderr(),
                "{}, up to revision {}",
                object_name(checked.header.number),
                checked.header.last
            );
        }
    };
    let Covered { is_current, .. } = client.back_up(place, full, context.within(), made).await?;
    let columns = &["object", "kind", "first", "last", "bytes", "node"];
    let without_quorum = "the backup holds what the node had, which had no quorum: newer changes may be missing";
    let failure = (!is_current).then(|| Failure::new(Code::NoQuorum, without_quorum));
    Ok(Report { output: Output::List { columns, items, revision: None }, failure })
}

async fn list(place: &Place) -> Result<Report, Failure> {
    let mut items = Vec::new();
    for number in place.list().await? {
        let (header, bytes) = place.header(number).await?;
        items.push(shown(&header, bytes));
    }
    if items.is_empty() {
        return Err(BackupError::Empty(place.to_string()).into());
    }
    Ok(Output::List { columns: COLUMNS, items, revision: None }.into())
}

/// A folder on this machine with the objects: the place itself, or one that is filled from it and goes with the second value.
async fn folder(place: &Place) -> Result<(PathBuf, Option<TempDir>), Failure> {
    if let Place::Folder(folder) = place {
        return Ok((folder.clone(), None));
    }
    let failed = |error: std::io::Error| Failure::new(Code::File, format!("the backup can't be fetched: {error}"));
    let fetched = tempfile::Builder::new().prefix("zyflow-backup-").tempdir().map_err(failed)?;
    for number in place.list().await? {
        let object = place.read(number).await?;
        std::fs::write(fetched.path().join(object_name(number)), object).map_err(failed)?;
    }
    Ok((fetched.path().to_owned(), Some(fetched)))
}

/// Runs `zyflowd backup`; what it prints is what is reported.
async fn zyflowd(what: &str, args: Vec<OsString>) -> Result<Report, Failure> {
    let program = find_zyflowd()?;
    let ran =
        tokio::process::Command::new(&program).args(["backup", what]).args(args).kill_on_drop(true).output().await;
    let ran = ran.map_err(|error| Failure::new(Code::File, format!("{} can't be run: {error}", program.display())))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        let said = said.trim().trim_start_matches("zyflowd: ");
        return Err(Failure::new(Code::Backup, said));
    }
    let item = serde_json::from_slice(&ran.stdout).map_err(|error| {
        Failure::new(Code::Protocol, format!("{} said something else than its result: {error}", program.display()))
    })?;
    Ok(Output::One { item, revision: None }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zyflow_machine::id::Revision;

    #[test]
    fn a_point_is_no_moment_of_a_backup() {
        assert_eq!(moment("12"), Ok(Moment::Revision(Revision(12))));
        assert!(moment("before-release").unwrap_err().contains("neither a revision nor a time"));
        let at = moment("2026-11-26T14:00:00.25Z").unwrap();
        assert_eq!(written(&at), "2026-11-26T14:00:00.25Z");
    }
}
