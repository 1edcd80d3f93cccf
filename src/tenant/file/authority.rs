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
const RENEWED_AFTER: Duration = Duration::from_secs(270 * 24 * 3600);

pub(super) struct Authority {
    ca: Pair,
    clock: Clock,
    made: Mutex<HashMap<String, Made>>,
}

struct Made {
    names: Vec<String>,
    at: Timestamp,
    pair: Pair,
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
                publish(folder, WHOLE, 0o600, &format!("{}{}", made.certificate, made.key)).map_err(failed)?;
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
            if let Err(error) = publish(folder, PUBLIC, 0o644, &ca.certificate) {
                tracing::warn!(folder = %folder.display(), %error, "ca.crt cannot be written beside ca.pem");
            }
        }
        Ok(Self { ca, clock: clock.clone(), made: Mutex::default() })
    }

    /// PEM of it.
    pub(super) fn certificate(&self) -> &str {
        &self.ca.certificate
    }

    /// A serving certificate for these names, the same as before unless it is old.
    pub(super) fn leaf(&self, of: &str, names: &[String]) -> Result<Pair> {
        let mut made = self.made.lock();
        let now = self.clock.now();
        if let Some(known) = made.get(of)
            && known.names == names
            && now.duration_since(known.at).unsigned_abs() < RENEWED_AFTER
        {
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
        made.insert(of.to_owned(), Made { names: names.to_vec(), at: now, pair: pair.clone() });
        Ok(pair)
    }

    /// Forgets what was made for others.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.made.lock().retain(|of, _| keep(of));
    }
}

/// Puts a file there, unless there is one.
fn publish(folder: &Path, name: &str, mode: u32, text: &str) -> io::Result<()> {
    let new = folder.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&new);
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
