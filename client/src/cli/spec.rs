//! `zyflow spec`: the text of changes, and of files on this machine.
//!
//! `check` and `merge` need no cluster. `merge` is a three-way merge that knows tasks; like `git merge-file` it writes its
//! result over OURS, which is what git expects of a merge driver:
//!
//! ```text
//!   git config merge.zyflow.driver "zyflow spec merge %O %A %B"
//!   echo "tasks.md merge=zyflow" >> .gitattributes
//! ```

use super::change::ChangeArgs;
use super::context::Context;
use super::report::{Failure, Output, Report};
use super::resolve;
use crate::code::Code;
use crate::coordinator::spec_block;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use zyflow_spec::{CheckReport, Convention, DecodeError, Dialect, Encoding, FILE_BYTES_MAX, Problem};

/// How deep folders are entered: deeper than any real project, and a bound for links that lead in circles.
const FOLDER_DEPTH_MAX: usize = 64;

#[derive(Debug, Subcommand)]
pub(super) enum SpecCommand {
    /// Print the text of a change.
    Show(ChangeArgs),
    /// Parse files, print them again, compare the bytes; count tasks, tell problems.
    Check {
        /// Files, and folders whose *.md files are checked.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// What marks mean, as kiro or kiro,~=blocked [default: what each file looks like].
        #[arg(long, value_name = "DIALECT[,MARK=STATUS..]")]
        dialect: Option<Convention>,
    },
    /// Merge THEIRS into OURS by tasks; exit 4 if there are conflicts (ours stands, both values are told).
    Merge(MergeArgs),
}

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// The file that both started from.
    base: PathBuf,
    /// Our file; the result is written over it.
    ours: PathBuf,
    /// Their file.
    theirs: PathBuf,
    /// Print the result instead, and leave OURS as it is.
    #[arg(short = 'p', long)]
    stdout: bool,
}

pub(super) async fn run(context: &Context, command: SpecCommand) -> Result<Report, Failure> {
    match command {
        SpecCommand::Show(args) => show(context, args).await,
        SpecCommand::Check { paths, dialect } => check(&paths, dialect.as_ref()),
        SpecCommand::Merge(args) => merge(&args),
    }
}

async fn show(context: &Context, args: ChangeArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let change = resolve::change(&client, context.read(), args.project.as_deref(), &args.change).await?;
    let document = client.document(context.read(), change.id).await?;
    let text: String = document.value.blocks.iter().map(|row| spec_block(&row.record).print()).collect();
    let value = json!({
        "change": change.path, "project": change.project, "id": change.id.to_string(),
        "revision": document.revision.0, "text": text,
    });
    Ok(Output::Text { text: text.into_bytes(), value }.into())
}

fn check(paths: &[PathBuf], dialect: Option<&Convention>) -> Result<Report, Failure> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, true, FOLDER_DEPTH_MAX, &mut files)?;
    }
    let (mut items, mut bad) = (Vec::new(), Vec::new());
    for file in files {
        let shown = file.display().to_string();
        let report = report(&file, &shown, dialect)?;
        if !report.lossless {
            bad.push(shown.clone());
        }
        items.push(json!({
            "path": shown,
            "bytes": report.bytes,
            "lossless": report.lossless,
            "dialect": report.dialect.to_string(),
            "tasks": report.tasks,
            "done": report.done,
            "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }));
    }
    let failure = bad.first().map(|first| {
        let message = format!(
            "{} of {} files can't be synced without loss, {first} first: its `problems` say why",
            bad.len(),
            items.len()
        );
        Failure::new(Code::Check, message)
    });
    let columns = &["lossless", "bytes", "tasks", "done", "dialect", "path", "problems"];
    Ok(Report { output: Output::List { columns, items, revision: None }, failure })
}

/// The report on one file. One over the limit is never read into memory.
fn report(file: &Path, shown: &str, dialect: Option<&Convention>) -> Result<CheckReport, Failure> {
    match oversize(file)? {
        None => {
            let bytes = read(file)?;
            Ok(dialect.map_or_else(
                || zyflow_spec::check(&bytes, Some(shown)),
                |convention| zyflow_spec::check_as(&bytes, convention),
            ))
        }
        Some(bytes) => Ok(CheckReport {
            bytes,
            lossless: false,
            dialect: Dialect::Prose,
            tasks: 0,
            done: 0,
            problems: vec![Problem::TooLarge { bytes, limit: FILE_BYTES_MAX }],
        }),
    }
}

/// The size of a file that is over the limit.
fn oversize(file: &Path) -> Result<Option<usize>, Failure> {
    let metadata = std::fs::metadata(file).map_err(|error| file_failure("read", file, &error))?;
    let bytes = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    Ok((bytes > FILE_BYTES_MAX).then_some(bytes))
}

/// A named file whatever it is called; of folders, all Markdown files, in order of their names.
fn collect(path: &Path, is_named: bool, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| file_failure("read", path, &error);
    let metadata = if is_named { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
    let kind = metadata.map_err(failed)?.file_type();
    if kind.is_dir() {
        if depth == 0 {
            let message = format!("{} lies deeper than {FOLDER_DEPTH_MAX} folders: name it by itself", path.display());
            return Err(Failure::new(Code::Limit, message));
        }
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut inside: Vec<_> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
        inside.sort();
        inside.retain(|entry| entry.file_name().is_none_or(|name| name != ".git"));
        return inside.iter().try_for_each(|entry| collect(entry, false, depth - 1, files));
    }
    let is_markdown = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("md"));
    if is_named || (kind.is_file() && is_markdown) {
        files.push(path.to_owned());
    }
    Ok(())
}

fn merge(args: &MergeArgs) -> Result<Report, Failure> {
    let (base, _) = decoded(&args.base)?;
    let (ours, encoding) = decoded(&args.ours)?;
    let (theirs, _) = decoded(&args.theirs)?;
    let merged = zyflow_spec::merge_text(&base, &ours, &theirs);
    let bytes = zyflow_spec::encode(&merged.text, encoding);
    let conflicts: Vec<Value> = merged
        .conflicts
        .iter()
        .map(|conflict| {
            json!({
                "field": format!("{:?}", conflict.field).to_lowercase(),
                "base": conflict.base, "ours": conflict.ours, "theirs": conflict.theirs,
            })
        })
        .collect();
    let told: Vec<String> = conflicts
        .iter()
        .map(|conflict| format!("\n  {}: ours {}, theirs {}", conflict["field"], conflict["ours"], conflict["theirs"]))
        .collect();
    let failure = (!told.is_empty()).then(|| {
        let message = format!(
            "{} conflicts; ours stands in {}, decide for each and save it:{}",
            told.len(),
            args.ours.display(),
            told.concat()
        );
        Failure::new(Code::Conflict, message)
    });
    let value = json!({ "text": merged.text, "conflicts": conflicts });
    if args.stdout {
        return Ok(Report { output: Output::Text { text: bytes, value }, failure });
    }
    replace(&args.ours, &bytes)?;
    Ok(Report { output: Output::Text { text: Vec::new(), value }, failure })
}

fn decoded(path: &Path) -> Result<(String, Encoding), Failure> {
    let unreadable = |error: DecodeError| Failure::new(Code::Check, format!("{}: {error}", path.display()));
    if let Some(bytes) = oversize(path)? {
        return Err(unreadable(DecodeError::TooLarge { bytes, limit: FILE_BYTES_MAX }));
    }
    zyflow_spec::decode(&read(path)?).map_err(unreadable)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| file_failure("read", path, &error))
}

/// Puts other contents in a file's place, all or nothing; its mode stays.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = || {
        // Through a link to what it points at: the link stays.
        let target = std::fs::canonicalize(path)?;
        let mode = std::fs::metadata(&target)?.permissions();
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".merged-{}", std::process::id()));
        let temporary = target.with_file_name(name);
        let moved = File::create_new(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.set_permissions(mode)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &target)
        });
        if moved.is_err() {
            // The error that matters is the one above; the name says what a left-over is.
            let _ = std::fs::remove_file(&temporary);
        }
        moved
    };
    written().map_err(|error| file_failure("write", path, &error))
}

fn file_failure(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    let code = if error.kind() == std::io::ErrorKind::NotFound { Code::NotFound } else { Code::File };
    Failure::new(code, format!("cannot {what} {}: {error}; check the path and its permissions", path.display()))
}
