//! The CA that Portico makes for itself where nobody brings certificates, and what it signs.
//!
//! Promises: one CA for each folder, whoever else begins at the same time; its key is in a file that nobody else may read; what it
//! signs is made anew before it ends and when its names change, and kept otherwise.

use std::collections::HashMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::runtime::clock::Clock;
use crate::tls::certificates::{self, Leaf, Pair, Usage};

/// What clients trust.
const PUBLIC: &str = "ca.crt";
/// Certificate and key in one file, so that there is never one without the other.
const WHOLE: &str = "ca.pem";
const COMMON_NAME: &str = "portico-gateway";
/// Leaves live a year.
/// Of a thousand entries, and what refused changes made beside.
const MOST_MADE: usize = 4000;
const RENEWED_AFTER: Duration = Duration::from_secs(270 * 24 * 3600);

pub(super) struct Authority {
    ca: Pair,
    clock: Clock,
    /// By whose they are, and the names in them.
    made: Mutex<HashMap<(String, Vec<String>), Made>>,
}

struct Made {
    at: Timestamp,
    pair: Pair,
    is_asked: bool,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// The one of this folder, made where there is none.
    pub(super) fn open(folder: &Path, clock: &Clock) -> Result<Self> {
        let path = folder.join(WHOLE);
        let failed = |error: io::Error| {
            let message = format!("certificates.folder: {} cannot be read or made", path.display());
            Error::client(Kind::Invalid, message).because(error)
        };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(folder).map_err(failed)?;
                let made = certificates::new_ca(COMMON_NAME, clock.now())?;
                publish(folder, WHOLE, 0o600, &format!("{}{}", made.certificate, made.key), clock).map_err(failed)?;
                // Somebody else may have been first.
                fs::read_to_string(&path).map_err(failed)?
            }
            read => read.map_err(failed)?,
        };
        let split = text.find("-----BEGIN PRIVATE KEY-----").map(|at| text.split_at(at));
        let ca = split.map(|(certificate, key)| Pair { certificate: certificate.to_owned(), key: key.to_owned() });
        let ca = ca.filter(|ca| certificates::is_usable_ca(ca, clock.now())).ok_or_else(|| {
            let message = format!(
                "certificates.folder: {} is no certificate of a CA that is still valid, with its key: move it away to have \
                 another one made, which clients must trust then",
                path.display()
            );
            Error::client(Kind::Invalid, message)
        })?;
        keep_private(&path);
        if fs::read_to_string(folder.join(PUBLIC)).ok().as_deref() != Some(&ca.certificate) {
            // Whole or not there, and there already where the folder is read only.
            let _ = fs::remove_file(folder.join(PUBLIC));
            if let Err(error) = publish(folder, PUBLIC, 0o644, &ca.certificate, clock) {
                tracing::warn!(folder = %folder.display(), %error, "ca.crt cannot be written beside ca.pem");
            }
        }
        Ok(Self { ca, clock: clock.clone(), made: Mutex::default() })
    }

    /// PEM of it.
    pub(super) fn certificate(&self) -> &str {
        &self.ca.certificate
    }

    /// What is asked for from here on is what [`Self::keep_asked`] keeps.
    pub(super) fn begin(&self) {
        self.made.lock().values_mut().for_each(|made| made.is_asked = false);
    }

    /// A serving certificate for these names, the same as before unless it is old.
    pub(super) fn leaf(&self, of: &str, names: &[String]) -> Result<Pair> {
        let mut all = self.made.lock();
        let now = self.clock.now();
        let key = (of.to_owned(), names.to_vec());
        if let Some(known) = all.get_mut(&key)
            && now.duration_since(known.at).unsigned_abs() < RENEWED_AFTER
        {
            known.is_asked = true;
            return Ok(known.pair.clone());
        }
        let leaf = Leaf {
            common_name: COMMON_NAME.to_owned(),
            organization: None,
            names: names.to_vec(),
            usage: Usage::Server,
            renew_days: 30,
        };
        let pair = certificates::new_leaf(&self.ca, &leaf, now)?;
        // What a change makes that is refused later stays beside what is in force until one is not refused.
        if all.len() >= MOST_MADE {
            all.retain(|_, made| made.is_asked);
        }
        all.insert(key, Made { at: now, pair: pair.clone(), is_asked: true });
        Ok(pair)
    }

    /// All that was asked for is in force: the others are nobody's.
    pub(super) fn keep_asked(&self) {
        self.made.lock().retain(|_, made| made.is_asked);
    }
}

/// Puts a file there, unless there is one.
fn publish(folder: &Path, name: &str, mode: u32, text: &str, clock: &Clock) -> io::Result<()> {
    // Not by the process: in two containers it has one number.
    let new = folder.join(format!(".{name}.{}", HEXLOWER.encode(&clock.random_bytes(8))));
    let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&new, folder.join(name)));
    fs::remove_file(&new)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

fn keep_private(path: &Path) {
    let is_open = fs::metadata(path).is_ok_and(|known| known.permissions().mode() & 0o077 != 0);
    if is_open && let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o600)) {
        tracing::warn!(path = %path.display(), %error, "others may read the key of the CA");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_begin_at_once_have_one_ca() {
        let folder = tempfile::tempdir().expect("folder");
        let open = || Authority::open(folder.path(), &Clock::system()).expect("opened").ca.certificate;
        let all: Vec<String> = std::thread::scope(|scope| {
            let begun: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
            begun.into_iter().map(|one| one.join().expect("joined")).collect()
        });
        assert!(all.iter().all(|one| *one == all[0]));
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).expect("listed").map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        assert_eq!(names, ["ca.crt", "ca.pem"], "nothing is left beside");
    }

    #[test]
    fn a_change_that_is_refused_makes_nothing_anew_of_what_is_in_force() {
        let folder = tempfile::tempdir().expect("folder");
        let authority = Authority::open(folder.path(), &Clock::system()).expect("opened");
        let leaf = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            authority.leaf("a", &names).expect("a leaf").certificate
        };
        authority.begin();
        let first = leaf(&["a.example.com"]);
        authority.keep_asked();
        authority.begin();
        assert_ne!(leaf(&["a.example.com", "b.example.com"]), first);
        authority.begin();
        assert_eq!(leaf(&["a.example.com"]), first);
        authority.keep_asked();
        assert_eq!(authority.made.lock().len(), 1);
    }
}
