//! The `zyflowd` binary: flags, one configuration, one node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use zyflow_node::checkouts::error_chain;
use zyflow_node::config::Config;
use zyflow_node::{backup, run, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A node of a ZyFlow cluster.
#[derive(Parser)]
#[command(name = "zyflowd", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the data folder of a node that has never run.
    New(Options),
    /// Runs the node until SIGTERM.
    Run(Options),
    /// Reads and checks the configuration, and changes nothing.
    Check(Options),
    /// Verifies or restores a backup, without a node.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
}

#[derive(clap::Args)]
struct Options {
    /// The configuration.
    #[arg(long, env = "ZYFLOW_CONFIG", default_value = "/etc/zyflow/zyflowd.toml")]
    config: PathBuf,
    /// Over `log.level` of the configuration.
    #[arg(long, env = "ZYFLOW_LOG_LEVEL")]
    log_level: Option<String>,
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::New(options) => make(&options),
        Command::Run(options) => start(&options),
        Command::Check(options) => load(&options).map(|config| {
            println!("{} is a usable configuration for node {}", options.config.display(), config.node.id);
        }),
        Command::Backup(command) => backup::run(&command).map(|found| println!("{found}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zyflowd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load(options: &Options) -> Result<Config, String> {
    let path: &Path = &options.config;
    let mut config = Config::load(path).map_err(|error| error.to_string())?;
    if let Some(level) = &options.log_level {
        config.log.level.clone_from(level);
    }
    Ok(config)
}

fn make(options: &Options) -> Result<(), String> {
    let config = load(options)?;
    run::make(&config).map_err(|error| error_chain(&error))?;
    println!("{} is ready for node {}", config.node.data.display(), config.node.id);
    Ok(())
}

fn start(options: &Options) -> Result<(), String> {
    let config = load(options)?;
    telemetry::install(&config.log).map_err(|error| error.to_string())?;
    run::run(config).map_err(|error| error_chain(&error))
}
