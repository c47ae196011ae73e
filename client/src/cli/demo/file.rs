//! One `tasks.md` in one checkout, as an editor there reads and writes it.
//!
//! A checkout may have line ends of its own; here is where they are minded, so that the script can speak of one text.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use zyflow_spec::{Encoding, decode, encode};

/// A program that writes in pieces writes so many.
const PIECES: usize = 4;

/// One `tasks.md` in one checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpecFile {
    path: PathBuf,
    encoding: Encoding,
}

impl SpecFile {
    /// A file with LF line ends.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, encoding: Encoding::default() }
    }

    /// The same file with CR LF line ends: rewritten now, and kept so from now on.
    pub(super) fn to_crlf(&self) -> anyhow::Result<Self> {
        let crlf = Self { path: self.path.clone(), encoding: Encoding { crlf: true, ..self.encoding } };
        crlf.replace(&self.text()?)?;
        Ok(crlf)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_crlf(&self) -> bool {
        self.encoding.crlf
    }

    /// What it holds; nothing where it isn't there (yet).
    pub(super) fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("reading {}", self.path.display())),
        }
    }

    /// Its text with LF line ends.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let (text, _) = decode(&self.bytes()?).with_context(|| format!("reading {}", self.path.display()))?;
        Ok(text)
    }

    /// The bytes that this checkout writes for a text.
    pub(super) fn rendered(&self, text: &str) -> Vec<u8> {
        encode(text, self.encoding)
    }

    /// Saves as most editors do: a new file beside it, then a rename over it.
    pub(super) fn replace(&self, text: &str) -> anyhow::Result<()> {
        let beside = self.path.with_extension("md.editor-tmp");
        std::fs::write(&beside, self.rendered(text))
            .and_then(|()| std::fs::rename(&beside, &self.path))
            .with_context(|| format!("saving {}", self.path.display()))
    }

    /// Saves as tools do: the file itself is emptied and written.
    pub(super) fn overwrite(&self, text: &str) -> anyhow::Result<()> {
        std::fs::write(&self.path, self.rendered(text)).with_context(|| format!("writing {}", self.path.display()))
    }

    /// Saves as a slow tool does: the file is emptied, and written in pieces with a pause after each.
    pub(super) fn overwrite_slowly(&self, text: &str, pause: Duration) -> anyhow::Result<()> {
        let bytes = self.rendered(text);
        let write = || {
            let mut file = std::fs::File::create(&self.path)?;
            for piece in bytes.chunks(bytes.len().div_ceil(PIECES).max(1)) {
                file.write_all(piece)?;
                std::thread::park_timeout(pause);
            }
            Ok::<_, std::io::Error>(())
        };
        write().with_context(|| format!("writing {}", self.path.display()))
    }

    /// Appends a line as `>>` does.
    pub(super) fn append(&self, line: &str) -> anyhow::Result<()> {
        let open = std::fs::OpenOptions::new().append(true).open(&self.path);
        let line = self.rendered(&format!("{line}\n"));
        open.and_then(|mut file| file.write_all(&line)).with_context(|| format!("appending to {}", self.path.display()))
    }
}

/// The same path in every checkout, with LF line ends.
pub(super) fn everywhere(checkouts: &[PathBuf], path: &str) -> Vec<SpecFile> {
    checkouts.iter().map(|checkout| SpecFile::new(checkout.join(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_save_keeps_the_line_ends_of_its_checkout() {
        let folder = tempfile::tempdir().unwrap();
        let lf = SpecFile::new(folder.path().join("tasks.md"));
        lf.overwrite("- [ ] a\n").unwrap();
        let crlf = lf.to_crlf().unwrap();
        assert_eq!(crlf.bytes().unwrap(), b"- [ ] a\r\n");
        crlf.append("- [ ] b").unwrap();
        assert_eq!((crlf.bytes().unwrap(), crlf.text().unwrap()), (b"- [ ] a\r\n- [ ] b\r\n".to_vec(), lf_text()));
        crlf.overwrite_slowly(&lf_text(), Duration::from_micros(1)).unwrap();
        assert_eq!(crlf.bytes().unwrap(), crlf.rendered(&lf_text()));
        crlf.overwrite("").unwrap();
        assert_eq!(crlf.text().unwrap(), "");
        assert_eq!(SpecFile::new(folder.path().join("absent")).text().unwrap(), "");
    }

    fn lf_text() -> String {
        "- [ ] a\n- [ ] b\n".to_owned()
    }
}
