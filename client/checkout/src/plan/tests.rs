//! Tables of single decisions; [`model`] runs whole schedules.

mod model;

use expect_test::{Expect, expect};
use zyflow_machine::command::{BlockOp, Body};
use zyflow_machine::id::{EventId, RecordId, Revision};
use zyflow_spec::{Known, Op, align, parse};

use super::*;

const PROJECT: RecordId = RecordId::ROOT;

fn id(number: u64) -> RecordId {
    RecordId(EventId::from_u64(number))
}

/// `a b* c` is three tasks, the second one ticked.
fn tasks(words: &str) -> String {
    let line = |word: &str| match word.strip_suffix('*') {
        Some(word) => format!("- [x] {word}\n"),
        None => format!("- [ ] {word}\n"),
    };
    words.split_whitespace().map(line).collect()
}

/// Texts in order, with ids that follow their blocks.
struct Texts {
    next: u64,
    last: Vec<Known<RecordId>>,
    revision: u64,
}

impl Texts {
    fn new() -> Self {
        Self { next: 1, last: Vec::new(), revision: 1 }
    }

    fn text(&mut self, words: &str) -> KnownText {
        let document = parse(&tasks(words));
        let ids = align(&self.last, &document);
        let blocks = ids.into_iter().zip(document.blocks).map(|(known, block)| {
            let fresh = id(self.next);
            self.next += 1;
            Known { id: known.unwrap_or(fresh), block }
        });
        self.last = blocks.collect();
        self.revision += 1;
        KnownText { revision: Revision(self.revision), blocks: self.last.clone() }
    }
}

/// `me a b` or `us a b` for each shown text.
fn shown(lines: &[&str], texts: &mut Texts) -> Vec<Shown> {
    let shown = lines.iter().map(|line| {
        let (by, words) = line.split_once(' ').unwrap_or((line, ""));
        let by = if by == "us" { By::Us } else { By::Writer };
        Shown { text: texts.text(words), by }
    });
    shown.collect()
}

fn check_start(lines: &[&str], local: &str, expected: Expect) {
    check_origin(lines, local, Origin::Saved, expected);
}

fn check_origin(lines: &[&str], local: &str, origin: Origin, expected: Expect) {
    let shown = shown(lines, &mut Texts::new());
    let local = tasks(local);
    let start = choose(&shown, &parse(&local), &local, origin);
    expected.assert_eq(&format!("{:?} from {}", start.reason, start.index));
}

#[test]
fn an_ordinary_save_is_read_against_the_newest_text() {
    check_start(&["me a b"], "a b c", expect!["Newest from 0"]);
    check_start(&["me a b", "us a b c"], "a b c d", expect!["Newest from 1"]);
    check_start(&["me a b", "us a b* c"], "a* b* c", expect!["Newest from 1"]);
}

#[test]
fn a_stale_buffer_with_an_edit_is_read_against_the_text_it_was_made_from() {
    check_start(&["me a b", "us a b w1"], "a b mine", expect!["Stale from 0"]);
    check_start(&["me a b", "us a b w1", "us a b w1 w2"], "a b mine", expect!["Stale from 0"]);
    check_start(&["me a b", "us a b w1", "us a b w1 w2"], "a b w1 mine", expect!["Stale from 1"]);
    check_start(&["me a b", "us a b w1", "us a b w1 w2", "us w0 a b w1 w2"], "a b mine", expect!["Stale from 0"]);
    check_start(&["me a b", "us a* b"], "a b mine", expect!["Stale from 0"]);
    check_start(&["me a b", "us a*  b"], "a b*", expect!["Stale from 0"]);
    check_start(&["me a b c", "us c a b"], "a b c mine", expect!["Stale from 0"]);
    check_start(&["me a b c", "us a c"], "a b c mine", expect!["Stale from 0"]);
}

#[test]
fn a_pure_inverse_is_a_deliberate_revert() {
    check_start(&["me a b", "us a b w"], "a b", expect!["Revert from 1"]);
    check_start(&["me a b", "us a b* w", "us a b* w w2"], "a b* w", expect!["Revert from 2"]);
    check_start(&["me a b", "us a* b"], "a b", expect!["Revert from 1"]);
}

#[test]
fn git_putting_an_older_text_back_is_nothing_new() {
    check_origin(&["me a b", "us a b w"], "a b", Origin::HeadMoved, expect!["Past from 0"]);
    check_origin(&["me a b", "us a b w"], "a b mine", Origin::HeadMoved, expect!["Stale from 0"]);
    check_origin(&["me a b", "us a b w"], "a b", Origin::Displaced, expect!["Past from 0"]);
}

#[test]
fn a_writers_own_undo_stays_an_undo() {
    check_start(&["me a", "me a b"], "a c", expect!["Newest from 1"]);
    check_start(&["me a", "me a b"], "a", expect!["Newest from 1"]);
    // Its own line goes, ours that it hasn't seen stays.
    check_start(&["me a", "me a b", "us a b w"], "a c", expect!["Stale from 1"]);
    check_start(&["me a", "me a b", "us a b w"], "a", expect!["Stale from 1"]);
    check_start(&["us a v", "me a v b", "us a v b w"], "a v c", expect!["Stale from 1"]);
}

#[test]
fn undoing_a_part_of_our_write_by_hand_is_an_edit() {
    check_start(&["me a", "us a w1 w2 w3"], "a w1 w3 mine", expect!["Newest from 1"]);
    check_start(&["me a b c", "us a* b* c*"], "a* b c* mine", expect!["Newest from 1"]);
    // A line that somebody removed, written again beside a newer one.
    check_start(&["me a x", "us a", "me a mine"], "a mine x", expect!["Newest from 2"]);
}

#[test]
fn another_line_at_the_same_place_is_no_rewording() {
    let start = |base: &str, ours: &str, local: &str| {
        let texts = [base.to_owned(), format!("{base}{ours}")];
        let mut last: Vec<Known<RecordId>> = Vec::new();
        let mut shown = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let document = parse(text);
            let ids = align(&last, &document);
            let fresh = (100 * u64::try_from(at).unwrap()..).map(id);
            let blocks = ids.into_iter().zip(document.blocks).zip(fresh);
            last = blocks.map(|((known, block), fresh)| Known { id: known.unwrap_or(fresh), block }).collect();
            let by = if at == 0 { By::Writer } else { By::Us };
            shown.push(Shown { text: KnownText { revision: Revision(1), blocks: last.clone() }, by });
        }
        let local = format!("{base}{local}");
        choose(&shown, &parse(&local), &local, Origin::Saved).reason
    };
    let base = "- [ ] 1.1 write the log\n";
    assert_eq!(start(base, "- [ ] 1.2 cut the power at random\n", "- [ ] 1.2 draw a picture\n"), Reason::Stale);
    assert_eq!(
        start(base, "- [ ] 1.2 cut the power at random\n", "- [ ] 1.2 cut all power at random\n"),
        Reason::Newest
    );
}

#[test]
fn a_second_save_from_the_same_old_buffer_is_read_against_the_first() {
    let lines = ["me a", "us a w1", "me a one", "us a w1 one", "us a w1 one w2"];
    check_start(&lines, "a one two", expect!["Stale from 2"]);
}

fn describe(step: &Step) -> String {
    let ops = |body: &Body| match body {
        Body::Edit { ops, conflicts, .. } => {
            let ops: Vec<String> = ops.iter().map(describe_op).collect();
            format!("{} conflicts {}", ops.join(", "), conflicts.len())
        }
        Body::CreateChange { blocks, .. } => format!("create with {} blocks", blocks.len()),
        Body::DeleteChange { .. } => "delete the change".to_owned(),
        other => format!("{other:?}"),
    };
    let words = |text: &KnownText| text.text().replace("- [ ] ", "").replace("- [x] ", "*").replace('\n', " ");
    match step {
        Step::Propose(proposal) => format!("propose: {}", ops(&proposal.body)),
        Step::Write { text, seen, .. } => {
            let seen = seen.as_ref().map(|seen| format!(", having seen {}", words(seen))).unwrap_or_default();
            format!("write {}{seen}", words(text))
        }
        Step::Learn { text, .. } => format!("learn {}", words(text)),
        other => format!("{other:?}"),
    }
}

fn describe_op(op: &BlockOp) -> String {
    match op {
        BlockOp::Insert { block, .. } => format!("insert{}", block.text.trim_start_matches(']').trim_end()),
        BlockOp::SetText { text, .. } => format!("set text{}", text.trim_start_matches(']').trim_end()),
        BlockOp::SetMark { mark, .. } => format!("set mark {mark:?}"),
        BlockOp::Move { .. } => "move".to_owned(),
        BlockOp::Delete { .. } => "delete".to_owned(),
        other => format!("{other:?}"),
    }
}

struct Case<'a> {
    shown: &'a [&'a str],
    /// `-` = no file.
    local: &'a str,
    /// `-` = no change, `deleted` = a deleted one.
    cluster: &'a str,
    take: Option<Take>,
    is_deletion_confirmed: bool,
}

fn case<'a>(shown: &'a [&'a str], local: &'a str, cluster: &'a str) -> Case<'a> {
    Case { shown, local, cluster, take: None, is_deletion_confirmed: false }
}

fn check(case: &Case<'_>, expected: Expect) {
    let mut texts = Texts::new();
    let shown = shown(case.shown, &mut texts);
    let change = id(1 << 20);
    let cluster = match case.cluster {
        "-" => Side::Absent,
        "deleted" => Side::Deleted { change, at: Revision(u64::MAX) },
        words => Side::Live { change, text: texts.text(words) },
    };
    let local = (case.local != "-").then(|| tasks(case.local));
    let input = Input {
        path: "tasks.md",
        project: PROJECT,
        agreed: (!shown.is_empty()).then_some((change, &shown[..])),
        local: local.as_deref(),
        origin: Origin::Saved,
        cluster: &cluster,
        take: case.take,
        is_deletion_confirmed: case.is_deletion_confirmed,
        strategies: &Strategies::default(),
    };
    expected.assert_eq(&describe(&plan(&input)));
}

#[test]
fn agreement_asks_for_nothing() {
    check(&case(&["me a b"], "a b", "a b"), expect!["Settled"]);
    check(&case(&["me a b"], "a b c", "a b c"), expect!["learn a b c "]);
}

#[test]
fn an_edit_of_the_file_is_proposed_and_one_of_the_cluster_is_written() {
    check(&case(&["me a b"], "a* b", "a b"), expect![[r#"propose: set mark "x" conflicts 0"#]]);
    check(&case(&["me a b"], "a b", "a b c"), expect!["write a b c "]);
    check(&case(&["me a b"], "a b mine", "a* b"), expect!["propose: insert mine conflicts 0"]);
}

#[test]
fn a_stale_whole_file_save_reverts_nothing() {
    check(&case(&["me a b", "us a b w1"], "a b mine", "a b w1"), expect!["propose: insert mine conflicts 0"]);
    check(
        &case(&["me a b", "us a b w1", "us a* b w1", "us a* b w1 w3"], "a b mine", "a* b w1 w3"),
        expect!["propose: insert mine conflicts 0"],
    );
    check(&case(&["me a b", "us a b w1"], "a b", "a b w1"), expect!["propose: delete conflicts 1"]);
}

#[test]
fn an_edit_that_the_cluster_has_already_is_remembered_and_written_over() {
    check(&case(&["me a b"], "a* b", "a* b w"), expect!["write *a b w , having seen *a b "]);
}

#[test]
fn first_binding_adopts_asks_or_takes() {
    check(&case(&[], "a b", "a b"), expect!["learn a b "]);
    check(&case(&[], "a b", "-"), expect!["propose: create with 2 blocks"]);
    check(&case(&[], "-", "a b"), expect!["write a b "]);
    check(&case(&[], "a c", "a b"), expect!["NeedsTake"]);
    let with = |take| Case { take: Some(take), ..case(&[], "a mine", "a* b") };
    check(&with(Take::Cluster), expect!["write *a b "]);
    check(&with(Take::Local), expect![[r#"propose: set mark " ", insert mine, delete conflicts 0"#]]);
    check(&with(Take::Merge), expect!["propose: insert mine conflicts 0"]);
    check(&case(&[], "a", "deleted"), expect!["NeedsTake"]);
    check(&Case { take: Some(Take::Cluster), ..case(&[], "a", "deleted") }, expect!["Remove"]);
}

#[test]
fn a_deletion_waits_and_an_edit_beats_it() {
    check(&case(&["me a"], "-", "a"), expect!["AwaitDeletion"]);
    check(&case(&["me a"], "-", "a b"), expect!["write a b "]);
    let confirmed = Case { is_deletion_confirmed: true, ..case(&["me a"], "-", "a") };
    check(&confirmed, expect!["propose: delete the change"]);
    check(&case(&["me a"], "a", "deleted"), expect!["Remove"]);
    check(&case(&["me a"], "a mine", "deleted"), expect!["propose: create with 2 blocks"]);
    check(&case(&["me a"], "-", "deleted"), expect!["Forget"]);
}

#[test]
fn nothing_is_done_on_a_state_older_than_the_base() {
    let mut texts = Texts::new();
    let old = texts.text("a");
    let shown = vec![Shown { text: texts.text("a b"), by: By::Writer }];
    let change = id(1 << 20);
    let cluster = Side::Live { change, text: old };
    let local = tasks("a b");
    let input = Input {
        path: "tasks.md",
        project: PROJECT,
        agreed: Some((change, &shown)),
        local: Some(&local),
        origin: Origin::Saved,
        cluster: &cluster,
        take: None,
        is_deletion_confirmed: false,
        strategies: &Strategies::default(),
    };
    assert_eq!(plan(&input), Step::Behind { need: shown[0].text.revision });
}

/// The record of a rewording that took an unseen rewording away: whole blocks, as in every conflict about a text.
#[test]
fn what_an_edit_may_have_taken_away_unseen_is_recorded_whole() {
    let text = |revision, line: &str| {
        let blocks = parse(line).blocks.into_iter().map(|block| Known { id: id(1), block }).collect();
        KnownText { revision: Revision(revision), blocks }
    };
    let newer = "- [ ] cut the power at a random time by hand\n";
    let shown = [
        Shown { text: text(2, "- [ ] cut the power at a random time\n"), by: By::Writer },
        Shown { text: text(3, newer), by: By::Us },
    ];
    let cluster = Side::Live { change: id(9), text: shown[1].text.clone() };
    let local = "- [ ] cut the power at a random time twice\n";
    let input = Input {
        path: "tasks.md",
        project: PROJECT,
        agreed: Some((id(9), &shown)),
        local: Some(local),
        origin: Origin::Saved,
        cluster: &cluster,
        take: None,
        is_deletion_confirmed: false,
        strategies: &Strategies::default(),
    };
    let Step::Propose(proposal) = plan(&input) else { panic!("an edit is proposed") };
    let Body::Edit { conflicts, .. } = proposal.body else { panic!("it is an edit") };
    let kept: Vec<_> =
        conflicts.iter().map(|conflict| (conflict.spec.as_deref(), conflict.runtime.as_deref())).collect();
    assert_eq!(kept, [(Some(local), Some(newer))]);
}

/// Twenty of our writes came between: the text that the buffer was read from is none of the near ones.
#[test]
fn a_buffer_older_than_the_near_texts_undoes_nothing() {
    let mut lines = vec!["me a b".to_owned()];
    for number in 1..=20 {
        let ours: Vec<String> = (1..=number).map(|number| format!("w{number}")).collect();
        lines.push(format!("us a b {}", ours.join(" ")));
    }
    let shown: Vec<&str> = lines.iter().map(String::as_str).collect();
    let cluster = lines.last().unwrap().trim_start_matches("us ");
    check_start(&shown, "a b mine", expect!["Stale from 0"]);
    check(&case(&shown, "a b mine", cluster), expect!["propose: insert mine conflicts 0"]);
    // A fresh buffer from which its writer takes the oldest of ours. A line of one word proves no start, so it is recorded.
    let fresh = format!("{} mine", cluster.replace(" w1 ", " "));
    check(&case(&shown, &fresh, cluster), expect!["propose: insert mine, delete conflicts 1"]);
}

/// Our write brought one short line, and the writer's only edit was to reword it: read as a stale buffer with a new line, it stands
/// twice. That is the smaller evil, and is recorded.
#[test]
fn a_new_line_that_holds_all_words_of_an_unseen_one_is_recorded_as_maybe_the_same() {
    let text = |revision: u64, lines: &[(u64, &str)]| {
        let known = |(number, line): &(u64, &str)| {
            let block = parse(&format!("- [ ] {line}\n")).blocks.remove(0);
            Known { id: id(*number), block }
        };
        KnownText { revision: Revision(revision), blocks: lines.iter().map(known).collect() }
    };
    let shown = [
        Shown { text: text(2, &[(1, "read the log")]), by: By::Writer },
        Shown { text: text(3, &[(1, "read the log"), (2, "written by ann")]), by: By::Us },
    ];
    let cluster = Side::Live { change: id(9), text: shown[1].text.clone() };
    let conflicts = |local: &str| {
        let input = Input {
            path: "tasks.md",
            project: PROJECT,
            agreed: Some((id(9), &shown)),
            local: Some(local),
            origin: Origin::Saved,
            cluster: &cluster,
            take: None,
            is_deletion_confirmed: false,
            strategies: &Strategies::default(),
        };
        let Step::Propose(proposal) = plan(&input) else { panic!("an edit is proposed") };
        let Body::Edit { conflicts, ops, .. } = proposal.body else { panic!("it is an edit") };
        assert!(matches!(&ops[..], [zyflow_machine::command::BlockOp::Insert { .. }]), "{ops:?}");
        conflicts.into_iter().map(|conflict| (conflict.spec, conflict.runtime)).collect::<Vec<_>>()
    };
    let reworded = "- [x] written at last by ann again\n";
    let twins = (Some(reworded.to_owned()), Some("- [ ] written by ann\n".to_owned()));
    assert_eq!(conflicts(&format!("- [ ] read the log\n{reworded}")), [twins]);
    assert_eq!(conflicts("- [ ] read the log\n- [ ] written by bob and others\n"), []);
}

/// An old buffer holds a line as it was before others reworded it beyond likeness. Read against a text that lacks the line it is
/// still that line, and not a new one that then stands twice.
#[test]
fn a_line_that_was_reworded_since_is_known_by_the_words_it_had() {
    let text = |revision: u64, lines: &[(u64, &str)]| {
        let known = |(number, line): &(u64, &str)| {
            let block = parse(&format!("- [ ] {line}\n")).blocks.remove(0);
            Known { id: id(*number), block }
        };
        KnownText { revision: Revision(revision), blocks: lines.iter().map(known).collect() }
    };
    let shown = [
        Shown { text: text(2, &[(1, "read the log")]), by: By::Writer },
        Shown { text: text(3, &[(1, "read the log"), (2, "cut power")]), by: By::Us },
        Shown { text: text(4, &[(1, "read the log"), (2, "pull every plug at a random moment")]), by: By::Us },
    ];
    let document = parse("- [ ] read the log\n- [ ] cut power\n- [ ] mine\n");
    let base = with_known_lines(&shown, 0, &document, &shown[2].text.blocks);
    assert_eq!(base, shown[1].text.blocks);
    let ops = merge3(&base, &document, &shown[2].text.blocks).ops;
    assert!(matches!(&ops[..], [Op::Insert { .. }]), "{ops:?}");
}
