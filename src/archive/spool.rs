//! Events that wait on the disk for the webhook: segments of whole lines, and a cursor behind what was taken.
//!
//! Promises: what was added is read in its order, at least once, whenever the process ended; a segment is removed when all of it
//! was taken; more than the bound is never added. Not synced to the disk: an end of the process loses nothing, one of the machine
//! what its kernel had not written yet.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::lines::Lines;
use super::slots::{self, Lock};
use crate::error::{Error, Kind, Result};
use crate::trail::{Event, Tab};

/// Of one segment; a sixteenth of all, if that is less.
const SEGMENT: u64 = 8 << 20;
const PARTS: u64 = 16;
/// Read at once.
const MOST_READ: u64 = 1 << 20;
const MOST_EVENTS: usize = 400;
const CURSOR: &str = "cursor";
const LOCK: &str = "lock";
const END: &str = "jsonl";

/// One process' part of it, of this one or of one that is gone.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    most: u64,
    state: Mutex<State>,
    /// Something was added.
    pub(super) added: Notify,
    _lock: Lock,
}

#[derive(Debug)]
struct State {
    /// The oldest first; there is one at least.
    segments: VecDeque<Segment>,
    /// Of the newest.
    lines: Lines,
    /// Of all segments before it.
    earlier: u64,
    cursor: Cursor,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// Of the newest it is not kept.
    length: u64,
    /// Whose it is. Of what was there before this process nobody knows.
    parts: Vec<(Arc<Tab>, u64)>,
}

/// Where what was not taken begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    segment: u64,
    offset: u64,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Whole lines, without their ends.
    pub(super) lines: Vec<Vec<u8>>,
    pub(super) next: Cursor,
    /// Nothing is behind it, and nothing in it.
    pub(super) is_end: bool,
}

impl Spool {
    /// The first that no other process has, with what its last one left.
    pub(super) fn own(path: &str, most: u64) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::own(Kind::Unavailable, format!("audit.spool {path} cannot be written")).because(error)
        };
        for number in 0..slots::MOST {
            let folder = Path::new(path).join(number.to_string());
            fs::create_dir_all(&folder).map_err(failed)?;
            if let Some(lock) = slots::take(&folder.join(LOCK)).map_err(failed)? {
                return Self::open(folder, most, lock).map_err(failed);
            }
        }
        Err(Error::own(Kind::Unavailable, format!("{} processes have a spool in {path} already", slots::MOST)))
    }

    /// One that a process left which is gone, with something in it.
    pub(super) fn left(path: &str) -> Option<Self> {
        for number in 0..slots::MOST {
            let folder = Path::new(path).join(number.to_string());
            if !folder.is_dir() {
                continue;
            }
            // One that cannot be read hides none of the others.
            let Ok(Some(lock)) = slots::take(&folder.join(LOCK)) else { continue };
            let opened = numbers(&folder).and_then(|all| match all.is_empty() {
                true => Ok(None),
                false => Self::open(folder.clone(), 0, lock).map(Some),
            });
            match opened {
                Ok(None) => {}
                Ok(Some(left)) => return Some(left),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "a spool that was left cannot be read")
                }
            }
        }
        None
    }

    fn open(folder: PathBuf, most: u64, lock: Lock) -> io::Result<Self> {
        let (cursor, all) = (read_cursor(&folder.join(CURSOR)), numbers(&folder)?);
        // One that names what is not there says nothing of what is.
        let cursor = if all.is_empty() || all.contains(&cursor.segment) { cursor } else { Cursor::default() };
        let mut segments = VecDeque::new();
        for number in all {
            let path = name(&folder, number);
            if number < cursor.segment {
                fs::remove_file(&path)?;
                continue;
            }
            // Only the newest can be torn.
            segments.push_back(Segment { number, length: fs::metadata(&path)?.len(), parts: Vec::new() });
        }
        if segments.is_empty() {
            segments.push_back(Segment { number: cursor.segment, length: 0, parts: Vec::new() });
        }
        let (first, newest) =
            (segments.front().map_or(0, |segment| segment.number), segments.back().map_or(0, |segment| segment.number));
        let lines = Lines::open(&name(&folder, newest))?;
        let earlier = segments.iter().filter(|segment| segment.number < newest).map(|segment| segment.length).sum();
        // A cursor behind the end of what is there, or of another segment, would lose what comes.
        let length = if first == newest { lines.length() } else { segments.front().map_or(0, |s| s.length) };
        let is_known = cursor.segment == first && cursor.offset <= length;
        let cursor = if is_known { cursor } else { Cursor { segment: first, offset: 0 } };
        let state = Mutex::new(State { segments, lines, earlier, cursor });
        Ok(Self { folder, most, state, added: Notify::new(), _lock: lock })
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        let state = self.state.lock();
        state.earlier + state.lines.length()
    }

    /// Whether more than half of it is taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.bytes() > self.most / 2
    }

    /// Whether there is room for so many bytes more.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.bytes() + bytes <= self.most
    }

    /// Adds events, all of them or none; `lines` is what they say.
    pub(super) fn add(&self, events: &[Event], lines: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.lines.length() >= SEGMENT.min(self.most / PARTS) {
            self.next_segment(&mut state)?;
        }
        state.lines.add(lines)?;
        if let Some(newest) = state.segments.back_mut() {
            for event in events {
                newest.note(&event.tab, event.line.len() as u64);
            }
        }
        drop(state);
        self.added.notify_one();
        Ok(())
    }

    fn next_segment(&self, state: &mut State) -> io::Result<()> {
        let length = state.lines.length();
        let number = state.segments.back().map_or(0, |segment| segment.number) + 1;
        state.lines = Lines::open(&name(&self.folder, number))?;
        if let Some(full) = state.segments.back_mut() {
            full.length = length;
        }
        state.earlier += length;
        state.segments.push_back(Segment { number, length: 0, parts: Vec::new() });
        Ok(())
    }

    /// What comes next, as much as is sent at once; nothing when all was taken. A line that cannot be one is left out.
    pub(super) fn read(&self) -> io::Result<Batch> {
        loop {
            let (cursor, end, is_newest) = {
                let state = self.state.lock();
                let is_newest = state.segments.len() <= 1;
                let length = state.segments.front().map_or(0, |segment| segment.length);
                (state.cursor, if is_newest { state.lines.length() } else { length }, is_newest)
            };
            if cursor.offset >= end {
                if is_newest {
                    return Ok(Batch { next: cursor, is_end: true, ..Batch::default() });
                }
                // It has advanced; what cannot be written is said where a batch was taken.
                let _ = self.taken(Cursor { segment: cursor.segment, offset: end });
                continue;
            }
            let mut file = File::open(name(&self.folder, cursor.segment))?;
            file.seek(SeekFrom::Start(cursor.offset))?;
            let mut bytes = Vec::new();
            file.take(MOST_READ.min(end - cursor.offset)).read_to_end(&mut bytes)?;
            let (lines, length) = split(&bytes);
            // What has no end within so much is no line: a hole, after an end of the machine. Lines go on behind it.
            let length = if length == 0 { bytes.len().max(1) as u64 } else { length };
            let next = Cursor { segment: cursor.segment, offset: cursor.offset + length };
            return Ok(Batch { lines, next, is_end: false });
        }
    }

    /// All before this was taken. An error: that is known to this process alone, and after its end some of it is sent again.
    pub(super) fn taken(&self, next: Cursor) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut next = next;
        let first = state.segments.front().map_or(0, |segment| segment.length);
        if state.segments.len() > 1 && next.offset >= first {
            let number = state.segments.get(1).map_or(0, |segment| segment.number);
            next = Cursor { segment: number, offset: 0 };
        }
        // What was taken makes room first: a disk that is full cannot take the cursor.
        state.cursor = next;
        while let Some(gone) = state.segments.pop_front_if(|segment| segment.number < next.segment) {
            state.earlier = state.earlier.saturating_sub(gone.length);
            for (tab, bytes) in &gone.parts {
                tab.sent(*bytes);
            }
            // Left behind, it is removed when the spool is opened again.
            let _ = fs::remove_file(name(&self.folder, gone.number));
        }
        write_cursor(&self.folder, next)
    }

    /// Removes what is there, when all of it was taken and its process is gone.
    pub(super) fn remove(self) -> io::Result<()> {
        for number in numbers(&self.folder)? {
            fs::remove_file(name(&self.folder, number))?;
        }
        match fs::remove_file(self.folder.join(CURSOR)) {
            // Nothing of it was ever sent.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

impl Segment {
    fn note(&mut self, tab: &Arc<Tab>, bytes: u64) {
        tab.spooled(bytes);
        match self.parts.iter_mut().find(|(known, _)| Arc::ptr_eq(known, tab)) {
            Some((_, all)) => *all += bytes,
            None => self.parts.push((Arc::clone(tab), bytes)),
        }
    }
}

/// Whole lines, so many as are sent at once, and the bytes that they and what was left out take.
fn split(bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
    let (mut lines, mut length) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n").filter(|_| lines.len() < MOST_EVENTS) else { break };
        length += line.len() as u64;
        if serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok() {
            lines.push(text.to_vec());
        }
    }
    (lines, length)
}

fn name(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.{END}"))
}

fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == END) {
            numbers.extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok()));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// One that is not there or cannot be read stands at the beginning: what was sent is sent again.
fn read_cursor(path: &Path) -> Cursor {
    let text = fs::read_to_string(path).unwrap_or_default();
    let read = text
        .trim_end()
        .split_once(' ')
        .and_then(|(segment, offset)| Some(Cursor { segment: segment.parse().ok()?, offset: offset.parse().ok()? }));
    read.unwrap_or_default()
}

fn write_cursor(folder: &Path, cursor: Cursor) -> io::Result<()> {
    let new = folder.join("cursor.new");
    fs::write(&new, format!("{} {}\n", cursor.segment, cursor.offset))?;
    fs::rename(new, folder.join(CURSOR))
}

#[cfg(test)]
mod tests;
