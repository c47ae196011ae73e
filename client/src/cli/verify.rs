//! `zyflow verify`: do all nodes hold the same state?
//!
//! All members are asked, also those that the profile doesn't name; one that can't be is no agreement but a failure.
//!
//! Each node is asked for its digest at one revision. A node keeps the digests of the newest revisions and answers for its newest one where
//! it doesn't keep this one: then the newest of all is asked for again. Where a node differs, the first row in which it does is looked
//! for in its SQLite and in that of a node that doesn't.

mod row;

use super::cluster::everyone;
use super::context::Context;
use super::quorum::Statuses;
use super::render::hex;
use super::report::{Failure, Output, Report};
use crate::client::Client;
use crate::code::Code;
use crate::error::ClientError;
use crate::read::{Consistency, Read};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;

/// Pause before the digests are asked for again: writes that are under way get applied everywhere.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Looking for a row may take at least this long, however long the comparison took: it reads all rows once.
const LOCATE_WITHIN_MIN: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Also compute each digest again from the node's SQLite alone.
    #[arg(long)]
    recompute: bool,
}

pub(super) async fn run(context: &Context, args: VerifyArgs) -> Result<Report, Failure> {
    let end = Instant::now() + context.within();
    let left = || end.saturating_duration_since(Instant::now());
    let (client, statuses) = everyone(context, left()).await?;
    let unknown = out_of_reach(&client.endpoints().collect::<Vec<_>>(), &statuses);
    let read = Read { consistency: Consistency::Linearizable, at: None, within: context.within() };
    let mut revision = client.revision(read).await?.0;
    loop {
        let answers = ask_all(&client, revision, args.recompute, left()).await;
        let revisions: BTreeSet<u64> = answers.iter().flatten().map(|answer| answer.revision).collect();
        if revisions.len() <= 1 {
            let mut verdicts = judge(&answers);
            let agreed = revisions.first().copied().unwrap_or(revision);
            locate(&client, &mut verdicts, agreed, left().max(LOCATE_WITHIN_MIN)).await;
            return Ok(report(&client, &answers, &verdicts, &unknown));
        }
        if left() <= RETRY_PAUSE {
            let message = "the nodes never stood at one revision while they were asked: verify again when less is \
                           written, or with a longer --timeout";
            return Err(Failure::new(Code::Timeout, message));
        }
        revision = revisions.last().copied().unwrap_or(revision);
        sleep(RETRY_PAUSE).await;
    }
}

async fn ask_all(
    client: &Client,
    revision: u64,
    recompute: bool,
    within: Duration,
) -> Vec<Result<v1::VerifyResponse, ClientError>> {
    let ask = async |node| {
        let request = v1::VerifyRequest { revision: Some(revision), recompute };
        let call = |mut admin: AdminClient<_>| async move { admin.verify(request).await };
        client.admin(node, within, call).await
    };
    futures::future::join_all((0..client.endpoints().len()).map(ask)).await
}

/// The members that nobody can ask: they are at no endpoint, and don't say where their API is.
fn out_of_reach(endpoints: &[&str], statuses: &Statuses) -> Vec<u64> {
    let newest = statuses.iter().flatten().max_by_key(|status| (status.term, status.applied));
    let is_asked = |member: &v1::Member| {
        let answers = statuses.iter().flatten().any(|status| status.node_id == member.node_id);
        answers || endpoints.contains(&member.api_address.as_str())
    };
    let members = newest.into_iter().flat_map(|status| &status.members);
    members.filter(|member| !is_asked(member)).map(|member| member.node_id).collect()
}

/// What is to be said of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    /// With the first row in which it does, as far as that could be found out.
    Differs(String),
    Unknown,
}

fn judge(answers: &[Result<v1::VerifyResponse, ClientError>]) -> Vec<Verdict> {
    let digest_of_most = most_common(answers.iter().flatten().map(|answer| answer.digest.as_slice()));
    let verdict = |answer: &Result<v1::VerifyResponse, ClientError>| {
        let Ok(answer) = answer else { return Verdict::Unknown };
        let is_whole = answer.stored.as_ref().is_none_or(|stored| stored.matches);
        let is_same = is_whole && Some(answer.digest.as_slice()) == digest_of_most;
        if is_same { Verdict::Same } else { Verdict::Differs(String::new()) }
    };
    answers.iter().map(verdict).collect()
}

/// Finds out in which row each node that differs does.
async fn locate(client: &Client, verdicts: &mut [Verdict], revision: u64, within: Duration) {
    let Some(reference) = verdicts.iter().position(|verdict| *verdict == Verdict::Same) else { return };
    for (node, verdict) in verdicts.iter_mut().enumerate() {
        let Verdict::Differs(found) = verdict else { continue };
        *found = match row::first_difference(client, (reference, node), revision, within).await {
            Ok(Some(row)) => format!("{} ({})", row.id, row.how),
            Ok(None) => "none: all rows in SQLite are the same".to_owned(),
            Err(error) => format!("not found: {error}"),
        };
    }
}

/// `unknown` are the members that couldn't be asked.
fn report(
    client: &Client,
    answers: &[Result<v1::VerifyResponse, ClientError>],
    verdicts: &[Verdict],
    unknown: &[u64],
) -> Report {
    let mut items = Vec::new();
    let (mut differing, mut unreachable) = (Vec::new(), None);
    for ((endpoint, answer), verdict) in client.endpoints().zip(answers).zip(verdicts) {
        match answer {
            Ok(answer) => {
                let stored = answer.stored.as_ref().map(|stored| stored.matches);
                let row = if let Verdict::Differs(row) = verdict { Some(row.as_str()) } else { None };
                if let Some(row) = row {
                    differing.push(format!("node {} ({endpoint}; first differing row: {row})", answer.node_id));
                }
                items.push(json!({
                    "node": answer.node_id, "endpoint": endpoint, "revision": answer.revision,
                    "digest": hex(&answer.digest), "same": row.is_none(), "stored_same": stored, "first_row": row, "error": null,
                }));
            }
            Err(error) => {
                items.push(not_compared(None, Some(endpoint), &error.to_string()));
                unreachable = Some(Failure::new(error.code(), format!("{endpoint} could not be compared: {error}")));
            }
        }
    }
    for id in unknown {
        let reason = "it says no API address, and no endpoint of the profile is it: add it to the profile";
        items.push(not_compared(Some(*id), None, reason));
        unreachable = Some(Failure::new(Code::Connect, format!("node {id} could not be compared: {reason}")));
    }
    let failure = (!differing.is_empty()).then(|| {
        let message = format!(
            "{} differs from the others at the same revision: stop it, move its tables folder away and start it again, \
             so that it is rebuilt from the log",
            differing.join(", ")
        );
        Failure::new(Code::Differs, message)
    });
    let columns = &["node", "endpoint", "revision", "same", "stored_same", "first_row", "digest", "error"];
    Report { output: Output::List { columns, items, revision: None }, failure: failure.or(unreachable) }
}

fn not_compared(node: Option<u64>, endpoint: Option<&str>, error: &str) -> Value {
    json!({
        "node": node, "endpoint": endpoint, "revision": null, "digest": null, "same": null,
        "stored_same": null, "first_row": null, "error": error,
    })
}

/// The value that most nodes have; the smallest of several.
fn most_common<'a>(digests: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let mut counts = std::collections::BTreeMap::<_, usize>::new();
    digests.for_each(|digest| *counts.entry(digest).or_default() += 1);
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(digest, _)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_decides_which_node_differs() {
        let most = |digests: &[&'static [u8]]| most_common(digests.iter().copied());
        assert_eq!(most(&[b"a", b"b", b"b"]), Some(b"b".as_slice()));
        assert_eq!(most(&[b"b", b"a"]), Some(b"a".as_slice()));
        assert_eq!(most(&[]), None);
    }

    #[test]
    fn a_member_that_nobody_can_ask_is_told() {
        let member = |node_id, api: &str| v1::Member { node_id, api_address: api.to_owned(), ..Default::default() };
        // The first answers, the second is known by its address, the third says none.
        let members = vec![member(1, ""), member(2, "b:1"), member(3, "")];
        let answers = Ok(v1::NodeStatusResponse { node_id: 1, members, ..Default::default() });
        let silent = Err(ClientError::Unreachable { address: "b:1".to_owned(), reason: "refused".to_owned() });
        assert_eq!(out_of_reach(&["a:1", "b:1"], &[answers, silent]), [3]);
        assert_eq!(out_of_reach(&["a:1"], &[]), [0_u64; 0]);
    }
}
