//! From what people write to records: projects by name, changes by path or unique end of it, tasks by id or by number.

use super::context::Context;
use super::report::Failure;
use crate::client::Client;
use crate::code::Code;
use crate::coordinator::{self, spec_block};
use crate::read::{Answer, Document, Read, Row};
use zyflow_machine::id::RecordId;
use zyflow_machine::record::{Block, Project};

/// A change that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundChange {
    pub(super) id: RecordId,
    pub(super) path: String,
    pub(super) project: String,
}

/// The project with this name.
pub(super) async fn project(client: &Client, read: Read, name: &str) -> Result<Answer<Row<Project>>, Failure> {
    let projects = client.projects(read).await?;
    let found = projects.value.into_iter().find(|row| row.record.name == name);
    let value = found.ok_or_else(|| {
        Failure::new(Code::NotFound, format!("there is no project `{name}`: `zyflow project list` shows all"))
    })?;
    Ok(Answer { revision: projects.revision, time: projects.time, value })
}

/// All live changes, of one project or of all.
pub(super) async fn changes(
    client: &Client,
    read: Read,
    project_name: Option<&str>,
) -> Result<Answer<Vec<FoundChange>>, Failure> {
    let projects = match project_name {
        Some(name) => {
            let found = project(client, read, name).await?;
            Answer { revision: found.revision, time: found.time, value: vec![found.value] }
        }
        None => client.projects(read).await?,
    };
    let mut found = Vec::new();
    let (mut revision, mut time) = (projects.revision, projects.time);
    for project in projects.value {
        let changes = client.changes(read, project.id).await?;
        (revision, time) = (changes.revision, changes.time);
        found.extend(changes.value.into_iter().filter_map(|row| {
            let path = row.record?.path;
            Some(FoundChange { id: row.id, path, project: project.record.name.clone() })
        }));
    }
    Ok(Answer { revision, time, value: found })
}

/// The one change that `text` means.
pub(super) async fn change(
    client: &Client,
    read: Read,
    project: Option<&str>,
    text: &str,
) -> Result<FoundChange, Failure> {
    pick(changes(client, read, project).await?.value, text)
}

/// The task that `text` means: `REVISION.ORDINAL`, or `CHANGE#NUMBER`.
pub(super) async fn task(client: &Client, read: Read, project: Option<&str>, text: &str) -> Result<RecordId, Failure> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let Some((path, number)) = text.rsplit_once('#') else {
        let message =
            format!("`{text}` is no task: write REVISION.ORDINAL as `zyflow task list` shows it, or CHANGE#1.2");
        return Err(Failure::new(Code::Usage, message));
    };
    let change = change(client, read, project, path).await?;
    let document = client.document(read, change.id).await?;
    numbered(&document.value, &change.path, number)
}

/// The exact path, else the only one that ends so; `add-login` also means `.../add-login/tasks.md`.
fn pick(changes: Vec<FoundChange>, text: &str) -> Result<FoundChange, Failure> {
    let is_exact = |change: &FoundChange| change.path == text;
    let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let ends = |path: &str| path == text || path.strip_suffix(text).is_some_and(|rest| rest.ends_with('/'));
    let is_end = |change: &FoundChange| ends(&change.path) || folder(&change.path).is_some_and(|folder| ends(&folder));
    let exact: Vec<_> = changes.iter().filter(|change| is_exact(change)).cloned().collect();
    let mut fitting = if exact.is_empty() { changes.into_iter().filter(is_end).collect::<Vec<_>>() } else { exact };
    match (fitting.pop(), fitting.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(Failure::new(
            Code::NotFound,
            format!("there is no change `{text}`: `zyflow change list` shows all paths"),
        )),
        (Some(last), false) => {
            fitting.push(last);
            let all: Vec<_> = fitting.iter().map(|change| format!("{} of {}", change.path, change.project)).collect();
            let message =
                format!("`{text}` means several changes ({}): write more of the path, or --project", all.join(", "));
            Err(Failure::new(Code::Ambiguous, message))
        }
    }
}

/// The only task with this number of its own.
fn numbered(document: &Document, path: &str, number: &str) -> Result<RecordId, Failure> {
    let is_it = |block: &Block| block.task.is_some() && spec_block(block).explicit_id() == Some(number);
    let found: Vec<_> = document.blocks.iter().filter(|row| is_it(&row.record)).map(|row| row.id).collect();
    match found.as_slice() {
        [only] => Ok(*only),
        [] => Err(Failure::new(
            Code::NotFound,
            format!("no task of {path} has the number {number}: `zyflow task list --change {path}` shows all"),
        )),
        several => {
            let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
            let message =
                format!("several tasks of {path} have the number {number}: name one by its id ({})", ids.join(", "));
            Err(Failure::new(Code::Ambiguous, message))
        }
    }
}

/// A change as the coordinator sees it, with the revision that it is true at.
pub(super) async fn coordinated(
    client: &Client,
    read: Read,
    found: &FoundChange,
) -> Result<Answer<coordinator::Change>, Failure> {
    let policy = project(client, read, &found.project).await?.value.record.policy.value;
    let document = client.document(read, found.id).await?;
    let change = coordinator::Change::new(&found.path, &document.value, &policy);
    Ok(Answer { revision: document.revision, time: document.time, value: change })
}

impl Context {
    /// The current id of a task.
    pub(super) async fn task_id(
        &self,
        client: &Client,
        project: Option<&str>,
        text: &str,
    ) -> Result<RecordId, Failure> {
        task(client, self.read_now(), project, text).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<FoundChange> {
        let paths =
            ["tasks.md", "specs/tasks.md", "openspec/changes/add-login/tasks.md", "openspec/changes/login/tasks.md"];
        let found = |(index, path): (u64, &str)| FoundChange {
            id: RecordId::from_u64(index),
            path: path.to_owned(),
            project: "demo".to_owned(),
        };
        (0..).zip(paths).map(found).collect()
    }

    fn picked(text: &str) -> Result<String, Code> {
        pick(all(), text).map(|change| change.path).map_err(|failure| failure.code)
    }

    #[test]
    fn a_change_is_meant_by_its_path_or_a_unique_end() {
        assert_eq!(picked("tasks.md"), Ok("tasks.md".to_owned()));
        assert_eq!(picked("add-login"), Ok("openspec/changes/add-login/tasks.md".to_owned()));
        assert_eq!(picked("login"), Ok("openspec/changes/login/tasks.md".to_owned()));
        assert_eq!(picked("login/tasks.md"), Ok("openspec/changes/login/tasks.md".to_owned()));
        assert_eq!(picked("specs"), Ok("specs/tasks.md".to_owned()));
        assert_eq!(picked("asks.md"), Err(Code::NotFound));
        assert_eq!(picked(""), Err(Code::NotFound));
        let twice: Vec<_> = all().into_iter().chain(all()).collect();
        assert_eq!(pick(twice, "add-login").map_err(|failure| failure.code), Err(Code::Ambiguous));
    }
}
