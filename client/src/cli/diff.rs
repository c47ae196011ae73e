//! `zyflow diff`: what differs between two moments, in text and in runtime fields.
//!
//! Only changes that an event between the two touched are looked at, each at both revisions; what was changed and changed
//! back is no difference.

use super::args::moment;
use super::compare::{FieldChange, runtime_changes};
use super::context::Context;
use super::report::{Failure, Output, Report};
use super::resolve;
use crate::client::Client;
use crate::code::Code;
use crate::coordinator::spec_block;
use crate::moment::Moment;
use crate::read::{Document, Read};
use crate::watch::{Begin, News, WatchFilter};
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::{Block, TaskFields};

/// Lines of text around those that differ.
const CONTEXT_LINES: usize = 3;

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// From this revision, time or rollback point ...
    #[arg(value_name = "A", value_parser = moment)]
    from: Moment,
    /// ... to this one.
    #[arg(value_name = "B", value_parser = moment)]
    to: Moment,
    /// Only of this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only of this change, by its path at one of the two, or by its id.
    #[arg(long, value_name = "CHANGE")]
    change: Option<String>,
}

/// One side of the comparison.
#[derive(Default)]
struct Side {
    path: Option<String>,
    text: String,
    tasks: BTreeMap<RecordId, (String, TaskFields)>,
}

/// What differs in one change.
struct ChangeDiff {
    id: RecordId,
    project: String,
    before: Option<String>,
    after: Option<String>,
    text: String,
    tasks: Vec<(RecordId, String, Vec<FieldChange>)>,
}

pub(super) async fn run(context: &Context, args: DiffArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let from = client.pin(context.read_now(), args.from.clone()).await?;
    let to = client.pin(context.read_now(), args.to.clone()).await?;
    let filter = filter(context, &client, &args, (from, to)).await?;
    let mut differing = Vec::new();
    for (id, project) in touched(context, &client, filter, (from, to)).await? {
        let before = side(&client, at(context, from), id).await?;
        let after = side(&client, at(context, to), id).await?;
        let names = (format!("revision {from}"), format!("revision {to}"));
        differing.extend(differ(id, project, &before, &after, &names));
    }
    differing.sort_by(|one, other| (&one.project, one.path()).cmp(&(&other.project, other.path())));
    let changes: Vec<Value> = differing.iter().map(ChangeDiff::shown).collect();
    let text: String = differing.iter().map(ChangeDiff::lines).collect();
    let value = json!({ "from": from.0, "to": to.0, "changes": changes });
    Ok(Output::Text { text: text.into_bytes(), value }.into())
}

fn at(context: &Context, revision: Revision) -> Read {
    Read { at: Some(revision), ..context.read_now() }
}

async fn filter(
    context: &Context,
    client: &Client,
    args: &DiffArgs,
    (from, to): (Revision, Revision),
) -> Result<WatchFilter, Failure> {
    let named = args.project.as_deref();
    // It may be there at one of the two moments only.
    let (late, early) = (at(context, from.max(to)), at(context, from.min(to)));
    let project = match named {
        Some(name) => match resolve::project(client, late, name).await {
            Err(failure) if failure.code == Code::NotFound => {
                Some(resolve::project(client, early, name).await?.value.id)
            }
            found => Some(found?.value.id),
        },
        None => None,
    };
    let change = match args.change.as_deref().map(|text| (text, text.parse())) {
        Some((_, Ok(id))) => Some(id),
        Some((text, Err(_))) => match resolve::change(client, late, named, text).await {
            Err(failure) if failure.code == Code::NotFound => {
                Some(resolve::change(client, early, named, text).await?.id)
            }
            found => Some(found?.id),
        },
        None => None,
    };
    Ok(WatchFilter { project, change, ..WatchFilter::default() })
}

/// The changes that events between the two revisions are about, with their projects' names.
async fn touched(
    context: &Context,
    client: &Client,
    filter: WatchFilter,
    (from, to): (Revision, Revision),
) -> Result<BTreeMap<RecordId, String>, Failure> {
    let begin = Begin::From(Revision(from.min(to).0 + 1));
    let mut touched = BTreeMap::new();
    if from == to {
        return Ok(touched);
    }
    let mut watch = client.watch(filter, begin, Some(Moment::Revision(from.max(to))), Some(context.within()));
    while let Some(news) = watch.next().await? {
        let News::Events { events, .. } = news else { continue };
        for event in events {
            if let Some(change) = event.change {
                touched.insert(change, event.project_name);
            }
        }
    }
    Ok(touched)
}

/// A change as it was; nothing where it wasn't there.
async fn side(client: &Client, read: Read, id: RecordId) -> Result<Side, Failure> {
    match client.document(read, id).await {
        Ok(found) => Ok(Side::of(&found.value)),
        Err(error) if error.code() == Code::NotFound => Ok(Side::default()),
        Err(error) => Err(error.into()),
    }
}

impl Side {
    fn of(document: &Document) -> Self {
        let mut side =
            Self { path: document.change.record.as_ref().map(|change| change.path.clone()), ..Self::default() };
        for row in &document.blocks {
            let block = &row.record;
            side.text.extend([block.lead.as_str(), &block.mark.value, &block.text.value]);
            if let Some(task) = &block.task {
                side.tasks.insert(row.id, (title(block), (**task).clone()));
            }
        }
        side
    }
}

fn title(block: &Block) -> String {
    let shown = spec_block(block);
    let number = shown.explicit_id().map(|number| format!("{number} ")).unwrap_or_default();
    format!("{number}{}", shown.title())
}

/// `None` = the two are the same.
fn differ(
    id: RecordId,
    project: String,
    before: &Side,
    after: &Side,
    (old, new): &(String, String),
) -> Option<ChangeDiff> {
    let name = |side: &Side, when: &str| {
        side.path.as_ref().map_or_else(|| "/dev/null".to_owned(), |path| format!("{path} ({when})"))
    };
    let text = similar::TextDiff::from_lines(before.text.as_str(), after.text.as_str())
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&name(before, old), &name(after, new))
        .to_string();
    let ids: BTreeSet<RecordId> = before.tasks.keys().chain(after.tasks.keys()).copied().collect();
    let mut tasks = Vec::new();
    for task in ids {
        let (was, is) = (before.tasks.get(&task), after.tasks.get(&task));
        let changes = runtime_changes(was.map(|(_, fields)| fields), is.map(|(_, fields)| fields));
        if !changes.is_empty() {
            let title = is.or(was).map(|(title, _)| title.clone()).unwrap_or_default();
            tasks.push((task, title, changes));
        }
    }
    let is_same = before.path == after.path && before.text == after.text && tasks.is_empty();
    (!is_same).then(|| ChangeDiff { id, project, before: before.path.clone(), after: after.path.clone(), text, tasks })
}

impl ChangeDiff {
    fn path(&self) -> &str {
        self.after.as_deref().or(self.before.as_deref()).unwrap_or_default()
    }

    fn kind(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            (Some(before), Some(after)) if before != after => "moved",
            (Some(_), Some(_)) => "changed",
        }
    }

    fn shown(&self) -> Value {
        let task = |(id, title, changes): &(RecordId, String, Vec<FieldChange>)| {
            let fields: Vec<Value> = changes.iter().map(FieldChange::shown).collect();
            json!({ "id": id.to_string(), "title": title, "fields": fields })
        };
        json!({
            "id": self.id.to_string(),
            "project": self.project,
            "path": self.path(),
            "kind": self.kind(),
            "before": self.before,
            "after": self.after,
            "text": self.text,
            "tasks": self.tasks.iter().map(task).collect::<Vec<_>>(),
        })
    }

    fn lines(&self) -> String {
        let mut out = format!("{} {} of {}\n{}", self.kind(), self.path(), self.project, self.text);
        if !out.ends_with('\n') {
            out.push('\n');
        }
        for (id, title, changes) in &self.tasks {
            // Writing to a string can't fail.
            let _ = writeln!(out, "task {id} {title}");
            for change in changes {
                let _ = writeln!(out, "  {}", change.line());
            }
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use zyflow_machine::record::{Field, Status};

    fn side(path: Option<&str>, lines: &[(&str, Status)]) -> Side {
        let mut side = Side { path: path.map(str::to_owned), ..Side::default() };
        for (at, (text, status)) in lines.iter().enumerate() {
            let id = RecordId::from_u64(u64::try_from(at).unwrap() + 1);
            let fields = TaskFields { status: Field::new(*status, Revision(1)), ..TaskFields::default() };
            writeln!(side.text, "- [ ] {text}").unwrap();
            side.tasks.insert(id, ((*text).to_owned(), fields));
        }
        side
    }

    fn check(before: &Side, after: &Side, expected: &Expect) {
        let names = ("revision 3".to_owned(), "revision 9".to_owned());
        let found = differ(RecordId::from_u64(7), "demo".to_owned(), before, after, &names);
        expected.assert_eq(&found.map_or_else(|| "the same".to_owned(), |found| found.lines()));
    }

    #[test]
    fn text_and_fields_that_differ_are_told() {
        let before = side(Some("a/tasks.md"), &[("one", Status::Todo), ("two", Status::Todo)]);
        let after = side(Some("a/tasks.md"), &[("one", Status::Review), ("2", Status::Todo)]);
        check(
            &before,
            &after,
            &expect![[r"
                changed a/tasks.md of demo
                --- a/tasks.md (revision 3)
                +++ a/tasks.md (revision 9)
                @@ -1,2 +1,2 @@
                 - [ ] one
                -- [ ] two
                +- [ ] 2
                task 0.1 one
                  status: todo -> review

            "]],
        );
        check(&before, &before, &expect!["the same"]);
    }

    #[test]
    fn what_came_and_what_went_is_told() {
        let there = side(Some("a/tasks.md"), &[("one", Status::Done)]);
        check(
            &Side::default(),
            &there,
            &expect![[r"
                added a/tasks.md of demo
                --- /dev/null
                +++ a/tasks.md (revision 9)
                @@ -0,0 +1 @@
                +- [ ] one
                task 0.1 one
                  status: - -> done

            "]],
        );
        let moved = side(Some("b/tasks.md"), &[("one", Status::Done)]);
        check(
            &there,
            &moved,
            &expect![[r"
            moved b/tasks.md of demo

        "]],
        );
    }
}
