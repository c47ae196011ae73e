//! `zyflowd backup`: what of a backup needs the data key or makes a data folder. No node runs meanwhile; `zyflow` runs this.
//!
//! Results are one JSON object on standard output; nothing is asked.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;
use zyflow_crypto::{KeyRing, Lineage, load_key_file};
use zyflow_machine::id::{ClusterTime, Revision};
use zyflow_storage::backup::{Archive, BackupError, Moment, RestorePlan, restore};
use zyflow_storage::types::NodeInfo;

use crate::checkouts::error_chain;
use crate::cluster::wall_clock_ms;
use crate::config::Config;
use crate::services::moment::shown;

/// What of a backup is done here.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Reads a backup to its last byte, opens it, and replays it.
    Verify {
        /// The folder of its objects.
        folder: PathBuf,
        /// The data key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Where the newest version of each record is kept meanwhile, sealed.
        #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
        working: PathBuf,
    },
    /// Makes the data folder of the first voter of a new cluster.
    Restore {
        /// The folder of the backup's objects.
        folder: PathBuf,
        /// The configuration of that voter: a new `node.cluster`, the old `node.lineage` and `node.key_file`, and a `node.data` that is empty.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The state to go back to: a revision, or a time as 2026-11-26T14:00:00Z [default: the newest].
        #[arg(long, value_name = "REV|TIME", value_parser = moment)]
        to: Option<Moment>,
        /// Where the newest version of each record is kept meanwhile, sealed.
        #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
        working: PathBuf,
    },
}

/// A revision, or a time.
fn moment(text: &str) -> Result<Moment, String> {
    let wrong = || format!("`{text}` is neither a revision nor a time: write 128, or 2026-11-26T14:00:00Z");
    if let Ok(revision) = text.parse() {
        return Ok(Moment::Revision(Revision(revision)));
    }
    let time: Timestamp = text.parse().map_err(|_| wrong())?;
    let millis = u64::try_from(time.as_millisecond()).map_err(|_| wrong())?;
    Ok(Moment::Time(ClusterTime(millis)))
}

/// Does it, and gives what is printed.
///
/// # Errors
/// What went wrong, for people.
pub fn run(command: &BackupCommand) -> Result<String, String> {
    match command {
        BackupCommand::Verify { folder, key, working } => verify(folder, key, working),
        BackupCommand::Restore { folder, config, to, working } => {
            let config = Config::load(config).map_err(|error| error.to_string())?;
            restored(folder, &config, *to, working)
        }
    }
}

/// A folder that is gone afterwards.
fn working_folder(within: &Path) -> Result<tempfile::TempDir, String> {
    let made = tempfile::Builder::new().prefix("zyflow-backup-").tempdir_in(within);
    made.map_err(|error| format!("no working folder can be made in {}: {error}", within.display()))
}

fn verify(folder: &Path, key: &Path, working: &Path) -> Result<String, String> {
    // The key must not lie beside what it opens.
    let key = load_key_file(key, folder).map_err(|error| error_chain(&error))?;
    let working = working_folder(working)?;
    let archive = Archive::open(folder).map_err(|error| told(&error))?;
    let verified = archive.verify(&KeyRing::new(key), working.path()).map_err(|error| told(&error))?;
    let found = json!({
        "objects": verified.objects,
        "versions": verified.versions,
        "oldest": verified.oldest.0,
        "newest": verified.newest.0,
        "last": archive.last().0,
        "cluster": verified.cluster,
        "digest": verified.digest.to_string(),
    });
    Ok(found.to_string())
}

fn restored(folder: &Path, config: &Config, to: Option<Moment>, working: &Path) -> Result<String, String> {
    let lineage: Lineage = config.node.lineage.parse().map_err(|_| "node.lineage is not a UUID".to_owned())?;
    let key = load_key_file(&config.node.key_file, &config.node.data).map_err(|error| error_chain(&error))?;
    let working = working_folder(working)?;
    let archive = Archive::open(folder).map_err(|error| told(&error))?;
    let plan = RestorePlan {
        cluster: &config.node.cluster,
        lineage,
        node: config.node.id,
        info: NodeInfo { address: config.peer.advertise.clone(), api: config.api.advertise.clone() },
        data: &config.node.data,
        to,
        now: ClusterTime(wall_clock_ms()),
    };
    let restored = restore(&archive, &plan, &KeyRing::new(key), working.path()).map_err(|error| told(&error))?;
    let found = json!({
        "data": config.node.data.display().to_string(),
        "cluster": config.node.cluster,
        "node": config.node.id,
        "restored": restored.cut.0,
        "restored_time": restored.cut_time.map(shown),
        "backed_up": restored.last.0,
        "revision": restored.revision.0,
        "oldest": restored.oldest.0,
        "versions": restored.versions,
        "digest": restored.digest.to_string(),
    });
    Ok(found.to_string())
}

/// Times as people write them.
fn told(error: &BackupError) -> String {
    let wanted = |moment: &Moment| match moment {
        Moment::Revision(revision) => format!("revision {revision}"),
        Moment::Time(time) => shown(*time),
    };
    let of =
        |time_ms: &Option<u64>| time_ms.map_or_else(String::new, |time| format!(", of {}", shown(ClusterTime(time))));
    if let BackupError::TooOld { wanted: moment, oldest, time_ms } = error {
        let wanted = wanted(moment);
        return format!(
            "the backup holds nothing of {wanted}: the oldest that can be restored is revision {oldest}{}",
            of(time_ms)
        );
    }
    if let BackupError::TooNew { wanted: moment, newest, time_ms } = error {
        let wanted = wanted(moment);
        return format!(
            "the backup ends before {wanted}: the newest that can be restored is revision {newest}{}",
            of(time_ms)
        );
    }
    error_chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_revision_or_a_time() {
        assert_eq!(moment("128"), Ok(Moment::Revision(Revision(128))));
        assert_eq!(moment("1970-01-01T00:00:01.5Z"), Ok(Moment::Time(ClusterTime(1_500))));
        for bad in ["", "before-release", "-1", "1969-12-31T23:59:59Z", "99999999999999999999999"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_told_as_people_write_them() {
        let error =
            BackupError::TooNew { wanted: Moment::Time(ClusterTime(2_000)), newest: Revision(9), time_ms: Some(1_000) };
        let told = told(&error);
        assert!(told.contains("before 1970-01-01T00:00:02Z") && told.contains("9, of 1970-01-01T00:00:01Z"), "{told}");
    }
}
