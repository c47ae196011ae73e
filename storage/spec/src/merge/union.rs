//! Both wordings of one block in one: what [`super::Strategy::Merge`] does where a merge by words found a clash.
//!
//! | what both did at one place      | task, heading, table row | prose, comment                    |
//! |---------------------------------|--------------------------|-----------------------------------|
//! | added different words           | theirs, then ours        | theirs, then ours                 |
//! | replaced the same words         | no union                 | their lines, then those of ours   |
//! | one added, one deleted around   | no union                 | their lines, then those of ours   |
//!
//! Every word of the result is from one of the sides: nothing is invented. A union has to read as the one block that it replaces, else
//! there is none. Fences and front matter have none either: code and settings that stand there twice mean something else.

use crate::block::{Block, BlockKind};
use crate::parse::parse;
use crate::words::{Cut, unite};

/// The wording that keeps both; `None` when there is no such union.
pub(super) fn union(base: &Block, ours: &Block, theirs: &Block) -> Option<String> {
    if base.kind != theirs.kind || ours.kind != theirs.kind {
        return None;
    }
    let texts = [&base.content.text, &ours.content.text, &theirs.content.text].map(String::as_str);
    let cuts: &[Cut] = match theirs.kind {
        BlockKind::Task | BlockKind::Heading | BlockKind::Table => &[Cut::Words],
        BlockKind::Prose | BlockKind::Comment => &[Cut::Words, Cut::Lines],
        BlockKind::Blank | BlockKind::Fence | BlockKind::FrontMatter => &[],
    };
    let is_one_block = |text: &String| {
        let content = crate::block::Content { text: text.clone(), ..theirs.content.clone() };
        let whole = Block { kind: theirs.kind, content };
        parse(&whole.print()).blocks == [whole]
    };
    cuts.iter().filter_map(|cut| unite(texts, *cut)).find(is_one_block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(base: &str, ours: &str, theirs: &str, expected: &Expect) {
        let block =
            |text: &str| parse(text).blocks.into_iter().next().unwrap_or_else(|| Block::whole(BlockKind::Blank, ""));
        expected.assert_eq(&format!("{:?}", union(&block(base), &block(ours), &block(theirs))));
    }

    #[test]
    fn additions_stand_behind_each_other() {
        check(
            "- [ ] write the log\n",
            "- [ ] write the log today\n",
            "- [ ] write the log (core)\n",
            &expect![[r#"Some("] write the log (core) today\n")"#]],
        );
        check("# Title\n", "# Title one\n", "# Title two\n", &expect![[r##"Some("# Title two one\n")"##]]);
        check("| a | b |\n", "| a | b | x |\n", "| a | b | y |\n", &expect![[r#"Some("| a | b | y | x |\n")"#]]);
    }

    #[test]
    fn replaced_words_of_one_line_have_no_union() {
        check("- [ ] write the log\n", "- [ ] write a log\n", "- [ ] write my log\n", &expect!["None"]);
        check("- [ ] write the log\n", "- [ ] write log\n", "- [ ] write the big log\n", &expect!["None"]);
    }

    #[test]
    fn replaced_lines_of_prose_both_stand() {
        check(
            "First line.\nSecond line.\nThird line.\n",
            "First line.\nSecond of ours.\nThird line.\n",
            "First line.\nSecond of theirs.\nThird line.\n",
            &expect![[r#"Some("First line.\nSecond of theirs.\nSecond of ours.\nThird line.\n")"#]],
        );
        check("- one bullet\n", "- my bullet\n", "- your bullet\n", &expect!["None"]);
        check(
            "<!-- a\nb -->\n",
            "<!-- a\nmine\nb -->\n",
            "<!-- a\nyours\nb -->\n",
            &expect![[r#"Some("<!-- a\nyours\nmine\nb -->\n")"#]],
        );
        check("```\na\n```\n", "```\nb\n```\n", "```\nc\n```\n", &expect!["None"]);
    }
}
