//! The choice of a connection for a request, and what became of the last dials.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::lease::Lease;
use super::open::{Choice, Connection, Dialing, Open};
use crate::error::{Error, Kind, Result, Side};
use crate::upstream::Target;

/// What to do for a request.
pub(super) enum Found {
    Lease(Lease),
    /// Dial, one at a time.
    Dial,
    /// Dial at once.
    DialHttp1(Dialing),
}

/// The connections of one class.
#[derive(Default)]
pub(super) struct Connections {
    open: Arc<Open>,
    pub(super) dialing: tokio::sync::Mutex<()>,
    failures: AtomicU64,
    last_failure: Mutex<Option<(Side, Kind, String)>>,
}

impl Connections {
    pub(super) fn find(&self, target: &Target) -> Result<Found> {
        match self.open.choose() {
            Choice::Http2(connection) => Ok(Found::Lease(Lease::http2(connection))),
            Choice::Http1(connection) => Ok(Found::Lease(Lease::http1(connection, Arc::clone(&self.open)))),
            Choice::Dial => Ok(Found::Dial),
            Choice::DialHttp1(dialing) => Ok(Found::DialHttp1(dialing)),
            Choice::Full => Err(full(target)),
        }
    }

    /// A place for the connection that is dialed now.
    pub(super) fn dial(&self, target: &Target) -> Result<Dialing> {
        self.open.dial().ok_or_else(|| full(target))
    }

    pub(super) fn count(&self) -> usize {
        self.open.count()
    }

    /// Forgets all: idle ones close now, busy ones with their last body.
    pub(super) fn clear(&self) {
        self.open.clear();
    }

    pub(super) fn reap(&self, limit: Duration) {
        self.open.reap(limit);
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    pub(super) fn note_failure(&self, error: &Error) {
        *self.last_failure.lock() = Some((error.side(), error.kind(), error.message().to_owned()));
        self.failures.fetch_add(1, Ordering::AcqRel);
    }

    /// The failure of a dial that ended while the caller waited for its turn.
    pub(super) fn failed_since(&self, seen: u64) -> Result<()> {
        if self.failures() == seen {
            return Ok(());
        }
        match &*self.last_failure.lock() {
            Some((side, kind, message)) => Err(Error::new(*side, *kind, message.clone())),
            None => Ok(()),
        }
    }
}

/// The connection that was dialed, for its first request.
pub(super) fn first(connection: Connection, dialing: Dialing) -> Lease {
    match connection {
        Connection::Http2(connection) => Lease::http2(dialing.add_http2(connection)),
        Connection::Http1(connection) => Lease::http1(connection, dialing.add_http1()),
    }
}

fn full(target: &Target) -> Error {
    Error::new(target.side, Kind::TooManyRequests, "too many requests to this API server are open")
}
