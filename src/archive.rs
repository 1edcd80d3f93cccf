//! The archive: where the events of the audit log are written (ADR 26).
//!
//! The way of an event: trail → writer (a thread of its own, so that no request waits for a disk) → a file that is rotated, and
//! a spool on the disk → webhook.
//!
//! Promises: a line is whole or not there; what was written survives the end of the process, however it ends; what is in the
//! spool is sent at least once, in its order, and leaves the disk only when it was taken; files are bounded. Must not know requests.

mod counts;
mod lines;
mod rotated;
mod slots;
mod spool;
mod webhook;
mod writer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

pub use self::counts::Counts;
#[cfg(test)]
pub(crate) use self::counts::example;
use self::rotated::Rotated;
use self::spool::Spool;
use self::webhook::Webhook;
use self::writer::Writer;
use crate::config::AuditConfig;
use crate::error::{Error, Kind, Result};
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task};
use crate::trail::Trail;

/// For what waits when the process ends: to be written, and then to be sent.
const PATIENCE: Duration = Duration::from_secs(4);

/// Of one process.
#[derive(Debug)]
pub struct Archive {
    trail: Arc<Trail>,
    counts: Arc<Counts>,
    writer: JoinHandle<()>,
    webhook: Option<Task>,
    ending: watch::Sender<bool>,
}

/// Opens what it writes to, and begins. What cannot be opened is said at once.
pub fn start(config: &AuditConfig, clock: &Clock) -> Result<Archive> {
    let (trail, counts) = (Trail::new(config)?, Arc::new(Counts::new(clock)));
    let file = match config.file.path.as_str() {
        "" => None,
        path => Some(Rotated::open(path, config.file.max_size_mb << 20, config.file.max_files as usize)?),
    };
    let (ending, ends) = watch::channel(false);
    let (spool, webhook) = if config.webhook.url.is_empty() {
        (None, None)
    } else {
        let spool = Arc::new(Spool::own(&config.spool.path, config.spool.max_size_mb << 20)?);
        let webhook = Webhook::new(&config.webhook, &spool, &config.spool.path, &counts, clock)?;
        (Some(spool), Some(task::spawn("audit webhook", webhook.run(ends))))
    };
    counts.watch(&trail, spool.as_ref());
    let writer = Writer { trail: Arc::clone(&trail), counts: Arc::clone(&counts), file, spool };
    let writer = std::thread::Builder::new()
        .name("audit writer".to_owned())
        .spawn(move || writer.run())
        .map_err(|e| Error::own(Kind::Internal, "the writer of the audit log does not start").because(e))?;
    Ok(Archive { trail, counts, writer, webhook, ending })
}

impl Archive {
    /// Where events are put.
    pub fn trail(&self) -> &Arc<Trail> {
        &self.trail
    }

    /// What it makes known of itself.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// When nothing runs any more: writes what waits, and sends what can be sent in a few seconds. The rest is in the spool.
    pub async fn close(self) {
        self.trail.close();
        let joined = tokio::task::spawn_blocking(move || self.writer.join());
        if tokio::time::timeout(PATIENCE, joined).await.is_err() {
            tracing::warn!("what was left for the audit log could not be written in time");
        }
        self.ending.send_replace(true);
        let Some(webhook) = self.webhook else { return };
        if !webhook.ended_within(PATIENCE).await {
            tracing::info!("what the audit webhook has not taken waits in the spool");
        }
    }
}

#[cfg(test)]
mod tests;
