//! What is kept of a login: one file, the user's own to read, and a lock beside it.
//!
//! Promises: a file is whole or not there; whoever holds the lock and dies lets it go.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cli::failure::{Failure, Outcome};

/// How often a lock that somebody holds is tried.
const AGAIN: Duration = Duration::from_millis(100);
/// Of a file that is read.
const LONGEST: u64 = 256 << 10;

/// The place of one login.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    name: String,
}

/// What is kept.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) id_token: String,
    pub(super) refresh_token: Option<String>,
    /// Of the id token, in seconds.
    pub(super) ends: i64,
}

impl Cache {
    /// Of the login that all of these make.
    pub(super) fn of(folder: Option<&Path>, login: &[&str]) -> Outcome<Self> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => users().ok_or_else(|| {
                Failure::new(
                    "there is no folder to keep the login in: HOME is not set",
                    "name one with --token-cache DIR",
                )
            })?,
        };
        let mut digest = Sha256::new();
        for part in login {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let name = HEXLOWER.encode(digest.finalize().get(..16).unwrap_or_default());
        let cache = Self { folder, name };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&cache.folder);
        made.map_err(|e| cache.failure("cannot be made", &e))?;
        Ok(cache)
    }

    /// Waits until nobody else is at it.
    pub(super) async fn lock(&self, patience: Duration) -> Outcome<File> {
        let path = self.folder.join(format!("{}.lock", self.name));
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = opened.map_err(|e| self.failure("cannot be locked", &e))?;
        let taken = async {
            while file.try_lock().is_err() {
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::time::timeout(patience, taken).await.map_err(|_| {
            Failure::timeout(
                "another portico login has not ended",
                "finish it in its terminal, or end it, and try again",
            )
        })?;
        Ok(file)
    }

    /// What is there; a file that cannot be read is none.
    pub(super) fn read(&self) -> Option<Kept> {
        let path = self.path();
        let is_short = std::fs::metadata(&path).ok()?.len() <= LONGEST;
        serde_json::from_slice(&is_short.then(|| std::fs::read(path).ok()).flatten()?).ok()
    }

    pub(super) fn write(&self, kept: &Kept) -> Outcome<()> {
        let beside = self.folder.join(format!("{}.{}", self.name, std::process::id()));
        let text = serde_json::to_vec(kept).map_err(|e| self.failure("cannot be written", &e.into()))?;
        // Never one that somebody else has put there.
        let _ = std::fs::remove_file(&beside);
        let written = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside).and_then(|mut file| {
            file.write_all(&text)?;
            std::fs::rename(&beside, self.path())
        });
        written.map_err(|e| self.failure("cannot be written", &e))
    }

    pub(super) fn forget(&self) -> Outcome<()> {
        match std::fs::remove_file(self.path()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.failure("cannot be removed", &e)),
            _ => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    fn failure(&self, what: &str, error: &std::io::Error) -> Failure {
        let folder = self.folder.display();
        Failure::new(
            format!("what is kept of the login in {folder} {what}: {error}"),
            "name another folder with --token-cache DIR",
        )
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("ends", &self.ends).finish_non_exhaustive()
    }
}

fn users() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?;
    Some(cache.join("portico/login"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_the_users_own_and_one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("new/folder");
        let cache = |login: &[&str]| Cache::of(Some(&place), login).expect("a cache");
        let (one, other) = (cache(&["a", "bc"]), cache(&["ab", "c"]));
        let kept = Kept { id_token: "t".to_owned(), refresh_token: None, ends: 1 };
        one.write(&kept).expect("written");
        assert_eq!((one.read(), other.read()), (Some(kept), None));
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&one.path()), mode(&place)), (0o600, 0o700));
        let held = one.lock(Duration::from_secs(1)).await.expect("free");
        assert!(one.lock(Duration::from_millis(150)).await.is_err());
        assert!(other.lock(Duration::from_millis(150)).await.is_ok());
        drop(held);
        assert!(one.lock(Duration::from_secs(1)).await.is_ok());
        std::fs::write(one.path(), "{torn").expect("written");
        assert_eq!(one.read(), None);
        one.forget().expect("forgotten");
        one.forget().expect("twice");
    }
}
