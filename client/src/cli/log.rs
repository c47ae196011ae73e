//! `zyflow log`: what happened, event by event; with `--follow`, as it happens.
//!
//! Tables and JSON lines are printed as the events come, so that a long history needs no memory and a follower sees each at
//! once; a JSON document is printed whole.

use super::args::{Format, moment};
use super::context::Context;
use super::render;
use super::report::{Failure, Output, Report};
use super::resolve;
use super::task_view::{self, time};
use crate::client::Client;
use crate::code::Code;
use crate::moment::Moment;
use crate::watch::{Begin, News, Watch, WatchEvent, WatchFilter};
use clap::Args;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use zyflow_machine::event::Fact;
use zyflow_machine::id::{ClusterTime, RecordId, Revision};

/// Events that are shown where neither a beginning nor a limit is given: a few screens.
const NEWEST_DEFAULT: u32 = 100;

/// Widths of a table's columns; the last one takes the rest. Known beforehand, as rows are printed when they come.
const WIDTHS: [(&str, usize); 6] =
    [("event", 10), ("time", 24), ("author", 18), ("type", 16), ("task", 10), ("change", 40)];

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Begin with this revision, at this time, or after this rollback point [default: the newest 100 events].
    #[arg(long, value_name = "REV|TIME|POINT", value_parser = moment)]
    from: Option<Moment>,
    /// End with this revision, at this time, or at this rollback point.
    #[arg(long, value_name = "REV|TIME|POINT", value_parser = moment, conflicts_with = "follow")]
    to: Option<Moment>,
    /// Go on with what happens from now on, until Ctrl-C; across nodes that end, nothing is lost and nothing comes twice.
    #[arg(long)]
    follow: bool,
    /// Only events of this type; may be repeated.
    #[arg(long = "type", value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(Fact::NAMES))]
    types: Vec<String>,
    /// Only of this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only of this change.
    #[arg(long, value_name = "CHANGE")]
    change: Option<String>,
    /// Only about this task: itself, its comments and conflicts.
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Only of this author.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Most events to show: the first ones from --from on, without it the newest.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

pub(super) async fn run(context: &Context, args: LogArgs) -> Result<Report, Failure> {
    let format = context.global.output;
    if args.follow && format == Format::Json {
        let message = "--follow never ends, so it can't be one JSON document: use -o jsonl";
        return Err(Failure::new(Code::Usage, message));
    }
    let client = context.client()?;
    let filter = filter(context, &client, &args).await?;
    let until = match (&args.to, args.follow) {
        (Some(to), _) => Some(to.clone()),
        (None, true) => None,
        (None, false) => Some(Moment::Revision(client.revision(context.read_now()).await?)),
    };
    let begin = begin(&args);
    let patience = (!args.follow).then(|| context.within());
    let watch = client.watch(filter, begin.clone(), until, patience);
    let shown = Shown { limit: args.limit, newest: newest(&begin), format };
    if format == Format::Json {
        return document(watch, &shown).await;
    }
    stream(watch, &shown).await
}

/// How many events, and how.
struct Shown {
    limit: Option<u32>,
    /// So many from the end; a watch may give a few more.
    newest: Option<usize>,
    format: Format,
}

async fn filter(context: &Context, client: &Client, args: &LogArgs) -> Result<WatchFilter, Failure> {
    let named = args.project.as_deref();
    let project = match named {
        Some(name) => Some(resolve::project(client, context.read(), name).await?.value.id),
        None => None,
    };
    let change = match &args.change {
        Some(change) => Some(change_id(context, client, named, change).await?),
        None => None,
    };
    let task = match &args.task {
        Some(task) => Some(resolve::task(client, context.read(), named, task).await?),
        None => None,
    };
    Ok(WatchFilter { project, change, task, types: args.types.clone(), author: args.by.clone() })
}

/// A change by its path, or by its id: a deleted one has no path any more.
async fn change_id(context: &Context, client: &Client, project: Option<&str>, text: &str) -> Result<RecordId, Failure> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(resolve::change(client, context.read(), project, text).await?.id),
    }
}

fn begin(args: &LogArgs) -> Begin {
    match (&args.from, args.follow) {
        (Some(Moment::Revision(revision)), _) => Begin::From(*revision),
        // What happened at the time itself belongs to what is from it on.
        (Some(Moment::Time(from)), _) => Begin::After(Moment::Time(ClusterTime(from.0.saturating_sub(1)))),
        (Some(point @ Moment::Point(_)), _) => Begin::After(point.clone()),
        (None, true) => args.limit.map_or(Begin::Now, Begin::Newest),
        (None, false) => Begin::Newest(args.limit.unwrap_or(NEWEST_DEFAULT)),
    }
}

fn newest(begin: &Begin) -> Option<usize> {
    match begin {
        Begin::Newest(count) => Some(usize::try_from(*count).unwrap_or(usize::MAX)),
        Begin::Now | Begin::From(_) | Begin::After(_) => None,
    }
}

/// All events as one report.
async fn document(mut watch: Watch, shown: &Shown) -> Result<Report, Failure> {
    let limit = shown.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut items = VecDeque::new();
    while let Some(news) = watch.next().await? {
        let News::Events { events, .. } = news else { continue };
        items.extend(events.iter().map(item));
        match shown.newest {
            Some(newest) => drop(items.drain(..items.len().saturating_sub(newest))),
            None if items.len() >= limit => {
                items.truncate(limit);
                break;
            }
            None => {}
        }
    }
    let columns = &["event", "time", "author", "type", "task", "change", "detail"];
    Ok(Output::List { columns, items: items.into(), revision: watch.complete() }.into())
}

/// The newest of the events that were there already: which those are is known at the first bookmark.
struct Held {
    newest: usize,
    /// The revision that the newest ones begin with.
    first: Option<Revision>,
    events: VecDeque<WatchEvent>,
}

impl Held {
    fn new(newest: usize) -> Self {
        Self { newest, first: None, events: VecDeque::new() }
    }

    fn add(&mut self, revision: Revision, events: Vec<WatchEvent>) {
        self.events.extend(events);
        // It may be a rollback of everything, with many more events than are wanted.
        if *self.first.get_or_insert(revision) == revision {
            self.drop_oldest_of(self.events.len());
        }
    }

    /// What is shown of them where all up to this revision was there already; what is newer came later, and is shown whole.
    fn release(mut self, caught_up: Option<Revision>) -> VecDeque<WatchEvent> {
        let there = match caught_up {
            Some(caught_up) => self.events.partition_point(|event| event.id.revision() <= caught_up),
            None => self.events.len(),
        };
        self.drop_oldest_of(there);
        self.events
    }

    /// Of the first `count` events only the newest ones stay.
    fn drop_oldest_of(&mut self, count: usize) {
        drop(self.events.drain(..count.saturating_sub(self.newest)));
    }
}

/// Each event as it comes.
async fn stream(mut watch: Watch, shown: &Shown) -> Result<Report, Failure> {
    let mut left = if shown.newest.is_some() { None } else { shown.limit };
    let mut held = shown.newest.map(Held::new);
    if shown.format == Format::Table && !say(&header())? {
        return Ok(Output::Nothing.into());
    }
    loop {
        let news = watch.next().await?;
        let is_over = news.is_none();
        let events: VecDeque<WatchEvent> = match news {
            Some(News::Events { revision, events, .. }) => match &mut held {
                Some(held) => {
                    held.add(revision, events);
                    continue;
                }
                None => events.into(),
            },
            Some(News::Bookmark(revision)) => release(&mut held, Some(revision)),
            None => release(&mut held, None),
        };
        for event in &events {
            if left == Some(0) || !say(&line(&item(event), shown.format))? {
                return Ok(Output::Nothing.into());
            }
            left = left.map(|left| left - 1);
        }
        if is_over || left == Some(0) {
            return Ok(Output::Nothing.into());
        }
    }
}

fn release(held: &mut Option<Held>, caught_up: Option<Revision>) -> VecDeque<WatchEvent> {
    held.take().map_or_else(VecDeque::new, |held| held.release(caught_up))
}

/// One event as a program reads it.
pub(super) fn item(event: &WatchEvent) -> Value {
    let request = event.provenance.request;
    json!({
        "event": event.id.to_string(),
        "revision": event.id.revision().0,
        "time": time(event.provenance.time),
        "author": event.provenance.author.name,
        "type": event.fact.name(),
        "record": event.record.to_string(),
        "kind": event.kind.noun(),
        "project": event.project_name,
        "project_id": event.project.map(|id| id.to_string()),
        "change": event.change_path,
        "change_id": event.change.map(|id| id.to_string()),
        "task": event.task.map(|id| id.to_string()),
        "correlation": event.correlation.to_string(),
        "causation": request.map(|request| format!("{}/{}", request.session.0, request.seq)),
        "detail": task_view::fact(&event.fact),
    })
}

fn header() -> Vec<u8> {
    let names = WIDTHS.iter().map(|(name, _)| name.to_uppercase());
    row(names.chain(["DETAIL".to_owned()]).collect())
}

fn line(item: &Value, format: Format) -> Vec<u8> {
    match format {
        Format::Json | Format::Jsonl => format!("{item}\n").into_bytes(),
        Format::Table => {
            let cells = WIDTHS.iter().map(|(name, _)| render::cell(&item[*name]));
            row(cells.chain([render::cell(&item["detail"])]).collect())
        }
    }
}

fn row(cells: Vec<String>) -> Vec<u8> {
    let mut text = String::new();
    for (at, cell) in cells.into_iter().enumerate() {
        match WIDTHS.get(at) {
            // Writing to a string can't fail.
            Some((_, width)) => {
                let _ = write!(text, "{cell:<width$}  ");
            }
            None => text.push_str(&cell),
        }
    }
    format!("{}\n", text.trim_end()).into_bytes()
}

/// Prints at once; `false` = nobody reads any more, which is no failure.
fn say(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Code::File, format!("the result can't be written to stdout: {error}"))),
    }
}
