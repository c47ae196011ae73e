//! What an editor does to a text in one turn: pure, from the text it sees to the text it saves.
//!
//! A token is a word that stands for one edit: the editor's name, a dash and four digits. It is written once, never again.

use super::random::Random;

/// Digits of a token's number.
const DIGITS: usize = 4;

/// Lines that grew longer than this, in bytes, are not reworded any more, so that every word on them stays worth a look.
const LINE_BYTES_MAX: usize = 120;

/// How an editor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Appends a line, as `echo >>` does.
    Append,
    /// Adds a line and saves by a new file and a rename, as vim does.
    Rename,
    /// Adds a line; empties the file and writes it in pieces.
    Pieces,
    /// Cuts a line, pastes it elsewhere, adds one.
    Move,
    /// Ticks a box and rewords its line.
    Reword,
    /// Adds a line to a buffer that may be many saves old.
    Stale,
    /// Runs `sed -i`.
    Sed,
    /// Deletes a line that it sees, and adds one.
    Delete,
    /// Adds a line, saves, adds another and saves again at once.
    Twice,
}

impl Habit {
    /// Every habit; the n-th editor works so, in the n-th checkout, round and round.
    pub(super) const ALL: [Self; 9] = [
        Self::Append,
        Self::Rename,
        Self::Pieces,
        Self::Move,
        Self::Reword,
        Self::Stale,
        Self::Sed,
        Self::Delete,
        Self::Twice,
    ];

    /// The editor's name, which its tokens begin with.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Rename => "rename",
            Self::Pieces => "pieces",
            Self::Move => "move",
            Self::Reword => "reword",
            Self::Stale => "stale",
            Self::Sed => "sed",
            Self::Delete => "delete",
            Self::Twice => "twice",
        }
    }
}

/// The token of an editor's edit.
pub(super) fn token(name: &str, number: usize) -> String {
    format!("{name}-{number:0DIGITS$}")
}

/// All tokens in a text, in order, each as often as it is there.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|word| is_token(word))
}

fn is_token(word: &str) -> bool {
    word.split_once('-').is_some_and(|(name, digits)| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase())
            && digits.len() == DIGITS
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The line that brings a token.
pub(super) fn line(token: &str) -> String {
    format!("- [ ] written by {token}")
}

/// The text with one more line, at a random place below the first.
pub(super) fn with_line(text: &str, token: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = 1 + random.index(lines.len());
    lines.insert(at.min(lines.len()), line(token));
    joined(&lines)
}

/// The text with a box ticked and its line reworded; a line more where no line can be.
pub(super) fn reworded(text: &str, token: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_fit = |line: &str| line.starts_with("- [") && line.len() < LINE_BYTES_MAX;
    let Some(at) = pick(&lines, is_fit, random) else { return with_line(text, token, random) };
    let changed = lines[at].replacen("- [ ]", "- [x]", 1).replacen(" by ", " at last by ", 1);
    lines[at] = format!("{changed} {token}");
    joined(&lines)
}

/// The text with one written line elsewhere, and one more.
pub(super) fn moved(text: &str, token: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(from) = pick(&lines, is_written, random) {
        let line = lines.remove(from);
        let to = 1 + random.index(lines.len());
        lines.insert(to.min(lines.len()), line);
    }
    with_line(&joined(&lines), token, random)
}

/// The text without one written line but with one more, and the tokens of the line that is gone.
pub(super) fn deleted(text: &str, token: &str, random: &mut Random) -> (String, Vec<String>) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let gone = pick(&lines, is_written, random).map(|at| lines.remove(at)).unwrap_or_default();
    let gone = tokens(&gone).map(str::to_owned).collect();
    (with_line(&joined(&lines), token, random), gone)
}

fn is_written(line: &str) -> bool {
    line.starts_with("- [") && line.contains("written ") && tokens(line).next().is_some()
}

fn pick(lines: &[String], is_fit: impl Fn(&str) -> bool, random: &mut Random) -> Option<usize> {
    let fit: Vec<usize> = (0..lines.len()).filter(|at| is_fit(&lines[*at])).collect();
    fit.get(random.index(fit.len())).copied()
}

fn joined(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const TEXT: &str =
        "# List\n\n- [ ] written by sed-0001\nprose move-1 x-00001 Sed-0001\n- [x] written by append-0002\n";

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes values")]
    fn check(text: &str, expect: Expect) {
        expect.assert_eq(text);
    }

    #[test]
    fn tokens_are_found_and_nothing_else() {
        assert_eq!(tokens(TEXT).collect::<Vec<_>>(), ["sed-0001", "append-0002"]);
        assert_eq!(tokens("(a-0001),a-0001").count(), 2);
        assert_eq!(tokens(&line(&token("vim", 12))).collect::<Vec<_>>(), ["vim-0012"]);
    }

    #[test]
    fn each_habit_brings_its_token_once_and_takes_no_other() {
        for seed in 0..200 {
            let random = &mut Random::new(seed);
            for text in [
                with_line(TEXT, "new-0001", random),
                reworded(TEXT, "new-0001", random),
                moved(TEXT, "new-0001", random),
            ] {
                let mut found: Vec<&str> = tokens(&text).collect();
                found.sort_unstable();
                assert_eq!(found, ["append-0002", "new-0001", "sed-0001"], "{text}");
                assert!(text.starts_with("# List\n") && text.ends_with('\n'), "{text}");
            }
            let (text, gone) = deleted(TEXT, "new-0001", random);
            assert_eq!((tokens(&text).count(), gone.len()), (2, 1), "{text}");
            assert!(tokens(TEXT).any(|token| token == gone[0]) && !text.contains(&gone[0]), "{text}");
        }
    }

    #[test]
    fn a_line_is_ticked_and_reworded() {
        let text = reworded("# List\n- [ ] written by sed-0001\n", "reword-0001", &mut Random::new(1));
        check(
            &text,
            expect![[r"
            # List
            - [x] written at last by sed-0001 reword-0001
        "]],
        );
    }
}
