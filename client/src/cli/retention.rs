//! `zyflow retention`: how much of the history is kept, agreed by all machines.

use super::context::Context;
use super::report::{Failure, Output, Report};
use super::task_view::time;
use crate::moment::Moment;
use clap::{Args, Subcommand};
use jiff::{Span, SpanRelativeTo, Unit};
use serde_json::{Value, json};
use zyflow_machine::command::Body;
use zyflow_machine::record::Keep;

#[derive(Debug, Subcommand)]
pub(super) enum RetentionCommand {
    /// Show what is kept, and where the history begins.
    Show,
    /// Say what is kept at least; the leader lets go of the rest by itself.
    Set(SetArgs),
    /// Let go of everything before a revision, a time or a rollback point, now and for ever.
    Compact {
        /// The oldest moment that can be read from then on.
        #[arg(value_parser = super::args::moment)]
        to: Moment,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct SetArgs {
    /// Keep so many revisions back from the newest.
    #[arg(long, value_name = "N", conflicts_with = "all")]
    revisions: Option<u64>,
    /// Keep so long: 12h, 90d. With --revisions, what either wants is kept.
    #[arg(long, value_name = "TIME", value_parser = age, conflicts_with = "all")]
    age: Option<u64>,
    /// Keep everything.
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(context: &Context, command: RetentionCommand) -> Result<Report, Failure> {
    let client = context.client()?;
    match command {
        RetentionCommand::Show => {
            let found = client.retention(context.read()).await?;
            let begins = (found.value.horizon.0 > 0).then(|| time(found.value.horizon_time));
            let item = json!({
                "keep": shown(found.value.keep),
                "horizon": found.value.horizon.0,
                "horizon_time": begins,
                "revision": found.revision.0,
            });
            Ok(Output::One { item, revision: Some(found.revision) }.into())
        }
        RetentionCommand::Set(args) => {
            let keep = Keep { revisions: args.revisions, age_ms: args.age };
            let (revision, _) = context.propose(&client, Body::SetRetention { keep }, "the retention").await?;
            Ok(Output::One { item: json!({ "keep": shown(keep) }), revision: Some(revision) }.into())
        }
        RetentionCommand::Compact { to } => {
            let to = client.pin(context.read_now(), to).await?;
            // Reading there says whether it can be read at all, and what time it is there.
            let there = client.retention(crate::read::Read { at: Some(to), ..context.read_now() }).await?;
            context.confirm(&format!("Let go of all history before revision {to}, on every machine and for ever?"))?;
            let body = Body::Compact { to, time: there.time };
            let (revision, _) = context.propose(&client, body, &format!("the history before {to}")).await?;
            let item = json!({ "horizon": to.0, "horizon_time": time(there.time) });
            Ok(Output::One { item, revision: Some(revision) }.into())
        }
    }
}

/// What is kept, as `show` and the log have it.
pub(super) fn shown(keep: Keep) -> Value {
    if keep.is_all() {
        return json!("all");
    }
    json!({ "revisions": keep.revisions, "age_ms": keep.age_ms })
}

/// `12h`, `90d`, `1w`: in milliseconds; a day has 24 hours.
fn age(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no length of time: write it as 12h or 90d");
    let span: Span = text.parse().map_err(|_| wrong())?;
    let total = span.total((Unit::Millisecond, SpanRelativeTo::days_are_24_hours())).map_err(|_| wrong())?;
    let whole = format!("{total:.0}").parse().ok().filter(|millis| *millis > 0);
    whole.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_length_of_time() {
        assert_eq!(age("90d"), Ok(90 * 86_400_000));
        assert_eq!(age("1w"), Ok(7 * 86_400_000));
        assert_eq!(age("1h30m"), Ok(5_400_000));
        for bad in ["", "0d", "-1d", "soon", "90", "1 month"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}
