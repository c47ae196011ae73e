//! Ten editors at once on one file, in all checkouts, each with a habit of its own.
//!
//! Two programs on one machine that save over each other before anybody could look have lost an edit by themselves. So the editors of
//! one checkout take turns, and the one with an old buffer is careful twice: it saves it only once what its neighbour saved last is known
//! elsewhere, and keeps its turn until its own save is. Otherwise its buffer would be a text that was on disk for milliseconds and that
//! nobody but itself has seen; saved again, it can't be told from a look at the file and a deletion of the neighbour's line. Against
//! other checkouts, and against what is written into the file between reading and saving it, nothing protects anybody.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::account::Ledger;
use super::file::SpecFile;
use super::habits::{self, Habit};
use super::random::Random;

/// Pauses between two edits of one editor, in milliseconds: sixteen edits a second from ten editors, all on one file.
const PAUSE_MS: std::ops::Range<u64> = 250..1000;

/// Of ten edits of the stale editor, this many begin with a look at the file; the others go on with its old buffer.
const FRESH_IN_TEN: u64 = 3;

/// Longest pause between two pieces of a file that is written in pieces, in milliseconds: together longer than the quiet that is waited for.
const PIECE_PAUSE_MS_MAX: u64 = 50;

/// How long the stale editor waits for an edit to be known elsewhere; then it looks at the file anew.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// Pause between two looks whether it is known.
const KNOWN_POLL: Duration = Duration::from_millis(5);

/// What the editors did, one line a save, for whoever has to find out why a token is lost.
pub(super) struct Journal {
    began: Instant,
    file: Mutex<File>,
}

impl Journal {
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { began: Instant::now(), file: Mutex::new(file) })
    }

    pub(super) fn note(&self, what: &str) -> anyhow::Result<()> {
        let line = format!("{:>9.3} s  {what}\n", self.began.elapsed().as_secs_f64());
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).context("writing the journal of the editors")
    }
}

/// The newest token saved in one checkout by each of its editors.
type Newest = Vec<(Habit, String)>;

/// What one editor has before it.
struct Desk {
    habit: Habit,
    checkout: usize,
    file: SpecFile,
    /// The same file in the other checkouts.
    elsewhere: Vec<SpecFile>,
    /// Held while a turn lasts.
    turn: Arc<Mutex<Newest>>,
    journal: Arc<Journal>,
    random: Random,
    buffer: String,
    /// The buffer may be a text that nobody else has seen.
    must_look: bool,
    written: Written,
}

/// What one editor did.
#[derive(Default)]
pub(super) struct Written {
    pub(super) ledger: Ledger,
    pub(super) stale_saves: u32,
}

/// Lets an editor of every habit work for `span`, and waits for all.
pub(super) async fn run(files: &[SpecFile], span: Duration, journal: &Arc<Journal>) -> anyhow::Result<Vec<Written>> {
    let turns: Vec<Arc<Mutex<Newest>>> = files.iter().map(|_| Arc::default()).collect();
    let mut editors = Vec::new();
    for (number, habit) in Habit::ALL.into_iter().enumerate() {
        let checkout = number % files.len();
        let elsewhere = files.iter().enumerate().filter(|(other, _)| *other != checkout);
        let mut desk = Desk {
            habit,
            checkout: checkout + 1,
            file: files[checkout].clone(),
            elsewhere: elsewhere.map(|(_, file)| file.clone()).collect(),
            turn: Arc::clone(&turns[checkout]),
            journal: Arc::clone(journal),
            random: Random::new(0x5eed + u64::try_from(number)?),
            buffer: String::new(),
            must_look: true,
            written: Written::default(),
        };
        // On a thread of its own: it is somebody else's program.
        editors.push(tokio::task::spawn_blocking(move || desk.work(span).map(|()| desk.written)));
    }
    let mut written = Vec::new();
    for editor in editors {
        written.push(editor.await??);
    }
    Ok(written)
}

impl Desk {
    fn work(&mut self, span: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + span;
        self.buffer = self.file.text()?;
        while Instant::now() < end {
            self.edit()?;
            std::thread::park_timeout(pause(&mut self.random));
        }
        Ok(())
    }

    fn edit(&mut self) -> anyhow::Result<()> {
        let turn = Arc::clone(&self.turn);
        let goes_on = self.habit == Habit::Stale && !self.random.happens(FRESH_IN_TEN) && !self.must_look;
        let (mut newest, is_stale) = self.turn(&turn, goes_on)?;
        if is_stale {
            self.written.stale_saves += 1;
        } else {
            self.buffer = self.file.text()?;
        }
        let token = self.next_token();
        let random = &mut self.random;
        let mut gone = Vec::new();
        match self.habit {
            Habit::Append => self.file.append(&habits::line(&token))?,
            Habit::Rename | Habit::Stale | Habit::Twice => {
                self.buffer = habits::with_line(&self.buffer, &token, random);
                self.file.replace(&self.buffer)?;
            }
            Habit::Pieces => {
                self.buffer = habits::with_line(&self.buffer, &token, random);
                let pause = Duration::from_millis(random.below(PIECE_PAUSE_MS_MAX));
                self.file.overwrite_slowly(&self.buffer, pause)?;
            }
            Habit::Move => {
                self.buffer = habits::moved(&self.buffer, &token, random);
                self.file.overwrite(&self.buffer)?;
            }
            Habit::Reword => {
                self.buffer = habits::reworded(&self.buffer, &token, random);
                self.file.replace(&self.buffer)?;
            }
            Habit::Sed => sed(&self.file, &self.buffer, &token, random)?,
            Habit::Delete => {
                (self.buffer, gone) = habits::deleted(&self.buffer, &token, random);
                self.file.overwrite(&self.buffer)?;
            }
        }
        let how = if is_stale { "from an old buffer" } else { "" };
        self.saved(&mut newest, token, &gone, how)?;
        if self.habit == Habit::Stale {
            self.must_look = !self.is_soon_elsewhere()?;
        }
        if self.habit == Habit::Twice {
            let token = self.next_token();
            self.buffer = habits::with_line(&self.buffer, &token, &mut self.random);
            self.file.overwrite(&self.buffer)?;
            self.saved(&mut newest, token, &[], "at once after the last")?;
        }
        Ok(())
    }

    /// Waits for the turn. With an old buffer also until what the neighbours saved last is in another checkout; whether that is so.
    fn turn<'a>(
        &self,
        turn: &'a Mutex<Newest>,
        goes_on: bool,
    ) -> anyhow::Result<(std::sync::MutexGuard<'a, Newest>, bool)> {
        let end = Instant::now() + KNOWN_WITHIN;
        loop {
            let newest = turn.lock().unwrap_or_else(PoisonError::into_inner);
            if !goes_on || Instant::now() > end {
                return Ok((newest, false));
            }
            let others = newest.iter().filter(|(habit, _)| *habit != self.habit);
            let mut are_known = true;
            for (_, token) in others {
                are_known &= self.buffer.contains(token) || self.is_elsewhere(token)?;
            }
            if are_known {
                return Ok((newest, true));
            }
            drop(newest);
            std::thread::park_timeout(KNOWN_POLL);
        }
    }

    /// Waits until what this editor saved last is in another checkout; whether that is so.
    fn is_soon_elsewhere(&self) -> anyhow::Result<bool> {
        let last = habits::token(self.habit.name(), self.written.ledger.written.len() - 1);
        let end = Instant::now() + KNOWN_WITHIN;
        while Instant::now() < end {
            if self.is_elsewhere(&last)? {
                return Ok(true);
            }
            std::thread::park_timeout(KNOWN_POLL);
        }
        Ok(false)
    }

    fn is_elsewhere(&self, token: &str) -> anyhow::Result<bool> {
        self.elsewhere.iter().try_fold(false, |found, file| Ok(found || file.text()?.contains(token)))
    }

    fn next_token(&self) -> String {
        habits::token(self.habit.name(), self.written.ledger.written.len())
    }

    fn saved(&mut self, newest: &mut Newest, token: String, gone: &[String], how: &str) -> anyhow::Result<()> {
        let deleted = if gone.is_empty() { String::new() } else { format!("deleted {}", gone.join(" ")) };
        self.journal.note(&format!("checkout {}  {token}  {how}  {deleted}", self.checkout))?;
        newest.retain(|(habit, _)| *habit != self.habit);
        newest.push((self.habit, token.clone()));
        self.written.ledger.written.insert(token);
        self.written.ledger.deleted.extend(gone.iter().cloned());
        Ok(())
    }
}

/// The pause before an editor's next edit.
pub(super) fn pause(random: &mut Random) -> Duration {
    Duration::from_millis(PAUSE_MS.start + random.below(PAUSE_MS.end - PAUSE_MS.start))
}

/// Adds a line behind a random one by the real `sed -i`, which reads the file anew. In the upper half, so that the line is still
/// there if some are deleted meanwhile.
fn sed(file: &SpecFile, seen: &str, token: &str, random: &mut Random) -> anyhow::Result<()> {
    let at = 1 + random.index(seen.lines().count() / 2);
    let end = if file.is_crlf() { "\\r" } else { "" };
    let script = format!("{at}a\\{}{end}", habits::line(token));
    let output = Command::new("sed").arg("-i").arg(&script).arg(file.path()).output().context("running sed")?;
    ensure!(output.status.success(), "sed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Where the journal of a cluster's editors is.
pub(super) fn journal_path(dir: &Path) -> PathBuf {
    dir.join("editors.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sed_adds_one_line_with_the_line_ends_of_the_checkout() {
        let folder = tempfile::tempdir().unwrap();
        let lf = SpecFile::new(folder.path().join("tasks.md"));
        lf.overwrite("# List\n- [ ] a\n- [ ] b\n").unwrap();
        sed(&lf, &lf.text().unwrap(), "sed-0001", &mut Random::new(1)).unwrap();
        assert_eq!(lf.text().unwrap().matches("- [ ] written by sed-0001\n").count(), 1);
        let crlf = lf.to_crlf().unwrap();
        sed(&crlf, &crlf.text().unwrap(), "sed-0002", &mut Random::new(2)).unwrap();
        let text = crlf.text().unwrap();
        assert_eq!((text.lines().count(), crlf.bytes().unwrap()), (5, crlf.rendered(&text)));
    }

    /// Without any cluster: what is in the file afterwards is what the editors of one checkout say that they wrote.
    #[tokio::test]
    async fn editors_of_one_checkout_lose_nothing_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let file = SpecFile::new(folder.path().join("tasks.md"));
        file.overwrite("# List\n\n- [ ] a\n- [ ] b\n- [ ] c\n- [ ] d\n").unwrap();
        let journal = Arc::new(Journal::new(&journal_path(folder.path())).unwrap());
        let span = Duration::from_millis(PAUSE_MS.end);
        let written = run(std::slice::from_ref(&file), span, &journal).await.unwrap();
        let mut ledger = Ledger::default();
        for mut editor in written {
            ledger.written.append(&mut editor.ledger.written);
            ledger.deleted.append(&mut editor.ledger.deleted);
        }
        let account = ledger.account(&file.text().unwrap(), &[]);
        assert!(ledger.written.len() > Habit::ALL.len(), "{ledger:?}");
        assert!(account.lost.is_empty() && account.twice.is_empty() && account.back.is_empty(), "{account:?}");
    }
}
