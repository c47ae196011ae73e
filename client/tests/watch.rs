//! A watch against scripted nodes: broken streams, parts that begin again, silence, and what is told of it; and `zyflow log`, which shows it.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

mod support;

use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use v1::watch_response::{Bookmark, Events, Item, Lagged};
use v1::watch_server::{Watch, WatchServer};
use zyflow_api::ApiError;
use zyflow_api::v1::{self, ErrorCode};
use zyflow_client::moment::Moment;
use zyflow_client::watch::{Begin, News, WatchFilter};
use zyflow_client::{Client, Code};
use zyflow_machine::id::{EventId, Revision};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

/// One call of a scripted node: what it sends, and how it ends.
enum Call {
    /// Sends this and breaks.
    Break(Vec<Item>),
    /// Sends this and ends in order.
    End(Vec<Item>),
    /// Sends this and then nothing more, for ever.
    Silence(Vec<Item>),
    /// Refuses at once.
    Refuse(ErrorCode),
}

#[derive(Clone, Default)]
struct Node {
    script: Arc<Mutex<VecDeque<Call>>>,
    seen: Arc<Mutex<Vec<v1::WatchRequest>>>,
}

#[tonic::async_trait]
impl Watch for Node {
    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.seen.lock().unwrap().push(request.into_inner());
        let call = self.script.lock().unwrap().pop_front().expect("the script is over");
        let (tx, rx) = mpsc::channel(64);
        let (items, end) = match call {
            Call::Break(items) => (items, Some(Err(Status::unavailable("scripted break")))),
            Call::End(items) => (items, None),
            Call::Silence(items) => {
                // Kept open by a sender that waits until the caller is gone.
                let open = tx.clone();
                tokio::spawn(async move { open.closed().await });
                (items, None)
            }
            Call::Refuse(code) => return Err(ApiError::new(code, "scripted refusal").into()),
        };
        for item in items {
            tx.send(Ok(v1::WatchResponse { item: Some(item) })).await.unwrap();
        }
        if let Some(end) = end {
            tx.send(end).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

struct Cluster {
    nodes: Vec<Node>,
    client: Client,
    endpoints: Vec<String>,
    certificates: TempDir,
}

async fn cluster(scripts: Vec<Vec<Call>>) -> Cluster {
    let certificates = support::certificates();
    let (mut nodes, mut endpoints) = (Vec::new(), Vec::new());
    for script in scripts {
        let node = Node { script: Arc::new(Mutex::new(script.into())), ..Node::default() };
        let router = Server::builder().add_service(WatchServer::new(node.clone()));
        endpoints.push(support::serve(certificates.path(), router).await);
        nodes.push(node);
    }
    let client = support::client(certificates.path(), endpoints.clone());
    Cluster { nodes, client, endpoints, certificates }
}

fn id(revision: u64, ordinal: u32) -> EventId {
    EventId::new(Revision(revision), ordinal).unwrap()
}

fn events(revision: u64, ordinals: &[u32], more: bool) -> Item {
    let event = |ordinal: &u32| v1::Event {
        id: id(revision, *ordinal).to_u64(),
        record: id(revision, *ordinal).to_u64(),
        kind: v1::RecordKind::Block.into(),
        provenance: Some(v1::Provenance { author: Some(v1::Author::default()), time_ms: 1, request: None }),
        fact: Some(v1::Fact { fact: Some(v1::fact::Fact::BlockDeleted(v1::Nothing {})) }),
        r#type: "deleted".to_owned(),
        ..v1::Event::default()
    };
    Item::Events(Events { revision, events: ordinals.iter().map(event).collect(), more })
}

fn bookmark(revision: u64) -> Item {
    Item::Bookmark(Bookmark { revision, end: false })
}

fn end(revision: u64) -> Item {
    Item::Bookmark(Bookmark { revision, end: true })
}

/// Watches to the end and gives the events.
async fn told(cluster: &Cluster, begin: Begin) -> Vec<EventId> {
    let until = Some(Moment::Revision(Revision(20)));
    let mut watch = cluster.client.watch(WatchFilter::default(), begin, until, PATIENCE);
    let mut told = Vec::new();
    while let Some(news) = watch.next().await.unwrap() {
        if let News::Events { events, .. } = news {
            told.extend(events.iter().map(|event| event.id));
        }
    }
    assert_eq!(watch.complete(), Some(Revision(20)));
    told
}

/// The events that `zyflow log` shows until it fails, as it must, for what a node says with this.
async fn logged(cluster: &Cluster, args: &[&str], code: &str) -> Vec<String> {
    let profile = cluster.certificates.path().join("client.toml");
    let files = "ca = \"ca.pem\"\ncert = \"client-ann.pem\"\nkey = \"client-ann.key\"\n";
    let text = format!("cluster = \"test\"\nendpoints = {:?}\n{files}", cluster.endpoints);
    std::fs::write(&profile, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zyflow"));
    command.arg("--profile").arg(profile).args(["-o", "jsonl", "log"]).args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(code), "{said}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines = shown.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|line| line["event"].as_str().unwrap().to_owned()).collect()
}

fn begins(node: &Node) -> Vec<Option<u64>> {
    node.seen.lock().unwrap().iter().map(|request| request.from).collect()
}

#[tokio::test]
async fn a_broken_watch_goes_on_at_the_next_node_after_what_was_complete() {
    let first = vec![Call::Break(vec![bookmark(3), events(5, &[0, 1], false), bookmark(8)]), Call::End(vec![end(20)])];
    let second = vec![Call::Break(vec![events(9, &[0], false)])];
    let cluster = cluster(vec![first, second]).await;
    assert_eq!(told(&cluster, Begin::From(Revision(2))).await, [id(5, 0), id(5, 1), id(9, 0)]);
    assert_eq!((begins(&cluster.nodes[0]), begins(&cluster.nodes[1])), (vec![Some(2), Some(10)], vec![Some(9)]));
}

#[tokio::test]
async fn a_revision_that_broke_off_is_asked_for_again_and_told_once() {
    let first = vec![Call::Break(vec![events(5, &[0, 1], true)])];
    let second = vec![Call::End(vec![events(5, &[0], true), events(5, &[1, 2], false), end(20)])];
    let cluster = cluster(vec![first, second]).await;
    assert_eq!(told(&cluster, Begin::From(Revision(1))).await, [id(5, 0), id(5, 1), id(5, 2)]);
    assert_eq!(begins(&cluster.nodes[1]), [Some(5)]);
}

#[tokio::test]
async fn a_stream_that_ends_before_its_end_is_a_broken_one() {
    let cluster =
        cluster(vec![vec![Call::End(vec![bookmark(4)]), Call::End(vec![events(6, &[0], false), end(20)])]]).await;
    assert_eq!(told(&cluster, Begin::Now).await, [id(6, 0)]);
    assert_eq!(begins(&cluster.nodes[0]), [None, Some(5)]);
}

#[tokio::test]
async fn a_silent_node_is_left() {
    let first = vec![Call::Silence(vec![events(5, &[0], false)])];
    let cluster = cluster(vec![first, vec![Call::End(vec![events(7, &[0], false), end(20)])]]).await;
    assert_eq!(told(&cluster, Begin::From(Revision(1))).await, [id(5, 0), id(7, 0)]);
}

#[tokio::test]
async fn who_was_too_slow_goes_on_where_it_stood() {
    let lagged = Item::Lagged(Lagged { resume_from: 6, reason: "nothing was taken".to_owned() });
    let script =
        vec![Call::End(vec![events(5, &[0], false), lagged]), Call::End(vec![events(6, &[0], false), end(20)])];
    let cluster = cluster(vec![script]).await;
    assert_eq!(told(&cluster, Begin::From(Revision(1))).await, [id(5, 0), id(6, 0)]);
    assert_eq!(begins(&cluster.nodes[0]), [Some(1), Some(6)]);
}

#[tokio::test]
async fn what_will_not_pass_is_told_and_what_may_is_waited_for() {
    let refused = Call::Refuse;
    let cluster = cluster(vec![vec![refused(ErrorCode::NoQuorum), refused(ErrorCode::Revision)]]).await;
    let mut watch = cluster.client.watch(WatchFilter::default(), Begin::From(Revision(1)), None, PATIENCE);
    assert_eq!(watch.next().await.unwrap_err().code(), Code::Revision);
    let alone = self::cluster(vec![vec![refused(ErrorCode::NoQuorum)]]).await;
    let mut watch = alone.client.watch(WatchFilter::default(), Begin::Now, None, Some(Duration::ZERO));
    assert_eq!(watch.next().await.unwrap_err().code(), Code::NoQuorum);
}

#[tokio::test]
async fn a_node_that_looks_for_the_beginning_has_told_nothing_yet() {
    let looking = Item::Events(Events { revision: 0, events: Vec::new(), more: true });
    let reading = Item::Events(Events { revision: 6, events: Vec::new(), more: true });
    let script = vec![
        Call::Break(vec![looking.clone(), looking]),
        Call::Break(vec![reading]),
        Call::End(vec![events(7, &[0], false), end(20)]),
    ];
    let cluster = cluster(vec![script]).await;
    assert_eq!(told(&cluster, Begin::Newest(2)).await, [id(7, 0)]);
    let asked: Vec<_> =
        cluster.nodes[0].seen.lock().unwrap().iter().map(|request| (request.newest, request.from)).collect();
    assert_eq!(asked, [(Some(2), None), (Some(2), None), (None, Some(6))]);
}

#[tokio::test]
async fn the_first_bookmark_is_told_also_where_it_is_at_the_last_event() {
    let script = vec![Call::Silence(vec![events(5, &[0], false), bookmark(5), bookmark(5), bookmark(6)])];
    let cluster = cluster(vec![script]).await;
    let mut watch = cluster.client.watch(WatchFilter::default(), Begin::Newest(1), None, PATIENCE);
    assert!(matches!(watch.next().await.unwrap(), Some(News::Events { .. })));
    assert_eq!(watch.next().await.unwrap(), Some(News::Bookmark(Revision(5))));
    assert_eq!(watch.next().await.unwrap(), Some(News::Bookmark(Revision(6))));
}

#[tokio::test]
async fn a_watch_goes_elsewhere_where_its_node_has_failed() {
    let failed = Call::Refuse(ErrorCode::NodeFailed);
    let cluster = cluster(vec![vec![failed], vec![Call::End(vec![events(7, &[0], false), end(20)])]]).await;
    assert_eq!(told(&cluster, Begin::From(Revision(3))).await, [id(7, 0)]);
    assert_eq!(begins(&cluster.nodes[1]), [Some(3)]);
}

#[tokio::test]
async fn a_log_that_is_followed_shows_the_newest_that_there_were_and_all_that_came_after() {
    let items = vec![
        events(5, &[0, 1, 2], true),
        events(5, &[3], false),
        events(6, &[0], false),
        events(8, &[0], false),
        events(9, &[0], false),
        bookmark(6),
        events(10, &[0], false),
    ];
    let cluster = cluster(vec![vec![Call::Break(items), Call::Refuse(ErrorCode::Revision)]]).await;
    let shown = logged(&cluster, &["--follow", "--limit", "2"], "E-REVISION").await;
    assert_eq!(shown, ["5.3", "6.0", "8.0", "9.0", "10.0"]);
    assert_eq!(cluster.nodes[0].seen.lock().unwrap()[0].newest, Some(2));
}

#[tokio::test]
async fn a_log_that_is_followed_shows_what_there_is_where_nothing_more_happens() {
    let items = vec![events(4, &[0], false), events(5, &[0], false), bookmark(5)];
    let cluster = cluster(vec![vec![Call::Break(items), Call::Refuse(ErrorCode::Revision)]]).await;
    assert_eq!(logged(&cluster, &["--follow", "--limit", "2"], "E-REVISION").await, ["4.0", "5.0"]);
}
