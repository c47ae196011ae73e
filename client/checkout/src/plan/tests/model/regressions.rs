//! Schedules that broke an invariant once, each with the reason in its name.

use super::run::run;
use super::script::{Schedule, Style, script};

fn replay(copies: usize, style: Style, actions: &str) {
    let schedule = Schedule { copies, style, is_bound: true, noise: 1, actions: script(actions) };
    if let Err(violation) = run(&schedule, None) {
        panic!("{violation}");
    }
}

#[test]
fn a_rewording_over_an_unseen_rewording_keeps_both() {
    replay(
        3,
        Style::Plain,
        "0 stale reword 4; 0 step; 2 stale add 0; 2 stale add 0; 0 step; 1 deliver; 0 step; 1 step; 1 step; 1 stale reword 4",
    );
}
