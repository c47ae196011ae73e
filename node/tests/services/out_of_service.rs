//! A node that is out of service tells nothing of its state any more: not to its checkouts, and not to a backup.

use tonic::Request;
use zyflow_api::ApiError;
use zyflow_api::v1::backup_server::Backup;
use zyflow_api::v1::{ErrorCode, ReadBackupRequest};
use zyflow_checkout::{Cluster, ClusterError};
use zyflow_machine::command::{Author, Body, Command};
use zyflow_node::cluster::NodeCluster;
use zyflow_node::services::backup::{About, BackupService};
use zyflow_raft::Consistency;

use super::support::{LINEAGE, Node, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_and_backups_get_nothing_of_a_state_that_is_not_believed() {
    let node = Node::start().await;
    let body = Body::CreateProject { name: "web".to_owned(), files: vec!["tasks.md".to_owned()] };
    let command = Command { request: None, author: Author { name: "test".to_owned(), clock_ms: 0 }, body };
    node.consensus.propose(command, soon()).await.unwrap();
    node.consensus.read_barrier(Consistency::Linearizable, soon()).await.unwrap();
    let cluster = NodeCluster::new(node.consensus.clone(), node.tables.clone());
    let (project, _) = cluster.project("web").unwrap().unwrap();
    assert!(cluster.paths(project).unwrap().is_empty());

    node.consensus.quarantine("a majority has another digest".to_owned()).await;
    let refused = [
        cluster.project("web").map(drop),
        cluster.paths(project).map(drop),
        cluster.document(project, None).map(drop),
        cluster.tasks(project).map(drop),
        cluster.revisions(project, 1).map(drop),
        cluster.undone().map(drop),
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        let is_reason = matches!(&refused, Err(ClusterError::Unavailable(reason)) if reason.contains("majority"));
        assert!(is_reason, "read {at}: {refused:?}");
    }
    let about = About::new(&node.config, LINEAGE);
    let backup = BackupService::new(node.consensus.clone(), node.tables.clone(), node.ring.clone(), about);
    let refused = backup.read_backup(Request::new(ReadBackupRequest::default())).await.err().unwrap();
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::NodeFailed);
}
