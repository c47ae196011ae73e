//! Where the history may begin, over real tables that are fed entry by entry.

use std::sync::Arc;

use zeroize::Zeroizing;
use zyflow_crypto::{DataKey, KeyId, KeyRing, Lineage, LocalKey};
use zyflow_machine::command::Batch;
use zyflow_machine::record::Keep;
use zyflow_storage::tables::{Entry, EntryPayload, Position, TablesConfig};

use super::*;

/// Tables that were fed entry by entry, one a second from 1,000 s on.
struct Fed {
    tables: Tables,
    index: u64,
    _dir: tempfile::TempDir,
}

impl Fed {
    fn new(keep: Keep) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lineage = Lineage([7; 16]);
        let ring = KeyRing::new(DataKey::new(KeyId(1), Zeroizing::new([7; 32])));
        let key = Arc::new(LocalKey::create_or_load(&dir.path().join("node.key"), &ring).unwrap());
        let durable = watch::Sender::new(Some(u64::MAX)).subscribe();
        let tables = Tables::open(TablesConfig::new(dir.path().join("tables"), lineage), key, durable).unwrap();
        let mut fed = Self { tables, index: 0, _dir: dir };
        fed.run(Body::SetRetention { keep });
        fed
    }

    fn run(&mut self, body: Body) -> Outcome {
        self.index += 1;
        let command = Command { request: None, author: Author::default(), body };
        let batch = Batch { stamped: at(self.index), commands: vec![command] };
        let position = Position { term: 1, leader: 0, index: self.index };
        let entry = Entry { position, payload: EntryPayload::Batch(batch) };
        self.tables.apply(entry).unwrap().remove(0)
    }

    /// Entries up to `index`, each with an event.
    fn grow(&mut self, index: u64) {
        while self.index < index {
            let name = format!("project {}", self.index);
            self.run(Body::CreateProject { name, files: Vec::new() });
        }
    }

    fn point(&mut self, at: u64, is_automatic: bool) {
        let name = format!("point {at} {is_automatic}");
        self.run(Body::CreatePoint { name, at: Some(Revision(at)), note: String::new(), is_automatic });
    }

    fn target(&self) -> Option<(u64, ClusterTime)> {
        target(&self.tables, at(self.index)).unwrap().map(|(to, time)| (to.0, time))
    }
}

/// The clock when an entry was made.
fn at(index: u64) -> ClusterTime {
    ClusterTime(1_000_000 + index * 1_000)
}

#[test]
fn nothing_goes_where_all_is_kept() {
    let mut fed = Fed::new(Keep::default());
    fed.grow(50);
    assert_eq!(fed.target(), None);
}

#[test]
fn so_many_revisions_are_kept_and_the_horizon_moves_by_a_tenth_of_them() {
    let mut fed = Fed::new(Keep { revisions: Some(20), age_ms: None });
    fed.grow(21);
    assert_eq!(fed.target(), None, "one revision too many isn't worth an entry");
    fed.grow(22);
    assert_eq!(fed.target(), Some((2, at(2))));
    fed.grow(50);
    assert_eq!(fed.target(), Some((30, at(30))));
    fed.run(Body::Compact { to: Revision(30), time: at(30) });
    assert_eq!(fed.target(), None);
}

#[test]
fn so_much_time_is_kept() {
    let mut fed = Fed::new(Keep { revisions: None, age_ms: Some(20_000) });
    fed.grow(20);
    assert_eq!(fed.target(), None, "the oldest isn't that old");
    fed.grow(60);
    assert_eq!(fed.target(), Some((40, at(40))));
    fed.run(Body::Compact { to: Revision(40), time: at(40) });
    assert_eq!(fed.target(), None, "one second more isn't worth an entry");
    fed.grow(62);
    assert_eq!(fed.target(), Some((42, at(42))));
}

#[test]
fn what_either_wants_is_kept_and_what_a_point_of_somebody_names() {
    let mut fed = Fed::new(Keep { revisions: Some(10), age_ms: Some(30_000) });
    fed.grow(58);
    fed.point(25, true);
    fed.grow(60);
    assert_eq!(fed.target(), Some((30, at(30))));
    fed.point(20, false);
    assert_eq!(fed.target(), Some((20, at(20))));
    fed.run(Body::Compact { to: Revision(20), time: at(20) });
    fed.grow(200);
    assert_eq!(fed.target(), None, "the point stays where it is");
}
