//! The tasks of one version of a file, as the measurement compares them.

use zyflow_spec::{BlockKind, Document};

/// One task line.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Its place among the blocks.
    pub block: usize,
    /// The number or code that people gave it.
    pub id: Option<String>,
    /// The words without number and mark.
    pub title: String,
    /// Everything behind the mark, blanks squeezed: what matching by text alone goes by.
    pub line: String,
    /// The exact line without its mark.
    pub exact: String,
    /// The words of the heading above it.
    pub heading: String,
    pub is_done: bool,
}

/// The tasks of a document in order.
pub(crate) fn tasks(document: &Document) -> Vec<Task> {
    let mut heading = String::new();
    let mut tasks = Vec::new();
    for (at, block) in document.blocks.iter().enumerate() {
        if block.kind == BlockKind::Heading {
            block.title().clone_into(&mut heading);
        }
        if block.kind == BlockKind::Task {
            let behind = block.content.text.trim_start_matches(']');
            tasks.push(Task {
                block: at,
                id: block.explicit_id().map(str::to_owned),
                title: block.title().trim().to_owned(),
                line: behind.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase(),
                exact: format!("{}{}", block.content.lead, block.content.text),
                heading: heading.clone(),
                is_done: block.is_done(),
            });
        }
    }
    tasks
}
