//! Listeners: the shared one, and one for each tenant's port, opened and closed as tenants come and go.
//!
//! Promises: a port that is closed or cannot be opened disturbs nothing else; connections outlive their listener; who
//! connects while a listener's task is begun anew waits in the socket's queue.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};

use super::proxied;
use super::serve::{self, Socket};
use super::shared::Gateway;
use crate::runtime::drain::Drain;
use crate::runtime::task::{self, Task};
use crate::runtime::watched::{IfDown, Watched};

/// Out of file descriptors: others need them back first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many the kernel keeps until they are accepted (tokio's choice).
const QUEUE: usize = 1024;
/// A port that another process still holds is tried again.
const BIND_RETRY: Duration = Duration::from_secs(5);

/// Serves the shared listener until the drain begins, the leaving phase included.
pub(super) fn shared(watched: &Watched, gateway: &Arc<Gateway>, listener: TcpListener, drain: &Drain) -> Task {
    listen("gateway listener", IfDown::NotReady, watched, gateway, (listener, None), drain)
}

/// Keeps one listener for each tenant port in the registry until the drain begins. Tells which there are.
pub(super) fn tenants(
    watched: &Watched,
    gateway: &Arc<Gateway>,
    ip: IpAddr,
    drain: &Drain,
) -> (Task, watch::Receiver<BTreeSet<u16>>) {
    let (published, ports) = watch::channel(BTreeSet::new());
    let listeners = Arc::new(Listeners {
        gateway: Arc::clone(gateway),
        watched: watched.clone(),
        ip,
        open: Mutex::default(),
        published,
    });
    let during = drain.clone();
    let task = watched.keep("gateway tenant listeners", IfDown::NotReady, drain, move || {
        let (listeners, drain) = (Arc::clone(&listeners), during.clone());
        async move {
            listeners.follow(drain).await;
            Ok(())
        }
    });
    (task, ports)
}

/// The tenants' own listeners, whoever opens and closes them.
struct Listeners {
    gateway: Arc<Gateway>,
    watched: Watched,
    ip: IpAddr,
    open: Mutex<HashMap<u16, Task>>,
    published: watch::Sender<BTreeSet<u16>>,
}

impl Listeners {
    async fn follow(&self, mut drain: Drain) {
        let gateway = &self.gateway;
        let mut changes = gateway.registry.subscribe();
        let mut open = self.open.lock().await;
        loop {
            changes.mark_unchanged();
            let snapshot = gateway.registry.load();
            gateway.tenants.retain(&snapshot);
            gateway.scrapes.retain(&snapshot);
            let held = |port: &u16| *port != 0 && snapshot.by_port(*port).is_some();
            let wanted: BTreeSet<u16> = snapshot.tenants().map(|tenant| tenant.port).filter(held).collect();
            drop(snapshot);
            open.retain(|port, _| wanted.contains(port));
            let mut failed = false;
            for port in wanted {
                if open.contains_key(&port) {
                    continue;
                }
                match TcpListener::bind((self.ip, port)).await {
                    Ok(listener) => {
                        let at = (listener, Some(port));
                        let task = listen("gateway tenant listener", IfDown::Noted, &self.watched, gateway, at, &drain);
                        open.insert(port, task);
                    }
                    Err(error) => {
                        tracing::warn!(port, %error, "cannot listen on a tenant's port");
                        failed = true;
                    }
                }
            }
            self.published.send_replace(open.keys().copied().collect());
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
        for (_, listener) in open.drain() {
            listener.join().await;
        }
    }
}

/// Accepts on a socket that outlives whatever becomes of the task.
fn listen(
    name: &'static str,
    if_down: IfDown,
    watched: &Watched,
    gateway: &Arc<Gateway>,
    (listener, port): (TcpListener, Option<u16>),
    drain: &Drain,
) -> Task {
    let (gateway, listener, during) = (Arc::clone(gateway), Arc::new(listener), drain.clone());
    watched.keep(name, if_down, drain, move || {
        let (gateway, listener, drain) = (Arc::clone(&gateway), Arc::clone(&listener), during.clone());
        async move {
            accept(gateway, &listener, port, drain).await;
            Ok(())
        }
    })
}

async fn accept(gateway: Arc<Gateway>, listener: &TcpListener, port: Option<u16>, mut drain: Drain) {
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
        let pass =
            match gateway.connections.enter(Some(peer.ip()).filter(|ip| !proxied::is_relay(&gateway.config, *ip))) {
                Ok(pass) => pass,
                Err(why) => {
                    gateway.metrics.handshake_failed(why);
                    continue;
                }
            };
        gateway.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        let socket = Socket { stream, peer, port, pass };
        let serving = serve::connection(Arc::clone(&gateway), socket, drain.clone());
        task::spawn("gateway connection", serving).owned_by_drain(&drain);
    }
}
