//! The words and emoji that mean a status everywhere, whatever the dialect: one table for reading them and for writing their like.
//!
//! What a single character in brackets means (`-`, `~`, `!`) differs from dialect to dialect and is not here, but for `x` and blank, which
//! mean the same in all. Nothing here depends on a setting: whether a line is a task must be the same for everybody.

use crate::line::MARK_BYTES_MAX;
use crate::state::State;

use State::{Archived, Blocked, Cancelled, Done, InProgress, Review, Todo};

/// Status words by language, in lower case; of each state the first is the one that is written.
const LANGUAGES: &[&[(&str, State)]] = &[
    &[
        ("todo", Todo),
        ("to do", Todo),
        ("to-do", Todo),
        ("pending", Todo),
        ("open", Todo),
        ("deferred", Todo),
        ("in progress", InProgress),
        ("in-progress", InProgress),
        ("in_progress", InProgress),
        ("doing", InProgress),
        ("wip", InProgress),
        ("review", Review),
        ("in review", Review),
        ("in-review", Review),
        ("in_review", Review),
        ("blocked", Blocked),
        ("done", Done),
        ("completed", Done),
        ("complete", Done),
        ("closed", Done),
        ("cancelled", Cancelled),
        ("canceled", Cancelled),
        ("skipped", Cancelled),
        ("archived", Archived),
    ],
    &[
        ("未着手", Todo),
        ("進行中", InProgress),
        ("作業中", InProgress),
        ("レビュー中", Review),
        ("保留", Blocked),
        ("完了", Done),
        ("中止", Cancelled),
    ],
    &[
        ("待办", Todo),
        ("未开始", Todo),
        ("待处理", Todo),
        ("进行中", InProgress),
        ("审查中", Review),
        ("阻塞", Blocked),
        ("已完成", Done),
        ("完成", Done),
        ("已修复", Done),
        ("已取消", Cancelled),
        ("已归档", Archived),
    ],
    &[
        ("待辦", Todo),
        ("未開始", Todo),
        ("執行中", InProgress),
        ("審查中", Review),
        ("封鎖", Blocked),
        ("已取消", Cancelled),
    ],
    &[
        ("대기", Todo),
        ("예정", Todo),
        ("미착수", Todo),
        ("진행 중", InProgress),
        ("진행중", InProgress),
        ("검토 중", Review),
        ("검토중", Review),
        ("차단", Blocked),
        ("보류", Blocked),
        ("완료", Done),
        ("취소", Cancelled),
    ],
    &[
        ("pendiente", Todo),
        ("en curso", InProgress),
        ("en progreso", InProgress),
        ("en revisión", Review),
        ("bloqueado", Blocked),
        ("hecho", Done),
        ("completado", Done),
        ("cancelado", Cancelled),
    ],
    &[
        ("pendente", Todo),
        ("em andamento", InProgress),
        ("em revisão", Review),
        ("bloqueada", Blocked),
        ("concluído", Done),
        ("cancelada", Cancelled),
    ],
    &[
        ("à faire", Todo),
        ("en cours", InProgress),
        ("en revue", Review),
        ("bloqué", Blocked),
        ("terminé", Done),
        ("annulé", Cancelled),
    ],
    &[
        ("offen", Todo),
        ("in arbeit", InProgress),
        ("in prüfung", Review),
        ("blockiert", Blocked),
        ("erledigt", Done),
        ("fertig", Done),
        ("abgebrochen", Cancelled),
    ],
    &[("не начато", Todo), ("в работе", InProgress), ("готово", Done), ("отменено", Cancelled)],
    &[
        ("chưa làm", Todo),
        ("đang làm", InProgress),
        ("bị chặn", Blocked),
        ("xong", Done),
        ("hoàn thành", Done),
        ("đã hủy", Cancelled),
    ],
    &[("لم يبدأ", Todo), ("مكتمل", Done), ("ملغى", Cancelled)],
];

/// Words that mean a status in a cell of a status column only; in brackets they are labels (`- [New] ...`, `- [Fixed] ...`).
const CELL_WORDS: &[(&str, State)] = &[
    ("not started", Todo),
    ("planned", Todo),
    ("queued", Todo),
    ("backlog", Todo),
    ("new", Todo),
    ("ready", Todo),
    ("ongoing", InProgress),
    ("started", InProgress),
    ("active", InProgress),
    ("for review", Review),
    ("for_review", Review),
    ("on hold", Blocked),
    ("waiting", Blocked),
    ("finished", Done),
    ("fixed", Done),
    ("resolved", Done),
    ("merged", Done),
    ("shipped", Done),
    ("implemented", Done),
    ("dropped", Cancelled),
    ("rejected", Cancelled),
    ("won't do", Cancelled),
    ("abandoned", Cancelled),
];

/// Status emoji; of each state the first is the one that is written. A cross says that something isn't there (yet), not that it never will be.
/// Traffic lights other than yellow mean too many things.
const EMOJI: &[(&str, State)] = &[
    ("⬜", Todo),
    ("☐", Todo),
    ("🔲", Todo),
    ("⏳", Todo),
    ("❌", Todo),
    ("🚧", InProgress),
    ("🟡", InProgress),
    ("🔄", InProgress),
    ("🔍", Review),
    ("👀", Review),
    ("⛔", Blocked),
    ("⏸", Blocked),
    ("✅", Done),
    ("☑", Done),
    ("✔", Done),
    ("✓", Done),
    ("🚫", Cancelled),
    ("⏭", Cancelled),
    ("📦", Archived),
];

/// Emoji that make a bullet a task. The others open bullets that are no tasks: rules for people (`❌ don't`), legends, features.
const BULLET_EMOJI: &[&str] = &["✅", "☑", "✔", "⬜", "☐", "🔲", "⏳", "🚧"];

/// Words that make a bullet a task when a colon follows. In capitals only: `Done: ...` is a note.
const BULLET_WORDS: &[&str] = &["TODO", "DOING", "WIP", "IN PROGRESS", "REVIEW", "BLOCKED", "DONE"];

/// Longest word of the tables, in bytes; longer ones are not looked up.
const WORD_BYTES_MAX: usize = 24;

/// Selects the picture form of the character before it; it is part of an emoji that people type.
const VARIATION: char = '\u{fe0f}';

/// Signs that may stand before the status word of a cell without meaning a status themselves.
const ORNAMENTS: &[&str] = &["🔴", "🟢", "🔵", "🟠", "⚪", "⚫", "⚠", "📋", "🔜"];

/// How a status is written, so that another one can be written alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One character or nothing, as between the brackets of a checkbox.
    Sign,
    /// A word.
    Word,
    /// An emoji.
    Emoji,
    /// An emoji, a blank and a word.
    Both,
}

/// What a mark means in every dialect: blank, `x`, a status word or a status emoji, or both; `None` for all else.
pub(crate) fn state_of(mark: &str) -> Option<State> {
    match mark.trim() {
        "" => Some(Todo),
        "x" | "X" => Some(Done),
        mark => match leading(mark) {
            Some((length, state)) if length == mark.len() => Some(state),
            Some(_) | None => None,
        },
    }
}

/// Whether a word in the brackets of a task is a status.
pub(crate) fn is_bracket_word(word: &str) -> bool {
    of_languages(word).is_some()
}

/// What a word means as a status, in any language and case.
pub(crate) fn word_state(word: &str) -> Option<State> {
    of_languages(word).or_else(|| in_list(CELL_WORDS, word))
}

/// Bytes and meaning of the status that a cell begins with: an emoji, a word, or an emoji with a word (which then decides).
pub(crate) fn leading(cell: &str) -> Option<(usize, State)> {
    let sign = emoji_bytes(cell);
    let after = cell.get(sign..)?;
    let word = after.trim_start_matches(' ');
    if let Some((length, state)) = leading_word(word).filter(|_| sign == 0 || word.len() < after.len()) {
        let end = cell.len() - word.len() + length;
        if end <= MARK_BYTES_MAX {
            return Some((end, state));
        }
    }
    let is_set_apart = after.chars().next().is_none_or(|next| !next.is_alphanumeric());
    let state = of_emoji(cell.get(..sign)?).filter(|_| is_set_apart)?;
    Some((sign, state))
}

/// Bytes of the status that the body of a bullet begins with, when it makes the bullet a task.
pub(crate) fn bullet_mark(body: &str) -> Option<usize> {
    if body.starts_with(|first: char| first.is_ascii_uppercase()) {
        let word = BULLET_WORDS.iter().find(|word| body.starts_with(**word))?;
        let after = body.get(word.len()..)?.trim_start_matches(['*', '_', '`']);
        return after.starts_with(':').then_some(word.len());
    }
    let sign = BULLET_EMOJI.iter().find(|sign| body.starts_with(**sign))?;
    let length = sign.len() + variation_bytes(body.get(sign.len()..)?);
    body.get(length..)?.starts_with([' ', '\t']).then_some(length)
}

/// How a mark is written.
pub(crate) fn form(mark: &str) -> Form {
    let mark = mark.trim();
    let sign = emoji_bytes(mark);
    if sign == mark.len() && sign > 0 {
        Form::Emoji
    } else if sign > 0 {
        Form::Both
    } else if mark.chars().nth(1).is_none() {
        Form::Sign
    } else {
        Form::Word
    }
}

/// A status written as `like` is: the same language and capitals, emoji for emoji. `None` when there is none of that kind.
pub(crate) fn written_like(like: &str, state: State) -> Option<String> {
    let like = like.trim();
    let emoji = EMOJI.iter().find(|(_, known)| *known == state).map(|(sign, _)| *sign);
    let mark = match form(like) {
        Form::Sign => None,
        Form::Emoji => emoji.map(str::to_owned),
        Form::Word => word_like(like, state),
        Form::Both => {
            let word = like.get(emoji_bytes(like)..)?.trim_start_matches(' ');
            emoji.zip(word_like(word, state)).map(|(sign, word)| format!("{sign} {word}"))
        }
    };
    mark.filter(|mark| mark.len() <= MARK_BYTES_MAX)
}

fn word_like(like: &str, state: State) -> Option<String> {
    let lower = like.to_lowercase();
    let knows = |language: &&&[(&str, State)]| language.iter().any(|(word, _)| *word == lower);
    let language = LANGUAGES.iter().find(knows).or_else(|| LANGUAGES.first())?;
    let (word, _) = language.iter().find(|(_, known)| *known == state)?;
    let mut symbols = like.chars().filter(|symbol| symbol.is_alphabetic());
    let (first, second) = (symbols.next()?, symbols.next()?);
    Some(match (first.is_uppercase(), second.is_uppercase()) {
        (true, true) => word.to_uppercase(),
        (true, false) => {
            let mut letters = word.chars();
            letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
        }
        (false, _) => (*word).to_owned(),
    })
}

fn of_languages(word: &str) -> Option<State> {
    LANGUAGES.iter().find_map(|language| in_list(language, word))
}

fn in_list(list: &[(&str, State)], word: &str) -> Option<State> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    if word.is_ascii() {
        return list.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, state)| *state);
    }
    let lower = word.to_lowercase();
    list.iter().find(|(known, _)| *known == lower).map(|(_, state)| *state)
}

fn of_emoji(sign: &str) -> Option<State> {
    let sign = sign.trim_end_matches(VARIATION);
    EMOJI.iter().find(|(known, _)| *known == sign).map(|(_, state)| *state)
}

/// Bytes of a status emoji or ornament at the start, 0 when there is none.
fn emoji_bytes(text: &str) -> usize {
    if text.is_ascii() {
        return 0;
    }
    let signs = EMOJI.iter().map(|(sign, _)| *sign).chain(ORNAMENTS.iter().copied());
    let sign = signs.into_iter().find(|sign| text.starts_with(*sign)).map_or(0, str::len);
    if sign == 0 { 0 } else { sign + text.get(sign..).map_or(0, variation_bytes) }
}

fn variation_bytes(text: &str) -> usize {
    if text.starts_with(VARIATION) { VARIATION.len_utf8() } else { 0 }
}

/// The longest status word that `text` begins with. What follows must set it apart: `Done (PR 5)` and `Merged 2026-01-02` are statuses,
/// `Open question` is none.
fn leading_word(text: &str) -> Option<(usize, State)> {
    let mut end = 0;
    let mut found = None;
    for (at, symbol) in text.char_indices() {
        if at > WORD_BYTES_MAX {
            break;
        }
        if !is_word_part(symbol) && end < at {
            found = known_word(text, at).or(found);
        }
        end = at;
    }
    if text.len() <= WORD_BYTES_MAX { known_word(text, text.len()).or(found) } else { found }
}

fn is_word_part(symbol: char) -> bool {
    symbol.is_alphanumeric() || matches!(symbol, '-' | '_' | '\'')
}

fn known_word(text: &str, end: usize) -> Option<(usize, State)> {
    let state = word_state(text.get(..end)?)?;
    let after = text.get(end..)?.trim_start_matches(['*', '_', '`', '~', ' ']);
    let is_set_apart = after.chars().next().is_none_or(|next| !next.is_alphabetic());
    is_set_apart.then_some((end, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_begin_with_a_status_or_not() {
        for (cell, status) in [
            ("✅", Some(("✅", Done))),
            ("✅ Completed", Some(("✅ Completed", Done))),
            ("✔\u{fe0f} Done", Some(("✔\u{fe0f} Done", Done))),
            ("✓ Planned", Some(("✓ Planned", Todo))),
            ("⏳ In progress", Some(("⏳ In progress", InProgress))),
            ("🔴 Blocked", Some(("🔴 Blocked", Blocked))),
            ("🔴", None),
            ("✅ 已修复 (2026-03-18)", Some(("✅ 已修复", Done))),
            ("✅ seen by eye", Some(("✅", Done))),
            ("Done (PR 5)", Some(("Done", Done))),
            ("done", Some(("done", Done))),
            ("Merged 2026-04-30", Some(("Merged", Done))),
            ("Not Started", Some(("Not Started", Todo))),
            ("In Progress", Some(("In Progress", InProgress))),
            ("完了", Some(("完了", Done))),
            ("Готово", Some(("Готово", Done))),
            ("Open question", None),
            ("Completed pre-merge", None),
            ("4 Complete", None),
            ("95%", None),
            ("-", None),
            ("", None),
        ] {
            let seen = leading(cell).map(|(length, state)| (cell.get(..length).unwrap_or_default(), state));
            assert_eq!(seen, status, "{cell}");
        }
    }

    #[test]
    fn statuses_are_written_alike() {
        for (like, state, written) in [
            ("TODO", Done, Some("DONE")),
            ("Pending", InProgress, Some("In progress")),
            ("done", Todo, Some("todo")),
            ("✅", Todo, Some("⬜")),
            ("⬜ Not Started", Done, Some("✅ Done")),
            ("完了", InProgress, Some("進行中")),
            ("완료", Todo, Some("대기")),
            ("готово", Review, None),
            ("x", Done, None),
        ] {
            assert_eq!(written_like(like, state).as_deref(), written, "{like} {state}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for language in LANGUAGES {
            for (word, state) in *language {
                for state in [State::ALL.as_slice(), &[*state]].concat() {
                    if let Some(mark) = written_like(word, state) {
                        assert_eq!(state_of(&mark), Some(state), "{word} {mark}");
                    }
                }
            }
        }
        for (sign, state) in EMOJI {
            assert_eq!(state_of(sign), Some(*state), "{sign}");
        }
    }

    #[test]
    fn only_plain_signs_make_a_bullet_a_task() {
        for (body, length) in [
            ("✅ ready", Some(3)),
            ("✔\u{fe0f} ready", Some(6)),
            ("⬜ open", Some(3)),
            ("❌ don't", None),
            ("✅ready", None),
            ("TODO: write", Some(4)),
            ("DONE**: wrote", Some(4)),
            ("IN PROGRESS: writing", Some(11)),
            ("TODO write", None),
            ("Done: 2026-01-02", None),
            ("TODOS: many", None),
        ] {
            assert_eq!(bullet_mark(body), length, "{body}");
        }
    }
}
