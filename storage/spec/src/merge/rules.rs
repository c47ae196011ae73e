//! The table of rules: what becomes of one field that one side, or both, changed.
//!
//! | ours (local)        | theirs (current)   | field | outcome                                                  |
//! |---------------------|--------------------|-------|----------------------------------------------------------|
//! | unchanged           | anything           | any   | theirs                                                   |
//! | changed             | unchanged          | any   | ours                                                     |
//! | changed to v        | changed to v       | any   | v                                                        |
//! | changed             | changed            | mark  | done beats open; in-progress beats todo; else a clash    |
//! | changed             | changed            | text  | merged by words; the same words changed: a clash         |
//! | changed             | changed            | lead  | a clash of the text                                      |
//! | changed             | changed            | kind  | a clash of the text, when one of them is a task          |
//! | moved               | moved elsewhere    | place | a clash                                                  |
//! | deleted             | edited             | block | kept, and recorded (edit beats delete)                   |
//! | edited              | deleted            | block | put back as ours, and recorded (edit beats delete)       |
//! | deleted             | unchanged or moved | block | deleted                                                  |
//! | moved               | deleted            | block | deleted                                                  |
//! | inserted            | inserted the same  | block | one block                                                |
//!
//! In a clash theirs stays, since it was committed first, and ours is recorded in full. Existence, place and insertion need the
//! whole document and are decided by the caller by this table; the fields of one block are decided here.

use crate::block::{Block, BlockKind, is_done_mark};
use crate::words::merge_words;

/// What becomes of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// The current value stays.
    Theirs,
    /// This value is set.
    Set(T),
    /// The current value stays, and the local one is recorded.
    Clash,
}

/// The first three rows: `None` when both sides changed the field to different values.
fn one_sided<T: PartialEq + Clone>(base: &T, ours: &T, theirs: &T) -> Option<Outcome<T>> {
    if ours == base || ours == theirs {
        Some(Outcome::Theirs)
    } else if theirs == base {
        Some(Outcome::Set(ours.clone()))
    } else {
        None
    }
}

/// Order of the marks whose meaning is the same in every dialect; `None` = unknown.
fn rank(mark: &str) -> Option<u8> {
    match mark.trim() {
        "" => Some(0),
        "-" | "/" => Some(1),
        "x" | "X" => Some(2),
        _ => None,
    }
}

/// Whether two marks say the same in another writing.
pub(super) fn is_same_rank(one: &str, two: &str) -> bool {
    rank(one).is_some_and(|one| Some(one) == rank(two))
}

/// Two marks that both differ from the base, or have no base.
pub(super) fn both_marked(ours: &str, theirs: &str) -> Outcome<String> {
    if ours.trim() == theirs.trim() || is_done_mark(theirs) {
        return Outcome::Theirs;
    }
    if is_done_mark(ours) {
        return Outcome::Set(ours.to_owned());
    }
    match (rank(ours), rank(theirs)) {
        (Some(one), Some(two)) if one > two => Outcome::Set(ours.to_owned()),
        (Some(one), Some(two)) if one < two => Outcome::Theirs,
        (Some(_) | None, Some(_) | None) => Outcome::Clash,
    }
}

/// The fields of one block after the merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    /// The block as it shall be: theirs, with what ours adds.
    pub merged: Block,
    pub is_text_clash: bool,
    pub is_mark_clash: bool,
}

/// Merges the fields of one block.
pub(super) fn merge_fields(base: &Block, ours: &Block, theirs: &Block) -> Fields {
    let whole = |merged: &Block, is_text_clash| Fields { merged: merged.clone(), is_text_clash, is_mark_clash: false };
    if ours == base || ours == theirs {
        return whole(theirs, false);
    }
    if theirs == base {
        return whole(ours, false);
    }
    let tasks = [base, ours, theirs].into_iter().filter(|block| block.kind == BlockKind::Task).count();
    if tasks != 0 && tasks != 3 {
        return whole(theirs, true);
    }
    let mut fields = whole(theirs, false);
    let (was, our, their) = (&base.content, &ours.content, &theirs.content);
    match one_sided(&was.mark, &our.mark, &their.mark).unwrap_or_else(|| both_marked(&our.mark, &their.mark)) {
        Outcome::Theirs => {}
        Outcome::Set(mark) => fields.merged.content.mark = mark,
        Outcome::Clash => fields.is_mark_clash = true,
    }
    let lead = one_sided(&was.lead, &our.lead, &their.lead).unwrap_or(Outcome::Clash);
    let text = one_sided(&was.text, &our.text, &their.text).unwrap_or_else(|| both_worded(base, ours, theirs));
    if lead == Outcome::Clash || text == Outcome::Clash {
        fields.is_text_clash = true;
        return fields;
    }
    if let Outcome::Set(lead) = lead {
        fields.merged.content.lead = lead;
    }
    if let Outcome::Set(text) = text {
        fields.merged.content.text = text;
    }
    if ours.kind != base.kind {
        fields.merged.kind = ours.kind;
    }
    fields
}

/// Merges by words, when the result is still one block: it ends its line, and a task stays one line.
fn both_worded(base: &Block, ours: &Block, theirs: &Block) -> Outcome<String> {
    let merged = merge_words(&base.content.text, &ours.content.text, &theirs.content.text);
    let is_one_line = |text: &str| text.find('\n').is_none_or(|end| end + 1 == text.len());
    let is_whole = |text: &String| {
        text.ends_with('\n') == theirs.content.text.ends_with('\n')
            && (theirs.kind != BlockKind::Task || is_one_line(text))
    };
    merged.filter(is_whole).map_or(Outcome::Clash, Outcome::Set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use expect_test::{Expect, expect};

    fn check(base: &str, ours: &str, theirs: &str, expected: &Expect) {
        let block =
            |text: &str| parse(text).blocks.into_iter().next().unwrap_or_else(|| Block::whole(BlockKind::Blank, ""));
        let fields = merge_fields(&block(base), &block(ours), &block(theirs));
        let clash = match (fields.is_text_clash, fields.is_mark_clash) {
            (false, false) => "",
            (true, false) => " text clash",
            (false, true) => " mark clash",
            (true, true) => " text and mark clash",
        };
        expected.assert_eq(&format!("{:?}{clash}", fields.merged.print()));
    }

    #[test]
    fn marks() {
        check("- [ ] a\n", "- [x] a\n", "- [ ] a\n", &expect![[r#""- [x] a\n""#]]);
        check("- [ ] a\n", "- [ ] a\n", "- [x] a\n", &expect![[r#""- [x] a\n""#]]);
        check("- [ ] a\n", "- [x] a\n", "- [-] a\n", &expect![[r#""- [x] a\n""#]]);
        check("- [ ] a\n", "- [-] a\n", "- [x] a\n", &expect![[r#""- [x] a\n""#]]);
        check("- [ ] a\n", "- [x] a\n", "- [X] a\n", &expect![[r#""- [X] a\n""#]]);
        check("- [x] a\n", "- [ ] a\n", "- [-] a\n", &expect![[r#""- [-] a\n""#]]);
        check("- [x] a\n", "- [-] a\n", "- [ ] a\n", &expect![[r#""- [-] a\n""#]]);
        check("- [ ] a\n", "- [~] a\n", "- [!] a\n", &expect![[r#""- [!] a\n" mark clash"#]]);
        check("- [ ] a\n", "- [-] a\n", "- [/] a\n", &expect![[r#""- [/] a\n" mark clash"#]]);
        check("- [ ] a\n", "- [x] a\n", "- [!] a\n", &expect![[r#""- [x] a\n""#]]);
    }

    #[test]
    fn words_and_leads() {
        check("- [ ] a b\n", "- [x] a b c\n", "- [ ] z a b\n", &expect![[r#""- [x] z a b c\n""#]]);
        check("- [ ] a b\n", "- [x] q b\n", "- [ ] z b\n", &expect![[r#""- [x] z b\n" text clash"#]]);
        check("- [ ] a\n", "  - [ ] a\n", "- [ ] a b\n", &expect![[r#""  - [ ] a b\n""#]]);
        check("- [ ] a\n", "  - [ ] a\n", "* [ ] a\n", &expect![[r#""* [ ] a\n" text clash"#]]);
        check("- a b\n", "- [ ] a b\n", "- a c\n", &expect![[r#""- a c\n" text clash"#]]);
        check("- a b\n", "- [ ] a b\n", "- a b\n", &expect![[r#""- [ ] a b\n""#]]);
        check("# alpha beta\n", "alpha beta gamma\n", "# alpha my beta\n", &expect![[r#""alpha my beta gamma\n""#]]);
    }
}
