//! Fills the registry from the configuration file, where there is no host cluster: what `virtualClusters` lists, and the files
//! that it names.
//!
//! Promises: a change counts as a whole, when all of it is fit, or not at all, which is said until it is mended; an entry of which nothing
//! changed keeps its generation and connections, one whose credentials changed its streams, and one that leads to another
//! address under another CA nothing: it is another cluster. Files are read whole, bounded, and again every few seconds: of those that are written
//! meanwhile the next look sees the rest. What is beside the list counts with the next start.

mod authority;
mod build;
mod material;
mod shown;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::authority::Authority;
use self::build::{Built, Identities};
use self::material::Folder;
use self::shown::Shown;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::roster::{self, Listed};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::runtime::telemetry::{Families, Source};
use crate::tenant::{Registry, Tenant};
use crate::tls::SharedCertificate;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Of a configuration with a thousand entries.
const LONGEST_CONFIG: usize = 16 << 20;
/// How long whoever holds a tenant may still begin requests on its connections when others have taken their place.
const GRACE: Duration = Duration::from_secs(60);

/// What is filled, and from where.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The configuration file.
    pub file: PathBuf,
    /// The tenants.
    pub registry: Arc<Registry>,
    /// The shared listener's certificate.
    pub shared: SharedCertificate,
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
}

/// The tenants of a file.
#[derive(Debug)]
pub struct FileTenants {
    parts: Parts,
    folder: Folder,
    /// What the process runs by.
    started: Config,
    /// None where the admin brings the certificate.
    authority: Option<Authority>,
    /// One look at a time.
    seen: Mutex<Seen>,
    shown: Shown,
}

/// What was seen last.
#[derive(Debug, Default)]
struct Seen {
    text: String,
    /// Something beside the list waits for the next start.
    waits: bool,
    list: Vec<Listed>,
    identities: Identities,
    /// Of all that is in force.
    fingerprint: String,
}

impl FileTenants {
    /// Serves what the file lists, which `started` was read from, or says why it cannot be. Blocks on the disk.
    pub fn load(parts: Parts, started: Config) -> Result<Arc<Self>> {
        let folder = Folder::new(parts.file.parent().unwrap_or(Path::new("")));
        let own = &started.certificates;
        let authority = if own.certificate_file.is_empty() {
            Some(Authority::open(&folder.path(&own.folder), &parts.clock)?)
        } else {
            None
        };
        let (seen, shown) = Default::default();
        let tenants = Self { parts, folder, started, authority, seen, shown };
        tenants.look()?;
        Ok(Arc::new(tenants))
    }

    /// Looks again and again until the drain begins; at once when it is woken.
    pub async fn follow(self: Arc<Self>, wake: Arc<Notify>, mut drain: Drain) -> Result<()> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = wake.notified() => {}
                _ = drain.signaled() => return Ok(()),
            }
            let all = Arc::clone(&self);
            // A disk that does not answer holds up no end.
            let looked = tokio::select! {
                looked = tokio::task::spawn_blocking(move || all.look()) => looked,
                _ = drain.signaled() => return Ok(()),
            };
            let looked =
                looked.map_err(|e| Error::own(Kind::Internal, "the file could not be looked at").because(e))?;
            self.tell(looked);
        }
    }

    /// For `/readyz?verbose`.
    pub fn notes(&self) -> Vec<String> {
        self.shown.notes()
    }

    fn tell(&self, looked: Result<bool>) {
        let file = self.parts.file.display();
        match looked {
            Ok(true) => {
                self.shown.applied();
                tracing::info!(%file, "the changed list of virtual clusters is in force");
            }
            Ok(false) => self.shown.as_before(),
            Err(error) => {
                if self.shown.refused(&own_words(&error)) {
                    tracing::warn!(%file, %error, "a change is refused as a whole: what was before stays in force");
                }
            }
        }
    }

    /// Whether anything changed by it.
    fn look(&self) -> Result<bool> {
        let mut seen = self.seen.lock();
        let text = self.folder.text(&self.parts.file, LONGEST_CONFIG)?;
        let (list, waits) = match text == seen.text {
            true => (None, seen.waits),
            false => self.read(&text).map(|(list, waits)| (Some(list), waits))?,
        };
        if self.shown.waits_for_restart(waits) {
            tracing::warn!("settings beside virtualClusters have changed: they count with the next start");
        }
        let before = self.parts.registry.load();
        let world = build::World {
            folder: &self.folder,
            config: &self.started,
            names: &roster::shared_names(&self.started),
            authority: self.authority.as_ref(),
            clock: &self.parts.clock,
        };
        let known = (&*before, &seen.identities);
        let next = || self.parts.registry.next_generation();
        let built = build::all(&world, list.as_ref().unwrap_or(&seen.list), known, next)?;
        if let Some(list) = list {
            (seen.list, seen.text, seen.waits) = (list, text, waits);
        }
        if built.fingerprint == seen.fingerprint {
            return Ok(false);
        }
        seen.fingerprint.clone_from(&built.fingerprint);
        seen.identities.clone_from(&built.identities);
        self.serve(built);
        Ok(true)
    }

    /// What the process runs by, with the list of now; and whether anything else is not what it runs by.
    fn read(&self, text: &str) -> Result<(Vec<Listed>, bool)> {
        let config = Config::parse(text)?;
        let beside = Config { virtual_clusters: self.started.virtual_clusters.clone(), ..config.clone() };
        let waits = beside != self.started;
        let list = roster::read(&Config { virtual_clusters: config.virtual_clusters, ..self.started.clone() })?;
        Ok((list, waits))
    }

    fn serve(&self, built: Built) {
        let registry = &self.parts.registry;
        let before = registry.load();
        self.parts.shared.set(built.shared);
        registry.replace(&built.tenants);
        let now = registry.load();
        for old in before.tenants() {
            let successor = now.by_id(&old.id);
            if successor.is_none_or(|new| !Arc::ptr_eq(&new.backend.pool, &old.backend.pool)) {
                old.backend.pool.retire(GRACE);
            }
            if successor.is_none() {
                tracing::info!(tenant = %old.id, "tenant not listed any more");
            }
        }
        let is_new = |new: &&Arc<Tenant>| before.by_id(&new.id).is_none_or(|old| !Arc::ptr_eq(old, new));
        for tenant in built.tenants.iter().filter(is_new) {
            tracing::info!(tenant = %tenant.id, generation = tenant.generation, "tenant served");
        }
        self.shown.serves(built.tenants.len());
    }
}

/// Without what libraries add: a parser shows lines of the file, and whoever reaches the port of probes reads this.
fn own_words(error: &Error) -> String {
    let mut words = error.message().to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<Error>() {
            words.push_str(": ");
            words.push_str(own.message());
        }
        source = cause.source();
    }
    words
}

impl Source for FileTenants {
    fn collect(&self, families: &mut Families) {
        self.shown.collect(families);
    }
}

#[cfg(test)]
pub(crate) use self::shown::example;
