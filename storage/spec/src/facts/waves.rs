//! Kiro's graph of dependencies: a fence of JSON that says which tasks can be done at once. It is read and never written.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Most tasks that the waves of one file name; ten times the longest real file's tasks.
const WAVE_TASKS_MAX: usize = 1 << 13;

#[derive(Deserialize)]
struct Graph {
    waves: Vec<Wave>,
}

#[derive(Deserialize)]
struct Wave {
    id: u32,
    tasks: Vec<String>,
}

/// The tasks that a fence puts into waves, with the number of the wave; none when it is no such graph. A graph over the size of one block
/// is cut and not read.
pub(crate) fn waves_in(fence: &str) -> BTreeMap<String, u32> {
    let body = fence.split_once('\n').map(|(_, body)| body);
    let json = body.filter(|body| body.contains("\"waves\"")).and_then(|body| body.get(..=body.rfind('}')?));
    let graph = json.and_then(|json| serde_json::from_str::<Graph>(json).ok());
    let waves = graph.into_iter().flat_map(|graph| graph.waves);
    let tasks = waves.flat_map(|wave| wave.tasks.into_iter().map(move |task| (task, wave.id)));
    tasks.take(WAVE_TASKS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_read_and_anything_else_is_none() {
        let fence = |json: &str| format!("```json\n{json}\n```\n");
        let waves = waves_in(&fence(
            r#"{"waves": [{"id": 0, "tasks": ["1", "2.1"]}, {"id": 3, "tasks": ["2.2"], "more": 1}]}"#,
        ));
        let expected = [("1".to_owned(), 0), ("2.1".to_owned(), 0), ("2.2".to_owned(), 3)];
        assert_eq!(waves, BTreeMap::from(expected));
        for json in ["", "{}", r#"{"waves": 1}"#, r#"{"waves": [{"id": -1, "tasks": []}]}"#, r#"{"waves": ["#] {
            assert!(waves_in(&fence(json)).is_empty(), "{json}");
        }
        let deep = format!(r#"{{"waves": {}"#, "[".repeat(100_000));
        assert!(waves_in(&fence(&(deep + "}"))).is_empty());
    }
}
