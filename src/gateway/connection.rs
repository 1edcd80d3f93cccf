//! One accepted connection: what its requests and the streams that outlive them have in common, and when it should take
//! no request more.
//!
//! Promises: it is counted and holds its place from the handshake to the end of the last thing that uses it, an upgraded
//! stream as much as a request. Must not know requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::authenticate::Certificates;
use super::connections::Pass;
use super::shared::Gateway;
use crate::names::TenantId;
use crate::runtime::drain::Drain;
use crate::tenant::life::Follower;

/// A connection without a request, the first or the next, is closed after one to two of these. An h2 client could keep it
/// by answering pings, or before its preface by saying nothing at all. API servers give it 90 s.
const IDLE: Duration = Duration::from_secs(60);
/// Connections that were taken just before the drain get their handshake, and their first request's answer.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) gateway: Arc<Gateway>,
    pub(super) binding: Binding,
    /// Of the tenant that the binding names, from the handshake on.
    life: Option<Follower>,
    /// What the client showed in its handshake.
    pub(super) certificates: Certificates,
    pub(super) is_http2: bool,
    pub(super) peer: SocketAddr,
    /// Held while anything of this connection runs.
    pub(super) drain: Drain,
    /// Requests that have come, and those of them whose account is open.
    begun: AtomicU64,
    open: AtomicU64,
    /// Its place among all connections.
    pub(super) pass: Pass,
}

/// What the handshake decided; the tenant itself is looked up anew for every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binding {
    /// A tenant's own port, whatever the SNI.
    Port(u16, TenantId),
    /// A tenant's name in the SNI.
    Name(String, TenantId),
    /// The shared name, another name or none: the tenant comes by path.
    Shared,
}

impl Binding {
    /// The tenant, when the connection is bound to one.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Port(_, id) | Self::Name(_, id) => Some(id),
            Self::Shared => None,
        }
    }
}

impl Connection {
    /// A connection behind its handshake.
    pub(super) fn new(
        gateway: Arc<Gateway>,
        (binding, life): (Binding, Option<Follower>),
        certificates: Certificates,
        is_http2: bool,
        (peer, pass): (SocketAddr, Pass),
        drain: Drain,
    ) -> Arc<Self> {
        gateway.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let (begun, open) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { gateway, binding, life, certificates, is_http2, peer, drain, begun, open, pass })
    }

    /// Notes that a request has come.
    pub(super) fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one is over, its answer included.
    pub(super) fn end(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether no request runs.
    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Resolves when it should take no request more: its tenant is gone, the process ends, or nobody asks.
    pub(super) async fn is_over(&self) {
        tokio::select! {
            () = self.tenant_gone() => {}
            () = self.farewell() => {}
            () = self.idle() => {}
        }
    }

    /// No request that was sent is lost: h2 gets its GOAWAY in the second half of the leaving phase, when new connections
    /// find other replicas, and not all at once. h1 has no such word but the `Connection: close` of an answer: a
    /// connection that is idle waits for its next request to the end of that phase, and a fresh one for its first a moment
    /// longer.
    async fn farewell(&self) {
        let clock = &self.gateway.clock;
        let mut drain = self.drain.clone();
        let until = drain.leaving().await;
        if self.is_http2 {
            let half = until.saturating_duration_since(clock.instant()) / 2;
            let spread = clock.random_below(u64::try_from(half.as_millis()).unwrap_or(0));
            tokio::select! {
                () = tokio::time::sleep(half + Duration::from_millis(spread)) => {}
                _ = drain.signaled() => {}
            }
            return;
        }
        drain.signaled().await;
        if self.begun.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(FIRST_REQUEST).await;
        }
    }

    /// Never on the shared listener. A tenant of the same name that is made later is another one.
    async fn tenant_gone(&self) {
        match self.life.clone() {
            Some(mut life) => life.is_gone().await,
            None => std::future::pending().await,
        }
    }

    async fn idle(&self) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            tokio::time::sleep(IDLE).await;
            if self.is_idle() && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gateway.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Resolves when a handshake is not worth finishing any more.
pub(super) async fn too_late_to_begin(drain: &mut Drain) {
    drain.signaled().await;
    tokio::time::sleep(FIRST_REQUEST).await;
}
