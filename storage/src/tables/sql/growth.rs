//! How large a statement becomes when SQLite writes its subqueries out, estimated before it is prepared.
//!
//! ```text
//!   WITH a AS (SELECT 1), b AS (SELECT 1 FROM a, a), c AS (SELECT 1 FROM b, b) ..       each name is copied wherever it stands
//!   SELECT x + x AS x FROM (SELECT x + x AS x FROM (..))                                so is each column of a subquery
//! ```
//! Both double with every level: some hundred bytes become gibibytes. SQLite does it in one go, without asking the guard, looking at the progress
//! handler or counting anything, so it can't be ended and has to be foreseen. This reads words and brackets, and no grammar. It counts too
//! much rather than too little, and what it gets wrong of a statement that makes no sense is SQLite's to say.

mod token;

use std::collections::{BTreeMap, BTreeSet};

use super::SqlError;
use token::{Token, is_keyword, tokens};

/// Words that SQLite may make of a statement, besides those that were written: in memory each takes some 300 bytes.
const GROWTH_MAX: u64 = 250_000;

/// Subqueries within, or built on, one another. Nobody writes so many; each takes a frame of the stack here.
const DEPTH_MAX: usize = 200;

/// Subqueries of one name, in several places of a statement: each use counts all of them.
const BODIES_MAX: usize = 100;

/// Columns of a table, for `*`: a little more than the largest view has.
const STAR_COLUMNS: u64 = 20;

/// Columns of a subquery: SQLite allows no more.
const COLUMNS_MAX: u64 = 2_000;

/// Arms of a UNION that a query around it is copied into: SQLite allows no more.
const ARMS_MAX: u64 = 500;

/// Refuses a script of which a statement would grow too large.
pub(super) fn check(script: &str) -> Result<(), SqlError> {
    let tokens = tokens(script);
    for statement in tokens.split(|token| *token == Token::Mark(';')) {
        let own = u64::try_from(statement.len()).unwrap_or(u64::MAX);
        if Statement::read(statement).size()?.saturating_sub(own) > GROWTH_MAX {
            return Err(SqlError::Refused(
                "the statement expands to too many subqueries: each name of a WITH is written out wherever it stands, and so is each \
                 column of a subquery; use each less often, or divide the statement"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

/// A statement as the SELECTs that it has.
struct Statement {
    /// The first is the statement itself.
    selects: Vec<Select>,
    /// What names of a WITH stand for: more than one where a name is given in several places.
    bodies: BTreeMap<String, Vec<usize>>,
}

/// All that stands within one pair of brackets that begins with SELECT.
#[derive(Default)]
struct Select {
    words: Words,
    /// The result column that is being read, and the most of any of them.
    column: Words,
    column_most: Words,
    columns: u64,
    stars: u64,
    unions: u64,
    is_listing: bool,
    is_from: bool,
    /// Subqueries in FROM.
    derived: Vec<usize>,
    /// Subqueries elsewhere, and whether that is in a result column.
    inner: Vec<(usize, bool)>,
    /// Names of a WITH.
    named: Vec<String>,
}

/// Words, and how many of them may be columns.
#[derive(Clone, Copy, Default)]
struct Words {
    all: u64,
    columns: u64,
}

/// What a SELECT becomes.
#[derive(Clone, Copy)]
struct Cost {
    /// Words of all of it.
    size: u64,
    /// Words of its largest column.
    column: u64,
    columns: u64,
    arms: u64,
    /// Words that may be columns of what is around it.
    free: u64,
}

/// A bracket that is open.
#[derive(Clone, Copy)]
struct Open {
    select: usize,
    is_its_own: bool,
}

impl Statement {
    fn read(tokens: &[Token]) -> Self {
        let (starts, names) = definitions(tokens);
        let known: BTreeSet<&str> = starts.values().map(String::as_str).collect();
        let mut read = Self { selects: vec![Select::default()], bodies: BTreeMap::new() };
        let mut open = vec![Open { select: 0, is_its_own: true }];
        for (at, token) in tokens.iter().enumerate() {
            let here = open.last().copied().unwrap_or(Open { select: 0, is_its_own: true });
            let (before, after) = (at.checked_sub(1).map(|before| &tokens[before]), tokens.get(at + 1));
            if *token == Token::Mark('(') && after.is_some_and(Token::begins_select) {
                let select = read.selects.len();
                read.selects.push(Select::default());
                open.push(Open { select, is_its_own: true });
                match starts.get(&at) {
                    Some(name) => read.bodies.entry(name.clone()).or_default().push(select),
                    None => read.selects[here.select].hold(select, before, here.is_its_own),
                }
            } else if *token == Token::Mark('(') {
                open.push(Open { is_its_own: false, ..here });
            } else if *token == Token::Mark(')') && open.len() > 1 {
                open.pop();
            }
            let select = &mut read.selects[here.select];
            select.take(token, (before, after), here.is_its_own);
            let is_free = before != Some(&Token::Mark('.')) && after != Some(&Token::Mark('.'));
            let name = token.name().filter(|name| is_free && known.contains(name) && !names.contains(&at));
            select.named.extend(name.map(str::to_owned));
        }
        for select in &mut read.selects {
            select.end_column();
        }
        read
    }

    fn size(&self) -> Result<u64, SqlError> {
        Ok(self.cost(0, &mut vec![None; self.selects.len()], &mut Vec::new())?.size)
    }

    /// What one SELECT becomes; `path` is what it stands in.
    fn cost(&self, at: usize, costs: &mut [Option<Cost>], path: &mut Vec<usize>) -> Result<Cost, SqlError> {
        if let Some(cost) = costs[at] {
            return Ok(cost);
        }
        if path.len() >= DEPTH_MAX {
            return Err(SqlError::Refused(format!(
                "the statement is nested too deep: at most {DEPTH_MAX} subqueries stand in one another"
            )));
        }
        path.push(at);
        let select = &self.selects[at];
        let (mut size, mut column, mut columns, mut arms) = (0_u64, 0_u64, STAR_COLUMNS, 1_u64);
        for source in self.sources(select, path)? {
            let cost = self.cost(source, costs, path)?;
            size = size.saturating_add(cost.size);
            column = column.max(cost.column);
            columns = columns.saturating_add(cost.columns);
            arms = arms.saturating_mul(cost.arms).min(ARMS_MAX);
        }
        let star = select.stars.saturating_mul(columns).min(COLUMNS_MAX);
        let (mut own, mut most) = (select.words.with(star, star), select.column_most);
        for (within, is_listed) in &select.inner {
            let cost = self.cost(*within, costs, path)?;
            own = own.with(cost.size, cost.free);
            most = if *is_listed { most.with(cost.size, cost.free) } else { most };
        }
        path.pop();
        let cost = Cost {
            size: size.saturating_add(own.written_out(column).saturating_mul(arms)),
            column: most.written_out(column),
            columns: select.columns.saturating_add(star).min(COLUMNS_MAX),
            arms: arms.saturating_mul(select.unions.saturating_add(1)).min(ARMS_MAX),
            free: own.columns.saturating_mul(arms),
        };
        costs[at] = Some(cost);
        Ok(cost)
    }

    /// The subqueries that a SELECT reads from. A name that stands within what it names is a recursion, which copies nothing.
    fn sources(&self, select: &Select, path: &[usize]) -> Result<Vec<usize>, SqlError> {
        let mut sources = select.derived.clone();
        for name in &select.named {
            let bodies = self.bodies.get(name).map_or(&[][..], Vec::as_slice);
            let is_within = bodies.iter().any(|body| path.contains(body));
            if (is_within && bodies.len() > 1) || bodies.len() > BODIES_MAX {
                return Err(SqlError::Refused(format!(
                    "`{name}` names several subqueries of a statement, which is too hard to follow: give each a name of its own"
                )));
            }
            if !is_within {
                sources.extend(bodies);
            }
        }
        Ok(sources)
    }
}

impl Select {
    /// Another SELECT stands here, behind `before`.
    fn hold(&mut self, select: usize, before: Option<&Token>, is_its_own: bool) {
        let is_behind_source = before == Some(&Token::Mark(','))
            || before.is_some_and(|before| before.is_word("from") || before.is_word("join"));
        let is_source = self.is_from && is_its_own && is_behind_source;
        // Within other brackets of FROM it may be either.
        if is_source || (self.is_from && !is_its_own) {
            self.derived.push(select);
        }
        if !is_source {
            self.inner.push((select, self.is_listing));
        }
    }

    fn take(&mut self, token: &Token, (before, after): (Option<&Token>, Option<&Token>), is_its_own: bool) {
        if is_its_own {
            self.turn(token, before);
        }
        let is_star = *token == Token::Mark('*')
            && before.is_some_and(|before| {
                matches!(before, Token::Mark(',' | '.'))
                    || before.is_word("select")
                    || before.is_word("distinct")
                    || before.is_word("all")
            });
        self.stars += u64::from(is_star);
        let is_beside =
            matches!(after, Some(Token::Mark('(' | '.'))) || before.is_some_and(|before| before.is_word("as"));
        let is_column = match token {
            Token::Word(word) => !is_beside && !is_keyword(word),
            Token::Name(_) => !is_beside,
            Token::Text(_) | Token::Mark(_) | Token::Number => is_star,
        };
        let counted = [&mut self.words, &mut self.column];
        for words in counted {
            words.all += 1;
            words.columns += u64::from(is_column);
        }
        if !self.is_listing {
            self.column = Words::default();
        }
    }

    /// Follows the clauses.
    fn turn(&mut self, token: &Token, before: Option<&Token>) {
        let Token::Word(word) = token else {
            if *token == Token::Mark(',') && self.is_listing {
                self.end_column();
            }
            return;
        };
        match word.as_str() {
            "select" | "values" => {
                self.end_column();
                (self.is_listing, self.is_from) = (true, false);
            }
            // `IS DISTINCT FROM` compares.
            "from" if before.is_none_or(|before| !before.is_word("distinct")) => {
                self.end_column();
                (self.is_listing, self.is_from) = (false, true);
            }
            "where" | "group" | "having" | "order" | "limit" | "window" | "union" | "except" | "intersect" => {
                self.end_column();
                self.unions += u64::from(word == "union");
                (self.is_listing, self.is_from) = (false, false);
            }
            _ => {}
        }
    }

    fn end_column(&mut self) {
        if self.is_listing {
            self.columns += 1;
            self.column_most.all = self.column_most.all.max(self.column.all);
            self.column_most.columns = self.column_most.columns.max(self.column.columns);
        }
        self.column = Words::default();
    }
}

impl Words {
    /// With more words, and more of them that may be columns.
    fn with(self, all: u64, columns: u64) -> Self {
        Self { all: self.all.saturating_add(all), columns: self.columns.saturating_add(columns) }
    }

    /// All of them, with `column` words in the place of each column.
    fn written_out(self, column: u64) -> u64 {
        self.all.saturating_add(self.columns.saturating_mul(column))
    }
}

/// What a WITH defines: the bracket where each body begins, with its name; and where the names stand.
fn definitions(tokens: &[Token]) -> (BTreeMap<usize, String>, BTreeSet<usize>) {
    let (mut starts, mut names) = (BTreeMap::new(), BTreeSet::new());
    let mut brackets = Vec::new();
    // Where the bracket began that was closed last.
    let mut closed = 0;
    for (at, token) in tokens.iter().enumerate() {
        if *token == Token::Mark('(') {
            brackets.push(at);
        } else if *token == Token::Mark(')') {
            closed = brackets.pop().unwrap_or_default();
        }
        if !token.is_word("as") || at == 0 {
            continue;
        }
        let hint = |token: &&Token| token.is_word("not") || token.is_word("materialized");
        let start = at + 1 + tokens[at + 1..].iter().take_while(hint).count();
        let is_body =
            tokens.get(start) == Some(&Token::Mark('(')) && tokens.get(start + 1).is_some_and(Token::begins_select);
        let name_at = if tokens[at - 1] == Token::Mark(')') { closed.checked_sub(1) } else { Some(at - 1) };
        let name = name_at.and_then(|name_at| Some((name_at, tokens[name_at].name()?)));
        if let Some((name_at, name)) = name.filter(|_| is_body) {
            starts.insert(start, name.to_owned());
            names.insert(name_at);
        }
    }
    (starts, names)
}

#[cfg(test)]
mod tests;
