//! What a restore from a backup has undone can't be built on: every command that names what its proposer saw is refused.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use zyflow_machine::command::{Author, Batch, Body, Command, EditMode, Expected, Scope};
use zyflow_machine::event::{Event, Fact};
use zyflow_machine::evolve::evolve;
use zyflow_machine::id::{ClusterTime, EventId, RecordId, Revision};
use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_machine::record::{Policy, Restore};
use zyflow_machine::{Machine, MapView};

const CUT: Revision = Revision(3);
const AT: Revision = Revision(1_000_009);

/// The state at [`CUT`], restored at [`AT`]: a project and a change.
fn restored() -> (Machine, MapView, RecordId, RecordId) {
    let (mut machine, mut view) = (Machine::new(), MapView::new());
    let project = created(&run(&mut machine, &mut view, Revision(1), project()));
    let change = Body::CreateChange { project, path: "tasks.md".to_owned(), blocks: Vec::new(), ops: Vec::new() };
    let change = created(&run(&mut machine, &mut view, Revision(2), change));
    let version = EventId::new(AT, 0).unwrap();
    let fact = Fact::Restored(Restore { cut: CUT, last: Revision(9) });
    view.commit(&[evolve(Event { id: version, record: RecordId(version), fact }, None).unwrap()]);
    let machine = Machine::begin_at(AT, ClusterTime(50), view.rows_digest());
    (machine, view, project, change)
}

fn project() -> Body {
    Body::CreateProject { name: "p".to_owned(), files: Vec::new() }
}

fn run(machine: &mut Machine, view: &mut MapView, at: Revision, body: Body) -> Outcome {
    let command = Command { request: None, author: Author { name: "ann".to_owned(), clock_ms: 0 }, body };
    let batch = Batch { stamped: ClusterTime(60), commands: vec![command] };
    let effects = machine.apply(view, at, &batch).unwrap();
    view.commit_effects(&effects);
    effects.outcomes.into_iter().next().unwrap()
}

fn created(outcome: &Outcome) -> RecordId {
    let Outcome::Accepted { created, .. } = outcome else { panic!("{outcome:?}") };
    created[0]
}

/// The commands that name a base, each with `base`.
fn commands(base: Revision, project: RecordId, change: RecordId) -> Vec<Body> {
    let expected = Some(base);
    vec![
        Body::Edit { change, base, mode: EditMode::Merge, ops: Vec::new(), conflicts: Vec::new() },
        Body::DeleteChange { change, base },
        Body::SetPolicy { project, expected, policy: Policy::default() },
        Body::CreatePoint { name: "x".to_owned(), at: expected, note: String::new(), is_automatic: false },
        Body::Rollback { scope: Scope::All, to: base, expected: None },
        Body::Rollback { scope: Scope::All, to: CUT, expected },
        Body::Expecting {
            expected: vec![Expected { record: change, revision: base }],
            body: Box::new(Body::MoveChange { change, path: "b.md".to_owned(), from: "tasks.md".to_owned() }),
        },
    ]
}

#[test]
fn a_base_that_was_undone_is_refused_by_every_command_that_names_one() {
    for base in [CUT.0 + 1, 9, 500_000, AT.0 - 1].map(Revision) {
        let (_, _, project, change) = restored();
        for body in commands(base, project, change) {
            let (mut machine, mut view, ..) = restored();
            let outcome = run(&mut machine, &mut view, Revision(AT.0 + 1), body.clone());
            let Outcome::Rejected(Reject::Invalid(why)) = &outcome else { panic!("{base} {body:?}: {outcome:?}") };
            assert!(why.contains(&format!("{base} was undone")) && why.contains(&AT.to_string()), "{why}");
        }
    }
}

#[test]
fn what_is_before_the_cut_or_after_the_restore_is_as_good_as_ever() {
    for base in [CUT, AT] {
        let (_, _, project, change) = restored();
        for body in commands(base, project, change) {
            let (mut machine, mut view, ..) = restored();
            let outcome = run(&mut machine, &mut view, Revision(AT.0 + 1), body.clone());
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{base} {body:?}: {outcome:?}");
            assert_eq!(machine.rows_digest(), view.rows_digest());
        }
    }
}
