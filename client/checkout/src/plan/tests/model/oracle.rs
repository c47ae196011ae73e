//! What must hold, by the numbers of the invariants. Each is checked at rest: everything delivered, every arrow followed.
//!
//! - F1 no lost edit: every token is in all files, in a conflict, in a replaced file that a person is told about, or was deleted by
//!   somebody who had seen it.
//! - F2 convergence: every file is the cluster's text in the habit of its checkout.
//! - F3 fixpoint: at rest, and after a restart of everything, nothing is proposed and nothing is written.
//! - F5 no duplicate: no token stands twice without a conflict that names it. (A phantom would be a token that nobody made: tokens
//!   are counted, so none can be.)
//!   Excused are the lines of an edit whose fate a checkout doesn't know, as its session expired before the answer came or its
//!   state was put back: if they were accepted *and* changed since, nothing tells them from new ones. They are never lost.
//! - F6 no clobber: a save that comes between our last look and our swap is not lost; F1 would miss it.
//! - F8 losslessness: what nobody touched is there to the byte, odd lines and each file's encoding included.
//! - F9 missed events: hints that are lost, or a queue that overflows, change nothing of this.
//! - F10 crash safety: neither do crashes between any two arrows, nor an older state or an older file from a backup.
//! - F11 clocks are irrelevant: files get times that jump; nothing but a planted fault reads them.
//! - F12 liveness: it comes to rest within a bound.
//! - F13 no plaintext in what is stored.
//!
//! F7 (a reader never sees a part) is not shown here: the swap is one arrow. The tests of `write` show it on real files. F4 (what was
//! deleted doesn't come back by itself) isn't either: a stale buffer that is saved puts lines back by right. The engine's tests of
//! lost answers, restarts and git show it case by case.

use std::collections::{BTreeMap, BTreeSet};

use zyflow_spec::{decode, encode};

use super::script::{Style, Verb};
use super::sync::Volatile;
use super::writers::{first_text, tokens};
use super::{Revision, World};

/// Rounds of delivering and stepping within which everything must come to rest (F12).
const ROUNDS_MAX: usize = 160;

/// Arrows of each checkout in a round.
const STEPS: usize = 6;

/// What is broken.
pub(super) type Violation = String;

impl World {
    /// Everything is delivered and stepped until nothing moves (F12).
    pub(super) fn rest(&mut self) -> Result<(), Violation> {
        for at in 0..self.copies.len() {
            self.finish_handle(at);
            if self.copies[at].is_muted {
                self.scan(at);
            }
        }
        for _ in 0..ROUNDS_MAX {
            let before = self.fingerprint();
            for at in 0..self.copies.len() {
                self.act_of(at, Verb::Deliver);
                self.act_of(at, Verb::Grace);
                for _ in 0..STEPS {
                    self.act_of(at, Verb::Step);
                }
                self.act_of(at, Verb::Quiet);
            }
            let is_idle = |copy: &super::Copy| matches!(copy.volatile, Volatile::Idle) && copy.record.flight.is_none();
            if self.copies.iter().all(is_idle) && before == self.fingerprint() {
                return Ok(());
            }
        }
        Err("F12: it doesn't come to rest".to_owned())
    }

    fn fingerprint(&self) -> (Revision, usize, Vec<Option<Vec<u8>>>, Vec<usize>) {
        let files = self.copies.iter().map(|copy| copy.disk.bytes().map(<[u8]>::to_owned)).collect();
        let kept = self.copies.iter().map(|copy| copy.disk.keep.len()).collect();
        (self.ledger.revision(), self.writes, files, kept)
    }

    /// All that must hold at rest.
    pub(super) fn check(&mut self) -> Result<(), Violation> {
        let text = self.cluster_text();
        self.check_files(text.as_deref())?;
        self.check_tokens(text.as_deref().unwrap_or_default())?;
        self.check_bytes(text.as_deref())?;
        self.check_fixpoint()
    }

    /// The live change's text.
    fn cluster_text(&self) -> Option<String> {
        let revision = self.ledger.revision();
        let live = self.ledger.paths(self.project, revision).into_iter().find(|(_, _, is_deleted)| !is_deleted)?;
        let document = self.ledger.document(live.1, revision)?;
        Some(document.blocks.iter().map(|known| known.block.print()).collect())
    }

    fn check_files(&self, text: Option<&str>) -> Result<(), Violation> {
        for (at, copy) in self.copies.iter().enumerate() {
            let found = copy.disk.scan();
            if found.as_ref().map(|scanned| &scanned.text[..]) != text {
                return Err(format!("F2: checkout {at} differs from the cluster\n{found:?}\n{text:?}"));
            }
            if let Some(scanned) = found
                && encode(&scanned.text, scanned.encoding) != scanned.bytes
            {
                return Err(format!("F8: checkout {at} isn't written in its own habit"));
            }
            if copy.stored.windows(5).any(|bytes| bytes == b"- [ ]") {
                return Err(format!("F13: checkout {at} has stored a task in clear"));
            }
        }
        Ok(())
    }

    fn check_tokens(&mut self, text: &str) -> Result<(), Violation> {
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for token in tokens(text) {
            *times.entry(token).or_default() += 1;
        }
        let mut recorded: BTreeSet<u64> = BTreeSet::new();
        for conflict in self.ledger.conflicts() {
            for value in [conflict.base, conflict.spec, conflict.runtime].into_iter().flatten() {
                recorded.extend(tokens(&value));
            }
        }
        // A line that the merge doesn't recognise, as it was moved and reworded on both sides, is kept twice and recorded.
        let is_told = |token: &u64| recorded.contains(token);
        let is_twice = |token: &u64| times.get(token).is_some_and(|times| *times > 1);
        let all = self.first_tokens + u64::try_from(self.owners.len()).unwrap();
        let is_excused = |token: &u64| self.deleted.contains(token) || self.doubtful.contains(token) || is_told(token);
        let twice = (0..all).find(|token| is_twice(token) && !is_excused(token));
        if self.style != Style::Alike
            && let Some(token) = twice
        {
            return Err(format!("F5: t{token} stands twice in\n{text}"));
        }
        let mut found: BTreeSet<u64> = times.into_keys().chain(recorded).collect();
        for copy in &self.copies {
            for kept in copy.disk.keep.iter().filter(|kept| kept.is_stuck) {
                found.extend(tokens(&decode(&copy.disk.inodes[kept.inode].bytes).unwrap().0));
            }
        }
        if let Some(token) = (0..all).find(|token| !found.contains(token) && !self.deleted.contains(token)) {
            return Err(format!("F1: t{token} is lost; the text is\n{text}"));
        }
        Ok(())
    }

    /// Lines that nobody touched are there, to the byte.
    fn check_bytes(&self, text: Option<&str>) -> Result<(), Violation> {
        let Some(text) = text else { return Ok(()) };
        let lines: BTreeSet<&str> = text.split_inclusive('\n').collect();
        for line in first_text(self.style).0.split_inclusive('\n') {
            let is_touched = tokens(line).any(|token| self.touched.contains(&token) || self.deleted.contains(&token));
            if tokens(line).next().is_some() && !is_touched && !lines.contains(line) {
                return Err(format!("F8: {line:?} was touched by nobody and is not in\n{text}"));
            }
        }
        Ok(())
    }

    fn check_fixpoint(&mut self) -> Result<(), Violation> {
        // A replaced file that waits for a person is looked at anew at each start.
        if self.copies.iter().any(|copy| copy.disk.keep.iter().any(|kept| kept.is_stuck)) {
            return Ok(());
        }
        let before = (self.fingerprint(), self.proposals);
        for at in 0..self.copies.len() {
            self.act_of(at, Verb::Crash);
            self.act_of(at, Verb::Scan);
        }
        self.rest()?;
        if before == (self.fingerprint(), self.proposals) {
            return Ok(());
        }
        Err("F3: at rest and after a restart something is proposed or written".to_owned())
    }
}
