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
        // Where it is not there, it was put aside before and the new one could not be opened: the others stay where they are.
        let is_there = fs::symlink_metadata(&self.path).is_ok();
        if is_there && self.most_files == 1 {
            ignore_absence(fs::remove_file(&self.path))?;
        } else if is_there {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_could_not_be_opened_anew_costs_none_of_the_others() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.log");
        let read = |end: &str| fs::read_to_string(folder.path().join(format!("audit.log{end}"))).unwrap_or_default();
        for most_files in [4, 1] {
            let mut files = Rotated::open(path.to_str().expect("path"), 10, most_files).expect("opened");
            files.add(b"{\"n\":1}\n").expect("added");
            for (end, text) in [(".2", "second\n"), (".1", "first\n")] {
                fs::write(folder.path().join(format!("audit.log{end}")), text).expect("written");
            }
            // As it is when it was put aside and nothing could be opened in its place.
            fs::remove_file(&path).expect("removed");
            files.add(b"{\"n\":2}\n").expect("added");
            assert_eq!(
                (read(""), read(".1"), read(".2")),
                ("{\"n\":2}\n".to_owned(), "first\n".into(), "second\n".into())
            );
            fs::remove_file(&path).expect("removed");
        }
    }
}
