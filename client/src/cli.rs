//! The command line: arguments in, one [`Report`] out, printed by one renderer.
//!
//! Each group of commands has a file; each command is a function from its arguments and a [`Context`] to a report or a
//! [`Failure`]. Results go to stdout, everything else to stderr; the exit code is the failure's (`docs/errors`).
//!
//! Runs on a single-thread runtime: one process, a few calls, and in `bench` many small messages, for which threads that
//! wake each other cost more than they win.

mod admin;
mod args;
mod backup;
mod bench;
mod change;
mod checkout;
mod claim;
mod cluster;
mod compare;
mod conflict;
mod context;
mod demo;
mod dev;
mod diff;
mod expect;
mod join;
mod log;
mod point;
mod policy;
mod project;
mod quorum;
mod render;
mod replay;
mod report;
mod resolve;
mod retention;
mod rollback;
mod spec;
mod sql;
mod sync;
mod task;
mod task_edit;
mod task_view;
mod verify;

pub use args::{Cli, Format, Global};
pub use context::Context;
pub use report::{Failure, Output, Report};

use args::Command;
use clap::Parser;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Parses the process's arguments, does what they say, prints, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.global.output;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(run(cli))),
        Err(error) => Err(Failure::new(crate::Code::File, format!("the runtime can't be started: {error}"))),
    };
    let (output, failure) = match result {
        Ok(report) => (Some(report.output), report.failure),
        Err(failure) => (None, Some(failure)),
    };
    if let Some(output) = output
        && let Err(error) = print(&output, format)
    {
        return told(&Failure::new(crate::Code::File, format!("the result can't be written to stdout: {error}")));
    }
    failure.as_ref().map_or(ExitCode::SUCCESS, told)
}

fn print(output: &Output, format: Format) -> std::io::Result<()> {
    let rendered = render::render(output, format);
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(&rendered).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough: `zyflow task list | head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn told(failure: &Failure) -> ExitCode {
    let code = failure.code.as_str();
    let shown = if std::io::stderr().is_terminal() { format!("\x1b[31m{code}\x1b[0m") } else { code.to_owned() };
    // If stderr is closed too, the exit code is all that is left to say it with.
    let _ = writeln!(std::io::stderr(), "zyflow: {shown}: {}", failure.message);
    failure.code.exit().into()
}

async fn run(cli: Cli) -> Result<Report, Failure> {
    let mut context = Context::new(cli.global);
    let done = match context.pin().await {
        Ok(()) => command(&context, cli.command).await,
        Err(failure) => Err(failure),
    };
    match done {
        Ok(report) => Ok(report),
        Err(failure) => Err(quorum::explained(&context, failure).await),
    }
}

async fn command(context: &Context, command: Command) -> Result<Report, Failure> {
    match command {
        Command::Dev(args) => dev::run(context, args).await,
        Command::Demo(args) => demo::run(context, args).await,
        Command::Status => admin::status(context).await,
        Command::Doctor => admin::doctor(context).await,
        Command::Cluster(command) => cluster::run(context, command).await,
        Command::Checkout(command) => checkout::run(context, command).await,
        Command::Project(command) => project::run(context, command).await,
        Command::Change(command) => change::run(context, command).await,
        Command::Task(command) => task::run(context, command).await,
        Command::Spec(command) => spec::run(context, command).await,
        Command::Conflict(command) => conflict::run(context, command).await,
        Command::Point(command) => point::run(context, command).await,
        Command::Retention(command) => retention::run(context, command).await,
        Command::Diff(args) => diff::run(context, args).await,
        Command::Replay(args) => replay::run(context, args).await,
        Command::Log(args) => log::run(context, args).await,
        Command::Sql(args) => sql::run(context, args).await,
        Command::Rollback(args) => rollback::run(context, args).await,
        Command::Sync(args) => sync::sync(context, args).await,
        Command::Validate(args) => sync::validate(context, args).await,
        Command::Backup(command) => backup::run(context, command).await,
        Command::Verify(args) => verify::run(context, args).await,
        Command::Bench(args) => bench::run(context, args).await,
    }
}
