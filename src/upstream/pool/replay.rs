//! Sending a request again that the server says it did nothing for.

use http::{Method, Request};

use crate::upstream::Body;

/// A second copy of a request whose body is in memory, for the cases in which the peer says that it did nothing.
/// Go's server drops streams that cross its GOAWAY on the wire, so this is not rare (protocols.md 7.8).
pub(super) struct Replay(Option<Request<Body>>);

impl Replay {
    pub(super) fn of(request: &Request<Body>) -> Self {
        let body = match request.body() {
            Body::Empty => Body::Empty,
            Body::Full(bytes) => Body::Full(bytes.clone()),
            Body::Incoming(_) | Body::Metered(..) => return Self(None),
        };
        let mut copy = Request::new(body);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        Self(Some(copy))
    }

    /// REFUSED_STREAM promises that nothing was done (RFC 9113 8.7). A GOAWAY does too for the streams beyond its last
    /// one, but h2 reports the others alike when the connection then ends, so only reads are sent again for it; likewise
    /// when an idle HTTP/1.1 connection was closed just as we took it.
    pub(super) fn after(self, error: &hyper::Error) -> Option<Request<Body>> {
        let copy = self.0?;
        let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<h2::Error>());
        let refused = cause.is_some_and(|e| e.is_reset() && e.reason() == Some(h2::Reason::REFUSED_STREAM));
        let leaving = error.is_incomplete_message()
            || cause.is_some_and(|e| e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR));
        let read = matches!(*copy.method(), Method::GET | Method::HEAD);
        (refused || (leaving && read)).then_some(copy)
    }
}
