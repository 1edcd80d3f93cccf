//! Places on a disk that several processes may share: each has one of its own, and whoever comes later finds those that are
//! nobody's any more.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// So many processes on one volume.
pub(super) const MOST: usize = 64;

/// Held as long as the place is.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "its end gives the lock back")] File);

/// Takes a place, if nobody has it.
pub(super) fn take(path: &Path) -> io::Result<Option<Lock>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
