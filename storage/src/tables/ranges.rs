//! Digests of ranges of records at one revision, from SQLite alone: where two nodes differ, ever smaller ranges lead to the row.
//!
//! ```text
//!   first ------------------------------------------------------- last
//!   |   part 1   |   part 2   |   part 3   |   part 4   |  ...          each: sum over its live records, as the digest does it
//! ```
//! Parts are equal ranges of ids, not of rows, so that nodes with different rows cut at the same places. A row that can't be opened
//! doesn't end the search, as it is what is searched for: it counts as a value that no readable row has.

use rusqlite::Connection;
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_machine::{Digest, format};

use super::codec::Codec;
use super::error::TablesError;
use super::read::{self, SealedVersion};
use super::schema::{from_sql, to_sql};

/// Most parts of one question: an answer of a few kilobytes, and a million rows are six questions.
pub const RANGE_PARTS_MAX: u64 = 16;

/// The digest of the live records of a range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeDigest {
    /// The first id of the range.
    pub first: RecordId,
    /// Its last.
    pub last: RecordId,
    /// Live records, unreadable ones too.
    pub rows: u64,
    /// Records that can't be read.
    pub unreadable: u64,
    /// The sum over its live records.
    pub digest: Digest,
}

const HEADS: &str = "\
    SELECT h.id, h.version, h.live, v.previous, v.body FROM head h LEFT JOIN versions v ON v.version = h.version \
    WHERE h.id BETWEEN ?1 AND ?2";

/// The digests of the parts of a range, in order.
pub(crate) fn digests(
    connection: &Connection,
    codec: &Codec,
    at: Revision,
    (first, last): (u64, u64),
    parts: u64,
) -> Result<Vec<RangeDigest>, TablesError> {
    split(first, last, parts).into_iter().map(|(first, last)| digest(connection, codec, at, first, last)).collect()
}

/// At most so many equal ranges that make up the whole.
fn split(first: u64, last: u64, parts: u64) -> Vec<(u64, u64)> {
    let parts = parts.clamp(1, RANGE_PARTS_MAX);
    let width = (last.saturating_sub(first) / parts).saturating_add(1);
    let starts =
        std::iter::successors(Some(first), |start| start.checked_add(width)).take_while(|start| *start <= last);
    starts.map(|start| (start, start.saturating_add(width - 1).min(last))).collect()
}

fn digest(
    connection: &Connection,
    codec: &Codec,
    at: Revision,
    first: u64,
    last: u64,
) -> Result<RangeDigest, TablesError> {
    let failed = || TablesError::sqlite("read a range of records");
    let mut range = RangeDigest {
        first: RecordId::from_u64(first),
        last: RecordId::from_u64(last),
        rows: 0,
        unreadable: 0,
        digest: Digest::ZERO,
    };
    let mut statement = connection.prepare_cached(HEADS).map_err(failed())?;
    let mut rows = statement.query([to_sql(first), to_sql(last)]).map_err(failed())?;
    while let Some(row) = rows.next().map_err(failed())? {
        let id = RecordId::from_u64(from_sql(row.get(0).map_err(failed())?)?);
        let version = EventId::from_u64(from_sql(row.get(1).map_err(failed())?)?);
        let encoded = if version.revision() > at {
            read::at(connection, id, at)?.map(|sealed| opened(codec, id, &sealed))
        } else if row.get::<_, bool>(2).map_err(failed())? {
            let previous: Option<i64> = row.get(3).map_err(failed())?;
            let body: Option<Vec<u8>> = row.get(4).map_err(failed())?;
            let previous = previous.map(from_sql).transpose()?.map(EventId::from_u64);
            Some(body.and_then(|body| opened(codec, id, &SealedVersion { version, previous, body })))
        } else {
            None
        };
        match encoded {
            None => {}
            // It was deleted by then.
            Some(Some(encoded)) if encoded == format::encode_record(None) => {}
            Some(Some(encoded)) => {
                range.rows += 1;
                range.digest = range.digest.add(Digest::of_encoded_row(id, &encoded));
            }
            Some(None) => {
                range.rows += 1;
                range.unreadable += 1;
                // No record is encoded as nothing.
                range.digest = range.digest.add(Digest::of_encoded_row(id, &[]));
            }
        }
    }
    Ok(range)
}

/// The record's bytes; `None` = it can't be read.
fn opened(codec: &Codec, id: RecordId, sealed: &SealedVersion) -> Option<Vec<u8>> {
    let body = codec.open_body(sealed.version, id, sealed.previous, &sealed.body).ok()?;
    body.encoded_record().ok().map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_up_the_whole_without_gaps() {
        assert_eq!(split(1, 1, 16), [(1, 1)]);
        assert_eq!(split(1, 4, 2), [(1, 2), (3, 4)]);
        assert_eq!(split(0, 9, 4), [(0, 2), (3, 5), (6, 8), (9, 9)]);
        let top = u64::MAX >> 1;
        for (first, last, parts) in [(1, top, 16), (5, 1_000, 7), (top, top, 3), (0, 15, 16), (0, 100, 1_000)] {
            let ranges = split(first, last, parts);
            assert!(ranges.len() <= 16, "{ranges:?}");
            assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (first, last));
            assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{ranges:?}");
        }
    }
}
