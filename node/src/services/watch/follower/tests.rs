//! Watches of a real node that is alone in its cluster: real log, real tables, nobody to talk to.

use std::collections::BTreeMap;
use std::io;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tonic::Request;
use zeroize::Zeroizing;
use zyflow_api::v1::watch_server::Watch;
use zyflow_api::v1::{Moment, WatchRequest, moment};
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
use zyflow_machine::command::{Author, Body, Command, NewBlock, TaskField};
use zyflow_machine::id::{ClusterTime, RecordId};
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::KIND_TASK;
use zyflow_raft::net::{Inbound, Io, Net, NetError};
use zyflow_raft::{ConsensusConfig, NodeId, NodeInfo, Role};
use zyflow_storage::layout::Layout;
use zyflow_storage::log::{Identity, LogConfig, LogStore};
use zyflow_storage::tables::TablesConfig;

use super::*;
use crate::services::watch::{WAITING_MAX, WatchService};

const LINEAGE: Lineage = Lineage([7; 16]);

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

type Answers = BoxStream<'static, Answer>;

/// No other node.
struct Nobody;

impl Net for Nobody {
    fn incoming(&self) -> BoxStream<'static, Inbound> {
        futures::stream::pending().boxed()
    }

    fn connect(&self, _node: NodeId, address: String) -> BoxFuture<'static, Result<Box<dyn Io>, NetError>> {
        let source = io::Error::from(io::ErrorKind::HostUnreachable);
        Box::pin(async move { Err(NetError::Io { address, source }) })
    }
}

struct Alone {
    consensus: Consensus,
    tables: Tables,
    service: WatchService,
    _stop: watch::Sender<bool>,
    _layout: Layout,
    _dir: tempfile::TempDir,
}

impl Alone {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("data"), LINEAGE, 1).unwrap();
        std::fs::remove_dir(layout.log_dir()).unwrap();
        let mut log = LogConfig::new(layout.log_dir(), Identity { lineage: LINEAGE.0, node: 1 });
        log.warm = false;
        LogStore::init(&log).unwrap();
        let log = LogStore::open(&log).unwrap();
        let ring = Arc::new(KeyRing::new(DataKey::new(KeyId(1), Zeroizing::new([7; 32]))));
        let key = Arc::new(LocalKey::create_or_load(&layout.node_key_file(), &ring).unwrap());
        let config = TablesConfig::new(layout.tables_dir(), LINEAGE);
        let tables = Tables::open(config, key, log.durable_watermark()).unwrap();
        let address = "localhost:1".to_owned();
        let mut config = ConsensusConfig::new(1, "team".to_owned(), LINEAGE, address.clone(), layout.snapshots_dir());
        config.disk_free_bytes_min = 0;
        let consensus = Consensus::start_over(config, log, tables.clone(), ring, Arc::new(Nobody)).await.unwrap();
        consensus.initialize(BTreeMap::from([(1, NodeInfo::at(address))])).await.unwrap();
        let mut status = consensus.watch_status();
        let leads = timeout(PATIENCE, status.wait_for(|status| status.role == Role::Leader)).await;
        assert!(leads.unwrap().is_ok());
        let (stop, stopped) = watch::channel(false);
        let service = WatchService::new(consensus.clone(), tables.clone(), stopped);
        Self { consensus, tables, service, _stop: stop, _layout: layout, _dir: dir }
    }

    /// Proposes what must be accepted; its revision, and what it created.
    async fn run(&self, body: Body) -> (Revision, Vec<RecordId>) {
        let command = Command { request: None, author: Author::default(), body };
        let outcome = self.consensus.propose(command, Instant::now() + PATIENCE).await.unwrap();
        let Outcome::Accepted { revision, created } = outcome else { panic!("not accepted: {outcome:?}") };
        (revision, created)
    }

    async fn project(&self, name: &str) -> (Revision, RecordId) {
        let (revision, created) = self.run(Body::CreateProject { name: name.to_owned(), files: Vec::new() }).await;
        (revision, created[0])
    }

    /// A change with so many tasks, all of one revision: that, and the tasks.
    async fn change(&self, project: RecordId, path: &str, count: usize) -> (Revision, Vec<RecordId>) {
        let words = "all day long ".repeat(20);
        let task = |at| NewBlock {
            kind: KIND_TASK,
            lead: "- [".to_owned(),
            mark: " ".to_owned(),
            text: format!("] task {at} {words}\n"),
        };
        let blocks = (0..count).map(task).collect();
        let (revision, created) =
            self.run(Body::CreateChange { project, path: path.to_owned(), blocks, ops: Vec::new() }).await;
        (revision, created.into_iter().skip(1).collect())
    }

    /// Has all in SQLite.
    async fn flush(&self) {
        let tables = self.tables.clone();
        tokio::task::spawn_blocking(move || tables.flush()).await.unwrap().unwrap();
    }

    async fn watch(&self, request: WatchRequest) -> Answers {
        self.service.watch(Request::new(request)).await.unwrap().into_inner()
    }

    /// Why a watch is refused.
    async fn refused(&self, request: WatchRequest) -> ApiError {
        ApiError::from_status(&self.service.watch(Request::new(request)).await.err().unwrap())
    }

    /// One that doesn't run by itself.
    async fn follower(&self, request: WatchRequest) -> (Follower, mpsc::Receiver<Answer>) {
        let (tx, rx) = mpsc::channel(WAITING_MAX + 1);
        let last_word = tx.clone().reserve_owned().await.unwrap();
        (self.service.follower(request, (tx, last_word)).await.unwrap(), rx)
    }
}

fn from(revision: Revision) -> WatchRequest {
    WatchRequest { from: Some(revision.0), ..WatchRequest::default() }
}

fn newest(count: u32) -> WatchRequest {
    WatchRequest { newest: Some(count), ..WatchRequest::default() }
}

fn after(time_ms: u64) -> WatchRequest {
    let moment = moment::Moment::TimeMs(time_ms);
    WatchRequest { after: Some(Moment { moment: Some(moment) }), ..WatchRequest::default() }
}

async fn heard(watch: &mut Answers) -> Answer {
    timeout(PATIENCE, watch.next()).await.expect("a word in time").expect("a watch that goes on")
}

/// What comes next, but for words that only say that the node is there.
async fn next(watch: &mut Answers) -> Item {
    loop {
        let item = heard(watch).await.unwrap().item.unwrap();
        if !matches!(&item, Item::Events(Events { events, .. }) if events.is_empty()) {
            return item;
        }
    }
}

/// The next events, whatever bookmarks are before them.
async fn events(watch: &mut Answers) -> Events {
    loop {
        match next(watch).await {
            Item::Events(events) => return events,
            Item::Bookmark(_) => {}
            Item::Lagged(lagged) => panic!("{lagged:?}"),
        }
    }
}

/// All events of the next revision that has some, with the number of messages that they came in.
async fn revision(watch: &mut Answers) -> (Vec<Event>, usize) {
    let (mut all, mut messages) = (Vec::new(), 0);
    loop {
        let part = events(watch).await;
        assert!(!part.events.is_empty());
        all.extend(part.events);
        messages += 1;
        if !part.more {
            return (all, messages);
        }
    }
}

#[tokio::test]
async fn the_first_bookmark_comes_after_what_was_there_and_before_what_came_later() {
    let node = Alone::start().await;
    let mut made = Vec::new();
    for at in 0..3 {
        made.push(node.project(&format!("old {at}")).await.0.0);
    }
    let mut watch = node.watch(newest(2)).await;
    for at in 0..3 {
        made.push(node.project(&format!("new {at}")).await.0.0);
    }
    let (mut told, mut caught_up) = (Vec::new(), None);
    while told.len() < 5 {
        match next(&mut watch).await {
            Item::Events(events) => told.push(events.revision),
            Item::Bookmark(bookmark) => {
                caught_up.get_or_insert((told.len(), bookmark.revision));
            }
            Item::Lagged(lagged) => panic!("{lagged:?}"),
        }
    }
    assert_eq!(told, made[1..]);
    assert_eq!(caught_up, Some((2, made[2])));
}

#[tokio::test]
async fn bookmarks_come_also_where_something_happens_all_the_time() {
    let node = Alone::start().await;
    let (_, project) = node.project("busy").await;
    let (_, tasks) = node.change(project, "tasks.md", 1).await;
    let mut watch = node.watch(WatchRequest::default()).await;
    let begun = Instant::now();
    let (mut notes, mut bookmarks) = (0, 0);
    while bookmarks < 3 {
        assert!(begun.elapsed() < PATIENCE, "{bookmarks} bookmarks among {notes} events");
        let fields = vec![TaskField::Note(format!("note {notes}"))];
        node.run(Body::SetTask { task: tasks[0], expected: None, fields, mark: None }).await;
        notes += 1;
        while let Some(Some(answer)) = watch.next().now_or_never() {
            bookmarks += usize::from(matches!(answer.unwrap().item, Some(Item::Bookmark(_))));
        }
    }
}

#[tokio::test]
async fn a_node_that_is_out_of_service_sends_its_watches_away() {
    let node = Alone::start().await;
    let mut watch = node.watch(WatchRequest::default()).await;
    assert!(matches!(next(&mut watch).await, Item::Bookmark(_)));
    node.consensus.quarantine("its state can't be believed".to_owned()).await;
    let end = loop {
        if let Err(status) = heard(&mut watch).await {
            break ApiError::from_status(&status);
        }
    };
    assert_eq!(end.code, ErrorCode::NodeFailed);
    assert!(end.message.contains("can't be believed"), "{}", end.message);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_large_revision_comes_in_parts_that_together_are_all_of_it() {
    let node = Alone::start().await;
    let (_, project) = node.project("large").await;
    let (large, tasks) = node.change(project, "tasks.md", 3_000).await;
    let (after, _) = node.project("after").await;
    let mut told = Vec::new();
    for is_flushed in [false, true] {
        if is_flushed {
            node.flush().await;
        }
        let mut watch = node.watch(from(large)).await;
        let (events, messages) = revision(&mut watch).await;
        assert_eq!(events.len(), tasks.len() + 1);
        assert!(events.iter().is_sorted_by(|one, other| one.id < other.id));
        assert!(events.iter().all(|event| event.correlation == events[0].id), "all of it happened together");
        assert!((3..100).contains(&messages), "{messages} messages");
        assert_eq!(self::events(&mut watch).await.revision, after.0);
        told.push(events);
    }
    assert!(told[0] == told[1], "what is recent and what is long ago are told alike");
}

#[tokio::test]
async fn the_newest_events_are_found_behind_many_others() {
    let node = Alone::start().await;
    let (_, project) = node.project("long").await;
    let point = Body::CreatePoint { name: "early".to_owned(), at: None, note: String::new(), is_automatic: false };
    let (point, _) = node.run(point).await;
    for at in 0..3 {
        node.change(project, &format!("{at}/tasks.md"), ROWS_AT_ONCE).await;
    }
    node.flush().await;
    let of = |name: &str| WatchRequest { types: vec![name.to_owned()], ..newest(1) };
    assert_eq!(events(&mut node.watch(of("point-created")).await).await.revision, point.0);
    assert!(matches!(next(&mut node.watch(of("conflict")).await).await, Item::Bookmark(_)));
}

#[tokio::test]
async fn who_waits_for_the_beginning_hears_that_the_node_is_there_and_no_more() {
    let node = Alone::start().await;
    let (mut follower, mut rx) = node.follower(newest(1)).await;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let working = follower.wait_for(move || {
        let _word = wait.recv();
        Ok(())
    });
    let listening = async {
        let word = timeout(PATIENCE, rx.recv()).await.expect("a word in time").expect("a watch that goes on");
        go.send(()).unwrap();
        word.unwrap().item
    };
    let (done, word) = tokio::join!(working, listening);
    assert!(done.is_ok());
    assert_eq!(word, Some(Item::Events(Events { revision: 0, events: Vec::new(), more: true })));
}

#[tokio::test]
async fn nobody_is_searched_for_who_is_gone() {
    let node = Alone::start().await;
    let (mut follower, rx) = node.follower(newest(1)).await;
    drop(rx);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let working = follower.wait_for(move || {
        let _word = wait.recv();
        Ok(())
    });
    let end = timeout(PATIENCE, working).await.expect("an end in time");
    assert!(matches!(end, Err(End::Gone)));
    drop(go);
}

#[tokio::test]
async fn before_the_first_event_is_the_beginning_unless_something_was_let_go_of() {
    let node = Alone::start().await;
    let (first, _) = node.project("first").await;
    let (second, _) = node.project("second").await;
    let time = |events: &Events| events.events[0].provenance.as_ref().unwrap().time_ms;
    let of_first = events(&mut node.watch(from(first)).await).await;
    let of_second = events(&mut node.watch(from(second)).await).await;
    for earlier in [time(&of_first) - 1, 1] {
        assert_eq!(events(&mut node.watch(after(earlier)).await).await, of_first);
    }
    let horizon = time(&of_second);
    node.run(Body::Compact { to: second, time: ClusterTime(horizon) }).await;
    let refused = node.refused(after(horizon - 1)).await;
    assert_eq!(refused.code, ErrorCode::Revision);
    let next = format!("those of revision {}", second.0 + 1);
    assert!(refused.message.contains(&next), "{}", refused.message);
    assert!(events(&mut node.watch(from(Revision(second.0 + 1))).await).await.revision > second.0);
}
