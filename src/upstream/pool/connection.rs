//! The open connections of one class and the choice among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::lease::Lease;
use crate::error::{Error, Kind, Result, Side};
use crate::runtime::task::Task;
use crate::upstream::{Body, Target};

/// Below kube-apiserver's 100, so that resets that still count there do not block us.
pub(super) const STREAM_CAP: usize = 90;
/// Bounds what one class may hold open towards one server.
const MAX_CONNECTIONS: usize = 256;

/// One multiplexed connection.
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Body>,
    /// Streams in use, response bodies included.
    pub(super) active: AtomicUsize,
    /// What the peer allows, published by the driver.
    pub(super) limit: Arc<AtomicUsize>,
    pub(super) idle_since: Mutex<Instant>,
    pub(super) _driver: Task,
}

/// One connection that carries one request at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Body>,
    pub(super) idle_since: Instant,
    pub(super) _driver: Task,
}

/// What a dial brings.
pub(super) enum Connection {
    Http2(Http2),
    Http1(Http1),
}

/// What to do for a request.
pub(super) enum Found {
    Http2(Lease),
    Http1(Lease),
    /// Dial, one at a time.
    Dial,
    /// Dial at once: this server speaks HTTP/1.1 only, and every request needs a connection anyway.
    DialHttp1,
}

/// The connections of one class.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
    pub(super) dialing: tokio::sync::Mutex<()>,
    failures: AtomicU64,
    last_failure: Mutex<Option<(Side, Kind, String)>>,
}

#[derive(Default)]
struct Open {
    http2: Vec<Arc<Http2>>,
    http1_idle: Vec<Http1>,
    http1_busy: usize,
    speaks_http1: bool,
}

impl Connections {
    pub(super) fn find(self: &Arc<Self>, target: &Target) -> Result<Found> {
        let mut open = self.open.lock();
        if let Some(lease) = open.least_loaded() {
            return Ok(Found::Http2(lease));
        }
        while let Some(connection) = open.http1_idle.pop() {
            if !connection.sender.is_closed() {
                open.http1_busy += 1;
                return Ok(Found::Http1(Lease::http1(connection, Arc::clone(self))));
            }
        }
        if open.http2.len() + open.http1_busy >= MAX_CONNECTIONS {
            return Err(Error::new(
                target.side,
                Kind::TooManyRequests,
                "too many requests to this API server are open",
            ));
        }
        Ok(if open.speaks_http1 { Found::DialHttp1 } else { Found::Dial })
    }

    pub(super) fn find_http2(&self) -> Option<Lease> {
        self.open.lock().least_loaded()
    }

    pub(super) fn add(self: &Arc<Self>, connection: Connection) -> Lease {
        let mut open = self.open.lock();
        match connection {
            Connection::Http2(connection) => {
                let connection = Arc::new(connection);
                open.speaks_http1 = false;
                open.http2.push(Arc::clone(&connection));
                connection.active.fetch_add(1, Ordering::Relaxed);
                Lease::http2(connection)
            }
            Connection::Http1(connection) => {
                open.speaks_http1 = true;
                open.http1_busy += 1;
                Lease::http1(connection, Arc::clone(self))
            }
        }
    }

    /// Takes an HTTP/1.1 connection back, for reuse when it is still good.
    pub(super) fn give_back(&self, connection: Option<Http1>) {
        let mut open = self.open.lock();
        open.http1_busy = open.http1_busy.saturating_sub(1);
        if let Some(mut connection) = connection
            && open.speaks_http1
            && !connection.sender.is_closed()
        {
            connection.idle_since = Instant::now();
            open.http1_idle.push(connection);
        }
    }

    pub(super) fn count(&self) -> usize {
        let mut open = self.open.lock();
        open.http2.retain(|c| !c.sender.is_closed());
        open.http2.len() + open.http1_busy + open.http1_idle.len()
    }

    /// Forgets all: idle ones close now, busy ones with their last body.
    pub(super) fn clear(&self) {
        let mut open = self.open.lock();
        let gone = (std::mem::take(&mut open.http2), std::mem::take(&mut open.http1_idle));
        open.speaks_http1 = false;
        drop(open);
        drop(gone);
    }

    pub(super) fn reap(&self, limit: Duration) {
        let now = Instant::now();
        let mut open = self.open.lock();
        open.http2.retain(|c| {
            let busy = c.active.load(Ordering::Relaxed) > 0;
            !c.sender.is_closed() && (busy || now.duration_since(*c.idle_since.lock()) < limit)
        });
        open.http1_idle.retain(|c| !c.sender.is_closed() && now.duration_since(c.idle_since) < limit);
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

impl Open {
    fn least_loaded(&mut self) -> Option<Lease> {
        self.http2.retain(|c| !c.sender.is_closed());
        let best = self
            .http2
            .iter()
            .map(|c| (c.active.load(Ordering::Relaxed), c))
            .filter(|(active, c)| *active < STREAM_CAP.min(c.limit.load(Ordering::Relaxed)))
            .min_by_key(|(active, _)| *active)
            .map(|(_, c)| c)?;
        // Counted under the lock, so two choosers never share the last place.
        best.active.fetch_add(1, Ordering::Relaxed);
        Some(Lease::http2(Arc::clone(best)))
    }
}
