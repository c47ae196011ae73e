//! What became of every token: pure.
//!
//! ```text
//!   written ─┬─ in the agreed text ─────────────────────────── shown (twice? a phantom)
//!            ├─ in a conflict record ───────────────────────── in conflict
//!            ├─ on a line that an editor saw and deleted ───── deleted
//!            └─ else ───────────────────────────────────────── lost
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::habits::tokens;

/// What the editors say that they did.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Every token that was saved, or acknowledged where it came by command.
    pub(super) written: BTreeSet<String>,
    /// Tokens on lines that an editor had before it and deleted.
    pub(super) deleted: BTreeSet<String>,
}

/// What became of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) shown: BTreeSet<String>,
    pub(super) in_conflict: BTreeSet<String>,
    pub(super) deleted: BTreeSet<String>,
    /// Deleted by one and shown all the same, as another edited that line meanwhile: the edit beats the deletion.
    pub(super) back: BTreeSet<String>,
    /// Shown more than once, and no conflict says so.
    pub(super) twice: BTreeSet<String>,
    /// Shown more than once, as it isn't known whether two lines are one; a conflict names them.
    pub(super) doubtful: BTreeSet<String>,
    pub(super) lost: BTreeSet<String>,
}

impl Ledger {
    /// Looks up every token in what all checkouts show and in what the conflicts keep.
    pub(super) fn account(&self, shown: &str, kept: &[String]) -> Account {
        let mut times: BTreeMap<&str, u32> = BTreeMap::new();
        for token in tokens(shown) {
            *times.entry(token).or_default() += 1;
        }
        let in_conflicts: BTreeSet<&str> = kept.iter().flat_map(|text| tokens(text)).collect();
        let mut account = Account::default();
        for token in &self.written {
            let times = times.get(token.as_str()).copied().unwrap_or_default();
            if times > 1 {
                let is_told = in_conflicts.contains(token.as_str());
                let doubled = if is_told { &mut account.doubtful } else { &mut account.twice };
                doubled.insert(token.clone());
            }
            if times > 0 && self.deleted.contains(token) {
                account.back.insert(token.clone());
            }
            let fate = if times > 0 {
                &mut account.shown
            } else if in_conflicts.contains(token.as_str()) {
                &mut account.in_conflict
            } else if self.deleted.contains(token) {
                &mut account.deleted
            } else {
                &mut account.lost
            };
            fate.insert(token.clone());
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_token_has_one_fate() {
        let ledger = Ledger {
            written: set(&["a-0001", "a-0002", "a-0003", "a-0004", "a-0005", "a-0006", "a-0007"]),
            deleted: set(&["a-0003", "a-0005", "a-0006"]),
        };
        let account =
            ledger.account("x a-0001 y a-0001\na-0006 a-0007 a-0007", &["was a-0002, a-0005 a-0007".to_owned()]);
        let expected = Account {
            shown: set(&["a-0001", "a-0006", "a-0007"]),
            in_conflict: set(&["a-0002", "a-0005"]),
            deleted: set(&["a-0003"]),
            back: set(&["a-0006"]),
            twice: set(&["a-0001"]),
            doubtful: set(&["a-0007"]),
            lost: set(&["a-0004"]),
        };
        assert_eq!(account, expected);
    }

    #[test]
    fn a_part_of_a_word_is_no_token() {
        let ledger = Ledger { written: set(&["a-0001"]), deleted: set(&[]) };
        assert_eq!(ledger.account("aa-0001 a-00011", &[]).lost, set(&["a-0001"]));
    }
}
