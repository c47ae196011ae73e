//! The arrows of one checkout's sync, as the engine has them, over the real plan and the real record. Each step is one arrow, and
//! between any two of them a crash, a save or a delivery can come. Long because one checkout's arrows are read together.
//!
//! ```text
//!   hint ─▶ look ─▶ (flight stored) ─▶ sent ─▶ answered ─▶ look
//!              └──▶ (intent stored) ─▶ checked and swapped ─▶ (shown stored) ─▶ look
//! ```

use zyflow_machine::outcome::{Outcome, Reject};
use zyflow_spec::encode;

use super::disk::{Kept, Scanned};
use super::*;
use crate::base::{Flight, Intent};

/// What a checkout waits for, in memory only.
#[derive(Clone, Debug, Default)]
pub(super) enum Volatile {
    #[default]
    Idle,
    Flying,
    Answered(Outcome),
    /// The intent is stored; next comes the check and the swap.
    Writing {
        scanned: Option<Scanned>,
        change: RecordId,
        text: KnownText,
    },
    /// The swap is done and nothing of it is stored.
    Swapped {
        scanned: Option<Scanned>,
        came_out: Option<usize>,
        change: RecordId,
        text: KnownText,
    },
}

impl Copy {
    /// What stands there from now on is saved by somebody, and seen at once.
    fn settled(&mut self) {
        self.origin = Origin::Saved;
        self.is_watched = true;
    }
}

impl World {
    /// Somebody changed the file under the name.
    pub(super) fn hint(&mut self, at: usize) {
        if !self.copies[at].is_muted {
            self.copies[at].is_due = true;
        }
    }

    /// Somebody wrote into a replaced file.
    pub(super) fn hint_kept(&mut self, at: usize, inode: usize) {
        let copy = &mut self.copies[at];
        if copy.is_muted {
            return;
        }
        let bytes = &copy.disk.inodes[inode].bytes;
        for kept in copy.disk.keep.iter_mut().filter(|kept| kept.inode == inode) {
            kept.is_pending |= kept.known.as_ref() != Some(bytes);
            kept.is_stuck &= !kept.is_pending;
            copy.is_due |= kept.is_pending;
        }
    }

    pub(super) fn sync_of(&mut self, at: usize, verb: Verb) {
        let newest = self.ledger.revision();
        let copy = &mut self.copies[at];
        match verb {
            Verb::Step => self.step(at),
            Verb::Deliver => {
                copy.is_due |= copy.applied < newest;
                copy.applied = newest;
            }
            Verb::Crash => self.crash(at, None),
            Verb::RestoreState(back) => {
                let states = self.copies[at].states.clone();
                if let Some(index) = states.len().checked_sub(1 + back % states.len().max(1)) {
                    self.crash(at, Some(states[index].clone()));
                    // The place of HEAD is part of that state.
                    self.copies[at].is_head_moved |= self.copies[at].has_jumped;
                    let base = self.copies[at].record.base().map(KnownText::text).unwrap_or_default();
                    let known: BTreeSet<u64> = writers::tokens(&base).collect();
                    self.doubtful.extend(self.accepted.difference(&known));
                }
            }
            Verb::LoseAnswer => {
                if matches!(copy.volatile, Volatile::Answered(_)) {
                    copy.volatile = Volatile::Idle;
                    copy.is_due = true;
                }
            }
            Verb::Late => {
                if let Some((request, body)) = copy.sent.last().cloned() {
                    self.ledger.apply(Some(request), body, "network");
                }
            }
            Verb::Expire => {
                if let Some(session) = copy.session {
                    let request = RequestId { session, seq: u64::MAX };
                    self.ledger.apply(Some(request), Body::CloseSession, "expiry");
                }
            }
            Verb::Mute => copy.is_muted = true,
            Verb::Overflow => {
                copy.is_due = false;
                for kept in &mut copy.disk.keep {
                    kept.is_pending = false;
                }
                copy.is_overflowed = true;
            }
            Verb::Scan => self.scan(at),
            Verb::Quiet => self.quiet(at),
            Verb::Grace => {
                let is_truncated = copy.handle.as_ref().is_some_and(|handle| handle.is_truncated);
                let is_waited_for = copy.disk.scan().is_none_or(|scanned| scanned.text.is_empty());
                copy.is_grace = !is_truncated && is_waited_for;
                copy.is_due |= copy.is_grace;
            }
            other => panic!("not of the sync: {other:?}"),
        }
    }

    /// All files are looked at, replaced ones too, whatever was hinted.
    pub(super) fn scan(&mut self, at: usize) {
        let copy = &mut self.copies[at];
        copy.is_muted = false;
        copy.is_overflowed = false;
        copy.is_due = true;
        for inode in copy.disk.keep.iter().map(|kept| kept.inode).collect::<Vec<_>>() {
            self.hint_kept(at, inode);
        }
    }

    /// A crash, and the next start: with what was stored, or with an older state that a backup brought.
    fn crash(&mut self, at: usize, state: Option<Vec<u8>>) {
        let copy = &mut self.copies[at];
        // Nothing of a swap is stored before its end: what came out lies under the temporary's name and is adopted.
        if let Volatile::Swapped { came_out: Some(inode), .. } = &copy.volatile {
            let kept = Kept { inode: *inode, start: None, known: None, is_pending: true, is_stuck: false };
            copy.disk.keep.push(kept);
        }
        if let Some(state) = state {
            copy.stored = state;
        }
        copy.record = codec_for_tests::decode(&copy.stored);
        copy.volatile = Volatile::Idle;
        copy.session = None;
        copy.abandoned = None;
        copy.is_fresh = true;
        copy.is_watched = false;
        copy.is_confirmed = false;
        copy.is_grace = false;
        // The place of HEAD is remembered once the files have settled, so its move is seen again.
        copy.is_head_moved |= copy.origin == Origin::HeadMoved;
        copy.origin = Origin::Saved;
        copy.wait = Revision(0);
        for kept in &mut copy.disk.keep {
            kept.start = None;
            kept.is_stuck = false;
            kept.is_pending = kept.known.as_ref() != Some(&copy.disk.inodes[kept.inode].bytes);
        }
        self.scan(at);
    }

    /// The time of replaced files is over: those that nobody holds and that hold nothing new are dropped.
    pub(super) fn quiet(&mut self, at: usize) {
        let copy = &mut self.copies[at];
        let held = copy.handle.as_ref().map(|handle| handle.inode);
        let inodes = &copy.disk.inodes;
        let is_due = &mut copy.is_due;
        copy.disk.keep.retain_mut(|kept| {
            if kept.is_stuck || held == Some(kept.inode) {
                return true;
            }
            kept.is_pending = kept.known.as_ref() != Some(&inodes[kept.inode].bytes);
            *is_due |= kept.is_pending;
            kept.is_pending
        });
    }

    /// One arrow.
    fn step(&mut self, at: usize) {
        let copy = &mut self.copies[at];
        if std::mem::take(&mut copy.is_overflowed) && self.plant != Some(Plant::NoRescanOnOverflow) {
            self.scan(at);
        }
        let copy = &mut self.copies[at];
        match std::mem::take(&mut copy.volatile) {
            Volatile::Idle if copy.record.flight.is_some() => {
                if copy.applied >= copy.wait {
                    copy.volatile = Volatile::Flying;
                }
            }
            Volatile::Idle => {
                if copy.applied >= copy.wait && std::mem::take(&mut copy.is_due) {
                    self.look(at);
                }
            }
            Volatile::Flying => {
                let flight = copy.record.flight.clone().unwrap();
                copy.sent.push((flight.request, flight.body.clone()));
                let outcome = self.ledger.apply(Some(flight.request), flight.body, "writer");
                if let (Outcome::Accepted { .. }, Some(text)) = (&outcome, &flight.text) {
                    self.accepted.extend(writers::tokens(text));
                }
                self.copies[at].volatile = Volatile::Answered(outcome);
            }
            Volatile::Answered(outcome) => self.answered(at, outcome),
            Volatile::Writing { scanned, change, text } => self.swap(at, scanned, change, text),
            Volatile::Swapped { scanned, came_out, change, text } => self.swapped(at, scanned, came_out, change, text),
        }
    }

    fn answered(&mut self, at: usize, outcome: Outcome) {
        match outcome {
            Outcome::Duplicate(first) => self.answered(at, *first),
            Outcome::Accepted { revision, created } => self.accepted(at, revision, &created),
            Outcome::Stale { revision, .. } => self.dropped(at, revision),
            Outcome::Rejected(Reject::SessionExpired) => {
                // Whether it was accepted is not known any more.
                let text = self.copies[at].record.flight.as_ref().and_then(|flight| flight.text.clone());
                self.doubt(at, &text.unwrap_or_default());
                self.copies[at].session = None;
                self.dropped(at, Revision(0));
            }
            Outcome::Rejected(Reject::Exists { .. } | Reject::NotFound { .. }) => self.dropped(at, Revision(0)),
            Outcome::Rejected(reject) => panic!("rejected: {reject}"),
        }
    }

    /// Tokens of a text that the cluster may have although the record doesn't say so.
    fn doubt(&mut self, at: usize, text: &str) {
        let base = self.copies[at].record.base().map(KnownText::text).unwrap_or_default();
        let known: BTreeSet<u64> = writers::tokens(&base).collect();
        let accepted = &self.accepted;
        self.doubtful.extend(writers::tokens(text).filter(|token| !known.contains(token) && accepted.contains(token)));
    }

    fn dropped(&mut self, at: usize, wait: Revision) {
        self.copies[at].record.flight = None;
        self.copies[at].wait = wait;
        self.copies[at].is_due = true;
        self.store(at);
    }

    fn accepted(&mut self, at: usize, revision: Revision, created: &[RecordId]) {
        let copy = &mut self.copies[at];
        let flight = copy.record.flight.take().unwrap();
        copy.is_due = true;
        let change = match &flight.body {
            Body::Edit { change, .. } => *change,
            Body::CreateChange { .. } => created[0],
            Body::DeleteChange { .. } => {
                copy.is_confirmed = false;
                copy.wait = revision;
                return self.store(at);
            }
            other => panic!("not of a file: {other:?}"),
        };
        let text = flight.named_text(created, revision).expect("the ids of an accepted text add up");
        if let Some(name) = &flight.displaced {
            let (inodes, keep) = (&copy.disk.inodes, &mut copy.disk.keep);
            if let Some(kept) = keep.iter_mut().find(|kept| kept.inode.to_string() == *name) {
                kept.start = Some(text.clone());
                let bytes = &inodes[kept.inode].bytes;
                kept.is_pending = zyflow_spec::decode(bytes).unwrap().0 != text.text();
                if !kept.is_pending {
                    kept.known = Some(bytes.clone());
                }
            }
            copy.record.show_below_newest(change, text);
            // Where that isn't shown, nothing else says what the file has to wait for.
            copy.wait = revision;
        } else {
            copy.record.show(change, text, By::Writer);
            // What HEAD brought is merged; what stands there from now on is saved by somebody.
            copy.settled();
        }
        self.store(at);
    }

    /// The cluster's side of the path, as far as it is applied here.
    fn side(&mut self, at: usize) -> Side {
        let copy = &self.copies[at];
        let mut paths = self.ledger.paths(self.project, copy.applied);
        paths.sort_by_key(|(_, change, is_deleted)| (!is_deleted, *change));
        let listed = paths.last().map(|(_, change, _)| *change);
        let Some(change) = listed.or(copy.record.change) else { return Side::Absent };
        match self.ledger.document(change, copy.applied) {
            None => Side::Absent,
            Some(document) if document.deleted => Side::Deleted { change, at: document.revision },
            Some(document) => {
                Side::Live { change, text: KnownText { revision: document.revision, blocks: document.blocks } }
            }
        }
    }

    fn look(&mut self, at: usize) {
        let side = self.side(at);
        let copy = &mut self.copies[at];
        if std::mem::take(&mut copy.is_head_moved) {
            copy.origin = Origin::HeadMoved;
        }
        let scanned = copy.disk.scan();
        let local = scanned.as_ref().map(|scanned| &scanned.text[..]);
        copy.looked_at.extend(local.map(str::to_owned));
        if std::mem::take(&mut copy.is_fresh) {
            copy.abandoned = copy.record.settle_intent(local);
        }
        if self.look_at_kept(at, &side) {
            return;
        }
        let copy = &mut self.copies[at];
        let is_emptied = local == Some("") && copy.record.base().is_some_and(|base| !base.blocks.is_empty());
        if is_emptied && !copy.is_grace {
            return;
        }
        if local.is_some() {
            copy.is_confirmed = false;
            copy.is_grace &= is_emptied;
        }
        let input = Input {
            path: PATH,
            project: self.project,
            agreed: copy.record.agreed(),
            local,
            origin: copy.origin,
            cluster: &side,
            take: Some(Take::Merge),
            is_deletion_confirmed: copy.is_confirmed,
            strategies: &Strategies::default(),
        };
        let mtime = copy.disk.path.map(|inode| copy.disk.inodes[inode].mtime);
        let step = faults::decide(self.plant, &input, mtime);
        trace(|| format!("{at}: {step:#?}\nlocal\n{}", local.unwrap_or("(none)\n")));
        self.follow(at, step, scanned);
    }

    fn follow(&mut self, at: usize, step: Step, scanned: Option<Scanned>) {
        let copy = &mut self.copies[at];
        match step {
            Step::Settled => copy.settled(),
            Step::Learn { change, text } => {
                copy.record.learn(change, text, copy.is_watched);
                copy.settled();
                self.store(at);
            }
            Step::Propose(proposal) => self.launch(at, *proposal, None),
            Step::Write { change, seen, text } => {
                if let Some(seen) = seen {
                    copy.record.learn(change, seen, copy.is_watched);
                }
                copy.record.intent = Some(Intent { change, text: text.clone() });
                self.store(at);
                self.copies[at].volatile = Volatile::Writing { scanned, change, text };
            }
            Step::Remove => self.remove(at, scanned),
            Step::Forget => {
                copy.record = Record::new(PATH);
                copy.is_confirmed = false;
                copy.origin = Origin::Saved;
                self.store(at);
            }
            Step::AwaitDeletion => {
                copy.is_confirmed = std::mem::take(&mut copy.is_grace);
                copy.is_due |= copy.is_confirmed;
            }
            Step::Behind { need } => {
                copy.wait = need;
                copy.is_due = true;
            }
            Step::NeedsTake => panic!("a word is given"),
        }
    }

    /// Has replaced files that hold something new merged. Whether the file has to wait for one.
    fn look_at_kept(&mut self, at: usize, side: &Side) -> bool {
        for index in 0..self.copies[at].disk.keep.len() {
            if self.copies[at].disk.keep[index].is_pending && self.merge_kept(at, index, side) {
                return true;
            }
        }
        false
    }

    fn merge_kept(&mut self, at: usize, index: usize, side: &Side) -> bool {
        let copy = &mut self.copies[at];
        let kept = &mut copy.disk.keep[index];
        let bytes = &copy.disk.inodes[kept.inode].bytes;
        let (text, _) = zyflow_spec::decode(bytes).unwrap();
        if text.is_empty() || kept.known.as_ref() == Some(bytes) || copy.abandoned.as_ref() == Some(&text) {
            kept.known = Some(bytes.clone());
            kept.is_pending = false;
            return false;
        }
        let need = copy.record.shown.iter().map(|shown| shown.text.revision).max().unwrap_or_default();
        if matches!(side, Side::Live { text, .. } if text.revision < need) {
            copy.wait = need;
            copy.is_due = true;
            return true;
        }
        let input = Input {
            path: PATH,
            project: self.project,
            agreed: copy.record.agreed(),
            local: None,
            origin: Origin::Displaced,
            cluster: side,
            take: None,
            is_deletion_confirmed: false,
            strategies: &Strategies::default(),
        };
        let proposal = plan_displaced(&input, &text, kept.start.as_ref());
        trace(|| format!("{at}: replaced {proposal:#?}\n{text}"));
        let Some(proposal) = proposal else {
            kept.known = Some(bytes.clone());
            kept.is_pending = false;
            return false;
        };
        if kept.start.is_none() && takes_something_away(&proposal.body) {
            kept.is_stuck = true;
            kept.is_pending = false;
            return false;
        }
        let name = kept.inode.to_string();
        self.launch(at, *proposal, Some(name));
        true
    }

    fn launch(&mut self, at: usize, proposal: Proposal, displaced: Option<String>) {
        let session = match self.copies[at].session {
            Some(session) => session,
            None => self.open_session(at),
        };
        let copy = &mut self.copies[at];
        // What an earlier run proposed is at most as new as this run's session, so nothing is proposed on an older state.
        if copy.applied < copy.opened {
            copy.wait = copy.opened;
            copy.is_due = true;
            return;
        }
        let request = RequestId { session, seq: copy.next };
        copy.next += 1;
        let Proposal { body, text, ids, .. } = proposal;
        copy.record.flight = Some(Flight { request, body, text, ids, displaced });
        copy.volatile = Volatile::Flying;
        self.proposals += 1;
        self.store(at);
    }

    fn open_session(&mut self, at: usize) -> SessionId {
        let outcome = self.ledger.apply(None, Body::OpenSession, "t");
        let session = SessionId(created(&outcome)[0].0);
        self.copies[at].session = Some(session);
        self.copies[at].next = 1;
        self.copies[at].opened = self.ledger.revision();
        session
    }

    /// A save in the last moment, if one was to come.
    fn cross(&mut self, at: usize) {
        if self.is_truncated(at) {
            return;
        }
        if let Some(edit) = self.copies[at].crossing.take() {
            self.write_of(at, Verb::Stale(edit));
        }
    }

    fn swap(&mut self, at: usize, scanned: Option<Scanned>, change: RecordId, text: KnownText) {
        let is_other = |copy: &Copy| copy.disk.bytes() != scanned.as_ref().map(|scanned| &scanned.bytes[..]);
        let is_checked = self.plant != Some(Plant::WriteWithoutSwapCheck);
        let is_changed = is_checked && is_other(&self.copies[at]);
        if !is_changed {
            self.cross(at);
        }
        // Making a file fails where there is one by now, swapping fails where there is none.
        let is_there = self.copies[at].disk.path.is_some();
        if is_changed || is_there != scanned.is_some() {
            self.copies[at].record.intent = None;
            self.copies[at].is_due = true;
            return;
        }
        let bytes = encode(&text.text(), scanned.as_ref().map(|scanned| scanned.encoding).unwrap_or_default());
        let mtime = self.noise();
        self.writes += 1;
        let copy = &mut self.copies[at];
        let inode = copy.disk.make(bytes, mtime);
        let came_out = copy.disk.put(inode);
        copy.volatile = Volatile::Swapped { scanned, came_out, change, text };
    }

    fn swapped(
        &mut self,
        at: usize,
        scanned: Option<Scanned>,
        came_out: Option<usize>,
        change: RecordId,
        text: KnownText,
    ) {
        let before = self.copies[at].record.base().cloned();
        let copy = &mut self.copies[at];
        copy.record.intent = None;
        copy.record.show(change, text, By::Us);
        copy.settled();
        if let Some(inode) = came_out {
            self.keep_inode(at, inode, before, scanned.as_ref());
        }
        self.store(at);
    }

    fn remove(&mut self, at: usize, scanned: Option<Scanned>) {
        if self.copies[at].disk.scan() == scanned {
            self.cross(at);
        }
        let copy = &mut self.copies[at];
        let before = copy.record.base().cloned();
        let came_out = copy.disk.path.take();
        copy.is_due = true;
        self.writes += 1;
        if let Some(inode) = came_out {
            self.keep_inode(at, inode, before, scanned.as_ref());
        }
        self.copies[at].record = Record::new(PATH);
        self.store(at);
    }

    /// A replaced file stays linked; one whose content isn't what was scanned is merged.
    fn keep_inode(&mut self, at: usize, inode: usize, start: Option<KnownText>, scanned: Option<&Scanned>) {
        let copy = &mut self.copies[at];
        let is_as_scanned = scanned.is_some_and(|scanned| scanned.bytes == copy.disk.inodes[inode].bytes);
        let is_known = is_as_scanned || self.plant == Some(Plant::WriteWithoutSwapCheck);
        if is_known && self.plant == Some(Plant::DisplacedDeletedAtOnce) {
            return;
        }
        let known = is_known.then(|| copy.disk.inodes[inode].bytes.clone());
        copy.disk.keep.push(Kept { inode, start, known, is_pending: !is_known, is_stuck: false });
        copy.is_due |= !is_known;
    }

    fn store(&mut self, at: usize) {
        let copy = &mut self.copies[at];
        copy.stored = codec_for_tests::encode(&copy.record);
        copy.states.push(copy.stored.clone());
    }
}

/// As the engine asks of a replaced file of an earlier run.
fn takes_something_away(body: &Body) -> bool {
    use zyflow_machine::command::BlockOp;
    match body {
        Body::Edit { ops, .. } => ops
            .iter()
            .any(|op| matches!(op, BlockOp::Delete { .. } | BlockOp::SetText { .. } | BlockOp::SetMark { .. })),
        Body::DeleteChange { .. } => true,
        _ => false,
    }
}
