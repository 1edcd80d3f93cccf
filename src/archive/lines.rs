//! A file to which whole lines are added.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The last line begins within so many bytes: no event is longer by far.
const TAIL: u64 = 64 << 10;

/// Its group may read it, nobody else: what ships the file may run as another user.
const MODE: u32 = 0o640;

/// Nothing else writes to it.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    /// All of it is whole lines.
    length: u64,
}

impl Lines {
    /// Opens or makes it. A last line that is not whole is cut off: whoever wrote it was ended in the middle.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).mode(MODE).open(path)?;
        let known = file.metadata()?;
        if !known.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let length = known.len();
        let begin = length.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(begin))?;
        let mut tail = Vec::new();
        (&file).take(TAIL).read_to_end(&mut tail)?;
        let torn = tail.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
        let mut lines = Self { file, length };
        if torn > 0 {
            lines.cut(length - torn)?;
        }
        Ok(lines)
    }

    /// Bytes of it.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds whole lines, all of them or none.
    pub(super) fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        match self.file.write_all(lines) {
            Ok(()) => {
                self.length += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part may be there. Where it cannot be cut off either, whoever reads finds a line that is none.
                let _ = self.cut(self.length);
                Err(error)
            }
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = length;
        Ok(())
    }
}
