//! Scripted editors: each saves whole files from a buffer that may be stale, as tools and agents do all day.
//!
//! Every save brings one token of its own. Afterwards every token must be in all checkouts or in a recorded conflict; an
//! editor that saved a buffer without its neighbours' tokens must not have undone them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::script::{save, text};

/// Pauses between saves, in milliseconds: from quicker than the others' edits arrive to leisurely.
const PAUSE_MS: std::ops::Range<u64> = 20..250;

/// Of ten saves, this many come from the buffer of the save before, not from the file.
const STALE_IN_TEN: u64 = 3;

/// A small generator with a seed of its own, so that a run can be repeated (Steele, Lea and Flood 2014, `SplitMix64`).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

/// What one editor did.
#[derive(Default)]
pub(super) struct Written {
    pub(super) tokens: Vec<String>,
    pub(super) stale_saves: u32,
}

/// Edits `file` for `span`. Runs on a thread of its own: it is somebody else's editor.
pub(super) fn edit(file: &Path, name: &str, seed: u64, span: Duration) -> anyhow::Result<Written> {
    let mut random = Random::new(seed);
    let mut written = Written::default();
    let mut buffer = text(file)?;
    let end = Instant::now() + span;
    while Instant::now() < end {
        if random.below(10) < STALE_IN_TEN {
            written.stale_saves += 1;
        } else {
            buffer = text(file)?;
        }
        let token = format!("{name}-{:04}", written.tokens.len());
        buffer = with_token(&buffer, &token, &mut random);
        if random.below(2) == 0 {
            save(file, &buffer)?;
        } else {
            std::fs::write(file, &buffer)?;
        }
        written.tokens.push(token);
        std::thread::park_timeout(Duration::from_millis(PAUSE_MS.start + random.below(PAUSE_MS.end - PAUSE_MS.start)));
    }
    Ok(written)
}

/// The text with a new task that carries the token at a random place, or the token behind the text of an existing task.
fn with_token(buffer: &str, token: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = buffer.lines().map(str::to_owned).collect();
    let at = usize::try_from(random.below(u64::try_from(lines.len()).unwrap_or(u64::MAX) + 1)).unwrap_or(0);
    let is_task = lines.get(at).is_some_and(|line| line.trim_start().starts_with("- ["));
    match lines.get_mut(at) {
        Some(line) if is_task && random.below(4) == 0 => {
            line.push(' ');
            line.push_str(token);
        }
        Some(_) | None => lines.insert(at, format!("- [ ] written by {token}")),
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Runs an editor in each file at once and waits for all.
pub(super) async fn run(files: &[PathBuf], span: Duration) -> anyhow::Result<Vec<Written>> {
    let editors = files.iter().cloned().enumerate().map(|(number, file)| {
        tokio::task::spawn_blocking(move || {
            let seed = 0x5eed + u64::try_from(number)?;
            edit(&file, &format!("editor{}", number + 1), seed, span)
        })
    });
    let mut written = Vec::new();
    for editor in editors.collect::<Vec<_>>() {
        written.push(editor.await??);
    }
    Ok(written)
}
