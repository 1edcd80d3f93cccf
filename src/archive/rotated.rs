//! A file of lines that is put aside when it is full, so many of them at most.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::lines::Lines;
use super::slots::{self, Lock};
use crate::error::{Error, Kind, Result};

/// `NAME.EXT`, then `NAME.EXT.1` and so on, the newest first.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    most_bytes: u64,
    most_files: usize,
    lines: Lines,
    _lock: Lock,
}

impl Rotated {
    /// Opens the first that no other process writes.
    pub(super) fn open(path: &str, most_bytes: u64, most_files: usize) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::own(Kind::Unavailable, format!("audit.file {path} cannot be written")).because(error)
        };
        for number in 0..slots::MOST {
            let path = numbered(Path::new(path), number);
            let Some(lock) = slots::take(&with_end(&path, "lock")).map_err(failed)? else { continue };
            let lines = Lines::open(&path).map_err(failed)?;
            return Ok(Self { path, most_bytes, most_files, lines, _lock: lock });
        }
        Err(Error::own(Kind::Unavailable, format!("{} processes write to audit.file {path} already", slots::MOST)))
    }

    /// Adds whole lines, all of them or none.
    pub(super) fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.lines.length() > 0 && self.lines.length() + lines.len() as u64 > self.most_bytes {
            self.put_aside()?;
        }
        self.lines.add(lines)
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let aside = |number: usize| with_end(&self.path, &number.to_string());
        if self.most_files == 1 {
            fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.most_files - 1).rev() {
                ignore_absence(fs::rename(aside(number), aside(number + 1)))?;
            }
            ignore_absence(fs::rename(&self.path, aside(1)))?;
        }
        self.lines = Lines::open(&self.path)?;
        Ok(())
    }
}

fn ignore_absence(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// `audit.log`, `audit-1.log`, …
fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(end) => format!("{stem}-{number}.{}", end.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    path.with_file_name(name)
}
