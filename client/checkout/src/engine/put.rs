//! Doing what a plan says to a file: writing over it, making it, removing it, forgetting it.

use tokio::time::Instant;
use zyflow_machine::id::RecordId;
use zyflow_spec::encode;

use super::run::Engine;
use crate::base::{Intent, Record};
use crate::cluster::Cluster;
use crate::config::WritePolicy;
use crate::path::FilePath;
use crate::plan::By;
use crate::scan::Scanned;
use crate::text::KnownText;
use crate::write::{Way, WriteError, Writer, Written};

impl<C: Cluster> Engine<C> {
    #[expect(clippy::needless_pass_by_value, reason = "a step of a plan is done once: it takes what the plan gave")]
    pub(super) fn write(
        &mut self,
        path: &FilePath,
        change: RecordId,
        seen: Option<KnownText>,
        text: KnownText,
        scanned: Option<Scanned>,
        now: Instant,
    ) {
        if let Err(reason) = self.may_write(path, scanned.as_ref()) {
            return self.retry(path, reason, now);
        }
        let Some(file) = self.files.get_mut(path) else { return };
        if let Some(seen) = seen {
            file.record.learn(change, seen, file.is_watched);
        }
        let before = file.record.base().cloned();
        let encoding = scanned.as_ref().map(|scanned| scanned.encoding).unwrap_or_default();
        let bytes = encode(&text.text(), encoding);
        file.record.intent = Some(Intent { change, text: text.clone() });
        if !self.save(path, now) {
            return;
        }
        if let Some(reason) = self.reason_to_keep_still() {
            return self.retry(path, reason, now);
        }
        let written = match &scanned {
            Some(scanned) => self.writer(|writer| writer.replace(path, scanned, &bytes)),
            None => self.writer(|writer| writer.create(path, &bytes)),
        };
        let Some(file) = self.files.get_mut(path) else { return };
        file.record.intent = None;
        let (kept, is_displaced) = match written {
            Ok(Written::Done { kept }) => (kept, false),
            Ok(Written::Displaced { kept }) => (Some(kept), true),
            Ok(Written::Changed) => return file.due_now(now),
            Err(error) => return self.retry(path, error.to_string(), now),
        };
        let digest = *blake3::hash(&bytes).as_bytes();
        (file.record.wrote, file.digest) = (Some(digest), Some(digest));
        file.record.show(change, text, By::Us);
        file.is_there = true;
        if let Some(name) = kept {
            let digest = scanned.as_ref().filter(|_| !is_displaced).map(|scanned| scanned.digest);
            self.keep_file(path, &name, before, digest, now);
        }
        self.binding.asked.remove(path.as_str());
        self.dirt.note(path);
        tracing::debug!(path = path.as_str(), is_displaced, "file was written");
        if self.save(path, now) {
            self.settled(path);
        }
        let stamp = self.stamp(path);
        if let Some(file) = self.files.get_mut(path) {
            file.seen = stamp;
            if is_displaced {
                file.due_now(now);
            }
        }
    }

    fn writer<T>(&self, act: impl FnOnce(&Writer<'_>) -> Result<T, WriteError>) -> Result<T, WriteError> {
        #[cfg(test)]
        let (before_swap, way) = (self.seams.before_swap.clone(), self.seams.way.unwrap_or(Way::Exchange));
        #[cfg(test)]
        let before_swap = |path: &FilePath| before_swap.iter().for_each(|seam| seam(path));
        #[cfg(not(test))]
        let (before_swap, way) = (|_: &FilePath| (), Way::Exchange);
        act(&Writer { root: &self.root, keep: &self.keep, way, before_swap: &before_swap })
    }

    /// Whether the policy lets us write over what was scanned.
    fn may_write(&mut self, path: &FilePath, scanned: Option<&Scanned>) -> Result<(), String> {
        match self.config.policy {
            WritePolicy::Off => return Err("the write policy is `off`".to_owned()),
            WritePolicy::Always => return Ok(()),
            WritePolicy::Clean => {}
        }
        let (Some(git), Some(scanned)) = (&self.git, scanned) else { return Ok(()) };
        if self.files.get(path).is_some_and(|file| file.record.wrote == Some(scanned.digest)) {
            return Ok(());
        }
        match self.blobs.is_clean(self.root.path(), &git.head(), path, &scanned.bytes) {
            Ok(Some(true) | None) => Ok(()),
            Ok(Some(false)) => Err("has changes that aren't committed, and the write policy is `clean`".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn remove(&mut self, path: &FilePath, scanned: &Scanned, now: Instant) {
        if let Err(reason) = self.may_write(path, Some(scanned)) {
            return self.retry(path, reason, now);
        }
        let written = self.writer(|writer| writer.remove(path, scanned));
        let Some(file) = self.files.get_mut(path) else { return };
        let before = file.record.base().cloned();
        match written {
            Ok(Written::Done { kept: Some(name) }) => self.keep_file(path, &name, before, Some(scanned.digest), now),
            Ok(Written::Displaced { kept }) => self.keep_file(path, &kept, before, None, now),
            Ok(Written::Done { kept: None }) => {}
            Ok(Written::Changed) => return file.due_now(now),
            Err(error) => return self.retry(path, error.to_string(), now),
        }
        tracing::info!(path = path.as_str(), "file was removed, as its change is deleted");
        self.dirt.note_removed(path);
        // At once: a file that somebody makes there from now on is a new one, even with the same text.
        self.forget(path, now);
        if let Some(file) = self.files.get_mut(path) {
            file.due_now(now);
        }
    }

    pub(super) fn forget(&mut self, path: &FilePath, now: Instant) {
        if let Err(error) = self.store.remove(path) {
            return self.retry(path, format!("what is agreed on could not be removed: {error}"), now);
        }
        if let Some(file) = self.files.get_mut(path) {
            file.record = Record::new(path.as_str());
            file.there_again();
        }
        self.settled(path);
    }
}
