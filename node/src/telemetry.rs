//! Logs to standard error: constant lower-case messages, data in fields, never contents or secrets.

use crate::config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// A log level that isn't one.
#[derive(Debug, thiserror::Error)]
#[error(
    "log.level `{level}` is not a level or filter: write error, warn, info, debug, trace or TARGET=LEVEL,..: {source}"
)]
pub struct LevelError {
    level: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Installs the process's one subscriber. Later calls change nothing.
///
/// # Errors
/// Where the level can't be read.
///
/// # Panics
/// Never: the one directive that is parsed here is a literal.
pub fn install(log: &Log) -> Result<(), LevelError> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|source| LevelError { level: log.level.clone(), source })?
        // openraft says much at info that operators can't use; its warnings stay.
        .add_directive("openraft=warn".parse().expect("invariant: a literal directive"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A subscriber is already there only where a test installed one.
    let _ = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    Ok(())
}
