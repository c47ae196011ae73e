//! Optimistic concurrency: `--expect REV`, and what is told where somebody was quicker.

use super::compare::origin;
use super::context::Context;
use super::report::Failure;
use super::task_view::time;
use crate::client::Client;
use crate::code::Code;
use crate::read::{Consistency, Read};
use clap::Args;
use zyflow_machine::command::{Body, Expected};
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::outcome::StaleField;

/// Fields that are told with who changed them; a stale command looks at all of it again anyway.
const TOLD_MAX: usize = 3;

/// Versions that are looked through for who it was: it was just now, as a rule.
const NEWEST_MAX: u32 = 100;

/// What must not have changed.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct ExpectArgs {
    /// Only if it hasn't changed after this revision; else nothing is done, the exit code is 4, and the current version is told.
    #[arg(long, visible_alias = "expected", value_name = "REV")]
    pub(super) expect: Option<u64>,
}

impl ExpectArgs {
    /// `body`, where `record` must be as it was.
    pub(super) fn wrap(self, record: RecordId, body: Body) -> Body {
        match self.expect {
            Some(revision) => {
                let expected = vec![Expected { record, revision: Revision(revision) }];
                Body::Expecting { expected, body: Box::new(body) }
            }
            None => body,
        }
    }
}

/// What has changed, at which revision, and by whom; `what` is the thing that the command was about.
pub(super) async fn stale(
    context: &Context,
    client: &Client,
    revision: Revision,
    fields: &[StaleField],
    what: &str,
) -> Failure {
    let read = Read { consistency: Consistency::AtLeast(Revision(revision.0.saturating_sub(1))), ..context.read_now() };
    let mut told = Vec::new();
    let mut current = Revision(0);
    for stale in fields.iter().take(TOLD_MAX) {
        let at = stale.changed_at.revision();
        let mut line = format!("{} of {} at revision {at}", stale.field, stale.record);
        // Who it was is a courtesy: that it is stale is known without it.
        if let Ok(history) = client.newest_history(read, stale.record, NEWEST_MAX).await {
            let newest = history.value.last().map_or(at, |version| version.version.revision());
            current = current.max(newest);
            let made = history.value.iter().rfind(|version| version.version.revision() == at);
            if let Some(version) = made {
                let provenance = &version.provenance;
                line = format!(
                    "{line}, by {} ({}) on {}",
                    provenance.author.name,
                    origin(provenance),
                    time(provenance.time)
                );
            }
        }
        current = current.max(at);
        told.push(line);
    }
    let more = fields.len().saturating_sub(TOLD_MAX);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    let message = format!(
        "{what} has changed meanwhile: {}; its current version is {current}: look at it again, then repeat the command",
        told.join("; ")
    );
    Failure::new(Code::Stale, message)
}
