//! Listeners: the shared one, and one for each tenant's port, opened and closed as tenants come and go.
//!
//! Promises: a port that is closed or cannot be opened disturbs nothing else; connections outlive their listener.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics::HandshakeFailure;
use super::serve::{self, Socket};
use super::shared::Gateway;
use crate::runtime::drain::Drain;
use crate::runtime::task::{self, Task};

/// Out of file descriptors: others need them back first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many the kernel keeps until they are accepted (tokio's choice).
const QUEUE: usize = 1024;
/// A port that another process still holds is tried again.
const BIND_RETRY: Duration = Duration::from_secs(5);

/// Serves the shared listener until the drain begins, the leaving phase included.
pub(super) async fn shared(gateway: Arc<Gateway>, listener: TcpListener, drain: Drain) {
    accept(gateway, listener, None, drain).await;
}

/// Keeps one listener for each tenant port in the registry until the drain begins.
pub(super) async fn tenants(
    gateway: Arc<Gateway>,
    ip: IpAddr,
    published: watch::Sender<BTreeSet<u16>>,
    mut drain: Drain,
) {
    let mut changes = gateway.registry.subscribe();
    let mut open: HashMap<u16, Task> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let snapshot = gateway.registry.load();
        gateway.tenants.retain(&snapshot);
        let wanted: BTreeSet<u16> =
            snapshot.tenants().map(|t| t.port).filter(|port| *port != 0 && snapshot.by_port(*port).is_some()).collect();
        drop(snapshot);
        open.retain(|port, _| wanted.contains(port));
        let mut failed = false;
        for port in wanted {
            if open.contains_key(&port) {
                continue;
            }
            match TcpListener::bind((ip, port)).await {
                Ok(listener) => {
                    let work = accept(Arc::clone(&gateway), listener, Some(port), drain.clone());
                    open.insert(port, task::spawn("gateway tenant listener", work));
                }
                Err(error) => {
                    tracing::warn!(port, %error, "cannot listen on a tenant's port");
                    failed = true;
                }
            }
        }
        published.send_replace(open.keys().copied().collect());
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(BIND_RETRY), if failed => {}
            _ = drain.signaled() => break,
        }
    }
    for listener in open.into_values() {
        listener.join().await;
    }
}

async fn accept(gateway: Arc<Gateway>, listener: TcpListener, port: Option<u16>, mut drain: Drain) {
    let mut queued = QUEUE;
    loop {
        // Who connected before the drain is in the queue, and still served.
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept(), if queued > 0 => accepted,
            _ = drain.signaled() => return,
        };
        queued -= usize::from(drain.is_draining());
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&gateway.connections).try_acquire_owned() else {
            gateway.metrics.handshake_failed(HandshakeFailure::TooManyConnections);
            continue;
        };
        gateway.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        let socket = Socket { stream, peer, port, permit };
        let serving = serve::connection(Arc::clone(&gateway), socket, drain.clone());
        task::spawn("gateway connection", serving).owned_by_drain(&drain);
    }
}
