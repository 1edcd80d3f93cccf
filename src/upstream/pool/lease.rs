//! A place on a connection, held from the choice of the connection to the end of the response body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::open::{Http1, Http2, Open};
use crate::upstream::Body;

/// Why a request failed, and the request itself when nothing of it was sent.
pub(super) type Failed = (hyper::Error, Option<Request<Body>>);

/// A place on a connection.
pub(super) struct Lease(Place);

enum Place {
    Http2(Arc<Http2>),
    Http1 { connection: Option<Http1>, home: Arc<Open> },
}

/// A response body that keeps its place on the connection until it ends or is dropped.
pub struct ResponseBody {
    body: Incoming,
    lease: Option<Lease>,
}

impl Lease {
    /// The caller has counted the stream already.
    pub(super) fn http2(connection: Arc<Http2>) -> Self {
        Self(Place::Http2(connection))
    }

    pub(super) fn http1(connection: Http1, home: Arc<Open>) -> Self {
        Self(Place::Http1 { connection: Some(connection), home })
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.0, Place::Http2(_))
    }

    /// Whether a reused HTTP/1.1 connection is done with its last response; false when it closed instead.
    pub(super) async fn ready(&mut self) -> bool {
        match &mut self.0 {
            Place::Http2(_) => true,
            Place::Http1 { connection, .. } => match connection {
                Some(connection) => connection.sender.ready().await.is_ok(),
                None => false,
            },
        }
    }

    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        let outcome = match &mut self.0 {
            Place::Http2(connection) => connection.sender.clone().try_send_request(request).await,
            Place::Http1 { connection: Some(connection), .. } => connection.sender.try_send_request(request).await,
            Place::Http1 { connection: None, .. } => unreachable!("a lease loses its connection only when dropped"),
        };
        outcome.map_err(|mut failed| {
            let unsent = failed.take_message();
            (failed.into_error(), unsent)
        })
    }

    /// Gives the place up without reuse of an HTTP/1.1 connection that failed.
    pub(super) fn retire(mut self) {
        if let Place::Http1 { connection, .. } = &mut self.0 {
            connection.take();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match &mut self.0 {
            Place::Http2(connection) => {
                if connection.active.fetch_sub(1, Ordering::Relaxed) == 1 {
                    *connection.idle_since.lock() = Instant::now();
                }
            }
            Place::Http1 { connection, home } => home.give_back(connection.take()),
        }
    }
}

impl ResponseBody {
    pub(super) fn new(body: Incoming, lease: Lease) -> Self {
        let lease = (!body.is_end_stream()).then_some(lease);
        Self { body, lease }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            this.lease.take();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.body.fmt(f)
    }
}
