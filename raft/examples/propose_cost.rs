//! What a proposal costs through all of this crate: three nodes in one process, each on a thread of its own, with real log,
//! real tables and real TLS on loopback. One operation sets the note of one of 10,000 tasks and is counted when its outcome is
//! there.
//!
//! ```text
//! cargo run --release -p zyflow-raft --example propose_cost -- [--seconds 5] [--writes 2] [--bytes 256] [--at leader|follower]
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a measurement that fails should panic"
)]

#[path = "../tests/cluster/support/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::net::TcpListener;
use tokio::time::Instant;
use zyflow_crypto::{Acceptor, Connector, Role as CertRole};
use zyflow_machine::command::{Body, NewBlock, TaskField};
use zyflow_machine::id::RecordId;
use zyflow_machine::outcome::Outcome;
use zyflow_machine::record::KIND_TASK;
use zyflow_raft::{Consensus, ConsensusConfig, NodeId, NodeInfo, Role};

use support::certs::Authority;
use support::{CLUSTER, command, lineage, project, ring, soon, storage};

const TASKS: usize = 10_000;

struct Options {
    seconds: f64,
    writes: usize,
    bytes: usize,
    at_follower: bool,
}

fn options() -> Options {
    let mut options = Options { seconds: 5.0, writes: zyflow_raft::WRITES_IN_FLIGHT, bytes: 256, at_follower: false };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--seconds" => options.seconds = value.parse().unwrap(),
            "--writes" => options.writes = value.parse().unwrap(),
            "--bytes" => options.bytes = value.parse().unwrap(),
            "--at" => options.at_follower = value == "follower",
            other => panic!("unknown option {other}"),
        }
    }
    options
}

/// A node on a thread and runtime of its own, for as long as the process lives.
fn start(authority: &Authority, id: NodeId, writes: usize) -> (Consensus, String) {
    let material = authority.issue(CLUSTER, CertRole::Voter, id);
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let dir = tempfile::tempdir().unwrap();
            storage::init(dir.path(), id);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let snapshots = dir.path().join("data").join("snapshots");
            let mut config = ConsensusConfig::new(id, CLUSTER.to_owned(), lineage(), address.clone(), snapshots);
            config.disk_free_bytes_min = 0;
            config.writes_in_flight = writes;
            let (stored, log, tables) = storage::open_with(dir.path(), id, |log, _tables| log.warm = true).await;
            let (acceptor, connector) = (Acceptor::new(material.clone()), Connector::new(material));
            let consensus = Consensus::start(config, log, tables, ring(), listener, acceptor, connector).await.unwrap();
            tx.send((consensus, address)).unwrap();
            std::future::pending::<()>().await;
            drop((stored, dir));
        });
    });
    rx.recv().unwrap()
}

/// A change of many tasks; gives their ids.
async fn make_tasks(consensus: &Consensus) -> Vec<RecordId> {
    let outcome = consensus.propose(project("cost"), soon()).await.unwrap();
    let Outcome::Accepted { created, .. } = outcome else { panic!("{outcome:?}") };
    let block = |at: usize| NewBlock {
        kind: KIND_TASK,
        lead: "- [".to_owned(),
        mark: " ".to_owned(),
        text: format!("] task {at}\n"),
    };
    let body = Body::CreateChange {
        project: created[0],
        path: "tasks.md".to_owned(),
        blocks: (0..TASKS).map(block).collect(),
        ops: Vec::new(),
    };
    let outcome = consensus.propose(command(body), soon()).await.unwrap();
    let Outcome::Accepted { created, .. } = outcome else { panic!("{outcome:?}") };
    created[1..].to_vec()
}

/// Closed loops of `clients` proposers; gives operations a second and their times in microseconds.
async fn measure(
    consensus: &Consensus,
    tasks: &Arc<[RecordId]>,
    clients: usize,
    options: &Options,
) -> (f64, Histogram<u64>) {
    let next = Arc::new(AtomicU64::new(1));
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(options.seconds);
    let mut running = Vec::new();
    for _client in 0..clients {
        let (consensus, tasks, next) = (consensus.clone(), Arc::clone(tasks), Arc::clone(&next));
        let note = "n".repeat(options.bytes);
        running.push(tokio::spawn(async move {
            let mut times = Histogram::<u64>::new(3).unwrap();
            while Instant::now() < end {
                // A multiplier that is coprime to the number of tasks visits them all, in no order.
                let at = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919) as usize % tasks.len();
                let set = Body::SetTask {
                    task: tasks[at],
                    expected: None,
                    fields: vec![TaskField::Note(note.clone())],
                    mark: None,
                };
                let since = Instant::now();
                let outcome = consensus.propose(command(set), since + Duration::from_secs(20)).await.unwrap();
                assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
                times.record(since.elapsed().as_micros() as u64).unwrap();
            }
            times
        }));
    }
    let mut times = Histogram::<u64>::new(3).unwrap();
    for client in running {
        times.add(client.await.unwrap()).unwrap();
    }
    (times.len() as f64 / began.elapsed().as_secs_f64(), times)
}

fn main() {
    support::trace();
    let options = options();
    let authority = Authority::new();
    let nodes: BTreeMap<NodeId, _> = [1, 2, 3].map(|id| (id, start(&authority, id, options.writes))).into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let members = nodes.iter().map(|(id, (_, address))| (*id, NodeInfo::at(address.clone()))).collect();
        nodes[&1].0.initialize(members).await.unwrap();
        let leader = support::until("a leader", || {
            nodes.values().map(|(node, _)| node.status()).find(|status| status.role == Role::Leader)
        })
        .await
        .node_id;
        let at = if options.at_follower { nodes.keys().find(|id| **id != leader).unwrap() } else { &leader };
        let (consensus, leader) = (&nodes[at].0, &nodes[&leader].0);
        let tasks: Arc<[RecordId]> = make_tasks(consensus).await.into();
        println!("writes in flight {}, {} bytes, proposed at node {at}", options.writes, options.bytes);
        println!("{:>7} {:>9} {:>8} {:>8} {:>8} {:>12}", "clients", "ops/s", "p50 µs", "p99 µs", "max µs", "ops/entry");
        for clients in [1, 64, 256] {
            let before = leader.counts();
            let (rate, times) = measure(consensus, &tasks, clients, &options).await;
            let after = leader.counts();
            let per_entry = (after.commands_sealed - before.commands_sealed) as f64
                / (after.entries_sealed - before.entries_sealed).max(1) as f64;
            println!(
                "{clients:>7} {rate:>9.0} {:>8} {:>8} {:>8} {per_entry:>12.1}",
                times.value_at_quantile(0.5),
                times.value_at_quantile(0.99),
                times.max()
            );
        }
    });
}
