//! Tests of the module above: laws, tables and failure paths.

use super::*;
use openraft::EntryPayload;
use zyflow_storage::types::Payload;

const ENDS: Ends = Ends { from: 1, to: 2 };

fn entry(index: u64, bytes: usize) -> Entry {
    let payload = EntryPayload::Normal(Payload(vec![7; bytes].into()));
    Entry { log_id: LogId::new_term_index(3, index), payload }
}

fn append(entries: Vec<Entry>) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(LogId::new_term_index(2, 4)),
        entries,
        leader_commit: Some(LogId::new_term_index(2, 3)),
    }
}

#[test]
fn an_append_travels_whole() {
    let sent = append(vec![entry(5, 10), entry(6, 0)]);
    let messages = append_messages(ENDS, &sent, 99);
    let [message] = messages.as_slice() else { panic!("one message, not {}", messages.len()) };
    assert_eq!((message.from, message.to, message.clock_ms), (1, 2, 99));
    let received = append_of(message).expect("well formed");
    assert_eq!(format!("{received:?}"), format!("{sent:?}"));
    assert_eq!(received.entries, sent.entries);
}

#[test]
fn a_heartbeat_is_one_message() {
    assert_eq!(append_messages(ENDS, &append(Vec::new()), 0).len(), 1);
}

#[test]
fn large_appends_are_cut_by_bytes_and_fit_together() {
    let sizes = [APPEND_BYTES_TARGET / 2, APPEND_BYTES_TARGET / 2, 3 * APPEND_BYTES_TARGET, 5, 5];
    let entries: Vec<_> = (5..).zip(sizes).map(|(index, bytes)| entry(index, bytes)).collect();
    let messages = append_messages(ENDS, &append(entries.clone()), 0);
    let counts: Vec<_> = messages.iter().map(|message| message.entries.len()).collect();
    assert_eq!(counts, [1, 1, 1, 2]);
    let mut previous = Some(LogId::new_term_index(2, 4));
    let mut received = Vec::new();
    for message in &messages {
        let part = append_of(message).expect("well formed");
        assert_eq!(part.prev_log_id, previous, "each part follows on the one before");
        previous = part.entries.last().map(|entry| entry.log_id);
        received.extend(part.entries);
    }
    assert_eq!(received, entries);
}

#[test]
fn gaps_floods_and_nonsense_are_refused() {
    let mut message = append_messages(ENDS, &append(vec![entry(5, 1), entry(7, 1)]), 0).remove(0);
    assert!(matches!(append_of(&message), Err(WireError::Gap { expected: 6, found: 7 })));
    message.entries = vec![Bytes::new(); ENTRIES_TAKEN_MAX + 1];
    assert!(matches!(append_of(&message), Err(WireError::TooManyEntries(_))));
    message.entries = vec![Bytes::from_static(b"\xff\xff")];
    assert!(matches!(append_of(&message), Err(WireError::Field { field: "entry", .. })));
    message.entries.clear();
    message.vote = Bytes::new();
    assert!(matches!(append_of(&message), Err(WireError::Field { field: "vote", .. })));
    let empty = proto::AppendReply { result: None, clock_ms: 0 };
    assert!(matches!(append_result(&empty), Err(WireError::Missing(_))));
}

#[test]
fn replies_travel_whole() {
    let at = LogId::new_term_index(3, 5);
    let higher = Vote::new(9, 3);
    for result in
        [Ok(None), Ok(Some(at)), Err(StreamAppendError::Conflict(at)), Err(StreamAppendError::HigherVote(higher))]
    {
        assert_eq!(append_result(&append_reply(&result, 0)).expect("well formed"), result);
    }
    let request = TransferLeaderRequest::new(Vote::new_committed(3, 1), 2, Some(at));
    for response in [
        Ok(()),
        Err(TransferLeaderError::VoteChanged { expected: Vote::new_committed(3, 1), actual: higher }),
        Err(TransferLeaderError::LogNotFlushed { expected: Some(at), actual: None }),
    ] {
        let travelled = transfer_response(&request, &transfer_reply(&response)).expect("well formed");
        assert_eq!(travelled, response);
    }
    let response = VoteResponse::new(higher, Some(at), true);
    assert_eq!(vote_response(&vote_reply(&response)).expect("well formed"), response);
}
