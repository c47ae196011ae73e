//! Where two nodes differ, the first row in which they do: by digests of ever smaller ranges of ids, from both SQLite databases.

use crate::client::Client;
use crate::error::ClientError;
use std::time::Duration;
use tokio::time::Instant;
use zyflow_api::v1;
use zyflow_api::v1::admin_client::AdminClient;
use zyflow_machine::id::RecordId;

/// Ranges per question; the node's own limit.
const PARTS: u32 = 16;

/// The largest id that a record can have.
const ID_MAX: u64 = u64::MAX >> 1;

/// A row in which two nodes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: RecordId,
    /// How it is on the node that differs.
    pub(super) how: &'static str,
}

/// The first row that `node` has otherwise than `reference` at a revision; `None` = all rows are the same.
pub(super) async fn first_difference(
    client: &Client,
    (reference, node): (usize, usize),
    revision: u64,
    within: Duration,
) -> Result<Option<Row>, ClientError> {
    let end = Instant::now() + within;
    let (mut first, mut last) = (0, ID_MAX);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let ask = |endpoint| {
            let request = v1::VerifyRangeRequest { revision, first, last, parts: PARTS };
            let call = move |mut admin: AdminClient<_>| async move { admin.verify_range(request).await };
            client.admin(endpoint, left, call)
        };
        let (right, wrong) = tokio::try_join!(ask(reference), ask(node))?;
        let Some((right, wrong)) = differing(&right.parts, &wrong.parts) else { return Ok(None) };
        if right.first == right.last {
            return Ok(Some(Row { id: RecordId::from_u64(right.first), how: how(&right, &wrong) }));
        }
        (first, last) = (right.first, right.last);
    }
}

/// The first part that differs, on both sides.
fn differing(right: &[v1::RangeDigest], wrong: &[v1::RangeDigest]) -> Option<(v1::RangeDigest, v1::RangeDigest)> {
    let pairs = right.iter().zip(wrong);
    pairs
        .into_iter()
        .find(|(right, wrong)| right.digest != wrong.digest)
        .map(|(right, wrong)| (right.clone(), wrong.clone()))
}

fn how(right: &v1::RangeDigest, wrong: &v1::RangeDigest) -> &'static str {
    match (right.rows, wrong.rows) {
        _ if wrong.unreadable > 0 => "unreadable",
        (1.., 0) => "missing",
        (0, 1..) => "there, and shouldn't be",
        (_, _) => "other contents",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(rows: u64, unreadable: u64, digest: u8) -> v1::RangeDigest {
        v1::RangeDigest { first: 7, last: 7, rows, unreadable, digest: vec![digest; 32] }
    }

    #[test]
    fn the_first_part_that_differs_is_looked_into() {
        let right = [part(1, 0, 1), part(1, 0, 2), part(1, 0, 3)];
        assert_eq!(differing(&right, &right), None);
        let wrong = [part(1, 0, 1), part(1, 0, 9), part(1, 0, 9)];
        assert_eq!(differing(&right, &wrong), Some((part(1, 0, 2), part(1, 0, 9))));
    }

    #[test]
    fn how_a_row_differs() {
        let right = part(1, 0, 1);
        assert_eq!(how(&right, &part(1, 1, 2)), "unreadable");
        assert_eq!(how(&right, &part(0, 0, 2)), "missing");
        assert_eq!(how(&part(0, 0, 1), &part(1, 0, 2)), "there, and shouldn't be");
        assert_eq!(how(&right, &part(1, 0, 2)), "other contents");
    }
}
