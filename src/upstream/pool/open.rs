//! The open connections of one class, those that are being made included, and their bound.
//!
//! Promises: what is chosen is counted under the lock that it was chosen under, so two choosers never share the last place.
//! Must not know requests, or how connections are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::runtime::task::Task;
use crate::upstream::Body;

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

/// What there is for a request. A stream or connection is counted as taken.
pub(super) enum Choice {
    Http2(Arc<Http2>),
    Http1(Http1),
    /// Dial, one at a time.
    Dial,
    /// Dial at once: this server speaks HTTP/1.1 only, and every request needs a connection anyway.
    DialHttp1(Dialing),
    /// There are as many as there may be.
    Full,
}

/// A connection that is being made: it counts until it is there or given up.
pub(super) struct Dialing(Arc<Open>);

/// The connections of one class.
#[derive(Default)]
pub(super) struct Open(Mutex<State>);

#[derive(Default)]
struct State {
    http2: Vec<Arc<Http2>>,
    http1_idle: Vec<Http1>,
    http1_busy: usize,
    dialing: usize,
    speaks_http1: bool,
}

impl Open {
    pub(super) fn choose(self: &Arc<Self>) -> Choice {
        let mut state = self.0.lock();
        if let Some(connection) = state.least_loaded() {
            return Choice::Http2(connection);
        }
        while let Some(connection) = state.http1_idle.pop() {
            if !connection.sender.is_closed() {
                state.http1_busy += 1;
                return Choice::Http1(connection);
            }
        }
        if state.is_full() {
            return Choice::Full;
        }
        if !state.speaks_http1 {
            return Choice::Dial;
        }
        state.dialing += 1;
        Choice::DialHttp1(Dialing(Arc::clone(self)))
    }

    /// A place for a connection that is now made; `None` when there are as many as there may be.
    pub(super) fn dial(self: &Arc<Self>) -> Option<Dialing> {
        let mut state = self.0.lock();
        if state.is_full() {
            return None;
        }
        state.dialing += 1;
        Some(Dialing(Arc::clone(self)))
    }

    /// Takes an HTTP/1.1 connection back, for reuse when it is still good.
    pub(super) fn give_back(&self, connection: Option<Http1>) {
        let mut state = self.0.lock();
        state.http1_busy = state.http1_busy.saturating_sub(1);
        if let Some(mut connection) = connection
            && state.speaks_http1
            && !connection.sender.is_closed()
        {
            connection.idle_since = Instant::now();
            state.http1_idle.push(connection);
        }
    }

    pub(super) fn count(&self) -> usize {
        let mut state = self.0.lock();
        state.http2.retain(|c| !c.sender.is_closed());
        state.http2.len() + state.http1_busy + state.http1_idle.len()
    }

    /// Forgets all: idle ones close now, busy ones with their last body.
    pub(super) fn clear(&self) {
        let mut state = self.0.lock();
        let gone = (std::mem::take(&mut state.http2), std::mem::take(&mut state.http1_idle));
        state.speaks_http1 = false;
        drop(state);
        drop(gone);
    }

    pub(super) fn reap(&self, limit: Duration) {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.http2.retain(|c| {
            let busy = c.active.load(Ordering::Relaxed) > 0;
            !c.sender.is_closed() && (busy || now.duration_since(*c.idle_since.lock()) < limit)
        });
        state.http1_idle.retain(|c| !c.sender.is_closed() && now.duration_since(c.idle_since) < limit);
    }
}

impl Dialing {
    /// It is there, and its first request's.
    pub(super) fn add_http2(self, connection: Http2) -> Arc<Http2> {
        let connection = Arc::new(connection);
        connection.active.fetch_add(1, Ordering::Relaxed);
        let mut state = self.0.0.lock();
        state.speaks_http1 = false;
        state.http2.push(Arc::clone(&connection));
        connection
    }

    /// It is there, and its first request's. Yields where it is to be given back.
    pub(super) fn add_http1(self) -> Arc<Open> {
        let mut state = self.0.0.lock();
        state.speaks_http1 = true;
        state.http1_busy += 1;
        Arc::clone(&self.0)
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.dialing = state.dialing.saturating_sub(1);
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.http2.len() + self.http1_busy + self.dialing >= MAX_CONNECTIONS
    }

    fn least_loaded(&mut self) -> Option<Arc<Http2>> {
        self.http2.retain(|c| !c.sender.is_closed());
        let best = self
            .http2
            .iter()
            .map(|c| (c.active.load(Ordering::Relaxed), c))
            .filter(|(active, c)| *active < STREAM_CAP.min(c.limit.load(Ordering::Relaxed)))
            .min_by_key(|(active, _)| *active)
            .map(|(_, c)| c)?;
        best.active.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(best))
    }
}
