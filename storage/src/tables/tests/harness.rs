//! Tables in a temporary folder, with a log kept in memory, and the same log applied to the machine's own model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use zeroize::Zeroizing;
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
use zyflow_machine::command::{Anchor, Author, Batch, BlockOp, Body, Command, EditMode, NewBlock, TaskField};
use zyflow_machine::id::{ClusterTime, RecordId, RequestId, Revision};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::{KIND_TASK, Kind};
use zyflow_machine::view::View;
use zyflow_machine::{Digest, Machine, MapView};

use crate::tables::{Entry, EntryPayload, Position, Tables, TablesConfig, TablesError, TablesView};

pub(crate) const LINEAGE: Lineage = Lineage(*b"lineage of tests");

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The key ring of the cluster that the tests play.
pub(crate) fn ring() -> KeyRing {
    KeyRing::new(DataKey::new(KeyId(1), Zeroizing::new([7; 32])))
}

/// A node's key in `dir`.
pub(crate) fn local_key(dir: &Path) -> Arc<LocalKey> {
    Arc::new(LocalKey::create_or_load(&dir.join("node.key"), &ring()).unwrap())
}

/// Where a test's `Tables` write only when they are told to.
pub(crate) fn lazy(dir: &Path) -> TablesConfig {
    TablesConfig { flush_interval: Duration::from_hours(1), ..TablesConfig::new(dir.join("tables"), LINEAGE) }
}

/// A node: tables, and a log that survives what happens to them.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: TablesConfig,
    pub(crate) key: Arc<LocalKey>,
    pub(crate) durable: watch::Sender<Option<u64>>,
    pub(crate) log: Vec<Entry>,
    tables: Option<Tables>,
}

impl Node {
    /// With an empty log, all of which counts as durable.
    pub(crate) fn new(configure: impl FnOnce(&mut TablesConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = lazy(dir.path());
        configure(&mut config);
        let key = local_key(dir.path());
        let mut node =
            Self { dir, config, key, durable: watch::Sender::new(Some(u64::MAX)), log: Vec::new(), tables: None };
        node.reopen().unwrap();
        node
    }

    pub(crate) fn tables(&self) -> &Tables {
        self.tables.as_ref().unwrap()
    }

    pub(crate) fn view(&self) -> TablesView {
        self.tables().view(None).unwrap()
    }

    /// Drops the tables as a kill would, opens them again, and applies what they lack. Returns how many entries that were.
    pub(crate) fn reopen(&mut self) -> Result<usize, TablesError> {
        self.tables = None;
        let tables = Tables::open(self.config.clone(), Arc::clone(&self.key), self.durable.subscribe())?;
        let (position, _) = tables.applied_state()?;
        let missing: Vec<Entry> = self.log.iter().filter(|entry| Some(entry.position) > position).cloned().collect();
        for entry in &missing {
            tables.apply(entry.clone())?;
        }
        self.tables = Some(tables);
        Ok(missing.len())
    }

    /// Ends the tables as a kill would.
    pub(crate) fn kill(&mut self) {
        self.tables = None;
    }

    /// Appends an entry to the log and applies it.
    pub(crate) fn apply(&mut self, payload: EntryPayload) -> Result<Vec<Outcome>, TablesError> {
        let index = self.log.last().map_or(1, |last| last.position.index + 1);
        let entry = Entry { position: Position { term: 1, leader: 1, index }, payload };
        self.log.push(entry.clone());
        self.tables().apply(entry)
    }

    /// Applies one command, which must be accepted, and gives what it created.
    pub(crate) fn run(&mut self, body: Body) -> Vec<RecordId> {
        let outcomes = self.apply(batch(vec![command(None, body)])).unwrap();
        match &outcomes[..] {
            [Outcome::Accepted { created, .. }] => created.clone(),
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// The digests by the machine and by SQLite alone, which must be at the same revision.
    pub(crate) fn assert_digests_equal(&self) -> (Revision, Digest) {
        self.tables().flush().unwrap();
        let kept = self.tables().digest().unwrap();
        assert_eq!(kept, self.tables().recompute_digest().unwrap());
        kept
    }

    /// The database file in use.
    pub(crate) fn database(&self) -> PathBuf {
        let dir = &self.config.dir;
        let generation: u64 = std::fs::read_to_string(dir.join("CURRENT")).unwrap().trim().parse().unwrap();
        dir.join(format!("tables-{generation:06}.sqlite"))
    }
}

/// Waits until `is_so`.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn batch(commands: Vec<Command>) -> EntryPayload {
    EntryPayload::Batch(Batch { stamped: ClusterTime(1000), commands })
}

pub(crate) fn command(request: Option<RequestId>, body: Body) -> Command {
    Command { request, author: Author { name: "ann".to_owned(), clock_ms: 5 }, body }
}

pub(crate) fn task_block(text: &str) -> NewBlock {
    NewBlock { kind: KIND_TASK, lead: "- [".to_owned(), mark: " ".to_owned(), text: format!("] {text}\n") }
}

pub(crate) fn note(task: RecordId, text: &str) -> Body {
    Body::SetTask { task, expected: None, fields: vec![TaskField::Note(text.to_owned())], mark: None }
}

pub(crate) fn edit(change: RecordId, base: Revision, ops: Vec<BlockOp>) -> Body {
    Body::Edit { change, base, mode: EditMode::Merge, ops, conflicts: Vec::new() }
}

pub(crate) fn insert_first(text: &str) -> BlockOp {
    BlockOp::Insert { after: Anchor::Start, block: task_block(text) }
}

/// A project, a change and `count` tasks: (project, change, tasks).
pub(crate) fn populate(node: &mut Node, count: usize) -> (RecordId, RecordId, Vec<RecordId>) {
    let project = node.run(Body::CreateProject { name: "garden".to_owned(), files: vec!["tasks.md".to_owned()] })[0];
    let blocks = (0..count).map(|at| task_block(&format!("task {at}"))).collect();
    let created = node.run(Body::CreateChange { project, path: "a/tasks.md".to_owned(), blocks, ops: Vec::new() });
    (project, created[0], created[1..].to_vec())
}

/// The machine's own model, with the state at each revision.
#[derive(Default)]
pub(crate) struct Model {
    machine: Machine,
    pub(crate) map: MapView,
    pub(crate) past: Vec<(Revision, MapView)>,
    pub(crate) ids: Vec<(Kind, RecordId)>,
}

impl Model {
    pub(crate) fn apply(&mut self, entry: &Entry) -> Vec<Outcome> {
        let revision = entry.position.revision();
        let outcomes = match &entry.payload {
            EntryPayload::Blank | EntryPayload::Membership(_) => {
                self.machine.skip(revision);
                Vec::new()
            }
            EntryPayload::Batch(batch) => {
                let effects = self.machine.apply(&self.map, revision, batch).unwrap();
                self.map.commit_effects(&effects);
                for (row, _) in effects.rows {
                    if row.previous.is_none() {
                        self.ids.push((row.kind, row.id));
                    }
                }
                effects.outcomes
            }
        };
        self.past.push((revision, self.map.clone()));
        outcomes
    }

    pub(crate) fn digest(&self) -> (Revision, Digest) {
        (self.machine.revision(), self.machine.digest())
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<RecordId> {
        self.ids.iter().filter(|(known, _)| *known == kind).map(|(_, id)| *id).collect()
    }

    /// Everything that can be asked of the tables at a revision, compared with the state then; below the horizon nothing can.
    pub(crate) fn assert_same_at(&self, revision: Revision, map: &MapView, tables: &Tables) {
        if revision < self.map.horizon() {
            let error = tables.view(Some(revision)).unwrap_err();
            assert!(matches!(error, TablesError::Compacted { .. }), "{error}");
        } else {
            self.assert_same(revision, map, &tables.view(Some(revision)).unwrap());
        }
    }

    /// Everything that a view can be asked, compared.
    pub(crate) fn assert_same(&self, revision: Revision, map: &MapView, view: &TablesView) {
        assert_eq!(view.revision(), revision);
        let horizon = self.map.horizon();
        let mut map = map.clone();
        map.purge_to(horizon);
        let map = &map;
        for (kind, id) in &self.ids {
            assert_eq!(view.get(*id).unwrap(), map.get(*id).unwrap(), "{kind:?} {id} at {revision}");
            let before = Revision(revision.0 / 2).max(horizon);
            assert_eq!(view.get_at(*id, before).unwrap(), map.get_at(*id, before).unwrap(), "{id} at {before}");
            let versions: Vec<_> = view.history(*id).unwrap().into_iter().map(|version| version.stored).collect();
            assert_eq!(versions, map.history(*id), "history of {id} at {revision}");
        }
        let parents = self.ids.iter().map(|(_, id)| *id).chain([RecordId::ROOT]);
        for parent in parents {
            for kind in Kind::ALL {
                Self::assert_family_same((kind, parent), map, view, horizon);
            }
            // Twice: the second time from what was kept.
            for _ in 0..2 {
                Self::assert_lists_same(parent, map, view);
            }
        }
    }

    fn assert_lists_same(parent: RecordId, map: &MapView, view: &TablesView) {
        let listed = |kind| match kind {
            Kind::Project => view.projects(),
            Kind::Point => view.points(),
            Kind::Change => view.changes(parent),
            Kind::Block => view.blocks(parent),
            Kind::Conflict => view.conflicts(parent),
            Kind::Comment => view.comments(parent),
            Kind::Retention | Kind::Restore => unreachable!("that is no list"),
        };
        for kind in Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Retention | Kind::Restore)) {
            let parent = if matches!(kind, Kind::Project | Kind::Point) { RecordId::ROOT } else { parent };
            let children = map.children(kind, parent).unwrap().into_iter();
            let expected: Vec<_> = children.map(|(_, id)| (id, map.get(id).unwrap().unwrap())).collect();
            assert_eq!(listed(kind).unwrap(), expected, "{kind:?} of {parent} at {}", view.revision());
        }
    }

    fn assert_family_same((kind, parent): (Kind, RecordId), map: &MapView, view: &TablesView, horizon: Revision) {
        assert_eq!(view.children(kind, parent).unwrap(), map.children(kind, parent).unwrap());
        let half = Revision(view.revision().0 / 2).max(horizon);
        assert_eq!(view.changed(kind, parent, half).unwrap(), map.changed(kind, parent, half).unwrap());
        let mut after: Option<Vec<u8>> = None;
        loop {
            let next = view.next(kind, parent, after.as_deref()).unwrap();
            assert_eq!(next, map.next(kind, parent, after.as_deref()).unwrap());
            let Some((order, _)) = next else { break };
            assert_eq!(view.find(kind, parent, &order).unwrap(), map.find(kind, parent, &order).unwrap(), "{order:?}");
            after = Some(order);
        }
        assert_eq!(view.find(kind, parent, b"nowhere").unwrap(), None);
    }
}
