//! Tests of the module above: laws, tables and failure paths.

use super::*;
use crate::id::{EventId, RecordId};

fn session(revision: u64, ordinal: u32) -> SessionId {
    SessionId(EventId::new(Revision(revision), ordinal).unwrap())
}

fn outcome(revision: u64, created: u64) -> Outcome {
    Outcome::Accepted { revision: Revision(revision), created: (0..created).map(RecordId::from_u64).collect() }
}

fn ask(sessions: &mut Sessions, id: SessionId, seq: u64, revision: u64) -> Seen {
    sessions.look_up(RequestId { session: id, seq }, Revision(revision))
}

fn answer(sessions: &mut Sessions, id: SessionId, seq: u64, revision: u64, created: u64) {
    sessions.remember(RequestId { session: id, seq }, Revision(revision), &outcome(revision, created));
}

#[test]
fn requests_may_come_in_any_order_within_the_window() {
    let (mut sessions, id) = (Sessions::default(), session(1, 0));
    sessions.open(id, Revision(1));
    for seq in (1..=SESSION_WINDOW).rev() {
        assert_eq!(ask(&mut sessions, id, seq, 2), Seen::Never);
        answer(&mut sessions, id, seq, 2, 0);
    }
    for seq in 1..=SESSION_WINDOW {
        assert_eq!(ask(&mut sessions, id, seq, 3), Seen::Before(outcome(2, 0)));
    }
    answer(&mut sessions, id, SESSION_WINDOW + 1, 3, 0);
    assert_eq!(ask(&mut sessions, id, 1, 3), Seen::Refused(Reject::RequestTooOld { seq: 1, window: SESSION_WINDOW }));
    assert_eq!(ask(&mut sessions, id, 2, 3), Seen::Before(outcome(2, 0)));
}

#[test]
fn the_largest_number_there_is_does_no_harm() {
    let (mut sessions, id) = (Sessions::default(), session(1, 0));
    sessions.open(id, Revision(1));
    answer(&mut sessions, id, u64::MAX, 2, 0);
    assert_eq!(ask(&mut sessions, id, u64::MAX, 3), Seen::Before(outcome(2, 0)));
    assert_eq!(ask(&mut sessions, id, u64::MAX - 1, 3), Seen::Never);
    assert!(matches!(ask(&mut sessions, id, 1, 3), Seen::Refused(Reject::RequestTooOld { .. })));
}

#[test]
fn large_outcomes_push_old_ones_out_before_the_window_is_full() {
    let (mut sessions, id) = (Sessions::default(), session(1, 0));
    sessions.open(id, Revision(1));
    for seq in 1..=20 {
        answer(&mut sessions, id, seq, seq + 1, 100_000);
    }
    let bytes = sessions.live[&id].bytes;
    assert!(bytes <= SESSION_BYTES_MAX, "{bytes} bytes are kept");
    assert_eq!(ask(&mut sessions, id, 20, 30), Seen::Before(outcome(21, 100_000)));
    assert!(matches!(ask(&mut sessions, id, 1, 30), Seen::Refused(Reject::RequestTooOld { .. })));
    let forgotten = sessions.live[&id].floor;
    assert_eq!(sessions.live[&id].outcomes.len() + usize::try_from(forgotten).unwrap(), 20);
}

#[test]
fn one_session_too_many_closes_the_one_idle_longest() {
    let mut sessions = Sessions::default();
    let count = u32::try_from(SESSIONS_MAX).unwrap();
    for ordinal in 0..count {
        sessions.open(session(1, ordinal), Revision(1));
    }
    ask(&mut sessions, session(1, 0), 1, 2);
    sessions.open(session(3, 0), Revision(3));
    assert_eq!(ask(&mut sessions, session(1, 1), 1, 4), Seen::Refused(Reject::SessionExpired));
    assert_eq!(ask(&mut sessions, session(1, 0), 1, 4), Seen::Never);
    assert_eq!(sessions.live.len(), SESSIONS_MAX);
}

#[test]
fn closing_everything_leaves_no_trace_in_the_digest() {
    let mut sessions = Sessions::default();
    for ordinal in 0..3 {
        sessions.open(session(1, ordinal), Revision(1));
        answer(&mut sessions, session(1, ordinal), 1, 2, 0);
    }
    assert_ne!(sessions.digest(), Digest::ZERO);
    sessions.close(session(1, 1));
    sessions.sweep(Revision(3 + SESSION_IDLE_REVISIONS));
    assert_eq!(sessions.digest(), Digest::ZERO);
    assert!(sessions.by_use.is_empty());
    let deleted = sessions.take_dirty();
    assert!(deleted.len() == 3 && deleted.iter().all(|(_, bytes)| bytes.is_none()));
    assert!(sessions.take_dirty().is_empty());
}

#[test]
fn the_digest_knows_what_was_told_and_when_it_was_asked() {
    let fresh = || {
        let mut sessions = Sessions::default();
        sessions.open(session(1, 0), Revision(1));
        sessions
    };
    let with = |step: &dyn Fn(&mut Sessions)| {
        let mut sessions = fresh();
        step(&mut sessions);
        sessions.digest()
    };
    let id = session(1, 0);
    let states = [
        fresh().digest(),
        with(&|sessions| answer(sessions, id, 1, 2, 0)),
        with(&|sessions| answer(sessions, id, 1, 2, 1)),
        with(&|sessions| answer(sessions, id, 2, 2, 0)),
        with(&|sessions| answer(sessions, id, 1, 3, 0)),
        with(&|sessions| drop(ask(sessions, id, 1, 2))),
    ];
    assert_eq!(states.into_iter().collect::<BTreeSet<_>>().len(), 6);
}

#[test]
fn damaged_sessions_are_refused() {
    let (mut sessions, id) = (Sessions::default(), session(1, 0));
    sessions.open(id, Revision(1));
    answer(&mut sessions, id, 7, 2, 0);
    let saved: Vec<_> = sessions.save().collect();
    let bytes = saved[0].1.clone();
    assert!(Sessions::restore(saved.clone().into_iter()).is_ok());
    assert!(matches!(
        Sessions::restore([saved.clone(), saved].concat().into_iter()),
        Err(FormatError::Inconsistent { .. })
    ));

    let with = |outcomes: Vec<(u64, Vec<u8>)>| {
        let damaged = Saved { last_used: Revision(2), highest: 7, floor: 3, chain: [0; 32], outcomes };
        Session::restore(id, &format::encode(SESSION_FORMAT, &damaged))
    };
    let told = format::encode_outcome(&outcome(2, 0));
    assert!(with(vec![(4, told.clone()), (7, told.clone())]).is_ok());
    assert!(matches!(with(vec![(3, told.clone())]), Err(FormatError::Inconsistent { .. })));
    assert!(matches!(with(vec![(8, told.clone())]), Err(FormatError::Inconsistent { .. })));
    assert!(matches!(with(vec![(6, told.clone()), (5, told.clone())]), Err(FormatError::Inconsistent { .. })));
    assert!(matches!(with(vec![(5, [&told[..2], &[99]].concat())]), Err(FormatError::Malformed { .. })));
    for end in 0..bytes.len() {
        assert!(Session::restore(id, &bytes[..end]).is_err(), "{end} bytes of {} were enough", bytes.len());
    }
}
