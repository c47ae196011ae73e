//! The words of a script, as far as they are needed to count them: names, keywords, brackets. Not a grammar, and no error: what isn't SQL is
//! SQLite's to refuse.

/// A word. Names and keywords are in lower case, as SQLite compares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// As it stands: a keyword or a name.
    Word(String),
    /// In double quotes, backticks or square brackets: a name.
    Name(String),
    /// In single quotes: a text, and a name where one is expected.
    Text(String),
    /// A number.
    Number,
    /// Any other character.
    Mark(char),
}

impl Token {
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }

    /// Whether a bracket before it holds a subquery.
    pub(super) fn begins_select(&self) -> bool {
        self.is_word("select") || self.is_word("values") || self.is_word("with")
    }

    /// What it names, if it may be a name.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Name(name) | Self::Text(name) => Some(name),
            Self::Number | Self::Mark(_) => None,
        }
    }
}

/// SQLite takes it for a blank.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Whether an unquoted word is no column. Words that SQLite allows as names too, and that nobody uses so, are left out.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.binary_search(&word).is_ok()
}

/// In order.
const KEYWORDS: [&str; 57] = [
    "all",
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "collate",
    "cross",
    "delete",
    "desc",
    "distinct",
    "else",
    "end",
    "escape",
    "except",
    "exists",
    "from",
    "full",
    "glob",
    "group",
    "having",
    "in",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "recursive",
    "right",
    "select",
    "set",
    "then",
    "union",
    "update",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];

/// All words of a script, without comments.
pub(super) fn tokens(script: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = script;
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else if first.is_ascii_whitespace() || first == BYTE_ORDER_MARK {
            rest = &rest[first.len_utf8()..];
        } else if let Some(close) = closing(first) {
            let (text, behind) = quoted(&rest[1..], close);
            tokens.push(if first == '\'' { Token::Text(text) } else { Token::Name(text) });
            rest = behind;
        } else if is_part(first) {
            let is_within = |part: char| is_part(part) || (part == '.' && first.is_ascii_digit());
            let end = rest.find(|part| !is_within(part)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            tokens.push(if first.is_ascii_digit() { Token::Number } else { Token::Word(word.to_ascii_lowercase()) });
            rest = behind;
        } else {
            tokens.push(Token::Mark(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

/// What ends a quotation that begins so.
fn closing(first: char) -> Option<char> {
    match first {
        '\'' | '"' | '`' => Some(first),
        '[' => Some(']'),
        _ => None,
    }
}

/// The text up to the quote, which two of stand for one, and what is behind it.
fn quoted(mut rest: &str, close: char) -> (String, &str) {
    let mut text = String::new();
    while let Some((before, behind)) = rest.split_once(close) {
        text.push_str(before);
        rest = behind;
        match behind.strip_prefix(close) {
            Some(more) if close != ']' => {
                text.push(close);
                rest = more;
            }
            Some(_) | None => return (text.to_ascii_lowercase(), rest),
        }
    }
    (text.to_ascii_lowercase(), "")
}

/// Whether a character is part of a name: SQLite takes all beyond ASCII.
fn is_part(part: char) -> bool {
    part.is_ascii_alphanumeric() || matches!(part, '_' | '$') || !part.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_in_order() {
        assert!(KEYWORDS.is_sorted(), "they are searched by halves");
    }

    #[test]
    fn names_are_told_from_texts_and_comments() {
        let word = |word: &str| Token::Word(word.to_owned());
        let name = |name: &str| Token::Name(name.to_owned());
        assert_eq!(
            tokens("SELECT \"A\"\"b\", [c]x -- d\n/* e */ FROM 'it''s'(1.5e3) \u{feff}Ä;"),
            [
                word("select"),
                name("a\"b"),
                Token::Mark(','),
                name("c"),
                word("x"),
                word("from"),
                Token::Text("it's".to_owned()),
                Token::Mark('('),
                Token::Number,
                Token::Mark(')'),
                word("Ä"),
                Token::Mark(';'),
            ]
        );
        assert_eq!(tokens("'open"), [Token::Text(String::new())]);
    }
}
