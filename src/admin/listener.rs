//! A listener with few places, of which a newcomer always gets one, and connections that carry one request and end.
//!
//! Promises: who says nothing, slowly or reads nothing keeps no place; one source address cannot take all places; no
//! connection is refused for want of a place, the one that has owed a request for the longest makes room.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::error::{Error, Kind, Result};
use crate::runtime::source::source;
use crate::runtime::task::{self, Task};

/// More than a kubelet, curl or Prometheus with a long token sends.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much one listener serves, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) places: usize,
    /// Of them from one source address.
    pub(super) per_source: usize,
    /// For the first byte, for a TLS handshake, and for a request's head: each.
    pub(super) head: Duration,
    /// For a whole connection, the answer's last byte included.
    pub(super) whole: Duration,
}

/// Set for a connection that has shown who it is: those that have not make room before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<AtomicBool>);

impl Known {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Listens for `what`.
pub(super) async fn bind(at: SocketAddr, what: &str) -> Result<(TcpListener, SocketAddr)> {
    let failed =
        |e: std::io::Error| Error::own(Kind::Unavailable, format!("cannot listen on {at} for {what}")).because(e);
    let listener = TcpListener::bind(at).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Serves each connection with `serve` until dropped.
pub(super) async fn accept<F, Fut>(listener: &TcpListener, limits: Limits, serve: F)
where
    F: Fn(TcpStream, Known) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut open: Vec<Place> = Vec::with_capacity(limits.places);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for health or metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|place| !place.task.is_finished());
        let source = source(peer.ip());
        if let Some(at) = makes_room(&open, source, limits) {
            open.remove(at);
        }
        let known = Known::default();
        let connection = serve(stream, known.clone());
        let task = task::spawn("admin connection", async move {
            let _ = tokio::time::timeout(limits.whole, connection).await;
        });
        open.push(Place { source, known, task });
    }
}

/// Waits for the first byte without keeping more than the socket. False: none came.
pub(super) async fn speaks(stream: &TcpStream, limits: Limits) -> bool {
    matches!(tokio::time::timeout(limits.head, stream.readable()).await, Ok(Ok(())))
}

/// Reads one request, answers it, and closes.
pub(super) async fn one_request<S, F, Fut>(stream: S, limits: Limits, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(limits.head)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection for health or metrics ended");
    }
}

/// An open connection. They stand in the order in which they came.
struct Place {
    source: IpAddr,
    known: Known,
    task: Task,
}

/// Which connection ends so that one more from `source` can be served. Each carries one request, so the oldest is the one
/// that has been silent for the longest, or slow.
fn makes_room(open: &[Place], source: IpAddr, limits: Limits) -> Option<usize> {
    let oldest = |of: &dyn Fn(&Place) -> bool| {
        let unknown = open.iter().position(|place| of(place) && !place.known.is_set());
        unknown.or_else(|| open.iter().position(of))
    };
    if open.iter().filter(|place| place.source == source).count() >= limits.per_source {
        return oldest(&|place| place.source == source);
    }
    if open.len() >= limits.places { oldest(&|_| true) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: u8, is_known: bool) -> Place {
        let known = Known::default();
        if is_known {
            known.set();
        }
        Place { source: IpAddr::from([10, 0, 0, source]), known, task: task::spawn("place", std::future::pending()) }
    }

    #[tokio::test]
    async fn room_is_made_by_ones_own_first_and_by_the_unknown_before_the_known() {
        let second = Duration::from_secs(1);
        let limits = Limits { places: 4, per_source: 2, head: second, whole: second };
        let from = |source| IpAddr::from([10, 0, 0, source]);
        let mut open = vec![place(1, false), place(2, true), place(2, false)];
        assert_eq!(makes_room(&open, from(1), limits), None);
        assert_eq!(makes_room(&open, from(2), limits), Some(2), "its own, and not the known one");
        open.push(place(3, false));
        assert_eq!(makes_room(&open, from(4), limits), Some(0), "the oldest");
        open[0].known.set();
        assert_eq!(makes_room(&open, from(4), limits), Some(2), "the oldest unknown one");
        open[2].known.set();
        open[3].known.set();
        assert_eq!(makes_room(&open, from(4), limits), Some(0), "somebody always");
    }
}
