//! The loop: what happens becomes something due, what is due is done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use zyflow_machine::id::{RecordId, Revision};
use zyflow_machine::record::Policy;
use zyflow_spec::Strategies;

use super::claim::Claim;
use super::dirt::Dirt;
use super::file::File;
use super::flight::{Landed, Session};
use super::gate::Gate;
use super::gone::Confirmed;
use super::head::Head;
use super::keep::KeptFile;
use super::{Error, Seams, Wishes};
use crate::base::{Binding, Store, StoreError};
use crate::beneath::Root;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::git::{Git, HeadBlobs};
use crate::globs::Globs;
use crate::path::FilePath;
use crate::scan::{FOLDERS_MAX, walk};
use crate::status::{CheckoutStatus, FileStatus, Offline};
use crate::watch::{Hint, Mode, Watcher};
use crate::write::Keep;

/// How often a closed gate is tried again without a hint: half a second.
const GATE_POLL: Duration = Duration::from_millis(500);

/// After a look at what the cluster applied, the next one comes not before this, so that a thousand writes to other files in a
/// second cost two hundred looks. The first after a pause is immediate.
const APPLIED_GAP: Duration = Duration::from_millis(5);

/// Sleep when nothing is due.
const NOTHING_DUE: Duration = Duration::from_hours(1);

/// Where replaced files are kept as a last resort, in the checkout. Its files match no glob by their names.
const KEEP_IN_ROOT: &str = ".zyflow-replaced";

/// What the loop waits for.
pub(super) enum Event {
    Hint(Hint),
    Applied,
    Landed(Box<Landed>),
    Wish,
    Timer,
    Stop,
}

/// A running checkout.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one checkout")]
pub(super) struct Engine<C> {
    pub(super) config: Config,
    pub(super) cluster: Arc<C>,
    pub(super) root: Root,
    pub(super) store: Store,
    pub(super) binding: Binding,
    pub(super) keep: Keep,
    pub(super) kept: BTreeMap<String, KeptFile>,
    pub(super) git: Option<Git>,
    pub(super) blobs: HeadBlobs,
    pub(super) gate: Gate,
    pub(super) head: Head,
    pub(super) dirt: Dirt,
    /// Held as long as this runs.
    _claim: Claim,
    pub(super) offline: Option<Offline>,
    pub(super) project: Option<RecordId>,
    pub(super) globs: Globs,
    pub(super) globs_source: Vec<String>,
    pub(super) policy: Policy,
    pub(super) strategies: Strategies,
    pub(super) sides: BTreeMap<FilePath, (RecordId, bool)>,
    pub(super) files: BTreeMap<FilePath, File>,
    pub(super) damaged: BTreeMap<String, StoreError>,
    pub(super) watcher: Watcher,
    pub(super) flights: JoinSet<Landed>,
    pub(super) session: Session,
    pub(super) waiting: BTreeSet<FilePath>,
    pub(super) confirmed: Confirmed,
    pub(super) applied: watch::Receiver<Revision>,
    pub(super) looked_at: Revision,
    /// What was applied when the loop went round last: whatever it reads is at least as new.
    pub(super) applied_then: Revision,
    /// When the next move of `applied` is looked at at the earliest.
    pub(super) applied_from: Instant,
    pub(super) is_cluster_due: bool,
    pub(super) is_list_due: bool,
    pub(super) wishes: watch::Receiver<Wishes>,
    pub(super) done_wishes: Wishes,
    pub(super) take: Option<crate::plan::Take>,
    pub(super) scan_at: Instant,
    pub(super) notes: Vec<String>,
    pub(super) is_ready: bool,
    pub(super) has_scanned: bool,
    pub(super) status: watch::Sender<CheckoutStatus>,
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests interfere"))]
    pub(super) seams: Seams,
}

/// Waits until `from` and then for a change.
async fn changed_after(applied: &mut watch::Receiver<Revision>, from: Instant) -> Result<(), watch::error::RecvError> {
    sleep_until(from).await;
    applied.changed().await
}

impl<C: Cluster> Engine<C> {
    pub(super) fn open(
        config: Config,
        cluster: Arc<C>,
        wishes: watch::Receiver<Wishes>,
        status: watch::Sender<CheckoutStatus>,
        seams: Seams,
    ) -> Result<Self, Error> {
        let root_path = config.root.clone();
        let root = Root::open(&config.root).map_err(|source| Error::Root { root: root_path.clone(), source })?;
        let claim = Claim::new(&config.root)?;
        let in_store = |source| Error::Store { root: root_path.clone(), source };
        let store = Store::open(&config.state_dir, &config.lineage, config.seal.clone()).map_err(in_store)?;
        let git = Git::discover(&config.root);
        let head = git.as_ref().map(Git::head).unwrap_or_default();
        let known = store.binding(&config.project).map_err(in_store)?;
        let binding = known.unwrap_or_else(|| Binding {
            lineage: config.lineage.clone(),
            project: config.project.clone(),
            branch: head.branch.clone(),
            head: head.commit.clone(),
            is_bound: false,
            asked: BTreeSet::new(),
        });
        let loaded = store.load().map_err(in_store)?;
        let keep = Keep::open(&root, &keep_folders(&config, git.as_ref()))
            .map_err(|source| Error::Keep { root: root_path.clone(), source })?;
        let now = Instant::now();
        let take = wishes.borrow().take;
        let mut applied = cluster.applied();
        let looked_at = *applied.borrow_and_update();
        let mut engine = Self {
            watcher: make_watcher(&config.root, &seams),
            files: loaded.records.into_iter().map(|(path, record)| (path, File::new(record, now))).collect(),
            damaged: loaded.damaged,
            kept: BTreeMap::new(),
            blobs: HeadBlobs::default(),
            gate: Gate::default(),
            head: Head::default(),
            dirt: Dirt::default(),
            _claim: claim,
            offline: None,
            project: None,
            globs: Globs::default(),
            globs_source: Vec::new(),
            policy: Policy::default(),
            strategies: Strategies::default(),
            sides: BTreeMap::new(),
            flights: JoinSet::new(),
            session: Session::default(),
            waiting: BTreeSet::new(),
            confirmed: Confirmed::default(),
            is_cluster_due: false,
            is_list_due: true,
            done_wishes: Wishes::default(),
            scan_at: now,
            notes: Vec::new(),
            is_ready: false,
            has_scanned: false,
            config,
            cluster,
            root,
            store,
            binding,
            keep,
            git,
            applied,
            looked_at,
            applied_then: looked_at,
            applied_from: now,
            wishes,
            take,
            status,
            seams,
        };
        engine.find_leftovers(now);
        Ok(engine)
    }

    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        tracing::info!(root = %self.config.root.display(), project = self.config.project, "checkout runs");
        loop {
            self.step(Instant::now())?;
            self.publish();
            match self.select(stop).await {
                Event::Stop => break,
                event @ (Event::Hint(_) | Event::Applied | Event::Landed(_) | Event::Wish | Event::Timer) => {
                    self.apply(event, Instant::now());
                }
            }
            while let Some(hint) = self.watcher.try_next() {
                self.apply(Event::Hint(hint), Instant::now());
            }
        }
        // What flies is stored, and flies again at the next start under the same request id.
        self.flights.shutdown().await;
        Ok(())
    }

    async fn select(&mut self, stop: &CancellationToken) -> Event {
        let due = self.next_due();
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            hint = self.watcher.next() => Event::Hint(hint),
            Some(landed) = self.flights.join_next() => match landed {
                Ok(landed) => Event::Landed(Box::new(landed)),
                Err(error) => {
                    tracing::error!(%error, "a proposal panicked; it is proposed again");
                    Event::Timer
                }
            },
            Ok(()) = changed_after(&mut self.applied, self.applied_from) => Event::Applied,
            Ok(()) = self.wishes.changed() => Event::Wish,
            () = sleep_until(due) => Event::Timer,
        }
    }

    fn apply(&mut self, event: Event, now: Instant) {
        match event {
            Event::Hint(hint) => self.hinted(hint, now),
            Event::Applied => {
                self.is_cluster_due = true;
                self.applied_from = now + APPLIED_GAP;
            }
            Event::Landed(landed) => self.land(*landed, now),
            Event::Wish => self.wished(now),
            Event::Timer | Event::Stop => {}
        }
    }

    /// Does all that is due.
    fn step(&mut self, now: Instant) -> Result<(), Error> {
        if !self.pass_gate(now) {
            return Ok(());
        }
        let failed = |root: &Path, source| Error::Cluster { root: root.to_owned(), source };
        if !self.is_git_quiet(now) {
            return Ok(());
        }
        if self.is_cluster_due {
            self.is_cluster_due = false;
            self.cluster_moved(now).map_err(|source| failed(&self.config.root, source))?;
        }
        if self.is_list_due {
            self.is_list_due = false;
            self.list(now).map_err(|source| failed(&self.config.root, source))?;
        }
        if self.project.is_none() {
            return Ok(());
        }
        if self.scan_at <= now {
            self.scan(now);
        }
        self.look_at_kept(now);
        self.ask_for_point(now);
        let due: Vec<FilePath> =
            self.files.iter().filter(|(_, file)| file.is_due(now)).map(|(path, _)| path.clone()).collect();
        for path in due {
            self.look(&path, now);
        }
        self.remember_head();
        self.look_at_dirt();
        if !self.is_ready && self.files.values().all(File::is_looked_at) {
            self.ready();
        }
        Ok(())
    }

    /// Everything was looked at once: from now on a file that is new on both sides is an ordinary event.
    fn ready(&mut self) {
        self.is_ready = true;
        self.binding.is_bound = true;
        self.remember_binding();
    }

    pub(super) fn remember_binding(&mut self) {
        if let Err(error) = self.store.bind(&self.binding) {
            tracing::warn!(%error, "the binding could not be stored; tried again at the next change");
        }
    }

    /// Walks the folders, watches them, and makes every file due.
    fn scan(&mut self, now: Instant) {
        let rescans = self.wishes.borrow().rescans;
        let walk = match walk(&self.root, &self.globs) {
            Ok(walk) => walk,
            Err(error) => {
                tracing::warn!(%error, "the checkout's folder can't be read");
                self.gate.close(format!("the folder can't be read: {error}"));
                self.scan_at = now + GATE_POLL;
                return;
            }
        };
        self.notes.clear();
        if walk.is_cut {
            self.notes.push(format!("more than {FOLDERS_MAX} folders or too many files: narrow the project's globs"));
        }
        for (folder, reason) in &walk.unreadable {
            self.notes.push(format!("{folder} can't be read: {reason}"));
        }
        for name in &walk.unnameable {
            self.notes.push(format!("{name} is not synced: its name isn't UTF-8; rename it"));
        }
        let is_any_new = self.watch_folders(&walk.folders);
        if !std::mem::replace(&mut self.has_scanned, true) {
            self.adopt_temporaries(&walk.temporaries, now);
        }
        for path in walk.files {
            self.file(&path, now);
        }
        for file in self.files.values_mut() {
            file.due_now(now);
        }
        let (every, note) = match self.watcher.mode() {
            Mode::Watching => (self.config.timing.rescan, None),
            Mode::Polling(reason) => (self.config.timing.poll, Some(format!("polling: {reason}"))),
        };
        self.notes.extend(note);
        for (glob, reason) in self.globs.refused() {
            self.notes.push(format!("glob `{glob}` is not used: {reason}"));
        }
        // What came into a folder between the walk and its watch gave no hint: walk once more.
        self.scan_at = if is_any_new { now } else { now + every };
        self.done_wishes.rescans = rescans;
    }

    /// Watches these folders. Whether one of them is new.
    fn watch_folders(&mut self, folders: &[String]) -> bool {
        let root = &self.config.root;
        let mut watched: BTreeSet<PathBuf> =
            folders.iter().map(|folder| if folder.is_empty() { root.clone() } else { root.join(folder) }).collect();
        watched.extend(self.git.as_ref().map(|git| git.dir().to_owned()));
        watched.insert(self.keep.path().to_owned());
        self.watcher.watch(&watched)
    }

    /// The state of a file, made if need be.
    pub(super) fn file(&mut self, path: &FilePath, now: Instant) -> &mut File {
        self.files.entry(path.clone()).or_insert_with(|| File::new(crate::base::Record::new(path.as_str()), now))
    }

    fn hinted(&mut self, hint: Hint, now: Instant) {
        let (path, is_settled) = match hint {
            Hint::Rescan => {
                self.scan_at = now;
                self.is_list_due = true;
                return;
            }
            Hint::Folder(path) => {
                self.watcher.forget(&path);
                if path.starts_with(&self.config.root) {
                    self.scan_at = now;
                }
                return;
            }
            Hint::Settled(path) => (path, true),
            Hint::Touched(path) => (path, false),
        };
        if let Ok(name) = path.strip_prefix(self.keep.path()) {
            self.kept_was_touched(name, is_settled, now);
        } else if self.git.as_ref().is_some_and(|git| path.parent() == Some(git.dir())) {
            // HEAD, index, a lock: what git did is seen by looking.
            self.scan_at = now;
        } else if let Ok(relative) = path.strip_prefix(&self.config.root)
            && let Some(Ok(path)) = relative.to_str().map(FilePath::parse)
        {
            self.touched(&path, is_settled, now);
        }
    }

    fn touched(&mut self, path: &FilePath, is_settled: bool, now: Instant) {
        if !self.files.contains_key(path) && !self.globs.is_file(path) {
            // A folder that was moved in brings files along without a hint for each.
            if self.globs.is_folder(path.as_str()) {
                self.scan_at = now;
            }
            return;
        }
        let stamp = self.stamp(path);
        let timing = self.config.timing;
        self.file(path, now).hint(stamp, is_settled, now, &timing);
    }

    fn wished(&mut self, now: Instant) {
        let wishes = *self.wishes.borrow_and_update();
        if wishes.rescans != self.done_wishes.rescans || wishes.is_paused != self.done_wishes.is_paused {
            self.scan_at = now;
            self.is_list_due = true;
        }
        if wishes.take != self.take {
            self.take = wishes.take;
            self.scan_at = now;
        }
        if wishes.confirmed_deletions != self.done_wishes.confirmed_deletions {
            self.confirm_deletions(now);
        }
        self.done_wishes.is_paused = wishes.is_paused;
        self.done_wishes.confirmed_deletions = wishes.confirmed_deletions;
        self.done_wishes.take = wishes.take;
    }

    fn next_due(&self) -> Instant {
        let now = Instant::now();
        if self.gate.is_closed() {
            return now + GATE_POLL;
        }
        if self.dirt.is_due() && self.git.is_some() && self.project.is_some() && self.head.due().is_none() {
            return now;
        }
        let files = self.files.values().filter_map(File::due);
        let kept = self.kept.values().filter_map(KeptFile::due);
        files
            .chain(kept)
            .chain(self.head.due())
            .chain(self.confirmed.due().filter(|_| self.project.is_some()))
            .chain([self.scan_at, now + NOTHING_DUE])
            .min()
            .unwrap_or(now + NOTHING_DUE)
    }

    fn publish(&mut self) {
        self.files.values_mut().for_each(File::note_time);
        let mut notes = self.notes.clone();
        if self.project.is_none() {
            notes.push(format!("project `{}` doesn't exist in the cluster", self.config.project));
        }
        notes.extend(self.refused_deletions());
        let files = self.files.iter().filter(|(_, file)| file.is_shown()).map(|(path, file)| FileStatus {
            path: path.as_str().to_owned(),
            state: file.state.clone(),
            unsynced_since: file.unsynced_since,
            revision: file.record.base().map(|base| base.revision),
            written_by: file.record.shown.last().map(|shown| shown.by),
            kept: self.kept_of(path),
        });
        let status = CheckoutStatus {
            root: self.config.root.clone(),
            project: self.config.project.clone(),
            is_ready: self.is_ready,
            paused: self.gate.reason().map(str::to_owned),
            notes,
            offline: self.offline.clone(),
            dirtied: self.dirt.paths.iter().map(|path| path.as_str().to_owned()).collect(),
            applied: self.looked_at,
            rescans: self.done_wishes.rescans,
            files: files.collect(),
        };
        self.status.send_if_modified(|old| {
            let is_other = *old != status;
            *old = status;
            is_other
        });
    }
}

fn keep_folders(config: &Config, git: Option<&Git>) -> Vec<PathBuf> {
    let mut name = blake3::hash(config.root.as_os_str().as_encoded_bytes()).to_hex().to_string();
    name.truncate(16);
    let in_git = git.map(|git| git.dir().join("zyflow").join(name));
    // The last is in the checkout itself: the only place left where it isn't a git work tree and lies on another disk than the node's data.
    in_git.into_iter().chain([config.state_dir.join("replaced"), config.root.join(KEEP_IN_ROOT)]).collect()
}

#[cfg(not(test))]
fn make_watcher(root: &Path, _seams: &Seams) -> Watcher {
    Watcher::new(root)
}

#[cfg(test)]
fn make_watcher(root: &Path, seams: &Seams) -> Watcher {
    if seams.is_deaf { Watcher::deaf() } else { Watcher::new(root) }
}
