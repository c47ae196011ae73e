//! What people, tools, git and backups do to a file.

use std::collections::BTreeSet;

use zyflow_spec::{Encoding, decode, encode};

use super::World;
use super::disk::Handle;
use super::script::{Edit, EditKind, Style, Verb};
use crate::text::KnownText;

const WORDS: [&str; 24] = [
    "log", "cut", "power", "read", "back", "vote", "fsync", "check", "merge", "diff", "node", "key", "seal", "open",
    "queue", "batch", "snapshot", "rollback", "index", "leader", "replay", "bench", "watch", "swap",
];

/// A task with its token.
pub(super) fn line(token: u64, number: usize, style: Style) -> String {
    if style == Style::Alike {
        return format!("- [ ] make t{token} work in the new way that was agreed on\n");
    }
    let words = [token * 7 + 1, token * 11 + 5, token * 13 + 2, token * 17 + 3, token * 5 + 11];
    let count = u64::try_from(WORDS.len()).unwrap();
    let words = words.map(|word| WORDS[usize::try_from(word % count).unwrap()]).join(" ");
    match style {
        Style::Numbered => format!("- [ ] 1.{number} t{token} {words}\n"),
        Style::Plain | Style::Mixed | Style::Alike => format!("- [ ] t{token} {words}\n"),
    }
}

/// The document that everybody starts from, and how many tokens are in it.
pub(super) fn first_text(style: Style) -> (String, u64) {
    let tasks = |range: std::ops::Range<u64>| -> String {
        range.zip(1..).map(|(token, number)| line(token, number, style)).collect()
    };
    match style {
        Style::Plain | Style::Alike | Style::Numbered => (tasks(0..4), 4),
        Style::Mixed => {
            let text = format!(
                "# Work of t0 on the log\n\nSome prose t1, with `code`  and two spaces.\n\n## t2 First\n{}<!-- t5 is left -->\n\
                 ```text\ncode of t6 within a fence\n```\n* [~] t7 an odd mark and a\ttab\n\n## t8 Second\n\n{}",
                tasks(3..5),
                tasks(9..11),
            );
            (text, 11)
        }
    }
}

/// How a checkout writes its file.
pub(super) fn encoding(noise: u64) -> Encoding {
    Encoding {
        bom: noise.is_multiple_of(5),
        crlf: (noise / 5).is_multiple_of(3),
        final_newline: !(noise / 15).is_multiple_of(3),
    }
}

/// The tokens of a text.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = u64> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(|word| {
        let number = word.strip_prefix('t')?;
        number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
    })
}

/// Which of the two writers of a checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hand {
    /// Saves by renaming a new file into place.
    Saver,
    /// Holds a file open and writes into it.
    Holder,
}

impl World {
    pub(super) fn write_of(&mut self, at: usize, verb: Verb) {
        let is_own = matches!(verb, Verb::Open | Verb::Truncate | Verb::Held(_));
        if self.is_truncated(at) && !is_own {
            return;
        }
        match verb {
            Verb::Save(edit) => {
                self.read(at);
                self.save(at, edit);
            }
            Verb::Stale(edit) => {
                self.save(at, edit);
                self.undone(at, Hand::Holder);
            }
            Verb::Cross(edit) => self.copies[at].crossing = Some(edit),
            Verb::Open => {
                if self.is_truncated(at) {
                    return;
                }
                let disk = &self.copies[at].disk;
                let handle = disk.path.map(|inode| Handle { inode, buffer: disk.text_of(inode), is_truncated: false });
                self.copies[at].handle = handle;
            }
            Verb::Truncate => {
                if let Some(handle) = &mut self.copies[at].handle {
                    handle.is_truncated = true;
                    let inode = handle.inode;
                    self.write_inode(at, inode, Vec::new());
                }
            }
            Verb::Held(edit) => {
                if let Some(mut handle) = self.copies[at].handle.take() {
                    self.edit((at, Hand::Holder), &mut handle.buffer, edit);
                    handle.is_truncated = false;
                    let bytes = encode(&handle.buffer, self.copies[at].habit);
                    self.write_inode(at, handle.inode, bytes);
                    self.copies[at].handle = Some(handle);
                    self.undone(at, Hand::Saver);
                }
            }
            Verb::Remove => self.remove_file(at),
            Verb::Revert(back) => {
                self.read(at);
                self.put_back(at, back, |_, _| true);
            }
            Verb::Restore(back) => {
                self.put_back(at, back, |world, token| world.owner(token).is_some_and(|owner| owner.0 == at));
            }
            Verb::Jump(back) => self.jump(at, back),
            other => panic!("not of a writer: {other:?}"),
        }
    }

    pub(super) fn is_truncated(&self, at: usize) -> bool {
        self.copies[at].handle.as_ref().is_some_and(|handle| handle.is_truncated)
    }

    /// Two programs in one checkout that overwrite each other's saves are one writer to us: what one of them lacks of the other's,
    /// though it was accepted, counts as undone by that checkout's own hand.
    fn undone(&mut self, at: usize, by: Hand) {
        let copy = &self.copies[at];
        let text = match (&copy.handle, by) {
            (Some(handle), Hand::Saver) => &handle.buffer,
            (Some(_) | None, _) => &copy.buffer,
        };
        let kept: BTreeSet<u64> = tokens(text).collect();
        let gone = self.accepted.iter().copied().filter(|token| !kept.contains(token));
        let gone: Vec<u64> = gone.filter(|token| self.owner(*token) == Some((at, by))).collect();
        self.deleted.extend(gone);
    }

    /// The writer that holds a file open writes what it has and closes it.
    pub(super) fn finish_handle(&mut self, at: usize) {
        if self.copies[at].handle.as_ref().is_some_and(|handle| handle.is_truncated) {
            self.write_of(at, Verb::Held(Edit { kind: EditKind::Nothing, at: 0 }));
        }
        self.copies[at].handle = None;
    }

    fn read(&mut self, at: usize) {
        let copy = &mut self.copies[at];
        copy.buffer = copy.disk.scan().map(|scanned| scanned.text).unwrap_or_default();
    }

    /// Changes the buffer and renames it into place.
    pub(super) fn save(&mut self, at: usize, edit: Edit) {
        let mut buffer = std::mem::take(&mut self.copies[at].buffer);
        self.edit((at, Hand::Saver), &mut buffer, edit);
        let bytes = self.copies[at].disk.encoded(&buffer, self.copies[at].habit);
        if self.style != Style::Plain && self.copies[at].record.agreed().is_none() {
            // At the first binding a line that is not recognised stays on both sides.
            self.doubtful.extend(tokens(&buffer));
        }
        self.copies[at].buffer = buffer;
        self.replace(at, bytes);
    }

    /// Other bytes under the name. Tokens that stood there and that nobody had looked at are lost by the writer's own act.
    fn replace(&mut self, at: usize, bytes: Vec<u8>) {
        let mtime = self.noise();
        let old = self.copies[at].disk.bytes().unwrap_or_default().to_owned();
        self.overwritten(&old, &bytes);
        self.copies[at].is_grace = false;
        let inode = self.copies[at].disk.make(bytes, mtime);
        let unlinked = self.copies[at].disk.put(inode);
        self.copies[at].disk.unlinked.extend(unlinked);
        self.hint(at);
    }

    fn write_inode(&mut self, at: usize, inode: usize, bytes: Vec<u8>) {
        let mtime = self.noise();
        let old = self.copies[at].disk.inodes[inode].bytes.clone();
        self.overwritten(&old, &bytes);
        if self.copies[at].disk.unlinked.contains(&inode) {
            // Another program took the file's name away: nobody will ever see this.
            self.overwritten(&bytes, &[]);
        }
        // Emptied or missing from now on.
        self.copies[at].is_grace = false;
        self.copies[at].disk.write(inode, bytes, mtime);
        if self.copies[at].disk.path == Some(inode) {
            self.hint(at);
        } else {
            self.hint_kept(at, inode);
        }
    }

    /// Whoever overwrites what nobody has looked at yet loses it by their own act.
    fn overwritten(&mut self, old: &[u8], new: &[u8]) {
        let kept: BTreeSet<u64> = tokens(&decode(new).unwrap().0).collect();
        let old = decode(old).unwrap().0;
        let gone = tokens(&old).filter(|token| !kept.contains(token) && !self.accepted.contains(token));
        self.deleted.extend(gone);
    }

    fn remove_file(&mut self, at: usize) {
        if self.copies[at].record.agreed().is_none() {
            // Before the first binding nothing is known that an old buffer could be told from.
            return;
        }
        let Some(scanned) = self.copies[at].disk.scan() else { return };
        self.overwritten(&scanned.bytes, &[]);
        // Whoever deletes a file means all that is in it, and all that was agreed on about it.
        self.deleted.extend(tokens(&scanned.text));
        let record = &self.copies[at].record;
        let agreed = record.base().map(KnownText::text).unwrap_or_default();
        let flying = record.flight.as_ref().and_then(|flight| flight.text.clone()).unwrap_or_default();
        self.deleted.extend(tokens(&agreed).chain(tokens(&flying)));
        self.copies[at].is_grace = false;
        let unlinked = self.copies[at].disk.path.take();
        self.copies[at].disk.unlinked.extend(unlinked);
        self.hint(at);
    }

    fn past(&self, at: usize, back: usize) -> Option<Vec<u8>> {
        let past = &self.copies[at].disk.past;
        past.len().checked_sub(1 + back % past.len().max(1)).map(|index| past[index].clone())
    }

    /// An older text comes back. `is_seen` says which tokens of the newest one whoever does that has seen.
    fn put_back(&mut self, at: usize, back: usize, is_seen: impl Fn(&Self, u64) -> bool) {
        let Some(bytes) = self.past(at, back) else { return };
        let (text, _) = decode(&bytes).unwrap();
        if !self.copies[at].looked_at.contains(&text) {
            return;
        }
        let kept: BTreeSet<u64> = tokens(&text).collect();
        if let Some(scanned) = self.copies[at].disk.scan() {
            let gone: Vec<u64> =
                tokens(&scanned.text).filter(|token| !kept.contains(token) && is_seen(self, *token)).collect();
            self.deleted.extend(gone);
        }
        self.copies[at].buffer = text;
        self.replace(at, bytes);
    }

    /// A pull, a reset: nothing is taken away by it but what nobody had looked at.
    fn jump(&mut self, at: usize, back: usize) {
        let copy = &self.copies[at];
        let shown: BTreeSet<String> = copy.record.shown.iter().map(|shown| shown.text.text()).collect();
        let Some(bytes) = self.past(at, back).filter(|bytes| shown.contains(&decode(bytes).unwrap().0)) else { return };
        self.replace(at, bytes);
        self.copies[at].is_head_moved = true;
        self.copies[at].has_jumped = true;
    }

    fn edit(&mut self, by: (usize, Hand), buffer: &mut String, edit: Edit) {
        let mut lines: Vec<String> = buffer.split_inclusive('\n').map(str::to_owned).collect();
        let place = if lines.is_empty() { 0 } else { edit.at % lines.len() };
        match edit.kind {
            EditKind::Nothing => {}
            EditKind::Add => {
                let token = self.token(by);
                let number = lines.iter().filter_map(|line| number_of(line)).max().unwrap_or_default() + 1;
                lines.insert(outside_fence(&lines, place), line(token, number, self.style));
            }
            EditKind::Renumber => {
                self.touched.extend(tokens(buffer));
                renumber(&mut lines);
            }
            _ if lines.is_empty() || lines[place].starts_with("```") => {}
            EditKind::Tick => {
                self.touched.extend(tokens(&lines[place]));
                lines[place] = lines[place].replacen("[ ]", "[x]", 1);
            }
            // Words on a blank line would join two paragraphs into one block.
            EditKind::Reword if lines[place].trim().is_empty() => {}
            EditKind::Reword => {
                self.touched.extend(tokens(&lines[place]));
                let token = self.token(by);
                lines[place] = format!("{} t{token}\n", lines[place].trim_end_matches('\n'));
            }
            EditKind::Delete => {
                let line = lines.remove(place);
                self.deleted.extend(tokens(&line));
            }
            // A line that leaves a block of several lines is a deletion and an addition, so whole blocks move.
            EditKind::Move if !lines[place].starts_with("- [") => {}
            EditKind::Move => {
                let line = lines.remove(place);
                let to = (edit.at / 7) % (lines.len() + 1);
                lines.insert(outside_fence(&lines, to), line);
            }
        }
        *buffer = lines.concat();
    }

    /// A new token.
    fn token(&mut self, by: (usize, Hand)) -> u64 {
        self.owners.push(by);
        self.first_tokens + u64::try_from(self.owners.len()).unwrap() - 1
    }

    fn owner(&self, token: u64) -> Option<(usize, Hand)> {
        let nth = token.checked_sub(self.first_tokens)?;
        self.owners.get(usize::try_from(nth).unwrap()).copied()
    }
}

/// `place`, or the next one that isn't within a fence: a fence is one block, whose lines are words of it to a merge.
fn outside_fence(lines: &[String], place: usize) -> usize {
    let is_fence = |line: &&String| line.starts_with("```");
    if lines.iter().take(place).filter(is_fence).count() % 2 == 0 {
        return place;
    }
    let rest = lines.iter().skip(place).position(|line| is_fence(&line));
    rest.map_or(lines.len(), |rest| place + rest + 1)
}

/// 7 of `- [ ] 1.7 words`.
fn number_of(line: &str) -> Option<usize> {
    line.split_once("] 1.")?.1.split_once(' ')?.0.parse().ok()
}

/// `- [ ] 1.7 words` gets the number of its place.
fn renumber(lines: &mut [String]) {
    let mut number = 0;
    for line in lines {
        if let Some((lead, rest)) = line.split_once("] 1.")
            && let Some((_, words)) = rest.split_once(' ')
        {
            number += 1;
            *line = format!("{lead}] 1.{number} {words}");
        }
    }
}
