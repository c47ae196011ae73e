//! Tests of the module above: each strategy in each field, and laws over all of them.

use super::*;
use crate::ConflictClass;
use crate::merge::laws::{changed, changes, lines, vanished};
use crate::merge::merge3;
use crate::merge::strategy::Strategy;
use crate::merge::tests::evolved;
use crate::parse;
use crate::testing::known;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

const ALL: [Strategy; 6] = [
    Strategy::SpecWins,
    Strategy::RuntimeWins,
    Strategy::LastWriteWins,
    Strategy::Merge,
    Strategy::Manual,
    Strategy::Skip,
];

/// Settles by every strategy in turn; what several of them make of it is told once.
fn check(base: &str, local: &str, current: &str, expected: &Expect) {
    let base = known(base);
    let current = evolved(&base, current);
    let local = parse(local);
    let mut seen: Vec<(String, Vec<Strategy>)> = Vec::new();
    for strategy in ALL {
        let merge = merge3(&base, &local, &current);
        let settled = settle(merge, &base, &local, &current, &Strategies::all(strategy));
        let describe = |conflict: &SettledConflict<u32>| {
            let how = if conflict.settled.is_some() { "settled" } else { "open" };
            assert!(conflict.settled.is_none_or(|settled| settled == strategy));
            format!("! {} {how}: {:?}\n", conflict.conflict.field, conflict.value)
        };
        let text = settled.text + &settled.conflicts.iter().map(describe).collect::<String>();
        match seen.iter_mut().find(|(other, _)| *other == text) {
            Some((_, strategies)) => strategies.push(strategy),
            None => seen.push((text, vec![strategy])),
        }
    }
    let names = |strategies: Vec<Strategy>| strategies.iter().map(Strategy::to_string).collect::<Vec<_>>().join(", ");
    let tell = |(text, strategies): (String, Vec<Strategy>)| format!("= {}\n{text}", names(strategies));
    let told: String = seen.into_iter().map(tell).collect();
    expected.assert_eq(&told);
}

#[test]
fn marks() {
    check(
        "- [ ] alpha\n",
        "- [~] alpha\n",
        "- [!] alpha\n",
        &expect![[r#"
        = SPEC_WINS, LAST_WRITE_WINS
        - [~] alpha
        ! mark settled: Some("~")
        = RUNTIME_WINS, SKIP
        - [!] alpha
        ! mark settled: Some("!")
        = MERGE, MANUAL
        - [!] alpha
        ! mark open: Some("!")
    "#]],
    );
    check(
        "- [ ] alpha\n",
        "- [-] alpha\n",
        "- [/] alpha\n",
        &expect![[r#"
        = SPEC_WINS, LAST_WRITE_WINS
        - [-] alpha
        ! mark settled: Some("-")
        = RUNTIME_WINS, MERGE, SKIP
        - [/] alpha
        ! mark settled: Some("/")
        = MANUAL
        - [/] alpha
        ! mark open: Some("/")
    "#]],
    );
}

#[test]
fn texts() {
    check(
        "- [ ] write the log\n",
        "- [x] write a log\n",
        "- [ ] write my log\n",
        &expect![[r#"
        = SPEC_WINS, LAST_WRITE_WINS
        - [x] write a log
        ! text settled: Some("- [x] write a log\n")
        = RUNTIME_WINS, SKIP
        - [x] write my log
        ! text settled: Some("- [x] write my log\n")
        = MERGE, MANUAL
        - [x] write my log
        ! text open: Some("- [x] write my log\n")
    "#]],
    );
    check(
        "- [ ] write the log\n",
        "- [ ] write the log now\n",
        "  - [ ] write the log here\n",
        &expect![[r#"
        = SPEC_WINS, LAST_WRITE_WINS
          - [ ] write the log now
        ! text settled: Some("  - [ ] write the log now\n")
        = RUNTIME_WINS, SKIP
          - [ ] write the log here
        ! text settled: Some("  - [ ] write the log here\n")
        = MERGE
          - [ ] write the log here now
        ! text settled: Some("  - [ ] write the log here now\n")
        = MANUAL
          - [ ] write the log here
        ! text open: Some("  - [ ] write the log here\n")
    "#]],
    );
    check(
        "- alpha beta\n",
        "- [x] alpha beta\n",
        "- alpha gamma\n",
        &expect![[r#"
        = SPEC_WINS, LAST_WRITE_WINS
        - [x] alpha beta
        ! text settled: Some("- [x] alpha beta\n")
        = RUNTIME_WINS, SKIP
        - alpha gamma
        ! text settled: Some("- alpha gamma\n")
        = MERGE, MANUAL
        - alpha gamma
        ! text open: Some("- alpha gamma\n")
    "#]],
    );
}

#[test]
fn places() {
    check(
        "- [ ] alpha\n- [ ] beta\n- [ ] gamma\n- [ ] delta\n",
        "- [ ] new\n- [ ] delta\n- [ ] alpha\n- [ ] beta\n- [ ] gamma\n",
        "- [ ] alpha\n- [ ] delta\n- [ ] beta\n- [ ] gamma\n",
        &expect![[r#"
            = SPEC_WINS, LAST_WRITE_WINS
            - [ ] new
            - [ ] delta
            - [ ] alpha
            - [ ] beta
            - [ ] gamma
            ! place settled: Some("- [ ] new\n")
            = RUNTIME_WINS, SKIP
            - [ ] new
            - [ ] alpha
            - [ ] delta
            - [ ] beta
            - [ ] gamma
            ! place settled: Some("- [ ] alpha\n")
            = MERGE, MANUAL
            - [ ] new
            - [ ] alpha
            - [ ] delta
            - [ ] beta
            - [ ] gamma
            ! place open: Some("- [ ] alpha\n")
        "#]],
    );
}

#[test]
fn blocks_that_one_side_deleted() {
    check(
        "- [ ] alpha\n- [ ] beta two\n",
        "- [ ] alpha\n",
        "- [ ] alpha\n- [ ] beta two more\n",
        &expect![[r#"
        = SPEC_WINS, LAST_WRITE_WINS
        - [ ] alpha
        ! existence settled: None
        = RUNTIME_WINS, SKIP
        - [ ] alpha
        - [ ] beta two more
        ! existence settled: Some("- [ ] beta two more\n")
        = MERGE, MANUAL
        - [ ] alpha
        - [ ] beta two more
        ! existence open: Some("- [ ] beta two more\n")
    "#]],
    );
    check(
        "- [ ] alpha\n- [ ] beta two\n",
        "- [ ] alpha\n- [ ] beta two more\n- [ ] new\n",
        "- [ ] alpha\n",
        &expect![[r#"
            = SPEC_WINS, LAST_WRITE_WINS
            - [ ] alpha
            - [ ] beta two more
            - [ ] new
            ! existence settled: Some("- [ ] beta two more\n")
            = RUNTIME_WINS, SKIP
            - [ ] alpha
            - [ ] new
            ! existence settled: None
            = MERGE, MANUAL
            - [ ] alpha
            - [ ] beta two more
            - [ ] new
            ! existence open: Some("- [ ] beta two more\n")
        "#]],
    );
}

#[test]
fn a_field_has_its_own_strategy() {
    let base = known("- [ ] write the log\n");
    let current = evolved(&base, "- [!] write my log\n");
    let local = parse("- [~] write a log\n");
    let strategies = Strategies::all(Strategy::SpecWins).with(ConflictField::Mark, Strategy::Skip);
    let settled = settle(merge3(&base, &local, &current), &base, &local, &current, &strategies);
    assert_eq!(settled.text, "- [!] write a log\n");
    let how: Vec<Option<Strategy>> = settled.conflicts.iter().map(|conflict| conflict.settled).collect();
    assert_eq!(how, [Some(Strategy::SpecWins), Some(Strategy::Skip)]);
}

#[test]
fn a_conflict_about_other_states_stays_open() {
    let base = known("- [ ] alpha\n- [ ] beta\n");
    let current = evolved(&base, "- [ ] alpha\n- [ ] beta two\n");
    let local = parse("- [x] alpha\n- [ ] beta\n");
    let mut merge = merge3(&base, &local, &current);
    let strange = |id, field, ours: &str| Conflict {
        id,
        class: ConflictClass::Version,
        field,
        base: None,
        ours: Some(ours.to_owned()),
        theirs: None,
    };
    merge.conflicts = vec![
        strange(Some(1), ConflictField::Text, "- [ ] an older beta\n"),
        strange(None, ConflictField::Existence, "- [ ] gone\n"),
        strange(Some(77), ConflictField::Mark, "x"),
    ];
    for strategy in [Strategy::SpecWins, Strategy::Merge] {
        let settled = settle(merge.clone(), &base, &local, &current, &Strategies::all(strategy));
        assert_eq!((&settled.ops, &settled.text), (&merge.ops, &merge.text));
        assert!(settled.conflicts.iter().all(|conflict| conflict.settled.is_none()));
    }
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategies> {
    let one = || prop::sample::select(ALL.to_vec());
    (one(), one(), one(), one()).prop_map(|(mark, text, place, existence)| {
        Strategies::all(mark)
            .with(ConflictField::Text, text)
            .with(ConflictField::Place, place)
            .with(ConflictField::Existence, existence)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1024)))]

    #[test]
    fn whatever_is_chosen_no_word_vanishes_and_no_conflict(base in lines(), ours in changes(), theirs in changes(), strategies in strategies()) {
        let (local, other) = (changed(&base, &ours, 'x', 0).concat(), changed(&base, &theirs, 'y', 0).concat());
        let base = base.concat();
        let blocks = known(&base);
        let current = evolved(&blocks, &other);
        let document = parse(&local);
        let merge = merge3(&blocks, &document, &current);
        let settled = settle(merge.clone(), &blocks, &document, &current, &strategies);
        let applied = apply(&current, &settled.ops).map(|placed| print(placed.iter().map(|placed| &placed.block)));
        prop_assert_eq!(applied.as_ref(), Ok(&settled.text));
        let conflicts: Vec<&Conflict<u32>> = settled.conflicts.iter().map(|settled| &settled.conflict).collect();
        prop_assert_eq!(&conflicts, &merge.conflicts.iter().collect::<Vec<_>>());
        let gone = vanished([&base, &local, &other], &settled.text, conflicts.into_iter());
        prop_assert_eq!(gone, Vec::<String>::new());
        prop_assert_eq!(&settled.local_ids, &merge.local_ids);
        for conflict in &settled.conflicts {
            let wanted = strategies.of(conflict.conflict.field);
            prop_assert!(conflict.settled.is_none_or(|settled| settled == wanted && settled != Strategy::Manual));
            let is_certain = !matches!(wanted, Strategy::Manual | Strategy::Merge);
            prop_assert!(conflict.settled.is_some() == is_certain || wanted == Strategy::Merge, "{:?}", conflict);
        }
    }

    #[test]
    fn by_default_nothing_is_settled(base in lines(), ours in changes(), theirs in changes()) {
        let (local, other) = (changed(&base, &ours, 'x', 0).concat(), changed(&base, &theirs, 'y', 0).concat());
        let blocks = known(&base.concat());
        let current = evolved(&blocks, &other);
        let document = parse(&local);
        let merge = merge3(&blocks, &document, &current);
        let settled = settle(merge.clone(), &blocks, &document, &current, &Strategies::default());
        prop_assert_eq!((settled.ops, settled.text), (merge.ops, merge.text));
        prop_assert!(settled.conflicts.iter().all(|conflict| conflict.settled.is_none()));
    }
}
