//! Schedules that broke an invariant once, at their shortest, each with the reason in its name.

use super::run::run;
use super::script::{Schedule, Style, script};

struct Case {
    copies: usize,
    style: Style,
    is_bound: bool,
    actions: &'static str,
}

fn plain(copies: usize, actions: &'static str) -> Case {
    Case { copies, style: Style::Plain, is_bound: true, actions }
}

fn replay(case: &Case) {
    let Case { copies, style, is_bound, actions } = *case;
    let schedule = Schedule { copies, style, is_bound, noise: 1, actions: script(actions) };
    if let Err(violation) = run(&schedule, None) {
        panic!("{violation}");
    }
}

#[test]
fn a_rewording_over_an_unseen_rewording_keeps_both() {
    replay(&plain(
        3,
        "0 stale reword 4; 0 step; 0 deliver; 0 step; 2 stale add 0; 2 stale add 0; 0 step; 1 deliver; 0 step; 1 step; 1 step
         1 stale reword 4",
    ));
}

#[test]
fn a_crossing_save_that_is_saved_once_more_is_nothing_new() {
    replay(&plain(
        2,
        "0 stale delete 3; 0 step; 0 deliver; 0 step; 0 step; 1 deliver; 1 step; 0 stale delete 11; 1 cross add 27
         1 stale tick 32; 1 step; 1 stale tick 5; 0 stale move 8; 1 step",
    ));
}

/// The line that a crossing save brought was inserted once more where a later save had it at another place.
#[test]
fn a_line_of_a_crossing_save_that_its_writer_moved_stands_once() {
    replay(&plain(
        1,
        "0 save tick 24; 0 step; 0 deliver; 0 step; 0 step; 0 step; 0 stale add 29; 0 cross add 13; 0 save reword 8
         0 jump 3; 0 deliver; 0 step; 0 step; 0 stale delete 25; 0 save reword 8; 0 stale move 12",
    ));
}

#[test]
fn a_line_reworded_before_the_first_binding_stands_once() {
    replay(&Case { is_bound: false, ..plain(1, "0 save reword 29") });
}

/// What was read from the emptied file counted as agreed on, and all lines of the writer as new ones.
#[test]
fn a_file_emptied_at_the_first_binding_and_written_later_brings_no_line_twice() {
    replay(&Case { is_bound: false, ..plain(1, "0 stale reword 6; 0 open; 0 truncate; 0 step") });
    replay(&Case {
        is_bound: false,
        ..plain(2, "0 open; 1 save reword 1; 0 truncate; 0 step; 1 step; 1 deliver; 1 step; 1 step")
    });
}

/// The displaced text of a change that is made anew from it is not what the file was made from.
#[test]
fn a_crossing_save_survives_the_deletion_of_the_file_elsewhere() {
    replay(&plain(2, "1 save reword 17; 0 cross reword 7; 1 step; 1 deliver; 1 step; 1 remove"));
    replay(&plain(
        2,
        "1 save reword 17; 1 step; 0 cross reword 7; 1 deliver; 1 step; 1 step; 0 deliver; 0 step; 1 remove",
    ));
}

#[test]
fn a_crossing_save_and_the_file_make_a_deleted_change_anew_without_a_line_twice() {
    replay(&plain(
        3,
        "0 stale reword 38; 0 step; 0 deliver; 1 cross reword 11; 0 step; 0 step; 2 deliver; 2 cross add 16; 2 step; 2 step
         2 step; 2 stale tick 38; 2 step; 2 deliver; 0 remove; 2 step",
    ));
}

/// A writer's own lines were taken for undone by the writer, though git had put the older text there.
#[test]
fn an_edit_of_a_text_that_git_put_back_takes_nothing_away() {
    replay(&plain(1, "0 save add 23; 0 step; 0 deliver; 0 step; 0 step; 0 jump 2; 0 save reword 23"));
    replay(&plain(
        1,
        "0 cross reword 37; 0 save add 0; 0 step; 0 deliver; 0 step; 0 step; 0 jump 3; 0 save nothing 20",
    ));
}

#[test]
fn an_edit_of_a_text_that_git_put_back_that_looks_like_a_rewording_is_recorded() {
    replay(&Case {
        style: Style::Alike,
        ..plain(1, "0 save add 34; 0 step; 0 deliver; 0 step; 0 step; 0 jump 5; 0 save add 35")
    });
    replay(&Case {
        style: Style::Alike,
        ..plain(1, "0 save add 0; 0 step; 0 deliver; 0 step; 0 cross add 0; 0 step; 0 jump 1; 0 restore 2")
    });
}

/// The session of a run is newer than all that earlier runs proposed: nothing is proposed on a state older than it.
#[test]
fn an_edit_of_an_earlier_run_is_seen_before_anything_is_proposed() {
    replay(&plain(1, "0 stale add 18; 0 step; 0 deliver; 0 step; 0 step; 0 restore-state 5; 0 step"));
    replay(&plain(1, "0 save add 23; 0 step; 0 deliver; 0 step; 0 step; 0 crash; 0 expire; 0 step"));
}

/// What another checkout wrote was taken for this checkout's own once its state was an old one.
#[test]
fn a_stale_save_after_an_old_state_came_back_takes_nothing_away() {
    replay(&plain(
        2,
        "0 save reword 7; 0 step; 0 deliver; 0 step; 0 step; 1 deliver; 1 step; 1 step; 1 restore-state 7; 1 step
         1 stale renumber 8",
    ));
    replay(&plain(
        3,
        "0 save add 0; 0 step; 0 deliver; 0 step; 1 save add 3; 0 step; 2 deliver; 2 step; 2 step; 2 restore-state 5
         2 cross add 9",
    ));
}

#[test]
fn an_emptied_file_saved_twice_over_a_change_made_anew_is_recorded() {
    replay(&plain(
        1,
        "0 remove; 0 grace; 0 step; 0 step; 0 deliver; 0 step; 0 step; 0 step; 0 stale add 11; 0 deliver; 0 step; 0 step
         0 step; 0 cross add 5; 0 step; 0 deliver; 0 step; 0 step; 0 step; 0 save tick 33; 0 step; 0 step; 0 stale tick 35",
    ));
}

/// Two lines of one number: the one was aligned with the other's place.
#[test]
fn a_line_whose_number_repeats_is_known_by_its_words() {
    replay(&Case {
        style: Style::Numbered,
        ..plain(
            1,
            "0 stale add 7; 0 step; 0 deliver; 0 step; 0 stale add 28; 0 save delete 28; 0 step; 0 step; 0 deliver; 0 step
             0 stale add 10; 0 step; 0 stale reword 10; 0 jump 4; 0 stale add 16",
        )
    });
}

/// HEAD's move stayed the reason for every later save.
#[test]
fn a_save_after_what_head_brought_was_merged_is_a_save() {
    replay(&Case {
        style: Style::Mixed,
        ..plain(1, "0 jump 4; 0 save add 27; 0 step; 0 deliver; 0 step; 0 save move 28")
    });
}

/// A number that two people gave alike was taken for a proof that the one had seen the other's text.
#[test]
fn a_stale_renumbering_takes_no_unseen_line_away_unrecorded() {
    replay(&Case {
        style: Style::Numbered,
        ..plain(
            2,
            "1 stale add 38; 0 save add 36; 0 stale renumber 4; 1 stale add 22; 0 step; 1 save add 18; 0 deliver; 0 step
             1 step; 1 deliver; 1 step; 1 step; 0 step; 1 deliver; 1 step; 1 step; 1 crash; 1 stale renumber 39",
        )
    });
}

/// The older state didn't know which of the lines that stood in the file had come together: one of them proved the others seen.
#[test]
fn a_buffer_older_than_a_text_found_after_an_old_state_came_back_takes_nothing_away_unrecorded() {
    replay(&plain(
        3,
        "0 stale add 13; 1 save reword 30; 1 step; 1 deliver; 0 step; 0 deliver; 1 step; 0 step; 1 step; 1 step; 0 step
         1 deliver; 1 step; 1 step; 2 save reword 36; 1 cross reword 0; 1 restore-state 7",
    ));
}

/// A deleted line's number was given to a line that only the file had. A backup from before that brings the line once more.
#[test]
fn a_line_that_took_anothers_number_is_known_to_stand_twice() {
    replay(&Case {
        style: Style::Numbered,
        ..plain(
            1,
            "0 jump 3; 0 stale add 4; 0 step; 0 stale delete 11; 0 stale delete 19; 0 save renumber 28; 0 deliver
             0 stale reword 0; 0 stale delete 35; 0 step; 0 restore-state 0; 0 restore 5",
        )
    });
}
